package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// program copies this program where every user may run it, and returns its path.
func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	path := filepath.Join(openDir(t), "ovgate")
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// openDir returns a directory that every user may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// serveArgs serve a data directory on free ports.
func serveArgs(data string, more ...string) []string {
	return append([]string{"serve", "--data", data, "--api", "127.0.0.1:0", "--iscsi", "127.0.0.1:0"}, more...)
}

// environment is that of a program that ends at once.
func environment() []string { return append(os.Environ(), "GORACE="+raceOptions) }

// refused runs a program that must refuse, and returns what it says.
func refused(t *testing.T, cmd *exec.Cmd, code int) string {
	t.Helper()
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		t.Fatalf("%v: %v, want exit code %d: %s", cmd.Args, err, code, &said)
	}
	return said.String()
}

// TestUnwritableData: a user without the right to write a data directory is told
// so, with the directory and the remedy, and nothing is made.
func TestUnwritableData(t *testing.T) {
	bin, closed := program(t), openDir(t)
	data := filepath.Join(closed, "data")
	if err := os.Mkdir(data, 0o555); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ data, want string }{
		"not writable":   {data, "data directory " + data + " is not writable: "},
		"cannot be made": {filepath.Join(data, "below"), "data directory " + filepath.Join(data, "below") + " cannot be made: "},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(bin, serveArgs(c.data)...)
			if os.Geteuid() == 0 {
				const nobody = 65534
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			}
			cmd.Dir, cmd.Env = "/", environment()
			said := refused(t, cmd, exitUnauthorised)
			if !strings.Contains(said, c.want) || !strings.Contains(said, "--data") {
				t.Errorf("%s\nlacks %q or the flag", said, c.want)
			}
			if left, err := os.ReadDir(data); err != nil || len(left) != 0 {
				t.Errorf("it left %v, %v", left, err)
			}
		})
	}
}

// onSmallDisk returns a command that mounts a disk of that size on dir in a mount
// namespace of its own and runs a script there; $DIR is dir, "$@" are args.
func onSmallDisk(t *testing.T, dir, size, script string, args ...string) *exec.Cmd {
	t.Helper()
	flags := []string{"-m"}
	if os.Geteuid() != 0 {
		flags = []string{"-r", "-m"} // in a user namespace anybody may mount
	}
	mount := func(script string, args ...string) *exec.Cmd {
		all := append(append([]string(nil), flags...), "sh", "-c", `mount -t tmpfs -o mode=0700,size="$SIZE" none "$DIR" && `+script, "sh")
		cmd := exec.Command("unshare", append(all, args...)...)
		cmd.Env = append(environment(), "DIR="+dir, "SIZE="+size)
		return cmd
	}
	if out, err := mount("true").CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no small disk can be mounted: %v: %s", err, out)
		}
		t.Skipf("no small disk can be mounted here: %v: %s", err, out)
	}
	return mount(script, args...)
}

// TestFullData: a full disk is told at the start, for a new data directory and
// for one that has been used.
func TestFullData(t *testing.T) {
	bin := program(t)
	for _, c := range []struct{ name, size, script, want, left string }{
		{"new", "64m", `"$@"`, "is full: its disk has 64 MiB free, a node needs 128 MiB: free space", "lock"},
		{"used", "8m", `echo '{"format":1}' >"$DIR/format" && { dd if=/dev/zero of="$DIR/.filler" bs=64k 2>/dev/null; "$@"; }`, "is full: ", ".filler format lock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			cmd := onSmallDisk(t, dir, c.size, c.script+`; rc=$?; ls -A "$DIR"; exit $rc`, append([]string{bin}, serveArgs(dir)...)...)
			var left bytes.Buffer
			cmd.Stdout = &left
			said := refused(t, cmd, exitFailed)
			if !strings.Contains(said, "data directory "+dir+" "+c.want) || !strings.Contains(said, "free space") {
				t.Errorf("%s\nlacks %q", said, c.want)
			}
			if got := strings.Join(strings.Fields(left.String()), " "); got != c.left {
				t.Errorf("it left %q, want %q", got, c.left)
			}
		})
	}
}

