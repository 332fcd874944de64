package blockmap

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// entry is what the model of an overlay knows of a cluster.
type entry struct {
	point   *Point
	trimmed uint32 // batch; 0: not
}

// checkSpans: sorted, not empty, disjoint.
func checkSpans(o *Overlay) error {
	end := uint64(0)
	for i, s := range o.spans {
		if s.start >= s.end || i > 0 && s.start < end {
			return fmt.Errorf("span %d of %v", i, o.spans)
		}
		end = s.end
	}
	return nil
}

// TestOverlayModel compares an overlay, under writes, trims and commits of batches
// in random order, with an array.
func TestOverlayModel(t *testing.T) {
	const size = 200
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 2))
		o := NewOverlay()
		var model [size]entry
		batch, oldest := uint32(1), uint32(1)
		for step := range 600 {
			switch k := r.IntN(20); {
			case k < 8:
				c, p := r.Uint64N(size), Point{Batch: batch, Chunk: r.Uint32N(9), Off: r.Uint32(), Sum: uint32(step)}
				o.Write(c, p)
				model[c].point = &p
			case k < 15:
				c := r.Uint64N(size)
				n := 1 + r.Uint64N(size-c)
				if r.IntN(2) == 0 {
					n = min(n, 1+r.Uint64N(8))
				}
				o.Trim(c, n, batch)
				for i := c; i < c+n; i++ {
					model[i] = entry{trimmed: batch}
				}
			case k < 17:
				batch++
			case oldest < batch: // the oldest batch is committed (M3)
				var mine []uint64
				o.Each(func(c uint64, p Point) {
					if p.Batch == oldest {
						mine = append(mine, c)
					}
				})
				for c := range uint64(size) { // also clusters written again since
					o.DropPoint(c, oldest)
				}
				o.DropSpans(oldest)
				for c := range model {
					if p := model[c].point; p != nil && p.Batch == oldest {
						model[c].point = nil
					}
					if model[c].trimmed == oldest {
						model[c].trimmed = 0
					}
				}
				for _, c := range mine {
					if _, point, _ := o.Find(c); point {
						t.Fatalf("seed %d step %d: cluster %d outlives its batch", seed, step, c)
					}
				}
				oldest++
			}
			if err := checkSpans(o); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			if err := matches(o, model[:]); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
		}
	}
}

// matches compares every cluster and both iterations.
func matches(o *Overlay, model []entry) error {
	points := 0
	for c := range model {
		want := &model[c]
		p, point, trimmed := o.Find(uint64(c))
		switch {
		case point != (want.point != nil):
			return fmt.Errorf("cluster %d: point %t, want %t", c, point, !point)
		case point && p != *want.point:
			return fmt.Errorf("cluster %d: %+v, want %+v", c, p, *want.point)
		case !point && trimmed != (want.trimmed != 0):
			return fmt.Errorf("cluster %d: trimmed %t", c, trimmed)
		}
		if point {
			points++
		}
	}
	seen := 0
	o.Each(func(c uint64, p Point) {
		if *model[c].point == p {
			seen++
		}
	})
	if n, _ := o.Len(); n != points || seen != points {
		return fmt.Errorf("%d points, Len says %d, Each shows %d", points, n, seen)
	}
	var err error
	covered, spans := make([]uint32, len(model)), 0
	o.EachSpan(func(start, n uint64, batch uint32) {
		spans++
		for c := start; c < start+n; c++ {
			covered[c] = batch
		}
	})
	if _, n := o.Len(); n != spans {
		return fmt.Errorf("%d spans, Len says %d", spans, n)
	}
	for c := range covered {
		if covered[c] != model[c].trimmed {
			err = fmt.Errorf("cluster %d: trimmed by batch %d, want %d", c, covered[c], model[c].trimmed)
		}
	}
	return err
}

// TestOverlayHuge: trims of a whole 64 TiB device cost one span each, whatever
// they cover, and neighbours of one batch become one.
func TestOverlayHuge(t *testing.T) {
	o := NewOverlay()
	for c := range uint64(1000) {
		o.Write(c<<24, Point{Batch: 1})
	}
	o.Trim(0, clusters64TiB, 2)
	if p, s := o.Len(); p != 0 || s != 1 {
		t.Fatalf("%d points and %d spans after a full trim", p, s)
	}
	o.Write(1<<33, Point{Batch: 3})
	o.Trim(1<<32, 16, 3)
	if _, s := o.Len(); s != 3 {
		t.Fatalf("%d spans, want the trim in three", s)
	}
	if _, point, _ := o.Find(1 << 33); !point {
		t.Fatal("a write above a trim is gone (M2)")
	}
	o.DropSpans(2)
	if _, _, trimmed := o.Find(1<<32 + 15); !trimmed {
		t.Fatal("the newer trim went with the older batch (M3)")
	}
	if _, _, trimmed := o.Find(1<<32 + 16); trimmed {
		t.Fatal("the older trim outlives its batch (M3)")
	}
	for c := range uint64(10_000) {
		o.Trim(c*4, 4, 4)
	}
	if _, s := o.Len(); s != 2 {
		t.Fatalf("%d spans, want neighbours of one batch as one", s)
	}
}
