package volume

import (
	"bytes"
	"context"
	"fmt"

	"github.com/openvstorage/ovgate/volumedriver/journal"
)

// submitChange takes the range of a change.
func (v *Volume) submitChange(r *Request) {
	n := r.span()
	if n == 0 {
		v.complete(r, v.writeError())
		return
	}
	cs := uint64(v.cluster)
	r.st.first = uint64(r.Offset) / cs
	r.st.end = (uint64(r.Offset+n) + cs - 1) / cs
	if v.locks.acquire(r) {
		v.prepare(r)
	}
}

// prepare turns a request that has its range into extents. What must be read
// first is read on another goroutine, never by the committer (V2).
func (v *Volume) prepare(r *Request) {
	whole := r.Offset%int64(v.cluster) == 0 && r.span()%int64(v.cluster) == 0
	r.st.nExtents, r.st.nParts, r.st.bytes = 0, 0, 0
	if r.Kind == reqPin {
		// The record's extent is made by the committer.
		if record, err := v.prepareMark(r.st.mark); err != nil || !record {
			v.finish(r, err)
			return
		}
		v.enqueue(r)
		return
	}
	if r.Kind == ReqReserve {
		if err := v.prepareReserve(r); err != nil {
			v.finish(r, err)
			return
		}
		v.enqueue(r)
		return
	}
	if whole && r.Kind != ReqCompareAndWrite && r.Kind != ReqOrWrite {
		if r.Kind == ReqWrite {
			r.addData(v.cluster, r.st.first, r.Data)
		} else {
			r.addRange(v.cluster, r.Kind, r.st.first, r.st.end)
		}
		v.enqueue(r)
		return
	}
	go func() {
		if err := v.prepareSlow(r); err != nil {
			v.finish(r, err)
			return
		}
		v.enqueue(r)
	}()
}

func (r *Request) addData(cluster int, first uint64, p []byte) {
	per := uint64(cluster / lbaBytes)
	r.st.extents[r.st.nExtents] = journal.Extent{LBA: first * per, Length: uint64(len(p)) / lbaBytes, Kind: journal.KindData}
	r.st.nExtents++
	r.st.parts[r.st.nParts] = p
	r.st.nParts++
	r.st.bytes += len(p)
}

func (r *Request) addRange(cluster int, kind RequestKind, first, end uint64) {
	if first >= end {
		return
	}
	k := journal.KindTrim
	if kind == ReqZero {
		k = journal.KindZero
	}
	per := uint64(cluster / lbaBytes)
	r.st.extents[r.st.nExtents] = journal.Extent{LBA: first * per, Length: (end - first) * per, Kind: k}
	r.st.nExtents++
}

// prepareSlow reads the old data that a partial cluster, a compare or an OR needs.
func (v *Volume) prepareSlow(r *Request) error {
	cs := int64(v.cluster)
	data := r.Data
	if r.Kind == ReqCompareAndWrite {
		half := len(r.Data) / 2
		if err := v.compare(r, r.Data[:half]); err != nil {
			return err
		}
		data = r.Data[half:]
	}
	if r.Kind == ReqOrWrite {
		old := make([]byte, len(data))
		if err := v.readInner(v.ctx, old, r.Offset); err != nil {
			return err
		}
		for i, b := range data {
			old[i] |= b
		}
		data = old
	}
	n := r.span()
	head := r.Offset % cs
	if r.Kind == ReqZero || r.Kind == ReqUnmap {
		return v.prepareHole(r, head, n)
	}
	// A write: one buffer of whole clusters, old data at both edges.
	size := int64(r.st.end-r.st.first) * cs
	if head == 0 && n == size {
		r.addData(v.cluster, r.st.first, data)
		return nil
	}
	buf := make([]byte, size)
	base := int64(r.st.first) * cs
	if head != 0 {
		if err := v.readInner(v.ctx, buf[:cs], base); err != nil {
			return err
		}
	}
	if tail := (head + n) % cs; tail != 0 && (head == 0 || size > cs) {
		if err := v.readInner(v.ctx, buf[size-cs:], base+size-cs); err != nil {
			return err
		}
	}
	copy(buf[head:], data)
	r.addData(v.cluster, r.st.first, buf)
	return nil
}

