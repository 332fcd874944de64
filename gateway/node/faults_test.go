package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/smalldisk"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// fault is something that goes wrong with a node: injected, it shows in health as its cause,
// with the object that it hits and with what to do; mended, it is gone.
type fault struct {
	name   string
	code   string
	object string // empty: the node
	says   string // part of the text
	remedy string // part of the hint
	inject func()
	mend   func()
}

// sick is a node in this process whose time the test moves.
type sick struct {
	*running
	shift *shift
}

// watched is a node whose time goes by itself, for tests that inject in passing.
func (r *running) watched() sick { return sick{r, &shift{}} }

// on is the same node for another test.
func (s sick) on(t *testing.T) sick {
	r := *s.running
	r.t = t
	return sick{&r, s.shift}
}

// cause returns what health tells of a fault; nil: nothing. Each look comes some seconds after
// the one before, by the node's clock.
func (s sick) cause(f fault) map[string]any {
	s.t.Helper()
	s.shift.passed.Add(int64(machineEvery + time.Second))
	for _, c := range s.call("GET", "/status", nil, 200)["health"].(map[string]any)["causes"].([]any) {
		c := c.(map[string]any)
		object, _ := c["object"].(string)
		if c["code"] == f.code && (f.object == "" || object == f.object) && strings.Contains(c["text"].(string), f.says) {
			return c
		}
	}
	return nil
}

// told waits until health tells of a fault, with its remedy.
func (s sick) told(f fault) map[string]any {
	s.t.Helper()
	var c map[string]any
	s.until("told "+f.code, func() bool { c = s.cause(f); return c != nil })
	if hint, _ := c["hint"].(string); !strings.Contains(hint, f.remedy) {
		s.t.Errorf("%s says %q as the remedy, not %q", f.code, hint, f.remedy)
	}
	return c
}

// gone waits until it tells no more of it.
func (s sick) gone(f fault) {
	s.t.Helper()
	s.until("without "+f.code, func() bool { return s.cause(f) == nil })
}

// suffer injects faults one after the other. Those on different objects may be suffered at the
// same time.
func (s sick) suffer(faults []fault) {
	for _, f := range faults {
		s.t.Run(f.name, func(t *testing.T) {
			s := s.on(t)
			i := slices.IndexFunc(observe.Catalogue(), func(a observe.About) bool { return a.Code == f.code })
			if i < 0 {
				t.Fatalf("the catalogue lacks %s", f.code)
			}
			// What the fault before left behind may take a moment to go.
			s.until("well before it is injected", func() bool { return s.cause(f) == nil })
			f.inject()
			if c := s.told(f); c["state"] == "error" && observe.Catalogue()[i].Level != observe.Bad {
				t.Errorf("%s is an error, the catalogue says %s", f.code, observe.Catalogue()[i].Level)
			}
			f.mend()
			s.gone(f)
		})
	}
}

// resize makes a file system in memory so large that it is used to so many percent; 0: as it
// was, of so many bytes.
func resize(t *testing.T, dir string, percent, bytes uint64) {
	t.Helper()
	option := fmt.Sprintf("size=%d", bytes)
	if percent > 0 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		// In the middle of that percent, which health rounds up: the node goes on writing.
		option = fmt.Sprintf("size=%d", (st.Blocks-st.Bfree)*uint64(st.Bsize)*200/(2*percent-1))
	}
	smalldisk.Remount(t, dir, option)
}

// away is a directory that changes places with a file.
type away struct {
	t         *testing.T
	dir, file string
}

func newAway(t *testing.T) away {
	t.Helper()
	parent := t.TempDir()
	a := away{t, filepath.Join(parent, "far"), filepath.Join(parent, "file")}
	write(t, a.file, "not a directory")
	return a
}

func (a away) swap() {
	a.t.Helper()
	if err := unix.Renameat2(unix.AT_FDCWD, a.dir, unix.AT_FDCWD, a.file, unix.RENAME_EXCHANGE); err != nil {
		a.t.Fatal(err)
	}
}

