package model

import "context"

// CreateTarget stores a new shared target; ErrExists if its name or IQN is
// another shared target's, ErrConflict if the IQN is a vDisk's.
func (s *Store) CreateTarget(ctx context.Context, t SharedTarget) (SharedTarget, error) {
	t.Format = Format
	return s.targets.insert(ctx, t, nil)
}

// Target returns a shared target by id.
func (s *Store) Target(id string) (SharedTarget, bool) { return s.targets.get(id) }

// TargetByName returns a shared target by name.
func (s *Store) TargetByName(name string) (SharedTarget, bool) {
	return s.targets.lookup("target/" + name)
}

// TargetByIQN returns the shared target of that iSCSI name.
func (s *Store) TargetByIQN(iqn string) (SharedTarget, bool) { return s.targets.lookup("iqn/" + iqn) }

// Targets returns the shared targets in no particular order.
func (s *Store) Targets() []SharedTarget { return s.targets.all(nil) }

// UpdateTarget changes a shared target through fn; an error of fn is returned
// and nothing changes.
func (s *Store) UpdateTarget(ctx context.Context, id string, fn func(*SharedTarget) error) (SharedTarget, error) {
	return s.targets.update(ctx, id, func(t *SharedTarget) error {
		t.Format = Format
		return fn(t)
	})
}

// DeleteTarget removes a shared target; absent is no error.
func (s *Store) DeleteTarget(ctx context.Context, id string) error {
	return s.targets.remove(ctx, id, nil)
}

// VDiskByLUN returns the vDisk that has a LUN of a shared target.
func (s *Store) VDiskByLUN(target string, lun uint16) (VDisk, bool) {
	return s.vdisks.lookup(lunKey(target, lun))
}
