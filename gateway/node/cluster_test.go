package node

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// nodeConfig is the configuration of a node of a test: its registry and name, and a free
// port for its gossip.
func nodeConfig(t *testing.T, m *etcdtest.Member, prefix, name string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, f, fmt.Sprintf("registry:\n  etcd: [%q]\n  prefix: %s\nnode_name: %s\ncluster: {lease: 5s, listen: \"127.0.0.1:0\"}\ndtl: {listen: \"127.0.0.1:0\"}\nalba: {listen: \"127.0.0.1:0\"}\n", m.Endpoint(), prefix, name))
	return f
}

// TestClusterInit: a node whose registry is in etcd becomes the first of a cluster while it
// runs; clients go on trusting what they trusted, and a restart finds all of it.
func TestClusterInit(t *testing.T) {
	m := etcdtest.Serve(t)
	dir, conf := t.TempDir(), nodeConfig(t, m, "init/", "alpha")
	r := start(t, Options{Data: dir, Config: conf})
	ca := r.read("tls/ca.pem")
	if c := r.call("GET", "/cluster", nil, 200); c["name"] != nil || c["registry"] != "etcd" || c["gossip"] != nil {
		t.Errorf("before: %v", c)
	}
	for path, in := range map[string]any{"/cluster/tokens": map[string]any{}} {
		if e := r.call("POST", path, in, 409); e["code"] != "not_running" || !strings.Contains(e["hint"].(string), "cluster init") {
			t.Errorf("POST %s: %v", path, e)
		}
	}
	for name, status := range map[string]int{"": 400, "a/b": 400, strings.Repeat("a", 64): 400} {
		r.call("POST", "/cluster", map[string]any{"name": name}, status)
	}
	was := r.call("POST", "/cluster", map[string]any{"name": "east"}, 200)
	again := r.call("POST", "/cluster", map[string]any{"name": "east"}, 200)
	if was["name"] != "east" || was["gossip"] == nil || again["gossip"] != was["gossip"] || again["createdAt"] != was["createdAt"] {
		t.Errorf("made %v\nagain %v", was, again)
	}
	if e := r.call("POST", "/cluster", map[string]any{"name": "west"}, 409); e["code"] != "exists" || e["object"] != "cluster west" || !strings.Contains(e["message"].(string), "east") {
		t.Errorf("another name: %v", e)
	}
	token := r.call("POST", "/cluster/tokens", map[string]any{"lifeMs": 60_000}, 201)
	parsed, err := cluster.ParseToken(token["token"].(string))
	if err != nil || parsed.URLs[0] != r.url || parsed.Cluster != was["id"] {
		t.Errorf("token %+v, %v", parsed, err)
	}
	shown, err := parsed.Reach(t.Context(), r.url)
	if err != nil || strings.TrimSpace(string(shown)) != ca {
		t.Errorf("the node shows %s, %v; want %s", shown, err, ca)
	}
	forged := parsed
	forged.CA = strings.Repeat("0", 64)
	if _, err := forged.Reach(t.Context(), r.url); err == nil || !strings.Contains(err.Error(), "nothing was sent") {
		t.Errorf("another authority: %v", err)
	}
	list := r.call("GET", "/cluster/tokens", nil, 200)["items"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["state"] != "waiting" || list[0].(map[string]any)["id"] != token["id"] {
		t.Errorf("tokens: %v", list)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{Data: dir, Config: conf})
	after := s.call("GET", "/cluster", nil, 200)
	if after["name"] != "east" || after["id"] != was["id"] || after["createdAt"] != was["createdAt"] || after["certificateEndsAt"] != was["certificateEndsAt"] {
		t.Errorf("after a restart %v, before %v", after, was)
	}
	if s.read("tls/ca.pem") != ca {
		t.Error("clients have to trust another authority")
	}
	s.call("DELETE", "/cluster/tokens/"+token["id"].(string), nil, 204)
	if n := len(s.call("GET", "/cluster/tokens", nil, 200)["items"].([]any)); n != 0 {
		t.Errorf("%d tokens are left", n)
	}
	for _, bad := range []map[string]any{{"lifeMs": -1}, {"lifeMs": int64(cluster.TokenLifeMost/time.Millisecond) + 1}, {"lifeMs": int64(1) << 62}, {"urls": []string{"http://10.0.0.1:8443"}}, {"urls": make([]string, 9)}} {
		s.call("POST", "/cluster/tokens", bad, 400)
	}
	m2 := m.Open(t, "init/")
	all, _, err := m2.Range(t.Context(), "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if strings.Contains(string(e.Value), "PRIVATE KEY") || strings.Contains(string(e.Value), parsed.Secret) {
			t.Errorf("a secret is plain in %s", e.Key)
		}
	}
	if log := r.log.String() + s.log.String(); strings.Contains(log, parsed.Secret) || strings.Contains(log, "PRIVATE KEY") {
		t.Error("a secret is in the log")
	}
}

