package volume

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	mrand "math/rand/v2"
	"slices"
)

// The oracle knows what a vDisk must read as. It works in 512-byte sectors;
// a sector's content says which sector and which version it is (0: zeros).

func sectorContent(p []byte, sector uint64, ver uint32) {
	if ver == 0 {
		clear(p[:lbaBytes])
		return
	}
	fillBlock(p[:lbaBytes], sector, uint64(ver))
	binary.LittleEndian.PutUint64(p, sector)
	binary.LittleEndian.PutUint32(p[8:], ver)
}

// sectorVersion returns which version of a sector p is; an error if none.
func sectorVersion(p []byte, sector uint64) (uint32, error) {
	ver := binary.LittleEndian.Uint32(p[8:])
	if binary.LittleEndian.Uint64(p) == 0 && ver == 0 {
		ver = 0
	} else if s := binary.LittleEndian.Uint64(p); s != sector {
		return 0, fmt.Errorf("sector %d holds sector %d version %d", sector, s, ver)
	}
	var want [lbaBytes]byte
	sectorContent(want[:], sector, ver)
	if !bytes.Equal(p[:lbaBytes], want[:]) {
		return 0, fmt.Errorf("sector %d is torn (claims version %d)", sector, ver)
	}
	return ver, nil
}

// step is one operation of a workload.
type step struct {
	kind    RequestKind // 0: see special
	special string      // commit, restart, grow, crash, snapshot, drop, rollback, ...
	name    string      // of a snapshot
	off, n  int64       // bytes
	ver     uint32      // of a write
}

func (s step) String() string {
	if s.special != "" {
		return s.special + " " + s.name
	}
	return fmt.Sprintf("%d [%d,+%d) v%d", s.kind, s.off, s.n, s.ver)
}

// randomStep draws a change or read of a disk of size bytes.
func randomStep(r *mrand.Rand, size int64, cluster int64, maxIO int64, ver uint32) step {
	s := step{ver: ver}
	unit := cluster
	switch x := r.IntN(100); {
	case x < 50:
		s.kind = ReqWrite
	case x < 62:
		s.kind, unit = ReqWrite, lbaBytes // partial clusters
	case x < 68:
		s.kind = ReqZero
	case x < 72:
		s.kind, unit = ReqZero, lbaBytes
	case x < 78:
		s.kind = ReqUnmap
	case x < 80:
		s.kind, unit = ReqUnmap, lbaBytes
	case x < 82:
		s.kind = ReqFlush
	case x < 84:
		s.kind = ReqReserve
	case x < 86:
		s.kind, unit = ReqCompareAndWrite, lbaBytes
	default:
		s.kind, unit = ReqRead, lbaBytes
	}
	limit := min(maxIO, size)
	if s.kind == ReqZero || s.kind == ReqUnmap {
		limit = size
	}
	if s.kind == ReqCompareAndWrite {
		limit = min(limit/2, 16<<10)
	}
	n := 1 + r.Int64N(4)
	if r.IntN(8) == 0 {
		n = 1 + r.Int64N(max(1, limit/unit))
	}
	s.n = min(n*unit, limit/unit*unit)
	s.off = r.Int64N((size-s.n)/unit+1) * unit
	if s.kind == ReqFlush || s.kind == ReqReserve {
		s.off, s.n = 0, 0
	}
	return s
}

// oracle is the expected content: the version of each sector, and those that a
// failed or cut-off operation may have left instead.
type oracle struct {
	cur   []uint32
	maybe map[int64][]uint32
	// The reservation state, by version (0: none), and what it may be instead.
	held      uint32
	heldMaybe []uint32
	past      pastOracle
}

// heldState is version ver of the reservation state; some are empty, some fill up
// what a record can carry.
func heldState(ver uint32) []byte {
	n := []int{12, 4092, 4093, 100, 700, 0, MaxReservation}[ver%7]
	if ver == 0 || n == 0 {
		return nil
	}
	b := make([]byte, n)
	fillBlock(b, 77, uint64(ver))
	binary.LittleEndian.PutUint32(b, ver)
	return b
}

// heldVersion returns which version a vDisk has, 0 for an empty one.
func heldVersion(v *Volume) (uint32, error) {
	b := v.Reservation()
	if len(b) == 0 {
		return 0, nil
	}
	ver := binary.LittleEndian.Uint32(b)
	if !bytes.Equal(b, heldState(ver)) {
		return 0, errWrong{fmt.Errorf("reservation state is torn: %d bytes, claims version %d", len(b), ver)}
	}
	return ver, nil
}

// visible is the version that can be told from the state.
func visible(ver uint32) uint32 {
	if heldState(ver) == nil {
		return 0
	}
	return ver
}

