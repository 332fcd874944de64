package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/wire"
)

// fuzzCodec checks a decoder with its encoder: no crash, and what is accepted is
// what the encoder writes.
func fuzzCodec(f *testing.F, recode func(d *wire.Decoder, e *wire.Encoder) error, seeds ...func(e *wire.Encoder)) {
	for _, seed := range seeds {
		var e wire.Encoder
		seed(&e)
		d, again := wire.NewDecoder(e.B), wire.Encoder{}
		if err := recode(&d, &again); err != nil {
			f.Fatalf("seed %x: %v", e.B, err)
		}
		f.Add(e.B)
		f.Add(e.B[:len(e.B)/2])
		f.Add(append(bytes.Clone(e.B), 0))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d, e := wire.NewDecoder(in), wire.Encoder{}
		err := recode(&d, &e)
		if err != nil {
			if !errors.Is(err, wire.ErrMeta) {
				t.Fatalf("unexpected %v", err)
			}
			return
		}
		if !bytes.Equal(e.B, in) {
			t.Fatalf("read %x, wrote %x", in, e.B)
		}
	})
}

func FuzzGet(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		var r getRequest
		err := r.decode(d)
		r.encode(e)
		return err
	}, (&getRequest{osd.Low, 4096, [][]byte{[]byte("a"), []byte("bc")}}).encode, (&getRequest{limit: -1}).encode)
}

func FuzzGetReply(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		heads, total, err := decodeValues(d)
		if err != nil {
			return err
		}
		if total > osd.MaxValueBytes {
			return errors.New("too large")
		}
		values := make([]osd.Value, len(heads))
		for i, h := range heads {
			if h.there {
				values[i] = osd.Value{Data: make([]byte, h.size), CRC: h.crc}
			}
		}
		encodeValues(e, values)
		return nil
	}, func(e *wire.Encoder) { encodeValues(e, []osd.Value{{Data: []byte("x"), CRC: 1}, {}, {Data: []byte{}}}) })
}

func FuzzRead(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		var r readRequest
		err := r.decode(d)
		r.encode(e)
		return err
	}, (&readRequest{osd.Low, []byte("key"), 1 << 30, osd.MaxValueBytes}).encode, (&readRequest{off: -1}).encode)
}

func FuzzReadReply(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		sum, crc, err := decodeSum(d)
		e.Bool(sum)
		if sum {
			e.Uint32(crc)
		}
		return err
	}, func(e *wire.Encoder) { encodeSum(e, true, []byte("x")) }, func(e *wire.Encoder) { encodeSum(e, false, nil) })
}

func FuzzApply(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		var r applyRequest
		if err := r.decode(d); err != nil {
			return err
		}
		offsets, end := place(nil, r.sizes)
		last := 0
		for i, n := range r.sizes {
			if offsets[i] < last || n >= DirectBytes && offsets[i]%blockfs.Alignment != 0 {
				return errors.New("misplaced")
			}
			last = offsets[i] + n
		}
		if last != end || end > r.total+r.total/4 || r.total > osd.MaxApplyBytes {
			return errors.New("buffer of the wrong size")
		}
		if end > 1<<20 {
			return wire.ErrMeta // not worth the memory here
		}
		b := make([]byte, end)
		for i := range r.updates {
			if !r.updates[i].Delete {
				r.updates[i].Value = b[offsets[i] : offsets[i]+r.sizes[i]]
			}
		}
		encodeApply(e, r.asserts, r.updates, r.prio)
		return nil
	}, func(e *wire.Encoder) {
		encodeApply(e, []osd.Assert{{Key: []byte("a"), Value: []byte("v")}, {Key: []byte("b")}, {Key: []byte("c"), Value: []byte{}}},
			[]osd.Update{osd.Set([]byte("d"), []byte("value")), osd.Delete([]byte("e")), osd.Set([]byte("f"), nil),
				osd.Set([]byte("g"), make([]byte, DirectBytes))}, osd.Low)
	}, func(e *wire.Encoder) { encodeApply(e, nil, nil, osd.High) })
}

func FuzzList(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		var r listRequest
		err := r.decode(d)
		r.encode(e)
		return err
	}, (&listRequest{osd.Low, []byte("p"), []byte("pa"), 100}).encode)
}

func FuzzListReply(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		list, err := decodeEntries(d)
		encodeEntries(e, list)
		return err
	}, func(e *wire.Encoder) { encodeEntries(e, []osd.Entry{{Key: []byte("a"), Size: 1 << 40, CRC: 9}, {}}) })
}

func FuzzValidate(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		var r validateRequest
		err := r.decode(d)
		r.encode(e)
		return err
	}, (&validateRequest{[]byte("p"), []byte("pa"), 100, 1 << 30}).encode)
}

func FuzzValidateReply(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		v, err := decodeValidation(d)
		encodeValidation(e, &v)
		return err
	}, func(e *wire.Encoder) {
		encodeValidation(e, &osd.Validation{Keys: 3, Bytes: 9, Bad: [][]byte{[]byte("a"), []byte("b")}, Next: []byte("c")})
	}, func(e *wire.Encoder) { encodeValidation(e, &osd.Validation{}) })
}

