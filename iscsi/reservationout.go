package iscsi

import "slices"

// Service actions of PERSISTENT RESERVE OUT (SPC-4 clause 6.14.2).
const (
	prRegister       = 0
	prReserve        = 1
	prRelease        = 2
	prClear          = 3
	prPreempt        = 4
	prPreemptAbort   = 5
	prRegisterIgnore = 6
	prRegisterMove   = 7
)

const (
	prListBytes = 24 // parameter list without TransportIDs
	// maxPRList bounds a parameter list: more TransportIDs than a unit can register
	// are no use.
	maxPRList = prListBytes + 4 + maxRegistrations*(transportHeader+maxTransportText)
)

// prOut is a decoded PERSISTENT RESERVE OUT command.
type prOut struct {
	action      byte
	scope, kind byte
	key, newKey uint64 // RESERVATION KEY, SERVICE ACTION RESERVATION KEY
	aptpl       bool
	allPorts    bool // ALL_TG_PT
	specified   bool // SPEC_I_PT
	unregister  bool // UNREG
	port        uint16
	ids         []transportID
}

// parsePROut decodes CDB and parameter list; a sense with a key refuses it.
func parsePROut(cdb *[16]byte, list []byte) (prOut, sense) {
	q := prOut{action: cdb[1] & 0x1f, scope: cdb[2] >> 4, kind: cdb[2] & 0x0f}
	if len(list) < prListBytes {
		return q, senseListLength
	}
	q.key, q.newKey = be.Uint64(list), be.Uint64(list[8:])
	if q.action == prRegisterMove {
		q.unregister, q.aptpl = list[17]&0x02 != 0, list[17]&0x01 != 0
		q.port = be.Uint16(list[18:])
		return q.parseIDs(list[20:])
	}
	q.specified, q.allPorts, q.aptpl = list[20]&0x08 != 0, list[20]&0x04 != 0, list[20]&0x01 != 0
	switch {
	case q.specified && q.action != prRegister:
		return q, senseInvalidParameter
	case q.specified:
		return q.parseIDs(list[24:])
	case len(list) != prListBytes:
		return q, senseListLength
	}
	return q, sense{}
}

// parseIDs reads a length and so many bytes of TransportIDs.
func (q prOut) parseIDs(b []byte) (prOut, sense) {
	if len(b) < 4 || uint64(be.Uint32(b)) > uint64(len(b)-4) { // a list must not be cut off
		return q, senseInvalidParameter
	}
	b = b[4 : 4+be.Uint32(b)]
	for len(b) > 0 {
		id, n, err := parseTransportID(b)
		if err != nil || len(q.ids) == maxRegistrations {
			return q, senseInvalidParameter
		}
		q.ids = append(q.ids, id)
		b = b[n:]
	}
	if len(q.ids) == 0 || q.action == prRegisterMove && len(q.ids) != 1 {
		return q, senseInvalidParameter
	}
	return q, sense{}
}

// prPlace is where a command is decided: the ports of the target, the initiator
// ports that have sessions there, and whether a state can survive a power loss.
type prPlace struct {
	ports   []uint16
	known   func(initiator string) [][6]byte
	durable bool
}

// prResult is what a command comes to: refused, nothing to do (next is nil), or
// a change and whom it concerns.
type prResult struct {
	status byte
	sense  sense
	next   *registry
	lost   []itNexus // preempted: what they have under way does not take effect later
	tell   []prNotice
}

// prNotice is a unit attention for a nexus.
type prNotice struct {
	itNexus
	ua sense
}

func prRefused(s sense) prResult { return prResult{status: statusCheckCondition, sense: s} }

var prConflict = prResult{status: statusReservationConflict}

// notify adds a unit attention for each nexus.
func (x *prResult) notify(list []itNexus, ua sense) {
	for _, n := range list {
		x.tell = append(x.tell, prNotice{n, ua})
	}
}

// decide works out what a command of a nexus does. It changes nothing.
func (r *registry) decide(by itNexus, q *prOut, at prPlace) prResult {
	if q.aptpl && !at.durable && (q.action == prRegister || q.action == prRegisterIgnore || q.action == prRegisterMove) {
		return prRefused(senseInvalidParameter)
	}
	have := r.find(by)
	switch q.action {
	case prRegister, prRegisterIgnore:
		if q.action == prRegister && q.key != have {
			return prConflict
		}
		return r.register(by, q, at)
	}
	if have == 0 || q.key != have {
		return prConflict
	}
	switch q.action {
	case prReserve:
		return r.decideReserve(by, q)
	case prRelease:
		return r.decideRelease(by, q)
	case prClear:
		return r.clear(by)
	case prPreempt, prPreemptAbort:
		return r.preempt(by, q)
	}
	return r.move(by, q, at)
}

