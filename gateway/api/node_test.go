package api_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/node"
)

// patience bounds what takes milliseconds, seconds on a busy machine. It is above what the
// server lets one request take: who waits for longer waits for nothing.
const patience = 4 * time.Minute

// mostAnswer bounds what is read of an answer; a page of 1000 items is far below it.
const mostAnswer = 64 << 20

// said is what a node logs.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// served is a whole node in this process, engine and all, with its API on loopback.
type served struct {
	t       *testing.T
	dir     string // data directory
	url     string // with BasePath
	token   string // of the local operator
	said    *said
	clients []*http.Client // HTTP/2, HTTP/1.1
	ops     map[string]operation
}

// operation is one of the document's.
type operation struct {
	id, method, path string
	params           openapi3.Parameters // the path's, too
	doc              *openapi3.Operation
}

// operations lists the document's operations by id.
func operations(t *testing.T) map[string]operation {
	t.Helper()
	out := map[string]operation{}
	for path, item := range load(t).Paths.Map() {
		for method, op := range item.Operations() {
			params := append(append(openapi3.Parameters{}, item.Parameters...), op.Parameters...)
			out[op.OperationID] = operation{op.OperationID, method, path, params, op}
		}
	}
	return out
}

// serve runs a node on free ports until the test ends.
func serve(t *testing.T) *served {
	t.Helper()
	s := &served{t: t, dir: t.TempDir(), said: &said{}, ops: operations(t)}
	config := filepath.Join(t.TempDir(), "ovgate.yaml")
	// Small chunks: each vDisk that is made writes one.
	if err := os.WriteFile(config, []byte("chunk_bytes: 1048576\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- node.Run(ctx, node.Options{
			Config: config, Data: s.dir, API: "127.0.0.1:0", ISCSI: []string{"127.0.0.1:0"},
			Stdout: s.said, Stderr: s.said, Ready: func(url string) { ready <- url },
		})
	}()
	t.Cleanup(func() {
		for _, c := range s.clients {
			c.CloseIdleConnections()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the node ended with: %v", err)
		}
		if strings.Contains(s.said.String(), "panic") {
			t.Error("the node's log tells of a panic")
		}
		if t.Failed() {
			t.Logf("the node's log:\n%s", s.said)
		}
	})
	select {
	case url := <-ready:
		s.url = strings.TrimSuffix(url, "/") + api.BasePath
	case err := <-ended:
		ended <- err
		t.Fatalf("the node did not start: %v\n%s", err, s.said)
	case <-time.After(patience):
		t.Fatalf("the node is not ready\n%s", s.said)
	}
	s.token = s.file("admin.token")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(s.file("tls/ca.pem"))) {
		t.Fatal("tls/ca.pem has no certificate")
	}
	for _, two := range []bool{true, false} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: two, DisableCompression: true}
		if !two {
			tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		}
		s.clients = append(s.clients, &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }})
	}
	return s
}

func (s *served) file(name string) string {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// request is one to be sent. The path is escaped.
type request struct {
	method, path, query string
	body                []byte // nil: none
	header              http.Header
	client              int
}

// String shows a request as somebody would repeat it.
func (r request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", r.method, clip(r.path))
	if r.query != "" {
		fmt.Fprintf(&b, "?%s", clip(r.query))
	}
	for k, v := range r.header {
		if k != "Authorization" {
			fmt.Fprintf(&b, "\n  %s: %s", k, clip(strings.Join(v, ", ")))
		}
	}
	if r.body != nil {
		fmt.Fprintf(&b, "\n  %s", clip(fmt.Sprintf("%q", r.body)))
	}
	return b.String()
}

func clip(s string) string {
	const most = 2000
	if len(s) > most {
		return fmt.Sprintf("%s... (%d bytes)", s[:most], len(s))
	}
	return s
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send makes a request. Of an event stream the beginning is read.
func (s *served) send(r request) (answer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, s.url, body)
	if err != nil {
		return answer{}, err
	}
	if req.URL.RawPath = req.URL.Path + r.path; req.URL.RawPath != "" {
		if req.URL.Path, err = url.PathUnescape(req.URL.RawPath); err != nil {
			return answer{}, err
		}
	}
	req.URL.RawQuery = r.query
	for k, v := range r.header {
		req.Header[k] = v
	}
	res, err := s.clients[r.client].Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	out := answer{status: res.StatusCode, header: res.Header}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		out.body = make([]byte, 5)
		_, err = io.ReadFull(res.Body, out.body)
		return out, err
	}
	out.body, err = io.ReadAll(io.LimitReader(res.Body, mostAnswer))
	return out, err
}

// bearer is the header of a token.
func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

var placeholder = regexp.MustCompile(`\{(\w+)\}`)

// fill puts values, escaped, into a path of the document; "x" for those that are not given.
func fill(path string, values map[string]string) string {
	return placeholder.ReplaceAllStringFunc(path, func(p string) string {
		if v, ok := values[p[1:len(p)-1]]; ok {
			return url.PathEscape(v)
		}
		return "x"
	})
}

// undocumented compares an answer with the document: its status, its kind and, of JSON, its
// schema. It returns what is wrong, or "".
func undocumented(op operation, a answer) string {
	res := op.doc.Responses.Status(a.status)
	if res == nil {
		if res = op.doc.Responses.Default(); res == nil || a.status < 400 {
			return fmt.Sprintf("status %d is not documented", a.status)
		}
	}
	if a.header.Get("X-Request-Id") == "" {
		return "it has no X-Request-Id"
	}
	kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	if len(res.Value.Content) == 0 {
		if len(a.body) > 0 {
			return "it has a body"
		}
		return ""
	}
	media := res.Value.Content.Get(kind)
	if media == nil {
		return fmt.Sprintf("content type %q is not documented", kind)
	}
	if kind != "application/json" {
		return ""
	}
	var v any
	if err := json.Unmarshal(a.body, &v); err != nil {
		return err.Error()
	}
	if err := media.Schema.Value.VisitJSON(v, openapi3.VisitAsResponse()); err != nil {
		return err.Error()
	}
	return ""
}
