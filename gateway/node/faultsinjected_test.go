package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/internal/smalldisk"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
)

// TestFaultsOfBackend: those of a backend that is away, on its vDisks.
func TestFaultsOfBackend(t *testing.T) {
	t.Parallel()
	type m = map[string]any
	const mib, quota = 1 << 20, 128 << 20
	s := sick{shift: &shift{}}
	s.running = start(t, Options{Data: t.TempDir(), shift: s.shift})
	far := newAway(t)
	s.pool("far", far.dir)
	s.call("PATCH", "/vpools/far", m{"settings": m{"commitIntervalMs": 100, "journalQuota": quota}}, 200)
	s.disk("one", "far", 1<<30)
	one := s.login("one")
	at := uint64(0)
	block := backendtest.Data(1, mib)
	writes := func(ctx context.Context, bytes int) error {
		for range bytes / mib {
			at = (at + mib) % (1 << 30)
			if err := one.WriteAt(ctx, 0, block, at/512); err != nil {
				return err
			}
		}
		return nil
	}
	some := func(bytes int) func() {
		return func() {
			t.Helper()
			far.swap()
			if err := writes(t.Context(), bytes); err != nil {
				t.Fatal(err)
			}
		}
	}
	var full chan error
	var stop context.CancelFunc
	s.suffer([]fault{
		{"the backend is away", "backend_away", "vpool far", "does not answer", "bring the backend back", some(mib), far.swap},
		{"a vDisk goes on with its journal", "vdisk_degraded", "vdisk one", "the backend is away", "bring the backend back", some(mib), far.swap},
		{"a journal fills", "journal_filling", "vdisk one", "% full", "slower than the writes", some(quota * 3 / 4), far.swap},
		{"a vDisk waits", "vdisk_stalled", "vdisk one", "its journal is full", "bring the backend back", func() {
			far.swap()
			var ctx context.Context
			ctx, stop = context.WithCancel(t.Context())
			full = make(chan error, 1)
			go func() { full <- writes(ctx, 2*quota) }()
		}, func() {
			stop()
			<-full // however it ended
			far.swap()
		}},
	})
}

// TestFaultsOfDataDir: those of a data directory that takes nothing more.
func TestFaultsOfDataDir(t *testing.T) {
	if testing.Short() {
		t.Skip("the file system is filled again and again: nothing for the race detector")
	}
	t.Parallel()
	type m = map[string]any
	data := smalldisk.Mount(t, 256<<20)
	s := sick{shift: &shift{}}
	s.running = start(t, Options{Data: data, shift: s.shift})
	s.pool("gold", t.TempDir())
	ballast := filepath.Join(data, "ballast")
	fill := func() {
		t.Helper()
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for b := make([]byte, 1<<20); len(b) > 0; {
			if _, err := f.Write(b); err != nil {
				b = b[:len(b)/2]
			}
		}
	}
	room := func() {
		t.Helper()
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	refused := func() { s.call("POST", "/vdisks", m{"name": "x", "vpool": "none", "size": 1 << 20}, 404) }
	s.suffer([]fault{
		{"changes are not recorded", "audit_log", "", "not recorded in the audit log", "free space", func() {
			fill()
			for range 64 { // more than what is left of a page
				refused()
			}
		}, room},
	})
}

// TestFaultsOfTelling: those of whoever is told of the others.
func TestFaultsOfTelling(t *testing.T) {
	t.Parallel()
	type m = map[string]any
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, conf, "events: {syslog: 'tcp://"+address+"'}\n")
	s := sick{shift: &shift{}}
	s.running = start(t, Options{Data: t.TempDir(), Config: conf, shift: s.shift})
	var broken atomic.Bool
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(hook.Close)
	s.call("POST", "/alerts/channels", m{"name": "chat", "kind": "webhook", "secretUrl": hook.URL}, 201)
	server := &logServer{t: t, address: address}
	server.listen()
	t.Cleanup(server.close)
	s.suffer([]fault{
		{"the syslog server is away", "syslog", "", "are not sent to tcp://" + address, "bring the syslog server", func() {
			server.close()
			s.pool("gold", t.TempDir())
		}, server.listen},
		{"a channel does not work", "alert_channel", "alert channel chat", "not delivered to channel chat", "ovgate alert channel test chat", func() {
			broken.Store(true)
			s.call("PUT", "/alerts/thresholds/any", m{"metric": "node.data_dir_used", "value": 0, "forMs": 0}, 200)
		}, func() { broken.Store(false) }},
	})
}

