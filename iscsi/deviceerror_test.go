package iscsi_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// dataCommand is a command that reaches the disk: two blocks from an LBA, where it
// has a range.
type dataCommand struct {
	name string
	make func(lba uint64) *initiator.Command
	ops  []iscsi.OpKind // that it submits; each can fail
	far  bool           // takes an LBA above 32 bits
	copy bool           // EXTENDED COPY: errors are those of a copy source or destination
}

// dataCommands are all of them; TestDeviceErrors checks that none is missing.
func dataCommands() []dataCommand {
	const rd, wr, zero, unmap, flush, caw, or = iscsi.OpRead, iscsi.OpWrite, iscsi.OpZero, iscsi.OpUnmap, iscsi.OpFlush, iscsi.OpCompareAndWrite, iscsi.OpOrWrite
	ones := bytes.Repeat([]byte{1}, 1024)
	zeros := make([]byte, 1024)
	var all []dataCommand
	add := func(name string, far bool, cdbOf func(lba uint64) [16]byte, out []byte, in int, ops ...iscsi.OpKind) {
		all = append(all, dataCommand{name: name, far: far, ops: ops, make: func(lba uint64) *initiator.Command {
			c := &initiator.Command{CDB: cdbOf(lba), Out: out}
			if in > 0 {
				c.In = bytes.Repeat([]byte{0xee}, in)
			}
			return c
		}})
	}
	six := func(op byte) func(uint64) [16]byte {
		return func(lba uint64) [16]byte { return cdb(op, byte(lba>>16), byte(lba>>8), byte(lba), 2) }
	}
	ten := func(op, flags byte) func(uint64) [16]byte {
		return func(lba uint64) [16]byte { return cdb(append(lba4([]byte{op, flags}, uint32(lba)), 0, 0, 2)...) }
	}
	twelve := func(op, flags byte) func(uint64) [16]byte {
		return func(lba uint64) [16]byte { return cdb(append(lba4([]byte{op, flags}, uint32(lba)), 0, 0, 0, 2)...) }
	}
	sixteen := func(op, flags byte) func(uint64) [16]byte {
		return func(lba uint64) [16]byte {
			c := cdb(op, flags)
			be.PutUint64(c[2:], lba)
			c[13] = 2
			return c
		}
	}
	add("READ(6)", false, six(0x08), nil, 1024, rd)
	add("WRITE(6)", false, six(0x0a), ones, 0, wr)
	for _, f := range []struct {
		name string
		far  bool
		cdb  func(op10, flags byte) func(uint64) [16]byte
	}{
		{"(10)", false, ten},
		{"(12)", false, func(op, flags byte) func(uint64) [16]byte { return twelve(op+0x80, flags) }},
		{"(16)", true, func(op, flags byte) func(uint64) [16]byte { return sixteen(op+0x60, flags) }},
	} {
		add("READ"+f.name, f.far, f.cdb(0x28, 0), nil, 1024, rd)
		add("READ"+f.name+" FUA", f.far, f.cdb(0x28, 8), nil, 1024, rd)
		add("WRITE"+f.name, f.far, f.cdb(0x2a, 0), ones, 0, wr)
		add("WRITE"+f.name+" FUA", f.far, f.cdb(0x2a, 8), ones, 0, wr)
		add("WRITE AND VERIFY"+f.name, f.far, f.cdb(0x2e, 0), ones, 0, wr, rd)
		add("WRITE AND VERIFY"+f.name+" BYTCHK", f.far, f.cdb(0x2e, 2), ones, 0, wr, rd)
		add("VERIFY"+f.name, f.far, f.cdb(0x2f, 0), nil, 0, rd)
		add("VERIFY"+f.name+" BYTCHK 01b", f.far, f.cdb(0x2f, 2), zeros, 0, rd)
		add("VERIFY"+f.name+" BYTCHK 11b", f.far, f.cdb(0x2f, 6), zeros[:512], 0, rd)
	}
	add("ORWRITE(16)", true, sixteen(0x8b, 0), ones, 0, or)
	add("WRITE ATOMIC(16)", true, sixteen(0x9c, 0), ones, 0, wr)
	add("COMPARE AND WRITE", true, sixteen(0x89, 0), append(zeros[:1024:1024], ones...), 0, caw)
	for _, f := range []struct {
		name string
		far  bool
		cdb  func(flags byte) func(uint64) [16]byte
	}{
		{"(10)", false, func(flags byte) func(uint64) [16]byte { return ten(0x41, flags) }},
		{"(16)", true, func(flags byte) func(uint64) [16]byte { return sixteen(0x93, flags) }},
	} {
		add("WRITE SAME"+f.name, f.far, f.cdb(0), ones[:512], 0, wr)
		add("WRITE SAME"+f.name+" zeros", f.far, f.cdb(0), zeros[:512], 0, zero)
		add("WRITE SAME"+f.name+" UNMAP", f.far, f.cdb(8), zeros[:512], 0, unmap)
		add("WRITE SAME"+f.name+" UNMAP of a pattern", f.far, f.cdb(8), ones[:512], 0, wr)
	}
	add("WRITE SAME(16) NDOB", true, sixteen(0x93, 1), nil, 0, zero)
	add("PRE-FETCH(10)", false, ten(0x34, 0), nil, 0, rd)
	add("PRE-FETCH(16)", true, sixteen(0x90, 0), nil, 0, rd)
	add("SYNCHRONIZE CACHE(10)", false, ten(0x35, 0), nil, 0, flush)
	add("SYNCHRONIZE CACHE(10) IMMED", false, ten(0x35, 2), nil, 0, flush)
	add("SYNCHRONIZE CACHE(16)", true, sixteen(0x91, 0), nil, 0, flush)
	add("START STOP UNIT", false, func(uint64) [16]byte { return cdb(0x1b) }, nil, 0, flush)
	setSWP := []byte{0, 0, 0, 0, 0x0a, 0x0a, 0x20, 0x10, 0x08, 0, 0, 0, 0xff, 0xff, 0, 0}
	add("MODE SELECT(6) SWP", false, func(uint64) [16]byte { return cdb(0x15, 0x10, 0, 0, byte(len(setSWP))) }, setSWP, 0, flush)
	add("MODE SELECT(10) SWP", false, func(uint64) [16]byte { return cdb(0x55, 0x10, 0, 0, 0, 0, 0, 0, byte(len(setSWP)+4)) },
		append(make([]byte, 4), setSWP...), 0, flush)
	all = append(all, dataCommand{name: "PERSISTENT RESERVE OUT", ops: []iscsi.OpKind{iscsi.OpReserve}, make: func(uint64) *initiator.Command {
		return &initiator.Command{CDB: cdb(0x5f, 6, 0, 0, 0, 0, 0, 0, 24), Out: []byte{15: 1, 23: 0}} // register key 1
	}})
	all = append(all, dataCommand{name: "UNMAP", far: true, ops: []iscsi.OpKind{unmap}, make: func(lba uint64) *initiator.Command {
		b := []byte{0, 22, 0, 16, 23: 0}
		be.PutUint64(b[8:], lba)
		be.PutUint32(b[16:], 2)
		return &initiator.Command{CDB: cdb(0x42, 0, 0, 0, 0, 0, 0, 0, 24), Out: b}
	}})
	naa := lunSpec(0, nil).NAA
	all = append(all,
		dataCommand{name: "EXTENDED COPY", copy: true, ops: []iscsi.OpKind{rd, wr}, make: func(lba uint64) *initiator.Command {
			return copyCommand(copyList{cscds: [][16]byte{naa}, segments: []copySegment{{blocks: 2, from: 2048, to: lba}}})
		}},
		dataCommand{name: "EXTENDED COPY of nothing", copy: true, ops: []iscsi.OpKind{unmap}, make: func(lba uint64) *initiator.Command {
			return copyCommand(copyList{cscds: [][16]byte{naa}, segments: []copySegment{{blocks: 2, from: 4096, to: lba}}})
		}})
	return all
}

