package control

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// JobState says how far a job is.
type JobState string

// States of a job.
const (
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Job is a scrub or sweep: it goes on when whoever asked for it has left, and ends with
// the node. Only the newest one of an object is known, and none from before the node
// started: repeating one does no harm.
type Job[R any] struct {
	Object  string // name of the vDisk or vPool
	State   JobState
	DryRun  bool
	Started time.Time
	Ended   time.Time // zero while it runs
	Result  R         // so far
	Err     *Error    // why it failed

	done chan struct{} // closed at its end
}

// jobs are the newest jobs of objects, by id. The Controller's mu guards them.
type jobs[R any] map[string]*Job[R]

// startJob begins a job in the background, unless one of that object runs. t is what is told of
// it, and measure how far a result is.
func startJob[R any](c *Controller, list jobs[R], id string, j Job[R], t task.Task, measure func(*task.Task, R), run func(context.Context, func(R)) (R, error)) (Job[R], *Error) {
	object := t.Object
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return j, &Error{Code: CodeStopping, Message: "the node is stopping", Hint: "try again when it is back"}
	}
	if old := list[id]; old != nil && old.State == JobRunning {
		return j, &Error{Code: CodeInUse, Object: object, Message: "this runs already", Hint: "wait for it"}
	}
	j.State, j.Started, j.done = JobRunning, c.clock.Now().UTC(), make(chan struct{})
	list[id] = &j
	started := j
	if j.DryRun {
		t.What += ", as a trial"
	}
	ctx, cancel := context.WithCancel(c.ctx)
	look := func(t *task.Task) {
		c.mu.Lock()
		r := j.Result
		c.mu.Unlock()
		measure(t, r)
	}
	told := c.opt.Tasks.Begin(t, look, func(context.Context) error {
		cancel()
		return nil
	})
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		defer close(j.done)
		defer cancel()
		set := func(r R) { c.mu.Lock(); j.Result = r; c.mu.Unlock() }
		r, err := run(ctx, set)
		set(r)
		cut := ctx.Err() != nil
		c.mu.Lock()
		switch j.State, j.Ended = JobDone, c.clock.Now().UTC(); {
		case err != nil && cut && !c.stopping:
			j.State, err = JobCancelled, nil
		case err != nil:
			j.State, j.Err = JobFailed, explain(object, err)
		}
		state := task.State(j.State)
		c.mu.Unlock()
		endTask(told, state, object, err)
	}()
	return started, nil
}

// StartScrub begins a scrub of a running vDisk.
func (c *Controller) StartScrub(ctx context.Context, name string, o volume.ScrubOptions) (Job[volume.ScrubResult], error) {
	var out Job[volume.ScrubResult]
	err := c.withDisk(ctx, name, func(_ context.Context, d *vdisk, rec model.VDisk) error {
		if o.Rate < 0 {
			return invalid("rate", vdiskObject(rec.Name), "give bytes per second, or none for no bound", "a rate of %d bytes per second is not possible", o.Rate)
		}
		vol, e := c.running(d, rec)
		if e != nil {
			return e
		}
		c.dropJobs()
		t := task.Task{Kind: task.Scrub, Object: vdiskObject(rec.Name), VPools: []string{rec.VPool}, What: "give back what nothing needs", Unit: "objects"}
		measure := func(t *task.Task, r volume.ScrubResult) { t.Done, t.Bytes = int64(r.Units), int64(r.Read+r.Written) }
		out, e = startJob(c, c.scrubs, rec.ID, Job[volume.ScrubResult]{Object: rec.Name, DryRun: o.DryRun}, t, measure,
			func(ctx context.Context, progress func(volume.ScrubResult)) (volume.ScrubResult, error) {
				o.Progress = progress
				r, err := vol.Scrub(ctx, o)
				c.endScrub(rec, r, err)
				return r, err
			})
		if e != nil {
			return e
		}
		return nil
	})
	return out, err
}

