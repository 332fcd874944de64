package nsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/internal/kv"
)

// Bounds of one sequence: what fits into a transaction of the store with the
// garbage and work that each change brings.
const (
	MaxChanges = 20
	maxTries   = 32
)

// Assert is a condition on an object, which a sequence applies under.
type Assert struct {
	Name   string
	Absent bool           // the object does not exist; else it does
	Object *layout.Object // and has this id
	CRC    *uint32        // and this checksum
}

// Change is one step of a sequence: exactly one of Put, Delete and Move.
type Change struct {
	// Put stores this manifest, replacing what is there.
	Put *layout.Manifest
	// IfAbsent makes Put fail with ErrExists where another object is.
	IfAbsent bool
	// Delete removes the object of this name; absent is no error.
	Delete string
	// Move replaces fragments of an object that still has this manifest's
	// Revision: repair and rebalance. ErrChanged otherwise.
	Move *layout.Manifest
}

func (c Change) name() string {
	switch {
	case c.Put != nil:
		return c.Put.Name
	case c.Move != nil:
		return c.Move.Name
	}
	return c.Delete
}

// one tells whether exactly one thing is asked.
func (c Change) one() bool {
	n := 0
	for _, asked := range []bool{c.Put != nil, c.Move != nil, c.Delete != ""} {
		if asked {
			n++
		}
	}
	return n == 1
}

// Apply runs a sequence: all changes, if all asserts hold, or none. epoch is the
// one in which fragments of the changes were written (0 if there are none).
//
// Errors: ErrNoNamespace, ErrRemoving, ErrRecovering, ErrEpoch, ErrDevices,
// ErrExists, ErrChanged, ErrAssert, ErrInvalid: nothing was changed. Any other
// leaves the outcome unknown.
func (h *Host) Apply(ctx context.Context, id uint64, epoch uint64, asserts []Assert, changes []Change) error {
	if len(changes) > MaxChanges || len(asserts) > MaxChanges {
		return fmt.Errorf("%w: %d changes and %d asserts, at most %d of each", ErrInvalid, len(changes), len(asserts), MaxChanges)
	}
	names := map[string]bool{}
	for _, c := range changes {
		if !c.one() {
			return fmt.Errorf("%w: a change of object %s is not exactly one of put, delete and move", ErrInvalid, c.name())
		}
		if names[c.name()] {
			return fmt.Errorf("%w: object %s is changed twice in one sequence", ErrInvalid, c.name())
		}
		names[c.name()] = true
	}
	for range maxTries {
		done, err := h.try(ctx, id, epoch, asserts, changes)
		if done || err != nil {
			return err
		}
	}
	return fmt.Errorf("namespace %d: %w: %d attempts met changes by others", id, ErrChanged, maxTries)
}

// attempt is one evaluation of a sequence against what is there.
type attempt struct {
	id      uint64
	recs    map[string]*kv.KV // of one moment; nil: absent
	ns      Namespace
	closed  []uint32
	objects map[string]*layout.Manifest // nil: absent
	cmps    []kv.Compare
	ops     []kv.Op
}

// try evaluates and commits once; false without an error: something changed in
// between.
func (h *Host) try(ctx context.Context, id, epoch uint64, asserts []Assert, changes []Change) (bool, error) {
	a, err := h.read(ctx, id, asserts, changes)
	if err != nil {
		return false, err
	}
	var ns Namespace
	if ns.Revision, err = a.get(nsKey(id), &ns); err != nil {
		return false, err
	}
	if ns.Revision == 0 {
		return false, fmt.Errorf("%w: id %d", ErrNoNamespace, id)
	}
	if ns.State == Closing {
		if err := h.settle(ctx, &ns); err != nil {
			return false, err
		}
	}
	if ns.State == Recovering {
		return false, ns.wrap(ErrRecovering)
	}
	if ns.State != Active {
		return false, ns.wrap(fmt.Errorf("%w: it is %s", ErrRemoving, ns.State))
	}
	if epoch != 0 && !ns.Valid(epoch) {
		return false, ns.wrap(fmt.Errorf("%w: epoch %d, valid are %d to %d", ErrEpoch, epoch, ns.EpochMin, ns.EpochMax))
	}
	var devices Devices
	if devices.Revision, err = a.get(devicesKey, &devices); err != nil {
		return false, err
	}
	a.ns, a.closed, a.cmps = ns, devices.Closed, []kv.Compare{ns.unchanged(), devices.unchanged()}
	for _, c := range changes {
		if err := a.load(c.name()); err != nil {
			return false, err
		}
		if c.Put == nil {
			continue
		}
		end := endKey(id, c.Put.Object)
		if a.recs[end] != nil {
			return true, nil // all this was there, and is over (N4)
		}
		a.cmps = append(a.cmps, kv.Absent(end))
	}
	if a.applied(changes) {
		return true, nil
	}
	for _, as := range asserts {
		if err := a.load(as.Name); err != nil {
			return false, err
		}
		if err := a.holds(as); err != nil {
			return false, ns.wrap(err)
		}
	}
	for _, c := range changes {
		if err := a.change(c); err != nil {
			return false, ns.wrap(err)
		}
	}
	if len(a.ops) == 0 {
		return true, nil
	}
	res, err := h.kv.Txn(ctx, a.cmps, a.ops, nil)
	if errors.Is(err, kv.ErrInvalid) { // nothing happened
		err = ns.wrap(fmt.Errorf("%w: the sequence does not fit into one transaction: %w", ErrInvalid, err))
	}
	return res.Succeeded, err
}

