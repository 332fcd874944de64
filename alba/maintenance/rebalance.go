package maintenance

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"

	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
)

// balanceMargin is added to the deviation beyond which a device counts as full or
// empty: the original's 1 %.
const balanceMargin = 0.01

// fill is how full a device is.
type fill struct {
	number   uint32
	ratio    float64
	capacity int64
}

// unbalanced returns the devices that are fuller than the others, with the bytes
// that bring each to the mean, and those that are emptier: beyond mean ±
// (deviation + 1 %). Where only one side is beyond, and on both with wide, a side is
// everything above or below the mean.
func unbalanced(all []fill, wide bool) (high map[uint32]int64, low []uint32) {
	var mean, dev float64
	for _, f := range all {
		mean += f.ratio / float64(len(all))
	}
	for _, f := range all {
		dev += (f.ratio - mean) * (f.ratio - mean) / float64(len(all))
	}
	band := math.Sqrt(dev) + balanceMargin
	over := func(limit float64) map[uint32]int64 {
		out := map[uint32]int64{}
		for _, f := range all {
			if f.ratio > limit {
				out[f.number] = int64((f.ratio - mean) * float64(f.capacity))
			}
		}
		return out
	}
	under := func(limit float64) (out []uint32) {
		for _, f := range all {
			if f.ratio < limit {
				out = append(out, f.number)
			}
		}
		return out
	}
	high, low = over(mean+band), under(mean-band)
	if len(high) == 0 && len(low) == 0 {
		return nil, nil
	}
	if len(low) == 0 || wide {
		low = under(mean)
	}
	if len(high) == 0 || wide {
		high = over(mean)
	}
	return high, low
}

// Rebalance moves fragments from full devices to empty ones, as many as bring
// them to the mean.
func (a *Agent) Rebalance(ctx context.Context) error {
	return a.rebalanceWhile(ctx, func() bool { return true })
}

// rebalanceWhile is Rebalance that ends early once goOn no longer holds.
func (a *Agent) rebalanceWhile(ctx context.Context, goOn func() bool) error {
	osds, err := a.m.OSDs(ctx)
	if err != nil {
		return err
	}
	seen, err := a.m.SeenAll(ctx)
	if err != nil {
		return err
	}
	var all []fill
	for _, o := range osds {
		s := seen[o.Number]
		if capacity := s.Used + s.Free; o.Takes() && s.Error == "" && capacity > 0 {
			all = append(all, fill{o.Number, float64(s.Used) / float64(capacity), capacity})
		}
	}
	// What x of a policy keeps on the fullest devices may still move from others.
	for _, wide := range []bool{false, true} {
		high, low := unbalanced(all, wide)
		if len(high) == 0 || len(low) == 0 || !goOn() {
			return nil
		}
		job := a.begin("rebalance", "move fragments from full devices to empty ones", "fragments", 0)
		err = a.rebalance(ctx, high, low, job, goOn)
		if errors.Is(err, errEnough) {
			err = nil
		}
		a.end(job, err)
		if err != nil || job.Done > 0 {
			return err
		}
	}
	return nil
}

var errEnough = errors.New("something else is to be done first")

func (a *Agent) rebalance(ctx context.Context, high map[uint32]int64, low []uint32, job *Job, goOn func() bool) error {
	start, moved := a.o.Clock.Now(), int64(0)
	return a.namespaces(ctx, func(n manager.Namespace, host *nsm.Host) error {
		return a.objects(ctx, host, n, func(m *layout.Manifest) error {
			if !goOn() {
				return errEnough
			}
			// From the fullest first; where x of the policy forbids it, from the next.
			for _, from := range fullest(m, high) {
				did, err := a.c.Repair(ctx, n.Name, m.Name, client.RepairOptions{Away: []uint32{from}, To: low})
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					a.log.Info("fragment was not moved", "object", m.Name, "error", err)
					return nil
				}
				if did.Made == 0 {
					continue
				}
				high[from] -= did.Bytes
				moved += did.Bytes
				a.progress(job, int64(did.Made), did.Bytes)
				return a.pace(ctx, start, moved)
			}
			return nil
		})
	})
}

// fullest returns the devices of an object that have something to give away, those
// with most first.
func fullest(m *layout.Manifest, high map[uint32]int64) []uint32 {
	var out []uint32
	for _, chunk := range m.Fragments {
		for _, f := range chunk {
			if high[f.OSD] > 0 && !slices.Contains(out, f.OSD) {
				out = append(out, f.OSD)
			}
		}
	}
	slices.SortFunc(out, func(a, b uint32) int { return cmp.Compare(high[b], high[a]) })
	return out
}
