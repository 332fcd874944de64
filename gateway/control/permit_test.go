package control

import (
	"errors"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// slow is a Volume whose requests a test ends.
type slow struct {
	instant
	reqs []*volume.Request
}

func (s *slow) Submit(r *volume.Request) { s.reqs = append(s.reqs, r) }

func (s *slow) end() {
	reqs := s.reqs
	s.reqs = nil
	for _, r := range reqs {
		r.Done.Complete(r)
	}
}

// TestPermit: while the node may not serve, nothing is passed on and nothing is answered;
// what waited goes on with the permit, is busy after a while, and gone when another node has
// the vDisk.
func TestPermit(t *testing.T) {
	clk := clock.NewManual(time.Now())
	p := newPermit(clk)
	grant := func(d time.Duration) { p.until.Store(int64(clk.Now().Add(d).Sub(p.base))) }
	v := &slow{}
	d := newDisk(v, nil, p)
	answers := make(waiter, 10)
	submit := func() {
		d.Submit(&iscsi.Op{Kind: iscsi.OpWrite, Done: answers, Length: 4096, Data: make([]byte, 4096)})
	}
	want := func(what string, passed, waiting int, errs ...error) {
		t.Helper()
		if len(v.reqs) != passed || int(p.waiters.Load()) != waiting || len(answers) != len(errs) {
			t.Fatalf("%s: %d passed on, %d wait, %d answers; want %d, %d, %d", what, len(v.reqs), p.waiters.Load(), len(answers), passed, waiting, len(errs))
		}
		for _, w := range errs {
			if err := <-answers; !errors.Is(err, w) && err != w {
				t.Fatalf("%s: %v, want %v", what, err, w)
			}
		}
	}
	submit()
	want("before the first permit", 0, 1)
	grant(5 * time.Second)
	d.goOn(clk.Now())
	want("with the permit", 1, 0)
	v.end()
	want("answered", 0, 0, nil)
	submit()
	clk.Advance(5 * time.Second)
	submit()
	v.end()
	want("the permit is over", 0, 2)
	d.goOn(clk.Now())
	want("and is not renewed", 0, 2)
	grant(time.Second)
	d.goOn(clk.Now())
	want("renewed", 1, 0, nil)
	v.end()
	want("renewed, answered", 0, 0, nil)
	submit()
	clk.Advance(time.Second)
	submit()
	v.end()
	clk.Advance(permitWait)
	d.goOn(clk.Now())
	want("too long", 0, 0, iscsi.ErrBusy, iscsi.ErrBusy)
	// In the middle of a move it waits for both.
	d.hold()
	submit()
	grant(time.Second)
	d.goOn(clk.Now())
	want("held", 0, 0)
	submit()
	d.resume(v, nil)
	want("moved", 2, 0)
	clk.Advance(time.Second)
	submit()
	v.end()
	want("over again", 0, 3)
	d.revoke()
	want("another node's", 0, 0, iscsi.ErrGone, iscsi.ErrGone, iscsi.ErrGone)
	grant(time.Hour)
	submit()
	d.goOn(clk.Now())
	want("for ever", 0, 0, iscsi.ErrGone)
}
