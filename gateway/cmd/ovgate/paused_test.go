package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/clustertest"
	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/internal/faultproxy"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

// logShown is how much of a node's log a failed test shows, in bytes.
const logShown = 200_000

// member is a node of a cluster, a process of its own.
type member struct {
	t         *testing.T
	bin, name string
	dir, conf string
	cmd       *exec.Cmd
	ended     chan struct{}
	log       *os.File

	mu     sync.Mutex
	client *client.Client // nil: not asked since the start
}

func newMember(t *testing.T, bin, name, etcd string) *member {
	t.Helper()
	work := t.TempDir()
	m := &member{t: t, bin: bin, name: name, dir: filepath.Join(work, name), conf: filepath.Join(work, "ovgate.yaml")}
	text := fmt.Sprintf("node_name: %s\nregistry: {etcd: [%q]}\ncluster: {lease: 5s, listen: \"127.0.0.1:0\"}\ndtl: {listen: \"127.0.0.1:0\"}\nalba: {listen: \"127.0.0.1:0\"}\n", name, etcd)
	if err := os.WriteFile(m.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.log, err = os.Create(filepath.Join(work, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.end(syscall.SIGKILL)
		if t.Failed() {
			if b, err := os.ReadFile(m.log.Name()); err == nil {
				t.Logf("log of %s:\n%s", name, b[max(0, len(b)-logShown):])
			}
		}
		m.log.Close()
	})
	return m
}

// start runs it, and waits until it answers.
func (m *member) start() {
	m.t.Helper()
	m.cmd = exec.Command(m.bin, serveArgs(m.dir, "--config", m.conf)...)
	m.cmd.Stdout, m.cmd.Stderr, m.cmd.Env = m.log, m.log, environment()
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan struct{})
	m.ended = ended
	go func() {
		_ = m.cmd.Wait() // how it ended shows in its log
		close(ended)
	}()
	m.until("up", func() bool { _, err := answers(m.dir); return err == nil })
	m.mu.Lock()
	m.client = nil
	m.mu.Unlock()
}

func (m *member) signal(s syscall.Signal) {
	m.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		m.t.Fatalf("node %s: %v", m.name, err)
	}
}

// end ends it with a signal.
func (m *member) end(s syscall.Signal) {
	if m.ended == nil {
		return
	}
	_ = m.cmd.Process.Signal(s) // it may have ended by itself
	<-m.ended
	m.ended = nil
}

func (m *member) until(what string, ok func() bool) {
	m.t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.After(startLimit)
	for !ok() {
		select {
		case <-limit:
			m.end(syscall.SIGQUIT) // its goroutines are in the log
			m.t.Fatalf("node %s is not %s", m.name, what)
		case <-m.ended:
			m.t.Fatalf("node %s ended", m.name)
		case <-again.C:
		}
	}
}

// do runs a verb with what it reads, and returns what it prints.
func (m *member) do(in string, args ...string) string {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), m.bin, args...)
	cmd.Env, cmd.Stdin = append(environment(), "OVGATE_DATA="+m.dir), strings.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			m.t.Fatalf("node %s: %v: %v: %s", m.name, args, err, exit.Stderr)
		}
		m.t.Fatal(err)
	}
	return string(out)
}

// api is a client of the node, one for each start: a node bounds how many connections it takes.
func (m *member) api() (*client.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		return m.client, nil
	}
	o, err := client.Discover(client.System(), m.dir)
	if err != nil {
		return nil, err
	}
	o.Timeout = 5 * time.Second
	m.client, err = client.New(o)
	return m.client, err
}

// disk is what it says of a vDisk by itself, as lists do; the zero value: nothing.
func (m *member) disk(ctx context.Context, vdisk string) client.VDisk {
	api, err := m.api()
	if err != nil {
		return client.VDisk{}
	}
	l, err := client.Get[client.VDiskList](api.ListVDisks(ctx, &client.ListVDisksParams{Q: &vdisk}))
	if err != nil {
		return client.VDisk{}
	}
	for _, v := range l.Items {
		if v.Name == vdisk {
			return v
		}
	}
	return client.VDisk{}
}