// prepareHole zeroes the partial clusters at the edges and unmaps those between.
func (v *Volume) prepareHole(r *Request, head, n int64) error {
	cs := int64(v.cluster)
	first, end := r.st.first, r.st.end
	edge := func(c uint64, from, to int64) error {
		buf := make([]byte, cs)
		if err := v.readInner(v.ctx, buf, int64(c)*cs); err != nil {
			return err
		}
		clear(buf[from:to])
		r.addData(v.cluster, c, buf)
		return nil
	}
	if head != 0 || head+n < cs {
		if err := edge(first, head, min(cs, head+n)); err != nil {
			return err
		}
		first++
	}
	if tail := (r.Offset + n) % cs; tail != 0 && end > first {
		if err := edge(end-1, 0, tail); err != nil {
			return err
		}
		end--
	}
	r.addRange(v.cluster, r.Kind, first, end)
	return nil
}

// compare checks the compare half of a compare-and-write.
func (v *Volume) compare(r *Request, want []byte) error {
	have := make([]byte, len(want))
	if err := v.readInner(v.ctx, have, r.Offset); err != nil {
		return err
	}
	if bytes.Equal(have, want) {
		return nil
	}
	for i := range want {
		if have[i] != want[i] {
			r.MiscompareAt = i
			break
		}
	}
	return fmt.Errorf("vdisk %s: %w at byte %d", v.id, ErrMiscompare, r.MiscompareAt)
}

// enqueue hands a prepared change to the committer.
func (v *Volume) enqueue(r *Request) {
	v.qmu.Lock()
	if v.stopped {
		v.qmu.Unlock()
		v.finish(r, fmt.Errorf("vdisk %s: %w", v.id, ErrClosed))
		return
	}
	before := v.queueBytes
	v.queue = append(v.queue, r)
	v.queueBytes += r.st.bytes
	// The committer looks again when there is something, and when there is enough to
	// build a record beside the one being written.
	wake := len(v.queue) == 1 || before < v.host.o.overlap && v.queueBytes >= v.host.o.overlap
	v.qmu.Unlock()
	if wake {
		v.wakeCommitter()
	}
}

// queued returns how many bytes of data are in the queue.
func (v *Volume) queued() int {
	v.qmu.Lock()
	defer v.qmu.Unlock()
	return v.queueBytes
}

// dequeue moves the first n requests of the queue to dst; v.qmu is held.
func (v *Volume) dequeue(dst []*Request, n int) []*Request {
	for _, r := range v.queue[:n] {
		v.queueBytes -= r.st.bytes
		dst = append(dst, r)
	}
	left := copy(v.queue, v.queue[n:])
	clear(v.queue[left:])
	v.queue = v.queue[:left]
	return dst
}

func (v *Volume) wakeCommitter() {
	select {
	case v.kick <- struct{}{}:
	default:
	}
}

// finish completes a change that holds its range and starts those that waited.
func (v *Volume) finish(r *Request, err error) {
	granted := v.locks.release(r)
	clear(r.st.parts[:]) // the buffers are the submitter's again
	v.complete(r, err)
	for _, g := range granted {
		v.prepare(g)
	}
}

// readInner reads for the engine itself, any alignment of 512 bytes.
func (v *Volume) readInner(ctx context.Context, p []byte, off int64) error {
	pieces, err := v.lookup(ctx, nil, uint64(off)/uint64(v.cluster), (uint64(off)+uint64(len(p))+uint64(v.cluster)-1)/uint64(v.cluster))
	if err != nil {
		return err
	}
	return v.readAgain(ctx, pieces, p, off)
}
