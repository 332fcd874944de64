package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/leaktest"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
)

// lockHelperEnv makes the test binary a process that takes a lock and reports.
const lockHelperEnv = "LOCAL_TEST_LOCK_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(lockHelperEnv); dir != "" {
		_, err := Lock(dir)
		fmt.Println(errors.Is(err, backend.ErrInUse), err == nil)
		os.Exit(0)
	}
	leaktest.Main(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t *testing.T, fsys blockfs.FS) *Store {
	t.Helper()
	s, err := Open(fsys, Options{})
	must(t, err)
	return s
}

func TestConformance(t *testing.T) {
	t.Run("os", func(t *testing.T) {
		backendtest.Run(t, backendtest.Options{New: func(t *testing.T) backend.Store {
			fsys, err := blockfs.OS(t.TempDir())
			must(t, err)
			return mustOpen(t, fsys)
		}})
	})
	t.Run("mem", func(t *testing.T) {
		backendtest.Run(t, backendtest.Options{New: func(t *testing.T) backend.Store {
			return mustOpen(t, blockfs.NewMem())
		}})
	})
	t.Run("one open file", func(t *testing.T) {
		backendtest.Run(t, backendtest.Options{
			New: func(t *testing.T) backend.Store {
				s, err := Open(blockfs.NewMem(), Options{OpenFiles: 1})
				must(t, err)
				return s
			},
			LargeBytes: 1 << 20,
		})
	})
}

// The layout is what the package comment draws, and stays readable for ever.
func TestLayout(t *testing.T) {
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	for _, name := range []string{"head", "head/7", "v1/sco/a.7"} {
		must(t, s.Put(t.Context(), name, []byte(name)))
	}
	for file, want := range map[string]string{
		"format": "ovgate local store 1\n", "objects/head": "head", "objects/head~/7": "head/7", "objects/v1~/sco~/a.7": "v1/sco/a.7",
	} {
		got, err := blockfs.ReadFile(m, file, 100)
		must(t, err)
		if string(got) != want {
			t.Errorf("%s holds %q, want %q", file, got, want)
		}
	}
	left, err := m.List("tmp")
	must(t, err)
	if len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
	must(t, s.Delete(t.Context(), "v1/sco/a.7"))
	if _, err := m.Stat("objects/v1~"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty directories stay: %v", err)
	}
	must(t, s.Close())
}

// The operations below each call, in order: what the package comment promises.
func TestTranscript(t *testing.T) {
	var log []string
	s := mustOpen(t, blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
		_, line, _ := strings.Cut(op.String(), " ")
		log = append(log, line)
		return nil
	}))
	for _, c := range []struct {
		name string
		call func() error
		want string
	}{
		{"first Put", func() error { return s.Put(t.Context(), "v/a", []byte("abc")) }, `
			open tmp/1, write tmp/1 [0,+3), sync tmp/1, mkdir objects/v~,
			rename tmp/1 to objects/v~/a, syncdir objects/v~`},
		{"second Put", func() error { return s.Put(t.Context(), "v/b", nil) }, `
			open tmp/2, sync tmp/2, rename tmp/2 to objects/v~/b, syncdir objects/v~`},
		{"PutIfAbsent", func() error { return s.PutIfAbsent(t.Context(), "v/c", []byte("x")) }, `
			stat objects/v~/c, open tmp/3, write tmp/3 [0,+1), sync tmp/3,
			link tmp/3 to objects/v~/c, syncdir objects/v~, remove tmp/3`},
		{"first ReadAt", func() error { return s.ReadAt(t.Context(), "v/a", make([]byte, 2), 1) }, `
			open objects/v~/a, read objects/v~/a [1,+2)`},
		{"second ReadAt", func() error { return s.ReadAt(t.Context(), "v/a", make([]byte, 1), 0) }, `
			read objects/v~/a [0,+1)`},
		{"Delete", func() error { return s.Delete(t.Context(), "v/b") }, `
			remove objects/v~/b, syncdir objects/v~, remove objects/v~`},
	} {
		log = nil
		must(t, c.call())
		if got, want := strings.Join(log, ", "), strings.Join(strings.Fields(c.want), " "); got != want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, want)
		}
	}
	must(t, s.Close())
}

