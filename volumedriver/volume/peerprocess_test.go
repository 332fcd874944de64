package volume

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// peerEnv names the directory of the peer that TestPeerProcess is in a process of its own.
const peerEnv = "OVGATE_TEST_PEER"

// TestPeerProcess is no test of its own: it keeps copies for TestPeerStopped until its
// standard input ends.
func TestPeerProcess(t *testing.T) {
	dir := os.Getenv(peerEnv)
	if dir == "" {
		t.Skip("it is the peer of TestPeerStopped")
	}
	fsys, err := blockfs.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	h, err := NewHost(context.Background(), HostOptions{FS: fsys, Registry: newMemRegistry(), Node: "node-b", ChunkBytes: 1 << 20, DTL: dtlOptions(newTestNet())})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("peer at %s\n", l.Addr())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { _ = h.ServeDTL(c, "") })
		}
	})
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	l.Close()
	if err := h.Close(context.Background()); err != nil {
		t.Error(err)
	}
	serving.Wait()
}

// startPeerProcess returns the process and its address.
func startPeerProcess(t *testing.T) (*os.Process, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestPeerProcess$", "-test.v")
	cmd.Env = append(os.Environ(), peerEnv+"="+t.TempDir())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the peer ended with %v", err)
		}
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), "peer at "); ok {
			go func() {
				for lines.Scan() {
				}
			}()
			return cmd.Process, addr
		}
	}
	t.Fatal("the peer does not start")
	return nil, ""
}

// stopProcess stops a process and waits until all its threads stand: they go on for a while
// after the signal was sent.
func stopProcess(t *testing.T, p *os.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stands := func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid))
		if err != nil || len(threads) == 0 {
			t.Fatalf("the threads of the peer are not told: %v", err)
		}
		for _, file := range threads {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// The state follows the name, which is in parentheses.
			if i := bytes.LastIndexByte(b, ')'); i < 0 || i+2 >= len(b) || b[i+2] != 'T' {
				return false
			}
		}
		return true
	}
	for limit := time.Now().Add(hangLimit); !stands(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the peer does not stand still")
		}
	}
}

// TestPeerStopped: the process that has the copy is stopped in the middle of writes. The
// owner answers none of them before the registry says that the copy does not count, and all
// of them soon after; when the process goes on, another copy is made.
func TestPeerStopped(t *testing.T) {
	process, addr := startPeerProcess(t)
	w := newBusyWorld(26)
	w.node = "node-a"
	w.opts.DTL = dtlOptions(nil, "node-b")
	w.opts.DTL.Lost = time.Second
	w.opts.DTL.Dial = func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	}
	id := testID(1)
	n := w.mustStart(t)
	n.create(id, 4<<20)
	v := n.open(id)
	mustState(t, v, DTLOK)
	record := func() DTLRecord {
		rec, err := w.reg.Load(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		return rec.DTL
	}
	for round := range uint32(2) {
		gen := record().Generation
		mustWrite(t, v, 0, round*100+1)
		stopProcess(t, process)
		var writers sync.WaitGroup
		begun := time.Now()
		for i := range uint32(8) {
			writers.Go(func() {
				if err := write(t, v, int64(i)*4096, round*100+i+2); err != nil {
					t.Error(err)
				}
				if d := record(); d.State != DTLDegraded {
					t.Errorf("answered, and the registry says %+v", d)
				}
			})
		}
		writers.Wait()
		if d := time.Since(begun); d < w.opts.DTL.Lost || d > hangLimit/2 {
			t.Errorf("answered after %v", d)
		}
		for i := range uint32(8) {
			wantVersion(t, v, int64(i)*4096, round*100+i+2)
		}
		if err := process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		mustState(t, v, DTLOK)
		if d := record(); d.State != DTLOK || d.Generation == gen {
			t.Errorf("the registry says %+v, the generation before was %x", d, gen)
		}
	}
	n.close()
}

// TestTornCopy: the power of the peer fails within a write of its journal, whatever of that
// is there afterwards. It comes up with all that it answered, the owner sends what it did not,
// and a takeover has everything.
func TestTornCopy(t *testing.T) {
	for i, kind := range tearings {
		for _, nth := range []int{1, 5, 17} {
			t.Run(fmt.Sprintf("%d-%d", kind, nth), func(t *testing.T) { tornCopy(t, uint64(40+i*4+nth), kind, nth) })
		}
	}
}

func tornCopy(t *testing.T, seed uint64, kind blockfs.Unsynced, nth int) {
	p := newPair(t, seed)
	p.a.opts.DTL.Lost = hangLimit
	id := testID(1)
	a, b := p.a.mustStart(t), p.b.mustStart(t)
	a.create(id, 4<<20)
	v := a.open(id)
	mustState(t, v, DTLOK)
	gen := p.record(id).DTL.Generation
	var mu sync.Mutex
	var after *blockfs.Mem
	torn, on := make(chan struct{}), make(chan struct{})
	seen := 0
	p.b.fs.SetHook(func(_ int64, op blockfs.OpInfo) {
		if op.Kind != blockfs.OpWrite || !strings.Contains(op.Path, "journal/") {
			return
		}
		mu.Lock()
		seen++
		mine := seen == nth
		if mine {
			after = p.b.fs.Crash(blockfs.CrashConfig{Unsynced: kind, Rand: mrand.New(mrand.NewPCG(seed, 1))})
		}
		mu.Unlock()
		if mine {
			close(torn)
			<-on
		}
	})
	done := make(chan error, 1)
	go func() {
		for i := range uint32(40) {
			if err := write(t, v, int64(i)*4096, i+1); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	<-torn
	p.net.set("node-b", nil)
	p.net.setCut(true) // what it answers from now on is not heard
	close(on)
	b.kill()
	p.b.fs = after
	b = p.b.mustStart(t)
	p.net.setCut(false)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if d := p.record(id).DTL; d.State != DTLOK || d.Generation != gen {
		t.Errorf("the copy is another one: %+v", d)
	}
	p.net.setCut(true)
	a.kill()
	p.late.leap(time.Minute)
	nv := b.open(id)
	for i := range uint32(40) {
		wantVersion(t, nv, int64(i)*4096, i+1)
	}
	b.close()
}
