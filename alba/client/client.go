// Package client reads and writes the objects of an Alba. It is what the
// original's proxy did, as a library: whoever has a client talks to the
// devices and to the metadata store by itself, and nothing is in between.
//
// # Writing
//
//	epoch, preset, devices ─► policy ─► places: x on a node, by free space
//	   │
//	   ▼ for each chunk
//	split ─► k+m fragments ─► pack ─► one transaction on each device
//	   │                               {namespace is active} fragment, tag
//	   ▼ c of them are durable, and the others too or the slack is over
//	nsm.Apply(asserts, manifests)
//
// # Reading
//
//	manifest (cached) ─► pieces of data fragments ─► verified, decrypted, joined
//	                       └─ missing, damaged, slow: the same pieces of others,
//	                          any k of them, and the code
//
// # Invariants
//
//	C1  An object is there when Put returned nil: c fragments of each chunk and
//	    the manifest are durable. An error leaves open whether it is, unless it
//	    is one of those that nsm.Apply calls definite.
//	C2  What is read was written: every piece fits the checksum in the manifest.
//	    Fragments are tried until k fit; a device that answers with others, late
//	    or never costs time only.
//	C3  A manifest from the cache may be older than the newest. It is used only
//	    while its fragments are there, so what is read is an object that was
//	    there under that name; its absence, and failures, are never concluded
//	    from the cache.
//	C4  A device that fails gets no new fragments until a trial write and read
//	    succeed (disqualified); its fragments are read only where others lack, and
//	    writes that wait for it go elsewhere.
//	C5  What an unfinished upload left is deleted by collection, never by guess:
//	    only a definite refusal lets the client remove its own fragments.
//	C6  A device that answers, but takes a multiple of what others take, delays a
//	    read by no more than that multiple of theirs, and once that is known not
//	    at all: it is passed by, but for a trial now and then that is hedged.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/clock"
)

// Defaults.
const (
	// DefaultSlack is the share of the time that c fragments took for which the
	// others are waited for: the original's 0.2.
	DefaultSlack = 0.2
	// minSlack keeps a fast acknowledgement from leaving objects that do not outlive what
	// whole ones do until they are repaired. Whoever writes does not wait for it: the journal
	// has the data.
	minSlack = time.Second
	// DefaultTimeout bounds one call of a device, the original's 10 s.
	DefaultTimeout = 10 * time.Second
	// DefaultRefresh is how often devices are read from the manager.
	DefaultRefresh = 5 * time.Second
	// DefaultManifestBytes bounds the manifest cache.
	DefaultManifestBytes = 64 << 20
)

var (
	// ErrUnavailable: too few fragments can be read now. The object is not
	// lost while devices come back.
	ErrUnavailable = errors.New("alba: too few fragments can be reached")
	// ErrKey: the data key of an encrypted object is not there.
	ErrKey = errors.New("alba: data key missing")
	// ErrRange: a read beyond the object.
	ErrRange = errors.New("alba: range beyond the object")
	// ErrTooLarge: the object is larger than allowed.
	ErrTooLarge = errors.New("alba: object too large")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("alba: client is closed")
)

// Options configure a Client.
type Options struct {
	Manager *manager.Manager
	// Open reaches a device. The client closes it when it closes, or when the
	// record changes.
	Open func(o manager.OSD) (osd.OSD, error)
	// Key returns the data key with this id (preset.KeyID).
	Key   func(id string) (*fragment.Key, error)
	Clock clock.Clock
	Rand  io.Reader // for object ids: cryptographic
	Log   *slog.Logger
	// Near are the nodes to read from where there is a choice.
	Near []string

	Slack         float64       // DefaultSlack if 0
	Timeout       time.Duration // DefaultTimeout if 0
	Refresh       time.Duration // DefaultRefresh if 0
	ManifestBytes int64         // DefaultManifestBytes if 0
}

// Client reads and writes objects. Safe for concurrent use.
type Client struct {
	o         Options
	devices   *devices
	manifests *manifestCache
	buffers   buffers
	overdue   *overdue
	rngMu     sync.Mutex
	rng       *rand.Rand
	stats     Stats
	spaces    sync.Map // name -> manager.Namespace
	began     time.Time

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	bgMu   sync.Mutex
	closed bool // nothing more is begun in the background
	bg     int
}

// maxBackground bounds what goes on behind calls that returned; beyond it,
// collection and verification find what was left undone.
const maxBackground = 64

