package iscsi_test

import (
	"context"
	"net"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

// rig is a server and a session for measurements.
type rig struct {
	srv  *iscsi.Server
	s    *initiator.Session
	free chan *initiator.Command
}

func newRig(t testing.TB, depth, size int, write bool) *rig {
	t.Helper()
	ctx := context.Background()
	d := iscsitest.NewDisk(diskSize, nil)
	if _, err := d.WriteAt(make([]byte, diskSize), 0); err != nil {
		t.Fatal(err)
	}
	r := &rig{srv: iscsi.NewServer(iscsi.Config{}), free: make(chan *initiator.Command, depth)}
	if err := r.srv.AddTarget(iscsi.TargetSpec{Name: targetName, Groups: open(nil), LUNs: []iscsi.LUNSpec{lunSpec(0, d)}}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.srv.Serve(l) // its error says that the server was shut down
	}()
	r.s, err = initiator.Dial(ctx, initiator.Options{Address: l.Addr().String(), Target: targetName})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.s.Close()
		if err := r.srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-done
	})
	if err := r.s.Ready(ctx, 0); err != nil {
		t.Fatal(err)
	}
	for range depth {
		c := &initiator.Command{Done: func(c *initiator.Command) { r.free <- c }}
		if write {
			c.Out = make([]byte, size)
		} else {
			c.In = make([]byte, size)
		}
		r.free <- c
	}
	return r
}

// run does n commands, cap(free) at a time.
func (r *rig) run(t testing.TB, n int) {
	for i := range n {
		c := <-r.free
		if c.Err != nil {
			t.Fatal(c.Err)
		}
		blocks := max(len(c.In), len(c.Out)) / 512
		lba := uint64(i*7919%(diskSize/512/blocks)) * uint64(blocks)
		if c.Out != nil {
			c.CDB = initiator.WriteCDB(lba, uint32(blocks), false)
		} else {
			c.CDB = initiator.ReadCDB(lba, uint32(blocks))
		}
		if err := r.s.Submit(c); err != nil {
			t.Fatal(err)
		}
	}
	all := make([]*initiator.Command, 0, cap(r.free))
	for range cap(r.free) {
		c := <-r.free
		if c.Err != nil {
			t.Fatal(c.Err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		r.free <- c
	}
}

// BenchmarkIO measures target and initiator together over loopback. The limit
// beside it is a bare TCP exchange of the same sizes: about 50 000 a second at
// depth 1 and 600 000 at depth 32 on a 2-core machine.
func BenchmarkIO(b *testing.B) {
	for _, c := range []struct {
		name        string
		depth, size int
		write       bool
	}{
		{"read4kQD1", 1, 4096, false},
		{"read4kQD32", 32, 4096, false},
		{"write4kQD1", 1, 4096, true},
		{"write4kQD32", 32, 4096, true},
		{"read64kQD8", 8, 65536, false},
		{"write64kQD8", 8, 65536, true},
		{"read1MQD4", 4, 1 << 20, false},
		{"write1MQD4", 4, 1 << 20, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, c.depth, c.size, c.write)
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			b.ResetTimer()
			r.run(b, b.N)
		})
	}
}

// TestAllocations: neither side allocates per 4 KiB command in steady state.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Log("the race detector allocates; counted without it")
		return
	}
	for _, write := range []bool{false, true} {
		r := newRig(t, 32, 4096, write)
		r.run(t, 2000)
		const n = 2000
		got := testing.AllocsPerRun(5, func() { r.run(t, n) }) / n
		t.Logf("write=%v: %.3f allocations per command", write, got)
		if got > 0.2 { // pools emptied by a collection cost a few
			t.Errorf("write=%v: %.3f allocations per command", write, got)
		}
	}
}
