package cluster

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds waits; a test that needs all of it has failed.
const patience = 3 * time.Minute

var testKey = bytes.Repeat([]byte{7}, GossipKeySize)

// member is a node of a test, with a bell that rings when what it knows changed.
type member struct {
	*Gossip
	id     string
	bell   chan struct{}
	turned sync.Map // id and liveness that it turned to
}

func open(t testing.TB, o GossipOptions) *member {
	t.Helper()
	m := &member{id: o.Node, bell: make(chan struct{}, 1)}
	o.Turned = func(id string, now Liveness) { m.turned.Store(id+" "+string(now), true) }
	o.Changed = func(string) {
		select {
		case m.bell <- struct{}{}:
		default:
		}
	}
	if o.Cluster == "" {
		o.Cluster = "c"
	}
	if o.Key == nil {
		o.Key = testKey
	}
	if o.Info.Name == "" {
		o.Info = Info{Name: "name-" + o.Node, Version: "v1", Format: 8, API: "10.0.0.1:8443"}
	}
	var err error
	if m.Gossip, err = OpenGossip(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// see waits until a member sees what is asked, and returns how long that took.
func (m *member) see(t testing.TB, what string, ok func(map[string]Peer) bool) time.Duration {
	t.Helper()
	begin, end := time.Now(), time.After(patience)
	for {
		peers := map[string]Peer{}
		for _, p := range m.Peers() {
			peers[p.ID] = p
		}
		if ok(peers) {
			return time.Since(begin)
		}
		select {
		case <-m.bell:
		case <-end:
			count := map[Liveness]int{}
			for _, p := range m.Peers() {
				count[p.Liveness]++
			}
			t.Fatalf("%s never saw %s, but %v", m.id, what, count)
		}
	}
}

// alives tells whether n nodes are alive.
func alives(n int) func(map[string]Peer) bool {
	return func(peers map[string]Peer) bool {
		count := 0
		for _, p := range peers {
			if p.Liveness == Alive {
				count++
			}
		}
		return count == n
	}
}

func is(id string, l Liveness) func(map[string]Peer) bool {
	return func(peers map[string]Peer) bool { return peers[id].Liveness == l }
}

func join(t testing.TB, m *member, addresses ...string) {
	t.Helper()
	if n, err := m.Join(context.Background(), addresses); err != nil || n == 0 {
		t.Errorf("%s joins %v: %d, %v", m.id, addresses, n, err)
	}
}

// TestGossip: on real sockets, three nodes find each other through one, hear what each
// tells, tell a crash from a leave, and know one that comes back.
func TestGossip(t *testing.T) {
	var all []*member
	for i := range 3 {
		all = append(all, open(t, GossipOptions{Node: fmt.Sprint("n", i), Listen: "127.0.0.1:0"}))
	}
	join(t, all[1], all[0].Address())
	join(t, all[2], all[1].Address())
	for _, m := range all {
		m.see(t, "three", alives(3))
	}
	busy := Info{Name: "name-n2", Version: "v2", Format: 9, API: "[fd00::2]:8443", Load: Load{VDisks: 12, CPU: 34, Memory: 56, Journal: 78}}
	if err := all[2].Tell(busy); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		m.see(t, "what n2 tells", func(p map[string]Peer) bool { return p["n2"].Info == busy })
	}
	if err := all[2].Close(); err != nil {
		t.Fatal(err)
	}
	took := all[0].see(t, "n2 dead", is("n2", Dead))
	all[1].see(t, "n2 dead", is("n2", Dead))
	t.Logf("a crash is seen after %v", took)
	back := open(t, GossipOptions{Node: "n2", Listen: "127.0.0.1:0"})
	// Its id is taken by the dead one's address for a while.
	end := time.Now().Add(patience)
	for {
		join(t, back, all[0].Address())
		found := false
		for _, p := range all[0].Peers() {
			found = found || p.ID == "n2" && p.Liveness == Alive
		}
		if found {
			break
		}
		if time.Now().After(end) {
			t.Fatal("n2 is not taken back")
		}
		select {
		case <-all[0].bell:
		case <-time.After(pushPull / 10):
		}
	}
	if err := back.Leave(); err != nil {
		t.Fatal(err)
	}
	all[0].see(t, "n2 left", is("n2", Left))
	for _, l := range []Liveness{Dead, Alive, Left} {
		all[0].see(t, "that it was told of n2 "+string(l), func(map[string]Peer) bool { _, ok := all[0].turned.Load("n2 " + string(l)); return ok })
	}
}

// TestGossipRefused: who has another key, another cluster's id, or tells nonsense is not heard.
func TestGossipRefused(t *testing.T) {
	a := open(t, GossipOptions{Node: "a", Listen: "127.0.0.1:0"})
	for name, o := range map[string]GossipOptions{
		"another key":     {Node: "b", Key: bytes.Repeat([]byte{8}, GossipKeySize)},
		"another cluster": {Node: "b", Cluster: "d"},
	} {
		o.Listen = "127.0.0.1:0"
		b := open(t, o)
		if n, err := b.Join(t.Context(), []string{a.Address()}); err == nil {
			t.Errorf("%s: joined %d", name, n)
		}
		if peers := a.Peers(); len(peers) != 1 {
			t.Errorf("%s: %v", name, peers)
		}
	}
	for name, o := range map[string]GossipOptions{
		"a short key":     {Cluster: "c", Node: "n", Key: []byte("x"), Listen: "127.0.0.1:0"},
		"no cluster":      {Node: "n", Key: testKey, Listen: "127.0.0.1:0"},
		"a name, no IP":   {Cluster: "c", Node: "n", Key: testKey, Listen: "localhost:0"},
		"no port":         {Cluster: "c", Node: "n", Key: testKey, Listen: "127.0.0.1"},
		"port 70000":      {Cluster: "c", Node: "n", Key: testKey, Listen: "127.0.0.1:70000"},
		"address in use":  {Cluster: "c", Node: "n", Key: testKey, Listen: a.Address()},
		"advertised name": {Cluster: "c", Node: "n", Key: testKey, Listen: "127.0.0.1:0", Advertise: "x:1"},
	} {
		if g, err := OpenGossip(o); err == nil {
			t.Errorf("%s: opened; %v", name, g.Close())
		}
	}
}

// FuzzInfo: what a node tells is read or refused, and what is read fits again.
func FuzzInfo(f *testing.F) {
	f.Add([]byte(`{"n":"a","v":"v1","f":8,"a":"10.0.0.1:8443","l":{"d":1,"c":2,"m":3,"j":4}}`))
	f.Add([]byte(`{"n":""}`))
	f.Add([]byte("{\"n\":\"\xff\"}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := decodeInfo(b)
		if err != nil {
			return
		}
		again, err := decodeInfo(i.encode(1 << 20))
		if err != nil || again != i {
			t.Fatalf("%+v became %+v, %v", i, again, err)
		}
	})
}

// TestInfoFits: the longest that a node may tell fits, and what is longer is cut.
func TestInfoFits(t *testing.T) {
	long := strings.Repeat("ä", 300)
	i := Info{Name: long, Version: long, Format: 1 << 30, API: long, Load: Load{1 << 30, 100, 100, 100}, Leaving: true}
	b := i.encode(512)
	if got, err := decodeInfo(b); err != nil || got.Load != i.Load || len(got.Name) < maxName-1 {
		t.Fatalf("%d bytes: %+v, %v", len(b), got, err)
	}
}

// nodes is how many TestConvergence has: 200 of them in one process need a machine that does
// nothing else.
var nodes = flag.Int("nodes", 30, "members of TestConvergence")

// TestConvergence: nodes in memory, each of which knows one other, with 2 % of the packets
// lost, all know all; a node that is cut off is dead to them, and is back when it is
// connected again.
func TestConvergence(t *testing.T) {
	nodes := *nodes
	sim := newSimNet()
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(1, 2))
	sim.lose = func() bool {
		mu.Lock()
		defer mu.Unlock()
		return rnd.IntN(50) == 0
	}
	var all []*member
	for i := range nodes {
		all = append(all, open(t, GossipOptions{Node: fmt.Sprintf("n%03d", i), Transport: sim.transport()}))
	}
	begin := time.Now()
	var wg sync.WaitGroup
	for i := 1; i < nodes; i++ {
		wg.Go(func() { join(t, all[i], all[before(i)].Address()) })
	}
	wg.Wait()
	for _, m := range all {
		m.see(t, "all", alives(nodes))
	}
	t.Logf("%d nodes know each other after %v", nodes, time.Since(begin))
	victim := all[nodes/2]
	begin = time.Now()
	sim.isolate(victim.Address(), true)
	for _, m := range all {
		if m != victim {
			m.see(t, "the victim dead", is(victim.id, Dead))
		}
	}
	t.Logf("one that is cut off is dead to all after %v", time.Since(begin))
	begin = time.Now()
	sim.isolate(victim.Address(), false)
	join(t, victim, all[0].Address())
	for _, m := range all {
		m.see(t, "the victim alive", is(victim.id, Alive))
	}
	t.Logf("and alive again after %v", time.Since(begin))
}

// before is a node before i, so that all are connected.
func before(i int) int { return (i - 1) / 2 }
