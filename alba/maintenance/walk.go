package maintenance

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
)

// keys goes through the keys of a device with a prefix, page by page.
func (a *Agent) keys(ctx context.Context, number uint32, prefix, after []byte, fn func(page []osd.Entry) error) error {
	for {
		dev := a.c.Device(number)
		if dev == nil {
			return fmt.Errorf("device %d is not open", number)
		}
		call, cancel := a.call(ctx)
		page, err := dev.List(call, prefix, after, 0, osd.Low)
		cancel()
		if err != nil {
			return fmt.Errorf("device %d: %w", number, err)
		}
		if len(page) == 0 {
			return nil
		}
		after = bytes.Clone(page[len(page)-1].Key)
		if err := fn(page); err != nil {
			return err
		}
	}
}

// namespaces calls fn for every namespace that is not being removed.
func (a *Agent) namespaces(ctx context.Context, fn func(n manager.Namespace, host *nsm.Host) error) error {
	const pageNames = 1000
	after := ""
	for {
		page, err := a.m.NamespacesAfter(ctx, "", after, pageNames)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, n := range page {
			after = n.Name
			if n.State == nsm.Removing {
				continue
			}
			host, err := a.m.Host(n.Host)
			if err != nil {
				return err
			}
			if err := fn(n, host); err != nil {
				return fmt.Errorf("namespace %s: %w", n.Name, err)
			}
		}
	}
}

// record returns the host's record of a namespace. One that is gone, or not made
// yet, is in state Removing or Creating; where nobody knows its objects, since its
// records are lost or being recovered, that is an error: manager.ErrLost,
// nsm.ErrRecovering (T5).
func (a *Agent) record(ctx context.Context, n manager.Namespace, host *nsm.Host) (nsm.Namespace, error) {
	rec, err := host.Namespace(ctx, n.ID)
	switch {
	case errors.Is(err, nsm.ErrNoNamespace) && n.State == manager.Creating:
		return nsm.Namespace{ID: n.ID, State: manager.Creating}, nil
	case errors.Is(err, nsm.ErrNoNamespace):
		now, err := a.m.Settle(ctx, n)
		if err == nil && now.ID == n.ID && now.State == nsm.Active {
			err = fmt.Errorf("namespace %s: %w", n.Name, nsm.ErrRecovering)
		}
		return nsm.Namespace{ID: n.ID, State: nsm.Removing}, err
	case err == nil && rec.State == nsm.Recovering:
		err = fmt.Errorf("namespace %s: %w", n.Name, nsm.ErrRecovering)
	}
	return rec, err
}

// unknown tells whether an error says that nobody knows a namespace's objects now.
func unknown(err error) bool {
	return errors.Is(err, manager.ErrLost) || errors.Is(err, nsm.ErrRecovering)
}

// objects calls fn for every manifest of a namespace. Objects that come or go
// meanwhile may be among them or not.
func (a *Agent) objects(ctx context.Context, host *nsm.Host, n manager.Namespace, fn func(m *layout.Manifest) error) error {
	after := ""
	for {
		page, more, err := host.List(ctx, n.ID, "", after, 0)
		if err != nil {
			return err
		}
		for _, m := range page {
			after = m.Name
			if err := fn(m); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
	}
}

// hosts calls fn for every NSM host.
func (a *Agent) hosts(ctx context.Context, fn func(h *nsm.Host) error) error {
	recs, err := a.m.Hosts(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range recs {
		h, err := a.m.Host(r.Name)
		if err == nil {
			err = fn(h)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("NSM host %s: %w", r.Name, err))
		}
	}
	return errors.Join(errs...)
}

// spaces returns the namespaces by number.
func (a *Agent) spaces(ctx context.Context) (map[uint64]manager.Namespace, error) {
	all, err := a.m.Namespaces(ctx)
	out := make(map[uint64]manager.Namespace, len(all))
	for _, n := range all {
		out[n.ID] = n
	}
	return out, err
}

// deleteBatch bounds the keys of one transaction of a device that deletes.
const deleteBatch = 512

// delete applies deletes to a device in batches.
func (a *Agent) delete(ctx context.Context, number uint32, updates []osd.Update) error {
	for len(updates) > 0 {
		dev := a.c.Device(number)
		if dev == nil {
			return fmt.Errorf("device %d is not open", number)
		}
		n := min(len(updates), deleteBatch)
		call, cancel := a.call(ctx)
		err := dev.Apply(call, nil, updates[:n], osd.Low)
		cancel()
		if err != nil {
			return fmt.Errorf("device %d: %w", number, err)
		}
		updates = updates[n:]
	}
	return nil
}
