package blockfs

import (
	"errors"
	"fmt"
)

// Kind is the kind of a file-system operation.
type Kind int

// Kinds of operation, as a hook of Mem and Inject see them.
const (
	OpOpen Kind = iota + 1
	OpRead
	OpWrite
	OpSync
	OpTruncate
	OpPreallocate
	OpRename
	OpLink
	OpRemove
	OpMkdir
	OpSyncDir
	OpList
	OpStat
)

var kindNames = [...]string{
	OpOpen: "open", OpRead: "read", OpWrite: "write", OpSync: "sync",
	OpTruncate: "truncate", OpPreallocate: "preallocate", OpRename: "rename",
	OpLink: "link", OpRemove: "remove", OpMkdir: "mkdir", OpSyncDir: "syncdir",
	OpList: "list", OpStat: "stat",
}

// String returns the kind's lower-case name.
func (k Kind) String() string {
	if k < 1 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind(%d)", int(k))
	}
	return kindNames[k]
}

// OpInfo describes one operation.
type OpInfo struct {
	N       int64  // sequence number, from 1
	Kind    Kind   // what is done
	Path    string // the file or directory; the old name of a rename or link
	NewPath string // rename and link only
	Off     int64  // read and write: offset in bytes
	Len     int64  // read and write: length; truncate and preallocate: the size asked for
}

// String returns the operation as one line of a transcript.
func (o OpInfo) String() string {
	switch o.Kind {
	case OpRead, OpWrite:
		return fmt.Sprintf("%d %s %s [%d,+%d)", o.N, o.Kind, o.Path, o.Off, o.Len)
	case OpTruncate, OpPreallocate:
		return fmt.Sprintf("%d %s %s to %d", o.N, o.Kind, o.Path, o.Len)
	case OpRename, OpLink:
		return fmt.Sprintf("%d %s %s to %s", o.N, o.Kind, o.Path, o.NewPath)
	}
	return fmt.Sprintf("%d %s %s", o.N, o.Kind, o.Path)
}

// partialError asks Inject to let the first n bytes pass.
type partialError struct {
	n   int
	err error
}

func (p *partialError) Error() string {
	return fmt.Sprintf("%v (after %d bytes)", p.err, p.n)
}

func (p *partialError) Unwrap() error { return p.err }

// Partial returns an error for use in Inject: a read or write transfers its
// first n bytes (rounded down to Alignment on a Direct file) and then fails
// with err. Other operations fail without effect.
func Partial(n int, err error) error { return &partialError{n: n, err: err} }

// asPartial returns how many of total bytes an injected error lets pass, and
// the error that the caller of the operation sees.
func asPartial(err error, total int, direct bool) (int, error) {
	var p *partialError
	if !errors.As(err, &p) {
		return 0, err
	}
	n := min(max(p.n, 0), total)
	if direct {
		n -= n % Alignment
	}
	return n, p.err
}
