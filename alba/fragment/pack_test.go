package fragment

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/klauspost/compress/snappy"
)

// variants calls f for each compression with and without a key.
func variants(t *testing.T, f func(t *testing.T, comp Compression, key *Key)) {
	for _, comp := range testCompressions {
		for _, key := range []*Key{nil, mustKey(t, 5)} {
			t.Run(fmt.Sprintf("%v/%v", comp, key != nil), func(t *testing.T) { f(t, comp, key) })
		}
	}
}

func TestPartialUnpack(t *testing.T) {
	variants(t, func(t *testing.T, comp Compression, key *Key) {
		shard := mixture(3*PieceBytes + 100)
		stored, x := mustPack(t, testID, shard, comp, key)
		for first := range x.Pieces() {
			for count := 1; first+count <= x.Pieces(); count++ {
				off, n := x.Range(first, count)
				at, size := x.PlainRange(first, count)
				dst := make([]byte, size)
				if err := Unpack(dst, testID, x, first, count, bytes.Clone(stored[off:off+n]), key); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(dst, shard[at:at+size]) {
					t.Fatalf("pieces %d+%d differ", first, count)
				}
			}
		}
		if _, n := x.Range(1, 1); comp != None && key == nil && n != 0 {
			t.Errorf("zeros take %d bytes", n)
		}
		if _, n := x.Range(2, 1); n != PieceBytes && key == nil {
			t.Errorf("noise takes %d bytes", n)
		}
		if _, n := x.Range(0, 1); comp != None && n > PieceBytes/2 {
			t.Errorf("text takes %d bytes", n)
		}
	})
}

func TestPackDeterministic(t *testing.T) {
	variants(t, func(t *testing.T, comp Compression, key *Key) {
		shard := mixture(3*PieceBytes - 3)
		stored, x := mustPack(t, testID, shard, comp, key)
		dst := make([]byte, 3, PackBytes(len(shard), Piece64K))
		again, y, err := Pack(dst, testID, bytes.Clone(shard), comp, Piece64K, key)
		if err != nil || !bytes.Equal(again, stored) || fmt.Sprint(x) != fmt.Sprint(y) {
			t.Fatal("packed differently", err)
		}
		if !x.AsIs() && &again[0] != &dst[0] {
			t.Error("dst has the capacity and was not used")
		}
	})
}

func TestPackAsIs(t *testing.T) {
	shard := make([]byte, 2*PieceBytes)
	noise(shard, 1)
	for _, comp := range testCompressions {
		stored, x := mustPack(t, testID, shard, comp, nil)
		if &stored[0] != &shard[0] || !x.AsIs() {
			t.Errorf("%v: noise is not stored as it is", comp)
		}
		if err := Unpack(stored, testID, x, 0, 2, stored, nil); err != nil { // in place
			t.Error(err)
		}
	}
}

// TestDamage changes every stored byte (some, when short).
func TestDamage(t *testing.T) {
	variants(t, func(t *testing.T, comp Compression, key *Key) {
		shard := make([]byte, PieceBytes+300) // the second piece is raw
		text(shard[:PieceBytes], 3)
		noise(shard[PieceBytes:], 4)
		if comp == None {
			shard = shard[PieceBytes-500:]
		}
		stored, x := mustPack(t, testID, shard, comp, key)
		dst := make([]byte, len(shard))
		step := 1
		if testing.Short() {
			step = len(stored)/500 + 1
		}
		for i := 0; i < len(stored); i += step {
			stored[i] ^= 1 << (i % 8)
			err := Unpack(dst, testID, x, 0, x.Pieces(), stored, key)
			var c *CorruptError
			if !errors.As(err, &c) || !errors.Is(err, ErrCorrupt) || c.ID != testID || c.Piece < 0 {
				t.Fatalf("byte %d: %v", i, err)
			}
			if x.Verify(testID, 0, x.Pieces(), stored) == nil {
				t.Fatalf("byte %d: verified", i)
			}
			if key != nil { // and without the help of the crc
				y := x
				y.crcs = bytesCRCs(x, stored)
				if err := Unpack(dst, testID, y, 0, x.Pieces(), stored, key); !errors.Is(err, ErrAuth) || !errors.Is(err, ErrCorrupt) {
					t.Fatalf("byte %d, fitting crc: %v", i, err)
				}
			}
			stored[i] ^= 1 << (i % 8)
		}
		for _, n := range []int{0, 1, len(stored) - 1} {
			if err := Unpack(dst, testID, x, 0, x.Pieces(), stored[:n], key); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("cut to %d: %v", n, err)
			}
		}
		if err := Unpack(dst, testID, x, 0, x.Pieces(), append(bytes.Clone(stored), 0), key); !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if err := Unpack(dst, testID, x, 0, x.Pieces(), stored, key); err != nil {
			t.Fatal(err)
		}
	})
}

// bytesCRCs are the checksums that would make stored acceptable.
func bytesCRCs(x Index, stored []byte) []uint32 {
	crcs := make([]uint32, x.Pieces())
	for i := range crcs {
		crcs[i] = crcOf(stored[:x.storedLen(i)])
		stored = stored[x.storedLen(i):]
	}
	return crcs
}

