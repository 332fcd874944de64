package qcow2

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
)

// Reader reads the disk of an image.
type Reader struct {
	f       io.ReaderAt
	file    int64 // bytes of the file
	version uint32
	bits    uint32 // of a cluster
	size    int64  // of the disk, bytes
	l1      int64  // offset
	l1Size  uint32 // entries

	used     pages // clusters of the file (Q1)
	deflated int64 // bytes of compressed clusters so far (Q1)
}

// IsImage reports whether a file begins like an image.
func IsImage(f io.ReaderAt) bool {
	var b [4]byte
	_, err := f.ReadAt(b[:], 0)
	return (err == nil || errors.Is(err, io.EOF)) && binary.BigEndian.Uint32(b[:]) == magic
}

// NewReader reads the header of an image in a file of so many bytes. Errors: ErrRefused,
// those of f.
func NewReader(f io.ReaderAt, bytes int64) (*Reader, error) {
	r := &Reader{f: f, file: bytes}
	if err := r.header(); err != nil {
		return nil, err
	}
	return r, nil
}

// Size returns the bytes of the disk, a multiple of 512.
func (r *Reader) Size() int64 { return r.size }

func (r *Reader) cluster() int64 { return 1 << r.bits }

// at fills p from the file; what is not there is refused.
func (r *Reader) at(p []byte, off int64, what string) error {
	if off < 0 || off > r.file-int64(len(p)) {
		return refuse("%s at offset %d goes beyond the end of the file", what, off)
	}
	n, err := r.f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return refuse("the file became shorter while it was read")
	}
	return err
}

func (r *Reader) header() error {
	b := make([]byte, header3)
	if r.file < header2 {
		return refuse("%d bytes are no image", r.file)
	}
	if err := r.at(b[:header2], 0, "the header"); err != nil {
		return err
	}
	be := binary.BigEndian
	r.version, r.bits = be.Uint32(b[4:]), be.Uint32(b[20:])
	switch {
	case be.Uint32(b) != magic:
		return refuse("it does not begin like one; is it a raw image?")
	case r.version != 2 && r.version != 3:
		return refuse("version %d is not 2 or 3", r.version)
	case be.Uint64(b[8:]) != 0 || be.Uint32(b[16:]) != 0:
		return refuse("it has a backing file; make it whole first: qemu-img convert -O qcow2")
	case be.Uint32(b[32:]) != 0:
		return refuse("it is encrypted; decrypt it first: qemu-img convert")
	case r.bits < minClusterBits || r.bits > maxClusterBits:
		return refuse("clusters of 2^%d bytes are not possible", r.bits)
	case be.Uint32(b[60:]) != 0:
		return refuse("it has %d internal snapshots; make an image of one state: qemu-img convert -O qcow2", be.Uint32(b[60:]))
	}
	size := be.Uint64(b[24:])
	if size == 0 || size > MaxSize || size%sectorBytes != 0 {
		return refuse("a disk of %d bytes is not possible: a multiple of 512, up to 64 TiB", size)
	}
	r.size, r.l1, r.l1Size = int64(size), int64(be.Uint64(b[40:])), be.Uint32(b[36:])
	length := int64(header2)
	if r.version == 3 {
		if err := r.at(b, 0, "the header"); err != nil {
			return err
		}
		length = int64(be.Uint32(b[100:]))
		if err := checkFeatures(b, length, r.cluster()); err != nil {
			return err
		}
	}
	if err := r.extensions(length); err != nil {
		return err
	}
	return r.layout(int64(be.Uint64(b[48:])), int64(be.Uint32(b[56:])))
}

// features are those that make an image unreadable to whoever does not know them.
var features = []struct {
	bit  uint
	what string
}{
	{0, "it was not closed in order; repair it first: qemu-img check -r all"},
	{1, "it is marked as damaged; repair it first: qemu-img check -r all"},
	{2, "its data are in an external file; make it whole first: qemu-img convert -O qcow2"},
	{3, "its compression is not zlib; convert it first: qemu-img convert -O qcow2"},
	{4, "it has extended L2 entries; convert it first: qemu-img convert -O qcow2"},
}

