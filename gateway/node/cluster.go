package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/event"
)

// clusterConfig says where the node's gossip is, and how soon others may take over from it.
type clusterConfig struct {
	Listen    string        `yaml:"listen"`    // IP:PORT
	Advertise string        `yaml:"advertise"` // IP:PORT as others reach it; empty: Listen
	Lease     time.Duration `yaml:"lease"`     // whole seconds; 0: cluster.LeaseTTL
}

func (c clusterConfig) check() error {
	if c.Lease != 0 && (c.Lease < cluster.LeaseTTL || c.Lease > cluster.LeaseMost || c.Lease%time.Second != 0) {
		return fmt.Errorf("configuration: cluster: lease is %s: use whole seconds, %s to %s", c.Lease, cluster.LeaseTTL, cluster.LeaseMost)
	}
	for key, a := range map[string]string{"listen": c.Listen, "advertise": c.Advertise} {
		if a == "" && key == "advertise" {
			continue
		}
		host, port, err := splitAddress("configuration: cluster: "+key, a)
		if err != nil {
			return err
		}
		if net.ParseIP(host) == nil || port == 0 && key == "advertise" {
			return fmt.Errorf("configuration: cluster: %s is %q: write an IP address with a port, such as 10.0.0.5:7946", key, a)
		}
	}
	return nil
}

// Files of a member in DIR/tls.
const (
	memberCert = "node.pem"
	memberKey  = "node-key.pem"
)

const (
	// tellEvery is how often the node's load is looked at, and nodes that gossip does not
	// hear are looked for.
	tellEvery = 5 * time.Second
	// renewEvery is how often the end of the node's certificate is looked at.
	renewEvery = time.Hour
)

// part is what a node has as a member of a cluster.
type part struct {
	record    cluster.Record
	authority *cluster.Authority
	identity  *cluster.Identity
	key       []byte          // of the gossip
	gossip    *cluster.Gossip // nil until openGossip
}

// membership is the node's part in its cluster, and implements api.Cluster.
type membership struct {
	n  *node
	mu sync.Mutex // one change at a time
	// part is nil while the node is in no cluster.
	part atomic.Pointer[part]
	// began is closed when the gossip runs.
	began chan struct{}
	// leaving: Leave says what follows from the end of the node's record.
	leaving atomic.Bool
	// ended gets why the node is a member no more; nil: it left.
	ended chan error
}

func newMembership(n *node) *membership {
	return &membership{n: n, began: make(chan struct{}), ended: make(chan error, 1)}
}

// open finds out whether the registry is a cluster's, and with which part the node is in it.
func (m *membership) open(r *cluster.Record) error {
	if r == nil {
		return nil
	}
	if _, ok := m.n.model.Node(m.n.self.ID); !ok {
		return m.noMember(r.Name)
	}
	p, err := m.assemble(*r, time.Now())
	if err != nil {
		return err
	}
	m.part.Store(p)
	return nil
}

func (m *membership) noMember(name string) error {
	return fmt.Errorf("node %s is no member of cluster %s: it left, or was removed: join anew with an empty data directory, or bring the registry's copy back", m.n.self.Name, name)
}

// assemble opens the cluster's secrets, and makes the node's certificate when it is missing
// or ends soon.
func (m *membership) assemble(r cluster.Record, now time.Time) (*part, error) {
	p := &part{record: r}
	var err error
	if p.authority, err = r.Authority(m.n.seal); err != nil {
		return nil, err
	}
	if p.key, err = r.Key(m.n.seal); err != nil {
		return nil, err
	}
	certificate, cerr := os.ReadFile(m.n.dir.file(tlsDir, memberCert))
	key, kerr := os.ReadFile(m.n.dir.file(tlsDir, memberKey))
	if cerr == nil && kerr == nil {
		p.identity, err = cluster.NewIdentity(r.ID, m.n.self.ID, certificate, key, p.authority.PEM())
		if err == nil && p.identity.Ends().Sub(now) > renewBefore {
			return p, nil
		}
	}
	if certificate, key, err = m.certify(p, now); err != nil {
		return nil, err
	}
	p.identity, err = cluster.NewIdentity(r.ID, m.n.self.ID, certificate, key, p.authority.PEM())
	return p, err
}

