package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Additions to the engine's states, as the API shows them.
const (
	StateOpening  volume.State = "opening"  // not open yet; tried again by itself
	StateDeleting volume.State = "deleting" // space is being given back
	StateTemplate volume.State = "template" // frozen, not open
	StateTrashed  volume.State = "trashed"  // deleted, and kept for a while
)

// DiskStatus is the running side of a vDisk.
type DiskStatus struct {
	State  volume.State
	Reason string // empty when running
	Open   bool
	Idle   bool         // it is open, and its Stats stay as they are until Wakeups changes
	Stats  volume.Stats // zero unless open
}

// Running is an open vDisk.
type Running struct {
	ID    string
	Stats volume.Stats
	// Idle: its Stats stay as they are until somebody uses it; Requests is how many did.
	Idle     bool
	Requests uint64
}

// Running returns the open vDisks in no particular order.
func (c *Controller) Running() []Running {
	out, _ := c.Sample(func(string, uint64) bool { return false })
	return out
}

// Sample is Running, but that those which are idle, and whose Stats are known, are
// returned by their ids only: a node can have thousands of them. known tells whether they
// were looked at after so many requests.
func (c *Controller) Sample(known func(id string, requests uint64) bool) (out []Running, idle []string) {
	type open struct {
		id  string
		vol Volume
	}
	c.mu.Lock()
	all := make([]open, 0, len(c.disks))
	for id, d := range c.disks {
		if d.vol != nil {
			all = append(all, open{id, d.vol})
		}
	}
	c.mu.Unlock()
	for _, o := range all {
		rests, requests := o.vol.Idle()
		if rests && known(o.id, requests) {
			idle = append(idle, o.id)
			continue
		}
		out = append(out, Running{o.id, o.vol.Stats(), rests, requests})
	}
	return out, idle
}

// SampleOnly is Running for some vDisks; those that are not open are left out.
func (c *Controller) SampleOnly(ids []string) []Running {
	out := make([]Running, 0, len(ids))
	for _, id := range ids {
		if vol := c.volume(id); vol != nil {
			rests, requests := vol.Idle()
			out = append(out, Running{id, vol.Stats(), rests, requests})
		}
	}
	return out
}

// Wakeups changes whenever a vDisk is opened or closed, fails, or one that was idle is used.
func (c *Controller) Wakeups() uint64 { return c.opt.Engine.Wakeups() }

// volume returns an open vDisk, or nil.
func (c *Controller) volume(id string) Volume {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.disks[id]; d != nil {
		return d.vol
	}
	return nil
}

// DiskStatus returns the running side of a vDisk.
func (c *Controller) DiskStatus(v model.VDisk) DiskStatus { return c.diskStatus(v, Volume.Stats) }

// DiskCondition is DiskStatus with no more of the Stats than volume.Condition fills in.
func (c *Controller) DiskCondition(v model.VDisk) DiskStatus {
	return c.diskStatus(v, Volume.Condition)
}

func (c *Controller) diskStatus(v model.VDisk, stats func(Volume) volume.Stats) DiskStatus {
	c.mu.Lock()
	d := c.disks[v.ID]
	var vol Volume
	var s DiskStatus
	var showing bool
	if d != nil {
		vol, s.State, showing = d.vol, d.state, d.showing && (v.Target != nil || v.Shared != nil)
		if d.err != nil {
			s.Reason = d.err.Error()
		}
	}
	c.mu.Unlock()
	switch {
	case v.State == model.StateDeleting:
		s.State = StateDeleting
	case v.State == model.StateTrashed:
		s.State, s.Reason = StateTrashed, ""
	case v.Template:
		s.State, s.Reason = StateTemplate, ""
	case v.State == model.StateTransfer:
		s.State, s.Reason = StateTransferring, ""
	case !c.mine(v):
		return c.elsewhereState(v)
	case vol != nil:
		s.Open = true
		s.Idle, _ = vol.Idle() // before Stats
		s.Stats = stats(vol)
		s.State, s.Reason = s.Stats.State, s.Stats.Err
		if !c.permit.ok() && (s.State == volume.StateRunning || s.State == volume.StateDegraded) {
			s.State, s.Reason = StateSuspended, "the node's lease in the registry is not renewed: operations wait"
		}
		if showing && s.State == volume.StateRunning { // initiators do not reach it yet
			s.State = StateOpening
		}
	case s.State == "":
		s.State = StateOpening
	case s.State == volume.StateLostTail:
		s.Reason += ": ovgate vdisk accept-loss " + v.Name
	}
	return s
}

