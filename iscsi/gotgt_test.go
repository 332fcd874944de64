package iscsi

import (
	"testing"

	"github.com/gostor/gotgt/pkg/api"
)

type nullDisk struct{ size int64 }

func (d nullDisk) Geometry() Geometry { return Geometry{Size: d.size, ClusterSize: 4096} }
func (d nullDisk) Submit(op *Op)      { op.Done.Complete(op) }

// inProcess runs one command on a target without a network: a connection that
// only collects the finished task.
func inProcess(t *testing.T, tgt *target, lunNo uint16, cdb ...byte) *task {
	t.Helper()
	return perform(t, tgt, lunNo, nil, cdb)
}

// inProcessOut runs one command with data-out.
func inProcessOut(t *testing.T, tgt *target, lunNo uint16, data []byte, cdb ...byte) *task {
	t.Helper()
	return perform(t, tgt, lunNo, append([]byte{}, data...), cdb)
}

func perform(t *testing.T, tgt *target, lunNo uint16, data, cdb []byte) *task {
	t.Helper()
	c := &conn{srv: tgt.srv, tasks: map[uint32]*task{}, down: make(chan struct{}), name: "iqn.2026-01.test:x"}
	c.writerWake.L, c.idleWake.L = &c.mu, &c.mu
	c.sess = &session{conn: c, target: tgt, initiator: c.name, group: 1}
	c.sess.view.Store(tgt.admit(c.name))
	k := newTask()
	k.reset(c)
	k.address(lunNo, true)
	k.read, k.edtl = true, 1<<16
	if data != nil {
		k.read, k.write, k.edtl = false, true, uint32(len(data))
	}
	copy(k.cdb[:], cdb)
	c.tasks[0] = k
	if k.prepare() {
		copy(k.data, data)
		c.execute(k)
	} else {
		k.finish()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.outq) == 0 { // a command made of many Ops goes on elsewhere
		c.writerWake.Wait()
	}
	if len(c.outq) != 1 || c.outq[0].t != k {
		t.Fatalf("the command was not answered")
	}
	return k
}

func testTarget(t *testing.T, luns ...uint16) *target {
	t.Helper()
	s := NewServer(Config{})
	spec := TargetSpec{Name: "iqn.2026-01.test:t", Groups: []Group{{Name: "all", Any: true}}}
	for _, n := range luns {
		spec.LUNs = append(spec.LUNs, LUNSpec{Number: n, Disk: nullDisk{1 << 30}, Serial: "S", NAA: [16]byte{0x61}})
	}
	if err := s.AddTarget(spec); err != nil {
		t.Fatal(err)
	}
	return s.targets[spec.Name]
}

var serviceCommands = []struct {
	name string
	cdb  []byte
}{
	{"TEST UNIT READY", []byte{0x00}},
	{"INQUIRY", []byte{0x12, 0, 0, 0, 96}},
	{"INQUIRY 00", []byte{0x12, 1, 0, 1, 0}},
	{"INQUIRY 80", []byte{0x12, 1, 0x80, 1, 0}},
	{"INQUIRY 83", []byte{0x12, 1, 0x83, 1, 0}},
	{"INQUIRY 86", []byte{0x12, 1, 0x86, 1, 0}},
	{"INQUIRY B0", []byte{0x12, 1, 0xb0, 1, 0}},
	{"INQUIRY B1", []byte{0x12, 1, 0xb1, 1, 0}},
	{"INQUIRY B2", []byte{0x12, 1, 0xb2, 1, 0}},
	{"READ CAPACITY(10)", []byte{0x25}},
	{"READ CAPACITY(16)", []byte{0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}},
	{"REPORT LUNS", []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 2, 0}},
}

// TestServiceCommands: each of the four commands reaches gotgt's PerformCommand
// once, on the logical unit's own gotgt object, and a panic or a false answer in
// there becomes CHECK CONDITION, HARDWARE ERROR (I7).
func TestServiceCommands(t *testing.T) {
	for _, tc := range serviceCommands {
		t.Run(tc.name, func(t *testing.T) {
			tgt := testTarget(t, 0, 3)
			lu := tgt.lun(3).scsi.lu
			if tgt.scsi.tgt.Devices[3] != lu {
				t.Fatal("the target's Devices do not hold the logical unit")
			}
			real, calls := lu.PerformCommand, 0
			lu.PerformCommand = func(tid int, cmd *api.SCSICommand) api.SAMStat {
				calls++
				if cmd.Device != lu || cmd.Target != tgt.scsi.tgt || cmd.SCB[0] != tc.cdb[0] {
					t.Error("not this target's unit or command")
				}
				return real(tid, cmd)
			}
			if k := inProcess(t, tgt, 3, tc.cdb...); k.status != statusGood || calls != 1 {
				t.Errorf("status %#02x after %d calls, sense %+v", k.status, calls, k.sense)
			}
			lu.PerformCommand = func(int, *api.SCSICommand) api.SAMStat { panic("as gotgt does") }
			if k := inProcess(t, tgt, 3, tc.cdb...); k.status != statusCheckCondition || k.sense.key != 0x04 || k.in != nil {
				t.Errorf("after a panic: status %#02x, sense %+v", k.status, k.sense)
			}
			if tgt.srv.Stats().SCSIServiceFaults != 1 {
				t.Error("the fault was not counted")
			}
			lu.PerformCommand = func(_ int, cmd *api.SCSICommand) api.SAMStat { return api.SAMStatBusy }
			if k := inProcess(t, tgt, 3, tc.cdb...); k.status == statusGood {
				t.Error("a failing service gave GOOD")
			}
		})
	}
}

// TestServiceLies: data that contradicts what we know is not passed on.
func TestServiceLies(t *testing.T) {
	for _, tc := range serviceCommands {
		if tc.name == "TEST UNIT READY" {
			continue // it has no data
		}
		t.Run(tc.name, func(t *testing.T) {
			tgt := testTarget(t, 0)
			tgt.lun(0).scsi.lu.PerformCommand = func(_ int, cmd *api.SCSICommand) api.SAMStat {
				for i := range cmd.InSDBBuffer.Buffer {
					cmd.InSDBBuffer.Buffer[i] = 0xff
				}
				return api.SAMStatGood
			}
			if k := inProcess(t, tgt, 0, tc.cdb...); k.status != statusCheckCondition {
				t.Errorf("status %#02x with %d bytes", k.status, len(k.in))
			}
		})
	}
}

// TestServiceIsolation: two servers with the same target name and unit numbers
// answer with their own capacity, and targets leave the service when removed.
func TestServiceIsolation(t *testing.T) {
	for _, size := range []int64{1 << 20, 1 << 40} {
		s := NewServer(Config{})
		spec := TargetSpec{Name: "iqn.2026-01.test:same", Groups: []Group{{Name: "all", Any: true}},
			LUNs: []LUNSpec{{Disk: nullDisk{size}, Serial: "S", NAA: [16]byte{0x61}}}}
		if err := s.AddTarget(spec); err != nil {
			t.Fatal(err)
		}
		k := inProcess(t, s.targets[spec.Name], 0, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32)
		if got := be.Uint64(k.in) + 1; got != uint64(size)/512 {
			t.Errorf("%d blocks, want %d", got, size/512)
		}
		if n := len(s.svc.svc.Targets); n != 1 {
			t.Errorf("%d targets in the service", n)
		}
		if err := s.RemoveTarget(spec.Name, false); err != nil || len(s.svc.svc.Targets) != 0 {
			t.Errorf("%v, %d targets left", err, len(s.svc.svc.Targets))
		}
	}
}
