package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

const (
	// cutTime is how long a drill leaves the network broken, beyond what it waits for: longer
	// than a lease, so that what depends on one shows.
	cutTime = 8 * time.Second
	// lossPercent is what cluster-loss loses of all packets.
	lossPercent = 5
	// clusterDisk is the file system of each node in the drill of full disks, clusterAlbaDisk
	// that of one with devices of the Alba on it: what ten rounds write has to fit, or the
	// disks are full when nobody fills them.
	clusterDisk     = 1 << 30
	clusterAlbaDisk = 4 << 30
)

// kill kills a node, and sees its vDisks taken over and written to.
func (c *clusterDrill) kill(ctx context.Context) (node string, err error) {
	n, hit, err := c.victim(ctx)
	if err != nil {
		return "", err
	}
	c.mark()
	if err := c.l.Kill(ctx, n); err != nil {
		return "", err
	}
	if err := c.elsewhere(ctx, n, hit); err != nil {
		return "", err
	}
	return n, c.settled(ctx, hit)
}

// clusterKillNode: a node is killed and starts again.
func clusterKillNode(ctx context.Context, e *env) (string, error) {
	return e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		n, err := c.kill(ctx)
		if err != nil {
			return err
		}
		return c.l.Start(ctx, n)
	})
}

// settled lets the load go on for a while where it is now, and notes what was measured.
func (c *clusterDrill) settled(ctx context.Context, hit []*followed) error {
	if err := c.writing(ctx, time.Now()); err != nil {
		return err
	}
	if err := sleep(ctx, settle); err != nil {
		return err
	}
	c.note(hit)
	return nil
}

// clusterPauseNode: a node stands still for longer than its lease, and finds its vDisks taken
// over when it goes on. What was asked of it meanwhile it answers without anything stale.
func clusterPauseNode(ctx context.Context, e *env) (string, error) {
	pause := clusterPause
	if fullCluster() {
		pause = clusterPauseFull
	}
	return e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		n, hit, err := c.victim(ctx)
		if err != nil {
			return err
		}
		old, err := c.openStale(ctx, n, hit)
		if err != nil {
			return err
		}
		began := c.mark()
		if err := c.l.Signal(n, syscall.SIGSTOP); err != nil {
			return err
		}
		err = c.elsewhere(ctx, n, hit)
		if err == nil {
			err = c.settled(ctx, hit)
		}
		for _, s := range old {
			s.read() // after writes at the new owner: what is older than these is stale
		}
		if err == nil {
			err = sleep(ctx, time.Until(began.Add(pause)))
		}
		return errors.Join(err, c.l.Signal(n, syscall.SIGCONT), c.endStale(old))
	})
}

// openStale opens paths to the vDisks of a node beside those of the load.
func (c *clusterDrill) openStale(ctx context.Context, node string, disks []*followed) ([]*stale, error) {
	var out []*stale
	for _, f := range disks {
		a := f.address(c.l.Portal(node))
		d, err := lun.DialOnce(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("vdisk %s at %s: %w", f.name, node, err)
		}
		d.SetPatience(0)
		out = append(out, &stale{f: f, lun: d})
	}
	return out, nil
}

// endStale checks what was read on old paths.
func (c *clusterDrill) endStale(old []*stale) error {
	var errs []error
	for _, s := range old {
		answered, err := s.end(staleLimit)
		c.stale += answered
		if err != nil {
			errs = append(errs, fmt.Errorf("vdisk %s: its old owner: %w", s.f.name, err))
		}
	}
	return errors.Join(errs...)
}

// clusterCutNode: a node loses the other nodes, and what there is of etcd, store and storage
// machines, while hosts still reach it.
func clusterCutNode(ctx context.Context, e *env) (string, error) {
	return e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		return c.cutOff(ctx, c.l.Places()[1:]...)
	})
}

