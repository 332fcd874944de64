package scrub

import (
	"context"
	"fmt"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

// Unit is a piece of work on one vDisk: plain data, made by its owner.
type Unit struct {
	VDisk    [16]byte
	Dir      string // of its objects
	Cluster  int    // bytes
	Clusters uint64 // of the vDisk; what lies beyond does not count
	Level    uint8  // of the vDisk's locations in its map
	// SCOClusters is how many clusters a new SCO holds at most.
	SCOClusters int

	// New objects are named after this opening of the vDisk, with numbers that nothing
	// else gets: SCOs of [FirstSCO, EndSCO), TLogs of [FirstTLog, EndTLog).
	Epoch, Nonce       uint32
	FirstSCO, EndSCO   uint32
	FirstTLog, EndTLog uint32
	Segments           []Segment
	HeadEpoch          uint32 // the head that the unit is of
	HeadNumber         uint64
	CloneGen           uint64   // generation of the vDisk's clones then
	Log                [16]byte // fingerprint of the log then
}

// Segment is a part of the log that only counts as a whole (R1).
type Segment struct {
	FirstSeq, LastSeq   uint64
	FirstTime, LastTime int64 // Unix ns
	// Bottom: nothing lies below, so trims need not be kept.
	Bottom bool
	Inputs []Input
	Move   []uint32 // numbers of the SCOs to empty
}

// Input is a TLog of a segment; of its SCOs those count whose seqs are in the range.
type Input struct {
	Number, Epoch, Nonce uint32
	FirstSeq, LastSeq    uint64
}

// Result is what came of a unit.
type Result struct {
	Segments      []Output // as in the unit
	Objects       []string // names of all that was written, or begun to be
	Read, Written int64    // bytes
}

// Output is what replaces the TLogs of a segment.
type Output struct{ TLogs []*tlog.TLog }

// Env is what work needs from where it runs.
type Env struct {
	Store backend.Store
	// TLog reads a TLog; nil: from the store.
	TLog func(context.Context, Input) (*tlog.TLog, error)
	// Call makes one call of the store, and repeats it as it sees fit; nil: once.
	Call func(context.Context, func(context.Context) error) error
	// Pace waits before n bytes are moved; nil: no limit.
	Pace func(ctx context.Context, n int64) error
}

func (e *Env) call(ctx context.Context, fn func(context.Context) error) error {
	if e.Call == nil {
		return fn(ctx)
	}
	return e.Call(ctx, fn)
}

func (e *Env) pace(ctx context.Context, n int64) error {
	if e.Pace == nil {
		return ctx.Err()
	}
	return e.Pace(ctx, n)
}

// DamageError says that a cluster of an SCO could not be read back verified.
type DamageError struct {
	SCO  uint32 // number
	Name string // of the object
	LBA  uint64 // of the cluster, 512-byte units
	Err  error
}

// Error names object and place.
func (e *DamageError) Error() string {
	return fmt.Sprintf("scrub: %s, lba %d: %v", e.Name, e.LBA, e.Err)
}

// Unwrap returns the cause.
func (e *DamageError) Unwrap() error { return e.Err }

// read returns a TLog of the vDisk.
func (u *Unit) read(ctx context.Context, env *Env, in Input) (*tlog.TLog, error) {
	if env.TLog != nil {
		return env.TLog(ctx, in)
	}
	name := tlog.Name(u.Dir, in.Number, in.Epoch, in.Nonce)
	var b []byte
	if err := env.call(ctx, func(ctx context.Context) (err error) {
		b, err = env.Store.Get(ctx, name, tlog.MaxBytes)
		return err
	}); err != nil {
		return nil, fmt.Errorf("scrub: %s: %w", name, err)
	}
	t, err := tlog.Decode(b)
	if err == nil && (t.VDisk != u.VDisk || t.Number != in.Number || t.Epoch != in.Epoch || t.Nonce != in.Nonce) {
		err = fmt.Errorf("%w: it is another one", tlog.ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("scrub: %s: %w", name, err)
	}
	return t, nil
}

// each calls fn for the SCOs of a segment that count, in order.
func (u *Unit) each(ctx context.Context, env *Env, s *Segment, fn func(tlog.Entry) error) error {
	for _, in := range s.Inputs {
		t, err := u.read(ctx, env, in)
		if err != nil {
			return err
		}
		for _, e := range t.Entries {
			if e.Footer.FirstSeq < in.FirstSeq || e.Footer.LastSeq > in.LastSeq {
				continue
			}
			if int(e.Footer.Cluster) != u.Cluster {
				return fmt.Errorf("scrub: sco %d of %s: %w: clusters of %d bytes", e.Footer.Number, u.Dir, sco.ErrCorrupt, e.Footer.Cluster)
			}
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}
