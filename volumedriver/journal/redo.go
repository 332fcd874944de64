package journal

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// foundFrame is a valid frame, without its records, and where it is.
type foundFrame struct {
	frame
	file blockfs.File
	off  int64
}

// redo puts what the frames of the run before hold into the chunks (J6): nothing of it may
// have got there. The files of the group log go then. They stay, and there is no group log in
// this run, while a chunk refuses what belongs into it.
func (p *Pool) redo(names []string) error {
	if !p.says.Group { // it was, and they were about to go
		return p.removeGroup()
	}
	var frames []foundFrame
	for _, name := range names {
		f, err := p.o.FS.Open(p.o.Dir+"/"+name, blockfs.Direct)
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		defer f.Close()
		size, err := f.Size()
		if err != nil {
			return fmt.Errorf("journal %s: %w", name, err)
		}
		found, err := scanFrames(f, size)
		if err != nil {
			return fmt.Errorf("journal %s: %w", name, err)
		}
		frames = append(frames, found...)
	}
	holes, err := p.redoFrames(frames)
	if err != nil {
		return err
	}
	if holes > 0 {
		p.o.Group = GroupOptions{}
		return nil
	}
	if err := p.removeGroup(); errors.Is(err, syscall.ENOSPC) {
		// Of a full disk the vDisks are served, too: what the frames hold is in the chunks.
		p.o.Log.Warn("files of the group log stay, and appends of many vdisks are not grouped, until a start with room", "dir", p.o.Dir, "err", err)
		p.o.Group = GroupOptions{}
		return nil
	} else if err != nil {
		return err
	}
	return nil
}

// redoFrames puts the records of frames, of any order, into the chunks, and notes, durably,
// where some are missing (E3). It returns how many records their chunks refused.
func (p *Pool) redoFrames(frames []foundFrame) (holes int, err error) {
	if len(frames) == 0 {
		return 0, nil
	}
	slices.SortFunc(frames, func(a, b foundFrame) int { return cmp.Compare(a.number, b.number) })
	last := frames[len(frames)-1]
	next, put := last.oldest, 0
	var damage frameDamage
	chunks := map[uint64]*chunkFile{}
	for _, held := range p.held {
		for _, cf := range held {
			chunks[cf.number] = cf
		}
	}
	for i := range frames {
		f := &frames[i]
		if f.number < last.oldest {
			continue // what it holds is in the chunks
		}
		if f.number != next || f.run != last.run {
			damage.add("frames %d to %d of the group log are damaged", next, f.number-1)
		}
		next = f.number + 1
		err := f.each(func(r *framed, h *Header, rec []byte, err error) {
			switch cf := chunks[r.chunk]; {
			case err != nil && f.number == last.number: // its write was torn, and nothing of it acknowledged
			case err != nil:
				damage.add("a record in frame %d of the group log is damaged", f.number)
			case cf == nil || cf.owner != h.VDisk || cf.generation != h.Generation || r.off+h.size() > cf.bytes:
				// The chunk was released, or moved.
			case cf.has(rec, r.off):
			default:
				put++
				if _, err := cf.f.WriteAt(rec, r.off); err != nil {
					p.o.Log.Error("a journal chunk refuses a record of the group log", "chunk", cf.name, "off", r.off, "err", err)
					cf.hole = true
					holes++
				}
			}
		})
		if err != nil {
			return holes, fmt.Errorf("journal: frame %d of the group log: %w", f.number, err)
		}
	}
	if damage.places > 0 {
		if err := p.noteDamage(chunks, damage.String(), fmt.Sprintf("%x-%d-%x", last.run, last.number, damage.sum)); err != nil {
			return holes, err
		}
	}
	p.o.Log.Info("records of the group log are in their chunks", "dir", p.o.Dir, "frames", last.number-last.oldest+1, "records", put, "refused", holes, "damage", damage.String())
	return holes, nil
}

// frameDamage is what is not whole of the frames of a run.
type frameDamage struct {
	first  string
	places int
	sum    [sha256.Size]byte // of all places
}

func (d *frameDamage) add(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if d.places++; d.places == 1 {
		d.first = what
	}
	d.sum = sha256.Sum256(append(d.sum[:], what...))
}

func (d *frameDamage) String() string {
	if d.places > 1 {
		return fmt.Sprintf("%s, and %d places more", d.first, d.places-1)
	}
	return d.first
}

