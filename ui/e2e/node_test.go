package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/node"
)

// startLimit bounds the start of an empty node and stopLimit its stop.
const (
	startLimit = 2 * time.Minute
	stopLimit  = 2 * time.Minute
)

// testNode is a running node as an administrator knows it.
type testNode struct {
	url        string // of API and console
	setupToken string
	portal     string // host:port of iSCSI at the first start

	t      *testing.T
	dir    string // data directory
	config string // configuration file; empty: none
	said   *log
	cancel context.CancelFunc // nil while it does not run
	ended  <-chan error
}

// log collects what the node logs, for a test that fails.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// startNode runs a node on free loopback ports and an empty data directory, with TLS as by default.
func startNode(t *testing.T) *testNode {
	t.Helper()
	return startNodeWith(t, filepath.Join(t.TempDir(), "data"), "")
}

// startNodeWith is startNode for a data directory, which may be that of a node that joined a cluster, and a configuration.
func startNodeWith(t *testing.T, dir, config string) *testNode {
	t.Helper()
	n := &testNode{t: t, dir: dir, config: config, said: &log{}}
	_, err := os.Stat(dir)
	joined := err == nil
	n.start("127.0.0.1:0")
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("node said:\n%s", n.said)
		}
	})
	if !joined {
		n.setupToken = readLine(t, filepath.Join(n.dir, "setup.token"))
		n.portal = portalOf(n)
	}
	return n
}

// start runs the node with its API on the given address and waits until it serves.
func (n *testNode) start(api string) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- node.Run(ctx, node.Options{
			Data:   n.dir,
			Config: n.config,
			API:    api,
			ISCSI:  []string{"127.0.0.1:0"},
			Stdout: n.said,
			Stderr: n.said,
			Ready:  func(url string) { ready <- url },
		})
	}()
	n.cancel, n.ended = cancel, ended
	select {
	case url := <-ready:
		n.url = strings.TrimSuffix(url, "/")
	case err := <-ended:
		cancel()
		n.t.Fatalf("node did not start: %v\n%s", err, n.said)
	case <-time.After(startLimit):
		cancel()
		n.t.Fatalf("node did not start within %s\n%s", startLimit, n.said)
	}
}

// stop ends the node in an orderly way; once more does nothing.
func (n *testNode) stop() {
	n.t.Helper()
	if n.cancel == nil {
		return
	}
	n.cancel()
	n.cancel = nil
	select {
	case err := <-n.ended:
		if err != nil {
			n.t.Errorf("node ended: %v", err)
		}
	case <-time.After(stopLimit):
		n.t.Errorf("node did not stop within %s", stopLimit)
	}
}

// restart starts a stopped node again on the same data and API address.
func (n *testNode) restart() {
	n.t.Helper()
	n.start(strings.TrimPrefix(n.url, "https://"))
}

func readLine(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// portalOf asks the node for its iSCSI portal.
func portalOf(n *testNode) string {
	n.t.Helper()
	var list struct{ Items []struct{ Address string } }
	n.call(http.MethodGet, "/portals", nil, &list)
	if len(list.Items) != 1 {
		n.t.Fatalf("%d portals, want 1", len(list.Items))
	}
	return list.Items[0].Address
}

// call asks the API something as the operator on the node, and reads the answer into out unless that is nil.
func (n *testNode) call(method, path string, in, out any) {
	n.t.Helper()
	said := n.ask(method, path, in)
	if out != nil {
		if err := json.Unmarshal(said, out); err != nil {
			n.t.Fatalf("%s %s: %v: %s", method, path, err, said)
		}
	}
}

// ask is call that returns the answer as it is.
func (n *testNode) ask(method, path string, in any) []byte {
	n.t.Helper()
	said, _ := n.answer(method, path, in)
	return said
}

// session signs a user in, whom it makes an administrator if the node has none, and returns the cookies of the session.
func (n *testNode) session(user string) []*http.Cookie {
	n.t.Helper()
	var setUp struct{ Needed bool }
	n.call(http.MethodGet, "/setup", nil, &setUp)
	if setUp.Needed {
		n.call(http.MethodPost, "/setup", map[string]any{"token": n.setupToken, "user": user, "password": password}, nil)
	}
	_, cookies := n.answer(http.MethodPost, "/session", map[string]any{"user": user, "password": password})
	return cookies
}

// answer returns what the node answers, and the cookies that it sets.
func (n *testNode) answer(method, path string, in any) ([]byte, []*http.Cookie) {
	n.t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(readLine(n.t, filepath.Join(n.dir, "tls", "ca.pem")))) {
		n.t.Fatal("tls/ca.pem holds no certificate")
	}
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
		Timeout:   startLimit,
	}
	defer client.CloseIdleConnections()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			n.t.Fatal(err)
		}
	}
	req, err := http.NewRequest(method, n.url+"/api/v1"+path, &body)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+readLine(n.t, filepath.Join(n.dir, "admin.token")))
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(req)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode >= http.StatusBadRequest {
		n.t.Fatalf("%s %s: status %d, %v: %s", method, path, res.StatusCode, err, said)
	}
	return said, res.Cookies()
}
