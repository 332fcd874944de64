package model

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/internal/kv"
)

// Store holds the records. Safe for concurrent use. See the package comment
// for what it guarantees.
type Store struct {
	kv      kv.Store
	clock   clock.Clock
	cluster Cluster
	rev     int64 // every change up to it is in memory; of Open, then of Follow

	vpools   *table[VPool]
	vdisks   *table[VDisk]
	targets  *table[SharedTarget]
	users    *table[User]
	tokens   *table[Token]
	sessions *table[Session]
	idem     *table[Idempotency]
	verified *table[Verification]
	remotes  *table[Remote]
	clouds   *table[Cloud]
	nodes    *table[Node]

	centers    *table[Center]
	datastores *table[Datastore]

	schedules *table[Schedule]
	runs      *table[Runs]
	alerting  *table[Alerting]

	thresholds *table[Thresholds]

	oidc *table[OIDC]

	groups *table[SnapshotGroup]

	userGroups *table[UserGroup]
	clients    *table[Client]
	families   *table[Family]
}

// Open reads all records from store, and draws the cluster's id at the first
// start. clk nil is the machine's clock.
func Open(ctx context.Context, store kv.Store, clk clock.Clock) (*Store, error) {
	if clk == nil {
		clk = clock.Real{}
	}
	s := &Store{
		kv:       store,
		clock:    clk,
		vpools:   newTable[VPool](store, "vpool"),
		vdisks:   newTable[VDisk](store, "vdisk"),
		targets:  newTable[SharedTarget](store, "target"),
		users:    newTable[User](store, "user"),
		tokens:   newTable[Token](store, "token"),
		sessions: newTable[Session](store, "session"),
		idem:     newTable[Idempotency](store, "idempotency"),
		verified: newTable[Verification](store, "verification"),
		remotes:  newTable[Remote](store, "backend"),
		clouds:   newTable[Cloud](store, "cloud"),
		nodes:    newTable[Node](store, "node"),

		centers:    newTable[Center](store, "center"),
		datastores: newTable[Datastore](store, "datastore"),

		schedules: newTable[Schedule](store, "schedule"),
		runs:      newTable[Runs](store, "runs"),
		alerting:  newTable[Alerting](store, "alerting"),

		thresholds: newTable[Thresholds](store, "thresholds"),

		oidc: newTable[OIDC](store, "oidc"),

		groups: newTable[SnapshotGroup](store, "snapshotgroup"),

		userGroups: newTable[UserGroup](store, "usergroup"),
		clients:    newTable[Client](store, "client"),
		families:   newTable[Family](store, "family"),
	}
	if err := s.openCluster(ctx, clk.Now()); err != nil {
		return nil, err
	}
	bad, err := s.relist(ctx, Followed{Changed: func(Change) {}})
	if err = errors.Join(err, bad); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Store) tables() []followed {
	return []followed{s.vpools, s.vdisks, s.targets, s.users, s.tokens, s.sessions, s.idem, s.verified, s.remotes, s.clouds, s.nodes, s.centers, s.datastores, s.schedules, s.runs, s.alerting, s.thresholds, s.oidc, s.groups, s.userGroups, s.clients, s.families}
}

const (
	clusterKey = prefix + "cluster"
	setupKey   = prefix + "setup"
)

func (s *Store) openCluster(ctx context.Context, now time.Time) error {
	e, err := s.kv.Get(ctx, clusterKey)
	if err != nil {
		return fmt.Errorf("read the cluster record: %w", err)
	}
	if e == nil {
		id, err := NewUUID()
		if err != nil {
			return err
		}
		b, err := json.Marshal(Cluster{Format: Format, ID: id, Created: now.UTC()})
		if err != nil {
			return err
		}
		if _, err := s.kv.Txn(ctx, []kv.Compare{kv.Absent(clusterKey)}, []kv.Op{kv.Put(clusterKey, b)}, nil); err != nil {
			return fmt.Errorf("store the cluster record: %w", err)
		}
		if e, err = s.kv.Get(ctx, clusterKey); err != nil {
			return fmt.Errorf("read the cluster record: %w", err)
		}
		if e == nil {
			return fmt.Errorf("cluster record: %w", ErrNotFound)
		}
	}
	s.cluster, err = decodeCluster(e)
	return err
}

func decodeCluster(e *kv.KV) (Cluster, error) {
	var c Cluster
	if err := json.Unmarshal(e.Value, &c); err != nil {
		return c, fmt.Errorf("cluster record is damaged: %w", err)
	}
	if c.Format > Format {
		return c, fmt.Errorf("cluster record has format %d, this version knows %d: %w", c.Format, Format, ErrNewerFormat)
	}
	return c, nil
}

