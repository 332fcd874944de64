package alert

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func cause(level observe.Level, code, object string) Cause {
	return Cause{observe.Cause{State: level, Code: code, Object: object, Text: code + " is wrong", Hint: "mend it"}, "alpha"}
}

// world is a Service whose surroundings a test decides. Steps are taken by hand.
type world struct {
	t      *testing.T
	clk    *clock.Manual
	s      *Service
	causes []Cause
	config Config
	leads  bool
	stored []byte

	mu   sync.Mutex
	sent []string // "channel: state code object, ..."
	fail map[string]error
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, clk: clock.NewManual(begin), leads: true, fail: map[string]error{}}
	w.config = Config{Rules: Defaults(), Channels: []Channel{{ID: "1", Name: "mail"}}}
	w.restart()
	return w
}

func (w *world) restart() {
	w.s = New(Options{
		Clock: w.clk, Causes: func(context.Context) []Cause { return w.causes }, Config: func() Config { return w.config }, Leads: func(context.Context) bool { return w.leads },
		Load: func(context.Context) ([]byte, error) { return w.stored, nil },
		Save: func(_ context.Context, b []byte) error { w.mu.Lock(); defer w.mu.Unlock(); w.stored = b; return nil },
		Send: func(_ context.Context, c Channel, m Message) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if err := w.fail[c.Name]; err != nil {
				return err
			}
			var items []string
			for _, i := range m.Items {
				items = append(items, i.State+" "+i.Code+" "+i.Object)
			}
			w.sent = append(w.sent, c.Name+": "+strings.Join(items, ", "))
			return nil
		},
	})
}

// after lets time pass, looks, and returns what was sent.
func (w *world) after(d time.Duration, causes ...Cause) string {
	w.t.Helper()
	w.clk.Advance(d)
	w.causes = causes
	w.s.look(w.t.Context())
	w.s.sends.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.sent)
	out := strings.Join(w.sent, "; ")
	w.sent = nil
	return out
}

func (w *world) want(got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("sent %q, want %q", got, want)
	}
}

func TestTold(t *testing.T) {
	bad, warn := cause(observe.Bad, "backend_away", "vpool gold"), cause(observe.Warning, "read_cache", "")
	lost := cause(observe.Bad, "vdisk_lost_tail", "vdisk demo")
	w := newWorld(t)
	w.want(w.after(0, bad, warn), "")
	w.want(w.after(30*time.Second, bad, warn), "")
	w.want(w.after(30*time.Second, bad, warn), "mail: error backend_away vpool gold")
	w.want(w.after(time.Minute, bad, warn), "")
	w.want(w.after(time.Minute, bad, warn, lost), "mail: error vdisk_lost_tail vdisk demo")
	w.want(w.after(12*time.Minute, bad, warn, lost), "mail: warning read_cache node alpha")
	less := bad
	less.State = observe.Warning
	w.want(w.after(time.Minute, less, warn, lost), "mail: warning backend_away vpool gold")
	w.want(w.after(time.Minute, warn, lost), "mail: over backend_away vpool gold")
	w.want(w.after(time.Minute, warn, lost), "")
	w.want(w.after(24*time.Hour, warn, lost), "mail: error vdisk_lost_tail vdisk demo") // reminder
	w.restart()
	w.want(w.after(time.Minute, warn, lost), "")
	w.want(w.after(time.Minute), "mail: over read_cache node alpha, over vdisk_lost_tail vdisk demo")
	// What ended before it was told is told neither way.
	w.want(w.after(time.Minute, bad), "")
	w.want(w.after(30*time.Second), "")
	w.want(w.after(time.Minute, bad), "")
	w.want(w.after(time.Minute, bad), "mail: error backend_away vpool gold")
}

func TestRules(t *testing.T) {
	c := cause(observe.Warning, "read_cache", "")
	w := newWorld(t)
	w.config.Rules = append([]Rule{{Name: "cache", Codes: []string{"read_*"}, After: time.Hour}}, Defaults()...)
	w.want(w.after(0, c), "")
	w.want(w.after(30*time.Minute, c), "")
	w.want(w.after(30*time.Minute, c), "mail: warning read_cache node alpha")
	w.want(w.after(1000*time.Hour, c), "") // no reminder
	w.config.Rules[0].Off = true
	w.want(w.after(time.Hour), "mail: over read_cache node alpha")
	w.want(w.after(time.Hour, c), "")
	w.want(w.after(100*time.Hour, c), "")
}

