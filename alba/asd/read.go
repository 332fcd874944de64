package asd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// lookup calls fn with the entry of a key, nil when it is absent. The entry is
// fn's until it returns.
func (s *Store) lookup(from pebble.Reader, key []byte, fn func(*entry) error) (err error) {
	v, closer, err := from.Get(valueKey(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return fn(nil)
	}
	if err != nil {
		return s.indexError(key, err)
	}
	defer func() { err = errors.Join(err, closer.Close()) }()
	e, err := decodeEntry(v)
	if err != nil {
		return s.damaged(key, err)
	}
	return fn(&e)
}

// indexError tells damage of the index from other errors of a read.
func (s *Store) indexError(key []byte, err error) error {
	if pebble.IsCorruptionError(err) {
		return s.damaged(key, err)
	}
	s.stats.errors.Add(1)
	return fmt.Errorf("key %q: index: %w", key, err)
}

// damaged is the error of D3.
func (s *Store) damaged(key []byte, why error) error {
	s.stats.corrupt.Add(1)
	return fmt.Errorf("key %q: %w: %w", key, osd.ErrCorrupt, why)
}

// enter begins a read (A3); leave must follow.
func (s *Store) enter() (leave func()) {
	period := s.readers.enter()
	return func() { s.release(s.readers.leave(period)) }
}

// Read implements osd.OSD.
func (s *Store) Read(ctx context.Context, key []byte, off int64, p []byte, prio osd.Priority) error {
	end, err := s.begin(ctx, prio.Verified())
	if err != nil {
		return err
	}
	defer end()
	defer s.enter()()
	s.stats.reads.Add(1)
	if err := osd.ValidKey(key); err != nil {
		return s.wrap(err)
	}
	found, known := s.entries.Get(string(key))
	if known {
		err = found.covers(key, off, len(p))
	} else {
		found, err = s.find(key, off, p)
	}
	if err == nil && found.kind == kindExtent {
		err = s.readExtent(ctx, key, &found, off, p, how{verify: prio&osd.Unverified == 0})
	}
	if err == nil {
		s.stats.readBytes.Add(uint64(len(p)))
	}
	return s.wrap(err)
}

// find looks for an entry in the index, and copies what is asked for where that has it inline.
// Entries of extents are remembered (A8).
func (s *Store) find(key []byte, off int64, p []byte) (found entry, err error) {
	token := s.entries.Token()
	err = s.lookup(s.db, key, func(e *entry) error {
		if e == nil {
			return fmt.Errorf("key %q: %w", key, osd.ErrNotExist)
		}
		if err := e.covers(key, off, len(p)); err != nil {
			return err
		}
		if e.kind == kindInline {
			found = *e
			copy(p, e.inline[off:])
			return s.verifyInline(key, e)
		}
		found = e.keep()
		s.entries.Put(string(key), found, int64(len(key)+len(found.blocks)+entryOverhead), token)
		return nil
	})
	return found, err
}

// covers tells whether n bytes from off are within the value.
func (e *entry) covers(key []byte, off int64, n int) error {
	if size := int64(e.length); off < 0 || off > size || int64(n) > size-off {
		return fmt.Errorf("key %q: %w: %d bytes from %d of %d", key, osd.ErrRange, n, off, size)
	}
	return nil
}

// keep returns an entry of an extent that outlives the index's buffer.
func (e *entry) keep() entry {
	kept := *e
	kept.blocks = bytes.Clone(e.blocks)
	return kept
}

func (s *Store) verifyInline(key []byte, e *entry) error {
	if crc := osd.CRC(e.inline); crc != e.crc {
		return s.damaged(key, fmt.Errorf("crc32c %08x, should be %08x", crc, e.crc))
	}
	return nil
}

// Get implements osd.OSD. The values are those of one moment.
func (s *Store) Get(ctx context.Context, keys [][]byte, limit int, prio osd.Priority) ([]osd.Value, error) {
	end, err := s.begin(ctx, prio)
	if err != nil {
		return nil, err
	}
	defer end()
	defer s.enter()()
	s.stats.reads.Add(1)
	values, err := s.get(ctx, keys, limit)
	if err != nil {
		return nil, s.wrap(err)
	}
	return values, nil
}

func (s *Store) get(ctx context.Context, keys [][]byte, limit int) (_ []osd.Value, err error) {
	if len(keys) > osd.MaxListKeys {
		return nil, fmt.Errorf("%w: %d keys asked, at most %d", osd.ErrInvalid, len(keys), osd.MaxListKeys)
	}
	var from pebble.Reader = s.db
	if len(keys) > 1 {
		snap := s.db.NewSnapshot()
		defer func() { err = errors.Join(err, snap.Close()) }()
		from = snap
	}
	values, found := make([]osd.Value, len(keys)), make([]entry, len(keys))
	total := 0
	for i, key := range keys {
		if err := osd.ValidKey(key); err != nil {
			return nil, err
		}
		err := s.lookup(from, key, func(e *entry) error {
			if e == nil {
				return nil
			}
			n := int(e.length)
			if total += n; n > limit || total > osd.MaxValueBytes {
				return fmt.Errorf("%w: value of %q has %d bytes, more than the reader takes", osd.ErrInvalid, key, n)
			}
			values[i].CRC = e.crc
			if e.kind == kindInline {
				values[i].Data = append(make([]byte, 0, n), e.inline...)
				return s.verifyInline(key, e)
			}
			found[i] = e.keep()
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for i := range found {
		if e := &found[i]; e.kind == kindExtent {
			values[i].Data = blockfs.AlignedBuffer(int(e.extent.bytes()))[:e.length]
			if err := s.readExtent(ctx, keys[i], e, 0, values[i].Data, how{verify: true, slack: true}); err != nil {
				return nil, err
			}
		}
	}
	s.stats.readBytes.Add(uint64(total))
	return values, nil
}

// how says how an extent is read.
type how struct {
	verify bool // whole blocks, compared with their checksums; else pages
	slack  bool // the pages that p begins in may be written up to p's capacity
}

// unit is what a read begins and ends with, in bytes.
func (h how) unit() int64 {
	if h.verify {
		return osd.Block
	}
	return pageSize
}

// readExtent fills p from a value's extent.
func (s *Store) readExtent(ctx context.Context, key []byte, e *entry, off int64, p []byte, h how) error {
	f, err := s.blobs.file(e.extent)
	if err != nil {
		return s.damaged(key, err)
	}
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		start := off - off%h.unit()
		n := min(int64(len(p)), start+pieceBytes-off)
		r := blockRange{start: start, end: min(int64(e.length), (off+n+h.unit()-1)/h.unit()*h.unit())}
		if err := s.readPiece(ctx, key, f, e, r, off, p[:n], h); err != nil {
			return err
		}
		off, p = off+n, p[n:]
	}
	return nil
}

// blockRange is a part of a value that begins and ends with blocks, or pages.
type blockRange struct{ start, end int64 }

// readPiece reads a range, into p when they are what p asks for and p suits
// a Direct file, else by way of a buffer.
func (s *Store) readPiece(ctx context.Context, key []byte, f blockfs.File, e *entry, r blockRange, off int64, p []byte, h how) error {
	n := int(r.end - r.start)
	size := (n + pageSize - 1) / pageSize * pageSize
	var buf []byte
	if n == len(p) && blockfs.Aligned(p) && (size == n || h.slack && cap(p) >= size) {
		buf = p[:size]
	} else {
		pool := s.pools.of(size)
		got, err := pool.get(ctx)
		if err != nil {
			return err
		}
		defer pool.put(got)
		buf = got[:size]
	}
	if _, err := f.ReadAt(buf, e.extent.offset()+r.start); err != nil {
		return s.readError(key, e, err)
	}
	for i := 0; h.verify && i < n; i += osd.Block {
		b := buf[i:min(n, i+osd.Block)]
		at := int(r.start)/osd.Block + i/osd.Block
		if crc := osd.CRC(b); crc != e.block(at) {
			return s.damaged(key, fmt.Errorf("block %d in %v: crc32c %08x, should be %08x", at, e.extent, crc, e.block(at)))
		}
	}
	if &buf[0] != &p[0] {
		copy(p, buf[off-r.start:n])
	}
	return nil
}

// readError says ErrCorrupt where bytes are missing or the medium does not give
// them: to a reader that is the same as wrong ones.
func (s *Store) readError(key []byte, e *entry, err error) error {
	err = fmt.Errorf("%v: %w", e.extent, err)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EIO) {
		return s.damaged(key, err)
	}
	s.stats.errors.Add(1)
	return fmt.Errorf("key %q: %w", key, err)
}
