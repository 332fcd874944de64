package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// until waits for something that the node does by itself.
func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-limit:
			_, b, err := r.ask("GET", "/vdisks?limit=10", nil)
			r.t.Fatalf("not %s; its vDisks: %s, %v", what, b, err)
		case <-again.C:
		}
	}
}

// login publishes a vDisk to everybody and logs in to it.
func (r *running) login(name string) *initiator.Session {
	r.t.Helper()
	c := r.call("POST", "/vdisks/"+name+"/publish", map[string]any{"open": true}, 200)
	text := func(k string) string { return c[k].(string) }
	portal := c["portals"].([]any)[0].(map[string]any)["address"].(string)
	s, err := initiator.Dial(r.t.Context(), initiator.Options{Address: portal, Target: text("iqn"), CHAPUser: text("chapUser"), CHAPSecret: text("chapSecret")})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(s.Close)
	if err := s.Ready(r.t.Context(), 0); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// ended waits until the target ended a session.
func ended(t *testing.T, s *initiator.Session) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("the session lives on")
	}
}

// TestResizeSeen: an initiator is told of a grown vDisk and sees the new size,
// on the session that it has.
func TestResizeSeen(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	r.pool("gold", t.TempDir())
	r.disk("one", "gold", 1<<20)
	s := r.login("one")
	r.call("PATCH", "/vdisks/one", map[string]any{"size": 1 << 30}, 200)
	err := s.TestUnitReady(t.Context(), 0)
	var sense *initiator.SCSIError
	if !errors.As(err, &sense) || !initiator.IsUnitAttention(err) || sense.Sense.ASC != 0x2a || sense.Sense.ASCQ != 0x09 {
		t.Errorf("after the resize the next command ends with %v, want CAPACITY DATA HAS CHANGED", err)
	}
	c, err := s.ReadCapacity(t.Context(), 0)
	if err != nil || c.Blocks*uint64(c.BlockSize) != 1<<30 {
		t.Errorf("READ CAPACITY: %+v %v", c, err)
	}
	end := bytes.Repeat([]byte{5}, 4096)
	got := make([]byte, len(end))
	last := uint64(1<<30-len(end)) / uint64(c.BlockSize)
	if err := errors.Join(s.WriteAt(t.Context(), 0, end, last), s.ReadAt(t.Context(), 0, got, last)); err != nil || !bytes.Equal(got, end) {
		t.Errorf("the new end: %v", err)
	}
	r.call("POST", "/vdisks/one/unpublish", map[string]any{}, 409)
	r.call("POST", "/vdisks/one/unpublish", map[string]any{"force": true}, 204)
	ended(t, s)
}

