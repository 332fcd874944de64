package openstack

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// programs runs openstack and cinder, each command in a process of its own which has their
// modules already (clients.py).
type programs struct{ socket string }

// startPrograms starts what ends with the test.
func startPrograms(t *testing.T) programs {
	t.Helper()
	p := programs{filepath.Join(l.dir, "clients")}
	cmd := exec.CommandContext(l.ctx, "/usr/bin/python3", "-W", "ignore", filepath.Join("scripts", "openstack", "clients.py"), p.socket)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe() // its end is the program's
	ok(t, err)
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("clients.py: %v", err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("clients.py said %q: %v", line, err)
	}
	return p
}

// run runs a command and answers what it printed.
func (p programs) run(env []string, name string, args ...string) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(l.ctx, "unix", p.socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	vars := map[string]string{}
	for _, e := range env {
		key, value, _ := strings.Cut(e, "=")
		vars[key] = value
	}
	if err := json.NewEncoder(conn).Encode(map[string]any{"program": name, "args": args, "env": vars}); err != nil {
		return "", err
	}
	var answer struct {
		Code     int
		Out, Err string
	}
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	if answer.Code != 0 {
		return "", fmt.Errorf("%s %s: exit status %d: %s", name, strings.Join(args, " "), answer.Code, strings.TrimSpace(answer.Err))
	}
	return strings.TrimSpace(answer.Out), nil
}