// checkFeatures looks at what version 3 added to the header.
func checkFeatures(b []byte, length, cluster int64) error {
	be := binary.BigEndian
	has := be.Uint64(b[72:])
	for _, f := range features {
		if has&(1<<f.bit) != 0 {
			return refuse("%s", f.what)
		}
	}
	switch {
	case has != 0:
		return refuse("it needs features that are not known here (%#x)", has)
	case be.Uint32(b[96:]) > 6:
		return refuse("refcounts of 2^%d bits are not possible", be.Uint32(b[96:]))
	case length < header3 || length%8 != 0 || length > cluster:
		return refuse("a header of %d bytes is not possible", length)
	}
	return nil
}

// Extensions of the header that say that the disk is not all here.
var refusedExtensions = map[uint32]string{
	0xe2792aca: "it names the format of a backing file; make it whole first: qemu-img convert -O qcow2",
	0x44415441: "it names an external data file; make it whole first: qemu-img convert -O qcow2",
	0x0537be77: "it is encrypted; decrypt it first: qemu-img convert",
}

// extensions looks at what follows the header, in its cluster.
func (r *Reader) extensions(off int64) error {
	var b [8]byte
	for off+8 <= min(r.cluster(), r.file) {
		if err := r.at(b[:], off, "a header extension"); err != nil {
			return err
		}
		kind, n := binary.BigEndian.Uint32(b[:]), int64(binary.BigEndian.Uint32(b[4:]))
		if kind == 0 {
			return nil
		}
		if why, ok := refusedExtensions[kind]; ok {
			return refuse("%s", why)
		}
		off += 8 + (n+7)&^7
	}
	if off > r.cluster() {
		return refuse("its header extensions go beyond the first cluster")
	}
	return nil
}

// layout checks where the tables are, and marks what they take.
func (r *Reader) layout(refcounts, refcountClusters int64) error {
	c := r.cluster()
	perTable := c / 8 * c // bytes of the disk
	need := (r.size + perTable - 1) / perTable
	switch {
	case int64(r.l1Size)*8 > maxTable || refcountClusters > max(1, maxTable/c):
		return refuse("its L1 or refcount table is larger than %d MiB", maxTable>>20)
	case int64(r.l1Size) < need:
		return refuse("its L1 table has %d entries, a disk of %d bytes needs %d", r.l1Size, r.size, need)
	case r.l1%c != 0 || r.l1 <= 0 || r.l1 > r.file || int64(r.l1Size)*8 > r.file-r.l1:
		return refuse("its L1 table at offset %d with %d entries is not inside the file", r.l1, r.l1Size)
	case refcounts%c != 0 || refcounts <= 0 || refcounts > r.file || refcountClusters < 1 || refcountClusters > (r.file-refcounts+c-1)/c:
		return refuse("its refcount table at offset %d with %d clusters is not inside the file", refcounts, refcountClusters)
	}
	if err := r.take(0, 1, "the header"); err != nil {
		return err
	}
	if err := r.take(r.l1, (int64(r.l1Size)*8+c-1)/c, "the L1 table"); err != nil {
		return err
	}
	return r.take(refcounts, refcountClusters, "the refcount table")
}

// take marks n clusters of the file from off as used (Q1).
func (r *Reader) take(off, n int64, what string) error {
	for i := range n {
		if !r.used.add(uint64(off>>r.bits + i)) {
			return refuse("%s at offset %d takes what something else has", what, off+i<<r.bits)
		}
	}
	return nil
}

// l1Window is how many entries of the L1 table are read at once.
const l1Window = 4096

