package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// copiedDataDir copies a data directory (a restored backup, a cloned machine)
// and starts the copy: first beside the running original, then instead of it,
// when the original has moved on, and last beside it on a store that does not
// lock. No object on the backend may ever change its
// bytes, and what the copy serves may miss a tail but is never torn, foreign or
// older than what the backend had.
func copiedDataDir(ctx context.Context, e *env) (string, error) {
	n, err := e.drillNode(ctx, smallSettings...)
	if err != nil {
		return "", err
	}
	targets, err := e.targets(ctx, n, 1)
	if err != nil {
		return "", err
	}
	objects := map[string][32]byte{} // path -> sha-256 of what it first held
	for round := range e.rounds {
		if err := e.copyRound(ctx, n, targets, objects); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		if n, err = e.olderCopy(ctx, n, targets, objects); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		if n, err = e.copyWithoutLock(ctx, n, targets, objects); err != nil {
			return "", fmt.Errorf("round %d: without the store's lock: %w", round+1, err)
		}
	}
	if err := n.Stop(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d rounds, %d objects seen, none overwritten, nothing stale served", e.rounds, len(objects)), nil
}

// copyRound writes, kills the node, copies its data directory and starts both:
// the second of them must not serve.
func (e *env) copyRound(ctx context.Context, n *node.Node, targets []*target, objects map[string][32]byte) error {
	load := func(ctx context.Context) error { return e.pause(ctx, loadMin, loadMax) }
	err := e.underLoad(ctx, targets, true, func(ctx context.Context) error { return errors.Join(load(ctx), n.Kill()) })
	if err != nil {
		return err
	}
	copyDir := filepath.Join(e.dir, "copy")
	if err := os.RemoveAll(copyDir); err != nil {
		return err
	}
	if _, err := tool(ctx, nil, "cp", "-a", n.Data(), copyDir); err != nil {
		return err
	}
	if err := n.Start(ctx); err != nil {
		return err
	}
	if err := verify(ctx, targets); err != nil {
		return err
	}
	twin, err := e.node("copy")
	if err != nil {
		return err
	}
	err = e.underLoad(ctx, targets, false, func(ctx context.Context) error {
		return errors.Join(e.twinRefused(ctx, twin, targets[0].name), load(ctx))
	})
	if err != nil {
		return err
	}
	return errors.Join(twin.Kill(), verify(ctx, targets), e.unchanged(objects))
}

// twinRefused starts the copy while the original serves: it may come up, but
// not with a running vDisk.
func (e *env) twinRefused(ctx context.Context, twin *node.Node, vdisk string) error {
	if err := twin.Start(ctx); err != nil {
		e.say("the copy beside the original refuses to start: %v", firstLine(err))
		return nil
	}
	v, err := twin.VDisk(ctx, vdisk)
	if err != nil {
		return err
	}
	if v.State == client.VDiskStateRunning {
		return fmt.Errorf("vdisk %s runs on the copy and on the original", vdisk)
	}
	e.say("the copy beside the original: vdisk %s is %s: %s", vdisk, v.State, v.StateReason)
	return nil
}

// olderCopy kills the original, which has committed more since the copy was
// made, and starts the copy instead. The backend's newer head counts.
func (e *env) olderCopy(ctx context.Context, n *node.Node, targets []*target, objects map[string][32]byte) (*node.Node, error) {
	t := targets[0]
	if _, err := n.Commit(ctx, t.name); err != nil {
		return nil, err
	}
	uploaded := t.load.Mark()
	err := e.underLoad(ctx, targets, true, func(ctx context.Context) error {
		return errors.Join(e.pause(ctx, loadMin, loadMax), n.Kill())
	})
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(n.Data()); err != nil {
		return nil, err
	}
	if err := os.Rename(filepath.Join(e.dir, "copy"), n.Data()); err != nil {
		return nil, err
	}
	if n, err = e.node("data"); err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	v, err := n.WaitVDisk(ctx, t.name, "settled", func(v client.VDisk) bool { return v.State != client.VDiskStateOpening })
	if err != nil {
		return nil, err
	}
	e.say("the older copy alone: vdisk %s is %s: %s", t.name, v.State, v.StateReason)
	if v.State != client.VDiskStateLostTail {
		return nil, fmt.Errorf("vdisk %s on the older copy is %s (%s), want %s: it is behind the backend", t.name, v.State, v.StateReason, client.VDiskStateLostTail)
	}
	if err := e.unchanged(objects); err != nil {
		return nil, err
	}
	if _, err := n.CLI(ctx, "vdisk", "accept-loss", t.name, "--yes"); err != nil {
		return nil, err
	}
	t.load.Forget(uploaded)
	if t.conn, err = n.Publish(ctx, t.name); err != nil {
		return nil, err
	}
	return n, errors.Join(verify(ctx, targets), e.unchanged(objects))
}

// copyWithoutLock starts a copy beside the original on a store that does not lock:
// the copy sees that it is behind and waits for an operator's word; with it, the
// copy serves what the backend holds and the original is fenced. The copy takes
// the original's place.
func (e *env) copyWithoutLock(ctx context.Context, n *node.Node, targets []*target, objects map[string][32]byte) (*node.Node, error) {
	t, copyDir := targets[0], filepath.Join(e.dir, "copy")
	if err := n.Kill(); err != nil {
		return nil, err
	}
	if _, err := tool(ctx, nil, "cp", "-a", n.Data(), copyDir); err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	load := func(ctx context.Context) error { return e.pause(ctx, loadMin, loadMax) }
	if err := e.underLoad(ctx, targets, false, load); err != nil {
		return nil, err
	}
	if _, err := n.Commit(ctx, t.name); err != nil {
		return nil, err
	}
	if err := errors.Join(e.unchanged(objects), os.Remove(filepath.Join(e.backend(), "lock"))); err != nil {
		return nil, err
	}
	twin, err := e.node("copy")
	if err != nil {
		return nil, err
	}
	if err := e.takeOver(ctx, n, twin, t); err != nil {
		return nil, err
	}
	if err := errors.Join(verify(ctx, targets), e.unchanged(objects), n.Kill(), twin.Kill(), os.RemoveAll(n.Data()), os.Rename(copyDir, n.Data())); err != nil {
		return nil, err
	}
	if n, err = e.node("data"); err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	if t.conn, err = n.Publish(ctx, t.name); err != nil {
		return nil, err
	}
	return n, errors.Join(verify(ctx, targets), e.unchanged(objects))
}

// takeOver starts a copy whose vDisk must be lost_tail, accepts that, and sees
// the original's fenced.
func (e *env) takeOver(ctx context.Context, n, twin *node.Node, t *target) error {
	if err := twin.Start(ctx); err != nil {
		return err
	}
	v, err := twin.WaitVDisk(ctx, t.name, "settled", func(v client.VDisk) bool { return v.State != client.VDiskStateOpening })
	if err != nil {
		return err
	}
	e.say("the copy without a lock: vdisk %s is %s: %s", t.name, v.State, v.StateReason)
	if v.State != client.VDiskStateLostTail {
		return fmt.Errorf("vdisk %s on the copy is %s (%s), want %s", t.name, v.State, v.StateReason, client.VDiskStateLostTail)
	}
	if v, err = n.VDisk(ctx, t.name); err != nil || v.State != client.VDiskStateRunning {
		return errors.Join(err, fmt.Errorf("vdisk %s on the original is %s before the loss is accepted", t.name, v.State))
	}
	if _, err := twin.CLI(ctx, "vdisk", "accept-loss", t.name, "--yes"); err != nil {
		return err
	}
	v, err = n.WaitVDisk(ctx, t.name, "fenced", func(v client.VDisk) bool { return v.State == client.VDiskStateFenced })
	if err != nil {
		return err
	}
	e.say("the original: vdisk %s is %s: %s", t.name, v.State, v.StateReason)
	t.conn, err = twin.Publish(ctx, t.name)
	return err
}

// unchanged checks that no object on the backend changed its bytes since it was
// first seen, and remembers the new ones.
func (e *env) unchanged(objects map[string][32]byte) error {
	return filepath.WalkDir(e.backend(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") || strings.HasSuffix(d.Name(), ".lock") {
			return ignoreGone(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return ignoreGone(err)
		}
		h := sha256.Sum256(b)
		if old, ok := objects[path]; ok && old != h {
			return fmt.Errorf("object %s changed its bytes", path)
		}
		objects[path] = h
		return nil
	})
}

// ignoreGone drops "does not exist": the node deletes objects meanwhile.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
