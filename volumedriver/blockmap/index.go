package blockmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Index format, version 3 of the checkpoint, little-endian:
//
//	header    96 bytes: magic "OVGMAP01" | version u16 = 3 | flags u16 = 0 |
//	          cluster u32 | vdisk 16 bytes | next TLog u32 | sco count u32 |
//	          clusters u64 | line 16 bytes | segment count u32 | page count u32 |
//	          epoch u32 | nonce u32 | number u64 | 0 u64
//	scos      24 bytes each: number u32 | clusters u32 | object bytes u64 |
//	          epoch u32 | nonce u32
//	segments  16 bytes each: number u32 | epoch u32 | nonce u32 | pages u32
//	pages     16 bytes each, by number: page number u32 | segment u32, index in the
//	          table | checksum u32 | slot u16 | locations in use u16; of a clone those
//	          that it does not share with its parent's map, with none in use where
//	          only the parent has a page
//	trailer   16 bytes: crc32c of everything before u32 | 0 u32 | magic
//
// line says which log and which parent's map the checkpoint belongs to: it is of
// use only where they are the same. Epoch, nonce and number name the index.
//
// A segment is a header of 4096 bytes and then the pages, 512 Loc of 8 bytes each:
//
//	header    magic "OVGSEG01" | version u16 = 1 | 0 u16 | 0 u32 | vdisk 16 bytes |
//	          number u32 | epoch u32 | nonce u32 | 0
//
// The checksum of a page is in the index, over its number (u64) and its bytes.
// Versions 1 and 2 held the pages themselves (checkpoint.go).
const (
	indexVersion = 3
	indexHeader  = 96
	indexSCO     = 24
	indexSegment = 16
	indexPage    = 16
	indexTrailer = 16

	segmentVersion = 1
	// SegmentHeader is where the pages of a segment start, in bytes.
	SegmentHeader = 4096
	// SegmentPages bounds a segment: 16 MiB, an object that any backend takes in one
	// request, and few enough of them.
	SegmentPages = 4095
)

var segmentMagic = [8]byte{'O', 'V', 'G', 'S', 'E', 'G', '0', '1'}

// Index describes a checkpoint.
type Index struct {
	VDisk    [16]byte
	Line     [16]byte
	Cluster  uint32 // bytes
	Clusters uint64
	NextTLog uint32 // replay from here (M4)
	SCOs     []SCOInfo
	// Epoch, Nonce and Number name the index.
	Epoch, Nonce uint32
	Number       uint64
	Segments     []*Segment // by first use
}

// EncodeSegmentHeader returns the header of a segment.
func EncodeSegmentHeader(vdisk [16]byte, s *Segment) []byte {
	b := make([]byte, SegmentHeader)
	le := binary.LittleEndian
	copy(b, segmentMagic[:])
	le.PutUint16(b[8:], segmentVersion)
	copy(b[16:], vdisk[:])
	le.PutUint32(b[32:], s.Number)
	le.PutUint32(b[36:], s.Epoch)
	le.PutUint32(b[40:], s.Nonce)
	return b
}

