package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
)

// Repaired is what Repair did to an object.
type Repaired struct {
	Checked int   // fragments looked at on their devices
	Made    int   // fragments made anew
	Bytes   int64 // of them
	Left    int   // fragments that have no place yet
	Lost    int   // chunks of which fewer than k fragments are there
	Rewrite bool  // the object was stored anew by a better policy
	Gone    bool  // the object is not there any more
}

// Complete tells whether the object is as its policy wants it.
func (r Repaired) Complete() bool { return r.Left == 0 && r.Lost == 0 }

// RepairOptions say what counts as a fragment that is not there.
type RepairOptions struct {
	// Check verifies every fragment on its device; else a fragment counts as
	// there when its device does.
	Check bool
	// Better stores the object anew when a better policy can be met.
	Better bool
	// Away are devices that fragments are moved from although they work:
	// rebalancing; To where they go, if not empty.
	Away, To []uint32
}

// Repair brings an object back to all its fragments: those that are missing,
// damaged, or on a device that is leaving, are made anew from any k others, in pieces
// of the object's size whatever the preset wants by now, and stored under a higher version, then the manifest is changed if nobody else
// changed it (layout M2, nsm N1).
func (c *Client) Repair(ctx context.Context, namespace, name string, o RepairOptions) (Repaired, error) {
	sp, err := c.space(ctx, namespace)
	if err != nil {
		return Repaired{}, err
	}
	ns, err := sp.host.Namespace(ctx, sp.rec.ID)
	if err != nil {
		return Repaired{}, c.gone(ctx, namespace, err)
	}
	if ns.State == nsm.Recovering {
		return Repaired{}, c.gone(ctx, namespace, nsm.ErrRecovering)
	}
	m, err := sp.host.Get(ctx, sp.rec.ID, name)
	if errors.Is(err, nsm.ErrNotExist) {
		return Repaired{Gone: true}, nil
	}
	if err != nil {
		return Repaired{}, err
	}
	if o.Better {
		done, err := c.rewrite(ctx, sp, ns, m)
		if done || err != nil {
			return Repaired{Rewrite: done}, err
		}
	}
	r := &repair{c: c, sp: sp, ns: ns, was: m, m: m.Clone(), o: o}
	if err := r.run(ctx); err != nil {
		return r.did, fmt.Errorf("namespace %s: object %s: %w", namespace, name, err)
	}
	return r.did, nil
}

// rewrite stores an object anew when a better policy than its own can be met with
// all its fragments.
func (c *Client) rewrite(ctx context.Context, sp space, ns nsm.Namespace, m *layout.Manifest) (bool, error) {
	if !c.Better(ns, m) {
		return false, nil
	}
	data, err := c.Get(ctx, ns.Name, m.Name, layout.MaxObjectBytes)
	if err != nil {
		return false, err
	}
	if int64(len(data)) != m.Size || osd.CRC(data) != m.CRC {
		return false, nil // it was replaced: that one has its own policy
	}
	err = c.Apply(ctx, ns.Name, []nsm.Assert{{Name: m.Name, Object: &m.Object}}, []Change{{Name: m.Name, Data: data}})
	if errors.Is(err, nsm.ErrAssert) {
		return false, nil
	}
	return err == nil, err
}

// Better tells whether a policy before the object's own has places for all
// its fragments.
func (c *Client) Better(ns nsm.Namespace, m *layout.Manifest) bool {
	groups := perGroup(c.candidates(ns.Preset, nil))
	for _, p := range ns.Preset.Policies {
		if p == m.Policy {
			return false
		}
		if p.Places(groups) == p.N() {
			return true
		}
	}
	return false
}

// repair is the work on one object.
type repair struct {
	c   *Client
	sp  space
	ns  nsm.Namespace
	was *layout.Manifest
	m   *layout.Manifest // as it will be
	o   RepairOptions
	did Repaired
}

func (r *repair) run(ctx context.Context) error {
	changed := false
	for chunk := range r.m.Fragments {
		did, err := r.chunk(ctx, chunk)
		if err != nil {
			r.undo()
			return err
		}
		changed = changed || did
	}
	if !changed {
		return nil
	}
	err := r.sp.host.Apply(ctx, r.ns.ID, r.ns.EpochMax, nil, []nsm.Change{{Move: r.m}})
	r.c.manifests.drop(r.ns.ID, r.m.Name)
	if err != nil && definite(err) {
		r.undo()
	}
	return err
}

// undo deletes the fragments that were made, when the manifest will not name them.
func (r *repair) undo() {
	made := r.m.Clone()
	for i, chunk := range made.Fragments {
		for j, f := range chunk {
			was := r.was.Fragments[i][j]
			if f.OSD == was.OSD && f.Version == was.Version {
				chunk[j].OSD = 0
			}
		}
	}
	r.c.abandon(r.ns.ID, []*layout.Manifest{made})
}

// state of a fragment.
type state int

const (
	good     state = iota // stays where it is
	moving                // can be read, goes elsewhere
	untagged              // can be read, and not found by its tag: to be made anew
	broken                // to be made anew
	gone                  // and its device has left
)

