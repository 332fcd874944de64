package iscsi

import (
	"errors"
	"slices"
	"sync"
)

// EXTENDED COPY(LID1), with segments from disk to disk (SPC-4 clauses 5.16 and 6.4).
// Sources and destinations (CSCDs) are named by their NAA designator. Who may be
// named is what the initiator itself could read and write: a unit that one of the
// initiator's sessions on this server sees now. Everything else does not exist here.
//
// The parameter list:
//
//	 0          1      2          4         8              12            16
//	+----------+------+----------+---------+--------------+-------------+
//	| list id  | use  | CSCD len | 0       | segments len | inline len  |
//	+----------+------+----------+---------+--------------+-------------+
//	| CSCD E4h: type, flags, 0 | code set, kind, 0, len | designator (20) | pad, block len | x n
//	| segment 02h: type, DC, len | source, destination | 0 | blocks | source LBA | dest LBA | x n
//
// Nothing is copied before the whole list is known to be good. The copy then runs in
// steps of workBytes through one buffer; between steps it stops when it is aborted,
// when the session ends, or when a unit is no longer the initiator's to use. What
// the source does not hold is unmapped at the destination instead of written.

// Service actions.
const (
	saExtendedCopy   = 0x00
	saCopyStatus     = 0x00
	saCopyParameters = 0x03
	saCopyFailure    = 0x04
)

// Limits, announced in VPD 8Fh and by RECEIVE COPY OPERATING PARAMETERS.
const (
	copyHeader  = 16
	cscdLen     = 32
	segmentLen  = 28
	cscdType    = 0xe4
	segmentType = 0x02
	maxCSCDs    = 8  // hypervisors name two
	maxSegments = 16 // with maxSegmentBytes, 512 MiB: well inside an initiator's time-out
	maxCopyList = maxCSCDs*cscdLen + maxSegments*segmentLen
	// maxSegmentBytes is what 65535 blocks of 512 bytes come near; hypervisors use 4
	// to 16 MiB.
	maxSegmentBytes = 32 << 20
	// maxCopies run at once on a server: together they hold 64 MiB of buffers.
	maxCopies = 64
)

// LIST ID USAGE.
const (
	listHold    = 0 // the list identifier is kept for RECEIVE COPY STATUS
	listDiscard = 2 // likewise; held data may be discarded
	listNone    = 3 // there is no list identifier
)

// copyJob is an EXTENDED COPY under way.
type copyJob struct {
	record   *copyRecord // nil: nobody may ask
	records  *copyRecords
	segments []copySegment
	units    []*lun   // whose gate it is in
	visits   []*nexus // with units other than the one that it was sent to
	step     *foreignStep
	running  bool // counted in Server.copies

	at    int    // the segment in work
	done  uint64 // bytes of it
	piece uint64 // bytes of the step in work
	phase copyPhase
	wrote bool // something may have changed
}

type copyPhase uint8

const (
	copyNext    copyPhase = iota
	copyReading           // the source reads into the buffer
	copyWriting           // the destination writes, or unmaps
)

// copyEnd is a CSCD: what a session sees under a number.
type copyEnd struct {
	lu     *lun
	ss     *session
	number uint16
}

type copySegment struct {
	source, dest     *copyEnd
	from, to         int64 // bytes
	length           uint64
	shift            uint8 // of the blocks that residuals are counted in
	backwards, apart bool  // it overlaps itself upwards; it does not overlap itself
}

// checkCopy bounds the parameter list before its data is asked for.
func checkCopy(t *task) bool {
	if t.cdbLen > copyHeader+maxCopyList || t.cdbLen > 0 && t.cdbLen < copyHeader {
		return t.refuse(senseListLength)
	}
	if uint64(t.edtl) < t.cdbLen || t.cdbLen > 0 && !t.write {
		return t.refuse(senseListLength)
	}
	return true
}

// extendedCopy checks the list, then copies.
func extendedCopy(t *task) {
	if t.cdbLen == 0 {
		t.good(0)
		return
	}
	j, s, ok := t.parseCopy(t.data)
	if !ok {
		t.fail(s)
		return
	}
	if n := t.c.srv.copies.Add(1); n > maxCopies {
		t.c.srv.copies.Add(-1)
		t.status = statusBusy
		t.finish()
		return
	}
	j.running = true
	t.copy = j
	if s, ok := j.begin(&t.c.sess.copies, t.data[0], t.data[1]>>3&0x03); !ok {
		t.fail(s)
		return
	}
	if t.workBuffer(workBytes) {
		t.steps(copyStep)
	}
}

