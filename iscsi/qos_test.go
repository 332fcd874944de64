package iscsi_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// limited is a server on a clock that stands still, with QoS on LUN 0. That clock is moved by more than a peer may be
// silent, in less time than a peer on a busy machine takes to answer.
func limited(t *testing.T, q iscsi.QoS) (*node, *clock.Manual) {
	clk := clock.NewManual(time.Unix(1e9, 0))
	return start(t, iscsi.Config{Clock: clk, Limits: iscsi.Limits{PingIdle: time.Hour, PingTime: time.Hour}}, func(s *iscsi.TargetSpec) { s.LUNs[0].QoS = q }), clk
}

// reads submits n reads of some blocks and returns where their results arrive.
func reads(t *testing.T, s *initiator.Session, n, blocks int) chan error {
	t.Helper()
	done := make(chan error, n)
	for i := range n {
		c := &initiator.Command{CDB: initiator.ReadCDB(uint64(i*blocks), uint32(blocks)), In: make([]byte, blocks*512), Done: func(c *initiator.Command) { done <- c.Err }}
		if err := s.Submit(c); err != nil {
			t.Fatal(err)
		}
	}
	return done
}

// settled waits until every command of n that arrived has been answered or waits
// at the gate, and returns how many of the latter there are.
func settled(t *testing.T, n *node, arrived int) (waiting int) {
	t.Helper()
	eventually(t, n, fmt.Sprint(arrived, " commands arrived"), func() bool {
		s := n.srv.Targets()[0].LUNs[0].Stats
		waiting = s.Waiting
		return int(s.Read.Commands)+s.Depth == arrived && s.Depth == s.Waiting
	})
	return waiting
}

// TestRates: in any time no more is let in than the rate and the burst allow, and
// all of that; counted on a clock that only the test moves.
func TestRates(t *testing.T) {
	for _, tc := range []struct {
		name   string
		q      iscsi.QoS
		blocks int // of a command
		burst  int // commands let in at once
		step   time.Duration
		per    int // commands let in after each step
	}{
		{"IOPS", iscsi.QoS{IOPS: 100, Burst: 100 * time.Millisecond}, 8, 11, 50 * time.Millisecond, 5},
		{"default burst", iscsi.QoS{IOPS: 100}, 8, 11, 100 * time.Millisecond, 10},
		{"bytes", iscsi.QoS{Bytes: 1 << 20, Burst: 500 * time.Millisecond}, 128, 9, 125 * time.Millisecond, 2},
		{"larger than the burst", iscsi.QoS{Bytes: 1 << 20, Burst: time.Millisecond}, 2048, 1, time.Second, 1},
		{"the tighter of two", iscsi.QoS{IOPS: 1000, Bytes: 1 << 20, Burst: 500 * time.Millisecond}, 128, 9, 125 * time.Millisecond, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, clk := limited(t, tc.q)
			s := n.login(nil)
			const commands = 60
			done := reads(t, s, commands, tc.blocks)
			want := commands - tc.burst
			if got := settled(t, n, commands); got != want {
				t.Fatalf("%d wait at first, want %d", got, want)
			}
			for want > 0 {
				clk.Advance(tc.step)
				want = max(want-tc.per, 0)
				eventually(t, n, fmt.Sprint(want, " are left"), func() bool { return n.srv.Targets()[0].LUNs[0].Stats.Waiting <= want })
				if got := settled(t, n, commands); got != want {
					t.Fatalf("%d wait, want %d", got, want)
				}
			}
			for range commands {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			st := n.srv.Targets()[0].LUNs[0].Stats
			if st.Delayed == 0 || st.Delayed > commands || st.Read.Latency.Quantile(1) < tc.step {
				t.Errorf("%d delayed, slowest %v", st.Delayed, st.Read.Latency.Quantile(1))
			}
		})
	}
}

