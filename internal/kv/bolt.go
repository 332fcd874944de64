package kv

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/openvstorage/ovgate/internal/clock"
)

// The file of the embedded store is a bbolt database with four buckets. All
// numbers are big-endian 64-bit.
//
//	meta        "format"  -> boltFormat
//	            "rev"     -> newest revision
//	            "lease"   -> newest lease id
//	kv          key       -> create rev | mod rev | lease | value
//	leases      lease id  -> time to live, ns
//	lease_keys  lease id | key -> (empty)     index of kv by lease
//
// One goroutine, the committer, makes all changes: it takes whatever requests
// wait, runs them one after the other inside one bbolt transaction, each with
// its own revision, syncs once, and only then answers them and feeds the
// watches. So 32 concurrent writers cost one sync, and a transaction still
// sees exactly those before it.
const boltFormat = 1

// defaultLockTimeout is how long OpenBolt waits for the file lock: long enough
// for a predecessor that was just killed to be gone, short enough to be told
// quickly about one that lives.
const defaultLockTimeout = time.Second

// Defaults of Range (see Store).
const (
	defaultRangeLimit = 1000
	maxRangeLimit     = 10_000
)

var (
	bucketMeta      = []byte("meta")
	bucketKV        = []byte("kv")
	bucketLeases    = []byte("leases")
	bucketLeaseKeys = []byte("lease_keys")

	metaFormat = []byte("format")
	metaRev    = []byte("rev")
	metaLease  = []byte("lease")
)

// BoltOptions configure OpenBolt. The zero value is good for production.
type BoltOptions struct {
	// Clock times leases; nil: the machine's.
	Clock clock.Clock
	// Timeout bounds the wait for the file lock; 0: one second.
	Timeout time.Duration
	// NoSync skips syncing: a power cut loses or destroys the store. For tests.
	NoSync bool
}

// Bolt is the Store on one bbolt file. Only one process can hold it.
type Bolt struct {
	path  string
	db    *bolt.DB
	clock clock.Clock

	reqs    chan *request
	quit    chan struct{} // closed by Close
	stopped chan struct{} // closed when the committer has ended
	wg      sync.WaitGroup
	close   sync.Once

	// commitTx is (*bolt.Tx).Commit; tests make it fail.
	commitTx func(*bolt.Tx) error

	failMu sync.Mutex
	failed error // a commit whose outcome is unknown: the store answers no more

	hub    hub
	leases leaseTable
}

var _ Store = (*Bolt)(nil)

// OpenBolt opens or creates the store in the file path (mode 0600; its
// directory must exist). ErrLocked: another process has it open. ErrFormat: a
// newer version wrote it, or the file is something else.
func OpenBolt(path string, opts BoltOptions) (*Bolt, error) {
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	if opts.Timeout <= 0 {
		opts.Timeout = defaultLockTimeout
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:      opts.Timeout,
		NoSync:       opts.NoSync,
		FreelistType: bolt.FreelistMapType,
	})
	if err != nil {
		return nil, openError(path, err)
	}
	s := &Bolt{
		path:    path,
		db:      db,
		clock:   opts.Clock,
		reqs:    make(chan *request, maxBatch),
		quit:    make(chan struct{}),
		stopped: make(chan struct{}),

		commitTx: (*bolt.Tx).Commit,
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s.wg.Add(2)
	go s.commitLoop()
	go s.expireLoop()
	return s, nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%w: %s: stop the other ovgate, or use another data directory", ErrLocked, path)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
		return fmt.Errorf("%w: %s: %v: restore it from a backup, or recover the vPools into a fresh data directory", ErrFormat, path, err)
	}
	return fmt.Errorf("kv: open %s: %w", path, err)
}

// load prepares the buckets, checks the format and starts every lease anew (K4).
func (s *Bolt) load() error {
	created := false
	err := s.db.View(func(tx *bolt.Tx) error { // which leaves a file of another version as it is
		created = tx.Bucket(bucketMeta) == nil
		return nil
	})
	if err == nil && created {
		err = s.db.Update(createBuckets)
	}
	if err != nil {
		return fmt.Errorf("kv: open %s: %w", s.path, err)
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if f := getUint(meta, metaFormat); f != boltFormat {
			return fmt.Errorf("%w: %s has format %d, this version knows %d: upgrade ovgate", ErrFormat, s.path, f, boltFormat)
		}
		s.hub.init(int64(getUint(meta, metaRev)))
		s.leases.init()
		now := s.clock.Now()
		return tx.Bucket(bucketLeases).ForEach(func(k, v []byte) error {
			s.leases.set(LeaseID(binary.BigEndian.Uint64(k)), time.Duration(binary.BigEndian.Uint64(v)), now)
			return nil
		})
	})
	if err == nil && created {
		err = syncDir(filepath.Dir(s.path))
	}
	if err != nil && !errors.Is(err, ErrFormat) {
		err = fmt.Errorf("kv: open %s: %w", s.path, err)
	}
	return err
}