// read reads all that a sequence is decided from, at one moment: a call to a store that is
// elsewhere costs more than what it reads.
func (h *Host) read(ctx context.Context, id uint64, asserts []Assert, changes []Change) (*attempt, error) {
	keys := []string{nsKey(id), devicesKey}
	named := map[string]bool{}
	name := func(name string) {
		if validName(name) && !named[name] {
			named[name] = true
			keys = append(keys, objectKey(id, name))
		}
	}
	for _, c := range changes {
		name(c.name())
		switch {
		case c.Put != nil:
			keys = append(keys, endKey(id, c.Put.Object))
		case c.Move != nil && validName(c.Move.Name):
			keys = append(keys, workKey(id, c.Move.Name))
		}
	}
	for _, as := range asserts {
		name(as.Name)
	}
	recs, err := h.kv.GetAll(ctx, keys)
	if err != nil {
		return nil, err
	}
	a := &attempt{id: id, recs: make(map[string]*kv.KV, len(keys)), objects: map[string]*layout.Manifest{}}
	for i, k := range keys {
		a.recs[k] = recs[i]
	}
	return a, nil
}

// get decodes a record that was read; revision 0: it is absent.
func (a *attempt) get(key string, v any) (int64, error) {
	rec := a.recs[key]
	if rec == nil {
		return 0, nil
	}
	if err := json.Unmarshal(rec.Value, v); err != nil {
		return 0, badRecord(key, err)
	}
	return rec.ModRev, nil
}

func validName(name string) bool { return name != "" && len(name) <= layout.MaxName }

// load takes an object once and makes its state a condition.
func (a *attempt) load(name string) error {
	if _, known := a.objects[name]; known {
		return nil
	}
	if !validName(name) {
		return fmt.Errorf("%w: object name of %d bytes, 1 to %d are allowed", ErrInvalid, len(name), layout.MaxName)
	}
	var m *layout.Manifest
	var rev int64
	if rec := a.recs[objectKey(a.id, name)]; rec != nil {
		var err error
		if m, err = decode(rec); err != nil {
			return err
		}
		rev = m.Revision
	}
	a.objects[name] = m
	a.cmps = append(a.cmps, kv.ModRevIs(objectKey(a.ns.ID, name), rev))
	return nil
}

func (a *attempt) holds(as Assert) error {
	m := a.objects[as.Name]
	why := ""
	switch {
	case as.Absent && m != nil:
		why = "it exists"
	case as.Absent:
	case m == nil:
		why = "it does not exist"
	case as.Object != nil && *as.Object != m.Object:
		why = "it is another object, " + m.Object.String()
	case as.CRC != nil && *as.CRC != m.CRC:
		why = fmt.Sprintf("its checksum is %08x", m.CRC)
	}
	if why != "" {
		return fmt.Errorf("%w: object %s: %s", ErrAssert, as.Name, why)
	}
	return nil
}

// applied tells whether the sequence happened before, whatever its asserts say now
// (N4): all of it is there, and since an object id is used once nothing else can
// have brought it.
func (a *attempt) applied(changes []Change) bool {
	proof := false
	for _, c := range changes {
		was := a.objects[c.name()]
		switch {
		case c.Put != nil && (was == nil || was.Object != c.Put.Object),
			c.Move != nil && (was == nil || was.Header != c.Move.Header || !sameFragments(was, c.Move)),
			c.Delete != "" && was != nil:
			return false
		}
		proof = proof || c.Delete == ""
	}
	return proof
}

// change adds the operations of one change.
func (a *attempt) change(c Change) error {
	was := a.objects[c.name()]
	switch {
	case c.Put != nil:
		if was != nil && was.Object == c.Put.Object {
			return nil // N4
		}
		if was != nil && c.IfAbsent {
			return wrapName(c.Put.Name, ErrExists)
		}
		return a.store(c.Put, was, Work{})
	case c.Move != nil:
		if was == nil || was.Object != c.Move.Object || was.Revision != c.Move.Revision {
			return wrapName(c.Move.Name, ErrChanged)
		}
		var w Work
		key := workKey(a.ns.ID, c.Move.Name)
		rev, err := a.get(key, &w)
		if err != nil {
			return err
		}
		a.cmps = append(a.cmps, kv.ModRevIs(key, rev))
		return a.store(c.Move, was, w)
	case was != nil:
		a.ops = append(a.ops, kv.Delete(objectKey(a.ns.ID, was.Name)), kv.Delete(workKey(a.ns.ID, was.Name)))
		return a.drop(was, nil)
	}
	return nil
}