// dial logs in to a vDisk at this node.
func (m *member) dial(ctx context.Context, vdisk string) (*initiator.Session, error) {
	if m.disk(ctx, vdisk).State != "running" {
		return nil, fmt.Errorf("node %s does not serve %s", m.name, vdisk)
	}
	api, err := m.api()
	if err != nil {
		return nil, err
	}
	c, err := client.Get[client.Connection](api.PublishVDisk(ctx, vdisk, client.PublishInput{Open: new(true)}))
	if err != nil {
		return nil, err
	}
	s, err := initiator.Dial(ctx, initiator.Options{Address: c.Portals[0].Address, Target: c.IQN, CHAPUser: c.ChapUser, CHAPSecret: c.ChapSecret})
	if err != nil {
		return nil, err
	}
	if err := s.Ready(ctx, 0); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// newPair starts the nodes alpha and beta of a cluster, with the vPool gold on S3, which they
// reach at an address that between makes of the store's, and the vDisk a at alpha.
func newPair(t *testing.T, between func(endpoint string) string) (alpha, beta *member) {
	t.Helper()
	bin, etcd, s3 := program(t), etcdtest.Serve(t), remotetest.Peer(t, "s3")
	alpha, beta = newMember(t, bin, "alpha", etcd.Endpoint()), newMember(t, bin, "beta", etcd.Endpoint())
	alpha.start()
	alpha.do("", "cluster", "init", "--name", "east")
	alpha.end(syscall.SIGTERM)
	alpha.start() // as a member it takes copies
	alpha.do(alpha.do("", "cluster", "token", "create"), "cluster", "join", "--data", beta.dir, "--config", beta.conf)
	beta.start()
	alpha.do(s3["secret_key"]+"\n", "backend", "create", "s3", "store", "--url", between(s3["endpoint"]), "--bucket", s3["bucket"], "--user", s3["access_key"], "--secret-stdin")
	alpha.do("", "vpool", "create", "gold", "--store", "store", "--path", "gold")
	alpha.do("", "vdisk", "create", "a", "--vpool", "gold", "--size", "1GiB")
	return alpha, beta
}

// gate is a way to a store on which reads of objects wait while it is closed.
type gate struct {
	mu   sync.Mutex
	open chan struct{} // closed: reads pass
}

func (g *gate) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet && strings.Contains(strings.Trim(r.URL.Path, "/"), "/") { // else it is a list
		g.mu.Lock()
		open := g.open
		g.mu.Unlock()
		select {
		case <-open:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return http.DefaultTransport.RoundTrip(r)
}

// hold closes the gate, until release.
func (g *gate) hold() (release func()) {
	open := make(chan struct{})
	g.mu.Lock()
	g.open = open
	g.mu.Unlock()
	return sync.OnceFunc(func() { close(open) })
}

// TestClusterMoveWait: vdisk move --wait does not return before the other node serves the vDisk,
// which has to read from the store for that. Then that node says so itself, and lets hosts in.
func TestClusterMoveWait(t *testing.T) {
	g := &gate{}
	g.hold()()
	alpha, beta := newPair(t, func(endpoint string) string {
		p, err := faultproxy.New(faultproxy.Options{Target: endpoint, Transport: g, Rand: rand.New(rand.NewPCG(1, 1))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p.URL()
	})
	beta.until("attached to gold", func() bool {
		api, err := beta.api()
		if err != nil {
			return false
		}
		p, err := client.Get[client.VPool](api.GetVPool(t.Context(), "gold"))
		return err == nil && p.State == "running"
	})
	alpha.do("", "vdisk", "publish", "a", "--open")
	for round, from := range []*member{alpha, beta, alpha} {
		to, asked := beta, from
		if from == beta {
			to = alpha
		}
		if round == 2 {
			asked = to // which passes it on
		}
		release := g.hold()
		t.Cleanup(release)
		cmd := exec.CommandContext(t.Context(), asked.bin, "vdisk", "move", "a", "--node", to.name, "--wait")
		cmd.Env = append(environment(), "OVGATE_DATA="+asked.dir)
		done := make(chan error, 1)
		go func() {
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w: %s", err, out)
			}
			done <- err
		}()
		to.until("opening it", func() bool {
			v := to.disk(t.Context(), "a")
			return v.Node == to.name && v.State == client.VDiskStateOpening
		})
		select { // it looks several times
		case err := <-done:
			t.Fatalf("round %d: it returned while %s opens the vDisk: %v", round, to.name, err)
		case <-time.After(4 * pollEvery):
		}
		release()
		if err := <-done; err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if v := to.disk(t.Context(), "a"); v.State != client.VDiskStateRunning || v.Node != to.name {
			t.Fatalf("round %d: moved, and %s at %s for node %s: %s", round, v.State, v.Node, to.name, v.StateReason)
		}
		s, err := to.dial(t.Context(), "a")
		if err != nil {
			t.Fatalf("round %d: moved, and: %v", round, err)
		}
		s.Close()
	}
}

// TestHandedOver: what ends the wait for a vDisk that goes to node n2, and how.
func TestHandedOver(t *testing.T) {
	for _, tc := range []struct {
		what  string
		v     client.VDisk
		waits bool
		err   string // "": it is served there
	}{
		{"on its way", client.VDisk{Node: "n1", State: "running", Handover: &client.Handover{Node: "n2"}}, true, ""},
		{"given, not open", client.VDisk{Node: "n2", State: "elsewhere", Handover: &client.Handover{Node: "n2"}}, true, ""},
		{"n2 does not know yet", client.VDisk{Node: "n1", State: "elsewhere"}, true, ""},
		{"opening", client.VDisk{Node: "n2", State: "opening"}, true, ""},
		{"n2 has no lease now", client.VDisk{Node: "n2", State: "suspended"}, true, ""},
		{"there", client.VDisk{Node: "n2", State: "running"}, false, ""},
		{"there, its backend away", client.VDisk{Node: "n2", State: "degraded"}, false, ""},
		{"open there, n2 is not asked", client.VDisk{Node: "n2", State: "elsewhere"}, false, ""},
		{"in the trash", client.VDisk{Node: "n2", State: "trashed"}, false, ""},
		{"given up", client.VDisk{Node: "n1", State: "running", Handover: &client.Handover{Node: "n2", Failed: "no space"}}, false, "no space"},
		{"stopped", client.VDisk{Node: "n1", State: "running"}, false, "stopped"},
		{"damaged", client.VDisk{Node: "n2", State: "corrupt", StateReason: "bad head"}, false, "bad head"},
		{"n2 went", client.VDisk{Node: "n2", State: "waiting", StateReason: "n2 is down"}, false, "n2 is down"},
	} {
		if got := handingOver(tc.v, "n2"); got != tc.waits {
			t.Errorf("%s: waits %v", tc.what, got)
		}
		if tc.waits {
			continue
		}
		if err := handedOver(tc.v, "n2"); (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v, want %q", tc.what, err, tc.err)
		}
	}
}

// TestClusterPaused: the process that serves a vDisk stands still (SIGSTOP) until another node
// has taken the vDisk over with its copy of the journal, and goes on (SIGCONT): it answers
// nothing of what was sent to it meanwhile, and changes nothing. Then the new owner is killed
// (SIGKILL), and the first one takes over. What all clients hear is linearizable.
func TestClusterPaused(t *testing.T) {
	alpha, beta := newPair(t, func(endpoint string) string { return endpoint })
	const blocks = 8
	owner, other := alpha, beta
	ctx := t.Context()
	for round := range clustertest.Rounds(t) {
		k := &clustertest.Clients{Count: 4, Blocks: blocks, First: uint64(round) * blocks, Seed: uint64(round), Dial: func(ctx context.Context) (*initiator.Session, error) {
			s, err := alpha.dial(ctx, "a")
			if err != nil {
				s, err = beta.dial(ctx, "a")
			}
			return s, err
		}}
		k.Start(ctx)
		more := func() {
			t.Helper()
			from := k.Answered()
			other.until("serving clients", func() bool { return k.Answered() >= from+100 })
		}
		more()
		owner.until("mirrored", func() bool { return owner.disk(ctx, "a").Dtl.State == "ok" })
		old, err := owner.dial(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		owner.signal(syscall.SIGSTOP)
		probe, err := k.Probe(old) // what it finds when it goes on
		if err != nil {
			t.Fatal(err)
		}
		other.until("the owner", func() bool { return other.disk(ctx, "a").State == "running" })
		more()
		owner.signal(syscall.SIGCONT)
		owner.until("aware of it", func() bool { return owner.disk(ctx, "a").State == "elsewhere" })
		select {
		case <-probe.Done():
		case <-time.After(startLimit):
			t.Fatal("what was sent to the old owner has no end")
		}
		old.Close()
		more()
		owner, other = other, owner

		owner.until("mirrored", func() bool { return owner.disk(ctx, "a").Dtl.State == "ok" })
		more()
		owner.end(syscall.SIGKILL)
		other.until("the owner", func() bool { return other.disk(ctx, "a").State == "running" })
		more()
		owner.start()
		owner.until("aware of it", func() bool { return owner.disk(ctx, "a").State == "elsewhere" })
		owner, other = other, owner
		if err := k.Stop(ctx); err != nil {
			t.Fatalf("round %d, %v: %v", round, k, err)
		}
		t.Logf("round %d: %v", round, k)
	}
}
