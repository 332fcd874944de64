package maintenance_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/maintenance"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
)

// sharedTime is how long the nodes of TestShared are at it.
const sharedTime = 4 * time.Second

// sharedNode is a process of its own: client, manager, NSM and agent on a connection of its
// own to the registry.
type sharedNode struct {
	c *client.Client
	a *maintenance.Agent
}

// rounds does all maintenance, again and again: both nodes believe that they lead.
func (n sharedNode) rounds(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		for _, round := range []func(context.Context) error{n.a.Probe, n.a.Reconcile, n.a.Work, n.a.Survey, n.a.Garbage, n.a.Collect, n.a.Rebalance, n.a.Removals, n.a.Sweep} {
			if err := round(ctx); err != nil && ctx.Err() == nil {
				t.Logf("round: %v", err) // of a device that is away
			}
		}
	}
}

// TestShared has two nodes work on one Alba through etcd, both as clients and with all
// maintenance at once, while devices go and come back. What one node acknowledged the other
// reads; of several who may do a thing once, one does; no change is lost; and at last all is
// whole, and nothing is left that no manifest names.
func TestShared(t *testing.T) {
	m := etcdtest.Serve(t)
	cluster := albatest.New(t, albatest.Options{
		Nodes: []int{2, 2, 2}, Store: m.Open(t, "alba/"),
		Preset: preset.Preset{Policies: []preset.Policy{{K: 2, M: 2, C: 3, X: 2}, {K: 1, M: 2, C: 2, X: 1}}},
	})
	cluster.Namespace("ns")
	nodes := []sharedNode{{c: cluster.Client}, {c: cluster.Beside(m.Open(t, "alba/"))}}
	for i := range nodes {
		// No upload takes as long as the grace; what is silent is not given up, as it comes back.
		nodes[i].a = maintenance.New(maintenance.Options{Client: nodes[i].c, Clock: clock.Real{}, AutoRepair: -1, Grace: 300 * time.Millisecond, Rate: 1 << 40})
	}
	ctx, end := context.WithTimeout(t.Context(), sharedTime)
	defer end()
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() { n.rounds(ctx, t) })
	}
	all.Go(func() { // one device at a time is away
		for i := 0; ctx.Err() == nil; i++ {
			dev := cluster.OSD(uint32(i%6 + 1))
			dev.SetDown(true)
			pause(ctx, 150*time.Millisecond)
			dev.SetDown(false)
			pause(ctx, 300*time.Millisecond)
		}
	})
	var counts counters
	for i, n := range nodes {
		all.Go(func() { counts.count(ctx, t, n.c, i) })
		all.Go(func() { churn(ctx, t, n.c, nodes[1-i].c, i) })
	}
	once(ctx, t, nodes)
	<-ctx.Done()
	all.Wait()
	if counts.acked.Load() == 0 {
		t.Fatal("nothing was counted")
	}
	for i, n := range nodes {
		sum := uint64(0)
		for k := range sharedCounters {
			v, _, err := readCounter(t.Context(), n.c, k)
			must(t, err)
			sum += v
		}
		if lo, hi := counts.acked.Load(), counts.acked.Load()+counts.unknown.Load(); sum < lo || sum > hi {
			t.Errorf("node %d counts %d, want %d to %d", i, sum, lo, hi)
		}
	}
	settled(t, cluster, nodes[0])
	t.Logf("%d counted, %d of unknown outcome", counts.acked.Load(), counts.unknown.Load())
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// settled does the maintenance that is left, on one node, and compares devices with
// manifests.
func settled(t *testing.T, cluster *albatest.Cluster, n sharedNode) {
	t.Helper()
	ctx := t.Context()
	// Devices that were away are tried again, epochs of interrupted uploads end.
	deadline := time.Now().Add(2 * time.Minute)
	for {
		var err error
		for _, round := range []func(context.Context) error{n.c.Refresh, n.a.Probe, n.a.Reconcile, n.a.Work, n.a.Survey, n.a.Garbage, n.a.Collect} {
			err = errors.Join(err, round(ctx))
		}
		s := n.a.Safety()
		extra := unnamed(t, cluster)
		if err == nil && s.Repair == 0 && s.Worse == 0 && s.Tolerates[2] == s.Objects && extra == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not whole: %v, %+v, %d fragments that no manifest names", err, s, extra)
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// unnamed counts the fragments on the devices beyond those that manifests name.
func unnamed(t *testing.T, cluster *albatest.Cluster) int {
	t.Helper()
	named, there := 0, 0
	ns, err := cluster.Manager.Namespace(t.Context(), "ns")
	must(t, err)
	for after := ""; ; {
		page, more, err := cluster.NSM.List(t.Context(), ns.ID, "", after, 0)
		must(t, err)
		for _, m := range page {
			after = m.Name
			for _, chunk := range m.Fragments {
				for _, f := range chunk {
					if f.OSD != 0 {
						named++
					}
				}
			}
		}
		if !more {
			break
		}
	}
	for _, number := range cluster.Numbers("") {
		for after := []byte(nil); ; {
			page, err := cluster.OSD(number).List(t.Context(), layout.FragmentsPrefix(ns.ID), after, 0, osd.High)
			must(t, err)
			if len(page) == 0 {
				break
			}
			there += len(page)
			after = page[len(page)-1].Key
		}
	}
	return there - named
}

const sharedCounters = 3

// counters count through sequences that assert what they read.
type counters struct{ acked, unknown atomic.Uint64 }

func counterName(k int) string { return fmt.Sprintf("counter%d", k) }

func readCounter(ctx context.Context, c *client.Client, k int) (uint64, *client.Info, error) {
	info, err := c.Stat(ctx, "ns", counterName(k))
	if errors.Is(err, client.ErrNotExist) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	b, err := c.Get(ctx, "ns", counterName(k), 1<<20)
	if err != nil {
		return 0, nil, err
	}
	return binary.BigEndian.Uint64(b), &info, nil
}

func (s *counters) count(ctx context.Context, t *testing.T, c *client.Client, node int) {
	for i := uint64(1); ctx.Err() == nil; i++ {
		k := int(i % sharedCounters)
		was, info, err := readCounter(ctx, c, k)
		if err != nil {
			continue // its devices are away, or another object is there by now
		}
		name := counterName(k)
		as := client.Assert{Name: name, Absent: true}
		if info != nil {
			as = client.Assert{Name: name, Object: &info.Object}
		}
		b := binary.BigEndian.AppendUint64(nil, was+1)
		b = append(binary.BigEndian.AppendUint64(b, uint64(node)), content(i, 3000)...)
		err = c.Apply(ctx, "ns", []client.Assert{as}, []client.Change{{Name: name, Data: b}})
		switch {
		case err == nil:
			s.acked.Add(1)
		case errors.Is(err, client.ErrAssert), errors.Is(err, client.ErrNoPolicy):
		default:
			s.unknown.Add(1)
		}
	}
}

// churn overwrites and deletes names that the other node does too, and reads what that one
// wrote.
func churn(ctx context.Context, t *testing.T, c, other *client.Client, node int) {
	for i := uint64(0); ctx.Err() == nil; i++ {
		name := fmt.Sprintf("hot%d", i%5)
		if i%4 == 3 {
			_ = c.Delete(ctx, "ns", name) // of unknown outcome, as any
		} else {
			b := content(i, 2000+int(i%7)*9000)
			copy(b, name)
			_ = c.Put(ctx, "ns", name, b)
		}
		got, err := other.Get(ctx, "ns", name, 1<<20)
		if err == nil && !bytes.HasPrefix(got, []byte(name)) {
			t.Errorf("%s holds another object", name)
		}
		// One of a single writer is there for the other node as soon as it is acknowledged.
		own := fmt.Sprintf("own%d-%d", node, i%20)
		b := content(i, 5000)
		binary.BigEndian.PutUint64(b, i)
		if c.Put(ctx, "ns", own, b) != nil {
			continue
		}
		if info, err := other.Stat(ctx, "ns", own); err == nil && info.CRC != osd.CRC(b) {
			t.Errorf("%s: the other node sees an older object", own)
		} else if errors.Is(err, client.ErrNotExist) {
			t.Errorf("%s: the other node does not see it", own)
		}
	}
}

// once has both nodes put the same names where there are none.
func once(ctx context.Context, t *testing.T, nodes []sharedNode) {
	t.Helper()
	for i := 0; ctx.Err() == nil; i++ {
		name := fmt.Sprintf("once%d", i)
		var errs [2]error
		var wg sync.WaitGroup
		for k, n := range nodes {
			wg.Go(func() { errs[k] = n.c.PutIfAbsent(ctx, "ns", name, content(uint64(k), 4000+k)) })
		}
		wg.Wait()
		won := -1
		for k, err := range errs {
			switch {
			case err == nil && won >= 0:
				t.Errorf("%s: both nodes were first", name)
			case err == nil:
				won = k
			case !errors.Is(err, client.ErrExists):
				won = -2 // of unknown outcome
			}
		}
		if won < 0 {
			continue
		}
		for k, n := range nodes {
			if info, err := n.c.Stat(ctx, "ns", name); err == nil && info.Size != int64(4000+won) {
				t.Errorf("%s: node %d sees the other one's", name, k)
			}
		}
	}
}
