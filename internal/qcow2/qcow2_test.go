package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// qemuImg runs the real one.
func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// rawDisk writes a raw image with data, zeros and holes.
func rawDisk(t *testing.T, dir string, size int64) (path string, content []byte) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(size), 1))
	content = make([]byte, size)
	for off := int64(0); off < size; {
		n := min(512*(1+r.Int64N(400)), size-off)
		switch r.IntN(3) {
		case 0: // noise, which does not compress
			for i := range n {
				content[off+i] = byte(r.Uint32())
			}
		case 1: // text, which does
			for i := range n {
				content[off+i] = "to be compressed "[i%17]
			}
		}
		off += n
	}
	path = filepath.Join(dir, "raw")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// readAll returns the disk of an image, of at most limit bytes.
func readAll(b io.ReaderAt, size, limit int64) ([]byte, error) {
	r, err := NewReader(b, size)
	if err != nil {
		return nil, err
	}
	if r.Size() > limit {
		return nil, fmt.Errorf("a disk of %d bytes", r.Size())
	}
	out, last := make([]byte, r.Size()), int64(-1)
	err = r.Each(func(off int64, p []byte) error {
		if off <= last || off+int64(len(p)) > r.Size() {
			return fmt.Errorf("%d bytes at %d after %d", len(p), off, last)
		}
		last = off
		copy(out[off:], p)
		return nil
	})
	return out, err
}

func readFile(t *testing.T, path string) ([]byte, error) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return readAll(bytes.NewReader(b), int64(len(b)), 1<<30)
}

// TestRead: what qemu-img writes is read, in every version, cluster size and form.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int64{512, 65536 + 512, 3<<20 + 1536, 9 << 20} {
		raw, want := rawDisk(t, dir, size)
		for i, o := range [][]string{
			{"compat=1.1"}, {"compat=0.10"}, {"compat=1.1,cluster_size=512"}, {"compat=0.10,cluster_size=4k"}, {"cluster_size=2M"},
			{"preallocation=metadata"}, {"preallocation=falloc,cluster_size=4k"}, {"lazy_refcounts=on"}, {"refcount_bits=1"},
			{"compat=1.1", "-c"}, {"compat=0.10,cluster_size=512", "-c"}, {"cluster_size=2M", "-c"},
		} {
			path := filepath.Join(dir, "q")
			qemuImg(t, append([]string{"convert", "-f", "raw", "-O", "qcow2", raw, path, "-o", o[0]}, o[1:]...)...)
			got, err := readFile(t, path)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, case %d (%v): differs, or %v", size, i, o, err)
			}
		}
	}
}

// TestWrite: qemu-img finds nothing wrong with what is written, and the same disk in it.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int64{512, ClusterSize, 3<<20 + 1536, 40 << 20, 600 << 20} {
		raw, want := rawDisk(t, dir, min(size, 40<<20))
		if err := os.Truncate(raw, size); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "q")
		if size > 40<<20 { // data behind the first L2 table
			copy(want, "0123")
			f, err := os.OpenFile(raw, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(want[:ClusterSize], 560<<20); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		b, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, b)
		qemuImg(t, "check", "-f", "qcow2", path)
		qemuImg(t, "compare", "-f", "raw", "-F", "qcow2", raw, path)
		if got, err := readFile(t, path); err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes: read back differs, or %v", size, err)
		}
	}
}

// write writes an image without the clusters that are zero.
func write(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := NewWriter(f, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	zero := make([]byte, ClusterSize)
	for off := 0; off < len(b); off += ClusterSize {
		p := b[off:min(len(b), off+ClusterSize)]
		if bytes.Equal(p, zero[:len(p)]) {
			continue
		}
		if err := w.WriteCluster(p, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if IsImage(f) {
		t.Error("it looks like an image before it is finished")
	}
	if err := w.Finish(f.Sync); err != nil {
		t.Fatal(err)
	}
}

// TestWriteLarge: tables of the largest disk, and enough clusters for several refcount
// blocks, written to a file with holes.
func TestWriteLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "q")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := NewWriter(holes{f}, MaxSize)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, ClusterSize)
	p[0] = 1
	for i := range int64(3 * perRefcount) {
		if err := w.WriteCluster(p, (i+i/1000*70_000)*ClusterSize); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteCluster(p, MaxSize-ClusterSize); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(f.Sync); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "check", "-f", "qcow2", path)
}

// holes does not write what is zero but for its first byte.
type holes struct{ f *os.File }

func (h holes) WriteAt(p []byte, off int64) (int, error) {
	if len(p) == ClusterSize && p[0] == 1 {
		return len(p), nil
	}
	return h.f.WriteAt(p, off)
}

// put changes bytes of an image.
func put(b []byte, at int, v any) []byte {
	b = bytes.Clone(b)
	switch v := v.(type) {
	case uint32:
		binary.BigEndian.PutUint32(b[at:], v)
	case uint64:
		binary.BigEndian.PutUint64(b[at:], v)
	}
	return b
}

