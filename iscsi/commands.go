package iscsi

// Logical block sizes: 512 bytes whatever the cluster (512e) is what every
// hypervisor takes; 4096 (4Kn) is a unit's own choice, LUNSpec.BlockSize.
const (
	minBlockShift = 9
	maxBlockShift = 12
)

// Limits announced in VPD B0h; VPD 8Fh and RECEIVE COPY OPERATING PARAMETERS have
// theirs in extendedcopy.go.
const (
	maxTransfer       = 1 << maxBufferShift // bytes of one data command
	optimalTransfer   = 1 << 20             // one burst
	maxCompareBlocks  = 128                 // COMPARE AND WRITE; VMFS uses one
	maxUnmapParams    = 256                 // UNMAP descriptors
	maxWriteSameBytes = 16 << 20            // WRITE SAME: some ms of work with a pattern
)

// Operation codes that code names.
const (
	opInquiry        = 0x12
	opReserve6       = 0x16
	opRelease6       = 0x17
	opReserve10      = 0x56
	opRelease10      = 0x57
	opPersistentIn   = 0x5e
	opPersistentOut  = 0x5f
	opReadCapacity10 = 0x25
	opReadDefects10  = 0x37
	opWriteSame10    = 0x41
	opThirdPartyOut  = 0x83
	opThirdPartyIn   = 0x84
	opVerify10       = 0x2f
	opVerify12       = 0xaf
	opVerify16       = 0x8f
	opWriteAtomic16  = 0x9c
	opServiceIn16    = 0x9e
	opReportLUNs     = 0xa0
	opMaintenanceIn  = 0xa3
	saReadCapacity16 = 0x10
	saGetLBAStatus   = 0x12
	saReportOpcodes  = 0x0c
	saReportTMF      = 0x0d

	saReportPortGroups = 0x0a
)

// Direction of a command's data.
const (
	dirNone = iota
	dirIn
	dirOut
)

// Properties of a command.
const (
	anyLUN        = 1 << iota // also for a LUN that does not exist
	noAttention               // executed in spite of a unit attention
	noReservation             // executed in spite of another nexus's RESERVE(6/10)
	writes                    // changes the medium
	bulk                      // dirIn: fills a buffer of the length in the CDB
	wholeData                 // dirOut: useless without all its data
	atomicDisk                // only on a Disk that has atomic writes

	// How persistent reservations concern it; set from conflict.go.
	accessRead         // kept out by exclusive access
	accessWrite        // kept out by write exclusive and exclusive access
	accessKeys         // kept out by RESERVE(6/10), whoever holds it
	changesReservation // waits for its turn in the unit's reservations
)

// command is one row of the command set: dispatch and REPORT SUPPORTED
// OPERATION CODES both read it.
type command struct {
	name   string
	op     byte
	sa     int    // service action, or noSA
	usage  string // CDB usage data: which bits are looked at (SPC-4 clause 6.35.3)
	dir    int
	flags  int
	length func(*task) uint64 // bytes that the CDB asks for
	// validate checks the CDB before any data is asked for; it sets the status
	// when it returns false. run executes the command.
	validate func(*task) bool
	run      func(*task)
}

const noSA = -1

// commandTable is what is supported: the rows in the order they are reported,
// and an index by operation code. It is read-only.
type commandTable struct {
	set   []command
	index [256][]*command
}

func newCommandTable() *commandTable {
	x := &commandTable{set: buildCommandSet()}
	for i := range x.set {
		c := &x.set[i]
		c.flags |= accessOf(c)
		x.index[c.op] = append(x.index[c.op], c)
	}
	return x
}

// lookup finds the command of a CDB for a logical unit (nil: none), or nil.
func (x *commandTable) lookup(l *lun, cdb *[16]byte) *command {
	sa := noSA
	if x.hasActions(cdb[0]) {
		sa = int(cdb[1] & 0x1f)
	}
	return x.find(l, cdb[0], sa)
}

// hasActions tells whether an operation code is refined by service actions.
func (x *commandTable) hasActions(op byte) bool {
	return len(x.index[op]) > 0 && x.index[op][0].sa != noSA
}

func (x *commandTable) find(l *lun, op byte, sa int) *command {
	for _, c := range x.index[op] {
		if c.sa == sa && c.on(l) {
			return c
		}
	}
	return nil
}

