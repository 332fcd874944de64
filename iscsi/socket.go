package iscsi

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// readBuffer is what one read may bring: a window of 4 KiB writes in a few reads.
const readBuffer = 64 << 10

// directRead is the piece of a data segment from which on it is read past the
// buffer: copying less costs less than a system call that brings nothing else.
const directRead = 8 << 10

// maxVector is the most pieces that one writev takes (IOV_MAX of Linux).
const maxVector = 1024

// socket is the byte stream of a connection. It has one reader and, apart from
// that, one writer at a time. The descriptor is non-blocking: reading gives its
// buffer back before it waits, and writing can stop where it would have to wait.
// A net.Conn without a descriptor is read and written through its methods.
type socket struct {
	nc   net.Conn
	raw  syscall.RawConn // nil: no descriptor
	free *sync.Pool      // of *[readBuffer]byte

	// A connection has a read buffer only while it holds bytes that were not
	// handled yet, so idle ones cost none.
	buf    *[readBuffer]byte
	r, w   int    // buf[r:w] has been read and not been taken
	direct []byte // where the next read puts its first bytes
	got    int
	err    error
	readFn func(uintptr) bool

	out     *batch
	wait    bool
	outErr  error
	moved   atomic.Uint64 // writes that moved something: progress, for the watchdog
	writeFn func(uintptr) bool
}

func (s *socket) init(nc net.Conn, free *sync.Pool) {
	s.nc, s.free = nc, free
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw, s.readFn, s.writeFn = raw, s.tryRead, s.tryWrite
		}
	}
}

// buffered returns how many bytes can be taken without a read.
func (s *socket) buffered() int { return s.w - s.r }

// take returns the next n buffered bytes; they are valid until the next more.
func (s *socket) take(n int) []byte {
	b := s.buf[s.r : s.r+n]
	s.r += n
	return b
}

// room prepares the buffer for a read that has to leave n bytes in a row.
func (s *socket) room(n int) {
	if s.buf == nil {
		s.buf = s.free.Get().(*[readBuffer]byte)
	}
	if s.r == s.w {
		s.r, s.w = 0, 0
	} else if s.r+n > readBuffer {
		s.w = copy(s.buf[:], s.buf[s.r:s.w])
		s.r = 0
	}
}

// rest gives an empty buffer back.
func (s *socket) rest() {
	if s.buf != nil && s.r == s.w {
		s.free.Put(s.buf)
		s.buf, s.r, s.w = nil, 0, 0
	}
}

// more waits for at least one byte: first bytes go to direct, of which it returns
// how many, the others to the buffer. Whoever gives direct has taken the buffer
// empty.
func (s *socket) more(n int, direct []byte) (int, error) {
	s.room(n)
	s.direct, s.got, s.err = direct, 0, nil
	if s.raw == nil {
		s.readConn()
	} else if err := s.raw.Read(s.readFn); err != nil {
		s.err = err
	}
	s.direct = nil
	if s.err != nil {
		return 0, s.err
	}
	k := min(s.got, len(direct))
	s.w += s.got - k
	return k, nil
}

func (s *socket) readConn() {
	p := s.direct
	if len(p) == 0 {
		p = s.buf[s.w:]
	}
	s.got, s.err = s.nc.Read(p)
	if s.got > 0 {
		s.err = nil // it comes again
	}
}

// tryRead is one attempt; false waits until there is something.
func (s *socket) tryRead(fd uintptr) bool {
	s.room(0)
	for {
		n, err := readv(fd, s.direct, s.buf[s.w:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			s.rest()
			return false
		case err != nil:
			s.err = err
		case n == 0:
			s.err = io.EOF
		}
		s.got = n
		return true
	}
}

func readv(fd uintptr, a, b []byte) (int, error) {
	if len(a) == 0 {
		return syscall.Read(int(fd), b)
	}
	iov := [2]syscall.Iovec{{Base: unsafe.SliceData(a)}, {Base: unsafe.SliceData(b)}}
	iov[0].SetLen(len(a))
	iov[1].SetLen(len(b))
	n, _, e := syscall.Syscall(syscall.SYS_READV, fd, uintptr(unsafe.Pointer(&iov[0])), 2)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// write sends the rest of a batch. With wait it returns when all has left; without,
// it returns false where it would have to wait.
func (s *socket) write(b *batch, wait bool) (all bool, err error) {
	if len(b.left) == 0 {
		return true, nil
	}
	if s.raw == nil {
		if !wait {
			return false, nil
		}
		n, err := b.left.WriteTo(s.nc)
		if n > 0 {
			s.moved.Add(1)
		}
		return err == nil, err
	}
	s.out, s.wait, s.outErr = b, wait, nil
	err = s.raw.Write(s.writeFn)
	s.out = nil
	if err == nil {
		err = s.outErr
	}
	return err == nil && len(b.left) == 0, err
}

// tryWrite sends until nothing is left or the socket is full; false waits for room.
func (s *socket) tryWrite(fd uintptr) bool {
	b := s.out
	for len(b.left) > 0 {
		n, err := b.writev(fd)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return !s.wait
		case err != nil:
			s.outErr = err
			return true
		default:
			s.moved.Add(1)
			b.skip(n)
		}
	}
	return true
}

func (b *batch) writev(fd uintptr) (int, error) {
	b.iov = b.iov[:0]
	for _, p := range b.left[:min(len(b.left), maxVector)] {
		v := syscall.Iovec{Base: unsafe.SliceData(p)}
		v.SetLen(len(p))
		b.iov = append(b.iov, v)
	}
	n, _, e := syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&b.iov[0])), uintptr(len(b.iov)))
	clear(b.iov)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// skip drops the first n bytes, which have left.
func (b *batch) skip(n int) {
	for n > 0 {
		if k := len(b.left[0]); n >= k {
			n -= k
			b.left[0] = nil
			b.left = b.left[1:]
		} else {
			b.left[0] = b.left[0][n:]
			n = 0
		}
	}
}
