package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
)

// Format of the file: slots of SlotBytes, each a header and the bytes of a group.
//
//	0   8  magic "OVGCACH1"
//	8   8  run: drawn at each start; what another run wrote is not read
//	16  8  Key.Space
//	24  4  Key.SCO
//	28  4  Key.Group
//	32  4  length of the group, bytes
//	36  4  crc32c of the 36 bytes before and of the group
//	40 24  zeros
//	64     the group
//
// Integers are little-endian.
const (
	slotMagic  = "OVGCACH1"
	slotHeader = 64
	crcAt      = 36
	// SlotBytes holds a group of 64 KiB with its checksums, in whole device blocks.
	SlotBytes = 68 << 10
	// queueLength is how many groups may wait to be written, 4 MiB: what comes faster
	// than the disk takes it is not kept.
	queueLength = 64
	// victims is how many slots a group may try to take.
	victims = 5
	// A disk that fails rests this long, doubling.
	minRest = time.Second
	maxRest = 5 * time.Minute
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// DiskOptions say where groups go that memory has no room for.
type DiskOptions struct {
	FS    blockfs.FS
	Name  string // of the file
	Bytes int64  // most it may take; at least SlotBytes
	Rand  io.Reader
	Clock clock.Clock
	Log   *slog.Logger
}

// Disk keeps groups in a file, the second level of the cache. It is empty after a
// start, and needs up to 150 bytes of memory for each group.
//
// Invariants:
//
//	C4  A group is what was put under its key, or not there: header and checksum of
//	    the slot are verified on each read, which therefore needs no lock.
//	C5  Nothing waits for it but the reader that it serves: what is offered faster
//	    than it can be written is not kept, and a disk that fails rests.
//	C6  What is read once does not push out what is read often: a group takes
//	    another's slot only if it was used more often lately (see sketch).
type Disk struct {
	o    DiskOptions
	file blockfs.File
	run  uint64
	bufs sync.Pool // *[]byte of SlotBytes, aligned
	wg   sync.WaitGroup

	mu     sync.Mutex
	index  map[Key]int32
	slots  []slot // those used so far
	max    int32
	free   []int32
	hand   int
	freq   *sketch
	queue  chan offer
	closed bool
	rest   time.Duration
	until  time.Time // it rests
	err    error     // why
	stats  DiskStats
}

type slot struct {
	key  Key
	user *User
	held bool
	used uint8 // CLOCK: turns of the hand that it survives
}

type offer struct {
	key  Key
	user *User
	data []byte
}

// DiskStats are counters since the start, and what is held.
type DiskStats struct {
	Hits, Misses uint64
	Written      uint64 // groups
	Refused      uint64 // groups that were not used often enough, or came too fast
	Bytes        int64  // of the file
	MaxBytes     int64
	Queued       int   // groups that wait to be written
	Err          error // why the disk is not used at the moment; nil: it is
}

// OpenDisk makes the file anew.
func OpenDisk(o DiskOptions) (*Disk, error) {
	if o.Bytes < SlotBytes {
		return nil, fmt.Errorf("read cache %s: %d bytes are too few: use %d or more", o.Name, o.Bytes, SlotBytes)
	}
	var run [8]byte
	if _, err := io.ReadFull(o.Rand, run[:]); err != nil {
		return nil, fmt.Errorf("read cache %s: %w", o.Name, err)
	}
	f, err := o.FS.Open(o.Name, blockfs.Write|blockfs.Create|blockfs.Direct)
	if err != nil {
		return nil, fmt.Errorf("read cache: %w", err)
	}
	if err := f.Truncate(0); err != nil {
		f.Close()
		return nil, fmt.Errorf("read cache: %w", err)
	}
	n := min(o.Bytes/SlotBytes, 1<<31-1)
	d := &Disk{o: o, file: f, run: binary.LittleEndian.Uint64(run[:]), index: map[Key]int32{}, max: int32(n),
		freq: newSketch(n), queue: make(chan offer, queueLength)}
	d.bufs.New = func() any { b := blockfs.AlignedBuffer(SlotBytes); return &b }
	d.wg.Add(1)
	go d.write()
	return d, nil
}

// Get returns a group, nil if it is not there.
func (d *Disk) Get(k Key) []byte {
	d.mu.Lock()
	d.freq.add(k, 1)
	s, ok := d.index[k]
	if !ok || d.resting() {
		d.stats.Misses++
		d.mu.Unlock()
		return nil
	}
	d.slots[s].used = min(d.slots[s].used+1, 3)
	d.mu.Unlock()

	buf := d.bufs.Get().(*[]byte)
	defer d.bufs.Put(buf)
	n, err := d.file.ReadAt(*buf, int64(s)*SlotBytes)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	var data []byte
	if ok = err == nil && n == SlotBytes; ok {
		data, ok = d.decode(*buf, k)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if ok {
		d.stats.Hits++
		return data
	}
	d.stats.Misses++
	if d.index[k] == s && d.slots[s].held && d.slots[s].key == k { // not given to another meanwhile
		d.release(s)
		if err == nil {
			d.o.Log.Warn("read cache damaged, the group is read from the backend", "file", d.o.Name, "slot", s)
		}
	}
	if err != nil {
		d.failed(err)
	}
	return nil
}

// encode fills a slot.
func (d *Disk) encode(p []byte, o offer) {
	h := p[:slotHeader]
	clear(h)
	copy(h, slotMagic)
	binary.LittleEndian.PutUint64(h[8:], d.run)
	binary.LittleEndian.PutUint64(h[16:], o.key.Space)
	binary.LittleEndian.PutUint32(h[24:], o.key.SCO)
	binary.LittleEndian.PutUint32(h[28:], o.key.Group)
	binary.LittleEndian.PutUint32(h[32:], uint32(len(o.data)))
	n := copy(p[slotHeader:], o.data)
	clear(p[slotHeader+n:])
	sum := crc32.Update(crc32.Checksum(h[:crcAt], castagnoli), castagnoli, o.data)
	binary.LittleEndian.PutUint32(h[crcAt:], sum)
}

// decode returns a copy of the group in a slot, if it is the one of k (C4).
func (d *Disk) decode(p []byte, k Key) ([]byte, bool) {
	n := binary.LittleEndian.Uint32(p[32:])
	if string(p[:8]) != slotMagic || binary.LittleEndian.Uint64(p[8:]) != d.run || n > SlotBytes-slotHeader ||
		binary.LittleEndian.Uint64(p[16:]) != k.Space || binary.LittleEndian.Uint32(p[24:]) != k.SCO || binary.LittleEndian.Uint32(p[28:]) != k.Group {
		return nil, false
	}
	data := append([]byte(nil), p[slotHeader:slotHeader+n]...)
	sum := crc32.Update(crc32.Checksum(p[:crcAt], castagnoli), castagnoli, data)
	return data, sum == binary.LittleEndian.Uint32(p[crcAt:])
}

// Offer hands over a group of a user that left memory, which was used so many times
// there. data must not change any more.
func (d *Disk) Offer(k Key, u *User, data []byte, uses int) {
	if len(data) > SlotBytes-slotHeader {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.resting() {
		return
	}
	if u.Mode() == None || u.over(SlotBytes) {
		d.stats.Refused++
		return
	}
	d.freq.add(k, uses)
	if _, there := d.index[k]; there {
		return
	}
	select {
	case d.queue <- offer{k, u, data}:
	default:
		d.stats.Refused++
	}
}

// write is the goroutine that writes slots.
func (d *Disk) write() {
	defer d.wg.Done()
	for o := range d.queue {
		s, ok := d.place(o.key)
		if !ok {
			continue
		}
		buf := d.bufs.Get().(*[]byte)
		d.encode(*buf, o)
		_, err := d.file.WriteAt(*buf, int64(s)*SlotBytes)
		d.bufs.Put(buf)
		d.mu.Lock()
		if err != nil {
			d.free = append(d.free, s)
			d.failed(err)
		} else {
			d.slots[s] = slot{key: o.key, user: o.user, held: true}
			o.user.bytes.Add(SlotBytes)
			d.index[o.key] = s
			d.stats.Written++
			d.recovered()
		}
		d.mu.Unlock()
	}
}

// place finds the slot for a group; false: it is not to be kept.
func (d *Disk) place(k Key) (int32, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, there := d.index[k]; there || d.closed || d.resting() {
		return 0, false
	}
	if n := len(d.free); n > 0 {
		s := d.free[n-1]
		d.free = d.free[:n-1]
		return s, true
	}
	if int32(len(d.slots)) < d.max {
		d.slots = append(d.slots, slot{})
		return int32(len(d.slots) - 1), true
	}
	uses := d.freq.count(k)
	for range victims {
		s := d.victim()
		if s < 0 {
			break
		}
		if d.freq.count(d.slots[s].key) < uses {
			d.release(s)
			d.free = d.free[:len(d.free)-1]
			return s, true
		}
	}
	d.stats.Refused++
	return 0, false
}

// victim turns the hand to a slot that was not used since it last came by; -1: none
// is held.
func (d *Disk) victim() int32 {
	for range 5 * len(d.slots) { // used is 3 at most
		if d.hand++; d.hand >= len(d.slots) {
			d.hand = 0
		}
		s := &d.slots[d.hand]
		switch {
		case !s.held:
		case s.used > 0:
			s.used--
		default:
			return int32(d.hand)
		}
	}
	return -1
}

// release empties a slot; d.mu is held.
func (d *Disk) release(s int32) {
	delete(d.index, d.slots[s].key)
	d.slots[s].user.bytes.Add(-SlotBytes)
	d.slots[s] = slot{}
	d.free = append(d.free, s)
}

// Drop forgets a group.
func (d *Disk) Drop(k Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.index[k]; ok {
		d.release(s)
	}
}

// resting tells whether the disk is left alone after an error; d.mu is held.
func (d *Disk) resting() bool { return d.err != nil && d.o.Clock.Now().Before(d.until) }

func (d *Disk) failed(err error) {
	if d.err == nil || !d.resting() {
		d.rest = min(max(2*d.rest, minRest), maxRest)
		d.until = d.o.Clock.Now().Add(d.rest)
		d.o.Log.Warn("read cache rests", "file", d.o.Name, "for", d.rest, "err", err)
	}
	d.err = err
}

func (d *Disk) recovered() {
	if d.err != nil {
		d.err, d.rest = nil, 0
		d.o.Log.Info("read cache works again", "file", d.o.Name)
	}
}

// Stats returns counters, and why the disk rests.
func (d *Disk) Stats() DiskStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.stats
	s.Bytes, s.MaxBytes, s.Err = int64(len(d.index))*SlotBytes, int64(d.max)*SlotBytes, d.err
	s.Queued = len(d.queue)
	return s
}

// Close ends the writing and closes the file.
func (d *Disk) Close() error {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		close(d.queue)
	}
	d.mu.Unlock()
	d.wg.Wait()
	return d.file.Close()
}
