package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// TestDecodeHeaderRefuses: fields that contradict each other under a right crc.
func TestDecodeHeaderRefuses(t *testing.T) {
	le := binary.LittleEndian
	ext := func(b []byte, i int) []byte { return b[fixedHeader+i*extentBytes:] }
	for _, c := range []struct {
		name   string
		change func(b []byte)
	}{
		{"version 0", func(b []byte) { le.PutUint16(b[8:], 0) }},
		{"magic", func(b []byte) { b[0]++ }},
		{"header length of another size", func(b []byte) { le.PutUint32(b[12:], 8192) }},
		{"more data than sums", func(b []byte) { le.PutUint32(b[16:], 3*4096) }},
		{"data above the bound", func(b []byte) { le.PutUint32(b[16:], 32<<20) }},
		{"cluster size 0", func(b []byte) { le.PutUint32(b[88:], 0) }},
		{"cluster size 3000", func(b []byte) { le.PutUint32(b[88:], 3000) }},
		{"seq 0", func(b []byte) { le.PutUint64(b[56:], 0) }},
		{"more seqs than extents", func(b []byte) { le.PutUint32(b[52:], 7) }},
		{"extents do not fit", func(b []byte) { le.PutUint32(b[80:], 1000) }},
		{"extents above the bound", func(b []byte) { le.PutUint32(b[80:], math.MaxUint32) }},
		{"sums above the bound", func(b []byte) { le.PutUint32(b[84:], math.MaxUint32) }},
		{"unaligned lba", func(b []byte) { le.PutUint64(ext(b, 0), 1) }},
		{"unaligned length", func(b []byte) { le.PutUint64(ext(b, 0)[8:], 9) }},
		{"range wraps", func(b []byte) { le.PutUint64(ext(b, 2), math.MaxUint64-7) }},
		{"kind 0", func(b []byte) { ext(b, 0)[16] = 0 }},
		{"kind 99", func(b []byte) { ext(b, 0)[16] = 99 }},
		{"seq delta", func(b []byte) { le.PutUint32(ext(b, 0)[20:], 6) }},
		{"data index", func(b []byte) { le.PutUint32(ext(b, 0)[24:], 2) }},
		{"data longer than there is", func(b []byte) { le.PutUint64(ext(b, 1)[8:], 16) }},
		{"two extents share data", func(b []byte) { le.PutUint64(ext(b, 0)[8:], 16) }},
		// With 512-byte clusters, index plus length wraps around to a small number.
		{"data length wraps", func(b []byte) {
			le.PutUint32(b[88:], 512)
			le.PutUint32(b[16:], 1024)
			le.PutUint64(ext(b, 0)[8:], 1)
			le.PutUint64(ext(b, 1), 0)
			le.PutUint64(ext(b, 1)[8:], math.MaxUint64)
			le.PutUint32(ext(b, 1)[24:], 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, _ := goldenHeader()
			b := make([]byte, h.HeaderBytes)
			encodeHeader(b, h)
			c.change(b)
			sealHeader(b)
			if got, err := decodeHeader(b); !errors.Is(err, ErrBadRecord) {
				t.Fatalf("accepted as %+v, %v", got, err)
			}
		})
	}
}

// TestDecodeHeaderEveryByte: no changed byte passes the header crc.
func TestDecodeHeaderEveryByte(t *testing.T) {
	h, _ := goldenHeader()
	b := make([]byte, h.HeaderBytes)
	encodeHeader(b, h)
	for i := range b {
		for _, x := range []byte{1, 0x80, 0xff} {
			b[i] ^= x
			if _, err := decodeHeader(b); err == nil {
				t.Fatalf("byte %d changed by %#x passes", i, x)
			}
			b[i] ^= x
		}
	}
	if _, err := decodeHeader(b); err != nil {
		t.Fatal(err)
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

func FuzzDecodeHeader(f *testing.F) {
	h, _ := goldenHeader()
	b := make([]byte, h.HeaderBytes)
	encodeHeader(b, h)
	f.Add(b, true)
	h.Extents, h.Sums, h.Seqs, h.DataBytes = nil, nil, 0, 0
	b = make([]byte, h.HeaderBytes)
	encodeHeader(b, h)
	f.Add(b, true)
	h, _ = goldenReservation()
	b = make([]byte, h.HeaderBytes)
	encodeHeader(b, h)
	f.Add(b, true)
	f.Add([]byte("OVGJREC1"), false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal && len(b) >= fixedHeader {
			b = append([]byte(nil), b...)
			sealHeader(b)
		}
		var h *Header
		var err error
		if n := allocated(func() { h, err = decodeHeader(b) }); n > 16*uint64(len(b))+1<<20 {
			t.Fatalf("%d bytes allocated for %d of input", n, len(b))
		}
		if err != nil {
			return
		}
		// What was accepted can be used without fear, whatever the data are.
		h.verifyData(clustersum.NewSeed(h.VDisk), make([]byte, h.DataBytes))
		again := make([]byte, h.HeaderBytes)
		encodeHeader(again, h)
		if g, err := decodeHeader(again); err != nil || !g.sameContent(h) || g.Promise != h.Promise || g.Generation != h.Generation {
			t.Fatalf("does not survive another round: %v", err)
		}
	})
}

// FuzzScan recovers from a chunk of any content behind a valid opener.
func FuzzScan(f *testing.F) {
	kept, err := os.ReadFile(filepath.Join("testdata", "chunk.bin"))
	if err != nil {
		f.Fatal(err)
	}
	op, err := decodeHeader(kept[:4096])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(kept[openerBytes:], uint16(0))
	f.Add(kept[openerBytes:openerBytes+4096], uint16(0))
	f.Add(append(make([]byte, 4096), kept[openerBytes:]...), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, seal uint16) {
		chunk := make([]byte, testChunk)
		copy(chunk, kept[:openerBytes])
		copy(chunk[openerBytes:], b)
		// Give up to 16 pages that look like headers a right generation and crc.
		for i := range int64(16) {
			at := openerBytes + i*4096
			if n, err := peekHeader(chunk[at:]); seal&(1<<i) != 0 && err == nil && at+int64(n) <= testChunk {
				regenerate(chunk[at:at+int64(n)], op.Generation)
			}
		}
		m := blockfs.NewMem()
		if err := m.MkdirAll(testDir); err != nil {
			t.Fatal(err)
		}
		if err := blockfs.WriteFile(m, testDir+"/chunk-00000000", chunk); err != nil {
			t.Fatal(err)
		}
		p, err := OpenPool(poolOptions(m))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		r, err := Recover(p, diskA, 42, anyOf(9))
		var damaged *CorruptError
		if err != nil && !errors.As(err, &damaged) && !errors.Is(err, ErrNewerFormat) {
			t.Fatal(err)
		}
		if err == nil {
			for i, f := range r.Tail {
				if i > 0 && f.Header.Seq != r.Tail[i-1].Header.LastSeq()+1 {
					t.Fatal("tail with a hole")
				}
			}
			newTestLog(p, diskA, 10, r.LastSeq+1, r).Close()
		}
	})
}

// FuzzInspect: no chunk makes Inspect panic, or tell of a record that Recover would not
// believe.
func FuzzInspect(f *testing.F) {
	for _, name := range []string{"chunk.bin", "record.bin", "record-pin.bin", "record-reservation.bin"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end := int64(0)
		err := Inspect(bytes.NewReader(b), int64(len(b)), func(i Inspected) {
			if i.Opener {
				return
			}
			if i.Off < end || i.Problem == "" && i.Off+i.Header.size() > int64(len(b)) {
				t.Fatalf("%+v after %d, in %d bytes", i, end, len(b))
			}
			if end = i.Off + 1; i.Header != nil && i.Problem == "" {
				end = i.Off + i.Header.size()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
