// Package node runs an ovgate node: it wires the parts together and owns the
// data directory. The verb `ovgate serve` calls Run; tests do too.
//
// # Data directory (mode 0700)
//
//	DIR/lock           held while a node runs; its process id
//	DIR/format         {"format":1}; 2 when the registry is in etcd
//	DIR/node.json      {"format":1,"id":UUID,"name":...}: who the node is
//	DIR/kv.db          registry and model (internal/kv)
//	DIR/cluster.json   {"format":1,"etcd":PREFIX,"members":[URL]}: registry and model are in
//	                   etcd, and kv.db is kv.db.moved; members of a node that joined
//	DIR/join.json      {"format":1,"cluster":UUID,"node":UUID}: a join that has not ended
//	DIR/admin.token    bearer token of the local operator, 0600
//	DIR/setup.token    set-up token while no user exists, 0600
//	DIR/api.json       {"url":"https://...","caFile":"tls/ca.pem"}: where the API is
//	DIR/seal.key       32 bytes in hex, 0600: seals CHAP secrets, those of
//	                   backends and keys of vPools in kv.db; one for all nodes of a cluster
//	DIR/tls/           ca.pem, ca-key.pem, server.pem, server-key.pem; of a member also
//	                   node.pem, node-key.pem, which it shows other nodes. ca.pem is the
//	                   cluster's then, whose key is in the registry, sealed
//	DIR/local/         engine: journal, map checkpoints
//	DIR/audit/         audit log of the API (observe/audit)
//	DIR/events/        history of events (observe/event)
//	DIR/metrics/       history of performance (observe/series)
//	DIR/backend/NAME/  default place of the local backend of vPool NAME
//
// # Start and stop
//
//	lock → format → configuration, ports → kv → node.json → model → cluster → lease, users → engine host
//	→ gossip → vPools → vDisks → targets → listeners → ready
//	stop: listeners and sessions (drain) → vDisks (drain, commit, checkpoint)
//	→ API → gossip → engine host → lease → kv → lock
//
// # Invariants
//
//	N1  Nothing in a data directory changes before its lock is held and its
//	    format was found to be known.
//	N2  A vDisk or vPool that does not come up leaves the node up (control, C7).
//	N3  Plain HTTP is served on loopback only.
//	N4  Secrets go to files of mode 0600 and, the set-up token, to standard
//	    output; never to the log.
//	N5  A join writes cluster.json last but for the end of join.json, with which nothing is
//	    served: a directory is no node's, or all of one's. The token's secret goes to nobody
//	    but who shows a certificate of the authority that the token names.
//	N6  A node without its record in the registry of a cluster serves nothing.
//	N7  A node that has served with a registry in etcd makes no new one there when all records
//	    are gone: they may come from a backup.
package node
