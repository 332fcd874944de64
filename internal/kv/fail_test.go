package kv

import (
	"errors"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// failing opens a store whose next commit does what next says, once.
func failing(t *testing.T) (*Bolt, *atomic.Pointer[func(*bolt.Tx) error]) {
	t.Helper()
	s, err := OpenBolt(filepath.Join(t.TempDir(), "kv.db"), BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	next := &atomic.Pointer[func(*bolt.Tx) error]{}
	put(t, s, "before") // the committer has read commitTx's first value by its own lock
	s.failMu.Lock()
	s.commitTx = func(tx *bolt.Tx) error {
		if f := next.Swap(nil); f != nil {
			return (*f)(tx)
		}
		return tx.Commit()
	}
	s.failMu.Unlock()
	return s, next
}

func put(t *testing.T, s *Bolt, key string) int64 {
	t.Helper()
	res, err := s.Txn(t.Context(), nil, []Op{Put(key, nil)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res.Rev
}

// TestDiskFull: the transaction fails, the store goes on, revisions and watches
// stay right, whether or not the transaction took effect after all.
func TestDiskFull(t *testing.T) {
	for name, fail := range map[string]func(*bolt.Tx) error{
		"rolled back": func(tx *bolt.Tx) error { return errors.Join(syscall.ENOSPC, tx.Rollback()) },
		"took effect": func(tx *bolt.Tx) error { return errors.Join(syscall.ENOSPC, tx.Commit()) },
	} {
		t.Run(name, func(t *testing.T) {
			s, next := failing(t)
			rev := put(t, s, "a")
			ch, err := s.Watch(t.Context(), "", rev)
			if err != nil {
				t.Fatal(err)
			}
			next.Store(&fail)
			if _, err := s.Txn(t.Context(), nil, []Op{Put("b", nil)}, nil); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("txn: %v, want ENOSPC", err)
			}
			there, err := s.Get(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			rev = put(t, s, "c")
			b := <-ch
			if there == nil {
				if b.Err != nil || b.Rev != rev || string(b.Events[0].KV.Key) != "c" {
					t.Errorf("watch delivered %+v, want key c at %d", b, rev)
				}
			} else if !errors.Is(b.Err, ErrCompacted) {
				t.Errorf("watch delivered %+v, want ErrCompacted: it missed a change", b)
			}
			if e, err := s.Get(t.Context(), "c"); err != nil || e.ModRev != rev {
				t.Errorf("key c: %+v, %v, want revision %d", e, err, rev)
			}
		})
	}
}

// TestFailedSync: after it nothing is answered any more, neither from what may
// not be on the disk nor as if it were.
func TestFailedSync(t *testing.T) {
	s, next := failing(t)
	rev := put(t, s, "a")
	ch, err := s.Watch(t.Context(), "", rev)
	if err != nil {
		t.Fatal(err)
	}
	fail := func(tx *bolt.Tx) error { return errors.Join(syscall.EIO, tx.Commit()) }
	next.Store(&fail)
	if _, err := s.Txn(t.Context(), nil, []Op{Put("b", nil)}, nil); !errors.Is(err, syscall.EIO) {
		t.Fatalf("txn: %v, want EIO", err)
	}
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, syscall.EIO) {
		t.Errorf("get: %v, want EIO", err)
	}
	if _, err := s.Txn(t.Context(), nil, []Op{Put("c", nil)}, nil); !errors.Is(err, syscall.EIO) {
		t.Errorf("txn after the failure: %v, want EIO", err)
	}
	if b := <-ch; !errors.Is(b.Err, ErrCompacted) {
		t.Errorf("watch delivered %+v, want ErrCompacted", b)
	}
	if _, err := s.Watch(t.Context(), "", rev); !errors.Is(err, syscall.EIO) {
		t.Errorf("watch: %v, want EIO", err)
	}
}
