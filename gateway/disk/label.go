package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/openvstorage/ovgate/alba/asd"
	"github.com/openvstorage/ovgate/alba/osd"
)

const (
	labelMagic   = "OVGATE ASD DISK\n"
	labelVersion = 1
	labelBytes   = 512 // one sector: it is written whole or not at all
	labelBlock   = 4096
	maxSerial    = 128
	maxWWN       = 160
	uuidBytes    = 36
	// labelFromEnd keeps the label from what mkfs.xfs and others write or erase in
	// the last 512 KiB.
	labelFromEnd = 768 << 10
	// MinSize is the least that a disk has; mkfs.xfs makes nothing below 300 MiB.
	MinSize = 512 << 20
)

// state is how far a disk was made.
type state uint32

const (
	making    state = 1 // its file system is being made
	formatted state = 2 // its file system was made
	ready     state = 3 // it has an ASD
)

// label is what is written on a disk.
type label struct {
	state       state
	uuid        string // of the ASD, and of the file system
	size        int64  // of the disk
	serial, wwn string
}

// labelAt is the place of the label on a disk.
func labelAt(size int64) int64 { return (size - labelFromEnd) &^ (labelBlock - 1) }

// fsBytes is the size of its file system.
func fsBytes(size int64) int64 { return labelAt(size) &^ (1<<20 - 1) }

func (l label) encode() ([]byte, error) {
	if len(l.serial) > maxSerial || len(l.wwn) > maxWWN || len(l.uuid) != uuidBytes {
		return nil, fmt.Errorf("%w: its serial has %d characters, its WWN %d: at most %d and %d fit", ErrUnfit, len(l.serial), len(l.wwn), maxSerial, maxWWN)
	}
	b := append(make([]byte, 0, labelBlock), labelMagic...)
	b = binary.BigEndian.AppendUint32(b, labelVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(l.state))
	b = append(b, l.uuid...)
	b = binary.BigEndian.AppendUint64(b, uint64(l.size))
	text := func(s string, limit int) {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
		b = append(b, make([]byte, limit-len(s))...)
	}
	text(l.serial, maxSerial)
	text(l.wwn, maxWWN)
	b = append(b, make([]byte, labelBytes-4-len(b))...)
	b = binary.BigEndian.AppendUint32(b, osd.CRC(b))
	return b[:labelBlock], nil
}

// errLabel: a label does not decode.
var errLabel = errors.New("the label of ovgate on it is damaged")

// decodeLabel returns nil where there is no label.
func decodeLabel(b []byte) (*label, error) {
	if len(b) < labelBytes || string(b[:len(labelMagic)]) != labelMagic {
		return nil, nil
	}
	b = b[:labelBytes]
	at := len(labelMagic)
	if v := binary.BigEndian.Uint32(b[at:]); v > labelVersion {
		return nil, fmt.Errorf("%w: it has version %d, this program reads %d: use the version that made it", errLabel, v, labelVersion)
	}
	if osd.CRC(b[:labelBytes-4]) != binary.BigEndian.Uint32(b[labelBytes-4:]) {
		return nil, fmt.Errorf("%w: checksum", errLabel)
	}
	at += 4
	l := &label{state: state(binary.BigEndian.Uint32(b[at:])), uuid: string(b[at+4:][:uuidBytes])}
	at += 4 + uuidBytes
	l.size = int64(binary.BigEndian.Uint64(b[at:]))
	at += 8
	text := func(limit int) string {
		n := min(int(binary.BigEndian.Uint16(b[at:])), limit)
		s := string(b[at+2:][:n])
		at += 2 + limit
		return s
	}
	l.serial, l.wwn = text(maxSerial), text(maxWWN)
	if l.state < making || l.state > ready || !asd.ValidID(l.uuid) {
		return nil, fmt.Errorf("%w: state %d, UUID %q", errLabel, l.state, l.uuid)
	}
	return l, nil
}

// readLabel reads the label of a disk; nil where there is none.
func readLabel(r io.ReaderAt, size int64) (*label, error) {
	if size < MinSize {
		return nil, nil
	}
	b := make([]byte, labelBytes)
	if _, err := r.ReadAt(b, labelAt(size)); err != nil {
		return nil, fmt.Errorf("read the label: %w", err)
	}
	return decodeLabel(b)
}

// of tells whether a label is of a disk (K3): the serial decides where both have one,
// as another controller may tell the WWN in another way, else the WWN.
func (l label) of(d Disk) error {
	same := l.serial == "" && l.wwn == ""
	switch {
	case l.serial != "" && d.Serial != "":
		same = l.serial == d.Serial
	case l.wwn != "" && d.WWN != "":
		same = l.wwn == d.WWN
	}
	if !same {
		return fmt.Errorf("%w: its label is of the disk with serial %q and WWN %q, this one has %q and %q: "+
			"it is a copy; use the original, or erase this one (%s)", ErrWrong, l.serial, l.wwn, d.Serial, d.WWN, eraseCommand(d))
	}
	return nil
}

// eraseCommand is how an administrator gives up a disk of ovgate.
func eraseCommand(d Disk) string {
	return fmt.Sprintf("wipefs -a %s && dd if=/dev/zero of=%s bs=4096 count=1 seek=%d", d.Path, d.Path, labelAt(d.Size)/labelBlock)
}
