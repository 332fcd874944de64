package journal

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// TestAppendRecover: what was appended is the tail after a restart, whatever the
// sizes, over several chunks and from any seq.
func TestAppendRecover(t *testing.T) {
	mixed := []*Batch{
		batchOf(write{cluster: 1, n: 1, kind: KindData, ver: 1}),
		batchOf(write{cluster: 0, n: 1 << 30, kind: KindTrim}),
		batchOf(write{cluster: 7, n: 3, kind: KindData, ver: 2}, write{cluster: 90, n: 2, kind: KindZero}, write{cluster: 4, n: 5, kind: KindData, ver: 3}),
		{Seqs: 1, Time: 1, Extents: []Extent{{Kind: KindPin}}},
		{Seqs: 1, Time: 1, Extents: []Extent{{Kind: KindReservation}}},
		reserve(&Batch{}, stateBytes(5000)),
		reserve(batchOf(write{cluster: 7, n: 2, kind: KindData, ver: 4}), nil),
	}
	var many write
	wide := &Batch{Seqs: 200, Time: 5}
	for i := range 200 {
		many = write{cluster: uint64(i), n: i + 1, kind: KindTrim}
		b := batchOf(many)
		b.Extents[0].SeqDelta = uint32(i)
		wide.Extents = append(wide.Extents, b.Extents[0])
	}
	for _, c := range []struct {
		name    string
		batches []*Batch
		from    uint64 // records above seq from-1 are asked for
		skip    int    // records below from
	}{
		{"nothing", nil, 1, 0},
		{"one", oneWrites(1, 1, 1), 1, 0},
		{"every kind", mixed, 1, 0},
		{"a header of several blocks", []*Batch{wide}, 1, 0},
		{"several chunks", oneWrites(1, 40, 16), 1, 0},
		{"above a committed head", oneWrites(1, 40, 16), 31, 30},
		{"all committed", oneWrites(1, 5, 1), 6, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := blockfs.NewMem()
			l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
			for _, b := range c.batches {
				at := mustPut(t, l, b)
				if err := readBack(l, at.Chunk, at.Off, b); err != nil {
					t.Fatal(err)
				}
			}
			_, p := reopened(t, m, poolOptions(m))
			r, err := Recover(p, diskA, c.from, anyOf(1))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := checkTail(r, 2, c.from, c.batches[c.skip:]); err != nil {
				t.Fatal(err)
			}
			if r.MaxSeq != l.NextSeq()-1 {
				t.Fatalf("MaxSeq %d, want %d", r.MaxSeq, l.NextSeq()-1)
			}
		})
	}
}

