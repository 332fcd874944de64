package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

// patience bounds what must happen soon; far above what it takes.
const patience = 5 * time.Minute

// stopTime is how long a program may take to end in order after a failed test.
const stopTime = 10 * time.Second

// root is the repository, from this package's directory.
const root = "../.."

// output collects what a process prints and lets tests wait for it.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	moved chan struct{} // closed and replaced at each write
}

func newOutput() *output { return &output{moved: make(chan struct{})} }

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.moved)
	o.moved = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) get() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.moved
}

// find waits until the output matches and returns the submatches.
func (o *output) find(t *testing.T, pattern string, ended <-chan struct{}) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	limit := time.After(patience)
	for {
		text, moved := o.get()
		if m := re.FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-moved:
		case <-ended:
			text, _ := o.get()
			if m := re.FindStringSubmatch(text); m != nil {
				return m
			}
			t.Fatalf("ended without printing %q:\n%s", pattern, text)
		case <-limit:
			t.Fatalf("did not print %q within %v:\n%s", pattern, patience, text)
		}
	}
}

// run is a running program.
type run struct {
	cmd   *exec.Cmd
	out   *output
	ended chan struct{}
	err   error // once ended is closed
}

// start starts scripts/run.
func start(t *testing.T, data, api, iscsi string) *run {
	t.Helper()
	return startCommand(t, root, []string{"OVGATE_DATA=" + data}, "scripts/run", "--api", api, "--iscsi", iscsi)
}

// startCommand starts a program in dir, with env added to the environment.
func startCommand(t *testing.T, dir string, env []string, name string, args ...string) *run {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	return launch(t, cmd)
}

// launch starts a program in a process group of its own, which ends with the test.
func launch(t *testing.T, cmd *exec.Cmd) *run {
	t.Helper()
	r := &run{cmd: cmd, out: newOutput(), ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = r.out, r.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		// Wait returns when the last of the group has closed its output.
		for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			select {
			case <-r.ended:
				return
			default:
			}
			if err := syscall.Kill(-cmd.Process.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Error(err)
			}
			select {
			case <-r.ended:
			case <-time.After(stopTime):
			}
		}
		<-r.ended
	})
	return r
}

// stop sends what Ctrl-C sends and expects an orderly end.
func (r *run) stop(t *testing.T) {
	t.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Fatalf("does not stop within %v", patience)
	}
	if r.err != nil {
		text, _ := r.out.get()
		t.Fatalf("stopped with %v:\n%s", r.err, text)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	a, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// need returns a program's path; without it the test fails where it must run.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		const remedy = " is not installed: run scripts/setup.sh"
		if os.Getenv("CI") != "" {
			t.Fatal(name + remedy)
		}
		t.Skip(name + remedy)
	}
	return path
}

// TestMakeRun: the first start makes a published vDisk, what it prints works as
// printed, and a second start keeps everything.
func TestMakeRun(t *testing.T) {
	need(t, "qemu-img")
	data := filepath.Join(t.TempDir(), "data")
	api, iscsi := freePort(t), freePort(t)
	r := start(t, data, api, iscsi)
	r.out.find(t, ` --login\n`, r.ended) // the end of what it prints
	token := r.out.find(t, `set-up token +(\S+)`, r.ended)[1]
	command := r.out.find(t, `\n +(qemu-img info \S+)\n`, r.ended)[1]
	if len(token) < 20 {
		t.Errorf("set-up token %q is too short to be one", token)
	}
	text, _ := r.out.get()
	for _, promised := range []string{
		`UI +https://` + regexp.QuoteMeta(api) + `\n`,
		`portal +` + regexp.QuoteMeta(iscsi) + `\n`,
		`vDisk +demo: iqn\.\S+ LUN 0\n`,
		`iscsiadm -m node -T iqn\.\S+ -p '` + regexp.QuoteMeta(iscsi) + `' --login\n`,
	} {
		if !regexp.MustCompile(promised).MatchString(text) {
			t.Errorf("does not print %q:\n%s", promised, text)
		}
	}
	checkUI(t, data, "https://"+api)
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "10 GiB") {
		t.Fatalf("the printed command %q: %v\n%s", command, err, out)
	}

	address := parseURL(t, command)
	pattern := bytes.Repeat([]byte("ovgate e2e\n......"), 4096/17+1)[:4096]
	use(t, address, func(d *lun.LUN) {
		if _, err := d.WriteAt(pattern, 1<<30); err != nil {
			t.Fatal(err)
		}
	})
	r.stop(t)

	again := start(t, data, api, iscsi)
	if got := again.out.find(t, `\n +(qemu-img info \S+)\n`, again.ended)[1]; got != command {
		t.Errorf("the second start prints %q, the first printed %q", got, command)
	}
	use(t, address, func(d *lun.LUN) {
		got := make([]byte, len(pattern))
		if _, err := d.ReadAt(got, 1<<30); err != nil || !bytes.Equal(got, pattern) {
			t.Errorf("after the restart: error %v, content kept %v", err, bytes.Equal(got, pattern))
		}
	})
	again.stop(t)
}

// checkUI asks for the UI, believing in the node's CA alone.
func checkUI(t *testing.T, data, url string) {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(data, "tls", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cas := x509.NewCertPool()
	if !cas.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate in ca.pem")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: cas}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: patience}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer closeOrFail(t, resp.Body)
	page, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(page, []byte("<script")) {
		t.Errorf("%s answers %s, error %v:\n%s", url, resp.Status, err, page)
	}
}

// TestRunPortBusy: a port that is taken is named, and the end is not success.
func TestRunPortBusy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := start(t, filepath.Join(t.TempDir(), "data"), freePort(t), l.Addr().String())
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Fatal("goes on with its iSCSI port taken")
	}
	text, _ := r.out.get()
	if r.err == nil || !strings.Contains(text, l.Addr().String()) {
		t.Errorf("ended with %v and does not name %s:\n%s", r.err, l.Addr(), text)
	}
}

// parseURL reads the libiscsi URL in a printed command.
func parseURL(t *testing.T, command string) lun.Address {
	t.Helper()
	m := regexp.MustCompile(`iscsi://([^%]+)%([^@]+)@([^/]+)/([^/]+)/0`).FindStringSubmatch(command)
	if m == nil {
		t.Fatalf("no libiscsi URL with CHAP and LUN 0 in %q", command)
	}
	return lun.Address{User: m[1], Secret: m[2], Portal: m[3], IQN: m[4]}
}

func use(t *testing.T, a lun.Address, f func(*lun.LUN)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d, err := lun.Dial(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	defer closeOrFail(t, d)
	f(d)
}

func closeOrFail(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
