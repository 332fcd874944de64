package iscsi_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

type pr = initiator.PersistentReserve

// host logs in as a host of this name, always from the same initiator port.
func (n *node) host(name byte) *initiator.Session {
	n.t.Helper()
	return n.login(asHost(name))
}

func asHost(name byte) func(*initiator.Options) {
	return func(o *initiator.Options) {
		o.Initiator, o.ISID = hostName(name), hostISID(name)
	}
}

func hostName(name byte) string  { return fmt.Sprintf("iqn.2026-01.test:%c", name) }
func hostISID(name byte) [6]byte { return [6]byte{0x80, name, 0, 0, 0, 1} }

// must runs PERSISTENT RESERVE OUT commands that succeed.
func (n *node) must(s *initiator.Session, list ...pr) {
	n.t.Helper()
	for _, q := range list {
		if err := s.PersistentReserve(n.ctx, 0, q); err != nil {
			n.t.Fatalf("%+v: %v", q, err)
		}
	}
}

// register gives hosts keys; b'a' gets 0xa and so on.
func (n *node) register(list ...*initiator.Session) {
	n.t.Helper()
	for i, s := range list {
		n.must(s, pr{Action: initiator.PRRegister, NewKey: keyOf(i)})
	}
}

func keyOf(i int) uint64 { return uint64(0xa + i) }

