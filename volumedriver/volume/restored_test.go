package volume

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// objectsOf returns the names of everything on the backend.
func (n *node) objectsOf(prefix string) map[string]bool {
	n.t.Helper()
	out := map[string]bool{}
	for after := ""; ; {
		page, err := n.store.List(context.Background(), prefix, after, 1000)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, o := range page {
			after = o.Name
			out[o.Name] = true
		}
		if len(page) < 1000 {
			return out
		}
	}
}

// restore is what a restore of the registry of an earlier moment leaves.
func (w *world) restore(backup *memRegistry) {
	w.reg = backup.clone()
	w.reg.mark = &Restored{Format: RestoredFormat, Made: time.Unix(1_700_000_000, 0).UTC(), Time: time.Unix(1_700_001_000, 0).UTC(), ID: "r"}
}

// fill writes version ver of the first clusters and commits them.
func (n *node) fill(v *Volume, ver uint32) {
	n.t.Helper()
	if err := v.WriteAt(context.Background(), versions(0, 64<<10, func(int64) uint32 { return ver }), 0); err != nil {
		n.t.Fatal(err)
	}
	if err := v.Commit(context.Background()); err != nil {
		n.t.Fatal(err)
	}
}

// wantVersion reads an open vDisk.
func (n *node) wantVersion(v *Volume, ver uint32) {
	n.t.Helper()
	have, err := readVersions(v)
	if err != nil {
		n.t.Fatal(err)
	}
	for i, h := range have[:16] {
		if h != ver {
			n.t.Fatalf("vdisk %s: cluster %d has version %d, not %d", v.id, i, h, ver)
		}
	}
}

func ids(l []Strange) (out []string) {
	for _, s := range l {
		out = append(out, s.ID.String())
		if s.Why == "" {
			out = append(out, "without a reason")
		}
	}
	slices.Sort(out)
	return out
}

