package faultproxy

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// store is an object store with the paths of either protocol, that notes what it gets.
type store struct {
	mu       sync.Mutex
	objects  map[string]string
	requests []string // method and path of those that came whole
	cut      int      // of those that did not
	hosts    map[string]bool
	headers  http.Header // of the last
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.cut++
		return
	}
	s.requests = append(s.requests, r.Method+" "+r.URL.EscapedPath())
	s.hosts[r.Host], s.headers = true, r.Header.Clone()
	switch {
	case r.Method == http.MethodPut:
		s.objects[r.URL.Path] = string(body)
		w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum(body))))
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodDelete:
		delete(s.objects, r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Query().Has("prefix"):
		fmt.Fprint(w, strings.Join(slices.Sorted(maps.Keys(s.objects)), "\n"))
	default:
		o, ok := s.objects[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, o)
	}
}

func (s *store) put(name, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[name] = body
}

func (s *store) has(name string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[name]
	return o, ok
}

func (s *store) count(request string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r == request {
			n++
		}
	}
	return n
}

// rig is a client, a proxy and a store.
type rig struct {
	*Proxy
	t      *testing.T
	s      *store
	client *http.Client
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	s := &store{objects: map[string]string{}, hosts: map[string]bool{}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	o.Target, o.Rand = server.URL, rand.New(rand.NewPCG(1, 2))
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rig{p, t, s, &http.Client{Transport: tr}}
}

// do sends a request. An error is that of the connection, whether before the answer or
// in its body.
func (r *rig) do(method, path, body string) (*http.Response, string, error) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.URL()+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", "token")
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func (r *rig) must(method, path, body string, status int) (*http.Response, string) {
	r.t.Helper()
	resp, got, err := r.do(method, path, body)
	if err != nil || resp.StatusCode != status {
		r.t.Fatalf("%s %s: %v, %v, want status %d", method, path, resp, err, status)
	}
	return resp, got
}

func (r *rig) counted(k Kind, n int64) {
	r.t.Helper()
	for other := range kinds {
		want := int64(0)
		if other == k {
			want = n
		}
		if got := r.Count(other); got != want {
			r.t.Fatalf("%d requests were %s, want %d", got, other, want)
		}
	}
}

// content is long enough to be in more than one packet.
var content = strings.Repeat("0123456789abcdef", 40000)

// TestPasses: without faults, and with them switched off, the proxy changes nothing (F1).
func TestPasses(t *testing.T) {
	r := newRig(t, Options{Chances: Even(1)})
	r.On()
	r.Off()
	host := strings.TrimPrefix(r.URL(), "http://")
	r.must("PUT", "/bucket/a%2Fb", content, 201)
	if _, got := r.must("GET", "/bucket/a%2Fb", "", 200); got != content {
		t.Fatalf("%d bytes, put were %d", len(got), len(content))
	}
	if r.s.count("PUT /bucket/a%2Fb") != 1 || len(r.s.hosts) != 1 || !r.s.hosts[host] {
		t.Fatalf("the store got %q from hosts %v, want %s", r.s.requests, r.s.hosts, host)
	}
	if got := r.s.headers.Get("X-Auth-Token"); got != "token" {
		t.Fatalf("the store got %v", r.s.headers)
	}
	if _, got := r.must("GET", "/bucket?prefix=", "", 200); got != "/bucket/a/b" {
		t.Fatalf("list %q", got)
	}
	r.must("DELETE", "/bucket/a%2Fb", "", 204)
	r.must("GET", "/bucket/a%2Fb", "", 404)
	r.counted(0, 0)
}

// only makes one kind certain.
func only(k Kind) map[Kind]float64 { return map[Kind]float64{k: 1} }

// TestRefused: the kinds that answer in the store's place.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		kind     Kind
		protocol Protocol
		path     string
		statuses []int
		body     string
	}{
		{Refuse5xx, S3, "/bucket/o", []int{500, 502, 503, 504}, "<Code>InternalError</Code>"},
		{Refuse5xx, Swift, "/v1/acc/con/o", []int{500, 502, 503, 504}, ""},
		{Throttle, S3, "/bucket/o", []int{429, 503}, "<Code>SlowDown</Code>"},
		{ExpireToken, Swift, "/v1/acc/con/o", []int{401}, ""},
		{ClockSkew, S3, "/bucket/o", []int{403}, "<Code>RequestTimeTooSkewed</Code>"},
	} {
		t.Run(fmt.Sprint(c.kind, c.protocol), func(t *testing.T) {
			r := newRig(t, Options{Chances: only(c.kind), Protocol: c.protocol})
			r.On()
			seen := map[int]bool{}
			for range 40 {
				resp, body, err := r.do("PUT", c.path, content)
				if err != nil || !slices.Contains(c.statuses, resp.StatusCode) || !strings.Contains(body, c.body) {
					t.Fatalf("%v %v %q", err, resp, body)
				}
				if resp.Header.Get("Retry-After") == "" && c.kind == Throttle {
					t.Fatalf("no Retry-After: %v", resp.Header)
				}
				seen[resp.StatusCode] = true
			}
			if len(seen) != len(c.statuses) {
				t.Fatalf("statuses %v, want all of %v", seen, c.statuses)
			}
			r.counted(c.kind, 40)
			if len(r.s.requests) != 0 {
				t.Fatalf("forwarded %q", r.s.requests)
			}
		})
	}
}

