// Package node runs the real ovgate binary for drills, benches and end-to-end
// tests: it builds it, starts it on free loopback ports, talks to it through its
// CLI, and kills or stops it. Ports stay the same over restarts, so that an
// initiator finds the node again.
//
// Invariants
//  1. What a Node starts ends with it: Close ends the process, and the kernel
//     ends it when the program that started it dies.
//  2. Nothing outside the directories it is given is written.
package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/internal/freeport"
)

// Bounds of waiting for the node. Starting replays a journal of at most some
// hundred MiB, stopping uploads it; both take seconds, also on a busy machine.
const (
	startTimeout = 90 * time.Second
	stopTimeout  = 90 * time.Second
	pollInterval = 50 * time.Millisecond
	// logTail is how much of the node's log an error shows, in bytes.
	logTail = 4000
)

// Options configure a Node.
type Options struct {
	Bin      string   // the ovgate binary; see Build
	Data     string   // data directory; created when absent
	LogFile  string   // the node's output is appended here; empty: Data + ".log"
	Insecure bool     // plain HTTP
	Args     []string // more arguments of serve
}

// Node is one ovgate node. Not safe for concurrent use, except API, CLI and
// PID's readers.
type Node struct {
	opts  Options
	api   string // host:port
	iscsi string // host:port

	cmd  *exec.Cmd
	log  *os.File
	done chan struct{} // closed when the process ended
	err  error         // how it ended, after done
}

// Build compiles the binary into dir and returns its path. With OVGATE_BIN set,
// that one is used as it is.
func Build(ctx context.Context, dir string) (string, error) {
	if bin := os.Getenv("OVGATE_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	bin := filepath.Join(dir, "ovgate")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "github.com/openvstorage/ovgate/gateway/cmd/ovgate")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ovgate: %w\n%s", err, out)
	}
	return bin, nil
}

// New prepares a node and picks its ports; it does not start it.
func New(opts Options) (*Node, error) {
	n := &Node{opts: opts}
	if n.opts.LogFile == "" {
		n.opts.LogFile = opts.Data + ".log"
	}
	var err error
	n.api, n.iscsi, err = freePorts()
	return n, err
}

// freePorts returns two loopback addresses that nobody listens on.
func freePorts() (string, string, error) {
	a, err := freeport.Address()
	if err != nil {
		return "", "", err
	}
	for {
		b, err := freeport.Address()
		if err != nil || b != a {
			return a, b, err
		}
	}
}

// Data returns the data directory.
func (n *Node) Data() string { return n.opts.Data }

// Portal returns the iSCSI address.
func (n *Node) Portal() string { return n.iscsi }

// PID returns the process's id; 0 when it does not run.
func (n *Node) PID() int {
	if n.cmd == nil {
		return 0
	}
	return n.cmd.Process.Pid
}

// Start starts the node and waits until it answers. When the process ends
// instead, or does not answer in time, the error holds the end of its log.
func (n *Node) Start(ctx context.Context) error {
	if n.cmd != nil {
		return errors.New("node runs already")
	}
	log, err := os.OpenFile(n.opts.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	args := []string{"serve", "--data", n.opts.Data, "--api", n.api, "--iscsi", n.iscsi}
	if n.opts.Insecure {
		args = append(args, "--insecure")
	}
	cmd := exec.Command(n.opts.Bin, append(args, n.opts.Args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, log.Close())
	}
	n.cmd, n.log, n.done = cmd, log, make(chan struct{})
	go func() {
		n.err = cmd.Wait()
		close(n.done)
	}()
	if err := n.ready(ctx); err != nil {
		return errors.Join(err, n.Kill())
	}
	return nil
}

// ready waits until the API answers with the operator's token.
func (n *Node) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var last error
	for {
		if last = n.answers(ctx); last == nil {
			return nil
		}
		select {
		case <-n.done:
			return fmt.Errorf("ovgate serve ended: %w\n%s", n.err, n.LogTail())
		case <-ctx.Done():
			return fmt.Errorf("node does not answer after %v: %w\n%s", startTimeout, last, n.LogTail())
		case <-time.After(pollInterval):
		}
	}
}

func (n *Node) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	api, err := n.API()
	if err != nil {
		return err
	}
	_, err = client.Get[client.Status](api.GetStatus(ctx))
	return err
}

