package sdnotify

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// supervisor is systemd's end of the notifications.
type supervisor struct {
	t *testing.T
	c *net.UnixConn
}

func newSupervisor(t *testing.T) supervisor {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return supervisor{t, c}
}

// next returns what comes within a time; empty: nothing.
func (s supervisor) next(within time.Duration) string {
	s.t.Helper()
	if err := s.c.SetReadDeadline(time.Now().Add(within)); err != nil {
		s.t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := s.c.Read(b)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.t.Fatal(err)
	}
	return string(b[:n])
}

const (
	limit = 300 * time.Millisecond
	long  = time.Minute // more than any ping takes on a busy machine
)

// TestWatchdog: there are pings while the service works, none while it hangs, and again
// after that; the end of the service waits for nothing that hangs.
func TestWatchdog(t *testing.T) {
	s := newSupervisor(t)
	t.Setenv("WATCHDOG_USEC", strconv.FormatInt(limit.Microseconds(), 10))
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	works := make(chan struct{}, 1) // it can be taken while the service works
	works <- struct{}{}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		Watchdog(ctx, func() { works <- <-works })
		close(ended)
	}()
	for range 2 * pings {
		if got := s.next(long); got != "WATCHDOG=1" {
			t.Fatalf("got %q", got)
		}
	}
	<-works
	for s.next(limit) != "" { // what was under way
	}
	if got := s.next(3 * limit); got != "" {
		t.Fatalf("a service that hangs said %q", got)
	}
	works <- struct{}{}
	if got := s.next(long); got != "WATCHDOG=1" {
		t.Fatalf("after it went on: %q", got)
	}
	<-works
	stop()
	select {
	case <-ended:
	case <-time.After(long):
		t.Fatal("it does not end while the service hangs")
	}
	works <- struct{}{}
}

// TestNoWatchdog: nobody is pinged who did not ask.
func TestNoWatchdog(t *testing.T) {
	for _, c := range []struct{ usec, pid string }{
		{"", ""}, {"0", ""}, {"-5", ""}, {"x", ""}, {"99999999999999999999", ""}, {"1000000", "1"},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if d := watchdogTime(); d != 0 {
			t.Errorf("%+v: %v", c, d)
		}
	}
}
