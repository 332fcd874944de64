package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/internal/kv/kvtest"
)

// cluster is members in this process.
type cluster struct {
	options   []etcd.ServerOptions
	servers   []*etcd.Server
	endpoints []string
}

func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	for try := 1; ; try++ {
		c := &cluster{servers: make([]*etcd.Server, n)}
		members := map[string]string{}
		for i := range n {
			o := etcd.ServerOptions{Name: fmt.Sprint("m", i), Dir: t.TempDir(), Members: members, Client: etcdtest.Free(t), Token: t.Name()}
			members[o.Name] = etcdtest.Free(t)
			c.options, c.endpoints = append(c.options, o), append(c.endpoints, o.Client)
		}
		err := c.run(all...)
		if err == nil {
			t.Cleanup(func() {
				for i := range n {
					c.stop(i)
				}
			})
			return c
		}
		for i := range n {
			c.stop(i)
		}
		if !errors.Is(err, syscall.EADDRINUSE) || try == 10 {
			t.Fatal(err)
		} // a test beside this one was quicker
	}
}

// start starts members together: none is ready without a quorum.
func (c *cluster) start(t testing.TB, members ...int) {
	t.Helper()
	if err := c.run(members...); err != nil {
		t.Fatal(err)
	}
}

// run is start that fails once all members have come to an end: what they work on stays until
// then.
func (c *cluster) run(members ...int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	errs := make(chan error, len(members))
	for _, i := range members {
		go func() {
			s, err := etcd.Serve(ctx, c.options[i])
			c.servers[i] = s
			errs <- err
		}()
	}
	var first error
	for range members {
		if err := <-errs; err != nil && first == nil {
			first = err
			cancel()
		}
	}
	return first
}

func (c *cluster) stop(i int) {
	if c.servers[i] != nil {
		c.servers[i].Close()
		c.servers[i] = nil
	}
}

func (c *cluster) open(t testing.TB, prefix string) *etcd.Store {
	t.Helper()
	return openAt(t, prefix, c.endpoints...)
}

// compact makes the cluster forget its history.
func (c *cluster) compact(t *testing.T) {
	t.Helper()
	cl, err := clientv3.New(clientv3.Config{Endpoints: c.endpoints})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cl.Close(); err != nil {
			t.Error(err)
		}
	}()
	now, err := cl.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Compact(t.Context(), now.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
}

// TestConformance: each test has a prefix of its own in one cluster, beside others'.
func TestConformance(t *testing.T) {
	c := newCluster(t, 1)
	var n atomic.Int64
	prefixes := map[kv.Store]string{}
	kvtest.Run(t, func(t *testing.T) kv.Store {
		prefix := fmt.Sprintf("ovgate/%d/", n.Add(1))
		s := c.open(t, prefix)
		prefixes[s] = prefix
		return s
	}, kvtest.Options{
		Compact: func(t *testing.T, _ kv.Store) { c.compact(t) },
		Reopen: func(t *testing.T, s kv.Store) kv.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			c.stop(0)
			c.start(t, 0)
			return c.open(t, prefixes[s])
		},
	})
}

