package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"testing/iotest"
	"time"

	"github.com/openvstorage/ovgate/internal/leaktest"
	"github.com/openvstorage/ovgate/internal/wire"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var (
	proto  = wire.Protocol{Magic: [4]byte{'T', 'E', 'S', 'T'}, Version: 3}
	limits = wire.Limits{Meta: 1 << 20, Body: 4 << 20}
)

// stream is a net.Conn over a reader and a writer; the rest of net.Conn is not used.
type stream struct {
	net.Conn
	r      io.Reader
	w      io.Writer
	writes int
}

func (s *stream) Read(p []byte) (int, error) { return s.r.Read(p) }

func (s *stream) Write(p []byte) (int, error) {
	s.writes++
	return s.w.Write(p)
}

// frame returns the bytes of one frame.
func frame(t testing.TB, typ, flags uint16, meta []byte, body ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := wire.NewConn(&stream{w: &out}, proto, limits).Send(typ, flags, meta, body...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func reader(b []byte) *wire.Conn { return wire.NewConn(&stream{r: bytes.NewReader(b)}, proto, limits) }

func TestGolden(t *testing.T) {
	const want = "54455354" + "0003" + "0102" + "8001" + "0000" + "00000002" + "00000003" + "23e396eb" + "6d6d" + "626f64"
	if got := hex.EncodeToString(frame(t, 0x102, 0x8001, []byte("mm"), []byte("bod"))); got != want {
		t.Fatalf("frame\n got %s\nwant %s", got, want)
	}
}

// TestFrames sends frames of many shapes through a TCP connection and through one
// without writev, and reads them back in pieces.
func TestFrames(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, kind := range []string{"tcp", "memory"} {
		t.Run(kind, func(t *testing.T) {
			var a, b net.Conn
			if kind == "memory" {
				a, b = net.Pipe()
			} else {
				if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
					t.Fatal(err)
				}
				if b, err = l.Accept(); err != nil {
					t.Fatal(err)
				}
			}
			defer a.Close()
			defer b.Close()
			checkFrames(t, wire.NewConn(a, proto, limits), wire.NewConn(b, proto, limits))
		})
	}
}

func checkFrames(t *testing.T, from, to *wire.Conn) {
	const frames = 60
	shapes := func(yield func(i int, meta []byte, body [][]byte)) {
		r := rand.New(rand.NewPCG(1, 2))
		fill := func(n int) []byte {
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			return p
		}
		sizes := []int{0, 1, 100, 4096, 8192, 8193, 20000, 40000, 70000}
		for i := range frames {
			meta := fill(sizes[r.IntN(len(sizes))])
			body := make([][]byte, r.IntN(12))
			for j := range body {
				body[j] = fill(sizes[r.IntN(len(sizes))])
			}
			yield(i, meta, body)
		}
	}
	sent := make(chan error, 1)
	go func() {
		var failed error
		shapes(func(i int, meta []byte, body [][]byte) {
			if failed == nil {
				failed = from.Send(uint16(i), uint16(i)<<4, meta, body...)
			}
		})
		sent <- failed
	}()
	shapes(func(i int, meta []byte, body [][]byte) {
		h, err := to.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Type != uint16(i) || h.Flags != uint16(i)<<4 {
			t.Fatalf("frame %d: header %+v", i, h)
		}
		m, err := to.Meta()
		if err != nil || !bytes.Equal(m, meta) {
			t.Fatalf("frame %d: meta differs, %v", i, err)
		}
		for _, want := range body {
			got := make([]byte, len(want))
			if err := to.Body(got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("frame %d: body differs, %v", i, err)
			}
		}
		if to.BodyLeft() != 0 {
			t.Fatalf("frame %d: %d bytes left", i, to.BodyLeft())
		}
	})
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// TestFewWrites: many small values leave in few writes, and one large is not copied.
func TestFewWrites(t *testing.T) {
	s := &stream{w: io.Discard}
	c := wire.NewConn(s, proto, limits)
	small := make([][]byte, 1000)
	for i := range small {
		small[i] = make([]byte, 100)
	}
	if err := c.Send(1, 0, make([]byte, 50), small...); err != nil {
		t.Fatal(err)
	}
	if s.writes > 4 {
		t.Errorf("100 kB in pieces of 100 bytes took %d writes", s.writes)
	}
	s.writes = 0
	if err := c.Send(1, 0, make([]byte, 50), make([]byte, 1<<20), make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if s.writes != 3 {
		t.Errorf("header, 1 MiB and a tail took %d writes, want 3", s.writes)
	}
}

func TestRefused(t *testing.T) {
	good := frame(t, 1, 0, []byte("meta"), []byte("body"))
	with := func(off int, b ...byte) []byte {
		p := bytes.Clone(good)
		copy(p[off:], b)
		return p
	}
	for _, tc := range []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, io.EOF},
		{"half a header", good[:10], io.ErrUnexpectedEOF},
		{"half of meta", good[:26], io.ErrUnexpectedEOF},
		{"half of body", good[:30], io.ErrUnexpectedEOF},
		{"magic", with(0, 'X'), wire.ErrMagic},
		{"version", with(4, 9), wire.ErrVersion},
		{"type", with(6, 9), wire.ErrDamaged},
		{"flags", with(8, 9), wire.ErrDamaged},
		{"reserved", with(10, 9), wire.ErrDamaged},
		{"meta too long", with(12, 0xff, 0xff, 0xff, 0xff), wire.ErrTooLarge},
		{"meta just too long", with(12, 0, 0x10, 0, 1), wire.ErrTooLarge},
		{"meta longer than what comes", with(12, 0, 0x10, 0, 0), io.ErrUnexpectedEOF},
		{"body too long", with(16, 0xff, 0xff, 0xff, 0xff), wire.ErrTooLarge},
		{"body length", with(19, 3), wire.ErrDamaged},
		{"crc", with(20, good[20]+1), wire.ErrDamaged},
		{"meta", with(24, 'X'), wire.ErrDamaged},
		{"http", []byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n"), wire.ErrMagic},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := reader(tc.in)
			err := readAll(c)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if _, again := c.Next(); again != err { // the same one (W3)
				t.Errorf("after %v, Next returned %v", err, again)
			}
		})
	}
}

