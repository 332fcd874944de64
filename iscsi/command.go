package iscsi

// scsiCommand takes a SCSI Command PDU with n bytes of immediate data.
func (c *conn) scsiCommand(h *bhs, n int) error {
	t := c.srv.tasks.Get().(*task)
	t.reset(c)
	t.itt, t.edtl = h.itt(), be.Uint32(h[20:])
	t.read, t.write = h[1]&0x40 != 0, h[1]&0x20 != 0
	t.immediate = h.immediate()
	t.attr = h[1] & 0x07
	t.address(lunOf(h[8:16]))
	copy(t.cdb[:], h[32:48])
	t.since = c.now
	c.sess.commands.Add(1)
	c.srv.stats.commands.Add(1)

	reason, ok := byte(rejectInvalid), t.takeAHS(c.ahs)
	if ok {
		reason, ok = c.admit(t)
	}
	if !ok {
		c.srv.tasks.Put(t)
		c.advanceWindow(h)
		if err := c.readData(nil, n); err != nil {
			return err
		}
		c.reject(reason, false)
		return nil
	}
	if n > 0 && (!t.write || !c.neg.ImmediateData || n > int(c.neg.FirstBurst) || uint64(n) > uint64(t.edtl)) ||
		!h.final() && (!t.write || c.neg.InitialR2T) {
		return c.violation()
	}
	ok = t.prepare()
	if err := c.readData(t.data, n); err != nil {
		return err
	}
	t.got = uint32(n)
	if !ok {
		if c.begin(t, false) {
			t.finish()
		}
		return nil
	}
	if !t.write || t.cmd.dir != dirOut || t.got >= t.want && h.final() {
		c.execute(t)
		return nil
	}
	c.mu.Lock()
	t.awaiting = true
	c.mu.Unlock()
	c.data.Add(1)
	if !h.final() { // the rest of the first burst follows without R2T
		t.ttt, t.burstEnd = noTag, min(c.neg.FirstBurst, t.edtl)
		return nil
	}
	c.solicit(t)
	return nil
}

// address says which logical unit a task is for, as its session sees it.
func (t *task) address(n uint16, ok bool) {
	t.lunNo, t.lunOK, t.lu, t.protected = n, ok, nil, false
	if ok {
		u := t.c.sess.view.Load().units[n]
		t.lu, t.protected = u.lun, u.readOnly
	}
}

// admit registers a task, unless its tag is in use or too many are in flight.
func (c *conn) admit(t *task) (reason byte, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case t.itt == noTag:
		return rejectInvalid, false
	case c.tasks[t.itt] != nil:
		return rejectInProgress, false
	case t.immediate && c.immediates >= maxImmediate: // the others are bounded by the window
		return rejectTooMany, false
	}
	if t.immediate {
		c.immediates++
	}
	c.arrive(t)
	c.tasks[t.itt] = t
	return 0, true
}

// prepare finds out what the command is and whether it can run; false means
// that its status is set already. It allocates the data buffer.
func (t *task) prepare() bool {
	if t.lu != nil {
		t.nx = t.c.sess.nexus(t.lu)
		t.nx.begin()
	}
	t.cmd = t.c.srv.commands.lookup(t.lu, &t.cdb)
	if t.c.draining.Load() {
		t.status = statusBusy
		return false
	}
	if !t.precheck() {
		return false
	}
	if t.cmd.length != nil {
		t.cdbLen = t.cmd.length(t)
	}
	// Bidirectional transfer is refused, and so is data-out announced as data-in,
	// and a CDB longer than any command's. A reading command announced as data-out
	// only moves nothing.
	if t.longCDB || t.read && t.write || t.cmd.dir == dirOut && t.read && t.cdbLen > 0 {
		return t.refuse(senseInvalidIU)
	}
	if t.cmd.validate != nil && !t.forwards() && !t.cmd.validate(t) {
		return false
	}
	return t.reserveBuffer()
}

// precheck does the checks that come before any command's own, in SAM-5 order.
func (t *task) precheck() bool {
	anywhere := t.cmd != nil && t.cmd.flags&anyLUN != 0
	if t.lu == nil && !anywhere {
		return t.refuse(senseNoLUN)
	}
	if t.lu != nil && (t.cmd == nil || t.cmd.flags&noAttention == 0) {
		if ua, ok := t.c.sess.takeAttention(t.lu); ok {
			return t.refuse(ua)
		}
	}
	if t.cmd == nil && t.c.srv.commands.hasActions(t.cdb[0]) {
		return t.refuse(senseInvalidField) // SPC-4 clause 4.3.4: an unknown service action
	}
	if t.cmd == nil {
		return t.refuse(senseInvalidOpcode)
	}
	if t.cdb[cdbLength(t.cdb[0])-1]&0x04 != 0 { // NACA (SAM-5 clause 5.2)
		return t.refuse(senseInvalidField)
	}
	if t.attr >= attrACA { // there is no ACA condition
		return t.refuse(senseInvalidMessage)
	}
	if a := t.access(); a > ALUANonOptimized && t.lu != nil && !a.accessible(t.cdb[0]) {
		return t.refuse(a.sense())
	}
	if t.lu != nil && !t.checkReservation() {
		return false
	}
	if t.cmd.flags&writes != 0 {
		if s, ok := t.lu.protection(t.protected); ok {
			return t.refuse(s)
		}
	}
	return true
}

