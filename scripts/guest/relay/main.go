// Command relay joins one connection of the test guest to a port of the host's
// loopback. QEMU starts it for each connection to a forwarded address, with the
// connection as standard input and output.
//
//	relay ROUTE
//
// ROUTE is a file that holds "127.0.0.1:PORT", or nothing while the path is to be
// down. Any address but a loopback one is refused. When the target does not
// answer, the relay ends and the guest sees its connection closed; ROUTE.log says
// why.
package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: relay ROUTE")
		os.Exit(2)
	}
	if err := relay(os.Args[1]); err != nil {
		note(os.Args[1]+".log", err)
		os.Exit(1)
	}
}

// note appends an error to a log: the guest would be sent whatever is written to
// standard error. Where even that fails there is nobody left to tell.
func note(file string, err error) {
	f, ferr := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if ferr != nil {
		return
	}
	fmt.Fprintln(f, time.Now().UTC().Format(time.RFC3339), err)
	_ = f.Close()
}

func relay(route string) error {
	b, err := os.ReadFile(route)
	if err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("%s: %w", route, err)
	}
	if !to.Addr().IsLoopback() {
		return fmt.Errorf("%s: %s is not a loopback address", route, to)
	}
	target, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	defer target.Close()
	go func() {
		// What the target still has to say goes on after the guest's last word,
		// but not after the guest is gone.
		if err := toTarget(target); err != nil || target.CloseWrite() != nil {
			_ = target.Close()
		}
	}()
	_, err = io.Copy(os.Stdout, target)
	return err
}

// toTarget copies what the guest sends. QEMU's end of the pipe is a TCP socket
// with Nagle's algorithm on: only an immediate acknowledgement of each segment
// keeps small writes fast.
func toTarget(target *net.TCPConn) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := syscall.Read(syscall.Stdin, buf)
		if err == syscall.EINTR {
			continue
		}
		if n <= 0 {
			return err
		}
		// Not a TCP socket, as in a test: then there is nothing to hasten.
		_ = unix.SetsockoptInt(syscall.Stdin, unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		if _, err := target.Write(buf[:n]); err != nil {
			return err
		}
	}
}
