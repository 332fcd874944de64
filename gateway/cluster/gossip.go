package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"
)

// Times of failure detection. A node that is gone is suspected at its next probe, and dead
// when others confirm it, 1 to 2 s after that; a cluster of hundreds takes a little longer.
const (
	probeInterval = 500 * time.Millisecond
	probeTimeout  = 250 * time.Millisecond
	suspicionMult = 3
	// suspicionMax bounds what Lifeguard adds for a node that nobody else blames.
	suspicionMax = 4
	// pushPull is how often whole states are compared, which heals what packets lost;
	// memberlist makes it rarer in large clusters.
	pushPull = 5 * time.Second
	// What is new goes to gossipNodes others every gossipEvery. A packet holds four or five
	// nodes, so hundreds that come at once take many; without news nothing is sent.
	gossipEvery = 100 * time.Millisecond
	gossipNodes = 3
	// reclaim is when a dead node's id may come back from another address.
	reclaim = 10 * time.Second
	// leaveWait bounds how long others are told of leaving, tellWait of a change.
	leaveWait = 2 * time.Second
	tellWait  = 2 * time.Second
	// deadKept is how long a node that is gone is listed.
	deadKept = time.Hour
	// peersMost bounds what is kept of others: far more than a cluster has.
	peersMost = 10_000
)

// GossipKeySize is the size of the cluster's key, in bytes: AES-256.
const GossipKeySize = 32

// Bounds of what a node tells of itself: together they fit into memberlist's 512 bytes.
const (
	maxName    = 63
	maxVersion = 64
	maxAddress = 128
)

// Load is how busy a node is, in whole percent but for VDisks.
type Load struct {
	VDisks  int `json:"d"` // served
	CPU     int `json:"c"`
	Memory  int `json:"m"`
	Journal int `json:"j"`
}

// Info is what a node tells of itself.
type Info struct {
	Name    string `json:"n"`
	Version string `json:"v"`
	Format  int    `json:"f"` // newest format of records that it knows
	API     string `json:"a"` // host:port
	Load    Load   `json:"l"`
	// Leaving is set by Leave.
	Leaving bool `json:"x,omitempty"`
}

// encode cuts what is too long: a name that is shown is not worth a node that is not heard.
func (i Info) encode(limit int) []byte {
	i.Name, i.Version, i.API = cut(i.Name, maxName), cut(i.Version, maxVersion), cut(i.API, maxAddress)
	b, err := json.Marshal(i)
	if err != nil || len(b) > limit {
		return nil
	}
	return b
}

func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}

// decodeInfo reads what another node told.
func decodeInfo(b []byte) (Info, error) {
	var i Info
	if err := json.Unmarshal(b, &i); err != nil {
		return i, err
	}
	if i.Name == "" || len(i.Name) > maxName || len(i.Version) > maxVersion || len(i.API) > maxAddress || !utf8.ValidString(i.Name+i.Version+i.API) {
		return i, errors.New("name, version or address is empty or too long")
	}
	return i, nil
}

// Liveness is what gossip thinks of a node.
type Liveness string

// Values of Liveness.
const (
	Alive Liveness = "alive"
	Dead  Liveness = "dead" // it does not answer, and others say so too
	Left  Liveness = "left" // it said that it goes
)

// Peer is a node as gossip knows it.
type Peer struct {
	ID       string
	Info     Info
	Address  string // host:port of its gossip
	Liveness Liveness
	Since    time.Time // of Liveness
}

// GossipOptions describe this node's part in the gossip.
type GossipOptions struct {
	Cluster string // UUID of the cluster
	Node    string // UUID of this node
	Key     []byte // GossipKeySize bytes
	// Listen is host:port; Advertise is what others reach, empty: Listen.
	Listen, Advertise string
	Info              Info
	// Changed is told of each node that came, went or told something new; nil: nobody is.
	// It must not block, and not call back.
	Changed func(id string)
	// Turned is told of each other node that is seen with another liveness than before; nil:
	// nobody is. It must not block, and not call back.
	Turned func(id string, now Liveness)
	Log    *slog.Logger // nil: discard
	// Transport takes the place of the network; for tests.
	Transport memberlist.Transport
}

