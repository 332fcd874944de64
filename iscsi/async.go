package iscsi

import "time"

// Asynchronous events (RFC 7143 section 11.9.1).
const (
	asyncLogout         = 1 // the initiator is asked to log out at once
	asyncDropConnection = 2 // the target will drop this connection
)

// How long an initiator should wait before it logs in again, in seconds: the
// Time2Wait of a notice. Time2Retain is 0, nothing is kept for it.
const (
	waitToReturn = 2  // it is welcome, at the same or another portal
	waitIfGone   = 30 // what it used is not there for it: hosts need not hammer
)

// noticeTime bounds how long a connection that will be dropped may take to read
// so.
const noticeTime = time.Second

// notice is an asynchronous message; that of a drop closes the connection behind
// it.
func (c *conn) notice(event byte, wait uint16) *reply {
	r := c.srv.reps.Get().(*reply)
	*r = reply{advance: true, last: event == asyncDropConnection}
	h := &r.hdr
	h[0], h[1] = opAsync, finalBit
	be.PutUint32(h[16:], noTag)
	h[36] = event
	if event == asyncDropConnection {
		be.PutUint16(h[38:], c.cid)
		be.PutUint16(h[40:], wait)
	}
	return r
}

// expel tells the initiator that its connection will be dropped, and drops it
// when that has left, or after noticeTime; what arrives until then is not
// executed any more, what is running stays unanswered.
func (c *conn) expel(wait uint16) {
	if c.served != nil {
		c.close()
		return
	}
	r := c.notice(asyncDropConnection, wait)
	c.mu.Lock()
	c.draining.Store(true)
	if c.dropBy.IsZero() {
		c.dropBy = c.srv.clk.Now().Add(noticeTime)
	}
	full := !c.queue(r)
	c.mu.Unlock()
	if full {
		c.close()
	}
}

// overdue tells whether a connection has not read its notice in time.
func (c *conn) overdue(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.dropBy.IsZero() && now.After(c.dropBy)
}
