// Package guest runs a virtual machine with a real Linux kernel initiator, for
// tests, drills and people: open-iscsi, dm-multipath, ext4 and XFS tools, fio and
// sg3-utils on Debian's kernel, under QEMU's software emulation. It needs neither
// root nor anything of the host's kernel.
//
//	host                                      guest
//	target 127.0.0.1:P <- relay <- route 0 <- 10.0.2.100:3260 <- eth0 10.0.2.15
//	                   <- relay <- route 1 <- 10.0.3.100:3260 <- eth1 10.0.3.15
//	scripts  <-> unix socket <-> virtio port <-> /init
//
// More addresses and ports the other way are options, as is a disk that the guest runs from
// in place of the ram disk.
//
// Invariants
//
//  1. The guest reaches the addresses of its routes and nothing else: user-mode
//     network with restrict=on, no IPv6, no default route, and relays that refuse
//     any destination but the host's loopback.
//  2. A guest ends with Close, with its context, and with the program that
//     started it.
//  3. Secrets go to the guest inside scripts, over the socket (mode 0700
//     directory), never as arguments.
package guest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// Routes is how many addresses the guest can reach: two, one per network card.
	Routes = 2
	// Port is the port of both.
	Port = 3260
	// memoryMiB holds the ram disk, caches and a few hundred MiB of page cache.
	memoryMiB = 768
	// bootTime bounds a boot, which takes some 6 s on an idle machine.
	bootTime = 5 * time.Minute
	// maxLine bounds a line that the guest sends.
	maxLine = 1 << 20
	// logTail is how much of the console an error shows, in bytes.
	logTail = 3000
)

// Addresses are where the guest finds the routes, "host:port".
var Addresses = [Routes]string{"10.0.2.100:3260", "10.0.3.100:3260"}

// Options configure a guest.
type Options struct {
	Dir  string // state: socket, routes, console log; made when absent
	Name string // initiator name; "" is iqn.1993-08.org.debian:01:guest
	// Disk is a file with an ext4 file system that the guest runs from, such as that of
	// scripts/guest/root; what it changes there ends with it. "": from its ram disk.
	Disk string
	// MemoryMiB is 768 when it is 0.
	MemoryMiB int
	// Also are more addresses that the guest can reach, "10.0.2.101:8443"; their routes
	// follow those of Addresses.
	Also []string
	// Serves are ports of the guest's first card by the address of this host's loopback,
	// "127.0.0.1:P", that leads to them.
	Serves map[string]int
}

// Guest is a running virtual machine. Run calls follow each other.
type Guest struct {
	dir  string
	log  func(string)
	cmd  *exec.Cmd
	done chan struct{} // closed when QEMU ended
	err  error         // how, after done

	mu    sync.Mutex
	conn  net.Conn
	lines *bufio.Scanner
}

// Image makes the guest's kernel and ram disk, or finds them made, and returns
// their directory. root is the repository's.
func Image(ctx context.Context, root string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "scripts", "guest", "image"))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("guest image: %w\n%s", err, errs.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// BuildRelay compiles the relay into dir and returns its path.
func BuildRelay(ctx context.Context, dir string) (string, error) {
	bin := filepath.Join(dir, "relay")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "github.com/openvstorage/ovgate/scripts/guest/relay").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the relay: %w\n%s", err, out)
	}
	return bin, nil
}

// Start boots a guest from an image and waits until it takes scripts.
func Start(ctx context.Context, image, relay string, o Options) (*Guest, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	g := &Guest{dir: o.Dir, done: make(chan struct{})}
	for i := range Routes + len(o.Also) {
		if err := g.Route(i, ""); err != nil {
			return nil, err
		}
	}
	console, err := os.Create(filepath.Join(o.Dir, "console.log"))
	if err != nil {
		return nil, err
	}
	defer console.Close()
	_ = os.Remove(g.socket()) // of a guest before; QEMU makes it anew
	g.cmd = exec.Command("qemu-system-x86_64", g.arguments(image, relay, o)...)
	g.cmd.Env = append(os.Environ(), "TMPDIR="+o.Dir) // what a guest changes on its disk
	g.cmd.Stdout, g.cmd.Stderr = console, console
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the guest: %w; scripts/setup.sh installs QEMU", err)
	}
	go func() {
		g.err = g.cmd.Wait()
		close(g.done)
	}()
	if err := g.boot(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("guest: %w; its console ends with:\n%s", err, g.Console()), g.Close())
	}
	return g, nil
}

func (g *Guest) socket() string         { return filepath.Join(g.dir, "port") }
func (g *Guest) routeFile(i int) string { return filepath.Join(g.dir, "route-"+strconv.Itoa(i)) }

// PID returns QEMU's process id.
func (g *Guest) PID() int { return g.cmd.Process.Pid }

