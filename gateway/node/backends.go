package node

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const kindLocal = "local"

// rootObject is the name of the engine's root object (volume.ReadRoot).
const rootObject = "ovgate.root"

// backends opens the stores under vPools: local directories.
type backends struct {
	dir string // the data directory
	log *slog.Logger
}

var _ control.Backends = backends{}

// Default implements control.Backends.
func (b backends) Default(v model.Backend, name string) model.Backend {
	if v.Kind == kindLocal && v.Path == "" {
		v.Path = filepath.Join(b.dir, backendDir, name)
	}
	if filepath.IsAbs(v.Path) {
		v.Path = filepath.Clean(v.Path)
	}
	return v
}

// Check implements control.Backends.
func (b backends) Check(v model.Backend) *control.Error {
	bad := func(field, message, hint string) *control.Error {
		return &control.Error{Code: control.CodeInvalid, Field: field, Message: message, Hint: hint}
	}
	own := filepath.Join(b.dir, backendDir)
	data, ours, place := resolve(b.dir), resolve(own), resolve(v.Path)
	switch {
	case v.Kind != kindLocal:
		return bad("backend.kind", "this version has no backend of that kind", "use local")
	case !filepath.IsAbs(v.Path):
		return bad("backend.path", "the path is not absolute", "name a directory from the root, such as /srv/ovgate/default")
	case v.Path == "/" || strings.ContainsRune(v.Path, 0):
		return bad("backend.path", "this path cannot be a backend", "name a directory of its own")
	case place == data || place == ours || within(place, data) && !within(place, ours):
		return bad("backend.path", "the path is part of the node's data directory", "use a directory outside it, or one below "+own)
	case within(data, place):
		return bad("backend.path", "the node's data directory is inside this path", "use another directory")
	}
	return nil
}

// resolve follows the symbolic links of the part of a path that exists.
func resolve(path string) string {
	rest := ""
	for dir := path; ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == "/" || dir == "." {
			return path
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}

// within tells whether path lies below dir.
func within(path, dir string) bool { return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") }

// Open implements control.Backends.
func (b backends) Open(_ context.Context, v model.Backend) (backend.Store, error) {
	lock, err := local.Lock(v.Path)
	if err != nil {
		return nil, unusable(err)
	}
	tree, err := blockfs.OS(v.Path)
	if err != nil {
		return nil, errors.Join(unusable(err), lock.Close())
	}
	s, err := local.Open(tree, local.Options{Log: b.log})
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lockedStore{s, lock}, nil
}

// unusable names the field for a place that will not do as it is.
func unusable(err error) error {
	for _, is := range []error{fs.ErrPermission, syscall.EROFS, syscall.ENOTDIR} {
		if errors.Is(err, is) {
			return &control.Error{Code: control.CodeInvalid, Field: "backend.path", Message: err.Error(), Hint: "give ovgate a directory that it can write", Err: err}
		}
	}
	return err
}

// lockedStore holds its directory until it is closed.
type lockedStore struct {
	backend.Store
	lock io.Closer
}

func (s lockedStore) Close() error { return errors.Join(s.Store.Close(), s.lock.Close()) }

// ReadRoot implements control.Backends.
func (b backends) ReadRoot(ctx context.Context, s backend.Store) (control.Root, error) {
	r, err := volume.ReadRoot(ctx, s)
	if err != nil {
		return control.Root{}, err
	}
	return control.Root{Cluster: r.Cluster, VPool: r.Pool}, nil
}

// RemoveRoot implements control.Backends.
func (b backends) RemoveRoot(ctx context.Context, s backend.Store) error {
	return s.Delete(ctx, rootObject)
}
