package fragment

import (
	"bytes"
	stdbzip2 "compress/bzip2"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/dsnet/compress/bzip2"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Compression is how the pieces of a fragment are compressed. The numbers are
// persisted and fixed for ever.
type Compression uint8

// Compressions. Snappy is the format of any snappy decoder (block, not framed);
// S2 is its extension, smaller and faster, and what to use by default; Zstd is for
// data that are rewritten in the background; Bzip2 is for those who ask for it.
const (
	None   Compression = 0
	Snappy Compression = 1
	S2     Compression = 2
	Zstd   Compression = 3
	Bzip2  Compression = 4
)

var compressionNames = [...]string{"none", "snappy", "s2", "zstd", "bz2"}

// String is the name as presets have it: none, snappy, s2, zstd, bz2.
func (c Compression) String() string {
	if c.valid() {
		return compressionNames[c]
	}
	return fmt.Sprintf("compression(%d)", uint8(c))
}

// ParseCompression is the inverse of String. ErrInvalid.
func ParseCompression(name string) (Compression, error) {
	for i, n := range compressionNames {
		if n == name {
			return Compression(i), nil
		}
	}
	return 0, fmt.Errorf("%w: compression %q is none of %v", ErrInvalid, name, compressionNames)
}

func (c Compression) valid() bool { return int(c) < len(compressionNames) }

// maxCompressed is the largest compressed payload that replaces a piece of n
// bytes: below a saving of 1/16, reading raw is worth more. 0: none does.
func maxCompressed(n int) int { return n - (n+15)/16 }

var zeros [PieceBytes]byte

func allZero(p []byte) bool { return bytes.Equal(p, zeros[:len(p)]) }

// scratchBytes is the capacity in which no compressor of a piece reallocates.
var scratchBytes = s2.MaxEncodedLen(PieceBytes)

// scratch pools buffers for a compressed payload on its way to or from encryption.
var scratch = sync.Pool{New: func() any { b := make([]byte, scratchBytes); return &b }}

// compress returns the compressed piece, in dst (of length 0) if its capacity
// allows; nil when that would not be shorter by 1/16.
func (c Compression) compress(dst, piece []byte) []byte {
	var out []byte
	switch c {
	case Snappy:
		out = s2.EncodeSnappy(dst[:cap(dst)], piece)
	case S2:
		out = s2.Encode(dst[:cap(dst)], piece)
	case Zstd:
		enc := zstdEncoders.Get().(*zstd.Encoder)
		out = enc.EncodeAll(piece, dst)
		zstdEncoders.Put(enc)
	case Bzip2:
		out = compressBzip2(dst, piece)
	}
	if len(out) == 0 || len(out) > maxCompressed(len(piece)) {
		return nil
	}
	return out
}

var errLength = errors.New("decompressed to another length")

// decompress fills dst, exactly, with what src is the compressed form of. A
// panic of a decoder is an error like the others: src may be anything, and one
// bad piece must not end a process that serves many.
func (c Compression) decompress(dst, src []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decoder failed: %v", r)
		}
	}()
	dst = dst[:len(dst):len(dst)]
	var out []byte
	switch c {
	case Snappy, S2:
		n, err := s2.DecodedLen(src)
		if err != nil {
			return err
		}
		if n != len(dst) {
			return errLength // before anything of that length is allocated
		}
		if out, err = s2.Decode(dst, src); err != nil {
			return err
		}
	case Zstd:
		dec := zstdDecoders.Get().(*zstd.Decoder)
		out, err = dec.DecodeAll(src, dst[:0])
		zstdDecoders.Put(dec)
		if err != nil {
			return err
		}
	case Bzip2:
		return decompressBzip2(dst, src)
	default:
		return fmt.Errorf("%w: %v", ErrInvalid, c)
	}
	if len(out) != len(dst) {
		return errLength
	}
	if &out[0] != &dst[0] {
		copy(dst, out)
	}
	return nil
}

// The default level: zstd is chosen for its ratio, the fast choice is S2.
var zstdEncoders = sync.Pool{New: func() any {
	enc, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(PieceBytes),
		zstd.WithSingleSegment(true),
		zstd.WithEncoderCRC(false)) // the piece has one
	if err != nil {
		panic(err) // only for wrong options
	}
	return enc
}}

var zstdDecoders = sync.Pool{New: func() any {
	dec, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxWindow(2*PieceBytes),
		zstd.WithDecoderMaxMemory(2*PieceBytes),
		zstd.WithDecodeAllCapLimit(true)) // output ends where dst does
	if err != nil {
		panic(err) // only for wrong options
	}
	return dec
}}

// bzip2Level is the smallest, blocks of 100 000 bytes: a piece fits one even
// when the run-length step before it adds a quarter.
const bzip2Level = 1

var bzip2Writers = sync.Pool{New: func() any {
	w, err := bzip2.NewWriter(nil, &bzip2.WriterConfig{Level: bzip2Level})
	if err != nil {
		panic(err) // only for a wrong level
	}
	return w
}}

// compressBzip2 returns nil when the writer fails: the piece is kept raw then.
func compressBzip2(dst, piece []byte) []byte {
	w := bzip2Writers.Get().(*bzip2.Writer)
	defer bzip2Writers.Put(w)
	out := bytes.NewBuffer(dst)
	if w.Reset(out) != nil {
		return nil
	}
	if _, err := w.Write(piece); err != nil {
		return nil
	}
	if w.Close() != nil {
		return nil
	}
	return out.Bytes()
}

// decompressBzip2 refuses larger blocks than are written, since the decoder
// allocates for a block what the stream's header says: 400 kB. A second stream,
// hidden behind the first, could still make it 3.6 MB. What it decodes is bounded
// by dst, so is the time.
func decompressBzip2(dst, src []byte) error {
	if len(src) < 4 || src[3] != '0'+bzip2Level {
		return errors.New("not a bzip2 stream of level 1")
	}
	r := stdbzip2.NewReader(bytes.NewReader(src))
	if _, err := io.ReadFull(r, dst); err != nil {
		return err
	}
	// The end has the checksum of the whole stream.
	var more [1]byte
	if n, err := r.Read(more[:]); n != 0 || err != io.EOF {
		if err == nil || err == io.EOF {
			err = errLength
		}
		return err
	}
	return nil
}