// readAll reads frames until an error.
func readAll(c *wire.Conn) error {
	buf := make([]byte, 1000)
	for {
		if _, err := c.Next(); err != nil {
			return err
		}
		if _, err := c.Meta(); err != nil {
			return err
		}
		for c.BodyLeft() > 0 {
			if err := c.Body(buf[:min(len(buf), c.BodyLeft())]); err != nil {
				return err
			}
		}
	}
}

// TestHugeMetaNotAllocated: an announced length takes no memory (W1).
func TestHugeMetaNotAllocated(t *testing.T) {
	big := wire.Limits{Meta: 1 << 30, Body: 1 << 30}
	in := bytes.Clone(frame(t, 1, 0, []byte("meta")))
	copy(in[12:], []byte{0x3f, 0xff, 0xff, 0xff})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := readAll(wire.NewConn(&stream{r: bytes.NewReader(in)}, proto, big)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10 {
		t.Errorf("%d bytes allocated for a frame of 28", n)
	}
}

func TestMisuse(t *testing.T) {
	c := reader(frame(t, 1, 0, []byte("meta"), []byte("body")))
	for _, step := range []func() error{
		func() error { _, err := c.Meta(); return err },
		func() error { _, _ = c.Next(); return c.Body(make([]byte, 1)) },
		func() error { _, err := c.Next(); return err },
		func() error { _, _ = c.Meta(); return c.Body(make([]byte, 5)) },
		func() error { _, err := c.Next(); return err },
	} {
		if err := step(); !errors.Is(err, wire.ErrUse) {
			t.Fatalf("got %v", err)
		}
	}
	body := make([]byte, 4)
	if err := c.Body(body); err != nil || string(body) != "body" {
		t.Fatalf("%q, %v", body, err)
	}
}

func TestSkip(t *testing.T) {
	long := make([]byte, 100000)
	c := reader(append(frame(t, 1, 0, []byte("meta"), long), frame(t, 2, 0, nil, long)[:90000]...))
	_, _ = c.Next()
	if err := c.Skip(); !errors.Is(err, wire.ErrUse) {
		t.Fatalf("before Meta: %v", err)
	}
	_, _ = c.Meta()
	if err := errors.Join(c.Body(long[:10]), c.Skip(), c.Skip()); err != nil || c.BodyLeft() != 0 {
		t.Fatalf("%v, %d bytes left", err, c.BodyLeft())
	}
	if h, err := c.Next(); err != nil || h.Type != 2 {
		t.Fatalf("%+v, %v", h, err)
	}
	_, _ = c.Meta()
	if err := c.Skip(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("of a body that is cut: %v", err)
	}
}

// TestWriteErrorIsFinal: W3 for the sending side.
func TestWriteErrorIsFinal(t *testing.T) {
	s := &stream{w: iotestWriter{}}
	c := wire.NewConn(s, proto, limits)
	for range 2 {
		if err := c.Send(1, 0, nil, make([]byte, 1<<20)); !errors.Is(err, iotest.ErrTimeout) {
			t.Fatalf("got %v", err)
		}
	}
	if s.writes != 1 {
		t.Errorf("%d writes, want 1", s.writes)
	}
}

type iotestWriter struct{}

func (iotestWriter) Write([]byte) (int, error) { return 0, iotest.ErrTimeout }

func TestCodec(t *testing.T) {
	var e wire.Encoder
	e.Uint8(7)
	e.Bool(true)
	e.Uint32(1 << 31)
	e.Uint64(1 << 63)
	for _, v := range []uint64{0, 127, 128, 1 << 40, 1<<64 - 1} {
		e.Uvarint(v)
	}
	for _, v := range []int64{0, -1, 1, -1 << 63, 1<<63 - 1} {
		e.Varint(v)
	}
	e.Bytes([]byte("bytes"))
	e.String("")
	d := wire.NewDecoder(e.B)
	got := fmt.Sprintln(d.Uint8(), d.Bool(), d.Uint32(), d.Uint64(), d.Uvarint(), d.Uvarint(), d.Uvarint(), d.Uvarint(), d.Uvarint(),
		d.Varint(), d.Varint(), d.Varint(), d.Varint(), d.Varint(), string(d.Bytes(5)), d.String(0))
	want := "7 true 2147483648 9223372036854775808 0 127 128 1099511627776 18446744073709551615 0 -1 1 -9223372036854775808 9223372036854775807 bytes \n"
	if got != want || d.Done() != nil {
		t.Fatalf("got %s, %v\nwant %s", got, d.Done(), want)
	}
}

func TestCodecRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []byte
		read func(d *wire.Decoder)
	}{
		{"short", []byte{1, 2, 3}, func(d *wire.Decoder) { d.Uint32() }},
		{"long", []byte{1, 2}, func(d *wire.Decoder) { d.Uint8() }},
		{"bool", []byte{2}, func(d *wire.Decoder) { d.Bool() }},
		{"not shortest", []byte{0x80, 0}, func(d *wire.Decoder) { d.Uvarint() }},
		{"beyond 64 bits", bytes.Repeat([]byte{0xff}, 11), func(d *wire.Decoder) { d.Uvarint() }},
		{"no end", []byte{0x80}, func(d *wire.Decoder) { d.Uvarint() }},
		{"limit", []byte{5}, func(d *wire.Decoder) { d.Uint(4) }},
		{"negative limit", []byte{5}, func(d *wire.Decoder) { d.Uint(-1) }},
		{"bytes", []byte{5, 1, 2}, func(d *wire.Decoder) { d.Bytes(10) }},
		{"bytes beyond the limit", []byte{3, 1, 2, 3}, func(d *wire.Decoder) { d.Bytes(2) }},
		{"count", []byte{3, 1, 2, 3, 4, 5}, func(d *wire.Decoder) { d.Count(100, 2) }},
	} {
		d := wire.NewDecoder(tc.in)
		tc.read(&d)
		if err := d.Done(); !errors.Is(err, wire.ErrMeta) {
			t.Errorf("%s: %v", tc.name, err)
		}
		first := d.Err()
		if d.Uvarint() != 0 || len(d.Bytes(9)) != 0 || d.Err() != first {
			t.Errorf("%s: the error is not kept", tc.name)
		}
	}
}

