package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

const (
	// LeaseTTL is a node's lease unless it is told otherwise: others find out within three
	// seconds that it is gone. An election of etcd lengthens what its members know of, so
	// that a node whose lease ended by its own count in the meantime has it still.
	LeaseTTL = 2 * time.Second
	// LeaseMost is the longest one. A shorter one than LeaseTTL an etcd with its usual time
	// of an election does not give.
	LeaseMost = 5 * time.Second
	// TakeoverWait is what passes between the end of a node's key and a takeover from it,
	// whatever its lease was (L4).
	TakeoverWait = LeaseMost / 10
)

const (
	// renewals is how often a lease is renewed within its time to live.
	renewals = 5
	// hedges is how many times at most one request of a renewal is on its way at once: the
	// member of etcd that has it may be gone, and the next one goes to another.
	hedges = 4
)

// leaseFormat is the newest format of a key that this code knows.
const leaseFormat = 1

const alivePrefix = "cluster/alive/"

// ErrTwice: another process runs with this node's id (L3).
var ErrTwice = errors.New("another process took this node's id: it runs twice, perhaps from a copy of its data directory")

type alive struct {
	Format int    `json:"format"`
	Boot   string `json:"boot"` // random, of the process
}

// aliveMost is how many nodes Living reads.
const aliveMost = 10_000

// Living returns the ids of the nodes that have their lease. One that is missing serves
// nothing by it.
func Living(ctx context.Context, store kv.Store) (map[string]bool, error) {
	found, _, err := store.Range(ctx, alivePrefix, "", aliveMost)
	if err != nil {
		return nil, fmt.Errorf("read the leases of the nodes: %w", err)
	}
	out := map[string]bool{}
	for _, e := range found {
		out[strings.TrimPrefix(string(e.Key), alivePrefix)] = true
	}
	return out, nil
}

// Gone holds while a node has no lease: for a transaction that takes something over from it.
func Gone(node string) kv.Compare { return kv.Absent(alivePrefix + node) }

// LeaseOptions describe a node's lease.
type LeaseOptions struct {
	Store kv.Store
	Node  string        // UUID
	TTL   time.Duration // 0: LeaseTTL
	Clock clock.Clock   // nil: the machine's; its times have a monotonic reading
	Log   *slog.Logger  // nil: discard
}

// Lease is a node's lease in the registry. Safe for concurrent use.
type Lease struct {
	o    LeaseOptions
	key  string
	self []byte // value of the key
	end  context.CancelFunc
	done chan struct{}

	mu    sync.Mutex
	id    kv.LeaseID
	until time.Time // L2
	term  uint64    // L7
	twice bool
	moved chan struct{} // closed, and replaced, when until or twice changes
}

// OpenLease takes the node's lease and keeps it until Close. It returns when it has it, or
// with ctx. A key that an earlier process of the node left is taken over (L3).
func OpenLease(ctx context.Context, o LeaseOptions) (*Lease, error) {
	if o.TTL == 0 {
		o.TTL = LeaseTTL
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	self, err := json.Marshal(alive{leaseFormat, rand.Text()})
	if err != nil {
		return nil, err
	}
	l := &Lease{o: o, key: alivePrefix + o.Node, self: self, done: make(chan struct{}), moved: make(chan struct{})}
	if err := l.take(ctx, nil); err != nil {
		return nil, fmt.Errorf("lease of node %s: %w", o.Node, err)
	}
	run, end := context.WithCancel(context.Background())
	l.end = end
	go l.run(run)
	return l, nil
}

// Until is until when the node may serve by its lease; it may be past. Compare it with the
// clock again before each answer.
func (l *Lease) Until() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until
}

// State is Until with the term that it is of (L7).
func (l *Lease) State() (until time.Time, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until, l.term
}

// Valid tells whether the node may serve by its lease now.
func (l *Lease) Valid() bool { return l.o.Clock.Now().Before(l.Until()) }

// Twice tells whether the node runs twice: this process never has the lease again.
func (l *Lease) Twice() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.twice
}

// Moved returns a channel that is closed when Until or Twice changes.
func (l *Lease) Moved() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.moved
}

// Close gives the lease back, so that others need not wait for its end. Nothing is served
// by it from the call on.
func (l *Lease) Close(ctx context.Context) error {
	l.end()
	<-l.done
	l.set(time.Time{}, false)
	l.mu.Lock()
	id := l.id
	l.mu.Unlock()
	if err := l.o.Store.Revoke(ctx, id); err != nil && !errors.Is(err, kv.ErrLeaseNotFound) {
		return fmt.Errorf("give back the lease of node %s: %w", l.o.Node, err)
	}
	return nil
}

func (l *Lease) set(until time.Time, twice bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until, l.twice = until, twice || l.twice
	close(l.moved)
	l.moved = make(chan struct{})
}

