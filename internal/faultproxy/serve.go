package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// ServeHTTP passes a request on, with its fault.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.begin() {
		cut(w, true)
		return
	}
	defer p.work.Done()
	t := p.targetOf(r)
	k, drawn := p.draw(p.concern(r, t))
	if !drawn {
		p.pass(w, r, t)
		return
	}
	switch k {
	case Refuse5xx, Throttle, ExpireToken, ClockSkew, FalseSuccess:
		p.answerFor(w, r, k)
	case ResetRequest:
		p.resetRequest(w, r)
	case StaleList:
		p.staleList(w, r)
	case Duplicate, DuplicateLate:
		p.duplicate(w, r, k)
	case LostAnswer:
		p.loseAnswer(w, r)
	case Stall:
		if r.Method == http.MethodGet {
			p.spoil(w, r, k)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body) // a client that leaves is noticed after its body only
		p.happened(k)
		p.stall(r)
		cut(w, true)
	default: // Flip, Truncate, ResetResponse
		p.spoil(w, r, k)
	}
}

// connection are the headers of a connection and not of a request (RFC 9110, 7.6.1).
// Expect is answered by the proxy.
var connection = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect"}

// send forwards a request with a body of n bytes (F1); -1: of unknown length.
func (p *Proxy) send(ctx context.Context, r *http.Request, body io.Reader, n int64) (*http.Response, error) {
	out := r.Clone(ctx)
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = p.target.Scheme, p.target.Host
	for _, h := range connection {
		out.Header.Del(h)
	}
	if _, there := r.Header["User-Agent"]; !there {
		out.Header["User-Agent"] = []string{""} // else the transport adds its own
	}
	out.TransferEncoding, out.Close, out.Trailer = nil, false, nil
	out.Body, out.ContentLength = http.NoBody, n
	if n == 0 {
		body = http.NoBody
	}
	w := newWatched(body)
	if n != 0 {
		out.Body = w
	}
	resp, err := p.o.Transport.RoundTrip(out)
	if r.Method == http.MethodPut && p.targetOf(r) == object && (err != nil || resp.StatusCode/100 != 4) {
		p.names.note(r.URL.Path, w, n)
	}
	return resp, err
}

// forward sends a request as it came.
func (p *Proxy) forward(r *http.Request) (*http.Response, error) {
	return p.send(r.Context(), r, r.Body, r.ContentLength)
}

// pass is a request without a fault.
func (p *Proxy) pass(w http.ResponseWriter, r *http.Request, t target) {
	resp, err := p.forward(r)
	if err != nil {
		away(w, err)
		return
	}
	defer resp.Body.Close()
	if t == list && resp.StatusCode/100 == 2 {
		head, err := io.ReadAll(io.LimitReader(resp.Body, listLimit+1))
		if err == nil && len(head) <= listLimit {
			p.lists.note(r.URL.RequestURI(), answer{resp.Header.Clone(), head})
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
	}
	reply(w, resp)
}

// away says that the store did not answer.
func away(w http.ResponseWriter, err error) {
	http.Error(w, "fault proxy: "+err.Error(), http.StatusBadGateway)
}

// reply gives the store's answer to the client. One that breaks off breaks off here too.
func reply(w http.ResponseWriter, resp *http.Response) {
	begin(w, resp)
	if _, err := io.Copy(w, resp.Body); err != nil {
		cut(w, true)
	}
}

// begin gives all but the body of an answer.
func begin(w http.ResponseWriter, resp *http.Response) {
	maps.Copy(w.Header(), resp.Header)
	for _, h := range connection {
		w.Header().Del(h)
	}
	w.WriteHeader(resp.StatusCode)
}

// cut ends the connection to the client after what was written, or resets it.
func cut(w http.ResponseWriter, reset bool) {
	c := http.NewResponseController(w)
	_ = c.Flush()
	conn, _, err := c.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// answerFor answers in the store's place.
func (p *Proxy) answerFor(w http.ResponseWriter, r *http.Request, k Kind) {
	p.happened(k)
	// An answer before the end of the body would often be met by a reset.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		cut(w, true)
		return
	}
	switch k {
	case Refuse5xx:
		p.refuse(w, [...]int{500, 502, 503, 504}[p.below(4)], "InternalError")
	case Throttle:
		w.Header().Set("Retry-After", strconv.FormatInt(p.below(2), 10))
		p.refuse(w, [...]int{429, 503}[p.below(2)], "SlowDown")
	case ExpireToken:
		p.refuse(w, http.StatusUnauthorized, "")
	case ClockSkew:
		p.refuse(w, http.StatusForbidden, "RequestTimeTooSkewed")
	case FalseSuccess:
		if p.below(2) == 0 {
			w.Header().Set("ETag", `"00000000000000000000000000000000"`)
		}
		w.WriteHeader(map[Protocol]int{S3: http.StatusOK, Swift: http.StatusCreated}[p.o.Protocol])
	}
}

// refuse answers with an error as the store words it.
func (p *Proxy) refuse(w http.ResponseWriter, status int, code string) {
	if p.o.Protocol == Swift {
		http.Error(w, http.StatusText(status), status)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>", code, http.StatusText(status))
}

// stall waits for Options.Stall, or until the client leaves.
func (p *Proxy) stall(r *http.Request) { p.wait(r.Context(), p.o.Stall) }

// wait waits for d or the end of ctx.
func (p *Proxy) wait(ctx context.Context, d time.Duration) {
	_ = clock.Sleep(ctx, p.o.Clock, d)
}

// errCut ends a request's body before its end.
var errCut = errors.New("fault proxy: request cut")

// failing is a reader that fails.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

// resetRequest forwards half of the body, and resets both connections.
func (p *Proxy) resetRequest(w http.ResponseWriter, r *http.Request) {
	half := max(r.ContentLength/2, 0)
	resp, err := p.send(r.Context(), r, io.MultiReader(io.LimitReader(r.Body, half), failing{}), r.ContentLength)
	if err == nil { // the store answered before it had all
		resp.Body.Close()
	}
	p.happened(ResetRequest)
	cut(w, true)
}

// staleList answers with what was there before.
func (p *Proxy) staleList(w http.ResponseWriter, r *http.Request) {
	a, ok := p.lists.earlier(r.URL.RequestURI(), p.below)
	if !ok {
		p.pass(w, r, list)
		return
	}
	p.happened(StaleList)
	reply(w, &http.Response{StatusCode: http.StatusOK, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body))})
}

