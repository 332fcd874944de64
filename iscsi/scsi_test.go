package iscsi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

var be = binary.BigEndian

func cdb(b ...byte) (c [16]byte) {
	copy(c[:], b)
	return c
}

const blocks = diskSize / 512

// lba4 and lba8 spell an LBA in a CDB.
func lba4(b []byte, lba uint32) []byte { return be.AppendUint32(b, lba) }

// TestDataCommands: every form of READ, WRITE, VERIFY and WRITE AND VERIFY.
func TestDataCommands(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	p := bytes.Repeat([]byte{0xa5}, 1024)
	q := make([]byte, 1024)
	cdbs := func(op6, op10, op12, op16 byte, flags byte) (out [][16]byte) {
		if op6 != 0 {
			out = append(out, cdb(op6, 0, 0, 7, 2))
		}
		a := append(lba4([]byte{op10, flags}, 7), 0, 0, 2)
		b := append(lba4([]byte{op12, flags}, 7), 0, 0, 0, 2)
		c := append(lba4([]byte{op16, flags, 0, 0, 0, 0}, 7), 0, 0, 0, 2)
		return append(out, cdb(a...), cdb(b...), cdb(c...))
	}
	for _, flags := range []byte{0, 0x10, 0x08, 0x18} { // DPO, FUA
		for _, c := range cdbs(0x0a, 0x2a, 0xaa, 0x8a, flags) {
			clearDisk(t, n)
			if err := s.Do(n.ctx, &initiator.Command{CDB: c, Out: p}); err != nil {
				t.Errorf("% x: %v", c, err)
			}
			if _, err := n.disk.ReadAt(q, 7*512); err != nil || !bytes.Equal(p, q) {
				t.Errorf("% x stored something else", c)
			}
		}
		for _, c := range cdbs(0x08, 0x28, 0xa8, 0x88, flags) {
			r := &initiator.Command{CDB: c, In: make([]byte, 1024)}
			if err := s.Do(n.ctx, r); err != nil || !bytes.Equal(r.In, p) {
				t.Errorf("% x: %v", c, err)
			}
		}
	}
	for _, flags := range []byte{0, 0x02} { // BYTCHK
		for _, c := range cdbs(0, 0x2e, 0xae, 0x8e, flags) {
			clearDisk(t, n)
			if err := s.Do(n.ctx, &initiator.Command{CDB: c, Out: p}); err != nil {
				t.Errorf("% x: %v", c, err)
			}
			if _, err := n.disk.ReadAt(q, 7*512); err != nil || !bytes.Equal(p, q) {
				t.Errorf("% x stored something else", c)
			}
		}
	}
	for _, c := range cdbs(0, 0x2f, 0xaf, 0x8f, 0) {
		if err := s.Do(n.ctx, &initiator.Command{CDB: c}); err != nil {
			t.Errorf("% x: %v", c, err)
		}
	}
	other := append([]byte(nil), p...)
	other[700] ^= 1
	for _, c := range cdbs(0, 0x2f, 0xaf, 0x8f, 0x02) {
		if err := s.Do(n.ctx, &initiator.Command{CDB: c, Out: p}); err != nil {
			t.Errorf("% x: %v", c, err)
		}
		k := &initiator.Command{CDB: c, Out: other}
		wantSense(t, s.Do(n.ctx, k), 0x0e, 0x1d, 0)
		if k.Sense.Info != 700 {
			t.Errorf("miscompare at %d, want 700", k.Sense.Info)
		}
	}
}

func clearDisk(t *testing.T, n *node) {
	t.Helper()
	if _, err := n.disk.WriteAt(make([]byte, 64<<10), 0); err != nil {
		t.Fatal(err)
	}
}

