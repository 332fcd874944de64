package iscsi

import (
	"bytes"
	"testing"
)

// poison fills buffers that nobody has written to.
const poison = 0xee

// poisonDisk reads as zeros, and fails the test when an Op carries bytes that the
// initiator did not send, leaves the disk, or is not in whole blocks.
type poisonDisk struct {
	t    *testing.T
	size int64
}

func (d poisonDisk) Geometry() Geometry {
	return Geometry{Size: d.size, ClusterSize: 4096, AtomicBytes: 1 << 20, MaxUnmapBytes: 1 << 30}
}

func (d poisonDisk) Submit(op *Op) {
	n := op.Length
	switch op.Kind {
	case OpRead:
		n = int64(len(op.Data))
		clear(op.Data)
	case OpWrite, OpOrWrite, OpCompareAndWrite:
		n = int64(len(op.Data))
		if bytes.IndexByte(op.Data, poison) >= 0 {
			d.t.Errorf("operation %d of %d bytes with what a buffer held before", op.Kind, n)
		}
		if op.Kind == OpCompareAndWrite {
			n /= 2
		}
	}
	if op.Kind != OpFlush && (n <= 0 || op.Offset < 0 || op.Offset > d.size || n > d.size-op.Offset || op.Offset%512 != 0 || n%512 != 0) {
		d.t.Errorf("operation %d of %d bytes at %d", op.Kind, n, op.Offset)
	}
	op.Done.Complete(op)
}

// poisonTarget has unit 0 with blocks of 512 bytes and unit 1 with 4096, and a
// buffer of each size that still holds something.
func poisonTarget(t *testing.T) *target {
	s := NewServer(Config{})
	spec := TargetSpec{Name: "iqn.2026-01.test:t", Groups: []Group{{Name: "all", Any: true}}}
	for n := range uint16(2) {
		spec.LUNs = append(spec.LUNs, LUNSpec{Number: n, Disk: poisonDisk{t, 64 << 20}, Serial: "S", NAA: fuzzNAA(byte(n))})
	}
	spec.LUNs[1].BlockSize = 4096
	if err := s.AddTarget(spec); err != nil {
		t.Fatal(err)
	}
	for n := 1 << minBufferShift; n <= 64<<10; n <<= 1 {
		b := s.bufs.get(n)
		for i := range b.b {
			b.b[i] = poison
		}
		s.bufs.put(b)
	}
	return s.targets[spec.Name]
}

// FuzzCommand runs arbitrary CDBs with arbitrary data-out, or with data-in. Nothing
// but the initiator's data is stored, nothing but the medium's and ours is answered,
// every Op lies inside the disk, and what a command held is given back.
func FuzzCommand(f *testing.F) {
	block := bytes.Repeat([]byte{7}, 512)
	unmap := []byte{0, 38, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 9, 0, 0, 0, 0}
	for _, s := range []struct {
		cdb, data []byte
	}{
		{[]byte{0x2a, 0, 0, 0, 0, 1, 0, 0, 1}, block},                             // WRITE(10)
		{[]byte{0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2}, block},              // half of the data
		{[]byte{0x89, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1}, make([]byte, 1024)}, // COMPARE AND WRITE
		{[]byte{0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1}, block},              // ORWRITE
		{[]byte{0x93, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 200}, block},            // WRITE SAME
		{[]byte{0x93, 9, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 200}, nil},              // with NDOB and UNMAP
		{[]byte{0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1}, block},              // WRITE ATOMIC
		{[]byte{0x8e, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1}, block},              // WRITE AND VERIFY
		{[]byte{0x8f, 6, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 3}, block},              // VERIFY of equal blocks
		{[]byte{0x42, 0, 0, 0, 0, 0, 0, 0, byte(len(unmap))}, unmap},              // UNMAP
		{[]byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24}, unmap[:8]},                        // less than announced
		{[]byte{0x5f, 0, 0, 0, 0, 0, 0, 0, 24}, make([]byte, 24)},                 // PERSISTENT RESERVE OUT
		{[]byte{0x15, 0x10, 0, 0, 4}, []byte{0, 0, 0, 0}},                         // MODE SELECT
		{[]byte{0x88, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 1}, nil},          // READ(16) of the last block
		{[]byte{0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}, nil},             // GET LBA STATUS
		{[]byte{0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}, nil},                // RECEIVE COPY RESULTS
		{[]byte{0x4d, 0, 0x4c, 0, 0, 0, 0, 1, 0}, nil},                            // LOG SENSE
		{[]byte{0x5a, 0x10, 0x3f, 0xff, 0, 0, 0, 1, 0}, nil},                      // MODE SENSE
		{[]byte{0x34, 0, 0, 0, 0, 1, 0, 0, 9}, nil},                               // PRE-FETCH
		{[]byte{0x03, 1, 0, 0, 252}, nil},                                         // REQUEST SENSE
	} {
		for lun := range 2 {
			f.Add(s.cdb, s.data, byte(lun))
		}
	}
	stale := bytes.Repeat([]byte{poison}, 9) // no number of ours is as long
	f.Fuzz(func(t *testing.T, cdb, data []byte, unit byte) {
		tgt := poisonTarget(t)
		data = bytes.ReplaceAll(data[:min(len(data), 16<<10)], []byte{poison}, []byte{1})
		out := data
		if len(out) == 0 {
			out = nil
		}
		k := perform(t, tgt, uint16(unit&1), out, cdb)
		if bytes.Contains(k.in, stale) {
			t.Errorf("% x answers with what a buffer held before", cdb)
		}
		if uint64(len(k.in)) > k.cdbLen {
			t.Errorf("% x: %d bytes for an allocation length of %d", cdb, len(k.in), k.cdbLen)
		}
		if k.cmd == nil && k.status == statusGood {
			t.Errorf("% x: unknown, and GOOD", cdb)
		}
		c := k.c
		c.mu.Lock()
		c.discharge(k)
		held, left := c.held, len(c.tasks)
		c.mu.Unlock()
		if held != 0 || left != 0 || tgt.srv.copies.Load() != 0 {
			t.Errorf("% x: %d bytes are held, %d tasks and %d copies are left", cdb, held, left, tgt.srv.copies.Load())
		}
		if tgt.srv.Stats().SCSIServiceFaults != 0 {
			t.Errorf("% x: the SCSI service failed", cdb)
		}
	})
}
