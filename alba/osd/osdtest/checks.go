package osdtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
)

// sizes are values on both sides of every border that a device may have: none, a
// sector, a page, inline or not, a block of checksums, a megabyte.
var sizes = []int{0, 1, 511, 4095, 4096, 16383, 16384, 16385, 65535, 65536, 65537, 200001, 1 << 20, 1<<20 + 1}

func roundTrip(t *testing.T, s suite) {
	s.mustLack(t, "nothing")
	for i, n := range sizes {
		s.set(t, fmt.Sprintf("k%02d", i), Data(uint64(i), n))
	}
	for i, n := range sizes {
		s.mustHold(t, fmt.Sprintf("k%02d", i), Data(uint64(i), n))
	}
	s.mustLack(t, "k")
	s.mustLack(t, "k000")
	for _, key := range []string{"\x00", "\xff\xff\xff", "a\x00b", strings.Repeat("x", osd.MaxKeyBytes)} {
		s.set(t, key, []byte(key))
		s.mustHold(t, key, []byte(key))
	}
}

func overwrite(t *testing.T, s suite) {
	for i, n := range []int{10, 100000, 70000, 0, 16384, 3, 100000, 100000} {
		s.set(t, "k", Data(uint64(i), n))
		s.mustHold(t, "k", Data(uint64(i), n))
	}
}

func deletes(t *testing.T, s suite) {
	s.apply(t, osd.Delete([]byte("never")))
	for i, n := range []int{10, 100000, 0} {
		s.set(t, "k", Data(uint64(i), n))
		s.set(t, "other", Data(9, 20000))
		for range 2 {
			s.apply(t, osd.Delete([]byte("k")))
			s.mustLack(t, "k")
		}
	}
	s.mustHold(t, "other", Data(9, 20000))
}

func big(t *testing.T, s suite) {
	data := Data(1, bigBytes)
	s.set(t, "big", data)
	s.mustHold(t, "big", data)
	s.set(t, "big", data[1:])
	s.mustHold(t, "big", data[1:])
	s.apply(t, osd.Delete([]byte("big")))
	s.mustLack(t, "big")
}

// One Apply changes many keys, each once.
func several(t *testing.T, s suite) {
	s.set(t, "old", Data(1, 30000))
	updates := []osd.Update{osd.Delete([]byte("old")), osd.Delete([]byte("absent"))}
	for i, n := range sizes {
		updates = append(updates, osd.Set(fmt.Appendf(nil, "k%02d", i), Data(uint64(i), n)))
	}
	before := s.applies(t)
	s.apply(t, updates...)
	if after := s.applies(t); after <= before {
		t.Fatalf("applies went from %d to %d", before, after)
	}
	s.mustLack(t, "old")
	for i, n := range sizes {
		s.mustHold(t, fmt.Sprintf("k%02d", i), Data(uint64(i), n))
	}
	var many []osd.Update
	for i := range osd.MaxApplyOps {
		many = append(many, osd.Set(fmt.Appendf(nil, "m%05d", i), []byte{byte(i)}))
	}
	s.apply(t, many...)
	entries, err := s.List(t.Context(), []byte("m"), nil, 0, osd.High)
	must(t, "list", err)
	if len(entries) != osd.MaxApplyOps {
		t.Fatalf("%d keys, want %d", len(entries), osd.MaxApplyOps)
	}
}