func FuzzInfoReply(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		i, err := decodeInfo(d)
		encodeInfo(e, &i)
		return err
	}, func(e *wire.Encoder) {
		encodeInfo(e, &osd.Info{ID: "id", Run: "run", Applies: 1, Total: 2, Used: 3, Limit: 4, Free: 5, Full: true, Version: "v"})
	})
}

func FuzzStatsReply(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		s, err := decodeStats(d)
		encodeStats(e, &s)
		return err
	}, func(e *wire.Encoder) { encodeStats(e, &osd.Stats{Reads: 1, Errors: 1 << 60}) })
}

func FuzzFailure(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		r, err := decodeFailure(d)
		if err == nil && r.err().Error() != cleanText(r.text) {
			return errors.New("other text")
		}
		r.encode(e)
		return err
	}, newFailure(&osd.AssertError{Key: []byte("k")}).encode, newFailure(osd.ErrFull).encode, newFailure(errors.New("x")).encode)
}

func FuzzHandshake(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		m, nonce, err := decodeHello(d)
		e.Uint8(m)
		e.Bytes(nonce[:])
		return err
	}, func(e *wire.Encoder) {
		e.Uint8(modePlain)
		e.Bytes(make([]byte, nonceBytes))
	})
}

func FuzzWelcome(f *testing.F) {
	fuzzCodec(f, func(d *wire.Decoder, e *wire.Encoder) error {
		mac, id, err := decodeWelcome(d)
		e.Bytes(mac[:])
		e.String(id)
		return err
	}, func(e *wire.Encoder) {
		e.Bytes(make([]byte, macBytes))
		e.String("id")
	})
}

// tape is a net.Conn that reads what was put on it, and keeps what is written.
type tape struct {
	net.Conn
	in, out bytes.Buffer
}

func (c *tape) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *tape) Write(p []byte) (int, error) { return c.out.Write(p) }
func (c *tape) Close() error                { return nil }

// FuzzRequest lets a server with a device answer two frames of one who knows the
// key: any type, flags, meta and body. What it says is well-formed, and the memory
// is given back.
func FuzzRequest(f *testing.F) {
	seed := func(typ uint16, body []byte, encode func(e *wire.Encoder)) {
		var e wire.Encoder
		e.Uvarint(1000)
		encode(&e)
		f.Add(typ, uint16(0), e.B, body)
	}
	seed(typeInfo, nil, func(*wire.Encoder) {})
	seed(typeStats, nil, func(*wire.Encoder) {})
	seed(typeGet, nil, (&getRequest{osd.Low, 100, [][]byte{[]byte("k"), []byte("n")}}).encode)
	seed(typeRead, nil, (&readRequest{osd.High, []byte("k"), 1, 2}).encode)
	seed(typeApply, []byte("value"), func(e *wire.Encoder) {
		encodeApply(e, []osd.Assert{{Key: []byte("n")}}, []osd.Update{osd.Set([]byte("k"), []byte("value"))}, osd.High)
	})
	seed(typeList, nil, (&listRequest{osd.High, nil, nil, 0}).encode)
	seed(typeValidate, nil, (&validateRequest{nil, nil, 10, 10}).encode)
	seed(typeHello, nil, func(*wire.Encoder) {})
	f.Fuzz(func(t *testing.T, typ, flags uint16, meta, body []byte) {
		dev := osdtest.NewMem("dev")
		if err := dev.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("k"), []byte("xyz"))}, osd.High); err != nil {
			t.Fatal(err)
		}
		s, err := NewServer(t.Context(), dev, ServerOptions{Key: make([]byte, KeyBytes), Plain: true, Clock: clock.Real{}, Rand: rand.Reader})
		if err != nil {
			t.Fatal(err)
		}
		raw := &tape{}
		for range 2 {
			if err := wire.NewConn(&tapeWriter{w: &raw.in}, protocol, wire.Limits{}).Send(typ, flags, meta, body); err != nil {
				t.Fatal(err)
			}
		}
		c := &serverConn{s: s, raw: raw, w: wire.NewConn(raw, protocol, requestLimits)}
		c.ctx, c.cancel = context.WithCancel(t.Context())
		defer c.cancel()
		for err == nil {
			var h wire.Head
			if h, err = c.w.Next(); err == nil {
				err = c.request(h)
			}
		}
		if st := s.Status(); st.Memory != 0 {
			t.Fatalf("%d bytes of memory are lost", st.Memory)
		}
		answers := wire.NewConn(&tape{in: raw.out}, protocol, replyLimits)
		for {
			h, err := answers.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if h.Type != typ+typeReply && h.Type != typeFailure {
				t.Fatalf("message %d in answer to %d", h.Type, typ)
			}
			if _, err := answers.Meta(); err != nil {
				t.Fatal(err)
			}
			if err := answers.Skip(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// tapeWriter is a net.Conn that only writes.
type tapeWriter struct {
	net.Conn
	w io.Writer
}

func (c *tapeWriter) Write(p []byte) (int, error) { return c.w.Write(p) }
