package esxsim

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// Where things are in a volume, in bytes; see the package comment.
const (
	headerAt   = 1 << 20
	headerSize = 4096
	lockAt     = headerAt + 64<<10
	scratchAt  = headerAt + 128<<10
	dataAt     = 16 << 20
	// tail is what GPT keeps at the end of a disk, in blocks.
	tail = 34
	// ownSpace is what a volume keeps for itself, in bytes.
	ownSpace = 16 << 20
)

const magic = "ESXSIM-VMFS"

// header stands for what VMFS writes at the start of a volume.
type header struct {
	Magic string `json:"magic"`
	UUID  string `json:"uuid"`
	Label string `json:"label"`
	Disk  string `json:"disk"` // canonical name of the disk that it was written for
	End   int64  `json:"end"`  // last block
	Major int32  `json:"major"`
}

// newVolumeUUID draws one in the form that VMFS uses.
func newVolumeUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	u := hex.EncodeToString(b[:])
	return u[:8] + "-" + u[8:16] + "-" + u[16:20] + "-" + u[20:]
}

func readBlocks(s *initiator.Session, lun uint16, b []byte, at int64) error {
	return again(func(ctx context.Context) error { return s.ReadAt(ctx, lun, b, uint64(at/initiator.BlockSize)) })
}

func writeBlocks(s *initiator.Session, lun uint16, b []byte, at int64) error {
	return again(func(ctx context.Context) error { return s.WriteAt(ctx, lun, b, uint64(at/initiator.BlockSize)) })
}

// readHeader returns the header of a LUN; nil: it has none.
func readHeader(s *initiator.Session, lun uint16) (*header, error) {
	b := make([]byte, headerSize)
	if err := readBlocks(s, lun, b, headerAt); err != nil {
		return nil, err
	}
	var h header
	if json.Unmarshal(bytes.TrimRight(b, "\x00"), &h) != nil || h.Magic != magic {
		return nil, nil
	}
	return &h, nil
}

// writeHeader writes a header, or with nil wipes it, and reads it back.
func writeHeader(s *initiator.Session, lun uint16, h *header) error {
	b := make([]byte, headerSize)
	if h != nil {
		text, err := json.Marshal(h)
		if err != nil {
			return err
		}
		if copy(b, text) < len(text) {
			return fmt.Errorf("the header of %q is too long", h.Label)
		}
	}
	if err := writeBlocks(s, lun, b, headerAt); err != nil {
		return err
	}
	got := make([]byte, headerSize)
	if err := readBlocks(s, lun, got, headerAt); err != nil {
		return err
	}
	if !bytes.Equal(got, b) {
		return errors.New("the LUN does not return what was written")
	}
	return nil
}

// locked runs fn with the volume's lock, which is taken and left by COMPARE AND WRITE.
func (h *Host) locked(l *lun, fn func(s *initiator.Session, number uint16) error) error {
	s, number, err := l.live()
	if err != nil {
		return err
	}
	if !l.ats {
		return fmt.Errorf("%s does not do COMPARE AND WRITE", l.name)
	}
	free, mine := make([]byte, initiator.BlockSize), make([]byte, initiator.BlockSize)
	copy(mine, h.IQN)
	swap := func(from, to []byte) error {
		return again(func(ctx context.Context) error {
			return s.CompareAndWrite(ctx, number, from, to, lockAt/initiator.BlockSize)
		})
	}
	if err := swap(free, mine); err != nil {
		return fmt.Errorf("the volume is locked: %w", err)
	}
	err = fn(s, number)
	return errors.Join(err, swap(mine, free))
}

// tryBlockZero checks WRITE SAME and UNMAP, which a host does at format and later.
func tryBlockZero(s *initiator.Session, number uint16, thin bool) error {
	const size = 64 << 10
	at, blocks := uint64(scratchAt/initiator.BlockSize), uint32(size/initiator.BlockSize)
	full, got := bytes.Repeat([]byte{0xa5}, size), make([]byte, size)
	zeroed := func(what string, do func(ctx context.Context) error) error {
		if err := writeBlocks(s, number, full, scratchAt); err != nil {
			return err
		}
		if err := again(do); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err := readBlocks(s, number, got, scratchAt); err != nil {
			return err
		}
		if !bytes.Equal(got, make([]byte, size)) {
			return fmt.Errorf("%s leaves data", what)
		}
		return nil
	}
	err := zeroed("WRITE SAME", func(ctx context.Context) error {
		return s.WriteSame(ctx, number, make([]byte, initiator.BlockSize), at, blocks, false)
	})
	if err != nil || !thin {
		return err
	}
	return zeroed("UNMAP", func(ctx context.Context) error {
		return s.Unmap(ctx, number, initiator.Extent{LBA: at, Blocks: blocks})
	})
}

// format makes a volume on a disk that has none.
func (h *Host) format(l *lun, hd *header) error {
	return h.locked(l, func(s *initiator.Session, number uint16) error {
		there, err := readHeader(s, number)
		if err != nil {
			return err
		}
		if there != nil {
			return fmt.Errorf("the disk has volume %q", there.Label)
		}
		if err := tryBlockZero(s, number, l.dev.thin); err != nil {
			return err
		}
		// The end of a disk has the second GPT: it has to be there.
		if err := writeBlocks(s, number, make([]byte, initiator.BlockSize), int64(l.dev.blocks-1)*initiator.BlockSize); err != nil {
			return fmt.Errorf("the end of the disk: %w", err)
		}
		return writeHeader(s, number, hd)
	})
}

// rewrite replaces the header of a volume that is still the one that this host knows.
func (h *Host) rewrite(l *lun, hd *header) error {
	return h.locked(l, func(s *initiator.Session, number uint16) error {
		there, err := readHeader(s, number)
		if err != nil {
			return err
		}
		if there == nil || there.UUID != l.header.UUID {
			return errors.New("the disk has another volume by now")
		}
		if hd != nil && hd.End > there.End {
			// The new space has to be there.
			if err := writeBlocks(s, number, make([]byte, initiator.BlockSize), hd.End*initiator.BlockSize); err != nil {
				return fmt.Errorf("the new end: %w", err)
			}
		}
		return writeHeader(s, number, hd)
	})
}

// capacity is what a volume has for files, in bytes.
func (l *lun) capacity() int64 {
	return (l.header.End+1)*initiator.BlockSize - headerAt
}
