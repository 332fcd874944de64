package iscsi_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

// controlPage is a MODE SELECT(6) of the control page with these bits.
func controlPage(dsense, swp byte) *initiator.Command {
	b := []byte{0, 0, 0, 0, 0x0a, 0x0a, 0x20 | dsense, 0x10, swp, 0, 0, 0, 0xff, 0xff, 0, 0}
	return &initiator.Command{CDB: cdb(0x15, 0x10, 0, 0, byte(len(b))), Out: b}
}

// sense6 returns the mode data of a page, without block descriptor.
func sense6(n *node, s *initiator.Session, control, page, sub byte) ([]byte, error) {
	c := &initiator.Command{CDB: cdb(0x1a, 0x08, control<<6|page, sub, 255), In: make([]byte, 255)}
	err := s.Do(n.ctx, c)
	return c.In[:c.Received], err
}

// TestSoftwareWriteProtect: SWP stops every writing command of every nexus, is told
// to the others, and goes with a reset.
func TestSoftwareWriteProtect(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	a, b := n.login(nil), n.login(nil)
	flushes := n.disk.Ops[iscsi.OpFlush].Load()
	if err := a.Do(n.ctx, controlPage(0, 0x08)); err != nil {
		t.Fatal(err)
	}
	if n.disk.Ops[iscsi.OpFlush].Load() != flushes+1 {
		t.Error("protected without a flush")
	}
	wantSense(t, b.TestUnitReady(n.ctx, 0), 6, 0x2a, 1)
	for _, c := range dataCommands() {
		writes := c.copy
		for _, k := range c.ops {
			writes = writes || k != iscsi.OpRead && k != iscsi.OpFlush && k != iscsi.OpReserve
		}
		for _, s := range []*initiator.Session{a, b} {
			err := s.Do(n.ctx, c.make(16))
			switch {
			case c.copy:
				wantSense(t, err, 0x0a, 0, 0)
			case writes:
				wantSense(t, err, 7, 0x27, 2)
			case err != nil:
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	if m, err := sense6(n, a, 0, 0x0a, 0); err != nil || m[2]&0x80 == 0 || m[8]&0x08 == 0 {
		t.Errorf("mode data % x, %v", m, err)
	}
	if m, err := sense6(n, a, 2, 0x0a, 0); err != nil || m[8] != 0 {
		t.Errorf("default values % x, %v", m, err)
	}
	if m, err := sense6(n, a, 1, 0x0a, 0); err != nil || !bytes.Equal(m[4:], []byte{0x0a, 0x0a, 0x04, 0, 0x08, 0, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("changeable values % x, %v", m, err)
	}
	if err := a.Do(n.ctx, controlPage(0, 0x08)); err != nil { // no change, nobody is told
		t.Fatal(err)
	}
	if err := b.TestUnitReady(n.ctx, 0); err != nil {
		t.Error(err)
	}
	if code, err := b.TaskManagement(n.ctx, 5, 0, nil); err != nil || code != 0 { // LOGICAL UNIT RESET
		t.Fatal(code, err)
	}
	for _, s := range []*initiator.Session{a, b} {
		if err := s.Ready(n.ctx, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.WriteAt(n.ctx, 0, make([]byte, 512), 0); err != nil {
			t.Errorf("after a reset: %v", err)
		}
	}
}

// TestModeSelectRefusals: a list with one wrong bit changes nothing.
func TestModeSelectRefusals(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	good := controlPage(0x04, 0x08).Out
	for _, tc := range []struct {
		name   string
		change func(b []byte) []byte
		asc    byte
	}{
		{"another bit of the page", func(b []byte) []byte { b[6] ^= 0x02; return b }, 0x26},
		{"a page behind it that does not exist", func(b []byte) []byte { return append(b, 0x05, 0) }, 0x26},
		{"caching page behind it with WCE", func(b []byte) []byte { return append(b, append([]byte{0x08, 18, 0x04}, make([]byte, 17)...)...) }, 0x26},
		{"cut", func(b []byte) []byte { return b[:len(b)-1] }, 0x1a},
		{"half a page header behind it", func(b []byte) []byte { return append(b, 0x0a) }, 0x1a},
		{"half a subpage header behind it", func(b []byte) []byte { return append(b, 0x5c, 2, 0) }, 0x1a},
		{"another block length", func(b []byte) []byte {
			b[3] = 8
			return append(b[:4:4], append([]byte{0, 0, 0, 0, 0, 0, 16, 0}, b[4:]...)...)
		}, 0x26},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := tc.change(append([]byte(nil), good...))
			wantSense(t, s.Do(n.ctx, &initiator.Command{CDB: cdb(0x15, 0x10, 0, 0, byte(len(b))), Out: b}), 5, tc.asc, 0)
			if m, err := sense6(n, s, 0, 0x0a, 0); err != nil || m[6] != 0x20 || m[8] != 0 {
				t.Errorf("control page % x, %v", m, err)
			}
		})
	}
}

// TestThinProvisioning: what thin space there is, in log and mode pages and VPD B2h,
// and the warning when it runs out.
func TestThinProvisioning(t *testing.T) {
	thin := iscsitest.Thin{Disk: iscsitest.NewDisk(diskSize, nil)}
	n := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) { s.LUNs = append(s.LUNs, lunSpec(1, thin)) })
	s := n.ready(nil, 0, 1)
	thin.SetSpace(iscsi.Space{Used: 5<<20 + 4096, Available: 700 << 20, Threshold: 64<<20 + 1})
	logs := func(lun uint16, page, sub byte, from uint16) ([]byte, error) {
		c := &initiator.Command{LUN: lun, CDB: cdb(0x4d, 0, 0x40|page, sub, 0, byte(from>>8), byte(from), 1, 0), In: make([]byte, 256)}
		err := s.Do(n.ctx, c)
		return c.In[:c.Received], err
	}
	for _, tc := range []struct {
		lun       uint16
		page, sub byte
		from      uint16
		want      string
	}{
		{0, 0, 0, 0, "00 00 00 01 00"},
		{1, 0, 0, 0, "00 00 00 02 00 0c"},
		{1, 0, 0xff, 0, "40 ff 00 06 00 00 00 ff 0c 00"},
		{1, 0x0c, 0, 0, "0c 00 00 18 00 01 03 08 00 00 02 bc 00 00 00 00 00 02 03 08 00 00 00 05 01 00 00 00"},
		{1, 0x0c, 0, 2, "0c 00 00 0c 00 02 03 08 00 00 00 05 01 00 00 00"},
	} {
		if b, err := logs(tc.lun, tc.page, tc.sub, tc.from); err != nil || fmt.Sprintf("% x", b) != tc.want {
			t.Errorf("LUN %d page %02x/%02x: % x, %v", tc.lun, tc.page, tc.sub, b, err)
		}
	}
	_, err := logs(0, 0x0c, 0, 0)
	wantSense(t, err, 5, 0x24, 0)
	_, err = logs(1, 0x0c, 0, 3)
	wantSense(t, err, 5, 0x24, 0)

	m := &initiator.Command{LUN: 1, CDB: cdb(0x1a, 8, 0x1c, 2, 255), In: make([]byte, 255)}
	want := "5c 02 00 14 00 00 00 00 00 00 00 00 00 00 00 00 80 01 00 00 00 00 00 41"
	if err := s.Do(n.ctx, m); err != nil || fmt.Sprintf("% x", m.In[4:m.Received]) != want {
		t.Errorf("mode page % x, %v", m.In[:m.Received], err)
	}
	c := &initiator.Command{CDB: cdb(0x1a, 8, 0x1c, 2, 255), In: make([]byte, 255)}
	wantSense(t, s.Do(n.ctx, c), 5, 0x24, 0)
	for lun, exponent := range map[uint16]byte{0: 0, 1: 11} {
		if b, err := s.Inquiry(n.ctx, lun, 0xb2); err != nil || b[4] != exponent {
			t.Errorf("LUN %d: page B2h % x, %v", lun, b, err)
		}
	}
	if err := n.srv.SpaceThreshold(targetName, 1); err != nil {
		t.Fatal(err)
	}
	wantSense(t, s.TestUnitReady(n.ctx, 1), 6, 0x38, 7)
	for lun := range uint16(2) {
		if err := s.TestUnitReady(n.ctx, lun); err != nil {
			t.Error(err)
		}
	}
	if err := n.srv.SpaceThreshold(targetName, 9); err == nil {
		t.Error("a LUN that is not there")
	}
}

// Test4Kn: everything that counts in blocks counts in blocks of 4096 bytes.
func Test4Kn(t *testing.T) {
	n := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) { s.LUNs[0].BlockSize = 4096 })
	s := n.login(nil)
	const last = diskSize/4096 - 1
	if c, err := s.ReadCapacity(n.ctx, 0); err != nil || c.Blocks != last+1 || c.BlockSize != 4096 || c.PhysicalShift != 0 {
		t.Errorf("capacity %+v, %v", c, err)
	}
	c10 := &initiator.Command{CDB: cdb(0x25), In: make([]byte, 8)}
	if err := s.Do(n.ctx, c10); err != nil || be.Uint32(c10.In) != last || be.Uint32(c10.In[4:]) != 4096 {
		t.Errorf("READ CAPACITY(10) % x, %v", c10.In, err)
	}
	l, err := s.Inquiry(n.ctx, 0, 0xb0)
	if err != nil || be.Uint16(l[6:]) != 1 || be.Uint32(l[8:]) != 1024 || be.Uint32(l[28:]) != 1 || be.Uint64(l[36:]) != 4096 || be.Uint32(l[44:]) != 1024 {
		t.Errorf("limits % x, %v", l, err)
	}
	long := &initiator.Command{CDB: cdb(0x5a, 0x10, 0x0a, 0, 0, 0, 0, 0, 255), In: make([]byte, 255)}
	if err := s.Do(n.ctx, long); err != nil || be.Uint64(long.In[8:]) != last+1 || be.Uint32(long.In[20:]) != 4096 {
		t.Errorf("MODE SENSE(10) % x, %v", long.In[:long.Received], err)
	}
	p := noise(8192, 1)
	write := &initiator.Command{CDB: initiator.WriteCDB(last-1, 2, false), Out: p}
	read := &initiator.Command{CDB: initiator.ReadCDB(last-1, 2), In: make([]byte, 8192)}
	if err := s.Do(n.ctx, write); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(n.ctx, read); err != nil || !bytes.Equal(read.In, p) {
		t.Errorf("the last two blocks: %v", err)
	}
	got := make([]byte, 8192)
	if _, err := n.disk.ReadAt(got, diskSize-8192); err != nil || !bytes.Equal(got, p) {
		t.Error("they are elsewhere on the disk")
	}
	wantSense(t, s.Do(n.ctx, &initiator.Command{CDB: initiator.ReadCDB(last, 2), In: make([]byte, 8192)}), 5, 0x21, 0)
	short := &initiator.Command{CDB: initiator.WriteCDB(0, 2, false), Out: p[:6000]} // one whole block arrives
	if err := s.Do(n.ctx, short); err != nil || short.Residual >= 0 {
		t.Errorf("short write: %v, residual %d", err, short.Residual)
	}
	if _, err := n.disk.ReadAt(got, 0); err != nil || !bytes.Equal(got[:4096], p[:4096]) || bytes.Contains(got[4096:], p[4096:4104]) {
		t.Error("not the whole blocks alone were stored")
	}
	n.disk.SetFail(func(op *iscsi.Op) error { op.BadOffset += 4096; return iscsi.ErrMedium })
	bad := &initiator.Command{CDB: initiator.ReadCDB(100, 4), In: make([]byte, 16384)}
	wantSense(t, s.Do(n.ctx, bad), 3, 0x11, 0)
	if bad.Sense.Info != 101 {
		t.Errorf("medium error at %d", bad.Sense.Info)
	}
}

