// Package event keeps a node's history of events: what happened to which object, in words, with
// how much it matters and what to do. Parts of the node tell it through a Sink; gateway/api
// serves it, observe/syslog sends it on.
//
// It is a linelog of the name event: DIR/event-SEQ.log, a record is an Event as JSON.
//
// # Invariants
//
//	T1  Whoever tells an event waits for nothing: no disk, no reader, no network.
//	T2  A full or broken disk loses events and nothing else: up to maxPending wait in memory,
//	    what is beyond is counted, and the count is an event.
//	T3  The first joinAfter events of a code on an object within joinWithin are kept one by
//	    one; those that follow in that time are one event with their number.
//	T4  Files are bounded by MaxBytes and MaxAge together, an event by Clip (N3).
//	T5  What Told is told is told once, in the order of the log, also when it cannot be written.
//
// It is about what the node knows of; what people asked for is in observe/audit.
package event
