package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv/etcd"
)

// Nodes may run the registry themselves: with registry: {member: {...}} in the configuration a
// node has a member of etcd in its process. The first one makes a cluster of itself, to which
// its registry moves; one that joined a cluster whose nodes do is added as a learner, and
// counts once it has what the others have. Members and nodes trust the cluster's authority,
// which was the first node's, and show certificates that it signed.
//
//	DIR/etcd               the member's data, or where the configuration says
//	DIR/tls/registry.pem   the member's certificate, registry-key.pem its key
//
// A node that has a member asks that one alone, so that nothing of it waits for another node
// that stands still; when its member ends, and without one, it asks all.
//
// A member is called by its node's id. A node that is a member no more by its configuration
// takes itself out, and one of a node that is none of the cluster any more is taken out by the
// others.

const (
	// registryMost is how many members there may be: each change waits for most of them.
	registryMost = 5
	// tendEvery is how often a node looks whether it is a member, and where the others are.
	tendEvery = 5 * time.Second
	// tendWait bounds one question to the members.
	tendWait = 5 * time.Second
	// defragmentFrom is the size of a member's database, in bytes, from which on it gives back
	// what it does not use, when that is more than half; it looks every defragmentEvery.
	defragmentFrom  = 1 << 30
	defragmentEvery = time.Hour
	// defragmentWait bounds how long it may take, and so answer nothing.
	defragmentWait = 2 * time.Minute
	// learnerLooks is after how many looks, tendEvery apart, a learner that never started is taken
	// out: there is one at a time, and while it is there no other node becomes a member. One that
	// only took its time becomes one anew.
	learnerLooks = 60
	// leaveWait bounds how long a node that leaves waits for its member to be let go, which
	// it asks for every leaveEvery.
	leaveWait  = 20 * time.Second
	leaveEvery = 500 * time.Millisecond
	// registryCert and registryKey are the files of a member's certificate in DIR/tls.
	registryCert = "registry.pem"
	registryKey  = "registry-key.pem"
)

// registryMemberConfig says that the node runs a member of the registry, and where.
type registryMemberConfig struct {
	Listen string `yaml:"listen"` // IP:PORT for nodes
	Peers  string `yaml:"peers"`  // IP:PORT for other members
	Dir    string `yaml:"dir"`    // best on a disk of its own; default: DIR/etcd
}

func (c *registryMemberConfig) check() error {
	if c == nil {
		return nil
	}
	for _, a := range []struct{ key, address, example string }{{"listen", c.Listen, "10.0.0.5:2379"}, {"peers", c.Peers, "10.0.0.5:2380"}} {
		host, port, err := splitAddress("configuration: registry: member: "+a.key, a.address)
		if err != nil {
			return err
		}
		if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() || port == 0 {
			return fmt.Errorf("configuration: registry: member: %s is %q: write an IP address of this node, at which others reach it, with a port, such as %s", a.key, a.address, a.example)
		}
	}
	if c.Listen == c.Peers {
		return fmt.Errorf("configuration: registry: member: listen and peers are both %s: use two ports", c.Listen)
	}
	if c.Dir != "" && !filepath.IsAbs(c.Dir) {
		return fmt.Errorf("configuration: registry: member: dir is %q: name it from the root", c.Dir)
	}
	return nil
}

func (c *registryMemberConfig) client() string { return "https://" + c.Listen }
func (c *registryMemberConfig) peer() string   { return "https://" + c.Peers }

// hosts are the addresses that the member's certificate covers.
func (c *registryMemberConfig) hosts() []string {
	var out []string
	for _, a := range []string{c.Listen, c.Peers} {
		if h, _, err := net.SplitHostPort(a); err == nil && !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	return out
}

// registryMember is the member of etcd in this process.
type registryMember struct {
	n  *node
	mu sync.Mutex
	// server is nil while there is none.
	server *etcd.Server
	// tidied is when its database was looked at; of tend.
	tidied time.Time
	// idle is a learner that has not started, looks how often it was seen so; of tend.
	idle  uint64
	looks int
}

func (r *registryMember) config() *registryMemberConfig { return r.n.cfg.Registry.Member }

func (r *registryMember) dir() string {
	if c := r.config(); c != nil && c.Dir != "" {
		return c.Dir
	}
	return r.n.dir.file(etcdDir)
}

// running returns the member; nil: there is none, or it ended.
func (r *registryMember) running() *etcd.Server {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		return nil
	}
	select {
	case <-r.server.Ended():
		return nil
	default:
		return r.server
	}
}

