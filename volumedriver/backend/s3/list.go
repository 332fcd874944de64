package s3

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote"
)

// pageKeys is what stores give at a time at most.
const pageKeys = 1000

// listOptions ask for keys that begin with prefix, after a key, some at a time.
func (s *Store) listOptions(prefix, after string, page int) minio.ListObjectsOptions {
	return minio.ListObjectsOptions{
		Prefix: prefix, StartAfter: after, Recursive: true, MaxKeys: page,
		FetchOwner: new(bool),
	}
}

// List implements backend.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]backend.Info, error) {
	if s.closed.Load() {
		return nil, errClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list objects %q: %w", prefix, err)
	}
	if !begins(prefix) {
		return nil, nil // no object is called that
	}
	limit = backend.ListLimit(limit)
	var infos []backend.Info
	err := s.do(ctx, "list objects", prefix, maxXMLBytes, func(ctx context.Context, c *call) error {
		last := ""
		for o := range s.core.ListObjectsIter(ctx, s.o.Bucket, s.listOptions(s.root+prefix, s.startAfter(after), min(limit, pageKeys))) {
			if o.Err != nil {
				return o.Err
			}
			if o.Key <= last {
				return &remote.Error{Op: "list objects", Name: prefix, Status: c.status,
					Message: fmt.Sprintf("the store lists %q after %q, which is not in order", short(o.Key), short(last))}
			}
			last = o.Key
			name, ok := s.name(o.Key)
			if !ok || name <= after || !strings.HasPrefix(name, prefix) {
				continue
			}
			if o.Size < 0 {
				return errors.New("a size is negative")
			}
			infos = append(infos, backend.Info{Name: name, Size: o.Size, ModTime: o.LastModified})
			if len(infos) == limit {
				return nil
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	return infos, nil
}

// begins tells whether an object's name can begin with prefix.
func begins(prefix string) bool {
	return prefix == "" || backend.ValidName(prefix) == nil || backend.ValidName(prefix+"x") == nil
}

// startAfter returns a key that sorts before those of all names behind "after".
func (s *Store) startAfter(after string) string {
	if after == "" {
		return ""
	}
	if len(after) > backend.MaxNameBytes {
		after = after[:backend.MaxNameBytes] // sorts before it
	}
	return s.key(strings.ToValidUTF8(after, ""))
}

// name returns the object that a key is of.
func (s *Store) name(key string) (string, bool) {
	name, below := strings.CutPrefix(key, s.root)
	name, ours := strings.CutSuffix(name, end)
	return name, below && ours && backend.ValidName(name) == nil
}
