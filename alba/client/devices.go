package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/osd"
)

// Requalification: the first trial of a failed device, and how the wait grows.
const (
	trialFirst  = time.Second
	trialMax    = 60 * time.Second
	trialGrowth = 1.5
	// trialTick bounds how late a trial is.
	trialTick = time.Second
)

// device is an open device with what this client has seen of it.
type device struct {
	rec manager.OSD
	osd osd.OSD

	mu      sync.Mutex
	bad     error         // why it is disqualified; nil: it is not
	trialAt time.Time     // when it is tried next
	wait    time.Duration // before the trial after that
	full    bool          // it refused a write for want of space
	// use ends when it is disqualified, and with it the writes that wait for it.
	use context.Context
	end context.CancelCauseFunc

	small, large latency // of reads up to a piece, and above
}

// latencyKept is how long an average says something without a sample: a device that
// is passed by for its slowness is tried again then, by a read that others overtake.
const latencyKept = 30 * time.Second

// latency is a moving average of how long something takes. Times are those since the
// client began. Samples that are taken at once may get lost: it is an estimate.
type latency struct{ ns, at atomic.Int64 }

// add takes a sample; the newest sixteen or so count.
func (l *latency) add(d, now time.Duration) { l.move(d, now, 16) }

// atLeast takes the time after which an answer was not waited for any more.
func (l *latency) atLeast(d, now time.Duration) {
	if d > l.recent(now) {
		l.move(d, now, 4) // it would have taken longer: it counts for more
	}
}

func (l *latency) move(d, now time.Duration, share int64) {
	was := int64(l.recent(now))
	if was == 0 {
		was = int64(d)
	}
	l.ns.Store(was + (int64(d)-was)/share)
	l.at.Store(int64(now))
}

// get returns the average, 0 before the first sample.
func (l *latency) get() time.Duration { return time.Duration(l.ns.Load()) }

// recent returns the average, 0 without a sample lately.
func (l *latency) recent(now time.Duration) time.Duration {
	if now-time.Duration(l.at.Load()) > latencyKept {
		return 0
	}
	return l.get()
}

func (l *latency) copy(from *latency) {
	l.ns.Store(from.ns.Load())
	l.at.Store(from.at.Load())
}

// readLatency returns the average for reads of n bytes.
func (d *device) readLatency(n int64) *latency {
	if n <= osd.Block {
		return &d.small
	}
	return &d.large
}

// failed tells whether the device is disqualified (C4).
func (d *device) failed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bad != nil
}

// admit takes the device into use; d.mu is held, or nobody has it yet.
func (d *device) admit() {
	d.bad = nil
	d.use, d.end = context.WithCancelCause(context.Background())
}

// inUse returns what ends when the device is disqualified, or why it is already.
func (d *device) inUse() (context.Context, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.use, d.bad
}

// view is the devices at one time. Not changed after it was made.
type view struct {
	byNumber map[uint32]*device
	free     map[uint32]int64
	full     map[uint32]bool
}

// devices follows the manager's devices.
type devices struct {
	c    *Client
	mu   sync.Mutex // serialises refreshes
	view atomic.Pointer[view]
	// works is called when a failed device is taken into use again; may be nil.
	works atomic.Pointer[func()]
}

func newDevices(c *Client) *devices {
	d := &devices{c: c}
	d.view.Store(&view{byNumber: map[uint32]*device{}})
	return d
}

// refresh reads the devices. A device whose place changed is opened anew; one
// that cannot be opened counts as failed.
func (d *devices) refresh(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	recs, err := d.c.o.Manager.OSDs(ctx)
	if err != nil {
		return err
	}
	seen, err := d.c.o.Manager.SeenAll(ctx)
	if err != nil {
		return err
	}
	was := d.view.Load()
	now := &view{byNumber: map[uint32]*device{}, free: map[uint32]int64{}, full: map[uint32]bool{}}
	var old []*device
	for _, rec := range recs {
		if rec.State == manager.Claiming || rec.State == manager.Purging {
			continue
		}
		dev := was.byNumber[rec.Number]
		if dev == nil || !samePlace(dev.rec, rec) {
			dev = d.open(rec)
		} else if !sameRecord(dev.rec, rec) {
			dev = dev.with(rec)
		}
		dev.mu.Lock()
		dev.full = false // seen.Full tells from now on
		dev.mu.Unlock()
		now.byNumber[rec.Number] = dev
		now.free[rec.Number] = seen[rec.Number].Free
		now.full[rec.Number] = seen[rec.Number].Full
	}
	for n, dev := range was.byNumber {
		if kept := now.byNumber[n]; kept == nil || kept.osd != dev.osd {
			old = append(old, dev)
		}
	}
	d.view.Store(now)
	for _, dev := range old {
		if dev.osd != nil {
			if err := dev.osd.Close(); err != nil {
				d.c.o.Log.Warn("device was not closed in order", "device", dev.rec.Number, "error", err)
			}
		}
	}
	return nil
}

