package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/cache"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// Limits of a vDisk.
const (
	MaxSize        = 64 << 40 // bytes; original limit, kept
	MinClusterSize = 4 << 10
	MaxClusterSize = 64 << 10
	MinSCOSize     = 4 << 20
	MaxSCOSize     = 128 << 20
	MinQuota       = 128 << 20 // journal quota, bytes
	MaxQuota       = 10 << 30
	// MaxIO bounds Data of one Request, in bytes: one command is one journal
	// record and fits the smallest SCO.
	MaxIO = 4 << 20
)

// Defaults of a vPool's settings.
const (
	DefaultClusterSize    = 4 << 10
	DefaultSCOSize        = 16 << 20
	DefaultQuota          = 512 << 20
	DefaultCommitInterval = 10 * time.Second
	DefaultStallTimeout   = 180 * time.Second
)

// Errors, wrapped with the vDisk they concern.
var (
	ErrNotFound = errors.New("vdisk not found")
	ErrExists   = errors.New("vdisk exists already")
	// ErrInvalid: a parameter is out of range or unaligned; nothing changed.
	ErrInvalid = errors.New("invalid vdisk parameter")
	// ErrFenced: another opening of this vDisk owns it now; this one serves no more.
	ErrFenced = errors.New("vdisk is owned by a newer opening")
	// ErrLostTail: acknowledged writes are missing; offline until accepted (rule E9). With
	// ErrCorrupt: they are in a journal that is damaged (rule E3), and may be brought back.
	ErrLostTail = errors.New("vdisk lost acknowledged writes")
	// ErrCorrupt: local state or an object is damaged where it must not be.
	ErrCorrupt = errors.New("vdisk state is damaged")
	// ErrStalled: the journal stayed full for stall_timeout.
	ErrStalled = errors.New("journal full: backend does not take data")
	// ErrGroupLate: vDisks of a group snapshot on other nodes did not come to rest in time.
	ErrGroupLate = errors.New("vdisks of other nodes did not come to rest in time")
	// ErrFailed: an earlier error stopped writes on this opening.
	ErrFailed = errors.New("vdisk takes no writes after a journal failure")
	// ErrClosed: the vDisk was closed.
	ErrClosed = errors.New("vdisk is closed")
	// ErrMedium: data at this range cannot be read back verified.
	ErrMedium = errors.New("unrecoverable data")
	// ErrMiscompare: CompareAndWrite found other data.
	ErrMiscompare = errors.New("miscompare")
	// ErrBackend: the backend did not do what was needed in time.
	ErrBackend = errors.New("backend unavailable")
	// ErrInUse: something else needs it as it is; the error says what, and what to do.
	ErrInUse = errors.New("in use")
	// ErrTemplate: the vDisk is a template, which can be cloned and deleted only.
	ErrTemplate = errors.New("vdisk is a template")
	// ErrMoved: the vDisk is in another vPool now.
	ErrMoved = errors.New("vdisk is in another vpool")
	// ErrNoPoint: no recoverable moment, or no snapshot, is there.
	ErrNoPoint = errors.New("no such point in the history of the vdisk")
	// ErrNewerFormat: a newer version wrote a record or object of it; nothing is changed.
	ErrNewerFormat = errors.New("written by a newer version: upgrade ovgate")
	// ErrForeignRoot: the backend root belongs to another vPool (rule E7).
	ErrForeignRoot = errors.New("backend root belongs to another vpool")
)

// MediumError is an ErrMedium that knows its place.
type MediumError struct {
	Offset int64 // of the first cluster that cannot be read, in bytes
	Err    error // what is wrong with it
}

// Error names the place in 512-byte units.
func (e *MediumError) Error() string {
	return fmt.Sprintf("%v at lba %d: %v", ErrMedium, e.Offset/lbaBytes, e.Err)
}

// Unwrap makes it match ErrMedium, and the cause.
func (e *MediumError) Unwrap() []error { return []error{ErrMedium, e.Err} }

// ID is the UUID of a vDisk.
type ID [16]byte

// NewID draws a version 4 UUID.
func NewID(random io.Reader) (ID, error) {
	var id ID
	if random == nil {
		random = rand.Reader
	}
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return id, fmt.Errorf("draw vdisk id: %w", err)
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id, nil
}

// String returns the canonical 36-character form.
func (id ID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ParseID reads the canonical form.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, fmt.Errorf("%w: vdisk id %q is not a UUID", ErrInvalid, s)
	}
	b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	if err != nil {
		return id, fmt.Errorf("%w: vdisk id %q is not a UUID", ErrInvalid, s)
	}
	copy(id[:], b)
	return id, nil
}

