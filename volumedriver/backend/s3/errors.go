package s3

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// kinds are the errors that stores name.
var kinds = map[string]error{
	"InvalidAccessKeyId":    remote.ErrCredentials,
	"SignatureDoesNotMatch": remote.ErrCredentials,
	"XAdminUserNotFound":    remote.ErrCredentials, // versitygw
	"InvalidToken":          remote.ErrCredentials,
	"ExpiredToken":          remote.ErrCredentials,
	"TokenRefreshRequired":  remote.ErrCredentials,

	"AccessDenied":      remote.ErrDenied,
	"AllAccessDisabled": remote.ErrDenied,
	"AccountProblem":    remote.ErrDenied,

	"NoSuchBucket":                       remote.ErrNoContainer,
	"PermanentRedirect":                  remote.ErrNoContainer,
	"AuthorizationHeaderMalformed":       remote.ErrNoContainer, // signed for another region
	"IllegalLocationConstraintException": remote.ErrNoContainer,

	"RequestTimeTooSkewed": remote.ErrClock,

	"SlowDown":             remote.ErrThrottled,
	"SlowDownRead":         remote.ErrThrottled,
	"SlowDownWrite":        remote.ErrThrottled,
	"Throttling":           remote.ErrThrottled,
	"ThrottlingException":  remote.ErrThrottled,
	"RequestLimitExceeded": remote.ErrThrottled,
	"TooManyRequests":      remote.ErrThrottled,

	"QuotaExceeded":                  backend.ErrFull,
	"StorageFull":                    backend.ErrFull,
	"InsufficientStorage":            backend.ErrFull,
	"XMinioStorageFull":              backend.ErrFull,
	"XMinioAdminBucketQuotaExceeded": backend.ErrFull,

	"NoSuchKey":          backend.ErrNotExist,
	"InvalidRange":       backend.ErrRange,
	"PreconditionFailed": backend.ErrExists,
	"NotImplemented":     backend.ErrUnsupported,
}

// remedies say what to do.
var remedies = map[error]string{
	remote.ErrCredentials: "check access key and secret key",
	remote.ErrDenied:      "the keys are known, but may not do this: allow them to get, put, delete and list objects of the bucket",
	remote.ErrNoContainer: "make the bucket, or correct its name or region",
	remote.ErrCertificate: "give the certificate of the store's CA",
	remote.ErrClock:       "set the clock of this machine",
	backend.ErrFull:       "raise the quota or add space",
}

// statuses are for answers whose error has no name that is known.
func statusKind(status int) error {
	switch status {
	case http.StatusUnauthorized:
		return remote.ErrCredentials
	case http.StatusForbidden:
		return remote.ErrDenied
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return remote.ErrThrottled
	case http.StatusInsufficientStorage:
		return backend.ErrFull
	case http.StatusRequestedRangeNotSatisfiable:
		return backend.ErrRange
	case http.StatusPreconditionFailed:
		return backend.ErrExists
	case http.StatusNotImplemented:
		return backend.ErrUnsupported
	}
	return nil
}

// fail turns what became of a call into an error (S8). err is the library's, or one of
// this package, which stays as it is.
func (s *Store) fail(ctx context.Context, op, name string, c *call, err error) error {
	var done *remote.Error
	if errors.As(err, &done) {
		return err
	}
	e := &remote.Error{Op: op, Name: name, Err: err}
	switch {
	case ctx.Err() != nil:
		e.Err = ctx.Err()
	case c.status >= 300:
		e.Status, e.Code, e.Message, e.RequestID = c.status, c.code, c.message, c.requestID
		e.RetryAfter = remote.RetryAfter(c.header, s.clock.Now())
		e.Err = c.err
		known := false
		if e.Kind, known = kinds[c.code]; !known {
			e.Kind = statusKind(c.status)
		}
		if c.status/100 == 3 {
			e.Kind = remote.ErrNoContainer
		}
		if e.Kind == remote.ErrNoContainer && c.region != "" {
			e.Message = "the bucket is in region " + c.region
		}
	case c.err != nil:
		e.Err, e.Kind = c.err, remote.Classify(c.err)
	case c.status > 0: // the body broke off or made no sense
		e.Message = short(err.Error())
		if e.Kind = remote.Classify(err); errors.Is(err, io.ErrUnexpectedEOF) {
			e.Kind = remote.ErrUnreachable
		}
	case s.o.IAM: // nothing was sent
		e.Kind = remote.ErrCredentials
	}
	r := remedies[e.Kind]
	if s.o.IAM && e.Kind == remote.ErrCredentials {
		r = "give this machine a role that the store knows, or the node AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in its environment"
	}
	if r != "" {
		if e.Message != "" {
			e.Message += "; "
		}
		e.Message += r
	}
	return e
}
