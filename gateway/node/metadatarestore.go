package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/dump"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// A restore of the metadata to kv.db writes DIR/kv.db.restored and renames it at the end: until
// then kv.db is what it was. One to etcd cannot be undone:
//
//	cluster/restoring → no node runs → what was there goes to DIR/metadata.replaced →
//	what is there goes → marks, records, compared → cluster/restoring goes
//
// From the first step to the last no node starts there, and the restore can be run again.

const (
	kvRestored  = kvFile + ".restored"
	kvReplaced  = kvFile + ".replaced"
	oldMetadata = "metadata.replaced"
)

// RestoreOptions say what to restore where.
type RestoreOptions struct {
	File   string // a backup of the metadata
	Data   string // data directory of a node that is stopped
	Config string // its configuration file; empty: none
	// Replace is the name of the cluster, or of its only node, whose records are there and
	// are to be replaced; empty: nothing may be there.
	Replace string
	// NoSeal goes on without the seal.key of the backup: its secrets cannot be read.
	NoSeal bool
	Log    *slog.Logger

	steps func(name string) error // tests: at each step, an error ends it there
}

// Restored says what a restore did.
type Restored struct {
	MetadataSummary
	Where  string // the registry is now
	VPools int    // whose deletes are off
	Kept   string // file with what was there before; empty: there was nothing
}

// restore is one that runs.
type restore struct {
	o    RestoreOptions
	dir  *dataDir
	cfg  registryConfig
	file *os.File
	out  Restored
	want map[string]hashed
	mark []kv.Op
	id   string
}

// RestoreMetadata puts a backup of the metadata in the place of a registry that nobody uses.
// Deletes of all its vPools are off from then on, until each was compared with its backend.
func RestoreMetadata(ctx context.Context, o RestoreOptions) (_ Restored, err error) {
	r := &restore{o: o, id: rand.Text()}
	if r.o.Log == nil {
		r.o.Log = slog.New(slog.DiscardHandler)
	}
	if r.file, err = os.Open(o.File); err != nil {
		return r.out, err
	}
	defer r.file.Close()
	if r.out.MetadataSummary, err = ReadMetadata(r.file); err != nil {
		return r.out, fmt.Errorf("%s: %w: nothing was changed", o.File, err)
	}
	c, err := loadConfig(Options{Config: o.Config})
	if err != nil {
		return r.out, err
	}
	if r.dir, err = openDataDir(o.Data, r.o.Log); err != nil {
		return r.out, err
	}
	defer func() { err = errors.Join(err, r.dir.Close()) }()
	if err := r.dir.notJoined(); err != nil {
		return r.out, err
	}
	p, err := r.dir.place()
	if err != nil {
		return r.out, err
	}
	var end func() error
	if r.cfg, end, err = memberOffline(ctx, r.dir, c, r.o.Log); err != nil {
		return r.out, err
	}
	defer func() { err = errors.Join(err, end()) }()
	if err := r.sealKey(); err != nil {
		return r.out, err
	}
	if err := r.marks(); err != nil {
		return r.out, err
	}
	switch _, err := os.Stat(r.dir.file(kvFile)); {
	case len(r.cfg.Etcd) == 0 && (r.cfg.given() || p.Etcd != "" || r.dir.format == formatMoved):
		return r.out, fmt.Errorf("data directory %s: its registry is in etcd: name the members in the configuration, with --config", r.dir.path)
	case len(r.cfg.Etcd) == 0:
		return r.out, r.toFile(ctx)
	case p.Etcd != "" && p.Etcd != r.cfg.prefix():
		return r.out, fmt.Errorf("data directory %s: the registry is in etcd below %s, the configuration says %s: set prefix back", r.dir.path, p.Etcd, r.cfg.prefix())
	case p.Etcd == "" && err == nil:
		return r.out, fmt.Errorf("data directory %s: its registry is in %s, and the configuration names an etcd: restore without registry in the configuration, then start it with it", r.dir.path, kvFile)
	}
	return r.out, r.toEtcd(ctx)
}

func (r *restore) step(name string) error {
	if r.o.steps == nil {
		return nil
	}
	return r.o.steps(name)
}

