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
	"sort"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

const (
	magic      = "OVGSER1\n"
	idSize     = 40
	headerSize = len(magic) + 4 + 4 + 8 + 4
	entrySize  = idSize + 4 + 4 + 4
	// An extension of a file: latenciesTag or another tag | length u32 | CRC u32 of both | body.
	extensionSize = 8 + 4 + 4
	latenciesTag  = "OVGLAT1\n"
	cacheTag      = "OVGCAC1\n"
	// extensionEntry is an element of the index in the body of an extension.
	extensionEntry = 4 + 4 + 4 + 4
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
	latencies observe.PackedLatencies // in parts of latencyScale
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
	file := c.appendExtension(append(head, data...), latenciesTag, ids, func(b []byte, p *point) []byte { return append(b, p.latencies...) })
	return c.appendExtension(file, cacheTag, ids, appendCache)
}

// appendCache adds what was found in the cache and what was not, if anything was looked for.
func appendCache(b []byte, p *point) []byte {
	f := p.clean()
	hits, misses := uint64(math.Round(f[cacheHits]*scale[cacheHits])), uint64(math.Round(f[cacheMisses]*scale[cacheMisses]))
	if hits == 0 && misses == 0 {
		return b
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, hits), misses)
}

// appendExtension adds an extension with what value adds of points, if that is anything.
func (c content) appendExtension(file []byte, tag string, ids []string, value func(b []byte, p *point) []byte) []byte {
	var index, data, v []byte
	for i, id := range ids {
		from, last := len(data), 0
		for k := range c[id] {
			p := &c[id][k]
			if v = value(v[:0], p); len(v) > 0 {
				data = append(binary.AppendUvarint(data, uint64(p.at-last)), v...)
				last = p.at
			}
		}
		if len(data) > from {
			for _, n := range []uint32{uint32(i), uint32(from), uint32(len(data) - from), crc32.Checksum(data[from:], castagnoli)} {
				index = binary.LittleEndian.AppendUint32(index, n)
			}
		}
	}
	if len(index) == 0 {
		return file
	}
	sums := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/extensionEntry))
	sums = binary.LittleEndian.AppendUint32(sums, crc32.Checksum(index, castagnoli))
	frame := append([]byte(tag), binary.LittleEndian.AppendUint32(nil, uint32(len(sums)+len(index)+len(data)))...)
	frame = binary.LittleEndian.AppendUint32(frame, crc32.Checksum(frame, castagnoli))
	return slices.Concat(file, frame, sums, index, data)
}

// decodeValues reads what an extension has of a series into its points; take takes what b begins with into one, which
// has none yet.
func decodeValues(b []byte, points []point, take func(b []byte, p *point) (rest []byte, ok bool)) error {
	last, next := 0, 0
	for len(b) > 0 {
		d, n := binary.Uvarint(b)
		if n <= 0 || d > math.MaxInt32 {
			return errDamaged
		}
		last += int(d)
		for next < len(points) && points[next].at < last {
			next++
		}
		if next == len(points) || points[next].at != last {
			return errDamaged
		}
		var ok bool
		if b, ok = take(b[n:], &points[next]); !ok {
			return errDamaged
		}
	}
	return nil
}

func takeLatencies(b []byte, p *point) (rest []byte, ok bool) {
	_, rest, err := observe.CutLatencies(b, latencyScale)
	if err != nil || p.latencies != "" {
		return nil, false
	}
	p.latencies = observe.PackedLatencies(b[:len(b)-len(rest)])
	return rest, true
}

