package blockmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"testing"
)

// segmentStore keeps segments in memory, of a few pages each.
type segmentStore struct {
	mu    sync.Mutex
	owner *Owner
	pages map[*Segment][][]byte
	seg   *Segment
	n     uint32
	fail  error // of what is asked next
}

func newSegmentStore(mem *Memory) *segmentStore {
	s := &segmentStore{pages: map[*Segment][][]byte{}}
	s.owner = &Owner{Memory: mem, Reader: s}
	return s
}

func (s *segmentStore) WritePage(b []byte) (*Segment, uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, 0, s.fail
	}
	if s.seg == nil || s.seg.Pages == 4 {
		s.n++
		s.seg = &Segment{Number: s.n, Epoch: 7, Nonce: 0xabcd, Owner: s.owner}
	}
	s.pages[s.seg] = append(s.pages[s.seg], bytes.Clone(b))
	s.seg.Pages++
	return s.seg, s.seg.Pages - 1, nil
}

// ReadPage finds the segment by name: the maps of an index have their own.
func (s *segmentStore) ReadPage(_ context.Context, seg *Segment, slot uint32, _ uint64, right func([]byte) bool) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	for have, pages := range s.pages {
		if have.Number == seg.Number && right(pages[slot]) {
			return bytes.Clone(pages[slot]), nil
		}
	}
	return nil, errors.New("not there")
}

func (s *segmentStore) setFail(err error) {
	s.mu.Lock()
	s.fail = err
	s.mu.Unlock()
}

// change stages and carries out one change, as the volume does.
func change(t testing.TB, m *Map, mu sync.Locker, c, n uint64, fn func()) {
	t.Helper()
	if err := m.Stage(context.Background(), c, n, false); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	fn()
	mu.Unlock()
	m.Unstage()
}

// TestPagingModel compares a map of which no page stays in memory with a plain one:
// after spills, rewrites and restarts from an index it holds the same.
func TestPagingModel(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 11))
		mem := NewMemory([]int64{1, 3 * PageBytes, 1 << 30}[seed%3])
		s := newSegmentStore(mem)
		m, model := New(nodeEntries+700, mem), map[uint64]Loc{}
		var mu sync.Mutex
		for range 1500 {
			c := min(r.Uint64N(6)*PageEntries+r.Uint64N(20), m.Clusters()-1)
			if r.IntN(5) == 0 {
				c = m.Clusters() - 1 - r.Uint64N(600)
			}
			switch k := r.IntN(100); {
			case k < 60:
				n := min([]uint64{1, 2, PageEntries, PageEntries + 30}[r.IntN(4)], m.Clusters()-c)
				l := MakeLoc(r.Uint32(), uint8(r.Uint32()), uint16(r.IntN(60000)))
				change(t, m, &mu, c, n, func() { m.SetRun(c, n, l) })
				for i := range n {
					model[c+i] = MakeLoc(l.Number(), l.Level(), l.Offset()+uint16(i))
				}
			case k < 80:
				n := []uint64{1, 7, PageEntries, 3 * PageEntries}[r.IntN(4)]
				change(t, m, &mu, c, n, func() { m.Clear(c, n) })
				for i := range n {
					delete(model, c+i)
				}
			case k < 90:
				if err := m.Spill(s); err != nil || m.DirtyPages() != 0 || mem.Usage().Dirty != 0 {
					t.Fatalf("seed %d: %v, %d pages dirty, %+v", seed, err, m.DirtyPages(), mem.Usage())
				}
			case k < 94:
				if err := m.Spill(s); err != nil {
					t.Fatal(err)
				}
				if err := m.Rewrite(context.Background(), func(x *Segment) bool { return x != s.seg && x.Number%2 == 0 }, s, &mu); err != nil {
					t.Fatal(err)
				}
				live := map[*Segment]int{}
				for n := uint64(0); ; n++ {
					var p *ref
					if p, n = m.nextDifferent(nil, n); p == nil {
						break
					}
					live[p.seg]++
				}
				for x, n := range live {
					if x.Live() != n {
						t.Fatalf("seed %d: a segment counts %d pages, has %d", seed, x.Live(), n)
					}
				}
			case k < 97:
				if err := m.Spill(s); err != nil {
					t.Fatal(err)
				}
				x := &Index{VDisk: disk, Cluster: 4096, NextTLog: 3, Number: 5}
				b := x.Encode(m, nil)
				m.Release()
				if mem.Usage().Resident != 0 {
					t.Fatalf("seed %d: %+v after the only map ended", seed, mem.Usage())
				}
				var err error
				if m, _, err = DecodeMap(b, nil, s.owner); err != nil {
					t.Fatal(err)
				}
				s.seg = nil // segments of the index are complete
			}
			if u := mem.Usage(); u.Resident > u.Max || u.Dirty != PageBytes*int64(m.DirtyPages()) || s.owner.Resident() != u.Resident {
				t.Fatalf("seed %d: %+v with %d pages dirty, %d of the owner", seed, u, m.DirtyPages(), s.owner.Resident())
			}
			if got := get(m, c); got != model[c] {
				t.Fatalf("seed %d: cluster %d is %v, want %v", seed, c, got, model[c])
			}
		}
		for c, l := range model {
			if got := get(m, c); got != l {
				t.Fatalf("seed %d: cluster %d is %v, want %v", seed, c, got, l)
			}
		}
		if m.Mapped() != uint64(len(model)) {
			t.Fatalf("seed %d: %d mapped, want %d", seed, m.Mapped(), len(model))
		}
	}
}

