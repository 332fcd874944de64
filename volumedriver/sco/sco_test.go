package sco

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

var update = flag.Bool("update", false, "write the golden files anew: only for a format that nobody has used yet")

var disk = [16]byte{0xd0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}

// object makes an SCO with n clusters of data in runs, and two extents without data.
func object(cluster, n int) ([]byte, *Footer) {
	per := uint64(cluster / lbaBytes)
	f := &Footer{Cluster: uint32(cluster), VDisk: disk, Epoch: 3, Nonce: 0xcafe, Number: 77, Clusters: uint32(n),
		FirstSeq: 1 << 33, LastSeq: 1<<33 + 99, FirstTime: 1_700_000_000_000_000_001, LastTime: 1_700_000_009_000_000_002,
		Extents: []Extent{{LBA: 0, Length: 4 * per, Kind: KindTrim}, {LBA: 1000 * per, Length: 1 << 36 / per * per, Kind: KindZero}}}
	for i := 0; i < n; {
		k := min(1+i%5, n-i)
		f.Extents = append(f.Extents, Extent{LBA: uint64(2*i+1) * per, Length: uint64(k) * per, Kind: KindData, First: uint32(i), Source: uint64(i % 2 * 0x55)})
		i += k
	}
	b := make([]byte, Size(cluster, n, len(f.Extents)))
	l, seed, r := Layout{cluster}, clustersum.NewSeed(disk), rand.New(rand.NewPCG(1, 2))
	for _, e := range f.Extents {
		if e.Kind != KindData {
			continue
		}
		for k := range uint32(e.Length / per) {
			data, sum := l.Slot(b, uint32(n), e.First+k)
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			binary.LittleEndian.PutUint32(sum, seed.Sum(e.LBA+uint64(k)*per, data))
		}
	}
	Finish(b, f)
	return b, f
}

func TestGolden(t *testing.T) {
	b, f := object(4096, 18)
	path := filepath.Join("testdata", "sco.bin")
	if *update {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, b) {
		t.Fatal("what is written now is not what earlier versions wrote")
	}
	got, err := Decode(kept)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, f) {
		t.Fatalf("decoded %+v\nwant    %+v", got, f)
	}
}

// TestRoundTrip: every cluster size, objects around the borders of groups; one
// group read by itself verifies any of its clusters.
func TestRoundTrip(t *testing.T) {
	for _, cluster := range []int{4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10} {
		l := Layout{cluster}
		for _, n := range []int{0, 1, l.PerGroup() - 1, l.PerGroup(), l.PerGroup() + 1, 3*l.PerGroup() + 2} {
			t.Run(fmt.Sprintf("%d/%d", cluster, n), func(t *testing.T) {
				b, f := object(cluster, n)
				got, err := Decode(b)
				if err != nil || !reflect.DeepEqual(got, f) {
					t.Fatalf("%v: %+v", err, got)
				}
				if len(b) > n*(cluster+2*SumBytes)+MaxOverhead {
					t.Fatalf("%d bytes are above the bound", len(b))
				}
				if again, _ := object(cluster, n); !bytes.Equal(again, b) {
					t.Fatal("the same content gives another object (O2)")
				}
				for _, e := range f.Extents {
					for k := range uint32(e.Length / uint64(cluster/lbaBytes)) {
						if e.Kind != KindData {
							break
						}
						g, i := l.Group(e.First + k)
						off, length, in := l.GroupRange(g, f.Clusters)
						data, sum := l.In(b[off:off+int64(length)], in, i)
						if clustersum.NewSeed(disk).Sum(e.LBA+uint64(k)*uint64(cluster/lbaBytes), data) != sum {
							t.Fatalf("cluster %d does not verify from its group (O3)", e.First+k)
						}
					}
				}
			})
		}
	}
}

