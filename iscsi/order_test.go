package iscsi_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

// tracer is a disk that tells when Ops begin and end, by their block.
type tracer struct {
	*iscsitest.Disk
	mu    sync.Mutex
	begun []int64
	ended map[int64]bool
	begin func(lba int64, ended map[int64]bool) // under mu
}

type traced struct {
	d    *tracer
	done iscsi.Completer
	lba  int64
}

func (d *tracer) Submit(op *iscsi.Op) {
	x := &traced{d, op.Done, op.Offset / 512}
	d.mu.Lock()
	d.begun = append(d.begun, x.lba)
	if d.begin != nil {
		d.begin(x.lba, d.ended)
	}
	d.mu.Unlock()
	op.Done = x
	d.Disk.Submit(op)
}

func (x *traced) Complete(op *iscsi.Op) {
	x.d.mu.Lock()
	x.d.ended[x.lba] = true
	x.d.mu.Unlock()
	op.Done = x.done
	x.done.Complete(op)
}

// taken returns the blocks of what began since it was last asked, in order of
// the blocks.
func (d *tracer) taken() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.Sort(d.begun)
	s := fmt.Sprint(d.begun)
	d.begun = nil
	return s
}

// ordered runs a server whose unit is traced.
func ordered(t *testing.T) (*node, *tracer) {
	d := &tracer{ended: map[int64]bool{}}
	n := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) {
		s.LUNs = []iscsi.LUNSpec{lunSpec(0, d), lunSpec(1, d)}
		d.Disk = iscsitest.NewDisk(diskSize, nil)
	})
	n.disk = d.Disk // its Ops are let go at the end of the test
	return n, d
}

var attributes = map[byte]byte{'U': 0, 'S': 1, 'O': 2, 'H': 3, 'A': 4, 'x': 6}