// begin registers the list identifier and enters the gates.
func (j *copyJob) begin(records *copyRecords, id, usage byte) (sense, bool) {
	if usage != listNone {
		r, ok := records.begin(id)
		if !ok {
			return senseInProgress, false
		}
		j.record, j.records = r, records
	}
	for i := range j.segments {
		for _, e := range []*copyEnd{j.segments[i].source, j.segments[i].dest} {
			if slices.Contains(j.units, e.lu) {
				continue
			}
			if !e.lu.copies.enter() {
				return senseUnreachableCSCD, false
			}
			j.units = append(j.units, e.lu)
		}
	}
	return sense{}, true
}

// visit returns the copy's nexus with a unit: its Ops wait there like a session's.
func (j *copyJob) visit(ss *session, l *lun) *nexus {
	for _, n := range j.visits {
		if n.lu == l {
			return n
		}
	}
	n := &nexus{ss: ss, lu: l}
	if l.join(n) {
		j.visits = append(j.visits, n)
	}
	return n
}

// end leaves everything that begin took; the task is about to be answered.
func (j *copyJob) end(t *task) {
	j.step.leave()
	j.step = nil
	for _, l := range j.units {
		l.copies.leave()
	}
	for _, n := range j.visits {
		n.lu.part(n)
	}
	j.units, j.visits = nil, nil
	if j.record != nil {
		j.records.finish(j.record, t.status, t.sense)
		j.record = nil
	}
	if j.running {
		j.running = false
		t.c.srv.copies.Add(-1)
	}
}

// parseCopy reads a parameter list. Offsets in sense data are those of the list.
func (t *task) parseCopy(b []byte) (*copyJob, sense, bool) {
	no := func(s sense) (*copyJob, sense, bool) { return nil, s, false }
	cscds, segments := uint64(be.Uint16(b[2:])), uint64(be.Uint32(b[8:]))
	switch {
	case cscds+segments > uint64(len(b)-copyHeader):
		return no(senseListLength)
	case be.Uint32(b[12:]) != 0:
		return no(senseInlineData.inData(12))
	case b[1]>>3&0x03 == 1, b[1]>>3&0x03 == listNone && b[0] != 0:
		return no(senseInvalidParameter.inData(1))
	case cscds > maxCSCDs*cscdLen:
		return no(senseTooManyCSCDs.inData(2))
	case cscds%cscdLen != 0:
		return no(senseInvalidParameter.inData(2))
	}
	ends := make([]cscd, cscds/cscdLen)
	for i := range ends {
		at := copyHeader + i*cscdLen
		if b[at] != cscdType {
			return no(senseCSCDType.inData(at))
		}
		ends[i] = cscd{b: b[at : at+cscdLen]}
	}
	j := &copyJob{}
	end := copyHeader + int(cscds+segments)
	for at := copyHeader + int(cscds); at < end; at += segmentLen {
		if b[at] != segmentType {
			return no(senseSegmentType.inData(at))
		}
		if len(j.segments) == maxSegments {
			return no(senseTooManySegments.inData(8))
		}
		if end-at < segmentLen || be.Uint16(b[at+2:]) != segmentLen-4 {
			return no(senseInvalidParameter.inData(at + 2))
		}
		g, s, ok := t.parseSegment(b[at:at+segmentLen], ends, len(j.segments))
		if !ok {
			if s.field.where != 0 {
				s = s.inData(at + int(s.field.offset))
			}
			return no(s)
		}
		j.segments = append(j.segments, g)
	}
	return j, sense{}, true
}

// cscd is a CSCD descriptor, and the unit once it was looked for as one or the other:
// a descriptor that no segment uses need not name one.
type cscd struct {
	b            []byte
	source, dest *copyEnd
}

// cscdError is the sense data of a CSCD that cannot be used for a segment.
func cscdError(s sense, role byte, segment int) sense {
	s.cscd = cscdSense{role: role, segment: uint16(segment)}
	return s
}

