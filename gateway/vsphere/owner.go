package vsphere

import (
	"context"
	"errors"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
)

// A job is done by the node that serves the datastore's vDisk. A request for one goes to that
// node, which takes the datastore with it; a job whose vDisk moves meanwhile follows it. That
// of a node that is gone is taken over by the node that serves the vDisk by then, or by any one
// if nobody does. What the former node began at a vCenter before it lost its lease is over by
// then (V8).

// server is the node that serves a datastore's vDisk; the one of its record where there is
// none.
func (m *Manager) server(d model.Datastore) string {
	if v, ok := m.model.VDisk(d.VDisk); ok && v.Node != "" {
		return v.Node
	}
	return d.Node
}

// elsewhere is the refusal of what another node is to do.
func (m *Manager) elsewhere(d model.Datastore, node string) error {
	return &control.Error{Code: control.CodeElsewhere, Node: node, Object: objectOf(d), Message: "node " + m.ctl.NodeName(node) + " works on it", Hint: "ask that node"}
}

// Here refuses a request that another node is to be asked: the one that does the datastore's
// job, or that serves its vDisk when it has none.
func (m *Manager) Here(d model.Datastore) error {
	at := m.server(d)
	if d.Job != nil {
		at = d.Node
	}
	if at != m.opt.Node {
		return m.elsewhere(d, at)
	}
	return nil
}

// passOn gives a job to the node that serves its vDisks by now, if that is one that lives,
// and tells whether it did.
func (m *Manager) passOn(ctx context.Context, d model.Datastore) (bool, error) {
	to := m.server(d)
	if to == m.opt.Node || m.ctl.Gone(to) {
		return false, nil
	}
	for _, id := range d.Job.With {
		if o, ok := m.model.FindDatastore(id); ok && m.server(o) != to {
			return false, nil // the job tells that
		}
	}
	given := false
	_, err := m.model.UpdateDatastore(ctx, d.ID, func(now *model.Datastore) error {
		if given = now.Job != nil && now.Node == m.opt.Node && m.server(*now) == to; given {
			now.Node = to
			now.Job.From = m.until(now.Job)
		}
		return nil
	})
	if err != nil || !given {
		return false, err
	}
	m.log.Info("datastore's job goes on where its vDisk is", "datastore", d.Name, "job", d.Job.Kind, "step", d.Job.Step, "node", m.ctl.NodeName(to))
	m.opt.Changed("datastore", d.ID)
	return true, nil
}

// nodeName is what a node is called.
func (m *Manager) nodeName(id string) string {
	if m.ctl == nil {
		return id
	}
	return m.ctl.NodeName(id)
}

// errNotTaken: another node took it over, or its node came back.
var errNotTaken = errors.New("it is another node's by now, or its node is back")

// TakeOver takes over the jobs of nodes that are gone for long enough.
func (m *Manager) TakeOver(ctx context.Context, gone map[string]bool) {
	for _, d := range m.model.Datastores(func(d model.Datastore) bool { return d.Job != nil && gone[d.Node] }) {
		if at := m.server(d); at != m.opt.Node && !gone[at] {
			continue // that one does
		}
		out, err := m.model.GiveDatastore(ctx, d.ID, m.opt.Node, []kv.Compare{cluster.Gone(d.Node)}, func(now *model.Datastore) error {
			if now.Job == nil || now.Node != d.Node {
				return errNotTaken
			}
			now.Job.From = m.until(now.Job)
			return nil
		})
		switch {
		case errors.Is(err, errNotTaken), errors.Is(err, model.ErrConflict), errors.Is(err, model.ErrNotFound):
		case err != nil:
			m.log.Warn("job of a node that is gone is not taken over", "datastore", d.Name, "node", m.nodeName(d.Node), "err", err)
		default:
			m.log.Warn("job of a node that is gone taken over", "datastore", out.Name, "job", out.Job.Kind, "step", out.Job.Step, "node", m.nodeName(d.Node))
			m.opt.Changed("datastore", out.ID)
			m.resume(out.ID)
		}
	}
}

// Follow hears of a record that another node stored, or this one. It does not block.
func (m *Manager) Follow(ch model.Change) {
	m.Names(ch.Kind, ch.Key)
	switch ch.Kind {
	case "datastore":
		if d, ok := m.model.FindDatastore(ch.Key); ok && d.Node == m.opt.Node && d.Job != nil {
			m.resume(d.ID)
		}
	case "vdisk":
		m.mu.Lock()
		idle := len(m.running) == 0
		m.mu.Unlock()
		v, ok := m.model.VDisk(ch.Key)
		if ok {
			m.moved(v)
		}
		if idle || !ok || v.Node == m.opt.Node {
			return
		}
		for _, d := range m.model.Datastores(func(d model.Datastore) bool { return d.VDisk == v.ID && d.Node == m.opt.Node && d.Job != nil }) {
			m.work(d.ID) // it has to be passed on
		}
	}
}
