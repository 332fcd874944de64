package node

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// Variables of the environment that have this program run a node in place of tests, until
// its standard input ends: where the node's data is, and its configuration.
const (
	childData   = "OVGATE_TEST_DATA"
	childConfig = "OVGATE_TEST_CONFIG"
)

// probe is how often nodes of these tests look at devices.
const probe = 500 * time.Millisecond

// serveChild runs that node, if there is one to run.
func serveChild() {
	data := os.Getenv(childData)
	if data == "" {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the test that began this
		cancel()
	}()
	err := Run(ctx, Options{
		Data: data, Config: os.Getenv(childConfig), API: "127.0.0.1:0", ISCSI: []string{"127.0.0.1:0"}, Stdout: io.Discard, probe: probe,
		Ready: func(url string) { fmt.Println(url) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// startChild starts a node in a process of its own, which stop kills.
func startChild(t *testing.T, data, config string) *running {
	t.Helper()
	r := &running{t: t, dir: data, out: &buffer{}, log: &buffer{}, over: make(chan struct{})}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childData+"="+data, childConfig+"="+config)
	cmd.Stderr = r.log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	r.stop = func() error {
		once.Do(func() {
			_ = cmd.Process.Kill()
			_ = in.Close()
			_ = cmd.Wait() // it says that it was killed
			if r.http != nil {
				r.http.CloseIdleConnections()
			}
			close(r.over)
		})
		return nil
	}
	t.Cleanup(func() {
		_ = r.stop()
		if t.Failed() {
			t.Logf("log of the process:\n%s", r.log)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("node did not start: %v\n%s", err, r.log)
	}
	r.url = strings.TrimSpace(line)
	r.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots()}, ForceAttemptHTTP2: true}, Timeout: patience}
	return r
}

// newAlbaNodes starts three nodes with two devices each and the vPool "gold" on them. The
// first one is a process of its own.
func newAlbaNodes(t *testing.T) (c *members, confs []string) {
	t.Helper()
	c = &members{t: t, etcd: etcdtest.Serve(t)}
	seal := strings.Repeat("5a", 32) + "\n"
	for i := range 3 {
		dir, disks := t.TempDir(), t.TempDir()
		write(t, filepath.Join(dir, sealFile), seal)
		conf := filepath.Join(t.TempDir(), "ovgate.yaml")
		write(t, conf, fmt.Sprintf(`node_name: n%d
domain: rack%d
registry: {etcd: [%q], prefix: cluster/}
dtl: {listen: "127.0.0.1:0"}
alba: {listen: "127.0.0.1:0", clear: %v}
asds: [{dir: %q, bytes: 1073741824}, {dir: %q, bytes: 1073741824}]
`, i+1, i+1, c.etcd.Endpoint(), i > 0, filepath.Join(disks, "1"), filepath.Join(disks, "2")))
		c.dirs, c.nodes, confs = append(c.dirs, dir), append(c.nodes, nil), append(confs, conf)
		if i == 0 {
			c.set(i, startChild(t, dir, conf))
		} else {
			c.set(i, start(t, Options{Data: dir, Config: conf, probe: probe}))
		}
	}
	one := c.nodes[0]
	for _, n := range c.nodes {
		n.until("all devices work", func() bool {
			on := map[string]int{}
			for _, o := range n.osds() {
				if o["working"] == true {
					on[o["node"].(string)]++
				}
			}
			return maps.Equal(on, map[string]int{"n1": 2, "n2": 2, "n3": 2})
		})
	}
	one.until("the preset follows the devices", func() bool { return one.call("GET", "/presets/default", nil, 200)["now"] == "(4,2,5,2)" })
	one.call("POST", "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "alba"}, "settings": map[string]any{"commitIntervalMs": 200}}, 201)
	for _, n := range c.nodes {
		n.until("attached to gold", func() bool { return n.poolState("gold") == "running" })
	}
	return c, confs
}

func (r *running) osds() (out []map[string]any) {
	r.t.Helper()
	for _, o := range r.call("GET", "/osds", nil, 200)["items"].([]any) {
		out = append(out, o.(map[string]any))
	}
	return out
}

// TestAlbaNodes: three nodes share an Alba over their devices. A node is killed with its
// devices: what was written reads right, writes go on by another policy, its vDisks are
// taken over, and when it is back all is made whole again, without being asked. What the
// object store says of its safety is right at each step, on each node.
func TestAlbaNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute of three nodes and six devices, with -short")
	}
	t.Parallel()
	c, confs := newAlbaNodes(t)
	one, two, three := c.nodes[0], c.nodes[1], c.nodes[2]
	for i, o := range two.osds() {
		if want := fmt.Sprintf("rack%s", o["node"].(string)[1:]); o["domain"] != want || o["state"] != "in-use" || o["kind"] != "local" {
			t.Errorf("device %d: %v", i, o)
		}
	}
	racks := one.call("POST", "/presets", map[string]any{"name": "racks", "policies": []string{"4,2,5,2"}, "spread": "domain"}, 201)
	if racks["spread"] != "domain" || racks["now"] != "(4,2,5,2)" || !strings.Contains(racks["explain"].(string), "any 2 disks or 1 domain") {
		t.Errorf("a preset that spreads by domain: %v", racks)
	}
	lost, kept := one.disk("lost", "gold", 1<<30), two.disk("kept", "gold", 1<<30)
	a, b := &checker{t: t, c: c, vdisk: lost}, &checker{t: t, c: c, vdisk: kept}
	stopA, stopB := a.start(), b.start()
	a.more()
	b.more()
	for _, name := range []string{"lost", "kept"} {
		one.untilAny(c, name+" is mirrored", func(n *running) bool {
			d := n.call("GET", "/vdisks/"+name, nil, 200)
			return d["dtl"].(map[string]any)["state"] == "ok"
		})
	}
	// An object that a slow device lacks a fragment of is whole only after a repair, so nothing
	// is written when the node is lost, and at once afterwards.
	stopA()
	stopB()
	one.call("POST", "/vdisks/lost/commit", nil, 200)
	two.call("POST", "/vdisks/kept/commit", nil, 200)
	two.call("POST", "/alba/survey", nil, 202)
	safe := func(tolerates, failed float64, what string, nodes ...*running) {
		t.Helper()
		for _, n := range nodes {
			var s map[string]any
			asked := time.Now()
			for deadline := asked.Add(patience); ; time.Sleep(50 * time.Millisecond) {
				s = n.call("GET", "/alba", nil, 200)
				if s["tolerates"] == tolerates && s["failed"] == failed && s["repair"] == 0.0 && s["maintainer"] != nil {
					break
				}
				// The last survey may have met an object that was just being written.
				if s["repair"] != 0.0 && time.Since(asked) > 2*time.Second {
					n.call("POST", "/alba/survey", nil, 202)
					asked = time.Now()
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: %v", what, s)
				}
			}
		}
	}
	safe(2, 0, "whole", one, two, three)
	// What the loss of a rack is said to mean is what happens below.
	for _, n := range []*running{one, two, three} {
		d := n.call("GET", "/domains/rack1", nil, 200)
		if got := fmt.Sprint(len(d["nodes"].([]any)), d["devices"], d["vdisks"], d["takenOver"], d["waits"], d["gone"], d["lost"], " ", d["state"]); got != "1 2 1 1 0 0 0 ok" {
			t.Errorf("rack1: %s, %v", got, d)
		}
		items := n.call("GET", "/domains/rack1/vdisks", nil, 200)["items"].([]any)
		if i := slices.IndexFunc(items, func(v any) bool { return v.(map[string]any)["name"] == "lost" }); i < 0 || items[i].(map[string]any)["fate"] != "takenOver" || items[i].(map[string]any)["copyDomain"] == "rack1" {
			t.Errorf("vDisks of rack1: %v", items)
		}
	}
	if all := one.call("GET", "/domains", nil, 200)["items"].([]any); len(all) != 3 {
		t.Errorf("domains %v", all)
	}
	two.call("GET", "/domains/rack4", nil, 404)

	c.set(0, nil)
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	stopA, stopB = a.start(), b.start()
	safe(0, 2, "a node is lost", two, three)
	two.until("taken over", func() bool { return two.diskState(lost) == "running" || three.diskState(lost) == "running" })
	a.more()
	b.more()
	for _, n := range []*running{two, three} {
		if s := n.causes(); !strings.Contains(s, "osd") {
			t.Errorf("health without a node: %s", s)
		}
	}
	two.call("POST", "/vdisks/kept/commit", nil, 200)
	two.until("written by another policy", func() bool {
		two.call("POST", "/alba/survey", nil, 202)
		p := two.call("GET", "/alba", nil, 200)["policies"].(map[string]any)
		return p["(2,2,3,2)"] != nil
	})

	one = startChild(t, c.dirs[0], confs[0])
	one.until("it gave up what was taken over", func() bool { return one.diskState(lost) == "elsewhere" })
	c.set(0, one)
	safe(2, 0, "the node is back", one, two, three)
	one.until("all is stored by the best policy again", func() bool {
		p := one.call("GET", "/alba", nil, 200)["policies"].(map[string]any)
		return slices.Equal(slices.Collect(maps.Keys(p)), []string{"(4,2,5,2)"})
	})
	a.more()
	b.more()
	stopA()
	stopB()
	a.whole()
	b.whole()
	a.s.Close()
	b.s.Close()
}

// untilAny waits until something holds on one of the nodes.
func (r *running) untilAny(c *members, what string, holds func(n *running) bool) {
	r.t.Helper()
	r.until(what, func() bool { return slices.ContainsFunc(c.all(), holds) })
}

// TestAlbaJoined: a node that has an object store becomes the first of a cluster; a node that
// joins shares it, over the certificates of the cluster, and does not leave with its devices.
func TestAlbaJoined(t *testing.T) {
	t.Parallel()
	m := etcdtest.Serve(t)
	one := start(t, Options{Data: t.TempDir(), Config: nodeConfig(t, m, "joined/", "alpha"), probe: probe})
	claim := func(n *running) {
		t.Helper()
		for range 2 {
			n.call("POST", "/osds", map[string]any{"directory": filepath.Join(t.TempDir(), "asd"), "capacity": 1 << 30}, 201)
		}
	}
	claim(one)
	one.call("POST", "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "alba"}}, 201)
	one.call("POST", "/cluster", map[string]any{"name": "east"}, 200)
	if s := one.causes(); strings.Contains(s, "alba_node") {
		t.Errorf("a cluster of one node: %s", s)
	}
	e := &east{t: t, m: m, prefix: "joined/", first: one}
	two := e.join("beta")
	one.until("a risk is told", func() bool { return strings.Contains(one.causes(), "alba_node") })
	claim(two)
	for _, n := range []*running{one, two} {
		n.until("all devices work", func() bool {
			osds := n.osds()
			return len(osds) == 4 && !slices.ContainsFunc(osds, func(o map[string]any) bool { return o["working"] != true })
		})
		n.until("attached to gold", func() bool { return n.poolState("gold") == "running" })
		n.until("a node may be lost", func() bool {
			return strings.Contains(n.call("GET", "/presets/default", nil, 200)["explain"].(string), "1 node") && !strings.Contains(n.causes(), "alba_node")
		})
	}
	id := two.disk("a", "gold", 1<<30)
	c := &members{t: t, nodes: []*running{one, two}}
	k := &checker{t: t, c: c, vdisk: id}
	stop := k.start()
	k.more()
	two.call("POST", "/vdisks/a/handover", map[string]any{"node": "alpha"}, 202)
	one.until("handed over", func() bool { return one.diskState(id) == "running" })
	k.more()
	stop()
	k.whole()
	k.s.Close()
	if e := two.call("POST", "/cluster/leave", nil, 409); !strings.Contains(e["message"].(string), "2 devices") || !strings.Contains(e["hint"].(string), "osd list") {
		t.Errorf("left with devices: %v", e)
	}
}

// TestAlbaMoves: a node with its object store in its data directory gets a registry in etcd.
// Nothing is lost by that, and a second node reaches what was stored.
func TestAlbaMoves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, Options{Data: dir})
	n.call("POST", "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "alba"}}, 201)
	id := n.disk("a", "gold", 1<<30)
	k := &checker{t: t, c: &members{t: t, nodes: []*running{n}}, vdisk: id}
	stop := k.start()
	k.more()
	n.call("POST", "/vdisks/a/commit", nil, 200)
	k.more()
	stop()
	k.s.Close()
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	m := etcdtest.Serve(t)
	conf := func(name string) string {
		f := filepath.Join(t.TempDir(), "ovgate.yaml")
		write(t, f, fmt.Sprintf("node_name: %s\nregistry: {etcd: [%q], prefix: moved/}\nalba: {listen: \"127.0.0.1:0\"}\n", name, m.Endpoint()))
		return f
	}
	n = start(t, Options{Data: dir, Config: conf("n1"), probe: probe})
	for _, file := range []string{kvMoved, "alba/nsm.db.moved"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			t.Error(err)
		}
	}
	far := t.TempDir()
	write(t, filepath.Join(far, sealFile), n.read(sealFile)+"\n")
	two := start(t, Options{Data: far, Config: conf("n2"), probe: probe})
	two.until("attached to gold", func() bool { return two.poolState("gold") == "running" })
	k.c = &members{t: t, nodes: []*running{n, two}}
	k.s = nil
	n.until("running", func() bool { return n.diskState(id) == "running" })
	k.whole()
	n.call("POST", "/vdisks/a/handover", map[string]any{"node": "n2"}, 202)
	two.until("handed over", func() bool { return two.diskState(id) == "running" })
	k.s.Close()
	k.s = nil
	k.whole()
	stop = k.start()
	k.more()
	stop()
	k.s.Close()
}
