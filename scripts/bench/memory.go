package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// memoryStore is a backend in the memory of the process, for rows about what comes before it.
// The memory of what was deleted is used again, so that a step pays for no new pages.
type memoryStore struct {
	mu      sync.RWMutex
	objects map[string]memoryObject
	free    [][]byte
	closed  bool
}

type memoryObject struct {
	data []byte
	when time.Time
}

var errMemoryClosed = errors.New("the store in memory is closed")

func newMemoryStore() *memoryStore { return &memoryStore{objects: map[string]memoryObject{}} }

// Put implements backend.Store.
func (m *memoryStore) Put(ctx context.Context, name string, data []byte) error {
	_, err := m.put(ctx, name, data)
	return err
}

// PutIfAbsent implements backend.Store.
func (m *memoryStore) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	new, err := m.put(ctx, name, data)
	if err == nil && !new {
		err = fmt.Errorf("%s: %w", name, backend.ErrExists)
	}
	return err
}

// put makes an object and tells whether it was not there.
func (m *memoryStore) put(ctx context.Context, name string, data []byte) (bool, error) {
	if err := check(ctx, name); err != nil {
		return false, err
	}
	b := m.memory(len(data))
	copy(b, data)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false, errMemoryClosed
	}
	if _, there := m.objects[name]; there {
		m.free = append(m.free, b)
		return false, nil
	}
	m.objects[name] = memoryObject{b, time.Now()}
	return true, nil
}

// memory returns n bytes.
func (m *memoryStore) memory(n int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := slices.IndexFunc(m.free, func(b []byte) bool { return cap(b) >= n && cap(b) <= 2*n }); i >= 0 {
		b := m.free[i]
		m.free = slices.Delete(m.free, i, i+1)
		return b[:n]
	}
	return make([]byte, n)
}

func check(ctx context.Context, name string) error {
	if err := backend.ValidName(name); err != nil {
		return err
	}
	return ctx.Err()
}

// read calls do with an object while it stays.
func (m *memoryStore) read(ctx context.Context, name string, do func(memoryObject) error) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return errMemoryClosed
	}
	o, there := m.objects[name]
	if !there {
		return fmt.Errorf("%s: %w", name, backend.ErrNotExist)
	}
	return do(o)
}

// Get implements backend.Store.
func (m *memoryStore) Get(ctx context.Context, name string, limit int64) (data []byte, err error) {
	err = m.read(ctx, name, func(o memoryObject) error {
		if int64(len(o.data)) > limit {
			return fmt.Errorf("%s: %w: %d bytes", name, backend.ErrCorrupt, len(o.data))
		}
		data = slices.Clone(o.data)
		return nil
	})
	return data, err
}

// ReadAt implements backend.Store.
func (m *memoryStore) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	return m.read(ctx, name, func(o memoryObject) error {
		if off < 0 || off > int64(len(o.data)) || int64(len(o.data))-off < int64(len(p)) {
			return fmt.Errorf("%s: %w", name, backend.ErrRange)
		}
		copy(p, o.data[off:])
		return nil
	})
}

// Stat implements backend.Store.
func (m *memoryStore) Stat(ctx context.Context, name string) (info backend.Info, err error) {
	err = m.read(ctx, name, func(o memoryObject) error {
		info = backend.Info{Name: name, Size: int64(len(o.data)), ModTime: o.when}
		return nil
	})
	return info, err
}

// List implements backend.Store.
func (m *memoryStore) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, errMemoryClosed
	}
	var list []backend.Info
	for _, name := range slices.Sorted(maps.Keys(m.objects)) {
		if strings.HasPrefix(name, prefix) && name > after && len(list) < backend.ListLimit(limit) {
			o := m.objects[name]
			list = append(list, backend.Info{Name: name, Size: int64(len(o.data)), ModTime: o.when})
		}
	}
	return list, ctx.Err()
}

// Delete implements backend.Store.
func (m *memoryStore) Delete(ctx context.Context, name string) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errMemoryClosed
	}
	if o, there := m.objects[name]; there {
		delete(m.objects, name)
		m.free = append(m.free, o.data)
	}
	return nil
}

// Usage implements backend.Store.
func (m *memoryStore) Usage(ctx context.Context) (backend.Usage, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return backend.Usage{}, errMemoryClosed
	}
	return backend.Usage{}, ctx.Err()
}

// Features implements backend.Store.
func (m *memoryStore) Features() backend.Features {
	return backend.Features{ConditionalPut: true, ConsistentList: true, CheapReads: true}
}

// Close implements backend.Store.
func (m *memoryStore) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.objects, m.free = true, nil, nil
	return nil
}
