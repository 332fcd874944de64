package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// lone is a host without multipath: it knows one portal, goes where it is sent from there, and
// signs in again when its session ends.
type lone struct {
	t    *testing.T
	o    initiator.Options // Address is the portal that it knows
	at   string            // where it is signed in
	s    *initiator.Session
	sent int // how often it was sent elsewhere
}

func (l *lone) session() *initiator.Session {
	l.t.Helper()
	for l.s == nil {
		o := l.o
		s, err := initiator.Dial(l.t.Context(), o)
		var e *initiator.LoginError
		if errors.As(err, &e) && e.Status == 0x0101 {
			l.sent++
			o.Address = e.Address
			s, err = initiator.Dial(l.t.Context(), o)
		}
		switch {
		case err == nil:
			l.s, l.at = s, o.Address
			l.t.Cleanup(s.Close)
		case l.t.Context().Err() != nil:
			l.t.Fatal(err)
		}
	}
	return l.s
}

// do repeats a command as a host would, on another session where the one that it was on ended.
func (l *lone) do(cmd func(s *initiator.Session) error) {
	l.t.Helper()
	for {
		err := cmd(l.session())
		if err == nil {
			return
		}
		if l.t.Context().Err() != nil {
			l.t.Fatal(err)
		}
		var e *initiator.SCSIError
		switch {
		case retryable(err):
		case errors.As(err, &e):
			l.t.Fatal(err)
		default:
			l.s = nil
		}
	}
}

// TestRedirected: hosts that know one portal of a target are sent to the node that serves its
// vDisk, and again when that changes, with a load that sees no error.
func TestRedirected(t *testing.T) {
	c := startMembers(t, 2, true)
	one, two := c.nodes[0], c.nodes[1]
	id := one.disk("a", "gold", 1<<30)
	conn := one.call("POST", "/vdisks/a/publish", map[string]any{"open": true}, 200)
	text := func(k string) string { return conn[k].(string) }
	path := "/targets/" + text("iqn") + "/portals"
	host := func(n *running) *lone {
		return &lone{t: t, o: initiator.Options{Address: n.portal(), Target: text("iqn"), CHAPUser: text("chapUser"), CHAPSecret: text("chapSecret")}}
	}
	// At first a session stays where it signed in.
	two.until("the target is shown", func() bool {
		s, err := initiator.Dial(t.Context(), host(two).o)
		if err == nil {
			s.Close()
		}
		return err == nil
	})
	h := host(two)
	h.do(func(s *initiator.Session) error { return s.Ready(t.Context(), 0) })
	if h.at != two.portal() {
		t.Errorf("signed in at %s", h.at)
	}
	if got := one.call("PUT", path, map[string]any{"addresses": []string{}, "redirect": true}, 200); got["redirect"] != true {
		t.Errorf("%v", got)
	}
	got, n := make([]byte, 4096), uint64(0)
	write := func() {
		n++
		h.do(func(s *initiator.Session) error { return s.WriteAt(t.Context(), 0, block(n), n%64*8) })
		h.do(func(s *initiator.Session) error { return s.ReadAt(t.Context(), 0, got, n%64*8) })
		if !bytes.Equal(got, block(n)) {
			t.Errorf("block %d does not hold write %d", n%64*8, n)
		}
	}
	for i, to := range []*running{one, two, one} {
		if i > 0 {
			c.nodes[i-1].call("POST", "/vdisks/"+id+"/handover", map[string]any{"node": fmt.Sprintf("n%d", i%2+1)}, 202)
		}
		to.until("the host is at its node", func() bool {
			write()
			return h.at == to.portal() && to.diskState(id) == "running"
		})
		sessions := to.call("GET", "/iscsi/sessions", nil, 200)["items"].([]any)
		if len(sessions) != 1 || sessions[0].(map[string]any)["state"] != "ok" {
			t.Errorf("sessions there: %v", sessions)
		}
	}
	if h.sent < 2 {
		t.Errorf("sent elsewhere %d times", h.sent)
	}
	// So does an initiator that somebody else wrote.
	inq, err := exec.LookPath("iscsi-inq")
	switch {
	case err == nil:
		out, err := exec.Command(inq, fmt.Sprintf("iscsi://%s%%%s@%s/%s/0", text("chapUser"), text("chapSecret"), two.portal(), text("iqn"))).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("Peripheral Device Type:DIRECT_ACCESS")) {
			t.Errorf("libiscsi: %v\n%s", err, out)
		}
	case os.Getenv("CI") == "true":
		t.Error(err)
	}
	// What is left out stays; a shared target has no one node.
	if got := one.call("PUT", path, map[string]any{"addresses": []string{}}, 200); got["redirect"] != true {
		t.Errorf("%v", got)
	}
	one.call("POST", "/targets", map[string]any{"name": "both"}, 201)
	if got := one.call("PUT", "/targets/both/portals", map[string]any{"addresses": []string{}, "redirect": true}, 400); got["field"] != "redirect" {
		t.Errorf("of a shared target: %v", got)
	}
	one.call("PUT", path, map[string]any{"addresses": []string{}, "redirect": false}, 200)
	h = host(two)
	two.until("the session stays at the other node", func() bool {
		h.s = nil
		write()
		return h.at == two.portal()
	})
}
