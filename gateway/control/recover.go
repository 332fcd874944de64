package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/encrypted"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Recovery is what RecoverVPool found.
type Recovery struct {
	VPool  model.VPool
	VDisks []RecoveredDisk
}

// RecoveredDisk is a vDisk found on a backend, and what became of it.
type RecoveredDisk struct {
	volume.Recovered
	Record model.VDisk
}

// RecoverVPool registers a vPool and its vDisks from what a backend holds. The
// vPool keeps the identity in the backend's root object. Repeated on a vPool
// that the node knows, it finds what is missing and leaves the rest alone.
func (c *Controller) RecoverVPool(ctx context.Context, in NewPool, acceptLoss bool) (Recovery, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return Recovery{}, err
	}
	defer done()
	object := vpoolObject(clip(in.Name))
	key, e := parseKey(object, in.Key)
	if e != nil {
		return Recovery{}, e
	}
	where, e := c.remoteOf(object, in.Backend)
	if e != nil {
		return Recovery{}, e
	}
	where = c.opt.Backends.Default(where, in.Name)
	rec, known := c.model.FindVPool(in.Name)
	switch {
	case !known || rec.Backend != where:
		rec, err = c.adopt(ctx, in, key)
	case key != nil:
		rec, err = c.rekey(ctx, rec, *key)
	}
	if err != nil {
		return Recovery{}, explain(object, err)
	}
	ep, err := c.attached(rec.ID)
	if err != nil {
		return Recovery{}, explain(object, err)
	}
	found, lost := ep.Recover(ctx)
	out := Recovery{VPool: rec}
	for _, r := range found {
		v, err := c.recoverDisk(ctx, rec, ep, r, acceptLoss)
		if err != nil {
			return out, explain(vdiskObject(r.Name), err)
		}
		out.VDisks = append(out.VDisks, RecoveredDisk{r, v})
	}
	c.log.Info("vPool recovered", "vpool", rec.Name, "id", rec.ID, "vdisks", len(found))
	c.tell(event.VPoolRecovered, object, "vdisks", strconv.Itoa(len(found)))
	if lost != nil {
		return out, explain(object, lost)
	}
	return out, nil
}

// adopt makes a vPool of the root object that a backend holds.
func (c *Controller) adopt(ctx context.Context, in NewPool, key *encrypted.Key) (model.VPool, error) {
	rec, e := c.checkNewPool(in)
	if e != nil {
		return rec, e
	}
	place, err := c.place(rec)
	if err != nil {
		return rec, err
	}
	place.Key, place.New = key, false
	store, err := c.opt.Backends.Open(ctx, place)
	if err != nil {
		if place.Backend.Store != "" {
			err = offRemote(place.Remote, err)
		}
		return rec, err
	}
	root, err := c.opt.Backends.ReadRoot(ctx, store)
	if err = errors.Join(err, store.Close()); errors.Is(err, backend.ErrNotExist) {
		return rec, &Error{Code: CodeNotFound, Field: "backend.path", Message: rec.Backend.Path + " holds no vPool", Object: vpoolObject(in.Name), Hint: "name the place that the vPool was created with"}
	}
	if err != nil {
		return rec, err
	}
	if have, ok := c.model.VPool(root.VPool); ok {
		return rec, &Error{Code: CodeExists, Field: "name", Object: vpoolObject(in.Name), Message: "this vPool is known as " + have.Name, Hint: "recover it under that name"}
	}
	rec.ID, rec.Adopt = root.VPool, true
	if key != nil {
		if err := c.giveKey(&rec, *key); err != nil {
			return rec, err
		}
	}
	return c.addPool(ctx, rec)
}

// recoverDisk makes the model know a vDisk, and opens it.
func (c *Controller) recoverDisk(ctx context.Context, pool model.VPool, ep Pool, r volume.Recovered, acceptLoss bool) (model.VDisk, error) {
	rec, have := c.model.VDisk(r.ID.String())
	if have && rec.State == model.StateDeleting {
		return rec, nil
	}
	if !have {
		var err error
		rec = model.VDisk{
			ID: r.ID.String(), Name: c.freeName(pool.ID, r), VPool: pool.ID, Size: r.Size, ClusterSize: r.ClusterSize,
			Labels: r.Labels, State: model.StatePresent, Created: c.clock.Now().UTC(), Template: r.Template, Node: c.opt.Node,
		}
		if r.Parent != (volume.ID{}) {
			rec.Parent = &model.Parent{VDisk: r.Parent.String()}
		}
		if rec, err = c.model.CreateVDisk(ctx, rec); err != nil {
			return rec, err
		}
	}
	if !c.mine(rec) {
		return rec, nil
	}
	d := c.vdisk(rec.ID)
	if err := d.lock.acquire(ctx); err != nil {
		return rec, err
	}
	defer d.lock.release()
	err := c.open(ctx, d, rec)
	if errors.Is(err, volume.ErrLostTail) && acceptLoss {
		if err := ep.AcceptLoss(ctx, r.ID); err != nil {
			return rec, err
		}
		err = c.open(ctx, d, rec)
	}
	if err != nil && !final(err) {
		c.schedule(ref{"vdisk", rec.ID}, retryMin)
	}
	c.opt.Changed("vdisk", rec.ID)
	return rec, nil
}

// freeName is the vDisk's own name, or one made of its id when that is taken or
// not a name.
func (c *Controller) freeName(pool string, r volume.Recovered) string {
	short := r.ID.String()[:8]
	for _, n := range []string{r.Name, fmt.Sprintf("%.54s-%s", r.Name, short)} {
		if _, taken := c.model.VDiskByName(pool, n); !taken && checkName("vdisk", n) == nil {
			return n
		}
	}
	return "recovered-" + r.ID.String()
}