func (n *node) wantKeys(s *initiator.Session, kind byte, holder uint64, keys ...uint64) {
	n.t.Helper()
	k, err := s.ReadKeys(n.ctx, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	slices.Sort(k.Keys)
	if k.Type != kind || k.Holder != holder || !slices.Equal(k.Keys, keys) {
		n.t.Errorf("%+v, want type %d of %x and %x", k, kind, holder, keys)
	}
}

// attentions takes the pending unit attentions.
func (n *node) attentions(s *initiator.Session) string {
	n.t.Helper()
	out := ""
	for range 16 {
		err := s.TestUnitReady(n.ctx, 0)
		if err == nil {
			return out
		}
		var e *initiator.SCSIError
		if !errors.As(err, &e) || !initiator.IsUnitAttention(err) {
			n.t.Fatal(err)
		}
		out += fmt.Sprintf("%02x/%02x ", e.Sense.ASC, e.Sense.ASCQ)
	}
	return out
}

// lba16 is a 16-byte CDB with an LBA and a length.
func lba16(op, flags byte, lba uint64, length uint32) (c [16]byte) {
	c[0], c[1] = op, flags
	be.PutUint64(c[2:], lba)
	be.PutUint32(c[10:], length)
	return c
}

// TestReservationMatrix: every type of reservation, against every role, for
// commands of every class, on the wire.
func TestReservationMatrix(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	holder, registered, stranger := n.host('a'), n.host('b'), n.host('c')
	in := func(size int, c ...byte) *initiator.Command {
		return &initiator.Command{CDB: cdb(c...), In: make([]byte, size)}
	}
	out := func(b []byte, c ...byte) *initiator.Command { return &initiator.Command{CDB: cdb(c...), Out: b} }
	classes := map[string]map[string]*initiator.Command{
		"none": {
			"TEST UNIT READY": out(nil, 0x00), "INQUIRY": in(96, 0x12, 0, 0, 0, 96), "REPORT LUNS": in(64, 0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64),
			"REQUEST SENSE": in(18, 0x03, 0, 0, 0, 18), "READ CAPACITY(10)": in(8, 0x25),
			"READ CAPACITY(16)": {CDB: lba16(0x9e, 0x10, 0, 32), In: make([]byte, 32)},
			"START":             out(nil, 0x1b, 0, 0, 0, 1), "ALLOW": out(nil, 0x1e),
			"READ KEYS": in(64, 0x5e, 0, 0, 0, 0, 0, 0, 0, 64), "READ FULL STATUS": in(64, 0x5e, 3, 0, 0, 0, 0, 0, 0, 64),
			"REPORT CAPABILITIES": in(8, 0x5e, 2, 0, 0, 0, 0, 0, 0, 8),
		},
		"read": {
			"MODE SENSE(6)": in(255, 0x1a, 0, 0x3f, 0, 255), "MODE SENSE(10)": in(255, 0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 255),
			"GET LBA STATUS": {CDB: func() (c [16]byte) { c = lba16(0x9e, 0, 0, 32); c[1] = 0x12; return c }(), In: make([]byte, 32)},
			"PRE-FETCH(10)":  out(nil, 0x34, 0, 0, 0, 0, 0, 0, 0, 1), "PRE-FETCH(16)": {CDB: lba16(0x90, 0, 0, 1)},
			"REPORT SUPPORTED OPERATION CODES": in(64, 0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 0, 64),
		},
		"write": {"MODE SELECT(6)": out(make([]byte, 4), 0x15, 0x10, 0, 0, 4)},
	}
	for _, c := range dataCommands() {
		class := "read"
		switch {
		case slices.Contains(c.ops, iscsi.OpReserve), strings.HasSuffix(c.name, "SWP"): // not of the medium
			continue
		case slices.ContainsFunc(c.ops, func(k iscsi.OpKind) bool { return k != iscsi.OpRead }):
			class = "write"
		}
		classes[class][c.name] = c.make(16)
	}
	const we, ea, wero, earo, wear, eaar = 1, 3, 5, 6, 7, 8
	for _, kind := range []byte{we, ea, wero, earo, wear, eaar} {
		n.register(holder, registered)
		n.must(holder, pr{Action: initiator.PRReserve, Type: kind, Key: keyOf(0)})
		exclusive := kind == ea || kind == earo || kind == eaar
		for role, s := range map[string]*initiator.Session{"holder": holder, "registered": registered, "stranger": stranger} {
			for class, commands := range classes {
				allowed := class == "none" || class == "read" && !exclusive
				if role == "holder" || role == "registered" && kind > ea {
					allowed = true
				}
				for name, c := range commands {
					t.Run(fmt.Sprintf("%d/%s/%s", kind, role, name), func(t *testing.T) {
						clearDisk(t, n)
						c.Err = nil
						err := s.Do(n.ctx, c)
						if allowed && err != nil {
							t.Error(err)
						}
						if !allowed {
							wantStatus(t, err, initiator.ReservationConflict)
						}
					})
				}
			}
		}
		n.must(holder, pr{Action: initiator.PRClear, Key: keyOf(0)})
		n.attentions(registered)
	}
}

// TestReservationAttentions: who is told what, on the wire, and that a second
// session of the same nexus finds its registration again.
func TestReservationAttentions(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	a, b, c := n.host('a'), n.host('b'), n.host('c')
	told := func(what, wantA, wantB, wantC string) {
		t.Helper()
		for _, x := range []struct {
			name, want string
			s          *initiator.Session
		}{{"a", wantA, a}, {"b", wantB, b}, {"c", wantC, c}} {
			if got := n.attentions(x.s); got != x.want {
				t.Errorf("%s: %s is told %q, want %q", what, x.name, got, x.want)
			}
		}
	}
	n.register(a, b, c)
	told("REGISTER", "", "", "")
	n.must(a, pr{Action: initiator.PRReserve, Type: 5, Key: keyOf(0)})
	n.must(a, pr{Action: initiator.PRRelease, Type: 5, Key: keyOf(0)})
	told("RELEASE", "", "2a/04 ", "2a/04 ")
	n.must(a, pr{Action: initiator.PRReserve, Type: 6, Key: keyOf(0)})
	n.must(b, pr{Action: initiator.PRPreempt, Type: 8, Key: keyOf(1), NewKey: keyOf(0)})
	told("PREEMPT", "2a/05 ", "", "2a/04 ")
	n.wantKeys(b, 8, 0, keyOf(1), keyOf(2))
	n.must(c, pr{Action: initiator.PRClear, Key: keyOf(2)})
	told("CLEAR", "", "2a/03 ", "")
	n.register(a, b)
	n.must(b, pr{Action: initiator.PRPreemptAbort, Key: keyOf(1), NewKey: keyOf(0)})
	told("PREEMPT AND ABORT of an idle nexus", "2a/05 ", "", "")
	n.must(b, pr{Action: initiator.PRReserve, Type: 3, Key: keyOf(1)})

	for _, end := range []string{"logout", "loss", "reinstatement", "LUN reset", "target warm reset"} { // R5
		var err error
		switch end {
		case "logout":
			err = b.Logout(n.ctx)
		case "loss":
			b.Close()
		case "LUN reset":
			_, err = c.TaskManagement(n.ctx, initiator.LogicalUnitReset, 0, nil)
		case "target warm reset":
			_, err = c.TaskManagement(n.ctx, initiator.TargetWarmReset, 0, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		n.attentions(c)
		wantStatus(t, c.ReadAt(n.ctx, 0, make([]byte, 512), 0), initiator.ReservationConflict)
		b = n.host('b')
		if err := b.ReadAt(n.ctx, 0, make([]byte, 512), 0); err != nil {
			t.Errorf("after %s: %v", end, err)
		}
		n.wantKeys(b, 3, keyOf(1), keyOf(1))
	}
	other := n.login(func(o *initiator.Options) { asHost('b')(o); o.ISID[5]++ }) // another initiator port
	wantStatus(t, other.ReadAt(n.ctx, 0, make([]byte, 512), 0), initiator.ReservationConflict)
}

// TestReservationStatus: REPORT CAPABILITIES and READ FULL STATUS, byte for byte,
// what the server tells of the unit, and TransportIDs on the way in.
func TestReservationStatus(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	a, b := n.host('a'), n.host('b')
	if i := n.srv.Targets()[0].LUNs[0].Reservation; i != nil {
		t.Errorf("%+v", i)
	}
	caps := func(want string) {
		t.Helper()
		if c, err := a.PersistentReserveIn(n.ctx, 0, initiator.PRReportCapabilities); err != nil || hex.EncodeToString(c) != want {
			t.Errorf("capabilities %x, %v, want %s", c, err, want)
		}
	}
	caps("00081db0ea010000")
	port := initiator.PortText(hostName('b'), hostISID('b'))
	n.must(a, pr{Action: initiator.PRRegister, NewKey: 0x1122334455667788, APTPL: true, Ports: []string{port}})
	caps("00081db1ea010000")
	n.must(a, pr{Action: initiator.PRReserve, Type: 6, Key: 0x1122334455667788})
	text := func(name byte) string {
		return hex.EncodeToString([]byte(initiator.PortText(hostName(name), hostISID(name)))) + "00"
	}
	want := "00000001" + "00000080" +
		"1122334455667788" + "00000000" + "0106" + "00000000" + "0001" + "00000028" + "45000024" + text('a') +
		"1122334455667788" + "00000000" + "0000" + "00000000" + "0001" + "00000028" + "45000024" + text('b')
	if s, err := b.PersistentReserveIn(n.ctx, 0, initiator.PRReadFullStatus); err != nil || hex.EncodeToString(s) != want {
		t.Errorf("full status %v\n%x\n%s", err, s, want)
	}
	i := n.srv.Targets()[0].LUNs[0].Reservation
	if i == nil || *i != (iscsi.ReservationInfo{Type: "exclusive access, registrants only", Registrations: 2, Persistent: true, Generation: 1,
		Holder: initiator.PortText(hostName('a'), hostISID('a')) + ",t,0x0001"}) {
		t.Errorf("%+v", i)
	}
	if err := b.WriteAt(n.ctx, 0, make([]byte, 512), 0); err != nil {
		t.Errorf("the specified port: %v", err)
	}
	n.must(a, pr{Action: initiator.PRRegisterMove, Key: 0x1122334455667788, NewKey: 5, TargetPort: 1, Ports: []string{hostName('b')}, Unregister: true})
	n.wantKeys(b, 6, 5, 5)
	caps("00081db0ea010000") // the last valid APTPL was 0
	wantStatus(t, a.WriteAt(n.ctx, 0, make([]byte, 512), 0), initiator.ReservationConflict)
}

// TestReservationRefusals: parameter lists that are refused, and that nothing
// comes of it.
func TestReservationRefusals(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	a := n.host('a')
	good := pr{Action: initiator.PRRegister, NewKey: 1, Ports: []string{initiator.PortText(hostName('b'), hostISID('b'))}}
	bad := func(q pr, change func(c *initiator.Command)) *initiator.Command {
		c := q.Command(0)
		change(c)
		return c
	}
	plain := pr{Action: initiator.PRRegister, NewKey: 1}
	for _, tc := range []struct {
		name string
		c    *initiator.Command
		a    byte
	}{
		{"23 bytes", bad(plain, func(c *initiator.Command) { c.Out, c.CDB[8] = c.Out[:23], 23 }), 0x1a},
		{"25 bytes", bad(plain, func(c *initiator.Command) { c.Out, c.CDB[8] = append(c.Out, 0), 25 }), 0x1a},
		{"none", bad(plain, func(c *initiator.Command) { c.Out, c.CDB[8] = nil, 0 }), 0x1a},
		{"fewer than announced", bad(plain, func(c *initiator.Command) { c.Out = c.Out[:12] }), 0x1a},
		{"1 GiB", bad(plain, func(c *initiator.Command) { c.CDB[5] = 0x40 }), 0x1a},
		{"64 KiB", bad(plain, func(c *initiator.Command) {
			c.Out = append(c.Out, make([]byte, 64<<10-24)...)
			c.CDB[6], c.CDB[8] = 1, 0
		}), 0x1a},
		{"TransportIDs cut off", bad(good, func(c *initiator.Command) { c.Out[27] += 4 }), 0x26},
		{"TransportID of FCP", bad(good, func(c *initiator.Command) { c.Out[28] = 0x40 }), 0x26},
		{"no TransportID", bad(good, func(c *initiator.Command) { c.Out[27] = 0 }), 0x26},
		{"SPEC_I_PT without a list", bad(plain, func(c *initiator.Command) { c.Out[20] = 8 }), 0x26},
		{"SPEC_I_PT with IGNORE", bad(good, func(c *initiator.Command) { c.CDB[1] = initiator.PRRegisterIgnore }), 0x26},
		{"initiator without a session", pr{Action: initiator.PRRegister, NewKey: 1, Ports: []string{hostName('z')}}.Command(0), 0x26},
		{"unknown service action", bad(plain, func(c *initiator.Command) { c.CDB[1] = 8 }), 0x24},
		{"a scope", func() *initiator.Command {
			c := pr{Action: initiator.PRReserve, Key: 1, Type: 1}.Command(0)
			c.CDB[2] |= 0x20
			return c
		}(), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := a.Do(n.ctx, tc.c)
			if tc.a == 0 {
				wantStatus(t, err, initiator.ReservationConflict)
			} else {
				wantSense(t, err, 5, tc.a, 0)
			}
			n.wantKeys(a, 0, 0)
		})
	}
	if n.disk.Ops[iscsi.OpReserve].Load() != 0 {
		t.Error("a refused command reached the disk")
	}
	plainDisk := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) { s.LUNs[0].Disk = struct{ iscsi.Disk }{s.LUNs[0].Disk} })
	s := plainDisk.host('a') // over a disk that keeps no state
	wantSense(t, s.PersistentReserve(n.ctx, 0, pr{Action: initiator.PRRegister, NewKey: 1, APTPL: true}), 5, 0x26, 0)
	plainDisk.must(s, plain, pr{Action: initiator.PRReserve, Key: 1, Type: 3})
	plainDisk.wantKeys(s, 3, 1, 1)
	if c, err := s.PersistentReserveIn(n.ctx, 0, initiator.PRReportCapabilities); err != nil || c[2]&1 != 0 {
		t.Errorf("%x, %v", c, err)
	}
}