// failing mounts an ext4 file system, whose errors fail injects in the kernel; replace puts a
// good one in its place.
func failing(t *testing.T) (dir, device string, fail, replace func()) {
	t.Helper()
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	dir, image := t.TempDir(), filepath.Join(t.TempDir(), "image")
	write(t, image, "")
	if err := os.Truncate(image, 128<<20); err != nil {
		t.Fatal(err)
	}
	run("mkfs.ext4", "-q", image)
	run("mount", "-o", "loop,errors=remount-ro", image, dir)
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for _, m := range readMounts("/proc/self/mountinfo") {
		if m.point == dir {
			device = m.device
		}
	}
	fail = func() {
		if err := os.WriteFile(filepath.Join("/sys/fs/ext4", device, "trigger_fs_error"), []byte("injected by a test"), 0o200); err != nil {
			t.Fatal(err)
		}
	}
	return dir, device, fail, func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFaults: faults of a list are injected into real nodes; each shows in health with its
// cause, object and remedy, and is gone when it is mended. Here are those of a single node.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("step by step: nothing for the race detector")
	}
	const large = 1 << 30
	data, space := smalldisk.Mount(t, large), smalldisk.Mount(t, 64<<20)
	bad, device, fail, replace := failing(t)
	f := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, f, fmt.Sprintf("read_cache: [{dir: %q, bytes: 67108864}]\n", bad))
	s := sick{shift: &shift{}}
	s.running = start(t, Options{Data: data, Config: f, shift: s.shift})
	wall := func(d time.Duration) func() { return func() { s.shift.wall.Add(int64(d)) } }
	const day = 24 * time.Hour
	type m = map[string]any

	s.pool("space", filepath.Join(space, "gold"))
	write(t, filepath.Join(space, "ballast"), strings.Repeat("x", 8<<20)) // percents of it are many pages
	far := newAway(t)
	s.pool("far", far.dir)
	s.call("PATCH", "/vpools/far", m{"settings": m{"commitIntervalMs": 100}}, 200)
	s.disk("one", "far", 1<<30)
	one := s.login("one")
	writes := func(on *initiator.Session, lba uint64) {
		t.Helper()
		if err := on.WriteAt(t.Context(), 0, backendtest.Data(lba, 65536), lba); err != nil {
			t.Fatal(err)
		}
	}
	writes(one, 0)
	ballast := filepath.Join(data, "ballast")
	grow := func(bytes, steps int) { // ten minutes each
		f, err := os.OpenFile(ballast, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for range steps {
			if _, err := f.Write(make([]byte, bytes)); err != nil {
				t.Fatal(err)
			}
			s.shift.passed.Add(int64(10 * time.Minute))
			s.causes()
		}
	}

	var limit unix.Rlimit
	var opened []*os.File
	s.suffer([]fault{
		{"the data directory fills", "data_dir_filling", "", "90 %", "add space", func() { resize(t, data, 90, 0) }, func() { resize(t, data, 0, large) }},
		{"the data directory is full", "data_dir_full", "", "97 %", "add space", func() { resize(t, data, 97, 0) }, func() { resize(t, data, 0, large) }},
		{"a threshold is passed", "threshold", "threshold data", "above 50 % for 1m0s: node ", "add space", func() {
			s.call("PUT", "/alerts/thresholds/data", m{"metric": "node.data_dir_used", "value": 50, "clear": 40, "forMs": 60000}, 200)
			resize(t, data, 60, 0)
		}, func() { resize(t, data, 0, large) }},
		{"inodes run out", "data_dir_inodes", "", "inodes", "delete other programs' files", func() {
			var st unix.Statfs_t
			if err := unix.Statfs(data, &st); err != nil {
				t.Fatal(err)
			}
			smalldisk.Remount(t, data, fmt.Sprintf("nr_inodes=%d", (st.Files-st.Ffree)*100/95))
		}, func() { smalldisk.Remount(t, data, "nr_inodes=1000000") }},
		{"open files run out", "open_files", "", "may open", "LimitNOFILE", func() {
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
				t.Fatal(err)
			}
			for range 400 {
				f, err := os.Open(os.DevNull)
				if err != nil {
					t.Fatal(err)
				}
				opened = append(opened, f)
			}
			fd, err := os.Stat("/proc/self/fd")
			if err != nil || fd.Size() < 400 {
				t.Fatalf("%d files are open: %v", fd.Size(), err)
			}
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(fd.Size()) * 115 / 100, Max: limit.Max}); err != nil {
				t.Fatal(err)
			}
		}, func() {
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
				t.Fatal(err)
			}
			for _, f := range opened {
				f.Close()
			}
		}},
		{"the clock jumps", "clock", "", "2m", "time service", wall(2 * time.Minute), func() { s.shift.passed.Add(int64(jumpShown)) }},
		{"the certificate is near its end", "certificate", "", "days", "it is tried again", wall(serverLife - 20*day), wall(20*day - serverLife)},
		{"the certificate has ended", "certificate", "", "has ended", "it is tried again", wall(serverLife + day), wall(-serverLife - day)},
		{"snapshots are late", "snapshot_late", "vdisk one", "no automatic snapshot", "ovgate schedule show", func() {
			// The scheduler catches up by itself: what is late is so until its next look.
			s.until("late", func() bool {
				s.shift.passed.Add(int64(5 * time.Hour))
				return strings.Contains(s.causes(), "snapshot_late")
			})
			s.shift.passed.Add(int64(5 * time.Hour))
		}, func() { s.call("PATCH", "/schedule/snapshot?vdisk=one", m{"enabled": false}, 200) }},
		{"a backend fills", "backend_filling", "vpool space", "90 %", "add space", func() { resize(t, space, 90, 0) }, func() { resize(t, space, 0, 64<<20) }},
		{"a backend is full", "backend_full", "vpool space", "98 %", "add space", func() { resize(t, space, 98, 0) }, func() { resize(t, space, 0, 64<<20) }},
	})

	s.t.Run("a disk fails", func(t *testing.T) {
		s := s.on(t)
		errs := fault{code: "disk_errors", object: "disk " + device, says: bad}
		ro := fault{code: "disk_read_only", object: "disk " + device, says: bad}
		if s.cause(errs) != nil || s.cause(ro) != nil {
			t.Fatal("told before")
		}
		fail()
		s.until("told as read-only with errors", func() bool { return s.cause(errs) != nil && s.cause(ro) != nil })
		if hint := s.cause(errs)["hint"].(string); !strings.Contains(hint, "smartctl") {
			t.Errorf("the remedy is %q", hint)
		}
		if hint := s.cause(ro)["hint"].(string); !strings.Contains(hint, "dmesg") {
			t.Errorf("the remedy is %q", hint)
		}
		replace()
		s.until("replaced", func() bool { return s.cause(errs) == nil && s.cause(ro) == nil })
	})
	s.t.Run("space runs out in days", func(t *testing.T) {
		s := s.on(t)
		soon := fault{code: "space_forecast", says: "The data directory's disk is full in"}
		if s.cause(soon) != nil {
			t.Fatal("told before")
		}
		grow(6<<20, 45) // more than what was the same for days weighs
		if c := s.cause(soon); c == nil || !strings.Contains(c["hint"].(string), "add space") {
			t.Errorf("told %v", c)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		s.until("told no more", func() bool { s.shift.passed.Add(int64(10 * time.Minute)); return s.cause(soon) == nil })
	})
	s.t.Run("an object is damaged", func(t *testing.T) {
		s := s.on(t)
		s.call("POST", "/vdisks/one/commit", nil, 200)
		damaged := fault{code: "vdisk_damaged", object: "vdisk one"}
		undo := damage(t, far.dir)
		verify := func() {
			s.call("POST", "/vdisks/one/verify", nil, 202)
			s.until("verified", func() bool { return s.call("GET", "/vdisks/one/verify", nil, 200)["state"] != "running" })
		}
		verify()
		if c := s.cause(damaged); c == nil || !strings.Contains(c["hint"].(string), "ovgate vdisk verify --last one") {
			t.Errorf("told %v: %v", c, s.call("GET", "/vdisks/one/verify", nil, 200))
		}
		undo()
		verify()
		if c := s.cause(damaged); c != nil {
			t.Errorf("mended, and %v", c)
		}
	})
	t.Run("after a start", func(t *testing.T) { faultsOfStart(t) })
}

