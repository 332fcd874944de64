package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/openvstorage/ovgate/gateway/clustertest"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

// members is a cluster of nodes in this process, on one registry and a store that each of
// them reaches.
type members struct {
	t     *testing.T
	etcd  *etcdtest.Member
	store map[string]string   // the peer that speaks S3
	dtl   bool                // they take copies of each other's journals, and forward commands
	peers []*clustertest.Wire // with dtl: the way to each node
	more  string              // of the configuration of each node
	opt   Options             // of each node, beside that
	dirs  []string
	wires []*clustertest.Wire
	// registry, if set, is what a node has in place of one of its own (cutting).
	registry func(i int) kv.Store
	cuts     []*cutStore

	mu    sync.Mutex
	nodes []*running // nil: stopped; changed with mu, by the test alone
}

func (c *members) set(i int, r *running) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i == len(c.nodes) {
		c.nodes = append(c.nodes, nil)
	}
	c.nodes[i] = r
}

// all returns the nodes that run.
func (c *members) all() (out []*running) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		if n != nil {
			out = append(out, n)
		}
	}
	return out
}

// newMembers starts nodes n1, n2, ... with the vPool "gold" on S3.
func newMembers(t *testing.T, count int) *members {
	t.Helper()
	return startMembers(t, count, false)
}

func startMembers(t *testing.T, count int, dtl bool) *members {
	t.Helper()
	c := &members{t: t, store: remotetest.Peer(t, "s3"), etcd: etcdtest.Serve(t), dtl: dtl}
	for range count {
		c.add()
	}
	c.gold()
	return c
}