// TestReserveAndPersistent: RESERVE(6) and persistent reservations keep each other
// out, except where CRH lets RESERVE pass and do nothing.
func TestReserveAndPersistent(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	a, b, c := n.host('a'), n.host('b'), n.host('c')
	reserve, release := &initiator.Command{CDB: cdb(0x16)}, &initiator.Command{CDB: cdb(0x57)}
	if err := a.Do(n.ctx, reserve); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*initiator.Session{a, b} { // also for the holder
		wantStatus(t, s.PersistentReserve(n.ctx, 0, pr{Action: initiator.PRRegister, NewKey: 1}), initiator.ReservationConflict)
		_, err := s.PersistentReserveIn(n.ctx, 0, initiator.PRReadKeys)
		wantStatus(t, err, initiator.ReservationConflict)
	}
	if err := a.Do(n.ctx, release); err != nil {
		t.Fatal(err)
	}
	n.register(a, b)
	for _, cmd := range []*initiator.Command{reserve, release} {
		for _, s := range []*initiator.Session{a, b, c} {
			wantStatus(t, s.Do(n.ctx, cmd), initiator.ReservationConflict)
		}
	}
	for _, kind := range []byte{1, 5, 8} {
		n.must(a, pr{Action: initiator.PRReserve, Type: kind, Key: keyOf(0)})
		for _, cmd := range []*initiator.Command{reserve, release} {
			if err := a.Do(n.ctx, cmd); err != nil {
				t.Errorf("type %d, holder: %v", kind, err)
			}
			if err := b.Do(n.ctx, cmd); (err == nil) != (kind > 3) {
				t.Errorf("type %d, registered: %v", kind, err)
			}
			wantStatus(t, c.Do(n.ctx, cmd), initiator.ReservationConflict)
		}
		if by := n.srv.Targets()[0].LUNs[0].ReservedBy; by != "" {
			t.Errorf("reserved by %s", by)
		}
		n.must(a, pr{Action: initiator.PRRelease, Type: kind, Key: keyOf(0)})
		n.attentions(b)
	}
}

