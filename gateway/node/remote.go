package node

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/encrypted"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
	"github.com/openvstorage/ovgate/volumedriver/backend/s3"
	"github.com/openvstorage/ovgate/volumedriver/backend/swift"
)

// remotes are the open stores of vPools on Swift and S3, for counters.
type remotes struct {
	mu   sync.Mutex
	open map[string]*remote.Store // by the vPool's id
}

// all returns the stores by vPool.
func (r *remotes) all() map[string]*remote.Store {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.open)
}

// requests returns the counters of a vPool's store; nil: it is not open, or of another
// kind.
func (r *remotes) requests(vpool string) []remote.KindStats {
	r.mu.Lock()
	s := r.open[vpool]
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.Stats().Kinds
}

// counted is a store with its limits. It takes itself from the counters when it is
// closed.
type counted struct {
	*remote.Store
	below  backend.Store
	limits remote.Options
	r      *remotes
	vpool  string
}

func (c counted) Close() error {
	c.r.mu.Lock()
	if c.r.open[c.vpool] == c.Store {
		delete(c.r.open, c.vpool)
	}
	c.r.mu.Unlock()
	return c.Store.Close()
}

// maxPrefix bounds what begins the names of objects, in bytes; with it they fit what
// S3 and Swift take.
const maxPrefix = 200

