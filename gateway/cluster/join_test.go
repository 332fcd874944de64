package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// Ids of a cluster and of nodes.
const (
	c1 = "5ac34e14-69af-41c1-8c0c-805371638a41"
	c2 = "5ac34e14-69af-41c1-8c0c-805371638a42"
	n1 = "b78ae933-9f21-4541-ad0d-c5572182c191"
	n2 = "b78ae933-9f21-4541-ad0d-c5572182c192"
	n3 = "b78ae933-9f21-4541-ad0d-c5572182c193"
)

// pair makes a certificate that signs itself.
func pair(t *testing.T, ca bool) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ovgate test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func newAuthority(t *testing.T, cluster string, p tls.Certificate) *Authority {
	t.Helper()
	a, err := NewAuthority(cluster, p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func identity(t *testing.T, a *Authority, node string) *Identity {
	t.Helper()
	key, request, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Sign(request, node, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewIdentity(a.cluster, node, cert, key, a.PEM())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// talk connects a client to a server over TCP and returns the error of each side, and whom
// the server saw.
func talk(t *testing.T, server, client *tls.Config, of *Identity) (peer string, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		raw, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer raw.Close()
		c := tls.Server(raw, server)
		if serverErr = c.SetDeadline(time.Now().Add(patience)); serverErr != nil {
			return
		}
		if serverErr = c.HandshakeContext(t.Context()); serverErr != nil {
			return
		}
		if peer, serverErr = of.Peer(c.ConnectionState()); serverErr == nil {
			_, serverErr = c.Write([]byte("hello"))
		}
	})
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		// A refusal by the server comes with the first read.
		if err = c.SetDeadline(time.Now().Add(patience)); err == nil {
			_, err = io.ReadFull(c, make([]byte, 5))
		}
		if cerr := c.Close(); cerr != nil {
			t.Log(cerr)
		}
	}
	wg.Wait()
	return peer, serverErr, err
}

// TestTrust: nodes of a cluster reach each other, and know who it is; nobody else does, and
// nobody takes another's place.
func TestTrust(t *testing.T) {
	root, other := pair(t, true), pair(t, true)
	a := newAuthority(t, c1, root)
	server := identity(t, a, n1)
	everybody := func(string) bool { return true }
	plain := server.Client(n1)
	plain.GetClientCertificate = nil
	for name, c := range map[string]struct {
		client *tls.Config
		member func(string) bool
		want   string // of the error; empty: they talk
	}{
		"a member":                 {identity(t, a, n2).Client(n1), everybody, ""},
		"one that was removed":     {identity(t, a, n2).Client(n1), func(n string) bool { return n != n2 }, "removed"},
		"asked for another node":   {identity(t, a, n2).Client(n3), everybody, "in place of node"},
		"no certificate":           {plain, everybody, "certificate"},
		"another authority":        {identity(t, newAuthority(t, c1, other), n2).Client(n1), everybody, "not a node of this cluster"},
		"another cluster":          {identity(t, newAuthority(t, c2, root), n2).Client(n1), everybody, "not a node of this cluster"},
		"the authority's own":      {selfSigned(server.Client(n1), root), everybody, "certificate"},
		"one that signed itself":   {selfSigned(server.Client(n1), pair(t, false)), everybody, "certificate"},
		"another one's by the key": {selfSigned(server.Client(n1), other), everybody, "certificate"},
	} {
		peer, serr, cerr := talk(t, server.Server(c.member), c.client, server)
		both := errors.Join(serr, cerr)
		switch {
		case c.want == "" && (both != nil || peer != n2):
			t.Errorf("%s: %q, %v", name, peer, both)
		case c.want != "" && (serr == nil || cerr == nil || !strings.Contains(both.Error(), c.want)):
			t.Errorf("%s: server %v, client %v", name, serr, cerr)
		}
	}
}

func selfSigned(c *tls.Config, p tls.Certificate) *tls.Config {
	c.Certificates, c.GetClientCertificate = []tls.Certificate{p}, nil
	return c
}

// TestSignRefused: what is no request for a node's certificate is not signed, nor is one
// whose sender does not have the key.
func TestSignRefused(t *testing.T) {
	a := newAuthority(t, c1, pair(t, true))
	_, good, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	forged := append([]byte(nil), block.Bytes...)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		request []byte
		node    string
	}{
		"nothing":          {nil, n1},
		"too long":         {append(append([]byte(nil), good...), make([]byte, maxRequest)...), n1},
		"another PEM":      {a.PEM(), n1},
		"no request":       {encodePEM("CERTIFICATE REQUEST", []byte("x")), n1},
		"another key":      {encodePEM("CERTIFICATE REQUEST", forged), n1},
		"a path as a node": {good, "../" + n1},
	} {
		if cert, err := a.Sign(c.request, c.node, time.Now()); err == nil {
			t.Errorf("%s: signed\n%s", name, cert)
		}
	}
	if _, err := NewAuthority(c1, pair(t, false)); err == nil {
		t.Error("a certificate that may not sign is an authority")
	}
}

