package iscsi

import (
	"errors"
	"fmt"
	"testing"
)

// checkedDisk fails the test when an Op leaves the disk or is not in whole blocks.
type checkedDisk struct {
	t    *testing.T
	size int64
	ops  *int
}

func (d checkedDisk) Geometry() Geometry {
	return Geometry{Size: d.size, ClusterSize: 4096, AtomicBytes: 1 << 20}
}

func (d checkedDisk) Submit(op *Op) {
	*d.ops++
	n := int64(len(op.Data))
	if op.Data == nil {
		n = op.Length
	}
	if op.Offset < 0 || n < 0 || op.Offset > d.size || n > d.size-op.Offset || op.Offset%512 != 0 || n%512 != 0 {
		d.t.Errorf("operation %d of %d bytes at %d", op.Kind, n, op.Offset)
	}
	op.Done.Complete(op)
}

// fuzzTarget has unit 0 with blocks of 512 bytes and unit 1 with 4096.
func fuzzTarget(t *testing.T, ops *int) *target {
	s := NewServer(Config{})
	spec := TargetSpec{Name: "iqn.2026-01.test:t", Groups: []Group{{Name: "all", Any: true}}}
	for n := range uint16(2) {
		spec.LUNs = append(spec.LUNs, LUNSpec{Number: n, Disk: checkedDisk{t, 256 << 20, ops}, Serial: "S", NAA: fuzzNAA(byte(n))})
	}
	spec.LUNs[1].BlockSize = 4096
	if err := s.AddTarget(spec); err != nil {
		t.Fatal(err)
	}
	return s.targets[spec.Name]
}

func fuzzNAA(n byte) [16]byte { return [16]byte{0x61, 15: n} }

// FuzzExtendedCopy: any parameter list is copied within the disks or refused; one
// that is refused at once touches nothing; whatever a copy took is given back.
func FuzzExtendedCopy(f *testing.F) {
	list := make([]byte, 16+2*32+28)
	list[3], list[11] = 64, 28
	for i := range 2 {
		d := list[16+32*i:]
		d[0], d[4], d[5], d[7], d[30] = 0xe4, 1, 3, 16, 2
		naa := fuzzNAA(byte(i))
		copy(d[8:], naa[:])
	}
	list[16+32+30] = 0x10 // 4096
	s := list[16+64:]
	s[0], s[3], s[7], s[11] = 2, 24, 1, 16
	f.Add(append([]byte(nil), list...))
	s[1], s[12] = 2, 0xff
	f.Add(append([]byte(nil), list...))
	f.Add(list[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		ops := 0
		tgt := fuzzTarget(t, &ops)
		cdb := make([]byte, 16)
		cdb[0] = opThirdPartyOut
		be.PutUint32(cdb[10:], uint32(len(b)))
		k := inProcessOut(t, tgt, 0, b, cdb...)
		if k.status == statusCheckCondition && k.sense.key == keyIllegalRequest && ops > 0 {
			t.Errorf("refused with %+v after %d operations", k.sense, ops)
		}
		if n := tgt.srv.copies.Load(); n != 0 {
			t.Errorf("%d copies under way", n)
		}
		tgt.endCopies() // waits for ever if a gate was not left
	})
}

// FuzzModeSelect: any list is accepted or refused, and what is in force afterwards can
// be read and sent back.
func FuzzModeSelect(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0x0a, 0x0a, 0x24, 0x10, 8, 0, 0, 0, 0xff, 0xff, 0, 0}, false)
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0x0a, 0x20, 0x10, 8, 0, 0, 0, 0xff, 0xff, 0, 0}, true)
	f.Add([]byte{0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0x5c, 2, 0, 20}, false)
	f.Fuzz(func(t *testing.T, b []byte, ten bool) {
		ops := 0
		tgt := fuzzTarget(t, &ops)
		if len(b) > 0xff {
			return
		}
		cdb := []byte{0x15, 0x10, 0, 0, byte(len(b))}
		if ten {
			cdb = []byte{0x55, 0x10, 0, 0, 0, 0, 0, 0, byte(len(b))}
		}
		k := inProcessOut(t, tgt, 0, b, cdb...)
		if k.status != statusGood && k.status != statusCheckCondition {
			t.Fatalf("status %#02x", k.status)
		}
		sense := inProcess(t, tgt, 0, 0x1a, 8, 0x0a, 0, 255)
		page := append([]byte(nil), sense.in...)
		page[0], page[2] = 0, 0
		again := inProcessOut(t, tgt, 0, page, 0x15, 0x10, 0, 0, byte(len(page)))
		if sense.status != statusGood || again.status != statusGood {
			t.Fatalf("% x: status %#02x, then %#02x %+v", page, sense.status, again.status, again.sense)
		}
	})
}

// TestSenseFormats: both formats of every sense data that this target builds.
func TestSenseFormats(t *testing.T) {
	op := &Op{Kind: OpRead, Offset: 4096, Data: make([]byte, 8192), BadOffset: 8192}
	_, medium := opResult(op, ErrMedium, 9)
	_, unknown := opResult(op, errors.New("x"), 12)
	far := medium
	far.setInfo(1 << 40)
	copied := cscdError(senseThirdParty, cscdDestination, 3)
	copied.cscd.status, copied.cscd.key, copied.cscd.asc = statusCheckCondition, 3, 0x0c
	busy := cscdError(senseThirdParty, cscdSource, 3)
	busy.cscd.status = statusBusy
	for _, tc := range []struct {
		name              string
		s                 sense
		fixed, descriptor string
	}{
		{"plain", senseNoLUN, "700005000000000a00000000250000000000", "7205250000000000"},
		{"medium", medium, "f00003000000100a00000000110000000000", "720311000000000c" + "000a80000000000000000010"},
		{"hardware, 4Kn", unknown, "f00004000000020a00000000440000000000", "720444000000000c" + "000a80000000000000000002"},
		{"far", far, "700003000000000a00000000110000000000", "720311000000000c" + "000a80000000010000000000"},
		{"field in CDB", senseInvalidField.at(10), "700005000000000a00000000240000c0000a", "7205240000000008" + "02060000c0000a00"},
		{"field in data", senseInvalidParameter.inData(300), "700005000000000a0000000026000080012c", "7205260000000008" + "0206000080012c00"},
		{"destination", copied, "70000a000000001d001200030d010000000002" + "700003000000000a000000000c0000000000",
			"720a0d0100000022" + "010a00000000000000000003" + "0c140202" + "700003000000000a000000000c0000000000"},
		{"busy source", busy, "70000a000000000b120000030d010000000008",
			"720a0d0100000022" + "010a00000000000000000003" + "0c140108" + "700000000000000a00000000000000000000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i, want := range []string{tc.fixed, tc.descriptor} {
				room := make([]byte, 2, 2+maxSenseLen)
				got := tc.s.encode(room, i == 1)
				if &got[0] != &room[0] {
					t.Error("it does not fit into the room there is")
				}
				if s := fmt.Sprintf("%x", got[2:]); s != want {
					t.Errorf("%s, want %s", s, want)
				}
			}
		})
	}
}