// logServer is a syslog server that takes what comes.
type logServer struct {
	t       *testing.T
	address string
	l       net.Listener
	done    chan struct{}
}

func (s *logServer) listen() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.l, s.done = l, make(chan struct{})
	go func() {
		defer close(s.done)
		var open []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				for _, c := range open {
					c.Close()
				}
				return
			}
			open = append(open, c) // what is sent stays in its buffer
		}
	}()
}

func (s *logServer) close() {
	s.l.Close()
	<-s.done
}

// TestFaultsOfRegistry: those of an etcd that has no room.
func TestFaultsOfRegistry(t *testing.T) {
	t.Parallel()
	const quota = 20 << 20 // its file doubles: 16 MiB are more than three quarters
	m := etcdtest.ServeQuota(t, quota)
	s := sick{shift: &shift{}}
	s.running = start(t, Options{Data: t.TempDir(), Config: nodeConfig(t, m, "full/", "alpha"), shift: s.shift, askRegistry: probe})
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s.suffer([]fault{
		{"etcd fills", "registry_filling", "registry " + m.Endpoint(), "% of the size", "defragment it", func() {
			for i := 0; ; i++ {
				st, err := c.Status(t.Context(), m.Endpoint())
				must(err)
				if st.DbSize*100 >= quota*75 {
					return
				}
				_, err = c.Put(t.Context(), fmt.Sprint("ballast", i), string(make([]byte, 256<<10)))
				must(err)
			}
		}, func() {
			res, err := c.Delete(t.Context(), "ballast", clientv3.WithPrefix())
			must(err)
			_, err = c.Compact(t.Context(), res.Header.Revision, clientv3.WithCompactPhysical())
			must(err)
			_, err = c.Defragment(t.Context(), m.Endpoint())
			must(err)
		}},
		{"etcd takes no change", "registry_alarm", "registry", "NOSPACE", "etcdctl alarm disarm", func() {
			_, err := pb.NewMaintenanceClient(c.ActiveConnection()).Alarm(t.Context(), &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE})
			must(err)
		}, func() {
			all, err := c.AlarmList(t.Context())
			must(err)
			if len(all.Alarms) == 0 {
				must(errors.New("no alarm"))
			}
			_, err = c.AlarmDisarm(t.Context(), &clientv3.AlarmMember{MemberID: all.Alarms[0].MemberID, Alarm: pb.AlarmType_NOSPACE})
			must(err)
		}},
	})
}

// TestFaultsOfOpening: those that a vDisk meets when it is opened.
func TestFaultsOfOpening(t *testing.T) {
	t.Parallel()
	type m = map[string]any
	far := t.TempDir()
	backend := m{"kind": "local", "path": far}
	s := sick{shift: &shift{}}
	s.running = start(t, Options{Data: t.TempDir(), shift: s.shift})
	s.pool("gold", far)
	s.disk("one", "gold", 1<<20)
	if err := s.login("one").WriteAt(t.Context(), 0, make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	lost := fault{code: "vdisk_lost_tail", object: "vdisk one", says: "acknowledged writes are missing", remedy: "ovgate vdisk accept-loss one"}
	if c := s.cause(lost); c != nil {
		t.Fatalf("told before: %v", c)
	}
	// Another node has not its journal.
	if err := os.Remove(filepath.Join(far, "lock")); err != nil {
		t.Fatal(err)
	}
	s.running = start(t, Options{Data: t.TempDir(), shift: s.shift})
	s.call("POST", "/vpools/recover", m{"name": "gold", "backend": backend}, 200)
	s.told(lost)
	s.call("POST", "/vdisks/one/acceptLoss", nil, 200)
	s.gone(lost)
}
