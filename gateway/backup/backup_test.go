package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/testseed"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/faulty"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
)

func newStore(t *testing.T, fs *blockfs.Mem) Store {
	t.Helper()
	s, err := local.Open(fs, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return Store{s}
}

// disk is content with holes.
func disk(size int64, seed uint64) []byte {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 2))
	for off := int64(0); off < size; off += ChunkBytes {
		if off/ChunkBytes%3 != 1 {
			for i := off; i < min(size, off+ChunkBytes); i += 64 {
				b[i] = byte(r.Uint32() | 1)
			}
		}
	}
	return b
}

// save makes a backup of content; fail says whether to give up before a chunk.
func save(s Store, m Manifest, content []byte, fail func(off int64) error) (*Writer, error) {
	ctx := context.Background()
	m.Size = int64(len(content))
	w, err := s.Begin(m)
	if err != nil {
		return nil, err
	}
	for off := int64(0); off < m.Size; off += ChunkBytes {
		p := content[off:min(m.Size, off+ChunkBytes)]
		if len(bytes.Trim(p, "\x00")) == 0 {
			continue
		}
		if err := fail(off); err != nil {
			return w, err
		}
		if err := w.Put(ctx, off, p); err != nil {
			return w, err
		}
	}
	_, err = w.Finish(ctx, time.Unix(1_700_000_000, 0))
	return w, err
}

func noFail(int64) error { return nil }

func load(s Store, m Manifest) ([]byte, error) {
	out := make([]byte, m.Size)
	err := s.Read(context.Background(), m, func(off int64, p []byte) error {
		copy(out[off:], p)
		return nil
	})
	return out, err
}

