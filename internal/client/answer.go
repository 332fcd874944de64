package client

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// MaxAnswer bounds what is read of an answer, in bytes: a page of 1000 vDisks
// with 64 labels each stays far below it.
const MaxAnswer = 64 << 20

// maxExcerpt bounds how much of an answer that is not ours goes into an error.
const maxExcerpt = 200

// APIError is a refusal or failure that a node answered.
type APIError struct {
	Status int // HTTP status, 400-599
	// Code is the stable word of openapi.yaml's Error; empty when the answer
	// did not come from an ovgate node.
	Code      string
	Message   string
	Field     string // of the request; may be empty
	Object    string // kind and name; may be empty
	Hint      string // may be empty
	RequestID string // may be empty
}

// Error returns everything on one line.
func (e *APIError) Error() string {
	var b strings.Builder
	if e.Object != "" && !strings.Contains(e.Message, e.Object) {
		b.WriteString(e.Object + ": ")
	}
	b.WriteString(e.Message)
	if e.Field != "" {
		b.WriteString(" (field " + e.Field + ")")
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	if e.RequestID != "" {
		b.WriteString(" [request " + e.RequestID + "]")
	}
	return b.String()
}

// UnreachableError says that a node did not answer.
type UnreachableError struct {
	URL  string
	Hint string // may be empty
	Err  error
}

// Error names the node, the reason and the remedy.
func (e *UnreachableError) Error() string {
	s := fmt.Sprintf("no answer from %s: %v", e.URL, e.Err)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap returns the reason.
func (e *UnreachableError) Unwrap() error { return e.Err }

// Get returns the T that an operation answered, or an *APIError. It is called
// with both results of a method of Client.
func Get[T any](resp *http.Response, err error) (T, error) {
	var v T
	body, err := read(resp, err)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("answer of %s is not what this version expects: %w; use the ovgate command of the node's version", resp.Request.URL.Redacted(), err)
	}
	return v, nil
}

// Done is Get for operations that answer nothing.
func Done(resp *http.Response, err error) error {
	_, err = read(resp, err)
	return err
}

// read returns the body of a 2xx answer.
func read(resp *http.Response, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	url := resp.Request.URL.Redacted()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer+1))
	if err != nil {
		return nil, unreachable(url, err)
	}
	if len(body) > MaxAnswer {
		return nil, fmt.Errorf("answer of %s is longer than %d MiB; ask for fewer items", url, MaxAnswer>>20)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return body, nil
	}
	return nil, apiError(resp, body)
}

// apiError makes an error of an answer that is not 2xx.
func apiError(resp *http.Response, body []byte) *APIError {
	e := &APIError{Status: resp.StatusCode, RequestID: resp.Header.Get("X-Request-Id")}
	var m Error
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "application/json" || json.Unmarshal(body, &m) != nil || m.Code == "" {
		e.Message = fmt.Sprintf("%s answered %s", resp.Request.URL.Redacted(), resp.Status)
		if text := strings.TrimSpace(string(body[:min(len(body), maxExcerpt)])); text != "" {
			e.Message += fmt.Sprintf(": %q", text)
		}
		e.Hint = "check that the address is that of an ovgate node"
		return e
	}
	e.Code, e.Message = m.Code, m.Message
	for _, f := range []struct {
		to   *string
		from *string
	}{{&e.Field, m.Field}, {&e.Object, m.Object}, {&e.Hint, m.Hint}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if m.RequestID != "" {
		e.RequestID = m.RequestID
	}
	return e
}

// All returns the items of all pages of a list. page is called with the cursor
// of each one, nil first, and answers its items and the next cursor.
func All[T any](page func(cursor *string) ([]T, *string, error)) ([]T, error) {
	var all []T
	var cursor *string
	for {
		items, next, err := page(cursor)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == nil || *next == "" {
			return all, nil
		}
		if len(items) == 0 || cursor != nil && *cursor == *next {
			return nil, fmt.Errorf("the node answered the same page of a list twice (cursor %q); report this with the node's log", *next)
		}
		cursor = next
	}
}
