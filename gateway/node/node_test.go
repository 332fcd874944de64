package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) {
	serveChild()
	leaktest.Main(m)
}

// patience bounds waits on things that take milliseconds, seconds on a busy machine; a test that needs it
// has failed.
const patience = 3 * time.Minute

// running is a node in this process.
type running struct {
	t    *testing.T
	dir  string
	url  string
	http *http.Client
	out  *buffer // standard output
	log  *buffer
	stop func() error
	over chan struct{} // closed when it ended
	late bool          // it cannot stop in an orderly way, and says so
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a node on free ports until the test ends or stop is called.
func start(t *testing.T, o Options) *running {
	t.Helper()
	r := &running{t: t, dir: o.Data, out: &buffer{}, log: &buffer{}, over: make(chan struct{})}
	if o.API == "" {
		o.API = "127.0.0.1:0"
	}
	if o.ISCSI == nil {
		o.ISCSI = []string{"127.0.0.1:0"}
	}
	o.Stdout, o.Stderr = r.out, r.log
	ready := make(chan string, 1)
	o.Ready = func(url string) { ready <- url }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, o)
		close(r.over)
	}()
	var once sync.Once
	var result error
	r.stop = func() error {
		once.Do(func() {
			cancel()
			if r.http != nil {
				r.http.CloseIdleConnections()
			}
			result = <-ended
		})
		return result
	}
	t.Cleanup(func() {
		if err := r.stop(); (err != nil) != r.late {
			t.Errorf("node ended with: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", r.log)
		}
	})
	select {
	case r.url = <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("node did not start: %v\n%s", err, r.log)
	case <-time.After(patience):
		t.Fatalf("node is not ready\n%s", r.log)
	}
	r.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots()}, ForceAttemptHTTP2: true}, Timeout: patience}
	return r
}

func (r *running) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	if b, err := os.ReadFile(filepath.Join(r.dir, "tls/ca.pem")); err == nil {
		pool.AppendCertsFromPEM(b)
	}
	return pool
}

