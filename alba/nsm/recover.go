package nsm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/kv"
)

// BeginRecovery puts a namespace whose records were lost into the state
// Recovering, and returns it (N7). One that has objects and is not recovering is
// ErrExists: nothing of it was lost. ErrRemoving, ErrInvalid.
func (h *Host) BeginRecovery(ctx context.Context, id uint64, name string, p preset.Preset) (Namespace, error) {
	for {
		n, err := h.Settle(ctx, id)
		switch {
		case errors.Is(err, ErrNoNamespace):
			n = Namespace{ID: id, Name: name, Preset: p, EpochMin: 1, EpochMax: 1}
		case err != nil:
			return n, err
		case n.Name != name:
			return n, fmt.Errorf("%w: namespace id %d belongs to %s, not %s", ErrInvalid, id, n.Name, name)
		case n.State == Removing:
			return n, n.wrap(ErrRemoving)
		case n.State == Recovering:
			// Garbage that was listed before the loss may be what is left.
			return n, h.clearPrefix(ctx, garbagePrefix(id))
		}
		active := n.State == Active
		if active {
			if err := h.empty(ctx, n); err != nil {
				return n, err
			}
		}
		was := n.unchanged()
		n.State = Recovering
		done, err := h.replace(ctx, &n, was)
		if err != nil {
			return n, err
		}
		if !done || !active {
			continue
		}
		// A put may have come before the state: then it is no loss.
		if missing := h.empty(ctx, n); missing != nil {
			_, err := h.EndRecovery(ctx, id, 0)
			return n, errors.Join(missing, err)
		}
	}
}

func (h *Host) empty(ctx context.Context, n Namespace) error {
	recs, _, err := h.kv.Range(ctx, objectsPrefix(n.ID), "", 1)
	if err == nil && len(recs) > 0 {
		err = n.wrap(fmt.Errorf("%w: it has objects", ErrExists))
	}
	return err
}

// Restore puts back a manifest that recovery rebuilt, unless the one that is there
// is newer: by the time of its creation, then by its object id. It tells whether
// the object is the one that is there now. Repeating it changes nothing.
func (h *Host) Restore(ctx context.Context, n Namespace, m *layout.Manifest) (bool, error) {
	b, err := m.Encode()
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for {
		now, err := h.Namespace(ctx, n.ID)
		if err != nil {
			return false, err
		}
		if now.State != Recovering {
			return false, n.wrap(fmt.Errorf("%w: it is %s, not being recovered", ErrInvalid, now.State))
		}
		was, err := h.Get(ctx, n.ID, m.Name)
		if err != nil && !errors.Is(err, ErrNotExist) {
			return false, err
		}
		var rev int64
		if was != nil {
			rev = was.Revision
			if !newer(m, was) {
				return was.Object == m.Object, nil
			}
		}
		ops := []kv.Op{kv.Put(objectKey(n.ID, m.Name), b), kv.Delete(workKey(n.ID, m.Name))}
		if m.Missing() > 0 {
			if ops[1], err = put(workKey(n.ID, m.Name), Work{Why: "recovered with fewer than all fragments"}); err != nil {
				return false, err
			}
		}
		res, err := h.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(objectKey(n.ID, m.Name), rev), now.unchanged()}, ops, nil)
		if err != nil || res.Succeeded {
			return res.Succeeded, err
		}
	}
}

// newer tells whether a manifest is of a later object, or of the same one with
// more of its fragments: a recovery is repeated when devices came back.
func newer(m, was *layout.Manifest) bool {
	if m.Object == was.Object {
		return m.Missing() < was.Missing()
	}
	if m.Created != was.Created {
		return m.Created > was.Created
	}
	return bytes.Compare(m.Object[:], was.Object[:]) > 0
}

// EndRecovery makes a recovering namespace active, with a first epoch above the one
// given: every tag there is was written in a closed one (N5). One that is active
// stays as it is.
func (h *Host) EndRecovery(ctx context.Context, id, epoch uint64) (Namespace, error) {
	n, err := h.Update(ctx, id, func(n *Namespace) bool {
		if n.State != Recovering {
			return false
		}
		n.State = Active
		n.EpochMax = max(n.EpochMax, epoch+1)
		n.EpochMin = max(n.EpochMin, epoch+1)
		return true
	})
	if err == nil && n.State != Active {
		err = n.wrap(fmt.Errorf("%w: it is %s, not being recovered", ErrInvalid, n.State))
	}
	return n, err
}
