package iscsi

// maxImmediate is how many immediate commands may be in flight beyond the window.
const maxImmediate = 16

// readLoop handles PDUs of the full feature phase.
func (c *conn) readLoop() error {
	for {
		if err := c.readHeader(); err != nil {
			return err
		}
		h := &c.hdr
		n := h.dataLen()
		if n > int(c.neg.MaxRecvTarget) {
			return c.violation()
		}
		op := h.op()
		if op != opDataOut && op != opSNACK {
			if take, err := c.takeCmdSN(h); err != nil {
				return err
			} else if !take {
				if err := c.readData(nil, n); err != nil {
					return err
				}
				continue
			}
		}
		if err := c.handle(op, h, n); err != nil {
			return err
		}
	}
}

// takeCmdSN checks a command's number against the window. A number outside it
// is ignored (RFC 7143 section 4.2.2.1). A gap inside it cannot be filled on a
// single connection, which delivers in order: the session is lost.
func (c *conn) takeCmdSN(h *bhs) (bool, error) {
	if h.immediate() {
		return true, nil
	}
	sn, exp := h.cmdSN(), c.expCmdSN.Load()
	if serialLess(sn, exp) || serialLess(c.maxCmdSN.Load(), sn) {
		return false, nil
	}
	if sn != exp {
		return false, c.violation()
	}
	c.expCmdSN.Store(exp + 1)
	return true, nil
}

// advanceWindow gives a number back that no task holds.
func (c *conn) advanceWindow(h *bhs) {
	if !h.immediate() {
		c.maxCmdSN.Add(1)
	}
}

func (c *conn) handle(op byte, h *bhs, n int) error {
	if op == opSCSICmd && c.sess != nil {
		return c.scsiCommand(h, n)
	}
	if op == opDataOut && c.sess != nil {
		return c.dataOut(h, n)
	}
	c.advanceWindow(h)
	switch op {
	case opNopOut:
		if c.sess != nil {
			return c.nopOut(h, n)
		}
	case opTaskMgmt:
		if c.sess != nil {
			return c.taskManagement(h, n)
		}
	case opText:
		return c.textRequest(h, n)
	case opLogout:
		return c.logout(h, n)
	case opSNACK: // only with error recovery level 1 and above
		if err := c.readData(nil, n); err != nil {
			return err
		}
		c.reject(rejectSNACK, false)
		return nil
	case opLogin:
		return c.violation()
	}
	if err := c.readData(nil, n); err != nil {
		return err
	}
	c.reject(rejectUnknown, false)
	return nil
}

// nopOut answers a ping with its own data, and takes the answer to ours.
func (c *conn) nopOut(h *bhs, n int) error {
	itt := h.itt()
	if itt == noTag {
		return c.readData(nil, n)
	}
	data := make([]byte, min(n, int(c.maxSend.Load())))
	r := c.srv.reps.Get().(*reply)
	*r = reply{advance: true, data: data}
	r.hdr[0], r.hdr[1] = opNopIn, finalBit
	copy(r.hdr[8:16], h[8:16])
	be.PutUint32(r.hdr[16:], itt)
	be.PutUint32(r.hdr[20:], noTag)
	if err := c.readData(data, n); err != nil {
		return err
	}
	c.send(r)
	return nil
}

// Logout reasons and responses (RFC 7143 sections 11.14.1, 11.15.1).
const (
	logoutConnection = 1 // 0 is the session; above is recovery

	logoutNoCID      = 1
	logoutNoRecovery = 2
)

// logout closes the session, or this connection of it, which is the same here.
func (c *conn) logout(h *bhs, n int) error {
	reason, cid := h[1]&0x7f, be.Uint16(h[20:])
	itt := h.itt()
	if err := c.readData(nil, n); err != nil {
		return err
	}
	r := c.srv.reps.Get().(*reply)
	*r = reply{advance: true}
	r.hdr[0], r.hdr[1] = opLogoutResp, finalBit
	be.PutUint32(r.hdr[16:], itt)
	switch {
	case reason > logoutConnection:
		r.hdr[2] = logoutNoRecovery
		c.send(r)
		return nil
	case reason == logoutConnection && cid != c.cid:
		r.hdr[2] = logoutNoCID
		c.send(r)
		return nil
	}
	r.last = true
	// Commands before the logout finish and are answered first.
	c.mu.Lock()
	for id, t := range c.tasks {
		if !t.running && !t.dormant {
			c.discharge(t)
			delete(c.tasks, id)
			c.leave(t)
		}
	}
	c.mu.Unlock()
	c.runReady()
	c.sendInline() // from here on the writer sends
	c.mu.Lock()
	for len(c.tasks) > 0 && !c.closed.Load() {
		c.idleWake.Wait()
	}
	c.enqueue(outItem{r: r})
	c.mu.Unlock()
	return errLogout
}

