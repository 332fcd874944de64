// Package selfcheck is the load whose loss shows: every 4 KiB block it writes
// says which block it is, which version, and of which run, and carries a
// checksum over all of it. Drills write with many commands in flight, kill the
// node, and verify.
//
//	 0       8       16      24      32                          4092  4096
//	| magic | run   | block | version| noise out of the others ... | crc32c |
//
// # Invariants
//
//	V1  At most one command is in flight per block, so the versions of a block
//	    are ordered.
//	V2  A version is used once: also a write whose outcome is unknown spends it.
//	V3  After any crash a block holds a version v, acknowledged <= v <= submitted,
//	    whole and its own. Zeros are version 0.
//	V4  What a read returned counts as acknowledged.
//	V5  A write whose outcome was unknown and that Verify did not find never
//	    appears later.
//	V6  What a read returns, on whatever path, is not older than what was acknowledged
//	    before the read was sent.
package selfcheck

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// BlockSize is the unit of versions, in bytes.
const BlockSize = 4096

// maxBlocks is the longest write, in blocks; enough that one command spans
// clusters, extents and SCO groups.
const maxBlocks = 32

const magic = 0x6b63656863666c73 // "slfcheck"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Disk is what the load writes to; an iSCSI LUN in drills. Calls are concurrent.
type Disk interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
}

// Counts are figures of a load.
type Counts struct {
	Writes, Blocks, Reads uint64 // acknowledged commands, blocks in them, verified reads
	Unknown               uint64 // blocks whose last write was not answered, so far
	Unread                uint64 // reads that failed, so far
	ReadError             error  // of the last of them
}

// Load is the state of one disk's blocks. Create it once per disk; it lives on
// over crashes.
type Load struct {
	run    uint64
	blocks []block
	mu     sync.Mutex // guards blocks

	writes, written, reads, unknown atomic.Uint64

	unread    uint64 // reads that failed; mu guards both
	readError error
}

type block struct {
	submitted, acked uint64
	settled          uint64 // versions up to here that are not acked are gone for good (V5)
	busy             bool
}

// New returns the load of a disk's first n blocks, which must be zero. run
// tells disks and runs apart.
func New(n int, run uint64) *Load { return &Load{run: run, blocks: make([]block, n)} }

// Counts returns the figures so far.
func (l *Load) Counts() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Counts{Writes: l.writes.Load(), Blocks: l.written.Load(), Reads: l.reads.Load(), Unknown: l.unknown.Load(), Unread: l.unread, ReadError: l.readError}
}