func asserts(t *testing.T, s suite) {
	large := Data(7, 100000)
	s.set(t, "a", []byte("one"))
	s.set(t, "empty", nil)
	s.set(t, "limit", large[:osd.MaxAssertBytes])
	s.set(t, "large", large)
	is := func(key string, value []byte) osd.Assert { return osd.Assert{Key: []byte(key), Value: value} }
	for i, c := range []struct {
		asserts []osd.Assert
		bad     string // the key whose assert fails
	}{
		{nil, ""},
		{[]osd.Assert{is("a", []byte("one"))}, ""},
		{[]osd.Assert{is("a", []byte("two"))}, "a"},
		{[]osd.Assert{is("a", []byte("on"))}, "a"},
		{[]osd.Assert{is("a", []byte{})}, "a"},
		{[]osd.Assert{is("a", nil)}, "a"},
		{[]osd.Assert{is("none", nil)}, ""},
		{[]osd.Assert{is("none", []byte{})}, "none"},
		{[]osd.Assert{is("none", []byte("x"))}, "none"},
		{[]osd.Assert{is("empty", []byte{})}, ""},
		{[]osd.Assert{is("empty", nil)}, "empty"},
		{[]osd.Assert{is("limit", large[:osd.MaxAssertBytes])}, ""},
		{[]osd.Assert{is("large", large[:osd.MaxAssertBytes])}, "large"},
		{[]osd.Assert{is("large", nil)}, "large"},
		{[]osd.Assert{is("a", []byte("one")), is("none", nil), is("empty", nil)}, "empty"},
	} {
		before := s.applies(t)
		key := fmt.Sprintf("out%d", i)
		err := s.Apply(t.Context(), c.asserts, []osd.Update{osd.Set([]byte(key), large), osd.Delete([]byte("gone"))}, osd.High)
		if c.bad == "" {
			must(t, fmt.Sprint("apply ", i), err)
			s.mustHold(t, key, large)
			s.apply(t, osd.Delete([]byte(key)))
			continue
		}
		mustBe(t, fmt.Sprint("apply ", i), err, osd.ErrAssert)
		var ae *osd.AssertError
		if !errors.As(err, &ae) || string(ae.Key) != c.bad {
			t.Fatalf("apply %d: %v does not name %q", i, err, c.bad)
		}
		s.mustLack(t, key)
		if after := s.applies(t); after != before {
			t.Fatalf("apply %d was refused, and applies went from %d to %d", i, before, after)
		}
	}
	// Asserts alone, and a key in an assert and an update.
	must(t, "asserts only", s.Apply(t.Context(), []osd.Assert{is("a", []byte("one"))}, nil, osd.High))
	mustBe(t, "asserts only", s.Apply(t.Context(), []osd.Assert{is("a", nil)}, nil, osd.High), osd.ErrAssert)
	must(t, "same key", s.Apply(t.Context(), []osd.Assert{is("a", []byte("one"))}, []osd.Update{osd.Set([]byte("a"), []byte("two"))}, osd.High))
	s.mustHold(t, "a", []byte("two"))
	must(t, "nothing", s.Apply(t.Context(), nil, nil, osd.High))
}

// Of several that assert the same absence, one wins; the losers change nothing.
func assertRace(t *testing.T, s suite) {
	const racers = 8
	for round := range 10 {
		key := fmt.Appendf(nil, "race%d", round)
		n := []int{10, 50000}[round%2]
		errs := make([]error, racers)
		var wg sync.WaitGroup
		for i := range racers {
			wg.Go(func() {
				errs[i] = s.Apply(t.Context(), []osd.Assert{{Key: key}}, []osd.Update{
					osd.Set(key, Data(uint64(i), n)), osd.Set(fmt.Appendf(nil, "by%d-%d", round, i), nil),
				}, osd.High)
			})
		}
		wg.Wait()
		won := -1
		for i, err := range errs {
			switch {
			case err == nil && won >= 0:
				t.Fatalf("round %d: %d and %d won", round, won, i)
			case err == nil:
				won = i
			default:
				mustBe(t, "loser", err, osd.ErrAssert)
				s.mustLack(t, fmt.Sprintf("by%d-%d", round, i))
			}
		}
		if won < 0 {
			t.Fatalf("round %d: nobody won", round)
		}
		s.mustHold(t, string(key), Data(uint64(won), n))
	}
}

// Counting by compare-and-swap loses no count.
func compareAndSwap(t *testing.T, s suite) {
	const workers, each = 6, 20
	key := []byte("count")
	s.set(t, "count", make([]byte, 8))
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				old, err := s.Get(t.Context(), [][]byte{key}, 8, osd.High)
				if err != nil {
					errs[w] = err
					return
				}
				next := binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(old[0].Data)+1)
				err = s.Apply(t.Context(), []osd.Assert{{Key: key, Value: old[0].Data}}, []osd.Update{osd.Set(key, next)}, osd.High)
				switch {
				case err == nil:
					done++
				case !errors.Is(err, osd.ErrAssert):
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	must(t, "count", errors.Join(errs...))
	s.mustHold(t, "count", binary.BigEndian.AppendUint64(nil, workers*each))
}

