package debian

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

const (
	before = "0.0.1~test1"
	now    = "0.0.1~test2"
	// insideEnv is set for the test within a network of its own; the values are directories.
	insideEnv = "OVGATE_DEBIAN_TEST"
	// exposure is the most that systemd-analyze may find, of 100.
	exposure = "25"
	// command is how much a SCSI command moves, in bytes.
	command = 1 << 20
)

// need ends a test for which something is missing: a failure where CI is set.
func need(t *testing.T, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s: run scripts/setup.sh", what)
	}
	t.Skip(what)
}

// needed looks for what tests need.
func needed(t *testing.T) {
	t.Helper()
	need(t, os.Geteuid() == 0, "a container needs root")
	for _, program := range []string{"systemd-nspawn", "nsenter", "ip", "mmdebstrap", "lintian"} {
		_, err := exec.LookPath(program)
		need(t, err == nil, program+" is missing")
	}
}

// TestPackage builds the package, and one of a version before, and runs TestInside with them.
func TestPackage(t *testing.T) {
	needed(t)
	dir, again := t.TempDir(), t.TempDir()
	build(t, before, dir)
	file := build(t, now, dir)
	first, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(build(t, now, again))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("built again it differs (P3)")
	}
	if out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", file).CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
	// The ports that the package takes are another program's outside.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestInside$", "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestInside")) {
		t.Errorf("TestInside: %v", err)
	}
}

// build makes the package of a version and returns where it is.
func build(t *testing.T, version, dir string) string {
	t.Helper()
	cmd := exec.Command("../package", "deb", dir)
	cmd.Env = append(os.Environ(), "OVGATE_VERSION="+version)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("scripts/package deb: %v\n%s", err, errs.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// machine is a running Debian.
type machine struct {
	t    *testing.T
	root string
	pid  string // of its first process
}

// boot starts a fresh Debian. It is in the network of this process unless args say another.
func boot(t *testing.T, args ...string) *machine {
	t.Helper()
	archive, err := exec.Command("./root").Output()
	if err != nil {
		t.Fatalf("scripts/debian/root: %v", err)
	}
	m := &machine{t: t, root: filepath.Join(t.TempDir(), "root")}
	if err := os.Mkdir(m.root, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-x", "-C", m.root, "-f", strings.TrimSpace(string(archive))).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var console bytes.Buffer
	cmd := exec.Command("systemd-nspawn", append([]string{"--quiet", "--directory=" + m.root, "--boot", "--register=no", "--keep-unit", "--console=pipe"}, args...)...)
	cmd.Stdout, cmd.Stderr = &console, &console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		for range 2 { // halts it, and that at once
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			t.Logf("%s", console.Bytes())
		}
	})
	m.await("booted", func() error {
		select {
		case <-ended:
			t.Fatalf("the container ended:\n%s", console.Bytes())
		default:
		}
		if m.pid == "" {
			pid, err := child(cmd.Process.Pid)
			if err != nil {
				return err
			}
			m.pid = pid
		}
		out, _ := m.try("systemctl is-system-running")
		if s := strings.TrimSpace(out); s != "running" && s != "degraded" {
			return fmt.Errorf("it is %q", s)
		}
		return nil
	})
	return m
}

// child returns the process whose parent is pid.
func child(pid int) (string, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return "", err
	}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[1] == fmt.Sprint(pid) {
			return filepath.Base(filepath.Dir(name)), nil
		}
	}
	return "", errors.New("no process yet")
}

// enter is a command that runs a script, its next argument, in the container.
func (m *machine) enter() []string {
	return []string{"nsenter", "--target", m.pid, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "sh", "-ec"}
}