// Gossip is this node's part. Safe for concurrent use.
type Gossip struct {
	o       GossipOptions
	list    *memberlist.Memberlist
	address string

	mu    sync.Mutex
	info  Info
	peers map[string]Peer
	close sync.Once
}

// OpenGossip begins to listen; Join makes others known.
func OpenGossip(o GossipOptions) (*Gossip, error) {
	if len(o.Key) != GossipKeySize || o.Cluster == "" || o.Node == "" {
		return nil, fmt.Errorf("gossip: a key of %d bytes, the ids of cluster and node are needed", GossipKeySize)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func(string) {}
	}
	if o.Turned == nil {
		o.Turned = func(string, Liveness) {}
	}
	g := &Gossip{o: o, info: o.Info, peers: map[string]Peer{}}
	c, err := g.config()
	if err != nil {
		return nil, err
	}
	if g.list, err = memberlist.Create(c); err != nil {
		return nil, fmt.Errorf("gossip on %s: %w: stop what uses the address, or choose another one", o.Listen, err)
	}
	g.address = g.list.LocalNode().Address() // memberlist writes to it while it tells of the node
	return g, nil
}

func (g *Gossip) config() (*memberlist.Config, error) {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label, c.SecretKey = g.o.Node, g.o.Cluster, g.o.Key
	c.ProbeInterval, c.ProbeTimeout = probeInterval, probeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = suspicionMult, suspicionMax
	c.PushPullInterval, c.GossipInterval, c.GossipNodes, c.DeadNodeReclaimTime = pushPull, gossipEvery, gossipNodes, reclaim
	c.EnableCompression = false // LZW takes more processor than its bytes are worth
	c.Delegate, c.Events, c.Alive, c.Conflict = delegate{g}, events{g}, delegate{g}, delegate{g}
	c.Logger = log.New(logWriter{g.o.Log}, "", 0)
	if c.Transport = g.o.Transport; c.Transport != nil {
		return c, nil
	}
	var err error
	if c.BindAddr, c.BindPort, err = hostPort(g.o.Listen); err != nil {
		return nil, err
	}
	c.AdvertiseAddr, c.AdvertisePort = "", c.BindPort
	if g.o.Advertise != "" {
		if c.AdvertiseAddr, c.AdvertisePort, err = hostPort(g.o.Advertise); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func hostPort(address string) (string, int, error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("gossip: address %q is not HOST:PORT: %w", address, err)
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil || net.ParseIP(host) == nil {
		return "", 0, fmt.Errorf("gossip: address %q is not an IP address with a port", address)
	}
	return host, int(port), nil
}

// Join asks nodes for who else there is, and returns how many answered. None is an error,
// which names each that was asked.
func (g *Gossip) Join(ctx context.Context, addresses []string) (int, error) {
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1) // memberlist takes no context; its own times bound it
	go func() {
		n, err := g.list.Join(addresses)
		done <- result{n, err}
	}()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case r := <-done:
		if r.n == 0 && r.err != nil {
			return 0, fmt.Errorf("gossip: nobody answers: %w", r.err)
		}
		return r.n, nil
	}
}

// Address is where others reach this node's gossip.
func (g *Gossip) Address() string { return g.address }

// Tell changes what this node tells of itself.
func (g *Gossip) Tell(i Info) error {
	g.mu.Lock()
	same := g.info == i
	g.info = i
	g.mu.Unlock()
	if same {
		return nil
	}
	return g.list.UpdateNode(tellWait)
}

// Lives tells whether the other nodes hear a node. It does not block.
func (g *Gossip) Lives(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peers[id].Liveness == Alive
}