// certify makes a certificate of the node and keeps it.
func (m *membership) certify(p *part, now time.Time) (certificate, key []byte, err error) {
	key, request, err := cluster.NewRequest()
	if err != nil {
		return nil, nil, err
	}
	if certificate, err = p.authority.Sign(request, m.n.self.ID, now); err != nil {
		return nil, nil, err
	}
	return certificate, key, m.n.dir.keepCertificate(certificate, key)
}

// keepCertificate writes a member's certificate and key. Cut off between the two, they do not
// fit, and are made anew.
func (d *dataDir) keepCertificate(certificate, key []byte) error {
	if err := os.MkdirAll(d.file(tlsDir), 0o700); err != nil {
		return unwritable(d.path, err)
	}
	if err := writeFile(d.file(tlsDir, memberKey), key, 0o600); err != nil {
		return unwritable(d.path, err)
	}
	if err := writeFile(d.file(tlsDir, memberCert), certificate, 0o644); err != nil {
		return unwritable(d.path, err)
	}
	return nil
}

// serverCA is who signs the API's certificate: the cluster's authority, which clients trust
// for all nodes, else the node's own.
func (m *membership) serverCA(now time.Time) (authority, error) {
	p := m.part.Load()
	if p == nil {
		return ownCA(m.n.dir, now)
	}
	file := m.n.dir.file(tlsDir, "ca.pem")
	if have, err := os.ReadFile(file); err != nil || string(have) != p.record.CA {
		if err := writeFile(file, []byte(p.record.CA), 0o644); err != nil {
			return authority{}, unwritable(m.n.dir.path, err)
		}
	}
	cert, key := p.authority.Pair()
	return authority{cert, key}, nil
}

// openGossip begins to listen.
func (m *membership) openGossip(p *part) error {
	var err error
	p.gossip, err = cluster.OpenGossip(cluster.GossipOptions{
		Cluster: p.record.ID, Node: m.n.self.ID, Key: p.key, Listen: m.n.cfg.Cluster.Listen, Advertise: m.n.cfg.Cluster.Advertise,
		Info: m.info(cluster.Load{}), Changed: func(id string) { m.n.changed("node", id) }, Turned: m.n.nodeTurned, Log: m.n.log,
	})
	if err != nil {
		return fmt.Errorf("%w, with cluster: {listen: IP:PORT} in the configuration", err)
	}
	return nil
}

// begin starts the gossip of a member, if the node is one.
func (m *membership) begin() error {
	p := m.part.Load()
	if p == nil {
		return nil
	}
	if err := m.openGossip(p); err != nil {
		return err
	}
	close(m.began)
	return nil
}

// close tells the others that this node stops.
func (m *membership) close() error {
	if p := m.part.Load(); p != nil && p.gossip != nil {
		if err := p.gossip.Leave(); err != nil {
			m.n.log.Info("others are not told that the node stops; they find out", "err", err)
		}
	}
	return nil
}

// address is where others reach the node's gossip; empty: it runs none.
func (m *membership) address() string {
	if p := m.part.Load(); p != nil && p.gossip != nil {
		return p.gossip.Address()
	}
	return ""
}

// lives tells whether the other nodes hear one.
func (m *membership) lives(node string) bool {
	p := m.part.Load()
	return p != nil && p.gossip != nil && p.gossip.Lives(node)
}

// info is what the node tells of itself.
func (m *membership) info(l cluster.Load) cluster.Info {
	i := cluster.Info{Name: m.n.self.Name, Version: Version(m.n.opt.Version).Version, Format: model.Format, Load: l}
	if u, err := url.Parse(m.n.reachURL()); err == nil {
		i.API = u.Host
	}
	return i
}

// run tells the node's load, looks for nodes that gossip does not hear, and renews the node's
// certificate, until ctx ends.
func (m *membership) run(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-m.began:
	}
	p := m.part.Load()
	again := time.NewTicker(tellEvery)
	defer again.Stop()
	renewal := time.NewTicker(renewEvery)
	defer renewal.Stop()
	var load loadMeter
	for {
		m.find(ctx, p)
		m.stay(ctx)
		if err := p.gossip.Tell(m.info(load.read(m.n))); err != nil && ctx.Err() == nil {
			m.n.log.Debug("the node's load is not told", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-renewal.C:
			m.renew(p, time.Now())
		case <-again.C:
		}
	}
}

