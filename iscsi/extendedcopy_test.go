package iscsi_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	mrand "math/rand/v2"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

// copyList is an EXTENDED COPY(LID1) parameter list.
type copyList struct {
	id, usage byte
	cscds     [][16]byte // NAA designators
	blockLen  int        // 0: 512
	segments  []copySegment
}

type copySegment struct {
	source, dest uint16
	blocks       uint16
	from, to     uint64
	dc           bool // blocks are the destination's
}

func (l copyList) bytes() []byte {
	b := make([]byte, 16)
	b[0], b[1] = l.id, l.usage<<3
	be.PutUint16(b[2:], uint16(32*len(l.cscds)))
	be.PutUint32(b[8:], uint32(28*len(l.segments)))
	block := l.blockLen
	if block == 0 {
		block = 512
	}
	for _, naa := range l.cscds {
		d := make([]byte, 32)
		d[0], d[4], d[5], d[7] = 0xe4, 1, 3, 16
		copy(d[8:], naa[:])
		be.PutUint32(d[28:], uint32(block))
		b = append(b, d...)
	}
	for _, s := range l.segments {
		d := make([]byte, 28)
		d[0], d[3] = 0x02, 24
		if s.dc {
			d[1] = 0x02
		}
		be.PutUint16(d[4:], s.source)
		be.PutUint16(d[6:], s.dest)
		be.PutUint16(d[10:], s.blocks)
		be.PutUint64(d[12:], s.from)
		be.PutUint64(d[20:], s.to)
		b = append(b, d...)
	}
	return b
}

func copyCommand(l copyList) *initiator.Command { return rawCopy(l.bytes()) }

func rawCopy(b []byte) *initiator.Command {
	c := cdb(0x83)
	be.PutUint32(c[10:], uint32(len(b)))
	return &initiator.Command{CDB: c, Out: b}
}

// copyRig is a target with units 0 (512), 1 (512) and 2 (4Kn), and a second target
// with unit 0, on one server.
type copyRig struct {
	*node
	disks [4]*iscsitest.Disk // units 0, 1, 2, and that of the second target
	other iscsi.TargetSpec
}

func copyNAA(n int) [16]byte { return [16]byte{0x60, 0xcc, 15: byte(n)} }

func newCopyRig(t *testing.T, groups, others []iscsi.Group) *copyRig {
	t.Helper()
	r := &copyRig{}
	for i := range r.disks {
		r.disks[i] = iscsitest.NewDisk(diskSize, nil)
	}
	spec := func(n uint16, i int) iscsi.LUNSpec {
		return iscsi.LUNSpec{Number: n, Disk: r.disks[i], Serial: fmt.Sprint("copy", i), NAA: copyNAA(i)}
	}
	r.node = start(t, iscsi.Config{Limits: iscsi.Limits{SessionBytes: 128 << 20}}, func(s *iscsi.TargetSpec) {
		s.Groups, s.LUNs = groups, []iscsi.LUNSpec{spec(0, 0), spec(1, 1), spec(2, 2)}
		s.LUNs[2].BlockSize = 4096
	})
	r.other = iscsi.TargetSpec{Name: "iqn.2026-01.org.example:other", Groups: others, LUNs: []iscsi.LUNSpec{spec(0, 3)}}
	if err := r.srv.AddTarget(r.other); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, d := range r.disks {
			d.Release()
		}
	})
	return r
}

// loginOther opens a session with the second target.
func (r *copyRig) loginOther(initiatorName string) *initiator.Session {
	r.t.Helper()
	s, err := r.dial(func(o *initiator.Options) { o.Target, o.Initiator = r.other.Name, initiatorName })
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *copyRig) fill(i int, off int64, p []byte) {
	r.t.Helper()
	if _, err := r.disks[i].WriteAt(p, off); err != nil {
		r.t.Fatal(err)
	}
}

func (r *copyRig) content(i int, off, n int64) []byte {
	r.t.Helper()
	p := make([]byte, n)
	if _, err := r.disks[i].ReadAt(p, off); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// noise has no zero byte, so that every cluster of it shows.
func noise(n int, seed uint64) []byte {
	p := make([]byte, n)
	r := mrand.New(mrand.NewPCG(seed, 0))
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], r.Uint64()|0x0101010101010101)
	}
	return p
}

