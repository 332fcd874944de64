// Package albatest makes a whole Alba in one process for tests: a metadata store,
// devices in memory on simulated nodes, a manager and clients.
package albatest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

// HostName is the name of the NSM host.
const HostName = "host"

// Options describe a cluster.
type Options struct {
	// Nodes holds the number of devices on each node.
	Nodes []int
	// Domain returns that of a node; nil: nobody said.
	Domain func(node string) string
	// Preset is the default preset; policies of preset.Automatic, fragments of
	// 64 KiB when they are not given.
	Preset preset.Preset
	Clock  clock.Clock // clock.Real if nil
	// Client is what Open, Manager, Clock and Rand are put into.
	Client client.Options
	Log    *slog.Logger
	// Store is what manager and NSM are on, closed by the caller; nil: one of its own.
	Store kv.Store
}

// Cluster is an Alba.
type Cluster struct {
	T       testing.TB
	KV      *kv.Bolt // nil with Options.Store
	Manager *manager.Manager
	Client  *client.Client
	NSM     *nsm.Host
	Secret  fragment.Key // the data key of presets whose KeyID is its id

	o    Options
	mu   sync.Mutex
	devs map[string]*osdtest.Mem // by UUID
}

// New returns a cluster that is closed with the test.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Preset.Name == "" {
		o.Preset.Name = "default"
	}
	if o.Preset.Policies == nil {
		o.Preset.Policies = preset.Automatic(o.Nodes)
	}
	if o.Preset.FragmentBytes == 0 {
		o.Preset.FragmentBytes = preset.MinFragmentBytes
	}
	c := &Cluster{T: t, o: o, devs: map[string]*osdtest.Mem{}}
	store := o.Store
	if store == nil {
		c.KV = c.newStore()
		store = c.KV
	}
	c.NSM = nsm.New(store)
	secret := make([]byte, fragment.KeyBytes)
	for i := range secret {
		secret[i] = byte(i * 7)
	}
	var err error
	c.Secret, err = fragment.NewKey(secret)
	must(t, err)
	c.Manager = c.newManager(store, c.host)
	_, err = c.Manager.CreatePreset(t.Context(), o.Preset)
	must(t, err)
	for i, n := range o.Nodes {
		for range n {
			c.AddOSD(Node(i))
		}
	}
	c.Client = c.NewClient()
	return c
}

func (c *Cluster) newManager(store kv.Store, host func(name string) (*nsm.Host, error)) *manager.Manager {
	c.T.Helper()
	m, err := manager.Open(c.T.Context(), manager.Options{Store: store, Clock: c.o.Clock, Rand: rand.Reader, Host: host})
	must(c.T, err)
	must(c.T, m.AddHost(c.T.Context(), HostName, 0))
	return m
}

// Beside returns a client of another process: with a manager and an NSM of its own on the
// store that they share, which the caller opened anew. It is closed with the test.
func (c *Cluster) Beside(store kv.Store) *client.Client {
	c.T.Helper()
	host := nsm.New(store)
	return c.newClient(c.newManager(store, func(string) (*nsm.Host, error) { return host, nil }))
}

