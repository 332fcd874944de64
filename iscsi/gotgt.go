package iscsi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gostor/gotgt/pkg/api"
	"github.com/gostor/gotgt/pkg/config"
	"github.com/gostor/gotgt/pkg/scsi"
	_ "github.com/gostor/gotgt/pkg/scsi/backingstore" // the null store of LUN 0 objects
	uuid "github.com/satori/go.uuid"
)

// This file is the only one that knows gotgt (I7). Targets and logical units
// are its objects; INQUIRY, REPORT LUNS, READ CAPACITY and TEST UNIT READY pass
// through PerformCommand. README.md says why nothing else does.

// storeName is the backing store under which logical units are made. gotgt asks
// for a store by name from a process-wide table that has no lock; it is filled
// once, and NewSCSILu, which reads it, is only called afterwards.
const storeName = "ovgate-refusing"

var registerStore sync.Once

// scsiService is one Server's set of gotgt targets. It is a service of its own
// and not gotgt's singleton, so that two servers never answer for each other.
type scsiService struct {
	mu      sync.Mutex
	svc     scsi.SCSITargetService
	nextTID int
	nextLU  uint64
	disks   api.SCSIDeviceProtocol // see share
	nothing api.SCSIDeviceProtocol // of LUN 0 objects, another device type
	faults  atomic.Uint64
}

// scsiTarget wraps a gotgt target. Its Devices map is replaced, never modified,
// under mu, which also covers every PerformCommand on the target.
type scsiTarget struct {
	svc *scsiService
	mu  sync.Mutex
	tgt *api.SCSITarget
}

// scsiLU wraps a gotgt logical unit.
type scsiLU struct{ lu *api.SCSILu }

func newSCSIService() *scsiService {
	registerStore.Do(func() {
		scsi.RegisterBackingStore(storeName, func() (api.BackingStore, error) { return refusingStore{}, nil })
	})
	return &scsiService{}
}

// relativePort is the one target port that the service knows; initiators are told
// the portal group tag.
const relativePort = 1

func (s *scsiService) addTarget(name string) (*scsiTarget, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextTID++
	t, err := s.svc.NewSCSITarget(s.nextTID, "iscsi", name)
	if err != nil {
		return nil, fmt.Errorf("iscsi: target %s: %w", name, err)
	}
	t.Devices = api.LUNMap{}
	share(&s.nothing, t.LUN0)
	t.TargetPortGroups[0].TargetPortGroup = append(t.TargetPortGroups[0].TargetPortGroup,
		&api.SCSITargetPort{RelativeTargetPortID: relativePort, TargetPortName: name})
	return &scsiTarget{svc: s, tgt: t}, nil
}

// share gives a logical unit the one table of operations of its device type:
// gotgt makes a table of 256 for each unit, only ever reads it, and it would be
// most of the memory of a unit. mu is held.
func share(table *api.SCSIDeviceProtocol, lu *api.SCSILu) {
	if *table == nil {
		*table = lu.DeviceProtocol
	}
	lu.DeviceProtocol = *table
}

func (s *scsiService) removeTarget(t *scsiTarget) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.svc.Targets {
		if o == t.tgt {
			s.svc.Targets = append(s.svc.Targets[:i:i], s.svc.Targets[i+1:]...)
			return
		}
	}
}

func (s *scsiService) newLU(ls LUNSpec) (*scsiLU, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextLU++
	lu, err := scsi.NewSCSILu(&config.BackendStorage{
		DeviceID: s.nextLU, Path: storeName + ":" + ls.Serial, Online: true, ThinProvisioning: true, BlockShift: uint(blockShift(ls.BlockSize)),
	})
	if err != nil {
		return nil, err
	}
	share(&s.disks, lu)
	lu.Attrs.VendorID, lu.Attrs.ProductID, lu.Attrs.ProductRev = ls.Vendor, ls.Product, ls.Revision
	lu.Attrs.VersionDesction = versionDescriptors
	return &scsiLU{lu}, nil
}

// setUnits installs the logical units of the target.
func (t *scsiTarget) setUnits(units map[uint16]*scsiLU) {
	m := make(api.LUNMap, len(units))
	for n, u := range units {
		m[uint64(n)] = u.lu
	}
	t.mu.Lock()
	t.tgt.Devices = m
	t.mu.Unlock()
}

// errService is what perform returns when gotgt panicked or contradicted itself.
var errService = errors.New("iscsi: SCSI service fault")

// perform runs one command on gotgt: on unit u, or on the target's LUN 0 object
// when u is nil. size is the unit's capacity in bytes. cdb is gotgt's to read,
// buf its data-in buffer, which is cleared first and must be long enough for
// whatever the command can produce. It returns the status and gotgt's own sense
// data; a panic becomes errService.
func (t *scsiTarget) perform(u *scsiLU, size int64, cdb []byte, buf []byte) (status byte, sn sense, err error) {
	clear(buf)
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			t.svc.faults.Add(1)
			status, sn, err = statusCheckCondition, senseInternal, fmt.Errorf("%w: opcode %#02x: %v", errService, cdb[0], p)
		}
	}()
	lu := t.tgt.LUN0
	if u != nil {
		lu = u.lu
		lu.Size = uint64(size)
	}
	cmd := &api.SCSICommand{
		OpCode: cdb[0], Target: t.tgt, Device: lu, Direction: api.SCSIDataRead,
		InSDBBuffer:     &api.SCSIDataBuffer{Buffer: buf, Length: uint32(len(buf))},
		RelTargetPortID: relativePort,
		SCB:             cdb, SCBLength: len(cdb),
		ITNexus: &api.ITNexus{ID: uuid.Nil}, ITNexusLuInfo: &api.ITNexusLuInfo{Lu: lu},
	}
	st := lu.PerformCommand(t.tgt.TID, cmd)
	if st.Stat == statusGood {
		return statusGood, sense{}, nil
	}
	sn = senseInternal
	if b := cmd.SenseBuffer; b != nil && len(b.Buffer) >= 14 && b.Buffer[0] == 0x70 {
		sn = sense{key: b.Buffer[2] & 0x0f, asc: b.Buffer[12], ascq: b.Buffer[13]}
	}
	return st.Stat, sn, nil
}

