// Package audit keeps a node's audit log: who changed what, from where, and how it ended.
// gateway/api writes an entry for each change that is asked of the node and serves them.
//
// # Files
//
//	DIR/audit-SEQ.log    SEQ: 16 hex digits, the sequence number of the first line
//	line:                crc32c of the JSON, 8 hex digits | " " | record as JSON | "\n"
//
// A record is an Entry with a kind: "begin" is written before a change is made, "end" after
// it, with its outcome; "end" alone is an entry of its own. Sequence numbers grow by one.
//
// # Invariants
//
//	A1  A change is begun in the log before it is made, and ended before it is answered,
//	    durably. The next start ends with status 0, "its outcome is unknown", what a crash
//	    left begun.
//	A2  The log never holds a change up for longer than waitMost, and never fails one. While
//	    the disk is full or broken, up to maxPending lines wait in memory and are written when
//	    it works again; what is beyond is counted, and the count is an entry. What waits when
//	    the process ends is lost.
//	A3  A torn tail is cut, and a damaged line skipped; no other line is lost with it. A line
//	    that a failed write left twice is read once.
//	A4  Files are bounded by MaxBytes and MaxAge together. At most one file an hour goes for
//	    its age, so that a clock that jumps ahead does not empty the log.
//	A5  Every entry is bounded (Entry.clip). It is the caller who keeps secrets out.
package audit