// damage changes a byte of the largest file below a directory; undo changes it back.
func damage(t *testing.T, dir string) (undo func()) {
	t.Helper()
	var name string
	var size int64
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		if err == nil && st.Size() > size {
			name, size = path, st.Size()
		}
		return err
	})
	if err != nil || name == "" {
		t.Fatalf("no object in %s: %v", dir, err)
	}
	flip := func() {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[1000] ^= 1
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	return flip
}

// faultsOfStart are those that a node meets when it starts.
func faultsOfStart(t *testing.T) {
	pools := map[string]away{"gold": newAway(t), "tin": newAway(t), "iron": newAway(t)}
	cache, disk := filepath.Join(t.TempDir(), "cache"), filepath.Join(t.TempDir(), "disk")
	f := filepath.Join(t.TempDir(), "ovgate.yaml")
	dir, sh := t.TempDir(), &shift{}
	s := sick{start(t, Options{Data: dir, shift: sh}), sh}
	for name, a := range pools {
		s.pool(name, a.dir)
	}
	s.disk("one", "gold", 1<<30)
	s.disk("two", "tin", 1<<30)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for _, a := range pools {
		a.swap()
	}
	write(t, f, fmt.Sprintf("read_cache: [{dir: %q, bytes: 67108864}]\nwrite_disks: [{dir: %q, bytes: 268435456}]\n", cache, disk))
	s.running = start(t, Options{Data: dir, Config: f, shift: sh})
	s.call("DELETE", "/vdisks/two?purge=true", nil, 204)
	s.call("DELETE", "/vpools/iron", nil, 204)
	faults := []fault{
		{code: "vpool_offline", object: "vpool gold", remedy: "bring the backend back"},
		{code: "vdisk_opening", object: "vdisk one", remedy: "tried again"},
		{code: "vdisk_deleting", object: "vdisk two", remedy: "bring the backend back"},
		{code: "vpool_deleting", object: "vpool iron", remedy: "bring the backend back"},
		{code: "write_disk", says: disk, remedy: "replace or mount that disk"},
		{code: "read_cache", says: cache, remedy: "check that disk"},
	}
	for _, f := range faults {
		s.told(f)
	}
	for _, a := range pools {
		a.swap()
	}
	for _, f := range faults[:4] {
		s.gone(f)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{cache, disk} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.running = start(t, Options{Data: dir, Config: f, shift: sh})
	for _, f := range faults[4:] {
		s.gone(f)
	}
}

// door is an S3 store that does what the test says.
type door struct {
	*httptest.Server
	mode     atomic.Value // string
	answered atomic.Int64 // requests
}

// doorSlow is how long each answer of a slow store takes: above what health calls slow.
const doorSlow = 2500 * time.Millisecond

func newDoor(t *testing.T, endpoint string) *door {
	t.Helper()
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	pass := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host // it is signed
	}}
	d := &door{}
	d.mode.Store("")
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer d.answered.Add(1)
		list := r.Method == http.MethodGet && r.URL.Query().Has("list-type")
		switch mode := d.mode.Load().(string); {
		case mode == "broken":
			w.WriteHeader(http.StatusInternalServerError)
			return
		case mode == "slow":
			select {
			case <-time.After(doorSlow):
			case <-r.Context().Done():
			}
		case mode == "no write" && r.Method == http.MethodPut, mode == "no list" && list,
			mode == "no read" && !list && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `<Error><Code>AccessDenied</Code><Message>denied by a test</Message></Error>`)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { d.Close(); transport.CloseIdleConnections() })
	return d
}

