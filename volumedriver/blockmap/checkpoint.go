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

// The checkpoint up to version 2, which is only read now, little-endian:
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
const FormatVersion = indexVersion

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

// ReadCheckpoint reads a checkpoint of version 1 or 2 into a new map, on top of a clone of base if
// that is not nil; ErrCheckpoint when it does not verify from the first byte to the
// last.
func ReadCheckpoint(r io.Reader, base *Map, mem *Memory) (*Map, *CheckpointHeader, error) {
	var m *Map
	h := &CheckpointHeader{}
	begin := func() {
		if m != nil {
			return
		}
		if m = New(h.Clusters, mem); base != nil {
			m = base.Clone(h.Clusters)
		}
	}
	err := readCheckpoint(r, h,
		func(s SCOInfo) { h.SCOs = append(h.SCOs, s) },
		func(n uint64, p *page) {
			begin()
			m.setPage(n, p)
		})
	if err != nil {
		if m != nil {
			m.Release()
		}
		return nil, nil, err
	}
	begin()
	return m, h, nil
}

// InspectCheckpoint verifies a checkpoint of version 1 or 2 in memory that does not
// depend on it. sco and page are called for what it holds, in order, before it is known
// to be whole; page with its number and how many of its clusters are mapped. SCOs of the
// header stays empty.
func InspectCheckpoint(r io.Reader, sco func(SCOInfo), pages func(number uint64, mapped int)) (*CheckpointHeader, error) {
	h := &CheckpointHeader{}
	err := readCheckpoint(r, h, sco, func(n uint64, p *page) { pages(n, p.mapped()) })
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
