// Package series keeps the history of the performance of vDisks, vPools, backends and the node, for
// charts: gateway/api feeds it once a second and answers from it; gateway/node opens it.
//
//	steps of   kept for   where
//	1 s        10 min     memory: the rings of observe.Sampler
//	10 s       24 h       files of 5 min      m-TIME
//	5 min      90 days    files of 6 h        c-TIME, made of the former when the 6 h are over
//
// TIME is when a file begins, in seconds since 1970 and 16 hexadecimal digits. A file is written
// once and whole, so that there is nothing to recover after a crash, one that is damaged takes
// nothing but its own time with it, and what is old goes as whole files. (A database on top of
// that would write everything several times, and most end the process when their log fails.)
//
//	file    = magic "OVGSER1\n" | count u32 | step u32 (s) | begin u64 | CRC u32 | index | points | extensions
//	index   = count × { id [40], zeros behind | offset u32 | length u32 | CRC u32 of the points }
//	points  = for each point: uvarint of its place minus that of the one before, 12 uvarints
//	extension = tag [8] | length u32 | CRC u32 of both | so many bytes
//
// Extensions have more of the series in which there is some:
//
//	bytes  = count u32 | CRC u32 of the index | index | values
//	index  = count × { place in the index of series u32 | offset in values u32 | length u32 | CRC u32 of them }
//	values = for each point with some: uvarint of its place minus that of the one before, value
//
//	tag          value
//	"OVGLAT1\n"  how many commands took how long, as observe.PackedLatencies
//	"OVGCAC1\n"  what reads found in the read cache and what they did not, 2 uvarints
//
// A program that does not know an extension passes over it: one from before there were any answers from
// the points, and leaves the rest out of what it writes. History without it is answered without it.
//
// The first CRC is of all before it and of the index; CRCs are CRC-32C, numbers little-endian.
// Ids are sorted. A point's place is its time within the file, in steps.
//
// # Invariants
//
//	S1  Nothing here waits for a disk but the goroutine of the Store, and queries. A disk that
//	    fails, is full, or hangs costs history and nothing else; Err says so until a write
//	    succeeds, which is tried again by itself.
//	S2  A series has points for the time in which it did something. Those of the node tell when
//	    the node ran: no point of another series in that time means zero, none of the node that
//	    nothing is known.
//	S3  Bounded: series in a block, blocks that wait for the disk, bytes on the disk, points of
//	    an answer.
//	S4  Nothing is removed for its age within an hour of a start, or of a jump of the clock.
//	S5  A crash loses what was not written yet: five minutes, while the disk works.
//	S6  Latencies are rates in the buckets of observe.Latencies, means as the commands are, so that
//	    those of a step add up to its commands but for what is rounded.
//
// A mean over time is a mean over the time in which the node ran. Of latencies, the p50 is the
// mean weighted by commands, and the p99 the largest.
package series
