// Package faultproxy is an HTTP/1.1 proxy that misbehaves as networks, load balancers
// and object stores do. Tests and drills put it between a client of a store and the
// store, which is a real one: it speaks no protocol of its own, but knows the paths of
// S3 (/BUCKET/OBJECT) and Swift (/v1/ACCOUNT/CONTAINER/OBJECT).
//
//	client -- http --> Proxy -- http or https --> store
//
// # What it does
//
// Each request draws at most one fault among those that concern it:
//
//	Refuse5xx      500, 502, 503 or 504; nothing is forwarded                any request
//	Throttle       429 or 503 with Retry-After: 0 or 1; nothing is forwarded any request
//	Stall          no byte for Options.Stall or until the client leaves,     any request
//	               then a reset: before the request is forwarded, for a GET
//	               in the middle of the body
//	ResetRequest   a reset in the middle of the body, which the store gets   with a body
//	               as far as that
//	ResetResponse  a reset in the middle of the body                         GET
//	Truncate       the connection ends in the middle of the body             GET
//	Flip           one bit of the body is another                            GET of an object
//	StaleList      one of the last answers to the same URL                   GET of a list
//	Duplicate      the store gets it twice, one after the other; the client  PUT, DELETE of
//	               gets either answer                                        an object
//	DuplicateLate  the same, up to Options.Delay after the answer            PUT, DELETE of
//	                                                                         an object
//	LostAnswer     done, but answered with 500 or 503 or with a reset        PUT, DELETE of
//	                                                                         an object
//	FalseSuccess   success without an ETag or with a wrong one; nothing is   PUT of an object
//	               forwarded
//	ExpireToken    401; nothing is forwarded                                 Swift, with a
//	                                                                         token
//	ClockSkew      403 RequestTimeTooSkewed; nothing is forwarded            S3
//
// A client cannot survive a store that lies in full, so FalseSuccess gives a PUT away by
// its ETag, and a DELETE, whose answer has nothing to check, is never lied about. A list
// has no checksum, so Flip leaves it alone.
//
// Beside that it keeps a digest of what was put under each name, and tells which names
// were put twice with other bytes.
//
// # Invariants
//
//	F1  Headers that are of the request and not of the connection reach the store
//	    unchanged, Host and path among them, so that signatures hold.
//	F2  A fault is counted when it happened. What cannot happen, a stale list of a URL
//	    that was not asked for before, is not, and the request passes.
//	F3  Memory is bounded: bodyLimit times bodySlots for duplicates, the constants of
//	    lists.go for lists, namesLimit for digests. A request that finds no room passes
//	    without the fault, and a name that finds none is not watched.
//	F4  After Off no fault begins, and no late duplicate is under way. After Close no
//	    goroutine is left.
package faultproxy

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// Kind is a kind of fault.
type Kind int

// The kinds, see the package comment.
const (
	Refuse5xx Kind = iota
	Throttle
	Stall
	ResetRequest
	ResetResponse
	Truncate
	Flip
	StaleList
	Duplicate
	DuplicateLate
	LostAnswer
	FalseSuccess
	ExpireToken
	ClockSkew
	kinds
)

func (k Kind) String() string {
	return [...]string{"refused", "throttled", "stalled", "reset in request", "reset in response", "truncated", "flipped",
		"stale list", "duplicated", "duplicated late", "answer lost", "false success", "token expired", "clock skew"}[k]
}

// Even returns chances that make up total, 0 to 1, and are the same for all kinds but
// those left out.
func Even(total float64, but ...Kind) map[Kind]float64 {
	c := map[Kind]float64{}
	for k := range kinds {
		c[k] = 0
	}
	for _, k := range but {
		delete(c, k)
	}
	for k := range c {
		c[k] = total / float64(len(c))
	}
	return c
}

// Protocol says what the paths of a store look like.
type Protocol int

// The protocols, see the package comment.
const (
	S3 Protocol = iota
	Swift
)

// Options of a Proxy.
type Options struct {
	Target   string // URL of the store, http://HOST:PORT or https://HOST:PORT
	Protocol Protocol
	// Transport reaches the store, for one with a certificate of its own; nil: plain.
	// The caller closes its idle connections.
	Transport http.RoundTripper
	Chances   map[Kind]float64 // of each request that the kind concerns; 0 to 1 in all; see SetChances
	Rand      *rand.Rand       // not used by others meanwhile
	Clock     clock.Clock      // nil: the machine's
	Delay     time.Duration    // longest delay of DuplicateLate
	Stall     time.Duration    // of Stall
}

