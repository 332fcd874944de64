package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/encrypted"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// Code is a stable word for programs, as listed in gateway/api/openapi.yaml.
type Code string

// Codes.
const (
	CodeInvalid     Code = "invalid"
	CodeNotFound    Code = "not_found"
	CodeExists      Code = "exists"
	CodeInUse       Code = "in_use"
	CodeShrink      Code = "shrink"
	CodeLostTail    Code = "lost_tail"
	CodeNotRunning  Code = "not_running"
	CodeForeignRoot Code = "foreign_root"
	CodeBackend     Code = "backend_unavailable"
	CodeNoSpace     Code = "no_space"
	CodeElsewhere   Code = "elsewhere"
	CodeStopping    Code = "stopping"
	CodeTimeout     Code = "timeout"
	CodeInternal    Code = "internal"
)

// Error is what a user is told: what happened, to what, and what to do.
type Error struct {
	Code    Code
	Message string // what happened
	Field   string // of the request, when one is wrong
	Object  string // "vdisk demo"
	Hint    string // what to do
	Node    string // id of the node that serves it, with CodeElsewhere; may be empty
	Err     error  // cause, for the log; may be nil
	// Soon: what is in the way ends by itself within seconds; the same request may succeed
	// then. The API answers 503 with Retry-After instead of what Code has.
	Soon bool
}

func (e *Error) Error() string {
	s := e.Message
	if e.Object != "" {
		s = e.Object + ": " + s
	}
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func invalid(field, object, hint, format string, a ...any) *Error {
	return &Error{Code: CodeInvalid, Field: field, Object: object, Hint: hint, Message: fmt.Sprintf(format, a...)}
}

func vdiskObject(name string) string { return "vdisk " + name }
func vpoolObject(name string) string { return "vpool " + name }

// InField names the field of a request that an error of this package is about.
func InField(err error, field string) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	named := *e
	named.Field = field
	return &named
}

func noVDisk(ref string) *Error {
	return &Error{Code: CodeNotFound, Object: vdiskObject(ref), Message: "there is no such vDisk", Hint: "ovgate vdisk list shows the vDisks"}
}

func noVPool(ref, field string) *Error {
	return &Error{Code: CodeNotFound, Field: field, Object: vpoolObject(ref), Message: "there is no such vPool", Hint: "ovgate vpool list shows the vPools"}
}

// lostTailHint names what ends LOST_TAIL (rule E9).
func lostTailHint(name string) string {
	return "bring back the journal of this node, or serve it without what it lost: ovgate vdisk accept-loss " + name
}

// Remedies that are told in several places.
const (
	fencedHint  = "another opening of this vDisk serves it now: stop that one, then restart ovgate here"
	corruptHint = "the reason names the damaged place: bring that back from a copy, then restart ovgate"
)

// explain turns an error of the engine, backend or model into an *Error about object.
func explain(object string, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	e = &Error{Code: CodeInternal, Object: object, Message: err.Error(), Err: err}
	for _, c := range causes {
		if errors.Is(err, c.is) {
			e.Code, e.Hint = c.code, c.hint
			if name, ok := strings.CutPrefix(object, vdiskObject("")); ok && c.code == CodeLostTail {
				e.Hint = lostTailHint(name)
			}
			return e
		}
	}
	return e
}

// causes maps errors of the parts below to what a user can do; first match wins.
var causes = []struct {
	is   error
	code Code
	hint string
}{
	{volume.ErrDeletesOff, CodeInUse, "ovgate metadata status tells how far the comparison is; try again when deletes are on"},
	{volume.ErrForeignRoot, CodeForeignRoot, "use an empty directory, or recover the vPool from this one"},
	{volume.ErrLostTail, CodeLostTail, "ovgate vdisk list --state lost_tail shows which, and each says what to do"},
	{volume.ErrCorrupt, CodeNotRunning, corruptHint},
	{encrypted.ErrKey, CodeInvalid, "give the key that it was made with: --key-file, with what ovgate vpool key printed"},
	{backend.ErrInUse, CodeInUse, "stop the other ovgate, or use another directory"},
	{backend.ErrFull, CodeNoSpace, "free or add space on the backend"},
	{backend.ErrCorrupt, CodeBackend, "check the backend's disk"},
	{volume.ErrGroupLate, CodeTimeout, "try again; ovgate node list shows which node is slow"},
	{volume.ErrStalled, CodeBackend, "bring the backend back; the vDisk continues by itself"},
	{volume.ErrBackend, CodeBackend, "bring the backend back and try again"},
	{volume.ErrFailed, CodeNotRunning, "check the WRITE disk of the node, then restart ovgate"},
	{volume.ErrFenced, CodeNotRunning, fencedHint},
	{volume.ErrClosed, CodeNotRunning, "wait until the vDisk is running"},
	{volume.ErrInUse, CodeInUse, ""},
	{volume.ErrTemplate, CodeInUse, "clone the template and use the clone"},
	{volume.ErrNoPoint, CodeNotFound, "ovgate snapshot list and ovgate vdisk history show what there is"},
	{volume.ErrInvalid, CodeInvalid, ""},
	{volume.ErrExists, CodeExists, "choose another name"},
	{model.ErrExists, CodeExists, "choose another name"},
	{model.ErrConflict, CodeInUse, "it changed at the same time; try again"},
	{model.ErrNotFound, CodeNotFound, ""},
	{volume.ErrNotFound, CodeNotFound, ""},
	{context.DeadlineExceeded, CodeTimeout, "try again; repeating does no harm"},
	{context.Canceled, CodeStopping, "try again"},
}
