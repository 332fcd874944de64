package asd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// writersMax bounds how many pieces of one Apply are written at a time: some, so
// that a disk with a queue is used; few, so that others have their share.
const writersMax = 4

// errNoSpace is what a full file system says.
const errNoSpace = syscall.ENOSPC

// errInjected is the error that Fault.FailWrites makes.
var errInjected = errors.New("injected error of a write")

// indexOverhead is what a key takes in the index besides itself and an inline
// value, in bytes, roughly.
const indexOverhead = 64

// plan is an Apply as it is carried out.
type plan struct {
	asserts []osd.Assert
	updates []osd.Update
	entries []entry // of each update that sets
	large   []int   // the updates whose values are extents
	sets    bool
	inline  int64 // bytes for the index
	// replaced are the keys whose values were extents.
	replaced []string
}

// Apply implements osd.OSD.
func (s *Store) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update, prio osd.Priority) error {
	end, err := s.begin(ctx, prio)
	if err != nil {
		return err
	}
	defer end()
	err = s.apply(ctx, asserts, updates)
	if errors.Is(err, osd.ErrAssert) || errors.Is(err, osd.ErrFull) {
		s.stats.refused.Add(1)
	}
	return s.wrap(err)
}

func (s *Store) apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update) error {
	if err := osd.ValidateApply(asserts, updates); err != nil {
		return err
	}
	p, err := newPlan(asserts, updates)
	if err != nil {
		return err
	}
	if len(p.large) > 0 || len(updates) == 0 {
		// Spares writing for an Apply that fails; commit decides.
		if err := s.check(asserts); err != nil || len(updates) == 0 {
			return err
		}
	}
	if s.fault.Load().FailWrites {
		s.fail(errInjected)
		return s.failed()
	}
	extents, err := s.admit(p)
	if err != nil {
		return err
	}
	if p.sets {
		defer s.blobs.admitted(p.inline)
	}
	err = s.writeExtents(ctx, p)
	if err == nil {
		err = s.commit(p)
	}
	if err != nil && !errors.Is(err, osd.ErrFailed) {
		s.release(extents)
		return err
	}
	return err
}

// newPlan checks the values and prepares their entries.
func newPlan(asserts []osd.Assert, updates []osd.Update) (*plan, error) {
	p := &plan{asserts: asserts, updates: updates, entries: make([]entry, len(updates))}
	for i, u := range updates {
		if u.Delete {
			continue
		}
		p.sets = true
		p.inline += int64(len(u.Key) + indexOverhead)
		e := &p.entries[i]
		e.length, e.crc = uint32(len(u.Value)), u.CRC
		var crc uint32
		if len(u.Value) < inlineMax {
			e.kind, e.inline = kindInline, u.Value
			p.inline += int64(len(u.Value))
			crc = osd.CRC(u.Value)
		} else {
			e.kind = kindExtent
			p.large = append(p.large, i)
			var err error
			if crc, e.blocks, err = sums(u.Value, u.Sums); err != nil {
				return nil, fmt.Errorf("key %q: %w", u.Key, err)
			}
			p.inline += int64(len(e.blocks))
		}
		if crc != u.CRC {
			return nil, fmt.Errorf("key %q: %w: crc32c %08x, announced as %08x", u.Key, osd.ErrChecksum, crc, u.CRC)
		}
	}
	return p, nil
}

// admit keeps D5, and takes the extents.
func (s *Store) admit(p *plan) ([]extent, error) {
	if !p.sets {
		return nil, nil
	}
	if s.fault.Load().Full {
		return nil, osd.ErrFull
	}
	if s.damagedIndex.Load() {
		return nil, fmt.Errorf("%w: its index is damaged", osd.ErrFull)
	}
	r, err := s.room()
	if err != nil {
		return nil, err
	}
	pages := make([]uint32, len(p.large))
	for i, u := range p.large {
		pages[i] = pagesOf(p.entries[u].length)
	}
	extents, err := s.blobs.admit(pages, p.inline, r.limit-s.index.used.Load(), r.space)
	if err != nil {
		return nil, s.writeError(err)
	}
	for i, u := range p.large {
		p.entries[u].extent = extents[i]
	}
	return extents, nil
}

