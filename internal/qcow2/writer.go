package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Writer writes an image of version 3 with clusters of 64 KiB, not compressed. It holds
// the L1 table and one L2 table: at most 1 MiB for the largest disk.
type Writer struct {
	f    io.WriterAt
	size int64
	next int64 // cluster of the file that is written next
	l1   []byte
	l2   []byte
	at   int64 // L1 index of l2; -1: none
	last int64 // end of the newest range, in clusters of the disk
}

// ClusterSize is the unit of a Writer's images, in bytes.
const ClusterSize = 1 << writeBits

const (
	writeBits    = 16
	writeTable   = ClusterSize / 8 // entries
	refcountBits = 16
	perRefcount  = ClusterSize * 8 / refcountBits // clusters of the file
)

// NewWriter begins an image of a disk of size bytes in an empty file.
func NewWriter(f io.WriterAt, size int64) (*Writer, error) {
	if size <= 0 || size > MaxSize || size%sectorBytes != 0 {
		return nil, fmt.Errorf("a qcow2 image of %d bytes is not possible", size)
	}
	tables := (size + ClusterSize*writeTable - 1) / (ClusterSize * writeTable)
	l1 := (tables*8 + ClusterSize - 1) / ClusterSize
	return &Writer{f: f, size: size, next: 1 + l1, l1: make([]byte, l1*ClusterSize), at: -1}, nil
}

// WriteCluster adds the cluster of the disk at off, a multiple of ClusterSize above
// those of earlier calls. p is one cluster, or less at the end of the disk.
func (w *Writer) WriteCluster(p []byte, off int64) error {
	i := off / ClusterSize
	if off%ClusterSize != 0 || i < w.last || off >= w.size || len(p) == 0 || int64(len(p)) != min(ClusterSize, w.size-off) {
		return fmt.Errorf("qcow2: %d bytes at offset %d do not follow", len(p), off)
	}
	if i/writeTable != w.at {
		if err := w.flush(); err != nil {
			return err
		}
		w.at, w.l2 = i/writeTable, make([]byte, ClusterSize)
	}
	if len(p) < ClusterSize {
		p = append(append(make([]byte, 0, ClusterSize), p...), make([]byte, ClusterSize-len(p))...)
	}
	at, err := w.put(p)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint64(w.l2[i%writeTable*8:], uint64(at)|flagCopied)
	w.last = i + 1
	return nil
}

// put writes clusters at the end of the file and returns their offset.
func (w *Writer) put(p []byte) (int64, error) {
	at := w.next * ClusterSize
	w.next += int64(len(p) / ClusterSize)
	_, err := w.f.WriteAt(p, at)
	return at, err
}

// flush writes the L2 table.
func (w *Writer) flush() error {
	if w.at < 0 {
		return nil
	}
	at, err := w.put(w.l2)
	binary.BigEndian.PutUint64(w.l1[w.at*8:], uint64(at)|flagCopied)
	w.at = -1
	return err
}

// Finish writes the tables and, after what sync makes durable, the header (Q3). The
// caller syncs the file once more.
func (w *Writer) Finish(sync func() error) error {
	if err := w.flush(); err != nil {
		return err
	}
	if _, err := w.f.WriteAt(w.l1, ClusterSize); err != nil {
		return err
	}
	table, clusters, err := w.refcounts()
	if err != nil {
		return err
	}
	if err := sync(); err != nil {
		return err
	}
	be := binary.BigEndian
	h := make([]byte, ClusterSize)
	be.PutUint32(h[0:], magic)
	be.PutUint32(h[4:], 3)
	be.PutUint32(h[20:], writeBits)
	be.PutUint64(h[24:], uint64(w.size))
	be.PutUint32(h[36:], uint32((w.size+ClusterSize*writeTable-1)/(ClusterSize*writeTable)))
	be.PutUint64(h[40:], ClusterSize)
	be.PutUint64(h[48:], uint64(table))
	be.PutUint32(h[56:], uint32(clusters))
	be.PutUint32(h[96:], 4) // 2^4 bits
	be.PutUint32(h[100:], header3)
	_, err = w.f.WriteAt(h, 0)
	return err
}

// refcounts writes refcount blocks and their table at the end of the file; every
// cluster up to there is used once.
func (w *Writer) refcounts() (table, tableClusters int64, err error) {
	// They count themselves: more of them until they cover all.
	blocks := int64(0)
	for {
		tableClusters = max(1, (blocks*8+ClusterSize-1)/ClusterSize)
		need := (w.next + blocks + tableClusters + perRefcount - 1) / perRefcount
		if need <= blocks {
			break
		}
		blocks = need
	}
	total := w.next + blocks + tableClusters
	entries := make([]byte, tableClusters*ClusterSize)
	for i := range blocks {
		b := make([]byte, ClusterSize)
		for k := range min(perRefcount, total-i*perRefcount) {
			b[2*k+1] = 1
		}
		at, err := w.put(b)
		if err != nil {
			return 0, 0, err
		}
		binary.BigEndian.PutUint64(entries[8*i:], uint64(at))
	}
	table, err = w.put(entries)
	return table, tableClusters, err
}
