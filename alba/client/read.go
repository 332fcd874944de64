package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
)

// readTries bounds how often a read begins anew because the object was changed
// or moved under it.
const readTries = 4

// Get returns a whole object of at most limit bytes; ErrTooLarge, nsm.ErrNotExist,
// ErrUnavailable.
func (c *Client) Get(ctx context.Context, namespace, name string, limit int64) ([]byte, error) {
	var data []byte
	err := c.reading(ctx, namespace, name, true, func(sp space, m *layout.Manifest) error {
		if m.Size > limit {
			return fmt.Errorf("object %s: %w: %d bytes, at most %d", name, ErrTooLarge, m.Size, limit)
		}
		w := whole{p: make([]byte, m.Size)} // what is late of an earlier try may still be written
		if err := c.read(ctx, sp, m, w.p, 0, &w); err != nil {
			return err
		}
		data = w.bytes()
		if crc := w.crc(); crc != m.CRC {
			return fmt.Errorf("object %s: %w: its pieces are right and its checksum is %08x, not %08x", name, fragment.ErrCorrupt, crc, m.CRC)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.stats.Gets.Add(1)
	c.stats.GetBytes.Add(uint64(len(data)))
	return data, nil
}

// ReadAt fills p with the object's bytes from off; ErrRange beyond its end.
func (c *Client) ReadAt(ctx context.Context, namespace, name string, p []byte, off int64) error {
	err := c.reading(ctx, namespace, name, false, func(sp space, m *layout.Manifest) error {
		if off < 0 || off > m.Size || int64(len(p)) > m.Size-off {
			return fmt.Errorf("object %s: %w: %d bytes from %d of %d", name, ErrRange, len(p), off, m.Size)
		}
		return c.read(ctx, sp, m, p, off, nil)
	})
	if err == nil {
		c.stats.Gets.Add(1)
		c.stats.GetBytes.Add(uint64(len(p)))
	}
	return err
}

// reading calls fn with the object's manifest: from the cache unless consistent,
// and from the NSM when fn fails with what may be an old one (C3).
func (c *Client) reading(ctx context.Context, namespace, name string, consistent bool, fn func(sp space, m *layout.Manifest) error) error {
	sp, err := c.space(ctx, namespace)
	if err != nil {
		return err
	}
	var m *layout.Manifest
	if !consistent {
		m = c.manifests.get(sp.rec.ID, name)
	}
	cached := m != nil
	if cached {
		c.stats.ManifestHit.Add(1)
	} else {
		c.stats.ManifestMiss.Add(1)
	}
	for try := 1; ; try++ {
		if m == nil {
			if m, err = c.fresh(ctx, namespace, name); err != nil {
				return err
			}
		}
		err = fn(sp, m)
		if err == nil || ctx.Err() != nil || try == readTries {
			return err
		}
		retry := errors.Is(err, ErrUnavailable) || cached && errors.Is(err, ErrRange)
		if !retry {
			return err
		}
		now, ferr := c.fresh(ctx, namespace, name)
		if ferr != nil {
			return ferr
		}
		if now.Revision == m.Revision {
			return err
		}
		m, cached = now, false
	}
}

// want is a run of pieces of one shard, and where its bytes go.
type want struct {
	shard        int
	first, count int
	size         fragment.PieceSize
	skip         int    // bytes of the pieces before those that are wanted
	dst          []byte // part of the reader's buffer
}

// bytes is what has to be read for it, before compression.
func (w want) bytes() int64 { return int64(w.count * w.size.Bytes()) }

// whole is an object that is read into memory of the client's own. Pieces that are
// stored as they are arrive where they belong, and have their checksums already.
type whole struct {
	p    []byte
	mu   sync.Mutex
	runs []run
	// racing: someone may still write to p where it is late, and read anywhere.
	racing bool
}

// run is a part of an object.
type run struct {
	at, n int
	crc   uint32
	other []byte // where it is, if not in p
}

// arrived notes that a want is filled, in p or in other.
func (w *whole) arrived(dst, other []byte, crc uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs = append(w.runs, run{at: cap(w.p) - cap(dst), n: len(dst), crc: crc, other: other})
}

// crc returns the checksum of the object.
func (w *whole) crc() uint32 {
	slices.SortFunc(w.runs, func(a, b run) int { return a.at - b.at })
	var crc uint32
	for _, r := range w.runs {
		crc = osd.ConcatCRC(crc, r.crc, int64(r.n))
	}
	return crc
}

// bytes returns the object, which nobody touches any more.
func (w *whole) bytes() []byte {
	if !w.racing {
		return w.p
	}
	p := make([]byte, len(w.p))
	for _, r := range w.runs {
		if r.other == nil {
			r.other = w.p[r.at : r.at+r.n]
		}
		copy(p[r.at:], r.other)
	}
	return p
}

// read fills p from off, chunk by chunk; into is there when p is a whole object.
func (c *Client) read(ctx context.Context, sp space, m *layout.Manifest, p []byte, off int64, into *whole) error {
	key, err := c.key(m.Header)
	if err != nil {
		return err
	}
	code, err := fragment.NewCode(m.Policy.K, m.Policy.M)
	if err != nil {
		return err
	}
	for len(p) > 0 {
		chunk := int(off / int64(m.ChunkBytes))
		in := int(off - int64(chunk)*int64(m.ChunkBytes))
		n := min(len(p), m.ChunkLen(chunk)-in)
		g := &gather{c: c, sp: sp, m: m, key: key, code: code, chunk: chunk, into: into, futures: map[piecesOf]*future{}}
		if err := g.run(ctx, g.wants(in, p[:n])); err != nil {
			return fmt.Errorf("object %s chunk %d: %w", m.Name, chunk, err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// gather reads one chunk.
type gather struct {
	c     *Client
	sp    space
	m     *layout.Manifest
	key   *fragment.Key
	code  *fragment.Code
	chunk int
	into  *whole // nil: the buffer is the caller's

	mu       sync.Mutex
	futures  map[piecesOf]*future
	degraded bool
	racing   bool   // a rebuild may outlast the read
	damage   string // what was found missing or damaged
}

// piecesOf names a run of pieces of a fragment.
type piecesOf struct{ index, first, count int }

// future is a run of pieces on its way; plain is there when done is closed, in a
// buffer that is the gather's, or in a part of the object (direct).
type future struct {
	done   chan struct{}
	direct bool
	plain  *buffer
	err    error
}

// wants cuts bytes [in, in+len(p)) of the chunk into runs of pieces.
func (g *gather) wants(in int, p []byte) []want {
	size, pieces := g.code.ShardBytes(g.m.ChunkLen(g.chunk)), g.m.PieceSize()
	var out []want
	for len(p) > 0 {
		shard, at := in/size, in%size
		n := min(len(p), size-at)
		first, count := pieces.Cover(at, n)
		out = append(out, want{shard: shard, first: first, count: count, size: pieces, skip: at - first*pieces.Bytes(), dst: p[:n]})
		p, in = p[n:], in+n
	}
	return out
}

// run fetches all wants side by side and copies them to where they go.
func (g *gather) run(ctx context.Context, wants []want) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // what is late is not waited for
	defer g.report()
	defer g.recycle()
	if len(wants) == 1 {
		return g.single(ctx, cancel, wants[0])
	}
	errs := make([]error, len(wants))
	var wg sync.WaitGroup
	for i, w := range wants {
		wg.Go(func() {
			if errs[i] = g.fill(ctx, w); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return errors.Join(errs...)
}

// recycle gives the buffers of what arrived to later reads, once all wants are
// filled. What is late still writes to its own, and a rebuild that lost its race
// may read from any.
func (g *gather) recycle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.racing {
		if g.into != nil {
			g.into.racing = true
		}
		return
	}
	for _, f := range g.futures {
		select {
		case <-f.done:
			g.c.buffers.put(f.plain)
		default:
		}
	}
	g.futures = nil
}

// single fills the only want. One device, where it can be called off, is waited for in
// place: handing the read over to another goroutine and back would cost as much as the
// network does. When it is late, others are asked behind its back.
func (g *gather) single(ctx context.Context, cancel context.CancelFunc, w want) error {
	index := g.primary(w)
	if index < 0 || !g.prompt(index) {
		return g.fill(ctx, w)
	}
	p := piecesOf{index, w.first, w.count}
	var dst []byte
	if g.direct(p, w) {
		dst = w.dst
	}
	f, _ := g.begin(p, dst)
	rebuilt := make(chan rebuilt, 1)
	reading := g.c.overdue.after(g.c.hedgeAfter(w.bytes()), func() {
		g.c.stats.Hedged.Add(1)
		r := g.startRebuild(ctx, w)
		rebuilt <- r
		if r.err == nil {
			cancel() // nobody else waits for anything
		}
	})
	g.fulfil(ctx, f, p, dst)
	late := !reading.ended()
	if late {
		g.setRacing()
	}
	switch {
	case f.err == nil:
		g.deliver(w, f, p)
		return nil
	case !late:
		return g.race(ctx, w, f, p)
	}
	r := <-rebuilt
	if r.err == nil {
		g.put(w, r.b)
	}
	return r.err
}

// prompt tells whether the device of a fragment is osd.Prompt.
func (g *gather) prompt(index int) bool {
	dev := g.c.devices.view.Load().byNumber[g.m.Fragments[g.chunk][index].OSD]
	return dev != nil && dev.osd != nil && osd.IsPrompt(dev.osd)
}

// fill gets one want: from its own fragment, or from others when that one is
// missing, damaged, on a failed device or slow.
func (g *gather) fill(ctx context.Context, w want) error {
	index := g.primary(w)
	if index < 0 {
		b, err := g.rebuild(ctx, w)
		if err == nil {
			g.put(w, b)
		}
		return err
	}
	p := piecesOf{index, w.first, w.count}
	var dst []byte
	if g.direct(p, w) {
		dst = w.dst
	}
	f := g.fetch(ctx, p, dst)
	late := g.c.o.Clock.NewTimer(g.c.hedgeAfter(w.bytes()))
	defer late.Stop()
	select {
	case <-f.done:
		if f.err == nil {
			g.deliver(w, f, p)
			return nil
		}
	case <-late.C():
		g.c.stats.Hedged.Add(1)
	case <-ctx.Done():
		return ctx.Err()
	}
	return g.race(ctx, w, f, p)
}

// direct tells whether a want is just the stored bytes of pieces, and may be read
// to where it goes although others may come first.
func (g *gather) direct(p piecesOf, w want) bool {
	x := g.m.Fragments[g.chunk][p.index].Index
	if g.into == nil || w.skip != 0 || !x.AsIs() {
		return false
	}
	_, n := x.PlainRange(p.first, p.count)
	return n == len(w.dst)
}

// deliver fills a want with pieces that arrived.
func (g *gather) deliver(w want, f *future, p piecesOf) {
	switch {
	case f.direct:
		x := g.m.Fragments[g.chunk][p.index].Index
		g.into.arrived(w.dst, nil, x.RangeCRC(p.first, p.count)) // as they were verified with
	default:
		g.put(w, f.plain.b[w.skip:])
	}
}

// put copies bytes to where they are wanted.
func (g *gather) put(w want, b []byte) {
	copy(w.dst, b)
	if g.into != nil {
		g.into.arrived(w.dst, nil, osd.CRC(w.dst))
	}
}

// rebuilt is a want that was made of others.
type rebuilt struct {
	b   []byte
	err error
}

// startRebuild rebuilds a want while its fragment may come yet.
func (g *gather) startRebuild(ctx context.Context, w want) rebuilt {
	g.setRacing()
	b, err := g.rebuild(ctx, w)
	return rebuilt{b, err}
}

func (g *gather) setRacing() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.racing = true
}

// race rebuilds a want, and takes the fragment itself should it come first.
func (g *gather) race(ctx context.Context, w want, f *future, p piecesOf) error {
	rebuilt := make(chan rebuilt, 1)
	g.setRacing()
	go func() { rebuilt <- g.startRebuild(ctx, w) }()
	slow := f.done
	var err error
	for range 2 {
		select {
		case <-slow:
			slow = nil
			if f.err == nil {
				g.deliver(w, f, p)
				return nil
			}
			if err != nil {
				return err
			}
		case r := <-rebuilt:
			if err = r.err; err == nil {
				if f.direct && slow != nil { // which may write to dst yet
					g.into.arrived(w.dst, r.b, osd.CRC(r.b))
				} else {
					g.put(w, r.b)
				}
				return nil
			}
			if slow == nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

// primary returns the fragment to read a want from: its shard's own, or, when all
// are copies, the nearest; -1 when it cannot be expected to answer in good time.
func (g *gather) primary(w want) int {
	best := w.shard
	if g.m.Policy.K == 1 {
		best = 0
		for i := range g.m.Fragments[g.chunk] {
			if g.rank(i, w) < g.rank(best, w) {
				best = i
			}
		}
	}
	if rank := g.rank(best, w); rank >= unlikely {
		return -1
	} else if g.m.Policy.K > 1 && g.c.slow(g.m.Fragments[g.chunk][best].OSD, w.bytes()) {
		g.c.stats.Avoided.Add(1)
		return -1
	}
	return best
}

// Ranks of a fragment as a source: the latency of its device, or one of these.
const (
	unlikely = int64(1) << 50 // on a failed device, or one that is being rebuilt
	absent   = int64(1) << 60
)

// rank orders the fragments of the chunk as sources for a want, the best first.
func (g *gather) rank(i int, w want) int64 {
	f := g.m.Fragments[g.chunk][i]
	if f.OSD == 0 {
		return absent
	}
	dev := g.c.devices.view.Load().byNumber[f.OSD]
	switch {
	case dev == nil || dev.osd == nil:
		return absent
	case dev.failed() || !dev.rec.Counts():
		return unlikely
	}
	n := int64(dev.readLatency(w.bytes()).recent(g.c.now()))
	if len(g.c.o.Near) > 0 && !slices.Contains(g.c.o.Near, dev.rec.Node) {
		n += int64(time.Second) // near ones first, whatever they take
	}
	return n
}

// fetch begins to read pieces of a fragment, once for all that want them: into dst,
// or if that is nil or another was first, into a buffer.
func (g *gather) fetch(ctx context.Context, p piecesOf, dst []byte) *future {
	f, first := g.begin(p, dst)
	if first {
		go g.fulfil(ctx, f, p, dst)
	}
	return f
}

// begin returns the future of pieces; the first to ask has to fulfil it.
func (g *gather) begin(p piecesOf, dst []byte) (f *future, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f, ok := g.futures[p]
	if !ok {
		f = &future{done: make(chan struct{}), direct: dst != nil}
		g.futures[p] = f
	}
	return f, !ok
}

func (g *gather) fulfil(ctx context.Context, f *future, p piecesOf, dst []byte) {
	defer close(f.done)
	f.plain, f.err = g.pieces(ctx, p, dst)
}

// pieces reads and unpacks pieces of a fragment, into dst unless it is nil.
func (g *gather) pieces(ctx context.Context, p piecesOf, dst []byte) (*buffer, error) {
	f := g.m.Fragments[g.chunk][p.index]
	dev := g.c.devices.view.Load().byNumber[f.OSD]
	if f.OSD == 0 || dev == nil || dev.osd == nil {
		return nil, fmt.Errorf("fragment %d is on no device", p.index)
	}
	place := g.m.Place(g.sp.rec.ID, g.chunk, p.index)
	off, n := f.Index.Range(p.first, p.count)
	stored := &buffer{b: dst, class: -1}
	if dst == nil {
		stored = g.c.buffers.get(int(n))
	}
	err := g.c.readFragment(ctx, dev, place, off, stored.b)
	if err == nil {
		out := stored
		if !f.Index.AsIs() {
			_, plain := f.Index.PlainRange(p.first, p.count)
			out = g.c.buffers.get(plain)
			defer g.c.buffers.put(stored)
		}
		if err = fragment.Unpack(out.b, place.FragmentID(g.m.Policy.K), f.Index, p.first, p.count, stored.b, g.key); err == nil {
			return out, nil
		}
	}
	if damaged(err) {
		g.found(fmt.Sprintf("fragment %d on device %d: %v", p.index, f.OSD, err))
	}
	return nil, fmt.Errorf("fragment %d on device %d: %w", p.index, f.OSD, err)
}

// damaged tells errors of a fragment from those of its device or of the caller.
func damaged(err error) bool {
	return errors.Is(err, osd.ErrNotExist) || errors.Is(err, osd.ErrCorrupt) || errors.Is(err, osd.ErrRange) || errors.Is(err, fragment.ErrCorrupt)
}

// readFragment reads stored bytes from a device and notes how it did.
func (c *Client) readFragment(ctx context.Context, dev *device, place layout.Place, off int64, p []byte) error {
	if len(p) == 0 {
		return nil // all zeros: nothing is stored
	}
	call, cancel := WithTimeout(ctx, c.o.Clock, c.o.Timeout)
	defer cancel()
	start := c.now()
	err := dev.osd.Read(call, place.FragmentKey(), off, p, osd.High|osd.Unverified) // C2: pieces have checksums in the manifest
	now := c.now()
	switch latency := dev.readLatency(int64(len(p))); {
	case err == nil:
		latency.add(now-start, now)
		c.stats.MovedBytes.Add(uint64(len(p)))
	case errors.Is(ctx.Err(), context.Canceled):
		latency.atLeast(now-start, now) // others were faster
	}
	c.blame(ctx, dev, err)
	return err
}

// rebuild makes what is wanted of a shard from the pieces of k others.
func (g *gather) rebuild(ctx context.Context, w want) ([]byte, error) {
	g.mu.Lock()
	if !g.degraded {
		g.degraded = true
		g.c.stats.Degraded.Add(1)
	}
	g.mu.Unlock()
	shards := make([][]byte, g.m.Policy.N())
	if err := g.anyK(ctx, w, shards); err != nil {
		return nil, err
	}
	if len(shards[w.shard]) == 0 {
		wanted := make([]bool, len(shards))
		wanted[w.shard] = true
		if err := g.code.Reconstruct(shards, wanted); err != nil {
			return nil, err
		}
	}
	return shards[w.shard][w.skip : w.skip+len(w.dst)], nil
}

// anyK reads the pieces of a want from any k fragments, the likeliest first, one
// more for each that fails or is slow.
func (g *gather) anyK(ctx context.Context, w want, shards [][]byte) error {
	order := make([]int, 0, len(shards))
	for i := range shards {
		if g.m.Fragments[g.chunk][i].OSD != 0 && (i != w.shard || g.m.Policy.K == 1 || g.primary(w) < 0) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if pa, pb := g.begun(a, w), g.begun(b, w); pa != pb {
			if pa {
				return -1
			}
			return 1
		}
		return int(min(max(g.rank(a, w)-g.rank(b, w), -1), 1))
	})
	type result struct {
		index int
		f     *future
	}
	results := make(chan result, len(order))
	next, running, got := 0, 0, 0
	begin := func() {
		if next == len(order) {
			return
		}
		i := order[next]
		next++
		running++
		f := g.fetch(ctx, piecesOf{i, w.first, w.count}, nil)
		go func() { <-f.done; results <- result{i, f} }()
	}
	for range g.m.Policy.K {
		begin()
	}
	late := g.c.o.Clock.NewTimer(g.c.hedgeAfter(w.bytes()))
	defer late.Stop()
	var errs []error
	for got < g.m.Policy.K {
		if running == 0 {
			return fmt.Errorf("%w: %d of the %d needed: %w", ErrUnavailable, got, g.m.Policy.K, errors.Join(errs...))
		}
		select {
		case r := <-results:
			running--
			if r.f.err != nil {
				errs = append(errs, r.f.err)
				begin()
				continue
			}
			shards[r.index] = r.f.plain.b
			got++
		case <-late.C():
			for range g.m.Policy.N() - g.m.Policy.K {
				begin()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// begun tells whether a fragment's pieces are read already for another want, and
// have not failed.
func (g *gather) begun(i int, w want) bool {
	g.mu.Lock()
	f := g.futures[piecesOf{i, w.first, w.count}]
	g.mu.Unlock()
	if f == nil {
		return false
	}
	select {
	case <-f.done:
		return f.err == nil
	default:
		return true
	}
}

// found remembers damage for the report.
func (g *gather) found(what string) {
	g.c.stats.Damaged.Add(1)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.damage = what
}

// report tells the NSM that the object needs repair, behind the reader's back.
func (g *gather) report() {
	g.mu.Lock()
	why := g.damage
	g.mu.Unlock()
	if why == "" {
		return
	}
	c, sp, m := g.c, g.sp, g.m
	c.background(func(ctx context.Context) {
		if err := reportIfSame(ctx, sp, m, why); err != nil {
			c.o.Log.Warn("damage could not be reported", "object", m.Name, "damage", why, "error", err)
		}
	})
}

// reportIfSame reports damage unless the object was changed or moved meanwhile,
// which is what made the reader's manifest fail.
func reportIfSame(ctx context.Context, sp space, m *layout.Manifest, why string) error {
	now, err := sp.host.Get(ctx, sp.rec.ID, m.Name)
	if errors.Is(err, nsm.ErrNotExist) || err == nil && now.Revision != m.Revision {
		return nil
	}
	if err != nil {
		return err
	}
	return sp.host.Report(ctx, sp.rec.ID, m.Name, why)
}

// Hedging: a read that takes a multiple of what reads take lately is overtaken.
const (
	hedgeFactor = 4
	hedgeMin    = 10 * time.Millisecond
	hedgeMax    = 2 * time.Second
	// hedgeFirst is for when nothing is known yet.
	hedgeFirst = 250 * time.Millisecond
)

// Slowness (C6): a device whose average is this multiple of the others' is passed by.
// Less than hedgeFactor, so that one whose reads are always overtaken is found; of what
// takes less than slowMin, rebuilding would save nothing.
const (
	slowFactor = 3
	slowMin    = 2 * time.Millisecond
)

// slow tells whether reads of n bytes take much longer on a device than on others.
func (c *Client) slow(number uint32, n int64) bool {
	dev := c.devices.view.Load().byNumber[number]
	if dev == nil {
		return false
	}
	took := dev.readLatency(n).recent(c.now())
	return took > slowMin && took > slowFactor*c.usual(n)
}

// hedgeAfter returns how long a read of n bytes may take before others are asked.
func (c *Client) hedgeAfter(n int64) time.Duration {
	usual := c.usual(n)
	if usual == 0 {
		return hedgeFirst
	}
	return min(max(usual*hedgeFactor, hedgeMin), hedgeMax)
}

// usual returns how long reads of n bytes take: the median over devices of their
// averages, so that one slow device does not count; 0 when nothing is known.
func (c *Client) usual(n int64) time.Duration {
	v := c.devices.view.Load()
	all := make([]time.Duration, 0, len(v.byNumber))
	for _, dev := range v.byNumber {
		if l := dev.readLatency(n).get(); l > 0 {
			all = append(all, l)
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}