// Buffers and allocation lengths handed to gotgt are fixed, whatever the
// initiator asked for: its code mixes up lengths, and truncation is ours.
const gotgtBuffer = 512

// inquiry returns gotgt's standard INQUIRY data (at least 36 bytes) or a page. A
// logical unit that exists must be a connected disk.
func (t *scsiTarget) inquiry(u *scsiLU, size int64, evpd bool, page byte) ([]byte, byte, sense, error) {
	buf := make([]byte, gotgtBuffer)
	cdb := make([]byte, 16)
	cdb[0], cdb[2] = opInquiry, page
	if evpd {
		cdb[1] = 1
	}
	binary.BigEndian.PutUint16(cdb[3:], gotgtBuffer)
	st, sn, err := t.perform(u, size, cdb, buf)
	if err != nil || st != statusGood {
		return nil, st, sn, err
	}
	n := 5 + int(buf[4])
	if evpd {
		n = 4 + int(binary.BigEndian.Uint16(buf[2:]))
	}
	if n > gotgtBuffer || evpd && buf[1] != page || !evpd && n < 36 || u != nil && buf[0] != 0 {
		t.svc.faults.Add(1)
		return nil, statusCheckCondition, senseInternal, fmt.Errorf("%w: INQUIRY page %#02x of %d bytes", errService, page, n)
	}
	return buf[:n], statusGood, sense{}, nil
}

// readCapacity returns gotgt's READ CAPACITY(10) or (16) data, checked against size.
func (t *scsiTarget) readCapacity(u *scsiLU, size int64, op byte) ([]byte, byte, sense, error) {
	n := 32
	cdb := make([]byte, 16)
	cdb[0] = op
	if op == opReadCapacity10 {
		n = 8
	} else {
		cdb[1] = saReadCapacity16
		binary.BigEndian.PutUint32(cdb[10:], uint32(n))
	}
	buf := make([]byte, gotgtBuffer)
	st, sn, err := t.perform(u, size, cdb, buf)
	if err != nil || st != statusGood {
		return nil, st, sn, err
	}
	block := uint32(1) << u.lu.BlockShift
	last := uint64(size)/uint64(block) - 1
	var ok bool
	if op == opReadCapacity10 {
		ok = binary.BigEndian.Uint32(buf) == uint32(min(last, 0xffffffff)) && binary.BigEndian.Uint32(buf[4:]) == block
	} else {
		ok = binary.BigEndian.Uint64(buf) == last && binary.BigEndian.Uint32(buf[8:]) == block
	}
	if !ok {
		t.svc.faults.Add(1)
		return nil, statusCheckCondition, senseInternal, fmt.Errorf("%w: READ CAPACITY disagrees with %d bytes", errService, size)
	}
	return buf[:n], statusGood, sense{}, nil
}

// reportLUNs returns gotgt's LUN list, which comes in no order and holds LUN 0
// even when there is none.
func (t *scsiTarget) reportLUNs(u *scsiLU) ([]byte, byte, sense, error) {
	buf := make([]byte, 8+8*(maxLUNs+1))
	cdb := make([]byte, 16)
	cdb[0] = opReportLUNs
	binary.BigEndian.PutUint32(cdb[6:], uint32(len(buf)))
	st, sn, err := t.perform(u, 0, cdb, buf)
	if err != nil || st != statusGood {
		return nil, st, sn, err
	}
	got := int(binary.BigEndian.Uint32(buf))
	if got%8 != 0 || got > 8*(maxLUNs+1) {
		t.svc.faults.Add(1)
		return nil, statusCheckCondition, senseInternal, fmt.Errorf("%w: REPORT LUNS length %d", errService, got)
	}
	return buf[:8+got], statusGood, sense{}, nil
}

func (t *scsiTarget) testUnitReady(u *scsiLU, size int64) (byte, sense, error) {
	return t.perform(u, size, make([]byte, 16), make([]byte, gotgtBuffer))
}

// refusingStore is the backing store of every logical unit: no data command is
// ever sent to gotgt, and if one were, it must fail.
type refusingStore struct{}

var errStore = errors.New("iscsi: data commands do not pass through the SCSI service")

func (refusingStore) Open(*api.SCSILu, string) error        { return nil }
func (refusingStore) Close(*api.SCSILu) error               { return nil }
func (refusingStore) Init(*api.SCSILu, string) error        { return nil }
func (refusingStore) Exit(*api.SCSILu) error                { return nil }
func (refusingStore) Size(*api.SCSILu) uint64               { return 0 }
func (refusingStore) Read(int64, int64) ([]byte, error)     { return nil, errStore }
func (refusingStore) Write([]byte, int64) error             { return errStore }
func (refusingStore) DataSync(int64, int64) error           { return errStore }
func (refusingStore) DataAdvise(int64, int64, uint32) error { return errStore }
func (refusingStore) Unmap([]api.UnmapBlockDescriptor) error {
	return errStore
}
