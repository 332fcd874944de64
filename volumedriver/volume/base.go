package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// A frozen map is kept on local disk once a clone that uses it is open: a restart
// then reads it instead of the ancestors' TLogs, and a clone opens while the backend
// is away. Below base/, two files for each:
//
//	ID-SEQ       checkpoint of the pages that it does not share with its own parent's
//	ID-SEQ.json  baseFile
//
// Like all local state of maps they are a cache: their line proves what they are of.
const baseDir = "base"

// maxBaseBytes bounds a baseFile.
const maxBaseBytes = 4 << 10

// baseFile says what the pages of a frozen map lie on.
type baseFile struct {
	Parent *ParentRef `json:"parent,omitempty"`
	Line   [16]byte   `json:"line"`  // of this map
	Above  [16]byte   `json:"above"` // of the parent's
	Head   HeadRef    `json:"head"`  // that it was built from
}

func basePath(key frozenKey) string { return fmt.Sprintf("%s/%s-%016x", baseDir, key.id, key.seq) }

// saveBase keeps a frozen map and those below it, where that is not done yet.
func (p *Pool) saveBase(f *frozen) error {
	for ; f != nil; f = f.up {
		if err := p.writeBase(f); err != nil {
			return err
		}
	}
	return nil
}

func (p *Pool) writeBase(f *frozen) error {
	f.saveMu.Lock()
	defer f.saveMu.Unlock()
	if f.saved.Load() {
		return nil
	}
	fsys, path := p.host.o.FS, basePath(f.key)
	if err := fsys.MkdirAll(baseDir); err != nil {
		return err
	}
	own := f.chain[len(f.chain)-1]
	h := &blockmap.CheckpointHeader{VDisk: f.key.id, Line: f.line, Cluster: uint32(f.cluster), Clusters: f.m.Clusters(), SCOs: own.scos.list()}
	if err := writeMap(fsys, path, h, f.m, f.up.base()); err != nil {
		return err
	}
	b := baseFile{Line: f.line, Head: *f.ref.Load()}
	if f.up != nil {
		b.Parent, b.Above = &ParentRef{VDisk: f.up.key.id, Seq: f.up.key.seq}, f.up.line
	}
	obj, err := json.Marshal(&b)
	if err == nil {
		err = blockfs.WriteFile(fsys, path+".json", obj)
	}
	f.saved.Store(err == nil)
	return err
}

// writeMap writes what a map that does not change has beside base.
func writeMap(fsys blockfs.FS, path string, h *blockmap.CheckpointHeader, m, base *blockmap.Map) (err error) {
	f, err := fsys.Open(path+".new", blockfs.Write|blockfs.Create)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(0); err != nil {
		return err
	}
	w, err := blockmap.NewCheckpointWriter(&appender{f: f}, h)
	if err != nil {
		return err
	}
	for page, ok := uint64(0), true; ; {
		if page, ok = w.CopyPage(m, base, page); !ok {
			break
		}
		if err := w.WritePage(); err != nil {
			return err
		}
	}
	if err := w.Finish(0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := fsys.Rename(path+".new", path); err != nil {
		return err
	}
	return fsys.SyncDir(path[:strings.LastIndex(path, "/")])
}

// loadBase reads a frozen map that was kept. want is its line, if that is known.
func (p *Pool) loadBase(key frozenKey, want *[16]byte, depth int) (*frozen, error) {
	fsys, path := p.host.o.FS, basePath(key)
	obj, err := blockfs.ReadFile(fsys, path+".json", maxBaseBytes)
	if err != nil {
		return nil, err
	}
	var b baseFile
	if err := json.Unmarshal(obj, &b); err != nil || depth > MaxDepth || want != nil && b.Line != *want {
		return nil, fmt.Errorf("%s: %w: not of this log", path, ErrCorrupt)
	}
	f := &frozen{key: key, line: b.Line}
	f.ref.Store(&b.Head)
	if b.Parent != nil {
		up := frozenKey{b.Parent.VDisk, b.Parent.Seq}
		if f.up = p.froze.peek(up); f.up == nil || f.up.line != b.Above {
			if f.up, err = p.loadBase(up, &b.Above, depth+1); err != nil {
				return nil, err
			}
		}
		f.chain = append(f.chain, f.up.chain...)
	}
	file, err := fsys.Open(path, blockfs.Read)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	m, h, err := blockmap.ReadCheckpoint(io.NewSectionReader(file, 0, size), f.up.base())
	if err != nil {
		return nil, err
	}
	if h.VDisk != key.id || h.Line != b.Line {
		return nil, fmt.Errorf("%s: %w: not of this log", path, ErrCorrupt)
	}
	own := &source{id: key.id, seed: clustersum.NewSeed(key.id)}
	for _, s := range h.SCOs {
		own.scos.add(s.Number, p.origin(key.id, s.Epoch, s.Nonce), s.Clusters, s.Bytes)
	}
	f.m, f.chain, f.cluster = m, append(f.chain, own), int(h.Cluster)
	f.m.Freeze()
	f.saved.Store(true)
	return f, nil
}

// tidyBases removes what was kept of a parent for clones that are gone. What it
// misses costs space only.
func (p *Pool) tidyBases(ctx context.Context, held ParentRef) {
	list, err := p.host.o.FS.List(baseDir)
	prefix := held.VDisk.String() + "-"
	list = slices.DeleteFunc(list, func(e blockfs.Info) bool { return !strings.HasPrefix(e.Name, prefix) })
	if err != nil || len(list) == 0 {
		return
	}
	clones, err := p.Clones(ctx, held.VDisk)
	for _, e := range list {
		needed := slices.ContainsFunc(clones, func(c CloneInfo) bool {
			return strings.HasPrefix(baseDir+"/"+e.Name, basePath(frozenKey{held.VDisk, c.Seq}))
		})
		if err == nil && !needed {
			err = p.host.o.FS.Remove(baseDir + "/" + e.Name)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.host.o.Log.Warn("kept maps of a parent not removed", "vdisk", held.VDisk.String(), "err", err)
	}
}
