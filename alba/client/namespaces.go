package client

import (
	"context"
	"errors"

	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
)

// Errors of other packages of Alba that users of a client tell apart.
var (
	// ErrNotExist: no such object.
	ErrNotExist = nsm.ErrNotExist
	// ErrExists: the object exists, or the namespace is not empty.
	ErrExists = nsm.ErrExists
	// ErrAssert: a condition of a sequence does not hold.
	ErrAssert = nsm.ErrAssert
	// ErrNoNamespace: no such namespace, or it is being removed.
	ErrNoNamespace = manager.ErrNotFound
	// ErrNoPolicy: no policy of the preset can be met now.
	ErrNoPolicy = preset.ErrNoPolicy
	// ErrFull: devices are full.
	ErrFull = osd.ErrFull
)

// Assert is a condition of a sequence.
type Assert = nsm.Assert

// CreateNamespace makes a namespace with a preset, empty for the default; one that
// is there with this preset is fine.
func (c *Client) CreateNamespace(ctx context.Context, name, preset string) error {
	_, err := c.o.Manager.CreateNamespace(ctx, name, preset)
	return err
}

// RemoveNamespace removes a namespace and, unless onlyEmpty, the objects in it. An
// absent one is no error; ErrExists when it has to be empty and is not.
func (c *Client) RemoveNamespace(ctx context.Context, name string, onlyEmpty bool) error {
	err := c.o.Manager.RemoveNamespace(ctx, name, onlyEmpty)
	if err == nil {
		c.spaces.Delete(name)
	}
	return err
}

// Namespaces returns up to limit names of namespaces that begin with prefix and sort
// after "after", without those that are being removed. It may return fewer; none
// at all is the end.
func (c *Client) Namespaces(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	for {
		page, err := c.o.Manager.NamespacesAfter(ctx, prefix, after, limit)
		if err != nil || len(page) == 0 {
			return nil, err
		}
		var out []string
		for _, n := range page {
			after = n.Name
			if n.State != nsm.Removing && n.State != manager.Creating {
				out = append(out, n.Name)
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
}

// Usage returns the bytes that objects of a preset can take in all, and how many
// more: what the devices in use have, divided by what its best policy stores
// for a byte.
func (c *Client) Usage(ctx context.Context, presetName string) (total, free int64, err error) {
	p, err := c.o.Manager.Preset(ctx, presetName)
	if err != nil {
		return 0, 0, err
	}
	osds, err := c.o.Manager.OSDs(ctx)
	if err != nil {
		return 0, 0, err
	}
	seen, err := c.o.Manager.SeenAll(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, o := range osds {
		if s := seen[o.Number]; o.Takes() {
			total += s.Used + s.Free
			free += s.Free
		}
	}
	q, _, err := p.Choose(manager.PerGroup(osds, p))
	if errors.Is(err, preset.ErrNoPolicy) {
		return total, 0, nil
	}
	k, n := int64(q.K), int64(q.N())
	return total / n * k, free / n * k, err
}
