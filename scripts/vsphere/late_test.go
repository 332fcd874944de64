package vsphere

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// begun waits until the vCenter was asked for a snapshot that it holds.
func (l *lab) begun(h *esxsim.Held) {
	l.t.Helper()
	l.until("asked for a snapshot", func() error {
		select {
		case <-h.Begun:
			return nil
		default:
			return errors.New("not yet")
		}
	})
}

// attention wants health to tell of the datastore's job with words, or without any not to.
func (l *lab) attention(words ...string) {
	l.t.Helper()
	l.until(fmt.Sprintf("attention %q", words), func() error {
		s, err := client.Get[client.Status](l.api.GetStatus(l.t.Context()))
		if err != nil {
			return err
		}
		for _, c := range s.Health.Causes {
			if c.Code != "datastore_job" {
				continue
			}
			for _, w := range words {
				if !strings.Contains(c.Text, w) {
					return fmt.Errorf("it says %s", c.Text)
				}
			}
			if len(words) == 0 {
				return fmt.Errorf("it says %s", c.Text)
			}
			return nil
		}
		if len(words) > 0 {
			return errors.New("it does not tell of a job")
		}
		return nil
	})
}

// TestLate: a snapshot of a virtual machine that its vCenter finishes when nobody waits for it
// any more is found and removed. Until then the job is told with the virtual machine's name.
func TestLate(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	l.create("gold")
	l.settled("gold")
	l.createVM("web", "gold")
	l.createVM("db", "gold")
	_, db := l.admin("db")
	l.done(db.PowerOn(t.Context()))
	ask := func(name string, within int64) error {
		_, err := client.Get[client.Datastore](l.api.SnapshotDatastore(t.Context(), "gold", client.DatastoreSnapshotInput{Name: name, Within: &within}))
		return err
	}
	clean := func(when string) {
		t.Helper()
		if left := l.snapshots("web", "db"); len(left) != 0 {
			t.Errorf("%s: snapshots are left: %v", when, left)
		}
	}
	refused(t, ask("soon", 9), "invalid", "within", "10")

	// The node is killed while the task runs. It takes what that makes for its own.
	h := l.v.HoldSnapshot("db")
	l.asked(ask("killed", 3600))
	l.begun(h)
	if err := l.node.Kill(); err != nil {
		t.Fatal(err)
	}
	l.startNode()
	if j := l.failing("gold", "virtual machine db", "task", "cancel"); j.Step != "quiesce" {
		t.Errorf("its job is %+v", j)
	}
	if err := h.End(); err != nil {
		t.Fatal(err)
	}
	if s := l.went("killed"); !s.Consistent || l.has("killed") == nil {
		t.Errorf("killed it went %+v, the vDisk has %+v", s, l.has("killed"))
	}
	clean("killed in a task")

	// It is killed again, and the vCenter loses the task, whose host goes on: the job asks anew,
	// and removes both.
	h = l.v.HoldSnapshot("db")
	l.asked(ask("forgotten", 3600))
	l.begun(h)
	if err := l.node.Kill(); err != nil {
		t.Fatal(err)
	}
	h.Forget()
	second := l.v.HoldSnapshot("db")
	l.startNode()
	l.begun(second)
	for _, x := range []*esxsim.Held{h, second} {
		if err := x.End(); err != nil {
			t.Fatal(err)
		}
	}
	if s := l.went("forgotten"); !s.Consistent {
		t.Errorf("with a task that is forgotten it went %+v", s)
	}
	clean("with a task that is forgotten")

	// The task takes longer than the job has. The job waits for it.
	h = l.v.HoldSnapshot("db")
	if err := ask("slow", 10); err != nil {
		t.Fatal(err)
	}
	l.begun(h)
	if j := l.failing("gold", "virtual machine db", "task"); j.Step != "release" {
		t.Errorf("its job is %+v", j)
	}
	l.attention("gold", "virtual machine db")
	refused(t, ask("other", 3600), "in_use", "snapshot")
	if err := l.node.Kill(); err != nil {
		t.Fatal(err)
	}
	l.startNode()
	l.attention("gold", "virtual machine db")
	if err := h.End(); err != nil {
		t.Fatal(err)
	}
	if s := l.went("slow"); s.Consistent || !strings.Contains(s.Failed, "within 10s") || l.has("slow") != nil {
		t.Errorf("with a slow task it went %+v, the vDisk has %+v", s, l.has("slow"))
	}
	clean("after a slow task")
	l.attention()
}
