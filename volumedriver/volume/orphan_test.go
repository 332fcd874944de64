package volume

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/dtl"
)

// deafReg is a registry that can be asked nothing.
type deafReg struct {
	*memRegistry
	deaf atomic.Bool
}

func (r *deafReg) Load(ctx context.Context, id ID) (Record, error) {
	if r.deaf.Load() {
		return Record{}, errors.New("registry away")
	}
	return r.memRegistry.Load(ctx, id)
}

// TestOrphans: a copy whose end did not reach the peer is given up when the registry says
// that nobody needs it, and not before.
func TestOrphans(t *testing.T) {
	p := newPair(t, 20)
	reg := &deafReg{memRegistry: p.a.reg}
	p.b.registry = reg
	id := testID(1)
	a, b, v := p.mirrored(t, id)
	mustWrite(t, v, 0, 1)
	look := func(want bool, when string) {
		t.Helper()
		b.host.dtl.collect(context.Background())
		if have := b.host.dtl.server.Has(id); have != want {
			t.Fatalf("%s: there is a copy: %v", when, have)
		}
	}
	p.late.leap(48 * time.Hour)
	look(true, "named by the registry")
	mustWrite(t, v, 0, 1) // the copy was used lately
	p.net.setCut(true)
	mustWrite(t, v, 0, 2)
	if rec := p.record(id); rec.DTL.State != DTLDegraded {
		t.Fatalf("record %+v", rec.DTL)
	}
	look(true, "not named, and used lately")
	reg.deaf.Store(true)
	p.late.leap(48 * time.Hour)
	look(true, "with the registry away")
	reg.deaf.Store(false)
	if n := b.host.Usage().DTL; n.Copies != 1 || n.Bytes == 0 {
		t.Errorf("usage %+v", n)
	}
	look(false, "not named, and unused for long")
	if n := b.host.Usage().DTL; n.Copies != 0 || n.Bytes != 0 {
		t.Errorf("usage after that %+v", n)
	}
	p.net.setCut(false)
	mustState(t, v, DTLOK) // with another one
	wantVersion(t, v, 0, 2)

	// A newer opening: at once, however new the copy is.
	p.net.setCut(true)
	a.kill()
	p.a.opts.DTL = nil
	a = p.a.mustStart(t)
	v = a.open(id)
	wantVersion(t, v, 0, 2)
	look(false, "of an opening before")
	a.close()
	b.close()
}

// TestOrphanDeleted: the copy of a vDisk that is deleted goes, at once if the registry has
// that decision, after a day if it does not know the vDisk.
func TestOrphanDeleted(t *testing.T) {
	p := newPair(t, 21)
	id := testID(1)
	a, b, v := p.mirrored(t, id)
	mustWrite(t, v, 0, 1)
	p.net.setCut(true)
	a.kill()
	rec := p.record(id)
	deleting := rec
	deleting.State, deleting.DTL = FlagDeleting, DTLRecord{State: DTLOff}
	change := func(old, now *Record) {
		t.Helper()
		if err := p.a.reg.Apply(context.Background(), Change{old, now}); err != nil {
			t.Fatal(err)
		}
	}
	has := func() bool {
		b.host.dtl.collect(context.Background())
		return b.host.dtl.server.Has(id)
	}
	change(&rec, nil)
	p.late.leap(orphanGone - time.Minute)
	if !has() {
		t.Error("the copy of a vdisk that the registry does not know is gone within a day")
	}
	change(nil, &rec)
	if !has() {
		t.Error("the copy that the registry names is gone")
	}
	change(&rec, &deleting)
	if has() {
		t.Error("the copy of a vdisk that is being deleted stays")
	}
	b.close()
}

// TestOrphanRace: a copy that is named while it is looked at stays, and what its owner asks
// for meanwhile waits for the answer.
func TestOrphanRace(t *testing.T) {
	p := newPair(t, 22)
	id := testID(1)
	a, b, v := p.mirrored(t, id)
	mustWrite(t, v, 0, 1)
	server := b.host.dtl.server
	looking, answer := make(chan struct{}), make(chan bool)
	done := make(chan bool, 1)
	collect := func() {
		gone, err := server.Collect(context.Background(), id, func(context.Context, dtl.Copy) (bool, error) {
			looking <- struct{}{}
			return <-answer, nil
		})
		if err != nil {
			t.Error(err)
		}
		done <- gone
	}
	go collect()
	<-looking
	wrote := make(chan error, 1)
	go func() { wrote <- write(t, v, 4096, 2) }()
	answer <- false
	if <-done {
		t.Error("it is gone")
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	mustState(t, v, DTLOK)
	go collect()
	<-looking
	go func() { wrote <- write(t, v, 8192, 3) }()
	answer <- true
	if !<-done {
		t.Error("it stays")
	}
	if err := <-wrote; err != nil { // by another copy, or without one that the registry says
		t.Fatal(err)
	}
	mustState(t, v, DTLOK)
	a.kill()
	p.late.leap(time.Minute)
	nv := b.open(id)
	for i := range uint32(3) {
		wantVersion(t, nv, int64(i)*4096, i+1)
	}
	b.close()
}
