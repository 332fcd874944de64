package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

// Steps of jobs.
const (
	stepVDisk   = "vdisk"
	stepTarget  = "target"
	stepHosts   = "hosts"
	stepFormat  = "format"
	stepSign    = "resignature"
	stepMount   = "mount"
	stepMark    = "mark"
	stepGrow    = "grow"
	stepRescan  = "rescan"
	stepExpand  = "expand"
	stepVerify  = "verify"
	stepRename  = "rename"
	stepDestroy = "destroy"
	stepDetach  = "detach"
	stepUnmap   = "unmap"
	stepForget  = "forget"
	stepDelete  = "delete"
	stepQuiesce = "quiesce"
	stepPoint   = "snapshot"
	stepRelease = "release"
	stepMap     = "map"
	stepUnmapVM = "take"
)

// orders are the steps of each kind of job.
var orders = map[model.JobKind][]string{
	model.JobCreate:  {stepVDisk, stepTarget, stepHosts, stepFormat, stepMount, stepMark},
	model.JobImport:  {stepTarget, stepHosts, stepSign, stepMount, stepMark},
	model.JobAttach:  {stepHosts, stepMount, stepMark},
	model.JobMark:    {stepMark},
	model.JobExpand:  {stepGrow, stepRescan, stepExpand, stepVerify},
	model.JobRename:  {stepRename},
	model.JobRemove:  {stepDestroy, stepDetach, stepUnmap, stepForget, stepDelete},
	model.JobQuiesce: {stepQuiesce, stepPoint, stepRelease},
	model.JobMap:     {stepTarget, stepHosts, stepMap},
	model.JobUnmap:   {stepUnmapVM, stepDetach, stepUnmap, stepForget},
}

// Steps are the steps of a kind of job, in order.
func Steps(k model.JobKind) []string { return slices.Clone(orders[k]) }

// each runs fn for every host, hostsAtOnce at a time, and returns all errors.
func each(ctx context.Context, hosts []*vsphere.Host, fn func(ctx context.Context, i int, h *vsphere.Host) error) error {
	errs := make([]error, len(hosts))
	var wg sync.WaitGroup
	slots := make(chan struct{}, hostsAtOnce)
	for i, h := range hosts {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = fn(ctx, i, h)
			<-slots
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// work has the job of a datastore done, or looks at it again if that is being done.
func (m *Manager) work(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return
	}
	if w := m.running[id]; w != nil {
		select {
		case w.kick <- struct{}{}:
		default:
		}
		return
	}
	ctx, cancel := context.WithCancel(m.ctx)
	w := &worker{kick: make(chan struct{}, 1), again: make(chan struct{}, 1), cancel: cancel}
	m.running[id] = w
	m.wg.Add(1)
	go m.run(ctx, id, w)
}

// resume is work for a record that changed: where its job is being done that is no reason to
// try sooner.
func (m *Manager) resume(id string) {
	m.mu.Lock()
	w := m.running[id]
	if w != nil {
		select {
		case w.again <- struct{}{}:
		default:
		}
	}
	m.mu.Unlock()
	if w == nil {
		m.work(id)
	}
}

// run does steps until the job is done or the node stops.
func (m *Manager) run(ctx context.Context, id string, w *worker) {
	defer m.wg.Done()
	defer w.cancel()
	for pause := retryMin; ; {
		select {
		case m.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		more, err := m.next(ctx, id)
		<-m.slots
		if err == nil && !more && m.finished(id, w) {
			return
		}
		if err == nil {
			pause = retryMin
			continue
		}
		next := pause
		var wait *waiting
		if errors.As(err, &wait) && wait.left > 0 {
			next = min(wait.left, retryMax)
		}
		t := m.clock.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-w.kick:
			pause = retryMin
		case <-t.C():
			pause = min(2*pause, retryMax)
		}
		t.Stop()
	}
}

// finished takes a worker out of service unless it was kicked meanwhile.
func (m *Manager) finished(id string, w *worker) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-w.kick:
		return false
	case <-w.again:
		return false
	default:
		delete(m.running, id)
		return true
	}
}

// errNoLease: another node may have the job by now.
var errNoLease = errors.New("this node has no lease for now")