// TestFenced: a vDisk that another node took is served there and nowhere else:
// the first node drops its sessions, refuses, says why, and leaves the objects.
func TestFenced(t *testing.T) {
	t.Parallel()
	far := t.TempDir()
	backend := map[string]any{"kind": "local", "path": far}
	first := start(t, Options{Data: t.TempDir()})
	first.call("POST", "/vpools", map[string]any{"name": "gold", "backend": backend, "settings": map[string]any{"commitIntervalMs": 100}}, 201)
	first.disk("one", "gold", 1<<20)
	s := first.login("one")
	data := bytes.Repeat([]byte{9}, 4096)
	if err := s.WriteAt(t.Context(), 0, data, 0); err != nil {
		t.Fatal(err)
	}
	first.call("POST", "/vdisks/one/commit", nil, 200)

	// A store without locks, such as one in the network.
	if err := os.Remove(filepath.Join(far, "lock")); err != nil {
		t.Fatal(err)
	}
	second := start(t, Options{Data: t.TempDir()})
	got := second.call("POST", "/vpools/recover", map[string]any{"name": "gold", "backend": backend, "acceptLoss": true}, 200)
	if d := got["vdisks"].([]any); len(d) != 1 || d[0].(map[string]any)["state"] != "running" {
		t.Fatalf("recovered: %v", d)
	}

	ended(t, s)
	first.until("fenced", func() bool { return first.call("GET", "/vdisks/one", nil, 200)["state"] == "fenced" })
	first.until("without sessions", func() bool { return len(first.call("GET", "/iscsi/sessions", nil, 200)["items"].([]any)) == 0 })
	for _, c := range [][2]string{{"POST", "/vdisks/one/publish"}, {"POST", "/vdisks/one/commit"}} {
		e := first.call(c[0], c[1], nil, 409)
		if e["code"] != "not_running" || e["object"] != "vdisk one" || !strings.Contains(e["hint"].(string), "stop that one") {
			t.Errorf("%s: %v", c[1], e)
		}
	}
	health := first.call("GET", "/status", nil, 200)["health"].(map[string]any)
	if b := first.text(health); !strings.Contains(b, "vdisk_fenced") || !strings.Contains(b, "served elsewhere") {
		t.Errorf("health %s", b)
	}
	// Neither by a login nor by a delete.
	if _, err := initiator.Dial(t.Context(), initiator.Options{Address: first.portal(), Target: "iqn.2026-11.io.ovgate:gold-one"}); err == nil {
		t.Error("the fenced vDisk has a target")
	}
	first.call("POST", "/vdisks/one/unpublish", nil, 204)
	first.call("DELETE", "/vdisks/one", nil, 409)

	s2, read := second.login("one"), make([]byte, len(data))
	if err := s2.ReadAt(t.Context(), 0, read, 0); err != nil || !bytes.Equal(read, data) {
		t.Errorf("on the second node: %v", err)
	}
}

// TestComesBack: a published vDisk whose backend was away at the start is
// published again by itself when the backend is back.
func TestComesBack(t *testing.T) {
	dir, parent := t.TempDir(), t.TempDir()
	far, file := filepath.Join(parent, "far"), filepath.Join(parent, "file")
	r := start(t, Options{Data: dir})
	r.pool("gold", far)
	r.disk("one", "gold", 1<<20)
	s := r.login("one")
	data := bytes.Repeat([]byte{3}, 4096)
	if err := s.WriteAt(t.Context(), 0, data, 8); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	ended(t, s)

	// The directory changes places with a file: nothing can be made there.
	write(t, file, "not a directory")
	swap := func() {
		t.Helper()
		if err := unix.Renameat2(unix.AT_FDCWD, far, unix.AT_FDCWD, file, unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
	}
	swap()
	r = start(t, Options{Data: dir})
	if d := r.call("GET", "/vdisks/one", nil, 200); d["state"] != "opening" || d["stateReason"] == "" || d["published"] == nil {
		t.Errorf("without its backend: %v", d)
	}
	if _, err := initiator.Dial(t.Context(), initiator.Options{Address: r.portal(), Target: "iqn.2026-11.io.ovgate:gold-one"}); err == nil {
		t.Error("a vDisk that is not open has a target")
	}
	swap()
	r.until("running", func() bool { return r.call("GET", "/vdisks/one", nil, 200)["state"] == "running" })
	s, got := r.login("one"), make([]byte, len(data))
	if err := s.ReadAt(t.Context(), 0, got, 8); err != nil || !bytes.Equal(got, data) {
		t.Errorf("with its backend back: %v", err)
	}
}

// TestDeleteWaits: a delete that waits for its backend says so, and goes on.
func TestDeleteWaits(t *testing.T) {
	dir, parent := t.TempDir(), t.TempDir()
	far, file := filepath.Join(parent, "far"), filepath.Join(parent, "file")
	r := start(t, Options{Data: dir})
	r.pool("gold", far)
	r.pool("tin", t.TempDir())
	r.disk("one", "gold", 1<<20)
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
	r.call("DELETE", "/vdisks/one?purge=true", nil, 204)
	e := r.call("DELETE", "/vpools/gold", nil, 409)
	if e["code"] != "in_use" || !strings.Contains(e["message"].(string), "the space of 1 deleted vDisks is not given back yet: vPool is offline") || !strings.Contains(e["hint"].(string), "bring the backend back") {
		t.Errorf("refused with %v", e)
	}
	if h := r.text(r.call("GET", "/status", nil, 200)["health"]); !strings.Contains(h, "vdisk_deleting") || !strings.Contains(h, "vPool is offline") {
		t.Errorf("health %s", h)
	}
	swap()
	r.until("given back", func() bool {
		return !strings.Contains(r.text(r.call("GET", "/status", nil, 200)["health"]), "vdisk_deleting")
	})
	r.call("DELETE", "/vpools/gold", nil, 204)

	// An empty vPool whose backend is away.
	r.pool("gold", far)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	swap()
	r = start(t, Options{Data: dir})
	r.call("DELETE", "/vpools/gold", nil, 204)
	if h := r.text(r.call("GET", "/status", nil, 200)["health"]); !strings.Contains(h, "vpool_deleting") || !strings.Contains(h, "The delete of vPool gold waits: ") {
		t.Errorf("health %s", h)
	}
	e = r.call("POST", "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": far}}, 409)
	if e["code"] != "in_use" || !strings.Contains(e["hint"].(string), "is being deleted") {
		t.Errorf("refused with %v", e)
	}
	swap()
	r.until("deleted, and its place free", func() bool {
		status, _ := r.try("POST", "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "local", "path": far}})
		return status == 201
	})
}