// loseAnswer forwards, and hides that it worked.
func (p *Proxy) loseAnswer(w http.ResponseWriter, r *http.Request) {
	resp, err := p.forward(r)
	if err != nil {
		away(w, err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		reply(w, resp)
		return
	}
	p.happened(LostAnswer)
	if p.below(2) == 0 {
		cut(w, true)
		return
	}
	p.refuse(w, [...]int{500, 503}[p.below(2)], "InternalError")
}

// duplicate sends a request twice.
func (p *Proxy) duplicate(w http.ResponseWriter, r *http.Request, k Kind) {
	select {
	case p.slots <- struct{}{}:
	default:
		p.pass(w, r, object)
		return
	}
	free := func() { <-p.slots }
	body, err := io.ReadAll(io.LimitReader(r.Body, bodyLimit+1))
	if err != nil || len(body) > bodyLimit {
		defer free()
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), r.Body))
		p.pass(w, r, object)
		return
	}
	if k == DuplicateLate {
		p.duplicateLate(w, r, body, free)
		return
	}
	defer free()
	again := func(ctx context.Context) (*http.Response, error) {
		return p.send(ctx, r, bytes.NewReader(body), int64(len(body)))
	}
	first, err := again(r.Context())
	if err != nil {
		away(w, err)
		return
	}
	defer first.Body.Close()
	second, err := again(r.Context())
	if err != nil {
		reply(w, first)
		return
	}
	defer second.Body.Close()
	p.happened(Duplicate)
	reply(w, []*http.Response{first, second}[p.below(2)])
}

// duplicateLate answers, and sends the request again later.
func (p *Proxy) duplicateLate(w http.ResponseWriter, r *http.Request, body []byte, free func()) {
	first, err := p.send(r.Context(), r, bytes.NewReader(body), int64(len(body)))
	if err != nil {
		free()
		away(w, err)
		return
	}
	defer first.Body.Close()
	if !p.beginLate() {
		free()
		reply(w, first)
		return
	}
	after, r := time.Duration(p.below(int64(p.o.Delay)+1)), r.Clone(p.ctx)
	go func() {
		defer p.late.Done()
		defer free()
		p.wait(p.ctx, after)
		ctx, cancel := context.WithTimeout(p.ctx, lateTimeout)
		defer cancel()
		if resp, err := p.send(ctx, r, bytes.NewReader(body), int64(len(body))); err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, bodyLimit))
			resp.Body.Close()
			p.happened(DuplicateLate)
		}
	}()
	reply(w, first)
}

// unknownLength is where a body of unknown length is spoiled, at the latest.
const unknownLength = 1024

// spoil forwards a GET and does something to the body of the answer.
func (p *Proxy) spoil(w http.ResponseWriter, r *http.Request, k Kind) {
	resp, err := p.forward(r)
	if err != nil {
		away(w, err)
		return
	}
	defer resp.Body.Close()
	n := resp.ContentLength
	if n < 0 {
		n = unknownLength
	}
	if resp.StatusCode/100 != 2 || n == 0 {
		reply(w, resp)
		return
	}
	at := p.below(n)
	begin(w, resp)
	if _, err := io.CopyN(w, resp.Body, at); err != nil {
		if err != io.EOF { // else it was shorter than that, and is whole
			cut(w, true)
		}
		return
	}
	switch k {
	case Flip:
		p.flip(w, resp.Body)
		return
	case Stall:
		_ = http.NewResponseController(w).Flush()
		p.happened(k)
		p.stall(r)
	default:
		p.happened(k)
	}
	cut(w, k != Truncate)
}

// flip gives the rest of a body with a bit of its first byte changed.
func (p *Proxy) flip(w http.ResponseWriter, body io.Reader) {
	var b [1]byte
	if _, err := io.ReadFull(body, b[:]); err == nil {
		b[0] ^= 1 << p.below(8)
		p.happened(Flip)
		_, _ = w.Write(b[:])
	}
	if _, err := io.Copy(w, body); err != nil {
		cut(w, true)
	}
}
