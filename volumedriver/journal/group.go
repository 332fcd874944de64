package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// GroupOptions configure the group log of a Pool: where the records of many logs, which
// append at once, become durable by one write (J6). Zero values are defaults.
type GroupOptions struct {
	Bytes int64 // of its files together; 0: there is no group log
	From  int   // appends under way at once from which they are grouped; 0: 8
}

const (
	groupName        = "group-"
	groupFiles       = 4
	defaultGroupFrom = 8
	// groupRecord bounds the records that are grouped: what a larger one costs, is not its sync.
	groupRecord = 32 << 10
	// MinGroupBytes: a file holds a frame of some records, and an empty one.
	MinGroupBytes = groupFiles * 256 << 10
	// settlers is how many chunks are settled at once.
	settlers = 4
)

// group is the group log of a pool.
//
// An append is grouped when others are under way. Its record is durable with the frame that
// carries it, and settled when it is in its chunk too, which happens later, in pieces as
// large as there are: before the frame's file is used again, before the memory of it is
// given up, and when its log is closed. Until then its chunk has a hole, which OpenPool
// fills from the frames after a crash.
type group struct {
	p     *Pool
	from  int64
	bytes int64 // of a file
	limit int   // bytes of a frame
	under atomic.Int64
	run   [16]byte

	kick  chan struct{}   // there may be something to write
	dirty chan *groupFile // to be settled
	quit  chan struct{}
	wg    sync.WaitGroup

	mu      sync.Mutex
	making  bool
	on      bool
	off     error     // why it is used no more
	tries   int       // appends until it is tried again to make it
	waiting []*Record // to be in the next frame
	spare   []*Record // memory of the former waiting
	files   []*groupFile

	// Of the goroutine that writes.
	cur    *groupFile
	number uint64 // of the last frame
	buf    []byte

	frames, records atomic.Uint64
}

// groupFile is one of the files that the frames go to, in turns.
type groupFile struct {
	name  string
	f     blockfs.File
	first uint64 // number of its first frame; 0: it has none that is needed
	off   int64  // where the next frame goes
	held  []held

	// settled: what it holds is in the chunks. free: a frame that was written since says
	// that this file is not needed.
	settled, free bool
}

// held is what a file holds of a chunk.
type held struct {
	chunk *Chunk
	end   int64 // of the record in the chunk
}

var (
	errNoGroup    = errors.New("the group log has no room")
	errGroupEnded = errors.New("the group log has ended")
)

// retryGroup is how many appends that could have been grouped pass before it is tried again
// to make the files.
const retryGroup = 100_000

func newGroup(p *Pool, o GroupOptions) (*group, error) {
	per := o.Bytes / groupFiles &^ (blockfs.Alignment - 1)
	if o.Bytes < MinGroupBytes {
		return nil, fmt.Errorf("journal %s: group log of %d bytes (min %d)", p.o.Dir, o.Bytes, MinGroupBytes)
	}
	g := &group{p: p, from: int64(cmp.Or(o.From, defaultGroupFrom)), bytes: per, limit: int(min(maxFrame, per/2)),
		kick: make(chan struct{}, 1), dirty: make(chan *groupFile, groupFiles), quit: make(chan struct{})}
	if _, err := io.ReadFull(p.o.Rand, g.run[:]); err != nil {
		return nil, fmt.Errorf("journal: draw run: %w", err)
	}
	return g, nil
}

// append has a record written with those of others, and tells that it is durable. Otherwise
// it is not written.
func (g *group) append(r *Record) bool {
	if len(r.buf) > groupRecord {
		return false
	}
	g.mu.Lock()
	if !g.on {
		g.makeLocked()
		g.mu.Unlock()
		return false
	}
	if r.grouped == nil {
		r.grouped = make(chan bool, 1)
	}
	g.waiting = append(g.waiting, r)
	g.mu.Unlock()
	select {
	case g.kick <- struct{}{}:
	default:
	}
	return <-r.grouped
}

// makeLocked has the files made, in the background.
func (g *group) makeLocked() {
	if g.making || g.off != nil {
		return
	}
	if g.tries--; g.tries > 0 {
		return
	}
	g.making = true
	g.wg.Go(func() {
		files, err := g.make()
		g.mu.Lock()
		defer g.mu.Unlock()
		if err != nil {
			g.making, g.tries = false, retryGroup
			g.p.o.Log.Warn("appends of many vdisks are not grouped", "dir", g.p.o.Dir, "err", err)
			return
		}
		g.files, g.cur, g.on = files, files[0], true
		g.cur.free, g.cur.settled = false, false
		g.wg.Go(g.write)
		g.wg.Go(g.settle)
	})
}