// MarshalText and UnmarshalText make ID a string in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	v, err := ParseID(string(b))
	if err == nil {
		*id = v
	}
	return err
}

// HostOptions configure what the vDisks of one node share.
type HostOptions struct {
	// FS holds the local state: journal/ (chunk pool) and vdisk/ID/ (head copy,
	// map checkpoints). One Host per FS.
	FS       blockfs.FS
	Registry Registry
	Clock    clock.Clock  // nil: the machine's
	Rand     io.Reader    // nonces; nil: crypto/rand
	Log      *slog.Logger // nil: discard
	Node     string       // this node's id, recorded as owner

	// WriteDisks are where journals are. With none they are in FS; with some, what is left
	// of journals in FS is brought to an end there.
	WriteDisks []WriteDisk
	// JournalBytes bounds the chunk pool in FS; 0: 4 GiB.
	JournalBytes int64
	// ChunkBytes is the size of a journal chunk; 0: 16 MiB. Multiple of 1 MiB.
	ChunkBytes int64
	// CacheBytes bounds the read cache of SCO groups; 0: 128 MiB.
	CacheBytes int64
	// ReadCaches are where groups go that memory has no room for; none by default.
	ReadCaches []ReadCache
	// WriteMemoryBytes bounds journal data kept in memory beside the chunks; 0: 256 MiB.
	WriteMemoryBytes int64
	// MapMemoryBytes bounds the pages of the maps of all vDisks in memory; pages
	// beyond it are read from local disk when they are needed. 0: 256 MiB.
	MapMemoryBytes int64

	// DTL is how journals are mirrored on other nodes, and theirs here; nil: they are not.
	DTL *DTLOptions

	checkpointTLogs uint32               // tests make checkpoints more often; 0: the constant
	overlap         int                  // tests overlap the writing of smaller records; 0: the constant
	group           journal.GroupOptions // tests group all appends; zero: by the size of the disk
	// Uploads bounds SCOs in flight to backends at once; 0: 8.
	Uploads int
}

// WriteDisk is a directory for journals. The journal of a vDisk is on one of them; a vDisk
// that is opened with nothing left in its journal may go to another one.
type WriteDisk struct {
	Name  string // as messages and Usage call it
	FS    blockfs.FS
	Bytes int64 // most that journals take
	Drain bool  // no journal begins there
	// Err is why it cannot be used at the moment. A vDisk that may have acknowledged
	// writes on it is not opened.
	Err error
}

// ReadCache is a directory for the read cache. What is in it is used by this host alone
// and only until it ends.
type ReadCache struct {
	Name  string // as messages and Usage call it
	FS    blockfs.FS
	Bytes int64 // most it may take
}

// PoolConfig binds a vPool to its backend.
type PoolConfig struct {
	ClusterID string // recorded in the backend root object
	ID        string // vPool UUID, recorded in the backend root object
	Name      string
	Store     backend.Store
	Settings  Settings
	// DTLOf returns the DTL mode of a vDisk that has one of its own, else ""; nil: none has.
	// It is asked when the vDisk is opened, and does not wait for anything.
	DTLOf func(id ID) DTLMode
	// HistoryOf returns how far back the moments of a vDisk that has a history of its own
	// are kept, 0: not at all; false: as Settings.History says, as for all if it is nil. It
	// is asked by each scrub and each look at a history, and does not wait for anything.
	HistoryOf func(id ID) (keep time.Duration, own bool)
	// Adopt takes over a root object of another cluster or vPool name (vpool
	// recover); ID must be the one in the root, see ReadRoot.
	Adopt bool
}

// Settings are a vPool's defaults for its vDisks; zero fields take the defaults above.
type Settings struct {
	ClusterSize    int           // 4, 8, 16, 32 or 64 KiB; fixed at vDisk creation
	SCOSize        int64         // 4-128 MiB, power of two, at most JournalQuota/4
	JournalQuota   int64         // 128 MiB-10 GiB per vDisk
	CommitInterval time.Duration // 100 ms-10 min
	StallTimeout   time.Duration // 1 s-1 h
	// History is how far back a moment can be asked for; snapshots are kept however
	// old. 0: as far as it is still there. 1 min or more.
	History time.Duration
	// DTL says whether journals are mirrored (rule O2); "": DTLSync.
	DTL DTLMode
	// AcceptLostTail lets a vDisk that lost acknowledged writes serve without
	// an operator's word (rule E9).
	AcceptLostTail bool
}

