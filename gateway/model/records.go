package model

import (
	"slices"
	"time"
)

// Format is the newest record format this code reads and writes.
//
//	1  a vDisk's target had one set of credentials and one list of initiators
//	2  groups; shared targets; QoS
//	3  parents of clones; history
//	4  templates; flatten; state "transfer"
//	5  trash; over-subscription; moves
//	6  what the read cache keeps of a vDisk; intervals of verification
//	7  remote stores; keys of vPools
//	8  nodes, and those of vDisks; the node's id is not in the cluster's record
//	9  vPools and tokens of one node; DTL of vPools, vDisks and nodes; hand-overs
//	10 portal groups of nodes
//	11 history of vDisks
//	12 users of a sign-in provider
//	13 grants and groups of users; grants of tokens; OAuth2 clients; makers of shared targets
const Format = 13

// State is what the control plane has decided for a vPool or vDisk; what the
// engine makes of it is reported beside it and is not stored.
type State string

// States of a record.
const (
	StateCreating State = "creating" // the decision is stored, the object may not exist yet
	StatePresent  State = "present"
	StateDeleting State = "deleting" // never undone; resumed after a restart
	// StateTransfer: of a vDisk that is imported, or that an export reads. It becomes
	// present when an import is finished; a restart deletes it.
	StateTransfer State = "transfer"
	// StateTrashed: deleted, and kept for a while, so that it can be restored. Its name
	// is free.
	StateTrashed State = "trashed"
)

// Cluster is the identity of an installation.
type Cluster struct {
	Format  int       `json:"format"`
	ID      string    `json:"id"`             // UUID, drawn at the first start
	Node    string    `json:"node,omitempty"` // UUID of the only node; up to format 7
	Created time.Time `json:"created"`
}

// Backend says where a vPool keeps its objects.
type Backend struct {
	Kind string `json:"kind"` // "local", "alba", KindSwift or KindS3
	// Path is where the objects are. local: an absolute directory; alba: what the
	// names of its namespaces begin with; remote: what the names of its objects begin
	// with, segments joined by "/".
	Path string `json:"path,omitempty"`
	// Store is the id of the remote store; empty for local and alba.
	Store string `json:"store,omitempty"`
	// Preset is how an alba backend stores; empty: by its default.
	Preset string `json:"preset,omitempty"`
}

// KindAlba is the kind of a backend on the cluster's Alba.
const KindAlba = "alba"

// Shared tells whether every node reaches it: it is Alba, Swift or S3.
func (b *Backend) Shared() bool { return b.Store != "" || b.Kind == KindAlba }

// PoolSettings are a vPool's defaults for its vDisks; zero is the engine's default.
type PoolSettings struct {
	ClusterSize    int           `json:"clusterSize,omitempty"`    // bytes
	SCOSize        int64         `json:"scoSize,omitempty"`        // bytes
	JournalQuota   int64         `json:"journalQuota,omitempty"`   // bytes
	CommitInterval time.Duration `json:"commitInterval,omitempty"` // ns
	StallTimeout   time.Duration `json:"stallTimeout,omitempty"`   // ns
	History        time.Duration `json:"history,omitempty"`        // ns
	AcceptLostTail bool          `json:"acceptLostTail,omitempty"`
	// Trash is how long deleted vDisks are kept, ns; 0: DefaultTrash; below 0: not.
	Trash time.Duration `json:"trash,omitempty"`
	// Oversubscription bounds the sizes of all vDisks together, in percent of the
	// backend's disk; 0: no bound.
	Oversubscription int `json:"oversubscription,omitempty"`
	// VerifyInterval is within which time each vDisk is verified, ns; 0:
	// DefaultVerifyInterval; below 0: only when it is asked for.
	VerifyInterval time.Duration `json:"verifyInterval,omitempty"`
	// DTL is how journals are mirrored on another node; "": DTLSync.
	DTL DTLMode `json:"dtl,omitempty"`
}

// DTLMode says whether a journal is mirrored on another node (rule O2).
type DTLMode string

// Modes.
const (
	DTLOff   DTLMode = "off"
	DTLAsync DTLMode = "async" // answered when this node has it; the other one lacks the newest
	DTLSync  DTLMode = "sync"  // answered when both have it
)

// DTLPolicy is where and how the journal of one vDisk is mirrored.
type DTLPolicy struct {
	Mode DTLMode `json:"mode,omitempty"` // "": that of its vPool
	Peer string  `json:"peer,omitempty"` // id of the node; "": the best one
}

