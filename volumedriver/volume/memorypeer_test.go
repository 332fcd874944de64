package volume

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// newMemoryPair is newPair where node-b has its copies in memory.
func newMemoryPair(t testing.TB, seed uint64) *pair {
	p := newPair(t, seed)
	p.b.opts.DTL.MemoryBytes = 16 << 20
	return p
}

// TestMemoryPeer: a copy in memory is taken over like one on disk, and is durable before it
// counts: the new owner may crash right after that.
func TestMemoryPeer(t *testing.T) {
	p := newMemoryPair(t, 30)
	never := make(chan struct{})
	p.b.wrapStore = func(s backend.Store) (backend.Store, error) { return kindStore{s, "/sco/", never}, nil }
	id := testID(1)
	a, b := p.a.mustStart(t), p.b.mustStart(t)
	a.create(id, 4<<20)
	v := a.open(id)
	mustState(t, v, DTLOK)
	for i := range uint32(200) {
		mustWrite(t, v, int64(i)*4096, i+1)
		if i == 90 {
			mustCommit(t, v)
		}
	}
	check := func(v *Volume) {
		t.Helper()
		for i := range uint32(200) {
			wantVersion(t, v, int64(i)*4096, i+1)
		}
	}
	p.net.setCut(true)
	a.kill()
	p.late.leap(time.Minute)
	check(b.open(id))
	b.kill()
	b = p.b.mustStart(t)
	v = b.open(id)
	check(v)
	b.kill()
	p.b.wrapStore = nil
	b = p.b.mustStart(t)
	v = b.open(id)
	check(v)
	b.close()
}

// TestMemoryPeerRestarts: a peer that restarts has nothing, and says so; the owner goes on
// when the registry knows, and makes another copy.
func TestMemoryPeerRestarts(t *testing.T) {
	p := newMemoryPair(t, 31)
	id := testID(1)
	a, b, v := p.mirrored(t, id)
	mustWrite(t, v, 0, 1)
	gen := p.record(id).DTL.Generation
	p.net.setCut(true)
	b.kill()
	b = p.b.mustStart(t)
	if _, err := b.pool.Open(context.Background(), id); !errors.Is(err, ErrLostTail) {
		t.Fatalf("it takes over what it does not have: %v", err)
	}
	p.net.setCut(false)
	mustWrite(t, v, 4096, 2)
	mustState(t, v, DTLOK)
	if rec := p.record(id); rec.DTL.State != DTLOK || rec.DTL.Generation == gen {
		t.Fatalf("record %+v, the generation before was %x", rec.DTL, gen)
	}
	mustWrite(t, v, 8192, 3)
	a.kill()
	p.late.leap(time.Minute)
	nv := b.open(id)
	for i := range uint32(3) {
		wantVersion(t, nv, int64(i)*4096, i+1)
	}
	mustCommit(t, nv)
	limit := time.After(hangLimit)
	for b.host.dtl.memory.Usage().Held > 0 || b.host.dtl.server.Has(id) { // the memory is free again
		select {
		case <-limit:
			t.Fatalf("%+v is used still", b.host.dtl.memory.Usage())
		case <-time.After(time.Millisecond):
		}
	}
	b.close()
}
