package journal

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

var update = flag.Bool("update", false, "write the golden files anew: only for a format that nobody has used yet")

// golden compares b with a file that is kept for ever.
func golden(t *testing.T, name string, b []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Fatalf("%s: what is written now is not what earlier versions wrote", path)
	}
	return want
}

// goldenHeader is a record with every kind of extent and a full set of fields.
func goldenHeader() (*Header, []byte) {
	data := append(block(16, 1), block(17, 1)...)
	seed := clustersum.NewSeed(diskA)
	return &Header{HeaderBytes: 4096, DataBytes: 8192, Generation: 0x1122334455667788, VDisk: diskA, Epoch: 7,
		Seqs: 6, Seq: 1 << 40, Promise: 1<<40 - 1, Time: 1_700_000_000_123_456_789, Cluster: 4096,
		Extents: []Extent{
			{LBA: 16 * 8, Length: 8, Kind: KindData, SeqDelta: 0, Data: 0},
			{LBA: 17 * 8, Length: 8, Kind: KindData, SeqDelta: 1, Data: 1},
			{LBA: 0, Length: 1 << 37, Kind: KindTrim, SeqDelta: 2},
			{LBA: 1 << 36, Length: 16, Kind: KindZero, SeqDelta: 3},
			{Kind: KindPin, SeqDelta: 4},
			{Kind: KindReservation, SeqDelta: 5},
		},
		Sums: []uint32{seed.Sum(16*8, data[:4096]), seed.Sum(17*8, data[4096:])}}, data
}

func TestGoldenRecord(t *testing.T) {
	h, data := goldenHeader()
	b := make([]byte, h.size())
	encodeHeader(b[:h.HeaderBytes], h)
	copy(b[h.HeaderBytes:], data)
	kept := golden(t, "record.bin", b)
	got, err := decodeHeader(kept[:4096])
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, h) {
		t.Fatalf("decoded %+v\nwant    %+v", got, h)
	}
	if !got.verifyData(clustersum.NewSeed(diskA), kept[4096:]) {
		t.Fatal("sums of the kept record do not verify")
	}
}

// TestGoldenChunk keeps what a pool and a log put on the disk: pool.json, the two
// openers, a record, a promise.
func TestGoldenChunk(t *testing.T) {
	m := blockfs.NewMem()
	p := mustOpen(t, poolOptions(m))
	l := newTestLog(p, diskA, 3, 42, nil)
	mustPut(t, l, batchOf(write{cluster: 5, n: 1, kind: KindData, ver: 1}, write{cluster: 9, n: 4, kind: KindZero}))
	if wrote, err := l.Promise(2000); !wrote || err != nil {
		t.Fatalf("promise: %t, %v", wrote, err)
	}
	id, err := blockfs.ReadFile(m, testDir+"/"+poolFile, 4096)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "pool.json", id)
	chunk, err := blockfs.ReadFile(m, testDir+"/chunk-00000000", testChunk)
	if err != nil {
		t.Fatal(err)
	}
	const used = openerBytes + 8192 + 4096
	if !bytes.Equal(chunk[used:], make([]byte, testChunk-used)) {
		t.Fatal("a new chunk is not zero behind what was appended")
	}
	golden(t, "chunk.bin", chunk[:used])
}

// TestGoldenFrame keeps a frame of the group log, as it is put into its chunk.
func TestGoldenFrame(t *testing.T) {
	m := blockfs.NewMem()
	o := groupOptions(m)
	p := mustOpen(t, o)
	grouping(p)
	l := newTestLog(p, diskA, 3, 42, nil)
	b := batchOf(write{cluster: 5, n: 1, kind: KindData, ver: 1}, write{cluster: 9, n: 4, kind: KindZero})
	mustPut(t, l, b)
	file, err := blockfs.ReadFile(m, testDir+"/"+groupName+"0", MinGroupBytes)
	if err != nil {
		t.Fatal(err)
	}
	kept := golden(t, "frame.bin", file[:8192])
	after := m.Crash(blockfs.CrashConfig{Unsynced: blockfs.DropAll})
	overwrite(t, after, groupName+"0", 0, kept)
	o.FS = after
	r, err := Recover(mustOpen(t, o), diskA, 42, anyOf(3))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := checkTail(r, 4, 42, []*Batch{b}); err != nil {
		t.Fatal(err)
	}
}

// TestGoldenChunkRecovers reads the kept files as a pool of today.
func TestGoldenChunkRecovers(t *testing.T) {
	m := blockfs.NewMem()
	if err := m.MkdirAll(testDir); err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{poolFile: "pool.json", "chunk-00000000": "chunk.bin"} {
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		if name != poolFile {
			b = append(b, make([]byte, testChunk-len(b))...)
		}
		if err := blockfs.WriteFile(m, testDir+"/"+name, b); err != nil {
			t.Fatal(err)
		}
	}
	p := mustOpen(t, poolOptions(m))
	if p.ID() != "6ae6783f4fbde91b6eb88b73a48ed247" {
		t.Fatalf("pool id %q", p.ID())
	}
	r, err := Recover(p, diskA, 42, func(e uint32, _, _ uint64) bool { return e == 3 })
	if err != nil {
		t.Fatal(err)
	}
	want := []*Batch{batchOf(write{cluster: 5, n: 1, kind: KindData, ver: 1}, write{cluster: 9, n: 4, kind: KindZero})}
	if _, err := checkTail(r, 4, 42, want); err != nil {
		t.Fatal(err)
	}
	if r.MaxSeq != 43 || r.MaxTime != 1000 {
		t.Fatalf("MaxSeq %d, MaxTime %d", r.MaxSeq, r.MaxTime)
	}
}
