package blockmap

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

// Checkpoint format, little-endian:
//
//	header  64 bytes: magic "OVGMAP01" | version u16 = 2 | flags u16 | cluster u32 |
//	        vdisk 16 bytes | first TLog u32 | sco count u32 | clusters u64 |
//	        line 16 bytes
//	scos    24 bytes each: number u32 | clusters u32 | object bytes u64 |
//	        epoch u32 | nonce u32
//	pages   4108 bytes each: page number u64 | crc32c of the entries u32 | 512 Loc;
//	        of a clone those that it does not share with its parent's map
//	trailer 32 bytes: page number 2^64-1 | last TLog u32 | pages u32 |
//	        crc32c of everything before u32 | 0 u32 | magic
//
// line says which log and which parent's map the checkpoint belongs to: it is of
// use only where they are the same. Version 1 had no line and no opening in scos,
// 16 bytes each.
const (
	ckptVersion = 2
	ckptHeader  = 64
	ckptSCO     = 24
	ckptOldSCO  = 16 // version 1
	ckptTrailer = 32
	endOfPages  = ^uint64(0)
)

// FormatVersion is the newest checkpoint format that this code reads and writes.
const FormatVersion = ckptVersion

var ckptMagic = [8]byte{'O', 'V', 'G', 'M', 'A', 'P', '0', '1'}

// ErrCheckpoint: the checkpoint is damaged or of another format; the map is to
// be rebuilt from TLogs.
var ErrCheckpoint = errors.New("map checkpoint not usable")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SCOInfo is what the map keeps of an SCO.
type SCOInfo struct {
	Number   uint32
	Clusters uint32
	Bytes    int64 // of the object
	// Epoch and Nonce are of the opening that wrote it; 0 from a checkpoint of
	// version 1.
	Epoch, Nonce uint32
}

// CheckpointHeader describes a checkpoint.
type CheckpointHeader struct {
	VDisk     [16]byte
	Line      [16]byte
	Cluster   uint32 // bytes
	Clusters  uint64
	FirstTLog uint32 // replay from here (M4)
	LastTLog  uint32 // replay at least up to before here (M4); set by Finish
	SCOs      []SCOInfo
}

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
	p, n := m.nextDifferent(base, from)
	if n == noPage {
		return 0, false
	}
	if p == nil {
		p = &page{}
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

// ReadCheckpoint reads a checkpoint into a new map, on top of a clone of base if
// that is not nil; ErrCheckpoint when it does not verify from the first byte to the
// last.
func ReadCheckpoint(r io.Reader, base *Map) (*Map, *CheckpointHeader, error) {
	var m *Map
	h := &CheckpointHeader{}
	err := readCheckpoint(r, h,
		func(s SCOInfo) { h.SCOs = append(h.SCOs, s) },
		func(n uint64, p *page) {
			if m == nil {
				m = newOn(h.Clusters, base)
			}
			m.setPage(n, p)
		})
	if err != nil {
		return nil, nil, err
	}
	if m == nil {
		m = newOn(h.Clusters, base)
	}
	return m, h, nil
}

// newOn returns a map to read pages into.
func newOn(clusters uint64, base *Map) *Map {
	if base != nil {
		return base.Clone(clusters)
	}
	return New(clusters)
}

// InspectCheckpoint verifies a checkpoint in memory that does not depend on it. sco and
// page are called for what it holds, in order, before it is known to be whole; page with
// its number and how many of its clusters are mapped. SCOs of the header stays empty.
func InspectCheckpoint(r io.Reader, sco func(SCOInfo), pages func(number uint64, mapped int)) (*CheckpointHeader, error) {
	h := &CheckpointHeader{}
	err := readCheckpoint(r, h, sco, func(n uint64, p *page) {
		mapped := 0
		for _, l := range p {
			if l.Mapped() {
				mapped++
			}
		}
		pages(n, mapped)
	})
	return h, err
}

// readCheckpoint reads a checkpoint from the first byte to the last.
func readCheckpoint(r io.Reader, h *CheckpointHeader, sco func(SCOInfo), page func(uint64, *page)) error {
	crc := crc32.New(castagnoli)
	br := io.TeeReader(bufio.NewReaderSize(r, 1<<20), crc)
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrCheckpoint, what) }
	var b [ckptHeader]byte
	le := binary.LittleEndian
	if _, err := io.ReadFull(br, b[:]); err != nil || string(b[:8]) != string(ckptMagic[:]) || le.Uint16(b[8:]) < 1 || le.Uint16(b[8:]) > ckptVersion {
		return bad("header")
	}
	h.Cluster, h.FirstTLog, h.Clusters = le.Uint32(b[12:]), le.Uint32(b[32:]), le.Uint64(b[40:])
	copy(h.VDisk[:], b[16:32])
	copy(h.Line[:], b[48:64])
	if h.Clusters > 1<<38 {
		return bad("size")
	}
	size := ckptSCO
	if le.Uint16(b[8:]) == 1 {
		size = ckptOldSCO
	}
	for range le.Uint32(b[36:]) {
		clear(b[:ckptSCO])
		if _, err := io.ReadFull(br, b[:size]); err != nil {
			return bad("sco table")
		}
		sco(SCOInfo{le.Uint32(b[0:]), le.Uint32(b[4:]), int64(le.Uint64(b[8:])), le.Uint32(b[16:]), le.Uint32(b[20:])})
	}
	return readPages(br, crc, h, page)
}

// readPages reads pages and trailer.
func readPages(br io.Reader, crc hash.Hash32, h *CheckpointHeader, set func(uint64, *page)) error {
	le := binary.LittleEndian
	buf := make([]byte, 12+8*PageEntries)
	for pages := uint32(0); ; pages++ {
		if _, err := io.ReadFull(br, buf[:8]); err != nil {
			return fmt.Errorf("%w: cut off", ErrCheckpoint)
		}
		n := le.Uint64(buf)
		if n == endOfPages {
			return readTrailer(br, crc, buf, h, pages)
		}
		if _, err := io.ReadFull(br, buf[8:]); err != nil || le.Uint32(buf[8:]) != crc32.Checksum(buf[12:], castagnoli) {
			return fmt.Errorf("%w: page %d", ErrCheckpoint, n)
		}
		if n >= endOfPages/PageEntries || n*PageEntries >= h.Clusters {
			return fmt.Errorf("%w: page %d beyond the end", ErrCheckpoint, n)
		}
		var p page
		for i := range uint64(PageEntries) {
			l := Loc(le.Uint64(buf[12+8*i:]))
			if !l.Mapped() {
				continue
			}
			if n*PageEntries+i >= h.Clusters {
				return fmt.Errorf("%w: page %d beyond the end", ErrCheckpoint, n)
			}
			p[i] = l
		}
		set(n, &p)
	}
}

func readTrailer(br io.Reader, crc hash.Hash32, buf []byte, h *CheckpointHeader, pages uint32) error {
	le := binary.LittleEndian
	if _, err := io.ReadFull(br, buf[8:16]); err != nil {
		return fmt.Errorf("%w: trailer", ErrCheckpoint)
	}
	sum := crc.Sum32()
	if _, err := io.ReadFull(br, buf[16:ckptTrailer]); err != nil || le.Uint32(buf[12:]) != pages ||
		le.Uint32(buf[16:]) != sum || string(buf[24:32]) != string(ckptMagic[:]) {
		return fmt.Errorf("%w: trailer", ErrCheckpoint)
	}
	h.LastTLog = le.Uint32(buf[8:])
	return nil
}
