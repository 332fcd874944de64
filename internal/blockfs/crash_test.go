package blockfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"
)

// fates are all ways a power cut can go.
var fates = map[string]Unsynced{"keep": KeepAll, "drop": DropAll, "tear": Tear, "reorder": Reorder}

// crashRounds is how often each random fate is tried.
const crashRounds = 60

// afterCrash calls check with the outcomes of many power cuts at this instant.
func afterCrash(t *testing.T, m *Mem, fate Unsynced, check func(after *Mem)) {
	t.Helper()
	rounds := 1
	if fate == Tear || fate == Reorder {
		rounds = crashRounds
	}
	for i := range rounds {
		check(m.Crash(CrashConfig{Unsynced: fate, Rand: rand.New(rand.NewPCG(uint64(i), 2))}))
	}
}

// durableFile makes a file whose name and content are durable.
func durableFile(t *testing.T, m *Mem, name string, data []byte, flag Flag) File {
	t.Helper()
	f := mustOpen(t, m, name, Write|Create|flag)
	mustWrite(t, f, data, 0)
	must(t, f.Sync())
	must(t, m.SyncDir("."))
	return f
}

// sectorsOf counts the sectors of got that equal those of old and of new, and
// fails when one equals neither.
func sectorsOf(t *testing.T, got, old, now []byte) (olds, news int) {
	t.Helper()
	for i := 0; i < len(got); i += SectorSize {
		s := got[i:min(len(got), i+SectorSize)]
		switch {
		case bytes.Equal(s, now[i:i+len(s)]):
			news++
		case bytes.Equal(s, old[i:i+len(s)]):
			olds++
		default:
			t.Fatalf("sector %d is neither old nor new", i/SectorSize)
		}
	}
	return olds, news
}

// B1: a DSync write is whole after it returned, and any subset of its sectors
// before.
func TestCrashDSync(t *testing.T) {
	old, now := pattern(1, 16*SectorSize), pattern(2, 16*SectorSize)
	for name, fate := range fates {
		t.Run(name, func(t *testing.T) {
			m := NewMem()
			f := durableFile(t, m, "f", old, DSync)
			seen := map[int]bool{} // numbers of new sectors met in flight
			m.SetHook(func(_ int64, op OpInfo) {
				afterCrash(t, m, fate, func(after *Mem) {
					_, news := sectorsOf(t, contentOf(t, after, "f"), old, now)
					seen[news] = true
				})
			})
			mustWrite(t, f, aligned(now), 0)
			m.SetHook(nil)
			afterCrash(t, m, fate, func(after *Mem) {
				if !bytes.Equal(contentOf(t, after, "f"), now) {
					t.Fatal("a DSync write was not durable")
				}
			})
			switch fate {
			case KeepAll:
				if len(seen) != 1 || !seen[16] {
					t.Fatalf("in flight: %v", seen)
				}
			case DropAll:
				if len(seen) != 1 || !seen[0] {
					t.Fatalf("in flight: %v", seen)
				}
			case Tear:
				if len(seen) < 5 {
					t.Fatalf("tearing shows %d outcomes only", len(seen))
				}
			case Reorder:
				if len(seen) != 2 || !seen[0] || !seen[16] {
					t.Fatalf("in flight: %v", seen)
				}
			}
		})
	}
}

// B1: what a DSync write made durable is not undone by what was pending below
// it: older writes, truncations and allocations.
func TestCrashDSyncOverPending(t *testing.T) {
	old, mid, now := pattern(1, 8192), pattern(2, 8192), pattern(3, 3000)
	for name, fate := range fates {
		t.Run(name, func(t *testing.T) {
			m := NewMem()
			f := durableFile(t, m, "f", old, 0)
			d := mustOpen(t, m, "f", Write|DSync)
			mustWrite(t, f, mid, 0)
			must(t, f.Truncate(100))
			mustWrite(t, f, mid[:2000], 1000)
			mustWrite(t, d, now, 700)
			mustWrite(t, f, mid[:10], 0)
			afterCrash(t, m, fate, func(after *Mem) {
				got := contentOf(t, after, "f")
				if len(got) < 3700 || !bytes.Equal(got[700:3700], now) {
					t.Fatalf("the DSync write was undone; %d bytes left", len(got))
				}
			})
			must(t, f.Sync())
			want := contentOf(t, m, "f")
			afterCrash(t, m, fate, func(after *Mem) {
				if !bytes.Equal(contentOf(t, after, "f"), want) {
					t.Fatal("not all is durable after Sync")
				}
			})
		})
	}
}

