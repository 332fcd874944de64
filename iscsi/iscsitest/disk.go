// Package iscsitest provides a Disk in memory for tests, drills and benches of
// the iSCSI target. It is sparse, and can be told to wait, fail or hold Ops.
//
// Invariants:
//
//	M1  It keeps D1 to D8 of iscsi.Disk, except where a test switches errors on.
//	M2  A failed Op has no effect.
package iscsitest

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
)

// chunk is the unit of sparse allocation.
const chunk = 64 << 10

// cluster is the unit of what Allocated tells.
const cluster = 4 << 10

// Disk is a sparse in-memory iscsi.Disk. Its methods are safe for concurrent use.
type Disk struct {
	clk clock.Clock

	mu     sync.RWMutex
	geo    iscsi.Geometry
	chunks map[int64]*[chunk]byte
	mapped map[int64]struct{} // clusters of 4 KiB that hold data
	state  []byte             // reservation state
	delay  time.Duration
	fail   func(*iscsi.Op) error
	held   []*iscsi.Op
	hold   bool
	space  iscsi.Space
	wg     sync.WaitGroup

	// Ops counts submitted operations by kind.
	Ops [16]atomic.Int64
}

// NewDisk returns an empty disk of size bytes with 4 KiB clusters and no volatile
// cache. clk is used for delays; nil is the machine's clock.
func NewDisk(size int64, clk clock.Clock) *Disk {
	if clk == nil {
		clk = clock.Real{}
	}
	return &Disk{
		clk: clk, chunks: map[int64]*[chunk]byte{}, mapped: map[int64]struct{}{},
		geo: iscsi.Geometry{Size: size, ClusterSize: 4096, AtomicBytes: size},
	}
}

// Geometry implements iscsi.Disk.
func (d *Disk) Geometry() iscsi.Geometry {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.geo
}

// Allocated implements iscsi.Provisioner, a cluster at a time.
func (d *Disk) Allocated(off int64) (mapped bool, n int64) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, mapped = d.mapped[off/cluster]
	return mapped, cluster - off%cluster
}

// Reservation implements iscsi.Reserver.
func (d *Disk) Reservation() []byte {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.state
}

// SetGeometry changes the disk; its size must not shrink (D6).
func (d *Disk) SetGeometry(g iscsi.Geometry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.geo = g
}

// Thin makes a Disk an iscsi.SpaceReporter, too.
type Thin struct{ *Disk }

// Space implements iscsi.SpaceReporter.
func (d Thin) Space() iscsi.Space {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.space
}

// SetSpace sets what Space returns.
func (d Thin) SetSpace(s iscsi.Space) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.space = s
}

// SetDelay makes every later Op take at least t, completed from another goroutine.
func (d *Disk) SetDelay(t time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.delay = t
}

// SetFail installs a function that decides which Ops fail, and how; nil ends it.
func (d *Disk) SetFail(f func(*iscsi.Op) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = f
}

// Hold keeps every later Op until Release.
func (d *Disk) Hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = true
}

// Step executes the kept Ops; later ones are kept as before.
func (d *Disk) Step() {
	d.mu.Lock()
	ops := d.held
	d.held = nil
	d.mu.Unlock()
	for _, op := range ops {
		d.execute(op)
	}
}

// Held returns how many Ops are kept.
func (d *Disk) Held() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.held)
}

// Release executes the kept Ops and keeps no more.
func (d *Disk) Release() {
	d.mu.Lock()
	ops := d.held
	d.held, d.hold = nil, false
	d.mu.Unlock()
	for _, op := range ops {
		d.execute(op)
	}
}

// ReleaseOne executes the oldest kept Op of a kind, and reports whether there is one.
func (d *Disk) ReleaseOne(kind iscsi.OpKind) bool {
	d.mu.Lock()
	var op *iscsi.Op
	for i, o := range d.held {
		if o.Kind == kind {
			op = o
			d.held = append(d.held[:i], d.held[i+1:]...)
			break
		}
	}
	d.mu.Unlock()
	if op == nil {
		return false
	}
	d.execute(op)
	return true
}

// Wait waits for delayed Ops.
func (d *Disk) Wait() { d.wg.Wait() }