// FindVDisk returns a vDisk by id, by name, or by "vpool/name". A name that
// several vPools use is refused as ambiguous. One that is being deleted is found
// by its id only.
func (c *Controller) FindVDisk(ref string) (model.VDisk, error) {
	return c.FindVDiskAmong(ref, func(string) bool { return true })
}

// FindVDiskAmong is FindVDisk where there are no vPools but those, by id, for which seen holds.
func (c *Controller) FindVDiskAmong(ref string, seen func(vpool string) bool) (model.VDisk, error) {
	if v, ok := c.model.VDisk(ref); ok && seen(v.VPool) {
		return v, nil
	}
	var found []model.VDisk
	for _, p := range c.model.VPools() {
		if !seen(p.ID) {
			continue
		}
		for _, name := range []string{ref, trimPool(p.Name, ref)} {
			if v, ok := c.model.VDiskByName(p.ID, name); ok && name != "" && v.VPool == p.ID { // else it is being moved there
				found = append(found, v)
			}
		}
	}
	switch len(found) {
	case 0:
		return model.VDisk{}, noVDisk(clip(ref))
	case 1:
		return found[0], nil
	}
	return model.VDisk{}, invalid("vdisk", vdiskObject(ref), "use the id, or vpool/name", "%d vPools have a vDisk of this name", len(found))
}

// trimPool returns the name in "vpool/name", empty when ref is not of that vPool.
func trimPool(vpool, ref string) string {
	if len(ref) > len(vpool)+1 && ref[:len(vpool)+1] == vpool+"/" {
		return ref[len(vpool)+1:]
	}
	return ""
}

// NewDisk is what a vDisk is created from.
type NewDisk struct {
	Name        string
	VPool       string // name or id
	Size        int64  // bytes
	ClusterSize int64  // bytes; 0: the vPool's
	Labels      map[string]string
	Node        string // name or id of the node that is to serve it; empty: this one
}

// checkSize refuses a size that the engine would refuse.
func checkSize(object string, size, cluster int64) *Error {
	switch {
	case size <= 0:
		return invalid("size", object, fmt.Sprintf("use a multiple of %d bytes", cluster), "a size of %d bytes is not possible", size)
	case size > volume.MaxSize:
		return invalid("size", object, "use at most 64 TiB", "a size of %d bytes is above 64 TiB", size)
	case size%cluster != 0:
		return invalid("size", object, fmt.Sprintf("use %d or %d bytes", size/cluster*cluster, (size/cluster+1)*cluster), "a size of %d bytes is not a multiple of the cluster size of %d bytes", size, cluster)
	}
	return nil
}