// portal is where the node takes initiators.
func (r *running) portal() string {
	r.t.Helper()
	return r.call("GET", "/status", nil, 200)["portals"].([]any)[0].(map[string]any)["address"].(string)
}

// TestVersions: GET /version is what the program says of itself.
func TestVersions(t *testing.T) {
	r := start(t, Options{Data: t.TempDir(), Version: "1.2.3"})
	v, want := r.call("GET", "/version", nil, 200), Version("1.2.3")
	if v["version"] != "1.2.3" || r.text(v) != r.text(want) {
		t.Errorf("version %v, want %v", v, want)
	}
	for _, name := range []string{"data", "head", "journal", "map", "model", "registry", "root", "sco", "tlog"} {
		if want.Formats[name] < 1 {
			t.Errorf("no format %s", name)
		}
	}
}

// text is v as JSON with sorted keys.
func (r *running) text(v any) string {
	r.t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		var plain any
		if err = json.Unmarshal(b, &plain); err == nil {
			b, err = json.Marshal(plain)
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

// TestHugeDisk: a 64 TiB vDisk is there at once, and an initiator unmaps all of it
// with one command. The second is the bound; both take milliseconds.
func TestHugeDisk(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	r.pool("gold", t.TempDir())
	begin := time.Now()
	r.disk("huge", "gold", 64<<40)
	created := time.Since(begin)
	s := r.login("huge")
	ctx := r.t.Context()
	p := make([]byte, 4096)
	for i := range p {
		p[i] = 0x5a
	}
	lbas := []uint64{0, 1 << 30, 64<<40/512 - 8}
	for _, lba := range lbas {
		if err := s.WriteAt(ctx, 0, p, lba); err != nil {
			t.Fatal(err)
		}
	}
	const most = 1<<32 - 8 // blocks of one descriptor, in whole clusters
	var all []initiator.Extent
	for lba := uint64(0); lba < 64<<40/512; lba += most {
		all = append(all, initiator.Extent{LBA: lba, Blocks: uint32(min(most, 64<<40/512-lba))})
	}
	begin = time.Now()
	if err := s.Unmap(ctx, 0, all...); err != nil {
		t.Fatal(err)
	}
	unmapped := time.Since(begin)
	for _, lba := range lbas {
		if err := s.ReadAt(ctx, 0, p, lba); err != nil || p[0] != 0 || p[4095] != 0 {
			t.Errorf("lba %d after the unmap: %v, %x", lba, err, p[:1])
		}
	}
	t.Logf("create %s, unmap with %d descriptors %s", created, len(all), unmapped)
	if created > time.Second || unmapped > time.Second {
		t.Errorf("create took %s, unmap %s", created, unmapped)
	}
}