// next does one step of a job; more: another one is left.
func (m *Manager) next(ctx context.Context, id string) (more bool, _ error) {
	rec, ok := m.model.FindDatastore(id)
	if !ok || rec.Job == nil || rec.Node != m.opt.Node {
		return false, nil
	}
	if m.ctl != nil && !m.ctl.Permitted() {
		return false, errNoLease
	}
	if passed, err := m.passOn(ctx, rec); passed || err != nil {
		return false, err
	}
	if err := m.former(rec); err != nil {
		return true, m.failed(rec, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	s := &step{m: m, rec: rec, job: *rec.Job}
	err := s.do(ctx)
	if ctx.Err() != nil && m.ctx.Err() != nil {
		return false, ctx.Err() // it goes on with the next start
	}
	if errors.Is(err, vsphere.ErrNotOurs) {
		m.log.Warn("a step of a datastore's job stops", "datastore", rec.Name, "job", rec.Job.Kind, "step", rec.Job.Step, "err", err)
		return true, err
	}
	if err != nil {
		return true, m.failed(rec, err)
	}
	return m.advance(ctx, rec, s)
}

// waiting is why a step is not over yet, which is no failure.
type waiting struct {
	why, hint string
	left      time.Duration // until it is worth another look; 0: that is not known
}

func (w *waiting) Error() string { return w.why }

// same tells whether a datastore still has the job and step of j, and this node does it.
func (m *Manager) same(d *model.Datastore, j *model.DatastoreJob) bool {
	return d.Node == m.opt.Node && d.Job != nil && d.Job.Kind == j.Kind && d.Job.Step == j.Step && d.Job.Started.Equal(j.Started)
}

// failed keeps why a step does not get on.
func (m *Manager) failed(rec model.Datastore, err error) error {
	var wait *waiting
	if errors.As(err, &wait) {
		_, uerr := m.model.UpdateDatastore(m.ctx, rec.ID, func(d *model.Datastore) error {
			if m.same(d, rec.Job) {
				d.Job.Error, d.Job.Hint, d.Job.CallMs = wait.why, wait.hint, 0
			}
			return nil
		})
		m.opt.Changed("datastore", rec.ID)
		return errors.Join(err, uerr)
	}
	var e *control.Error
	err = explain(objectOf(rec), err)
	_, uerr := m.model.UpdateDatastore(m.ctx, rec.ID, func(d *model.Datastore) error {
		if !m.same(d, rec.Job) {
			return nil // another job replaced it
		}
		d.Job.Tries++
		if !errors.Is(err, vsphere.ErrUnreachable) {
			d.Job.CallMs = 0 // else it may go on there
		}
		d.Job.Quiet = time.Time{} // what the vCenter did meanwhile is not known
		if d.Job.Error, d.Job.Hint = err.Error(), ""; errors.As(err, &e) {
			d.Job.Error, d.Job.Hint = e.Message, e.Hint
		}
		return nil
	})
	m.log.Warn("a datastore's job is tried again", "datastore", rec.Name, "job", rec.Job.Kind, "step", rec.Job.Step, "err", err)
	m.opt.Events.Tell(event.DatastoreFailed, objectOf(rec), "job", string(rec.Job.Kind), "step", string(rec.Job.Step), "reason", err.Error())
	m.opt.Changed("datastore", rec.ID)
	return errors.Join(err, uerr)
}

// stuckAfter is how many tries of a step fail before health tells it: some seconds.
const stuckAfter = 3

// Stuck are the datastores of this node whose job does not get on.
func (m *Manager) Stuck() (out []observe.DatastoreCheck) {
	for _, d := range m.model.Datastores(func(d model.Datastore) bool {
		return d.Node == m.opt.Node && d.Job != nil && d.Job.Tries >= stuckAfter && d.Job.Error != ""
	}) {
		out = append(out, observe.DatastoreCheck{Name: d.Name, RDM: d.RDM != nil, Job: string(d.Job.Kind), Step: d.Job.Step, Err: d.Job.Error, Hint: d.Job.Hint})
	}
	return out
}

// advance stores that a step is done, with what it found, and which one is next.
func (m *Manager) advance(ctx context.Context, rec model.Datastore, s *step) (more bool, _ error) {
	order := orders[rec.Job.Kind]
	i := slices.Index(order, rec.Job.Step)
	last := i == len(order)-1
	defer m.opt.Changed("datastore", rec.ID)
	if last && (rec.Job.Kind == model.JobRemove || rec.Job.Kind == model.JobUnmap) {
		m.log.Info("datastore removed", "datastore", rec.Name)
		m.opt.Events.Tell(event.DatastoreRemoved, objectOf(rec))
		err := m.model.DeleteDatastore(ctx, rec.ID)
		if err == nil {
			m.ended(rec)
		}
		return false, err
	}
	now, err := m.model.UpdateDatastore(ctx, rec.ID, func(d *model.Datastore) error {
		if d.Node != m.opt.Node {
			return errReplaced
		}
		d.VDisk, d.Volume = s.rec.VDisk, s.rec.Volume
		if !m.same(d, rec.Job) {
			return nil // another job replaced it
		}
		d.Size, d.Name, d.Snapshots, d.Marked, d.Warnings = s.rec.Size, s.rec.Name, s.rec.Snapshots, s.rec.Marked, s.rec.Warnings
		if last {
			d.Job, d.State = nil, model.StatePresent
			return nil
		}
		d.Job.Machines, d.Job.Failed, d.Job.CallMs, d.Job.From = s.job.Machines, s.job.Failed, 0, time.Time{}
		d.Job.Step, d.Job.Tries, d.Job.Error, d.Job.Hint, d.Job.Notes = order[i+1], 0, "", "", s.job.Notes
		return nil
	})
	if err == nil && now.Job == nil {
		m.ended(rec)
		m.remark(func(d model.Datastore) bool { return d.ID == rec.ID }) // what changed meanwhile
		m.log.Info("datastore's job done", "datastore", now.Name, "job", rec.Job.Kind, "took", m.clock.Now().Sub(rec.Job.Started).Round(time.Millisecond))
		m.opt.Events.Tell(event.DatastoreDone, objectOf(now), "job", string(rec.Job.Kind), "took", m.clock.Now().Sub(rec.Job.Started).Round(time.Second).String())
	}
	return now.Job != nil, err
}

// Task is what is told of the job of a datastore, which it has.
func (m *Manager) Task(d model.Datastore) task.Task {
	j, order := d.Job, orders[d.Job.Kind]
	t := task.Task{
		ID: "datastore-" + d.ID[:min(len(d.ID), 13)], Kind: task.Datastore, Object: objectOf(d), What: string(j.Kind) + ": " + j.Step, State: task.Running,
		Done: int64(max(0, slices.Index(order, j.Step))), Total: int64(len(order)), Unit: "steps", Started: j.Started.UTC(), Error: j.Error, Hint: j.Hint,
	}
	if j.Error != "" {
		t.State = task.Waiting // it is tried again
	}
	return t
}

// ended tells that the job of a datastore is done.
func (m *Manager) ended(d model.Datastore) {
	if m.opt.Tasks == nil {
		return
	}
	t := m.Task(d)
	t.ID, t.What, t.State, t.Done, t.Error, t.Hint = task.NewID(task.Datastore), string(d.Job.Kind), task.Running, t.Total, "", ""
	m.opt.Tasks.Begin(t, nil, nil).End(task.Done, "", "")
}

// step is a step of a job with what it works on.
type step struct {
	m      *Manager
	rec    model.Datastore // as the step leaves it
	job    model.DatastoreJob
	center model.Center
	v      *vsphere.Center
	hosts  []*vsphere.Host // of the cluster
	naa    string
	held   held
}

// do carries a step out.
func (s *step) do(ctx context.Context) error {
	if _, err := s.permit(ctx, 0); err != nil {
		return err
	}
	var ok bool
	if s.center, ok = s.m.model.FindCenter(s.rec.Center); !ok {
		return fmt.Errorf("its vCenter: %w", model.ErrNotFound)
	}
	if s.rec.VDisk == "" {
		s.rec.VDisk = s.m.ownVDisk(s.rec) // of a try that was cut off
	}
	if s.rec.VDisk != "" {
		var err error
		if s.naa, err = control.NAA(s.rec.VDisk); err != nil {
			return err
		}
	}
	switch s.job.Step { // without the vCenter
	case stepVDisk:
		return s.makeVDisk(ctx)
	case stepTarget:
		return s.publish(ctx)
	case stepGrow:
		return s.grow(ctx)
	case stepUnmap:
		return s.unmap(ctx)
	case stepDelete:
		return s.deleteVDisk(ctx)
	case stepPoint:
		return s.point(ctx)
	}
	var err error
	if s.v, err = s.m.connectWith(ctx, s.center, s.permit); err != nil {
		return err
	}
	defer s.v.Close()
	switch s.job.Step { // whatever the hosts are
	case stepQuiesce:
		return s.quiesce(ctx)
	case stepRelease:
		return s.release(ctx)
	case stepUnmapVM:
		return s.takeRDM(ctx)
	case stepMark:
		return s.mark(ctx)
	}
	if s.hosts, err = s.v.Hosts(ctx, s.rec.Cluster); err != nil {
		return err
	}
	switch s.job.Step {
	case stepHosts:
		return s.prepare(ctx)
	case stepFormat:
		return s.format(ctx)
	case stepSign:
		return s.resignature(ctx)
	case stepMount:
		return s.mount(ctx)
	case stepMap:
		return s.mapRDM(ctx)
	case stepRescan:
		return s.rescan(ctx)
	case stepExpand:
		return s.expand(ctx)
	case stepVerify:
		return s.verify(ctx)
	case stepRename:
		return s.rename(ctx)
	case stepDestroy:
		return s.destroy(ctx)
	case stepDetach:
		return s.detach(ctx)
	case stepForget:
		return s.forget(ctx)
	}
	return fmt.Errorf("step %q: %w", s.job.Step, model.ErrNotFound)
}

// ready returns the hosts that can be worked on, and notes the others.
func (s *step) ready() ([]*vsphere.Host, error) {
	ready := usable(s.hosts)
	if len(ready) == 0 {
		return nil, fmt.Errorf("no host of cluster %s can be worked on: %s: %w", s.rec.ClusterName, away(s.hosts), vsphere.ErrHostAway)
	}
	if text := away(s.hosts); text != "" {
		s.note("left out: " + text)
	}
	return ready, nil
}

// maxNotes bounds what a job keeps.
const maxNotes = 64

func (s *step) note(text string) {
	if !slices.Contains(s.job.Notes, text) && len(s.job.Notes) < maxNotes {
		s.job.Notes = append(s.job.Notes, text)
	}
}