// TestReservationKept: APTPL decides what a restart leaves; changes of a target's
// spec leave everything.
func TestReservationKept(t *testing.T) {
	for _, aptpl := range []bool{false, true} {
		t.Run(fmt.Sprintf("aptpl %t", aptpl), func(t *testing.T) {
			n := start(t, iscsi.Config{}, nil)
			a, b := n.host('a'), n.host('b')
			n.must(a, pr{Action: initiator.PRRegister, NewKey: 1, APTPL: aptpl})
			n.must(b, pr{Action: initiator.PRRegister, NewKey: 2, APTPL: aptpl})
			n.must(a, pr{Action: initiator.PRReserve, Type: 6, Key: 1})

			// Another number, another product, a unit beside it: the same state.
			spec := n.spec
			spec.LUNs = []iscsi.LUNSpec{lunSpec(3, n.disk), lunSpec(0, iscsitest.NewDisk(1<<20, nil))}
			spec.LUNs[0].Product = "renamed"
			if err := n.srv.UpdateTarget(spec); err != nil {
				t.Fatal(err)
			}
			var e *initiator.SCSIError
			for _, s := range []*initiator.Session{a, b} {
				if err := s.Ready(n.ctx, 0); err != nil {
					t.Fatal(err)
				}
				if err := s.Ready(n.ctx, 3); err != nil {
					t.Fatal(err)
				}
			}
			if k, err := b.ReadKeys(n.ctx, 3); err != nil || k.Type != 6 || k.Holder != 1 || len(k.Keys) != 2 || k.Generation != 2 {
				t.Fatalf("%+v, %v", k, err)
			}
			if k, err := b.ReadKeys(n.ctx, 0); err != nil || len(k.Keys) != 0 {
				t.Fatalf("the unit beside it: %+v, %v", k, err)
			}
			if err := n.srv.UpdateTarget(n.spec); err != nil {
				t.Fatal(err)
			}
			n.attentions(a)
			n.attentions(b)
			n.wantKeys(b, 6, 1, 1, 2)

			again := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) { s.LUNs[0].Disk = n.disk }) // a new process
			c := again.host('c')
			err := c.ReadAt(n.ctx, 0, make([]byte, 512), 0)
			if !aptpl {
				if err != nil {
					t.Error(err)
				}
				again.wantKeys(c, 0, 0)
				return
			}
			if !errors.As(err, &e) || e.Status != initiator.ReservationConflict {
				t.Fatalf("a stranger after a restart: %v", err)
			}
			b = again.host('b')
			if err := b.WriteAt(n.ctx, 0, make([]byte, 512), 0); err != nil {
				t.Error(err)
			}
			again.wantKeys(b, 6, 1, 1, 2)
			if k, err := b.ReadKeys(n.ctx, 0); err != nil || k.Generation != 0 {
				t.Errorf("generation %d, %v", k.Generation, err)
			}
			again.must(b, pr{Action: initiator.PRPreempt, Type: 6, Key: 2, NewKey: 1}) // whose host is gone
			again.wantKeys(b, 6, 2, 2)
		})
	}
}

