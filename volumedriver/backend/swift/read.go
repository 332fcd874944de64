package swift

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// newestLimit is the limit of a Get, in bytes, up to which it asks all copies for the
// newest: roots and heads are smaller, and worth two more requests inside the cluster.
const newestLimit = 1 << 20

var newest = http.Header{"X-Newest": {"true"}}

// Get implements backend.Store. It compares the bytes with their MD5; ErrCorrupt where
// they differ. Large objects have none.
func (s *Store) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := s.start(ctx, name); err != nil {
		return nil, err
	}
	r := s.object("GET object", http.MethodGet, name)
	if limit <= newestLimit {
		r.header = newest
	}
	resp, err := s.do(ctx, r)
	if err != nil {
		return nil, s.absent(ctx, r, err)
	}
	size := resp.ContentLength
	if size > limit || size < 0 || resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		if size > limit {
			return nil, fmt.Errorf("object %s: %w: %d bytes, at most %d expected", name, backend.ErrCorrupt, size, limit)
		}
		return nil, wrong(r, resp, "an answer without a length, or of a part")
	}
	data, err := body(ctx, r, resp, size)
	switch {
	case err != nil:
		return nil, s.absentPart(ctx, r, resp, err)
	case !isLarge(resp.Header):
		if sum := md5.Sum(data); hex.EncodeToString(sum[:]) != etag(resp.Header) {
			return nil, fmt.Errorf("object %s: %w: its MD5 is not %.40q", name, backend.ErrCorrupt, etag(resp.Header))
		}
	}
	return data, nil
}

// ReadAt implements backend.Store.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	end := off + int64(len(p)) - 1 // the last byte
	beyond := fmt.Errorf("object %s: %w: %d bytes at %d", name, backend.ErrRange, len(p), off)
	switch {
	case off < 0 || off > math.MaxInt64-int64(len(p)):
		return beyond
	case len(p) == 0:
		info, err := s.Stat(ctx, name)
		if err == nil && off > info.Size {
			err = beyond
		}
		return err
	}
	r := s.object("GET range of object", http.MethodGet, name)
	r.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, end)}}
	resp, err := s.do(ctx, r)
	if err != nil {
		if errors.Is(err, backend.ErrRange) {
			return beyond
		}
		return s.absent(ctx, r, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		if resp.ContentLength == 0 { // no range of an empty object can be had
			return beyond
		}
		return fmt.Errorf("object %s: %w: the store ignores ranges", name, backend.ErrUnsupported)
	}
	var first, last, size int64
	cr := resp.Header.Get("Content-Range")
	if resp.StatusCode != http.StatusPartialContent || !parseRange(cr, &first, &last, &size) || first != off || last > end || last >= size {
		return wrong(r, resp, "the answer is of range %.60q, %d-%d was asked for", cr, off, end)
	}
	if last < end {
		if last != size-1 {
			return wrong(r, resp, "the answer is of range %.60q, %d-%d was asked for", cr, off, end)
		}
		return beyond
	}
	if n := resp.ContentLength; n >= 0 && n != int64(len(p)) {
		return wrong(r, resp, "%d bytes instead of %d", n, len(p))
	}
	if _, err := io.ReadFull(resp.Body, p); err != nil {
		return s.absentPart(ctx, r, resp, broken(ctx, r, err))
	}
	return nil
}

// parseRange reads "bytes first-last/size".
func parseRange(v string, first, last, size *int64) bool {
	v, ok := strings.CutPrefix(v, "bytes ")
	span, total, ok2 := strings.Cut(v, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return false
	}
	for _, f := range []struct {
		text string
		to   *int64
	}{{from, first}, {to, last}, {total, size}} {
		n, err := strconv.ParseUint(f.text, 10, 63)
		if err != nil {
			return false
		}
		*f.to = int64(n)
	}
	return true
}

// Stat implements backend.Store.
func (s *Store) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := s.start(ctx, name); err != nil {
		return backend.Info{}, err
	}
	r := s.object("HEAD object", http.MethodHead, name)
	resp, err := s.head(ctx, r)
	if err != nil {
		return backend.Info{}, s.absent(ctx, r, err)
	}
	modified, _ := http.ParseTime(resp.Header.Get("Last-Modified")) // zero: unknown
	return backend.Info{Name: name, Size: resp.ContentLength, ModTime: modified}, nil
}

// head asks all copies for the newest.
func (s *Store) head(ctx context.Context, r request) (*http.Response, error) {
	r.header = newest
	resp, err := s.do(ctx, r)
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	if resp.ContentLength < 0 {
		return nil, wrong(r, resp, "an answer without a length")
	}
	return resp, nil
}

// object returns a request about an object.
func (s *Store) object(op, method, name string) request {
	return request{op: op, name: name, method: method, container: s.containerOf(name), object: s.o.Prefix + name}
}

// absent tells an object that does not exist from a container that has gone, which
// must not look like a store whose objects were deleted.
func (s *Store) absent(ctx context.Context, r request, err error) error {
	switch {
	case errors.Is(err, backend.ErrNotExist) && s.containers.old(s.o.Clock.Now(), r.container):
		if _, cerr := s.lookAt(ctx, r.container); cerr != nil {
			return cerr
		}
	case conflict(err):
		return s.absentPart(ctx, r, nil, err)
	}
	return err
}

// conflict tells an answer that Swift gives when segments are missing.
func conflict(err error) bool {
	var e *remote.Error
	return errors.As(err, &e) && e.Status == http.StatusConflict
}

// absentPart replaces the error of a read that broke off when the object is a large
// one that was deleted meanwhile.
func (s *Store) absentPart(ctx context.Context, r request, resp *http.Response, err error) error {
	if resp != nil && !isLarge(resp.Header) || ctx.Err() != nil {
		return err
	}
	r.method = http.MethodHead
	if _, herr := s.head(ctx, r); errors.Is(herr, backend.ErrNotExist) {
		return herr
	}
	return err
}

// isLarge tells a large object, whose ETag is no MD5 of its bytes.
func isLarge(h http.Header) bool {
	return strings.EqualFold(h.Get("X-Static-Large-Object"), "true") || h.Get("X-Object-Manifest") != ""
}

func etag(h http.Header) string { return strings.ToLower(strings.Trim(h.Get("Etag"), `"`)) }

// listTime is how listings write times, in UTC.
const listTime = "2006-01-02T15:04:05.999999"

func parseListTime(v string) time.Time {
	t, _ := time.Parse(listTime, v) // zero: unknown
	return t
}
