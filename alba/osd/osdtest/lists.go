package osdtest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
)

// pages lists by pages of limit keys, and checks the order and the ends.
func (s suite) pages(t *testing.T, prefix string, after []byte, limit int) []string {
	t.Helper()
	var keys []string
	for {
		entries, err := s.List(t.Context(), []byte(prefix), after, limit, osd.High)
		must(t, "list", err)
		for _, e := range entries {
			if after != nil && bytes.Compare(e.Key, after) <= 0 {
				t.Fatalf("list %q: %q after %q", prefix, e.Key, after)
			}
			after = e.Key
			keys = append(keys, string(e.Key))
		}
		if len(entries) < limit || limit <= 0 {
			return keys
		}
		if len(entries) > limit {
			t.Fatalf("list: %d keys with limit %d", len(entries), limit)
		}
	}
}

// D4
func list(t *testing.T, s suite) {
	keys := []string{
		"\x00", "a", "a\x00", "a\x00b", "a/1", "a/10", "a/2", "a\xff", "a\xff\xff", "a\xff\xffz", "b", "b/", "b/c", "\xff", "\xff\xff",
	}
	if got := s.pages(t, "", nil, 3); len(got) != 0 {
		t.Fatalf("an empty device lists %q", got)
	}
	var updates []osd.Update
	for i, key := range keys {
		updates = append(updates, osd.Set([]byte(key), Data(uint64(i), i*3000)))
	}
	slices.Reverse(updates)
	s.apply(t, updates...)
	slices.Sort(keys)
	for _, limit := range []int{0, -1, 1, 2, 3, 4, len(keys), len(keys) + 1, osd.MaxListKeys + 1} {
		for _, prefix := range []string{"", "a", "a/", "a\xff", "a\xff\xff", "b", "c", "\xff", "\x00", "b/cd"} {
			var want []string
			for _, key := range keys {
				if bytes.HasPrefix([]byte(key), []byte(prefix)) {
					want = append(want, key)
				}
			}
			if got := s.pages(t, prefix, nil, limit); !slices.Equal(got, want) {
				t.Fatalf("list %q by %d: %q, want %q", prefix, limit, got, want)
			}
		}
	}
	for _, c := range []struct{ prefix, after, first string }{
		{"", "a", "a\x00"}, {"", "a/1x", "a/2"}, {"a/", "a", "a/1"}, {"a/", "a/2", ""}, {"a/", "b", ""},
		{"b", "a", "b"}, {"b", "", "b"}, {"", "\xff\xff", ""}, {"", "", "\x00"}, {"a", "\x00", "a"},
	} {
		got, err := s.List(t.Context(), []byte(c.prefix), []byte(c.after), 1, osd.Low)
		must(t, "list", err)
		if c.first == "" && len(got) != 0 || c.first != "" && (len(got) != 1 || string(got[0].Key) != c.first) {
			t.Fatalf("list %q after %q: %+v, want %q", c.prefix, c.after, got, c.first)
		}
	}
	s.apply(t, osd.Delete([]byte("a/10")), osd.Delete([]byte("b")))
	if got := s.pages(t, "a/", nil, 2); !slices.Equal(got, []string{"a/1", "a/2"}) {
		t.Fatalf("after a delete: %q", got)
	}
}

