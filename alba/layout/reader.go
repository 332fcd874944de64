package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/osd"
)

var errShort = errors.New("it ends early")

// reader takes values off an encoding; after the first error everything is zero.
type reader struct {
	b   []byte
	err error
}

// unseal checks format byte and checksum.
func unseal(b []byte, format byte, what string) (*reader, error) {
	if len(b) < 5 || len(b) > MaxManifestBytes {
		return nil, fmt.Errorf("%w: %s of %d bytes", ErrFormat, what, len(b))
	}
	if b[0] != format {
		return nil, fmt.Errorf("%w: %s of format %#x: it may be from a newer version", ErrFormat, what, b[0])
	}
	body := b[:len(b)-4]
	if osd.CRC(body) != binary.BigEndian.Uint32(b[len(body):]) {
		return nil, fmt.Errorf("%w: %s does not fit its checksum", ErrFormat, what)
	}
	return &reader{b: body[1:]}, nil
}

func (r *reader) fail(err error) {
	if err != nil && r.err == nil {
		r.err = err
	}
}

func (r *reader) next(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.fail(errShort)
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if b := r.next(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.err != nil || n <= 0 {
		r.fail(errShort)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uint32() uint32 {
	v := r.uint()
	if v > math.MaxUint32 {
		r.fail(fmt.Errorf("%d is too large", v))
		return 0
	}
	return uint32(v)
}

func (r *reader) bytes(limit int) []byte {
	n := r.uint()
	if n > uint64(limit) {
		r.fail(fmt.Errorf("%d bytes, at most %d", n, limit))
		return nil
	}
	return r.next(int(n))
}

func (r *reader) index() fragment.Index {
	if r.err != nil {
		return fragment.Index{}
	}
	x, rest, err := fragment.DecodeIndex(r.b)
	if err != nil {
		r.fail(err)
		return fragment.Index{}
	}
	r.b = rest
	return x
}

// end reports the first error, or bytes left over.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		return fmt.Errorf("%d bytes too many", len(r.b))
	}
	return r.err
}

func appendBytes(b, v []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(v))), v...)
}
