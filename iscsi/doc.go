// Package iscsi is ovgate's iSCSI target (RFC 7143): a front end that accepts
// initiators, and a SCSI device server (SAM-5, SPC-4, SBC-3) over the Disk
// interface. The gateway is its only caller: it implements Disk over a vDisk,
// describes targets with TargetSpec, and hands listeners to Server.Serve.
//
// A PDU, as both directions use it:
//
//	 0        4         8               16     20            48
//	+--------+---------+---------------+------+-------------+
//	| op flg | AHS len | LUN or ISID   | ITT  | op-specific |  BHS
//	|        | DSL(24) |               |      |             |
//	+--------+---------+---------------+------+-------------+
//	| AHS (skipped)    | header digest (crc32c, optional)   |
//	+------------------+------------------------------------+
//	| data segment, padded to 4 | data digest (optional)    |
//	+---------------------------+---------------------------+
//
// A command, from the wire to the wire:
//
//	socket -> reader -> task -> check -> Disk.Submit -> Complete -> queue -> writer -> socket
//	            |                 |          (inline or from another goroutine)  |
//	            +- R2T, Data-Out -+                      batches into one writev +
//
// Invariants; code that keeps one names its number:
//
//	I1  Status GOOD is sent only after every Op of the command completed with a
//	    nil error. An error of the Disk always becomes another status.
//	I2  A task has at most one Op submitted at a time, and its buffer is touched
//	    by nobody else from Submit until Complete.
//	I3  A task is answered at most once. An aborted task is not answered at all,
//	    and the task management answer leaves after its last Op completed.
//	I4  A connection that is closed submits no further Op; a session counts as
//	    gone only after its last Op completed. Reinstatement waits for that.
//	I5  Nothing is allocated by a length field of the peer before it was bounded;
//	    data lands only between 0 and min(EDTL, length in the CDB).
//	I6  StatSN is assigned by the writer in wire order; MaxCmdSN never decreases.
//	I7  gotgt is called from gotgt.go only, with buffers of our own, behind recover.
//	I8  Secrets are compared in constant time and never reach a log or an error.
//
// Not done: error recovery levels 1 and 2, several connections per session,
// bidirectional commands, persistent reservations.
// The task attributes ORDERED and HEAD OF QUEUE are executed as SIMPLE.
package iscsi
