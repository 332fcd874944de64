package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// A group snapshot is a snapshot of several vDisks at one moment: whatever was
// acknowledged on any of them before a write that one snapshot has was sent, the others
// have. The committers of the vDisks meet with the mark in hand. None appends anything
// between its arrival and that of the last, then each appends its mark. So a write that
// is in a snapshot was appended before its committer arrived, hence before the last one
// did; what was acknowledged before it came was appended earlier still, and its
// committer had not arrived.

const (
	// MaxGroup bounds the vDisks of a group snapshot.
	MaxGroup = 256
	// groupWait bounds how long writes of a vDisk wait for the others of its group. It
	// is above what one append takes on a busy disk, and below what an application
	// notices.
	groupWait = 2 * time.Second
)

// PinGroup says that a snapshot is of a group. All have the UUID of the snapshot, so one
// of which there are fewer than Size was cut off.
type PinGroup struct {
	Size int `json:"size"` // vDisks
}

// meeting is where the committers of a group meet.
type meeting struct {
	mu    sync.Mutex
	left  int           // who has not arrived
	here  chan struct{} // closed when all have; nil: the meeting ends then
	ended bool
	end   chan struct{} // closed when it has ended
	err   error         // why it was given up
}

// arrive returns when the meeting has ended; an error if it was given up.
func (m *meeting) arrive(v *Volume) error {
	m.mu.Lock()
	if m.left--; m.left == 0 && m.here != nil {
		close(m.here)
	} else if m.left == 0 {
		m.finish(nil)
	}
	m.mu.Unlock()
	select {
	case <-m.end:
	case <-v.ctx.Done():
		m.over(fmt.Errorf("vdisk %s: %w", v.id, ErrClosed))
	}
	return m.failed()
}

// failed returns why it was given up.
func (m *meeting) failed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// over ends the meeting, with an error if it is given up, unless it has ended.
func (m *meeting) over(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finish(err)
}

// finish is over with mu held.
func (m *meeting) finish(err error) {
	if !m.ended {
		m.ended, m.err = true, err
		close(m.end)
	}
}

// GroupPart makes a group snapshot one of vDisks of several nodes.
type GroupPart struct {
	// Size is how many vDisks the group has on all nodes.
	Size int
	// Meet is called when those here have come to rest. It returns when all others have too,
	// or why the group is given up, and soon after ctx ends.
	Meet func(ctx context.Context) error
}

// SnapshotGroup makes a snapshot of each of the open vDisks, all of one host and each
// once, at one moment: they have the same ID and name, and are durable on return. Asking
// again with the ID and name of one that is there returns that one; one that was cut off
// is made anew. It is all or nothing: after an error no snapshot stays, unless the error
// says so.
//
// Errors: ErrInvalid, ErrExists for a name in use on one of them, ErrStalled when one did
// not come to it within groupWait, those of a write.
func SnapshotGroup(ctx context.Context, vols []*Volume, s SnapshotSpec) ([]Snapshot, error) {
	return SnapshotPart(ctx, vols, s, GroupPart{Size: len(vols)})
}

// SnapshotPart is SnapshotGroup of the vDisks that this host has of a group; ErrGroupLate if
// part.Meet does not return in time, and its errors. Each part is all or nothing; who leads the group has to delete those that were made when another was not.
func SnapshotPart(ctx context.Context, vols []*Volume, s SnapshotSpec, part GroupPart) ([]Snapshot, error) {
	if err := CheckSnapshot(s); err != nil {
		return nil, err
	}
	sorted := slices.SortedFunc(slices.Values(vols), func(a, b *Volume) int { return cmp.Compare(a.id.String(), b.id.String()) })
	for i, v := range sorted {
		if v.host != sorted[0].host || i > 0 && v.id == sorted[i-1].id {
			return nil, fmt.Errorf("vdisk %s: %w: a group has vdisks of one node, each once", v.id, ErrInvalid)
		}
	}
	if len(vols) == 0 || part.Size < len(vols) || part.Size > MaxGroup {
		return nil, fmt.Errorf("%w: a group of %d vdisks, %d of them here; it has 1 to %d", ErrInvalid, part.Size, len(vols), MaxGroup)
	}
	h := vols[0].host
	if s.ID == (ID{}) {
		var err error
		if s.ID, err = NewID(h.o.Rand); err != nil {
			return nil, err
		}
	}
	h.groupMu.Lock() // two that have vDisks in common would wait for each other
	defer h.groupMu.Unlock()
	if part.Meet == nil {
		out, err := groupMade(ctx, vols, s)
		if out != nil || err != nil {
			return out, err
		}
	} else if err := undoGroup(ctx, vols, s.ID); err != nil { // it is of another moment
		return nil, err
	}
	if err := markGroup(ctx, vols, s, part); err != nil {
		return nil, errors.Join(err, undoGroup(ctx, vols, s.ID))
	}
	return groupMade(ctx, vols, s)
}

