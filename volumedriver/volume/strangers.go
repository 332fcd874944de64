package volume

import (
	"context"
	"errors"
)

// Strangers returns the vDisks that have objects on the backend and that the registry does not
// know, by id; nothing is changed. A creation or deletion that is under way may look like one,
// so only what is one for long has been left behind, by a crash or a registry that is older.
// It costs one listing of one name for each vDisk. Errors: ErrForeignRoot, ErrBackend, that of ctx.
func (p *Pool) Strangers(ctx context.Context) ([]ID, error) {
	ids, err := p.backendDisks(ctx)
	if err != nil {
		return nil, err
	}
	var out []ID
	for _, id := range ids {
		_, err := p.host.o.Registry.Load(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			out = append(out, id)
		case err != nil:
			return nil, err
		}
	}
	return out, nil
}
