package fragment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"reflect"
	"sync"
	"testing"
)

var (
	testCodes        = [][2]int{{1, 2}, {2, 1}, {2, 2}, {4, 2}, {5, 4}, {8, 4}, {16, 4}}
	testSizes        = []int{1, 63, 64, 4095, 65536, 65537, 1 << 20, 4<<20 + 1}
	testCompressions = []Compression{None, Snappy, S2, Zstd, Bzip2}
)

// noise fills p from a seed; it must not change, golden files are made of it.
func noise(p []byte, seed uint64) {
	var w [8]byte
	for i := 0; i < len(p); i += 8 {
		seed += 0x9e3779b97f4a7c15
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(w[:], z^z>>31)
		copy(p[i:], w[:])
	}
}

// text fills p with what compresses; it must not change either.
func text(p []byte, seed uint64) {
	rnd := make([]byte, len(p)/16+1)
	noise(rnd, seed)
	for i := 0; i < len(p); i += 16 {
		copy(p[i:], fmt.Sprintf("record %08d;", int(rnd[i/16])*i))
	}
}

// mixture returns n bytes, in turn a piece of text, zeros and noise.
func mixture(n int) []byte {
	base := mixed()
	p := make([]byte, 0, n)
	for len(p) < n {
		p = append(p, base[:min(len(base), n-len(p))]...)
	}
	return p
}

var mixed = sync.OnceValue(func() []byte {
	p := make([]byte, 6*PieceBytes)
	for i := 0; i < len(p); i += PieceBytes {
		piece := p[i:][:PieceBytes]
		switch i / PieceBytes % 3 {
		case 0:
			text(piece, uint64(i))
		case 2:
			noise(piece, uint64(i))
		}
	}
	return p
})

