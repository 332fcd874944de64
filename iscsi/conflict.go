package iscsi

// Which commands a persistent reservation keeps out (SPC-4 clause 5.12.1 and
// SBC-3 clause 4.17, the tables of commands allowed in the presence of
// reservations). Both tables reduce to one property of a command:
//
//	                    reservation held by another nexus, command from
//	                    any nexus          registered     not registered
//	property            WE       EA        any RO, AR     WE-RO/AR  EA-RO/AR
//	none                allowed  allowed   allowed        allowed   allowed
//	accessRead          allowed  conflict  allowed        allowed   conflict
//	accessWrite         conflict conflict  allowed        conflict  conflict
//
// A holder is always allowed; every registered nexus holds an all registrants
// reservation. PERSISTENT RESERVE OUT is judged by its keys, RESERVE and RELEASE
// by the rules of clause 5.12.3, when they are executed.

// accessByCommand gives each command its property; an operation code without
// service actions stands with noSA, which also covers those of its service
// actions that are not named. What is missing here is taken for a write.
var accessByCommand = map[[2]int]int{
	{0x00, noSA}: 0,           // TEST UNIT READY
	{0x03, noSA}: 0,           // REQUEST SENSE
	{0x08, noSA}: accessRead,  // READ(6)
	{0x0a, noSA}: accessWrite, // WRITE(6)
	{0x12, noSA}: 0,           // INQUIRY
	{0x15, noSA}: accessWrite, // MODE SELECT(6)
	{0x16, noSA}: 0,           // RESERVE(6)
	{0x17, noSA}: 0,           // RELEASE(6)
	{0x1a, noSA}: accessRead,  // MODE SENSE(6)
	{0x1b, noSA}: accessWrite, // START STOP UNIT, see reservationAccess
	{0x1e, noSA}: accessWrite, // PREVENT ALLOW MEDIUM REMOVAL, see reservationAccess
	{0x25, noSA}: 0,           // READ CAPACITY(10)
	{0x28, noSA}: accessRead,  // READ(10)
	{0x2a, noSA}: accessWrite, // WRITE(10)
	{0x2e, noSA}: accessWrite, // WRITE AND VERIFY(10)
	{0x2f, noSA}: accessRead,  // VERIFY(10)
	{0x34, noSA}: accessRead,  // PRE-FETCH(10)
	{0x35, noSA}: accessWrite, // SYNCHRONIZE CACHE(10)
	{0x41, noSA}: accessWrite, // WRITE SAME(10)
	{0x42, noSA}: accessWrite, // UNMAP
	{0x4d, noSA}: 0,           // LOG SENSE
	{0x55, noSA}: accessWrite, // MODE SELECT(10)
	{0x56, noSA}: 0,           // RESERVE(10)
	{0x57, noSA}: 0,           // RELEASE(10)
	{0x5a, noSA}: accessRead,  // MODE SENSE(10)
	{0x5e, noSA}: accessKeys,  // PERSISTENT RESERVE IN
	{0x5f, noSA}: accessKeys,  // PERSISTENT RESERVE OUT
	{0x83, noSA}: accessWrite, // EXTENDED COPY
	{0x84, noSA}: accessRead,  // RECEIVE COPY RESULTS
	{0x88, noSA}: accessRead,  // READ(16)
	{0x89, noSA}: accessWrite, // COMPARE AND WRITE
	{0x8a, noSA}: accessWrite, // WRITE(16)
	{0x8b, noSA}: accessWrite, // ORWRITE
	{0x8e, noSA}: accessWrite, // WRITE AND VERIFY(16)
	{0x8f, noSA}: accessRead,  // VERIFY(16)
	{0x90, noSA}: accessRead,  // PRE-FETCH(16)
	{0x91, noSA}: accessWrite, // SYNCHRONIZE CACHE(16)
	{0x93, noSA}: accessWrite, // WRITE SAME(16)
	{0x9c, noSA}: accessWrite, // WRITE ATOMIC(16)
	{0x9e, 0x10}: 0,           // READ CAPACITY(16)
	{0x9e, 0x12}: accessRead,  // GET LBA STATUS
	{0xa0, noSA}: 0,           // REPORT LUNS
	{0xa3, 0x0a}: 0,           // REPORT TARGET PORT GROUPS
	{0xa3, 0x0c}: accessRead,  // REPORT SUPPORTED OPERATION CODES
	{0xa3, 0x0d}: accessRead,  // REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
	{0xa4, 0x0a}: accessWrite, // SET TARGET PORT GROUPS
	{0xa8, noSA}: accessRead,  // READ(12)
	{0xaa, noSA}: accessWrite, // WRITE(12)
	{0xae, noSA}: accessWrite, // WRITE AND VERIFY(12)
	{0xaf, noSA}: accessRead,  // VERIFY(12)
	{0xb7, noSA}: accessRead,  // READ DEFECT DATA(12)
	{0x37, noSA}: accessRead,  // READ DEFECT DATA(10)
}

// accessOf returns the property of a row of the command table.
func accessOf(c *command) int {
	for _, sa := range []int{c.sa, noSA} {
		if a, ok := accessByCommand[[2]int{int(c.op), sa}]; ok {
			return a
		}
	}
	return accessWrite
}

// reservationAccess returns the command's flags as they count for reservations: two commands
// conflict or not by what their CDB asks for.
func (t *task) reservationAccess() int {
	f := t.cmd.flags
	switch t.cmd.op {
	case 0x1b: // starting, without a power condition, is always allowed
		if t.cdb[4]&0x01 != 0 && t.cdb[4]>>4 == 0 {
			f &^= accessWrite
		}
	case 0x1e: // so is allowing removal
		if t.cdb[4]&0x03 == 0 {
			f &^= accessWrite
		}
	}
	return f
}

// checkReservation sets the status of a command that a reservation keeps out, and
// returns false then. It is called when the command arrives, before data is asked
// for, and again once the task counts as running (R2).
func (t *task) checkReservation() bool {
	v := t.lu.res.view.Load()
	if v == nil {
		return true
	}
	t.status = v.judge(t.c.sess, t.reservationAccess())
	return t.status == statusGood
}
