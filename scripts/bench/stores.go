package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	plainswift "github.com/ncw/swift/v2"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/scripts/drill/node"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/encrypted"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
	"github.com/openvstorage/ovgate/volumedriver/backend/s3"
	"github.com/openvstorage/ovgate/volumedriver/backend/swift"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	// storesPrefix begins the keys of the set stores.
	storesPrefix = "store-"
	needStores   = 34 << 30 // 23 GB in Swift with its copies, 10 GB in S3, and the journal
	// storeSCO is the object of the PUT rows, in bytes: the default SCO.
	storeSCO = volume.DefaultSCOSize
	// storeDepth are in flight: what a node uploads at a time.
	storeDepth = 8
	// storeQuota is the journal of the vDisk that is written, in bytes; storeWrites is
	// what a step writes, past four of them, and so much that its begin and end, where
	// nothing is uploaded or nothing written, are a small part.
	storeQuota  = volume.DefaultQuota
	storeWrites = 5 * storeQuota
	// storeReads is how many uncached 4 KiB reads a round counts.
	storeReads = 400
)

// storeKinds are the sides: a peer, and what people call it.
var storeKinds = []struct{ key, name string }{
	{"s3", "S3 (versitygw)"}, {"s3-encrypted", "S3 (versitygw), encrypted"}, {"swift", "Swift, 3 replicas"}, {"swift-ec", "Swift, EC 4+2"},
}

// storeComparisons are the rows of the set stores.
func (r *results) storeComparisons() []comparison {
	var out []comparison
	for _, s := range storeKinds {
		k := func(what string) string { return storesPrefix + s.key + "-" + what }
		out = append(out,
			comparison{"vdisk on " + s.name + ": sequential write, the plain client's PUT of 16 MiB objects", k("write"), k("put"), 0.85, "MiB/s"},
			comparison{"vdisk on " + s.name + ": uncached 4k random reads, requests they took", k("reads"), k("read-requests"), 1, "reads"},
			comparison{"vdisk on " + s.name + ": requests for a GiB written in order, objects of SCO size in it", k("requests"), k("objects"), 0, "requests"})
	}
	return out
}

// storeSide is a vPool on a store, and a plain client of it.
type storeSide struct {
	key     string
	counted *remote.Store
	pool    *volume.Pool
	// put and remove are the plain client's.
	put    func(ctx context.Context, name string, data []byte) error
	remove func(ctx context.Context, name string) error

	made atomic.Int64 // objects of the plain client
	data []byte
	disk ordered
}

// WriteAt implements disk: each block is an object.
func (s *storeSide) WriteAt(p []byte, _ int64) (int, error) {
	return len(p), s.put(context.Background(), fmt.Sprintf("plain/%08d", s.made.Add(1)), p)
}

