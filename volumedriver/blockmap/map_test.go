package blockmap

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

const clusters64TiB = 64 << 40 / 4096

func TestLoc(t *testing.T) {
	for _, c := range []struct {
		number uint32
		clone  uint8
		offset uint16
		want   string
	}{
		{0, 0, 0, "0/00000000+0"},
		{1, 0, 0, "0/00000001+0"},
		{1<<32 - 1, 255, 1<<16 - 1, "255/ffffffff+65535"},
		{0xabcdef, 3, 32767, "3/00abcdef+32767"},
	} {
		l := MakeLoc(c.number, c.clone, c.offset)
		if !l.Mapped() || l.Number() != c.number || l.Level() != c.clone || l.Offset() != c.offset || l.String() != c.want {
			t.Errorf("%+v gives %v", c, l)
		}
	}
	if l := Loc(0); l.Mapped() || l.String() != "-" {
		t.Errorf("the zero Loc is %v", l)
	}
}

// checkCounts compares the map's counters with what is in it.
func checkCounts(m *Map) error {
	var mapped uint64
	var bytes int64
	for ni, n := range m.root {
		if n == nil {
			continue
		}
		if m.own[ni] {
			bytes += nodeBytes
		}
		count := int32(0)
		for pi, r := range n.pages {
			if r == nil {
				if n.used[pi] != 0 || n.owns(uint64(pi)) {
					return fmt.Errorf("no page, but counted %d, own %t", n.used[pi], n.owns(uint64(pi)))
				}
				continue
			}
			p, err := load(r, uint64(ni)*nodePages+uint64(pi))
			if err != nil {
				return err
			}
			if m.own[ni] && n.owns(uint64(pi)) {
				if bytes += refBytes; r.seg == nil {
					bytes += PageBytes
				}
			}
			count++
			k := uint16(0)
			for _, l := range p {
				if l.Mapped() {
					k++
				}
			}
			if k == 0 || k != n.used[pi] {
				return fmt.Errorf("a page holds %d locations and counts %d", k, n.used[pi])
			}
			mapped += uint64(k)
		}
		if count == 0 || count != n.count {
			return fmt.Errorf("a node holds %d pages and counts %d", count, n.count)
		}
	}
	if mapped != m.Mapped() || bytes > m.bytes {
		return fmt.Errorf("%d mapped in %d own bytes, counted %d in %d", mapped, bytes, m.Mapped(), m.bytes)
	}
	return nil
}

// TestMapModel compares a map with a plain one under random operations around the
// borders of pages and nodes and over huge ranges.
func TestMapModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		m, model := New(nodeEntries+700, nil), map[uint64]Loc{}
		at := func() uint64 {
			borders := []uint64{0, PageEntries, 2 * PageEntries, nodeEntries, nodeEntries + PageEntries, m.Clusters()}
			if r.IntN(4) == 0 {
				return r.Uint64N(m.Clusters())
			}
			b := borders[r.IntN(len(borders))]
			return min(b+r.Uint64N(20)-min(b, 10), m.Clusters()-1)
		}
		for step := range 3000 {
			switch k := r.IntN(100); {
			case k < 70:
				c, l := at(), MakeLoc(r.Uint32(), 0, uint16(r.Uint32()))
				m.Set(c, l)
				model[c] = l
			case k < 95:
				c := at()
				n := []uint64{1, 3, PageEntries, PageEntries + 1, 3 * PageEntries, nodeEntries}[r.IntN(6)]
				m.Clear(c, n)
				for i := range model {
					if i >= c && i-c < n {
						delete(model, i)
					}
				}
			case k < 96:
				m.Clear(0, clusters64TiB)
				clear(model)
			case k < 98:
				n := m.Clusters() + r.Uint64N(PageEntries)
				m.Grow(n)
				m.Grow(n / 2) // never shrinks
				if m.Clusters() != n {
					t.Fatalf("seed %d step %d: %d clusters, want %d", seed, step, m.Clusters(), n)
				}
			default:
				if err := checkCounts(m); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
			}
			if c := at(); get(m, c) != model[c] {
				t.Fatalf("seed %d step %d: cluster %d is %v, want %v", seed, step, c, get(m, c), model[c])
			}
		}
		for c, l := range model {
			if get(m, c) != l {
				t.Fatalf("seed %d: cluster %d is %v, want %v", seed, c, get(m, c), l)
			}
		}
		if m.Mapped() != uint64(len(model)) {
			t.Fatalf("seed %d: %d mapped, want %d", seed, m.Mapped(), len(model))
		}
		if err := checkCounts(m); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// TestLargestMap: 64 TiB cost little when empty, and clearing all of it looks at
// the pages that exist only.
func TestLargestMap(t *testing.T) {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	m := New(clusters64TiB, nil)
	runtime.ReadMemStats(&b)
	if got := b.TotalAlloc - a.TotalAlloc; got > 1<<20 || m.MemoryBytes() > 1<<20 {
		t.Fatalf("an empty map of 64 TiB takes %d bytes, says %d", got, m.MemoryBytes())
	}
	empty := m.MemoryBytes()
	last := uint64(clusters64TiB - 1)
	for _, c := range []uint64{0, 1 << 20, 1 << 33, last} {
		m.Set(c, MakeLoc(1, 0, uint16(c)))
	}
	if m.Mapped() != 4 || get(m, last).Offset() != uint16(last&0xffff) || get(m, last-1).Mapped() {
		t.Fatalf("%d mapped, last %v", m.Mapped(), get(m, last))
	}
	// A step per cluster would make this 2^34 x 1000 steps.
	for range 1000 {
		m.Clear(0, clusters64TiB)
	}
	if m.Mapped() != 0 || m.MemoryBytes() != empty {
		t.Fatalf("%d mapped, %d bytes after a full clear", m.Mapped(), m.MemoryBytes())
	}
}
