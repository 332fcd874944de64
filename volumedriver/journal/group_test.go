package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

var diskC = [16]byte{0xc0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}

// groupOptions are those of a pool that groups every small append.
func groupOptions(fsys blockfs.FS) PoolOptions {
	o := poolOptions(fsys)
	o.MaxBytes = 64 * testChunk
	o.Group = GroupOptions{Bytes: MinGroupBytes, From: 1}
	return o
}

// grouping waits until appends to a pool are grouped.
func grouping(p *Pool) {
	for !tryGroup(p) {
	}
}

// appendTogether appends a batch to each log, at the same time.
func appendTogether(logs []*Log, batches []*Batch, done func(i int)) error {
	records := make([]Record, len(logs))
	for i, l := range logs {
		if err := room(l, batches[i]); err != nil {
			return err
		}
		l.Build(batches[i], &records[i])
	}
	var wg sync.WaitGroup
	for i, l := range logs {
		wg.Go(func() { l.Start(&records[i]) })
	}
	wg.Wait()
	for i, l := range logs {
		if _, err := l.Finish(&records[i]); err != nil {
			return err
		}
		done(i)
	}
	return nil
}

// groupBatch is the n-th record of a disk of the script: most are grouped, some are too large.
func groupBatch(seq uint64) *Batch {
	size := 1 + int(seq)%3
	if seq%11 == 7 {
		size = groupRecord/testCluster + 2
	}
	return oneWrite(seq, size)
}

const groupRounds = 120

// groupScript appends to three disks at once until the files of the group log were used some
// times over. Disk A releases what it has from time to time, and B is closed and opened.
func groupScript(fsys blockfs.FS, acked *[3]atomic.Int64, released *atomic.Int64) error {
	p, err := OpenPool(groupOptions(fsys))
	if err != nil {
		return err
	}
	defer p.Close()
	grouping(p)
	var logs []*Log
	for _, d := range [][16]byte{diskA, diskB, diskC} {
		l := newTestLog(p, d, 1, 1, nil)
		l.mem = &Memory{Max: 300 << 10}
		logs = append(logs, l)
	}
rounds:
	for n := range groupRounds {
		var batches []*Batch
		for _, l := range logs {
			batches = append(batches, groupBatch(l.NextSeq()))
		}
		if err := appendTogether(logs, batches, func(i int) { acked[i].Add(1) }); err != nil {
			return err
		}
		switch {
		case n%25 == 24:
			released.Store(int64(n - 5))
			logs[0].Release(uint64(n - 5))
		case n == 60:
			logs[1].Close()
			r, err := Recover(p, diskB, 1, anyOf(1))
			if errors.Is(err, errHole) { // a fault: it is mended when the pool is opened anew
				break rounds
			}
			if err != nil {
				return err
			}
			if r.LastSeq != uint64(n+1) {
				return fmt.Errorf("closed and recovered up to %d, of %d", r.LastSeq, n+1)
			}
			logs[1] = newTestLog(p, diskB, 1, r.LastSeq+1, r)
		}
	}
	if p.group.frames.Load() == 0 {
		return errors.New("nothing was grouped")
	}
	for _, l := range logs {
		for _, c := range l.chunks {
			if err := chunkWhole(c); err != nil {
				return err
			}
		}
		l.Close()
	}
	if err := p.Close(); !errors.Is(err, errHole) {
		return err
	}
	p, err = OpenPool(groupOptions(fsys)) // what a fault left out is mended
	if err != nil {
		return err
	}
	return p.Close()
}

// chunkWhole tells whether all that a chunk's file lacks is in memory.
func chunkWhole(c *Chunk) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.settled < c.end && (len(c.segs) == 0 || c.segs[0].off > c.settled) {
		return fmt.Errorf("chunk %s has %d bytes of %d, and memory does not have the rest", c.file.name, c.settled, c.end)
	}
	return nil
}

