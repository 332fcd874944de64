package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/kv"
)

func presetKey(name string) string { return "alba/p/" + name }

// Presets returns all presets by name.
func (m *Manager) Presets(ctx context.Context) ([]preset.Preset, error) {
	return all[preset.Preset](ctx, m.kv, "alba/p/")
}

// Preset returns a preset; an empty name means the default one.
func (m *Manager) Preset(ctx context.Context, name string) (preset.Preset, error) {
	if name == "" {
		list, err := m.Presets(ctx)
		if err != nil {
			return preset.Preset{}, err
		}
		if i := slices.IndexFunc(list, func(p preset.Preset) bool { return p.Default }); i >= 0 {
			return list[i], nil
		}
		return preset.Preset{}, fmt.Errorf("default preset: %w", ErrNotFound)
	}
	p, rev, err := load[preset.Preset](ctx, m.kv, presetKey(name))
	if err == nil && rev == 0 {
		err = fmt.Errorf("preset %s: %w", name, ErrNotFound)
	}
	return p, err
}

// CreatePreset adds a preset. The first one becomes the default.
func (m *Manager) CreatePreset(ctx context.Context, p preset.Preset) (preset.Preset, error) {
	if p.FragmentBytes == 0 {
		p.FragmentBytes = preset.DefaultFragmentBytes
	}
	if p.PieceBytes == 0 {
		p.PieceBytes = preset.DefaultPieceBytes
	}
	if err := p.Validate(); err != nil {
		return p, err
	}
	for {
		// Of several that are made at once, only one becomes the default.
		_, guard, err := load[int](ctx, m.kv, defaultKey)
		if err != nil {
			return p, err
		}
		list, err := m.Presets(ctx)
		if err != nil {
			return p, err
		}
		p.Default = !slices.ContainsFunc(list, func(p preset.Preset) bool { return p.Default })
		cmps, ops := []kv.Compare{kv.Absent(presetKey(p.Name))}, []kv.Op{save(presetKey(p.Name), p)}
		if p.Default {
			cmps, ops = append(cmps, kv.ModRevIs(defaultKey, guard)), append(ops, save(defaultKey, 0))
		}
		res, err := m.kv.Txn(ctx, cmps, ops, nil)
		if err != nil || res.Succeeded {
			return p, err
		}
		was, err := m.Preset(ctx, p.Name)
		switch {
		case errors.Is(err, ErrNotFound):
			continue
		case err != nil:
			return p, err
		case equal(was, p):
			return was, nil
		}
		return p, fmt.Errorf("preset %s: %w with other settings", p.Name, ErrExists)
	}
}

// equal compares two presets but for their being the default.
func equal(a, b preset.Preset) bool {
	a.Default, b.Default = false, false
	x, err1 := a.Encode()
	y, err2 := b.Encode()
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// UpdatePreset changes policies, sizes and devices (P4), and hands the
// preset on to its namespaces.
func (m *Manager) UpdatePreset(ctx context.Context, name string, change func(p *preset.Preset)) (preset.Preset, error) {
	p, err := modify(ctx, m.kv, presetKey(name), func(p *preset.Preset) error {
		was := *p
		change(p)
		p.Name, p.Compression, p.KeyID, p.Spread, p.Default = was.Name, was.Compression, was.KeyID, was.Spread, was.Default
		return p.Validate()
	})
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("preset %s: %w", name, err)
	}
	if err != nil {
		return p, err
	}
	return p, m.Propagate(ctx)
}

