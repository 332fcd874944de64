package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumetypes"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

// TestCloudScripts runs a node in this process and a real Cinder that has its vPools fast
// and large as pools. There are AUTH, where users of the cloud sign in, files with secrets
// ADMINSECRET and USERSECRET, APPLICATION with APPLICATIONSECRET, and
//
//	volume NAME GIB TYPE   makes a volume and waits for it; VOLUME is its id
//	unvolume ID            deletes a volume and waits until it is gone
//	snapshot ID            makes a snapshot of a volume and waits for it; SNAPSHOT is its id
//	unsnapshot ID          deletes a snapshot and waits until it is gone
//	foreigntype NAME       makes a volume type, as an administrator does
//	cinder kill|up         ends Cinder at once, or brings it back
//	until, exits           as in TestRemoteScripts
func TestCloudScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("a real Cinder takes a minute; the packages that it goes through have tests of their own")
	}
	data := t.TempDir()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	var log heard
	serve := &app{env: system().env, in: bytes.NewReader(nil), out: &log, err: &log, run: system().run}
	go func() {
		ended <- run(ctx, []string{"serve", "--data", data, "--api", "127.0.0.1:0", "--iscsi", "127.0.0.1:0"}, serve)
	}()
	t.Cleanup(func() {
		stop()
		if code := <-ended; code != 0 {
			t.Errorf("the node ended with %d\n%s", code, log.String())
		}
	})
	await(t, "the node", func() error { _, err := answers(data); return err })
	call := func(args ...string) string {
		t.Helper()
		var out, problem bytes.Buffer
		a := &app{env: system().env, in: bytes.NewReader(nil), out: &out, err: &problem}
		if code := run(t.Context(), append([]string{"--data", data}, args...), a); code != 0 {
			t.Fatalf("%v: %d %s", args, code, problem.String())
		}
		return out.String()
	}
	call("vpool", "create", "fast", "--path", filepath.Join(t.TempDir(), "fast"))
	call("vpool", "create", "large", "--path", filepath.Join(t.TempDir(), "large"))
	section := filepath.Join(t.TempDir(), "ovgate.conf")
	text := call("openstack", "driver", "config", "--driver-token-file", filepath.Join(data, "admin.token"), "--driver-ca-file", filepath.Join(data, "tls", "ca.pem"))
	// The peer wants the section alone.
	text = text[bytes.LastIndex([]byte(text), []byte("\n[")):]
	if err := os.WriteFile(section, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	peer := remotetest.Peer(t, "cinder", "--backend", section)

	secret := func(text string) string {
		name := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	heard := listen(t, data)
	t.Cleanup(func() { // after the scripts, which run when this function has returned
		await(t, "events", func() error {
			text := heard.String()
			if strings.Contains(text, peer["admin_key"]) {
				t.Error("events tell a secret")
			}
			if !strings.Contains(text, "event: cloud\n") || !strings.Contains(text, "event: cloud.deleted\n") {
				return fmt.Errorf("these came: %s", text)
			}
			return nil
		})
	})
	c := stranger{t: t, peer: peer}
	env := map[string]string{
		"NODE": data, "OVGATE_DATA": data, "AUTH": peer["auth"], "ADMINSECRET": secret(peer["admin_key"]), "USERSECRET": secret(peer["key"]),
		"APPLICATION": peer["application"], "APPLICATIONSECRET": secret(peer["application_secret"]), "SECRET": peer["admin_key"],
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/cloud",
		Setup: func(e *testscript.Env) error {
			for k, v := range env {
				e.Setenv(k, v)
			}
			e.Setenv("GORACE", raceOptions)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "until": until, "volume": c.volume, "unvolume": c.unvolume, "snapshot": c.snapshot, "unsnapshot": c.unsnapshot, "foreigntype": c.foreignType, "cinder": c.cinder,
		},
	})
}

// listen collects the events about clouds.
func listen(t *testing.T, data string) fmt.Stringer {
	t.Helper()
	o, err := client.Discover(client.System(), data)
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	resp, err := api.StreamEvents(ctx, &client.StreamEventsParams{Topics: new("cloud")})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	heard, done := &heard{}, make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(heard, resp.Body) // ends with the context
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = resp.Body.Close()
	})
	return heard
}

// heard is a text that grows while it is read.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// await tries until there is no error.
func await(t testing.TB, what string, f func() error) {
	t.Helper()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	limit := time.After(startLimit)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-limit:
			t.Fatalf("%s after %s: %v", what, startLimit, err)
		case <-again.C:
		}
	}
}

