package series

import (
	"fmt"
	"math"
	"testing"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// second lets one pass in which vDisks did so many writes, by the Sampler.
func (f *fed) second(inputs map[string]*observe.Input, writes map[string]uint64) {
	f.now++
	var in []observe.Input
	for id, n := range writes {
		v := inputs[id]
		if v == nil {
			v = &observe.Input{ID: id, VPool: "p"}
			inputs[id] = v
		}
		v.Stats.WriteOps += n
		v.Stats.WriteBytes += n << 12
		v.Stats.WriteLatency[9] += n
		in = append(in, *v)
	}
	var out []Sample
	for _, v := range f.opt.Sampler.Observe(secondsOf(f.now), in, nil, false) {
		out = append(out, Sample{Named: v})
	}
	f.Add(secondsOf(f.now), out)
	if f.now%fine.length == 0 {
		f.told(f.work())
	}
}

// TestYoungRing: the step of 10 s in which an object's ring begins counts once, whether the object did nothing before,
// or there was no room for its ring.
func TestYoungRing(t *testing.T) {
	for _, late := range []int64{30, 33, 35, 39} {
		for _, written := range []bool{false, true} {
			t.Run(fmt.Sprintf("first commands in second %d, in a file %v", late, written), func(t *testing.T) {
				f := newFed(t, blockfs.NewMem(), begin)
				inputs := map[string]*observe.Input{}
				did := func(second int64) uint64 {
					if second < late {
						return 0
					}
					return 100 + uint64(second%7)
				}
				seconds := int64(60)
				if written {
					seconds = 320
				}
				for s := int64(1); s <= seconds; s++ {
					f.second(inputs, map[string]uint64{"a": did(s)})
				}
				for _, id := range []string{"a", "p"} {
					for _, step := range []int64{1, 2, 5} {
						for _, p := range f.latencies(id, begin+20, begin+60, step) {
							var want float64
							for s := p.Time; s < p.Time+step; s++ {
								want += float64(did(s-begin)) / float64(step)
							}
							if math.Abs(p.WriteIOPS-want) > 0.05 {
								t.Errorf("%s, step of %d s, second %d: %v writes a second, want %v", id, step, p.Time-begin, p.WriteIOPS, want)
							}
							if _, w := sums(p.Latencies); math.Abs(w-p.WriteIOPS) > 0.05 {
								t.Errorf("%s, step of %d s, second %d: %v writes by latency, %v in all", id, step, p.Time-begin, w, p.WriteIOPS)
							}
						}
					}
				}
			})
		}
	}
	t.Run("no room before", func(t *testing.T) {
		sampler := observe.NewSampler(3) // the node, the vPool, and one vDisk
		f := &fed{newStore(Options{Dir: in(blockfs.NewMem()), Sampler: sampler}), t, begin}
		inputs := map[string]*observe.Input{}
		f.second(inputs, map[string]uint64{"first": 1})
		f.second(inputs, map[string]uint64{"first": 1})
		for range 643 { // the ring of the first one ends after ten minutes of nothing
			f.second(inputs, map[string]uint64{"first": 0, "a": 100})
		}
		ring := sampler.Series("a", observe.Keep)
		if len(ring) == 0 || ring[0].Time.Unix()%fine.step == 0 {
			t.Fatalf("%d samples: the ring does not begin within a step", len(ring))
		}
		from := floor(ring[0].Time.Unix()-20, 10)
		for _, step := range []int64{1, 2, 5} {
			for _, p := range f.latencies("a", from, from+40, step) {
				if math.Abs(p.WriteIOPS-100) > 0.5 {
					t.Errorf("step of %d s: %v writes a second %d s after the ring began", step, p.WriteIOPS, p.Time-ring[0].Time.Unix())
				}
			}
		}
	})
}
