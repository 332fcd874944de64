package forward

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/iscsi"
)

// samples are one message of each kind, and its form on the wire, which stays.
var samples = []struct {
	name   string
	encode func(*wire.Encoder)
	decode func([]byte) (func(*wire.Encoder), error)
	golden string
}{
	{"hello", (&hello{"c", "n", "p"}).encode, func(b []byte) (func(*wire.Encoder), error) {
		var m hello
		return m.encode, m.decode(b)
	}, "0163016e0170"},
	{"welcome", (&welcome{1, -3, "no"}).encode, func(b []byte) (func(*wire.Encoder), error) {
		var m welcome
		return m.encode, m.decode(b)
	}, "0105026e6f"},
	{"opening", (&opening{300, true, iscsi.NexusID{Target: "t", Initiator: "i", ISID: [6]byte{1, 2, 3, 4, 5, 6}, Group: 17}}).encode, func(b []byte) (func(*wire.Encoder), error) {
		var m opening
		return m.encode, m.decode(b)
	}, "ac02010174016906010203040506" + "11"},
	{"command", func(e *wire.Encoder) {
		(&command{7, 8, 9, "u", flagRead, 4096, [16]byte{0x88, 15: 1}, 1000}).encode(e, typeCommand)
	}, func(b []byte) (func(*wire.Encoder), error) {
		var m command
		return func(e *wire.Encoder) { m.encode(e, typeCommand) }, m.decode(b, typeCommand)
	}, "0708090175" + "01" + "8020" + "10" + "88000000000000000000000000000001" + "d00f"},
	{"reset", func(e *wire.Encoder) { (&command{nexus: 7, tag: 8, lun: 9, unit: "u"}).encode(e, typeReset) }, func(b []byte) (func(*wire.Encoder), error) {
		var m command
		return func(e *wire.Encoder) { m.encode(e, typeReset) }, m.decode(b, typeReset)
	}, "0708090175"},
	{"mark", (&mark{7, 8, codeRefused}).encode, func(b []byte) (func(*wire.Encoder), error) {
		var m mark
		return m.encode, m.decode(b)
	}, "070801"},
	{"answer", (&answer{7, 8, iscsi.OutcomeDone, 2, 512, []byte{0x70}}).encode, func(b []byte) (func(*wire.Encoder), error) {
		var m answer
		return m.encode, m.decode(b)
	}, "07080102" + "8004" + "0170"},
}

// TestMessages: what is sent is what arrives, in a form that stays; cut or with more behind
// it is refused.
func TestMessages(t *testing.T) {
	for _, s := range samples {
		var e wire.Encoder
		s.encode(&e)
		if got := hex.EncodeToString(e.B); got != s.golden {
			t.Errorf("%s\n got %s\nwant %s", s.name, got, s.golden)
		}
		if len(e.B) > maxMeta {
			t.Errorf("%s has %d bytes", s.name, len(e.B))
		}
		for n := range e.B {
			if _, err := s.decode(e.B[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes are taken", s.name, n, len(e.B))
			}
		}
		if _, err := s.decode(append(e.B, 0)); err == nil {
			t.Errorf("%s: a byte too many is taken", s.name)
		}
	}
}

// TestBounds: the longest names fit, and longer ones are refused.
func TestBounds(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), maxIQN))
	var e wire.Encoder
	(&opening{1<<64 - 1, true, iscsi.NexusID{Target: long, Initiator: long, Group: 0xffff}}).encode(&e)
	var o opening
	if err := o.decode(e.B); err != nil || len(e.B) > maxMeta {
		t.Errorf("%d bytes: %v", len(e.B), err)
	}
	e.B = nil
	(&opening{1, true, iscsi.NexusID{Target: long + "x", Initiator: long}}).encode(&e)
	if err := o.decode(e.B); err == nil {
		t.Error("a name that is too long is taken")
	}
	for _, a := range []answer{{outcome: 0}, {outcome: iscsi.OutcomeUnknown}, {outcome: iscsi.OutcomeDone, sense: make([]byte, maxText+1)}} {
		e.B = nil
		a.encode(&e)
		if err := new(answer).decode(e.B); err == nil {
			t.Errorf("%+v is taken", a)
		}
	}
}

// FuzzMessages: every decoder takes what it would send, and nothing else.
func FuzzMessages(f *testing.F) {
	for i, s := range samples {
		var e wire.Encoder
		s.encode(&e)
		f.Add(uint8(i), e.B)
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		s := samples[int(kind)%len(samples)]
		encode, err := s.decode(b)
		if err != nil {
			return
		}
		var e wire.Encoder
		encode(&e)
		if !bytes.Equal(e.B, b) {
			t.Errorf("%s: %x is sent as %x", s.name, b, e.B)
		}
	})
}