// DTLMode is how journals are mirrored.
func (s *PoolSettings) DTLMode() DTLMode {
	if s.DTL == "" {
		return DTLSync
	}
	return s.DTL
}

// DefaultTrash is how long a vPool that says nothing keeps deleted vDisks.
const DefaultTrash = 24 * time.Hour

// TrashTime is how long deleted vDisks are kept; 0: not at all.
func (s *PoolSettings) TrashTime() time.Duration {
	if s.Trash == 0 {
		return DefaultTrash
	}
	return max(s.Trash, 0)
}

// DefaultVerifyInterval is how often a vPool that says nothing has its vDisks verified
// (rule E8).
const DefaultVerifyInterval = 30 * 24 * time.Hour

// VerifyEvery is within which time each vDisk is verified; 0: only when it is asked for.
func (s *PoolSettings) VerifyEvery() time.Duration {
	if s.VerifyInterval == 0 {
		return DefaultVerifyInterval
	}
	return max(s.VerifyInterval, 0)
}

// VPool is a pool of vDisks.
type VPool struct {
	Format int    `json:"format"`
	ID     string `json:"id"` // UUID
	Name   string `json:"name"`
	// Adopt is set while a vPool is being recovered: its backend's root object
	// may name another cluster and is taken over.
	Adopt    bool         `json:"adopt,omitempty"`
	Backend  Backend      `json:"backend"`
	Settings PoolSettings `json:"settings"`
	// Node is the id of the only node that reaches its objects, or that makes it now; empty:
	// every node does, or (up to format 8, of a vPool that only one reaches) the only node.
	Node    string    `json:"node,omitempty"`
	State   State     `json:"state"`
	Created time.Time `json:"created"`
	// Key encrypts its objects: text of encrypted.Key, sealed with ID; empty: they are
	// not encrypted. KeyID names it.
	Key   []byte `json:"key,omitempty"`
	KeyID string `json:"keyId,omitempty"`

	Rev int64 `json:"-"` // revision of the last change
}

// VDisk is a virtual disk and, while it is published, its target.
type VDisk struct {
	Format      int               `json:"format"`
	ID          string            `json:"id"` // UUID
	Name        string            `json:"name"`
	VPool       string            `json:"vpool"` // UUID
	Size        int64             `json:"size"`  // bytes; what was last asked for
	ClusterSize int               `json:"clusterSize"`
	Labels      map[string]string `json:"labels,omitempty"`
	State       State             `json:"state"`
	Created     time.Time         `json:"created"`
	// Node is the id of the node that serves it; empty in a record of format 7 or older:
	// the only node. The engine's registry says who wrote it last.
	Node string `json:"node,omitempty"`
	// IQN is drawn at the first publish and kept for the vDisk's life, through
	// renames and unpublish.
	IQN string `json:"iqn,omitempty"`
	// Target is the vDisk's own target, of which it is LUN 0; nil: it has none.
	Target *Target `json:"target,omitempty"`
	// Shared places the vDisk in a shared target; nil: it is in none. It has one
	// of Target and Shared at most.
	Shared *SharedLUN `json:"shared,omitempty"`
	// QoS limits what initiators may do to it, published or not; nil: no limit.
	QoS *QoS `json:"qos,omitempty"`
	// Cache says what the read cache keeps of it; nil: what is read, without a bound of
	// its own.
	Cache *CachePolicy `json:"cache,omitempty"`
	// DTL is where and how its journal is mirrored; nil: as its vPool says, on the best
	// node.
	DTL *DTLPolicy `json:"dtl,omitempty"`
	// History is how far back a scrub keeps its moments, 0: not at all; nil: as its vPool
	// says.
	History *time.Duration `json:"history,omitempty"`
	// BlockSize is the logical block size that initiators see, in bytes: 512 (or 0)
	// or 4096. It stays through unpublish, because what hosts wrote is not readable
	// with another one.
	BlockSize int `json:"blockSize,omitempty"`
	// Parent is what a clone starts from; nil: it is none.
	Parent *Parent `json:"parent,omitempty"`
	// Template is frozen: it is cloned and deleted, never opened.
	Template bool `json:"template,omitempty"`
	// Flatten was asked for and has not ended; it goes on after a restart.
	Flatten bool `json:"flatten,omitempty"`
	// Trashed is when it came into the trash, and Stored what it takes there, in bytes
	// of the backend.
	Trashed time.Time `json:"trashed,omitzero"`
	Stored  int64     `json:"stored,omitempty"`
	// Move was asked for and has not ended; it goes on after a restart. Left is the vPool
	// whose objects of the vDisk are to be deleted: it was moved from there, or was to be
	// moved there.
	Move *Move  `json:"move,omitempty"`
	Left string `json:"left,omitempty"`
	// Handover was asked for and has not ended; it goes on after a restart.
	Handover *Handover `json:"handover,omitempty"`

	Rev int64 `json:"-"`
}

