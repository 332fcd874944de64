package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

func TestPinRoundTrip(t *testing.T) {
	for _, cluster := range []int{4096, 65536} {
		for _, n := range []int{0, 1, 4091, 4092, 4093, MaxPin - 1, MaxPin} {
			data, err := EncodePin(stateBytes(n), cluster)
			if err != nil || len(data)%cluster != 0 || uint64(len(data)/cluster) > maxPinClusters(uint32(cluster)) {
				t.Fatalf("%d bytes: %d, %v", n, len(data), err)
			}
			if got, err := DecodePin(data); err != nil || !bytes.Equal(got, stateBytes(n)) {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	}
	if _, err := EncodePin(make([]byte, MaxPin+1), 4096); err == nil {
		t.Error("a pin above the bound is encoded")
	}
	over, _ := EncodeReservation(stateBytes(MaxPin+1), 4096)
	for _, bad := range [][]byte{nil, {1, 0, 0, 0}, over} {
		if _, err := DecodePin(bad); !errors.Is(err, ErrBadPin) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

// pinRecord is a version 2 record with a pin alone.
func pinRecord() (*Header, []byte) {
	data, _ := EncodePin([]byte(`{"pin":{"name":"monday"}}`), testCluster)
	return &Header{HeaderBytes: 4096, DataBytes: 4096, Generation: 0x1122334455667788, VDisk: diskA, Epoch: 7,
		Seqs: 1, Seq: 1 << 40, Promise: 1<<40 - 1, Time: 1_700_000_000_123_456_789, Cluster: 4096,
		Extents: []Extent{{LBA: PinLBA, Length: 8, Kind: KindPin}},
		Sums:    []uint32{clustersum.NewSeed(diskA).Sum(PinLBA, data)}}, data
}

func TestGoldenPin(t *testing.T) {
	h, data := pinRecord()
	b := make([]byte, h.size())
	encodeHeader(b[:h.HeaderBytes], h)
	copy(b[h.HeaderBytes:], data)
	kept := golden(t, "record-pin.bin", b)
	got, err := decodeHeader(kept[:4096])
	if err != nil || !reflect.DeepEqual(got, h) || binary.LittleEndian.Uint16(kept[8:]) != 2 {
		t.Fatalf("decoded %+v, %v\nwant    %+v", got, err, h)
	}
	if !got.verifyData(clustersum.NewSeed(diskA), kept[4096:]) {
		t.Fatal("sums of the kept record do not verify")
	}
	if p, err := DecodePin(kept[4096:]); err != nil || string(p) != `{"pin":{"name":"monday"}}` {
		t.Fatalf("%q, %v", p, err)
	}
	kept[4100] ^= 1
	if got.verifyData(clustersum.NewSeed(diskA), kept[4096:]) {
		t.Fatal("a changed pin verifies")
	}
}

func TestPinRefused(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name   string
		change func(b, ext []byte)
	}{
		{"version 1 has no pins with data", func(b, ext []byte) { le.PutUint16(b[8:], 1) }},
		{"version 2 without one", func(b, ext []byte) { le.PutUint64(ext[8:], 0) }},
		{"at the address of a reservation", func(b, ext []byte) { le.PutUint64(ext, ReservationLBA) }},
		{"longer than its data", func(b, ext []byte) { le.PutUint64(ext[8:], 16) }},
		{"data index", func(b, ext []byte) { le.PutUint32(ext[24:], 1) }},
	} {
		h, _ := pinRecord()
		b := make([]byte, h.HeaderBytes)
		encodeHeader(b, h)
		c.change(b, b[fixedHeader:])
		sealHeader(b)
		if got, err := decodeHeader(b); !errors.Is(err, ErrBadRecord) {
			t.Errorf("%s: accepted as %+v, %v", c.name, got, err)
		}
	}
}

// TestPinRecover: a pin in a journal comes back with its data, where it was.
func TestPinRecover(t *testing.T) {
	m := blockfs.NewMem()
	l := newTestLog(mustOpen(t, poolOptions(m)), diskA, 1, 1, nil)
	data, _ := EncodePin([]byte("here"), testCluster)
	mustPut(t, l, oneWrite(1, 1))
	at := mustPut(t, l, &Batch{Seqs: 1, Time: 9, Extents: []Extent{{LBA: PinLBA, Length: testCluster / lbaBytes, Kind: KindPin}}, Parts: [][]byte{data}})
	mustPut(t, l, oneWrite(3, 1))
	_, p := reopened(t, m, poolOptions(m))
	r, err := Recover(p, diskA, 1, anyOf(1))
	if err != nil || len(r.Tail) != 3 {
		t.Fatalf("%v: %d records", err, len(r.Tail))
	}
	defer r.Abandon()
	f := r.Tail[1]
	if f.Off != at.Off || f.Header.Seq != 2 || f.Header.Extents[0].Kind != KindPin {
		t.Fatalf("%+v, placed at %+v", f, at)
	}
	got := blockfs.AlignedBuffer(testCluster)
	if _, err := r.chunks[f.Chunk].file.f.ReadAt(got, f.Off); err != nil {
		t.Fatal(err)
	}
	if b, err := DecodePin(got); err != nil || string(b) != "here" {
		t.Fatalf("%q, %v", b, err)
	}
}

func FuzzDecodePin(f *testing.F) {
	data, _ := EncodePin([]byte("pin"), 4096)
	f.Add(data[:64])
	f.Add([]byte{0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePin(b)
		if err != nil {
			return
		}
		again, err := EncodePin(p, 512)
		if err != nil || !bytes.Equal(again[:4+len(p)], b[:4+len(p)]) {
			t.Fatalf("does not survive another round: %v", err)
		}
	})
}
