package kv

import (
	"bytes"
	"context"
	"fmt"
)

// Each calls f with every record below a prefix, in the order of their keys, page by page:
// what is changed meanwhile may be seen or not.
func Each(ctx context.Context, s Store, prefix string, f func(KV) error) error {
	p := pages{s: s, prefix: prefix}
	for {
		e, err := p.next(ctx)
		if err != nil || e == nil {
			return err
		}
		if err := f(*e); err != nil {
			return err
		}
	}
}

// pageRecords bounds what is read at once: records have up to MaxTxnBytes, few of them that
// much.
const pageRecords = 200

// pages is a walk over records.
type pages struct {
	s             Store
	prefix, after string
	page          []KV
	ended         bool
}

// next returns the next record; nil at the end.
func (p *pages) next(ctx context.Context) (*KV, error) {
	if len(p.page) == 0 && !p.ended {
		var err error
		if p.page, _, err = p.s.Range(ctx, p.prefix, p.after, pageRecords); err != nil {
			return nil, err
		}
		p.ended = len(p.page) == 0
	}
	if p.ended {
		return nil, nil
	}
	e := &p.page[0]
	p.page = p.page[1:]
	p.after = string(e.Key)
	return e, nil
}

// Batches collects operations, each of another key, into transactions without conditions, as
// large as they may be. The last ones are done by Flush.
type Batches struct {
	To    Store
	ops   []Op
	bytes int
}

// Add takes an operation more.
func (b *Batches) Add(ctx context.Context, op Op) error {
	size := len(op.Key) + len(op.Value)
	if len(b.ops) == MaxTxnOps || b.bytes+size > MaxTxnBytes/2 {
		if err := b.Flush(ctx); err != nil {
			return err
		}
	}
	b.ops, b.bytes = append(b.ops, op), b.bytes+size
	return nil
}

// Flush does what was collected.
func (b *Batches) Flush(ctx context.Context) error {
	if len(b.ops) == 0 {
		return nil
	}
	_, err := b.To.Txn(ctx, nil, b.ops, nil)
	b.ops, b.bytes = nil, 0
	return err
}

// Wipe deletes the records below a prefix for which drop holds; nil: all.
func Wipe(ctx context.Context, s Store, prefix string, drop func(KV) bool) error {
	b := Batches{To: s}
	if err := Each(ctx, s, prefix, func(e KV) error {
		if drop != nil && !drop(e) {
			return nil
		}
		return b.Add(ctx, Delete(string(e.Key)))
	}); err != nil {
		return err
	}
	return b.Flush(ctx)
}

// Copy puts the records below a prefix for which take holds into another store; nil: all.
// Revisions are others there, and leases stay behind.
func Copy(ctx context.Context, from, to Store, prefix string, take func(KV) (bool, error)) error {
	b := Batches{To: to}
	if err := Each(ctx, from, prefix, func(e KV) error {
		if take != nil {
			if ok, err := take(e); err != nil || !ok {
				return err
			}
		}
		return b.Add(ctx, Put(string(e.Key), e.Value))
	}); err != nil {
		return err
	}
	return b.Flush(ctx)
}

// Same returns an error that names the first record below a prefix, of those for which look
// holds, in which two stores that nobody changes differ; a nil look holds for all.
func Same(ctx context.Context, a, b Store, prefix string, look func(KV) bool) error {
	next := func(p *pages) (*KV, error) {
		for {
			e, err := p.next(ctx)
			if err != nil || e == nil || look == nil || look(*e) {
				return e, err
			}
		}
	}
	pa, pb := &pages{s: a, prefix: prefix}, &pages{s: b, prefix: prefix}
	for {
		x, err := next(pa)
		if err != nil {
			return err
		}
		y, err := next(pb)
		if err != nil {
			return err
		}
		switch {
		case x == nil && y == nil:
			return nil
		case x == nil:
			return fmt.Errorf("record %s is not what was copied", y.Key)
		case y == nil || bytes.Compare(x.Key, y.Key) < 0:
			return fmt.Errorf("record %s is missing", x.Key)
		case !bytes.Equal(x.Key, y.Key) || !bytes.Equal(x.Value, y.Value):
			return fmt.Errorf("record %s is not what was copied", y.Key)
		}
	}
}