// generation returns updates that write one generation to all keys, small and
// large ones.
func generation(keys [][]byte, g uint64) []osd.Update {
	var updates []osd.Update
	for i, key := range keys {
		updates = append(updates, osd.Set(key, Data(g, []int{100, 40000, 9000, 130000}[i%4])))
	}
	return updates
}

// Readers see all of an Apply or nothing of it, whichever way they look.
func atomicReads(t *testing.T, s suite) {
	const rounds, readers = 40, 3
	keys := [][]byte{[]byte("g/a"), []byte("g/b"), []byte("g/c"), []byte("g/d")}
	known := map[uint32]uint64{} // CRC of any value → generation
	for g := range uint64(rounds) {
		for _, u := range generation(keys, g) {
			known[u.CRC] = g
		}
	}
	s.apply(t, generation(keys, 0)...)
	stop := make(chan struct{})
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			for errs[r] == nil {
				select {
				case <-stop:
					return
				default:
				}
				errs[r] = s.oneGeneration(t.Context(), keys, known)
			}
		})
	}
	for g := range uint64(rounds) {
		s.apply(t, generation(keys, g)...)
	}
	close(stop)
	wg.Wait()
	must(t, "readers", errors.Join(errs...))
}

// oneGeneration reads all keys at once, by Get and by List.
func (s suite) oneGeneration(ctx context.Context, keys [][]byte, known map[uint32]uint64) error {
	values, err := s.Get(ctx, keys, 1<<20, osd.High)
	if err != nil {
		return err
	}
	for i, v := range values {
		g, ok := known[osd.CRC(v.Data)]
		if !ok || v.CRC != osd.CRC(v.Data) {
			return fmt.Errorf("get: value of %q was never written", keys[i])
		}
		if g != known[values[0].CRC] {
			return fmt.Errorf("get: generations %d and %d at once", known[values[0].CRC], g)
		}
	}
	entries, err := s.List(ctx, []byte("g/"), nil, 0, osd.High)
	if err != nil {
		return err
	}
	if len(entries) != len(keys) {
		return fmt.Errorf("list: %d keys", len(entries))
	}
	for _, e := range entries {
		if known[e.CRC] != known[entries[0].CRC] {
			return fmt.Errorf("list: generations %d and %d at once", known[entries[0].CRC], known[e.CRC])
		}
	}
	return nil
}

// A value that is replaced or deleted while it is read is returned whole.
func overwriteUnderReaders(t *testing.T, s suite) {
	const n, readers = 300000, 4
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	key := []byte("k")
	var known sync.Map
	stop := make(chan struct{})
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			for errs[r] == nil {
				select {
				case <-stop:
					return
				default:
				}
				values, err := s.Get(t.Context(), [][]byte{key}, n, osd.Priority(r%2))
				if err == nil && values[0].Data != nil {
					if _, ok := known.Load(osd.CRC(values[0].Data)); !ok {
						err = errors.New("a value that was never written")
					}
				}
				errs[r] = err
			}
		})
	}
	for i := range rounds {
		// Another value takes the space that the last one left.
		u := osd.Set(key, Data(uint64(i), n))
		known.Store(u.CRC, true)
		s.apply(t, u)
		s.apply(t, osd.Set([]byte("other"), Data(uint64(i+1000), n)))
		if i%3 == 0 {
			s.apply(t, osd.Delete(key))
		}
	}
	close(stop)
	wg.Wait()
	must(t, "readers", errors.Join(errs...))
}

