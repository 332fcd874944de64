package journal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// TestPromise: written once per newest record, and always possible (E3).
func TestPromise(t *testing.T) {
	m := blockfs.NewMem()
	l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
	check := func(step string, want, unpromised bool) {
		t.Helper()
		if u := l.Unpromised(); u != want {
			t.Fatalf("%s: unpromised %t", step, u)
		}
		if wrote, err := l.Promise(1); wrote != want || err != nil {
			t.Fatalf("%s: wrote %t, %v", step, wrote, err)
		}
		if u := l.Unpromised(); u != unpromised {
			t.Fatalf("%s: unpromised %t afterwards", step, u)
		}
	}
	check("new log", false, false)
	puts(t, l, 1, 1)
	check("after a record", true, false)
	check("again", false, false)
	// However full the chunk is, there is room for the promise.
	n := 0
	for l.Fits(RecordBytes(1, 1, testCluster)) {
		puts(t, l, 1, 1)
		n++
	}
	for l.Fits(RecordBytes(1, 0, testCluster)) {
		mustPut(t, l, batchOf(write{cluster: 1, n: 1, kind: KindTrim}))
		n++
	}
	if len(l.chunks) != 1 || n < 10 {
		t.Fatalf("%d chunks, %d records", len(l.chunks), n)
	}
	check("full chunk", true, false)
	puts(t, l, 1, 1)
	l.Seal()
	check("sealed", false, false)
}

// TestReleaseLifetime: a chunk goes back when all in it is committed and no reader
// holds it (J5).
func TestReleaseLifetime(t *testing.T) {
	m := blockfs.NewMem()
	p := mustOpen(t, poolOptions(m))
	l := newTestLog(p, diskA, 1, 1, nil)
	at := puts(t, l, 40, 16)
	last := map[uint32]uint64{}
	for _, a := range at {
		last[a.Chunk] = a.Seq
	}
	p.grow.Wait()
	free, chunks, bytes := p.Usage().Free, len(last), l.Bytes()
	if bytes != int64(chunks)*testChunk {
		t.Fatalf("log holds %d bytes in %d chunks", bytes, chunks)
	}
	l.Release(last[0] - 1)
	if l.Bytes() != bytes {
		t.Fatal("released above the committed seq")
	}
	pinned := l.Pin(0)
	l.Release(last[0])
	if l.Bytes() != bytes-testChunk || p.Usage().Free != free {
		t.Fatalf("%d bytes, %d free while a reader holds it", l.Bytes(), p.Usage().Free)
	}
	buf := blockfs.AlignedBuffer(16 * testCluster)
	if fromDisk, err := pinned.ReadAt(buf, at[0].Off); err != nil || !fromDisk {
		t.Fatalf("pinned chunk: from disk %t, %v", fromDisk, err)
	}
	pinned.Unpin()
	if got := p.Usage().Free; got != free+1 {
		t.Fatalf("%d free after the reader left, want %d", got, free+1)
	}
	l.Release(1 << 60)
	if l.Bytes() != testChunk {
		t.Fatalf("%d bytes: the current chunk stays", l.Bytes())
	}
	l.Seal()
	l.Release(1 << 60)
	if u := p.Usage(); l.Bytes() != 0 || u.Free != free+chunks || l.mem.used.Load() != 0 {
		t.Fatalf("%d bytes, %+v, %d of memory", l.Bytes(), u, l.mem.used.Load())
	}
}