// TestThresholds: what nodes tell of one threshold is one alert, told at once, which goes on
// while one of them tells it.
func TestThresholds(t *testing.T) {
	of := func(node, text string) Cause {
		c := cause(observe.Warning, observe.ThresholdCode, "threshold slow")
		c.Text, c.Node = text, node
		return c
	}
	a, b, same := of("alpha", "slow: vdisk a"), of("beta", "slow: vdisk b"), of("gamma", "slow: vdisk b")
	w := newWorld(t)
	w.want(w.after(0, a, b, same), "mail: warning threshold threshold slow")
	l, err := w.s.Alerts(t.Context())
	if err != nil || len(l) != 1 || l[0].Text != "slow: vdisk a; slow: vdisk b" || l[0].Rule != "threshold" {
		t.Fatalf("%+v: %v", l, err)
	}
	w.want(w.after(time.Minute, b), "")
	w.want(w.after(time.Minute, a, b), "")
	w.want(w.after(time.Minute), "mail: over threshold threshold slow")
	w.config.Silences = []Silence{{Object: "threshold s*", Until: begin.Add(time.Hour)}}
	w.want(w.after(time.Minute, a), "")
	w.want(w.after(time.Hour, a), "mail: warning threshold threshold slow")
}

func TestSilence(t *testing.T) {
	c := cause(observe.Bad, "backend_away", "vpool gold")
	w := newWorld(t)
	w.config.Silences = []Silence{{Object: "vpool g*", Until: begin.Add(time.Hour)}, {Code: "none", Until: begin.Add(100 * time.Hour)}}
	w.want(w.after(0, c), "")
	w.want(w.after(59*time.Minute, c), "")
	w.want(w.after(time.Minute, c), "mail: error backend_away vpool gold")
}

// TestFailing: a channel that fails is tried later each time and told the present state once
// it works; another one hears everything meanwhile.
func TestFailing(t *testing.T) {
	a, b := cause(observe.Bad, "vdisk_damaged", "vdisk a"), cause(observe.Bad, "vdisk_damaged", "vdisk b")
	w := newWorld(t)
	w.config.Channels = append(w.config.Channels, Channel{ID: "2", Name: "hook"})
	w.fail["mail"] = errors.New("no")
	w.want(w.after(0, a), "hook: error vdisk_damaged vdisk a")
	if f := w.s.Failures(); len(f) != 1 || f[0].Channel != "mail" {
		t.Fatalf("%v", f)
	}
	w.want(w.after(retryFirst, a, b), "hook: error vdisk_damaged vdisk b")
	w.want(w.after(retryFirst, b), "hook: over vdisk_damaged vdisk a")
	delete(w.fail, "mail")
	w.want(w.after(0, b), "")
	w.want(w.after(retryFirst, b), "mail: error vdisk_damaged vdisk b")
	if f := w.s.Failures(); len(f) != 0 {
		t.Errorf("%v", f)
	}
	w.want(w.after(time.Minute), "hook: over vdisk_damaged vdisk b; mail: over vdisk_damaged vdisk b")
	if l, err := w.s.Alerts(t.Context()); err != nil || len(l) != 1 { // gone with the next look
		t.Errorf("%v %v", l, err)
	}
	w.after(time.Minute)
	if l, err := w.s.Alerts(t.Context()); err != nil || len(l) != 0 {
		t.Errorf("%v %v", l, err)
	}
}

// TestSlow: a channel that does not answer delays no other one, and has one delivery at a time.
func TestSlow(t *testing.T) {
	w := newWorld(t)
	w.config.Channels = append(w.config.Channels, Channel{ID: "2", Name: "slow"})
	send, hangs, stuck, calls := w.s.o.Send, make(chan struct{}, 10), make(chan struct{}), 0
	told := make(chan struct{})
	w.s.o.Send = func(ctx context.Context, c Channel, m Message) error {
		if c.Name == "slow" {
			calls++
			hangs <- struct{}{}
			<-stuck
		}
		if c.Name == "mail" {
			defer close(told)
		}
		return send(ctx, c, m)
	}
	w.causes = []Cause{cause(observe.Bad, "vdisk_damaged", "vdisk a")}
	w.s.look(t.Context())
	<-hangs
	for range 3 {
		w.clk.Advance(lookEvery)
		w.s.look(t.Context())
	}
	<-told // while the other one hangs
	close(stuck)
	w.s.sends.Wait()
	if calls != 1 {
		t.Errorf("%d deliveries at a time", calls)
	}
}

