package volume

import (
	"errors"
	"testing"
	"time"
)

// TestIdle: a vDisk that nobody uses says so, with Stats that stay, until it is used.
func TestIdle(t *testing.T) {
	w := newWorld(82)
	w.settings.CommitInterval = 100 * time.Millisecond
	w.opts.MapMemoryBytes = 0
	n := w.mustStart(t)
	n.create(testID(1), 1<<20)
	v := n.open(testID(1))
	if idle, _ := v.Idle(); idle {
		t.Error("idle at once")
	}
	mustWrite(t, v, 0, 1)
	var requests uint64
	for deadline := time.Now().Add(hangLimit); ; time.Sleep(5 * time.Millisecond) {
		idle, r := v.Idle()
		if requests = r; idle && v.Stats().JournalBytes == 0 { // chunks are given back beside it
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never idle")
		}
	}
	before := v.Stats()
	if before.CommittedSeq != 1 || before.JournalBytes != 0 || v.Fenced() {
		t.Errorf("%+v", before)
	}
	mustWrite(t, v, 4096, 2)
	if idle, r := v.Idle(); idle || r <= requests {
		t.Errorf("after a write: idle %v, %d requests after %d", idle, r, requests)
	}
	if v.Failed() {
		t.Error("failed")
	}
	wakeups := n.host.Wakeups()
	v.fail(StateFenced, errors.New("as the test has it"))
	if !v.Failed() || n.host.Wakeups() == wakeups {
		t.Error("who samples the vdisk does not notice that it failed")
	}
	n.kill()
}

// TestStatsBesideCheckpoints: Stats are taken while map pages are written out.
func TestStatsBesideCheckpoints(t *testing.T) {
	w := newBusyWorld(83)
	n := w.mustStart(t)
	n.create(testID(1), 16<<20)
	v := n.open(testID(1))
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				if s := v.Stats(); s.MapMemoryBytes < 0 {
					t.Errorf("%+v", s)
					return
				}
			}
		}
	}()
	history(t, v, map[int64]uint32{}, 5, 20)
	close(stop)
	<-ended
	n.close()
}
