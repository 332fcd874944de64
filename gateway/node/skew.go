package node

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/clock"
)

const (
	// skewEvery is how often the other nodes are asked for the time, askTime bounds each
	// answer: a late one says little.
	skewEvery = 30 * time.Second
	askTime   = 5 * time.Second
	// versionMost bounds the answer, in bytes.
	versionMost = 64 << 10
)

// shift moves the time that health goes by; for tests.
type shift struct {
	passed atomic.Int64 // nanoseconds that went by on every clock
	wall   atomic.Int64 // that the wall clock was set forward, beyond that
}

// time returns the time with its monotonic reading, and what the wall clock shows.
func (n *node) time() (now, wall time.Time) {
	now = time.Now()
	if s := n.opt.shift; s != nil {
		now = now.Add(time.Duration(s.passed.Load()))
		return now, now.Round(0).Add(time.Duration(s.wall.Load()))
	}
	return now, now.Round(0)
}

// wall returns what the wall clock shows, without what a test has gone by.
func (n *node) wall() time.Time {
	if s := n.opt.shift; s != nil {
		return time.Now().Round(0).Add(time.Duration(s.wall.Load()))
	}
	return time.Now().Round(0)
}

// shiftedClock is the machine's clock, moved.
type shiftedClock struct {
	clock.Real
	n *node
}

// Now implements clock.Clock.
func (c shiftedClock) Now() time.Time {
	now, _ := c.n.time()
	return now
}

// clock is what the control plane goes by.
func (n *node) clock() clock.Clock {
	if n.opt.shift == nil {
		return clock.Real{}
	}
	return shiftedClock{n: n}
}

// skews are the clocks of other nodes as they were last asked, those that are apart.
type skews struct {
	last atomic.Pointer[map[string]time.Duration]
}

// watchSkew asks the other nodes for the time, until ctx ends.
func (n *node) watchSkew(ctx context.Context) {
	again := time.NewTicker(cmp.Or(n.opt.askRegistry, skewEvery))
	defer again.Stop()
	for {
		if n.clusterIdentity() != nil {
			out := n.askTimes(ctx)
			n.skews.last.Store(&out)
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

func (n *node) askTimes(ctx context.Context) map[string]time.Duration {
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := map[string]time.Duration{}
	for _, peer := range n.model.Nodes() {
		if peer.ID == n.self.ID {
			continue
		}
		wg.Go(func() {
			by, ok := n.askTimeOf(ctx, peer.ID)
			mu.Lock()
			defer mu.Unlock()
			if ok && by.Abs() >= observe.SkewWarn {
				out[peer.Name] = by
			}
		})
	}
	wg.Wait()
	return out
}

// askTimeOf returns by how much the clock of a node is ahead at least, negative when it is
// behind; false: it does not say.
func (n *node) askTimeOf(ctx context.Context, id string) (time.Duration, bool) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	r, err := api.PeerRequest(ctx, http.MethodGet, id, "/version", auth.Principal{Name: "clocks", Rights: auth.Rights{Role: auth.RoleRead}})
	if err != nil {
		return 0, false
	}
	before := n.wall()
	res, err := n.peers.RoundTrip(r)
	if err != nil {
		return 0, false
	}
	after := n.wall()
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, versionMost))
	_ = res.Body.Close()
	at, bad := http.ParseTime(res.Header.Get("Date"))
	if err != nil || bad != nil {
		return 0, false
	}
	return apart(before, after, at), true
}

// apart is by how much a clock is ahead at least that showed at, in whole seconds, between
// two moments of this one.
func apart(before, after, at time.Time) time.Duration {
	if ahead := at.Sub(after); ahead > 0 {
		return ahead
	}
	if behind := before.Sub(at.Add(time.Second)); behind > 0 {
		return -behind
	}
	return 0
}
