package vsphere

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
)

// TestPermit: how long a call may take is stored before it is sent, for the steps that need
// it; a record that another node or another job has gives no permit.
func TestPermit(t *testing.T) {
	l := newLeft(t, 0)
	l.ends()
	give := func(step string) *heldStep {
		t.Helper()
		rec, err := l.model.UpdateDatastore(t.Context(), l.rec.ID, func(d *model.Datastore) error {
			d.Node, d.Job = "n1", &model.DatastoreJob{Kind: model.JobRename, Step: step, Name: "tin", Started: l.clk.Now()}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return &heldStep{l, newStep(l.Manager, rec)}
	}
	for _, tc := range []struct {
		step string
		want time.Duration
	}{{stepFormat, 5 * time.Minute}, {stepRename, 5 * time.Minute}, {stepDetach, 5 * time.Minute}, {stepMount, 0}, {stepHosts, 0}, {stepQuiesce, 0}} {
		s := give(tc.step)
		for _, limit := range []time.Duration{0, time.Minute, 5 * time.Minute, time.Second} {
			if _, err := s.permit(t.Context(), limit); err != nil {
				t.Fatalf("%s: %v", tc.step, err)
			}
		}
		if got := time.Duration(l.job().CallMs) * time.Millisecond; got != tc.want {
			t.Errorf("%s: calls of up to %v are stored, want %v", tc.step, got, tc.want)
		}
	}
	for what, change := range map[string]func(*model.Datastore){
		"another node":   func(d *model.Datastore) { d.Node = "n2" },
		"another job":    func(d *model.Datastore) { d.Job.Kind = model.JobRemove },
		"another step":   func(d *model.Datastore) { d.Job.Step = stepMount },
		"another rename": func(d *model.Datastore) { d.Job.Started = d.Job.Started.Add(time.Second) },
		"no job":         func(d *model.Datastore) { d.Job = nil },
	} {
		s := give(stepRename)
		still, err := s.permit(t.Context(), time.Minute)
		if err != nil || still() != nil {
			t.Fatal(err)
		}
		if _, err := l.model.UpdateDatastore(t.Context(), l.rec.ID, func(d *model.Datastore) error { change(d); return nil }); err != nil {
			t.Fatal(err)
		}
		if err := still(); !errors.Is(err, vsphere.ErrNotOurs) {
			t.Errorf("%s: the call goes out: %v", what, err)
		}
		if _, err := newStep(l.Manager, s.step.rec).permit(t.Context(), time.Minute); !errors.Is(err, vsphere.ErrNotOurs) {
			t.Errorf("%s: there is a permit: %v", what, err)
		}
	}
}

// heldStep is a step of a test.
type heldStep struct {
	*left
	*step
}

func newStep(m *Manager, rec model.Datastore) *step { return &step{m: m, rec: rec, job: *rec.Job} }

// TestFormerCalls: who takes a job over asks the vCenter for nothing before the calls of the
// former node are over, also after a restart, and goes on then.
func TestFormerCalls(t *testing.T) {
	l := newLeft(t, 0)
	l.ends()
	l.quiet()
	var asked atomic.Int64
	l.v.Before(func(esxsim.Call) types.BaseMethodFault { asked.Add(1); return nil })
	const limit = 5 * time.Minute
	_, err := l.model.UpdateDatastore(t.Context(), l.rec.ID, func(d *model.Datastore) error {
		d.Node, d.Job = "n0", &model.DatastoreJob{Kind: model.JobQuiesce, Step: stepRelease, Name: "night", Started: l.clk.Now(), CallMs: limit.Milliseconds()}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l.clk.Advance(time.Hour) // the former node's clock, or how long it was gone, does not matter
	l.TakeOver(t.Context(), map[string]bool{"n0": true})
	l.looked("is over by")
	l.clk.Advance(limit - time.Second)
	l.looked("is over by")
	l.Stop()
	l.Manager = New(Options{Model: l.model, Sealer: l.opt.Sealer, Node: "n1", Clock: l.clk})
	t.Cleanup(l.Manager.Stop)
	l.Start()
	l.looked("is over by")
	if n := asked.Load(); n != 0 {
		t.Fatalf("the vCenter is asked %d times before", n)
	}
	if j := l.job(); j.Tries != 0 || !strings.Contains(j.Error, stepRelease) {
		t.Errorf("its job is %+v", j)
	}
	if passed := l.ends(); passed < time.Second || asked.Load() == 0 {
		t.Errorf("it ended after %v, having asked %d times", passed, asked.Load())
	}
}
