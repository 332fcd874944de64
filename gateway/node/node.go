package node

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/openvstorage/ovgate/gateway/alba"
	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/cluster"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/disk"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/audit"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/observe/series"
	"github.com/openvstorage/ovgate/gateway/observe/syslog"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/gateway/vsphere"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/internal/sdnotify"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/forward"
	"github.com/openvstorage/ovgate/ui"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Options are what a node is started with. Only Data is needed; an empty field
// takes the value of the configuration file, else its default.
type Options struct {
	Data      string    // data directory
	Config    string    // configuration file (YAML); empty: none
	API       string    // HOST:PORT of API and UI; port 0 takes a free one
	ISCSI     []string  // HOST:PORT of the iSCSI portals; port 0 takes a free one
	Advertise []string  // portals as initiators reach them
	Insecure  bool      // plain HTTP, loopback only
	MapMemory int64     // bytes of map pages kept in memory
	LogFormat string    // text or json
	Version   string    // of the program; empty: from the build
	Stdout    io.Writer // set-up token; nil: standard output
	Stderr    io.Writer // log; nil: standard error
	// Ready, when set, is told the URL of the API once the node serves.
	Ready func(url string)

	// steps is asked at each step of a move of the registry and of the making of a cluster,
	// and ends it there with an error; for tests.
	steps func(name string) error
	// identity is that of the node in its cluster; for tests.
	identity *cluster.Identity
	// registry is used in place of one of its own; for tests.
	registry kv.Store
	// probe is how often devices of the Alba are looked at; for tests.
	probe time.Duration
	// disks is where their disks are known, smartctl the program that asks them; for tests.
	disks    disk.System
	smartctl string
	// askRegistry is how often members of the registry's etcd are asked; for tests.
	askRegistry time.Duration
	// lookCertificates is how often certificates are looked at; for tests.
	lookCertificates time.Duration
	// iscsiLimits are those of the iSCSI front end; for tests.
	iscsiLimits iscsi.Limits
	// shift moves the time that health and schedules go by; for tests.
	shift *shift
	// served is told the node once it serves; for tests.
	served func(*node)
}

// node is a running node, in the order in which its parts start.
type node struct {
	opt     Options
	cfg     config
	log     *slog.Logger
	logged  logTail
	started time.Time

	dir *dataDir
	// readCacheErrs say why directories of the read cache are not used.
	readCacheErrs []error
	apiL          net.Listener
	iscsiL        []net.Listener
	tls           *certificates // nil with Insecure
	peers         *apiPeers
	kv            kv.Store
	self          self
	lease         *cluster.Lease
	livingMoved   chan struct{} // capacity 1: leases of nodes may have ended or begun
	member        *membership
	regMember     *registryMember
	registryAt    atomic.Pointer[[]string]                 // members of the registry that nodes run, as they were last
	registry      atomic.Pointer[[]observe.RegistryMember] // as they said last
	dtl           dtlNode
	devices       devicesNode
	model         *model.Store
	auth          *auth.Service
	seal          *control.Sealer
	local         blockfs.FS
	alba          *alba.Service
	remotes       remotes
	host          *volume.Host
	slot          int                // of this node in the cluster
	forwarder     *forward.Forwarder // nil: other nodes' vDisks are not shown here
	forwarding    *forward.Server
	front         *iscsi.Server
	ctl           *control.Controller
	vsphere       *vsphere.Manager
	api           *api.Server
	hub           *observe.Hub
	audit         *audit.Log
	events        *event.Log
	syslog        *syslog.Sender // nil: events go to no syslog server
	sampler       *observe.Sampler
	history       *series.Store
	alerts        *alertNode
	health        healthWatch
	placeSizes    placeSizes
	claims        *claims
	skews         skews
	recordsErr    atomic.Pointer[string] // why records of the registry are not followed; nil: they are

	closers []func() error // run last to first when the node ends
}

// Run runs a node until ctx ends, then stops it in an orderly way. An error of
// the start says what is in the way and what to do; an error of the stop, what
// was not brought to an orderly end.
func Run(ctx context.Context, o Options) (err error) {
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	if o.Stderr == nil {
		o.Stderr = os.Stderr
	}
	n := &node{opt: o, started: time.Now(), remotes: remotes{open: map[string]*remote.Store{}}}
	n.member = newMembership(n)
	n.regMember = &registryMember{n: n}
	if n.cfg, err = loadConfig(o); err != nil {
		return err
	}
	if n.log, err = newLogger(n.cfg, io.MultiWriter(&n.logged, o.Stderr)); err != nil {
		return err
	}
	defer func() {
		for i := len(n.closers) - 1; i >= 0; i-- {
			err = errors.Join(err, n.closers[i]())
		}
	}()
	for _, step := range []func(context.Context) error{n.openData, n.bind, n.openState, n.bindDTL, n.bindDevices, n.openEvents, n.openEngine, n.openAPI} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return n.serve(ctx)
}

