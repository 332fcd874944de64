package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// lunSize is the size of every LUN, in bytes. Reads start from dropped caches
// and touch a part of it in a step, so that it is read from the disk.
const lunSize = 1 << 30

// target is one block device under test. The iSCSI ones have CHAP on (it concerns the
// login alone), no digests, one session, and the same client.
type target struct {
	name   string
	config string
	pid    int // of the target's process
	disk   openDisk
	settle func(context.Context) error // brings background work to an end, not measured
	close  func() error
}

// openDisk is a disk with a connection.
type openDisk interface {
	disk
	Close() error
}

// openNode starts the real ovgate with one vDisk on a local-directory backend.
func openNode(ctx context.Context, dir string) (*target, error) {
	bin, err := node.Build(ctx, dir)
	if err != nil {
		return nil, err
	}
	n, err := node.New(node.Options{Bin: bin, Data: filepath.Join(dir, "node"), Insecure: true})
	if err != nil {
		return nil, err
	}
	if err := n.Start(ctx); err != nil {
		return nil, err
	}
	t := &target{
		name:   "ovgate",
		config: fmt.Sprintf("ovgate serve, vPool on a local directory, journal quota %d MiB, every write durable (WCE=0)", quota>>20),
		pid:    n.PID(),
		settle: func(ctx context.Context) error { _, err := n.Commit(ctx, "bench"); return err },
		close:  n.Stop,
	}
	err = n.CreateVPool(ctx, "bench", filepath.Join(dir, "node-backend"), "--journal-quota", fmt.Sprint(quota))
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	conn, err := n.CreateVDisk(ctx, "bench", "bench", lunSize)
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	d, err := lun.Dial(ctx, lun.Of(conn))
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	t.disk = d
	return t, fill(t.disk, lunSize)
}

// tgtMode is one way to run Debian's tgt.
type tgtMode struct {
	name, what string
	flags      []string
}

var tgtModes = []tgtMode{
	{"cached", "page cache (bs rdwr): a write is answered from memory", nil},
	{"osync", "write-through: file opened O_SYNC", []string{"--write-through"}},
	{"wce0", "write-through: write cache off (WCE=0), tgt syncs each write", []string{"--write-cache-off"}},
}

// tgtThreads are the thread counts of which each mode's best is taken.
var tgtThreads = []int{1, 4, 16}

// openTgt starts tgt over a file that is written in full.
func openTgt(ctx context.Context, dir string, mode tgtMode, threads int) (*target, error) {
	file := filepath.Join(dir, "tgt."+mode.name)
	if _, err := os.Stat(file); err != nil {
		f, err := prewritten(file, lunSize, 0)
		if err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	args := append([]string{"--file", file, "--chap", "--threads", fmt.Sprint(threads)}, mode.flags...)
	p, err := startPeer(ctx, dir, "tgt", mode.name, args...)
	if err != nil {
		return nil, err
	}
	t := &target{
		name:   "tgt-" + mode.name,
		config: fmt.Sprintf("Debian tgt, %s, %d threads (best of %v)", mode.what, threads, tgtThreads),
		settle: func(context.Context) error { return nil },
		close:  p.Close,
	}
	if t.pid, err = peerPID(p); err != nil {
		return nil, errors.Join(err, t.close())
	}
	d, err := lun.Dial(ctx, lun.Address{Portal: p.Said["portal"], IQN: p.Said["iqn"], LUN: 1, User: p.Said["chap_user"], Secret: p.Said["chap_secret"], Algorithms: "5"})
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	t.disk = d
	return t, nil
}

// tuneTgt runs a mode with each thread count and leaves the one running that
// writes fastest at depth 32.
func tuneTgt(ctx context.Context, dir string, mode tgtMode, seconds float64) (*target, error) {
	best, bestRate := tgtThreads[0], 0.0
	for _, threads := range tgtThreads {
		t, err := openTgt(ctx, dir, mode, threads)
		if err != nil {
			return nil, err
		}
		rate, _, err := work{name: "tune " + t.name, write: true, depth: 32}.run(t.disk, lunSize, seconds, rand.Uint64())
		if err := errors.Join(err, t.disk.Close(), t.close(), settleDisk(false)); err != nil {
			return nil, err
		}
		fmt.Printf("  tune %-12s %2d threads %9.0f writes/s\n", t.name, threads, rate)
		if rate > bestRate {
			best, bestRate = threads, rate
		}
	}
	return openTgt(ctx, dir, mode, best)
}
