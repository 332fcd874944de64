// Package nsm is the namespace manager: the manifests of objects, kept on a
// transactional store. A Host is one such store; namespaces spread over hosts.
// It is a library: whoever reaches the store can run it, and the store decides
// between them.
//
// # Records
//
//	nsm/v                        the devices that take no new fragments
//	nsm/n/<ns>                   the namespace: state, preset, valid epochs
//	nsm/o/<ns>/<name>            the manifest of an object
//	nsm/g/<ns>/<object>-<n>      garbage: fragments that no manifest names any more;
//	                             <n> is "end" when the object itself went
//	nsm/w/<ns>/<name>            work: an object stored below k+m, or found damaged
//
// # Invariants
//
//	N1  Every change of an object is one transaction that compares the namespace
//	    record, the device record and the object as it was read. So a manifest is
//	    committed only while its namespace is active, its epoch valid, and its
//	    devices take fragments.
//	N2  What a change takes out of a manifest enters the garbage in the same
//	    transaction. Garbage leaves after the devices deleted it.
//	N3  A manifest below k+m has its work record in the same transaction, and the
//	    change that completes it takes that record away. One that was reported
//	    stays until somebody looked at the object and found it whole (Done): a
//	    report that comes while the object is repaired is not lost.
//	N4  Applying the same change again succeeds and changes nothing: a put of
//	    the object id that is there, a delete of what is absent, a move to the
//	    fragments that it has, a put of what was there and is garbage now. So a
//	    put that comes late does not bring back what was deleted since, for as
//	    long as the garbage is there; later, closed epochs keep it out.
//	N5  Epochs only grow: min <= max; an epoch below min never becomes valid again.
//	N6  What is stored can be read back: a manifest that would not decode is
//	    refused, since it would hide whatever is listed beside it.
//	N7  While a namespace is recovering nothing is changed but by Restore, and
//	    what is absent may only not be found yet: it is never concluded that an
//	    object, or the namespace, is gone.
package nsm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/kv"
)

// Errors, wrapped with namespace and object.
var (
	ErrNoNamespace = errors.New("nsm: no such namespace")
	// ErrRemoving: the namespace is being deleted.
	ErrRemoving = errors.New("nsm: namespace is not active")
	// ErrRecovering: its records were lost and are being rebuilt from the devices
	// (N7). It comes back.
	ErrRecovering = errors.New("nsm: namespace is being recovered")
	ErrNotExist   = errors.New("nsm: no such object")
	ErrExists     = errors.New("nsm: object exists")
	// ErrEpoch: the fragments were written in an epoch that is closed; they may
	// be collected already. The object is to be uploaded again.
	ErrEpoch = errors.New("nsm: epoch is closed")
	// ErrDevices: a device of the manifest takes no fragments any more.
	ErrDevices = errors.New("nsm: device takes no fragments")
	// ErrChanged: the object is not the one that the change began with.
	ErrChanged = errors.New("nsm: object changed")
	// ErrAssert: a condition of a sequence does not hold.
	ErrAssert = errors.New("nsm: assertion failed")
	// ErrInvalid: the request breaks a rule of preset or limits.
	ErrInvalid = errors.New("nsm: invalid request")
)

// State of a namespace.
type State string

// States.
const (
	Active State = "active"
	// Closing: it goes if it is empty, which is being looked up.
	Closing    State = "closing"
	Removing   State = "removing"
	Recovering State = "recovering"
)

// Namespace is the record of a namespace on its host.
type Namespace struct {
	ID       uint64        `json:"id"`
	Name     string        `json:"name"`
	State    State         `json:"state"`
	Preset   preset.Preset `json:"preset"`
	EpochMin uint64        `json:"epochMin"`
	EpochMax uint64        `json:"epochMax"`
	// Revision of the record; not stored in it.
	Revision int64 `json:"-"`
}

// Valid tells whether fragments may be written in an epoch.
func (n Namespace) Valid(epoch uint64) bool { return epoch >= n.EpochMin && epoch <= n.EpochMax }

// Devices tells which devices take no new fragments; every namespace of the
// host compares it (N1).
type Devices struct {
	Closed   []uint32 `json:"closed"`
	Revision int64    `json:"-"`
}

// Host is a namespace manager on one store. Safe for concurrent use.
type Host struct {
	kv kv.Store
}

// New returns the host on a store; other things may be on it too.
func New(store kv.Store) *Host { return &Host{kv: store} }

// Keys.
const (
	devicesKey = "nsm/v"
	garbageAll = "nsm/g/"
	workAll    = "nsm/w/"
)

