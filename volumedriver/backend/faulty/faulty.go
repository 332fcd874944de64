// Package faulty is a Store that misbehaves as remote object stores do, around one
// that works. Tests and drills put it between the engine and a backend.
//
// # What it does
//
// Each call draws at most one fault, with the chance of its kind:
//
//	Refuse      an error, and nothing happened (5xx, connection refused)
//	LostAnswer  an error, although the change was made
//	LateEffect  an error; the change is made later, at the same time as or after others
//	Hang        no answer until ctx ends or Options.Hang has passed; nothing happened
//	Slow        the right answer, up to Options.Delay later
//	StaleList   a list as it was before some of the latest changes
//	Truncate    a read of which only the first part arrives, without an error
//	Flip        a read with one bit flipped, without an error
//
// LostAnswer and LateEffect concern Put, PutIfAbsent and Delete; Truncate and Flip
// Get and ReadAt; StaleList List; the others every call. What is stored is never
// damaged: with all chances 0 this is the store below.
//
// # What it breaks of the obligations of package backend
//
// Nothing but S4, for reads whose bytes or end are damaged on the way, and that only
// with Truncate and Flip: an engine notices by its checksums and asks again.
// LateEffect is the "may appear later" of S1, and the worst of it: after later calls
// that concern the same name.
package faulty

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// Kind is a kind of fault.
type Kind int

// The kinds, see the package comment.
const (
	Refuse Kind = iota
	LostAnswer
	LateEffect
	Hang
	Slow
	StaleList
	Truncate
	Flip
	kinds
)

func (k Kind) String() string {
	return [...]string{"refused", "answer lost", "late effect", "hung", "slow", "stale list", "truncated", "flipped"}[k]
}

// ErrInjected is in every error that this package makes.
var ErrInjected = errors.New("backend: injected fault")

// maxRecent is how many of the latest changes a stale list may not know yet.
const maxRecent = 64

// Options of a Store.
type Options struct {
	Chances map[Kind]float64 // of each call, 0 to 1 in all
	Rand    *rand.Rand       // not used by others meanwhile
	Clock   clock.Clock
	Delay   time.Duration // longest delay of Slow and LateEffect
	Hang    time.Duration // longest time of Hang
}

// Store is a faulty backend.Store. It works until On is called.
type Store struct {
	backend.Store
	o      Options
	on     atomic.Bool
	counts [kinds]atomic.Int64
	late   sync.WaitGroup

	mu     sync.Mutex
	recent []change // latest changes, oldest first
}

// change is one that a stale list may not know.
type change struct {
	info backend.Info
	put  bool
}

// New wraps a store, which it closes.
func New(s backend.Store, o Options) *Store { return &Store{Store: s, o: o} }

// On lets the faults begin.
func (s *Store) On() { s.on.Store(true) }

// Off ends the faults and waits for what was to have its effect later.
func (s *Store) Off() {
	s.mu.Lock()
	s.on.Store(false) // what is drawn from now on is no fault
	s.mu.Unlock()
	s.late.Wait()
}

// Count returns how many faults of a kind there were.
func (s *Store) Count(k Kind) int64 { return s.counts[k].Load() }

// draw picks the fault of a call among the kinds that concern it; Off waits for a LateEffect
// from then on.
func (s *Store) draw(among ...Kind) (k Kind, ok bool) {
	if !s.on.Load() {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on.Load() {
		return 0, false
	}
	x := s.o.Rand.Float64()
	for _, k := range append(among, Refuse, Hang, Slow) {
		if x -= s.o.Chances[k]; x < 0 {
			s.counts[k].Add(1)
			if k == LateEffect {
				s.late.Add(1)
			}
			return k, true
		}
	}
	return 0, false
}

// within draws a time up to d.
func (s *Store) within(d time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.o.Rand.Int64N(int64(d) + 1))
}

// below draws a number below n.
func (s *Store) below(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.o.Rand.IntN(n)
}

func fault(k Kind, name string) error { return fmt.Errorf("%w: %s: %s", ErrInjected, name, k) }

// before does what concerns every call. An error is the answer.
func (s *Store) before(ctx context.Context, k Kind, drawn bool, name string) error {
	if !drawn {
		return nil
	}
	switch k {
	case Refuse:
		return fault(k, name)
	case Hang:
		if err := clock.Sleep(ctx, s.o.Clock, s.o.Hang); err != nil {
			return err
		}
		return fault(k, name)
	case Slow:
		return clock.Sleep(ctx, s.o.Clock, s.within(s.o.Delay))
	}
	return nil
}

