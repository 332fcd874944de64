package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if handled, err := Helper(os.Args); handled {
		if err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestPlaces(t *testing.T) {
	l := &Lab{dir: "/x", o: Options{Nodes: 9, Members: 5, Storage: 9}}
	seen := map[string]string{}
	for _, p := range l.Places() {
		a := Address(p)
		if net.ParseIP(a) == nil || seen[a] != "" {
			t.Errorf("%s has the address %q of %q", p, a, seen[a])
		}
		seen[a] = p
		if n := len("w-" + p); n > 15 {
			t.Errorf("device w-%s has a name of %d bytes, 15 are possible", p, n)
		}
	}
}

// made is a lab with links and nothing in it.
func made(t *testing.T) *Lab { return madeOf(t, Options{Nodes: 2, Members: 1, Bin: "/none"}) }

func madeOf(t *testing.T, o Options) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	l, err := Make(t.Context(), filepath.Join(t.TempDir(), "lab"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Down(context.Background(), l.dir); err != nil {
			t.Error(err)
		}
		if left, err := l.namespaces(); err != nil || len(left) > 0 {
			t.Errorf("namespaces are left: %v, %v", left, err)
		}
		if _, err := os.Stat(l.dir); !os.IsNotExist(err) {
			t.Errorf("the directory is left: %v", err)
		}
	})
	return l
}

