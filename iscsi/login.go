package iscsi

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"
)

// Login stages (RFC 7143 section 11.12.3).
const (
	stageSecurity    = 0
	stageOperational = 1
	stageFull        = 3
)

// Login status: class in the high byte (RFC 7143 section 11.13.5).
const (
	loginOK              = 0x0000
	loginMovedTemporary  = 0x0101
	loginMovedPermanent  = 0x0102
	loginInitiatorError  = 0x0200
	loginAuthFailure     = 0x0201
	loginForbidden       = 0x0202
	loginNotFound        = 0x0203
	loginTooMany         = 0x0206
	loginMissing         = 0x0207
	loginSessionType     = 0x0209
	loginNoSession       = 0x020a
	loginInvalid         = 0x020b
	loginOutOfResources  = 0x0302
	loginServiceUnavail  = 0x0301
	loginUnsupportedVers = 0x0205
)

// maxLoginRequests bounds one login: two stages, CHAP, and continuations.
const maxLoginRequests = 32

// loginError refuses a login with a status.
type loginError struct {
	status  uint16
	err     error
	address string // of a redirect
}

func (e *loginError) Error() string { return fmt.Sprintf("status %04x: %v", e.status, e.err) }
func (e *loginError) Unwrap() error { return e.err }

func refuseLogin(status uint16, format string, a ...any) error {
	return &loginError{status: status, err: fmt.Errorf(format, a...)}
}

// wrongText is the status of text that breaks the rules of negotiation.
const wrongText = loginInitiatorError

// login is the state of one login phase.
type login struct {
	c         *conn
	g         negotiation
	keys      map[string]string // all keys of the current request
	text      []byte            // C-bit continuation
	stage     int
	started   bool
	discovery bool
	target    *target
	group     uint16 // portal group tag
	auth      *Auth  // of the group, in a normal session
	isid      [6]byte
	tsih      uint16
	cid       uint16
	itt       uint32
	agreed    bool // on AuthMethod
	chap      *chap
	authDone  bool
	tagSent   bool
	sess      *session
	counted   bool // as a discovery session
}

// login runs the login phase until full feature phase. The reader writes the
// responses itself: the writer does not run yet.
func (c *conn) login() error {
	l := &login{c: c, g: negotiation{n: defaultNegotiated()}}
	for i := 0; i < maxLoginRequests; i++ {
		done, err := l.request()
		if err != nil {
			var le *loginError
			if errors.As(err, &le) {
				w := &textWriter{}
				if le.address != "" {
					w.add("TargetAddress", le.address)
				}
				_ = l.respond(0, w.b, le.status) // the connection is closed in any case
			}
			l.undo()
			return l.unproven(err)
		}
		if done {
			return nil
		}
	}
	err := refuseLogin(loginInitiatorError, "more than %d login requests", maxLoginRequests)
	_ = l.respond(0, nil, loginInitiatorError) // the connection is closed in any case
	return err
}

// errUnproven is why an initiator closes the connection right after the target proved itself:
// the protocol has no word for it.
var errUnproven = errors.New("iscsi: the initiator hung up when the target had proved itself: it may know another mutual secret")

// unproven is errUnproven for such an end, else err.
func (l *login) unproven(err error) error {
	closed := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
	if l.chap == nil || !l.chap.proved || !closed {
		return err
	}
	return &loginError{status: loginAuthFailure, err: fmt.Errorf("%w (%w)", errUnproven, err)}
}

// undo gives back what a login took that failed after all.
func (l *login) undo() {
	if l.sess != nil {
		l.c.srv.endSession(l.sess)
	}
	if l.counted {
		l.c.srv.endDiscovery()
	}
}

