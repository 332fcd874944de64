package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/internal/kv"
)

// format1 is a vDisk as format 1 wrote it.
const format1 = `{"format":1,"id":"d1","name":"one","vpool":"p1","size":1073741824,"clusterSize":4096,"labels":{"a":"b"},` +
	`"state":"present","created":"2026-01-02T03:04:05Z","iqn":"iqn.x","target":{"open":true,"chapUser":"one",` +
	`"chapSecret":"AQID","initiators":["iqn.2026-01.com.example:host1"],"created":"2026-02-03T04:05:06Z"}}`

// TestFormat1: a published vDisk of the first format keeps who may sign in, and
// is stored in the new format when it changes.
func TestFormat1(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kv.db")
	s, b := openStore(t, file)
	pool, err := s.CreateVPool(t.Context(), VPool{ID: "p1", Name: "gold", State: StatePresent})
	must(t, pool, err)
	for k, v := range map[string]string{"model/vdisk/d1": format1, "model/index/vdisk/p1/one": "d1", "model/index/iqn/iqn.x": "d1"} {
		if _, err := b.Txn(t.Context(), nil, []kv.Op{kv.Put(k, []byte(v))}, nil); err != nil {
			t.Fatal(err)
		}
	}
	check := func(v VDisk, ok bool) {
		t.Helper()
		if !ok || v.Target == nil || len(v.Target.Groups) != 1 || v.Target.Created.Month() != 2 || v.Shared != nil || v.QoS != nil {
			t.Fatalf("%v %+v", ok, v)
		}
		g := v.Target.Groups[0]
		if g.Name != "default" || !g.Any || g.CHAPUser != "one" || string(g.CHAPSecret) != "\x01\x02\x03" || strings.Join(g.Initiators, " ") != "iqn.2026-01.com.example:host1" || g.Masked || g.ReadOnly {
			t.Errorf("group %+v", g)
		}
	}
	again := func() *Store {
		t.Helper()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		s, b = openStore(t, file)
		return s
	}
	v, ok := again().VDiskByIQN("iqn.x")
	check(v, ok)
	must(t, v, second(s.UpdateVDisk(t.Context(), "d1", func(v *VDisk) error { v.Name = "uno"; return nil })))
	v, ok = again().VDiskByIQN("iqn.x")
	check(v, ok)
	e, err := b.Get(t.Context(), "model/vdisk/d1")
	if err != nil || !strings.Contains(string(e.Value), fmt.Sprintf(`"format":%d,`, Format)) || strings.Contains(string(e.Value), `"open"`) || !json.Valid(e.Value) {
		t.Errorf("stored as %s %v", e.Value, err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSharedLUN: names, IQNs and numbers of a shared target are unique, and a
// copy that was handed out is not the record (M5, M6).
func TestSharedLUN(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kv.db")
	s, b := openStore(t, file)
	ctx := t.Context()
	must(t, 0, second(s.CreateVPool(ctx, VPool{ID: "p1", Name: "gold", State: StatePresent})))
	for _, id := range []string{"d1", "d2"} {
		must(t, 0, second(s.CreateVDisk(ctx, VDisk{ID: id, Name: id, VPool: "p1", IQN: "iqn." + id})))
	}
	must(t, 0, second(s.CreateTarget(ctx, SharedTarget{ID: "t1", Name: "cluster", IQN: "iqn.c", Target: Target{
		Groups: []Group{{Name: "hosts", Initiators: []string{"iqn.h"}, CHAPSecret: []byte{1}, LUNs: []LUNMap{{LUN: 1, Number: 2}}}}, Portals: []string{"a:1"},
	}})))
	if err := second(s.CreateTarget(ctx, SharedTarget{ID: "t2", Name: "cluster", IQN: "iqn.y"})); !errors.Is(err, ErrExists) {
		t.Errorf("same name: %v", err)
	}
	if err := second(s.CreateTarget(ctx, SharedTarget{ID: "t2", Name: "other", IQN: "iqn.d1"})); !errors.Is(err, ErrConflict) {
		t.Errorf("the IQN of a vDisk: %v", err)
	}
	place := func(id string, lun uint16) error {
		return second(s.UpdateVDisk(ctx, id, func(v *VDisk) error { v.Shared = &SharedLUN{Target: "t1", LUN: lun}; return nil }))
	}
	must(t, 0, place("d1", 3))
	if err := place("d2", 3); !errors.Is(err, ErrExists) {
		t.Errorf("the number of another: %v", err)
	}
	must(t, 0, place("d1", 4))
	must(t, 0, place("d2", 3))
	got, _ := s.Target("t1")
	g := got.Target.Group("hosts")
	g.Initiators[0], g.CHAPSecret[0], g.LUNs[0].LUN, got.Target.Portals[0] = "x", 9, 9, "x"
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	clean, _ := s.TargetByIQN("iqn.c")
	s, b = openStore(t, file)
	defer b.Close()
	stored, ok := s.TargetByName("cluster")
	if c, d := must(t, second2(json.Marshal(clean)), nil), must(t, second2(json.Marshal(stored)), nil); !ok || c != d {
		t.Errorf("in memory %s, stored %s", c, d)
	}
	if g := stored.Target.Group("hosts"); g.Initiators[0] != "iqn.h" || g.CHAPSecret[0] != 1 || g.LUNs[0].LUN != 1 {
		t.Errorf("group %+v", g)
	}
	if v, ok := s.VDiskByLUN("t1", 3); !ok || v.ID != "d2" || !v.Published() {
		t.Errorf("LUN 3 is %+v", v)
	}
}

func second2(b []byte, err error) string {
	if err != nil {
		return err.Error()
	}
	return string(b)
}
