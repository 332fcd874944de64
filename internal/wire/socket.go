package wire

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// socket moves bytes of a non-blocking socket in system calls that the scheduler of
// goroutines is not told of: they end at once, while telling it wakes the thread that looks
// after long ones, which for a small message costs as much as the message. A net.Conn
// without a descriptor, or that fails to give it, is used through its methods. One
// goroutine may read while another writes.
type socket struct {
	net.Conn
	raw     syscall.RawConn // nil: no descriptor
	in, out transfer
	tryRead func(fd uintptr) bool
	tryOut  func(fd uintptr) bool
}

// transfer is what one direction moves now.
type transfer struct {
	p   []byte
	n   int
	err error
}

func newSocket(c net.Conn) *socket {
	s := &socket{Conn: c}
	if sc, ok := c.(*net.TCPConn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
			s.tryRead = func(fd uintptr) bool { return s.in.try(syscall.SYS_READ, fd) }
			s.tryOut = func(fd uintptr) bool {
				for s.out.try(syscall.SYS_WRITE, fd) {
					if s.out.err != nil || len(s.out.p) == s.out.n {
						return true
					}
				}
				return false
			}
		}
	}
	return s
}

// try makes one attempt behind what was moved already; false: it has to wait.
func (t *transfer) try(call, fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(&t.p[t.n])), uintptr(len(t.p)-t.n))
		switch errno {
		case 0:
			t.n += int(n)
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		default:
			name := "write"
			if call == syscall.SYS_READ {
				name = "read"
			}
			t.err = os.NewSyscallError(name, errno)
		}
		return true
	}
}

// move lets wait repeat attempts until the transfer of p is over.
func (t *transfer) move(p []byte, wait func(func(uintptr) bool) error, try func(uintptr) bool) (int, error) {
	*t = transfer{p: p}
	err := wait(try)
	if t.err != nil {
		err = t.err
	}
	n := t.n
	*t = transfer{}
	return n, err
}

// Read implements io.Reader.
func (s *socket) Read(p []byte) (int, error) {
	if s.raw == nil || len(p) == 0 {
		return s.Conn.Read(p)
	}
	n, err := s.in.move(p, s.raw.Read, s.tryRead)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write implements io.Writer.
func (s *socket) Write(p []byte) (int, error) {
	if s.raw == nil || len(p) == 0 {
		return s.Conn.Write(p)
	}
	return s.out.move(p, s.raw.Write, s.tryOut)
}
