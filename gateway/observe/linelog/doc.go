// Package linelog keeps a log of numbered records in bounded files of a directory; the audit
// log and the events of a node are such logs.
//
// # Files
//
//	DIR/NAME-SEQ.log     SEQ: 16 hex digits, the number of the first record
//	line:                crc32c of the JSON, 8 hex digits | " " | record as JSON | "\n"
//
// Numbers grow by one; a file that was removed leaves a gap at the beginning only.
//
// # Invariants
//
//	N1  What Write reported as written is durable, and read once.
//	N2  A torn tail is cut, and a damaged line skipped; no other line is lost with it. A line
//	    that a failed write left twice is read once.
//	N3  Files are bounded by MaxBytes and MaxAge together. At most one file an hour goes for
//	    its age, so that a clock that jumps ahead does not empty the log.
//
// It holds no lock and starts nothing: one goroutine owns a Writer, and readers read beside it.
package linelog
