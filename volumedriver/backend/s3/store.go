package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// maxObjectBytes is what a store takes in one PUT.
const maxObjectBytes = 5 << 30

// maxHeaderBytes bounds the header of an answer.
const maxHeaderBytes = 1 << 20

// end is the last byte of every key.
const end = "!"

const (
	crcHeader  = "X-Amz-Checksum-Crc32c"
	modeHeader = "X-Amz-Checksum-Mode"
	sseHeader  = "X-Amz-Server-Side-Encryption"
)

// Store is a backend.Store in a bucket.
type Store struct {
	o      Options
	root   string // what keys begin with
	core   *minio.Core
	sse    encrypt.ServerSide
	http   *http.Transport
	clock  clock.Clock
	closed atomic.Bool
}

var _ backend.Store = (*Store)(nil)

var errClosed = errors.New("s3: store is closed")

// New returns the store that o describes, without a word to it. Errors name the
// option that is wrong.
func New(o Options) (*Store, error) {
	host, secure, err := o.endpoint()
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	lookup, sse, err := o.validate()
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	if o.Region == "" {
		o.Region = o.Found.Region
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	transport, err := remote.Transport(o.Transport)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	transport.MaxResponseHeaderBytes = maxHeaderBytes
	if proxy := transport.Proxy; proxy != nil {
		transport.Proxy = func(req *http.Request) (*url.URL, error) {
			// Another machine's role is not ours.
			if ip := net.ParseIP(req.URL.Hostname()); ip != nil && ip.IsLinkLocalUnicast() {
				return nil, nil
			}
			return proxy(req)
		}
	}
	core, err := minio.NewCore(host, &minio.Options{
		Creds:        o.credentials(),
		Secure:       secure,
		Transport:    &guard{next: transport},
		Region:       o.Region,
		BucketLookup: lookup,
		MaxRetries:   1,
	})
	if err != nil {
		return nil, fmt.Errorf("s3: endpoint %s: %w", host, err)
	}
	s := &Store{o: o, core: core, sse: sse, http: transport, clock: o.Clock}
	if o.Prefix != "" {
		s.root = o.Prefix + "/"
	}
	return s, nil
}

// Open returns the store that o describes after it answered: to these keys, with this
// bucket, which is not made. A refusal wraps an error of package remote and says what
// to do.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := New(o)
	if err != nil {
		return nil, err
	}
	if err := s.Check(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Check asks the store for one name.
func (s *Store) Check(ctx context.Context) error {
	if s.closed.Load() {
		return errClosed
	}
	return s.do(ctx, "list bucket", s.o.Bucket, maxXMLBytes, func(ctx context.Context, _ *call) error {
		for info := range s.core.ListObjectsIter(ctx, s.o.Bucket, s.listOptions(s.root, "", 1)) {
			return info.Err
		}
		return ctx.Err()
	})
}

// do runs one call. limit bounds a good answer, in bytes.
func (s *Store) do(ctx context.Context, op, name string, limit int64, f func(context.Context, *call) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &call{limit: limit, cancel: cancel}
	if err := f(context.WithValue(inner, callKey{}, c), c); err != nil {
		return s.fail(ctx, op, name, c, err)
	}
	return nil
}

// start checks what calls for an object begin with.
func (s *Store) start(ctx context.Context, name string) error {
	if s.closed.Load() {
		return errClosed
	}
	if err := backend.ValidName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("object %s: %w", name, err)
	}
	return nil
}

func (s *Store) key(name string) string { return s.root + name + end }

// Put implements backend.Store.
func (s *Store) Put(ctx context.Context, name string, data []byte) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	return s.put(ctx, name, data, newSums(data, s.o.Found.Checksums), false)
}

// PutIfAbsent implements backend.Store.
func (s *Store) PutIfAbsent(ctx context.Context, name string, data []byte) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	if !s.o.Found.ConditionalPut {
		return fmt.Errorf("object %s: put if absent: %w", name, backend.ErrUnsupported)
	}
	return s.put(ctx, name, data, newSums(data, s.o.Found.Checksums), true)
}

func (s *Store) put(ctx context.Context, name string, data []byte, sum sums, ifAbsent bool) error {
	const op = "PUT object"
	if int64(len(data)) > maxObjectBytes {
		return fmt.Errorf("object %s: %w: %d bytes, a PUT takes %d", name, backend.ErrUnsupported, len(data), int64(maxObjectBytes))
	}
	var opts minio.PutObjectOptions
	opts.ServerSideEncryption = s.sse
	opts.DisableContentSha256 = true // no signature in chunks: the whole is at hand
	if ifAbsent {
		opts.SetMatchETagExcept("*")
	}
	if sum.crc != "" {
		opts.UserMetadata = map[string]string{crcHeader: sum.crc}
	}
	signed := ""
	if !s.o.Unsigned && !s.o.Found.Unsigned {
		h := sha256.Sum256(data)
		signed = hex.EncodeToString(h[:])
	}
	b := &body{data: data}
	defer b.detach()
	return s.do(ctx, op, name, maxErrorBytes, func(ctx context.Context, c *call) error {
		info, err := s.core.PutObject(ctx, s.o.Bucket, s.key(name), b, int64(len(data)), sum.md5, signed, opts)
		if err != nil {
			return err
		}
		if s.o.Found.ETagMD5 && sum.crc == "" && info.ETag == "" {
			// Swift's s3api has nothing to say of a PUT after which it found a newer one of
			// the name: what is there counts.
			there, err := s.core.StatObject(ctx, s.o.Bucket, s.key(name), minio.StatObjectOptions{})
			if err != nil {
				return err
			}
			info.ETag = there.ETag
		}
		if why := sum.confirmed(info, s.o.Found.ETagMD5); why != "" {
			return &remote.Error{Op: op, Name: name, Status: c.status, Message: why}
		}
		return nil
	})
}