// TestRateShared: sessions are served in turn, whatever each has queued.
func TestRateShared(t *testing.T) {
	n, clk := limited(t, iscsi.QoS{IOPS: 10, Burst: time.Millisecond})
	greedy, modest := n.login(nil), n.login(nil)
	many := reads(t, greedy, 100, 8)
	settled(t, n, 100)
	few := reads(t, modest, 5, 8)
	settled(t, n, 105)
	for range 10 { // ten commands, of which five are the modest session's
		before := n.srv.Targets()[0].LUNs[0].Stats.Waiting
		clk.Advance(100 * time.Millisecond)
		eventually(t, n, "one is let in", func() bool { return n.srv.Targets()[0].LUNs[0].Stats.Waiting == before-1 })
	}
	settled(t, n, 105)
	for range 5 {
		select {
		case err := <-few:
			if err != nil {
				t.Fatal(err)
			}
		case <-n.ctx.Done():
			t.Fatal("the modest session got less than every other turn")
		}
	}
	if err := n.srv.SetQoS(targetName, 0, iscsi.QoS{}); err != nil { // the rest goes on at once
		t.Fatal(err)
	}
	for range 100 {
		if err := <-many; err != nil {
			t.Fatal(err)
		}
	}
}

// TestRateEnds: commands that wait for a rate leave the queue when they are
// aborted, when their session ends, when the unit or target is removed, and when
// the server shuts down; pings and task management are answered meanwhile.
func TestRateEnds(t *testing.T) {
	slow := iscsi.QoS{IOPS: 1, Burst: time.Millisecond}
	for name, end := range map[string]func(t *testing.T, n *node, s, other *initiator.Session){
		"task set aborted": func(t *testing.T, n *node, s, other *initiator.Session) {
			if code, err := s.TaskManagement(n.ctx, initiator.AbortTaskSet, 0, nil); err != nil || code != 0 {
				t.Errorf("%d, %v", code, err)
			}
		},
		"reset by another": func(t *testing.T, n *node, s, other *initiator.Session) {
			if code, err := other.TaskManagement(n.ctx, initiator.LogicalUnitReset, 0, nil); err != nil || code != 0 {
				t.Errorf("%d, %v", code, err)
			}
		},
		"connection lost": func(t *testing.T, n *node, s, other *initiator.Session) {
			s.Close()
			eventually(t, n, "one session is left", func() bool { return len(n.srv.Sessions()) == 1 })
		},
		"reinstated": func(t *testing.T, n *node, s, other *initiator.Session) {
			n.login(func(o *initiator.Options) { o.ISID = s.ISID() })
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := limited(t, slow)
			s, other := n.login(nil), n.login(nil)
			reads(t, s, 20, 8)
			settled(t, n, 20)
			if _, err := s.Ping(n.ctx, []byte("alive")); err != nil {
				t.Error(err)
			}
			end(t, n, s, other)
			st := n.srv.Targets()[0].LUNs[0].Stats
			if st.Waiting != 0 || st.Depth != 0 || st.Aborted != 19 {
				t.Errorf("%d wait, %d are there, %d were aborted", st.Waiting, st.Depth, st.Aborted)
			}
			if got := n.disk.Ops[iscsi.OpRead].Load(); got != 1 {
				t.Errorf("%d commands reached the disk", got)
			}
		})
	}
	for name, end := range map[string]func(n *node) error{
		"limit lifted": func(n *node) error { return n.srv.SetQoS(targetName, 0, iscsi.QoS{}) },
		"limit lifted by an update": func(n *node) error {
			n.spec.LUNs[0].QoS = iscsi.QoS{}
			return n.srv.UpdateTarget(n.spec)
		},
		"unit removed": func(n *node) error {
			n.spec.LUNs = nil
			return n.srv.UpdateTarget(n.spec)
		},
		"shutdown": func(n *node) error { return n.srv.Shutdown(n.ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			n, _ := limited(t, slow)
			done := reads(t, n.login(nil), 20, 8)
			settled(t, n, 20)
			if err := end(n); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	t.Run("target removed", func(t *testing.T) {
		n, _ := limited(t, slow)
		s := n.login(nil)
		reads(t, s, 20, 8)
		settled(t, n, 20)
		if err := n.srv.RemoveTarget(targetName, true); err != nil {
			t.Fatal(err)
		}
		<-s.Done()
	})
}

// TestRateOfSteps: a command made of many Ops pays for all its bytes.
func TestRateOfSteps(t *testing.T) {
	n, clk := limited(t, iscsi.QoS{Bytes: 1 << 20, Burst: time.Millisecond})
	s := n.login(nil)
	done := make(chan error, 1)
	c := &initiator.Command{CDB: cdb(0x8f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0), Done: func(c *initiator.Command) { done <- c.Err }} // VERIFY of 4 MiB
	if err := s.Submit(c); err != nil {
		t.Fatal(err)
	}
	for step := int64(1); step <= 4; step++ {
		eventually(t, n, fmt.Sprint(step, " MiB are read"), func() bool { return n.disk.Ops[iscsi.OpRead].Load() == step })
		if step == 4 {
			break
		}
		eventually(t, n, "the next waits", func() bool { return n.srv.Targets()[0].LUNs[0].Stats.Waiting == 1 })
		clk.Advance(time.Second)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestSetQoS: what is refused, what is shown, and that limits are not a LUN change.
func TestSetQoS(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	s := n.login(nil)
	for _, q := range []iscsi.QoS{{IOPS: -1}, {Bytes: 1000}, {Bytes: -1}, {IOPS: 1 << 60}, {Burst: -1}, {Burst: time.Hour}} {
		if err := n.srv.SetQoS(targetName, 0, q); err == nil {
			t.Errorf("%+v was taken", q)
		}
		n.spec.LUNs[0].QoS = q
		if err := n.srv.UpdateTarget(n.spec); err == nil {
			t.Errorf("%+v was taken in a spec", q)
		}
	}
	if err := n.srv.SetQoS("iqn.none", 0, iscsi.QoS{}); !errors.Is(err, iscsi.ErrNoTarget) {
		t.Error(err)
	}
	if err := n.srv.SetQoS(targetName, 9, iscsi.QoS{}); !errors.Is(err, iscsi.ErrNoLUN) {
		t.Error(err)
	}
	q := iscsi.QoS{IOPS: 1 << 20, Bytes: 1 << 30, Burst: time.Second}
	n.spec.LUNs[0].QoS = q
	if err := n.srv.UpdateTarget(n.spec); err != nil {
		t.Fatal(err)
	}
	if got := n.srv.Targets()[0].LUNs[0].QoS; got != q {
		t.Errorf("%+v in force", got)
	}
	if err := s.TestUnitReady(n.ctx, 0); err != nil {
		t.Errorf("limits are a change to initiators: %v", err)
	}
	for err := range reads(t, s, 50, 8) { // on the machine's clock
		if err != nil {
			t.Fatal(err)
		}
		if n.srv.Targets()[0].LUNs[0].Stats.Read.Commands == 50 {
			break
		}
	}
}

// fifo is a device that executes one Op at a time, when the test says so.
type fifo struct {
	iscsi.Disk
	mu   sync.Mutex
	ops  []*iscsi.Op
	size []int // of those executed
}

func (d *fifo) Submit(op *iscsi.Op) {
	d.mu.Lock()
	d.ops = append(d.ops, op)
	d.mu.Unlock()
}

func (d *fifo) step() bool {
	d.mu.Lock()
	if len(d.ops) == 0 {
		d.mu.Unlock()
		return false
	}
	op := d.ops[0]
	d.ops = d.ops[1:]
	d.size = append(d.size, len(op.Data))
	d.mu.Unlock()
	d.Disk.Submit(op)
	return true
}

func (d *fifo) len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ops)
}

// TestFairSharing: a session that keeps a full window of large reads in flight
// leaves a session with a few small ones a share of the device's operations that
// its queue alone would not give it.
func TestFairSharing(t *testing.T) {
	d := &fifo{}
	n := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) { d.Disk, s.LUNs[0].Disk = s.LUNs[0].Disk, d })
	greedy, modest := n.login(nil), n.login(nil)
	const large, small, depth, few, operations = 1 << 20, 4096, 60, 4, 400 // a session may hold 64 MiB
	left := make(chan error, depth+few)
	stop := make(chan struct{})
	flood := func(s *initiator.Session, k, size int) {
		for range k {
			c := &initiator.Command{CDB: initiator.ReadCDB(0, uint32(size/512)), In: make([]byte, size)}
			c.Done = func(c *initiator.Command) {
				select {
				case <-stop:
				default:
					if c.Err == nil && s.Submit(c) == nil {
						return
					}
				}
				left <- c.Err
			}
			if err := s.Submit(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("LUN %+v, %d at the device, sessions %+v", n.srv.Targets()[0].LUNs[0].Stats, d.len(), n.srv.Sessions())
		}
	})
	flood(modest, few, small)
	flood(greedy, depth, large)
	eventually(t, n, "both are at the device, and the greedy one waits", func() bool {
		s := n.srv.Targets()[0].LUNs[0].Stats
		if s.Depth == depth+few && s.Waiting == 0 {
			// They were not seen within a second of each other: the greedy one took all it
			// could, as one that is alone does, and they come again.
			d.step()
		}
		return s.Depth == depth+few && s.Waiting > 0 && d.len() == s.Depth-s.Waiting
	})
	d.mu.Lock()
	d.size = nil
	d.mu.Unlock()
	for range operations {
		eventually(t, n, "an operation", d.step)
		eventually(t, n, "what was answered has been asked again", func() bool {
			s := n.srv.Targets()[0].LUNs[0].Stats
			return s.Depth == depth+few && d.len() == s.Depth-s.Waiting
		})
	}
	close(stop)
	got := 0
	for _, n := range d.size {
		if n == small {
			got++
		}
	}
	t.Logf("the modest session had %d of %d operations", got, operations)
	if min := operations / 8; got < min {
		t.Errorf("the modest session had %d of %d operations, want %d at least", got, operations, min)
	}
	for gone := 0; gone < depth+few; {
		d.step()
		select {
		case err := <-left:
			if err != nil {
				t.Fatal(err)
			}
			gone++
		default:
		}
	}
}