// Encode returns the checkpoint of m over base, which may be nil: the pages that the
// two do not share. No page of m is dirty. It fills in Clusters and Segments.
func (x *Index) Encode(m, base *Map) []byte {
	x.Clusters, x.Segments = m.clusters, nil
	table := map[*Segment]uint32{}
	pages := 0
	for n := uint64(0); ; n++ {
		var r *ref
		if r, n = m.nextDifferent(base, n); n == noPage {
			break
		}
		pages++
		if r == nil {
			continue
		}
		if r.seg == nil {
			panic("blockmap: checkpoint of a dirty page")
		}
		if _, ok := table[r.seg]; !ok {
			table[r.seg] = uint32(len(x.Segments))
			x.Segments = append(x.Segments, r.seg)
		}
	}
	le := binary.LittleEndian
	b := make([]byte, indexHeader, indexHeader+indexSCO*len(x.SCOs)+indexSegment*len(x.Segments)+indexPage*pages+indexTrailer)
	copy(b, ckptMagic[:])
	le.PutUint16(b[8:], indexVersion)
	le.PutUint32(b[12:], x.Cluster)
	copy(b[16:32], x.VDisk[:])
	le.PutUint32(b[32:], x.NextTLog)
	le.PutUint32(b[36:], uint32(len(x.SCOs)))
	le.PutUint64(b[40:], x.Clusters)
	copy(b[48:64], x.Line[:])
	le.PutUint32(b[64:], uint32(len(x.Segments)))
	le.PutUint32(b[68:], uint32(pages))
	le.PutUint32(b[72:], x.Epoch)
	le.PutUint32(b[76:], x.Nonce)
	le.PutUint64(b[80:], x.Number)
	for _, s := range x.SCOs {
		b = le.AppendUint32(b, s.Number)
		b = le.AppendUint32(b, s.Clusters)
		b = le.AppendUint64(b, uint64(s.Bytes))
		b = le.AppendUint32(b, s.Epoch)
		b = le.AppendUint32(b, s.Nonce)
	}
	for _, s := range x.Segments {
		b = le.AppendUint32(b, s.Number)
		b = le.AppendUint32(b, s.Epoch)
		b = le.AppendUint32(b, s.Nonce)
		b = le.AppendUint32(b, s.Pages)
	}
	for n := uint64(0); ; n++ {
		var r *ref
		if r, n = m.nextDifferent(base, n); n == noPage {
			break
		}
		b = le.AppendUint32(b, uint32(n))
		if r == nil {
			b = append(b, make([]byte, indexPage-4)...)
			continue
		}
		b = le.AppendUint32(b, table[r.seg])
		b = le.AppendUint32(b, r.sum)
		b = le.AppendUint16(b, uint16(r.slot))
		b = le.AppendUint16(b, m.root[n/nodePages].used[n%nodePages])
	}
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	b = le.AppendUint32(b, 0)
	return append(b, ckptMagic[:]...)
}

// DecodeIndex verifies a checkpoint; ErrCheckpoint if it is damaged or of another
// version. Map makes the map of it.
func DecodeIndex(b []byte, o *Owner) (*Index, error) {
	x, _, err := decodeIndex(b, o)
	return x, err
}

func decodeIndex(b []byte, o *Owner) (*Index, []byte, error) {
	bad := func(what string) (*Index, []byte, error) {
		return nil, nil, fmt.Errorf("%w: %s", ErrCheckpoint, what)
	}
	le := binary.LittleEndian
	if len(b) < indexHeader+indexTrailer || string(b[:8]) != string(ckptMagic[:]) || le.Uint16(b[8:]) != indexVersion || le.Uint16(b[10:]) != 0 {
		return bad("header")
	}
	end := len(b) - indexTrailer
	if string(b[end+8:]) != string(ckptMagic[:]) || le.Uint32(b[end+4:]) != 0 || le.Uint32(b[end:]) != crc32.Checksum(b[:end], castagnoli) {
		return bad("trailer")
	}
	scos, segs, pages := uint64(le.Uint32(b[36:])), uint64(le.Uint32(b[64:])), uint64(le.Uint32(b[68:]))
	if uint64(end) != indexHeader+indexSCO*scos+indexSegment*segs+indexPage*pages {
		return bad("size")
	}
	x := &Index{Cluster: le.Uint32(b[12:]), NextTLog: le.Uint32(b[32:]), Clusters: le.Uint64(b[40:]),
		Epoch: le.Uint32(b[72:]), Nonce: le.Uint32(b[76:]), Number: le.Uint64(b[80:])}
	copy(x.VDisk[:], b[16:32])
	copy(x.Line[:], b[48:64])
	if x.Clusters > PageEntries<<32 {
		return bad("clusters")
	}
	b = b[indexHeader:end]
	x.SCOs = make([]SCOInfo, scos)
	for i := range x.SCOs {
		x.SCOs[i] = SCOInfo{le.Uint32(b[0:]), le.Uint32(b[4:]), int64(le.Uint64(b[8:])), le.Uint32(b[16:]), le.Uint32(b[20:])}
		b = b[indexSCO:]
	}
	for range segs {
		s := &Segment{Number: le.Uint32(b[0:]), Epoch: le.Uint32(b[4:]), Nonce: le.Uint32(b[8:]), Pages: le.Uint32(b[12:]), Owner: o}
		if s.Pages > SegmentPages {
			return bad("segment")
		}
		x.Segments = append(x.Segments, s)
		b = b[indexSegment:]
	}
	return x, b, nil
}

