package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/oidc"
)

// problem is an error with its HTTP status.
type problem struct {
	status int
	Error
	after time.Duration // Retry-After
}

func (p *problem) text() string { return p.Code + ": " + p.Message }

// refusal lets a problem travel as an error.
type refusal struct{ problem }

func (r *refusal) Error() string { return r.text() }

func refuse(status int, code, object, hint, format string, a ...any) error {
	return &refusal{problem{status: status, Error: Error{Code: code, Message: fmt.Sprintf(format, a...), Object: some(object), Hint: some(hint)}}}
}

func refuseField(field, hint, format string, a ...any) error {
	return &refusal{problem{status: http.StatusBadRequest, Error: Error{Code: "invalid", Field: &field, Message: fmt.Sprintf(format, a...), Hint: some(hint)}}}
}

func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// about names the object of a refusal that does not, and the field of a name
// that is taken.
func about(object, field string, err error) error {
	if err == nil {
		return nil
	}
	p := toProblem(err)
	if p.status >= http.StatusInternalServerError {
		return err // a defect keeps its cause for the log
	}
	if p.Object == nil {
		p.Object = some(clip(object))
	}
	if p.Field == nil && p.Code == "exists" {
		p.Field = some(field)
	}
	return &refusal{p}
}

// clip bounds a text of a request that an answer repeats.
func clip(s string) string {
	const most = 80
	if r := []rune(strings.ToValidUTF8(s, "?")); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

var statusOf = map[control.Code]int{
	control.CodeInvalid:     http.StatusBadRequest,
	control.CodeShrink:      http.StatusBadRequest,
	control.CodeNotFound:    http.StatusNotFound,
	control.CodeExists:      http.StatusConflict,
	control.CodeInUse:       http.StatusConflict,
	control.CodeLostTail:    http.StatusConflict,
	control.CodeNotRunning:  http.StatusConflict,
	control.CodeForeignRoot: http.StatusConflict,
	control.CodeElsewhere:   http.StatusConflict,
	control.CodeBackend:     http.StatusServiceUnavailable,
	control.CodeNoSpace:     http.StatusInsufficientStorage,
	control.CodeStopping:    http.StatusServiceUnavailable,
	control.CodeTimeout:     http.StatusServiceUnavailable,
	control.CodeInternal:    http.StatusInternalServerError,
}

// soon is when a client asks again, at first, where what is in the way ends by itself.
const soon = time.Second

// toProblem gives any error its answer. What is not known is a defect: its text
// goes to the log, not to the client.
func toProblem(err error) problem {
	var r *refusal
	var c *control.Error
	var rate *auth.RateError
	var field *auth.FieldError
	var refused *oidc.RefusedError
	var away *oidc.AwayError
	var big *http.MaxBytesError
	var he *echo.HTTPError
	simple := func(status int, code, hint string) problem {
		return problem{status: status, Error: Error{Code: code, Message: err.Error(), Hint: some(hint)}}
	}
	switch {
	case errors.As(err, &r):
		return r.problem
	case errors.As(err, &c):
		p := problem{status: statusOf[c.Code], Error: Error{Code: string(c.Code), Message: c.Message, Field: some(c.Field), Object: some(c.Object), Hint: some(c.Hint)}}
		if c.Soon {
			p.status, p.after = http.StatusServiceUnavailable, soon
		}
		if c.Code == control.CodeInternal {
			p.Message = "this is a defect, or the node's disk fails"
			p.Hint = some("look up the request id in the node's log")
		}
		return p
	case errors.As(err, &refused):
		return problem{status: http.StatusUnauthorized, Error: Error{Code: "provider_refused", Message: refused.Message, Object: some(refused.Object), Hint: some(refused.Hint)}}
	case errors.As(err, &away):
		return simple(http.StatusServiceUnavailable, "provider_unavailable", "try again in a while, or sign in with a password of this cluster; administrators: ovgate oidc test")
	case errors.As(err, &rate):
		p := simple(http.StatusTooManyRequests, "rate_limited", "")
		p.after = rate.After
		return p
	case errors.As(err, &big):
		return problem{status: http.StatusRequestEntityTooLarge, Error: Error{Code: "too_large", Message: fmt.Sprintf("the request body is longer than %d bytes", big.Limit)}}
	case errors.Is(err, errNoBody):
		return problem{status: http.StatusBadRequest, Error: Error{Code: "invalid", Message: "the request body is missing", Hint: some("send one JSON object")}}
	case errors.Is(err, auth.ErrCredentials):
		return simple(http.StatusUnauthorized, "unauthorized", "")
	case errors.As(err, &field):
		return problem{status: http.StatusBadRequest, Error: Error{Code: "invalid", Message: field.Message, Field: some(field.Field), Object: some(field.Object), Hint: some(field.Hint)}}
	case errors.Is(err, auth.ErrInvalid):
		return simple(http.StatusBadRequest, "invalid", "")
	case errors.Is(err, auth.ErrExists):
		return simple(http.StatusConflict, "exists", "choose another name")
	case errors.Is(err, auth.ErrNotFound):
		return simple(http.StatusNotFound, "not_found", "ovgate user list, ovgate group list and ovgate user token list show what there is")
	case errors.Is(err, auth.ErrAbove):
		return simple(http.StatusForbidden, "forbidden", "ask for a smaller role")
	case errors.Is(err, auth.ErrLastManager):
		return simple(http.StatusConflict, "last_admin", "give another user role manage first")
	case errors.Is(err, auth.ErrNoSetup):
		return simple(http.StatusConflict, "setup_done", "sign in with the administrator's name and password")
	case errors.Is(err, auth.ErrTooMany):
		return simple(http.StatusConflict, "invalid", "delete what is not used")
	case errors.Is(err, model.ErrCursor):
		p := simple(http.StatusBadRequest, "invalid", "begin again without a cursor")
		p.Field = some("cursor")
		return p
	case errors.Is(err, context.DeadlineExceeded):
		return problem{status: http.StatusServiceUnavailable, Error: Error{Code: "timeout", Message: "it took too long", Hint: some("try again; repeating does no harm")}}
	case errors.Is(err, context.Canceled):
		return problem{status: http.StatusServiceUnavailable, Error: Error{Code: "stopping", Message: "the request was given up, or the node is stopping", Hint: some("try again")}}
	case errors.As(err, &he):
		return echoProblem(he)
	}
	return problem{status: http.StatusInternalServerError, Error: Error{Code: "internal", Message: "this is a defect, or the node's disk fails", Hint: some("look up the request id in the node's log")}}
}

// echoProblem answers what the router and the generated code refuse.
func echoProblem(he *echo.HTTPError) problem {
	p := problem{status: he.Code, Error: Error{Code: "invalid", Message: fmt.Sprint(he.Message)}}
	switch he.Code {
	case http.StatusNotFound:
		p.Code, p.Message, p.Hint = "not_found", "there is no such path", some("GET "+BasePath+"/openapi.yaml lists the operations")
	case http.StatusMethodNotAllowed:
		p.Message = "this path does not take this method"
	case http.StatusUnauthorized:
		p.Code = "unauthorized"
	case http.StatusForbidden:
		p.Code = "forbidden"
	case http.StatusRequestEntityTooLarge:
		p.Code = "too_large"
	}
	if he.Code >= http.StatusInternalServerError {
		p.Code, p.Message = "internal", "this is a defect"
	}
	return p
}

// handleError is echo's error handler: every error becomes JSON (H2).
func (s *Server) handleError(err error, c echo.Context) {
	id := requestID(c)
	p := toProblem(err)
	if p.status >= http.StatusInternalServerError && p.status != http.StatusServiceUnavailable {
		s.log.Error("request failed", "requestId", id, "method", c.Request().Method, "path", c.Path(), "err", err)
	}
	s.logRefused(c, id, p)
	if c.Response().Committed {
		return
	}
	p.RequestID = id
	h := c.Response().Header()
	if p.after > 0 {
		h.Set("Retry-After", strconv.Itoa(int(p.after/time.Second)+1))
	}
	if p.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if werr := c.JSON(p.status, p.Error); werr != nil {
		s.log.Debug("answer not delivered", "requestId", id, "err", werr)
	}
}

// logRefused leaves a line about a change that was refused, for callers that
// signed in only: nobody else fills the log.
func (s *Server) logRefused(c echo.Context, id string, p problem) {
	r := c.Request()
	who := callerOf(r.Context())
	if !who.known || r.Method == http.MethodGet || p.status >= http.StatusInternalServerError {
		return
	}
	s.log.Info("request refused", "requestId", id, "caller", who.label(), "method", r.Method, "path", c.Path(),
		"object", value(p.Object), "code", p.Code, "field", value(p.Field), "reason", p.Message)
}

// binder decodes request bodies strictly: JSON, one value, no unknown fields.
type binder struct{}

// errNoBody is io.EOF to the generated code, which lets an optional body be absent.
var errNoBody = fmt.Errorf("the request body is missing: %w", io.EOF)

// Bind implements echo.Binder.
func (binder) Bind(v any, c echo.Context) error {
	r := c.Request()
	if r.Body == nil || r.ContentLength == 0 {
		return errNoBody
	}
	ct, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if strings.TrimSpace(strings.ToLower(ct)) != "application/json" {
		return &refusal{problem{status: http.StatusUnsupportedMediaType, Error: Error{Code: "invalid", Message: "the request body is not JSON", Hint: some("send Content-Type: application/json")}}}
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			return refuseField("", "send one JSON object", "something follows the JSON object in the request body")
		}
		return nil
	}
	var big *http.MaxBytesError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return errNoBody
	case errors.As(err, &big):
		return big
	case errors.As(err, &typ):
		return refuseField(typ.Field, "", "%s is not a %s", typ.Value, typ.Type)
	}
	return refuseField(unknownField(err), "openapi.yaml describes the request", "the request body is not understood: %v", err)
}

// unknownField finds the name in encoding/json's "unknown field" error, which
// has no type of its own.
func unknownField(err error) string {
	const is = `json: unknown field "`
	if s := err.Error(); strings.HasPrefix(s, is) {
		return strings.TrimSuffix(s[len(is):], `"`)
	}
	return ""
}