func ranges(t *testing.T, s suite) {
	for _, n := range []int{0, 10000, 200001, 2*osd.Block + 1, 3 << 20} {
		data := Data(1, n)
		s.set(t, "k", data)
		for _, r := range []struct{ off, n int }{
			{0, 0}, {0, 1}, {0, n}, {1, n - 1}, {n - 1, 1}, {n, 0}, {4095, 2}, {4096, 4096},
			{osd.Block - 1, 2}, {osd.Block, osd.Block}, {osd.Block, 1}, {osd.Block - 1, osd.Block + 2},
			{n - 70000, 70000}, {1<<20 - 5, 1<<20 + 10},
		} {
			p := make([]byte, max(0, r.n))
			err := s.Read(t.Context(), []byte("k"), int64(r.off), p, osd.High)
			q := make([]byte, len(p))
			if uerr := s.Read(t.Context(), []byte("k"), int64(r.off), q, osd.High|osd.Unverified); (err == nil) != (uerr == nil) || err == nil && !bytes.Equal(p, q) {
				t.Fatalf("read %v of %d: unverified it is another: %v, %v", r, n, err, uerr)
			}
			if r.off < 0 || r.off+len(p) > n {
				mustBe(t, fmt.Sprintf("read %v of %d", r, n), err, osd.ErrRange)
				continue
			}
			must(t, fmt.Sprintf("read %v of %d", r, n), err)
			if !bytes.Equal(p, data[r.off:r.off+len(p)]) {
				t.Fatalf("read %v of %d: wrong bytes", r, n)
			}
		}
		for _, r := range []struct {
			off int64
			n   int
		}{{0, n + 1}, {int64(n), 1}, {int64(n) + 1, 0}, {1 << 40, 4096}, {-1, 1}, {-1, 0}, {1<<63 - 1, 10}} {
			mustBe(t, fmt.Sprintf("read %v of %d", r, n), s.Read(t.Context(), []byte("k"), r.off, make([]byte, r.n), osd.High), osd.ErrRange)
		}
	}
	data, r := Data(1, 3<<20), rand.New(rand.NewPCG(1, 2))
	for range 50 {
		off := r.IntN(len(data))
		p := make([]byte, r.IntN(min(200000, len(data)-off)))
		must(t, "read", s.Read(t.Context(), []byte("k"), int64(off), p, osd.High|osd.Unverified*osd.Priority(off%2)))
		if !bytes.Equal(p, data[off:off+len(p)]) {
			t.Fatalf("wrong bytes at %d", off)
		}
	}
}

func getLimits(t *testing.T, s suite) {
	s.set(t, "small", Data(1, 100))
	s.set(t, "large", Data(2, 100000))
	s.set(t, "empty", nil)
	keys := [][]byte{[]byte("large"), []byte("none"), []byte("empty"), []byte("small"), []byte("large")}
	values, err := s.Get(t.Context(), keys, 100000, osd.High)
	must(t, "get", err)
	for i, n := range []int{100000, -1, 0, 100, 100000} {
		if len(values) != len(keys) || (values[i].Data == nil) != (n < 0) || len(values[i].Data) != max(0, n) {
			t.Fatalf("value %d has %d bytes, nil %v; want %d", i, len(values[i].Data), values[i].Data == nil, n)
		}
	}
	for _, limit := range []int{99999, 100, 0} {
		_, err := s.Get(t.Context(), keys, limit, osd.High)
		mustBe(t, fmt.Sprint("get with limit ", limit), err, osd.ErrInvalid)
	}
	values, err = s.Get(t.Context(), nil, 10, osd.High)
	if err != nil || len(values) != 0 {
		t.Fatalf("get of nothing: %d values, %v", len(values), err)
	}
	s.set(t, "big", Data(3, bigBytes))
	var many [][]byte
	for range osd.MaxValueBytes/bigBytes + 1 {
		many = append(many, []byte("big"))
	}
	_, err = s.Get(t.Context(), many, bigBytes, osd.High)
	mustBe(t, "get more than an answer holds", err, osd.ErrInvalid)
	many = nil
	for range osd.MaxListKeys + 1 {
		many = append(many, []byte("none"))
	}
	_, err = s.Get(t.Context(), many, 10, osd.High)
	mustBe(t, "get of too many", err, osd.ErrInvalid)
	values, err = s.Get(t.Context(), many[1:], 10, osd.High)
	if err != nil || len(values) != osd.MaxListKeys {
		t.Fatalf("get of many: %d values, %v", len(values), err)
	}
}

