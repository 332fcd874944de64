package alba

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// nodes are what the nodes of a test know of each other.
type nodes struct {
	mu  sync.Mutex
	all map[string]Node
}

func (n *nodes) set(v Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all[v.ID] = v
}

// member is one node's Cluster.
type member struct {
	*nodes
	l     net.Listener
	lease *cluster.Lease
	id    *cluster.Identity // nil: the cluster has no certificates
}

func (m *member) Node(id string) (Node, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.all[id]
	return n, ok
}

func (m *member) Find(ref string) (Node, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.all {
		if n.ID == ref || n.Name == ref {
			return n, true
		}
	}
	return Node{}, false
}

func (m *member) Others() bool           { return len(m.all) > 1 }
func (m *member) Leased() bool           { return m.lease.Valid() }
func (m *member) Listener() net.Listener { return m.l }
func (m *member) Server() *tls.Config {
	if m.id == nil {
		return nil
	}
	return m.id.Server(func(node string) bool { _, ok := m.Node(node); return ok })
}

func (m *member) Client(id string) *tls.Config {
	if m.id == nil {
		return nil
	}
	return m.id.Client(id)
}

// shared are services on one registry.
type shared struct {
	t    *testing.T
	etcd *etcdtest.Member
	nodes
	seal *control.Sealer
	ca   *cluster.Authority // nil: the cluster has no certificates
}

func newShared(t *testing.T) *shared {
	t.Helper()
	seal, err := control.NewSealer(make([]byte, control.SealKeySize))
	must(t, err)
	return &shared{t: t, etcd: etcdtest.Serve(t), nodes: nodes{all: map[string]Node{}}, seal: seal}
}

// node makes one with so many directories.
func (s *shared) node(name string, dirs int) *Service {
	s.t.Helper()
	data := s.t.TempDir()
	var all []Dir
	for i := range dirs {
		all = append(all, Dir{Path: filepath.Join(data, fmt.Sprint("disk", i)), Bytes: 1 << 30})
	}
	return s.at(name, data, all...)
}

func (s *shared) at(name, data string, dirs ...Dir) *Service {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(s.t, err)
	id := idOf(name)
	s.set(Node{ID: id, Name: name, Devices: l.Addr().String()})
	store := s.etcd.Open(s.t, "alba/")
	lease, err := cluster.OpenLease(s.t.Context(), cluster.LeaseOptions{Store: store, Node: id})
	must(s.t, err)
	v := New(Options{
		Data: data, Registry: store, Sealer: s.seal, Node: id, Dirs: dirs, Version: "test", Log: slog.New(slog.DiscardHandler),
		Cluster: &member{&s.nodes, l, lease, s.identity(id)}, Probe: 200 * time.Millisecond,
	})
	s.t.Cleanup(func() {
		must(s.t, v.Close())
		must(s.t, lease.Close(context.Background()))
		must(s.t, ignoreClosed(l.Close()))
	})
	return v
}

const clusterID = "11111111-2222-4333-8444-555555555555"

// idOf is the id of the node n1, n2, ...
func idOf(name string) string {
	return "00000000-0000-4000-8000-000000000" + strings.Replace(name, "n", "a", 1)
}

// certified has the nodes to come have certificates.
func (s *shared) certified() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(s.t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ovgate test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	must(s.t, err)
	leaf, err := x509.ParseCertificate(der)
	must(s.t, err)
	s.ca, err = cluster.NewAuthority(clusterID, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf})
	must(s.t, err)
}

