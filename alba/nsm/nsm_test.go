package nsm_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/kv"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	policy = preset.Policy{K: 2, M: 1, C: 2, X: 1}
	other  = preset.Policy{K: 1, M: 2, C: 2, X: 1}
	stored = preset.Preset{Name: "p", Policies: []preset.Policy{policy, other}, FragmentBytes: preset.MinFragmentBytes}
)

const ns = 7

// world is a host with a namespace on a store that may fail.
type world struct {
	*nsm.Host
	t     testing.TB
	store *albatest.Flaky
	path  string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nsm.db")
	s, err := kv.OpenBolt(path, kv.BoltOptions{NoSync: true})
	must(t, err)
	w := &world{t: t, store: albatest.NewFlaky(s), path: path}
	t.Cleanup(func() {
		w.store.Settle()
		must(t, s.Close())
	})
	w.Host = nsm.New(w.store)
	must(t, w.Create(t.Context(), ns, "ns", stored))
	return w
}

var indexes sync.Map // of shards by their size

func index(n int) fragment.Index {
	if x, ok := indexes.Load(n); ok {
		return x.(fragment.Index)
	}
	_, x, err := fragment.Pack(nil, fragment.ID{}, make([]byte, n), fragment.None, fragment.Piece64K, nil)
	if err != nil {
		panic(err)
	}
	indexes.Store(n, x)
	return x
}

// object makes a manifest of "chunks" chunks, without the fragments in missing.
func object(id uint64, name string, chunks int, missing ...int) *layout.Manifest {
	m := &layout.Manifest{Header: layout.Header{Name: name, Size: int64(chunks) * 1000, CRC: uint32(id), Created: int64(id), Policy: policy, ChunkBytes: 1000}}
	m.Object = layout.Object{0: 1, 8: byte(id >> 56), 9: byte(id >> 48), 10: byte(id >> 40), 11: byte(id >> 32), 12: byte(id >> 24), 13: byte(id >> 16), 14: byte(id >> 8), 15: byte(id)}
	for i := range chunks {
		chunk := make([]layout.Fragment, policy.N())
		for j := range chunk {
			if !slices.Contains(missing, j) {
				chunk[j] = layout.Fragment{OSD: uint32(1 + (i+j)%9), Epoch: 1, Index: index(m.ShardBytes(i))}
			}
		}
		m.Fragments = append(m.Fragments, chunk)
	}
	return m
}

func (w *world) get(name string) *layout.Manifest {
	w.t.Helper()
	m, err := w.Get(w.t.Context(), ns, name)
	if errors.Is(err, nsm.ErrNotExist) {
		return nil
	}
	must(w.t, err)
	return m
}

func (w *world) apply(changes ...nsm.Change) error {
	return w.Apply(w.t.Context(), ns, 0, nil, changes)
}

// fragments returns what a manifest names, as a set.
func fragments(m *layout.Manifest, into map[string]bool) {
	if m == nil {
		return
	}
	for i, chunk := range m.Fragments {
		for j, f := range chunk {
			if f.OSD != 0 {
				into[fmt.Sprintf("%v/%d/%d/%d/%d@%d", m.Object, i, j, f.Version, f.Epoch, f.OSD)] = true
			}
		}
	}
}

// audit checks N2 and N3 over everything: garbage is what was ever in a manifest and
// is in none now; work that nobody reported is of incomplete objects, all of them.
func (w *world) audit(ever map[string]bool) {
	w.t.Helper()
	now, work := map[string]bool{}, map[string]bool{}
	for after := ""; ; {
		page, more, err := w.List(w.t.Context(), ns, "", after, 0)
		must(w.t, err)
		for _, m := range page {
			after = m.Name
			fragments(m, now)
			if m.Missing() > 0 {
				work[m.Name] = true
			}
		}
		if !more {
			break
		}
	}
	garbage := map[string]bool{}
	for last := (*nsm.Garbage)(nil); ; {
		page, err := w.ListGarbage(w.t.Context(), last, 1000)
		must(w.t, err)
		if len(page) == 0 {
			break
		}
		last = &page[len(page)-1]
		for _, g := range page {
			for _, d := range g.Places {
				key := fmt.Sprintf("%v/%d/%d/%d/%d@%d", d.Object, d.Chunk, d.Index, d.Version, d.Epoch, d.OSD)
				if garbage[key] {
					w.t.Fatalf("garbage twice: %s", key)
				}
				garbage[key] = true
			}
		}
	}
	want := maps.Clone(ever)
	for key := range now {
		if !want[key] {
			w.t.Fatalf("%s is named, and was never put", key)
		}
		delete(want, key)
	}
	if !maps.Equal(garbage, want) {
		w.t.Fatalf("garbage has %d fragments, want %d", len(garbage), len(want))
	}
	list, _, err := w.ListWork(w.t.Context(), nil, 10000)
	must(w.t, err)
	got := map[string]bool{}
	for _, r := range list {
		if !r.Reported || work[r.Name] {
			got[r.Name] = true
		}
	}
	if !maps.Equal(got, work) {
		w.t.Fatalf("work is %v, want %v", got, work)
	}
}