// ask connects from a place to another one, where an echo of one byte is, and returns how
// long that takes; false: there is no answer within limit, for connection and byte each.
func (l *Lab) ask(t *testing.T, from, to string, limit time.Duration) (time.Duration, bool) {
	t.Helper()
	ready := make(chan struct{})
	var server net.Listener
	_, err := inNamespace(l.Namespace(to), func() (*os.File, error) {
		var err error
		server, err = net.Listen("tcp", net.JoinHostPort(Address(to), "7000"))
		return nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		defer close(ready)
		c, err := server.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte{1})
	}()
	began, answered := time.Now(), false
	_, err = inNamespace(l.Namespace(from), func() (*os.File, error) {
		c, err := net.DialTimeout("tcp", server.Addr().String(), limit)
		if err != nil {
			return nil, nil
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
			return nil, err
		}
		_, err = c.Read(make([]byte, 1))
		answered = err == nil
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	server.Close()
	<-ready
	return took, answered
}

// TestLinks: links are cut, slowed down and healed, and the others stay as they are.
func TestLinks(t *testing.T) {
	l := made(t)
	ctx := t.Context()
	reached := func(when string, a, b string, want bool) time.Duration {
		t.Helper()
		limit := time.Second // of what is lost
		if want {
			limit = time.Minute
		}
		took, got := l.ask(t, a, b, limit)
		if got != want {
			t.Errorf("%s: %s reaches %s: %v, want %v", when, a, b, got, want)
		}
		return took
	}
	reached("whole", "n1", "n2", true)
	reached("whole", "client", "n1", true)
	if err := l.Cut(ctx, "n1", "n2"); err != nil {
		t.Fatal(err)
	}
	reached("cut", "n1", "n2", false)
	reached("cut", "n2", "n1", false)
	reached("cut", "n1", "etcd1", true)
	if err := l.Delay(ctx, "n1", "etcd1", 100); err != nil {
		t.Fatal(err)
	}
	// A connection and the first byte are three trips.
	if took := reached("slow", "n1", "etcd1", true); took < 300*time.Millisecond {
		t.Errorf("the answer over a link of 100 ms each way took %v", took)
	}
	reached("slow", "n2", "n1", false)
	if err := l.Loss(ctx, "n2", 100); err != nil {
		t.Fatal(err)
	}
	reached("loss", "n2", "s3", false)
	reached("loss", "client", "n2", false)
	reached("loss", "n1", "s3", true)
	if err := l.Heal(ctx); err != nil {
		t.Fatal(err)
	}
	took := reached("healed", "n1", "etcd1", true)
	for try := 0; try < 10 && took > 250*time.Millisecond; try++ { // a busy machine takes its time now and then
		took = min(took, reached("healed", "n1", "etcd1", true))
	}
	if took > 250*time.Millisecond {
		t.Errorf("the answer over a whole link took %v", took)
	}
	reached("healed", "n1", "n2", true)
	reached("healed", "n2", "s3", true)
	if err := l.Cut(ctx, "n1", "n7"); err == nil || !strings.Contains(err.Error(), "n7") {
		t.Errorf("a link to nobody was cut: %v", err)
	}
	// Nothing leads out of the namespaces.
	if out, err := exec.Command("ip", "-n", l.Namespace("n1"), "route", "show", "default").Output(); err != nil || len(out) > 0 {
		t.Errorf("a node has a way out: %s, %v", out, err)
	}
}

// TestDown: a directory that is none of a lab is left alone, and a crash of the maker leaves
// nothing that Down does not find.
func TestDown(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "file")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	if _, err := Make(t.Context(), dir, Options{Nodes: 1, Members: 1, Bin: "/none"}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a lab was made in somebody's directory: %v", err)
	}
	l := made(t)
	if err := l.start("n1", "n1", "sleep", "1000"); err != nil {
		t.Fatal(err)
	}
	pid := l.pid("n1")
	if pid == 0 {
		t.Fatal("it does not run")
	}
	if err := os.RemoveAll(l.dir); err != nil { // as somebody does who does not know better
		t.Fatal(err)
	}
	if err := Down(t.Context(), l.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := startTime(pid); err == nil {
		t.Error("a process of the lab still runs")
	}
}

// TestStorageMachine: what is done to a storage machine is done to each of its processes.
func TestStorageMachine(t *testing.T) {
	l := madeOf(t, Options{Nodes: 1, Members: 1, Alba: true, Storage: 2, Bin: "/none"})
	const machine = "storage2"
	for _, p := range l.processes(machine) {
		if l.Running(machine) {
			t.Errorf("%s runs without %s", machine, p)
		}
		if err := l.start(p, machine, "sleep", "1000"); err != nil {
			t.Fatal(err)
		}
	}
	if !l.Runs(machine) || !l.Running(machine) || l.Running("storage1") {
		t.Errorf("running: %s %v, storage1 %v", machine, l.Running(machine), l.Running("storage1"))
	}
	for _, want := range []struct {
		signal syscall.Signal
		state  string
	}{{syscall.SIGSTOP, "T"}, {syscall.SIGCONT, "S"}} {
		if err := l.Signal(machine, want.signal); err != nil {
			t.Fatal(err)
		}
		for _, p := range l.processes(machine) {
			await(t, fmt.Sprintf("%s in state %s", p, want.state), func() bool {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.pid(p)))
				_, rest, _ := strings.Cut(string(b), ") ")
				return err == nil && strings.HasPrefix(rest, want.state)
			})
		}
	}
	if err := l.Kill(t.Context(), machine); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.processes(machine) {
		if l.pid(p) != 0 {
			t.Errorf("%s still runs", p)
		}
	}
	if err := l.Signal(machine, syscall.SIGSTOP); err == nil {
		t.Error("a machine that does not run takes a signal")
	}
}

// await waits for a condition.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s", what)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Nodes: 0, Members: 1, Bin: "/b"}, {Nodes: 10, Members: 1, Bin: "/b"}, {Nodes: 3, Members: 2, Bin: "/b"}, {Nodes: 3, Members: 1, Bin: "b"},
		{Nodes: 3, Members: 1, Storage: 3, Bin: "/b"}, {Nodes: 3, Members: 1, Alba: true, Storage: 1, Bin: "/b"}, {Nodes: 3, Members: 1, Alba: true, Storage: 10, Bin: "/b"}} {
		if _, err := Make(t.Context(), t.TempDir(), o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
