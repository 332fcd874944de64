package osd

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestConcatCRC(t *testing.T) {
	p := make([]byte, Block+1000)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	for cut := range 1001 {
		if got := ConcatCRC(CRC(p[:cut]), CRC(p[cut:]), int64(len(p)-cut)); got != CRC(p) {
			t.Fatalf("cut at %d: %08x, should be %08x", cut, got, CRC(p))
		}
		zeros := append(bytes.Clone(p[:cut]), make([]byte, 3*cut)...)
		if got := CutZerosCRC(CRC(zeros), int64(3*cut)); got != CRC(p[:cut]) {
			t.Fatalf("%d bytes without zeros: %08x, should be %08x", cut, got, CRC(p[:cut]))
		}
	}
}

// TestJoinedCRC: of parts of equal and of other lengths, none among them.
func TestJoinedCRC(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for range 100 {
		var p []byte
		var all JoinedCRC
		for range rng.IntN(20) {
			part := make([]byte, []int{0, 1, 4096, 4096, rng.IntN(9000)}[rng.IntN(5)])
			for i := range part {
				part[i] = byte(rng.Uint32())
			}
			all.Add(CRC(part), int64(len(part)))
			p = append(p, part...)
		}
		if all.Sum() != CRC(p) {
			t.Fatalf("%d bytes: %08x, should be %08x", len(p), all.Sum(), CRC(p))
		}
	}
}
