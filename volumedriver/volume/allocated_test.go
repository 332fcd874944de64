package volume

import (
	"context"
	"math/rand/v2"
	"testing"
)

// TestAllocated: what is told of a cluster agrees with what was done to it, in
// journal, overlay and base, and the runs never cross a change.
func TestAllocated(t *testing.T) {
	ctx := context.Background()
	w := newWorld(51)
	n := w.mustStart(t)
	defer n.kill()
	const clusters = 3000
	n.create(testID(1), clusters*4096)
	v := n.open(testID(1))
	have := make([]bool, clusters)
	r := rand.New(rand.NewPCG(5, 1))
	for i := range 400 {
		c := r.Int64N(clusters)
		k := min(clusters-c, 1+r.Int64N(8))
		var err error
		if i%5 == 4 {
			k = min(clusters-c, 1+r.Int64N(300))
			err = v.Unmap(ctx, c*4096, k*4096)
		} else {
			err = v.WriteAt(ctx, make([]byte, k*4096), c*4096)
		}
		if err != nil {
			t.Fatal(err)
		}
		for j := c; j < c+k; j++ {
			have[j] = i%5 != 4
		}
		if i%60 == 59 {
			mustCommit(t, v)
		}
		if i%20 == 19 {
			checkAllocated(t, v, have)
		}
	}
	if err := v.Unmap(ctx, 0, v.Size()); err != nil {
		t.Fatal(err)
	}
	mustCommit(t, v)
	if mapped, run := v.Allocated(0); mapped || run != v.Size() {
		t.Errorf("an empty disk tells mapped %v for %d bytes", mapped, run)
	}
}

func checkAllocated(t *testing.T, v *Volume, have []bool) {
	t.Helper()
	for off := int64(0); off < v.Size(); {
		mapped, run := v.Allocated(off)
		if run <= 0 || off+run > v.Size() {
			t.Fatalf("run %d at %d", run, off)
		}
		for c := off / 4096; c < (off+run)/4096; c++ {
			if have[c] != mapped {
				t.Fatalf("cluster %d: told mapped %v", c, mapped)
			}
		}
		off += run
	}
	if _, run := v.Allocated(4096 + 512); (4096+512+run)%4096 != 0 {
		t.Fatalf("a run from the middle of a cluster ends at %d", 4096+512+run)
	}
}
