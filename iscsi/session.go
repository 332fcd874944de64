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
	tsih      uint16
	group     uint16
	since     time.Time
	neg       Negotiated
	gone      chan struct{} // closed when its last Op completed (I4)

	commands, readBytes, writeBytes atomic.Uint64

	recent  atomic.Pointer[nexus] // of the last command
	nexusMu sync.Mutex
	nexuses map[*lun]*nexus

	pending atomic.Int32 // unit attentions in ua
	uaMu    sync.Mutex
	ua      map[uint16][]sense
}

// SessionInfo describes a session.
type SessionInfo struct {
	ID            string
	Target        string
	Initiator     string
	ISID          string // 12 hexadecimal digits
	TSIH          uint16
	PortalGroup   uint16
	Remote, Local string // addresses of the connection
	Since         time.Time
	Negotiated    Negotiated
	Commands      uint64
	BytesRead     uint64
	BytesWritten  uint64
	Outstanding   int        // commands not yet answered
	LUNs          []LUNStats // by number, of the units used so far; only from Server.Session
}

func (ss *session) info() SessionInfo {
	return SessionInfo{
		ID: ss.id, Target: ss.target.name, Initiator: ss.initiator,
		ISID: fmt.Sprintf("%x", ss.isid[:]), TSIH: ss.tsih, PortalGroup: ss.group,
		Remote: ss.conn.remote, Local: ss.conn.local, Since: ss.since, Negotiated: ss.neg,
		Commands: ss.commands.Load(), BytesRead: ss.readBytes.Load(), BytesWritten: ss.writeBytes.Load(),
		Outstanding: ss.conn.outstanding(),
	}
}

// allLUNs means every logical unit of the target.
const allLUNs = -1

// attention establishes a unit attention condition, once per kind.
func (ss *session) attention(lun int, ua sense) {
	ss.uaMu.Lock()
	defer ss.uaMu.Unlock()
	if lun != allLUNs {
		ss.addAttention(uint16(lun), ua)
		return
	}
	for _, n := range ss.target.numbers() {
		ss.addAttention(n, ua)
	}
}

func (ss *session) addAttention(n uint16, ua sense) {
	for _, o := range ss.ua[n] {
		if o == ua {
			return
		}
	}
	if ss.ua == nil {
		ss.ua = map[uint16][]sense{}
	}
	ss.ua[n] = append(ss.ua[n], ua)
	ss.pending.Add(1)
}

// takeAttention removes and returns the oldest unit attention of a LUN.
func (ss *session) takeAttention(n uint16) (sense, bool) {
	if ss.pending.Load() == 0 {
		return sense{}, false
	}
	ss.uaMu.Lock()
	defer ss.uaMu.Unlock()
	q := ss.ua[n]
	if len(q) == 0 {
		return sense{}, false
	}
	ss.ua[n] = q[1:]
	if len(q) == 1 {
		delete(ss.ua, n)
	}
	ss.pending.Add(-1)
	return q[0], true
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

// dropReservations releases what a nexus reserved, when it is lost.
func (ss *session) dropReservations() {
	for _, n := range ss.target.numbers() {
		if l := ss.target.lun(n); l != nil {
			l.reserved.CompareAndSwap(ss, nil)
		}
	}
}