// Close ends the member. Others go on without it.
func (r *registryMember) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != nil {
		r.server.Close()
		r.server = nil
	}
	return nil
}

// open starts the member before the registry is opened, if it is one: then the registry may
// need it. Else tend makes it one.
func (r *registryMember) open(ctx context.Context, p place) error {
	c, d := r.config(), r.n.dir
	if p.Etcd != "" && !p.Own {
		return fmt.Errorf("data directory %s: the registry is in an etcd that is not run by nodes: take member out of the configuration's registry, and name the members with etcd", d.path)
	}
	has := etcd.Has(r.dir())
	others := slices.ContainsFunc(p.Members, func(u string) bool { return u != c.client() })
	switch {
	case p.Etcd != "" && !has && !others:
		return fmt.Errorf("data directory %s: the registry was in %s, and is not there: bring the directory or its disk back, or restore a backup of the metadata into an empty data directory", d.path, r.dir())
	case p.Etcd != "" && !has:
		return nil // tend
	}
	id, err := r.name(ctx)
	if err != nil {
		return err
	}
	if err := r.certifyEarly(p, time.Now()); err != nil {
		if others {
			return nil // tend has an authority for a new one
		}
		return err
	}
	err = r.serve(ctx, etcd.ServerOptions{Name: id, Members: map[string]string{id: c.peer()}})
	if errors.Is(err, etcd.ErrRemoved) && others {
		r.n.log.Warn("the node's member of the registry stopped; the others are asked whether it is one", "err", err)
		return nil // tend
	}
	return err
}

// name is the node's id, which is decided now at its first start.
func (r *registryMember) name(ctx context.Context) (string, error) {
	s, err := openSelf(r.n.dir, r.n.cfg.NodeName, func() (string, error) {
		if _, err := os.Stat(r.n.dir.file(kvFile)); err != nil {
			return model.NewUUID()
		}
		from, err := r.n.openBolt()
		if err != nil {
			return "", err
		}
		defer from.Close()
		return firstID(ctx, r.n.dir, from)
	})
	return s.ID, err
}

// certifyEarly sees that the member has its certificate, without what the registry holds: it
// is there, or the authority is the node's own.
func (r *registryMember) certifyEarly(p place, now time.Time) error {
	if _, err := os.Stat(r.n.dir.file(tlsDir, "ca-key.pem")); err != nil && p.Etcd != "" {
		pair, err := tls.LoadX509KeyPair(r.n.dir.file(tlsDir, registryCert), r.n.dir.file(tlsDir, registryKey))
		if err != nil {
			return err
		}
		for _, h := range r.config().hosts() {
			if err := pair.Leaf.VerifyHostname(h); err != nil {
				return err
			}
		}
		return nil
	}
	ca, err := ownCA(r.n.dir, now)
	if err != nil {
		return err
	}
	return r.certify(ca, now)
}

// certify makes the member's certificate when it is missing or does not fit. It holds as long
// as the authority: members that were all off for long have to find each other again.
func (r *registryMember) certify(ca authority, now time.Time) error {
	cert, key := r.n.dir.file(tlsDir, registryCert), r.n.dir.file(tlsDir, registryKey)
	hosts := r.config().hosts()
	if _, err := loadServer(cert, key, ca, hosts, now); err == nil {
		return nil
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: "ovgate registry", Organization: []string{"ovgate"}}, NotAfter: ca.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		t.IPAddresses = append(t.IPAddresses, net.ParseIP(h))
	}
	if err := makePair(cert, key, t, &ca, now); err != nil {
		return fmt.Errorf("certificate of the registry's member: %w", err)
	}
	return nil
}

// serve starts the member and waits for a quorum.
func (r *registryMember) serve(ctx context.Context, o etcd.ServerOptions) error {
	c, d := r.config(), r.n.dir
	o.Dir, o.Client, o.Token, o.Log = r.dir(), c.client(), "ovgate", r.n.log
	o.Certificate, o.Key, o.CA = d.file(tlsDir, registryCert), d.file(tlsDir, registryKey), d.file(tlsDir, "ca.pem")
	if _, err := os.Stat(filepath.Join(o.Dir, "member")); err == nil && !etcd.Has(o.Dir) { // of one that was cut off in its first moments
		if err := r.putAside(); err != nil {
			return err
		}
	}
	alone := d.file(aloneFile)
	if _, err := os.Stat(alone); err == nil {
		o.Alone = true
		r.n.log.Warn("the registry goes on with this member alone, as ovgate metadata recover said")
	}
	r.n.log.Info("a member of the registry starts, and waits for a quorum", "dir", o.Dir, "nodes", o.Client, "members", c.peer())
	s, err := etcd.Serve(ctx, o)
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server = s
	if o.Alone {
		if err := os.Remove(alone); err != nil {
			return unwritable(d.path, err)
		}
		return syncDir(d.path)
	}
	return nil
}