// TestMemory: the budget is kept, counted by what is really allocated, and what it
// does not hold comes from the file.
func TestMemory(t *testing.T) {
	for _, budget := range []int64{0, 1 << 20, 3 << 20, 64 << 20} {
		for _, clusters := range []int{1, 40, 150} {
			t.Run(fmt.Sprintf("%d/%d", budget, clusters), func(t *testing.T) {
				o := poolOptions(blockfs.NewMem())
				o.ChunkBytes, o.MaxBytes = 4<<20, 64<<20
				p := mustOpen(t, o)
				mem := &Memory{Max: budget}
				l := NewLog(LogOptions{Pool: p, VDisk: diskA, Epoch: 1, Cluster: testCluster, NextSeq: 1, Memory: mem}, nil)
				var at []Placed
				for range 6000 / (clusters + 100) {
					at = append(at, mustPut(t, l, oneWrite(l.NextSeq(), clusters)))
					held := int64(0)
					for _, c := range l.chunks {
						for _, s := range c.segs {
							held += int64(cap(s.buf))
						}
					}
					if held != mem.used.Load() || held > max(budget, 0)+segmentBytes {
						t.Fatalf("%d bytes held, %d counted, budget %d", held, mem.used.Load(), budget)
					}
				}
				disk := 0
				for i, a := range at {
					b := oneWrite(uint64(i+1), clusters)
					if err := readBack(l, a.Chunk, a.Off, b); err != nil {
						t.Fatalf("record %d: %v", i, err)
					}
					c := l.Pin(a.Chunk)
					if !c.InMemory(a.Off, testCluster) {
						disk++
					}
					c.Unpin()
				}
				if budget <= 1<<20 && clusters > 1 && disk == 0 {
					t.Fatal("nothing came from the file")
				}
				if budget == 64<<20 && disk != 0 {
					t.Fatalf("%d records came from the file", disk)
				}
				l.Close()
				if got := mem.used.Load(); got != 0 {
					t.Fatalf("%d bytes still counted", got)
				}
			})
		}
	}
}

// TestAppendErrors: after a failed append the record is elsewhere, everything can
// still be read, and a restart finds it all, also when the bad files come back (J4, E4).
func TestAppendErrors(t *testing.T) {
	type fault struct {
		write int64 // n-th write of the pool, from 1; the opener is the first
		pass  int   // bytes that reach the disk; -1: none
	}
	const size, records = 3, 12
	for _, c := range []struct {
		name   string
		faults []fault
	}{
		{"first opener", []fault{{1, -1}}},
		{"two openers", []fault{{1, -1}, {2, 4096}}},
		{"first record", []fault{{2, -1}}},
		{"a record, nothing written", []fault{{5, -1}}},
		{"a record, header written", []fault{{5, 4096}}},
		{"a record, all but a block", []fault{{5, 3 * 4096}}},
		{"a record, all of it", []fault{{5, 1 << 20}}},
		{"then the opener of the copy", []fault{{5, 4096}, {6, 4096}}},
		{"then the copy", []fault{{5, 4096}, {8, -1}}},
		{"then the record on the copy", []fault{{5, 4096}, {10, -1}}},
		{"three files in a row", []fault{{5, -1}, {10, 8192}, {15, -1}}},
		{"now and then", []fault{{4, -1}, {9, 4096}, {16, -1}, {27, 1 << 20}}},
	} {
		for _, come := range []string{"removed", "come back"} {
			for _, v := range []struct {
				memory int64
				under  int // records written at once
			}{{0, 1}, {0, 2}, {0, 4}, {8 << 20, 1}, {8 << 20, 2}, {8 << 20, 4}} {
				memory := v.memory
				t.Run(fmt.Sprintf("%s/%s/%d/%d", c.name, come, memory, v.under), func(t *testing.T) {
					m := blockfs.NewMem()
					var writes atomic.Int64
					o := poolOptions(blockfs.Inject(m, func(op blockfs.OpInfo) error {
						if strings.Contains(op.Path, poolFile) {
							return nil
						}
						if op.Kind == blockfs.OpRemove && come == "come back" {
							return syscall.EIO
						}
						if op.Kind == blockfs.OpWrite {
							n := writes.Add(1)
							for _, f := range c.faults {
								if f.write == n {
									return blockfs.Partial(f.pass, errInjected)
								}
							}
						}
						return nil
					}))
					p := mustOpen(t, o)
					l := NewLog(LogOptions{Pool: p, VDisk: diskA, Epoch: 1, Cluster: testCluster, NextSeq: 1, Memory: &Memory{Max: memory}}, nil)
					var at []Placed
					var built []*Record
					write := func() { // the newest first
						for _, r := range slices.Backward(built) {
							l.Start(r)
						}
						for _, r := range built {
							p, err := l.Finish(r)
							if err != nil {
								t.Fatal(err)
							}
							at = append(at, p)
						}
						built = built[:0]
					}
					for k := range records {
						b := oneWrite(l.NextSeq(), size)
						if n := recordBytes(b); v.under > 1 && k > 0 && l.Fits(n) {
							built = append(built, new(Record))
							l.Build(b, built[len(built)-1])
							if len(built) == v.under {
								write()
							}
						} else {
							write()
							at = append(at, mustPut(t, l, b))
						}
						if memory == 0 { // what is copied comes from the file
							l.mu.Lock()
							for _, k := range l.chunks {
								k.segs = nil
							}
							l.mu.Unlock()
						}
					}
					write()
					if n := writes.Load(); n < c.faults[len(c.faults)-1].write {
						t.Fatalf("only %d writes", n)
					}
					for i, a := range at {
						if err := readBack(l, a.Chunk, a.Off, oneWrite(uint64(i+1), size)); err != nil {
							t.Fatalf("record %d: %v", i+1, err)
						}
					}
					p.grow.Wait()
					_, p = reopened(t, m, poolOptions(m))
					r, err := Recover(p, diskA, 1, anyOf(1))
					if err != nil {
						t.Fatal(err)
					}
					if come == "come back" && len(r.chunks) < 2 && c.faults[len(c.faults)-1].write > 2 {
						t.Fatal("no second copy: the test tests nothing")
					}
					if _, err := checkTail(r, 2, 1, oneWrites(1, records, size)); err != nil {
						t.Fatal(err)
					}
				})
			}
		}
	}
}

