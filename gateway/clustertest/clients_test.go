package clustertest

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

// patience bounds waits; a test that needs all of it has failed.
const patience = 3 * time.Minute

const testIQN = "iqn.2026-11.io.ovgate:test"

// twoNodes serve one disk over two portals. What is written over the second one the first one
// sees at once, or, with behind, does not see at all.
type twoNodes struct {
	mu      sync.Mutex
	portals []string
	at      int
}

// behindDisk reads what was there when the other node took over, and does not know of that.
type behindDisk struct {
	*iscsitest.Disk
	now *iscsitest.Disk // writes go there
}

func (d behindDisk) Submit(op *iscsi.Op) {
	if op.Kind == iscsi.OpRead {
		d.Disk.Submit(op)
		return
	}
	d.now.Submit(op)
}

func serve(t *testing.T, disk iscsi.Disk) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := iscsi.NewServer(iscsi.Config{})
	if err := s.AddTarget(iscsi.TargetSpec{Name: testIQN, Groups: []iscsi.Group{{Name: "all", Any: true}}, LUNs: []iscsi.LUNSpec{{Disk: disk, Serial: "1", NAA: [16]byte{0x60}}}}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return l.Addr().String()
}

func (n *twoNodes) dial(ctx context.Context) (*initiator.Session, error) {
	n.mu.Lock()
	n.at++
	address := n.portals[n.at%len(n.portals)]
	n.mu.Unlock()
	s, err := initiator.Dial(ctx, initiator.Options{Address: address, Target: testIQN})
	if err != nil {
		return nil, err
	}
	return s, s.Ready(ctx, 0)
}

// TestClients: what nodes do that serve one disk is found to be right, and one that reads what
// was there before is found out.
func TestClients(t *testing.T) {
	for name, behind := range map[string]bool{"right": false, "an old owner that goes on reading": true} {
		t.Run(name, func(t *testing.T) {
			now := iscsitest.NewDisk(1<<20, clock.Real{})
			n := &twoNodes{portals: []string{serve(t, now), serve(t, now)}}
			if behind {
				n.portals[1] = serve(t, behindDisk{iscsitest.NewDisk(1<<20, clock.Real{}), now})
			}
			c := &Clients{Dial: n.dial, Count: 4, Blocks: 4, Seed: 1}
			c.Start(t.Context())
			limit := time.After(patience)
			for again := time.NewTicker(time.Millisecond); c.Answered() < 200; {
				select {
				case <-limit:
					t.Fatalf("only %v", c)
				case <-again.C:
				}
			}
			s, err := n.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			p, err := c.Probe(s)
			if err != nil {
				t.Fatal(err)
			}
			<-p.Done()
			err = c.Stop(t.Context())
			if !behind && err != nil || behind && (err == nil || !strings.Contains(err.Error(), "no order")) {
				t.Errorf("%v: %v", c, err)
			}
		})
	}
}