// TestDigest: an object is the same however much of it was hashed while it was filled, and in
// whatever order that happened.
func TestDigest(t *testing.T) {
	for _, cluster := range []int{4 << 10, 64 << 10} {
		l := Layout{cluster}
		for _, n := range []int{0, 1, l.PerGroup(), 3*l.PerGroup() + 1} {
			want, f := object(cluster, n)
			r := rand.New(rand.NewPCG(3, 4))
			for _, order := range [][]int{seqOf(n), r.Perm(n), append(seqOf(n/2), seqOf(n)...)} {
				got := bytes.Clone(want)
				clear(got[l.GroupsBytes(n):])
				var d Digest
				for _, i := range order {
					d.Filled(got, l, uint32(n), uint32(i))
				}
				if d.Finish(got, f); !bytes.Equal(got, want) {
					t.Errorf("%d clusters of %d bytes, in the order %v: another object", n, cluster, order)
				}
			}
		}
	}
}

func seqOf(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// TestEveryByte: no changed byte and no cut passes.
func TestEveryByte(t *testing.T) {
	b, f := object(4096, 2)
	off, length := Layout{4096}.SumsRange(2)
	if sums := b[off : off+int64(length)]; !bytes.Equal(sums, b[2*4096:2*4096+2*SumBytes]) {
		t.Fatalf("sums in one piece %x", sums)
	}
	for i := range b {
		b[i] ^= 0x40
		got, err := Decode(b)
		// Eight bytes of the trailer are reserved.
		if err == nil && !(i >= len(b)-16 && i < len(b)-8 && reflect.DeepEqual(got, f)) {
			t.Fatalf("byte %d of %d changed passes", i, len(b))
		}
		b[i] ^= 0x40
		if _, err := Decode(b[:i]); err == nil {
			t.Fatalf("the first %d of %d bytes pass", i, len(b))
		}
	}
}

// reseal makes the checksums right after a change of the footer.
func reseal(b []byte) {
	le := binary.LittleEndian
	if len(b) < trailerBytes {
		return
	}
	t := b[len(b)-trailerBytes:]
	copy(t[24:], magic[:])
	at := len(b) - trailerBytes - int(le.Uint32(t))
	if at < 0 || at+fixedFooter > len(b) {
		return
	}
	groups := at - SumBytes*int(le.Uint32(b[at+36:]))
	if groups < 0 {
		return
	}
	le.PutUint32(t[4:], clustersum.Plain(b[groups:len(b)-trailerBytes]))
	le.PutUint64(t[8:], xxh3.Hash(b[:groups]))
}

// TestRefused: fields that contradict each other under right checksums.
func TestRefused(t *testing.T) {
	le := binary.LittleEndian
	const footer = 2 * (4096 + 2*SumBytes) // where it starts
	ext := func(b []byte, i int) []byte { return b[footer+fixedFooter+i*extentBytes:] }
	for _, c := range []struct {
		name   string
		want   error
		change func(b []byte)
		whole  bool
	}{
		{"newer version", ErrNewerFormat, func(b []byte) { b[footer] = 2 }, false},
		{"version 0", ErrCorrupt, func(b []byte) { b[footer] = 0 }, false},
		{"cluster size 0", ErrCorrupt, func(b []byte) { le.PutUint32(b[footer+4:], 0) }, false},
		{"cluster size 5000", ErrCorrupt, func(b []byte) { le.PutUint32(b[footer+4:], 5000) }, false},
		{"other cluster size", ErrCorrupt, func(b []byte) { le.PutUint32(b[footer+4:], 8192) }, false},
		{"more clusters", ErrCorrupt, func(b []byte) { le.PutUint32(b[footer+36:], 3) }, true},
		{"clusters beyond all memory", ErrCorrupt, func(b []byte) { le.PutUint32(b[footer+36:], math.MaxUint32) }, true},
		{"seqs backwards", ErrCorrupt, func(b []byte) { le.PutUint64(b[footer+40:], math.MaxUint64) }, false},
		{"more extents than bytes", ErrCorrupt, func(b []byte) { le.PutUint32(b[footer+72:], 1<<20) }, false},
		{"extents above the bound", ErrCorrupt, func(b []byte) { le.PutUint32(b[footer+72:], math.MaxUint32) }, false},
		{"fewer extents", ErrCorrupt, func(b []byte) { le.PutUint32(b[footer+72:], 1) }, true},
		{"unaligned lba", ErrCorrupt, func(b []byte) { le.PutUint64(ext(b, 2), 3) }, false},
		{"unaligned length", ErrCorrupt, func(b []byte) { le.PutUint64(ext(b, 2)[8:], 9) }, false},
		{"range wraps", ErrCorrupt, func(b []byte) { le.PutUint64(ext(b, 1), math.MaxUint64-7) }, false},
		{"kind 0", ErrCorrupt, func(b []byte) { ext(b, 2)[16] = 0 }, false},
		{"kind 4", ErrCorrupt, func(b []byte) { ext(b, 2)[16] = 4 }, false},
		{"data beyond the object", ErrCorrupt, func(b []byte) { le.PutUint32(ext(b, 2)[20:], 2) }, false},
		{"two extents share data", ErrCorrupt, func(b []byte) { le.PutUint64(ext(b, 2)[8:], 16) }, false},
		// With 512-byte clusters, index plus length wraps around to a small number.
		{"data length wraps", ErrCorrupt, func(b []byte) {
			le.PutUint32(b[footer+4:], 512)
			le.PutUint64(ext(b, 2)[8:], 1)
			le.PutUint64(ext(b, 3), 0)
			le.PutUint64(ext(b, 3)[8:], math.MaxUint64)
			le.PutUint32(ext(b, 3)[20:], 1)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, _ := object(4096, 2)
			c.change(b)
			reseal(b)
			// The footer alone is refused as well, for it comes in TLogs, too, unless it
			// is wrong for this object only.
			_, _, ferr := DecodeFooter(b[footer : len(b)-trailerBytes])
			if alone := errors.Is(ferr, c.want); alone == c.whole {
				t.Fatalf("footer alone decoded with %v", ferr)
			}
			if f, err := Decode(b); !errors.Is(err, c.want) {
				t.Fatalf("decoded %+v, %v", f, err)
			}
		})
	}
}

// allocated returns the bytes that fn allocates.
func allocated(fn func()) uint64 {
	var a, b runtime.MemStats
	runtime.ReadMemStats(&a)
	fn()
	runtime.ReadMemStats(&b)
	return b.TotalAlloc - a.TotalAlloc
}

// allocBound is what a decoder may allocate for n bytes of input.
func allocBound(n int) uint64 { return 16*uint64(n) + 1<<20 }

func FuzzDecode(f *testing.F) {
	for _, n := range []int{0, 1, 17} {
		b, _ := object(4096, n)
		f.Add(b, true)
	}
	f.Add([]byte("OVGSCO01"), false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal {
			b = bytes.Clone(b)
			reseal(b)
		}
		if n := allocated(func() { Decode(b) }); n > allocBound(len(b)) {
			t.Fatalf("%d bytes allocated for %d of input", n, len(b))
		}
	})
}

