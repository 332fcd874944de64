// Package client talks to an ovgate node. The CLI uses it, and so does every
// program of this repository outside the node. client.gen.go holds the types and
// one method per operation of gateway/api/openapi.yaml, generated; the rest is
// what a caller needs around them:
//
//	opts, err := client.Discover(client.System(), dataDir) // or Options by hand
//	api, err  := client.New(opts)
//	disk, err := client.Get[client.VDisk](api.GetVDisk(ctx, "demo"))
//	err        = client.Done(api.DeleteVDisk(ctx, "demo"))
//
// What it reads
//
//	DIR/api.json      {"url": "https://127.0.0.1:8443", "caFile": "tls/ca.pem"}
//	                  written by ovgate serve; caFile is absolute or below DIR,
//	                  and absent with plain HTTP
//	DIR/admin.token   one line, the bearer token of this node's operator, mode 0600
//	OVGATE_URL, OVGATE_TOKEN, OVGATE_CA (file name) elsewhere
//
// Invariants
//  1. A token goes over TLS with a verified certificate, or to a loopback
//     address; never elsewhere, and never after a redirect.
//  2. A token file that others than its owner can read is not used.
//  3. Every failure is an *APIError (the node answered) or an
//     *UnreachableError (it did not); both say what to do where that is known.
//  4. An answer is read up to MaxAnswer bytes, whoever sends it.
//
// It keeps no state and does not retry on its own; net/http repeats a request
// that a closed idle connection swallowed, creates too when they carry an
// Idempotency-Key.
package client
