package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/observe/audit"
)

// Changes go through two parts of the audit: noteRequest, outermost, sees refusals and the
// answer; noteChange, behind the guard, sees who asks and what. A request that was passed on
// is in the log of the node that was asked first.

const (
	auditKey = "audit"
	// lookBefore bounds the look at what a change is about to change.
	lookBefore = 5 * time.Second
	// Refused attempts that are logged one by one: refusedBurst, then one per refusedEvery.
	// The others are counted (H7).
	refusedBurst = 100
	refusedEvery = time.Second
)

// noted is a request on its way to the audit log.
type noted struct {
	e     audit.Entry
	op    *audit.Op // nil: nothing was begun
	reads bool      // it changes nothing: a refusal alone is told
}

// set remembers who asks.
func (n *noted) set(who caller) {
	n.e.User, n.e.Token, n.e.Role, n.e.Address = cmp.Or(who.User, who.Name), who.Token, string(who.Role), who.address
}

type notedKey struct{}

// noteSignIn tells the log whom a sign-in is about, which its request does not say.
func noteSignIn(ctx context.Context, object string) {
	if n, _ := ctx.Value(notedKey{}).(*noted); n != nil && object != "" {
		n.e.Object = object
	}
}

func notedOf(c echo.Context) *noted {
	n, _ := c.Get(auditKey).(*noted)
	return n
}

// noteRequest writes how a request ended, before it is answered.
func (s *Server) noteRequest(op string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		if s.opt.Audit == nil {
			return next
		}
		return func(c echo.Context) error {
			r := c.Request()
			n := &noted{reads: r.Method == http.MethodGet && !rules[op].gives || rules[op].quiet}
			n.e = audit.Entry{Time: s.clock.Now(), Operation: op, Object: objectOf(c, op, nil), RequestID: requestID(c)}
			c.Set(auditKey, n)
			// Whoever answers, the error handler too, comes by here once.
			c.Response().Before(func() { s.noteEnd(c, n) })
			err := next(c)
			if err != nil {
				p := toProblem(err)
				n.e.Code, n.e.Field = p.Code, value(p.Field)
			}
			return err
		}
	}
}

// noteChange begins a change in the log, with what it is to change.
func (s *Server) noteChange(op string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		if s.opt.Audit == nil {
			return next
		}
		return func(c echo.Context) error {
			n, r := notedOf(c), c.Request()
			who := callerOf(r.Context())
			if n.reads || who.node != "" {
				return next(c)
			}
			body, err := jsonBody(r)
			if err != nil {
				return err
			}
			if len(c.ParamNames()) == 0 { // else the path has the name that was asked for, or by now its id
				n.e.Object = objectOf(c, op, body)
			}
			if !who.known { // a sign-in
				c.SetRequest(r.WithContext(context.WithValue(r.Context(), notedKey{}, n)))
				return next(c)
			}
			n.e.Changes = changes(body, s.before(c, op))
			n.op = s.opt.Audit.Begin(n.e)
			return next(c)
		}
	}
}

// jsonBody returns the object of a JSON body, nil if it is none, and leaves the body as it was.
func jsonBody(r *http.Request) (map[string]any, error) {
	if r.ContentLength == 0 || !strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "application/json") {
		return nil, nil
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v map[string]any
	if d.Decode(&v) != nil {
		return nil, nil // the handler refuses it
	}
	return v, nil
}

// kindOf are parameters of paths that are not called what they name.
var kindOf = map[string]string{"iqn": "target", "volumeType": "type"}

// objectOf names what a request is about: by its path, else by the name in its body.
func objectOf(c echo.Context, op string, body map[string]any) string {
	var words []string
	for i, name := range c.ParamNames() {
		words = append(words, cmp.Or(kindOf[name], name), c.ParamValues()[i])
	}
	if len(words) > 0 {
		return strings.Join(words, " ")
	}
	if strings.HasSuffix(op, "Oidc") {
		return "sign-in provider"
	}
	for _, key := range []string{"name", "user"} {
		if name, ok := body[key].(string); ok {
			kind := "user"
			if key == "name" {
				verb := strings.IndexFunc(op[1:], func(r rune) bool { return r >= 'A' && r <= 'Z' })
				kind = strings.ToLower(op[1+max(verb, 0):])
			}
			return kind + " " + name
		}
	}
	return ""
}

