package volume

import (
	"cmp"
	"context"
	"slices"

	"github.com/openvstorage/ovgate/volumedriver/sco"
)

// settle finds out what the damage hits, by the logs of now: it goes through them in
// order and follows the damaged clusters until something replaces them. Damage of what
// no log has any more is dropped.
func (v *verifier) settle(ctx context.Context) error {
	if !slices.ContainsFunc(v.bad, func(d *damaged) bool { return d.kind != otherObject }) {
		return nil
	}
	if _, err := v.plan(ctx); err != nil {
		return err
	}
	h := newHits(v.bad)
	for i := range v.parts {
		part := &v.parts[i]
		if err := v.follow(ctx, h, part); err != nil {
			return err
		}
		if err := part.each(part.lines[1:], func(run Run, n uint32) error {
			h.tlog(part, run, n)
			entries, err := v.entries(ctx, part, run, n)
			for _, e := range entries {
				if d := h.scos[objectKey{part.id, e.Footer.Number}]; d != nil {
					d.present = true
				}
			}
			return err
		}); err != nil {
			return err
		}
	}
	h.end()
	v.out.Damage = nil // Progress was told the former
	for _, d := range v.bad {
		if d.kind != otherObject && !d.present {
			v.out.BadObjects--
			v.out.BadClusters -= uint64(d.bad)
			continue
		}
		v.out.Damage = append(v.out.Damage, d.Damage)
	}
	return nil
}

// follow goes through the line in use of a part.
func (v *verifier) follow(ctx context.Context, h *hits, part *verifyPart) error {
	pins := part.pins
	err := part.each(part.lines[:1], func(run Run, n uint32) error {
		h.tlog(part, run, n)
		entries, err := v.entries(ctx, part, run, n)
		for _, e := range entries {
			for len(pins) > 0 && e.Footer.LastSeq > pins[0].Seq {
				h.snapshot(pins[0].Name)
				pins = pins[1:]
			}
			h.apply(part.id, e.Footer)
		}
		return err
	})
	for _, p := range pins {
		h.snapshot(p.Name)
	}
	return err
}

// hits follows damaged clusters through a log.
type hits struct {
	bad         []*damaged
	scos, tlogs map[objectKey]*damaged
	all         []badCluster // by cluster
}

type objectKey struct {
	id     ID
	number uint32
}

type badCluster struct {
	cluster uint64
	d       *damaged
	dead    bool // something replaced it
}

func newHits(bad []*damaged) *hits {
	h := &hits{bad: bad, scos: map[objectKey]*damaged{}, tlogs: map[objectKey]*damaged{}}
	for _, d := range bad {
		switch d.kind {
		case scoObject:
			h.scos[objectKey{d.vdisk, d.number}] = d
		case tlogObject:
			h.tlogs[objectKey{d.vdisk, d.number}] = d
		}
		for _, c := range d.clusters {
			h.all = append(h.all, badCluster{cluster: c, d: d})
		}
	}
	slices.SortFunc(h.all, func(a, b badCluster) int { return cmp.Compare(a.cluster, b.cluster) })
	return h
}

// tlog notes that a log has a TLog.
func (h *hits) tlog(part *verifyPart, run Run, n uint32) {
	d := h.tlogs[objectKey{part.id, n}]
	if d != nil && d.Object == tlogName(part.id, part.log.opening(run, n), n) {
		d.present = true
	}
}

// apply takes the next SCO of the log: it replaces what it covers.
func (h *hits) apply(id ID, f *sco.Footer) {
	per := uint64(f.Cluster / lbaBytes)
	for _, e := range f.Extents {
		first, end := e.LBA/per, (e.LBA+e.Length)/per
		i, _ := slices.BinarySearchFunc(h.all, first, func(b badCluster, c uint64) int { return cmp.Compare(b.cluster, c) })
		for ; i < len(h.all) && h.all[i].cluster < end; i++ {
			if b := &h.all[i]; b.d.born && !b.dead {
				b.dead = true
				b.d.alive--
			}
		}
	}
	if d := h.scos[objectKey{id, f.Number}]; d != nil {
		d.present, d.born, d.alive = true, true, d.bad
	}
}

// live reports whether a damaged cluster is what the log has at this point.
func (d *damaged) live() bool { return d.born && d.alive > 0 }

// snapshot notes what this point of the log has.
func (h *hits) snapshot(name string) {
	for _, d := range h.bad {
		if d.live() && len(d.Snapshots) < MaxDamageSnapshots {
			d.Snapshots = append(d.Snapshots, name)
		}
	}
}

// end notes what the end of the log has.
func (h *hits) end() {
	for _, d := range h.bad {
		d.Current = d.live()
	}
}
