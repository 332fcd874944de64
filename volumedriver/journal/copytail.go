package journal

import (
	"fmt"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// CopyTo writes the records of the tail to another pool, where Recover finds them: they are
// durable on return. What is there of the same vDisk and epoch, left by a copy that was cut
// off, goes first. The tail is of that one epoch; it and its chunks stay as they are.
func (r *Recovery) CopyTo(p *Pool, epoch uint32) (err error) {
	if err := p.EraseEpoch(r.vdisk, epoch); err != nil || len(r.Tail) == 0 {
		return err
	}
	first := r.Tail[0].Header
	l := NewLog(LogOptions{Pool: p, VDisk: r.vdisk, Epoch: epoch, Cluster: int(first.Cluster), NextSeq: first.Seq}, nil)
	defer l.Close()
	for _, f := range r.Tail {
		n := f.Header.size()
		rec := blockfs.AlignedBuffer(int(n))
		file, err := r.file(f.Chunk)
		if err != nil {
			return err
		}
		if _, err := file.f.ReadAt(rec, f.Off-int64(f.Header.HeaderBytes)); err != nil {
			return fmt.Errorf("journal %s: %w", file.name, err)
		}
		if f.Header.Epoch != epoch {
			return fmt.Errorf("%w: record of epoch %d in a tail of epoch %d", ErrBadRecord, f.Header.Epoch, epoch)
		}
		if !l.Fits(n) {
			if err := l.AwaitChunk(); err != nil {
				return err
			}
		}
		if err := l.Ingest(f.Header, rec); err != nil {
			return err
		}
	}
	return nil
}

// file returns the file of a chunk of the tail.
func (r *Recovery) file(id uint32) (*chunkFile, error) {
	for _, c := range r.chunks {
		if c.id == id {
			return c.file, nil
		}
	}
	return nil, fmt.Errorf("%w: the tail has no chunk %d", ErrBadRecord, id)
}
