package swift

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// Policy is a storage policy of a cluster.
type Policy struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
	Default bool     `json:"default,omitempty"`
}

// Found is what a cluster can do.
type Found struct {
	Version         string   `json:"version,omitempty"` // of Swift; empty: not told
	Policies        []Policy `json:"policies,omitempty"`
	MaxObjectBytes  int64    `json:"maxObjectBytes"` // of an object without segments
	ListLimit       int      `json:"listLimit"`      // objects in an answer
	SLO             bool     `json:"slo"`            // static large objects
	MaxSegments     int      `json:"maxSegments"`
	MinSegmentBytes int64    `json:"minSegmentBytes"`
	BulkDelete      int      `json:"bulkDelete"` // names in a request, 0: none
	// Ranges and IfNoneMatch are known from Detect alone. IfNoneMatch: a PUT of a name
	// that is there can be refused; it is no lock, see the package comment.
	Ranges      bool `json:"ranges"`
	IfNoneMatch bool `json:"ifNoneMatch"`
}

// What holds where a cluster does not tell, and the bounds of what it tells.
const (
	defaultMaxObject = 5 << 30 // Swift's, less two bytes
	maxListLimit     = backend.MaxListLimit
	maxSegmentsBound = 1000
	maxInfoBytes     = 1 << 20
	maxPolicies      = 100
)

// bound puts what a cluster, or a file, told within sane limits.
func (f *Found) bound() {
	if f.MaxObjectBytes <= 0 {
		f.MaxObjectBytes = defaultMaxObject
	}
	if f.ListLimit <= 0 || f.ListLimit > maxListLimit {
		f.ListLimit = maxListLimit
	}
	f.MaxSegments = min(max(f.MaxSegments, 0), maxSegmentsBound)
	f.BulkDelete = max(f.BulkDelete, 0)
	f.Policies = f.Policies[:min(len(f.Policies), maxPolicies)]
}

// samePolicy tells whether two names are of one policy.
func (f *Found) samePolicy(a, b string) bool {
	return strings.EqualFold(f.canonical(a), f.canonical(b))
}

func (f *Found) canonical(name string) string {
	for _, p := range f.Policies {
		for _, alias := range p.Aliases {
			if strings.EqualFold(alias, name) {
				return p.Name
			}
		}
	}
	return name
}

func (f *Found) policyNames() []string {
	var names []string
	for _, p := range f.Policies {
		names = append(names, p.Name)
	}
	return names
}

// info asks the cluster what it can do. One that does not tell has defaults.
func (s *Store) info(ctx context.Context) (Found, error) {
	t, err := s.session.current(ctx)
	if err != nil {
		return Found{}, err
	}
	r := request{op: "GET info", method: http.MethodGet}
	u, err := url.Parse(t.url)
	if err != nil {
		return Found{}, &remote.Error{Op: r.op, Err: errors.New("the storage URL is unusable")}
	}
	u.Path = path.Join("/", u.Path, "..", "..", "info")
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), nil)
	if err != nil {
		return Found{}, &remote.Error{Op: r.op, Err: errors.New("the storage URL is unusable")}
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := s.client.Do(req)
	if err != nil {
		return Found{}, broken(ctx, r, err)
	}
	if resp.StatusCode >= 500 {
		_ = resp.Body.Close()
		return Found{}, wrong(r, resp, "the cluster does not say what it can do")
	}
	b, err := body(ctx, r, resp, maxInfoBytes)
	if err != nil {
		return Found{}, err
	}
	var f Found
	if resp.StatusCode == http.StatusOK {
		f = parseInfo(b)
	}
	f.bound()
	return f, nil
}