// TestFaultsOfCertificates: those of certificates that cannot be renewed, or were not.
func TestFaultsOfCertificates(t *testing.T) {
	t.Parallel()
	const name, day = "console.example", 24 * time.Hour
	certs := newSite(t)
	certs.sign(name, 0)
	f := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, f, certs.config())
	data := t.TempDir()
	s := sick{shift: &shift{}}
	s.running = start(t, Options{Data: data, Config: f, shift: s.shift, lookCertificates: 20 * time.Millisecond})
	well := func() { certs.sign(name, 0) }
	own := filepath.Join(data, "tls", "server.pem")
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	s.suffer([]fault{
		{"the node's certificate cannot be written", "certificate", "", "cannot be renewed", "it is tried again", func() {
			must(os.Remove(own), os.MkdirAll(filepath.Join(own, "in the way"), 0o700))
		}, func() { must(os.RemoveAll(own)) }},
		{"the site's certificate is near its end", "site_certificate", certs.certificate, "ends in 19 days", "new certificate", func() { certs.sign(name, 20*day-serverLife) }, well},
		{"the site's certificate has ended", "site_certificate", certs.certificate, "has ended", "new certificate", func() { certs.sign(name, -day-serverLife) }, well},
		{"the site's key is damaged", "site_certificate", certs.certificate, "not used", "new certificate", func() { write(t, certs.key, "-----BEGIN") }, well},
	})
}

// muteConn is a connection whose reader hears nothing more once it is mute, as of a host
// that hangs.
type muteConn struct {
	net.Conn
	mute, closed chan struct{}
	once         sync.Once
}

