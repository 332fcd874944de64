package s3

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
)

// Bounds of answers (K5), in bytes.
const (
	maxErrorBytes = 64 << 10
	// maxXMLBytes: 1000 keys of 1 KiB, each byte escaped to three, with owners.
	maxXMLBytes = 16 << 20
	// maxForeignBytes is for answers of services that hand out credentials.
	maxForeignBytes = 1 << 20
	// maxText bounds what an error repeats of an answer.
	maxText = 300
)

// maxRequests bounds a call: the pages of a list that are empty although more are to
// come. The longest list has 10000 objects; stores give at least 100 at a time.
const maxRequests = 200

var (
	errTooLong  = errors.New("the answer is longer than it may be")
	errEndless  = errors.New("the store sends page after page without an end")
	errDetached = errors.New("the call has ended")
)

// call is what the guard learns of the requests of one call: of the last one that was
// signed, so not of a request for credentials.
type call struct {
	limit    int64 // bytes of a good answer
	cancel   context.CancelFunc
	requests int

	status    int // 0: no answer
	header    http.Header
	err       error  // why there is none
	code      string // of an error in the store's words
	message   string
	requestID string
	region    string // where the bucket is, if the store says that it is not here
}

type callKey struct{}

// guard stands between the library and the connections. It bounds answers, keeps what
// the library drops of them, and ends the call's context after a failure: the library
// would wait before it does not try again.
type guard struct {
	next  *http.Transport
	heads atomic.Int32 // one of the following
}

// What is known of answers to HEAD. Swift's s3api ends those that find nothing with the
// last chunk of a body, which the next request on the connection would take for its
// answer.
const (
	headsUnknown = iota // no connection is used again after a HEAD
	headsClean          // one that found nothing had no body
	headsChunked        // they announce one: no connection is used again, ever
)

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	c, _ := req.Context().Value(callKey{}).(*call)
	if c == nil || req.Header.Get("Authorization") == "" {
		resp, err := g.next.RoundTrip(req)
		if err == nil {
			resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxForeignBytes}
		}
		return resp, err
	}
	if c.requests++; c.requests > maxRequests {
		c.err = errEndless
		c.cancel()
		return nil, errEndless
	}
	c.status, c.header, c.err, c.code, c.message = 0, nil, nil, "", ""
	resp, err := g.send(req)
	if err != nil {
		c.err = err
		c.cancel()
		return nil, err
	}
	c.status, c.header = resp.StatusCode, resp.Header
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		limit := c.limit
		if req.URL.RawQuery != "" {
			limit = maxXMLBytes
		}
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: limit}
		return resp, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBytes))
	_ = resp.Body.Close() // nothing depends on it: the connection is dropped if bytes are left
	if err != nil {
		c.err = err // the answer counts without its body
	}
	c.refused(resp, body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if !req.URL.Query().Has("location") { // the library goes on without that
		c.cancel()
	}
	return resp, nil
}

// send makes a request. What reads is made once more, on a new connection, if one that
// had been used before broke without an answer (K1).
func (g *guard) send(req *http.Request) (*http.Response, error) {
	head := req.Method == http.MethodHead
	resp, reused, err := g.once(req, head)
	if err != nil && reused && (head || req.Method == http.MethodGet) && req.Context().Err() == nil && !timedOut(err) {
		g.next.CloseIdleConnections()
		resp, _, err = g.once(req, head)
	}
	return resp, err
}

// once makes a request, and tells whether its connection had been used before.
func (g *guard) once(req *http.Request, head bool) (resp *http.Response, reused bool, err error) {
	req = req.Clone(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}))
	req.Close = req.Close || head && g.heads.Load() != headsClean
	resp, err = g.next.RoundTrip(req)
	switch {
	case err != nil || !head:
	case slices.Contains(resp.TransferEncoding, "chunked"):
		g.heads.Store(headsChunked)
		if !req.Close {
			g.next.CloseIdleConnections() // this one is among them
		}
	case resp.StatusCode == http.StatusNotFound:
		g.heads.CompareAndSwap(headsUnknown, headsClean)
	}
	return resp, reused, err
}

func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// refused reads the error that an answer holds.
func (c *call) refused(resp *http.Response, body []byte) {
	var e struct {
		XMLName   xml.Name `xml:"Error"`
		Code      string
		Message   string
		RequestID string `xml:"RequestId"`
		Region    string
	}
	if xml.Unmarshal(body, &e) == nil {
		c.code, c.message, c.requestID, c.region = short(e.Code), short(e.Message), short(e.RequestID), short(e.Region)
	}
	if v := resp.Header.Get("X-Amz-Request-Id"); v != "" {
		c.requestID = short(v)
	}
	if v := resp.Header.Get("X-Amz-Bucket-Region"); v != "" {
		c.region = short(v)
	}
	if v := resp.Header.Get("X-Minio-Error-Code"); v != "" && c.code == "" {
		c.code = short(v)
	}
}

// short makes foreign text fit for an error.
func short(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	clean := []rune(s)
	for i, r := range clean {
		if r < ' ' || r == 0x7f {
			clean[i] = ' '
		}
	}
	return string(clean)
}

// boundedBody fails beyond its limit, and does not read on.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	// One byte more than is allowed tells that there is more.
	if b.left < 0 {
		return 0, errTooLong
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, errTooLong
	}
	return n, err
}

// body is what a PUT sends. The transport may read on after a cancelled call has
// returned; detach takes the bytes away from it, which are the caller's again.
type body struct {
	mu   sync.Mutex
	data []byte
	done bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.done:
		return 0, errDetached
	case len(b.data) == 0:
		return 0, io.EOF
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}

func (b *body) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data, b.done = nil, true
}
