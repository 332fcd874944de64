package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/drill/selfcheck"
)

const (
	// manyVDisks is how many vDisks there are beside those that hosts write to, in the short
	// form; manyVDisksFull makes 1,000 of all.
	manyVDisks     = 60
	manyVDisksFull = 1000 - clusterVDisksFull
	// manyWorkers make, and read, so many of them at a time.
	manyWorkers = 8
	// manyLimit bounds what is done with all of them at once: far above the goal of half a
	// minute for a takeover, which is measured.
	manyLimit = 15 * time.Minute
	// manyPrefix begins their names.
	manyPrefix = "many"
)

// quiet is a vDisk with one block that nobody writes to again.
type quiet struct {
	name string
	conn client.Connection
	data []byte
}

// clusterMany: a node with a third of very many vDisks is killed. All of them are taken over,
// with what is in them, those that hosts use before the others.
func clusterMany(ctx context.Context, e *env) (string, error) {
	count := manyVDisks
	if fullCluster() {
		count = manyVDisksFull
	}
	var all []*quiet
	var took time.Duration
	var moved, before int
	figures, err := e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		if all == nil {
			var err error
			if all, err = c.fillMany(ctx, count); err != nil {
				return err
			}
		}
		if err := c.manyRun(ctx, "", mirrorLimit*5); err != nil {
			return err
		}
		n, hit, err := c.victim(ctx)
		if err != nil {
			return err
		}
		was, err := c.vdisks(ctx, n)
		if err != nil {
			return err
		}
		began := c.mark()
		if err := c.l.Kill(ctx, n); err != nil {
			return err
		}
		used := make(chan int, 1)
		watch, stop := context.WithCancel(ctx)
		defer stop()
		go func() { // how many of the others run when the last one in use does
			k := 0
			if c.elsewhere(watch, n, hit) == nil {
				k, _ = c.manyMoved(watch, n, was)
			}
			used <- k
		}()
		if err := c.manyRun(ctx, n, manyLimit); err != nil {
			return err
		}
		took = max(took, time.Since(began))
		for _, v := range was {
			if v.Node == n {
				moved++
			}
		}
		before += <-used
		if err := c.settled(ctx, hit); err != nil {
			return err
		}
		if err := c.readMany(ctx, n, all); err != nil {
			return err
		}
		return c.l.Start(ctx, n)
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; %d vDisks in all, %d taken over, the last %v after the fault, %d of those that nobody used before the last one in use", figures, len(all)+e.countLoads(),
		moved, took.Round(10*time.Millisecond), before), nil
}

// countLoads is how many vDisks hosts write to.
func (e *env) countLoads() int {
	if fullCluster() {
		return clusterVDisksFull
	}
	return clusterVDisks
}

// eachOf does something with each of n, a few at a time, until it fails.
func eachOf(n int, do func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, min(n, manyWorkers))
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && errs[w] == nil; i = next.Add(1) - 1 {
				errs[w] = do(int(i))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// fillMany makes the vDisks, spread over the nodes, each with a block of its own.
func (c *clusterDrill) fillMany(ctx context.Context, count int) ([]*quiet, error) {
	began := time.Now()
	all := make([]*quiet, count)
	err := eachOf(count, func(i int) error {
		q := &quiet{name: fmt.Sprintf("%s%04d", manyPrefix, i), data: bytes.Repeat(binary.BigEndian.AppendUint64(nil, c.e.seed+uint64(i)), selfcheck.BlockSize/8)}
		on := c.l.Nodes()[i%clusterNodes]
		var err error
		if q.conn, err = c.create(ctx, on, q.name); err != nil {
			return err
		}
		all[i] = q
		return q.with(ctx, c.l.Portal(on), func(d *lun.LUN) error {
			_, err := d.WriteAt(q.data, 0)
			return err
		})
	})
	c.e.say("%d more vDisks in %v", count, time.Since(began).Round(100*time.Millisecond))
	return all, err
}

// with opens a path to the vDisk.
func (q *quiet) with(ctx context.Context, portal string, do func(*lun.LUN) error) error {
	a := lun.Of(q.conn)
	a.Portal, a.Patience = portal, verifyPatience
	d, err := lun.Dial(ctx, a)
	if err != nil {
		return fmt.Errorf("vdisk %s at %s: %w", q.name, portal, err)
	}
	defer d.Drop()
	if err := do(d); err != nil {
		return fmt.Errorf("vdisk %s at %s: %w", q.name, portal, err)
	}
	return nil
}

// readMany reads every vDisk where it is now, by the word of a node that lives.
func (c *clusterDrill) readMany(ctx context.Context, dead string, all []*quiet) error {
	asked := c.l.Nodes()[0]
	if asked == dead {
		asked = c.l.Nodes()[1]
	}
	at, err := c.vdisks(ctx, asked)
	if err != nil {
		return err
	}
	return eachOf(len(all), func(i int) error {
		return all[i].with(ctx, c.l.Portal(at[all[i].name].Node), func(d *lun.LUN) error {
			got := make([]byte, len(all[i].data))
			if _, err := d.ReadAt(got, 0); err != nil {
				return err
			}
			if !bytes.Equal(got, all[i].data) {
				return errors.New("its block is not what was acknowledged")
			}
			return nil
		})
	})
}

// manyMoved counts the vDisks that were a node's, are not in use, and run on another one.
func (c *clusterDrill) manyMoved(ctx context.Context, from string, was map[string]client.VDisk) (int, error) {
	n := 0
	for _, on := range c.l.Nodes() {
		if on == from {
			continue
		}
		now, err := c.vdisks(ctx, on)
		if err != nil {
			return n, err
		}
		for name, v := range now {
			if v.Node == on && v.State == client.VDiskStateRunning && was[name].Node == from && strings.HasPrefix(name, manyPrefix) {
				n++
			}
		}
	}
	return n, nil
}

// manyRun waits until every vDisk runs on a node that is not the dead one, as that node knows
// it; with all nodes there, until its journal is mirrored too.
func (c *clusterDrill) manyRun(ctx context.Context, dead string, limit time.Duration) error {
	return eventually(ctx, limit, "all vDisks running", func(ctx context.Context) error {
		run, total := 0, 0
		for _, on := range c.l.Nodes() {
			if on == dead {
				continue
			}
			now, err := c.vdisks(ctx, on)
			if err != nil {
				return err
			}
			total = len(now)
			for _, v := range now {
				if v.Node == on && v.State == client.VDiskStateRunning && (dead != "" || v.Dtl.State == client.DtlStateOk) {
					run++
				}
			}
		}
		if run < total {
			return fmt.Errorf("%d of %d do", run, total)
		}
		return nil
	})
}