func wrongCRC(t *testing.T, s suite) {
	for i, n := range []int{0, 100, 100000} {
		before := s.applies(t)
		u := osd.Set([]byte("k"), Data(uint64(i), n))
		u.CRC ^= 1 << 7
		err := s.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("ok"), Data(1, 50000)), u}, osd.High)
		mustBe(t, "apply", err, osd.ErrChecksum)
		s.mustLack(t, "ok")
		s.mustLack(t, "k")
		if s.applies(t) != before {
			t.Fatal("a refused Apply was counted")
		}
	}
}

func invalid(t *testing.T, s suite) {
	long := bytes.Repeat([]byte("x"), osd.MaxKeyBytes+1)
	set := func(key string, n int) osd.Update { return osd.Set([]byte(key), make([]byte, n)) }
	many := make([]osd.Update, osd.MaxApplyOps+1)
	for i := range many {
		many[i] = set(fmt.Sprint("m", i), 0)
	}
	both := osd.Delete([]byte("k"))
	both.Value = []byte("x")
	for name, c := range map[string]struct {
		asserts []osd.Assert
		updates []osd.Update
	}{
		"no key":         {nil, []osd.Update{set("", 1)}},
		"long key":       {nil, []osd.Update{osd.Set(long, nil)}},
		"long assert":    {[]osd.Assert{{Key: long}}, nil},
		"twice":          {nil, []osd.Update{set("a", 1), osd.Delete([]byte("a"))}},
		"delete and set": {nil, []osd.Update{both}},
		"many":           {nil, many},
		"large value":    {nil, []osd.Update{set("a", osd.MaxValueBytes+1)}},
		"large assert":   {[]osd.Assert{{Key: []byte("a"), Value: make([]byte, osd.MaxAssertBytes+1)}}, nil},
		"large together": {nil, []osd.Update{set("a", osd.MaxApplyBytes/2), set("b", osd.MaxApplyBytes/2+1)}},
	} {
		mustBe(t, name, s.Apply(t.Context(), c.asserts, append(c.updates, set("good", 1)), osd.High), osd.ErrInvalid)
		s.mustLack(t, "good")
	}
	for _, key := range [][]byte{nil, {}, long} {
		_, err := s.Get(t.Context(), [][]byte{[]byte("a"), key}, 10, osd.High)
		mustBe(t, "get", err, osd.ErrInvalid)
		mustBe(t, "read", s.Read(t.Context(), key, 0, nil, osd.High), osd.ErrInvalid)
	}
}

// D7: buffers of arguments and results are the caller's.
func buffers(t *testing.T, s suite) {
	for i, n := range []int{1000, 100000} {
		key, value := fmt.Appendf(nil, "k%d", i), Data(uint64(i), n)
		assert := osd.Assert{Key: bytes.Clone(key)}
		must(t, "apply", s.Apply(t.Context(), []osd.Assert{assert}, []osd.Update{osd.Set(key, value)}, osd.High))
		clear(key)
		clear(value)
		clear(assert.Key)
		name := fmt.Sprint("k", i)
		s.mustHold(t, name, Data(uint64(i), n))
		values, err := s.Get(t.Context(), [][]byte{[]byte(name)}, n, osd.High)
		must(t, "get", err)
		clear(values[0].Data)
		entries, err := s.List(t.Context(), nil, nil, 0, osd.High)
		must(t, "list", err)
		for _, e := range entries {
			clear(e.Key)
		}
		s.mustHold(t, name, Data(uint64(i), n))
	}
}

func info(t *testing.T, s suite) {
	first, err := s.Info(t.Context())
	must(t, "info", err)
	if first.ID == "" || first.Run == "" || first.Full || first.Total <= 0 || first.Limit <= 0 || first.Limit > first.Total || first.Free <= 0 {
		t.Fatalf("info of an empty device: %+v", first)
	}
	last := first.Applies
	for i := range 20 {
		u := osd.Set([]byte("k"), Data(uint64(i), i*7000))
		if i%3 == 2 {
			u = osd.Delete([]byte("k"))
		}
		s.apply(t, u)
		if now := s.applies(t); now <= last {
			t.Fatalf("applies went from %d to %d with a change", last, now)
		} else {
			last = now
		}
	}
	s.set(t, "big", Data(1, bigBytes))
	second, err := s.Info(t.Context())
	must(t, "info", err)
	if second.ID != first.ID || second.Run != first.Run || second.Used < bigBytes {
		t.Fatalf("info %+v, then %+v", first, second)
	}
	_, err = s.Get(t.Context(), [][]byte{[]byte("big")}, bigBytes, osd.High)
	must(t, "get", err)
	st, err := s.Stats(t.Context())
	must(t, "stats", err)
	if st.Applies < 20 || st.Reads < 1 || st.WriteBytes < bigBytes || st.ReadBytes < bigBytes || st.Errors != 0 || st.Corrupt != 0 {
		t.Fatalf("stats %+v", st)
	}
}

