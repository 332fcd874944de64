package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// A frozen map is kept on local disk once a clone that uses it is open: a restart
// then reads it instead of the ancestors' TLogs, and a clone opens while the backend
// is away. Below base/, files for each:
//
//	ID-SEQ         index of the pages that it does not share with its own parent's
//	ID-SEQ.page-*  segments of those pages
//	ID-SEQ.json    baseFile
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
	if f.m.DirtyPages() > 0 {
		return fmt.Errorf("vdisk %s: %d pages of its map are in memory alone", f.key.id, f.m.DirtyPages())
	}
	own := f.chain[len(f.chain)-1]
	x := &blockmap.Index{VDisk: f.key.id, Line: f.line, Cluster: uint32(f.cluster), SCOs: own.scos.list(), Nonce: f.pages.this.Nonce}
	b := x.Encode(f.m, f.up.base())
	if err := f.pages.sync(f.pages.unsynced); err != nil {
		return err
	}
	if err := blockfs.WriteFile(fsys, path, b); err != nil {
		return err
	}
	d := baseFile{Line: f.line, Head: *f.ref.Load()}
	if f.up != nil {
		d.Parent, d.Above = &ParentRef{VDisk: f.up.key.id, Seq: f.up.key.seq}, f.up.line
	}
	obj, err := json.Marshal(&d)
	if err == nil {
		err = blockfs.WriteFile(fsys, path+".json", obj)
	}
	if err == nil {
		used := segmentSet(x.Segments)
		err = f.pages.tidy(func(name string) bool { return used[name] })
	}
	f.saved.Store(err == nil)
	return err
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
	index, err := blockfs.ReadFile(fsys, path, maxIndexBytes)
	if err != nil {
		return nil, err
	}
	f.pages = p.basePages(key, 0)
	m, h, err := blockmap.DecodeMap(index, f.up.base(), f.pages.owner)
	if err != nil {
		if m, h, err = p.loadOldBase(f, index); err != nil {
			return nil, err
		}
	}
	if h.VDisk != key.id || h.Line != b.Line {
		m.Release()
		return nil, fmt.Errorf("%s: %w: not of this log", path, ErrCorrupt)
	}
	own := &source{id: key.id, seed: clustersum.NewSeed(key.id)}
	for _, s := range h.SCOs {
		own.scos.add(s.Number, p.origin(key.id, s.Epoch, s.Nonce), s.Clusters, s.Bytes)
	}
	f.m, f.chain, f.cluster = m, append(f.chain, own), int(h.Cluster)
	f.freeze()
	f.saved.Store(len(f.pages.unsynced) == 0 && m.DirtyPages() == 0)
	return f, nil
}

// loadOldBase makes the map of a file that an earlier ovgate wrote.
func (p *Pool) loadOldBase(f *frozen, b []byte) (*blockmap.Map, *blockmap.Index, error) {
	m, h, err := blockmap.ReadCheckpoint(bytes.NewReader(b), f.up.base(), p.host.mapMemory)
	if err != nil {
		return nil, nil, err
	}
	nonce, err := p.host.nonce()
	if err != nil {
		m.Release()
		return nil, nil, err
	}
	f.pages = p.basePages(f.key, nonce)
	if err := m.Spill(f.pages); err != nil {
		p.host.o.Log.Warn("map of a parent not kept on local disk", "vdisk", f.key.id.String(), "err", err)
	}
	f.pages.end()
	return m, &blockmap.Index{VDisk: h.VDisk, Line: h.Line, Cluster: h.Cluster, SCOs: h.SCOs}, nil
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