// API returns a client with the operator's rights. It refuses to use what a
// former start on other ports left.
func (n *Node) API() (*client.Client, error) {
	opts, err := client.Discover(client.System(), n.opts.Data)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(opts.URL, "//"+n.api) {
		return nil, fmt.Errorf("%s names %s, this node is at %s", client.APIFile, opts.URL, n.api)
	}
	return client.New(opts)
}

// Kill ends the process with SIGKILL and waits for it.
func (n *Node) Kill() error {
	if n.cmd == nil {
		return nil
	}
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-n.done
	return n.reap()
}

func (n *Node) reap() error {
	n.cmd = nil
	return n.log.Close()
}

// Stop ends the process with SIGTERM: it drains, checkpoints and closes. An
// exit code other than 0, or none in time, is an error.
func (n *Node) Stop() error {
	if n.cmd == nil {
		return nil
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-n.done:
	case <-time.After(stopTimeout):
		return errors.Join(fmt.Errorf("node did not stop within %v\n%s", stopTimeout, n.LogTail()), n.Kill())
	}
	err := n.err
	if err != nil {
		err = fmt.Errorf("node stopped: %w\n%s", err, n.LogTail())
	}
	return errors.Join(err, n.reap())
}

// Signal sends a signal to the process.
func (n *Node) Signal(sig os.Signal) error { return n.cmd.Process.Signal(sig) }

// Alive says whether the process still runs.
func (n *Node) Alive() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// Close ends whatever still runs.
func (n *Node) Close() error { return n.Kill() }

// LogTail returns the end of the node's log.
func (n *Node) LogTail() string {
	b, err := os.ReadFile(n.opts.LogFile)
	if err != nil {
		return err.Error()
	}
	if len(b) > logTail {
		b = b[len(b)-logTail:]
	}
	return string(b)
}

// CLI runs "ovgate --data DIR ARGS" and returns its standard output.
func (n *Node) CLI(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, n.opts.Bin, append([]string{"--data", n.opts.Data}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("ovgate %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// decode runs a CLI verb with -o json.
func decode[T any](ctx context.Context, n *Node, args ...string) (T, error) {
	var v T
	out, err := n.CLI(ctx, append(args, "-o", "json")...)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(out, &v); err != nil {
		return v, fmt.Errorf("ovgate %s: %w: %.200s", strings.Join(args, " "), err, out)
	}
	return v, nil
}

// CreateVPool creates a vPool on a local directory; settings are more flags.
func (n *Node) CreateVPool(ctx context.Context, name, dir string, settings ...string) error {
	_, err := n.CLI(ctx, append([]string{"vpool", "create", name, "--path", dir}, settings...)...)
	return err
}

// RecoverVPool registers what a directory holds.
func (n *Node) RecoverVPool(ctx context.Context, name, dir string, flags ...string) (client.VPoolRecovery, error) {
	return decode[client.VPoolRecovery](ctx, n, append([]string{"vpool", "recover", name, "--path", dir}, flags...)...)
}

// CreateVDisk creates a vDisk of size bytes and publishes it to any initiator
// that knows its secret.
func (n *Node) CreateVDisk(ctx context.Context, vpool, name string, size int64) (client.Connection, error) {
	if _, err := n.CLI(ctx, "vdisk", "create", name, "--vpool", vpool, "--size", fmt.Sprint(size)); err != nil {
		return client.Connection{}, err
	}
	return n.Publish(ctx, name)
}

// Publish publishes a vDisk, or returns how it is published.
func (n *Node) Publish(ctx context.Context, name string) (client.Connection, error) {
	return decode[client.Connection](ctx, n, "vdisk", "publish", name, "--open")
}

// VDisk returns a vDisk's state.
func (n *Node) VDisk(ctx context.Context, name string) (client.VDisk, error) {
	return decode[client.VDisk](ctx, n, "vdisk", "show", name)
}

// Commit brings a vDisk's acknowledged writes to the backend.
func (n *Node) Commit(ctx context.Context, name string) (client.Commit, error) {
	return decode[client.Commit](ctx, n, "vdisk", "commit", name)
}

// WaitVDisk polls a vDisk until it is as the caller wants.
func (n *Node) WaitVDisk(ctx context.Context, name, what string, ok func(client.VDisk) bool) (client.VDisk, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		v, err := n.VDisk(ctx, name)
		if err == nil && ok(v) {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, fmt.Errorf("vdisk %s is not %s (state %s: %s): %w", name, what, v.State, v.StateReason, errors.Join(ctx.Err(), err))
		case <-time.After(4 * pollInterval):
		}
	}
}
