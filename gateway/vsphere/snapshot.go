package vsphere

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	// quiesceMost is how long after its begin a job still makes the vDisk's snapshot, if it was
	// not told: virtual machines work on with snapshots of theirs until then.
	quiesceMost = 10 * time.Minute
	// withinMin and withinMax bound what it may be told.
	withinMin = 10 * time.Second
	withinMax = time.Hour
	// lookAgain is how long snapshots are looked for that a vCenter may make still although no
	// task of it tells so: it forgets tasks when it restarts, and its host goes on.
	lookAgain = 5 * time.Minute
	// machinesAtOnce bounds virtual machines that are quiesced at once: each stands still for
	// a moment, and its host writes.
	machinesAtOnce = 8
	// maxMachines bounds virtual machines of a snapshot.
	maxMachines = 256
	// jobLabel marks the vDisk's snapshot with the begin of its job.
	jobLabel = "vsphere-job"
	// maxProblem bounds what is kept of why a virtual machine is not quiesced, in bytes.
	maxProblem = 300
	// maxStores bounds datastores of one snapshot.
	maxStores = 32
	// maxTold bounds virtual machines that an error names.
	maxTold = 3
)

// NewSnapshot is what a snapshot of datastores is made from.
type NewSnapshot struct {
	Name string
	// With are other datastores, by name or id, whose vDisks have it at the same moment.
	With []string
	// Require: without a virtual machine that is quiesced there is none.
	Require bool
	// Within is how long it is made at most; 0: ten minutes.
	Within time.Duration
}

// SnapshotDatastore makes a snapshot of a datastore's vDisk, and of those of others, before
// which the guests of the virtual machines write out what they hold. Virtual machines for
// which that fails are told of.
func (m *Manager) SnapshotDatastore(ctx context.Context, ref string, in NewSnapshot) (model.Datastore, error) {
	rec, err := m.FindDatastore(ref)
	if err != nil {
		return rec, err
	}
	object := datastoreObject(rec.Name)
	if volume.CheckSnapshot(volume.SnapshotSpec{Name: in.Name}) != nil {
		return rec, invalid("name", object, "use 1 to 255 bytes of UTF-8 without control characters", "%q is not a name of a snapshot", clip(in.Name))
	}
	if in.Within != 0 && (in.Within < withinMin || in.Within > withinMax) {
		return rec, invalid("within", object, fmt.Sprintf("use %d to %d", int(withinMin.Seconds()), int(withinMax.Seconds())), "a snapshot cannot be made within %d seconds", int(in.Within.Seconds()))
	}
	if n := 1 + len(in.With); n > maxStores {
		return rec, invalid("with", object, fmt.Sprintf("name up to %d", maxStores-1), "a snapshot of %d datastores at one moment is not possible", n)
	}
	all, job := []model.Datastore{rec}, model.DatastoreJob{Kind: model.JobQuiesce, Step: stepQuiesce, Name: in.Name, Require: in.Require, WithinMs: in.Within.Milliseconds()}
	for _, ref := range in.With {
		other, err := m.FindDatastore(ref)
		if err != nil {
			return rec, err
		}
		switch {
		case slices.ContainsFunc(all, func(d model.Datastore) bool { return d.ID == other.ID }):
			return rec, invalid("with", object, "name each once", "datastore %s is named twice", other.Name)
		case other.Center != rec.Center:
			return rec, invalid("with", object, "make a snapshot of each", "datastore %s is another vCenter's", other.Name)
		}
		all, job.With = append(all, other), append(job.With, other.ID)
	}
	if err := m.Here(rec); err != nil {
		return rec, err
	}
	ctx, done := m.begin(ctx)
	defer done()
	for _, d := range all {
		if err := m.snapshotable(ctx, d, in.Name); err != nil {
			return rec, err
		}
	}
	return m.give(ctx, rec.ID, job, idle)
}

// snapshotable refuses a datastore that is not there, or has a snapshot of the name or a job.
func (m *Manager) snapshotable(ctx context.Context, d model.Datastore, name string) error {
	object := datastoreObject(d.Name)
	if d.State != model.StatePresent || d.VDisk == "" {
		return &control.Error{Code: control.CodeInUse, Object: object, Message: "it is " + string(d.State), Hint: "wait until it is present: ovgate vsphere datastore show " + d.Name}
	}
	if err := idle(&d); err != nil {
		return err
	}
	have, err := m.ctl.Snapshots(ctx, d.VDisk)
	if err != nil {
		return explain(object, err)
	}
	if slices.ContainsFunc(have, func(s volume.Snapshot) bool { return s.Name == name }) {
		return &control.Error{Code: control.CodeExists, Field: "name", Object: object, Message: "its vDisk has a snapshot " + clip(name), Hint: "choose another name, or delete that one"}
	}
	return nil
}

