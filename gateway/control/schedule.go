package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/schedule"
)

// What is said about jobs: by the cluster, by a vPool, by a vDisk. The nearest one counts,
// for each job as a whole.

// DefaultJobs are the original's, in UTC.
var DefaultJobs = map[model.JobName]model.Job{
	model.JobSnapshot:  {Enabled: true, Cron: "0 * * * *"},
	model.JobRetention: {Enabled: true, Cron: "1 2 * * *", Days: schedule.DefaultRetention.Days, Weeks: schedule.DefaultRetention.Weeks},
	model.JobScrub:     {Enabled: true, Cron: "0 3 * * *"},
}

// Source tells who says when a job runs.
type Source string

// Sources, the farthest first.
const (
	FromDefault Source = "default"
	FromCluster Source = "cluster"
	FromVPool   Source = "vpool"
	FromVDisk   Source = "vdisk"
)

// JobPolicy is when a job runs, and who says so.
type JobPolicy struct {
	model.Job
	Source Source
}

// ScheduleScope names whose schedule is meant, by id or name; both empty: the cluster's.
type ScheduleScope struct{ VPool, VDisk string }

// scope is a ScheduleScope that was looked up.
type scope struct {
	vpool  model.VPool // its or the vDisk's; ID empty: the cluster
	vdisk  model.VDisk
	source Source
	object string
}

func (s *scope) key() string {
	switch s.source {
	case FromVDisk:
		return model.ScheduleOfVDisk(s.vdisk.ID)
	case FromVPool:
		return model.ScheduleOfVPool(s.vpool.ID)
	}
	return model.ScheduleOfCluster
}

func (c *Controller) scope(in ScheduleScope) (scope, error) {
	out := scope{source: FromCluster, object: "schedule"}
	var err error
	switch {
	case in.VPool != "" && in.VDisk != "":
		return out, invalid("vdisk", out.object, "give one of vpool and vdisk", "a schedule is of a vPool or of a vDisk")
	case in.VDisk != "":
		if out.vdisk, err = c.FindVDisk(in.VDisk); err != nil {
			return out, err
		}
		out.vpool, _ = c.model.VPool(out.vdisk.VPool)
		out.source, out.object = FromVDisk, vdiskObject(out.vdisk.Name)
	case in.VPool != "":
		if out.vpool, err = c.FindVPool(in.VPool); err != nil {
			return out, err
		}
		out.source, out.object = FromVPool, vpoolObject(out.vpool.Name)
	}
	return out, nil
}

// jobPolicy is when a job of a vDisk runs. With an empty vdisk it is what its vPool says,
// with an empty vpool what the cluster says.
func (c *Controller) jobPolicy(vpool, vdisk string, name model.JobName) JobPolicy {
	if vdisk != "" {
		if j, ok := c.model.JobOf(model.ScheduleOfVDisk(vdisk), name); ok {
			return JobPolicy{j, FromVDisk}
		}
	}
	if vpool != "" {
		if j, ok := c.model.JobOf(model.ScheduleOfVPool(vpool), name); ok {
			return JobPolicy{j, FromVPool}
		}
	}
	if j, ok := c.model.JobOf(model.ScheduleOfCluster, name); ok {
		return JobPolicy{j, FromCluster}
	}
	return JobPolicy{DefaultJobs[name], FromDefault}
}

// JobPatch changes when a job runs; what is nil stays as it is, or as it is inherited.
type JobPatch struct {
	Enabled       *bool
	Cron, Zone    *string
	Days, Weeks   *int
	SkipUnchanged *bool
}

// SetJob says when a job of the cluster, of a vPool or of a vDisk runs.
func (c *Controller) SetJob(ctx context.Context, in ScheduleScope, name string, p JobPatch) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	s, job, err := c.scopedJob(in, name)
	if err != nil {
		return err
	}
	j := c.jobPolicy(s.vpool.ID, s.vdisk.ID, job).Job
	set(&j.Enabled, p.Enabled)
	set(&j.Cron, p.Cron)
	set(&j.Zone, p.Zone)
	set(&j.Days, p.Days)
	set(&j.Weeks, p.Weeks)
	set(&j.SkipUnchanged, p.SkipUnchanged)
	if _, err := schedule.Parse(j.Cron, j.Zone); err != nil {
		field := "cron"
		if _, bad := schedule.Parse("@daily", j.Zone); bad != nil {
			field = "zone"
		}
		return &Error{Code: CodeInvalid, Field: field, Object: s.object, Message: clip(err.Error()), Hint: `write one like "0 */4 * * mon-fri", and a zone like Europe/Brussels`, Err: err}
	}
	if job != model.JobRetention && (p.Days != nil || p.Weeks != nil) {
		return invalid("days", s.object, "give them with retention", "job %s keeps no days and weeks", job)
	}
	if job != model.JobSnapshot && p.SkipUnchanged != nil {
		return invalid("skipUnchanged", s.object, "give it with snapshot", "job %s leaves out nothing", job)
	}
	if j.Days < 0 || j.Days > schedule.MaxDays {
		return invalid("days", s.object, fmt.Sprintf("use 0 to %d", schedule.MaxDays), "%d days are not possible", j.Days)
	}
	if j.Weeks < 0 || j.Weeks > schedule.MaxWeeks {
		return invalid("weeks", s.object, fmt.Sprintf("use 0 to %d", schedule.MaxWeeks), "%d weeks are not possible", j.Weeks)
	}
	j.Since = c.clock.Now().UTC()
	if err := c.model.SetJob(ctx, s.key(), job, &j); err != nil {
		return explain(s.object, err)
	}
	c.log.Info("schedule set", "object", s.object, "job", job, "enabled", j.Enabled, "cron", j.Cron, "zone", j.Zone, "days", j.Days, "weeks", j.Weeks, "skipUnchanged", j.SkipUnchanged)
	c.scheduleChanged(s)
	return nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// ResetJob has a vDisk, a vPool or the cluster say nothing about a job any more.