// stranger uses the cloud as its administrator, without ovgate.
type stranger struct {
	t    *testing.T
	peer map[string]string
}

func (c stranger) client(ts *testscript.TestScript) *gophercloud.ServiceClient {
	p, err := openstack.AuthenticatedClient(context.Background(), gophercloud.AuthOptions{
		IdentityEndpoint: c.peer["auth"], Username: c.peer["admin"], Password: c.peer["admin_key"], DomainName: c.peer["domain"], TenantName: c.peer["admin_project"],
	})
	ts.Check(err)
	s, err := openstack.NewBlockStorageV3(p, gophercloud.EndpointOpts{Region: c.peer["region"]})
	ts.Check(err)
	return s
}

// wait asks for a volume until done says so.
func (c stranger) wait(ts *testscript.TestScript, s *gophercloud.ServiceClient, id string, done func(*volumes.Volume, error) bool) {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	limit := time.After(startLimit)
	for {
		v, err := volumes.Get(context.Background(), s, id).Extract()
		if done(v, err) {
			return
		}
		select {
		case <-limit:
			ts.Fatalf("volume %s after %s: %+v %v; see %s", id, startLimit, v, err, c.peer["log"])
		case <-again.C:
		}
	}
}

func (c stranger) volume(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: volume NAME GIB TYPE")
	}
	s := c.client(ts)
	var size int
	_, err := fmt.Sscan(args[1], &size)
	ts.Check(err)
	v, err := volumes.Create(context.Background(), s, volumes.CreateOpts{Name: args[0], Size: size, VolumeType: args[2]}, nil).Extract()
	ts.Check(err)
	ts.Setenv("VOLUME", v.ID)
	c.wait(ts, s, v.ID, func(v *volumes.Volume, err error) bool {
		ts.Check(err)
		if v.Status == "error" {
			ts.Fatalf("volume %s has an error; see %s", v.ID, c.peer["log"])
		}
		return v.Status == "available"
	})
}

func (c stranger) unvolume(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: unvolume ID")
	}
	s := c.client(ts)
	ts.Check(volumes.Delete(context.Background(), s, args[0], volumes.DeleteOpts{}).ExtractErr())
	c.wait(ts, s, args[0], func(_ *volumes.Volume, err error) bool { return gophercloud.ResponseCodeIs(err, http.StatusNotFound) })
}

// waitSnapshot asks for a snapshot until done says so.
func (c stranger) waitSnapshot(ts *testscript.TestScript, s *gophercloud.ServiceClient, id string, done func(*snapshots.Snapshot, error) bool) {
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	limit := time.After(startLimit)
	for {
		v, err := snapshots.Get(context.Background(), s, id).Extract()
		if done(v, err) {
			return
		}
		select {
		case <-limit:
			ts.Fatalf("snapshot %s after %s: %+v %v; see %s", id, startLimit, v, err, c.peer["log"])
		case <-again.C:
		}
	}
}

func (c stranger) snapshot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: snapshot ID")
	}
	s := c.client(ts)
	v, err := snapshots.Create(context.Background(), s, snapshots.CreateOpts{VolumeID: args[0], Name: "s"}).Extract()
	ts.Check(err)
	ts.Setenv("SNAPSHOT", v.ID)
	c.waitSnapshot(ts, s, v.ID, func(v *snapshots.Snapshot, err error) bool {
		ts.Check(err)
		if v.Status == "error" {
			ts.Fatalf("snapshot %s has an error; see %s", v.ID, c.peer["log"])
		}
		return v.Status == "available"
	})
}

func (c stranger) unsnapshot(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: unsnapshot ID")
	}
	s := c.client(ts)
	ts.Check(snapshots.Delete(context.Background(), s, args[0]).ExtractErr())
	c.waitSnapshot(ts, s, args[0], func(_ *snapshots.Snapshot, err error) bool {
		return gophercloud.ResponseCodeIs(err, http.StatusNotFound)
	})
}

func (c stranger) foreignType(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: foreigntype NAME")
	}
	_, err := volumetypes.Create(context.Background(), c.client(ts), volumetypes.CreateOpts{Name: args[0]}).Extract()
	ts.Check(err)
}

func (c stranger) cinder(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: cinder kill|up")
	}
	ts.Check(remotetest.Tell(c.t, c.peer, "cinder", args[0]))
}