// TestNotConcerned: a certain fault leaves alone what it does not concern.
func TestNotConcerned(t *testing.T) {
	for _, c := range []struct {
		kind         Kind
		protocol     Protocol
		method, path string
		status       int
	}{
		{ExpireToken, S3, "GET", "/bucket/o", 404},
		{ClockSkew, Swift, "GET", "/v1/acc/con/o", 404},
		{FalseSuccess, S3, "DELETE", "/bucket/o", 204},
		{FalseSuccess, S3, "PUT", "/bucket", 201},
		{FalseSuccess, Swift, "PUT", "/v1/acc/con", 201},
		{LostAnswer, S3, "GET", "/bucket/o", 404},
		{Duplicate, Swift, "PUT", "/v1/acc/con", 201},
		{Flip, S3, "GET", "/bucket?prefix=", 200},
		{StaleList, S3, "GET", "/bucket?prefix=", 200},
		{ResetRequest, S3, "GET", "/bucket/o", 404},
		{ResetResponse, S3, "DELETE", "/bucket/o", 204},
	} {
		r := newRig(t, Options{Chances: only(c.kind), Protocol: c.protocol})
		r.On()
		r.must(c.method, c.path, "", c.status)
		r.counted(c.kind, 0)
	}
}

func TestResetRequest(t *testing.T) {
	r := newRig(t, Options{Chances: only(ResetRequest)})
	r.On()
	for range 5 {
		if _, _, err := r.do("PUT", "/bucket/o", content); err == nil {
			t.Fatal("answered")
		}
	}
	r.counted(ResetRequest, 5)
	if err := r.Close(); err != nil { // the store has noticed
		t.Fatal(err)
	}
	if _, there := r.s.has("/bucket/o"); there || len(r.s.requests) != 0 {
		t.Fatalf("the store took %q", r.s.requests)
	}
}

