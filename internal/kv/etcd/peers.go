package etcd

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/openvstorage/ovgate/internal/kv"
)

// Each member has a connection of its own, so that it is known which one does not answer. A
// member that stands still, or whose packets are lost, keeps its connection open: the kernel
// goes on without it, and gRPC's keep-alive asks every ten seconds at most. So every member is
// asked at probeEvery for its health, which it says without the others, and when it does not
// say it within silence the connection is given up: what was asked over it is asked elsewhere
// (ask, Txn, watch). It stays open for lastWait, for answers of a member that is just busy, and
// is used again once that says that it is well. While no other member answers, it is given up
// after silenceAlone only: nothing is gained by that, but that a new connection may come through
// where the old one does not.
const (
	probeEvery = time.Second
	// silence is far above what a busy member takes, and leaves time to ask another one before
	// the users of a store lose patience.
	silence      = 1500 * time.Millisecond
	silenceAlone = 5 * time.Second
	lastWait     = 2 * time.Second
	// dialWait bounds one attempt to connect, dialPause is before the next one.
	dialWait  = 3 * time.Second
	dialPause = 500 * time.Millisecond
)

// peer is a member as this store reaches it.
type peer struct {
	endpoint string
	stop     context.CancelFunc
	conn     atomic.Pointer[conn]  // nil: it does not answer
	why      atomic.Pointer[error] // why it does not; nil: not known
}

// conn is a connection to a member.
type conn struct {
	*clientv3.Client
	peer *peer
	gone chan struct{} // closed when it is given up
}

func (c *conn) isGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// peers are the members that a store asks.
type peers struct {
	o       Options
	ctx     context.Context // of all connections
	mu      sync.Mutex
	all     []*peer
	next    int
	changed chan struct{} // closed and made anew when a member answers, or refuses
	wg      sync.WaitGroup
}

// set replaces the members that are asked.
func (p *peers) set(endpoints []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil { // closed
		return
	}
	was := p.all
	p.all = nil
	for _, e := range endpoints {
		if i := slices.IndexFunc(was, func(have *peer) bool { return have.endpoint == e }); i >= 0 {
			p.all = append(p.all, was[i])
			was = slices.Delete(slices.Clone(was), i, i+1)
			continue
		}
		ctx, cancel := context.WithCancel(p.ctx)
		m := &peer{endpoint: e, stop: cancel}
		p.all = append(p.all, m)
		p.wg.Go(func() { p.run(ctx, m) })
	}
	for _, m := range was {
		m.stop()
	}
}

func (p *peers) endpoints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]string, len(p.all))
	for i, m := range p.all {
		out[i] = m.endpoint
	}
	return out
}

// tell wakes who waits for a member.
func (p *peers) tell() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// pick returns a connection, of another member than these if there is one: of each in turn. It
// waits until there is one, or for ctx.
func (p *peers) pick(ctx context.Context, not ...*peer) (*conn, error) {
	for {
		c, changed, err := p.choose(not)
		if c != nil || err != nil {
			return c, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-p.ctx.Done():
			return nil, kv.ErrClosed
		}
	}
}

// choose is pick without waiting: nil and what tells that it may be another one now, or why no
// member ever answers.
func (p *peers) choose(not []*peer) (*conn, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found *conn
	var refused error
	at := 0
	for i := range p.all {
		m := p.all[(p.next+i)%len(p.all)]
		c := m.conn.Load()
		if c == nil {
			if why := m.why.Load(); why != nil && final(*why) {
				refused = *why // for ever, such as a wrong password
			}
			continue
		}
		other := !slices.Contains(not, m)
		if found == nil || other {
			found, at = c, i
		}
		if other {
			break
		}
	}
	if found != nil {
		p.next = (p.next + at + 1) % len(p.all)
		return found, nil, nil
	}
	return nil, p.changed, refused
}

// at returns the connection to a member; nil: there is none.
func (p *peers) at(endpoint string) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.all {
		if m.endpoint == endpoint {
			return m.conn.Load()
		}
	}
	return nil
}

// run keeps the connection to a member until ctx ends.
func (p *peers) run(ctx context.Context, m *peer) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		p.follow(ctx, m)
		timer.Reset(dialPause)
	}
}

