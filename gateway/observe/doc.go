// Package observe watches the node: a sampler that turns the engine's counters
// into rates and percentiles once a second, a hub that passes events on to
// browsers, health checks that name causes in words, and the Prometheus metrics.
// gateway/node wires it, gateway/api serves what it knows.
//
//	control.Running ──1/s──► Sampler ──► Performance, Series      (API, charts)
//	                            ├──────► Hub "metrics"
//	                            └──────► series.Store            (history)
//	control/model changes ─────────────► Hub "vdisk", "vpool", "session", "health"
//	Sampler, control, iscsi ───────────► Metrics (Prometheus)
//
// # Invariants
//
//	V1  Everything kept is bounded: samples per object, objects with samples,
//	    events in the ring, clients, bytes waiting for one client.
//	V2  A slow or dead client never delays the hub or another client.
//	V3  An object's events are at most one per second, and the last one shows its
//	    newest state.
//	V4  Nothing here is on the data path: the engine's counters are read, not fed.
package observe
