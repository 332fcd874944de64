package swift

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// Bounds of what is read of an answer (W6).
const (
	maxErrorBytes   = 4 << 10 // of a refusal, to tell why
	maxMessageBytes = 200     // of that, what an error repeats
	maxIDBytes      = 100
)

// expectFrom is the size in bytes from which a PUT waits for the store to agree before
// it sends the object: a refusal then costs little, and is read instead of a reset
// connection. Smaller ones fit into the buffers on the way.
const expectFrom = 64 << 10

// request is one to the store.
type request struct {
	op, name          string // for people, see remote.Error
	method            string
	container, object string
	query             url.Values
	header            http.Header
	body              []byte
}

// do sends a request, and once more with a new token if the store does not take the
// one there is (W1). The answer has a status 2xx, and its body is to be closed.
func (s *Store) do(ctx context.Context, r request) (*http.Response, error) {
	t, err := s.session.current(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := s.send(ctx, t, r)
	if unauthorized(err) || len(r.body) > 0 && reset(err) && s.refuses(ctx, t) {
		if t, err = s.session.replace(ctx, t, true); err != nil {
			return nil, err
		}
		resp, err = s.send(ctx, t, r)
	}
	return resp, err
}

func unauthorized(err error) bool {
	var refused *remote.Error
	return errors.As(err, &refused) && refused.Status == http.StatusUnauthorized
}

// ended lists what a connection ends with when the store leaves it while it is sent a body,
// and the transport does then.
var ended = []error{syscall.EPIPE, syscall.ECONNRESET, net.ErrClosed, io.EOF, io.ErrUnexpectedEOF}

// reset tells whether the store ended the connection. So ends a body that began before the
// store refused it, which it may do late: the refusal itself is lost then.
func reset(err error) bool {
	return slices.ContainsFunc(ended, func(e error) bool { return errors.Is(err, e) })
}

// refuses tells whether the store says, to a request without a body, that it does not take
// a token.
func (s *Store) refuses(ctx context.Context, t token) bool {
	resp, err := s.send(ctx, t, request{op: "HEAD account", method: http.MethodHead})
	if err == nil {
		drop(resp)
	}
	return unauthorized(err)
}

func (s *Store) send(ctx context.Context, t token, r request) (*http.Response, error) {
	if s.closed.Load() {
		return nil, errClosed
	}
	target := t.url
	if r.container != "" {
		target += "/" + r.container
		if r.object != "" {
			target += "/" + r.object // no byte of either needs an escape
		}
	}
	if r.query != nil {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, nil)
	if err != nil {
		return nil, &remote.Error{Op: r.op, Name: r.name, Err: errors.New("the storage URL is unusable")}
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("X-Auth-Token", t.value)
	body := &upload{data: r.body}
	if len(r.body) > 0 {
		req.Body, req.ContentLength = body.reader(), int64(len(r.body))
		req.GetBody = func() (io.ReadCloser, error) { return body.reader(), nil }
		if len(r.body) >= expectFrom {
			req.Header.Set("Expect", "100-continue")
		}
	}
	resp, err := s.client.Do(req)
	body.release()
	if err != nil {
		return nil, broken(ctx, r, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes)) // what came is enough
	return nil, s.refused(r, t, resp, text)
}

// refused makes an error of an answer.
func (s *Store) refused(r request, t token, resp *http.Response, text []byte) error {
	e := &remote.Error{
		Op: r.op, Name: r.name, Status: resp.StatusCode, RequestID: requestID(resp.Header),
		RetryAfter: remote.RetryAfter(resp.Header, s.o.Clock.Now()),
		Message:    message(text, append(s.o.secrets(), t.value)...),
	}
	e.Kind = kind(e.Status, e.RetryAfter, e.Message)
	switch {
	case e.Status/100 == 3:
		e.Message = "a redirect, which is not followed"
	case e.Status == http.StatusNotFound && r.object == "":
		e.Kind = remote.ErrNoContainer
	case e.Status == http.StatusUnprocessableEntity:
		e.Message = "damaged on the way to the store"
	}
	return e
}

// Statuses that package http has no name for.
const statusRateLimited = 498

// kind classifies a refusal (S8). 404 means the object.
func kind(status int, after time.Duration, message string) error {
	quota := strings.Contains(strings.ToLower(message), "quota")
	switch status {
	case http.StatusUnauthorized:
		return remote.ErrCredentials
	case http.StatusForbidden:
		if quota {
			return backend.ErrFull
		}
		return remote.ErrDenied
	case http.StatusNotFound:
		return backend.ErrNotExist
	case http.StatusRequestEntityTooLarge:
		if quota {
			return backend.ErrFull
		}
		return backend.ErrUnsupported
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return backend.ErrUnsupported
	case http.StatusRequestedRangeNotSatisfiable:
		return backend.ErrRange
	case http.StatusTooManyRequests, statusRateLimited:
		return remote.ErrThrottled
	case http.StatusServiceUnavailable:
		if after > 0 {
			return remote.ErrThrottled
		}
	case http.StatusInsufficientStorage:
		return backend.ErrFull
	}
	return nil
}

// broken makes an error of a request without an answer, or of an answer that ended
// too soon.
func broken(ctx context.Context, r request, err error) error {
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = ctx.Err()
	}
	return &remote.Error{Op: r.op, Name: r.name, Kind: remote.Classify(err), Err: plain(err)}
}

// wrong makes an error of an answer that breaks the protocol. It is worth a retry.
func wrong(r request, resp *http.Response, format string, args ...any) error {
	return &remote.Error{Op: r.op, Name: r.name, Status: resp.StatusCode, RequestID: requestID(resp.Header), Message: fmt.Sprintf(format, args...)}
}

// plain takes the URL off an error, which names the object in other words.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func requestID(h http.Header) string {
	id := h.Get("X-Openstack-Request-Id")
	if id == "" {
		id = h.Get("X-Trans-Id")
	}
	return message([]byte(id[:min(len(id), maxIDBytes)]))
}

