package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
)

// wholeLimit bounds the time until everything that was stored while a storage machine was away
// is as safe as before.
const wholeLimit = 3 * time.Minute

// storageMachine chooses one.
func (c *clusterDrill) storageMachine() string {
	all := c.l.Storage()
	return all[c.e.rng.IntN(len(all))]
}

// clusterStorageKill: a storage machine is killed and starts again.
func clusterStorageKill(ctx context.Context, e *env) (string, error) {
	return e.storageRounds(ctx, func(ctx context.Context, c *clusterDrill, machine string) (func(context.Context) error, error) {
		return func(ctx context.Context) error { return c.l.Start(ctx, machine) }, c.l.Kill(ctx, machine)
	})
}

// clusterStoragePause: a storage machine stands still and goes on.
func clusterStoragePause(ctx context.Context, e *env) (string, error) {
	return e.storageRounds(ctx, func(_ context.Context, c *clusterDrill, machine string) (func(context.Context) error, error) {
		return func(context.Context) error { return c.l.Signal(machine, syscall.SIGCONT) }, c.l.Signal(machine, syscall.SIGSTOP)
	})
}

// clusterStorageCut: a storage machine loses everybody.
func clusterStorageCut(ctx context.Context, e *env) (string, error) {
	return e.storageRounds(ctx, func(ctx context.Context, c *clusterDrill, machine string) (func(context.Context) error, error) {
		return c.l.Heal, c.l.Cut(ctx, machine, "all")
	})
}

// storageRounds takes a storage machine away under load and brings it back. Writes go on, on
// journals and into the object store, and no vDisk moves. In the end the nodes, which have
// nothing of it in memory then, read everything without another storage machine.
func (e *env) storageRounds(ctx context.Context, fault func(context.Context, *clusterDrill, string) (mend func(context.Context) error, err error)) (string, error) {
	c, err := e.cluster(ctx)
	if err != nil {
		return "", err
	}
	pause := clusterPause
	if fullCluster() {
		pause = clusterPauseFull
	}
	figures, err := c.rounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		before, err := c.agree(ctx)
		if err != nil {
			return err
		}
		machine := c.storageMachine()
		began := c.mark()
		mend, err := fault(ctx, c, machine)
		if err == nil {
			err = c.stored(ctx)
		}
		if err == nil {
			err = errors.Join(sleep(ctx, time.Until(began.Add(pause))), c.writing(ctx, time.Now()))
		}
		if err == nil {
			c.note(nil)
		}
		if err := errors.Join(err, mend(ctx)); err != nil {
			return fmt.Errorf("without %s: %w", machine, err)
		}
		took, err := c.whole(ctx)
		if err != nil {
			return err
		}
		e.say("%s was away for %v; everything is whole %v after it is back", machine, time.Since(began).Round(time.Second)-took.Round(time.Second), took.Round(time.Second))
		return c.unmoved(ctx, before)
	})
	if err != nil {
		return "", err
	}
	return figures + "; all read from the object store alone without a storage machine", c.withoutOne(ctx)
}

// stored waits until every vDisk has brought what was written from now on to the object store.
func (c *clusterDrill) stored(ctx context.Context) error {
	// What the first commit has may have been under way before.
	for range 2 {
		since := time.Now()
		err := eventually(ctx, mirrorLimit, "stored", func(ctx context.Context) error {
			all, err := c.agree(ctx)
			if err != nil {
				return err
			}
			for name, v := range all {
				if v.LastCommit == nil || v.LastCommit.Before(since) {
					return fmt.Errorf("vdisk %s of %s has no commit after %v: the last is of %v", name, v.Node, since, v.LastCommit)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// whole waits until all devices work and nothing waits for repair, and any two devices may be
// lost, and returns how long that took.
func (c *clusterDrill) whole(ctx context.Context) (time.Duration, error) {
	const tolerates = 2
	began := time.Now()
	api, err := c.l.API(c.l.Nodes()[0])
	if err != nil {
		return 0, err
	}
	err = eventually(ctx, wholeLimit, "whole", func(ctx context.Context) error {
		if err := client.Done(api.SurveyAlba(ctx)); err != nil {
			return err
		}
		s, err := client.Get[client.Alba](api.GetAlba(ctx))
		if err != nil {
			return err
		}
		if s.SurveyedAt == nil || s.SurveyedAt.Before(began) || s.Failed > 0 || s.Repair > 0 || s.Tolerates == nil || *s.Tolerates < tolerates {
			return fmt.Errorf("%s: %d to repair, %d of %d devices do not work", s.Safety, s.Repair, s.Failed, s.Osds)
		}
		return nil
	})
	return time.Since(began), err
}

// withoutOne ends the nodes in order, and one storage machine, and reads everything.
func (c *clusterDrill) withoutOne(ctx context.Context) error {
	if err := c.l.Each(c.l.Nodes(), func(n string) error { return c.l.Stop(ctx, n) }); err != nil {
		return err
	}
	machine := c.storageMachine()
	if err := c.l.Kill(ctx, machine); err != nil {
		return err
	}
	if err := c.l.Each(c.l.Nodes(), func(n string) error { return c.l.Start(ctx, n) }); err != nil {
		return err
	}
	if err := errors.Join(c.mirrored(ctx), c.verify(ctx)); err != nil {
		return fmt.Errorf("without %s: %w", machine, err)
	}
	return c.l.Start(ctx, machine)
}