// damagedDisk keeps bytes that are no state.
type damagedDisk struct{ iscsi.Disk }

func (damagedDisk) Reservation() []byte { return []byte("no state") }

// TestDamagedReservation: a unit whose state cannot be read is not served (R6).
func TestDamagedReservation(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	spec := n.spec
	spec.LUNs = append(slices.Clone(spec.LUNs), lunSpec(1, damagedDisk{n.disk}))
	if err := n.srv.UpdateTarget(spec); err == nil || !bytes.Contains([]byte(err.Error()), []byte("LUN 1")) {
		t.Errorf("published: %v", err)
	}
	s := n.host('a')
	if luns, err := s.ReportLUNs(n.ctx); err != nil || len(luns) != 1 {
		t.Errorf("%v, %v", luns, err)
	}
}

// issue submits a command and returns a channel that tells its end.
func issue(t *testing.T, s *initiator.Session, c *initiator.Command) chan error {
	t.Helper()
	done := make(chan error, 1)
	c.Done = func(c *initiator.Command) { done <- c.Err }
	if err := s.Submit(c); err != nil {
		t.Fatal(err)
	}
	return done
}

func writeOf(lba uint64, v byte, blocks int) *initiator.Command {
	return &initiator.Command{CDB: initiator.WriteCDB(lba, uint32(blocks), false), Out: bytes.Repeat([]byte{v}, 512*blocks)}
}

// handled returns when the target has dealt with what a session sent before.
func (n *node) handled(s *initiator.Session) {
	n.t.Helper()
	if _, err := s.Ping(n.ctx, nil); err != nil {
		n.t.Fatal(err)
	}
}

func pending(t *testing.T, what string, done chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("%s ended: %v", what, err)
	default:
	}
}

