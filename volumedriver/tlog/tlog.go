// Package tlog is the format of TLogs: objects that index a run of consecutive
// SCOs of one opening, so that a map is rebuilt without reading data.
//
//	 0  magic "OVGTLOG1"       48  size of what follows, u64
//	 8  version u16 = 1 to 3   56  crc32c u32 of the whole object, this field as 0
//	10  flags u16              60  scos u32
//	12  epoch u32              64  per SCO: object size u64, then its footer (package sco)
//	16  vdisk 16 bytes
//	32  nonce u32
//	36  number u32
//	40  reserved 8 bytes
//
// Flag bit 0, moved: the SCOs hold what others held (flatten). Flag bit 1, collected:
// it says what counts of any SCOs of the vDisk, old and new (scrub). A moved TLog is of
// version 2, a collected one of version 3, all others of version 1: a program that
// does not know them would take them for damaged.
//
// Invariants:
//
//	L1  The SCOs of a TLog are consecutive in number and, unless moved, in seq;
//	    applied in order they give what its part of the log does to the map. Those of
//	    a moved TLog have one range of seqs in common, and no cluster twice. A
//	    collected TLog is like a moved one, of SCOs of any opening and number: each
//	    footer has those extents alone that count, and seqs and times of the range.
//	L2  Like every object, a TLog is written once; the same content encodes to the
//	    same bytes.
package tlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/volumedriver/clustersum"
	"github.com/openvstorage/ovgate/volumedriver/sco"
)

const (
	version       = 3
	movedVersion  = 2
	plainVersion  = 1
	flagMoved     = 1
	flagCollected = 2
	headerBytes   = 64
	// MaxBytes bounds a TLog, against damage: far above maxRun SCOs of 128 MiB.
	MaxBytes = 512 << 20
	maxRun   = 1 << 16
)

// FormatVersion is the newest TLog format that this code reads and writes.
const FormatVersion = version

var magic = [8]byte{'O', 'V', 'G', 'T', 'L', 'O', 'G', '1'}

// Errors of decoding.
var (
	ErrCorrupt     = errors.New("tlog: damaged object")
	ErrNewerFormat = errors.New("tlog: newer format: upgrade ovgate")
)

// Entry is one SCO of the run.
type Entry struct {
	Bytes  int64 // size of the object
	Footer *sco.Footer
}

// TLog is the index of a run of SCOs.
type TLog struct {
	VDisk  [16]byte
	Epoch  uint32
	Nonce  uint32
	Number uint32
	Moved  bool
	// Collected: see L1; Moved is false then.
	Collected bool
	Entries   []Entry
}

// Name returns the name of a TLog below the directory of its vDisk: by number, and
// epoch and nonce of the opening that wrote it.
func Name(dir string, number, epoch, nonce uint32) string {
	return fmt.Sprintf("%s/tlog/%08x-%08x-%08x", dir, number, epoch, nonce)
}

// Encode returns the object.
func (t *TLog) Encode() []byte {
	n := headerBytes
	for _, e := range t.Entries {
		n += 8 + sco.FooterBytes(len(e.Footer.Extents))
	}
	b := make([]byte, n)
	le := binary.LittleEndian
	copy(b, magic[:])
	le.PutUint16(b[8:], plainVersion)
	switch {
	case t.Moved:
		le.PutUint16(b[8:], movedVersion)
		le.PutUint16(b[10:], flagMoved)
	case t.Collected:
		le.PutUint16(b[8:], version)
		le.PutUint16(b[10:], flagCollected)
	}
	le.PutUint32(b[12:], t.Epoch)
	copy(b[16:32], t.VDisk[:])
	le.PutUint32(b[32:], t.Nonce)
	le.PutUint32(b[36:], t.Number)
	le.PutUint64(b[48:], uint64(n-headerBytes))
	le.PutUint32(b[60:], uint32(len(t.Entries)))
	p := b[headerBytes:]
	for _, e := range t.Entries {
		le.PutUint64(p, uint64(e.Bytes))
		k := sco.FooterBytes(len(e.Footer.Extents))
		sco.EncodeFooter(p[8:8+k], e.Footer)
		p = p[8+k:]
	}
	le.PutUint32(b[56:], clustersum.Plain(b))
	return b
}

// follows reports whether f can come after the entries so far (L1).
func (t *TLog) follows(f *sco.Footer) bool {
	last := t.Entries[len(t.Entries)-1].Footer
	if t.Collected {
		return f.FirstSeq == last.FirstSeq && f.LastSeq == last.LastSeq
	}
	if t.Moved {
		return f.Number == last.Number+1 && f.FirstSeq == last.FirstSeq && f.LastSeq == last.LastSeq
	}
	return f.Number == last.Number+1 && f.FirstSeq == last.LastSeq+1
}

// Decode verifies and reads a TLog.
func Decode(b []byte) (*TLog, error) {
	le := binary.LittleEndian
	if len(b) < headerBytes || string(b[:8]) != string(magic[:]) {
		return nil, fmt.Errorf("%w: no header", ErrCorrupt)
	}
	if v := le.Uint16(b[8:]); v > version {
		return nil, fmt.Errorf("%w (%d)", ErrNewerFormat, v)
	} else if v == 0 {
		return nil, fmt.Errorf("%w: version 0", ErrCorrupt)
	}
	if le.Uint64(b[48:]) != uint64(len(b)-headerBytes) {
		return nil, fmt.Errorf("%w: length", ErrCorrupt)
	}
	if clustersum.Plain(b[:56], make([]byte, 4), b[60:]) != le.Uint32(b[56:]) {
		return nil, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	t := &TLog{Epoch: le.Uint32(b[12:]), Nonce: le.Uint32(b[32:]), Number: le.Uint32(b[36:])}
	copy(t.VDisk[:], b[16:32])
	flags := le.Uint16(b[10:])
	switch le.Uint16(b[8:]) {
	case movedVersion:
		t.Moved = true
		flags ^= flagMoved
	case version:
		t.Collected = true
		flags ^= flagCollected
	}
	if flags != 0 && le.Uint16(b[8:]) != plainVersion {
		return nil, fmt.Errorf("%w: flags %#x", ErrCorrupt, le.Uint16(b[10:]))
	}
	n := int(le.Uint32(b[60:]))
	if n > maxRun {
		return nil, fmt.Errorf("%w: %d entries", ErrCorrupt, n)
	}
	p := b[headerBytes:]
	for i := range n {
		if len(p) < 8 {
			return nil, fmt.Errorf("%w: entry %d", ErrCorrupt, i)
		}
		f, used, err := sco.DecodeFooter(p[8:])
		if err != nil {
			return nil, fmt.Errorf("tlog entry %d: %w", i, err)
		}
		if f.VDisk != t.VDisk || !t.Collected && (f.Epoch != t.Epoch || f.Nonce != t.Nonce) {
			return nil, fmt.Errorf("%w: entry %d is of another opening", ErrCorrupt, i)
		}
		if i > 0 && !t.follows(f) {
			return nil, fmt.Errorf("%w: entry %d does not follow (L1)", ErrCorrupt, i)
		}
		t.Entries = append(t.Entries, Entry{int64(le.Uint64(p)), f})
		p = p[8+used:]
	}
	if len(p) != 0 {
		return nil, fmt.Errorf("%w: trailing bytes", ErrCorrupt)
	}
	return t, nil
}