// cutOff cuts a node from others until its vDisks have moved, with reads on the old paths all
// the time, and heals.
func (c *clusterDrill) cutOff(ctx context.Context, from ...string) error {
	n, hit, err := c.victim(ctx)
	if err != nil {
		return err
	}
	old, err := c.openStale(ctx, n, hit)
	if err != nil {
		return err
	}
	c.mark()
	for _, other := range from {
		if other == n {
			continue
		}
		if err := c.l.Cut(ctx, n, other); err != nil {
			return err
		}
	}
	err = c.elsewhere(ctx, n, hit)
	if err == nil {
		err = c.settled(ctx, hit)
	}
	for _, s := range old {
		s.read()
	}
	if err == nil {
		err = sleep(ctx, cutTime)
	}
	return errors.Join(err, c.l.Heal(ctx), c.endStale(old))
}

// clusterCutEtcd: a node loses etcd, and its vDisks move; then all nodes do, and everything
// waits until it is back.
func clusterCutEtcd(ctx context.Context, e *env) (string, error) {
	return e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		if err := c.cutOff(ctx, "etcd"); err != nil {
			return err
		}
		if err := c.mirrored(ctx); err != nil {
			return err
		}
		c.mark()
		if err := c.l.Cut(ctx, "nodes", "etcd"); err != nil {
			return err
		}
		err := sleep(ctx, cutTime)
		err = errors.Join(err, c.l.Heal(ctx))
		if err == nil {
			err = c.writing(ctx, time.Now())
		}
		if err == nil {
			c.note(c.disks)
		}
		return err
	})
}

// clusterCutDTL: two nodes lose each other alone. Journals of each are mirrored elsewhere;
// nothing moves.
func clusterCutDTL(ctx context.Context, e *env) (string, error) {
	return e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		before, err := c.agree(ctx)
		if err != nil {
			return err
		}
		i := e.rng.IntN(clusterNodes)
		c.mark()
		if err := c.l.Cut(ctx, c.l.Nodes()[i], c.l.Nodes()[(i+1)%clusterNodes]); err != nil {
			return err
		}
		err = errors.Join(sleep(ctx, cutTime), c.writing(ctx, time.Now()))
		if err == nil {
			c.note(nil)
		}
		if err := errors.Join(err, c.l.Heal(ctx), c.writing(ctx, time.Now())); err != nil {
			return err
		}
		return c.unmoved(ctx, before)
	})
}

// unmoved tells which vDisk another node has than before.
func (c *clusterDrill) unmoved(ctx context.Context, before map[string]client.VDisk) error {
	return eventually(ctx, ask, "where they were", func(ctx context.Context) error {
		after, err := c.agree(ctx)
		if err != nil {
			return err
		}
		for name, v := range after {
			if was := before[name].Node; v.Node != was {
				return fmt.Errorf("vdisk %s went from %s to %s", name, was, v.Node)
			}
		}
		return nil
	})
}

// clusterLoss: every link loses packets; then a node is killed while they do.
func clusterLoss(ctx context.Context, e *env) (string, error) {
	return e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		c.mark()
		if err := c.l.Loss(ctx, "all", lossPercent); err != nil {
			return err
		}
		err := errors.Join(sleep(ctx, 2*cutTime), c.writing(ctx, time.Now()))
		if err != nil {
			return errors.Join(err, c.l.Heal(ctx))
		}
		c.note(nil)
		n, err := c.kill(ctx)
		if err != nil {
			return err
		}
		return errors.Join(c.l.Heal(ctx), c.l.Start(ctx, n))
	})
}

// clusterRestartAll: all nodes and storage machines are killed at once, or stopped in every
// other round, these after the nodes, and start again.
func clusterRestartAll(ctx context.Context, e *env) (string, error) {
	round := 0
	return e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		kill := func(m string) error { return c.l.Kill(ctx, m) }
		stop := func(m string) error { return c.l.Stop(ctx, m) }
		inOrder := round%2 == 1
		round++
		c.mark()
		var err error
		if inOrder { // nodes bring what they have to the storage machines first
			err = errors.Join(c.l.Each(c.l.Nodes(), stop), c.l.Each(c.l.Storage(), stop))
		} else {
			err = c.l.Each(c.l.Machines(), kill)
		}
		if err != nil {
			return err
		}
		if err := c.l.StartAll(ctx); err != nil {
			return err
		}
		if err := c.elsewhere(ctx, "", c.disks); err != nil {
			return err
		}
		return c.settled(ctx, c.disks)
	})
}

