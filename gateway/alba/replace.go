package alba

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/alba/manager"
)

// Replace claims a new device in the place of an old one, and begins to empty the old
// one. Doing it again goes on with what was begun. Refused, with nothing changed, when
// the new one is in use or has not the room, or when the devices that are left with it
// keep acknowledged data less safe than a preset wants.
func (s *Service) Replace(ctx context.Context, old uint32, c Claim) (OSD, error) {
	if err := c.check(); err != nil {
		return OSD{}, err
	}
	r, err := s.open(ctx)
	if err != nil {
		return OSD{}, err
	}
	s.replaceMu.Lock()
	defer s.replaceMu.Unlock()
	all, err := s.OSDs(ctx)
	if err != nil {
		return OSD{}, err
	}
	var was, now *OSD
	for i, o := range all {
		switch {
		case o.Number == old:
			was = &all[i]
		case o.Replaces == old && o.State != manager.Claiming && !c.is(o.OSD, s.o.Node):
			return OSD{}, fmt.Errorf("device %d: %w: device %d replaces it already", old, manager.ErrInUse, o.Number)
		}
		if c.is(o.OSD, s.o.Node) && o.State != manager.Claiming {
			now = &all[i]
		}
	}
	switch {
	case now != nil && now.Replaces != old:
		return OSD{}, fmt.Errorf("%s: %w: it is device %d, %s: name another one", c.Directory+c.Address, manager.ErrInUse, now.Number, now.State)
	case now != nil && (was == nil || was.State != manager.InUse): // it was done
		return *now, nil
	case was == nil:
		return OSD{}, fmt.Errorf("device %d: %w", old, manager.ErrNotFound)
	case was.State != manager.InUse && was.State != manager.Decommissioning:
		return OSD{}, fmt.Errorf("device %d: %w: it is %s; only a device in use is replaced", old, manager.ErrState, was.State)
	}
	if now == nil {
		if err := s.canReplace(ctx, r, *was, all, c); err != nil {
			return OSD{}, err
		}
		c.replaces = old
		o, err := s.Claim(ctx, c)
		if err != nil {
			return OSD{}, err
		}
		if o.Replaces != old { // a claim without that was begun before
			if _, err := r.manager.Update(ctx, o.Number, func(m *manager.OSD) error { m.Replaces = old; return nil }); err != nil {
				return OSD{}, err
			}
		}
		now = &o
	}
	if was.State == manager.InUse {
		if _, err := s.Decommission(ctx, old); err != nil {
			return OSD{}, err
		}
	}
	return s.OSD(ctx, now.Number)
}

// is tells whether a device is the one that a claim names.
func (c Claim) is(o manager.OSD, node string) bool {
	if c.Address != "" {
		return o.Kind == kindASD && o.Address == c.Address
	}
	return o.Kind == kindLocal && o.Node == node && o.Directory == filepath.Clean(c.Directory)
}

// canReplace refuses a device that could not take the place of another.
func (s *Service) canReplace(ctx context.Context, r *running, was OSD, all []OSD, c Claim) error {
	node, domain, err := s.machine(cmp.Or(c.Node, c.Address), c.Domain)
	if c.Directory != "" {
		node, domain, err = s.o.Node, s.o.Domain, nil
	}
	if err != nil {
		return err
	}
	if err := s.canSpare(ctx, r, was.Number, manager.OSD{Node: node, Domain: domain, State: manager.InUse}); err != nil {
		return err
	}
	free, err := s.room(ctx, c)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Number != was.Number && o.Takes() {
			free += o.Seen.Free
		}
	}
	if was.Seen.Used > free {
		return fmt.Errorf("device %d: %w: it holds %d bytes, the others and the new one have room for %d: use a larger one", was.Number, manager.ErrUnsafe, was.Seen.Used, free)
	}
	return nil
}

// room is how many bytes a device that is not claimed yet can take.
func (s *Service) room(ctx context.Context, c Claim) (free int64, err error) {
	if c.Address != "" {
		dev, err := s.dial(c.Address, c.Fingerprint, c.AccessKey, "")
		if err != nil {
			return 0, fmt.Errorf("%w: %w", manager.ErrInvalid, err)
		}
		info, err := dev.Info(ctx)
		if err != nil {
			err = fmt.Errorf("ASD %s: %w", c.Address, err)
		}
		return info.Free, errors.Join(err, dev.Close())
	}
	var st unix.Statfs_t
	for dir := filepath.Clean(c.Directory); ; dir = filepath.Dir(dir) { // it may be made by the claim
		err := unix.Statfs(dir, &st)
		if errors.Is(err, unix.ENOENT) && dir != "/" {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("%w: directory %s: %w", manager.ErrInvalid, c.Directory, err)
		}
		break
	}
	if free = int64(st.Bavail) * st.Bsize; c.Capacity > 0 {
		free = min(free, c.Capacity)
	}
	return free, nil
}