func FuzzDecodeFooter(f *testing.F) {
	_, footer := object(4096, 17)
	b := make([]byte, FooterBytes(len(footer.Extents)))
	EncodeFooter(b, footer)
	f.Add(b)
	f.Add(b[:fixedFooter])
	f.Fuzz(func(t *testing.T, b []byte) {
		var ft *Footer
		var used int
		var err error
		if n := allocated(func() { ft, used, err = DecodeFooter(b) }); n > allocBound(len(b)) {
			t.Fatalf("%d bytes allocated for %d of input", n, len(b))
		}
		if err != nil {
			return
		}
		// The data of all extents are within the object, so a reader that walks
		// them does no more work than the object is large.
		var clusters uint64
		for _, e := range ft.Extents {
			if e.Kind == KindData {
				clusters += e.Length / uint64(ft.Cluster/lbaBytes)
			}
		}
		if clusters > uint64(ft.Clusters) || used > len(b) {
			t.Fatalf("%d clusters mapped of %d, %d bytes used of %d", clusters, ft.Clusters, used, len(b))
		}
		again := make([]byte, used)
		EncodeFooter(again, ft)
		g, _, err := DecodeFooter(again)
		if err != nil || !reflect.DeepEqual(g, ft) {
			t.Fatalf("does not survive another round: %v", err)
		}
	})
}
