package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

const checkedBlocks = 64

// checker writes to a vDisk wherever it is served, and knows what it must hold: of each block
// the newest acknowledged write, or one that was tried after that.
type checker struct {
	t     *testing.T
	c     *members
	vdisk string
	s     *initiator.Session

	acked, tried [checkedBlocks]uint64
	n            uint64
	writes       atomic.Int64 // acknowledged
}

func block(n uint64) []byte {
	b := make([]byte, 4096)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], n)
	}
	return b
}

// connect logs in where the vDisk is served.
func (k *checker) connect() (err error) {
	if k.s != nil {
		k.s.Close()
	}
	k.s, err = k.c.dial(k.t.Context(), k.vdisk)
	return err
}

// step writes a block, and reads one and checks it.
func (k *checker) step() error {
	k.n++
	i := k.n % checkedBlocks
	k.tried[i] = k.n
	if err := k.s.WriteAt(k.t.Context(), 0, block(k.n), i*8); err != nil {
		return err
	}
	k.acked[i] = k.n
	k.writes.Add(1)
	return k.check((k.n * 7) % checkedBlocks)
}

func (k *checker) check(i uint64) error {
	got := make([]byte, 4096)
	if err := k.s.ReadAt(k.t.Context(), 0, got, i*8); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(got)
	if !bytes.Equal(got, block(n)) || n < k.acked[i] || n > k.tried[i] {
		k.t.Errorf("block %d holds write %d, want %d to %d", i, n, k.acked[i], k.tried[i])
	}
	k.acked[i] = max(k.acked[i], n) // it was answered: nothing older comes back
	return nil
}

// run works until stop is closed, and comes back after every error.
func (k *checker) run(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if k.s == nil {
			if err := k.connect(); err != nil {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond): // until it is served again
				}
			}
			continue
		}
		if err := k.step(); err != nil {
			k.s.Close()
			k.s = nil
		}
	}
}

// whole checks every block.
func (k *checker) whole() {
	k.t.Helper()
	if err := k.connect(); err != nil {
		k.t.Fatal(err)
	}
	for i := range uint64(checkedBlocks) {
		for deadline := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) { // busy while it moves
			var err error
			if k.s == nil {
				err = k.connect()
			}
			if err == nil {
				err = k.check(i)
			}
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				k.t.Fatal(err)
			}
			if k.s != nil {
				k.s.Close()
				k.s = nil
			}
		}
	}
}

// start has it run until the returned function is called.
func (k *checker) start() (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		k.run(end)
	}()
	return func() {
		close(end)
		<-done
	}
}

// more waits until it has written some more.
func (k *checker) more() {
	k.t.Helper()
	from := k.writes.Load()
	k.c.all()[0].until("writing", func() bool { return k.writes.Load() >= from+20 })
}

// TestClusterMove: a vDisk goes from node to node under a writer that checks all it reads, and
// with a node that is drained.
func TestClusterMove(t *testing.T) {
	c := newMembers(t, 2)
	one, two := c.nodes[0], c.nodes[1]
	id := one.disk("a", "gold", 1<<30)
	idle := one.disk("idle", "gold", 1<<30)
	k := &checker{t: t, c: c, vdisk: id}
	stop := k.start()
	k.more()
	for i, from := range []*running{one, two, one} {
		to := c.nodes[(i+1)%2]
		name := fmt.Sprintf("n%d", (i+1)%2+1)
		to.until("known", func() bool { return to.diskState(id) == "elsewhere" })
		if e := to.call("POST", "/vdisks/"+id+"/handover", map[string]any{"node": name}, 503); e["code"] != "elsewhere" {
			t.Errorf("asked of the wrong node: %v", e)
		}
		from.call("POST", "/vdisks/"+id+"/handover", map[string]any{"node": name}, 202)
		to.until("moved", func() bool { return to.diskState(id) == "running" })
		from.until("gone here", func() bool { return from.diskState(id) == "elsewhere" })
		k.more()
	}
	if e := two.call("POST", "/vdisks/a/handover", map[string]any{"node": "nobody"}, 404); e["object"] != "node nobody" {
		t.Errorf("to no node: %v", e)
	}
	one.pool("near", t.TempDir())
	near := one.disk("near", "near", 1<<20)
	if e := one.call("POST", "/vdisks/near/handover", map[string]any{"node": "n2"}, 409); e["code"] != "in_use" || !strings.Contains(e["hint"].(string), "S3") {
		t.Errorf("from a directory: %v", e)
	}
	if e := one.call("POST", "/nodes/n1/drain", nil, 409); !strings.Contains(e["message"].(string), "near") {
		t.Errorf("drain with a vDisk that cannot go: %v", e)
	}
	one.call("DELETE", "/vdisks/"+near+"?purge=true", nil, 204)
	// Asked of another node than the one that is drained.
	one.until("near is gone", func() bool { return one.diskState(near) == "" })
	two.until("near is gone", func() bool { return two.diskState(near) == "" })
	one.until("a is known to be there", func() bool { return one.diskState(id) == "elsewhere" })
	two.call("POST", "/nodes/n1/drain", nil, 202)
	two.until("idle is here", func() bool { return two.diskState(idle) == "running" })
	e := two.call("POST", "/nodes/n2/drain", nil, 409)
	if e["code"] != "in_use" || e["object"] != "node n2" {
		t.Errorf("drain with nowhere to go: %v", e)
	}
	if e := one.call("POST", "/vdisks", map[string]any{"name": "x", "vpool": "gold", "size": 1 << 20}, 409); e["object"] != "node n1" {
		t.Errorf("a new vDisk on a node that is drained: %v", e)
	}
	one.call("DELETE", "/nodes/n1/drain", nil, 204)
	one.tells(event.VDiskHandedOver, event.NodeUndrained)
	two.tells(event.NodeDrained)
	k.more()
	stop()
	k.whole()
	k.s.Close()
}

