// Package scrub gives back what a vDisk's log holds and nobody needs: clusters that
// were overwritten or discarded before anything kept them. It is the part of a scrub
// that needs nothing of a running vDisk, so that any node can do it. Package volume
// plans work units and applies what came of them.
//
//	owner            Unit: parts of the log, numbers for what is written
//	any node         Execute: TLogs and live clusters read and verified,
//	                 new SCOs and TLogs written; Result
//	owner            apply: one head with the new log; what it replaces is condemned
//
// # A segment
//
// A segment is a part of the log between two points that are kept: snapshots, what
// clones start from, moments of the history. Only its effect as a whole counts:
//
//	TLogs of the segment, in order:   SCO 7: a b c   SCO 8: b d -c   SCO 9: d e
//	its effect:                       a(7) b(8) d(9) e(9), and c is trimmed
//
// SCOs with too little that is live are moved: what is live of them goes, in LBA
// order, into new SCOs. The others stay as they are. Collected TLogs (package tlog)
// replace those of the segment. They name the SCOs that are left with the extents of
// them that count, and the new ones.
//
//	collected TLog, seqs of the segment:  SCO 8: b    SCO 1<<31: a d e, trim c
//
// # Invariants
//
//	R1  A segment begins and ends at a point of the log that is kept, so its end is
//	    the one moment that is left of it, and it holds all that happened to it.
//	R2  The TLogs of a segment name each of its live clusters once, and what is
//	    trimmed at its end where something can lie below. So their order is of no
//	    matter, and no cluster is lost by leaving a SCO out.
//	R3  A cluster is copied only after its checksum, salted with vDisk and address,
//	    verified; the copy has the same checksum.
//	R4  The same unit gives the same objects under the same names, which were never
//	    used before: doing it twice, or on two nodes, changes nothing (rule E1).
//	R5  Each extent of a new SCO carries the location that it was copied from. The
//	    map is changed only where it still holds that (rule E8).
//	R6  Nothing is deleted here. What is written counts once a head names it; before,
//	    it is garbage that a sweep finds.
package scrub
