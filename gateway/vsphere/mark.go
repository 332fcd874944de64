package vsphere

import (
	"context"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

// A datastore carries at the vCenter what it is on: a custom attribute with its vDisk, vPool
// and cluster, and a tag with its vPool, by which a storage policy chooses it. They go with it.
// What cannot be set is a warning of its record, and is tried again by attach.

// markOf is what a datastore is to carry; it changes with the names in it.
func (m *Manager) markOf(d model.Datastore) (text, vpool string) {
	v, _ := m.model.VDisk(d.VDisk)
	p, _ := m.model.VPool(d.VPool)
	text = fmt.Sprintf("vDisk %s (%s), vPool %s", v.Name, d.VDisk, p.Name)
	if m.opt.Cluster != nil {
		text += ", " + m.opt.Cluster()
	}
	return text, p.Name
}

// marked tells whether a vCenter's datastores carry what they are on. A host alone has no tags.
func (m *Manager) marked(center string) bool {
	c, ok := m.model.FindCenter(center)
	return ok && c.Kind != vsphere.KindESXi
}

// mark has the datastore carry what it is on.
func (s *step) mark(ctx context.Context) error {
	text, vpool := s.m.markOf(s.rec)
	s.rec.Marked, s.rec.Warnings = text, nil
	if !s.m.marked(s.rec.Center) {
		return nil
	}
	d, err := s.v.FindDatastore(ctx, s.naa)
	if errors.Is(err, vsphere.ErrNotFound) && s.job.Kind == model.JobMark {
		return nil // others tell of that
	}
	if err != nil {
		return err
	}
	tries := []error{d.SetAttribute(ctx, text), d.SetTag(ctx, s.rec.VPool, vpool)}
	if s.m.hears(s.rec.Center) {
		tries = append(tries, s.v.EnsureAlarm(ctx))
	}
	for _, err := range tries {
		switch {
		case err == nil:
		case transient(err) || errors.Is(err, vsphere.ErrNotOurs):
			return err
		default:
			s.rec.Warnings = append(s.rec.Warnings, problem(err))
		}
	}
	return nil
}

// unalarm removes the alarm of a vCenter's datastores with the last of them.
func (s *step) unalarm(ctx context.Context) error {
	others := s.m.model.Datastores(func(d model.Datastore) bool {
		return d.RDM == nil && d.Center == s.rec.Center && d.ID != s.rec.ID && d.State != model.StateDeleting
	})
	if len(others) > 0 || s.rec.RDM != nil {
		return nil
	}
	err := s.v.RemoveAlarm(ctx)
	if err != nil && !transient(err) && !errors.Is(err, vsphere.ErrNotOurs) {
		s.m.log.Warn("the alarm of datastores stays at a vCenter", "center", s.center.Name, "err", err)
		return nil
	}
	return err
}

// Names hears that a vDisk or vPool changed, whose name datastores carry. It does not block.
func (m *Manager) Names(kind, id string) {
	switch kind {
	case "vdisk":
		m.remark(func(d model.Datastore) bool { return d.VDisk == id })
	case "vpool":
		m.remark(func(d model.Datastore) bool { return d.VPool == id })
	}
}

// remark gives datastores for which about holds, that this node serves and that carry
// something else, a job to carry what they are on. It does not block.
func (m *Manager) remark(about func(model.Datastore) bool) {
	all := m.model.Datastores(func(d model.Datastore) bool { return about(d) && m.stale(&d) })
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(all) == 0 || m.stopped {
		return
	}
	m.wg.Go(func() {
		for _, d := range all {
			_, err := m.give(m.ctx, d.ID, model.DatastoreJob{Kind: model.JobMark, Step: stepMark}, func(d *model.Datastore) error {
				if !m.stale(d) {
					return errReplaced
				}
				return nil
			})
			if err != nil && m.ctx.Err() == nil {
				m.log.Debug("a datastore is not marked now", "datastore", d.Name, "err", err) // the job that it has does
			}
		}
	})
}

// stale tells whether a datastore without a job carries something else.
func (m *Manager) stale(d *model.Datastore) bool {
	if d.RDM != nil || d.Job != nil || d.State != model.StatePresent || d.VDisk == "" || !m.marked(d.Center) || m.server(*d) != m.opt.Node {
		return false
	}
	text, _ := m.markOf(*d)
	return d.Marked != text
}
