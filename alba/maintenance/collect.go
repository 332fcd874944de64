package maintenance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
)

// Garbage deletes fragments that manifests dropped (T1). What is on a device that
// does not answer stays for the next round; what was on one that left is forgotten.
func (a *Agent) Garbage(ctx context.Context) error {
	_, err := a.garbage(ctx)
	return err
}

// garbage is Garbage, and tells whether it deleted something.
func (a *Agent) garbage(ctx context.Context) (did bool, _ error) {
	osds, err := a.m.OSDs(ctx)
	if err != nil {
		return false, err
	}
	state := map[uint32]manager.OSD{}
	for _, o := range osds {
		state[o.Number] = o
	}
	err = a.hosts(ctx, func(h *nsm.Host) error {
		var last *nsm.Garbage
		for {
			page, err := h.ListGarbage(ctx, last, workPage)
			if err != nil || len(page) == 0 {
				return err
			}
			last = &page[len(page)-1]
			some, err := a.drop(ctx, h, state, page)
			if did = did || some; err != nil {
				return err
			}
		}
	})
	return did, err
}

// drop deletes a page of garbage, device by device, and tells whether something went.
func (a *Agent) drop(ctx context.Context, h *nsm.Host, state map[uint32]manager.OSD, page []nsm.Garbage) (did bool, _ error) {
	deletes := map[uint32][]osd.Update{}
	for _, g := range page {
		for _, d := range g.Places {
			p := d.Place(g.Namespace)
			deletes[d.OSD] = append(deletes[d.OSD], osd.Delete(p.FragmentKey()), osd.Delete(p.TagKey(d.Epoch)))
		}
	}
	failed := map[uint32]bool{}
	for n, updates := range deletes {
		if o, ok := state[n]; !ok || o.State == manager.Purging {
			continue
		}
		failed[n] = a.delete(ctx, n, updates) != nil
	}
	for _, g := range page {
		var left []nsm.Dropped
		for _, d := range g.Places {
			if failed[d.OSD] {
				left = append(left, d)
			}
		}
		if len(left) == len(g.Places) {
			continue
		}
		did = true
		if err := h.Collected(ctx, g, left); err != nil {
			return did, err
		}
	}
	return did, ctx.Err()
}

// openEpoch is an epoch that collection opened, to close those before it.
type openEpoch struct {
	epoch uint64
	at    time.Time
}

// Collect finds fragments that no manifest ever named. For each namespace: open an
// epoch, and once the grace time is over close those before it and go through
// their tags on each device (T1). What is open is forgotten with the agent:
// another begins anew, which takes longer and loses nothing.
func (a *Agent) Collect(ctx context.Context) error {
	return a.namespaces(ctx, func(n manager.Namespace, host *nsm.Host) error {
		rec, err := a.record(ctx, n, host)
		if err == nil && (rec.State == nsm.Closing || rec.State == nsm.Removing) {
			// Its removal was interrupted: go on, or let it live (manager G7).
			_, err = a.m.Settle(ctx, n)
		}
		if unknown(err) {
			return nil // the survey tells
		}
		if err != nil || rec.State != nsm.Active {
			return err
		}
		if rec, err = a.turn(ctx, host, rec); err != nil {
			return err
		}
		return a.sweepTags(ctx, n, host, rec)
	})
}

// turn moves the epochs of a namespace on, if there are tags to look at.
func (a *Agent) turn(ctx context.Context, host *nsm.Host, rec nsm.Namespace) (nsm.Namespace, error) {
	a.mu.Lock()
	open, ok := a.epochs[rec.ID]
	a.mu.Unlock()
	now := a.o.Clock.Now()
	switch {
	case !ok && !a.tagged(ctx, rec.ID):
		return rec, nil
	case !ok:
		epoch, err := host.OpenEpoch(ctx, rec.ID)
		if err != nil {
			return rec, err
		}
		a.mu.Lock()
		a.epochs[rec.ID] = openEpoch{epoch, now}
		a.mu.Unlock()
		return rec, nil
	case now.Sub(open.at) < a.o.Grace:
		return rec, nil
	}
	if err := host.CloseEpochs(ctx, rec.ID, open.epoch-1); err != nil {
		return rec, err
	}
	a.mu.Lock()
	delete(a.epochs, rec.ID)
	a.mu.Unlock()
	return host.Namespace(ctx, rec.ID)
}

