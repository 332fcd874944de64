package control

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
)

// cloud is Keystone and Cinder as far as a controller asks. The real ones are in
// gateway/cmd/ovgate/testdata/cloud.
type cloud struct {
	*httptest.Server
	mu    sync.Mutex
	right string        // secret
	hang  chan struct{} // not nil: Cinder answers when it is closed
	asked int           // of Cinder, at the moment
	most  int

	signIns int
	// What Cinder has, as JSON.
	pools, services string
}

func newCloud(t *testing.T) *cloud {
	c := &cloud{right: "right"}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v3/auth/tokens" {
		body, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		c.signIns++
		right := strings.Contains(string(body), `"`+c.right+`"`)
		c.mu.Unlock()
		if !right {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-Subject-Token", "t")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"token": {"catalog": [{"type": "volumev3", "endpoints": [{"interface": "public", "url": "%s/v3/p"}]}]}}`, c.URL)
		return
	}
	c.mu.Lock()
	hang, pools, services := c.hang, c.pools, c.services
	c.asked++
	c.most = max(c.most, c.asked)
	c.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}
	c.mu.Lock()
	c.asked--
	c.mu.Unlock()
	fmt.Fprint(w, `{"versions": [{"id": "v3.0", "version": "3.70"}], "pools": [`+pools+`], "services": [`+services+`], "volume_types": [], "qos_specs": [], "volumes": [], "snapshots": [], "projects": [],
		"roles": [{"id": "r"}], "role_assignments": [{"user": {"id": "u"}}]}`)
}

func (c *cloud) new(secret string) NewCloud {
	return NewCloud{Name: "prod", Secret: secret, Spec: model.CloudSpec{URL: c.URL + "/v3", User: "admin", Project: "admin"}}
}

// wantCloud checks what a refusal says, and that the record is as it was.
func (b *bench) wantCloud(err error, field string, code Code, was model.Cloud) {
	b.t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Field != field || e.Code != code || e.Object == "" || e.Hint == "" {
		b.t.Errorf("refusal %+v, want %s with field %q", err, code, field)
	}
	if now, ok := b.model.FindCloud("prod"); ok != (was.ID != "") || now.Rev != was.Rev {
		b.t.Errorf("the record changed: %+v", now)
	}
}

