package dtl

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
	"github.com/openvstorage/ovgate/volumedriver/journal"
)

const (
	stateFormat = 1
	maxState    = 4 << 10
	// promiseDelay is how long the newest record of a copy stays unpromised (E3).
	promiseDelay = 100 * time.Millisecond
)

// state is what a copy is beside its chunks: the content of DIR/VDISK.
type state struct {
	Format     int    `json:"format"`
	Pool       string `json:"pool"` // journal pool of the chunks
	Node       string `json:"node"` // whose copy it is
	Epoch      uint32 `json:"epoch"`
	Cluster    uint32 `json:"cluster"` // bytes
	Generation uint64 `json:"generation"`
	Start      uint64 `json:"start"`    // first seq
	Released   uint64 `json:"released"` // all up to here is on the backend
	Adopted    bool   `json:"adopted,omitempty"`
	// Opened is the first seq of the newest chunk; 0: there is none that is needed.
	Opened uint64 `json:"opened,omitempty"`
}

// copyOf is the copy of one vDisk.
type copyOf struct {
	s     *Server
	vdisk [16]byte

	qmu     sync.Mutex
	queue   []*work
	running bool // a goroutine works on the queue

	mu    sync.Mutex
	state state        // Generation 0: none
	log   *journal.Log // nil: none, or adopted
	// yielded: the node serves nobody from that opening any more.
	yielded bool
	used    time.Time   // when its node asked for something last
	kept    atomic.Bool // there is one: Generation is not 0
	// stopPromise takes back that an idle copy is promised.
	stopPromise func() bool
}

// work is a request on its way; without a session, that the copy is promised.
type work struct {
	ss   *session
	typ  uint16
	req  request
	body []byte // of an append, aligned
}

func (c *copyOf) path() string { return c.s.o.Dir + "/" + hex.EncodeToString(c.vdisk[:]) }

// save makes the state durable.
func (c *copyOf) save(st state) error {
	b, err := json.Marshal(st)
	if err == nil {
		err = blockfs.WriteFile(c.s.o.FS, c.path(), b)
	}
	if err != nil {
		return fmt.Errorf("%w: copy of vdisk %x: %w", ErrFailed, c.vdisk, err)
	}
	return nil
}

// enqueue adds work; a goroutine is there while there is some (D8).
func (c *copyOf) enqueue(w *work) {
	c.qmu.Lock()
	defer c.qmu.Unlock()
	c.queue = append(c.queue, w)
	if !c.running {
		c.running = true
		c.s.wg.Go(c.run)
	}
}

func (c *copyOf) run() {
	for {
		c.qmu.Lock()
		q := c.queue
		c.queue = nil
		c.running = len(q) > 0
		c.qmu.Unlock()
		if len(q) == 0 {
			return
		}
		for _, w := range q {
			c.serve(w)
		}
	}
}

// serve does one request and answers it.
func (c *copyOf) serve(w *work) {
	c.mu.Lock()
	var a answer
	var err error
	if w.ss != nil {
		c.used = c.s.o.Clock.Now()
	}
	switch w.typ {
	case typeOpen:
		a.generation, err = c.open(w)
	case typeAppend:
		a.seq, err = c.append(w)
	case typeResume:
		if err = c.check(w); err == nil {
			a.seq = c.durable()
		}
	case typeRelease:
		if err = c.check(w); err == nil {
			err = c.release(w.req.seq)
		}
	case typeYield:
		if err = c.check(w); err == nil {
			c.yielded = true
		}
	case typeDrop:
		if err = c.check(w); err == nil {
			err = c.forget()
		}
	default:
		c.promise()
	}
	c.promiseLater()
	c.mu.Unlock()
	if w.ss == nil {
		return
	}
	if err != nil {
		a = failed(w.req.id, err)
	}
	a.id = w.req.id
	w.ss.answer(a, len(w.body))
}

// durable returns the newest seq of the copy; c.mu is held.
func (c *copyOf) durable() uint64 { return c.log.NextSeq() - 1 }

// check refuses what is not of this copy (D2); c.mu is held.
func (c *copyOf) check(w *work) error {
	st := &c.state
	switch {
	case st.Generation != 0 && (w.req.epoch < st.Epoch || w.req.epoch == st.Epoch && st.Adopted):
		return fmt.Errorf("%w: vdisk %x: epoch %d, %d is known", ErrFenced, c.vdisk, w.req.epoch, st.Epoch)
	case c.log == nil || c.yielded || w.req.generation != st.Generation || w.req.epoch != st.Epoch || w.ss.node != st.Node:
		return fmt.Errorf("%w: vdisk %x, generation %x of epoch %d", ErrGeneration, c.vdisk, w.req.generation, w.req.epoch)
	}
	return nil
}

// fence is Server.fence for the node that the copy is of, unless that yielded; c.mu is held.
func (c *copyOf) fence() time.Duration {
	if c.yielded {
		return 0
	}
	return c.s.fence(c.state.Node)
}