func nsKey(id uint64) string                   { return fmt.Sprintf("nsm/n/%016x", id) }
func objectsPrefix(id uint64) string           { return fmt.Sprintf("nsm/o/%016x/", id) }
func garbagePrefix(id uint64) string           { return fmt.Sprintf("%s%016x/", garbageAll, id) }
func workPrefix(id uint64) string              { return fmt.Sprintf("%s%016x/", workAll, id) }
func endKey(id uint64, o layout.Object) string { return garbagePrefix(id) + o.String() + "-end" }
func objectKey(id uint64, name string) string  { return objectsPrefix(id) + name }
func workKey(id uint64, name string) string    { return workPrefix(id) + name }
func (n Namespace) wrap(err error) error       { return fmt.Errorf("namespace %s: %w", n.Name, err) }
func (n Namespace) unchanged() kv.Compare      { return kv.ModRevIs(nsKey(n.ID), n.Revision) }
func (d Devices) unchanged() kv.Compare        { return kv.ModRevIs(devicesKey, d.Revision) }
func put(key string, v any) (kv.Op, error)     { b, err := json.Marshal(v); return kv.Put(key, b), err }
func wrapName(name string, err error) error    { return fmt.Errorf("object %s: %w", name, err) }
func badRecord(key string, err error) error    { return fmt.Errorf("nsm: record %s: %w", key, err) }
func (h *Host) get(ctx context.Context, key string, v any) (int64, error) {
	rec, err := h.kv.Get(ctx, key)
	if err != nil || rec == nil {
		return 0, err
	}
	if err := json.Unmarshal(rec.Value, v); err != nil {
		return 0, badRecord(key, err)
	}
	return rec.ModRev, nil
}

// Create makes a namespace with its first epoch; one that is there with the same
// name is left as it is (N4).
func (h *Host) Create(ctx context.Context, id uint64, name string, p preset.Preset) error {
	n := Namespace{ID: id, Name: name, State: Active, Preset: p, EpochMin: 1, EpochMax: 1}
	op, err := put(nsKey(id), n)
	if err != nil {
		return err
	}
	for {
		res, err := h.kv.Txn(ctx, []kv.Compare{kv.Absent(nsKey(id))}, []kv.Op{op}, nil)
		if err != nil || res.Succeeded {
			return err
		}
		was, err := h.Namespace(ctx, id)
		if errors.Is(err, ErrNoNamespace) {
			continue // it went just now
		}
		if err == nil && was.Name != name {
			err = fmt.Errorf("%w: namespace id %d belongs to %s, not %s", ErrInvalid, id, was.Name, name)
		}
		return err
	}
}

// Namespace returns the record of a namespace; ErrNoNamespace.
func (h *Host) Namespace(ctx context.Context, id uint64) (Namespace, error) {
	var n Namespace
	rev, err := h.get(ctx, nsKey(id), &n)
	if err == nil && rev == 0 {
		err = fmt.Errorf("%w: id %d", ErrNoNamespace, id)
	}
	n.Revision = rev
	return n, err
}

// Update changes the record of a namespace; change returns false to leave it.
func (h *Host) Update(ctx context.Context, id uint64, change func(n *Namespace) bool) (Namespace, error) {
	for {
		n, err := h.Namespace(ctx, id)
		if err != nil || !change(&n) {
			return n, err
		}
		done, err := h.replace(ctx, &n, n.unchanged())
		if err != nil || done {
			return n, err
		}
	}
}

// OpenEpoch makes the next epoch valid beside the present ones and returns it.
func (h *Host) OpenEpoch(ctx context.Context, id uint64) (uint64, error) {
	n, err := h.Update(ctx, id, func(n *Namespace) bool { n.EpochMax++; return true })
	return n.EpochMax, err
}

// CloseEpochs ends the epochs up to one; the newest always stays valid.
func (h *Host) CloseEpochs(ctx context.Context, id, upTo uint64) error {
	_, err := h.Update(ctx, id, func(n *Namespace) bool {
		upTo := min(upTo, n.EpochMax-1)
		if n.EpochMin > upTo {
			return false
		}
		n.EpochMin = upTo + 1
		return true
	})
	return err
}

// Devices returns the device record; an empty one where none was set.
func (h *Host) Devices(ctx context.Context) (Devices, error) {
	var d Devices
	rev, err := h.get(ctx, devicesKey, &d)
	d.Revision = rev
	return d, err
}

