package faulty

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func store(t *testing.T, chances map[Kind]float64) *Store {
	t.Helper()
	s, err := local.Open(blockfs.NewMem(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := New(s, Options{Chances: chances, Rand: rand.New(rand.NewPCG(1, 2)), Clock: clock.Real{}, Delay: time.Millisecond, Hang: time.Millisecond})
	f.On()
	t.Cleanup(func() { f.Close() })
	return f
}

// TestConformance: without faults it is what is below it, and with answers that are
// only slow, too.
func TestConformance(t *testing.T) {
	for name, chances := range map[string]map[Kind]float64{"none": nil, "slow": {Slow: 1}} {
		t.Run(name, func(t *testing.T) {
			backendtest.Run(t, backendtest.Options{New: func(t *testing.T) backend.Store { return store(t, chances) }})
		})
	}
}

// TestKinds: each kind does what its name says.
func TestKinds(t *testing.T) {
	ctx := context.Background()
	data := backendtest.Data(1, 1000)
	one := func(k Kind) *Store {
		s := store(t, map[Kind]float64{k: 1})
		if err := s.Store.Put(ctx, "a/old", data); err != nil {
			t.Fatal(err)
		}
		return s
	}
	there := func(s *Store, name string, want bool) {
		t.Helper()
		if _, err := s.Store.Stat(ctx, name); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
	fails := func(err error) {
		t.Helper()
		if !errors.Is(err, ErrInjected) {
			t.Errorf("error %v", err)
		}
	}
	for _, k := range []Kind{Refuse, Hang} {
		s := one(k)
		fails(s.Put(ctx, "a/new", data))
		fails(s.Delete(ctx, "a/old"))
		_, err := s.Get(ctx, "a/old", 1<<20)
		fails(err)
		_, err = s.List(ctx, "a/", "", 10)
		fails(err)
		_, err = s.Stat(ctx, "a/old")
		fails(err)
		there(s, "a/new", false)
		there(s, "a/old", true)
		if n := s.Count(k); n != 5 {
			t.Errorf("%s: %d counted", k, n)
		}
	}
	for _, k := range []Kind{LostAnswer, LateEffect} {
		s := one(k)
		fails(s.PutIfAbsent(ctx, "a/new", data))
		fails(s.Delete(ctx, "a/old"))
		s.Off()
		there(s, "a/new", true)
		there(s, "a/old", false)
	}
	for _, k := range []Kind{Truncate, Flip} {
		s := one(k)
		b, err := s.Get(ctx, "a/old", 1<<20)
		if err != nil || bytes.Equal(b, data) {
			t.Errorf("%s: the read is right, %v", k, err)
		}
		p := make([]byte, 500)
		if err := s.ReadAt(ctx, "a/old", p, 500); err != nil || bytes.Equal(p, data[500:]) {
			t.Errorf("%s: the read is right, %v", k, err)
		}
		s.Off()
		if b, err := s.Get(ctx, "a/old", 1<<20); err != nil || !bytes.Equal(b, data) {
			t.Errorf("%s: what is stored is damaged: %v", k, err)
		}
	}
}

// TestStaleList: a list lags, comes from one moment of the past, and is in order.
func TestStaleList(t *testing.T) {
	ctx := context.Background()
	s := store(t, map[Kind]float64{StaleList: 1})
	for _, name := range []string{"a/1", "a/2", "a/3"} {
		if err := s.Put(ctx, name, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(ctx, "a/2"); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"1 2 3": true, "1 2": true, "1": true, "": true}
	for range 100 {
		infos, err := s.List(ctx, "a/", "", 10)
		if err != nil {
			t.Fatal(err)
		}
		var have string
		for i, o := range infos {
			if i > 0 {
				have += " "
			}
			have += o.Name[2:]
		}
		if !want[have] {
			t.Fatalf("list %q is of no moment of the past", have)
		}
	}
	if s.Features().ConsistentList {
		t.Error("the store says that its lists are consistent")
	}
}
