package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/internal/kv"
)

// Record is the one registry record of a vDisk (rule O1): every change compares
// all of it. Later additions keep these names.
type Record struct {
	Format int    `json:"format"` // RecordFormat
	ID     ID     `json:"id"`
	Pool   string `json:"pool"`  // vPool UUID
	Owner  string `json:"owner"` // node id; empty: closed
	Epoch  uint32 `json:"epoch"` // of the newest opening
	// Opens are the openings since the head was committed, oldest first: what
	// the epoch table of the next head will hold beyond the head's.
	Opens []Opening `json:"opens,omitempty"`
	Head  HeadRef   `json:"head"`
	DTL   DTLRecord `json:"dtl"`
	// Journal is the journal pool that holds the tail of the newest opening; if
	// another one is there now, a tail may be lost (rule E9).
	Journal string     `json:"journal,omitempty"`
	State   RecordFlag `json:"state,omitempty"`
	// Void are the epochs of rollbacks and freezes that were given up: a head of
	// theirs that turns up on the backend does not count.
	Void []uint32 `json:"void,omitempty"`
	// Parent is what a clone starts from. While it is here, it holds the parent's
	// objects up to that point, whatever becomes of the parent (rule E7).
	Parent *ParentRef `json:"parent,omitempty"`
	// Clones counts the records whose Parent names this vDisk. It changes in one
	// transaction with theirs, and CloneGen with every change, so that whoever looked
	// at them notices that one came or went.
	Clones   int    `json:"clones,omitempty"`
	CloneGen uint64 `json:"cloneGen,omitempty"`
}

// RecordFormat is the newest registry record format this code reads and writes.
// Formats 2 to 5 are written for records with what the ones before did not know.
const RecordFormat = 5

// format returns the oldest format that can say what the record says.
func (r *Record) format() int {
	if r.DTL.Change != 0 {
		return 5
	}
	if r.DTL.State != DTLOff && r.DTL.State != "" {
		return 4
	}
	if r.State == FlagScrub {
		return 3
	}
	if r.State == FlagPending || len(r.Void) > 0 || r.Parent != nil || r.Clones != 0 || r.CloneGen != 0 {
		return 2
	}
	return 1
}

// ParentRef is a point of another vDisk: all of its log up to seq.
type ParentRef struct {
	VDisk ID     `json:"vdisk"`
	Seq   uint64 `json:"seq"`
}

// changeClones counts clones in or out.
func (r *Record) changeClones(by int) {
	r.Clones += by
	r.CloneGen++
}

// sameButClones reports whether two records differ in their clones at most.
func (r *Record) sameButClones(o *Record) bool {
	a, b := *r, *o
	a.Clones, a.CloneGen, a.Format = b.Clones, b.CloneGen, b.Format
	return a.equal(&b)
}

// RecordFlag marks a vDisk that is not simply usable.
type RecordFlag string

// Flags.
const (
	FlagNone     RecordFlag = ""
	FlagDeleting RecordFlag = "deleting"  // delete was decided; never undone
	FlagLostTail RecordFlag = "lost_tail" // rule E9: acknowledged writes are missing
	FlagAccepted RecordFlag = "accepted"  // the operator accepted that loss; the next open clears it
	// FlagPending: a rollback or freeze was decided, by the newest of Opens; the next
	// open finds its head and goes on from that, or voids it and goes on as before.
	FlagPending RecordFlag = "pending"
	// FlagScrub: the owner is about to commit a head with what a scrub made of the log.
	// Until it has, or the next open found out whether it did, no clone starts here: a
	// head that is not in the registry yet does not keep what a new clone needs.
	FlagScrub RecordFlag = "scrub"
)

// Opening is an entry of the epoch table (rule E1).
type Opening struct {
	Epoch     uint32 `json:"epoch"`
	Nonce     uint32 `json:"nonce"`     // part of every object name of this opening
	FirstSeq  uint64 `json:"firstSeq"`  // first seq this opening may assign
	FirstSCO  uint32 `json:"firstSCO"`  // first SCO number
	FirstTLog uint32 `json:"firstTLog"` // first TLog number
	Time      int64  `json:"time"`      // Unix ns
}

// HeadRef points to the committed head (rule E5).
type HeadRef struct {
	Epoch  uint32 `json:"epoch"`
	Nonce  uint32 `json:"nonce"`
	Number uint64 `json:"number"`
	Hash   string `json:"hash"` // hex sha-256 of the object
}

// DTLRecord is the mirror's part of the record (rule O2).
type DTLRecord struct {
	State      DTLState `json:"state"`
	Peer       string   `json:"peer,omitempty"`       // node that has the copy
	Generation uint64   `json:"generation,omitempty"` // of the copy
	// Async: of a copy that is OK the newest records may be missing (DTLAsync).
	Async bool `json:"async,omitempty"`
	// Change counts the changes of the others by one opening, so that no record is ever as
	// one before it was: else a change that arrives late, or twice, could call a copy good
	// again that is not.
	Change uint64 `json:"change,omitempty"`
}

// DTLState tells what the copy of a journal's tail on another node is good for.
type DTLState string