func newLogger(c config, w io.Writer) (*slog.Logger, error) {
	level, err := c.level()
	if err != nil {
		return nil, err
	}
	o := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}

func (n *node) onClose(f func() error) { n.closers = append(n.closers, f) }

func (n *node) openData(context.Context) error {
	d, err := openDataDir(n.opt.Data, n.log)
	if err != nil {
		return err
	}
	n.dir = d
	n.onClose(d.Close)
	return d.notJoined()
}

// bind takes all addresses early, so that a port in use is told before
// anything is opened. Nothing is accepted yet.
func (n *node) bind(context.Context) error {
	var err error
	if n.apiL, err = listen("api", "--api", n.cfg.API); err != nil {
		return err
	}
	n.onClose(func() error { return ignoreClosed(n.apiL.Close()) })
	for _, a := range n.cfg.ISCSI {
		l, err := listen("iscsi", "--iscsi", a)
		if err != nil {
			return err
		}
		n.iscsiL = append(n.iscsiL, l)
		n.onClose(func() error { return ignoreClosed(l.Close()) })
	}
	return nil
}

// openCertificate makes the API ready for TLS.
func (n *node) openCertificate() error {
	if n.cfg.Insecure {
		return nil
	}
	now := time.Now()
	ca, err := n.member.serverCA(now)
	if err != nil {
		return fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	if n.tls, err = openCertificates(n.dir, ca, certHosts(n.cfg.API, n.cfg.Advertise, n.cfg.Cluster), n.cfg.TLS, n.log, now); err != nil {
		return fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (n *node) openState(ctx context.Context) error {
	var err error
	if n.kv, err = n.openRegistry(ctx); err != nil {
		return err
	}
	n.onClose(n.kv.Close)
	if n.self, err = openSelf(n.dir, n.cfg.NodeName, func() (string, error) { return firstID(ctx, n.dir, n.kv) }); err != nil {
		return err
	}
	if n.model, err = model.Open(ctx, n.kv, clock.Real{}); err != nil {
		return fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	record, err := cluster.LoadRecord(ctx, n.kv)
	if err != nil {
		return err
	}
	if n.seal, err = n.sealer(ctx, record); err != nil {
		return err
	}
	if err := n.member.open(record); err != nil {
		return err
	}
	if err := n.openCertificate(); err != nil {
		return err
	}
	if err := n.openLease(ctx); err != nil {
		return err
	}
	if err := n.adopt(ctx); err != nil {
		return fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	if n.auth, err = auth.New(ctx, n.model, clock.Real{}, n.log, n.signInRefused); err != nil {
		return err
	}
	return n.issueTokens(ctx)
}

// issueTokens keeps the node's own token valid and, while no user exists, makes
// a set-up token.
func (n *node) issueTokens(ctx context.Context) error {
	have, err := os.ReadFile(n.dir.file(adminFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	token, err := n.auth.NodeToken(ctx, n.self.ID, strings.TrimSpace(string(have)))
	if err != nil {
		return err
	}
	if err := writeFile(n.dir.file(adminFile), []byte(token+"\n"), 0o600); err != nil {
		return unwritable(n.dir.path, err)
	}
	if n.others() && n.auth.NeedsSetup() {
		return nil // a new token would void the one that another node printed
	}
	setup, err := n.auth.NewSetupToken(ctx)
	if err != nil {
		return err
	}
	if setup == "" {
		return n.forgetSetup()
	}
	if err := writeFile(n.dir.file(setupFile), []byte(setup+"\n"), 0o600); err != nil {
		return unwritable(n.dir.path, err)
	}
	_, err = fmt.Fprintf(n.opt.Stdout, "set-up token: %s\n", setup)
	return err
}

func (n *node) forgetSetup() error {
	if err := os.Remove(n.dir.file(setupFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unwritable(n.dir.path, err)
	}
	return nil
}

// sealer opens the sealing key, which the first node of a cluster draws at its first start.
func (n *node) sealer(ctx context.Context, in *cluster.Record) (*control.Sealer, error) {
	s, err := n.readSeal(in)
	if err != nil {
		return nil, err
	}
	return s, n.sameSeal(ctx, s)
}

func (n *node) readSeal(in *cluster.Record) (*control.Sealer, error) {
	name := n.dir.file(sealFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && in != nil {
		return nil, fmt.Errorf("%s is missing: bring it back from a copy, or from another node of cluster %s; without it the cluster's secrets cannot be read", name, in.Name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if n.others() {
			return nil, n.noSeal("is missing")
		}
		if !n.dir.made {
			n.log.Warn("seal.key was missing and is made anew: published vDisks need a new secret, with vdisk publish and a rotated secret", "path", name)
		}
		key, err := randomBytes(control.SealKeySize)
		if err != nil {
			return nil, err
		}
		if err := writeFile(name, []byte(hex.EncodeToString(key)+"\n"), 0o600); err != nil {
			return nil, unwritable(n.dir.path, err)
		}
		return control.NewSealer(key)
	}
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: bring it back from a copy", name)
	}
	return control.NewSealer(key)
}

func (n *node) openEngine(ctx context.Context) error {
	if err := os.MkdirAll(n.dir.file(localDir), 0o700); err != nil {
		return unwritable(n.dir.path, err)
	}
	var err error
	if n.local, err = blockfs.OS(n.dir.file(localDir)); err != nil {
		return fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	if err := n.openAlba(ctx); err != nil {
		return err
	}
	disks, err := n.openWriteDisks()
	if err != nil {
		return err
	}
	n.host, err = volume.NewHost(ctx, volume.HostOptions{
		FS: n.local, Registry: volume.KVRegistry{Store: n.kv}, Log: n.log, Node: n.self.ID,
		JournalBytes: n.cfg.JournalBytes, ChunkBytes: n.cfg.ChunkBytes, CacheBytes: n.cfg.CacheBytes,
		WriteMemoryBytes: n.cfg.WriteMemoryBytes, Uploads: n.cfg.Uploads, MapMemoryBytes: n.mapMemory(), ReadCaches: n.openReadCaches(),
		WriteDisks: disks, DTL: n.dtlOptions(),
	})
	if err != nil {
		return fmt.Errorf("data directory %s: %w", n.dir.path, err)
	}
	n.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), lastClose)
		defer cancel()
		return n.host.Close(ctx)
	})
	n.openFront()
	n.startDTL()
	return nil
}

// openAlba opens the node's Alba, if there is one or the configuration names devices.
func (n *node) openAlba(ctx context.Context) error {
	var dirs []alba.Dir
	for _, d := range n.cfg.ASDs {
		dirs = append(dirs, alba.Dir{Path: filepath.Clean(d.Dir), Bytes: d.Bytes})
	}
	n.alba = alba.New(alba.Options{
		Data: n.dir.path, Registry: n.kv, Sealer: n.seal, Node: n.self.ID, Domain: n.cfg.Domain, Dirs: dirs,
		Version: Version(n.opt.Version).Version, Log: n.log, Changed: func() { n.health.stale.Store(true) }, Told: n.tell, AutoRepair: n.cfg.AutoRepair,
		KeyFile: n.cfg.AlbaKeyFile, Cluster: n.albaCluster(), Clear: n.cfg.Alba.Clear, Probe: n.opt.probe, System: n.opt.disks, Smartctl: n.opt.smartctl, Now: n.clock().Now,
	})
	n.onClose(n.alba.Close)
	err := n.alba.Open(ctx)
	var e *control.Error
	if errors.As(err, &e) && e.Code == control.CodeElsewhere {
		n.log.Error("the object store is not opened yet: "+e.Message, "remedy", e.Hint)
		return nil // when it is needed
	}
	return err
}

// openAPI makes control plane and API; neither works yet.
func (n *node) openAPI(ctx context.Context) error {
	seal := n.seal
	var bound []net.Addr
	for _, l := range n.iscsiL {
		bound = append(bound, l.Addr())
	}
	var err error
	if n.slot, err = n.findSlot(ctx); err != nil {
		return err
	}
	first, _ := model.PortGroups(n.slot)
	reached := portals(first, n.cfg.Advertise, bound)
	if err := n.openAudit(); err != nil {
		return err
	}
	n.openHistory()
	var lease control.Lease
	var living func(context.Context) (map[string]bool, error)
	if len(n.cfg.Registry.Etcd) > 0 { // else nobody else can take anything over
		lease, living = n.lease, n.living
	}
	n.livingMoved = make(chan struct{}, 1)
	n.peers = newAPIPeers(n)
	tasks := task.New(n.clock())
	n.claims = newClaims(n, tasks)
	n.onClose(n.claims.close)
	n.ctl = control.New(control.Options{
		Parts: api.Parts{Peers: n.peers},
		Lease: lease, Living: living, LivingMoved: n.livingMoved, Gone: n.alba.Suspect, Takeable: func(ctx context.Context, gone map[string]bool) { n.vsphere.TakeOver(ctx, gone) }, Model: n.model, Engine: control.NewEngine(n.host), Frontend: n.front, Backends: backends{n.dir.path, n.alba, &n.remotes, n.log},
		Sealer: seal, Portals: reached, Node: n.self.ID, Log: n.log, Changed: n.changed, LastLiving: n.lastLiving,
		Paths: n.forwarder != nil, Moved: n.moved, NoSchedules: n.cfg.NoSchedules, Clock: n.clock(), Events: n.tell, Tasks: tasks,
	})
	n.vsphere = vsphere.New(vsphere.Options{Cluster: n.member.whose, Model: n.model, Control: n.ctl, Sealer: seal, Node: n.self.ID, Log: n.log, Changed: n.changed, Events: n.tell, Tasks: tasks})
	dist, err := fs.Sub(ui.Dist, "dist")
	if err != nil {
		return err
	}
	version := Version(n.opt.Version)
	config, err := yaml.Marshal(n.cfg)
	if err != nil {
		return err
	}
	n.alerts = newAlertNode(n)
	n.api, err = api.New(api.Options{
		Model: n.model, Auth: n.auth, Control: n.ctl, VSphere: n.vsphere, Alba: n.alba, Sealer: seal, Hub: n.hub, Sampler: n.sampler, History: n.history, Machine: n.machineView, Precheck: n.precheck, Disks: n.layoutFacts, Claim: n.claims.begin, Load: n.machineLoad(), Audit: n.audit, Events: n.events, Tasks: tasks, Alerts: n.alerts.service,
		Metrics: observe.Handler(n.metrics(), version.Version, n.log), OpenMetric: n.cfg.MetricsOpen, Health: n.checkHealth, Trends: n.trends, Requests: n.remotes.requests, UI: dist,
		Living: n.living, Cluster: n.member, Peers: n.peers, NodeID: n.self.ID, NodeName: n.self.Name, Version: version, Started: n.started, Secure: n.tls != nil, Log: n.log,
		Config: config, Logged: n.logged.Bytes, Backup: n.backupMetadata,
		SetupDone: func() {
			if err := n.forgetSetup(); err != nil {
				n.log.Warn("spent set-up token not removed", "err", err)
			}
		},
	})
	if err != nil {
		return err
	}
	n.onClose(n.member.close)
	n.onClose(func() error { n.peers.transport.CloseIdleConnections(); return nil })
	if err := n.member.begin(); err != nil {
		return err
	}
	return n.register(ctx, reached)
}

// recordsProblem says why the node does not know what is stored, or that it does again.
func (n *node) recordsProblem(err error) {
	n.health.stale.Store(true)
	if err != nil {
		why := err.Error()
		n.recordsErr.Store(&why)
		n.log.Warn("records of the registry are not followed: what the node shows and decides from may be old", "err", err)
		return
	}
	n.recordsErr.Store(nil)
	n.log.Info("records of the registry are followed again")
}

// changed hears of every change of a vPool, vDisk, target or node.
func (n *node) changed(kind, id string) {
	n.health.stale.Store(true)
	n.api.Changed(kind, id)
	n.vsphere.Names(kind, id)
}

// serve opens vPools and vDisks, serves, and stops when ctx ends.
func (n *node) serve(ctx context.Context) error {
	n.askLiving(ctx)
	n.ctl.Start(ctx)
	n.vsphere.Start()
	feedCtx, stopFeed := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	failed := make(chan error, 2+len(n.iscsiL))
	wg.Go(func() { n.member.run(feedCtx) })
	wg.Go(func() { n.watchLiving(feedCtx) })
	wg.Go(func() { n.watchRegistry(feedCtx) })
	wg.Go(func() { n.regMember.run(feedCtx) })
	wg.Go(func() { n.watchSkew(feedCtx) })
	wg.Go(func() { n.api.Feed(feedCtx) })
	wg.Go(func() { n.api.FollowEvents(feedCtx) })
	wg.Go(func() { n.alerts.run(feedCtx) })
	wg.Go(func() { n.tellCenters(feedCtx) })
	if n.syslog != nil {
		wg.Go(func() { n.syslog.Run(feedCtx) })
	}
	if n.tls != nil {
		n.tls.renewed = n.certificateRenewed
		wg.Go(func() { n.tls.run(feedCtx, n.opt.lookCertificates) })
	}
	wg.Go(func() {
		if err := n.runsTwice(feedCtx); err != nil {
			failed <- err
		}
	})
	wg.Go(func() {
		n.model.Follow(feedCtx, model.Followed{Problem: n.recordsProblem, Changed: func(c model.Change) {
			n.member.follow(c)
			n.ctl.Follow(c)
			n.vsphere.Follow(c)
		}})
	})
	var listens []string
	for _, l := range n.iscsiL {
		listens = append(listens, l.Addr().String())
		wg.Go(func() { failed <- n.serveISCSI(l) })
	}
	wg.Go(func() { failed <- n.serveAPI() })
	url := n.url()
	err := n.announce(url)
	if err == nil {
		n.log.Info("ready", "url", url, "iscsi", strings.Join(listens, " "), "data", n.dir.path, "startMs", time.Since(n.started).Milliseconds())
		n.tell(event.NodeStarted, n.object(), "version", Version(n.opt.Version).Version)
		sdnotify.Send("READY=1")
		wg.Go(func() { sdnotify.Watchdog(feedCtx, n.works) })
		if n.opt.served != nil {
			n.opt.served(n)
		}
		if n.opt.Ready != nil {
			n.opt.Ready(url)
		}
		select {
		case <-ctx.Done():
		case err = <-failed:
		case err = <-n.member.ended:
		}
	}
	sdnotify.Send("STOPPING=1")
	n.log.Info("stopping", "within", n.cfg.StopTimeout)
	n.tell(event.NodeStopping, n.object())
	err = errors.Join(err, n.stop())
	stopFeed()
	wg.Wait()
	n.log.Info("stopped")
	return err
}

func (n *node) serveISCSI(l net.Listener) error {
	if err := n.front.Serve(l); !errors.Is(err, iscsi.ErrServerClosed) {
		return fmt.Errorf("iSCSI portal ended: %w", err)
	}
	return nil
}

func (n *node) serveAPI() error {
	var config *tls.Config
	if n.tls != nil {
		config = n.apiTLS()
	}
	if err := n.api.Serve(n.apiL, config); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("API ended: %w", err)
	}
	return nil
}

func (n *node) url() string {
	scheme := "https"
	if n.tls == nil {
		scheme = "http"
	}
	addr := n.apiL.Addr().String()
	if tcp, ok := n.apiL.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		host := "127.0.0.1"
		if tcp.IP.To4() == nil && len(tcp.IP) == net.IPv6len && strings.HasPrefix(n.cfg.API, "[") {
			host = "::1"
		}
		addr = net.JoinHostPort(host, fmt.Sprint(tcp.Port))
	}
	return scheme + "://" + addr
}

// announce writes where the API is, for the CLI on this machine.
func (n *node) announce(url string) error {
	v := struct {
		URL    string `json:"url"`
		CAFile string `json:"caFile,omitempty"`
	}{URL: url}
	if n.tls != nil {
		v.CAFile = tlsDir + "/ca.pem"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := writeFile(n.dir.file(apiFile), append(b, '\n'), 0o644); err != nil {
		return unwritable(n.dir.path, err)
	}
	return nil
}

// drainShare is the part of the stop's time that initiators get to finish.
const drainShare = 4

// apiStop bounds how long running requests may finish at the very end.
const apiStop = 5 * time.Second

// lastClose bounds the close of vDisks that stop did not come to in its time: what they hold
// is in the journal, and backend or registry may be away for good.
const lastClose = time.Second

// stop ends sessions, closes vDisks, then the API, each within its time.
func (n *node) stop() error {
	n.ctl.Leave()
	n.vsphere.Stop()
	budget := n.cfg.StopTimeout
	drain, cancel := context.WithTimeout(context.Background(), budget/drainShare)
	if err := n.front.Shutdown(drain); err != nil {
		n.log.Warn("sessions cut: initiators did not finish in time", "err", err)
	}
	cancel()
	closing, cancel := context.WithTimeout(context.Background(), budget-budget/drainShare)
	err := n.ctl.Stop(closing)
	cancel()
	if err != nil {
		err = fmt.Errorf("vDisks not closed within %s; the next start finds what was acknowledged in the journal: %w", budget, err)
	}
	web, cancel := context.WithTimeout(context.Background(), apiStop)
	defer cancel()
	return errors.Join(err, n.api.Shutdown(web))
}
