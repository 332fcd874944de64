package iscsi

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// session is a logged-in normal session; with one connection per session, it is
// also the I_T nexus.
type session struct {
	id        string
	conn      *conn
	target    *target
	initiator string // normalized
	isid      [6]byte
	tsih, cid uint16
	group     uint16 // portal group tag
	since     time.Time
	neg       Negotiated
	proved    *Auth         // the credentials of the login; nil: none were demanded
	gone      chan struct{} // closed when its last Op completed (I4)

	// view is what the session sees, state the ALUAState of its port group; both
	// are replaced under Server.mu.
	view  atomic.Pointer[view]
	state atomic.Uint32
	// blind is since when view has no unit; nil: it has some. Changed under Server.mu.
	blind atomic.Pointer[time.Time]

	commands, readBytes, writeBytes atomic.Uint64

	recent  atomic.Pointer[nexus] // of the last command
	nexusMu sync.Mutex
	nexuses map[*lun]*nexus

	path ForwardPath // nexusMu; to units that other nodes serve

	copies copyRecords // of its EXTENDED COPY commands

	pending atomic.Int32 // unit attentions in ua
	uaMu    sync.Mutex
	ua      map[*lun][]sense
}

// SessionInfo describes a session.
type SessionInfo struct {
	ID            string
	Target        string
	Initiator     string
	Group         string // the target's group that admits it now
	ISID          string // 12 hexadecimal digits
	TSIH          uint16
	PortalGroup   uint16
	Remote, Local string // addresses of the connection
	Since         time.Time
	Negotiated    Negotiated
	Commands      uint64
	BytesRead     uint64
	BytesWritten  uint64
	Outstanding   int  // commands not yet answered
	Forwarded     bool // it is signed in at another node, whose commands come here
	// Silent is how long the initiator has sent nothing, while it does not answer a ping of
	// the target; else 0. It is dropped after Limits.PingIdle and PingTime.
	Silent time.Duration
	// Blind is since when it sees no LUN; zero: it sees some.
	Blind time.Time
	LUNs  []LUNStats // by number, of the units used so far; only from Server.Session
}

func (ss *session) info() SessionInfo {
	i := SessionInfo{
		ID: ss.id, Target: ss.target.name, Initiator: ss.initiator, Group: ss.view.Load().group.Name,
		ISID: fmt.Sprintf("%x", ss.isid[:]), TSIH: ss.tsih, PortalGroup: ss.group,
		Remote: ss.conn.remote, Local: ss.conn.local, Since: ss.since, Negotiated: ss.neg,
		Commands: ss.commands.Load(), BytesRead: ss.readBytes.Load(), BytesWritten: ss.writeBytes.Load(),
		Outstanding: ss.conn.outstanding(), Forwarded: ss.conn.served != nil, Silent: time.Duration(ss.conn.mute.Load()),
	}
	if since := ss.blind.Load(); since != nil {
		i.Blind = *since
	}
	return i
}

// noteUnits notes since when the session has seen no unit; Server.mu is held.
func (ss *session) noteUnits(v *view) {
	if len(v.numbers) > 0 {
		ss.blind.Store(nil)
	} else if ss.blind.Load() == nil {
		ss.blind.Store(new(ss.conn.srv.clk.Now()))
	}
}

// lun returns the logical unit that the session sees as n, or nil (I9).
func (ss *session) lun(n uint16) *lun { return ss.view.Load().units[n].lun }

// proof tells whether the session proved what the group of v demands.
func (ss *session) proof(v *view) bool {
	a := v.group.Auth
	return a == nil || ss.conn.served != nil /* its own node asked */ || ss.proved != nil && *a == *ss.proved
}

// misplaced says why the session cannot stay under the target's spec, and how long
// its initiator should wait before it returns; "" if it can.
func (ss *session) misplaced() (why string, wait uint16) {
	if v := ss.target.admit(ss.initiator); v == nil || !ss.mayHave(v) {
		return "no group admits it with what it proved", waitIfGone
	}
	if ss.conn.served != nil {
		return "", 0
	}
	if p, ok := ss.target.portal(ss.conn.local); !ok || p.Group != ss.group {
		return "its portal is gone or in another group", waitToReturn
	}
	return "", 0
}

// redirected tells whether a login of the session would be sent elsewhere now.
func (ss *session) redirected() bool {
	if ss.conn.served != nil || ss.conn.draining.Load() {
		return false
	}
	p, ok := ss.target.portal(ss.conn.local)
	return ok && ss.target.spec.Load().Redirect.elsewhere(p)
}