// chunk repairs one chunk in r.m; true when something changed.
func (r *repair) chunk(ctx context.Context, chunk int) (bool, error) {
	frags := r.m.Fragments[chunk]
	states := make([]state, len(frags))
	bad := 0
	for i := range frags {
		var err error
		if states[i], err = r.look(ctx, chunk, i); err != nil {
			return false, err
		}
	}
	r.spread(frags, states)
	for _, s := range states {
		if s != good {
			bad++
		}
	}
	if bad == 0 {
		return false, nil
	}
	readable := 0
	for _, s := range states {
		if s <= untagged {
			readable++
		}
	}
	if readable < r.m.Policy.K {
		r.did.Lost++
		return r.forget(frags, states), nil
	}
	// What is not there at all first, then what only moves.
	var order []int
	for _, s := range []state{gone, broken, untagged, moving} {
		for i := range frags {
			if states[i] == s {
				order = append(order, i)
			}
		}
	}
	places := r.places(frags, states, order)
	r.did.Left += len(order) - len(places)
	if len(places) == 0 {
		return false, nil
	}
	return true, r.make(ctx, chunk, states, places)
}

// spread has fragments move that are too many in a domain: a node came to another one
// since they were stored. A device never comes to another node.
func (r *repair) spread(frags []layout.Fragment, states []state) {
	view := r.c.devices.view.Load()
	recs := func(number uint32) (manager.OSD, bool) {
		if dev := view.byNumber[number]; dev != nil {
			return dev.rec, true
		}
		return manager.OSD{}, false
	}
	for _, i := range manager.Crowded(r.ns.Preset.Spread, r.m.Policy.X, frags, recs) {
		if states[i] == good {
			states[i] = moving
		}
	}
}

// forget takes fragments on purged devices out of a chunk that cannot be repaired.
func (r *repair) forget(frags []layout.Fragment, states []state) bool {
	changed := false
	for i := range frags {
		if states[i] == gone && frags[i].OSD != 0 {
			frags[i].OSD = 0
			changed = true
		}
	}
	return changed
}

// look tells the state of a fragment.
func (r *repair) look(ctx context.Context, chunk, i int) (state, error) {
	f := r.m.Fragments[chunk][i]
	if f.OSD == 0 {
		return broken, nil
	}
	dev := r.c.devices.view.Load().byNumber[f.OSD]
	if dev == nil {
		rec, err := r.c.o.Manager.OSD(ctx, f.OSD)
		if err == nil && rec.State != manager.Purging && rec.State != manager.Left {
			err = fmt.Errorf("device %d is not open", f.OSD)
		}
		return gone, err
	}
	switch {
	case !dev.rec.Counts():
		return broken, nil
	case r.o.Check:
		s, err := r.check(ctx, dev, chunk, i)
		if err != nil || s != good {
			return s, err
		}
	}
	if !dev.rec.Takes() || slices.Contains(r.o.Away, f.OSD) {
		return moving, nil
	}
	return good, nil
}

// check verifies a fragment on its device. One whose device does not answer may be
// good: whether it is given up is decided elsewhere, until then the work is not done.
func (r *repair) check(ctx context.Context, dev *device, chunk, i int) (state, error) {
	if dev.osd == nil || dev.failed() {
		r.did.Left++
		return good, nil
	}
	r.did.Checked++
	f := r.m.Fragments[chunk][i]
	place := r.m.Place(r.ns.ID, chunk, i)
	key := place.FragmentKey()
	call, cancel := WithTimeout(ctx, r.c.o.Clock, r.c.o.Timeout)
	defer cancel()
	found, err := dev.osd.List(call, key, nil, 1, osd.Low)
	if err != nil {
		return r.unsure(ctx, dev, err)
	}
	if len(found) == 0 || found[0].Size != f.Index.StoredBytes() || found[0].CRC != f.Index.CRC() {
		return broken, nil
	}
	v, err := dev.osd.Validate(call, key, nil, 1, f.Index.StoredBytes())
	if err != nil {
		return r.unsure(ctx, dev, err)
	}
	if len(v.Bad) > 0 {
		return broken, nil
	}
	// Its tag, which is what it can be found by when manifests are lost.
	tag, err := dev.osd.Get(call, [][]byte{place.TagKey(f.Epoch)}, layout.MaxManifestBytes, osd.Low)
	switch {
	case errors.Is(err, osd.ErrCorrupt):
		return untagged, nil
	case err != nil:
		return r.unsure(ctx, dev, err)
	case tag[0].Data == nil:
		return untagged, nil
	}
	return good, nil
}

// unsure decides about a fragment whose device failed while it was checked.
func (r *repair) unsure(ctx context.Context, dev *device, err error) (state, error) {
	if ctx.Err() != nil {
		return good, ctx.Err()
	}
	r.c.blame(ctx, dev, err)
	r.did.Left++
	return good, nil
}

// placed is where a fragment will be.
type placed struct {
	index int
	at    candidate
}

