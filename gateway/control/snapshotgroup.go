package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// A group snapshot of vDisks of several nodes is led by the node that is asked. It has the
// vDisks of one node after the other come to rest, which they do for two seconds at most,
// and when all are, has every node make its snapshots. So there is a moment at which all
// were at rest: what was acknowledged on any of them before it is in, and no write is that
// was sent because of one that is not. When a node cannot, or does not answer, the others
// give up, or delete what they made. All leaders go by the ids of the nodes: of two groups
// neither waits for vDisks that the other one has while that waits for its own.
//
// Whoever ends in the midst of it, a group is made as a whole or not at all, as its record
// (model.SnapshotGroup) says:
//
//	G1  The record is stored before a snapshot is made, and each node sees it in the registry
//	    while its vDisks are at rest, before it makes them.
//	G2  It says "made" once all snapshots are durable, which the leader stores; or "undoing",
//	    which the leader stores, or another node once the leader has no lease. Neither becomes
//	    the other one.
//	G3  While it says anything but "made", nobody is shown a snapshot of it, or starts from one.
//	G4  While it says "undoing", each node deletes those of the vDisks that it serves. The record
//	    goes when none is left.

const (
	// groupsEvery is how often a node looks for groups that were left unfinished.
	groupsEvery = 2 * time.Second
	// decideTime bounds how long the registry is told what becomes of a group.
	decideTime = 10 * time.Second
	// partTime bounds what a node does for a group that another one leads, and each question
	// of that; undoTime how long it is tried to undo one.
	partTime = 10 * time.Second
	undoTime = 5 * time.Second
	// maxParts is how many groups of many nodes a node remembers, at least, so that they can be
	// undone, and how many are made at a time, at most.
	maxParts = 256
)

// GroupMember is a vDisk with its snapshot of a group.
type GroupMember struct {
	VDisk    model.VDisk
	Snapshot volume.Snapshot
}

// GroupPart is what a node has to do for a group snapshot.
type GroupPart struct {
	Snapshot volume.SnapshotSpec // with the id that all have
	VDisks   []string            // ids; the node serves them
	Size     int                 // vDisks of the group, on all nodes
}

// Parts has other nodes take part in group snapshots. An error is an *Error if the node said
// why.
type Parts interface {
	// Rest returns when the vDisks have come to rest.
	Rest(ctx context.Context, node string, p GroupPart) error
	// Go has the snapshots made of those that are at rest.
	Go(ctx context.Context, node string, id volume.ID) ([]GroupMember, error)
	// Undo gives up, or deletes what was made. Repeating it does no harm.
	Undo(ctx context.Context, node string, id volume.ID) error
}

// errGivenUp: the leader of a group gave it up.
var errGivenUp = errors.New("the group snapshot was given up")

func groupObject(name string) string { return "snapshot group " + clip(name) }

// SnapshotGroup makes a snapshot of each of some running vDisks, all at one moment: what
// was acknowledged on one of them before a write that another's snapshot has was sent is
// in. All or none of them are made.
func (c *Controller) SnapshotGroup(ctx context.Context, names []string, in volume.SnapshotSpec) ([]GroupMember, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	object := groupObject(in.Name)
	if len(names) == 0 || len(names) > volume.MaxGroup {
		return nil, invalid("vdisks", object, fmt.Sprintf("name 1 to %d", volume.MaxGroup), "a group of %d vDisks is not possible", len(names))
	}
	if e := checkSnapshot(object, in); e != nil {
		return nil, e
	}
	recs := make([]model.VDisk, len(names))
	at := map[string][]string{} // ids by node
	seen := map[string]bool{}
	for i, name := range names {
		if recs[i], err = c.FindVDisk(name); err != nil {
			return nil, err
		}
		if seen[recs[i].ID] {
			return nil, invalid("vdisks", object, "name each once", "vDisk %s is named twice", recs[i].Name)
		}
		seen[recs[i].ID] = true
		at[recs[i].Node] = append(at[recs[i].Node], recs[i].ID)
	}
	here := len(at) == 1 || c.opt.Parts == nil
	for _, rec := range recs {
		if e := c.served(rec); here && e != nil {
			return nil, e
		}
	}
	if in.ID == (volume.ID{}) {
		if in.ID, err = volume.NewID(c.opt.Rand); err != nil {
			return nil, err
		}
	}
	made, err := c.decided(ctx, recs, in, func() ([]GroupMember, error) {
		if here {
			return c.snapshotHere(ctx, slices.Clone(recs), in, nil)
		}
		return c.lead(ctx, at, in, len(recs))
	})
	if err != nil {
		return nil, explain(object, err)
	}
	of := map[string]GroupMember{}
	for _, m := range made {
		of[m.VDisk.ID] = m
	}
	out := make([]GroupMember, len(recs))
	for i, rec := range recs {
		out[i] = GroupMember{rec, of[rec.ID].Snapshot}
	}
	c.log.Info("group snapshot made", "snapshot", in.Name, "id", made[0].Snapshot.ID.String(), "vdisks", len(recs), "nodes", len(at))
	return out, nil
}

