package volume

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/faultproxy"
	"github.com/openvstorage/ovgate/internal/testseed"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/alba"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
	"github.com/openvstorage/ovgate/volumedriver/backend/s3"
	"github.com/openvstorage/ovgate/volumedriver/backend/swift"
)

// storeCase is a kind of store that the engine is tested over.
type storeCase struct {
	name string
	// start makes or starts it, in one or several variants; they go with the test.
	start func(t testing.TB) []startedStore
	// slow ones are tried at fewer points.
	slow    bool
	network bool
}

// startedStore is a place that holds stores.
type startedStore struct {
	name string // of several variants
	// open returns an empty store, which goes with the test. A network store is reached
	// at url, or at a proxy for it.
	open     func(t testing.TB, url string) backend.Store
	url      string // "": it is in this process
	protocol faultproxy.Protocol
}

var storeCases = []storeCase{
	{name: "memory", start: here(func(t testing.TB) backend.Store { return openLocal(t, blockfs.NewMem()) })},
	{name: "memory-unconditional", start: here(func(t testing.TB) backend.Store { return unconditional{openLocal(t, blockfs.NewMem())} })},
	{name: "directory", slow: true, start: here(func(t testing.TB) backend.Store {
		fsys, err := blockfs.OS(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return openLocal(t, fsys)
	})},
	{name: "alba", slow: true, start: here(func(t testing.TB) backend.Store {
		c := albatest.New(t, albatest.Options{Nodes: []int{2, 2, 2}})
		return alba.New(alba.Options{Client: c.Client, Prefix: "pool"})
	})},
	{name: "s3", slow: true, network: true, start: startS3},
	{name: "swift", slow: true, network: true, start: startSwift},
}

// here starts a store in this process.
func here(open func(testing.TB) backend.Store) func(testing.TB) []startedStore {
	return func(testing.TB) []startedStore {
		return []startedStore{{open: func(t testing.TB, _ string) backend.Store { return open(t) }}}
	}
}

// eachStore runs a test over every kind of store that is wanted.
func eachStore(t *testing.T, want func(storeCase) bool, run func(*testing.T, storeCase, startedStore)) {
	for _, c := range storeCases {
		if !want(c) || c.name == "swift" && testing.Short() { // whose programs take the time
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if c.network {
				t.Parallel() // they wait more than they work
			}
			all := c.start(t)
			if len(all) == 1 {
				run(t, c, all[0])
				return
			}
			for _, s := range all {
				t.Run(s.name, func(t *testing.T) {
					if c.network {
						t.Parallel()
					}
					run(t, c, s)
				})
			}
		})
	}
}

func anyStore(storeCase) bool { return true }

// startS3 starts a peer that speaks S3.
func startS3(t testing.TB) []startedStore {
	t.Helper()
	p := remotetest.Peer(t, "s3")
	s := inBucket(t, s3.Options{Endpoint: p["endpoint"], Bucket: p["bucket"], Region: p["region"], AccessKey: p["access_key"], SecretKey: p["secret_key"]})
	s.name = ""
	return []startedStore{s}
}

// inBucket is what a bucket holds.
func inBucket(t testing.TB, o s3.Options) startedStore {
	t.Helper()
	var err error
	if o.Found, _, err = s3.Detect(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	return startedStore{name: "s3", url: o.Endpoint, protocol: faultproxy.S3, open: func(t testing.TB, url string) backend.Store {
		o := o
		o.Endpoint, o.Prefix = url, fmt.Sprint("pool", n.Add(1))
		s, err := s3.Open(context.Background(), o)
		return opened(t, s, err)
	}}
}

// startSwift starts Swift, as it speaks S3, with a policy of replicas and with one of an
// erasure code.
func startSwift(t testing.TB) []startedStore {
	t.Helper()
	p := remotetest.Peer(t, "swift")
	auth, err := url.Parse(p["auth"])
	if err != nil {
		t.Fatal(err)
	}
	var n atomic.Int64
	out := []startedStore{inBucket(t, s3.Options{Endpoint: p["endpoint"], Bucket: p["bucket"], Region: p["s3_region"], AccessKey: p["access_key"], SecretKey: p["secret_key"]})}
	for _, policy := range []string{"gold", "ec42"} {
		out = append(out, startedStore{name: policy, url: "http://" + auth.Host, protocol: faultproxy.Swift, open: func(t testing.TB, url string) backend.Store {
			s, err := swift.Open(context.Background(), swift.Options{AuthURL: url + auth.Path, User: p["user"], Key: p["key"],
				Policy: policy, Container: fmt.Sprint("pool", n.Add(1))})
			return opened(t, s, err)
		}})
	}
	return out
}

// opened has a store closed with the test.
func opened(t testing.TB, s backend.Store, err error) backend.Store {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openLocal(t testing.TB, fsys blockfs.FS) backend.Store {
	s, err := local.Open(fsys, local.Options{})
	return opened(t, s, err)
}

// unconditional is a store that cannot put an object on condition that it is not there.
type unconditional struct{ backend.Store }

func (unconditional) PutIfAbsent(context.Context, string, []byte) error {
	return backend.ErrUnsupported
}

func (s unconditional) Features() backend.Features {
	f := s.Store.Features()
	f.ConditionalPut = false
	return f
}

// storeCalls lets a test see, hold and refuse the calls of one user of a store, which
// others use too: closing it leaves the store open.
type storeCalls struct {
	backend.Store
	// before runs before each call. change tells a Put, PutIfAbsent or Delete. The call
	// is made with the context that it returns, unless there is an error.
	before func(ctx context.Context, change bool) (context.Context, error)
}

func (s storeCalls) Put(ctx context.Context, name string, data []byte) error {
	ctx, err := s.before(ctx, true)
	if err != nil {
		return err
	}
	return s.Store.Put(ctx, name, data)
}

func (s storeCalls) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	ctx, err := s.before(ctx, true)
	if err != nil {
		return err
	}
	return s.Store.PutIfAbsent(ctx, name, data)
}

func (s storeCalls) Delete(ctx context.Context, name string) error {
	ctx, err := s.before(ctx, true)
	if err != nil {
		return err
	}
	return s.Store.Delete(ctx, name)
}

func (s storeCalls) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	ctx, err := s.before(ctx, false)
	if err != nil {
		return nil, err
	}
	return s.Store.Get(ctx, name, limit)
}

