// Package alba runs a node's part in the Alba: it opens the node's own devices and
// reaches those of others, keeps manager and NSM on the node's stores, does the
// maintenance, and hands out stores for vPools. The API works through it.
//
// # On disk
//
//	DATA/alba/nsm.db      manifests (the NSM host "local")
//	DATA/alba/wrap.key    wraps the data keys of encrypted presets, unless another
//	                      file is configured for that
//	DATA/asd/1 .. 6       the devices of a node that was given no others
//
// The manager's records are in the node's registry.
//
// # In a cluster
//
// Nodes that share the registry share the Alba: manifests (records.go) and the wrapping
// key (keys.go) are in the registry too, each node serves its directories to the others
// (serve.go), and one of them does the maintenance (leader.go). Each has a client of its
// own, which talks to all devices; between the clients decides the registry.
//
// # Invariants
//
//	V1  Nothing is made before it is needed: a node whose vPools live elsewhere
//	    has no devices.
//	V2  A local device is opened where its record says, by its identity; a
//	    directory with another is refused.
//	V3  Access keys of ASDs are sealed in the records, data keys are wrapped; no
//	    secret is in a log or an answer.
//	V4  The manifests are in one place at any time, which a record names. A node that
//	    does not reach that place does not begin without them.
package alba

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/maintenance"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/disk"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	store "github.com/openvstorage/ovgate/volumedriver/backend/alba"
)

// Places in the data directory.
const (
	albaDir  = "alba"
	nsmFile  = "nsm.db"
	wrapFile = "wrap.key"
	asdDir   = "asd"
)

// DefaultDevices is how many devices a node makes that was given none: enough for
// the policy (4,2,5,6).
const DefaultDevices = 6

// hostName is the NSM host of a node.
const hostName = "local"

// Dir is a directory to use as a device.
type Dir struct {
	Path  string
	Bytes int64 // capacity; 0: what the file system has

	replaces uint32 // number of the device in whose place it comes; 0: of none
}

// Options configure a Service.
type Options struct {
	Data     string   // the node's data directory
	Registry kv.Store // holds the manager's records
	Sealer   *control.Sealer
	Node     string // id of this node, what x of a policy counts
	Domain   string // what fails together with it, which x counts where a preset says so; empty: not known
	Dirs     []Dir  // the node's devices; empty: DefaultDevices in the data directory
	Version  string
	Log      *slog.Logger
	// Changed hears that something about devices changed; may be nil.
	Changed func()
	// Told is told what happens.
	Told event.Sink
	// KeyFile holds the wrapping key; empty: wrap.key in the data directory.
	KeyFile string
	// Cluster is nil while the registry is this node's alone.
	Cluster Cluster
	// Clear: what goes between this node and devices leaves TLS after its handshake, where the
	// other end wants that too.
	Clear bool
	// Probe is the time between two looks at a device, and at its disk; 0: the defaults.
	Probe time.Duration
	// AutoRepair is the silence after which a device is given up; 0: the default.
	AutoRepair time.Duration
	// System is where the node's disks are known.
	System disk.System
	// Smartctl is the program that asks a disk for its health; empty: the one that is installed.
	Smartctl string
	// Now is the time by which disks are asked again; nil: the machine's.
	Now func() time.Time

	grace time.Duration           // tests: how long an upload may take; 0: the default
	steps func(name string) error // tests: at each step of a move, an error ends it there
}

// Service is a node's Alba. Safe for concurrent use.
type Service struct {
	o Options

	mu     sync.Mutex
	closed bool
	run    *running    // nil until it is needed (V1)
	made   atomic.Bool // there is an Alba: it never goes

	replaceMu sync.Mutex // one device is replaced at a time

	looker disk.Looker
	smart  disk.Monitor

	// Not mu: the agent may speak while the Alba opens or closes.
	eventMu sync.Mutex
	events  []Event // oldest first
}

// Event is something that happened to the Alba.
type Event struct {
	At      time.Time
	Level   slog.Level
	OSD     uint32
	Message string
}

// eventsMax bounds the events that are kept.
const eventsMax = 200

// running is an open Alba.
type running struct {
	nsmKV   *kv.Bolt // nil: the records are in the registry
	older   string   // why what is not known is not deleted; empty: it is
	manager *manager.Manager
	client  *client.Client
	agent   *maintenance.Agent
	local   *localDevices
	keys    *keys
	leader  *leader
	server  *deviceServer // nil: no other node is served
	stop    chan struct{}
	wg      sync.WaitGroup

	claimed chan struct{} // a device came
	diskMu  sync.Mutex
	disks   map[uint32]disk.Disk // of devices on this node
}

// New returns a Service that opens itself when it is needed.
func New(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Service{o: o, looker: disk.Looker{System: o.System}, smart: disk.Monitor{Program: o.Smartctl}}
}