// stores are the datastores of the job, its own first. It fails the job if one is gone.
func (s *step) stores() (all []model.Datastore, ok bool) {
	all = append(all, s.rec)
	for _, id := range s.job.With {
		d, ok := s.m.model.FindDatastore(id)
		if !ok || d.State != model.StatePresent || d.VDisk == "" {
			s.job.Failed = fmt.Sprintf("datastore %s, which is to be in it, is being removed", cmp.Or(d.Name, id))
			return nil, false
		}
		all = append(all, d)
	}
	return all, true
}

// machineSnapshot is what the snapshots of virtual machines of a job are called.
func (s *step) machineSnapshot() string { return "ovgate-" + s.began() }

func (s *step) began() string { return strconv.FormatInt(s.job.Started.UnixMicro(), 10) }

// within is how long after its begin the job makes the vDisk's snapshot.
func (s *step) within() time.Duration {
	return cmp.Or(time.Duration(s.job.WithinMs)*time.Millisecond, quiesceMost)
}

// late tells whether it is too late for the vDisk's snapshot, and keeps that.
func (s *step) late(why error) bool {
	if s.m.clock.Now().Before(s.job.Started.Add(s.within())) {
		return false
	}
	s.job.Failed = fmt.Sprintf("it was not made within %v", s.within())
	if why != nil {
		s.job.Failed += ": " + problem(why)
	}
	return true
}

func problem(err error) string {
	text := err.Error()
	return text[:min(len(text), maxProblem)]
}

// transient tells of an error that is the vCenter's, not a virtual machine's, or that goes.
func transient(err error) bool {
	for _, is := range []error{vsphere.ErrUnreachable, vsphere.ErrCredentials, vsphere.ErrUnknown, vsphere.ErrBusy, context.Canceled} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// some are the first of errors, and how many there are.
func some(errs []error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	if n := len(errs) - maxTold; n > 0 {
		return fmt.Errorf("%w; and %d more", join(errs[:maxTold]), n)
	}
	return join(errs)
}

// join is errors.Join on one line; nil: there are none.
func join(errs []error) error {
	var all error
	for _, err := range errs {
		if all == nil {
			all = err
		} else {
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}

// errReplaced: the datastore has another job by now.
var errReplaced = errors.New("another job replaced it")

// keep stores what the step found of the virtual machines before it is over.
func (s *step) keep(ctx context.Context) error {
	_, err := s.m.model.UpdateDatastore(ctx, s.rec.ID, func(d *model.Datastore) error {
		if !s.m.same(d, &s.job) {
			return errReplaced
		}
		d.Job.Machines, d.Job.Quiet = slices.Clone(s.job.Machines), s.job.Quiet
		return nil
	})
	return err
}

// eachMachine runs fn for every virtual machine of the job, machinesAtOnce at a time.
func (s *step) eachMachine(fn func(i int) error) []error {
	errs := make([]error, len(s.job.Machines))
	var wg sync.WaitGroup
	slots := make(chan struct{}, machinesAtOnce)
	for i := range errs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = fn(i)
		})
	}
	wg.Wait()
	return errs
}

// quiesce has the guests of the virtual machines that are on write out what they hold, and
// keeps them so by a snapshot of each.
func (s *step) quiesce(ctx context.Context) error {
	if s.late(nil) {
		return nil
	}
	machines, err := s.machines(ctx)
	if err != nil {
		return s.orLate(err)
	}
	if s.job.Failed != "" {
		return nil
	}
	on := s.meet(machines)
	if err := s.settle(ctx, on); err != nil {
		return s.orLate(err)
	}
	ask := func(i int) bool { return on[i] != nil && s.job.Machines[i].Made == 0 }
	for i := range s.job.Machines {
		if ask(i) {
			s.job.Machines[i].Asked++
		}
	}
	if err := s.keep(ctx); err != nil { // before they are asked, so that no crash forgets it
		return s.orLate(err)
	}
	until, cancel := context.WithTimeout(ctx, s.job.Started.Add(s.within()).Sub(s.m.clock.Now()))
	defer cancel()
	errs := s.eachMachine(func(i int) error {
		if !ask(i) {
			return nil
		}
		vm := &s.job.Machines[i]
		err := on[i].Quiesce(until, s.machineSnapshot(), "of ovgate, for snapshot "+s.job.Name+" of the datastore; it is removed by itself")
		if !errors.Is(err, vsphere.ErrUnknown) {
			vm.Asked--
		}
		if vm.Quiesced = err == nil; vm.Quiesced {
			vm.Made++
		} else if vm.Error = problem(err); transient(err) {
			return err
		}
		return nil
	})
	if err := some(errs); err != nil {
		return s.orLate(errors.Join(err, s.keep(ctx)))
	}
	for _, vm := range s.job.Machines {
		if !vm.Quiesced {
			s.note("not quiesced: " + vm.Error)
			if s.job.Require && s.job.Failed == "" {
				s.job.Failed = vm.Error
			}
		}
	}
	return nil
}