func TestApplyErrors(t *testing.T) {
	id := func(n uint64) *layout.Object { return &object(n, "x", 1).Object }
	crc := func(c uint32) *uint32 { return &c }
	change := func(fn func(m *layout.Manifest)) []nsm.Change {
		m := object(2, "new", 2)
		fn(m)
		return []nsm.Change{{Put: m}}
	}
	// move changes the object "there" as it is.
	move := func(fn func(m *layout.Manifest)) func(w *world) []nsm.Change {
		return func(w *world) []nsm.Change {
			m := w.get("there")
			fn(m)
			return []nsm.Change{{Move: m}}
		}
	}
	const there, third = 1, 3
	tests := []struct {
		name    string
		epoch   uint64
		asserts []nsm.Assert
		changes []nsm.Change
		made    func(w *world) []nsm.Change
		before  func(w *world)
		want    error
	}{
		{name: "put", epoch: 1, changes: change(func(*layout.Manifest) {})},
		{name: "put over", changes: []nsm.Change{{Put: object(2, "there", 1)}}},
		{name: "put incomplete", changes: change(func(m *layout.Manifest) { m.Fragments[1][2].OSD = 0 })},
		{name: "delete", changes: []nsm.Change{{Delete: "there"}}},
		{name: "delete absent", changes: []nsm.Change{{Delete: "absent"}}},
		{name: "nothing"},
		{name: "put if absent", changes: []nsm.Change{{Put: object(2, "new", 1), IfAbsent: true}}},
		{name: "put if absent over", changes: []nsm.Change{{Put: object(2, "there", 1), IfAbsent: true}}, want: nsm.ErrExists},
		{name: "put if absent again", changes: []nsm.Change{{Put: object(there, "there", 1), IfAbsent: true}}},
		{name: "assert absent", asserts: []nsm.Assert{{Name: "absent", Absent: true}}, changes: change(func(*layout.Manifest) {})},
		{name: "assert absent fails", asserts: []nsm.Assert{{Name: "there", Absent: true}}, changes: change(func(*layout.Manifest) {}), want: nsm.ErrAssert},
		{name: "assert exists", asserts: []nsm.Assert{{Name: "there"}}, changes: []nsm.Change{{Delete: "there"}}},
		{name: "assert exists fails", asserts: []nsm.Assert{{Name: "absent"}}, changes: []nsm.Change{{Delete: "there"}}, want: nsm.ErrAssert},
		{name: "assert object", asserts: []nsm.Assert{{Name: "there", Object: id(there)}}, changes: []nsm.Change{{Delete: "there"}}},
		{name: "assert object fails", asserts: []nsm.Assert{{Name: "there", Object: id(2)}}, changes: []nsm.Change{{Delete: "there"}}, want: nsm.ErrAssert},
		{name: "assert checksum", asserts: []nsm.Assert{{Name: "there", CRC: crc(there)}}, changes: []nsm.Change{{Delete: "there"}}},
		{name: "assert checksum fails", asserts: []nsm.Assert{{Name: "there", CRC: crc(9)}}, changes: []nsm.Change{{Delete: "there"}}, want: nsm.ErrAssert},
		{name: "assert alone fails", asserts: []nsm.Assert{{Name: "absent"}}, want: nsm.ErrAssert},
		{name: "put again with an assert that it made false", asserts: []nsm.Assert{{Name: "there", Absent: true}}, changes: []nsm.Change{{Put: object(there, "there", 1)}, {Delete: "absent"}}},
		{name: "sequence", asserts: []nsm.Assert{{Name: "there"}}, changes: []nsm.Change{{Put: object(2, "new", 1)}, {Delete: "there"}, {Put: object(third, "third", 1)}}},
		{name: "sequence with one that fails", changes: []nsm.Change{{Delete: "there"}, {Put: object(2, "again", 1), IfAbsent: true}}, want: nsm.ErrExists},
		{name: "epoch not opened", epoch: 2, changes: change(func(*layout.Manifest) {}), want: nsm.ErrEpoch},
		{name: "fragment of an epoch not opened", epoch: 1, changes: change(func(m *layout.Manifest) { m.Fragments[1][1].Epoch = 2 }), want: nsm.ErrEpoch},
		{name: "closed epoch", epoch: 1, changes: change(func(*layout.Manifest) {}), want: nsm.ErrEpoch, before: func(w *world) {
			_, err := w.OpenEpoch(t.Context(), ns)
			must(t, err)
			must(t, w.CloseEpochs(t.Context(), ns, 1))
		}},
		{name: "fragment of a closed epoch", changes: change(func(*layout.Manifest) {}), want: nsm.ErrEpoch, before: func(w *world) {
			_, err := w.OpenEpoch(t.Context(), ns)
			must(t, err)
			must(t, w.CloseEpochs(t.Context(), ns, 99))
		}},
		{name: "closed device", changes: change(func(*layout.Manifest) {}), want: nsm.ErrDevices, before: closes(2)},
		{name: "another device is closed", changes: change(func(*layout.Manifest) {}), before: closes(8)},
		{name: "no such namespace", changes: change(func(*layout.Manifest) {}), want: nsm.ErrNoNamespace, before: func(w *world) {
			must(t, w.BeginRemoval(t.Context(), ns, false))
			must(t, w.Clear(t.Context(), ns))
		}},
		{name: "being removed", changes: change(func(*layout.Manifest) {}), want: nsm.ErrRemoving, before: func(w *world) { must(t, w.BeginRemoval(t.Context(), ns, false)) }},
		{name: "being recovered", changes: change(func(*layout.Manifest) {}), want: nsm.ErrRecovering, before: func(w *world) {
			_, err := w.Update(t.Context(), ns, func(n *nsm.Namespace) bool { n.State = nsm.Recovering; return true })
			must(t, err)
		}},
		{name: "no name", changes: change(func(m *layout.Manifest) { m.Name = "" }), want: nsm.ErrInvalid},
		{name: "long name", changes: change(func(m *layout.Manifest) { m.Name = strings.Repeat("x", 513) }), want: nsm.ErrInvalid},
		{name: "long name deleted", changes: []nsm.Change{{Delete: strings.Repeat("x", 513)}}, want: nsm.ErrInvalid},
		{name: "long name asserted", asserts: []nsm.Assert{{Name: strings.Repeat("x", 513)}}, want: nsm.ErrInvalid},
		{name: "no id", changes: change(func(m *layout.Manifest) { m.Object = layout.Object{} }), want: nsm.ErrInvalid},
		{name: "no chunk size", changes: change(func(m *layout.Manifest) { m.ChunkBytes = 0 }), want: nsm.ErrInvalid},
		{name: "too large to be read back", changes: change(func(m *layout.Manifest) { m.Size = 2 << 30; m.ChunkBytes = 1 << 30 }), want: nsm.ErrInvalid},
		{name: "index of nothing", changes: change(func(m *layout.Manifest) { m.Fragments[0][0].Index = fragment.Index{} }), want: nsm.ErrInvalid},
		{name: "a chunk less", changes: change(func(m *layout.Manifest) { m.Fragments = m.Fragments[:1] }), want: nsm.ErrInvalid},
		{name: "a fragment less", changes: change(func(m *layout.Manifest) { m.Fragments[0] = m.Fragments[0][:2] }), want: nsm.ErrInvalid},
		{name: "a device twice", changes: change(func(m *layout.Manifest) { m.Fragments[0][0].OSD = m.Fragments[0][1].OSD }), want: nsm.ErrInvalid},
		{name: "below c", changes: change(func(m *layout.Manifest) { m.Fragments[1][0].OSD, m.Fragments[1][1].OSD = 0, 0 }), want: nsm.ErrInvalid},
		{name: "policy of no preset", changes: change(func(m *layout.Manifest) { m.Policy.X = 9 }), want: nsm.ErrInvalid},
		{name: "no change in a change", changes: []nsm.Change{{}}, want: nsm.ErrInvalid},
		{name: "put and delete", changes: []nsm.Change{{Put: object(2, "new", 1), Delete: "new"}}, want: nsm.ErrInvalid},
		{name: "a name twice", changes: []nsm.Change{{Put: object(2, "new", 1)}, {Delete: "new"}}, want: nsm.ErrInvalid},
		{name: "too many changes", changes: slices.Repeat([]nsm.Change{{Delete: "x"}}, nsm.MaxChanges+1), want: nsm.ErrInvalid},
		{name: "too many asserts", asserts: slices.Repeat([]nsm.Assert{{Name: "there"}}, nsm.MaxChanges+1), want: nsm.ErrInvalid},
		{name: "too large together", changes: []nsm.Change{{Put: wide(2, "a")}, {Put: wide(3, "b")}, {Put: wide(4, "c")}, {Put: wide(5, "d")}}, want: nsm.ErrInvalid},
		{name: "move", made: move(func(m *layout.Manifest) { m.Fragments[0][1].OSD = 9; m.Fragments[0][1].Version = 4 })},
		{name: "move nothing", made: move(func(*layout.Manifest) {})},
		{name: "move away", made: move(func(m *layout.Manifest) { m.Fragments[0][1].OSD = 0 })},
		{name: "move with the same version", made: move(func(m *layout.Manifest) { m.Fragments[0][1].OSD = 9 }), want: nsm.ErrInvalid},
		{name: "move to a lower version", before: bump, made: move(func(m *layout.Manifest) { m.Fragments[0][1].OSD = 8; m.Fragments[0][1].Version = 3 }), want: nsm.ErrInvalid},
		{name: "move away and forget the version", before: bump, made: move(func(m *layout.Manifest) { m.Fragments[0][1].OSD = 0; m.Fragments[0][1].Version = 3 }), want: nsm.ErrInvalid},
		{name: "move to another epoch", made: move(func(m *layout.Manifest) { m.Fragments[0][1].Epoch = 2; m.Fragments[1][0].Version = 1 }), want: nsm.ErrInvalid},
		{name: "move in an epoch not opened", made: move(func(m *layout.Manifest) { m.Fragments[0][1].Epoch = 2; m.Fragments[0][1].Version = 1 }), want: nsm.ErrEpoch},
		{name: "move to a closed device", before: closes(9), made: move(func(m *layout.Manifest) { m.Fragments[0][1].OSD = 9; m.Fragments[0][1].Version = 1 }), want: nsm.ErrDevices},
		{name: "move beside a closed device", before: closes(2), made: move(func(m *layout.Manifest) { m.Fragments[0][2].OSD = 9; m.Fragments[0][2].Version = 1 })},
		{name: "move what was changed", made: move(func(m *layout.Manifest) { m.Revision--; m.Fragments[0][1].Version = 1 }), want: nsm.ErrChanged},
		{name: "move what was replaced", made: move(func(m *layout.Manifest) { m.Object[3] = 1 }), want: nsm.ErrChanged},
		{name: "move what is absent", changes: []nsm.Change{{Move: object(2, "absent", 1)}}, want: nsm.ErrChanged},
		{name: "move and change the size", made: move(func(m *layout.Manifest) { m.Size--; m.Fragments[0][1].Version = 1 }), want: nsm.ErrInvalid},
		{name: "move and change the policy", made: move(func(m *layout.Manifest) {
			m.Policy = preset.Policy{K: 2, M: 0, C: 2, X: 1}
			m.Fragments[0], m.Fragments[1] = m.Fragments[0][:2], m.Fragments[1][:2]
		}), want: nsm.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			must(t, w.apply(nsm.Change{Put: object(there, "there", 2)}, nsm.Change{Put: object(third, "again", 1)}))
			ever := map[string]bool{}
			fragments(w.get("there"), ever)
			fragments(w.get("again"), ever)
			if tt.before != nil {
				tt.before(w)
				fragments(w.get("there"), ever)
			}
			changes := tt.changes
			if tt.made != nil {
				changes = tt.made(w)
			}
			before := w.dump()
			err := w.Apply(t.Context(), ns, tt.epoch, tt.asserts, changes)
			if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
				t.Fatalf("%v, want %v", err, tt.want)
			}
			if tt.want != nil {
				if got := w.dump(); got != before {
					t.Fatalf("changed from\n%s\nto\n%s", before, got)
				}
				return
			}
			for _, c := range changes {
				fragments(c.Put, ever)
				fragments(c.Move, ever)
			}
			w.audit(ever)
			deletes := slices.ContainsFunc(changes, func(c nsm.Change) bool { return c.Delete != "" })
			if len(changes) == 1 && deletes {
				return // an assert of what it deleted fails now, rightly
			}
			after := w.dump()
			if err := w.Apply(t.Context(), ns, tt.epoch, tt.asserts, changes); err != nil || w.dump() != after {
				t.Fatalf("applied again: %v\n%s\n%s", err, after, w.dump())
			}
		})
	}
}