func (c *muteConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.mute:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *muteConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestFaultsOfSessions: those of iSCSI sessions and of exports that are left behind.
func TestFaultsOfSessions(t *testing.T) {
	t.Parallel()
	type m = map[string]any
	const host = "iqn.1998-01.com.vmware:a"
	s := sick{shift: &shift{}}
	s.running = start(t, Options{Data: t.TempDir(), shift: s.shift, iscsiLimits: iscsi.Limits{PingIdle: 2 * time.Second, PingTime: 15 * time.Second}})
	s.pool("gold", t.TempDir())
	s.disk("one", "gold", 1<<20)
	iqn := s.call("POST", "/targets", m{"name": "cluster"}, 201)["iqn"].(string)
	s.call("POST", "/targets/cluster/groups", m{"name": "hosts", "initiators": []string{host}, "chap": false}, 201)
	show := func() string {
		return s.call("POST", "/vdisks/one/publish", m{"target": "cluster"}, 200)["portals"].([]any)[0].(map[string]any)["address"].(string)
	}
	portal := show()
	signIn := func(mute chan struct{}) *initiator.Session {
		t.Helper()
		i, err := initiator.Dial(t.Context(), initiator.Options{
			Address: portal, Target: iqn, Initiator: host,
			DialFunc: func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, network, address)
				return &muteConn{Conn: c, mute: mute, closed: make(chan struct{})}, err
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(i.Close)
		return i
	}
	state := func() string {
		var out []string
		for _, i := range s.call("GET", "/iscsi/sessions", nil, 200)["items"].([]any) {
			out = append(out, i.(map[string]any)["state"].(string))
		}
		return strings.Join(out, ", ")
	}
	mute := make(chan struct{})
	signIn(mute)
	s.until("in", func() bool { return state() == "ok" })
	s.suffer([]fault{
		{"a host hangs", "session_lost", "initiator " + host, "stopped answering", "look after that host", func() {
			close(mute)
			s.until("silent", func() bool { return state() == "silent" })
		}, func() { signIn(make(chan struct{})) }},
		{"a host sees no LUN", "session_unused", "initiator " + host, "sees no LUN", "give it a LUN", func() {
			s.call("POST", "/vdisks/one/unpublish", m{"force": true}, 204)
			s.until("without a LUN", func() bool { return state() == "no_luns" })
			s.shift.passed.Add(int64(10 * time.Minute))
		}, func() { show() }},
	})
	s.t.Run("an export is kept and not read", func(t *testing.T) {
		s := s.on(t)
		stale := fault{code: "transfer_idle", object: "vdisk one", says: "An export of vDisk one"}
		id := s.call("POST", "/vdisks/one/exports", m{}, 201)["id"].(string)
		hour := func() map[string]any {
			for range 20 {
				s.shift.passed.Add(int64(200 * time.Second))
				s.call("GET", "/exports/"+id, nil, 200) // its client keeps it
			}
			return s.cause(stale)
		}
		if c := s.cause(stale); c != nil {
			t.Fatalf("told before: %v", c)
		}
		c := hour()
		if c == nil || !strings.Contains(c["hint"].(string), "ovgate vdisk delete export-") {
			t.Fatalf("told %v", c)
		}
		s.call("GET", "/exports/"+id+"/extents?offset=0", nil, 200)
		if c := s.cause(stale); c != nil {
			t.Errorf("it goes on, and %v", c)
		}
		c = hour()
		if c == nil {
			t.Fatal("not told again")
		}
		_, name, _ := strings.Cut(c["hint"].(string), "ovgate vdisk delete ")
		s.call("DELETE", "/vdisks/"+name, nil, 204)
		if c := s.cause(stale); c != nil {
			t.Errorf("ended as the remedy says, and %v", c)
		}
	})
}

// TestFaultsOfStore: those of a store in the network.
func TestFaultsOfStore(t *testing.T) {
	t.Parallel()
	p := remotetest.Peer(t, "s3")
	d := newDoor(t, p["endpoint"])
	s := sick{shift: &shift{}}
	s.running = start(t, Options{Data: t.TempDir(), shift: s.shift})
	s.call("POST", "/backends", map[string]any{"name": "store", "kind": "s3", "secret": p["secret_key"],
		"options": map[string]any{"container": p["bucket"], "url": d.URL, "user": p["access_key"]}}, 201)
	s.call("POST", "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "s3", "store": "store", "path": "gold"},
		"settings": map[string]any{"commitIntervalMs": 100}}, 201)
	s.disk("one", "gold", 1<<30)
	one := s.login("one")
	var lba uint64
	busy := func(mode string) func() { // there is something to upload
		return func() {
			d.mode.Store(mode)
			lba = (lba + 256) % (1 << 20)
			if err := one.WriteAt(t.Context(), 0, backendtest.Data(lba, 65536), lba); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.suffer([]fault{
		{"the store refuses writes", "backend_denied", "vpool gold", "write", "write objects", busy("no write"), busy("")},
		{"the store is broken", "backend_store", "vpool gold", "does not answer", "bring the store", busy("broken"), busy("")},
	})
	s.t.Run("the store is slow", func(t *testing.T) {
		slow := fault{code: "backend_slow", object: "vpool gold", says: "on average"}
		s := s.on(t)
		// minute has some requests in a minute of the node's clock, and looks then.
		minute := func(mode string) map[string]any {
			d.mode.Store(mode)
			from := d.answered.Load()
			s.until("asked", func() bool { busy(mode)(); return d.answered.Load() >= from+8 })
			s.shift.passed.Add(int64(time.Minute))
			return s.cause(slow)
		}
		if c := minute(""); c != nil {
			t.Fatalf("told before: %v", c)
		}
		var c map[string]any
		s.until("told", func() bool { c = minute("slow"); return c != nil })
		if hint := c["hint"].(string); !strings.Contains(hint, "look at the store") {
			t.Errorf("the remedy is %q", hint)
		}
		s.until("told no more", func() bool { return minute("") == nil })
	})
}

// TestFaultsOfCluster: those of a node's peers and registry.
func TestFaultsOfCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; it is for the area unit")
	}
	t.Parallel()
	sh := &shift{}
	c := newMirroredWith(t, 2, Options{askRegistry: 300 * time.Millisecond, shift: sh})
	s := sick{c.nodes[0], sh}
	s.disk("one", "gold", 1<<30)
	s.untilDTL("one", "ok")
	wall := func(d time.Duration) func() { return func() { sh.wall.Add(int64(d)) } }
	again := func(o Options) func() {
		return func() {
			if err := c.nodes[1].stop(); err != nil {
				t.Fatal(err)
			}
			c.opt = o
			c.start(1)
		}
	}
	usual := c.opt
	other := usual
	other.Version = "99.0.0"
	const day = 24 * time.Hour
	s.suffer([]fault{
		{"the DTL is off", "dtl_off", "vdisk one", "is off", "--dtl sync", func() { s.call("PUT", "/vdisks/one/dtl", map[string]any{"mode": "off"}, 200) },
			func() { s.call("PUT", "/vdisks/one/dtl", map[string]any{"mode": "inherit"}, 200) }},
		{"the node's certificate was not renewed", "node_certificate", "", "ends in", "look up in the node's log", wall(2*365*day - 20*day), wall(20*day - 2*365*day)},
		{"the authority ends", "authority", "", "authority ends", "plan its replacement", wall(10*365*day - 100*day), wall(100*day - 10*365*day)},
		{"another version", "version_apart", "", "n2 (99.0.0)", "upgrade those that are behind", again(other), again(usual)},
		{"the clock of another node is apart", "clock_skew", "node n2", "behind", "time service", wall(5 * time.Second), wall(-5 * time.Second)},
		{"the mirror is gone", "dtl_degraded", "vdisk one", "one node only", "bring that node back", func() {
			if err := c.nodes[1].stop(); err != nil {
				t.Fatal(err)
			}
			c.set(1, nil)
		}, func() { c.start(1) }},
		{"a member of etcd is away", "registry_member", "registry " + c.wires[0].Endpoint(), "does not answer", "bring it back", c.wires[0].Cut, c.wires[0].Heal},
		{"the registry is away", "registry_away", "registry", "does not answer", "bring the registry", c.wires[0].Cut, c.wires[0].Heal},
	})
}

// TestFaultsOfParts: faults that no machine of a test has, such as a failing disk or a cloud
// that does not answer, as the parts that look for them report them.
func TestFaultsOfParts(t *testing.T) {
	alba := func(a observe.Alba) observe.Checks { return observe.Checks{Alba: &a} }
	disk := func(state volume.State) observe.Checks {
		return observe.Checks{Disks: []observe.DiskCheck{{Name: "a", State: state, Open: true}}}
	}
	for code, f := range map[string]struct {
		checks         observe.Checks
		object, remedy string
	}{
		"osd":                {alba(observe.Alba{OSDs: []observe.OSDCheck{{Number: 3, Problem: "no answer"}}}), "osd 3", "bring it back"},
		"osd_disk":           {alba(observe.Alba{OSDs: []observe.OSDCheck{{Number: 3, Healthy: new(false)}}}), "osd 3", "ovgate osd replace"},
		"osd_hot":            {alba(observe.Alba{OSDs: []observe.OSDCheck{{Number: 3, Temperature: new(70)}}}), "osd 3", "cooling"},
		"osd_full":           {alba(observe.Alba{OSDs: []observe.OSDCheck{{Number: 3, Full: true}}}), "osd 3", "add devices"},
		"alba":               {alba(observe.Alba{Err: "no answer"}), "", "log"},
		"alba_lost":          {alba(observe.Alba{Surveyed: true, Lost: 2}), "", "ovgate osd list"},
		"alba_safety":        {alba(observe.Alba{Surveyed: true, AtRisk: 2}), "", "ovgate osd list"},
		"alba_node":          {alba(observe.Alba{NodeRisk: "too few nodes"}), "preset default", "claim devices on more nodes"},
		"alba_incomplete":    {alba(observe.Alba{Repair: 2, RepairLate: true}), "", "enough devices"},
		"alba_filling":       {alba(observe.Alba{OSDs: []observe.OSDCheck{{Used: 90, Free: 10}}}), "", "add space"},
		"alba_full":          {alba(observe.Alba{OSDs: []observe.OSDCheck{{Used: 97, Free: 3}}}), "", "add space"},
		"cloud_away":         {observe.Checks{Clouds: []observe.CloudCheck{{Name: "prod", Err: "no answer"}}}, "openstack cloud prod", "ovgate openstack cloud test prod"},
		"cloud_backend_down": {observe.Checks{Clouds: []observe.CloudCheck{{Name: "prod", Down: []string{"h@a"}}}}, "openstack cloud prod", "cinder-volume"},
		"registry_alarm":     {observe.Checks{Registry: []observe.RegistryMember{{Endpoint: "e", Quota: 100, Alarms: []string{"NOSPACE"}}}}, "registry", "alarm disarm"},
		"registry_filling":   {observe.Checks{Registry: []observe.RegistryMember{{Endpoint: "e", Quota: 100, Size: 80}}}, "registry e", "defrag"},
		"datastore_job":      {observe.Checks{Datastores: []observe.DatastoreCheck{{Name: "gold", Job: "snapshot", Step: "release", Err: "virtual machine db: busy"}}}, "datastore gold", "ovgate vsphere datastore show gold"},
		"node_dead":          {observe.Checks{Cluster: &observe.Cluster{Dead: []string{"n2"}, CertificateLeft: serverLife, AuthorityLeft: caLife}}, "node n2", "ovgate node remove n2"},
		"backend_away":       {observe.Checks{Pools: []observe.PoolCheck{{Name: "gold", Attached: true, Err: "no answer"}}}, "vpool gold", "bring the backend back"},
		"alert_channel":      {observe.Checks{AlertChannels: []observe.AlertChannelCheck{{Name: "dead", Err: errors.New("no answer")}}}, "alert channel dead", "ovgate alert channel test dead"},
		"vdisk_degraded":     {disk(volume.StateDegraded), "vdisk a", "bring the backend back"},
		"audit_log":          {observe.Checks{Audit: errors.New("no space")}, "", "free space"},
		"metadata_restored":  {observe.Checks{Pools: []observe.PoolCheck{{Name: "gold", Attached: true, DeletesOff: true, DeletesWhy: "being compared"}}}, "vpool gold", "ovgate metadata status"},
		"vdisk_unknown":      {observe.Checks{Pools: []observe.PoolCheck{{Name: "gold", Attached: true, Strangers: []string{"x"}}}}, "vpool gold", "ovgate vpool recover"},
		"syslog":             {observe.Checks{Syslog: &observe.SyslogCheck{Server: "tcp://log:601", Err: errors.New("connection refused"), Lost: 3}}, "", "syslog server"},
		"event_log":          {observe.Checks{Events: errors.New("no space")}, "", "free space"},
		"metrics_history":    {observe.Checks{History: errors.New("no space")}, "", "free space"},
		"journal_pool":       {observe.Checks{Journal: errors.New("no space")}, "", "free space"},
		"job_failed":         {observe.Checks{Disks: []observe.DiskCheck{{Name: "a", FailedJobs: []observe.FailedJob{{Name: "scrub", Why: "away"}}}}}, "vdisk a", "ovgate schedule run scrub --vdisk a"},
		"map_not_written":    {observe.Checks{Disks: []observe.DiskCheck{{Name: "a", MapErr: "no space"}}}, "vdisk a", "make room"},
		"journal_filling":    {observe.Checks{Disks: []observe.DiskCheck{{Name: "a", Open: true, Journal: 80, JournalQuota: 100}}}, "vdisk a", "slower"},
		"dtl_catchup":        {observe.Checks{Disks: []observe.DiskCheck{{Name: "a", Open: true, Mirrorable: true, DTL: volume.DTLStats{State: volume.DTLCatchup}}}}, "vdisk a", "wait"},
		"vdisk_stalled":      {disk(volume.StateStalled), "vdisk a", "bring the backend back"},
		"vdisk_waiting":      {disk("waiting"), "vdisk a", "ovgate vdisk steal a"},
		"vdisk_suspended":    {disk("suspended"), "vdisk a", "bring the registry"},
		"vdisk_failed":       {disk(volume.StateFailed), "vdisk a", "check the disk"},
		"vdisk_lost_tail":    {disk(volume.StateLostTail), "vdisk a", "ovgate vdisk accept-loss a"},
		"vdisk_corrupt":      {disk(volume.StateCorrupt), "vdisk a", "names the place"},
		"vdisk_fenced":       {disk(volume.StateFenced), "vdisk a", "stop the other opening"},
		"vdisk_closed":       {disk(volume.StateClosed), "vdisk a", "node's log"},
	} {
		h := f.checks.Evaluate()
		if len(h.Causes) != 1 || h.Causes[0].Code != code || h.Causes[0].Object != f.object || !strings.Contains(h.Causes[0].Hint, f.remedy) {
			t.Errorf("%s: %+v", code, h.Causes)
		}
	}
}

// notInjected are the codes that no test here injects into a running node, and why. TestFaultsOfParts
// has them as the parts that look for them report them.
var notInjected = map[string]string{
	"alba":               "the registry has to answer and to refuse the object store's records alone",
	"alba_incomplete":    "hours of repair that does not get on",
	"alba_node":          "TestAlbaJoined waits for it and for its end, with devices on one node of two",
	"cloud_away":         "needs an OpenStack cloud: drill cinder",
	"cloud_backend_down": "needs an OpenStack cloud: drill cinder",
	"datastore_job":      "needs a vCenter: scripts/vsphere, late_test.go",
	"dtl_catchup":        "lasts for moments",
	"event_log":          "as audit_log, of the same package; TestFullDisk of gateway/observe/event has the disk and its end",
	"journal_pool":       "chunks are made ahead: the journal of a vDisk is full before",
	"map_not_written":    "pages are written when a map is evicted: TestMapDiskFull of volumedriver/volume",
	"metadata_restored":  "TestMetadataRestored waits for it and for its end",
	"metrics_history":    "TestHistory waits for it; TestFullDisk of gateway/observe/series has its end",
	"node_dead":          "drill cluster-kill-node kills a node; one that is stopped says that it leaves",
	"vdisk_closed":       "nothing is known to do it but a fault of the program",
	"vdisk_corrupt":      "TestCorruptJournal of volumedriver/volume",
	"vdisk_failed":       "a vDisk goes on with another WRITE disk: TestJournalDiskFails of volumedriver/volume has none left",
	"vdisk_fenced":       "TestFenced has it; the vPool is the other cluster's then, so that there is no way back",
	"vdisk_unknown":      "TestStrangers of gateway/control",
}

// injected are the codes of the literals of fault in the tests, which are told and mended.
func injected(t *testing.T, files ...string) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	isFault := func(e ast.Expr) bool { id, ok := e.(*ast.Ident); return ok && id.Name == "fault" }
	add := func(lit *ast.CompositeLit) {
		for i, e := range lit.Elts {
			kv, keyed := e.(*ast.KeyValueExpr)
			if keyed && kv.Key.(*ast.Ident).Name == "code" {
				e = kv.Value
			} else if keyed || i != 1 {
				continue
			}
			if code, ok := e.(*ast.BasicLit); ok {
				s, err := strconv.Unquote(code.Value)
				if err != nil {
					t.Fatal(err)
				}
				out[s] = true
			}
		}
	}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if isFault(lit.Type) {
				add(lit)
			}
			if l, ok := lit.Type.(*ast.ArrayType); ok && isFault(l.Elt) {
				for _, e := range lit.Elts {
					add(e.(*ast.CompositeLit))
				}
			}
			return true
		})
	}
	return out
}