// clusterFullDisk: the disk of a node is full for a while, then that of a storage machine, if
// there are any. Nothing is lost, the other nodes' vDisks are written to all the time, and
// devices work again by themselves.
func clusterFullDisk(ctx context.Context, e *env) (string, error) {
	return e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		n, _, err := c.victim(ctx)
		if err != nil {
			return err
		}
		if err := c.full(ctx, n); err != nil || len(c.l.Storage()) == 0 {
			return err
		}
		return c.full(ctx, c.storageMachine())
	})
}

// full fills the disk of a machine for a while.
func (c *clusterDrill) full(ctx context.Context, machine string) error {
	c.mark()
	ballast := filepath.Join(c.l.Disk(machine), "ballast")
	if err := fill(ballast); err != nil {
		return err
	}
	err := errors.Join(sleep(ctx, 2*cutTime), os.Remove(ballast))
	if err == nil {
		err = c.writing(ctx, time.Now())
	}
	if err == nil {
		c.note(nil)
	}
	if err == nil && c.l.Alba() {
		_, err = c.whole(ctx)
	}
	return err
}

// fill takes all the space of a file system.
func fill(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
		return err
	}
	if total := int64(st.Blocks) * st.Bsize; total > 2*clusterAlbaDisk {
		return fmt.Errorf("%s is on a file system of %d bytes: not the drill's", path, total)
	}
	_, err = io.CopyN(f, zeros{}, 2*clusterAlbaDisk)
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%s does not fill its file system: %w", path, err)
	}
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// clusterEtcdLeader: the leading member of etcd is killed and starts again. Nothing moves.
func clusterEtcdLeader(ctx context.Context, e *env) (string, error) {
	return e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		before, err := c.agree(ctx)
		if err != nil {
			return err
		}
		leader := c.l.Leader()
		if leader == "" {
			return errors.New("no member of etcd says that it leads")
		}
		c.mark()
		if err := c.l.Kill(ctx, leader); err != nil {
			return err
		}
		err = eventually(ctx, resumeLimit, "another leader of etcd", func(context.Context) error {
			if now := c.l.Leader(); now == "" || now == leader {
				return errors.New("none says that it leads")
			}
			return nil
		})
		if err == nil {
			err = errors.Join(sleep(ctx, cutTime), c.writing(ctx, time.Now()))
		}
		if err == nil {
			c.note(nil)
		}
		if err := errors.Join(err, c.l.StartMember(ctx, leader)); err != nil {
			return err
		}
		return c.unmoved(ctx, before)
	})
}

// clusterEtcdPause: each member of etcd in turn stands still, and its connections stay. Nothing
// moves.
func clusterEtcdPause(ctx context.Context, e *env) (string, error) {
	return e.clusterRounds(ctx, func(ctx context.Context, c *clusterDrill) error {
		before, err := c.agree(ctx)
		if err != nil {
			return err
		}
		for _, m := range c.l.Members() {
			c.mark()
			if err := c.l.Signal(m, syscall.SIGSTOP); err != nil {
				return err
			}
			err := errors.Join(sleep(ctx, cutTime), c.writing(ctx, time.Now()))
			if err == nil {
				c.note(nil)
			}
			if err := errors.Join(err, c.l.Signal(m, syscall.SIGCONT)); err != nil {
				return err
			}
			// Of three only one is away at a time.
			if err := sleep(ctx, settle); err != nil {
				return err
			}
		}
		return c.unmoved(ctx, before)
	})
}
