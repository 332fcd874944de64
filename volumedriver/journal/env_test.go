package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/leaktest"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const (
	testDir     = "journal"
	testChunk   = MinChunkBytes
	testCluster = 4096
	perCluster  = testCluster / lbaBytes
)

var (
	diskA = [16]byte{0xa0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}
	diskB = [16]byte{0xb0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}

	errInjected = errors.New("injected")
)

// testRand is a deterministic source for ids and generations.
type testRand struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

func newTestRand(seed byte) io.Reader { return &testRand{r: rand.NewChaCha8([32]byte{seed})} }

func (r *testRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Read(p)
}

// poolOptions are those of a pool of up to 16 small chunks.
func poolOptions(fsys blockfs.FS) PoolOptions {
	return PoolOptions{FS: fsys, Dir: testDir, ChunkBytes: testChunk, MaxBytes: 16 * testChunk, Rand: newTestRand(1)}
}

func mustOpen(t testing.TB, o PoolOptions) *Pool {
	t.Helper()
	p, err := OpenPool(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func newTestLog(p *Pool, vdisk [16]byte, epoch uint32, next uint64, tail *Recovery) *Log {
	return NewLog(LogOptions{Pool: p, VDisk: vdisk, Epoch: epoch, Cluster: testCluster, NextSeq: next, Memory: &Memory{Max: 8 << 20}}, tail)
}

// anyOf accepts records of the epochs [1, last].
func anyOf(last uint32) func(uint32, uint64, uint64) bool {
	return func(e uint32, _, _ uint64) bool { return e >= 1 && e <= last }
}

// block returns the content of version ver of a cluster.
func block(cluster uint64, ver int) []byte {
	r := rand.NewPCG(cluster, uint64(ver))
	b := make([]byte, 0, testCluster)
	for len(b) < testCluster {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b
}

// write is a command of a test batch: n clusters from cluster.
type write struct {
	cluster uint64
	n       int
	kind    Kind
	ver     int
}

// batchOf makes one record of the commands.
func batchOf(ws ...write) *Batch {
	b := &Batch{Seqs: uint32(len(ws)), Time: 1000}
	data := uint32(0)
	for i, w := range ws {
		e := Extent{LBA: w.cluster * perCluster, Length: uint64(w.n) * perCluster, Kind: w.kind, SeqDelta: uint32(i)}
		if w.kind == KindData {
			e.Data = data
			data += uint32(w.n)
			var part []byte
			for k := range w.n {
				part = append(part, block(w.cluster+uint64(k), w.ver)...)
			}
			b.Parts = append(b.Parts, part)
		}
		b.Extents = append(b.Extents, e)
	}
	return b
}

// oneWrite makes a record of one command of n clusters that tells its seq.
func oneWrite(seq uint64, n int) *Batch {
	return batchOf(write{cluster: seq * 1000, n: n, kind: KindData, ver: int(seq)})
}

// recordBytes returns the journal space of b.
func recordBytes(b *Batch) int64 {
	clusters := 0
	for _, p := range b.Parts {
		clusters += len(p) / testCluster
	}
	return RecordBytes(len(b.Extents), clusters, testCluster)
}

// put appends b, on another chunk if need be.
func put(l *Log, b *Batch) (Placed, error) {
	if err := room(l, b); err != nil {
		return Placed{}, err
	}
	return l.Append(b)
}

// room makes the current chunk fit a batch.
func room(l *Log, b *Batch) error {
	n := recordBytes(b)
	if l.Fits(n) {
		return nil
	}
	err := l.AddChunk()
	for range 3 { // one may be in the making, and that may meet a fault
		if errors.Is(err, ErrNoChunk) {
			l.pool.grow.Wait()
			err = l.AddChunk()
		}
	}
	if err == nil && !l.Fits(n) {
		err = fmt.Errorf("a record of %d bytes does not fit a new chunk", n)
	}
	return err
}

func mustPut(t testing.TB, l *Log, b *Batch) Placed {
	t.Helper()
	at, err := put(l, b)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// puts appends n records of one command and size clusters each.
func puts(t testing.TB, l *Log, n, size int) []Placed {
	t.Helper()
	var at []Placed
	for range n {
		at = append(at, mustPut(t, l, oneWrite(l.NextSeq(), size)))
	}
	return at
}

// readBack reads a record's data from a log and compares with what b wrote.
func readBack(l *Log, chunk uint32, off int64, b *Batch) error {
	want := bytes.Join(b.Parts, nil)
	got := blockfs.AlignedBuffer(len(want))
	c := l.Pin(chunk)
	defer c.Unpin()
	if _, err := c.ReadAt(got, off); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("chunk %d at %d holds other data", chunk, off)
	}
	return nil
}

// checkTail compares a recovery with the records that are expected, and reads
// their data through a new log of the next epoch, which it returns.
func checkTail(r *Recovery, epoch uint32, from uint64, want []*Batch) (*Log, error) {
	tail := r.Tail
	if len(tail) != len(want) {
		return nil, fmt.Errorf("tail has %d records, want %d", len(tail), len(want))
	}
	next := from
	for i, f := range tail {
		if f.Header.Seq != next || f.Header.Seqs != want[i].Seqs {
			return nil, fmt.Errorf("record %d: seq %d+%d, want %d+%d", i, f.Header.Seq, f.Header.Seqs, next, want[i].Seqs)
		}
		next = f.Header.LastSeq() + 1
	}
	if r.LastSeq != next-1 {
		return nil, fmt.Errorf("LastSeq %d, want %d", r.LastSeq, next-1)
	}
	l := newTestLog(r.pool, r.vdisk, epoch, next, r)
	seed := clustersum.NewSeed(r.vdisk)
	for i, f := range tail {
		for k, e := range f.Header.Extents {
			if e != want[i].Extents[k] {
				return l, fmt.Errorf("record %d extent %d: %+v, want %+v", i, k, e, want[i].Extents[k])
			}
		}
		if err := readBack(l, f.Chunk, f.Off, want[i]); err != nil {
			return l, fmt.Errorf("record %d: %w", i, err)
		}
		if !f.Header.verifyData(seed, bytes.Join(want[i].Parts, nil)) {
			return l, fmt.Errorf("record %d: sums", i)
		}
	}
	return l, nil
}

// reopened opens the pool as it is after a power cut that drops what was not durable.
func reopened(t testing.TB, m *blockfs.Mem, o PoolOptions) (*blockfs.Mem, *Pool) {
	t.Helper()
	after := m.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
	o.FS = after
	return after, mustOpen(t, o)
}

// oneWrites are the batches that puts wrote with seqs [from, to].
func oneWrites(from, to uint64, size int) []*Batch {
	var b []*Batch
	for s := from; s <= to; s++ {
		b = append(b, oneWrite(s, size))
	}
	return b
}

// files lists the pool's directory.
func files(t testing.TB, fsys blockfs.FS) []string {
	t.Helper()
	l, err := fsys.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range l {
		names = append(names, e.Name)
	}
	return names
}

// overwrite changes bytes of a file durably.
func overwrite(t testing.TB, fsys blockfs.FS, name string, off int64, b []byte) {
	t.Helper()
	f, err := fsys.Open(testDir+"/"+name, blockfs.Write)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
