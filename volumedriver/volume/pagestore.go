package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
)

// pageStore keeps the pages of one map in segments: files of local disk, and of the
// map of an open vDisk also objects (package blockmap). What it reads is checked, so
// all of them are caches: a page that neither has is made anew from the TLogs.
type pageStore struct {
	host  *Host
	id    ID
	dir   string // of the files
	name  string // what their names start with
	this  Opening
	owner *blockmap.Owner
	// objects is where the segments are objects too; nil: nowhere.
	objects backend.Store
	// rebuild makes a page from the TLogs: as it was when right says so.
	rebuild func(ctx context.Context, n uint64, right func([]byte) bool) ([]byte, error)

	rebuildMu sync.Mutex // one at a time: each reads all TLogs

	// What follows belongs to the goroutine that changes the map.
	number   uint32 // of the newest segment
	seg      *blockmap.Segment
	file     blockfs.File
	unsynced []*blockmap.Segment // complete, and not durable yet
}

func newPageStore(h *Host, id ID, dir, name string, this Opening) *pageStore {
	s := &pageStore{host: h, id: id, dir: dir, name: name, this: this}
	s.owner = &blockmap.Owner{Memory: h.mapMemory, Reader: s}
	return s
}

// segmentPrefix starts the names of a vDisk's segments in its state directory.
const segmentPrefix = "page-"

func segmentFile(s *blockmap.Segment) string {
	return fmt.Sprintf("%08x-%08x-%08x", s.Number, s.Epoch, s.Nonce)
}

func (s *pageStore) path(seg *blockmap.Segment) string {
	return s.dir + "/" + s.name + segmentFile(seg)
}

// segmentName is the object of a segment.
func segmentName(id ID, s *blockmap.Segment) string {
	return vdiskPrefix(id) + pageDir + segmentFile(s)
}

// WritePage implements blockmap.PageWriter.
func (s *pageStore) WritePage(b []byte) (*blockmap.Segment, uint32, error) {
	if s.seg != nil && s.seg.Pages == blockmap.SegmentPages {
		if err := s.endSegment(); err != nil {
			return nil, 0, err
		}
	}
	if s.seg == nil {
		if err := s.newSegment(); err != nil {
			return nil, 0, err
		}
	}
	slot := s.seg.Pages
	if _, err := s.file.WriteAt(b, blockmap.SegmentHeader+int64(slot)*blockmap.PageBytes); err != nil {
		return nil, 0, fmt.Errorf("vdisk %s: map page: %w", s.id, err)
	}
	s.seg.Pages++
	return s.seg, slot, nil
}

func (s *pageStore) newSegment() error {
	if err := s.host.o.FS.MkdirAll(s.dir); err != nil {
		return err
	}
	s.number++ // also after an error: no file is written twice
	seg := &blockmap.Segment{Number: s.number, Epoch: s.this.Epoch, Nonce: s.this.Nonce, Owner: s.owner}
	f, err := s.host.o.FS.Open(s.path(seg), blockfs.Write|blockfs.Create|blockfs.Excl)
	if err != nil {
		return fmt.Errorf("vdisk %s: map segment: %w", s.id, err)
	}
	if _, err := f.WriteAt(blockmap.EncodeSegmentHeader(s.id, seg), 0); err != nil {
		return errors.Join(fmt.Errorf("vdisk %s: map segment: %w", s.id, err), f.Close())
	}
	s.seg, s.file = seg, f
	return nil
}

// endSegment closes the segment that is being filled.
func (s *pageStore) endSegment() error {
	if s.seg == nil {
		return nil
	}
	err := s.file.Close()
	s.unsynced = append(s.unsynced, s.seg)
	s.seg, s.file = nil, nil
	return err
}

// end gives up what is being written.
func (s *pageStore) end() { _ = s.endSegment() }

// sync makes segments durable.
func (s *pageStore) sync(segs []*blockmap.Segment) error {
	for _, seg := range segs {
		f, err := s.host.o.FS.Open(s.path(seg), blockfs.Write)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	if len(segs) == 0 {
		return nil
	}
	return s.host.o.FS.SyncDir(s.dir)
}

// ReadPage implements blockmap.PageReader: local disk, backend, TLogs.
func (s *pageStore) ReadPage(ctx context.Context, seg *blockmap.Segment, slot uint32, n uint64, right func([]byte) bool) ([]byte, error) {
	b := make([]byte, blockmap.PageBytes)
	off := blockmap.SegmentHeader + int64(slot)*blockmap.PageBytes
	err := s.readLocal(b, seg, off)
	if err == nil && right(b) {
		return b, nil
	}
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		s.host.o.Log.Warn("map page on local disk not usable", "vdisk", s.id.String(), "page", n, "segment", s.path(seg), "err", err)
	}
	if s.objects != nil {
		octx, cancel := context.WithTimeout(ctx, backendTimeout)
		defer cancel()
		if err = s.objects.ReadAt(octx, segmentName(s.id, seg), b, off); err == nil && right(b) {
			return b, nil
		}
		if err != nil && !notThere(err) && !errors.Is(err, backend.ErrRange) {
			return nil, err // worth another try, which costs less than what follows
		}
	}
	s.rebuildMu.Lock()
	defer s.rebuildMu.Unlock()
	s.host.o.Log.Warn("map page made anew from TLogs", "vdisk", s.id.String(), "page", n)
	made, err := s.rebuild(ctx, n, right)
	if err == nil && made == nil {
		err = fmt.Errorf("vdisk %s: %w: map page %d is damaged, and the TLogs do not give it back", s.id, backend.ErrCorrupt, n)
	}
	return made, err
}

// readLocal reads from a file that is opened for this: a vDisk has no file open that it
// does not need, however many there are.
func (s *pageStore) readLocal(b []byte, seg *blockmap.Segment, off int64) error {
	f, err := s.host.o.FS.Open(s.path(seg), blockfs.Read)
	if err != nil {
		return err
	}
	_, err = f.ReadAt(b, off)
	return errors.Join(err, f.Close())
}

// tidy removes local segments that keep does not name.
func (s *pageStore) tidy(keep func(name string) bool) error {
	list, err := s.host.o.FS.ListNames(s.dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, e := range list {
		name, ok := strings.CutPrefix(e.Name, s.name)
		if !ok || keep(name) {
			continue
		}
		if err := s.host.o.FS.Remove(s.dir + "/" + e.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// segmentSet is segments by file name.
func segmentSet(segs []*blockmap.Segment) map[string]bool {
	out := make(map[string]bool, len(segs))
	for _, s := range segs {
		out[segmentFile(s)] = true
	}
	return out
}

// rebuildPage makes one page of a map from the log that the map is of: as of the SCO
// after which right says so, since a page that was not changed since some SCO is that
// of each head after it, and the map of an open may be on its way to the head. nil:
// it was never right.
func rebuildPage(ctx context.Context, log *logReader, runs []Run, parent *frozen, clusters uint64, level uint8, n uint64, right func([]byte) bool) ([]byte, error) {
	m := blockmap.New(clusters, nil)
	if parent != nil {
		m = parent.m.Clone(clusters)
	}
	defer m.Release()
	first := n * blockmap.PageEntries
	if err := m.Stage(ctx, first, blockmap.PageEntries, true); err != nil {
		return nil, err
	}
	for _, run := range runs {
		for i := run.First; i < run.End; i++ {
			entries, err := log.counted(ctx, run, i)
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				if !applyRange(m, e.Footer, level, first, first+blockmap.PageEntries) {
					continue
				}
				if b := m.PageBytes(n); right(b) {
					return b, nil
				}
			}
		}
	}
	return nil, nil
}
