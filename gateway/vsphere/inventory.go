package vsphere

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/internal/clock"
)

// watchIdle is how long the inventory of a vCenter is kept up to date after it was asked for.
const watchIdle = 10 * time.Minute

// watch keeps the inventory of a vCenter while somebody asks for it.
type watch struct {
	inv    vsphere.Inventory
	ctx    context.Context
	cancel context.CancelFunc

	// Of Manager.mu.
	asked   time.Time
	seen    time.Time     // of its newest answer; zero: none is complete yet
	err     error         // why there is none; nil: there is one, or will be
	changed chan struct{} // closed when seen or err changes
}

var (
	errIdle    = errors.New("nobody asks")
	errAnother = errors.New("the record of the vCenter changed")
)

// VM is a virtual machine on datastores of ovgate.
type VM struct {
	vsphere.VM
	Center     string   // name
	Datastores []string // names, sorted
}

// Source is a vCenter that was asked for virtual machines.
type Source struct {
	Center  string    // name
	Seen    time.Time // when it told that what it has is that; zero: it has not
	Problem string    // why it tells of no changes now; empty: it does
}

// VMs returns the virtual machines on datastores of ovgate, or on one with ref. The first
// one who asks waits until the vCenter has told of all; from then on it tells of changes.
func (m *Manager) VMs(ctx context.Context, ref string) ([]VM, []Source, error) {
	ctx, done := m.begin(ctx)
	defer done()
	stores := m.model.Datastores(func(d model.Datastore) bool { return d.VDisk != "" && d.RDM == nil })
	if ref != "" {
		d, err := m.FindDatastore(ref)
		if err != nil {
			return nil, nil, err
		}
		stores = slices.DeleteFunc(stores, func(o model.Datastore) bool { return o.ID != d.ID })
	}
	var sources []Source
	rows := map[[2]string]*VM{}
	for _, c := range m.model.Centers() {
		mine := slices.DeleteFunc(slices.Clone(stores), func(d model.Datastore) bool { return d.Center != c.ID })
		if len(mine) == 0 {
			continue
		}
		w, s, err := m.watched(ctx, c)
		if err != nil {
			return nil, nil, explain(centerObject(c.Name), err)
		}
		sources = append(sources, s)
		for _, d := range mine {
			naa, err := control.NAA(d.VDisk)
			if err != nil {
				return nil, nil, explain(datastoreObject(d.Name), err)
			}
			for _, v := range w.inv.On(naa) {
				key := [2]string{c.ID, v.ID}
				if rows[key] == nil {
					rows[key] = &VM{VM: v, Center: c.Name}
				}
				rows[key].Datastores = append(rows[key].Datastores, d.Name)
			}
		}
	}
	out := make([]VM, 0, len(rows))
	for _, r := range rows {
		slices.Sort(r.Datastores)
		out = append(out, *r)
	}
	return out, sources, nil
}

// watched returns the inventory of a vCenter once it is complete, or is known not to be.
func (m *Manager) watched(ctx context.Context, c model.Center) (*watch, Source, error) {
	for {
		if _, ok := m.model.FindCenter(c.ID); !ok {
			return nil, Source{}, model.ErrNotFound
		}
		m.mu.Lock()
		if m.stopped {
			m.mu.Unlock()
			return nil, Source{}, context.Canceled
		}
		w := m.watches[c.ID]
		if w == nil {
			w = &watch{changed: make(chan struct{})}
			w.ctx, w.cancel = context.WithCancel(m.ctx)
			m.watches[c.ID] = w
			m.wg.Add(1)
			go m.keep(c.ID, w)
		}
		w.asked = m.clock.Now()
		s, changed := Source{Center: c.Name, Seen: w.seen}, w.changed
		if w.err != nil {
			s.Problem = w.err.Error()
		}
		m.mu.Unlock()
		if !s.Seen.IsZero() || s.Problem != "" {
			return w, s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, s, ctx.Err()
		}
	}
}

// tell keeps that a watch has an answer, or why it has none.
func (m *Manager) tell(w *watch, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.err = err; err == nil {
		w.seen = m.clock.Now().UTC()
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// keep watches a vCenter, again when it was away, until nobody asks any more.
func (m *Manager) keep(id string, w *watch) {
	defer m.wg.Done()
	defer m.leave(id, w)
	for pause := retryMin; ; {
		before := w.seen // nobody else writes it
		err := m.watchOnce(id, w)
		if errors.Is(err, errIdle) || w.ctx.Err() != nil || m.idle(w) {
			return
		}
		if w.seen.After(before) {
			pause = retryMin
		}
		if errors.Is(err, errAnother) {
			continue
		}
		m.tell(w, err)
		m.log.Warn("a vCenter tells of no changes", "center", id, "err", err)
		if clock.Sleep(w.ctx, m.clock, pause) != nil {
			return
		}
		pause = min(2*pause, retryMax)
	}
}

// leave forgets a watch that ended. Those who wait for it begin another one.
func (m *Manager) leave(id string, w *watch) {
	w.cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.watches[id] == w {
		delete(m.watches, id)
	}
	close(w.changed)
}

// idle tells whether nobody asked for a while.
func (m *Manager) idle(w *watch) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clock.Now().Sub(w.asked) > watchIdle
}

// unwatch ends the watch of a vCenter whose record changed; the next one who asks begins
// another one.
func (m *Manager) unwatch(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.watches[id]; w != nil {
		delete(m.watches, id)
		w.cancel()
	}
}

// watchOnce watches until there is a reason not to.
func (m *Manager) watchOnce(id string, w *watch) error {
	c, ok := m.model.FindCenter(id)
	if !ok {
		return errIdle
	}
	v, err := m.connect(w.ctx, c)
	if err != nil {
		return err
	}
	defer v.Close()
	return v.Watch(w.ctx, &w.inv, func() error {
		m.tell(w, nil)
		now, ok := m.model.FindCenter(id) // another node may change it
		switch {
		case !ok || m.idle(w):
			return errIdle
		case now.Spec != c.Spec || string(now.Secret) != string(c.Secret):
			return errAnother
		}
		return nil
	})
}