// B2: any subset of the unsynced sectors, in any order; all after Sync on any
// handle.
func TestCrashBuffered(t *testing.T) {
	old, one, two := pattern(1, 8192), pattern(2, 8192), pattern(3, 8192)
	outcomes := map[string]map[string]bool{}
	for name, fate := range fates {
		outcomes[name] = map[string]bool{}
		m := NewMem()
		f := durableFile(t, m, "f", old, 0)
		mustWrite(t, f, one, 0)
		mustWrite(t, f, two, 0)
		afterCrash(t, m, fate, func(after *Mem) {
			got := contentOf(t, after, "f")
			var which []byte
			for i := 0; i < len(got); i += SectorSize {
				for j, b := range [][]byte{old, one, two} {
					if bytes.Equal(got[i:i+SectorSize], b[i:i+SectorSize]) {
						which = append(which, '0'+byte(j))
					}
				}
			}
			if len(which) != len(old)/SectorSize {
				t.Fatalf("%s: a sector holds what was never written", name)
			}
			outcomes[name][string(which)] = true
		})
		other := mustOpen(t, m, "f", Read)
		must(t, other.Sync())
		afterCrash(t, m, fate, func(after *Mem) {
			if !bytes.Equal(contentOf(t, after, "f"), two) {
				t.Fatalf("%s: synced content lost", name)
			}
		})
	}
	for name, want := range map[string]int{"keep": 1, "drop": 1, "reorder": 3} {
		if len(outcomes[name]) != want {
			t.Errorf("%s: %d outcomes, want %d", name, len(outcomes[name]), want)
		}
	}
	if len(outcomes["tear"]) < crashRounds/2 {
		t.Errorf("tear: %d outcomes only", len(outcomes["tear"]))
	}
}

// B2: a Sync in flight has not made anything durable; what is written while it
// runs is not its business.
func TestCrashInSync(t *testing.T) {
	m := NewMem()
	old, one, two := pattern(1, 512), pattern(2, 512), pattern(3, 512)
	f := durableFile(t, m, "f", old, 0)
	mustWrite(t, f, one, 0)
	m.SetHook(func(_ int64, op OpInfo) {
		if op.Kind != OpSync {
			return
		}
		if got := contentOf(t, m.Crash(CrashConfig{Unsynced: DropAll}), "f"); !bytes.Equal(got, old) {
			t.Error("durable before Sync returned")
		}
		m.SetHook(nil)
		mustWrite(t, f, two, 0)
	})
	must(t, f.Sync())
	if got := contentOf(t, m.Crash(CrashConfig{Unsynced: DropAll}), "f"); !bytes.Equal(got, one) {
		t.Fatal("Sync did not leave what it found")
	}
	if got := contentOf(t, m, "f"); !bytes.Equal(got, two) {
		t.Fatal("the live content changed")
	}
}

// B3: a prefix of a directory's name operations; all after SyncDir.
func TestCrashNames(t *testing.T) {
	// After k of the operations the directory lists as states[k].
	states := []string{"a:1 b:2", "a:1 b:2 c:3", "b:1 c:3", "b:1 c:3 d:1", "c:3 d:1", "c:3 d:1 e/"}
	run := func(m *Mem) {
		f := mustOpen(t, m, "c", Write|Create)
		mustWrite(t, f, []byte("333"), 0)
		must(t, f.Sync())
		must(t, m.Rename("a", "b"))
		must(t, m.Link("b", "d"))
		must(t, m.Remove("b"))
	}
	for name, fate := range fates {
		t.Run(name, func(t *testing.T) {
			m := NewMem()
			must(t, WriteFile(m, "a", []byte("1")))
			must(t, WriteFile(m, "b", []byte("22")))
			run(m)
			seen := map[string]bool{}
			look := func(after *Mem) {
				infos, err := after.List(".")
				must(t, err)
				s := ""
				for _, e := range infos {
					if e.Dir {
						s += " " + e.Name + "/"
						continue
					}
					size := e.Size
					if size == 3 && e.Name != "c" {
						t.Fatalf("%s has the content of c", e.Name)
					}
					s += fmt.Sprintf(" %s:%d", e.Name, size)
				}
				if !slices.Contains(states, s[1:]) {
					t.Fatalf("state %q is no prefix", s[1:])
				}
				seen[s[1:]] = true
			}
			afterCrash(t, m, fate, look)
			want := map[Unsynced]int{KeepAll: 1, DropAll: 1, Tear: 5, Reorder: 5}[fate]
			if len(seen) != want {
				t.Fatalf("%d states seen, want %d: %v", len(seen), want, seen)
			}
			// A durable directory makes the operations before it durable too.
			must(t, m.MkdirAll("e"))
			clear(seen)
			afterCrash(t, m, fate, look)
			if len(seen) != 1 || !seen[states[5]] {
				t.Fatalf("after MkdirAll: %v", seen)
			}
		})
	}
}

