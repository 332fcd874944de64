package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/openvstorage/ovgate/gateway/backup"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
	"github.com/openvstorage/ovgate/volumedriver/backend/s3"
	"github.com/openvstorage/ovgate/volumedriver/backend/swift"
)

// placeHelp says where backups may be; who signs in to a store is in the environment, as for
// other programs of that store.
const placeHelp = "A place is a directory on this machine, s3://BUCKET/PREFIX or swift://CONTAINER/PREFIX; a store is reached from here.\n" +
	"S3 takes AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL and AWS_CA_BUNDLE\n" +
	"from the environment, Swift OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME, OS_USER_DOMAIN_NAME,\n" +
	"OS_PROJECT_DOMAIN_NAME, OS_APPLICATION_CREDENTIAL_ID, OS_APPLICATION_CREDENTIAL_SECRET, OS_REGION_NAME and OS_CACERT,\n" +
	"or ST_AUTH, ST_USER and ST_KEY."

// backupStore is a place of backups.
type backupStore struct {
	backup.Store
	lock io.Closer // of a directory; nil
}

func (s *backupStore) close() error {
	err := s.S.Close()
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// openBackups opens a place of backups; a directory that is not there is made if so asked.
func (a *app) openBackups(ctx context.Context, place string, create bool) (_ *backupStore, err error) {
	s, err := a.openPlace(ctx, place, create)
	if err != nil {
		return nil, err
	}
	// Backups of several at a time do no harm: what has a name has one content.
	if _, err = s.S.Stat(ctx, vpoolRoot); !errors.Is(err, backend.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("%s holds a vPool; give backups a place of their own", place)
		}
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (a *app) openPlace(ctx context.Context, place string, create bool) (*backupStore, error) {
	kind, rest, ok := strings.Cut(place, "://")
	if !ok {
		return openDirectory(place, create)
	}
	container, prefix, _ := strings.Cut(rest, "/")
	prefix = strings.TrimSuffix(prefix, "/")
	if container == "" || prefix == "" {
		return nil, usagef("%s: write a container and a place in it, such as %s://backups/ovgate", place, kind)
	}
	var s backend.Store
	var err error
	switch kind {
	case "s3":
		s, err = a.openS3(ctx, container, prefix)
	case "swift":
		s, err = a.openSwift(ctx, container, prefix)
	default:
		return nil, usagef("%s: backups may be in a directory, or at s3:// or swift://", place)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	return &backupStore{backup.Store{S: remote.New(s, remote.Options{Clock: clock.Real{}, Seed: rand.Uint64()})}, nil}, nil
}

func openDirectory(dir string, create bool) (_ *backupStore, err error) {
	if _, err := os.Stat(dir); err != nil && !(create && errors.Is(err, os.ErrNotExist)) {
		return nil, err
	}
	lock, err := local.Lock(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	fs, err := blockfs.OS(dir)
	if err != nil {
		return nil, err
	}
	s, err := local.Open(fs, local.Options{})
	if err != nil {
		return nil, err
	}
	return &backupStore{backup.Store{S: s}, lock}, nil
}

// trust reads the certificates that a variable of the environment names.
func (a *app) trust(variable string) (remote.TransportOptions, error) {
	file := a.env.Getenv(variable)
	if file == "" {
		return remote.TransportOptions{}, nil
	}
	pem, err := readBounded(file, maxCA)
	if err != nil {
		return remote.TransportOptions{}, fmt.Errorf("%s: %w", variable, err)
	}
	return remote.TransportOptions{CA: []byte(pem)}, nil
}

func (a *app) openS3(ctx context.Context, bucket, prefix string) (backend.Store, error) {
	env := a.env.Getenv
	t, err := a.trust("AWS_CA_BUNDLE")
	if err != nil {
		return nil, err
	}
	o := s3.Options{
		Endpoint: cmp.Or(env("AWS_ENDPOINT_URL_S3"), env("AWS_ENDPOINT_URL")), Region: cmp.Or(env("AWS_REGION"), env("AWS_DEFAULT_REGION")),
		Bucket: bucket, Prefix: prefix, AccessKey: env("AWS_ACCESS_KEY_ID"), SecretKey: env("AWS_SECRET_ACCESS_KEY"), SessionToken: env("AWS_SESSION_TOKEN"),
		Transport: t, Clock: clock.Real{},
	}
	if (o.AccessKey == "") != (o.SecretKey == "") {
		return nil, errors.New("set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	o.IAM = o.AccessKey == ""
	o.Unsigned = o.Endpoint == "" || strings.HasPrefix(o.Endpoint, "https://")
	return s3.Open(ctx, o)
}

func (a *app) openSwift(ctx context.Context, container, prefix string) (backend.Store, error) {
	env := a.env.Getenv
	t, err := a.trust("OS_CACERT")
	if err != nil {
		return nil, err
	}
	o := swift.Options{
		AuthURL: cmp.Or(env("OS_AUTH_URL"), env("ST_AUTH")), User: cmp.Or(env("OS_USERNAME"), env("ST_USER")), Key: cmp.Or(env("OS_PASSWORD"), env("ST_KEY")),
		Domain: env("OS_USER_DOMAIN_NAME"), DomainID: env("OS_USER_DOMAIN_ID"), Project: cmp.Or(env("OS_PROJECT_NAME"), env("OS_TENANT_NAME")), ProjectID: env("OS_PROJECT_ID"),
		ProjectDomain: env("OS_PROJECT_DOMAIN_NAME"), ProjectDomainID: env("OS_PROJECT_DOMAIN_ID"), Region: env("OS_REGION_NAME"), EndpointType: env("OS_INTERFACE"),
		Container: container, Prefix: prefix + "/", Transport: t, Clock: clock.Real{},
	}
	if id := env("OS_APPLICATION_CREDENTIAL_ID"); id != "" {
		o.User, o.Key, o.ApplicationCredential = "", "", swift.ApplicationCredential{ID: id, Secret: env("OS_APPLICATION_CREDENTIAL_SECRET")}
	}
	if o.AuthURL == "" {
		return nil, errors.New("set OS_AUTH_URL and what it takes, for example by sourcing the project's openrc, or ST_AUTH, ST_USER and ST_KEY")
	}
	return swift.Open(ctx, o)
}