// TestIdentity: an encrypted fragment is accepted as what it is only (F3).
func TestIdentity(t *testing.T) {
	key := mustKey(t, 5)
	for _, comp := range testCompressions {
		shard := make([]byte, 3*PieceBytes)
		for i := range 3 { // pieces of equal size
			noise(shard[i*PieceBytes:][:PieceBytes], uint64(i))
		}
		stored, x := mustPack(t, testID, shard, comp, key)
		dst := make([]byte, len(shard))
		refused := func(what string, id ID, x Index, stored []byte, k *Key) {
			t.Helper()
			if err := Unpack(dst, id, x, 0, x.Pieces(), stored, k); !errors.Is(err, ErrAuth) {
				t.Errorf("%v: %s: %v", comp, what, err)
			}
		}
		for what, change := range map[string]func(*ID){
			"object":  func(id *ID) { id.Object[15]++ },
			"chunk":   func(id *ID) { id.Chunk++ },
			"index":   func(id *ID) { id.Index++ },
			"version": func(id *ID) { id.Version++ },
		} {
			id := testID
			change(&id)
			refused(what, id, x, stored, key)
		}
		refused("key", testID, x, stored, mustKey(t, 6))
		n := PieceBytes + tagBytes
		swapped := append(append(bytes.Clone(stored[n:2*n]), stored[:n]...), stored[2*n:]...)
		y := x
		y.crcs = bytesCRCs(x, swapped)
		refused("swapped pieces", testID, y, swapped, key)
		y = x
		y.comp = (x.comp + 1) % 5
		refused("compression", testID, y, stored, key)
		for _, size := range []PieceSize{Piece16K, Piece4K} {
			if b, err := newBox(testID, Index{plain: x.plain, comp: comp, size: size}, key); err != nil {
				t.Fatal(err)
			} else if _, ok := b.open(nil, 0, stored[:n]); ok {
				t.Errorf("%v: a piece of 64 KiB was taken for one of %v", comp, size)
			}
		}
		y = x
		y.plain, y.crcs = 2*PieceBytes, x.crcs[:2]
		dst = dst[:2*PieceBytes]
		refused("shortened", testID, y, stored[:2*n], key)
		dst = dst[:3*PieceBytes]

		if err := Unpack(dst, testID, x, 0, 3, stored, nil); !errors.Is(err, ErrKey) {
			t.Error(err)
		}
		y = x
		y.encrypted = false
		y.comp = S2
		y.payloads = []uint32{uint32(n), uint32(n), uint32(n)}
		if err := Unpack(dst, testID, y, 0, 3, stored, key); !errors.Is(err, ErrKey) {
			t.Error("a fragment that claims to be in clear: ", err)
		}
		if err := x.Verify(testID, 0, 3, stored); err != nil {
			t.Error("verify needs no key: ", err)
		}
	}
}

// TestNonces: no two pieces of any two places are sealed with the same key and nonce.
func TestNonces(t *testing.T) {
	key := mustKey(t, 5)
	x := Index{plain: 300 * PieceBytes}
	seen := map[string]bool{}
	for _, chunk := range []uint32{0, 1, 256, 1 << 31} {
		for _, index := range []uint8{0, 1, 255} {
			for _, version := range []uint32{0, 1, 256, 1 << 31} {
				b, err := newBox(ID{Chunk: chunk, Index: index, Version: version}, x, key)
				if err != nil {
					t.Fatal(err)
				}
				for _, piece := range []int{0, 1, 255, 256, maxPieces - 1} {
					n := string(b.at(piece))
					if seen[n] {
						t.Fatalf("nonce %x twice", n)
					}
					seen[n] = true
				}
			}
		}
	}
	if maxPieces > 1<<24 {
		t.Fatal("pieces do not fit the nonce")
	}
}

