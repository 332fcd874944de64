package node

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// site is an authority of the site, and the files that a node's configuration names.
type site struct {
	t                *testing.T
	ca               authority
	certificate, key string
}

func newSite(t *testing.T) site {
	t.Helper()
	dir := t.TempDir()
	ca, err := ownCA(&dataDir{path: dir}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return site{t, ca, filepath.Join(dir, "site.pem"), filepath.Join(dir, "site-key.pem")}
}

// sign writes a certificate that ends so much earlier or later than a new one.
func (s site) sign(host string, later time.Duration) {
	s.t.Helper()
	if err := makeServer(s.certificate, s.key, s.ca, []string{host}, time.Now().Add(later)); err != nil {
		s.t.Fatal(err)
	}
}

func (s site) read(file string) string {
	s.t.Helper()
	b, err := os.ReadFile(file)
	s.must(err)
	return string(b)
}

func (s site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s site) config() string {
	return fmt.Sprintf("tls: {certificate: %q, key: %q}\n", s.certificate, s.key)
}

// dialTLS connects by a name, or by address, and does not look at whom it is shown.
func (r *running) dialTLS(name string) *tls.Conn {
	r.t.Helper()
	u, err := url.Parse(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := tls.Dial("tcp", u.Host, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// shown is the certificate that those are shown who ask for a name.
func (r *running) shown(name string) *x509.Certificate {
	r.t.Helper()
	c := r.dialTLS(name)
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

// Certificates change while the node runs: its own is made anew when its files are gone, the
// site's is read again. Connections go on, and what does not fit changes nothing.
func TestCertificates(t *testing.T) {
	const name = "console.example"
	s := newSite(t)
	s.sign(name, 0)
	conf := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, conf, s.config())
	r := start(t, Options{Data: t.TempDir(), Config: conf, lookCertificates: 20 * time.Millisecond})
	open := r.dialTLS(name)
	defer open.Close()
	own, first := r.shown(""), r.shown(name)
	if err := first.CheckSignatureFrom(s.ca.cert); err != nil || first.VerifyHostname(name) != nil {
		t.Errorf("by its name: %s, %v", first.Subject, err)
	}
	for _, other := range []string{"localhost", "elsewhere.example"} {
		if !r.shown(other).Equal(own) {
			t.Errorf("as %s the node does not show its own certificate", other)
		}
	}

	for _, f := range []string{"server.pem", "server-key.pem"} {
		if err := os.Remove(filepath.Join(r.dir, "tls", f)); err != nil {
			t.Fatal(err)
		}
	}
	r.until("renewed", func() bool { return !r.shown("").Equal(own) })
	if _, err := r.shown("").Verify(x509.VerifyOptions{Roots: r.roots(), DNSName: "127.0.0.1"}); err != nil {
		t.Errorf("the new one: %v", err)
	}
	former := s.read(s.certificate)
	s.sign(name, 0)
	r.until("read again", func() bool { return !r.shown(name).Equal(first) })
	second := r.shown(name)
	r.tells(event.CertificateRenewed)

	// What the files hold goes from one thing that cannot be used to another: at no time
	// between is there a certificate with its key.
	whole, key := s.read(s.certificate), s.read(s.key)
	ip := site{t: t, ca: s.ca, certificate: filepath.Join(t.TempDir(), "c.pem"), key: filepath.Join(t.TempDir(), "k.pem")}
	ip.sign("192.0.2.7", 0)
	for _, c := range []struct {
		says  string
		spoil func()
	}{
		{"no such file", func() { s.must(os.Remove(s.certificate)) }},
		{"does not match", func() { write(t, s.certificate, former) }},
		{"chmod o= ", func() {
			s.must(os.Chmod(s.key, 0o644))
			write(t, s.certificate, whole)
		}},
		{"longer than", func() { write(t, s.certificate, strings.Repeat("x", maxPEM+1)) }},
		{"failed to find any PEM data", func() {
			write(t, s.key, key[:len(key)/2])
			s.must(os.Chmod(s.key, 0o600))
			write(t, s.certificate, whole)
		}},
		{"no name of a host", func() {
			write(t, s.certificate, ip.read(ip.certificate))
			write(t, s.key, ip.read(ip.key))
		}},
	} {
		c.spoil()
		r.until("told: "+c.says, func() bool { return strings.Contains(r.siteCause(), c.says) })
		if !r.shown(name).Equal(second) {
			t.Errorf("%s: another certificate is shown", c.says)
		}
	}
	s.sign(name, 0)
	r.until("mended", func() bool { return r.siteCause() == "" && !r.shown(name).Equal(second) })

	req, err := http.NewRequest("GET", "https://"+name+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := req.Write(open); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(open), req)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("the connection from before: %v, %v", res, err)
	}
}

// siteCause is what health says of the site's certificate.
func (r *running) siteCause() string {
	r.t.Helper()
	for _, c := range r.call("GET", "/status", nil, 200)["health"].(map[string]any)["causes"].([]any) {
		if c := c.(map[string]any); c["code"] == "site_certificate" {
			return c["text"].(string)
		}
	}
	return ""
}

// Those who join know a node by the cluster's authority, also where it shows the site's
// certificate under the name that leads to it.
func TestJoinBesideSiteCertificate(t *testing.T) {
	m := etcdtest.Serve(t)
	s := newSite(t)
	s.sign("localhost", 0)
	conf := nodeConfig(t, m, "site/", "alpha")
	b, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	write(t, conf, string(b)+s.config())
	r := start(t, Options{Data: t.TempDir(), Config: conf})
	r.call("POST", "/cluster", map[string]any{"name": "east"}, 200)
	token, err := cluster.ParseToken(r.call("POST", "/cluster/tokens", map[string]any{"lifeMs": 60_000}, 201)["token"].(string))
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Replace(r.url, "127.0.0.1", "localhost", 1)
	if err := r.shown("localhost").CheckSignatureFrom(s.ca.cert); err != nil {
		t.Fatalf("the site's certificate is not shown: %v", err)
	}
	if shown, err := token.Reach(t.Context(), at); err != nil || strings.TrimSpace(string(shown)) != r.read("tls/ca.pem") {
		t.Errorf("%s shows %s, %v", at, shown, err)
	}
}