// sums are what a PUT is checked by (K4); md5 is set exactly if crc is not.
type sums struct {
	crc string // base64
	md5 string // base64
	hex string // of md5
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newSums(data []byte, crc bool) sums {
	if crc {
		return sums{crc: crcText(crc32.Checksum(data, castagnoli))}
	}
	h := md5.Sum(data)
	return sums{md5: base64.StdEncoding.EncodeToString(h[:]), hex: hex.EncodeToString(h[:])}
}

func crcText(crc uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc))
}

// confirmed tells what is wrong with the answer to a PUT; empty: nothing.
func (m sums) confirmed(info minio.UploadInfo, etagMD5 bool) string {
	switch {
	case m.crc != "" && info.ChecksumCRC32C != m.crc:
		return fmt.Sprintf("the store confirms CRC32C %q of what has %q", short(info.ChecksumCRC32C), m.crc)
	case m.crc == "" && etagMD5 && info.ETag != m.hex:
		return fmt.Sprintf("the store confirms MD5 %q of what has %q", short(info.ETag), m.hex)
	}
	return ""
}

// Get implements backend.Store.
func (s *Store) Get(ctx context.Context, name string, limit int64) (data []byte, err error) {
	if err := s.start(ctx, name); err != nil {
		return nil, err
	}
	limit = max(limit, 0)
	err = s.do(ctx, "GET object", name, limit, func(ctx context.Context, c *call) error {
		var opts minio.GetObjectOptions
		if s.o.Found.Checksums {
			opts.Set(modeHeader, "ENABLED")
		}
		r, info, header, err := s.core.GetObject(ctx, s.o.Bucket, s.key(name), opts)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }() // the bytes are here, or the error is
		if info.Size > limit {
			return tooLarge(name, info.Size, limit)
		}
		if data, err = readAll(r, info.Size); err != nil {
			if errors.Is(err, errTooLong) {
				return tooLarge(name, limit+1, limit)
			}
			return err
		}
		// "<crc>-<parts>" is of an object in parts, which is not ours.
		want := header.Get(crcHeader)
		if got := crcText(crc32.Checksum(data, castagnoli)); s.o.Found.Checksums && want != "" && !strings.Contains(want, "-") && got != want {
			return &remote.Error{Op: "GET object", Name: name, Status: c.status, Kind: backend.ErrCorrupt,
				Message: fmt.Sprintf("CRC32C is %s, the store has %s of it", got, short(want))}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return data, nil
}

func tooLarge(name string, size, limit int64) error {
	return &remote.Error{Op: "GET object", Name: name, Kind: backend.ErrCorrupt,
		Message: fmt.Sprintf("it has %d bytes or more, %d at most are expected", size, limit)}
}

// readAll reads size bytes, or whatever comes if size is negative. Nothing is set
// aside for a size that only the answer's header promises.
func readAll(r io.Reader, size int64) ([]byte, error) {
	var b bytes.Buffer
	b.Grow(int(min(max(size, 0), maxAhead) + bytes.MinRead))
	n, err := b.ReadFrom(r)
	if err == nil && size >= 0 && n != size {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}

// maxAhead is how much memory a Get takes before the bytes come: a SCO.
const maxAhead = 16 << 20

// ReadAt implements backend.Store.
func (s *Store) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	last := off + int64(len(p)) - 1
	if off < 0 || last < off-1 {
		return beyond(name, len(p), off, -1)
	}
	if len(p) == 0 {
		info, err := s.Stat(ctx, name)
		if err == nil && off > info.Size {
			err = beyond(name, 0, off, info.Size)
		}
		return err
	}
	return s.do(ctx, "GET object", name, int64(len(p)), func(ctx context.Context, c *call) error {
		var opts minio.GetObjectOptions
		opts.Set("Range", fmt.Sprintf("bytes=%d-%d", off, last))
		r, _, _, err := s.core.GetObject(ctx, s.o.Bucket, s.key(name), opts)
		if err != nil {
			return err
		}
		defer func() { _ = r.Close() }()
		if err := checkRange(name, c, off, last); err != nil {
			return err
		}
		_, err = io.ReadFull(r, p)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

func beyond(name string, n int, off, size int64) error {
	has := ""
	if size >= 0 {
		has = fmt.Sprintf(", it has %d", size)
	}
	return &remote.Error{Op: "GET object", Name: name, Kind: backend.ErrRange, Message: fmt.Sprintf("%d bytes at %d%s", n, off, has)}
}

// checkRange tells whether an answer holds the bytes off to last (K3).
func checkRange(name string, c *call, off, last int64) error {
	n := int(last - off + 1)
	if c.status != http.StatusPartialContent {
		// The store took no notice of the range, or the object has no byte.
		size, err := strconv.ParseInt(c.header.Get("Content-Length"), 10, 64)
		switch {
		case err == nil && off == 0 && size == last+1:
			return nil
		case err == nil && size >= 0 && size <= last:
			return beyond(name, n, off, size)
		}
		return &remote.Error{Op: "GET object", Name: name, Status: c.status,
			Message: "the store, or a proxy before it, answers with the whole object when a range is asked for"}
	}
	value := c.header.Get("Content-Range")
	first, got, size, ok := contentRange(value)
	switch {
	case ok && size >= 0 && size <= last:
		return beyond(name, n, off, size)
	case !ok || first != off || got != last:
		return &remote.Error{Op: "GET object", Name: name, Status: c.status,
			Message: fmt.Sprintf("bytes %d-%d were asked for, the store sends %q", off, last, short(value))}
	}
	return nil
}

// contentRange reads "bytes first-last/size"; size -1 if it is "*" (RFC 9110, 14.4).
func contentRange(v string) (first, last, size int64, ok bool) {
	v, unit := strings.CutPrefix(v, "bytes ")
	span, total, slash := strings.Cut(v, "/")
	a, b, dash := strings.Cut(span, "-")
	if !unit || !slash || !dash {
		return 0, 0, 0, false
	}
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	size, err3 := int64(-1), error(nil)
	if total != "*" {
		size, err3 = strconv.ParseInt(total, 10, 64)
	}
	if err1 != nil || err2 != nil || err3 != nil || first < 0 || last < first || size >= 0 && last >= size {
		return 0, 0, 0, false
	}
	return first, last, size, true
}

// Stat implements backend.Store.
func (s *Store) Stat(ctx context.Context, name string) (backend.Info, error) {
	if err := s.start(ctx, name); err != nil {
		return backend.Info{}, err
	}
	info, unclear := backend.Info{Name: name}, false
	err := s.do(ctx, "HEAD object", name, maxErrorBytes, func(ctx context.Context, c *call) error {
		o, err := s.core.StatObject(ctx, s.o.Bucket, s.key(name), minio.StatObjectOptions{})
		if err == nil && o.Size < 0 {
			return &remote.Error{Op: "HEAD object", Name: name, Status: c.status, Message: "the store does not tell the size"}
		}
		info.Size, info.ModTime = o.Size, o.LastModified
		unclear = c.status == http.StatusNotFound && c.code == ""
		return err
	})
	if unclear && ctx.Err() == nil {
		err = s.absent(ctx, name)
	}
	if err != nil {
		return backend.Info{}, err
	}
	return info, nil
}

// absent returns why a HEAD found nothing, as its answer has no body to tell: because the object is missing, if the
// bucket is there, or cannot be asked about (K1, K2).
func (s *Store) absent(ctx context.Context, name string) error {
	found := false
	err := s.do(ctx, "HEAD bucket", s.o.Bucket, maxErrorBytes, func(ctx context.Context, c *call) error {
		var err error
		found, err = s.core.BucketExists(ctx, s.o.Bucket)
		if c.status == http.StatusForbidden || c.status == http.StatusNotFound {
			found, err = c.status == http.StatusForbidden, nil
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case !found:
		return &remote.Error{Op: "HEAD bucket", Name: s.o.Bucket, Status: http.StatusNotFound, Kind: remote.ErrNoContainer, Message: remedies[remote.ErrNoContainer]}
	}
	return &remote.Error{Op: "HEAD object", Name: name, Status: http.StatusNotFound, Kind: backend.ErrNotExist}
}

// Delete implements backend.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	err := s.do(ctx, "DELETE object", name, maxErrorBytes, func(ctx context.Context, c *call) error {
		err := s.core.RemoveObject(ctx, s.o.Bucket, s.key(name), minio.RemoveObjectOptions{})
		if c.status == http.StatusOK { // 204 is the rule
			return nil
		}
		return err
	})
	if errors.Is(err, backend.ErrNotExist) {
		return nil
	}
	return err
}

// Usage implements backend.Store: the protocol does not tell.
func (s *Store) Usage(context.Context) (backend.Usage, error) {
	if s.closed.Load() {
		return backend.Usage{}, errClosed
	}
	return backend.Usage{}, nil
}

// Features implements backend.Store. A request has its price and its latency, which are
// hardly those of its bytes.
func (s *Store) Features() backend.Features {
	return backend.Features{
		ConditionalPut: s.o.Found.ConditionalPut,
		ConsistentList: s.o.Found.ConsistentList,
	}
}

// Close implements backend.Store. Calls that run go on.
func (s *Store) Close() error {
	if !s.closed.Swap(true) {
		s.http.CloseIdleConnections()
	}
	return nil
}
