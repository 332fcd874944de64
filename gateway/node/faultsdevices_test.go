package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/asdnode"
	"github.com/openvstorage/ovgate/gateway/clustertest"
	"github.com/openvstorage/ovgate/gateway/disk"
	"github.com/openvstorage/ovgate/gateway/disk/disktest"
	"github.com/openvstorage/ovgate/internal/smalldisk"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
)

// asdServer is an ASD on a small file system of its own, over a wire.
type asdServer struct {
	dir  string
	wire *clustertest.Wire
	osd  map[string]any // as it was claimed
}

// newASD serves an ASD, and has a node claim it.
func newASD(s sick, size int64) *asdServer {
	s.t.Helper()
	a := &asdServer{dir: smalldisk.Mount(s.t, size)}
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := asdnode.Run(ctx, asdnode.RunOptions{Dir: filepath.Join(a.dir, "asd"), Listen: "127.0.0.1:0", Stdout: w, Stderr: io.Discard})
		w.CloseWithError(err)
		done <- err
	}()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	var said asdnode.Announcement
	b, text := make([]byte, 4096), ""
	for ok := false; !ok; said, ok = asdnode.ParseAnnouncement(text) {
		n, err := r.Read(b)
		if err != nil {
			s.t.Fatalf("the ASD does not start: %v", err)
		}
		text += string(b[:n])
	}
	key, err := os.ReadFile(said.KeyFile)
	if err != nil {
		s.t.Fatal(err)
	}
	a.wire = clustertest.NewWire(s.t, "http://"+said.Address)
	a.osd = s.call("POST", "/osds", map[string]any{"address": strings.TrimPrefix(a.wire.Endpoint(), "http://"), "fingerprint": said.Fingerprint, "accessKey": string(bytes.TrimSpace(key))}, 201)
	return a
}

func (a *asdServer) object() string { return fmt.Sprint("osd ", a.osd["number"]) }

// ballast has the device used to so many percent of what it may take; 0: what is in the way goes.
func (a *asdServer) ballast(s sick, percent int64) {
	s.t.Helper()
	name := filepath.Join(a.dir, "ballast")
	if err := os.Remove(name); err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	if percent == 0 {
		return
	}
	var free, used int64
	s.until("its space is known", func() bool {
		o := s.call("GET", "/osds/"+fmt.Sprint(a.osd["number"]), nil, 200)
		free, used = int64(o["free"].(float64)), int64(o["used"].(float64))
		return free*5 > used // without what was in the way before
	})
	if percent == 100 {
		free += 1 << 20 // and more than that
	}
	write(s.t, name, strings.Repeat("x", int(free-used*(100-percent)/percent)))
}

// TestFaultsOfDevices: those of the devices of an object store, and of a disk below one.
func TestFaultsOfDevices(t *testing.T) {
	if testing.Short() {
		t.Skip("step by step: nothing for the race detector")
	}
	t.Parallel()
	dev, dir := disktest.Loop(t, disktest.Size), t.TempDir()
	system := disk.System{Sys: disktest.Sys(t, map[string]string{dev: "ZC1 0001"})}
	d, err := disk.New(t.Context(), disk.Options{Path: dev, Dir: filepath.Join(dir, "mount"), System: system})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	smartctl := filepath.Join(dir, "smartctl")
	says := func(passed bool, celsius int) { // in place of the program, which has no disk to ask here
		t.Helper()
		text := fmt.Sprintf("#!/bin/sh\necho '{\"json_format_version\":[1,0],\"smart_status\":{\"passed\":%t},\"temperature\":{\"current\":%d}}'\n", passed, celsius)
		if err := os.WriteFile(smartctl+".new", []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(smartctl+".new", smartctl); err != nil {
			t.Fatal(err)
		}
	}
	says(true, 31)
	s := sick{shift: &shift{}}
	s.running = start(t, Options{Data: t.TempDir(), shift: s.shift, probe: probe, disks: system, smartctl: smartctl})
	a, b := newASD(s, 192<<20), newASD(s, 192<<20)
	t.Cleanup(func() { // while the devices are there
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	path := "/osds/" + fmt.Sprint(a.osd["number"])
	if o := s.call("PATCH", path, map[string]any{"domain": "room2"}, 200); o["domain"] != "room2" {
		t.Errorf("a device of another domain: %v", o)
	}
	if d := s.call("GET", "/domains/room2", nil, 200); fmt.Sprint(d["machines"], d["devices"]) != fmt.Sprint([]any{a.osd["node"]}, 1) {
		t.Errorf("domain room2: %v", d)
	}
	for _, bad := range []map[string]any{{"domain": "a room"}, {"domain": ""}, {"domain": "room2", "address": "127.0.0.1:1"}} {
		if e := s.call("PATCH", path, bad, 400); e["code"] != "invalid" {
			t.Errorf("%v: %v", bad, e)
		}
	}
	both := func(do func(*asdServer)) func() { return func() { do(a); do(b) } }
	cut, heal := func(a *asdServer) { a.wire.Cut() }, func(a *asdServer) { a.wire.Heal() }
	fill := func(percent int64) func() { return both(func(a *asdServer) { a.ballast(s, percent) }) }

	s.call("POST", "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "alba"}, "settings": map[string]any{"commitIntervalMs": 100}}, 201)
	s.disk("one", "gold", 1<<30)
	one := s.login("one")
	for i := range uint64(24) {
		if err := one.WriteAt(t.Context(), 0, backendtest.Data(i, 1<<20), i<<20/512); err != nil {
			t.Fatal(err)
		}
	}
	s.call("POST", "/vdisks/one/commit", nil, 200)
	s.call("POST", "/alba/survey", nil, 202)
	s.until("surveyed", func() bool {
		st := s.call("GET", "/alba", nil, 200)
		return st["tolerates"] == 1.0 && st["repair"] == 0.0
	})
	s.suffer([]fault{
		{"a device is away", "osd", a.object(), "does not work", "bring it back", a.wire.Cut, a.wire.Heal},
		{"another loss would lose objects", "alba_safety", "", "another device could lose", "ovgate osd list", a.wire.Cut, a.wire.Heal},
		{"all devices are away", "alba_lost", "", "cannot be read", "ovgate osd list", both(cut), both(heal)},
		{"the devices fill", "alba_filling", "", "% full", "add space", fill(90), fill(0)},
		{"the devices are full", "alba_full", "", "% full", "add space", fill(97), fill(0)},
		{"a device is full", "osd_full", a.object(), "is full", "add devices", func() { a.ballast(s, 100) }, fill(0)},
	})
	on := s.call("POST", "/osds", map[string]any{"directory": d.Dir}, 201)
	object := fmt.Sprint("osd ", on["number"])
	s.suffer([]fault{
		{"a disk says that it fails", "osd_disk", object, "ZC1 0001", "ovgate osd replace", func() { says(false, 31) }, func() { says(true, 31) }},
		{"a disk is hot", "osd_hot", object, "70 degrees", "cooling", func() { says(true, 70) }, func() { says(true, 31) }},
	})
}
