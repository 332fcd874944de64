package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// cinderEnd is how long the tests have to end what they started once they are told to.
const cinderEnd = 45 * time.Second

// cinderRound bounds a round: that of make test, or one with as many volumes as a cloud has and
// tempest, in soak.
func cinderRound() time.Duration {
	if os.Getenv("OVGATE_TEMPEST") == "1" || os.Getenv("OVGATE_CINDER_VOLUMES") != "" {
		return 4 * time.Hour
	}
	return 20 * time.Minute
}

// cinder runs the tests of scripts/openstack.
func cinder(ctx context.Context, e *env) (string, error) { return openstackTests(ctx, e, "", nil) }

// cinderGuest runs those of hosts that attach volumes with os-brick, in virtual machines.
func cinderGuest(ctx context.Context, e *env) (string, error) {
	return openstackTests(ctx, e, "^TestGuest", []string{"OVGATE_CINDER_GUEST=1"})
}

// openstackTests runs tests of scripts/openstack from the root of the repository, with their
// peers below the drill's directory, so that they end with it however the tests end.
func openstackTests(ctx context.Context, e *env, which string, vars []string) (string, error) {
	limit := 10 * time.Minute
	if end, ok := ctx.Deadline(); ok {
		limit = time.Until(end) - cinderEnd
	}
	for round := range e.rounds {
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-parallel", "4", "-timeout", limit.String(), "-run", which, "./scripts/openstack")
		cmd.Env = append(append(os.Environ(), "OVGATE_BIN="+e.bin, "OVGATE_PEERS="+e.dir, "CI=true"), vars...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
		cmd.WaitDelay = cinderEnd
		err := cmd.Run()
		for _, peer := range []string{"cinder", "glance", "keystone", "mariadb"} {
			err = errors.Join(err, node.EndPeer(e.dir, peer, "openstack"))
		}
		if err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
	}
	return fmt.Sprintf("%d rounds", e.rounds), nil
}
