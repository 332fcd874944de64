package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// within returns what the server answers to GET of a target, of up to most bytes, when the
// caller of a request asks. An answer that is not 200 is an error.
func (s *Server) within(ctx context.Context, r *http.Request, target string, most int) ([]byte, error) {
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return nil, err
	}
	get.RemoteAddr, get.TLS = r.RemoteAddr, r.TLS
	for _, h := range []string{"Authorization", "Cookie"} {
		get.Header[h] = r.Header[h]
	}
	return answered(s.echo, get, most)
}

// answered returns the body that a handler answers with.
func answered(h http.Handler, r *http.Request, most int) ([]byte, error) {
	w := &answer{header: http.Header{}, status: http.StatusOK, most: most}
	h.ServeHTTP(w, r)
	switch {
	case w.full:
		return nil, fmt.Errorf("it has more than %d bytes", most)
	case w.status != http.StatusOK:
		return nil, fmt.Errorf("%d: %.1000s", w.status, strings.TrimSpace(w.body.String()))
	}
	return w.body.Bytes(), nil
}

// answer is a ResponseWriter that keeps up to most bytes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
	most   int
	full   bool
}

func (a *answer) Header() http.Header    { return a.header }
func (a *answer) WriteHeader(status int) { a.status = status }
func (a *answer) Write(p []byte) (int, error) {
	if a.full = a.full || a.body.Len()+len(p) > a.most; a.full {
		return 0, errors.New("the answer is too large")
	}
	return a.body.Write(p)
}
