package swift

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

// TestSwift runs against Debian's Swift with its own users.
func TestSwift(t *testing.T) {
	t.Parallel()
	peer := remotetest.Peer(t, "swift")
	o := Options{AuthURL: peer["auth"], User: peer["user"], Key: peer["key"]}
	for _, c := range []struct {
		name string
		run  func(t *testing.T, o Options)
	}{
		{"gold", func(t *testing.T, o Options) { conformance(t, o, "gold") }},
		{"ec42", func(t *testing.T, o Options) { conformance(t, o, "ec42") }},
		{"large", testLarge},
		{"shards", testShards},
		{"bulk", testBulk},
		{"conditional puts", testConditional},
		{"detect", testDetect},
		{"containers", testContainers},
	} {
		if testing.Short() && c.name == "ec42" { // as gold, to this side
			continue
		}
		o := o
		o.Container = strings.ReplaceAll(c.name, " ", "-")
		t.Run(c.name, func(t *testing.T) { c.run(t, o) })
	}
}

// TestKeystone runs against Debian's Swift with Debian's Keystone. What is different then
// are logins and tokens.
func TestKeystone(t *testing.T) {
	t.Parallel()
	peer := remotetest.Peer(t, "swift", "--auth", "keystone")
	o := Options{AuthURL: peer["auth"], User: peer["user"], Key: peer["key"], Project: peer["project"], Domain: peer["domain"], Region: peer["region"]}
	t.Run("password", func(t *testing.T) {
		o := o
		o.Container, o.Policy, o.SegmentBytes = "password", "ec42", 1<<20
		s := temporary(t, o)
		for i, n := range []int{0, 70000, 3 << 20} {
			name := fmt.Sprintf("v/x/%d", i)
			want := backendtest.Data(uint64(i), n)
			must(t, s.Put(t.Context(), name, want))
			got, err := s.Get(t.Context(), name, 4<<20)
			must(t, err)
			if !bytes.Equal(got, want) {
				t.Errorf("%s: other bytes", name)
			}
		}
		infos, err := s.List(t.Context(), "v/", "", 0)
		must(t, err)
		if len(infos) != 3 {
			t.Errorf("listed: %v", infos)
		}
		_, err = s.Usage(t.Context())
		must(t, err)
		// The store does not take the token that it has.
		s.session.mu.Lock()
		s.session.token.value, s.session.tried = "expired", time.Time{}
		s.session.mu.Unlock()
		must(t, s.Put(t.Context(), "v/x/1", backendtest.Data(1, 70000)))
		for i := range 3 {
			must(t, s.Delete(t.Context(), fmt.Sprintf("v/x/%d", i)))
		}
		if left := raw(t, s); len(left) != 0 {
			t.Errorf("left: %q", left)
		}
	})
	t.Run("application credential", func(t *testing.T) {
		o := Options{AuthURL: peer["auth"], Container: "app", EndpointType: "internal",
			ApplicationCredential: ApplicationCredential{ID: peer["application"], Secret: peer["application_secret"]}}
		s := mustOpen(t, o)
		must(t, s.Put(t.Context(), "v/x/o", []byte("abc")))
		must(t, s.Close())
		o.ApplicationCredential.Secret = "wrong"
		_, err := Open(t.Context(), o)
		mustFail(t, err, remote.ErrCredentials)
	})
	t.Run("refused", func(t *testing.T) {
		o := o
		o.Container = "refused"
		for _, c := range []struct {
			change func(o *Options)
			want   error
		}{
			{func(o *Options) { o.Key = "wrong" }, remote.ErrCredentials},
			{func(o *Options) { o.Project = "admin" }, remote.ErrCredentials},
			{func(o *Options) { o.Region = "RegionTwo" }, backend.ErrUnsupported},
			{func(o *Options) { o.AuthURL += "/nothing" }, backend.ErrUnsupported},
		} {
			o := o
			c.change(&o)
			_, err := Open(t.Context(), o)
			mustFail(t, err, c.want)
		}
	})
}

// listLag is how long Swift's listings may lag on a loaded machine; a test waits no
// longer than it must.
const listLag = 30 * time.Second

func conformance(t *testing.T, o Options, policy string) {
	n := 0
	backendtest.Run(t, backendtest.Options{
		New: func(t *testing.T) backend.Store {
			n++
			o := o
			o.Policy, o.Container = policy, fmt.Sprintf("%s-%d", policy, n)
			return patient{mustOpen(t, o)}
		},
		LargeBytes: 4 << 20,
		ListLag:    listLag,
		Slow:       true,
	})
}

// patient reads again when Swift says that it is unavailable, as the engine does: an
// object with an erasure code of which a put or a delete has changed some fragments, and
// not yet all, is neither there nor absent.
type patient struct{ *Store }

// patienceMax bounds the repeats: a delete is over long before.
const patienceMax = 100