// ReadAt implements disk.
func (s *storeSide) ReadAt([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }

// clean removes what the plain client made.
func (s *storeSide) clean(ctx context.Context) error {
	for n := s.made.Swap(0); n > 0; n-- {
		if err := s.remove(ctx, fmt.Sprintf("plain/%08d", n)); err != nil {
			return err
		}
	}
	return nil
}

// writes fills a new vDisk in order and returns when all of it is on the store.
func (s *storeSide) writes(ctx context.Context, r *results) (float64, int64, error) {
	v := vol{s.disk.now.Load()}
	before := requests(s.counted)
	began := time.Now()
	if err := fillFrom(v, storeWrites, s.data); err != nil {
		return 0, 0, err
	}
	if err := v.Commit(ctx); err != nil {
		return 0, 0, err
	}
	rate := storeWrites / float64(mib) / time.Since(began).Seconds()
	gib := float64(storeWrites) / (1 << 30)
	r.add(storesPrefix+s.key+"-requests", float64(requests(s.counted)-before)/gib)
	r.add(storesPrefix+s.key+"-objects", (1<<30)/float64(storeSCO))
	return rate, storeWrites / mib, s.reads(ctx, r)
}

// reads counts the requests of uncached reads.
func (s *storeSide) reads(ctx context.Context, r *results) error {
	v := s.disk.now.Load()
	rng := rand.New(rand.NewPCG(1, uint64(s.made.Load())))
	buf := make([]byte, blockSize)
	before := kindRequests(s.counted, remote.Read)
	seen := map[int64]bool{}
	for len(seen) < storeReads {
		// One in each group: a second read of a group may come from the cache.
		group := rng.Int64N(storeWrites / (64 << 10))
		if seen[group] {
			continue
		}
		seen[group] = true
		if err := v.ReadAt(ctx, buf, group*(64<<10)+rng.Int64N(16)*blockSize); err != nil {
			return err
		}
	}
	r.add(storesPrefix+s.key+"-reads", storeReads)
	r.add(storesPrefix+s.key+"-read-requests", float64(kindRequests(s.counted, remote.Read)-before))
	return nil
}

// fillFrom writes noise in order, 4 commands of 1 MiB in flight.
func fillFrom(d disk, size int64, noise []byte) error {
	errs := make(chan error, 4)
	var next atomic.Int64
	for range cap(errs) {
		go func() {
			for {
				off := (next.Add(1) - 1) * mib
				if off >= size {
					errs <- nil
					return
				}
				at := off * 31 % int64(len(noise)-mib) &^ 511
				if _, err := d.WriteAt(noise[at:at+mib], off); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	var all []error
	for range cap(errs) {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func requests(s *remote.Store) uint64 {
	n := uint64(0)
	for _, k := range s.Stats().Kinds {
		n += k.Requests
	}
	return n
}

func kindRequests(s *remote.Store, kind remote.Kind) uint64 {
	return s.Stats().Kinds[kind].Requests
}

// s3Side opens a vPool on the S3 peer.
func s3Side(ctx context.Context, p *node.Peer, host *volume.Host, key string) (*storeSide, error) {
	plain, err := dialS3(p)
	if err != nil {
		return nil, err
	}
	o := s3.Options{Endpoint: p.Said["endpoint"], Region: p.Said["region"], Bucket: plain.bucket, Prefix: key, AccessKey: p.Said["access_key"], SecretKey: p.Said["secret_key"], Clock: clock.Real{}}
	if o.Found, _, err = s3.Detect(ctx, o); err != nil {
		return nil, err
	}
	store, err := s3.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &storeSide{key: key, put: plain.put, remove: plain.remove}
	return s, s.attach(ctx, host, store)
}

// swiftSide opens a vPool on the Swift peer.
func swiftSide(ctx context.Context, p *node.Peer, host *volume.Host, key, policy string) (*storeSide, error) {
	c := &plainswift.Connection{AuthUrl: p.Said["auth"], UserName: p.Said["user"], ApiKey: p.Said["key"], AuthVersion: 1}
	if err := c.Authenticate(ctx); err != nil {
		return nil, err
	}
	plain := "plain-" + policy
	if err := c.ContainerCreate(ctx, plain, plainswift.Headers{"X-Storage-Policy": policy}); err != nil {
		return nil, err
	}
	o := swift.Options{AuthURL: p.Said["auth"], User: p.Said["user"], Key: p.Said["key"], Container: "vpools-" + policy, Policy: policy, Prefix: key + "/", Clock: clock.Real{}}
	found, _, err := swift.Detect(ctx, o)
	if err != nil {
		return nil, err
	}
	o.Found = &found
	store, err := swift.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &storeSide{
		key: key,
		put: func(ctx context.Context, name string, data []byte) error {
			return c.ObjectPutBytes(ctx, plain, name, data, "application/octet-stream")
		},
		remove: func(ctx context.Context, name string) error { return c.ObjectDelete(ctx, plain, name) },
	}
	return s, s.attach(ctx, host, store)
}

func (s *storeSide) attach(ctx context.Context, host *volume.Host, store backend.Store) error {
	s.counted = remote.New(store, remote.Options{Clock: clock.Real{}})
	var below backend.Store = s.counted
	if strings.HasSuffix(s.key, "encrypted") {
		key, err := encrypted.NewKey(rand.NewChaCha8([32]byte{1}))
		if err != nil {
			return err
		}
		if below, err = encrypted.Create(ctx, below, key); err != nil {
			return err
		}
	}
	var err error
	s.pool, err = host.AttachPool(ctx, volume.PoolConfig{
		ClusterID: "bench", ID: s.key, Name: s.key, Store: below, Settings: volume.Settings{JournalQuota: storeQuota, SCOSize: storeSCO},
	})
	s.disk.pool, s.disk.size = s.pool, storeWrites
	s.data = make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(s.data)
	return err
}

func (s *storeSide) steps(r *results) []step {
	k := func(what string) string { return storesPrefix + s.key + "-" + what }
	return []step{
		{
			key:    k("put"),
			settle: func(ctx context.Context) error { return errors.Join(s.clean(ctx), settleDisk(true)) },
			run: func(_ context.Context, seconds float64, seed uint64) (float64, int64, error) {
				w := work{name: "plain PUT", write: true, depth: storeDepth, block: storeSCO, minBytes: storeWrites}
				rate, n, err := w.run(s, storeSCO, seconds, seed)
				return rate * storeSCO / mib, n, err
			},
		},
		{
			key:    k("write"),
			settle: func(ctx context.Context) error { return errors.Join(s.clean(ctx), s.disk.fresh(ctx), settleDisk(true)) },
			run: func(ctx context.Context, _ float64, _ uint64) (float64, int64, error) {
				return s.writes(ctx, r)
			},
		},
	}
}

// measureStores runs the set stores.
func measureStores(ctx context.Context, o options, dir string, r *results) (err error) {
	r.noise = newNoise()
	fmt.Println("bench: preparing versitygw and Swift")
	var closers []func() error
	defer func() {
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
	}()
	state, err := blockfs.OS(filepath.Join(dir, "state"))
	if err != nil {
		return err
	}
	db, err := kv.OpenBolt(filepath.Join(dir, "kv.db"), kv.BoltOptions{})
	if err != nil {
		return err
	}
	closers = append(closers, db.Close)
	// No cache to speak of: what is read comes from the store.
	host, err := volume.NewHost(ctx, volume.HostOptions{FS: state, Registry: volume.KVRegistry{Store: db}, Node: "bench", CacheBytes: 1 << 20, Uploads: storeDepth})
	if err != nil {
		return err
	}
	closers = append(closers, func() error { return host.Close(context.Background()) })
	var steps []step
	for _, name := range []string{"s3", "swift"} {
		p, err := startPeer(ctx, dir, name, "bench", "--data", filepath.Join(dir, name))
		if err != nil {
			return err
		}
		closers = append([]func() error{p.Close}, closers...)
		pids, err := peerPIDs(p)
		if err != nil {
			return err
		}
		r.noise.pids = append(r.noise.pids, pids...)
		for _, kind := range storeKinds {
			if !strings.HasPrefix(kind.key, name) {
				continue
			}
			var side *storeSide
			if name == "s3" {
				side, err = s3Side(ctx, p, host, kind.key)
			} else {
				policy := "gold"
				if kind.key == "swift-ec" {
					policy = "ec42"
				}
				side, err = swiftSide(ctx, p, host, kind.key, policy)
			}
			if err != nil {
				return err
			}
			steps = append(steps, side.steps(r)...)
		}
	}
	if err := rounds(ctx, o, steps, r); err != nil {
		return err
	}
	r.stores = fmt.Sprintf("%s; %s", cachesDropped(), r.noise)
	r.configs = append(r.configs,
		[2]string{storesPrefix + "s3", fmt.Sprintf("versitygw v1.8.0 on a directory of the same disk, plain HTTP on loopback; engine in process, SCOs of %d MiB, %d uploads at a time, journal quota %d MiB, %d MiB written until all is on the store; plain client minio-go, %d PUTs at a time", storeSCO>>20, storeDepth, storeQuota>>20, storeWrites>>20, storeDepth)},
		[2]string{storesPrefix + "swift", fmt.Sprintf("Debian's Swift, six directories of the same disk, plain HTTP on loopback, 1 worker; engine as with S3; plain client ncw/swift, %d PUTs at a time", storeDepth)})
	return nil
}
