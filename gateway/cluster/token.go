package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/internal/kv"
)

// Bounds of tokens.
const (
	// TokenLife is how long a token holds when nobody says otherwise, TokenLifeMost at most:
	// it is for a join that is about to be made.
	TokenLife     = time.Hour
	TokenLifeMost = 7 * 24 * time.Hour
	// tokensMost is how many may wait to be used.
	tokensMost = 64
	// maxTokenText bounds a token's text, in bytes.
	maxTokenText = 4096
	// maxTokenURLs is how many nodes a token names.
	maxTokenURLs = 8
	maxTokenID   = 64
)

const (
	tokenPrefix = "cluster/token/"
	tokenText   = "ovgate-join."
	tokenFormat = 1
)

// Refusals of a token. Whoever does not know the secret is told no more than the first.
var (
	ErrTokenUnknown = errors.New("the join token is not known: it was mistyped, is of another cluster, was revoked, or ended long ago")
	ErrTokenUsed    = errors.New("the join token was used, by another node or one that was removed since")
	ErrTokenExpired = errors.New("the join token has expired")
	ErrTokensMany   = fmt.Errorf("%d tokens wait to be used: wait until they expire", tokensMost)
)

// Token lets one node join. Its text is a secret.
type Token struct {
	ID      string   `json:"i"`
	Secret  string   `json:"s"`
	Cluster string   `json:"c"` // UUID
	CA      string   `json:"f"` // hex sha-256 of the authority's certificate: whom to trust
	URLs    []string `json:"u"` // of nodes to ask
}

// String is the token as it is handed over.
func (t Token) String() string {
	b, err := json.Marshal(t)
	if err != nil {
		return ""
	}
	return tokenText + base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken reads a token's text.
func ParseToken(s string) (Token, error) {
	var t Token
	bad := errors.New("this is no token for a join: it begins with " + tokenText + ", as ovgate cluster token prints it")
	body, ok := strings.CutPrefix(strings.TrimSpace(s), tokenText)
	if !ok || len(s) > maxTokenText {
		return t, bad
	}
	b, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		return t, bad
	}
	if err := json.Unmarshal(b, &t); err != nil || t.ID == "" || t.Secret == "" || !uuid.MatchString(t.Cluster) || len(t.CA) != 2*sha256.Size || len(t.URLs) == 0 || len(t.URLs) > maxTokenURLs {
		return Token{}, bad
	}
	return t, nil
}

// tokenRecord is what the registry keeps: not the secret.
type tokenRecord struct {
	Format  int       `json:"format"`
	Hash    string    `json:"hash"` // hex sha-256 of the secret
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// Used is the node that joined with it.
	Used string `json:"used,omitempty"`
}

// NewToken makes a token that holds for life, and forgets those that have expired.
func NewToken(ctx context.Context, store kv.Store, a *Authority, urls []string, life time.Duration, now time.Time) (Token, error) {
	if life <= 0 || life > TokenLifeMost {
		return Token{}, fmt.Errorf("a token holds for %v: use up to %v", life, TokenLifeMost)
	}
	if len(urls) == 0 || len(urls) > maxTokenURLs {
		return Token{}, fmt.Errorf("a token names %d nodes: name 1 to %d", len(urls), maxTokenURLs)
	}
	if err := forgetTokens(ctx, store, now); err != nil {
		return Token{}, err
	}
	sum := sha256.Sum256(a.cert.Raw)
	t := Token{ID: rand.Text(), Secret: rand.Text(), Cluster: a.cluster, CA: hex.EncodeToString(sum[:]), URLs: urls}
	if len(t.String()) > maxTokenText {
		return Token{}, errors.New("a token with these addresses is too long: name fewer nodes")
	}
	b, err := json.Marshal(tokenRecord{Format: tokenFormat, Hash: hash(t.Secret), Created: now.UTC(), Expires: now.Add(life).UTC()})
	if err != nil {
		return Token{}, err
	}
	if _, err := store.Txn(ctx, []kv.Compare{kv.Absent(tokenPrefix + t.ID)}, []kv.Op{kv.Put(tokenPrefix+t.ID, b)}, nil); err != nil {
		return Token{}, fmt.Errorf("store a token: %w", err)
	}
	return t, nil
}

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// tokenKept is how long a token that has expired is known, so that its user is told why.
const tokenKept = 24 * time.Hour