// TestHandover: of two nodes the one that leads tells, and the next one knows what was told.
func TestHandover(t *testing.T) {
	c := cause(observe.Bad, "vdisk_damaged", "vdisk a")
	w := newWorld(t)
	w.leads = false
	w.want(w.after(time.Hour, c), "")
	w.leads = true
	w.want(w.after(time.Minute, c), "mail: error vdisk_damaged vdisk a")
	w.leads = false
	w.after(time.Minute)
	w.restart()
	w.leads = true
	w.want(w.after(time.Minute, c), "")
	w.want(w.after(time.Minute), "mail: over vdisk_damaged vdisk a")
}

func TestBounds(t *testing.T) {
	w := newWorld(t)
	var causes []Cause
	for i := range maxAlerts + 100 {
		causes = append(causes, cause(observe.Bad, "vdisk_damaged", fmt.Sprint("vdisk ", i)))
	}
	n := strings.Count(w.after(0, causes...), "vdisk_damaged")
	if n != perMessage {
		t.Errorf("%d alerts in a message", n)
	}
	for range maxAlerts/perMessage + 2 {
		n += strings.Count(w.after(lookEvery, causes...), "vdisk_damaged")
	}
	if n != maxAlerts {
		t.Errorf("%d alerts told, want %d", n, maxAlerts)
	}
}

// server is an HTTP server whose certificate c trusts.
func server(t *testing.T, h http.HandlerFunc) (c Channel) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return Channel{Kind: KindWebhook, Secret: s.URL + "/hook/s3cr3t", CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))}
}

func example() Message {
	a := Alert{Code: "backend_away", Object: "vpool <gold>", Level: observe.Bad, Text: "The backend of vPool gold does not answer: größer\r\nBcc: x@example.org", Hint: "bring it back", Since: begin}
	return messageOf([]Alert{a})
}