// checkNewDisk refuses what cannot become a vDisk and returns its record without id.
func (c *Controller) checkNewDisk(in NewDisk) (model.VDisk, *Error) {
	object := vdiskObject(clip(in.Name))
	if e := checkName("vdisk", in.Name); e != nil {
		return model.VDisk{}, e
	}
	pool, ok := c.model.FindVPool(in.VPool)
	if !ok || pool.State == model.StateDeleting {
		return model.VDisk{}, noVPool(clip(in.VPool), "vpool")
	}
	if e := c.reached(pool, "vpool"); e != nil {
		return model.VDisk{}, e
	}
	if self, ok := c.model.Node(c.opt.Node); ok && self.Draining {
		return model.VDisk{}, &Error{Code: CodeInUse, Object: nodeObject(self.Name), Message: "it is being drained, and takes no vDisks", Hint: "ask another node, or end that: ovgate node drain " + self.Name + " --cancel"}
	}
	cluster := in.ClusterSize
	if cluster == 0 {
		cluster = int64(pool.Settings.ClusterSize)
	}
	if cluster < volume.MinClusterSize || cluster > volume.MaxClusterSize || cluster&(cluster-1) != 0 {
		return model.VDisk{}, invalid("clusterSize", object, "use 4, 8, 16, 32 or 64 KiB", "a cluster size of %d bytes is not possible", cluster)
	}
	if e := checkSize(object, in.Size, cluster); e != nil {
		return model.VDisk{}, e
	}
	if e := checkLabels(object, in.Labels); e != nil {
		return model.VDisk{}, e
	}
	if _, taken := c.model.VDiskByName(pool.ID, in.Name); taken {
		return model.VDisk{}, nameTaken(pool.Name, in.Name)
	}
	if e := c.checkProvisioned(pool, object, in.Size); e != nil {
		return model.VDisk{}, e
	}
	return model.VDisk{
		Name: in.Name, VPool: pool.ID, Size: in.Size, ClusterSize: int(cluster), Labels: maps.Clone(in.Labels),
		State: model.StateCreating, Created: c.clock.Now().UTC(),
	}, nil
}

func nameTaken(vpool, name string) *Error {
	return &Error{Code: CodeExists, Field: "name", Object: vdiskObject(name), Message: "vpool " + vpool + " has a vDisk of this name", Hint: "choose another name"}
}

// CreateVDisk makes a vDisk and opens it. On return it is durable on the
// backend and in the registry.
func (c *Controller) CreateVDisk(ctx context.Context, in NewDisk) (model.VDisk, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.VDisk{}, err
	}
	defer done()
	if e := c.placed(ctx, in); e != nil {
		return model.VDisk{}, e
	}
	rec, e := c.checkNewDisk(in)
	if e != nil {
		return rec, e
	}
	return c.makeDisk(ctx, rec)
}

// makeDisk makes a vDisk that was checked, empty or a clone, and opens it.
func (c *Controller) makeDisk(ctx context.Context, rec model.VDisk) (model.VDisk, error) {
	object := vdiskObject(rec.Name)
	ep, err := c.attached(rec.VPool)
	if err != nil {
		return rec, explain(object, err)
	}
	if rec, err = c.storeNewDisk(ctx, rec); err != nil {
		return rec, explain(object, err)
	}
	d := c.vdisk(rec.ID)
	if err := d.lock.acquire(ctx); err != nil {
		return rec, explain(object, err)
	}
	defer d.lock.release()
	if err := c.create(ctx, ep, &rec); err != nil {
		c.undoCreate(ctx, rec)
		return rec, explain(object, err)
	}
	c.log.Info("vDisk created", "vdisk", rec.Name, "id", rec.ID, "size", rec.Size)
	c.tellMade(rec)
	if err := c.open(ctx, d, rec); errors.Is(err, backend.ErrFull) { // of no use, and nothing is in it
		c.undoCreate(ctx, rec)
		return rec, explain(object, err)
	} else if err != nil {
		c.log.Warn("new vDisk not open yet", "vdisk", rec.Name, "err", err)
		c.schedule(ref{"vdisk", rec.ID}, retryMin)
	}
	c.opt.Changed("vdisk", rec.ID)
	if now, ok := c.model.VDisk(rec.ID); ok {
		rec = now // opening may have corrected the size
	}
	return rec, nil
}

// tellMade tells of a new vDisk.
func (c *Controller) tellMade(rec model.VDisk) {
	code := event.VDiskCreated
	if rec.Parent != nil {
		code = event.VDiskCloned
	}
	c.tell(code, vdiskObject(rec.Name), "bytes", strconv.FormatInt(rec.Size, 10))
}

// storeNewDisk stores the record under an id of its own. The vPool's lock keeps
// the vPool from being deleted at the same moment.
func (c *Controller) storeNewDisk(ctx context.Context, rec model.VDisk) (model.VDisk, error) {
	return c.storeNewDiskAs(ctx, rec, func(string) {}, func(string) {})
}