// make makes the files, pre-written like chunks.
func (g *group) make() (files []*groupFile, err error) {
	p := g.p
	all := groupFiles * g.bytes
	p.mu.Lock()
	room := p.bytes+all+p.o.ChunkBytes <= p.o.MaxBytes && !p.closed
	if room {
		p.bytes += all
	}
	p.mu.Unlock()
	if !room {
		return nil, fmt.Errorf("the chunks take the space of %d bytes for them", all)
	}
	defer func() {
		if err != nil { // the files first: nothing is in them, and the disk may be full
			err = errors.Join(err, p.removeGroupFiles(), g.remove(files))
		}
	}()
	// Programs that do not know of it must not pass over it.
	if err := p.identity(func(id *poolIdentity) { id.Group = true }); err != nil {
		return nil, err
	}
	for i := range groupFiles {
		file := &groupFile{name: fmt.Sprintf("%s%d", groupName, i), settled: true, free: true}
		path := p.o.Dir + "/" + newName + file.name
		if file.f, err = p.o.FS.Open(path, blockfs.Write|blockfs.Create|blockfs.Excl|blockfs.Direct|blockfs.DSync); err != nil {
			return files, err
		}
		files = append(files, file)
		if err := file.f.Preallocate(g.bytes); err != nil {
			return files, err
		}
		if err := p.o.FS.Rename(path, p.o.Dir+"/"+file.name); err != nil {
			return files, err
		}
		select {
		case <-g.quit:
			return files, errGroupEnded
		default:
		}
	}
	return files, p.o.FS.SyncDir(p.o.Dir)
}

// remove closes and removes files, and takes back that there is a group log.
func (g *group) remove(files []*groupFile) error {
	p := g.p
	var errs []error
	for _, file := range files {
		errs = append(errs, file.f.Close())
	}
	p.mu.Lock()
	p.bytes -= groupFiles * g.bytes
	p.mu.Unlock()
	return errors.Join(append(errs, p.removeGroup())...)
}

// write is the goroutine that writes the frames.
func (g *group) write() {
	g.buf = blockfs.AlignedBuffer(g.limit)
	for {
		select {
		case <-g.kick:
		case <-g.quit:
			g.refuse(errGroupEnded)
			return
		}
		for {
			g.mu.Lock()
			if g.off != nil {
				g.mu.Unlock()
				g.refuse(nil)
				break
			}
			took := g.waiting
			g.waiting, g.spare = g.spare[:0], took
			g.mu.Unlock()
			if len(took) == 0 {
				break
			}
			for len(took) > 0 {
				n := g.fit(took)
				err := g.frame(took[:n])
				if err != nil && !errors.Is(err, errNoGroup) {
					g.end(err)
				}
				for i, r := range took[:n] {
					took[i] = nil
					r.grouped <- err == nil
				}
				took = took[n:]
			}
		}
	}
}

// refuse has those who wait write alone.
func (g *group) refuse(err error) {
	g.mu.Lock()
	g.on = false
	if g.off == nil {
		g.off = err
	}
	took := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	for _, r := range took {
		r.grouped <- false
	}
}

// end has the group log used no more. Its files stay until what they hold is in the chunks.
func (g *group) end(err error) {
	g.p.o.Log.Error("appends of many vdisks are not grouped any more", "dir", g.p.o.Dir, "err", err)
	g.refuse(err)
}

// fit returns how many of the records go into one frame; one at least does.
func (g *group) fit(records []*Record) int {
	var s frameSize
	for i, r := range records {
		if s = s.add(r); i > 0 && (i == maxFrameRecords || s.total() > g.limit) {
			return i
		}
	}
	return len(records)
}

// frame writes a frame of records durably.
func (g *group) frame(records []*Record) error {
	var s frameSize
	for _, r := range records {
		s = s.add(r)
	}
	if g.cur.off+int64(s.total())+emptyFrame > g.bytes {
		if err := g.advance(); err != nil {
			return err
		}
	}
	if err := g.put(records, s.total()); err != nil {
		return err
	}
	g.records.Add(uint64(len(records)))
	g.mu.Lock()
	for _, r := range records {
		g.cur.held = append(g.cur.held, held{r.chunk, r.start() + int64(len(r.buf))})
	}
	g.mu.Unlock()
	return nil
}

// put writes a frame where the current file has room for it.
func (g *group) put(records []*Record, total int) error {
	g.mu.Lock()
	oldest, declared := g.number+1, []*groupFile(nil)
	if g.cur.first == 0 {
		g.cur.first = g.number + 1
	}
	for _, file := range g.files {
		switch {
		case file != g.cur && file.settled:
			declared = append(declared, file)
		default:
			oldest = min(oldest, file.first)
		}
	}
	g.mu.Unlock()
	b := encodeFrame(g.buf[:total], g.run, g.number+1, oldest, records)
	if _, err := g.cur.f.WriteAt(b, g.cur.off); err != nil {
		return err
	}
	g.number++
	g.frames.Add(1)
	g.cur.off += int64(total)
	g.mu.Lock()
	for _, file := range declared {
		file.free = true
	}
	g.mu.Unlock()
	return nil
}