func TestWebhook(t *testing.T) {
	var got []string
	status := 200
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/hook/s3cr3t" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v %v", r.URL.Path, r.Header, err)
		}
		got = append(got, string(b))
		w.Header().Set("Location", "https://127.0.0.1:1/")
		w.WriteHeader(status)
		fmt.Fprint(w, "  invalid\n payload"+strings.Repeat("x", 10_000))
	})
	if err := Send(t.Context(), c, example()); err != nil {
		t.Fatal(err)
	}
	c.Format = FormatSlack
	if err := Send(t.Context(), c, example()); err != nil {
		t.Fatal(err)
	}
	var m Message
	var s struct{ Text string }
	if err := errors.Join(json.Unmarshal([]byte(got[0]), &m), json.Unmarshal([]byte(got[1]), &s)); err != nil {
		t.Fatal(err)
	}
	if len(m.Items) != 1 || m.Items[0].Code != "backend_away" || m.Items[0].State != "error" || !strings.Contains(m.Text, "Remedy: bring it back") {
		t.Errorf("%+v", m)
	}
	if !strings.HasPrefix(s.Text, "*ovgate: error: The backend") || !strings.Contains(s.Text, "vpool &lt;gold&gt;") {
		t.Errorf("%q", s.Text)
	}
	for _, status = range []int{302, 400, 404, 500, 503} {
		err := Send(t.Context(), c, example())
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint(status)) || !strings.Contains(err.Error(), "invalid payload") || len(err.Error()) > 400 {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// TestWebhookAway: whatever a server does instead of an answer ends in an error that does not
// tell the URL.
func TestWebhookAway(t *testing.T) {
	release := make(chan struct{})
	never := server(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	cut := server(t, func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
	foreign := never
	foreign.CA = ""
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := Channel{Kind: KindWebhook, Secret: "http://" + l.Addr().String() + "/s3cr3t"}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Channel{
		"never": never, "cut": cut, "unknown certificate": foreign, "refused": refused,
		"no URL": {Kind: KindWebhook, Secret: "https://s3cr3t\x7f"}, "no scheme": {Kind: KindWebhook, Secret: "s3cr3t"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := Send(ctx, c, example())
		cancel()
		if err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", name, err)
		}
	}
	close(release)
}

// mailServer speaks SMTP with one client at a time.
type mailServer struct {
	l        net.Listener
	tls      *tls.Config
	implicit bool
	noTLS    bool
	silent   string // the command that it never answers
	refuse   string // the command that it refuses

	mu    sync.Mutex
	lines []string
	done  sync.WaitGroup
}

// mailer starts a mail server, and returns a channel to it.
func mailer(t *testing.T, s *mailServer) Channel {
	t.Helper()
	h := httptest.NewUnstartedServer(nil)
	h.StartTLS()
	s.tls = &tls.Config{Certificates: h.TLS.Certificates}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	h.Close()
	var err error
	if s.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.done.Go(func() {
		for {
			conn, err := s.l.Accept()
			if err != nil {
				return
			}
			s.serve(conn)
		}
	})
	t.Cleanup(func() { _ = s.l.Close(); s.done.Wait() })
	return Channel{
		Kind: KindEmail, Host: "127.0.0.1", Port: s.l.Addr().(*net.TCPAddr).Port, Security: StartTLS, CA: string(ca),
		User: "ovgate", Secret: "s3cr3t", From: "ovgate@example.org", To: []string{"anna@example.org", "bert@example.org"},
	}
}

func (s *mailServer) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	secure := s.implicit
	if secure {
		conn = tls.Server(conn, s.tls)
	}
	r := bufio.NewReader(conn)
	say := func(format string, a ...any) { fmt.Fprintf(conn, format+"\r\n", a...) }
	say("220 mail.example.org ESMTP")
	data := false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		s.mu.Lock()
		s.lines = append(s.lines, line)
		s.mu.Unlock()
		verb, _, _ := strings.Cut(line, " ")
		switch {
		case s.silent != "" && !data && verb == s.silent:
			_, _ = r.ReadByte() // until the client goes
			return
		case s.refuse != "" && !data && verb == s.refuse:
			say("550 5.7.1 not here")
		case data && line == ".":
			data = false
			if s.silent == "." {
				_, _ = r.ReadByte()
				return
			}
			say("250 taken")
		case data:
		case verb == "EHLO":
			say("250-mail.example.org")
			if !secure && !s.noTLS {
				say("250-STARTTLS")
			}
			say("250 AUTH PLAIN")
		case verb == "STARTTLS":
			say("220 go on")
			conn = tls.Server(conn, s.tls)
			r, secure = bufio.NewReader(conn), true
		case verb == "AUTH":
			say("235 known")
		case verb == "DATA":
			data = true
			say("354 go on")
		case verb == "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (s *mailServer) heard() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

func TestMail(t *testing.T) {
	for name, implicit := range map[string]bool{StartTLS: false, TLS: true} {
		s := &mailServer{implicit: implicit}
		c := mailer(t, s)
		c.Security = name
		if err := Send(t.Context(), c, example()); err != nil {
			t.Fatal(err)
		}
		got := s.heard()
		for _, want := range []string{
			"MAIL FROM:<ovgate@example.org>", "RCPT TO:<anna@example.org>", "RCPT TO:<bert@example.org>", "Subject: =?utf-8?q?ovgate:_error:_The_backend",
			"AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00ovgate\x00s3cr3t")),
		} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", name, want, got)
			}
		}
		_, body, _ := strings.Cut(got, "\n\n")
		text, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(strings.Split(body, "\n.")[0], "\n", ""))
		if err != nil || !strings.Contains(string(text), "größer") || !strings.Contains(string(text), "Remedy: bring it back") {
			t.Errorf("%s: %v %s", name, err, text)
		}
		if strings.Contains(got, "\nBcc:") || strings.Contains(got, "STARTTLS") == implicit {
			t.Errorf("%s:\n%s", name, got)
		}
	}
}

func TestMailFails(t *testing.T) {
	for _, verb := range []string{"EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA"} {
		c := mailer(t, &mailServer{refuse: verb})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := Send(ctx, c, example()); err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("refuses %s: %v", verb, err)
		}
		cancel()
	}
	for _, verb := range []string{"EHLO", "STARTTLS", "AUTH", "MAIL", "DATA", "."} {
		c := mailer(t, &mailServer{silent: verb})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if err := Send(ctx, c, example()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("silent at %s: %v", verb, err)
		}
		cancel()
	}
	// Neither the password nor the message goes out in the clear, nor to somebody else.
	s := &mailServer{noTLS: true}
	c := mailer(t, s)
	if err := Send(t.Context(), c, example()); err == nil || !strings.Contains(err.Error(), "STARTTLS") || strings.Contains(s.heard(), "AUTH") {
		t.Errorf("%v\n%s", err, s.heard())
	}
	s = &mailServer{}
	c = mailer(t, s)
	c.CA = ""
	if err := Send(t.Context(), c, example()); err == nil || strings.Contains(s.heard(), "AUTH") {
		t.Errorf("%v\n%s", err, s.heard())
	}
}