// D4: keys that stay are in every listing, whatever happens around them.
func listWhileChanging(t *testing.T, s suite) {
	const stay, rounds = 50, 60
	var updates []osd.Update
	for i := range stay {
		updates = append(updates, osd.Set(fmt.Appendf(nil, "k%03d", i*10), nil))
	}
	s.apply(t, updates...)
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for w := range errs {
		wg.Go(func() {
			for i := range rounds {
				key := fmt.Appendf(nil, "k%03d", (i*7+w)%(stay*10)/10*10+1+w)
				err := s.Apply(t.Context(), nil, []osd.Update{osd.Set(key, nil)}, osd.High)
				if i%2 == 0 {
					err = errors.Join(err, s.Apply(t.Context(), nil, []osd.Update{osd.Delete(key)}, osd.High))
				}
				errs[w] = errors.Join(errs[w], err)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		seen := 0
		for _, key := range s.pages(t, "k", nil, 7) {
			if key[len(key)-1] == '0' {
				seen++
			}
		}
		if seen != stay {
			<-done
			t.Fatalf("%d of %d keys listed", seen, stay)
		}
	}
	must(t, "writers", errors.Join(errs...))
}

// validation calls Validate until the end.
func (s suite) validation(t *testing.T, prefix string, limit int, budget int64) (sum osd.Validation, calls int) {
	t.Helper()
	var after []byte
	for {
		v, err := s.Validate(t.Context(), []byte(prefix), after, limit, budget)
		must(t, "validate", err)
		sum.Keys += v.Keys
		sum.Bytes += v.Bytes
		sum.Bad = append(sum.Bad, v.Bad...)
		calls++
		if v.Next == nil {
			return sum, calls
		}
		if v.Keys < 1 || after != nil && bytes.Compare(v.Next, after) <= 0 || limit > 0 && v.Keys > limit {
			t.Fatalf("validate after %q: %+v", after, v)
		}
		after = v.Next
	}
}

func validate(t *testing.T, s suite) {
	if v, err := s.Validate(t.Context(), nil, nil, 0, 1<<30); err != nil || v.Keys != 0 || v.Next != nil {
		t.Fatalf("validate nothing: %+v, %v", v, err)
	}
	total := int64(0)
	for i, n := range sizes {
		s.set(t, fmt.Sprintf("v/%02d", i), Data(uint64(i), n))
		total += int64(n)
	}
	s.set(t, "w", Data(1, 77))
	for _, c := range []struct {
		limit    int
		budget   int64
		callsMin int
	}{{0, 1 << 40, 1}, {1, 1 << 40, len(sizes)}, {5, 1 << 40, 3}, {0, 0, len(sizes)}, {0, 300000, 3}} {
		sum, calls := s.validation(t, "v/", c.limit, c.budget)
		if sum.Keys != len(sizes) || sum.Bytes != total || len(sum.Bad) != 0 || calls < c.callsMin {
			t.Fatalf("validate %+v: %+v in %d calls", c, sum, calls)
		}
	}
	if sum, _ := s.validation(t, "", 0, 1<<40); sum.Keys != len(sizes)+1 {
		t.Fatalf("validate all: %+v", sum)
	}
}

// D3
func damage(t *testing.T, s suite) {
	if s.o.Corrupt == nil {
		t.Skip("the device cannot be damaged")
	}
	n := 3*osd.Block + 5000
	data, off := Data(1, n), int64(osd.Block+70)
	s.set(t, "bad", data)
	s.set(t, "good", data)
	s.o.Corrupt(t, s.OSD, []byte("bad"), off)
	_, err := s.Get(t.Context(), [][]byte{[]byte("bad")}, n, osd.High)
	mustBe(t, "get", err, osd.ErrCorrupt)
	for _, r := range []struct {
		off, n int
		bad    bool
	}{
		{0, osd.Block, false}, {2 * osd.Block, n - 2*osd.Block, false}, {osd.Block - 1, 1, false},
		{osd.Block, 1, true}, {2*osd.Block - 1, 1, true}, {0, n, true}, {int(off), 1, true}, {0, osd.Block + 1, true},
	} {
		p := make([]byte, r.n)
		err := s.Read(t.Context(), []byte("bad"), int64(r.off), p, osd.High)
		if r.bad {
			mustBe(t, fmt.Sprint("read ", r), err, osd.ErrCorrupt)
			continue
		}
		must(t, fmt.Sprint("read ", r), err)
		if !bytes.Equal(p, data[r.off:r.off+r.n]) {
			t.Fatalf("read %v: wrong bytes", r)
		}
	}
	s.mustHold(t, "good", data)
	sum, _ := s.validation(t, "", 1, 1<<30)
	if sum.Keys != 2 || len(sum.Bad) != 1 || string(sum.Bad[0]) != "bad" {
		t.Fatalf("validate: %+v", sum)
	}
	st, err := s.Stats(t.Context())
	must(t, "stats", err)
	if st.Corrupt == 0 {
		t.Fatal("damage is not counted")
	}
	s.set(t, "bad", data)
	s.mustHold(t, "bad", data)
}
