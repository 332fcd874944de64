package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// A frame is one write of the group log: records of several chunks, that are durable with it
// and not in their chunks yet. All integers are little-endian.
//
//	  0  magic    "OVGJGRP1"          48  oldest      u64 number of the oldest frame needed
//	  8  version  u16 = 1             56  records     u32 count
//	 10  flags    u16 = 0             60  reserved    u32 = 0
//	 12  header   u32 bytes, 4 KiB n  64  records     24 bytes each
//	 16  data     u32 bytes               headers     of the records, without the zeros
//	 20  crc32c   u32 of the header,                  at their ends
//	              this field as 0         zeros to the end of the header
//	 24  run      16 bytes                data        of the records
//	 40  number   u64
//
//	record:  chunk number u64 | offset in the chunk u64 | header bytes u32, without zeros |
//	         data bytes u32
//
// A run is one opening of the pool.
const (
	frameVersion = 1
	frameHeader  = 64
	frameRecord  = 24
	// maxFrameRecords bounds the records of a frame, and maxFrame its size in bytes.
	maxFrameRecords = 1024
	maxFrame        = 4 << 20
	// emptyFrame is the size of a frame without records.
	emptyFrame = blockfs.Alignment
)

var frameMagic = [8]byte{'O', 'V', 'G', 'J', 'G', 'R', 'P', '1'}

// frame is a decoded header of one.
type frame struct {
	headerBytes, dataBytes uint32
	run                    [16]byte
	number, oldest         uint64
	records                []framed
}

// framed is a record of a frame.
type framed struct {
	chunk  uint64 // number of its file
	off    int64  // of the record in the chunk
	header []byte // encoded, with its zeros
	data   uint32 // bytes
}

func (f *frame) size() int64 { return int64(f.headerBytes) + int64(f.dataBytes) }

// trimmed returns how long an encoded record header is without the zeros at its end.
func trimmed(header []byte) int {
	le := binary.LittleEndian
	return fixedHeader + int(le.Uint32(header[80:]))*extentBytes + int(le.Uint32(header[84:]))*sumBytes
}

// frameSize returns the header and data bytes of a frame.
type frameSize struct{ records, headers, data int }

// add returns the size with one more record.
func (s frameSize) add(r *Record) frameSize {
	return frameSize{s.records + 1, s.headers + trimmed(r.buf), s.data + len(r.buf) - r.header}
}

func (s frameSize) header() int {
	n := frameHeader + s.records*frameRecord + s.headers
	return (n + blockfs.Alignment - 1) &^ (blockfs.Alignment - 1)
}

func (s frameSize) total() int { return s.header() + s.data }

// encodeFrame writes a frame of records into b, and returns it.
func encodeFrame(b []byte, run [16]byte, number, oldest uint64, records []*Record) []byte {
	var s frameSize
	for _, r := range records {
		s = s.add(r)
	}
	hdr := s.header()
	b = b[:s.total()]
	clear(b[:hdr])
	le := binary.LittleEndian
	copy(b, frameMagic[:])
	le.PutUint16(b[8:], frameVersion)
	le.PutUint32(b[12:], uint32(hdr))
	le.PutUint32(b[16:], uint32(s.data))
	copy(b[24:40], run[:])
	le.PutUint64(b[40:], number)
	le.PutUint64(b[48:], oldest)
	le.PutUint32(b[56:], uint32(len(records)))
	at, head, data := b[frameHeader:], b[frameHeader+len(records)*frameRecord:], b[hdr:]
	for _, r := range records {
		n := trimmed(r.buf)
		le.PutUint64(at, r.chunk.file.number)
		le.PutUint64(at[8:], uint64(r.start()))
		le.PutUint32(at[16:], uint32(n))
		le.PutUint32(at[20:], uint32(len(r.buf)-r.header))
		at = at[frameRecord:]
		head = head[copy(head, r.buf[:n]):]
		data = data[copy(data, r.buf[r.header:]):]
	}
	sealHeader(b[:hdr])
	return b
}

// peekFrame tells from the first bytes of b (at least frameHeader) how long the header of a
// frame claims to be; ErrBadRecord if it cannot be one.
func peekFrame(b []byte) (int, error) {
	le := binary.LittleEndian
	if len(b) < frameHeader || !bytes.Equal(b[:8], frameMagic[:]) {
		return 0, ErrBadRecord
	}
	if v := le.Uint16(b[8:]); v > frameVersion {
		return 0, fmt.Errorf("%w (%d)", ErrNewerFormat, v)
	}
	n := le.Uint32(b[12:])
	if n < blockfs.Alignment || n > maxFrame || n%blockfs.Alignment != 0 {
		return 0, ErrBadRecord
	}
	return int(n), nil
}

// decodeFrame reads the header of a frame from b, exactly the bytes that peekFrame named.
// It checks all that can be checked without the data.
func decodeFrame(b []byte) (*frame, error) {
	n, err := peekFrame(b)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if n != len(b) || crcOf(b) != le.Uint32(b[20:]) {
		return nil, ErrBadRecord
	}
	f := &frame{headerBytes: uint32(n), dataBytes: le.Uint32(b[16:]), number: le.Uint64(b[40:]), oldest: le.Uint64(b[48:])}
	copy(f.run[:], b[24:40])
	count := le.Uint32(b[56:])
	if count > maxFrameRecords || frameHeader+int(count)*frameRecord > n || f.dataBytes > maxFrame || f.dataBytes%blockfs.Alignment != 0 ||
		f.number == 0 || f.oldest == 0 || f.oldest > f.number {
		return nil, ErrBadRecord
	}
	at, head := b[frameHeader:], b[frameHeader+int(count)*frameRecord:]
	data := uint64(0)
	for range count {
		r := framed{chunk: le.Uint64(at), off: int64(le.Uint64(at[8:])), data: le.Uint32(at[20:])}
		short := int(le.Uint32(at[16:]))
		at = at[frameRecord:]
		if short < fixedHeader || short > len(head) || r.off < openerBytes || r.off%blockfs.Alignment != 0 {
			return nil, ErrBadRecord
		}
		full, err := peekHeader(head[:short])
		if errors.Is(err, ErrNewerFormat) {
			return nil, err
		}
		if err != nil || full < short {
			return nil, ErrBadRecord
		}
		r.header = blockfs.AlignedBuffer(full)
		clear(r.header[copy(r.header, head[:short]):])
		head = head[short:]
		if data += uint64(r.data); data > uint64(f.dataBytes) {
			return nil, ErrBadRecord
		}
		f.records = append(f.records, r)
	}
	if data != uint64(f.dataBytes) {
		return nil, ErrBadRecord
	}
	return f, nil
}

// record returns a record of the frame whole, as it belongs into its chunk, from the data of
// the frame behind those of the records before it. ErrBadRecord: it is not valid.
func (r *framed) record(data []byte) (*Header, []byte, error) {
	h, err := decodeHeader(r.header)
	if err != nil {
		return nil, nil, err
	}
	if h.DataBytes != r.data || !h.verifyData(clustersum.NewSeed(h.VDisk), data[:r.data]) {
		return nil, nil, ErrBadRecord
	}
	b := blockfs.AlignedBuffer(int(h.size()))
	copy(b[copy(b, r.header):], data[:r.data])
	return h, b, nil
}
