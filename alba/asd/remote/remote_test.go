package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/asd/remote"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// TestConformance runs the suite of devices over the network.
func TestConformance(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		if plain && raceEnabled && testing.Short() {
			t.Skip("the race detector looks at each byte: TLS alone takes 10 s")
		}
		var mu sync.Mutex
		mems := map[osd.OSD]*osdtest.Mem{}
		mem := func(d osd.OSD) *osdtest.Mem {
			mu.Lock()
			defer mu.Unlock()
			return mems[d]
		}
		osdtest.Run(t, osdtest.Options{
			New: func(t *testing.T) osd.OSD {
				m := osdtest.NewMem(deviceID)
				c := start(t, plain, m).client()
				mu.Lock()
				defer mu.Unlock()
				mems[c] = m
				return c
			},
			SetFull: func(_ *testing.T, d osd.OSD, full bool) { mem(d).SetFull(full) },
			Corrupt: func(t *testing.T, d osd.OSD, key []byte, off int64) {
				if !mem(d).Corrupt(key, off) {
					t.Fatal("nothing to corrupt")
				}
			},
		})
	})
}

// TestErrorsCross: each sentinel survives, texts name the device, and errors of
// unknown outcome do not turn into some that promise that nothing changed.
func TestErrorsCross(t *testing.T) {
	m := osdtest.NewMem(deviceID)
	c := start(t, true, m).client()
	all := []error{
		osd.ErrNotExist, osd.ErrAssert, osd.ErrFull, osd.ErrCorrupt, osd.ErrChecksum, osd.ErrRange, osd.ErrInvalid,
		osd.ErrIdentity, osd.ErrAuth, osd.ErrFailed, osd.ErrClosed, remote.ErrBusy,
	}
	check := func(err error, is ...error) {
		t.Helper()
		m.SetHook(func(op string, _ []byte) error {
			if op == "apply" {
				return err
			}
			return nil
		})
		got := set(t.Context(), c, "k", nil)
		if got == nil || !strings.Contains(got.Error(), deviceID) {
			t.Fatalf("%v arrived as %v", err, got)
		}
		for _, s := range all {
			want := false
			for _, w := range is {
				want = want || w == s
			}
			if errors.Is(got, s) != want {
				t.Errorf("%v arrived as %v, which is %v: %v", err, got, s, !want)
			}
		}
	}
	for _, s := range all {
		check(fmt.Errorf("device x: %w", s), s)
	}
	check(fmt.Errorf("%w, %w", osd.ErrFailed, osd.ErrCorrupt), osd.ErrFailed, osd.ErrCorrupt)
	check(errors.New("disk on fire"))
	check(context.Canceled)
	check(fmt.Errorf("x: %w", &osd.AssertError{Key: []byte("k\x00")}), osd.ErrAssert)

	got := set(t.Context(), c, "k", nil)
	var a *osd.AssertError
	if !errors.As(got, &a) || string(a.Key) != "k\x00" {
		t.Errorf("assert arrived as %v", got)
	}
	m.SetHook(func(string, []byte) error { return errors.New(strings.Repeat("long\n", 1000)) })
	if got := set(t.Context(), c, "k", nil); len(got.Error()) > 1500 || strings.Contains(got.Error(), "\n") {
		t.Errorf("a long text arrived as %d bytes", len(got.Error()))
	}
	m.SetHook(nil)
}

// spy records where the values of an Apply and the buffer of a Read lie.
type spy struct {
	*osdtest.Mem
	t     *testing.T
	large atomic.Int32
}

func (s *spy) Apply(ctx context.Context, a []osd.Assert, u []osd.Update, p osd.Priority) error {
	for i := range u {
		if len(u[i].Value) >= remote.DirectBytes {
			s.large.Add(1)
			if !blockfs.Aligned(u[i].Value) {
				s.t.Errorf("value %d of %d bytes is not aligned", i, len(u[i].Value))
			}
		}
		if cap(u[i].Value) > len(u[i].Value) {
			s.t.Errorf("value %d may grow into the next", i)
		}
	}
	return s.Mem.Apply(ctx, a, u, p)
}

func (s *spy) Read(ctx context.Context, key []byte, off int64, b []byte, p osd.Priority) error {
	if !blockfs.Aligned(b) {
		s.t.Errorf("buffer of a Read of %d bytes is not aligned", len(b))
	}
	return s.Mem.Read(ctx, key, off, b, p)
}

// TestAligned is R8, with values of all sizes around the bound in one Apply.
func TestAligned(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		s := &spy{Mem: osdtest.NewMem(deviceID), t: t}
		c := start(t, plain, s).client()
		var updates []osd.Update
		want := map[string][]byte{}
		for i, n := range []int{100, 1 << 20, 0, 16384, 16383, 16385, 3, 70000, 4096, 20000, 2 << 20} {
			k := fmt.Sprint("k", i)
			want[k] = osdtest.Data(uint64(i), n)
			updates = append(updates, osd.Set([]byte(k), want[k]), osd.Delete([]byte(k+"-")))
		}
		if err := c.Apply(t.Context(), nil, updates, osd.Low); err != nil {
			t.Fatal(err)
		}
		if n := s.large.Load(); n != 6 {
			t.Errorf("%d large values arrived", n)
		}
		for k, v := range want {
			got := make([]byte, len(v))
			if err := c.Read(t.Context(), []byte(k), 0, got, osd.High); err != nil || !bytes.Equal(got, v) {
				t.Errorf("%s differs, %v", k, err)
			}
		}
	})
}

