package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

// flood is a load on iSCSI sessions that costs the client as little as it can:
// a command that completes is submitted again from the session's own reader.
type flood struct {
	name     string
	write    bool
	size     int // bytes per command
	depth    int // commands in flight per session
	sessions int
}

// dial logs a flood's sessions in and waits until the unit is ready.
func (f flood) dial(ctx context.Context, a lun.Address) ([]*initiator.Session, error) {
	var list []*initiator.Session
	for range f.sessions {
		s, err := initiator.Dial(ctx, initiator.Options{Address: a.Portal, Target: a.IQN, CHAPUser: a.User, CHAPSecret: a.Secret, CHAPAlgorithms: a.Algorithms})
		if err != nil {
			return list, err
		}
		list = append(list, s)
		if err := s.Ready(ctx, a.LUN); err != nil {
			return list, err
		}
	}
	return list, nil
}

// run floods a LUN of size bytes for some seconds and returns commands per second.
func (f flood) run(ctx context.Context, a lun.Address, size int64, seconds float64, seed uint64) (rate float64, ops int64, err error) {
	sessions, err := f.dial(ctx, a)
	defer func() {
		for _, s := range sessions {
			s.Close()
		}
	}()
	if err != nil {
		return 0, 0, err
	}
	r := &flooding{flood: f, blocks: uint64(f.size) / initiator.BlockSize, places: size / int64(f.size), left: make(chan error, f.sessions*f.depth)}
	start := time.Now()
	for i, s := range sessions {
		rng := rand.New(rand.NewPCG(seed, uint64(i))) // used by the session's reader alone, after the first commands
		first := make([]*initiator.Command, f.depth)
		for k := range first {
			first[k] = r.command(a.LUN)
			r.aim(first[k], rng)
			first[k].Done = func(c *initiator.Command) { r.done(s, c, rng) }
		}
		for _, c := range first {
			if err := s.Submit(c); err != nil {
				return 0, 0, err
			}
		}
	}
	step := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer step.Stop()
	select {
	case <-step.C:
	case <-ctx.Done():
	}
	ops = r.ops.Load()
	rate = float64(ops) / time.Since(start).Seconds()
	r.stop.Store(true)
	for range f.sessions * f.depth {
		err = errors.Join(err, <-r.left)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", f.name, err)
	}
	return rate, ops, ctx.Err()
}

// flooding is a flood that runs.
type flooding struct {
	flood
	blocks uint64
	places int64
	ops    atomic.Int64
	stop   atomic.Bool
	left   chan error // one for each command that is not submitted again
}

func (r *flooding) command(lun uint16) *initiator.Command {
	c := &initiator.Command{LUN: lun}
	if r.write {
		c.Out = make([]byte, r.size)
	} else {
		c.In = make([]byte, r.size)
	}
	return c
}

// aim chooses a random place.
func (r *flooding) aim(c *initiator.Command, rng *rand.Rand) {
	lba := uint64(rng.Int64N(r.places)) * r.blocks
	if r.write {
		c.CDB = initiator.WriteCDB(lba, uint32(r.blocks), false)
	} else {
		c.CDB = initiator.ReadCDB(lba, uint32(r.blocks))
	}
}

// done runs on the session's reader.
func (r *flooding) done(s *initiator.Session, c *initiator.Command, rng *rand.Rand) {
	if c.Err == nil && !r.stop.Load() {
		r.ops.Add(1)
		r.aim(c, rng)
		if c.Err = s.Submit(c); c.Err == nil {
			return
		}
	}
	r.left <- c.Err
}
