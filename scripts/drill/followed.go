package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/drill/selfcheck"
)

const (
	// followedBlocks is each vDisk's size in 4 KiB blocks: few enough that the load writes
	// most of them within seconds.
	followedBlocks = 1024
	// followedDepth and followedRate bound the load, so that a machine of two processors has
	// time for the cluster: commands in flight of each vDisk, and commands per second of all.
	followedDepth = 2
	followedRate  = 300
	// hostPatience is how long a host waits for an answer before it looks for another path.
	hostPatience = 2 * time.Second
	// verifyPatience is that of a check, which reads what may be on the store alone.
	verifyPatience = time.Minute
	// lookEvery is how often a host that has no path looks for one.
	lookEvery = 100 * time.Millisecond
)

// followed is a vDisk with the host that writes to it, wherever it is served.
type followed struct {
	name    string
	conn    client.Connection
	portals []string // of all nodes, or with multipath of hostPaths of them
	multi   bool     // the host has multipath
	load    *selfcheck.Load
	isid    [6]byte
	every   time.Duration // between its writes

	mu      sync.Mutex
	fault   time.Time
	resumed time.Time     // first write on a path that was found after the fault; zero: none yet
	last    time.Time     // newest write
	longest time.Duration // between two writes, from the fault on
	bad     error         // first answer that a host passes on to who writes
}

// mark begins to measure: a fault happens now.
func (f *followed) mark() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.resumed, f.last, f.longest = time.Now(), time.Time{}, time.Now(), 0
}

// acked notes a write that was acknowledged on a path found at opened.
func (f *followed) acked(opened time.Time) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.longest, f.last = max(f.longest, now.Sub(f.last)), now
	if f.resumed.IsZero() && opened.After(f.fault) {
		f.resumed = now
	}
}

// measured returns when writes went on on another path, counted from the fault, false if they
// did not; and the longest time without one.
func (f *followed) measured() (resumed time.Duration, moved bool, longest time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.resumed.Sub(f.fault), !f.resumed.IsZero(), max(f.longest, time.Since(f.last))
}

// writesSince tells whether a write was acknowledged after a moment.
func (f *followed) writesSince(t time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last.After(t)
}

func (f *followed) address(portal string) lun.Address {
	a := lun.Of(f.conn)
	a.Portal, a.Patience = portal, hostPatience
	return a
}

// find returns a path, which ends with life: portals are tried all at a time, again and again,
// and whoever serves it lets the host in.
func (f *followed) find(ctx, life context.Context) (*lun.LUN, string, error) {
	for {
		d, portal := f.try(life)
		if d != nil {
			return d, portal, nil
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return nil, "", fmt.Errorf("vdisk %s is served nowhere: %w", f.name, err)
		}
	}
}

func (f *followed) try(ctx context.Context) (*lun.LUN, string) {
	type path struct {
		d      *lun.LUN
		portal string
	}
	found := make(chan path, len(f.portals))
	for _, p := range f.portals {
		a := f.address(p)
		a.ISID = f.isid
		go func() {
			found <- path{dialChecked(ctx, a), p}
		}()
	}
	for i := range f.portals {
		if p := <-found; p.d != nil {
			go func() { // a second one would be found by the check of who serves it
				for range len(f.portals) - 1 - i {
					if o := <-found; o.d != nil {
						o.d.Drop()
					}
				}
			}()
			return p.d, p.portal
		}
	}
	return nil, ""
}

// dialChecked returns a path that a read is answered on, nil if there is none: a node that may
// not serve lets hosts in, and keeps them waiting.
func dialChecked(ctx context.Context, a lun.Address) *lun.LUN {
	d, err := lun.DialOnce(ctx, a)
	if err != nil {
		return nil
	}
	if _, err := d.ReadAt(make([]byte, selfcheck.BlockSize), 0); err != nil {
		d.Drop()
		return nil
	}
	return d
}