// background runs fn behind the caller's back, until the client closes.
func (c *Client) background(fn func(ctx context.Context)) {
	c.bgMu.Lock()
	defer c.bgMu.Unlock()
	if c.closed || c.bg >= maxBackground {
		return
	}
	c.bg++
	c.wg.Go(func() {
		ctx, cancel := WithTimeout(c.ctx, c.o.Clock, c.o.Timeout)
		defer cancel()
		fn(ctx)
		c.bgMu.Lock()
		defer c.bgMu.Unlock()
		c.bg--
	})
}

// Stats counts since the start of a client.
type Stats struct {
	Puts, Gets, Deletes    atomic.Uint64
	PutBytes, GetBytes     atomic.Uint64
	MovedBytes             atomic.Uint64 // read from devices
	ManifestHit            atomic.Uint64
	ManifestMiss           atomic.Uint64
	Degraded               atomic.Uint64 // reads that rebuilt a fragment
	Hedged                 atomic.Uint64 // and those of them that were only slow
	Avoided                atomic.Uint64 // fragments not read because their device has been slow lately
	Incomplete             atomic.Uint64 // objects stored below k+m
	Fallback               atomic.Uint64 // objects stored by another than the first policy
	Damaged                atomic.Uint64 // fragments found missing or damaged by reads
	Disqualified, Requalif atomic.Uint64
}

// New returns a client that follows the manager's devices until Close.
func New(ctx context.Context, o Options) (*Client, error) {
	if o.Slack == 0 {
		o.Slack = DefaultSlack
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Refresh == 0 {
		o.Refresh = DefaultRefresh
	}
	if o.ManifestBytes == 0 {
		o.ManifestBytes = DefaultManifestBytes
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var seed [16]byte
	if _, err := io.ReadFull(o.Rand, seed[:]); err != nil {
		return nil, err
	}
	c := &Client{o: o, manifests: newManifestCache(o.ManifestBytes), began: o.Clock.Now()}
	c.rng = rand.New(rand.NewPCG(le64(seed[:8]), le64(seed[8:])))
	c.overdue = newOverdue(o.Clock)
	c.devices = newDevices(c)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if err := c.devices.refresh(ctx); err != nil {
		c.cancel()
		return nil, err
	}
	c.wg.Go(c.devices.follow)
	return c, nil
}

// Close ends what runs in the background and closes the devices.
func (c *Client) Close() error {
	c.bgMu.Lock()
	c.closed = true
	c.bgMu.Unlock()
	c.cancel()
	c.wg.Wait()
	c.overdue.close()
	return c.devices.close()
}

// Stats returns the counters; they go on counting.
func (c *Client) Stats() *Stats { return &c.stats }

// Manager returns the registry the client follows.
func (c *Client) Manager() *manager.Manager { return c.o.Manager }

// Refresh reads the devices from the manager now.
func (c *Client) Refresh(ctx context.Context) error { return c.devices.refresh(ctx) }

// space is a namespace with its host, as far as a call needs them.
type space struct {
	rec  manager.Namespace
	host *nsm.Host
}

// space finds a namespace. The name is remembered; whoever learns that its
// number is not valid any more forgets it.
func (c *Client) space(ctx context.Context, name string) (space, error) {
	v, ok := c.spaces.Load(name)
	if !ok {
		n, err := c.o.Manager.Namespace(ctx, name)
		if err != nil {
			return space{}, err
		}
		if n.State == nsm.Removing || n.State == manager.Creating {
			return space{}, fmt.Errorf("namespace %s: %w", name, manager.ErrNotFound)
		}
		v = n
		c.spaces.Store(name, n)
	}
	n := v.(manager.Namespace)
	host, err := c.o.Manager.Host(n.Host)
	return space{n, host}, err
}

// gone turns the host's word that a namespace is no more into ErrNotFound, if
// the manager says so too: else its records are lost, and nobody may conclude that
// there are no objects (nsm N7).
func (c *Client) gone(ctx context.Context, name string, err error) error {
	switch {
	case errors.Is(err, nsm.ErrRecovering):
		return fmt.Errorf("namespace %s: %w: %w", name, ErrUnavailable, err)
	case errors.Is(err, nsm.ErrNoNamespace):
		was, _ := c.spaces.LoadAndDelete(name)
		now, lookErr := c.o.Manager.Namespace(ctx, name)
		if was, ok := was.(manager.Namespace); lookErr == nil && now.State == nsm.Active && (!ok || was.ID == now.ID) {
			return fmt.Errorf("namespace %s: %w: %w: recover it from the devices", name, ErrUnavailable, manager.ErrLost)
		}
		if lookErr != nil && !errors.Is(lookErr, manager.ErrNotFound) {
			return fmt.Errorf("namespace %s: %w", name, lookErr)
		}
	case errors.Is(err, nsm.ErrRemoving):
		c.spaces.Delete(name)
	default:
		return err
	}
	return fmt.Errorf("namespace %s: %w: %w", name, manager.ErrNotFound, err)
}

func (c *Client) newObject() (layout.Object, error) {
	var o layout.Object
	_, err := io.ReadFull(c.o.Rand, o[:])
	return o, err
}

// now returns the time since the client began.
func (c *Client) now() time.Duration { return c.o.Clock.Now().Sub(c.began) }

// random returns a number in [0, 1).
func (c *Client) random() float64 {
	c.rngMu.Lock()
	defer c.rngMu.Unlock()
	return c.rng.Float64()
}

// key returns the data key of an object; nil without encryption.
func (c *Client) key(h layout.Header) (*fragment.Key, error) {
	if !h.Encrypted() {
		return nil, nil
	}
	return c.keyByID(fragment.KeyID(h.Key).String())
}

func (c *Client) keyByID(id string) (*fragment.Key, error) {
	if c.o.Key == nil {
		return nil, fmt.Errorf("%w: %s", ErrKey, id)
	}
	k, err := c.o.Key(id)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKey, id, err)
	}
	return k, nil
}

