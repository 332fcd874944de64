// Package osd defines a device that holds fragments, as the rest of Alba
// consumes it. Implementations: asd.Store (a directory, in this process),
// remote.Client (an ASD over the network) and osdtest.Mem. All run osdtest.
//
// A device is an ordered map from keys to values that changes by atomic,
// durable transactions with conditions. It knows nothing of objects, codes or
// keys to what it holds; package alba/layout says what is stored in it.
//
// # Obligations
//
//	D1  Apply is atomic and durable when it returns nil: all updates are there, or
//	    none. ErrAssert, ErrFull, ErrInvalid and ErrChecksum change nothing; any
//	    other error leaves the outcome unknown.
//	D2  Reads that begin after Apply returned nil see its updates. A read may
//	    show the updates of an Apply that has not returned yet, and after a
//	    crash of the device those may be gone.
//	D3  A value is returned as it was written or not at all: ErrCorrupt where the
//	    stored bytes do not fit their checksums, which cover 64 KiB (Block) each,
//	    so a partial read verifies what it returns without reading the rest.
//	D4  Listing and Validate see keys in bytewise order; a key that is there
//	    during the whole call is in the answer.
//	D5  Beyond its capacity limit a device refuses Applies that set keys, with
//	    ErrFull. Reads and Applies that only delete go on.
//	D6  Info.Applies never decreases in the life of a device, and grows with every
//	    Apply that changed something. One that decreased was replaced by an older
//	    copy of itself: what it acknowledged since then is lost.
//	D7  Every call returns soon after its ctx ends. No retries inside. Safe for
//	    concurrent use. Buffers of arguments belong to the caller again on return,
//	    those of results to the caller.
//	D8  Each call of a Client is answered by the device with the identity that was
//	    asked for, or fails with ErrIdentity.
package osd

import (
	"context"
	"errors"
	"fmt"
)

// Limits. A device refuses what is beyond them with ErrInvalid.
const (
	// MaxKeyBytes bounds a key; it is never empty.
	MaxKeyBytes = 1024
	// MaxValueBytes bounds a value: the largest fragment of a preset (64 MiB)
	// with the overhead of its encryption.
	MaxValueBytes = 65 << 20
	// MaxApplyOps bounds asserts and updates together.
	MaxApplyOps = 4096
	// MaxApplyBytes bounds keys and values of one Apply.
	MaxApplyBytes = MaxValueBytes + 4<<20
	// MaxListKeys bounds the answer of List and Validate, and what a Get asks.
	MaxListKeys = 4096
	// Block is the unit of a device's checksums, in bytes.
	Block = 64 << 10
)

// Errors, wrapped with the device and the key.
var (
	ErrNotExist = errors.New("osd: no such key")
	// ErrAssert: a condition of an Apply does not hold; see AssertError.
	ErrAssert = errors.New("osd: assertion failed")
	// ErrFull: the device is at its capacity limit.
	ErrFull = errors.New("osd: device is full")
	// ErrCorrupt: the stored bytes do not fit their checksum.
	ErrCorrupt = errors.New("osd: stored value is damaged")
	// ErrChecksum: the value of an update does not fit the checksum it came with.
	ErrChecksum = errors.New("osd: value was damaged on its way")
	// ErrRange: a Read beyond the end of the value.
	ErrRange = errors.New("osd: range beyond the value")
	// ErrInvalid: the request breaks a limit.
	ErrInvalid = errors.New("osd: invalid request")
	// ErrIdentity: another device answered.
	ErrIdentity = errors.New("osd: this is another device")
	// ErrAuth: the device does not accept the access key.
	ErrAuth = errors.New("osd: access refused")
	// ErrFailed: the device met an error of its disk and answers no more until
	// it is opened again.
	ErrFailed = errors.New("osd: device failed")
	// ErrClosed: the device was closed.
	ErrClosed = errors.New("osd: closed")
)

// AssertError names the condition of an Apply that did not hold. It matches
// ErrAssert.
type AssertError struct {
	Key []byte
}

func (e *AssertError) Error() string { return fmt.Sprintf("%v: key %q", ErrAssert, e.Key) }

// Is makes errors.Is(err, ErrAssert) true.
func (e *AssertError) Is(target error) bool { return target == ErrAssert }

// Priority orders the work of a busy device.
type Priority uint8

// Priorities. The zero value is that of clients.
const (
	High Priority = iota // reads and writes that somebody waits for
	Low                  // repair, verification, collection
)

// Unverified is added to the priority of a Read by a caller that verifies what it
// gets: the device need not read whole blocks to do that too. D3 does not hold then.
const Unverified Priority = 0x80

// Verified returns the priority without Unverified.
func (p Priority) Verified() Priority { return p &^ Unverified }

// Assert is a condition of an Apply: the key's value equals Value, or, with a
// nil Value, the key is absent. An empty Value that is not nil is an empty value.
// Only values up to MaxAssertBytes can be compared.
type Assert struct {
	Key   []byte
	Value []byte
}

// MaxAssertBytes bounds the value of an Assert.
const MaxAssertBytes = 4096

// Update sets a key to a value, or deletes it. Deleting an absent key is no error.
// A key occurs once in an Apply.
type Update struct {
	Key    []byte
	Delete bool
	Value  []byte
	// CRC is CRC(Value) as its producer computed it; the device stores nothing
	// that does not fit it.
	CRC uint32
	// Sums may hold the CRC of each Block of Value: computed from this memory, by who
	// filled it a moment ago, so that a device which keeps such checksums need not
	// read it again for them and for the comparison with CRC. Nil otherwise.
	Sums []uint32
}