// TestGroupCrash cuts the power at operations of appends that are grouped: what was
// acknowledged is there, on every disk, and nothing is wrong (J6).
func TestGroupCrash(t *testing.T) {
	for _, faults := range []bool{false, true} {
		t.Run(fmt.Sprintf("faults=%t", faults), func(t *testing.T) {
			m := blockfs.NewMem()
			var acked [3]atomic.Int64
			var released atomic.Int64
			type cut struct {
				fs       *blockfs.Mem
				label    string
				acked    [3]int64
				begun    [3]int64
				released int64
			}
			var mu sync.Mutex
			var cuts []cut
			rng := rand.New(rand.NewPCG(1, 2))
			every := 6
			if testing.Short() {
				every = 40
			}
			m.SetHook(func(n int64, op blockfs.OpInfo) {
				mu.Lock()
				defer mu.Unlock()
				// Of writes some, of all else every one.
				if rng.IntN(every) > 0 && op.Kind == blockfs.OpWrite && !strings.Contains(op.Path, poolFile) {
					return
				}
				c := cut{label: fmt.Sprintf("%d: %v", n, op), released: released.Load()}
				for i := range acked {
					c.acked[i] = acked[i].Load()
					c.begun[i] = c.acked[i] + 1
				}
				how := []blockfs.Unsynced{blockfs.DropAll, blockfs.Tear, blockfs.Reorder, blockfs.KeepAll}[n%4]
				c.fs = m.Crash(blockfs.CrashConfig{Unsynced: how, Rand: rand.New(rand.NewPCG(uint64(n), 1))})
				cuts = append(cuts, c)
			})
			var writes atomic.Int64
			fsys := blockfs.Inject(m, func(op blockfs.OpInfo) error {
				if !faults || op.Kind != blockfs.OpWrite || strings.Contains(op.Path, poolFile) {
					return nil
				}
				n := writes.Add(1)
				// Chunks refuse writes now and then, and the group log does at last.
				if n > 100 && n%61 == 0 || strings.Contains(op.Path, groupName) && acked[0].Load() == groupRounds-20 {
					return blockfs.Partial(int(n%4)*4096, errInjected)
				}
				return nil
			})
			if err := groupScript(fsys, &acked, &released); err != nil {
				t.Fatal(err)
			}
			m.SetHook(nil)
			t.Logf("%d power cuts", len(cuts))
			for _, c := range cuts {
				if err := func() error {
					o := groupOptions(c.fs)
					p, err := OpenPool(o)
					if err != nil {
						return err
					}
					defer p.Close()
					if slices.ContainsFunc(files(t, c.fs), isGroup) || p.says.Format != poolFormat {
						return errors.New("files of the group log are left")
					}
					for i, d := range [][16]byte{diskA, diskB, diskC} {
						from := uint64(1)
						if i == 0 {
							from = uint64(c.released) + 1
						}
						r, err := Recover(p, d, from, anyOf(1))
						if err != nil {
							return fmt.Errorf("disk %d from %d: %w", i, from, err)
						}
						if int64(r.LastSeq) < c.acked[i] || int64(r.LastSeq) > c.begun[i] {
							return fmt.Errorf("disk %d: tail ends at %d, acknowledged %d", i, r.LastSeq, c.acked[i])
						}
						var want []*Batch
						for s := from; s <= r.LastSeq; s++ {
							want = append(want, groupBatch(s))
						}
						l, err := checkTail(r, 2, from, want)
						if err != nil {
							return fmt.Errorf("disk %d: %w", i, err)
						}
						l.Close()
					}
					return nil
				}(); err != nil {
					t.Fatalf("%s: %v", c.label, err)
				}
			}
		})
	}
}

