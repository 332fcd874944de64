// Package benchdisk has the devices that benches put below the iSCSI target: as
// cheap as a page-cached file is for the peers, so that what is measured is the
// target.
package benchdisk

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
)

// ClusterSize of every device, in bytes.
const ClusterSize = 4096

// region is what one lock of a Memory covers. A command of 1 MiB takes two at most.
const region = 1 << 20

// Memory is a device in one piece of memory. Ops complete inside Submit.
type Memory struct {
	mem   []byte
	locks []sync.RWMutex
}

// NewMemory returns a device of size bytes, a multiple of 1 MiB, whose pages are
// all there.
func NewMemory(size int64) *Memory {
	m := &Memory{mem: make([]byte, size), locks: make([]sync.RWMutex, (size+region-1)/region)}
	for i := int64(0); i < size; i += ClusterSize {
		m.mem[i] = byte(i >> 12)
	}
	return m
}

// Geometry implements iscsi.Disk.
func (m *Memory) Geometry() iscsi.Geometry {
	return iscsi.Geometry{Size: int64(len(m.mem)), ClusterSize: ClusterSize}
}

// Submit implements iscsi.Disk.
func (m *Memory) Submit(op *iscsi.Op) {
	n := op.Length
	if op.Data != nil {
		n = int64(len(op.Data))
	}
	op.Err = nil
	first, last := op.Offset/region, (op.Offset+max(n, 1)-1)/region
	switch op.Kind {
	case iscsi.OpRead:
		m.each(first, last, (*sync.RWMutex).RLock)
		copy(op.Data, m.mem[op.Offset:])
		m.each(first, last, (*sync.RWMutex).RUnlock)
	case iscsi.OpWrite, iscsi.OpZero, iscsi.OpUnmap:
		m.each(first, last, (*sync.RWMutex).Lock)
		if op.Kind == iscsi.OpWrite {
			copy(m.mem[op.Offset:], op.Data)
		} else {
			clear(m.mem[op.Offset : op.Offset+n])
		}
		m.each(first, last, (*sync.RWMutex).Unlock)
	case iscsi.OpFlush:
	default:
		op.Err = fmt.Errorf("benchdisk: operation %d is not part of any load", op.Kind)
	}
	op.Done.Complete(op)
}

func (m *Memory) each(first, last int64, f func(*sync.RWMutex)) {
	for i := first; i <= last; i++ {
		f(&m.locks[i])
	}
}

// File is a device over a file in memory (/dev/shm), read and written through
// the page cache, as tgt's rdwr does. Ops complete inside Submit.
type File struct {
	f    *os.File
	size int64
}

// OpenFile opens a file that exists.
func OpenFile(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	s, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &File{f, s.Size()}, nil
}

// Geometry implements iscsi.Disk. Like tgt's, it has a volatile cache.
func (d *File) Geometry() iscsi.Geometry {
	return iscsi.Geometry{Size: d.size, ClusterSize: ClusterSize, WriteCache: true}
}

// Submit implements iscsi.Disk.
func (d *File) Submit(op *iscsi.Op) {
	switch op.Kind {
	case iscsi.OpRead:
		_, op.Err = d.f.ReadAt(op.Data, op.Offset)
	case iscsi.OpWrite:
		_, op.Err = d.f.WriteAt(op.Data, op.Offset)
	case iscsi.OpFlush:
		op.Err = d.f.Sync()
	default:
		op.Err = fmt.Errorf("benchdisk: operation %d is not part of any load", op.Kind)
	}
	op.Done.Complete(op)
}

// Slow is a device that takes a time for every Op, and any number at once.
type Slow struct {
	iscsi.Disk
	Delay time.Duration
}

// Submit implements iscsi.Disk.
func (d *Slow) Submit(op *iscsi.Op) { time.AfterFunc(d.Delay, func() { d.Disk.Submit(op) }) }
