package model

import (
	"context"
	"errors"
	"maps"
	"time"
)

// JobName names a kind of scheduled job.
type JobName string

// Jobs.
const (
	JobSnapshot  JobName = "snapshot"  // an automatic snapshot
	JobRetention JobName = "retention" // deletes automatic snapshots
	JobScrub     JobName = "scrub"
)

// JobNames are the kinds of scheduled jobs.
var JobNames = []JobName{JobSnapshot, JobRetention, JobScrub}

// Job says when a kind of job runs.
type Job struct {
	Enabled bool   `json:"enabled"`
	Cron    string `json:"cron"`           // see gateway/schedule
	Zone    string `json:"zone,omitempty"` // of the IANA database; "": UTC
	// Days and Weeks are how many of each the retention keeps behind the newest day.
	Days  int `json:"days,omitempty"`
	Weeks int `json:"weeks,omitempty"`
	// SkipUnchanged has no snapshot made of a vDisk that was not written to since its newest
	// one, which the retention then leaves.
	SkipUnchanged bool `json:"skipUnchanged,omitempty"`
	// Since is when it was set: slots before that are not caught up.
	Since time.Time `json:"since,omitzero"`
}

// Schedule is what the cluster, a vPool or a vDisk says about jobs. What one of them does
// not say, the one before says. It is a record of its own, so that a version that knows of
// no schedules leaves it alone.
type Schedule struct {
	Format int             `json:"format"`
	Of     string          `json:"of"` // ScheduleOfCluster, or of ScheduleOfVPool or ScheduleOfVDisk
	Jobs   map[JobName]Job `json:"jobs"`

	Rev int64 `json:"-"`
}

// ScheduleOfCluster is the key of the cluster's schedule.
const ScheduleOfCluster = "cluster"

// ScheduleOfVPool is the key of a vPool's schedule.
func ScheduleOfVPool(id string) string { return "vpool/" + id }

// ScheduleOfVDisk is the key of a vDisk's schedule.
func ScheduleOfVDisk(id string) string { return "vdisk/" + id }

// MaxRuns is how many runs of each job are kept of a vDisk: some hours of snapshots, ten
// days of what runs daily, and no more than 4 KiB for all of them.
const MaxRuns = 10

// Runs are the newest runs of the jobs of a vDisk.
type Runs struct {
	Format int                 `json:"format"`
	VDisk  string              `json:"vdisk"` // UUID
	Jobs   map[JobName]JobRuns `json:"jobs"`

	Rev int64 `json:"-"`
}

// JobRuns are the newest runs of one job.
type JobRuns struct {
	Last time.Time `json:"last,omitzero"` // newest slot that is settled: run, or skipped for good
	Good time.Time `json:"good,omitzero"` // when it last began and did not fail
	Runs []Run     `json:"runs,omitempty"`
}

// RunResult says what became of a run.
type RunResult string

// Results.
const (
	RunDone    RunResult = "done"
	RunFailed  RunResult = "failed"
	RunSkipped RunResult = "skipped"
)

// Run is one run of a job.
type Run struct {
	Slot    time.Time `json:"slot,omitzero"` // when it was to be; zero: somebody asked for it
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Result  RunResult `json:"result"`
	Text    string    `json:"text,omitempty"` // what it did, or why not
}

func (s Schedule) key() string      { return s.Of }
func (s Schedule) unique() []string { return nil }
func (s Schedule) format() int      { return s.Format }
func (s Schedule) rev() int64       { return s.Rev }
func (s Schedule) clone(rev int64) Schedule {
	s.Rev, s.Jobs = rev, maps.Clone(s.Jobs)
	return s
}

func (r Runs) key() string      { return r.VDisk }
func (r Runs) unique() []string { return nil }
func (r Runs) format() int      { return r.Format }
func (r Runs) rev() int64       { return r.Rev }
func (r Runs) clone(rev int64) Runs {
	r.Rev, r.Jobs = rev, maps.Clone(r.Jobs) // nobody changes the runs of a job once they are stored
	return r
}

// Schedule returns what is said about jobs under a key.
func (s *Store) Schedule(of string) (Schedule, bool) { return s.schedules.get(of) }

// JobChanges changes with each vDisk, and with each of what is said about jobs, ran, or was
// verified.
func (s *Store) JobChanges() uint64 {
	return s.vdisks.changes.Load() + s.schedules.changes.Load() + s.runs.changes.Load() + s.verified.changes.Load()
}

// JobOf returns what is said about a job under a key.
func (s *Store) JobOf(of string, name JobName) (Job, bool) {
	said, _ := s.schedules.shared(of)
	j, ok := said.Jobs[name]
	return j, ok
}

// Schedules returns all of them, in no particular order.
func (s *Store) Schedules() []Schedule { return s.schedules.all(nil) }

// SetJob says when a job runs; nil: nothing is said any more.
func (s *Store) SetJob(ctx context.Context, of string, name JobName, job *Job) error {
	set := func(v *Schedule) error {
		v.Format = Format
		if v.Jobs == nil {
			v.Jobs = map[JobName]Job{}
		}
		if delete(v.Jobs, name); job != nil {
			v.Jobs[name] = *job
		}
		return nil
	}
	if _, ok := s.schedules.get(of); !ok {
		if job == nil {
			return nil
		}
		v := Schedule{Of: of}
		if err := set(&v); err != nil {
			return err
		}
		if _, err := s.schedules.insert(ctx, v, nil); !errors.Is(err, ErrExists) {
			return err
		}
	}
	_, err := s.schedules.update(ctx, of, set)
	return err
}

// DeleteSchedule forgets what is said under a key; absent is no error.
func (s *Store) DeleteSchedule(ctx context.Context, of string) error {
	return s.schedules.remove(ctx, of, nil)
}

// Runs returns the newest runs of the jobs of a vDisk.
func (s *Store) Runs(vdisk string) (Runs, bool) { return s.runs.get(vdisk) }

// JobRunsOf returns the newest runs of a job of a vDisk. They must not be changed.
func (s *Store) JobRunsOf(vdisk string, name JobName) JobRuns {
	r, _ := s.runs.shared(vdisk)
	return r.Jobs[name]
}

// AddRun keeps a run of a job, and its slot as the newest settled one.
func (s *Store) AddRun(ctx context.Context, vdisk string, name JobName, run Run) error {
	add := func(v *Runs) error {
		v.Format = Format
		if v.Jobs == nil {
			v.Jobs = map[JobName]JobRuns{}
		}
		j := v.Jobs[name]
		if !run.Slot.IsZero() {
			j.Last = run.Slot
		}
		if run.Result == RunDone {
			j.Good = run.Started
		}
		kept := min(len(j.Runs), MaxRuns-1)
		j.Runs = append([]Run{run}, j.Runs[:kept]...)
		v.Jobs[name] = j
		return nil
	}
	if _, ok := s.runs.get(vdisk); !ok {
		v := Runs{VDisk: vdisk}
		if err := add(&v); err != nil {
			return err
		}
		if _, err := s.runs.insert(ctx, v, nil); !errors.Is(err, ErrExists) {
			return err
		}
	}
	_, err := s.runs.update(ctx, vdisk, add)
	return err
}

// DeleteRuns forgets the runs of a vDisk; absent is no error.
func (s *Store) DeleteRuns(ctx context.Context, vdisk string) error {
	return s.runs.remove(ctx, vdisk, nil)
}
