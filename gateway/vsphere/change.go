package vsphere

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

// grow grows the vDisk.
func (s *step) grow(ctx context.Context) error {
	v, ok := s.m.model.VDisk(s.rec.VDisk)
	if !ok {
		return fmt.Errorf("its vDisk: %w", model.ErrNotFound)
	}
	if v.Size < s.job.Size {
		if _, err := s.m.ctl.UpdateVDisk(ctx, v.ID, control.DiskPatch{Size: &s.job.Size}); err != nil {
			return err
		}
	}
	s.rec.Size = max(v.Size, s.job.Size)
	return nil
}

// connected returns the hosts that have the datastore, those first that reach it. One that
// has it and is not connected is an error: it cannot be told. Maintenance mode is no
// obstacle here.
func (s *step) connected(d *vsphere.Datastore) ([]*vsphere.Host, error) {
	var out, lost []*vsphere.Host
	for _, h := range s.hosts {
		mount, has := d.On(h)
		if !has {
			continue
		}
		if h.State != "connected" {
			return nil, &control.Error{
				Code: control.CodeBackend, Object: objectOf(s.rec), Message: fmt.Sprintf("host %s has it and is %s", h.Name, h.State),
				Hint: "bring the host back, or take it out of the vCenter's inventory", Err: vsphere.ErrHostAway,
			}
		}
		switch {
		case mount.Mounted && mount.Accessible:
			out = append(out, h)
		case mount.Mounted:
			lost = append(lost, h)
		}
	}
	if out = append(out, lost...); len(out) == 0 {
		return nil, fmt.Errorf("datastore %s is mounted on no host: %w", s.rec.Name, vsphere.ErrHostAway)
	}
	return out, nil
}

// onHosts finds the datastore, and the hosts that have it and are connected.
func (s *step) onHosts(ctx context.Context) (*vsphere.Datastore, []*vsphere.Host, error) {
	d, err := s.v.FindDatastore(ctx, s.naa)
	if err != nil {
		return nil, nil, err
	}
	hosts, err := s.connected(d)
	return d, hosts, err
}

// rescan has every host that has the datastore see the new size of its LUN.
func (s *step) rescan(ctx context.Context) error {
	_, hosts, err := s.onHosts(ctx)
	if err != nil {
		return err
	}
	adapters, err := s.m.storages(ctx, s.center.ID, s.v, hosts, vsphere.Adapters)
	if err != nil {
		return err
	}
	seen := map[string]*vsphere.Storage{}
	if s.again() { // most hosts may see it
		if seen, err = s.m.storages(ctx, s.center.ID, s.v, hosts, vsphere.Disks); err != nil {
			return err
		}
	}
	return each(ctx, hosts, func(ctx context.Context, _ int, h *vsphere.Host) error {
		if st := seen[h.ID()]; st != nil {
			if disk, err := st.Disk(s.naa); err == nil && !disk.Lost && disk.Size >= s.rec.Size {
				return nil
			}
		}
		if err := adapters[h.ID()].Err(); err != nil {
			return err
		}
		_, device := adapters[h.ID()].Initiator()
		st, err := s.m.rescanDisks(ctx, s.center.ID, h, device)
		if err != nil {
			return err
		}
		disk, err := st.Disk(s.naa)
		if err == nil && disk.Lost {
			return &control.Error{
				Code: control.CodeBackend, Object: objectOf(s.rec), Message: fmt.Sprintf("host %s has lost LUN %s: no path leads to it", h.Name, s.naa),
				Hint: "see that the host reaches " + strings.Join(s.portals(), ", "), Err: vsphere.ErrHostAway,
			}
		}
		if err == nil && disk.Size < s.rec.Size {
			err = fmt.Errorf("%s: LUN %s has %d bytes there, not %d: %w", h.Name, s.naa, disk.Size, s.rec.Size, vsphere.ErrRefused)
		}
		return err
	})
}

// expand grows the volume.
func (s *step) expand(ctx context.Context) error {
	d, hosts, err := s.onHosts(ctx)
	if err != nil {
		return err
	}
	return s.m.call(ctx, s.center.ID, func() error { return hosts[0].Expand(ctx, d) })
}

// verify has every host look at the volume, and sees that it grew.
func (s *step) verify(ctx context.Context) error {
	_, hosts, err := s.onHosts(ctx)
	if err != nil {
		return err
	}
	if err := s.volumes(ctx, hosts); err != nil {
		return err
	}
	d, err := s.v.FindDatastore(ctx, s.naa)
	if err != nil {
		return err
	}
	// VMFS keeps some of the disk for itself.
	const own = 64 << 20
	if d.Capacity < s.rec.Size-own-s.rec.Size/100 {
		return fmt.Errorf("datastore %s has %d bytes after it grew to %d: %w", s.rec.Name, d.Capacity, s.rec.Size, vsphere.ErrRefused)
	}
	return nil
}