// CacheMode says what the read cache keeps of a vDisk.
type CacheMode string

// Modes; the empty one is CacheOnRead.
const (
	CacheOnRead  CacheMode = "on-read"
	CacheOnWrite CacheMode = "on-write"
	CacheNone    CacheMode = "none"
)

// CachePolicy is what the read cache keeps of a vDisk, and how many bytes at most; 0: no
// bound of its own.
type CachePolicy struct {
	Mode  CacheMode `json:"mode,omitempty"`
	Quota int64     `json:"quota,omitempty"`
}

// Move takes a vDisk to another vPool.
type Move struct {
	To string `json:"to"` // UUID
	// Failed is why it was given up; it goes on when it is asked for again.
	Failed string `json:"failed,omitempty"`
}

// Handover gives a vDisk to another node.
type Handover struct {
	To string `json:"to"` // UUID
	// Failed is why it was given up; it goes on when it is asked for again.
	Failed string `json:"failed,omitempty"`
}

// Parent is the point of a vDisk that a clone starts from: a snapshot, a moment, or
// the end of what it held. A creation that was cut off goes on with it.
type Parent struct {
	VDisk    string    `json:"vdisk"`              // UUID; it may be deleted by now
	Snapshot string    `json:"snapshot,omitempty"` // name or UUID as it was asked for
	At       time.Time `json:"at,omitzero"`
}

// Session is a browser session; only the hash of its cookie is kept.
type Session struct {
	Format  int       `json:"format"`
	Hash    string    `json:"hash"` // hex sha-256 of the cookie
	User    string    `json:"user"`
	CSRF    string    `json:"csrf"` // hex sha-256 of the CSRF token
	Created time.Time `json:"created"`
	Address string    `json:"address"` // remote address of the sign-in
	// Console is the address under which the console was seen, of a session that a sign-in
	// provider let in; empty: it began with a password.
	Console string `json:"console,omitempty"`

	Rev int64 `json:"-"`
}

// Setup holds the hash of the set-up token while no user exists.
type Setup struct {
	Format int    `json:"format"`
	Hash   string `json:"hash"` // hex sha-256
}

// Idempotency is the remembered answer to a create.
type Idempotency struct {
	Format  int       `json:"format"`
	Hash    string    `json:"hash"`    // hex sha-256 of caller, operation and key
	Request string    `json:"request"` // keyed digest of the body
	Status  int       `json:"status"`  // HTTP status of the answer
	Body    []byte    `json:"body"`    // sealed: an answer may hold a secret
	Created time.Time `json:"created"`

	Rev int64 `json:"-"`
}

// record is what a table needs of its rows.
type record[T any] interface {
	key() string       // below the table's prefix
	unique() []string  // index keys that belong to this record
	clone(rev int64) T // deep copy that carries rev
	format() int
	rev() int64
}

func (v VPool) key() string { return v.ID }
func (v VPool) unique() []string {
	if v.State == StateDeleting {
		return nil // its name is free again at once
	}
	return []string{"vpool/" + v.Name}
}
func (v VPool) format() int { return v.Format }
func (v VPool) rev() int64  { return v.Rev }
func (v VPool) clone(rev int64) VPool {
	v.Rev = rev
	v.Key = slices.Clone(v.Key)
	return v
}

func (s Session) key() string      { return s.Hash }
func (s Session) unique() []string { return nil }
func (s Session) format() int      { return s.Format }
func (s Session) rev() int64       { return s.Rev }
func (s Session) clone(rev int64) Session {
	s.Rev = rev
	return s
}

func (i Idempotency) key() string      { return i.Hash }
func (i Idempotency) unique() []string { return nil }
func (i Idempotency) format() int      { return i.Format }
func (i Idempotency) rev() int64       { return i.Rev }
func (i Idempotency) clone(rev int64) Idempotency {
	i.Rev = rev
	return i
}