// D5
func full(t *testing.T, s suite) {
	if s.o.SetFull == nil {
		t.Skip("the device cannot be made full")
	}
	s.set(t, "small", Data(1, 100))
	s.set(t, "large", Data(2, 100000))
	s.o.SetFull(t, s.OSD, true)
	for _, n := range []int{0, 100, 100000} {
		mustBe(t, "set", s.Apply(t.Context(), nil, []osd.Update{osd.Delete([]byte("small")), osd.Set([]byte("k"), Data(3, n))}, osd.High), osd.ErrFull)
	}
	i, err := s.Info(t.Context())
	if err != nil || !i.Full {
		t.Fatalf("info %+v, %v", i, err)
	}
	s.mustHold(t, "small", Data(1, 100))
	s.mustHold(t, "large", Data(2, 100000))
	s.apply(t, osd.Delete([]byte("large")))
	must(t, "asserts", s.Apply(t.Context(), []osd.Assert{{Key: []byte("large")}}, nil, osd.High))
	s.mustLack(t, "large")
	s.o.SetFull(t, s.OSD, false)
	s.set(t, "large", Data(2, 100000))
	s.mustHold(t, "large", Data(2, 100000))
}

// Much work of low priority leaves room for that of high, and is done too.
func priorities(t *testing.T, s suite) {
	const workers, rounds = 12, 15
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			prio := osd.Low
			if w%3 == 0 {
				prio = osd.High
			}
			key := fmt.Appendf(nil, "w%d", w)
			for i := range rounds {
				want := Data(uint64(w*rounds+i), 20000)
				err := s.Apply(t.Context(), nil, []osd.Update{osd.Set(key, want)}, prio)
				p := make([]byte, len(want))
				err = errors.Join(err, s.Read(t.Context(), key, 0, p, prio))
				_, lerr := s.List(t.Context(), key, nil, 1, prio)
				if err = errors.Join(err, lerr); err == nil && !bytes.Equal(p, want) {
					err = errors.New("wrong bytes")
				}
				if err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	must(t, "workers", errors.Join(errs...))
}

// everyCall makes each call of the interface once.
func (s suite) everyCall(ctx context.Context) map[string]error {
	key := []byte("k")
	_, ierr := s.Info(ctx)
	_, serr := s.Stats(ctx)
	_, gerr := s.Get(ctx, [][]byte{key}, 10, osd.High)
	_, lerr := s.List(ctx, nil, nil, 0, osd.Low)
	_, verr := s.Validate(ctx, nil, nil, 0, 0)
	return map[string]error{
		"info": ierr, "stats": serr, "get": gerr, "list": lerr, "validate": verr,
		"read":  s.Read(ctx, key, 0, make([]byte, 1), osd.Low),
		"apply": s.Apply(ctx, nil, []osd.Update{osd.Set(key, []byte("changed"))}, osd.High),
		"large": s.Apply(ctx, nil, []osd.Update{osd.Set(key, Data(1, 50000))}, osd.Low),
	}
}

func cancelled(t *testing.T, s suite) {
	s.set(t, "k", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for call, err := range s.everyCall(ctx) {
		mustBe(t, call, err, context.Canceled)
	}
	s.mustHold(t, "k", []byte("x"))
	for call, err := range s.everyCall(t.Context()) {
		must(t, call, err)
	}
}

func closed(t *testing.T, s suite) {
	s.set(t, "k", []byte("x"))
	for range 2 {
		must(t, "close", s.Close())
		for call, err := range s.everyCall(t.Context()) {
			mustBe(t, call, err, osd.ErrClosed)
		}
	}
}