// gold makes the vPool "gold" on S3.
func (c *members) gold() {
	c.t.Helper()
	n := c.nodes[0]
	n.call("POST", "/backends", map[string]any{"name": "store", "kind": "s3", "secret": c.store["secret_key"],
		"options": map[string]any{"container": c.store["bucket"], "url": c.store["endpoint"], "user": c.store["access_key"]}}, 201)
	n.call("POST", "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "s3", "store": "store", "path": "gold"}}, 201)
	for _, n := range c.nodes {
		n.until("attached to gold", func() bool { return n.poolState("gold") == "running" })
	}
}

// newMirrored starts nodes of a cluster, with the vPool "gold" on S3 and copies of their
// journals on each other.
func newMirrored(t *testing.T, count int) *members {
	t.Helper()
	return newMirroredWith(t, count, Options{})
}

// newMirroredWith is newMirrored with more options of each node.
func newMirroredWith(t *testing.T, count int, o Options) *members {
	t.Helper()
	c := &members{t: t, opt: o, store: remotetest.Peer(t, "s3"), etcd: etcdtest.Serve(t), more: "cluster: {lease: 5s, listen: \"127.0.0.1:0\"}\ndtl: {listen: \"127.0.0.1:0\"}\nalba: {listen: \"127.0.0.1:0\"}\n"}
	one := c.add()
	one.call("POST", "/cluster", map[string]any{"name": "east"}, 200)
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	one = c.start(0) // as a member it takes copies
	for i := 1; i < count; i++ {
		c.place(filepath.Join(t.TempDir(), "node"))
		token := one.call("POST", "/cluster/tokens", nil, 201)["token"].(string)
		if _, err := Join(t.Context(), JoinOptions{Data: c.dirs[i], Config: c.conf(i), Token: token}); err != nil {
			t.Fatal(err)
		}
		c.start(i)
	}
	c.gold()
	return c
}

// dial logs in to a vDisk where it is served.
func (c *members) dial(ctx context.Context, vdisk string) (*initiator.Session, error) {
	for _, n := range c.all() {
		if n.diskState(vdisk) != "running" {
			continue
		}
		status, b, err := n.ask("POST", "/vdisks/"+vdisk+"/publish", map[string]any{"open": true})
		if err != nil || status != 200 {
			continue
		}
		text := func(key string) string {
			_, rest, _ := strings.Cut(string(b), `"`+key+`":"`)
			v, _, _ := strings.Cut(rest, `"`)
			return v
		}
		s, err := initiator.Dial(ctx, initiator.Options{Address: text("address"), Target: text("iqn"), CHAPUser: text("chapUser"), CHAPSecret: text("chapSecret")})
		if err != nil {
			return nil, err
		}
		if err := s.Ready(ctx, 0); err != nil {
			s.Close()
			return nil, err
		}
		return s, nil
	}
	return nil, errors.New("served nowhere")
}

// add makes one node more and starts it.
func (c *members) add() *running {
	c.t.Helper()
	dir := c.t.TempDir()
	if len(c.dirs) > 0 {
		key, err := os.ReadFile(filepath.Join(c.dirs[0], sealFile))
		if err != nil {
			c.t.Fatal(err)
		}
		write(c.t, filepath.Join(dir, sealFile), string(key))
	}
	c.place(dir)
	return c.start(len(c.dirs) - 1)
}

// place makes room for one node more, in a data directory.
func (c *members) place(dir string) {
	c.dirs = append(c.dirs, dir)
	c.wires = append(c.wires, clustertest.NewWire(c.t, c.etcd.Endpoint()))
	if c.dtl {
		c.peers = append(c.peers, clustertest.NewWire(c.t, etcdtest.Free(c.t)))
	}
	c.set(len(c.nodes), nil)
}

// name is what a node is called.
func (c *members) name(i int) string { return fmt.Sprintf("n%d", i+1) }

// cut takes a node off all others and the registry, as a node that died is, or back.
func (c *members) cut(i int, off bool) {
	for _, w := range append([]*clustertest.Wire{c.wires[i]}, c.peers...) {
		if off {
			w.Cut()
		} else {
			w.Heal()
		}
	}
}

// conf writes the configuration of a node.
func (c *members) conf(i int) string {
	f := filepath.Join(c.t.TempDir(), "ovgate.yaml")
	more := c.more
	if c.dtl {
		more += fmt.Sprintf("dtl: {listen: %q, advertise: %q}\n", c.peers[i].To(), strings.TrimPrefix(c.peers[i].Endpoint(), "http://"))
	}
	write(c.t, f, fmt.Sprintf("node_name: %s\nregistry:\n  etcd: [%q]\n  prefix: cluster/\n%s", c.name(i), c.wires[i].Endpoint(), more))
	return f
}

// start starts a node, again if it was stopped.
func (c *members) start(i int) *running {
	c.t.Helper()
	o := c.opt
	o.Data, o.Config = c.dirs[i], c.conf(i)
	if c.registry != nil {
		o.registry = c.registry(i)
	}
	r := start(c.t, o)
	c.set(i, r)
	return r
}

// poolState is what a node says of a vPool; empty: it does not know it.
func (r *running) poolState(name string) string { return r.stateOf("/vpools/" + name) }

// diskState is what a node says of a vDisk; empty: it does not know it.
// The list is what it knows itself; about one vDisk it would ask the node that serves it.
func (r *running) diskState(ref string) string {
	r.t.Helper()
	status, b, err := r.ask("GET", "/vdisks?limit=1000", nil)
	if err != nil || status != 200 {
		return ""
	}
	var l struct {
		Items []struct{ ID, Name, State string }
	}
	if err := json.Unmarshal(b, &l); err != nil {
		r.t.Fatal(err)
	}
	for _, v := range l.Items {
		if v.ID == ref || v.Name == ref {
			return v.State
		}
	}
	return ""
}

func (r *running) stateOf(path string) string {
	r.t.Helper()
	status, b, err := r.ask("GET", path, nil)
	if err != nil || status != 200 {
		return ""
	}
	var o struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal(b, &o); err != nil {
		r.t.Fatal(err)
	}
	return o.State
}

// TestCluster: nodes share records. Each serves what was made on it and nothing else, shows
// what the others have, and refuses to work on it, saying where to ask.
func TestCluster(t *testing.T) {
	c := newMembers(t, 2)
	one, two := c.nodes[0], c.nodes[1]
	one.disk("a", "gold", 1<<30)
	two.disk("b", "gold", 1<<30)
	sa, sb := one.login("a"), two.login("b")
	data := bytes.Repeat([]byte{7}, 4096)
	if err := errors.Join(sa.WriteAt(t.Context(), 0, data, 0), sb.WriteAt(t.Context(), 0, data, 8)); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		at, other  *running
		here, away string
		node       string
	}{{one, two, "a", "b", "n2"}, {two, one, "b", "a", "n1"}} {
		x.at.until("both are known", func() bool { return x.at.diskState(x.here) == "running" && x.at.diskState(x.away) == "elsewhere" })
		if d := x.at.call("GET", "/vdisks/"+x.away, nil, 200); d["node"] != x.node {
			t.Errorf("%s is on %v, want %s", x.away, d["node"], x.node)
		}
		e := x.at.call("POST", "/vdisks/"+x.away+"/commit", nil, 503)
		if e["code"] != "elsewhere" || !strings.Contains(e["message"].(string), x.node) || !strings.Contains(e["hint"].(string), x.other.url) {
			t.Errorf("commit of another node's vDisk: %v", e)
		}
		for _, path := range []string{"/vdisks/" + x.away + "/publish", "/vdisks/" + x.away + "/scrub", "/vdisks/" + x.away + "/verify"} {
			if e := x.at.call("POST", path, map[string]any{}, 503); e["code"] != "elsewhere" {
				t.Errorf("%s: %v", path, e)
			}
		}
		if e := x.at.call("DELETE", "/vdisks/"+x.away, nil, 503); e["code"] != "elsewhere" {
			t.Errorf("delete of another node's vDisk: %v", e)
		}
		if n := len(x.at.call("GET", "/nodes", nil, 200)["items"].([]any)); n != 2 {
			t.Errorf("%d nodes", n)
		}
	}
	if e := two.call("POST", "/vdisks", map[string]any{"name": "a", "vpool": "gold", "size": 1 << 30}, 409); e["code"] != "exists" {
		t.Errorf("a name twice: %v", e)
	}
	// A vPool that one node alone reaches.
	one.pool("near", filepath.Join(c.dirs[0], "backend", "near"))
	two.until("near is known", func() bool { return two.poolState("near") == "elsewhere" })
	e := two.call("POST", "/vdisks", map[string]any{"name": "x", "vpool": "near", "size": 1 << 30}, 503)
	if e["code"] != "elsewhere" || !strings.Contains(e["message"].(string), "n1") || !strings.Contains(e["hint"].(string), "S3") {
		t.Errorf("a vDisk on another node's directory: %v", e)
	}
	if e := two.call("DELETE", "/vpools/near", nil, 503); e["code"] != "elsewhere" {
		t.Errorf("delete of another node's vPool: %v", e)
	}
	// Settings and deletions reach the others.
	two.call("PATCH", "/vpools/gold", map[string]any{"settings": map[string]any{"commitIntervalMs": 200}}, 200)
	one.until("committed within the new interval", func() bool {
		d := one.call("GET", "/vdisks/a", nil, 200)
		return d["committedSeq"] == d["lastSeq"]
	})
	sa.Close()
	one.call("POST", "/vdisks/a/unpublish", map[string]any{"force": true}, 204)
	one.call("DELETE", "/vdisks/a?purge=true", nil, 204)
	two.until("a is gone", func() bool { return two.diskState("a") == "" })
	got := make([]byte, len(data))
	if err := sb.ReadAt(t.Context(), 0, got, 8); err != nil || !bytes.Equal(got, data) {
		t.Errorf("b: %v", err)
	}
	// Each comes back with its own.
	if err := errors.Join(one.stop(), two.stop()); err != nil {
		t.Fatal(err)
	}
	two = c.start(1)
	one = c.start(0)
	if s := two.diskState("b"); s != "running" {
		t.Errorf("b is %s after a restart", s)
	}
	if s := one.diskState("b"); s != "elsewhere" {
		t.Errorf("b is %s on the other node", s)
	}
	if e := one.call("DELETE", "/vpools/gold", nil, 409); e["code"] != "in_use" {
		t.Errorf("delete of a vPool with another node's vDisk: %v", e)
	}
}