// parseSegment checks one segment against its units. Field pointers are relative to
// the segment.
func (t *task) parseSegment(d []byte, ends []cscd, n int) (g copySegment, s sense, ok bool) {
	var s1, s2 sense
	g.source, s1 = t.cscd(ends, be.Uint16(d[4:]), false)
	if g.source == nil {
		return g, cscdError(s1, cscdSource, n), false
	}
	g.dest, s2 = t.cscd(ends, be.Uint16(d[6:]), true)
	if g.dest == nil {
		return g, cscdError(s2, cscdDestination, n), false
	}
	g.shift = g.source.lu.shift
	if d[1]&0x02 != 0 { // DC: the number of blocks is the destination's
		g.shift = g.dest.lu.shift
	}
	g.length = uint64(be.Uint16(d[10:])) << g.shift
	if g.length > maxSegmentBytes {
		return g, senseInvalidParameter.inData(10), false
	}
	if g.length%max(g.source.lu.block(), g.dest.lu.block()) != 0 {
		return g, cscdError(senseInexactSegment, cscdSource, n), false
	}
	from, to := be.Uint64(d[12:]), be.Uint64(d[20:])
	if !g.source.holds(from, g.length) {
		return g, g.source.refusal(senseLBARange, cscdSource, n), false
	}
	if !g.dest.holds(to, g.length) {
		return g, g.dest.refusal(senseLBARange, cscdDestination, n), false
	}
	if p, bad := g.dest.protection(); bad {
		return g, g.dest.refusal(p, cscdDestination, n), false
	}
	if s, bad := g.conflict(n); bad {
		return g, s, false
	}
	g.from, g.to = int64(from<<g.source.lu.shift), int64(to<<g.dest.lu.shift)
	same := g.source.lu.Disk == g.dest.lu.Disk || g.source.lu.NAA == g.dest.lu.NAA
	g.apart = !same || g.from+int64(g.length) <= g.to || g.to+int64(g.length) <= g.from
	g.backwards = !g.apart && g.from < g.to
	return g, sense{}, true
}

func (e *copyEnd) holds(lba, length uint64) bool {
	capacity, n := e.lu.capacity(), length>>e.lu.shift
	return lba <= capacity && n <= capacity-lba
}

// refusal is COPY ABORTED with what the CSCD itself would have answered.
func (e *copyEnd) refusal(s sense, role byte, segment int) sense {
	out := senseCopyAborted
	out.cscd = cscdSense{role, uint16(segment), statusCheckCondition, s.key, s.asc, s.ascq}
	return out
}

// conflict checks the reservations of both units, each as the nexus that sees it.
func (g *copySegment) conflict(segment int) (sense, bool) {
	if st := g.source.lu.res.judge(g.source.ss, accessRead); st != statusGood {
		return copyConflict(st, cscdSource, segment), true
	}
	if st := g.dest.lu.res.judge(g.dest.ss, accessWrite); st != statusGood {
		return copyConflict(st, cscdDestination, segment), true
	}
	return sense{}, false
}

// copyConflict is COPY ABORTED because of the status of a CSCD's reservations.
func copyConflict(status, role byte, segment int) sense {
	s := senseCopyAborted
	s.cscd = cscdSense{role: role, segment: uint16(segment), status: status}
	return s
}

// use asks for an Op of a unit, under its reservations: they are checked once more,
// and a change of them waits for the Op (R2, R3).
func (t *task) use(role byte, kind OpKind, off, length int64, data []byte) bool {
	j := t.copy
	g := &j.segments[j.at]
	e, access := g.source, accessRead
	if role == cscdDestination {
		e, access = g.dest, accessWrite
	}
	step, st := e.lu.res.enter(e.ss, access)
	if st != statusGood {
		return t.lastFail(j.residual(copyConflict(st, role, j.at)))
	}
	j.step = step
	return t.askOf(e.lu, kind, off, length, data)
}

// Designator of a CSCD descriptor: binary, of the logical unit, NAA, 16 bytes.
const (
	designatorBinary = 1
	designatorNAA    = 3
)