// TestExtendedCopy: what is copied where, in every combination of units.
func TestExtendedCopy(t *testing.T) {
	r := newCopyRig(t, open(nil), open(nil))
	s := r.ready(as(hostA), 0, 1, 2)
	r.loginOther(hostA)
	const mib = 1 << 20
	for _, tc := range []struct {
		name             string
		source, dest     int
		from, to, length int64 // bytes
		blockLen         int   // of the descriptors: 512 or 4096; 0: as the units are
		dc               bool
	}{
		{"within a unit", 0, 0, 0, 32 * mib, 3*mib + 512, 512, false},
		{"between units", 0, 1, 512, 1024, 5 * mib, 512, false},
		{"to another target", 1, 3, 0, 8 * mib, 2 * mib, 512, false},
		{"from another target", 3, 0, 0, 4096, 2*mib + 1536, 512, false},
		{"one block", 0, 1, diskSize - 512, diskSize - 512, 512, 512, false},
		{"the largest segment", 0, 1, 0, 0, 65535 * 512, 512, false},
		{"nothing", 0, 1, 0, 0, 0, 512, false},
		{"upwards over itself", 0, 0, 0, mib / 2, 3 * mib, 512, false},
		{"downwards over itself", 0, 0, mib / 2, 0, 3 * mib, 512, false},
		{"onto itself", 0, 0, mib, mib, 2 * mib, 512, false},
		{"within 4Kn", 2, 2, 0, 16 * mib, 4 * mib, 4096, false},
		{"4Kn of the largest kind", 2, 2, 0, 32 * mib, 32 * mib, 4096, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r.t = t
			// What is copied, and the destination with a margin around it.
			lo, hi := max(0, tc.to-8192), min(diskSize, tc.to+tc.length+8192)
			r.fill(tc.dest, lo, noise(int(hi-lo), 1))
			r.fill(tc.source, tc.from, noise(int(tc.length), 2))
			data, want := r.content(tc.source, tc.from, tc.length), r.content(tc.dest, lo, hi-lo)
			copy(want[tc.to-lo:], data)
			b := uint64(tc.blockLen)
			c := copyCommand(copyList{blockLen: tc.blockLen, cscds: [][16]byte{copyNAA(tc.source), copyNAA(tc.dest)}, segments: []copySegment{
				{0, 1, uint16(uint64(tc.length) / b), uint64(tc.from) / b, uint64(tc.to) / b, tc.dc}}})
			if err := s.Do(r.ctx, c); err != nil {
				t.Fatalf("%v, % x", err, c.Sense.Raw)
			}
			if !bytes.Equal(r.content(tc.dest, lo, hi-lo), want) {
				t.Error("the content is wrong")
			}
		})
	}
}

// TestExtendedCopySegments: several segments run in order; units of different block
// sizes take a segment whose length suits both.
func TestExtendedCopySegments(t *testing.T) {
	r := newCopyRig(t, open(nil), open(nil))
	s := r.ready(as(hostA), 0)
	data := noise(1<<20, 9)
	r.fill(0, 0, data)
	list := copyList{cscds: [][16]byte{copyNAA(0), copyNAA(1), copyNAA(2)}, segments: []copySegment{
		{0, 1, 64, 0, 8, false}, {1, 0, 64, 8, 4096, false}, {0, 2, 16, 0, 3, false}, {0, 2, 2, 16, 8, true},
	}}
	b := list.bytes()
	be.PutUint32(b[16+2*32+28:], 4096) // the block length of unit 2
	if err := s.Do(r.ctx, rawCopy(b)); err != nil {
		t.Fatal(err)
	}
	for i, tc := range []struct {
		disk      int
		off, from int64
		n         int
	}{{1, 8 * 512, 0, 64 * 512}, {0, 4096 * 512, 0, 64 * 512}, {2, 3 * 4096, 0, 16 * 512}, {2, 8 * 4096, 16 * 512, 2 * 4096}} {
		if !bytes.Equal(r.content(tc.disk, tc.off, int64(tc.n)), data[tc.from:tc.from+int64(tc.n)]) {
			t.Errorf("segment %d", i)
		}
	}
	be.PutUint16(b[16+3*32+2*28+10:], 15) // 15 blocks of 512 are no whole block of 4096
	wantSense(t, s.Do(r.ctx, rawCopy(b)), 0x0a, 0x26, 0x0a)
}

