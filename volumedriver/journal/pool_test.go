package journal

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

func TestPoolOptionsRefused(t *testing.T) {
	for _, c := range []struct {
		name       string
		chunk, max int64
	}{
		{"chunk too small", MinChunkBytes - 4096, 1 << 30},
		{"chunk not aligned", MinChunkBytes + 512, 1 << 30},
		{"pool below one chunk", MinChunkBytes, MinChunkBytes - 1},
	} {
		o := poolOptions(blockfs.NewMem())
		o.ChunkBytes, o.MaxBytes = c.chunk, c.max
		if _, err := OpenPool(o); err == nil {
			t.Errorf("%s: accepted", c.name)
		}
	}
}

// TestPoolIdentity: drawn once, kept, and never guessed when it cannot be read.
func TestPoolIdentity(t *testing.T) {
	m := blockfs.NewMem()
	o := poolOptions(m)
	first := mustOpen(t, o).ID()
	o.Rand = newTestRand(9)
	if id := mustOpen(t, o).ID(); id != first || len(id) != 32 {
		t.Fatalf("id %q, then %q", first, id)
	}
	for content, want := range map[string]string{
		"":                                   "damaged",
		"{":                                  "damaged",
		`{"format":1}`:                       "damaged",
		`{"format":4,"id":"x"}`:              "upgrade",
		`{"format":2,"id":"x"}`:              "",
		`{"format":3,"id":"x"}`:              "",
		strings.Repeat(" ", maxPoolFile+1):   "more than",
		`{"format":1,"id":"x","later":true}`: "",
	} {
		if err := blockfs.WriteFile(m, testDir+"/"+poolFile, []byte(content)); err != nil {
			t.Fatal(err)
		}
		p, err := OpenPool(o)
		if err == nil {
			p.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: opened with %v, want %q", content, err, want)
		}
	}
}