// changed makes a result of a changed registry, unless it has become too large.
func (x prResult) changed(n *registry) prResult {
	if len(n.list) > maxRegistrations {
		return prRefused(senseNoRegistrations)
	}
	x.next = n
	return x
}

// register is REGISTER and REGISTER AND IGNORE EXISTING KEY (SPC-4 clauses 5.12.7,
// 5.12.11.3): a key of 0 unregisters. With ALL_TG_PT the command counts as received
// through every port of the target.
func (r *registry) register(by itNexus, q *prOut, at prPlace) prResult {
	ports := []uint16{by.port}
	for _, p := range at.ports {
		if q.allPorts && p != by.port {
			ports = append(ports, p)
		}
	}
	if q.specified && r.find(by) != 0 {
		return prRefused(senseInvalidParameter)
	}
	more, bad := q.named(by, ports, at)
	if bad != (sense{}) {
		return prRefused(bad)
	}
	n, touched := r.copy(), false
	for _, p := range ports {
		x := by
		x.port = p
		key := r.find(x)
		if q.action == prRegister && key != 0 && key != q.key {
			return prConflict
		}
		if q.newKey != 0 {
			n.set(x, q.newKey)
		}
		touched = touched || q.newKey != 0 || key != 0
	}
	if !touched { // an unregistered nexus unregisters
		return prResult{}
	}
	for _, x := range more {
		if r.find(x) != 0 {
			return prConflict
		}
		n.set(x, q.newKey)
	}
	if q.newKey == 0 {
		n.remove(func(g registration) bool {
			return g.initiator == by.initiator && g.isid == by.isid && slices.Contains(ports, g.port)
		})
	}
	n.aptpl = q.aptpl
	n.generation++
	var x prResult
	if registrantsOnly(r.kind) && n.kind == 0 {
		x.notify(n.others(by), uaReservationsReleased)
	}
	return x.changed(n)
}

// named lists the nexuses that the command's TransportIDs name at some ports, but
// the one it came through. A name without an ISID is that of all initiator ports
// which have a session here; there must be one.
func (q *prOut) named(by itNexus, ports []uint16, at prPlace) (list []itNexus, bad sense) {
	for _, id := range q.ids {
		isids := [][6]byte{id.isid}
		if id.any {
			isids = at.known(id.initiator)
		}
		if len(isids) == 0 {
			return nil, senseInvalidParameter
		}
		if len(list)+len(isids)*len(ports) > maxRegistrations+len(ports) {
			return nil, senseNoRegistrations
		}
		for _, isid := range isids {
			for _, p := range ports {
				if n := (itNexus{id.initiator, isid, p}); n != by {
					list = append(list, n)
				}
			}
		}
	}
	return list, sense{}
}

// decideReserve is RESERVE (SPC-4 clause 5.12.9).
func (r *registry) decideReserve(by itNexus, q *prOut) prResult {
	switch {
	case q.scope != 0 || !validReservation(q.kind):
		return prRefused(senseInvalidField)
	case r.holds(by) && r.kind == q.kind:
		return prResult{}
	case r.kind != 0:
		return prConflict
	}
	n := r.copy()
	n.reserve(by, q.kind)
	return prResult{next: n}
}

// decideRelease is RELEASE (SPC-4 clause 5.12.11.2).
func (r *registry) decideRelease(by itNexus, q *prOut) prResult {
	switch {
	case !r.holds(by):
		return prResult{}
	case q.scope != 0 || q.kind != r.kind:
		return prRefused(senseInvalidRelease)
	}
	n := r.copy()
	n.kind, n.holder = 0, itNexus{}
	x := prResult{next: n}
	if registrantsOnly(r.kind) || allRegistrants(r.kind) {
		x.notify(r.others(by), uaReservationsReleased)
	}
	return x
}

// clear is CLEAR (SPC-4 clause 5.12.11.6).
func (r *registry) clear(by itNexus) prResult {
	n := r.copy()
	n.list, n.kind, n.holder = nil, 0, itNexus{}
	n.reindex()
	n.generation++
	x := prResult{next: n}
	x.notify(r.others(by), uaReservationsPreempted)
	return x
}

