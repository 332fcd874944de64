package iscsi

import "bytes"

func (t *task) offset() int64 { return int64(t.lba << t.lu.shift) }

// length is the number of bytes of the medium that the CDB names.
func (t *task) length() uint64 { return t.blocks << t.lu.shift }

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

// whole is how much of the data is stored: the whole blocks that the initiator
// sent. When it announced less than the CDB asks for, the rest of the range is left
// alone and the residual says so.
func (t *task) whole() int { return int(t.want) &^ int(t.lu.block()-1) }

func write(t *task) {
	n := t.whole()
	if n == 0 {
		t.good(t.cdbLen)
		return
	}
	t.submit(OpWrite, t.offset(), 0, t.data[:n], t.fua(), writeDone)
}

func writeDone(t *task) { t.good(t.cdbLen) }

// orWrite: the Disk reads, ORs and writes as one (D7).
func orWrite(t *task) {
	if t.blocks == 0 {
		t.good(0)
		return
	}
	t.submit(OpOrWrite, t.offset(), 0, t.data, t.fua(), writeDone)
}

// writeAndVerify writes through, reads back, and compares; without BYTCHK it is
// enough that the blocks can be read.
func writeAndVerify(t *task) {
	n := t.whole()
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

// compareBack compares the medium with what the initiator sent. What was just
// written is compared without BYTCHK, too: it is there.
func compareBack(t *task) {
	if i := firstDifference(t.data, t.ref); i >= 0 {
		s := senseMiscompare
		s.setInfo(uint64(i))
		t.fail(s)
		return
	}
	t.good(t.cdbLen)
}

// firstDifference returns where two equally long slices differ first, or -1.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func verify(t *task) {
	switch {
	case t.blocks == 0:
		t.good(0)
	case uint64(t.want) < t.cdbLen:
		t.fail(senseInvalidField)
	case t.cdb[1]&bytchkMask == bytchkCompare:
		readBack(t)
	case t.workBuffer(t.length()):
		t.steps(verifyStep)
	}
}

// verifyStep reads the next piece of the range: what is unreadable fails. With
// BYTCHK 11b every block must equal the one the initiator sent.
func verifyStep(t *task) bool {
	if len(t.data) > 0 && t.op.Data != nil {
		for n := 0; n < len(t.op.Data); n += len(t.data) {
			if i := firstDifference(t.data, t.op.Data[n:n+len(t.data)]); i >= 0 {
				s := senseMiscompare
				s.setInfo(uint64(i))
				return t.lastFail(s)
			}
		}
	}
	return t.readNext(t.length())
}

// readNext asks for the next piece of the first n bytes of the range, or ends the
// task.
func (t *task) readNext(n uint64) bool {
	left := n - t.step
	if left == 0 {
		return t.last(t.cdbLen)
	}
	piece := min(left, uint64(len(t.ref)))
	off := t.offset() + int64(t.step)
	t.step += piece
	return t.ask(OpRead, off, 0, t.ref[:piece])
}

// syncCache waits for the flush with IMMED, too: an error is then reported where it
// belongs, and GOOD means what it says.
func syncCache(t *task) { t.submit(OpFlush, 0, 0, nil, false, nothingMore) }

func nothingMore(t *task) { t.good(0) }

// prefetchBytes is how much PRE-FETCH reads ahead at most: one transfer of the
// largest kind, since how much the Disk keeps is its own business.
const prefetchBytes = maxTransfer

// prefetch reads the first blocks of the range, so that the Disk has them near, and
// answers GOOD: CONDITION MET would promise that all of the range is cached (SBC-3
// clause 5.11). With IMMED there is nothing to wait for.
func prefetch(t *task) {
	if t.cdb[1]&0x02 != 0 {
		t.good(0)
		return
	}
	if t.workBuffer(t.prefetchLength()) {
		t.steps(prefetchStep)
	}
}

func prefetchStep(t *task) bool { return t.readNext(min(t.prefetchLength(), prefetchBytes)) }

// prefetchLength: no blocks means all up to the end.
func (t *task) prefetchLength() uint64 {
	if t.blocks == 0 {
		return (t.lu.capacity() - t.lba) << t.lu.shift
	}
	return t.length()
}

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
	if n > (len(t.data)-unmapHeader)/unmapDescriptor || n > maxUnmapParams {
		t.fail(senseInvalidParameter.inData(2))
		return
	}
	capacity, total := t.lu.capacity(), uint64(0)
	for i := range n {
		lba, blocks := unmapRange(t.data, i)
		if lba > capacity || blocks > capacity-lba {
			t.fail(senseLBARange)
			return
		}
		total += blocks
	}
	if limit := t.lu.unmapLimit(); limit != unmapUnlimited && total > limit {
		t.fail(senseInvalidParameter)
		return
	}
	t.blocks = uint64(n)
	t.steps(unmapStep)
}

func unmapRange(list []byte, i int) (lba, n uint64) {
	d := list[unmapHeader+i*unmapDescriptor:]
	return be.Uint64(d), uint64(be.Uint32(d[8:]))
}

// unmapUnlimited as MAXIMUM UNMAP LBA COUNT says that only the parameter list
// bounds an UNMAP command (SBC-3, Block Limits VPD page).
const unmapUnlimited = 0xffffffff

// unmapLimit is MAXIMUM UNMAP LBA COUNT.
func (l *lun) unmapLimit() uint64 {
	if m := l.Disk.Geometry().MaxUnmapBytes; m > 0 {
		return min(uint64(m)>>l.shift, unmapUnlimited-1)
	}
	return unmapUnlimited
}

// unmapStep gives back the next non-empty range.
func unmapStep(t *task) bool {
	for t.step < t.blocks {
		lba, n := unmapRange(t.data, int(t.step))
		t.step++
		if n > 0 {
			return t.ask(OpUnmap, int64(lba<<t.lu.shift), int64(n<<t.lu.shift), nil)
		}
	}
	return t.last(t.cdbLen)
}

// writeSame: zeros are one Op, given back when UNMAP allows it; another pattern
// is written, with or without UNMAP, since unmapped blocks read as zeros.
func writeSame(t *task) {
	if len(t.data) == 0 || allZero(t.data) {
		t.steps(zeroStep)
		return
	}
	if !t.workBuffer(t.length()) {
		return
	}
	for n := 0; n < len(t.ref); n += len(t.data) {
		copy(t.ref[n:], t.data)
	}
	t.steps(patternStep)
}

// zeroStep makes the next piece of the range read as zeros, in pieces that the Disk
// completes promptly.
func zeroStep(t *task) bool {
	left := t.length() - t.step
	if left == 0 {
		return t.last(t.cdbLen)
	}
	if limit := uint64(t.lu.Disk.Geometry().MaxUnmapBytes) &^ (t.lu.block() - 1); limit > 0 {
		left = min(left, limit)
	}
	kind := OpZero
	if t.cdb[1]&0x08 != 0 {
		kind = OpUnmap
	}
	off := t.offset() + int64(t.step)
	t.step += left
	return t.ask(kind, off, int64(left), nil)
}

func patternStep(t *task) bool {
	left := t.length() - t.step
	if left == 0 {
		return t.last(t.cdbLen)
	}
	n := min(left, uint64(len(t.ref)))
	off := t.offset() + int64(t.step)
	t.step += n
	return t.ask(OpWrite, off, 0, t.ref[:n])
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