// take stores the key under a new lease. An own one without its lease (mine) is replaced;
// a key of another process only at the start (nil).
func (l *Lease) take(ctx context.Context, mine *kv.KV) error {
	asked := l.o.Clock.Now()
	id, err := l.o.Store.Grant(ctx, l.o.TTL)
	if err != nil {
		return err
	}
	var cmps []kv.Compare
	if mine != nil {
		cmps = []kv.Compare{kv.ModRevIs(l.key, mine.ModRev)}
	}
	res, err := l.o.Store.Txn(ctx, cmps, []kv.Op{{Kind: kv.OpPut, Key: []byte(l.key), Value: l.self, Lease: id}}, nil)
	if err != nil || !res.Succeeded {
		// Ended or not, nobody renews it; when the outcome is unknown the next round reads it.
		return errors.Join(err, l.o.Store.Revoke(ctx, id))
	}
	l.mu.Lock()
	l.id = id
	l.term++
	l.mu.Unlock()
	l.set(asked.Add(l.o.TTL), false)
	return nil
}

func (l *Lease) run(ctx context.Context) {
	defer close(l.done)
	every := l.o.TTL / renewals
	timer := l.o.Clock.NewTimer(every)
	defer timer.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		}
		// A request that gets no answer is not waited for beyond what it could give.
		one, cancel := context.WithTimeout(ctx, l.o.TTL)
		err := l.renew(one)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrTwice):
			l.o.Log.Error("the node's lease is another process's: it serves nothing any more", "node", l.o.Node, "err", err)
			l.set(time.Time{}, true)
			return
		case err != nil && !failing:
			l.o.Log.Warn("the node's lease is not renewed", "node", l.o.Node, "until", l.Until(), "err", err)
		case err == nil && failing:
			l.o.Log.Info("the node's lease is renewed again", "node", l.o.Node)
		}
		failing = err != nil
		timer.Reset(every)
	}
}

// renew extends the lease, or takes a new one when it ended. The key is read too: a renewed
// lease without it says nothing to the others.
func (l *Lease) renew(ctx context.Context) error {
	l.mu.Lock()
	id := l.id
	l.mu.Unlock()
	asked, renewed := hedge(ctx, l, func(ctx context.Context) (time.Time, error) {
		asked := l.o.Clock.Now()
		return asked, l.o.Store.KeepAlive(ctx, id)
	})
	if renewed != nil && !errors.Is(renewed, kv.ErrLeaseNotFound) {
		return renewed
	}
	now, err := hedge(ctx, l, func(ctx context.Context) (*kv.KV, error) { return l.o.Store.Get(ctx, l.key) })
	switch {
	case err != nil:
		return err
	case now == nil:
		return l.retake(ctx, &kv.KV{})
	case string(now.Value) != string(l.self):
		return ErrTwice
	case renewed != nil || now.Lease != id:
		return l.retake(ctx, now)
	}
	l.set(asked.Add(l.o.TTL), false)
	return nil
}

// retake takes a new lease in place of one that ended.
func (l *Lease) retake(ctx context.Context, now *kv.KV) error {
	l.o.Log.Warn("the node's lease had ended; it takes a new one", "node", l.o.Node)
	return l.take(ctx, now)
}

// hedge sends a request, sends it once more whenever it was not answered for a part of the
// lease's time, and returns the first answer; an answer is also that there is no lease. What
// is on its way then is given up.
func hedge[T any](ctx context.Context, l *Lease, send func(context.Context) (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, hedges)
	sent, failed := 0, 0
	more := func() {
		sent++
		go func() {
			v, err := send(ctx)
			answers <- answer{v, err}
		}()
	}
	more()
	t := l.o.Clock.NewTimer(l.o.TTL / (2 * hedges))
	defer t.Stop()
	for {
		select {
		case a := <-answers:
			if a.err == nil || errors.Is(a.err, kv.ErrLeaseNotFound) {
				return a.v, a.err
			}
			if failed++; failed == sent { // the caller comes back in a while
				return a.v, a.err
			}
		case <-t.C():
			if sent < hedges {
				more()
				t.Reset(l.o.TTL / (2 * hedges))
			}
		}
	}
}

// followPause is between attempts to follow the leases.
const followPause = time.Second

// FollowLiving calls changed, which must not block, when a node took its lease or lost it,
// until ctx ends. It is a hint: of a registry that does not answer it says nothing, so look
// at Living now and then.
func FollowLiving(ctx context.Context, store kv.Store, clk clock.Clock, changed func()) {
	t := clk.NewTimer(followPause)
	defer t.Stop()
	for ctx.Err() == nil {
		_ = follow(ctx, store, changed) // it ends when the registry is away, too
		t.Reset(followPause)
		select {
		case <-ctx.Done():
		case <-t.C():
		}
	}
}

func follow(ctx context.Context, store kv.Store, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, rev, err := store.Range(ctx, alivePrefix, "", 1)
	if err != nil {
		return err
	}
	watch, err := store.Watch(ctx, alivePrefix, rev)
	if err != nil {
		return err
	}
	changed() // what came between the last watch and this one
	for b := range watch {
		if b.Err != nil {
			return b.Err
		}
		changed()
	}
	return nil
}
