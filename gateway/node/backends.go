package node

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/gateway/alba"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/encrypted"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

const (
	kindLocal = "local"
	kindAlba  = model.KindAlba
)

// rootObject is the name of the engine's root object (volume.ReadRoot).
const rootObject = "ovgate.root"

// backends opens the stores under vPools: local directories, the node's Alba, Swift and
// S3.
type backends struct {
	dir     string // the data directory
	alba    *alba.Service
	remotes *remotes
	log     *slog.Logger
}

var _ control.Backends = backends{}

// Default implements control.Backends.
func (b backends) Default(v model.Backend, name string) model.Backend {
	if v.Kind == kindLocal && v.Path == "" {
		v.Path = filepath.Join(b.dir, backendDir, name)
	}
	if (v.Kind == kindAlba || isRemote(v.Kind)) && v.Path == "" {
		v.Path = strings.ToLower(name)
	}
	if filepath.IsAbs(v.Path) {
		v.Path = filepath.Clean(v.Path)
	}
	return v
}

// albaPrefix is what an alba backend's place may be: it begins names of
// namespaces, which have a dot behind it.
var albaPrefix = regexp.MustCompile(`^[a-z0-9][-_a-z0-9]{0,99}$`)

// Check implements control.Backends.
func (b backends) Check(v model.Backend) *control.Error {
	bad := func(field, message, hint string) *control.Error {
		return &control.Error{Code: control.CodeInvalid, Field: field, Message: message, Hint: hint}
	}
	if v.Kind == kindAlba {
		if !albaPrefix.MatchString(v.Path) {
			return bad("backend.path", "an alba backend's path is what the names of its namespaces begin with", "use up to 100 letters a-z, digits, '-' and '_', or leave it out")
		}
		return nil
	}
	if v.Preset != "" {
		return bad("backend.preset", "only the alba backend has presets", "leave it out, or use the alba backend")
	}
	if isRemote(v.Kind) {
		return checkPrefix(v.Path)
	}
	own := filepath.Join(b.dir, backendDir)
	data, ours, place := resolve(b.dir), resolve(own), resolve(v.Path)
	switch {
	case v.Kind != kindLocal:
		return bad("backend.kind", "this version has no backend of that kind", "use local, alba, swift or s3")
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
func (b backends) Open(ctx context.Context, p control.Place) (backend.Store, error) {
	s, err := b.open(ctx, p)
	if err != nil {
		return nil, err
	}
	return seal(ctx, s, p)
}

// open opens the store of a vPool as it is, encrypted or not.
func (b backends) open(ctx context.Context, p control.Place) (backend.Store, error) {
	v := p.Backend
	switch {
	case v.Kind == kindAlba:
		s, err := b.alba.Store(ctx, v.Path, v.Preset)
		if err != nil {
			return nil, unfit(err)
		}
		return s, nil
	case isRemote(v.Kind):
		return b.openRemote(ctx, p)
	}
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

// unfit names the field for a preset that will not do.
func unfit(err error) error {
	for _, is := range []error{manager.ErrNotFound, preset.ErrInvalid} {
		if errors.Is(err, is) {
			return &control.Error{Code: control.CodeInvalid, Field: "backend.preset", Message: err.Error(), Hint: "ovgate preset list shows the presets; those for vPools acknowledge at c >= k+1", Err: err}
		}
	}
	return err
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
	if err := s.Delete(ctx, rootObject); err != nil {
		return err
	}
	if e, ok := s.(*encrypted.Store); ok {
		if err := e.Forget(ctx); err != nil {
			return err
		}
		s = e.Unwrap()
	}
	if a, ok := s.(interface{ Forget(context.Context) error }); ok {
		return a.Forget(ctx)
	}
	return nil
}