// putAside makes room for a new member, where one was that the others removed.
func (r *registryMember) putAside() error {
	was := filepath.Join(r.dir(), "member")
	if err := os.RemoveAll(was + ".removed"); err != nil {
		return err
	}
	if err := os.Rename(was, was+".removed"); err != nil {
		return err
	}
	r.n.log.Warn("what a member of the registry had is put aside", "dir", was+".removed")
	return syncDir(r.dir())
}

// ownTLS is how nodes reach members that nodes run: by the authority, and with the
// certificate of the node, or of its member before it is in a cluster.
func (d *dataDir) ownTLS() (*tls.Config, error) {
	b, err := os.ReadFile(d.file(tlsDir, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", d.path, err)
	}
	return ownTLS(b, func() (*tls.Certificate, error) {
		var errs error
		for _, f := range [][2]string{{memberCert, memberKey}, {registryCert, registryKey}} {
			pair, err := tls.LoadX509KeyPair(d.file(tlsDir, f[0]), d.file(tlsDir, f[1]))
			if err == nil && time.Now().Before(pair.Leaf.NotAfter) {
				return &pair, nil
			}
			errs = errors.Join(errs, err)
		}
		return nil, fmt.Errorf("data directory %s: no certificate to show to the registry: %w", d.path, errs)
	})
}

func ownTLS(ca []byte, show func() (*tls.Certificate, error)) (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the authority's certificate is none")
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show() },
	}, nil
}

// run tends the member until ctx ends; nothing when the registry is not run by nodes.
func (r *registryMember) run(ctx context.Context) {
	s, ok := r.n.kv.(*etcd.Store)
	if !ok || !r.n.cfg.Registry.own() {
		return
	}
	again := time.NewTicker(cmp.Or(r.n.opt.askRegistry, tendEvery))
	defer again.Stop()
	said := ""
	for {
		err := r.tend(ctx, s)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			r.n.log.Warn("the node's part in the registry is not as it should be; it is tried again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-r.ended():
		case <-again.C:
		}
	}
}

// tend makes the node a member if it is to be one, has it count once it has caught up, takes
// out who is no node any more, and keeps in mind where the members are.
func (r *registryMember) tend(ctx context.Context, s *etcd.Store) error {
	if r.n.member.leaving.Load() {
		return nil
	}
	r.prefer(s)
	list, err := r.list(ctx, s)
	if err != nil {
		return err
	}
	self := r.find(list)
	switch {
	case r.config() == nil && self != nil && self.Name == r.n.self.ID:
		if err := r.out(ctx, s, *self); err != nil {
			return err
		}
	case r.config() != nil && r.running() == nil:
		if err := r.enter(ctx, s, list, self); err != nil {
			return err
		}
	case r.config() != nil && self != nil && self.Peer != r.config().peer():
		if err := r.bounded(ctx, func(ctx context.Context) error { return s.Move(ctx, self.ID, r.config().peer()) }); err != nil {
			return err
		}
	}
	if list, err = r.list(ctx, s); err != nil {
		return err
	}
	if self = r.find(list); self != nil && self.Learner && r.running() != nil {
		// Refused while it lacks something: then it is tried again.
		if err := r.bounded(ctx, func(ctx context.Context) error { return s.Promote(ctx, self.ID) }); err == nil {
			r.n.log.Info("the node is a member of the registry")
		}
	}
	err = errors.Join(r.sweep(ctx, s, list), r.idleLearner(ctx, s, list), r.follow(list), r.tidy(ctx, s))
	r.prefer(s)
	return err
}

// prefer has the node ask its own member, while that counts, and else all.
func (r *registryMember) prefer(s *etcd.Store) {
	urls := r.n.registryURLs()
	if c := r.config(); c != nil && r.running() != nil && slices.Contains(urls, c.client()) {
		urls = []string{c.client()}
	}
	if !slices.Equal(urls, s.Endpoints()) {
		s.SetEndpoints(urls)
	}
}

