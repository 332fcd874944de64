package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/internal/kv"
)

// selfFormat is the newest format of DIR/node.json that this code knows.
const selfFormat = 1

// self is who this node is. It is kept beside the node's data, not in the registry,
// which several nodes share.
type self struct {
	Format int    `json:"format"`
	ID     string `json:"id"` // UUID, drawn at the first start; vDisks and devices name it
	Name   string `json:"name"`
}

// nodeName is what a node may be called: what a host may, and "_".
var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// openSelf reads who the node is, and decides it at the first start, where first says its
// id. name is the configured one; empty: the name that the node has, at the first start that
// of the host.
func openSelf(d *dataDir, name string, first func() (string, error)) (self, error) {
	s, err := readSelf(d)
	if err != nil {
		return s, err
	}
	was := s
	if s.ID == "" {
		if s.ID, err = first(); err != nil {
			return s, err
		}
	}
	switch {
	case name != "":
		s.Name = name
	case s.Name == "":
		s.Name = hostName(s.ID)
	}
	if s == was {
		return s, nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return s, err
	}
	if err := writeFile(d.file(selfFile), append(b, '\n'), 0o600); err != nil {
		return s, unwritable(d.path, err)
	}
	return s, nil
}

// readSelf returns DIR/node.json; without an id if there is none.
func readSelf(d *dataDir) (self, error) {
	s := self{Format: selfFormat}
	b, err := os.ReadFile(d.file(selfFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("data directory %s: %w", d.path, err)
	}
	err = json.Unmarshal(b, &s)
	switch {
	case err == nil && s.Format > selfFormat:
		return s, fmt.Errorf("data directory %s: %s has format %d, this ovgate knows %d: upgrade ovgate; nothing was changed", d.path, selfFile, s.Format, selfFormat)
	case err != nil || s.Format < 1 || !uuid.MatchString(s.ID) || !nodeName.MatchString(s.Name):
		return s, fmt.Errorf("data directory %s: the file %s is damaged: bring it back from a copy; without the node's id its vDisks are another node's", d.path, selfFile)
	}
	return s, nil
}

// firstID is the id of a node without DIR/node.json that has its registry: the one that an
// older version kept there.
func firstID(ctx context.Context, d *dataDir, store kv.Store) (string, error) {
	old, known, err := model.OldNode(ctx, store)
	switch {
	case err != nil:
		return "", fmt.Errorf("data directory %s: %w", d.path, err)
	case old != "":
		return old, nil
	case known:
		return "", fmt.Errorf("data directory %s: the file %s is missing: bring it back from a copy; without the node's id its vDisks are another node's", d.path, selfFile)
	}
	return model.NewUUID()
}

// hostName is the host's name, or one that is made of the node's id.
func hostName(id string) string {
	if name, err := os.Hostname(); err == nil && nodeName.MatchString(name) {
		return name
	}
	return "node-" + id[:8]
}