// admit takes extents of given lengths when they, and inline bytes of the index,
// fit below limit and into what the file system can give. admitted must follow
// when it succeeds.
func (b *blobs) admit(pages []uint32, inline, limit, space int64) ([]extent, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	need := b.inline + inline
	for _, n := range pages {
		need += int64(n) * pageSize
	}
	if b.used+need > limit || need > space+b.high-b.used {
		return nil, osd.ErrFull
	}
	extents := make([]extent, 0, len(pages))
	for _, n := range pages {
		e, err := b.take(n)
		if err != nil {
			for _, e := range extents {
				err = errors.Join(err, b.give(e))
			}
			return nil, err
		}
		extents = append(extents, e)
	}
	b.inline += inline
	return extents, nil
}

// admitted ends what admit began: the index has grown by now.
func (b *blobs) admitted(inline int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inline -= inline
}

// writeError tells a full disk, after which nothing is changed, from an error
// that ends the device.
func (s *Store) writeError(err error) error {
	switch {
	case err == nil:
		return nil
	case noSpace(err):
		return fmt.Errorf("%w: %w", osd.ErrFull, err)
	case harmless(err):
		return err
	}
	s.fail(err)
	return s.failed()
}

// piece is one transfer of a value to its extent.
type piece struct {
	f    blockfs.File
	off  int64 // in the container
	data []byte
}

// writeExtents makes the large values durable.
func (s *Store) writeExtents(ctx context.Context, p *plan) error {
	var pieces []piece
	for _, i := range p.large {
		e := &p.entries[i]
		f, err := s.blobs.file(e.extent)
		if err != nil {
			return s.writeError(err)
		}
		value, off := p.updates[i].Value, e.extent.offset()
		for len(value) > 0 {
			n := min(len(value), pieceBytes)
			pieces = append(pieces, piece{f, off, value[:n]})
			value, off = value[n:], off+int64(n)
		}
		s.stats.writeBytes.Add(uint64(e.length))
	}
	if len(pieces) <= 1 {
		for _, w := range pieces {
			return s.writeError(s.writePiece(ctx, w))
		}
		return nil
	}
	return s.writeError(s.writePieces(ctx, pieces))
}

// writePieces writes several pieces at a time and returns the worst error.
func (s *Store) writePieces(ctx context.Context, pieces []piece) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, min(writersMax, len(pieces)))
	for w := range errs {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(pieces) {
					return
				}
				if errs[w] = s.writePiece(ctx, pieces[i]); errs[w] != nil {
					next.Store(int64(len(pieces)))
					return
				}
			}
		})
	}
	wg.Wait()
	return worst(errs)
}

// worst returns the error that ends the device, if there is one, else any.
func worst(errs []error) (err error) {
	for _, e := range errs {
		if e != nil && (err == nil || harmless(err)) {
			err = e
		}
	}
	return err
}

// harmless tells whether a write that failed leaves the device in order.
func harmless(err error) bool {
	return noSpace(err) || errors.Is(err, osd.ErrFull) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func noSpace(err error) bool {
	return errors.Is(err, errNoSpace) || errors.Is(err, syscall.EDQUOT)
}

// writePiece writes from where the data is, when that suits a Direct file, or
// from a copy.
func (s *Store) writePiece(ctx context.Context, w piece) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(w.data)%pageSize == 0 && blockfs.Aligned(w.data) {
		_, err := w.f.WriteAt(w.data, w.off)
		return err
	}
	pool := s.pools.of(len(w.data))
	buf, err := pool.get(ctx)
	if err != nil {
		return err
	}
	defer pool.put(buf)
	n := copy(buf, w.data)
	end := (n + pageSize - 1) / pageSize * pageSize
	clear(buf[n:end])
	_, err = w.f.WriteAt(buf[:end], w.off)
	return err
}

