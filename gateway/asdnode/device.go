package asdnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/alba/asd"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/clock"
)

const (
	// reopenMin is before a device that failed is opened anew; it doubles each time that this
	// does not work, or does not last for reopenMax, up to that.
	reopenMin = time.Second
	reopenMax = 30 * time.Second
)

// Device is a directory that this process has as a device. When its disk fails it is opened
// anew, as by a restart of the process (D4); in between every call fails with osd.ErrFailed, and
// says why. It implements osd.OSD.
type Device struct {
	id   string
	open func() (*asd.Store, error) // anew, the same device
	log  *slog.Logger
	clk  clock.Clock
	lock io.Closer

	failed chan struct{} // somebody met osd.ErrFailed; of size 1
	stop   context.CancelFunc
	kept   chan struct{} // keep has ended

	mu    sync.RWMutex
	store *asd.Store
	away  error // why there is none; nil: there is
}

// Open takes a directory for this process as OpenDir does, until Close.
func Open(dir string, o Options) (*Device, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("asd directory: %w", err)
	}
	store, lock, err := OpenDir(dir, o)
	if err != nil {
		return nil, err
	}
	info, err := store.Info(context.Background())
	if err != nil {
		return nil, errors.Join(err, store.Close(), lock.Close())
	}
	o.ID = info.ID
	d := newDevice(store, lock, o, func() (*asd.Store, error) { return openAgain(dir, o) })
	return d, nil
}

func newDevice(store *asd.Store, lock io.Closer, o Options, open func() (*asd.Store, error)) *Device {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	d := &Device{
		id: o.ID, open: open, log: o.Log, clk: clock.Real{}, lock: lock,
		failed: make(chan struct{}, 1), stop: stop, kept: make(chan struct{}), store: store,
	}
	go func() { d.keep(ctx); close(d.kept) }()
	return d
}

// ID is the device's identity.
func (d *Device) ID() string { return d.id }

// keep opens the device anew whenever it failed, until ctx ends.
func (d *Device) keep(ctx context.Context) {
	opened, wait := d.clk.Now(), reopenMin
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.failed:
		}
		_, err := d.store.Info(ctx)
		if !errors.Is(err, osd.ErrFailed) {
			continue // word of the store before
		}
		d.leave(err)
		_ = d.store.Close() // of a store that failed: every caller was told
		if d.clk.Now().Sub(opened) > reopenMax {
			wait = reopenMin
		}
		for err != nil {
			if clock.Sleep(ctx, d.clk, wait) != nil {
				return
			}
			wait = min(2*wait, reopenMax)
			if err = d.again(); err != nil {
				d.log.Warn("device is not opened anew, which is tried again", "device", d.id, "error", err)
				d.leave(fmt.Errorf("%w: %w", osd.ErrFailed, err))
			}
		}
		opened = d.clk.Now()
		d.log.Info("device opened anew after a failure of its disk", "device", d.id)
	}
}

// leave has calls fail.
func (d *Device) leave(why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = why
}

// again opens the device.
func (d *Device) again() error {
	s, err := d.open()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.store, d.away = s, nil
	return nil
}

// now is the store, or why there is none.
func (d *Device) now() (*asd.Store, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.store, d.away
}

// use does something with the store. A store that keep closed meanwhile has not begun with it:
// it is asked of the next one.
func (d *Device) use(do func(*asd.Store) error) error {
	s, err := d.now()
	for err == nil {
		err = do(s)
		if errors.Is(err, osd.ErrFailed) {
			select {
			case d.failed <- struct{}{}:
			default:
			}
		}
		if !errors.Is(err, osd.ErrClosed) {
			return err
		}
		next, away := d.now()
		if next == s && away == nil {
			return err // closed for good
		}
		s, err = next, away
	}
	return err
}

// Info implements osd.OSD.
func (d *Device) Info(ctx context.Context) (info osd.Info, err error) {
	err = d.use(func(s *asd.Store) error { info, err = s.Info(ctx); return err })
	return info, err
}

// Stats implements osd.OSD.
func (d *Device) Stats(ctx context.Context) (stats osd.Stats, err error) {
	err = d.use(func(s *asd.Store) error { stats, err = s.Stats(ctx); return err })
	return stats, err
}

// Get implements osd.OSD.
func (d *Device) Get(ctx context.Context, keys [][]byte, limit int, prio osd.Priority) (values []osd.Value, err error) {
	err = d.use(func(s *asd.Store) error { values, err = s.Get(ctx, keys, limit, prio); return err })
	return values, err
}

// Read implements osd.OSD.
func (d *Device) Read(ctx context.Context, key []byte, off int64, p []byte, prio osd.Priority) error {
	return d.use(func(s *asd.Store) error { return s.Read(ctx, key, off, p, prio) })
}

// Apply implements osd.OSD.
func (d *Device) Apply(ctx context.Context, asserts []osd.Assert, updates []osd.Update, prio osd.Priority) error {
	return d.use(func(s *asd.Store) error { return s.Apply(ctx, asserts, updates, prio) })
}

// List implements osd.OSD.
func (d *Device) List(ctx context.Context, prefix, after []byte, limit int, prio osd.Priority) (entries []osd.Entry, err error) {
	err = d.use(func(s *asd.Store) error { entries, err = s.List(ctx, prefix, after, limit, prio); return err })
	return entries, err
}

// Validate implements osd.OSD.
func (d *Device) Validate(ctx context.Context, prefix, after []byte, limit int, budget int64) (v osd.Validation, err error) {
	err = d.use(func(s *asd.Store) error { v, err = s.Validate(ctx, prefix, after, limit, budget); return err })
	return v, err
}

// Close gives the directory back. Calls end before it.
func (d *Device) Close() error {
	d.stop()
	<-d.kept
	return errors.Join(d.store.Close(), d.lock.Close())
}
