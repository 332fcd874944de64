package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// nodes stores node n, which is the bench's, and others with their domains; those that are
// in no list of deaf ones take copies.
func (b *bench) nodes(deaf string, domains ...string) (living map[string]bool) {
	b.t.Helper()
	living = map[string]bool{}
	for i, d := range domains {
		id := string(rune('n' + i)) // the bench's node is "n"
		n := model.Node{ID: id, Name: "node-" + id, Domain: d, DTL: fmt.Sprintf("127.0.0.1:%d", 8600+i)}
		if strings.Contains(deaf, id) {
			n.DTL = ""
		}
		if _, err := b.model.CreateNode(b.t.Context(), n); err != nil {
			b.t.Fatal(err)
		}
		living[id] = true
	}
	return living
}

// TestDTLPeers: nodes that live and take copies, those of another domain first, spread over
// the vDisks; or the one that a vDisk names.
func TestDTLPeers(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{node: "n"})
	b.gold(t.TempDir())
	living := b.nodes("r", "rack1", "rack1", "rack2", "rack2", "rack2", "rack2")
	b.opt.LastLiving = func() map[string]bool { return living }
	delete(living, "s")
	first := map[string]int{}
	for i := range 40 {
		peers := b.DTLPeers(volume.ID{byte(i)})
		if len(peers) != 3 || peers[2] != "o" {
			t.Fatalf("peers %v, want p and q in some order, then o", peers)
		}
		first[peers[0]]++
	}
	if first["p"]+first["q"] != 40 || min(first["p"], first["q"]) < 8 {
		t.Errorf("40 vdisks take %v", first)
	}
	living = nil
	if p := b.DTLPeers(volume.ID{}); len(p) != 0 {
		t.Errorf("nobody is known to live, and the peers are %v", p)
	}
	rec := b.disk("one")
	if _, err := b.SetDTL(t.Context(), "one", DTLPatch{Peer: new("node-s")}); err != nil {
		t.Fatal(err)
	}
	id, err := volume.ParseID(rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	if p := b.DTLPeers(id); !slices.Equal(p, []string{"s"}) {
		t.Errorf("peers of a vdisk that names s: %v", p)
	}
	if !b.Mirrorable() {
		t.Error("there is no node for a copy")
	}
}

// TestSetDTL: what cannot be is refused with its object and remedy, and changes nothing.
func TestSetDTL(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, dir, &place{node: "n"})
	b.gold(t.TempDir())
	b.nodes("p", "", "", "")
	b.disk("one")
	for name, c := range map[string]struct {
		in   DTLPatch
		code Code
		says string
	}{
		"mode":        {DTLPatch{Mode: new(model.DTLMode("both"))}, CodeInvalid, "both"},
		"unknown":     {DTLPatch{Peer: new("nobody")}, CodeNotFound, "nobody"},
		"owner":       {DTLPatch{Peer: new("node-n")}, CodeInvalid, "node-n"},
		"no listener": {DTLPatch{Peer: new("node-p"), Mode: new(model.DTLOff)}, CodeInvalid, "no DTL listener"},
	} {
		_, err := b.SetDTL(t.Context(), "one", c.in)
		if e := wantCode(t, err, c.code); e != nil && (e.Object != "vdisk one" || e.Hint == "" || e.Field == "" || !strings.Contains(e.Message, c.says)) {
			t.Errorf("%s: %+v", name, e)
		}
	}
	v, err := b.FindVDisk("one")
	if err != nil || v.DTL != nil {
		t.Fatalf("refusals left %+v, %v", v.DTL, err)
	}
	if s := b.DTLStatus(v, b.DiskStatus(v)); s.Mode != model.DTLSync || !s.Inherited || s.Peer != AutoPeer || s.Stats.State != volume.DTLOff {
		t.Errorf("at first: %+v", s)
	}
	if _, err := b.UpdateVPool(t.Context(), "gold", nil, SettingsPatch{DTL: new(model.DTLAsync)}); err != nil {
		t.Fatal(err)
	}
	wantMode := func(mode model.DTLMode, inherited bool) {
		t.Helper()
		v, err := b.FindVDisk("one")
		if err != nil {
			t.Fatal(err)
		}
		s := b.DTLStatus(v, b.DiskStatus(v))
		if s.Mode != mode || s.Inherited != inherited || s.Stats.Mode != volume.DTLMode(mode) {
			t.Errorf("mode %s, inherited %v; the engine has %s", s.Mode, s.Inherited, s.Stats.Mode)
		}
	}
	wantMode(model.DTLAsync, true)
	if v, err = b.SetDTL(t.Context(), "one", DTLPatch{Mode: new(model.DTLOff), Peer: new("node-o")}); err != nil || v.DTL.Peer != "o" {
		t.Fatal(v.DTL, err)
	}
	wantMode(model.DTLOff, false)
	if _, err := b.UpdateVPool(t.Context(), "gold", nil, SettingsPatch{DTL: new(model.DTLSync)}); err != nil {
		t.Fatal(err)
	}
	wantMode(model.DTLOff, false) // its own
	b.stop()
	b = newBench(t, dir, &place{node: "n"})
	wantMode(model.DTLOff, false) // when it is opened
	if v, err = b.SetDTL(t.Context(), "one", DTLPatch{Mode: new(model.DTLMode("")), Peer: new(AutoPeer)}); err != nil || v.DTL != nil {
		t.Fatal(v.DTL, err)
	}
	wantMode(model.DTLSync, true)
	if _, err := b.UpdateVPool(t.Context(), "gold", nil, SettingsPatch{DTL: new(model.DTLMode("x"))}); err == nil {
		t.Error("a vPool takes any mode")
	}
}