// change makes a change with the faults of changes.
func (s *Store) change(ctx context.Context, name string, c change, do func(context.Context) error) error {
	k, drawn := s.draw(LostAnswer, LateEffect)
	if err := s.before(ctx, k, drawn, name); err != nil {
		return err
	}
	if drawn && k == LateEffect {
		d := s.within(s.o.Delay)
		go func() {
			defer s.late.Done()
			_ = clock.Sleep(context.Background(), s.o.Clock, d)
			if do(context.Background()) == nil {
				s.note(c)
			}
		}()
		return fault(k, name)
	}
	err := do(ctx)
	if err == nil {
		s.note(c)
		if drawn && k == LostAnswer {
			return fault(k, name)
		}
	}
	return err
}

func (s *Store) note(c change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.info.ModTime = s.o.Clock.Now()
	if s.recent = append(s.recent, c); len(s.recent) > maxRecent {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
}

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	return s.put(ctx, name, data, s.Store.Put)
}

// PutIfAbsent implements backend.Store.
func (s *Store) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	return s.put(ctx, name, data, s.Store.PutIfAbsent)
}

func (s *Store) put(ctx context.Context, name string, data []byte, put func(context.Context, string, []byte) error) error {
	data = slices.Clone(data) // the caller's buffer is its own again before a late effect
	c := change{backend.Info{Name: name, Size: int64(len(data))}, true}
	return s.change(ctx, name, c, func(ctx context.Context) error { return put(ctx, name, data) })
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	c := change{info: backend.Info{Name: name}}
	return s.change(ctx, name, c, func(ctx context.Context) error { return s.Store.Delete(ctx, name) })
}

// Get implements backend.Store.
func (s *Store) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	k, drawn := s.draw(Truncate, Flip)
	if err := s.before(ctx, k, drawn, name); err != nil {
		return nil, err
	}
	b, err := s.Store.Get(ctx, name, limit)
	if err == nil && drawn && len(b) > 0 {
		switch k {
		case Truncate:
			b = b[:s.below(len(b))]
		case Flip:
			b[s.below(len(b))] ^= 1 << s.below(8)
		}
	}
	return b, err
}

// ReadAt implements backend.Store.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	k, drawn := s.draw(Truncate, Flip)
	if err := s.before(ctx, k, drawn, name); err != nil {
		return err
	}
	if drawn && k == Truncate && len(p) > 0 {
		p = p[:s.below(len(p))]
	}
	err := s.Store.ReadAt(ctx, name, p, off)
	if err == nil && drawn && k == Flip && len(p) > 0 {
		p[s.below(len(p))] ^= 1 << s.below(8)
	}
	return err
}

// Stat implements backend.Store.
func (s *Store) Stat(ctx context.Context, name string) (backend.Info, error) {
	k, drawn := s.draw()
	if err := s.before(ctx, k, drawn, name); err != nil {
		return backend.Info{}, err
	}
	return s.Store.Stat(ctx, name)
}

// List implements backend.Store. A stale one does not know the latest changes: it
// lacks objects, and has some that are gone.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	k, drawn := s.draw(StaleList)
	if err := s.before(ctx, k, drawn, prefix); err != nil {
		return nil, err
	}
	infos, err := s.Store.List(ctx, prefix, after, limit)
	if err != nil || !drawn || k != StaleList {
		return infos, err
	}
	full := len(infos) == limit
	s.mu.Lock()
	var unknown []change
	if n := len(s.recent); n > 0 {
		unknown = slices.Clone(s.recent[n-1-s.o.Rand.IntN(n):])
	}
	s.mu.Unlock()
	slices.Reverse(unknown)
	for _, c := range unknown {
		i, there := slices.BinarySearchFunc(infos, c.info.Name, func(a backend.Info, name string) int { return strings.Compare(a.Name, name) })
		switch {
		case c.put && there:
			infos = slices.Delete(infos, i, i+1)
		case !c.put && !there && strings.HasPrefix(c.info.Name, prefix) && c.info.Name > after && (i < len(infos) || !full):
			infos = slices.Insert(infos, i, c.info)
		}
	}
	// A short page means the end (package backend); what a full one lacks now would
	// hide the next pages, which a store that lags does not do.
	if full && len(infos) < limit {
		return s.Store.List(ctx, prefix, after, limit)
	}
	return infos[:min(len(infos), limit)], nil
}

// Features implements backend.Store.
func (s *Store) Features() backend.Features {
	f := s.Store.Features()
	f.ConsistentList = f.ConsistentList && s.o.Chances[StaleList] == 0
	return f
}

// Close implements backend.Store.
func (s *Store) Close() error {
	s.Off()
	return s.Store.Close()
}
