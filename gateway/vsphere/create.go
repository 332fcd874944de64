package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

// ownVDisk returns the id of the vDisk that is marked as a datastore's, empty: there is none.
func (m *Manager) ownVDisk(d model.Datastore) string {
	own := m.model.VDisks(func(v model.VDisk) bool {
		return v.Labels[datastoreLabel] == d.ID && v.State != model.StateDeleting && v.State != model.StateTrashed
	})
	if len(own) == 0 {
		return ""
	}
	return own[0].ID
}

// makeVDisk makes the vDisk, unless a former try did.
func (s *step) makeVDisk(ctx context.Context) error {
	if s.rec.VDisk != "" {
		return nil
	}
	v, err := s.m.ctl.CreateVDisk(ctx, control.NewDisk{Name: s.rec.Name, VPool: s.rec.VPool, Size: s.rec.Size, Labels: map[string]string{datastoreLabel: s.rec.ID}})
	if err != nil {
		return err
	}
	s.rec.VDisk = v.ID
	return nil
}

// publish makes the cluster's target and places the vDisk in it.
func (s *step) publish(ctx context.Context) error {
	t, _, err := s.m.ensureTarget(ctx, s.center, s.rec.Cluster, s.rec.ClusterName, keepSecrets)
	if err != nil {
		return err
	}
	_, err = s.m.ctl.Publish(ctx, s.rec.VDisk, control.PublishOptions{Target: t.Name})
	return err
}

// prepare has every host log in to the target and see the LUN. All hosts see it before one
// formats it.
func (s *step) prepare(ctx context.Context) error {
	ready, err := s.ready()
	if err != nil {
		return err
	}
	p, err := s.m.prepare(ctx, s.v, s.center, s.rec.Cluster, s.rec.ClusterName, ready, keepSecrets)
	if err != nil {
		return err
	}
	for i, h := range ready {
		for _, a := range p.done[i] {
			if a.Action == "skipped" {
				s.m.log.Warn("a host does not take a setting", "host", h.Name, "setting", a.Detail)
			}
		}
	}
	v, ok := s.m.model.VDisk(s.rec.VDisk)
	iqn, lun, placed := s.m.ctl.Placed(v)
	if !ok || !placed {
		return fmt.Errorf("its LUN: %w", model.ErrNotFound)
	}
	seen := map[string]*vsphere.Storage{}
	if s.again() { // most hosts may see it
		if seen, err = s.m.storages(ctx, s.center.ID, s.v, ready, vsphere.Disks); err != nil {
			return err
		}
	}
	return each(ctx, ready, func(ctx context.Context, i int, h *vsphere.Host) error {
		if st := seen[h.ID()]; st != nil {
			disk, err := st.DiskAt(s.naa, iqn, lun)
			if err == nil && disk.Size == v.Size && !disk.Lost && disk.Ways(iqn) >= len(p.target.Portals) {
				return nil
			}
		}
		st, err := s.m.rescanDisks(ctx, s.center.ID, h, p.devices[i])
		if err != nil {
			return err
		}
		disk, err := st.DiskAt(s.naa, iqn, lun)
		return s.sees(h, p.names[i], disk, err, v.Size)
	})
}

// again tells whether the step was tried before and did not get on: hosts that have what it
// wants are left alone then.
func (s *step) again() bool { return s.job.Tries > 0 }

// sees tells what is wrong with the LUN of a host, whose iSCSI name is initiator.
func (s *step) sees(h *vsphere.Host, initiator string, disk vsphere.Disk, err error, size int64) error {
	problem := &control.Error{Code: control.CodeBackend, Object: objectOf(s.rec), Err: err}
	const between = "see that nothing between the host and the portals changes what the target tells, and that no other target has its name: "
	switch portals := strings.Join(s.portals(), ", "); {
	case errors.Is(err, vsphere.ErrNotFound):
		problem.Message = fmt.Sprintf("host %s does not see LUN %s: no session to its target, or a wrong CHAP secret", h.Name, s.naa)
		if why := s.m.refusedLogin(initiator); why != "" {
			problem.Message += "; " + why
		}
		problem.Hint = "see that the host reaches " + portals + "; ovgate vsphere host prepare sets CHAP again"
	case errors.Is(err, vsphere.ErrAnother):
		problem.Message, problem.Hint = err.Error(), between+portals
	case err != nil:
		return err
	case disk.Size != size:
		problem.Message, problem.Hint = fmt.Sprintf("host %s takes LUN %s for %d bytes, and it has %d", h.Name, s.naa, disk.Size, size), between+portals
	default:
		return nil
	}
	return problem
}

func (s *step) portals() []string {
	var out []string
	for _, p := range s.m.ctl.Portals() {
		out = append(out, p.Address)
	}
	return out
}

// prepared is what came of preparing hosts, in their order.
type prepared struct {
	target  vsphere.Target
	devices []string // of the adapters
	names   []string // iSCSI names
	done    [][]vsphere.Action
}