func TestArguments(t *testing.T) {
	for _, shard := range [][]byte{nil, make([]byte, MaxShardBytes+1)} {
		if _, _, err := Pack(nil, testID, shard, None, Piece64K, nil); !errors.Is(err, ErrInvalid) {
			t.Error(err)
		}
	}
	if _, _, err := Pack(nil, testID, []byte{1}, 5, Piece64K, nil); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, _, err := Pack(nil, testID, []byte{1}, None, Piece4K+1, nil); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if _, _, err := Pack(nil, testID, []byte{1}, None, Piece64K, &Key{}); !errors.Is(err, ErrKey) {
		t.Error(err)
	}
	shard := mixture(2 * PieceBytes)
	stored, x := mustPack(t, testID, shard, None, nil)
	for _, c := range []struct{ first, count, dst int }{{0, 0, 0}, {-1, 1, 0}, {0, 3, 3 * PieceBytes}, {2, 1, 0}, {3, 0, 0}, {0, 2, 2*PieceBytes - 1}, {1, int(^uint(0) >> 1), 0}} {
		if err := Unpack(make([]byte, c.dst), testID, x, c.first, c.count, stored, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if err := Unpack(nil, testID, Index{}, 0, 0, nil, nil); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
}

// TestLimitShard packs the largest shard, compressed: nothing grows, offsets add up.
func TestLimitShard(t *testing.T) {
	if testing.Short() {
		t.Skip("64 MiB")
	}
	for _, size := range []PieceSize{Piece64K, Piece4K} {
		limitShard(t, size)
	}
}

func limitShard(t *testing.T, size PieceSize) {
	shard := mixture(MaxShardBytes)
	stored, x := mustPackIn(t, size, testID, shard, S2, mustKey(t, 1))
	if x.CRC() != crcOf(stored) {
		t.Error("crc")
	}
	dst := make([]byte, len(shard))
	if err := Unpack(dst, testID, x, 0, x.Pieces(), stored, mustKey(t, 1)); err != nil || !bytes.Equal(dst, shard) {
		t.Error(err)
	}
	b, _ := x.AppendBinary(nil)
	if len(b) > MaxIndexBytes {
		t.Errorf("index of %d bytes", len(b))
	}
}

// TestSnappyIsSnappy: a decoder that knows only snappy reads what Snappy wrote.
func TestSnappyIsSnappy(t *testing.T) {
	shard := mixture(PieceBytes)
	stored, _ := mustPack(t, testID, shard, Snappy, nil)
	got, err := snappy.DecodeStrict(nil, stored)
	if err != nil || !bytes.Equal(got, shard) {
		t.Fatal(err)
	}
}

func TestConcurrent(t *testing.T) {
	c := mustCode(t, 4, 2)
	key := mustKey(t, 9)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 10 {
				chunk := make([]byte, 50_000+g*1000+i)
				text(chunk, uint64(g*100+i))
				s, err := c.Split(chunk, Piece64K)
				if err != nil {
					t.Error(err)
					return
				}
				id := ID{Object: [16]byte{byte(g)}, Chunk: uint32(i)}
				comp := testCompressions[i%5]
				for j, shard := range s.Shards {
					id.Index = uint8(j)
					stored, x, err := Pack(nil, id, shard, comp, Piece64K, key)
					if err != nil {
						t.Error(err)
						return
					}
					dst := make([]byte, len(shard))
					if err := Unpack(dst, id, x, 0, x.Pieces(), stored, key); err != nil || !bytes.Equal(dst, shard) {
						t.Error("differs", err)
						return
					}
				}
				s.Release()
			}
		})
	}
	wg.Wait()
}

func FuzzUnpack(f *testing.F) {
	for _, comp := range testCompressions {
		for _, size := range []int{1, 100, PieceBytes} {
			stored, x, err := Pack(nil, testID, mixture(size), comp, Piece64K, nil)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(comp), uint32(x.PlainBytes()), stored)
		}
	}
	f.Add(uint8(Bzip2), uint32(10), []byte("BZh9\x17\x72\x45\x38\x50\x90\x00\x00\x00\x00"))
	f.Add(uint8(Snappy), uint32(10), []byte("\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, comp uint8, plain uint32, stored []byte) {
		// The index is hostile too: it vouches for the bytes, so that they reach the decoders.
		x := Index{plain: int(plain)%PieceBytes + 1, comp: Compression(comp % 5), crcs: []uint32{crcOf(stored)}}
		if len(stored) > maxCompressed(x.plain) {
			return
		}
		x.payloads = []uint32{uint32(len(stored))}
		if x.comp == None {
			x.payloads = nil
		}
		buf := bytes.Repeat([]byte{0xa5}, x.plain+64)
		err := Unpack(buf[:x.plain], testID, x, 0, 1, stored, nil)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		for _, b := range buf[x.plain:] {
			if b != 0xa5 {
				t.Fatal("written beyond the piece")
			}
		}
	})
}

func FuzzPack(f *testing.F) {
	f.Add([]byte("a"), uint8(1), uint8(0), uint32(1), true)
	f.Add(mixture(500), uint8(4), uint8(1), uint32(1000), false)
	f.Add(make([]byte, 300), uint8(3), uint8(2), uint32(70000), true)
	f.Fuzz(func(t *testing.T, seed []byte, comp, piece uint8, size uint32, encrypt bool) {
		if len(seed) == 0 {
			return
		}
		shard := bytes.Repeat(seed, int(size)%(2*PieceBytes)/len(seed)+1)
		var key *Key
		if encrypt {
			key = mustKey(t, 3)
		}
		stored, x := mustPackIn(t, PieceSize(piece%3), testID, shard, Compression(comp%5), key)
		if x.CRC() != crcOf(stored) {
			t.Fatal("crc")
		}
		dst := make([]byte, len(shard))
		if err := Unpack(dst, testID, x, 0, x.Pieces(), stored, key); err != nil || !bytes.Equal(dst, shard) {
			t.Fatal("differs", err)
		}
		b, _ := x.AppendBinary(nil)
		if y, rest, err := DecodeIndex(b); err != nil || len(rest) != 0 || fmt.Sprint(x) != fmt.Sprint(y) {
			t.Fatal("index", err)
		}
	})
}