// volumes has hosts look for datastores.
func (s *step) volumes(ctx context.Context, hosts []*vsphere.Host) error {
	return each(ctx, hosts, func(ctx context.Context, _ int, h *vsphere.Host) error { return s.m.rescanVolumes(ctx, s.center.ID, h) })
}

// rename renames the datastore in the vCenter.
func (s *step) rename(ctx context.Context) error {
	d, err := s.v.FindDatastore(ctx, s.naa)
	if err != nil {
		return err
	}
	if err := d.Rename(ctx, s.job.Name); err != nil {
		return err
	}
	s.rec.Name = s.job.Name
	return nil
}

// destroy destroys the volume, where there is one.
func (s *step) destroy(ctx context.Context) error {
	if s.naa == "" {
		return nil
	}
	d, err := s.v.FindDatastore(ctx, s.naa)
	if errors.Is(err, vsphere.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	hosts, err := s.connected(d)
	if err != nil {
		return err
	}
	// A try that was cut off may have destroyed it, and hosts show it until they look.
	if err := s.rescanAll(ctx, hosts); err != nil {
		return err
	}
	if d, err = s.v.FindDatastore(ctx, s.naa); errors.Is(err, vsphere.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	if hosts, err = s.connected(d); err != nil {
		return err
	}
	if err := s.m.call(ctx, s.center.ID, func() error { return hosts[0].Destroy(ctx, d) }); err != nil {
		return err
	}
	if err := s.volumes(ctx, hosts); err != nil {
		return err
	}
	if _, err := s.v.FindDatastore(ctx, s.naa); !errors.Is(err, vsphere.ErrNotFound) {
		return errors.Join(err, fmt.Errorf("datastore %s is there still: %w", s.rec.Name, vsphere.ErrInUse))
	}
	return nil
}

// detach has every host of the cluster use the LUN no more (V4).
func (s *step) detach(ctx context.Context) error {
	if s.naa == "" || s.sharedRDM() {
		return nil
	}
	hosts := s.reachable()
	now, err := s.m.storages(ctx, s.center.ID, s.v, hosts, vsphere.Disks)
	if err != nil {
		return err
	}
	return each(ctx, hosts, func(ctx context.Context, _ int, h *vsphere.Host) error {
		disk, err := now[h.ID()].Disk(s.naa)
		if errors.Is(err, vsphere.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return s.m.call(ctx, s.center.ID, func() error { return h.Detach(ctx, disk) })
	})
}

// reachable are the hosts that are connected, in maintenance mode too. The others have no
// datastore on the LUN any more.
func (s *step) reachable() []*vsphere.Host {
	var out []*vsphere.Host
	for _, h := range s.hosts {
		if h.State == "connected" {
			out = append(out, h)
		} else {
			s.note("left out: " + h.Name + " " + h.Away())
		}
	}
	return out
}

// unmap takes the LUN away. Hosts keep their sessions for other LUNs.
func (s *step) unmap(ctx context.Context) error {
	if s.rec.VDisk == "" || s.sharedRDM() {
		return nil
	}
	return gone(s.m.ctl.Unpublish(ctx, s.rec.VDisk, true))
}

// gone takes what is not there for done.
func gone(err error) error {
	var e *control.Error
	if errors.As(err, &e) && e.Code == control.CodeNotFound {
		return nil
	}
	return err
}

// forget has the hosts forget the LUN. One without software iSCSI never saw it.
func (s *step) forget(ctx context.Context) error {
	if err := s.unalarm(ctx); err != nil {
		return err
	}
	if s.naa == "" || s.sharedRDM() {
		return nil
	}
	hosts := s.reachable()
	now, err := s.m.storages(ctx, s.center.ID, s.v, hosts, vsphere.Adapters)
	if err != nil {
		return err
	}
	return each(ctx, hosts, func(ctx context.Context, _ int, h *vsphere.Host) error {
		_, device := now[h.ID()].Initiator()
		if err := now[h.ID()].Err(); err != nil || device == "" {
			return err
		}
		if _, err := s.m.rescanDisks(ctx, s.center.ID, h, device); err != nil {
			return err
		}
		return s.m.call(ctx, s.center.ID, func() error { return h.Forget(ctx, s.naa) })
	})
}

// deleteVDisk deletes the vDisk, or takes its label off when it stays.
func (s *step) deleteVDisk(ctx context.Context) error {
	v, ok := s.m.model.VDisk(s.rec.VDisk)
	if !ok {
		return nil
	}
	if !s.job.Keep {
		return gone(s.m.ctl.DeleteVDisk(ctx, v.ID, false))
	}
	delete(v.Labels, datastoreLabel)
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	_, err := s.m.ctl.UpdateVDisk(ctx, v.ID, control.DiskPatch{Labels: v.Labels})
	return gone(err)
}
