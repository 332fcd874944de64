package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
)

// What all nodes tell together, such as jobs and events, is asked for here: all nodes at once, each
// for a bounded time, and one that does not answer is left alone for a while.

const (
	// askWait bounds how long a node is waited for: somebody looks at a page.
	askWait = 3 * time.Second
	// askAgain is how long a node that did not answer is left alone, so that pages that are read
	// again and again do not wait each time.
	askAgain = 5 * time.Second
)

// unheard has the nodes that did not answer.
type unheard struct {
	mu    sync.Mutex
	nodes map[string]failure // by id
}

// failure is when a node did not answer, and why.
type failure struct {
	at  time.Time
	why error
}

// eachPeer calls fn for every other node of the cluster, for all at once.
func (s *Server) eachPeer(fn func(model.Node)) {
	var wg sync.WaitGroup
	for _, n := range s.opt.Model.Nodes() {
		if n.ID != s.opt.NodeID {
			wg.Go(func() { fn(n) })
		}
	}
	wg.Wait()
}

// askPeer asks another node something in the name of somebody.
func (s *Server) askPeer(ctx context.Context, method, node, path string, who auth.Principal, wait time.Duration) ([]byte, error) {
	if s.opt.Peers == nil {
		return nil, errors.New("nodes ask each other over TLS in a cluster only: ask that node")
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	status, b, err := askNode(ctx, s.opt.Peers, method, node, path, nil, who)
	if err != nil {
		return nil, unanswered{err}
	}
	if status >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("it answers %d", status)
	}
	return b, nil
}

// unanswered is an error of a node that did not answer, and may not for a while.
type unanswered struct{ error }

func (u unanswered) Unwrap() error { return u.error }

// readPeer reads what another node answers to a GET; one that did not answer is left alone for
// askAgain.
func (s *Server) readPeer(ctx context.Context, node, path string, who auth.Principal, wait time.Duration, to any) error {
	now := s.clock.Now()
	s.unheard.mu.Lock()
	f, failed := s.unheard.nodes[node]
	s.unheard.mu.Unlock()
	if failed && now.Sub(f.at).Abs() < askAgain {
		return f.why
	}
	b, err := s.askPeer(ctx, http.MethodGet, node, path, who, wait)
	if ctx.Err() == nil { // else who asked has left: that says nothing of the node
		s.noteHeard(node, now, err)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("its answer is not understood: %w", err)
	}
	return nil
}

// noteHeard remembers whether a node answered.
func (s *Server) noteHeard(node string, at time.Time, err error) {
	s.unheard.mu.Lock()
	defer s.unheard.mu.Unlock()
	if errors.As(err, new(unanswered)) {
		if s.unheard.nodes == nil || len(s.unheard.nodes) > model.MaxPage { // of nodes that left
			s.unheard.nodes = map[string]failure{}
		}
		s.unheard.nodes[node] = failure{at, err}
		return
	}
	delete(s.unheard.nodes, node)
}
