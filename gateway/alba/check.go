package alba

import (
	"context"

	"github.com/openvstorage/ovgate/gateway/observe"
)

// Check looks at the Alba for health and metrics.
func (s *Service) Check(ctx context.Context) *observe.Alba {
	t, err := s.Status(ctx)
	if err != nil {
		return &observe.Alba{Err: err.Error()}
	}
	osds, err := s.OSDs(ctx)
	if err != nil {
		return &observe.Alba{Err: err.Error()}
	}
	out := &observe.Alba{
		Objects: t.Safety.Objects, Stored: t.Safety.Stored, Repair: t.Safety.Repair,
		Lost: t.Safety.Tolerates[-1], AtRisk: t.Safety.Tolerates[0],
	}
	out.Tolerates, out.Surveyed = t.Safety.Least()
	for _, o := range osds {
		c := observe.OSDCheck{
			Number: o.Number, Place: s.place(o), Problem: o.Broken(), Full: o.Seen.Full, Used: o.Seen.Used, Free: o.Seen.Free,
		}
		if o.Disk != nil {
			c.Disk, c.Healthy, c.Temperature = o.Disk.Path+" "+o.Disk.Serial, o.Disk.Healthy, o.Disk.Temperature
		}
		out.OSDs = append(out.OSDs, c)
	}
	if s.o.Cluster != nil && s.o.Cluster.Others() && len(osds) > 0 {
		p, err := s.Preset(ctx, "")
		if err != nil {
			return &observe.Alba{Err: err.Error()}
		}
		if !p.OutlivesNode {
			out.NodeRisk = p.Explain + p.Problem
		}
	}
	r, err := s.open(ctx)
	if err != nil {
		return out
	}
	c := r.client.Stats()
	add := func(name, help string, v uint64) {
		out.Counters = append(out.Counters, observe.AlbaCounter{Name: name, Help: help, Value: v})
	}
	add("puts", "Objects stored.", c.Puts.Load())
	add("gets", "Reads of objects.", c.Gets.Load())
	add("deletes", "Objects deleted.", c.Deletes.Load())
	add("put_bytes", "Bytes of objects stored.", c.PutBytes.Load())
	add("get_bytes", "Bytes of objects read.", c.GetBytes.Load())
	add("moved_bytes", "Bytes read from devices.", c.MovedBytes.Load())
	add("manifest_hits", "Manifests found in the cache.", c.ManifestHit.Load())
	add("manifest_misses", "Manifests read from the NSM.", c.ManifestMiss.Load())
	add("degraded_reads", "Reads that rebuilt a fragment from others.", c.Degraded.Load())
	add("hedged_reads", "Reads that asked other devices because one was slow.", c.Hedged.Load())
	add("avoided_reads", "Fragments not read because their device has been slow lately.", c.Avoided.Load())
	add("incomplete_puts", "Objects stored with fewer than all fragments.", c.Incomplete.Load())
	add("fallback_puts", "Objects stored by another than the first policy.", c.Fallback.Load())
	add("damaged_fragments", "Fragments that reads found missing or damaged.", c.Damaged.Load())
	add("disqualifications", "Times that a device was taken out of use.", c.Disqualified.Load())
	return out
}

// place tells where a device is.
func (s *Service) place(o OSD) string {
	place := o.Directory + o.Address
	if s.o.Cluster != nil && s.o.Cluster.Others() && o.Node != o.Address {
		place += " of node " + s.NodeName(o.Node)
	}
	return place
}
