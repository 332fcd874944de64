package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/schedule"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Each node runs the jobs of the vDisks that it serves. A slot is settled when its run is
// stored; a node that dies before runs it again, which does no harm: a snapshot has an id
// that follows from vDisk and slot, so that it is made once, and the other jobs can be
// repeated.

const (
	// scheduleEvery is how often it is looked for what is due.
	scheduleEvery = 10 * time.Second
	// scheduleSpread bounds how much later than its slot a job runs, so that ten thousand
	// vDisks make 17 snapshots a second and not all at once.
	scheduleSpread = 10 * time.Minute
	// scheduleLate is how late a slot that was missed still runs.
	scheduleLate = 24 * time.Hour
	// clockDoubt is for how long nothing is deleted after the wall clock jumped.
	clockDoubt = 24 * time.Hour
	// maxRunText bounds what is kept about a run, in bytes.
	maxRunText = 300
	// maxPlans bounds the expressions that are kept parsed.
	maxPlans = 1000
	// lookMost is how long what was found of a job counts at most.
	lookMost = time.Hour
	// lateSlots is how many slots a vDisk may be without an automatic snapshot.
	lateSlots = 3
	// lateGrace is how long a node that started has to catch up.
	lateGrace = 2 * scheduleSpread
)

// jobBounds are how many runs of a job there may be at once, on a node and of a vPool: a
// snapshot is short, a retention commits much, a scrub reads and writes for long.
var jobBounds = map[model.JobName]struct{ node, vpool int }{
	model.JobSnapshot:  {8, 4},
	model.JobRetention: {2, 2},
	model.JobScrub:     {2, 1},
}

type jobRef struct {
	vdisk string
	job   model.JobName
}

// scheduler is what the scheduler remembers. The Controller's mu guards it, but for what
// runDue alone uses.
type scheduler struct {
	busy    map[jobRef]string    // runs that are under way, and the vPool
	unkept  map[jobRef]time.Time // slots that are settled, while the registry does not take it
	plans   map[[2]string]schedule.Schedule
	doubted time.Time // when the clock last jumped; zero: it did not

	queue []due // what waits for a run to end; made anew by each runDue

	next   map[jobRef]look // runDue's
	rows   []model.VDisk   // runDue's, to be used again
	looked time.Time       // runDue's
	// Nothing is due from and until then, as of so many changes; zero: it is not known.
	from, until time.Time
	changes     uint64
}

// due is a run that is to be begun.
type due struct {
	vdisk model.VDisk
	name  model.JobName
	job   model.Job
	slot  time.Time // zero: somebody asked for it
	do    func(context.Context) (string, error)
}

// look is what was found when it was last looked at a job: nothing is due before at.
type look struct {
	job            model.Job
	last, from, at time.Time
}

func (s *scheduler) init() {
	s.busy, s.unkept, s.plans = map[jobRef]string{}, map[jobRef]time.Time{}, map[[2]string]schedule.Schedule{}
	s.next = map[jobRef]look{}
}

// plan is how vDisks run a job.
func (c *Controller) plan(j model.Job) (schedule.Plan, error) {
	out := schedule.Plan{Spread: scheduleSpread, Late: scheduleLate}
	key := [2]string{j.Cron, j.Zone}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.scheduler.plans[key]
	if !ok {
		var err error
		if s, err = schedule.Parse(j.Cron, j.Zone); err != nil {
			return out, err
		}
		if len(c.scheduler.plans) >= maxPlans {
			clear(c.scheduler.plans)
		}
		c.scheduler.plans[key] = s
	}
	out.Schedule = s
	return out, nil
}

// firstAge is how old a vDisk is at its first slot: of one that is being filled a snapshot says
// nothing, and whoever tries a vDisk out does not find what somebody else made.
const firstAge = 15 * time.Minute

// settled returns the newest slot of a vDisk's job that is settled, or since when slots
// count.
func (c *Controller) settled(v model.VDisk, name model.JobName, j model.Job, now time.Time) time.Time {
	var since time.Time
	for _, t := range []time.Time{v.Created.Add(firstAge), j.Since} {
		if t.After(since) && t.Sub(now) <= schedule.MaxAhead { // else the clock was wrong then
			since = t
		}
	}
	c.mu.Lock()
	last, ok := c.scheduler.unkept[jobRef{v.ID, name}]
	c.mu.Unlock()
	if !ok {
		last = c.model.JobRunsOf(v.ID, name).Last
	}
	if since.After(last) {
		return since
	}
	return last
}

