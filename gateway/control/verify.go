package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// maxVerifies bounds the verifications that run at once on a node: each reads as fast
// as the vDisks leave room for. Others wait.
const maxVerifies = 2

const (
	// verifyLook is how often it is looked whether a vDisk is due.
	verifyLook = 5 * time.Minute
	// verifyAgain is how long one that was cut off is left alone: somebody ended it, or
	// the backend is away.
	verifyAgain = 24 * time.Hour
	// verifyRate bounds those that nobody asked for, in bytes per second: 10 TiB a day,
	// and a backend over a network has room for other things.
	verifyRate = 128 << 20
)

// verifyWait bounds how long a cancelled verification is waited for.
const verifyWait = 10 * time.Second

// VerifyState says how far a verification is.
type VerifyState string

// States of a verification.
const (
	VerifyNone      VerifyState = "none" // there was none
	VerifyWaiting   VerifyState = "waiting"
	VerifyRunning   VerifyState = "running"
	VerifyDone      VerifyState = "done"
	VerifyCancelled VerifyState = "cancelled"
	VerifyFailed    VerifyState = "failed"
)

// Verify is a verification of a vDisk: the one that is under way, else the newest.
type Verify struct {
	VDisk   model.VDisk
	State   VerifyState
	Started time.Time
	Result  model.Verification // so far
}

// verifyJob is a verification that is under way.
type verifyJob struct {
	cancel  context.CancelFunc
	done    chan struct{}
	started time.Time

	mu      sync.Mutex
	running bool
	out     volume.Verification
}

// StartVerify begins to read all that a vDisk has on its backend, and returns.
// bytesPerSecond bounds it; 0: it takes what other requests leave.
func (c *Controller) StartVerify(ctx context.Context, name string, bytesPerSecond int64) (Verify, error) {
	err := c.withDisk(ctx, name, func(_ context.Context, _ *vdisk, rec model.VDisk) error {
		if bytesPerSecond < 0 {
			return invalid("bytesPerSecond", vdiskObject(rec.Name), "use 0 for no bound", "a rate of %d bytes a second is not possible", bytesPerSecond)
		}
		ep, id, err := c.engineDisk(rec)
		if err != nil {
			return err
		}
		jctx, cancel := context.WithCancel(c.ctx)
		j := &verifyJob{cancel: cancel, done: make(chan struct{}), started: c.clock.Now().UTC()}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.verifies[rec.ID] != nil || c.stopping {
			cancel()
			return &Error{Code: CodeInUse, Object: vdiskObject(rec.Name), Message: "it is being verified", Hint: "wait for it, or end it: ovgate vdisk verify --cancel " + rec.Name}
		}
		told := c.opt.Tasks.Begin(task.Task{Kind: task.Verify, Object: vdiskObject(rec.Name), VPools: []string{rec.VPool}, What: "read all that it has on its backend", Unit: "bytes"}, j.look, func(ctx context.Context) error { return c.CancelVerify(ctx, rec.ID) })
		c.verifies[rec.ID] = j
		c.wg.Add(1)
		go c.verify(jctx, j, told, ep, id, volume.VerifyOptions{BytesPerSecond: bytesPerSecond})
		return nil
	})
	if err != nil {
		return Verify{}, err
	}
	return c.Verification(name)
}

// look brings its task up to date.
func (j *verifyJob) look(t *task.Task) {
	j.mu.Lock()
	defer j.mu.Unlock()
	t.Done, t.Total, t.Bytes = j.out.Done, j.out.Total, j.out.Done
	if !j.running {
		t.State = task.Queued
	}
}

// verify runs a verification and keeps its result.
func (c *Controller) verify(ctx context.Context, j *verifyJob, told *task.Entry, ep Pool, id volume.ID, o volume.VerifyOptions) {
	defer c.wg.Done()
	defer close(j.done)
	defer j.cancel()
	o.Progress = func(v volume.Verification) {
		j.mu.Lock()
		j.out = v
		j.mu.Unlock()
	}
	var out volume.Verification
	var err error
	select {
	case c.verifySlots <- struct{}{}:
		j.mu.Lock()
		j.running = true
		j.mu.Unlock()
		out, err = ep.Verify(ctx, id, o)
		<-c.verifySlots
	case <-ctx.Done():
		err = ctx.Err()
	}
	kept := keepVerification(id, j.started, c.clock.Now().UTC(), out, err)
	c.keepVerified(kept, err)
	switch {
	case errors.Is(err, context.Canceled):
		told.End(task.Cancelled, "", "")
	case err != nil:
		rec, _ := c.model.VDisk(id.String())
		endTask(told, task.Failed, vdiskObject(rec.Name), err)
	case out.BadObjects > 0:
		rec, _ := c.model.VDisk(id.String())
		told.End(task.Failed, fmt.Sprintf("%d objects on its backend are damaged", out.BadObjects), "ovgate vdisk verify --last "+rec.Name+" tells which")
	default:
		told.End(task.Done, "", "")
	}
	c.mu.Lock()
	delete(c.verifies, id.String())
	c.mu.Unlock()
	c.opt.Changed("vdisk", id.String())
}