// CloseDevices records which devices take no new fragments. After it returned no
// manifest that names one of them is committed (N1). closed is asked after the
// record was read, and again when it changed since: of several who do this at
// once, the last to write has seen what the others wrote for.
func (h *Host) CloseDevices(ctx context.Context, closed func(ctx context.Context) ([]uint32, error)) error {
	for {
		d, err := h.Devices(ctx)
		if err != nil {
			return err
		}
		want, err := closed(ctx)
		if err != nil {
			return err
		}
		if d.Revision != 0 && slices.Equal(d.Closed, want) {
			return nil // writers need not begin anew
		}
		op, err := put(devicesKey, Devices{Closed: want})
		if err != nil {
			return err
		}
		res, err := h.kv.Txn(ctx, []kv.Compare{d.unchanged()}, []kv.Op{op}, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

// Get returns the manifest of an object; ErrNotExist.
func (h *Host) Get(ctx context.Context, id uint64, name string) (*layout.Manifest, error) {
	rec, err := h.kv.Get(ctx, objectKey(id, name))
	if err != nil {
		return nil, wrapName(name, err)
	}
	if rec == nil {
		return nil, wrapName(name, ErrNotExist)
	}
	return decode(rec)
}

func decode(rec *kv.KV) (*layout.Manifest, error) {
	m, err := layout.DecodeManifest(rec.Value)
	if err != nil {
		return nil, badRecord(string(rec.Key), err)
	}
	m.Revision = rec.ModRev
	return m, nil
}

// pageMax bounds a page of manifests, and pageBytes what they take encoded: most have
// some hundred bytes, the largest 384 KiB.
const (
	pageMax   = 500
	pageStep  = 50
	pageBytes = 8 << 20
)

// List returns up to limit manifests whose names begin with prefix and sort after
// "after", and whether there may be more: there may be with fewer than limit, too,
// when they are large.
func (h *Host) List(ctx context.Context, id uint64, prefix, after string, limit int) ([]*layout.Manifest, bool, error) {
	if limit <= 0 || limit > pageMax {
		limit = pageMax
	}
	base := objectsPrefix(id)
	if after != "" {
		after = base + after
	}
	var out []*layout.Manifest
	for size := 0; len(out) < limit && size < pageBytes; {
		step := min(limit-len(out), pageStep)
		recs, _, err := h.kv.Range(ctx, base+prefix, after, step)
		if err != nil {
			return nil, false, err
		}
		for i := range recs {
			m, err := decode(&recs[i])
			if err != nil {
				return nil, false, err
			}
			out = append(out, m)
			after = string(recs[i].Key)
			size += len(recs[i].Value)
		}
		if len(recs) < step {
			return out, false, nil
		}
	}
	return out, true, nil
}

// Work is an object that needs repair.
type Work struct {
	Namespace uint64 `json:"-"`
	Name      string `json:"-"`
	// Why says what was found, for people.
	Why string `json:"why"`
	// Reported tells that somebody found damage: changing the manifest does not
	// end that, only looking (N3).
	Reported bool  `json:"reported,omitempty"`
	Revision int64 `json:"-"`
}

// Report records that an object needs repair, anew if that is known already: who
// is at it began before, and may have looked elsewhere (N3). In a namespace that is
// gone there is nothing to do.
func (h *Host) Report(ctx context.Context, id uint64, name, why string) error {
	ns, err := h.kv.Get(ctx, nsKey(id))
	if err != nil || ns == nil {
		return err
	}
	op, err := put(workKey(id, name), Work{Why: why, Reported: true})
	if err != nil {
		return err
	}
	// The record itself may change; when it is another, the namespace is gone.
	same := kv.Compare{Key: []byte(nsKey(id)), Target: kv.CompareCreateRev, Rev: ns.CreateRev}
	_, err = h.kv.Txn(ctx, []kv.Compare{same}, []kv.Op{op}, nil)
	return err
}

// ListWork returns objects of any namespace that need repair, in the order of
// namespaces and names, after one of them, and whether there may be more.
func (h *Host) ListWork(ctx context.Context, after *Work, limit int) ([]Work, bool, error) {
	from := ""
	if after != nil {
		from = workKey(after.Namespace, after.Name)
	}
	recs, _, err := h.kv.Range(ctx, workAll, from, limit)
	if err != nil {
		return nil, false, err
	}
	out := make([]Work, len(recs))
	for i, rec := range recs {
		if err := json.Unmarshal(rec.Value, &out[i]); err != nil {
			return nil, false, badRecord(string(rec.Key), err)
		}
		if out[i].Namespace, out[i].Name, err = split(rec.Key, workAll); err != nil {
			return nil, false, err
		}
		out[i].Revision = rec.ModRev
	}
	return out, len(recs) == limit, nil
}

// split takes namespace and name out of a key.
func split(key []byte, all string) (uint64, string, error) {
	ns, name, _ := strings.Cut(strings.TrimPrefix(string(key), all), "/")
	id, err := strconv.ParseUint(ns, 16, 64)
	if err != nil {
		return 0, "", badRecord(string(key), err)
	}
	return id, name, nil
}

// Done removes a work record, unless it was made anew.
func (h *Host) Done(ctx context.Context, w Work) error {
	key := workKey(w.Namespace, w.Name)
	_, err := h.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(key, w.Revision)}, []kv.Op{kv.Delete(key)}, nil)
	return err
}

// clearPage bounds the records of one transaction of Clear.
const clearPage = kv.MaxTxnOps

// Clear removes all records of a namespace that is being removed, and at last its
// own. Devices drop its fragments by prefix, so none becomes garbage.
func (h *Host) Clear(ctx context.Context, id uint64) error {
	for {
		n, err := h.Namespace(ctx, id)
		if errors.Is(err, ErrNoNamespace) {
			return nil
		}
		if err != nil {
			return err
		}
		if n.State != Removing {
			return n.wrap(fmt.Errorf("%w: it is %s, not being removed", ErrInvalid, n.State))
		}
		for _, prefix := range []string{objectsPrefix(id), garbagePrefix(id), workPrefix(id)} {
			if err := h.clearPrefix(ctx, prefix); err != nil {
				return err
			}
		}
		// Changed meanwhile, or gone by another's hand: the record is looked at again.
		res, err := h.kv.Txn(ctx, []kv.Compare{n.unchanged()}, []kv.Op{kv.Delete(nsKey(id))}, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

func (h *Host) clearPrefix(ctx context.Context, prefix string) error {
	for {
		recs, _, err := h.kv.Range(ctx, prefix, "", clearPage)
		if err != nil || len(recs) == 0 {
			return err
		}
		ops := make([]kv.Op, len(recs))
		for i, r := range recs {
			ops[i] = kv.Delete(string(r.Key))
		}
		if _, err := h.kv.Txn(ctx, nil, ops, nil); err != nil {
			return err
		}
	}
}

// BeginRemoval ends all use of a namespace. With onlyEmpty it is ErrExists while
// there is an object in it, ErrRecovering while that is not known; a put in flight
// comes before or after, not half.
func (h *Host) BeginRemoval(ctx context.Context, id uint64, onlyEmpty bool) error {
	for {
		n, err := h.Namespace(ctx, id)
		switch {
		case err != nil || n.State == Removing:
			return err
		case onlyEmpty && n.State == Recovering:
			return n.wrap(ErrRecovering)
		case onlyEmpty && n.State == Closing:
			return h.closed(ctx, &n) // somebody else began this
		}
		was := n.unchanged()
		n.State = Removing
		if onlyEmpty {
			n.State = Closing
		}
		done, err := h.replace(ctx, &n, was)
		if err != nil || done && !onlyEmpty {
			return err
		}
		if done {
			return h.closed(ctx, &n)
		}
	}
}

// closed settles a namespace and tells whether it goes.
func (h *Host) closed(ctx context.Context, n *Namespace) error {
	if err := h.settle(ctx, n); err != nil || n.State == Removing {
		return err
	}
	return n.wrap(fmt.Errorf("%w: the namespace is not empty", ErrExists))
}

// Settle ends the state Closing of a namespace whose removal was interrupted, and
// returns its record.
func (h *Host) Settle(ctx context.Context, id uint64) (Namespace, error) {
	n, err := h.Namespace(ctx, id)
	if err != nil {
		return n, err
	}
	return n, h.settle(ctx, &n)
}

// settle ends the state Closing, in which no change is committed: the namespace
// goes if it has no object. Whoever meets the state does this, so that none is
// left in it.
func (h *Host) settle(ctx context.Context, n *Namespace) error {
	for n.State == Closing {
		recs, _, err := h.kv.Range(ctx, objectsPrefix(n.ID), "", 1)
		if err != nil {
			return err
		}
		was := n.unchanged()
		n.State = Removing
		if len(recs) > 0 {
			n.State = Active
		}
		done, err := h.replace(ctx, n, was)
		if err == nil && !done { // somebody else changed it
			*n, err = h.Namespace(ctx, n.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replace stores a namespace record if it is as it was.
func (h *Host) replace(ctx context.Context, n *Namespace, was kv.Compare) (bool, error) {
	op, err := put(nsKey(n.ID), n)
	if err != nil {
		return false, err
	}
	res, err := h.kv.Txn(ctx, []kv.Compare{was}, []kv.Op{op}, nil)
	if res.Succeeded {
		n.Revision = res.Rev
	}
	return res.Succeeded, err
}