// Peers returns the nodes that gossip knows, this one too, by id. Those that are gone are
// kept for an hour.
func (g *Gossip) Peers() []Peer {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(time.Now())
	return slices.SortedFunc(maps.Values(g.peers), func(a, b Peer) int { return strings.Compare(a.ID, b.ID) })
}

func (g *Gossip) forgetLocked(now time.Time) {
	maps.DeleteFunc(g.peers, func(_ string, p Peer) bool { return p.Liveness != Alive && now.Sub(p.Since) > deadKept })
}

// Leave tells the others that this node goes, and stops. It is not used after Close.
func (g *Gossip) Leave() error {
	g.mu.Lock()
	i := g.info
	g.mu.Unlock()
	i.Leaving = true // memberlist does not say why a node is gone
	err := errors.Join(g.Tell(i), g.list.Leave(leaveWait))
	return errors.Join(err, g.Close())
}

// Close stops without a word: to the others it looks like a crash.
func (g *Gossip) Close() error {
	var err error
	g.close.Do(func() { err = g.list.Shutdown() })
	return err
}

// delegate answers memberlist.
type delegate struct{ g *Gossip }

func (d delegate) NodeMeta(limit int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.info.encode(limit)
}

// There are no messages but membership.
func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(_, _ int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

// NotifyAlive refuses who tells of itself what this version cannot read.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == d.g.o.Node {
		return nil // before OpenGossip returned there is no meta
	}
	if _, err := decodeInfo(n.Meta); err != nil {
		return fmt.Errorf("node %.64q at %s tells what cannot be read: %w", n.Name, n.Address(), err)
	}
	return nil
}

func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.g.o.Log.Error("two processes have one node's id: stop one of them; a copy of a data directory is no new node",
		"node", existing.Name, "address", existing.Address(), "other", other.Address())
}

// events keeps who is there. memberlist calls it one at a time, holding its lock: its nodes
// may be read only here.
type events struct{ g *Gossip }

func (e events) NotifyJoin(n *memberlist.Node)   { e.is(n, Alive) }
func (e events) NotifyUpdate(n *memberlist.Node) { e.is(n, Alive) }
func (e events) NotifyLeave(n *memberlist.Node)  { e.is(n, Dead) }

func (e events) is(n *memberlist.Node, l Liveness) {
	p := Peer{ID: n.Name, Address: n.Address(), Liveness: l, Since: time.Now()}
	var err error
	if p.Info, err = decodeInfo(n.Meta); err != nil {
		return // NotifyAlive refused it
	}
	if l == Dead && p.Info.Leaving {
		p.Liveness = Left
	}
	e.g.mu.Lock()
	old, known := e.g.peers[p.ID]
	if known && old.Liveness == p.Liveness {
		p.Since = old.Since
	}
	if len(e.g.peers) >= peersMost {
		e.g.forgetLocked(p.Since)
	}
	if known || len(e.g.peers) < peersMost {
		e.g.peers[p.ID] = p
	}
	e.g.mu.Unlock()
	if known && old.Liveness != p.Liveness && p.ID != e.g.o.Node {
		e.g.o.Turned(p.ID, p.Liveness)
	}
	e.g.o.Changed(p.ID)
}

// logWriter hands memberlist's log to slog, one level lower: what it warns of, such as a
// probe without an answer, is what it is for.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	level, text := slog.LevelDebug, strings.TrimSpace(string(p))
	for prefix, l := range map[string]slog.Level{"[ERR] ": slog.LevelWarn, "[WARN] ": slog.LevelInfo, "[INFO] ": slog.LevelDebug, "[DEBUG] ": slog.LevelDebug} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			level, text = l, rest
		}
	}
	if strings.Contains(text, net.ErrClosed.Error()) {
		level = slog.LevelDebug // it was closed meanwhile
	}
	w.log.Log(context.Background(), level, strings.TrimPrefix(text, "memberlist: "))
	return len(p), nil
}