// request handles one Login Request PDU.
func (l *login) request() (done bool, err error) {
	c := l.c
	if err := c.readHeader(); err != nil {
		return false, err
	}
	h := &c.hdr
	if h.op() != opLogin {
		return false, errors.New("iscsi: not a login request")
	}
	n := h.dataLen()
	if n > loginSegment || len(l.text)+n > maxTextBytes {
		return false, refuseLogin(loginInitiatorError, "login text of more than %d bytes", maxTextBytes)
	}
	at := len(l.text)
	l.text = append(l.text, make([]byte, n)...)
	if err := c.readData(l.text[at:], n); err != nil {
		return false, err
	}
	if err := l.header(h); err != nil {
		return false, err
	}
	transit, more := h[1]&0x80 != 0, h[1]&0x40 != 0
	csg, nsg := int(h[1]>>2&3), int(h[1]&3)
	if more {
		if transit {
			return false, refuseLogin(loginInitiatorError, "T and C bits together")
		}
		return false, l.respond(byte(csg<<2), nil, loginOK)
	}
	keys, err := parseText(l.text)
	l.text = l.text[:0]
	if err != nil {
		return false, refuseLogin(loginInitiatorError, "%w", err)
	}
	return l.exchange(keys, csg, nsg, transit)
}

// header checks what stays the same in every request of a login.
func (l *login) header(h *bhs) error {
	var isid [6]byte
	copy(isid[:], h[8:14])
	tsih, cid, itt := be.Uint16(h[14:]), be.Uint16(h[20:]), h.itt()
	csg, nsg := int(h[1]>>2&3), int(h[1]&3)
	if !l.started {
		l.started = true
		l.isid, l.tsih, l.cid, l.itt, l.stage = isid, tsih, cid, itt, csg
		l.c.expCmdSN.Store(h.cmdSN())
		l.c.maxCmdSN.Store(h.cmdSN() + uint32(l.c.srv.lim.QueueDepth) - 1)
		l.c.statSN = be.Uint32(h[28:])
		if h[3] > 0 { // only version 0 exists
			return refuseLogin(loginUnsupportedVers, "iSCSI version %d", h[3])
		}
	}
	if isid != l.isid || tsih != l.tsih || cid != l.cid || itt != l.itt {
		return refuseLogin(loginInitiatorError, "header fields changed during login")
	}
	if csg != l.stage || csg > stageOperational {
		return refuseLogin(loginInitiatorError, "request for stage %d in stage %d", csg, l.stage)
	}
	if h[1]&0x80 != 0 && (nsg <= csg || nsg == 2) {
		return refuseLogin(loginInitiatorError, "transit from stage %d to %d", csg, nsg)
	}
	return nil
}

// exchange answers the keys of a complete request.
func (l *login) exchange(list []keyValue, csg, nsg int, transit bool) (bool, error) {
	l.keys = make(map[string]string, len(list))
	for _, kv := range list {
		l.keys[kv.key] = kv.value
	}
	if l.c.name == "" {
		if err := l.identify(); err != nil {
			return false, err
		}
	}
	w := &textWriter{}
	if l.target != nil && !l.tagSent {
		l.tagSent = true
		w.add("TargetPortalGroupTag", strconv.Itoa(int(l.group)))
		if a := l.target.spec.Load().Alias; a != "" {
			w.add("TargetAlias", a)
		}
	}
	for _, kv := range list {
		if kv.key != "FirstBurstLength" {
			l.key(kv, w)
		}
	}
	if v, ok := l.keys["FirstBurstLength"]; ok { // its limit is MaxBurstLength, which may follow it
		l.key(keyValue{"FirstBurstLength", v}, w)
	}
	if err := l.security(csg, transit, w); err != nil {
		return false, err
	}
	if csg == stageSecurity && !l.authDone {
		transit = false // CHAP goes on
	}
	if csg == stageOperational && !l.g.declared {
		l.g.declared = true
		w.add("MaxRecvDataSegmentLength", strconv.Itoa(maxRecvTarget))
	}
	if len(w.b) > loginSegment {
		return false, refuseLogin(wrongText, "the answer to these keys has more than %d bytes", loginSegment)
	}
	flags := byte(csg << 2)
	if transit {
		flags |= 0x80 | byte(nsg)
	}
	if !transit || nsg != stageFull {
		if transit {
			l.stage = nsg
		}
		return false, l.respond(flags, w.b, loginOK)
	}
	return true, l.complete(flags, w.b)
}