// storeNewDiskAs is storeNewDisk that tells the id before the record is there, and
// again when it could not be stored.
func (c *Controller) storeNewDiskAs(ctx context.Context, rec model.VDisk, before, failed func(id string)) (model.VDisk, error) {
	p := c.pool(rec.VPool)
	if err := p.lock.acquire(ctx); err != nil {
		return rec, err
	}
	defer p.lock.release()
	if pool, ok := c.model.VPool(rec.VPool); ok { // again: another one may have been made meanwhile
		if e := c.checkProvisioned(pool, vdiskObject(rec.Name), rec.Size); e != nil {
			return rec, e
		}
	}
	id, err := volume.NewID(c.opt.Rand)
	if err != nil {
		return rec, err
	}
	rec.ID, rec.Node = id.String(), c.opt.Node
	before(rec.ID)
	out, err := c.model.CreateVDisk(ctx, rec)
	if err != nil {
		failed(rec.ID)
	}
	if errors.Is(err, model.ErrExists) {
		pool, _ := c.model.VPool(rec.VPool)
		return rec, nameTaken(pool.Name, rec.Name)
	}
	return out, err
}

// create has the engine create the vDisk and marks the record present; a
// second time does no harm.
func (c *Controller) create(ctx context.Context, ep Pool, rec *model.VDisk) error {
	if err := c.make(ctx, ep, *rec); err != nil {
		return err
	}
	out, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.State = model.StatePresent; return nil })
	if err == nil {
		*rec = out
	}
	return err
}

// make has the engine create a vDisk; a second time does no harm.
func (c *Controller) make(ctx context.Context, ep Pool, rec model.VDisk) error {
	id, err := volume.ParseID(rec.ID)
	if err != nil {
		return err
	}
	if rec.Parent != nil {
		err = c.createClone(ctx, ep, id, &rec)
	} else {
		err = ep.Create(ctx, volume.Spec{ID: id, Name: rec.Name, Size: rec.Size, ClusterSize: rec.ClusterSize, Labels: rec.Labels})
	}
	if errors.Is(err, volume.ErrExists) {
		return nil
	}
	return err
}

// undoCreate takes back a vDisk whose creation failed. What the engine may have
// left is removed by the reconciler; the name is free at once.
func (c *Controller) undoCreate(ctx context.Context, rec model.VDisk) {
	ctx = context.WithoutCancel(ctx)
	_, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.State = model.StateDeleting; return nil })
	if err != nil {
		c.log.Error("a vDisk that was not created cannot be marked for removal", "vdisk", rec.Name, "err", err)
	}
	c.schedule(ref{"vdisk", rec.ID}, 0)
}

// open opens a vDisk and, when it is published, exports it; d.lock is held.
func (c *Controller) open(ctx context.Context, d *vdisk, rec model.VDisk) error {
	if d.vol == nil {
		c.setShowing(d, true)
		defer c.setShowing(d, false)
		var err error
		if rec, err = c.settleMove(ctx, rec); err != nil {
			return err
		}
		if rec.Template {
			c.startMove(d, rec)
			c.startHandOver(d, rec)
			return nil
		}
		if err := c.openVolume(ctx, d, rec); err != nil {
			if errors.Is(err, volume.ErrTemplate) {
				return c.learnTemplate(ctx, d, rec)
			}
			if errors.Is(err, volume.ErrFenced) && rec.Shared != nil {
				err = errors.Join(err, c.hideShared(ctx, d, rec)) // no stand-in either
			}
			return err
		}
	}
	if fenced(d.vol) {
		return c.dropFenced(ctx, d, rec)
	}
	if d.vol.Displaced() {
		if err := c.replaceJournal(ctx, d, rec); err != nil {
			return err
		}
	}
	if rec.Flatten {
		c.startFlatten(d, rec)
	}
	c.startMove(d, rec)
	if !d.exported {
		if err := c.show(ctx, d, rec); err != nil {
			return err
		}
	}
	c.startHandOver(d, rec)
	return nil
}

func (c *Controller) setShowing(d *vdisk, v bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.showing = v
}