// TestExtendedCopyThin: what the source does not hold is given back at the destination.
func TestExtendedCopyThin(t *testing.T) {
	r := newCopyRig(t, open(nil), open(nil))
	s := r.ready(as(hostA), 0)
	r.fill(1, 0, noise(4<<20, 1))
	data := noise(64<<10, 2)
	r.fill(0, 1<<20, data)
	c := copyCommand(copyList{cscds: [][16]byte{copyNAA(0), copyNAA(1)}, segments: []copySegment{{0, 1, 4 << 11, 0, 0, false}}})
	if err := s.Do(r.ctx, c); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 4<<20)
	copy(want[1<<20:], data)
	if !bytes.Equal(r.content(1, 0, 4<<20), want) {
		t.Error("the content is wrong")
	}
	for off := int64(0); off < 4<<20; off += 4096 {
		if mapped, _ := r.disks[1].Allocated(off); mapped != (off >= 1<<20 && off < 1<<20+64<<10) {
			t.Fatalf("%d is mapped: %v", off, mapped)
		}
	}
}

// TestExtendedCopyReach: a unit that the initiator could not read or write itself is
// neither copied from nor to, whoever asks and however it is named.
func TestExtendedCopyReach(t *testing.T) {
	groups := []iscsi.Group{
		{Name: "a", Initiators: []string{hostA}},
		{Name: "b", Initiators: []string{hostB}, LUNs: []iscsi.LUNMap{{Number: 0, LUN: 0}}},
		{Name: "c", Initiators: []string{hostC}, LUNs: []iscsi.LUNMap{{Number: 0, LUN: 0}, {Number: 1, LUN: 1, ReadOnly: true}}},
	}
	r := newCopyRig(t, groups, open(nil))
	a, b, c := r.ready(as(hostA), 0, 1, 2), r.ready(as(hostB), 0), r.ready(as(hostC), 0, 1)
	secret := noise(64<<10, 3)
	for _, i := range []int{1, 3} {
		r.fill(i, 0, secret)
	}
	try := func(s *initiator.Session, from, to int) (*initiator.Command, error) {
		k := copyCommand(copyList{cscds: [][16]byte{copyNAA(from), copyNAA(to)}, segments: []copySegment{{0, 1, 8, 0, 64, false}}})
		return k, s.Do(r.ctx, k)
	}
	ops := func() (n int64) {
		for _, d := range r.disks {
			for k := range d.Ops {
				n += d.Ops[k].Load()
			}
		}
		return n
	}
	refused := func(name string, s *initiator.Session, from, to int, key, asc, ascq byte) {
		t.Helper()
		before := ops()
		_, err := try(s, from, to)
		wantSense(t, err, key, asc, ascq)
		if ops() != before {
			t.Errorf("%s: the disks were touched", name)
		}
	}
	forwarded := func(name string, s *initiator.Session, from, to int, role, status, key, asc, ascq byte) {
		t.Helper()
		before := ops()
		k, err := try(s, from, to)
		wantSense(t, err, 0x0a, 0, 0)
		raw := k.Sense.Raw
		if len(raw) < 19 || raw[7+role] != 18 || raw[18] != status || status == 2 && (raw[19+2] != key || raw[19+12] != asc || raw[19+13] != ascq) {
			t.Errorf("%s: % x", name, raw)
		}
		if ops() != before {
			t.Errorf("%s: the disks were touched", name)
		}
	}
	refused("masked source", b, 1, 0, 0x0a, 0x08, 0x04)
	refused("masked destination", b, 0, 1, 0x0a, 0x08, 0x04)
	refused("target without a session", a, 3, 0, 0x0a, 0x08, 0x04)
	refused("nobody's designator", a, 77, 0, 0x0a, 0x08, 0x04)
	forwarded("read-only destination", c, 0, 1, 2, 2, 7, 0x27, 0)
	if _, err := try(c, 1, 0); err != nil {
		t.Errorf("from a read-only unit: %v", err)
	}
	other := r.loginOther(hostB) // somebody else's session opens nothing
	refused("another initiator's session", a, 3, 0, 0x0a, 0x08, 0x04)
	if _, err := try(b, 3, 0); err != nil {
		t.Errorf("through one's own session: %v", err)
	}
	if err := other.Logout(r.ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, r.node, "the session is gone", func() bool { return len(r.srv.Sessions()) == 3 })
	refused("after the logout", b, 3, 0, 0x0a, 0x08, 0x04)

	if err := a.Do(r.ctx, &initiator.Command{LUN: 1, CDB: cdb(0x16)}); err != nil { // RESERVE
		t.Fatal(err)
	}
	forwarded("reserved source", c, 1, 0, 1, 0x18, 0, 0, 0)
	if _, err := try(a, 1, 0); err != nil {
		t.Errorf("by the holder: %v", err)
	}
	if err := a.Do(r.ctx, &initiator.Command{LUN: 1, CDB: cdb(0x17)}); err != nil {
		t.Fatal(err)
	}
	protect := []byte{0, 0, 0, 0, 0x0a, 0x0a, 0x20, 0x10, 0x08, 0, 0, 0, 0xff, 0xff, 0, 0}
	if err := a.Do(r.ctx, &initiator.Command{LUN: 1, CDB: cdb(0x15, 0x10, 0, 0, 16), Out: protect}); err != nil {
		t.Fatal(err)
	}
	forwarded("SWP", a, 0, 1, 2, 2, 7, 0x27, 2)
	for _, i := range []int{1, 3} {
		if !bytes.Equal(r.content(i, 0, 64<<10), secret) {
			t.Errorf("disk %d changed", i)
		}
	}
}

