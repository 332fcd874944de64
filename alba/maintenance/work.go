package maintenance

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
)

// workPage bounds what is read at once.
const workPage = 200

// workKey is a report of an object.
type workKey struct {
	namespace uint64
	name      string
	revision  int64
}

// leftWork is one that could not be done.
type leftWork struct {
	wait time.Duration
	next time.Time // when it is tried again
}

// leftKept bounds the reports of which is remembered when they are tried again.
const leftKept = 10000

// due tells whether it is time to repair an object.
func (a *Agent) due(k workKey) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.o.Clock.Now().Before(a.left[k].next)
}

// tried remembers how a repair ended. One that did not is tried with the next round, then
// after growing times up to that of a survey: looking at all of an object costs as much as
// reading it.
func (a *Agent) tried(k workKey, done bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l, known := a.left[k]
	switch {
	case done:
		delete(a.left, k)
		return
	case known:
		l.wait = min(max(2*l.wait, a.o.Work), a.o.Survey)
		l.next = a.o.Clock.Now().Add(l.wait)
	case len(a.left) >= leftKept:
		clear(a.left)
	}
	a.left[k] = l
}

// Work repairs the objects that were reported, once each, but for those that are to be
// left alone for a while.
func (a *Agent) Work(ctx context.Context) error {
	_, err := a.work(ctx)
	return err
}

// work is Work, and tells whether fragments were made anew.
func (a *Agent) work(ctx context.Context) (did bool, _ error) {
	err := a.hosts(ctx, func(h *nsm.Host) error {
		crew := a.newCrew(ctx)
		err := a.workOf(ctx, h, crew)
		moved, failed := crew.wait()
		did = did || moved > 0
		return cmp.Or(failed, err)
	})
	return did, err
}

// workOf has the objects that a host knows of repaired.
func (a *Agent) workOf(ctx context.Context, h *nsm.Host, crew *crew) error {
	var spaces map[uint64]manager.Namespace
	var last *nsm.Work
	for {
		page, more, err := h.ListWork(ctx, last, workPage)
		if err != nil || len(page) == 0 {
			return err
		}
		if spaces == nil {
			if spaces, err = a.spaces(ctx); err != nil {
				return err
			}
		}
		for i := range page {
			w := page[i]
			last = &w
			n, ok := spaces[w.Namespace]
			k := workKey{w.Namespace, w.Name, w.Revision}
			if !ok || n.State == nsm.Removing || !a.due(k) {
				continue
			}
			err := crew.do(0, func(ctx context.Context) (int64, error) {
				bytes, done, err := a.workOn(ctx, h, n, w)
				if err == nil {
					a.tried(k, done)
				}
				return bytes, err
			})
			if err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// workOn repairs one object, and tells whether that is done; its record stays while the
// object is not complete.
func (a *Agent) workOn(ctx context.Context, h *nsm.Host, n manager.Namespace, w nsm.Work) (int64, bool, error) {
	did, err := a.c.Repair(ctx, n.Name, w.Name, client.RepairOptions{Check: true})
	switch {
	case ctx.Err() != nil:
		return 0, false, ctx.Err()
	case err != nil:
		a.log.Info("object is not repaired yet", "namespace", n.Name, "object", w.Name, "error", err)
		return did.Bytes, false, nil
	case did.Lost > 0:
		if a.tellLost(n.Name + "/" + w.Name) {
			a.event("store.object_lost", 0, slog.LevelError, fmt.Sprintf("object %s of namespace %s cannot be read: too few of its fragments are left", w.Name, n.Name))
		}
		return did.Bytes, false, nil
	case did.Gone, did.Complete():
		// Unless it was reported anew since the object was looked at.
		return did.Bytes, true, h.Done(ctx, w)
	}
	return did.Bytes, false, nil
}

// lostTold bounds the objects of which is remembered that their loss was told.
const lostTold = 10000

// tellLost tells whether the loss of an object is news.
func (a *Agent) tellLost(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lost[name] {
		return false
	}
	if len(a.lost) >= lostTold {
		clear(a.lost)
	}
	a.lost[name] = true
	return true
}
