package model

import (
	"context"
	"slices"
	"time"
)

// Cloud is an OpenStack cloud whose Cinder may have backends of this node.
type Cloud struct {
	Format int       `json:"format"`
	ID     string    `json:"id"` // UUID
	Name   string    `json:"name"`
	Spec   CloudSpec `json:"spec"`
	// Secret is the password, or the secret of an application credential, sealed with ID.
	Secret []byte `json:"secret,omitempty"`
	// Types are the volume types that it should have; none: one per pool.
	Types []VolumeType `json:"types,omitempty"`
	// Backends are those of this node that the newest test found or remembered, as
	// HOST@SECTION; Version and Warnings are what it said besides.
	Backends []string  `json:"backends,omitempty"`
	Version  string    `json:"version,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
	Tested   time.Time `json:"tested,omitzero"`
	Applied  time.Time `json:"applied,omitzero"` // zero: never
	Created  time.Time `json:"created"`

	Rev int64 `json:"-"`
}

// CloudSpec says how to sign in. Zero is the default.
type CloudSpec struct {
	URL           string `json:"url"`            // of Keystone
	User          string `json:"user,omitempty"` // or the id of an application credential
	Domain        string `json:"domain,omitempty"`
	Project       string `json:"project,omitempty"`
	ProjectDomain string `json:"projectDomain,omitempty"`
	Credential    bool   `json:"credential,omitempty"` // User is the id of an application credential
	Region        string `json:"region,omitempty"`
	Interface     string `json:"interface,omitempty"`     // public, internal or admin
	CA            string `json:"ca,omitempty"`            // PEM
	TimeoutMs     int64  `json:"timeoutMillis,omitempty"` // of each request
}

// VolumeType is a volume type that a cloud should have.
type VolumeType struct {
	Name        string      `json:"name"`
	VPool       string      `json:"vpool"`             // name
	Backend     string      `json:"backend,omitempty"` // volume_backend_name
	Multiattach bool        `json:"multiattach,omitempty"`
	Limits      VolumeLimit `json:"limits,omitzero"`
}

// VolumeLimit are the limits of a volume type; 0: none.
type VolumeLimit struct {
	IOPS        int64 `json:"iops,omitempty"`
	IOPSPerGiB  int64 `json:"iopsPerGib,omitempty"`
	Bytes       int64 `json:"bytes,omitempty"`       // per second
	BytesPerGiB int64 `json:"bytesPerGib,omitempty"` // per second
	BurstMillis int64 `json:"burstMillis,omitempty"`
}

func (c Cloud) key() string      { return c.ID }
func (c Cloud) unique() []string { return []string{"cloud/" + c.Name} }
func (c Cloud) format() int      { return c.Format }
func (c Cloud) rev() int64       { return c.Rev }
func (c Cloud) clone(rev int64) Cloud {
	c.Rev = rev
	c.Secret, c.Types, c.Backends, c.Warnings = slices.Clone(c.Secret), slices.Clone(c.Types), slices.Clone(c.Backends), slices.Clone(c.Warnings)
	return c
}

// CreateCloud stores a new cloud; ErrExists if its name is taken.
func (s *Store) CreateCloud(ctx context.Context, c Cloud) (Cloud, error) {
	c.Format = Format
	return s.clouds.insert(ctx, c, nil)
}

// FindCloud returns a cloud by id or name.
func (s *Store) FindCloud(ref string) (Cloud, bool) {
	if c, ok := s.clouds.get(ref); ok {
		return c, true
	}
	return s.clouds.lookup("cloud/" + ref)
}

// Clouds returns the clouds in no particular order.
func (s *Store) Clouds() []Cloud { return s.clouds.all(nil) }

// UpdateCloud changes a cloud through fn; an error of fn is returned and nothing changes.
func (s *Store) UpdateCloud(ctx context.Context, id string, fn func(*Cloud) error) (Cloud, error) {
	return s.clouds.update(ctx, id, func(c *Cloud) error {
		c.Format = Format
		return fn(c)
	})
}

// DeleteCloud removes the record of a cloud. Absent is no error.
func (s *Store) DeleteCloud(ctx context.Context, id string) error {
	return s.clouds.remove(ctx, id, nil)
}