// stay takes back that the node is about to leave, when a removal did not come to its end: it
// runs, and takes vDisks.
func (m *membership) stay(ctx context.Context) {
	if !m.mu.TryLock() {
		return // it is leaving
	}
	defer m.mu.Unlock()
	if n, ok := m.n.model.Node(m.n.self.ID); !ok || !n.Leaving || m.leaving.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellEvery)
	defer cancel()
	if err := m.n.model.MarkLeaving(ctx, m.n.self.ID, false); err != nil {
		m.n.log.Warn("the node was about to leave, did not, and cannot say so yet", "err", err)
		return
	}
	m.n.log.Warn("the node was about to leave its cluster, and stays: the removal did not come to its end")
}

// findMost is how many nodes are looked for at a time: one that answers knows the others.
const findMost = 3

// find asks members that gossip does not hear whether they are there: after a restart, and
// after a network was cut for longer than gossip remembers.
func (m *membership) find(ctx context.Context, p *part) {
	heard := map[string]bool{}
	for _, q := range p.gossip.Peers() {
		heard[q.ID] = q.Liveness == cluster.Alive
	}
	var ask []string
	for _, n := range m.n.model.Nodes() {
		if n.ID != m.n.self.ID && n.Gossip != "" && !heard[n.ID] && len(ask) < findMost {
			ask = append(ask, n.Gossip)
		}
	}
	if len(ask) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellEvery)
	defer cancel()
	if _, err := p.gossip.Join(ctx, ask); err != nil {
		m.n.log.Debug("members that gossip does not hear do not answer", "err", err)
	}
}

func (m *membership) renew(p *part, now time.Time) {
	if p.identity.Ends().Sub(now) > renewBefore {
		return
	}
	certificate, key, err := m.certify(p, now)
	if err == nil {
		err = p.identity.Replace(certificate, key)
	}
	if err != nil {
		m.n.log.Error("the node's certificate is not renewed", "ends", p.identity.Ends(), "err", err)
		return
	}
	m.n.log.Info("the node's certificate was renewed", "ends", p.identity.Ends())
	m.n.tell(event.CertificateRenewed, m.n.object(), "what", "other nodes", "ends", p.identity.Ends().UTC().Format(time.RFC3339))
}

// follow hears of nodes whose records changed.
func (m *membership) follow(c model.Change) {
	if c.Kind != "node" {
		return
	}
	m.n.changed("node", c.Key)
	p := m.part.Load()
	if p == nil || c.Key != m.n.self.ID || m.leaving.Load() {
		return
	}
	if _, ok := m.n.model.Node(c.Key); !ok {
		m.end(m.noMember(p.record.Name))
	}
}

// end stops the node, which is a member no more.
func (m *membership) end(why error) {
	select {
	case m.ended <- why:
	default:
	}
}

// errNoCluster is the refusal of what needs a cluster.
func errNoCluster() error {
	return &control.Error{Code: control.CodeNotRunning, Object: "cluster", Message: "the node is in no cluster", Hint: "make one with ovgate cluster init --name NAME"}
}

// whose is what things of this cluster are called elsewhere.
func (m *membership) whose() string {
	if p := m.part.Load(); p != nil {
		return "cluster " + p.record.Name
	}
	return "node " + m.n.self.Name
}

// Status implements api.Cluster.
func (m *membership) Status() api.ClusterPart {
	s := api.ClusterPart{ID: m.n.model.Cluster().ID, Etcd: len(m.n.cfg.Registry.Etcd) > 0, Own: m.n.cfg.Registry.own(), Registry: m.n.registryMembers()}
	p := m.part.Load()
	if p == nil {
		return s
	}
	s.Name, s.Created, s.Gossip, s.CertificateEnds = p.record.Name, p.record.Created, m.address(), p.identity.Ends()
	ca, _ := p.authority.Pair()
	s.AuthorityEnds = ca.NotAfter
	return s
}

// Peers implements api.Cluster.
func (m *membership) Peers() []cluster.Peer {
	if p := m.part.Load(); p != nil && p.gossip != nil {
		return p.gossip.Peers()
	}
	return nil
}