// prepare switches software iSCSI on, admits the hosts, and sets send targets and CHAP where
// they are not what they should be, or but for keepSecrets everywhere.
func (m *Manager) prepare(ctx context.Context, v *vsphere.Center, c model.Center, cluster, clusterName string, hosts []*vsphere.Host, how secrets) (prepared, error) {
	p := prepared{devices: make([]string, len(hosts)), names: make([]string, len(hosts)), done: make([][]vsphere.Action, len(hosts))}
	again := how != keepSecrets
	t, target, err := m.ensureTarget(ctx, c, cluster, clusterName, how)
	if err != nil {
		return p, err
	}
	p.target = target
	now, err := m.storages(ctx, c.ID, v, hosts, vsphere.Adapters)
	if err != nil {
		return p, err
	}
	names, slots := p.names, m.slotsOf(c.ID)
	err = each(ctx, hosts, func(ctx context.Context, i int, h *vsphere.Host) (err error) {
		st := now[h.ID()]
		if err := st.Err(); err != nil {
			return err
		}
		if names[i], p.devices[i] = st.Initiator(); names[i] == "" {
			st, err = shared(ctx, &m.shares, c.ID+" enable "+h.ID(), slots, h.EnableISCSI)
			if err == nil {
				names[i], p.devices[i] = st.Initiator()
			}
		}
		return err
	})
	if err != nil {
		return p, err
	}
	// Before the hosts log in for the first time.
	if err := m.admit(ctx, t, names); err != nil {
		return p, err
	}
	return p, each(ctx, hosts, func(ctx context.Context, i int, h *vsphere.Host) (err error) {
		plan, err := now[h.ID()].PlanTarget(target, again)
		if err != nil || len(plan) == 0 {
			return err
		}
		key := fmt.Sprintf("%s target %s %d", c.ID, h.ID(), how)
		p.done[i], err = shared(ctx, &m.shares, key, slots, func(ctx context.Context) ([]vsphere.Action, error) { return h.SetTarget(ctx, target, again) })
		return err
	})
}

// PrepareHosts prepares the hosts of a cluster for its target, or says what it would
// change. CHAP is set again, also where it is the same by name; with rotate the secrets are new
// ones. Sessions stay: who logs in later needs them.
func (m *Manager) PrepareHosts(ctx context.Context, ref, cluster string, dryRun, rotate bool) ([]vsphere.Action, error) {
	ctx, done := m.begin(ctx)
	defer done()
	c, err := m.FindCenter(ref)
	if err != nil {
		return nil, err
	}
	object := centerObject(c.Name)
	v, err := m.connect(ctx, c)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	hosts, err := v.Hosts(ctx, cluster)
	if err != nil {
		return nil, explain(object, err)
	}
	if cluster == "" && c.Kind != vsphere.KindESXi {
		return nil, invalid("cluster", object, "ovgate vsphere host list "+c.Name+" shows hosts and clusters", "the cluster is missing")
	}
	how, ready := setSecrets, usable(hosts)
	if rotate {
		how = rotateSecrets
		if ready, err = connectedAll(object, hosts); err != nil {
			return nil, err
		}
	}
	var actions []vsphere.Action
	for _, h := range hosts {
		if slices.Contains(ready, h) {
			continue
		}
		if why := h.Away(); why != "" {
			actions = append(actions, vsphere.Action{Host: h.Name, Action: "leave out", Detail: "it " + why})
		}
	}
	made := make([][]vsphere.Action, len(ready))
	if dryRun {
		t := wanted(c)
		for _, p := range m.ctl.Portals() {
			t.Portals = append(t.Portals, p.Address)
		}
		var now map[string]*vsphere.Storage
		if now, err = m.storages(ctx, c.ID, v, ready, vsphere.Adapters); err != nil {
			return nil, explain(object, err)
		}
		for i, h := range ready {
			if made[i], err = now[h.ID()].PlanTarget(t, true); err != nil {
				return nil, explain(object, err)
			}
		}
	} else {
		var p prepared
		p, err = m.prepare(ctx, v, c, hosts[0].ClusterID, hosts[0].Cluster, ready, how)
		made = p.done
		if err == nil {
			err = each(ctx, ready, func(ctx context.Context, i int, h *vsphere.Host) error {
				if _, err := m.rescanDisks(ctx, c.ID, h, p.devices[i]); err != nil {
					return err
				}
				return m.rescanVolumes(ctx, c.ID, h)
			})
		}
	}
	for _, a := range made {
		actions = append(actions, a...)
	}
	return actions, explain(object, err)
}

// wanted is what hosts of a vCenter are told of a target, without portals and secrets.
func wanted(c model.Center) vsphere.Target {
	t := vsphere.Target{CHAPUser: chapUser(c)}
	if c.Spec.Mutual {
		t.MutualUser = mutualUser(c)
	}
	return t
}

