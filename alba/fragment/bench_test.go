package fragment

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/reedsolomon"
)

// BenchmarkEncode compares Split and Pack of raw fragments with the physical limit:
// the parity and the checksums alone, one goroutine, over a working set that no
// cache holds. Each round measures the three one after the other, figures are
// medians, in MB of chunks a second; "of_limit" is encode over 1/(1/ec + 1/crc).
func BenchmarkEncode(b *testing.B) {
	const (
		k, m       = 4, 2
		chunkBytes = 4 << 20
		setBytes   = 640 << 20
		shardBytes = chunkBytes / k
		minRounds  = 5
	)
	set := make([]byte, setBytes)
	noise(set, 1)
	rs, err := reedsolomon.New(k, m, reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		b.Fatal(err)
	}
	c := mustCode(b, k, m)
	// Both sides write the parity of all chunks to one buffer each.
	shards := make([][]byte, k+m)
	for i := range m {
		shards[k+i] = make([]byte, shardBytes)
	}
	cut := func(chunk []byte) {
		for i := range k {
			shards[i] = chunk[i*shardBytes:][:shardBytes]
		}
	}
	var sum uint32
	passes := []func(chunk []byte){
		func(chunk []byte) {
			cut(chunk)
			if err := rs.Encode(shards); err != nil {
				b.Fatal(err)
			}
		},
		func(chunk []byte) {
			cut(chunk)
			for _, s := range shards {
				sum ^= crcOf(s)
			}
		},
		func(chunk []byte) {
			stripe, err := c.Split(chunk, Piece64K)
			if err != nil {
				b.Fatal(err)
			}
			for i := range stripe.Shards {
				_, x, err := stripe.Pack(nil, ID{Index: uint8(i)}, i, None, nil)
				if err != nil {
					b.Fatal(err)
				}
				sum ^= x.CRC()
			}
			stripe.Release()
		},
	}
	rounds := make([][]float64, len(passes))
	for range max(minRounds, b.N) {
		for p, pass := range passes {
			start := time.Now()
			for off := 0; off < setBytes; off += chunkBytes {
				pass(set[off:][:chunkBytes])
			}
			rounds[p] = append(rounds[p], setBytes/1e6/time.Since(start).Seconds())
		}
	}
	median := func(p int) float64 {
		slices.Sort(rounds[p])
		return rounds[p][len(rounds[p])/2]
	}
	ec, crc, all := median(0), median(1), median(2)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ec, "ec_MB/s")
	b.ReportMetric(crc, "crc_MB/s")
	b.ReportMetric(all, "encode_MB/s")
	b.ReportMetric(all*(1/ec+1/crc), "of_limit")
}

// BenchmarkPack and BenchmarkUnpack: a fragment of 1 MiB, half of it compressible.
func BenchmarkPack(b *testing.B) {
	benchmarkVariants(b, func(b *testing.B, shard []byte, comp Compression, size PieceSize, key *Key) {
		dst := make([]byte, 0, PackBytes(len(shard), size))
		for b.Loop() {
			if _, _, err := Pack(dst, testID, shard, comp, size, key); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkUnpack(b *testing.B) {
	benchmarkVariants(b, func(b *testing.B, shard []byte, comp Compression, size PieceSize, key *Key) {
		stored, x := mustPackIn(b, size, testID, shard, comp, key)
		dst := make([]byte, len(shard))
		for b.Loop() {
			if err := Unpack(dst, testID, x, 0, x.Pieces(), stored, key); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchmarkVariants(b *testing.B, f func(b *testing.B, shard []byte, comp Compression, size PieceSize, key *Key)) {
	shard := make([]byte, 1<<20)
	for i := 0; i < len(shard); i += PieceBytes {
		text(shard[i:][:PieceBytes/2], uint64(i))
		noise(shard[i+PieceBytes/2:][:PieceBytes/2], uint64(i))
	}
	for _, comp := range testCompressions {
		for size := Piece64K; size.valid(); size++ {
			for _, key := range []*Key{nil, mustKey(b, 5)} {
				name := fmt.Sprintf("%v/%v/clear", comp, size)
				if key != nil {
					name = fmt.Sprintf("%v/%v/aes", comp, size)
				}
				b.Run(name, func(b *testing.B) {
					b.SetBytes(int64(len(shard)))
					b.ReportAllocs()
					f(b, shard, comp, size, key)
				})
			}
		}
	}
}

// BenchmarkIndexCRC: of a fragment of 1 MiB from its pieces.
func BenchmarkIndexCRC(b *testing.B) {
	for size := Piece64K; size.valid(); size++ {
		_, x := mustPackIn(b, size, testID, mixture(1<<20), S2, nil)
		b.Run(size.String(), func(b *testing.B) {
			for b.Loop() {
				x.CRC()
			}
		})
	}
}
