package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
)

// Any node answers for the whole cluster: a request about what another node serves, which
// this one refuses before it changes anything, is passed on to that node with the name and
// the rights of its caller. A node believes them of nodes of its cluster only, who show their
// certificate; what was passed on once is not passed on again.

// ErrUnreached: nothing of a request was sent to the node.
var ErrUnreached = errors.New("node not reached")

// Peers reaches the API of other nodes; gateway/node implements it.
type Peers interface {
	// RoundTrip sends a request to the node whose id is the host of its URL; ErrUnreached if
	// that node does not take connections.
	http.RoundTripper
	// From returns the id of the node at the other end of a connection; empty: it is none.
	From(c *tls.ConnectionState) string
}

const (
	// callerHeader is the caller of a request that was passed on, in JSON.
	callerHeader = "Ovgate-Caller"
	// nodeHeader is the name of the node that answered in place of the one asked.
	nodeHeader = "Ovgate-Node"
	// maxPassed bounds an answer that is passed on, in bytes.
	maxPassed = 64 << 20
	// maxAnswer bounds one that this node reads itself: model.MaxPage jobs, or the snapshots of
	// a group with their labels.
	maxAnswer = 8 << 20
)

// Headers that are passed on with a request, and with its answer.
var (
	requestHeaders = []string{"Content-Type", "Accept", "Idempotency-Key", "If-Match", "If-None-Match"}
	answerHeaders  = []string{"Content-Type", "Content-Disposition", "Location", "ETag", "Retry-After", requestIDHeader}
)

type passKey struct{}

// passes tells a handler that the request goes to another node if that one serves what it is
// about.
func passes(ctx context.Context) bool {
	is, _ := ctx.Value(passKey{}).(bool)
	return is
}

// askOwner is an error that makes the request go to the node that serves a vDisk, if that is
// another one and lives: it knows how the vDisk goes.
func (s *Server) askOwner(ctx context.Context, vdisk string) error {
	if !passes(ctx) {
		return nil
	}
	v, err := s.opt.Control.FindVDisk(vdisk)
	if err != nil || s.opt.Control.DiskCondition(v).State != control.StateElsewhere {
		return nil // what there is to say, this node says
	}
	return s.opt.Control.Served(v)
}

// passOn lets another node answer what this one refuses because that one serves it.
func (s *Server) passOn(op string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		if s.opt.Peers == nil {
			return next
		}
		return func(c echo.Context) error {
			r := c.Request()
			if who := callerOf(r.Context()); !who.known || who.node != "" {
				return next(c)
			}
			var body []byte
			if r.ContentLength != 0 {
				var err error
				if body, err = io.ReadAll(r.Body); err != nil {
					return err
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
			}
			c.SetRequest(r.WithContext(context.WithValue(r.Context(), passKey{}, true)))
			err := next(c)
			var there *control.Error
			if !errors.As(err, &there) || there.Node == "" || c.Response().Committed {
				return err
			}
			c.SetRequest(r)
			err = s.answerFrom(c, there, body)
			if errors.Is(err, ErrUnreached) && r.Method == http.MethodGet {
				return next(c) // what this node knows of it
			}
			return err
		}
	}
}

// answerFrom passes a request on to the node that serves what it is about.
func (s *Server) answerFrom(c echo.Context, there *control.Error, body []byte) error {
	in := c.Request()
	name := s.opt.Control.NodeName(there.Node)
	out, err := peerRequest(in.Context(), in.Method, there.Node, in.URL.RequestURI(), bytes.NewReader(body), callerOf(in.Context()).Principal)
	if err != nil {
		return err
	}
	for _, k := range requestHeaders {
		if v := in.Header.Get(k); v != "" {
			out.Header.Set(k, v)
		}
	}
	res, err := s.opt.Peers.RoundTrip(out)
	if errors.Is(err, ErrUnreached) {
		e := *there
		// It comes back, or others take over what it serves.
		e.Soon, e.Err = true, err
		e.Hint = fmt.Sprintf("node %s does not answer (%v): try again when it does, or another one serves it, or %s", name, err, there.Hint)
		return &e
	}
	if err != nil {
		return refuse(http.StatusServiceUnavailable, "timeout", there.Object, "try again; repeating does no harm", "node %s, which serves it, did not answer: %v", name, err)
	}
	defer func() { _ = res.Body.Close() }()
	h := c.Response().Header()
	for _, k := range answerHeaders {
		if v := res.Header.Get(k); v != "" {
			h.Set(k, v)
		}
	}
	h.Set(nodeHeader, name)
	c.Response().WriteHeader(res.StatusCode)
	if _, err := io.CopyN(c.Response(), res.Body, maxPassed); !errors.Is(err, io.EOF) {
		s.log.Warn("answer of another node not passed on to its end", "requestId", requestID(c), "node", name, "err", err)
		panic(http.ErrAbortHandler) // half an answer must not look like a whole one
	}
	return nil
}

// PeerRequest makes a request for another node, in the name of a caller whom this one knows.
// path is below BasePath.
func PeerRequest(ctx context.Context, method, node, path string, who auth.Principal) (*http.Request, error) {
	return peerRequest(ctx, method, node, BasePath+path, http.NoBody, who)
}

func peerRequest(ctx context.Context, method, node, uri string, body io.Reader, who auth.Principal) (*http.Request, error) {
	caller, err := json.Marshal(who)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, method, "https://"+node+uri, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set(callerHeader, string(caller))
	return r, nil
}

// askNode asks another node something in the name of a caller, with body as JSON if it is not
// nil, and returns its status and answer.
func askNode(ctx context.Context, peers Peers, method, node, path string, body any, who auth.Principal) (status int, answer []byte, err error) {
	var in io.Reader = http.NoBody
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		in = bytes.NewReader(b)
	}
	r, err := peerRequest(ctx, method, node, BasePath+path, in, who)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	res, err := peers.RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("its answer has more than %d bytes", maxAnswer)
	}
	return res.StatusCode, answer, err
}

// passedCaller returns who asked the node that passed the request on.
func passedCaller(r *http.Request) (p auth.Principal, err error) {
	if err := json.Unmarshal([]byte(r.Header.Get(callerHeader)), &p); err != nil || !p.Any(auth.RoleRead) {
		return p, refuse(http.StatusUnauthorized, "unauthorized", "", "", "a node passes requests of known callers on only")
	}
	return p, nil
}
