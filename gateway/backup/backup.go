// Package backup keeps copies of snapshots in an object store of their own, apart from
// the vPool, and reads them back. It knows disks as ranges that have data; who calls it
// reads them from a node, and writes them to one.
//
// # Objects
//
//	backup/VDISK/SNAPSHOT   what there is of a snapshot: manifest; ids are UUIDs
//	page/HASH               hashes of 4096 chunks, 32 bytes each; 0: zeros
//	chunk/HASH              1 MiB of a disk; less at its end
//
// A manifest is one line "ovgate-backup FORMAT SHA256" and Manifest as JSON. HASH is the
// SHA-256 of the content, in hex: what two snapshots have in common is there once, so a
// further backup stores what changed, a page for each 4 GiB with a change, and a
// manifest.
//
// # Invariants
//
//	B1  The manifest is put last: a backup that was cut off is none, and the next run
//	    finds the chunks that it left.
//	B2  A chunk or page that is there already is read and believed only if its hash is
//	    right; else it is put anew, with the bytes of its name.
//	B3  Nothing that is read back is believed before its hash is right, so a restore
//	    gives the bytes of the snapshot or an error. What is wrong is read again first: it
//	    may have been damaged on its way.
package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
)

const (
	// Format is the newest format that this code reads and writes.
	Format = 1
	// ChunkBytes is the unit that is stored once.
	ChunkBytes = 1 << 20
	// pageChunks is how many chunks a page names: the page of a disk of 4 GiB has
	// 128 KiB, and the manifest of one of 64 TiB names 16384 pages.
	pageChunks = 4096
	hashBytes  = sha256.Size
	// maxManifest bounds a manifest, in bytes: that of the largest disk has 1.2 MiB.
	maxManifest = 4 << 20
	// maxDisk is the size of the largest vDisk.
	maxDisk = 64 << 40

	magic     = "ovgate-backup "
	dirBackup = "backup/"
)

// Errors.
var (
	// ErrDamaged: what is stored is not what was stored.
	ErrDamaged = errors.New("backup is damaged")
	// ErrNotFound: there is no such backup.
	ErrNotFound = errors.New("no such backup")
)

// Manifest describes a backup.
type Manifest struct {
	Format       int               `json:"format"`
	VDisk        string            `json:"vdisk"` // UUID
	Name         string            `json:"name"`  // of the vDisk then
	Labels       map[string]string `json:"labels,omitempty"`
	Snapshot     string            `json:"snapshot"` // UUID
	SnapshotName string            `json:"snapshotName"`
	Taken        time.Time         `json:"taken"` // the snapshot
	Made         time.Time         `json:"made"`  // the backup
	Size         int64             `json:"size"`  // bytes
	ClusterSize  int64             `json:"clusterSize"`
	Chunk        int64             `json:"chunk"` // ChunkBytes
	Pages        []string          `json:"pages"` // hashes, in order; "": zeros
}

// Store is where backups are.
type Store struct{ S backend.Store }

func manifestName(vdisk, snapshot string) string { return dirBackup + vdisk + "/" + snapshot }

// put stores an object under its hash, unless it is there and right (B2); stored tells
// that it was not.
func (s Store) put(ctx context.Context, dir string, b []byte) (hash [hashBytes]byte, stored bool, err error) {
	hash = sha256.Sum256(b)
	name := dir + hex.EncodeToString(hash[:])
	have, err := s.S.Get(ctx, name, ChunkBytes)
	switch {
	case err == nil && bytes.Equal(have, b):
		return hash, false, nil
	case err != nil && !errors.Is(err, backend.ErrNotExist) && !errors.Is(err, backend.ErrCorrupt):
		return hash, false, err
	}
	return hash, true, s.S.Put(ctx, name, b)
}

// get reads an object by its hash (B3).
func (s Store) get(ctx context.Context, dir string, hash [hashBytes]byte) (b []byte, err error) {
	name := dir + hex.EncodeToString(hash[:])
	err = again(func() error {
		b, err = s.S.Get(ctx, name, ChunkBytes)
		switch {
		case errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrCorrupt):
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		case err != nil:
			return err
		case sha256.Sum256(b) != hash:
			return fmt.Errorf("%w: %s does not have the content of its name", ErrDamaged, name)
		}
		return nil
	})
	return b, err
}

