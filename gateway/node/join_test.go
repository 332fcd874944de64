package node

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// east is a cluster of a test, with its first node.
type east struct {
	t      *testing.T
	m      *etcdtest.Member
	prefix string
	first  *running
}

func newEast(t *testing.T) *east {
	t.Helper()
	e := &east{t: t, m: etcdtest.Serve(t), prefix: "east/"}
	e.first = start(t, Options{Data: t.TempDir(), Config: nodeConfig(t, e.m, e.prefix, "alpha")})
	e.first.call("POST", "/cluster", map[string]any{"name": "east"}, 200)
	return e
}

// token makes a token at the first node.
func (e *east) token() string {
	e.t.Helper()
	return e.first.call("POST", "/cluster/tokens", nil, 201)["token"].(string)
}

// memberConfig is the configuration of a node that joins: it does not say where the registry
// is.
func memberConfig(t *testing.T, name string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, f, fmt.Sprintf("node_name: %s\ncluster: {lease: 5s, listen: \"127.0.0.1:0\"}\ndtl: {listen: \"127.0.0.1:0\"}\nalba: {listen: \"127.0.0.1:0\"}\n", name))
	return f
}

// join makes a node of the cluster and runs it.
func (e *east) join(name string) *running {
	e.t.Helper()
	dir, conf := filepath.Join(e.t.TempDir(), name), memberConfig(e.t, name)
	if _, err := Join(e.t.Context(), JoinOptions{Data: dir, Config: conf, Token: e.token()}); err != nil {
		e.t.Fatal(err)
	}
	return start(e.t, Options{Data: dir, Config: conf})
}

// nodes returns what a node lists, by name.
func (r *running) nodes() map[string]map[string]any {
	r.t.Helper()
	out := map[string]map[string]any{}
	for _, m := range r.call("GET", "/nodes", nil, 200)["items"].([]any) {
		m := m.(map[string]any)
		out[m["name"].(string)] = m
	}
	return out
}

// hears tells whether a node lists others as said: "name liveness state".
func (r *running) hears(want ...string) func() bool {
	return func() bool {
		nodes := r.nodes()
		for _, w := range want {
			f := strings.Fields(w)
			if n := nodes[f[0]]; n["liveness"] != f[1] || n["state"] != f[2] {
				return false
			}
		}
		return true
	}
}

// endedSoon gets what a node ends with by itself.
func (r *running) endedSoon() <-chan error {
	out := make(chan error, 1)
	go func() {
		select {
		case <-r.over:
			out <- r.stop()
		case <-time.After(patience):
			out <- errors.New("it has not ended")
		}
	}()
	return out
}

