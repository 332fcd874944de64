package volume

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

func rangeRequest(first, end uint64) *Request {
	return &Request{st: requestState{first: first, end: end}}
}

// TestRangeLockModel drives the lock with random ranges and checks after every
// step what is held, who waits, and who is granted, against first principles.
func TestRangeLockModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 4))
		var l rangeLock
		var held, waiting []*Request // by arrival
		overlapsAny := func(q *Request, list []*Request) bool {
			return slices.ContainsFunc(list, func(o *Request) bool { return q.st.first < o.st.end && o.st.first < q.st.end })
		}
		for step := range 400 {
			if r.IntN(2) == 0 && len(held)+len(waiting) < 24 {
				first := r.Uint64N(40)
				q := rangeRequest(first, first+1+r.Uint64N(6))
				if r.IntN(20) == 0 {
					q = rangeRequest(0, 1<<34)
				}
				want := !overlapsAny(q, held) && !overlapsAny(q, waiting)
				if got := l.acquire(q); got != want {
					t.Fatalf("seed %d step %d: [%d, %d) granted %t, want %t", seed, step, q.st.first, q.st.end, got, want)
				}
				if want {
					held = append(held, q)
				} else {
					waiting = append(waiting, q)
				}
			} else if len(held) > 0 {
				i := r.IntN(len(held))
				q := held[i]
				held = slices.Delete(held, i, i+1)
				granted := l.release(q)
				var want, keep []*Request
				for _, w := range waiting {
					if overlapsAny(w, held) || overlapsAny(w, keep) {
						keep = append(keep, w)
						continue
					}
					held = append(held, w)
					want = append(want, w)
				}
				waiting = keep
				if !slices.Equal(granted, want) {
					t.Fatalf("seed %d step %d: granted %d requests, want %d, in order of arrival", seed, step, len(granted), len(want))
				}
			}
			checkRangeLock(t, &l, held, waiting)
		}
		// Nobody waits for ever: as the holders leave, all are granted.
		for len(held) > 0 {
			q := held[0]
			held = append(held[1:], l.release(q)...)
			if len(held) == 0 && len(l.waiting) > 0 {
				t.Fatalf("seed %d: %d waiters are lost", seed, len(l.waiting))
			}
		}
	}
}

func checkRangeLock(t *testing.T, l *rangeLock, held, waiting []*Request) {
	t.Helper()
	for i, a := range l.held {
		if a.st.slot != i {
			t.Fatalf("slot %d says %d", i, a.st.slot)
		}
		for _, b := range l.held[i+1:] {
			if overlaps(a, b) {
				t.Fatalf("[%d, %d) and [%d, %d) are held together", a.st.first, a.st.end, b.st.first, b.st.end)
			}
		}
		if !slices.Contains(held, a) {
			t.Fatal("holds what was not granted")
		}
	}
	if len(l.held) != len(held) || !slices.Equal(l.waiting, waiting) {
		t.Fatalf("%d held, %d waiting, want %d and %d", len(l.held), len(l.waiting), len(held), len(waiting))
	}
}

// TestRangeLockOrder: a later change passes an earlier one only where they share
// nothing, also through one in between.
func TestRangeLockOrder(t *testing.T) {
	var l rangeLock
	a, b, c, d := rangeRequest(0, 4), rangeRequest(2, 8), rangeRequest(6, 10), rangeRequest(10, 12)
	for _, q := range []struct {
		r    *Request
		want bool
	}{{a, true}, {b, false}, {c, false}, {d, true}} {
		if got := l.acquire(q.r); got != q.want {
			t.Fatalf("[%d, %d): %t", q.r.st.first, q.r.st.end, got)
		}
	}
	if got := l.release(d); len(got) != 0 {
		t.Fatal("c passed b, which came first")
	}
	if got := l.release(a); !slices.Equal(got, []*Request{b}) {
		t.Fatalf("%d granted after a", len(got))
	}
	if got := l.release(b); !slices.Equal(got, []*Request{c}) {
		t.Fatalf("%d granted after b", len(got))
	}
	if got := l.release(c); len(got) != 0 || len(l.held)+len(l.waiting) != 0 {
		t.Fatal("something is left")
	}
}

// TestRangeLockConcurrent: goroutines that hold a range are alone in it.
func TestRangeLockConcurrent(t *testing.T) {
	var l rangeLock
	var inside [16]atomic.Int32
	var mu sync.Mutex
	wake := map[*Request]chan struct{}{}
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(g, 5))
			for range 500 {
				first := r.Uint64N(12)
				q, ch := rangeRequest(first, first+1+r.Uint64N(4)), make(chan struct{}, 1)
				mu.Lock()
				wake[q] = ch
				mu.Unlock()
				if !l.acquire(q) {
					<-ch
				}
				for c := q.st.first; c < q.st.end; c++ {
					if inside[c].Add(1) != 1 {
						t.Errorf("cluster %d is held twice", c)
					}
				}
				for c := q.st.first; c < q.st.end; c++ {
					inside[c].Add(-1)
				}
				granted := l.release(q)
				mu.Lock()
				delete(wake, q)
				for _, w := range granted {
					wake[w] <- struct{}{}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(l.held)+len(l.waiting)+len(wake) != 0 {
		t.Fatalf("%d held, %d waiting at the end", len(l.held), len(l.waiting))
	}
}
