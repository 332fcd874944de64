package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
	frames "github.com/openvstorage/ovgate/internal/wire"
	"github.com/openvstorage/ovgate/volumedriver/dtl"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// sharedKV is the registry of several nodes.
type sharedKV struct{ kv.Store }

func (sharedKV) Close() error { return nil }

func openShared(t *testing.T) kv.Store {
	t.Helper()
	db, err := kv.OpenBolt(filepath.Join(t.TempDir(), "shared.db"), kv.BoltOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return sharedKV{db}
}

// signer signs the certificates of a cluster.
func signer(t *testing.T, id string) *cluster.Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ovgate test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cluster.NewAuthority(id, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func identityOf(t *testing.T, a *cluster.Authority, clusterID, node string) *cluster.Identity {
	t.Helper()
	key, request, err := cluster.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Sign(request, node, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	i, err := cluster.NewIdentity(clusterID, node, cert, key, a.PEM())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// peer is the part of a node that takes copies of journals, with the lease of a living one.
type peer struct {
	t    *testing.T
	n    *node
	dir  string
	addr string
}

const peerID = "b78ae933-9f21-4541-ad0d-c5572182c192"

// startPeer starts it; on the address that it had, if that is given.
func startPeer(t *testing.T, store kv.Store, id *cluster.Identity, dir, address string, known bool, more ...func(*config)) *peer {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m, err := model.Open(t.Context(), store, nil)
	must(err)
	n := &node{opt: Options{identity: id}, log: slog.New(slog.DiscardHandler), model: m, kv: store, self: self{ID: peerID, Name: "peer"}}
	n.cfg.DTL.Listen = address
	for _, set := range more {
		set(&n.cfg)
	}
	must(n.bindDTL(t.Context()))
	fsys, err := blockfs.OS(dir)
	must(err)
	o := n.dtlOptions()
	o.Peers = func(volume.ID) []string { return nil }
	n.host, err = volume.NewHost(t.Context(), volume.HostOptions{FS: fsys, Registry: volume.KVRegistry{Store: store}, Node: peerID, ChunkBytes: 1 << 20, DTL: o})
	must(err)
	n.onClose(func() error { return n.host.Close(context.Background()) })
	n.startDTL()
	rec := model.Node{ID: peerID, Name: "peer", API: "https://127.0.0.1:1", DTL: n.dtl.address, Domain: "rack2"}
	if known {
		_, err = m.UpdateNode(t.Context(), peerID, func(r *model.Node) error { r.DTL = rec.DTL; return nil })
	} else {
		_, err = m.CreateNode(t.Context(), rec)
	}
	must(err)
	must(n.openLease(t.Context()))
	return &peer{t, n, dir, n.dtl.listener.Addr().String()}
}

// startOwner starts a node with the vDisk one in the vPool gold, and makes a cluster of it: that
// has the authority ca and the id, the node another id.
func startOwner(t *testing.T, store kv.Store, conf string) (r *running, ca *cluster.Authority, id, node string) {
	t.Helper()
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, file, conf+"alba: {listen: '127.0.0.1:0'}\nnode_name: owner\n")
	o := Options{Data: dir, Config: file, registry: store}
	r = start(t, o)
	r.pool("gold", filepath.Join(dir, "backend", "gold"))
	r.disk("one", "gold", 1<<30)
	if c := r.causes(); strings.Contains(c, "dtl") {
		t.Errorf("alone, and its health is %q", c)
	}
	node, _ = r.node()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	m, err := model.Open(t.Context(), store, nil)
	if err != nil {
		t.Fatal(err)
	}
	id = m.Cluster().ID
	ca = signer(t, id)
	o.identity = identityOf(t, ca, id, node)
	return start(t, o), ca, id, node
}

func (p *peer) stop() {
	p.t.Helper()
	for i := len(p.n.closers) - 1; i >= 0; i-- {
		if err := p.n.closers[i](); err != nil {
			p.t.Error(err)
		}
	}
}

// untilDTL waits until the copy of a vDisk's journal is in a state.
func (r *running) untilDTL(name, state string) (d map[string]any) {
	r.t.Helper()
	r.until(name+" mirrored as "+state, func() bool {
		d = r.call("GET", "/vdisks/"+name, nil, 200)["dtl"].(map[string]any)
		return d["state"] == state
	})
	return d
}

// causes returns the codes of the node's health.
// countsDTL checks that the status counts one vDisk whose copy is in a state, and that a list finds it by that.
func (r *running) countsDTL(state, name string) {
	r.t.Helper()
	status := r.call("GET", "/status", nil, 200)
	for s, n := range status["counts"].(map[string]any)["dtl"].(map[string]any) {
		found := r.call("GET", "/vdisks?dtl="+s, nil, 200)["items"].([]any)
		if s == state && (n != 1.0 || len(found) != 1 || found[0].(map[string]any)["name"] != name) || s != state && (n != 0.0 || len(found) != 0) {
			r.t.Errorf("%v with a copy that is %s, found %v", n, s, found)
		}
	}
	r.call("GET", "/vdisks?dtl=broken", nil, 400)
}

func (r *running) causes() string {
	var all []string
	for _, c := range r.call("GET", "/status", nil, 200)["health"].(map[string]any)["causes"].([]any) {
		all = append(all, c.(map[string]any)["code"].(string))
	}
	return strings.Join(all, " ")
}

// TestDTL: a node mirrors its journals on another one over TLS with the cluster's
// certificates, shows how that goes, goes on when that node is away, and begins again when it
// is back.
func TestDTL(t *testing.T) {
	t.Parallel()
	store := openShared(t)
	r, ca, id, owner := startOwner(t, store, "dtl: {listen: '127.0.0.1:0'}\ndomain: rack1\n")
	mine, peerDir := identityOf(t, ca, id, peerID), t.TempDir()
	p := startPeer(t, store, mine, peerDir, "127.0.0.1:0", false)
	defer func() { p.stop() }()
	if d := r.untilDTL("one", "ok"); d["node"] != "peer" || d["mode"] != "sync" || d["inherited"] != true || d["peer"] != "auto" || d["reason"] != "" {
		t.Errorf("mirrored: %v", d)
	}
	if n := r.call("GET", "/nodes/owner", nil, 200); !strings.HasPrefix(n["dtl"].(string), "127.0.0.1:") || n["domain"] != "rack1" {
		t.Errorf("the owner: %v", n)
	}
	r.until("healthy", func() bool { return !strings.Contains(r.causes(), "dtl") })
	if s := r.metrics(); !strings.Contains(s, `ovgate_dtl_state{vdisk="one",vpool="gold"} 1`) {
		t.Error("the metrics do not say that it is mirrored")
	}
	if u := p.n.host.Usage().DTL; u.Copies != 1 || u.Sessions != 1 {
		t.Errorf("the peer has %+v", u)
	}

	for peer, status := range map[string]int{"owner": 400, "nobody": 404} {
		if e := r.call("PUT", "/vdisks/one/dtl", map[string]any{"peer": peer}, status); e["object"] != "vdisk one" || e["hint"] == "" || e["field"] != "peer" {
			t.Errorf("peer %s: %v", peer, e)
		}
	}
	r.call("PUT", "/vdisks/one/dtl", map[string]any{"mode": "off"}, 200)
	r.untilDTL("one", "off")
	r.until("told as unhealthy", func() bool { return strings.Contains(r.causes(), "dtl_off") })
	r.call("PUT", "/vdisks/one/dtl", map[string]any{"mode": "inherit", "peer": "peer"}, 200)
	r.untilDTL("one", "ok")

	t.Run("strangers", func(t *testing.T) {
		other := signer(t, id)
		for name, c := range map[string]*tls.Config{
			"without a certificate":    {InsecureSkipVerify: true},
			"of another authority":     identityOf(t, other, id, owner).Client(peerID),
			"of a node nobody knows":   identityOf(t, ca, id, "b78ae933-9f21-4541-ad0d-c5572182c19f").Client(peerID),
			"that wants another node":  identityOf(t, ca, id, owner).Client("b78ae933-9f21-4541-ad0d-c5572182c19f"),
			"without TLS":              nil,
			"that gives another name ": identityOf(t, ca, id, owner).Client(peerID),
		} {
			dial := func(ctx context.Context) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.addr)
				if err == nil && c != nil {
					conn = tls.Client(conn, c)
				}
				return conn, err
			}
			client := dtl.NewClient(dtl.ClientOptions{Cluster: id, Node: "somebody", Peer: peerID, Dial: dial, Clock: clock.Real{}, Lost: 500 * time.Millisecond})
			m := client.Begin([16]byte{1}, 1, 4096, 1)
			<-m.Done()
			client.Close()
			if u := p.n.host.Usage().DTL; u.Copies != 1 {
				t.Errorf("a client %s has a copy: %+v", name, u)
			}
		}
	})

	p.stop()
	if d := r.untilDTL("one", "degraded"); d["reason"] == "" {
		t.Errorf("degraded: %v", d)
	}
	r.until("told as unhealthy", func() bool { return strings.Contains(r.causes(), "dtl_degraded") })
	r.countsDTL("degraded", "one")
	r.tells(event.DTLDegraded, event.DTLSynced)
	p = startPeer(t, store, mine, peerDir, p.addr, true)
	r.untilDTL("one", "ok")
	r.countsDTL("ok", "one")
}

// TestDTLClear: journals are mirrored in the clear between nodes that both want that, once they
// have shown their certificates, and with TLS where one does not.
func TestDTLClear(t *testing.T) {
	t.Parallel()
	for _, both := range []bool{true, false} {
		if !both && testing.Short() {
			continue // the link has TLS then, as in TestDTL
		}
		t.Run(fmt.Sprintf("the other one too: %v", both), func(t *testing.T) {
			store := openShared(t)
			r, ca, id, owner := startOwner(t, store, "dtl: {listen: '127.0.0.1:0', clear: true}\n")
			p := startPeer(t, store, identityOf(t, ca, id, peerID), t.TempDir(), "127.0.0.1:0", false, func(c *config) { c.DTL.Clear = both })
			defer p.stop()
			r.untilDTL("one", "ok")
			r.until("its address is known", func() bool { n, ok := p.n.model.Node(owner); return ok && n.DTL != "" })
			conn, err := p.n.dialDTL(t.Context(), owner)
			if err != nil {
				t.Fatal(err)
			}
			if got := conn.(abrupt).Clear(); got != both {
				t.Errorf("in the clear: %v", got)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			// Who is none of them gets no further than before.
			stranger, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer stranger.Close()
			other := p.n.dtlTLS(identityOf(t, signer(t, id), id, owner).Client(peerID))
			if c, err := frames.Secure(t.Context(), stranger, other, false); err == nil {
				if _, err := c.Read(make([]byte, 1)); err == nil {
					t.Error("a stranger is heard")
				}
			}
		})
	}
}

// metrics returns what a scraper reads.
func (r *running) metrics() string {
	r.t.Helper()
	return r.bearer(r.read("admin.token")).expect("GET", "/metrics", "", 200, "")["text"].(string)
}

// TestDTLConfig: what cannot be is refused with the remedy.
func TestDTLConfig(t *testing.T) {
	for text, want := range map[string]string{
		"dtl: {listen: '10.0.0.1:8600'}":     "TLS only",
		"dtl: {listen: nowhere}":             "not HOST:PORT",
		"paths: some":                        "use all or owner",
		"discovery_chap: some":               "use none, optional or required",
		"dtl: {advertise: ':0'}":             "lacks the host",
		"dtl: {memory: 1}":                   "dtl: memory is 1",
		"dtl: {listem: '127.0.0.1:8600'}":    "not a known key",
		"domain: 'a rack with a long story'": "domain is",
	} {
		config := filepath.Join(t.TempDir(), "ovgate.yaml")
		if err := os.WriteFile(config, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Run(t.Context(), Options{Data: t.TempDir(), Config: config, API: "127.0.0.1:0", ISCSI: []string{"127.0.0.1:0"}, Stdout: &buffer{}, Stderr: &buffer{}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	config := filepath.Join(t.TempDir(), "ovgate.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "dtl: {listen: '%s'}\n", l.Addr()), 0o600); err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), Options{Data: t.TempDir(), Config: config, API: "127.0.0.1:0", ISCSI: []string{"127.0.0.1:0"}, Stdout: &buffer{}, Stderr: &buffer{}})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("an address in use: %v", err)
	}
}