// Each calls fn for every cluster that has data, in order, cut at the end of the disk.
// What it is not called for reads as zeros. p is fn's until it returns. Each is called
// once. Errors: ErrRefused, those of the file and of fn.
func (r *Reader) Each(fn func(off int64, p []byte) error) error {
	c := r.cluster()
	l1, l2, data := make([]byte, 8*l1Window), make([]byte, c), make([]byte, c)
	inflate := flate.NewReader(nil)
	perTable := c / 8 * c
	for first := int64(0); first < int64(r.l1Size); first += l1Window {
		b := l1[:8*min(l1Window, int64(r.l1Size)-first)]
		if err := r.at(b, r.l1+8*first, "the L1 table"); err != nil {
			return err
		}
		for i := range int64(len(b) / 8) {
			e := binary.BigEndian.Uint64(b[8*i:])
			if e == 0 {
				continue
			}
			off := int64(e & offsetMask)
			start := (first + i) * perTable
			switch {
			case e&^(offsetMask|flagCopied) != 0 || off == 0 || off%c != 0:
				return refuse("L1 entry %d is %#x", first+i, e)
			case start >= r.size:
				return refuse("L1 entry %d is behind the end of the disk", first+i)
			}
			if err := r.take(off, 1, "an L2 table"); err != nil {
				return err
			}
			if err := r.at(l2, off, "an L2 table"); err != nil {
				return err
			}
			if err := r.table(l2, start, data, inflate, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// table reads what an L2 table maps.
func (r *Reader) table(l2 []byte, start int64, data []byte, inflate io.Reader, fn func(int64, []byte) error) error {
	c := r.cluster()
	for i := range c / 8 {
		e, at := binary.BigEndian.Uint64(l2[8*i:]), start+i*c
		if at >= r.size {
			return nil
		}
		if e == 0 {
			continue
		}
		n := min(c, r.size-at)
		var has bool
		var err error
		if e&flagCompressed != 0 {
			has, err = true, r.inflate(e, at, data, inflate)
		} else {
			has, err = r.plain(e, at, data[:n])
		}
		if err == nil && has {
			err = fn(at, data[:n])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// plain reads a cluster that stands in the file as it is; false: it reads as zeros.
func (r *Reader) plain(e uint64, at int64, p []byte) (bool, error) {
	off := int64(e & offsetMask)
	zero := e&flagZero != 0
	if e&^(offsetMask|flagCopied|flagZero) != 0 || zero && r.version == 2 || off%r.cluster() != 0 || off == 0 && !zero {
		return false, refuse("the L2 entry of offset %d of the disk is %#x", at, e)
	}
	if off != 0 {
		if off >= r.file {
			return false, refuse("the data of offset %d of the disk, at offset %d, go beyond the end of the file", at, off)
		}
		if err := r.take(off, 1, "data"); err != nil {
			return false, err
		}
	}
	if zero {
		return false, nil
	}
	return true, r.at(p, off, "data")
}

// inflate reads a compressed cluster.
func (r *Reader) inflate(e uint64, at int64, data []byte, inflate io.Reader) error {
	x := 62 - (r.bits - 8)
	off := int64(e & (1<<x - 1))
	n := (int64(e&^(flagCompressed|flagCopied))>>x+1)*sectorBytes - off%sectorBytes
	if e&flagCopied != 0 || off < header2 || off >= r.file {
		return refuse("the L2 entry of offset %d of the disk is %#x", at, e)
	}
	b := make([]byte, min(n, r.file-off)) // the last sector of a file may be cut
	if err := r.at(b, off, "compressed data"); err != nil {
		return err
	}
	in := bytes.NewReader(b)
	if err := inflate.(flate.Resetter).Reset(in, nil); err != nil {
		return err
	}
	if _, err := io.ReadFull(inflate, data); err != nil {
		return refuse("the compressed data of offset %d of the disk are damaged: %v", at, err)
	}
	if r.deflated += int64(len(b) - in.Len()); r.deflated > r.file {
		return refuse("its compressed clusters have more bytes than the file")
	}
	return nil
}

// pages is a set of numbers below 2^55 that takes memory where they are.
type pages map[uint64]*[64]uint64

// add puts a number in and reports whether it was not there before.
func (s *pages) add(n uint64) bool {
	if *s == nil {
		*s = pages{}
	}
	p := (*s)[n>>12]
	if p == nil {
		p = &[64]uint64{}
		(*s)[n>>12] = p
	}
	bit := uint64(1) << (n & 63)
	had := p[n>>6&63]&bit != 0
	p[n>>6&63] |= bit
	return !had
}