// B3: a SyncDir or MkdirAll in flight has made no name durable; a name made while
// it runs is not its business.
func TestCrashInSyncDir(t *testing.T) {
	for name, sync := range map[string]func(m *Mem) error{
		"SyncDir":  func(m *Mem) error { return m.SyncDir(".") },
		"MkdirAll": func(m *Mem) error { return m.MkdirAll("d") },
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMem()
			must(t, mustOpen(t, m, "before", Create).Close())
			m.SetHook(func(int64, OpInfo) {
				m.SetHook(nil)
				checkList(t, m.Crash(CrashConfig{Unsynced: DropAll}), ".", "")
				must(t, mustOpen(t, m, "during", Create).Close())
			})
			must(t, sync(m))
			infos, err := m.Crash(CrashConfig{Unsynced: DropAll}).List(".")
			must(t, err)
			if infos[0].Name != "before" || slices.ContainsFunc(infos, func(e Info) bool { return e.Name == "during" }) {
				t.Fatalf("durable: %v", infos)
			}
		})
	}
}

// B2, B4: a torn write at the end of a file can leave any size up to its end, the
// missing sectors holes.
func TestCrashGrowth(t *testing.T) {
	m := NewMem()
	f := durableFile(t, m, "f", pattern(1, 4096), 0)
	now := pattern(2, 4096)
	mustWrite(t, f, now, 4096)
	sizes, holes := map[int]bool{}, false
	afterCrash(t, m, Tear, func(after *Mem) {
		got := contentOf(t, after, "f")
		sizes[len(got)] = true
		if len(got) < 4096 || len(got) > 8192 {
			t.Fatalf("size %d", len(got))
		}
		olds, _ := sectorsOf(t, got[4096:], make([]byte, 4096), now)
		holes = holes || olds == 8
	})
	if len(sizes) < 4 || !holes {
		t.Fatalf("sizes %v, only holes %v", sizes, holes)
	}
}

// B3: content without a name is lost, a name without content is empty.
func TestCrashCreate(t *testing.T) {
	m := NewMem()
	f := mustOpen(t, m, "synced", Write|Create)
	mustWrite(t, f, []byte("abc"), 0)
	must(t, f.Sync())
	_, err := m.Crash(CrashConfig{Unsynced: DropAll}).Stat("synced")
	mustBe(t, "no SyncDir", err, fs.ErrNotExist)
	must(t, m.SyncDir("."))
	g := mustOpen(t, m, "named", Write|Create)
	mustWrite(t, g, []byte("abc"), 0)
	must(t, m.SyncDir("."))
	after := m.Crash(CrashConfig{Unsynced: DropAll})
	if got := contentOf(t, after, "synced"); string(got) != "abc" {
		t.Fatalf("synced holds %q", got)
	}
	if got := contentOf(t, after, "named"); len(got) != 0 {
		t.Fatalf("named holds %q", got)
	}
}

// B3: a rename to another directory is an operation in each.
func TestCrashRenameAcross(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("a"))
	must(t, m.MkdirAll("b"))
	must(t, WriteFile(m, "a/f", []byte("x")))
	must(t, m.Rename("a/f", "b/f"))
	must(t, m.SyncDir("b"))
	afterCrash(t, m, Tear, func(after *Mem) {
		if got := contentOf(t, after, "b/f"); string(got) != "x" {
			t.Fatalf("b/f holds %q", got)
		}
	})
	must(t, m.SyncDir("a"))
	_, err := m.Crash(CrashConfig{Unsynced: DropAll}).Stat("a/f")
	mustBe(t, "old name", err, fs.ErrNotExist)
}