// noteEnd writes how a request ended; its status is known.
func (s *Server) noteEnd(c echo.Context, n *noted) {
	n.e.Status = c.Response().Status
	n.e.TookMs = s.clock.Now().Sub(n.e.Time).Milliseconds()
	n.e.Node = c.Response().Header().Get(nodeHeader)
	refused := n.e.Status == http.StatusUnauthorized || n.e.Status == http.StatusForbidden
	switch who := callerOf(c.Request().Context()); {
	case who.node != "":
	case n.op != nil:
		n.op.End(n.e)
	case n.reads && (!refused || n.e.Role == "" && c.Request().Header.Get("Authorization") == ""):
		// Nothing was shown: a page asks before its user signs in.
	case n.e.Status < http.StatusBadRequest:
		s.opt.Audit.Append(n.e)
	default:
		if n.e.Address == "" {
			n.e.Address = who.address
		}
		if logged, more := s.refused.take(s.clock.Now()); logged {
			n.e.Count = more
			s.opt.Audit.Append(n.e)
		}
	}
}

// refusedBucket lets refused attempts into the log, so many at a time.
type refusedBucket struct {
	mu    sync.Mutex
	spent float64
	at    time.Time
	more  int // left out since the last that was let in
}

// take tells whether an attempt is logged, and for how many more it stands.
func (b *refusedBucket) take(now time.Time) (logged bool, more int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent = max(0, b.spent-float64(now.Sub(b.at))/float64(refusedEvery))
	b.at = now
	if b.spent > refusedBurst-1 {
		b.more++
		return false, 0
	}
	b.spent++
	more, b.more = b.more, 0
	return true, more
}

// look is where the present values of what an operation sets are found: in the answer of GET
// at its path without the last segments, below a field.
type look struct {
	strip int
	under string
}

var looks = map[string]look{
	"UpdateVPool": {}, "UpdateVDisk": {}, "UpdateBackend": {}, "UpdateCloud": {}, "UpdateCenter": {}, "UpdatePreset": {}, "UpdateUser": {}, "UpdateGroup": {}, "SetOidc": {},
	"SetVDiskQos": {1, "qos"}, "SetVDiskCache": {1, "cache"}, "SetVDiskHistory": {1, "history"}, "SetVDiskDtl": {1, "dtl"}, "SetTargetPortals": {strip: 1},
}

// before returns what GET shows of an object that is about to change; nil: nothing is known.
func (s *Server) before(c echo.Context, op string) map[string]any {
	l, ok := looks[op]
	if !ok {
		return nil
	}
	r := c.Request()
	path := r.URL.EscapedPath()
	for range l.strip {
		path = path[:strings.LastIndexByte(path, '/')]
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookBefore)
	defer cancel()
	body, err := s.within(ctx, r, path, maxBody)
	if err != nil {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v map[string]any
	if d.Decode(&v) != nil {
		return nil
	}
	if l.under != "" {
		v, _ = v[l.under].(map[string]any)
	}
	return v
}

// ListAudit lists entries of the audit log, the newest first.
func (s *Server) ListAudit(ctx context.Context, r ListAuditRequestObject) (ListAuditResponseObject, error) {
	p := r.Params
	if err := s.askNamed(ctx, p.Node, "audit log"); err != nil {
		return nil, err
	}
	if s.opt.Audit == nil {
		return ListAudit200JSONResponse{Items: []AuditEntry{}}, nil
	}
	q := audit.Query{
		User: value(p.User), Object: value(p.Q), Operation: value(p.Operation), Since: value(p.Since), Until: value(p.Until),
		After: uint64(max(0, value(p.After))),
	}
	var err error
	if q.Limit, q.Before, err = pageOf(p.Limit, p.Cursor); err != nil {
		return nil, err
	}
	entries, next, err := s.opt.Audit.List(ctx, q)
	if err != nil {
		return nil, err
	}
	out := ListAudit200JSONResponse{Items: make([]AuditEntry, 0, len(entries))}
	for _, e := range entries {
		out.Items = append(out.Items, auditEntryOf(e))
	}
	if next != 0 {
		out.Next = new(strconv.FormatUint(next, 10))
	}
	return out, nil
}

func auditEntryOf(e audit.Entry) AuditEntry {
	out := AuditEntry{
		Seq: int64(e.Seq), Time: e.Time, TookMs: e.TookMs, Operation: e.Operation, Object: e.Object, User: e.User, Token: e.Token, Role: e.Role,
		Address: e.Address, RequestID: e.RequestID, Node: e.Node, Status: e.Status, Code: e.Code, Field: e.Field, Count: e.Count, Changes: []AuditChange{},
	}
	for _, c := range e.Changes {
		out.Changes = append(out.Changes, AuditChange{Field: c.Field, Before: c.Before, After: c.After})
	}
	return out
}