// Submit implements iscsi.Disk.
func (d *Disk) Submit(op *iscsi.Op) {
	d.Ops[op.Kind].Add(1)
	d.mu.RLock()
	delay, hold := d.delay, d.hold
	d.mu.RUnlock()
	if hold {
		d.mu.Lock()
		if d.hold {
			d.held = append(d.held, op)
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
	}
	if delay == 0 {
		d.execute(op)
		return
	}
	d.wg.Add(1)
	go func() {
		defer d.wg.Done()
		<-d.clk.NewTimer(delay).C()
		d.execute(op)
	}()
}

func (d *Disk) execute(op *iscsi.Op) {
	d.mu.RLock()
	fail := d.fail
	d.mu.RUnlock()
	op.Err = nil
	if fail != nil {
		op.Err = fail(op)
	}
	if op.Err == nil {
		d.apply(op)
	}
	op.Done.Complete(op)
}

func (d *Disk) apply(op *iscsi.Op) {
	n := op.Length
	if op.Data != nil {
		n = int64(len(op.Data))
	}
	if op.Kind == iscsi.OpCompareAndWrite {
		n /= 2
	}
	if op.Kind == iscsi.OpRead {
		d.mu.RLock()
		defer d.mu.RUnlock()
	} else {
		d.mu.Lock()
		defer d.mu.Unlock()
	}
	if op.Kind == iscsi.OpReserve {
		d.state = bytes.Clone(op.Data)
		return
	}
	if op.Offset < 0 || n < 0 || op.Offset+n > d.geo.Size || op.Offset%512 != 0 || n%512 != 0 {
		op.Err = iscsi.ErrMedium
		return
	}
	switch op.Kind {
	case iscsi.OpRead:
		d.read(op.Data, op.Offset)
	case iscsi.OpWrite:
		d.write(op.Data, op.Offset)
	case iscsi.OpZero, iscsi.OpUnmap:
		d.zero(op.Offset, n)
	case iscsi.OpCompareAndWrite:
		d.compareAndWrite(op, n)
	case iscsi.OpOrWrite:
		now := make([]byte, n)
		d.read(now, op.Offset)
		for i, b := range op.Data {
			now[i] |= b
		}
		d.write(now, op.Offset)
	}
}

// each calls f for the pieces of [off, off+n) that lie in one chunk.
func each(off, n int64, f func(index, in, at, n int64)) {
	for at := int64(0); at < n; {
		in := (off + at) % chunk
		k := min(n-at, chunk-in)
		f((off+at)/chunk, in, at, k)
		at += k
	}
}

func (d *Disk) read(p []byte, off int64) {
	each(off, int64(len(p)), func(index, in, at, n int64) {
		if c := d.chunks[index]; c != nil {
			copy(p[at:at+n], c[in:])
		} else {
			clear(p[at : at+n])
		}
	})
}

func (d *Disk) write(p []byte, off int64) {
	for c := off / cluster; c*cluster < off+int64(len(p)); c++ {
		d.mapped[c] = struct{}{}
	}
	each(off, int64(len(p)), func(index, in, at, n int64) {
		c := d.chunks[index]
		if c == nil {
			c = new([chunk]byte)
			d.chunks[index] = c
		}
		copy(c[in:], p[at:at+n])
	})
}

func (d *Disk) zero(off, n int64) {
	first, end := (off+cluster-1)/cluster, (off+n)/cluster
	for c := range d.mapped {
		if c >= first && c < end {
			delete(d.mapped, c)
		}
	}
	if n > int64(len(d.chunks))*chunk { // a large range over a sparse disk
		for index, c := range d.chunks {
			lo, hi := max(off, index*chunk), min(off+n, (index+1)*chunk)
			if lo < hi {
				clear(c[lo-index*chunk : hi-index*chunk])
			}
		}
		return
	}
	each(off, n, func(index, in, _, k int64) {
		if c := d.chunks[index]; c != nil {
			clear(c[in : in+k])
		}
	})
}

func (d *Disk) compareAndWrite(op *iscsi.Op, n int64) {
	now := make([]byte, n)
	d.read(now, op.Offset)
	if want := op.Data[:n]; !bytes.Equal(now, want) {
		op.Err = iscsi.ErrMiscompare
		for op.MiscompareAt = 0; now[op.MiscompareAt] == want[op.MiscompareAt]; {
			op.MiscompareAt++
		}
		return
	}
	d.write(op.Data[n:], op.Offset)
}

// ReadAt and WriteAt reach the content past the target, for tests that compare.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	d.read(p, off)
	return len(p), nil
}

// WriteAt stores p at off without an Op.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write(p, off)
	return len(p), nil
}