// TestDeadDisk: when no chunk takes a write the log fails for good, and what it
// acknowledged is still there.
func TestDeadDisk(t *testing.T) {
	m := blockfs.NewMem()
	var dead atomic.Bool
	p := mustOpen(t, poolOptions(blockfs.Inject(m, func(op blockfs.OpInfo) error {
		if dead.Load() && op.Kind == blockfs.OpWrite {
			return syscall.EIO
		}
		return nil
	})))
	l := newTestLog(p, diskA, 1, 1, nil)
	at := puts(t, l, 5, 2)
	dead.Store(true)
	if _, err := put(l, oneWrite(6, 2)); !errors.Is(err, ErrFailed) {
		t.Fatalf("append on a dead disk: %v", err)
	}
	l.Seal()
	if err := l.AddChunk(); !errors.Is(err, ErrFailed) {
		t.Fatalf("the log goes on: %v", err)
	}
	for i, a := range at {
		if err := readBack(l, a.Chunk, a.Off, oneWrite(uint64(i+1), 2)); err != nil {
			t.Fatal(err)
		}
	}
	p.grow.Wait()
	_, p = reopened(t, m, poolOptions(m))
	r, err := Recover(p, diskA, 1, anyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkTail(r, 2, 1, oneWrites(1, 5, 2)); err != nil {
		t.Fatal(err)
	}
}

// TestMoveWaitsForCreation: an append that fails while the only chunk to move to
// is being made waits for it, rather than to end the vDisk.
func TestMoveWaitsForCreation(t *testing.T) {
	for _, creation := range []error{nil, syscall.ENOSPC} {
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			var failWrite, made atomic.Int32
			p := mustOpen(t, poolOptions(blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
				switch {
				case op.Kind == blockfs.OpPreallocate && made.Add(1) > 1:
					<-gate
					return creation
				case op.Kind == blockfs.OpWrite && failWrite.CompareAndSwap(1, 0):
					return errInjected
				}
				return nil
			})))
			l := newTestLog(p, diskA, 1, 1, nil)
			puts(t, l, 2, 1)
			p.mu.Lock()
			p.growLocked()
			p.mu.Unlock()
			synctest.Wait()
			failWrite.Store(1)
			done := make(chan error, 1)
			go func() { _, err := put(l, oneWrite(3, 1)); done <- err }()
			synctest.Wait()
			select {
			case err := <-done:
				close(gate) // or the creation waits for ever
				t.Fatalf("did not wait: %v", err)
			default:
			}
			close(gate)
			err := <-done
			if creation == nil && err != nil || creation != nil && !errors.Is(err, ErrFailed) {
				t.Fatalf("creation %v, append %v", creation, err)
			}
			synctest.Wait()
		})
	}
}