// TestTimeNeverDecreases: a record is never older than the one before (E6).
func TestTimeNeverDecreases(t *testing.T) {
	m := blockfs.NewMem()
	l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
	for _, at := range []int64{50, 20, 70} {
		b := oneWrite(l.NextSeq(), 1)
		b.Time = at
		mustPut(t, l, b)
	}
	_, p := reopened(t, m, poolOptions(m))
	r, err := Recover(p, diskA, 1, anyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{50, 50, 70} {
		if got := r.Tail[i].Header.Time; got != want {
			t.Errorf("record %d has time %d, want %d", i, got, want)
		}
	}
	r.Abandon()
}

// TestSecondEpoch: the tail of two openings is one; what the first wrote above the
// start of the second does not count (E1, E2).
func TestSecondEpoch(t *testing.T) {
	m := blockfs.NewMem()
	l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
	puts(t, l, 8, 2)
	m2, p := reopened(t, m, poolOptions(m))
	r, err := Recover(p, diskA, 1, func(_ uint32, _, last uint64) bool { return last <= 5 })
	if err != nil {
		t.Fatal(err)
	}
	l2, err := checkTail(r, 2, 1, oneWrites(1, 5, 2))
	if err != nil {
		t.Fatal(err)
	}
	puts(t, l2, 4, 3)
	_, p = reopened(t, m2, poolOptions(m))
	r, err = Recover(p, diskA, 1, func(e uint32, first, last uint64) bool {
		return e == 1 && last <= 5 || e == 2 && first >= 6
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkTail(r, 3, 1, append(oneWrites(1, 5, 2), oneWrites(6, 9, 3)...)); err != nil {
		t.Fatal(err)
	}
}

// TestStaleGeneration: what earlier users left in a chunk never counts (J1), not
// even when it continues the log, or is of a format to come.
func TestStaleGeneration(t *testing.T) {
	m := blockfs.NewMem()
	o := poolOptions(m)
	o.MaxBytes = testChunk
	p := mustOpen(t, o)
	l := newTestLog(p, diskA, 1, 1, nil)
	puts(t, l, 10, 1)
	l.Seal()
	l.Release(10)
	// The same vDisk takes the same chunk; at the offset of the old seq 2, which
	// follows the new seq 1, the old record is still there.
	l = newTestLog(p, diskA, 1, 1, nil)
	puts(t, l, 1, 1)
	_, p = reopened(t, m, o)
	r, err := Recover(p, diskA, 1, anyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.chunks) != 1 || r.MaxSeq != 1 {
		t.Fatalf("%d chunks, MaxSeq %d", len(r.chunks), r.MaxSeq)
	}
	if _, err := checkTail(r, 2, 1, oneWrites(1, 1, 1)); err != nil {
		t.Fatal(err)
	}
}

// TestDataThatLooksLikeRecords: users' data that imitate records, of this format
// or of a newer one, change nothing: neither in their own chunk behind a torn
// record nor in a recycled one.
func TestDataThatLooksLikeRecords(t *testing.T) {
	h, _ := goldenHeader()
	fake := make([]byte, testCluster)
	encodeHeader(fake, h)
	newer := bytes.Clone(fake)
	newer[8] = 2
	sealHeader(newer)
	imitation := &Batch{Seqs: 1, Time: 1, Extents: []Extent{{LBA: 0, Length: 4 * perCluster, Kind: KindData}},
		Parts: [][]byte{newer, fake, newer, fake}}
	m := blockfs.NewMem()
	o := poolOptions(m)
	o.MaxBytes = testChunk
	p := mustOpen(t, o)
	l := newTestLog(p, diskB, 1, 1, nil)
	for range 5 {
		mustPut(t, l, imitation)
	}
	l.Seal()
	l.Release(5)
	l = newTestLog(p, diskA, 1, 1, nil)
	puts(t, l, 2, 1)
	_, p = reopened(t, m, o)
	r, err := Recover(p, diskA, 1, anyOf(1))
	if err != nil {
		t.Fatalf("a guest's data keep another vDisk from starting: %v", err)
	}
	if _, err := checkTail(r, 2, 1, oneWrites(1, 2, 1)); err != nil {
		t.Fatal(err)
	}
}

// TestNewerFormat: a chunk of a version to come is refused, not taken for free.
func TestNewerFormat(t *testing.T) {
	m := blockfs.NewMem()
	l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
	puts(t, l, 1, 1)
	for _, off := range []int64{0, blockfs.Alignment} {
		overwrite(t, m, "chunk-00000000", off+8, []byte{formatVersion + 1, 0})
	}
	after := m.Crash(blockfs.CrashConfig{})
	o := poolOptions(after)
	if _, err := OpenPool(o); !errors.Is(err, ErrNewerFormat) {
		t.Fatalf("opened with %v", err)
	}
}

// TestOpenerTwice: one bad sector in an opener, whatever it does, hides nothing.
func TestOpenerTwice(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, m *blockfs.Mem, off int64) blockfs.FS
	}{
		{"zeroed", func(t *testing.T, m *blockfs.Mem, off int64) blockfs.FS {
			overwrite(t, m, "chunk-00000000", off, make([]byte, 512))
			return m
		}},
		{"version", func(t *testing.T, m *blockfs.Mem, off int64) blockfs.FS {
			overwrite(t, m, "chunk-00000000", off+8, []byte{0xff})
			return m
		}},
		{"unreadable", func(t *testing.T, m *blockfs.Mem, off int64) blockfs.FS {
			return blockfs.Inject(m, func(op blockfs.OpInfo) error {
				if op.Kind == blockfs.OpRead && strings.HasSuffix(op.Path, "chunk-00000000") && op.Off <= off && off < op.Off+op.Len {
					return syscall.EIO
				}
				return nil
			})
		}},
	} {
		for _, off := range []int64{0, blockfs.Alignment} {
			t.Run(c.name, func(t *testing.T) {
				m := blockfs.NewMem()
				l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
				puts(t, l, 3, 1)
				after := m.Crash(blockfs.CrashConfig{})
				p := mustOpen(t, poolOptions(c.spoil(t, after, off)))
				r, err := Recover(p, diskA, 1, anyOf(1))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := checkTail(r, 2, 1, oneWrites(1, 3, 1)); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// TestDamage: a torn tail is cut, damage below a promise is corruption (J3, E3).
func TestDamage(t *testing.T) {
	const size = 2 // clusters; a record takes 12 KiB
	rec := func(i int64) int64 { return openerBytes + i*3*4096 }
	for _, c := range []struct {
		name    string
		promise bool    // after the 5 records
		more    bool    // another chunk is opened behind
		spoil   []int64 // offsets in the first chunk
		tail    uint64  // last seq that is left; 0: corrupt
		seq     uint64  // where, when corrupt
	}{
		{"none", false, false, nil, 5, 0},
		{"header of the last record", false, false, []int64{rec(4)}, 4, 0},
		{"data of the last record", false, false, []int64{rec(4) + 4096}, 4, 0},
		{"last sector of the last record", false, false, []int64{rec(5) - 1}, 4, 0},
		{"last record, promised", true, false, []int64{rec(4) + 4096}, 0, 5},
		{"the promise itself", true, false, []int64{rec(5)}, 5, 0},
		{"last record and its promise", true, false, []int64{rec(4), rec(5)}, 4, 0},
		{"a record in the middle", false, false, []int64{rec(2)}, 0, 3},
		{"data in the middle", false, false, []int64{rec(2) + 8192}, 0, 3},
		{"the first record", false, false, []int64{rec(0)}, 0, 1},
		{"all records", false, false, []int64{rec(0), rec(1), rec(2), rec(3), rec(4)}, 0, 0},
		{"last record, promised by the next chunk's opener", false, true, []int64{rec(4)}, 0, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := blockfs.NewMem()
			l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
			puts(t, l, 5, size)
			if c.promise {
				if ok, err := l.Promise(1); !ok || err != nil {
					t.Fatalf("promise: %t, %v", ok, err)
				}
			}
			if c.more {
				if err := l.AddChunk(); err != nil {
					t.Fatal(err)
				}
			}
			after := m.Crash(blockfs.CrashConfig{})
			for _, off := range c.spoil {
				overwrite(t, after, "chunk-00000000", off, []byte{0x5a})
			}
			p := mustOpen(t, poolOptions(after))
			r, err := Recover(p, diskA, 1, anyOf(1))
			if c.seq > 0 {
				var damaged *CorruptError
				if !errors.As(err, &damaged) || damaged.Seq != c.seq {
					t.Fatalf("recovered with %v, want damage at seq %d", err, c.seq)
				}
				// The chunks stay as they were: the next try says the same.
				if _, again := Recover(p, diskA, 1, anyOf(1)); again == nil || again.Error() != err.Error() {
					t.Fatalf("second try: %v, first: %v", again, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := checkTail(r, 2, 1, oneWrites(1, c.tail, size)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestMissingChunk: a hole where a whole chunk was is corruption (E3); a missing
// last chunk cannot be told from one that never was.
func TestMissingChunk(t *testing.T) {
	for i, want := range []uint64{1, 0, 0} {
		m := blockfs.NewMem()
		l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
		at := puts(t, l, 40, 16)
		firstOf := map[uint32]uint64{}
		for _, a := range at {
			if firstOf[a.Chunk] == 0 {
				firstOf[a.Chunk] = a.Seq
			}
		}
		if len(firstOf) < 3 {
			t.Fatalf("%d chunks in use", len(firstOf))
		}
		if want == 0 {
			want = firstOf[uint32(i)]
		}
		l.mu.Lock()
		name := l.chunks[i].file.name
		l.mu.Unlock()
		after := m.Crash(blockfs.CrashConfig{})
		if err := after.Remove(testDir + "/" + name); err != nil {
			t.Fatal(err)
		}
		_, err := Recover(mustOpen(t, poolOptions(after)), diskA, 1, anyOf(1))
		var damaged *CorruptError
		if !errors.As(err, &damaged) || damaged.Seq != want {
			t.Fatalf("chunk %d missing: %v, want damage at seq %d", i, err, want)
		}
	}
}

// TestDuplicates: two copies of a record are one (J4); two different records of
// one seq are corruption.
func TestDuplicates(t *testing.T) {
	for _, differ := range []bool{false, true} {
		m := blockfs.NewMem()
		p := mustOpen(t, poolOptions(m))
		puts(t, newTestLog(p, diskA, 1, 1, nil), 4, 2)
		second := newTestLog(p, diskA, 1, 2, nil)
		if differ {
			mustPut(t, second, oneWrite(77, 2))
		} else {
			puts(t, second, 5, 2)
		}
		_, p = reopened(t, m, poolOptions(m))
		r, err := Recover(p, diskA, 1, anyOf(1))
		var damaged *CorruptError
		switch {
		case differ && (!errors.As(err, &damaged) || damaged.Seq != 2):
			t.Fatalf("two records of seq 2: %v", err)
		case !differ && err != nil:
			t.Fatal(err)
		case !differ:
			if _, err := checkTail(r, 2, 1, oneWrites(1, 6, 2)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestReadErrorOnRecover: an unreadable chunk leaves everything for the next try.
func TestReadErrorOnRecover(t *testing.T) {
	m := blockfs.NewMem()
	l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
	puts(t, l, 3, 2)
	after := m.Crash(blockfs.CrashConfig{})
	var fail atomic.Bool
	fail.Store(true)
	p := mustOpen(t, poolOptions(blockfs.Inject(after, func(op blockfs.OpInfo) error {
		if fail.Load() && (op.Kind == blockfs.OpRead && op.Off >= openerBytes || op.Kind == blockfs.OpSync) {
			return syscall.EIO
		}
		return nil
	})))
	if _, err := Recover(p, diskA, 1, anyOf(1)); !errors.Is(err, syscall.EIO) {
		t.Fatalf("recovered with %v", err)
	}
	fail.Store(false)
	r, err := Recover(p, diskA, 1, anyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkTail(r, 2, 1, oneWrites(1, 3, 2)); err != nil {
		t.Fatal(err)
	}
}

// TestSetAside: chunks set aside are found by no open and stay until dropped (E1).
func TestSetAside(t *testing.T) {
	m := blockfs.NewMem()
	p := mustOpen(t, poolOptions(m))
	l := newTestLog(p, diskA, 1, 1, nil)
	puts(t, l, 20, 16)
	other := newTestLog(p, diskB, 1, 1, nil)
	puts(t, other, 1, 1)
	m, p = reopened(t, m, poolOptions(m))
	r, err := Recover(p, diskA, 1, anyOf(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetAside(); err != nil {
		t.Fatal(err)
	}
	m, p = reopened(t, m, poolOptions(m))
	if r, err = Recover(p, diskA, 1, anyOf(1)); err != nil || len(r.Tail) != 0 {
		t.Fatalf("still there: %v, %v", r, err)
	}
	aside := 0
	for _, n := range files(t, m) {
		if strings.HasPrefix(n, asidePrefix) {
			aside++
		}
	}
	if aside < 2 {
		t.Fatalf("%d chunks kept aside of %v", aside, files(t, m))
	}
	if err := p.DropAside(diskB); err != nil {
		t.Fatal(err)
	}
	if got := len(files(t, m)); got == 0 {
		t.Fatal("another vDisk's DropAside deleted them")
	}
	if err := p.DropAside(diskA); err != nil {
		t.Fatal(err)
	}
	for _, n := range files(t, m) {
		if strings.HasPrefix(n, asidePrefix) {
			t.Fatalf("%s is still there", n)
		}
	}
	if r, err = Recover(p, diskB, 1, anyOf(1)); err != nil || len(r.Tail) != 1 {
		t.Fatalf("the other vDisk's tail: %v, %v", r, err)
	}
	r.Abandon()
}

// counted counts what is read.
type counted struct {
	blockfs.File
	bytes *int
}

func (c counted) ReadAt(p []byte, off int64) (int, error) {
	*c.bytes += len(p)
	return c.File.ReadAt(p, off)
}

// TestScanRecycled: a chunk is read once, also when it is full of records of its former use.
func TestScanRecycled(t *testing.T) {
	m := blockfs.NewMem()
	o := poolOptions(m)
	o.MaxBytes = testChunk
	l := newTestLog(mustOpen(t, o), diskA, 1, 1, nil)
	for l.Fits(recordBytes(oneWrite(1, 1))) || l.NextSeq() == 1 {
		mustPut(t, l, oneWrite(l.NextSeq(), 1))
	}
	old := l.NextSeq() - 1
	l.Seal()
	l.Release(old)
	l.Close()
	puts(t, newTestLog(l.pool, diskB, 1, 1, nil), 3, 1)
	_, p := reopened(t, m, o)
	files := p.claim(diskB, anyEpoch)
	if len(files) != 1 || old < 20 {
		t.Fatalf("%d chunks after one of %d records was recycled", len(files), old)
	}
	n := 0
	files[0].f = counted{files[0].f, &n}
	c := &recovered{file: files[0], end: openerBytes}
	if err := c.scan(diskB); err != nil {
		t.Fatal(err)
	}
	if len(c.found) != 3 {
		t.Errorf("%d records were found, want 3", len(c.found))
	}
	if n > 2*testChunk {
		t.Errorf("%d bytes were read of a chunk of %d", n, testChunk)
	}
	p.give(files[0])
}
