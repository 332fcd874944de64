package backend

import (
	"fmt"
	"strings"
)

// Limits of object names, in bytes. A segment fits into a file name of any
// common file system with room for a suffix; a name fits into the key of any
// object store.
const (
	MaxNameBytes    = 512
	MaxSegmentBytes = 200
)

// nameShown is how much of an invalid name an error repeats, in bytes: it can
// come from anywhere and have any length.
const nameShown = 80

// ValidName returns nil when name is an object name as the package comment
// defines it, else an error that wraps ErrInvalidName and says what is wrong.
func ValidName(name string) error {
	if len(name) > MaxNameBytes {
		return invalidName(name, fmt.Sprintf("longer than %d bytes", MaxNameBytes))
	}
	for seg := range strings.SplitSeq(name, "/") {
		switch {
		case seg == "":
			return invalidName(name, "an empty segment")
		case seg == "." || seg == "..":
			return invalidName(name, "segment "+seg)
		case len(seg) > MaxSegmentBytes:
			return invalidName(name, fmt.Sprintf("a segment longer than %d bytes", MaxSegmentBytes))
		}
		for i := range len(seg) {
			if !nameByte(seg[i]) {
				return invalidName(name, fmt.Sprintf("byte %q; only a-z, 0-9, '.', '_', '-' are allowed", seg[i]))
			}
		}
	}
	return nil
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

func invalidName(name, why string) error {
	if len(name) > nameShown {
		name = name[:nameShown] + "..."
	}
	return fmt.Errorf("%w %q: %s", ErrInvalidName, name, why)
}

// Limits of one List call, in objects.
const (
	DefaultListLimit = 1000
	MaxListLimit     = 10000
)

// ListLimit returns how many objects a List with this limit returns at most:
// DefaultListLimit for limit <= 0, never more than MaxListLimit.
func ListLimit(limit int) int {
	if limit <= 0 {
		return DefaultListLimit
	}
	return min(limit, MaxListLimit)
}