// TestExtendedCopyList: a parameter list with anything wrong in it is refused, and
// nothing of it is copied.
func TestExtendedCopyList(t *testing.T) {
	r := newCopyRig(t, open(nil), open(nil))
	s := r.ready(as(hostA), 0)
	good := copyList{cscds: [][16]byte{copyNAA(0), copyNAA(1)}, segments: []copySegment{{0, 1, 8, 0, 0, false}, {0, 1, 8, 8, 8, false}}}
	const segs = 16 + 2*32
	for _, tc := range []struct {
		name    string
		change  func(b []byte) []byte
		k, a, q byte
		field   int // -1: none
	}{
		{"half a header", func(b []byte) []byte { return b[:15] }, 5, 0x1a, 0, -1},
		{"cut in the CSCDs", func(b []byte) []byte { return b[:16+40] }, 5, 0x1a, 0, -1},
		{"cut in the segments", func(b []byte) []byte { return b[:len(b)-1] }, 5, 0x1a, 0, -1},
		{"above the maximum", func(b []byte) []byte { return append(b, make([]byte, 1000)...) }, 5, 0x1a, 0, -1},
		{"lengths that wrap", func(b []byte) []byte { be.PutUint32(b[8:], 0xffffffff); return b }, 5, 0x1a, 0, -1},
		{"inline data", func(b []byte) []byte { b[15] = 1; return b }, 5, 0x26, 0x0b, 12},
		{"reserved list usage", func(b []byte) []byte { b[1] = 1 << 3; return b }, 5, 0x26, 0, 1},
		{"a list identifier that is none", func(b []byte) []byte { b[0], b[1] = 5, 3<<3; return b }, 5, 0x26, 0, 1},
		{"half a CSCD", func(b []byte) []byte { b[3] -= 4; return b }, 5, 0x26, 0, 2},
		{"another CSCD type", func(b []byte) []byte { b[16+32] = 0xe0; return b }, 5, 0x26, 7, 16 + 32},
		{"another segment type", func(b []byte) []byte { b[segs+28] = 0x0a; return b }, 5, 0x26, 9, segs + 28},
		{"another segment length", func(b []byte) []byte { b[segs+28+3] = 23; return b }, 5, 0x26, 0, segs + 28 + 2},
		{"half a segment", func(b []byte) []byte { b[11] -= 4; return b }, 5, 0x26, 0, segs + 28 + 2},
		{"CSCD that is not there", func(b []byte) []byte { b[segs+28+7] = 2; return b }, 0x0a, 0x08, 4, -1},
		{"peripheral device type", func(b []byte) []byte { b[17+32] = 1; return b }, 0x0a, 0x0d, 3, -1},
		{"ASCII designator", func(b []byte) []byte { b[20] = 2; return b }, 0x0a, 0x08, 4, -1},
		{"designator of a port", func(b []byte) []byte { b[21] = 0x13; return b }, 0x0a, 0x08, 4, -1},
		{"designator of 20 bytes", func(b []byte) []byte { b[23] = 20; return b }, 0x0a, 0x08, 4, -1},
		{"another block length", func(b []byte) []byte { b[16+30] = 0x10; return b }, 5, 0x26, 0, -1},
		{"source beyond the end", func(b []byte) []byte { be.PutUint64(b[segs+28+12:], blocks-7); return b }, 0x0a, 0, 0, -1},
		{"destination beyond the end", func(b []byte) []byte { be.PutUint64(b[segs+28+20:], blocks-7); return b }, 0x0a, 0, 0, -1},
		{"source that wraps", func(b []byte) []byte { be.PutUint64(b[segs+28+12:], 1<<64-4); return b }, 0x0a, 0, 0, -1},
		{"destination that wraps", func(b []byte) []byte { be.PutUint64(b[segs+28+20:], 1<<55); return b }, 0x0a, 0, 0, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := rawCopy(tc.change(good.bytes()))
			wantSense(t, s.Do(r.ctx, c), tc.k, tc.a, tc.q)
			if c.Sense.Field != tc.field {
				t.Errorf("field %d, want %d", c.Sense.Field, tc.field)
			}
		})
	}
	many := good
	for range 8 {
		many.cscds = append(many.cscds, copyNAA(1))
	}
	wantSense(t, s.Do(r.ctx, copyCommand(many)), 5, 0x26, 6)
	many = good
	for range 15 {
		many.segments = append(many.segments, good.segments[0])
	}
	wantSense(t, s.Do(r.ctx, copyCommand(many)), 5, 0x26, 8)
	large := copyList{blockLen: 4096, cscds: [][16]byte{copyNAA(2)}, segments: []copySegment{{0, 0, 8193, 0, 8191, false}}}
	wantSense(t, s.Do(r.ctx, copyCommand(large)), 5, 0x26, 0)
	wantSense(t, s.Do(r.ctx, &initiator.Command{CDB: rawCopy(good.bytes()).CDB, Out: good.bytes()[:20]}), 5, 0x1a, 0) // less data than the CDB says
	for i := range r.disks {
		for _, k := range []iscsi.OpKind{iscsi.OpRead, iscsi.OpWrite, iscsi.OpUnmap} {
			if n := r.disks[i].Ops[k].Load(); n != 0 {
				t.Errorf("%d operations of kind %d on disk %d", n, k, i)
			}
		}
	}
	if err := s.Do(r.ctx, copyCommand(good)); err != nil {
		t.Errorf("the list without a fault: %v", err)
	}
}