func list(t *testing.T, s Store) (all []Manifest) {
	t.Helper()
	if err := s.List(context.Background(), func(m Manifest) error { all = append(all, m); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

var one = Manifest{VDisk: "d0000000-0000-4000-8000-000000000001", Name: "d", Snapshot: "50000000-0000-4000-8000-000000000001", SnapshotName: "s", ClusterSize: 4096}

// TestBackup: what is restored is what was backed up, at every size; a second backup
// stores what changed only, and one that was cut off is none and is gone on with.
func TestBackup(t *testing.T) {
	for _, size := range []int64{512, ChunkBytes, 5*ChunkBytes + 4096} {
		s := newStore(t, blockfs.NewMem())
		content := disk(size, 1)
		boom := errors.New("boom")
		if _, err := save(s, one, content, func(off int64) error {
			if off > 2*ChunkBytes {
				return boom
			}
			return nil
		}); size > 3*ChunkBytes && (!errors.Is(err, boom) || len(list(t, s)) != 0) {
			t.Fatalf("a backup that was cut off: %v, %d backups", err, len(list(t, s)))
		}
		w, err := save(s, one, content, noFail)
		if err != nil || size > 3*ChunkBytes && (w.Kept != 2*ChunkBytes || w.Stored == 0) {
			t.Fatalf("%d bytes: stored %d, kept %d, %v", size, w.Stored, w.Kept, err)
		}
		next := one
		next.Snapshot, next.SnapshotName = "50000000-0000-4000-8000-000000000002", "s2"
		changed := bytes.Clone(content)
		changed[0] ^= 0xff
		if w, err = save(s, next, changed, noFail); err != nil || w.Stored != min(size, ChunkBytes) {
			t.Fatalf("%d bytes, one changed: stored %d, %v", size, w.Stored, err)
		}
		all := list(t, s)
		if len(all) != 2 {
			t.Fatalf("%d backups", len(all))
		}
		for i, want := range [][]byte{content, changed} {
			if got, err := load(s, all[i]); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, backup %d: differs, or %v", size, i, err)
			}
		}
	}
}

// TestLarge: a disk with pages that are zeros, at its end too.
func TestLarge(t *testing.T) {
	ctx := context.Background()
	s := newStore(t, blockfs.NewMem())
	m := one
	m.Size = 64<<40 - 4096
	w, err := s.Begin(m)
	if err != nil {
		t.Fatal(err)
	}
	p := bytes.Repeat([]byte{1}, ChunkBytes)
	at := []int64{5 * ChunkBytes, (pageChunks - 1) * ChunkBytes, pageChunks * ChunkBytes, 3_000_000 * ChunkBytes, 64<<40 - ChunkBytes}
	for i, off := range at {
		b := p
		if i == len(at)-1 {
			b = p[:ChunkBytes-4096]
		}
		if err := w.Put(ctx, off, b); err != nil {
			t.Fatal(err)
		}
	}
	got, err := w.Finish(ctx, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	var read []int64
	if err := s.Read(ctx, got, func(off int64, _ []byte) error { read = append(read, off); return nil }); err != nil || fmt.Sprint(read) != fmt.Sprint(at) {
		t.Fatalf("read %v, %v", read, err)
	}
	if err := w.Put(ctx, 0, p); err == nil {
		t.Error("a chunk before the last")
	}
}

// TestDamage: a flipped bit anywhere, and an object that is gone, are found when it is
// read, and mended by the next backup of the same content.
func TestDamage(t *testing.T) {
	ctx := context.Background()
	content := disk(4*ChunkBytes, 3)
	s := newStore(t, blockfs.NewMem())
	if _, err := save(s, one, content, noFail); err != nil {
		t.Fatal(err)
	}
	m := list(t, s)[0]
	for _, dir := range []string{dirChunk, dirPage, dirBackup} {
		l, err := s.S.List(ctx, dir, "", 10)
		if err != nil || len(l) == 0 {
			t.Fatal(l, err)
		}
		name := l[0].Name
		good, err := s.S.Get(ctx, name, maxManifest)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int{0, len(good) / 2, len(good) - 1} {
			bad := bytes.Clone(good)
			bad[at] ^= 4
			if err := s.S.Put(ctx, name, bad); err != nil {
				t.Fatal(err)
			}
			err := s.List(ctx, func(Manifest) error { return nil })
			if err == nil {
				_, err = load(s, m)
			}
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%s, bit at %d: %v", name, at, err)
			}
		}
		if dir != dirBackup {
			if err := s.S.Delete(ctx, name); err != nil {
				t.Fatal(err)
			}
			if _, err := load(s, m); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s is gone: %v", name, err)
			}
			if err := s.S.Put(ctx, name, good[:len(good)-1]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := save(s, one, content, noFail); err != nil {
			t.Fatal(err)
		}
		if got, err := load(s, list(t, s)[0]); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s was not mended: %v", name, err)
		}
	}
	newer := fmt.Appendf(nil, "%s%d %s\n{}\n", magic, Format+1, strings.Repeat("0", 64))
	if err := s.S.Put(ctx, manifestName(one.VDisk, one.Snapshot), newer); err != nil {
		t.Fatal(err)
	}
	if err := s.List(ctx, nil); err == nil || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("a newer format: %v", err)
	}
}

// TestAway: a store that fails is an error and no damage.
func TestAway(t *testing.T) {
	s := newStore(t, blockfs.NewMem())
	if _, err := save(s, one, disk(2*ChunkBytes, 1), noFail); err != nil {
		t.Fatal(err)
	}
	m := list(t, s)[0]
	s.S = away{s.S}
	if _, err := load(s, m); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("read: %v", err)
	}
	if _, err := save(s, one, disk(2*ChunkBytes, 2), noFail); !errors.Is(err, errAway) {
		t.Errorf("write: %v", err)
	}
}

// faults are what a remote store does, one change in four and one read in three: some
// chunks arrive damaged three times in a row.
var faults = map[faulty.Kind]float64{faulty.Refuse: .05, faulty.LostAnswer: .1, faulty.LateEffect: .1,
	faulty.Slow: .01, faulty.StaleList: .1, faulty.Truncate: .12, faulty.Flip: .12}