// DecodeMap makes the map of a checkpoint, on top of a clone of base if that is not
// nil. Its pages are read when they are needed.
func DecodeMap(b []byte, base *Map, o *Owner) (*Map, *Index, error) {
	x, pages, err := decodeIndex(b, o)
	if err != nil {
		return nil, nil, err
	}
	m := New(x.Clusters, o.Memory)
	if base != nil {
		m = base.Clone(x.Clusters)
		m.mem = o.Memory
	}
	var refs []ref // many at a time, so that a large map is quick to make
	err = x.eachPage(pages, func(left int, n uint64, seg *Segment, slot uint16, sum uint32, used uint16) {
		if len(refs) == 0 {
			refs = make([]ref, min(left, nodePages))
		}
		r := &refs[0]
		refs = refs[1:]
		if used > 0 {
			r.seg, r.slot, r.sum = seg, uint32(slot), sum
			r.seg.live++
		}
		m.putRef(n, r, used)
	})
	if err != nil {
		return nil, nil, err
	}
	return m, x, nil
}

// eachPage calls fn for the pages, with how many are left, this one included; seg is nil
// if none of the page's clusters is used.
func (x *Index) eachPage(pages []byte, fn func(left int, n uint64, seg *Segment, slot uint16, sum uint32, used uint16)) error {
	le := binary.LittleEndian
	last := int64(-1)
	for ; len(pages) > 0; pages = pages[indexPage:] {
		e := pages
		n, seg, slot, used := uint64(le.Uint32(e)), le.Uint32(e[4:]), le.Uint16(e[12:]), le.Uint16(e[14:])
		if int64(n) <= last || n*PageEntries >= x.Clusters || used > PageEntries || used > 0 &&
			(seg >= uint32(len(x.Segments)) || uint32(slot) >= x.Segments[seg].Pages) {
			return fmt.Errorf("%w: page %d", ErrCheckpoint, n)
		}
		last = int64(n)
		var s *Segment
		if used > 0 {
			s = x.Segments[seg]
		}
		fn(len(pages)/indexPage, n, s, slot, le.Uint32(e[8:]), used)
	}
	return nil
}

// InspectIndex verifies a checkpoint and calls page for what it says of each page, in
// order: where it is, and how many of its clusters are mapped; seg is nil for one that a
// clone does not have and its parent does.
func InspectIndex(b []byte, page func(number uint64, seg *Segment, slot uint16, sum uint32, mapped int)) (*Index, error) {
	x, pages, err := decodeIndex(b, nil)
	if err != nil {
		return nil, err
	}
	return x, x.eachPage(pages, func(_ int, n uint64, seg *Segment, slot uint16, sum uint32, used uint16) {
		page(n, seg, slot, sum, int(used))
	})
}

// InspectSegment verifies the header of a segment, and calls page for each of the whole
// pages behind it. Their checksums are in the index.
func InspectSegment(r io.ReaderAt, size int64, found func(slot uint32, mapped int)) (vdisk [16]byte, s *Segment, err error) {
	le := binary.LittleEndian
	b := make([]byte, SegmentHeader)
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return vdisk, nil, err
	}
	s = &Segment{Number: le.Uint32(b[32:]), Epoch: le.Uint32(b[36:]), Nonce: le.Uint32(b[40:])}
	copy(vdisk[:], b[16:32])
	if !bytes.Equal(b, EncodeSegmentHeader(vdisk, s)) {
		return vdisk, nil, fmt.Errorf("%w: header of a segment", ErrCheckpoint)
	}
	n := (size - SegmentHeader) / PageBytes
	if n > SegmentPages || (size-SegmentHeader)%PageBytes != 0 {
		return vdisk, nil, fmt.Errorf("%w: segment of %d bytes", ErrCheckpoint, size)
	}
	s.Pages = uint32(n)
	for slot := range s.Pages {
		if _, err := r.ReadAt(b[:PageBytes], SegmentHeader+int64(slot)*PageBytes); err != nil {
			return vdisk, nil, err
		}
		var p page
		decodePage(&p, b)
		found(slot, p.mapped())
	}
	return vdisk, s, nil
}

// putRef makes r page n of a map under construction.
func (m *Map) putRef(n uint64, r *ref, used uint16) {
	ni, pi := n/nodePages, n%nodePages
	if used == 0 {
		if m.root[ni].ref(pi) != nil {
			nd := m.ownNode(ni)
			if m.dropPage(nd, pi); nd.count == 0 {
				m.dropNode(ni)
			}
		}
		return
	}
	nd := m.ownNode(ni)
	if nd.pages[pi] == nil {
		nd.count++
	}
	nd.pages[pi] = r
	nd.own[pi/64] |= 1 << (pi % 64)
	m.mapped += uint64(used) - uint64(nd.used[pi])
	nd.used[pi] = used
	m.bytes += refBytes
}
