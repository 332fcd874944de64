package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// Inspected is something that Inspect found in a chunk.
type Inspected struct {
	Off    int64   // of the record or opener, in bytes
	Header *Header // nil: nothing there can be read as one
	Opener bool
	// Behind: it does not follow on the record before it, so that it counts for what
	// it promises only (J3).
	Behind bool
	// Problem is what is wrong with it; empty: nothing.
	Problem string
}

// Inspect reads the file of a chunk, in size bytes of f, and calls fn for its openers
// and for everything behind them that belongs to the same use of the chunk, in
// order. It reads one record at a time and writes nothing. A chunk whose openers are
// gone is read as what its first record says. The error is that of f.
func Inspect(f io.ReaderAt, size int64, fn func(Inspected)) error {
	i := &inspector{c: recovered{file: &chunkFile{name: "chunk", f: readOnly{ReaderAt: f}, bytes: size &^ (blockfs.Alignment - 1)}}, fn: fn}
	return i.run()
}

// readOnly is a File that can be read and nothing else.
type readOnly struct {
	blockfs.File
	io.ReaderAt
}

// ReadAt implements io.ReaderAt.
func (r readOnly) ReadAt(p []byte, off int64) (int, error) { return r.ReaderAt.ReadAt(p, off) }

type inspector struct {
	c     recovered
	fn    func(Inspected)
	first *Header // that says whose the chunk is
	next  uint64  // seq that the next record has to have
}

func (i *inspector) run() error {
	off, err := i.openers()
	if err != nil || i.first == nil {
		return err
	}
	seed := clustersum.NewSeed(i.first.VDisk)
	follows := true
	for off+blockfs.Alignment <= i.c.file.bytes {
		h, err := i.c.record(off, i.first.Generation, i.first.VDisk, seed)
		if errors.Is(err, ErrBadRecord) {
			follows = false
			if err = i.damaged(off); err == nil {
				off, err = i.c.nextMagic(off + blockfs.Alignment)
			}
			if err == nil {
				continue
			}
		}
		if errors.Is(err, ErrNewerFormat) {
			i.fn(Inspected{Off: off, Problem: err.Error()})
			return nil
		}
		if err != nil {
			return err
		}
		i.record(off, h, &follows)
		off += h.size()
	}
	return nil
}

// openers looks at both copies and returns where the records begin.
func (i *inspector) openers() (int64, error) {
	buf := blockfs.AlignedBuffer(blockfs.Alignment)
	var seen []Inspected
	for off := int64(0); off < openerBytes && off+blockfs.Alignment <= i.c.file.bytes; off += blockfs.Alignment {
		if _, err := i.c.file.f.ReadAt(buf, off); err != nil {
			return 0, fmt.Errorf("at offset %d: %w", off, err)
		}
		h, err := decodeHeader(buf)
		switch {
		case err != nil:
			seen = append(seen, Inspected{Off: off, Opener: true, Problem: "opener: " + err.Error()})
		case h.Seqs > 0 && off == 0: // a record alone, or a chunk without its start
			i.first, i.next = h, h.Seq
			i.fn(Inspected{Off: off, Opener: true, Problem: "a record where an opener should be"})
			return 0, nil
		case i.first != nil && (h.Generation != i.first.Generation || h.VDisk != i.first.VDisk || h.Seq != i.first.Seq):
			seen = append(seen, Inspected{Off: off, Header: h, Opener: true, Problem: "the two openers differ"})
		default:
			if i.first == nil {
				i.first, i.next = h, h.Seq
			}
			seen = append(seen, Inspected{Off: off, Header: h, Opener: true})
		}
	}
	for _, s := range seen {
		i.fn(s)
	}
	if len(seen) == 0 {
		i.fn(Inspected{Problem: fmt.Sprintf("a chunk has %d bytes or more", openerBytes)})
	}
	return openerBytes, nil
}

// damaged tells of what is no record, if it once was one of this use of the chunk.
func (i *inspector) damaged(off int64) error {
	buf := blockfs.AlignedBuffer(blockfs.Alignment)
	if _, err := i.c.file.f.ReadAt(buf, off); err != nil {
		return err
	}
	n, err := peekHeader(buf)
	if err != nil || binary.LittleEndian.Uint64(buf[24:]) != i.first.Generation {
		return nil // an earlier user's, or none
	}
	what := "its header is damaged"
	if off+int64(n) <= i.c.file.bytes {
		b := blockfs.AlignedBuffer(n)
		if _, err := i.c.file.f.ReadAt(b, off); err != nil {
			return err
		}
		if h, err := decodeHeader(b); err == nil {
			if what = "its data are damaged"; off+h.size() > i.c.file.bytes {
				what = "its data are cut off"
			}
			i.fn(Inspected{Off: off, Header: h, Problem: what + ", or its append was torn"})
			return nil
		}
	}
	i.fn(Inspected{Off: off, Problem: what + ", or its append was torn"})
	return nil
}

// record tells of a valid record. follows becomes false behind a gap.
func (i *inspector) record(off int64, h *Header, follows *bool) {
	in := Inspected{Off: off, Header: h, Behind: !*follows || h.Seq != i.next}
	if in.Behind {
		*follows = false
		switch {
		case h.Promise >= i.next:
			in.Problem = fmt.Sprintf("seqs %d to %d before it are missing", i.next, h.Promise)
		case h.Seq > i.next:
			in.Problem = fmt.Sprintf("seqs %d to %d before it are not there, and were not acknowledged when it was written", i.next, h.Seq-1)
		}
	} else {
		i.next = h.LastSeq() + 1
	}
	i.fn(in)
}
