package iscsi_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/leaktest"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

const targetName = "iqn.2026-01.org.example:disk"

// diskSize of the tests; large enough for the conformance suite.
const diskSize = 64 << 20

// testTime bounds every test that talks to the server; reached only when
// something hangs.
const testTime = 3 * time.Minute

// node is a running server with one target and one disk.
type node struct {
	t       *testing.T
	srv     *iscsi.Server
	disk    *iscsitest.Disk
	addr    string
	network string // of addr
	spec    iscsi.TargetSpec
	ctx     context.Context
}

func lunSpec(n uint16, d iscsi.Disk) iscsi.LUNSpec {
	return iscsi.LUNSpec{Number: n, Disk: d, Serial: "0123456789", NAA: [16]byte{0x60, 0x12, 15: byte(n)}}
}

// open admits every initiator, with CHAP if a says so.
func open(a *iscsi.Auth) []iscsi.Group {
	return []iscsi.Group{{Name: "all", Any: true, Auth: a}}
}

// start runs a server until the test ends; change may alter the target first.
func start(t *testing.T, cfg iscsi.Config, change func(*iscsi.TargetSpec)) *node {
	t.Helper()
	return startOn(t, "tcp", "127.0.0.1:0", cfg, change)
}

var sockets atomic.Int64

// startLocal is start on a Unix socket: fuzzing would use up the machine's ports.
func startLocal(t *testing.T, cfg iscsi.Config, change func(*iscsi.TargetSpec)) *node {
	t.Helper()
	return startOn(t, "unix", fmt.Sprintf("@ovgate-%d-%d", os.Getpid(), sockets.Add(1)), cfg, change)
}

func startOn(t *testing.T, network, address string, cfg iscsi.Config, change func(*iscsi.TargetSpec)) *node {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	n := &node{t: t, network: network, srv: iscsi.NewServer(cfg), disk: iscsitest.NewDisk(diskSize, nil), ctx: ctx}
	n.spec = iscsi.TargetSpec{Name: targetName, Groups: open(nil), LUNs: []iscsi.LUNSpec{lunSpec(0, n.disk)}}
	if change != nil {
		change(&n.spec)
	}
	if err := n.srv.AddTarget(n.spec); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- n.srv.Serve(l) }()
	t.Cleanup(func() {
		defer cancel()
		n.disk.Release()
		if err := n.srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, iscsi.ErrServerClosed) {
			t.Errorf("Serve returned %v", err)
		}
		n.disk.Wait()
	})
	return n
}

// login opens a session and takes the unit attentions of LUN 0.
func (n *node) login(change func(*initiator.Options)) *initiator.Session {
	n.t.Helper()
	s, err := n.dial(change)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := s.Ready(n.ctx, 0); err != nil {
		n.t.Fatal(err)
	}
	return s
}

func (n *node) dial(change func(*initiator.Options)) (*initiator.Session, error) {
	s, err := n.connect(change)
	if err == nil {
		n.t.Cleanup(s.Close)
	}
	return s, err
}

// connect is dial for sessions that the caller closes: they may be many.
func (n *node) connect(change func(*initiator.Options)) (*initiator.Session, error) {
	o := initiator.Options{Address: n.addr, Target: n.spec.Name}
	if n.network != "tcp" {
		o.DialFunc = func(ctx context.Context, _, address string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, n.network, address)
		}
	}
	if change != nil {
		change(&o)
	}
	return initiator.Dial(n.ctx, o)
}

// wantSense checks that err is CHECK CONDITION with this sense data.
func wantSense(t *testing.T, err error, key, asc, ascq byte) {
	t.Helper()
	var e *initiator.SCSIError
	if !errors.As(err, &e) || e.Status != initiator.CheckCondition {
		t.Errorf("got %v, want CHECK CONDITION %x/%02x/%02x", err, key, asc, ascq)
		return
	}
	if e.Sense.Key != key || e.Sense.ASC != asc || e.Sense.ASCQ != ascq {
		t.Errorf("got %v, want %x/%02x/%02x", err, key, asc, ascq)
	}
}

// wantStatus checks that err is this status.
func wantStatus(t *testing.T, err error, status byte) {
	t.Helper()
	var e *initiator.SCSIError
	if !errors.As(err, &e) || e.Status != status {
		t.Errorf("got %v, want status %#02x", err, status)
	}
}

func TestMain(m *testing.M) { leaktest.Main(m) }
