package remote

import (
	"context"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	return s.put(ctx, Put, name, data, backend.Store.Put)
}

// PutIfAbsent implements backend.Store.
func (s *Store) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	return s.put(ctx, PutIfAbsent, name, data, backend.Store.PutIfAbsent)
}

func (s *Store) put(ctx context.Context, k Kind, name string, data []byte, do func(backend.Store, context.Context, string, []byte) error) error {
	if err := backend.ValidName(name); err != nil {
		return err
	}
	n := int64(len(data))
	return s.run(ctx, request{kind: k, name: name, upload: n, do: func(ctx context.Context, in backend.Store) (int64, error) {
		if err := do(in, ctx, name, data); err != nil {
			return 0, err
		}
		return n, nil
	}})
}

// Get implements backend.Store.
func (s *Store) Get(ctx context.Context, name string, limit int64) (data []byte, err error) {
	if err := backend.ValidName(name); err != nil {
		return nil, err
	}
	err = s.run(ctx, request{kind: Get, name: name, do: func(ctx context.Context, in backend.Store) (int64, error) {
		var err error
		data, err = in.Get(ctx, name, limit)
		return int64(len(data)), err
	}})
	return data, err
}

// Stat implements backend.Store.
func (s *Store) Stat(ctx context.Context, name string) (info backend.Info, err error) {
	if err := backend.ValidName(name); err != nil {
		return backend.Info{}, err
	}
	err = s.run(ctx, request{kind: Stat, name: name, do: func(ctx context.Context, in backend.Store) (int64, error) {
		var err error
		info, err = in.Stat(ctx, name)
		return 0, err
	}})
	return info, err
}

// List implements backend.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) (infos []backend.Info, err error) {
	err = s.run(ctx, request{kind: List, name: prefix + "*", do: func(ctx context.Context, in backend.Store) (int64, error) {
		var err error
		infos, err = in.List(ctx, prefix, after, limit)
		return 0, err
	}})
	return infos, err
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := backend.ValidName(name); err != nil {
		return err
	}
	return s.run(ctx, request{kind: Delete, name: name, do: func(ctx context.Context, in backend.Store) (int64, error) {
		return 0, in.Delete(ctx, name)
	}})
}

// Usage implements backend.Store. It is asked past all limits: rarely.
func (s *Store) Usage(ctx context.Context) (backend.Usage, error) {
	in, err := s.enter()
	if err != nil {
		return backend.Usage{}, err
	}
	defer s.leave(in)
	return in.Usage(ctx)
}

// Features implements backend.Store: those of the store behind it now.
func (s *Store) Features() backend.Features {
	s.mu.Lock()
	in := s.now
	s.mu.Unlock()
	return in.Features()
}
