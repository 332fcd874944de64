package dtl

import (
	"fmt"
	"slices"
)

// The backend of the simulation: objects that hold records, and heads that list them (E5, E7).
// A commit now and then replaces the objects of the head before by one, and condemns them.
// What was asked to be deleted is on its way for as long as the network wants, whatever became
// of who asked, and may be deleted once more.

// simHead is a head object.
type simHead struct {
	objects []string
	seq     int // newest record in them
}

// put stores records as a new object of an opening; names are taken already.
func (s *sim) put(o *simOpening, taken []string, ids []uint64) string {
	s.puts++
	name := fmt.Sprintf("%d/%d", o.rec.epoch, s.puts) // the second one stands for a nonce, too
	if s.variant == simNames {
		for n := 1; ; n++ {
			if name = fmt.Sprint(n); !slices.Contains(taken, name) {
				break
			}
		}
	}
	s.store[name] = slices.Clone(ids)
	return name
}

// load reads what a head lists; lost is an object that is not there.
func (s *sim) load(head int) (ids []uint64, lost string) {
	for _, name := range s.heads[head].objects {
		have, ok := s.store[name]
		if !ok {
			return nil, name
		}
		ids = append(ids, have...)
	}
	return ids, ""
}

// newHead stores the objects of a head up to seq, and returns its number and what it condemns.
func (s *sim) newHead(o *simOpening, seq uint64) (number int, condemned []string) {
	old := s.heads[o.rec.head]
	objects := slices.Clone(old.objects)
	if len(objects) > 1 && s.chance(60) {
		condemned, objects = objects, []string{s.put(o, objects, o.ids[:old.seq])}
	}
	objects = append(objects, s.put(o, slices.Concat(old.objects, objects), o.ids[old.seq:seq]))
	s.heads = append(s.heads, simHead{objects, int(seq)})
	return len(s.heads) - 1, condemned
}

// remove carries out a delete that is on its way.
func (s *sim) remove() {
	if len(s.deletes) == 0 {
		return
	}
	i := s.r.IntN(len(s.deletes))
	delete(s.store, s.deletes[i])
	if !s.chance(15) {
		s.deletes = slices.Delete(s.deletes, i, i+1)
	}
}
