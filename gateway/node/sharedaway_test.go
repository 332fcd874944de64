package node

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// TestSharedAway: of a shared target, a vDisk whose backend is away at the start
// keeps its number and is busy, while the others are served; it comes up on the same
// session. It can be unpublished meanwhile.
func TestSharedAway(t *testing.T) {
	dir, parent := t.TempDir(), t.TempDir()
	far, file := filepath.Join(parent, "far"), filepath.Join(parent, "file")
	r := start(t, Options{Data: dir})
	r.pool("near", t.TempDir())
	r.pool("far", far)
	r.disk("here", "near", 1<<20)
	r.disk("away", "far", 2<<20)
	r.disk("gone", "far", 1<<20)
	iqn := r.call("POST", "/targets", map[string]any{"name": "cluster"}, 201)["iqn"].(string)
	r.call("POST", "/targets/"+iqn+"/groups", map[string]any{"name": "hosts", "initiators": []string{hostA, hostB}, "chap": false}, 201)
	for _, d := range []string{"here", "away", "gone"} {
		r.call("POST", "/vdisks/"+d+"/publish", map[string]any{"target": "cluster"}, 200)
	}
	login := func(host string) *initiator.Session {
		t.Helper()
		return r.dial(initiator.Options{Address: r.portal(), Target: iqn, Initiator: host})
	}
	reserved := func() any {
		t.Helper()
		return r.call("GET", "/targets/"+iqn, nil, 200)["luns"].([]any)[1].(map[string]any)["reservation"]
	}
	s, data := login(hostA), bytes.Repeat([]byte{7}, 4096)
	if got := r.sees(s); got != "[0 1 2]" {
		t.Fatalf("it sees %s", got)
	}
	if err := s.WriteAt(t.Context(), 1, data, 8); err != nil {
		t.Fatal(err)
	}
	const key = 0x77
	register := initiator.PersistentReserve{Action: initiator.PRRegister, NewKey: key, APTPL: true}
	if err := errors.Join(s.PersistentReserve(t.Context(), 1, register),
		s.PersistentReserve(t.Context(), 1, initiator.PersistentReserve{Action: initiator.PRReserve, Type: 1, Key: key})); err != nil {
		t.Fatal(err)
	}
	kept, _ := reserved().(map[string]any)
	if kept["type"] == "" || kept["persistent"] != true || kept["registrations"] != 1.0 || !strings.Contains(fmt.Sprint(kept["holder"]), hostA) {
		t.Errorf("reservation %v", kept)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	write(t, file, "not a directory")
	swap := func() {
		t.Helper()
		if err := unix.Renameat2(unix.AT_FDCWD, far, unix.AT_FDCWD, file, unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
	}
	swap()
	r = start(t, Options{Data: dir})
	s = login(hostA)
	if got := r.sees(s); got != "[0 1 2]" {
		t.Errorf("without a backend it sees %s", got)
	}
	if err := s.WriteAt(t.Context(), 0, data, 0); err != nil {
		t.Errorf("the LUN whose backend is there: %v", err)
	}
	if c, err := s.ReadCapacity(t.Context(), 1); err != nil || c.Blocks*uint64(c.BlockSize) != 2<<20 {
		t.Errorf("size of the LUN that is away: %+v %v", c, err)
	}
	got := make([]byte, len(data))
	for what, err := range map[string]error{
		"read": s.ReadAt(t.Context(), 1, got, 8), "write": s.WriteAt(t.Context(), 1, data, 0), "reservation": s.PersistentReserve(t.Context(), 1, register),
	} {
		var e *initiator.SCSIError
		if !errors.As(err, &e) || e.Status != initiator.Busy {
			t.Errorf("%s of the LUN that is away: %v, want BUSY", what, err)
		}
	}
	r.refused("POST", "/vdisks/gone/unpublish", map[string]any{}, 409, "in_use", hostA)
	r.call("POST", "/vdisks/gone/unpublish", map[string]any{"force": true}, 204)
	if got := r.sees(s); got != "[0 1]" {
		t.Errorf("with one unpublished it sees %s", got)
	}
	swap()
	r.until("running", func() bool { return r.call("GET", "/vdisks/away", nil, 200)["state"] == "running" })
	if got := r.sees(s); got != "[0 1]" {
		t.Errorf("with its backend back it sees %s", got)
	}
	if err := s.ReadAt(t.Context(), 1, got, 8); err != nil || !bytes.Equal(got, data) {
		t.Errorf("with its backend back: %v", err)
	}
	back, _ := reserved().(map[string]any)
	if back["type"] != kept["type"] || back["holder"] != kept["holder"] {
		t.Errorf("the reservation was %v and is %v", kept, back)
	}
	other := login(hostB)
	if got := r.sees(other); got != "[0 1]" {
		t.Errorf("the other host sees %s", got)
	}
	var e *initiator.SCSIError
	if err := other.WriteAt(t.Context(), 1, data, 0); !errors.As(err, &e) || e.Status != initiator.ReservationConflict {
		t.Errorf("the other host writes: %v, want RESERVATION CONFLICT", err)
	}
}