// follow runs the load until ctx ends; commands in flight then are waited for, unless life
// ends, too. What it returns is a broken promise.
func (f *followed) follow(ctx, life context.Context, seed uint64) error {
	if f.multi {
		return f.followPaths(ctx, life, seed)
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	every := time.NewTicker(f.every)
	defer every.Stop()
	for ctx.Err() == nil {
		d, portal, err := f.find(ctx, life)
		if err != nil {
			return nil // the end: nothing was promised
		}
		p := &hostPath{LUN: d, f: f, opened: time.Now(), every: every.C, end: ctx.Done()}
		err = f.load.Run(ctx, p, followedDepth, rng.Uint64())
		if ctx.Err() != nil {
			err = errors.Join(err, p.close())
		} else {
			d.Drop()
		}
		if err != nil {
			return fmt.Errorf("vdisk %s at %s: %w", f.name, portal, err)
		}
	}
	return nil
}

// hostPath is a way to the vDisk; the first command that fails ends it, as a host's multipath
// does.
type hostPath struct {
	*lun.LUN
	f      *followed
	opened time.Time
	every  <-chan time.Time
	end    <-chan struct{}

	mu     sync.Mutex
	failed error
}

func (p *hostPath) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.LUN.ReadAt(b, off)
	return n, p.check(err)
}

func (p *hostPath) WriteAt(b []byte, off int64) (int, error) {
	select {
	case <-p.every:
	case <-p.end:
	}
	n, err := p.LUN.WriteAt(b, off)
	if err == nil {
		p.f.acked(p.opened)
	}
	return n, p.check(err)
}

func (p *hostPath) check(err error) error {
	if err != nil {
		if passedOn(err) {
			p.f.failed(err)
		}
		p.mu.Lock()
		p.failed = err
		p.mu.Unlock()
		p.Drop()
	}
	return err
}

// passedOn tells whether a host gives an error to who writes, and does not send the command
// again, on another path: it does so with those of the medium and of the command itself.
func passedOn(err error) bool {
	var e *initiator.SCSIError
	if !errors.As(err, &e) {
		return false // the path
	}
	switch e.Status {
	case initiator.CheckCondition:
		return e.Sense.Key != initiator.NotReady && e.Sense.Key != initiator.UnitAttention && e.Sense.Key != initiator.AbortedCommand
	case initiator.Busy, initiator.TaskSetFull:
		return false
	}
	return true
}

// failed notes an error that a host passes on.
func (f *followed) failed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bad = cmp.Or(f.bad, err)
}

// passed returns the first error that a host passed on.
func (f *followed) passed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bad != nil {
		return fmt.Errorf("vdisk %s: a host had an I/O error: %w", f.name, f.bad)
	}
	return nil
}

// close logs out of a path that works.
func (p *hostPath) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		return nil
	}
	return p.LUN.Close()
}

// verify reads everything where the vDisk is served, and sees to it that nobody else serves
// it; with multipath it reads everything on each path.
func (f *followed) verify(ctx context.Context) error {
	if f.multi {
		return f.verifyPaths(ctx)
	}
	limited, cancel := context.WithTimeout(ctx, resumeLimit)
	defer cancel()
	d, portal, err := f.find(limited, ctx)
	if err != nil {
		return err
	}
	d.SetPatience(verifyPatience)
	err = f.load.Verify(d)
	if err != nil {
		return fmt.Errorf("vdisk %s at %s: %w", f.name, portal, err)
	}
	for _, other := range f.portals {
		if other == portal {
			continue
		}
		if o, err := lun.DialOnce(ctx, f.address(other)); err == nil {
			o.Drop()
			return fmt.Errorf("vdisk %s is served at %s and at %s", f.name, portal, other)
		}
	}
	return d.Close()
}

// stale is a path to a node that loses the vDisk, with reads on it.
type stale struct {
	f   *followed
	lun *lun.LUN
	wg  sync.WaitGroup

	mu       sync.Mutex
	answered int
	errs     []error
}

// staleReads is how many reads cover the vDisk.
const staleReads = 32

// read sends reads of all blocks. They are answered when the node gets to it.
func (s *stale) read() {
	n := s.f.load.Blocks() / staleReads
	for i := range staleReads {
		s.wg.Go(func() {
			answered, err := s.f.load.Probe(s.lun, i*n, n)
			s.mu.Lock()
			defer s.mu.Unlock()
			if answered {
				s.answered++
			}
			if err != nil {
				s.errs = append(s.errs, err)
			}
		})
	}
}

// end waits until all reads were answered or the session ended, at most so long, and returns
// how many were answered, and what was wrong.
func (s *stale) end(patience time.Duration) (int, error) {
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
	}
	s.lun.Drop()
	<-done
	return s.answered, errors.Join(s.errs...)
}
