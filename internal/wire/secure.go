package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Buffers between TLS and the socket: crypto/tls reads and writes one record
// (16 KiB) per system call, and those cost more than copying. 64 KiB is where
// larger ones gain nothing measurable on loopback.
const (
	secureRead  = 64 << 10
	secureWrite = 64 << 10
	// largeWrite is what is worth a system call of its own, in the clear; a record of TLS is
	// smaller.
	largeWrite = 24 << 10
)

// Clear is the protocol (ALPN) of connections that leave TLS once both ends have shown who
// they are: what follows is neither secret nor protected against who can change it on its way.
// A connection does if both ends have it in NextProtos, and is a TLS connection otherwise.
const Clear = "ovgate" + ClearSuffix

// ClearSuffix ends the names of such protocols.
const ClearSuffix = "-clear/1"

// TLSConn is a TLS connection that a Conn flushes at the end of each frame, or one that has
// left TLS (Clear).
type TLSConn struct {
	*tls.Conn
	below *heldConn
	clear bool
}

// Clear tells whether the connection has left TLS.
func (c *TLSConn) Clear() bool { return c.clear }

// Read implements net.Conn.
func (c *TLSConn) Read(p []byte) (int, error) {
	if c.clear {
		return c.below.Read(p)
	}
	return c.Conn.Read(p)
}

// Write implements net.Conn.
func (c *TLSConn) Write(p []byte) (int, error) {
	if c.clear {
		return c.below.Write(p)
	}
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *TLSConn) Close() error {
	if c.clear {
		return c.below.Close()
	}
	return c.Conn.Close()
}

// BeforeRead has f called, by who reads, before each read of the connection below, which
// may have to wait for the peer; records that have come already are read without it. It is
// to be called by who reads, or before anybody does.
func (c *TLSConn) BeforeRead(f func()) { c.below.before = f }

// Flush writes what is held back.
func (c *TLSConn) Flush() error {
	c.below.mu.Lock()
	defer c.below.mu.Unlock()
	return c.below.w.Flush()
}

// Secure performs the TLS handshake over raw, as the server or as the client that
// config is for, and returns the connection, which has left TLS if that is what both ends want
// (Clear); ctx bounds the handshake. raw stays
// the caller's: closing it ends everything at once, where closing the TLSConn
// would first say goodbye to a peer that may not read.
func Secure(ctx context.Context, raw net.Conn, config *tls.Config, server bool) (*TLSConn, error) {
	below := &heldConn{Conn: raw, socket: newSocket(raw)}
	below.r = bufio.NewReaderSize(waiting{below}, secureRead)
	t := &TLSConn{below: below}
	if server {
		t.Conn = tls.Server(below, config)
	} else {
		t.Conn = tls.Client(below, config)
	}
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if strings.HasSuffix(t.ConnectionState().NegotiatedProtocol, ClearSuffix) {
		if err := t.leave(ctx, server); err != nil {
			return nil, err
		}
	}
	below.hold()
	return t, nil
}

// leave leaves TLS. crypto/tls reads ahead, and what it has read is lost to who reads below it:
// the client says nothing after its part of the handshake until the server, which has all of
// that by then, sends a byte; the server says nothing after it before it hears from the client,
// as all protocols of a Conn begin.
func (c *TLSConn) leave(ctx context.Context, server bool) error {
	stop := context.AfterFunc(ctx, func() { _ = c.below.SetDeadline(time.Unix(1, 0)) })
	var now [1]byte
	var err error
	if server {
		_, err = c.Conn.Write(now[:])
	} else {
		_, err = io.ReadFull(c.Conn, now[:])
	}
	if !stop() {
		return context.Cause(ctx)
	}
	c.clear = err == nil
	return err
}

// heldConn gathers records into large reads and, once held, writes.
type heldConn struct {
	net.Conn
	socket *socket
	r      *bufio.Reader
	before func() // nil: nothing to do before a read; the reader's

	mu sync.Mutex // crypto/tls may answer a key update while it reads
	w  *bufio.Writer
}

func (c *heldConn) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.w = bufio.NewWriterSize(c.socket, secureWrite)
}

// waiting reads what has not come yet.
type waiting struct{ c *heldConn }

func (w waiting) Read(p []byte) (int, error) {
	if w.c.before != nil {
		w.c.before()
	}
	return w.c.socket.Read(p)
}

func (c *heldConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *heldConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.w == nil {
		return c.Conn.Write(p)
	}
	if len(p) >= largeWrite && c.w.Buffered() == 0 {
		return c.socket.Write(p) // gathered already
	}
	return c.w.Write(p)
}