func (r *running) read(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// try makes a request as the local operator.
func (r *running) try(method, path string, in any) (int, []byte) {
	r.t.Helper()
	status, b, err := r.ask(method, path, in)
	if err != nil {
		r.t.Fatal(err)
	}
	return status, b
}

// ask is try for a node that may be stopped.
func (r *running) ask(method, path string, in any) (int, []byte, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, r.url+"/api/v1"+path, body)
	if err != nil {
		return 0, nil, err
	}
	token, err := os.ReadFile(filepath.Join(r.dir, "admin.token"))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	req.Header.Set("Content-Type", "application/json")
	res, err := r.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

// call is try for a status known beforehand; it decodes the JSON answer.
func (r *running) call(method, path string, in any, want int) map[string]any {
	r.t.Helper()
	status, b := r.try(method, path, in)
	if status != want {
		r.t.Fatalf("%s %s: %d, want %d: %s", method, path, status, want, b)
	}
	var out map[string]any
	if len(b) > 0 {
		if err := json.Unmarshal(b, &out); err != nil {
			r.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
	return out
}

func (r *running) pool(name, dir string) {
	r.t.Helper()
	r.call("POST", "/vpools", map[string]any{"name": name, "backend": map[string]any{"kind": "local", "path": dir}}, 201)
}

func (r *running) disk(name, pool string, size int64) string {
	r.t.Helper()
	return r.call("POST", "/vdisks", map[string]any{"name": name, "vpool": pool, "size": size}, 201)["id"].(string)
}

// TestRestartKeepsEverything: two starts of one data directory show the same
// vPool, vDisk, target name, secret and certificate authority.
func TestRestartKeepsEverything(t *testing.T) {
	dir, far := t.TempDir(), t.TempDir()
	r := start(t, Options{Data: dir})
	if !strings.HasPrefix(r.out.String(), "set-up token: ovs_") {
		t.Errorf("standard output is %q", r.out)
	}
	r.pool("default", far)
	id := r.disk("demo", "default", 1<<30)
	conn := r.call("POST", "/vdisks/demo/publish", map[string]any{"open": true}, 200)
	ca, token := r.read("tls/ca.pem"), r.read("admin.token")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.log.String(), "msg=stopped") {
		t.Errorf("log does not end with stopped:\n%s", r.log)
	}
	s := start(t, Options{Data: dir})
	d := s.call("GET", "/vdisks/"+id, nil, 200)
	if d["state"] != "running" || d["name"] != "demo" || d["size"] != float64(1<<30) {
		t.Errorf("after the restart the vDisk is %v", d)
	}
	again := s.call("POST", "/vdisks/demo/publish", nil, 200)
	for _, k := range []string{"iqn", "chapUser", "chapSecret"} {
		if conn[k] != again[k] || conn[k] == "" {
			t.Errorf("%s was %v and is %v", k, conn[k], again[k])
		}
	}
	if s.read("tls/ca.pem") != ca || s.read("admin.token") != token {
		t.Error("certificate authority or token changed")
	}
	if targets := s.call("GET", "/targets", nil, 200)["items"].([]any); len(targets) != 1 {
		t.Errorf("targets: %v", targets)
	}
	for _, secret := range []string{conn["chapSecret"].(string), token, strings.TrimPrefix(r.out.String(), "set-up token: ")} {
		secret = strings.TrimSpace(secret)
		if strings.Contains(r.log.String()+s.log.String(), secret) {
			t.Errorf("a secret is in the log")
		}
		b, err := os.ReadFile(filepath.Join(dir, "kv.db"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("a secret is plain in kv.db")
		}
	}
}

// TestLostNode: with the data directory gone, recover brings vPool and vDisk
// back from the backend.
func TestLostNode(t *testing.T) {
	far := t.TempDir()
	r := start(t, Options{Data: t.TempDir()})
	r.pool("gold", far)
	id := r.disk("one", "gold", 1<<30)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{Data: t.TempDir()})
	backend := map[string]any{"kind": "local", "path": far}
	e := s.call("POST", "/vpools", map[string]any{"name": "gold", "backend": backend}, 409)
	if e["code"] != "foreign_root" {
		t.Errorf("creating a vPool over another: %v", e)
	}
	got := s.call("POST", "/vpools/recover", map[string]any{"name": "gold", "backend": backend}, 200)
	disks := got["vdisks"].([]any)
	if len(disks) != 1 || disks[0].(map[string]any)["id"] != id || disks[0].(map[string]any)["state"] != "running" {
		t.Fatalf("recovered: %v", disks)
	}
	again := s.call("POST", "/vpools/recover", map[string]any{"name": "gold", "backend": backend}, 200)
	if d := again["vdisks"].([]any); len(d) != 1 || d[0].(map[string]any)["known"] != true {
		t.Errorf("recovered again: %v", d)
	}
}

// TestStartRefused: what is in the way is named, with the remedy.
func TestStartRefused(t *testing.T) {
	used := start(t, Options{Data: t.TempDir()})
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "x")
	newer := t.TempDir()
	write(t, filepath.Join(newer, "format"), `{"format":3}`)
	foreign := t.TempDir()
	if err := os.Mkdir(filepath.Join(foreign, "photos"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := func(text string) string {
		f := filepath.Join(t.TempDir(), "ovgate.yaml")
		write(t, f, text)
		return f
	}
	for _, c := range []struct {
		name string
		o    Options
		want []string
	}{
		{"second process", Options{Data: used.dir}, []string{"in use", fmt.Sprint(os.Getpid()), "--data"}},
		{"port in use", Options{Data: t.TempDir(), API: strings.TrimPrefix(used.url, "https://")}, []string{"--api", strings.TrimPrefix(used.url, "https://")}},
		{"data is a file", Options{Data: file}, []string{file, "--data"}},
		{"newer format", Options{Data: newer}, []string{"format 3", "upgrade ovgate"}},
		{"foreign directory", Options{Data: foreign}, []string{"photos", "empty directory"}},
		{"no data", Options{}, []string{"--data"}},
		{"bad address", Options{Data: t.TempDir(), API: "8443"}, []string{"8443", "HOST:PORT"}},
		{"plain HTTP to others", Options{Data: t.TempDir(), API: "0.0.0.0:0", Insecure: true}, []string{"loopback", "--insecure"}},
		{"unknown key", Options{Data: t.TempDir(), Config: config("api: 127.0.0.1:0\nportt: 1\n")}, []string{"line 2", "portt"}},
		{"wrong type", Options{Data: t.TempDir(), Config: config("uploads: many\n")}, []string{"line 1", "many"}},
		{"out of range", Options{Data: t.TempDir(), Config: config("uploads: 1000\n")}, []string{"uploads", "256"}},
		{"certificate without key", Options{Data: t.TempDir(), Config: config("tls: {certificate: /etc/ovgate/site.pem}\n")}, []string{"tls", "key is missing", "/etc/ovgate/site.pem"}},
		{"certificate from here", Options{Data: t.TempDir(), Config: config("tls: {certificate: site.pem, key: /etc/ovgate/site-key.pem}\n")}, []string{"tls", "site.pem", "from the root"}},
		{"certificate without TLS", Options{Data: t.TempDir(), Config: config("insecure: true\ntls: {certificate: /c.pem, key: /k.pem}\n")}, []string{"tls", "insecure"}},
		{"name of a node", Options{Data: t.TempDir(), Config: config("node_name: a/b\n")}, []string{"node_name", "a/b"}},
		{"no config file", Options{Data: t.TempDir(), Config: "/nowhere.yaml"}, []string{"/nowhere.yaml", "--config"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := listing(t, c.o.Data)
			if c.o.API == "" {
				c.o.API = "127.0.0.1:0"
			}
			c.o.ISCSI, c.o.Stdout, c.o.Stderr = []string{"127.0.0.1:0"}, io.Discard, io.Discard
			err := Run(t.Context(), c.o)
			if err == nil {
				t.Fatal("it started")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not name %q", err, w)
				}
			}
			if c.name == "newer format" || c.name == "foreign directory" {
				if after := listing(t, c.o.Data); strings.ReplaceAll(after, "lock ", "") != before {
					t.Errorf("the directory was %q and is %q", before, after)
				}
			}
		})
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	s := ""
	for _, e := range entries {
		s += e.Name() + " "
	}
	return s
}

// TestFiles: secrets are closed to others.
func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	r := start(t, Options{Data: dir})
	for name, want := range map[string]os.FileMode{
		".": 0o700, "admin.token": 0o600, "setup.token": 0o600, "seal.key": 0o600, "tls/ca-key.pem": 0o600, "tls/server-key.pem": 0o600, "kv.db": 0o600,
	} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", name, st.Mode().Perm(), want)
		}
	}
	token := r.read("setup.token")
	r.call("POST", "/setup", map[string]any{"token": token, "user": "anna", "password": "correct horse"}, 201)
	if _, err := os.Stat(filepath.Join(dir, "setup.token")); err == nil {
		t.Error("the spent set-up token is still there")
	}
}