// TestSpoiled: what happens to the body of an answer.
func TestSpoiled(t *testing.T) {
	for _, k := range []Kind{ResetResponse, Truncate, Flip, Stall} {
		t.Run(k.String(), func(t *testing.T) {
			r := newRig(t, Options{Chances: only(k), Stall: time.Millisecond})
			r.s.put("/bucket/o", content)
			r.s.put("/bucket/empty", "")
			r.On()
			for range 10 {
				_, got, err := r.do("GET", "/bucket/o", "")
				if k == Flip {
					if err != nil || differ(got, content) != 1 {
						t.Fatalf("%v, %d bits differ", err, differ(got, content))
					}
					continue
				}
				if err == nil || len(got) == len(content) || !strings.HasPrefix(content, got) {
					t.Fatalf("%d bytes, error %v", len(got), err)
				}
				if ended := errors.Is(err, io.ErrUnexpectedEOF); k == Truncate && !ended {
					t.Fatalf("error %v, want the end of the connection", err)
				}
			}
			if _, _, err := r.do("GET", "/bucket/empty", ""); err != nil {
				t.Fatal(err)
			}
			r.counted(k, 10)
		})
	}
}

// differ counts the bits in which two texts of one length differ; -1: of different lengths.
func differ(a, b string) (n int) {
	if len(a) != len(b) {
		return -1
	}
	for i := range len(a) {
		n += bits.OnesCount8(a[i] ^ b[i])
	}
	return n
}

// TestStall: a client that leaves ends the wait, however long it would be.
func TestStall(t *testing.T) {
	r := newRig(t, Options{Chances: only(Stall), Stall: time.Hour})
	r.On()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "PUT", r.URL()+"/bucket/o", strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := r.client.Do(req)
		done <- err
	}()
	for r.Count(Stall) == 0 {
		select {
		case err := <-done:
			t.Fatalf("answered: %v", err)
		default:
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	r.work.Wait()
	if _, there := r.s.has("/bucket/o"); there {
		t.Fatal("forwarded")
	}
}

func TestDuplicate(t *testing.T) {
	for _, k := range []Kind{Duplicate, DuplicateLate} {
		r := newRig(t, Options{Chances: only(k), Delay: time.Millisecond})
		r.On()
		r.must("PUT", "/bucket/o", content, 201)
		r.Off()
		if got, _ := r.s.has("/bucket/o"); got != content || r.s.count("PUT /bucket/o") != 2 {
			t.Fatalf("%s: %d bytes, requests %q", k, len(got), r.s.requests)
		}
		r.counted(k, 1)
		// A body that is too long to keep passes once (F3).
		long := strings.Repeat(content, 1+bodyLimit/len(content))
		r.On()
		r.must("PUT", "/bucket/long", long, 201)
		r.Off()
		if got, _ := r.s.has("/bucket/long"); got != long || r.s.count("PUT /bucket/long") != 1 {
			t.Fatalf("%s: %d bytes of %d, requests %q", k, len(got), len(long), r.s.requests)
		}
		r.counted(k, 1)
	}
}

// TestDuplicateLateBounded: duplicates that wait take no more than their slots, and end
// with the proxy (F3, F4).
func TestDuplicateLateBounded(t *testing.T) {
	r := newRig(t, Options{Chances: only(DuplicateLate), Delay: 1000 * time.Hour})
	r.On()
	for i := range 3 * bodySlots {
		r.must("PUT", fmt.Sprintf("/bucket/%d", i), "x", 201)
	}
	if n := len(r.slots); n != bodySlots {
		t.Fatalf("%d slots taken, want %d", n, bodySlots)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(r.slots); n != 0 {
		t.Fatalf("%d slots taken after Close", n)
	}
}

func TestLostAnswer(t *testing.T) {
	r := newRig(t, Options{Chances: only(LostAnswer)})
	r.On()
	resets, errors := 0, 0
	for i := range 20 {
		name := fmt.Sprintf("/bucket/%d", i)
		resp, _, err := r.do("PUT", name, content)
		switch {
		case err != nil:
			resets++
		case resp.StatusCode >= 500:
			errors++
		default:
			t.Fatalf("answered %d", resp.StatusCode)
		}
		if got, _ := r.s.has(name); got != content {
			t.Fatal("not stored")
		}
	}
	if resets == 0 || errors == 0 {
		t.Fatalf("%d resets, %d errors", resets, errors)
	}
	r.counted(LostAnswer, 20)
}

// TestFalseSuccess: nothing is stored, and the ETag gives it away.
func TestFalseSuccess(t *testing.T) {
	for protocol, want := range map[Protocol]struct {
		path   string
		status int
	}{S3: {"/bucket/o", 200}, Swift: {"/v1/acc/con/o", 201}} {
		r := newRig(t, Options{Chances: only(FalseSuccess), Protocol: protocol})
		r.On()
		tags := map[string]bool{}
		for range 20 {
			resp, _ := r.must("PUT", want.path, content, want.status)
			tags[resp.Header.Get("ETag")] = true
		}
		if len(tags) != 2 || !tags[""] || tags[fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum([]byte(content))))] {
			t.Fatalf("ETags %v", tags)
		}
		if len(r.s.requests) != 0 {
			t.Fatalf("forwarded %q", r.s.requests)
		}
		r.counted(FalseSuccess, 20)
	}
}