// identify reads the keys of the first request: who asks, and for what.
func (l *login) identify() error {
	name, ok := l.keys["InitiatorName"]
	if !ok {
		return refuseLogin(loginMissing, "no InitiatorName")
	}
	if len(name) > maxName || name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return refuseLogin(loginInitiatorError, "InitiatorName is not a name")
	}
	l.c.name = NormalizeName(name)
	switch l.keys["SessionType"] {
	case "Discovery":
		l.discovery, l.g.discovery = true, true
		if l.c.srv.disc == nil && l.c.srv.discCHAP == DiscoveryRequired {
			return l.withAuth(l.c.srv.authsOf(l.c.name)...)
		}
		return l.withAuth(l.c.srv.disc)
	case "", "Normal":
	default:
		return refuseLogin(loginSessionType, "SessionType %q", l.keys["SessionType"])
	}
	tn, ok := l.keys["TargetName"]
	if !ok {
		return refuseLogin(loginMissing, "no TargetName")
	}
	l.c.wanted = tn[:min(len(tn), maxName)]
	l.c.srv.mu.Lock()
	l.target = l.c.srv.targets[NormalizeName(tn)]
	closed := l.c.srv.closed
	l.c.srv.mu.Unlock()
	switch {
	case closed:
		return refuseLogin(loginServiceUnavail, "shutting down")
	case l.target == nil:
		return refuseLogin(loginNotFound, "there is no such target")
	}
	p, ok := l.target.portal(l.c.local)
	if !ok {
		return refuseLogin(loginNotFound, "the target has no portal at %s", l.c.local)
	}
	l.group = p.Group
	v := l.target.admit(l.c.name)
	if v == nil {
		return refuseLogin(loginForbidden, "no group of the target admits this initiator; add it to one")
	}
	if r := l.target.spec.Load().Redirect; r.elsewhere(p) {
		return redirect(r, p.Address)
	}
	l.auth = v.group.Auth
	return l.withAuth(l.auth)
}

// elsewhere tells whether logins at a portal are sent to another one.
func (r *Redirect) elsewhere(p Portal) bool {
	return r != nil && !slices.Contains(r.Addresses, p.Address)
}

// redirect sends the initiator elsewhere before it proves anything: it has to do
// so there.
func redirect(r *Redirect, from string) error {
	status := uint16(loginMovedTemporary)
	if r.Permanent {
		status = loginMovedPermanent
	}
	to := slices.MaxFunc(r.Addresses, func(a, b string) int { return cmp.Compare(alike(a, from), alike(b, from)) })
	return &loginError{status, fmt.Errorf("sent to %s", to), to}
}

// alike returns how many bits two addresses have in common at their beginnings; 0 with a
// name, or where they are of two kinds.
func alike(a, b string) int {
	x, errx := netip.ParseAddrPort(a)
	y, erry := netip.ParseAddrPort(b)
	if errx != nil || erry != nil || x.Addr().BitLen() != y.Addr().BitLen() {
		return 0
	}
	for n := x.Addr().BitLen(); n > 0; n-- {
		if netip.PrefixFrom(x.Addr(), n).Contains(y.Addr()) {
			return n
		}
	}
	return 0
}

// maxDiscoveryAuths bounds the credentials that a discovery session is tried with.
const maxDiscoveryAuths = 256

// authsOf returns the credentials that an initiator has at targets, each once.
func (s *Server) authsOf(name string) []*Auth {
	s.mu.Lock()
	list := make([]*target, 0, len(s.targets))
	for _, t := range s.targets {
		list = append(list, t)
	}
	s.mu.Unlock()
	sortTargets(list)
	var out []*Auth
	for _, t := range list {
		v := t.admit(name)
		if v == nil || v.group.Auth == nil || slices.ContainsFunc(out, func(a *Auth) bool { return *a == *v.group.Auth }) {
			continue
		}
		if out = append(out, v.group.Auth); len(out) == maxDiscoveryAuths {
			break
		}
	}
	return out
}

// withAuth demands that the initiator proves one of these, which nobody can of none; nil, and
// nothing else: it need not.
func (l *login) withAuth(list ...*Auth) error {
	if len(list) != 1 || list[0] != nil {
		l.chap = &chap{auths: list, rnd: l.c.srv.rnd}
		if l.stage != stageSecurity {
			return refuseLogin(loginAuthFailure, "%w: the target demands CHAP", errAuth)
		}
		return nil
	}
	l.authDone = true
	return nil
}

// key answers one key; those of identification and security are done elsewhere.
func (l *login) key(kv keyValue, w *textWriter) {
	switch kv.key {
	case "InitiatorName", "InitiatorAlias", "SessionType", "TargetName", "AuthMethod",
		"CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R", "TargetAlias", "TargetPortalGroupTag":
	default:
		l.g.answer(kv, w)
	}
}