func takeCache(b []byte, p *point) (rest []byte, ok bool) {
	if p.figures[cacheHits] > 0 || p.figures[cacheMisses] > 0 {
		return nil, false
	}
	for _, i := range []int{cacheHits, cacheMisses} {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > largest {
			return nil, false
		}
		p.figures[i], b = float64(v)/scale[i], b[n:]
	}
	return b, true
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
		f := p.clean()
		for i, v := range f[:inPoint] {
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
		for i := range inPoint {
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
	// extensions are those that were looked for, by their tags.
	extensions map[string]extension
}

// extension is what a file has of series besides their points; without an index there is none.
type extension struct {
	index []byte
	at    int64 // where the values begin
}

// openFile opens a file that begins at begin and has so many steps.
func openFile(fs blockfs.FS, name string, begin, step int64, places int) (*reader, error) {
	f, err := fs.Open(name, blockfs.Read)
	if err != nil {
		return nil, err
	}
	r := &reader{f: f, places: places, extensions: map[string]extension{}}
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

// points returns the points of a series, with latencies if they are asked for; nil: it has none.
func (r *reader) points(id string, latencies bool) ([]point, error) {
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
	return r.at(lo, latencies)
}

// at returns the points of a series by its place in the index.
func (r *reader) at(i int, latencies bool) ([]point, error) {
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
	points, err := decodePoints(b, r.places)
	if err == nil {
		err = r.extend(cacheTag, i, points, takeCache)
	}
	if err == nil && latencies {
		err = r.extend(latenciesTag, i, points, takeLatencies)
	}
	return points, err
}

// extend puts into points what an extension has of the series with a place in the index.
func (r *reader) extend(tag string, i int, points []point, take func(b []byte, p *point) (rest []byte, ok bool)) error {
	x, known := r.extensions[tag]
	if !known {
		var err error
		if x, err = r.readExtension(tag); err != nil {
			return err
		}
		r.extensions[tag] = x
	}
	number := func(k int) int { return int(binary.LittleEndian.Uint32(x.index[k*extensionEntry:])) }
	count := len(x.index) / extensionEntry
	k := sort.Search(count, func(k int) bool { return number(k) >= i })
	if k == count || number(k) != i {
		return nil
	}
	e := x.index[k*extensionEntry+4:]
	off, n := x.at+int64(binary.LittleEndian.Uint32(e)), int64(binary.LittleEndian.Uint32(e[4:]))
	if off+n > r.size {
		return errDamaged
	}
	b := make([]byte, n)
	if err := r.read(b, off); err != nil {
		return err
	}
	if crc32.Checksum(b, castagnoli) != binary.LittleEndian.Uint32(e[8:]) {
		return errDamaged
	}
	return decodeValues(b, points, take)
}

// readExtension reads the index of an extension. Others, which this version may not know, are passed over.
func (r *reader) readExtension(tag string) (extension, error) {
	off := int64(headerSize + len(r.index))
	if r.count > 0 { // series stand in the order of the index
		e := r.index[(r.count-1)*entrySize+idSize:]
		off = int64(binary.LittleEndian.Uint32(e)) + int64(binary.LittleEndian.Uint32(e[4:]))
	}
	for off < r.size {
		frame := make([]byte, extensionSize)
		if err := r.read(frame, off); err != nil {
			return extension{}, err
		}
		body, n := off+int64(len(frame)), int64(binary.LittleEndian.Uint32(frame[8:]))
		if crc32.Checksum(frame[:12], castagnoli) != binary.LittleEndian.Uint32(frame[12:]) || body+n > r.size {
			return extension{}, errDamaged
		}
		if string(frame[:8]) == tag {
			return r.readIndex(body, n)
		}
		off = body + n
	}
	return extension{}, nil
}

// readIndex reads the index in the body of an extension.
func (r *reader) readIndex(off, length int64) (extension, error) {
	sums := make([]byte, 8)
	if length < int64(len(sums)) {
		return extension{}, errDamaged
	}
	if err := r.read(sums, off); err != nil {
		return extension{}, err
	}
	n := int64(binary.LittleEndian.Uint32(sums)) * extensionEntry
	if n > int64(r.count)*extensionEntry || int64(len(sums))+n > length {
		return extension{}, errDamaged
	}
	index := make([]byte, n)
	if err := r.read(index, off+int64(len(sums))); err != nil {
		return extension{}, err
	}
	if crc32.Checksum(index, castagnoli) != binary.LittleEndian.Uint32(sums[4:]) {
		return extension{}, errDamaged
	}
	return extension{index, off + int64(len(sums)) + n}, nil
}

// all returns everything in the file.
func (r *reader) all() (content, error) {
	c := make(content, r.count)
	for i := range r.count {
		points, err := r.at(i, true)
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
