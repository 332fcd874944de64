// Package kv is the transactional key-value store under the registry and the
// control plane's model. It is the subset of etcd's semantics that one embedded
// bbolt file can give too, so that a single node and a cluster run the same code.
//
// # Model
//
// Keys and values are bytes; keys are ordered bytewise. Every successful
// transaction that changes something gets the next revision: a positive,
// store-wide, strictly growing number. A key carries the revision that created
// it (CreateRev) and the one that last changed it (ModRev); both are 0 for an
// absent key.
//
// # Invariants
//
//	K1  A transaction is atomic, isolated and durable when Txn returns without
//	    error. An error that is not ErrInvalid leaves its outcome unknown: the
//	    caller reads back before it acts on either answer.
//	K2  Reads are linearizable: a Get, GetAll or Range that starts after a Txn returned
//	    sees it.
//	K3  A watch delivers the changes of its prefix in revision order, each once,
//	    the changes of one transaction together, starting after the revision it
//	    names; or it ends with ErrCompacted, and the watcher lists anew.
//	K4  A key bound to a lease disappears, as one change, no earlier than the
//	    lease's time to live after its last renewal. Leases on the embedded
//	    store count from zero again after a restart.
//
// Implementations run the suite in kvtest.
package kv

import (
	"context"
	"errors"
	"time"
)

// Limits of one transaction: what etcd accepts with its default settings
// (128 operations, 1.5 MiB), with room to spare.
const (
	MaxTxnOps   = 100
	MaxTxnBytes = 1 << 20
	// MaxKeyBytes bounds a key.
	MaxKeyBytes = 1024
)

var (
	// ErrInvalid: the request breaks a limit or is malformed; nothing happened.
	ErrInvalid = errors.New("kv: invalid request")
	// ErrCompacted: the watch's start revision is no longer kept.
	ErrCompacted = errors.New("kv: revision compacted")
	// ErrLeaseNotFound: the lease expired or was revoked.
	ErrLeaseNotFound = errors.New("kv: lease not found")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("kv: store closed")
	// ErrLocked: another process holds the store's file.
	ErrLocked = errors.New("kv: store is in use by another process")
	// ErrFormat: the store was written by a newer version, or is no store.
	ErrFormat = errors.New("kv: unknown store format")
)

// LeaseID names a lease; 0 is "no lease".
type LeaseID int64

// KV is one key with its value. Slices belong to the receiver.
type KV struct {
	Key       []byte
	Value     []byte
	CreateRev int64
	ModRev    int64
	Lease     LeaseID
}

// Target says what a Compare looks at.
type Target int

// Compare targets.
const (
	CompareModRev    Target = iota + 1 // equals Rev (0: key is absent)
	CompareCreateRev                   // equals Rev (0: key is absent)
	CompareValue                       // key exists and its value equals Value
)

// Compare is one condition of a transaction.
type Compare struct {
	Key    []byte
	Target Target
	Rev    int64
	Value  []byte
}

// OpKind is the kind of an Op.
type OpKind int

// Operations.
const (
	OpPut OpKind = iota + 1
	OpDelete
	OpGet
)

// Op is one operation of a transaction. A key may be changed at most once in
// a transaction.
type Op struct {
	Kind  OpKind
	Key   []byte
	Value []byte
	Lease LeaseID // OpPut only
}

// Put returns an operation that sets key to value.
func Put(key string, value []byte) Op { return Op{Kind: OpPut, Key: []byte(key), Value: value} }

// Delete returns an operation that removes key; removing an absent key is no error.
func Delete(key string) Op { return Op{Kind: OpDelete, Key: []byte(key)} }

// Get returns an operation that reads key.
func Get(key string) Op { return Op{Kind: OpGet, Key: []byte(key)} }

// ModRevIs returns the condition that key was last changed at rev; 0 means absent.
func ModRevIs(key string, rev int64) Compare {
	return Compare{Key: []byte(key), Target: CompareModRev, Rev: rev}
}

// Absent returns the condition that key does not exist.
func Absent(key string) Compare { return ModRevIs(key, 0) }

// ValueIs returns the condition that key exists with this value.
func ValueIs(key string, value []byte) Compare {
	return Compare{Key: []byte(key), Target: CompareValue, Value: value}
}

// TxnResult is the outcome of a transaction.
type TxnResult struct {
	Succeeded bool  // all compares held and then ran; else els ran
	Rev       int64 // the store's revision after the transaction
	// Gets holds the results of the branch's OpGet operations in order; nil
	// for an absent key. They see the state before the branch's changes.
	Gets []*KV
}

// Event is a change of one key. A deletion has KV.Value nil and KV.ModRev the
// revision of the deletion.
type Event struct {
	Deleted bool
	KV      KV
}

// WatchBatch holds the changes of one transaction, or the error that ended the
// watch (then it is the last batch).
type WatchBatch struct {
	Rev    int64
	Events []Event
	Err    error
}

// Store is the interface; see the package comment for its obligations. All
// methods are safe for concurrent use and return promptly with ctx.Err() when
// ctx ends (the outcome of a Txn is then unknown).
type Store interface {
	// Get returns the key, or nil when it is absent.
	Get(ctx context.Context, key string) (*KV, error)
	// GetAll returns up to MaxTxnOps keys as they were at one moment, in that order; nil for
	// one that is absent.
	GetAll(ctx context.Context, keys []string) ([]*KV, error)
	// Range returns up to limit keys with the prefix, in key order, that sort
	// after "after" (empty: from the first), and the store's revision at which
	// they were read. limit <= 0 means 1000, and at most 10,000 are returned.
	Range(ctx context.Context, prefix, after string, limit int) ([]KV, int64, error)
	// Dump calls each for every key with the prefix, in key order, all of them as they were
	// at one revision, which begin is told before; what is stored meanwhile is not seen. An
	// error of either ends it and is returned. The store may keep changes waiting until it
	// ends, so neither waits for anything slower than a local disk. ErrCompacted: the
	// revision was forgotten meanwhile; begin anew.
	Dump(ctx context.Context, prefix string, begin func(rev int64) error, each func(KV) error) error
	// Txn runs then when every compare holds, els otherwise.
	Txn(ctx context.Context, cmps []Compare, then, els []Op) (TxnResult, error)
	// Watch delivers changes of keys with the prefix made after revision
	// afterRev (from Range). The channel is closed after its last batch, when
	// ctx ends or the store closes. A watcher that does not read for long is
	// ended with ErrCompacted rather than buffered without bound.
	Watch(ctx context.Context, prefix string, afterRev int64) (<-chan WatchBatch, error)
	// Grant creates a lease. ttl is at least one second.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)
	// KeepAlive renews a lease once.
	KeepAlive(ctx context.Context, id LeaseID) error
	// Revoke ends a lease and deletes its keys.
	Revoke(ctx context.Context, id LeaseID) error
	// Close ends watches and releases the store.
	Close() error
}