// TestExtendedCopyAbort: ABORT TASK is answered after the operation in work, and no
// other follows.
func TestExtendedCopyAbort(t *testing.T) {
	r := newCopyRig(t, open(nil), open(nil))
	s := r.ready(as(hostA), 0)
	r.fill(0, 0, noise(8<<20, 4))
	r.disks[0].Hold()
	c := copyCommand(copyList{id: 3, cscds: [][16]byte{copyNAA(0), copyNAA(1)}, segments: []copySegment{{0, 1, 8 << 11, 0, 0, false}}})
	c.Done = func(*initiator.Command) { t.Error("an aborted command was answered") }
	if err := s.Submit(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, r.node, "the source reads", func() bool { return r.disks[0].Held() == 1 })
	done := make(chan byte, 1)
	go func() {
		code, err := s.TaskManagement(r.ctx, 1, 0, c)
		if err != nil {
			t.Error(err)
		}
		done <- code
	}()
	eventually(t, r.node, "the function is in the target", func() bool { return r.srv.Stats().TaskManagement == 1 })
	select {
	case <-done:
		t.Error("answered while an operation was in work")
	default:
	}
	r.disks[0].Release()
	if code := <-done; code != 0 {
		t.Errorf("response %d", code)
	}
	if n := r.disks[1].Ops[iscsi.OpWrite].Load(); n != 0 {
		t.Errorf("%d writes after the abort", n)
	}
	status, err := copyResults(r.node, s, 0, 3)
	if err != nil || status[4] != 2 {
		t.Errorf("copy status % x, %v", status, err)
	}
	s.Forget(c)
}

