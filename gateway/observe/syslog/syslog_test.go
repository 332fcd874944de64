package syslog

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience bounds waits on what takes milliseconds.
const patience = 3 * time.Minute

func happened(n int) event.Event {
	return event.Event{Seq: uint64(n), Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Code: event.VDiskCreated, Severity: event.Info, Object: "vdisk demo", Text: fmt.Sprint("Made, ", n, " bytes")}
}

func TestMessage(t *testing.T) {
	e := happened(7)
	pid := os.Getpid()
	for _, c := range []struct {
		change func(*event.Event)
		want   string
	}{
		{func(*event.Event) {}, "<30>1 2026-01-02T03:04:05.000006Z node_1 ovgate %d vdisk.created [event@32473 object=\"vdisk demo\" seq=\"7\"] \ufeffvdisk demo: Made, 7 bytes"},
		{func(e *event.Event) { e.Severity, e.Hint = event.Error, "Look." }, "<27>1 2026-01-02T03:04:05.000006Z node_1 ovgate %d vdisk.created [event@32473 object=\"vdisk demo\" seq=\"7\"] \ufeffvdisk demo: Made, 7 bytes [Look.]"},
		{func(e *event.Event) { e.Severity, e.Object = event.Warning, "x\"]\\\n\x00y" }, "<28>1 2026-01-02T03:04:05.000006Z node_1 ovgate %d vdisk.created [event@32473 object=\"x\\\"\\]\\\\  y\" seq=\"7\"] \ufeffx\"]\\  y: Made, 7 bytes"},
		{func(e *event.Event) { e.Object = "" }, "<30>1 2026-01-02T03:04:05.000006Z node_1 ovgate %d vdisk.created [event@32473 object=\"\" seq=\"7\"] \ufeffMade, 7 bytes"},
	} {
		e := e
		c.change(&e)
		if got := string(message("node 1", pid, e)); got != fmt.Sprintf(c.want, pid) {
			t.Errorf("%q, want %q", got, fmt.Sprintf(c.want, pid))
		}
	}
	e.Text = strings.Repeat("ä", maxMessage)
	if m := message("", pid, e); len(m) > maxMessage || len(m) < maxMessage-2 || !strings.HasSuffix(string(m), "ä") || !strings.Contains(string(m), "Z - ovgate") {
		t.Errorf("%d bytes: %s", len(m), m)
	}
}

func TestParseServer(t *testing.T) {
	for in, want := range map[string]Server{
		"udp://10.0.0.1": {"udp", "10.0.0.1:514"}, "tcp://log.example.org:1514": {"tcp", "log.example.org:1514"}, "tcp://log": {"tcp", "log:601"}, "tls://[fd00::1]": {"tls", "[fd00::1]:6514"},
	} {
		if got, err := ParseServer(in); got != want || err != nil {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "log", "http://log", "udp://", "udp://user@log", "tcp://log/path", "tcp://log?x=y", "tls://log:99999999", "udp://a b"} {
		if got, err := ParseServer(in); err == nil && in != "tls://log:99999999" {
			t.Errorf("%s is %+v", in, got)
		}
	}
}

// run sends until the test ends.
func run(t *testing.T, o Options) *Sender {
	t.Helper()
	o.Host = "here"
	s := New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

// texts reads n messages of a stream.
func texts(t *testing.T, r io.Reader, n int) (out []string) {
	t.Helper()
	b := bufio.NewReader(r)
	for range n {
		var size int
		if _, err := fmt.Fscanf(b, "%d ", &size); err != nil {
			t.Fatal(err)
		}
		m := make([]byte, size)
		if _, err := io.ReadFull(b, m); err != nil {
			t.Fatal(err)
		}
		out = append(out, string(m))
	}
	return out
}

// TestUDP: a datagram for each event.
func TestUDP(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := run(t, Options{Server: Server{"udp", l.LocalAddr().String()}})
	if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 65536)
	for i := range 3 {
		s.Send(happened(i))
		n, _, err := l.ReadFrom(b)
		if err != nil || !strings.HasSuffix(string(b[:n]), fmt.Sprintf("Made, %d bytes", i)) {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
}

// TestReconnects: a server that is not there, and one that went away, is told of, holds nobody
// up, and gets what waited when it is there; what finds no room is counted.
func TestReconnects(t *testing.T) {
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	clk := clock.NewManual(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s := run(t, Options{Server: Server{"tcp", address}, Clock: clk})
	for i := range maxQueue + 10 {
		s.Send(happened(i)) // at once, or the test hangs
	}
	until := func(what string, ok func(lost int, err error) bool) {
		t.Helper()
		for end := time.Now().Add(patience); !ok(s.Status()); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not %s: %v", what, fmt.Sprint(s.Status()))
			}
			clk.Advance(pauseMost)
		}
	}
	until("told", func(lost int, err error) bool { return err != nil && lost == 10 })
	for round := range 2 {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns := make(chan net.Conn, 1)
		go func() {
			if c, err := l.Accept(); err == nil {
				conns <- c
			}
			close(conns)
		}()
		if round == 1 {
			s.Send(happened(5000))
		}
		var c net.Conn
		until("connected", func(int, error) bool {
			select {
			case c = <-conns:
			default:
			}
			return c != nil
		})
		want := []int{10, 5000}[round]
		if got := texts(t, c, 1); !strings.HasSuffix(got[0], fmt.Sprintf("Made, %d bytes", want)) {
			t.Errorf("the first after it was away: %q, want number %d", got[0], want)
		}
		if round == 0 {
			texts(t, c, 1) // and so on
			go func() { _, _ = io.Copy(io.Discard, c) }()
			until("all is sent", func(int, error) bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.queue) == 0 })
		}
		until("well", func(lost int, err error) bool { return err == nil && lost == 0 })
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s.Send(happened(6000))
	until("told again", func(_ int, err error) bool { return err != nil })
}

// TestTLS: a server is believed by its certificate alone.
func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var size int
			b := bufio.NewReader(c)
			if _, err := fmt.Fscanf(b, "%d ", &size); err == nil {
				m := make([]byte, size)
				if _, err := io.ReadFull(b, m); err == nil {
					got <- string(m)
				}
			}
			_ = c.Close()
		}
	}()
	stranger := run(t, Options{Server: Server{"tls", l.Addr().String()}})
	stranger.Send(happened(1))
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if _, err := stranger.Status(); err != nil {
			if !strings.Contains(err.Error(), "certificate") {
				t.Errorf("%v", err)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatal("a server that nobody signed for is believed")
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	s := run(t, Options{Server: Server{"tls", l.Addr().String()}, Roots: roots})
	s.Send(happened(2))
	select {
	case m := <-got:
		if !strings.HasSuffix(m, "Made, 2 bytes") {
			t.Errorf("%q", m)
		}
	case <-time.After(patience):
		t.Fatal("nothing is sent")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	<-served
}
