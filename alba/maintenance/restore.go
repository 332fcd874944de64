package maintenance

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/nsm"
)

// recoverBatch bounds the tags whose records are in memory at once, each up to
// 8 KiB; a single object may have more.
const recoverBatch = 4000

// restore rebuilds the objects of a pass.
func (s *scan) restore(ctx context.Context) error {
	var batch []layout.Object
	tags := 0
	for _, id := range s.ids() {
		batch = append(batch, id)
		if tags += len(s.objects[id].tags); tags >= recoverBatch {
			if err := s.rebuild(ctx, batch); err != nil {
				return err
			}
			batch, tags = nil, 0
		}
	}
	return s.rebuild(ctx, batch)
}

// record is a tag with what it says.
type record struct {
	trace
	header layout.Header
	index  fragment.Index
}

// rebuild reads the records of objects, and restores those that are complete.
func (s *scan) rebuild(ctx context.Context, batch []layout.Object) error {
	records, err := s.records(ctx, batch)
	if err != nil {
		return err
	}
	for _, id := range batch {
		s.r.Found++
		s.a.progress(s.job, 1, 0)
		m, ok := assemble(records[id], s.objects[id].stored)
		switch {
		case m == nil: // none of its tags can be read: it has no name
			s.r.Unrecoverable++
			continue
		case !ok:
			s.lose(m)
			continue
		}
		_, err := s.host.Restore(ctx, s.n, m)
		if _, bad := m.Encode(); errors.Is(err, nsm.ErrInvalid) && bad != nil {
			s.lose(m)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// records reads the tags of objects, device by device.
func (s *scan) records(ctx context.Context, batch []layout.Object) (map[layout.Object][]record, error) {
	type tag struct {
		id layout.Object
		t  trace
	}
	byDevice := map[uint32][]tag{}
	for _, id := range batch {
		for _, t := range s.objects[id].tags {
			byDevice[t.osd] = append(byDevice[t.osd], tag{id, t})
		}
	}
	out := map[layout.Object][]record{}
	for number, tags := range byDevice {
		keys := make([][]byte, len(tags))
		for i, t := range tags {
			keys[i] = layout.Place{Namespace: s.n.ID, Object: t.id, Chunk: t.t.chunk, Index: t.t.index, Version: t.t.version}.TagKey(t.t.epoch)
		}
		values, err := s.a.values(ctx, number, keys, func() { s.r.Damaged++ })
		if err != nil {
			return nil, err
		}
		for i, v := range values {
			if v == nil {
				continue
			}
			h, x, err := layout.DecodeRecovery(v)
			if err != nil || h.Object != tags[i].id {
				s.r.Damaged++
				continue
			}
			out[tags[i].id] = append(out[tags[i].id], record{tags[i].t, h, x})
		}
	}
	return out, nil
}

// assemble makes the manifest of an object from its tags and the fragments that are
// on the devices; false when a chunk has fewer than k, nil when nothing is known.
func assemble(records []record, stored []trace) (*layout.Manifest, bool) {
	if len(records) == 0 {
		return nil, false
	}
	there := make(map[at]trace, len(stored))
	for _, t := range stored {
		there[t.at()] = t
	}
	form := common(records)
	m := &layout.Manifest{Header: form.Header}
	m.Fragments = make([][]layout.Fragment, m.Chunks())
	byChunk := make([][]record, m.Chunks())
	for _, r := range records {
		if r.form() == form && int(r.chunk) < len(byChunk) && int(r.index8()) < m.Policy.N() {
			byChunk[r.chunk] = append(byChunk[r.chunk], r)
		}
	}
	ok := true
	for i, all := range byChunk {
		c := chunkOf(m, i, all, there)
		m.Fragments[i] = c.frags
		ok = ok && c.found >= m.Policy.K
	}
	return m, ok
}

func (r record) index8() uint8 { return r.trace.index }

// form is what the fragments of an object have in common.
type form struct {
	layout.Header
	pieces fragment.PieceSize
}

func (r record) form() form { return form{r.header, r.index.PieceSize()} }

// common returns the form that most records have: they should all have the same.
func common(records []record) form {
	count := map[form]int{}
	best := records[0].form()
	for _, r := range records {
		if count[r.form()]++; count[r.form()] > count[best] {
			best = r.form()
		}
	}
	return best
}

// chosen is a chunk with the fragments that were found for it.
type chosen struct {
	frags []layout.Fragment
	found int
}

// chunkOf chooses for each fragment the highest version that is on a device, no
// device twice: what repair left behind may be in the way, so that is a matching.
func chunkOf(m *layout.Manifest, chunk int, records []record, there map[at]trace) chosen {
	n := m.Policy.N()
	options := make([][]record, n)
	c := chosen{frags: make([]layout.Fragment, n)}
	plain := m.ShardBytes(chunk)
	for _, r := range records {
		i := r.index8()
		f := &c.frags[i]
		// Also of what is gone: a later repair goes on above it (layout M2).
		f.Version = max(f.Version, r.version)
		t, ok := there[r.at()]
		if ok && r.index.PlainBytes() == plain && r.index.Encrypted() == m.Encrypted() && int64(t.size) == r.index.StoredBytes() && t.crc == r.index.CRC() {
			options[i] = append(options[i], r)
		}
	}
	order := make([]int, 0, n)
	for i, o := range options {
		slices.SortFunc(o, func(x, y record) int {
			return cmp.Or(cmp.Compare(y.version, x.version), cmp.Compare(y.epoch, x.epoch), cmp.Compare(x.osd, y.osd))
		})
		if len(o) > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(options[y][0].version, options[x][0].version) })
	taken := map[uint32]int{} // device -> fragment
	pick := make([]int, n)
	var place func(i int, tried map[uint32]bool) bool
	place = func(i int, tried map[uint32]bool) bool {
		for k, r := range options[i] {
			if tried[r.osd] {
				continue
			}
			tried[r.osd] = true
			if by, used := taken[r.osd]; !used || place(by, tried) {
				taken[r.osd], pick[i] = i, k
				return true
			}
		}
		return false
	}
	for _, i := range order {
		if place(i, map[uint32]bool{}) {
			c.found++
		}
	}
	for number, i := range taken {
		r := options[i][pick[i]]
		c.frags[i] = layout.Fragment{OSD: number, Version: r.version, Epoch: r.epoch, Index: r.index}
	}
	return c
}

// lose notes an object that cannot be restored.
func (s *scan) lose(m *layout.Manifest) {
	s.r.Unrecoverable++
	if len(s.lost) < recoverLost {
		s.lost = append(s.lost, LostObject{Name: m.Name, Object: m.Object, Created: m.Created, Size: m.Size})
	}
}

// finish tells what is lost from what was replaced, and counts what is there.
func (s *scan) finish(ctx context.Context) error {
	for _, l := range s.lost {
		m, err := s.host.Get(ctx, s.n.ID, l.Name)
		if err != nil && !errors.Is(err, nsm.ErrNotExist) {
			return err
		}
		if m != nil && (m.Created > l.Created || m.Object == l.Object) {
			s.r.Unrecoverable--
			continue
		}
		l.Older = m != nil
		s.r.Lost = append(s.r.Lost, l)
	}
	for after := ""; ; {
		page, more, err := s.host.List(ctx, s.n.ID, "", after, 0)
		if err != nil {
			return err
		}
		for _, m := range page {
			after = m.Name
			s.r.Restored++
			if m.Missing() > 0 {
				s.r.Incomplete++
			}
		}
		if !more {
			break
		}
	}
	// Which of two objects came first depends on their ids; what is left does not.
	s.r.Leftovers = max(0, s.r.Found-s.r.Restored-s.r.Unrecoverable)
	return nil
}
