package control

import (
	"context"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Engine is the vDisk engine of the node, volume.Host behind NewEngine. The
// methods behave as package volume documents them.
type Engine interface {
	AttachPool(ctx context.Context, cfg volume.PoolConfig) (Pool, error)
	// SnapshotGroup is volume.SnapshotPart of volumes that its pools opened; without part they
	// are the whole group.
	SnapshotGroup(ctx context.Context, vols []Volume, s volume.SnapshotSpec, part *volume.GroupPart) ([]volume.Snapshot, error)
	// Home returns the UUID of the vPool that a vDisk is in.
	Home(ctx context.Context, id volume.ID) (string, error)
	// Holder tells where what a vDisk consists of is.
	Holder(ctx context.Context, id volume.ID) (volume.Hold, error)
	// Holds tells that of all vDisks.
	Holds(ctx context.Context) (map[volume.ID]volume.Hold, error)
	Wakeups() uint64
}

// NewEngine shows a host to a Controller.
func NewEngine(h *volume.Host) Engine { return engine{h} }

type engine struct{ host *volume.Host }

func (e engine) AttachPool(ctx context.Context, cfg volume.PoolConfig) (Pool, error) {
	p, err := e.host.AttachPool(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return enginePool{p}, nil
}

func (e engine) SnapshotGroup(ctx context.Context, vols []Volume, s volume.SnapshotSpec, part *volume.GroupPart) ([]volume.Snapshot, error) {
	all := make([]*volume.Volume, len(vols))
	for i, v := range vols {
		all[i] = v.(*volume.Volume)
	}
	if part == nil {
		return volume.SnapshotGroup(ctx, all, s)
	}
	return volume.SnapshotPart(ctx, all, s, *part)
}

func (e engine) Home(ctx context.Context, id volume.ID) (string, error) { return e.host.Home(ctx, id) }

func (e engine) Holder(ctx context.Context, id volume.ID) (volume.Hold, error) {
	return e.host.Holder(ctx, id)
}

func (e engine) Holds(ctx context.Context) (map[volume.ID]volume.Hold, error) {
	return e.host.Holds(ctx)
}

func (e engine) Wakeups() uint64 { return e.host.Wakeups() }

type enginePool struct{ *volume.Pool }

func (p enginePool) CopyTo(ctx context.Context, id volume.ID, to Pool, hurry bool, progress func(done, total int64)) (volume.Copied, error) {
	return p.Pool.CopyTo(ctx, id, to.(enginePool).Pool, hurry, progress)
}

func (p enginePool) MoveTo(ctx context.Context, id volume.ID, to Pool, progress func(done, total int64)) error {
	return p.Pool.MoveTo(ctx, id, to.(enginePool).Pool, progress)
}

// Open implements Pool; an error leaves no typed nil behind.
func (p enginePool) Open(ctx context.Context, id volume.ID) (Volume, error) {
	v, err := p.Pool.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Pool is an attached vPool.
type Pool interface {
	Create(ctx context.Context, spec volume.Spec) error
	Open(ctx context.Context, id volume.ID) (Volume, error)
	AcceptLoss(ctx context.Context, id volume.ID) error
	Delete(ctx context.Context, id volume.ID) error
	Purge(ctx context.Context) error
	Clone(ctx context.Context, spec volume.CloneSpec) error
	SetTemplate(ctx context.Context, id volume.ID, on bool) error
	Snapshots(ctx context.Context, id volume.ID) ([]volume.Snapshot, error)
	DeleteSnapshot(ctx context.Context, id volume.ID, name string, force bool) error
	History(ctx context.Context, id volume.ID, q volume.HistoryQuery) (volume.History, error)
	Rollback(ctx context.Context, id volume.ID, to volume.Point) (volume.Rolled, error)
	Verify(ctx context.Context, id volume.ID, o volume.VerifyOptions) (volume.Verification, error)
	// CopyTo and MoveTo are those of volume.Pool, to another one of the same Engine.
	CopyTo(ctx context.Context, id volume.ID, to Pool, hurry bool, progress func(done, total int64)) (volume.Copied, error)
	MoveTo(ctx context.Context, id volume.ID, to Pool, progress func(done, total int64)) error
	DropMoved(ctx context.Context, id volume.ID) error
	Forsake(ctx context.Context, id volume.ID) (done bool, err error)
	Recover(ctx context.Context) ([]volume.Recovered, error)
	Sweep(ctx context.Context, dryRun bool) (volume.SweepResult, error)
	Restored(ctx context.Context) (*volume.Restored, error)
	Compare(ctx context.Context) (volume.Comparison, error)
	Strangers(ctx context.Context) ([]volume.ID, error)
	LastComparison(ctx context.Context) (*volume.Comparison, error)
	AcceptUnclear(ctx context.Context, ids ...volume.ID) error
	SetSettings(volume.Settings) error // of vDisks opened from now on
	Detach(ctx context.Context) error
}

// Volume is an open vDisk.
type Volume interface {
	Submit(*volume.Request)
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
	Zero(ctx context.Context, off, n int64) error
	Grow(ctx context.Context, size int64) error
	SetLabels(ctx context.Context, name string, labels map[string]string) error
	SetSettings(volume.Settings) error
	SetCache(volume.CachePolicy)
	Snapshot(ctx context.Context, s volume.SnapshotSpec) (volume.Snapshot, error)
	Flatten(ctx context.Context, progress func(done, total int64)) error
	Commit(ctx context.Context) error
	Scrub(ctx context.Context, o volume.ScrubOptions) (volume.ScrubResult, error)
	Close(ctx context.Context) error
	Stats() volume.Stats
	Condition() volume.Stats
	Displaced() bool
	Failed() bool
	Idle() (idle bool, requests uint64)
	Fenced() bool
	Away() time.Duration
	Allocated(off int64) (mapped bool, n int64)
	Reservation() []byte
	Size() int64
	ClusterSize() int
	MaxIO() int
}

// Frontend is the iSCSI front end, *iscsi.Server.
type Frontend interface {
	AddTarget(iscsi.TargetSpec) error
	UpdateTarget(iscsi.TargetSpec) error
	RemoveTarget(iqn string, force bool) error
	CapacityChanged(iqn string, lun uint16) error
	SpaceThreshold(iqn string, lun uint16) error
	SetQoS(iqn string, lun uint16, q iscsi.QoS) error
	Target(iqn string) (iscsi.TargetInfo, error)
	Sessions() []iscsi.SessionInfo
	Session(id string) (iscsi.SessionInfo, error)
	DropSession(id string) error
}

// Root identifies whose objects a backend holds.
type Root struct {
	Cluster, VPool string // UUIDs
}

// Backends opens the stores under vPools.
type Backends interface {
	// Default completes a backend of a vPool of this name, that says no place.
	Default(b model.Backend, name string) model.Backend
	// Check refuses a backend that cannot be used, with Field set.
	Check(model.Backend) *Error
	// Open opens the store; the caller closes it. It fails with
	// backend.ErrInUse when another process or vPool holds it, with
	// encrypted.ErrKey when the key is not the one it was made with.
	Open(ctx context.Context, p Place) (backend.Store, error)
	// ReadRoot tells whose objects a store holds; backend.ErrNotExist if none.
	ReadRoot(ctx context.Context, s backend.Store) (Root, error)
	// RemoveRoot makes an emptied store usable for another vPool.
	RemoveRoot(ctx context.Context, s backend.Store) error
	// CheckRemote refuses the record of a remote store that cannot be right, with
	// Field set.
	CheckRemote(model.Remote) *Error
	// TestRemote tries every operation of a remote store on scratch objects. The error
	// says why it could not be tried.
	TestRemote(ctx context.Context, r model.Remote, secret string) (RemoteReport, error)
	// Swap lets users of an open remote store go on with another one, which Open
	// returned for the same vPool, without noticing. It closes what is not used any more.
	Swap(old, now backend.Store)
}
