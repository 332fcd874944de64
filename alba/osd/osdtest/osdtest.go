// Package osdtest is the conformance suite of osd.OSD, and Mem, a device in
// memory for the tests of what stands above. Every implementation runs the suite
// in its own tests:
//
//	func TestStore(t *testing.T) {
//		osdtest.Run(t, osdtest.Options{New: newStore})
//	}
//
// It checks the obligations D1-D7 as far as they show from outside. It does not
// check durability, which needs a power cut, nor D8, which needs a wire; the
// implementations' own tests do.
package osdtest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
)

// bigBytes is the size of the big value: that of a fragment of a large preset.
const bigBytes = 8 << 20

// Options describe the device under test.
type Options struct {
	// New returns an empty device. The suite closes it; whatever else must be
	// torn down is up to t.Cleanup.
	New func(t *testing.T) osd.OSD
	// SetFull makes a device of New full, or no longer. nil leaves D5 unchecked.
	SetFull func(t *testing.T, d osd.OSD, full bool)
	// Corrupt flips a bit of a stored value. nil leaves damage unchecked.
	Corrupt func(t *testing.T, d osd.OSD, key []byte, off int64)
}

// Run runs the suite.
func Run(t *testing.T, o Options) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s suite)
	}{
		{"RoundTrip", roundTrip},
		{"Overwrite", overwrite},
		{"Delete", deletes},
		{"Big", big},
		{"Several", several},
		{"Asserts", asserts},
		{"AssertRace", assertRace},
		{"CompareAndSwap", compareAndSwap},
		{"Atomic", atomicReads},
		{"OverwriteUnderReaders", overwriteUnderReaders},
		{"Ranges", ranges},
		{"GetLimits", getLimits},
		{"List", list},
		{"ListWhileChanging", listWhileChanging},
		{"Validate", validate},
		{"Damage", damage},
		{"WrongCRC", wrongCRC},
		{"Invalid", invalid},
		{"Buffers", buffers},
		{"Info", info},
		{"Full", full},
		{"Priorities", priorities},
		{"Cancelled", cancelled},
		{"Closed", closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := o.New(t)
			t.Cleanup(func() {
				if err := d.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			c.run(t, suite{OSD: d, o: o})
		})
	}
}

// suite is what a check works on.
type suite struct {
	osd.OSD
	o Options
}

// Data returns n bytes that depend on the seed and the position, so that a mixed
// or shifted value shows.
func Data(seed uint64, n int) []byte {
	data := make([]byte, n+7)
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	for i := 0; i < n; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			if i+j < len(data) {
				data[i+j] = byte(v >> (8 * j))
			}
		}
	}
	return data[:n:n]
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func mustBe(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: error %v, want %v", what, err, want)
	}
}

// apply makes updates without asserts.
func (s suite) apply(t *testing.T, updates ...osd.Update) {
	t.Helper()
	must(t, "apply", s.Apply(t.Context(), nil, updates, osd.High))
}

func (s suite) set(t *testing.T, key string, value []byte) {
	t.Helper()
	s.apply(t, osd.Set([]byte(key), value))
}

// mustHold checks a value through Get, Read and List.
func (s suite) mustHold(t *testing.T, key string, want []byte) {
	t.Helper()
	got, err := s.Get(t.Context(), [][]byte{[]byte(key)}, len(want), osd.High)
	must(t, "get "+key, err)
	if len(got) != 1 || got[0].Data == nil || !bytes.Equal(got[0].Data, want) || got[0].CRC != osd.CRC(want) {
		t.Fatalf("get %s: not the %d bytes that were set", key, len(want))
	}
	p := make([]byte, len(want))
	must(t, "read "+key, s.Read(t.Context(), []byte(key), 0, p, osd.High))
	if !bytes.Equal(p, want) {
		t.Fatalf("read %s: wrong bytes", key)
	}
	entries, err := s.List(t.Context(), []byte(key), nil, 1, osd.High)
	must(t, "list "+key, err)
	if len(entries) != 1 || string(entries[0].Key) != key || entries[0].Size != int64(len(want)) || entries[0].CRC != osd.CRC(want) {
		t.Fatalf("list %s: %+v, want size %d", key, entries, len(want))
	}
}

// mustLack checks that a key is absent.
func (s suite) mustLack(t *testing.T, key string) {
	t.Helper()
	got, err := s.Get(t.Context(), [][]byte{[]byte(key)}, 1<<20, osd.High)
	must(t, "get "+key, err)
	if len(got) != 1 || got[0].Data != nil {
		t.Fatalf("get %s: there are %d bytes", key, len(got[0].Data))
	}
	mustBe(t, "read "+key, s.Read(t.Context(), []byte(key), 0, make([]byte, 1), osd.High), osd.ErrNotExist)
}

// applies returns the count of D6.
func (s suite) applies(t *testing.T) uint64 {
	t.Helper()
	i, err := s.Info(t.Context())
	must(t, "info", err)
	return i.Applies
}
