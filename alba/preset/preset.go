// Package preset says how Alba stores objects: an ordered list of policies and
// what is done to the bytes. Namespaces name a preset; the manager keeps presets,
// the client follows them, maintenance brings objects back to the best policy.
//
// # Policies
//
// A policy (k,m,c,x) cuts a chunk into k data fragments and computes m parity
// fragments. A chunk is acknowledged when c of the k+m are durable, and at most
// x of them are in one group: on a node or, where the preset spreads by domain, in
// what fails together, such as a rack.
//
//	P1  1 <= k <= c <= k+m. vPools demand c >= k+1: what was acknowledged
//	    survives the loss of any one device at the next instant.
//	P2  The first policy of the list whose c devices can be found is used, with as
//	    many fragments as there are places, k+m at most. No policy can be met:
//	    the backend is read-only, ErrNoPolicy.
//	P3  Any c-k devices may be lost right after the acknowledgement, any m once
//	    all k+m fragments are there; a group, too, while it holds no more of them.
//	P4  Compression, encryption, spread and the name of a preset never change; policies
//	    and the sizes of fragments and pieces do, for objects written from then on.
//	P5  Nodes of which nobody said in what domain they are may be in any, so together
//	    they are one: no more than x fragments are on all of them.
package preset

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/openvstorage/ovgate/alba/fragment"
)

// Bounds of a preset.
const (
	// MaxK and MaxM bound a policy: wider codes gain little space and make every
	// repair read more devices.
	MaxK = fragment.MaxData
	MaxM = fragment.MaxParity
	// MaxPolicies bounds the list of a preset.
	MaxPolicies = 16
	// MinFragmentBytes to MaxFragmentBytes is the range of a fragment's size. A
	// fragment below one piece (64 KiB) would make manifests larger than it saves.
	MinFragmentBytes = 64 << 10
	MaxFragmentBytes = 64 << 20
	// DefaultFragmentBytes makes one chunk of a 16 MiB SCO with k = 4.
	DefaultFragmentBytes = 4 << 20
	// DefaultPieceBytes makes random reads of 4 KiB nearly as fast as the smallest
	// pieces do, with a quarter of their manifests: a TiB of SCOs has 0.6 GB of them.
	DefaultPieceBytes = 16 << 10
)

var (
	// ErrInvalid: the preset or policy breaks a rule.
	ErrInvalid = errors.New("preset: invalid")
	// ErrNoPolicy: no policy of the preset can be met by the devices there are.
	ErrNoPolicy = errors.New("preset: no policy can be met")
)

// Policy is (k,m,c,x); see the package comment. Its text form is "k,m,c,x".
type Policy struct {
	K, M, C, X int
}

// N returns the number of fragments of a complete chunk.
func (p Policy) N() int { return p.K + p.M }

func (p Policy) String() string { return fmt.Sprintf("(%d,%d,%d,%d)", p.K, p.M, p.C, p.X) }

// ParsePolicy reads "k,m,c,x", with or without parentheses.
func ParsePolicy(s string) (Policy, error) {
	t := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(s), "("), ")")
	parts := strings.Split(t, ",")
	var v [4]int
	if len(parts) != len(v) {
		return Policy{}, fmt.Errorf("%w policy %.40q: write k,m,c,x, for example 4,2,5,2", ErrInvalid, s)
	}
	for i, p := range parts {
		n, err := strconv.Atoi(strings.TrimSpace(p))
		if err != nil {
			return Policy{}, fmt.Errorf("%w policy %.40q: %.20q is not a number", ErrInvalid, s, p)
		}
		v[i] = n
	}
	p := Policy{v[0], v[1], v[2], v[3]}
	return p, p.Validate()
}

// Validate checks P1 and the bounds.
func (p Policy) Validate() error {
	switch {
	case p.K < 1 || p.K > MaxK:
		return fmt.Errorf("%w policy %v: k is the number of data fragments, 1 to %d", ErrInvalid, p, MaxK)
	case p.M < 0 || p.M > MaxM:
		return fmt.Errorf("%w policy %v: m is the number of parity fragments, 0 to %d", ErrInvalid, p, MaxM)
	case p.C < p.K || p.C > p.N():
		return fmt.Errorf("%w policy %v: c, the fragments to wait for, is k to k+m: %d to %d", ErrInvalid, p, p.K, p.N())
	case p.X < 1:
		return fmt.Errorf("%w policy %v: x, the fragments on one node, is at least 1", ErrInvalid, p)
	}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (p Policy) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d,%d,%d,%d", p.K, p.M, p.C, p.X), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Policy) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePolicy(string(b))
	return err
}

// Places returns how many fragments of a chunk the devices can take when at most
// x are in one group; groups holds the usable devices of each.
func (p Policy) Places(groups []int) int {
	n := 0
	for _, d := range groups {
		n += min(d, p.X)
	}
	return min(n, p.N())
}

// Spread says what x of the policies counts fragments by.
type Spread string

// Spreads.
const (
	ByNode   Spread = "" // what presets of before there was a choice do
	ByDomain Spread = "domain"
)

// ParseSpread reads "node" or "domain".
func ParseSpread(s string) (Spread, error) {
	switch s {
	case ByNode.String():
		return ByNode, nil
	case ByDomain.String():
		return ByDomain, nil
	}
	return "", fmt.Errorf("%w spread %.40q: use node or domain", ErrInvalid, s)
}