// increment adds one to a counter, however often it has to ask.
func increment(ctx context.Context, s kv.Store, key string) error {
	for {
		old, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		var rev int64
		var value byte
		if old != nil {
			rev, value = old.ModRev, old.Value[0]
		}
		res, err := s.Txn(ctx, []kv.Compare{kv.ModRevIs(key, rev)}, []kv.Op{kv.Put(key, []byte{value + 1})}, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

// TestMembersLost: one of three is lost and nothing stops, two are and nothing is
// answered, and when one is back everything is there and watches go on.
func TestMembersLost(t *testing.T) {
	c := newCluster(t, 3)
	s := c.open(t, "ovgate/lost/")
	ctx := t.Context()
	_, rev, err := s.Range(ctx, "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := s.Watch(ctx, "n", rev)
	if err != nil {
		t.Fatal(err)
	}
	value := byte(0)
	next := func() {
		t.Helper()
		// A member that is about to be missed may leave the outcome unknown (K1).
		for {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := increment(ctx, s, "n")
			cancel()
			if err == nil {
				break
			}
			t.Log(err)
		}
		got, err := s.Get(ctx, "n")
		if err != nil || got == nil || got.Value[0] <= value {
			t.Fatalf("counter %v after %d: %v", got, value, err)
		}
		for value < got.Value[0] {
			b, ok := <-watch
			if !ok || b.Err != nil || len(b.Events) != 1 || b.Events[0].KV.Value[0] != value+1 {
				t.Fatalf("watch after %d: %+v, open %v", value, b, ok)
			}
			value++
		}
	}
	next()
	leader := -1
	for i, m := range c.servers {
		if m.Leads() {
			leader = i
		}
	}
	if leader < 0 {
		t.Fatal("no leader")
	}
	c.stop(leader)
	next()
	other := (leader + 1) % 3
	c.stop(other)
	for _, ask := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := s.Get(ctx, "n"); return err },
		func(ctx context.Context) error { return increment(ctx, s, "n") },
	} {
		short, cancel := context.WithTimeout(ctx, time.Second)
		if err := ask(short); err == nil {
			t.Error("answered without a quorum")
		}
		cancel()
	}
	c.start(t, other)
	next()
	c.start(t, leader)
	next()
}

// TestSlowWatcher: one that does not read keeps a bounded queue. It sees everything once,
// in order, or is told that it missed something.
func TestSlowWatcher(t *testing.T) {
	c := newCluster(t, 1)
	s := c.open(t, "ovgate/slow/")
	ctx := t.Context()
	_, rev, err := s.Range(ctx, "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	watch := func() <-chan kv.WatchBatch {
		ch, err := s.Watch(ctx, "", rev)
		if err != nil {
			t.Fatal(err)
		}
		return ch
	}
	late, never := watch(), watch()
	const changes = 40 // 20 MiB
	big := make([]byte, 512<<10)
	for i := range changes {
		if _, err := s.Txn(ctx, nil, []kv.Op{kv.Put(fmt.Sprint(i), big)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	// read returns how many changes came before the end, or all of them.
	read := func(ch <-chan kv.WatchBatch) (n int, _ error) {
		for b := range ch {
			if b.Err != nil {
				return n, b.Err
			}
			if got := string(b.Events[0].KV.Key); len(b.Events) != 1 || got != fmt.Sprint(n) {
				t.Fatalf("change %s, want %d", got, n)
			}
			if n++; n == changes {
				return n, nil
			}
		}
		return n, errors.New("closed")
	}
	for _, ch := range []<-chan kv.WatchBatch{watch(), late} {
		if n, err := read(ch); err != nil {
			t.Fatalf("after %d of %d: %v", n, changes, err)
		}
	}
	c.compact(t)
	if n, err := read(never); !errors.Is(err, kv.ErrCompacted) || n == 0 {
		t.Fatalf("after %d of %d: %v", n, changes, err)
	}
}

func TestRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for name, o := range map[string]etcd.Options{
		"no endpoint":  {Prefix: "a/"},
		"no prefix":    {Endpoints: []string{"http://127.0.0.1:1"}},
		"nobody there": {Endpoints: []string{etcdtest.Free(t)}, Prefix: "a/"},
	} {
		if s, err := etcd.Open(ctx, o); err == nil {
			t.Errorf("%s: opened, %v", name, s.Close())
		}
	}
	for name, o := range map[string]etcd.ServerOptions{
		"not a member":   {Name: "a", Members: map[string]string{"b": etcdtest.Free(t)}, Client: etcdtest.Free(t)},
		"open to all":    {Name: "a", Members: map[string]string{"a": "http://192.0.2.1:1"}, Client: etcdtest.Free(t)},
		"half of it TLS": {Name: "a", Members: map[string]string{"a": "https://127.0.0.1:1"}, Client: etcdtest.Free(t)},
	} {
		o.Dir = t.TempDir()
		if s, err := etcd.Serve(ctx, o); err == nil {
			s.Close()
			t.Errorf("%s: served", name)
		}
	}
}