// on tells whether a logical unit has the command.
func (c *command) on(l *lun) bool {
	return c.flags&atomicDisk == 0 || l != nil && l.atomicBlocks() > 0
}

// CDB usage data by format. The operation code stands first.
const (
	use6        = "\x1f\xff\xff\xff\x04"
	use6Alloc   = "\x00\x00\xff\xff\x04"
	use10       = "\xf8\xff\xff\xff\xff\x00\xff\xff\x04"
	use12       = "\xf8\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04"
	use16       = "\xf8\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04"
	useAtomic16 = "\xf8\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04"
	useVerify10 = "\xf6\xff\xff\xff\xff\x00\xff\xff\x04"
	useVerify12 = "\xf6\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04"
	useVerify16 = "\xf6\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04"
	useSync10   = "\x02\xff\xff\xff\xff\x00\xff\xff\x04"
	useSync16   = "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04"
	useSA16     = "\x1f\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04"
	useCopyIn   = "\x1f\xff\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04"
	useDefect10 = "\x00\x1f\x00\x00\x00\x00\xff\xff\x04"
	useDefect12 = "\x1f\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04"
)

func buildCommandSet() []command {
	data := func(name string, op byte, usage string, dir, flags int, run func(*task)) command {
		return command{name, op, noSA, usage, dir, flags, blocksLength, checkBlocks, run}
	}
	set := []command{
		{"TEST UNIT READY", 0x00, noSA, "\x00\x00\x00\x00\x04", dirNone, 0, nil, nil, testUnitReady},
		{"REQUEST SENSE", 0x03, noSA, "\x01\x00\x00\xff\x04", dirIn, anyLUN | noAttention | noReservation, alloc6, nil, requestSense},
		{"INQUIRY", opInquiry, noSA, "\x01\xff\xff\xff\x04", dirIn, anyLUN | noAttention | noReservation, allocInquiry, nil, inquiry},
		{"RESERVE(6)", opReserve6, noSA, "\x00\x00\x00\x00\x04", dirNone, changesReservation, nil, checkReserve, changeReservation},
		{"RELEASE(6)", opRelease6, noSA, "\x00\x00\x00\x00\x04", dirNone, noReservation | changesReservation, nil, checkReserve, changeReservation},
		{"MODE SELECT(6)", 0x15, noSA, "\x11\x00\x00\xff\x04", dirOut, wholeData, alloc6, nil, modeSelect6},
		{"MODE SENSE(6)", 0x1a, noSA, "\x08\xff\xff\xff\x04", dirIn, 0, alloc6, nil, modeSense6},
		{"START STOP UNIT", 0x1b, noSA, "\x01\x00\x0f\xf7\x04", dirNone, 0, nil, nil, startStop},
		{"PREVENT ALLOW MEDIUM REMOVAL", 0x1e, noSA, "\x00\x00\x00\x03\x04", dirNone, 0, nil, nil, preventAllow},
		{"READ CAPACITY(10)", opReadCapacity10, noSA, "\x00\x00\x00\x00\x00\x00\x00\x00\x04", dirIn, 0, fixedLength(8), nil, readCapacity10},
		{"RESERVE(10)", opReserve10, noSA, "\x00\x00\x00\x00\x00\x00\x00\x00\x04", dirNone, changesReservation, nil, checkReserve, changeReservation},
		{"RELEASE(10)", opRelease10, noSA, "\x00\x00\x00\x00\x00\x00\x00\x00\x04", dirNone, noReservation | changesReservation, nil, checkReserve, changeReservation},
		{"MODE SELECT(10)", 0x55, noSA, "\x11\x00\x00\x00\x00\x00\xff\xff\x04", dirOut, wholeData, alloc10, nil, modeSelect10},
		{"MODE SENSE(10)", 0x5a, noSA, "\x18\xff\xff\x00\x00\x00\xff\xff\x04", dirIn, 0, alloc10, nil, modeSense10},
		{"READ CAPACITY(16)", opServiceIn16, saReadCapacity16, useSA16, dirIn, 0, alloc16, nil, readCapacity16},
		{"GET LBA STATUS", opServiceIn16, saGetLBAStatus, "\x1f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", dirIn, 0, alloc16, checkLBAStatus, lbaStatus},
		{"REPORT LUNS", opReportLUNs, noSA, "\x00\xff\x00\x00\x00\xff\xff\xff\xff\x00\x04", dirIn, anyLUN | noAttention | noReservation, alloc12, nil, reportLUNs},
		{"REPORT SUPPORTED OPERATION CODES", opMaintenanceIn, saReportOpcodes, "\x1f\x87\xff\xff\xff\xff\xff\xff\xff\x00\x04", dirIn, noReservation, alloc12, nil, reportOpcodes},
		{"REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", opMaintenanceIn, saReportTMF, "\x1f\x80\x00\x00\x00\xff\xff\xff\xff\x00\x04", dirIn, noReservation, alloc12, nil, reportTMF},
		{"REPORT TARGET PORT GROUPS", opMaintenanceIn, saReportPortGroups, "\xff\x00\x00\x00\x00\xff\xff\xff\xff\x00\x04", dirIn, noReservation, alloc12, nil, reportPortGroups},
		{"SYNCHRONIZE CACHE(10)", 0x35, noSA, useSync10, dirNone, 0, nil, checkRange, syncCache},
		{"SYNCHRONIZE CACHE(16)", 0x91, noSA, useSync16, dirNone, 0, nil, checkRange, syncCache},
		{"PRE-FETCH(10)", 0x34, noSA, useSync10, dirNone, 0, nil, checkRange, prefetch},
		{"PRE-FETCH(16)", 0x90, noSA, useSync16, dirNone, 0, nil, checkRange, prefetch},
		{"UNMAP", 0x42, noSA, "\x01\x00\x00\x00\x00\x00\xff\xff\x04", dirOut, writes | wholeData, alloc10, checkUnmap, unmap},
		{"READ DEFECT DATA(10)", opReadDefects10, noSA, useDefect10, dirIn, 0, alloc10, nil, readDefects},
		{"READ DEFECT DATA(12)", 0xb7, noSA, useDefect12, dirIn, 0, alloc12, nil, readDefects},
		{"LOG SENSE", 0x4d, noSA, "\x01\xff\xff\x00\xff\xff\xff\xff\x04", dirIn, 0, alloc10, nil, logSense},
		{"EXTENDED COPY(LID1)", opThirdPartyOut, saExtendedCopy, useSA16, dirOut, wholeData, alloc16, checkCopy, extendedCopy},
		{"RECEIVE COPY STATUS(LID1)", opThirdPartyIn, saCopyStatus, useCopyIn, dirIn, 0, alloc16, nil, copyStatus},
		{"RECEIVE COPY OPERATING PARAMETERS", opThirdPartyIn, saCopyParameters, useSA16, dirIn, 0, alloc16, nil, copyParameters},
		{"RECEIVE COPY FAILURE DETAILS(LID1)", opThirdPartyIn, saCopyFailure, useCopyIn, dirIn, 0, alloc16, nil, copyFailure},
		{"WRITE SAME(10)", opWriteSame10, noSA, use10, dirOut, writes | wholeData, oneBlock, checkWriteSame, writeSame},
		{"WRITE SAME(16)", 0x93, noSA, "\xf9\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x04", dirOut, writes | wholeData, writeSameLength, checkWriteSame, writeSame},
		{"COMPARE AND WRITE", 0x89, noSA, "\xf8\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\xff\x00\x04", dirOut, writes | wholeData, compareLength, checkCompare, compareAndWrite},
		data("READ(6)", 0x08, use6, dirIn, bulk, read),
		data("WRITE(6)", 0x0a, use6, dirOut, writes, write),
		data("READ(10)", 0x28, use10, dirIn, bulk, read),
		data("WRITE(10)", 0x2a, use10, dirOut, writes, write),
		data("READ(12)", 0xa8, use12, dirIn, bulk, read),
		data("WRITE(12)", 0xaa, use12, dirOut, writes, write),
		data("READ(16)", 0x88, use16, dirIn, bulk, read),
		data("WRITE(16)", 0x8a, use16, dirOut, writes, write),
		{"ORWRITE(16)", 0x8b, noSA, use16, dirOut, writes | wholeData, blocksLength, checkWhole, orWrite},
		{"WRITE ATOMIC(16)", opWriteAtomic16, noSA, useAtomic16, dirOut, writes | wholeData | atomicDisk, blocksLength, checkAtomic, write},
		data("WRITE AND VERIFY(10)", 0x2e, useVerify10, dirOut, writes, writeAndVerify),
		data("WRITE AND VERIFY(12)", 0xae, useVerify12, dirOut, writes, writeAndVerify),
		data("WRITE AND VERIFY(16)", 0x8e, useVerify16, dirOut, writes, writeAndVerify),
		{"VERIFY(10)", opVerify10, noSA, useVerify10, dirOut, 0, verifyLength, checkVerify, verify},
		{"VERIFY(12)", opVerify12, noSA, useVerify12, dirOut, 0, verifyLength, checkVerify, verify},
		{"VERIFY(16)", opVerify16, noSA, useVerify16, dirOut, 0, verifyLength, checkVerify, verify},
	}
	return append(set, persistentCommands()...)
}

