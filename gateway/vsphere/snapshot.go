package vsphere

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	// quiesceMost is how long after its begin a job still makes the vDisk's snapshot: virtual
	// machines work on with snapshots of theirs until then.
	quiesceMost = 10 * time.Minute
	// machinesAtOnce bounds virtual machines that are quiesced at once: each stands still for
	// a moment, and its host writes.
	machinesAtOnce = 8
	// maxMachines bounds virtual machines of a snapshot.
	maxMachines = 256
	// jobLabel marks the vDisk's snapshot with the begin of its job.
	jobLabel = "vsphere-job"
	// maxProblem bounds what is kept of why a virtual machine is not quiesced, in bytes.
	maxProblem = 300
)

// SnapshotDatastore makes a snapshot of a datastore's vDisk, before which the guests of its
// virtual machines write out what they hold. Virtual machines for which that fails are told
// of, or with require there is no snapshot then.
func (m *Manager) SnapshotDatastore(ctx context.Context, ref, name string, require bool) (model.Datastore, error) {
	rec, err := m.FindDatastore(ref)
	if err != nil {
		return rec, err
	}
	object := datastoreObject(rec.Name)
	if volume.CheckSnapshot(volume.SnapshotSpec{Name: name}) != nil {
		return rec, invalid("name", object, "use 1 to 255 bytes of UTF-8 without control characters", "%q is not a name of a snapshot", clip(name))
	}
	if rec.State != model.StatePresent || rec.VDisk == "" {
		return rec, &control.Error{Code: control.CodeInUse, Object: object, Message: "it is " + string(rec.State), Hint: "wait until it is present: ovgate vsphere datastore show " + rec.Name}
	}
	ctx, done := m.begin(ctx)
	defer done()
	have, err := m.ctl.Snapshots(ctx, rec.VDisk)
	if err != nil {
		return rec, explain(object, err)
	}
	for _, s := range have {
		if s.Name == name {
			return rec, &control.Error{Code: control.CodeExists, Field: "name", Object: object, Message: "its vDisk has a snapshot " + clip(name), Hint: "choose another name, or delete that one"}
		}
	}
	return m.give(ctx, rec.ID, model.DatastoreJob{Kind: model.JobQuiesce, Step: stepQuiesce, Name: name, Require: require}, idle)
}

// machineSnapshot is what the snapshots of virtual machines of a job are called.
func (s *step) machineSnapshot() string { return "ovgate-" + s.began() }

func (s *step) began() string { return strconv.FormatInt(s.job.Started.UnixMicro(), 10) }

// late tells whether it is too late for the vDisk's snapshot, and keeps that.
func (s *step) late(why error) bool {
	if s.m.clock.Now().Before(s.job.Started.Add(quiesceMost)) {
		return false
	}
	s.job.Failed = fmt.Sprintf("it was not made within %v", quiesceMost)
	if why != nil {
		s.job.Failed += ": " + problem(why)
	}
	return true
}

func problem(err error) string {
	text := err.Error()
	return text[:min(len(text), maxProblem)]
}

// transient tells of an error that is the vCenter's, not a virtual machine's.
func transient(err error) bool {
	return errors.Is(err, vsphere.ErrUnreachable) || errors.Is(err, vsphere.ErrCredentials) || errors.Is(err, context.Canceled)
}

// quiesce has the guests of the virtual machines that are on write out what they hold, and
// keeps them so by a snapshot of each.
func (s *step) quiesce(ctx context.Context) error {
	if s.late(nil) {
		return nil
	}
	d, err := s.v.FindDatastore(ctx, s.naa)
	if err != nil {
		return s.orLate(err)
	}
	if n := len(d.VMs); n > maxMachines {
		s.job.Failed = fmt.Sprintf("%d virtual machines are on it, and at most %d are quiesced for one snapshot: make one of the vDisk alone", n, maxMachines)
		return nil
	}
	machines, err := d.Machines(ctx)
	if err != nil {
		return s.orLate(err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.job.Started.Add(quiesceMost).Sub(s.m.clock.Now()))
	defer cancel()
	out, errs := make([]model.SnapshotMachine, len(machines)), make([]error, len(machines))
	var wg sync.WaitGroup
	slots := make(chan struct{}, machinesAtOnce)
	for i, vm := range machines {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out[i] = model.SnapshotMachine{ID: vm.ID(), Name: vm.Name, Quiesced: true}
			if !vm.On {
				return
			}
			if errs[i] = vm.Quiesce(ctx, s.machineSnapshot(), "of ovgate, for snapshot "+s.job.Name+" of the datastore; it is removed by itself"); errs[i] != nil {
				out[i].Quiesced, out[i].Error = false, problem(errs[i])
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if transient(err) {
			return s.orLate(err)
		}
	}
	s.job.Machines = out
	for _, vm := range out {
		if !vm.Quiesced {
			s.note("not quiesced: " + vm.Error)
			if s.job.Require && s.job.Failed == "" {
				s.job.Failed = vm.Error
			}
		}
	}
	return nil
}

// orLate is an error, unless it is too late to try again.
func (s *step) orLate(err error) error {
	if s.late(err) {
		return nil
	}
	return err
}

// point makes the vDisk's snapshot, unless the job failed.
func (s *step) point(ctx context.Context) error {
	if s.job.Failed != "" || s.late(nil) {
		return nil
	}
	is := model.DatastoreSnapshot{Machines: s.job.Machines}
	_, err := s.m.ctl.CreateSnapshot(ctx, s.rec.VDisk, volume.SnapshotSpec{
		Name: s.job.Name, Consistent: is.Consistent(), Labels: map[string]string{jobLabel: s.began()},
	})
	if errors.Is(err, volume.ErrExists) {
		have, lerr := s.m.ctl.Snapshots(ctx, s.rec.VDisk)
		if lerr != nil {
			return s.orLate(lerr)
		}
		for _, x := range have {
			if x.Name == s.job.Name && x.Labels[jobLabel] == s.began() {
				return nil // of a try that was cut off
			}
		}
		s.job.Failed = problem(err)
		return nil
	}
	if err != nil {
		return s.orLate(err)
	}
	return nil
}

// release removes the snapshots of virtual machines, also of those that left the datastore
// meanwhile, and keeps how the job went.
func (s *step) release(ctx context.Context) error {
	ids, seen := []string{}, map[string]bool{}
	add := func(id string) {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	for _, vm := range s.job.Machines {
		add(vm.ID)
	}
	d, err := s.v.FindDatastore(ctx, s.naa)
	switch {
	case err == nil:
		for _, id := range d.VMs { // a try that was cut off kept none in the record
			add(id)
		}
	case !errors.Is(err, vsphere.ErrNotFound):
		return err
	}
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	slots := make(chan struct{}, machinesAtOnce)
	for i, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = s.v.Machine(id).Release(ctx, s.machineSnapshot())
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.rec.Snapshots = append(s.rec.Snapshots, model.DatastoreSnapshot{Name: s.job.Name, Time: s.job.Started, Failed: s.job.Failed, Machines: s.job.Machines})
	if n := len(s.rec.Snapshots) - model.MaxDatastoreSnapshots; n > 0 {
		s.rec.Snapshots = s.rec.Snapshots[n:]
	}
	if s.job.Failed != "" {
		s.m.log.Warn("a snapshot of a datastore was not made", "datastore", s.rec.Name, "snapshot", s.job.Name, "why", s.job.Failed)
	}
	return nil
}
