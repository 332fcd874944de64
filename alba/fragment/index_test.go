package fragment

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// someIndexes are one of each kind.
func someIndexes(t testing.TB) map[string]Index {
	t.Helper()
	indexesOnce.Do(func() { indexes = packedIndexes(t) })
	return indexes
}

var (
	indexesOnce sync.Once
	indexes     map[string]Index
)

func packedIndexes(t testing.TB) map[string]Index {
	key := mustKey(t, 5)
	out := map[string]Index{}
	for _, comp := range testCompressions {
		_, out[comp.String()] = mustPack(t, testID, mixture(3*PieceBytes+10), comp, nil)
		_, out[comp.String()+" encrypted"] = mustPack(t, testID, mixture(3*PieceBytes+10), comp, key)
	}
	for _, size := range []PieceSize{Piece16K, Piece4K} {
		for _, comp := range []Compression{None, S2, Zstd} {
			_, out[fmt.Sprint(comp, " in ", size)] = mustPackIn(t, size, testID, mixture(PieceBytes+4106), comp, nil)
			_, out[fmt.Sprint(comp, " encrypted in ", size)] = mustPackIn(t, size, testID, mixture(PieceBytes+4106), comp, key)
		}
	}
	_, out["tiny"] = mustPack(t, testID, []byte{1}, None, nil)
	_, out["zeros"] = mustPack(t, testID, make([]byte, 4*PieceBytes), S2, nil)
	_, out["zeros encrypted"] = mustPack(t, testID, make([]byte, 4*PieceBytes), S2, key)
	return out
}

