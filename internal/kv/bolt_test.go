package kv_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/kvtest"
	"github.com/openvstorage/ovgate/internal/leaktest"
	"go.etcd.io/bbolt"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("KV_TEST_CHILD"); path != "" {
		os.Exit(child(path))
	}
	leaktest.Main(m)
}

func open(t *testing.T, path string, c clock.Clock) *kv.Bolt {
	t.Helper()
	s, err := kv.OpenBolt(path, kv.BoltOptions{Clock: c, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	c := clock.NewManual(time.Unix(1_800_000_000, 0))
	paths := map[kv.Store]string{}
	kvtest.Run(t, func(t *testing.T) kv.Store {
		path := filepath.Join(t.TempDir(), "kv.db")
		s := open(t, path, c)
		paths[s] = path
		return s
	}, kvtest.Options{
		Advance: c.Advance,
		Reopen: func(t *testing.T, s kv.Store) kv.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return open(t, paths[s], c)
		},
	})
}

func TestFileMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	open(t, path, nil)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600: the store holds secrets", info.Mode())
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	open(t, path, nil)
	_, err := kv.OpenBolt(path, kv.BoltOptions{Timeout: time.Millisecond})
	if !errors.Is(err, kv.ErrLocked) || !bytes.Contains([]byte(err.Error()), []byte(path)) {
		t.Errorf("second open: %v, want ErrLocked that names %s", err, path)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("not a store "), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer")
	if err := open(t, newer, nil).Close(); err != nil {
		t.Fatal(err)
	}
	setFormat(t, newer, []byte{0, 0, 0, 0, 0, 0, 0, 2})
	foreign := filepath.Join(dir, "foreign")
	setFormat(t, foreign, nil)
	for _, tc := range []struct {
		path string
		want error
	}{
		{garbage, kv.ErrFormat},
		{newer, kv.ErrFormat},
		{foreign, kv.ErrFormat},
		{filepath.Join(dir, "absent", "kv.db"), os.ErrNotExist},
	} {
		s, err := kv.OpenBolt(tc.path, kv.BoltOptions{})
		if !errors.Is(err, tc.want) {
			t.Errorf("open of %s: %v, want %v", tc.path, err, tc.want)
		}
		if s != nil {
			t.Errorf("open of %s returned a store", tc.path)
		}
	}
	// A refused file is as it was, and free: the newer version can open it.
	setFormat(t, newer, []byte{0, 0, 0, 0, 0, 0, 0, 1})
	open(t, newer, nil)
}

// setFormat writes the format number with bbolt itself; nil leaves a meta
// bucket without one.
func setFormat(t *testing.T, path string, format []byte) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("meta"))
		if err != nil || format == nil {
			return err
		}
		return b.Put([]byte("format"), format)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestLeaseRestart: leases live on in the file and count from zero again (K4).
func TestLeaseRestart(t *testing.T) {
	c := clock.NewManual(time.Unix(1_800_000_000, 0))
	path := filepath.Join(t.TempDir(), "kv.db")
	s := open(t, path, c)
	ctx := t.Context()
	id, err := s.Grant(ctx, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Txn(ctx, nil, []kv.Op{{Kind: kv.OpPut, Key: []byte("a"), Lease: id}}, nil); err != nil {
		t.Fatal(err)
	}
	c.Advance(9 * time.Second)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Hour) // the store was down
	s = open(t, path, c)
	e, err := s.Get(ctx, "a")
	if err != nil || e == nil {
		t.Fatalf("key after the restart: %v, %v", e, err)
	}
	c.Advance(9 * time.Second)
	if err := s.KeepAlive(ctx, id); err != nil {
		t.Fatalf("keep alive after the restart: %v", err)
	}
	ch, err := s.Watch(ctx, "a", e.ModRev)
	if err != nil {
		t.Fatal(err)
	}
	c.Advance(11 * time.Second)
	select {
	case b := <-ch:
		if len(b.Events) != 1 || !b.Events[0].Deleted {
			t.Errorf("expiry delivered %+v", b)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the lease did not expire after the restart")
	}
	next, err := s.Grant(ctx, time.Second)
	if err != nil || next <= id {
		t.Errorf("lease %d after %d: %v: ids must never come back", next, id, err)
	}
}

// TestGroupCommit: concurrent transactions share syncs. bbolt counts its
// commits by transaction id, so this needs no clock.
func TestGroupCommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	s, err := kv.OpenBolt(path, kv.BoltOptions{}) // with syncs: they are what makes requests queue
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 32, 10
	revs := make(chan int64, writers*each)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				res, err := s.Txn(context.Background(), nil, []kv.Op{kv.Put(fmt.Sprintf("%d/%d", w, i), nil)}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				revs <- res.Rev
			}
		})
	}
	wg.Wait()
	close(revs)
	seen := map[int64]bool{}
	for rev := range revs {
		if seen[rev] {
			t.Errorf("revision %d was given twice", rev)
		}
		seen[rev] = true
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	commits := 0
	if err := db.View(func(tx *bbolt.Tx) error { commits = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d transactions in %d commits", writers*each, commits)
	if commits >= writers*each/2 {
		t.Errorf("%d transactions took %d commits: they are not grouped", writers*each, commits)
	}
}

// TestKill: a process that is killed while it writes loses nothing it was told
// is durable, and leaves a store that opens (K1).
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kv.db")
	for round := range 3 {
		acked := runChild(t, path, 20)
		s := open(t, path, nil)
		for _, key := range acked {
			if e, err := s.Get(t.Context(), key); err != nil || e == nil {
				t.Fatalf("round %d: acknowledged key %s: %v, %v", round, key, e, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// runChild starts this test binary as a writer, kills it after n
// acknowledgements and returns the acknowledged keys.
func runChild(t *testing.T, path string, n int) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "KV_TEST_CHILD="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acked []string
	for len(acked) < n {
		var key string
		if _, err := fmt.Fscanln(out, &key); err != nil {
			t.Fatalf("child ended after %d acknowledgements: %v", len(acked), err)
		}
		acked = append(acked, key)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("child ended by itself")
	}
	return acked
}

// child writes keys of its own, from a few goroutines, and prints each once it
// is acknowledged, until it is killed.
func child(path string) int {
	s, err := kv.OpenBolt(path, kv.BoltOptions{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d/%d/%d", os.Getpid(), w, i)
				if _, err := s.Txn(context.Background(), nil, []kv.Op{kv.Put(key, nil)}, nil); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				if _, err := fmt.Println(key); err != nil {
					return // the parent is gone
				}
			}
		})
	}
	wg.Wait()
	return 1
}