// runDue starts what is due, as far as the bounds allow.
func (c *Controller) runDue() {
	s := &c.scheduler
	now := c.clock.Now()
	if !s.looked.IsZero() {
		jump := now.Round(0).Sub(s.looked.Round(0)) - now.Sub(s.looked)
		if jump.Abs() > maxClockJump {
			c.log.Warn("the clock jumped: no snapshots are deleted for a day", "by", jump)
			c.tell(event.ClockJumped, nodeObject(c.NodeName(c.opt.Node)), "by", jump.Round(time.Second).String())
			c.mu.Lock()
			s.doubted = now
			c.mu.Unlock()
		}
	}
	s.looked = now
	changes := c.model.JobChanges()
	c.mu.Lock()
	calm := changes == s.changes && len(s.unkept) == 0
	c.mu.Unlock()
	wall := now.Round(0)
	if calm && !wall.Before(s.from) && wall.Before(s.until) {
		c.beginQueued()
		return
	}
	s.changes, s.from, s.until = changes, wall, wall.Add(lookMost)
	var queue []due
	s.rows = c.model.AppendVDisks(s.rows[:0], c.hasJobs)
	for _, v := range s.rows {
		for _, name := range model.JobNames {
			ref := jobRef{v.ID, name}
			before := s.next[ref]
			next, found := c.lookAt(v, name, before, wall)
			switch {
			case found != nil:
				queue = append(queue, *found)
				delete(s.next, ref)
				s.until = time.Time{}
			case next.at.IsZero():
				delete(s.next, ref)
			default:
				if next != before {
					s.next[ref] = next
				}
				if next.at.Before(s.until) {
					s.until = next.at
				}
			}
		}
	}
	s.forget()
	clear(s.rows)
	c.mu.Lock()
	s.queue = queue
	c.mu.Unlock()
	c.beginQueued()
}

// forget drops what was found of vDisks that have no jobs any more, once they are many.
func (s *scheduler) forget() {
	if len(s.next) <= 2*len(model.JobNames)*len(s.rows)+maxPlans {
		return
	}
	have := make(map[string]bool, len(s.rows))
	for _, v := range s.rows {
		have[v.ID] = true
	}
	maps.DeleteFunc(s.next, func(r jobRef, _ look) bool { return !have[r.vdisk] })
}

// hasJobs tells whether this node runs jobs of a vDisk.
func (c *Controller) hasJobs(v model.VDisk) bool {
	return c.mine(v) && v.State == model.StatePresent && !v.Template
}

// beginQueued begins what waits, as far as the bounds allow.
func (c *Controller) beginQueued() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scheduler.queue = slices.DeleteFunc(c.scheduler.queue, func(d due) bool {
		e := c.launch(d)
		return e == nil || e.Code != CodeInUse
	})
}

// lookAt returns the run of a vDisk's job that is due; if none is, until when.
func (c *Controller) lookAt(v model.VDisk, name model.JobName, before look, now time.Time) (look, *due) {
	job := c.jobPolicy(v.VPool, v.ID, name).Job
	if !job.Enabled {
		return look{}, nil
	}
	last := c.settled(v, name, job, now)
	if before.job == job && before.last.Equal(last) && !now.Before(before.from) && now.Before(before.at) {
		return before, nil
	}
	p, err := c.plan(job)
	if err != nil {
		c.log.Error("schedule cannot be used", "vdisk", v.Name, "job", name, "err", err)
		return look{}, nil
	}
	slot, verdict := p.Due(v.ID, last, now)
	run := &due{name: name, job: job, slot: slot}
	switch verdict {
	case schedule.Run:
		run.do = func(ctx context.Context) (string, error) { return c.runJob(ctx, *run) }
	case schedule.TooLate:
		run.do = skipped("missed: it was later than " + scheduleLate.String())
	case schedule.ClockBack:
		run.do = skipped("the clock was ahead when it last ran, at " + last.UTC().Format(time.RFC3339))
	default:
		next := look{job, last, now, now.Add(lookMost)}
		if _, at, ok := p.Upcoming(v.ID, last, now); ok && at.Before(next.at) {
			next.at = at
		}
		return next, nil
	}
	var ok bool
	if run.vdisk, ok = c.model.VDisk(v.ID); !ok {
		return look{}, nil
	}
	return look{}, run
}