// copyResults runs RECEIVE COPY RESULTS.
func copyResults(n *node, s *initiator.Session, action, id byte) ([]byte, error) {
	c := cdb(0x84, action, id)
	be.PutUint32(c[10:], 512)
	k := &initiator.Command{CDB: c, In: make([]byte, 512)}
	err := s.Do(n.ctx, k)
	return k.In[:k.Received], err
}

// TestExtendedCopyRevoked: a copy stops between steps when its destination is no
// longer the initiator's, and the removal of its target waits for the last operation.
func TestExtendedCopyRevoked(t *testing.T) {
	all := []iscsi.Group{{Name: "a", Initiators: []string{hostA}}}
	for _, tc := range []struct {
		name   string
		revoke func(r *copyRig, other *initiator.Session) <-chan error
	}{
		{"session dropped", func(r *copyRig, other *initiator.Session) <-chan error {
			for _, i := range r.srv.Sessions() {
				if i.Target == r.other.Name {
					if err := r.srv.DropSession(i.ID); err != nil {
						r.t.Fatal(err)
					}
				}
			}
			<-other.Done()
			return nil
		}},
		{"masked", func(r *copyRig, _ *initiator.Session) <-chan error {
			r.other.LUNs = append(r.other.LUNs, iscsi.LUNSpec{Number: 1, Disk: r.disks[1], Serial: "x", NAA: copyNAA(9)})
			r.other.Groups = []iscsi.Group{{Name: "a", Initiators: []string{hostA}, LUNs: []iscsi.LUNMap{{Number: 0, LUN: 1}}}}
			if err := r.srv.UpdateTarget(r.other); err != nil {
				r.t.Fatal(err)
			}
			return nil
		}},
		{"target removed", func(r *copyRig, other *initiator.Session) <-chan error {
			removed := make(chan error, 1)
			go func() { removed <- r.srv.RemoveTarget(r.other.Name, true) }()
			<-other.Done()
			return removed
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newCopyRig(t, all, all)
			s, other := r.ready(as(hostA), 0), r.loginOther(hostA)
			r.fill(0, 0, noise(8<<20, 5))
			r.disks[0].Hold()
			done := make(chan *initiator.Command, 1)
			c := copyCommand(copyList{cscds: [][16]byte{copyNAA(0), copyNAA(3)}, segments: []copySegment{{0, 1, 8 << 11, 0, 0, false}}})
			c.Done = func(c *initiator.Command) { done <- c }
			if err := s.Submit(c); err != nil {
				t.Fatal(err)
			}
			eventually(t, r.node, "the source reads", func() bool { return r.disks[0].Held() == 1 })
			removed := tc.revoke(r, other)
			if removed != nil {
				select {
				case <-removed:
					t.Error("removed while a copy was working on it")
				default:
				}
			}
			r.disks[0].Release()
			<-done
			wantSense(t, c.Err, 0x0a, 0x08, 0x04)
			if !c.Sense.InfoValid || c.Sense.Info != 8<<11 {
				t.Errorf("%d blocks not copied", c.Sense.Info)
			}
			if n := r.disks[3].Ops[iscsi.OpWrite].Load(); n != 0 {
				t.Errorf("%d writes to it", n)
			}
			if removed != nil {
				if err := <-removed; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestCopyResults: status while a copy runs and after it, its failure, and the rules
// of list identifiers.
func TestCopyResults(t *testing.T) {
	r := newCopyRig(t, open(nil), open(nil))
	s := r.ready(as(hostA), 0)
	r.fill(0, 0, noise(4<<20, 6))
	list := copyList{id: 7, cscds: [][16]byte{copyNAA(0), copyNAA(1)}, segments: []copySegment{{0, 1, 2 << 11, 0, 0, false}}}
	if _, err := copyResults(r.node, s, 0, 7); err == nil {
		t.Error("status of a copy that never was")
	}
	r.disks[1].Hold()
	done := make(chan *initiator.Command, 1)
	c := copyCommand(list)
	c.Done = func(c *initiator.Command) { done <- c }
	if err := s.Submit(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, r.node, "the destination writes", func() bool { return r.disks[1].Held() == 1 })
	if b, err := copyResults(r.node, s, 0, 7); err != nil || b[4] != 0 || be.Uint32(b[8:]) != 0 {
		t.Errorf("while it runs: % x, %v", b, err)
	}
	if _, err := copyResults(r.node, s, 4, 7); err == nil {
		t.Error("failure details of a copy that runs")
	}
	wantSense(t, s.Do(r.ctx, copyCommand(list)), 5, 0, 0x16) // OPERATION IN PROGRESS
	r.disks[1].Release()
	if c := <-done; c.Err != nil {
		t.Fatal(c.Err)
	}
	if b, err := copyResults(r.node, s, 0, 7); err != nil || b[4] != 1 || be.Uint16(b[5:]) != 1 || b[7] != 1 || be.Uint32(b[8:]) != 2048 {
		t.Errorf("after it: % x, %v", b, err)
	}
	if b, err := copyResults(r.node, s, 4, 7); err != nil || be.Uint32(b) != 0 {
		t.Errorf("details of a success: % x, %v", b, err)
	}
	r.disks[1].SetFail(func(op *iscsi.Op) error {
		if op.Offset > 0 {
			return iscsi.ErrMedium
		}
		return nil
	})
	wantSense(t, s.Do(r.ctx, copyCommand(list)), 0x0a, 0x0d, 1)
	if b, err := copyResults(r.node, s, 0, 7); err != nil || b[4] != 2 || be.Uint32(b[8:]) != 1024 {
		t.Errorf("after a failure: % x, %v", b, err)
	}
	if b, err := copyResults(r.node, s, 4, 7); err != nil || b[56] != 2 || int(be.Uint16(b[58:])) != len(b)-60 || b[60+2]&0x0f != 0x0a {
		t.Errorf("details: % x, %v", b, err)
	}
	r.disks[1].SetFail(nil)
	list.id, list.usage = 0, 3
	if err := s.Do(r.ctx, copyCommand(list)); err != nil {
		t.Errorf("without a list identifier: %v", err)
	}
	again := r.ready(as(hostA), 0)
	if _, err := copyResults(r.node, again, 0, 7); err == nil {
		t.Error("another nexus is told")
	}
	b, err := copyResults(r.node, s, 3, 0)
	if err != nil || len(b) != 46 || be.Uint16(b[8:]) != 8 || be.Uint16(b[10:]) != 16 || b[44] != 0x02 || b[45] != 0xe4 {
		t.Errorf("operating parameters % x, %v", b, err)
	}
	page, err := s.Inquiry(r.ctx, 0, 0x8f)
	if err != nil {
		t.Fatal(err)
	}
	kinds := []uint16{}
	for p := page[4:]; len(p) > 0; p = p[4+be.Uint16(p[2:]):] {
		kinds = append(kinds, be.Uint16(p))
		if be.Uint16(p) == 4 && (!bytes.Equal(p[8:16], b[8:16])) {
			t.Errorf("page 8Fh says % x, the operating parameters % x", p[8:16], b[8:16])
		}
	}
	if fmt.Sprint(kinds) != "[1 4 8 32769]" {
		t.Errorf("descriptors %v", kinds)
	}
}

// TestCopyLimit: no more copies run at once than are announced; the next is BUSY.
func TestCopyLimit(t *testing.T) {
	const limit = 64
	r := newCopyRig(t, open(nil), open(nil))
	s := r.ready(as(hostA), 0)
	r.fill(0, 0, noise(1<<20, 8))
	r.disks[0].Hold()
	done := make(chan *initiator.Command, limit)
	list := copyList{usage: 3, cscds: [][16]byte{copyNAA(0), copyNAA(1)}, segments: []copySegment{{0, 1, 8, 0, 0, false}}}
	for range limit {
		c := copyCommand(list)
		c.Done = func(c *initiator.Command) { done <- c }
		if err := s.Submit(c); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, r.node, "all copies run", func() bool { return r.disks[0].Held() == limit })
	wantStatus(t, s.Do(r.ctx, copyCommand(list)), initiator.Busy)
	r.disks[0].Release()
	for range limit {
		if c := <-done; c.Err != nil {
			t.Error(c.Err)
		}
	}
	if err := s.Do(r.ctx, copyCommand(list)); err != nil {
		t.Error(err)
	}
}
