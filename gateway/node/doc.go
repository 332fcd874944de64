// Package node runs an ovgate node: it wires the parts together and owns the
// data directory. The verb `ovgate serve` calls Run; tests do too.
//
// # Data directory (mode 0700)
//
//	DIR/lock           held while a node runs; its process id
//	DIR/format         {"format":1}
//	DIR/kv.db          registry and model (internal/kv)
//	DIR/admin.token    bearer token of the local operator, 0600
//	DIR/setup.token    set-up token while no user exists, 0600
//	DIR/api.json       {"url":"https://...","caFile":"tls/ca.pem"}: where the API is
//	DIR/seal.key       32 bytes in hex, 0600: seals CHAP secrets, those of
//	                   backends and keys of vPools in kv.db
//	DIR/tls/           ca.pem, ca-key.pem, server.pem, server-key.pem
//	DIR/local/         engine: journal, map checkpoints
//	DIR/backend/NAME/  default place of the local backend of vPool NAME
//
// # Start and stop
//
//	lock → format → configuration, ports → kv → model, users → engine host
//	→ vPools → vDisks → targets → listeners → ready
//	stop: listeners and sessions (drain) → vDisks (drain, commit, checkpoint)
//	→ API → engine host → kv → lock
//
// # Invariants
//
//	N1  Nothing in a data directory changes before its lock is held and its
//	    format was found to be known.
//	N2  A vDisk or vPool that does not come up leaves the node up (control, C7).
//	N3  Plain HTTP is served on loopback only.
//	N4  Secrets go to files of mode 0600 and, the set-up token, to standard
//	    output; never to the log.
package node
