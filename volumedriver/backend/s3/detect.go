package s3

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/lifecycle"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// Found is what Detect knows of a store. The gateway keeps it with the backend and
// gives it back in Options.
type Found struct {
	// ConditionalPut: If-None-Match: * keeps an object from being replaced.
	ConditionalPut bool `json:"conditional_put"`
	// Checksums: the store compares the CRC32C of a PUT and confirms it.
	Checksums bool `json:"checksums"`
	// ETagMD5: the ETag of an object is its MD5.
	ETagMD5 bool `json:"etag_md5"`
	// Unsigned: the store does not take a body's SHA-256 in the signature.
	Unsigned bool `json:"unsigned"`
	// ConsistentList: a list shows every Put and Delete that was answered. Nothing can
	// find that out; it is for an administrator who knows it of the store.
	ConsistentList bool `json:"consistent_list"`
	// Region of the bucket; may be empty.
	Region string `json:"region,omitempty"`
}

// probeRoot is below what Detect puts its objects.
const probeRoot = ".ovgate-probe/"

// cleanPatience bounds the removal of Detect's objects, which goes on when its context
// has ended.
const cleanPatience = 30 * time.Second

// Detect finds out what the store is able to, with a few small objects below the
// prefix that it removes again. The warnings are for the administrator, in words. It
// takes over ConsistentList from o.Found. A store that does not read ranges, or forgets
// what it was given, is refused with backend.ErrUnsupported.
func Detect(ctx context.Context, o Options) (found Found, warnings []string, err error) {
	o.Found = Found{ConsistentList: o.Found.ConsistentList}
	s, err := Open(ctx, o)
	if err != nil {
		return Found{}, nil, err
	}
	d := &detection{s: s, found: &s.o.Found}
	defer func() { err = errors.Join(err, d.clean(ctx), s.Close()) }()
	id := make([]byte, 8)
	if _, err := io.ReadFull(s.o.Rand, id); err != nil {
		return Found{}, nil, fmt.Errorf("s3: random name: %w", err)
	}
	d.base = probeRoot + hex.EncodeToString(id)
	for _, step := range []func(context.Context) error{d.encryption, d.signature, d.etag, d.checksums, d.ranges, d.conditional, d.list, d.region} {
		if err := step(ctx); err != nil {
			return Found{}, nil, err
		}
	}
	for _, step := range []func(context.Context) error{d.versioning, d.locking, d.lifecycle} {
		if err := step(ctx); err != nil {
			return Found{}, nil, err
		}
	}
	return s.o.Found, d.warnings, nil
}

// detection is one Detect. What it has found works for the calls of its store at once.
type detection struct {
	s        *Store
	found    *Found
	base     string
	made     []string
	warnings []string
}

func (d *detection) warn(text string) { d.warnings = append(d.warnings, text) }

// name returns a new name, which is removed in the end.
func (d *detection) name() string {
	name := fmt.Sprintf("%s-%d", d.base, len(d.made))
	d.made = append(d.made, name)
	return name
}

// clean removes everything, if that is permitted.
func (d *detection) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanPatience)
	defer cancel()
	var all error
	for i, name := range d.made {
		err := d.s.Delete(ctx, name)
		if errors.Is(err, remote.ErrDenied) {
			return errors.Join(all, fmt.Errorf("%d scratch objects stay in %s, remove them: %s", len(d.made)-i, d.s.o.Bucket, d.s.root+d.base+"*"))
		}
		if err != nil {
			all = errors.Join(all, fmt.Errorf("remove the scratch object: %w", err))
		}
	}
	return all
}

// refused tells whether the store answered and did not want this, as opposed to a
// failure that says nothing of what it is able to.
func refused(err error) bool {
	var e *remote.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	case http.StatusNotImplemented:
		return true
	}
	return e.Status >= 400 && e.Status < 500
}

// unconfirmed tells whether the store took an object and confirmed something else.
func unconfirmed(err error) bool {
	var e *remote.Error
	return errors.As(err, &e) && e.Status/100 == 2
}

var probeData = bytes.Repeat([]byte("ovgate looks what this store is able to\n"), 25)