// noteDamage marks chunks as damaged, durably: the frames that tell it will go. Of which of
// them something is missing, nobody knows. told names the damage: where the files of the group
// log stayed, and a start before this one told of the same, it says nothing new, and what was
// accepted or taken into use since is not touched by it.
func (p *Pool) noteDamage(chunks map[uint64]*chunkFile, why, told string) error {
	if p.says.Told == told {
		return nil
	}
	var marks []damagedChunk
	for _, n := range slices.Sorted(maps.Keys(chunks)) {
		marks = append(marks, damagedChunk{n, chunks[n].generation, why})
	}
	say := func(id *poolIdentity) {
		id.Told = told
		for _, m := range marks {
			if !slices.ContainsFunc(id.Damaged, func(d damagedChunk) bool { return d.Chunk == m.Chunk && d.Generation == m.Generation }) {
				id.Damaged = append(id.Damaged, m)
			}
		}
	}
	err := p.identity(say)
	switch {
	case err == nil:
		p.markDamaged()
	case errors.Is(err, syscall.ENOSPC): // the frames stay, and tell it at the next start again
		p.unsaid = say
		for _, cf := range chunks {
			if cf.damage == nil {
				cf.damage = errors.New(why)
			}
		}
	default:
		return err
	}
	return nil
}

// has tells whether a record is in the chunk.
func (cf *chunkFile) has(rec []byte, off int64) bool {
	was := blockfs.AlignedBuffer(len(rec))
	_, err := cf.f.ReadAt(was, off) // what cannot be read, is not there
	return err == nil && bytes.Equal(was, rec)
}

// each reads the frame's records and calls fn for each: whole as it belongs into its chunk, or
// with the error of ErrBadRecord. The error is that of the file, or ErrNewerFormat.
func (f *foundFrame) each(fn func(r *framed, h *Header, rec []byte, err error)) error {
	b := blockfs.AlignedBuffer(int(f.size()))
	if _, err := f.file.ReadAt(b, f.off); err != nil {
		return err
	}
	fr, err := decodeFrame(b[:f.headerBytes])
	if err != nil {
		return err // it was valid when it was scanned
	}
	data := b[f.headerBytes:]
	for i := range fr.records {
		r := &fr.records[i]
		h, rec, err := r.record(data)
		if errors.Is(err, ErrNewerFormat) {
			return err
		}
		data = data[r.data:]
		fn(r, h, rec, err)
	}
	return nil
}

// scanFrames returns the valid frames in a file of the group log of size bytes, those of
// earlier turns included. The data of a frame are verified with its records.
func scanFrames(f blockfs.File, size int64) (frames []foundFrame, err error) {
	c := &recovered{file: &chunkFile{name: "group log", f: f, bytes: size &^ (blockfs.Alignment - 1)}}
	defer c.release()
	for off := int64(0); off+blockfs.Alignment <= c.file.bytes; {
		fr, err := c.frame(off)
		switch {
		case err == nil:
			off += fr.size()
			fr.records = nil
			frames = append(frames, foundFrame{*fr, f, off - fr.size()})
		case errors.Is(err, ErrBadRecord):
			off += blockfs.Alignment
		default:
			return nil, err
		}
	}
	return frames, nil
}

// frame reads the header of the frame at off; ErrBadRecord if there is none.
func (c *recovered) frame(off int64) (*frame, error) {
	b, err := c.read(blockfs.Alignment, off)
	if err != nil {
		return nil, err
	}
	n, err := peekFrame(b)
	if err != nil {
		return nil, err
	}
	if off+int64(n) > c.file.bytes {
		return nil, ErrBadRecord
	}
	if b, err = c.read(n, off); err != nil {
		return nil, err
	}
	f, err := decodeFrame(b)
	if err == nil && off+f.size() > c.file.bytes {
		err = ErrBadRecord
	}
	return f, err
}

// removeGroup says that the chunks have it all, as far as they are not damaged, and removes
// the files of the group log, which mean nothing then.
func (p *Pool) removeGroup() error {
	if err := p.identity(func(id *poolIdentity) { id.Group, id.Told = false, "" }); err != nil {
		return err
	}
	return p.removeGroupFiles()
}

// removeGroupFiles removes the files of the group log.
func (p *Pool) removeGroupFiles() error {
	list, err := p.o.FS.List(p.o.Dir)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for _, e := range list {
		if isGroup(strings.TrimPrefix(e.Name, newName)) {
			if err := p.o.FS.Remove(p.o.Dir + "/" + e.Name); err != nil {
				return fmt.Errorf("journal: %w", err)
			}
		}
	}
	if err := p.o.FS.SyncDir(p.o.Dir); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}
