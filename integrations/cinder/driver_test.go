package cinder

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// python is Debian's: the modules of Cinder are there and nowhere else.
const python = "/usr/bin/python3"

// runMax bounds each program that a test starts.
const runMax = 5 * time.Minute

// startMax and endMax bound the start and the end of a node, far above what they take.
const (
	startMax = 3 * time.Minute
	endMax   = 2 * time.Minute
)

func run(t *testing.T, dir string, env []string, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

func driverDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("driver")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestStyle is what the Cinder community checks first.
func TestStyle(t *testing.T) {
	run(t, driverDir(t), nil, python, "-m", "flake8", "--max-line-length=79", ".")
}

// TestCompliance runs the interface suite that Cinder ships.
func TestCompliance(t *testing.T) {
	dir := driverDir(t)
	run(t, dir, []string{"PYTHONPATH=" + dir, "PYTHONDONTWRITEBYTECODE=1"}, python, "-m", "tests.compliance")
}

// TestDriver runs the driver's own tests against a node.
func TestDriver(t *testing.T) {
	dir := driverDir(t)
	run(t, dir, append(startNode(t), "PYTHONPATH="+dir, "PYTHONDONTWRITEBYTECODE=1"), python, "-m", "unittest", "tests.test_iscsi")
}

// startNode starts a node with the vPools one and two, and answers the
// environment that says where it is.
func startNode(t *testing.T) []string {
	t.Helper()
	tmp := t.TempDir()
	bin, data := filepath.Join(tmp, "ovgate"), filepath.Join(tmp, "data")
	run(t, ".", nil, "go", "build", "-o", bin, "github.com/openvstorage/ovgate/gateway/cmd/ovgate")

	var log bytes.Buffer
	cmd := exec.Command(bin, "serve", "--data", data, "--api", "127.0.0.1:0", "--iscsi", "127.0.0.1:0", "--iscsi", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the node ended with %v\n%s", err, log.String())
			}
		case <-time.After(endMax):
			_ = cmd.Process.Kill()
			t.Errorf("the node did not end within %v of SIGTERM: %v\n%s", endMax, <-ended, log.String())
		}
	})

	url := waitForAPI(t, filepath.Join(data, "api.json"), ended)
	for _, vpool := range []string{"one", "two"} {
		run(t, ".", nil, bin, "--data", data, "vpool", "create", vpool, "--path", filepath.Join(tmp, vpool))
	}
	return []string{"OVGATE_URL=" + url, "OVGATE_CA=" + filepath.Join(data, "tls", "ca.pem"), "OVGATE_TOKEN_FILE=" + filepath.Join(data, "admin.token")}
}

// waitForAPI waits until a node has said where its API is.
func waitForAPI(t *testing.T, file string, ended <-chan error) string {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(startMax)
	for {
		var api struct {
			URL string `json:"url"`
		}
		if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &api) == nil && api.URL != "" {
			return api.URL
		}
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("the node ended: %v", err)
		case <-timeout:
			t.Fatal("the node did not write " + file)
		}
	}
}