func closes(n ...uint32) func(w *world) {
	return func(w *world) {
		must(w.t, w.CloseDevices(w.t.Context(), func(ctx context.Context) ([]uint32, error) { return n, nil }))
	}
}

// bump moves a fragment of the object "there" to version 4.
func bump(w *world) {
	m := w.get("there")
	m.Fragments[0][1].OSD, m.Fragments[0][1].Version = 9, 4
	must(w.t, w.apply(nsm.Change{Move: m}))
}

// wide makes an object whose manifest has nearly the largest size.
func wide(id uint64, name string) *layout.Manifest {
	m := object(id, name, 1)
	m.Policy, m.ChunkBytes, m.Size = other, 64<<10, 8800*64<<10
	m.Fragments = nil
	x := index(64 << 10)
	for range m.Chunks() {
		m.Fragments = append(m.Fragments, []layout.Fragment{{OSD: 4000, Epoch: 1, Index: x}, {OSD: 4001, Epoch: 1, Index: x}, {OSD: 4002, Epoch: 1, Index: x}})
	}
	return m
}

// dump returns all records as text, but for their revisions.
func (w *world) dump() string {
	w.t.Helper()
	var b strings.Builder
	for after := ""; ; {
		recs, _, err := w.store.Range(w.t.Context(), "nsm/", after, 0)
		must(w.t, err)
		if len(recs) == 0 {
			return b.String()
		}
		for _, r := range recs {
			after = string(r.Key)
			fmt.Fprintf(&b, "%s %x\n", r.Key, r.Value)
		}
	}
}

