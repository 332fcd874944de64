package blockfs

import (
	"encoding/binary"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// The scheduler of goroutines is told of a system call that may block: it gives away what the
// caller ran on when the call lasts, and for that wakes its monitor, which then looks every
// 20 us. Where a disk answers within 100 us, in a process that was asleep, that is a good part of
// a read. A Direct read that is the only one of the process is therefore asked for with Linux's
// AIO, which does not block, and waited for a brief time without telling anybody; the
// scheduler is told of the rest, so that a disk that does not answer keeps nobody from running.

const (
	// briefTime is how long a read is waited for without the scheduler, in nanoseconds; others
	// of the process can wait that much longer for a processor.
	briefTime = 200_000
	// briefBytes bounds such a read: larger ones last.
	briefBytes = 64 << 10
	// briefPause is how many reads go the ordinary way after one that took longer, or that
	// could not be asked for: the disk is slow, or its file system always waits.
	briefPause = 32
)

// Operations and flags of linux/aio_abi.h and linux/fs.h.
const (
	aioRead   = 0 // IOCB_CMD_PREAD
	aioNoWait = 8 // RWF_NOWAIT
)

// aioRequest is struct iocb of linux/aio_abi.h on a little-endian machine.
type aioRequest struct {
	_          uint64 // comes back in the event
	_, flags   uint32
	op         uint16
	_          int16 // priority
	fd         uint32
	buf, bytes uint64
	off        int64
	_          uint64
	_          [2]uint32
}

// aioEvent is struct io_event.
type aioEvent struct {
	_, _      uint64
	result, _ int64
}

// briefReads makes brief reads, one at a time.
type briefReads struct {
	wait   int64        // briefTime, but for tests
	inside atomic.Int32 // Direct reads of the process under way

	// The rest belongs to the read that found itself alone inside.
	state   int // of context: one of the three below
	context uintptr
	pause   int // reads that go the ordinary way yet

	p       []byte // what is read into: kept here, since the kernel's pointer keeps nothing
	off     int64
	n       int
	request aioRequest
	list    *aioRequest
	event   aioEvent
	timeout syscall.Timespec
	ask     func(fd uintptr) // b.read, made once
}

const (
	briefUntried = iota
	briefReady
	briefOff // AIO is not to be had here
)

// brief are those of this process.
var brief = briefReads{wait: briefTime}

// enter begins a Direct read, and tells whether it is the only one; leave ends it.
func (b *briefReads) enter() (alone bool) { return b.inside.Add(1) == 1 }

func (b *briefReads) leave() { b.inside.Add(-1) }

// try fills p, for who is alone inside, and tells whether it did. If not, nothing writes to p
// any more, and the read is to be done the ordinary way, errors included.
func (b *briefReads) try(c syscall.RawConn, p []byte, off int64) bool {
	if b.state == briefOff || len(p) > briefBytes {
		return false
	}
	if b.pause > 0 {
		b.pause--
		return false
	}
	if b.state == briefUntried && !b.open() {
		return false
	}
	b.p, b.off, b.n = p, off, 0
	if c.Control(b.ask) != nil || b.n != len(p) {
		b.pause = briefPause
	}
	b.p = nil
	return b.n == len(p)
}

// open makes the context of AIO.
func (b *briefReads) open() bool {
	b.state = briefOff
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return false // aioRequest is another there
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_IO_SETUP, 1, uintptr(unsafe.Pointer(&b.context)), 0); errno != 0 {
		return false
	}
	b.state, b.ask = briefReady, b.read
	return true
}

// read asks for p and waits for it.
func (b *briefReads) read(fd uintptr) {
	b.request = aioRequest{flags: aioNoWait, op: aioRead, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&b.p[0]))), bytes: uint64(len(b.p)), off: b.off}
	b.list, b.timeout = &b.request, syscall.NsecToTimespec(b.wait)
	if n, _, errno := syscall.RawSyscall(syscall.SYS_IO_SUBMIT, b.context, 1, uintptr(unsafe.Pointer(&b.list))); errno != 0 || n != 1 {
		return
	}
	n, _, errno := syscall.RawSyscall6(syscall.SYS_IO_GETEVENTS, b.context, 1, 1, uintptr(unsafe.Pointer(&b.event)), uintptr(unsafe.Pointer(&b.timeout)), 0)
	for n != 1 || errno != 0 {
		if errno != 0 && errno != syscall.EINTR {
			b.close() // for which there is no reason; only its end ends the request
			return
		}
		b.pause = briefPause
		n, _, errno = syscall.Syscall6(syscall.SYS_IO_GETEVENTS, b.context, 1, 1, uintptr(unsafe.Pointer(&b.event)), 0, 0)
	}
	if b.event.result > 0 {
		b.n = int(b.event.result)
	}
}

// close ends the context; what was asked for has ended when it returns.
func (b *briefReads) close() {
	_, _, _ = syscall.Syscall(syscall.SYS_IO_DESTROY, b.context, 0, 0)
	b.state = briefOff
}
