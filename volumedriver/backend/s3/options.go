package s3

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// Options describe where a store is and how it is spoken to. Bucket is required, and
// either IAM or both keys.
type Options struct {
	// Endpoint is the URL of the store, https://host[:port]; empty: Amazon's.
	Endpoint string
	// AllowHTTP permits http to hosts other than this one: what is stored, and the
	// right to store it for some minutes, is then open to the network.
	AllowHTTP bool
	// Region of the bucket; empty: Found's, else asked for once.
	Region string
	Bucket string
	// Prefix is where in the bucket, one or more segments of an object name, at most
	// MaxPrefixBytes; empty: the whole bucket.
	Prefix string
	// Addressing is AddressAuto (also if empty), AddressPath or AddressVirtual.
	Addressing string

	AccessKey, SecretKey string
	// SessionToken belongs to temporary keys; else empty.
	SessionToken string
	// IAM takes keys from AWS_* of the environment or from the role of the machine,
	// and renews them.
	IAM bool

	Transport remote.TransportOptions
	// Unsigned leaves bodies out of the signature, which saves a SHA-256 of each and
	// is safe with TLS.
	Unsigned bool
	// SSE asks the store to encrypt: "", SSES3 or SSEKMS, that with KMSKey, or the
	// account's own key if it is empty.
	SSE, KMSKey string
	// Found is what Detect said of this store; the zero value works with every one.
	Found Found

	// metadata is the URL of the service that tells the machine's role; empty: where
	// machines of Amazon have it.
	metadata string

	// Clock is for Retry-After; nil: the machine's.
	Clock clock.Clock
	// Rand makes the names of Detect's objects; nil: crypto/rand.
	Rand io.Reader
}

// How the bucket stands in the URL: as the store is known to want it, in the path, or
// in the host's name.
const (
	AddressAuto    = "auto"
	AddressPath    = "path"
	AddressVirtual = "virtual"
)

// Values of Options.SSE.
const (
	SSES3  = "AES256"
	SSEKMS = "aws:kms"
)

// MaxPrefixBytes leaves room for the longest name in a key of 1024 bytes.
const MaxPrefixBytes = 200

// amazon is where requests go without an endpoint.
const amazon = "https://s3.amazonaws.com"

// endpoint checks and takes apart the URL.
func (o *Options) endpoint() (host string, secure bool, err error) {
	text := o.Endpoint
	if text == "" {
		text = amazon
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", false, fmt.Errorf("endpoint %q is not a URL such as https://s3.example.org", text)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return "", false, fmt.Errorf("endpoint %s: only scheme, host and port belong into it", u.Redacted())
	}
	if u.Scheme == "http" && !o.AllowHTTP && !loopback(u.Hostname()) {
		return "", false, fmt.Errorf("endpoint %s: use https, or allow plain http on purpose", text)
	}
	return u.Host, u.Scheme == "https", nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// validate checks what needs no connection, and returns the bucket lookup and the
// encryption for the library.
func (o *Options) validate() (lookup minio.BucketLookupType, sse encrypt.ServerSide, err error) {
	switch o.Addressing {
	case "", AddressAuto:
		lookup = minio.BucketLookupAuto
	case AddressPath:
		lookup = minio.BucketLookupPath
	case AddressVirtual:
		lookup = minio.BucketLookupDNS
	default:
		return 0, nil, fmt.Errorf("addressing %q: use %s, %s or %s", o.Addressing, AddressAuto, AddressPath, AddressVirtual)
	}
	switch {
	case o.SSE == "" && o.KMSKey != "":
		return 0, nil, fmt.Errorf("a KMS key is given, but encryption is not %s", SSEKMS)
	case o.SSE == "":
	case o.SSE == SSES3 && o.KMSKey == "":
		sse = encrypt.NewSSE()
	case o.SSE == SSEKMS:
		if sse, err = encrypt.NewSSEKMS(o.KMSKey, nil); err != nil {
			return 0, nil, fmt.Errorf("KMS key: %w", err)
		}
	default:
		return 0, nil, fmt.Errorf("encryption %q: use %s, or %s with or without a key, or leave it empty", o.SSE, SSES3, SSEKMS)
	}
	if o.Bucket == "" || strings.Contains(o.Bucket, "/") {
		return 0, nil, fmt.Errorf("bucket %q is not a bucket's name", o.Bucket)
	}
	if o.Prefix != "" {
		if err := backend.ValidName(o.Prefix); err != nil {
			return 0, nil, fmt.Errorf("prefix: %w", err)
		}
		if len(o.Prefix) > MaxPrefixBytes {
			return 0, nil, fmt.Errorf("prefix: longer than %d bytes", MaxPrefixBytes)
		}
	}
	keys := o.AccessKey != "" || o.SecretKey != "" || o.SessionToken != ""
	switch {
	case o.IAM && keys:
		return 0, nil, errors.New("give keys, or take them from the environment or the machine's role, not both")
	case !o.IAM && (o.AccessKey == "" || o.SecretKey == ""):
		return 0, nil, errors.New("access key and secret key are missing")
	}
	return lookup, sse, nil
}

// credentials returns where the library takes keys from.
func (o *Options) credentials() *credentials.Credentials {
	if o.IAM {
		return credentials.New(&role{credentials.Chain{Providers: []credentials.Provider{&credentials.EnvAWS{}, &credentials.IAM{Endpoint: o.metadata}}}})
	}
	return credentials.NewStaticV4(o.AccessKey, o.SecretKey, o.SessionToken)
}

// role is a chain that fails when it has no keys, where the library would go on without
// a signature.
type role struct{ credentials.Chain }

var errNoRole = errors.New("there are no keys in the environment, and this machine has no role")

// RetrieveWithCredContext implements credentials.Provider.
func (r *role) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	v, err := r.Chain.RetrieveWithCredContext(cc)
	if err == nil && v.AccessKeyID == "" {
		err = errNoRole
	}
	return v, err
}