// TestClouds: what cannot work changes nothing; what does is kept, sealed, and is there
// after a restart.
func TestClouds(t *testing.T) {
	dir, p := t.TempDir(), &place{}
	b, c := newBench(t, dir, p), newCloud(t)
	ctx := t.Context()

	_, _, err := b.CreateCloud(ctx, c.new("wrong"))
	b.wantCloud(err, "secret", CodeInvalid, model.Cloud{})
	_, _, err = b.CreateCloud(ctx, c.new(""))
	b.wantCloud(err, "secret", CodeInvalid, model.Cloud{})
	for field, break_ := range map[string]func(*model.CloudSpec){
		"url":                   func(s *model.CloudSpec) { s.URL = "http://keystone.example.org/v3" },
		"user":                  func(s *model.CloudSpec) { s.User = "" },
		"project":               func(s *model.CloudSpec) { s.Project = "" },
		"domain":                func(s *model.CloudSpec) { s.Domain = strings.Repeat("d", maxCloudText+1) },
		"region":                func(s *model.CloudSpec) { s.Region = "a\nb" },
		"interface":             func(s *model.CloudSpec) { s.Interface = "secret" },
		"applicationCredential": func(s *model.CloudSpec) { s.Credential = true },
		"timeoutMs":             func(s *model.CloudSpec) { s.TimeoutMs = -1 },
		"ca":                    func(s *model.CloudSpec) { s.CA = strings.Repeat("x", maxCloudCA+1) },
	} {
		in := c.new("right")
		break_(&in.Spec)
		_, _, err := b.CreateCloud(ctx, in)
		b.wantCloud(err, "options."+field, CodeInvalid, model.Cloud{})
	}

	r, report, err := b.CreateCloud(ctx, c.new("right"))
	if err != nil || report.Failed() != nil || strings.Contains(string(r.Secret), "right") || r.Version != "3.70" || len(r.Warnings) != 1 {
		t.Fatalf("%+v, %+v, %v", r, report, err)
	}
	if told := <-b.changed; told != "cloud "+r.ID {
		t.Errorf("told of %s", told)
	}
	_, _, err = b.CreateCloud(ctx, c.new("right"))
	b.wantCloud(err, "name", CodeExists, r)
	_, _, err = b.UpdateCloud(ctx, "prod", CloudPatch{Secret: new("wrong")})
	b.wantCloud(err, "secret", CodeInvalid, r)
	_, _, err = b.UpdateCloud(ctx, "prod", CloudPatch{Spec: func(s *model.CloudSpec) { s.Region = "nowhere" }})
	b.wantCloud(err, "region", CodeInvalid, r)
	// The secret that is kept is shown to no other address.
	thief := newCloud(t)
	_, _, err = b.UpdateCloud(ctx, "prod", CloudPatch{Spec: func(s *model.CloudSpec) { s.URL = thief.URL + "/v3" }})
	b.wantCloud(err, "secret", CodeInvalid, r)
	if thief.signIns != 0 {
		t.Error("it was shown")
	}
	_, err = b.SetVolumeType(ctx, "prod", model.VolumeType{Name: "gold", VPool: "none"})
	b.wantCloud(err, "vpool", CodeNotFound, r)
	// With no pool of ours there is nothing to make types for.
	_, _, err = b.ApplyCloud(ctx, "prod", false, true)
	b.wantCloud(err, "", CodeInUse, r)

	b.gold(t.TempDir())
	for field, l := range map[string]model.VolumeLimit{
		"iops": {IOPS: 9}, "iopsPerGib": {IOPSPerGiB: -1}, "bytesPerSecond": {Bytes: 1 << 19}, "bytesPerSecondPerGib": {BytesPerGiB: -1}, "burstMs": {BurstMillis: 60_001},
	} {
		_, err = b.SetVolumeType(ctx, "prod", model.VolumeType{Name: "gold", VPool: "gold", Limits: l})
		b.wantCloud(err, "limits."+field, CodeInvalid, r)
	}
	pool, _ := b.model.FindVPool("gold")
	if r, err = b.SetVolumeType(ctx, "prod", model.VolumeType{Name: "gold", VPool: pool.ID}); err != nil || r.Types[0].VPool != "gold" {
		t.Fatalf("%+v %v", r, err)
	}
	// A test that fails is told in its report, and what was known stays.
	c.mu.Lock()
	c.right = "other"
	c.mu.Unlock()
	if _, report, err := b.TestCloud(ctx, "prod"); err != nil || report.Failed() == nil {
		t.Errorf("%+v %v", report, err)
	}
	if now, _ := b.model.FindCloud("prod"); now.Rev != r.Rev {
		t.Errorf("the record changed: %+v", now)
	}

	b.stop()
	b = newBench(t, dir, p)
	now, err := b.FindCloud("prod")
	if err != nil || now.Name != "prod" || len(now.Types) != 1 || now.Spec != r.Spec {
		t.Fatalf("after a restart: %+v %v", now, err)
	}
	if _, _, err := b.UpdateCloud(ctx, "prod", CloudPatch{Secret: new("other"), Name: new("main")}); err != nil {
		t.Fatal(err)
	}
	b.tells("openstack cloud main", event.CloudChanged)
	for range 2 {
		if err := b.DeleteCloud(ctx, "main"); err != nil {
			t.Error(err)
		}
	}
	if all := b.model.Clouds(); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// TestCloudHangs: a cloud that does not answer holds neither the node nor, beyond a few,
// its own connections, and a second one is not asked for orphans.
func TestCloudHangs(t *testing.T) {
	b, c := newBench(t, t.TempDir(), &place{}), newCloud(t)
	if _, _, err := b.CreateCloud(t.Context(), c.new("right")); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.hang, c.most = make(chan struct{}), 0
	c.mu.Unlock()
	const callers = 6
	errs := make(chan error, callers)
	for range callers {
		go func() { _, err := b.CloudBackends(t.Context(), "prod"); errs <- err }()
	}
	for { // until as many as may be are waiting
		c.mu.Lock()
		n := c.asked
		c.mu.Unlock()
		if n == cloudReads {
			break
		}
		select {
		case err := <-errs:
			t.Fatalf("one ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	ended := make(chan struct{})
	go func() { b.stop(); close(ended) }()
	for range callers {
		select {
		case err := <-errs:
			if err == nil {
				t.Error("an answer of a cloud that gave none")
			}
		case <-time.After(patience):
			t.Fatal("a caller waits on after the node stopped")
		}
	}
	<-ended
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.most > cloudReads {
		t.Errorf("%d asked at a time, at most %d may", c.most, cloudReads)
	}
}

// TestCloudWatch: backends of this ovgate that Cinder does not hear of are known, and a
// cloud that does not answer is; those that an administrator disabled, and those of others,
// are left out.
func TestCloudWatch(t *testing.T) {
	b, c := newBench(t, t.TempDir(), &place{}), newCloud(t)
	pool := func(name, location string) string {
		return fmt.Sprintf(`{"name": %q, "capabilities": {"vendor_name": "ovgate", "location_info": %q}}`, name, location)
	}
	service := func(host, state, status string) string {
		return fmt.Sprintf(`{"binary": "cinder-volume", "host": %q, "state": %q, "status": %q}`, host, state, status)
	}
	tell := func(services ...string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		own := "ovgate:" + b.model.Cluster().ID
		c.pools = strings.Join([]string{pool("h@a#gold", own), pool("h@b#gold", own), pool("h@c#gold", own), pool("h@d#gold", "ovgate:other")}, ", ")
		c.services = strings.Join(services, ", ")
	}
	look := func(want ...CloudState) {
		t.Helper()
		b.lookAtClouds()
		if got := b.CloudStates(); !reflect.DeepEqual(got, want) {
			t.Errorf("the clouds are %+v, want %+v", got, want)
		}
	}
	look()
	rec, _, err := b.CreateCloud(t.Context(), c.new("right"))
	if err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	b.clouds[rec.ID] = CloudState{Cloud: "prod", Err: "no answer"} // at the look before
	b.mu.Unlock()
	tell(service("h@a", "up", "enabled"), service("h@b", "down", "enabled"), service("h@c", "down", "disabled"), service("h@d", "down", "enabled"))
	look(CloudState{Cloud: "prod", Down: []string{"h@b"}})
	tell(service("h@a", "up", "enabled"), service("h@b", "up", "enabled"))
	look(CloudState{Cloud: "prod"})
	c.Close()
	b.lookAtClouds()
	if got := b.CloudStates(); len(got) != 1 || !strings.Contains(got[0].Err, "no answer") || strings.Contains(got[0].Err, "right") {
		t.Errorf("of a cloud that is away it is known: %+v", got)
	}
	b.tells("openstack cloud prod", event.CloudRegistered, event.CloudBack, event.CloudAway)
	if err := b.DeleteCloud(t.Context(), rec.ID); err != nil {
		t.Fatal(err)
	}
	b.tells("openstack cloud prod", event.CloudForgotten)
	look()
}