// stays tells whether a fragment is the one that was there.
func stays(f, was layout.Fragment) bool { return f.OSD == was.OSD && f.Version == was.Version }

// sameFragments tells whether two manifests of an object name the same fragments.
func sameFragments(a, b *layout.Manifest) bool {
	return slices.EqualFunc(a.Fragments, b.Fragments, func(x, y []layout.Fragment) bool { return slices.EqualFunc(x, y, stays) })
}

// store writes a manifest in place of another, or of none. work is the record that
// is there, as far as it outlives this change (N3).
func (a *attempt) store(m, was *layout.Manifest, work Work) error {
	b, err := m.Encode()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err) // N6
	}
	if err := a.check(m, was); err != nil {
		return wrapName(m.Name, err)
	}
	a.ops = append(a.ops, kv.Put(objectKey(a.ns.ID, m.Name), b))
	key := workKey(a.ns.ID, m.Name)
	if missing := m.Missing(); missing > 0 {
		work.Why = fmt.Sprintf("stored with %d of %d fragments", m.Policy.N()-missing, m.Policy.N())
		op, err := put(key, work)
		if err != nil {
			return err
		}
		a.ops = append(a.ops, op)
	} else if was != nil && !work.Reported {
		a.ops = append(a.ops, kv.Delete(key))
	}
	if was == nil {
		return nil
	}
	return a.drop(was, m)
}

// check refuses manifests that preset, epochs or devices forbid. Fragments that
// were there before stay where they are whatever became of their device.
func (a *attempt) check(m, was *layout.Manifest) error {
	same := was != nil && was.Object == m.Object
	if same && was.Header != m.Header {
		return fmt.Errorf("%w: a move changes where fragments are, nothing else of an object", ErrInvalid)
	}
	if m.Object == (layout.Object{}) {
		return fmt.Errorf("%w: it has no id", ErrInvalid)
	}
	if !same && a.ns.Preset.Rank(m.Policy) == len(a.ns.Preset.Policies) {
		return fmt.Errorf("%w: preset %s has no policy %v", ErrInvalid, a.ns.Preset.Name, m.Policy)
	}
	for i, chunk := range m.Fragments {
		stored := 0
		used := make([]uint32, 0, len(chunk))
		for j, f := range chunk {
			if same && f.Version < was.Fragments[i][j].Version {
				return fmt.Errorf("%w: chunk %d fragment %d: version %d is below %d", ErrInvalid, i, j, f.Version, was.Fragments[i][j].Version)
			}
			if f.OSD == 0 {
				continue
			}
			stored++
			if slices.Contains(used, f.OSD) {
				return fmt.Errorf("%w: chunk %d is on device %d twice", ErrInvalid, i, f.OSD)
			}
			used = append(used, f.OSD)
			if same && stays(f, was.Fragments[i][j]) {
				if f.Epoch != was.Fragments[i][j].Epoch {
					return fmt.Errorf("%w: chunk %d fragment %d is of epoch %d, not %d", ErrInvalid, i, j, was.Fragments[i][j].Epoch, f.Epoch)
				}
				continue
			}
			if same && f.Version == was.Fragments[i][j].Version {
				return fmt.Errorf("%w: chunk %d fragment %d: version %d is not above what it was", ErrInvalid, i, j, f.Version)
			}
			if !a.ns.Valid(f.Epoch) {
				return fmt.Errorf("%w: chunk %d fragment %d is of epoch %d", ErrEpoch, i, j, f.Epoch)
			}
			if slices.Contains(a.closed, f.OSD) {
				return fmt.Errorf("%w: device %d", ErrDevices, f.OSD)
			}
		}
		if need := m.Policy.C; !same && stored < need {
			return fmt.Errorf("%w: chunk %d has %d fragments, policy %v needs %d", ErrInvalid, i, stored, m.Policy, need)
		}
	}
	return nil
}

// drop makes garbage of the fragments of was that are not in m (N2).
func (a *attempt) drop(was, m *layout.Manifest) error {
	var places []Dropped
	for i, chunk := range was.Fragments {
		for j, f := range chunk {
			if f.OSD == 0 || m != nil && m.Object == was.Object && stays(m.Fragments[i][j], f) {
				continue
			}
			places = append(places, Dropped{OSD: f.OSD, Object: was.Object, Chunk: uint32(i), Index: uint8(j), Version: f.Version, Epoch: f.Epoch})
		}
	}
	if len(places) > 0 {
		key := endKey(a.ns.ID, was.Object)
		if m != nil && m.Object == was.Object {
			key = fmt.Sprintf("%s%v-%x", garbagePrefix(a.ns.ID), was.Object, was.Revision)
		}
		a.ops = append(a.ops, kv.Put(key, encodeGarbage(places)))
	}
	return nil
}
