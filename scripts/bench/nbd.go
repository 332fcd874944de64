package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// nbdDisk is an export of an NBD server, with many requests in flight on one connection.
type nbdDisk struct {
	fua  bool // each write asks to be durable
	conn net.Conn

	wmu sync.Mutex // requests are written whole
	w   *bufio.Writer

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]*nbdCall
	err     error
}

type nbdCall struct {
	into []byte // of a read
	done chan error
}

// The fixed newstyle negotiation and simple replies of the NBD protocol.
const (
	nbdMagic     = 0x4e42444d41474943 // "NBDMAGIC"
	nbdOption    = 0x49484156454f5054 // "IHAVEOPT"
	nbdOptReply  = 0x3e889045565a9
	nbdOptGo     = 7
	nbdRepAck    = 1
	nbdRepInfo   = 3
	nbdRequest   = 0x25609513
	nbdReply     = 0x67446698
	nbdCmdRead   = 0
	nbdCmdWrite  = 1
	nbdCmdEnd    = 2
	nbdFUA       = 1
	nbdMaxReply  = 64 << 10
	nbdHandshake = 10 * time.Second
)

// dialNBD opens the default export behind a Unix socket.
func dialNBD(socket string) (*nbdDisk, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := negotiate(conn); err != nil {
		return nil, errors.Join(fmt.Errorf("nbd %s: %w", socket, err), conn.Close())
	}
	d := &nbdDisk{conn: conn, w: bufio.NewWriterSize(conn, 256<<10), waiting: map[uint64]*nbdCall{}}
	go d.receive()
	return d, nil
}

func negotiate(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(nbdHandshake)); err != nil {
		return err
	}
	var hello [18]byte
	if _, err := io.ReadFull(conn, hello[:]); err != nil {
		return err
	}
	be := binary.BigEndian
	if be.Uint64(hello[:]) != nbdMagic || be.Uint64(hello[8:]) != nbdOption {
		return fmt.Errorf("no newstyle greeting: %x", hello)
	}
	out := be.AppendUint32(nil, uint32(be.Uint16(hello[16:])&3)) // fixed newstyle, no zeroes
	out = be.AppendUint64(out, nbdOption)
	out = be.AppendUint32(out, nbdOptGo)
	out = be.AppendUint32(out, 6)
	out = be.AppendUint32(out, 0) // the default export
	out = be.AppendUint16(out, 0) // no information
	if _, err := conn.Write(out); err != nil {
		return err
	}
	for {
		var h [20]byte
		if _, err := io.ReadFull(conn, h[:]); err != nil {
			return err
		}
		n := be.Uint32(h[16:])
		if be.Uint64(h[:]) != nbdOptReply || n > nbdMaxReply {
			return fmt.Errorf("not a reply: %x", h)
		}
		if _, err := io.CopyN(io.Discard, conn, int64(n)); err != nil {
			return err
		}
		switch be.Uint32(h[12:]) {
		case nbdRepAck:
			return conn.SetDeadline(time.Time{})
		case nbdRepInfo:
		default:
			return fmt.Errorf("refused: %x", h)
		}
	}
}

// receive hands the replies out until the connection ends.
func (d *nbdDisk) receive() {
	r := bufio.NewReaderSize(d.conn, 256<<10)
	var h [16]byte
	for {
		_, err := io.ReadFull(r, h[:])
		if err == nil && binary.BigEndian.Uint32(h[:]) != nbdReply {
			err = fmt.Errorf("nbd: not a reply: %x", h)
		}
		if err != nil {
			d.fail(err)
			return
		}
		d.mu.Lock()
		c := d.waiting[binary.BigEndian.Uint64(h[8:])]
		delete(d.waiting, binary.BigEndian.Uint64(h[8:]))
		d.mu.Unlock()
		if c == nil {
			d.fail(fmt.Errorf("nbd: a reply to nothing: %x", h))
			return
		}
		if e := binary.BigEndian.Uint32(h[4:]); e != 0 {
			c.done <- fmt.Errorf("nbd: error %d", e)
			continue
		}
		if _, err = io.ReadFull(r, c.into); err != nil {
			c.done <- err
			d.fail(err)
			return
		}
		c.done <- nil
	}
}

// fail ends all calls.
func (d *nbdDisk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
	}
	for id, c := range d.waiting {
		delete(d.waiting, id)
		c.done <- d.err
	}
}