// try runs a script in the container.
func (m *machine) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 3*time.Minute)
	defer cancel()
	enter := m.enter()
	cmd := exec.CommandContext(ctx, enter[0], append(enter[1:], script)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// do is try for what has to succeed.
func (m *machine) do(script string) string {
	m.t.Helper()
	out, err := m.try(script)
	if err != nil {
		log, _ := m.try("journalctl --no-pager -n 40 -u ovgate")
		m.t.Fatalf("%s: %v\n%s\n%s", script, err, out, log)
	}
	return out
}

// await waits for a condition.
func (m *machine) await(what string, f func() error) {
	m.t.Helper()
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	m.t.Fatalf("not %s: %v", what, err)
}

// says checks what a script prints.
func (m *machine) says(script, want string) {
	m.t.Helper()
	if got := strings.TrimSpace(m.do(script)); got != want {
		m.t.Errorf("%s: got %q, want %q", script, got, want)
	}
}

// served waits until the node of a version answers.
func (m *machine) served(version string) {
	m.t.Helper()
	m.await("served by "+version, func() error {
		out, err := m.try("systemctl is-active ovgate && ovgate status -o json")
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	m.says("ovgate version | awk '/^version/ { print $2 }'", version)
}

// dial signs in to the vDisk "data".
func (m *machine) dial() *lun.LUN {
	m.t.Helper()
	var c client.Connection
	if err := json.Unmarshal([]byte(m.do("ovgate vdisk publish data --open -o json")), &c); err != nil {
		m.t.Fatal(err)
	}
	l, err := lun.Dial(m.t.Context(), lun.Of(c))
	if err != nil {
		m.t.Fatal(err)
	}
	return l
}

// holds checks what is on the vDisk.
func (m *machine) holds(want []byte) {
	m.t.Helper()
	l := m.dial()
	defer func() { _ = l.Close() }()
	got := make([]byte, len(want))
	for off := 0; off < len(got); off += command {
		if _, err := l.ReadAt(got[off:off+command], int64(off)); err != nil {
			m.t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		m.t.Fatal("the vDisk has something else than what was written")
	}
}

// TestInside is the life of a package on a machine. TestPackage runs it.
func TestInside(t *testing.T) {
	debs := os.Getenv(insideEnv)
	if debs == "" {
		t.Skip("TestPackage runs it")
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := boot(t, "--bind-ro="+debs+":/debs")
	arch := strings.TrimSpace(m.do("dpkg --print-architecture"))
	deb := func(version string) string { return "/debs/ovgate_" + version + "_" + arch + ".deb" }

	m.do("dpkg -i " + deb(before))
	m.served(before)
	m.says("systemctl is-enabled ovgate", "enabled")
	m.says("stat -c '%U %G %a' /var/lib/ovgate", "ovgate ovgate 700")
	m.says("stat -c '%U %G %a' /etc/ovgate", "root ovgate 750")
	m.says("stat -c '%U %G %a' /etc/ovgate/ovgate.yaml", "root root 644")
	m.says("stat -c %U /proc/$(systemctl show -P MainPID ovgate)", "ovgate")
	m.do("systemd-analyze verify --man=no ovgate.service ovgate-asd@.service")
	m.do("systemd-analyze security --no-pager --threshold=" + exposure + " ovgate.service")
	m.do("bash -nc '. /usr/share/bash-completion/completions/ovgate'; zcat /usr/share/man/man1/ovgate-vdisk-create.1.gz | grep -q SYNOPSIS")

	// A device of its own, as the documentation has it.
	m.do("mkdir /srv/device && echo 'OPTIONS=--dir /srv/device --listen 127.0.0.1:8500' >/etc/ovgate/asd/one.conf && systemctl start ovgate-asd@one && systemctl is-active ovgate-asd@one")

	m.do("ovgate vpool create default --backend local && ovgate vdisk create data --size 64MiB")
	data := make([]byte, 16<<20)
	if _, err := rand.NewChaCha8([32]byte{}).Read(data); err != nil {
		t.Fatal(err)
	}
	l := m.dial()
	for off := 0; off < len(data); off += command {
		if _, err := l.WriteAt(data[off:off+command], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	// A node that stands still is started anew.
	m.do("mkdir -p /run/systemd/system/ovgate.service.d && printf '[Service]\\nWatchdogSec=5\\nTimeoutAbortSec=1\\nRestartSec=0\\n' >/run/systemd/system/ovgate.service.d/quick.conf && systemctl daemon-reload && systemctl restart ovgate")
	m.served(before)
	pid := m.do("systemctl show -P MainPID ovgate")
	m.do("kill -STOP " + pid)
	m.await("started anew", func() error {
		if got := m.do("systemctl show -P MainPID ovgate"); got == pid || got == "0\n" {
			return errors.New("it is process " + got)
		}
		return nil
	})
	m.do("rm -r /run/systemd/system/ovgate.service.d && systemctl daemon-reload")
	m.served(before)
	m.holds(data)

	// An upgrade keeps what an administrator wrote, and the data.
	m.do("echo 'node_name: box' >>/etc/ovgate/ovgate.yaml")
	pid = m.do("systemctl show -P MainPID ovgate")
	device := m.do("systemctl show -P MainPID ovgate-asd@one")
	m.do("dpkg -i " + deb(now))
	m.served(now)
	m.says("tail -1 /etc/ovgate/ovgate.yaml", "node_name: box")
	m.says("ovgate node list -o json | grep -c '\"name\": \"box\"'", "1")
	if m.do("systemctl show -P MainPID ovgate") == pid || m.do("systemctl show -P MainPID ovgate-asd@one") == device {
		t.Error("after the upgrade the program before runs")
	}
	m.says("systemctl is-active ovgate-asd@one", "active")
	m.orderly(2)
	m.holds(data)
	copy(data, "written after the upgrade")
	l = m.dial()
	if _, err := l.WriteAt(data[:4096], 0); err != nil {
		t.Fatal(err)
	}

	// Removed with a session that is open.
	m.do("dpkg -r ovgate")
	m.orderly(3)
	m.says("systemctl is-active ovgate || true", "inactive")
	m.says("ls /usr/bin/ovgate 2>/dev/null || echo gone", "gone")
	m.says("tail -1 /etc/ovgate/ovgate.yaml", "node_name: box")
	_ = l.Close() // the node has ended it
	out := m.do("dpkg --purge ovgate")
	if !strings.Contains(out, "stay in /var/lib/ovgate") {
		t.Errorf("the purge says nothing of the data: %s", out)
	}
	m.says("ls /etc/ovgate/ovgate.yaml 2>/dev/null || echo gone", "gone")
	m.says("cat /etc/ovgate/asd/one.conf", "OPTIONS=--dir /srv/device --listen 127.0.0.1:8500")
	m.says("stat -c '%U %a' /var/lib/ovgate /srv/device/access.key", "ovgate 700\nroot 600")

	m.do("dpkg -i " + deb(now))
	m.served(now)
	m.holds(data)
}

// orderly checks that so many processes of the node ended in order.
func (m *machine) orderly(count int) {
	m.t.Helper()
	m.says("journalctl --no-pager -u ovgate | grep -c 'msg=stopped$'", fmt.Sprint(count))
}