// TestRefusals: what must be refused, and with which sense data.
func TestRefusals(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	block := make([]byte, 512)
	rw16 := func(op, flags byte, lba uint64, count uint32) [16]byte {
		c := cdb(op, flags)
		be.PutUint64(c[2:], lba)
		be.PutUint32(c[10:], count)
		return c
	}
	unmapList := func(lba uint64, count uint32) []byte {
		b := make([]byte, 24)
		be.PutUint16(b, 22)
		be.PutUint16(b[2:], 16)
		be.PutUint64(b[8:], lba)
		be.PutUint32(b[16:], count)
		return b
	}
	caw := rw16(0x89, 0, 0, 0)
	caw[13] = 200
	for _, tc := range []struct {
		name    string
		cdb     [16]byte
		out     []byte
		in      int
		k, a, q byte
	}{
		{"unknown opcode", cdb(0xc1), nil, 0, 5, 0x20, 0},
		{"unknown service action", cdb(0x5e, 4, 0, 0, 0, 0, 0, 0, 8), nil, 8, 5, 0x24, 0},
		{"GET LBA STATUS beyond the end", func() (c [16]byte) { c = rw16(0x9e, 0, blocks, 32); c[1] = 0x12; return c }(), nil, 32, 5, 0x21, 0},
		{"READ beyond the end", rw16(0x88, 0, blocks, 1), nil, 512, 5, 0x21, 0},
		{"READ across the end", rw16(0x88, 0, blocks-1, 2), nil, 1024, 5, 0x21, 0},
		{"READ wrapping LBA", rw16(0x88, 0, 1<<64-1, 2), nil, 1024, 5, 0x21, 0},
		{"READ nothing beyond the end", rw16(0x88, 0, blocks, 0), nil, 0, 5, 0x21, 0},
		{"READ with RDPROTECT", rw16(0x88, 0x20, 0, 1), nil, 512, 5, 0x24, 0},
		{"READ above the maximum", rw16(0x88, 0, 0, 8193), nil, 512, 5, 0x24, 0},
		{"WRITE with WRPROTECT", rw16(0x8a, 0x20, 0, 1), block, 0, 5, 0x24, 0},
		{"WRITE beyond the end", rw16(0x8a, 0, blocks, 1), block, 0, 5, 0x21, 0},
		{"VERIFY with BYTCHK 10b", rw16(0x8f, 0x04, 0, 1), block, 0, 5, 0x24, 0},
		{"WRITE AND VERIFY with BYTCHK 11b", rw16(0x8e, 0x06, 0, 1), block, 0, 5, 0x24, 0},
		{"ORWRITE with WRPROTECT", rw16(0x8b, 0x20, 0, 1), block, 0, 5, 0x24, 0},
		{"ORWRITE beyond the end", rw16(0x8b, 0, blocks, 1), block, 0, 5, 0x21, 0},
		{"ORWRITE of half its data", rw16(0x8b, 0, 0, 2), block, 0, 5, 0x24, 0},
		{"WRITE ATOMIC with a boundary", func() (c [16]byte) { c = rw16(0x9c, 0, 0, 1); c[11] = 8; return c }(), block, 0, 5, 0x24, 0},
		{"WRITE ATOMIC above the maximum", rw16(0x9c, 0, 0, 8193), block, 0, 5, 0x24, 0},
		{"WRITE ATOMIC of half its data", rw16(0x9c, 0, 0, 2), block, 0, 5, 0x24, 0},
		{"UNMAP with ANCHOR", cdb(0x42, 1, 0, 0, 0, 0, 0, 0, 24), unmapList(0, 1), 0, 5, 0x24, 0},
		{"UNMAP beyond the end", cdb(0x42, 0, 0, 0, 0, 0, 0, 0, 24), unmapList(1<<60, 0xffffffff), 0, 5, 0x21, 0},
		{"UNMAP of half a header", cdb(0x42, 0, 0, 0, 0, 0, 0, 0, 4), make([]byte, 4), 0, 5, 0x1a, 0},
		{"UNMAP without data-out", cdb(0x42, 0, 0, 0, 0, 0, 0, 0, 24), nil, 0, 5, 0x1a, 0},
		{"UNMAP with more descriptors than data", cdb(0x42, 0, 0, 0, 0, 0, 0, 0, 8), unmapList(0, 1)[:8], 0, 5, 0x26, 0},
		{"WRITE SAME up to an end beyond the maximum", rw16(0x93, 0, 0, 0), block, 0, 5, 0x24, 0},
		{"WRITE SAME with ANCHOR", rw16(0x93, 0x18, 0, 8), block, 0, 5, 0x24, 0},
		{"WRITE SAME above the maximum", rw16(0x93, 0, 0, 65536), block, 0, 5, 0x24, 0},
		{"WRITE SAME without its block", rw16(0x93, 0, 0, 8), nil, 0, 5, 0x24, 0},
		{"WRITE SAME(10) with NDOB", cdb(0x41, 1, 0, 0, 0, 0, 0, 0, 1), block, 0, 5, 0x24, 0},
		{"COMPARE AND WRITE above the maximum", caw, block, 0, 5, 0x24, 0},
		{"MODE SENSE saved values", cdb(0x1a, 0, 0xff, 0, 255), nil, 255, 5, 0x39, 0},
		{"MODE SENSE unknown page", cdb(0x1a, 0, 0x05, 0, 255), nil, 255, 5, 0x24, 0},
		{"MODE SELECT of a changed page", cdb(0x15, 0x10, 0, 0, 24),
			append([]byte{0, 0, 0, 0, 0x08, 18, 0x04}, make([]byte, 17)...), 0, 5, 0x26, 0},
		{"MODE SELECT of a longer page", cdb(0x15, 0x10, 0, 0, 24),
			append([]byte{0, 0, 0, 0, 0x08, 24}, make([]byte, 18)...), 0, 5, 0x1a, 0},
		{"MODE SELECT to be saved", cdb(0x15, 0x11, 0, 0, 4), make([]byte, 4), 0, 5, 0x24, 0},
		{"LOG SENSE to be saved", cdb(0x4d, 1, 0, 0, 0, 0, 0, 0, 64), nil, 64, 5, 0x24, 0},
		{"LOG SENSE of an unknown page", cdb(0x4d, 0, 0x4d, 0, 0, 0, 0, 0, 64), nil, 64, 5, 0x24, 0},
		{"INQUIRY of an unknown page", cdb(0x12, 1, 0xc0, 0, 255), nil, 255, 5, 0x24, 0},
		{"REPORT LUNS into 8 bytes", cdb(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 8), nil, 8, 5, 0x24, 0},
		{"third-party RESERVE", cdb(0x16, 0x10), nil, 0, 5, 0x24, 0},
		{"PREVENT removal", cdb(0x1e, 0, 0, 0, 1), nil, 0, 5, 0x24, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &initiator.Command{CDB: tc.cdb, Out: tc.out}
			if tc.in > 0 {
				c.In = make([]byte, tc.in)
			}
			wantSense(t, s.Do(n.ctx, c), tc.k, tc.a, tc.q)
		})
	}
	t.Run("no such LUN", func(t *testing.T) {
		wantSense(t, s.Do(n.ctx, &initiator.Command{LUN: 9}), 5, 0x25, 0)
	})
	t.Run("bidirectional", func(t *testing.T) {
		wantSense(t, s.Do(n.ctx, &initiator.Command{CDB: rw16(0x8a, 0, 0, 1), Out: block, ForceRead: true}), 5, 0x0e, 3)
	})
}