// Run keeps depth commands in flight until ctx ends or the disk fails. The
// disk's failure is what a drill wants: it is not returned. What is returned is
// a broken promise.
func (l *Load) Run(ctx context.Context, d Disk, depth int, seed uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, depth)
	var wg sync.WaitGroup
	for i := range depth {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			buf := make([]byte, maxBlocks*BlockSize)
			for ctx.Err() == nil {
				alive, err := l.step(d, rng, buf)
				if err != nil {
					errs[i] = err
					cancel()
				}
				if !alive {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// step does one command; false when the disk does not answer any more.
func (l *Load) step(d Disk, rng *rand.Rand, buf []byte) (bool, error) {
	n := 1
	if rng.IntN(4) == 0 {
		n += rng.IntN(maxBlocks)
	}
	first, ok := l.claim(rng.IntN(len(l.blocks)), n)
	if !ok {
		return true, nil // somebody is there: try elsewhere
	}
	buf = buf[:n*BlockSize]
	if rng.IntN(4) == 0 {
		return l.read(d, first, n, buf)
	}
	return l.write(d, first, n, buf), nil
}

// claim marks n blocks as busy (V1).
func (l *Load) claim(first, n int) (int, bool) {
	first = min(first, len(l.blocks)-n)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := first; i < first+n; i++ {
		if l.blocks[i].busy {
			return 0, false
		}
	}
	for i := first; i < first+n; i++ {
		l.blocks[i].busy = true
	}
	return first, true
}

func (l *Load) write(d Disk, first, n int, buf []byte) bool {
	l.mu.Lock()
	for i := range n {
		b := &l.blocks[first+i]
		b.submitted++
		l.fill(buf[i*BlockSize:(i+1)*BlockSize], uint64(first+i), b.submitted)
	}
	l.mu.Unlock()
	_, err := d.WriteAt(buf, int64(first)*BlockSize)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range n {
		b := &l.blocks[first+i]
		b.busy = false
		if err == nil {
			b.acked = b.submitted
		}
	}
	if err != nil {
		l.unknown.Add(uint64(n))
		return false
	}
	l.writes.Add(1)
	l.written.Add(uint64(n))
	return true
}

func (l *Load) read(d Disk, first, n int, buf []byte) (bool, error) {
	_, err := d.ReadAt(buf, int64(first)*BlockSize)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range n {
		l.blocks[first+i].busy = false
	}
	if err != nil {
		l.unread++
		l.readError = fmt.Errorf("read of %d blocks at block %d: %w", n, first, err)
		return false, nil
	}
	for i := range n {
		if err := l.check(first+i, buf[i*BlockSize:(i+1)*BlockSize]); err != nil {
			return false, fmt.Errorf("read under load: %w", err)
		}
	}
	l.reads.Add(1)
	return true, nil
}

// Verify reads every block and checks V3. Nothing may be in flight.
func (l *Load) Verify(d Disk) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	const chunk = 64 // blocks of one read
	buf := make([]byte, chunk*BlockSize)
	for first := 0; first < len(l.blocks); first += chunk {
		n := min(chunk, len(l.blocks)-first)
		p := buf[:n*BlockSize]
		if _, err := d.ReadAt(p, int64(first)*BlockSize); err != nil {
			return fmt.Errorf("verify: read %d blocks at block %d: %w", n, first, err)
		}
		for i := range n {
			if err := l.check(first+i, p[i*BlockSize:(i+1)*BlockSize]); err != nil {
				return fmt.Errorf("verify: %w", err)
			}
			l.blocks[first+i].settled = l.blocks[first+i].submitted
		}
	}
	return nil
}

// Blocks is the number of blocks.
func (l *Load) Blocks() int { return len(l.blocks) }

// Probe reads n blocks beside the load, on another path, and checks V6. answered is false
// when the path does not answer the read, which is no broken promise.
func (l *Load) Probe(d Disk, first, n int) (answered bool, err error) {
	l.mu.Lock()
	least := make([]uint64, n)
	for i := range least {
		least[i] = l.blocks[first+i].acked
	}
	l.mu.Unlock()
	p := make([]byte, n*BlockSize)
	if _, err := d.ReadAt(p, int64(first)*BlockSize); err != nil {
		return false, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range n {
		v, err := l.parse(uint64(first+i), p[i*BlockSize:(i+1)*BlockSize])
		if err != nil {
			return true, fmt.Errorf("probe: block %d: %w", first+i, err)
		}
		if most := l.blocks[first+i].submitted; v < least[i] || v > most {
			return true, fmt.Errorf("probe: block %d: version %d was read, %d was acknowledged before that, %d submitted", first+i, v, least[i], most)
		}
	}
	return true, nil
}

// Forget allows every block to hold any version up to the one submitted: for
// drills that lose the tail on purpose. What Mark kept stays the lower bound.
func (l *Load) Forget(mark []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.blocks {
		l.blocks[i].acked, l.blocks[i].settled = mark[i], mark[i]
	}
}

// Mark returns the acknowledged versions of now.
func (l *Load) Mark() []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	mark := make([]uint64, len(l.blocks))
	for i, b := range l.blocks {
		mark[i] = b.acked
	}
	return mark
}

// check verifies one block's content and takes its version as acknowledged
// (V3, V4). The caller holds mu.
func (l *Load) check(i int, p []byte) error {
	b := &l.blocks[i]
	v, err := l.parse(uint64(i), p)
	if err != nil {
		return fmt.Errorf("block %d (acknowledged %d, submitted %d): %w", i, b.acked, b.submitted, err)
	}
	if v < b.acked || v > b.submitted {
		return fmt.Errorf("block %d holds version %d: acknowledged %d, submitted %d", i, v, b.acked, b.submitted)
	}
	if v != b.acked && v <= b.settled {
		return fmt.Errorf("block %d holds version %d, which was not there at the last check (acknowledged %d)", i, v, b.acked)
	}
	b.acked = v
	return nil
}

// fill writes the content of a version.
func (l *Load) fill(p []byte, index, version uint64) {
	binary.LittleEndian.PutUint64(p, magic)
	binary.LittleEndian.PutUint64(p[8:], l.run)
	binary.LittleEndian.PutUint64(p[16:], index)
	binary.LittleEndian.PutUint64(p[24:], version)
	x := l.run ^ index*0x9e3779b97f4a7c15 ^ version*0xbf58476d1ce4e5b9 | 1
	for i := 32; i < BlockSize-8; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p[i:], x)
	}
	binary.LittleEndian.PutUint32(p[BlockSize-8:], 0)
	binary.LittleEndian.PutUint32(p[BlockSize-4:], crc32.Checksum(p[:BlockSize-4], castagnoli))
}

// parse returns the version a block holds; 0 for zeros.
func (l *Load) parse(index uint64, p []byte) (uint64, error) {
	if allZero(p) {
		return 0, nil
	}
	if crc32.Checksum(p[:BlockSize-4], castagnoli) != binary.LittleEndian.Uint32(p[BlockSize-4:]) ||
		binary.LittleEndian.Uint64(p) != magic {
		return 0, fmt.Errorf("torn or damaged: begins with %x", p[:32])
	}
	run, at := binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint64(p[16:])
	if run != l.run || at != index {
		return 0, fmt.Errorf("foreign: block %d of run %x, this is run %x", at, run, l.run)
	}
	return binary.LittleEndian.Uint64(p[24:]), nil
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
