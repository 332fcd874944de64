package cinder

import (
	"context"
	"fmt"
)

// cinderSnapshot is what matters of an answer about a snapshot.
type cinderSnapshot struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
	Volume string `json:"volume_id"`
}

// settled tells whether the vDisk of the volume has to have the snapshot.
func (s cinderSnapshot) settled() bool { return s.Status == "available" || s.Status == "backing-up" }

func (c *Cloud) snapshots(ctx context.Context) ([]cinderSnapshot, error) {
	return restarting(ctx, func(ctx context.Context) ([]cinderSnapshot, error) {
		return pages(ctx, c, "snapshots", func(s cinderSnapshot) string { return s.ID })
	})
}

// Snapshots is what a cloud has of them.
type Snapshots struct {
	Missing []Orphan        // of volumes whose vDisk has them not
	Seen    map[string]bool // ids of all of them
	Count   map[string]int  // by the id of their volume
}

// Snapshots compares the snapshots of the volumes of a mapping with those of their vDisks.
// list is called after the snapshots were listed.
//
// Which is which is told by label. Cinder does not tell the key of one that it took over,
// or that is a member of a group snapshot: those count as a pair with any that has no
// other, so that one is missing only when the vDisk has fewer than the volume. A missing one
// has still to be there, settled, when they are listed again.
func (c *Cloud) Snapshots(ctx context.Context, m Mapping, list func() []VDisk) (Snapshots, error) {
	out := Snapshots{Seen: map[string]bool{}, Count: map[string]int{}}
	all, err := c.snapshots(ctx)
	if err != nil {
		return out, err
	}
	of := map[string][]cinderSnapshot{}
	for _, s := range all {
		out.Seen[s.ID] = true
		out.Count[s.Volume]++
		if s.settled() {
			of[s.Volume] = append(of[s.Volume], s)
		}
	}
	disks := map[string]*VDisk{}
	for _, d := range list() {
		disks[d.ID] = &d
	}
	alone := map[string]*Volume{} // by snapshot
	for i := range m.Volumes {
		v := &m.Volumes[i]
		d := disks[v.VDisk]
		if d == nil || d.Snapshots == nil || len(d.Snapshots) >= len(of[v.ID]) {
			continue
		}
		has := map[string]bool{}
		for _, s := range d.Snapshots {
			has[s.Of] = true
		}
		for _, s := range of[v.ID] {
			if !has[s.ID] {
				alone[s.ID] = v
			}
		}
	}
	if len(alone) == 0 {
		return out, nil
	}
	if all, err = c.snapshots(ctx); err != nil {
		return out, err
	}
	for _, s := range all {
		if v := alone[s.ID]; v != nil && s.settled() {
			out.Missing = append(out.Missing, Orphan{Volume: v, Snapshot: &Snapshot{s.ID, s.Name, s.Volume}, Why: fmt.Sprintf("vDisk %s of volume %s has no snapshot for it", v.VDiskName, v.ID)})
		}
	}
	return out, nil
}

// OrphanSnapshots are the snapshots of vDisks of Cinder that no cloud has, of volumes that
// one has. before and after are as for OrphanDisks; after has DISK/SNAPSHOT, too.
func OrphanSnapshots(before []VDisk, after map[string]bool, volumes []Mapping, clouds []Snapshots) []Orphan {
	var out []Orphan
	for i := range before {
		d := &before[i]
		volume, count := "", 0
		for n, m := range volumes {
			for _, v := range m.Volumes {
				if v.VDisk == d.ID {
					volume, count = v.ID, clouds[n].Count[v.ID]
				}
			}
		}
		if volume == "" || len(d.Snapshots) <= count {
			continue
		}
		for k := range d.Snapshots {
			s := &d.Snapshots[k]
			known := s.Of == "" || !after[d.ID+"/"+s.ID]
			for _, c := range clouds {
				known = known || c.Seen[s.Of]
			}
			if !known {
				out = append(out, Orphan{VDisk: d, Snapshot: s, Why: fmt.Sprintf("volume %s has no snapshot %s: it was unmanaged, or is left of one that was deleted", volume, s.Of)})
			}
		}
	}
	return out
}