// TestConcurrentReaders: readers see every record that was appended, during
// appends, moves, shedding and releases.
func TestConcurrentReaders(t *testing.T) {
	m := blockfs.NewMem()
	var writes atomic.Int64
	o := poolOptions(blockfs.Inject(m, func(op blockfs.OpInfo) error {
		if op.Kind == blockfs.OpWrite && !strings.Contains(op.Path, poolFile) && writes.Add(1)%23 == 7 {
			return blockfs.Partial(4096, errInjected)
		}
		return nil
	}))
	o.ChunkBytes, o.MaxBytes = 1<<20, 32<<20
	p := mustOpen(t, o)
	l := NewLog(LogOptions{Pool: p, VDisk: diskA, Epoch: 1, Cluster: testCluster, NextSeq: 1, Memory: &Memory{Max: 1 << 20}}, nil)
	const size, records, readers, window = 20, 120, 4, 30
	var mu sync.Mutex
	var placed []Placed
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for g := range readers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := g; ; i = i*31 + 7 {
				select {
				case <-stop:
					return
				default:
				}
				mu.Lock()
				n := len(placed)
				if n == 0 {
					mu.Unlock()
					continue
				}
				k := max(0, n-window) + int(uint(i)%uint(min(n, window)))
				at := placed[k]
				c := l.Pin(at.Chunk) // before the release, under the lock
				mu.Unlock()
				buf := blockfs.AlignedBuffer(size * testCluster)
				_, err := c.ReadAt(buf, at.Off)
				c.Unpin()
				if want := block(uint64(k+1)*1000+uint64(size-1), k+1); err != nil || string(buf[(size-1)*testCluster:]) != string(want) {
					t.Errorf("record %d: wrong content, %v", k+1, err)
					return
				}
			}
		}()
	}
	for range records {
		a := mustPut(t, l, oneWrite(l.NextSeq(), size))
		mu.Lock()
		placed = append(placed, a)
		if n := uint64(len(placed)); n > 2*window {
			l.Release(n - 2*window)
		}
		mu.Unlock()
	}
	close(stop)
	wg.Wait()
}

// TestCloseKeepsTail: a closed log's chunks are the next opening's tail, in the
// same process.
func TestCloseKeepsTail(t *testing.T) {
	p := mustOpen(t, poolOptions(blockfs.NewMem()))
	l := newTestLog(p, diskA, 1, 1, nil)
	puts(t, l, 20, 16)
	l.Close()
	r, err := Recover(p, diskA, 1, anyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkTail(r, 2, 1, oneWrites(1, 20, 16)); err != nil {
		t.Fatal(err)
	}
}

// TestReleaseBesideAppends: appends that drop memory above the budget and releases
// never wait for each other.
func TestReleaseBesideAppends(t *testing.T) {
	o := poolOptions(blockfs.NewMem())
	o.ChunkBytes, o.MaxBytes = 1<<20, 32<<20
	p := mustOpen(t, o)
	l := NewLog(LogOptions{Pool: p, VDisk: diskA, Epoch: 1, Cluster: testCluster, NextSeq: 1, Memory: &Memory{Max: 1}}, nil)
	var appended atomic.Uint64
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				l.Release(appended.Load())
			}
		}
	}()
	for range 20000 {
		mustPut(t, l, oneWrite(l.NextSeq(), 1))
		appended.Store(l.NextSeq() - 1)
	}
	close(stop)
	<-ended
}
