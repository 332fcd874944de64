package blockmap

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"
)

// family is a set of maps that were cloned from each other, with what each must hold.
type family struct {
	t    *testing.T
	r    *rand.Rand
	seed uint64
	maps []*Map
	want []map[uint64]Loc
}

func (f *family) at(m *Map) uint64 {
	borders := []uint64{0, PageEntries, nodeEntries, nodeEntries + PageEntries, m.Clusters()}
	b := borders[f.r.IntN(len(borders))]
	return min(b+f.r.Uint64N(600)-min(b, 300), m.Clusters()-1)
}

// change writes one map; a frozen one is cloned instead.
func (f *family) change() {
	i := f.r.IntN(len(f.maps))
	m, want := f.maps[i], f.want[i]
	if m.frozen {
		f.clone(i)
		return
	}
	switch k := f.r.IntN(100); {
	case k < 70:
		c, l := f.at(m), MakeLoc(f.r.Uint32(), uint8(f.r.Uint32()), uint16(f.r.Uint32()))
		m.Set(c, l)
		want[c] = l
	case k < 90:
		c := f.at(m)
		n := []uint64{1, PageEntries, 3 * PageEntries, nodeEntries}[f.r.IntN(4)]
		m.Clear(c, n)
		for i := range want {
			if i >= c && i-c < n {
				delete(want, i)
			}
		}
	case k < 92 && len(f.maps) < 12:
		m.Freeze()
	case k < 96:
		f.clone(i)
	default:
		var p page
		n := f.at(m) / PageEntries
		for i := range uint64(PageEntries) {
			delete(want, n*PageEntries+i)
			if c := n*PageEntries + i; c < m.Clusters() && f.r.IntN(3) == 0 {
				p[i] = MakeLoc(f.r.Uint32(), 0, 7)
				want[c] = p[i]
			}
		}
		m.setPage(n, &p)
	}
}

func (f *family) clone(i int) {
	c := map[uint64]Loc{}
	for k, l := range f.want[i] {
		c[k] = l
	}
	m := f.maps[i].Clone(f.maps[i].Clusters() + f.r.Uint64N(2)*PageEntries)
	if len(f.maps) < 12 {
		f.maps, f.want = append(f.maps, m), append(f.want, c)
		return
	}
	k := f.r.IntN(len(f.maps))
	f.maps[k], f.want[k] = m, c
}

func (f *family) check() {
	f.t.Helper()
	for i, m := range f.maps {
		if err := checkCounts(m); err != nil {
			f.t.Fatalf("seed %d map %d: %v", f.seed, i, err)
		}
		if m.Mapped() != uint64(len(f.want[i])) {
			f.t.Fatalf("seed %d map %d: %d mapped, want %d", f.seed, i, m.Mapped(), len(f.want[i]))
		}
		for c, l := range f.want[i] {
			if get(m, c) != l {
				f.t.Fatalf("seed %d map %d: cluster %d is %v, want %v", f.seed, i, c, get(m, c), l)
			}
		}
	}
}

// TestCloneModel: maps cloned from each other in any order never see each other's
// changes (M5), and a checkpoint over any of them brings any other back.
func TestCloneModel(t *testing.T) {
	for seed := range uint64(20) {
		f := &family{t: t, r: rand.New(rand.NewPCG(seed, 5)), seed: seed,
			maps: []*Map{New(nodeEntries+700, nil)}, want: []map[uint64]Loc{{}}}
		for range 8 {
			for range 300 {
				f.change()
			}
			f.check()
			f.checkpoints()
		}
	}
}

func (f *family) checkpoints() {
	m, base := f.maps[f.r.IntN(len(f.maps))], f.maps[f.r.IntN(len(f.maps))]
	if base.Clusters() > m.Clusters() {
		return
	}
	base.Freeze()
	h := &CheckpointHeader{VDisk: disk, Cluster: 4096, Clusters: m.Clusters(), FirstTLog: 1, LastTLog: 1}
	got, gh, err := ReadCheckpoint(bytes.NewReader(checkpointOver(f.t, m, base, h)), base, nil)
	if err != nil || !reflect.DeepEqual(gh, h) || !sameMap(got, m) {
		f.t.Fatalf("seed %d: over another map: %v", f.seed, err)
	}
	if err := checkCounts(got); err != nil {
		f.t.Fatal(err)
	}
}

// TestCloneMemory: a clone costs its root and what it changes.
func TestCloneMemory(t *testing.T) {
	m := New(clusters64TiB/64, nil)
	for c := uint64(0); c < 1<<22; c++ {
		m.Set(c, MakeLoc(1, 0, 1))
	}
	if per := float64(m.MemoryBytes()) / float64(1<<22*4096>>30); per > 2.2*(1<<20) {
		t.Fatalf("%.2f MiB per mapped GiB, want at most 2.2", per/(1<<20))
	}
	m.Freeze()
	c := m.Clone(m.Clusters())
	before := c.MemoryBytes()
	c.Set(5, MakeLoc(2, 1, 1))
	if got := c.MemoryBytes() - before; got > nodeBytes+PageBytes+refBytes {
		t.Fatalf("one write of a clone takes %d bytes", got)
	}
	if before > int64(16*len(m.root)) {
		t.Fatalf("a clone takes %d bytes", before)
	}
}

func TestFrozenMap(t *testing.T) {
	m := New(10, nil)
	m.Set(1, MakeLoc(1, 0, 0))
	m.Freeze()
	defer func() {
		if recover() == nil {
			t.Fatal("a frozen map was written")
		}
	}()
	m.Set(1, MakeLoc(2, 0, 0))
}