// TestPreemptionFences: a preemption is answered after what the preempted nexus
// has under way; until then its further commands are BUSY, afterwards refused; and
// nobody's connection waits meanwhile (R1, R2, R3, R7).
func TestPreemptionFences(t *testing.T) {
	for _, action := range []byte{initiator.PRPreempt, initiator.PRPreemptAbort} {
		t.Run(fmt.Sprint(action), func(t *testing.T) {
			n := start(t, iscsi.Config{}, nil)
			a, b := n.host('a'), n.host('b')
			n.register(a, b)
			n.must(b, pr{Action: initiator.PRReserve, Type: 5, Key: keyOf(1)})
			n.disk.Hold()
			write := issue(t, b, writeOf(0, 1, 1))
			read := &initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512)}
			reading := issue(t, b, read) // not forbidden by what comes
			eventually(t, n, "both are in the disk", func() bool { return n.disk.Held() == 2 })
			preempt := issue(t, a, pr{Action: action, Type: 1, Key: keyOf(0), NewKey: keyOf(1)}.Command(0))
			n.handled(a) // the reader of the connection does not wait (R7)
			queued := issue(t, b, pr{Action: initiator.PRRegisterIgnore, NewKey: 7}.Command(0))
			n.handled(b)
			wantStatus(t, b.WriteAt(n.ctx, 0, make([]byte, 512), 8), initiator.Busy)
			if n.disk.Ops[iscsi.OpReserve].Load() != 3 {
				t.Fatal("the change reached the disk before the write was over") // R3
			}
			n.wantKeys(a, 5, keyOf(1), keyOf(0), keyOf(1))
			pending(t, "the preemption", preempt)
			n.disk.Release()
			if err := <-preempt; err != nil {
				t.Fatal(err)
			}
			n.wantKeys(a, 1, keyOf(0), keyOf(0))
			if action == initiator.PRPreempt {
				if err := errors.Join(<-write, <-reading); err != nil {
					t.Error(err)
				}
				wantStatus(t, <-queued, initiator.ReservationConflict)
			} else if _, err := b.Ping(n.ctx, nil); err != nil {
				t.Fatal(err)
			} else {
				select { // what is over before it is aborted was answered
				case err := <-write:
					if err != nil {
						t.Error(err)
					}
				default:
				}
			}
			want := "2a/05 "
			if got := n.attentions(b); got[:len(want)] != want {
				t.Errorf("told %q", got)
			}
			wantStatus(t, b.WriteAt(n.ctx, 0, make([]byte, 512), 0), initiator.ReservationConflict)
			n.wantKeys(a, 1, keyOf(0), keyOf(0))
		})
	}
}

// TestPreemptAndAbort: commands that the new reservation allows are aborted too,
// and waited for.
func TestPreemptAndAbort(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	a, b := n.host('a'), n.host('b')
	n.register(a, b)
	n.must(b, pr{Action: initiator.PRReserve, Type: 1, Key: keyOf(1)})
	n.disk.Hold()
	c := &initiator.Command{CDB: initiator.ReadCDB(0, 1), In: make([]byte, 512)}
	reading := issue(t, b, c)
	eventually(t, n, "the read is in the disk", func() bool { return n.disk.Held() == 1 })
	preempt := issue(t, a, pr{Action: initiator.PRPreemptAbort, Type: 1, Key: keyOf(0), NewKey: keyOf(1)}.Command(0))
	eventually(t, n, "the change is in the disk", func() bool { return n.disk.Held() == 2 })
	n.disk.ReleaseOne(iscsi.OpReserve)
	n.wantKeys(a, 1, keyOf(0), keyOf(0)) // in force
	pending(t, "the preemption", preempt)
	n.disk.Release()
	if err := <-preempt; err != nil {
		t.Fatal(err)
	}
	if _, err := b.Ping(n.ctx, nil); err != nil {
		t.Fatal(err)
	}
	if !b.Forget(c) {
		t.Errorf("the aborted command was answered: %v", <-reading)
	}
	if got := n.attentions(b); got != "2a/05 2f/00 " {
		t.Errorf("told %q", got)
	}
}

