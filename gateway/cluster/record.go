package cluster

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

// recordFormat is the newest format of the cluster's record that this code knows.
const recordFormat = 1

const recordKey = "cluster/record"

// nameText is what a cluster may be called.
var nameText = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Sealer encrypts secrets for the registry; an id binds them to their place.
type Sealer interface {
	Seal(id, plain string) ([]byte, error)
	Open(id string, sealed []byte) (string, error)
}

// Record is the cluster as the registry keeps it. Whoever reads it without the sealing key
// learns no secret.
type Record struct {
	Format    int       `json:"format"`
	ID        string    `json:"id"` // UUID
	Name      string    `json:"name"`
	CA        string    `json:"ca"`        // the authority's certificate, PEM
	CAKey     []byte    `json:"caKey"`     // sealed, PEM
	GossipKey []byte    `json:"gossipKey"` // sealed, GossipKeySize bytes
	Created   time.Time `json:"created"`
}

// CheckName refuses what no cluster may be called.
func CheckName(s string) error {
	if !nameText.MatchString(s) {
		return fmt.Errorf("%.100q is no name of a cluster: use 1 to 63 letters, digits, dots, hyphens and underscores, and begin with a letter or digit", s)
	}
	return nil
}

// NewRecord makes the record of a cluster whose certificates ca signs, and draws its gossip
// key.
func NewRecord(id, called string, ca tls.Certificate, seal Sealer, now time.Time) (Record, error) {
	r := Record{Format: recordFormat, ID: id, Name: called, Created: now.UTC()}
	a, err := NewAuthority(id, ca)
	if err := errors.Join(err, CheckName(called)); err != nil {
		return r, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(ca.PrivateKey)
	if err != nil {
		return r, err
	}
	r.CA = string(a.PEM())
	if r.CAKey, err = seal.Seal(r.place("ca"), string(encodePEM("PRIVATE KEY", pkcs8))); err != nil {
		return r, err
	}
	key := make([]byte, GossipKeySize)
	if _, err := rand.Read(key); err != nil {
		return r, fmt.Errorf("draw a gossip key: %w", err)
	}
	r.GossipKey, err = seal.Seal(r.place("gossip"), string(key))
	return r, err
}

// place is what a sealed secret is bound to.
func (r Record) place(secret string) string { return "cluster/" + r.ID + "/" + secret }

// LoadRecord returns the cluster's record; nil: there is no cluster.
func LoadRecord(ctx context.Context, store kv.Store) (*Record, error) {
	e, err := store.Get(ctx, recordKey)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's record: %w", err)
	}
	if e == nil {
		return nil, nil
	}
	var r Record
	err = json.Unmarshal(e.Value, &r)
	switch {
	case err == nil && r.Format > recordFormat:
		return nil, fmt.Errorf("record %s has format %d, this version knows %d: upgrade ovgate", recordKey, r.Format, recordFormat)
	case err != nil || r.Format < 1 || !uuid.MatchString(r.ID) || !nameText.MatchString(r.Name):
		return nil, fmt.Errorf("record %s is damaged: bring the registry back from a copy", recordKey)
	}
	return &r, nil
}

// CreateRecord stores the cluster's record unless there is one, and returns the one that is
// stored.
func CreateRecord(ctx context.Context, store kv.Store, r Record) (Record, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	_, err = store.Txn(ctx, []kv.Compare{kv.Absent(recordKey)}, []kv.Op{kv.Put(recordKey, b)}, nil)
	if err != nil {
		return r, fmt.Errorf("store the cluster's record: %w", err)
	}
	is, err := LoadRecord(ctx, store)
	if err == nil && is == nil {
		err = errors.New("the cluster's record is gone again: something else writes to the registry")
	}
	if err != nil {
		return r, err
	}
	return *is, nil
}

// Authority opens the cluster's authority.
func (r Record) Authority(seal Sealer) (*Authority, error) {
	key, err := seal.Open(r.place("ca"), r.CAKey)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: its authority: %w: bring seal.key back from a copy, or from another node of the cluster", r.Name, err)
	}
	pair, err := tls.X509KeyPair([]byte(r.CA), []byte(key))
	if err != nil {
		return nil, fmt.Errorf("cluster %s: its authority: %w", r.Name, err)
	}
	return NewAuthority(r.ID, pair)
}

// Key opens the cluster's gossip key.
func (r Record) Key(seal Sealer) ([]byte, error) {
	key, err := seal.Open(r.place("gossip"), r.GossipKey)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: its gossip key: %w: bring seal.key back from a copy, or from another node of the cluster", r.Name, err)
	}
	return []byte(key), nil
}