// TestLargest moves what the limits allow.
func TestLargest(t *testing.T) {
	if testing.Short() {
		t.Skip("200 MiB")
	}
	modes(t, func(t *testing.T, plain bool) {
		r := start(t, plain, osdtest.NewMem(deviceID))
		c := r.client()
		v := make([]byte, osd.MaxValueBytes)
		v[0], v[len(v)-1] = 1, 2
		if err := set(t.Context(), c, "k", v); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(v))
		if err := c.Read(t.Context(), []byte("k"), 0, got, osd.High); err != nil || !bytes.Equal(v, got) {
			t.Fatal(err)
		}
		asserts := make([]osd.Assert, osd.MaxApplyOps)
		for i := range asserts {
			asserts[i] = osd.Assert{Key: fmt.Appendf(nil, "%01024d", i), Value: make([]byte, osd.MaxAssertBytes)}
		}
		mustBe(t, "asserts", c.Apply(t.Context(), asserts, nil, osd.High), osd.ErrAssert)
		updates := make([]osd.Update, osd.MaxListKeys)
		for i := range updates {
			updates[i] = osd.Set(asserts[i].Key, asserts[i].Value)
		}
		if err := c.Apply(t.Context(), nil, updates, osd.High); err != nil {
			t.Fatal(err)
		}
		entries, err := c.List(t.Context(), []byte("0"), nil, 0, osd.High)
		if err != nil || len(entries) != osd.MaxListKeys {
			t.Fatal(len(entries), err)
		}
		keys := make([][]byte, len(entries))
		for i := range keys {
			keys[i] = entries[i].Key
		}
		values, err := c.Get(t.Context(), keys, osd.MaxAssertBytes, osd.High)
		if err != nil || len(values) != len(keys) || len(values[9].Data) != osd.MaxAssertBytes {
			t.Fatal(len(values), err)
		}
	})
}

func TestIdentityAndKeys(t *testing.T) {
	modes(t, func(t *testing.T, plain bool) {
		r := start(t, plain, osdtest.NewMem(deviceID))
		other := r.client(func(o *remote.Options) { o.ID = "another" })
		_, err := other.Info(t.Context())
		mustBe(t, "other id", err, osd.ErrIdentity)
		if !strings.Contains(err.Error(), "another") || !strings.Contains(err.Error(), deviceID) {
			t.Errorf("the error does not name both: %v", err)
		}
		any := r.client(func(o *remote.Options) { o.ID = "" })
		if info, err := any.Info(t.Context()); err != nil || info.ID != deviceID {
			t.Errorf("discovery: %+v, %v", info, err)
		}
		wrong := r.client(func(o *remote.Options) { o.Key = []byte(strings.Repeat("x", remote.KeyBytes)) })
		_, err = wrong.Info(t.Context())
		mustBe(t, "wrong key", err, osd.ErrAuth)
		wait(t, "the failure counts", func() bool { return r.server.Status().Unproved == 1 })
		mixed := r.client(func(o *remote.Options) {
			o.Plain = !plain
			_, o.Fingerprint = certificate()
			o.ConnectTime = 2 * time.Second
		})
		if _, err := mixed.Info(t.Context()); err == nil {
			t.Error("TLS and Plain understand each other")
		}
		if !plain {
			c := r.client(func(o *remote.Options) { o.Fingerprint = strings.Repeat("ab:", 31) + "ab" })
			_, err := c.Info(t.Context())
			mustBe(t, "wrong fingerprint", err, osd.ErrIdentity)
		}
	})
}

func TestOptionsRefused(t *testing.T) {
	good := start(t, false, osdtest.NewMem(deviceID)).options()
	for name, change := range map[string]func(o *remote.Options){
		"address":     func(o *remote.Options) { o.Address = "" },
		"key":         func(o *remote.Options) { o.Key = o.Key[:31] },
		"fingerprint": func(o *remote.Options) { o.Fingerprint = "abc" },
		"dial":        func(o *remote.Options) { o.Dial = nil },
		"clock":       func(o *remote.Options) { o.Clock = nil },
		"rand":        func(o *remote.Options) { o.Rand = nil },
	} {
		o := good
		change(&o)
		if _, err := remote.New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	m := osdtest.NewMem("")
	for name, o := range map[string]remote.ServerOptions{
		"key": {Plain: true}, "clock": {Plain: true, Key: key},
		"certificate": {Key: key, Clock: good.Clock, Rand: good.Rand},
		"identity":    {Key: key, Clock: good.Clock, Rand: good.Rand, Plain: true},
	} {
		dev := m
		if name != "identity" {
			dev = osdtest.NewMem(deviceID)
		}
		if _, err := remote.NewServer(t.Context(), dev, o); err == nil {
			t.Errorf("server: %s: accepted", name)
		}
	}
}