// encryption makes sure that the store encrypts if it is asked to: one that does not know
// that takes no notice, or refuses.
func (d *detection) encryption(ctx context.Context) error {
	if d.s.sse == nil {
		return nil
	}
	name := d.name()
	unable := &remote.Error{Op: "PUT object", Name: name, Kind: remote.ErrEncryption,
		Message: "it does not encrypt by " + d.s.o.SSE}
	err := d.s.Put(ctx, name, probeData)
	if refused(err) && !errors.Is(err, remote.ErrCredentials) {
		plain := d.s.o
		plain.SSE, plain.KMSKey = "", ""
		s, perr := New(plain)
		if perr != nil {
			return perr
		}
		defer func() { _ = s.Close() }()
		if s.Put(ctx, name, probeData) != nil {
			return nil // it is something else, which the next step finds
		}
		unable.Err = err
		return unable
	}
	if err != nil {
		return err
	}
	return d.s.do(ctx, "HEAD object", name, maxErrorBytes, func(ctx context.Context, c *call) error {
		if _, err := d.s.core.StatObject(ctx, d.s.o.Bucket, d.s.key(name), minio.StatObjectOptions{}); err != nil {
			return err
		}
		if c.header.Get(sseHeader) != d.s.o.SSE {
			return unable
		}
		return nil
	})
}

// signature finds out whether a body may be signed.
func (d *detection) signature(ctx context.Context) error {
	err := d.s.Put(ctx, d.name(), probeData)
	if !refused(err) || d.s.o.Unsigned {
		return err
	}
	d.found.Unsigned = true
	if d.s.Put(ctx, d.name(), probeData) != nil {
		return err // it is something else
	}
	return nil
}

// etag finds out whether ETags are MD5s, and whether the store compares an MD5.
func (d *detection) etag(ctx context.Context) error {
	d.found.ETagMD5 = true
	err := d.s.Put(ctx, d.name(), probeData)
	if unconfirmed(err) {
		d.found.ETagMD5, err = false, nil
	}
	if err != nil {
		return err
	}
	wrong := newSums([]byte("something else"), false)
	switch err := d.s.put(ctx, d.name(), probeData, wrong, false); {
	case err == nil, unconfirmed(err):
		d.warn("The store does not compare the checksum (Content-MD5) of what it gets; what is damaged on the way is noticed when it is read.")
	case !refused(err):
		return err
	}
	return nil
}

// checksums finds out whether the store compares and confirms CRC32C.
func (d *detection) checksums(ctx context.Context) error {
	err := d.s.put(ctx, d.name(), probeData, newSums(probeData, true), false)
	if err != nil {
		if refused(err) || unconfirmed(err) {
			return nil
		}
		return err
	}
	switch err := d.s.put(ctx, d.name(), probeData, newSums([]byte("something else"), true), false); {
	case refused(err):
		d.found.Checksums = true
	case err != nil && !unconfirmed(err):
		return err
	}
	return nil
}