// The largest object there can be is replaced and deleted: its garbage fits.
func TestLargest(t *testing.T) {
	w := newWorld(t)
	big := wide(2, "big")
	b, err := big.Encode()
	must(t, err)
	if len(b) < layout.MaxManifestBytes*8/10 {
		t.Fatalf("a manifest of %d bytes", len(b))
	}
	ever := map[string]bool{}
	fragments(big, ever)
	must(t, w.apply(nsm.Change{Put: big}))
	again := wide(3, "big")
	fragments(again, ever)
	must(t, w.apply(nsm.Change{Put: again}))
	w.audit(ever)
	must(t, w.apply(nsm.Change{Delete: "big"}))
	w.audit(ever)
	for range 60 { // and they do not come in one page
		must(t, w.apply(nsm.Change{Put: wide(uint64(rand.Uint32())|1<<40, fmt.Sprint("o", rand.Uint32()))}))
	}
	page, more, err := w.List(t.Context(), ns, "", "", 0)
	must(t, err)
	if !more || len(page) == 0 {
		t.Fatalf("%d manifests in a page, more %v", len(page), more)
	}
	n := 0
	for after := ""; more; n += len(page) {
		page, more, err = w.List(t.Context(), ns, "", after, 0)
		must(t, err)
		if len(page) > 0 {
			after = page[len(page)-1].Name
		}
	}
	if n != 60 {
		t.Fatalf("%d objects listed", n)
	}
}