func (c *Controller) openVolume(ctx context.Context, d *vdisk, rec model.VDisk) error {
	if !c.permit.ok() {
		c.mu.Lock()
		d.err, d.state = errNoPermit, StateOpening
		c.mu.Unlock()
		return errNoPermit
	}
	ep, err := c.attached(rec.VPool)
	var vol Volume
	var id volume.ID
	if err == nil {
		if id, err = volume.ParseID(rec.ID); err == nil {
			vol, err = ep.Open(ctx, id)
		}
	}
	p := c.pool(rec.VPool)
	c.mu.Lock()
	was := d.state
	d.vol, d.err, d.state = vol, err, closedState(err)
	if err == nil {
		vol.SetCache(cacheOf(rec))
		d.disk = newDisk(vol, &p.space, c.permit)
	}
	c.mu.Unlock()
	if errors.Is(err, volume.ErrLostTail) && was != volume.StateLostTail {
		c.tell(event.VDiskLostTail, vdiskObject(rec.Name), "reason", err.Error())
	}
	if err != nil {
		return err
	}
	if now, ok := c.model.VDisk(rec.ID); ok && !c.mine(now) { // a term began meanwhile (beginTerm)
		return errors.Join(c.served(now), c.giveUp(ctx, d, now))
	}
	if n := vol.Size(); n != rec.Size {
		// A grow that the engine finished and the model did not hear of.
		_, err = c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Size = n; return nil })
	}
	return err
}

// closedState is what a vDisk is whose opening failed with err.
func closedState(err error) volume.State {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, volume.ErrLostTail):
		return volume.StateLostTail
	case errors.Is(err, volume.ErrCorrupt):
		return volume.StateCorrupt
	case errors.Is(err, volume.ErrFenced):
		return volume.StateFenced
	case errors.Is(err, volume.ErrNotFound):
		return volume.StateClosed
	}
	return StateOpening
}

// closeVolume closes a vDisk that is no longer exported; d.lock is held.
func (c *Controller) closeVolume(ctx context.Context, d *vdisk) error {
	if d.vol == nil {
		return nil
	}
	c.stopFlatten(d)
	c.stopMove(d)
	c.stopHandOver(d)
	front := d.disk
	if !c.permit.ok() {
		front.refuse(volume.ErrClosed)
	}
	err := d.vol.Close(ctx)
	front.refuse(volume.ErrClosed) // nobody lets go on what waits there
	c.mu.Lock()
	d.vol, d.disk, d.state, d.exported = nil, nil, volume.StateClosed, false
	c.mu.Unlock()
	return err
}

// visitDisk is the reconciler's work on one vDisk; true: visit it again.
func (c *Controller) visitDisk(ctx context.Context, id string) bool {
	if _, ok := c.model.VDisk(id); !ok {
		return false
	}
	d := c.vdisk(id)
	if err := d.lock.acquire(ctx); err != nil {
		return true
	}
	defer d.lock.release()
	rec, ok := c.model.VDisk(id)
	if !ok {
		return false
	}
	if !c.mine(rec) {
		if err := c.giveUp(ctx, d, rec); err != nil {
			c.log.Warn("vDisk of another node is still served here", "vdisk", rec.Name, "id", rec.ID, "err", err)
			return true
		}
		return c.forsake(ctx, rec)
	}
	var err error
	switch rec.State {
	case model.StateDeleting:
		err = c.resumeDelete(ctx, d, rec)
	case model.StateTrashed:
		if err = c.visitTrashed(ctx, d, rec); err == nil {
			c.startHandOver(d, rec)
		}
	case model.StateTransfer:
		if !c.transferring(id) {
			err = c.dropTransfer(ctx, d, rec)
		}
	case model.StateCreating:
		var ep Pool
		if ep, err = c.attached(rec.VPool); err == nil {
			if err = c.create(ctx, ep, &rec); err == nil {
				err = c.open(ctx, d, rec)
			} else if lostSource(rec, err) {
				c.log.Warn("clone given up", "vdisk", rec.Name, "id", rec.ID, "err", err)
				c.undoCreate(ctx, rec)
				return false
			}
		}
	default:
		if err = c.open(ctx, d, rec); err == nil {
			err = c.dropLeft(ctx, id)
		}
		if errors.Is(err, volume.ErrLostTail) && c.opt.Lease != nil {
			return true // the node that has the writes may bring them to the backend yet
		}
	}
	if err != nil {
		c.log.Warn("vDisk is not yet what it should be", "vdisk", rec.Name, "id", rec.ID, "wanted", rec.State, "err", err)
	}
	return err != nil && !final(err)
}