// TestBlockSizeRefused: block sizes that do not exist or do not suit the disk.
func TestBlockSizeRefused(t *testing.T) {
	for _, tc := range []struct {
		block   int
		size    int64
		cluster int
	}{{1024, diskSize, 4096}, {8192, diskSize, 8192}, {-1, diskSize, 4096}, {520, diskSize, 4096}, {4096, diskSize + 512, 4096}, {4096, diskSize, 512}} {
		srv := iscsi.NewServer(iscsi.Config{})
		d := iscsitest.NewDisk(tc.size, nil)
		g := d.Geometry()
		g.ClusterSize = tc.cluster
		d.SetGeometry(g)
		l := lunSpec(3, d)
		l.BlockSize = tc.block
		err := srv.AddTarget(iscsi.TargetSpec{Name: targetName, Groups: open(nil), LUNs: []iscsi.LUNSpec{l}})
		if err == nil || !strings.Contains(err.Error(), "LUN 3") {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

// TestWriteAtomic: it is one write of the disk, and absent where the disk has none.
func TestWriteAtomic(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	atomic := func(blocks int) *initiator.Command {
		c := cdb(0x9c)
		c[12], c[13] = byte(blocks>>8), byte(blocks)
		return &initiator.Command{CDB: c, Out: make([]byte, blocks*512)}
	}
	g := n.disk.Geometry()
	g.AtomicBytes = 64<<10 + 100
	n.disk.SetGeometry(g)
	before := n.disk.Ops[iscsi.OpWrite].Load()
	if err := s.Do(n.ctx, atomic(128)); err != nil || n.disk.Ops[iscsi.OpWrite].Load() != before+1 {
		t.Errorf("%v, %d writes", err, n.disk.Ops[iscsi.OpWrite].Load()-before)
	}
	wantSense(t, s.Do(n.ctx, atomic(129)), 5, 0x24, 0)
	if l, err := s.Inquiry(n.ctx, 0, 0xb0); err != nil || be.Uint32(l[44:]) != 128 || !bytes.Equal(l[48:64], make([]byte, 16)) {
		t.Errorf("limits % x, %v", l, err)
	}
	g.AtomicBytes = 0
	n.disk.SetGeometry(g)
	wantSense(t, s.Do(n.ctx, atomic(1)), 5, 0x20, 0)
	if l, err := s.Inquiry(n.ctx, 0, 0xb0); err != nil || be.Uint32(l[44:]) != 0 {
		t.Errorf("limits % x, %v", l, err)
	}
	if bytes.Contains(supportedOpcodes(t, n, s), []byte{0x9c}) {
		t.Error("reported as supported")
	}
}

// TestOrWriteTogether: ORs of two nexuses on one block lose no bit.
func TestOrWriteTogether(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	sessions := []*initiator.Session{n.login(nil), n.login(nil)}
	const each = 32
	var wg sync.WaitGroup
	for i, s := range sessions {
		for k := range each {
			wg.Add(1)
			p := make([]byte, 512)
			p[k] = 0x0f << (4 * i)
			c := cdb(0x8b)
			c[9], c[13] = 3, 1
			err := s.Submit(&initiator.Command{CDB: c, Out: p, Done: func(c *initiator.Command) {
				if c.Err != nil {
					t.Error(c.Err)
				}
				wg.Done()
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	got := make([]byte, 512)
	want := append(bytes.Repeat([]byte{0xff}, each), make([]byte, 512-each)...)
	if _, err := n.disk.ReadAt(got, 3*512); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, % x", err, got[:each])
	}
}

// TestLongCommand: a command of two million steps, all of which the disk completes at
// once, takes no stack, leaves the connection usable, and can be aborted.
func TestLongCommand(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	g := n.disk.Geometry()
	g.Size = 4 << 40
	n.disk.SetGeometry(g)
	c := cdb(0x8f) // VERIFY(16) of 2^32-1 blocks
	be.PutUint32(c[10:], 0xffffffff)
	k := &initiator.Command{CDB: c, Done: func(c *initiator.Command) { t.Errorf("answered: %v", c.Err) }}
	if err := s.Submit(k); err != nil {
		t.Fatal(err)
	}
	reads := &n.disk.Ops[iscsi.OpRead]
	eventually(t, n, "it is under way", func() bool { return reads.Load() > 100 })
	if _, err := s.Ping(n.ctx, []byte("ping")); err != nil {
		t.Fatal(err)
	}
	if code, err := s.TaskManagement(n.ctx, 1, 0, k); err != nil || code != 0 {
		t.Fatal(code, err)
	}
	s.Forget(k)
	end := reads.Load()
	if err := s.TestUnitReady(n.ctx, 0); err != nil || reads.Load() != end {
		t.Errorf("%v, %d reads after the abort was answered", err, reads.Load()-end)
	}
}

// TestVerifyOne: BYTCHK 11b compares every block with the one sent.
func TestVerifyOne(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	block := noise(512, 2)
	if _, err := n.disk.WriteAt(bytes.Repeat(block, 4096), 0); err != nil {
		t.Fatal(err)
	}
	c := cdb(0x8f, 0x06)
	be.PutUint32(c[10:], 4096)
	if err := s.Do(n.ctx, &initiator.Command{CDB: c, Out: block}); err != nil {
		t.Error(err)
	}
	if _, err := n.disk.WriteAt([]byte{^block[77]}, 3000*512+77); err != nil {
		t.Fatal(err)
	}
	k := &initiator.Command{CDB: c, Out: block}
	wantSense(t, s.Do(n.ctx, k), 0x0e, 0x1d, 0)
	if !k.Sense.InfoValid || k.Sense.Info != 77 {
		t.Errorf("difference at %d", k.Sense.Info)
	}
}

// TestSupportedCommands: the usage data of every command names its operation code and
// service action, ends with its control byte, and has the bits that are looked at.
func TestSupportedCommands(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	all := &initiator.Command{CDB: cdb(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0), In: make([]byte, 4096)}
	if err := s.Do(n.ctx, all); err != nil {
		t.Fatal(err)
	}
	for d := all.In[4:all.Received]; len(d) >= 8; d = d[8:] {
		option := byte(1)
		if d[5]&1 != 0 {
			option = 2
		}
		one := &initiator.Command{CDB: cdb(0xa3, 0x0c, option, d[0], d[2], d[3], 0, 0, 1, 0), In: make([]byte, 256)}
		if err := s.Do(n.ctx, one); err != nil {
			t.Fatal(err)
		}
		u := one.In[4:one.Received]
		length := int(be.Uint16(d[6:]))
		if one.In[1]&7 != 3 || len(u) != length || int(be.Uint16(one.In[2:])) != length || u[0] != d[0] || option == 2 && u[1]&0x1f != d[3] {
			t.Errorf("%02x/%02x: % x", d[0], d[3], one.In[:one.Received])
		}
		if u[length-1] != 0x04 && u[length-1] != 0 {
			t.Errorf("%02x/%02x: control byte %02x", d[0], d[3], u[length-1])
		}
	}
	tmf := &initiator.Command{CDB: cdb(0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 0, 16), In: make([]byte, 16)}
	if err := s.Do(n.ctx, tmf); err != nil || tmf.In[0] != 0xda || tmf.In[1] != 0 || tmf.In[3] != 12 {
		t.Errorf("task management functions % x, %v", tmf.In, err)
	}
}
