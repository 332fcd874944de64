// Package manager is the registry of an Alba: its devices, presets and
// namespaces, kept on a transactional store. Like the NSM it is a library; the
// store decides between those who use it at the same time.
//
// # Records
//
//	alba/i                  the Alba itself: its UUID, set once
//	alba/c/{osd,ns}         counters of numbers, never given twice
//	alba/c/gaps             namespace numbers that were not given, though below
//	                        the counter: devices had them
//	alba/c/default          changes with every change of the default preset
//	alba/o/<number>         a device
//	alba/s/<number>         what was last seen of it
//	alba/u/<uuid>           the number of the device with this identity
//	alba/p/<name>           a preset
//	alba/n/<name>           a namespace: its number, host, preset, state
//	alba/h/<name>           an NSM host: its share of namespaces
//	alba/j/<id>             a job: progress of long work
//
// # Invariants
//
//	G1  A device belongs to one Alba, which its instance record names; claiming
//	    asserts that there is none. Its number is never used again.
//	G2  A device leaves only when no manifest names it (decommission), or when the
//	    operator accepted what is lost (purge).
//	G3  Before a device stops taking fragments the hosts know (nsm.CloseDevices),
//	    so that what is committed afterwards does not name it.
//	G4  A namespace's number is never used again, and its fragments go with its
//	    number: a late write of a removed namespace cannot appear in another.
//	G5  A preset that a namespace names which stays is not deleted: giving a namespace out
//	    writes the preset's record, and deleting it compares that.
//	G6  A namespace is made on its host once, while the manager has it in state
//	    Creating. A host that does not know one that was completed has lost it:
//	    it is not made anew, empty, since collection would then delete what the
//	    devices still have.
//	G7  Two records that have to agree are written manager, host, manager: whoever
//	    finds a step undone repeats it (Settle).
package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

// Errors, wrapped with the object and, where a person can act, the remedy.
var (
	ErrNotFound = errors.New("alba: not found")
	ErrExists   = errors.New("alba: exists")
	ErrInvalid  = errors.New("alba: invalid")
	// ErrInUse: something else needs the object.
	ErrInUse = errors.New("alba: in use")
	// ErrForeign: the device belongs to another Alba.
	ErrForeign = errors.New("alba: device belongs to another cluster")
	// ErrUnsafe: data would be lost, and nobody accepted that.
	ErrUnsafe = errors.New("alba: data would be lost")
	// ErrLost: the host has no record of the namespace although it was made there.
	ErrLost = errors.New("alba: the namespace's records are lost")
	// ErrState: the object is not in a state for that.
	ErrState = errors.New("alba: wrong state")
)

// Options configure a Manager.
type Options struct {
	Store kv.Store
	// Host returns the NSM host of this name.
	Host  func(name string) (*nsm.Host, error)
	Clock clock.Clock
	Rand  io.Reader
	// Cluster is the UUID to give the Alba when the store has none: that of one
	// whose manager was lost and is set up anew around its devices. Empty: random.
	Cluster string
}

// Manager is the registry. Safe for concurrent use.
type Manager struct {
	o       Options
	kv      kv.Store
	cluster string
}

// Open returns the manager of the Alba on a store, made with a new UUID when
// there is none.
func Open(ctx context.Context, o Options) (*Manager, error) {
	m := &Manager{o: o, kv: o.Store}
	id, err := newUUID(o.Rand)
	if err != nil {
		return nil, err
	}
	if o.Cluster != "" {
		id = o.Cluster
	}
	if _, err := o.Store.Txn(ctx, []kv.Compare{kv.Absent(instanceKey)}, []kv.Op{kv.Put(instanceKey, []byte(id))}, nil); err != nil {
		return nil, err
	}
	rec, err := o.Store.Get(ctx, instanceKey)
	if err != nil {
		return nil, err
	}
	m.cluster = string(rec.Value)
	if o.Cluster != "" && o.Cluster != m.cluster {
		return nil, fmt.Errorf("%w: this is the Alba %s, not %s", ErrInvalid, m.cluster, o.Cluster)
	}
	return m, nil
}

// Cluster returns the Alba's UUID.
func (m *Manager) Cluster() string { return m.cluster }

// Host returns an NSM host.
func (m *Manager) Host(name string) (*nsm.Host, error) { return m.o.Host(name) }

func newUUID(rand io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

const (
	instanceKey = "alba/i"
	osdCounter  = "alba/c/osd"
	defaultKey  = "alba/c/default"
	nsCounter   = "alba/c/ns"
	gapsKey     = "alba/c/gaps"
)

// load reads a record; revision 0 means absent.
func load[T any](ctx context.Context, s kv.Store, key string) (v T, rev int64, err error) {
	rec, err := s.Get(ctx, key)
	if err != nil || rec == nil {
		return v, 0, err
	}
	v, err = decode[T](*rec)
	return v, rec.ModRev, err
}

func decode[T any](rec kv.KV) (v T, err error) {
	if err := json.Unmarshal(rec.Value, &v); err != nil {
		return v, fmt.Errorf("alba: record %s: %w", rec.Key, err)
	}
	return v, nil
}

func save(key string, v any) kv.Op {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("record %s: %v", key, err)) // records are plain structs
	}
	return kv.Put(key, b)
}

// all reads every record with a prefix, in key order.
func all[T any](ctx context.Context, s kv.Store, prefix string) ([]T, error) {
	var out []T
	for after := ""; ; {
		recs, _, err := s.Range(ctx, prefix, after, 0)
		if err != nil {
			return nil, err
		}
		for _, r := range recs {
			v, err := decode[T](r)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
			after = string(r.Key)
		}
		if len(recs) == 0 {
			return out, nil
		}
	}
}

// modify changes a record that exists; change returns an error to leave it.
func modify[T any](ctx context.Context, s kv.Store, key string, change func(v *T) error) (T, error) {
	for {
		v, rev, err := load[T](ctx, s, key)
		if err != nil {
			return v, err
		}
		if rev == 0 {
			return v, ErrNotFound
		}
		if err := change(&v); err != nil {
			return v, err
		}
		res, err := s.Txn(ctx, []kv.Compare{kv.ModRevIs(key, rev)}, []kv.Op{save(key, v)}, nil)
		if err != nil || res.Succeeded {
			return v, err
		}
	}
}

// number takes a number of a counter into a transaction that make builds: the next
// one, or, if again is not 0, that one, which was given before its record was lost.
// The counter ends above it. It tries again while others take numbers, so make
// looks anew whether what it wants is still to be done. Numbers begin at 1.
func (m *Manager) number(ctx context.Context, counter string, again uint64, make func(n uint64) ([]kv.Compare, []kv.Op, error)) error {
	for {
		last, rev, err := load[uint64](ctx, m.kv, counter)
		if err != nil {
			return err
		}
		n := last + 1
		if again != 0 {
			n = again
		}
		cmps, ops, err := make(n)
		if err != nil {
			return err
		}
		cmps = append(cmps, kv.ModRevIs(counter, rev))
		ops = append(ops, save(counter, max(n, last)))
		res, err := m.kv.Txn(ctx, cmps, ops, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

// errTaken: somebody else did it at the same time.
var errTaken = errors.New("alba: done by another")