func TestOpen(t *testing.T) {
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	must(t, s.Put(t.Context(), "v/o", []byte("kept")))
	must(t, s.Close())
	// Leftovers go, objects stay, temporary names start over.
	must(t, blockfs.WriteFile(m, "tmp/1", []byte("unfinished")))
	s = mustOpen(t, m)
	if _, err := m.Stat("tmp/1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("leftover: %v", err)
	}
	got, err := s.Get(t.Context(), "v/o", 10)
	must(t, err)
	if string(got) != "kept" {
		t.Errorf("read %q", got)
	}
	must(t, s.Put(t.Context(), "v/p", nil))
	must(t, s.Close())

	must(t, blockfs.WriteFile(m, "format", []byte("ovgate local store 2\n")))
	if _, err := Open(m, Options{}); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("newer format: %v", err)
	}
	must(t, m.Remove("format"))
	if _, err := Open(m, Options{}); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("no format: %v", err)
	}
}

func TestLock(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "store")
	lock, err := Lock(dir)
	must(t, err)
	other := func() string {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), lockHelperEnv+"="+dir)
		out, err := cmd.Output()
		must(t, err)
		return strings.TrimSpace(string(out))
	}
	if got := other(); got != "true false" {
		t.Errorf("another process while locked: in use, taken = %s", got)
	}
	if _, err := Lock(dir); !errors.Is(err, backend.ErrInUse) {
		t.Errorf("a second lock of this process: %v", err)
	}
	// The lock file does not disturb the store.
	fsys, err := blockfs.OS(dir)
	must(t, err)
	must(t, mustOpen(t, fsys).Close())
	must(t, lock.Close())
	if got := other(); got != "false true" {
		t.Errorf("another process after release: in use, taken = %s", got)
	}
}

func TestFull(t *testing.T) {
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	m.SetCapacity(1 << 20)
	must(t, s.Put(t.Context(), "v/small", make([]byte, 1<<19)))
	for range 3 {
		if err := s.Put(t.Context(), "v/large", make([]byte, 3<<20)); !errors.Is(err, backend.ErrFull) {
			t.Fatalf("put: %v", err)
		}
		if err := s.PutIfAbsent(t.Context(), "v/large", make([]byte, 3<<20)); !errors.Is(err, backend.ErrFull) {
			t.Fatalf("put if absent: %v", err)
		}
	}
	if left, _ := m.List("tmp"); len(left) != 0 {
		t.Fatalf("left in tmp: %v", left)
	}
	must(t, s.Delete(t.Context(), "v/small")) // deletes work on a full disk
	must(t, s.Put(t.Context(), "v/fits", make([]byte, 1<<19)))
	u, err := s.Usage(t.Context())
	must(t, err)
	if u.Total != 1<<20 || u.Free >= 1<<20 {
		t.Fatalf("usage %+v", u)
	}
	must(t, s.Close())
}

// Failures of the file system at every operation of a Put: the error comes back,
// the object is absent or whole, nothing is left open or in tmp, and a retry
// succeeds.
func TestFailureAtEveryOperation(t *testing.T) {
	broken := errors.New("broken")
	data := backendtest.Data(1, 2*pieceSize+5)
	puts := map[string]func(s *Store) error{
		"Put":         func(s *Store) error { return s.Put(t.Context(), "v/o", data) },
		"PutIfAbsent": func(s *Store) error { return s.PutIfAbsent(t.Context(), "v/o", data) },
	}
	for name, put := range puts {
		t.Run(name, func(t *testing.T) {
			failed := true
			for at := 1; failed; at++ {
				var ops, fuse atomic.Int64
				fsys := blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
					if fuse.Load() > 0 && ops.Add(1) == fuse.Load() {
						return blockfs.Partial(1000, broken)
					}
					return nil
				})
				s := mustOpen(t, fsys)
				fuse.Store(int64(at))
				err := put(s)
				failed = ops.Load() >= int64(at)
				fuse.Store(0)
				if err != nil && !errors.Is(err, broken) {
					t.Fatalf("operation %d: %v", at, err)
				}
				got, gerr := s.Get(t.Context(), "v/o", 1<<30)
				if err == nil && gerr != nil || gerr == nil && !bytes.Equal(got, data) || gerr != nil && !errors.Is(gerr, backend.ErrNotExist) {
					t.Fatalf("operation %d: put %v, then get %d bytes, %v", at, err, len(got), gerr)
				}
				if rerr := put(s); rerr != nil && !(errors.Is(rerr, backend.ErrExists) && gerr == nil) {
					t.Fatalf("retry after operation %d: %v", at, rerr)
				}
				must(t, s.Close())
				must(t, mustOpen(t, fsys).Close())
				if at > 100 {
					t.Fatal("a Put has more than 100 operations")
				}
			}
		})
	}
}

