package maintenance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/clock"
)

// Reconcile compares the devices that came back with the manifests (T3, T4).
// Objects whose fragments lack there become work.
func (a *Agent) Reconcile(ctx context.Context) error {
	_, err := a.reconcile(ctx)
	return err
}

// reconcile is Reconcile, and tells whether a device counts again.
func (a *Agent) reconcile(ctx context.Context) (did bool, _ error) {
	osds, err := a.m.OSDs(ctx)
	if err != nil {
		return false, err
	}
	seen, err := a.m.SeenAll(ctx)
	if err != nil {
		return false, err
	}
	back := map[uint32]manager.OSD{}
	var why []string
	for _, o := range osds {
		s := seen[o.Number]
		if s.Reconcile == "" || s.Error != "" || o.State != manager.InUse && o.State != manager.Decommissioning {
			continue
		}
		back[o.Number] = o
		why = append(why, fmt.Sprintf("device %d: %s", o.Number, s.Reconcile))
	}
	if len(back) == 0 {
		return false, nil
	}
	job := a.begin("reconcile", "compare devices with the manifests: "+strings.Join(why, "; "), "objects", a.Safety().Objects)
	missing, err := a.compare(ctx, slices.Sorted(maps.Keys(back)), job, nil)
	a.end(job, err)
	if err != nil {
		return false, err
	}
	for n, o := range back {
		if missing[n] > 0 {
			a.event("osd.incomplete", n, slog.LevelWarn, fmt.Sprintf("device %d lacks %d fragments (%s): they are made anew", n, missing[n], seen[n].Reconcile))
		}
		if err := a.reconciled(ctx, o, seen[n]); err != nil {
			return did, err
		}
		did = true
	}
	return did, nil
}

// reconciled lets a device count again, unless it ran anew meanwhile.
func (a *Agent) reconciled(ctx context.Context, o manager.OSD, was manager.Seen) error {
	done := false
	_, err := a.m.SetSeen(ctx, o.Number, func(s *manager.Seen) {
		if done = s.Run == was.Run && s.Applies >= was.Applies; done {
			if s.Suspect {
				s.Collected = nil // what it brought back is looked through from the beginning
			}
			s.Reconcile, s.Suspect = "", false
		}
	})
	if err != nil || !done {
		return err
	}
	if !o.RebuildFrom.IsZero() {
		if err := a.m.Restored(ctx, o.Number); err != nil {
			return err
		}
		a.event("osd.back", o.Number, slog.LevelInfo, fmt.Sprintf("device %d of node %s is back in use", o.Number, a.o.NodeName(o.Node)))
	}
	a.soon()
	return a.c.Refresh(ctx)
}

// onDevice is what a device says of a fragment.
type onDevice struct {
	size int64
	crc  uint32
}

