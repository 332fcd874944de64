package control

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/iscsi"
)

// TestFormat1: records that an ovgate of format 1 wrote, with a seal.key of zeros,
// mean the same targets: name, ACL, CHAP name and secret.
func TestFormat1(t *testing.T) {
	text, err := os.ReadFile("../model/testdata/format1.json")
	if err != nil {
		t.Fatal(err)
	}
	var records map[string]json.RawMessage
	if err := json.Unmarshal(text, &records); err != nil {
		t.Fatal(err)
	}
	db, err := kv.OpenBolt(filepath.Join(t.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for k, v := range records {
		var plain string
		if json.Unmarshal(v, &plain) == nil { // an index key
			v = json.RawMessage(plain)
		}
		if _, err := db.Txn(t.Context(), nil, []kv.Op{kv.Put(k, v)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	m, err := model.Open(t.Context(), db, nil)
	if err != nil {
		t.Fatal(err)
	}
	seal, err := NewSealer(make([]byte, SealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{Model: m, Sealer: seal})
	if n := len(c.Targets()); n != 2 {
		t.Errorf("%d targets", n)
	}
	for _, want := range []struct {
		iqn, vdisk, user, secret string
		any                      bool
		initiators               []string
	}{
		{"iqn.2026-11.io.ovgate:gold-open", "open", "open", "PQGRMvZrmbxbr5TQ", true, nil},
		{"iqn.2026-11.io.ovgate:gold-listed", "renamed", "listed", "RDqMegHeyEUB97uJ", false, []string{"iqn.2026-01.com.example:host1", "iqn.2026-01.com.example:host2"}},
	} {
		got, err := c.FindTarget(want.iqn)
		if err != nil || got.Shared || len(got.LUNs) != 1 || got.LUNs[0].Number != 0 || got.LUNs[0].VDisk.Name != want.vdisk || got.Created.IsZero() || len(got.Access.Groups) != 1 {
			t.Fatalf("%s: %+v %v", want.iqn, got, err)
		}
		g := got.Access.Groups[0]
		creds, err := c.openCredentials(got, g)
		if err != nil || creds != (Credentials{User: want.user, Secret: want.secret}) || g.Any != want.any || !slices.Equal(g.Initiators, want.initiators) || g.GivenCHAP || g.Masked || g.ReadOnly {
			t.Errorf("%s: group %+v, credentials of %s, %v", want.iqn, g, creds.User, err)
		}
		if s, err := c.groupSpec(got, g, map[uint16]bool{0: true}); err != nil || s.Masked || s.Auth == nil || *s.Auth != (iscsi.Auth{User: want.user, Secret: want.secret}) {
			t.Errorf("%s: shown as %+v, %v", want.iqn, s, err)
		}
	}
	// Published once: it keeps its name, which is nobody else's. Deleted: it is free.
	once, ok := m.VDiskByName("5ac34e14-69af-41c1-8c0c-805371638a41", "once")
	if !ok || once.Published() || once.IQN != "iqn.2026-11.io.ovgate:gold-once" || c.iqnFree(once.IQN) || !c.iqnFree("iqn.2026-11.io.ovgate:gold-gone") {
		t.Errorf("published once: %+v %v", once, ok)
	}
}
