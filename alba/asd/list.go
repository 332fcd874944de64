package asd

import (
	"bytes"
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/openvstorage/ovgate/alba/osd"
)

// listStride is how many keys are listed between two looks at ctx.
const listStride = 256

// List implements osd.OSD.
func (s *Store) List(ctx context.Context, prefix, after []byte, limit int, prio osd.Priority) ([]osd.Entry, error) {
	end, err := s.begin(ctx, prio)
	if err != nil {
		return nil, err
	}
	defer end()
	s.stats.lists.Add(1)
	entries, err := s.list(ctx, prefix, after, limit)
	if err != nil {
		return nil, s.wrap(err)
	}
	return entries, nil
}

func (s *Store) list(ctx context.Context, prefix, after []byte, limit int) (entries []osd.Entry, err error) {
	if limit <= 0 || limit > osd.MaxListKeys {
		limit = osd.MaxListKeys
	}
	lower := valueKey(prefix)
	if after != nil {
		if next := append(valueKey(after), 0); bytes.Compare(next, lower) > 0 {
			lower = next
		}
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: successor(valueKey(prefix))})
	if err != nil {
		return nil, s.indexError(prefix, err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid() && len(entries) < limit; it.Next() {
		if len(entries)%listStride == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		key := bytes.Clone(it.Key()[1:])
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, s.indexError(key, err)
		}
		e, err := decodeEntry(v)
		if err != nil {
			return nil, s.damaged(key, err)
		}
		entries = append(entries, osd.Entry{Key: key, Size: int64(e.length), CRC: e.crc})
	}
	if err := it.Error(); err != nil {
		return nil, s.indexError(prefix, err)
	}
	return entries, nil
}

// successor returns the first key after all that begin with prefix, which begins
// with the letter of its space.
func successor(prefix []byte) []byte {
	prefix = bytes.TrimRight(prefix, "\xff")
	prefix[len(prefix)-1]++
	return prefix
}

// Validate implements osd.OSD. It works with low priority.
func (s *Store) Validate(ctx context.Context, prefix, after []byte, limit int, budget int64) (osd.Validation, error) {
	end, err := s.begin(ctx, osd.Low)
	if err != nil {
		return osd.Validation{}, err
	}
	defer end()
	s.stats.validates.Add(1)
	v, err := s.validate(ctx, prefix, after, limit, budget)
	if err != nil {
		return osd.Validation{}, s.wrap(err)
	}
	return v, nil
}

func (s *Store) validate(ctx context.Context, prefix, after []byte, limit int, budget int64) (osd.Validation, error) {
	var res osd.Validation
	entries, err := s.list(ctx, prefix, after, limit)
	if err != nil {
		return res, err
	}
	for _, e := range entries {
		if res.Keys > 0 && res.Bytes >= budget {
			return res, nil
		}
		n, err := s.verify(ctx, e.Key)
		if errors.Is(err, osd.ErrCorrupt) {
			res.Bad = append(res.Bad, e.Key)
		} else if err != nil {
			return res, err
		}
		res.Keys++
		res.Bytes += n
		res.Next = e.Key
	}
	if more, err := s.list(ctx, prefix, res.Next, 1); err != nil {
		return res, err
	} else if len(more) == 0 || res.Keys == 0 {
		res.Next = nil
	}
	return res, nil
}

// verify reads a value, and returns its size; a key that is gone by now is fine.
func (s *Store) verify(ctx context.Context, key []byte) (int64, error) {
	defer s.enter()()
	var found entry
	err := s.lookup(s.db, key, func(e *entry) error {
		switch {
		case e == nil:
			return nil
		case e.kind == kindInline:
			found.length = e.length
			return s.verifyInline(key, e)
		}
		found = e.keep()
		return nil
	})
	if err != nil || found.kind != kindExtent {
		return int64(found.length), err
	}
	buf, err := s.pools.large.get(ctx)
	if err != nil {
		return 0, err
	}
	defer s.pools.large.put(buf)
	for off := int64(0); off < int64(found.length); off += pieceBytes {
		p := buf[:min(pieceBytes, int64(found.length)-off)]
		if err := s.readExtent(ctx, key, &found, off, p, how{verify: true, slack: true}); err != nil {
			return int64(found.length), err
		}
	}
	return int64(found.length), nil
}