// ended is closed when the member ended; nil: there is none.
func (r *registryMember) ended() <-chan struct{} {
	if s := r.running(); s != nil {
		return s.Ended()
	}
	return nil
}

// tidy has the node's own member give back what it does not use, when it is its turn. Where the
// database was full, that ends then.
func (r *registryMember) tidy(ctx context.Context, s *etcd.Store) error {
	if r.config() == nil || time.Since(r.tidied) < defragmentEvery {
		return nil
	}
	all := s.MembersAt(ctx, r.n.registryURLs())
	i := slices.IndexFunc(all, func(m etcd.MemberState) bool { return m.Endpoint == r.config().client() })
	if i < 0 || all[i].Err != nil {
		return nil
	}
	r.tidied = time.Now()
	own := all[i]
	if turn(all) == own.Endpoint {
		ctx, cancel := context.WithTimeout(ctx, defragmentWait)
		defer cancel()
		if err := s.Defragment(ctx, own.Endpoint); err != nil {
			return err
		}
		r.n.log.Info("the registry's member gave back what it did not use", "bytes", own.Size-own.InUse)
	}
	if slices.Contains(own.Alarms, "NOSPACE") && own.InUse < own.Quota/2 {
		return r.bounded(ctx, s.Disarm)
	}
	return nil
}

// turn is the member that may give back what it does not use, and so answer nothing for some
// seconds; empty: none. It is the same at all nodes that see the same, so that never two do: the
// one that leads last, and none while one does not answer, or there would be no quorum.
func turn(all []etcd.MemberState) string {
	next := ""
	for _, m := range all {
		switch {
		case m.Err != nil:
			return ""
		case m.Size < defragmentFrom || m.InUse >= m.Size/2:
		case m.Leads:
			next = cmp.Or(next, m.Endpoint)
		case next == "" || leads(all, next) || m.Endpoint < next:
			next = m.Endpoint
		}
	}
	return next
}

func leads(all []etcd.MemberState, endpoint string) bool {
	return slices.ContainsFunc(all, func(m etcd.MemberState) bool { return m.Leads && m.Endpoint == endpoint })
}

func (r *registryMember) bounded(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, tendWait)
	defer cancel()
	return do(ctx)
}

func (r *registryMember) list(ctx context.Context, s *etcd.Store) (list []etcd.Member, err error) {
	err = r.bounded(ctx, func(ctx context.Context) error {
		list, err = s.List(ctx)
		return err
	})
	return list, err
}

// find returns this node's member; nil: there is none.
func (r *registryMember) find(list []etcd.Member) *etcd.Member {
	for i, m := range list {
		if m.Name == r.n.self.ID || r.config() != nil && m.Name == "" && m.Peer == r.config().peer() {
			return &list[i]
		}
	}
	return nil
}

// enter makes the node a member, or starts the one that it was.
func (r *registryMember) enter(ctx context.Context, s *etcd.Store, list []etcd.Member, self *etcd.Member) error {
	r.mu.Lock()
	if r.server != nil && r.server.Fault() != "" {
		defer r.mu.Unlock()
		return fmt.Errorf("the registry's member in %s failed, and the others go on: %s: see to its disk, then restart ovgate", r.dir(), r.server.Fault())
	}
	r.mu.Unlock()
	if err := r.Close(); err != nil { // it ended by itself
		return err
	}
	ca, err := r.n.member.serverCA(time.Now())
	if err != nil {
		return err
	}
	if err := r.certify(ca, time.Now()); err != nil {
		return err
	}
	id, o := r.n.self.ID, etcd.ServerOptions{Name: r.n.self.ID, Join: true, Members: map[string]string{}}
	if self == nil && etcd.Has(r.dir()) { // by what a quorum says, and by nothing less
		if err := r.putAside(); err != nil {
			return err
		}
	}
	if etcd.Has(r.dir()) {
		o.Members[id] = r.config().peer()
		return r.serve(ctx, o)
	}
	if self != nil && self.Name != "" { // it has lost its data: as it was it cannot come back
		if err := r.out(ctx, s, *self); err != nil {
			return err
		}
		list, self = slices.DeleteFunc(slices.Clone(list), func(m etcd.Member) bool { return m.ID == self.ID }), nil
	}
	if self == nil {
		if len(list) >= registryMost {
			return fmt.Errorf("the registry has %d members, which is the most: take registry: {member} out of this node's configuration", len(list))
		}
		err := r.bounded(ctx, func(ctx context.Context) error {
			list, err = s.Add(ctx, r.config().peer())
			return err
		})
		if err != nil {
			return fmt.Errorf("the registry does not take the node as a member: %w", err)
		}
	}
	for _, m := range list {
		switch {
		case m.Peer == r.config().peer():
			o.Members[id] = m.Peer
		case m.Name != "":
			o.Members[m.Name] = m.Peer
		default:
			o.Members[fmt.Sprintf("%x", m.ID)] = m.Peer
		}
	}
	return r.serve(ctx, o)
}