// TestPoolFairness: the last chunk is kept for a vDisk that has none.
func TestPoolFairness(t *testing.T) {
	o := poolOptions(blockfs.NewMem())
	o.MaxBytes = 4 * testChunk
	p := mustOpen(t, o)
	busy := newTestLog(p, diskA, 1, 1, nil)
	n := 0
	for {
		p.grow.Wait()
		if err := busy.AddChunk(); errors.Is(err, ErrNoChunk) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3 {
		t.Fatalf("a busy vDisk got %d of 4 chunks", n)
	}
	idle := newTestLog(p, diskB, 1, 1, nil)
	if err := idle.AddChunk(); err != nil {
		t.Fatalf("an idle vDisk is starved: %v", err)
	}
	if u := p.Usage(); u.Bytes != u.MaxBytes || u.Free != 0 {
		t.Fatalf("%+v", u)
	}
	// What is released goes round.
	released := p.Released()
	puts(t, idle, 1, 1)
	idle.Seal()
	idle.Release(1)
	select {
	case <-released:
	default:
		t.Fatal("waiters were not told")
	}
	if err := newTestLog(p, diskB, 1, 2, nil).AddChunk(); err != nil {
		t.Fatal(err)
	}
}

// TestPoolNoSpace: a full disk is no failure of the log, leaves no file behind and
// is over as soon as there is room.
func TestPoolNoSpace(t *testing.T) {
	m := blockfs.NewMem()
	p := mustOpen(t, poolOptions(m))
	m.SetCapacity(testChunk / 2)
	l := newTestLog(p, diskA, 1, 1, nil)
	for range 3 {
		if err := l.AddChunk(); !errors.Is(err, ErrNoChunk) {
			t.Fatalf("AddChunk: %v", err)
		}
	}
	if err := p.GrowError(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("GrowError: %v", err)
	}
	if got := files(t, m); !slices.Equal(got, []string{poolFile}) {
		t.Fatalf("left behind: %v", got)
	}
	m.SetCapacity(64 << 20)
	puts(t, l, 1, 1)
	p.grow.Wait()
	if err := p.GrowError(); err != nil {
		t.Fatalf("GrowError after success: %v", err)
	}
}

// TestPoolCreateErrors: whatever operation of a creation fails, the pool counts
// what is on the disk.
func TestPoolCreateErrors(t *testing.T) {
	for _, kind := range []blockfs.Kind{blockfs.OpOpen, blockfs.OpPreallocate, blockfs.OpRename, blockfs.OpSyncDir} {
		t.Run(kind.String(), func(t *testing.T) {
			m := blockfs.NewMem()
			var fail atomic.Bool
			p := mustOpen(t, poolOptions(blockfs.Inject(m, func(op blockfs.OpInfo) error {
				if fail.Load() && op.Kind == kind {
					return syscall.EIO
				}
				return nil
			})))
			fail.Store(true)
			for range 3 {
				if err := newTestLog(p, diskA, 1, 1, nil).AddChunk(); !errors.Is(err, ErrNoChunk) {
					t.Fatal(err)
				}
			}
			fail.Store(false)
			if got := files(t, m); !slices.Equal(got, []string{poolFile}) || p.Usage().Bytes != 0 {
				t.Fatalf("%d bytes counted, on the disk: %v", p.Usage().Bytes, got)
			}
			// A creation that succeeds clears the error: nothing is wrong any more.
			p.o.MaxBytes = testChunk
			if err := newTestLog(p, diskA, 1, 1, nil).AddChunk(); err != nil {
				t.Fatal(err)
			}
			if err := p.GrowError(); err != nil {
				t.Fatalf("GrowError after success: %v", err)
			}
		})
	}
}

// TestPoolCreationInFlight: who finds no chunk because another taker's is being
// made is told when it is, and may then try itself.
func TestPoolCreationInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		p := mustOpen(t, poolOptions(blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
			if op.Kind == blockfs.OpPreallocate {
				<-gate
			}
			return nil
		})))
		first := make(chan error, 1)
		go func() { first <- newTestLog(p, diskA, 1, 1, nil).AddChunk() }()
		synctest.Wait()
		released := p.Released()
		second := newTestLog(p, diskB, 1, 1, nil)
		if err := second.AddChunk(); !errors.Is(err, ErrNoChunk) {
			t.Fatal(err)
		}
		close(gate)
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case <-released:
		default:
			t.Fatal("the second taker waits for nothing, with an empty pool before it")
		}
		if err := second.AddChunk(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestErase: nothing of a vDisk is found any more, used and free chunks alike, and
// an erasure that failed half-way can be repeated.
func TestErase(t *testing.T) {
	for failAt := range 4 {
		t.Run(fmt.Sprint(failAt), func(t *testing.T) {
			m := blockfs.NewMem()
			l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
			puts(t, l, 40, 16)
			writes := 0
			fail := func(blockfs.OpInfo) error {
				if writes++; writes == failAt {
					return syscall.EIO
				}
				return nil
			}
			after := m.Crash(blockfs.CrashConfig{})
			p := mustOpen(t, poolOptions(blockfs.Inject(after, func(op blockfs.OpInfo) error {
				if op.Kind == blockfs.OpWrite {
					return fail(op)
				}
				return nil
			})))
			held := p.Usage().Held
			if held < 3 {
				t.Fatalf("%d chunks held", held)
			}
			if err := p.Erase(diskA); (err != nil) != (failAt > 0) {
				t.Fatalf("erase with failure %d: %v", failAt, err)
			}
			if err := p.Erase(diskA); err != nil {
				t.Fatal(err)
			}
			if u := p.Usage(); u.Held != 0 || u.Free < held {
				t.Fatalf("%+v after the erasure of %d chunks", u, held)
			}
			_, p = reopened(t, after, poolOptions(after))
			r, err := Recover(p, diskA, 1, anyOf(1))
			if err != nil || len(r.chunks) != 0 {
				t.Fatalf("still there: %+v, %v", r, err)
			}
		})
	}
	t.Run("free chunks", func(t *testing.T) {
		m := blockfs.NewMem()
		p := mustOpen(t, poolOptions(m))
		l := newTestLog(p, diskA, 1, 1, nil)
		puts(t, l, 3, 1)
		l.Seal()
		l.Release(3)
		if err := p.Erase(diskA); err != nil {
			t.Fatal(err)
		}
		_, p = reopened(t, m, poolOptions(m))
		if u := p.Usage(); u.Held != 0 {
			t.Fatalf("%+v", u)
		}
	})
}

// TestOtherChunkSize: after a change of the chunk size, new logs get chunks of the
// new size only, and old tails are still read.
func TestOtherChunkSize(t *testing.T) {
	for _, size := range []int64{2 * testChunk, 4 * testChunk} {
		m := blockfs.NewMem()
		o := poolOptions(m)
		l := newTestLog(mustOpen(t, o), diskA, 1, 1, nil)
		puts(t, l, 20, 16)
		l.pool.mu.Lock()
		l.pool.growLocked() // there is a free chunk of the old size, too
		l.pool.mu.Unlock()
		l.pool.grow.Wait()
		o.ChunkBytes, o.MaxBytes = size, 16*size
		m, p := reopened(t, m, o)
		r, err := Recover(p, diskA, 1, anyOf(1))
		if err != nil {
			t.Fatal(err)
		}
		l, err = checkTail(r, 2, 1, oneWrites(1, 20, 16))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := l.AddChunk(); err != nil {
				t.Fatal(err)
			}
			if !l.Fits(size - 16<<10) {
				t.Fatalf("a new chunk does not hold %d bytes", size-16<<10)
			}
			p.grow.Wait()
		}
		mustPut(t, l, oneWrite(21, 32))
		l.Release(20)
		var onDisk int64
		list, err := m.List(testDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if strings.HasPrefix(e.Name, chunkName) {
				onDisk += e.Size
				if e.Size != size {
					t.Errorf("%s has %d bytes", e.Name, e.Size)
				}
			}
		}
		if u := p.Usage(); u.Bytes != onDisk {
			t.Errorf("%d bytes counted, %d on the disk", u.Bytes, onDisk)
		}
	}
}

// TestPoolOpenCleansUp: what a crash in a creation left is removed, what is not
// the pool's is left alone.
func TestPoolOpenCleansUp(t *testing.T) {
	m := blockfs.NewMem()
	p := mustOpen(t, poolOptions(m))
	puts(t, newTestLog(p, diskA, 1, 1, nil), 1, 1)
	p.Close()
	for _, n := range []string{newName + "00000007", "notes.txt"} {
		if err := blockfs.WriteFile(m, testDir+"/"+n, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	mustOpen(t, poolOptions(m))
	if got := files(t, m); slices.Contains(got, newName+"00000007") || !slices.Contains(got, "notes.txt") {
		t.Fatalf("%v", got)
	}
}

func TestClosedPool(t *testing.T) {
	p := mustOpen(t, poolOptions(blockfs.NewMem()))
	l := newTestLog(p, diskA, 1, 1, nil)
	p.Close()
	if err := l.AddChunk(); err == nil || errors.Is(err, ErrNoChunk) || errors.Is(err, os.ErrNotExist) {
		t.Fatalf("AddChunk of a closed pool: %v", err)
	}
}
