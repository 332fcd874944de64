package model

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/internal/kv"
)

func openStore(t *testing.T, file string) (*Store, *kv.Bolt) {
	t.Helper()
	b, err := kv.OpenBolt(file, kv.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, b
}

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestStore walks a vPool and a vDisk through their lives, and closes and opens
// the store in between: memory holds what was stored (M3).
func TestStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kv.db")
	s, b := openStore(t, file)
	id := s.Cluster().ID
	ctx := t.Context()
	pool, err := s.CreateVPool(ctx, VPool{ID: "p1", Name: "gold", State: StatePresent})
	must(t, pool, err)
	d, err := s.CreateVDisk(ctx, VDisk{ID: "d1", Name: "one", VPool: "p1", IQN: "iqn.x", State: StatePresent, Labels: map[string]string{"a": "b"}})
	must(t, d, err)
	for name, err := range map[string]error{
		"same name": second(s.CreateVDisk(ctx, VDisk{ID: "d2", Name: "one", VPool: "p1"})),
		"same id":   second(s.CreateVDisk(ctx, VDisk{ID: "d1", Name: "two", VPool: "p1"})),
		"same iqn":  second(s.CreateVDisk(ctx, VDisk{ID: "d2", Name: "two", VPool: "p1", IQN: "iqn.x"})),
		"same pool": second(s.CreateVPool(ctx, VPool{ID: "p2", Name: "gold"})),
	} {
		if !errors.Is(err, ErrExists) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := second(s.CreateVDisk(ctx, VDisk{ID: "d2", Name: "two", VPool: "none"})); !errors.Is(err, ErrConflict) {
		t.Errorf("vDisk without a vPool: %v", err)
	}
	d.Labels["a"] = "changed" // M5
	if v, _ := s.VDisk("d1"); v.Labels["a"] != "b" {
		t.Error("a value handed out is not a copy")
	}
	refused := errors.New("refused")
	if err := second(s.UpdateVDisk(ctx, "d1", func(v *VDisk) error { v.Name = "x"; return refused })); !errors.Is(err, refused) {
		t.Errorf("update that refuses: %v", err)
	}
	must(t, d, second(s.UpdateVDisk(ctx, "d1", func(v *VDisk) error { v.Name = "uno"; return nil })))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	s, b = openStore(t, file)
	defer b.Close()
	if s.Cluster().ID != id {
		t.Error("the cluster has another id")
	}
	if _, ok := s.VDiskByName("p1", "one"); ok {
		t.Error("the old name still leads to the vDisk")
	}
	v, ok := s.VDiskByName("p1", "uno")
	if w, ok2 := s.VDiskByIQN("iqn.x"); !ok || !ok2 || v.ID != "d1" || w.ID != "d1" || v.Rev == 0 {
		t.Errorf("after reopening: %+v %v %v", v, ok, ok2)
	}
	must(t, v, second(s.UpdateVDisk(ctx, "d1", func(v *VDisk) error { v.State = StateDeleting; return nil })))
	must(t, v, second(s.CreateVDisk(ctx, VDisk{ID: "d2", Name: "uno", VPool: "p1", IQN: "iqn.x"})))
	for range 2 {
		if err := s.DeleteVDisk(ctx, "d1"); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.CountVDisks(); n != 1 {
		t.Errorf("%d vDisks", n)
	}
}

func second[T any](_ T, err error) error { return err }

// TestConflict: a record that changed behind the memory's back is not overwritten (M2).
func TestConflict(t *testing.T) {
	s, b := openStore(t, filepath.Join(t.TempDir(), "kv.db"))
	defer b.Close()
	must(t, 0, second(s.CreateVPool(t.Context(), VPool{ID: "p", Name: "gold", State: StatePresent})))
	if _, err := b.Txn(t.Context(), nil, []kv.Op{kv.Put("model/vpool/p", []byte(`{"format":1,"id":"p","name":"gold"}`))}, nil); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"update": second(s.UpdateVPool(t.Context(), "p", func(*VPool) error { return nil })),
		"delete": s.DeleteVPool(t.Context(), "p"),
		"vDisk":  second(s.CreateVDisk(t.Context(), VDisk{ID: "d", Name: "one", VPool: "p"})),
	} {
		if !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestNewerFormat: a record of a newer version stops the start.
func TestNewerFormat(t *testing.T) {
	for _, key := range []string{"model/vdisk/d", "model/cluster", "model/token/t"} {
		file := filepath.Join(t.TempDir(), "kv.db")
		b, err := kv.OpenBolt(file, kv.BoltOptions{NoSync: true})
		must(t, b, err)
		if _, err := b.Txn(t.Context(), nil, []kv.Op{kv.Put(key, fmt.Appendf(nil, `{"format":%d}`, Format+1))}, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), b, nil); !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), "upgrade") {
			t.Errorf("%s: %v", key, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFirstUser: of many set-ups with the right token one wins.
func TestFirstUser(t *testing.T) {
	s, b := openStore(t, filepath.Join(t.TempDir(), "kv.db"))
	defer b.Close()
	if err := s.SetSetup(t.Context(), "h"); err != nil {
		t.Fatal(err)
	}
	if err := second(s.CreateFirstUser(t.Context(), User{Name: "x"}, "wrong")); !errors.Is(err, ErrConflict) {
		t.Errorf("wrong token: %v", err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { errs[i] = second(s.CreateFirstUser(t.Context(), User{Name: fmt.Sprint("u", i)}, "h")) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, ErrConflict) {
			t.Error(err)
		}
	}
	if won != 1 || len(s.Users()) != 1 {
		t.Errorf("%d won, %d users", won, len(s.Users()))
	}
}

// TestPage reads 10,000 rows in pages, both ways, while rows come and go.
func TestPage(t *testing.T) {
	type row struct {
		id string
		n  float64
	}
	var rows []row
	for i := range 10_000 {
		rows = append(rows, row{fmt.Sprintf("%05d", i), float64(i % 100)})
	}
	keys := func(r row) Keys { return Keys{Number: r.n, ID: r.id} }
	for _, desc := range []bool{false, true} {
		var got []row
		cursor := ""
		for {
			page, next, err := Page(rows, keys, "n", desc, cursor, 777)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, page...)
			if cursor = next; next == "" {
				break
			}
		}
		want := slices.Clone(rows)
		slices.SortFunc(want, func(a, b row) int {
			if c := keys(a).compare(keys(b)); !desc {
				return c
			} else {
				return -c
			}
		})
		if !slices.Equal(got, want) {
			t.Errorf("desc %v: %d rows in another order", desc, len(got))
		}
	}
	page, next, err := Page(rows, keys, "n", false, "", 10)
	must(t, page, err)
	rest := slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return r == page[9] || r == page[0] })
	after, _, err := Page(append(rest, row{"00000x", 0}), keys, "n", false, next, 1)
	must(t, after, err)
	full, _, err := Page(rows, keys, "n", false, "", 11)
	must(t, full, err)
	if after[0] != full[10] {
		t.Errorf("after changes the next row is %v, want %v", after[0], full[10])
	}
	for _, bad := range []string{"x", "e30", strings.Repeat("A", 4096)} {
		if _, _, err := Page(rows, keys, "n", false, bad, 1); !errors.Is(err, ErrCursor) {
			t.Errorf("cursor %.10q: %v", bad, err)
		}
	}
	if _, _, err := Page(rows, keys, "n", true, next, 1); !errors.Is(err, ErrCursor) {
		t.Errorf("cursor of another order: %v", err)
	}
}

// FuzzCursor: no cursor from the network panics or is taken for another order's.
func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add("eyJpIjoiYSIsInMiOiJuIn0")
	f.Fuzz(func(t *testing.T, cursor string) {
		rows := []string{"a", "b"}
		out, _, err := Page(rows, func(s string) Keys { return Keys{Text: s} }, "n", false, cursor, 10)
		if err == nil && len(out) > len(rows) {
			t.Errorf("%d rows", len(out))
		}
	})
}