// final tells whether another try without an operator's word is pointless.
func final(err error) bool {
	return errors.Is(err, volume.ErrLostTail) || errors.Is(err, volume.ErrCorrupt)
}

// running returns the open vDisk or refuses; d.lock is held.
func (c *Controller) running(d *vdisk, rec model.VDisk) (Volume, *Error) {
	if rec.Template {
		return nil, isTemplate(rec)
	}
	if d.vol != nil && !fenced(d.vol) && c.permit.ok() {
		return d.vol, nil
	}
	s := c.DiskStatus(rec)
	e := &Error{Code: CodeNotRunning, Object: vdiskObject(rec.Name), Message: "it is " + string(s.State), Hint: "wait until it is running", Err: d.err}
	if s.Reason != "" {
		e.Message += ": " + s.Reason
	}
	switch s.State {
	case volume.StateLostTail:
		e.Code, e.Hint = CodeLostTail, lostTailHint(rec.Name)
	case volume.StateFenced:
		e.Hint = fencedHint
	case volume.StateCorrupt:
		e.Hint = corruptHint
	case StateOpening:
		e.Soon = d.err == nil || errors.Is(d.err, errNoPermit)
	case StateSuspended:
		e.Soon = true
	}
	return nil, e
}

// withDisk runs fn on a vDisk that is present, with its lock held (C3).
func (c *Controller) withDisk(ctx context.Context, name string, fn func(context.Context, *vdisk, model.VDisk) error) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	rec, err := c.FindVDisk(name)
	if err != nil {
		return err
	}
	d := c.vdisk(rec.ID)
	if err := d.lock.acquire(ctx); err != nil {
		return explain(vdiskObject(rec.Name), err)
	}
	defer d.lock.release()
	rec, ok := c.model.VDisk(rec.ID)
	if !ok || rec.State == model.StateDeleting {
		return noVDisk(name)
	}
	if e := c.served(rec); e != nil {
		return e
	}
	if rec.State == model.StateTrashed {
		return inTrash(rec)
	}
	if rec.State == model.StateTransfer {
		return &Error{Code: CodeInUse, Object: vdiskObject(rec.Name), Message: "an import or export uses it", Hint: "wait until that has ended, or end it: ovgate vdisk delete " + rec.Name}
	}
	if err := fn(ctx, d, rec); err != nil {
		return explain(vdiskObject(rec.Name), err)
	}
	c.opt.Changed("vdisk", rec.ID)
	return nil
}

// DiskPatch changes a vDisk; nil leaves a field as it is.
type DiskPatch struct {
	Name   *string
	Size   *int64
	Labels map[string]string // nil: as they are
}

// UpdateVDisk grows, renames or relabels a vDisk.
func (c *Controller) UpdateVDisk(ctx context.Context, name string, in DiskPatch) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if e := c.checkPatch(rec, in); e != nil {
			return e
		}
		vol, e := c.running(d, rec)
		if e != nil {
			return e
		}
		var err error
		if out, err = c.grow(ctx, d, vol, rec, in); err != nil {
			return err
		}
		out, err = c.relabel(ctx, vol, out, in)
		return err
	})
	return out, err
}

func (c *Controller) checkPatch(rec model.VDisk, in DiskPatch) *Error {
	object := vdiskObject(rec.Name)
	if in.Name != nil && *in.Name != rec.Name {
		if e := checkName("vdisk", *in.Name); e != nil {
			return e
		}
		if _, taken := c.model.VDiskByName(rec.VPool, *in.Name); taken {
			pool, _ := c.model.VPool(rec.VPool)
			return nameTaken(pool.Name, *in.Name)
		}
	}
	if in.Size != nil {
		if *in.Size > 0 && *in.Size < rec.Size {
			return &Error{Code: CodeShrink, Field: "size", Object: object, Message: fmt.Sprintf("a vDisk does not shrink: it has %d bytes, %d were asked for", rec.Size, *in.Size), Hint: "create a smaller vDisk and copy"}
		}
		if e := checkSize(object, *in.Size, int64(rec.ClusterSize)); e != nil {
			return e
		}
	}
	return checkLabels(object, in.Labels)
}