func samePlace(a, b manager.OSD) bool {
	return a.Kind == b.Kind && a.Address == b.Address && a.Directory == b.Directory && a.Capacity == b.Capacity && a.UUID == b.UUID &&
		a.Fingerprint == b.Fingerprint && bytes.Equal(a.Access, b.Access)
}

func sameRecord(a, b manager.OSD) bool {
	return a.State == b.State && a.Node == b.Node && a.Domain == b.Domain && a.RebuildFrom.Equal(b.RebuildFrom)
}

// with returns the device under a changed record.
func (d *device) with(rec manager.OSD) *device {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &device{rec: rec, osd: d.osd, bad: d.bad, trialAt: d.trialAt, wait: d.wait, full: d.full, use: d.use, end: d.end}
	n.small.copy(&d.small)
	n.large.copy(&d.large)
	return n
}

func (d *devices) open(rec manager.OSD) *device {
	dev := &device{rec: rec}
	dev.admit()
	var err error
	if dev.osd, err = d.c.o.Open(rec); err != nil {
		d.c.disqualify(dev, err)
	}
	return dev
}

// follow refreshes, and tries failed devices, until the client closes.
func (d *devices) follow() {
	ctx, clk := d.c.ctx, d.c.o.Clock
	tick := clk.NewTimer(trialTick)
	defer tick.Stop()
	next := clk.Now().Add(d.c.o.Refresh)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
		}
		if now := clk.Now(); !now.Before(next) {
			next = now.Add(d.c.o.Refresh)
			if err := d.refresh(ctx); err != nil && ctx.Err() == nil {
				d.c.o.Log.Warn("devices could not be read from the metadata store", "error", err)
			}
		}
		d.try(ctx)
		tick.Reset(trialTick)
	}
}

// try gives failed devices whose time has come a trial, side by side.
func (d *devices) try(ctx context.Context) {
	now := d.c.o.Clock.Now()
	var wg sync.WaitGroup
	for _, dev := range d.view.Load().byNumber {
		dev.mu.Lock()
		due := dev.bad != nil && !now.Before(dev.trialAt)
		dev.mu.Unlock()
		if due {
			wg.Go(func() { d.trial(ctx, dev) })
		}
	}
	wg.Wait()
}

// trial writes, reads back, and takes the device into use again if both work.
func (d *devices) trial(ctx context.Context, dev *device) {
	err := d.reopen(dev)
	if err == nil {
		ctx, cancel := WithTimeout(ctx, d.c.o.Clock, d.c.o.Timeout)
		err = Trial(ctx, dev.osd)
		cancel()
	}
	dev.mu.Lock()
	if err != nil {
		dev.bad = err
		dev.wait = min(time.Duration(float64(dev.wait)*trialGrowth), trialMax)
		dev.trialAt = d.c.o.Clock.Now().Add(dev.wait)
		dev.mu.Unlock()
		return
	}
	d.c.stats.Requalif.Add(1)
	d.c.o.Log.Info("device works again", "device", dev.rec.Number, "failed", dev.bad)
	dev.full = false
	dev.admit()
	dev.mu.Unlock()
	if fn := d.works.Load(); fn != nil {
		(*fn)()
	}
}

// reopen opens a device that could not be opened before.
func (d *devices) reopen(dev *device) error {
	if dev.osd != nil {
		return nil
	}
	o, err := d.c.o.Open(dev.rec)
	if err != nil {
		return err
	}
	// Readers look at dev.osd without a lock: put a new device in its place.
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.view.Load()
	if v.byNumber[dev.rec.Number] != dev {
		return errors.Join(fmt.Errorf("device %d was replaced", dev.rec.Number), o.Close())
	}
	n := dev.with(dev.rec)
	n.osd = o
	n.admit()
	next := &view{byNumber: maps.Clone(v.byNumber), free: v.free, full: v.full}
	next.byNumber[dev.rec.Number] = n
	d.view.Store(next)
	dev.osd = nil
	return fmt.Errorf("device %d was opened anew", dev.rec.Number)
}