// fragmentsOn lists the fragments of a namespace on a device, and their tags, by key.
// They are in memory for as long as the namespace is compared: some 200 bytes each.
func (a *Agent) fragmentsOn(ctx context.Context, number uint32, ns uint64) (map[string]onDevice, error) {
	out := map[string]onDevice{}
	for _, prefix := range [][]byte{layout.FragmentsPrefix(ns), layout.TagsPrefix(ns)} {
		err := a.keys(ctx, number, prefix, nil, func(page []osd.Entry) error {
			for _, e := range page {
				out[string(e.Key)] = onDevice{e.Size, e.CRC}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// compare reports every object of which one of the devices lacks a fragment or its
// tag, has it with another length or checksum, or has either in bad, and counts those
// fragments by device. It takes a third of a processor at most: nothing waits for it.
func (a *Agent) compare(ctx context.Context, devices []uint32, job *Job, bad map[string]bool) (map[uint32]int, error) {
	missing := map[uint32]int{}
	err := a.namespaces(ctx, func(n manager.Namespace, host *nsm.Host) error {
		begin := a.o.Clock.Now()
		have := map[uint32]map[string]onDevice{}
		for _, number := range devices {
			var err error
			if have[number], err = a.fragmentsOn(ctx, number, n.ID); err != nil {
				return err
			}
		}
		err := a.objects(ctx, host, n, func(m *layout.Manifest) error {
			a.progress(job, 1, 0)
			lacks := map[uint32]int{}
			for i, chunk := range m.Fragments {
				for j, f := range chunk {
					on, asked := have[f.OSD]
					if !asked {
						continue
					}
					place := m.Place(n.ID, i, j)
					key, tag := place.FragmentKey(), place.TagKey(f.Epoch)
					got, there := on[string(key)]
					_, tagged := on[string(tag)]
					fits := there && got.size == f.Index.StoredBytes() && got.crc == f.Index.CRC()
					if !fits || !tagged || bad[string(key)] || bad[string(tag)] {
						lacks[f.OSD]++
					}
				}
			}
			if len(lacks) == 0 {
				return nil
			}
			var where []string
			for _, number := range slices.Sorted(maps.Keys(lacks)) {
				missing[number] += lacks[number]
				where = append(where, fmt.Sprintf("%d fragments missing or damaged on device %d", lacks[number], number))
			}
			return host.Report(ctx, n.ID, m.Name, strings.Join(where, ", "))
		})
		if err != nil {
			return err
		}
		return a.rest(ctx, 2*a.o.Clock.Now().Sub(begin))
	})
	return missing, err
}

// restMin is the shortest rest that is worth a timer.
const restMin = 10 * time.Millisecond

// rest waits, so that long walks leave the processor to others.
func (a *Agent) rest(ctx context.Context, d time.Duration) error {
	if d < restMin {
		return ctx.Err()
	}
	return clock.Sleep(ctx, a.o.Clock, d)
}

// Verify has every device compare its fragments with their checksums, at the
// configured rate, and reports objects with damaged ones.
func (a *Agent) Verify(ctx context.Context) error {
	osds, err := a.m.OSDs(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range osds {
		if !o.Counts() {
			continue
		}
		if err := a.VerifyOSD(ctx, o.Number); err != nil {
			errs = append(errs, fmt.Errorf("device %d: %w", o.Number, err))
		}
	}
	return errors.Join(errs...)
}

// VerifyOSD verifies one device.
func (a *Agent) VerifyOSD(ctx context.Context, number uint32) error {
	o, err := a.m.OSD(ctx, number)
	if err != nil {
		return err
	}
	job := a.begin(fmt.Sprintf("verify-%d", number), fmt.Sprintf("verify device %d", number), "fragments", 0)
	err = a.verify(ctx, o, job)
	a.end(job, err)
	return err
}

// verifyBudget is what a device reads in one call.
const verifyBudget = 32 << 20

func (a *Agent) verify(ctx context.Context, o manager.OSD, job *Job) error {
	bad := map[string]bool{}
	// Without its tag a fragment is lost when the records of its namespace are.
	for _, prefix := range []string{"f", "g"} {
		if err := a.validate(ctx, o.Number, []byte(prefix), bad, job); err != nil {
			return err
		}
	}
	missing, err := a.compare(ctx, []uint32{o.Number}, job, bad)
	if missing[o.Number] > 0 {
		a.event("osd.damaged", o.Number, slog.LevelWarn, fmt.Sprintf("verification found %d damaged or missing fragments on device %d: they are made anew", missing[o.Number], o.Number))
	}
	return err
}

// validate has a device read its values with a prefix, and adds the keys of damaged
// ones to bad.
func (a *Agent) validate(ctx context.Context, number uint32, prefix []byte, bad map[string]bool, job *Job) error {
	start, read := a.o.Clock.Now(), int64(0)
	for after := []byte(nil); ; {
		dev := a.c.Device(number)
		if dev == nil {
			return errors.New("it is not open")
		}
		call, cancel := a.call(ctx)
		v, err := dev.Validate(call, prefix, after, 0, verifyBudget)
		cancel()
		if err != nil {
			return err
		}
		for _, key := range v.Bad {
			bad[string(key)] = true
		}
		read += v.Bytes
		a.progress(job, int64(v.Keys), v.Bytes)
		if v.Next == nil {
			return nil
		}
		after = v.Next
		if err := a.pace(ctx, start, read); err != nil {
			return err
		}
	}
}