// tagged tells whether a device that answers has tags that were not gone through.
func (a *Agent) tagged(ctx context.Context, ns uint64) bool {
	seen, err := a.m.SeenAll(ctx)
	if err != nil {
		return false
	}
	for n, s := range seen {
		dev := a.c.Device(n)
		if dev == nil || s.Error != "" {
			continue
		}
		call, cancel := a.call(ctx)
		page, err := dev.List(call, layout.TagsPrefix(ns), layout.EpochAfter(ns, s.Collected[ns]), 1, osd.Low)
		cancel()
		if err == nil && len(page) > 0 {
			return true
		}
	}
	return false
}

// sweepTags goes through the tags of closed epochs on every device that answers.
func (a *Agent) sweepTags(ctx context.Context, n manager.Namespace, host *nsm.Host, rec nsm.Namespace) error {
	seen, err := a.m.SeenAll(ctx)
	if err != nil {
		return err
	}
	closed := rec.EpochMin - 1
	for number, s := range seen {
		if s.Collected[n.ID] >= closed || s.Error != "" || s.Reconcile != "" || a.c.Device(number) == nil {
			continue
		}
		c := &collection{a: a, number: number, n: n, rec: rec, host: host, done: s.Collected[n.ID], closed: closed}
		if err := c.run(ctx); err != nil {
			a.log.Info("collection goes on later", "device", number, "namespace", n.Name, "error", err)
			continue
		}
		_, err := a.m.SetSeen(ctx, number, func(now *manager.Seen) {
			if now.Run != s.Run || now.Reconcile != "" {
				return
			}
			if now.Collected == nil {
				now.Collected = map[uint64]uint64{}
			}
			now.Collected[n.ID] = closed
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// collection looks at the tags of a namespace on one device: those of the epochs
// after done, up to closed.
type collection struct {
	a            *Agent
	number       uint32
	n            manager.Namespace
	rec          nsm.Namespace
	host         *nsm.Host
	done, closed uint64

	// The object last looked up: its tags lie together.
	object   layout.Object
	manifest *layout.Manifest

	damaged []tagOf // do not say of which object they are
}

// tagOf is the tag of a fragment on the device.
type tagOf struct {
	place layout.Place
	epoch uint64
}

// bar keeps late writers out of the epochs that are gone through (layout M3).
func (c *collection) bar(ctx context.Context) error {
	dev := c.a.c.Device(c.number)
	if dev == nil {
		return fmt.Errorf("device %d is not open", c.number)
	}
	call, cancel := c.a.call(ctx)
	defer cancel()
	_, err := client.RaiseLink(call, dev, layout.Link{ID: c.n.ID, Name: c.n.Name, Preset: c.rec.Preset.Name, EpochMin: c.rec.EpochMin}, false)
	return err
}

// errEnd ends a walk over keys.
var errEnd = errors.New("end")

func (c *collection) run(ctx context.Context) error {
	if err := c.bar(ctx); err != nil {
		return err
	}
	err := c.a.keys(ctx, c.number, layout.TagsPrefix(c.n.ID), layout.EpochAfter(c.n.ID, c.done), func(page []osd.Entry) error {
		var deletes []osd.Update
		end := false
		for _, e := range page {
			place, epoch, err := layout.ParseTagKey(e.Key)
			if err != nil {
				return err
			}
			if end = epoch > c.closed; end {
				break
			}
			used, err := c.named(ctx, place, epoch, e.Key)
			if err != nil {
				return err
			}
			if !used {
				deletes = append(deletes, osd.Delete(place.FragmentKey()), osd.Delete(e.Key))
			}
		}
		if err := c.still(ctx, len(deletes)); err != nil {
			return err
		}
		if err := c.a.delete(ctx, c.number, deletes); err != nil {
			return err
		}
		if end {
			return errEnd
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnd) {
		return err
	}
	return c.unread(ctx)
}

// unread deletes the fragments with damaged tags that no manifest names: all are gone
// through, and in a closed epoch none comes.
func (c *collection) unread(ctx context.Context) error {
	if len(c.damaged) == 0 {
		return nil
	}
	of := map[layout.Object][]tagOf{}
	for _, t := range c.damaged {
		of[t.place.Object] = append(of[t.place.Object], t)
	}
	err := c.a.objects(ctx, c.host, c.n, func(m *layout.Manifest) error {
		if tags := of[m.Object]; tags != nil {
			of[m.Object] = slices.DeleteFunc(tags, func(t tagOf) bool { return c.names(m, t) })
		}
		return nil
	})
	if err != nil {
		return err
	}
	var deletes []osd.Update
	for _, tags := range of {
		for _, t := range tags {
			deletes = append(deletes, osd.Delete(t.place.FragmentKey()), osd.Delete(t.place.TagKey(t.epoch)))
		}
	}
	if err := c.still(ctx, len(deletes)); err != nil {
		return err
	}
	return c.a.delete(ctx, c.number, deletes)
}

// still makes sure, after manifests were not found and before anything is deleted for
// that, that the host has the records in which they were looked for: a store that
// lost them knows no namespace, or one whose epochs began anew (T1).
func (c *collection) still(ctx context.Context, deletes int) error {
	if deletes == 0 {
		return nil
	}
	rec, err := c.host.Namespace(ctx, c.n.ID)
	if err == nil && (rec.State != nsm.Active || rec.EpochMin <= c.closed) {
		err = fmt.Errorf("it is %s with epochs from %d: not collected up to %d", rec.State, rec.EpochMin, c.closed)
	}
	return err
}

// named tells whether the manifest of a tag's object names the fragment. What
// cannot be read is an error: the fragment stays (T1).
func (c *collection) named(ctx context.Context, place layout.Place, epoch uint64, key []byte) (bool, error) {
	if c.object != place.Object {
		name, err := c.name(ctx, key)
		if errors.Is(err, osd.ErrCorrupt) || errors.Is(err, layout.ErrFormat) {
			c.a.log.Warn("tag is damaged", "device", c.number, "fragment", place, "error", err)
			c.damaged = append(c.damaged, tagOf{place, epoch})
			return true, nil // for now
		}
		if err != nil || name == "" {
			return true, err
		}
		m, err := c.host.Get(ctx, c.n.ID, name)
		if err != nil && !errors.Is(err, nsm.ErrNotExist) {
			return false, err
		}
		c.object, c.manifest = place.Object, m
	}
	return c.names(c.manifest, tagOf{place, epoch}), nil
}

// names tells whether a manifest, or none, names the fragment of a tag.
func (c *collection) names(m *layout.Manifest, t tagOf) bool {
	p := t.place
	if m == nil || m.Object != p.Object || int(p.Chunk) >= len(m.Fragments) || int(p.Index) >= len(m.Fragments[p.Chunk]) {
		return false
	}
	f := m.Fragments[p.Chunk][p.Index]
	return f.OSD == c.number && f.Version == p.Version && f.Epoch == t.epoch
}

// name reads the object's name out of a tag; empty when the tag is gone meanwhile.
func (c *collection) name(ctx context.Context, key []byte) (string, error) {
	dev := c.a.c.Device(c.number)
	if dev == nil {
		return "", fmt.Errorf("device %d is not open", c.number)
	}
	call, cancel := c.a.call(ctx)
	defer cancel()
	v, err := dev.Get(call, [][]byte{key}, layout.MaxManifestBytes, osd.Low)
	if err != nil || v[0].Data == nil {
		return "", err
	}
	h, _, err := layout.DecodeRecovery(v[0].Data)
	return h.Name, err
}