// States. The registry has off, ok and degraded.
const (
	DTLOff DTLState = "off" // none is wanted, or the vDisk is closed with all on the backend
	// DTLOK: with that peer's copy of that generation nothing acknowledged is lost.
	DTLOK DTLState = "ok"
	// DTLCatchup: a copy was begun, and the backend has not all that came before it.
	DTLCatchup DTLState = "catchup"
	// DTLDegraded: writes are acknowledged, or may be, that only the owner has.
	DTLDegraded DTLState = "degraded"
)

// ErrConflict: the record is not what the caller compared with.
var ErrConflict = errors.New("registry record changed")

// Change replaces Old by New; nil Old means "absent", nil New means "delete".
type Change struct{ Old, New *Record }

// Registry keeps one Record per vDisk. Apply is atomic and durable; an error
// other than ErrConflict leaves its outcome unknown.
type Registry interface {
	// Load returns the record; ErrNotFound if there is none.
	Load(ctx context.Context, id ID) (Record, error)
	// Apply makes all changes, of different vDisks and few, or none: ErrConflict
	// when a record is not as its Old.
	Apply(ctx context.Context, changes ...Change) error
	// List calls fn for every record of a vPool; an empty one means all.
	List(ctx context.Context, pool string, fn func(Record) error) error
	// Restored returns the mark that a restore left for a vPool; nil: there is none (E7).
	Restored(ctx context.Context, pool string) (*Restored, error)
	// EndRestored takes that mark away, in one with the comparison that allows it; of another
	// mark, or none, it changes nothing.
	EndRestored(ctx context.Context, pool string, m Restored, c Comparison) error
	// AcceptRestored puts another mark in the place of old; false: another one is there, or none.
	AcceptRestored(ctx context.Context, pool string, old, now Restored) (bool, error)
	// LastComparison returns what EndRestored was given last for a vPool; nil: there was none.
	LastComparison(ctx context.Context, pool string) (*Comparison, error)
}

// KVRegistry keeps the records on a kv.Store under "registry/vdisk/".
type KVRegistry struct{ Store kv.Store }

var _ Registry = KVRegistry{}

const registryPrefix = "registry/vdisk/"

// Load implements Registry.
func (r KVRegistry) Load(ctx context.Context, id ID) (Record, error) {
	e, err := r.Store.Get(ctx, registryPrefix+id.String())
	if err != nil {
		return Record{}, fmt.Errorf("registry: vdisk %s: %w", id, err)
	}
	if e == nil {
		return Record{}, fmt.Errorf("registry: vdisk %s: %w", id, ErrNotFound)
	}
	return decodeRecord(e.Value)
}

func decodeRecord(b []byte) (Record, error) {
	var rec Record
	if err := json.Unmarshal(b, &rec); err != nil {
		return rec, fmt.Errorf("registry: %w: %v", ErrCorrupt, err)
	}
	if rec.Format > RecordFormat {
		return rec, fmt.Errorf("registry: vdisk %s has record format %d, this version knows %d: %w", rec.ID, rec.Format, RecordFormat, ErrNewerFormat)
	}
	return rec, nil
}

// Apply implements Registry.
func (r KVRegistry) Apply(ctx context.Context, changes ...Change) error {
	var cmps []kv.Compare
	var ops []kv.Op
	for _, c := range changes {
		cmp, op, err := c.encode()
		if err != nil {
			return err
		}
		cmps, ops = append(cmps, cmp), append(ops, op)
	}
	res, err := r.Store.Txn(ctx, cmps, ops, nil)
	if err != nil {
		return fmt.Errorf("registry: vdisk %s: %w", changes[0].id(), err)
	}
	if !res.Succeeded {
		return fmt.Errorf("registry: vdisk %s: %w", changes[0].id(), ErrConflict)
	}
	return nil
}

func (c *Change) id() ID {
	if c.Old != nil {
		return c.Old.ID
	}
	return c.New.ID
}

// encode returns the change as a comparison and an operation.
func (c *Change) encode() (cmp kv.Compare, op kv.Op, err error) {
	key := registryPrefix + c.id().String()
	cmp, op = kv.Absent(key), kv.Delete(key)
	if c.Old != nil {
		b, err := json.Marshal(c.Old)
		if err != nil {
			return cmp, op, err
		}
		cmp = kv.ValueIs(key, b)
	}
	if c.New != nil {
		if c.New.ID != c.id() {
			return cmp, op, fmt.Errorf("%w: swap of %s with %s", ErrInvalid, c.id(), c.New.ID)
		}
		b, err := json.Marshal(c.New)
		if err != nil {
			return cmp, op, err
		}
		op = kv.Put(key, b)
	}
	return cmp, op, nil
}

// List implements Registry.
func (r KVRegistry) List(ctx context.Context, pool string, fn func(Record) error) error {
	after := ""
	for {
		page, _, err := r.Store.Range(ctx, registryPrefix, after, 500)
		if err != nil {
			return fmt.Errorf("registry: %w", err)
		}
		for _, e := range page {
			rec, err := decodeRecord(e.Value)
			if err != nil {
				return err
			}
			if pool != "" && rec.Pool != pool {
				continue
			}
			if err := fn(rec); err != nil {
				return err
			}
		}
		if len(page) < 500 {
			return nil
		}
		after = string(page[len(page)-1].Key)
	}
}