// B4: sizes are durable after Sync; Preallocate does that itself.
func TestCrashSize(t *testing.T) {
	for name, fate := range fates {
		t.Run(name, func(t *testing.T) {
			m := NewMem()
			f := durableFile(t, m, "f", pattern(1, 8192), 0)
			must(t, f.Truncate(100))
			sizes := map[int]bool{}
			afterCrash(t, m, fate, func(after *Mem) { sizes[len(contentOf(t, after, "f"))] = true })
			for size := range sizes {
				if size != 100 && size != 8192 {
					t.Fatalf("size %d", size)
				}
			}
			if fate == DropAll && sizes[100] || fate == KeepAll && sizes[8192] {
				t.Fatalf("sizes %v", sizes)
			}
			must(t, f.Sync())
			m.SetHook(func(_ int64, op OpInfo) {
				afterCrash(t, m, fate, func(after *Mem) {
					got := contentOf(t, after, "f")
					if len(got) < 100 || len(got) > 65536 || bytes.ContainsFunc(got[100:], func(r rune) bool { return r != 0 }) {
						t.Fatalf("in flight: %d bytes", len(got))
					}
				})
			})
			must(t, f.Preallocate(65536))
			m.SetHook(nil)
			afterCrash(t, m, fate, func(after *Mem) {
				if got := contentOf(t, after, "f"); len(got) != 65536 {
					t.Fatalf("preallocated %d", len(got))
				}
			})
		})
	}
}

// B5: after a failed or partial write the range holds anything, the rest what
// was durable.
func TestCrashAfterError(t *testing.T) {
	m := NewMem()
	old, now := pattern(1, 8192), pattern(2, 4096)
	durableFile(t, m, "f", old, 0)
	fail := errors.New("broken")
	var inject error
	fsys := Inject(m, func(op OpInfo) error {
		if op.Kind == OpWrite || op.Kind == OpSync {
			return inject
		}
		return nil
	})
	f := mustOpen(t, fsys, "f", Write|Direct|DSync)
	inject = fail
	_, err := f.WriteAt(aligned(now), 4096)
	mustBe(t, "write", err, fail)
	mustBe(t, "sync", f.Sync(), fail)
	if !bytes.Equal(contentOf(t, m, "f"), old) {
		t.Fatal("a refused write had an effect")
	}
	inject = Partial(5000, fail)
	n, err := f.WriteAt(aligned(append(bytes.Clone(now), now...)), 0)
	if n != 4096 || !errors.Is(err, fail) {
		t.Fatalf("partial write: %d, %v", n, err)
	}
	got := contentOf(t, m, "f")
	if !bytes.Equal(got[:4096], now) || !bytes.Equal(got[4096:], old[4096:]) {
		t.Fatal("a partial write changed something else")
	}
}

// B5: after a failed Sync a later one can succeed and still not make durable what
// the failed one was about; what was durable before and what comes after is.
func TestCrashAfterFailedSync(t *testing.T) {
	m := NewMem()
	old, lost, later := pattern(1, 8192), pattern(2, 4096), pattern(3, 100)
	f := durableFile(t, m, "f", old, 0)
	mustWrite(t, f, lost, 0)
	must(t, m.LoseUnsynced("f"))
	mustWrite(t, f, later, 6000)
	must(t, f.Sync())
	want := bytes.Clone(old)
	copy(want[6000:], later)
	for _, fate := range fates {
		afterCrash(t, m, fate, func(after *Mem) {
			if !bytes.Equal(contentOf(t, after, "f"), want) {
				t.Fatal("not what was synced")
			}
		})
	}
	if got := contentOf(t, m, "f"); !bytes.Equal(got[:4096], lost) {
		t.Fatal("reads do not show the lost write")
	}
	mustBe(t, "absent", m.LoseUnsynced("g"), fs.ErrNotExist)
}

// WriteFile leaves the old or the new content at every instant, and the new one
// once it returned.
func TestCrashWriteFile(t *testing.T) {
	old, now := pattern(1, 5000), pattern(2, 7000)
	for name, fate := range fates {
		t.Run(name, func(t *testing.T) {
			m := NewMem()
			must(t, WriteFile(m, "f", old))
			ops := 0
			m.SetHook(func(_ int64, op OpInfo) {
				ops++
				afterCrash(t, m, fate, func(after *Mem) {
					if got := contentOf(t, after, "f"); !bytes.Equal(got, old) && !bytes.Equal(got, now) {
						t.Fatalf("crash in %v: %d bytes of neither content", op, len(got))
					}
					must(t, WriteFile(after, "f", old)) // leftovers do not disturb
				})
			})
			must(t, WriteFile(m, "f", now))
			m.SetHook(nil)
			if ops < 5 {
				t.Fatalf("only %d operations seen", ops)
			}
			afterCrash(t, m, fate, func(after *Mem) {
				if got := contentOf(t, after, "f"); !bytes.Equal(got, now) {
					t.Fatal("WriteFile was not durable")
				}
			})
		})
	}
}