// TestRefused: what is hostile, damaged, or not a whole disk is refused, with what and
// why; nothing is read in circles or beyond the file.
func TestRefused(t *testing.T) {
	dir := t.TempDir()
	raw, _ := rawDisk(t, dir, 2<<20)
	path := filepath.Join(dir, "q")
	image := func(args ...string) []byte {
		t.Helper()
		qemuImg(t, append([]string{"create", "-q", "-f", "qcow2"}, args...)...)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	backed := image("-b", raw, "-F", "raw", path)
	external := image("-o", "data_file="+filepath.Join(dir, "data"), path, "1M")
	extended := image("-o", "extended_l2=on", path, "1M")
	// Not LUKS, which measures the processor first, and gives up on a busy one.
	encrypted := image("--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s", path, "1M")
	image(path, "1M")
	qemuImg(t, "snapshot", "-c", "s", path)
	snapshots, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-f", "raw", "-O", "qcow2", raw, path)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-c", "-f", "raw", "-O", "qcow2", raw, path)
	packed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l1 := int(binary.BigEndian.Uint64(good[40:]))
	l2 := int(binary.BigEndian.Uint64(good[l1:]) & offsetMask)
	entry := 0 // the first with data
	for ; binary.BigEndian.Uint64(good[l2+8*entry:])&offsetMask == 0; entry++ {
	}
	data := binary.BigEndian.Uint64(good[l2+8*entry:])
	pl2 := int(binary.BigEndian.Uint64(packed[binary.BigEndian.Uint64(packed[40:]):]) & offsetMask)
	pentry := 0
	for ; binary.BigEndian.Uint64(packed[pl2+8*pentry:])&flagCompressed == 0; pentry++ {
	}
	for _, c := range []struct {
		why  string
		b    []byte
		want string
	}{
		{"nothing", nil, "no image"}, {"a raw image", make([]byte, 4096), "does not begin"}, {"half a header", good[:80], "beyond the end"},
		{"backing file", backed, "backing file"}, {"external data", external, "external"}, {"extended L2", extended, "extended"},
		{"encrypted", encrypted, "encrypted"}, {"snapshots", snapshots, "internal snapshots"},
		{"version", put(good, 4, uint32(4)), "version 4"}, {"dirty", put(good, 72, uint64(1)), "not closed"}, {"corrupt", put(good, 72, uint64(2)), "damaged"},
		{"zstd", put(good, 72, uint64(8)), "compression"}, {"unknown feature", put(good, 72, uint64(1<<40)), "not known"},
		{"tiny clusters", put(good, 20, uint32(8)), "2^8"}, {"huge clusters", put(good, 20, uint32(64)), "2^64"},
		{"no size", put(good, 24, uint64(0)), "0 bytes"}, {"too large", put(good, 24, uint64(64<<40+512)), "64 TiB"}, {"odd size", put(good, 24, uint64(1000)), "1000 bytes"},
		{"small L1", put(good, 24, uint64(1<<40)), "needs"}, {"huge L1", put(good, 36, uint32(1<<31)), "larger than"}, {"L1 away", put(good, 40, uint64(1<<40)), "L1 table at"},
		{"L1 unaligned", put(good, 40, uint64(l1+8)), "L1 table at"}, {"L1 negative", put(good, 40, uint64(1)<<63), "L1 table at"},
		{"L1 in the header", put(good, 40, uint64(0)), "L1 table at"}, {"refcounts away", put(good, 48, uint64(1<<40)), "refcount table at"},
		{"refcounts on L1", put(good, 48, uint64(l1)), "something else"}, {"many refcounts", put(good, 56, uint32(1<<31)), "larger than"}, {"short header", put(good, 100, uint32(72)), "header of 72"},
		{"extension", put(good, 116, uint32(1<<31)), "extensions"},
		{"L2 away", put(good, l1, uint64(1<<40)), "beyond the end"}, {"L2 unaligned", put(good, l1, uint64(l2+512)), "L1 entry 0"}, {"L2 on L1", put(good, l1, uint64(l1)), "something else"},
		{"L2 in the header", put(good, l1, flagCopied|uint64(0)), "L1 entry 0"}, {"L1 reserved", put(good, l1, uint64(l2)|1<<60), "L1 entry 0"},
		{"data away", put(good, l2, uint64(1<<40)), "beyond the end"}, {"data unaligned", put(good, l2, data+512), "L2 entry"}, {"data on L2", put(good, l2, uint64(l2)), "something else"},
		{"data twice", put(good, l2+8*(entry+1), data), "something else"}, {"reserved", put(good, l2, data|1<<57), "L2 entry"}, {"zero flag in version 2", put(put(good, 4, uint32(2)), l2, data|1), "L2 entry"},
		{"copied from nowhere", put(good, l2, uint64(flagCopied)), "L2 entry"}, {"compressed away", put(packed, pl2+8*pentry, flagCompressed|uint64(1)<<40), "L2 entry"},
		{"compressed header", put(packed, pl2+8*pentry, uint64(flagCompressed)), "L2 entry"}, {"compressed nonsense", put(packed, pl2+8*pentry, flagCompressed|uint64(1000)), "damaged"},
		{"truncated", good[:len(good)-70000], "beyond the end"},
	} {
		_, err := readAll(bytes.NewReader(c.b), int64(len(c.b)), 1<<50)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.why, err, c.want)
		}
	}
	// One compressed cluster for all of the disk would make much of little.
	bomb := bytes.Clone(packed[:pl2+ClusterSize])
	bomb = append(bomb, packed[len(bomb):min(len(packed), pl2+3*ClusterSize)]...)
	e := binary.BigEndian.Uint64(packed[pl2+8*pentry:])
	for i := range ClusterSize / 8 {
		binary.BigEndian.PutUint64(bomb[pl2+8*i:], e)
	}
	binary.BigEndian.PutUint64(bomb[24:], 512<<20)
	if _, err := readAll(bytes.NewReader(bomb), int64(len(bomb)), 1<<30); !errors.Is(err, ErrRefused) {
		t.Errorf("a compressed cluster 8192 times: %v", err)
	}
}

// FuzzRead: no file makes the reader panic, read more than the disk has, or give
// clusters out of order.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.qcow2")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := readAll(bytes.NewReader(b), int64(len(b)), 1<<20)
		if err != nil && !errors.Is(err, ErrRefused) && !strings.Contains(err.Error(), "a disk of") {
			t.Fatal(err)
		}
	})
}