// ranges finds out whether parts of an object are read, and what lies beyond.
func (d *detection) ranges(ctx context.Context) error {
	name := d.name()
	if err := d.s.Put(ctx, name, probeData); err != nil {
		return err
	}
	const off, n = 300, 100
	p := make([]byte, n)
	err := d.s.ReadAt(ctx, name, p, off)
	switch {
	case refused(err), unconfirmed(err), err == nil && !bytes.Equal(p, probeData[off:off+n]):
		return fmt.Errorf("s3: %w: this store does not read a range of an object, without which a vPool cannot work: %w",
			backend.ErrUnsupported, orElse(err, errors.New("the bytes are others")))
	case err != nil:
		return err
	}
	err = d.s.ReadAt(ctx, name, p, int64(len(probeData))-n/2)
	if !errors.Is(err, backend.ErrRange) {
		return fmt.Errorf("s3: %w: this store does not tell where an object ends: %w", backend.ErrUnsupported, orElse(err, errors.New("a read beyond it succeeds")))
	}
	return nil
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// conditional finds out whether an object can be kept from being replaced.
func (d *detection) conditional(ctx context.Context) error {
	d.found.ConditionalPut = true
	name := d.name()
	err := d.s.PutIfAbsent(ctx, name, probeData)
	if err == nil {
		err = d.s.PutIfAbsent(ctx, name, []byte("replaced"))
		d.found.ConditionalPut = errors.Is(err, backend.ErrExists)
		if err == nil || d.found.ConditionalPut {
			var got []byte
			got, err = d.s.Get(ctx, name, int64(len(probeData)))
			d.found.ConditionalPut = d.found.ConditionalPut && bytes.Equal(got, probeData)
		}
	} else {
		d.found.ConditionalPut = false
	}
	if refused(err) {
		err = nil
	}
	return err
}

// list looks whether lists show what is there, and Delete removes it.
func (d *detection) list(ctx context.Context) error {
	name := d.name()
	if err := d.s.Put(ctx, name, probeData); err != nil {
		return err
	}
	infos, err := d.s.List(ctx, d.base, "", len(d.made)+1)
	if err != nil {
		return err
	}
	seen := false
	for _, info := range infos {
		seen = seen || info.Name == name
	}
	if !seen {
		d.warn("A list does not show an object that was put a moment before; what is to be removed takes longer to find.")
	}
	if err := d.s.Delete(ctx, name); err != nil {
		return err
	}
	switch _, err := d.s.Stat(ctx, name); {
	case err == nil:
		d.warn("An object can still be read after it was deleted; space comes back later.")
	case !errors.Is(err, backend.ErrNotExist):
		return err
	}
	return nil
}

// region keeps where the bucket is, so that nobody has to ask again.
func (d *detection) region(ctx context.Context) error {
	if d.s.o.Region != "" {
		d.found.Region = d.s.o.Region
		return nil
	}
	return d.ask(ctx, "location", "", func(ctx context.Context) (err error) {
		d.found.Region, err = d.s.core.GetBucketLocation(ctx, d.s.o.Bucket)
		return err
	})
}

// ask runs a question about the bucket's settings. A store that has no such setting is
// fine; one that may not be asked gets a warning, unless that is empty.
func (d *detection) ask(ctx context.Context, what, denied string, f func(context.Context) error) error {
	err := d.s.do(ctx, "get bucket "+what, d.s.o.Bucket, maxXMLBytes, func(ctx context.Context, _ *call) error { return f(ctx) })
	switch {
	case errors.Is(err, remote.ErrDenied) && denied != "":
		d.warn(denied)
		return nil
	case refused(err), unconfirmed(err), otherAnswer(err):
		return nil
	}
	return err
}

// otherAnswer tells whether a store answered something else than what it was asked:
// Swift lists the bucket for a setting that it does not know.
func otherAnswer(err error) bool {
	var other xml.UnmarshalError
	return errors.As(err, &other)
}

func (d *detection) versioning(ctx context.Context) error {
	return d.ask(ctx, "versioning", "The keys may not read whether the bucket keeps old versions; if it does, deleted objects go on to cost space.",
		func(ctx context.Context) error {
			v, err := d.s.core.GetBucketVersioning(ctx, d.s.o.Bucket)
			if err == nil && v.Enabled() {
				d.warn("The bucket keeps old versions: deleted objects go on to cost space. Suspend versioning, or add a life cycle rule that removes noncurrent versions and delete markers.")
			}
			return err
		})
}

func (d *detection) locking(ctx context.Context) error {
	return d.ask(ctx, "object lock", "", func(ctx context.Context) error {
		lock, _, _, _, err := d.s.core.GetObjectLockConfig(ctx, d.s.o.Bucket)
		if err == nil && lock == "Enabled" {
			d.warn("The bucket has object lock: what is retained cannot be removed, and its space does not come back.")
		}
		return err
	})
}

func (d *detection) lifecycle(ctx context.Context) error {
	return d.ask(ctx, "lifecycle", "The keys may not read the bucket's life cycle rules; make sure that none removes or archives what is stored here.",
		func(ctx context.Context) error {
			c, err := d.s.core.GetBucketLifecycle(ctx, d.s.o.Bucket)
			if err != nil {
				return err
			}
			for _, r := range c.Rules {
				if text := harm(r, d.s.root); text != "" {
					d.warn(text)
				}
			}
			return nil
		})
}

// harm tells what a rule does to keys below root; empty: nothing.
func harm(r lifecycle.Rule, root string) string {
	prefix := r.Prefix
	for _, p := range []string{r.RuleFilter.Prefix, r.RuleFilter.And.Prefix} {
		if p != "" {
			prefix = p
		}
	}
	tagged := !r.RuleFilter.Tag.IsEmpty() || len(r.RuleFilter.And.Tags) > 0
	if r.Status != minio.Enabled || tagged || !strings.HasPrefix(prefix, root) && !strings.HasPrefix(root, prefix) {
		return ""
	}
	removes := r.Expiration.Days > 0 || !r.Expiration.IsDateNull()
	moves := !r.Transition.IsNull()
	switch {
	case removes:
		return fmt.Sprintf("Life cycle rule %q of the bucket removes objects below the prefix: data will be lost. Change or disable it.", short(r.ID))
	case moves:
		return fmt.Sprintf("Life cycle rule %q of the bucket moves objects below the prefix to storage class %q: if that is an archive, they cannot be read. Change or disable it.", short(r.ID), short(r.Transition.StorageClass))
	}
	return ""
}