// open begins an empty copy (D1, D3); c.mu is held.
func (c *copyOf) open(w *work) (uint64, error) {
	st, r := &c.state, &w.req
	if st.Generation != 0 && (r.epoch < st.Epoch || r.epoch == st.Epoch && (st.Adopted || st.Node != w.ss.node)) {
		return 0, fmt.Errorf("%w: vdisk %x: epoch %d, %d is known", ErrFenced, c.vdisk, r.epoch, st.Epoch)
	}
	if r.seq == 0 || r.cluster < lbaBytes || r.cluster > maxCluster || r.cluster&(r.cluster-1) != 0 {
		return 0, fmt.Errorf("%w: vdisk %x: copy from seq %d with clusters of %d bytes", ErrRefused, c.vdisk, r.seq, r.cluster)
	}
	if st.Generation != 0 && !st.Adopted && st.Node != w.ss.node {
		if wait := c.fence(); wait > 0 {
			return 0, fmt.Errorf("%w: vdisk %x: node %s, for %s", ErrGranted, c.vdisk, st.Node, wait)
		}
	}
	if newest := c.s.o.Pool.Newest(c.vdisk); newest > r.epoch {
		return 0, fmt.Errorf("%w: vdisk %x: epoch %d, this node has a journal of epoch %d", ErrFenced, c.vdisk, r.epoch, newest)
	}
	gen, err := c.s.generation()
	if err != nil {
		return 0, err
	}
	old := st.Epoch
	next := state{Format: stateFormat, Pool: c.s.o.Pool.ID(), Node: w.ss.node, Epoch: r.epoch, Cluster: r.cluster,
		Generation: gen, Start: r.seq, Released: r.seq - 1}
	// First the state, so that the old generation is never told of what is erased (D1).
	if err := c.save(next); err != nil {
		return 0, err
	}
	c.closeLog()
	c.state, c.yielded = next, false
	c.kept.Store(true)
	for _, epoch := range []uint32{old, r.epoch} {
		if err := c.s.o.Pool.EraseEpoch(c.vdisk, epoch); err != nil {
			return 0, fmt.Errorf("%w: vdisk %x: %w", ErrFailed, c.vdisk, err)
		}
	}
	c.log = c.newLog(r.seq, nil)
	return gen, nil
}

func (c *copyOf) newLog(next uint64, tail *journal.Recovery) *journal.Log {
	return journal.NewLog(journal.LogOptions{Pool: c.s.o.Pool, VDisk: c.vdisk, Epoch: c.state.Epoch,
		Cluster: int(c.state.Cluster), NextSeq: next}, tail)
}

// append makes a record durable (D2); c.mu is held.
func (c *copyOf) append(w *work) (uint64, error) {
	if err := c.check(w); err != nil {
		return 0, err
	}
	h, err := journal.ParseRecord(c.vdisk, w.body)
	if err == nil && h.Epoch != c.state.Epoch {
		err = fmt.Errorf("record of epoch %d", h.Epoch)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: vdisk %x: %w", ErrRefused, c.vdisk, err)
	}
	if h.Seqs > 0 && h.LastSeq() <= c.durable() {
		return c.durable(), nil // sent again after a connection broke
	}
	if h.Seq != c.log.NextSeq() {
		return 0, fmt.Errorf("%w: vdisk %x: seq %d, expected %d", ErrRefused, c.vdisk, h.Seq, c.log.NextSeq())
	}
	if !c.log.Fits(int64(len(w.body))) {
		if err := c.grow(); err != nil {
			return 0, err
		}
		if !c.log.Fits(int64(len(w.body))) {
			return 0, fmt.Errorf("%w: vdisk %x: a record of %d bytes is above the chunk size", ErrRefused, c.vdisk, len(w.body))
		}
	}
	if err := c.log.Ingest(h, w.body); err != nil {
		return 0, fmt.Errorf("%w: vdisk %x: %w", ErrFailed, c.vdisk, err)
	}
	return c.durable(), nil
}

// grow gives the copy another chunk, within the bounds (D8); c.mu is held.
func (c *copyOf) grow() error {
	chunk := c.s.o.Pool.Usage().ChunkBytes
	if c.log.Bytes()+chunk > c.s.o.MaxVDiskBytes || !c.s.reserve(chunk) {
		return fmt.Errorf("%w: vdisk %x has %d bytes", ErrFull, c.vdisk, c.log.Bytes())
	}
	before := c.log.Bytes()
	err := c.log.AwaitChunk()
	c.s.unreserve(chunk - (c.log.Bytes() - before))
	switch {
	case errors.Is(err, journal.ErrNoChunk):
		return fmt.Errorf("%w: vdisk %x: %w", ErrFull, c.vdisk, err)
	case err != nil:
		return fmt.Errorf("%w: vdisk %x: %w", ErrFailed, c.vdisk, err)
	}
	next := c.state
	next.Opened = c.log.NextSeq()
	if err := c.save(next); err != nil {
		return err
	}
	c.state = next
	return nil
}