// smallNode is a node whose data directory is a small disk of its own.
type smallNode struct {
	t   *testing.T
	bin string
	dir string // as this process sees the data directory
	log *bytes.Buffer
}

func startSmallNode(t *testing.T, size string) smallNode {
	t.Helper()
	bin, data := program(t), t.TempDir()
	cmd := onSmallDisk(t, data, size, `exec "$@"`, append([]string{bin}, serveArgs(data)...)...)
	n := smallNode{t: t, bin: bin, log: &bytes.Buffer{}}
	cmd.Stdout, cmd.Stderr = n.log, n.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		// An orderly end: by then the disk has space again.
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the node ended with %v:\n%s", err, n.log)
			}
		case <-time.After(startLimit):
			t.Error(errors.Join(errors.New("the node does not end"), cmd.Process.Kill(), <-ended))
		}
	})
	n.dir = filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "root", data)
	n.until("up", func() bool { _, err := answers(n.dir); return err == nil })
	return n
}

// until waits for something that takes milliseconds.
func (n smallNode) until(what string, ok func() bool) {
	n.t.Helper()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.After(startLimit)
	for !ok() {
		select {
		case <-limit:
			n.t.Fatalf("not %s:\n%s", what, n.log)
		case <-again.C:
		}
	}
}

// do runs a verb on the node and returns what it prints.
func (n smallNode) do(args ...string) []byte {
	n.t.Helper()
	cmd := exec.CommandContext(n.t.Context(), n.bin, append([]string{"--data", n.dir}, args...)...)
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			n.t.Fatalf("%v: %v: %s", args, err, exit.Stderr)
		}
		n.t.Fatal(err)
	}
	return out
}

// dial logs in to a published vDisk.
func (n smallNode) dial(c client.Connection) *initiator.Session {
	n.t.Helper()
	s, err := initiator.Dial(n.t.Context(), initiator.Options{Address: c.Portals[0].Address, Target: c.IQN, CHAPUser: c.ChapUser, CHAPSecret: c.ChapSecret})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(s.Close)
	if err := s.Ready(n.t.Context(), 0); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// TestJournalDiskFull: with the disk of the data directory full a write waits and
// then gets BUSY, status names the reason, and with space the write is done.
func TestJournalDiskFull(t *testing.T) {
	n := startSmallNode(t, "256m")
	n.do("vpool", "create", "gold", "--path", t.TempDir(), "--stall-timeout", "1s")
	n.do("vdisk", "create", "d", "--vpool", "gold", "--size", "64MiB")
	var conn client.Connection
	if err := json.Unmarshal(n.do("vdisk", "publish", "d", "--open", "-o", "json"), &conn); err != nil {
		t.Fatal(err)
	}
	s := n.dial(conn)
	filler := filepath.Join(n.dir, "filler")
	fill(t, filler)
	t.Cleanup(func() {
		if err := os.Remove(filler); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	data := bytes.Repeat([]byte{7}, 4096)
	written := make(chan error, 1)
	go func() { written <- writeUntilDone(t.Context(), s, data) }()
	n.until("told in status", func() bool {
		var st client.Status
		if err := json.Unmarshal(n.do("status", "-o", "json"), &st); err != nil {
			t.Fatal(err)
		}
		for _, c := range st.Health.Causes {
			if c.Code == "journal_pool" && strings.Contains(c.Text, "no space") && c.Hint != "" {
				return true
			}
		}
		return false
	})
	select {
	case err := <-written:
		t.Errorf("a write without journal ended with %v", err)
	default:
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatalf("with space again the write ended with %v", err)
	}
	got := make([]byte, len(data))
	if err := s.ReadAt(t.Context(), 0, got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back: %v", err)
	}
	n.until("well", func() bool { return bytes.Contains(n.do("status"), []byte("health    ok")) })
}

// fill takes all space of a disk.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	for step := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(step)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// writeUntilDone writes as an initiator does: BUSY is tried again.
func writeUntilDone(ctx context.Context, s *initiator.Session, data []byte) error {
	for {
		err := s.WriteAt(ctx, 0, data, 0)
		var scsi *initiator.SCSIError
		if !errors.As(err, &scsi) || scsi.Status != initiator.Busy {
			return err
		}
	}
}