// errSkipped: a run did nothing, for the reason in its text.
var errSkipped = errors.New("skipped")

func skipped(why string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return why, errSkipped }
}

// launch begins a run in the background, unless the job runs or as many run as may; c.mu is
// held.
func (c *Controller) launch(d due) *Error {
	v, s := d.vdisk, &c.scheduler
	ref := jobRef{v.ID, d.name}
	if c.stopping {
		return &Error{Code: CodeStopping, Message: "the node is stopping", Hint: "try again when it is back"}
	}
	if _, ok := s.busy[ref]; ok {
		return &Error{Code: CodeInUse, Object: vdiskObject(v.Name), Message: string(d.name) + " runs already", Hint: "wait for it: ovgate schedule show --vdisk " + v.Name}
	}
	node, pool := 0, 0
	for r, of := range s.busy {
		if r.job == d.name {
			node++
			if of == v.VPool {
				pool++
			}
		}
	}
	if b := jobBounds[d.name]; node >= b.node || pool >= b.vpool {
		return &Error{Code: CodeInUse, Object: vdiskObject(v.Name), Message: fmt.Sprintf("%d runs of %s are under way on this node, as many as may", node, d.name), Hint: "try again when one has ended"}
	}
	s.busy[ref] = v.VPool
	var told *task.Entry
	if d.name != model.JobScrub { // which tells itself
		told = c.opt.Tasks.Begin(runTask(d), nil, nil)
	}
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		c.run(d, told)
		told.Drop() // unless it has ended
		c.mu.Lock()
		delete(s.busy, ref)
		c.mu.Unlock()
		c.beginQueued()
		c.opt.Changed("vdisk", v.ID)
	}()
	return nil
}

// run runs a job to its end.
func (c *Controller) run(d due, told *task.Entry) {
	now := c.clock.Now()
	if !d.slot.IsZero() && c.settled(d.vdisk, d.name, d.job, now).Equal(d.slot) {
		return // it was begun while it was queued anew
	}
	text, err := d.do(c.ctx)
	switch {
	case errors.Is(err, errSkipped), c.ctx.Err() != nil: // it did nothing, or is run again
	case err != nil:
		endTask(told, task.Failed, vdiskObject(d.vdisk.Name), err)
	default:
		told.End(task.Done, "", "")
	}
	c.keepRun(d.vdisk, d.name, model.Run{Slot: d.slot, Started: now.UTC(), Text: text}, err)
}

// keepRun stores what became of a run, and settles its slot. One that the end of this
// process cut off, or another owner, is not settled.
func (c *Controller) keepRun(v model.VDisk, name model.JobName, run model.Run, err error) {
	var e *Error
	if c.ctx.Err() != nil || errors.As(err, &e) && (e.Code == CodeElsewhere || e.Code == CodeStopping) {
		return
	}
	now, ok := c.model.VDisk(v.ID)
	if !ok || now.State == model.StateDeleting {
		return
	}
	run.Ended, run.Result = c.clock.Now().UTC(), model.RunDone
	switch {
	case errors.Is(err, errSkipped):
		run.Result = model.RunSkipped
	case err != nil:
		run.Result, run.Text = model.RunFailed, explain(vdiskObject(v.Name), err).Error()
		c.log.Warn("scheduled job failed; it is tried again at its next time", "vdisk", v.Name, "id", v.ID, "job", name, "err", err)
		c.tell(event.ScheduleFailed, vdiskObject(v.Name), "job", string(name), "reason", run.Text)
	}
	run.Text = run.Text[:min(len(run.Text), maxRunText)]
	ctx, cancel := context.WithTimeout(c.ctx, opTimeout)
	defer cancel()
	err = c.model.AddRun(ctx, v.ID, name, run)
	if err != nil {
		c.log.Warn("run of a scheduled job not kept", "vdisk", v.Name, "id", v.ID, "job", name, "err", err)
	}
	if !run.Slot.IsZero() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.scheduler.unkept, jobRef{v.ID, name})
		if err != nil {
			c.scheduler.unkept[jobRef{v.ID, name}] = run.Slot
		}
	}
}