// sealKey refuses a data directory that cannot read the secrets of the backup.
func (r *restore) sealKey() error {
	if r.out.sealed == "" || r.o.NoSeal {
		return nil
	}
	name := r.dir.file(sealFile)
	b, err := os.ReadFile(name)
	what := "is missing"
	if err == nil {
		what = "is another one"
		key, err := hex.DecodeString(strings.TrimSpace(string(b)))
		if err != nil {
			return fmt.Errorf("%s is damaged: bring it back from a copy", name)
		}
		s, err := control.NewSealer(key)
		if err != nil {
			return err
		}
		if s.Digest([]byte(sealKey)) == r.out.sealed {
			return nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fmt.Errorf("%s %s: the secrets of the backup are sealed with that of cluster %s: bring it back from a copy, mode 0600, or go on without these secrets with --without-seal-key", name, what, r.out.Cluster.Name)
}

// marks makes the records that switch deletes off.
func (r *restore) marks() error {
	var err error
	r.mark, err = volume.RestoredMarks(volume.Restored{Made: r.out.Made, Time: time.Now().UTC().Truncate(time.Second), ID: r.id}, slices.Sorted(maps.Keys(r.out.pools))...)
	r.out.VPools = len(r.mark)
	return err
}

// mayReplace refuses records that the caller did not name, and those of another cluster.
func (r *restore) mayReplace(where string, have dump.Identity) error {
	name := have.Name
	if name == "" {
		name = have.ID
	}
	switch {
	case r.o.Replace == "":
		return fmt.Errorf("%s has the records of %s already: name it with --replace to have them replaced", where, name)
	case r.o.Replace != name:
		return fmt.Errorf("%s has the records of %s, not of %.100s: nothing was changed", where, name, r.o.Replace)
	case have.ID != r.out.Cluster.ID:
		return fmt.Errorf("%s has the records of %s (%s), the backup is of %s (%s): restore it to an empty place", where, name, have.ID, r.out.Cluster.Name, r.out.Cluster.ID)
	}
	return nil
}

// fill copies marks and records to a store.
func (r *restore) fill(ctx context.Context, to kv.Store) error {
	if _, err := r.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in, err := dump.NewReader(r.file)
	if err != nil {
		return err
	}
	b := kv.Batches{To: to}
	r.want = map[string]hashed{}
	add := func(op kv.Op) error {
		r.want[string(op.Key)] = sha256.Sum256(op.Value)
		return b.Add(ctx, op)
	}
	for _, m := range r.mark {
		if err := add(m); err != nil {
			return err
		}
	}
	if err := b.Flush(ctx); err != nil {
		return err
	}
	for {
		rec, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && isMetadata(kv.KV{Key: rec.Key}) {
			err = add(kv.Put(string(rec.Key), rec.Value))
		}
		if err == nil {
			err = r.step("copying")
		}
		if err != nil {
			return err
		}
	}
	return b.Flush(ctx)
}

// same compares a store with what was restored.
func (r *restore) same(ctx context.Context, s kv.Store) error {
	return sameRecords(ctx, s, r.want, func(e kv.KV) bool {
		return e.Lease != 0 || string(e.Key) == restoringKey || strings.HasPrefix(string(e.Key), manifests)
	})
}

// toFile restores to DIR/kv.db.
func (r *restore) toFile(ctx context.Context) error {
	place := "data directory " + r.dir.path
	if len(r.out.nodes) > 1 {
		return fmt.Errorf("%s: the backup is of %s, which has %d nodes: name the cluster's etcd with registry in the configuration, and give that with --config", place, r.out.Cluster.Name, len(r.out.nodes))
	}
	if err := r.nodeFile(); err != nil {
		return err
	}
	old, err := r.lookAtFile(ctx)
	if err != nil {
		return err
	}
	tmp := r.dir.file(kvRestored)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unwritable(r.dir.path, err)
	}
	s, err := kv.OpenBolt(tmp, kv.BoltOptions{})
	if err != nil {
		return err
	}
	if err = r.fill(ctx, s); err == nil {
		err = r.same(ctx, s)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("%s: %w: nothing was changed", place, err)
	}
	if err := r.step("filled"); err != nil {
		return err
	}
	if old {
		r.out.Kept = r.dir.file(kvReplaced)
		if err := os.Remove(r.out.Kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return unwritable(r.dir.path, err)
		}
		if err := os.Link(r.dir.file(kvFile), r.out.Kept); err != nil {
			return unwritable(r.dir.path, err)
		}
	}
	if err := r.step("kept"); err != nil {
		return err
	}
	if err := os.Rename(tmp, r.dir.file(kvFile)); err != nil {
		return unwritable(r.dir.path, err)
	}
	r.out.Where = r.dir.file(kvFile)
	return syncDir(r.dir.path)
}

// nodeFile makes sure that the data directory is of a node that the backup knows.
func (r *restore) nodeFile() error {
	s, err := readSelf(r.dir)
	if err != nil {
		return err
	}
	switch {
	case r.out.nodes[s.ID]:
		return nil
	case s.ID != "":
		return fmt.Errorf("data directory %s: %s is of node %s (%s), which the backup does not know: take the data directory of node %s, or bring its %s back from a copy", r.dir.path, selfFile, s.Name, s.ID, r.out.Node.Name, selfFile)
	case !r.out.nodes[r.out.Node.ID]:
		return fmt.Errorf("data directory %s: %s is missing: bring it back from a copy; the backup does not say which node's vDisks are its", r.dir.path, selfFile)
	}
	s.ID, s.Name = r.out.Node.ID, r.out.Node.Name
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := writeFile(r.dir.file(selfFile), append(b, '\n'), 0o600); err != nil {
		return unwritable(r.dir.path, err)
	}
	return nil
}

// lookAtFile tells whether there is a kv.db with records that may be replaced. What cannot be
// read may, by the name of the backup's cluster.
func (r *restore) lookAtFile(ctx context.Context) (old bool, err error) {
	path := r.dir.file(kvFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	s, err := kv.OpenBolt(path, kv.BoltOptions{})
	if err != nil {
		if r.o.Replace == r.out.Cluster.Name {
			return true, nil
		}
		return true, fmt.Errorf("%w; to have it replaced by the backup, give --replace %s", err, r.out.Cluster.Name)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	have, err := storeCluster(ctx, s)
	if err != nil {
		return true, err
	}
	if have.ID == "" {
		any, _, err := s.Range(ctx, "", "", 1)
		if err != nil || len(any) == 0 {
			return len(any) > 0, err
		}
	}
	return true, r.mayReplace(path, have)
}

// toEtcd restores to the registry in etcd.
func (r *restore) toEtcd(ctx context.Context) error {
	s, err := r.cfg.open(ctx, r.o.Log)
	if err != nil {
		return err
	}
	where := "etcd below " + r.cfg.prefix()
	if err := r.shared(ctx, s, where); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", where, err), s.Close())
	}
	r.out.Where = where
	return s.Close()
}

// shared restores to a store that others may use.
func (r *restore) shared(ctx context.Context, s kv.Store, where string) error {
	cut, err := s.Get(ctx, restoringKey)
	if err != nil {
		return err
	}
	have, err := storeCluster(ctx, s)
	if err != nil && cut == nil {
		return err
	}
	first := kv.Absent(restoringKey)
	old := false
	if cut == nil {
		if old, err = hasRecords(ctx, s); err != nil {
			return err
		}
		if old {
			if err := r.mayReplace("it", have); err != nil {
				return err
			}
		}
	} else {
		first = kv.ModRevIs(restoringKey, cut.ModRev)
		r.o.Log.Warn("a restore that did not end is done again", "registry", where)
	}
	res, err := s.Txn(ctx, []kv.Compare{first}, []kv.Op{kv.Put(restoringKey, []byte(r.id))}, nil)
	if err == nil && !res.Succeeded {
		err = errors.New("another restore runs at the same time: wait for it")
	}
	if err != nil {
		return err
	}
	if err := r.nobodyRuns(ctx, s); err != nil {
		if cut == nil {
			_, derr := s.Txn(ctx, []kv.Compare{r.mine()}, []kv.Op{kv.Delete(restoringKey)}, nil)
			err = errors.Join(err, derr)
		}
		return err
	}
	if err := r.step("marked"); err != nil {
		return err
	}
	if old {
		if err := r.keep(ctx, s, have); err != nil {
			return err
		}
	}
	if err := kv.Wipe(ctx, s, "", func(e kv.KV) bool {
		return e.Lease == 0 && string(e.Key) != restoringKey && !strings.HasPrefix(string(e.Key), manifests)
	}); err != nil {
		return err
	}
	if err := r.step("wiped"); err != nil {
		return err
	}
	if err := r.fill(ctx, s); err != nil {
		return err
	}
	if err := r.same(ctx, s); err != nil {
		return err
	}
	if err := r.step("filled"); err != nil {
		return err
	}
	res, err = s.Txn(ctx, []kv.Compare{r.mine()}, []kv.Op{kv.Delete(restoringKey)}, nil)
	if err == nil && !res.Succeeded {
		err = errors.New("another restore began meanwhile: wait for it")
	}
	return err
}

// mine holds while no other restore began.
func (r *restore) mine() kv.Compare { return kv.ValueIs(restoringKey, []byte(r.id)) }

// hasRecords tells whether a store has anything that no lease holds.
func hasRecords(ctx context.Context, s kv.Store) (bool, error) {
	some := errors.New("there is one")
	err := kv.Each(ctx, s, "", func(e kv.KV) error {
		if e.Lease == 0 {
			return some
		}
		return nil
	})
	if errors.Is(err, some) {
		return true, nil
	}
	return false, err
}

// nobodyRuns refuses a registry that a node uses: one that starts now reads restoringKey
// before and after it took its lease.
func (r *restore) nobodyRuns(ctx context.Context, s kv.Store) error {
	living, err := cluster.Living(ctx, s)
	if err != nil {
		return err
	}
	for id := range living {
		return fmt.Errorf("node %s runs, or ended seconds ago: stop all nodes of the cluster first; nothing was changed", id)
	}
	return nil
}

// keep writes what is there to a file in the data directory.
func (r *restore) keep(ctx context.Context, s kv.Store, have dump.Identity) (err error) {
	r.out.Kept = r.dir.file(oldMetadata)
	f, err := os.OpenFile(r.out.Kept, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return unwritable(r.dir.path, err)
	}
	h := dump.Header{Made: time.Now().UTC().Truncate(time.Second), Version: r.out.Version, Cluster: have, Node: dump.Identity{Name: "replaced"}}
	err = dump.Write(ctx, f, h, dump.Source{Name: registryStore, Store: s, Keep: isMetadata})
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
