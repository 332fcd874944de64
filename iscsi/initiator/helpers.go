package initiator

import (
	"context"
	"fmt"
)

// BlockSize is the logical block size the helpers assume, in bytes.
const BlockSize = 512

// maxAttentions bounds how many unit attentions Ready takes.
const maxAttentions = 16

// Ready runs TEST UNIT READY until no unit attention is left.
func (s *Session) Ready(ctx context.Context, lun uint16) error {
	var err error
	for range maxAttentions {
		if err = s.TestUnitReady(ctx, lun); !IsUnitAttention(err) {
			return err
		}
	}
	return err
}

// TestUnitReady runs TEST UNIT READY.
func (s *Session) TestUnitReady(ctx context.Context, lun uint16) error {
	return s.Do(ctx, &Command{LUN: lun})
}

// rw16 fills a 16-byte CDB with an LBA and a number of blocks.
func rw16(op, flags byte, lba uint64, blocks uint32) (cdb [16]byte) {
	cdb[0], cdb[1] = op, flags
	be.PutUint64(cdb[2:], lba)
	be.PutUint32(cdb[10:], blocks)
	return cdb
}

// ReadCDB and WriteCDB return READ(16) and WRITE(16).
func ReadCDB(lba uint64, blocks uint32) [16]byte { return rw16(0x88, 0, lba, blocks) }

// WriteCDB returns WRITE(16), with FUA if asked for.
func WriteCDB(lba uint64, blocks uint32, fua bool) [16]byte {
	if fua {
		return rw16(0x8a, 0x08, lba, blocks)
	}
	return rw16(0x8a, 0, lba, blocks)
}

// ReadAt fills p, a multiple of BlockSize, from lba.
func (s *Session) ReadAt(ctx context.Context, lun uint16, p []byte, lba uint64) error {
	c := &Command{LUN: lun, CDB: ReadCDB(lba, uint32(len(p)/BlockSize)), In: p}
	if err := s.Do(ctx, c); err != nil {
		return err
	}
	if c.Received != len(p) {
		return fmt.Errorf("initiator: READ at %d: %d of %d bytes", lba, c.Received, len(p))
	}
	return nil
}

// WriteAt stores p, a multiple of BlockSize, at lba.
func (s *Session) WriteAt(ctx context.Context, lun uint16, p []byte, lba uint64) error {
	return s.Do(ctx, &Command{LUN: lun, CDB: WriteCDB(lba, uint32(len(p)/BlockSize), false), Out: p})
}

// SyncCache runs SYNCHRONIZE CACHE(16) for the whole unit.
func (s *Session) SyncCache(ctx context.Context, lun uint16) error {
	return s.Do(ctx, &Command{LUN: lun, CDB: rw16(0x91, 0, 0, 0)})
}

// Capacity is what READ CAPACITY(16) says.
type Capacity struct {
	Blocks          uint64
	BlockSize       uint32
	PhysicalShift   byte // logical blocks per physical block exponent
	Thin, ReadsZero bool // LBPME, LBPRZ
}

// ReadCapacity runs READ CAPACITY(16).
func (s *Session) ReadCapacity(ctx context.Context, lun uint16) (Capacity, error) {
	b := make([]byte, 32)
	cdb := rw16(0x9e, 0x10, 0, 32)
	if err := s.Do(ctx, &Command{LUN: lun, CDB: cdb, In: b}); err != nil {
		return Capacity{}, err
	}
	return Capacity{
		Blocks: be.Uint64(b) + 1, BlockSize: be.Uint32(b[8:]), PhysicalShift: b[13] & 0x0f,
		Thin: b[14]&0x80 != 0, ReadsZero: b[14]&0x40 != 0,
	}, nil
}

// in runs a command with parameter data and returns what arrived.
func (s *Session) in(ctx context.Context, lun uint16, cdb [16]byte, n int) ([]byte, error) {
	c := &Command{LUN: lun, CDB: cdb, In: make([]byte, n)}
	err := s.Do(ctx, c)
	return c.In[:c.Received], err
}

// Inquiry returns standard INQUIRY data, or with vpd >= 0 that page.
func (s *Session) Inquiry(ctx context.Context, lun uint16, vpd int) ([]byte, error) {
	cdb := [16]byte{0x12, 0, 0, 0x04, 0}
	if vpd >= 0 {
		cdb[1], cdb[2] = 1, byte(vpd)
	}
	return s.in(ctx, lun, cdb, 1024)
}

// ReportLUNs returns the LUNs of the target.
func (s *Session) ReportLUNs(ctx context.Context) ([]uint16, error) {
	const size = 16 << 10
	cdb := [16]byte{0xa0}
	be.PutUint32(cdb[6:], size)
	b, err := s.in(ctx, 0, cdb, size)
	if err != nil {
		return nil, err
	}
	var out []uint16
	for o := 8; o+8 <= len(b); o += 8 {
		out = append(out, uint16(b[o]&0x3f)<<8|uint16(b[o+1]))
	}
	return out, nil
}

// Extent is a range of blocks.
type Extent struct {
	LBA    uint64
	Blocks uint32
}

// Unmap gives ranges back.
func (s *Session) Unmap(ctx context.Context, lun uint16, list ...Extent) error {
	b := make([]byte, 8+16*len(list))
	be.PutUint16(b, uint16(len(b)-2))
	be.PutUint16(b[2:], uint16(16*len(list)))
	for i, e := range list {
		be.PutUint64(b[8+16*i:], e.LBA)
		be.PutUint32(b[16+16*i:], e.Blocks)
	}
	cdb := [16]byte{0x42}
	be.PutUint16(cdb[7:], uint16(len(b)))
	return s.Do(ctx, &Command{LUN: lun, CDB: cdb, Out: b})
}

// WriteSame writes one block over a range; unmap sets the UNMAP bit. A nil
// pattern means zeros without data-out (NDOB).
func (s *Session) WriteSame(ctx context.Context, lun uint16, pattern []byte, lba uint64, blocks uint32, unmap bool) error {
	flags := byte(0)
	if unmap {
		flags |= 0x08
	}
	if pattern == nil {
		flags |= 0x01
	}
	return s.Do(ctx, &Command{LUN: lun, CDB: rw16(0x93, flags, lba, blocks), Out: pattern})
}

// CompareAndWrite replaces compare by write, of equal length, at lba, or fails
// with sense key Miscompare.
func (s *Session) CompareAndWrite(ctx context.Context, lun uint16, compare, write []byte, lba uint64) error {
	cdb := rw16(0x89, 0, lba, 0)
	cdb[13] = byte(len(compare) / BlockSize)
	return s.Do(ctx, &Command{LUN: lun, CDB: cdb, Out: append(append([]byte(nil), compare...), write...)})
}