func TestStaleList(t *testing.T) {
	const url = "/bucket?list-type=2&prefix="
	r := newRig(t, Options{Chances: only(StaleList)})
	r.s.put("/bucket/a", "")
	r.On()
	if _, got := r.must("GET", url, "", 200); got != "/bucket/a" {
		t.Fatalf("list %q", got)
	}
	r.s.put("/bucket/b", "")
	for range 3 {
		if _, got := r.must("GET", url, "", 200); got != "/bucket/a" {
			t.Fatalf("stale list %q", got)
		}
	}
	if _, got := r.must("GET", url+"&after=x", "", 200); got != "/bucket/a\n/bucket/b" {
		t.Fatalf("list of another URL %q", got)
	}
	r.counted(StaleList, 3)
	// What is kept is bounded (F3), in answers and in URLs.
	r.Off()
	for i := range 3 * maxURLs {
		for range 2 * maxAnswers {
			r.must("GET", fmt.Sprint(url, i), "", 200)
		}
	}
	r.s.put("/bucket/"+strings.Repeat("long", listLimit), "")
	if _, got := r.must("GET", url+"long", "", 200); len(got) < 4*listLimit {
		t.Fatalf("%d bytes", len(got))
	}
	l := &r.lists
	if len(l.urls) != maxURLs || len(l.answers) != maxURLs || len(l.answers[l.urls[0]]) != maxAnswers || l.answers["/"+url+"long"] != nil {
		t.Fatalf("%d URLs, %d answers", len(l.urls), len(l.answers[l.urls[0]]))
	}
}

// TestSeed: the same seed gives the same faults.
func TestSeed(t *testing.T) {
	var runs []string
	for range 2 {
		r := newRig(t, Options{Chances: Even(0.9, Stall, DuplicateLate), Delay: 1})
		r.On()
		for i := range 200 {
			name := fmt.Sprintf("/bucket/%d", i/3)
			_, _, _ = r.do([]string{"PUT", "GET", "DELETE"}[i%3], name, "some bytes of an object")
		}
		r.Off()
		runs = append(runs, fmt.Sprint(r.Counts()))
	}
	if runs[0] != runs[1] {
		t.Fatalf("%s and %s", runs[0], runs[1])
	}
}

// TestConcurrent: many clients at once, all kinds; what a client was told and can check is
// true, and Close ends all of it.
func TestConcurrent(t *testing.T) {
	r := newRig(t, Options{Chances: Even(0.6), Delay: time.Millisecond, Stall: time.Millisecond})
	r.On()
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			for i := range 60 {
				name, body := fmt.Sprintf("/bucket/%d-%d", c, i), strings.Repeat(fmt.Sprint(c, i), 500)
				tag := fmt.Sprintf("%q", fmt.Sprintf("%x", md5.Sum([]byte(body))))
				for {
					resp, _, err := r.do("PUT", name, body)
					if err == nil && resp.StatusCode/100 == 2 && resp.Header.Get("ETag") == tag {
						break
					}
				}
				if got, _ := r.s.has(name); got != body {
					t.Errorf("%s: %d bytes", name, len(got))
				}
				_, _, _ = r.do("GET", name, "")
				_, _, _ = r.do("GET", "/bucket?prefix=", "")
			}
		})
	}
	wg.Wait()
	r.Off()
	for k, n := range r.Counts() {
		if n == 0 && k != ExpireToken { // of Swift
			t.Errorf("no request was %s", k)
		}
	}
}

