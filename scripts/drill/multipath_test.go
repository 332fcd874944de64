package main

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
	"github.com/openvstorage/ovgate/scripts/drill/selfcheck"
)

const testIQN = "iqn.2026-11.io.ovgate.test:paths"

// serveDisk serves a disk in memory, and returns its portals, each of a group of its own: a
// session of one does not end that of another.
func serveDisk(t *testing.T, disk iscsi.Disk) (portals [hostPaths]string) {
	t.Helper()
	srv := iscsi.NewServer(iscsi.Config{})
	spec := iscsi.TargetSpec{Name: testIQN, Groups: []iscsi.Group{{Name: "all", Any: true}}, LUNs: []iscsi.LUNSpec{{Number: 0, Disk: disk, Serial: "paths", NAA: [16]byte{0: 0x60, 15: 1}}}}
	served := make(chan error, hostPaths)
	for i := range portals {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		portals[i] = l.Addr().String()
		spec.Portals = append(spec.Portals, iscsi.Portal{Address: portals[i], Group: uint16(i + 1)})
		go func() { served <- srv.Serve(l) }()
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // sessions that are left are not waited for
		if err := srv.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		for range portals {
			if err := <-served; !errors.Is(err, iscsi.ErrServerClosed) {
				t.Error(err)
			}
		}
	})
	if err := srv.AddTarget(spec); err != nil {
		t.Fatal(err)
	}
	return portals
}

// pathsOf is a host with a path to each portal, through a joint.
func pathsOf(t *testing.T, portals [hostPaths]string) (*followed, [hostPaths]*joint) {
	t.Helper()
	f := &followed{name: "paths", multi: true, conn: client.Connection{IQN: testIQN, Portals: []client.Portal{{Address: portals[0]}}},
		load: selfcheck.New(64, 1), isid: [6]byte{0x80, 5: 1}, every: time.Millisecond}
	var joints [hostPaths]*joint
	for i, portal := range portals {
		var err error
		if joints[i], err = newJoint(portal); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(joints[i].close)
		f.portals = append(f.portals, joints[i].l.Addr().String())
	}
	return f, joints
}

// working is how many paths work.
func (m *multipath) working() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, d := range m.paths {
		if d != nil {
			n++
		}
	}
	return n
}

func awaitPaths(t *testing.T, what string, holds func() bool) {
	t.Helper()
	err := eventually(t.Context(), 2*time.Minute, what, func(context.Context) error {
		if !holds() {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMultipath: a host that loses a path in the middle of its commands goes on over the other
// one, without an error, and all that was acknowledged is read on each; an error that sending
// again does not mend is one of the host.
func TestMultipath(t *testing.T) {
	disk := iscsitest.NewDisk(64*selfcheck.BlockSize, nil)
	f, joints := pathsOf(t, serveDisk(t, disk))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	every := time.NewTicker(f.every)
	defer every.Stop()
	m := newMultipath(f, every.C, ctx.Done(), t.Context())
	awaitPaths(t, "on both paths", func() bool { return m.working() == hostPaths })
	ended := make(chan error, 1)
	go func() { ended <- f.load.Run(ctx, m, followedDepth, 1) }()
	more := func(what string) {
		t.Helper()
		from := f.load.Counts().Writes
		awaitPaths(t, "writing "+what, func() bool { return f.load.Counts().Writes > from+20 })
	}
	more("over both paths")
	joints[0].close()
	awaitPaths(t, "on one path", func() bool { return m.working() == 1 })
	more("over the second path")
	cancel()
	if err := errors.Join(<-ended, f.passed()); err != nil {
		t.Error(err)
	}
	m.close()
	if n := f.load.Counts(); n.Unknown > 0 || n.Unread > 0 {
		t.Errorf("the loss of a path shows: %+v", n)
	}
	again, err := newJoint(joints[0].to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.close)
	f.portals[0] = again.l.Addr().String()
	if err := f.verify(t.Context()); err != nil {
		t.Fatal(err)
	}

	disk.SetFail(func(op *iscsi.Op) error {
		if op.Kind == iscsi.OpWrite {
			return iscsi.ErrMedium
		}
		return nil
	})
	if err := f.follow(t.Context(), t.Context(), 2); err == nil {
		t.Error("an error of the medium does not show")
	}
}