func (s *shared) identity(node string) *cluster.Identity {
	s.t.Helper()
	if s.ca == nil {
		return nil
	}
	key, request, err := cluster.NewRequest()
	must(s.t, err)
	cert, err := s.ca.Sign(request, node, time.Now())
	must(s.t, err)
	i, err := cluster.NewIdentity(clusterID, node, cert, key, s.ca.PEM())
	must(s.t, err)
	return i
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestSuspect: the devices of a node that lost its lease are given up, those of others are
// not, and they are used again as they answer.
func TestSuspect(t *testing.T) {
	s := newShared(t)
	one, two := s.node("n1", 2), s.node("n2", 2)
	one.Suspect(idOf("n2")) // before anything is open
	must(t, one.Open(t.Context()))
	must(t, two.Open(t.Context()))
	r, err := one.open(t.Context())
	must(t, err)
	must(t, r.client.Refresh(t.Context()))
	stats := r.client.Stats()
	was, back := stats.Disqualified.Load(), stats.Requalif.Load()
	one.Suspect(idOf("n3"))
	one.Suspect(idOf("n2"))
	if n := stats.Disqualified.Load() - was; n != 2 {
		t.Errorf("%d devices are given up, a node has 2", n)
	}
	until(t, "devices that answer are used again", func() bool { return stats.Requalif.Load()-back == 2 })
}

// Nodes that share a registry share the Alba: devices, presets, keys, objects; one of them
// does the maintenance, and all tell what it finds.
func TestShared(t *testing.T) {
	s := newShared(t)
	ctx := t.Context()
	var all []*Service
	for i := range 3 {
		v := s.node(fmt.Sprint("n", 10*(i+1)), 2)
		must(t, v.Open(ctx))
		all = append(all, v)
	}
	one, two, three := all[0], all[1], all[2]
	for _, v := range all {
		r, err := v.open(ctx)
		must(t, err)
		must(t, r.client.Refresh(ctx))
		osds, err := v.OSDs(ctx)
		must(t, err)
		if len(osds) != 6 {
			t.Fatalf("%d devices", len(osds))
		}
	}
	var p Preset
	until(t, "the preset follows the devices", func() bool {
		var err error
		p, err = two.Preset(ctx, "")
		return err == nil && p.Now == "(4,2,5,2)" && p.OutlivesNode && strings.Contains(p.Explain, "1 node")
	})
	if _, err := one.CreatePreset(ctx, NewPreset{Name: "secret", Policies: p.Policies, Encrypt: true}); err != nil {
		t.Fatal(err)
	}
	a, err := one.Store(ctx, "pool", "secret")
	must(t, err)
	b, err := two.Store(ctx, "pool", "secret")
	must(t, err)
	want := strings.Repeat("what one node stores, another one reads. ", 5000)
	must(t, a.Put(ctx, "first", []byte(want)))
	got, err := b.Get(ctx, "first", 1<<20)
	must(t, err)
	if string(got) != want {
		t.Fatal("another object")
	}
	// A key that is rotated by one node wraps what others make and read.
	if _, _, err := two.RotateKey(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := one.CreatePreset(ctx, NewPreset{Name: "second", Policies: p.Policies, Encrypt: true}); err != nil {
		t.Fatal(err)
	}
	c, err := three.Store(ctx, "other", "second")
	must(t, err)
	must(t, c.Put(ctx, "x", []byte(want)))
	a2, err := one.Store(ctx, "other", "second")
	must(t, err)
	if got, err := a2.Get(ctx, "x", 1<<20); err != nil || string(got) != want {
		t.Fatalf("after a rotation: %v", err)
	}
	// Maintenance is one node's, and what it finds is told by all.
	leads := func() (out []*Service) {
		for _, v := range all {
			if r, err := v.open(ctx); err == nil && r.leader.leading() {
				out = append(out, v)
			}
		}
		return out
	}
	until(t, "one leads", func() bool { return len(leads()) == 1 })
	must(t, three.Survey(ctx))
	for _, v := range all {
		until(t, "the survey is told", func() bool {
			st, err := v.Status(ctx)
			least, ok := st.Safety.Least()
			return err == nil && ok && least == 2 && st.Safety.Objects == 2 && st.Maintainer == leads()[0].o.Node
		})
	}
	// The one that leads ends: another goes on, and sees that its devices are away.
	gone := leads()[0]
	must(t, gone.Close())
	var left []*Service
	for _, v := range all {
		if v != gone {
			left = append(left, v)
		}
	}
	all = left
	until(t, "another one leads", func() bool { return len(leads()) == 1 })
	for _, v := range left {
		until(t, "two devices are missed", func() bool {
			st, err := v.Status(ctx)
			least, ok := st.Safety.Least()
			return err == nil && st.Failed == 2 && ok && least == 0
		})
	}
	d, err := left[0].Store(ctx, "pool", "secret")
	must(t, err)
	if got, err := d.Get(ctx, "first", 1<<20); err != nil || string(got) != want {
		t.Fatalf("without a node: %v", err)
	}
	must(t, d.Put(ctx, "second", []byte(want)))
	e, err := left[1].Store(ctx, "pool", "secret")
	must(t, err)
	if got, err := e.Get(ctx, "second", 1<<20); err != nil || string(got) != want {
		t.Fatalf("written without a node: %v", err)
	}
}

// A device that is asked for is served when it is open here, to who has the key, and what
// says something else is turned away.
func TestServeDevices(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testServeDevices(t, newShared(t)) })
	t.Run("certified", func(t *testing.T) {
		s := newShared(t)
		s.certified()
		testServeDevices(t, s)
	})
}