// TestUnmapAndZero: the ranges become zero and nothing beside them changes.
func TestUnmapAndZero(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	pattern := bytes.Repeat([]byte{0x77}, 512)
	ones := bytes.Repeat([]byte{0xff}, 64<<10)
	for _, tc := range []struct {
		name string
		kind iscsi.OpKind
		want byte
		do   func() error
	}{
		{"UNMAP", iscsi.OpUnmap, 0, func() error {
			return s.Unmap(n.ctx, 0, initiator.Extent{LBA: 8, Blocks: 3}, initiator.Extent{LBA: 11}, initiator.Extent{LBA: 11, Blocks: 5})
		}},
		{"WRITE SAME zeros", iscsi.OpZero, 0, func() error { return s.WriteSame(n.ctx, 0, make([]byte, 512), 8, 8, false) }},
		{"WRITE SAME NDOB", iscsi.OpZero, 0, func() error { return s.WriteSame(n.ctx, 0, nil, 8, 8, false) }},
		{"WRITE SAME UNMAP", iscsi.OpUnmap, 0, func() error { return s.WriteSame(n.ctx, 0, make([]byte, 512), 8, 8, true) }},
		{"WRITE SAME pattern", iscsi.OpWrite, 0x77, func() error { return s.WriteSame(n.ctx, 0, pattern, 8, 8, false) }},
		{"WRITE SAME pattern UNMAP", iscsi.OpWrite, 0x77, func() error { return s.WriteSame(n.ctx, 0, pattern, 8, 8, true) }},
	} {
		for _, limit := range []int64{0, 4096, 1024} {
			t.Run(fmt.Sprintf("%s limit %d", tc.name, limit), func(t *testing.T) {
				g := n.disk.Geometry()
				g.MaxUnmapBytes = max(limit, 4096) * min(limit, 1)
				n.disk.SetGeometry(g)
				if _, err := n.disk.WriteAt(ones, 0); err != nil {
					t.Fatal(err)
				}
				before := n.disk.Ops[tc.kind].Load()
				if err := tc.do(); err != nil {
					t.Fatal(err)
				}
				if n.disk.Ops[tc.kind].Load() == before {
					t.Error("not done by the expected operation")
				}
				got := make([]byte, len(ones))
				if _, err := n.disk.ReadAt(got, 0); err != nil {
					t.Fatal(err)
				}
				want := append([]byte(nil), ones...)
				copy(want[4096:], bytes.Repeat([]byte{tc.want}, 4096))
				if !bytes.Equal(got, want) {
					t.Error("the range is wrong")
				}
			})
		}
	}
}