// TestFencedWhileReceiving: a write that was admitted and waits for its data when
// its nexus is preempted never takes effect (R2).
func TestFencedWhileReceiving(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	a := n.host('a')
	n.register(a)
	c := rawSession(t, n, "ImmediateData=No")
	send := func(p []byte) {
		t.Helper()
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	send(scsiPDU(0x80, 9, 2, 0, nil, 0)) // TEST UNIT READY takes the unit attention
	readPDU(t, c)
	send(scsiPDU(0xa0, 10, 3, 1024, nil, 0x2a, 0, 0, 0, 0, 0, 0, 0, 2))
	if h, _ := readPDU(t, c); h[0] != 0x31 {
		t.Fatalf("no R2T: % x", h)
	}
	n.must(a, pr{Action: initiator.PRReserve, Type: 3, Key: keyOf(0)})
	send(dataOut(0x80, 10, 1, 0, 0, bytes.Repeat([]byte{9}, 1024)))
	if h, _ := readPDU(t, c); h[0] != 0x21 || h[3] != initiator.ReservationConflict {
		t.Fatalf("answer % x", h)
	}
	p := make([]byte, 8192)
	if _, err := n.disk.ReadAt(p, 0); err != nil || bytes.Contains(p, []byte{9}) {
		t.Errorf("the write took effect (%v)", err)
	}
}

// TestFailedReservation: when the disk does not take the change, the old state is
// in force, and each failure has its own status (R4).
func TestFailedReservation(t *testing.T) {
	for _, tc := range []struct {
		err     error
		status  byte
		k, a, q byte
	}{
		{iscsi.ErrBusy, initiator.Busy, 0, 0, 0},
		{iscsi.ErrNoSpace, initiator.CheckCondition, 7, 0x27, 7},
		{iscsi.ErrReadOnly, initiator.CheckCondition, 7, 0x27, 0},
		{iscsi.ErrAborted, initiator.CheckCondition, 0xb, 0, 6},
		{iscsi.ErrMedium, initiator.CheckCondition, 4, 0x44, 0},
		{errors.New("anything"), initiator.CheckCondition, 4, 0x44, 0},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			n := start(t, iscsi.Config{}, nil)
			a, b := n.host('a'), n.host('b')
			n.register(a, b)
			n.must(b, pr{Action: initiator.PRReserve, Type: 5, Key: keyOf(1)})
			n.disk.SetFail(func(op *iscsi.Op) error {
				if op.Kind == iscsi.OpReserve {
					return tc.err
				}
				return nil
			})
			err := a.PersistentReserve(n.ctx, 0, pr{Action: initiator.PRPreemptAbort, Type: 1, Key: keyOf(0), NewKey: keyOf(1)})
			if tc.status == initiator.CheckCondition {
				wantSense(t, err, tc.k, tc.a, tc.q)
			} else {
				wantStatus(t, err, tc.status)
			}
			n.wantKeys(a, 5, keyOf(1), keyOf(0), keyOf(1))
			if err := b.WriteAt(n.ctx, 0, make([]byte, 512), 0); err != nil {
				t.Errorf("the holder is kept out, or told: %v", err)
			}
			n.disk.SetFail(nil)
			n.must(a, pr{Action: initiator.PRPreempt, Type: 1, Key: keyOf(0), NewKey: keyOf(1)})
			n.wantKeys(a, 1, keyOf(0), keyOf(0))
		})
	}
	t.Run("gone", func(t *testing.T) { // the nexus is dropped as well
		n := start(t, iscsi.Config{}, nil)
		a := n.host('a')
		n.disk.SetFail(func(op *iscsi.Op) error { return iscsi.ErrGone })
		wantSense(t, a.PersistentReserve(n.ctx, 0, pr{Action: initiator.PRRegister, NewKey: 1}), 2, 4, 3)
		<-a.Done()
		n.disk.SetFail(nil)
		n.wantKeys(n.host('a'), 0, 0)
	})
}

