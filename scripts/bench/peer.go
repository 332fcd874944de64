package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// peer is another system in processes of its own (scripts/peer), with its state below
// the bench's directory.
type peer struct {
	dir, name, instance string
	says                map[string]string // what it said of itself, secrets too
}

// startPeer starts a peer.
func startPeer(ctx context.Context, dir, name, instance string, args ...string) (*peer, error) {
	p := &peer{dir: dir, name: name, instance: instance}
	up, err := p.run(ctx, "up", args...)
	if err != nil {
		return nil, err
	}
	p.says = up
	if file := up["credentials"]; file != "" {
		secret, err := os.ReadFile(file)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		maps.Copy(p.says, keyValues(string(secret)))
	}
	return p, nil
}

func (p *peer) run(ctx context.Context, verb string, args ...string) (map[string]string, error) {
	cmd := exec.CommandContext(ctx, "scripts/peer", append([]string{p.name, verb, "--instance", p.instance}, args...)...)
	cmd.Env = append(os.Environ(), "OVGATE_PEERS="+filepath.Join(p.dir, "peers"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("scripts/peer %s %s: %w", p.name, verb, err)
	}
	return keyValues(string(out)), nil
}

// pid is the process of a peer that has one.
func (p *peer) pid() (int, error) {
	n, err := strconv.Atoi(p.says["pid"])
	if err != nil {
		return 0, fmt.Errorf("scripts/peer %s up: pid: %w", p.name, err)
	}
	return n, nil
}

// pids are the processes of a peer with their workers.
func (p *peer) pids() ([]int, error) { return groupMembers(p.says["pid"] + "," + p.says["pids"]) }

func (p *peer) close() error {
	_, err := p.run(context.Background(), "down")
	return err
}

func keyValues(text string) map[string]string {
	kv := map[string]string{}
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), "="); ok {
			kv[k] = v
		}
	}
	return kv
}

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