// declaredTests are the tests of the rooms that excuses name.
func declaredTests(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, pattern := range []string{"*", "../control/*", "../observe/*/*", "../../volumedriver/volume/*"} {
		files, err := filepath.Glob(pattern + "_test.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("no tests in %s: %v", pattern, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`).FindAllSubmatch(b, -1) {
				out[string(m[1])] = true
			}
		}
	}
	return out
}

// TestFaultsOfAll: every code of the catalogue, but that which counts the others, is of a fault
// that a test injects into a node, sees told, mends, and sees gone; or it is said why not, and
// then the part that reports it is tested.
func TestFaultsOfAll(t *testing.T) {
	const parts = "faults_test.go"
	b, err := os.ReadFile(parts)
	if err != nil {
		t.Fatal(err)
	}
	reasons := maps.Clone(notInjected)
	done := injected(t, parts, "faultsinjected_test.go", "faultsdevices_test.go", "clusterloss_test.go", "metadata_test.go")
	for _, a := range observe.Catalogue() {
		why, excused := notInjected[a.Code]
		switch {
		case a.Code == observe.MoreCauses:
		case done[a.Code] && excused:
			t.Errorf("%s is injected, and said not to be", a.Code)
		case !done[a.Code] && !excused:
			t.Errorf("no test injects %s", a.Code)
		case excused && (why == "" || !bytes.Contains(b, []byte("\t\t"+strconv.Quote(a.Code)+":"))):
			t.Errorf("%s is not in TestFaultsOfParts, or nothing is said", a.Code)
		}
		delete(done, a.Code)
		delete(notInjected, a.Code)
	}
	for code := range done {
		t.Errorf("the catalogue lacks %s", code)
	}
	tests := declaredTests(t)
	for code, why := range reasons {
		for _, name := range regexp.MustCompile(`Test[A-Z][A-Za-z]+`).FindAllString(why, -1) {
			if !tests[name] {
				t.Errorf("%s is left to %s, which is no test", code, name)
			}
		}
	}
	for code := range notInjected {
		t.Errorf("the catalogue lacks %s, which is said not to be injected", code)
	}
}
