package maintenance

import (
	"slices"
	"strings"
	"time"
)

// Job is the progress of a long round.
type Job struct {
	ID      string    `json:"id"`
	What    string    `json:"what"`
	Started time.Time `json:"started"`
	// Done of Total units; Total 0 while it is not known. Bytes moved.
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
	Unit  string `json:"unit"`
	Bytes int64  `json:"bytes"`
	// Ended is zero while it runs.
	Ended time.Time `json:"ended,omitzero"`
	Error string    `json:"error,omitempty"`
}

// Rate returns units and bytes a second, and the time left; zero when unknown.
func (j Job) Rate(now time.Time) (units, bytes float64, left time.Duration) {
	if !j.Ended.IsZero() {
		now = j.Ended
	}
	took := now.Sub(j.Started).Seconds()
	if took <= 0 {
		return 0, 0, 0
	}
	units, bytes = float64(j.Done)/took, float64(j.Bytes)/took
	if j.Ended.IsZero() && j.Total > j.Done && units > 0 {
		left = time.Duration(float64(j.Total-j.Done) / units * float64(time.Second))
	}
	return units, bytes, left
}

// jobsMax bounds the jobs that are remembered.
const jobsMax = 100

// begin registers a job in place of the former of this id.
func (a *Agent) begin(id, what, unit string, total int64) *Job {
	a.mu.Lock()
	defer a.mu.Unlock()
	j := &Job{ID: id, What: what, Unit: unit, Total: total, Started: a.o.Clock.Now()}
	a.jobs[id] = j
	if len(a.jobs) > jobsMax {
		a.forgetOldest()
	}
	return j
}

// forgetOldest drops the job that ended first; the lock is held.
func (a *Agent) forgetOldest() {
	var oldest *Job
	for _, j := range a.jobs {
		if !j.Ended.IsZero() && (oldest == nil || j.Ended.Before(oldest.Ended)) {
			oldest = j
		}
	}
	if oldest != nil {
		delete(a.jobs, oldest.ID)
	}
}

func (a *Agent) progress(j *Job, done, bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	j.Done += done
	j.Bytes += bytes
}

func (a *Agent) end(j *Job, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	j.Ended = a.o.Clock.Now()
	if err != nil {
		j.Error = err.Error()
	}
}

// Jobs returns the jobs that run and those that ended lately, newest first.
func (a *Agent) Jobs() []Job {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]Job, 0, len(a.jobs))
	for _, j := range a.jobs {
		out = append(out, *j)
	}
	slices.SortFunc(out, func(x, y Job) int {
		if c := y.Started.Compare(x.Started); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return out
}

// ClearJobs forgets the jobs that ended.
func (a *Agent) ClearJobs() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, j := range a.jobs {
		if !j.Ended.IsZero() {
			delete(a.jobs, id)
		}
	}
}