// SetDefaultPreset makes a preset the default.
func (m *Manager) SetDefaultPreset(ctx context.Context, name string) error {
	for {
		_, guard, err := load[int](ctx, m.kv, defaultKey)
		if err != nil {
			return err
		}
		if _, err := m.Preset(ctx, name); err != nil {
			return err
		}
		list, err := m.Presets(ctx)
		if err != nil {
			return err
		}
		cmps, ops := []kv.Compare{kv.ModRevIs(defaultKey, guard)}, []kv.Op{save(defaultKey, 0)}
		for _, p := range list {
			if p.Default == (p.Name == name) {
				continue
			}
			now, rev, err := load[preset.Preset](ctx, m.kv, presetKey(p.Name))
			if err != nil {
				return err
			}
			now.Default = p.Name == name
			cmps, ops = append(cmps, kv.ModRevIs(presetKey(p.Name), rev)), append(ops, save(presetKey(p.Name), now))
			if rev == 0 {
				ops = nil // deleted just now: once more
				break
			}
		}
		if len(ops) == 1 {
			return nil
		}
		if ops == nil {
			continue
		}
		res, err := m.kv.Txn(ctx, cmps, ops, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

// DeletePreset removes a preset that no namespace names and that is not the
// default (G5).
func (m *Manager) DeletePreset(ctx context.Context, name string) error {
	for {
		p, rev, err := load[preset.Preset](ctx, m.kv, presetKey(name))
		if err != nil || rev == 0 {
			return err
		}
		if p.Default {
			return fmt.Errorf("preset %s: %w: it is the default: make another the default first", name, ErrInUse)
		}
		spaces, err := m.Namespaces(ctx)
		if err != nil {
			return err
		}
		for _, n := range spaces {
			if n.Preset == name && n.State != nsm.Removing {
				return fmt.Errorf("preset %s: %w by namespace %s: delete the namespace first", name, ErrInUse, n.Name)
			}
		}
		// A namespace made meanwhile wrote this record (reserveNamespace).
		res, err := m.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(presetKey(name), rev)}, []kv.Op{kv.Delete(presetKey(name))}, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

// Follow gives automatic presets the policies for the devices in use in each
// group, when that changes their first one or adds room for a better one.
func (m *Manager) Follow(ctx context.Context) error {
	osds, err := m.OSDs(ctx)
	if err != nil {
		return err
	}
	list, err := m.Presets(ctx)
	if err != nil {
		return err
	}
	for _, p := range list {
		want := preset.Automatic(PerGroup(osds, p))
		if !p.Automatic || slices.Equal(merge(want, p.Policies), p.Policies) || want[0].K == 1 && want[0].M == 0 {
			continue
		}
		// What objects were written by stays, at the end, so that they can be
		// repaired as they are.
		if _, err := m.UpdatePreset(ctx, p.Name, func(p *preset.Preset) { p.Policies = merge(want, p.Policies) }); err != nil {
			return err
		}
	}
	return nil
}

// merge appends those of old that are not in list, as far as a preset may grow.
func merge(list, old []preset.Policy) []preset.Policy {
	out := slices.Clone(list)
	for _, p := range old {
		if !slices.Contains(out, p) && len(out) < preset.MaxPolicies && p.C > p.K {
			out = append(out, p)
		}
	}
	return out
}

// PerGroup counts the devices that take fragments of a preset, by what x of its
// policies counts.
func PerGroup(osds []OSD, p preset.Preset) []int {
	in := map[string]int{}
	for _, o := range osds {
		if o.Takes() && (len(p.OSDs) == 0 || slices.Contains(p.OSDs, o.Number)) {
			in[p.Spread.Group(o.Node, o.Domain)]++
		}
	}
	out := make([]int, 0, len(in))
	for _, n := range in {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// Crowded returns which fragments of a chunk are beyond x in their domain, on devices
// that stay; none where x counts nodes. recs returns the record of a device.
func Crowded(by preset.Spread, x int, frags []layout.Fragment, recs func(number uint32) (OSD, bool)) []int {
	if by == preset.ByNode {
		return nil
	}
	in := map[string]int{}
	var out []int
	for i, f := range frags {
		o, ok := recs(f.OSD)
		if f.OSD == 0 || !ok || !o.Takes() {
			continue
		}
		group := by.Group(o.Node, o.Domain)
		if in[group]++; in[group] > x {
			out = append(out, i)
		}
	}
	return out
}