// CachePolicy says what the read cache keeps of a vDisk.
type CachePolicy struct {
	Mode cache.Mode
	// Quota bounds what it has in memory and on the READ disks together, in bytes, 16 MiB
	// or more; 0: no bound of its own.
	Quota int64
}

// Spec describes a vDisk to create.
type Spec struct {
	ID          ID
	Name        string
	Size        int64 // bytes, multiple of the cluster size, 1 cluster to 64 TiB
	ClusterSize int   // 0: the vPool's
	// Labels travel in the head, so that a recovery from the backend finds them.
	Labels map[string]string
}

// RequestKind is what a Request asks.
type RequestKind uint8

// Requests.
const (
	ReqRead RequestKind = iota + 1
	ReqWrite
	ReqZero // [Offset, Offset+Length) reads as zeros; keeps no space
	ReqUnmap
	ReqFlush
	ReqCompareAndWrite // Data: compare half, write half
	ReqOrWrite         // what is there OR Data
	ReqReserve         // Data, at most MaxReservation bytes, becomes the reservation state (rule O5)
	reqPin             // the engine's own: a snapshot is made or deleted
)

// Request is one asynchronous operation. The submitter owns it and Data, and
// leaves both alone from Submit until Done.Complete. Offsets and lengths are in
// bytes, multiples of 512; Data at most MaxIO (twice that for CompareAndWrite).
// ReqReserve has neither offset nor length, and Data of any length up to its bound.
type Request struct {
	Kind   RequestKind
	Offset int64
	Length int64 // ReqZero, ReqUnmap
	Data   []byte

	Err          error
	MiscompareAt int // byte offset of the first difference, with ErrMiscompare

	Done interface{ Complete(*Request) }

	st requestState
}

// State of an open vDisk.
type State string

// States.
const (
	StateRunning  State = "running"
	StateStalled  State = "stalled"   // journal full, writes wait for the backend
	StateDegraded State = "degraded"  // backend away, journal has room
	StateFenced   State = "fenced"    // a newer opening owns it
	StateFailed   State = "failed"    // writes stopped by a journal failure
	StateLostTail State = "lost_tail" // not opened: acknowledged writes missing
	StateCorrupt  State = "corrupt"   // not opened: damaged
	StateClosed   State = "closed"
)

// Stats are counters and gauges of one open vDisk.
type Stats struct {
	State State
	Err   string // why, for every state but running

	Epoch        uint32
	Size         int64
	MappedBytes  int64 // clusters that hold data as of the committed head, in bytes
	StoredBytes  int64 // bytes of SCOs the head refers to
	JournalBytes int64 // journal in use, bytes
	JournalQuota int64
	LastSeq      uint64 // newest acknowledged
	// ChangedSeq is the newest that changed content; just opened, it may be a later one. A
	// snapshot that is not older has all that was written.
	ChangedSeq   uint64
	CommittedSeq uint64 // newest on the backend
	LastCommit   time.Time
	HeadNumber   uint64

	ReadOps, WriteOps, UnmapOps, FlushOps uint64
	ReadBytes, WriteBytes                 uint64
	JournalAppends, JournalAppendBytes    uint64
	SCOs, SCOBytes                        uint64 // uploaded by this opening
	// CacheHits are clusters of SCOs that reads found in the read cache, in memory or on disks;
	// CacheMisses are those that they had from the backend. What is fetched ahead is neither.
	CacheHits, CacheMisses   uint64
	CacheBytes               int64 // in the read cache, in memory and on disks
	BackendErrors, CRCErrors uint64
	// Throttled is how long appends were delayed, or waited for room, because the
	// journal was filling up.
	Throttled                         time.Duration
	ScrubReadBytes, ScrubWrittenBytes uint64 // by scrubs of this opening
	ScrubDeleted                      uint64 // objects that were condemned, and deleted
	Condemned                         int    // objects that are condemned and not deleted yet
	// Latency histograms: bucket i counts operations of [2^i, 2^(i+1)) us.
	ReadLatency, WriteLatency [24]uint64
	MapMemoryBytes            int64
	DTL                       DTLStats
	// MapErr says why pages of the map that changed stay in memory: local disk does
	// not take them. Empty: it does.
	MapErr string
}