// A clone and its original do not see each other's changes, and a killed file
// system fails everything.
func TestCloneIsIndependent(t *testing.T) {
	m := NewMem()
	old := pattern(1, 3*pageSize)
	f := durableFile(t, m, "f", old, 0)
	c := m.Crash(CrashConfig{Unsynced: KeepAll})
	g := mustOpen(t, c, "f", Write)
	mustWrite(t, f, []byte("original"), 10)
	mustWrite(t, g, []byte("clone"), pageSize+10)
	must(t, f.Truncate(2*pageSize))
	must(t, m.Remove("f"))
	want := bytes.Clone(old)
	copy(want[pageSize+10:], "clone")
	if !bytes.Equal(contentOf(t, c, "f"), want) {
		t.Fatal("the clone changed with the original")
	}
	m.Kill()
	_, err := m.Open("f", Read)
	mustBe(t, "open", err, ErrCrashed)
	_, err = f.WriteAt(old, 0)
	mustBe(t, "write", err, ErrCrashed)
	_, err = f.ReadAt(old, 0)
	mustBe(t, "read", err, ErrCrashed)
	mustBe(t, "sync", f.Sync(), ErrCrashed)
	mustBe(t, "rename", m.Rename("f", "g"), ErrCrashed)
	_, err = m.List(".")
	mustBe(t, "list", err, ErrCrashed)
	must(t, f.Close())
	if !bytes.Equal(contentOf(t, c, "f"), want) {
		t.Fatal("the clone died with the original")
	}
}

// An operation whose hook kills the file system fails.
func TestKillInFlight(t *testing.T) {
	m := NewMem()
	f := durableFile(t, m, "f", pattern(1, 512), DSync)
	m.SetHook(func(int64, OpInfo) { m.Kill() })
	_, err := f.WriteAt(pattern(2, 512), 0)
	mustBe(t, "write", err, ErrCrashed)
	if got := contentOf(t, m.Crash(CrashConfig{Unsynced: DropAll}), "f"); !bytes.Equal(got, pattern(1, 512)) {
		t.Fatal("the write in flight became durable")
	}
}

// Equal histories and seeds give equal outcomes.
func TestCrashIsReproducible(t *testing.T) {
	for _, fate := range []Unsynced{Tear, Reorder} {
		var first []byte
		for range 5 {
			m := NewMem()
			var all []byte
			for i := range 10 {
				f := durableFile(t, m, fmt.Sprint("f", i), pattern(uint64(i), 4096), 0)
				mustWrite(t, f, pattern(uint64(100+i), 4096), 0)
				mustWrite(t, f, pattern(uint64(200+i), 4096), 2048)
			}
			after := m.Crash(CrashConfig{Unsynced: fate, Rand: rand.New(rand.NewPCG(7, 7))})
			for i := range 10 {
				all = append(all, contentOf(t, after, fmt.Sprint("f", i))...)
			}
			if first == nil {
				first = all
			}
			if !bytes.Equal(first, all) {
				t.Fatalf("fate %d: two outcomes from one seed", fate)
			}
		}
	}
}

// TestCrashDuringUse takes clones while others write (for the race detector),
// and checks B1 on each: what a worker was told is durable is there.
func TestCrashDuringUse(t *testing.T) {
	const workers, rounds = 4, 40
	m := NewMem()
	done := make(chan error, workers)
	for w := range workers {
		f := durableFile(t, m, fmt.Sprint("f", w), make([]byte, 4096), DSync)
		go func() {
			for i := 1; i <= rounds; i++ {
				if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i)}, 4096), 0); err != nil {
					done <- err
					return
				}
				got, err := ReadFile(m.Crash(CrashConfig{Unsynced: DropAll}), fmt.Sprint("f", w), 4096)
				if err == nil && (got[0] != byte(i) || got[4095] != byte(i)) {
					err = fmt.Errorf("worker %d: write %d was lost", w, i)
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range workers {
		must(t, <-done)
	}
}

// BenchmarkCrash clones a tree like a vDisk's journal: 40 files of 1 MiB, one
// with a torn write. The limit is the copy of 40 directory entries.
func BenchmarkCrash(b *testing.B) {
	m := NewMem()
	for i := range 40 {
		f, err := m.Open(fmt.Sprint("chunk", i), Write|Create|DSync)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := f.WriteAt(make([]byte, 1<<20), 0); err != nil {
			b.Fatal(err)
		}
	}
	if err := m.SyncDir("."); err != nil {
		b.Fatal(err)
	}
	f, err := m.Open("chunk7", Write)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 64<<10), 0); err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		m.Crash(CrashConfig{Unsynced: Tear, Rand: r})
	}
}
