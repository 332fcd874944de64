package asd

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// Key spaces of the index; see the package comment.
const (
	spaceValues  = 'k'
	spaceExtents = 'x'
	spaceMeta    = 'm'
)

// Names in spaceMeta.
var (
	keyIdentity = []byte("mid")
	keyApplies  = []byte("mapplies")
)

// Kinds of entry.
const (
	kindInline = 1
	kindExtent = 2
)

// Lengths of encodings, in bytes.
const (
	entryHeader  = 9 // kind, length, CRC
	extentHeader = 8 // file, page
	crcBytes     = 4
	extentKey    = 9 // space, file, page
	extentValue  = 4 // pages
)

// pageSize is the unit of extents: what a Direct file can transfer.
const pageSize = blockfs.Alignment

// extent is a run of pages in a container file.
type extent struct{ file, page, pages uint32 }

func (e extent) offset() int64 { return int64(e.page) * pageSize }
func (e extent) bytes() int64  { return int64(e.pages) * pageSize }
func (e extent) String() string {
	return fmt.Sprintf("%s [%d,+%d)", containerPath(e.file), e.offset(), e.bytes())
}

// entry is what the index says about a value. Decoded, its slices are those of
// the encoding.
type entry struct {
	kind   byte
	length uint32
	crc    uint32
	inline []byte // kindInline
	extent extent // kindExtent
	blocks []byte // kindExtent: a CRC of each osd.Block bytes
}

// errEntry: an index entry does not decode. The index has checksums of its own, so
// this is not what a bad disk does.
var errEntry = errors.New("index entry does not decode")

func pagesOf(length uint32) uint32  { return (length + pageSize - 1) / pageSize }
func blocksOf(length uint32) int    { return int((length + osd.Block - 1) / osd.Block) }
func (e *entry) block(i int) uint32 { return binary.BigEndian.Uint32(e.blocks[i*crcBytes:]) }

// append appends the encoding of e.
func (e *entry) append(b []byte) []byte {
	b = append(b, e.kind)
	b = binary.BigEndian.AppendUint32(b, e.length)
	b = binary.BigEndian.AppendUint32(b, e.crc)
	if e.kind == kindInline {
		return append(b, e.inline...)
	}
	b = binary.BigEndian.AppendUint32(b, e.extent.file)
	b = binary.BigEndian.AppendUint32(b, e.extent.page)
	return append(b, e.blocks...)
}

// decodeEntry reads an entry and refuses whatever append would not have written.
func decodeEntry(b []byte) (entry, error) {
	if len(b) < entryHeader {
		return entry{}, fmt.Errorf("%w: %d bytes", errEntry, len(b))
	}
	e := entry{kind: b[0], length: binary.BigEndian.Uint32(b[1:]), crc: binary.BigEndian.Uint32(b[5:])}
	rest := b[entryHeader:]
	switch e.kind {
	case kindInline:
		if len(rest) >= inlineMax || uint32(len(rest)) != e.length {
			return entry{}, fmt.Errorf("%w: %d bytes inline, length %d", errEntry, len(rest), e.length)
		}
		e.inline = rest
		return e, nil
	case kindExtent:
		if e.length < inlineMax || e.length > osd.MaxValueBytes || len(rest) != extentHeader+blocksOf(e.length)*crcBytes {
			return entry{}, fmt.Errorf("%w: %d bytes for an extent of length %d", errEntry, len(b), e.length)
		}
		e.extent = extent{
			file: binary.BigEndian.Uint32(rest), page: binary.BigEndian.Uint32(rest[4:]), pages: pagesOf(e.length),
		}
		e.blocks = rest[extentHeader:]
		return e, e.extent.check()
	}
	return entry{}, fmt.Errorf("%w: kind %d", errEntry, e.kind)
}

// check refuses extents that no container holds.
func (e extent) check() error {
	if e.file == 0 || e.pages == 0 || e.page >= containerPages || e.pages > containerPages-e.page {
		return fmt.Errorf("%w: extent %+v lies outside every container", errEntry, e)
	}
	return nil
}

// valueKey returns the key of a value in the index.
func valueKey(key []byte) []byte {
	return append(append(make([]byte, 0, len(key)+1), spaceValues), key...)
}

// key returns the key of an extent in the index.
func (e extent) key() []byte {
	b := append(make([]byte, 0, extentKey), spaceExtents)
	b = binary.BigEndian.AppendUint32(b, e.file)
	return binary.BigEndian.AppendUint32(b, e.page)
}

// value returns what the index holds at key.
func (e extent) value() []byte { return binary.BigEndian.AppendUint32(nil, e.pages) }

// decodeExtent reads an entry of spaceExtents.
func decodeExtent(key, value []byte) (extent, error) {
	if len(key) != extentKey || key[0] != spaceExtents || len(value) != extentValue {
		return extent{}, fmt.Errorf("%w: extent %x = %x", errEntry, key, value)
	}
	e := extent{
		file: binary.BigEndian.Uint32(key[1:]), page: binary.BigEndian.Uint32(key[5:]), pages: binary.BigEndian.Uint32(value),
	}
	return e, e.check()
}

// sums returns the CRC of a value and the encoded CRCs of its blocks; known are
// those of its blocks, if they are.
func sums(value []byte, known []uint32) (crc uint32, blocks []byte, err error) {
	n := blocksOf(uint32(len(value)))
	if known != nil && len(known) != n {
		return 0, nil, fmt.Errorf("%w: %d sums of %d blocks", osd.ErrInvalid, len(known), n)
	}
	blocks = make([]byte, 0, n*crcBytes)
	for i := range n {
		b := value[i*osd.Block : min(len(value), (i+1)*osd.Block)]
		var sum uint32
		if known != nil {
			sum = known[i]
		} else {
			sum = osd.CRC(b)
		}
		crc = osd.ConcatCRC(crc, sum, int64(len(b)))
		blocks = binary.BigEndian.AppendUint32(blocks, sum)
	}
	return crc, blocks, nil
}
