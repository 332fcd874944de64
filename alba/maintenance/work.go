package maintenance

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
)

// workPage bounds what is read at once.
const workPage = 200

// Work repairs the objects that were reported, once each.
func (a *Agent) Work(ctx context.Context) error {
	return a.hosts(ctx, func(h *nsm.Host) error {
		var spaces map[uint64]manager.Namespace
		var last *nsm.Work
		start, moved := a.o.Clock.Now(), int64(0)
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
				last = &page[i]
				n, ok := spaces[last.Namespace]
				if !ok || n.State == nsm.Removing {
					continue
				}
				bytes, err := a.workOn(ctx, h, n, *last)
				if err != nil {
					return err
				}
				moved += bytes
				if err := a.pace(ctx, start, moved); err != nil {
					return err
				}
			}
			if !more {
				return nil
			}
		}
	})
}

// workOn repairs one object; its record stays while the object is not complete.
func (a *Agent) workOn(ctx context.Context, h *nsm.Host, n manager.Namespace, w nsm.Work) (int64, error) {
	did, err := a.c.Repair(ctx, n.Name, w.Name, client.RepairOptions{Check: true})
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err != nil:
		// It is tried again with the next round.
		a.log.Info("object is not repaired yet", "namespace", n.Name, "object", w.Name, "error", err)
		return did.Bytes, nil
	case did.Lost > 0:
		if a.tellLost(n.Name + "/" + w.Name) {
			a.event(0, slog.LevelError, fmt.Sprintf("object %s of namespace %s cannot be read: too few of its fragments are left", w.Name, n.Name))
		}
		return did.Bytes, nil
	case did.Gone, did.Complete():
		// Unless it was reported anew since the object was looked at.
		return did.Bytes, h.Done(ctx, w)
	}
	return did.Bytes, nil
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