// TestGroupClose: what was grouped is in the chunks after a close, and a program that does not
// know of groups may open the pool then, and not before.
func TestGroupClose(t *testing.T) {
	m := blockfs.NewMem()
	o := groupOptions(m)
	p := mustOpen(t, o)
	grouping(p)
	if p.says.Format != groupFormat {
		t.Errorf("format %d with a group log", p.says.Format)
	}
	l := newTestLog(p, diskA, 1, 1, nil)
	puts(t, l, 40, 1)
	if n := p.group.records.Load(); n != 40 {
		t.Errorf("%d records grouped", n)
	}
	l.Close()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(files(t, m), isGroup) {
		t.Errorf("left: %v", files(t, m))
	}
	p = mustOpen(t, poolOptions(m))
	if p.says.Format != poolFormat {
		t.Errorf("format %d after a close", p.says.Format)
	}
	r, err := Recover(p, diskA, 1, anyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkTail(r, 2, 1, oneWrites(1, 40, 1)); err != nil {
		t.Error(err)
	}
}

// TestGroupHole: a chunk that refuses what it lacks is not read by the next opening of its
// vDisk; the next opening of the pool has it whole.
func TestGroupHole(t *testing.T) {
	m := blockfs.NewMem()
	var refuse atomic.Bool
	o := groupOptions(blockfs.Inject(m, func(op blockfs.OpInfo) error {
		if refuse.Load() && op.Kind == blockfs.OpWrite && !strings.Contains(op.Path, groupName) {
			return errInjected
		}
		return nil
	}))
	p := mustOpen(t, o)
	grouping(p)
	l := newTestLog(p, diskA, 1, 1, nil)
	puts(t, l, 10, 1)
	refuse.Store(true)
	l.Close()
	if r, err := Recover(p, diskA, 1, anyOf(1)); !errors.Is(err, errHole) {
		t.Fatalf("a chunk with a hole: %v, %v", r, err)
	}
	if err := p.Close(); !errors.Is(err, errHole) {
		t.Errorf("closed with a hole: %v", err)
	}
	// An opening that finds the chunk as it was keeps what belongs into it, and serves others.
	p = mustOpen(t, o)
	if r, err := Recover(p, diskA, 1, anyOf(1)); !errors.Is(err, errHole) {
		t.Fatalf("a chunk that still refuses: %v, %v", r, err)
	}
	if err := p.Close(); err != nil || !slices.ContainsFunc(files(t, m), isGroup) {
		t.Fatalf("closed: %v, %v", err, files(t, m))
	}
	refuse.Store(false)
	p = mustOpen(t, o)
	r, err := Recover(p, diskA, 1, anyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkTail(r, 2, 1, oneWrites(1, 10, 1)); err != nil {
		t.Error(err)
	}
}

// TestGroupFull: while the files of the group log wait for chunks that take nothing, appends go
// to their chunks, and none waits.
func TestGroupFull(t *testing.T) {
	m := blockfs.NewMem()
	hold, held := make(chan struct{}), make(chan struct{}, 1000)
	var block atomic.Bool
	var stuck atomic.Value // name of the file that takes nothing
	o := groupOptions(blockfs.Inject(m, func(op blockfs.OpInfo) error {
		if name, _ := stuck.Load().(string); name != "" && block.Load() && op.Kind == blockfs.OpWrite && strings.HasSuffix(op.Path, name) {
			held <- struct{}{}
			<-hold
		}
		return nil
	}))
	p := mustOpen(t, o)
	grouping(p)
	a, b := newTestLog(p, diskA, 1, 1, nil), newTestLog(p, diskB, 1, 1, nil)
	puts(t, a, 2, 1)
	stuck.Store(fmt.Sprintf("%s%08d", newName, a.cur.file.number)) // as it was opened
	block.Store(true)
	grouped := p.group.records.Load()
	n := 0
	for direct := 0; direct < 20; n++ {
		before := p.group.records.Load()
		puts(t, b, 1, 1)
		b.Release(b.NextSeq() - 3)
		if p.group.records.Load() == before {
			direct++
		}
		if n > 2000 {
			t.Fatal("every append was grouped")
		}
	}
	if p.group.records.Load() == grouped {
		t.Error("no append was grouped")
	}
	<-held
	block.Store(false)
	close(hold)
	before := p.group.records.Load()
	for p.group.records.Load() == before {
		puts(t, b, 1, 1)
		b.Release(b.NextSeq() - 3)
	}
	last := b.NextSeq() - 1
	_, p = reopened(t, m, o)
	for _, d := range []struct {
		disk       [16]byte
		from, last uint64
	}{{diskA, 1, 2}, {diskB, last - 1, last}} {
		r, err := Recover(p, d.disk, d.from, anyOf(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := checkTail(r, 2, d.from, oneWrites(d.from, d.last, 1)); err != nil {
			t.Error(err)
		}
	}
}

// tryGroup has the group log made, and tells whether it is.
func tryGroup(p *Pool) bool {
	g := p.group
	g.mu.Lock()
	g.tries = 0
	g.makeLocked()
	g.mu.Unlock()
	for {
		g.mu.Lock()
		on, making := g.on, g.making
		g.mu.Unlock()
		if on || !making {
			return on
		}
		time.Sleep(time.Millisecond)
	}
}

// TestGroupNoRoom: a disk that has no room at any point of making the group log loses nothing,
// keeps nothing of it, and has it once there is room.
func TestGroupNoRoom(t *testing.T) {
	for fail, made := int64(0), false; !made; fail++ {
		m := blockfs.NewMem()
		var n atomic.Int64
		var full atomic.Bool
		o := groupOptions(blockfs.Inject(m, func(op blockfs.OpInfo) error {
			grows := op.Kind == blockfs.OpWrite || op.Kind == blockfs.OpPreallocate || op.Kind == blockfs.OpOpen
			if full.Load() && grows && (strings.Contains(op.Path, groupName) || strings.Contains(op.Path, poolFile)) && n.Add(1) > fail {
				return syscall.ENOSPC
			}
			return nil
		}))
		p := mustOpen(t, o)
		before := p.Usage().Bytes
		full.Store(true)
		if made = tryGroup(p); !made {
			l := newTestLog(p, diskA, 1, 1, nil)
			puts(t, l, 3, 1)
			if slices.ContainsFunc(files(t, m), isGroup) || p.Usage().Bytes-p.o.ChunkBytes > before {
				t.Fatalf("operation %d: left %v, %d bytes of %d", fail, files(t, m), p.Usage().Bytes, before)
			}
		}
		full.Store(false)
		if !made && !tryGroup(p) {
			t.Fatalf("operation %d: not made with room", fail)
		}
		l := newTestLog(p, diskB, 1, 1, nil)
		puts(t, l, 3, 1)
		l.Close()
		if err := p.Close(); err != nil || fail > 100 {
			t.Fatal(fail, err)
		}
	}
}

// TestGroupStartFull: a start after a crash serves what was grouped on a disk without room, too,
// and the files go at one with room.
func TestGroupStartFull(t *testing.T) {
	m := blockfs.NewMem()
	p := mustOpen(t, groupOptions(m))
	grouping(p)
	puts(t, newTestLog(p, diskA, 1, 1, nil), 3, 1)
	after := m.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
	full := true
	o := groupOptions(blockfs.Inject(after, func(op blockfs.OpInfo) error {
		if full && op.Kind == blockfs.OpWrite && strings.Contains(op.Path, poolFile) {
			return syscall.ENOSPC
		}
		return nil
	}))
	for range 2 {
		p := mustOpen(t, o)
		if p.group != nil || !slices.ContainsFunc(files(t, after), isGroup) {
			t.Error("there is a group log, or its files are gone")
		}
		r, err := Recover(p, diskA, 1, anyOf(1))
		if err != nil || r.LastSeq != 3 {
			t.Fatalf("up to %v, %v", r, err)
		}
		r.Abandon()
		p.Close()
	}
	full = false
	p = mustOpen(t, o)
	if p.group == nil || slices.ContainsFunc(files(t, after), isGroup) {
		t.Error("with room there is no group log, or the files of the last one are left")
	}
	if r, err := Recover(p, diskA, 1, anyOf(1)); err != nil || r.LastSeq != 3 {
		t.Fatalf("up to %v, %v", r, err)
	}
}

// TestGroupDamage: a frame that is damaged, and not the last one, means that records are
// missing which were acknowledged (E3); the last one was torn.
func TestGroupDamage(t *testing.T) {
	for _, c := range []struct {
		name    string
		frame   int // of three, with a record each
		off     int64
		corrupt bool
		last    uint64
	}{
		{"the header of the first", 0, 30, true, 0},
		{"the data of the second", 1, blockfs.Alignment + 5, true, 0},
		{"the header of the last", 2, 30, false, 2},
		{"the data of the last", 2, blockfs.Alignment + 5, false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := blockfs.NewMem()
			o := groupOptions(m)
			p := mustOpen(t, o)
			grouping(p)
			l := newTestLog(p, diskA, 1, 1, nil)
			puts(t, l, 3, 1)
			after := m.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
			overwrite(t, after, groupName+"0", int64(c.frame)*2*blockfs.Alignment+c.off, []byte{0x5a, 0xa5})
			o.FS = after
			p = mustOpen(t, o)
			r, err := Recover(p, diskA, 1, anyOf(1))
			var damaged *CorruptError
			if errors.As(err, &damaged) != c.corrupt {
				t.Fatal(err)
			}
			// What begins after that is not touched by it.
			b := newTestLog(p, diskB, 1, 1, nil)
			puts(t, b, 2, 1)
			b.Close()
			if r, err := Recover(p, diskB, 1, anyOf(1)); err != nil || r.LastSeq != 2 {
				t.Errorf("another vDisk: %v", err)
			}
			if !c.corrupt && r.LastSeq != c.last {
				t.Errorf("tail ends at %d", r.LastSeq)
			}
		})
	}
}

// TestGroupDamageStays: that records are missing is known at every later start, also where the
// power was cut while it was found out, until somebody accepts it or the chunk is released.
func TestGroupDamageStays(t *testing.T) {
	m := blockfs.NewMem()
	o := groupOptions(m)
	p := mustOpen(t, o)
	grouping(p)
	puts(t, newTestLog(p, diskA, 1, 1, nil), 1, 1)
	puts(t, newTestLog(p, diskB, 1, 1, nil), 1, 1)
	after := m.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
	overwrite(t, after, groupName+"0", blockfs.Alignment+5, []byte{0x5a, 0xa5}) // the one record of disk A
	var cuts []*blockfs.Mem
	after.SetHook(func(n int64, op blockfs.OpInfo) {
		how := []blockfs.Unsynced{blockfs.DropAll, blockfs.Tear, blockfs.Reorder, blockfs.KeepAll}[n%4]
		cuts = append(cuts, after.Crash(blockfs.CrashConfig{Unsynced: how, Rand: rand.New(rand.NewPCG(uint64(n), 1))}))
	})
	o.FS = after
	if err := mustOpen(t, o).Close(); err != nil {
		t.Fatal(err)
	}
	after.SetHook(nil)
	t.Logf("%d power cuts", len(cuts))
	for i, c := range append(cuts, after) {
		o := poolOptions(c)
		for range 2 {
			p = mustOpen(t, o)
			for _, d := range [][16]byte{diskA, diskB} {
				if _, err := Recover(p, d, 1, anyOf(1)); !errors.As(err, new(*CorruptError)) {
					t.Fatalf("cut %d: %v", i, err)
				}
			}
			// It says nothing of what is set aside, or what is known from elsewhere.
			if _, err := Recover(p, diskA, 1, func(uint32, uint64, uint64) bool { return false }); err != nil {
				t.Fatalf("cut %d: %v", i, err)
			}
			// Nor of a copy, whose records are not grouped.
			if _, err := RecoverEpoch(p, diskB, 1, 1, anyOf(1)); err != nil {
				t.Fatalf("cut %d: %v", i, err)
			}
			p.Close()
		}
	}

	after.SetHook(nil)
	o = poolOptions(after)
	p = mustOpen(t, o)
	r, err := RecoverLeft(p, diskA, 1, anyOf(1))
	if err != nil || r.LastSeq != 0 || r.Damage == nil {
		t.Fatalf("left: %+v, %v", r, err)
	}
	if err := r.Accept(); err != nil {
		t.Fatal(err)
	}
	r.Abandon()
	p.Forget(diskB)
	p.Close()
	p = mustOpen(t, o)
	if _, err := Recover(p, diskA, 1, anyOf(1)); err != nil {
		t.Errorf("accepted: %v", err)
	}
	if r, err := Recover(p, diskB, 1, anyOf(1)); err != nil || r.LastSeq != 0 {
		t.Errorf("released: %v", err)
	}
	if p.says.Format != poolFormat {
		t.Errorf("format %d", p.says.Format)
	}
}

// TestGroupDamageTold: while a chunk refuses what belongs into it the files of the group log
// stay, damaged frames with them. Each start finds these again, and says nothing new: what was
// accepted stays so, and what came after is not touched. Of a vDisk with a chunk that refuses
// nothing is accepted: what it lacks is not lost.
func TestGroupDamageTold(t *testing.T) {
	m := blockfs.NewMem()
	o := groupOptions(m)
	p := mustOpen(t, o)
	grouping(p)
	a, b := newTestLog(p, diskA, 1, 1, nil), newTestLog(p, diskB, 1, 1, nil)
	puts(t, b, 1, 1)
	last := uint64(0) // of disk A
	for len(a.chunks) < 2 {
		last++
		mustPut(t, a, oneWrite(last, 3))
	}
	second := a.chunks[len(a.chunks)-1].file.name
	after := m.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
	overwrite(t, after, groupName+"0", blockfs.Alignment+5, []byte{0x5a, 0xa5}) // the one record of disk B
	refuse := true
	o = groupOptions(blockfs.Inject(after, func(op blockfs.OpInfo) error {
		if refuse && op.Kind == blockfs.OpWrite && strings.HasSuffix(op.Path, second) {
			return errInjected
		}
		return nil
	}))
	damaged := func(p *Pool, disk [16]byte) {
		t.Helper()
		if _, err := Recover(p, disk, 1, anyOf(2)); !errors.As(err, new(*CorruptError)) {
			t.Fatalf("a vDisk whose chunk may lack a record: %v", err)
		}
	}
	accept := func(p *Pool, disk [16]byte) *Recovery {
		t.Helper()
		r, err := RecoverLeft(p, disk, 1, anyOf(2))
		if err != nil || r.Damage == nil {
			t.Fatalf("what is left: %+v, %v", r, err)
		}
		if err := r.Accept(); err != nil {
			t.Fatal(err)
		}
		return r
	}
	held := func(p *Pool) {
		t.Helper()
		for _, recover := range []func(*Pool, [16]byte, uint64, func(uint32, uint64, uint64) bool) (*Recovery, error){Recover, RecoverLeft} {
			if _, err := recover(p, diskA, 1, anyOf(2)); !errors.Is(err, errHole) {
				t.Fatalf("a vDisk with a chunk that refuses, and one that may lack a record: %v", err)
			}
		}
	}
	p = mustOpen(t, o)
	held(p)
	damaged(p, diskB)
	accept(p, diskB).Abandon()
	r, err := Recover(p, diskB, 1, anyOf(2))
	if err != nil || r.LastSeq != 0 {
		t.Fatal(err)
	}
	l := newTestLog(p, diskB, 2, 1, r)
	puts(t, l, 2, 1)
	l.Close()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p = mustOpen(t, o)
		if !slices.ContainsFunc(files(t, after), isGroup) {
			t.Fatal("the files of the group log are gone")
		}
		held(p)
		if r, err := Recover(p, diskB, 1, anyOf(2)); err != nil || r.LastSeq != 2 {
			t.Fatalf("accepted, and written to since: %+v, %v", r, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	refuse = false
	p = mustOpen(t, o)
	if p.says.Told != "" || slices.ContainsFunc(files(t, after), isGroup) && p.group == nil {
		t.Errorf("the files of the group log are left: %+v", p.says)
	}
	damaged(p, diskA)
	if r := accept(p, diskA); r.LastSeq != last {
		t.Errorf("left of what was damaged nowhere: up to %d of %d", r.LastSeq, last)
	}
	if r, err := Recover(p, diskB, 1, anyOf(2)); err != nil || r.LastSeq != 2 {
		t.Errorf("accepted, and written to since: %+v, %v", r, err)
	}
}

// TestGroupDamageFull: a start on a disk without room tells of damaged frames, serves other
// vDisks, and refuses that a loss is accepted, which could not be kept; with room it can.
func TestGroupDamageFull(t *testing.T) {
	m := blockfs.NewMem()
	p := mustOpen(t, groupOptions(m))
	grouping(p)
	puts(t, newTestLog(p, diskA, 1, 1, nil), 1, 1)
	puts(t, newTestLog(p, diskB, 1, 1, nil), 1, 1)
	after := m.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
	overwrite(t, after, groupName+"0", blockfs.Alignment+5, []byte{0x5a, 0xa5})
	full := true
	o := groupOptions(blockfs.Inject(after, func(op blockfs.OpInfo) error {
		if full && op.Kind == blockfs.OpWrite && strings.Contains(op.Path, poolFile) {
			return syscall.ENOSPC
		}
		return nil
	}))
	left := func(p *Pool) *Recovery {
		t.Helper()
		if _, err := Recover(p, diskA, 1, anyOf(1)); !errors.As(err, new(*CorruptError)) {
			t.Fatalf("recovered with %v", err)
		}
		r, err := RecoverLeft(p, diskA, 1, anyOf(1))
		if err != nil || r.Damage == nil {
			t.Fatalf("what is left: %+v, %v", r, err)
		}
		return r
	}
	for range 2 {
		p = mustOpen(t, o)
		r := left(p)
		if err := r.Accept(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("a loss that cannot be kept is accepted: %v", err)
		}
		r.Abandon()
		left(p).Abandon()
		other := newTestLog(p, [16]byte{'c'}, 1, 1, nil)
		mustPut(t, other, oneWrite(1, 1))
		other.Close()
		p.Forget([16]byte{'c'})
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p = mustOpen(t, o)
	full = false // there is room while it runs
	r := left(p)
	if err := r.Accept(); err != nil {
		t.Fatal(err)
	}
	r.Abandon()
	for range 2 {
		if r, err := Recover(p, diskA, 1, anyOf(1)); err != nil {
			t.Fatalf("accepted: %v", err)
		} else {
			r.Abandon()
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		p = mustOpen(t, o)
	}
}

// FuzzFrame: no bytes make a frame that is not one, or end the process.
func FuzzFrame(f *testing.F) {
	p, err := OpenPool(poolOptions(blockfs.NewMem()))
	if err != nil {
		f.Fatal(err)
	}
	defer p.Close()
	l := newTestLog(p, diskA, 1, 1, nil)
	if err := room(l, oneWrite(1, 1)); err != nil {
		f.Fatal(err)
	}
	var records []*Record
	for range 3 {
		r := new(Record)
		l.Build(oneWrite(l.NextSeq(), 1), r)
		records = append(records, r)
	}
	whole := encodeFrame(make([]byte, 64<<10), [16]byte{1}, 7, 3, records)
	fr, err := decodeFrame(whole[:blockfs.Alignment])
	if err != nil || fr.number != 7 || fr.oldest != 3 || len(fr.records) != 3 || fr.size() != int64(len(whole)) {
		f.Fatalf("%+v, %v", fr, err)
	}
	data := whole[fr.headerBytes:]
	for i := range fr.records {
		r := &fr.records[i]
		if _, b, err := r.record(data); err != nil || string(b) != string(records[i].buf) || r.off != records[i].start() {
			f.Fatalf("record %d: %v", i, err)
		}
		data = data[r.data:]
	}
	f.Add(whole)
	f.Add(encodeFrame(make([]byte, 64<<10), [16]byte{1}, 1, 1, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := peekFrame(b)
		if err != nil || n > len(b) {
			return
		}
		sealed := append([]byte(nil), b[:n]...)
		sealHeader(sealed)
		fr, err := decodeFrame(sealed)
		if err != nil {
			return
		}
		data := make([]byte, fr.dataBytes)
		copy(data, b[n:])
		for i := range fr.records {
			r := &fr.records[i]
			if h, rec, err := r.record(data); err == nil && int64(len(rec)) != h.size() {
				t.Error("a record of another size")
			}
			data = data[r.data:]
		}
	})
}