func (p patient) until(read func() error) error {
	for range patienceMax {
		err := read()
		var e *remote.Error
		if !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable {
			return err
		}
	}
	return errors.New("unavailable for too long")
}

func (p patient) ReadAt(ctx context.Context, name string, b []byte, off int64) error {
	return p.until(func() error { return p.Store.ReadAt(ctx, name, b, off) })
}

func (p patient) Get(ctx context.Context, name string, limit int64) (b []byte, err error) {
	err = p.until(func() error {
		b, err = p.Store.Get(ctx, name, limit)
		return err
	})
	return b, err
}

func mustOpen(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	must(t, err)
	return s
}

// temporary opens a store that is closed with the test.
func temporary(t *testing.T, o Options) *Store {
	t.Helper()
	s := mustOpen(t, o)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// raw returns the names in a container, whatever they are.
func raw(t *testing.T, s *Store) []string {
	t.Helper()
	page, err := s.page(t.Context(), s.container(0), "", "", "", 1000)
	must(t, err)
	var names []string
	for _, e := range page {
		names = append(names, e.Name)
	}
	return names
}

// W5: a large object is one object, and takes its segments with it.
func testLarge(t *testing.T, o Options) {
	o.SegmentBytes, o.Prefix = 100000, "p/"
	s := temporary(t, o)
	large, small := backendtest.Data(1, 250001), backendtest.Data(2, 100000)
	must(t, s.Put(t.Context(), "v/x/large", large))
	must(t, s.Put(t.Context(), "v/x/large", large))
	must(t, s.Put(t.Context(), "v/x/small", small))
	p := make([]byte, 1000)
	must(t, s.ReadAt(t.Context(), "v/x/large", p, 99500))
	if !bytes.Equal(p, large[99500:100500]) {
		t.Error("wrong bytes where segments meet")
	}
	for name, want := range map[string][]byte{"v/x/large": large, "v/x/small": small} {
		got, err := s.Get(t.Context(), name, 1<<20)
		must(t, err)
		must(t, s.ReadAt(t.Context(), name, p, 99000))
		info, err := s.Stat(t.Context(), name)
		must(t, err)
		if !bytes.Equal(got, want) || info.Size != int64(len(want)) {
			t.Errorf("%s: %d bytes, size %d, want %d", name, len(got), info.Size, len(want))
		}
		if !bytes.Equal(p, want[99000:100000]) {
			t.Errorf("%s: wrong bytes of a range", name)
		}
	}
	if n := len(raw(t, s)); n != 5 {
		t.Errorf("%d objects in the container, want 3 segments, a manifest and one: %q", n, raw(t, s))
	}
	infos, err := s.List(t.Context(), "", "", 0)
	must(t, err)
	if len(infos) != 2 || infos[0].Size != int64(len(large)) {
		t.Errorf("listed: %+v", infos)
	}
	// A delete that was cut short is finished by the next.
	must(t, s.remove(t.Context(), s.object("DELETE manifest", http.MethodDelete, "v/x/large")))
	for range 2 {
		must(t, s.Delete(t.Context(), "v/x/large"))
		_, err = s.Stat(t.Context(), "v/x/large")
		mustFail(t, err, backend.ErrNotExist)
	}
	must(t, s.Put(t.Context(), "v/x/large", large))
	must(t, s.DeleteAll(t.Context(), []string{"v/x/large", "v/x/small"}))
	if left := raw(t, s); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
	o.SegmentBytes = 100 // 1000 segments would not do
	few := temporary(t, o)
	mustFail(t, few.Put(t.Context(), "v/x/large", large), backend.ErrUnsupported)
}

// Objects of many vDisks spread over the containers and are listed in one order.
func testShards(t *testing.T, o Options) {
	o.Shards = 4
	s := temporary(t, o)
	want := []string{"a", "ovgate.root", "z/z"}
	for i := range 12 {
		want = append(want, fmt.Sprintf("v/vdisk-%d/o", i), fmt.Sprintf("v/vdisk-%d/p", i))
	}
	slices.Sort(want)
	used := map[string]bool{}
	for _, name := range want {
		must(t, s.Put(t.Context(), name, []byte(name)))
		used[s.containerOf(name)] = true
	}
	if len(used) != 4 {
		t.Errorf("only in %v", used)
	}
	for _, limit := range []int{4, 1000} {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			infos, err := s.List(t.Context(), "", after, limit)
			must(t, err)
			for _, info := range infos {
				got = append(got, info.Name)
			}
			if len(infos) < limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %q, want %q", limit, got, want)
		}
	}
	infos, err := s.List(t.Context(), "v/vdisk-7/", "", 0)
	must(t, err)
	if len(infos) != 2 {
		t.Errorf("one vDisk: %v", infos)
	}
	must(t, s.DeleteAll(t.Context(), want))
	o.Shards = 5
	if _, err := Open(t.Context(), o); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "shards") {
		t.Errorf("another number of shards: %v", err)
	}
}

