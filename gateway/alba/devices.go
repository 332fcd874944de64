package alba

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/alba/asd/remote"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/gateway/asdnode"
	"github.com/openvstorage/ovgate/internal/clock"
)

// Kinds of devices.
const (
	kindLocal = "local" // a directory of the node, in its own process
	kindASD   = "asd"   // an ASD over the network
)

// localDevices are the directories that this process has open as devices.
type localDevices struct {
	version string
	log     *slog.Logger

	mu     sync.Mutex
	byDir  map[string]*localDevice
	closed bool
}

// localDevice is an open directory. Handles share it; while its disk fails too.
type localDevice struct {
	*asdnode.Device
	dir  string
	dev  uint64 // of the file system
	all  *localDevices
	refs int
}

func newLocalDevices(version string, log *slog.Logger) *localDevices {
	return &localDevices{version: version, log: log, byDir: map[string]*localDevice{}}
}

// open opens a device by its identity (V2).
func (l *localDevices) open(o manager.OSD) (osd.OSD, error) {
	return l.use(o.Directory, asdnode.Options{ID: o.UUID, Existing: true, Capacity: o.Capacity})
}

// make opens a directory as a device, making one in a directory that is empty.
func (l *localDevices) make(d Dir) (osd.OSD, error) {
	return l.use(d.Path, asdnode.Options{Capacity: d.Bytes})
}

// handle is one use of a device.
type handle struct {
	*localDevice
	once sync.Once
}

// Close gives the use back; the device closes with its last.
func (h *handle) Close() (err error) {
	h.once.Do(func() { err = h.all.release(h.localDevice) })
	return err
}

func (l *localDevices) use(dir string, o asdnode.Options) (osd.OSD, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	if dev := l.byDir[dir]; dev != nil {
		if o.ID != "" && dev.ID() != o.ID {
			return nil, fmt.Errorf("%w: directory %s holds %s, not %s", osd.ErrIdentity, dir, dev.ID(), o.ID)
		}
		dev.refs++
		return &handle{localDevice: dev}, nil
	}
	dev, err := l.openDir(dir, o)
	if err != nil {
		return nil, err
	}
	dev.refs = 1
	l.byDir[dir] = dev
	return &handle{localDevice: dev}, nil
}

func (l *localDevices) openDir(dir string, o asdnode.Options) (*localDevice, error) {
	o.Log, o.Version = l.log, l.version
	d, err := asdnode.Open(dir, o)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, errors.Join(fmt.Errorf("asd directory %s: %w", dir, err), d.Close())
	}
	return &localDevice{Device: d, dir: dir, dev: st.Dev, all: l}, nil
}

// byID returns the device with this identity that is open; nil: none.
func (l *localDevices) byID(uuid string) *localDevice {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.byDir {
		if d.ID() == uuid {
			return d
		}
	}
	return nil
}

// Info implements osd.OSD. Devices on one file system share what is free there:
// each says its part, so that the sum is right.
func (d *localDevice) Info(ctx context.Context) (osd.Info, error) {
	info, err := d.Device.Info(ctx)
	if err != nil {
		return info, err
	}
	d.all.mu.Lock()
	share := int64(0)
	for _, o := range d.all.byDir {
		if o.dev == d.dev {
			share++
		}
	}
	d.all.mu.Unlock()
	if share > 1 {
		info.Free /= share
		info.Total /= share
	}
	return info, nil
}

func (l *localDevices) release(d *localDevice) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.refs--; d.refs > 0 || l.byDir[d.dir] != d {
		return nil
	}
	delete(l.byDir, d.dir)
	return d.Device.Close()
}

func (l *localDevices) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	var err error
	for _, d := range l.byDir {
		err = errors.Join(err, d.Device.Close())
	}
	clear(l.byDir)
	return err
}

// claimDir makes a device of a directory and claims it.
func (s *Service) claimDir(ctx context.Context, r *running, d Dir) (manager.OSD, error) {
	dev, err := r.local.make(d)
	if err != nil {
		return manager.OSD{}, err
	}
	o, err := r.manager.Claim(ctx, dev, manager.OSD{Kind: kindLocal, Node: s.o.Node, Domain: s.o.Domain, Directory: d.Path, Capacity: d.Bytes, Replaces: d.replaces})
	if err != nil {
		return o, errors.Join(err, dev.Close())
	}
	if r.client == nil {
		return o, dev.Close() // the client opens it again
	}
	return o, errors.Join(r.client.Refresh(ctx), dev.Close())
}

// sealID binds the sealed access key of an ASD to the device.
func sealID(uuid string) string { return "alba-osd-" + uuid }

// dial returns an ASD over the network. key is hexadecimal; an empty uuid accepts
// any device.
func (s *Service) dial(address, fingerprint, key, uuid string) (*remote.Client, error) {
	secret, err := hex.DecodeString(key)
	if err != nil || len(secret) != remote.KeyBytes {
		return nil, fmt.Errorf("access key: give the %d hexadecimal digits that the ASD's access.key holds", 2*remote.KeyBytes)
	}
	return remote.New(remote.Options{
		Address: address, Fingerprint: fingerprint, Key: secret, ID: uuid, Clear: s.o.Clear, Clock: clock.Real{}, Rand: rand.Reader,
		Dial: (&net.Dialer{}).DialContext,
	})
}