// TestReservationQueue: changes that wait behind one that waits are aborted, lost
// with their connection, or run in order; none is answered twice, none is stuck.
func TestReservationQueue(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	a, b, c := n.host('a'), n.host('b'), n.host('c')
	n.disk.Hold()
	first := issue(t, a, pr{Action: initiator.PRRegister, NewKey: 1}.Command(0))
	eventually(t, n, "the first is in the disk", func() bool { return n.disk.Held() == 1 })
	aborted := pr{Action: initiator.PRRegister, Key: 1, NewKey: 2}.Command(0)
	ended := issue(t, a, aborted)
	lost := issue(t, b, pr{Action: initiator.PRRegister, NewKey: 3}.Command(0))
	last := issue(t, c, pr{Action: initiator.PRRegister, NewKey: 4}.Command(0))
	var more []chan error
	for range 20 { // they complete inside the disk's call, one after the other
		more = append(more, issue(t, c, pr{Action: initiator.PRRegisterIgnore, NewKey: 5}.Command(0)))
	}
	for _, s := range []*initiator.Session{a, b, c} {
		n.handled(s)
	}
	managed := make(chan error, 1)
	go func() {
		_, err := a.TaskManagement(n.ctx, initiator.AbortTask, 0, aborted)
		managed <- err
	}()
	eventually(t, n, "the function is in the target", func() bool { return n.srv.Stats().TaskManagement == 1 })
	for _, i := range n.srv.Sessions() {
		if i.Initiator == hostName('b') {
			if err := n.srv.DropSession(i.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-b.Done()
	pending(t, "the function", managed)
	n.disk.Release()
	if err := errors.Join(<-first, <-last, <-managed); err != nil {
		t.Fatal(err)
	}
	for _, m := range more {
		if err := <-m; err != nil {
			t.Error(err)
		}
	}
	if _, err := a.Ping(n.ctx, nil); err != nil || !a.Forget(aborted) {
		t.Errorf("the aborted command was answered: %v, %v", err, <-ended)
	}
	if err := <-lost; err == nil {
		t.Error("a command of a closed connection succeeded")
	}
	n.wantKeys(a, 0, 0, 1, 5)
	if got := n.disk.Ops[iscsi.OpReserve].Load(); got != 22 {
		t.Errorf("%d changes reached the disk", got) // neither the aborted nor the lost one (I4)
	}
}

// TestReserveWaits: RESERVE(6) is answered after what others have under way.
func TestReserveWaits(t *testing.T) {
	n := start(t, iscsi.Config{}, nil)
	a, b := n.host('a'), n.host('b')
	n.disk.Hold()
	w := issue(t, b, writeOf(0, 1, 1))
	eventually(t, n, "the write is in the disk", func() bool { return n.disk.Held() == 1 })
	reserve := issue(t, a, &initiator.Command{CDB: cdb(0x16)})
	eventually(t, n, "the reservation binds", func() bool { return n.srv.Targets()[0].LUNs[0].ReservedBy == hostName('a') })
	wantStatus(t, b.WriteAt(n.ctx, 0, make([]byte, 512), 8), initiator.ReservationConflict)
	pending(t, "RESERVE", reserve)
	n.disk.Release()
	if err := errors.Join(<-w, <-reserve); err != nil {
		t.Error(err)
	}
}

// TestPreemptionUnderLoad: writers are preempted again and again under full load;
// from the answer on, not a byte of what they write changes.
func TestPreemptionUnderLoad(t *testing.T) {
	const (
		writers = 3
		depth   = 16
		rounds  = 25
		area    = 64 // blocks each
	)
	n := start(t, iscsi.Config{}, nil)
	n.disk.SetDelay(50 * time.Microsecond) // completions from elsewhere, in any order
	a := n.host('a')
	n.must(a, pr{Action: initiator.PRRegister, NewKey: 1, APTPL: true})
	ctx, stop := context.WithCancel(n.ctx)
	var wg sync.WaitGroup
	var wrote, refused, busy atomic.Int64
	hosts := make([]*initiator.Session, writers)
	for i := range writers {
		hosts[i] = n.host('b' + byte(i))
		for d := range depth {
			wg.Add(1)
			go func() {
				defer wg.Done()
				r := rand.New(rand.NewPCG(uint64(i), uint64(d)))
				for v := byte(1); ctx.Err() == nil; v++ {
					k := 1 + r.IntN(8)
					var e *initiator.SCSIError
					switch err := hosts[i].WriteAt(n.ctx, 0, bytes.Repeat([]byte{v}, 512*k), uint64(i*area+r.IntN(area-k))); {
					case err == nil:
						wrote.Add(1)
					case errors.As(err, &e) && e.Status == initiator.ReservationConflict:
						refused.Add(1)
					case errors.As(err, &e) && e.Status == initiator.Busy:
						busy.Add(1)
					case !initiator.IsUnitAttention(err):
						t.Errorf("writer %d: %v", i, err)
						return
					}
				}
			}()
		}
	}
	r := rand.New(rand.NewPCG(7, 7))
	before, after := make([]byte, area*512), make([]byte, area*512)
	for round := range rounds {
		victim := r.IntN(writers)
		was := wrote.Load()
		for i, s := range hosts {
			for { // a unit attention of the last round may come first
				err := s.PersistentReserve(n.ctx, 0, pr{Action: initiator.PRRegisterIgnore, NewKey: uint64(10 + i), APTPL: true})
				if err == nil {
					break
				}
				if !initiator.IsUnitAttention(err) {
					t.Fatal(err)
				}
			}
		}
		if round == 0 {
			n.must(a, pr{Action: initiator.PRReserve, Type: 5, Key: 1})
		}
		eventually(t, n, "the writers write", func() bool { return wrote.Load() > was+20 })
		n.must(a, pr{Action: initiator.PRPreempt, Key: 1, NewKey: uint64(10 + victim)})
		if _, err := n.disk.ReadAt(before, int64(victim*area*512)); err != nil {
			t.Fatal(err)
		}
		was, no := wrote.Load(), refused.Load()
		eventually(t, n, "the others write on, and the victim is refused", func() bool { return wrote.Load() > was+100 && refused.Load() > no+20 })
		if _, err := n.disk.ReadAt(after, int64(victim*area*512)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(before, after) {
			t.Fatalf("round %d: the blocks of preempted writer %d changed after the answer", round, victim)
		}
	}
	stop()
	wg.Wait()
	n.disk.SetDelay(0)
	t.Logf("%d writes, %d refused, %d busy", wrote.Load(), refused.Load(), busy.Load())
}
