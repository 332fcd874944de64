// Package journal is the write buffer of vDisks: every acknowledged write is in
// it, durably, until a committed head says that the backend has it.
//
// A Pool owns the chunk files of one WRITE disk: preallocated, pre-written,
// recycled. A Log is the journal of one open vDisk: a list of chunks, the last
// one being appended to. A chunk belongs to one vDisk at a time; the empty record that
// opens it, written twice, says whose it is.
//
// When many logs append at once, their records are durable with frames of the group log first,
// many with one write, and get into their chunks later (group.go, frame.go).
//
// # Chunk
//
//	0       4 KiB          8 KiB
//	| opener | opener again | record | record | ... | what earlier users left |
//
// The opener is an empty record: it names vDisk, epoch, generation and the next
// seq, and is durable before anything follows it. Two copies, so that one bad
// sector cannot make a chunk in use look free.
//
// # Record
//
// One append is one record: the commands that were queued when the previous
// append ended, under one header. All integers are little-endian.
//
//	  0  magic    "OVGJREC1"          56  seq         u64 first seq in the record
//	  8  version  u16 = 1 or 2        64  promise     u64 all up to here is durable
//	 10  flags    u16 = 0             72  time        i64 Unix ns, never decreasing
//	 12  header   u32 bytes, 4 KiB n  80  extents     u32 count
//	 16  data     u32 bytes           84  sums        u32 count = data / cluster size
//	 20  crc32c   u32 of the header,  88  cluster     u32 bytes
//	              this field as 0     92  reserved    36 bytes, 0
//	 24  generation u64              128  extents     32 bytes each
//	 32  vdisk    16 bytes                sums        u32 each, salted (clustersum)
//	 48  epoch    u32                     zeros to the end of the header
//	 52  seqs     u32 seqs consumed       data        clusters of the data extents
//
//	extent:  lba u64 | length u64 (both in 512 B) | kind u8 | flags u8 | 0 u16 |
//	         seq delta u32 | first data cluster u32 | 0 u32
//
// Data extents take their clusters from the record's data, and so do reservation
// and pin extents: a reservation state (rule O5) and what happens to a snapshot
// (rule E6), see EncodeReservation and EncodePin, each at a fixed address beyond
// every disk. A record with one of them is of version 2, all others of version 1: a
// program that does not know them refuses to open the vDisk instead of forgetting
// who holds it, or what must be kept.
//
// One header for many commands, rather than one each, halves the bytes of a
// 4 KiB write at queue depth 32 (4.1 KiB instead of 8 per command). A command is
// never split over records, so a record is the unit of atomicity.
//
// # Invariants
//
//	J1  A record counts only if magic, version, header crc, every data sum, vDisk
//	    and the chunk's generation match. The generation is a random number drawn
//	    each time a chunk is taken, so what an earlier user of the chunk left
//	    behind never counts.
//	J2  Append and Finish return nil only when the record is durable, and all before
//	    it. Several may be written at once, each behind the one before; the promise
//	    of a record is the last seq that was finished when it was built.
//	J3  In a chunk, records follow each other without gap in offset and seq. The
//	    first bad record ends the chunk's log: above every promise it is a torn
//	    tail and cut, with what was written behind it; at or below a promise of a
//	    later record it is corruption (E3).
//	J4  After a failed append the file is never written again. What the Log still
//	    needs of it is rewritten to another chunk at the same offsets, then the
//	    append is retried there (E4). A record may thus exist twice; the copies
//	    agree in epoch, seq, extents and sums.
//	J5  A chunk returns to the pool only when everything in it is below the
//	    committed head and no reader holds it.
//
//	J6  A record that is in a frame and not in its chunk is in memory too, or its chunk
//	    was released. It is put into the chunk before the file of the frame is used
//	    again, which a later frame says first; before a log is closed; and, after a
//	    crash, before anything of the pool is read. While there are frames, pool.json
//	    says so, and programs that do not know them refuse the pool. If some cannot be
//	    read, it says of which chunks records may be missing before the frames go, until
//	    somebody accepts that or the chunks are released.
//
// It does not know backends, maps or heads, and keeps no state file: what is in
// use is found by reading the chunks.
package journal
