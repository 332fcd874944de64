package remote

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/wire"
)

// ErrBusy: the server has as many connections as it takes.
var ErrBusy = errors.New("remote: too many connections")

// errProtocol: the peer does not keep to the protocol.
var errProtocol = errors.New("the peer broke the protocol")

// sentinels cross the wire as bits, in this order.
var sentinels = [...]error{
	osd.ErrNotExist, osd.ErrAssert, osd.ErrFull, osd.ErrCorrupt, osd.ErrChecksum, osd.ErrRange,
	osd.ErrInvalid, osd.ErrIdentity, osd.ErrAuth, osd.ErrFailed, osd.ErrClosed, ErrBusy,
}

// failure is an error as it travels.
type failure struct {
	is   uint64 // bit i: sentinels[i]
	text string
	key  []byte // of an AssertError
}

func newFailure(err error) failure {
	f := failure{text: cleanText(err.Error())}
	for i, s := range sentinels {
		if errors.Is(err, s) {
			f.is |= 1 << i
		}
	}
	var a *osd.AssertError
	if errors.As(err, &a) && len(a.Key) <= osd.MaxKeyBytes {
		f.key = a.Key
	}
	return f
}

// cleanText makes a text fit for a log line of another machine.
func cleanText(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return s
}

func (f failure) encode(e *wire.Encoder) {
	e.Uvarint(f.is)
	e.String(f.text)
	e.Bytes(f.key)
}

func decodeFailure(d *wire.Decoder) (failure, error) {
	f := failure{is: d.Uvarint(), text: d.String(maxText), key: d.Bytes(osd.MaxKeyBytes)}
	if f.is >= 1<<len(sentinels) {
		d.Fail("unknown error %#x", f.is)
	}
	return f, d.Done()
}

// err returns the error on this side.
func (f failure) err() error {
	e := &deviceError{text: cleanText(f.text)}
	for i, s := range sentinels {
		if f.is&(1<<i) == 0 {
			continue
		}
		if s == osd.ErrAssert && len(f.key) > 0 {
			s = &osd.AssertError{Key: append([]byte(nil), f.key...)}
		}
		e.is = append(e.is, s)
	}
	return e
}

// deviceError is an error that the other side reported; Client.wrap names the device.
type deviceError struct {
	text string
	is   []error
}

func (e *deviceError) Error() string { return e.text }

// Unwrap makes errors.Is and errors.As find what the device meant.
func (e *deviceError) Unwrap() []error { return e.is }

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errProtocol, fmt.Sprintf(format, args...))
}