// refuse sets CHECK CONDITION; it returns false for the caller to return.
func (t *task) refuse(s sense) bool {
	t.status, t.sense = statusCheckCondition, s
	return false
}

// reserveBuffer counts the task's data against the session and allocates it (I5).
func (t *task) reserveBuffer() bool {
	n := uint64(0)
	switch t.cmd.dir {
	case dirOut:
		t.want = uint32(min(t.cdbLen, uint64(t.edtl)))
		if !t.write {
			t.want = 0
		}
		n = uint64(t.want)
		if t.cmd.flags&wholeData != 0 {
			n = t.cdbLen
		}
	case dirIn:
		if t.cmd.flags&bulk != 0 {
			n = t.cdbLen
		}
	}
	if n > maxTransfer {
		return t.refuse(senseInvalidField)
	}
	if !t.c.hold(t, int64(n)) {
		t.status = statusTaskSetFull
		return false
	}
	t.allocate(int(n))
	return true
}

// execute runs a task that has all its data, or holds it until older ones ended.
func (c *conn) execute(t *task) {
	if c.begin(t, true) {
		c.start(t)
	}
}

// begin makes a task the caller's to run or answer; false means that it was
// aborted meanwhile or, where its order counts, that it is not its turn.
func (c *conn) begin(t *task, inOrder bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.aborted.Load() { // nobody else refers to it
		t.release()
		return false
	}
	if inOrder && t.hold() {
		return false
	}
	t.running = true
	return true
}

// start runs a task.
func (c *conn) start(t *task) {
	if t.lu != nil && !t.checkReservation() { // it may have changed while the task waited (R2)
		t.finish()
		return
	}
	if t.write {
		c.sess.writeBytes.Add(uint64(t.want))
		c.srv.stats.writeBytes.Add(uint64(t.want))
	}
	if t.forwards() {
		t.forward()
		return
	}
	t.cmd.run(t)
}

// solicit sends an R2T for the next burst.
func (c *conn) solicit(t *task) {
	n := min(t.want-t.got, c.neg.MaxBurst)
	t.burstEnd = t.got + n
	c.nextTTT++
	if c.nextTTT >= textTag { // tags with a meaning of their own lie at the top
		c.nextTTT = 1
	}
	t.ttt, t.dataSN = c.nextTTT, 0
	r := c.srv.reps.Get().(*reply)
	*r = reply{}
	r.hdr[0], r.hdr[1] = opR2T, finalBit
	putLUN(r.hdr[8:], t.lunNo)
	be.PutUint32(r.hdr[16:], t.itt)
	be.PutUint32(r.hdr[20:], t.ttt)
	be.PutUint32(r.hdr[36:], t.r2tSN)
	be.PutUint32(r.hdr[40:], t.got)
	be.PutUint32(r.hdr[44:], n)
	t.r2tSN++
	c.send(r)
}

// dataOut takes a Data-Out PDU of n bytes. Data for a task that is gone is
// dropped: it may have been refused or aborted while the data was on its way.
func (c *conn) dataOut(h *bhs, n int) error {
	c.mu.Lock()
	t := c.tasks[h.itt()]
	if t != nil && (t.running || t.dormant) {
		t = nil
	}
	c.mu.Unlock()
	if t == nil {
		return c.readData(nil, n)
	}
	off := be.Uint32(h[40:])
	final := h.final()
	if be.Uint32(h[20:]) != t.ttt || be.Uint32(h[36:]) != t.dataSN || off != t.got ||
		uint64(off)+uint64(n) > uint64(t.burstEnd) {
		return c.badDataOut(t, n)
	}
	var dst []byte
	if off < t.want {
		dst = t.data[off:t.want]
	}
	if err := c.readData(dst, n); err != nil {
		return err
	}
	t.got += uint32(n)
	t.dataSN++
	c.data.Add(1)
	switch {
	case !final:
		return nil
	case t.got >= t.want:
		c.execute(t)
	case t.got < t.burstEnd && t.ttt != noTag: // a solicited burst must be complete
		c.failReceiving(t)
	default:
		if t.aborted.Load() {
			return nil
		}
		c.solicit(t)
	}
	return nil
}

// badDataOut ends a task whose data does not follow the rules: at error recovery
// level 0 nothing is asked for again.
func (c *conn) badDataOut(t *task, n int) error {
	if err := c.readData(nil, n); err != nil {
		return err
	}
	c.reject(rejectProtocol, false)
	c.failReceiving(t)
	return nil
}

func (c *conn) failReceiving(t *task) {
	c.mu.Lock()
	gone := t.aborted.Load()
	t.running = true
	c.mu.Unlock()
	if !gone {
		t.fail(senseDataPhase)
	}
}