// release gives up what is on the backend (D5); c.mu is held.
func (c *copyOf) release(seq uint64) error {
	seq = min(seq, c.durable())
	if seq <= c.state.Released {
		return nil
	}
	next := c.state
	if next.Released = seq; seq == c.durable() {
		next.Opened = 0 // it is sealed
	}
	if err := c.save(next); err != nil {
		return err
	}
	c.state = next
	before := c.log.Bytes()
	if seq == c.durable() {
		c.log.Seal()
	}
	c.log.Release(seq)
	c.s.unreserve(before - c.log.Bytes())
	return nil
}

// closeLog leaves the chunks to the pool; c.mu is held.
func (c *copyOf) closeLog() {
	if c.log != nil {
		c.s.unreserve(c.log.Bytes())
		c.log.Close()
		c.log = nil
	}
}

// forget removes the copy; c.mu is held.
func (c *copyOf) forget() error {
	if err := removeFile(c.s.o.FS, c.path()); err != nil {
		return fmt.Errorf("%w: vdisk %x: %w", ErrFailed, c.vdisk, err)
	}
	c.closeLog()
	if !c.state.Adopted || c.s.o.Volatile {
		if err := c.s.o.Pool.EraseEpoch(c.vdisk, c.state.Epoch); err != nil {
			return fmt.Errorf("%w: vdisk %x: %w", ErrFailed, c.vdisk, err)
		}
	}
	c.state, c.yielded = state{}, false
	c.kept.Store(false)
	return nil
}

func removeFile(fsys blockfs.FS, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	i := len(path) - 1
	for path[i] != '/' {
		i--
	}
	return fsys.SyncDir(path[:i])
}

func (c *copyOf) promise() {
	if c.log == nil {
		return
	}
	if _, err := c.log.Promise(0); err != nil {
		c.s.o.Log.Error("copy of a vdisk's journal failed", "vdisk", hex.EncodeToString(c.vdisk[:]), "err", err)
	}
}

// promiseLater has the copy promised when it is idle; c.mu is held.
func (c *copyOf) promiseLater() {
	if c.stopPromise != nil {
		c.stopPromise()
		c.stopPromise = nil
	}
	if c.log != nil && c.log.Unpromised() && !c.s.ended() {
		c.stopPromise = clock.AfterFunc(c.s.o.Clock, promiseDelay, func() {
			if !c.s.ended() {
				c.enqueue(&work{})
			}
		})
	}
}

// load reads a copy that was kept before a restart; it gives the copy up if that is not
// whole (D1).
func (c *copyOf) load() error {
	b, err := blockfs.ReadFile(c.s.o.FS, c.path(), maxState)
	if err != nil {
		return fmt.Errorf("dtl: %w", err)
	}
	if err := json.Unmarshal(b, &c.state); err != nil || c.state.Generation == 0 {
		return fmt.Errorf("dtl: %s is damaged: remove it, and the vDisk gets another copy", c.path())
	}
	st := &c.state
	c.kept.Store(true)
	switch {
	case st.Format > stateFormat:
		return fmt.Errorf("dtl: %s has format %d, this version knows %d: upgrade ovgate", c.path(), st.Format, stateFormat)
	case st.Adopted:
		return nil
	}
	why := errors.New("its journal pool is another one")
	if st.Pool == c.s.o.Pool.ID() {
		var tail *journal.Recovery
		tail, why = journal.RecoverEpoch(c.s.o.Pool, c.vdisk, st.Epoch, st.Released+1, c.valid)
		if why == nil && st.Opened != 0 && !tail.HasChunk(st.Opened) {
			tail.Abandon()
			why = errors.New("its newest chunk is missing")
		}
		if why == nil {
			c.log = c.newLog(tail.LastSeq+1, tail)
			c.s.bytes += c.log.Bytes()
			return nil
		}
	}
	c.s.o.Log.Warn("copy of a vdisk's journal given up", "vdisk", hex.EncodeToString(c.vdisk[:]), "err", why)
	return c.forget()
}

// valid tells which records are of the copy.
func (c *copyOf) valid(epoch uint32, first, last uint64) bool {
	return epoch == c.state.Epoch && first+1 >= c.state.Start
}

// generation draws the name of a copy (D1); 0 is none.
func (s *Server) generation() (uint64, error) {
	var b [8]byte
	for {
		if _, err := io.ReadFull(s.o.Rand, b[:]); err != nil {
			return 0, fmt.Errorf("%w: draw generation: %w", ErrFailed, err)
		}
		if g := binary.LittleEndian.Uint64(b[:]); g != 0 {
			return g, nil
		}
	}
}