// reads is how often an object is read before it counts as damaged: what is damaged on its
// way is right the next time.
const reads = 3

// again reads, more than once if what is read is damaged.
func again(read func() error) (err error) {
	for range reads {
		if err = read(); !errors.Is(err, ErrDamaged) || errors.Is(err, backend.ErrNotExist) {
			break
		}
	}
	return err
}

const (
	dirChunk = "chunk/"
	dirPage  = "page/"
)

// Writer makes a backup.
type Writer struct {
	s    Store
	m    Manifest
	page []byte // hashes of the page that is being filled
	next int64  // chunk that comes next
	// Stored and Kept are bytes of chunks that were put, and that were there already.
	Stored, Kept int64
}

// Begin makes a Writer; m describes the snapshot.
func (s Store) Begin(m Manifest) (*Writer, error) {
	if m.Size <= 0 || m.Size > maxDisk || m.VDisk == "" || m.Snapshot == "" {
		return nil, fmt.Errorf("backup of vdisk %q, snapshot %q: a disk of %d bytes is not possible", m.VDisk, m.Snapshot, m.Size)
	}
	m.Format, m.Chunk, m.Pages = Format, ChunkBytes, []string{}
	return &Writer{s: s, m: m}, nil
}

// Put stores the chunk of the disk at off, a multiple of ChunkBytes above those of
// earlier calls; what is left out is zeros.
func (w *Writer) Put(ctx context.Context, off int64, p []byte) error {
	i := off / ChunkBytes
	if off%ChunkBytes != 0 || i < w.next || off >= w.m.Size || int64(len(p)) != min(ChunkBytes, w.m.Size-off) {
		return fmt.Errorf("backup: %d bytes at offset %d do not follow", len(p), off)
	}
	if err := w.fill(ctx, i); err != nil {
		return err
	}
	hash, stored, err := w.s.put(ctx, dirChunk, p)
	if err != nil {
		return err
	}
	if stored {
		w.Stored += int64(len(p))
	} else {
		w.Kept += int64(len(p))
	}
	w.page = append(w.page, hash[:]...)
	w.next++
	return nil
}