func (c *Controller) grow(ctx context.Context, d *vdisk, vol Volume, rec model.VDisk, in DiskPatch) (model.VDisk, error) {
	if in.Size == nil || *in.Size == rec.Size {
		return rec, nil
	}
	if pool, ok := c.model.VPool(rec.VPool); ok {
		if e := c.checkProvisioned(pool, vdiskObject(rec.Name), *in.Size-rec.Size); e != nil {
			return rec, e
		}
	}
	if err := vol.Grow(ctx, *in.Size); err != nil {
		return rec, err
	}
	out, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error { v.Size = *in.Size; return nil })
	if err != nil {
		return rec, err
	}
	if iqn, lun, ok := c.Placed(rec); ok && d.exported {
		if err := c.opt.Frontend.CapacityChanged(iqn, lun); err != nil {
			return out, err
		}
	}
	c.log.Info("vDisk grown", "vdisk", rec.Name, "id", rec.ID, "size", out.Size)
	c.tell(event.VDiskResized, vdiskObject(rec.Name), "bytes", strconv.FormatInt(out.Size, 10))
	return out, nil
}

// relabel changes name and labels: in the model first, because it decides about
// names; taken back when the head cannot be written.
func (c *Controller) relabel(ctx context.Context, vol Volume, rec model.VDisk, in DiskPatch) (model.VDisk, error) {
	if (in.Name == nil || *in.Name == rec.Name) && (in.Labels == nil || maps.Equal(in.Labels, rec.Labels)) {
		return rec, nil
	}
	out, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
		if in.Name != nil {
			v.Name = *in.Name
		}
		if in.Labels != nil {
			v.Labels = maps.Clone(in.Labels)
		}
		return nil
	})
	if err != nil {
		return rec, err
	}
	if err := vol.SetLabels(ctx, out.Name, out.Labels); err == nil && out.Name != rec.Name {
		c.tell(event.VDiskRenamed, vdiskObject(out.Name), "before", rec.Name)
	} else if err != nil {
		_, uerr := c.model.UpdateVDisk(context.WithoutCancel(ctx), rec.ID, func(v *model.VDisk) error {
			v.Name, v.Labels = rec.Name, rec.Labels
			return nil
		})
		return rec, errors.Join(err, uerr)
	}
	return out, nil
}

// Commit brings everything acknowledged so far to the backend.
func (c *Controller) Commit(ctx context.Context, name string) (model.VDisk, volume.Stats, error) {
	var out model.VDisk
	var stats volume.Stats
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		vol, e := c.running(d, rec)
		if e != nil {
			return e
		}
		if err := vol.Commit(ctx); err != nil {
			return err
		}
		out, stats = rec, vol.Stats()
		return nil
	})
	return out, stats, err
}

// AcceptLoss lets a vDisk in state lost_tail serve without what it lost; it
// does nothing to another.
func (c *Controller) AcceptLoss(ctx context.Context, name string) (model.VDisk, error) {
	var out model.VDisk
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		out = rec
		if d.vol != nil || !errors.Is(d.err, volume.ErrLostTail) {
			return nil
		}
		ep, err := c.attached(rec.VPool)
		if err != nil {
			return err
		}
		id, err := volume.ParseID(rec.ID)
		if err != nil {
			return err
		}
		if err := ep.AcceptLoss(ctx, id); err != nil {
			return err
		}
		c.log.Warn("loss of acknowledged writes accepted", "vdisk", rec.Name, "id", rec.ID)
		c.tell(event.VDiskLossAccepted, vdiskObject(rec.Name))
		return c.open(ctx, d, rec)
	})
	return out, err
}

