// Package forward takes SCSI commands from the node that an initiator is signed in to
// to the node that serves the logical unit. Forwarder is the near end (iscsi.Forwarder),
// Server the far end; between two nodes there is one connection in each direction that
// is used, framed by internal/wire, with TLS below it where the gateway says so.
//
//	initiator -> iscsi.Server -> Forwarder ==link==> Server -> iscsi.Server -> Disk
//	             (not the owner)                     (the owner: executes, as of the nexus)
//
// Messages; meta is what is in braces, body what is large:
//
//	Hello   {cluster, node, peer}              Welcome  {code, clock, text}
//	Ping    {}                                 Pong     {clock}
//	Open    {nexus, again, target, initiator,  Opened   {nexus, code}
//	         isid, group}
//	Command {nexus, tag, lun, unit, flags,     Answer   {nexus, tag, outcome, status, transferred,
//	         expected, cdb, expires} data-out            sense} data-in
//	Abort   {nexus, tag}                       (its Answer: aborted)
//	Reset   {nexus, tag, lun, unit}            ResetOver{nexus, tag, code}
//	Close   {nexus}                            Gone     {nexus}
//
// A nexus is a session of an initiator, by a number that its node draws anew at every
// opening: that is its generation. Commands of one that has ended are not executed.
//
// Time. expires is on the owner's monotonic clock. The forwarder knows a bound of that
// clock: what the owner said last, plus the time since it heard that. So a command that
// is expires old by the owner's clock is at least iscsi.CommandMaxAge old by both, and
// one whose connection broke is over by then, or was given to the Disk before
// everything that came later.
//
//	arrival              connection lost           arrival + CommandMaxAge
//	   |-- wait, Park -->|-- sent -->x                      |
//	   |   BUSY                      '- unknown ----------->| ABORTED COMMAND
//
// Invariants:
//
//	F1  The owner decides: reservations, unit attentions, atomic commands, task
//	    management. There is one hop: an owner that is none any more says so, before
//	    anything of the command has effect.
//	F2  A command completes once, and never before it is certain that nothing more of it
//	    will take effect, or that what does was given to the Disk before later commands.
//	F3  A command is sent once. One that was sent and not answered is sent again only if
//	    it reads data of the medium and does nothing else.
//	F4  A command that cannot be sent waits at most Park, then it is BUSY: a logical unit
//	    that moves is never absent.
//	F5  Sizes, numbers of commands and nexuses, and waits are bounded on both ends. A peer
//	    that is silent for linkLost loses the connection.
//	F6  A process that was paused for longer than pause sends no command of a session from
//	    before: what its sockets hold may be of any age. Such sessions end.
//	F7  While the owner lives, as others hear it, and was not reached from here for Away,
//	    commands that were not sent end at once as on a path that is unavailable, so that
//	    initiators use another one; with the link it is a path again.
//	F8  A node that serves a unit no more may never answer what it has of it: it lost the
//	    unit, and waits for what it cannot have. Such commands end as on a connection that
//	    was lost, and resets fail.
//
// It does not choose owners, keep order among commands (task sets are the forwarder's),
// or authenticate beyond the name that the gateway found in the certificate.
package forward