// security answers AuthMethod and the CHAP keys. An initiator may begin without
// AuthMethod, but not leave the stage without it where CHAP is demanded.
func (l *login) security(csg int, transit bool, w *textWriter) error {
	if csg != stageSecurity {
		return nil
	}
	methods, offered := l.keys["AuthMethod"]
	switch {
	case offered && l.agreed:
		return refuseLogin(wrongText, "AuthMethod is negotiated already")
	case offered:
		return l.method(methods, w)
	case l.authDone:
		return nil
	case !l.agreed && transit:
		return refuseLogin(loginAuthFailure, "%w: the target demands CHAP", errAuth)
	case !l.agreed:
		return nil
	}
	if err := l.chap.step(l.keys, w); err != nil {
		return &loginError{status: loginAuthFailure, err: err}
	}
	l.authDone = l.chap.done
	return nil
}

// method picks the one authentication method that the target takes.
func (l *login) method(offer string, w *textWriter) error {
	want, methods := "None", strings.Split(offer, ",")
	if l.discovery && l.chap == nil && l.c.srv.discCHAP == DiscoveryOptional && !contains(methods, want) && contains(methods, "CHAP") {
		l.authDone = false
		if err := l.withAuth(l.c.srv.authsOf(l.c.name)...); err != nil {
			return err
		}
	}
	if l.chap != nil {
		want = "CHAP"
	}
	if !contains(methods, want) {
		return refuseLogin(loginAuthFailure, "%w: the target takes %s, the initiator offers %.80q", errAuth, want, offer)
	}
	l.agreed = true
	w.add("AuthMethod", want)
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// complete enters full feature phase: a normal session replaces an older one of
// the same initiator port, whose commands are over before the answer leaves.
func (l *login) complete(flags byte, text []byte) error {
	c := l.c
	l.g.finish()
	c.cid = l.cid // before others find the session: they may drop it at once
	if l.discovery {
		if err := c.srv.beginDiscovery(l); err != nil {
			return err
		}
	} else {
		ss, err := c.srv.newSession(l)
		if err != nil {
			return err
		}
		l.sess = ss
	}
	c.neg.MaxRecvTarget = maxRecvTarget
	if err := l.respond(flags, text, loginOK); err != nil {
		return err
	}
	c.neg = l.g.n
	c.maxSend.Store(c.neg.MaxRecvInitiator)
	c.sess = l.sess
	c.srv.mu.Lock()
	c.loggedIn.Store(true)
	if !c.displaced {
		c.srv.prelogin--
	}
	closed := c.srv.closed
	c.srv.mu.Unlock()
	if closed {
		c.drain()
	}
	return nil
}

// respond writes a Login Response PDU.
func (l *login) respond(flags byte, text []byte, status uint16) error {
	c := l.c
	b := make([]byte, bhsLen, bhsLen+len(text)+4)
	h := (*bhs)(b)
	h[0], h[1] = opLoginResp, flags
	copy(h[8:14], l.isid[:])
	be.PutUint16(h[14:], l.tsih)
	if l.sess != nil {
		be.PutUint16(h[14:], l.sess.tsih)
	} else if l.discovery && flags&0x83 == 0x83 {
		be.PutUint16(h[14:], discoveryTSIH)
	}
	be.PutUint32(h[16:], l.itt)
	be.PutUint16(h[36:], status)
	c.sequence(h, true)
	h.setDataLen(len(text))
	b = append(b, text...)
	b = append(b, make([]byte, pad(len(text)))...)
	_, err := c.nc.Write(b)
	return err
}

// discoveryTSIH is what every discovery session is told: it can neither be
// joined nor reinstated, so its handle identifies nothing.
const discoveryTSIH = maxTSIH

// beginDiscovery counts a discovery session in.
func (s *Server) beginDiscovery(l *login) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case l.tsih != 0: // there is nothing to join
		return refuseLogin(loginNoSession, "no discovery session with TSIH %d", l.tsih)
	case s.closed:
		return refuseLogin(loginServiceUnavail, "shutting down")
	case s.discovery >= s.lim.Discovery:
		return refuseLogin(loginOutOfResources, "%d discovery sessions, which is the most", s.discovery)
	}
	s.discovery++
	l.counted = true
	return nil
}