// OldNode returns the id of the only node of a store that a version before format 8
// made; later ones keep it beside the node's data. known tells whether the store has
// records at all.
func OldNode(ctx context.Context, store kv.Store) (id string, known bool, err error) {
	e, err := store.Get(ctx, clusterKey)
	if err != nil || e == nil {
		return "", false, err
	}
	c, err := decodeCluster(e)
	return c.Node, true, err
}

// NewUUID draws a version 4 UUID in canonical form.
func NewUUID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("draw a UUID: %w", err)
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// Cluster returns the identity of the installation.
func (s *Store) Cluster() Cluster { return s.cluster }

// CreateVPool stores a new vPool; ErrExists if its name is taken, ErrNotFound if the
// remote store that it uses is gone.
func (s *Store) CreateVPool(ctx context.Context, v VPool) (VPool, error) {
	v.Format = Format
	return s.withRemote(v.Backend, func(cmps []kv.Compare) (VPool, error) { return s.vpools.insert(ctx, v, cmps) })
}

// VPool returns a vPool by id.
func (s *Store) VPool(id string) (VPool, bool) { return s.vpools.get(id) }

// FindVPool returns a vPool by id or name.
func (s *Store) FindVPool(ref string) (VPool, bool) {
	if v, ok := s.vpools.get(ref); ok {
		return v, true
	}
	return s.vpools.lookup("vpool/" + ref)
}

// VPools returns the vPools in no particular order.
func (s *Store) VPools() []VPool { return s.vpools.all(nil) }

// UpdateVPool changes a vPool through fn; an error of fn is returned and
// nothing changes.
func (s *Store) UpdateVPool(ctx context.Context, id string, fn func(*VPool) error) (VPool, error) {
	return s.vpools.update(ctx, id, func(v *VPool) error {
		v.Format = Format
		return fn(v)
	})
}

// DeleteVPool removes the record of a vPool; absent is no error.
func (s *Store) DeleteVPool(ctx context.Context, id string) error {
	return s.vpools.remove(ctx, id, nil)
}

// CreateVDisk stores a new vDisk. Its vPool must be present, and its node must not be about
// to leave: ErrConflict when that is not so, or changes meanwhile (M4, M9); ErrExists if the
// name or IQN is taken.
func (s *Store) CreateVDisk(ctx context.Context, v VDisk) (VDisk, error) {
	v.Format = Format
	pool, ok := s.vpools.get(v.VPool)
	if !ok || pool.State == StateDeleting {
		return v, fmt.Errorf("vpool %q: %w", v.VPool, ErrConflict)
	}
	conditions := []kv.Compare{kv.ModRevIs(s.vpools.path(v.VPool), pool.Rev)}
	if n, ok := s.nodes.get(v.Node); ok {
		if n.Leaving {
			return v, fmt.Errorf("node %q is about to leave the cluster: %w", n.Name, ErrConflict)
		}
		conditions = append(conditions, kv.ModRevIs(s.nodes.path(n.ID), n.Rev))
	}
	return s.vdisks.insert(ctx, v, conditions)
}

// FreshVDisks reads all vDisks: memory is then at least as new as the store was at the call.
// Whoever must know, and not only compare, calls it, and is told which ones memory did not
// have, as Follow is not any more.
func (s *Store) FreshVDisks(ctx context.Context) (changed []string, _ error) {
	l, err := s.vdisks.relist(ctx)
	return l.changed, errors.Join(err, l.bad)
}

// FreshNodes reads all nodes from the registry: for a decision that what memory lacks would
// make wrong. An error says that not all of them are known.
func (s *Store) FreshNodes(ctx context.Context) ([]Node, error) { return s.nodes.read(ctx, nil) }

// StoredVDisk reads a vDisk by id from the registry; ErrNotFound: there is none.
func (s *Store) StoredVDisk(ctx context.Context, id string) (VDisk, error) {
	return s.vdisks.stored(ctx, id)
}

// FreshVDisk returns a vDisk by id, read anew if it is not known yet: another node may have
// made it a moment ago.
func (s *Store) FreshVDisk(ctx context.Context, id string) (VDisk, bool) {
	const size = 36 // of a UUID
	v, ok := s.vdisks.get(id)
	if !ok && len(id) == size {
		s.vdisks.fetch(ctx, id)
		v, ok = s.vdisks.get(id)
	}
	return v, ok
}