// With certificates only members are served, and only the right node is.
func TestServeMembers(t *testing.T) {
	s := newShared(t)
	s.certified()
	ctx := t.Context()
	one := s.node("n10", 1)
	must(t, one.Open(ctx))
	two := s.node("n20", 0)
	osds, err := one.OSDs(ctx)
	must(t, err)
	rec := osds[0].OSD
	try := func(what string, v *Service, want string) {
		t.Helper()
		dev, err := v.dialNode(rec)
		must(t, err)
		if _, err := dev.Info(ctx); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", what, err)
		}
		must(t, dev.Close())
	}
	try("a member", two, "")
	m := *two.o.Cluster.(*member)
	as := func(change func(m *member)) *Service {
		other := m
		change(&other)
		v := &Service{o: two.o}
		v.o.Cluster = &other
		return v
	}
	try("without TLS", as(func(m *member) { m.id = nil }), "handshake")
	try("a node that was removed", as(func(m *member) { m.id = s.identity(idOf("n30")) }), "certificate")
	ours := s.ca
	s.certified()
	try("of another authority", as(func(m *member) { m.id = s.identity(idOf("n20")) }), "certificate")
	s.ca = ours
	// Another member answers at the address.
	there, _ := m.Node(idOf("n20"))
	wrong := Node{ID: rec.Node, Name: "n10", Devices: there.Devices}
	must(t, two.Open(ctx))
	s.set(wrong)
	try("in place of another one", two, "not open on node")
}

func testServeDevices(t *testing.T, s *shared) {
	ctx := t.Context()
	one := s.node("n10", 1)
	must(t, one.Open(ctx))
	two := s.node("n20", 0)
	osds, err := one.OSDs(ctx)
	must(t, err)
	rec := osds[0].OSD
	dev, err := two.dialNode(rec)
	must(t, err)
	info, err := dev.Info(ctx)
	must(t, err)
	if info.ID != rec.UUID {
		t.Fatalf("device %s", info.ID)
	}
	must(t, dev.Close())
	wrong := rec
	wrong.UUID = "00000000-0000-4000-8000-000000000000"
	dev, err = two.dialNode(wrong)
	must(t, err)
	if _, err := dev.Info(ctx); err == nil || !strings.Contains(err.Error(), "not open on node n10") {
		t.Errorf("a device that is not there: %v", err)
	}
	must(t, dev.Close())
	other, err := control.NewSealer([]byte(strings.Repeat("x", control.SealKeySize)))
	must(t, err)
	stranger := &Service{o: two.o}
	stranger.o.Sealer = other
	dev, err = stranger.dialNode(rec)
	must(t, err)
	if _, err := dev.Info(ctx); !errors.Is(err, osd.ErrAuth) {
		t.Errorf("with the key of another cluster: %v", err)
	}
	must(t, dev.Close())
	n, _ := two.o.Cluster.Node(rec.Node)
	for _, hello := range []string{"", "short", strings.Repeat("\x00", 36), rec.UUID} {
		conn, err := net.Dial("tcp", n.Devices)
		must(t, err)
		_, err = io.WriteString(conn, hello)
		must(t, err)
		must(t, conn.Close())
	}
	// A node that says nothing of an address, or none that is there.
	n.Devices = ""
	s.set(n)
	dev, err = two.dialNode(rec)
	must(t, err)
	if _, err := dev.Info(ctx); err == nil || !strings.Contains(err.Error(), "alba: {listen: HOST:PORT}") {
		t.Errorf("without an address: %v", err)
	}
	must(t, dev.Close())
}