// cdbLength returns the length of a CDB by its operation code's group.
func cdbLength(op byte) int {
	switch op >> 5 {
	case 0:
		return 6
	case 1, 2:
		return 10
	case 5:
		return 12
	}
	return 16
}

func alloc6(t *task) uint64       { return uint64(t.cdb[4]) }
func allocInquiry(t *task) uint64 { return uint64(be.Uint16(t.cdb[3:])) }
func alloc10(t *task) uint64      { return uint64(be.Uint16(t.cdb[7:])) }
func alloc12(t *task) uint64      { return uint64(be.Uint32(t.cdb[6:])) }
func alloc16(t *task) uint64      { return uint64(be.Uint32(t.cdb[10:])) }
func oneBlock(t *task) uint64     { return t.lu.block() }

func fixedLength(n uint64) func(*task) uint64 { return func(*task) uint64 { return n } }

// decodeRange reads the LBA and number of blocks of a data command.
func decodeRange(cdb *[16]byte) (lba, n uint64) {
	switch cdbLength(cdb[0]) {
	case 6:
		n = uint64(cdb[4])
		if n == 0 {
			n = 256
		}
		return uint64(cdb[1]&0x1f)<<16 | uint64(be.Uint16(cdb[2:])), n
	case 10:
		return uint64(be.Uint32(cdb[2:])), uint64(be.Uint16(cdb[7:]))
	case 12:
		return uint64(be.Uint32(cdb[2:])), uint64(be.Uint32(cdb[6:]))
	}
	if cdb[0] == opWriteAtomic16 { // bytes 10 and 11 are the atomic boundary
		return be.Uint64(cdb[2:]), uint64(be.Uint16(cdb[12:]))
	}
	return be.Uint64(cdb[2:]), uint64(be.Uint32(cdb[10:]))
}