// ErrClosed: the node stops.
var ErrClosed = errors.New("alba: the node stops")

// madeWait bounds how long Made asks the registry.
const madeWait = 2 * time.Second

// Made tells whether there is an Alba: on this node, or in its cluster.
func (s *Service) Made() bool {
	if len(s.o.Dirs) > 0 || s.made.Load() {
		return true
	}
	_, err := os.Stat(s.nsmPath(nsmFile))
	made := err == nil
	if !made && s.o.Cluster != nil {
		ctx, cancel := context.WithTimeout(context.Background(), madeWait)
		defer cancel()
		rec, err := s.o.Registry.Get(ctx, nodeKey)
		made = err == nil && rec != nil
	}
	if made {
		s.made.Store(true)
	}
	return made
}

// open returns the running Alba, opening or making it.
func (s *Service) open(ctx context.Context) (*running, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if s.run != nil {
		return s.run, nil
	}
	r, err := s.start(ctx)
	if err != nil {
		return nil, fmt.Errorf("alba: %w", err)
	}
	s.run = r
	return r, nil
}

// Open opens the Alba if there is one.
func (s *Service) Open(ctx context.Context) error {
	if !s.Made() {
		return nil
	}
	_, err := s.open(ctx)
	return err
}

func (s *Service) start(ctx context.Context) (_ *running, err error) {
	dir := filepath.Join(s.o.Data, albaDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	r := &running{claimed: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	host, err := s.openNSM(ctx, r)
	if err != nil {
		return r, err
	}
	r.manager, err = manager.Open(ctx, manager.Options{Store: s.o.Registry, Clock: clock.Real{}, Rand: rand.Reader, Host: func(name string) (*nsm.Host, error) {
		if name != hostName {
			return nil, fmt.Errorf("NSM host %s is not on this node", name)
		}
		return host, nil
	}})
	if err != nil {
		return r, err
	}
	if err = r.manager.AddHost(ctx, hostName, 0); err != nil {
		return r, err
	}
	if r.keys, err = s.openKeys(ctx); err != nil {
		return r, err
	}
	r.local = newLocalDevices(s.o.Version, s.o.Log)
	if err = s.claimDirs(ctx, r); err != nil {
		return r, err
	}
	if err = s.ownDomain(ctx, r); err != nil {
		return r, err
	}
	if err = s.defaultPreset(ctx, r); err != nil {
		return r, err
	}
	r.client, err = client.New(ctx, client.Options{
		Manager: r.manager, Open: s.openDevice(r), Key: r.keys.get, Clock: clock.Real{}, Rand: rand.Reader, Log: s.o.Log, Near: []string{s.o.Node},
	})
	if err != nil {
		return r, err
	}
	if r.older != "" {
		s.event(maintenance.Event{Code: "store.older", Level: slog.LevelError, Message: r.older})
	}
	r.leader = &leader{s: s, r: r}
	r.agent = maintenance.New(maintenance.Options{
		Client: r.client, Clock: clock.Real{}, Log: s.o.Log, Event: s.event, AutoRepair: s.o.AutoRepair, Probe: s.o.Probe, Grace: s.o.grace, NoDeletes: r.older != "",
		Leads: r.leader.leading, NodeName: s.NodeName,
	})
	r.agent.Start()
	r.stop = make(chan struct{})
	r.server = s.serveDevices(r.local)
	r.wg.Go(r.leader.run)
	r.wg.Go(func() { s.mark(r) })
	r.wg.Go(func() { s.watchDisks(r) })
	return r, nil
}

// openKeys opens the data keys: with the wrapping key in a file, or, in a cluster that was
// told of none, sealed in the registry.
func (s *Service) openKeys(ctx context.Context) (*keys, error) {
	path := s.o.KeyFile
	if path == "" {
		path = s.nsmPath(wrapFile)
	}
	if s.o.Cluster == nil {
		return openKeys(path, s.o.Registry)
	}
	k := &keys{store: s.o.Registry, path: path, known: map[string]*fragment.Key{}, given: s.o.KeyFile != ""}
	if !k.given {
		k.seal = s.o.Sealer
	}
	return k, k.settle(ctx)
}

func (r *running) close() error {
	if r.agent != nil {
		r.agent.Stop()
		close(r.stop)
		r.wg.Wait()
	}
	var err error
	if r.server != nil {
		err = r.server.close()
	}
	if r.client != nil {
		err = errors.Join(err, r.client.Close())
	}
	if r.local != nil {
		err = errors.Join(err, r.local.close())
	}
	if r.nsmKV != nil {
		err = errors.Join(err, r.nsmKV.Close())
	}
	return err
}

// Close ends the Alba. Stores that were handed out fail from then on.
func (s *Service) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	r := s.run
	if s.run = nil; r == nil {
		return nil
	}
	return r.close()
}

// event keeps what the agent has to tell.
func (s *Service) event(e maintenance.Event) {
	s.eventMu.Lock()
	s.events = append(s.events, Event{At: time.Now().UTC(), Level: e.Level, OSD: e.OSD, Message: e.Message})
	if len(s.events) > eventsMax {
		s.events = slices.Clone(s.events[len(s.events)-eventsMax:])
	}
	s.eventMu.Unlock()
	object := "object store"
	if e.OSD != 0 {
		object = fmt.Sprint("osd ", e.OSD)
	}
	s.o.Told.Tell(event.Code(e.Code), object, "message", e.Message)
	if s.o.Changed != nil {
		s.o.Changed()
	}
}

// ownDomain puts the domain that the configuration names into the records of the node's
// devices: it may have changed since they were claimed.
func (s *Service) ownDomain(ctx context.Context, r *running) error {
	all, err := r.manager.OSDs(ctx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.Node != s.o.Node || o.Domain == s.o.Domain {
			continue
		}
		if _, err := r.manager.Update(ctx, o.Number, func(o *manager.OSD) error { o.Domain = s.o.Domain; return nil }); err != nil {
			return err
		}
	}
	return nil
}

// claimDirs makes devices of the directories that the configuration names.
func (s *Service) claimDirs(ctx context.Context, r *running) error {
	known, err := r.manager.OSDs(ctx)
	if err != nil {
		return err
	}
	for _, d := range s.o.Dirs {
		have := false
		for _, o := range known {
			have = have || o.Kind == kindLocal && o.Node == s.o.Node && o.Directory == d.Path && o.State != manager.Claiming
		}
		if have {
			continue
		}
		if _, err := s.claimDir(ctx, r, d); err != nil {
			// The node serves without it, and says so.
			s.o.Log.Error("device not used", "directory", d.Path, "error", err)
			s.event(maintenance.Event{Code: "osd.unused", Level: slog.LevelError, Message: fmt.Sprintf("directory %s is not used as a device: %v", d.Path, err)})
		}
	}
	return nil
}

// defaultDevices makes devices in the data directory when there is none at all and
// one is needed.
func (s *Service) defaultDevices(ctx context.Context, r *running) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, err := r.manager.OSDs(ctx)
	if err != nil || len(known) > 0 {
		return err
	}
	for i := range DefaultDevices {
		if _, err := s.claimDir(ctx, r, Dir{Path: filepath.Join(s.o.Data, asdDir, strconv.Itoa(i+1))}); err != nil {
			return err
		}
	}
	// What each can take is known once all are there.
	return errors.Join(r.manager.Follow(ctx), r.agent.Probe(ctx), r.client.Refresh(ctx))
}