func createBuckets(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketKV, bucketLeases, bucketLeaseKeys} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(metaFormat, be64(boltFormat))
}

// syncDir makes the new file's name durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Close implements Store.
func (s *Bolt) Close() error {
	var err error
	s.close.Do(func() {
		close(s.quit)
		s.hub.end()
		s.wg.Wait()
		err = s.db.Close()
	})
	return err
}

func (s *Bolt) closed() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}

// ready says whether the store may answer.
func (s *Bolt) ready(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.closed() {
		return ErrClosed
	}
	s.failMu.Lock()
	defer s.failMu.Unlock()
	return s.failed
}

// view reads a consistent state of the store.
func (s *Bolt) view(ctx context.Context, fn func(tx *bolt.Tx)) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	err := s.db.View(func(tx *bolt.Tx) error {
		fn(tx)
		return nil
	})
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}

// Get implements Store.
func (s *Bolt) Get(ctx context.Context, key string) (*KV, error) {
	if err := validateKey([]byte(key)); err != nil {
		return nil, err
	}
	var kv *KV
	err := s.view(ctx, func(tx *bolt.Tx) { kv = loadKV(tx, []byte(key)) })
	return kv, err
}

// GetAll implements Store.
func (s *Bolt) GetAll(ctx context.Context, keys []string) ([]*KV, error) {
	if _, err := Gets(keys); err != nil {
		return nil, err
	}
	out := make([]*KV, len(keys))
	err := s.view(ctx, func(tx *bolt.Tx) {
		for i, k := range keys {
			out[i] = loadKV(tx, []byte(k))
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Range implements Store.
func (s *Bolt) Range(ctx context.Context, prefix, after string, limit int) ([]KV, int64, error) {
	if err := ValidatePrefix(prefix, after); err != nil {
		return nil, 0, err
	}
	if limit <= 0 {
		limit = defaultRangeLimit
	}
	limit = min(limit, maxRangeLimit)
	var (
		kvs []KV
		rev int64
	)
	err := s.view(ctx, func(tx *bolt.Tx) {
		rev = int64(getUint(tx.Bucket(bucketMeta), metaRev))
		c := tx.Bucket(bucketKV).Cursor()
		k, v := c.Seek([]byte(max(prefix, after)))
		if after != "" && string(k) == after {
			k, v = c.Next()
		}
		for ; k != nil && bytes.HasPrefix(k, []byte(prefix)) && len(kvs) < limit; k, v = c.Next() {
			kvs = append(kvs, decodeKV(k, v))
		}
	})
	return kvs, rev, err
}

// Dump implements Store. It holds one read transaction of bbolt: a change that makes the
// file larger waits for its end.
func (s *Bolt) Dump(ctx context.Context, prefix string, begin func(rev int64) error, each func(KV) error) error {
	if err := ValidatePrefix(prefix, ""); err != nil {
		return err
	}
	var err error
	viewed := s.view(ctx, func(tx *bolt.Tx) {
		if err = begin(int64(getUint(tx.Bucket(bucketMeta), metaRev))); err != nil {
			return
		}
		c := tx.Bucket(bucketKV).Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
			if err = s.ready(ctx); err == nil {
				err = each(decodeKV(k, v))
			}
			if err != nil {
				return
			}
		}
	})
	return errors.Join(viewed, err)
}

// recordHeader is the part of a stored value before the caller's: create
// revision, mod revision, lease.
const recordHeader = 24

func encodeKV(kv KV) []byte {
	b := make([]byte, recordHeader, recordHeader+len(kv.Value))
	binary.BigEndian.PutUint64(b, uint64(kv.CreateRev))
	binary.BigEndian.PutUint64(b[8:], uint64(kv.ModRev))
	binary.BigEndian.PutUint64(b[16:], uint64(kv.Lease))
	return append(b, kv.Value...)
}

// decodeKV copies a stored record out of bbolt's memory.
func decodeKV(k, v []byte) KV {
	return KV{
		Key:       bytes.Clone(k),
		Value:     append([]byte{}, v[recordHeader:]...),
		CreateRev: int64(binary.BigEndian.Uint64(v)),
		ModRev:    int64(binary.BigEndian.Uint64(v[8:])),
		Lease:     LeaseID(binary.BigEndian.Uint64(v[16:])),
	}
}

func loadKV(tx *bolt.Tx, key []byte) *KV {
	v := tx.Bucket(bucketKV).Get(key)
	if v == nil {
		return nil
	}
	kv := decodeKV(key, v)
	return &kv
}

func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// getUint reads a number of the meta bucket; 0 when it was never set.
func getUint(b *bolt.Bucket, key []byte) uint64 {
	v := b.Get(key)
	if len(v) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(v)
}
