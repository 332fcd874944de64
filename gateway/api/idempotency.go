package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/model"
)

const (
	// idempotencyLife is how long an answer is remembered.
	idempotencyLife = 24 * time.Hour
	// maxIdempotency bounds the remembered answers; the oldest goes first.
	maxIdempotency = 10_000
	maxIdemKey     = 128
)

// idempotency makes a create with a key take effect once (H4). An answer is
// stored when the create succeeded; a refusal changed nothing and may be tried
// again. A crash between a create and the storing of its answer makes a
// repetition answer "exists".
type idempotency struct {
	s  *Server
	mu sync.Mutex
	// running holds the keys whose first request is not answered yet.
	running map[string]chan struct{}
}

func (i *idempotency) init(s *Server) {
	i.s, i.running = s, map[string]chan struct{}{}
}

func (i *idempotency) middleware(op string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			key := r.Header.Get("Idempotency-Key")
			if key == "" {
				return next(c)
			}
			if len(key) > maxIdemKey {
				return refuseField("Idempotency-Key", "", "an Idempotency-Key has at most %d bytes", maxIdemKey)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			hash := i.s.opt.Sealer.Digest([]byte(callerOf(r.Context()).label() + "\x00" + op + "\x00" + key + scopesKey(callerOf(r.Context()).Rights)))
			done, err := i.enter(r.Context(), hash)
			if err != nil {
				return err
			}
			defer done()
			if len(c.ParamNames()) > 0 {
				body = append([]byte(r.URL.Path+"\x00"), body...) // what is created where
			}
			request := i.s.opt.Sealer.Digest(body)
			if old, ok := i.s.opt.Model.Idempotency(hash); ok && i.s.clock.Now().Sub(old.Created) < idempotencyLife {
				return i.replay(c, old, request)
			}
			return i.record(c, next, hash, request)
		}
	}
}

// scopesKey keeps an answer from who has other rights by now; empty: of who reads everything.
func scopesKey(r auth.Rights) string {
	if r.Role.Allows(auth.RoleRead) {
		return ""
	}
	var b strings.Builder
	for _, scope := range r.Scopes() {
		b.WriteString("\x00" + string(r.Grants[scope]) + " " + scope)
	}
	return b.String()
}

// enter waits until no other request with the same key runs.
func (i *idempotency) enter(ctx context.Context, hash string) (func(), error) {
	for {
		i.mu.Lock()
		ch := i.running[hash]
		if ch == nil {
			ch = make(chan struct{})
			i.running[hash] = ch
			i.mu.Unlock()
			return func() {
				i.mu.Lock()
				delete(i.running, hash)
				i.mu.Unlock()
				close(ch)
			}, nil
		}
		i.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (i *idempotency) replay(c echo.Context, old model.Idempotency, request string) error {
	if old.Request != request {
		return refuse(http.StatusConflict, "idempotency_mismatch", "", "use a new key for another request", "this Idempotency-Key was used with another request body")
	}
	if n := notedOf(c); n != nil {
		n.e.Code = "repeated"
	}
	body, err := i.s.opt.Sealer.Open(old.Hash, old.Body)
	if err != nil {
		return err
	}
	return c.Blob(old.Status, echo.MIMEApplicationJSON, []byte(body))
}

// record runs the create and remembers a success. An answer that cannot be
// stored is still the answer: the create took effect.
func (i *idempotency) record(c echo.Context, next echo.HandlerFunc, hash, request string) error {
	res := c.Response()
	rec := &recorder{ResponseWriter: res.Writer}
	res.Writer = rec
	err := next(c)
	res.Writer = rec.ResponseWriter
	if err != nil || rec.status < 200 || rec.status > 299 {
		return err
	}
	sealed, err := i.s.opt.Sealer.Seal(hash, rec.body.String())
	if err == nil {
		err = i.store(context.WithoutCancel(c.Request().Context()), model.Idempotency{Hash: hash, Request: request, Status: rec.status, Body: sealed, Created: i.s.clock.Now().UTC()})
	}
	if err != nil {
		i.s.log.Warn("answer to a create not remembered", "requestId", requestID(c), "err", err)
	}
	return nil
}

func (i *idempotency) store(ctx context.Context, v model.Idempotency) error {
	if _, ok := i.s.opt.Model.Idempotency(v.Hash); ok {
		if err := i.s.opt.Model.DeleteIdempotency(ctx, v.Hash); err != nil {
			return err
		}
	}
	if err := i.prune(ctx); err != nil {
		return err
	}
	_, err := i.s.opt.Model.CreateIdempotency(ctx, v)
	if errors.Is(err, model.ErrExists) {
		return nil
	}
	return err
}

// prune forgets what expired, a little at a time, and the oldest when full.
func (i *idempotency) prune(ctx context.Context) error {
	all := i.s.opt.Model.Idempotencies()
	slices.SortFunc(all, func(a, b model.Idempotency) int { return a.Created.Compare(b.Created) })
	const atOnce = 10 // more than one per create, so that the store shrinks
	for n, v := range all[:min(len(all), atOnce)] {
		if i.s.clock.Now().Sub(v.Created) < idempotencyLife && len(all)-n < maxIdempotency {
			return nil
		}
		if err := i.s.opt.Model.DeleteIdempotency(ctx, v.Hash); err != nil {
			return err
		}
	}
	return nil
}

// recorder keeps a copy of what is answered.
type recorder struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.body.Write(b)
	return r.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