func TestCompareAndWrite(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	a, b := make([]byte, 1024), bytes.Repeat([]byte{2}, 1024)
	if err := s.CompareAndWrite(n.ctx, 0, a, b, 5); err != nil {
		t.Fatal(err)
	}
	b[515]++
	err := s.CompareAndWrite(n.ctx, 0, b, a, 5)
	wantSense(t, err, 0x0e, 0x1d, 0)
	var e *initiator.SCSIError
	if errors.As(err, &e) && (!e.Sense.InfoValid || e.Sense.Info != 515) {
		t.Errorf("miscompare at %d", e.Sense.Info)
	}
}

// TestGoneDisk: the command fails and the session is dropped.
func TestGoneDisk(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	n.disk.SetFail(func(*iscsi.Op) error { return iscsi.ErrGone })
	wantSense(t, s.ReadAt(n.ctx, 0, make([]byte, 512), 0), 2, 4, 3)
	select {
	case <-s.Done():
	case <-n.ctx.Done():
		t.Error("the session is still there")
	}
}

func TestReadOnlyDisk(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	g := n.disk.Geometry()
	g.ReadOnly, g.WriteCache = true, true
	n.disk.SetGeometry(g)
	s := n.login(nil)
	wantSense(t, s.WriteAt(n.ctx, 0, make([]byte, 512), 0), 7, 0x27, 0)
	if err := s.ReadAt(n.ctx, 0, make([]byte, 512), 0); err != nil {
		t.Error(err)
	}
	c := &initiator.Command{CDB: cdb(0x1a, 0, 0x08, 0, 255), In: make([]byte, 255)}
	if err := s.Do(n.ctx, c); err != nil || c.In[2]&0x80 == 0 || c.In[14]&0x04 == 0 {
		t.Errorf("MODE SENSE: %v, WP %#02x, WCE %#02x", err, c.In[2], c.In[14])
	}
}

