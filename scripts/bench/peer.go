package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// startPeer starts another system in processes of its own, with its state below the
// bench's directory.
func startPeer(ctx context.Context, dir, name, instance string, args ...string) (*node.Peer, error) {
	return node.StartPeer(ctx, filepath.Join(dir, "peers"), name, instance, args...)
}

// peerPID is the process of a peer that has one.
func peerPID(p *node.Peer) (int, error) {
	n, err := strconv.Atoi(p.Said["pid"])
	if err != nil {
		return 0, fmt.Errorf("peer: pid: %w", err)
	}
	return n, nil
}

// peerPIDs are the processes of a peer with their workers.
func peerPIDs(p *node.Peer) ([]int, error) { return groupMembers(p.Said["pid"] + "," + p.Said["pids"]) }

// groupMembers returns the processes of the groups that are led by these, which hold
// a peer's workers.
func groupMembers(leaders string) ([]int, error) {
	procs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, name := range procs {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it ended
		}
		text := string(b)
		f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // state, parent, group
		if len(f) < 3 || !strings.Contains(","+leaders+",", ","+f[2]+",") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, err
		}
		out = append(out, pid)
	}
	return out, nil
}
