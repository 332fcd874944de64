package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/leaktest"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var errAway = errors.New("backend is away")

// place is a local backend that can be away, refuse deletes, or have no space for claims.
type place struct {
	away, noDelete atomic.Bool
	noClaim        atomic.Bool
	noPut          atomic.Bool // of data
	swaps          atomic.Int64
	writeDisks     []volume.WriteDisk
	node           string // id of the bench's node

	registry kv.Store // of several benches; nil: its own
	parts    Parts
	living   func() map[string]bool
}

func (p *place) Default(b model.Backend, _ string) model.Backend { return b }
func (p *place) Check(model.Backend) *Error                      { return nil }
func (p *place) CheckRemote(model.Remote) *Error                 { return nil }
func (p *place) Swap(old, now backend.Store) {
	p.swaps.Add(1)
	old.(*remote.Store).Replace(now)
}
func (p *place) TestRemote(_ context.Context, r model.Remote, secret string) (RemoteReport, error) {
	if secret != "right" {
		return RemoteReport{}, fmt.Errorf("%w: list bucket", remote.ErrCredentials)
	}
	return RemoteReport{Conditional: r.Spec.Region != "lesser", Gives: []string{"words"}}, nil
}
func (p *place) Open(_ context.Context, at Place) (backend.Store, error) {
	b := at.Backend
	if p.away.Load() {
		return nil, errAway
	}
	if at.Remote.ID != "" { // a store of others, whose URL is a directory
		fs, err := blockfs.OS(filepath.Join(at.Remote.Spec.URL, b.Path))
		if err != nil {
			return nil, err
		}
		s, err := local.Open(fs, local.Options{})
		return remote.New(s, remote.Options{}), err
	}
	lock, err := local.Lock(b.Path)
	if err != nil {
		return nil, err
	}
	fs, err := blockfs.OS(b.Path)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s, err := local.Open(fs, local.Options{})
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return placeStore{s, p, lock.Close}, nil
}
func (p *place) ReadRoot(ctx context.Context, s backend.Store) (Root, error) {
	r, err := volume.ReadRoot(ctx, s)
	if err != nil {
		return Root{}, err
	}
	return Root{r.Cluster, r.Pool}, nil
}
func (p *place) RemoveRoot(ctx context.Context, s backend.Store) error {
	return s.Delete(ctx, "ovgate.root")
}

type placeStore struct {
	backend.Store
	p      *place
	unlock func() error
}

func (s placeStore) Delete(ctx context.Context, name string) error {
	if s.p.noDelete.Load() {
		return errAway
	}
	return s.Store.Delete(ctx, name)
}

func (s placeStore) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	if s.p.noClaim.Load() && strings.Contains(name, "/claim/") {
		return fmt.Errorf("%w: put %s", backend.ErrFull, name)
	}
	return s.Store.PutIfAbsent(ctx, name, data)
}

func (s placeStore) Put(ctx context.Context, name string, data []byte) error {
	if s.p.noPut.Load() {
		return errAway
	}
	return s.Store.Put(ctx, name, data)
}

func (s placeStore) Close() error { return errors.Join(s.Store.Close(), s.unlock()) }

// front is the real front end, with sessions that a test makes up.
type front struct {
	*iscsi.Server
	busy bool
}

func (f *front) RemoveTarget(iqn string, force bool) error {
	if f.busy && !force {
		return &iscsi.TargetBusyError{Target: iqn, Sessions: []iscsi.SessionInfo{{Initiator: "iqn.2026-01.com.example:host1"}}}
	}
	return f.Server.RemoveTarget(iqn, force)
}

// patience bounds waits; a test that needs all of it has failed.
const patience = 3 * time.Minute

// bench is a controller over real kv, engine, front end and backend.
type bench struct {
	*Controller
	t       *testing.T
	dir     string
	place   *place
	front   *front
	clk     *clock.Manual
	changed chan string
	noted   sync.Map // code and object of events
	stop    func()
}

