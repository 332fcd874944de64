package vsphere

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
)

// ears keep what a vCenter was told, in order. While deaf it refuses.
type ears struct {
	mu    sync.Mutex
	heard []string
	deaf  bool
}

func (e *ears) before(c esxsim.Call) types.BaseMethodFault {
	p, ok := c.Body.(*types.PostEvent)
	if !ok {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.deaf {
		return &types.NoPermission{PrivilegeId: "Global.LogEvent"}
	}
	if u, ok := p.EventToPost.(*types.GeneralUserEvent); ok {
		e.heard = append(e.heard, u.Message)
	}
	return nil
}

func (e *ears) set(deaf bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deaf = deaf
}

func (e *ears) events() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard)
}

// listening is newLeft whose job is done, with what its vCenter hears.
func listening(t *testing.T) (*heardLeft, *ears) {
	t.Helper()
	e := &ears{}
	l := newLeft(t, 0)
	l.v.Before(e.before)
	l.ends()
	l.quiet()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = nil // of its snapshot, which was not made
	return &heardLeft{l, e}, e
}

type heardLeft struct {
	*left
	*ears
}

// told waits until the vCenter was told n events, and nothing waits.
func (l *heardLeft) told(n int) []string {
	l.t.Helper()
	var got []string
	l.until(fmt.Sprintf("told %d events", n), func() error {
		if got = l.events(); len(got) != n {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	l.quiet()
	if got = l.events(); len(got) != n {
		l.t.Fatalf("told %d events, not %d: %q", len(got), n, got)
	}
	return got
}

// quiet waits until nobody tells the vCenter anything.
func (l *left) quiet() {
	l.t.Helper()
	l.until("quiet", func() error {
		l.notices.mu.Lock()
		defer l.notices.mu.Unlock()
		if box := l.notices.queues[l.rec.Center]; box != nil && box.busy {
			return fmt.Errorf("%d wait", len(box.waiting))
		}
		return nil
	})
}

// TestNotices: a vCenter is told of a cause once when it begins and when it is over, not too
// often, and of many some at a time.
func TestNotices(t *testing.T) {
	l, ears := listening(t)
	job := observe.Cause{State: observe.Warning, Code: "datastore_job", Object: "datastore gold", Text: "Job expand does not get on", Hint: "look"}
	other := observe.Cause{State: observe.Bad, Code: "datastore_job", Object: "datastore tin", Text: "not ours"}
	look := func(times int, causes ...observe.Cause) {
		for range times {
			l.Causes(append(causes, other))
		}
	}
	look(1, job)
	look(1)
	look(1, job)
	l.told(0)
	look(5, job)
	if got := l.told(1)[0]; got != "ovgate, datastore gold: warning: Job expand does not get on; look" {
		t.Errorf("it is told %q", got)
	}
	look(noticeLooks)
	if got := l.told(2)[1]; !strings.Contains(got, "datastore gold: over: warning: Job expand") {
		t.Errorf("it is told %q", got)
	}
	for range 10 { // it comes and goes
		look(noticeLooks, job)
		look(noticeLooks)
	}
	l.told(2)
	l.clk.Advance(noticeAgain)
	look(noticeLooks, job)
	l.told(3)

	// Many at once: some now, the others when the first are old enough.
	l.clk.Advance(noticeSpan)
	causes := []observe.Cause{job}
	const more = 25
	for i := range more {
		causes = append(causes, observe.Cause{State: observe.Warning, Code: fmt.Sprintf("code%d", i), Object: "datastore gold", Text: "x"})
	}
	look(noticeLooks, causes...)
	l.until("some told", func() error {
		if n := len(l.events()); n != 3+noticesMost || l.clk.Waiting() == 0 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	l.clk.Advance(noticeSpan)
	l.told(3 + more)

	// A vCenter that refuses is not asked again for the same, and does not hold others up.
	l.clk.Advance(noticeSpan)
	ears.set(true)
	l.notify(l.rec, "refused")
	l.quiet()
	ears.set(false)
	l.notify(l.rec, "taken")
	if got := l.told(4 + more); !strings.Contains(got[3+more], "taken (1 earlier events are not told)") {
		t.Errorf("after a refusal it is told %q", got[3+more])
	}

	// Switched off.
	if _, err := l.model.UpdateCenter(t.Context(), l.rec.Center, func(c *model.Center) error { c.Spec.NoEvents = true; return nil }); err != nil {
		t.Fatal(err)
	}
	l.notify(l.rec, "off")
	look(noticeLooks)
	l.told(4 + more)
}

// TestNoticesAway: what a vCenter that is away was to be told waits, up to a bound.
func TestNoticesAway(t *testing.T) {
	l, _ := listening(t)
	l.clk.Advance(noticeSpan)
	l.v.Stop()
	for i := range noticeQueue + 10 {
		l.notify(l.rec, fmt.Sprintf("number %d", i))
	}
	l.until("tried", func() error {
		if l.clk.Waiting() == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if err := l.v.Resume(); err != nil {
		t.Fatal(err)
	}
	l.until("told", func() error {
		if n := len(l.events()); n != noticeQueue {
			if l.clk.Waiting() > 0 {
				l.clk.Advance(time.Minute)
			}
			return fmt.Errorf("%d events", n)
		}
		return nil
	})
	got := l.events()
	if !strings.Contains(got[0], "number 10") || !strings.Contains(strings.Join(got, " "), "earlier events are not told") || !strings.Contains(got[noticeQueue-1], fmt.Sprintf("number %d", noticeQueue+9)) {
		t.Errorf("told %q", got)
	}
}
