package node

import (
	"errors"
	"testing"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// host logs in to a published vDisk from an initiator port that stays the same.
func (r *running) host(name string, port byte) *initiator.Session {
	r.t.Helper()
	c := r.call("POST", "/vdisks/"+name+"/publish", map[string]any{"open": true}, 200)
	s, err := initiator.Dial(r.t.Context(), initiator.Options{Address: r.portal(), Target: c["iqn"].(string),
		Initiator: "iqn.2026-01.test:" + string(port), ISID: [6]byte{0x80, port},
		CHAPUser: c["chapUser"].(string), CHAPSecret: c["chapSecret"].(string)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(s.Close)
	if err := s.Ready(r.t.Context(), 0); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// keptOut tells whether a reservation keeps a session's writes out.
func (r *running) keptOut(s *initiator.Session) bool {
	r.t.Helper()
	err := s.WriteAt(r.t.Context(), 0, make([]byte, 4096), 0)
	var e *initiator.SCSIError
	if err != nil && (!errors.As(err, &e) || e.Status != initiator.ReservationConflict) {
		r.t.Fatal(err)
	}
	return err != nil
}

// TestReservationComesBack: persistent reservations with APTPL outlive the process,
// publication, and the node; those without end with the process.
func TestReservationComesBack(t *testing.T) {
	type pr = initiator.PersistentReserve
	dir, far := t.TempDir(), t.TempDir()
	backend := map[string]any{"kind": "local", "path": far}
	r := start(t, Options{Data: dir})
	r.pool("gold", far)
	r.disk("one", "gold", 1<<20)
	r.disk("two", "gold", 1<<20)
	reserve := func(name string, aptpl bool) {
		t.Helper()
		for port, key := range map[byte]uint64{'a': 1, 'b': 2} {
			if err := r.host(name, port).PersistentReserve(t.Context(), 0, pr{Action: initiator.PRRegister, NewKey: key, APTPL: aptpl}); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.host(name, 'a').PersistentReserve(t.Context(), 0, pr{Action: initiator.PRReserve, Type: 5, Key: 1}); err != nil {
			t.Fatal(err)
		}
	}
	reserve("one", true)
	reserve("two", false)
	holds := func(name string) {
		t.Helper()
		b := r.host(name, 'b')
		k, err := b.ReadKeys(t.Context(), 0)
		if err != nil || k.Type != 5 || k.Holder != 1 || len(k.Keys) != 2 {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
		if r.keptOut(b) || !r.keptOut(r.host(name, 'c')) {
			t.Errorf("%s: a registered host is kept out, or a stranger is not", name)
		}
	}
	holds("one")
	holds("two")
	restart := func() {
		t.Helper()
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		r = start(t, Options{Data: dir})
	}
	restart()
	holds("one")
	if r.keptOut(r.host("two", 'c')) {
		t.Error("a reservation without APTPL outlived the process")
	}
	r.call("POST", "/vdisks/one/unpublish", map[string]any{"force": true}, 204)
	holds("one") // published again

	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir() // another node, which has the backend alone
	r = start(t, Options{Data: dir})
	got := r.call("POST", "/vpools/recover", map[string]any{"name": "gold", "backend": backend}, 200)
	if d := got["vdisks"].([]any); len(d) != 2 || d[0].(map[string]any)["state"] != "running" {
		t.Fatalf("recovered: %v", d)
	}
	holds("one")
	if err := r.host("one", 'b').PersistentReserve(t.Context(), 0, pr{Action: initiator.PRPreempt, Type: 5, Key: 2, NewKey: 1}); err != nil {
		t.Fatal(err)
	}
	restart()
	if k, err := r.host("one", 'b').ReadKeys(t.Context(), 0); err != nil || k.Holder != 2 || len(k.Keys) != 1 {
		t.Errorf("%+v, %v", k, err)
	}
}