// noData are the operation codes that do not reach the disk.
var noData = []byte{
	0x00, 0x03, 0x12, 0x16, 0x17, 0x56, 0x57, // TEST UNIT READY, REQUEST SENSE, INQUIRY, RESERVE, RELEASE
	0x5e, 0x1a, 0x5a, 0x1e, 0x25, 0x37, 0xb7, // PERSISTENT RESERVE IN, MODE SENSE, PREVENT ALLOW, READ CAPACITY(10), READ DEFECT DATA
	0x4d, 0x84, 0x9e, 0xa0, 0xa3, // LOG SENSE, RECEIVE COPY, SERVICE ACTION IN(16), REPORT LUNS, MAINTENANCE IN
}

// deviceErrors are the errors of a Disk, and what an initiator sees of them.
var deviceErrors = []struct {
	err          error
	status       byte
	key, asc, aq byte // key 0: depends on the operation
}{
	{fmt.Errorf("vdisk v: %w at lba 7", iscsi.ErrMedium), 2, 0, 0, 0},
	{errors.New("anything else"), 2, 4, 0x44, 0},
	{fmt.Errorf("vdisk v: %w", iscsi.ErrNoSpace), 2, 7, 0x27, 7},
	{iscsi.ErrReadOnly, 2, 7, 0x27, 0},
	{iscsi.ErrAborted, 2, 0x0b, 0, 6},
	{iscsi.ErrGone, 2, 2, 4, 3},
	{iscsi.ErrBusy, 8, 0, 0, 0},
}