// String returns what a group is called.
func (s Spread) String() string {
	if s == ByNode {
		return "node"
	}
	return string(s)
}

// Group returns what x counts a device by that is on a node in a domain; an empty domain
// is not known (P5). Whoever places fragments, or says what survives, asks this.
func (s Spread) Group(node, domain string) string {
	if s == ByDomain {
		return domain
	}
	return node
}

// Preset is how the objects of a namespace are stored.
type Preset struct {
	Name          string   `json:"name"`
	Policies      []Policy `json:"policies"`
	FragmentBytes int      `json:"fragmentBytes"` // at most, before compression
	// PieceBytes is what a read moves, decompresses and verifies at least: 4, 16 or 64
	// KiB of data; 0 in presets of before there was a choice, which is 64 KiB.
	PieceBytes  int         `json:"pieceBytes,omitempty"`
	Compression Compression `json:"compression"`
	// KeyID names the data key of an encrypted preset: 32 hexadecimal digits;
	// empty without encryption.
	KeyID string `json:"keyId,omitempty"`
	// OSDs are the devices to use, by number; empty: all that are claimed.
	OSDs []uint32 `json:"osds,omitempty"`
	// Default tells that namespaces without a choice get this preset.
	Default bool `json:"default,omitempty"`
	// Automatic tells that the policies follow the devices that there are.
	Automatic bool `json:"automatic,omitempty"`
	// Spread says what x of the policies counts by.
	Spread Spread `json:"spread,omitempty"`
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][-_A-Za-z0-9]{0,62}$`)

// Validate checks a preset.
func (p Preset) Validate() error {
	if !validName.MatchString(p.Name) {
		return fmt.Errorf("%w preset name %.80q: use letters, digits, '-' and '_', at most 63, beginning with a letter or digit", ErrInvalid, p.Name)
	}
	if len(p.Policies) == 0 || len(p.Policies) > MaxPolicies {
		return fmt.Errorf("%w preset %s: it has %d policies: give 1 to %d", ErrInvalid, p.Name, len(p.Policies), MaxPolicies)
	}
	for i, q := range p.Policies {
		if err := q.Validate(); err != nil {
			return fmt.Errorf("preset %s: %w", p.Name, err)
		}
		if slices.Contains(p.Policies[:i], q) {
			return fmt.Errorf("%w preset %s: policy %v is there twice", ErrInvalid, p.Name, q)
		}
	}
	if p.FragmentBytes < MinFragmentBytes || p.FragmentBytes > MaxFragmentBytes || p.FragmentBytes%fragment.PieceBytes != 0 {
		return fmt.Errorf("%w preset %s: fragment size %d: use a multiple of %d from %d to %d bytes",
			ErrInvalid, p.Name, p.FragmentBytes, fragment.PieceBytes, MinFragmentBytes, MaxFragmentBytes)
	}
	if _, err := p.PieceSize(); err != nil {
		return fmt.Errorf("%w preset %s: %w", ErrInvalid, p.Name, err)
	}
	if _, err := ParseSpread(p.Spread.String()); err != nil {
		return fmt.Errorf("preset %s: %w", p.Name, err)
	}
	return nil
}

// PieceSize returns the size of the pieces of new objects.
func (p Preset) PieceSize() (fragment.PieceSize, error) {
	if p.PieceBytes == 0 {
		return fragment.Piece64K, nil
	}
	return fragment.ParsePieceSize(int64(p.PieceBytes))
}

// Redundant reports whether everything acknowledged survives the loss of any
// one device, as vPools demand (P1), and names the policy at fault.
func (p Preset) Redundant() error {
	for _, q := range p.Policies {
		if q.C < q.K+1 {
			return fmt.Errorf("%w preset %s for a vPool: policy %v acknowledges at c = k = %d, so the loss of one device can lose acknowledged data: use c >= k+1",
				ErrInvalid, p.Name, q, q.K)
		}
	}
	return nil
}

// Choose returns the first policy that the usable devices of each group can meet,
// and how many fragments they take (P2).
func (p Preset) Choose(groups []int) (Policy, int, error) {
	for _, q := range p.Policies {
		if n := q.Places(groups); n >= q.C {
			return q, n, nil
		}
	}
	total := 0
	for _, d := range groups {
		total += d
	}
	remedy := "bring devices back or add some, or add a smaller policy"
	if p.Spread == ByDomain {
		remedy += "; nodes whose configuration names no domain count as one, so name those of all"
	}
	return Policy{}, 0, fmt.Errorf("%w: preset %s on %s in %s: %s", ErrNoPolicy, p.Name, plural(total, "usable device"), plural(len(groups), p.Spread.String()), remedy)
}

// Rank returns the place of a policy in the preset's list, 0 being the best, and
// len(Policies) for one that is not in it.
func (p Preset) Rank(q Policy) int {
	if i := slices.Index(p.Policies, q); i >= 0 {
		return i
	}
	return len(p.Policies)
}

// Encode returns the record of a preset.
func (p Preset) Encode() ([]byte, error) { return json.Marshal(p) }

// Decode reads what Encode wrote.
func Decode(b []byte) (Preset, error) {
	var p Preset
	err := json.Unmarshal(b, &p)
	return p, err
}
