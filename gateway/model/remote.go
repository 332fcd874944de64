package model

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

// Kinds of remote stores.
const (
	KindSwift = "swift"
	KindS3    = "s3"
)

// Remote is an object store that the node reaches over the network and that vPools
// may use: OpenStack Swift, Amazon S3, or one that speaks like it.
type Remote struct {
	Format int        `json:"format"`
	ID     string     `json:"id"` // UUID
	Name   string     `json:"name"`
	Kind   string     `json:"kind"` // KindSwift or KindS3
	Spec   RemoteSpec `json:"spec"`
	// Secret is the password, secret key or secret of an application credential, sealed
	// with ID; empty: none is needed.
	Secret []byte `json:"secret,omitempty"`
	// Found is what the newest test found that the store does, as the backend's package
	// writes it; Gives says the same in words, Warnings what is to be known of it.
	Found    json.RawMessage `json:"found,omitempty"`
	Gives    []string        `json:"gives,omitempty"`
	Warnings []string        `json:"warnings,omitempty"`
	// Conditional: it promises that of two writers of one new object one is refused.
	Conditional bool      `json:"conditional,omitempty"`
	Tested      time.Time `json:"tested,omitzero"`
	Created     time.Time `json:"created"`

	Rev int64 `json:"-"`
}

// RemoteSpec says where a remote store is and how it is used. Zero is the default.
type RemoteSpec struct {
	// URL is the endpoint of an S3 store (empty: Amazon's), or where a Swift user signs in.
	URL       string `json:"url,omitempty"`
	Region    string `json:"region,omitempty"`
	Container string `json:"container,omitempty"` // Swift's container, S3's bucket
	// User is the access key of S3; the user, or the id of an application credential, of
	// Swift.
	User string `json:"user,omitempty"`
	// CA are certificates in PEM to trust in place of the system's.
	CA          string `json:"ca,omitempty"`
	Proxy       string `json:"proxy,omitempty"`       // URL
	Connections int    `json:"connections,omitempty"` // at a time
	Upload      int64  `json:"upload,omitempty"`      // bytes per second at most
	Download    int64  `json:"download,omitempty"`    // bytes per second at most

	S3    *S3Spec    `json:"s3,omitempty"`
	Swift *SwiftSpec `json:"swift,omitempty"`
}

// S3Spec is what only S3 has.
type S3Spec struct {
	Addressing string `json:"addressing,omitempty"` // "", path or virtual
	IAM        bool   `json:"iam,omitempty"`        // keys from the environment or the instance's role
	SSE        string `json:"sse,omitempty"`        // "", AES256 or aws:kms
	SSEKey     string `json:"sseKey,omitempty"`     // id of the KMS key
}

// SwiftSpec is what only Swift has.
type SwiftSpec struct {
	AuthVersion   int    `json:"authVersion,omitempty"` // 1, 2 or 3; 0: by the URL
	Domain        string `json:"domain,omitempty"`      // of the user
	Project       string `json:"project,omitempty"`     // tenant
	ProjectDomain string `json:"projectDomain,omitempty"`
	Trust         string `json:"trust,omitempty"`      // id
	Credential    bool   `json:"credential,omitempty"` // User is the id of an application credential
	Endpoint      string `json:"endpoint,omitempty"`   // public, internal or admin
	Policy        string `json:"policy,omitempty"`     // of containers that are made
	Shards        int    `json:"shards,omitempty"`     // containers; 0: one
}

func (r Remote) key() string      { return r.ID }
func (r Remote) unique() []string { return []string{"backend/" + r.Name} }
func (r Remote) format() int      { return r.Format }
func (r Remote) rev() int64       { return r.Rev }
func (r Remote) clone(rev int64) Remote {
	r.Rev = rev
	r.Spec = r.Spec.Clone()
	r.Found, r.Gives, r.Warnings = slices.Clone(r.Found), slices.Clone(r.Gives), slices.Clone(r.Warnings)
	r.Secret = slices.Clone(r.Secret)
	return r
}

// Clone returns a copy that shares nothing with s.
func (s RemoteSpec) Clone() RemoteSpec {
	if s.S3 != nil {
		c := *s.S3
		s.S3 = &c
	}
	if s.Swift != nil {
		c := *s.Swift
		s.Swift = &c
	}
	return s
}

// CreateRemote stores a new remote store; ErrExists if its name is taken.
func (s *Store) CreateRemote(ctx context.Context, r Remote) (Remote, error) {
	r.Format = Format
	return s.remotes.insert(ctx, r, nil)
}

// Remote returns a remote store by id.
func (s *Store) Remote(id string) (Remote, bool) { return s.remotes.get(id) }

// FindRemote returns a remote store by id or name.
func (s *Store) FindRemote(ref string) (Remote, bool) {
	if r, ok := s.remotes.get(ref); ok {
		return r, true
	}
	return s.remotes.lookup("backend/" + ref)
}

// Remotes returns the remote stores in no particular order.
func (s *Store) Remotes() []Remote { return s.remotes.all(nil) }

// UpdateRemote changes a remote store through fn; an error of fn is returned and
// nothing changes.
func (s *Store) UpdateRemote(ctx context.Context, id string, fn func(*Remote) error) (Remote, error) {
	return s.remotes.update(ctx, id, func(r *Remote) error {
		r.Format = Format
		return fn(r)
	})
}

// DeleteRemote removes the record of a remote store that no vPool uses: ErrConflict
// when one does (M7). Absent is no error.
func (s *Store) DeleteRemote(ctx context.Context, id string) error {
	return s.remotes.remove(ctx, id, func(r Remote) error {
		for _, v := range s.vpools.all(nil) {
			if v.Backend.Store == r.ID {
				return fmt.Errorf("vpool %q uses it: %w", v.Name, ErrConflict)
			}
		}
		return nil
	})
}

// withRemote runs f, which stores a vPool with this backend, while the store it names
// is there and stays (M7).
func (s *Store) withRemote(b Backend, f func([]kv.Compare) (VPool, error)) (VPool, error) {
	if b.Store == "" {
		return f(nil)
	}
	s.remotes.wr.Lock()
	defer s.remotes.wr.Unlock()
	r, ok := s.remotes.get(b.Store)
	if !ok {
		return VPool{}, fmt.Errorf("backend %q: %w", b.Store, ErrNotFound)
	}
	return f([]kv.Compare{kv.ModRevIs(s.remotes.path(b.Store), r.Rev)})
}
