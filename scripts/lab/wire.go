package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A wire carries the packets between two places through a TUN device in each: those that it
// does not lose come out of the other one after the delay, in their order. The devices end
// with the process, and with them the routes through them: the link is whole again.

const (
	// wireMTU is that of the veth devices.
	wireMTU = 1500
	// wireQueue bounds the packets under way in one direction; more are lost. It is as much
	// as a window of 4 MiB has.
	wireQueue = 3000
	// wireProcess is the process that has all wires.
	wireProcess = "wires"
)

// slow are the links that need a wire.
func slow(links []Link) []Link {
	return slices.DeleteFunc(slices.Clone(links), func(k Link) bool { return k.Cut || k.DelayMs == 0 && k.Loss == 0 })
}

// wires ends the process that has the wires and starts one that has those of links.
func (l *Lab) wires(ctx context.Context, was, links []Link) error {
	if slices.Equal(slow(was), slow(links)) {
		return nil
	}
	if err := l.kill(ctx, wireProcess); err != nil {
		return err
	}
	need := slow(links)
	if len(need) == 0 {
		return nil
	}
	said, err := json.Marshal(need)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	up := filepath.Join(l.dir, "wires.up")
	if err := os.Remove(up); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := l.start(wireProcess, hosts, self, helperWires, l.dir, up, string(said)); err != nil {
		return err
	}
	return l.await(ctx, wireProcess, func() bool { _, err := os.Stat(up); return err == nil })
}

// runWires is the process: DIR, the file that says that all wires are there, and the links.
func runWires(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: DIR FILE LINKS")
	}
	l := &Lab{dir: args[0]}
	var links []Link
	if err := json.Unmarshal([]byte(args[2]), &links); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ended := make(chan error, 2*len(links))
	for _, k := range links {
		a, err := l.tun(ctx, k.A, k.B)
		if err != nil {
			return err
		}
		defer a.Close()
		b, err := l.tun(ctx, k.B, k.A)
		if err != nil {
			return err
		}
		defer b.Close()
		go func() { ended <- carry(a, b, k) }()
		go func() { ended <- carry(b, a, k) }()
	}
	if err := os.WriteFile(args[1], nil, 0o600); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

// tun makes the device of a place that leads to another one.
func (l *Lab) tun(ctx context.Context, place, to string) (*os.File, error) {
	name := "w-" + to
	f, err := inNamespace(l.Namespace(place), func() (*os.File, error) {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("/dev/net/tun: %w", err)
		}
		r, err := unix.NewIfreq(name)
		if err == nil {
			r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("TUN device %s: %w", name, err), unix.Close(fd))
		}
		return os.NewFile(uintptr(fd), name), nil
	})
	if err != nil {
		return nil, err
	}
	err = l.ip(ctx, place, fmt.Sprintf("link set dev %s mtu %d up", name, wireMTU), fmt.Sprintf("route replace %s/32 dev %s src %s", Address(to), name, Address(place)))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// inNamespace runs f on a thread of that network namespace, which ends with it.
func inNamespace(ns string, f func() (*os.File, error)) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		where, err := os.Open("/run/netns/" + ns)
		if err != nil {
			done <- result{err: err}
			return
		}
		defer where.Close()
		if err := unix.Setns(int(where.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("enter network namespace %s: %w", ns, err)}
			return
		}
		r := result{}
		r.f, r.err = f()
		done <- r
	}()
	r := <-done
	return r.f, r.err
}

type packet struct {
	at   time.Time // when it is handed over
	data []byte
}

// carry carries packets in one direction until a device fails.
func carry(from io.Reader, to io.Writer, k Link) error {
	queue := make(chan packet, wireQueue)
	defer close(queue)
	failed := make(chan error, 1)
	go func() { failed <- deliver(to, queue) }()
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		if rand.Float64()*100 < k.Loss {
			continue
		}
		p := packet{time.Now().Add(time.Duration(k.DelayMs) * time.Millisecond), slices.Clone(buf[:n])}
		select {
		case queue <- p:
		case err := <-failed:
			return err
		default: // lost, as by a router
		}
	}
}

func deliver(to io.Writer, queue <-chan packet) error {
	for p := range queue {
		time.Sleep(time.Until(p.at))
		if _, err := to.Write(p.data); err != nil {
			return err
		}
	}
	return nil
}
