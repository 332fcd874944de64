package local

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
)

// crashRounds is how often each random fate is tried at each operation.
const crashRounds = 8

// everyCrash opens the store as each of many power cuts at this instant would
// leave it.
func everyCrash(t *testing.T, m *blockfs.Mem, check func(s *Store)) {
	t.Helper()
	for _, fate := range []blockfs.Unsynced{blockfs.KeepAll, blockfs.DropAll, blockfs.Tear, blockfs.Reorder} {
		rounds := 1
		if fate == blockfs.Tear || fate == blockfs.Reorder {
			rounds = crashRounds
		}
		for i := range rounds {
			after := m.Crash(blockfs.CrashConfig{Unsynced: fate, Rand: rand.New(rand.NewPCG(uint64(i), 5))})
			s, err := Open(after, Options{})
			if err != nil {
				t.Fatalf("open after a crash: %v", err)
			}
			if left, err := after.List("tmp"); err != nil || len(left) != 0 {
				t.Fatalf("left in tmp: %v, %v", left, err)
			}
			check(s)
			must(t, s.Close())
		}
	}
}

// state tells whether an object is there; it must be whole then.
func state(t *testing.T, s *Store, name string, want []byte) bool {
	t.Helper()
	got, err := s.Get(t.Context(), name, 1<<30)
	if errors.Is(err, backend.ErrNotExist) {
		return false
	}
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes that are not the %d put", name, len(got), len(want))
	}
	return true
}

// L1, L2, L3: at every operation of every call the object is absent or whole;
// after Put returned it is there, after Delete it is gone, and other objects
// stay.
func TestCrashAtEveryOperation(t *testing.T) {
	data, other := backendtest.Data(1, pieceSize+9000), backendtest.Data(2, 5000)
	large := blockfs.AlignedBuffer(directMin + pieceSize + 9000) // bypasses the page cache
	copy(large, backendtest.Data(3, len(large)))
	puts := map[string]func(s *Store, name string) error{
		"Put":         func(s *Store, name string) error { return s.Put(t.Context(), name, data) },
		"PutIfAbsent": func(s *Store, name string) error { return s.PutIfAbsent(t.Context(), name, data) },
	}
	small := data
	for call, put := range puts {
		for _, name := range []string{"o", "new/deep/o", "v/o", "large"} {
			if data = small; name == "large" {
				data = large
			}
			t.Run(fmt.Sprintf("%s %s", call, name), func(t *testing.T) {
				m := blockfs.NewMem()
				s := mustOpen(t, m)
				must(t, s.Put(t.Context(), "v/other", other))
				ops, there := 0, 0
				watch := func(_ int64, op blockfs.OpInfo) {
					ops++
					everyCrash(t, m, func(after *Store) {
						if state(t, after, name, data) {
							there++
						}
						if !state(t, after, "v/other", other) {
							t.Fatalf("crash in %v: the other object is gone", op)
						}
						must(t, put(after, "again")) // the store works
					})
				}
				m.SetHook(watch)
				must(t, put(s, name))
				if ops < 5 || there == 0 {
					t.Fatalf("%d operations, object there in %d outcomes", ops, there)
				}
				m.SetHook(nil)
				everyCrash(t, m, func(after *Store) {
					if !state(t, after, name, data) {
						t.Fatal("lost after the call returned")
					}
				})
				m.SetHook(watch)
				must(t, s.Delete(t.Context(), name))
				m.SetHook(nil)
				everyCrash(t, m, func(after *Store) {
					if state(t, after, name, data) {
						t.Fatal("back after Delete returned")
					}
				})
				must(t, s.Close())
			})
		}
	}
}

// L2: an object that PutIfAbsent reported as present survives, even if the call
// that made it has not returned.
func TestCrashAfterErrExists(t *testing.T) {
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	data := []byte("first")
	met := false
	m.SetHook(func(_ int64, op blockfs.OpInfo) {
		if op.Kind != blockfs.OpLink {
			return
		}
		m.SetHook(nil)
		met = true
		if err := s.PutIfAbsent(t.Context(), "v/o", []byte("second")); !errors.Is(err, backend.ErrExists) {
			t.Errorf("put if absent: %v", err)
		}
		everyCrash(t, m, func(after *Store) {
			if !state(t, after, "v/o", data) {
				t.Error("reported as present, then lost")
			}
		})
	})
	must(t, s.PutIfAbsent(t.Context(), "v/o", data))
	if !met {
		t.Fatal("no link was made")
	}
	must(t, s.Close())
}

// L3: a Delete whose directory vanishes under it, because another one emptied it,
// makes its removal durable all the same.
func TestCrashAfterDeletesOfSiblings(t *testing.T) {
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	must(t, s.Put(t.Context(), "v/a", []byte("a")))
	must(t, s.Put(t.Context(), "v/b", []byte("b")))
	removed, resume, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	started := false
	m.SetHook(func(_ int64, op blockfs.OpInfo) {
		switch {
		case op.Kind == blockfs.OpSyncDir && !started: // of v/b
			started = true
			go func() { done <- s.Delete(t.Context(), "v/a") }()
			<-removed // too late for the sync under way
		case op.Kind == blockfs.OpRemove && op.Path == "objects/v~/a":
			close(removed)
			<-resume
		}
	})
	must(t, s.Delete(t.Context(), "v/b"))
	if _, err := m.Stat("objects/v~"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the directory is still there: %v", err)
	}
	close(resume)
	must(t, <-done)
	m.SetHook(nil)
	everyCrash(t, m, func(after *Store) {
		if state(t, after, "v/a", []byte("a")) || state(t, after, "v/b", []byte("b")) {
			t.Fatal("back after Delete returned")
		}
	})
	must(t, s.Close())
}

// The making of a store survives a crash at every operation.
func TestCrashInOpen(t *testing.T) {
	m := blockfs.NewMem()
	ops := 0
	m.SetHook(func(int64, blockfs.OpInfo) {
		ops++
		everyCrash(t, m, func(after *Store) { must(t, after.Put(t.Context(), "o", nil)) })
	})
	s := mustOpen(t, m)
	if ops < 5 {
		t.Fatalf("%d operations", ops)
	}
	m.SetHook(nil)
	must(t, s.Close())
}