func (g *Guest) arguments(image, relay string, o Options) []string {
	line := "console=ttyS0 quiet panic=-1 net.ifnames=0 loglevel=4 mitigations=off"
	if o.Name != "" {
		line += " initiator=" + o.Name
	}
	if o.Disk != "" {
		line += " disk=vda"
	}
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", strconv.Itoa(cmp.Or(o.MemoryMiB, memoryMiB)),
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", filepath.Join(image, "vmlinuz"), "-initrd", filepath.Join(image, "initrd"), "-append", line,
		"-serial", "stdio",
		"-device", "virtio-rng-pci",
		"-chardev", "socket,id=port,path=" + g.socket() + ",server=on,wait=off",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=ovgate",
	}
	if o.Disk != "" {
		args = append(args, "-drive", "if=virtio,format=raw,snapshot=on,discard=unmap,file="+o.Disk)
	}
	for i, first := range Addresses {
		id, net := "n"+strconv.Itoa(i), fmt.Sprintf("10.0.%d.", 2+i)
		card := fmt.Sprintf("user,id=%s,ipv6=off,net=%s0/24,restrict=on", id, net)
		for n, a := range append([]string{first}, o.Also...) {
			if n == 0 {
				card += fmt.Sprintf(",guestfwd=tcp:%s-cmd:%s %s", a, relay, g.routeFile(i))
			} else if strings.HasPrefix(a, net) {
				card += fmt.Sprintf(",guestfwd=tcp:%s-cmd:%s %s", a, relay, g.routeFile(Routes+n-1))
			}
		}
		if i == 0 {
			for _, from := range slices.Sorted(maps.Keys(o.Serves)) {
				card += fmt.Sprintf(",hostfwd=tcp:%s-10.0.2.15:%d", from, o.Serves[from])
			}
		}
		args = append(args, "-netdev", card, "-device", "virtio-net-pci,romfile=,netdev="+id)
	}
	return args
}

// boot connects to the port and waits for the guest's word.
func (g *Guest) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for g.conn == nil {
		select {
		case <-g.done:
			return fmt.Errorf("QEMU ended: %v", g.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-poll.C:
			if c, err := net.Dial("unix", g.socket()); err == nil {
				g.conn = c
			}
		}
	}
	g.lines = bufio.NewScanner(g.conn)
	g.lines.Buffer(nil, maxLine)
	defer g.closeAt(ctx)()
	if !g.lines.Scan() || g.lines.Text() != "READY" {
		return errors.Join(errors.New("no word from the guest"), ctx.Err(), g.lines.Err())
	}
	return nil
}

// closeAt breaks the connection when ctx ends, since nothing else ends a read.
func (g *Guest) closeAt(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() { _ = g.conn.Close() })
	return func() { stop() }
}

// Route leads an address of the guest to a port of the host's loopback
// ("127.0.0.1:3260"), or nowhere (""). It applies to new connections.
func (g *Guest) Route(i int, to string) error {
	tmp := g.routeFile(i) + ".new"
	if err := os.WriteFile(tmp, []byte(to+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, g.routeFile(i))
}

// Cut breaks the connections through a route, as the loss of a switch does, and leads it
// nowhere.
func (g *Guest) Cut(i int) error {
	if err := g.Route(i, ""); err != nil {
		return err
	}
	relays, err := g.relays(g.routeFile(i))
	for _, pid := range relays {
		if kerr := syscall.Kill(pid, syscall.SIGKILL); kerr != nil && !errors.Is(kerr, syscall.ESRCH) {
			err = errors.Join(err, kerr)
		}
	}
	return err
}

// relays are the processes that QEMU started for connections to a route, known by their
// argument, a file that only this guest has.
func (g *Guest) relays(route string) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, file := range files {
		line, err := os.ReadFile(file)
		if args := strings.Split(string(line), "\x00"); err != nil || len(args) != 3 || args[1] != route {
			continue // it ended, or is something else
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// StatusError is a script that ended with another status than 0.
type StatusError struct{ Status, Output string }

func (e *StatusError) Error() string {
	return fmt.Sprintf("guest: the script ended with status %s:\n%s", e.Status, e.Output)
}

// Log has the output of later scripts sent to log as it comes, line by line; nil
// ends it.
func (g *Guest) Log(log func(line string)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.log = log
}

// Run runs a shell script in the guest as root and returns its output; another
// exit status than 0 is a *StatusError. A script whose ctx ends takes the guest
// with it.
func (g *Guest) Run(ctx context.Context, script string) (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.closeAt(ctx)()
	if _, err := fmt.Fprintf(g.conn, "RUN %s\n", base64.StdEncoding.EncodeToString([]byte(script))); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	var out strings.Builder
	for g.lines.Scan() {
		kind, text, _ := strings.Cut(g.lines.Text(), " ")
		switch kind {
		case "O":
			if g.log != nil {
				g.log(text)
			}
			out.WriteString(text)
			out.WriteByte('\n')
		case "E":
			if text != "0" {
				return out.String(), &StatusError{text, out.String()}
			}
			return out.String(), nil
		default:
			return out.String(), fmt.Errorf("guest: unexpected line %.80q", g.lines.Text())
		}
	}
	err := errors.Join(ctx.Err(), g.lines.Err())
	return out.String(), fmt.Errorf("guest: it ended within a script: %w; output:\n%s\nconsole:\n%s", err, out.String(), g.Console())
}

// Console returns the end of the console's log.
func (g *Guest) Console() string {
	b, err := os.ReadFile(filepath.Join(g.dir, "console.log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-logTail):])
}

// Close ends the guest, as a power cut does.
func (g *Guest) Close() error {
	if g.conn != nil {
		_ = g.conn.Close()
	}
	// Gone already is as good. Relays end with their connections.
	_ = syscall.Kill(-g.PID(), syscall.SIGKILL)
	<-g.done
	return nil
}