// out takes a member out.
func (r *registryMember) out(ctx context.Context, s *etcd.Store, m etcd.Member) error {
	if err := r.bounded(ctx, func(ctx context.Context) error { return s.Remove(ctx, m.ID) }); err != nil {
		return fmt.Errorf("member %s of the registry cannot be taken out: %w", m.Peer, err)
	}
	r.n.log.Info("a member was taken out of the registry", "name", m.Name, "members", m.Peer)
	return nil
}

// sweep takes members out whose nodes were removed. What memory does not know yet may have
// joined a moment ago: so the registry is asked before one goes.
func (r *registryMember) sweep(ctx context.Context, s *etcd.Store, list []etcd.Member) error {
	if r.n.member.part.Load() == nil {
		return nil
	}
	strange := slices.DeleteFunc(slices.Clone(list), func(m etcd.Member) bool {
		_, ok := r.n.model.Node(m.Name)
		return ok || !uuid.MatchString(m.Name) || m.Name == r.n.self.ID
	})
	if len(strange) == 0 {
		return nil
	}
	var nodes []model.Node
	err := r.bounded(ctx, func(ctx context.Context) (err error) {
		nodes, err = r.n.model.FreshNodes(ctx)
		return err
	})
	if err != nil {
		return err
	}
	var errs error
	for _, m := range strange {
		if !slices.ContainsFunc(nodes, func(n model.Node) bool { return n.ID == m.Name }) {
			errs = errors.Join(errs, r.out(ctx, s, m))
		}
	}
	return errs
}

// idleLearner takes out a learner that was added and does not start: the node that did has lost
// power in between, and does not come back, or no member is wanted of it any more.
func (r *registryMember) idleLearner(ctx context.Context, s *etcd.Store, list []etcd.Member) error {
	i := slices.IndexFunc(list, func(m etcd.Member) bool { return m.Learner && m.Name == "" })
	if i < 0 || r.config() != nil && list[i].Peer == r.config().peer() {
		r.idle, r.looks = 0, 0
		return nil
	}
	if r.idle != list[i].ID {
		r.idle, r.looks = list[i].ID, 0
	}
	if r.looks++; r.looks < learnerLooks {
		return nil
	}
	return r.out(ctx, s, list[i])
}

// follow keeps where the members are: the next start finds the registry there.
func (r *registryMember) follow(list []etcd.Member) error {
	var urls []string
	for _, m := range list {
		if m.Client != "" && !m.Learner {
			urls = append(urls, m.Client)
		}
	}
	slices.Sort(urls)
	if c := r.config(); c != nil { // its own first
		if i := slices.Index(urls, c.client()); i > 0 {
			urls = slices.Insert(slices.Delete(urls, i, i+1), 0, c.client())
		}
	}
	if have := r.n.registryURLs(); len(urls) == 0 || slices.Equal(urls, have) {
		return nil
	}
	p, err := r.n.dir.place()
	if err != nil {
		return err
	}
	if p.Etcd == "" || !p.Own {
		return nil
	}
	p.Members = urls
	if err := r.n.dir.setPlace(p); err != nil {
		return err
	}
	r.n.registryAt.Store(&urls)
	r.n.log.Info("the registry's members are known", "members", urls)
	return nil
}

// registryURLs are the members of the registry's etcd.
func (n *node) registryURLs() []string {
	if u := n.registryAt.Load(); u != nil {
		return *u
	}
	return n.cfg.Registry.Etcd
}