// machines asks for the virtual machines of the job's datastores, each once. It fails the job
// if there are too many.
func (s *step) machines(ctx context.Context) (all []*vsphere.Machine, _ error) {
	stores, ok := s.stores()
	if !ok {
		return nil, nil
	}
	seen := map[string]bool{}
	for _, x := range stores {
		naa, err := control.NAA(x.VDisk)
		if err != nil {
			return nil, err
		}
		d, err := s.v.FindDatastore(ctx, naa)
		if err != nil {
			return nil, err
		}
		d.VMs = slices.DeleteFunc(d.VMs, func(id string) bool { was := seen[id]; seen[id] = true; return was })
		if len(seen) > maxMachines {
			s.job.Failed = fmt.Sprintf("%d virtual machines or more are on it, and at most %d are quiesced for one snapshot: make one of the vDisk alone", len(seen), maxMachines)
			return nil, nil
		}
		some, err := d.Machines(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// meet makes the list of the job's virtual machines: those that are on the datastore, and
// those that were when it was tried before. It returns those that have to be quiesced, in the
// order of the list; the others are nil.
func (s *step) meet(machines []*vsphere.Machine) []*vsphere.Machine {
	known := map[string]model.SnapshotMachine{}
	for _, vm := range s.job.Machines {
		known[vm.ID] = vm
	}
	var list []model.SnapshotMachine
	var on []*vsphere.Machine
	for _, vm := range machines {
		x := known[vm.ID()]
		delete(known, vm.ID())
		x.ID, x.Name, x.Quiesced, x.Error = vm.ID(), vm.Name, !vm.On || x.Made > 0, ""
		list = append(list, x)
		if !vm.On {
			vm = nil
		}
		on = append(on, vm)
	}
	for _, vm := range s.job.Machines {
		if _, left := known[vm.ID]; left {
			vm.Quiesced, vm.Error = true, ""
			list, on = append(list, vm), append(on, nil)
		}
	}
	s.job.Machines = list
	return on
}

// settle finds out what came of the snapshots that virtual machines were asked for when it
// was tried before.
func (s *step) settle(ctx context.Context, on []*vsphere.Machine) error {
	return some(s.eachMachine(func(i int) error {
		vm := &s.job.Machines[i]
		if vm.Asked == 0 || on[i] == nil {
			return nil
		}
		if err := on[i].Busy(ctx); err != nil {
			return err
		}
		if err := on[i].Look(ctx); err != nil && !errors.Is(err, vsphere.ErrNotFound) {
			return err
		}
		if n := on[i].Snapshots(s.machineSnapshot()); n > 0 {
			vm.Asked, vm.Made, vm.Quiesced = max(vm.Asked-max(n-vm.Made, 0), 0), n, true
		}
		return nil
	}))
}

// orLate is an error, unless it is too late to try again.
func (s *step) orLate(err error) error {
	if err == nil || s.late(err) {
		return nil
	}
	return err
}

// point makes the snapshot of the vDisks, unless the job failed.
func (s *step) point(ctx context.Context) error {
	if s.job.Failed != "" || s.late(nil) {
		return nil
	}
	stores, ok := s.stores()
	if !ok {
		return nil
	}
	is := model.DatastoreSnapshot{Machines: s.job.Machines}
	spec := volume.SnapshotSpec{Name: s.job.Name, Consistent: is.Consistent(), Labels: map[string]string{jobLabel: s.began()}}
	var vdisks []string
	for _, d := range stores {
		vdisks = append(vdisks, d.VDisk)
	}
	var err error
	if len(vdisks) == 1 {
		_, err = s.m.ctl.CreateSnapshot(ctx, vdisks[0], spec)
	} else {
		_, err = s.m.ctl.SnapshotGroup(ctx, vdisks, spec)
	}
	if !errors.Is(err, volume.ErrExists) {
		return s.orLate(err)
	}
	mine := 0
	for _, id := range vdisks {
		have, lerr := s.m.ctl.Snapshots(ctx, id)
		if lerr != nil {
			return s.orLate(lerr)
		}
		if slices.ContainsFunc(have, func(x volume.Snapshot) bool { return x.Name == s.job.Name && x.Labels[jobLabel] == s.began() }) {
			mine++ // of a try that was cut off
		}
	}
	if mine < len(vdisks) {
		s.job.Failed = problem(err)
	}
	return nil
}

// release removes the snapshots of virtual machines, also of those that left the datastore
// meanwhile, and keeps how the job went. It is not over while the vCenter may make one still.
func (s *step) release(ctx context.Context) error {
	quiet := s.job.Quiet
	errs := s.eachMachine(func(i int) error {
		rec := &s.job.Machines[i]
		vm := s.v.Machine(rec.ID)
		vm.Name = rec.Name
		if rec.Asked > 0 {
			if err := vm.Busy(ctx); err != nil {
				return err
			}
		}
		n, err := vm.Release(ctx, s.machineSnapshot())
		if err == nil {
			rec.Asked, rec.Made = rec.Asked-min(max(n-rec.Made, 0), rec.Asked), 0
		}
		return err
	})
	err := some(errs)
	open := slices.IndexFunc(s.job.Machines, func(vm model.SnapshotMachine) bool { return vm.Asked > 0 })
	switch now := s.m.clock.Now().UTC(); {
	case err != nil:
	case open < 0:
		return s.went(ctx)
	case quiet.IsZero():
		s.job.Quiet = now
	case !now.Before(quiet.Add(lookAgain)):
		return s.went(ctx)
	}
	if kerr := s.keep(ctx); err != nil || kerr != nil {
		return errors.Join(err, kerr)
	}
	return &waiting{
		fmt.Sprintf("virtual machine %s: the vCenter has not told what came of a snapshot of it; it is looked for until %s", s.job.Machines[open].Name, s.job.Quiet.Add(lookAgain).Format(time.RFC3339)),
		"wait; snapshot " + s.machineSnapshot() + " is removed by itself when it comes", 0,
	}
}

// went keeps how the job went, with each of its datastores.
func (s *step) went(ctx context.Context) error {
	for i := range s.job.Machines {
		s.job.Machines[i].Asked, s.job.Machines[i].Made = 0, 0
	}
	went := model.DatastoreSnapshot{Name: s.job.Name, Time: s.job.Started, Failed: s.job.Failed, Machines: s.job.Machines}
	if len(s.job.With) > 0 {
		went.Group = append(went.Group, s.rec.Name)
	}
	for _, id := range s.job.With {
		if d, ok := s.m.model.FindDatastore(id); ok {
			went.Group = append(went.Group, d.Name)
		}
	}
	for _, id := range s.job.With {
		_, err := s.m.model.UpdateDatastore(ctx, id, func(d *model.Datastore) error { keepSnapshot(d, went); return nil })
		if err != nil && !errors.Is(err, model.ErrNotFound) {
			return err
		}
		s.m.opt.Changed("datastore", id)
	}
	keepSnapshot(&s.rec, went)
	if s.job.Failed != "" {
		s.m.log.Warn("a snapshot of a datastore was not made", "datastore", s.rec.Name, "snapshot", s.job.Name, "why", s.job.Failed)
		s.m.notify(s.rec, fmt.Sprintf("warning: snapshot %s was not made: %s", clip(s.job.Name), s.job.Failed))
	}
	return nil
}

// keepSnapshot keeps how a snapshot of a datastore went, once, and the newest only.
func keepSnapshot(d *model.Datastore, went model.DatastoreSnapshot) {
	if slices.ContainsFunc(d.Snapshots, func(x model.DatastoreSnapshot) bool { return x.Name == went.Name && x.Time.Equal(went.Time) }) {
		return
	}
	went.Machines, went.Group = slices.Clone(went.Machines), slices.Clone(went.Group)
	d.Snapshots = append(d.Snapshots, went)
	if n := len(d.Snapshots) - model.MaxDatastoreSnapshots; n > 0 {
		d.Snapshots = d.Snapshots[n:]
	}
}