// TestAway: while the directory is not there no object is absent, none is deleted, and
// none is in a list that is empty (L7).
func TestAway(t *testing.T) {
	ctx := t.Context()
	root := filepath.Join(t.TempDir(), "store")
	must(t, os.Mkdir(root, 0o700))
	fsys, err := blockfs.OS(root)
	must(t, err)
	s := mustOpen(t, fsys)
	data := backendtest.Data(1, 5000)
	must(t, s.Put(ctx, "v/o", data))
	calls := map[string]func() error{
		"Get":         func() error { _, err := s.Get(ctx, "v/o", 1<<20); return err },
		"ReadAt":      func() error { return s.ReadAt(ctx, "v/o", make([]byte, 10), 0) },
		"Stat":        func() error { _, err := s.Stat(ctx, "v/o"); return err },
		"List":        func() error { _, err := s.List(ctx, "v/", "", 0); return err },
		"Delete":      func() error { return s.Delete(ctx, "v/o") },
		"Put":         func() error { return s.Put(ctx, "v/p", data) },
		"PutIfAbsent": func() error { return s.PutIfAbsent(ctx, "v/p", data) },
		"Usage":       func() error { _, err := s.Usage(ctx); return err },
	}
	for kind, away := range map[string]func(){
		"renamed":         func() { must(t, os.Rename(root, root+".away")) },
		"not mounted yet": func() { must(t, os.Rename(root, root+".away")); must(t, os.Mkdir(root, 0o700)) },
	} {
		away()
		for name, call := range calls {
			if err := call(); !errors.Is(err, errAway) || errors.Is(err, backend.ErrNotExist) {
				t.Errorf("%s: %s: %v", kind, name, err)
			}
		}
		must(t, errors.Join(os.RemoveAll(root), os.Rename(root+".away", root)))
		if got, err := s.Get(ctx, "v/o", 1<<20); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s, then back: %d bytes, %v", kind, len(got), err)
		}
		must(t, s.files.drop("v/o"))
	}
	must(t, s.Close())
}

