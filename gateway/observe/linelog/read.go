package linelog

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// scanMost bounds what one Backward reads, in bytes: a page of a list may have fewer entries
// than it could, and none, and yet not be the last.
const scanMost = 64 << 20

// file is a file of a log.
type file struct {
	name  string
	first uint64
	size  int64
	mod   time.Time
}

// files returns the files of the log, the oldest first.
func (o Options) files() ([]file, error) {
	infos, err := o.FS.List(".")
	if err != nil {
		return nil, err
	}
	var out []file
	for _, i := range infos { // by name, which is by number
		if first, ok := o.parseName(i.Name); ok && !i.Dir {
			out = append(out, file{i.Name, first, i.Size, i.ModTime})
		}
	}
	return out, nil
}

// Backward visits records from the newest on, or from below a number if before is not 0, until
// visit returns false or a file of 64 MiB in all was read. next, when not 0, is the before that
// goes on with those that were not read. It takes a file at a time into memory.
func Backward[R Record[R]](ctx context.Context, o Options, before uint64, visit func(R) bool) (next uint64, err error) {
	all, err := o.files()
	if err != nil {
		return 0, err
	}
	slices.Reverse(all)
	read, limit := int64(0), before
	for _, f := range all {
		if limit != 0 && f.first >= limit {
			continue
		}
		if read += f.size; read > scanMost && read != f.size {
			return next, nil
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b, err := blockfs.ReadFile(o.FS, f.name, o.readMost())
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has gone for its age
		}
		if err != nil {
			return 0, err
		}
		records, _, _ := scan[R](b)
		for _, r := range slices.Backward(records) {
			if limit != 0 && r.Number() >= limit { // hidden by a newer file (N2)
				continue
			}
			if !visit(r) {
				return 0, nil
			}
		}
		next, limit = f.first, f.first // older files are left
	}
	return 0, nil
}