// groupMade returns the snapshots of a group that is complete, nil if it is to be made.
// What is left of one that was cut off is deleted.
func groupMade(ctx context.Context, vols []*Volume, s SnapshotSpec) ([]Snapshot, error) {
	var out []Snapshot
	for _, v := range vols {
		v.pinMu.Lock()
		if p := v.findPin(func(p *Pin) bool { return p.ID == s.ID && p.Name == s.Name }); p != nil {
			out = append(out, p.snapshot(v.up.committed.Load()))
		}
		v.pinMu.Unlock()
	}
	if len(out) == len(vols) {
		return out, nil
	}
	return nil, undoGroup(ctx, vols, s.ID)
}

// undoGroup deletes what there is of a group.
func undoGroup(ctx context.Context, vols []*Volume, id ID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), groupWait)
	defer cancel()
	var errs []error
	for _, v := range vols {
		v.pinMu.Lock()
		p := v.findPin(func(p *Pin) bool { return p.ID == id && p.Group != nil })
		v.pinMu.Unlock()
		if p == nil {
			continue
		}
		if err := v.submitMark(ctx, &mark{Drop: &id, forced: true}); err != nil {
			errs = append(errs, fmt.Errorf("the snapshot of vdisk %s stays: %w", v.id, err))
		}
	}
	return errors.Join(errs...)
}

// markGroup has every vDisk make its mark, all at one moment.
func markGroup(ctx context.Context, vols []*Volume, s SnapshotSpec, part GroupPart) error {
	m := &meeting{left: len(vols), end: make(chan struct{})}
	if part.Meet != nil {
		m.here = make(chan struct{})
	}
	// Of a meeting that was given up no mark is made any more, also of those that come
	// to it later: they are not waited for.
	marking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		m.chair(ctx, vols[0].host.o.Clock, part.Meet)
		if m.failed() != nil {
			cancel()
		}
	})
	errs := make([]error, len(vols))
	for i, v := range vols {
		wg.Go(func() {
			pin := &Pin{ID: s.ID, Name: s.Name, Labels: maps.Clone(s.Labels), Consistent: s.Consistent, Sticky: s.Sticky, Automatic: s.Automatic,
				Group: &PinGroup{Size: part.Size}}
			if errs[i] = v.submitMark(marking, &mark{Pin: pin, meet: m}); errs[i] != nil {
				m.over(errs[i])
			}
		})
	}
	wg.Wait()
	if err := m.failed(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// chair sees to it that a meeting ends in time, and has it wait for those on other nodes.
func (m *meeting) chair(ctx context.Context, clk clock.Clock, meet func(context.Context) error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := clk.NewTimer(groupWait)
	defer timer.Stop()
	select {
	case <-timer.C():
		m.over(fmt.Errorf("%w: the group's vdisks did not all come to rest within %v; see which is stalled or slow", ErrStalled, groupWait))
	case <-ctx.Done():
		m.over(ctx.Err())
	case <-m.end:
	case <-m.here:
		met := make(chan struct{})
		go func() {
			defer close(met)
			m.over(meet(ctx))
		}()
		select {
		case <-timer.C():
			m.over(fmt.Errorf("%w, which is %v", ErrGroupLate, groupWait))
		case <-ctx.Done():
			m.over(ctx.Err())
		case <-m.end:
		}
		cancel()
		<-met
	}
}