// follow connects to a member, and returns when it was given up.
func (p *peers) follow(ctx context.Context, m *peer) {
	cl, err := p.dial(ctx, m.endpoint)
	if err == nil {
		if err = probe(ctx, cl, dialWait); err != nil {
			_ = cl.Close()
		}
	}
	if err != nil {
		m.why.Store(&err)
		p.tell()
		return
	}
	c := &conn{Client: cl, peer: m, gone: make(chan struct{})}
	m.conn.Store(c)
	p.tell()
	err = p.watch(ctx, m, cl)
	m.why.Store(&err)
	m.conn.Store(nil)
	close(c.gone)
	if ctx.Err() == nil && p.o.Log != nil {
		p.o.Log.Warn("a member of etcd does not answer", "member", m.endpoint, "err", err)
	}
	timer := time.NewTimer(lastWait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	_ = cl.Close()
}

// others tells whether another member answers.
func (p *peers) others(m *peer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.all, func(o *peer) bool { return o != m && o.conn.Load() != nil })
}

// watch returns when a member answers no more, or with ctx.
func (p *peers) watch(ctx context.Context, m *peer, cl *clientv3.Client) error {
	again := time.NewTicker(probeEvery)
	defer again.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	broken := make(chan struct{})
	go func() {
		defer close(broken)
		cc := cl.ActiveConnection()
		for s := cc.GetState(); s == connectivity.Ready; s = cc.GetState() {
			if !cc.WaitForStateChange(ctx, s) {
				return
			}
		}
	}()
	defer func() {
		cancel()
		<-broken
	}()
	alone := time.NewTimer(silenceAlone) // stopped while it answers
	alone.Stop()
	defer alone.Stop()
	quiet := false
	var err error
	for {
		select {
		case <-again.C:
			if err = probe(ctx, cl, silence); err == nil {
				alone.Stop()
				quiet = false
				continue
			}
			if p.others(m) || ctx.Err() != nil {
				return err
			}
			if !quiet {
				quiet = true
				alone.Reset(silenceAlone - silence)
			}
		case <-alone.C:
			return err
		case <-broken:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return errors.New("the connection broke")
		}
	}
}

// why says what is known of the members that do not answer.
func (p *peers) why() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, m := range p.all {
		if why := m.why.Load(); why != nil && m.conn.Load() == nil {
			all = append(all, m.endpoint+": "+(*why).Error())
		}
	}
	if len(all) == 0 {
		return nil
	}
	return errors.New(strings.Join(all, "; "))
}

// probe asks a member whether it is well. That it does not know the question is an answer too.
func probe(ctx context.Context, cl *clientv3.Client, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	is, err := grpc_health_v1.NewHealthClient(cl.ActiveConnection()).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return err
	}
	if is.GetStatus() == grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		return errors.New("it says that it serves nothing")
	}
	return nil
}

// dial connects to a member.
func (p *peers) dial(ctx context.Context, endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, TLS: p.o.TLS, Username: p.o.User, Password: p.o.Password,
		DialTimeout: dialWait, MaxUnaryRetries: 2, // the second is for a token that ended; ask does the others
		MaxCallSendMsgSize: 2 * kv.MaxTxnBytes, MaxCallRecvMsgSize: math.MaxInt32, // a Range is as large as its limit lets it
		Logger: zap.New(logCore{p.o.Log}), Context: ctx,
	})
}

// code is the gRPC code of what a call of the client returned.
func code(err error) codes.Code {
	var e rpctypes.EtcdError
	switch {
	case err == nil:
		return codes.OK
	case errors.As(err, &e):
		return e.Code()
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return status.Code(err)
}

// final tells whether an error is an answer, which another member would give too: nothing was
// done.
func final(err error) bool {
	if errors.Is(rpctypes.Error(err), rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner)) {
		return false // a member that counts answers
	}
	switch code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal, codes.Aborted, codes.DataLoss:
		return false
	}
	return true
}

// close ends all connections.
func (p *peers) close(cancel context.CancelFunc) {
	cancel()
	p.set(nil) // one that is at it is waited for; another one starts nothing
	p.wg.Wait()
}