// The manifests of a node that had its registry alone move with it, whatever cuts that off,
// and no other node begins without them.
func TestMoveRecords(t *testing.T) {
	ctx := t.Context()
	s := newShared(t)
	data := t.TempDir()
	// What there was: registry and manifests in files.
	old, err := kv.OpenBolt(filepath.Join(data, "kv.db"), kv.BoltOptions{NoSync: true})
	must(t, err)
	v := New(Options{Data: data, Registry: old, Sealer: s.seal, Node: idOf("n10"), Version: "test", Log: slog.New(slog.DiscardHandler)})
	store, err := v.Store(ctx, "pool", "")
	must(t, err)
	const objects = 150
	text := func(i int) []byte { return []byte(strings.Repeat(fmt.Sprint("object ", i, " "), 50)) }
	for i := range objects {
		must(t, store.Put(ctx, fmt.Sprint("o", i), text(i)))
	}
	p, err := v.Preset(ctx, "")
	must(t, err)
	_, err = v.CreatePreset(ctx, NewPreset{Name: "secret", Policies: p.Policies, Encrypt: true})
	must(t, err)
	secret, err := v.Store(ctx, "hidden", "secret")
	must(t, err)
	must(t, secret.Put(ctx, "x", text(1)))
	must(t, v.Close())
	// The registry was moved.
	registry := s.etcd.Open(t, "alba/")
	must(t, kv.Copy(ctx, old, registry, "", nil))
	must(t, old.Close())

	two := s.node("n20", 1)
	err = two.Open(ctx)
	var e *control.Error
	if !errors.As(err, &e) || e.Code != control.CodeElsewhere || !strings.Contains(e.Hint, "start that node") {
		t.Fatalf("another node, before the move: %v", err)
	}
	for _, step := range []string{"wiped", "copying", "copied", "placed"} {
		one := s.at("n10", data)
		n := 0
		one.o.steps = func(name string) error {
			if n++; name == step && (name != "copying" || n > 50) {
				return errCrash
			}
			return nil
		}
		if err := one.Open(ctx); !errors.Is(err, errCrash) {
			t.Fatalf("at %s: %v", step, err)
		}
		if step != "placed" {
			if err := two.Open(ctx); !errors.As(err, &e) {
				t.Fatalf("another node, after %s: %v", step, err)
			}
		}
	}
	one := s.at("n10", data)
	must(t, one.Open(ctx))
	if _, err := os.Stat(filepath.Join(data, albaDir, movedFile)); err != nil {
		t.Errorf("the old manifests: %v", err)
	}
	must(t, two.Open(ctx))
	for _, node := range []*Service{one, two} {
		store, err := node.Store(ctx, "pool", "")
		must(t, err)
		for i := range objects {
			if got, err := store.Get(ctx, fmt.Sprint("o", i), 1<<20); err != nil || string(got) != string(text(i)) {
				t.Fatalf("object %d: %v", i, err)
			}
		}
		secret, err := node.Store(ctx, "hidden", "secret")
		must(t, err)
		if got, err := secret.Get(ctx, "x", 1<<20); err != nil || string(got) != string(text(1)) {
			t.Fatalf("an encrypted object: %v", err)
		}
	}
	must(t, one.Close())
	again := s.at("n10", data)
	must(t, again.Open(ctx))
}

// A registry that is an older copy of itself has nothing deleted.
func TestOlderRegistry(t *testing.T) {
	s := newShared(t)
	one := s.node("n10", 2)
	must(t, one.Open(t.Context()))
	must(t, one.Close())
	b, err := os.ReadFile(one.nsmPath(markFile))
	must(t, err)
	again := s.at("n10", one.o.Data, one.o.Dirs...)
	must(t, again.Open(t.Context()))
	if r, err := again.open(t.Context()); err != nil || r.older != "" {
		t.Errorf("%v, %q", err, r.older)
	}
	must(t, again.Close())
	must(t, replaceFile(one.nsmPath(markFile), append([]byte("9"), b...)))
	old := s.at("n10", one.o.Data, one.o.Dirs...)
	must(t, old.Open(t.Context()))
	if r, err := old.open(t.Context()); err != nil || !strings.Contains(r.older, "older copy") {
		t.Errorf("%v, %q", err, r.older)
	}
}

