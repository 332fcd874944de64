// Command firstrun runs an ovgate node in the foreground and makes it useful at
// once; `make run` starts it through scripts/run.
//
//	firstrun -bin bin/ovgate -data ./data [-- SERVE OPTIONS]
//
// The first start on a data directory creates the vPool "default" on a local
// directory in it and the vDisk "demo", and publishes that; every start prints
// how to use it. Later starts change nothing: a marker in the data directory
// says that the first one has not finished its work yet, so what its owner
// deleted stays deleted.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
)

const (
	vpoolName = "default"
	vdiskName = "demo"
	vdiskSize = 10 << 30 // bytes, thin: takes no space until written

	// marker is the file in the data directory that asks for the first start's work.
	marker = "firstrun.pending"
	// pollInterval is how often a starting node is asked whether it is ready.
	pollInterval = 100 * time.Millisecond
	// requestTimeout bounds one request to the node.
	requestTimeout = 30 * time.Second
)

func main() {
	bin := flag.String("bin", "bin/ovgate", "the ovgate binary")
	data := flag.String("data", "./data", "data directory; created when absent")
	flag.Parse()
	code, err := run(*bin, *data, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// run starts the node, prepares it and waits for its end. It returns the
// node's exit code.
func run(bin, data string, args []string) (int, error) {
	data, err := filepath.Abs(data)
	if err != nil {
		return 1, err
	}
	if err := prepare(data); err != nil {
		return 1, err
	}
	// Signals go to the node; this program ends when the node has.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	cmd := exec.Command(bin, append([]string{"serve", "--data", data}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Its own group: Ctrl-C reaches it once, from here.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ready := make(chan error, 1)
	go func() { ready <- welcome(ctx, data) }()
	var failed error
	for {
		select {
		case s := <-signals:
			if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return 1, err
			}
		case err := <-ready:
			if err != nil {
				failed = fmt.Errorf("preparing the node: %w", err)
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
					failed = errors.Join(failed, err)
				}
			}
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				failed = errors.Join(failed, err)
			}
			return cmd.ProcessState.ExitCode(), failed
		}
	}
}

// prepare makes the data directory and marks a new one.
func prepare(data string) error {
	_, err := os.Stat(data)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(data, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(data, marker), nil, 0o600)
	}
	return err
}

// welcome waits for the node, does the first start's work and prints how to
// use the node. A node that ends meanwhile ends the program, and this with it.
func welcome(ctx context.Context, data string) error {
	api, url, err := waitReady(ctx, data)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	path := filepath.Join(data, marker)
	if _, err := os.Stat(path); err == nil {
		if err := firstStart(ctx, api); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return show(ctx, api, data, url)
}

// waitReady polls until the node of this data directory answers.
func waitReady(ctx context.Context, data string) (*client.Client, string, error) {
	for {
		if opts, err := client.Discover(client.System(), data); err == nil {
			opts.Timeout = requestTimeout
			if api, err := client.New(opts); err == nil {
				if _, err := client.Get[client.Status](api.GetStatus(ctx)); err == nil {
					return api, opts.URL, nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil, "", ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

// firstStart creates the vPool and the vDisk; one that is there from an
// interrupted first start is kept.
func firstStart(ctx context.Context, api *client.Client) error {
	_, err := client.Get[client.VPool](api.CreateVPool(ctx, &client.CreateVPoolParams{IdempotencyKey: new(rand.Text())}, client.VPoolInput{
		Name:    vpoolName,
		Backend: client.Backend{Kind: client.BackendKindAlba},
	}))
	if err != nil && !exists(err) {
		return err
	}
	_, err = client.Get[client.VDisk](api.CreateVDisk(ctx, &client.CreateVDiskParams{IdempotencyKey: new(rand.Text())}, client.VDiskInput{
		Name: vdiskName, VPool: vpoolName, Size: vdiskSize,
	}))
	if err != nil && !exists(err) {
		return err
	}
	_, err = client.Get[client.Connection](api.PublishVDisk(ctx, vdiskName, client.PublishInput{Open: new(true)}))
	return err
}

func exists(err error) bool { return code(err) == "exists" }

// code returns the API's word for an error; empty when it is none of its.
func code(err error) string {
	var e *client.APIError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// show prints addresses, the set-up token while it is needed, and how to
// connect to the demo vDisk.
func show(ctx context.Context, api *client.Client, data, url string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\novgate runs on %s; Ctrl-C stops it, the next start finds everything again.\n\n", data)
	fmt.Fprintf(&b, "  UI            %s\n", url)
	setup, err := client.Get[client.Setup](api.GetSetup(ctx))
	if err != nil {
		return err
	}
	if setup.Needed {
		token, err := os.ReadFile(filepath.Join(data, "setup.token"))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "  set-up token  %s   (asked for once, by the UI)\n", strings.TrimSpace(string(token)))
	}
	if v, err := client.Get[client.VDisk](api.GetVDisk(ctx, vdiskName)); err != nil || v.Published == nil {
		if err != nil && code(err) != "not_found" {
			return err
		}
		fmt.Print(b.String())
		return nil
	}
	c, err := client.Get[client.Connection](api.PublishVDisk(ctx, vdiskName, client.PublishInput{}))
	if err != nil {
		return err
	}
	for _, p := range c.Portals {
		fmt.Fprintf(&b, "  portal        %s\n", p.Address)
	}
	fmt.Fprintf(&b, "  vDisk         %s: %s LUN %d\n\nTry it from another shell (CHAP secret included; qemu-img comes with scripts/setup.sh):\n\n  qemu-img info %s\n",
		vdiskName, c.IQN, c.LUN, c.Commands.Libiscsi)
	fmt.Fprintf(&b, "\nLinux, with open-iscsi:\n\n")
	for line := range strings.Lines(c.Commands.Iscsiadm) {
		fmt.Fprintf(&b, "  %s", line)
	}
	fmt.Fprintln(&b)
	fmt.Print(b.String())
	return nil
}