// DeleteVDisk deletes a vDisk: into the trash, unless its vPool has none or purge is
// set. An absent one is no error. The decision is durable on return; the space of one
// that does not go into the trash may be given back later (C2).
func (c *Controller) DeleteVDisk(ctx context.Context, name string, purge bool) error {
	if rec, err := c.FindVDisk(name); err == nil && rec.State == model.StateTrashed && purge {
		return c.PurgeVDisk(ctx, rec.ID)
	}
	if rec, err := c.FindVDisk(name); err == nil && rec.State == model.StateTransfer {
		return c.deleteTransfer(ctx, rec)
	}
	err := c.withDisk(ctx, name, func(ctx context.Context, d *vdisk, rec model.VDisk) error {
		if fenced(d.vol) {
			// Its objects are another opening's.
			_, e := c.running(d, rec)
			return e
		}
		if err := c.underDatastore(rec); err != nil {
			return err
		}
		rec, err := c.model.UpdateVDisk(ctx, rec.ID, func(v *model.VDisk) error {
			if iqn, _, ok := c.Placed(*v); ok {
				return &Error{Code: CodeInUse, Object: vdiskObject(v.Name), Message: "it is published as " + iqn, Hint: "unpublish it first"}
			}
			if v.State = model.StateDeleting; !purge && c.hasTrash(rec) {
				v.State, v.Trashed, v.Stored, v.Flatten = model.StateTrashed, c.clock.Now().UTC(), stored(d), false
			}
			giveUpMove(v)
			return nil
		})
		if err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, deleteWait)
		defer cancel()
		if rec.State == model.StateTrashed {
			c.log.Info("vDisk in the trash", "vdisk", rec.Name, "id", rec.ID)
			c.tell(event.VDiskTrashed, vdiskObject(rec.Name))
			return c.visitTrashed(wait, d, rec)
		}
		if err := c.resumeDelete(wait, d, rec); err != nil {
			c.log.Warn("space of a deleted vDisk is given back later", "vdisk", rec.Name, "id", rec.ID, "err", err)
			c.schedule(ref{"vdisk", rec.ID}, retryMin)
		}
		return nil
	})
	var e *Error
	if errors.As(err, &e) && e.Code == CodeNotFound {
		return nil
	}
	return err
}

// resumeDelete works on a delete and keeps why it is not finished, for who asks.
func (c *Controller) resumeDelete(ctx context.Context, d *vdisk, rec model.VDisk) error {
	err := c.finishDelete(ctx, d, rec)
	c.mu.Lock()
	d.err = err
	c.mu.Unlock()
	return err
}

// finishDelete closes a vDisk, gives its space back and forgets it; d.lock is held.
func (c *Controller) finishDelete(ctx context.Context, d *vdisk, rec model.VDisk) error {
	if err := c.endVerify(ctx, rec.ID); err != nil {
		return err
	}
	if err := c.closeVolume(ctx, d); err != nil {
		c.log.Info("vDisk to be deleted did not close orderly", "vdisk", rec.Name, "id", rec.ID, "err", err)
	}
	if rec, err := c.settleMove(ctx, rec); err != nil {
		return err
	} else if err := c.dropLeft(ctx, rec.ID); err != nil {
		return err
	}
	if now, ok := c.model.VDisk(rec.ID); ok {
		rec = now // it may be in another vPool
	}
	ep, err := c.attached(rec.VPool)
	if err != nil {
		return err
	}
	id, err := volume.ParseID(rec.ID)
	if err != nil {
		return err
	}
	if err := ep.Delete(ctx, id); err != nil && !errors.Is(err, volume.ErrNotFound) {
		return err
	}
	if err := c.model.DeleteVerification(ctx, rec.ID); err != nil {
		return err
	}
	if err := c.forgetSchedule(ctx, rec.ID); err != nil {
		return err
	}
	if err := c.model.DeleteVDisk(ctx, rec.ID); err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.disks, rec.ID)
	c.mu.Unlock()
	c.log.Info("vDisk deleted", "vdisk", rec.Name, "id", rec.ID)
	c.tell(event.VDiskDeleted, vdiskObject(rec.Name))
	return nil
}