func newBench(t *testing.T, dir string, p *place) *bench {
	t.Helper()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db, closeDB := p.registry, func() error { return nil }
	if db == nil {
		own, err := kv.OpenBolt(filepath.Join(dir, "kv.db"), kv.BoltOptions{NoSync: true})
		fail(err)
		db, closeDB = own, own.Close
	}
	m, err := model.Open(t.Context(), db, nil)
	fail(err)
	fs, err := blockfs.OS(dir)
	fail(err)
	host, err := volume.NewHost(t.Context(), volume.HostOptions{FS: fs, Registry: volume.KVRegistry{Store: db}, Node: "n", ChunkBytes: 1 << 20, WriteDisks: p.writeDisks})
	fail(err)
	seal, err := NewSealer(make([]byte, SealKeySize))
	fail(err)
	b := &bench{t: t, dir: dir, place: p, front: &front{Server: iscsi.NewServer(iscsi.Config{})}, clk: clock.NewManual(time.Now()), changed: make(chan string, 10_000)}
	b.Controller = New(Options{
		Model: m, Engine: NewEngine(host), Frontend: b.front, Backends: p, Sealer: seal, Clock: b.clk, Node: p.node, Parts: p.parts, LastLiving: p.living,
		Portals:     []iscsi.Portal{{Address: "10.0.0.1:3260", Group: 1}},
		NoSchedules: true, // tests of the scheduler move it themselves
		Changed:     func(kind, id string) { b.changed <- kind + " " + id },
		Events:      b.note,
	})
	b.Start(t.Context())
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		for _, err := range []error{b.front.Shutdown(context.Background()), b.Stop(context.Background()), host.Close(context.Background()), closeDB()} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(b.stop)
	return b
}

// note is told what happens.
func (b *bench) note(code event.Code, object string, _ ...string) {
	b.noted.Store(string(code)+" "+object, true)
}

// tells checks that events happened to an object.
func (b *bench) tells(object string, codes ...event.Code) {
	b.t.Helper()
	for _, c := range codes {
		if _, ok := b.noted.Load(string(c) + " " + object); !ok {
			b.t.Errorf("%s of %s is not told", c, object)
		}
	}
}

// gold makes a vPool.
func (b *bench) gold(dir string) {
	b.t.Helper()
	if _, err := b.CreateVPool(b.t.Context(), NewPool{Name: "gold", Backend: model.Backend{Kind: "local", Path: dir}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) disk(name string) model.VDisk {
	b.t.Helper()
	v, err := b.CreateVDisk(b.t.Context(), NewDisk{Name: name, VPool: "gold", Size: 1 << 30})
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// until moves the clock and waits for changes until ok.
func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for !ok() {
		b.clk.Advance(retryMax)
		select {
		case <-b.changed:
		case <-limit.C:
			b.t.Fatalf("not %s", what)
		}
	}
}

// pass moves the clock by steps until ok.
func (b *bench) pass(step time.Duration, what string, ok func() bool) {
	b.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(began) > patience {
			b.t.Fatalf("not %s", what)
		}
		b.clk.Advance(step)
	}
}

func wantCode(t *testing.T, err error, code Code) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("error %v, want %s", err, code)
	}
	return e
}

