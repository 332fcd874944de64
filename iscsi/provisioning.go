package iscsi

import "math"

const (
	// maxStatusDescriptors bounds one answer of GET LBA STATUS, and with it how
	// often the Disk is asked; an initiator asks on from where the answer ends.
	maxStatusDescriptors = 64
	statusHeader         = 8
	statusDescriptor     = 16
	// maxStatusBlocks is what the NUMBER OF LOGICAL BLOCKS field holds, rounded
	// down to the largest cluster in the smallest blocks.
	maxStatusBlocks = math.MaxUint32 &^ (64<<10>>minBlockShift - 1)
)

// Provisioning status (SBC-3 clause 5.4).
const (
	statusMapped      = 0
	statusDeallocated = 1
)

func checkLBAStatus(t *task) bool {
	t.lba, t.blocks = be.Uint64(t.cdb[2:]), 1
	return t.inRange()
}

// lbaStatus is GET LBA STATUS (SBC-3 clause 5.4): which ranges from the starting
// LBA on hold data. It answers in whole descriptors, as many as fit.
func lbaStatus(t *task) {
	room := 1
	if t.cdbLen > statusHeader+statusDescriptor {
		room = int(min((t.cdbLen-statusHeader)/statusDescriptor, maxStatusDescriptors))
	}
	capacity := t.lu.capacity()
	b := make([]byte, statusHeader, statusHeader+room*statusDescriptor)
	for lba := t.lba; lba < capacity && room > 0; room-- {
		status, n := t.lu.provisioning(lba, capacity)
		for lba+n < capacity && n < maxStatusBlocks { // the Disk may have stopped short
			next, more := t.lu.provisioning(lba+n, capacity)
			if next != status || n+more > maxStatusBlocks {
				break
			}
			n += more
		}
		var d [statusDescriptor]byte
		be.PutUint64(d[0:], lba)
		be.PutUint32(d[8:], uint32(n))
		d[12] = status
		b = append(b, d[:]...)
		lba += n
	}
	be.PutUint32(b, uint32(len(b)-4))
	t.reply(b)
}

// provisioning returns the status of the block lba and for how many blocks it
// holds, below capacity.
func (l *lun) provisioning(lba, capacity uint64) (status byte, n uint64) {
	left := min(capacity-lba, maxStatusBlocks)
	p, ok := l.Disk.(Provisioner)
	if !ok {
		return statusMapped, left
	}
	mapped, run := p.Allocated(int64(lba << l.shift))
	if !mapped {
		status = statusDeallocated
	}
	return status, max(1, min(left, uint64(run)>>l.shift))
}