// TestFaultyStore: over a store that refuses, does what it denies, now or later, and damages
// what is read, a backup that is begun again ends, stores nothing wrong, and is read back
// right or not at all.
func TestFaultyStore(t *testing.T) {
	seed := testseed.Of(t)
	disks := [][]byte{disk(3*ChunkBytes+4096, 1), nil}
	disks[1] = bytes.Clone(disks[0])
	disks[1][2*ChunkBytes] ^= 0xff
	errs, damaged := 0, 0
	met := map[faulty.Kind]int64{}
	for round := range uint64(20) {
		fs := blockfs.NewMem()
		bad := faulty.New(newStore(t, fs).S, faulty.Options{Chances: faults, Rand: rand.New(rand.NewPCG(seed, round)), Clock: clock.Real{}, Delay: time.Millisecond})
		bad.On()
		s := Store{bad}
		var want []Manifest
		for i, content := range disks {
			m := one
			m.Snapshot = fmt.Sprintf("50000000-0000-4000-8000-00000000000%d", i+1)
			for {
				w, err := save(s, m, content, noFail)
				if err == nil {
					want = append(want, w.m)
					break
				}
				if errs++; !errors.Is(err, faulty.ErrInjected) {
					t.Fatalf("backup: %v", err)
				}
			}
		}
		for i, m := range want {
			for {
				got, err := load(s, m)
				if err == nil {
					if !bytes.Equal(got, disks[i]) {
						t.Fatalf("seed %d, round %d: backup %d read back differs", seed, round, i)
					}
					break
				}
				if errors.Is(err, ErrDamaged) {
					damaged++
				} else if !errors.Is(err, faulty.ErrInjected) {
					t.Fatalf("restore: %v", err)
				}
			}
		}
		bad.Off()
		s = newStore(t, fs)
		all := list(t, s)
		if len(all) != len(want) {
			t.Fatalf("%d backups, not %d", len(all), len(want))
		}
		for i := range all {
			if got, err := load(s, all[i]); err != nil || !bytes.Equal(got, disks[i]) {
				t.Fatalf("seed %d, round %d: what is stored of backup %d differs, or %v", seed, round, i, err)
			}
		}
		for k := range faults {
			met[k] += bad.Count(k)
		}
	}
	for _, k := range []faulty.Kind{faulty.Refuse, faulty.LostAnswer, faulty.LateEffect, faulty.Truncate, faulty.Flip} {
		if met[k] == 0 {
			t.Errorf("seed %d: nothing was %v", seed, k)
		}
	}
	t.Logf("seed %d: %d errors, %d reads of what seemed damaged", seed, errs, damaged)
}

// TestCrash: after a power cut at any operation of the store's file system, what is listed
// is whole, and the backup that was not is made by the next run.
func TestCrash(t *testing.T) {
	seed := testseed.Of(t)
	content := [2][]byte{disk(ChunkBytes/2, 1)}
	content[1] = bytes.Clone(content[0])
	content[1][0] ^= 0xff
	next := one
	next.Snapshot = "50000000-0000-4000-8000-000000000002"
	both := func(s Store) (done int, err error) {
		for i, m := range []Manifest{one, next} {
			if _, err := save(s, m, content[i], noFail); err != nil {
				return i, err
			}
		}
		return 2, nil
	}
	fs := blockfs.NewMem()
	s := newStore(t, fs)
	from := fs.Ops()
	if _, err := both(s); err != nil {
		t.Fatal(err)
	}
	n := fs.Ops() - from
	for at := int64(1); at <= n; at++ {
		fs := blockfs.NewMem()
		s := newStore(t, fs)
		begin := fs.Ops()
		fs.SetHook(func(op int64, _ blockfs.OpInfo) {
			if op == begin+at {
				fs.Kill()
			}
		})
		done, err := both(s)
		if err == nil && at < n {
			t.Fatalf("power cut at operation %d of %d: no error", at, n)
		}
		r := rand.New(rand.NewPCG(seed, uint64(at)))
		s = newStore(t, fs.Crash(blockfs.CrashConfig{Unsynced: blockfs.Unsynced(at % 4), Rand: r}))
		all := list(t, s)
		if len(all) < done {
			t.Fatalf("power cut at operation %d of %d: %d backups, %d were finished", at, n, len(all), done)
		}
		for i := range all {
			if got, err := load(s, all[i]); err != nil || !bytes.Equal(got, content[i]) {
				t.Fatalf("power cut at operation %d of %d: backup %d differs, or %v", at, n, i, err)
			}
		}
		if _, err := both(s); err != nil {
			t.Fatal(err)
		}
		if all = list(t, s); len(all) != 2 {
			t.Fatalf("%d backups after the next run", len(all))
		}
		for i := range all {
			if got, err := load(s, all[i]); err != nil || !bytes.Equal(got, content[i]) {
				t.Fatalf("power cut at operation %d of %d, then again: backup %d differs, or %v", at, n, i, err)
			}
		}
	}
	t.Logf("%d power cuts", n)
}

var errAway = errors.New("store is away")

type away struct{ backend.Store }

func (away) Get(context.Context, string, int64) ([]byte, error) { return nil, errAway }

// FuzzManifest: no manifest makes its reading panic.
func FuzzManifest(f *testing.F) {
	s, err := local.Open(blockfs.NewMem(), local.Options{})
	if err != nil {
		f.Fatal(err)
	}
	if _, err := save(Store{s}, one, disk(2*ChunkBytes, 1), noFail); err != nil {
		f.Fatal(err)
	}
	b, err := s.Get(context.Background(), manifestName(one.VDisk, one.Snapshot), maxManifest)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeManifest(b); err == nil {
			_ = Store{s}.Read(context.Background(), m, func(int64, []byte) error { return errAway })
		}
	})
}