func mustCode(t testing.TB, k, m int) *Code {
	t.Helper()
	c, err := NewCode(k, m)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustKey(t testing.TB, seed byte) *Key {
	t.Helper()
	k, err := NewKey(bytes.Repeat([]byte{seed}, KeyBytes))
	if err != nil {
		t.Fatal(err)
	}
	return &k
}

func mustPack(t testing.TB, id ID, shard []byte, comp Compression, key *Key) ([]byte, Index) {
	t.Helper()
	return mustPackIn(t, Piece64K, id, shard, comp, key)
}

func mustPackIn(t testing.TB, size PieceSize, id ID, shard []byte, comp Compression, key *Key) ([]byte, Index) {
	t.Helper()
	stored, x, err := Pack(nil, id, shard, comp, size, key)
	if err != nil {
		t.Fatal(err)
	}
	return stored, x
}

var testID = ID{Object: [16]byte{1, 2, 3, 15: 9}, Chunk: 7, Index: 3, Version: 2}

// TestChunkRoundTrip goes from a chunk to stored bytes and back, with m fragments lost.
func TestChunkRoundTrip(t *testing.T) {
	key := mustKey(t, 5)
	for ci, km := range testCodes {
		c := mustCode(t, km[0], km[1])
		for si, size := range testSizes {
			comp := testCompressions[(ci+si)%len(testCompressions)]
			if testing.Short() && size >= PieceBytes && comp != None {
				comp = S2 // the others are slow
			}
			for _, k := range []*Key{nil, key} {
				t.Run(fmt.Sprintf("%v/%d/%v/%v", c, size, comp, k != nil), func(t *testing.T) { roundTrip(t, c, size, comp, k) })
			}
		}
	}
}

func roundTrip(t *testing.T, c *Code, size int, comp Compression, key *Key) {
	chunk := mixture(size)
	stripe, err := c.Split(chunk, Piece64K)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := c.Verify(stripe.Shards); !ok || err != nil {
		t.Fatalf("verify: %v, %v", ok, err)
	}
	got := make([][]byte, c.Total())
	for i, shard := range stripe.Shards {
		if len(shard) != c.ShardBytes(size) || len(shard)%64 != 0 {
			t.Fatalf("shard of %d bytes", len(shard))
		}
		if i%2 == 0 && i/2 < c.Total()-c.Data() {
			continue // lost: data and parity mixed
		}
		id := ID{Object: testID.Object, Index: uint8(i % c.Distinct())}
		stored, x := mustPack(t, id, shard, comp, key)
		if x.CRC() != crcOf(stored) || x.StoredBytes() != int64(len(stored)) {
			t.Fatalf("crc %x, %d bytes; want %x, %d", x.CRC(), x.StoredBytes(), crcOf(stored), len(stored))
		}
		if len(stored) > len(shard)+x.Pieces()*tagBytes {
			t.Fatalf("%d bytes became %d", len(shard), len(stored))
		}
		got[i] = make([]byte, len(shard))
		if err := Unpack(got[i], id, x, 0, x.Pieces(), stored, key); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Reconstruct(got, nil); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if !bytes.Equal(got[i], stripe.Shards[i]) {
			t.Fatalf("shard %d differs", i)
		}
	}
	back := make([]byte, size)
	if err := c.Join(back, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back, chunk) {
		t.Fatal("chunk differs")
	}
	stripe.Release()
	stripe.Release() // harmless
}

// TestErasures loses every set of shards, and wants all of them, or one.
func TestErasures(t *testing.T) {
	for _, km := range testCodes {
		c := mustCode(t, km[0], km[1])
		if testing.Short() && c.Total() > 9 {
			continue
		}
		chunk := make([]byte, 64*c.Data()-5)
		noise(chunk, 1)
		stripe, err := c.Split(chunk, Piece64K)
		if err != nil {
			t.Fatal(err)
		}
		check := func(lost uint64, want []bool) {
			t.Helper()
			shards := make([][]byte, c.Total())
			for i := range shards {
				if lost>>i&1 == 0 {
					shards[i] = stripe.Shards[i]
				} else if i%2 == 0 {
					shards[i] = make([]byte, 0, 128) // to be filled in place
				}
			}
			place := append([][]byte(nil), shards...)
			err := c.Reconstruct(shards, want)
			if bits.OnesCount64(lost) > c.Total()-c.Data() {
				if !errors.Is(err, ErrTooFew) {
					t.Fatalf("%v without %b: %v", c, lost, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v without %b: %v", c, lost, err)
			}
			for i := range shards {
				switch {
				case lost>>i&1 == 1 && want != nil && !want[i]:
					if len(shards[i]) != 0 {
						t.Fatalf("%v without %b: shard %d is there", c, lost, i)
					}
				case !bytes.Equal(shards[i], stripe.Shards[i]):
					t.Fatalf("%v without %b: shard %d differs", c, lost, i)
				case cap(place[i]) > 0 && &place[i][:1][0] != &shards[i][0]:
					t.Fatalf("%v without %b: shard %d is elsewhere", c, lost, i)
				}
			}
		}
		for lost := uint64(1); lost < 1<<c.Total(); lost++ {
			n := bits.OnesCount64(lost)
			if n > c.Total()-c.Data()+1 || n > c.Total()-c.Data() && c.Total() > 12 {
				continue
			}
			check(lost, nil)
			for i := 0; i < c.Total() && c.Total() <= 9; i++ {
				if lost>>i&1 == 1 {
					want := make([]bool, c.Total())
					want[i] = true
					check(lost, want)
				}
			}
		}
	}
}

// TestReconstructRange rebuilds one piece from the same piece of others (F6).
func TestReconstructRange(t *testing.T) {
	c := mustCode(t, 4, 2)
	chunk := mixture(1 << 20)
	stripe, err := c.Split(chunk, Piece64K)
	if err != nil {
		t.Fatal(err)
	}
	from, to := 3*PieceBytes, 4*PieceBytes
	shards := make([][]byte, 6)
	for _, i := range []int{0, 2, 4, 5} {
		shards[i] = stripe.Shards[i][from:to]
	}
	if err := c.Reconstruct(shards, []bool{false, true, false, false, false, false}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(shards[1], stripe.Shards[1][from:to]) {
		t.Fatal("piece differs")
	}
}

func TestSplitAliases(t *testing.T) {
	c := mustCode(t, 4, 2)
	chunk := mixture(4<<10 - 1)
	stripe, err := c.Split(chunk, Piece64K)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if &stripe.Shards[i][0] != &chunk[i<<10] {
			t.Errorf("shard %d is a copy", i)
		}
	}
	if chunk = mixture(1 << 10); len(chunk) == 0 {
		t.Fatal()
	}
	c = mustCode(t, 1, 2)
	if stripe, err = c.Split(chunk, Piece64K); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if &stripe.Shards[i][0] != &chunk[0] {
			t.Errorf("copy %d is one", i)
		}
	}
}

// TestStripeReuse: what a stripe had before does not show.
func TestStripeReuse(t *testing.T) {
	c := mustCode(t, 3, 2)
	for i := range 200 {
		size := 1 + i*37%3000
		chunk := make([]byte, size)
		noise(chunk, uint64(i))
		s, err := c.Split(chunk, Piece64K)
		if err != nil {
			t.Fatal(err)
		}
		back := make([]byte, size)
		if err := c.Join(back, s.Shards); err != nil || !bytes.Equal(back, chunk) {
			t.Fatalf("size %d: %v", size, err)
		}
		for _, p := range s.Shards[2][max(0, size-2*c.ShardBytes(size)):] {
			if p != 0 {
				t.Fatalf("size %d: padding is not zero", size)
			}
		}
		if ok, err := c.Verify(s.Shards); !ok || err != nil {
			t.Fatal(ok, err)
		}
		s.Release()
	}
}

func TestCodeLimits(t *testing.T) {
	for _, km := range [][2]int{{0, 1}, {-1, 2}, {33, 1}, {1, -1}, {1, 17}} {
		if _, err := NewCode(km[0], km[1]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", km, err)
		}
	}
	c := mustCode(t, 4, 2)
	if c2 := mustCode(t, 4, 2); c2 != c {
		t.Error("not shared")
	}
	if _, err := c.Split(nil, Piece64K); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	a := make([]byte, 64)
	for name, shards := range map[string][][]byte{
		"none":    {nil, nil, nil, nil, nil, nil},
		"five":    {a, a, a, a, a},
		"unequal": {a, a, a, a[:63], nil, a},
	} {
		if err := c.Reconstruct(shards, nil); !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooFew) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Reconstruct([][]byte{a, a, a, a, nil, nil}, []bool{true}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, err := c.Verify([][]byte{a, a, a, a, a, nil}); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	for _, km := range [][2]int{{1, 2}, {4, 2}} { // damage is seen
		c := mustCode(t, km[0], km[1])
		s, err := c.Split(mixture(256), Piece64K)
		if err != nil {
			t.Fatal(err)
		}
		s.Shards[2] = bytes.Clone(s.Shards[2])
		s.Shards[2][5] ^= 1
		if ok, err := c.Verify(s.Shards); ok || err != nil {
			t.Errorf("%v: %v %v", c, ok, err)
		}
	}
	for k := 1; k <= MaxData; k++ { // all codes with their extremes
		for _, m := range []int{0, 1, MaxParity} {
			c := mustCode(t, k, m)
			s, err := c.Split(mixture(k*70-1), Piece64K)
			if err != nil {
				t.Fatal(err)
			}
			shards := append([][]byte(nil), s.Shards...)
			for i := range m {
				shards[i*7%c.Total()] = nil
			}
			if err := c.Reconstruct(shards, nil); err != nil {
				t.Fatal(c, err)
			}
			for i := range shards {
				if !bytes.Equal(shards[i], s.Shards[i]) {
					t.Fatal(c, i)
				}
			}
		}
	}
}

// TestStripe compares what Split knows of a chunk with what is computed anew.
func TestStripe(t *testing.T) {
	for _, km := range [][2]int{{1, 2}, {2, 0}, {4, 2}, {5, 3}} {
		for _, n := range []int{1, 63, 64, 1000, PieceBytes, 5*PieceBytes - 1, 5 * PieceBytes, 9*PieceBytes + 17} {
			c := mustCode(t, km[0], km[1])
			chunk := make([]byte, n)
			noise(chunk, uint64(n))
			size := PieceSize(n % 3)
			s, err := c.Split(chunk, size)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.CRC(); got != crcOf(chunk) {
				t.Errorf("%v, %d bytes: crc %08x, should be %08x", c, n, got, crcOf(chunk))
			}
			for i, shard := range s.Shards {
				for _, comp := range []Compression{None, S2} {
					stored, x, err := s.Pack(nil, testID, i, comp, nil)
					if err != nil {
						t.Fatal(err)
					}
					want, y := mustPackIn(t, size, testID, shard, comp, nil)
					if !bytes.Equal(stored, want) || !reflect.DeepEqual(x, y) {
						t.Errorf("%v, %d bytes: shard %d, %v: packed differently", c, n, i, comp)
					}
				}
			}
			s.Release()
		}
	}
}