// mayHave tells whether the session may go on with v: in the group that it is in,
// new credentials apply from the next login; another group must have the
// credentials that the session proved, or demand none.
func (ss *session) mayHave(v *view) bool {
	return v.group.Name == ss.view.Load().group.Name || ss.proof(v)
}

// attention establishes a unit attention condition of a logical unit, once per
// kind; one that the session does not see raises none.
func (ss *session) attention(l *lun, ua sense) {
	if !ss.view.Load().sees(l) {
		return
	}
	ss.uaMu.Lock()
	defer ss.uaMu.Unlock()
	ss.addAttention(l, ua)
}

// attentionAll establishes a unit attention condition of every logical unit that
// the session sees.
func (ss *session) attentionAll(ua sense) {
	ss.uaMu.Lock()
	defer ss.uaMu.Unlock()
	for _, u := range ss.view.Load().units {
		ss.addAttention(u.lun, ua)
	}
}

func (ss *session) addAttention(l *lun, ua sense) {
	for _, o := range ss.ua[l] {
		if o == ua {
			return
		}
	}
	if ss.ua == nil {
		ss.ua = map[*lun][]sense{}
	}
	ss.ua[l] = append(ss.ua[l], ua)
	ss.pending.Add(1)
}

// takeAttention removes and returns the oldest unit attention of a logical unit.
func (ss *session) takeAttention(l *lun) (sense, bool) {
	if ss.pending.Load() == 0 {
		return sense{}, false
	}
	ss.uaMu.Lock()
	defer ss.uaMu.Unlock()
	q := ss.ua[l]
	if len(q) == 0 {
		return sense{}, false
	}
	ss.ua[l] = q[1:]
	if len(q) == 1 {
		delete(ss.ua, l)
	}
	ss.pending.Add(-1)
	return q[0], true
}

// setView gives the session another view. It raises REPORTED LUNS DATA HAS
// CHANGED when other units or numbers are seen, and MODE PARAMETERS CHANGED where
// write protection changed. A unit whose Disk was replaced has lost what was
// reserved without APTPL: POWER ON. Unit attentions of what is no longer seen go.
// Server.mu is held.
func (ss *session) setView(v *view) {
	old := ss.view.Swap(v)
	ss.noteUnits(v)
	kept := make(map[*reservations]bool, len(v.inside))
	for l := range v.inside {
		kept[l.res] = true
	}
	for l := range old.inside { // nobody could release it any more
		if !kept[l.res] {
			l.res.forget(ss)
		}
	}
	for n, u := range v.units {
		o := old.units[n].lun
		switch {
		case o == nil || o.Number != u.lun.Number || o.res == u.lun.res:
		case !o.moved(u.lun): // else ownersChanged tells
			ss.attention(u.lun, uaPowerOn)
		}
	}
	switch {
	case ss.conn.served != nil: // its own node tells it
	case !v.sameUnits(old):
		ss.attentionAll(uaLUNsChanged)
	default:
		for n, u := range v.units {
			if u.readOnly != old.units[n].readOnly {
				ss.attention(u.lun, uaModeChanged)
			}
		}
	}
	ss.uaMu.Lock()
	defer ss.uaMu.Unlock()
	for l, q := range ss.ua {
		if !v.sees(l) {
			ss.pending.Add(-int32(len(q)))
			delete(ss.ua, l)
		}
	}
}

// clearAttention drops one kind on every LUN: REPORT LUNS clears the one that
// announces it (SPC-4 clause 6.33).
func (ss *session) clearAttention(ua sense) {
	if ss.pending.Load() == 0 {
		return
	}
	ss.uaMu.Lock()
	defer ss.uaMu.Unlock()
	for n, q := range ss.ua {
		keep := q[:0:0]
		for _, o := range q {
			if o != ua {
				keep = append(keep, o)
			}
		}
		ss.pending.Add(int32(len(keep) - len(q)))
		if len(keep) == 0 {
			delete(ss.ua, n)
		} else {
			ss.ua[n] = keep
		}
	}
}

// dropReservations releases what a nexus reserved by RESERVE(6/10), when it is
// lost. Registrations stay (R5).
func (ss *session) dropReservations() {
	for _, l := range *ss.target.luns.Load() {
		l.res.forget(ss)
	}
}
