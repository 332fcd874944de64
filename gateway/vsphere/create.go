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
	t, _, err := s.m.ensureTarget(ctx, s.center, s.rec.Cluster, s.rec.ClusterName)
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
	return s.m.prepare(ctx, s.center, s.rec.Cluster, s.rec.ClusterName, ready, false, func(ctx context.Context, h *vsphere.Host, done []vsphere.Action) error {
		for _, a := range done {
			if a.Action == "skipped" {
				s.m.log.Warn("a host does not take a setting", "host", h.Name, "setting", a.Detail)
			}
		}
		return s.sees(ctx, h)
	})
}

// sees has a host look for the LUN.
func (s *step) sees(ctx context.Context, h *vsphere.Host) error {
	if err := h.RescanDisks(ctx); err != nil {
		return err
	}
	v, ok := s.m.model.VDisk(s.rec.VDisk)
	iqn, lun, placed := s.m.ctl.Placed(v)
	if !ok || !placed {
		return fmt.Errorf("its LUN: %w", model.ErrNotFound)
	}
	disk, err := h.DiskAt(ctx, s.naa, iqn, lun)
	problem := &control.Error{Code: control.CodeBackend, Object: datastoreObject(s.rec.Name), Err: err}
	const between = "see that nothing between the host and the portals changes what the target tells, and that no other target has its name: "
	switch portals := strings.Join(s.portals(), ", "); {
	case errors.Is(err, vsphere.ErrNotFound):
		problem.Message = fmt.Sprintf("host %s does not see LUN %s: no session to its target, or a wrong CHAP secret", h.Name, s.naa)
		problem.Hint = "see that the host reaches " + portals + "; ovgate vsphere host prepare sets CHAP again"
	case errors.Is(err, vsphere.ErrAnother):
		problem.Message, problem.Hint = err.Error(), between+portals
	case err != nil:
		return err
	case disk.Size != v.Size:
		problem.Message, problem.Hint = fmt.Sprintf("host %s takes LUN %s for %d bytes, and it has %d", h.Name, s.naa, disk.Size, v.Size), between+portals
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

// prepare switches software iSCSI on, admits the hosts, and sets send targets and CHAP;
// then is run for each host.
func (m *Manager) prepare(ctx context.Context, c model.Center, cluster, clusterName string, hosts []*vsphere.Host, rotate bool, then func(context.Context, *vsphere.Host, []vsphere.Action) error) error {
	t, target, err := m.ensureTarget(ctx, c, cluster, clusterName)
	if err != nil {
		return err
	}
	names := make([]string, len(hosts))
	err = each(ctx, hosts, func(ctx context.Context, i int, h *vsphere.Host) error {
		names[i], err = h.EnableISCSI(ctx)
		return err
	})
	if err != nil {
		return err
	}
	// Before the hosts log in for the first time.
	if err := m.admit(ctx, t, names); err != nil {
		return err
	}
	return each(ctx, hosts, func(ctx context.Context, _ int, h *vsphere.Host) error {
		done, err := h.SetTarget(ctx, target, rotate)
		if err != nil {
			return err
		}
		return then(ctx, h, done)
	})
}

// PrepareHosts prepares the hosts of a cluster for its target, or says what it would
// change. CHAP is set again, also where it is the same by name.
func (m *Manager) PrepareHosts(ctx context.Context, ref, cluster string, dryRun bool) ([]vsphere.Action, error) {
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
	var actions []vsphere.Action
	for _, h := range hosts {
		if why := h.Away(); why != "" {
			actions = append(actions, vsphere.Action{Host: h.Name, Action: "leave out", Detail: "it " + why})
		}
	}
	ready := usable(hosts)
	made := make([][]vsphere.Action, len(ready))
	if dryRun {
		t := vsphere.Target{CHAPUser: chapUser(c)}
		for _, p := range m.ctl.Portals() {
			t.Portals = append(t.Portals, p.Address)
		}
		err = each(ctx, ready, func(ctx context.Context, i int, h *vsphere.Host) error {
			var err error
			made[i], err = h.PlanTarget(ctx, t, true)
			return err
		})
	} else {
		place := map[string]int{}
		for i, h := range ready {
			place[h.ID()] = i
		}
		err = m.prepare(ctx, c, hosts[0].ClusterID, hosts[0].Cluster, ready, true, func(ctx context.Context, h *vsphere.Host, done []vsphere.Action) error {
			made[place[h.ID()]] = done
			return h.Rescan(ctx)
		})
	}
	for _, a := range made {
		actions = append(actions, a...)
	}
	return actions, explain(object, err)
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
		if err := ready[0].Rescan(ctx); err != nil {
			return err
		}
		d, err = s.v.FindDatastore(ctx, s.naa)
	}
	if errors.Is(err, vsphere.ErrNotFound) {
		if err := ready[0].CreateDatastore(ctx, s.naa, s.rec.Name); err != nil {
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

// mount has every host mount the datastore and use all its paths.
func (s *step) mount(ctx context.Context) error {
	ready, err := s.ready()
	if err != nil {
		return err
	}
	err = each(ctx, ready, func(ctx context.Context, _ int, h *vsphere.Host) error {
		if err := h.Rescan(ctx); err != nil {
			return err
		}
		return h.RoundRobin(ctx, s.naa)
	})
	if err != nil {
		return err
	}
	d, err := s.v.FindDatastore(ctx, s.naa)
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