// advance goes on with the next file; errNoGroup while what that holds is not in the chunks.
func (g *group) advance() error {
	i := slices.Index(g.files, g.cur)
	next := g.files[(i+1)%len(g.files)]
	g.mu.Lock()
	settled, free := next.settled, next.free
	g.mu.Unlock()
	if !settled {
		return errNoGroup
	}
	if !free { // the last of this file says so
		if err := g.put(nil, emptyFrame); err != nil {
			return err
		}
	}
	g.mu.Lock()
	next.first, next.off, next.held = 0, 0, nil
	next.settled, next.free = false, false
	g.cur = next
	after := g.files[(i+2)%len(g.files)]
	if !after.settled {
		g.dirty <- after
	}
	g.mu.Unlock()
	return nil
}

// settle is the goroutine that puts what files hold into the chunks.
func (g *group) settle() {
	for {
		select {
		case file := <-g.dirty:
			if err := g.settleFile(file); err != nil {
				g.end(err)
				return
			}
		case <-g.quit:
			return
		}
	}
}

// settleFile puts what a file holds into the chunks.
func (g *group) settleFile(file *groupFile) error {
	g.mu.Lock()
	ends := map[*Chunk]int64{}
	for _, h := range file.held {
		ends[h.chunk] = max(ends[h.chunk], h.end)
	}
	g.mu.Unlock()
	work := make(chan held)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var err error
	for range settlers {
		wg.Go(func() {
			for h := range work {
				if e := h.chunk.settle(h.end); e != nil {
					mu.Lock()
					err = errors.Join(err, e)
					mu.Unlock()
				}
			}
		})
	}
	for c, end := range ends {
		work <- held{c, end}
	}
	close(work)
	wg.Wait()
	if err != nil {
		return err
	}
	g.mu.Lock()
	file.settled, file.held, file.first = true, nil, 0
	g.mu.Unlock()
	return nil
}

// close ends it. With everything in the chunks the files go, too.
func (g *group) close() error {
	close(g.quit)
	g.wg.Wait()
	if g.files == nil {
		return nil
	}
	for _, file := range g.files {
		if file.settled {
			continue
		}
		if err := g.settleFile(file); err != nil {
			for _, file := range g.files {
				file.f.Close()
			}
			return fmt.Errorf("journal %s: what vdisks wrote together is not in all their chunks, which the next start mends: %w", g.p.o.Dir, err)
		}
	}
	return g.remove(g.files)
}

// settle puts what is in memory of the chunk, up to end, into its file, as far as that has not
// got it. A chunk that was released needs nothing.
func (c *Chunk) settle(end int64) error {
	for {
		n := c.refs.Load()
		if n <= 0 {
			return nil
		}
		if c.refs.CompareAndSwap(n, n+1) {
			break
		}
	}
	defer c.Unpin()
	c.settling.Lock()
	defer c.settling.Unlock()
	return c.settleLocked(end)
}

// settleLocked is settle of a chunk with a reference; c.settling is held.
func (c *Chunk) settleLocked(end int64) error {
	c.mu.RLock()
	file, from := c.file, c.settled
	segs := slices.Clone(c.segs)
	c.mu.RUnlock()
	if from >= end {
		return nil
	}
	if c.closed {
		return fmt.Errorf("journal %s: its log was closed: %w", file.name, errHole)
	}
	for at := from; at < end; {
		i := slices.IndexFunc(segs, func(s segment) bool { return at >= s.off && at < s.off+int64(len(s.buf)) })
		if i < 0 {
			return fmt.Errorf("journal %s: nothing is in memory at %d", file.name, at)
		}
		s := segs[i]
		b := s.buf[at-s.off:]
		b = b[:min(int64(len(b)), end-at)]
		if _, err := file.f.WriteAt(b, at); err != nil {
			return fmt.Errorf("journal %s at %d: %w", file.name, at, err)
		}
		at += int64(len(b))
	}
	c.mu.Lock()
	c.settled = max(c.settled, end)
	c.mu.Unlock()
	return nil
}

// errHole: records of a chunk are in the group log and not in it.
var errHole = errors.New("records of it are in the group log alone: the next start of the node puts them into their place")

// isGroup tells the files of the group log.
func isGroup(name string) bool { return strings.HasPrefix(name, groupName) }
