package blockmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"
	"testing/iotest"
)

var update = flag.Bool("update", false, "write the golden files anew: only for a format that nobody has used yet")

var disk = [16]byte{0xd0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}

// checkpoint writes m as the uploader does.
func checkpoint(t testing.TB, m *Map, h *CheckpointHeader) []byte {
	t.Helper()
	return checkpointOver(t, m, nil, h)
}

// checkpointOver writes what m does not share with base.
func checkpointOver(t testing.TB, m, base *Map, h *CheckpointHeader) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewCheckpointWriter(&b, h)
	if err != nil {
		t.Fatal(err)
	}
	for from := uint64(0); ; {
		next, ok := w.CopyPage(m, base, from)
		if !ok {
			break
		}
		if err := w.WritePage(); err != nil {
			t.Fatal(err)
		}
		from = next
	}
	if err := w.Finish(h.LastTLog); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// example is a map with two pages far apart.
func example() (*Map, *CheckpointHeader) {
	m := New(clusters64TiB, nil)
	for i := range uint64(5) {
		m.Set(i*3, MakeLoc(uint32(i+1), 0, uint16(i*1000)))
	}
	m.Set(clusters64TiB-1, MakeLoc(0xfedcba98, 255, 65535))
	return m, &CheckpointHeader{VDisk: disk, Cluster: 4096, Clusters: clusters64TiB, FirstTLog: 5, LastTLog: 9,
		Line: [16]byte{1, 15: 16},
		SCOs: []SCOInfo{{1, 100, 500_000, 1, 0xaa}, {2, 4096, 17_000_000, 1, 0xaa}, {0xfedcba98, 1, 5000, 7, 0xfffffff0}}}
}

// sameMap compares two maps by what they hold.
func sameMap(a, b *Map) bool {
	if a.Clusters() != b.Clusters() || a.Mapped() != b.Mapped() {
		return false
	}
	for n := uint64(0); ; n++ {
		p, pn := pageAt(a, n)
		q, qn := pageAt(b, n)
		if p == nil || q == nil {
			return p == nil && q == nil
		}
		if pn != qn || *p != *q {
			return false
		}
		n = pn
	}
}

// pageAt returns the first page at or after number n.
func pageAt(m *Map, n uint64) (*page, uint64) {
	r, n := m.nextDifferent(nil, n)
	if r == nil {
		return nil, 0
	}
	p, err := load(r, n)
	if err != nil {
		panic(err)
	}
	return p, n
}

// load returns a page, dirty or not.
func load(r *ref, n uint64) (*page, error) {
	if r.seg == nil {
		return r.data.Load(), nil
	}
	return r.load(context.Background(), n)
}

// get looks up a cluster and reads what is missing.
func get(m *Map, c uint64) Loc {
	for w := (Want{}); ; {
		l, ok := m.Get(c, &w)
		if ok {
			return l
		}
		if err := w.Load(context.Background()); err != nil {
			panic(err)
		}
	}
}

// TestGoldenVersion2: a checkpoint that holds the pages itself still saves the replay.
func TestGoldenVersion2(t *testing.T) {
	m, h := example()
	kept, err := os.ReadFile(filepath.Join("testdata", "map-2.bin"))
	if err != nil {
		t.Fatal(err)
	}
	got, gh, err := ReadCheckpoint(bytes.NewReader(kept), nil, nil)
	if err != nil || !reflect.DeepEqual(gh, h) || !sameMap(got, m) {
		t.Fatalf("%v: %+v", err, gh)
	}
}

// TestGoldenVersion1: a checkpoint of the first version still saves the replay.
func TestGoldenVersion1(t *testing.T) {
	kept, err := os.ReadFile(filepath.Join("testdata", "map.bin"))
	if err != nil {
		t.Fatal(err)
	}
	m, h := example()
	h.Line = [16]byte{}
	for i := range h.SCOs {
		h.SCOs[i].Epoch, h.SCOs[i].Nonce = 0, 0
	}
	got, gh, err := ReadCheckpoint(bytes.NewReader(kept), nil, nil)
	if err != nil || !reflect.DeepEqual(gh, h) || !sameMap(got, m) {
		t.Fatalf("%v: %+v", err, gh)
	}
}

func TestCheckpointRoundTrip(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 3))
		m := New(1+r.Uint64N(3*nodeEntries), nil)
		for range r.IntN(5000) {
			m.Set(r.Uint64N(m.Clusters()), MakeLoc(r.Uint32(), uint8(r.Uint32()), uint16(r.Uint32())))
		}
		h := &CheckpointHeader{VDisk: disk, Cluster: 8192, Clusters: m.Clusters(), FirstTLog: r.Uint32(), LastTLog: r.Uint32()}
		for range r.IntN(100) {
			h.SCOs = append(h.SCOs, SCOInfo{r.Uint32(), r.Uint32(), r.Int64(), r.Uint32(), r.Uint32()})
		}
		got, gh, err := ReadCheckpoint(iotest.HalfReader(bytes.NewReader(checkpoint(t, m, h))), nil, nil)
		if err != nil || !reflect.DeepEqual(gh, h) || !sameMap(got, m) {
			t.Fatalf("seed %d: %v: %+v", seed, err, gh)
		}
		if err := checkCounts(got); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckpointDamage: any changed byte and any cut is noticed, or changes nothing.
