package node

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// ways are the sessions of a host with a vDisk, one per node.
type ways struct {
	t *testing.T
	s []*initiator.Session
}

// ways publishes a vDisk where it is served, and signs in on every node.
func (c *members) ways(name string) *ways {
	c.t.Helper()
	w := &ways{t: c.t}
	conn := c.nodes[0].call("POST", "/vdisks/"+name+"/publish", map[string]any{"open": true}, 200)
	text := func(k string) string { return conn[k].(string) }
	for i, n := range c.nodes {
		o := initiator.Options{Address: n.portal(), Target: text("iqn"), CHAPUser: text("chapUser"), CHAPSecret: text("chapSecret"), ISID: [6]byte{0x80, 5: byte(i + 1)}}
		var s *initiator.Session
		n.until("the target is shown", func() (ok bool) {
			var err error
			s, err = initiator.Dial(c.t.Context(), o)
			return err == nil
		})
		c.t.Cleanup(s.Close)
		if err := s.Ready(c.t.Context(), 0); err != nil {
			c.t.Fatal(err)
		}
		w.s = append(w.s, s)
	}
	return w
}

// retryable tells whether a host tries a command again that ended with err.
func retryable(err error) bool {
	var e *initiator.SCSIError
	return errors.As(err, &e) && (e.Status == initiator.Busy || e.Status == initiator.TaskSetFull ||
		e.Status == initiator.CheckCondition && (e.Sense.Key == initiator.UnitAttention || e.Sense.Key == initiator.AbortedCommand))
}

// try repeats what a host would.
func (w *ways) try(do func() error) {
	w.t.Helper()
	for {
		err := do()
		if err == nil {
			return
		}
		if !retryable(err) || w.t.Context().Err() != nil {
			w.t.Error(err)
			return
		}
	}
}

// states are those of REPORT TARGET PORT GROUPS, in the order of the nodes.
func (w *ways) states(i int) string {
	w.t.Helper()
	c := &initiator.Command{CDB: [16]byte{0xa3, 0x0a, 9: 255}, In: make([]byte, 255)}
	w.try(func() error { return w.s[i].Do(w.t.Context(), c) })
	out := ""
	for o := 4; o+12 <= c.Received; o += 12 {
		out += fmt.Sprint(c.In[o] & 0x0f)
	}
	return out
}

// TestPaths: a vDisk is reached through every node; what one path writes the others read; a
// reservation holds on all of them; when it changes its node, the states follow and hosts see
// nothing but what they try again.
func TestPaths(t *testing.T) {
	c := startMembers(t, 2, true)
	one, two := c.nodes[0], c.nodes[1]
	id := one.disk("a", "gold", 1<<30)
	w := c.ways("a")
	ctx := t.Context()
	got := make([]byte, 4096)
	for i := range w.s {
		data := bytes.Repeat([]byte{byte(i + 1)}, 4096)
		w.try(func() error { return w.s[i].WriteAt(ctx, 0, data, 0) })
		w.try(func() error { return w.s[1-i].ReadAt(ctx, 0, got, 0) })
		if !bytes.Equal(got, data) {
			t.Errorf("what path %d wrote is not what the other reads", i)
		}
		if s := w.states(i); s != "01" {
			t.Errorf("path %d says states %s", i, s)
		}
		p, err := w.s[i].Inquiry(ctx, 0, 0x83)
		if err != nil {
			t.Fatal(err)
		}
		if p0, _ := w.s[0].Inquiry(ctx, 0, 0x83); !bytes.Equal(p0[:24], p[:24]) {
			t.Errorf("path %d has designator % x, path 0 % x", i, p[:24], p0[:24])
		}
	}
	// A reservation, then two moves under load.
	if err := w.s[1].PersistentReserve(ctx, 0, initiator.PersistentReserve{NewKey: 7}); err != nil {
		t.Fatal(err)
	}
	if err := w.s[1].PersistentReserve(ctx, 0, initiator.PersistentReserve{Action: 1, Key: 7, Type: 5}); err != nil {
		t.Fatal(err)
	}
	conflict := func() {
		t.Helper()
		var err error
		for err = w.s[0].WriteAt(ctx, 0, got, 8); retryable(err); {
			err = w.s[0].WriteAt(ctx, 0, got, 8)
		}
		var e *initiator.SCSIError
		if !errors.As(err, &e) || e.Status != initiator.ReservationConflict {
			t.Errorf("the path that is kept out: %v", err)
		}
	}
	conflict()
	if err := w.s[0].PersistentReserve(ctx, 0, initiator.PersistentReserve{NewKey: 8}); err != nil {
		t.Fatal(err)
	}
	stop := w.load()
	for i, from := range []*running{one, two} {
		to := c.nodes[1-i]
		from.call("POST", "/vdisks/"+id+"/handover", map[string]any{"node": fmt.Sprintf("n%d", 2-i)}, 202)
		to.until("moved", func() bool { return to.diskState(id) == "running" })
		want := []string{"10", "01"}[i]
		for k := range w.s {
			to.until("the states follow", func() bool { return w.states(k) == want })
		}
	}
	stop()
	w.try(func() error {
		return w.s[0].PersistentReserve(ctx, 0, initiator.PersistentReserve{Key: 8})
	})
	conflict()
	// Gone everywhere when it is unpublished.
	one.call("POST", "/vdisks/a/unpublish", map[string]any{"force": true}, 204)
	for _, s := range w.s {
		ended(t, s)
	}
}

// load has every path write blocks of its own and read them back, until stop is called.
func (w *ways) load() (stop func()) {
	end := make(chan struct{})
	var wg sync.WaitGroup
	for i, s := range w.s {
		wg.Go(func() {
			got := make([]byte, 4096)
			for n := uint64(1); ; n++ {
				select {
				case <-end:
					return
				default:
				}
				lba := uint64(1000*(i+1)) + n%64*8
				w.try(func() error { return s.WriteAt(w.t.Context(), 0, block(n), lba) })
				w.try(func() error { return s.ReadAt(w.t.Context(), 0, got, lba) })
				if w.t.Failed() {
					return
				}
				if !bytes.Equal(got, block(n)) {
					w.t.Errorf("path %d: block %d does not hold write %d", i, lba, n)
				}
			}
		})
	}
	return func() { close(end); wg.Wait() }
}

// TestPathsLoss: the node that serves a vDisk is not reached any more, by anything; the other
// one takes over, and its path goes on, with what hosts try again in between.
func TestPathsLoss(t *testing.T) {
	c := startMembers(t, 2, true)
	one, two := c.nodes[0], c.nodes[1]
	id := one.disk("a", "gold", 1<<30)
	w := c.ways("a")
	one.untilDTL("a", "ok")
	data := bytes.Repeat([]byte{9}, 4096)
	w.try(func() error { return w.s[1].WriteAt(t.Context(), 0, data, 0) })
	c.cut(0, true)
	got := make([]byte, 4096)
	w.try(func() error { return w.s[1].WriteAt(t.Context(), 0, data, 8) })
	two.until("taken over", func() bool { return two.diskState(id) == "running" })
	for _, lba := range []uint64{0, 8} {
		w.try(func() error { return w.s[1].ReadAt(t.Context(), 0, got, lba) })
		if !bytes.Equal(got, data) {
			t.Errorf("block %d is lost", lba)
		}
	}
	if s := w.states(1); s != "10" {
		t.Errorf("states %s", s)
	}
	c.cut(0, false)
	one.until("it gave up", func() bool { return one.diskState(id) == "elsewhere" })
}
