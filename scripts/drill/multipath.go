package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

const (
	// hostPaths is how many nodes a host with multipath reaches a vDisk through.
	hostPaths = 2
	// pathPatience is after how long without an answer a host leaves a path and sends the
	// command on the other one. It is above the age at which a target drops a command
	// (ARCHITECTURE.md: command_max_age, 4 s), as every initiator's is: what was left is never
	// carried out after what follows it.
	pathPatience = 5 * time.Second
	// noPathLimit is how long a command waits while no path works, before whoever writes has
	// an error: no_path_retry of the configuration that hosts are given.
	noPathLimit = 3 * time.Minute
	// statusPause is before a command is sent again that was answered with a status.
	statusPause = 50 * time.Millisecond
)

// multipath is a vDisk over several paths at once: commands take each in turn, whichever node
// serves the vDisk, so that half of them or more are forwarded. One that fails with its path,
// or is answered that it has to be sent again, is sent on the other path.
//
//	answered with a status that is tried again   at once, on the next path
//	the path failed                              pathPatience after it was sent
//
// Safe for concurrent use.
type multipath struct {
	f     *followed
	every <-chan time.Time
	end   <-chan struct{} // no more commands
	life  context.Context // of paths and commands
	stop  context.CancelFunc
	wg    sync.WaitGroup // those that look for paths

	mu    sync.Mutex
	paths []*lun.LUN // by portal; nil: it does not work
	next  int        // path of the next command
	found chan struct{}
}

// newMultipath looks for all paths, again and again until it is closed.
func newMultipath(f *followed, every <-chan time.Time, end <-chan struct{}, life context.Context) *multipath {
	m := &multipath{f: f, every: every, end: end, paths: make([]*lun.LUN, len(f.portals)), found: make(chan struct{})}
	m.life, m.stop = context.WithCancel(life)
	for i, portal := range f.portals {
		a := f.address(portal)
		a.ISID, a.Patience = f.isid, pathPatience
		m.wg.Go(func() { m.keep(i, a) })
	}
	return m
}

// keep has a path work, whenever that is possible.
func (m *multipath) keep(i int, a lun.Address) {
	for sleep(m.life, lookEvery) == nil {
		m.mu.Lock()
		works := m.paths[i] != nil
		m.mu.Unlock()
		if works {
			continue
		}
		d := dialChecked(m.life, a)
		if d == nil {
			continue
		}
		m.mu.Lock()
		m.paths[i] = d
		close(m.found)
		m.found = make(chan struct{})
		m.mu.Unlock()
	}
}

// path returns the next one that works, and waits for one while none does.
func (m *multipath) path(ctx context.Context) (int, *lun.LUN, error) {
	for {
		m.mu.Lock()
		for range m.paths {
			i := m.next % len(m.paths)
			m.next++
			if d := m.paths[i]; d != nil {
				m.mu.Unlock()
				return i, d, nil
			}
		}
		found := m.found
		m.mu.Unlock()
		select {
		case <-found:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// leave ends a path that failed.
func (m *multipath) leave(i int, d *lun.LUN) {
	d.Drop()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.paths[i] == d {
		m.paths[i] = nil
	}
}

// do carries a command out on some path. Its error is what a host has who writes.
func (m *multipath) do(command func(*lun.LUN) error) error {
	ctx, cancel := context.WithTimeout(m.life, noPathLimit)
	defer cancel()
	var last error
	for {
		i, d, err := m.path(ctx)
		if err != nil {
			return m.fail(errors.Join(fmt.Errorf("no path for %v: %w", noPathLimit, err), last))
		}
		sent := time.Now()
		if err = command(d); err == nil {
			return nil
		}
		if passedOn(err) {
			return m.fail(err)
		}
		last = err
		pause := statusPause
		var status *initiator.SCSIError
		if !errors.As(err, &status) {
			m.leave(i, d)
			pause = time.Until(sent.Add(pathPatience))
		}
		if sleep(ctx, pause) != nil {
			return m.fail(errors.Join(fmt.Errorf("no answer for %v: %w", noPathLimit, ctx.Err()), last))
		}
	}
}

// fail notes an error for whoever writes, but for one of the end.
func (m *multipath) fail(err error) error {
	if m.life.Err() == nil {
		m.f.failed(err)
	}
	return err
}

// ReadAt implements selfcheck.Disk.
func (m *multipath) ReadAt(b []byte, off int64) (int, error) {
	err := m.do(func(d *lun.LUN) error { _, err := d.ReadAt(b, off); return err })
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// WriteAt implements selfcheck.Disk.
func (m *multipath) WriteAt(b []byte, off int64) (int, error) {
	select {
	case <-m.every:
	case <-m.end:
	}
	err := m.do(func(d *lun.LUN) error { _, err := d.WriteAt(b, off); return err })
	if err != nil {
		return 0, err
	}
	m.f.acked(time.Time{})
	return len(b), nil
}

// close ends all paths; no command is in flight.
func (m *multipath) close() {
	m.stop()
	m.wg.Wait()
	for _, d := range m.paths {
		if d != nil {
			d.Drop()
		}
	}
}

// followPaths is follow over all paths at once. An error that a host has who writes is a broken
// promise, too.
func (f *followed) followPaths(ctx, life context.Context, seed uint64) error {
	every := time.NewTicker(f.every)
	defer every.Stop()
	m := newMultipath(f, every.C, ctx.Done(), life)
	err := f.load.Run(ctx, m, followedDepth, seed)
	m.close()
	if err != nil {
		return fmt.Errorf("vdisk %s over %d paths: %w", f.name, len(f.portals), err)
	}
	return f.passed()
}

// verifyPaths reads everything on each path alone.
func (f *followed) verifyPaths(ctx context.Context) error {
	for _, portal := range f.portals {
		var d *lun.LUN
		err := eventually(ctx, resumeLimit, "a path at "+portal, func(context.Context) error {
			if d = dialChecked(ctx, f.address(portal)); d == nil {
				return errors.New("it does not answer")
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("vdisk %s: %w", f.name, err)
		}
		d.SetPatience(verifyPatience)
		if err := errors.Join(f.load.Verify(d), d.Close()); err != nil {
			return fmt.Errorf("vdisk %s at %s: %w", f.name, portal, err)
		}
	}
	return nil
}