// lengthField is where a CDB has its number of blocks.
func lengthField(cdb *[16]byte) uint16 {
	switch cdbLength(cdb[0]) {
	case 6:
		return 4
	case 10:
		return 7
	case 12:
		return 6
	}
	if cdb[0] == opWriteAtomic16 {
		return 12
	}
	return 10
}

func blocksLength(t *task) uint64 {
	t.lba, t.blocks = decodeRange(&t.cdb)
	return t.blocks << t.lu.shift
}

// BYTCHK of VERIFY and WRITE AND VERIFY (SBC-3 clause 5.28).
const (
	bytchkMedium  = 0 << 1 // is it readable
	bytchkCompare = 1 << 1 // with as many blocks of data
	bytchkOne     = 3 << 1 // every block with one block of data; VERIFY only
	bytchkMask    = 3 << 1
)

// verifyLength: data comes only with BYTCHK.
func verifyLength(t *task) uint64 {
	t.lba, t.blocks = decodeRange(&t.cdb)
	switch t.cdb[1] & bytchkMask {
	case bytchkCompare:
		return t.blocks << t.lu.shift
	case bytchkOne:
		if t.blocks > 0 {
			return t.lu.block()
		}
	}
	return 0
}

func writeSameLength(t *task) uint64 {
	if t.cdb[1]&0x01 != 0 { // NDOB
		return 0
	}
	return t.lu.block()
}