// FuzzConn reads whatever arrives: no crash, bounded frames.
func FuzzConn(f *testing.F) {
	f.Add(frame(f, 1, 2, []byte("meta"), []byte("body")))
	f.Add(append(frame(f, 1, 2, nil), frame(f, 3, 4, []byte("m"))...))
	f.Add([]byte("TEST"))
	f.Add(frame(f, 1, 2, make([]byte, 70000), make([]byte, 9000))[:60000])
	f.Fuzz(func(t *testing.T, in []byte) {
		c := reader(in)
		if err := readAll(c); err == nil {
			t.Fatal("no end")
		}
	})
}

// FuzzHeader: what Next accepts is what Send writes (W5).
func FuzzHeader(f *testing.F) {
	f.Add(frame(f, 1, 2, []byte("meta"), []byte("body")))
	f.Add(frame(f, 0xffff, 0xffff, nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := reader(in)
		h, err := c.Next()
		if err != nil {
			return
		}
		meta, err := c.Meta()
		if err != nil {
			return
		}
		body := make([]byte, h.Body)
		if c.Body(body) != nil {
			return
		}
		if out := frame(t, h.Type, h.Flags, meta, body); !bytes.Equal(out, in[:len(out)]) {
			t.Fatalf("read\n%x, wrote\n%x", in[:len(out)], out)
		}
	})
}

