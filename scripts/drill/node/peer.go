package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Peer is a real store that scripts/peer runs. It ends with Close and not before, also
// when the program that started it dies.
type Peer struct {
	name, dir, instance string
	// Said is what it told of itself as key=value, with what stands in its credentials
	// file, if it has one.
	Said map[string]string
}

// StartPeer runs "scripts/peer NAME up --instance INSTANCE ARGS" from the root of the
// repository, which has to be the working directory. Its state is below dir.
func StartPeer(ctx context.Context, dir, name, instance string, args ...string) (*Peer, error) {
	p := &Peer{name: name, dir: dir, instance: instance}
	out, err := p.do(ctx, "up", args...)
	if err != nil {
		return nil, err
	}
	p.Said = keyValues(out)
	if file := p.Said["credentials"]; file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		maps.Copy(p.Said, keyValues(string(b)))
	}
	return p, nil
}

// EndPeer ends a peer that another process started, if it runs.
func EndPeer(dir, name, instance string) error {
	p := &Peer{name: name, dir: dir, instance: instance}
	return p.Close()
}

// Close ends it. What it stored stays.
func (p *Peer) Close() error {
	_, err := p.do(context.Background(), "down")
	return err
}

func (p *Peer) do(ctx context.Context, verb string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join("scripts", "peer"), append([]string{p.name, verb, "--instance", p.instance}, args...)...)
	cmd.Env = append(os.Environ(), "OVGATE_PEERS="+p.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("scripts/peer %s %s, from the root of the repository: %w: %s", p.name, verb, err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func keyValues(text string) map[string]string {
	kv := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			kv[k] = v
		}
	}
	return kv
}