// checkHeld compares the reservation state with what it may be.
func (o *oracle) checkHeld(v *Volume, settle bool) error {
	ver, err := heldVersion(v)
	if err != nil {
		return err
	}
	if ver != o.held && !slices.Contains(o.heldMaybe, ver) {
		return errWrong{fmt.Errorf("reservation state is version %d, want %d or one of %v", ver, o.held, o.heldMaybe)}
	}
	if settle {
		o.held, o.heldMaybe = ver, nil
	}
	return nil
}

func newOracle(size int64) *oracle {
	return &oracle{cur: make([]uint32, size/lbaBytes), maybe: map[int64][]uint32{}}
}

func (o *oracle) grow(size int64) {
	o.cur = append(o.cur, make([]uint32, size/lbaBytes-int64(len(o.cur)))...)
}

// done applies an acknowledged step.
func (o *oracle) done(s step) {
	o.past.done(o, s)
	if s.kind == ReqReserve {
		o.held, o.heldMaybe = visible(s.ver), nil
	}
	if !s.changes() {
		return
	}
	for i := s.off / lbaBytes; i < (s.off+s.n)/lbaBytes; i++ {
		o.cur[i] = s.result()
		delete(o.maybe, i)
	}
}

// unknown notes a step whose outcome is not known.
func (o *oracle) unknown(s step) {
	if s.kind == ReqReserve {
		o.heldMaybe = append(o.heldMaybe, visible(s.ver))
	}
	if !s.changes() {
		return
	}
	for i := s.off / lbaBytes; i < (s.off+s.n)/lbaBytes; i++ {
		o.maybe[i] = append(o.maybe[i], s.result())
	}
}

func (s step) changes() bool {
	return s.kind == ReqWrite || s.kind == ReqZero || s.kind == ReqUnmap || s.kind == ReqCompareAndWrite
}

func (s step) result() uint32 {
	if s.kind == ReqWrite || s.kind == ReqCompareAndWrite {
		return s.ver
	}
	return 0
}

// data returns the buffer of a step.
func (o *oracle) data(s step) []byte {
	switch s.kind {
	case ReqRead:
		return make([]byte, s.n)
	case ReqReserve:
		return heldState(s.ver)
	case ReqWrite:
		return versions(s.off, s.n, func(int64) uint32 { return s.ver })
	case ReqCompareAndWrite:
		return append(versions(s.off, s.n, func(i int64) uint32 { return o.cur[i] }),
			versions(s.off, s.n, func(int64) uint32 { return s.ver })...)
	}
	return nil
}

func versions(off, n int64, ver func(sector int64) uint32) []byte {
	p := make([]byte, n)
	for i := int64(0); i < n/lbaBytes; i++ {
		sectorContent(p[i*lbaBytes:], uint64(off/lbaBytes+i), ver(off/lbaBytes+i))
	}
	return p
}

// run executes a step and settles it in the oracle.
func (o *oracle) run(v *Volume, s step) error {
	ctx := context.Background()
	data := o.data(s)
	if s.kind == ReqCompareAndWrite && o.unsure(s) {
		s.kind, data = ReqWrite, data[s.n:]
	}
	err := v.do(ctx, s.kind, data, s.off, s.n)
	switch {
	case err != nil:
		o.unknown(s)
		return err
	case s.kind == ReqRead:
		return o.check(data, s.off, false)
	}
	o.done(s)
	if s.kind == ReqReserve {
		return o.checkHeld(v, false)
	}
	return nil
}

func (o *oracle) unsure(s step) bool {
	for i := s.off / lbaBytes; i < (s.off+s.n)/lbaBytes; i++ {
		if len(o.maybe[i]) > 0 {
			return true
		}
	}
	return false
}

// errWrong marks a violation of the property, as opposed to an I/O error.
type errWrong struct{ error }

// check compares what was read with what may be there. With settle, what is
// there becomes what must stay.
func (o *oracle) check(p []byte, off int64, settle bool) error {
	for i := int64(0); i < int64(len(p))/lbaBytes; i++ {
		sec := off/lbaBytes + i
		b := p[i*lbaBytes : (i+1)*lbaBytes]
		ver, err := sectorVersion(b, uint64(sec))
		if err != nil {
			return errWrong{err}
		}
		if ver != o.cur[sec] && !slices.Contains(o.maybe[sec], ver) {
			return errWrong{fmt.Errorf("sector %d reads version %d, want %d or one of %v", sec, ver, o.cur[sec], o.maybe[sec])}
		}
		if settle {
			o.cur[sec] = ver
			delete(o.maybe, sec)
		}
	}
	return nil
}

// checkAll reads the whole disk.
func (o *oracle) checkAll(v *Volume, settle bool) error {
	if err := o.checkHeld(v, settle); err != nil {
		return err
	}
	size := int64(len(o.cur)) * lbaBytes
	buf := make([]byte, 256<<10)
	for off := int64(0); off < size; off += int64(len(buf)) {
		b := buf[:min(int64(len(buf)), size-off)]
		if err := v.ReadAt(context.Background(), b, off); err != nil {
			return err
		}
		if err := o.check(b, off, settle); err != nil {
			return err
		}
	}
	return nil
}
