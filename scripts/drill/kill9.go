package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/drill/node"
	"github.com/openvstorage/ovgate/scripts/drill/selfcheck"
)

const (
	// loadBlocks is each self-checked vDisk's size in 4 KiB blocks: small enough
	// to verify in a second, and overwritten several times in a round.
	loadBlocks = 8192
	loadDepth  = 32
	// loadDisks are served at once: two, so that they share journal and node.
	loadDisks = 2
	// loadMin and loadMax bound the time under load before the blow.
	loadMin = 300 * time.Millisecond
	loadMax = 2500 * time.Millisecond
)

// smallSettings make a node commit, roll SCOs and recycle its journal within
// the seconds of a round.
var smallSettings = []string{"--journal-quota", "128MiB", "--sco-size", "4MiB", "--commit-interval", "500ms"}

// target is a published vDisk with its load.
type target struct {
	name string
	conn client.Connection
	load *selfcheck.Load
}

// targets creates and publishes vDisks for self-checked loads.
func (e *env) targets(ctx context.Context, n *node.Node, count int) ([]*target, error) {
	var out []*target
	for i := range count {
		t, err := e.target(ctx, n, "drill", i, loadBlocks)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// target creates and publishes the i-th vDisk.
func (e *env) target(ctx context.Context, n *node.Node, vpool string, i, blocks int) (*target, error) {
	name := fmt.Sprintf("load%d", i)
	conn, err := n.CreateVDisk(ctx, vpool, name, int64(blocks)*selfcheck.BlockSize)
	return &target{name, conn, selfcheck.New(blocks, e.seed+uint64(i))}, err
}

// underLoad runs the loads of all targets until blow returns and every command
// was answered or failed. Commands may fail only when the blow is lethal.
func (e *env) underLoad(ctx context.Context, targets []*target, lethal bool, blow func(context.Context) error) error {
	// The disks outlive the load: a command in flight is waited for, not cut.
	disks := make([]disk, len(targets))
	for i, t := range targets {
		d, err := dial(ctx, t.conn)
		if err != nil {
			return fmt.Errorf("vdisk %s: %w", t.name, err)
		}
		defer d.Close()
		disks[i] = d
	}
	loadCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	before := sum(targets)
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		seed := e.rng.Uint64()
		wg.Go(func() { errs[i] = t.load.Run(loadCtx, disks[i], loadDepth, seed) })
	}
	err := blow(ctx)
	cancel()
	wg.Wait()
	after := sum(targets)
	switch {
	case !lethal && after.Unknown > before.Unknown:
		err = errors.Join(err, fmt.Errorf("writes of %d blocks failed on a living node", after.Unknown-before.Unknown))
	case !lethal && after.Unread > before.Unread:
		err = errors.Join(err, fmt.Errorf("%d reads failed on a living node: %w", after.Unread-before.Unread, after.ReadError))
	case after.Blocks == before.Blocks:
		err = errors.Join(err, errors.New("the load wrote nothing"))
	}
	return errors.Join(err, errors.Join(errs...))
}

// verify checks every block of all targets.
func verify(ctx context.Context, targets []*target) error {
	for _, t := range targets {
		d, err := dial(ctx, t.conn)
		if err != nil {
			return fmt.Errorf("vdisk %s: %w", t.name, err)
		}
		err = t.load.Verify(d)
		if err := errors.Join(err, d.Close()); err != nil {
			return fmt.Errorf("vdisk %s: %w", t.name, err)
		}
	}
	return nil
}

// pause waits a random time between lo and hi.
func (e *env) pause(ctx context.Context, lo, hi time.Duration) error {
	return sleep(ctx, lo+time.Duration(e.rng.Int64N(int64(hi-lo))))
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sum adds the figures of all targets.
func sum(targets []*target) selfcheck.Counts {
	var c selfcheck.Counts
	for _, t := range targets {
		n := t.load.Counts()
		c.Writes += n.Writes
		c.Blocks += n.Blocks
		c.Reads += n.Reads
		c.Unknown += n.Unknown
		c.Unread += n.Unread
		if n.ReadError != nil {
			c.ReadError = n.ReadError
		}
	}
	return c
}

// drillNode starts a node with a vPool "drill" whose backend is outside its
// data directory.
func (e *env) drillNode(ctx context.Context, settings ...string) (*node.Node, error) {
	n, err := e.node("data")
	if err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	return n, n.CreateVPool(ctx, "drill", e.backend(), settings...)
}

// backend is the directory of the drill's vPool.
func (e *env) backend() string { return filepath.Join(e.dir, "backend") }

func kill9(ctx context.Context, e *env) (string, error) {
	n, err := e.drillNode(ctx, smallSettings...)
	if err != nil {
		return "", err
	}
	targets, err := e.targets(ctx, n, loadDisks)
	if err != nil {
		return "", err
	}
	for round := range e.rounds {
		before := sum(targets)
		err := e.underLoad(ctx, targets, true, func(ctx context.Context) error {
			return errors.Join(e.pause(ctx, loadMin, loadMax), n.Kill())
		})
		if err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		start := time.Now()
		if err := n.Start(ctx); err != nil {
			return "", fmt.Errorf("round %d: restart: %w", round+1, err)
		}
		restart := time.Since(start)
		if err := verify(ctx, targets); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		c := sum(targets)
		e.say("round %d: %d blocks acknowledged, %d without an answer, restart %v, all verified", round+1,
			c.Blocks-before.Blocks, c.Unknown-before.Unknown, restart.Round(time.Millisecond))
	}
	if err := n.Stop(); err != nil {
		return "", err
	}
	c := sum(targets)
	return fmt.Sprintf("%d rounds, %d writes of %d blocks acknowledged, %d reads, %d blocks unanswered at the blow, 0 lost",
		e.rounds, c.Writes, c.Blocks, c.Reads, c.Unknown), nil
}

// disk is a published vDisk as the drills write to it.
type disk interface {
	selfcheck.Disk
	Close() error
}

// dial opens a published vDisk; ctx bounds its life.
func dial(ctx context.Context, c client.Connection) (disk, error) { return lun.Dial(ctx, lun.Of(c)) }