// TestClusterInitCut: a node that ends in the middle of it has no cluster yet, or all of it,
// and can be asked again.
func TestClusterInitCut(t *testing.T) {
	m := etcdtest.Serve(t)
	for i, step := range []string{"assembled", "stored"} {
		dir, conf := t.TempDir(), nodeConfig(t, m, fmt.Sprintf("cut/%d/", i), "alpha")
		o := Options{Data: dir, Config: conf}
		o.steps = func(name string) error {
			if name == step {
				return errCut
			}
			return nil
		}
		r := start(t, o)
		r.call("POST", "/cluster", map[string]any{"name": "east"}, 500)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		r = start(t, Options{Data: dir, Config: conf})
		want := any(nil)
		if step == "stored" {
			want = "east"
		}
		if c := r.call("GET", "/cluster", nil, 200); c["name"] != want {
			t.Errorf("cut at %s: %v", step, c)
		}
		if c := r.call("POST", "/cluster", map[string]any{"name": "east"}, 200); c["name"] != "east" || c["gossip"] == nil {
			t.Errorf("again after %s: %v", step, c)
		}
	}
}

// TestClusterInitRefused: what is in the way is named, and nothing has changed.
func TestClusterInitRefused(t *testing.T) {
	m := etcdtest.Serve(t)
	alone := start(t, Options{Data: t.TempDir()})
	if e := alone.call("POST", "/cluster", map[string]any{"name": "east"}, 409); e["code"] != "not_running" || !strings.Contains(e["hint"].(string), "registry: {etcd:") {
		t.Errorf("a registry in the data directory: %v", e)
	}
	if c := alone.call("GET", "/cluster", nil, 200); c["name"] != nil || c["registry"] != "embedded" {
		t.Errorf("a node by itself: %v", c)
	}
	if err := alone.stop(); err != nil {
		t.Fatal(err)
	}
	plain := start(t, Options{Data: t.TempDir(), Config: nodeConfig(t, m, "plain/", "plain"), Insecure: true})
	if e := plain.call("POST", "/cluster", map[string]any{"name": "east"}, 409); !strings.Contains(e["hint"].(string), "--insecure") {
		t.Errorf("plain HTTP: %v", e)
	}
	if err := plain.stop(); err != nil {
		t.Fatal(err)
	}
	first := start(t, Options{Data: t.TempDir(), Config: nodeConfig(t, m, "one/", "one")})
	used := first.call("POST", "/cluster", map[string]any{"name": "east"}, 200)["gossip"].(string)
	dir, conf := t.TempDir(), filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, conf, fmt.Sprintf("registry: {etcd: [%q], prefix: two/}\ncluster: {lease: 5s, listen: %q}\n", m.Endpoint(), used))
	second := start(t, Options{Data: dir, Config: conf})
	if e := second.call("POST", "/cluster", map[string]any{"name": "west"}, 409); e["code"] != "in_use" || !strings.Contains(e["message"].(string), used) {
		t.Errorf("a port in use: %v", e)
	}
	if c := second.call("GET", "/cluster", nil, 200); c["name"] != nil {
		t.Errorf("after the refusal: %v", c)
	}
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"{listen: \"host:7946\"}":                             "IP address",
		"{listen: \"10.0.0.5\"}":                              "HOST:PORT",
		"{listen: \"10.0.0.5:1\", lease: 1s}":                 "2s to 5s",
		"{listen: \"10.0.0.5:1\", lease: 2500ms}":             "whole seconds",
		"{listen: \"10.0.0.5:1\", advertise: \"10.0.0.5:0\"}": "IP address",
	} {
		write(t, conf, "cluster: "+text+"\n")
		if err := refused(t, t.TempDir(), conf); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	// Members do not draw a sealing key of their own.
	seal := filepath.Join(first.dir, sealFile)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(seal); err != nil {
		t.Fatal(err)
	}
	if err := refused(t, first.dir, nodeConfig(t, m, "one/", "one")); err == nil || !strings.Contains(err.Error(), "from another node of cluster east") {
		t.Errorf("without seal.key: %v", err)
	}
	if _, err := os.Stat(seal); err == nil {
		t.Error("a member drew a sealing key")
	}
}

// TestClusterPublic: nothing but a token lets in, and a read token sees no secret.
func TestClusterPublic(t *testing.T) {
	m := etcdtest.Serve(t)
	r := start(t, Options{Data: t.TempDir(), Config: nodeConfig(t, m, "public/", "alpha")})
	r.call("POST", "/cluster", map[string]any{"name": "east"}, 200)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots()}}, Timeout: patience}
	defer c.CloseIdleConnections()
	body := `{"token":"x","secret":"y","node":"b78ae933-9f21-4541-ad0d-c5572182c192","name":"b","version":"v","format":8,"clock":"2026-01-01T00:00:00Z","request":""}`
	res, err := c.Post(r.url+"/api/v1/cluster/join", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 401 {
		t.Errorf("without a token: %s", res.Status)
	}
	for _, path := range []string{"/cluster", "/cluster/tokens"} {
		res, err := c.Get(r.url + "/api/v1" + path)
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != 401 {
			t.Errorf("GET %s without a token: %s", path, res.Status)
		}
	}
}