func (c *Controller) ResetJob(ctx context.Context, in ScheduleScope, name string) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	s, job, err := c.scopedJob(in, name)
	if err != nil {
		return err
	}
	if err := c.model.SetJob(ctx, s.key(), job, nil); err != nil {
		return explain(s.object, err)
	}
	c.log.Info("schedule inherited", "object", s.object, "job", job)
	c.scheduleChanged(s)
	return nil
}

func (c *Controller) scheduleChanged(s scope) {
	switch s.source {
	case FromVDisk:
		c.opt.Changed("vdisk", s.vdisk.ID)
	case FromVPool:
		c.opt.Changed("vpool", s.vpool.ID)
	}
}

func (c *Controller) scopedJob(in ScheduleScope, name string) (scope, model.JobName, error) {
	s, err := c.scope(in)
	if err == nil && !slices.Contains(model.JobNames, model.JobName(name)) {
		err = &Error{Code: CodeNotFound, Field: "job", Object: s.object, Message: "there is no job " + clip(name), Hint: "use snapshot, retention or scrub"}
	}
	return s, model.JobName(name), err
}

// JobStatus is when a job runs and ran.
type JobStatus struct {
	Name model.JobName
	JobPolicy
	// Slot is what runs next, at the moment Next; zero if nothing does. A vDisk runs a slot
	// some minutes later than it is, so that not all run at once.
	Slot, Next time.Time
	Running    bool
	Runs       []model.Run // of a vDisk, the newest first
}

// Schedule tells when the jobs of the cluster, of a vPool or of a vDisk run, and of a vDisk
// how they went.
func (c *Controller) Schedule(in ScheduleScope) (string, []JobStatus, error) {
	s, err := c.scope(in)
	if err != nil {
		return "", nil, err
	}
	var out []JobStatus
	now := c.clock.Now()
	runs, _ := c.model.Runs(s.vdisk.ID)
	for _, name := range model.JobNames {
		j := JobStatus{Name: name, JobPolicy: c.jobPolicy(s.vpool.ID, s.vdisk.ID, name), Runs: runs.Jobs[name].Runs}
		if p, err := c.plan(j.Job); err == nil && j.Enabled && !s.vdisk.Template {
			last := now
			if s.source == FromVDisk {
				last = c.settled(s.vdisk, name, j.Job, now)
			} else {
				p.Spread = 0
			}
			if slot, at, ok := p.Upcoming(s.vdisk.ID, last, now); ok {
				j.Slot, j.Next = slot.UTC(), at.UTC()
			}
		}
		c.mu.Lock()
		_, j.Running = c.scheduler.busy[jobRef{s.vdisk.ID, name}]
		c.mu.Unlock()
		out = append(out, j)
	}
	return s.object, out, nil
}

// Saying is what a vPool or vDisk says about a job itself, or the cluster or the defaults do.
type Saying struct {
	VPool, VDisk string // names; both empty: all others
	Job          model.JobName
	JobPolicy
}

// Sayings returns what is said about jobs: for the cluster all, for vPools and vDisks what
// they say themselves, by name.
func (c *Controller) Sayings() []Saying {
	var out []Saying
	for _, name := range model.JobNames {
		out = append(out, Saying{Job: name, JobPolicy: c.jobPolicy("", "", name)})
	}
	said := map[string]model.Schedule{}
	for _, s := range c.model.Schedules() {
		said[s.Of] = s
	}
	add := func(key, vpool, vdisk string, from Source) {
		for name, j := range said[key].Jobs {
			out = append(out, Saying{vpool, vdisk, name, JobPolicy{j, from}})
		}
	}
	pools := map[string]string{}
	for _, p := range c.model.VPools() {
		pools[p.ID] = p.Name
		add(model.ScheduleOfVPool(p.ID), p.Name, "", FromVPool)
	}
	for _, v := range c.model.VDisks(func(v model.VDisk) bool { return len(said[model.ScheduleOfVDisk(v.ID)].Jobs) > 0 }) {
		add(model.ScheduleOfVDisk(v.ID), pools[v.VPool], v.Name, FromVDisk)
	}
	order := func(n model.JobName) int { return slices.Index(model.JobNames, n) }
	slices.SortFunc(out, func(a, b Saying) int {
		return cmp.Or(cmp.Compare(a.VPool, b.VPool), cmp.Compare(a.VDisk, b.VDisk), cmp.Compare(order(a.Job), order(b.Job)))
	})
	return out
}

// forgetSchedule forgets what a vDisk says about jobs, and its runs.
func (c *Controller) forgetSchedule(ctx context.Context, id string) error {
	if err := c.model.DeleteSchedule(ctx, model.ScheduleOfVDisk(id)); err != nil {
		return err
	}
	return c.model.DeleteRuns(ctx, id)
}
