package swift

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// shardsMeta records the number of shards at a container.
const shardsMeta = "X-Container-Meta-Ovgate-Shards"

// containerGrace is how long other proxies may go on to believe that a new container
// does not exist.
const containerGrace = time.Minute

// container returns the name of a shard.
func (s *Store) container(shard int) string {
	if s.o.Shards == 1 {
		return s.o.Container
	}
	return fmt.Sprintf("%s-%02x", s.o.Container, shard)
}

// containerOf returns the container of an object.
func (s *Store) containerOf(name string) string {
	shard, ok := s.shardOf(name)
	if !ok {
		shard = 0
	}
	return s.container(shard)
}

// shardOf returns the shard of all names that begin with a text, false if it does not
// determine one.
func (s *Store) shardOf(text string) (int, bool) {
	first := strings.IndexByte(text, '/') + 1
	second := strings.IndexByte(text[first:], '/')
	if first == 0 || second < 0 {
		return 0, s.o.Shards == 1
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(text[:first+second])) // never fails
	return int(h.Sum32() % uint32(s.o.Shards)), true
}

// containers are those that are known to exist, with the settings that the store wants.
type containers struct {
	turn chan struct{} // held by who looks at or makes one

	mu    sync.Mutex
	since map[string]time.Time // when it was made; zero: before the store was opened
}

func newContainers() *containers {
	return &containers{turn: make(chan struct{}, 1), since: map[string]time.Time{}}
}

func (c *containers) known(container string) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.since[container]
	return t, ok
}

// old tells whether a container is known long enough for every proxy to know it.
func (c *containers) old(now time.Time, container string) bool {
	t, ok := c.known(container)
	return ok && now.Sub(t) >= containerGrace
}

// lost returns the error of a PUT into a container that does not exist, and lets the
// next one look. One that was made just now is worth a retry.
func (c *containers) lost(now time.Time, container string, err error) error {
	wasOld := c.old(now, container)
	c.mu.Lock()
	delete(c.since, container)
	c.mu.Unlock()
	var e *remote.Error
	if !errors.As(err, &e) {
		return err
	}
	e.Kind, e.Message = nil, "the store does not see its new container yet"
	if wasOld {
		e.Kind, e.Message = remote.ErrNoContainer, "container "+container+" was removed"
	}
	return e
}

// ensure makes a container unless it exists, and checks its settings.
func (c *containers) ensure(ctx context.Context, s *Store, container string) error {
	if _, ok := c.known(container); ok {
		return nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("container %s: %w", container, ctx.Err())
	}
	if _, ok := c.known(container); ok {
		return nil
	}
	h, err := s.lookAt(ctx, container)
	var made time.Time
	if errors.Is(err, remote.ErrNoContainer) {
		var created bool
		if created, err = s.makeContainer(ctx, container); created {
			made = s.o.Clock.Now()
		} else if err == nil { // somebody else did
			h, err = s.lookAt(ctx, container)
		}
	}
	if err != nil {
		return err
	}
	if made.IsZero() {
		if err := s.checkContainer(container, h); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.since[container] = made
	c.mu.Unlock()
	return nil
}

// one asks for a listing that is hardly one, to get the headers of a container or
// account: Swift answers HEAD of these with the end of a chunked body, which the next
// request on the connection would take for its answer.
var one = url.Values{"format": {"json"}, "limit": {"1"}}

// lookAt returns the headers of a container.
func (s *Store) lookAt(ctx context.Context, container string) (http.Header, error) {
	resp, err := s.do(ctx, request{op: "GET container", name: container, method: http.MethodGet, container: container, query: one})
	if err != nil {
		return nil, err
	}
	drop(resp)
	return resp.Header, nil
}

// makeContainer tells whether this call made it.
func (s *Store) makeContainer(ctx context.Context, container string) (bool, error) {
	r := request{op: "PUT container", name: container, method: http.MethodPut, container: container,
		header: http.Header{shardsMeta: {strconv.Itoa(s.o.Shards)}}}
	if s.o.Policy != "" {
		r.header.Set("X-Storage-Policy", s.o.Policy)
	}
	resp, err := s.do(ctx, r)
	if err == nil {
		drop(resp)
		return resp.StatusCode == http.StatusCreated, nil
	}
	var e *remote.Error
	if errors.As(err, &e) && e.Status == http.StatusBadRequest && s.o.Policy != "" {
		e.Kind = backend.ErrUnsupported
		e.Message = fmt.Sprintf("%s (storage policy %s; there are %s)", e.Message, s.o.Policy, strings.Join(s.found.policyNames(), ", "))
	}
	return false, err
}

// checkContainer compares a container with the options.
func (s *Store) checkContainer(container string, h http.Header) error {
	if has := h.Get("X-Storage-Policy"); s.o.Policy != "" && has != "" && !s.found.samePolicy(has, s.o.Policy) {
		return fmt.Errorf("container %s: %w: it has storage policy %.80q, not %q, and a container's policy never changes: use another container or that policy",
			container, backend.ErrUnsupported, has, s.o.Policy)
	}
	if has := h.Get(shardsMeta); has != "" && has != strconv.Itoa(s.o.Shards) {
		return fmt.Errorf("container %s: %w: it was made as one of %.20q shards, not of %d: objects would not be found; use that number",
			container, backend.ErrUnsupported, has, s.o.Shards)
	}
	return nil
}

// Usage implements backend.Store: the smallest quota of account and container; without
// one, or where the user may not see it, unlimited.
func (s *Store) Usage(ctx context.Context) (backend.Usage, error) {
	if s.closed.Load() {
		return backend.Usage{}, errClosed
	}
	if err := ctx.Err(); err != nil {
		return backend.Usage{}, err
	}
	var u backend.Usage
	resp, err := s.do(ctx, request{op: "GET account", method: http.MethodGet, query: one})
	switch {
	case err == nil:
		drop(resp)
		u = smaller(u, quota(resp.Header, "X-Account-Meta-Quota-Bytes", "X-Account-Bytes-Used"))
	case !errors.Is(err, remote.ErrDenied) && !errors.Is(err, remote.ErrNoContainer):
		return u, err
	}
	if s.o.Shards > 1 {
		return u, nil // a quota of one container limits a part
	}
	h, err := s.lookAt(ctx, s.container(0))
	if err != nil {
		return u, err
	}
	return smaller(u, quota(h, "X-Container-Meta-Quota-Bytes", "X-Container-Bytes-Used")), nil
}

// quota reads a quota and what is used of it; zero: none.
func quota(h http.Header, total, used string) backend.Usage {
	t, err := strconv.ParseInt(h.Get(total), 10, 64)
	if err != nil || t <= 0 {
		return backend.Usage{}
	}
	n, err := strconv.ParseInt(h.Get(used), 10, 64)
	if err != nil || n < 0 {
		n = 0
	}
	return backend.Usage{Total: t, Free: max(t-n, 0)}
}

// smaller returns the one with less free space; a zero one is unlimited.
func smaller(a, b backend.Usage) backend.Usage {
	if b.Total > 0 && (a.Total == 0 || b.Free < a.Free) {
		return b
	}
	return a
}