// joining is a cluster with a gate and a request that passes it.
type joining struct {
	gate  *Gate
	token Token
	now   time.Time
	good  JoinRequest
}

func newJoining(t *testing.T, store kv.Store) *joining {
	t.Helper()
	j := &joining{now: time.Now()}
	nodes, err := model.Open(t.Context(), store, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nodes.CreateNode(t.Context(), model.Node{ID: n1, Name: "alpha"}); err != nil {
		t.Fatal(err)
	}
	j.gate = &Gate{Store: store, Nodes: nodes, Name: "east", Authority: newAuthority(t, c1, pair(t, true)), Version: "v1", Format: 8}
	if j.token, err = NewToken(t.Context(), store, j.gate.Authority, []string{"https://10.0.0.1:8443"}, time.Hour, j.now); err != nil {
		t.Fatal(err)
	}
	_, request, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	j.good = JoinRequest{Token: j.token.ID, Secret: j.token.Secret, Node: n2, Name: "beta", Version: "v1", Format: 8, Clock: j.now, Request: request}
	return j
}

// TestAdmit: each refusal names what to do and uses up nothing; the node that joined may ask
// again, because an answer may be lost; another one may not.
func TestAdmit(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		store := open()
		j := newJoining(t, store)
		for name, c := range map[string]struct {
			change func(*JoinRequest)
			late   time.Duration
			want   string
		}{
			"another token":      {func(r *JoinRequest) { r.Token = "x" }, 0, "not known"},
			"no token":           {func(r *JoinRequest) { r.Token = "" }, 0, "not known"},
			"a token as a path":  {func(r *JoinRequest) { r.Token = "../token/" + r.Token }, 0, "not known"},
			"another secret":     {func(r *JoinRequest) { r.Secret = "x" }, 0, "not known"},
			"a clock ahead":      {func(r *JoinRequest) { r.Clock = r.Clock.Add(MaxSkew + time.Second) }, 0, "NTP"},
			"a clock behind":     {func(r *JoinRequest) { r.Clock = r.Clock.Add(-MaxSkew - time.Second) }, 0, "NTP"},
			"two releases newer": {func(r *JoinRequest) { r.Format += 2 }, 0, "too far"},
			"two releases older": {func(r *JoinRequest) { r.Format -= 2 }, 0, "too far"},
			"a name of another":  {func(r *JoinRequest) { r.Name = "alpha" }, 0, "node_name"},
			"another cluster":    {func(r *JoinRequest) { r.Cluster = "west" }, 0, "of cluster east, not of \"west\""},
			"the id of another":  {func(r *JoinRequest) { r.Node = n1 }, 0, "copy of a data directory"},
			"a name of /":        {func(r *JoinRequest) { r.Name = "a/b" }, 0, "node_name"},
			"no name":            {func(r *JoinRequest) { r.Name = "" }, 0, "node_name"},
			"no id":              {func(r *JoinRequest) { r.Node = "x" }, 0, "id"},
			"no request":         {func(r *JoinRequest) { r.Request = nil }, 0, "request"},
			"an old token":       {func(r *JoinRequest) { r.Clock = r.Clock.Add(time.Hour) }, time.Hour, "expired"},
		} {
			r := j.good
			c.change(&r)
			if _, err := j.gate.Admit(t.Context(), r, j.now.Add(c.late)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for range 2 {
			a, err := j.gate.Admit(t.Context(), j.good, j.now)
			if err != nil {
				t.Fatal(err)
			}
			if err := j.token.CheckAnswer(a); err != nil {
				t.Error(err)
			}
			forged := a
			forged.CA = newAuthority(t, c1, pair(t, true)).PEM()
			if err := j.token.CheckAnswer(forged); err == nil {
				t.Error("an answer of another authority is taken")
			}
			forged = a
			forged.Cluster = c2
			if err := j.token.CheckAnswer(forged); err == nil {
				t.Error("an answer of another cluster is taken")
			}
		}
		if n, ok := j.gate.Nodes.FindNode("beta"); !ok || n.ID != n2 {
			t.Errorf("the node that joined is %+v, %v", n, ok)
		}
		r := j.good
		r.Node, r.Name = n3, "gamma"
		if _, err := j.gate.Admit(t.Context(), r, j.now); !errors.Is(err, ErrTokenUsed) {
			t.Errorf("the token again, by another node: %v", err)
		}
		// Nothing in the registry lets its reader join.
		all, _, err := store.Range(t.Context(), "", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if strings.Contains(string(e.Value), j.token.Secret) {
				t.Errorf("the secret is in %s", e.Key)
			}
		}
	})
}

// TestAdmitRace: of many nodes that use one token at once, one joins.
func TestAdmitRace(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		j := newJoining(t, open())
		var mu sync.Mutex
		var wg sync.WaitGroup
		joined := 0
		for i := range 8 {
			wg.Go(func() {
				r := j.good
				r.Node, r.Name = fmt.Sprint(n2[:len(n2)-1], i+2), fmt.Sprint("node-", i)
				_, err := j.gate.Admit(t.Context(), r, j.now)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					joined++
				case !errors.Is(err, ErrTokenUsed):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if joined != 1 {
			t.Errorf("%d nodes joined", joined)
		}
	})
}

// TestAdmitUnknown: a token whose use got no answer lets its node in when it asks again, and
// no other one.
func TestAdmitUnknown(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		lost := &faulty{Store: open()}
		j := newJoining(t, lost)
		lost.unknown = true
		if _, err := j.gate.Admit(t.Context(), j.good, j.now); err == nil {
			t.Fatal("admitted without an answer")
		}
		r := j.good
		r.Node, r.Name = n3, "gamma"
		if _, err := j.gate.Admit(t.Context(), r, j.now); !errors.Is(err, ErrTokenUsed) {
			t.Errorf("another node: %v", err)
		}
		if _, err := j.gate.Admit(t.Context(), j.good, j.now); err != nil {
			t.Errorf("asked again: %v", err)
		}
	})
}