// expected returns the sense data of an error of an Op of this kind, and whether it
// names the block.
func expected(err error, kind iscsi.OpKind) (key, asc, ascq byte, named bool) {
	for _, e := range deviceErrors {
		if e.err != err {
			continue
		}
		if e.key != 0 || e.status != 2 {
			return e.key, e.asc, e.aq, e.key == 4 && kind != iscsi.OpFlush && kind != iscsi.OpReserve
		}
	}
	if kind == iscsi.OpReserve { // no block of the medium is meant
		return 4, 0x44, 0, false
	}
	asc = 0x0c
	if kind == iscsi.OpRead || kind == iscsi.OpCompareAndWrite || kind == iscsi.OpOrWrite {
		asc = 0x11
	}
	return 3, asc, 0, kind != iscsi.OpFlush
}

// TestDeviceErrors: every error of the Disk, at every operation of every command
// that reaches it, becomes its own status and sense data: never GOOD, never data
// (I1). A medium or hardware error names the block that the Disk blames.
func TestDeviceErrors(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	prepare := func() {
		n.disk.SetFail(nil)
		clearDisk(t, n)
		if _, err := n.disk.WriteAt(bytes.Repeat([]byte{7}, 4096), 2048*512); err != nil { // what is copied
			t.Fatal(err)
		}
	}
	known := slices.Clone(noData)
	for _, c := range dataCommands() {
		known = append(known, c.make(0).CDB[0])
		t.Run(c.name, func(t *testing.T) {
			prepare()
			before := map[iscsi.OpKind]int64{}
			for _, k := range c.ops {
				before[k] = n.disk.Ops[k].Load()
			}
			if err := s.Do(n.ctx, c.make(16)); err != nil {
				t.Fatalf("does not even work: %v", err)
			}
			if c.make(0).CDB[0] == 0x15 || c.make(0).CDB[0] == 0x55 {
				clearModes(t, n, s)
			}
			for _, k := range c.ops {
				if n.disk.Ops[k].Load() == before[k] {
					t.Errorf("no operation of kind %d", k)
				}
			}
			for _, k := range c.ops {
				for _, e := range deviceErrors {
					prepare()
					n.disk.SetFail(func(op *iscsi.Op) error {
						if op.Kind != k {
							return nil
						}
						op.BadOffset += 512
						return e.err
					})
					r := c.make(16)
					err := s.Do(n.ctx, r)
					where := fmt.Sprintf("operation %d, %v", k, e.err)
					checkDeviceError(t, where, &c, k, e.err, r, err)
					if e.err == iscsi.ErrGone && !c.copy { // the nexus is dropped
						select {
						case <-s.Done():
						case <-n.ctx.Done():
							t.Fatal("the session is still there")
						}
						s = n.login(nil)
					}
				}
			}
		})
	}
	n.disk.SetFail(nil)
	for _, op := range supportedOpcodes(t, n, s) {
		if !slices.Contains(known, op) {
			t.Errorf("operation code %#02x is neither tested here nor known not to reach the disk", op)
		}
	}
}

