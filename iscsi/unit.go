package iscsi

import "sync/atomic"

// block is the unit's logical block size in bytes.
func (l *lun) block() uint64 { return 1 << l.shift }

// capacity is the unit's size in blocks.
func (l *lun) capacity() uint64 { return uint64(l.Disk.Geometry().Size) >> l.shift }

// atomicBlocks is the longest WRITE ATOMIC; 0: there is none.
func (l *lun) atomicBlocks() uint64 {
	return uint64(min(l.Disk.Geometry().AtomicBytes, maxTransfer)) >> l.shift
}

// blockShift returns the logarithm of a logical block size; 0: not one of ours.
func blockShift(size int) uint8 {
	for s := uint8(minBlockShift); s <= maxBlockShift; s++ {
		if size == 1<<s && (s == minBlockShift || s == maxBlockShift) {
			return s
		}
	}
	return 0
}

// modeValues are the changeable bits of a unit's mode pages, shared by all its
// nexuses. They are not saved: a reset or a restart clears them.
type modeValues struct {
	softwareProtect, descriptorSense atomic.Bool // SWP, D_SENSE of the control page
}

func (m *modeValues) reset() {
	m.softwareProtect.Store(false)
	m.descriptorSense.Store(false)
}

// protection tells why a session may not write to the unit; readOnly is what its
// group says.
func (l *lun) protection(readOnly bool) (sense, bool) {
	switch {
	case readOnly, l.Disk.Geometry().ReadOnly:
		return senseWriteProtected, true
	case l.modes.softwareProtect.Load():
		return senseSoftwareProtect, true
	}
	return sense{}, false
}

// descriptorSense tells the format of a task's sense data.
func (t *task) descriptorSense() bool { return t.lu != nil && t.lu.modes.descriptorSense.Load() }