func le64(b []byte) uint64 {
	var v uint64
	for i := range 8 {
		v |= uint64(b[i]) << (8 * i)
	}
	return v
}

// Info is what is known of an object without reading it.
type Info struct {
	Name    string
	Size    int64
	CRC     uint32
	Created time.Time
	Object  layout.Object
}

func infoOf(m *layout.Manifest) Info {
	return Info{Name: m.Name, Size: m.Size, CRC: m.CRC, Created: time.UnixMilli(m.Created), Object: m.Object}
}

// Stat returns what is known of an object; nsm.ErrNotExist.
func (c *Client) Stat(ctx context.Context, namespace, name string) (Info, error) {
	m, err := c.fresh(ctx, namespace, name)
	if err != nil {
		return Info{}, err
	}
	return infoOf(m), nil
}

// List returns up to limit objects whose names begin with prefix and sort after
// "after"; fewer only at the end.
func (c *Client) List(ctx context.Context, namespace, prefix, after string, limit int) ([]Info, error) {
	sp, err := c.space(ctx, namespace)
	if err != nil {
		return nil, err
	}
	var out []Info
	for len(out) < limit {
		page, more, err := sp.host.List(ctx, sp.rec.ID, prefix, after, limit-len(out))
		if err != nil {
			return nil, err
		}
		for _, m := range page {
			out = append(out, infoOf(m))
			after = m.Name
		}
		if !more {
			// What is not listed is absent only where all records are.
			rec, err := sp.host.Namespace(ctx, sp.rec.ID)
			if err == nil && rec.State == nsm.Recovering {
				err = nsm.ErrRecovering
			}
			if err != nil {
				return nil, c.gone(ctx, namespace, err)
			}
			break
		}
	}
	return out, nil
}

// Manifest returns the manifest of an object as the NSM has it: for tools and tests.
func (c *Client) Manifest(ctx context.Context, namespace, name string) (*layout.Manifest, error) {
	return c.fresh(ctx, namespace, name)
}

// fresh reads a manifest from the NSM and remembers it.
func (c *Client) fresh(ctx context.Context, namespace, name string) (*layout.Manifest, error) {
	sp, err := c.space(ctx, namespace)
	if err != nil {
		return nil, err
	}
	token := c.manifests.Token()
	m, err := sp.host.Get(ctx, sp.rec.ID, name)
	if err != nil {
		c.manifests.drop(sp.rec.ID, name)
		if errors.Is(err, nsm.ErrNotExist) {
			// A removed namespace has no objects either; tell the two apart.
			rec, nsErr := sp.host.Namespace(ctx, sp.rec.ID)
			if nsErr == nil && rec.State == nsm.Recovering {
				nsErr = nsm.ErrRecovering // it may only not be found yet
			}
			if nsErr != nil {
				return nil, c.gone(ctx, namespace, nsErr)
			}
		}
		return nil, err
	}
	c.manifests.put(sp.rec.ID, name, m, token)
	return m, nil
}