// leave takes the member of a node that leaves the cluster out, unless the registry had no
// quorum without it.
func (r *registryMember) leave(ctx context.Context, id, object string) error {
	s, ok := r.n.kv.(*etcd.Store)
	if !ok || !r.n.cfg.Registry.own() {
		return nil
	}
	list, err := r.list(ctx, s)
	if err != nil {
		return &control.Error{Code: control.CodeTimeout, Object: object, Message: "the registry does not say which nodes are its members", Hint: "try again when it answers"}
	}
	up := map[uint64]bool{}
	for _, m := range s.MembersAt(ctx, r.n.registryURLs()) {
		up[m.ID] = m.Err == nil
	}
	left, living := 0, 0
	var its *etcd.Member
	for i, m := range list {
		switch {
		case m.Name == id:
			its = &list[i]
		case !m.Learner:
			left++
			if up[m.ID] {
				living++
			}
		}
	}
	switch {
	case its == nil:
		return nil
	case its.Learner || living > left/2:
		if id == r.n.self.ID { // its own does not answer any more, soon
			if err := r.follow(slices.DeleteFunc(slices.Clone(list), func(m etcd.Member) bool { return m.ID == its.ID })); err != nil {
				return err
			}
			r.prefer(s)
		}
		return r.leaves(ctx, s, *its, object)
	case left == 0:
		return &control.Error{Code: control.CodeInUse, Object: object, Message: "it runs the only member of the registry", Hint: "let another node run one first: registry: {member: {listen, peers}} in its configuration"}
	}
	return &control.Error{Code: control.CodeInUse, Object: object, Message: fmt.Sprintf("it runs a member of the registry, and of the %d others only %d answer: without it nothing could be changed", left, living),
		Hint: "bring the others back, or let one more node run a member first"}
}

// leaves is out that is tried again for a while: members that came back moments ago count for
// healthy after some seconds only.
func (r *registryMember) leaves(ctx context.Context, s *etcd.Store, m etcd.Member, object string) error {
	ctx, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	again := time.NewTicker(leaveEvery)
	defer again.Stop()
	for {
		err := r.out(ctx, s, m)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return &control.Error{Code: control.CodeTimeout, Object: object, Message: "the registry does not let its member go: " + err.Error(), Hint: "try again; ovgate cluster status shows the members"}
		}
	}
}

// memberOffline starts the member of a node that is not served, for what works on the registry
// while no node does. It returns how the registry is reached, and ends the member.
func memberOffline(ctx context.Context, d *dataDir, c config, log *slog.Logger) (registryConfig, func() error, error) {
	n := &node{dir: d, cfg: c, log: log}
	n.regMember = &registryMember{n: n}
	p, err := d.place()
	if err != nil {
		return c.Registry, nil, err
	}
	if c.Registry.Member == nil {
		if p.Own {
			n.cfg.Registry.secure = d.ownTLS
		}
		return n.cfg.Registry.placed(p), n.regMember.Close, nil
	}
	if err := n.regMember.open(ctx, p); err != nil {
		return c.Registry, nil, err
	}
	if p.Etcd == "" {
		n.cfg.Registry.Etcd = []string{c.Registry.Member.client()}
	}
	n.cfg.Registry.secure = d.ownTLS
	return n.cfg.Registry.placed(p), n.regMember.Close, nil
}

// RecoverOptions say what a member of the registry does that has no quorum any more.
type RecoverOptions struct {
	Data   string // data directory of the node, which is stopped
	Config string // configuration file of the node; empty: none
	// Alone: the registry goes on with what this node's member has. Else the member is put
	// aside, and the node becomes one anew where the registry goes on.
	Alone bool
	Log   *slog.Logger // nil: discard
}

// RecoverRegistry prepares the next start of a node whose registry lost most of its members for
// good. What only those had is lost.
func RecoverRegistry(o RecoverOptions) (dir string, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, err := loadConfig(Options{Config: o.Config})
	if err != nil {
		return "", err
	}
	d, err := openDataDir(o.Data, o.Log)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	n := &node{dir: d, cfg: c, log: o.Log}
	r := &registryMember{n: n}
	switch {
	case c.Registry.Member == nil:
		return "", fmt.Errorf("data directory %s: its node runs no member of the registry by the configuration: name the file with --config", d.path)
	case !etcd.Has(r.dir()):
		return "", fmt.Errorf("data directory %s: there is no member of the registry in %s: nothing was changed", d.path, r.dir())
	case !o.Alone:
		return r.dir(), r.putAside()
	}
	if err := writeFile(d.file(aloneFile), nil, 0o600); err != nil {
		return "", unwritable(d.path, err)
	}
	return r.dir(), nil
}
