package volume

import (
	"context"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// TestMirrorStats: who looks sees how far the copy is behind, how far it has caught up, and
// each change of its state, also of a vDisk that nobody uses.
func TestMirrorStats(t *testing.T) {
	p := newPair(t, 25)
	p.a.opts.DTL.Lost = hangLimit
	id := testID(1)
	open := make(chan struct{})
	p.a.wrapStore = func(s backend.Store) (backend.Store, error) { return kindStore{s, "/sco/", open}, nil }
	p.a.settings.DTL = DTLModeOff
	a, b := p.a.mustStart(t), p.b.mustStart(t)
	a.create(id, 1<<20)
	v := a.open(id)
	for i := range uint32(5) {
		mustWrite(t, v, int64(i)*4096, i+1)
	}
	on := *v.settings.Load()
	on.DTL = DTLSync
	if err := v.SetSettings(on); err != nil {
		t.Fatal(err)
	}
	mustState(t, v, DTLCatchup)
	if s := v.Stats().DTL; s.Catchup != 5 || s.CaughtUp != 0 || s.Peer != "node-b" {
		t.Errorf("on the way: %+v", s)
	}
	_, seen := v.Idle()
	wakeups := a.host.Wakeups()
	close(open)
	mustState(t, v, DTLOK)
	if _, now := v.Idle(); now == seen || a.host.Wakeups() == wakeups {
		t.Error("who samples the vdisk does not notice that its copy is good")
	}
	for i := range uint32(20) {
		mustWrite(t, v, int64(i)*4096, i+10)
	}
	s := v.Stats().DTL
	var n uint64
	for _, k := range s.Latency {
		n += k
	}
	if n < 20 || s.Unanswered != 0 || s.Lag != 0 || s.Catchup != 0 {
		t.Errorf("%d answers counted: %+v", n, s)
	}
	thaw := p.net.freeze()
	done := make(chan error, 1)
	go func() { done <- write(t, v, 0, 100) }()
	limit := time.After(hangLimit)
	for s = v.Condition().DTL; s.Unanswered == 0; s = v.Condition().DTL {
		select {
		case <-limit:
			t.Fatal("nothing is sent")
		case err := <-done:
			t.Fatalf("answered from the ice: %v", err)
		default:
		}
	}
	p.early.leap(time.Second)
	if s = v.Stats().DTL; s.Lag < time.Second || s.Lag > hangLimit {
		t.Errorf("the oldest waits %v", s.Lag)
	}
	thaw()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := v.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	a.close()
	b.close()
}