// connectedAll returns all hosts of a cluster, in maintenance mode too, or an error that names
// those that cannot be told of new secrets.
func connectedAll(object string, hosts []*vsphere.Host) ([]*vsphere.Host, error) {
	var off []string
	for _, h := range hosts {
		if h.State != "connected" {
			off = append(off, h.Name+" is "+h.State)
		}
	}
	if len(off) > 0 {
		return nil, &control.Error{Code: control.CodeBackend, Object: object, Message: "with new secrets a host that cannot be told of them loses its disks with its next login: " + strings.Join(off, ", "), Hint: "bring it back in its vCenter, or take it out of the inventory", Err: vsphere.ErrHostAway}
	}
	return hosts, nil
}

// format makes the datastore through the first host that can.
func (s *step) format(ctx context.Context) error {
	ready, err := s.ready()
	if err != nil {
		return err
	}
	d, err := s.v.FindDatastore(ctx, s.naa)
	if errors.Is(err, vsphere.ErrNotFound) {
		// A try whose answer was lost may have made it on the LUN, and the vCenter not know.
		if err := s.rescan1(ctx, ready[0]); err != nil {
			return err
		}
		d, err = s.v.FindDatastore(ctx, s.naa)
	}
	if errors.Is(err, vsphere.ErrNotFound) {
		err = s.m.call(ctx, s.center.ID, func() error { return ready[0].CreateDatastore(ctx, s.naa, s.rec.Name) })
		if err != nil {
			return err
		}
		d, err = s.v.FindDatastore(ctx, s.naa)
	}
	if err != nil {
		return err
	}
	if d.Name != s.rec.Name {
		return &control.Error{
			Code: control.CodeInUse, Object: datastoreObject(s.rec.Name), Message: fmt.Sprintf("its LUN %s has datastore %s, which somebody made by hand", s.naa, d.Name),
			Hint: "remove it, which destroys that datastore too unless it has virtual machines, and make it anew; or rename " + d.Name + " to " + s.rec.Name + " in the vCenter",
		}
	}
	s.rec.Volume = d.UUID
	return nil
}

// rescan1 has a host look for datastores, and for disks before where the step did not get on.
func (s *step) rescan1(ctx context.Context, h *vsphere.Host) error {
	if s.again() {
		if err := s.rescanAll(ctx, []*vsphere.Host{h}); err != nil {
			return err
		}
	}
	return s.m.rescanVolumes(ctx, s.center.ID, h)
}

// rescanAll has hosts look for disks and then for datastores.
func (s *step) rescanAll(ctx context.Context, hosts []*vsphere.Host) error {
	now, err := s.m.storages(ctx, s.center.ID, s.v, hosts, vsphere.Adapters)
	if err != nil {
		return err
	}
	return each(ctx, hosts, func(ctx context.Context, _ int, h *vsphere.Host) error {
		_, device := now[h.ID()].Initiator()
		if err := now[h.ID()].Err(); err != nil {
			return err
		}
		if _, err := s.m.rescanDisks(ctx, s.center.ID, h, device); err != nil {
			return err
		}
		return s.m.rescanVolumes(ctx, s.center.ID, h)
	})
}

// mount has every host mount the datastore and use all its paths.
func (s *step) mount(ctx context.Context) error {
	ready, err := s.ready()
	if err != nil {
		return err
	}
	d, err := s.v.FindDatastore(ctx, s.naa)
	if err != nil && !errors.Is(err, vsphere.ErrNotFound) {
		return err
	}
	now, err := s.m.storages(ctx, s.center.ID, s.v, ready, vsphere.Disks)
	if err != nil {
		return err
	}
	err = each(ctx, ready, func(ctx context.Context, _ int, h *vsphere.Host) error {
		disk, err := now[h.ID()].Disk(s.naa)
		mounted := false
		if d != nil {
			m, ok := d.On(h)
			mounted = ok && m.Mounted && m.Accessible
		}
		switch {
		case errors.Is(err, vsphere.ErrNotFound): // it came since
			if err := s.rescanAll(ctx, []*vsphere.Host{h}); err != nil {
				return err
			}
			st, err := s.m.storages(ctx, s.center.ID, s.v, []*vsphere.Host{h}, vsphere.Disks)
			if err != nil {
				return err
			}
			if disk, err = st[h.ID()].Disk(s.naa); err != nil {
				return err
			}
		case err != nil:
			return err
		case !mounted || s.job.Kind == model.JobAttach:
			if err := s.m.rescanVolumes(ctx, s.center.ID, h); err != nil {
				return err
			}
		}
		return s.m.call(ctx, s.center.ID, func() error { return h.RoundRobin(ctx, disk) })
	})
	if err != nil {
		return err
	}
	d, err = s.v.FindDatastore(ctx, s.naa)
	if err != nil {
		return err
	}
	for _, h := range ready {
		if mount, ok := d.On(h); !ok || !mount.Mounted || !mount.Accessible {
			return &control.Error{Code: control.CodeBackend, Object: datastoreObject(s.rec.Name), Message: fmt.Sprintf("host %s has not mounted it: %s", h.Name, mount.Reason), Hint: "look at the storage devices of the host in its vCenter"}
		}
	}
	return nil
}