// lead makes a group snapshot of vDisks of several nodes.
func (c *Controller) lead(ctx context.Context, at map[string][]string, in volume.SnapshotSpec, size int) (made []GroupMember, err error) {
	var asked []string
	for _, n := range slices.Sorted(maps.Keys(at)) {
		asked = append(asked, n)
		if err = c.restOn(ctx, n, GroupPart{in, at[n], size}); err != nil {
			break
		}
	}
	if err == nil {
		made, err = c.goOn(ctx, asked, in.ID)
	}
	if err == nil && len(made) == size {
		return made, nil
	}
	if err == nil {
		err = fmt.Errorf("%d of %d snapshots were made", len(made), size)
	}
	left := c.undoOn(ctx, asked, in.ID)
	if len(left) == 0 {
		return nil, err
	}
	e := *explain(groupObject(in.Name), err)
	e.Message += ", and what was made of it at node " + strings.Join(left, ", ") + " goes once that answers"
	return nil, &e
}

// restOn has a node's vDisks of a group come to rest.
func (c *Controller) restOn(ctx context.Context, node string, p GroupPart) error {
	if node == c.opt.Node {
		return c.RestGroup(ctx, p)
	}
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	return c.ofNode(node, c.opt.Parts.Rest(ctx, node, p))
}

// ofNode says which node an error is of, if it does not say so itself.
func (c *Controller) ofNode(node string, err error) error {
	var e *Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &Error{Code: CodeTimeout, Message: "node " + c.NodeName(node) + " does not take part: " + err.Error(), Hint: "see that it is reached, and try again", Soon: true, Err: err}
}

// goOn has nodes make their snapshots.
func (c *Controller) goOn(ctx context.Context, nodes []string, id volume.ID) ([]GroupMember, error) {
	ctx, cancel := context.WithTimeout(ctx, partTime)
	defer cancel()
	made, errs := make([][]GroupMember, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			if n == c.opt.Node {
				made[i], errs[i] = c.GoGroup(ctx, id)
			} else {
				made[i], errs[i] = c.opt.Parts.Go(ctx, n, id)
				errs[i] = c.ofNode(n, errs[i])
			}
		})
	}
	wg.Wait()
	return slices.Concat(made...), errors.Join(errs...)
}

// undoOn has nodes undo their parts, and returns the names of those that did not.
func (c *Controller) undoOn(ctx context.Context, nodes []string, id volume.ID) (left []string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			if n == c.opt.Node {
				errs[i] = c.UndoGroup(ctx, id)
			} else {
				errs[i] = c.opt.Parts.Undo(ctx, n, id)
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			c.log.Warn("part of a group snapshot not undone", "node", c.NodeName(nodes[i]), "id", id.String(), "err", err)
			left = append(left, c.NodeName(nodes[i]))
		}
	}
	return left
}

// groupPart is a part of a group that this node takes.
type groupPart struct {
	began  time.Time
	rest   chan struct{} // closed when its vDisks are at rest
	agreed chan error    // capacity 1: nil, or why it is given up
	cancel context.CancelFunc
	whole  atomic.Bool   // it is known to be made
	done   chan struct{} // closed when it is over; made and err are set then
	made   []GroupMember
	err    error
}