// After every fault the state is the one before or the one after, and doing the
// same again brings the one after (N4).
func TestFaults(t *testing.T) {
	type op struct {
		name string
		do   func(w *world) error
	}
	moved := func(w *world) *layout.Manifest {
		m := w.get("a")
		m.Fragments[0][2] = layout.Fragment{OSD: 9, Version: 7, Epoch: 1, Index: m.Fragments[0][0].Index}
		m.Fragments[0][0].OSD, m.Fragments[0][0].Version = 8, 3
		return m
	}
	var move *layout.Manifest
	ops := []op{
		{"put", func(w *world) error { return w.apply(nsm.Change{Put: object(5, "n", 1)}) }},
		{"put over", func(w *world) error { return w.apply(nsm.Change{Put: object(5, "a", 1)}) }},
		{"put incomplete", func(w *world) error { return w.apply(nsm.Change{Put: object(5, "n", 1, 1)}) }},
		{"put if absent", func(w *world) error { return w.apply(nsm.Change{Put: object(5, "n", 1), IfAbsent: true}) }},
		{"delete", func(w *world) error { return w.apply(nsm.Change{Delete: "a"}) }},
		{"move", func(w *world) error { return w.apply(nsm.Change{Move: move}) }},
		{"sequence", func(w *world) error {
			return w.Apply(t.Context(), ns, 1, []nsm.Assert{{Name: "n", Absent: true}, {Name: "b"}}, []nsm.Change{{Put: object(5, "n", 2)}, {Delete: "a"}, {Put: object(6, "b", 1)}})
		}},
	}
	for _, o := range ops {
		for _, fault := range []albatest.Fault{albatest.Before, albatest.Lost, albatest.Late, albatest.Twice, albatest.TwiceLast} {
			t.Run(fmt.Sprintf("%s/%d", o.name, fault), func(t *testing.T) {
				w := newWorld(t)
				setUp := func(w *world) string {
					must(t, w.apply(nsm.Change{Put: object(1, "a", 2, 2)}, nsm.Change{Put: object(2, "b", 1)}))
					move = moved(w)
					return w.dump()
				}
				before := setUp(w)
				calm := newWorld(t)
				setUp(calm)
				must(t, o.do(calm))
				after := normal(calm.dump())
				move = moved(w)
				w.store.Once(0, fault)
				err := o.do(w)
				w.store.SetFault(nil)
				w.store.Settle()
				now := w.dump()
				if normal(now) != normal(before) && normal(now) != after {
					t.Fatalf("half done:\n%s\nbefore\n%s\nafter\n%s", now, before, after)
				}
				known := fault == albatest.Twice || fault == albatest.TwiceLast
				if known == (err != nil) || err != nil && !errors.Is(err, albatest.ErrFault) {
					t.Fatalf("error %v", err)
				}
				if err == nil && normal(now) != after {
					t.Fatalf("acknowledged, and not there:\n%s", now)
				}
				if err := o.do(w); err != nil {
					t.Fatalf("again: %v", err)
				}
				if got := normal(w.dump()); got != after {
					t.Fatalf("again:\n%s\nwant\n%s", got, after)
				}
			})
		}
	}
}

