// Package remotetest is what the tests of remote stores share: it starts real
// stores on loopback with scripts/peer.
package remotetest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// upPatience bounds how long a peer takes to come up: one that is built first takes
// minutes on a slow machine. downPatience bounds how long it takes to end.
const (
	upPatience   = 10 * time.Minute
	downPatience = time.Minute
)

// Peer starts scripts/peers/NAME with args and returns what it says of itself as
// key=value, with what stands in its credentials file. It ends with the test. Where
// the peer cannot be started, the test is skipped, or fails if CI is "true"; with
// -short it is always skipped.
func Peer(t testing.TB, name string, args ...string) map[string]string {
	t.Helper()
	if testing.Short() {
		t.Skip("real stores are slow; -short leaves them out")
	}
	dir := t.TempDir()
	t.Cleanup(func() {
		if _, err := run(t, dir, downPatience, name, "down"); err != nil {
			t.Errorf("peer %s does not end", name)
		}
	})
	up, err := run(t, dir, upPatience, name, "up", args...)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("peer %s does not start", name)
		}
		t.Skipf("peer %s does not start", name)
	}
	if file := up["credentials"]; file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range keyValues(string(b)) {
			up[k] = v
		}
	}
	up[peersKey] = dir
	return up
}

// peersKey is where Peer keeps OVGATE_PEERS.
const peersKey = "OVGATE_PEERS"

// Tell runs another verb of a peer that Peer started.
func Tell(t testing.TB, peer map[string]string, name, verb string, args ...string) error {
	t.Helper()
	patience := downPatience
	if verb == "up" {
		patience = upPatience
	}
	_, err := run(t, peer[peersKey], patience, name, verb, args...)
	return err
}

func run(t testing.TB, dir string, patience time.Duration, name, verb string, args ...string) (map[string]string, error) {
	t.Helper()
	root, err := repository()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(root, "scripts", "peer"), append([]string{name, verb, "--instance", "test"}, args...)...)
	cmd.Env = append(os.Environ(), peersKey+"="+dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err = cmd.Run(); err != nil {
		t.Logf("scripts/peer %s %s: %v\n%s", name, verb, err, stderr.String())
	}
	return keyValues(stdout.String()), err
}

// repository returns the root of the source tree that the test runs in.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "go.mod"))
		switch {
		case err == nil:
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		case dir == filepath.Dir(dir):
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

func keyValues(text string) map[string]string {
	kv := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			kv[k] = v
		}
	}
	return kv
}