// TestTokens: how many wait is bounded, and those that expired make room.
func TestTokens(t *testing.T) {
	etcdtest.EachStore(t, func(t *testing.T, open func() kv.Store) {
		j := newJoining(t, open())
		urls := []string{"https://10.0.0.1:8443"}
		more := func(now time.Time) error {
			_, err := NewToken(t.Context(), j.gate.Store, j.gate.Authority, urls, time.Hour, now)
			return err
		}
		for i := 1; i < tokensMost; i++ {
			if err := more(j.now); err != nil {
				t.Fatal(err)
			}
		}
		if err := more(j.now); !errors.Is(err, ErrTokensMany) {
			t.Errorf("one more: %v", err)
		}
		late := j.now.Add(time.Hour + tokenKept + time.Second)
		if err := more(late); err != nil {
			t.Error(err)
		}
		left, _, err := j.gate.Store.Range(t.Context(), tokenPrefix, "", 0)
		if err != nil || len(left) != 1 {
			t.Errorf("%d tokens are left, %v", len(left), err)
		}
		for _, life := range []time.Duration{0, -time.Second, TokenLifeMost + 1} {
			if _, err := NewToken(t.Context(), j.gate.Store, j.gate.Authority, urls, life, late); err == nil {
				t.Errorf("a token for %v", life)
			}
		}
	})
}

// FuzzParseToken: a text is a token that reads the same again, or is refused.
func FuzzParseToken(f *testing.F) {
	f.Add(Token{ID: "i", Secret: "s", Cluster: c1, CA: strings.Repeat("0", 64), URLs: []string{"https://10.0.0.1:8443"}}.String())
	f.Add(tokenText)
	f.Add(tokenText + "e30")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			return
		}
		again, err := ParseToken(token.String())
		if err != nil && len(token.String()) <= maxTokenText || err == nil && again.String() != token.String() {
			t.Fatalf("%q became %q, %v", token, again, err)
		}
	})
}

// TestParseToken: the golden text of a token is read for ever.
func TestParseToken(t *testing.T) {
	const golden = "ovgate-join.eyJpIjoiSUQiLCJzIjoiU0VDUkVUIiwiYyI6IjVhYzM0ZTE0LTY5YWYtNDFjMS04YzBjLTgwNTM3MTYzOGE0MSIsImYiOiIwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwIiwidSI6WyJodHRwczovLzEwLjAuMC4xOjg0NDMiXX0"
	want := Token{ID: "ID", Secret: "SECRET", Cluster: c1, CA: strings.Repeat("0", 64), URLs: []string{"https://10.0.0.1:8443"}}
	if got, err := ParseToken(" " + golden + "\n"); err != nil || got.String() != want.String() || want.String() != golden {
		t.Errorf("%+v, %v; want %s", got, err, want)
	}
	for _, bad := range []string{"", "x", tokenText, tokenText + "!", golden[:len(golden)-3], tokenText + strings.Repeat("A", maxTokenText)} {
		if token, err := ParseToken(bad); err == nil {
			t.Errorf("%.40q is token %+v", bad, token)
		}
	}
}