func checkDeviceError(t *testing.T, where string, c *dataCommand, kind iscsi.OpKind, cause error, r *initiator.Command, err error) {
	t.Helper()
	if r.Received != 0 || len(r.In) > 0 && r.In[0] != 0xee {
		t.Errorf("%s: %d bytes of data", where, r.Received)
	}
	if errors.Is(cause, iscsi.ErrBusy) {
		wantStatus(t, err, initiator.Busy)
		return
	}
	key, asc, ascq, named := expected(cause, kind)
	if c.copy {
		checkCopyError(t, where, kind, cause, r, err)
		return
	}
	wantSense(t, err, key, asc, ascq)
	if r.Sense.InfoValid != named || named && r.Sense.Info != 17 {
		t.Errorf("%s: block %d, valid %v", where, r.Sense.Info, r.Sense.InfoValid)
	}
}

// checkCopyError: COPY ABORTED, and behind it what the source or destination said.
func checkCopyError(t *testing.T, where string, kind iscsi.OpKind, cause error, r *initiator.Command, err error) {
	t.Helper()
	key, asc, ascq, _ := expected(cause, kind)
	want := byte(1)
	if errors.Is(cause, iscsi.ErrGone) {
		want = 2
	}
	wantSense(t, err, 0x0a, 0x0d, want)
	at := 8 // of the source
	if kind != iscsi.OpRead {
		at = 9
	}
	raw := r.Sense.Raw
	if len(raw) < 8 || len(raw) != 8+int(raw[7]) || len(raw) != 37 || raw[at] != 18 || raw[17-at] != 0 {
		t.Errorf("%s: sense data % x", where, raw)
		return
	}
	if in := raw[19:]; raw[18] != 2 || in[2] != key || in[12] != asc || in[13] != ascq {
		t.Errorf("%s: forwarded % x, want %x/%02x/%02x", where, raw[18:], key, asc, ascq)
	}
	if !r.Sense.InfoValid || r.Sense.Info != 2 {
		t.Errorf("%s: %d blocks not copied", where, r.Sense.Info)
	}
}

// clearModes sets the mode pages of LUN 0 back.
func clearModes(t *testing.T, n *node, s *initiator.Session) {
	t.Helper()
	b := []byte{0, 0, 0, 0, 0x0a, 0x0a, 0x20, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0}
	if err := s.Do(n.ctx, &initiator.Command{CDB: cdb(0x15, 0x10, 0, 0, byte(len(b))), Out: b}); err != nil {
		t.Fatal(err)
	}
}

// supportedOpcodes asks the target.
func supportedOpcodes(t *testing.T, n *node, s *initiator.Session) []byte {
	t.Helper()
	c := &initiator.Command{CDB: cdb(0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0x10, 0), In: make([]byte, 4096)}
	if err := s.Do(n.ctx, c); err != nil {
		t.Fatal(err)
	}
	var out []byte
	for b := c.In[4:c.Received]; len(b) >= 8; b = b[8:] {
		out = append(out, b[0])
	}
	return out
}

// TestFarDeviceErrors: a block above 32 bits is named in descriptor format, and not
// at all, rather than wrongly, in fixed format.
func TestFarDeviceErrors(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	g := n.disk.Geometry()
	g.Size = 4 << 40
	n.disk.SetGeometry(g)
	const far = 1<<32 + 5
	n.disk.SetFail(func(op *iscsi.Op) error {
		if op.Kind == iscsi.OpFlush {
			return nil
		}
		op.BadOffset += 512
		return iscsi.ErrMedium
	})
	for _, descriptor := range []bool{false, true} {
		if descriptor {
			b := []byte{0, 0, 0, 0, 0x0a, 0x0a, 0x24, 0x10, 0, 0, 0, 0, 0xff, 0xff, 0, 0} // D_SENSE
			if err := s.Do(n.ctx, &initiator.Command{CDB: cdb(0x15, 0x10, 0, 0, byte(len(b))), Out: b}); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range dataCommands() {
			if !c.far || c.ops[0] == iscsi.OpFlush {
				continue
			}
			r := c.make(far)
			key, asc, ascq, _ := expected(deviceErrors[0].err, c.ops[0])
			wantSense(t, s.Do(n.ctx, r), key, asc, ascq)
			if r.Sense.Descriptor != descriptor || r.Sense.InfoValid != descriptor || descriptor && r.Sense.Info != far+1 {
				t.Errorf("%s: descriptor %v, valid %v, block %d", c.name, r.Sense.Descriptor, r.Sense.InfoValid, r.Sense.Info)
			}
		}
	}
}
