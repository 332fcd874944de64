// Package swift keeps a vPool's objects in OpenStack Swift, or in a store that
// speaks its protocol. The gateway opens it for vPools on other people's Swift.
//
// # Layout
//
//	container <base>, or with Shards = n > 1 containers <base>-00 ... <base>-<n-1 in hex>
//	  <prefix><name>                              an object, or the manifest of a large one
//	  <prefix>~/<name>/<size>-<md5>/00000 ...     segments of a large object
//	  <prefix>~probe/<random>                     scratch objects of Detect
//
// "~" is no byte of an object name, so what it begins is never taken for an object.
// A name of three segments or more is in the container that the hash (FNV-1a, 32
// bits) of its first two chooses, so a vDisk's objects "v/<id>/..." stay together;
// every other name is in the first container. Containers are made when they are
// first written to, and record the number of shards.
//
// # Invariants
//
//	W1  A request is sent once. It is repeated only after a 401, with a new token,
//	    or after a 404 of a container that was then made; neither did anything. A 401
//	    that was lost, as the connection ended while an object was on its way, is
//	    asked for again.
//	W2  However many requests find the token refused or old, one logs in and the
//	    others wait for it; after a login none follows for some seconds, whatever
//	    its outcome.
//	W3  The token goes to the storage URL of the login alone: redirects are errors.
//	W4  Put sends the MD5 of the bytes, Swift compares it before the object gets its
//	    name, and the answer's is compared again. An answer 202 says that a newer
//	    object or a newer delete is there, so that nothing was stored: it is
//	    success only if what is there are the same bytes.
//	W5  Segments are all there before the manifest that makes them an object; the
//	    manifest goes before they do.
//	W6  Whatever the store answers, a call reads a bounded number of bytes.
//
// # Conditional puts
//
// Swift knows If-None-Match: * but does not decide it: each object server looks
// when a PUT begins whether it has the object and asks nobody again when the bytes
// have come, which may be much later. Two PUTs that begin before either has ended
// both find nothing, both are answered 201, and the one with the later timestamp
// stays. S3 allows one winner, so PutIfAbsent is not supported; a test shows this
// on a real cluster.
//
// # Consistency
//
// Put returns when a quorum holds the object. A read asks copies until one has it,
// so it finds it as long as not all of those that have it are away. Stat, and Get
// of small objects (roots and heads), ask all copies for the newest (X-Newest);
// range reads are of objects that never change and take the first copy. Listings
// lag and are only hints.
//
// # The library
//
// github.com/ncw/swift logs in, with all versions of the protocol and the catalog.
// Requests for objects are made here: the library repeats requests, follows
// redirects with the token, reads bodies without bound, and can return while it
// still uses the caller's buffer.
package swift

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// errClosed: the store was closed.
var errClosed = errors.New("swift: store is closed")

// maxHeaderBytes bounds the headers of an answer (W6).
const maxHeaderBytes = 64 << 10

// Store implements backend.Store.
type Store struct {
	o          Options
	found      Found
	transport  *http.Transport
	client     *http.Client
	session    *session
	containers *containers
	closed     atomic.Bool
}

var _ backend.Store = (*Store)(nil)

// Open logs in, and makes the first container where it does not exist. Errors are
// of type *remote.Error, or say what is wrong with the options.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := connect(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := s.containers.ensure(ctx, s, s.container(0)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// connect returns a store that has logged in and knows the cluster.
func connect(ctx context.Context, o Options) (*Store, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("swift: %w", err)
	}
	t, err := remote.Transport(o.Transport)
	if err != nil {
		return nil, fmt.Errorf("swift: %w", err)
	}
	t.MaxResponseHeaderBytes = maxHeaderBytes
	s := &Store{
		o:         o,
		transport: t,
		client: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // W3
		}},
		session:    newSession(o, t),
		containers: newContainers(),
	}
	if _, err := s.session.current(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if o.Found != nil {
		s.found = *o.Found
	} else if s.found, err = s.info(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.found.bound()
	return s, nil
}

// start checks what every call on an object begins with.
func (s *Store) start(ctx context.Context, name string) error {
	if s.closed.Load() {
		return fmt.Errorf("object %s: %w", name, errClosed)
	}
	if err := backend.ValidName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("object %s: %w", name, err)
	}
	return nil
}

// Features implements backend.Store. See the package comment for conditional puts. A
// small read takes a proxy and a storage node as long as one of 64 KiB.
func (s *Store) Features() backend.Features { return backend.Features{} }

// PutIfAbsent implements backend.Store: ErrUnsupported, see the package comment.
func (s *Store) PutIfAbsent(ctx context.Context, name string, _ []byte) error {
	if err := s.start(ctx, name); err != nil {
		return err
	}
	return fmt.Errorf("object %s: %w: Swift lets two conditional puts at the same time both succeed", name, backend.ErrUnsupported)
}

// Close implements backend.Store. Calls under way finish; later ones fail.
func (s *Store) Close() error {
	s.closed.Store(true)
	s.transport.CloseIdleConnections()
	return nil
}