// TestRestoredRegistry: after a restore of an older registry nothing acknowledged is missing,
// nothing is deleted before the comparison, and nothing that anybody needs after it.
func TestRestoredRegistry(t *testing.T) {
	ctx := context.Background()
	w := newWorld(21)
	n := w.mustStart(t)
	busy, gone, closed, idle := testID(1), testID(2), testID(3), testID(4)
	made, clone, grand := testID(5), testID(6), testID(7)
	for _, id := range []ID{busy, gone, closed, idle} {
		n.create(id, 1<<20)
		v := n.open(id)
		n.fill(v, 1)
		if err := v.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	v := n.open(busy)
	for _, name := range []string{"old", "kept"} {
		if _, err := v.Snapshot(ctx, SnapshotSpec{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	backup := w.reg.clone()

	n.fill(v, 2)
	if _, err := v.Snapshot(ctx, SnapshotSpec{Name: "new"}); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.DeleteSnapshot(ctx, busy, "old", false); err != nil {
		t.Fatal(err)
	}
	n.fill(v, 3)
	if _, err := v.Scrub(ctx, ScrubOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Delete(ctx, gone); err != nil {
		t.Fatal(err)
	}
	cv := n.open(closed)
	n.fill(cv, 4)
	if err := cv.Close(ctx); err != nil {
		t.Fatal(err)
	}
	n.create(made, 1<<20)
	mv := n.open(made)
	n.fill(mv, 5)
	if err := n.pool.Clone(ctx, CloneSpec{ID: clone, Name: "clone", Source: busy}); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Clone(ctx, CloneSpec{ID: grand, Name: "grand", Source: clone}); err != nil {
		t.Fatal(err)
	}
	n.fill(v, 6)
	n.close()

	w.restore(backup)
	n = w.mustStart(t)
	before := n.objectsOf("")
	if m, err := n.pool.Restored(ctx); err != nil || m == nil {
		t.Fatalf("mark %v %v", m, err)
	}
	v = n.open(busy)
	if v.this.Epoch <= 2 {
		t.Errorf("epoch %d is not above those before", v.this.Epoch)
	}
	n.wantVersion(v, 6)
	n.fill(v, 7)
	for what, err := range map[string]error{
		"scrub":  errOf(v.Scrub(ctx, ScrubOptions{})),
		"sweep":  errOf(n.pool.Sweep(ctx, false)),
		"delete": n.pool.Delete(ctx, idle),
		"purge":  n.pool.Purge(ctx),
		"drop":   n.pool.DropMoved(ctx, idle),
		"remove": n.pool.remove(ctx, rootName),
	} {
		if !errors.Is(err, ErrDeletesOff) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if rec, err := w.reg.Load(ctx, idle); err != nil || rec.State != FlagNone {
		t.Errorf("a delete that was refused changed the record: %+v %v", rec, err)
	}
	if err := n.pool.DeleteSnapshot(ctx, busy, "kept", false); err != nil {
		t.Error(err)
	}
	n.fill(v, 8)
	now := n.objectsOf("")
	for name := range before {
		if !now[name] {
			t.Errorf("%s was deleted", name)
		}
	}

	c, err := n.pool.Compare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if c.Compared != 3 || c.Newer != 1 || !slices.Equal(ids(c.Missing), []string{gone.String()}) || len(c.Unclear) > 0 || c.Ended.IsZero() ||
		!slices.Equal(ids(c.Orphans), []string{made.String(), clone.String(), grand.String()}) {
		t.Fatalf("%+v", c)
	}
	if m, err := n.pool.Restored(ctx); err != nil || m != nil || w.reg.last == nil || w.reg.last.Compared != 3 {
		t.Fatalf("mark %v %v", m, err)
	}
	if c, err := n.pool.Compare(ctx); err != nil || !c.Ended.IsZero() {
		t.Errorf("compared again: %+v %v", c, err)
	}
	// What was closed has its newest head in the registry, for clones that are made of it.
	if err := n.pool.Clone(ctx, CloneSpec{ID: testID(8), Name: "late", Source: closed}); err != nil {
		t.Fatal(err)
	}
	n.wantVersion(n.open(testID(8)), 4)
	n.wantVersion(n.open(closed), 4)
	n.wantVersion(n.open(idle), 1)

	// Now deletes are on, and take nothing that the orphans have.
	if _, err := v.Scrub(ctx, ScrubOptions{}); err != nil {
		t.Fatal(err)
	}
	res, err := n.pool.Sweep(ctx, false)
	if err != nil || !slices.Equal(res.Quarantined, []string{made.String()}) {
		t.Fatalf("%+v %v", res, err)
	}
	if err := v.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Delete(ctx, busy); err != nil {
		t.Fatal(err)
	}
	if err := n.pool.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	found, err := n.pool.Recover(ctx)
	if err != nil {
		t.Fatal(err)
	}
	known := map[ID]bool{}
	for _, r := range found {
		known[r.ID] = r.Known
	}
	if want := map[ID]bool{made: false, clone: true, grand: true, closed: true, idle: true, testID(8): true}; !maps.Equal(known, want) {
		t.Errorf("recovered %v, want %v", known, want)
	}
	n.wantVersion(n.open(made), 5)
	n.wantVersion(n.open(clone), 3)
	n.wantVersion(n.open(grand), 3)
	n.close()
}

func errOf[T any](_ T, err error) error { return err }

// TestRestoredUnclear: what cannot be explained keeps deletes off, until it can.
func TestRestoredUnclear(t *testing.T) {
	ctx := context.Background()
	w := newWorld(22)
	n := w.mustStart(t)
	id, other := testID(1), testID(2)
	for _, d := range []ID{id, other} {
		n.create(d, 1<<20)
		v := n.open(d)
		n.fill(v, 1)
		if err := v.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	backup := w.reg.clone()
	n.close()
	w.restore(backup)
	n = w.mustStart(t)
	rec, err := w.reg.Load(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	good, err := n.store.Get(ctx, headName(id, rec.Head), maxHeadBytes)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, b []byte) func() {
		return func() {
			if err := n.store.Put(ctx, name, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	drop := func(name string) func() {
		return func() {
			if err := n.store.Delete(ctx, name); err != nil && !errors.Is(err, backend.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	newer := headName(id, HeadRef{Epoch: rec.Head.Epoch + 1, Number: rec.Head.Number + 1, Nonce: 1})
	strange := headName(testID(9), HeadRef{Epoch: 1, Number: 1, Nonce: 1})
	move := func(pool string) func() {
		return func() {
			old, err := w.reg.Load(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			now := old
			now.Pool = pool
			if err := w.reg.Apply(ctx, Change{&old, &now}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name         string
		inject, mend func()
		fails        bool
	}{
		{"damaged head", put(newer, []byte("damaged")), drop(newer), false},
		{"damaged head of an orphan", put(strange, []byte("damaged")), drop(strange), false},
		{"moved here", move("5b1c3c36-56a5-4a43-9bd2-2b6e2f1b7a11"), move(testPool), false},
		{"foreign object", put("somebody.else", nil), drop("somebody.else"), true},
	} {
		tc.inject()
		c, err := n.pool.Compare(ctx)
		if tc.fails != (err != nil) || !tc.fails && (len(c.Unclear) != 1 || c.Unclear[0].Why == "" || !c.Ended.IsZero()) {
			t.Errorf("%s: %+v %v", tc.name, c, err)
		}
		if err := n.pool.mayDelete(ctx); !errors.Is(err, ErrDeletesOff) {
			t.Errorf("%s: deletes are on: %v", tc.name, err)
		}
		tc.mend()
	}
	drop(headName(id, rec.Head))()
	if c, err := n.pool.Compare(ctx); err != nil || !c.Ended.IsZero() && len(c.Missing) == 0 {
		t.Errorf("without its head: %+v %v", c, err)
	}
	put(headName(id, rec.Head), good)()
	// What an administrator accepts is named, and in the way no more; it is left as it is.
	put(strange, []byte("damaged"))()
	accept := func(ids ...ID) {
		t.Helper()
		if err := n.pool.AcceptUnclear(ctx, ids...); err != nil {
			t.Fatal(err)
		}
	}
	accept(testID(8))
	if c, err := n.pool.Compare(ctx); err != nil || !slices.Equal(ids(c.Unclear), []string{testID(9).String()}) {
		t.Errorf("another one was accepted: %+v %v", c, err)
	}
	accept(testID(9), testID(8))
	accept(testID(9))
	c, err := n.pool.Compare(ctx)
	if err != nil || len(c.Unclear) != 0 || !slices.Equal(ids(c.Accepted), []string{testID(9).String()}) || c.Ended.IsZero() {
		t.Errorf("%+v %v", c, err)
	}
	if err := n.pool.mayDelete(ctx); err != nil {
		t.Error(err)
	}
	if _, err := n.store.Get(ctx, strange, maxHeadBytes); err != nil {
		t.Errorf("what was accepted: %v", err)
	}
	if err := n.pool.AcceptUnclear(ctx, testID(9)); !errors.Is(err, ErrNotFound) {
		t.Errorf("accepted with deletes on: %v", err)
	}
	n.close()
}

// TestRestoredFailing: a backend or registry that does not answer leaves deletes off.
func TestRestoredFailing(t *testing.T) {
	ctx := context.Background()
	w := newWorld(23)
	n := w.mustStart(t)
	n.create(testID(1), 1<<20)
	backup := w.reg.clone()
	n.close()
	w.restore(backup)
	n = w.mustStart(t)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := n.pool.Compare(ended); err == nil {
		t.Error("it compared without an answer")
	}
	// The mark of another restore is not taken away by a comparison that began before it.
	second := *w.reg.mark
	second.ID = "second"
	if err := w.reg.EndRestored(ctx, testPool, second, Comparison{}); err != nil || w.reg.mark == nil {
		t.Errorf("%v, mark %v", err, w.reg.mark)
	}
	if err := n.pool.mayDelete(ctx); !errors.Is(err, ErrDeletesOff) {
		t.Error(err)
	}
	n.close()
}

// TestRestoredTail: of a vDisk that was open when the backup was made, and when the node
// crashed, the journal is used: writes that no head has are not missing.
func TestRestoredTail(t *testing.T) {
	ctx := context.Background()
	w := newWorld(24)
	n := w.mustStart(t)
	id := testID(1)
	n.create(id, 1<<20)
	v := n.open(id)
	n.fill(v, 1)
	backup := w.reg.clone()
	n.fill(v, 2)
	mustWrite(t, v, 0, 3) // and no head after it
	n.kill()
	w.restore(backup)
	n = w.mustStart(t)
	if c, err := n.pool.Compare(ctx); err != nil || c.Compared != 1 || c.Newer != 1 {
		t.Fatalf("%+v %v", c, err)
	}
	v = n.open(id)
	have, err := readVersions(v)
	if err != nil || have[0] != 3 || have[15] != 2 {
		t.Fatalf("version %v, then %v: %v", have[0], have[15], err)
	}
	n.close()
}
