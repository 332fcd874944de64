package iscsi

// versionDescriptors of standard INQUIRY data: SAM-5, iSCSI, SPC-4, SBC-3, no
// particular version claimed.
var versionDescriptors = [8]uint16{0x00a0, 0x0960, 0x0460, 0x04c0}

// serviceFault ends a task when the SCSI service failed.
func (t *task) serviceFault(err error) {
	t.c.srv.log.Error("SCSI service fault", "target", t.c.sess.target.name, "lun", t.lunNo, "err", err)
	t.fail(senseInternal)
}

// capacity returns the logical unit's size in bytes, 0 where there is none.
func (t *task) capacity() int64 {
	if t.lu == nil {
		return 0
	}
	return t.lu.Disk.Geometry().Size
}

func (t *task) unit() *scsiLU {
	if t.lu == nil {
		return nil
	}
	return t.lu.scsi
}

// testUnitReady passes through the SCSI service.
func testUnitReady(t *task) {
	st, sn, err := t.c.sess.target.scsi.testUnitReady(t.lu.scsi, t.capacity())
	if err != nil {
		t.serviceFault(err)
		return
	}
	if st != statusGood {
		t.fail(sn)
		return
	}
	t.good(0)
}

// requestSense reports a pending unit attention, which it takes, or nothing.
func requestSense(t *task) {
	s := senseNone
	if t.lu == nil {
		s = senseNoLUN
	} else if ua, ok := t.c.sess.takeAttention(t.lu); ok {
		s = ua
	} else if a := t.access(); a > ALUANonOptimized {
		s = a.sense()
	}
	t.reply(s.encode(nil, t.cdb[1]&0x01 != 0)) // DESC
}

// checkReserve refuses third party and extent reservations (SPC-2).
func checkReserve(t *task) bool {
	if t.cdb[1]&0x11 != 0 {
		return t.refuse(senseInvalidField.at(1))
	}
	return true
}

// startStop: the unit is always started and there is nothing to eject.
func startStop(t *task) {
	loej, start, power := t.cdb[4]&0x02 != 0, t.cdb[4]&0x01 != 0, t.cdb[4]>>4
	switch {
	case power == 0 && loej, power > 0 && power != 1 && power != 2 && power != 3 && power != 7:
		t.fail(senseInvalidField.at(4))
	case power == 0 && !start && t.cdb[4]&0x04 == 0: // stopping flushes (SBC-3 clause 5.25)
		t.submit(OpFlush, 0, 0, nil, false, nothingMore)
	default:
		t.good(0)
	}
}

// preventAllow: the medium cannot be removed, so PREVENT asks for the impossible
// and ALLOW for nothing.
func preventAllow(t *task) {
	if t.cdb[4]&0x03 != 0 {
		t.fail(senseInvalidField.at(4))
		return
	}
	t.good(0)
}

// readCapacity10 passes through the SCSI service.
func readCapacity10(t *task) {
	b, ok := t.capacityData(opReadCapacity10)
	if ok {
		t.reply(b)
	}
}

// readCapacity16 passes through the SCSI service; provisioning and the physical
// block exponent are ours.
func readCapacity16(t *task) {
	b, ok := t.capacityData(opServiceIn16)
	if !ok {
		return
	}
	b[12] = 0 // no protection information
	b[13] = t.lu.physicalExponent()
	b[14], b[15] = 0xc0, 0 // LBPME, LBPRZ; lowest aligned LBA 0
	t.reply(b)
}

func (t *task) capacityData(op byte) ([]byte, bool) {
	b, st, sn, err := t.c.sess.target.scsi.readCapacity(t.lu.scsi, t.capacity(), op)
	switch {
	case err != nil:
		t.serviceFault(err)
	case st != statusGood:
		t.fail(sn)
	default:
		return b, true
	}
	return nil, false
}

// physicalExponent is LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT of a cluster;
// above 4 KiB initiators are told 4 KiB, which they can align to.
func (l *lun) physicalExponent() byte {
	e := byte(0)
	for l.block()<<(e+1) <= min(uint64(l.Disk.Geometry().ClusterSize), 4096) {
		e++
	}
	return e
}

// readDefects is READ DEFECT DATA: in every format, the lists of a disk that is not
// made of sectors are empty (SBC-3 clauses 5.17 and 5.18).
func readDefects(t *task) {
	flags, n := t.cdb[2], 4
	if t.cdb[0] != opReadDefects10 {
		flags, n = t.cdb[1], 8
	}
	b := make([]byte, n)
	b[1] = flags & 0x1f // the lists asked for are valid, in the format asked for
	t.reply(b)
}

// reportLUNs passes through the SCSI service, whose list has no order and may
// hold a LUN 0 that does not exist; the initiator gets the LUNs that its group is
// shown, under their numbers there, in order.
func reportLUNs(t *task) {
	if t.cdbLen < 16 {
		t.fail(senseInvalidField.at(6))
		return
	}
	if r := t.cdb[2]; r > 2 {
		t.fail(senseInvalidField.at(2))
		return
	}
	v := t.c.sess.view.Load()
	list, st, sn, err := t.c.sess.target.scsi.reportLUNs(t.unit())
	if err != nil {
		t.serviceFault(err)
		return
	}
	if st != statusGood {
		t.fail(sn)
		return
	}
	known := map[[8]byte]bool{}
	for o := 8; o+8 <= len(list); o += 8 {
		known[[8]byte(list[o:])] = true
	}
	b := make([]byte, 8, 8+8*len(v.numbers))
	if t.cdb[2] != 1 { // 01h: well known logical units, of which there are none
		for _, n := range v.numbers {
			var e [8]byte
			putLUN(e[:], v.units[n].Number)
			if known[e] { // both inventories agree unless it is changing right now
				putLUN(e[:], n)
				b = append(b, e[:]...)
			}
		}
	}
	be.PutUint32(b, uint32(len(b)-8))
	t.c.sess.clearAttention(uaLUNsChanged)
	t.reply(b)
}