// commit makes the transaction. An error besides osd.ErrFailed changed nothing.
func (s *Store) commit(p *plan) error {
	b := s.db.NewBatch()
	if err := fill(b, p); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", osd.ErrInvalid, err), b.Close())
	}
	freed, n, err := s.submit(b, p)
	if err != nil {
		return errors.Join(err, b.Close())
	}
	if err := b.SyncWait(); err != nil {
		s.fail(err)
	}
	if err := s.failed(); err != nil { // A6: pebble does not know
		return err
	}
	for was := s.durable.Load(); was < n && !s.durable.CompareAndSwap(was, n); {
		was = s.durable.Load()
	}
	s.stats.applies.Add(1)
	if len(freed) > 0 {
		s.release(s.readers.retire(freed))
	}
	return b.Close()
}

// fill puts the new entries into a batch.
func fill(b *pebble.Batch, p *plan) error {
	var buf []byte
	for i, u := range p.updates {
		if u.Delete {
			continue
		}
		e := &p.entries[i]
		buf = e.append(buf[:0])
		if err := b.Set(valueKey(u.Key), buf, nil); err != nil {
			return err
		}
		if e.kind == kindExtent {
			if err := b.Set(e.extent.key(), e.extent.value(), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// submit checks the asserts, completes the batch with what it replaces, and hands
// it to pebble (A4). It returns the extents that the batch frees, and its number.
func (s *Store) submit(b *pebble.Batch, p *plan) (freed []extent, n uint64, err error) {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.failed(); err != nil {
		return nil, 0, err
	}
	if err := s.check(p.asserts); err != nil {
		return nil, 0, err
	}
	for _, u := range p.updates {
		e, found, err := s.replaced(u.Key)
		if err != nil {
			return nil, 0, err
		}
		if found && e.kind == kindExtent {
			p.replaced = append(p.replaced, string(u.Key))
			freed = append(freed, e.extent)
			err = b.Delete(e.extent.key(), nil)
		}
		if found && u.Delete {
			err = errors.Join(err, b.Delete(valueKey(u.Key), nil))
		}
		if err != nil {
			return nil, 0, err
		}
	}
	n = s.applies + 1
	if err := b.Set(keyApplies, binary.BigEndian.AppendUint64(nil, n), nil); err != nil {
		return nil, 0, err
	}
	s.applies = n
	if len(p.replaced) > 0 {
		defer s.entries.Change(p.replaced...)()
	}
	if err := s.db.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		s.fail(fmt.Errorf("index: %w", err))
		return nil, 0, s.failed()
	}
	return freed, n, nil
}

// replaced returns the entry that a key has; its slices are not to be used.
func (s *Store) replaced(key []byte) (e entry, found bool, err error) {
	err = s.lookup(s.db, key, func(got *entry) error {
		if got != nil {
			e, found = *got, true
		}
		return nil
	})
	return e, found, err
}

// check compares the asserts with the index.
func (s *Store) check(asserts []osd.Assert) error {
	for _, a := range asserts {
		holds := false
		err := s.lookup(s.db, a.Key, func(e *entry) error {
			switch {
			case e == nil || a.Value == nil:
				holds = e == nil && a.Value == nil
			default:
				holds = e.kind == kindInline && bytes.Equal(e.inline, a.Value)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if !holds {
			return &osd.AssertError{Key: bytes.Clone(a.Key)}
		}
	}
	return nil
}

// release gives extents back that nothing refers to any more.
func (s *Store) release(extents []extent) {
	if len(extents) == 0 {
		return
	}
	if err := s.blobs.release(extents); err != nil {
		s.fail(err)
	}
}
