package maintenance

import (
	"context"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
)

// removing is the value of a namespace's key on a device while its fragments are
// deleted: no upload's assertion holds any more.
var removing = []byte("removing")

// Removals ends the namespaces that were deleted: their fragments on the devices
// that answer, and their records. Other devices drop theirs when they come back
// (Sweep).
func (a *Agent) Removals(ctx context.Context) error {
	all, err := a.m.Namespaces(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range all {
		if n.State != nsm.Removing {
			continue
		}
		if err := a.removal(ctx, n); err != nil {
			errs = append(errs, fmt.Errorf("namespace %s: %w", n.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) removal(ctx context.Context, n manager.Namespace) error {
	host, err := a.m.Host(n.Host)
	if err != nil {
		return err
	}
	// The host may not know: it was made there, or the manager decided, just now.
	if err := host.BeginRemoval(ctx, n.ID, false); err != nil && !errors.Is(err, nsm.ErrNoNamespace) {
		return err
	}
	osds, err := a.m.OSDs(ctx)
	if err != nil {
		return err
	}
	for _, o := range osds {
		if a.c.Device(o.Number) == nil {
			continue
		}
		if err := a.empty(ctx, o.Number, n.ID); err != nil {
			a.log.Info("device drops a removed namespace later", "device", o.Number, "namespace", n.Name, "error", err)
		}
	}
	if err := host.Clear(ctx, n.ID); err != nil {
		return err
	}
	return a.m.FinishRemoval(ctx, n)
}

// empty deletes what a device has of a namespace: first nothing new can come (layout
// M3), then fragments and tags go, last the namespace's key.
func (a *Agent) empty(ctx context.Context, number uint32, ns uint64) error {
	dev := a.c.Device(number)
	if dev == nil {
		return fmt.Errorf("device %d is not open", number)
	}
	key := layout.NamespaceKey(ns)
	call, cancel := a.call(ctx)
	defer cancel()
	v, err := dev.Get(call, [][]byte{key}, osd.MaxAssertBytes, osd.Low)
	// A key that is damaged is there.
	if !errors.Is(err, osd.ErrCorrupt) && (err != nil || v[0].Data == nil) {
		return err
	}
	if err := dev.Apply(call, nil, []osd.Update{osd.Set(key, removing)}, osd.Low); err != nil {
		return err
	}
	for _, prefix := range [][]byte{layout.FragmentsPrefix(ns), layout.TagsPrefix(ns)} {
		if err := a.dropPrefix(ctx, number, prefix); err != nil {
			return err
		}
	}
	return a.delete(ctx, number, []osd.Update{osd.Delete(key)})
}

// dropPrefix deletes all keys of a device with a prefix.
func (a *Agent) dropPrefix(ctx context.Context, number uint32, prefix []byte) error {
	return a.keys(ctx, number, prefix, nil, func(page []osd.Entry) error {
		updates := make([]osd.Update, len(page))
		for i, e := range page {
			updates[i] = osd.Delete(e.Key)
		}
		return a.delete(ctx, number, updates)
	})
}

// Sweep drops from the devices what is left of namespaces that are no more. A
// number that this Alba never gave is not touched (T1).
func (a *Agent) Sweep(ctx context.Context) error {
	osds, err := a.m.OSDs(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range osds {
		if o.State == manager.Claiming || a.c.Device(o.Number) == nil {
			continue
		}
		err := a.keys(ctx, o.Number, layout.NamespacesPrefix(), nil, func(page []osd.Entry) error {
			// Read after the page: what is in it and not in this is no more.
			spaces, err := a.spaces(ctx)
			if err != nil {
				return err
			}
			for _, e := range page {
				if err := a.sweepSpace(ctx, o.Number, e.Key, spaces); err != nil {
					errs = append(errs, fmt.Errorf("device %d: %w", o.Number, err))
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
			return nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("device %d: %w", o.Number, err))
		}
	}
	return errors.Join(errs...)
}

func (a *Agent) sweepSpace(ctx context.Context, number uint32, key []byte, spaces map[uint64]manager.Namespace) error {
	id, err := layout.ParseNamespaceKey(key)
	if err != nil {
		return err
	}
	if _, known := spaces[id]; known {
		return nil
	}
	given, err := a.m.Given(ctx, id)
	if err != nil {
		return err
	}
	if !given {
		return fmt.Errorf("it has namespace %d, which this cluster never made: it stays", id)
	}
	return a.empty(ctx, number, id)
}

// wipe deletes everything that this Alba put on a device that leaves, its claim
// last.
func (a *Agent) wipe(ctx context.Context, number uint32) error {
	for _, prefix := range []string{"f", "g", "n", "q"} {
		if err := a.dropPrefix(ctx, number, []byte(prefix)); err != nil {
			return err
		}
	}
	return a.delete(ctx, number, []osd.Update{osd.Delete(layout.InstanceKey())})
}
