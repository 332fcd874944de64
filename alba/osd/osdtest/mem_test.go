package osdtest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
)

func TestMem(t *testing.T) {
	Run(t, Options{
		New:     func(*testing.T) osd.OSD { return NewMem("mem") },
		SetFull: func(_ *testing.T, d osd.OSD, full bool) { d.(*Mem).SetFull(full) },
		Corrupt: func(t *testing.T, d osd.OSD, key []byte, off int64) {
			if !d.(*Mem).Corrupt(key, off) {
				t.Fatal("nothing to corrupt")
			}
		},
	})
}

func TestMemSwitches(t *testing.T) {
	m := NewMem("m")
	s := suite{OSD: m}
	s.set(t, "a", []byte("1"))
	m.SetDown(true)
	for call, err := range s.everyCall(t.Context()) {
		mustBe(t, call, err, ErrDown)
	}
	m.SetDown(false)
	s.mustHold(t, "a", []byte("1"))

	old := m.Snapshot()
	s.set(t, "b", []byte("2"))
	if old.Len() != 1 || !slices.Equal(m.Keys(), []string{"a", "b"}) {
		t.Fatalf("snapshot holds %q, device %q", old.Keys(), m.Keys())
	}
	was, now := suite{OSD: old}.applies(t), s.applies(t)
	if was >= now {
		t.Fatalf("snapshot at %d applies, device at %d", was, now)
	}

	m.SetCapacity(10)
	mustBe(t, "set", m.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("c"), make([]byte, 10))}, osd.High), osd.ErrFull)
	if !m.Drop([]byte("a")) || m.Drop([]byte("a")) || s.applies(t) != now {
		t.Fatal("drop")
	}
	m.Wipe()
	if m.Len() != 0 || s.applies(t) != 0 {
		t.Fatal("wipe")
	}
}

func TestMemHook(t *testing.T) {
	m := NewMem("m")
	s := suite{OSD: m}
	mine := errors.New("mine")
	for _, op := range []string{"apply", "applied"} {
		m.SetHook(func(got string, key []byte) error {
			if got == op && string(key) == "k" {
				return mine
			}
			return nil
		})
		mustBe(t, op, m.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("k"), nil)}, osd.High), mine)
		if want := op == "applied"; (m.Len() == 1) != want {
			t.Fatalf("%s: %d keys", op, m.Len())
		}
	}
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	m.SetHook(func(string, []byte) error { cancel(); <-release; return nil })
	mustBe(t, "blocked", m.Read(ctx, []byte("k"), 0, nil, osd.High), context.Canceled)
	close(release)
	m.SetHook(nil)
	s.mustHold(t, "k", nil)
}