// cscd returns the unit of a CSCD descriptor, or why it cannot be used.
func (t *task) cscd(ends []cscd, id uint16, writes bool) (*copyEnd, sense) {
	if int(id) >= len(ends) {
		return nil, senseUnreachableCSCD
	}
	e := &ends[id]
	d := e.b
	if d[1]&0x1f != 0 { // peripheral device type
		return nil, senseCSCDWrongType
	}
	found := &e.source
	if writes {
		found = &e.dest
	}
	if *found == nil {
		if d[4]&0x0f != designatorBinary || d[5]&0x3f != designatorNAA || d[7] != 16 {
			return nil, senseUnreachableCSCD
		}
		*found = t.c.srv.visible(t.c.sess, [16]byte(d[8:24]), writes)
	}
	if *found == nil {
		return nil, senseUnreachableCSCD
	}
	if n := uint64(d[29])<<16 | uint64(be.Uint16(d[30:])); n != (*found).lu.block() {
		return nil, senseInvalidParameter
	}
	return *found, sense{}
}

// visible finds a logical unit by its NAA designator among what the initiator of a
// session sees: in this session first, then in its other sessions, of any target.
// One that it may write to goes first where that is wanted.
func (s *Server) visible(by *session, naa [16]byte, writes bool) *copyEnd {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*session, 1, 4)
	all[0] = by
	for _, t := range s.targets {
		for ss := range t.sessions {
			if ss != by && ss.initiator == by.initiator {
				all = append(all, ss)
			}
		}
	}
	slices.SortFunc(all[1:], func(a, b *session) int { return int(a.tsih) - int(b.tsih) })
	var found *copyEnd
	for _, ss := range all {
		v := ss.view.Load()
		for _, n := range v.numbers {
			e := &copyEnd{v.units[n].lun, ss, n}
			if e.lu.NAA != naa || e.lu.remote != nil || !e.reachable() {
				continue
			}
			if _, protected := e.protection(); !writes || !protected {
				return e
			}
			if found == nil {
				found = e
			}
		}
	}
	return found
}

// protection tells why the session may not write to the unit now.
func (e *copyEnd) protection() (sense, bool) {
	return e.lu.protection(e.ss.view.Load().units[e.number].readOnly)
}

// reachable tells whether the session still sees the unit, through a port group that
// takes such commands.
func (e *copyEnd) reachable() bool {
	return e.ss.lun(e.number) == e.lu && ALUAState(e.ss.state.Load()) <= ALUANonOptimized &&
		!e.ss.conn.closed.Load() && !e.lu.copies.closing()
}

// copyStep goes on with a copy.
func copyStep(t *task) bool {
	j := t.copy
	j.step.leave()
	j.step = nil
	switch j.phase {
	case copyReading:
		g := &j.segments[j.at]
		if s, ok := g.usable(j.at); !ok {
			return t.lastFail(j.residual(s))
		}
		j.phase, j.wrote = copyWriting, true
		_, to := j.place()
		return t.use(cscdDestination, OpWrite, to, 0, t.ref[:j.piece])
	case copyWriting:
		j.done += j.piece
		j.progress(j.at, j.piece)
		j.phase = copyNext
	}
	for j.at < len(j.segments) && j.done == j.segments[j.at].length {
		j.at, j.done = j.at+1, 0
		j.progress(j.at, 0)
	}
	if j.at == len(j.segments) {
		return t.last(t.cdbLen)
	}
	g := &j.segments[j.at]
	if s, ok := g.usable(j.at); !ok {
		return t.lastFail(j.residual(s))
	}
	hole, n := g.next(j.done, uint64(len(t.ref)))
	j.piece = n
	from, to := j.place()
	if hole {
		j.phase, j.wrote = copyWriting, true
		return t.use(cscdDestination, OpUnmap, to, int64(n), nil)
	}
	j.phase = copyReading
	return t.use(cscdSource, OpRead, from, 0, t.ref[:n])
}

// place returns where the piece in work lies on source and destination. A segment
// that overlaps itself upwards is copied from its end.
func (j *copyJob) place() (from, to int64) {
	g := &j.segments[j.at]
	off := int64(j.done)
	if g.backwards {
		off = int64(g.length - j.done - j.piece)
	}
	return g.from + off, g.to + off
}

// usable checks what may change during a copy: visibility, write protection,
// reservations.
func (g *copySegment) usable(segment int) (sense, bool) {
	if !g.source.reachable() {
		return cscdError(senseUnreachableCSCD, cscdSource, segment), false
	}
	if !g.dest.reachable() {
		return cscdError(senseUnreachableCSCD, cscdDestination, segment), false
	}
	if p, bad := g.dest.protection(); bad {
		return g.dest.refusal(p, cscdDestination, segment), false
	}
	s, bad := g.conflict(segment)
	return s, !bad
}

