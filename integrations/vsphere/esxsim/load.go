package esxsim

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// Where a Load puts what it writes, in bytes from the start of a datastore's data: one of 2 GiB
// has room for it with 8 hosts.
const (
	guestBlock = 4096
	// guestBlocks is what each virtual machine writes to in turn, guestEach the room that it has.
	guestBlocks = 512
	guestEach   = 64 << 20
	lockPlace   = 1 << 30
	// guestPause is between writes of a virtual machine, lockPause between tries of a host to
	// have the lock: all of it runs on one small machine.
	guestPause = 10 * time.Millisecond
	lockPause  = 20 * time.Millisecond
	opATS      = 0x89
)

// Watcher sees what hosts and targets tell each other. Its Between is for Options.
type Watcher struct {
	mu      sync.Mutex
	slowest time.Duration
	lost    []string
	seen    int
}

// Between hears of an exchange.
func (w *Watcher) Between(x *Exchange) {
	if !x.Ended {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen++
	if x.CDB[0] == opATS {
		w.slowest = max(w.slowest, time.Since(x.At))
	}
	if x.Lost() {
		w.lost = append(w.lost, fmt.Sprintf("%s at %s: opcode %#02x: %x", x.Host, x.Portal, x.CDB[0], x.Sense))
	}
}

// Seen is how many answers there were, Slowest the longest time to one to COMPARE AND WRITE.
func (w *Watcher) Seen() (answers int, slowest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen, w.slowest
}

// Lost is an error when a host was told that a LUN is gone.
func (w *Watcher) Lost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lost) == 0 {
		return nil
	}
	return fmt.Errorf("hosts are told %d times that the LUN is gone: %s", len(w.lost), w.lost[0])
}

// Load is what hosts do with a datastore: on each a virtual machine writes all the time, and all
// contend for a lock with COMPARE AND WRITE through all portals.
type Load struct {
	guests  []*guest
	lockers []*locker
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	failed  chan struct{} // closed with the first error
	once    sync.Once
	err     error // the first
}

// guest is a virtual machine, whose blocks hold the number of their write.
type guest struct {
	host      *Host
	datastore string
	at        int64 // bytes

	mu      sync.Mutex
	n       uint64 // writes
	last    time.Time
	longest time.Duration // between two writes, since Mark
}

// locker is a host that contends for the lock. A state of the lock never comes back, so that a
// miscompare is false when it is there still.
type locker struct {
	host      *Host
	datastore string
	id        uint64
	portals   []string

	tries       uint64
	won, missed uint64
	unknown     uint64        // without an answer
	longest     time.Duration // of these
}

// Totals are what a Load did.
type Totals struct {
	Writes, Won, Missed, Unknown uint64
	Unanswered                   time.Duration // longest COMPARE AND WRITE without an answer
}

// NewLoad returns a Load of some hosts.
func (v *VCenter) NewLoad(datastore string, hosts int, portals []string) *Load {
	l := &Load{}
	for i := range hosts {
		h := v.Host(i)
		l.guests = append(l.guests, &guest{host: h, datastore: datastore, at: int64(i) * guestEach})
		l.lockers = append(l.lockers, &locker{host: h, datastore: datastore, id: uint64(i), portals: portals})
	}
	return l
}

// Start has it go on until Stop, or the first error. It may be started again after Stop.
func (l *Load) Start(ctx context.Context) {
	ctx, l.cancel = context.WithCancel(ctx)
	l.failed, l.once, l.err = make(chan struct{}), sync.Once{}, nil
	for i := range l.guests {
		l.wg.Go(func() { l.keep(l.guests[i].run(ctx)) })
		l.wg.Go(func() { l.keep(l.lockers[i].run(ctx)) })
	}
}

func (l *Load) keep(err error) {
	if err != nil {
		l.once.Do(func() { l.err = err; close(l.failed) })
	}
}

// Failed is closed when a write failed, or a miscompare was false; Stop tells which.
func (l *Load) Failed() <-chan struct{} { return l.failed }

// Stop ends it and returns the first error.
func (l *Load) Stop() error {
	l.cancel()
	l.wg.Wait()
	return l.err
}

// Mark begins to measure anew, and returns the time.
func (l *Load) Mark() time.Time {
	for _, g := range l.guests {
		g.mu.Lock()
		g.longest, g.last = 0, time.Now()
		g.mu.Unlock()
	}
	return time.Now()
}