func testBulk(t *testing.T, o Options) {
	s := temporary(t, o)
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("v/x/%02d", i))
		must(t, s.Put(t.Context(), names[i], nil))
	}
	s.found.BulkDelete = 7 // in three requests
	must(t, s.DeleteAll(t.Context(), append(names[3:], "v/x/absent")))
	infos, err := s.List(t.Context(), "", "", 0)
	must(t, err)
	if len(infos) != 3 {
		t.Errorf("left: %v", infos)
	}
	mustFail(t, s.DeleteAll(t.Context(), []string{"v/x/00", "../x"}), backend.ErrInvalidName)
	_, err = s.Stat(t.Context(), "v/x/00")
	must(t, err)
}

// Why PutIfAbsent is not supported: a conditional PUT that began before another ended
// succeeds as well.
func testConditional(t *testing.T, o Options) {
	s := temporary(t, o)
	token, err := s.session.current(t.Context())
	must(t, err)
	put := func(body io.Reader, n int64) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, token.url+"/"+o.Container+"/claim", body)
		if err != nil {
			return nil, err
		}
		req.ContentLength = n
		req.Header.Set("X-Auth-Token", token.value)
		req.Header.Set("If-None-Match", "*")
		req.Header.Set("Expect", "100-continue")
		resp, err := s.client.Do(req)
		if err == nil {
			drop(resp)
		}
		return resp, err
	}
	// The first has sent a part when the second comes and goes.
	r, w := io.Pipe()
	first := make(chan int, 1)
	go func() {
		resp, err := put(r, 6)
		if err != nil {
			t.Errorf("first: %v", err)
			first <- 0
			return
		}
		first <- resp.StatusCode
	}()
	_, err = w.Write([]byte("one")) // returns when the store has asked for it
	must(t, err)
	second, err := put(strings.NewReader("two"), 3)
	must(t, err)
	_, err = w.Write([]byte("one"))
	must(t, err)
	must(t, w.Close())
	if a, b := <-first, second.StatusCode; a != http.StatusCreated || b != http.StatusCreated {
		t.Errorf("statuses %d and %d: if this Swift lets one win, PutIfAbsent can be offered", a, b)
	}
}

func testDetect(t *testing.T, o Options) {
	found, warnings, err := Detect(t.Context(), o)
	must(t, err)
	if !found.IfNoneMatch || !found.Ranges || !found.SLO || found.BulkDelete == 0 || found.MaxObjectBytes < 1<<30 ||
		len(found.Policies) != 2 || !found.Policies[0].Default || !strings.HasPrefix(found.Version, "2.") {
		t.Errorf("%+v", found)
	}
	if len(warnings) == 0 || !strings.Contains(warnings[0], "not encrypted") {
		t.Errorf("%q", warnings)
	}
	b, err := json.Marshal(found)
	must(t, err)
	var again Found
	must(t, json.Unmarshal(b, &again))
	s, err := connect(t.Context(), o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	if _, err := s.lookAt(t.Context(), o.Container); !errors.Is(err, remote.ErrNoContainer) {
		t.Errorf("the container of a probe is left: %v", err)
	}
	o.Found = &again
	kept := temporary(t, o)
	must(t, kept.Put(t.Context(), "o", nil))
	_, warnings, err = Detect(t.Context(), o)
	must(t, err)
	if !slices.ContainsFunc(warnings, func(w string) bool { return strings.Contains(w, "holds 1 objects") }) {
		t.Errorf("%q", warnings)
	}
	if names := raw(t, kept); !slices.Equal(names, []string{"o"}) {
		t.Errorf("left: %q", names)
	}
	o.Key = "wrong"
	_, _, err = Detect(t.Context(), o)
	mustFail(t, err, remote.ErrCredentials)
}

// Policies and quotas of containers.
func testContainers(t *testing.T, o Options) {
	o.Policy = "no-such"
	_, err := Open(t.Context(), o)
	mustFail(t, err, backend.ErrUnsupported)
	if !strings.Contains(err.Error(), "gold, ec42") {
		t.Errorf("%v does not name the policies", err)
	}
	o.Policy = "EC42"
	s := temporary(t, o)
	must(t, s.Put(t.Context(), "v/x/o", make([]byte, 1000)))
	o.Policy = "gold"
	if _, err := Open(t.Context(), o); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), `"ec42"`) {
		t.Errorf("another policy: %v", err)
	}
	resp, err := s.do(t.Context(), request{op: "POST container", method: http.MethodPost, container: o.Container,
		header: http.Header{"X-Container-Meta-Quota-Bytes": {"5000"}}})
	must(t, err)
	drop(resp)
	u, err := s.Usage(t.Context())
	must(t, err)
	if u.Total != 5000 || u.Free != 4000 {
		t.Errorf("usage %+v", u)
	}
}