// fill adds chunks of zeros up to chunk i.
func (w *Writer) fill(ctx context.Context, i int64) error {
	for w.next < i {
		if len(w.page) == pageChunks*hashBytes {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
		n := min(i-w.next, pageChunks-int64(len(w.page)/hashBytes))
		w.page = append(w.page, make([]byte, n*hashBytes)...)
		w.next += n
	}
	if len(w.page) == pageChunks*hashBytes {
		return w.flush(ctx)
	}
	return nil
}

// flush puts the page.
func (w *Writer) flush(ctx context.Context) error {
	page := w.page
	w.page = w.page[:0]
	if len(bytes.Trim(page, "\x00")) == 0 {
		w.m.Pages = append(w.m.Pages, "")
		return nil
	}
	hash, _, err := w.s.put(ctx, dirPage, page)
	w.m.Pages = append(w.m.Pages, hex.EncodeToString(hash[:]))
	return err
}

func chunks(size int64) int64 { return (size + ChunkBytes - 1) / ChunkBytes }

// Finish puts the manifest (B1). A backup of this snapshot that is there is replaced,
// by one with the same content.
func (w *Writer) Finish(ctx context.Context, now time.Time) (Manifest, error) {
	if err := w.fill(ctx, chunks(w.m.Size)); err != nil {
		return w.m, err
	}
	if len(w.page) > 0 {
		if err := w.flush(ctx); err != nil {
			return w.m, err
		}
	}
	name := manifestName(w.m.VDisk, w.m.Snapshot)
	if have, err := w.s.manifest(ctx, name); err == nil && have.same(&w.m) {
		return have, nil
	}
	w.m.Made = now.UTC()
	body, err := json.Marshal(&w.m)
	if err != nil {
		return w.m, err
	}
	sum := sha256.Sum256(body)
	return w.m, w.s.S.Put(ctx, name, fmt.Appendf(nil, "%s%d %x\n%s\n", magic, Format, sum, body))
}

// same reports whether two backups have the same content.
func (m *Manifest) same(o *Manifest) bool {
	a, b := *m, *o
	a.Made, b.Made = time.Time{}, time.Time{}
	x, err1 := json.Marshal(&a)
	y, err2 := json.Marshal(&b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// manifest reads and checks one.
func (s Store) manifest(ctx context.Context, name string) (m Manifest, err error) {
	err = again(func() error {
		m, err = s.readManifest(ctx, name)
		return err
	})
	return m, err
}

func (s Store) readManifest(ctx context.Context, name string) (Manifest, error) {
	b, err := s.S.Get(ctx, name, maxManifest)
	if errors.Is(err, backend.ErrNotExist) {
		return Manifest{}, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return Manifest{}, err
	}
	m, err := decodeManifest(b)
	if err == nil && name != manifestName(m.VDisk, m.Snapshot) {
		err = fmt.Errorf("%w: it is of another snapshot", ErrDamaged)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

func decodeManifest(b []byte) (Manifest, error) {
	var m Manifest
	line, body, ok := bytes.Cut(b, []byte("\n"))
	var format int
	var hash string
	if n, err := fmt.Sscanf(string(line), magic+"%d %64s", &format, &hash); !ok || n != 2 || err != nil {
		return m, fmt.Errorf("%w: no header line", ErrDamaged)
	}
	if format > Format {
		return m, fmt.Errorf("backup format %d, this version knows %d: upgrade ovgate", format, Format)
	}
	body = bytes.TrimSuffix(body, []byte("\n"))
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != hash {
		return m, fmt.Errorf("%w: checksum of the manifest", ErrDamaged)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return m, fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	if m.Format != format || format < 1 || m.Chunk != ChunkBytes || m.Size <= 0 || m.Size > maxDisk || int64(len(m.Pages)) != (chunks(m.Size)+pageChunks-1)/pageChunks {
		return m, fmt.Errorf("%w: fields of the manifest", ErrDamaged)
	}
	return m, nil
}

// List calls fn for every backup, by vDisk and snapshot.
func (s Store) List(ctx context.Context, fn func(Manifest) error) error {
	const page = 1000
	for after := ""; ; {
		l, err := s.S.List(ctx, dirBackup, after, page)
		if err != nil {
			return err
		}
		for _, o := range l {
			after = o.Name
			m, err := s.manifest(ctx, o.Name)
			if err != nil {
				return err
			}
			if err := fn(m); err != nil {
				return err
			}
		}
		if len(l) < page {
			return nil
		}
	}
}

// Read calls fn for every chunk of a backup that is not zeros, in order and verified;
// p is fn's for good.
func (s Store) Read(ctx context.Context, m Manifest, fn func(off int64, p []byte) error) error {
	total := chunks(m.Size)
	for i, text := range m.Pages {
		if text == "" {
			continue
		}
		first := int64(i) * pageChunks
		n := min(pageChunks, total-first)
		var hash [hashBytes]byte
		if k, err := hex.Decode(hash[:], []byte(text[:min(len(text), 2*hashBytes)])); err != nil || k != hashBytes || len(text) != 2*hashBytes {
			return fmt.Errorf("%w: page %d is named %.80q", ErrDamaged, i, text)
		}
		page, err := s.get(ctx, dirPage, hash)
		if err != nil {
			return err
		}
		if int64(len(page)) != n*hashBytes {
			return fmt.Errorf("%w: page %s has %d bytes", ErrDamaged, text, len(page))
		}
		if err := s.readPage(ctx, &m, page, first, fn); err != nil {
			return err
		}
	}
	return nil
}

func (s Store) readPage(ctx context.Context, m *Manifest, page []byte, first int64, fn func(off int64, p []byte) error) error {
	for k := range int64(len(page) / hashBytes) {
		hash := [hashBytes]byte(page[k*hashBytes:])
		if hash == ([hashBytes]byte{}) {
			continue
		}
		off := (first + k) * ChunkBytes
		b, err := s.get(ctx, dirChunk, hash)
		if err != nil {
			return fmt.Errorf("offset %d of the disk: %w", off, err)
		}
		if int64(len(b)) != min(ChunkBytes, m.Size-off) {
			return fmt.Errorf("%w: the chunk of offset %d of the disk has %d bytes", ErrDamaged, off, len(b))
		}
		if err := fn(off, b); err != nil {
			return err
		}
	}
	return nil
}