// message makes a line of a store's text: printable, without tags and secrets, bounded.
func message(text []byte, secrets ...string) string {
	s := string(text[:min(len(text), maxErrorBytes)])
	for _, secret := range secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	var out strings.Builder
	tag := false
	for _, c := range s {
		switch {
		case c == '<':
			tag = true
			c = ' '
		case c == '>' && tag:
			tag = false
			continue
		case c < ' ' || c > '~':
			c = ' '
		}
		if !tag || c == ' ' {
			out.WriteRune(c)
		}
	}
	s = strings.Join(strings.Fields(out.String()), " ")
	return s[:min(len(s), maxMessageBytes)]
}

// upload is the body of a PUT, which the transport may read for a moment longer than
// the request lasts: after release it reads nothing (S7).
type upload struct {
	mu   sync.Mutex
	data []byte
	gone bool
}

func (u *upload) release() {
	u.mu.Lock()
	u.data, u.gone = nil, true
	u.mu.Unlock()
}

func (u *upload) reader() io.ReadCloser { return &uploadReader{u: u} }

type uploadReader struct {
	u   *upload
	off int
}

var errReleased = errors.New("swift: the request has ended")

// Read implements io.Reader.
func (r *uploadReader) Read(p []byte) (int, error) {
	r.u.mu.Lock()
	defer r.u.mu.Unlock()
	if r.u.gone {
		return 0, errReleased
	}
	if r.off == len(r.u.data) {
		return 0, io.EOF
	}
	n := copy(p, r.u.data[r.off:])
	r.off += n
	return n, nil
}

// Close implements io.Closer.
func (r *uploadReader) Close() error { return nil }

// drop ends an answer whose body does not matter, and reads a short one so that the
// connection can be used again.
func drop(resp *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBytes))
	_ = resp.Body.Close()
}

// body reads the whole body of an answer, at most limit bytes.
func body(ctx context.Context, r request, resp *http.Response, limit int64) ([]byte, error) {
	defer func() { _ = resp.Body.Close() }()
	var b bytes.Buffer
	if n := resp.ContentLength; n > 0 {
		b.Grow(int(min(n, limit, maxGrow)) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, broken(ctx, r, err)
	case n > limit:
		return nil, wrong(r, resp, "an answer of more than %d bytes", limit)
	}
	return b.Bytes(), nil
}

// maxGrow bounds what is allocated because an answer says that it is long, in bytes.
const maxGrow = 16 << 20
