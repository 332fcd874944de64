// Package dtl is the distributed transaction log: the part of a vDisk's journal that no
// committed head covers, kept on another node too (rules O2 and O3).
//
// A Server keeps copies for other nodes, in a journal pool of its node, as records of
// package journal: a failover to this node finds the tail where it would find its own. A
// Client sends the records of a node's vDisks to one peer, over one connection. Who owns
// a vDisk, and whether its copy counts, is in the registry; nothing here decides that.
//
// # Protocol
//
// Frames of internal/wire, magic "OVGD", version 1. The client begins with a hello; then
// every request has one answer, in the order of its vDisk, and in any order between
// vDisks. Meta of the messages, with the encodings of wire.Encoder:
//
//	hello    1    String cluster | String node | String peer      the answer is an answer
//	open     2    request: epoch and first seq of a new copy      -> its generation
//	append   3    request; body: a record                         -> newest durable seq
//	release  4    request: all up to seq is on the backend
//	resume   5    request: goes on with a copy                    -> newest durable seq
//	drop     6    request: the copy is not needed any more
//	ping     7    request
//	yield    8    request: nobody is served by that opening any more
//
//	request  Uint64 id | Bytes vdisk | Uint32 epoch | Uint32 cluster bytes |
//	         Uint64 generation | Uint64 seq
//	answer   100  Uint64 id | Uint8 code | Uint64 generation | Uint64 seq | String text
//
// # A copy
//
//	         open                    append, release
//	none ───────────► kept {node, epoch, generation, seqs start..durable}
//	 ▲  ▲               │   │ ▲
//	 │  └── drop ───────┘   │ └─ open of a higher epoch: new generation, empty
//	 │                      ▼ Adopt: this node takes the vDisk over
//	 └──── Discard ──── adopted: refuses all of that epoch and lower ones
//
// Beside its chunks it has a small file, DIR/VDISK, that names node, epoch, generation,
// start, what was released and where its newest chunk begins.
//
// # Invariants
//
//	D1  A generation is a random number drawn when a copy begins, and durable before it is
//	    told. It is never told again of a copy that lacks a record that was answered: a
//	    restart that finds damage, another pool, a hole or no newest chunk gives it up.
//	D2  Records are taken in seq order, from the start on, of the copy's epoch and node
//	    only, and answered when they are durable. One that is there already is answered
//	    again.
//	D3  A lower epoch is refused for ever. A higher one begins an empty copy: what an open
//	    asks for starts above everything that its committed head covers (E2).
//	D4  Each answer is a grant to its node: 2 s from the moment it was asked for, by the
//	    node's monotonic clock. The server does not let another epoch in before the grant
//	    it gave, and a tenth more, is over; after a restart it waits as long, since it does
//	    not know what it gave. When it lets one in, the sessions of the node before end,
//	    and a new one counts for a vDisk only after its resume was answered. A vDisk that
//	    its node yielded is let go at once, and the sessions of that node go on. A node
//	    that may serve nothing, by what the server is told, and asks all the same, gets no
//	    grant while a takeover from it waits, and as long again.
//	D5  What a copy gives back is durable as released before a chunk is, so a restart never
//	    takes the gap for a hole.
//	D6  Chunks of other epochs than that of the copy are not touched: they may be of a
//	    journal that this node has of the vDisk. An epoch below that of one is refused.
//	D7  A client is the node of its certificate; without TLS, which only loopback does
//	    without, the one that it says.
//	D8  Nobody waits for another vDisk: a copy has its own queue, a full server refuses.
//	    Sizes and counts are bounded for a copy, a session and all together.
//
//	D9  A copy that the registry does not name is given up (Collect) with its requests held
//	    until the registry has answered; without an answer it stays. Its owner sends one
//	    more request after the registry named it, which then is refused.
//
// It does not resend what a node lost: a copy begins where the log is when it is asked for,
// and counts once the backend has all that came before.
package dtl
