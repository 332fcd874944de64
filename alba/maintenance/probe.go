package maintenance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/osd"
)

// Probe looks at every device once: asks what it is, writes and reads a key, and
// records what it saw. Silence beyond the auto-repair time has it rebuilt (T3).
func (a *Agent) Probe(ctx context.Context) error {
	osds, err := a.m.OSDs(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(osds))
	for i, o := range osds {
		if o.State == manager.InUse || o.State == manager.Decommissioning {
			wg.Go(func() { errs[i] = a.probe(ctx, o) })
		}
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (a *Agent) probe(ctx context.Context, o manager.OSD) error {
	info, err := a.ask(ctx, o)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	now := a.o.Clock.Now()
	turned := false // it works and did not, or the other way round
	seen, serr := a.m.SetSeen(ctx, o.Number, func(s *manager.Seen) {
		turned = (s.Error == "") != (err == nil)
		s.At, s.Error = now, ""
		if err != nil {
			s.Error = err.Error()
			return
		}
		if why := changed(*s, info); why != "" {
			s.Reconcile = why
			s.Suspect = s.Suspect || info.Applies < s.Applies
		}
		if !o.RebuildFrom.IsZero() {
			s.Suspect = true
			if s.Reconcile == "" {
				s.Reconcile = "it came back after its fragments were made anew elsewhere"
			}
		}
		s.Run, s.Applies, s.Good = info.Run, info.Applies, now
		s.Total, s.Used, s.Free, s.Full = info.Total, info.Used, info.Free, info.Full
	})
	if serr != nil {
		return serr
	}
	if turned {
		a.soon() // safety is another
	}
	if err == nil || a.o.AutoRepair < 0 || !o.RebuildFrom.IsZero() || now.Sub(seen.Good) < a.o.AutoRepair {
		return nil
	}
	if err := a.m.Rebuild(ctx, o.Number); err != nil {
		return err
	}
	a.event("osd.failed", o.Number, slog.LevelError, fmt.Sprintf("device %d of node %s has not worked for %v (%s): its fragments are made anew elsewhere", o.Number, a.o.NodeName(o.Node), a.o.AutoRepair, seen.Error))
	a.soon()
	return a.c.Refresh(ctx)
}

// changed tells in words why a device has to be compared with the manifests (T4).
func changed(s manager.Seen, now osd.Info) string {
	switch {
	case s.Run == "" || s.Run == now.Run && s.Applies <= now.Applies:
		return ""
	case now.Applies < s.Applies:
		return fmt.Sprintf("it is an older copy of itself: %d transactions, it had %d", now.Applies, s.Applies)
	}
	return "it was restarted"
}

// ask makes sure that a device works and is ours.
func (a *Agent) ask(ctx context.Context, o manager.OSD) (osd.Info, error) {
	dev := a.c.Device(o.Number)
	if dev == nil {
		if err := a.c.NotUsed(o.Number); err != nil {
			return osd.Info{}, fmt.Errorf("device %d cannot be opened: %w", o.Number, err)
		}
		return osd.Info{}, fmt.Errorf("device %d cannot be opened", o.Number)
	}
	ctx, cancel := a.call(ctx)
	defer cancel()
	info, err := a.identify(ctx, o, dev)
	if err != nil {
		return info, err
	}
	return info, client.Trial(ctx, dev)
}

// identify makes sure that a device is ours, and the one that it should be.
func (a *Agent) identify(ctx context.Context, o manager.OSD, dev osd.OSD) (osd.Info, error) {
	info, err := dev.Info(ctx)
	if err != nil {
		return info, err
	}
	if info.ID != o.UUID {
		return info, fmt.Errorf("%w: %s answers instead of %s: correct its address", osd.ErrIdentity, info.ID, o.UUID)
	}
	v, err := dev.Get(ctx, [][]byte{layout.InstanceKey()}, osd.MaxAssertBytes, osd.High)
	if err != nil {
		return info, err
	}
	if v[0].Data == nil {
		return info, errors.New("the device does not know that it belongs to this cluster: it was formatted")
	}
	inst, err := layout.DecodeInstance(v[0].Data)
	if err != nil {
		return info, err
	}
	if inst.Cluster != a.m.Cluster() || inst.OSD != o.Number {
		return info, fmt.Errorf("%w: device %d of cluster %s", manager.ErrForeign, inst.OSD, inst.Cluster)
	}
	return info, nil
}