func TestIndexRoundTrip(t *testing.T) {
	for name, x := range someIndexes(t) {
		b, err := x.AppendBinary([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		y, rest, err := DecodeIndex(append(b[6:], "after"...))
		if err != nil || string(rest) != "after" || fmt.Sprint(x) != fmt.Sprint(y) || (x.payloads == nil) != (y.payloads == nil) {
			t.Errorf("%s: %v", name, err)
		}
		for n := 6; n < len(b); n++ {
			if _, _, err := DecodeIndex(b[6:n]); !errors.Is(err, ErrIndex) {
				t.Errorf("%s cut to %d: %v", name, n, err)
			}
		}
	}
	_, x := mustPack(t, testID, mixture(1 << 20)[2*PieceBytes:3*PieceBytes], None, nil)
	if b, _ := x.AppendBinary(nil); len(b) != 2+3+4 {
		t.Errorf("an index of one raw piece has %d bytes", len(b))
	}
}

func TestIndexRefused(t *testing.T) {
	for name, b := range map[string]string{
		"empty":                     "",
		"version":                   "\x02\x00\x01\x00\x00\x00\x00",
		"unknown size of pieces":    "\x01\xc0\x01\x00\x00\x00\x00",
		"crcs of larger pieces":     "\x01\x80\x81\x40" + "\x00\x00\x00\x00",
		"unknown compression":       "\x01\x05\x01\x00\x00\x00\x00",
		"payloads of none":          "\x01\x20\x01\x01\x00\x00\x00\x00",
		"no bytes":                  "\x01\x00\x00\x00\x00\x00\x00",
		"size not shortest":         "\x01\x00\x81\x00\x00\x00\x00\x00",
		"too large":                 "\x01\x00\x81\x80\x80\x20" + string(make([]byte, 5000)),
		"size endless":              "\x01\x00\x80\x80\x80\x80\x80\x00",
		"crc missing":               "\x01\x00\x01\x00\x00\x00",
		"all raw":                   "\x01\x22\x40\x00\x01\x02\x03\x04",
		"payload saves too little":  "\x01\x22\x40\x3e\x01\x02\x03\x04", // 61 of 64
		"payload longer than piece": "\x01\x22\x40\x7f\x01\x02\x03\x04",
		"crc of nothing":            "\x01\x22\x40\x01\x01\x02\x03\x04",
	} {
		if x, _, err := DecodeIndex([]byte(b)); !errors.Is(err, ErrIndex) {
			t.Errorf("%s: %v, %v", name, x, err)
		}
	}
	if _, _, err := DecodeIndex([]byte("\x01\x22\x40\x3d\x01\x02\x03\x04")); err != nil { // 60 of 64
		t.Error(err)
	}
}

func TestCover(t *testing.T) {
	x := someIndexes(t)["s2"] // three pieces and 10 bytes
	for _, c := range [][4]int{
		{0, 1, 0, 1},
		{PieceBytes - 1, 1, 0, 1},
		{PieceBytes - 1, 2, 0, 2},
		{PieceBytes, PieceBytes, 1, 1},
		{3*PieceBytes + 9, 1, 3, 1},
		{0, 3*PieceBytes + 10, 0, 4},
	} {
		if first, count := x.Cover(c[0], c[1]); first != c[2] || count != c[3] {
			t.Errorf("%v: %d+%d", c, first, count)
		}
	}
	for name, f := range map[string]func(){
		"cover beyond":   func() { x.Cover(3*PieceBytes, 11) },
		"cover nothing":  func() { x.Cover(0, 0) },
		"cover overflow": func() { x.Cover(1, int(^uint(0)>>1)) },
		"range beyond":   func() { x.Range(1, 4) },
		"range overflow": func() { x.Range(1, int(^uint(0)>>1)) },
		"plain beyond":   func() { x.PlainRange(5, 0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestNames(t *testing.T) {
	for _, c := range testCompressions {
		if got, err := ParseCompression(c.String()); got != c || err != nil {
			t.Error(c, got, err)
		}
	}
	for _, c := range []Checksum{NoChecksum, CRC32C, SHA1} {
		if got, err := ParseChecksum(c.String()); got != c || err != nil {
			t.Error(c, got, err)
		}
	}
	if _, err := ParseCompression("lzma"); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	for s := Piece64K; s <= Piece4K; s++ {
		if got, err := ParsePieceSize(int64(s.Bytes())); got != s || err != nil {
			t.Error(s, got, err)
		}
	}
	for _, n := range []int64{0, -1, 1, 4095, 8 << 10, 128 << 10, 1<<32 + 4096} {
		if _, err := ParsePieceSize(n); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "4 KiB, 16 KiB or 64 KiB") {
			t.Error(n, err)
		}
	}
	if Piece64K.String() != "64KiB" || Piece4K.String() != "4KiB" || PieceSize(3).String() != "piece size(3)" {
		t.Error("names of sizes")
	}
	if _, err := ParseChecksum(""); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	if Compression(9).String() != "compression(9)" || Checksum(9).String() != "checksum(9)" {
		t.Error("unknown numbers")
	}
	if testID.String() != "01020300000000000000000000000009/7/3.2" {
		t.Error(testID)
	}
}

func TestChecksums(t *testing.T) {
	p := []byte("123456789")
	crc := []byte{0x83, 0x92, 0x06, 0xe3} // the check value of crc32c: e3069283
	sha := []byte("\xf7\xc3\xbc\x1d\x80\x8e\x04\x73\x2a\xdf\x67\x99\x65\xcc\xc3\x4c\xa7\xae\x34\x41")
	for _, c := range []struct {
		kind Checksum
		sum  []byte
		ok   bool
	}{
		{NoChecksum, nil, true}, {NoChecksum, crc, false},
		{CRC32C, crc, true}, {CRC32C, sha, false}, {CRC32C, nil, false}, {CRC32C, make([]byte, 4), false},
		{SHA1, sha, true}, {SHA1, crc, false}, {SHA1, bytes.Repeat([]byte{1}, 20), false},
		{9, nil, false},
	} {
		if got := c.kind.Verify(p, c.sum); got != c.ok {
			t.Errorf("%v of %x: %v", c.kind, c.sum, got)
		}
	}
}

func FuzzDecodeIndex(f *testing.F) {
	for _, x := range someIndexes(f) {
		b, _ := x.AppendBinary(nil)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, rest, err := DecodeIndex(b)
		if err != nil {
			if !errors.Is(err, ErrIndex) {
				t.Fatal(err)
			}
			return
		}
		again, _ := x.AppendBinary(nil)
		if !bytes.Equal(again, b[:len(b)-len(rest)]) {
			t.Fatal("an index with two encodings")
		}
		if len(again) > MaxIndexBytes {
			t.Fatalf("%d bytes", len(again))
		}
		x.CRC()
		if off, n := x.Range(0, x.Pieces()); off != 0 || n != x.StoredBytes() || n > int64(x.PlainBytes()+x.Pieces()*tagBytes) {
			t.Fatal("range", off, n)
		}
	})
}