// TestBackendAway: a node starts without its backend, and brings vPool, vDisk
// and target up when the backend is back (C7).
func TestBackendAway(t *testing.T) {
	dir, far, p := t.TempDir(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(far)
	d := b.disk("one")
	open := true
	if _, err := b.Publish(t.Context(), "one", PublishOptions{Open: &open}); err != nil {
		t.Fatal(err)
	}
	b.stop()
	p.away.Store(true)
	b = newBench(t, dir, p)
	if s := b.PoolStatus(d.VPool); s.Attached || !strings.Contains(s.Err, errAway.Error()) {
		t.Errorf("vPool without a backend: %+v", s)
	}
	d, _ = b.model.VDisk(d.ID)
	if s := b.DiskStatus(d); s.Open || s.State != StateOpening || s.Reason == "" {
		t.Errorf("vDisk without a backend: %+v", s)
	}
	if len(b.front.Targets()) != 0 {
		t.Error("a target without a vDisk")
	}
	wantCode(t, second(b.CreateVDisk(t.Context(), NewDisk{Name: "two", VPool: "gold", Size: 1 << 20})), CodeBackend)
	if _, ok := b.model.VDiskByName(d.VPool, "two"); ok {
		t.Error("a refused create left a record")
	}
	p.away.Store(false)
	b.until("exported", func() bool { return len(b.front.Targets()) == 1 })
	if s := b.DiskStatus(d); s.State != volume.StateRunning {
		t.Errorf("vDisk with its backend back: %+v", s)
	}
	// It stays attached, and is not asked for its space in vain.
	run := b.pool(d.VPool)
	b.mu.Lock()
	store := run.store
	run.store = noUsage{store}
	b.mu.Unlock()
	b.askUsage(t.Context(), run)
	b.tells("vpool gold", event.BackendAway)
	b.mu.Lock()
	run.store = store
	b.mu.Unlock()
	b.askUsage(t.Context(), run)
	b.tells("vpool gold", event.BackendBack)
}

// noUsage is a store that does not answer for its space.
type noUsage struct{ backend.Store }

func (noUsage) Usage(context.Context) (backend.Usage, error) { return backend.Usage{}, errAway }

func second[T any](_ T, err error) error { return err }

// TestUnmountedBackend: the empty directory where a backend's disk was is not
// made a new backend.
func TestUnmountedBackend(t *testing.T) {
	dir, p := t.TempDir(), &place{}
	far := t.TempDir()
	b := newBench(t, dir, p)
	b.gold(far)
	d := b.disk("one")
	b.stop()
	empty := t.TempDir()
	db, err := kv.OpenBolt(filepath.Join(dir, "kv.db"), kv.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Open(t.Context(), db, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.UpdateVPool(t.Context(), d.VPool, func(v *model.VPool) error { v.Backend.Path = empty; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b = newBench(t, dir, p)
	if s := b.PoolStatus(d.VPool); s.Attached || !strings.Contains(s.Err, "mounted") {
		t.Errorf("vPool on an empty directory: %+v", s)
	}
}

// TestDeleteResumes: a delete is decided at once and carried out after a
// restart; meanwhile the name is free and the vDisk is not served (C2).
func TestDeleteResumes(t *testing.T) {
	dir, far, p := t.TempDir(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(far)
	d := b.disk("one")
	p.noDelete.Store(true)
	if err := b.DeleteVDisk(t.Context(), "one", true); err != nil {
		t.Fatal(err)
	}
	v, ok := b.model.VDisk(d.ID)
	if !ok || v.State != model.StateDeleting || b.DiskStatus(v).State != StateDeleting {
		t.Fatalf("after the delete: %v %+v", ok, v)
	}
	again := b.disk("one")
	if again.ID == d.ID {
		t.Fatal("the new vDisk has the old id")
	}
	wantCode(t, b.DeleteVPool(t.Context(), "gold"), CodeInUse)
	b.stop()
	p.noDelete.Store(false)
	b = newBench(t, dir, p)
	b.until("deleted", func() bool { _, ok := b.model.VDisk(d.ID); return !ok })
	if err := b.DeleteVDisk(t.Context(), "one", true); err != nil {
		t.Fatal(err)
	}
	b.until("deleted too", func() bool { return b.model.CountVDisks() == 0 })
	if err := b.DeleteVPool(t.Context(), "gold"); err != nil {
		t.Fatal(err)
	}
	b.gold(far) // the backend is free for another vPool
}

// TestCreateResumes: a vDisk and a vPool whose creation was cut short after the
// decision are finished by the next start.
func TestCreateResumes(t *testing.T) {
	dir, p := t.TempDir(), &place{}
	b := newBench(t, dir, p)
	ctx := t.Context()
	far := t.TempDir()
	pool, err := b.model.CreateVPool(ctx, model.VPool{ID: "0f6b4a52-7e0c-4c1c-9a52-6f6d2c1b7a01", Name: "gold", State: model.StateCreating, Backend: model.Backend{Kind: "local", Path: far}, Settings: defaultSettings()})
	if err != nil {
		t.Fatal(err)
	}
	d, err := b.model.CreateVDisk(ctx, model.VDisk{ID: "0f6b4a52-7e0c-4c1c-9a52-6f6d2c1b7a02", Name: "one", VPool: pool.ID, Size: 1 << 30, ClusterSize: 4096, State: model.StateCreating})
	if err != nil {
		t.Fatal(err)
	}
	b.stop()
	b = newBench(t, dir, p)
	pool, _ = b.model.VPool(pool.ID)
	d, _ = b.model.VDisk(d.ID)
	if s := b.DiskStatus(d); pool.State != model.StatePresent || d.State != model.StatePresent || s.State != volume.StateRunning {
		t.Errorf("vPool %s, vDisk %s, which is %+v", pool.State, d.State, s)
	}
}

// TestPublish: repeating answers the same, changes are taken over, and what
// initiators know a vDisk by survives renames and unpublish (C4).
func TestPublish(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	d := b.disk("My_Disk.1")
	ctx := t.Context()
	one, err := b.Publish(ctx, "gold/My_Disk.1", PublishOptions{Initiators: []string{"iqn.2026-01.com.example:Host1"}})
	if err != nil {
		t.Fatal(err)
	}
	if one.VDisk.IQN != "iqn.2026-11.io.ovgate:gold-my-disk.1" || one.VDisk.Target.Groups[0].CHAPUser != "my-disk.1" || len(one.Credentials.Secret) != secretLength {
		t.Errorf("connection %+v", one)
	}
	if strings.Contains(string(one.VDisk.Target.Groups[0].CHAPSecret), one.Credentials.Secret) {
		t.Error("the secret is stored in plain")
	}
	two, err := b.Publish(ctx, d.ID, PublishOptions{})
	if err != nil || two.Credentials.Secret != one.Credentials.Secret || two.VDisk.IQN != one.VDisk.IQN || two.Commands != one.Commands {
		t.Errorf("published again: %+v %v", two, err)
	}
	target := func() iscsi.TargetInfo {
		t.Helper()
		all := b.front.Targets()
		if len(all) != 1 {
			t.Fatalf("targets %+v", all)
		}
		return all[0]
	}
	if g := target().Groups[0]; g.Any || g.CHAPUser == "" || strings.Join(g.Initiators, " ") != "iqn.2026-01.com.example:host1" {
		t.Errorf("target %+v", g)
	}
	before := target().LUNs[0]
	open := true
	three, err := b.Publish(ctx, d.ID, PublishOptions{Open: &open, Rotate: true})
	if err != nil || three.Credentials.Secret == one.Credentials.Secret || !target().Groups[0].Any {
		t.Errorf("opened and rotated: %+v %v", three, err)
	}
	for range 2 {
		if _, err := b.AddInitiator(ctx, one.VDisk.IQN, "iqn.2026-01.com.example:host2"); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := b.RemoveInitiator(ctx, one.VDisk.IQN, "iqn.2026-01.com.example:HOST1"); err != nil {
			t.Fatal(err)
		}
	}
	if g := target().Groups[0]; strings.Join(g.Initiators, " ") != "iqn.2026-01.com.example:host2" {
		t.Errorf("initiators %v", g.Initiators)
	}
	name := "other"
	size := int64(2 << 30)
	if _, err := b.UpdateVDisk(ctx, d.ID, DiskPatch{Name: &name, Size: &size}); err != nil {
		t.Fatal(err)
	}
	b.front.busy = true
	e := wantCode(t, b.Unpublish(ctx, "other", false), CodeInUse)
	if !strings.Contains(e.Message, "host1") {
		t.Errorf("refusal %v", e)
	}
	target()
	for range 2 {
		if err := b.Unpublish(ctx, "other", true); err != nil {
			t.Fatal(err)
		}
	}
	b.front.busy = false
	if n := len(b.front.Targets()); n != 0 {
		t.Errorf("%d targets", n)
	}
	four, err := b.Publish(ctx, "other", PublishOptions{Open: &open})
	if err != nil || four.VDisk.IQN != one.VDisk.IQN || four.Credentials.Secret == three.Credentials.Secret {
		t.Errorf("published anew: %+v %v", four, err)
	}
	if after := target().LUNs[0]; after.NAA != before.NAA || after.Serial != before.Serial || after.Size != size {
		t.Errorf("logical unit was %+v and is %+v", before, after)
	}
	b.disk("my-disk.1") // becomes the same on iSCSI
	five, err := b.Publish(ctx, "my-disk.1", PublishOptions{})
	if err != nil || five.VDisk.IQN != one.VDisk.IQN+"-"+five.VDisk.ID[:8] {
		t.Errorf("a name that is taken: %+v %v", five.VDisk.IQN, err)
	}
}

// TestStopping: after Stop began, work is refused.
func TestStopping(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	b.stop()
	wantCode(t, second(b.CreateVDisk(t.Context(), NewDisk{Name: "one", VPool: "gold", Size: 1 << 20})), CodeStopping)
}

// TestLeave: a node that is about to stop takes nothing over.
func TestLeave(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{node: "n"})
	b.nodes("", "rack1", "rack1")
	b.opt.Living = func(context.Context) (map[string]bool, error) { return map[string]bool{"n": true}, nil }
	if b.lookForGone(); !b.Gone("o") {
		t.Error("a node without a lease is not gone")
	}
	b.Leave()
	if b.lookForGone(); b.Gone("o") {
		t.Error("it looks for nodes to take over from")
	}
	wantCode(t, second(b.CreateVDisk(t.Context(), NewDisk{Name: "one", VPool: "gold", Size: 1 << 20})), CodeStopping)
}

// TestStopAway: a stop does not wait for a backend that stores nothing, and the next start has what was written.
func TestStopAway(t *testing.T) {
	dir, p := t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(t.TempDir())
	data, got := bytes.Repeat([]byte{7}, 4096), make([]byte, 4096)
	disks := []model.VDisk{b.disk("a"), b.disk("b"), b.disk("c")}
	for _, v := range disks {
		if err := b.vdisk(v.ID).vol.WriteAt(t.Context(), data, 0); err != nil {
			t.Fatal(err)
		}
	}
	p.noPut.Store(true)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		b.stop()
	}()
	b.pass(closeLook, "stopped", func() bool {
		select {
		case <-stopped:
			return true
		default:
			return false
		}
	})
	p.noPut.Store(false)
	b = newBench(t, dir, p)
	for _, v := range disks {
		b.until(v.Name+" is there", func() bool { return b.DiskStatus(v).State == volume.StateRunning })
		if err := b.vdisk(v.ID).vol.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s after a start: %v", v.Name, err)
		}
	}
}

// TestCreateFull: a new vDisk that cannot be opened for lack of space is not made.
func TestCreateFull(t *testing.T) {
	p := &place{}
	b := newBench(t, t.TempDir(), p)
	b.gold(t.TempDir())
	p.noClaim.Store(true)
	_, err := b.CreateVDisk(t.Context(), NewDisk{Name: "a", VPool: "gold", Size: 1 << 30})
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeNoSpace {
		t.Fatalf("with a full backend: %v", err)
	}
	b.until("gone", func() bool { return len(b.model.VDisks(nil)) == 0 })
	p.noClaim.Store(false)
	if v := b.disk("a"); b.DiskStatus(v).State != volume.StateRunning {
		t.Errorf("with space again: %+v", b.DiskStatus(v))
	}
}
