package blockfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// systems are the implementations under the conformance tests.
func systems(t *testing.T) map[string]FS {
	t.Helper()
	osfs, err := OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]FS{
		"os":          osfs,
		"os buffered": &osFS{root: t.TempDir()}, // as where O_DIRECT is refused
		"mem":         NewMem(),
		"inject":      Inject(NewMem(), func(OpInfo) error { return nil }),
	}
}

// onAll runs a test on every implementation.
func onAll(t *testing.T, test func(t *testing.T, fsys FS)) {
	for name, fsys := range systems(t) {
		t.Run(name, func(t *testing.T) { test(t, fsys) })
	}
}

func mustOpen(t *testing.T, fsys FS, name string, flag Flag) File {
	t.Helper()
	f, err := fsys.Open(name, flag)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustBe(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error %v, want %v", what, err, want)
	}
}

func mustWrite(t *testing.T, f File, data []byte, off int64) {
	t.Helper()
	n, err := f.WriteAt(data, off)
	if err != nil || n != len(data) {
		t.Fatalf("write %d at %d: %d, %v", len(data), off, n, err)
	}
}

// pattern returns n bytes that differ from those of other seeds in every
// sector.
func pattern(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// aligned returns a copy of b in an aligned buffer.
func aligned(b []byte) []byte {
	a := AlignedBuffer(len(b))
	copy(a, b)
	return a
}

// contentOf reads a whole file.
func contentOf(t *testing.T, fsys FS, name string) []byte {
	t.Helper()
	b, err := ReadFile(fsys, name, 1<<30)
	must(t, err)
	return b
}

func TestReadWrite(t *testing.T) {
	onAll(t, func(t *testing.T, fsys FS) {
		f := mustOpen(t, fsys, "f", Write|Create)
		want := make([]byte, 30000)
		for i, w := range []struct{ off, n int }{
			{0, 1}, {5000, 9000}, {4095, 2}, {8192, 4096}, {100, 20000}, {29999, 1}, {12288, 8192}, {7, 0},
		} {
			data := pattern(uint64(i), w.n)
			mustWrite(t, f, data, int64(w.off))
			copy(want[w.off:], data)
			clear(data) // the buffer is the caller's again
		}
		for _, r := range []struct{ off, n int }{{0, 30000}, {1, 4095}, {4096, 4096}, {29990, 10}, {25000, 3}} {
			got := make([]byte, r.n)
			if n, err := f.ReadAt(got, int64(r.off)); n != r.n || err != nil {
				t.Fatalf("read %v: %d, %v", r, n, err)
			}
			if !bytes.Equal(got, want[r.off:r.off+r.n]) {
				t.Fatalf("read %v: wrong bytes", r)
			}
		}
		got := make([]byte, 100)
		if n, err := f.ReadAt(got, 29950); n != 50 || err != io.EOF || !bytes.Equal(got[:50], want[29950:]) {
			t.Fatalf("read over the end: %d, %v", n, err)
		}
		if n, err := f.ReadAt(got, 99999); n != 0 || err != io.EOF {
			t.Fatalf("read beyond the end: %d, %v", n, err)
		}
		if _, err := f.ReadAt(got, -1); err == nil {
			t.Fatal("read at -1 succeeded")
		}
		if _, err := f.WriteAt(got, -1); err == nil {
			t.Fatal("write at -1 succeeded")
		}
		must(t, f.Sync())
		must(t, f.Close())
		if _, err := f.ReadAt(got, 0); !errors.Is(err, fs.ErrClosed) {
			t.Fatalf("read after close: %v", err)
		}
		mustBe(t, "second close", f.Close(), fs.ErrClosed)
	})
}

func TestTruncate(t *testing.T) {
	onAll(t, func(t *testing.T, fsys FS) {
		f := mustOpen(t, fsys, "f", Write|Create)
		want := pattern(1, 20000)
		mustWrite(t, f, want, 0)
		for _, size := range []int{15000, 15001, 9000, 4096, 12288, 0, 5000} {
			must(t, f.Truncate(int64(size)))
			want = append(want[:min(size, len(want)):min(size, len(want))], make([]byte, max(0, size-len(want)))...)
			if n, err := f.Size(); err != nil || n != int64(size) {
				t.Fatalf("size %d, %v; want %d", n, err, size)
			}
			if got := contentOf(t, fsys, "f"); !bytes.Equal(got, want) {
				t.Fatalf("content after truncate to %d differs", size)
			}
		}
		if err := f.Truncate(-1); err == nil {
			t.Fatal("truncate to -1 succeeded")
		}
		must(t, f.Close())
	})
}

func TestPreallocate(t *testing.T) {
	onAll(t, func(t *testing.T, fsys FS) {
		for _, flag := range []Flag{Write | Create, Write | Create | Direct | DSync} {
			name := fmt.Sprint("f", int(flag))
			f := mustOpen(t, fsys, name, flag)
			head := aligned(pattern(1, Alignment))
			mustWrite(t, f, head, 0)
			size := int64(2*prewriteSize + 3*Alignment)
			for _, ask := range []int64{size, size, Alignment} { // grow, the same, smaller
				must(t, f.Preallocate(ask))
				if n, err := f.Size(); err != nil || n != size {
					t.Fatalf("size %d, %v after %d", n, err, ask)
				}
			}
			want := append(bytes.Clone(head), make([]byte, size-Alignment)...)
			if !bytes.Equal(contentOf(t, fsys, name), want) {
				t.Fatal("preallocated content differs")
			}
			if flag&Direct != 0 {
				mustBe(t, "unaligned", f.Preallocate(size+1), ErrUnaligned)
			}
			if err := f.Preallocate(-1); err == nil {
				t.Fatal("preallocate -1 succeeded")
			}
			must(t, f.Close())
		}
	})
}

func TestDirectAlignment(t *testing.T) {
	onAll(t, func(t *testing.T, fsys FS) {
		f := mustOpen(t, fsys, "f", Write|Create|Direct|DSync)
		buf := aligned(pattern(1, 2*Alignment))
		mustWrite(t, f, buf, Alignment)
		odd := AlignedBuffer(2 * Alignment)[1 : Alignment+1]
		for _, c := range []struct {
			what string
			p    []byte
			off  int64
		}{
			{"offset", buf, 512}, {"length", buf[:512], 0}, {"address", odd, 0},
		} {
			_, err := f.WriteAt(c.p, c.off)
			mustBe(t, "write "+c.what, err, ErrUnaligned)
			_, err = f.ReadAt(c.p, c.off)
			mustBe(t, "read "+c.what, err, ErrUnaligned)
		}
		got := AlignedBuffer(2 * Alignment)
		if n, err := f.ReadAt(got, Alignment); err != nil || n != len(got) || !bytes.Equal(got, buf) {
			t.Fatalf("read back: %d, %v", n, err)
		}
		// A file that ends inside a block reads short, with EOF.
		must(t, f.Truncate(2*Alignment+700))
		n, err := f.ReadAt(got, 2*Alignment)
		if n != 700 || err != io.EOF || !bytes.Equal(got[:n], buf[Alignment:Alignment+700]) {
			t.Fatalf("short read: %d, %v", n, err)
		}
		must(t, f.Close())
	})
}

func TestOpenFlags(t *testing.T) {
	onAll(t, func(t *testing.T, fsys FS) {
		_, err := fsys.Open("f", Write)
		mustBe(t, "absent", err, fs.ErrNotExist)
		f := mustOpen(t, fsys, "f", Write|Create|Excl)
		mustWrite(t, f, []byte("x"), 0)
		_, err = fsys.Open("f", Write|Create|Excl)
		mustBe(t, "exclusive", err, fs.ErrExist)
		g := mustOpen(t, fsys, "f", Write|Create)
		if n, err := g.Size(); n != 1 || err != nil {
			t.Fatalf("create of a present file: size %d, %v", n, err)
		}
		r := mustOpen(t, fsys, "f", Read)
		if _, err := r.WriteAt([]byte("y"), 0); err == nil {
			t.Fatal("write through a read-only file succeeded")
		}
		must(t, fsys.MkdirAll("d"))
		_, err = fsys.Open("d", Write)
		mustBe(t, "directory", err, syscall.EISDIR)
		_, err = fsys.Open("d", Read)
		mustBe(t, "directory", err, syscall.EISDIR)
		_, err = fsys.Open("f/x", Write|Create)
		mustBe(t, "below a file", err, syscall.ENOTDIR)
		_, err = fsys.Open("no/x", Write|Create)
		mustBe(t, "no parent", err, fs.ErrNotExist)
		for _, h := range []File{f, g, r} {
			must(t, h.Close())
		}
	})
}

func TestNames(t *testing.T) {
	onAll(t, func(t *testing.T, fsys FS) {
		must(t, fsys.MkdirAll("a/b/c"))
		must(t, fsys.MkdirAll("a/b/c"))
		must(t, WriteFile(fsys, "a/one", []byte("1")))
		mustBe(t, "mkdir below a file", fsys.MkdirAll("a/one/x"), syscall.ENOTDIR)
		mustBe(t, "mkdir over a file", fsys.MkdirAll("a/one"), syscall.ENOTDIR)
		must(t, fsys.Link("a/one", "a/two"))
		mustBe(t, "link over", fsys.Link("a/one", "a/two"), fs.ErrExist)
		mustBe(t, "link absent", fsys.Link("a/zero", "a/three"), fs.ErrNotExist)
		must(t, WriteFile(fsys, "a/three", []byte("333")))
		must(t, fsys.Rename("a/three", "a/b/one"))
		mustBe(t, "rename absent", fsys.Rename("a/three", "x"), fs.ErrNotExist)
		must(t, fsys.Rename("a/b/one", "a/one")) // replaces
		if got := contentOf(t, fsys, "a/one"); string(got) != "333" {
			t.Fatalf("a/one holds %q", got)
		}
		if got := contentOf(t, fsys, "a/two"); string(got) != "1" {
			t.Fatalf("a/two holds %q", got)
		}
		if err := fsys.Rename("a/one", "a/b"); err == nil {
			t.Fatal("a file replaced a directory")
		}
		mustBe(t, "remove full", fsys.Remove("a"), syscall.ENOTEMPTY)
		mustBe(t, "remove absent", fsys.Remove("nothing"), fs.ErrNotExist)
		must(t, fsys.Link("a/two", "a/same"))
		must(t, fsys.Rename("a/two", "a/same")) // one file: both names stay
		checkList(t, fsys, "a", "b/ one:3 same:1 two:1")
		must(t, fsys.SyncDir("a"))
		must(t, fsys.Remove("a/two"))
		must(t, fsys.Remove("a/same"))
		must(t, fsys.Rename("a/b", "z")) // a directory moves
		checkList(t, fsys, ".", "a/ z/")
		must(t, fsys.Remove("z/c"))
		must(t, fsys.Remove("z"))
		mustBe(t, "sync absent", fsys.SyncDir("z"), fs.ErrNotExist)
		_, err := fsys.List("z")
		mustBe(t, "list absent", err, fs.ErrNotExist)
		info, err := fsys.Stat("a/one")
		if err != nil || info.Size != 3 || info.Dir || info.Name != "one" {
			t.Fatalf("stat: %+v, %v", info, err)
		}
		_, err = fsys.Stat("a/two")
		mustBe(t, "stat absent", err, fs.ErrNotExist)
	})
}

// checkList compares List and ListNames with "dir/ file:size ...".
func checkList(t *testing.T, fsys FS, dir, want string) {
	t.Helper()
	infos, err := fsys.List(dir)
	must(t, err)
	names, err := fsys.ListNames(dir)
	must(t, err)
	if len(names) != len(infos) {
		t.Fatalf("%d names, %d entries", len(names), len(infos))
	}
	var got []string
	for i, e := range infos {
		if names[i].Name != e.Name || names[i].Dir != e.Dir || names[i].Size != 0 {
			t.Fatalf("name %+v, entry %+v", names[i], e)
		}
		if e.Dir {
			got = append(got, e.Name+"/")
		} else {
			got = append(got, fmt.Sprintf("%s:%d", e.Name, e.Size))
		}
	}
	if s := strings.Join(got, " "); s != want {
		t.Fatalf("list %s: %q, want %q", dir, s, want)
	}
}

func TestPathsStayInside(t *testing.T) {
	onAll(t, func(t *testing.T, fsys FS) {
		for _, p := range []string{"../x", "a/../../x", "/etc/x", "a/..", "x\x00y"} {
			_, err := fsys.Open(p, Write|Create)
			mustBe(t, "open "+p, err, fs.ErrInvalid)
			mustBe(t, "remove "+p, fsys.Remove(p), fs.ErrInvalid)
			mustBe(t, "rename "+p, fsys.Rename(p, "x"), fs.ErrInvalid)
			mustBe(t, "rename to "+p, fsys.Rename("x", p), fs.ErrInvalid)
			mustBe(t, "link "+p, fsys.Link(p, "x"), fs.ErrInvalid)
			mustBe(t, "link to "+p, fsys.Link("x", p), fs.ErrInvalid)
			mustBe(t, "mkdir "+p, fsys.MkdirAll(p), fs.ErrInvalid)
			mustBe(t, "sync "+p, fsys.SyncDir(p), fs.ErrInvalid)
			_, err = fsys.List(p)
			mustBe(t, "list "+p, err, fs.ErrInvalid)
			_, err = fsys.Stat(p)
			mustBe(t, "stat "+p, err, fs.ErrInvalid)
		}
		must(t, fsys.MkdirAll("."))
		must(t, fsys.MkdirAll("a//b/./c"))
		_, err := fsys.Stat("a/b/c")
		must(t, err)
	})
}

func TestWriteFileReplaces(t *testing.T) {
	onAll(t, func(t *testing.T, fsys FS) {
		// A leftover of an earlier crash is in the way.
		f := mustOpen(t, fsys, "f"+TempSuffix, Write|Create)
		mustWrite(t, f, pattern(1, 9999), 0)
		must(t, f.Close())
		for i, n := range []int{5000, 0, 3} {
			want := pattern(uint64(i), n)
			must(t, WriteFile(fsys, "f", want))
			if !bytes.Equal(contentOf(t, fsys, "f"), want) {
				t.Fatalf("content of %d bytes differs", n)
			}
		}
		checkList(t, fsys, ".", "f:3")
		_, err := ReadFile(fsys, "f", 2)
		if err == nil {
			t.Fatal("ReadFile read more than its limit")
		}
		_, err = ReadFile(fsys, "none", 2)
		mustBe(t, "absent", err, fs.ErrNotExist)
	})
}

func TestRemovedFileStaysReadable(t *testing.T) {
	onAll(t, func(t *testing.T, fsys FS) {
		must(t, WriteFile(fsys, "f", []byte("old")))
		f := mustOpen(t, fsys, "f", Read)
		must(t, WriteFile(fsys, "f", []byte("new")))
		got := make([]byte, 3)
		if _, err := f.ReadAt(got, 0); err != nil || string(got) != "old" {
			t.Fatalf("%q, %v", got, err)
		}
		must(t, f.Close())
	})
}

func TestConcurrentUse(t *testing.T) {
	const workers, rounds = 8, 30
	onAll(t, func(t *testing.T, fsys FS) {
		f := mustOpen(t, fsys, "shared", Write|Create)
		var wg sync.WaitGroup
		errs := make(chan error, workers)
		for w := range workers {
			wg.Go(func() {
				for i := range rounds {
					data := pattern(uint64(w*rounds+i), 1000)
					off := int64(w * 1000)
					_, err := f.WriteAt(data, off)
					got := make([]byte, 1000)
					if err == nil {
						_, err = f.ReadAt(got, off)
					}
					if err == nil && !bytes.Equal(got, data) {
						err = fmt.Errorf("worker %d round %d read something else", w, i)
					}
					name := fmt.Sprintf("dir%d/f%d", w%2, w)
					err = errors.Join(err, fsys.MkdirAll(fmt.Sprintf("dir%d", w%2)))
					if i%10 == 0 {
						err = errors.Join(err, WriteFile(fsys, name, data), fsys.Remove(name), f.Sync())
					}
					if err != nil {
						errs <- err
						return
					}
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			t.Error(err)
		}
		must(t, f.Close())
	})
}

func TestOSRoot(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "a", "b")
	for range 2 { // made, then found
		fsys, err := OS(root)
		must(t, err)
		checkList(t, fsys, ".", "") // the probe is gone
	}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { _, errs[i] = OS(root) })
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	file := filepath.Join(base, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	_, err := OS(file)
	mustBe(t, "root is a file", err, syscall.ENOTDIR)
	_, err = OS(filepath.Join(file, "x"))
	mustBe(t, "root below a file", err, syscall.ENOTDIR)
}

func TestAlignedBuffer(t *testing.T) {
	for _, n := range []int{0, 1, 512, 4096, 4097, 1 << 20} {
		b := AlignedBuffer(n)
		if len(b) != n || cap(b) != n {
			t.Fatalf("%d bytes: len %d cap %d", n, len(b), cap(b))
		}
		if n%Alignment == 0 {
			must(t, checkAligned("b", b, 0))
		}
	}
}

func TestUsage(t *testing.T) {
	onAll(t, func(t *testing.T, fsys FS) {
		total, free, err := fsys.Usage()
		if err != nil || total <= 0 || free <= 0 || free > total {
			t.Fatalf("total %d, free %d, %v", total, free, err)
		}
	})
}

func TestCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(10 * pageSize)
	free := func() int64 {
		_, free, err := m.Usage()
		must(t, err)
		return free / pageSize
	}
	f := mustOpen(t, m, "f", Write|Create)
	must(t, f.Preallocate(6*pageSize))
	if free() != 4 {
		t.Fatalf("%d pages free after preallocation", free())
	}
	mustWrite(t, f, pattern(1, 6*pageSize), 0) // inside what is reserved
	must(t, f.Truncate(20*pageSize))           // a hole takes nothing
	_, err := f.WriteAt(pattern(1, 5*pageSize), 10*pageSize)
	mustBe(t, "write", err, syscall.ENOSPC)
	mustBe(t, "preallocate", f.Preallocate(26*pageSize), syscall.ENOSPC)
	mustWrite(t, f, pattern(1, 3*pageSize+1), 10*pageSize)
	if free() != 0 {
		t.Fatalf("%d pages free when full", free())
	}
	c := m.Crash(CrashConfig{Unsynced: KeepAll})
	if _, left, _ := c.Usage(); left != 0 {
		t.Fatalf("%d bytes free after a crash", left)
	}
	must(t, m.Remove("f"))
	if free() != 0 {
		t.Fatal("an open file gave its space back")
	}
	must(t, f.Close())
	if free() != 10 {
		t.Fatalf("%d pages free at the end", free())
	}
	g := mustOpen(t, m, "g", Write|Create)
	_, err = g.WriteAt([]byte("x"), memFileMax)
	mustBe(t, "huge", err, syscall.EFBIG)
	must(t, g.Close())
}
