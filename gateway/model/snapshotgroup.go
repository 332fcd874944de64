package model

import (
	"context"
	"errors"
	"slices"
	"time"
)

// SnapshotGroup is a group snapshot that is being made or undone. It is there from before its
// first snapshot until it is decided, and done, what becomes of them: without one every snapshot
// of a group is whole.
type SnapshotGroup struct {
	Format int        `json:"format"`
	ID     string     `json:"id"` // UUID, that of all its snapshots
	Name   string     `json:"name"`
	Node   string     `json:"node"` // UUID: which leads it
	State  GroupState `json:"state"`
	// VDisks are those that may have a snapshot of it, UUIDs: while it is undone, those of which
	// it is not known that they have none.
	VDisks []string  `json:"vdisks"`
	Began  time.Time `json:"began"`

	Rev int64 `json:"-"`
}

// GroupState is what is decided of a group snapshot.
type GroupState string

// States of a group snapshot.
const (
	GroupMaking  GroupState = "making"  // its leader decides
	GroupMade    GroupState = "made"    // all snapshots are there, for good
	GroupUndoing GroupState = "undoing" // for good: they go, each by the node that serves its vDisk
)

func (g SnapshotGroup) key() string      { return g.ID }
func (g SnapshotGroup) unique() []string { return nil }
func (g SnapshotGroup) format() int      { return g.Format }
func (g SnapshotGroup) rev() int64       { return g.Rev }
func (g SnapshotGroup) clone(rev int64) SnapshotGroup {
	g.Rev, g.VDisks = rev, slices.Clone(g.VDisks)
	return g
}

// groupTries bounds how often a change of a group is tried anew that another one came before.
const groupTries = 10

// AddSnapshotGroup stores a new group.
func (s *Store) AddSnapshotGroup(ctx context.Context, g SnapshotGroup) error {
	g.Format = Format
	_, err := s.groups.insert(ctx, g, nil)
	return err
}

// UpdateSnapshotGroup changes a group through fn, which may run more than once; an error of fn is
// returned and nothing changes. One that is left without vDisks while it is undone is removed.
func (s *Store) UpdateSnapshotGroup(ctx context.Context, id string, fn func(*SnapshotGroup) error) error {
	var err error
	for range groupTries {
		var g SnapshotGroup
		g, err = s.groups.update(ctx, id, func(g *SnapshotGroup) error {
			g.Format = Format
			return fn(g)
		})
		switch {
		case err == nil && g.State == GroupUndoing && len(g.VDisks) == 0:
			return s.RemoveSnapshotGroup(ctx, id)
		case !errors.Is(err, ErrConflict):
			return err
		}
		s.groups.fetch(ctx, id) // memory may be behind (M8)
	}
	return err
}

// RemoveSnapshotGroup forgets a group that is decided and done; absent is no error.
func (s *Store) RemoveSnapshotGroup(ctx context.Context, id string) error {
	return s.groups.remove(ctx, id, nil)
}

// SnapshotGroup returns a group by id.
func (s *Store) SnapshotGroup(id string) (SnapshotGroup, bool) { return s.groups.get(id) }

// SnapshotGroups returns all groups.
func (s *Store) SnapshotGroups() []SnapshotGroup { return s.groups.all(nil) }

// FreshSnapshotGroup reads a group from the registry; ErrNotFound: there is none.
func (s *Store) FreshSnapshotGroup(ctx context.Context, id string) (SnapshotGroup, error) {
	return s.groups.stored(ctx, id)
}