// minHole is the shortest hole of the source that is not copied as zeros: below it,
// another read and write cost more than the space.
const minHole = 64 << 10

// next returns how much of the segment the next step takes, from done on, at most
// limit bytes, and whether that is a hole of the source.
func (g *copySegment) next(done, limit uint64) (hole bool, n uint64) {
	left := min(g.length-done, limit)
	p, ok := g.source.lu.Disk.(Provisioner)
	if !ok || !g.apart {
		return false, left
	}
	for n < left {
		mapped, run := g.allocated(p, done+n, left-n)
		if mapped {
			break
		}
		n += run
	}
	if n == left || n >= minHole {
		block := max(g.source.lu.block(), g.dest.lu.block())
		if m := uint64(g.dest.lu.Disk.Geometry().MaxUnmapBytes); m >= block {
			n = min(n, m&^(block-1))
		}
		return true, n
	}
	for end := n; n < left; { // data up to the next hole
		mapped, run := g.allocated(p, done+n, left-n)
		n += run
		if mapped {
			end = n
		} else if n-end >= minHole {
			return false, end
		}
	}
	return false, left
}

// allocated asks whether the source holds data at an offset of the segment, and for
// how many bytes, in whole blocks and at most limit, that holds.
func (g *copySegment) allocated(p Provisioner, off, limit uint64) (mapped bool, n uint64) {
	block := max(g.source.lu.block(), g.dest.lu.block())
	mapped, run := p.Allocated(g.from + int64(off))
	if run < int64(block) { // a part of a block counts as data
		return true, block
	}
	return mapped, min(uint64(run)&^(block-1), limit)
}

// copyFailed ends a copy whose Op failed: COPY ABORTED with what the unit answered.
// Before anything was written, a busy unit makes the command busy.
func (t *task) copyFailed(err error) {
	j := t.copy
	g := &j.segments[j.at]
	role, e := byte(cscdSource), g.source
	if j.phase == copyWriting {
		role, e = cscdDestination, g.dest
	}
	status, s := opResult(&t.op, err, e.lu.shift)
	first := g.apart && j.phase == copyWriting && j.at == 0 && j.done == 0
	if status == statusBusy && (!j.wrote || first) { // a repetition does the same
		t.status = status
		t.finish()
		return
	}
	out := senseThirdParty
	if errors.Is(err, ErrGone) {
		out = senseCSCDGone
	}
	out.cscd = cscdSense{role, uint16(j.at), status, s.key, s.asc, s.ascq}
	t.fail(j.residual(out))
}

// residual adds how many blocks of the segment in work were not copied.
func (j *copyJob) residual(s sense) sense {
	g := &j.segments[j.at]
	s.setInfo((g.length - j.done) >> g.shift)
	return s
}

// progress tells those who ask how far the copy is.
func (j *copyJob) progress(segments int, bytes uint64) {
	if j.record != nil {
		j.records.progress(j.record, segments, bytes)
	}
}

// copyRecords are the results of a nexus's copies by list identifier, the newest of
// each: at most 256 small records. They end with the session.
type copyRecords struct {
	mu sync.Mutex
	m  map[byte]*copyRecord
}

// copyRecord is under copyRecords.mu.
type copyRecord struct {
	running  bool
	segments int
	bytes    uint64
	status   byte // when not running
	sense    sense
}

// begin starts a record; false: a copy with this list identifier is under way.
func (c *copyRecords) begin(id byte) (*copyRecord, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.m[id]; r != nil && r.running {
		return nil, false
	}
	if c.m == nil {
		c.m = map[byte]*copyRecord{}
	}
	r := &copyRecord{running: true}
	c.m[id] = r
	return r, true
}

func (c *copyRecords) progress(r *copyRecord, segments int, bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.segments, r.bytes = segments, r.bytes+bytes
}

func (c *copyRecords) finish(r *copyRecord, status byte, s sense) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.running, r.status, r.sense = false, status, s
}

// get returns a copy of a record.
func (c *copyRecords) get(id byte) (copyRecord, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.m[id]
	if r == nil {
		return copyRecord{}, false
	}
	return *r, true
}