// bucketName is what S3 and Swift both take, and what is no path.
var bucketName = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._]{1,62}$`)

// checkPrefix refuses what cannot begin the names of objects.
func checkPrefix(path string) *control.Error {
	if err := backend.ValidName(path); err != nil || len(path) > maxPrefix {
		return &control.Error{
			Code: control.CodeInvalid, Field: "backend.path", Message: "the path is what the names of the vPool's objects begin with; this one cannot be",
			Hint: fmt.Sprintf("use up to %d bytes of a-z, 0-9, '.', '_' and '-', with '/' between segments, or leave it out", maxPrefix),
		}
	}
	return nil
}

// CheckRemote implements control.Backends.
func (b backends) CheckRemote(r model.Remote) *control.Error {
	s := r.Spec
	bad := func(field, hint, format string, a ...any) *control.Error {
		return &control.Error{Code: control.CodeInvalid, Field: "options." + field, Hint: hint, Message: fmt.Sprintf(format, a...)}
	}
	oneOf := func(v string, all ...string) bool {
		for _, a := range all {
			if v == a {
				return true
			}
		}
		return v == ""
	}
	if !bucketName.MatchString(s.Container) {
		return bad("container", "use 2 to 63 letters, digits, '.', '_' and '-'", "%q is not the name of a bucket or container", clipped(s.Container))
	}
	if s.URL != "" || r.Kind == model.KindSwift {
		u, err := url.Parse(s.URL)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			return bad("url", "write https://HOST[:PORT], and for Swift the path behind it", "%q is not the URL of a store", clipped(s.URL))
		case u.User != nil:
			return bad("url", "give user and secret apart from it", "the URL holds a user")
		case u.Scheme == "http" && !loopbackHost(u.Hostname()):
			return bad("url", "use https; http is for this machine alone", "over plain http everybody on the way reads and changes what is stored")
		}
	}
	for _, n := range []struct {
		field       string
		value, most int64
	}{
		{"connections", int64(s.Connections), maxConnections}, {"uploadBytes", s.Upload, math.MaxInt64}, {"downloadBytes", s.Download, math.MaxInt64},
	} {
		if n.value < 0 || n.value > n.most {
			return bad(n.field, fmt.Sprintf("use 0 to %d", n.most), "%d is not possible", n.value)
		}
	}
	for field, value := range texts(r) {
		if len(value) > maxText && field != "ca" || len(value) > maxCA {
			return bad(field, "shorten it", "it has %d bytes", len(value))
		}
	}
	if o := s.S3; o != nil {
		switch {
		case o.IAM && s.User != "":
			return bad("user", "leave out either", "both a user and the machine's role are given")
		case !o.IAM && s.User == "":
			return bad("user", "give the access key, or --iam", "it is not said who signs in")
		case !oneOf(o.Addressing, "auto", "path", "virtual"):
			return bad("addressing", "use auto, path or virtual", "there is no addressing %q", clipped(o.Addressing))
		case !oneOf(o.SSE, "none", "AES256", "aws:kms"):
			return bad("sse", "use none, AES256 or aws:kms", "there is no encryption %q", clipped(o.SSE))
		case o.SSEKey != "" && o.SSE != "aws:kms":
			return bad("sseKey", "leave it out, or use aws:kms", "only aws:kms takes a key")
		}
	}
	if o := s.Swift; o != nil {
		switch {
		case s.User == "":
			return bad("user", "give the user", "it is not said who signs in")
		case o.AuthVersion < 0 || o.AuthVersion > 3:
			return bad("authVersion", "use 1, 2 or 3, or 0 for what the URL says", "there is no version %d", o.AuthVersion)
		case o.Shards < 0 || o.Shards > swift.MaxShards:
			return bad("shards", fmt.Sprintf("use 1 to %d", swift.MaxShards), "%d shards are not possible", o.Shards)
		case !oneOf(o.Endpoint, "public", "internal", "admin"):
			return bad("endpoint", "use public, internal or admin", "there is no endpoint %q", clipped(o.Endpoint))
		}
	}
	if _, err := remote.Transport(transportOf(s)); err != nil {
		field := "ca"
		if s.Proxy != "" && strings.Contains(err.Error(), "proxy") {
			field = "proxy"
		}
		return bad(field, "correct it or leave it out", "%v", err)
	}
	return nil
}

// Bounds of what a remote store is told, as openapi.yaml has them.
const (
	maxConnections = 1024
	maxText        = 2048    // bytes of a text
	maxCA          = 1 << 20 // bytes of certificates
)

// texts are the options of a store that are texts, by their names in the API.
func texts(r model.Remote) map[string]string {
	s := r.Spec
	out := map[string]string{"url": s.URL, "region": s.Region, "user": s.User, "ca": s.CA, "proxy": s.Proxy}
	if o := s.S3; o != nil {
		out["sseKey"] = o.SSEKey
	}
	if o := s.Swift; o != nil {
		out["domain"], out["project"], out["projectDomain"], out["trust"], out["policy"] = o.Domain, o.Project, o.ProjectDomain, o.Trust, o.Policy
	}
	return out
}

// clipped keeps what came from outside from filling a message.
func clipped(s string) string { return s[:min(len(s), 80)] }

func loopbackHost(host string) bool {
	return host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")
}

func transportOf(s model.RemoteSpec) remote.TransportOptions {
	return remote.TransportOptions{CA: []byte(s.CA), Proxy: s.Proxy, Connections: s.Connections}
}

func s3Options(r model.Remote, secret, prefix string) (s3.Options, error) {
	s, o := r.Spec, r.Spec.S3
	out := s3.Options{
		Endpoint: s.URL, Region: s.Region, Bucket: s.Container, Prefix: prefix, Addressing: o.Addressing,
		AccessKey: s.User, SecretKey: secret, IAM: o.IAM, Transport: transportOf(s), SSE: o.SSE, KMSKey: o.SSEKey, Clock: clock.Real{},
	}
	// TLS keeps bodies from being changed, and a checksum goes with each.
	out.Unsigned = s.URL == "" || strings.HasPrefix(s.URL, "https://")
	if out.SSE == "none" {
		out.SSE = ""
	}
	if len(r.Found) > 0 {
		if err := json.Unmarshal(r.Found, &out.Found); err != nil {
			return out, fmt.Errorf("what was found of backend %s is damaged; test it again: %w", r.Name, err)
		}
	}
	return out, nil
}

func swiftOptions(r model.Remote, secret, prefix string) (swift.Options, error) {
	s, o := r.Spec, r.Spec.Swift
	out := swift.Options{
		AuthURL: s.URL, AuthVersion: o.AuthVersion, User: s.User, Key: secret, Domain: o.Domain, Project: o.Project, ProjectDomain: o.ProjectDomain,
		TrustID: o.Trust, Region: s.Region, EndpointType: o.Endpoint, Container: s.Container, Shards: max(o.Shards, 1), Policy: o.Policy,
		Prefix: prefix + "/", Transport: transportOf(s), Clock: clock.Real{},
	}
	if o.Credential {
		out.User, out.Key, out.ApplicationCredential = "", "", swift.ApplicationCredential{ID: s.User, Secret: secret}
	}
	if len(r.Found) > 0 {
		out.Found = new(swift.Found)
		if err := json.Unmarshal(r.Found, out.Found); err != nil {
			return out, fmt.Errorf("what was found of backend %s is damaged; test it again: %w", r.Name, err)
		}
		if out.Found.MaxObjectBytes < largestObject && out.Found.SLO {
			out.SegmentBytes = out.Found.MaxObjectBytes
		}
	}
	return out, nil
}

// largestObject is above what the engine puts: the largest SCO with its sums, sealed.
const largestObject = 160 << 20

// dial opens a remote store at a prefix.
func dial(ctx context.Context, r model.Remote, secret, prefix string) (backend.Store, error) {
	switch r.Kind {
	case model.KindS3:
		o, err := s3Options(r, secret, prefix)
		if err != nil {
			return nil, err
		}
		return s3.Open(ctx, o)
	case model.KindSwift:
		o, err := swiftOptions(r, secret, prefix)
		if err != nil {
			return nil, err
		}
		return swift.Open(ctx, o)
	}
	return nil, fmt.Errorf("this version knows no %s backend", r.Kind)
}

// openRemote opens the store of a vPool on Swift or S3.
func (b backends) openRemote(ctx context.Context, p control.Place) (backend.Store, error) {
	s, err := dial(ctx, p.Remote, p.Secret, p.Backend.Path)
	if err != nil {
		return nil, err
	}
	spec := p.Remote.Spec
	limits := remote.Options{Clock: clock.Real{}, MaxConcurrency: spec.Connections, Upload: spec.Upload, Download: spec.Download, Seed: rand.Uint64()}
	c := counted{remote.New(s, limits), s, limits, b.remotes, p.VPool}
	if p.VPool != "" {
		b.remotes.mu.Lock()
		if b.remotes.open[p.VPool] == nil { // else it is opened to take the place of that one
			b.remotes.open[p.VPool] = c.Store
		}
		b.remotes.mu.Unlock()
	}
	return c, nil
}

// Swap implements control.Backends.
func (b backends) Swap(old, now backend.Store) {
	from, ok := remoteBelow(old)
	to, also := remoteBelow(now)
	if !ok || !also {
		b.log.Error("a store that is not remote cannot be changed while it is open")
		return
	}
	from.Replace(to.below)
	from.SetLimits(to.limits)
}

// remoteBelow finds the store with its limits below the encryption.
func remoteBelow(s backend.Store) (counted, bool) {
	if e, ok := s.(*encrypted.Store); ok {
		s = e.Unwrap()
	}
	c, ok := s.(counted)
	return c, ok
}

// probePrefix is where a test makes its objects.
const probePrefix = "ovgate-test"

// TestRemote implements control.Backends.
func (b backends) TestRemote(ctx context.Context, r model.Remote, secret string) (control.RemoteReport, error) {
	r.Found = nil
	var out control.RemoteReport
	var found any
	var err error
	switch r.Kind {
	case model.KindS3:
		o, oerr := s3Options(r, secret, probePrefix)
		if oerr != nil {
			return out, oerr
		}
		var f s3.Found
		f, out.Warnings, err = s3.Detect(ctx, o)
		found, out.Conditional, out.Gives = f, f.ConditionalPut, s3Gives(f)
	case model.KindSwift:
		o, oerr := swiftOptions(r, secret, probePrefix)
		if oerr != nil {
			return out, oerr
		}
		var f swift.Found
		f, out.Warnings, err = swift.Detect(ctx, o)
		found, out.Gives = f, swiftGives(f)
	default:
		return out, fmt.Errorf("this version knows no %s backend", r.Kind)
	}
	if err != nil {
		return out, err
	}
	if out.Found, err = json.Marshal(found); err != nil {
		return out, err
	}
	r.Found = out.Found
	s, err := dial(ctx, r, secret, probePrefix)
	if err != nil {
		return out, err
	}
	// A name of its own, as somebody else may test at the same time.
	out.Steps = remote.Probe(ctx, s, strings.ToLower(crand.Text())+"-", clock.Real{}).Steps
	return out, s.Close()
}

// gives says of each thing whether a store has it.
func gives(all ...[3]any) []string {
	var out []string
	for _, g := range all {
		text := g[2]
		if g[0].(bool) {
			text = g[1]
		}
		if text != "" {
			out = append(out, text.(string))
		}
	}
	return out
}

const (
	fencedText   = "refuses the second writer of one object: a fence beside the registry's"
	unfencedText = "does not refuse the second writer of one object: the registry alone fences, which is enough"
)

func s3Gives(f s3.Found) []string {
	return gives(
		[3]any{f.ConditionalPut, fencedText, unfencedText},
		[3]any{f.Checksums, "checks uploads by CRC-32C", "checks uploads by MD5"},
	)
}

func swiftGives(f swift.Found) []string {
	return gives(
		[3]any{true, unfencedText, ""},
		[3]any{true, "checks uploads by MD5", ""},
		[3]any{f.SLO, fmt.Sprintf("objects of any size, in parts above %d bytes", f.MaxObjectBytes), fmt.Sprintf("objects of up to %d bytes", f.MaxObjectBytes)},
	)
}

// isRemote tells the kinds of backends that are registered.
func isRemote(kind string) bool { return kind == model.KindS3 || kind == model.KindSwift }

// seal opens the encryption of a vPool around its store, which it closes when that
// fails.
func seal(ctx context.Context, s backend.Store, p control.Place) (backend.Store, error) {
	var err error
	if p.Key != nil {
		open := encrypted.Open
		if p.New {
			open = encrypted.Create
		}
		var e *encrypted.Store
		if e, err = open(ctx, s, *p.Key, rootObject); err == nil {
			return e, nil
		}
	} else {
		var id string
		if id, err = encrypted.MadeWith(ctx, s); err == nil && id == "" {
			return s, nil
		}
		if err == nil {
			err = fmt.Errorf("%w: its objects are encrypted with key %s, and none was given", encrypted.ErrKey, id)
		}
	}
	return nil, errors.Join(err, s.Close())
}