// endScrub tells what a scrub did.
func (c *Controller) endScrub(rec model.VDisk, r volume.ScrubResult, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		c.log.Warn("scrub failed; repeat it", "vdisk", rec.Name, "id", rec.ID, "err", err)
		c.tell(event.ScrubFailed, vdiskObject(rec.Name), "reason", err.Error())
	} else if r.Units > 0 {
		c.log.Info("vDisk scrubbed", "vdisk", rec.Name, "id", rec.ID, "read", r.Read, "written", r.Written, "objectsDeleted", r.Deleted,
			"stored", r.StoredAfter, "storedBefore", r.Stored)
		c.tell(event.ScrubDone, vdiskObject(rec.Name), "written", strconv.FormatInt(int64(r.Written), 10), "deleted", strconv.FormatInt(int64(r.Deleted), 10))
	}
	c.opt.Changed("vdisk", rec.ID)
}

// Scrub returns the newest scrub of a vDisk.
func (c *Controller) Scrub(name string) (Job[volume.ScrubResult], error) {
	rec, err := c.FindVDisk(name)
	if err != nil {
		return Job[volume.ScrubResult]{}, err
	}
	return findJob(c, c.scrubs, rec.ID, vdiskObject(rec.Name), "start one: ovgate vdisk scrub "+rec.Name)
}

// StartSweep begins a sweep of a vPool.
func (c *Controller) StartSweep(ctx context.Context, name string, dryRun bool) (Job[volume.SweepResult], error) {
	var out Job[volume.SweepResult]
	_, done, err := c.begin(ctx)
	if err != nil {
		return out, err
	}
	defer done()
	rec, err := c.FindVPool(name)
	if err != nil {
		return out, err
	}
	if e := c.reached(rec, ""); e != nil {
		return out, e
	}
	ep, err := c.attached(rec.ID)
	if err != nil {
		return out, explain(vpoolObject(rec.Name), err)
	}
	t := task.Task{Kind: task.Sweep, Object: vpoolObject(rec.Name), VPools: []string{rec.ID}, What: "delete objects that nothing reaches", Unit: "objects"}
	measure := func(t *task.Task, r volume.SweepResult) { t.Done = int64(r.Objects) }
	out, e := startJob(c, c.sweeps, rec.ID, Job[volume.SweepResult]{Object: rec.Name, DryRun: dryRun}, t, measure,
		func(ctx context.Context, _ func(volume.SweepResult)) (volume.SweepResult, error) {
			r, err := ep.Sweep(ctx, dryRun)
			if err != nil {
				c.log.Warn("sweep ended", "vpool", rec.Name, "id", rec.ID, "objectsDeleted", r.Deleted, "err", err)
			} else if !dryRun {
				c.log.Info("vPool swept", "vpool", rec.Name, "id", rec.ID, "objectsDeleted", r.Deleted, "quarantined", len(r.Quarantined))
			}
			return r, err
		})
	if e != nil {
		return out, e
	}
	return out, nil
}

// Sweep returns the newest sweep of a vPool.
func (c *Controller) Sweep(name string) (Job[volume.SweepResult], error) {
	rec, err := c.FindVPool(name)
	if err != nil {
		return Job[volume.SweepResult]{}, err
	}
	return findJob(c, c.sweeps, rec.ID, vpoolObject(rec.Name), "start one: ovgate vpool sweep "+rec.Name)
}

func findJob[R any](c *Controller, list jobs[R], id, object, hint string) (Job[R], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if j := list[id]; j != nil {
		return *j, nil
	}
	return Job[R]{}, &Error{Code: CodeNotFound, Object: object, Message: "there was none since the node started", Hint: hint}
}

// dropJobs forgets the scrubs of vDisks that are gone.
func (c *Controller) dropJobs() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, j := range c.scrubs {
		if _, ok := c.model.VDisk(id); !ok && j.State != JobRunning {
			delete(c.scrubs, id)
		}
	}
}