// Trial writes a key and reads it back: what shows that a device works.
func Trial(ctx context.Context, o osd.OSD) error {
	want := []byte("ovgate trial")
	if err := o.Apply(ctx, nil, []osd.Update{osd.Set(layout.TrialKey(), want)}, osd.High); err != nil && !errors.Is(err, osd.ErrFull) {
		return err
	} else if err != nil {
		_, err = o.Info(ctx) // full: it still serves reads
		return err
	}
	got, err := o.Get(ctx, [][]byte{layout.TrialKey()}, osd.MaxAssertBytes, osd.High)
	if err == nil && !bytes.Equal(got[0].Data, want) {
		err = fmt.Errorf("%w: the trial key reads %q", osd.ErrCorrupt, got[0].Data)
	}
	return err
}

func (d *devices) close() error {
	var err error
	for _, dev := range d.view.Load().byNumber {
		if dev.osd != nil {
			err = errors.Join(err, dev.osd.Close())
		}
	}
	return err
}

// disqualify takes a device out of use until a trial succeeds (C4).
func (c *Client) disqualify(dev *device, why error) {
	dev.mu.Lock()
	defer dev.mu.Unlock()
	if errors.Is(why, osd.ErrFull) {
		dev.full = true
		why = nil
		return
	}
	if dev.bad == nil {
		c.stats.Disqualified.Add(1)
		dev.wait = trialFirst
		dev.trialAt = c.o.Clock.Now().Add(trialFirst)
		c.o.Log.Warn("device failed and gets no writes until it works", "device", dev.rec.Number, "node", dev.rec.Node, "error", why)
	}
	dev.bad = why
	dev.end(why)
}

// Suspect takes the devices of a node out of use until trials show that they work, as if
// calls to each had failed with why: for a node that probably does not answer, so that
// nobody has to wait until calls have timed out. Writes that wait for them go elsewhere.
func (c *Client) Suspect(node string, why error) {
	for _, dev := range c.devices.view.Load().byNumber {
		if dev.rec.Node == node {
			c.disqualify(dev, why)
		}
	}
}

// blame decides what an error of a call says about the device. The caller's own
// context does not count against it.
func (c *Client) blame(ctx context.Context, dev *device, err error) {
	switch {
	case err == nil, ctx.Err() != nil,
		errors.Is(err, osd.ErrAssert), errors.Is(err, osd.ErrNotExist), errors.Is(err, osd.ErrCorrupt),
		errors.Is(err, osd.ErrRange), errors.Is(err, osd.ErrInvalid), errors.Is(err, osd.ErrChecksum):
		return
	}
	c.disqualify(dev, err)
}

// OSDView tells what this client thinks of a device.
type OSDView struct {
	Number      uint32
	Error       string // why it is disqualified; empty: it is not
	Full        bool
	SmallReadNS int64 // average latency of reads up to 64 KiB
	LargeReadNS int64
}

// OSDs returns the client's view of the devices, by number.
func (c *Client) OSDs() []OSDView {
	v := c.devices.view.Load()
	out := make([]OSDView, 0, len(v.byNumber))
	for n, dev := range v.byNumber {
		dev.mu.Lock()
		o := OSDView{Number: n, Full: dev.full || v.full[n], SmallReadNS: int64(dev.small.get()), LargeReadNS: int64(dev.large.get())}
		if dev.bad != nil {
			o.Error = dev.bad.Error()
		}
		dev.mu.Unlock()
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b OSDView) int { return int(a.Number) - int(b.Number) })
	return out
}

// OnWorks has fn called whenever a device that failed is taken into use again; it must not
// wait. The last one that was given counts.
func (c *Client) OnWorks(fn func()) { c.devices.works.Store(&fn) }

// NotUsed returns why a device is not used; nil: it is, or there is none of that number.
func (c *Client) NotUsed(number uint32) error {
	dev := c.devices.view.Load().byNumber[number]
	if dev == nil {
		return nil
	}
	_, err := dev.inUse()
	return err
}

// Device returns an open device by its number, for maintenance; nil when the
// client has none.
func (c *Client) Device(number uint32) osd.OSD {
	if dev := c.devices.view.Load().byNumber[number]; dev != nil {
		return dev.osd
	}
	return nil
}