// Adopt makes what an older version stored without a node that of the only node there was.
func (s *Store) Adopt(ctx context.Context, node string) error {
	for _, p := range s.vpools.all(func(v VPool) bool { return v.Node == "" && !v.Backend.Shared() }) {
		if _, err := s.UpdateVPool(ctx, p.ID, func(v *VPool) error { v.Node = node; return nil }); err != nil {
			return err
		}
	}
	for _, d := range s.vdisks.all(func(v VDisk) bool { return v.Node == "" }) {
		if _, err := s.UpdateVDisk(ctx, d.ID, func(v *VDisk) error { v.Node = node; return nil }); err != nil {
			return err
		}
	}
	for _, t := range s.tokens.all(func(t Token) bool { return t.Node && t.Of == "" }) {
		if _, err := s.tokens.update(ctx, t.ID, func(t *Token) error { t.Format, t.Of = Format, node; return nil }); err != nil {
			return err
		}
	}
	return nil
}

// VDisk returns a vDisk by id.
func (s *Store) VDisk(id string) (VDisk, bool) { return s.vdisks.get(id) }

// VDiskByName returns the vDisk of that name in a vPool.
func (s *Store) VDiskByName(vpool, name string) (VDisk, bool) {
	return s.vdisks.lookup("vdisk/" + vpool + "/" + name)
}

// VDiskByIQN returns the vDisk that owns an IQN, published or not.
func (s *Store) VDiskByIQN(iqn string) (VDisk, bool) { return s.vdisks.lookup("iqn/" + iqn) }

// VDisks returns the vDisks for which keep holds (nil: all), in no particular
// order. keep must not change or retain its argument.
func (s *Store) VDisks(keep func(VDisk) bool) []VDisk { return s.vdisks.all(keep) }

// AppendVDisks appends the vDisks for which keep holds to out, for who looks at all of them
// again and again: what they point to is not copied, and must not be changed.
func (s *Store) AppendVDisks(out []VDisk, keep func(VDisk) bool) []VDisk {
	return s.vdisks.appendShared(out, keep)
}

// VDiskName returns the name of a vDisk.
func (s *Store) VDiskName(id string) (string, bool) {
	v, ok := s.vdisks.shared(id)
	return v.Name, ok
}

// CountVDisks returns the number of vDisks of all vPools.
func (s *Store) CountVDisks() int { return s.vdisks.len() }

// UpdateVDisk changes a vDisk through fn; an error of fn is returned and
// nothing changes. ErrExists: its name, IQN or LUN belongs to another.
func (s *Store) UpdateVDisk(ctx context.Context, id string, fn func(*VDisk) error) (VDisk, error) {
	return s.vdisks.update(ctx, id, func(v *VDisk) error {
		v.Format = Format // what an older version does not know may be in it now
		return fn(v)
	})
}

// GiveVDisk is UpdateVDisk that makes a vDisk the node's named to, if cmps hold too. ErrConflict:
// one does not, or the node is about to leave or is a member no more, also when that begins
// meanwhile (M9).
func (s *Store) GiveVDisk(ctx context.Context, id, to string, cmps []kv.Compare, fn func(*VDisk) error) (VDisk, error) {
	n, ok := s.nodes.get(to)
	if !ok || n.Leaving {
		v, _ := s.vdisks.get(id)
		return v, fmt.Errorf("node %q is no member, or about to leave: %w", to, ErrConflict)
	}
	cmps = append(slices.Clone(cmps), kv.ModRevIs(s.nodes.path(to), n.Rev))
	return s.vdisks.updateIf(ctx, id, cmps, func(v *VDisk) error {
		v.Format = Format
		if err := fn(v); err != nil {
			return err
		}
		v.Node = to
		return nil
	})
}

// DeleteVDisk removes the record of a vDisk; absent is no error.
func (s *Store) DeleteVDisk(ctx context.Context, id string) error {
	return s.vdisks.remove(ctx, id, nil)
}

// CreateUser stores a new user; ErrExists if the name is taken.
func (s *Store) CreateUser(ctx context.Context, u User) (User, error) {
	u.Format = Format
	return s.users.insert(ctx, u, nil)
}

// CreateFirstUser stores the first user and consumes the set-up token whose
// hash is given, in one transaction: ErrConflict if it is not the token in
// force, so that of two callers one succeeds.
func (s *Store) CreateFirstUser(ctx context.Context, u User, setup string) (User, error) {
	u.Format = Format
	b, err := json.Marshal(Setup{Format: Format, Hash: setup})
	if err != nil {
		return u, err
	}
	return s.users.insert(ctx, u, []kv.Compare{kv.ValueIs(setupKey, b)}, kv.Delete(setupKey))
}