// RestGroup has vDisks of this node come to rest for a group snapshot, until GoGroup or
// UndoGroup, or for two seconds.
func (c *Controller) RestGroup(ctx context.Context, in GroupPart) error {
	object := groupObject(in.Snapshot.Name)
	if e := checkSnapshot(object, in.Snapshot); e != nil {
		return e
	}
	recs := make([]model.VDisk, len(in.VDisks))
	for i, id := range in.VDisks {
		rec, ok := c.model.VDisk(id)
		if !ok {
			return noVDisk(id)
		}
		if e := c.served(rec); e != nil {
			e.Soon = true // it has just moved
			return e
		}
		recs[i] = rec
	}
	p := &groupPart{began: c.clock.Now(), rest: make(chan struct{}), agreed: make(chan error, 1), done: make(chan struct{})}
	if err := c.addPart(in.Snapshot.ID, p); err != nil {
		return err
	}
	run, cancel := context.WithTimeout(c.ctx, partTime)
	p.cancel = cancel
	go func() {
		defer c.wg.Done()
		defer cancel()
		p.made, p.err = c.snapshotHere(run, recs, in.Snapshot, &volume.GroupPart{Size: in.Size, Meet: func(ctx context.Context) error {
			close(p.rest)
			select {
			case err := <-p.agreed:
				if err == nil {
					err = c.stillMaking(ctx, in.Snapshot.ID)
				}
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		close(p.done)
	}()
	select {
	case <-p.rest:
		return nil
	case <-p.done:
	case <-ctx.Done():
		cancel()
		<-p.done
	}
	c.dropPart(in.Snapshot.ID)
	return explainOrNil(object, cmp.Or(p.err, ctx.Err(), errGivenUp))
}

// addPart remembers a part, for which Stop waits.
func (c *Controller) addPart(id volume.ID, p *groupPart) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.parts) >= maxParts {
		c.forgetPart()
	}
	switch {
	case c.stopping:
		return &Error{Code: CodeStopping, Message: "the node is stopping", Hint: "try again when it is back"}
	case c.parts[id] != nil:
		return &Error{Code: CodeExists, Object: "snapshot group " + id.String(), Message: "the node takes part in it already", Hint: "make another one"}
	case len(c.parts) >= maxParts:
		return &Error{Code: CodeInUse, Object: "snapshot group " + id.String(), Message: fmt.Sprintf("%d others are being made", maxParts), Hint: "try again", Soon: true}
	}
	c.parts[id] = p
	c.wg.Add(1)
	return nil
}

// forgetPart forgets the oldest part that is over; mu is held.
func (c *Controller) forgetPart() {
	var oldest *groupPart
	var of volume.ID
	for id, p := range c.parts {
		if p.over() && (oldest == nil || p.began.Before(oldest.began)) {
			oldest, of = p, id
		}
	}
	delete(c.parts, of)
}

func (p *groupPart) over() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (c *Controller) partOf(id volume.ID) *groupPart {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.parts[id]
}

func (c *Controller) dropPart(id volume.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.parts, id)
}

// agree tells a part what is agreed on; what came first counts.
func (p *groupPart) agree(err error) {
	select {
	case p.agreed <- err:
	default:
	}
}

// GoGroup has the snapshots made of the vDisks of a group that are at rest here.
func (c *Controller) GoGroup(ctx context.Context, id volume.ID) ([]GroupMember, error) {
	p := c.partOf(id)
	if p == nil {
		return nil, &Error{Code: CodeNotFound, Object: "snapshot group " + id.String(), Message: "no vDisk is at rest for it", Hint: "make another one"}
	}
	p.agree(nil)
	select {
	case <-p.done:
		return p.made, explainOrNil("snapshot group "+id.String(), p.err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// UndoGroup gives up what this node does for a group, or deletes what it made. A group that
// is not known, or no more, is no error.
func (c *Controller) UndoGroup(ctx context.Context, id volume.ID) error {
	p := c.partOf(id)
	if p == nil {
		return nil
	}
	p.agree(errGivenUp)
	p.cancel()
	select {
	case <-p.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	var errs []error
	for _, m := range p.made {
		errs = append(errs, c.dropMember(ctx, m.VDisk.ID, id))
	}
	err := errors.Join(errs...)
	if err == nil {
		c.dropPart(id)
	}
	return err
}

// snapshotHere makes a snapshot of each of some vDisks of this node; with part they are those
// that it has of a larger group. It sorts recs.
func (c *Controller) snapshotHere(ctx context.Context, recs []model.VDisk, in volume.SnapshotSpec, part *volume.GroupPart) ([]GroupMember, error) {
	slices.SortFunc(recs, func(a, b model.VDisk) int { return cmp.Compare(a.ID, b.ID) })
	vols := make([]Volume, len(recs))
	for i, rec := range recs { // in the order of their ids, so that two groups do not wait for each other
		d := c.vdisk(rec.ID)
		if err := d.lock.acquire(ctx); err != nil {
			return nil, explain(vdiskObject(rec.Name), err)
		}
		defer d.lock.release()
		rec, ok := c.model.VDisk(rec.ID)
		if !ok || rec.State == model.StateDeleting {
			return nil, noVDisk(recs[i].Name)
		}
		if rec.State == model.StateTrashed {
			return nil, inTrash(rec)
		}
		vol, e := c.running(d, rec)
		if e != nil {
			return nil, e
		}
		vols[i] = vol
	}
	made, err := c.opt.Engine.SnapshotGroup(ctx, vols, in, part)
	if errors.Is(err, volume.ErrExists) {
		for _, rec := range recs {
			if hidden, _ := c.unfinished(ctx, rec.ID, in.Name); hidden {
				return nil, nameGoes(groupObject(in.Name), in.Name, err)
			}
		}
		return nil, &Error{Code: CodeExists, Field: "name", Object: groupObject(in.Name), Message: "one of the vDisks has a snapshot of this name", Hint: "choose another name, or delete that one", Err: err}
	}
	if err != nil {
		return nil, err
	}
	out := make([]GroupMember, len(recs))
	for i := range recs {
		out[i] = GroupMember{recs[i], made[i]}
		c.opt.Changed("vdisk", recs[i].ID)
		c.tell(event.SnapshotCreated, vdiskObject(recs[i].Name), "snapshot", in.Name)
	}
	return out, nil
}