// forgetTokens deletes what expired a day ago, and refuses when too many are left that may
// be used.
func forgetTokens(ctx context.Context, store kv.Store, now time.Time) error {
	all, _, err := store.Range(ctx, tokenPrefix, "", 0)
	if err != nil {
		return fmt.Errorf("read tokens: %w", err)
	}
	waiting := 0
	for _, e := range all {
		var r tokenRecord
		damaged := json.Unmarshal(e.Value, &r) != nil // nobody can use it
		if damaged || now.Sub(r.Expires) > tokenKept {
			if _, err := store.Txn(ctx, []kv.Compare{kv.ModRevIs(string(e.Key), e.ModRev)}, []kv.Op{kv.Delete(string(e.Key))}, nil); err != nil {
				return fmt.Errorf("forget a token: %w", err)
			}
			continue
		}
		if r.Used == "" && now.Before(r.Expires) {
			waiting++
		}
	}
	if waiting >= tokensMost {
		return ErrTokensMany
	}
	return nil
}

// checkToken returns the record of a token that a node may use. The node that used it
// already may again, until it expires: an answer may have been lost.
func checkToken(ctx context.Context, store kv.Store, id, secret, node string, now time.Time) (tokenRecord, int64, error) {
	var r tokenRecord
	if id == "" || len(id) > maxTokenID || len(secret) > maxTokenText || strings.Contains(id, "/") {
		return r, 0, ErrTokenUnknown
	}
	e, err := store.Get(ctx, tokenPrefix+id)
	if err != nil {
		return r, 0, fmt.Errorf("read a token: %w", err)
	}
	if e == nil || json.Unmarshal(e.Value, &r) != nil || r.Format != tokenFormat || subtle.ConstantTimeCompare([]byte(r.Hash), []byte(hash(secret))) != 1 {
		return r, 0, ErrTokenUnknown
	}
	switch {
	case r.Used != "" && r.Used != node:
		return r, 0, ErrTokenUsed
	case !now.Before(r.Expires):
		return r, 0, ErrTokenExpired
	}
	return r, e.ModRev, nil
}

// TokenInfo is a token without its secret.
type TokenInfo struct {
	ID      string
	Created time.Time
	Expires time.Time
	Used    string // the node that joined with it; empty: it waits to be used
}

// Tokens returns the tokens that the registry knows, those that expired lately too, in order
// of their expiry.
func Tokens(ctx context.Context, store kv.Store) ([]TokenInfo, error) {
	all, _, err := store.Range(ctx, tokenPrefix, "", 0)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	var out []TokenInfo
	for _, e := range all {
		var r tokenRecord
		if json.Unmarshal(e.Value, &r) == nil {
			out = append(out, TokenInfo{strings.TrimPrefix(string(e.Key), tokenPrefix), r.Created, r.Expires, r.Used})
		}
	}
	slices.SortFunc(out, func(a, b TokenInfo) int {
		return cmp.Or(a.Expires.Compare(b.Expires), strings.Compare(a.ID, b.ID))
	})
	return out, nil
}

// RevokeToken makes a token useless; an unknown one is no error.
func RevokeToken(ctx context.Context, store kv.Store, id string) error {
	if id == "" || strings.Contains(id, "/") || len(id) > maxTokenID {
		return nil
	}
	if _, err := store.Txn(ctx, nil, []kv.Op{kv.Delete(tokenPrefix + id)}, nil); err != nil {
		return fmt.Errorf("revoke a token: %w", err)
	}
	return nil
}