// observe looks at the cluster, as far as gossip knows it; nil: the node is in none.
func (m *membership) observe(now time.Time) *observe.Cluster {
	p := m.part.Load()
	if p == nil || p.gossip == nil {
		return nil
	}
	out := &observe.Cluster{Nodes: map[string]int{"alive": 0, "dead": 0, "left": 0, "unknown": 0}, CertificateLeft: p.identity.Ends().Sub(now)}
	cert, _ := p.authority.Pair()
	out.AuthorityLeft = cert.NotAfter.Sub(now)
	heard := map[string]cluster.Liveness{}
	for _, q := range p.gossip.Peers() {
		heard[q.ID] = q.Liveness
	}
	if skews := m.n.skews.last.Load(); skews != nil {
		out.Skews = *skews
	}
	version := Version(m.n.opt.Version).Version
	for _, n := range m.n.model.Nodes() {
		if n.ID != m.n.self.ID && !n.Leaving && n.Version != "" && n.Version != version {
			out.Apart = append(out.Apart, n.Name+" ("+n.Version+")")
		}
		l, ok := heard[n.ID]
		switch {
		case !ok:
			out.Nodes["unknown"]++
		case l == cluster.Dead:
			out.Dead = append(out.Dead, n.Name)
			fallthrough
		default:
			out.Nodes[string(l)]++
		}
	}
	slices.Sort(out.Dead)
	slices.Sort(out.Apart)
	return out
}

// Init implements api.Cluster. Cut off anywhere, it is begun again, or done.
func (m *membership) Init(ctx context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	object := "cluster " + name
	if err := cluster.CheckName(name); err != nil {
		return &control.Error{Code: control.CodeInvalid, Field: "name", Object: "cluster", Message: err.Error()}
	}
	if p := m.part.Load(); p != nil {
		return sameCluster(p.record, name)
	}
	switch {
	case len(m.n.cfg.Registry.Etcd) == 0:
		return &control.Error{Code: control.CodeNotRunning, Object: object, Message: "the registry is in the node's data directory, where no other node reaches it",
			Hint: "set registry: {member: {listen: IP:2379, peers: IP:2380}} in the configuration, or registry: {etcd: [https://HOST:2379]} for one that runs already, and restart ovgate, which moves it there"}
	case m.n.tls == nil:
		return &control.Error{Code: control.CodeNotRunning, Object: object, Message: "the node serves plain HTTP", Hint: "restart ovgate without --insecure: nodes join over TLS"}
	}
	now := time.Now()
	ca, err := ownCA(m.n.dir, now)
	if err != nil {
		return err
	}
	key, ok := ca.key.(*ecdsa.PrivateKey)
	if !ok {
		return errors.New("the node's authority has no ECDSA key")
	}
	pair := tls.Certificate{Certificate: [][]byte{ca.cert.Raw}, PrivateKey: key, Leaf: ca.cert}
	r, err := cluster.NewRecord(m.n.model.Cluster().ID, name, pair, m.n.seal, now)
	if err != nil {
		return err
	}
	return m.create(ctx, r, now)
}

func sameCluster(r cluster.Record, name string) error {
	if r.Name != name {
		return &control.Error{Code: control.CodeExists, Field: "name", Object: "cluster " + name, Message: "the node is in cluster " + r.Name, Hint: "a cluster keeps its name; another one needs a registry of its own"}
	}
	return nil
}

// create makes the node the first member of a cluster. It has certificate and gossip before
// the record is stored: what is in the way is found while nothing has changed.
func (m *membership) create(ctx context.Context, r cluster.Record, now time.Time) error {
	p, err := m.assemble(r, now)
	if err != nil {
		return err
	}
	if err := m.openGossip(p); err != nil {
		return &control.Error{Code: control.CodeInUse, Object: "cluster " + r.Name, Message: err.Error()}
	}
	if err := m.n.step("assembled"); err != nil {
		return errors.Join(err, p.gossip.Close())
	}
	stored, err := cluster.CreateRecord(ctx, m.n.kv, r)
	if err == nil {
		err = m.n.step("stored")
	}
	if err != nil {
		return errors.Join(err, p.gossip.Close())
	}
	if string(stored.GossipKey) != string(r.GossipKey) { // an earlier attempt, whose answer was lost
		if err := p.gossip.Close(); err != nil {
			return err
		}
		if err := sameCluster(stored, r.Name); err != nil {
			return err
		}
		return m.create(ctx, stored, now)
	}
	m.part.Store(p)
	close(m.began)
	m.n.log.Info("the node is the first of a cluster", "cluster", r.Name, "id", r.ID)
	_, err = m.n.model.UpdateNode(ctx, m.n.self.ID, func(n *model.Node) error { n.Gossip = p.gossip.Address(); return nil })
	return err
}

