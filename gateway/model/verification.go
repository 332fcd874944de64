package model

import (
	"context"
	"time"
)

// Verification is the newest result of reading all that a vDisk has on its backend.
// It is kept beside the vDisk's record, because it is large when there is damage and
// because nothing depends on it.
type Verification struct {
	Format  int       `json:"format"`
	VDisk   string    `json:"vdisk"` // UUID
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	// Cut is why it did not come to its end; empty: it did.
	Cut         string   `json:"cut,omitempty"`
	Seq         uint64   `json:"seq"` // committed writes up to here were looked at
	Bytes       int64    `json:"bytes"`
	Total       int64    `json:"total"`
	Clusters    uint64   `json:"clusters"`
	BadClusters uint64   `json:"badClusters,omitempty"`
	BadObjects  int64    `json:"badObjects,omitempty"`
	Damage      []Damage `json:"damage,omitempty"` // the first MaxKeptDamage

	Rev int64 `json:"-"`
}

// Bounds of what is kept of damage, so that a record stays far below the limit of a
// transaction: whoever has more verifies again.
const (
	MaxKeptDamage    = 50
	MaxKeptRanges    = 16
	MaxKeptSnapshots = 20
)

// Damage is an object on the backend that is not as it was written.
type Damage struct {
	Object    string   `json:"object"`
	Why       string   `json:"why"`
	Current   bool     `json:"current,omitempty"`
	Snapshots []string `json:"snapshots,omitempty"`
	Ranges    []Range  `json:"ranges,omitempty"`
}

// Range is a part of a disk, in bytes.
type Range struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

func (v Verification) key() string      { return v.VDisk }
func (v Verification) unique() []string { return nil }
func (v Verification) format() int      { return v.Format }
func (v Verification) rev() int64       { return v.Rev }
func (v Verification) clone(rev int64) Verification {
	v.Rev = rev // nobody changes Damage once it is stored
	return v
}

// SetVerification stores the newest result of a vDisk.
func (s *Store) SetVerification(ctx context.Context, v Verification) error {
	v.Format = Format
	if _, ok := s.verified.get(v.VDisk); !ok {
		_, err := s.verified.insert(ctx, v, nil)
		return err
	}
	_, err := s.verified.update(ctx, v.VDisk, func(old *Verification) error {
		v.Rev = old.Rev
		*old = v
		return nil
	})
	return err
}

// Verification returns the newest result of a vDisk.
func (s *Store) Verification(vdisk string) (Verification, bool) { return s.verified.get(vdisk) }

// DeleteVerification forgets the result of a vDisk; absent is no error.
func (s *Store) DeleteVerification(ctx context.Context, vdisk string) error {
	return s.verified.remove(ctx, vdisk, nil)
}
