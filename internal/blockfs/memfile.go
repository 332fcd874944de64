package blockfs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// memFile is an open file of a Mem. n and closed are guarded by m.mu.
type memFile struct {
	m      *Mem
	n      *node
	path   string
	flag   Flag
	closed bool
}

var _ File = (*memFile)(nil)

// usable tells whether an operation may start; the lock is held.
func (f *memFile) usable(write bool) error {
	switch {
	case f.m.dead:
		return ErrCrashed
	case f.closed:
		return fs.ErrClosed
	case write && f.flag&Write == 0:
		return syscall.EBADF
	}
	return nil
}

// ReadAt implements File.
func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if err := checkRange("read", f.path, off); err != nil {
		return 0, err
	}
	if f.flag&Direct != 0 {
		if err := checkAligned(f.path, p, off); err != nil {
			return 0, err
		}
	}
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if err := f.usable(false); err != nil {
		return 0, pathError(OpRead, f.path, err)
	}
	n := f.n.live.readAt(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements File.
func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if err := checkRange("write", f.path, off); err != nil {
		return 0, err
	}
	if f.flag&Direct != 0 {
		if err := checkAligned(f.path, p, off); err != nil {
			return 0, err
		}
	}
	data := bytes.Clone(p) // the one copy; pages refer to it from now on
	var id int64
	var settle func()
	if f.flag&DSync != 0 {
		settle = func() { f.n.settleWrite(id) }
	}
	op := OpInfo{Kind: OpWrite, Path: f.path, Off: off, Len: int64(len(p))}
	err := f.m.step(op, func() error {
		if err := f.usable(true); err != nil {
			return err
		}
		if err := checkMemSize(off + int64(len(data))); err != nil {
			return err
		}
		if add := f.n.live.newPages(off, int64(len(data))); add > 0 && f.m.used+add > f.m.capacity {
			return syscall.ENOSPC
		}
		id = f.change(change{kind: changeWrite, segs: []segment{{off, data}}})
		return nil
	}, settle)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// change carries a change out on the live content and queues it; the lock is
// held. It returns the change's id.
func (f *memFile) change(ch change) int64 {
	ch.id = f.m.nextID()
	before := f.n.live.used
	ch.apply(&f.n.live)
	f.m.used += f.n.live.used - before
	f.n.pending = append(f.n.pending, ch)
	f.n.modTime = f.m.now()
	return ch.id
}

// settleWrite makes one write durable ahead of what is queued before it, and
// takes its range out of those: they can no longer undo it (B1).
func (n *node) settleWrite(id int64) {
	at := slices.IndexFunc(n.pending, func(ch change) bool { return ch.id == id })
	if at < 0 {
		return // a Sync that started later was faster
	}
	w := n.pending[at]
	w.apply(&n.durable)
	for i := range n.pending[:at] {
		n.pending[i].yield(w.segs)
	}
	n.pending = slices.Delete(n.pending, at, at+1)
}

// yield removes the ranges of later durable segments from a change's effect.
func (ch *change) yield(later []segment) {
	for _, l := range later {
		r := span{l.off, l.end()}
		switch ch.kind {
		case changeTruncate:
			ch.keep = append(ch.keep, r)
		case changeWrite:
			var rest []segment
			for _, s := range ch.segs {
				rest = append(rest, s.without(r)...)
			}
			ch.segs = rest
		}
	}
}

// settle makes the changes up to an id durable.
func (n *node) settle(upTo int64) {
	k := 0
	for k < len(n.pending) && n.pending[k].id <= upTo {
		k++
	}
	if k == len(n.pending) && !n.lost {
		n.durable = n.live.share()
		n.pending = nil
		return
	}
	for i := range n.pending[:k] {
		n.pending[i].apply(&n.durable)
	}
	n.pending = slices.Delete(n.pending, 0, k)
}

// Sync implements File.
func (f *memFile) Sync() error {
	var id int64
	return f.m.step(OpInfo{Kind: OpSync, Path: f.path}, func() error {
		id = f.m.lastID
		return f.usable(false)
	}, func() { f.n.settle(id) })
}

// Truncate implements File.
func (f *memFile) Truncate(size int64) error {
	if err := checkRange("truncate", f.path, size); err != nil {
		return err
	}
	return f.m.step(OpInfo{Kind: OpTruncate, Path: f.path, Len: size}, func() error {
		if err := f.usable(true); err != nil {
			return err
		}
		if err := checkMemSize(size); err != nil {
			return err
		}
		f.change(change{kind: changeTruncate, size: size})
		return nil
	}, nil)
}

// Preallocate implements File.
func (f *memFile) Preallocate(size int64) error {
	if err := checkRange("preallocate", f.path, size); err != nil {
		return err
	}
	var id int64
	return f.m.step(OpInfo{Kind: OpPreallocate, Path: f.path, Len: size}, func() error {
		if err := f.usable(true); err != nil {
			return err
		}
		if err := checkMemSize(size); err != nil {
			return err
		}
		old := f.n.live.size
		if f.flag&Direct != 0 && (size%Alignment != 0 || old%Alignment != 0) {
			return fmt.Errorf("from %d to %d: %w", old, size, ErrUnaligned)
		}
		if size > old {
			if f.m.used+f.n.live.newPages(old, size-old) > f.m.capacity {
				return syscall.ENOSPC
			}
			f.change(change{kind: changeAllocate, from: old, size: size})
		}
		id = f.m.lastID
		return nil
	}, func() { f.n.settle(id) })
}

// Size implements File.
func (f *memFile) Size() (int64, error) {
	f.m.mu.RLock()
	defer f.m.mu.RUnlock()
	if err := f.usable(false); err != nil {
		return 0, pathError(OpStat, f.path, err)
	}
	return f.n.live.size, nil
}

// Close implements File.
func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return pathError(OpOpen, f.path, fs.ErrClosed)
	}
	f.closed = true
	f.n.opens--
	f.m.release(f.n)
	return nil
}