// preempt is PREEMPT and PREEMPT AND ABORT (SPC-4 clauses 5.12.11.4, 5.12.11.5):
// registrations with a key go, and when that is the key of the holder, or 0 with a
// reservation of all registrants, the reservation becomes the preemptor's.
func (r *registry) preempt(by itNexus, q *prOut) prResult {
	takes := allRegistrants(r.kind) && q.newKey == 0 ||
		r.kind != 0 && !allRegistrants(r.kind) && q.newKey != 0 && q.newKey == r.find(r.holder)
	if q.newKey == 0 && !takes {
		return prRefused(senseInvalidParameter)
	}
	if takes && (q.scope != 0 || !validReservation(q.kind)) {
		return prRefused(senseInvalidField)
	}
	gone := func(g registration) bool {
		return (q.newKey == 0 || g.key == q.newKey) && !(takes && g.itNexus == by)
	}
	var x prResult
	matched := takes
	for _, g := range r.list {
		if gone(g) {
			matched = true
			if g.itNexus != by {
				x.lost = append(x.lost, g.itNexus)
			}
		}
	}
	if !matched {
		return prConflict
	}
	n := r.copy()
	n.remove(gone)
	x.notify(x.lost, uaRegistrationsPreempted)
	if takes {
		n.reserve(by, q.kind)
		if q.kind != r.kind {
			x.notify(n.others(by), uaReservationsReleased)
		}
	}
	n.generation++
	x.next = n
	return x
}

// move is REGISTER AND MOVE (SPC-4 clause 5.12.8): the holder hands its reservation
// to another nexus, which it registers.
func (r *registry) move(by itNexus, q *prOut, at prPlace) prResult {
	switch {
	case r.kind == 0:
		return prRefused(senseInvalidField)
	case allRegistrants(r.kind) || !r.holds(by):
		return prConflict
	case q.newKey == 0 || !slices.Contains(at.ports, q.port):
		return prRefused(senseInvalidParameter)
	}
	to, bad := q.named(itNexus{}, []uint16{q.port}, at)
	if bad != (sense{}) || len(to) != 1 || to[0] == by { // nobody, several, or the nexus itself
		return prRefused(senseInvalidParameter)
	}
	n := r.copy()
	n.set(to[0], q.newKey)
	n.holder = to[0]
	if q.unregister {
		n.remove(func(g registration) bool { return g.itNexus == by })
	}
	n.aptpl = q.aptpl
	n.generation++
	return prResult{}.changed(n)
}

// checkPROut checks the length of the parameter list.
func checkPROut(t *task) bool {
	if t.cdbLen < prListBytes || t.cdbLen > uint64(maxPRList) || uint64(t.edtl) < t.cdbLen || !t.write {
		return t.refuse(senseListLength)
	}
	return true
}

func allocPROut(t *task) uint64 { return uint64(be.Uint32(t.cdb[5:])) }

// persistentCommands are the rows of the command table, one for each service action.
func persistentCommands() []command {
	in := func(name string, sa int) command {
		return command{"PERSISTENT RESERVE IN, " + name, opPersistentIn, sa, "\x1f\x00\x00\x00\x00\x00\xff\xff\x04", dirIn,
			0, alloc10, nil, persistentIn}
	}
	out := func(name string, sa int, scopeType string) command {
		return command{"PERSISTENT RESERVE OUT, " + name, opPersistentOut, sa, "\x1f" + scopeType + "\x00\x00\xff\xff\xff\xff\x04", dirOut,
			wholeData | changesReservation, allocPROut, checkPROut, changeReservation}
	}
	return []command{
		in("READ KEYS", prReadKeys),
		in("READ RESERVATION", prReadReservation),
		in("REPORT CAPABILITIES", prReportCapability),
		in("READ FULL STATUS", prReadFullStatus),
		out("REGISTER", prRegister, "\x00"),
		out("RESERVE", prReserve, "\xff"),
		out("RELEASE", prRelease, "\xff"),
		out("CLEAR", prClear, "\x00"),
		out("PREEMPT", prPreempt, "\xff"),
		out("PREEMPT AND ABORT", prPreemptAbort, "\xff"),
		out("REGISTER AND IGNORE EXISTING KEY", prRegisterIgnore, "\x00"),
		out("REGISTER AND MOVE", prRegisterMove, "\x00"),
	}
}