// NewToken implements api.Cluster.
func (m *membership) NewToken(ctx context.Context, life time.Duration, urls []string) (cluster.Token, time.Time, error) {
	p := m.part.Load()
	if p == nil {
		return cluster.Token{}, time.Time{}, errNoCluster()
	}
	invalid := func(field, message, hint string) error {
		return &control.Error{Code: control.CodeInvalid, Field: field, Object: "join token", Message: message, Hint: hint}
	}
	if life <= 0 || life > cluster.TokenLifeMost {
		return cluster.Token{}, time.Time{}, invalid("lifeMs", fmt.Sprintf("a token cannot hold for %s", life), fmt.Sprintf("use up to %s", cluster.TokenLifeMost))
	}
	for _, u := range urls {
		if p, err := url.Parse(u); err != nil || p.Scheme != "https" || p.Hostname() == "" || p.Port() == "" || p.Path != "" || p.User != nil || p.RawQuery != "" {
			return cluster.Token{}, time.Time{}, invalid("urls", fmt.Sprintf("%.200q is no address of a node", u), "write https://HOST:PORT")
		}
	}
	if len(urls) == 0 {
		urls = m.urls(ctx)
	}
	now := time.Now()
	t, err := cluster.NewToken(ctx, m.n.kv, p.authority, urls, life, now)
	if errors.Is(err, cluster.ErrTokensMany) {
		err = &control.Error{Code: control.CodeInUse, Object: "join token", Message: err.Error(), Hint: "revoke those that are not used: ovgate cluster token list"}
	}
	return t, now.Add(life).UTC(), err
}

// urlsMost is how many nodes a token names by itself.
const urlsMost = 4

// urls are of nodes that can be asked, this one first.
func (m *membership) urls(ctx context.Context) []string {
	urls := []string{m.n.reachURL()}
	living, err := m.n.living(ctx)
	if err != nil {
		return urls
	}
	others := m.n.model.Nodes()
	slices.SortFunc(others, func(a, b model.Node) int { return b.Started.Compare(a.Started) })
	for _, n := range others {
		if u, err := url.Parse(n.API); err == nil && u.Scheme == "https" && living[n.ID] && !slices.Contains(urls, n.API) && len(urls) < urlsMost {
			urls = append(urls, n.API)
		}
	}
	return urls
}

// Tokens implements api.Cluster.
func (m *membership) Tokens(ctx context.Context) ([]cluster.TokenInfo, error) {
	if m.part.Load() == nil {
		return nil, errNoCluster()
	}
	return cluster.Tokens(ctx, m.n.kv)
}

// RevokeToken implements api.Cluster.
func (m *membership) RevokeToken(ctx context.Context, id string) error {
	if m.part.Load() == nil {
		return errNoCluster()
	}
	return cluster.RevokeToken(ctx, m.n.kv, id)
}

// Admit implements api.Cluster.
func (m *membership) Admit(ctx context.Context, r cluster.JoinRequest) (api.Admission, error) {
	p := m.part.Load()
	if p == nil {
		return api.Admission{}, errNoCluster()
	}
	g := cluster.Gate{Store: m.n.kv, Nodes: m.n.model, Name: p.record.Name, Authority: p.authority, Version: Version(m.n.opt.Version).Version, Format: model.Format}
	a, err := g.Admit(ctx, r, time.Now())
	if err != nil {
		return api.Admission{}, err
	}
	seal, err := os.ReadFile(m.n.dir.file(sealFile))
	if err != nil {
		return api.Admission{}, fmt.Errorf("data directory %s: %w", m.n.dir.path, err)
	}
	m.n.log.Info("a node joins the cluster", "node", r.Node, "name", r.Name)
	m.n.tell(event.NodeJoined, "node "+r.Name)
	m.n.changed("node", r.Node)
	return api.Admission{JoinAnswer: a, Name: p.record.Name, SealKey: string(seal), Etcd: m.n.registryURLs(), Prefix: m.n.cfg.Registry.prefix(), Own: m.n.cfg.Registry.own()}, nil
}