// host returns the NSM host as it is now.
func (c *Cluster) host(name string) (*nsm.Host, error) {
	if name != HostName {
		return nil, fmt.Errorf("no host %s", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.NSM, nil
}

// LoseNSM puts an empty store in place of that of the NSM host.
func (c *Cluster) LoseNSM() { c.SetNSM(c.newStore()) }

// SetNSM has the NSM host be on another store.
func (c *Cluster) SetNSM(s kv.Store) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.NSM = nsm.New(s)
}

func (c *Cluster) newStore() *kv.Bolt {
	c.T.Helper()
	store, err := kv.OpenBolt(filepath.Join(c.T.TempDir(), "alba.db"), kv.BoltOptions{Clock: clock.Real{}, NoSync: true})
	must(c.T, err)
	c.T.Cleanup(func() { must(c.T, store.Close()) })
	return store
}

// LoseManager sets the manager up anew on an empty store, and claims the devices
// that answer again. Manager and Client are others afterwards.
func (c *Cluster) LoseManager() {
	c.T.Helper()
	ctx := c.T.Context()
	osds, err := c.Manager.OSDs(ctx)
	must(c.T, err)
	m, err := manager.Open(ctx, manager.Options{Store: c.newStore(), Clock: c.o.Clock, Rand: rand.Reader, Cluster: c.Manager.Cluster(), Host: c.host})
	must(c.T, err)
	must(c.T, m.AddHost(ctx, HostName, 0))
	_, err = m.CreatePreset(ctx, c.o.Preset)
	must(c.T, err)
	for _, o := range osds {
		if _, err := m.Claim(ctx, c.OSD(o.Number), manager.OSD{Kind: o.Kind, Node: o.Node, Domain: o.Domain, Directory: o.Directory}); err != nil {
			c.T.Logf("device %d is not claimed: %v", o.Number, err)
		}
	}
	c.Manager = m
	c.Client = c.NewClient()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Node returns the name of a node.
func Node(i int) string { return fmt.Sprintf("node%d", i) }

// AddOSD claims a new device on a node and returns its number. Clients see it
// with their next refresh.
func (c *Cluster) AddOSD(node string) uint32 {
	c.T.Helper()
	c.mu.Lock()
	uuid := fmt.Sprintf("00000000-0000-4000-8000-%012d", len(c.devs)+1)
	dev := osdtest.NewMem(uuid)
	c.devs[uuid] = dev
	c.mu.Unlock()
	rec := manager.OSD{Kind: "mem", Node: node, Directory: uuid}
	if c.o.Domain != nil {
		rec.Domain = c.o.Domain(node)
	}
	o, err := c.Manager.Claim(c.T.Context(), dev, rec)
	must(c.T, err)
	return o.Number
}

// NewClient returns another client, closed with the test.
func (c *Cluster) NewClient() *client.Client {
	c.T.Helper()
	return c.newClient(c.Manager)
}

func (c *Cluster) newClient(m *manager.Manager) *client.Client {
	c.T.Helper()
	co := c.o.Client
	co.Manager, co.Clock, co.Rand, co.Log = m, c.o.Clock, rand.Reader, c.o.Log
	if co.Refresh == 0 {
		co.Refresh = 100 * time.Millisecond
	}
	co.Open = func(o manager.OSD) (osd.OSD, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if dev := c.devs[o.UUID]; dev != nil {
			return &handle{c: c, uuid: o.UUID, prompt: o.Number%2 == 0}, nil
		}
		return nil, errors.New("no such device")
	}
	co.Key = func(id string) (*fragment.Key, error) {
		if id == c.Secret.ID().String() {
			return &c.Secret, nil
		}
		return nil, fmt.Errorf("no key %s", id)
	}
	cl, err := client.New(c.T.Context(), co)
	must(c.T, err)
	c.T.Cleanup(func() { must(c.T, cl.Close()) })
	return cl
}

// OSD returns a device by its number.
func (c *Cluster) OSD(number uint32) *osdtest.Mem {
	c.T.Helper()
	o, err := c.Manager.OSD(c.T.Context(), number)
	must(c.T, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.devs[o.UUID]
}

// Replace puts another device where one was: an older copy of itself, or another
// identity.
func (c *Cluster) Replace(number uint32, dev *osdtest.Mem) {
	c.T.Helper()
	o, err := c.Manager.OSD(c.T.Context(), number)
	must(c.T, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.devs[o.UUID] = dev
}

// Numbers returns the numbers of the devices that have not left, on a node or, with
// an empty name, on all.
func (c *Cluster) Numbers(node string) []uint32 {
	c.T.Helper()
	all, err := c.Manager.OSDs(c.T.Context())
	must(c.T, err)
	var out []uint32
	for _, o := range all {
		if node == "" || o.Node == node {
			out = append(out, o.Number)
		}
	}
	slices.Sort(out)
	return out
}

// Namespace makes a namespace with the default preset.
func (c *Cluster) Namespace(name string) manager.Namespace {
	c.T.Helper()
	n, err := c.Manager.CreateNamespace(c.T.Context(), name, "")
	must(c.T, err)
	return n
}

// handle is a device as a client has it open: it can be closed, and follows
// Replace.
type handle struct {
	c      *Cluster
	uuid   string
	prompt bool
}

var (
	_ osd.OSD    = (*handle)(nil)
	_ osd.Prompt = (*handle)(nil)
)

// Prompt implements osd.Prompt: some are and some are not, so that both are tested.
func (h *handle) Prompt() bool { return h.prompt }

func (h *handle) dev(ctx context.Context) (*osdtest.Mem, error) {
	h.c.mu.Lock()
	d := h.c.devs[h.uuid]
	h.c.mu.Unlock()
	info, err := d.Info(ctx)
	if err == nil && info.ID != h.uuid {
		err = fmt.Errorf("%w: %s answers for %s", osd.ErrIdentity, info.ID, h.uuid)
	}
	return d, err
}

func (h *handle) Info(ctx context.Context) (osd.Info, error) {
	d, err := h.dev(ctx)
	if err != nil {
		return osd.Info{}, err
	}
	return d.Info(ctx)
}

func (h *handle) Stats(ctx context.Context) (osd.Stats, error) {
	d, err := h.dev(ctx)
	if err != nil {
		return osd.Stats{}, err
	}
	return d.Stats(ctx)
}

func (h *handle) Get(ctx context.Context, keys [][]byte, limit int, prio osd.Priority) ([]osd.Value, error) {
	d, err := h.dev(ctx)
	if err != nil {
		return nil, err
	}
	return d.Get(ctx, keys, limit, prio)
}

func (h *handle) Read(ctx context.Context, key []byte, off int64, p []byte, prio osd.Priority) error {
	d, err := h.dev(ctx)
	if err != nil {
		return err
	}
	return d.Read(ctx, key, off, p, prio)
}

func (h *handle) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update, prio osd.Priority) error {
	d, err := h.dev(ctx)
	if err != nil {
		return err
	}
	return d.Apply(ctx, asserts, updates, prio)
}

func (h *handle) List(ctx context.Context, prefix, after []byte, limit int, prio osd.Priority) ([]osd.Entry, error) {
	d, err := h.dev(ctx)
	if err != nil {
		return nil, err
	}
	return d.List(ctx, prefix, after, limit, prio)
}

func (h *handle) Validate(ctx context.Context, prefix, after []byte, limit int, budget int64) (osd.Validation, error) {
	d, err := h.dev(ctx)
	if err != nil {
		return osd.Validation{}, err
	}
	return d.Validate(ctx, prefix, after, limit, budget)
}

func (h *handle) Close() error { return nil }