func compareLength(t *task) uint64 { return 2 * uint64(t.cdb[13]) << t.lu.shift }

// inRange checks lba and blocks against the capacity; an empty range must start
// inside it.
func (t *task) inRange() bool {
	capacity := t.lu.capacity()
	if t.lba >= capacity || t.blocks > capacity-t.lba {
		return t.refuse(senseLBARange)
	}
	return true
}

// checkBlocks validates READ, WRITE and WRITE AND VERIFY.
func checkBlocks(t *task) bool {
	if cdbLength(t.cdb[0]) > 6 && t.cdb[1]&0xe0 != 0 { // RDPROTECT, WRPROTECT
		return t.refuse(senseInvalidField.at(1))
	}
	if t.cdb[0]&0x1f == 0x0e && t.cdb[1]&0x04 != 0 { // WRITE AND VERIFY: BYTCHK is 0 or 1
		return t.refuse(senseInvalidField.at(1))
	}
	if !t.inRange() {
		return false
	}
	if t.cdbLen > maxTransfer {
		return t.refuse(senseInvalidField.at(lengthField(&t.cdb)))
	}
	return true
}

// checkWhole validates a command that must get all its blocks or do nothing.
func checkWhole(t *task) bool { return checkBlocks(t) && t.complete() }

// checkAtomic validates WRITE ATOMIC(16) (SBC-4 clause 5.48): no boundary is
// announced, so there must be none.
func checkAtomic(t *task) bool {
	if be.Uint16(t.cdb[10:]) != 0 {
		return t.refuse(senseInvalidField.at(10))
	}
	if !checkWhole(t) {
		return false
	}
	if t.blocks > t.lu.atomicBlocks() {
		return t.refuse(senseInvalidField.at(12))
	}
	return true
}

func checkRange(t *task) bool {
	t.lba, t.blocks = decodeRange(&t.cdb)
	return t.inRange()
}

func checkVerify(t *task) bool {
	if t.cdb[1]&0xe0 != 0 || t.cdb[1]&bytchkMask == 0x04 { // VRPROTECT, reserved BYTCHK
		return t.refuse(senseInvalidField.at(1))
	}
	if !t.inRange() {
		return false
	}
	if t.cdbLen > maxTransfer {
		return t.refuse(senseInvalidField.at(lengthField(&t.cdb)))
	}
	return true
}

func checkCompare(t *task) bool {
	t.lba, t.blocks = be.Uint64(t.cdb[2:]), uint64(t.cdb[13])
	if t.cdb[1]&0xe0 != 0 {
		return t.refuse(senseInvalidField.at(1))
	}
	if t.blocks > maxCompareBlocks {
		return t.refuse(senseInvalidField.at(13))
	}
	return t.inRange() && t.complete()
}

// complete refuses a command whose initiator sends another length than the CDB
// needs: half a parameter list, or half a comparison, means nothing.
func (t *task) complete() bool {
	if uint64(t.edtl) != t.cdbLen || t.cdbLen > 0 && !t.write {
		return t.refuse(senseInvalidField)
	}
	return true
}

func checkUnmap(t *task) bool {
	if t.cdb[1]&0x01 != 0 { // ANCHOR
		return t.refuse(senseInvalidField.at(1))
	}
	if uint64(t.edtl) < t.cdbLen || t.cdbLen > 0 && !t.write {
		return t.refuse(senseListLength)
	}
	return true
}

// checkWriteSame: no blocks means all up to the end of the medium (WSNZ is not
// announced), when that is not above the maximum.
func checkWriteSame(t *task) bool {
	t.lba, t.blocks = decodeRange(&t.cdb)
	// WRPROTECT, ANCHOR, and the obsolete PBDATA and LBDATA
	if t.cdb[1]&0xf6 != 0 || t.cdb[0] == opWriteSame10 && t.cdb[1]&0x01 != 0 {
		return t.refuse(senseInvalidField.at(1))
	}
	if !t.inRange() {
		return false
	}
	if t.blocks == 0 {
		t.blocks = t.lu.capacity() - t.lba
	}
	if t.blocks > maxWriteSameBytes>>t.lu.shift {
		return t.refuse(senseInvalidField.at(lengthField(&t.cdb)))
	}
	return t.complete()
}