// TestBackAgain: a directory that comes back after the call and before the look at it
// does not make an object absent.
func TestBackAgain(t *testing.T) {
	var away atomic.Bool
	s := mustOpen(t, blockfs.Inject(blockfs.NewMem(), func(blockfs.OpInfo) error {
		if away.Swap(false) {
			return fs.ErrNotExist
		}
		return nil
	}))
	must(t, s.Put(t.Context(), "v/o", []byte("data")))
	for name, call := range map[string]func() error{
		"Stat":   func() error { _, err := s.Stat(t.Context(), "v/o"); return err },
		"ReadAt": func() error { return s.ReadAt(t.Context(), "v/o", make([]byte, 4), 0) },
	} {
		away.Store(true)
		if err := call(); err != nil || away.Load() {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, s.Close())
}

// A cached file is not used for a name that was replaced or deleted, and is
// closed when its last reader is done.
func TestFileCache(t *testing.T) {
	var open atomic.Int64
	s := mustOpen(t, countingFS{blockfs.NewMem(), &open})
	p := make([]byte, 3)
	must(t, s.Put(t.Context(), "o", []byte("one")))
	must(t, s.ReadAt(t.Context(), "o", p, 0))
	base := open.Load()
	must(t, s.ReadAt(t.Context(), "o", p, 0))
	if open.Load() != base || base != 1 {
		t.Fatalf("%d files open", open.Load())
	}
	h, err := s.open("o") // a reader under way
	must(t, err)
	must(t, s.Put(t.Context(), "o", []byte("two")))
	must(t, s.ReadAt(t.Context(), "o", p, 0))
	if string(p) != "two" {
		t.Fatalf("read %q after replacement", p)
	}
	must(t, h.read(t.Context(), p, 0))
	if string(p) != "one" {
		t.Fatalf("the reader under way got %q", p)
	}
	if open.Load() != 2 {
		t.Fatalf("%d files open, want both", open.Load())
	}
	must(t, s.files.release(h))
	must(t, s.Delete(t.Context(), "o"))
	if open.Load() != 0 {
		t.Fatalf("%d files open after delete", open.Load())
	}
	// A file opened before an invalidation and offered after it is not kept.
	_, token := s.files.get("o")
	must(t, s.Put(t.Context(), "o", []byte("new")))
	f, err := s.fs.Open("objects/o", blockfs.Read)
	must(t, err)
	h, err = s.files.put("o", f, 3, token)
	must(t, err)
	must(t, s.files.release(h))
	if open.Load() != 0 {
		t.Fatal("a file of unknown age was kept")
	}
	must(t, s.Close())
	if err := s.ReadAt(t.Context(), "o", p, 0); err == nil {
		t.Fatal("read after close")
	}
}

// The cache keeps its bound and leaks no file, with readers and writers at work.
func TestFileCacheBound(t *testing.T) {
	const objects, limit = 20, 5
	var open atomic.Int64
	s, err := Open(countingFS{blockfs.NewMem(), &open}, Options{OpenFiles: limit})
	must(t, err)
	data := backendtest.Data(1, 10000)
	for i := range objects {
		must(t, s.Put(t.Context(), fmt.Sprint("o", i), data))
	}
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for w := range errs {
		wg.Go(func() {
			p := make([]byte, 100)
			for i := range 500 {
				name := fmt.Sprint("o", (i*7+w)%objects)
				err := s.ReadAt(t.Context(), name, p, int64(i))
				if err == nil && !bytes.Equal(p, data[i:i+100]) {
					err = errors.New("wrong bytes")
				}
				if err == nil && i%50 == w {
					err = s.Put(t.Context(), name, data)
				}
				errs[w] = errors.Join(errs[w], err)
			}
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	if n := open.Load(); n > limit {
		t.Errorf("%d files open, limit %d", n, limit)
	}
	must(t, s.Close())
	if n := open.Load(); n != 0 {
		t.Errorf("%d files open after close", n)
	}
}

// countingFS counts open files.
type countingFS struct {
	blockfs.FS
	open *atomic.Int64
}

func (c countingFS) Open(path string, flag blockfs.Flag) (blockfs.File, error) {
	f, err := c.FS.Open(path, flag)
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return countingFile{f, c.open}, nil
}

type countingFile struct {
	blockfs.File
	open *atomic.Int64
}

func (c countingFile) Close() error {
	c.open.Add(-1)
	return c.File.Close()
}

// A large directory is read once per walk, shows what changes meanwhile, and is
// forgotten at the end.
func TestListLargeDirectory(t *testing.T) {
	const objects, pageLen = 3 * listingMin, 500
	var lists atomic.Int64
	s := mustOpen(t, blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
		if op.Kind == blockfs.OpList && op.Path == "objects/v~" {
			lists.Add(1)
		}
		return nil
	}))
	name := func(i int) string { return fmt.Sprintf("v/%06d", i) }
	for i := range objects {
		must(t, s.Put(t.Context(), name(i*2), nil))
	}
	seen := map[string]bool{}
	after := ""
	for page := 0; ; page++ {
		infos, err := s.List(t.Context(), "v/", after, pageLen)
		must(t, err)
		for _, info := range infos {
			if seen[info.Name] || info.Name <= after {
				t.Fatalf("%s after %s", info.Name, after)
			}
			seen[info.Name], after = true, info.Name
		}
		if len(infos) < pageLen {
			break
		}
		if page == 1 { // ahead of the walk: one comes, one goes, a directory appears
			must(t, s.Put(t.Context(), name(9001), nil))
			must(t, s.Delete(t.Context(), name(9002)))
			must(t, s.Put(t.Context(), "v/009003/x", nil))
			must(t, s.Delete(t.Context(), name(2))) // behind it
		}
	}
	if len(seen) != objects+1 || !seen[name(9001)] || seen[name(9002)] || !seen["v/009003/x"] {
		t.Fatalf("%d objects listed", len(seen))
	}
	if n := lists.Load(); n != 1 {
		t.Errorf("the directory was read %d times", n)
	}
	if n := len(s.lists.byDir); n != 0 {
		t.Errorf("%d listings kept after the walk", n)
	}
	must(t, s.Close())
}

func TestListingsBounds(t *testing.T) {
	l := newListings()
	keys := make([]string, listingMin)
	for i := range keys {
		keys[i] = fmt.Sprintf("%06d", i)
	}
	read := func() ([]string, error) { return keys, nil }
	for i := range listingsMax + 3 {
		_, err := l.get(fmt.Sprint("d", i), read)
		must(t, err)
	}
	if len(l.byDir) != listingsMax {
		t.Errorf("%d listings kept", len(l.byDir))
	}
	if _, ok := l.byDir["d0"]; ok {
		t.Error("the oldest was kept")
	}
	for i := range listingAddedMax + 1 {
		l.note(fmt.Sprint("d", listingsMax), fmt.Sprint("x", i))
	}
	if _, ok := l.byDir[fmt.Sprint("d", listingsMax)]; ok {
		t.Error("a listing grew without bound")
	}
	huge := make([]string, listingNamesMax+1)
	_, err := l.get("huge", func() ([]string, error) { return huge, nil })
	must(t, err)
	if len(l.byDir) != 0 {
		t.Errorf("%d listings kept beside too large a one", len(l.byDir))
	}
	_, err = l.get("bad", func() ([]string, error) { return nil, syscall.EIO })
	if !errors.Is(err, syscall.EIO) || len(l.byDir) != 0 {
		t.Errorf("failed read: %v, %d kept", err, len(l.byDir))
	}
}

// Foreign files are neither listed nor in the way.
func TestForeignFiles(t *testing.T) {
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	must(t, m.MkdirAll("objects/lost+found"))
	must(t, m.MkdirAll("objects/plain"))
	must(t, blockfs.WriteFile(m, "objects/UPPER", nil))
	must(t, blockfs.WriteFile(m, "objects/file~", nil))
	must(t, s.Put(t.Context(), "o", nil))
	infos, err := s.List(t.Context(), "", "", 0)
	must(t, err)
	if len(infos) != 1 || infos[0].Name != "o" {
		t.Fatalf("listed %v", infos)
	}
	must(t, s.Close())
}

// The context is looked at between pieces.
func TestCancelBetweenPieces(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	writes := 0
	s := mustOpen(t, blockfs.Inject(blockfs.NewMem(), func(op blockfs.OpInfo) error {
		if op.Kind == blockfs.OpWrite && strings.HasPrefix(op.Path, "tmp/") {
			if writes++; writes == 2 {
				cancel()
			}
		}
		return nil
	}))
	err := s.Put(ctx, "o", make([]byte, 10*pieceSize))
	if !errors.Is(err, context.Canceled) || writes != 2 {
		t.Fatalf("%d writes, %v", writes, err)
	}
	must(t, s.Close())
}

// BenchmarkReadAt reads 4 KiB ranges of one object in the page cache; the limit
// is one pread.
func BenchmarkReadAt(b *testing.B) {
	fsys, err := blockfs.OS(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(fsys, Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Put(b.Context(), "v1/sco/0", make([]byte, 16<<20)); err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 4096)
	b.SetBytes(4096)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		if err := s.ReadAt(b.Context(), "v1/sco/0", p, i%4096*4096); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// Another process at work in tmp/ is noticed, not taken for an object, and keeps
// its file.
func TestSecondUser(t *testing.T) {
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	must(t, blockfs.WriteFile(m, "tmp/1", []byte("theirs")))
	if err := s.PutIfAbsent(t.Context(), "o", nil); !errors.Is(err, backend.ErrInUse) || errors.Is(err, backend.ErrExists) {
		t.Fatalf("put if absent: %v", err)
	}
	if _, err := m.Stat("tmp/1"); err != nil {
		t.Fatalf("the other's file: %v", err)
	}
	must(t, m.Remove("tmp/1"))
	must(t, m.Remove("tmp"))
	if err := s.Put(t.Context(), "o", nil); err == nil || errors.Is(err, backend.ErrNotExist) {
		t.Fatalf("put without tmp/: %v", err)
	}
	must(t, s.Close())
}