// Bounds of what is kept for duplicates (F3): a body of the smallest SCO, and as many
// as a client has under way.
const (
	bodyLimit = 8 << 20
	bodySlots = 8
)

// Bounds of connections with clients.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = time.Minute
	headerBytes   = 64 << 10
)

// lateTimeout bounds a late duplicate, once it is sent.
const lateTimeout = 10 * time.Second

// Proxy is a running proxy. It passes everything on unchanged until On is called.
type Proxy struct {
	o       Options
	target  *url.URL
	own     *http.Transport // nil: Options has one
	server  *http.Server
	address string
	ctx     context.Context // of all requests
	cancel  context.CancelFunc
	served  chan struct{}
	counts  [kinds]atomic.Int64
	asked   atomic.Int64 // requests
	slots   chan struct{}
	lists   lists
	names   names

	randMu sync.Mutex // guards o.Rand and o.Chances

	mu     sync.Mutex
	on     bool
	closed bool
	work   sync.WaitGroup // requests
	late   sync.WaitGroup // late duplicates
}

// New starts a proxy on a free port of the loopback interface.
func New(o Options) (*Proxy, error) {
	target, err := url.Parse(o.Target)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return nil, fmt.Errorf("fault proxy: target %q is not the URL of a store, such as http://127.0.0.1:9000", o.Target)
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	p := &Proxy{o: o, target: target, served: make(chan struct{}), slots: make(chan struct{}, bodySlots)}
	if o.Transport == nil {
		p.own = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64, IdleConnTimeout: idleTimeout}
		p.o.Transport = p.own
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("fault proxy: %w", err)
	}
	p.address = l.Addr().String()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytes,
		BaseContext: func(net.Listener) context.Context { return p.ctx }, ErrorLog: log.New(io.Discard, "", 0)}
	go func() {
		defer close(p.served)
		_ = p.server.Serve(l)
	}()
	return p, nil
}

// URL is where clients reach the store through the proxy.
func (p *Proxy) URL() string { return "http://" + p.address }

// On lets the faults begin.
func (p *Proxy) On() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.on = !p.closed
}

// Off ends the faults and waits for late duplicates (F4). One that a request began
// before goes on.
func (p *Proxy) Off() {
	p.mu.Lock()
	p.on = false
	p.mu.Unlock()
	p.late.Wait()
}

// SetChances replaces Options.Chances for the requests to come.
func (p *Proxy) SetChances(chances map[Kind]float64) {
	p.randMu.Lock()
	defer p.randMu.Unlock()
	p.o.Chances = maps.Clone(chances)
}

// Requests returns how many requests clients made.
func (p *Proxy) Requests() int64 { return p.asked.Load() }

// Count returns how many faults there were of a kind.
func (p *Proxy) Count(k Kind) int64 { return p.counts[k].Load() }

// Counts returns how many faults there were of each kind that can be drawn or was.
func (p *Proxy) Counts() map[Kind]int64 {
	p.randMu.Lock()
	defer p.randMu.Unlock()
	out := map[Kind]int64{}
	for k := range kinds {
		if _, drawn := p.o.Chances[k]; drawn || p.Count(k) > 0 {
			out[k] = p.Count(k)
		}
	}
	return out
}

// Close ends the proxy and what is under way.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.on, p.closed = false, true
	p.mu.Unlock()
	p.cancel()
	err := p.server.Close()
	<-p.served
	p.work.Wait()
	p.late.Wait()
	if p.own != nil {
		p.own.CloseIdleConnections()
	}
	return err
}

// begin counts a request in; false when the proxy is closed.
func (p *Proxy) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.work.Add(1)
		p.asked.Add(1)
	}
	return !p.closed
}

// beginLate counts a late duplicate in; false when the faults are over.
func (p *Proxy) beginLate() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on {
		p.late.Add(1)
	}
	return p.on
}

// draw picks the fault of a request among the kinds that concern it.
func (p *Proxy) draw(among []Kind) (Kind, bool) {
	p.mu.Lock()
	on := p.on
	p.mu.Unlock()
	if !on {
		return 0, false
	}
	p.randMu.Lock()
	defer p.randMu.Unlock()
	x := p.o.Rand.Float64()
	for _, k := range among {
		if x -= p.o.Chances[k]; x < 0 {
			return k, true
		}
	}
	return 0, false
}

// below draws a number below n, which is above 0.
func (p *Proxy) below(n int64) int64 {
	p.randMu.Lock()
	defer p.randMu.Unlock()
	return p.o.Rand.Int64N(n)
}

// happened counts a fault (F2).
func (p *Proxy) happened(k Kind) { p.counts[k].Add(1) }
