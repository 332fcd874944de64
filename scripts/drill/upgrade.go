package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
)

// The rolling upgrade goes from one version stamp to the next one. The version before is the
// program that OVGATE_PREVIOUS names, such as one of an older commit; without it, this code
// with another stamp.
const (
	previousRelease = "0.9.0"
	nextRelease     = "0.10.0"
	previousEnv     = "OVGATE_PREVIOUS"
)

// upgradeName is the drill's.
const upgradeName = "rolling-upgrade"

// buildRelease builds ovgate into a file below dir, stamped with a version.
func buildRelease(ctx context.Context, dir, version string) (string, error) {
	bin := filepath.Join(dir, "ovgate-"+version)
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X main.release="+version, "-o", bin, "github.com/openvstorage/ovgate/gateway/cmd/ovgate")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ovgate %s: %w\n%s", version, err, out)
	}
	return bin, nil
}

// previousBuild returns the version before, for a lab below work.
func previousBuild(ctx context.Context, work string) (string, error) {
	if bin := os.Getenv(previousEnv); bin != "" {
		return filepath.Abs(bin)
	}
	return buildRelease(ctx, work, previousRelease)
}

// rollingUpgrade replaces the program of one node after the other under load: each hands over
// its vDisks, stops, starts in the next version, and has vDisks again. In the end the version
// before does not start on a data directory in a format that it does not know.
func rollingUpgrade(ctx context.Context, e *env) (string, error) {
	next, err := buildRelease(ctx, e.dir, nextRelease)
	if err != nil {
		return "", err
	}
	figures, err := e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		for i, n := range c.l.Nodes() {
			c.mark()
			if err := c.upgrade(ctx, n, next); err != nil {
				return fmt.Errorf("upgrade %s: %w", n, err)
			}
			c.note(nil)
			for _, f := range c.disks {
				if err := f.passed(); err != nil {
					return err
				}
			}
			if err := c.apart(ctx, n, i < len(c.l.Nodes())-1); err != nil {
				return err
			}
			e.say("%s runs %s", n, nextRelease)
		}
		if err := c.spread(ctx); err != nil {
			return err
		}
		return c.refuseDowngrade(ctx, next)
	})
	if err != nil {
		return "", err
	}
	return figures + "; no command ended in an error that a host passes on; the version before was refused on a newer format", nil
}

// upgrade replaces the program of a node.
func (c *clusterDrill) upgrade(ctx context.Context, n, bin string) error {
	if _, err := c.l.CLI(ctx, n, "node", "drain", n, "--wait"); err != nil {
		return err
	}
	if err := errors.Join(c.writing(ctx, time.Now()), c.l.Stop(ctx, n)); err != nil {
		return err
	}
	if err := c.writing(ctx, time.Now()); err != nil { // without it
		return err
	}
	if err := c.l.Use(n, bin); err != nil {
		return err
	}
	if err := c.l.Start(ctx, n); err != nil {
		return err
	}
	if _, err := c.l.CLI(ctx, n, "node", "drain", n, "--cancel"); err != nil {
		return err
	}
	if err := c.mirrored(ctx); err != nil {
		return err
	}
	// It has vDisks in the new version while others run the old one.
	if _, err := c.l.CLI(ctx, n, "vdisk", "move", c.disks[0].name, "--node", n, "--wait"); err != nil {
		return err
	}
	if err := errors.Join(c.writing(ctx, time.Now()), sleep(ctx, settle)); err != nil {
		return err
	}
	return c.mirrored(ctx)
}

// apart checks that a node runs the next version, and tells in its health whether others do
// not yet.
func (c *clusterDrill) apart(ctx context.Context, n string, want bool) error {
	api, err := c.l.API(n)
	if err != nil {
		return err
	}
	return eventually(ctx, mirrorLimit, "told of versions by "+n, func(ctx context.Context) error {
		v, err := client.Get[client.Version](api.GetVersion(ctx))
		if err != nil {
			return err
		}
		if v.Version != nextRelease {
			return fmt.Errorf("it runs %s", v.Version)
		}
		s, err := client.Get[client.Status](api.GetStatus(ctx))
		if err != nil {
			return err
		}
		told := false
		for _, cause := range s.Health.Causes {
			told = told || cause.Code == "version_apart"
		}
		if told != want {
			return fmt.Errorf("health tells of other versions: %v", told)
		}
		return nil
	})
}

// refuseDowngrade gives a node's data directory the format of a version to come: neither
// version starts there, each says why, and nothing is changed. Then the node starts again.
func (c *clusterDrill) refuseDowngrade(ctx context.Context, bin string) error {
	n := c.l.Nodes()[0]
	if _, err := c.l.CLI(ctx, n, "node", "drain", n, "--wait"); err != nil {
		return err
	}
	if err := c.l.Stop(ctx, n); err != nil {
		return err
	}
	file := filepath.Join(c.l.Data(n), "format")
	was, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var f map[string]any
	if err := json.Unmarshal(was, &f); err != nil {
		return err
	}
	now, ok := f["format"].(float64)
	if !ok {
		return fmt.Errorf("%s holds %s", file, was)
	}
	f["format"] = now + 1
	newer, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, newer, 0o600); err != nil {
		return err
	}
	for _, b := range []string{c.l.Bin(), bin} {
		if err := c.l.Use(n, b); err != nil {
			return err
		}
		said, err := c.l.Refused(ctx, n)
		if err != nil {
			return err
		}
		if !strings.Contains(said, "upgrade ovgate; nothing was changed") {
			return fmt.Errorf("%s on format %v says %q, not that it is to be upgraded", b, now+1, said)
		}
		if left, err := os.ReadFile(file); err != nil || string(left) != string(newer) {
			return fmt.Errorf("%s changed %s to %s: %w", b, file, left, err)
		}
	}
	if err := os.WriteFile(file, was, 0o600); err != nil {
		return err
	}
	if err := c.l.Start(ctx, n); err != nil {
		return err
	}
	_, err = c.l.CLI(ctx, n, "node", "drain", n, "--cancel")
	return err
}