// TestClusterCutOff: a node that does not reach the registry stops answering before others
// may take over, and goes on when it reaches it again and nobody did. What only its journal
// has is not taken over by itself; stolen with the loss accepted, the vDisk is served without
// it, and the old node, back, serves nothing of it and gives up its journal.
func TestClusterCutOff(t *testing.T) {
	t.Parallel()
	c := newMembers(t, 2)
	one, two := c.nodes[0], c.nodes[1]
	id := one.disk("a", "gold", 1<<30)
	k := &checker{t: t, c: c, vdisk: id}
	stop := k.start()
	k.more()
	waits := fault{code: "vdisk_suspended", object: "vdisk a", remedy: "bring the registry"}
	missed := fault{code: "vdisk_waiting", object: "vdisk a", remedy: "ovgate vdisk steal a"}
	if one.watched().cause(waits) != nil || two.watched().cause(missed) != nil {
		t.Fatal("told before")
	}
	c.wires[0].Cut()
	one.until("it waits", func() bool { return one.diskState(id) == "suspended" })
	at := k.writes.Load()
	two.until("it is missed", func() bool { return two.diskState(id) == "waiting" })
	one.watched().told(waits)
	two.watched().told(missed)
	if e := two.call("POST", "/vdisks/a/steal", map[string]any{}, 409); e["code"] != "lost_tail" || !strings.Contains(e["hint"].(string), "--accept-loss") {
		t.Errorf("stolen without a word: %v", e)
	}
	if now := k.writes.Load(); now != at {
		t.Errorf("%d writes were acknowledged without the lease", now-at)
	}
	c.wires[0].Heal()
	one.until("it goes on", func() bool { return one.diskState(id) == "running" })
	k.more()
	one.watched().gone(waits)
	two.watched().gone(missed)
	if e := two.call("POST", "/vdisks/a/steal", map[string]any{"acceptLoss": true}, 409); e["code"] != "in_use" || !strings.Contains(e["message"].(string), "n1") {
		t.Errorf("stolen from a node that is up: %v", e)
	}
	// What is acknowledged now is not committed when the node is lost.
	one.call("POST", "/vdisks/a/commit", nil, 200)
	k.more()
	c.wires[0].Cut()
	one.until("it waits", func() bool { return one.diskState(id) == "suspended" })
	stop()
	one.tells(event.LeaseLost, event.LeaseBack)
	old := k.s
	two.until("it is missed", func() bool { return two.diskState(id) == "waiting" })
	two.call("POST", "/vdisks/a/steal", map[string]any{"acceptLoss": true}, 200)
	if s := two.diskState(id); s != "running" {
		t.Fatalf("stolen, it is %s", s)
	}
	two.tells(event.VDiskStolen)
	k.acked, k.s = [checkedBlocks]uint64{}, nil // lost, with consent
	stop = k.start()
	k.more()
	if old != nil {
		if err := old.ReadAt(t.Context(), 0, make([]byte, 4096), 0); err == nil {
			t.Error("the old owner answers a read")
		}
	}
	c.wires[0].Heal()
	one.until("it gave up", func() bool { return one.diskState(id) == "elsewhere" })
	if old != nil {
		ended(t, old)
	}
	two.call("POST", "/vdisks/a/commit", nil, 200)
	k.more()
	stop()
	k.whole()
	k.s.Close()
}

// TestClusterStop: what a node closed in order is taken over by the others, spread over them.
func TestClusterStop(t *testing.T) {
	t.Parallel()
	c := newMembers(t, 3)
	one := c.nodes[0]
	var ids []string
	for i := range 4 {
		ids = append(ids, one.disk(fmt.Sprint("d", i), "gold", 1<<30))
	}
	k := &checker{t: t, c: c, vdisk: ids[0]}
	stop := k.start()
	k.more()
	c.set(0, nil)
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	two, three := c.nodes[1], c.nodes[2]
	for _, id := range ids {
		two.until("taken over", func() bool { return two.diskState(id) == "running" || three.diskState(id) == "running" })
	}
	for _, n := range []string{"n2", "n3"} {
		two.until("spread", func() bool { return two.call("GET", "/nodes/"+n, nil, 200)["vdisks"] == 2.0 })
	}
	two.tells(event.VDiskTakenOver)
	three.tells(event.VDiskTakenOver)
	one = c.start(0)
	for _, id := range ids {
		if s := one.diskState(id); s != "elsewhere" {
			t.Errorf("back, the node shows %s as %s", id, s)
		}
	}
	stop()
	k.whole()
	k.s.Close()
}