// parseInfo reads what /info answers; what it does not understand counts as absent.
func parseInfo(b []byte) Found {
	var in struct {
		Swift struct {
			Version  string `json:"version"`
			MaxFile  int64  `json:"max_file_size"`
			Limit    int    `json:"container_listing_limit"`
			Policies []struct {
				Name    string `json:"name"`
				Aliases string `json:"aliases"`
				Default bool   `json:"default"`
			} `json:"policies"`
		} `json:"swift"`
		SLO *struct {
			Most  int   `json:"max_manifest_segments"`
			Least int64 `json:"min_segment_size"`
		} `json:"slo"`
		Bulk struct {
			Most int `json:"max_deletes_per_request"`
		} `json:"bulk_delete"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return Found{}
	}
	f := Found{Version: message([]byte(in.Swift.Version)), MaxObjectBytes: in.Swift.MaxFile, ListLimit: in.Swift.Limit, BulkDelete: in.Bulk.Most}
	if in.SLO != nil {
		f.SLO, f.MaxSegments, f.MinSegmentBytes = true, in.SLO.Most, in.SLO.Least
	}
	for _, p := range in.Swift.Policies[:min(len(in.Swift.Policies), maxPolicies)] {
		q := Policy{Name: message([]byte(p.Name)), Default: p.Default}
		for alias := range strings.SplitSeq(p.Aliases, ",") {
			if alias = message([]byte(alias)); alias != "" && alias != q.Name {
				q.Aliases = append(q.Aliases, alias)
			}
		}
		f.Policies = append(f.Policies, q)
	}
	return f
}

// cleanupTimeout bounds the removal of scratch objects after the caller has left.
const cleanupTimeout = 30 * time.Second

// Detect looks what the store can do: it puts, reads and removes scratch objects. A
// container that it had to make goes again. The second result are warnings for the
// administrator.
func Detect(ctx context.Context, o Options) (_ Found, _ []string, err error) {
	o.Found = nil
	s, err := connect(ctx, o)
	if err != nil {
		return Found{}, nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	container := s.container(0)
	before, err := s.lookAt(ctx, container)
	made := errors.Is(err, remote.ErrNoContainer)
	if err != nil && !made {
		return Found{}, nil, err
	}
	if err := s.containers.ensure(ctx, s, container); err != nil {
		return Found{}, nil, err
	}
	p := &probe{s: s, container: container}
	defer func() { err = errors.Join(err, p.clean(ctx, made)) }()
	if err := p.run(ctx); err != nil {
		return Found{}, nil, err
	}
	return s.found, append(s.warnings(before), p.warnings...), nil
}

// warnings tells what an administrator should know of the place.
func (s *Store) warnings(container http.Header) []string {
	var w []string
	s.session.mu.Lock()
	target := s.session.token.url
	s.session.mu.Unlock()
	for _, u := range []string{s.o.AuthURL, target} {
		if strings.HasPrefix(u, "http:") {
			w = append(w, "The connection to "+u+" is not encrypted: whoever listens can read and change the objects.")
		}
	}
	if n := container.Get("X-Container-Object-Count"); n != "" && n != "0" && s.o.Prefix == "" {
		w = append(w, fmt.Sprintf("Container %s holds %s objects already.", s.container(0), message([]byte(n))))
	}
	for _, h := range []string{"X-Versions-Location", "X-History-Location", "X-Versions-Enabled"} {
		if v := container.Get(h); v != "" && !strings.EqualFold(v, "false") {
			w = append(w, fmt.Sprintf("Container %s keeps old versions: deleted objects go on to take space.", s.container(0)))
			break
		}
	}
	if strings.Contains(container.Get("X-Container-Read"), ".r:") {
		w = append(w, fmt.Sprintf("Everybody can read container %s.", s.container(0)))
	}
	if !s.found.SLO {
		w = append(w, "The cluster has no static large objects.")
	}
	if n := s.found.MinSegmentBytes; s.o.SegmentBytes > 0 && s.o.SegmentBytes < n {
		w = append(w, fmt.Sprintf("Segments of %d bytes are smaller than the cluster's least, %d.", s.o.SegmentBytes, n))
	}
	return w
}

// probe tries things on scratch objects.
type probe struct {
	s         *Store
	container string
	scratch   []string
	warnings  []string
}

// probeBytes is the size of a scratch object.
const probeBytes = 1000

func (p *probe) object(op, method string) request {
	return request{op: op, name: p.scratch[0], method: method, container: p.container, object: p.scratch[0]}
}

// bytes returns content for a scratch object.
func (p *probe) bytes(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(p.s.o.Rand, b)
	return b, err
}

func (p *probe) run(ctx context.Context) error {
	id, err := p.bytes(16)
	if err != nil {
		return err
	}
	first, err := p.bytes(probeBytes)
	if err != nil {
		return err
	}
	p.scratch = append(p.scratch, p.s.o.Prefix+reserved+"probe/"+hex.EncodeToString(id))
	put := p.object("PUT scratch object", http.MethodPut)
	if err := p.s.put(ctx, put, first); err != nil {
		return err
	}
	put.header = http.Header{"If-None-Match": {"*"}, "Content-Type": {"application/octet-stream"}}
	put.body = append(bytes.Clone(first), 'x')
	resp, err := p.s.do(ctx, put)
	var e *remote.Error
	refused := errors.As(err, &e) && e.Status == http.StatusPreconditionFailed
	if err == nil {
		drop(resp)
	} else if !refused && (e == nil || e.Status == 0 || e.Status >= 500) {
		return err
	}
	get := p.object("GET scratch object", http.MethodGet)
	get.header = newest
	if resp, err = p.s.do(ctx, get); err != nil {
		return err
	}
	now, err := body(ctx, get, resp, probeBytes+1)
	if err != nil {
		return err
	}
	unchanged := bytes.Equal(now, first)
	if !unchanged && !bytes.Equal(now, put.body) {
		return fmt.Errorf("scratch object %s: %w: other bytes than were put", p.scratch[0], backend.ErrCorrupt)
	}
	p.s.found.IfNoneMatch = refused && unchanged
	get.op = "GET range of scratch object"
	get.header = http.Header{"Range": {"bytes=10-19"}}
	if resp, err = p.s.do(ctx, get); err != nil {
		return err
	}
	part, err := body(ctx, get, resp, probeBytes+1)
	if err != nil {
		return err
	}
	p.s.found.Ranges = resp.StatusCode == http.StatusPartialContent && bytes.Equal(part, first[10:20])
	if !p.s.found.Ranges {
		return fmt.Errorf("container %s: %w: the store answers requests for a range with something else", p.container, backend.ErrUnsupported)
	}
	return nil
}

// clean removes what the probe made, also after ctx has ended.
func (p *probe) clean(ctx context.Context, container bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	var errs error
	for _, name := range p.scratch {
		errs = errors.Join(errs, p.s.remove(ctx, request{op: "DELETE scratch object", name: name, method: http.MethodDelete, container: p.container, object: name}))
	}
	if !container || errs != nil {
		return errs
	}
	resp, err := p.s.do(ctx, request{op: "DELETE container", name: p.container, method: http.MethodDelete, container: p.container})
	switch {
	case err == nil:
		drop(resp)
	case conflict(err), errors.Is(err, remote.ErrNoContainer): // its listing lags; Open will use it
	default:
		return err
	}
	return nil
}