// Longest is the longest time without a write of any virtual machine since Mark.
func (l *Load) Longest() (out time.Duration) {
	for _, g := range l.guests {
		g.mu.Lock()
		out = max(out, g.longest)
		g.mu.Unlock()
	}
	return out.Round(time.Millisecond)
}

// Silent tells of a virtual machine that wrote nothing since a time; nil: all did.
func (l *Load) Silent(since time.Time) error {
	for _, g := range l.guests {
		g.mu.Lock()
		last := g.last
		g.mu.Unlock()
		if last.Before(since) {
			return fmt.Errorf("no write of the virtual machine on %s", g.host.Name())
		}
	}
	return nil
}

// Totals tells what it did. It does not run.
func (l *Load) Totals() (t Totals) {
	for i, g := range l.guests {
		x := l.lockers[i]
		t.Writes, t.Won, t.Missed, t.Unknown = t.Writes+g.n, t.Won+x.won, t.Missed+x.missed, t.Unknown+x.unknown
		t.Unanswered = max(t.Unanswered, x.longest)
	}
	return t
}

// Verify reads what each virtual machine wrote through another host, and the number of the lock.
// It does not run.
func (l *Load) Verify() error {
	for i, g := range l.guests {
		if err := g.verify(l.guests[(i+1)%len(l.guests)].host); err != nil {
			return err
		}
	}
	b, t := make([]byte, initiator.BlockSize), l.Totals()
	if err := l.guests[0].host.ReadAt(l.guests[0].datastore, b, lockPlace); err != nil {
		return err
	}
	if n := be.Uint64(b); n < t.Won || n > t.Won+t.Unknown {
		return fmt.Errorf("the lock was taken %d times, and %d times without an answer, and its number is %d", t.Won, t.Unknown, n)
	}
	return nil
}

// pause returns after d; false: ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (g *guest) block(n uint64) []byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], n)
	binary.BigEndian.PutUint64(b[8:], uint64(g.at))
	return bytes.Repeat(b[:], guestBlock/len(b))
}

// run writes until ctx ends; a write that fails is one that a guest sees fail.
func (g *guest) run(ctx context.Context) error {
	for ; pause(ctx, guestPause); g.n++ {
		if err := g.host.WriteAt(g.datastore, g.block(g.n), g.at+int64(g.n%guestBlocks)*guestBlock); err != nil {
			return fmt.Errorf("a virtual machine on %s: %w", g.host.Name(), err)
		}
		g.mu.Lock()
		now := time.Now()
		g.longest, g.last = max(g.longest, now.Sub(g.last)), now
		g.mu.Unlock()
	}
	return nil
}

func (g *guest) verify(through *Host) error {
	got := make([]byte, guestBlock)
	for i := uint64(0); i < min(g.n, guestBlocks); i++ {
		n := g.n - 1 - (g.n-1-i)%guestBlocks // newest write to block i
		if err := through.ReadAt(g.datastore, got, g.at+int64(i)*guestBlock); err != nil {
			return err
		}
		if !bytes.Equal(got, g.block(n)) {
			return fmt.Errorf("a virtual machine of %s: block %d does not hold write %d", g.host.Name(), i, n)
		}
	}
	return nil
}

// run takes the next number of the lock again and again.
func (l *locker) run(ctx context.Context) error {
	fresh, before, read := make([]byte, initiator.BlockSize), make([]byte, initiator.BlockSize), make([]byte, initiator.BlockSize)
	for portal := int(l.id); pause(ctx, lockPause); {
		at := l.portals[portal%len(l.portals)]
		if l.host.ReadThrough(l.datastore, at, before, lockPlace) != nil {
			portal++
			continue
		}
		l.tries++
		be.PutUint64(fresh, be.Uint64(before)+1)
		be.PutUint64(fresh[8:], l.id)
		be.PutUint64(fresh[16:], l.tries)
		began := time.Now()
		same, err := l.host.CompareAndWrite(l.datastore, at, before, fresh, lockPlace)
		switch {
		case err != nil:
			l.unknown++
			l.longest = max(l.longest, time.Since(began))
			portal++
			continue
		case same:
			l.won++
			continue
		}
		l.missed++
		if l.host.ReadThrough(l.datastore, at, read, lockPlace) == nil && bytes.Equal(read, before) {
			return fmt.Errorf("%s at %s: a miscompare with what is there, number %d", l.host.Name(), at, be.Uint64(before))
		}
	}
	return nil
}