func (s *Server) endDiscovery() {
	s.mu.Lock()
	s.discovery--
	s.mu.Unlock()
}

// newSession registers the session of a finished login (RFC 7143 section 6.3.1):
//
//	ISID of a session, TSIH 0          session reinstatement: the old one ends
//	ISID and TSIH of it, its CID       connection reinstatement: the same, the TSIH stays
//	ISID and TSIH of it, another CID   refused, a session has one connection
//	any other TSIH                     refused, no such session
//
// The old session ends first, with its last Op (I4). In either reinstatement the
// nexus is a new one: what the old one reserved is released, POWER ON is raised.
func (s *Server) newSession(l *login) (*session, error) {
	ss := &session{
		conn: l.c, target: l.target, initiator: l.c.name, isid: l.isid, cid: l.cid, proved: l.auth,
		group: l.group, since: s.clk.Now(), neg: l.g.n, gone: make(chan struct{}),
	}
	replaced := false
	for {
		s.mu.Lock()
		old := s.sameNexus(ss)
		if old == nil {
			break
		}
		s.mu.Unlock()
		switch {
		case l.tsih != 0 && l.tsih != old.tsih:
			return nil, refuseLogin(loginNoSession, "no session with TSIH %d", l.tsih)
		case l.tsih != 0 && l.cid != old.cid:
			return nil, refuseLogin(loginTooMany, "session %s has its one connection", old.id)
		}
		replaced = true
		l.c.replacing.Store(true)
		old.conn.close()
		select {
		case <-old.gone:
		case <-l.c.broken():
			return nil, io.ErrClosedPipe
		}
	}
	defer s.mu.Unlock()
	switch {
	case l.tsih != 0 && (!replaced || s.sessions[l.tsih] != nil):
		return nil, refuseLogin(loginNoSession, "no session with TSIH %d", l.tsih)
	case s.closed:
		return nil, refuseLogin(loginServiceUnavail, "shutting down")
	case s.targets[l.target.name] != l.target:
		return nil, refuseLogin(loginNotFound, "the target was removed")
	case len(s.sessions) >= s.lim.Sessions:
		return nil, refuseLogin(loginOutOfResources, "%d sessions, which is the limit", len(s.sessions))
	}
	v := l.target.admit(ss.initiator)
	if v == nil || !ss.proof(v) { // the groups changed during the login
		return nil, refuseLogin(loginForbidden, "the target does not admit this initiator any more")
	}
	if p, ok := l.target.portal(l.c.local); !ok || p.Group != ss.group {
		return nil, refuseLogin(loginNotFound, "the target has no such portal any more")
	}
	ss.view.Store(v)
	ss.noteUnits(v)
	s.found(ss)
	ss.state.Store(uint32(l.target.state(ss.group)))
	ss.tsih = l.tsih
	if ss.tsih == 0 {
		ss.tsih = s.freeTSIH()
	}
	s.nextID++
	ss.id = strconv.FormatUint(s.nextID, 10)
	s.sessions[ss.tsih], s.byID[ss.id] = ss, ss
	ss.target.sessions[ss] = struct{}{}
	ss.attentionAll(uaPowerOn)
	return ss, nil
}

// freeTSIH returns a handle that no session has, and that was not given out for
// as long as possible; there is one, since sessions are fewer than handles. mu is
// held.
func (s *Server) freeTSIH() uint16 {
	for {
		s.nextTSIH = s.nextTSIH%(maxTSIH-1) + 1
		if _, used := s.sessions[s.nextTSIH]; !used {
			return s.nextTSIH
		}
	}
}

func (s *Server) sameNexus(n *session) *session {
	for o := range n.target.sessions {
		if o.initiator == n.initiator && o.isid == n.isid && o.group == n.group {
			return o
		}
	}
	return nil
}

// endSession forgets a session whose last Op completed.
func (s *Server) endSession(ss *session) {
	s.mu.Lock()
	delete(s.sessions, ss.tsih)
	delete(s.byID, ss.id)
	delete(ss.target.sessions, ss)
	s.mu.Unlock()
	ss.endPath()
	ss.leave()
	ss.dropReservations()
	close(ss.gone)
}