func (s storeCalls) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	ctx, err := s.before(ctx, false)
	if err != nil {
		return err
	}
	return s.Store.ReadAt(ctx, name, p, off)
}

func (s storeCalls) Stat(ctx context.Context, name string) (backend.Info, error) {
	ctx, err := s.before(ctx, false)
	if err != nil {
		return backend.Info{}, err
	}
	return s.Store.Stat(ctx, name)
}

func (s storeCalls) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	ctx, err := s.before(ctx, false)
	if err != nil {
		return nil, err
	}
	return s.Store.List(ctx, prefix, after, limit)
}

func (storeCalls) Close() error { return nil }

// line is that of a node to a store. Once cut, nothing goes through.
type line struct {
	cut  atomic.Bool
	hook atomic.Pointer[func()] // runs before each change; nil: none
}

var errCut = errors.New("the node has no power")

func (l *line) before(ctx context.Context, change bool) (context.Context, error) {
	if hook := l.hook.Load(); hook != nil && change {
		(*hook)()
	}
	if l.cut.Load() {
		return ctx, errCut
	}
	return ctx, nil
}

// TestModelStores is TestModel over every kind of store, OVGATE_MODEL_OPS operations long
// if that is set and not 0, of which all but the one in
// memory outlive a crash as they are, with what was on its way.
func TestModelStores(t *testing.T) {
	t.Parallel()
	const lives = 2
	ops := 500
	if testing.Short() {
		ops = 100
	}
	if n, err := strconv.Atoi(os.Getenv("OVGATE_MODEL_OPS")); err == nil && n > 0 {
		ops = n
	}
	eachStore(t, anyStore, func(t *testing.T, _ storeCase, s startedStore) {
		seed := testseed.Of(t)
		for life := range uint64(lives) {
			t.Logf("seed %d", seed+life)
			newModel(t, seed+life, s.open(t, s.url)).finish(ops / lives)
		}
	})
}

// networkChances: one read in eight goes wrong, one change in four and one list in three.
var networkChances = map[faultproxy.Kind]float64{
	faultproxy.Refuse5xx: 0.02, faultproxy.Throttle: 0.015, faultproxy.Stall: 0.01,
	faultproxy.ResetRequest: 0.04, faultproxy.ResetResponse: 0.02, faultproxy.Truncate: 0.02, faultproxy.Flip: 0.03,
	faultproxy.StaleList: 0.3, faultproxy.Duplicate: 0.04, faultproxy.DuplicateLate: 0.04, faultproxy.LostAnswer: 0.04,
	faultproxy.FalseSuccess: 0.04, faultproxy.ExpireToken: 0.015, faultproxy.ClockSkew: 0.015,
}

// elsewhere is the kind of fault that a protocol does not know.
var elsewhere = map[faultproxy.Protocol]faultproxy.Kind{faultproxy.S3: faultproxy.ExpireToken, faultproxy.Swift: faultproxy.ClockSkew}

// TestFaultyNetwork runs workloads on real stores over a network that goes wrong all the
// time: reads and writes work nevertheless, everything else when it is asked for again,
// and nothing is lost.
func TestFaultyNetwork(t *testing.T) {
	t.Parallel()
	eachStore(t, func(c storeCase) bool { return c.network }, func(t *testing.T, _ storeCase, s startedStore) {
		seed := int64(testseed.Of(t) >> 1)
		proxy, err := faultproxy.New(faultproxy.Options{Target: s.url, Protocol: s.protocol, Chances: networkChances,
			Rand: mrand.New(mrand.NewPCG(uint64(seed), 3)), Delay: 20 * time.Millisecond, Stall: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := proxy.Close(); err != nil {
				t.Error(err)
			}
		})
		share := 1 // of the scripts
		if s.protocol == faultproxy.Swift {
			share = 2 // which syncs each object several times
		}
		if testing.Short() {
			share = 5
		}
		for i, script := range []func() (int64, []step){grownScript, func() (int64, []step) { return scrubScript(200) }} {
			size, steps := script()
			steps = steps[:len(steps)/share]
			faultRun(t, faultPlan{where: "network", n: seed + int64(i), proxy: proxy, store: s.open(t, proxy.URL())}, steps, size)
		}
		t.Logf("faults %v", proxy.Counts())
		// Root objects are made by the first start of each workload, before its faults.
		if names := proxy.Overwritten(); len(names) > 0 || proxy.Names() == 0 {
			t.Errorf("%d names put, these with other bytes later (E1): %q", proxy.Names(), names)
		}
		for k, n := range proxy.Counts() {
			if n == 0 && share == 1 && k != elsewhere[s.protocol] {
				t.Errorf("no request was %s", k)
			}
		}
	})
}
