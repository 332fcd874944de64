// Package backend defines the object store under a vPool, as the vDisk engine
// consumes it. Implementations: local (directory), alba, swift and s3, and around
// them encrypted, remote (limits and counters) and, in tests, faulty. All run
// backendtest.
//
// # Names
//
// An object name is one or more segments of [a-z0-9._-] joined by "/", no
// segment "." or ".." or longer than 200 bytes, at most 512 bytes in all. The store
// is rooted below whatever prefix, bucket or directory its configuration names;
// names never leave that root.
//
// # Obligations
//
//	S1  Put is all or nothing: a reader sees no object, or all of its bytes. It is
//	    durable when it returns nil. An error leaves the outcome unknown: the
//	    object may exist now or appear later, whole.
//	S2  Put of bytes that are already there under that name succeeds. The engine
//	    never puts different bytes under a name (rule E1).
//	S3  PutIfAbsent returns ErrExists, and changes nothing, when the object
//	    exists; of concurrent calls at most one returns nil. A store that cannot
//	    promise this returns ErrUnsupported and says so in Features.
//	S4  After Put returned nil, Get, ReadAt and Stat find the object until it is
//	    deleted. List may lag; nothing that must be correct relies on it
//	    (Features.ConsistentList tells).
//	S5  Delete is idempotent: deleting an absent object succeeds.
//	S6  No retries inside: the engine retries, with its own budget. Every call
//	    returns soon after ctx ends.
//	S7  Safe for concurrent use. Buffers belong to the caller again on return.
//	S8  Errors are classified: ErrNotExist, ErrExists, ErrFull, ErrUnsupported,
//	    ErrCorrupt as sentinels, anything else is worth a retry.
package backend

import (
	"context"
	"errors"
	"time"
)

// Errors, wrapped with the object's name.
var (
	ErrNotExist    = errors.New("backend: object does not exist")
	ErrExists      = errors.New("backend: object exists")
	ErrFull        = errors.New("backend: no space left")
	ErrUnsupported = errors.New("backend: not supported by this store")
	ErrCorrupt     = errors.New("backend: object damaged")
	ErrInvalidName = errors.New("backend: invalid object name")
	// ErrDenied: the user that the store knows us by may not do this.
	ErrDenied = errors.New("backend: permission denied")
	// ErrRange: a ReadAt beyond the end of the object.
	ErrRange = errors.New("backend: range beyond the object")
	// ErrInUse: another process holds this store exclusively.
	ErrInUse = errors.New("backend: in use by another process")
)

// Info describes an object.
type Info struct {
	Name    string
	Size    int64 // bytes
	ModTime time.Time
}

// Usage is what a store knows of its space, in bytes; Total 0 means unlimited
// or unknown.
type Usage struct {
	Total, Free int64
}

// Features tells what a store promises beyond S1-S8.
type Features struct {
	ConditionalPut bool // PutIfAbsent works
	ConsistentList bool // List shows every completed Put and Delete
	// CheapReads: reading 4 KiB of an object costs much less than reading 64, so that it
	// may take a second read first, of checksums. Not where each request has its price.
	CheapReads bool
}

// Store is an object store. See the package comment for the obligations S1-S8.
type Store interface {
	Put(ctx context.Context, name string, data []byte) error
	PutIfAbsent(ctx context.Context, name string, data []byte) error
	// Get returns a whole object of at most limit bytes; ErrCorrupt if larger.
	Get(ctx context.Context, name string, limit int64) ([]byte, error)
	// ReadAt fills p from offset off; ErrRange if the object ends before.
	ReadAt(ctx context.Context, name string, p []byte, off int64) error
	Stat(ctx context.Context, name string) (Info, error)
	// List returns up to limit objects whose name starts with prefix and sorts
	// after "after", in name order (bytewise). ListLimit bounds limit; a result
	// shorter than that is the end.
	List(ctx context.Context, prefix, after string, limit int) ([]Info, error)
	Delete(ctx context.Context, name string) error
	Usage(ctx context.Context) (Usage, error)
	Features() Features
	Close() error
}
