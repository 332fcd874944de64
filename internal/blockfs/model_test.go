package blockfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestMemLikeOS does the same random things to files of Mem and of the machine;
// their contents stay equal. What was synced survives every power cut, together
// with the DSync writes made since.
func TestMemLikeOS(t *testing.T) {
	const seeds, steps, sizeMax = 6, 150, 40000
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 11))
			real, err := OS(t.TempDir())
			must(t, err)
			m := NewMem()
			pair := [2]File{mustOpen(t, real, "f", Write|Create), mustOpen(t, m, "f", Write|Create)}
			dsync := [2]File{mustOpen(t, real, "f", Write|DSync), mustOpen(t, m, "f", Write|DSync)}
			must(t, m.SyncDir("."))
			var floor []byte // content at step known
			known := -1      // last step with nothing pending
			for step := range steps {
				off, n := r.Int64N(sizeMax), r.IntN(9000)
				data := pattern(uint64(step), n)
				what := r.IntN(10)
				for i := range pair {
					switch {
					case what < 4:
						mustWrite(t, pair[i], data, off)
					case what < 7:
						mustWrite(t, dsync[i], data, off)
					case what == 7:
						must(t, pair[i].Truncate(off))
					case what == 8:
						must(t, pair[i].Preallocate(off))
					default:
						must(t, pair[i].Sync())
					}
				}
				got := contentOf(t, m, "f")
				if !bytes.Equal(got, contentOf(t, real, "f")) {
					t.Fatalf("step %d (%d): contents differ", step, what)
				}
				switch {
				case what >= 8:
					floor, known = got, step
				case what >= 4 && what < 7 && known == step-1:
					floor, known = got, step
				}
				if known == step {
					checkFloor(t, m, floor, r)
				} else if what >= 4 && what < 7 {
					checkRangeDurable(t, m, data, off, r)
				}
				if kept := contentOf(t, m.Crash(CrashConfig{Unsynced: KeepAll}), "f"); !bytes.Equal(kept, got) {
					t.Fatalf("step %d: KeepAll does not keep all", step)
				}
			}
			for i := range pair {
				must(t, pair[i].Close())
				must(t, dsync[i].Close())
			}
		})
	}
}

// checkFloor checks that nothing is pending.
func checkFloor(t *testing.T, m *Mem, want []byte, r *rand.Rand) {
	t.Helper()
	for _, fate := range []Unsynced{KeepAll, DropAll, Tear, Reorder} {
		if got := contentOf(t, m.Crash(CrashConfig{Unsynced: fate, Rand: r}), "f"); !bytes.Equal(got, want) {
			t.Fatalf("fate %d: not what was durable", fate)
		}
	}
}

// checkRangeDurable checks that a DSync write survives among pending changes.
func checkRangeDurable(t *testing.T, m *Mem, data []byte, off int64, r *rand.Rand) {
	t.Helper()
	for _, fate := range []Unsynced{KeepAll, DropAll, Tear, Reorder} {
		got := contentOf(t, m.Crash(CrashConfig{Unsynced: fate, Rand: r}), "f")
		if end := off + int64(len(data)); len(data) > 0 && (int64(len(got)) < end || !bytes.Equal(got[off:end], data)) {
			t.Fatalf("fate %d: a DSync write of %d at %d did not survive", fate, len(data), off)
		}
	}
}