// A key that alba_key_file names is the same on each node, by the hand of who put it there.
func TestGivenKey(t *testing.T) {
	s := newShared(t)
	ctx := t.Context()
	file := filepath.Join(t.TempDir(), "wrap.key")
	one := s.node("n10", 2)
	one.o.KeyFile = file
	if err := one.Open(ctx); err == nil || !strings.Contains(err.Error(), "copy it from another node") {
		t.Fatalf("without the file: %v", err)
	}
	must(t, os.WriteFile(file, []byte(strings.Repeat("ab", 32)+"\n"), 0o600))
	must(t, one.Open(ctx))
	if _, err := one.CreatePreset(ctx, NewPreset{Name: "secret", Encrypt: true}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := one.RotateKey(ctx); !errors.Is(err, manager.ErrState) || !strings.Contains(err.Error(), "alba_key_file") {
		t.Errorf("rotated: %v", err)
	}
	two := s.node("n20", 0)
	two.o.KeyFile = filepath.Join(t.TempDir(), "wrap.key")
	must(t, os.WriteFile(two.o.KeyFile, []byte(strings.Repeat("cd", 32)+"\n"), 0o600))
	if err := two.Open(ctx); err == nil || !strings.Contains(err.Error(), "data keys are wrapped with") {
		t.Errorf("with another key: %v", err)
	}
	must(t, os.WriteFile(two.o.KeyFile, []byte(strings.Repeat("ab", 32)+"\n"), 0o600))
	must(t, two.Open(ctx))
}

// The wrapping key of a cluster is one, whoever begins, and is drawn where nothing needs
// one.
func TestSealedKey(t *testing.T) {
	ctx := t.Context()
	seal, err := control.NewSealer(make([]byte, control.SealKeySize))
	must(t, err)
	open := func(store kv.Store, path string) (*keys, error) {
		k := &keys{store: store, path: path, seal: seal, known: map[string]*fragment.Key{}}
		return k, k.settle(ctx)
	}
	absent := filepath.Join(t.TempDir(), wrapFile)
	store := registry(t, t.TempDir())
	a, err := open(store, absent)
	must(t, err)
	b, err := open(store, absent)
	must(t, err)
	if a.wrap.ID() != b.wrap.ID() {
		t.Fatal("two wrapping keys")
	}
	if _, err := os.Stat(absent); err == nil {
		t.Fatal("the key is in a file, too")
	}
	// Both make and rotate at once: each data key opens for both.
	var ids sync.Map
	var wg sync.WaitGroup
	for _, k := range []*keys{a, b} {
		wg.Go(func() {
			for i := range 20 {
				id, err := k.make(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				ids.Store(id, true)
				if i%3 == 0 {
					if _, _, err := k.rotate(ctx); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	c, err := open(store, absent)
	must(t, err)
	ids.Range(func(id, _ any) bool {
		for _, k := range []*keys{a, b, c} {
			if _, err := k.get(id.(string)); err != nil {
				t.Errorf("data key %s: %v", id, err)
			}
		}
		return true
	})
	// One that was in a file goes to the registry; without it, nothing is drawn.
	store = registry(t, t.TempDir())
	path := filepath.Join(t.TempDir(), wrapFile)
	f, err := openKeys(path, store)
	must(t, err)
	id, err := f.make(ctx)
	must(t, err)
	if _, err := open(store, absent); err == nil || !strings.Contains(err.Error(), "start the node that had the object store first") {
		t.Fatalf("without the key: %v", err)
	}
	d, err := open(store, path)
	must(t, err)
	g, err := open(store, absent)
	must(t, err)
	for _, k := range []*keys{d, g} {
		if _, err := k.get(id); err != nil {
			t.Fatal(err)
		}
	}
}
