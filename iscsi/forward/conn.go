package forward

import (
	"bufio"
	"net"
)

// connection is a net.Conn whose writer decides when what it wrote leaves.
type connection interface {
	net.Conn
	Flush() error
}

// flusher holds back what was written until Flush (wire.TLSConn).
type flusher interface{ Flush() error }

// holding is a connection that gathers frames: while hold is set a Flush does nothing.
// Only its writer uses hold and Flush.
type holding struct {
	net.Conn
	w    *bufio.Writer
	hold bool
}

// sendBytes is what leaves with one system call, and what TLS makes its records of.
const sendBytes = 64 << 10

func hold(c net.Conn) *holding { return &holding{Conn: c, w: bufio.NewWriterSize(c, sendBytes)} }

func (h *holding) Write(p []byte) (int, error) { return h.w.Write(p) }

// Flush sends what is held back, unless more follows.
func (h *holding) Flush() error {
	if h.hold {
		return nil
	}
	if err := h.w.Flush(); err != nil {
		return err
	}
	if f, ok := h.Conn.(flusher); ok {
		return f.Flush()
	}
	return nil
}
