package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// lostNode loses the whole data directory twice: after an orderly stop, when
// everything must come back by itself, and after a kill, when what was
// committed must come back and the vDisks must say that a tail is missing.
func lostNode(ctx context.Context, e *env) (string, error) {
	path, err := e.image(ctx)
	if err != nil {
		return "", err
	}
	n, err := e.drillNode(ctx)
	if err != nil {
		return "", err
	}
	conn, err := n.CreateVDisk(ctx, "drill", "image", e.size)
	if err != nil {
		return "", err
	}
	if err := convert(ctx, path, conn); err != nil {
		return "", err
	}
	targets, err := e.targets(ctx, n, 1)
	if err != nil {
		return "", err
	}
	for round := range e.rounds {
		for _, orderly := range []bool{true, false} {
			if n, err = e.loseNode(ctx, n, targets, path, orderly); err != nil {
				return "", fmt.Errorf("round %d, orderly stop %v: %w", round+1, orderly, err)
			}
		}
	}
	if err := n.Stop(); err != nil {
		return "", err
	}
	c := sum(targets)
	return fmt.Sprintf("%d losses of a node, image of %d MiB identical each time, %d blocks acknowledged, nothing lost that was uploaded",
		2*e.rounds, e.size>>20, c.Blocks), nil
}

// loseNode writes, commits, writes on, ends the node, deletes its data
// directory, recovers on a fresh one and checks.
func (e *env) loseNode(ctx context.Context, n *node.Node, targets []*target, path string, orderly bool) (*node.Node, error) {
	load := func(ctx context.Context) error { return e.pause(ctx, loadMin, loadMax) }
	if err := e.underLoad(ctx, targets, false, load); err != nil {
		return nil, err
	}
	for _, name := range []string{"image", targets[0].name} {
		if _, err := n.Commit(ctx, name); err != nil {
			return nil, err
		}
	}
	uploaded := targets[0].load.Mark()
	end := n.Stop
	if !orderly {
		end = n.Kill
	}
	err := e.underLoad(ctx, targets, !orderly, func(ctx context.Context) error {
		if err := load(ctx); err != nil || orderly {
			return err
		}
		return end()
	})
	if orderly {
		err = errors.Join(err, end())
	}
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(n.Data()); err != nil {
		return nil, err
	}
	if n, err = e.node("data"); err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	if !orderly {
		targets[0].load.Forget(uploaded)
	}
	return n, e.recovered(ctx, n, targets, path, orderly)
}

// recovered runs vpool recover on a fresh node and checks what it finds.
func (e *env) recovered(ctx context.Context, n *node.Node, targets []*target, path string, orderly bool) error {
	r, err := n.RecoverVPool(ctx, "drill", e.backend())
	if err != nil {
		return err
	}
	if len(r.Vdisks) != len(targets)+1 {
		return fmt.Errorf("recover found %d vDisks, want %d", len(r.Vdisks), len(targets)+1)
	}
	for _, d := range r.Vdisks {
		e.say("recovered %s: clean %v, state %s, last seq %d", d.Name, d.Clean, d.State, d.LastSeq)
		if orderly && !d.Clean {
			return fmt.Errorf("vdisk %s came back unclean from an orderly stop", d.Name)
		}
		if !d.Clean && d.State != client.VDiskStateLostTail {
			return fmt.Errorf("vdisk %s may miss acknowledged writes and is %s, want lost_tail until accepted", d.Name, d.State)
		}
		if !d.Clean {
			if _, err := n.CLI(ctx, "vdisk", "accept-loss", d.Name, "--yes"); err != nil {
				return err
			}
		}
	}
	for i := range targets {
		if targets[i].conn, err = n.Publish(ctx, targets[i].name); err != nil {
			return err
		}
	}
	conn, err := n.Publish(ctx, "image")
	if err != nil {
		return err
	}
	return errors.Join(compare(ctx, path, conn), verify(ctx, targets))
}
