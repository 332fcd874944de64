package node

import (
	"testing"
	"time"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// TestBlockSize: hosts see 512-byte blocks, or 4 KiB ones by choice; the choice
// stays through unpublish, a restart and a shared target, and does not change under
// hosts.
func TestBlockSize(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Data: dir})
	r.pool("gold", t.TempDir())
	r.disk("one", "gold", 1<<20)
	type m = map[string]any
	size := func(lun uint16, o initiator.Options) (uint32, uint64) {
		t.Helper()
		o.Address = r.portal()
		s := r.dial(o)
		defer s.Close()
		if err := s.Ready(t.Context(), lun); err != nil {
			t.Fatal(err)
		}
		c, err := s.ReadCapacity(t.Context(), lun)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(c.BlockSize), c.Blocks
	}
	own := func(in m) (uint32, uint64) {
		t.Helper()
		c := r.call("POST", "/vdisks/one/publish", in, 200)
		return size(0, initiator.Options{Target: c["iqn"].(string), CHAPUser: c["chapUser"].(string), CHAPSecret: c["chapSecret"].(string)})
	}
	if b, n := own(m{"open": true}); b != 512 || n != 2048 {
		t.Errorf("%d blocks of %d", n, b)
	}
	r.refused("POST", "/vdisks/one/publish", m{"blockSize": 4096}, 409, "in_use", "blocks of 512 bytes", "unpublish it first")
	r.refused("POST", "/vdisks/one/publish", m{"blockSize": 0}, 400, "invalid", "512 or 4096")
	r.call("POST", "/vdisks/one/publish", m{"blockSize": 512}, 200)
	r.call("POST", "/vdisks/one/unpublish", m{"force": true}, 204)
	if b, n := own(m{"open": true, "blockSize": 4096}); b != 4096 || n != 256 {
		t.Errorf("chosen: %d blocks of %d", n, b)
	}
	r.call("POST", "/vdisks/one/unpublish", m{"force": true}, 204)
	if v := r.call("GET", "/vdisks/one", nil, 200); v["blockSize"] != 4096.0 {
		t.Errorf("unpublished: %v", v)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, Options{Data: dir})
	iqn := r.call("POST", "/targets", m{"name": "cluster"}, 201)["iqn"].(string)
	r.call("POST", "/targets/"+iqn+"/groups", m{"name": "hosts", "initiators": []string{hostA}, "chap": false}, 201)
	r.call("POST", "/vdisks/one/publish", m{"target": "cluster", "lun": 9}, 200)
	if b, n := size(9, initiator.Options{Target: iqn, Initiator: hostA}); b != 4096 || n != 256 {
		t.Errorf("in a shared target: %d blocks of %d", n, b)
	}
}

// TestSessionRates: what a session does while it is watched, and since it signed in.
func TestSessionRates(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	r.pool("gold", t.TempDir())
	r.disk("one", "gold", 1<<20)
	s, block := r.login("one"), make([]byte, 4096)
	for range 50 {
		if err := s.WriteAt(t.Context(), 0, block, 0); err != nil {
			t.Fatal(err)
		}
	}
	id := r.call("GET", "/iscsi/sessions", nil, 200)["items"].([]any)[0].(map[string]any)["id"].(string)
	writes := func(query string) (d, w map[string]any) {
		t.Helper()
		d = r.call("GET", "/iscsi/sessions/"+id+query, nil, 200)
		return d, d["luns"].([]any)[0].(map[string]any)["write"].(map[string]any)
	}
	d, w := writes("")
	n, span := w["iops"].(float64), d["spanMs"].(float64)
	if w["commands"] != 50.0 || w["bytes"] != 50*4096.0 || w["errors"] != 0.0 || n <= 0 || n*span/1000 > 51 || n*span/1000 < 49*span/(span+1) || w["meanUs"].(float64) <= 0 || w["p99Us"].(float64) < w["p50Us"].(float64) {
		t.Errorf("since the sign-in: %v in %v ms", w, span)
	}
	// Nobody writes meanwhile: totals stay, rates are of the time that was watched.
	began := time.Now()
	d, w = writes("?sampleMs=50")
	if took := time.Since(began); took < 50*time.Millisecond || d["spanMs"].(float64) < 50 || w["commands"] != 50.0 || w["iops"] != 0.0 || w["meanUs"] != 0.0 {
		t.Errorf("watched for %v: %v", took, d)
	}
	r.refused("GET", "/iscsi/sessions/"+id+"?sampleMs=10001", nil, 400, "invalid", "10000 ms")
	r.refused("GET", "/iscsi/sessions/none", nil, 404, "not_found")
}