// User returns a user by name.
func (s *Store) User(name string) (User, bool) { return s.users.get(name) }

// Users returns the users in no particular order.
func (s *Store) Users() []User { return s.users.all(nil) }

// UserOf returns the user with an identity of a sign-in provider.
func (s *Store) UserOf(issuer, subject string) (User, bool) {
	return s.users.lookup(externalKey(issuer, subject))
}

// UpdateUser changes a user through fn.
func (s *Store) UpdateUser(ctx context.Context, name string, fn func(*User) error) (User, error) {
	return s.users.update(ctx, name, func(u *User) error {
		u.Format = Format
		return fn(u)
	})
}

// DeleteUser removes a user if check allows it; absent is no error.
func (s *Store) DeleteUser(ctx context.Context, name string, check func(User) error) error {
	return s.users.remove(ctx, name, check)
}

// SetSetup stores the hash of a set-up token, or removes it when hash is empty.
func (s *Store) SetSetup(ctx context.Context, hash string) error {
	op := kv.Delete(setupKey)
	if hash != "" {
		b, err := json.Marshal(Setup{Format: Format, Hash: hash})
		if err != nil {
			return err
		}
		op = kv.Put(setupKey, b)
	}
	if _, err := s.kv.Txn(ctx, nil, []kv.Op{op}, nil); err != nil {
		return fmt.Errorf("store the set-up token: %w", err)
	}
	return nil
}

// Setup returns the hash of the set-up token in force; empty when there is none.
func (s *Store) Setup(ctx context.Context) (string, error) {
	e, err := s.kv.Get(ctx, setupKey)
	if err != nil || e == nil {
		return "", err
	}
	var v Setup
	if err := json.Unmarshal(e.Value, &v); err != nil {
		return "", fmt.Errorf("set-up record is damaged: %w", err)
	}
	return v.Hash, nil
}

// CreateToken stores a new bearer token.
func (s *Store) CreateToken(ctx context.Context, t Token) (Token, error) {
	t.Format = Format
	return s.tokens.insert(ctx, t, nil)
}

// TokenByHash finds a bearer token by the hex sha-256 of it.
func (s *Store) TokenByHash(hash string) (Token, bool) { return s.tokens.lookup("token/" + hash) }

// Token returns a bearer token's record by id.
func (s *Store) Token(id string) (Token, bool) { return s.tokens.get(id) }

// Tokens returns the bearer tokens' records in no particular order.
func (s *Store) Tokens() []Token { return s.tokens.all(nil) }

// UpdateToken changes a bearer token's record through fn.
func (s *Store) UpdateToken(ctx context.Context, id string, fn func(*Token) error) (Token, error) {
	return s.tokens.update(ctx, id, fn)
}

// DeleteToken removes a bearer token; absent is no error.
func (s *Store) DeleteToken(ctx context.Context, id string) error {
	return s.tokens.remove(ctx, id, nil)
}

// CreateSession stores a browser session.
func (s *Store) CreateSession(ctx context.Context, v Session) (Session, error) {
	v.Format = Format
	return s.sessions.insert(ctx, v, nil)
}

// Session finds a browser session by the hex sha-256 of its cookie.
func (s *Store) Session(hash string) (Session, bool) { return s.sessions.get(hash) }

// Sessions returns the browser sessions in no particular order.
func (s *Store) Sessions() []Session { return s.sessions.all(nil) }

// UpdateSession changes a browser session through fn.
func (s *Store) UpdateSession(ctx context.Context, hash string, fn func(*Session) error) (Session, error) {
	return s.sessions.update(ctx, hash, fn)
}

// DeleteSession ends a browser session; absent is no error.
func (s *Store) DeleteSession(ctx context.Context, hash string) error {
	return s.sessions.remove(ctx, hash, nil)
}

// CreateIdempotency remembers the answer to a create; ErrExists if one is
// remembered under that hash.
func (s *Store) CreateIdempotency(ctx context.Context, v Idempotency) (Idempotency, error) {
	v.Format = Format
	return s.idem.insert(ctx, v, nil)
}

// Idempotency finds a remembered answer.
func (s *Store) Idempotency(hash string) (Idempotency, bool) { return s.idem.get(hash) }

// Idempotencies returns the remembered answers in no particular order.
func (s *Store) Idempotencies() []Idempotency { return s.idem.all(nil) }

// DeleteIdempotency forgets an answer; absent is no error.
func (s *Store) DeleteIdempotency(ctx context.Context, hash string) error {
	return s.idem.remove(ctx, hash, nil)
}
