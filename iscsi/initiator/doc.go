// Package initiator is a small iSCSI initiator (RFC 7143) for tests, drills and
// benches: one connection per session, error recovery level 0, CHAP, digests,
// and as many commands in flight as the target's window allows.
//
// Commands are asynchronous: Submit queues one, a single writer sends what is
// queued in one writev, a single reader completes commands as answers arrive.
//
//	Submit -> queue -> writer -> socket -> reader -> Command.Done
//
// Invariants:
//
//	N1  A Command that Submit accepted is completed exactly once: by its answer,
//	    or by the error that ended the session.
//	N2  Data belongs to the session from Submit until Done.
//	N3  The writer sends no CmdSN above MaxCmdSN.
//	N4  A failed session is never repaired: commands are not resent.
//
// It does not multiplex connections, recover sessions, or trust the target less
// than a test needs.
package initiator
