package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/gateway/asdnode"
	"github.com/openvstorage/ovgate/internal/client"
)

// ASD is an `ovgate asd` process. Its address stays the same over restarts.
// Not safe for concurrent use.
type ASD struct {
	bin, dir, listen string
	asdnode.Announcement
	cmd  *exec.Cmd
	done chan struct{}
}

// NewASD prepares an ASD on a directory and picks its port; it does not start it.
func NewASD(bin, dir string) (*ASD, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &ASD{bin: bin, dir: dir, listen: l.Addr().String()}, l.Close()
}

// Dir returns the ASD's directory.
func (a *ASD) Dir() string { return a.dir }

// Start starts the ASD and waits until it serves.
func (a *ASD) Start(ctx context.Context) error {
	out, err := os.OpenFile(a.dir+".out", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	log, err := os.OpenFile(a.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(a.bin, "asd", "--dir", a.dir, "--listen", a.listen)
	cmd.Stdout, cmd.Stderr = out, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	a.cmd, a.done = cmd, make(chan struct{})
	done := a.done
	go func() {
		_ = cmd.Wait() // how it ended shows in its log
		close(done)
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		b, err := os.ReadFile(a.dir + ".out")
		if err != nil {
			return errors.Join(err, a.Kill())
		}
		if got, ok := asdnode.ParseAnnouncement(string(b)); ok {
			a.Announcement = got
			return nil
		}
		select {
		case <-a.done:
			a.cmd = nil
			return fmt.Errorf("ovgate asd --dir %s ended; its log is %s.log", a.dir, a.dir)
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("ovgate asd --dir %s does not start", a.dir), a.Kill())
		case <-time.After(pollInterval):
		}
	}
}

// Running tells whether it was started and not ended.
func (a *ASD) Running() bool { return a.cmd != nil }

// Kill ends the process with SIGKILL and waits for it.
func (a *ASD) Kill() error { return a.end(syscall.SIGKILL) }

// Stop ends the process in an orderly way.
func (a *ASD) Stop() error { return a.end(syscall.SIGTERM) }

func (a *ASD) end(sig syscall.Signal) error {
	if a.cmd == nil {
		return nil
	}
	if err := a.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-a.done
	a.cmd = nil
	return nil
}

// Signal sends a signal to the process.
func (a *ASD) Signal(sig os.Signal) error { return a.cmd.Process.Signal(sig) }

// ClaimASD makes an ASD that runs part of the node's object store, as of a machine in a domain of
// failure; "" for none.
func (n *Node) ClaimASD(ctx context.Context, a *ASD, machine, domain string) (client.OSD, error) {
	return decode[client.OSD](ctx, n, "osd", "claim", a.Address, "--fingerprint", a.Fingerprint, "--key-file", a.KeyFile, "--node", machine, "--domain", domain)
}
