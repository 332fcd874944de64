package tlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/clustersum"
	"github.com/openvstorage/ovgate/volumedriver/sco"
)

var update = flag.Bool("update", false, "write the golden files anew: only for a format that nobody has used yet")

var disk = [16]byte{0xd0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}

// run makes a TLog of n SCOs.
func run(n int) *TLog {
	t := &TLog{VDisk: disk, Epoch: 3, Nonce: 0xcafe, Number: 12}
	for i := range n {
		f := &sco.Footer{Cluster: 4096, VDisk: disk, Epoch: 3, Nonce: 0xcafe, Number: 100 + uint32(i), Clusters: uint32(i + 1),
			FirstSeq: 1000 + 10*uint64(i), LastSeq: 1009 + 10*uint64(i), FirstTime: int64(i) << 40, LastTime: int64(i)<<40 + 5,
			Extents: []sco.Extent{{LBA: 1 << 30, Length: 1 << 20, Kind: sco.KindTrim}, {LBA: 8 * uint64(i), Length: 8 * uint64(i+1), Kind: sco.KindData, Source: 9}}}
		t.Entries = append(t.Entries, Entry{Bytes: int64(sco.Size(4096, i+1, 2)), Footer: f})
	}
	return t
}

func TestGolden(t *testing.T) {
	want := run(3)
	path := filepath.Join("testdata", "tlog.bin")
	if *update {
		if err := os.WriteFile(path, want.Encode(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, want.Encode()) {
		t.Fatal("what is written now is not what earlier versions wrote")
	}
	got, err := Decode(kept)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v: %+v", err, got)
	}
}

// moved is a TLog of moved SCOs.
func moved(n int) *TLog {
	t := run(n)
	t.Moved, t.Number = true, 1<<31+1
	for i, e := range t.Entries {
		e.Footer.Number, e.Footer.FirstSeq, e.Footer.LastSeq = 1<<31+uint32(i), 20, 30
	}
	return t
}

func TestGoldenMoved(t *testing.T) {
	want := moved(3)
	path := filepath.Join("testdata", "tlog-moved.bin")
	if *update {
		if err := os.WriteFile(path, want.Encode(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, want.Encode()) || binary.LittleEndian.Uint16(kept[8:]) != 2 {
		t.Fatal("what is written now is not what earlier versions wrote")
	}
	got, err := Decode(kept)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v: %+v", err, got)
	}
}

// collected is a TLog of what counts of SCOs of two openings.
func collected(n int) *TLog {
	t := run(n)
	t.Collected, t.Number = true, 1<<31+2
	for i, e := range t.Entries {
		e.Footer.Number, e.Footer.FirstSeq, e.Footer.LastSeq = 200-uint32(7*i), 20, 30
		e.Footer.Epoch, e.Footer.Nonce = 1+uint32(i), 0xbeef+uint32(i)
		e.Footer.FirstTime, e.Footer.LastTime = 4, 5
	}
	return t
}

func TestGoldenCollected(t *testing.T) {
	want := collected(3)
	path := filepath.Join("testdata", "tlog-collected.bin")
	if *update {
		if err := os.WriteFile(path, want.Encode(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, want.Encode()) || binary.LittleEndian.Uint16(kept[8:]) != 3 {
		t.Fatal("what is written now is not what earlier versions wrote")
	}
	got, err := Decode(kept)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v: %+v", err, got)
	}
	want.Entries[1].Footer.LastSeq++
	if _, err := Decode(want.Encode()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("seqs that differ: %v", err)
	}
}

func TestMovedRefused(t *testing.T) {
	for name, change := range map[string]func(*TLog){
		"seqs that differ": func(t *TLog) { t.Entries[1].Footer.LastSeq++ },
		"a number missing": func(t *TLog) { t.Entries[1].Footer.Number++ },
		"not moved":        func(t *TLog) { t.Moved = false },
	} {
		l := moved(3)
		change(l)
		if got, err := Decode(l.Encode()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	b := moved(1).Encode()
	for _, flags := range []uint16{0, 2, 3} {
		binary.LittleEndian.PutUint16(b[10:], flags)
		clear(b[56:60])
		binary.LittleEndian.PutUint32(b[56:], clustersum.Plain(b))
		if _, err := Decode(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("flags %#x: %v", flags, err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 2, 300} {
		b := run(n).Encode()
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, run(n)) {
			t.Fatalf("%d SCOs: %v", n, err)
		}
		if !bytes.Equal(got.Encode(), b) {
			t.Fatalf("%d SCOs: the same content gives other bytes (L2)", n)
		}
	}
}

// TestEveryByte: no changed byte, no cut and nothing added passes.
func TestEveryByte(t *testing.T) {
	b := run(2).Encode()
	for i := range b {
		for _, x := range []byte{1, 0x80} {
			b[i] ^= x
			if _, err := Decode(b); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewerFormat) {
				t.Fatalf("byte %d changed: %v", i, err)
			}
			b[i] ^= x
		}
		if _, err := Decode(b[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("the first %d bytes: %v", i, err)
		}
	}
	if _, err := Decode(append(b, 0)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a byte more: %v", err)
	}
}

// reseal makes length and checksum right after a change.
func reseal(b []byte) {
	if len(b) < headerBytes {
		return
	}
	copy(b, magic[:])
	binary.LittleEndian.PutUint64(b[48:], uint64(len(b)-headerBytes))
	clear(b[56:60])
	binary.LittleEndian.PutUint32(b[56:], clustersum.Plain(b))
}

// TestRefused: what contradicts itself or L1 under a right checksum.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		want   error
		change func(t *TLog)
		raw    func(b []byte) []byte
	}{
		{"number skipped", ErrCorrupt, func(t *TLog) { t.Entries[2].Footer.Number++ }, nil},
		{"seq skipped", ErrCorrupt, func(t *TLog) { t.Entries[2].Footer.FirstSeq++ }, nil},
		{"seqs overlap", ErrCorrupt, func(t *TLog) { t.Entries[1].Footer.FirstSeq-- }, nil},
		{"another vDisk's SCO", ErrCorrupt, func(t *TLog) { t.Entries[1].Footer.VDisk[3]++ }, nil},
		{"another opening's SCO", ErrCorrupt, func(t *TLog) { t.Entries[0].Footer.Epoch++ }, nil},
		{"another nonce", ErrCorrupt, func(t *TLog) { t.Entries[0].Footer.Nonce++ }, nil},
		{"bad footer", sco.ErrCorrupt, func(t *TLog) { t.Entries[0].Footer.Cluster = 1000 }, nil},
		{"version 0", ErrCorrupt, nil, func(b []byte) []byte { b[8] = 0; return b }},
		{"newer version", ErrNewerFormat, nil, func(b []byte) []byte { b[8] = 9; return b }},
		{"newer footer", sco.ErrNewerFormat, nil, func(b []byte) []byte { b[headerBytes+8] = 9; return b }},
		{"more entries", ErrCorrupt, nil, func(b []byte) []byte { b[60]++; return b }},
		{"fewer entries", ErrCorrupt, nil, func(b []byte) []byte { b[60]--; return b }},
		{"entries above the bound", ErrCorrupt, nil, func(b []byte) []byte {
			binary.LittleEndian.PutUint32(b[60:], math.MaxUint32)
			return b
		}},
		{"half an entry more", ErrCorrupt, nil, func(b []byte) []byte { return append(b, 1, 2, 3) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := run(3)
			if c.change != nil {
				c.change(l)
			}
			b := l.Encode()
			if c.raw != nil {
				b = c.raw(b)
			}
			reseal(b)
			if _, err := Decode(b); !errors.Is(err, c.want) {
				t.Fatalf("decoded with %v", err)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, n := range []int{0, 1, 3} {
		f.Add(run(n).Encode(), true)
	}
	f.Add([]byte("OVGTLOG1"), false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal {
			b = bytes.Clone(b)
			reseal(b)
		}
		var a, z runtime.MemStats
		runtime.ReadMemStats(&a)
		l, err := Decode(b)
		runtime.ReadMemStats(&z)
		if n := z.TotalAlloc - a.TotalAlloc; n > 16*uint64(len(b))+1<<20 {
			t.Fatalf("%d bytes allocated for %d of input", n, len(b))
		}
		if err != nil {
			return
		}
		if g, err := Decode(l.Encode()); err != nil || !reflect.DeepEqual(g, l) {
			t.Fatalf("does not survive another round: %v", err)
		}
	})
}
