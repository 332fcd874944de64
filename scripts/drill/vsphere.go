package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// vsphereEnd is how long the tests have to end what they started once they are told to.
const vsphereEnd = 20 * time.Second

// vsphere runs the tests of scripts/vsphere from the root of the repository. What they
// start ends with them.
func vsphere(ctx context.Context, e *env) (string, error) {
	for round := range e.rounds {
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-parallel", "4", "./scripts/vsphere")
		cmd.Env = append(os.Environ(), "OVGATE_BIN="+e.bin, "TMPDIR="+e.dir)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
		cmd.WaitDelay = vsphereEnd
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	return fmt.Sprintf("%d rounds", e.rounds), nil
}
