package remote

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

// What a remote store refuses for, beside the errors of package backend. Each is
// something that an administrator mends, so asking again does not help until then.
var (
	// ErrCredentials: the store does not know the user, or the secret is wrong.
	ErrCredentials = errors.New("backend: wrong credentials")
	// ErrDenied: the user may not do this.
	ErrDenied = backend.ErrDenied
	// ErrNoContainer: the bucket or container does not exist.
	ErrNoContainer = errors.New("backend: bucket or container does not exist")
	// ErrCertificate: the store's certificate is not trusted.
	ErrCertificate = errors.New("backend: certificate not trusted")
	// ErrEncryption: the store does not encrypt as it is asked to.
	ErrEncryption = errors.New("backend: no such encryption by the store")
	// ErrClock: the clocks of this node and of the store are too far apart.
	ErrClock = errors.New("backend: clocks too far apart")
	// ErrThrottled: the store asks for fewer requests.
	ErrThrottled = errors.New("backend: throttled")
	// ErrUnreachable: no answer came from the store.
	ErrUnreachable = errors.New("backend: unreachable")
)

// Error is a failed request to a remote store. It unwraps to one of the sentinels
// above or of package backend, and to the cause.
type Error struct {
	Op         string // "PUT object", as a person says it
	Name       string // of the object, or of the bucket or container; may be empty
	Status     int    // of HTTP; 0: no answer
	Code       string // what the store calls it, "NoSuchKey"; may be empty
	Message    string // of the store, bounded; never holds a secret
	RequestID  string // what the store's operator finds the request by; may be empty
	RetryAfter time.Duration
	Kind       error // one of the sentinels, nil: worth a retry
	Err        error // may be nil
}

// Error implements error.
func (e *Error) Error() string {
	s := e.Op
	if e.Name != "" {
		s += " " + e.Name
	}
	if e.Status != 0 {
		s += fmt.Sprintf(": HTTP status %d", e.Status)
	}
	if e.Code != "" {
		s += " " + e.Code
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Err != nil && e.Status == 0 {
		s += ": " + e.Err.Error()
	}
	if e.RequestID != "" {
		s += " (request " + e.RequestID + ")"
	}
	if e.Kind != nil {
		return e.Kind.Error() + ": " + s
	}
	return s
}

// Unwrap implements errors.Unwrap.
func (e *Error) Unwrap() []error {
	var all []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// Classify gives a failure without an answer its kind: ErrCertificate,
// ErrUnreachable, or nil when ctx ended.
func Classify(err error) error {
	var (
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		network  net.Error
		op       *net.OpError
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil
	case errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &invalid):
		return ErrCertificate
	case errors.As(err, &op), errors.As(err, &network):
		return ErrUnreachable
	}
	return nil
}

// maxRetryAfter bounds what a store may ask for.
const maxRetryAfter = 5 * time.Minute

// RetryAfter reads the header of an answer; 0: there is none. now is the time of
// this node.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if n, err := strconv.Atoi(v); err == nil {
		return min(max(time.Duration(n)*time.Second, 0), maxRetryAfter)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// Final tells whether an error stays until somebody mends something, so that
// asking again soon is of no use.
func Final(err error) bool {
	for _, is := range []error{ErrCredentials, ErrDenied, ErrNoContainer, ErrCertificate, ErrEncryption, ErrClock, backend.ErrUnsupported} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
