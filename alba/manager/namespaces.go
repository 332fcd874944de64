package manager

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/kv"
)

// Namespace is the manager's record of a namespace.
type Namespace struct {
	ID     uint64    `json:"id"`
	Name   string    `json:"name"`
	Host   string    `json:"host"`
	Preset string    `json:"preset"`
	State  nsm.State `json:"state"`
}

func namespaceKey(name string) string { return "alba/n/" + name }

var validNamespace = regexp.MustCompile(`^[A-Za-z0-9][-._A-Za-z0-9]{0,199}$`)

// Namespaces returns all namespaces by name.
func (m *Manager) Namespaces(ctx context.Context) ([]Namespace, error) {
	return all[Namespace](ctx, m.kv, "alba/n/")
}

// NamespacesAfter returns up to limit namespaces whose names begin with prefix and
// sort after "after".
func (m *Manager) NamespacesAfter(ctx context.Context, prefix, after string, limit int) ([]Namespace, error) {
	if after != "" {
		after = namespaceKey(after)
	}
	recs, _, err := m.kv.Range(ctx, namespaceKey(prefix), after, limit)
	if err != nil {
		return nil, err
	}
	out := make([]Namespace, len(recs))
	for i, r := range recs {
		if out[i], err = decode[Namespace](r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Namespace returns a namespace; ErrNotFound.
func (m *Manager) Namespace(ctx context.Context, name string) (Namespace, error) {
	n, rev, err := load[Namespace](ctx, m.kv, namespaceKey(name))
	if err == nil && rev == 0 {
		err = fmt.Errorf("namespace %s: %w", name, ErrNotFound)
	}
	return n, err
}

// Creating is the state of a namespace that its host may not know yet (G6).
const Creating nsm.State = "creating"

// CreateNamespace makes a namespace with a preset (empty: the default) on the host
// with most room. One that is there is returned when no preset is asked for or its
// own, else ErrExists; one that is being removed is ErrState, one whose records are
// lost ErrLost, and while they are being recovered nsm.ErrRecovering.
func (m *Manager) CreateNamespace(ctx context.Context, name, presetName string) (Namespace, error) {
	if !validNamespace.MatchString(name) {
		return Namespace{}, fmt.Errorf("%w namespace name %.80q: use letters, digits, '.', '-' and '_', at most 200", ErrInvalid, name)
	}
	for {
		n, err := m.Namespace(ctx, name)
		switch {
		case errors.Is(err, ErrNotFound):
			p, err := m.Preset(ctx, presetName)
			if err != nil {
				return n, err
			}
			if err := m.reserveNamespace(ctx, name, p.Name); err != nil {
				if _, now := m.Namespace(ctx, name); now != nil {
					return n, err
				}
			}
			continue
		case err != nil:
			return n, err
		case n.State == nsm.Removing:
			return n, fmt.Errorf("namespace %s: %w: it is being removed", name, ErrState)
		case presetName != "" && n.Preset != presetName:
			return n, fmt.Errorf("namespace %s: %w with preset %s", name, ErrExists, n.Preset)
		}
		now, err := m.Settle(ctx, n)
		switch {
		case err != nil:
			return n, err
		case now.ID == n.ID && now.State == nsm.Active:
			return now, nil
		}
	}
}

// Settle brings the manager's record and the host's together, where a creation or
// removal was interrupted between the two (G7), and returns the manager's as it is
// then: the zero one when it is gone. ErrLost, nsm.ErrRecovering.
func (m *Manager) Settle(ctx context.Context, n Namespace) (Namespace, error) {
	h, err := m.Host(n.Host)
	if err != nil {
		return n, err
	}
	if n.State == Creating {
		return m.complete(ctx, h, n)
	}
	rec, err := h.Settle(ctx, n.ID)
	switch {
	case err != nil && !errors.Is(err, nsm.ErrNoNamespace):
		return n, err
	case rec.State == nsm.Removing:
		return m.become(ctx, n, nsm.Removing)
	case err == nil && rec.State == nsm.Active && n.State == nsm.Active, n.State == nsm.Removing:
		return n, nil
	case err == nil:
		return n, fmt.Errorf("namespace %s: %w", n.Name, nsm.ErrRecovering)
	}
	now, nerr := m.Namespace(ctx, n.Name)
	switch {
	case errors.Is(nerr, ErrNotFound):
		return Namespace{}, nil
	case nerr != nil:
		return n, nerr
	case now != n:
		return now, nil
	}
	return n, fmt.Errorf("namespace %s: %w on NSM host %s: recover it from the devices", n.Name, ErrLost, n.Host)
}

// complete makes a namespace on its host, and the manager's record active.
func (m *Manager) complete(ctx context.Context, h *nsm.Host, n Namespace) (Namespace, error) {
	p, err := m.Preset(ctx, n.Preset)
	if err != nil {
		return n, err
	}
	if err := h.Create(ctx, n.ID, n.Name, p); err != nil {
		return n, err
	}
	now, err := m.become(ctx, n, nsm.Active)
	if err != nil {
		return now, err
	}
	if now.ID != n.ID || now.State == nsm.Removing {
		// It was removed meanwhile, maybe before it was made here.
		return now, m.unmake(ctx, h, n.ID)
	}
	return now, m.propagate(ctx, h, now, preset.Preset{}) // the preset may have changed meanwhile
}

// unmake takes a namespace off its host that the manager has removed already.
func (m *Manager) unmake(ctx context.Context, h *nsm.Host, id uint64) error {
	err := h.BeginRemoval(ctx, id, false)
	if err == nil {
		err = h.Clear(ctx, id)
	}
	if errors.Is(err, nsm.ErrNoNamespace) {
		return nil
	}
	return err
}

// become moves the record of a namespace to a state, and returns it as it is then:
// what is being removed stays so. The zero one: it is gone.
func (m *Manager) become(ctx context.Context, n Namespace, state nsm.State) (Namespace, error) {
	now, err := modify(ctx, m.kv, namespaceKey(n.Name), func(now *Namespace) error {
		if now.ID != n.ID || now.State == nsm.Removing {
			return errTaken
		}
		now.State = state
		return nil
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return Namespace{}, nil
	case errors.Is(err, errTaken):
		return now, nil
	}
	return now, err
}

// reserveNamespace gives a namespace number and host.
func (m *Manager) reserveNamespace(ctx context.Context, name, presetName string) error {
	return m.number(ctx, nsCounter, 0, func(id uint64) ([]kv.Compare, []kv.Op, error) {
		return m.give(ctx, Namespace{ID: id, Name: name, Preset: presetName, State: Creating})
	})
}

// give builds the transaction that adds a namespace, on the roomiest host if it
// names none.
func (m *Manager) give(ctx context.Context, n Namespace) ([]kv.Compare, []kv.Op, error) {
	if _, rev, err := load[Namespace](ctx, m.kv, namespaceKey(n.Name)); err != nil || rev != 0 {
		return nil, nil, errors.Join(err, errTaken)
	}
	host, rev, err := m.roomiest(ctx, n.Host)
	if err != nil {
		return nil, nil, err
	}
	p, presetRev, err := load[preset.Preset](ctx, m.kv, presetKey(n.Preset))
	if err != nil {
		return nil, nil, err
	}
	if presetRev == 0 {
		return nil, nil, fmt.Errorf("preset %s: %w", n.Preset, ErrNotFound)
	}
	host.Namespaces++
	n.Host = host.Name
	return []kv.Compare{kv.Absent(namespaceKey(n.Name)), kv.ModRevIs(hostKey(host.Name), rev), kv.ModRevIs(presetKey(p.Name), presetRev)},
		// The preset is written so that its deletion notices (G5).
		[]kv.Op{save(namespaceKey(n.Name), n), save(hostKey(host.Name), host), save(presetKey(p.Name), p)}, nil
}

// roomiest returns the host of this name or, without one, that with the smallest
// share of its capacity in use.
func (m *Manager) roomiest(ctx context.Context, name string) (HostRecord, int64, error) {
	for {
		if name != "" {
			h, rev, err := load[HostRecord](ctx, m.kv, hostKey(name))
			if err == nil && rev == 0 {
				err = fmt.Errorf("NSM host %s: %w", name, ErrNotFound)
			}
			return h, rev, err
		}
		hosts, err := m.Hosts(ctx)
		if err != nil {
			return HostRecord{}, 0, err
		}
		best := -1
		for i, h := range hosts {
			if h.Namespaces < h.Capacity && (best < 0 || h.Namespaces*hosts[best].Capacity < hosts[best].Namespaces*h.Capacity) {
				best = i
			}
		}
		if best < 0 {
			return HostRecord{}, 0, fmt.Errorf("%w: every one of %d NSM hosts has all the namespaces it can take: add one", ErrInvalid, len(hosts))
		}
		h, rev, err := load[HostRecord](ctx, m.kv, hostKey(hosts[best].Name))
		if err != nil || h.Namespaces < h.Capacity {
			return h, rev, err
		}
	}
}

// RemoveNamespace begins to remove a namespace: from now on nothing is read or
// written there. Maintenance drops its fragments, then FinishRemoval ends it. An
// absent namespace is no error. With onlyEmpty, one that has objects is ErrInUse.
func (m *Manager) RemoveNamespace(ctx context.Context, name string, onlyEmpty bool) error {
	n, err := m.Namespace(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	h, err := m.Host(n.Host)
	if err != nil {
		return err
	}
	err = h.BeginRemoval(ctx, n.ID, onlyEmpty)
	switch {
	case errors.Is(err, nsm.ErrExists):
		return fmt.Errorf("%w: %w", ErrInUse, err)
	case errors.Is(err, nsm.ErrNoNamespace) && onlyEmpty && n.State != Creating:
		// Gone meanwhile, or lost: then nobody knows whether it is empty.
		if now, err := m.Settle(ctx, n); err != nil || now.ID != n.ID || now.State == nsm.Removing {
			return err
		}
		return fmt.Errorf("namespace %s: %w", name, ErrState)
	case err != nil && !errors.Is(err, nsm.ErrNoNamespace):
		return err
	}
	_, err = m.become(ctx, n, nsm.Removing)
	return err
}

// FinishRemoval ends a namespace whose records and fragments are gone.
func (m *Manager) FinishRemoval(ctx context.Context, n Namespace) error {
	for {
		now, rev, err := load[Namespace](ctx, m.kv, namespaceKey(n.Name))
		if err != nil || rev == 0 || now.ID != n.ID {
			return err
		}
		if now.State != nsm.Removing {
			return fmt.Errorf("namespace %s: %w: it is %s, not being removed", n.Name, ErrState, now.State)
		}
		host, hostRev, err := load[HostRecord](ctx, m.kv, hostKey(n.Host))
		if err != nil {
			return err
		}
		ops := []kv.Op{kv.Delete(namespaceKey(n.Name))}
		if hostRev != 0 {
			host.Namespaces = max(0, host.Namespaces-1)
			ops = append(ops, save(hostKey(n.Host), host))
		}
		res, err := m.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(namespaceKey(n.Name), rev), kv.ModRevIs(hostKey(n.Host), hostRev)}, ops, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

// gap is a run of namespace numbers that this manager did not give: it was set up
// anew beside namespaces that had them.
type gap struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// without takes a number out of gaps.
func without(gaps []gap, id uint64) []gap {
	out := []gap{}
	for _, g := range gaps {
		if id < g.From || id > g.To {
			out = append(out, g)
			continue
		}
		if g.From < id {
			out = append(out, gap{g.From, id - 1})
		}
		if id < g.To {
			out = append(out, gap{id + 1, g.To})
		}
	}
	return out
}

// Given tells whether this manager gave a namespace number out: one that it did not
// is not ours to clean up.
func (m *Manager) Given(ctx context.Context, id uint64) (bool, error) {
	// The gaps last: one that appears belongs to a counter that was lower.
	n, _, err := load[uint64](ctx, m.kv, nsCounter)
	if err != nil || id == 0 || id > n {
		return false, err
	}
	gaps, _, err := load[[]gap](ctx, m.kv, gapsKey)
	return !slices.ContainsFunc(gaps, func(g gap) bool { return id >= g.From && id <= g.To }), err
}

// Reserve keeps namespace numbers up to one, which devices know already, from being
// given out (G4). Those that were not given before are not taken for ours (Given).
func (m *Manager) Reserve(ctx context.Context, id uint64) error {
	for {
		last, rev, err := load[uint64](ctx, m.kv, nsCounter)
		if err != nil || id <= last {
			return err
		}
		gaps, gapsRev, err := load[[]gap](ctx, m.kv, gapsKey)
		if err != nil {
			return err
		}
		res, err := m.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(nsCounter, rev), kv.ModRevIs(gapsKey, gapsRev)},
			[]kv.Op{save(nsCounter, id), save(gapsKey, append(gaps, gap{last + 1, id}))}, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

// Propagate hands changed presets on to the namespaces that name them.
func (m *Manager) Propagate(ctx context.Context) error {
	presets, err := m.Presets(ctx)
	if err != nil {
		return err
	}
	byName := map[string]preset.Preset{}
	for _, p := range presets {
		byName[p.Name] = p
	}
	spaces, err := m.Namespaces(ctx)
	if err != nil {
		return err
	}
	for _, n := range spaces {
		h, err := m.Host(n.Host)
		if err != nil {
			return err
		}
		if n.State == nsm.Removing || n.State == Creating {
			continue
		}
		if err := m.propagate(ctx, h, n, byName[n.Preset]); err != nil {
			return err
		}
	}
	return nil
}

// propagate gives a namespace its preset, unless it has the one that was read. The
// preset is read after the host's record: of several who do this at once, the last
// to write has seen what the others wrote.
func (m *Manager) propagate(ctx context.Context, h *nsm.Host, n Namespace, read preset.Preset) error {
	var failed error
	_, err := h.Update(ctx, n.ID, func(rec *nsm.Namespace) bool {
		if rec.State == nsm.Removing || equal(rec.Preset, read) {
			return false
		}
		var want preset.Preset
		if want, failed = m.Preset(ctx, n.Preset); errors.Is(failed, ErrNotFound) {
			failed = nil // nothing to hand on
			return false
		}
		if failed != nil || equal(rec.Preset, want) {
			return false
		}
		rec.Preset = want
		return true
	})
	if errors.Is(err, nsm.ErrNoNamespace) {
		return nil
	}
	return errors.Join(err, failed)
}

// Reclaim puts a namespace whose records are lost, on its host or here, into the
// state Recovering (G6). Its number stays what the devices know, and is given out
// from then on. ErrInvalid: number or name are another's; ErrState: it is being
// removed.
func (m *Manager) Reclaim(ctx context.Context, id uint64, name, presetName string) (Namespace, error) {
	if id == 0 || !validNamespace.MatchString(name) {
		return Namespace{}, fmt.Errorf("%w: namespace %d %.80q", ErrInvalid, id, name)
	}
	for {
		n, err := m.Namespace(ctx, name)
		switch {
		case errors.Is(err, ErrNotFound):
			err := m.regive(ctx, id, name, presetName)
			if err != nil && !errors.Is(err, errTaken) {
				return n, err
			}
			continue
		case err != nil:
			return n, err
		case n.ID != id:
			return n, fmt.Errorf("namespace %s: %w: its number is %d, not %d", name, ErrInvalid, n.ID, id)
		}
		now, err := m.become(ctx, n, nsm.Recovering)
		switch {
		case err != nil:
			return now, err
		case now.ID == id && now.State == nsm.Removing:
			return now, fmt.Errorf("namespace %s: %w: it is being removed", name, ErrState)
		case now.ID == id:
			return now, nil
		}
	}
}

// regive adds the record of a namespace that had this number.
func (m *Manager) regive(ctx context.Context, id uint64, name, presetName string) error {
	n := Namespace{ID: id, Name: name, Preset: presetName, State: nsm.Recovering}
	hosts, err := m.Hosts(ctx)
	if err != nil {
		return err
	}
	for _, r := range hosts { // one may know it still
		h, err := m.Host(r.Name)
		if err != nil {
			return err
		}
		rec, err := h.Namespace(ctx, id)
		if err == nil && rec.Name == name {
			n.Host = r.Name
		} else if err != nil && !errors.Is(err, nsm.ErrNoNamespace) {
			return err
		}
	}
	for {
		if err := m.Reserve(ctx, id); err != nil {
			return err
		}
		gaps, gapsRev, err := load[[]gap](ctx, m.kv, gapsKey)
		if err != nil {
			return err
		}
		// Who gives this number again changes the gaps, which are compared.
		spaces, err := m.Namespaces(ctx)
		if err != nil {
			return err
		}
		for _, other := range spaces {
			if other.ID == id && other.Name != name {
				return fmt.Errorf("namespace %s: %w: its number %d is that of %s", name, ErrInvalid, id, other.Name)
			}
		}
		cmps, ops, err := m.give(ctx, n)
		if err != nil {
			return err
		}
		cmps, ops = append(cmps, kv.ModRevIs(gapsKey, gapsRev)), append(ops, save(gapsKey, without(gaps, id)))
		res, err := m.kv.Txn(ctx, cmps, ops, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

// Recovered makes a namespace active whose host is.
func (m *Manager) Recovered(ctx context.Context, n Namespace) (Namespace, error) {
	return m.become(ctx, n, nsm.Active)
}
