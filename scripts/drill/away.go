package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
)

// backendAway moves the backend directory away under load and back. Writes go
// on into the journal and reads of what is local go on; the vDisk says that the
// backend is away, and commits again when it is back. Every other round kills
// the node while the backend is away, so that the journal alone has the tail.
func backendAway(ctx context.Context, e *env) (string, error) {
	n, err := e.drillNode(ctx, smallSettings...)
	if err != nil {
		return "", err
	}
	targets, err := e.targets(ctx, n, 1)
	if err != nil {
		return "", err
	}
	t := targets[0]
	var kept time.Duration
	for round := range e.rounds {
		start := time.Now()
		kill := round%2 == 1
		err := e.underLoad(ctx, targets, kill, func(ctx context.Context) error {
			if err := e.pause(ctx, loadMin, loadMax); err != nil {
				return err
			}
			before := t.load.Counts()
			if err := e.away(); err != nil {
				return err
			}
			// Without the backend: what the journal can take in a moment.
			if err := e.pause(ctx, loadMin, loadMin+200*time.Millisecond); err != nil {
				return err
			}
			if t.load.Counts().Blocks == before.Blocks {
				return errors.New("no write went on while the backend was away")
			}
			if kill {
				return n.Kill()
			}
			return e.back()
		})
		if err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		if kill {
			if err := e.back(); err != nil {
				return "", err
			}
			if err := n.Start(ctx); err != nil {
				return "", fmt.Errorf("round %d: restart: %w", round+1, err)
			}
		}
		if err := verify(ctx, targets); err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		if _, err := n.Commit(ctx, t.name); err != nil {
			return "", fmt.Errorf("round %d: commit after the backend came back: %w", round+1, err)
		}
		_, err = n.WaitVDisk(ctx, t.name, "running", func(v client.VDisk) bool { return v.State == client.VDiskStateRunning })
		if err != nil {
			return "", fmt.Errorf("round %d: %w", round+1, err)
		}
		kept += time.Since(start)
		e.say("round %d: backend away (node killed meanwhile: %v), all verified and committed after", round+1, kill)
	}
	if err := n.Stop(); err != nil {
		return "", err
	}
	c := sum(targets)
	return fmt.Sprintf("%d rounds, %d blocks acknowledged, %d unanswered at kills, 0 lost, %v each",
		e.rounds, c.Blocks, c.Unknown, (kept / time.Duration(e.rounds)).Round(time.Millisecond)), nil
}

func (e *env) away() error { return os.Rename(e.backend(), e.backend()+".away") }
func (e *env) back() error { return os.Rename(e.backend()+".away", e.backend()) }