// places chooses devices for the fragments in order, as far as there is room. What is
// not made anew now stays where the manifest says and counts for x of the policy: its
// device may come back.
func (r *repair) places(frags []layout.Fragment, states []state, order []int) []placed {
	view := r.c.devices.view.Load()
	named := map[uint32]bool{}
	on := newTally()
	for i, f := range frags {
		if f.OSD == 0 {
			continue
		}
		// Not where another version of the fragment may still be, either.
		named[f.OSD] = true
		if dev := view.byNumber[f.OSD]; dev != nil && states[i] != gone {
			on.add(dev.candidate(r.ns.Preset, 0), 1)
		}
	}
	all := r.c.candidates(r.ns.Preset, named)
	if len(r.o.To) > 0 {
		all = slices.DeleteFunc(all, func(c candidate) bool { return !slices.Contains(r.o.To, c.number) })
	}
	var out []placed
	for len(order) > 0 {
		var later []int // until others have made room
		for _, i := range order {
			number := frags[i].OSD
			dev := view.byNumber[number]
			if number != 0 && dev != nil && states[i] != gone {
				on.add(dev.candidate(r.ns.Preset, 0), -1)
			}
			at := place(all, 1, r.m.Policy.X, on, r.c.random)
			if len(at) == 0 && len(r.o.To) == 0 && (states[i] == broken || states[i] == untagged) && dev != nil && dev.rec.Takes() && !dev.failed() {
				// Rather than nowhere: on the device that has the damaged one, under another version.
				at = place([]candidate{dev.candidate(r.ns.Preset, view.free[number])}, 1, r.m.Policy.X, on, r.c.random)
			}
			if len(at) == 0 {
				if number != 0 && dev != nil && states[i] != gone {
					on.add(dev.candidate(r.ns.Preset, 0), 1)
				}
				later = append(later, i)
				continue
			}
			on.add(at[0], 1)
			all = remove(all, at)
			out = append(out, placed{i, at[0]})
		}
		if len(later) == len(order) {
			break
		}
		order = later
	}
	return out
}

// make reads k fragments, makes others, and stores them at their places.
func (r *repair) make(ctx context.Context, chunk int, states []state, places []placed) error {
	key, err := r.c.key(r.m.Header)
	if err != nil {
		return err
	}
	code, err := fragment.NewCode(r.m.Policy.K, r.m.Policy.M)
	if err != nil {
		return err
	}
	shards, err := r.shards(ctx, code, key, chunk, states, places)
	if err != nil {
		return err
	}
	for _, p := range places {
		if err := r.remake(ctx, key, chunk, p.index, shards[p.index], p.at); err != nil {
			return err
		}
	}
	return nil
}

// shards returns the whole shards of places, made from any k that can be read.
func (r *repair) shards(ctx context.Context, code *fragment.Code, key *fragment.Key, chunk int, states []state, places []placed) ([][]byte, error) {
	src := r.was.Clone()
	for i := range src.Fragments[chunk] {
		if states[i] > untagged {
			src.Fragments[chunk][i].OSD = 0
		}
	}
	g := &gather{c: r.c, sp: r.sp, m: src, key: key, code: code, chunk: chunk, futures: map[piecesOf]*future{}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer g.report()
	shards := make([][]byte, r.m.Policy.N())
	size := r.m.PieceSize()
	pieces := size.Pieces(code.ShardBytes(r.m.ChunkLen(chunk)))
	// A shard that is not any of the chunk's: nothing is preferred.
	if err := g.anyK(ctx, want{shard: -1, count: pieces, size: size}, shards); err != nil {
		return nil, err
	}
	wanted := make([]bool, len(shards))
	for _, p := range places {
		wanted[p.index] = true
	}
	return shards, code.Reconstruct(shards, wanted)
}

// versionStep bounds the random growth of a version: a fragment can be made anew
// some hundred thousand times.
const versionStep = 1 << 15

// remake stores one fragment under a higher version and notes it in r.m.
func (r *repair) remake(ctx context.Context, key *fragment.Key, chunk, i int, shard []byte, at candidate) error {
	f := &r.m.Fragments[chunk][i]
	// Not simply the next: an attempt that failed half-way may have left that one,
	// and collection must be able to delete it by its name (layout M2).
	version := f.Version + 1 + uint32(r.c.random()*versionStep)
	place := layout.Place{Namespace: r.ns.ID, Object: r.m.Object, Chunk: uint32(chunk), Index: uint8(i), Version: version}
	stored, index, err := fragment.Pack(nil, place.FragmentID(r.m.Policy.K), shard, r.m.Compression, r.m.PieceSize(), key)
	if err != nil {
		return err
	}
	tag, err := layout.EncodeRecovery(r.m.Header, index)
	if err != nil {
		return err
	}
	p := packed{stored, index, tag}
	if err := r.c.store(ctx, r.ns, at.number, r.m.Object, chunk, i, version, r.ns.EpochMax, p); err != nil {
		return err
	}
	*f = layout.Fragment{OSD: at.number, Version: version, Epoch: r.ns.EpochMax, Index: index}
	r.did.Made++
	r.did.Bytes += int64(len(stored))
	return nil
}