// TestOverwritten: a name that is put twice with other bytes is told, whatever becomes
// of the answers; what is the same, cut or refused is not.
func TestOverwritten(t *testing.T) {
	r := newRig(t, Options{Chances: only(Duplicate)})
	r.On()
	r.must("PUT", "/bucket/same", content, 201)
	r.must("PUT", "/bucket/empty", "", 201)
	r.SetChances(only(ResetRequest))
	if _, _, err := r.do("PUT", "/bucket/same", content+"other"); err == nil {
		t.Fatal("a reset in a request does not show")
	}
	r.SetChances(only(FalseSuccess))
	r.must("PUT", "/bucket/same", "other", 200)
	r.Off()
	r.must("DELETE", "/bucket/same", "", 204)
	r.must("PUT", "/bucket/same", content, 201)
	r.must("PUT", "/bucket", "not an object", 201)
	r.must("PUT", "/bucket", "nor this", 201)
	if got := r.Overwritten(); len(got) != 0 || r.Names() != 2 {
		t.Fatalf("%d names, overwritten %q", r.Names(), got)
	}
	r.On()
	r.SetChances(only(LostAnswer))
	for range 3 {
		_, _, _ = r.do("PUT", "/bucket/same", "other")
	}
	r.Off()
	r.must("PUT", "/bucket/empty", "no more", 201)
	if got := r.Overwritten(); !slices.Equal(got, []string{"/bucket/same", "/bucket/empty"}) {
		t.Fatalf("overwritten %q", got)
	}
	if n := r.Counts(); r.Requests() != 12 || n[Duplicate] != 2 || n[LostAnswer] != 3 {
		t.Fatalf("%d requests, faults %v", r.Requests(), n)
	}
}

// TestOverwrittenRefused: what the store refused is not there.
func TestOverwrittenRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusPreconditionFailed)
		}
	}))
	defer server.Close()
	p, err := New(Options{Target: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	put := func(body string, header http.Header) {
		req := httptest.NewRequestWithContext(t.Context(), "PUT", "/bucket/o", strings.NewReader(body))
		maps.Copy(req.Header, header)
		p.ServeHTTP(httptest.NewRecorder(), req)
	}
	put("one", nil)
	put("two", http.Header{"If-None-Match": {"*"}})
	if got := p.Overwritten(); len(got) != 0 || p.Names() != 1 {
		t.Errorf("%d names, overwritten %q", p.Names(), got)
	}
	put("two", nil)
	if got := p.Overwritten(); !slices.Equal(got, []string{"/bucket/o"}) {
		t.Errorf("overwritten %q", got)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	for _, target := range []string{"", "127.0.0.1:9000", "ftp://127.0.0.1", "http://", "http://%zz"} {
		if p, err := New(Options{Target: target}); err == nil || !strings.Contains(err.Error(), "http://127.0.0.1:9000") {
			t.Errorf("%q: %v, %v", target, p, err)
		}
	}
	even := Even(0.5, Stall)
	if _, there := even[Stall]; there || len(even) != int(kinds)-1 || even[Flip] != 0.5/float64(kinds-1) {
		t.Fatalf("%v", even)
	}
}

// TestStoreAway: a store that is not there is a bad gateway, and no fault.
func TestStoreAway(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	p, err := New(Options{Target: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/bucket/o", nil))
	if w.Code != http.StatusBadGateway || !bytes.Contains(w.Body.Bytes(), []byte("fault proxy")) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}
