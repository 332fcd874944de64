package blockmap

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sync/atomic"
)

// PageBytes is the size of a page in a segment.
const PageBytes = 8 * PageEntries

type page [PageEntries]Loc

// mapped counts the clusters that have data.
func (p *page) mapped() int {
	n := 0
	for _, l := range p {
		if l.Mapped() {
			n++
		}
	}
	return n
}

// ref is a page of a map, in memory or not. While it is dirty (no segment has it)
// the map that owns it writes it in place. From then on its content never changes
// (M6): a write makes a new ref, so whoever holds this one can read it again from
// its segment and check it.
type ref struct {
	data atomic.Pointer[page] // nil: only in the segment
	seg  *Segment             // nil: dirty
	slot uint32
	sum  uint32 // pageSum
	hot  atomic.Uint32
}

// get returns the page if it is in memory, and remembers that it was used.
func (r *ref) get() *page {
	p := r.data.Load()
	if p != nil && r.hot.Load() == 0 { // a store per read would bounce the line between cores
		r.hot.Store(1)
	}
	return p
}

// Segment is a file of pages that are not changed any more.
type Segment struct {
	// Number is unique among those of an opening, which Epoch and Nonce name.
	Number, Epoch, Nonce uint32
	Pages                uint32 // in it, those without use included
	// Owner is whose segment it is.
	Owner *Owner
	// live counts the pages of it that the map of its owner has.
	live int
}

// Owner is where the pages of a map are kept.
type Owner struct {
	Memory *Memory
	Reader PageReader
	// resident counts the pages in memory, in bytes.
	resident atomic.Int64
}

// PageReader reads pages back.
type PageReader interface {
	// ReadPage returns PageBytes bytes of a slot, which is to hold page n of the map.
	// It offers what it finds, in one place after the other, to right, and returns the
	// first that is; an error if nothing is. Safe for concurrent use.
	ReadPage(ctx context.Context, s *Segment, slot uint32, n uint64, right func([]byte) bool) ([]byte, error)
}

// pageSum is the checksum of page n: a page in another's place does not pass.
func pageSum(n uint64, b []byte) uint32 {
	var h [8]byte
	binary.LittleEndian.PutUint64(h[:], n)
	return crc32.Update(crc32.Checksum(h[:], castagnoli), castagnoli, b)
}

func encodePage(b []byte, p *page) {
	for i, l := range p {
		binary.LittleEndian.PutUint64(b[8*i:], uint64(l))
	}
}

func decodePage(p *page, b []byte) {
	for i := range p {
		p[i] = Loc(binary.LittleEndian.Uint64(b[8*i:]))
	}
}

// load returns the page, from its segment if need be, and lets it stay in memory.
func (r *ref) load(ctx context.Context, n uint64) (*page, error) {
	if p := r.get(); p != nil {
		return p, nil
	}
	o := r.seg.Owner
	b, err := o.Reader.ReadPage(ctx, r.seg, r.slot, n, func(b []byte) bool {
		return len(b) == PageBytes && pageSum(n, b) == r.sum
	})
	if err != nil {
		return nil, fmt.Errorf("map page %d: %w", n, err)
	}
	p := &page{}
	decodePage(p, b)
	o.Memory.loads.Add(1)
	o.Memory.admit(r, p)
	return p, nil
}

// Want collects the pages that lookups miss, so that they are read without the lock
// of the map and then looked up again: a page that was read is found here, whether
// it stayed in memory or not.
//
//	var w Want
//	for {
//		lock; loc, ok := m.Get(c, &w); unlock
//		if ok { break }
//		if err := w.Load(ctx); err != nil { fail }
//	}
//
// The zero Want is ready to use. Not safe for concurrent use.
type Want struct{ pages []wanted }

type wanted struct {
	r    *ref
	n    uint64
	page *page // nil: to be read
}

// find returns the page of r, or notes that it is wanted.
func (w *Want) find(r *ref, n uint64) *page {
	for i := len(w.pages) - 1; i >= 0; i-- {
		if w.pages[i].r == r {
			return w.pages[i].page
		}
	}
	w.pages = append(w.pages, wanted{r: r, n: n})
	return nil
}

// Missing reports whether there is something to load.
func (w *Want) Missing() bool {
	for i := range w.pages {
		if w.pages[i].page == nil {
			return true
		}
	}
	return false
}

// Load reads what is wanted. What it cannot read stays wanted, unless the map has
// another page there by the next lookup.
func (w *Want) Load(ctx context.Context) error {
	for i := range w.pages {
		x := &w.pages[i]
		if x.page != nil {
			continue
		}
		var err error
		if x.page, err = x.r.load(ctx, x.n); err != nil {
			w.pages = append(w.pages[:i], w.pages[i+1:]...)
			return err
		}
	}
	return nil
}