// textRequest serves SendTargets and renegotiation attempts. A request with the
// reserved transfer tag begins an exchange and ends an unfinished one; others go on
// with it (RFC 7143 section 11.10.4).
func (c *conn) textRequest(h *bhs, n int) error {
	itt, final, more := h.itt(), h.final(), h[1]&0x40 != 0
	ttt := be.Uint32(h[20:])
	if ttt == noTag {
		c.text, c.textRest = nil, nil
	}
	if final && more || itt == noTag || ttt != noTag && ttt != textTag {
		c.text, c.textRest = nil, nil
		if err := c.readData(nil, n); err != nil {
			return err
		}
		c.reject(rejectProtocol, false)
		return nil
	}
	if len(c.text)+n > maxTextBytes {
		return c.violation()
	}
	at := len(c.text)
	c.text = append(c.text, make([]byte, n)...)
	if err := c.readData(c.text[at:], n); err != nil {
		return err
	}
	r := c.srv.reps.Get().(*reply)
	*r = reply{advance: true}
	r.hdr[0] = opTextResp
	copy(r.hdr[8:16], h[8:16])
	be.PutUint32(r.hdr[16:], itt)
	if more {
		be.PutUint32(r.hdr[20:], textTag)
		c.send(r)
		return nil
	}
	if len(c.text) == 0 && len(c.textRest) > 0 {
		c.sendText(r, c.textRest, final)
		return nil
	}
	keys, err := parseText(c.text)
	c.text = nil
	if err != nil {
		c.srv.reps.Put(r)
		c.reject(rejectProtocol, false)
		return nil
	}
	w := &textWriter{}
	g := negotiation{n: c.neg, discovery: c.sess == nil}
	for _, kv := range keys {
		c.textKey(kv, &g, w)
	}
	c.sendText(r, w.b, final)
	return nil
}

// textTag marks a text exchange that goes on.
const textTag = 0xfffffffd

func (c *conn) textKey(kv keyValue, g *negotiation, w *textWriter) {
	switch kv.key {
	case "SendTargets":
		c.sendTargets(kv.value, w)
	case "MaxRecvDataSegmentLength": // the one key that may change in this phase
		if v, ok := number(kv.value, minSegment, maxSegment); ok && c.sess != nil {
			c.maxSend.Store(v)
		} else {
			w.add(kv.key, rejected)
		}
	default:
		probe := &textWriter{}
		g.answer(kv, probe)
		if string(probe.b) == kv.key+"="+notUnderstood+"\x00" {
			w.add(kv.key, notUnderstood)
		} else if !answerOnly(kv.value) {
			w.add(kv.key, rejected) // operational keys are for the login phase
		}
	}
}

// sendText answers with text; what does not fit into one PDU follows on the
// initiator's empty requests (C bit, RFC 7143 section 11.11.3).
func (c *conn) sendText(r *reply, text []byte, final bool) {
	n := min(len(text), int(c.maxSend.Load()))
	r.data, c.textRest = text[:n], text[n:]
	switch {
	case len(c.textRest) > 0:
		r.hdr[1] = 0x40
		be.PutUint32(r.hdr[20:], textTag)
	case final:
		r.hdr[1] = finalBit
		be.PutUint32(r.hdr[20:], noTag)
	default:
		be.PutUint32(r.hdr[20:], textTag)
	}
	c.send(r)
}

// sendTargets lists the targets that the initiator may see, with every portal
// (RFC 7143 appendix C): all or one by name in a discovery session, only its own
// in a normal one.
func (c *conn) sendTargets(what string, w *textWriter) {
	name := NormalizeName(what)
	if c.sess != nil {
		switch {
		case what == "All":
			w.add("SendTargets", rejected)
		case what == "" || name == c.sess.target.name:
			c.sess.target.describe(w, c.local)
		}
		return
	}
	if what == "" {
		w.add("SendTargets", rejected)
		return
	}
	c.srv.mu.Lock()
	list := make([]*target, 0, len(c.srv.targets))
	for _, t := range c.srv.targets {
		if what == "All" || t.name == name {
			list = append(list, t)
		}
	}
	c.srv.mu.Unlock()
	sortTargets(list)
	for _, t := range list {
		if t.admit(c.name) != nil {
			t.describe(w, c.local)
		}
	}
}