// Leave implements api.Cluster. The node stops then.
func (m *membership) Leave(ctx context.Context) error {
	p := m.part.Load()
	if p == nil {
		return errNoCluster()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	self, ok := m.n.model.Node(m.n.self.ID)
	if !ok {
		return nil
	}
	m.leaving.Store(true)
	if err := m.remove(ctx, self); err != nil {
		m.leaving.Store(false)
		return err
	}
	m.n.log.Info("the node left its cluster and stops", "cluster", p.record.Name)
	m.end(nil)
	return nil
}

// Remove implements api.Cluster.
func (m *membership) Remove(ctx context.Context, ref string) error {
	if m.part.Load() == nil {
		return errNoCluster()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, ok := m.n.model.FindNode(ref)
	if !ok {
		return nil
	}
	object := "node " + n.Name
	if n.ID == m.n.self.ID {
		return &control.Error{Code: control.CodeInUse, Object: object, Message: "it is the node that was asked", Hint: "it leaves with ovgate cluster leave; another node removes it once it is dead"}
	}
	living, err := m.n.living(ctx)
	if err != nil {
		return &control.Error{Code: control.CodeTimeout, Object: object, Message: "the registry does not say whether the node runs", Hint: "try again when etcd answers"}
	}
	if living[n.ID] {
		return &control.Error{Code: control.CodeInUse, Object: object, Message: "it runs, or ended seconds ago", Hint: "run ovgate cluster leave there, or stop it first"}
	}
	return m.remove(ctx, n)
}

// remove takes a node that has nothing any more out of the cluster. With its record go its
// certificates, as far as other nodes look, and its operator's token.
func (m *membership) remove(ctx context.Context, n model.Node) error {
	object := "node " + n.Name
	devices, err := m.devices(ctx, n.ID)
	if err != nil {
		return err
	}
	keeps := func(nodes []model.Node, owned []model.VDisk) error {
		if len(owned) > 0 {
			return &control.Error{Code: control.CodeInUse, Object: object, Message: fmt.Sprintf("it owns %d vDisks, one is %s", len(owned), owned[0].Name), Hint: "move or delete them first, those in the trash too"}
		}
		for _, p := range m.n.model.VPools() {
			if p.Node == n.ID {
				return &control.Error{Code: control.CodeInUse, Object: object, Message: "it alone reaches the objects of vPool " + p.Name, Hint: "move its vDisks to another vPool, then delete this one"}
			}
		}
		if devices > 0 {
			return &control.Error{Code: control.CodeInUse, Object: object, Message: fmt.Sprintf("%d devices of the object store are on it", devices), Hint: "decommission them first, or purge those that do not come back: ovgate osd list shows them"}
		}
		if !slices.ContainsFunc(nodes, func(o model.Node) bool { return o.ID != n.ID && !o.Leaving }) {
			return &control.Error{Code: control.CodeInUse, Object: object, Message: "it is the last node of the cluster", Hint: "a cluster is given up by stopping its last node and removing that one's data directory and the registry's records"}
		}
		return nil
	}
	if err := keeps(m.n.model.Nodes(), m.n.model.VDisks(func(v model.VDisk) bool { return v.Node == n.ID })); err != nil {
		return err
	}
	// Its member of the registry goes first: once the node is gone there may be no quorum for
	// that. It comes back if the rest is refused.
	if err := m.n.regMember.leave(ctx, n.ID, object); err != nil {
		return err
	}
	err = m.n.model.RemoveNode(ctx, n.ID, keeps)
	if errors.Is(err, model.ErrConflict) {
		err = &control.Error{Code: control.CodeInUse, Object: object, Message: "its record changed meanwhile", Hint: "try again"}
	}
	if err != nil {
		return err
	}
	m.n.tell(event.NodeRemoved, object)
	m.n.changed("node", n.ID)
	if err := m.n.auth.ForgetNode(ctx, n.ID); err != nil {
		m.n.log.Warn("the token of a node that is a member no more stays in the registry; it is void", "node", n.ID, "err", err)
	}
	return nil
}

// devices counts the devices of the object store on a node.
func (m *membership) devices(ctx context.Context, id string) (int, error) {
	all, err := m.n.alba.OSDs(ctx)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, d := range all {
		if d.Node == id {
			count++
		}
	}
	return count, nil
}

// reachURL is where other machines reach the API, as far as the configuration says: when it
// listens on every address, on that of the gossip.
func (n *node) reachURL() string {
	own := n.url()
	tcp, ok := n.apiL.Addr().(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return own
	}
	for _, a := range []string{n.cfg.Cluster.Advertise, n.cfg.Cluster.Listen} {
		host, _, err := net.SplitHostPort(a)
		if ip := net.ParseIP(host); err == nil && ip != nil && !ip.IsUnspecified() && !ip.IsLoopback() {
			u, _ := url.Parse(own)
			u.Host = net.JoinHostPort(host, strconv.Itoa(tcp.Port))
			return u.String()
		}
	}
	return own
}