// normal takes the revisions out of the keys of garbage.
func normal(dump string) string {
	lines := strings.Split(dump, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "nsm/g/") {
			key, value, _ := strings.Cut(l, " ")
			lines[i] = key[:strings.LastIndex(key, "-")] + " " + value
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Writers with objects of their own, over a store that fails: what each knows is
// what is there, and garbage and work are exactly what they have to be.
func TestModel(t *testing.T) {
	rounds := 400
	if testing.Short() {
		rounds = 120
	}
	w := newWorld(t)
	r := rand.New(rand.NewPCG(1, 1))
	w.store.SetFault(func(then []kv.Op) albatest.Fault {
		if r.IntN(5) > 0 {
			return albatest.None
		}
		return albatest.Fault(1 + r.IntN(5))
	})
	var mu sync.Mutex
	ever, model := map[string]bool{}, map[string]layout.Object{}
	ids := uint64(0)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 9))
			for range rounds {
				name := fmt.Sprintf("%d-%d", g, r.IntN(12))
				was := w.get(name)
				mu.Lock()
				known, there := model[name]
				ids++
				id := ids
				mu.Unlock()
				if there != (was != nil) || there && known != was.Object {
					t.Errorf("%s is %+v, want %v %v", name, was, there, known)
					return
				}
				c := nsm.Change{Delete: name}
				switch kind := r.IntN(4); {
				case kind < 2 || was == nil:
					c = nsm.Change{Put: object(id, name, 1+r.IntN(3), []int{-1, -1, 0, 1, 2}[r.IntN(5)])}
				case kind == 2:
					m := was.Clone()
					f := &m.Fragments[0][r.IntN(3)]
					*f = layout.Fragment{OSD: 10 + r.Uint32N(1000), Version: f.Version + 1 + r.Uint32N(5), Epoch: 1, Index: index(m.ShardBytes(0))}
					c = nsm.Change{Move: m}
				}
				if r.IntN(8) == 0 {
					must(t, retry(func() error { return w.Report(t.Context(), ns, name, "it looks bad") }))
				}
				if err := retry(func() error { return w.apply(c) }); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				mu.Lock()
				fragments(c.Put, ever)
				fragments(c.Move, ever)
				switch {
				case c.Put != nil:
					model[name] = c.Put.Object
				case c.Delete != "":
					delete(model, name)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	w.store.SetFault(nil)
	w.store.Settle()
	w.audit(ever)
	for name, id := range model {
		if m := w.get(name); m == nil || m.Object != id {
			t.Errorf("%s is %+v, want %v", name, m, id)
		}
	}
}

// retry repeats while the outcome is not known. Late transactions of former
// attempts carry conditions that do not hold any more, or did the same.
func retry(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, albatest.ErrFault) {
			return err
		}
	}
}