// TestPagingRace: lookups race with changes, spills, evictions and rewrites, in a map
// and in a clone, and each sees one of the values that the cluster has had.
func TestPagingRace(t *testing.T) {
	ctx := context.Background()
	mem := NewMemory(4 * PageBytes)
	s := newSegmentStore(mem)
	const pages = 16
	base := New(pages*PageEntries, mem)
	for c := uint64(0); c < pages*PageEntries; c += PageEntries {
		base.SetRun(c, PageEntries, MakeLoc(uint32(c/PageEntries), 0, 0))
	}
	if err := base.Spill(s); err != nil {
		t.Fatal(err)
	}
	base.Freeze()
	m := base.Clone(pages * PageEntries)
	own := newSegmentStore(mem)
	var mu sync.RWMutex
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(w), 12))
			for {
				select {
				case <-stop:
					return
				default:
				}
				c := r.Uint64N(pages * PageEntries)
				if l := get(base, c); l != MakeLoc(uint32(c/PageEntries), 0, uint16(c%PageEntries)) {
					t.Errorf("the map below changed: cluster %d is %v", c, l)
					return
				}
				var want Want
				for {
					mu.RLock()
					l, ok := m.Get(c, &want)
					mu.RUnlock()
					if ok {
						if n := l.Number() & 0xffff; n != uint32(c/PageEntries) || l.Offset() != uint16(c%PageEntries) {
							t.Errorf("cluster %d is %v", c, l)
							return
						}
						break
					}
					if err := want.Load(ctx); err != nil {
						t.Error(err)
						return
					}
				}
			}
		}()
	}
	r := rand.New(rand.NewPCG(1, 13))
	for i := range 3000 {
		c := r.Uint64N(pages * PageEntries)
		n := min(r.Uint64N(PageEntries), PageEntries-c%PageEntries)
		if n > 0 {
			l := MakeLoc(uint32(i%60000)<<16|uint32(c/PageEntries), 1, uint16(c%PageEntries))
			change(t, m, &mu, c, n, func() { m.SetRun(c, n, l) })
		}
		switch {
		case i%7 == 0:
			if err := m.Spill(own); err != nil {
				t.Fatal(err)
			}
		case i%50 == 1:
			if err := m.Rewrite(ctx, func(x *Segment) bool { return x != own.seg && int(x.Pages) > x.Live() }, own, &mu); err != nil {
				t.Fatal(err)
			}
		}
		if i%16 == 0 {
			runtime.Gosched()
		}
	}
	close(stop)
	wg.Wait()
	if u := mem.Usage(); u.Evictions == 0 || u.Loads == 0 || u.Resident > u.Max {
		t.Fatalf("%+v", u)
	}
}

