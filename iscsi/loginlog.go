package iscsi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A peer decides how often it logs in, so it must not decide how much is logged
// (I11).

// lines is an allowance of log lines: burst at once, then one per every.
type lines struct {
	burst int
	every time.Duration
}

// Allowances. An administrator who mistypes a secret sees each attempt; a storm
// leaves some lines and a count of what was withheld.
var (
	hostLines    = lines{5, 10 * time.Second}          // about one peer: the retries of a minute
	refusalLines = lines{50, 2 * time.Second}          // about all: a rack whose secrets are wrong
	sessionLines = lines{1000, 200 * time.Millisecond} // opened and closed: every host of a cluster once
)

// maxLogHosts bounds the peers that are counted on their own; those beyond it
// share the allowance for all.
const maxLogHosts = 1024

// logLimit decides which lines are written. Its zero value writes none.
type logLimit struct {
	perHost, all lines

	mu       sync.Mutex
	total    bucket
	hosts    map[string]*bucket
	withheld int
}

// bucket is what is left of an allowance at a time.
type bucket struct {
	used int
	at   time.Time // up to when used was reduced
}

// refill gives back what has grown again since the last time.
func (b *bucket) refill(l lines, now time.Time) {
	n := int(min(now.Sub(b.at)/l.every, time.Duration(b.used)))
	if n > 0 {
		b.used -= n
		b.at = b.at.Add(time.Duration(n) * l.every)
	}
	if b.used == 0 {
		b.at = now
	}
}

// allow tells whether a line about host may be written, and how many were not
// since the last one.
func (g *logLimit) allow(host string, now time.Time) (withheld int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.total.refill(g.all, now)
	h := g.host(host, now)
	if g.total.used >= g.all.burst || h != nil && h.used >= g.perHost.burst {
		g.withheld++
		return 0, false
	}
	g.total.used++
	if h != nil {
		h.used++
	}
	withheld, g.withheld = g.withheld, 0
	return withheld, true
}

// host returns the bucket of a peer, or nil where peers are not told apart.
func (g *logLimit) host(host string, now time.Time) *bucket {
	if g.perHost.burst == 0 {
		return nil
	}
	h := g.hosts[host]
	if h == nil {
		if len(g.hosts) >= maxLogHosts {
			g.forget(now)
		}
		if len(g.hosts) >= maxLogHosts {
			return nil
		}
		if g.hosts == nil {
			g.hosts = map[string]*bucket{}
		}
		h = &bucket{}
		g.hosts[host] = h
	}
	h.refill(g.perHost, now)
	return h
}

// forget drops the peers whose allowance is whole again.
func (g *logLimit) forget(now time.Time) {
	for name, h := range g.hosts {
		if h.refill(g.perHost, now); h.used == 0 {
			delete(g.hosts, name)
		}
	}
}

// logRefusal writes a line about a peer that does not get in.
func (s *Server) logRefusal(level slog.Level, remote, msg string, attrs ...any) {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	s.limited(&s.refusals, host, level, msg, append([]any{"remote", remote}, attrs...))
}

// limited writes a line if the allowance permits.
func (s *Server) limited(g *logLimit, host string, level slog.Level, msg string, attrs []any) {
	withheld, ok := g.allow(host, s.clk.Now())
	if !ok {
		return
	}
	if withheld > 0 {
		attrs = append(attrs, "withheld", withheld)
	}
	s.log.Log(context.Background(), level, msg, attrs...)
}

// logged writes a line about the session.
func (ss *session) logged(msg string, attrs ...any) {
	s := ss.conn.srv
	s.limited(&s.comings, "", slog.LevelInfo, msg, append([]any{
		"target", ss.target.name, "initiator", ss.initiator, "remote", ss.conn.remote, "session", ss.id,
	}, attrs...))
}

// loginFailed counts a login that came to nothing and says why. A connection that
// closes without a word, as a probe does, is not worth a line.
func (c *conn) loginFailed(err error) {
	c.srv.stats.loginFailures.Add(1)
	level, msg := slog.LevelWarn, "login refused"
	var le *loginError
	switch {
	case errors.As(err, &le) && le.address != "":
		level, msg = slog.LevelInfo, "login redirected"
	case errors.As(err, &le):
		if c.srv.refused != nil {
			c.srv.refused(Refusal{c.wanted, c.name, c.remote, err})
		}
	case c.seen.Load() == 0 && errors.Is(err, io.EOF):
		return
	default:
		msg = "login broken off"
	}
	c.srv.logRefusal(level, c.remote, msg, "target", c.wanted, "initiator", c.name, "portal", c.local, "reason", err)
}