// keepVerified stores a result. One that was cut off tells nothing new unless it found
// damage, so it does not take the place of one that came to its end.
func (c *Controller) keepVerified(v model.Verification, cause error) {
	log := c.log.With("vdisk", v.VDisk, "bytes", v.Bytes, "clusters", v.Clusters, "badClusters", v.BadClusters, "badObjects", v.BadObjects)
	rec, ok := c.model.VDisk(v.VDisk)
	switch {
	case !ok || rec.State == model.StateDeleting:
		return
	case v.BadObjects > 0:
		log.Error("vDisk verified: objects on the backend are damaged", "first", v.Damage[0].Object, "why", v.Damage[0].Why)
		c.tell(event.VDiskDamaged, vdiskObject(rec.Name), "objects", strconv.FormatInt(v.BadObjects, 10))
	case cause != nil:
		log.Warn("verification cut off", "err", cause)
		c.tell(event.VDiskVerifyFailed, vdiskObject(rec.Name), "reason", cause.Error())
	default:
		log.Info("vDisk verified")
		c.tell(event.VDiskVerified, vdiskObject(rec.Name), "bytes", strconv.FormatInt(v.Bytes, 10))
	}
	if old, ok := c.model.Verification(v.VDisk); ok && cause != nil && v.BadObjects == 0 && old.Cut == "" {
		return
	}
	if err := c.model.SetVerification(context.WithoutCancel(c.ctx), v); err != nil {
		log.Error("result of a verification not kept", "err", err)
	}
}

// keepVerification is what the model keeps of a result.
func keepVerification(id volume.ID, started, ended time.Time, v volume.Verification, err error) model.Verification {
	out := model.Verification{VDisk: id.String(), Started: started, Ended: ended, Seq: v.Seq, Bytes: v.Done, Total: v.Total,
		Clusters: v.Clusters, BadClusters: v.BadClusters, BadObjects: v.BadObjects}
	switch {
	case errors.Is(err, context.Canceled):
		out.Cut = string(VerifyCancelled)
	case err != nil:
		out.Cut = err.Error()
	}
	for _, d := range v.Damage[:min(len(v.Damage), model.MaxKeptDamage)] {
		k := model.Damage{Object: d.Object, Why: clip(d.Why), Current: d.Current, Snapshots: d.Snapshots[:min(len(d.Snapshots), model.MaxKeptSnapshots)]}
		for _, r := range d.Ranges[:min(len(d.Ranges), model.MaxKeptRanges)] {
			k.Ranges = append(k.Ranges, model.Range(r))
		}
		out.Damage = append(out.Damage, k)
	}
	return out
}

// Verification returns how far the verification of a vDisk is, or its newest result.
func (c *Controller) Verification(name string) (Verify, error) {
	rec, err := c.FindVDisk(name)
	if err != nil {
		return Verify{}, err
	}
	out := Verify{VDisk: rec, State: VerifyNone}
	c.mu.Lock()
	j := c.verifies[rec.ID]
	c.mu.Unlock()
	if j != nil {
		id, err := volume.ParseID(rec.ID)
		if err != nil {
			return out, err
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		out.State, out.Started = VerifyWaiting, j.started
		if j.running {
			out.State = VerifyRunning
		}
		out.Result = keepVerification(id, j.started, time.Time{}, j.out, nil)
		return out, nil
	}
	if v, ok := c.model.Verification(rec.ID); ok {
		out.Result, out.Started, out.State = v, v.Started, VerifyDone
		switch v.Cut {
		case "":
		case string(VerifyCancelled):
			out.State = VerifyCancelled
		default:
			out.State = VerifyFailed
		}
	}
	return out, nil
}

// CancelVerify ends the verification of a vDisk; none is no error.
func (c *Controller) CancelVerify(ctx context.Context, name string) error {
	rec, err := c.FindVDisk(name)
	if err != nil {
		return err
	}
	if e := c.served(rec); e != nil {
		return e
	}
	return c.endVerify(ctx, rec.ID)
}

// endVerify cancels a verification and waits until it ended.
func (c *Controller) endVerify(ctx context.Context, id string) error {
	c.mu.Lock()
	j := c.verifies[id]
	c.mu.Unlock()
	if j == nil {
		return nil
	}
	j.cancel()
	ctx, stop := context.WithTimeout(ctx, verifyWait)
	defer stop()
	select {
	case <-j.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchVerified has each vDisk verified within the interval of its vPool (rule E8), one
// at a time, until Stop.
func (c *Controller) watchVerified() {
	tried := map[string]time.Time{}
	c.every(verifyLook, verifyLook, func() {
		if v, ok := c.dueForVerify(tried); ok {
			tried[v.ID] = c.clock.Now()
			if _, err := c.StartVerify(c.ctx, v.ID, verifyRate); err != nil {
				c.log.Warn("vDisk is due to be verified, and cannot be", "vdisk", v.Name, "err", err)
			}
		}
	})
}

// dueForVerify returns the vDisk whose verification is due for the longest time, unless
// one runs.
func (c *Controller) dueForVerify(tried map[string]time.Time) (model.VDisk, bool) {
	c.mu.Lock()
	busy := len(c.verifies) > 0
	c.mu.Unlock()
	if busy {
		return model.VDisk{}, false
	}
	now := c.clock.Now()
	every := map[string]time.Duration{}
	for _, p := range c.model.VPools() {
		every[p.ID] = p.Settings.VerifyEvery()
	}
	var most model.VDisk
	var due time.Duration
	for _, v := range c.model.VDisks(c.mine) {
		interval := every[v.VPool]
		if v.State != model.StatePresent || interval == 0 || now.Sub(tried[v.ID]) < verifyAgain {
			continue
		}
		last := v.Created
		if r, ok := c.model.Verification(v.ID); ok && r.Cut == "" && r.Ended.After(last) {
			last = r.Ended
		}
		if over := now.Sub(last) - interval; over > due {
			most, due = v, over
		}
	}
	return most, due > 0
}