// TestSpillFails: a disk that takes no pages loses none; lookups that cannot be read
// fail and never answer "unmapped" (M7).
func TestSpillFails(t *testing.T) {
	mem := NewMemory(2 * PageBytes)
	s := newSegmentStore(mem)
	m := New(8*PageEntries, mem)
	for n := uint64(0); n < 8; n++ {
		m.Set(n*PageEntries, MakeLoc(uint32(n)+1, 0, 0))
	}
	s.setFail(errors.New("no space"))
	if err := m.Spill(s); err == nil || m.DirtyPages() != 8 || !mem.Full() || !mem.Tight() {
		t.Fatalf("%v, %d dirty", err, m.DirtyPages())
	}
	for n := uint64(0); n < 8; n++ {
		if l := get(m, n*PageEntries); l.Number() != uint32(n)+1 {
			t.Fatalf("page %d: %v", n, l)
		}
	}
	s.setFail(nil)
	if err := m.Spill(s); err != nil || mem.Full() || m.DirtyPages() != 0 {
		t.Fatalf("%v, %d dirty", err, m.DirtyPages())
	}
	s.setFail(errors.New("gone"))
	var w Want
	for n := uint64(0); n < 8; n++ {
		m.Get(n*PageEntries, &w)
	}
	if err := w.Load(context.Background()); err == nil {
		t.Fatal("pages that are gone were read")
	}
	s.setFail(nil)
	if err := w.Load(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestPageDamage: a page with a changed bit, and a page in another's place, are not
// taken.
func TestPageDamage(t *testing.T) {
	mem := NewMemory(1)
	s := newSegmentStore(mem)
	m := New(2*PageEntries, mem)
	m.SetRun(0, PageEntries, MakeLoc(1, 0, 0))
	m.SetRun(PageEntries, PageEntries, MakeLoc(1, 0, 0)) // the same content
	if err := m.Spill(s); err != nil {
		t.Fatal(err)
	}
	pages := s.pages[s.seg]
	for name, damage := range map[string]func(){
		"bit":   func() { pages[0][17] ^= 4 },
		"place": func() { pages[0], pages[1] = bytes.Clone(pages[1]), pages[0] },
		"short": func() { pages[0] = pages[0][:100] },
	} {
		was := [][]byte{bytes.Clone(pages[0]), bytes.Clone(pages[1])}
		damage()
		r := m.root[0].pages[0]
		if _, err := r.load(context.Background(), map[string]uint64{"place": 1}[name]); err == nil {
			t.Errorf("%s: taken", name)
		}
		copy(pages, was)
	}
}

// indexExample is an index with a page that only the map below has.
func indexExample(t testing.TB) (m, base *Map, x *Index, o *Owner) {
	mem := NewMemory(1 << 20)
	s := newSegmentStore(mem)
	base = New(clusters64TiB, mem)
	base.SetRun(0, PageEntries, MakeLoc(9, 0, 0))
	base.Set(5*PageEntries, MakeLoc(9, 0, 512))
	if err := base.Spill(s); err != nil {
		t.Fatal(err)
	}
	base.Freeze()
	m = base.Clone(clusters64TiB)
	m.Clear(5*PageEntries, PageEntries)
	for i := range uint64(6) {
		m.Set((7+i)*PageEntries+i, MakeLoc(uint32(i+1), 1, uint16(i*1000)))
	}
	m.Set(clusters64TiB-1, MakeLoc(0xfedcba98, 255, 65535))
	own := newSegmentStore(mem)
	if err := m.Spill(own); err != nil {
		t.Fatal(err)
	}
	return m, base, &Index{VDisk: disk, Line: [16]byte{1, 15: 16}, Cluster: 4096, NextTLog: 9, Epoch: 7, Nonce: 0xabcd, Number: 0x1122334455,
		SCOs: []SCOInfo{{1, 100, 500_000, 1, 0xaa}, {0xfedcba98, 1, 5000, 7, 0xfffffff0}}}, own.owner
}

func TestGoldenIndex(t *testing.T) {
	m, base, x, o := indexExample(t)
	b := x.Encode(m, base)
	golden(t, "map-3.bin", b)
	golden(t, "segment-1.bin", EncodeSegmentHeader(disk, x.Segments[0]))
	got, gx, err := DecodeMap(b, base, o)
	if err != nil || !sameMap(got, m) {
		t.Fatal(err)
	}
	for i, s := range gx.Segments {
		if w := x.Segments[i]; s.Number != w.Number || s.Epoch != w.Epoch || s.Nonce != w.Nonce || s.Pages != w.Pages || s.Live() != w.Live() {
			t.Fatalf("segment %+v, want %+v", s, w)
		}
	}
	gx.Segments, x.Segments = nil, nil
	if !reflect.DeepEqual(gx, x) {
		t.Fatalf("%+v, want %+v", gx, x)
	}
}

func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, b) {
		t.Fatalf("%s: what is written now is not what earlier versions wrote", name)
	}
}

// TestIndexDamage: any changed byte and any cut is noticed.
func TestIndexDamage(t *testing.T) {
	m, base, x, o := indexExample(t)
	b := x.Encode(m, base)
	for i := range b {
		b[i] ^= 1 << (i % 8)
		if _, _, err := DecodeMap(b, base, o); !errors.Is(err, ErrCheckpoint) {
			t.Fatalf("byte %d of %d: %v", i, len(b), err)
		}
		b[i] ^= 1 << (i % 8)
		if _, _, err := DecodeMap(b[:i], base, o); !errors.Is(err, ErrCheckpoint) {
			t.Fatalf("the first %d bytes: %v", i, err)
		}
	}
}

// sealIndex makes the checksum right.
func sealIndex(b []byte) {
	if len(b) < indexHeader+indexTrailer {
		return
	}
	end := len(b) - indexTrailer
	binary.LittleEndian.PutUint32(b[end:], crc32.Checksum(b[:end], castagnoli))
}

// FuzzDecodeIndex: whatever the bytes, the map that comes out holds together.
func FuzzDecodeIndex(f *testing.F) {
	m, base, x, o := indexExample(f)
	f.Add(x.Encode(m, base), true)
	f.Add(x.Encode(base, nil), true)
	f.Add(x.Encode(m, base)[:indexHeader], false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal {
			sealIndex(b)
		}
		for _, under := range []*Map{nil, base} {
			m, x, err := DecodeMap(b, under, o)
			if err != nil {
				if !errors.Is(err, ErrCheckpoint) {
					t.Fatal(err)
				}
				continue
			}
			if under != nil && x.Clusters < under.Clusters() {
				continue // the owner of the maps sees to that (Clone)
			}
			mapped := uint64(0)
			for n := uint64(0); ; n++ {
				var r *ref
				if r, n = m.nextDifferent(nil, n); r == nil {
					break
				}
				mapped += uint64(m.root[n/nodePages].used[n%nodePages])
			}
			if mapped != m.Mapped() || m.Clusters() != x.Clusters {
				t.Fatalf("%d mapped, counted %d", mapped, m.Mapped())
			}
			m.Release()
		}
	})
}