// call sends a request and waits for its reply.
func (d *nbdDisk) call(cmd uint16, p []byte, off int64) error {
	c := &nbdCall{done: make(chan error, 1)}
	if cmd == nbdCmdRead {
		c.into = p
	}
	d.mu.Lock()
	if d.err != nil {
		d.mu.Unlock()
		return d.err
	}
	d.next++
	id := d.next
	d.waiting[id] = c
	d.mu.Unlock()
	var h [28]byte
	be := binary.BigEndian
	be.PutUint32(h[0:], nbdRequest)
	if d.fua && cmd == nbdCmdWrite {
		be.PutUint16(h[4:], nbdFUA)
	}
	be.PutUint16(h[6:], cmd)
	be.PutUint64(h[8:], id)
	be.PutUint64(h[16:], uint64(off))
	be.PutUint32(h[24:], uint32(len(p)))
	d.wmu.Lock()
	_, err := d.w.Write(h[:])
	if err == nil && cmd == nbdCmdWrite {
		_, err = d.w.Write(p)
	}
	if err == nil {
		err = d.w.Flush()
	}
	d.wmu.Unlock()
	if err != nil {
		d.fail(err)
	}
	return <-c.done
}

// ReadAt implements disk.
func (d *nbdDisk) ReadAt(p []byte, off int64) (int, error) {
	return len(p), d.call(nbdCmdRead, p, off)
}

// WriteAt implements disk.
func (d *nbdDisk) WriteAt(p []byte, off int64) (int, error) {
	return len(p), d.call(nbdCmdWrite, p, off)
}

// Close ends the session.
func (d *nbdDisk) Close() error {
	var h [28]byte
	binary.BigEndian.PutUint32(h[0:], nbdRequest)
	binary.BigEndian.PutUint16(h[6:], nbdCmdEnd)
	d.wmu.Lock()
	_, err := d.w.Write(h[:])
	err = errors.Join(err, d.w.Flush())
	d.wmu.Unlock()
	return errors.Join(err, d.conn.Close())
}

// nbdPeer is an NBD server to compare with.
type nbdPeer struct {
	name, what string
	fua        bool // each write asks to be durable
	// serve prepares the image in dir and returns the command that serves it.
	serve func(ctx context.Context, dir, socket string) ([]string, error)
}

// nbdPeers are those that Debian has.
var nbdPeers = []nbdPeer{
	{"qemu-none", "qemu-nbd, qcow2, cache=none: O_DIRECT, a write is not synced", false, qemuNBD("none")},
	{"qemu-sync", "qemu-nbd, qcow2, cache=writethrough: each write is synced", false, qemuNBD("writethrough")},
	{"nbdkit-sync", "nbdkit, plugin file: a raw file through the page cache, each write with FUA", true, nbdkitFile},
}

// qemuNBD serves a qcow2 image whose metadata is there.
func qemuNBD(cache string) func(context.Context, string, string) ([]string, error) {
	return func(ctx context.Context, dir, socket string) ([]string, error) {
		image := filepath.Join(dir, "qemu-"+cache+".qcow2")
		if out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", image, fmt.Sprint(lunSize)).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("qemu-img: %w: %s", err, out)
		}
		return []string{"qemu-nbd", "--format=qcow2", "--cache=" + cache, "--aio=threads", "--persistent", "--shared=1", "--socket=" + socket, image}, nil
	}
}

// nbdkitFile serves a raw file.
func nbdkitFile(_ context.Context, dir, socket string) ([]string, error) {
	image := filepath.Join(dir, "nbdkit.raw")
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	return []string{"nbdkit", "--foreground", "--unix", socket, "file", image}, errors.Join(f.Truncate(lunSize), f.Close())
}

// open serves an image and writes it in full.
func (p nbdPeer) open(ctx context.Context, dir string) (t *target, err error) {
	socket := filepath.Join(dir, p.name+".sock")
	args, err := p.serve(ctx, dir, socket)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w: run scripts/setup.sh", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := func() error {
		err := cmd.Process.Kill()
		<-ended
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stop())
		}
	}()
	t = &target{name: p.name, pid: cmd.Process.Pid, close: stop, settle: func(context.Context) error { return nil },
		config: fmt.Sprintf("Debian %s; one NBD connection over a Unix socket", p.what)}
	for deadline := time.Now().Add(nbdHandshake); ; time.Sleep(20 * time.Millisecond) {
		d, err := dialNBD(socket)
		if err == nil {
			d.fua = p.fua
			t.disk = d
			break
		}
		if time.Now().After(deadline) {
			return nil, err
		}
	}
	return t, fill(t.disk, lunSize)
}