// TestRateOfCopy: EXTENDED COPY waits at the destination's gate like a session's
// writes, and can be aborted there.
func TestRateOfCopy(t *testing.T) {
	r := newCopyRig(t, open(nil), open(nil))
	s := r.ready(as(hostA), 0)
	if err := r.srv.SetQoS(targetName, 1, iscsi.QoS{Bytes: 64 << 10, Burst: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	c := copyCommand(copyList{cscds: [][16]byte{copyNAA(0), copyNAA(1)}, segments: []copySegment{{0, 1, 8 << 11, 0, 0, false}}})
	c.Done = func(*initiator.Command) { t.Error("an aborted command was answered") }
	r.fill(0, 0, noise(8<<20, 5))
	if err := s.Submit(c); err != nil {
		t.Fatal(err)
	}
	index := slices.IndexFunc(r.srv.Targets(), func(i iscsi.TargetInfo) bool { return i.Name == targetName })
	destination := func() iscsi.LUNStats { return r.srv.Targets()[index].LUNs[1].Stats }
	eventually(t, r.node, "the second MiB waits", func() bool { return destination().Waiting == 1 })
	if code, err := s.TaskManagement(r.ctx, initiator.AbortTask, 0, c); err != nil || code != 0 {
		t.Errorf("%d, %v", code, err)
	}
	if n := r.disks[1].Ops[iscsi.OpWrite].Load(); n != 1 || destination().Waiting != 0 {
		t.Errorf("%d writes, %d wait", n, destination().Waiting)
	}
	s.Forget(c)
}
