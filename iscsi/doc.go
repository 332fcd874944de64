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
//	| AHS              | header digest (crc32c, optional)   |
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
// Access, from a login to a logical unit:
//
//	target name + local address -> portal -> port group tag (= relative target port,
//	                                         access state)
//	target name + initiator name -> group -> CHAP -> view -> LUN -> logical unit
//
// A session keeps a pointer to the view of its group; UpdateTarget makes new views
// and puts them in the place of the old ones.
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
//	I9  A session reads, changes, resets and hears of the logical units of its view
//	    only. Without a group that admits its initiator's name there is no session.
//	I10 An ORDERED task runs after everything older in its task set and before
//	    everything younger; a task that will never run holds nobody back.
//	I11 How often a peer tries does not decide how much is logged.
//
// Reservations (SPC-4 clause 5.12; rule O5 on one node). A nexus is an initiator
// name, an ISID and a portal group; it outlives its sessions. What it may do is
// decided by a registry of keys, which changes in these steps, one change of a
// logical unit at a time:
//
//	PERSISTENT RESERVE OUT -> decide -> old and new state bind -> drain -> OpReserve
//	                 GOOD <- abort, if asked <- unit attentions <- new state binds <-+
//
//	R1  A change is answered GOOD only after OpReserve completed with nil.
//	R2  A command counts as running before it is checked, and a change binds before
//	    it looks for running commands. So each command either is checked against
//	    the change, or is waited for by it; nothing goes between.
//	R3  No OpReserve is submitted while a command is running that the new state
//	    forbids: the log holds no write behind a record which forbids it. After the
//	    answer nothing of a nexus that lost its access takes effect: what it had
//	    running is over, what waited for data is checked again, and its own changes
//	    that were queued are refused.
//	R4  A failed OpReserve leaves the old state in force. Until it is settled a
//	    command must be allowed by both: what the old state forbids is a RESERVATION
//	    CONFLICT, what only the new one forbids is BUSY, since it may never come.
//	R5  Registrations and reservations survive logout, loss of the connection,
//	    reinstatement and resets. RESERVE(6/10) survives none of them.
//	R6  Reservations belong to the Disk of a unit: what was stored with APTPL is in
//	    force before the first command of a published unit runs; other state is gone
//	    then, the PRgeneration is 0, and who saw another Disk there before is told by
//	    POWER ON. A stored state that cannot be read keeps the unit from being
//	    published.
//	R7  Nothing waits in a connection's reader or in a Disk's completion. Registries
//	    and parameter lists are bounded (maxRegistrations, maxPRList).
//
// Units of other nodes. A logical unit with a RemoteDisk is served by another node, which
// executes its commands as a whole (remote.go, served.go, package forward):
//
//	session -> task -> Forwarder ==> ServedNexus -> task -> checks -> Disk
//	   ^                                                        |
//	   +---- status, sense, data-in <===========================+
//
//	F1  The owner decides all but what names the unit: INQUIRY, REPORT LUNS and REPORT
//	    TARGET PORT GROUPS are answered by the node that was asked, so that a unit which
//	    moves is there.
//	F2  A forwarded command is answered when it is certain that nothing more of it takes
//	    effect; task management waits for that, and where it cannot be known the session
//	    ends instead of the answer.
//	F3  A command that is older than CommandMaxAge, or whose nexus has ended, is not
//	    submitted to the Disk any more; a Disk that made an Op wait asks (Withdrawer).
//	F4  When a unit changes its node, the nexuses hear ASYMMETRIC ACCESS STATE CHANGED, and
//	    I_T NEXUS LOSS where what was kept for them in memory is gone.
//
// R1 to R3 are what O5 asks for: the record is in the journal, in order with the
// writes, and "checked again at the sequence point" holds because at that point
// no write is under way that the check would drop. A crash leaves the old or the
// new state as a whole, never the new one with a write behind it that it forbids.
//
// Not done: error recovery levels 1 and 2, several connections per session,
// bidirectional commands.
package iscsi
