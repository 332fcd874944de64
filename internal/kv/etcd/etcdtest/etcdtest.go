// Package etcdtest gives tests of other packages a real etcd cluster of one member, in the
// process of the test.
package etcdtest

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
)

// Member is a running cluster.
type Member struct {
	endpoint string
	options  etcd.ServerOptions
	server   *etcd.Server // nil while it is stopped
}

// Serve runs a cluster until the test ends.
func Serve(t testing.TB) *Member {
	t.Helper()
	return ServeQuota(t, 0)
}

// ServeQuota is Serve with a bound on the database, in bytes; 0: that of the package etcd.
func ServeQuota(t testing.TB, quota int64) *Member {
	t.Helper()
	for try := 1; ; try++ {
		client := Free(t)
		m := &Member{endpoint: client, options: etcd.ServerOptions{
			Name: "m", Dir: t.TempDir(), Members: map[string]string{"m": Free(t)}, Client: client, Token: t.Name(), Quota: quota,
		}}
		err := m.start()
		if err == nil {
			t.Cleanup(m.Stop)
			return m
		}
		if !errors.Is(err, syscall.EADDRINUSE) || try == 10 {
			t.Fatal(err)
		} // a test beside this one was quicker
	}
}

// Start runs the member again after Stop, with what it holds.
func (m *Member) Start(t testing.TB) {
	t.Helper()
	if err := m.start(); err != nil {
		t.Fatal(err)
	}
}

func (m *Member) start() (err error) {
	m.server, err = etcd.Serve(context.Background(), m.options)
	return err
}

// Stop ends the member: whoever uses it gets no answer.
func (m *Member) Stop() {
	if m.server != nil {
		m.server.Close()
		m.server = nil
	}
}

// Free returns a URL on loopback where nobody listens.
func Free(t testing.TB) string {
	t.Helper()
	a, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + a
}

// Open returns a store below a prefix, until the test ends. Stores with one prefix share
// what they hold.
func (m *Member) Open(t testing.TB, prefix string) kv.Store {
	t.Helper()
	s, err := etcd.Open(context.Background(), etcd.Options{Endpoints: []string{m.endpoint}, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Endpoint is the URL of the member.
func (m *Member) Endpoint() string { return m.endpoint }
