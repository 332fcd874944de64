package fragment

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// Golden files are read for ever (F5). -golden makes the missing ones; it never
// changes one, since what it holds may be on somebody's devices.
var makeGolden = flag.Bool("golden", false, "make golden files that are missing")

func golden(t *testing.T, name string, content func() []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && *makeGolden {
		b = content()
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenShard has a piece that compresses, for compressions one of zeros, and noise at the end.
func goldenShard(comp Compression, piece int) []byte {
	if comp == None {
		p := make([]byte, piece+500)
		text(p, 11)
		return p
	}
	p := make([]byte, 2*piece+500)
	text(p[:piece], 11)
	noise(p[2*piece:], 12)
	return p
}

// TestGoldenFragments: index and stored bytes of each kind decode to what they were made of.
func TestGoldenFragments(t *testing.T) {
	variants(t, func(t *testing.T, comp Compression, key *Key) {
		goldenFragment(t, comp.String(), comp, Piece64K, key)
	})
	for _, size := range []PieceSize{Piece16K, Piece4K} {
		for _, comp := range []Compression{None, S2} {
			for _, key := range []*Key{nil, mustKey(t, 5)} {
				goldenFragment(t, fmt.Sprintf("%v-%v", comp, size), comp, size, key)
			}
		}
	}
}

func goldenFragment(t *testing.T, name string, comp Compression, size PieceSize, key *Key) {
	t.Helper()
	if key != nil {
		name += "-aes"
	}
	shard := goldenShard(comp, size.Bytes())
	b := golden(t, name+".fragment", func() []byte {
		stored, x := mustPackIn(t, size, testID, shard, comp, key)
		b, _ := x.AppendBinary(nil)
		return append(b, stored...)
	})
	x, stored, err := DecodeIndex(b)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if x.PlainBytes() != len(shard) || x.Compression() != comp || x.PieceSize() != size || x.Encrypted() != (key != nil) {
		t.Errorf("%s: index: %v", name, x)
	}
	if comp != None && x.payloads[0] == uint32(size.Bytes()) {
		t.Errorf("%s: nothing is compressed in this golden file", name)
	}
	got := make([]byte, len(shard))
	if err := Unpack(got, testID, x, 0, x.Pieces(), stored, key); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !bytes.Equal(got, shard) {
		t.Errorf("%s: shard differs", name)
	}
	again, _ := x.AppendBinary(nil)
	if !bytes.Equal(again, b[:len(b)-len(stored)]) {
		t.Errorf("%s: the index is encoded differently now", name)
	}
}

// TestGoldenIndex: encodings, in hex, one a line, of indexes made by hand.
func TestGoldenIndex(t *testing.T) {
	made := []Index{
		{plain: 1, crcs: []uint32{0x01020304}},
		{plain: 3 * PieceBytes, crcs: []uint32{1, 2, 0xffffffff}},
		{plain: PieceBytes + 64, encrypted: true, crcs: []uint32{1, 2}},
		{plain: 4 * PieceBytes, comp: S2, crcs: []uint32{7, 0, 8, 9}, payloads: []uint32{PieceBytes, 0, 1, 61440}},
		{plain: 2*PieceBytes + 64, comp: Zstd, encrypted: true, crcs: []uint32{7, 6, 8}, payloads: []uint32{300, 0, 64}},
		{plain: 64, comp: Snappy, crcs: []uint32{1}, payloads: []uint32{60}},
		{plain: 64, comp: Bzip2, encrypted: true, crcs: []uint32{1}, payloads: []uint32{0}},
	}
	goldenIndexes(t, "index.hex", made)
	goldenIndexes(t, "index-pieces.hex", []Index{
		{plain: 1, size: Piece4K, crcs: []uint32{0x01020304}},
		{plain: 3*4096 + 64, size: Piece4K, encrypted: true, crcs: []uint32{1, 2, 3, 4}},
		{plain: 3 * 4096, size: Piece4K, comp: S2, encrypted: true, crcs: []uint32{1, 2, 3}, payloads: []uint32{4096, 0, 3840}},
		{plain: PieceBytes, size: Piece16K, comp: Zstd, crcs: []uint32{7, 0, 8, 9}, payloads: []uint32{1, 0, 15360, 16384}},
		{plain: PieceBytes, size: Piece16K, crcs: []uint32{7, 0, 8, 9}},
	})
}

func goldenIndexes(t *testing.T, name string, made []Index) {
	t.Helper()
	var now strings.Builder
	for _, x := range made {
		b, _ := x.AppendBinary(nil)
		fmt.Fprintf(&now, "%x\n", b)
		if y, rest, err := DecodeIndex(b); err != nil || len(rest) != 0 || !reflect.DeepEqual(x, y) {
			t.Errorf("%v: %v, %v", x, y, err)
		}
	}
	if want := golden(t, name, func() []byte { return []byte(now.String()) }); string(want) != now.String() {
		t.Errorf("encodings changed:\n%s", now.String())
	}
}

// TestGoldenCodes: the crc32c of every parity shard of codes, so that the matrix never changes.
func TestGoldenCodes(t *testing.T) {
	var now strings.Builder
	for _, km := range [][2]int{{1, 2}, {2, 1}, {2, 2}, {3, 3}, {4, 2}, {5, 4}, {8, 4}, {10, 4}, {16, 4}, {32, 16}} {
		c := mustCode(t, km[0], km[1])
		chunk := make([]byte, 1000*c.Data()+1)
		noise(chunk, 21)
		s, err := c.Split(chunk, Piece64K)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&now, "%v", c)
		for _, p := range s.Shards[c.Data():] {
			fmt.Fprintf(&now, " %08x", crcOf(p))
		}
		fmt.Fprintln(&now)
	}
	if want := golden(t, "parity.txt", func() []byte { return []byte(now.String()) }); string(want) != now.String() {
		t.Errorf("parity changed:\n%s", now.String())
	}
}

func TestGoldenWrappedKey(t *testing.T) {
	wrap, data := mustWrapKey(t, 0x41), mustKey(t, 0x42)
	make := func() []byte {
		b, err := Wrap(nonces(0x43), wrap, *data, "gold")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	w := golden(t, "wrapped.key", make)
	if got, err := Unwrap(wrap, w, "gold"); err != nil || got.ID() != data.ID() {
		t.Fatal(err)
	}
	if !bytes.Equal(w, make()) {
		t.Error("wrapped differently now")
	}
}
