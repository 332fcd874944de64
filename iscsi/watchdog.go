package iscsi

import "time"

// The watchdog looks at every connection once a second: peers are bounded in time
// by what it finds.
//
//	login not finished             LoginTime after the accept
//	silence, or a PDU half sent    ping after PingIdle, dropped PingTime later
//	a write's data does not come   dropped after PingIdle + PingTime
//	answers are not read           dropped after PingIdle + PingTime
//	silent discovery session       dropped after discoveryIdle

// watchTick is how often time limits of connections are looked at; they are
// whole seconds, so a second is fine enough.
const watchTick = time.Second

// watch visits all connections, and counts seconds, until the server ends.
func (s *Server) watch() {
	defer s.ticked.Done()
	t := s.clk.NewTimer(watchTick)
	defer t.Stop()
	var conns []*conn
	for {
		select {
		case <-t.C():
		case <-s.tick:
			return
		}
		s.epoch.Add(1)
		now := s.clk.Now()
		conns = conns[:0]
		s.mu.Lock()
		for c := range s.conns {
			conns = append(conns, c)
		}
		s.mu.Unlock()
		for _, c := range conns {
			c.check(now)
		}
		clear(conns)
		t.Reset(watchTick) // a timer that waits tells tests that the visits are done
	}
}

// stall is how long a number has not changed.
type stall struct {
	last  uint64
	since time.Time
}

// time returns how long n has been the same, as far as was seen.
func (s *stall) time(now time.Time, n uint64) time.Duration {
	if n != s.last || s.since.IsZero() {
		s.last, s.since = n, now
	}
	return now.Sub(s.since)
}

// check is the watchdog's visit.
func (c *conn) check(now time.Time) {
	lim := &c.srv.lim
	switch {
	case !c.loggedIn.Load():
		if now.Sub(c.since) > lim.LoginTime {
			c.drop() // c.sess is the login's still
		}
	case c.overdue(now):
		c.close()
	case c.served != nil: // the link to its node has limits of its own
	case c.sess == nil:
		if c.silent.time(now, c.seen.Load()) > discoveryIdle {
			c.dead("")
		}
	case c.unread.time(now, c.sock.moved.Load()) > lim.PingIdle+lim.PingTime && c.toSend(now):
		c.dead("peer does not read its answers")
	case c.unsentData.time(now, c.data.Load()) > lim.PingIdle+lim.PingTime && c.toReceive(now):
		c.dead("peer does not send the data of its writes")
	default:
		c.listen(now)
	}
}

// listen drops a peer that is silent for PingIdle and does not answer a ping
// within PingTime.
func (c *conn) listen(now time.Time) {
	idle := c.silent.time(now, c.seen.Load())
	switch {
	case idle == 0:
		c.pinged = false
		c.mute.Store(0)
	case c.pinged && idle > c.srv.lim.PingIdle+c.srv.lim.PingTime:
		c.dead("peer does not answer pings")
	case c.pinged:
		c.mute.Store(int64(idle))
	case !c.pinged && idle > c.srv.lim.PingIdle:
		c.pinged = true
		c.ping()
	}
}

// toSend tells whether answers wait; if not, the time begins again.
func (c *conn) toSend(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unsent == 0 {
		c.unread.since = now
	}
	return c.unsent > 0
}

// toReceive tells whether commands wait for data; if not, the time begins again. A
// command that has just come, or whose data is in the same PDU, does not.
func (c *conn) toReceive(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.tasks {
		if t.awaiting && !t.running && !t.dormant {
			return true
		}
	}
	c.unsentData.since = now
	return false
}

// drop drops a connection whose peer does not do its part.
func (c *conn) drop() {
	c.srv.stats.dropped.Add(1)
	c.close()
}

// dead drops one that has logged in, and tells of it.
func (c *conn) dead(why string) {
	if why != "" && c.sess != nil {
		c.sess.logged("session dropped", "reason", why)
		c.srv.lose(c.sess, why)
	}
	c.drop()
}

// discoveryIdle is how long a discovery session may be silent: it has nothing to
// wait for, and its place is wanted. It is not pinged, since it may only ask for
// targets and log out (RFC 7143 section 4.3).
const discoveryIdle = 30 * time.Second

// pingTag is the target transfer tag of pings; R2T tags never take this value.
const pingTag = 0xfffffffe

func (c *conn) ping() {
	r := c.srv.reps.Get().(*reply)
	*r = reply{}
	r.hdr[0], r.hdr[1] = opNopIn, finalBit
	be.PutUint32(r.hdr[16:], noTag)
	be.PutUint32(r.hdr[20:], pingTag)
	c.send(r)
}