// TestInsecure: plain HTTP on loopback, and IPv6.
func TestInsecure(t *testing.T) {
	r := start(t, Options{Data: t.TempDir(), Insecure: true, API: "[::1]:0"})
	if !strings.HasPrefix(r.url, "http://[::1]:") {
		t.Errorf("url is %s", r.url)
	}
	r.call("GET", "/status", nil, 200)
}

// TestUnwritable: the words for a data directory that takes no data.
func TestUnwritable(t *testing.T) {
	for err, want := range map[error]string{
		syscall.ENOSPC: "/d is full", syscall.EDQUOT: "/d is full", syscall.EACCES: "/d is not writable", syscall.EROFS: "/d is not writable",
	} {
		if got := unwritable("/d", &os.PathError{Op: "write", Path: "/d/x", Err: err}); !strings.Contains(got.Error(), want) || !errors.Is(got, err) {
			t.Errorf("%v: %v", err, got)
		}
	}
	if os.Geteuid() == 0 {
		return // root writes everywhere: the rest needs an ordinary user
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	_, err := openDataDir(dir, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("unwritable directory: %v", err)
	}
}

// TestConfig: keys of the file, flags over them, defaults below them.
func TestConfig(t *testing.T) {
	f := filepath.Join(t.TempDir(), "c.yaml")
	write(t, f, "api: 127.0.0.1:1\niscsi: '[::1]:2'\nlog_format: json\nadvertise: [10.0.0.1:3260]\nstop_timeout: 5s\nuploads: 3\n")
	c, err := loadConfig(Options{Config: f, API: "127.0.0.1:9"})
	if err != nil {
		t.Fatal(err)
	}
	if c.API != "127.0.0.1:9" || len(c.ISCSI) != 1 || c.ISCSI[0] != "[::1]:2" || c.LogFormat != "json" || c.StopTimeout != 5*time.Second || c.Uploads != 3 || len(c.Advertise) != 1 {
		t.Errorf("configuration %+v", c)
	}
	write(t, f, "")
	if c, err = loadConfig(Options{Config: f}); err != nil || c.API != DefaultAPI || len(c.ISCSI) != 1 || c.ISCSI[0] != DefaultISCSI || c.StopTimeout != defaultStop {
		t.Errorf("empty configuration: %+v %v", c, err)
	}
	for text, says := range map[string]string{
		"events: {bytes: 1}": "use 16777216 to", "events: {age: 1s}": "events.age", "events: {syslog: 'log.example.org'}": "write udp://HOST:514",
		"events: {syslog_ca: '/x'}": "without events.syslog", "events: {syslog: 'udp://log', syslog_ca: '/x'}": "is for tls",
	} {
		write(t, f, text+"\n")
		if _, err := loadConfig(Options{Config: f}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
	pem := filepath.Join(t.TempDir(), "ca.pem")
	write(t, pem, "no certificate")
	for ca, says := range map[string]string{"/nosuch.pem": "no such file", pem: "has no certificate"} {
		if _, err := (eventsConfig{Syslog: "tls://log", SyslogCA: ca}).sender("", nil); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", ca, err)
		}
	}
	write(t, f, "events: {bytes: 33554432, age: 48h, syslog: 'tls://log.example.org'}\n")
	if c, err = loadConfig(Options{Config: f}); err != nil || c.Events.Bytes != 32<<20 || c.Events.Age != 48*time.Hour {
		t.Errorf("of events: %+v %v", c.Events, err)
	}
	for _, o := range []Options{{LogFormat: "xml"}, {API: "host"}, {API: ":99999"}, {ISCSI: []string{"1:2:3"}}, {ISCSI: []string{"127.0.0.1:1", "127.0.0.1:1"}}, {ISCSI: []string{"127.0.0.1:1", "[::1]:1"}, Advertise: []string{"10.0.0.1:1"}}, {Advertise: []string{"10.0.0.1:1", "10.0.0.1:1"}}, {Advertise: []string{"10.0.0.1"}}, {Advertise: []string{"10.0.0.1:0"}}, {API: "192.0.2.1:1", Insecure: true}, {API: ":1", Insecure: true}} {
		if _, err := loadConfig(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// TestCertificate: kept while it fits, renewed when it ends or hosts are added,
// by the same authority.
func TestCertificate(t *testing.T) {
	d := &dataDir{path: t.TempDir()}
	now := time.Now()
	hosts := certHosts("192.0.2.1:8443", []string{"portal.example:3260", "[::]:1"}, clusterConfig{Listen: "0.0.0.0:7946", Advertise: "192.0.2.2:7946"})
	open := func(hosts []string, now time.Time) (identity, error) {
		ca, err := ownCA(d, now)
		if err != nil {
			return identity{}, err
		}
		return openTLS(d, ca, hosts, now)
	}
	one, err := open(hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := open(hosts, now.Add(time.Hour))
	if err != nil || !bytes.Equal(one.cert.Certificate[0], again.cert.Certificate[0]) {
		t.Errorf("the certificate was not kept: %v", err)
	}
	later, err := open(hosts, one.expiry.Add(-renewBefore/2))
	if err != nil || !later.expiry.After(one.expiry) {
		t.Errorf("the certificate was not renewed: %v", err)
	}
	more, err := open(append(hosts, "other.example"), now)
	for _, host := range []string{"other.example", "192.0.2.1", "192.0.2.2", "portal.example"} {
		if err != nil || more.cert.Leaf.VerifyHostname(host) != nil {
			t.Errorf("%s was not added: %v", host, err)
		}
	}
	if _, err := open(hosts, now.Add(caLife+time.Hour)); err == nil || !strings.Contains(err.Error(), "ca.pem") {
		t.Errorf("with the authority ended: %v", err)
	}
}

// TestNotify: systemd hears READY and STOPPING.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	r := start(t, Options{Data: t.TempDir()})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		b := make([]byte, 64)
		n, err := c.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("heard %q %v, want %s", b[:n], err, want)
		}
	}
}