// Recovered is a vDisk found on a backend by Pool.Recover.
type Recovered struct {
	ID          ID
	Name        string
	Size        int64
	ClusterSize int
	Labels      map[string]string
	Epoch       uint32
	HeadNumber  uint64
	LastSeq     uint64
	Time        time.Time // of the head
	// Clean: the head was written by an orderly close, so nothing
	// acknowledged is missing.
	Clean    bool
	Template bool
	// Parent is what a clone starts from; zero: it is none. ParentMissing: that is not
	// on the backend, so the clone cannot be opened.
	Parent        ID
	ParentMissing bool
	// Known: the registry had this vDisk already and was left as it is.
	Known bool
}

// Surface used by the gateway (implemented in this package):
//
//	NewHost(ctx, HostOptions) (*Host, error)
//	(*Host) AttachPool(ctx, PoolConfig) (*Pool, error)  checks or creates the root object
//	(*Host) Close(ctx) error                            closes every open vDisk: drains, checkpoints
//	(*Host) Usage() HostUsage                           journal pool, caches
//	(*Pool) Create(ctx, Spec) error                     durable on backend and registry on return
//	(*Pool) Open(ctx, ID) (*Volume, error)              ErrLostTail, ErrCorrupt, ErrBackend, ErrFenced ...
//	(*Pool) AcceptLoss(ctx, ID) error                   operator's word for rule E9; Open then succeeds
//	(*Pool) Delete(ctx, ID) error                       closed vDisks only; idempotent, resumable; a tombstone while it has clones
//	(*Pool) Purge(ctx) error                            finishes deletions that were cut off; call it after AttachPool
//	(*Pool) Recover(ctx) ([]Recovered, error)           registers what the backend holds (vpool recover)
//	(*Pool) Detach(ctx) error
//	ReadRoot(ctx, store) (*Root, error)                 whose backend root this is; backend.ErrNotExist if nobody's
//	(*Volume) Submit(*Request)
//	(*Volume) ReadAt(ctx, p, off) error ; WriteAt(ctx, p, off) error
//	(*Volume) Zero(ctx, off, n) error ; Unmap(ctx, off, n) error ; Flush(ctx) error
//	(*Volume) Reserve(ctx, state) error ; Reservation() []byte
//	(*Volume) Snapshot(ctx, SnapshotSpec) (Snapshot, error)  durable on return, O(1); ErrExists for a name in use
//	(*Volume) Snapshots() []Snapshot                    oldest first; InBackend once a committed head covers it
//	(*Volume) DeleteSnapshot(ctx, name or UUID, force) error  durable; absent is no error; sticky needs force
//	(*Pool) Snapshots(ctx, ID) ; DeleteSnapshot(ctx, ID, name, force)  of vDisks that may be closed
//	CheckSnapshot(SnapshotSpec) error                   ErrInvalid if it cannot be made
//	(*Pool) History(ctx, ID, HistoryQuery) (History, error)  recoverable moments, of open and closed vDisks
//	(*Pool) Rollback(ctx, ID, Point) (Rolled, error)    closed vDisks only; to a snapshot or moment
//	(*Pool) Clone(ctx, CloneSpec) error                 of a snapshot, a moment or now; resumable like Create
//	(*Pool) Clones(ctx, ID) ([]CloneInfo, error)        what starts from a vDisk
//	(*Pool) SetTemplate(ctx, ID, bool) error            closed vDisks only; Open of a template: ErrTemplate
//	(*Volume) Flatten(ctx, progress) error              copies what is inherited, lets go of the parent; resumable
//	(*Pool) Scrub(ctx, ID, ScrubOptions) (ScrubResult, error)  open or closed; (*Volume) Scrub; yields, resumable
//	(*Pool) Sweep(ctx, dryRun) (SweepResult, error)     objects that nothing reaches; deletes nothing if in doubt
//	(*Volume) Grow(ctx, size) error                     shrink: ErrInvalid
//	(*Volume) SetLabels(ctx, name, labels) error        new head with the new name and labels
//	(*Volume) SetSettings(Settings) error               quota, intervals of a running vDisk
//	(*Volume) SetCache(CachePolicy)                     what the read cache keeps of it; until the node ends
//	(*Volume) Commit(ctx) error                         all acknowledged writes are on the backend on return
//	(*Volume) Close(ctx) error                          drain, commit, checkpoint, clean head
//	(*Volume) Failed() bool                             it stopped by itself, and stays so
//	(*Volume) Displaced() bool                          its WRITE disk failed, and it can be opened on another one
//	(*Volume) Stats() Stats ; Size() int64 ; ClusterSize() int ; ID() ID
var _ = context.Background
