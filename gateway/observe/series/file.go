package series

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

const (
	magic      = "OVGSER1\n"
	idSize     = 40
	headerSize = len(magic) + 4 + 4 + 8 + 4
	entrySize  = idSize + 4 + 4 + 4
	// maxCount bounds the series of a file, so that a damaged count takes no memory.
	maxCount = 1 << 16
)

// errDamaged: a file is not what was written.
var errDamaged = errors.New("it is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// point is a point of a series in a file.
type point struct {
	at int // place in the file
	figures
}

// content is what a file holds: points by series, in order of their places.
type content map[string][]point

// encode makes a file.
func (c content) encode(begin, step int64) []byte {
	ids := slices.Sorted(maps.Keys(c))
	head := make([]byte, headerSize+len(ids)*entrySize)
	copy(head, magic)
	binary.LittleEndian.PutUint32(head[8:], uint32(len(ids)))
	binary.LittleEndian.PutUint32(head[12:], uint32(step))
	binary.LittleEndian.PutUint64(head[16:], uint64(begin))
	var data []byte
	for i, id := range ids {
		from := len(data)
		data = appendPoints(data, c[id])
		e := head[headerSize+i*entrySize:]
		copy(e[:idSize], id)
		binary.LittleEndian.PutUint32(e[idSize:], uint32(len(head)+from))
		binary.LittleEndian.PutUint32(e[idSize+4:], uint32(len(data)-from))
		binary.LittleEndian.PutUint32(e[idSize+8:], crc32.Checksum(data[from:], castagnoli))
	}
	binary.LittleEndian.PutUint32(head[24:], headSum(head))
	return append(head, data...)
}

// headSum is the checksum of header and index.
func headSum(head []byte) uint32 {
	return crc32.Update(crc32.Checksum(head[:24], castagnoli), castagnoli, head[headerSize:])
}

func appendPoints(b []byte, points []point) []byte {
	last := 0
	for _, p := range points {
		b = binary.AppendUvarint(b, uint64(p.at-last))
		last = p.at
		for i, v := range p.clean() {
			b = binary.AppendUvarint(b, uint64(math.Round(v*scale[i])))
		}
	}
	return b
}

// decodePoints reads points; their places are below places.
func decodePoints(b []byte, places int) ([]point, error) {
	var out []point
	last := 0
	for len(b) > 0 {
		var p point
		d, n := binary.Uvarint(b)
		if n <= 0 || d >= uint64(places) || len(out) > 0 && d == 0 || last+int(d) >= places {
			return nil, errDamaged
		}
		last += int(d)
		p.at, b = last, b[n:]
		for i := range p.figures {
			v, n := binary.Uvarint(b)
			if n <= 0 || v > largest {
				return nil, errDamaged
			}
			p.figures[i], b = float64(v)/scale[i], b[n:]
		}
		out = append(out, p)
	}
	return out, nil
}

// reader is an open file.
type reader struct {
	f     blockfs.File
	size  int64
	index []byte
	count int
	// places is how many steps the file has.
	places int
}

// openFile opens a file that begins at begin and has so many steps.
func openFile(fs blockfs.FS, name string, begin, step int64, places int) (*reader, error) {
	f, err := fs.Open(name, blockfs.Read)
	if err != nil {
		return nil, err
	}
	r := &reader{f: f, places: places}
	if err := r.readHead(begin, step); err != nil {
		_ = f.Close()
		return nil, err
	}
	return r, nil
}

func (r *reader) readHead(begin, step int64) error {
	var err error
	if r.size, err = r.f.Size(); err != nil {
		return err
	}
	if r.size < int64(headerSize) {
		return errDamaged
	}
	head := make([]byte, headerSize)
	if err := r.read(head, 0); err != nil {
		return err
	}
	r.count = int(binary.LittleEndian.Uint32(head[8:]))
	if string(head[:8]) != magic || r.count > maxCount || int64(headerSize+r.count*entrySize) > r.size {
		return errDamaged
	}
	r.index = make([]byte, r.count*entrySize)
	if err := r.read(r.index, int64(headerSize)); err != nil {
		return err
	}
	sum := crc32.Update(crc32.Checksum(head[:24], castagnoli), castagnoli, r.index)
	if sum != binary.LittleEndian.Uint32(head[24:]) || int64(binary.LittleEndian.Uint32(head[12:])) != step || int64(binary.LittleEndian.Uint64(head[16:])) != begin {
		return errDamaged
	}
	return nil
}

func (r *reader) read(p []byte, off int64) error {
	n, err := r.f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return errDamaged
	}
	return err
}

// id returns the id of a series by its place in the index.
func (r *reader) id(i int) []byte {
	return bytes.TrimRight(r.index[i*entrySize:i*entrySize+idSize], "\x00")
}

// points returns the points of a series; nil: it has none.
func (r *reader) points(id string) ([]point, error) {
	lo, hi := 0, r.count
	for lo < hi {
		mid := (lo + hi) / 2
		if bytes.Compare(r.id(mid), []byte(id)) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == r.count || string(r.id(lo)) != id {
		return nil, nil
	}
	return r.at(lo)
}

// at returns the points of a series by its place in the index.
func (r *reader) at(i int) ([]point, error) {
	e := r.index[i*entrySize+idSize:]
	off, n := int64(binary.LittleEndian.Uint32(e)), int64(binary.LittleEndian.Uint32(e[4:]))
	if off+n > r.size {
		return nil, errDamaged
	}
	b := make([]byte, n)
	if err := r.read(b, off); err != nil {
		return nil, err
	}
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(e[8:]) {
		return nil, errDamaged
	}
	return decodePoints(b, r.places)
}

// all returns everything in the file.
func (r *reader) all() (content, error) {
	c := make(content, r.count)
	for i := range r.count {
		points, err := r.at(i)
		if err != nil {
			return nil, err
		}
		c[string(r.id(i))] = points
	}
	return c, nil
}

func (r *reader) close() { _ = r.f.Close() }

// merge puts points into those of a series; one in the same place goes before the old one.
func merge(old, points []point) []point {
	out := make([]point, 0, len(old)+len(points))
	for len(old) > 0 || len(points) > 0 {
		switch {
		case len(points) == 0 || len(old) > 0 && old[0].at < points[0].at:
			out, old = append(out, old[0]), old[1:]
		default:
			if len(old) > 0 && old[0].at == points[0].at {
				old = old[1:]
			}
			out, points = append(out, points[0]), points[1:]
		}
	}
	return out
}

func (t tier) name(begin int64) string { return fmt.Sprintf("%c-%016x", t.letter, begin) }
