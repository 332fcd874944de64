package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// reserve appends a command that stores a reservation state to a batch.
func reserve(b *Batch, state []byte) *Batch {
	data, err := EncodeReservation(state, testCluster)
	if err != nil {
		panic(err)
	}
	index := 0
	for _, p := range b.Parts {
		index += len(p) / testCluster
	}
	b.Extents = append(b.Extents, Extent{LBA: ReservationLBA, Length: uint64(len(data)) / lbaBytes, Kind: KindReservation,
		SeqDelta: b.Seqs, Data: uint32(index)})
	b.Parts = append(b.Parts, data)
	b.Seqs++
	b.Time = max(b.Time, 1)
	return b
}

// stateBytes are the bytes of a reservation state.
func stateBytes(n int) []byte {
	r := rand.NewPCG(uint64(n), 3)
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint64())
	}
	return b
}

func TestReservationRoundTrip(t *testing.T) {
	for _, cluster := range []int{4096, 65536} {
		for _, n := range []int{0, 1, cluster - 5, cluster - 4, cluster - 3, MaxReservation - 1, MaxReservation} {
			if n > MaxReservation {
				continue
			}
			data, err := EncodeReservation(stateBytes(n), cluster)
			if err != nil || len(data)%cluster != 0 || uint64(len(data)/cluster) > maxReservationClusters(uint32(cluster)) {
				t.Fatalf("%d bytes: %d, %v", n, len(data), err)
			}
			if got, err := DecodeReservation(data); err != nil || !bytes.Equal(got, stateBytes(n)) {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	}
	if _, err := EncodeReservation(make([]byte, MaxReservation+1), 4096); err == nil {
		t.Error("a state above the bound is encoded")
	}
	for _, bad := range [][]byte{nil, {1, 0}, {1, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff, 0}, {1, 0, 1, 0, 0}} {
		if _, err := DecodeReservation(bad); !errors.Is(err, ErrBadReservation) {
			t.Errorf("% x: %v", bad, err)
		}
	}
}

// goldenReservation is a version 2 record: a write, then a reservation.
func goldenReservation() (*Header, []byte) {
	data := block(16, 1)
	state, _ := EncodeReservation([]byte("who holds it"), testCluster)
	seed := clustersum.NewSeed(diskA)
	return &Header{HeaderBytes: 4096, DataBytes: 8192, Generation: 0x1122334455667788, VDisk: diskA, Epoch: 7,
		Seqs: 2, Seq: 1 << 40, Promise: 1<<40 - 1, Time: 1_700_000_000_123_456_789, Cluster: 4096,
		Extents: []Extent{
			{LBA: 16 * 8, Length: 8, Kind: KindData, SeqDelta: 0, Data: 0},
			{LBA: ReservationLBA, Length: 8, Kind: KindReservation, SeqDelta: 1, Data: 1},
		},
		Sums: []uint32{seed.Sum(16*8, data), seed.Sum(ReservationLBA, state)}}, append(data, state...)
}

func TestGoldenReservation(t *testing.T) {
	h, data := goldenReservation()
	b := make([]byte, h.size())
	encodeHeader(b[:h.HeaderBytes], h)
	copy(b[h.HeaderBytes:], data)
	kept := golden(t, "record-reservation.bin", b)
	got, err := decodeHeader(kept[:4096])
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Fatalf("decoded %+v, %v\nwant    %+v", got, err, h)
	}
	if !got.verifyData(clustersum.NewSeed(diskA), kept[4096:]) {
		t.Fatal("sums of the kept record do not verify")
	}
	if state, err := DecodeReservation(kept[8192:]); err != nil || string(state) != "who holds it" {
		t.Fatalf("%q, %v", state, err)
	}
	for i := range data[4096:] { // every byte of the state is covered by a sum
		data[4096+i] ^= 1
		if got.verifyData(clustersum.NewSeed(diskA), data) {
			t.Fatalf("byte %d changed verifies", i)
		}
		data[4096+i] ^= 1
	}
}

func TestReservationRefused(t *testing.T) {
	le := binary.LittleEndian
	ext := func(b []byte, i int) []byte { return b[fixedHeader+i*extentBytes:] }
	for _, c := range []struct {
		name   string
		change func(b []byte)
	}{
		{"version 1 has no reservations", func(b []byte) { le.PutUint16(b[8:], 1) }},
		{"version 2 without one", func(b []byte) { le.PutUint64(ext(b, 1)[8:], 0) }},
		{"at the address of data", func(b []byte) { le.PutUint64(ext(b, 1), 16) }},
		{"longer than its data", func(b []byte) { le.PutUint64(ext(b, 1)[8:], 16) }},
		{"data index", func(b []byte) { le.PutUint32(ext(b, 1)[24:], 2) }},
		{"shares data", func(b []byte) { le.PutUint64(ext(b, 0)[8:], 16) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, _ := goldenReservation()
			b := make([]byte, h.HeaderBytes)
			encodeHeader(b, h)
			c.change(b)
			sealHeader(b)
			if got, err := decodeHeader(b); !errors.Is(err, ErrBadRecord) {
				t.Fatalf("accepted as %+v, %v", got, err)
			}
		})
	}
	h, _ := goldenReservation()
	h.Extents[1].Length = 8 * (maxReservationClusters(4096) + 1)
	h.Sums = make([]uint32, 2+maxReservationClusters(4096))
	h.DataBytes = uint32(len(h.Sums)) * 4096
	b := make([]byte, h.HeaderBytes)
	encodeHeader(b, h)
	if _, err := decodeHeader(b); !errors.Is(err, ErrBadRecord) {
		t.Errorf("a state above the bound is read: %v", err)
	}
}

func FuzzDecodeReservation(f *testing.F) {
	data, _ := EncodeReservation([]byte("state"), 4096)
	f.Add(data[:64])
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		state, err := DecodeReservation(b)
		if err != nil {
			return
		}
		again, err := EncodeReservation(state, 512)
		if err != nil || !bytes.Equal(again[:4+len(state)], b[:4+len(state)]) {
			t.Fatalf("does not survive another round: %v", err)
		}
	})
}
