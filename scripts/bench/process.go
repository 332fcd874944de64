package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// processStart bounds how long a process may take to say that it is ready.
	processStart = time.Minute
	// processStop bounds how long it may take to end after SIGTERM.
	processStop = 20 * time.Second
)

// child is a process of the bench's, which ends with it.
type child struct {
	cmd   *exec.Cmd
	out   lines
	log   *os.File
	ended chan struct{}
	err   error // after ended
}

// lines is an output that is looked at while it is written.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// startChild starts a program whose messages go to a file.
func startChild(logFile, program string, args ...string) (*child, error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	p := &child{cmd: exec.Command(program, args...), log: log, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *child) pid() int { return p.cmd.Process.Pid }

// until waits until the output so far is what ready wants.
func (p *child) until(ctx context.Context, ready func(out string) bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(processStart)
	for !ready(p.out.String()) {
		select {
		case <-p.ended:
			return fmt.Errorf("it ended: %w: %s", p.err, p.messages())
		case <-limit:
			return fmt.Errorf("it is not ready after %v: %s", processStart, p.messages())
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

func (p *child) messages() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-1000):])
}

// stop ends the process in order.
func (p *child) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(processStop):
		err := errors.Join(fmt.Errorf("%s did not stop within %v", p.cmd.Path, processStop), p.cmd.Process.Kill())
		<-p.ended
		return errors.Join(err, p.log.Close())
	}
	if p.err != nil {
		return errors.Join(fmt.Errorf("%s: %w: %s", p.cmd.Path, p.err, p.messages()), p.log.Close())
	}
	return p.log.Close()
}