// RunJob has a job of a vDisk run now, whatever its schedule says, and returns.
func (c *Controller) RunJob(ctx context.Context, disk, name string) error {
	s, job, err := c.scopedJob(ScheduleScope{VDisk: disk}, name)
	if err != nil {
		return err
	}
	if s.source != FromVDisk {
		return invalid("vdisk", s.object, "name a vDisk", "a job runs on a vDisk")
	}
	return c.withDisk(ctx, s.vdisk.ID, func(_ context.Context, d *vdisk, rec model.VDisk) error {
		if _, e := c.running(d, rec); e != nil {
			return e
		}
		run := due{vdisk: rec, name: job, job: c.jobPolicy(rec.VPool, rec.ID, job).Job}
		run.do = func(ctx context.Context) (string, error) { return c.runJob(ctx, run) }
		c.mu.Lock()
		defer c.mu.Unlock()
		if e := c.launch(run); e != nil {
			return e
		}
		return nil
	})
}

func (c *Controller) runJob(ctx context.Context, d due) (string, error) {
	switch d.name {
	case model.JobSnapshot:
		at := d.slot
		if at.IsZero() {
			at = c.clock.Now()
		}
		if d.job.SkipUnchanged {
			if text, err := c.unchanged(ctx, d.vdisk); err != nil || text != "" {
				return text, err
			}
		}
		return c.runSnapshot(ctx, d.vdisk, at)
	case model.JobRetention:
		return c.runRetention(ctx, d)
	default:
		return c.runScrub(ctx, d.vdisk)
	}
}

// AutoSnapshotName is what the automatic snapshot of a slot is called.
func AutoSnapshotName(slot time.Time) string { return "auto-" + slot.UTC().Format("20060102T150405Z") }

// autoSnapshotID is the id of the automatic snapshot of a slot: a UUID of version 8.
func autoSnapshotID(vdisk string, slot time.Time) volume.ID {
	h := sha256.Sum256([]byte("automatic snapshot of " + vdisk + " " + AutoSnapshotName(slot)))
	id := volume.ID(h[:16])
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return id
}

func (c *Controller) runSnapshot(ctx context.Context, v model.VDisk, slot time.Time) (string, error) {
	s, err := c.CreateSnapshot(ctx, v.ID, volume.SnapshotSpec{ID: autoSnapshotID(v.ID, slot), Name: AutoSnapshotName(slot), Automatic: true})
	return s.Name, err
}

// newestSnapshot returns that of the newest content; ok is false if there is none.
func newestSnapshot(all []volume.Snapshot) (newest volume.Snapshot, ok bool) {
	for _, s := range all {
		if !ok || s.Seq > newest.Seq || s.Seq == newest.Seq && s.Time.After(newest.Time) {
			newest, ok = s, true
		}
	}
	return newest, ok
}

// unchanged says which snapshot has all that was written to a vDisk; empty: none has.
func (c *Controller) unchanged(ctx context.Context, v model.VDisk) (string, error) {
	all, err := c.Snapshots(ctx, v.ID)
	if err != nil {
		return "", err
	}
	st := c.DiskStatus(v)
	if s, ok := newestSnapshot(all); ok && st.Open && s.Seq >= st.Stats.ChangedSeq && s.Size == v.Size {
		return "nothing was written since snapshot " + s.Name, nil
	}
	return "", nil
}