// TestClusterSealKey: a node without the cluster's seal.key, or with another one, does not
// come in, and neither does one with a registry of its own.
func TestClusterSealKey(t *testing.T) {
	m := etcdtest.Serve(t)
	first := start(t, Options{Data: t.TempDir(), Config: etcdConfig(t, m, "x/")})
	dir := t.TempDir()
	err := refused(t, dir, etcdConfig(t, m, "x/"))
	if err == nil || !strings.Contains(err.Error(), "seal.key is missing") {
		t.Errorf("without a seal.key: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, placeFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused node says where its registry is: %v", err)
	}
	write(t, filepath.Join(dir, sealFile), strings.Repeat("ab", 32)+"\n")
	if err := refused(t, dir, etcdConfig(t, m, "x/")); err == nil || !strings.Contains(err.Error(), "not the cluster's") {
		t.Errorf("with another seal.key: %v", err)
	}
	own := start(t, Options{Data: t.TempDir()})
	if err := own.stop(); err != nil {
		t.Fatal(err)
	}
	if err := refused(t, own.dir, etcdConfig(t, m, "x/")); err == nil || !strings.Contains(err.Error(), "records of its own") {
		t.Errorf("with a registry of its own: %v", err)
	}
	write(t, filepath.Join(dir, sealFile), first.read(sealFile)+"\n")
	conf := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, conf, fmt.Sprintf("node_name: second\nregistry:\n  etcd: [%q]\n  prefix: x/\n", m.Endpoint()))
	second := start(t, Options{Data: dir, Config: conf})
	if a, _ := first.node(); a == func() string { b, _ := second.node(); return b }() {
		t.Error("two nodes have one id")
	}
	// Both have their own token, and the set-up token is the first one's.
	first.call("GET", "/status", nil, 200)
	if out := second.out.String(); out != "" {
		t.Errorf("the second node prints %q", out)
	}
	second.call("POST", "/setup", map[string]any{"token": first.read(setupFile), "user": "anna", "password": "correct horse"}, 201)
}
