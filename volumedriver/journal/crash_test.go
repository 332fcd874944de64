package journal

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// crashPool bounds the pool: a chunk more than the script's records take.
const crashPool = 10 * testChunk

// crashed is the disk after a power cut, and what had been promised before it.
type crashed struct {
	fs    *blockfs.Mem
	label string
	acked int64 // newest seq acknowledged before
	begun int64 // newest seq that can be there: the one after that at the end of it
}

// crashBatches are the records of the script, by seq; the first is unused.
var crashBatches = func() []*Batch {
	b := []*Batch{nil}
	for s := range uint64(24) {
		one := oneWrite(s+1, 1+int(s)*7%31)
		if s%4 == 3 {
			one = reserve(&Batch{Time: 1000}, stateBytes(min(len(one.Parts[0])-reservationPrefix, MaxReservation)))
		}
		b = append(b, one)
	}
	return b
}()

// crashScript runs a pool from nothing: creation, appends over several chunks, up to so many
// under way at once, a promise, an idle vDisk beside it, releases.
func crashScript(fsys blockfs.FS, under int, acked *atomic.Int64) error {
	o := poolOptions(fsys)
	o.MaxBytes = crashPool
	p, err := OpenPool(o)
	if err != nil {
		return err
	}
	defer p.Close()
	l := newTestLog(p, diskA, 1, 1, nil)
	for l.NextSeq() <= 24 {
		// The first of them makes room, and the last of them is begun first.
		var built []*Record
		for next := l.NextSeq(); len(built) < under && next <= 24; next = l.NextSeq() {
			b := crashBatches[next]
			if len(built) > 0 && (!l.Fits(recordBytes(b)) || next == 10+1 || next == 19+1) {
				break
			}
			if len(built) == 0 {
				if err := room(l, b); err != nil {
					return err
				}
			}
			built = append(built, new(Record))
			l.Build(b, built[len(built)-1])
		}
		for _, r := range slices.Backward(built) {
			l.Start(r)
		}
		for _, r := range built {
			if _, err := l.Finish(r); err != nil {
				return err
			}
			acked.Store(int64(r.lastSeq))
		}
		switch acked.Load() {
		case 10:
			if _, err := l.Promise(1); err != nil {
				return err
			}
			if _, err := put(newTestLog(p, diskB, 1, 1, nil), oneWrite(1, 1)); err != nil {
				return err
			}
		case 19:
			l.Release(12)
		}
	}
	return nil
}

// TestCrashEverywhere cuts the power in the middle of every operation that changes
// something, with every fate of what was not durable: what was acknowledged is
// there, nothing is wrong, and the pool works on.
func TestCrashEverywhere(t *testing.T) {
	for _, c := range []struct {
		faults bool
		under  int
	}{{false, 1}, {true, 1}, {false, 3}, {true, 3}} {
		if testing.Short() && c.under > 1 != c.faults {
			continue
		}
		t.Run(fmt.Sprintf("faults=%t under=%d", c.faults, c.under), func(t *testing.T) {
			faults, under := c.faults, c.under
			m := blockfs.NewMem()
			fates := []blockfs.Unsynced{blockfs.DropAll, blockfs.Tear, blockfs.Reorder, blockfs.KeepAll}
			if faults {
				fates = fates[:2]
			}
			var acked atomic.Int64
			var mu sync.Mutex
			var cuts []crashed
			m.SetHook(func(n int64, op blockfs.OpInfo) {
				for seed, how := range fates {
					c := crashed{acked: acked.Load(), label: fmt.Sprintf("%v, unsynced %d", op, how)}
					c.fs = m.Crash(blockfs.CrashConfig{Unsynced: how, Rand: rand.New(rand.NewPCG(uint64(n), uint64(seed)))})
					c.begun = acked.Load() + int64(under)
					mu.Lock()
					cuts = append(cuts, c)
					mu.Unlock()
				}
			})
			var writes atomic.Int64
			fsys := blockfs.Inject(m, func(op blockfs.OpInfo) error {
				if faults && op.Kind == blockfs.OpWrite && !strings.Contains(op.Path, poolFile) {
					if n := writes.Add(1); n%13 == 4 {
						return blockfs.Partial(int(n%4)*4096, errInjected)
					}
				}
				return nil
			})
			if err := crashScript(fsys, under, &acked); err != nil {
				t.Fatal(err)
			}
			if acked.Load() != 24 || len(cuts) < 100 {
				t.Fatalf("%d acknowledged, %d cuts", acked.Load(), len(cuts))
			}
			for _, c := range cuts {
				// The head is committed when the 19th record is there.
				from := uint64(1)
				if c.acked >= 19 {
					from = 13
				}
				if err := survives(c, from); err != nil {
					t.Fatalf("%s, %d acknowledged: %v", c.label, c.acked, err)
				}
			}
			t.Logf("%d power cuts", len(cuts))
		})
	}
}

// survives opens what a power cut left, checks it and goes on with it.
func survives(c crashed, from uint64) error {
	o := poolOptions(c.fs)
	o.MaxBytes = crashPool
	p, err := OpenPool(o)
	if err != nil {
		return err
	}
	defer p.Close()
	r, err := Recover(p, diskA, from, anyOf(1))
	if err != nil {
		return err
	}
	last := r.LastSeq
	if int64(last) < c.acked || int64(last) > c.begun {
		return fmt.Errorf("tail ends at %d", last)
	}
	l, err := checkTail(r, 2, from, crashBatches[from:last+1])
	if err != nil {
		return err
	}
	l.Release(last) // the next opening committed it
	if _, err := put(l, oneWrite(last+1, 3)); err != nil {
		return fmt.Errorf("append afterwards: %w", err)
	}
	l.Close()
	p.Close()
	if p, err = OpenPool(o); err != nil {
		return err
	}
	defer p.Close()
	if r, err = Recover(p, diskA, last+1, func(e uint32, first, _ uint64) bool { return e == 2 && first > last }); err != nil {
		return err
	}
	_, err = checkTail(r, 3, last+1, []*Batch{oneWrite(last+1, 3)})
	return err
}