// runRetention deletes the automatic snapshots whose time has come. After a jump of the
// clock, or a pause of which nobody knows whether it was one, it waits: snapshots that go
// because of a wrong clock do not come back.
func (c *Controller) runRetention(ctx context.Context, d due) (string, error) {
	v := d.vdisk
	p, err := c.plan(d.job)
	if err != nil {
		return "", err
	}
	now := c.clock.Now()
	c.mu.Lock()
	doubted, scrub := c.scheduler.doubted, c.scrubs[v.ID]
	scrubbed := scrub != nil && scrub.State == JobRunning && !scrub.DryRun
	c.mu.Unlock()
	switch {
	case !doubted.IsZero() && now.Sub(doubted) < clockDoubt:
		return "the clock jumped at " + doubted.UTC().Format(time.RFC3339) + ": nothing is deleted for a day", errSkipped
	case scrubbed:
		return "the vDisk is being scrubbed", errSkipped
	}
	runs, _ := c.model.Runs(v.ID)
	if last := runs.Jobs[d.name].Last; !d.slot.IsZero() && !last.IsZero() {
		if one, ok := p.Next(last); ok {
			if two, ok := p.Next(one); ok && two.Before(d.slot) {
				return "it did not run since " + last.UTC().Format(time.RFC3339) + ": check the clock; the next run deletes", errSkipped
			}
		}
	}
	all, err := c.Snapshots(ctx, v.ID)
	if err != nil {
		return "", err
	}
	parents := map[string]bool{} // names and ids of snapshots that clones start from
	for _, k := range c.model.VDisks(func(k model.VDisk) bool { return k.Parent != nil && k.Parent.VDisk == v.ID }) {
		parents[k.Parent.Snapshot] = true
	}
	list, automatic := make([]schedule.Snapshot, len(all)), 0
	for i, s := range all {
		list[i] = schedule.Snapshot{ID: s.ID.String(), Time: s.Time, Automatic: s.Automatic, Consistent: s.Consistent, Sticky: s.Sticky,
			Parent: parents[s.ID.String()] || parents[s.Name]}
		if s.Automatic {
			automatic++
		}
	}
	if newest, ok := newestSnapshot(all); ok && c.jobPolicy(v.VPool, v.ID, model.JobSnapshot).SkipUnchanged {
		// It may stand for many that were left out.
		for i := range list {
			list[i].Parent = list[i].Parent || list[i].ID == newest.ID.String()
		}
	}
	gone := schedule.Retention{Days: d.job.Days, Weeks: d.job.Weeks}.Expired(list, now, p.Zone())
	for i, s := range gone {
		if _, err := c.deleteSnapshot(ctx, v.ID, s.ID, false); err != nil {
			return "", fmt.Errorf("%d of %d snapshots deleted: %w", i, len(gone), err)
		}
	}
	return fmt.Sprintf("%d of %d automatic snapshots deleted", len(gone), automatic), nil
}

func (c *Controller) runScrub(ctx context.Context, v model.VDisk) (string, error) {
	j, err := c.StartScrub(ctx, v.ID, volume.ScrubOptions{})
	if err != nil {
		return "", err
	}
	<-j.done // it ends with the node
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.scrubs[v.ID]; now != nil && now.done == j.done {
		j = *now
	}
	if j.Err != nil {
		return "", j.Err
	}
	return fmt.Sprintf("%d bytes given back", max(0, j.Result.Stored-j.Result.StoredAfter)), nil
}

// LateSnapshots returns those of vDisks that this node serves and that have had no automatic
// snapshot for more than three slots of their schedule, and since when.
func (c *Controller) LateSnapshots(of []model.VDisk) map[string]time.Time {
	out := map[string]time.Time{}
	now := c.clock.Now()
	if c.opt.NoSchedules || now.Sub(c.started) < lateGrace {
		return out
	}
	now = now.Round(0)
	edges := map[[2]string]time.Time{} // slots before which a snapshot is late
	for _, v := range of {
		if !c.hasJobs(v) {
			continue
		}
		job := c.jobPolicy(v.VPool, v.ID, model.JobSnapshot).Job
		if !job.Enabled {
			continue
		}
		key := [2]string{job.Cron, job.Zone}
		edge, ok := edges[key]
		if !ok {
			p, err := c.plan(job)
			if err != nil {
				continue
			}
			edge = now
			for range lateSlots + 1 {
				if edge, ok = p.Prev(edge.Add(-time.Second)); !ok {
					break
				}
			}
			edges[key] = edge
		}
		last := c.model.JobRunsOf(v.ID, model.JobSnapshot).Good
		for _, t := range []time.Time{v.Created, job.Since} {
			if t.After(last) {
				last = t
			}
		}
		if last.Before(edge) {
			out[v.ID] = last.UTC()
		}
	}
	return out
}
