package iscsi

import "bytes"

func (t *task) offset() int64 { return int64(t.lba << blockShift) }

// fua is the FUA bit of the CDB; READ(6) and WRITE(6) have none.
func (t *task) fua() bool { return cdbLength(t.cdb[0]) > 6 && t.cdb[1]&0x08 != 0 }

func read(t *task) {
	if t.blocks == 0 {
		t.good(0)
		return
	}
	t.submit(OpRead, t.offset(), 0, t.data, t.fua(), readDone)
}

func readDone(t *task) {
	t.in = t.data
	t.good(uint64(len(t.data)))
}

// write stores the whole blocks that the initiator sent. When it announced less
// than the CDB asks for, the rest of the range is left alone and the residual
// says so.
func write(t *task) {
	n := int(t.want) &^ (blockSize - 1)
	if n == 0 {
		t.good(t.cdbLen)
		return
	}
	t.submit(OpWrite, t.offset(), 0, t.data[:n], t.fua(), writeDone)
}

func writeDone(t *task) { t.good(t.cdbLen) }

// writeAndVerify writes through, reads back, and compares.
func writeAndVerify(t *task) {
	n := int(t.want) &^ (blockSize - 1)
	if n == 0 {
		t.good(t.cdbLen)
		return
	}
	t.data = t.data[:n]
	t.submit(OpWrite, t.offset(), 0, t.data, true, readBack)
}

func readBack(t *task) {
	t.allocateRef(len(t.data))
	t.submit(OpRead, t.offset(), 0, t.ref, false, compareBack)
}

// compareBack compares the medium with what the initiator sent.
func compareBack(t *task) {
	if bytes.Equal(t.data, t.ref) {
		t.good(t.cdbLen)
		return
	}
	s := senseMiscompare
	for i := range t.data {
		if t.data[i] != t.ref[i] {
			s.setInfo(uint64(i))
			break
		}
	}
	t.fail(s)
}

// verifyStep is how much VERIFY without data reads at a time.
const verifyStep = 1 << 20

func verify(t *task) {
	switch {
	case t.blocks == 0:
		t.good(0)
	case t.cdbLen == 0:
		t.allocateRef(int(min(t.blocks<<blockShift, verifyStep)))
		verifyNext(t)
	case uint64(t.want) < t.cdbLen:
		t.fail(senseInvalidField)
	default:
		readBack(t)
	}
}

// verifyNext reads the next piece of the range: what is unreadable fails.
func verifyNext(t *task) {
	left := t.blocks<<blockShift - t.step
	if left == 0 {
		t.good(0)
		return
	}
	n := min(left, uint64(len(t.ref)))
	off := t.offset() + int64(t.step)
	t.step += n
	t.submit(OpRead, off, 0, t.ref[:n], false, verifyNext)
}

func syncCache(t *task) { t.submit(OpFlush, 0, 0, nil, false, nothingMore) }

func nothingMore(t *task) { t.good(0) }

func prefetch(t *task) { t.good(0) } // the range was checked; caching is the engine's own business

func compareAndWrite(t *task) {
	if t.blocks == 0 {
		t.good(0)
		return
	}
	t.submit(OpCompareAndWrite, t.offset(), 0, t.data, t.fua(), writeDone)
}

const (
	unmapHeader     = 8
	unmapDescriptor = 16
)

// unmap checks the whole parameter list before the first range is given back.
func unmap(t *task) {
	if t.cdbLen == 0 {
		t.good(0)
		return
	}
	if len(t.data) < unmapHeader {
		t.fail(senseListLength)
		return
	}
	n := int(be.Uint16(t.data[2:])) / unmapDescriptor
	if n > (len(t.data)-unmapHeader)/unmapDescriptor {
		t.fail(senseInvalidParameter)
		return
	}
	if n > maxUnmapParams {
		t.fail(senseInvalidParameter)
		return
	}
	g := t.lu.Disk.Geometry()
	capacity, total := uint64(g.Size)>>blockShift, uint64(0)
	for i := range n {
		lba, blocks := unmapRange(t.data, i)
		if lba > capacity || blocks > capacity-lba {
			t.fail(senseLBARange)
			return
		}
		total += blocks
	}
	if limit := unmapLimit(g); limit != unmapUnlimited && total > limit {
		t.fail(senseInvalidParameter)
		return
	}
	t.blocks = uint64(n)
	unmapNext(t)
}

func unmapRange(list []byte, i int) (lba, n uint64) {
	d := list[unmapHeader+i*unmapDescriptor:]
	return be.Uint64(d), uint64(be.Uint32(d[8:]))
}

// unmapUnlimited as MAXIMUM UNMAP LBA COUNT says that only the parameter list
// bounds an UNMAP command (SBC-3, Block Limits VPD page).
const unmapUnlimited = 0xffffffff

// unmapLimit is MAXIMUM UNMAP LBA COUNT.
func unmapLimit(g Geometry) uint64 {
	if g.MaxUnmapBytes > 0 {
		return min(uint64(g.MaxUnmapBytes)>>blockShift, unmapUnlimited-1)
	}
	return unmapUnlimited
}

// unmapNext gives back the next non-empty range.
func unmapNext(t *task) {
	for t.step < t.blocks {
		lba, n := unmapRange(t.data, int(t.step))
		t.step++
		if n > 0 {
			t.lba = lba
			t.submit(OpUnmap, int64(lba<<blockShift), int64(n<<blockShift), nil, false, unmapNext)
			return
		}
	}
	t.good(t.cdbLen)
}

// writeSame: zeros are one Op, given back when UNMAP allows it; another pattern
// is written, with or without UNMAP, since unmapped blocks read as zeros.
func writeSame(t *task) {
	length := int64(t.blocks << blockShift)
	if len(t.data) == 0 || allZero(t.data) {
		kind := OpZero
		if t.cdb[1]&0x08 != 0 {
			kind = OpUnmap
		}
		t.zero(kind, length)
		return
	}
	t.allocateRef(int(min(length, verifyStep)))
	for n := 0; n < len(t.ref); n += blockSize {
		copy(t.ref[n:], t.data)
	}
	writeSameNext(t)
}

// zero makes the range read as zeros, in pieces that the Disk completes promptly.
func (t *task) zero(kind OpKind, length int64) {
	if limit := t.lu.Disk.Geometry().MaxUnmapBytes &^ (blockSize - 1); limit > 0 && length > limit {
		length = limit
	}
	off := t.offset() + int64(t.step)
	length = min(length, int64(t.blocks<<blockShift-t.step))
	if length == 0 {
		t.good(t.cdbLen)
		return
	}
	t.step += uint64(length)
	next := zeroNext
	if kind == OpUnmap {
		next = unmapSameNext
	}
	t.submit(kind, off, length, nil, false, next)
}

func zeroNext(t *task)      { t.zero(OpZero, int64(t.blocks<<blockShift)) }
func unmapSameNext(t *task) { t.zero(OpUnmap, int64(t.blocks<<blockShift)) }

func writeSameNext(t *task) {
	left := t.blocks<<blockShift - t.step
	if left == 0 {
		t.good(t.cdbLen)
		return
	}
	n := min(left, uint64(len(t.ref)))
	off := t.offset() + int64(t.step)
	t.step += n
	t.submit(OpWrite, off, 0, t.ref[:n], false, writeSameNext)
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