// Set returns the update that sets key to value, for values that are produced
// here and now.
func Set(key, value []byte) Update { return Update{Key: key, Value: value, CRC: CRC(value)} }

// Delete returns the update that removes key.
func Delete(key []byte) Update { return Update{Key: key, Delete: true} }

// Value is an answer of Get: Data is nil when the key is absent.
type Value struct {
	Data []byte
	CRC  uint32
}

// Entry is a key in a listing.
type Entry struct {
	Key  []byte
	Size int64 // bytes of the value
	CRC  uint32
}

// Validation is what Validate found.
type Validation struct {
	Keys  int   // looked at
	Bytes int64 // read
	// Bad are the keys whose stored values do not fit their checksums.
	Bad [][]byte
	// Next is where to go on ("after" of the next call); nil at the end.
	Next []byte
}

// Info describes a device.
type Info struct {
	// ID is the identity stamped on the device when it was made: a UUID.
	ID string
	// Run is random for each start of the device.
	Run string
	// Applies counts the transactions of the device's life (D6).
	Applies uint64
	// Total is the capacity of what lies below, Used what the device's values
	// and index take, Limit the bound of Used from which sets are refused, Free
	// what can still be written. In bytes.
	Total, Used, Limit, Free int64
	// Full tells that sets are refused now.
	Full bool
	// Version is that of the software that serves the device.
	Version string
}

// Stats counts what a device did since its start.
type Stats struct {
	Reads, Applies, Lists, Validates uint64
	ReadBytes, WriteBytes            uint64
	Refused                          uint64 // asserts that failed, full
	Corrupt                          uint64 // values that did not fit their checksum
	Errors                           uint64 // errors of the disk below
}

// OSD is a device. See the package comment for D1-D8.
type OSD interface {
	Info(ctx context.Context) (Info, error)
	Stats(ctx context.Context) (Stats, error)
	// Get returns the values of up to MaxListKeys keys, in that order, each as
	// large as limit bytes at most and MaxValueBytes together; ErrInvalid when they are larger.
	Get(ctx context.Context, keys [][]byte, limit int, prio Priority) ([]Value, error)
	// Read fills p with the value's bytes from off. ErrNotExist, ErrRange. With
	// Unverified in prio, damage may pass.
	Read(ctx context.Context, key []byte, off int64, p []byte, prio Priority) error
	// Apply changes the device when all asserts hold. Within one call a key may
	// be in an assert and an update.
	Apply(ctx context.Context, asserts []Assert, updates []Update, prio Priority) error
	// List returns up to limit keys that begin with prefix and sort after
	// "after" (nil: from the first). Fewer than limit means the end; limit <= 0
	// or beyond MaxListKeys means MaxListKeys.
	List(ctx context.Context, prefix, after []byte, limit int, prio Priority) ([]Entry, error)
	// Validate reads the values of keys as List finds them and compares them with
	// their checksums, until limit keys or budget bytes were read (at least one key).
	Validate(ctx context.Context, prefix, after []byte, limit int, budget int64) (Validation, error)
	Close() error
}

// Prompt is what a device may be whose calls end at once with their ctx, whatever its
// disk does, as those over a network do: a caller that has another way can wait for it
// in place, and call it off.
type Prompt interface {
	Prompt() bool
}

// IsPrompt tells whether a device says that it is Prompt.
func IsPrompt(o OSD) bool {
	p, ok := o.(Prompt)
	return ok && p.Prompt()
}

// ValidateApply checks one Apply against the limits; implementations call it first.
func ValidateApply(asserts []Assert, updates []Update) error {
	if len(asserts)+len(updates) > MaxApplyOps {
		return fmt.Errorf("%w: %d asserts and updates, at most %d", ErrInvalid, len(asserts)+len(updates), MaxApplyOps)
	}
	total := 0
	for _, a := range asserts {
		if err := ValidKey(a.Key); err != nil {
			return err
		}
		if len(a.Value) > MaxAssertBytes {
			return fmt.Errorf("%w: assert on %q compares %d bytes, at most %d", ErrInvalid, a.Key, len(a.Value), MaxAssertBytes)
		}
		total += len(a.Key) + len(a.Value)
	}
	seen := make(map[string]struct{}, len(updates))
	for _, u := range updates {
		if err := ValidKey(u.Key); err != nil {
			return err
		}
		if len(u.Value) > MaxValueBytes {
			return fmt.Errorf("%w: value of %q has %d bytes, at most %d", ErrInvalid, u.Key, len(u.Value), MaxValueBytes)
		}
		if u.Delete && len(u.Value) > 0 {
			return fmt.Errorf("%w: %q is deleted and set", ErrInvalid, u.Key)
		}
		if _, twice := seen[string(u.Key)]; twice {
			return fmt.Errorf("%w: %q is updated twice", ErrInvalid, u.Key)
		}
		seen[string(u.Key)] = struct{}{}
		total += len(u.Key) + len(u.Value)
	}
	if total > MaxApplyBytes {
		return fmt.Errorf("%w: %d bytes in one transaction, at most %d", ErrInvalid, total, MaxApplyBytes)
	}
	return nil
}

// ValidKey returns nil when key may be one.
func ValidKey(key []byte) error {
	if len(key) == 0 || len(key) > MaxKeyBytes {
		return fmt.Errorf("%w: a key of %d bytes, 1 to %d are allowed", ErrInvalid, len(key), MaxKeyBytes)
	}
	return nil
}
