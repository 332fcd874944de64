package journal

import (
	"errors"
	"fmt"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
)

// MaxRecordBytes bounds a record, header and data.
const MaxRecordBytes = maxHeader + maxRecordData

// ErrOrder: a record does not follow on the newest one of the log.
var ErrOrder = errors.New("journal record out of order")

// ParseRecord reads a whole record of a vDisk, header and data, as Ingest takes it, and
// verifies every checksum in it. ErrBadRecord, ErrNewerFormat.
func ParseRecord(vdisk [16]byte, rec []byte) (*Header, error) {
	n, err := peekHeader(rec)
	if err != nil {
		return nil, err
	}
	if n > len(rec) {
		return nil, ErrBadRecord
	}
	h, err := decodeHeader(rec[:n])
	if err != nil {
		return nil, err
	}
	if h.VDisk != vdisk || h.size() != int64(len(rec)) || !h.verifyData(clustersum.NewSeed(vdisk), rec[n:]) {
		return nil, ErrBadRecord
	}
	return h, nil
}

// Bytes returns header and data of a record that Build made. They stay as they are until
// Finish is called.
func (r *Record) Bytes() []byte { return r.buf }

// Ingest appends a record that the Log of another node built: h is what ParseRecord says of
// rec, which is aligned, and gets the generation of the chunk (J1). It is durable on return
// and not kept in memory. The caller made room with Fits and AddChunk; a goroutine that
// calls it is the log's committer. ErrOrder, and nothing is written, if it is not the next.
func (l *Log) Ingest(h *Header, rec []byte) error {
	if h.Seq != l.seq || h.Seqs == 0 || h.Cluster != l.cluster {
		return fmt.Errorf("%w: record of seq %d and %d seqs, expected seq %d", ErrOrder, h.Seq, h.Seqs, l.seq)
	}
	c := l.cur
	l.time = max(l.time, h.Time)
	l.ingests = true
	r := Record{chunk: c, buf: rec, header: int(h.HeaderBytes), generation: c.generation, time: l.time, lastSeq: h.LastSeq(),
		at: Placed{Seq: h.Seq, Chunk: c.id, Off: l.off + int64(h.HeaderBytes), Bytes: h.size()}}
	regenerate(rec[:r.header], r.generation)
	l.Start(&r)
	if _, err := l.Finish(&r); err != nil {
		return err
	}
	l.promise = h.Promise
	l.seq = h.LastSeq() + 1
	l.off += h.size()
	return nil
}

// promiseApart is Promise of a log that ingests: nothing of it is in memory, and memory that
// had the promise alone would stand for the records behind it, too.
func (l *Log) promiseApart(now int64) error {
	c := l.cur
	l.time = max(l.time, now)
	buf := blockfs.AlignedBuffer(promiseBytes)
	encodeHeader(buf, &Header{HeaderBytes: promiseBytes, Generation: c.generation, VDisk: l.vdisk, Epoch: l.epoch,
		Seq: l.seq, Promise: l.seq - 1, Time: l.time, Cluster: l.cluster})
	r := Record{chunk: c, buf: buf, header: promiseBytes, generation: c.generation, time: l.time, lastSeq: l.seq - 1,
		at: Placed{Seq: l.seq, Chunk: c.id, Off: l.off + promiseBytes, Bytes: promiseBytes}}
	l.Start(&r)
	if _, err := l.Finish(&r); err != nil {
		return err
	}
	l.off += promiseBytes
	l.promise = l.seq - 1
	return nil
}
