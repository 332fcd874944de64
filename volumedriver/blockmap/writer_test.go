package blockmap

import (
	"bufio"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"
)

// What wrote checkpoints up to version 2, for the tests of what reads them.

// CheckpointWriter writes a checkpoint page by page, so that the caller holds its
// lock only while it copies a page.
type CheckpointWriter struct {
	w     *bufio.Writer
	crc   hash.Hash32
	pages uint32
	buf   [12 + 8*PageEntries]byte
}

// NewCheckpointWriter writes the header to w.
func NewCheckpointWriter(w io.Writer, h *CheckpointHeader) (*CheckpointWriter, error) {
	c := &CheckpointWriter{crc: crc32.New(castagnoli)}
	c.w = bufio.NewWriterSize(w, 1<<20)
	var b [ckptHeader]byte
	le := binary.LittleEndian
	copy(b[:], ckptMagic[:])
	le.PutUint16(b[8:], ckptVersion)
	le.PutUint32(b[12:], h.Cluster)
	copy(b[16:32], h.VDisk[:])
	le.PutUint32(b[32:], h.FirstTLog)
	le.PutUint32(b[36:], uint32(len(h.SCOs)))
	le.PutUint64(b[40:], h.Clusters)
	copy(b[48:64], h.Line[:])
	if err := c.write(b[:]); err != nil {
		return nil, err
	}
	for _, s := range h.SCOs {
		le.PutUint32(b[0:], s.Number)
		le.PutUint32(b[4:], s.Clusters)
		le.PutUint64(b[8:], uint64(s.Bytes))
		le.PutUint32(b[16:], s.Epoch)
		le.PutUint32(b[20:], s.Nonce)
		if err := c.write(b[:ckptSCO]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *CheckpointWriter) write(b []byte) error {
	c.crc.Write(b)
	_, err := c.w.Write(b)
	return err
}

// CopyPage copies the first page of m at or after number from that base, which may
// be nil, does not share; ok is false when there is none. The caller holds m's
// lock. Then WritePage without the lock.
func (c *CheckpointWriter) CopyPage(m, base *Map, from uint64) (next uint64, ok bool) {
	r, n := m.nextDifferent(base, from)
	if n == noPage {
		return 0, false
	}
	p := &page{}
	if r != nil {
		p = m.content(r)
	}
	le := binary.LittleEndian
	le.PutUint64(c.buf[:], n)
	for i, l := range p {
		le.PutUint64(c.buf[12+8*i:], uint64(l))
	}
	return n + 1, true
}

// WritePage writes the page that CopyPage copied.
func (c *CheckpointWriter) WritePage() error {
	binary.LittleEndian.PutUint32(c.buf[8:], crc32.Checksum(c.buf[12:], castagnoli))
	c.pages++
	return c.write(c.buf[:])
}

// Finish ends the checkpoint; lastTLog is the first TLog that no page reflects.
func (c *CheckpointWriter) Finish(lastTLog uint32) error {
	var b [ckptTrailer]byte
	le := binary.LittleEndian
	le.PutUint64(b[0:], endOfPages)
	le.PutUint32(b[8:], lastTLog)
	le.PutUint32(b[12:], c.pages)
	c.crc.Write(b[:16])
	le.PutUint32(b[16:], c.crc.Sum32())
	copy(b[24:], ckptMagic[:])
	if _, err := c.w.Write(b[:]); err != nil {
		return err
	}
	return c.w.Flush()
}