// scrape asks for all metrics.
func (r *running) scrape() (int, string) {
	r.t.Helper()
	req, err := http.NewRequest("GET", r.url+"/metrics", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.read("admin.token"))
	res, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// as asks with a token, and returns the status of the answer.
func (r *running) as(token, path string) int {
	r.t.Helper()
	req, err := http.NewRequest("GET", r.url+"/api/v1"+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode
}

// TestJoin: three nodes; each lists all of them, with what it hears; clients trust one
// authority; a node that stops, is killed and comes back is seen as that.
func TestJoin(t *testing.T) {
	t.Parallel()
	e := newEast(t)
	beta, gamma := e.join("beta"), e.join("gamma")
	all := []*running{e.first, beta, gamma}
	for _, r := range all {
		r.until("all three", r.hears("alpha alive up", "beta alive up", "gamma alive up"))
		if c := r.call("GET", "/cluster", nil, 200); c["name"] != "east" || c["nodes"].(map[string]any)["alive"] != 3.0 {
			t.Errorf("%s: %v", r.url, c)
		}
		if r.read("tls/ca.pem") != e.first.read("tls/ca.pem") || r.read("seal.key") != e.first.read("seal.key") {
			t.Error("nodes have other authorities or sealing keys")
		}
		// A client of one node reaches any.
		for _, other := range all {
			res, err := r.http.Get(other.url + "/healthz")
			if err != nil {
				t.Fatal(err)
			}
			if err := res.Body.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if e.first.read("admin.token") == beta.read("admin.token") {
		t.Error("two nodes have one admin.token")
	}
	n := e.first.nodes()["beta"]
	if n["load"] == nil || n["livenessMs"] == nil || n["url"] != beta.url || n["self"] != false {
		t.Errorf("beta is listed as %v", n)
	}
	// What one stores, the others show.
	beta.call("POST", "/users", map[string]any{"name": "anna", "password": "correct horse", "role": "read"}, 201)
	gamma.until("the user", func() bool { status, _ := gamma.try("GET", "/users/anna", nil); return status == 200 })
	if err := gamma.stop(); err != nil {
		t.Fatal(err)
	}
	beta.until("gamma stopped", beta.hears("gamma left down"))
	e.first.tells(event.NodeJoined)
	beta.tells(event.NodeLeft)
	id, _ := beta.node()
	for _, want := range []string{`ovgate_cluster_nodes{liveness="alive"} 2`, `ovgate_cluster_nodes{liveness="left"} 1`} {
		if status, text := beta.scrape(); status != 200 || !strings.Contains(text, want) {
			t.Errorf("metrics without %s", want)
		}
	}
	if err := beta.stop(); err != nil {
		t.Fatal(err)
	}
	again := start(t, Options{Data: beta.dir, Config: memberConfig(t, "beta")})
	if is, _ := again.node(); is != id {
		t.Errorf("beta became %s, was %s", is, id)
	}
	e.first.tells(event.NodeAlive)
	again.until("alpha, and that gamma is gone", again.hears("alpha alive up", "beta alive up", "gamma dead down"))
}

// TestJoinCut: a join that ends at any step leaves a directory that is not served and whose
// join is repeated with the same token; there is one node in the end.
func TestJoinCut(t *testing.T) {
	t.Parallel()
	e := newEast(t)
	for _, step := range []string{"begun", "asked", "sealed", "placed"} {
		name := "node-" + step
		dir, conf := t.TempDir(), memberConfig(t, name)
		o := JoinOptions{Data: dir, Config: conf, Token: e.token()}
		o.steps = func(name string) error {
			if name == step {
				return errCut
			}
			return nil
		}
		if _, err := Join(t.Context(), o); !errors.Is(err, errCut) {
			t.Fatalf("not cut at %s: %v", step, err)
		}
		if err := refused(t, dir, conf); err == nil || !strings.Contains(err.Error(), "repeat ovgate cluster join") {
			t.Errorf("served after %s: %v", step, err)
		}
		o.steps = nil
		if step == "asked" { // the token let this node in; no other one comes in with it
			other := o
			other.Data, other.Config = t.TempDir(), memberConfig(t, "other")
			if _, err := Join(t.Context(), other); err == nil || !strings.Contains(err.Error(), "join token was used") {
				t.Errorf("a used token: %v", err)
			}
		}
		joined, err := Join(t.Context(), o)
		if err != nil {
			t.Fatalf("again after %s: %v", step, err)
		}
		if joined.Cluster != "east" || joined.Node != name || !uuid.MatchString(joined.NodeID) {
			t.Errorf("joined as %+v", joined)
		}
		r := start(t, Options{Data: dir, Config: conf})
		if id, is := r.node(); id != joined.NodeID || is != name {
			t.Errorf("after %s it is %s %s, joined as %+v", step, id, is, joined)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := Join(t.Context(), o); err == nil || !strings.Contains(err.Error(), "holds a node already") {
			t.Errorf("once more after %s: %v", step, err)
		}
	}
	if n := len(e.first.nodes()); n != 5 {
		t.Errorf("%d nodes", n)
	}
}

// TestJoinRefused: what is in the way is named with the remedy; the token stays good, and the
// directory can be used again.
func TestJoinRefused(t *testing.T) {
	e := newEast(t)
	text := e.token()
	token, err := cluster.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	served := start(t, Options{Data: t.TempDir()})
	if err := served.stop(); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	write(t, filepath.Join(foreign, "notes.txt"), "mine")
	changed := func(f func(*cluster.Token)) string {
		c := token
		f(&c)
		return c.String()
	}
	expired := e.first.call("POST", "/cluster/tokens", map[string]any{"lifeMs": 1}, 201)["token"].(string)
	revoked := e.first.call("POST", "/cluster/tokens", nil, 201)
	e.first.call("DELETE", "/cluster/tokens/"+revoked["id"].(string), nil, 204)
	closed := etcdtest.Free(t)
	good := memberConfig(t, "beta")
	elsewhere := nodeConfig(t, e.m, "elsewhere/", "beta")
	for name, c := range map[string]struct {
		o    JoinOptions
		want []string
	}{
		"no token":              {JoinOptions{Token: "x"}, []string{"ovgate-join.", "ovgate cluster token"}},
		"a node's directory":    {JoinOptions{Data: served.dir}, []string{served.dir, "holds a node already", "--data"}},
		"somebody's directory":  {JoinOptions{Data: foreign}, []string{foreign, "notes.txt"}},
		"a running node's":      {JoinOptions{Data: e.first.dir}, []string{"in use"}},
		"an expired token":      {JoinOptions{Token: expired}, []string{"expired", "token create"}},
		"a revoked token":       {JoinOptions{Token: revoked["token"].(string)}, []string{"not known", "token create"}},
		"another secret":        {JoinOptions{Token: changed(func(c *cluster.Token) { c.Secret = "wrong" })}, []string{"not known"}},
		"another authority":     {JoinOptions{Token: changed(func(c *cluster.Token) { c.CA = strings.Repeat("0", 64) })}, []string{"nothing was sent to it"}},
		"nobody there":          {JoinOptions{Token: changed(func(c *cluster.Token) { c.URLs = []string{strings.Replace(closed, "http:", "https:", 1)} })}, []string{"connection refused"}},
		"another cluster":       {JoinOptions{Cluster: "west"}, []string{"of cluster east, not of \"west\""}},
		"a name that is taken":  {JoinOptions{Config: memberConfig(t, "alpha")}, []string{"\"alpha\"", "node_name"}},
		"no configuration file": {JoinOptions{Config: "/nowhere.yaml"}, []string{"/nowhere.yaml"}},
	} {
		o := c.o
		if o.Data == "" {
			o.Data = t.TempDir()
		}
		if o.Config == "" {
			o.Config = good
		}
		if o.Token == "" {
			o.Token = text
		}
		before := listing(t, served.dir)
		_, err := Join(t.Context(), o)
		if err == nil {
			t.Errorf("%s: joined", name)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not name %q", name, err, w)
			}
		}
		if strings.Contains(err.Error(), token.Secret) {
			t.Errorf("%s: the secret is in %q", name, err)
		}
		if after := listing(t, served.dir); after != before {
			t.Errorf("%s: the directory was %q and is %q", name, before, after)
		}
	}
	// A configuration that leads to another registry uses up the token for this node, which is
	// let in with it again.
	dir := t.TempDir()
	if _, err := Join(t.Context(), JoinOptions{Data: dir, Config: elsewhere, Token: text}); err == nil || !strings.Contains(err.Error(), "not that of cluster east") {
		t.Errorf("another registry: %v", err)
	}
	if _, err := Join(t.Context(), JoinOptions{Data: dir, Config: good, Token: text}); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
}

// TestJoinImpostor: somebody else at the address of a token hears nothing of it, also with a
// certificate of the cluster's authority for another address.
func TestJoinImpostor(t *testing.T) {
	e := newEast(t)
	token, err := cluster.ParseToken(e.token())
	if err != nil {
		t.Fatal(err)
	}
	d := &dataDir{path: t.TempDir()}
	own, err := ownCA(d, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ca    authority
		hosts []string
	}{
		"its own authority": {own, []string{"127.0.0.1"}},
		"another address":   {clusterCA(t, e.first.dir), []string{"192.0.2.1"}},
	} {
		id, err := openTLS(d, c.ca, c.hosts, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan string, 16)
		s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { heard <- r.URL.Path })}
		ended := make(chan error, 1)
		sl, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- s.Serve(tls.NewListener(sl, &tls.Config{Certificates: []tls.Certificate{id.cert}})) }()
		token.URLs = []string{"https://" + sl.Addr().String()}
		if _, err := Join(t.Context(), JoinOptions{Data: t.TempDir(), Config: memberConfig(t, "beta"), Token: token.String()}); err == nil {
			t.Errorf("%s: joined", name)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		select {
		case path := <-heard:
			t.Errorf("%s: it was asked for %s", name, path)
		default:
		}
	}
}

// clusterCA is the authority of the first node, which was made before the cluster.
func clusterCA(t *testing.T, dir string) authority {
	t.Helper()
	ca, err := ownCA(&dataDir{path: dir}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// TestJoinFiles: secrets of a member are closed to others, and in nothing that it prints.
func TestJoinFiles(t *testing.T) {
	t.Parallel()
	e := newEast(t)
	r := e.join("beta")
	for name, want := range map[string]os.FileMode{".": 0o700, "seal.key": 0o600, "tls/node-key.pem": 0o600, "cluster.json": 0o600, "node.json": 0o600} {
		st, err := os.Stat(filepath.Join(r.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", name, st.Mode().Perm(), want)
		}
	}
	if _, err := os.Stat(filepath.Join(r.dir, joinFile)); err == nil {
		t.Error("join.json is left")
	}
	if log := r.log.String() + e.first.log.String(); strings.Contains(log, r.read("seal.key")) {
		t.Error("the sealing key is in a log")
	}
}

// TestLeave: a node leaves when it has nothing any more, stops, and does not start again; its
// name is free, its token void. The last one stays.
func TestLeave(t *testing.T) {
	t.Parallel()
	e := newEast(t)
	beta := e.join("beta")
	id, _ := beta.node()
	token := beta.read("admin.token")
	if e := beta.call("DELETE", "/nodes/beta", nil, 409); e["object"] != "node beta" || !strings.Contains(e["hint"].(string), "cluster leave") {
		t.Errorf("remove itself: %v", e)
	}
	if e := beta.call("DELETE", "/nodes/alpha", nil, 409); e["object"] != "node alpha" || !strings.Contains(e["hint"].(string), "stop it first") {
		t.Errorf("remove one that runs: %v", e)
	}
	e.first.call("DELETE", "/nodes/nobody", nil, 204)
	beta.pool("gold", filepath.Join(t.TempDir(), "gold"))
	beta.disk("one", "gold", 1<<30)
	if e := beta.call("POST", "/cluster/leave", nil, 409); e["object"] != "node beta" || !strings.Contains(e["message"].(string), "owns 1 vDisks, one") {
		t.Errorf("leave with a vDisk: %v", e)
	}
	beta.disk("two", "gold", 1<<30) // it is a node like before
	for _, name := range []string{"one", "two"} {
		beta.call("DELETE", "/vdisks/"+name+"?purge=true", nil, 204)
	}
	beta.until("the vDisks are gone", func() bool {
		return strings.Contains(beta.call("POST", "/cluster/leave", nil, 409)["message"].(string), "vPool gold")
	})
	beta.call("DELETE", "/vpools/gold", nil, 204)
	beta.until("vPool and vDisks are gone", func() bool {
		status, b := beta.try("POST", "/cluster/leave", nil)
		if status != 204 && status != 409 {
			t.Fatalf("leave: %d %s", status, b)
		}
		return status == 204
	})
	if err := <-beta.endedSoon(); err != nil {
		t.Errorf("a node that left ended with %v", err)
	}
	e.first.until("beta is no member", func() bool { return e.first.nodes()["beta"] == nil })
	if err := refused(t, beta.dir, memberConfig(t, "beta")); err == nil || !strings.Contains(err.Error(), "no member of cluster east") {
		t.Errorf("started again: %v", err)
	}
	if status := e.first.as(token, "/status"); status != 401 {
		t.Errorf("its token answers %d", status)
	}
	again := e.join("beta") // the name is free
	if is, _ := again.node(); is == id {
		t.Error("the new node has the old one's id")
	}
	if err := again.stop(); err != nil {
		t.Fatal(err)
	}
	e.first.call("DELETE", "/nodes/beta", nil, 204)
	e.first.tells(event.NodeRemoved)
	if e := e.first.call("POST", "/cluster/leave", nil, 409); e["object"] != "node alpha" || !strings.Contains(e["message"].(string), "last node") {
		t.Errorf("the last one leaves: %v", e)
	}
	e.join("gamma") // and the cluster is a whole one
}

// TestRemoved: a node that was removed while nobody heard of it stops when it hears of that,
// and a join that did not end is removed by its name.
func TestRemoved(t *testing.T) {
	t.Parallel()
	e := newEast(t)
	o := JoinOptions{Data: t.TempDir(), Config: memberConfig(t, "beta"), Token: e.token(), steps: func(name string) error {
		if name == "asked" {
			return errCut
		}
		return nil
	}}
	if _, err := Join(t.Context(), o); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	if n := e.first.nodes()["beta"]; n == nil || n["startedAt"] != nil || n["state"] != "down" || n["liveness"] != "unknown" {
		t.Errorf("a node that did not start yet: %v", n)
	}
	e.first.call("DELETE", "/nodes/beta", nil, 204)
	o.steps = nil
	if _, err := Join(t.Context(), o); err == nil || !strings.Contains(err.Error(), "join token was used") {
		t.Errorf("a token of a node that was removed: %v", err)
	}
	gamma := e.join("gamma")
	id, _ := gamma.node()
	gamma.late = true
	// The record goes as another node would take it that saw no lease.
	s, err := model.Open(t.Context(), e.m.Open(t, e.prefix), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveNode(t.Context(), id, func([]model.Node, []model.VDisk) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := <-gamma.endedSoon(); err == nil || !strings.Contains(err.Error(), "no member of cluster east") {
		t.Errorf("it ended with %v", err)
	}
}