// FuzzDecoder drives a decoder by a program: each byte of ops is a call. What was
// accepted encodes to the same bytes (W5).
func FuzzDecoder(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7}, []byte("\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x05\x06\x02ab\x01c"))
	f.Add([]byte{4, 4}, []byte{0x80, 0, 0x80})
	f.Fuzz(func(t *testing.T, ops, in []byte) {
		d := wire.NewDecoder(in)
		var e wire.Encoder
		for _, op := range ops {
			switch op % 9 {
			case 0:
				e.Uint8(d.Uint8())
			case 1:
				e.Bool(d.Bool())
			case 2:
				e.Uint32(d.Uint32())
			case 3:
				e.Uint64(d.Uint64())
			case 4:
				e.Uvarint(d.Uvarint())
			case 5:
				e.Varint(d.Varint())
			case 6:
				e.Bytes(d.Bytes(int(op)))
			case 7:
				e.String(d.String(int(op)))
			case 8:
				n := d.Count(1000, 3)
				if n*3 > d.Left() {
					t.Fatalf("%d elements of 3 in %d bytes", n, d.Left())
				}
				e.Uvarint(uint64(n))
			}
			if d.Err() != nil {
				return
			}
		}
		if n := len(in) - d.Left(); !bytes.Equal(e.B, in[:n]) {
			t.Fatalf("read %x, wrote %x", in[:n], e.B)
		}
	})
}

func BenchmarkSend1MiB(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	a, err := net.DialTimeout("tcp", l.Addr().String(), time.Minute)
	if err != nil {
		b.Fatal(err)
	}
	peer, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		c, dst := wire.NewConn(peer, proto, limits), make([]byte, 1<<20)
		for {
			if _, err := c.Next(); err != nil {
				done <- err
				return
			}
			if _, err := c.Meta(); err != nil {
				done <- err
				return
			}
			if err := c.Body(dst); err != nil {
				done <- err
				return
			}
		}
	}()
	c, body, meta := wire.NewConn(a, proto, limits), make([]byte, 1<<20), make([]byte, 40)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Send(1, 0, meta, body); err != nil {
			b.Fatal(err)
		}
	}
	a.Close()
	if err := <-done; !errors.Is(err, io.EOF) {
		b.Fatal(err)
	}
	peer.Close()
}