// DefaultPreset is the preset that follows the devices there are.
const DefaultPreset = "default"

func (s *Service) defaultPreset(ctx context.Context, r *running) error {
	_, err := r.manager.Preset(ctx, "")
	if !errors.Is(err, manager.ErrNotFound) {
		return err
	}
	osds, err := r.manager.OSDs(ctx)
	if err != nil {
		return err
	}
	_, err = r.manager.CreatePreset(ctx, preset.Preset{Name: DefaultPreset, Policies: preset.Automatic(manager.PerGroup(osds, preset.Preset{})), Automatic: true})
	if errors.Is(err, manager.ErrExists) { // another node made it, for the devices that it knew
		return r.manager.Follow(ctx)
	}
	return err
}

// openDevice reaches a device.
func (s *Service) openDevice(r *running) func(o manager.OSD) (osd.OSD, error) {
	return func(o manager.OSD) (osd.OSD, error) {
		switch o.Kind {
		case kindLocal:
			if o.Node != s.o.Node {
				return s.dialNode(o)
			}
			return r.local.open(o)
		case kindASD:
			key, err := s.o.Sealer.Open(sealID(o.UUID), o.Access)
			if err != nil {
				return nil, fmt.Errorf("device %d: access key: %w", o.Number, err)
			}
			return s.dial(o.Address, o.Fingerprint, key, o.UUID)
		}
		return nil, fmt.Errorf("device %d is of kind %q, which this version does not know", o.Number, o.Kind)
	}
}

// Store returns the store of a vPool: the namespaces that begin with prefix.
func (s *Service) Store(ctx context.Context, prefix, presetName string) (backend.Store, error) {
	r, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.defaultDevices(ctx, r); err != nil {
		return nil, fmt.Errorf("alba: %w", err)
	}
	p, err := r.manager.Preset(ctx, presetName)
	if err != nil {
		return nil, err
	}
	if err := p.Redundant(); err != nil {
		return nil, err
	}
	size, err := p.PieceSize()
	if err != nil {
		return nil, err
	}
	return store.New(store.Options{Client: r.client, Prefix: prefix, Preset: p.Name, SmallPieces: size != fragment.Piece64K}), nil
}
