// Package audit keeps a node's audit log: who changed what, from where, and how it ended.
// gateway/api writes an entry for each change that is asked of the node and serves them.
//
// It is a linelog of the name audit: DIR/audit-SEQ.log. A record is an Entry with a kind:
// "begin" is written before a change is made, "end" after it, with its outcome; "end" alone is
// an entry of its own.
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
//	A3  What is damaged, torn or left twice by a failed write costs no other line (N2).
//	A4  Files are bounded by MaxBytes and MaxAge together (N3).
//	A5  Every entry is bounded (Entry.clip). It is the caller who keeps secrets out.
package audit