func TestCheckpointDamage(t *testing.T) {
	m, h := New(1000, nil), &CheckpointHeader{VDisk: disk, Cluster: 4096, Clusters: 1000, FirstTLog: 5, LastTLog: 9, SCOs: []SCOInfo{{1, 100, 500_000, 1, 2}}}
	for i := range uint64(100) {
		m.Set(i*3, MakeLoc(1, 0, uint16(i)))
	}
	b := checkpoint(t, m, h)
	check := func(what string, at int, r io.Reader) {
		got, gh, err := ReadCheckpoint(r, nil, nil)
		if err == nil && reflect.DeepEqual(gh, h) && sameMap(got, m) {
			return
		}
		if !errors.Is(err, ErrCheckpoint) {
			t.Fatalf("%s at %d of %d passes as another map: %v", what, at, len(b), err)
		}
	}
	for i := range b {
		if i > 200 && i < len(b)-100 && i%3 > 0 {
			continue // amid the entries of a page, one byte is like another
		}
		x := byte(1) << (i % 8)
		b[i] ^= x
		check("change", i, bytes.NewReader(b))
		b[i] ^= x
		if i%29 == 0 {
			check("read error", i, io.MultiReader(bytes.NewReader(b[:i]), iotest.ErrReader(io.ErrClosedPipe)))
			if _, _, err := ReadCheckpoint(bytes.NewReader(b[:i]), nil, nil); !errors.Is(err, ErrCheckpoint) {
				t.Fatalf("the first %d bytes: %v", i, err)
			}
		}
	}
}

// TestCheckpointWriteError: a full disk is told, not swallowed.
func TestCheckpointWriteError(t *testing.T) {
	m, h := example()
	whole := len(checkpoint(t, m, h))
	for room := 0; room < whole; room += 97 {
		w, err := NewCheckpointWriter(&fullDisk{room}, h)
		for from, ok := uint64(0), true; err == nil; {
			if from, ok = w.CopyPage(m, nil, from); !ok {
				err = w.Finish(h.LastTLog)
				break
			}
			err = w.WritePage()
		}
		if !errors.Is(err, io.ErrShortWrite) {
			t.Fatalf("%d of %d bytes written: %v", room, whole, err)
		}
	}
}

// fullDisk takes as many bytes as are left and then fails.
type fullDisk struct{ left int }

func (f *fullDisk) Write(p []byte) (int, error) {
	n := min(len(p), f.left)
	f.left -= n
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// sealCheckpoint makes the checksums right, as far as the bytes have pages.
func sealCheckpoint(b []byte) {
	le := binary.LittleEndian
	if len(b) < ckptHeader+ckptTrailer {
		return
	}
	copy(b, ckptMagic[:])
	le.PutUint16(b[8:], ckptVersion)
	end := len(b) - ckptTrailer
	at := uint64(ckptHeader) + ckptSCO*uint64(le.Uint32(b[36:]))
	pages := uint32(0)
	const size = 12 + 8*PageEntries
	for ; at+size <= uint64(end); at += size {
		le.PutUint32(b[at+8:], crc32.Checksum(b[at+12:at+size], castagnoli))
		pages++
	}
	t := b[end:]
	le.PutUint64(t, endOfPages)
	le.PutUint32(t[12:], pages)
	le.PutUint32(t[16:], crc32.Checksum(b[:end+16], castagnoli))
	copy(t[24:], ckptMagic[:])
}

// TestCheckpointRefused: what contradicts itself under right checksums.
func TestCheckpointRefused(t *testing.T) {
	le := binary.LittleEndian
	const pageAt = ckptHeader + 3*ckptSCO
	for name, change := range map[string]func(b []byte){
		"size beyond any vDisk":      func(b []byte) { le.PutUint64(b[40:], math.MaxUint64) },
		"page beyond the end":        func(b []byte) { le.PutUint64(b[40:], 1<<20) },
		"page number that wraps":     func(b []byte) { le.PutUint64(b[pageAt:], 1<<55) },
		"more SCOs than bytes":       func(b []byte) { le.PutUint32(b[36:], math.MaxUint32) },
		"page number just below end": func(b []byte) { le.PutUint64(b[pageAt:], math.MaxUint64-1) },
	} {
		m, h := example()
		b := checkpoint(t, m, h)
		change(b)
		sealCheckpoint(b)
		if _, _, err := ReadCheckpoint(bytes.NewReader(b), nil, nil); !errors.Is(err, ErrCheckpoint) {
			t.Errorf("%s: read with %v", name, err)
		}
	}
}

func FuzzReadCheckpoint(f *testing.F) {
	m, h := example()
	f.Add(checkpoint(f, m, h), true)
	f.Add(checkpoint(f, New(1, nil), &CheckpointHeader{Cluster: 4096, Clusters: 1}), true)
	f.Add(checkpoint(f, m, h)[:ckptHeader], false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal {
			b = bytes.Clone(b)
			sealCheckpoint(b)
		}
		var a, z runtime.MemStats
		runtime.ReadMemStats(&a)
		m, h, err := ReadCheckpoint(bytes.NewReader(b), nil, nil)
		runtime.ReadMemStats(&z)
		// The reader's buffer, the root of the largest map, and pages and nodes.
		if n := z.TotalAlloc - a.TotalAlloc; n > 16*uint64(len(b))+8<<20 {
			t.Fatalf("%d bytes allocated for %d of input", n, len(b))
		}
		if err != nil {
			if !errors.Is(err, ErrCheckpoint) {
				t.Fatal(err)
			}
			return
		}
		if err := checkCounts(m); err != nil {
			t.Fatal(err)
		}
		g, gh, err := ReadCheckpoint(bytes.NewReader(checkpoint(t, m, h)), nil, nil)
		if err != nil || !reflect.DeepEqual(gh, h) || !sameMap(g, m) {
			t.Fatalf("does not survive another round: %v", err)
		}
	})
}
