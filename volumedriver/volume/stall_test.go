package volume

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestMirrorStall: with the peer and the registry away what is asked for is answered after
// stall_timeout, and goes on by itself afterwards. What was in the journal by then takes
// effect in its turn, and nothing sees it, or works on what was before it, meanwhile.
func TestMirrorStall(t *testing.T) {
	p := newPair(t, 23)
	p.a.settings.StallTimeout = time.Second
	id := testID(1)
	reg := &errReg{memRegistry: p.a.reg}
	p.a.registry = reg
	a, b, v := p.mirrored(t, id)
	mustWrite(t, v, 0, 1)
	reg.away.Store(true)
	p.net.setCut(true)
	begun := time.Now()
	answers := make(chan error, 8)
	go func() { answers <- write(t, v, 0, 2) }() // into the journal
	mustState(t, v, DTLDegraded)
	part := make([]byte, 512)
	ctx := context.Background()
	for _, do := range []func() error{
		func() error { return v.WriteAt(ctx, part, 512) }, // waits for the range
		func() error { return write(t, v, 8192, 3) },      // waits for the committer
		func() error { return v.ReadAt(ctx, make([]byte, 4096), 0) },
	} {
		go func() { answers <- do() }()
	}
	stalled := false
	for range 4 {
		select {
		case err := <-answers:
			if !errors.Is(err, ErrStalled) {
				t.Errorf("answered with %v", err)
			}
			if s := v.Stats(); s.State == StateStalled && s.Err != "" {
				stalled = true
			}
		case <-time.After(hangLimit):
			t.Fatal("no answer")
		}
	}
	if d := time.Since(begun); d < p.a.settings.StallTimeout {
		t.Errorf("answered within %v", d)
	}
	if !stalled {
		t.Errorf("state %+v", v.Stats())
	}
	if err := write(t, v, 4096, 4); !errors.Is(err, ErrStalled) { // the next one waits as long
		t.Errorf("the next write: %v", err)
	}
	reg.away.Store(false)
	// A partial write of what the first one wrote: it goes after it.
	for err := v.WriteAt(ctx, part, 512); err != nil; err = v.WriteAt(ctx, part, 512) {
		if !errors.Is(err, ErrStalled) {
			t.Fatal(err)
		}
	}
	if s := v.Stats(); s.State == StateStalled {
		t.Errorf("still %s: %s", s.State, s.Err)
	}
	check := func(v *Volume) {
		t.Helper()
		have := make([]byte, 4096)
		if err := v.ReadAt(ctx, have, 0); err != nil {
			t.Fatal(err)
		}
		if got, err := sectorVersion(have[:512], 0); err != nil || got != 2 {
			t.Errorf("sector 0 has version %d, %v", got, err)
		}
		if string(have[512:1024]) != string(part) {
			t.Error("the partial write is not there")
		}
		if got, err := sectorVersion(have[1024:1536], 2); err != nil || got != 2 {
			t.Errorf("sector 2 has version %d, %v: the partial write was made of what was before", got, err)
		}
	}
	check(v)
	p.net.setCut(false)
	mustState(t, v, DTLOK)
	mustWrite(t, v, 4096, 5)
	a.close()
	v = b.open(id)
	check(v)
	wantVersion(t, v, 4096, 5)
	b.close()
}

// TestMirrorStallClose: a vDisk that waits for its peer and the registry can be closed, and
// what it had in the journal is there at the next start.
func TestMirrorStallClose(t *testing.T) {
	p := newPair(t, 24)
	p.a.settings.StallTimeout = time.Second
	id := testID(1)
	reg := &errReg{memRegistry: p.a.reg}
	p.a.registry = reg
	a := p.a.mustStart(t)
	b := p.b.mustStart(t)
	a.create(id, 1<<20)
	v := a.open(id)
	mustState(t, v, DTLOK)
	reg.away.Store(true)
	p.net.setCut(true)
	if err := write(t, v, 0, 1); !errors.Is(err, ErrStalled) {
		t.Fatalf("the write: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := v.Close(ctx); err == nil {
		t.Fatal("closed in order")
	}
	reg.away.Store(false)
	wantVersion(t, a.open(id), 0, 1)
	a.close()
	b.close()
}