// TestIdentity: INQUIRY, its pages, capacity and LUN list as a hypervisor reads them.
func TestIdentity(t *testing.T) {
	big := iscsitest.NewDisk(3<<40, nil)
	n := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) {
		l := lunSpec(300, big)
		l.Vendor, l.Product, l.Revision = "ACME", "Thing", "9"
		s.LUNs = append(s.LUNs, l, lunSpec(5, big))
	})
	s := n.login(nil)
	for _, lun := range []uint16{5, 300} {
		if err := s.Ready(n.ctx, lun); err != nil {
			t.Fatal(err)
		}
	}
	luns, err := s.ReportLUNs(n.ctx)
	if err != nil || fmt.Sprint(luns) != "[0 5 300]" {
		t.Errorf("REPORT LUNS %v, %v", luns, err)
	}
	std, err := s.Inquiry(n.ctx, 300, -1)
	if err != nil || string(std[8:36]) != "ACME    Thing           9   " || std[0] != 0 || std[5] != 0x18 {
		t.Errorf("INQUIRY %q, %v", std, err)
	}
	none, err := s.Inquiry(n.ctx, 77, -1)
	if err != nil || none[0] != 0x7f {
		t.Errorf("INQUIRY of an absent LUN: % x, %v", none, err)
	}
	pages, err := s.Inquiry(n.ctx, 0, 0)
	if err != nil || !bytes.Equal(pages[4:], []byte{0, 0x80, 0x83, 0x86, 0x8f, 0xb0, 0xb1, 0xb2}) {
		t.Errorf("pages % x, %v", pages, err)
	}
	for _, p := range pages[4:] {
		b, err := s.Inquiry(n.ctx, 0, int(p))
		if err != nil || b[1] != p || int(be.Uint16(b[2:])) != len(b)-4 {
			t.Errorf("page %02x: % x, %v", p, b, err)
		}
	}
	serial, _ := s.Inquiry(n.ctx, 0, 0x80)
	if string(serial[4:]) != "0123456789" {
		t.Errorf("serial %q", serial)
	}
	ids, _ := s.Inquiry(n.ctx, 0, 0x83)
	if !bytes.Equal(ids[4:8], []byte{1, 3, 0, 16}) || ids[8]>>4 != 6 || !bytes.Contains(ids, []byte(targetName+",t,0x0001")) {
		t.Errorf("identifiers % x", ids)
	}
	limits, _ := s.Inquiry(n.ctx, 0, 0xb0)
	if be.Uint32(limits[8:]) != 8192 || be.Uint32(limits[28:]) != 8 || limits[32]&0x80 == 0 {
		t.Errorf("limits % x", limits)
	}
	thin, _ := s.Inquiry(n.ctx, 0, 0xb2)
	if thin[5] != 0xe4 || thin[6] != 2 {
		t.Errorf("provisioning % x", thin)
	}
	c, err := s.ReadCapacity(n.ctx, 300)
	if want := (initiator.Capacity{Blocks: 3 << 31, BlockSize: 512, PhysicalShift: 3, Thin: true, ReadsZero: true}); err != nil || c != want {
		t.Errorf("capacity %+v, %v", c, err)
	}
	c10 := &initiator.Command{LUN: 300, CDB: cdb(0x25), In: make([]byte, 8)}
	if err := s.Do(n.ctx, c10); err != nil || be.Uint32(c10.In) != 0xffffffff {
		t.Errorf("READ CAPACITY(10) % x, %v", c10.In, err)
	}
	p := make([]byte, 512)
	if err := s.WriteAt(n.ctx, 300, p, 3<<31-1); err != nil {
		t.Errorf("last block of 3 TiB: %v", err)
	}
}
