package node

import (
	"bytes"
	"testing"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// TestPastOverTheAPI: what a console needs to go back: snapshots in either order, a
// rollback that says how it is undone, also with an initiator writing until it is cut
// off, and the clones of a vDisk.
func TestPastOverTheAPI(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	r.pool("gold", t.TempDir())
	r.disk("one", "gold", 1<<20)
	r.disk("two", "gold", 1<<20)
	s := r.login("one")
	write := func(s *initiator.Session, fill byte) {
		t.Helper()
		if err := s.WriteAt(t.Context(), 0, bytes.Repeat([]byte{fill}, 4096), 0); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(fill byte) {
		t.Helper()
		got := make([]byte, 4096)
		if err := r.login("one").ReadAt(t.Context(), 0, got, 0); err != nil || got[0] != fill {
			t.Fatalf("it holds %d (%v), want %d", got[0], err, fill)
		}
	}
	names := func(query string) (out []string) {
		t.Helper()
		for _, i := range r.call("GET", query, nil, 200)["items"].([]any) {
			out = append(out, i.(map[string]any)["name"].(string))
		}
		return out
	}
	want := func(got []string, want ...string) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%v, want %v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%v, want %v", got, want)
			}
		}
	}
	for i, name := range []string{"b", "a", "c"} {
		write(s, byte(i+1))
		r.call("POST", "/vdisks/one/snapshots", map[string]any{"name": name}, 201)
	}
	want(names("/vdisks/one/snapshots"), "b", "a", "c")
	want(names("/vdisks/one/snapshots?sort=-seq&limit=2"), "c", "a")
	want(names("/vdisks/one/snapshots?sort=name"), "a", "b", "c")
	r.refused("GET", "/vdisks/one/snapshots?sort=size", nil, 400, "invalid", "size")

	write(s, 9)
	back := r.call("POST", "/vdisks/one/rollback", map[string]any{"snapshot": "b", "force": true}, 200)
	holds(1)
	r.call("POST", "/vdisks/one/rollback", map[string]any{"pointAt": back["undoAt"], "force": true}, 200)
	holds(9)

	r.call("POST", "/vdisks/one/clone", map[string]any{"name": "copy", "snapshot": "b"}, 201)
	want(names("/vdisks?parent=one"), "copy")
	want(names("/vdisks?parent=two"))
	r.refused("GET", "/vdisks?parent=nobody", nil, 404, "not_found", "nobody")
}
