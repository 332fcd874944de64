package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/dump"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// A backup of the metadata is the registry of one revision in the format of package dump, as
// the store "registry", without what a lease holds and what notMetadata names. Secrets in it
// are sealed with DIR/seal.key, which is not in it, nor is anything else of a data directory.
// The manifests of an Alba are not in it either: the devices have them, and are newer.

const (
	registryStore = "registry"
	manifests     = "nsm/" // prefix of the manifests of an Alba in a shared registry
	// groupsMaking begins the records of group snapshots that are being made: brought back, one
	// would undo a group that was made since.
	groupsMaking = "model/snapshotgroup/"
	nodePrefix   = "model/node/"
)

// notMetadata begins the keys of records that end with a process or a sign-in, are marks of
// what is being done to the registry, or are better had elsewhere.
var notMetadata = []string{"model/session/", "model/idempotency/", groupsMaking, manifests, movingKey, restoringKey, aliveKeys}

// aliveKeys are of nodes that run; a lease holds them.
const aliveKeys = "cluster/alive/"

// isMetadata tells whether a record is part of a backup.
func isMetadata(e kv.KV) bool {
	for _, p := range notMetadata {
		if strings.HasPrefix(string(e.Key), p) {
			return false
		}
	}
	return e.Lease == 0 && !volume.OfRestore(string(e.Key))
}

// backupMetadata writes the metadata to a file without a name in the data directory, so that
// the registry waits for no network, and returns it at its beginning.
func (n *node) backupMetadata(ctx context.Context) (_ io.ReadCloser, size int64, err error) {
	f, err := os.CreateTemp(n.dir.path, ".metadata-*")
	if err != nil {
		return nil, 0, unwritable(n.dir.path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, 0, unwritable(n.dir.path, err)
	}
	h := dump.Header{
		Made: time.Now().UTC().Truncate(time.Second), Version: Version(n.opt.Version).Version,
		Node: dump.Identity{ID: n.self.ID, Name: n.self.Name}, Cluster: dump.Identity{ID: n.model.Cluster().ID, Name: n.self.Name},
	}
	in, err := cluster.LoadRecord(ctx, n.kv)
	if err != nil {
		return nil, 0, err
	}
	if in != nil {
		h.Cluster.Name = in.Name
	}
	if err := dump.Write(ctx, f, h, dump.Source{Name: registryStore, Store: n.kv, Keep: isMetadata}); err != nil {
		return nil, 0, fmt.Errorf("back up the metadata: %w", err)
	}
	if size, err = f.Seek(0, io.SeekEnd); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return f, size, err
}

// MetadataSummary says what a backup of the metadata holds.
type MetadataSummary struct {
	dump.Header
	Revision int64 // of the registry
	Records  int64
	// Kinds counts the records by what they are: the beginning of their keys.
	Kinds map[string]int

	pools     map[string]bool // UUIDs of vPools that have records
	nodes     map[string]bool // UUIDs of nodes
	sealed    string          // what tells which seal.key seals the secrets
	clusterID string          // of model/cluster
}

// ReadMetadata reads a backup through and checks all of it. dump.ErrDamaged, dump.ErrFormat.
func ReadMetadata(from io.Reader) (MetadataSummary, error) {
	s := MetadataSummary{Kinds: map[string]int{}, pools: map[string]bool{}, nodes: map[string]bool{}}
	r, err := dump.NewReader(from)
	if err != nil {
		return s, err
	}
	s.Header = r.Header
	for {
		rec, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = s.add(rec)
		}
		if err != nil {
			return s, err
		}
	}
	s.Records, s.Revision = r.Records, r.Revisions[registryStore]
	if s.clusterID == "" || s.clusterID != s.Header.Cluster.ID {
		return s, fmt.Errorf("%w: it lacks the record of its cluster", dump.ErrDamaged)
	}
	return s, nil
}

// add looks at a record.
func (s *MetadataSummary) add(r dump.Record) error {
	if r.Store != registryStore {
		return fmt.Errorf("%w: it has records of %.64q", dump.ErrFormat, r.Store)
	}
	key := string(r.Key)
	s.Kinds[kindOf(key)]++
	pool, err := volume.PoolOfRecord(r.Key, r.Value)
	if err != nil {
		return err
	}
	if id, ok := strings.CutPrefix(key, "model/vpool/"); ok {
		pool = id
	}
	if pool != "" {
		s.pools[pool] = true
	}
	if id, ok := strings.CutPrefix(key, nodePrefix); ok {
		s.nodes[id] = true
	}
	switch key {
	case sealKey:
		s.sealed = string(r.Value)
	case "model/cluster":
		var c model.Cluster
		if err := json.Unmarshal(r.Value, &c); err != nil {
			return fmt.Errorf("%w: the record of its cluster: %w", dump.ErrDamaged, err)
		}
		s.clusterID = c.ID
	}
	return nil
}

// kindOf is the beginning of a key that says what the record is.
func kindOf(key string) string {
	parts := strings.SplitN(key, "/", 3)
	if len(parts) > 1 && (parts[0] == "model" || parts[0] == "registry") {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

// storeCluster returns whose records a registry holds; zero: it has none.
func storeCluster(ctx context.Context, s kv.Store) (dump.Identity, error) {
	e, err := s.Get(ctx, "model/cluster")
	if err != nil || e == nil {
		return dump.Identity{}, err
	}
	var c model.Cluster
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return dump.Identity{}, fmt.Errorf("record model/cluster is damaged: %w", err)
	}
	out := dump.Identity{ID: c.ID}
	in, err := cluster.LoadRecord(ctx, s)
	if err != nil {
		return out, err
	}
	if in != nil {
		out.Name = in.Name
		return out, nil
	}
	nodes, _, err := s.Range(ctx, nodePrefix, "", 1)
	if err != nil {
		return out, err
	}
	for _, e := range nodes {
		var n model.Node
		if err := json.Unmarshal(e.Value, &n); err != nil {
			return out, fmt.Errorf("record %s is damaged: %w", e.Key, err)
		}
		out.Name = n.Name
	}
	return out, nil
}

// restoringKey holds, in a shared registry, the id of a restore that did not end: what is
// there is not all, and no node starts on it.
const restoringKey = "cluster/restoring"

// notRestoring refuses a registry to which a restore did not bring everything.
func notRestoring(ctx context.Context, s kv.Store) error {
	e, err := s.Get(ctx, restoringKey)
	if err != nil || e == nil {
		return err
	}
	return errors.New("a restore of the metadata to it did not end: run it again, ovgate metadata restore FILE, then start the nodes")
}

// hashed is a value as its hash.
type hashed [sha256.Size]byte

// sameRecords compares what a store has with what it should have; skip are keys that are
// others' matter.
func sameRecords(ctx context.Context, s kv.Store, want map[string]hashed, skip func(kv.KV) bool) error {
	found := 0
	err := s.Dump(ctx, "", func(int64) error { return nil }, func(e kv.KV) error {
		if skip(e) {
			return nil
		}
		if w, ok := want[string(e.Key)]; !ok || w != sha256.Sum256(e.Value) {
			return fmt.Errorf("record %s is not what was restored: something else writes there", e.Key)
		}
		found++
		return nil
	})
	if err == nil && found != len(want) {
		err = fmt.Errorf("%d of %d restored records are there: something else writes there", found, len(want))
	}
	return err
}
