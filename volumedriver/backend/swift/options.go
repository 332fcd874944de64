package swift

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// MaxShards bounds Options.Shards: a list asks each container.
const MaxShards = 256

// Bounds of names, in bytes, which leave room for what is added to them: Swift's
// own are 256 for a container and 1024 for an object.
const (
	maxContainerBytes = 200
	maxPrefixBytes    = 200
)

// ApplicationCredential stands for a user and a project of Keystone v3, with rights
// of its own. By Name it needs Options.User and the user's domain.
type ApplicationCredential struct {
	ID, Name, Secret string
}

// Options say which Swift, as whom, and where in it.
type Options struct {
	// AuthURL is where to log in: "https://keystone.example.org:5000/v3", or
	// "https://swift.example.org/auth/v1.0" for TempAuth and its kin.
	AuthURL string
	// AuthVersion is 1, 2 or 3; 0: as the path of AuthURL names it, else 3.
	AuthVersion int
	// User and Key: a name ("account:user" for version 1) and its password.
	User, Key string
	// Domain of the user, by name or by ID; both empty: "Default". Version 3.
	Domain, DomainID string
	// Project (tenant), by name or by ID. Versions 2 and 3.
	Project, ProjectID string
	// ProjectDomain, by name or by ID; both empty: the user's. Version 3.
	ProjectDomain, ProjectDomainID string
	// ApplicationCredential logs in instead of User and Key. Version 3.
	ApplicationCredential ApplicationCredential
	// TrustID is a trust of Keystone to act under. Version 3.
	TrustID string
	// Region of the catalog; empty: the first.
	Region string
	// EndpointType is public (default), internal or admin. Versions 2 and 3.
	EndpointType string

	// Container is the name, or what the names begin with if Shards > 1: 1 to 200 of
	// A-Z, a-z, 0-9, ".", "_" and "-".
	Container string
	// Shards is how many containers the objects spread over, 1 to MaxShards; 0: 1. It
	// never changes for a store that holds objects.
	Shards int
	// Policy is the storage policy of containers that are made; empty: the
	// cluster's default. A container that has another is an error.
	Policy string
	// Prefix begins the names of all objects, at most 200 of a-z, 0-9, ".", "_", "-"
	// and "/".
	Prefix string
	// SegmentBytes stores larger objects as static large objects with segments of
	// this size, at most the largest object of the cluster; 0: larger objects than
	// the cluster takes are refused. Where it is not 0, a delete looks at what it
	// deletes first; do not set it back to 0 while large objects are there.
	SegmentBytes int64
	// Found is what Detect returned; nil: Open asks the cluster.
	Found *Found

	Transport remote.TransportOptions
	Clock     clock.Clock // nil: the machine's
	Rand      io.Reader   // names scratch objects; nil: crypto/rand
}

// check fills in what is left out, and returns what is wrong.
func (o *Options) check() error {
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Shards == 0 {
		o.Shards = 1
	}
	if o.EndpointType == "" {
		o.EndpointType = "public"
	}
	switch o.EndpointType {
	case "public", "internal", "admin":
	default:
		return fmt.Errorf("endpoint type %q: use public, internal or admin", o.EndpointType)
	}
	if err := o.checkPlace(); err != nil {
		return err
	}
	if err := o.checkURL(); err != nil {
		return err
	}
	return o.checkUser()
}

func (o *Options) checkPlace() error {
	if o.Container == "." || o.Container == ".." || !madeOf(o.Container, 1, maxContainerBytes, func(c byte) bool {
		return nameByte(c) || 'A' <= c && c <= 'Z'
	}) {
		return fmt.Errorf("container %.80q: use 1 to %d of A-Z, a-z, 0-9, '.', '_' and '-'", o.Container, maxContainerBytes)
	}
	if o.Shards < 1 || o.Shards > MaxShards {
		return fmt.Errorf("%d shards: use 1 to %d", o.Shards, MaxShards)
	}
	if o.SegmentBytes < 0 {
		return fmt.Errorf("segments of %d bytes: use 0 or more", o.SegmentBytes)
	}
	if o.Prefix != "" {
		if err := backend.ValidName(strings.TrimSuffix(o.Prefix, "/")); err != nil || len(o.Prefix) > maxPrefixBytes {
			return fmt.Errorf("prefix %.80q: use at most %d of a-z, 0-9, '.', '_', '-' and '/'", o.Prefix, maxPrefixBytes)
		}
	}
	if !madeOf(o.Policy, 0, maxContainerBytes, func(c byte) bool { return ' ' <= c && c <= '~' }) {
		return fmt.Errorf("storage policy %.80q: not the name of one", o.Policy)
	}
	return nil
}

func (o *Options) checkURL() error {
	u, err := url.Parse(o.AuthURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("the authentication URL is none, such as https://keystone.example.org:5000/v3")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("the authentication URL holds more than a host and a path: give user and key apart")
	}
	version := 0
	for seg := range strings.SplitSeq(u.Path, "/") {
		if len(seg) >= 2 && seg[0] == 'v' && '1' <= seg[1] && seg[1] <= '3' {
			version = int(seg[1] - '0')
		}
	}
	switch {
	case o.AuthVersion < 0 || o.AuthVersion > 3:
		return fmt.Errorf("authentication version %d: use 1, 2 or 3", o.AuthVersion)
	case o.AuthVersion == 0 && version == 0:
		o.AuthVersion = 3
	case o.AuthVersion == 0:
		o.AuthVersion = version
	}
	if o.AuthVersion == 3 && version == 0 {
		o.AuthURL = u.JoinPath("v3").String()
	}
	return nil
}

func (o *Options) checkUser() error {
	app := o.ApplicationCredential
	switch {
	case app != (ApplicationCredential{}):
		if o.AuthVersion != 3 {
			return errors.New("application credentials need authentication version 3")
		}
		if app.Secret == "" || app.ID == "" && app.Name == "" {
			return errors.New("an application credential is an ID, or a name with its user, and a secret")
		}
		if app.ID == "" && o.User == "" {
			return errors.New("an application credential by name needs its user")
		}
	case o.User == "" || o.Key == "":
		return errors.New("user or key is empty")
	case o.AuthVersion == 3 && o.Project == "" && o.ProjectID == "" && o.TrustID == "":
		return errors.New("the project is empty: Swift accounts are those of projects")
	}
	if o.AuthVersion == 3 && o.Domain == "" && o.DomainID == "" {
		o.Domain = "Default"
	}
	return nil
}

// secrets are what must not show in any text.
func (o *Options) secrets() []string { return []string{o.Key, o.ApplicationCredential.Secret} }

func madeOf(s string, least, most int, allowed func(byte) bool) bool {
	for i := range len(s) {
		if !allowed(s[i]) {
			return false
		}
	}
	return len(s) >= least && len(s) <= most
}

// nameByte tells whether c is a byte of an object name other than "/".
func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}
