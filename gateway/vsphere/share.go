package vsphere

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/openvstorage/ovgate/integrations/vsphere"
)

// callsAtOnce bounds what the hosts of one vCenter are asked to do at once: it takes some
// tens of calls.
const callsAtOnce = 32

// shares has what several want of a host at the same time done once. Who asks is given what
// began after that, never what was under way: so ten new LUNs take one rescan, and none is
// missed by one that began before it was there.
type shares struct {
	mu            sync.Mutex
	running, next map[string]*share // by what is wanted
}

// share is done for all that asked before it began.
type share struct {
	done  chan struct{}
	value any
	err   error // errLeft: it was not done, as the first who asked went away
}

var errLeft = errors.New("nobody did it")

// shared has fn done with a slot, by the first who asked, and returns what came of it.
func shared[T any](ctx context.Context, all *shares, key string, slots chan struct{}, fn func(context.Context) (T, error)) (T, error) {
	for {
		s, before := all.join(key)
		if s.mine {
			v, err := all.lead(ctx, key, s.share, before, slots, func(ctx context.Context) (any, error) { return fn(ctx) })
			out, _ := v.(T)
			return out, err
		}
		select {
		case <-s.done:
			if errors.Is(s.err, errLeft) {
				continue
			}
			out, _ := s.value.(T)
			return out, s.err
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		}
	}
}

type joined struct {
	*share
	mine bool // the caller does it
}

// join returns the share that is next, and the one that is under way.
func (s *shares) join(key string) (next joined, before *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.next[key]; n != nil {
		return joined{n, false}, nil
	}
	n := &share{done: make(chan struct{})}
	s.next[key] = n
	return joined{n, true}, s.running[key]
}

// lead waits for the one before and for a slot, and does what is wanted.
func (s *shares) lead(ctx context.Context, key string, n, before *share, slots chan struct{}, fn func(context.Context) (any, error)) (any, error) {
	leave := func() (any, error) {
		s.mu.Lock()
		delete(s.next, key)
		s.mu.Unlock()
		n.err = errLeft
		close(n.done)
		return nil, ctx.Err()
	}
	if before != nil {
		select {
		case <-before.done:
		case <-ctx.Done():
			return leave()
		}
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		return leave()
	}
	s.mu.Lock()
	delete(s.next, key)
	s.running[key] = n
	s.mu.Unlock()
	v, err := fn(ctx)
	n.value, n.err = v, err
	if err != nil && ctx.Err() != nil {
		n.err = errLeft // for others it may go well
	}
	s.mu.Lock()
	if s.running[key] == n {
		delete(s.running, key)
	}
	s.mu.Unlock()
	close(n.done)
	return v, err
}

// slotsOf are the calls at once of a vCenter.
func (m *Manager) slotsOf(center string) chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.calls[center]
	if s == nil {
		s = make(chan struct{}, callsAtOnce)
		m.calls[center] = s
	}
	return s
}

// call does one thing on a host of a vCenter when fewer than callsAtOnce are done.
func (m *Manager) call(ctx context.Context, center string, fn func() error) error {
	slots := m.slotsOf(center)
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		return fn()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// storages looks at a part of the storage of hosts of a vCenter.
func (m *Manager) storages(ctx context.Context, center string, v *vsphere.Center, hosts []*vsphere.Host, part vsphere.Part) (map[string]*vsphere.Storage, error) {
	key := []string{center, "adapters"}
	if part == vsphere.Disks {
		key[1] = "disks"
	}
	for _, h := range hosts {
		key = append(key, h.ID())
	}
	return shared(ctx, &m.shares, strings.Join(key, " "), m.slotsOf(center), func(ctx context.Context) (map[string]*vsphere.Storage, error) {
		return v.Storages(ctx, hosts, part)
	})
}

// rescanDisks has a host look for disks on its adapter, and returns what it has then.
func (m *Manager) rescanDisks(ctx context.Context, center string, h *vsphere.Host, device string) (*vsphere.Storage, error) {
	return shared(ctx, &m.shares, center+" rescan "+h.ID(), m.slotsOf(center), func(ctx context.Context) (*vsphere.Storage, error) {
		return h.RescanDisks(ctx, device)
	})
}

// rescanVolumes has a host look for datastores.
func (m *Manager) rescanVolumes(ctx context.Context, center string, h *vsphere.Host) error {
	_, err := shared(ctx, &m.shares, center+" volumes "+h.ID(), m.slotsOf(center), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, h.RescanVolumes(ctx)
	})
	return err
}
