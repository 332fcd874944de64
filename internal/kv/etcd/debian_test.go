package etcd_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/internal/kv/kvtest"
)

// debian is a member of Debian's etcd, older than the one that this package runs, with TLS, client
// certificates and authentication. Its user "ovgate" may use keys below debianPrefix and no others.
type debian struct {
	t         *testing.T
	authority *authority
	args      []string
	endpoint  string
	tls       *tls.Config
	root      *clientv3.Client
	cmd       *exec.Cmd
}

const (
	debianPrefix   = "ovgate/"
	debianPassword = "of the user"
)

func newDebian(t *testing.T) *debian {
	t.Helper()
	bin, err := exec.LookPath("etcd")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("Debian's etcd (scripts/setup.sh): %v", err)
		}
		t.Skipf("Debian's etcd (scripts/setup.sh): %v", err)
	}
	d := &debian{t: t, authority: newAuthority(t, t.TempDir()), endpoint: free(t)}
	a, peer := d.authority, etcdtest.Free(t)
	a.member(t, "node")
	d.tls = a.trust(t, a)
	d.args = []string{bin, "--name", "m", "--data-dir", filepath.Join(t.TempDir(), "data"), "--initial-cluster", "m=" + peer,
		"--initial-advertise-peer-urls", peer, "--listen-peer-urls", peer, "--listen-client-urls", d.endpoint, "--advertise-client-urls", d.endpoint,
		"--client-cert-auth", "--trusted-ca-file", a.file("ca.pem"), "--cert-file", a.file("node.pem"), "--key-file", a.file("node.key")}
	d.start()
	t.Cleanup(d.stop)
	d.root = d.client("", "")
	d.authenticate()
	return d
}

func (d *debian) client(user, password string) *clientv3.Client {
	d.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{d.endpoint}, TLS: d.tls, Username: user, Password: password, Logger: zap.NewNop()})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// start runs the member until it serves.
func (d *debian) start() {
	d.t.Helper()
	log, err := os.Create(filepath.Join(d.t.TempDir(), "log"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(d.args[0], d.args[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() {
		if out, _ := os.ReadFile(log.Name()); d.t.Failed() {
			d.t.Logf("log of Debian's etcd:\n%s", out)
		}
	})
	c := d.client("", "")
	until(d.t, "Debian's etcd serves", func() bool {
		ctx, cancel := context.WithTimeout(d.t.Context(), limit)
		defer cancel()
		_, err := c.Status(ctx, d.endpoint)
		return err == nil
	})
}

func (d *debian) stop() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// authenticate makes the users, and has the member ask for them.
func (d *debian) authenticate() {
	ctx, auth := d.t.Context(), d.root.Auth
	var errs []error
	add := func(_ any, err error) { errs = append(errs, err) }
	add(auth.UserAdd(ctx, "root", "of root"))
	add(auth.UserGrantRole(ctx, "root", "root"))
	add(auth.RoleAdd(ctx, "store"))
	add(auth.RoleGrantPermission(ctx, "store", debianPrefix, clientv3.GetPrefixRangeEnd(debianPrefix), clientv3.PermissionType(clientv3.PermReadWrite)))
	add(auth.UserAdd(ctx, "ovgate", debianPassword))
	add(auth.UserGrantRole(ctx, "ovgate", "store"))
	add(auth.AuthEnable(ctx))
	if err := errors.Join(errs...); err != nil {
		d.t.Fatal(err)
	}
	d.root = d.client("root", "of root")
}

func (d *debian) options(prefix string) etcd.Options {
	return etcd.Options{Endpoints: []string{d.endpoint}, Prefix: prefix, TLS: d.tls, User: "ovgate", Password: debianPassword}
}

// TestDebian: what a store has to do works with the etcd that distributions have, as a user who may
// use nothing but the store's own keys.
func TestDebian(t *testing.T) {
	t.Parallel()
	d := newDebian(t)
	var n atomic.Int64
	prefixes := map[kv.Store]string{}
	kvtest.Run(t, func(t *testing.T) kv.Store {
		prefix := fmt.Sprintf("%s%d/", debianPrefix, n.Add(1))
		s := openWith(t, d.options(prefix))
		prefixes[s] = prefix
		return s
	}, kvtest.Options{
		Compact: func(t *testing.T, _ kv.Store) {
			got, err := d.root.Get(t.Context(), "x")
			if err == nil {
				_, err = d.root.Compact(t.Context(), got.Header.Revision)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		Reopen: func(t *testing.T, s kv.Store) kv.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			d.stop()
			d.start()
			return openWith(t, d.options(prefixes[s]))
		},
	})
}

// TestDebianRefuses: a store that etcd does not allow its keys says so, and waits for nothing.
func TestDebianRefuses(t *testing.T) {
	t.Parallel()
	d := newDebian(t)
	wrong, none, beyond := d.options(debianPrefix), d.options(debianPrefix), d.options("others/")
	wrong.Password, none.User, none.Password = "another", "", ""
	for _, tc := range []struct {
		o    etcd.Options
		want string
	}{{wrong, "authentication failed"}, {none, "permission denied"}, {beyond, "permission denied"}} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		s, err := etcd.Open(ctx, tc.o)
		late := ctx.Err()
		cancel()
		if err == nil {
			t.Errorf("%s: opened, %v", tc.want, s.Close())
			continue
		}
		if !strings.Contains(err.Error(), tc.want) || late != nil {
			t.Errorf("expected %q: %v (%v)", tc.want, err, late)
		}
	}
}