// Of writers that race for one name each knows whether it won, and two objects that
// change together always fit.
func TestRaces(t *testing.T) {
	w := newWorld(t)
	ever := map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	wins := 0
	for g := range 8 {
		wg.Go(func() {
			for i := range 25 {
				id := uint64(1000*g + i + 1)
				a, b := object(id, "a", 1), object(id, "b", 1)
				b.Object[1] = 1
				now := w.get("a")
				as := nsm.Assert{Name: "a", Absent: true}
				if now != nil {
					as = nsm.Assert{Name: "a", Object: &now.Object}
				}
				err := w.Apply(t.Context(), ns, 1, []nsm.Assert{as}, []nsm.Change{{Put: a}, {Put: b}})
				if errors.Is(err, nsm.ErrAssert) || errors.Is(err, nsm.ErrChanged) {
					continue
				}
				if err != nil {
					t.Errorf("%v", err)
					return
				}
				mu.Lock()
				wins++
				fragments(a, ever)
				fragments(b, ever)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if a, b := w.get("a"), w.get("b"); a == nil || b == nil || a.CRC != b.CRC {
		t.Fatalf("%+v and %+v", a, b)
	}
	w.audit(ever)
	t.Logf("%d of 200 won", wins)
}

// A report that comes while an object is repaired is looked at afterwards, one in a
// namespace that is gone leaves nothing.
func TestReports(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	must(t, w.apply(nsm.Change{Put: object(1, "a", 1, 2)}))
	work := func() []nsm.Work {
		list, _, err := w.ListWork(ctx, nil, 10)
		must(t, err)
		return list
	}
	if got := work(); len(got) != 1 || got[0].Reported || got[0].Namespace != ns || got[0].Name != "a" {
		t.Fatalf("%+v", got)
	}
	m := w.get("a")
	m.Fragments[0][2] = layout.Fragment{OSD: 9, Version: 1, Epoch: 1, Index: m.Fragments[0][0].Index}
	must(t, w.Report(ctx, ns, "a", "fragment 0 is damaged"))
	must(t, w.apply(nsm.Change{Move: m}))
	got := work()
	if len(got) != 1 || !got[0].Reported {
		t.Fatalf("the report is lost: %+v", got)
	}
	must(t, w.Report(ctx, ns, "a", "fragment 1 is damaged"))
	must(t, w.Done(ctx, got[0]))
	if got = work(); len(got) != 1 || got[0].Why != "fragment 1 is damaged" {
		t.Fatalf("the second report is lost: %+v", got)
	}
	must(t, w.Done(ctx, got[0]))
	if got = work(); len(got) != 0 {
		t.Fatalf("left: %+v", got)
	}
	must(t, w.BeginRemoval(ctx, ns, false))
	must(t, w.Clear(ctx, ns))
	must(t, w.Report(ctx, ns, "a", "late"))
	if got = work(); len(got) != 0 {
		t.Fatalf("left in a namespace that is gone: %+v", got)
	}
}

// Epochs only grow, the newest stays (N5).
func TestEpochs(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for want := uint64(2); want < 6; want++ {
		got, err := w.OpenEpoch(ctx, ns)
		must(t, err)
		if got != want {
			t.Fatalf("epoch %d, want %d", got, want)
		}
	}
	for _, step := range []struct{ upTo, min uint64 }{{2, 3}, {1, 3}, {0, 3}, {4, 5}, {99, 5}} {
		must(t, w.CloseEpochs(ctx, ns, step.upTo))
		n, err := w.Namespace(ctx, ns)
		must(t, err)
		if n.EpochMin != step.min || n.EpochMax != 5 {
			t.Fatalf("closed up to %d: %d to %d", step.upTo, n.EpochMin, n.EpochMax)
		}
	}
}

// Those who close devices at the same time do not undo each other.
func TestCloseDevicesRace(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var closed []uint32
	list := func(context.Context) ([]uint32, error) {
		mu.Lock()
		defer mu.Unlock()
		out := slices.Clone(closed)
		slices.Sort(out)
		return out, nil
	}
	var wg sync.WaitGroup
	for g := range 20 {
		wg.Go(func() {
			mu.Lock()
			closed = append(closed, uint32(g+1))
			mu.Unlock()
			must(t, w.CloseDevices(t.Context(), list))
			d, err := w.Devices(t.Context())
			must(t, err)
			if !slices.Contains(d.Closed, uint32(g+1)) {
				t.Errorf("device %d is not closed: %v", g+1, d.Closed)
			}
		})
	}
	wg.Wait()
	d, err := w.Devices(t.Context())
	must(t, err)
	if len(d.Closed) != 20 {
		t.Fatalf("closed: %v", d.Closed)
	}
	rev := d.Revision
	must(t, w.CloseDevices(t.Context(), list))
	if d, err = w.Devices(t.Context()); err != nil || d.Revision != rev {
		t.Fatalf("the record is written again for nothing: %d after %d, %v", d.Revision, rev, err)
	}
}

// Removing a namespace only when it is empty: a put comes before or after, whoever
// else removes it knows the same, and a removal that was interrupted is ended.
func TestRemovalOfEmpty(t *testing.T) {
	for range 30 {
		w := newWorld(t)
		ctx := t.Context()
		errs := make([]error, 4)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				if i == 0 {
					errs[0] = w.apply(nsm.Change{Put: object(1, "a", 1)})
					return
				}
				errs[i] = w.BeginRemoval(ctx, ns, true)
			})
		}
		wg.Wait()
		n, err := w.Namespace(ctx, ns)
		must(t, err)
		want, removal := nsm.Active, nsm.ErrExists
		if errs[0] != nil {
			want, removal = nsm.Removing, nil
			if !errors.Is(errs[0], nsm.ErrRemoving) {
				t.Fatalf("put: %v", errs[0])
			}
		}
		for _, err := range errs[1:] {
			if !errors.Is(err, removal) || removal == nil && err != nil {
				t.Fatalf("put: %v; removal: %v", errs[0], err)
			}
		}
		if n.State != want {
			t.Fatalf("state %s, want %s: %v", n.State, want, errs)
		}
	}
}

func TestClosingIsEnded(t *testing.T) {
	for _, full := range []bool{false, true} {
		w := newWorld(t)
		ctx := t.Context()
		want := nsm.Removing
		if full {
			must(t, w.apply(nsm.Change{Put: object(1, "a", 1)}))
			want = nsm.Active
		}
		w.store.Once(1, albatest.Before) // after the state, before what comes of it
		if err := w.BeginRemoval(ctx, ns, true); !errors.Is(err, albatest.ErrFault) {
			t.Fatal(err)
		}
		if n, err := w.Namespace(ctx, ns); err != nil || n.State != nsm.Closing {
			t.Fatalf("%+v, %v", n, err)
		}
		n, err := w.Settle(ctx, ns)
		must(t, err)
		if n.State != want {
			t.Fatalf("full %v: %s", full, n.State)
		}
	}
}

// Clear does not end a namespace whose record was changed meanwhile: its manager's
// record would go, and this one stay for ever.
func TestClearRace(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	must(t, w.apply(nsm.Change{Put: object(1, "a", 1)}))
	if err := w.Clear(ctx, ns); !errors.Is(err, nsm.ErrInvalid) {
		t.Fatalf("clear of an active namespace: %v", err)
	}
	must(t, w.BeginRemoval(ctx, ns, false))
	calls := 0
	w.store.SetFault(func(then []kv.Op) albatest.Fault {
		if calls++; calls == 1 { // while the objects are deleted
			res, err := w.store.Store.Txn(ctx, nil, []kv.Op{kv.Put("nsm/n/0000000000000007", []byte(`{"id":7,"name":"ns","state":"removing"}`))}, nil)
			if err != nil || !res.Succeeded {
				t.Error(err)
			}
		}
		return albatest.None
	})
	must(t, w.Clear(ctx, ns))
	if got := w.dump(); got != "" {
		t.Fatalf("left:\n%s", got)
	}
}

// A large namespace is cleared in transactions that fit, and an interruption
// anywhere is no harm.
func TestClearInterrupted(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	for i := range 15 {
		var changes []nsm.Change
		for j := range nsm.MaxChanges {
			changes = append(changes, nsm.Change{Put: object(uint64(100*i+j+1), fmt.Sprintf("%0500d", 100*i+j), 1, 2)})
		}
		must(t, w.apply(changes...))
		must(t, w.apply(nsm.Change{Delete: changes[0].Put.Name}))
	}
	must(t, w.BeginRemoval(ctx, ns, false))
	for n := 0; ; n++ {
		w.store.Once(n%3, []albatest.Fault{albatest.Before, albatest.Lost}[n%2])
		err := w.Clear(ctx, ns)
		if err == nil {
			break
		}
		if !errors.Is(err, albatest.ErrFault) && !errors.Is(err, nsm.ErrNoNamespace) {
			t.Fatal(err)
		}
	}
	if got := w.dump(); got != "" {
		t.Fatalf("left:\n%s", got)
	}
}

// The file of the store, copied between any two operations and opened elsewhere,
// has everything that was acknowledged.
func TestCopiedFile(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	ever := map[string]bool{}
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 40 {
		name := fmt.Sprint("o", r.IntN(6))
		c := nsm.Change{Put: object(uint64(i+1), name, 1+r.IntN(3), []int{-1, 2}[r.IntN(2)])}
		if r.IntN(4) == 0 {
			c = nsm.Change{Delete: name}
		}
		must(t, w.apply(c))
		fragments(c.Put, ever)
		b, err := os.ReadFile(w.path)
		must(t, err)
		path := filepath.Join(t.TempDir(), "copy.db")
		must(t, os.WriteFile(path, b, 0o600))
		s, err := kv.OpenBolt(path, kv.BoltOptions{NoSync: true})
		must(t, err)
		again := &world{Host: nsm.New(s), t: t, store: albatest.NewFlaky(s), path: path}
		if got, want := again.dump(), w.dump(); got != want {
			t.Fatalf("after %d operations:\n%s\nwant\n%s", i+1, got, want)
		}
		again.audit(ever)
		must(t, again.apply(nsm.Change{Put: object(9999, "more", 1)}))
		must(t, s.Close())
	}
	_, err := w.Namespace(ctx, ns)
	must(t, err)
}

// Garbage goes as far as it could be deleted.
func TestCollected(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	must(t, w.apply(nsm.Change{Put: object(1, "a", 70)}))
	must(t, w.apply(nsm.Change{Delete: "a"}))
	list := func() []nsm.Garbage {
		page, err := w.ListGarbage(ctx, nil, 10)
		must(t, err)
		return page
	}
	g := list()[0]
	if len(g.Places) != 210 || g.Namespace != ns {
		t.Fatalf("%d places", len(g.Places))
	}
	left := slices.DeleteFunc(slices.Clone(g.Places), func(d nsm.Dropped) bool { return d.OSD != 3 })
	must(t, w.Collected(ctx, g, left))
	must(t, w.Collected(ctx, g, nil)) // somebody with the older record
	if got := list(); len(got) != 1 || !slices.Equal(got[0].Places, left) {
		t.Fatalf("left %+v", got)
	}
	must(t, w.Collected(ctx, list()[0], nil))
	if got := list(); len(got) != 0 {
		t.Fatalf("left %+v", got)
	}
}

// Somebody closes a device between another's look at the devices and its write.
func TestCloseDevicesLate(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	closed := []uint32{1}
	first := true
	must(t, w.CloseDevices(ctx, func(context.Context) ([]uint32, error) {
		seen := slices.Clone(closed)
		if first {
			first = false
			closed = append(closed, 2)
			must(t, w.CloseDevices(ctx, func(context.Context) ([]uint32, error) { return closed, nil }))
		}
		return seen, nil
	}))
	if d, err := w.Devices(ctx); err != nil || !slices.Equal(d.Closed, []uint32{1, 2}) {
		t.Fatalf("%+v, %v", d, err)
	}
}

// The record changes while it is looked up whether the namespace is empty.
func TestClosingChanged(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	calls := 0
	w.store.SetFault(func([]kv.Op) albatest.Fault {
		if calls++; calls == 2 {
			_, err := nsm.New(w.store.Store).Update(ctx, ns, func(n *nsm.Namespace) bool { n.EpochMax++; return true })
			must(t, err)
		}
		return albatest.None
	})
	must(t, w.BeginRemoval(ctx, ns, true))
	if n, err := w.Namespace(ctx, ns); err != nil || n.State != nsm.Removing || n.EpochMax != 2 {
		t.Fatalf("%+v, %v", n, err)
	}
}