// send submits commands of these attributes; command i reads or writes block i.
func send(t *testing.T, n *node, s *initiator.Session, attrs string, done func(int, *initiator.Command)) []*initiator.Command {
	t.Helper()
	var out []*initiator.Command
	for i := range len(attrs) {
		c := &initiator.Command{Attr: attributes[attrs[i]], Done: func(c *initiator.Command) { done(i, c) }}
		if i%2 == 0 {
			c.CDB, c.In = initiator.ReadCDB(uint64(i), 1), make([]byte, 512)
		} else {
			c.CDB, c.Out = initiator.WriteCDB(uint64(i), 1, false), make([]byte, 512)
		}
		if err := s.Submit(c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	n.settle(s)
	return out
}

// settle returns when the target has taken everything that was sent: by default
// initiators send a command's data with it, and PDUs are taken in order.
func (n *node) settle(s *initiator.Session) {
	n.t.Helper()
	for range 2 { // the ping goes ahead of commands that wait for the writer
		if _, err := s.Ping(n.ctx, nil); err != nil {
			n.t.Fatal(err)
		}
	}
}

// TestTaskOrder: what runs at the same time, step by step (SAM-5 clause 8.6).
func TestTaskOrder(t *testing.T) {
	for attrs, want := range map[string]string{
		"SSOSS":    "[0 1] [2] [3 4]",
		"SUOUS":    "[0 1] [2] [3 4]",
		"OOO":      "[0] [1] [2]",
		"SHSO":     "[0 1] [2] [3]",
		"SOHS":     "[0 2] [1] [3]",
		"HHSS":     "[0 1] [2 3]",
		"OHOH":     "[0 1 3] [2]",
		"SSSS":     "[0 1 2 3]",
		"OSSOSSOS": "[0] [1 2] [3] [4 5] [6] [7]",
	} {
		t.Run(attrs, func(t *testing.T) {
			n, d := ordered(t)
			s := n.login(nil)
			d.Hold()
			answers := make(chan error, len(attrs))
			send(t, n, s, attrs, func(_ int, c *initiator.Command) { answers <- c.Err })
			var steps []string
			for left := len(attrs); left > 0; {
				k := d.Held()
				if k == 0 {
					t.Fatalf("%d commands wait for nothing", left)
				}
				steps = append(steps, d.taken())
				d.Step()
				for range k {
					if err := <-answers; err != nil {
						t.Error(err)
					}
				}
				left -= k
			}
			if got := strings.Join(steps, " "); got != want {
				t.Errorf("ran %s, want %s", got, want)
			}
		})
	}
}

// TestTaskSets: neither another logical unit nor another nexus is held back.
func TestTaskSets(t *testing.T) {
	n, d := ordered(t)
	a, b := n.login(nil), n.login(nil)
	if err := a.Ready(n.ctx, 1); err != nil {
		t.Fatal(err)
	}
	d.Hold()
	answers := make(chan error, 4)
	done := func(_ int, c *initiator.Command) { answers <- c.Err }
	send(t, n, a, "OS", done)
	other := &initiator.Command{LUN: 1, CDB: initiator.ReadCDB(9, 1), In: make([]byte, 512), Done: func(c *initiator.Command) { done(0, c) }}
	if err := a.Submit(other); err != nil {
		t.Fatal(err)
	}
	n.settle(a)
	send(t, n, b, "S", done)
	if got := d.taken(); got != "[0 0 9]" {
		t.Errorf("%s began, want block 0 of both sessions and the other unit's 9", got)
	}
	d.Release()
	for range 4 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}

// TestTaskAttributes: what no task can have.
func TestTaskAttributes(t *testing.T) {
	n, _ := ordered(t)
	s := n.login(nil)
	for _, a := range []byte{attributes['A'], attributes['x']} {
		err := s.Do(n.ctx, &initiator.Command{Attr: a})
		wantSense(t, err, 5, 0x49, 0)
	}
	wantSense(t, s.Do(n.ctx, &initiator.Command{CDB: cdb(0, 0, 0, 0, 0, 4)}), 5, 0x24, 0) // NACA
	ext, err := s.Inquiry(n.ctx, 0, 0x86)
	if err != nil || ext[5] != 0x07 {
		t.Errorf("HEADSUP, ORDSUP and SIMPSUP: % x, %v", ext, err)
	}
	c := &initiator.Command{CDB: cdb(0x1a, 0x08, 0x0a, 0, 255), In: make([]byte, 255)}
	if err := s.Do(n.ctx, c); err != nil || c.In[6]>>5 != 1 || c.In[7]>>1&3 != 0 {
		t.Errorf("control mode page % x, %v: want TST 001b, QERR 00b", c.In[:16], err)
	}
}

// TestTaskManagementOrder: an aborted command that waits for older ones never
// runs, and the answer does not wait for it; one that runs is waited for (O4).
func TestTaskManagementOrder(t *testing.T) {
	type result struct {
		code byte
		err  error
	}
	for name, tc := range map[string]struct {
		fn    byte
		ref   int    // of ABORT TASK
		waits bool   // for the running command
		then  string // what runs afterwards
		ran   int    // answers
	}{
		"abort the ordered": {initiator.AbortTask, 1, false, "[2]", 2},
		"abort the last":    {initiator.AbortTask, 2, false, "[1]", 2},
		"abort the running": {initiator.AbortTask, 0, true, "[1 2]", 2},
		"abort task set":    {initiator.AbortTaskSet, 0, true, "[]", 0},
		"reset":             {initiator.LogicalUnitReset, 0, true, "[]", 0},
	} {
		t.Run(name, func(t *testing.T) {
			n, d := ordered(t)
			s := n.login(nil)
			d.Hold()
			answers := make(chan *initiator.Command, 3)
			cmds := send(t, n, s, "SOS", func(_ int, c *initiator.Command) { answers <- c })
			if got := d.taken(); got != "[0]" {
				t.Fatalf("%s began", got)
			}
			done := make(chan result, 1)
			go func() {
				code, err := s.TaskManagement(n.ctx, tc.fn, 0, cmds[tc.ref])
				done <- result{code, err}
			}()
			if tc.waits {
				eventually(t, n, "the function is in the target", func() bool { return n.srv.Stats().TaskManagement == 1 })
				n.settle(s)
				select {
				case r := <-done:
					t.Fatalf("answered %+v before the running command ended", r)
				default:
				}
				d.Release()
			}
			if r := <-done; r.err != nil || r.code != 0 {
				t.Fatalf("answer %+v", r)
			}
			d.Release()
			for range tc.ran {
				if c := <-answers; c.Err != nil {
					t.Error(c.Err)
				}
			}
			n.settle(s)
			if got := d.taken(); got != tc.then {
				t.Errorf("%s ran afterwards, want %s", got, tc.then)
			}
			if len(answers) > 0 {
				t.Error("an aborted command was answered")
			}
			for _, c := range cmds {
				s.Forget(c)
			}
			if err := s.Ready(n.ctx, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOrderedLogout: commands that wait for older ones are answered before the
// logout, also when what they wait for never gets its data.
func TestOrderedLogout(t *testing.T) {
	n, d := ordered(t)
	c := rawSession(t, n)
	ready := scsiPDU(0x81, 1, 2, 0, nil)
	ready[0] |= 0x40
	for _, p := range [][]byte{
		ready,
		scsiPDU(0xa2, 10, 2, 512, nil, 0x2a, 0, 0, 0, 0, 7, 0, 0, 1), // ORDERED, its data never comes
		scsiPDU(0xa1, 11, 3, 512, bytes.Repeat([]byte{5}, 512), 0x2a, 0, 0, 0, 0, 8, 0, 0, 1),
		pdu(0x06, 0x80, 12, 4, nil),
	} {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for {
		h, _, err := tryPDU(c)
		if err != nil {
			break
		}
		got = append(got, fmt.Sprintf("%s of %d", answerNames[h[0]], be.Uint32(h[16:])))
	}
	if s := strings.Join(got, ", "); s != "response of 1, r2t of 10, response of 11, logout of 12" {
		t.Errorf("answers %s", s)
	}
	if got := d.taken(); got != "[8]" {
		t.Errorf("%s were written", got)
	}
}

// TestOrderedLoss: with the connection, what waits for older commands is gone.
func TestOrderedLoss(t *testing.T) {
	n, d := ordered(t)
	s := n.login(nil)
	d.Hold()
	send(t, n, s, "SOSH", func(int, *initiator.Command) {})
	if got := d.taken(); got != "[0 3]" {
		t.Fatalf("%s began", got)
	}
	if err := n.srv.DropSession(n.srv.Sessions()[0].ID); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	d.Release()
	eventually(t, n, "the session is gone", func() bool { return n.srv.Stats().Connections == 0 })
	if got := d.taken(); got != "[]" {
		t.Errorf("%s began after the end", got)
	}
}

// TestOrderRandom checks the rules for thousands of commands of random
// attributes on a disk that completes in any order.
func TestOrderRandom(t *testing.T) {
	n, d := ordered(t)
	s := n.login(nil)
	const count, depth = 4000, 100
	rnd := rand.New(rand.NewSource(3))
	attrs := make([]byte, count)
	for i := range attrs {
		attrs[i] = "SSSSSSSSOH"[rnd.Intn(10)]
	}
	for round, delay := range []time.Duration{1, 0} {
		d.SetDelay(delay)
		d.mu.Lock()
		clear(d.ended)
		d.begin = func(lba int64, ended map[int64]bool) {
			for j := max(0, lba-2*depth); j < lba; j++ {
				if a := attrs[j]; !ended[j] && (attrs[lba] == 'O' || attrs[lba] == 'S' && a != 'S') {
					t.Errorf("round %d: %c %d began before %c %d ended", round, attrs[lba], lba, a, j)
				}
			}
		}
		d.mu.Unlock()
		free := make(chan *initiator.Command, depth)
		for range depth {
			free <- &initiator.Command{In: make([]byte, 512), Done: func(c *initiator.Command) { free <- c }}
		}
		for i := range count {
			c := <-free
			if c.Err != nil {
				t.Fatal(c.Err)
			}
			c.CDB, c.Attr = initiator.ReadCDB(uint64(i), 1), attributes[attrs[i]]
			if err := s.Submit(c); err != nil {
				t.Fatal(err)
			}
		}
		for range depth {
			if c := <-free; c.Err != nil {
				t.Fatal(c.Err)
			}
		}
	}
}
