// Package lun opens an iSCSI LUN as io.ReaderAt and io.WriterAt, over the
// project's own initiator: what drills, benches and end-to-end tests write
// through. One session, many commands in flight.
package lun

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/iscsi/initiator"
)

// Bounds of opening: a node that was just restarted replays its journal before
// it lets an initiator in, so a refused login is tried again.
const (
	dialTimeout = 60 * time.Second
	retryPause  = 100 * time.Millisecond
)

// Address says where a LUN is and as whom to log in.
type Address struct {
	Portal, IQN  string
	LUN          uint16
	Initiator    string // its name; empty: initiator.DefaultInitiator
	User, Secret string // CHAP; empty: none
	// Algorithms are the CHAP digests to offer, as numbers; empty: the
	// initiator's. tgt chooses SHA-256 and then fails on its length: "5" for it.
	Algorithms string
	// ISID makes a login throw out the session that has the same; zero: a random one.
	ISID [6]byte
	// Patience bounds each command, and one try to log in; the session ends with a command
	// that takes longer. 0: nothing does.
	Patience time.Duration
}

// Of returns the address of a published vDisk.
func Of(c client.Connection) Address {
	return Address{Portal: c.Portals[0].Address, IQN: c.IQN, LUN: uint16(c.LUN), User: c.ChapUser, Secret: c.ChapSecret}
}

// LUN is an open logical unit. Safe for concurrent use.
type LUN struct {
	ctx      context.Context
	s        *initiator.Session
	lun      uint16
	size     int64
	patience time.Duration
}

// Dial logs in and waits until the unit is ready. ctx bounds the whole life of
// the LUN: when it ends, commands fail and the session is closed.
func Dial(ctx context.Context, a Address) (*LUN, error) {
	limit, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	for {
		l, err := dialOnce(ctx, limit, a)
		if err == nil {
			return l, nil
		}
		if final(err) {
			return nil, fmt.Errorf("LUN %d of %s at %s: %w", a.LUN, a.IQN, a.Portal, err)
		}
		select {
		case <-limit.Done():
			return nil, fmt.Errorf("LUN %d of %s at %s is not ready: %w", a.LUN, a.IQN, a.Portal, err)
		case <-time.After(retryPause):
		}
	}
}

// final tells a refusal that trying again does not change: the target knows us
// and does not let us in (RFC 7143 section 11.13.5, class 2 up to 0202). 0203,
// no such target, passes while a node starts.
func final(err error) bool {
	var refused *initiator.LoginError
	return errors.As(err, &refused) && refused.Status >= 0x0200 && refused.Status <= 0x0202
}

// DialOnce is Dial that tries once.
func DialOnce(ctx context.Context, a Address) (*LUN, error) {
	limit, cancel := ctx, context.CancelFunc(func() {})
	if a.Patience > 0 {
		limit, cancel = context.WithTimeout(ctx, a.Patience)
	}
	defer cancel()
	return dialOnce(ctx, limit, a)
}

func dialOnce(ctx, limit context.Context, a Address) (*LUN, error) {
	s, err := initiator.Dial(limit, initiator.Options{Address: a.Portal, Target: a.IQN, Initiator: a.Initiator,
		CHAPUser: a.User, CHAPSecret: a.Secret, CHAPAlgorithms: a.Algorithms, ISID: a.ISID})
	if err != nil {
		return nil, err
	}
	if err := s.Ready(limit, a.LUN); err != nil {
		s.Close()
		return nil, err
	}
	c, err := s.ReadCapacity(limit, a.LUN)
	if err != nil {
		s.Close()
		return nil, err
	}
	if c.BlockSize != initiator.BlockSize {
		s.Close()
		return nil, fmt.Errorf("logical blocks of %d bytes, want %d", c.BlockSize, initiator.BlockSize)
	}
	return &LUN{ctx: ctx, s: s, lun: a.LUN, size: int64(c.Blocks) * initiator.BlockSize, patience: a.Patience}, nil
}

// Size returns the capacity in bytes.
func (l *LUN) Size() int64 { return l.size }

// Capacity asks the target for the capacity in bytes, which may have grown. The news of
// that, a unit attention, is taken notice of first.
func (l *LUN) Capacity() (int64, error) {
	if err := l.s.Ready(l.ctx, l.lun); err != nil {
		return 0, err
	}
	c, err := l.s.ReadCapacity(l.ctx, l.lun)
	return int64(c.Blocks) * initiator.BlockSize, err
}

// ReadAt fills p, a multiple of 512 bytes, from off.
func (l *LUN) ReadAt(p []byte, off int64) (int, error) {
	return l.io(l.s.ReadAt, p, off)
}

// WriteAt stores p, a multiple of 512 bytes, at off.
func (l *LUN) WriteAt(p []byte, off int64) (int, error) {
	return l.io(l.s.WriteAt, p, off)
}

func (l *LUN) io(do func(context.Context, uint16, []byte, uint64) error, p []byte, off int64) (int, error) {
	if off < 0 || off%initiator.BlockSize != 0 || len(p)%initiator.BlockSize != 0 {
		return 0, fmt.Errorf("I/O of %d bytes at %d is not in whole blocks of %d", len(p), off, initiator.BlockSize)
	}
	ctx := l.ctx
	if l.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, l.patience)
		defer cancel()
	}
	if err := do(ctx, l.lun, p, uint64(off)/initiator.BlockSize); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetPatience changes the patience of commands from now on; none is in flight.
func (l *LUN) SetPatience(p time.Duration) { l.patience = p }

// Drop breaks the connection without a logout.
func (l *LUN) Drop() { l.s.Close() }

// Close logs out; on a session that has ended already it only cleans up.
func (l *LUN) Close() error {
	defer l.s.Close()
	if l.s.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), dialTimeout)
	defer cancel()
	err := l.s.Logout(ctx)
	if errors.Is(err, initiator.ErrClosed) {
		return nil
	}
	return err
}
