package volume

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/cache"
	"github.com/openvstorage/ovgate/volumedriver/journal"
	"github.com/openvstorage/ovgate/volumedriver/sco"
)

const (
	// maxFetches bounds the groups that one read fetches at once.
	maxFetches = 8
	// smallReadClusters bounds a read that does not load its group.
	smallReadClusters = 4
	// sumsGroup is the cache key of an SCO's checksums; no SCO has so many groups.
	sumsGroup = 1<<32 - 1
	// touchSlots is how many recent groups a vDisk remembers.
	touchBits  = 10
	touchSlots = 1 << touchBits
	// Retries of a backend call start at minBackoff and double to maxBackoff.
	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
)

// piece is a run of clusters of a read and where they are: in a journal chunk
// (then one cluster), in an SCO, or nowhere.
type piece struct {
	cluster  uint64
	count    uint64
	chunk    *journal.Chunk // with a reference; nil if not in the journal
	off      int64
	sum      uint32
	mapped   bool // in an SCO
	src      *source
	origin   origin
	number   uint32
	index    uint32 // of the first cluster in the SCO
	clusters uint32 // of the SCO
}

// lookup looks up the clusters [first, end) and takes references (V3). It waits for
// map pages, and for the backend as long as a read does.
func (v *Volume) lookup(ctx context.Context, out []piece, first, end uint64) ([]piece, error) {
	var w blockmap.Want
	out, ok := v.resolve(out[:0], first, end, &w)
	if ok {
		return out, nil
	}
	if w.Load(ctx) == nil { // nearly always
		if out, ok = v.resolve(out[:0], first, end, &w); ok {
			return out, nil
		}
	}
	err := v.retry(ctx, v.settings.Load().StallTimeout, func(ctx context.Context) error {
		var err error
		for again := 0; again < 2; { // a page may have moved while it was read
			if err = w.Load(ctx); err != nil {
				again++
			}
			if out, ok = v.resolve(out[:0], first, end, &w); ok {
				return nil
			}
		}
		return err
	})
	if err != nil {
		unpin(out)
		if errors.Is(err, ErrMedium) {
			return nil, v.medium(first, err)
		}
		return nil, fmt.Errorf("vdisk %s: %w", v.id, err)
	}
	return out, nil
}

// resolve is lookup for what is in memory or in w; false, without references, if map
// pages are missing, which w then wants.
func (v *Volume) resolve(out []piece, first, end uint64, w *blockmap.Want) ([]piece, bool) {
	v.mapMu.RLock()
	defer v.mapMu.RUnlock()
	for c := first; c < end; c++ {
		pt, point, trimmed := v.overlay.Find(c)
		if point {
			out = append(out, piece{cluster: c, count: 1, chunk: v.journal.Pin(pt.Chunk), off: int64(pt.Off) * MinClusterSize, sum: pt.Sum})
			continue
		}
		var l blockmap.Loc
		if !trimmed {
			var ok bool
			if l, ok = v.base.Get(c, w); !ok {
				continue // all that is missing is read at once
			}
		}
		out = v.addBase(out, c, l)
	}
	if w.Missing() {
		unpin(out)
		return out[:0], false
	}
	return out, true
}

// addBase adds cluster c, at l, to pieces; the lock of what l is from is held.
func (v *Volume) addBase(out []piece, c uint64, l blockmap.Loc) []piece {
	n := piece{cluster: c, count: 1}
	if l.Mapped() {
		n.mapped, n.src, n.number, n.index = true, v.chain[l.Level()], l.Number(), uint32(l.Offset())
	}
	if k := len(out); k > 0 {
		last := &out[k-1]
		if last.chunk == nil && last.mapped == n.mapped && (!n.mapped || last.src == n.src && last.number == n.number && last.index+uint32(last.count) == n.index) {
			last.count++
			return out
		}
	}
	if n.mapped {
		n.clusters, n.origin, _ = n.src.scos.find(n.number)
	}
	return append(out, n)
}

func unpin(pieces []piece) {
	for i := range pieces {
		if pieces[i].chunk != nil {
			pieces[i].chunk.Unpin()
			pieces[i].chunk = nil
		}
	}
}

// submitRead answers from memory at once, or reads on another goroutine.
func (v *Volume) submitRead(r *Request) {
	cs := uint64(v.cluster)
	n := uint64(len(r.Data))
	if n == 0 {
		v.complete(r, nil)
		return
	}
	v.readAhead(r.Offset, int64(n))
	first, end := uint64(r.Offset)/cs, (uint64(r.Offset)+n+cs-1)/cs
	var w blockmap.Want
	var ok bool
	if r.st.pieces, ok = v.resolve(r.st.pieces[:0], first, end, &w); !ok {
		go func() {
			var err error
			if r.st.pieces, err = v.lookup(v.ctx, r.st.pieces, first, end); err == nil {
				err = v.readAgain(v.ctx, r.st.pieces, r.Data, r.Offset)
			}
			v.complete(r, err)
		}()
		return
	}
	if v.inMemory(r.st.pieces) {
		err := v.readAgain(v.ctx, r.st.pieces, r.Data, r.Offset)
		v.complete(r, err)
		return
	}
	go func() {
		v.complete(r, v.readAgain(v.ctx, r.st.pieces, r.Data, r.Offset))
	}()
}

// inMemory reports whether all pieces can most likely be read without waiting.
func (v *Volume) inMemory(pieces []piece) bool {
	for i := range pieces {
		pc := &pieces[i]
		switch {
		case pc.chunk != nil:
			if !pc.chunk.InMemory(pc.off, int64(v.cluster)) {
				return false
			}
		case pc.mapped:
			first, last := v.groups(pc)
			for g := first; g <= last; g++ {
				if v.host.cache.Peek(v.key(pc, g)) == nil {
					return false
				}
			}
		}
	}
	return true
}

// name returns the name of the piece's SCO: of the vDisk that wrote it.
func (pc *piece) name() string {
	return scoName(pc.src.id, Opening{Epoch: pc.origin.epoch, Nonce: pc.origin.nonce}, pc.number)
}

// known reports whether its SCO has what the map says.
func (pc *piece) known() bool { return pc.index+uint32(pc.count) <= pc.clusters }

func (v *Volume) key(pc *piece, group int) cache.Key {
	return cache.Key{Space: pc.origin.space, SCO: pc.number, Group: uint32(group)}
}

// readAgain is readPieces for pieces that may be older than the end of a flatten or
// scrub: what they name may be gone, and the map has copies of it.
func (v *Volume) readAgain(ctx context.Context, pieces []piece, p []byte, off int64) error {
	err := v.readPieces(ctx, pieces, p, off)
	if errors.Is(err, ErrMedium) && v.dropped.Load() {
		cs := uint64(v.cluster)
		if pieces, err = v.lookup(ctx, nil, uint64(off)/cs, (uint64(off)+uint64(len(p))+cs-1)/cs); err == nil {
			err = v.readPieces(ctx, pieces, p, off)
		}
	}
	return err
}

// readPieces fills p, which starts at byte off of the disk, and gives the
// references back.
func (v *Volume) readPieces(ctx context.Context, pieces []piece, p []byte, off int64) error {
	defer unpin(pieces)
	t := target{p: p, off: off, cluster: v.cluster}
	apart := v.shares(pieces)
	if err := v.readShares(ctx, apart, &t); errors.Is(err, ErrMedium) {
		apart = nil // one after the other: the error names the first place
	} else if err != nil {
		return err
	}
	for i := 0; i < len(pieces); {
		pc := &pieces[i]
		var err error
		n := 1
		switch {
		case pc.chunk != nil:
			n, err = v.readJournal(pieces[i:], &t)
		case pc.mapped && apart == nil:
			err = v.readSCO(ctx, pc, &t, &share{})
		case pc.mapped:
		default:
			for k := range pc.count {
				clear(t.part(pc.cluster + k))
			}
		}
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// target is the caller's buffer, seen by cluster.
type target struct {
	p       []byte
	off     int64
	cluster int
}

// bounds returns the part of cluster c that the buffer covers: where it starts in
// the buffer, and [from, to) in the cluster.
func (t *target) bounds(c uint64) (at int64, from, to int64) {
	start := int64(c) * int64(t.cluster)
	from = max(0, t.off-start)
	to = min(int64(t.cluster), t.off+int64(len(t.p))-start)
	return start + from - t.off, from, to
}

// part returns the bytes of the buffer that are of cluster c.
func (t *target) part(c uint64) []byte {
	at, from, to := t.bounds(c)
	return t.p[at : at+to-from]
}

// put copies a whole cluster's bytes to where they belong.
func (t *target) put(c uint64, data []byte) {
	at, from, to := t.bounds(c)
	copy(t.p[at:], data[from:to])
}

// run returns the buffer for n whole clusters from c, or nil if it has not all of them.
func (t *target) run(c, n uint64) []byte {
	at := int64(c)*int64(t.cluster) - t.off
	end := at + int64(n)*int64(t.cluster)
	if at < 0 || end > int64(len(t.p)) {
		return nil
	}
	return t.p[at:end]
}

// readJournal reads the pieces that follow each other in one chunk and returns
// how many.
func (v *Volume) readJournal(pieces []piece, t *target) (int, error) {
	cs := int64(v.cluster)
	n := 1
	for n < len(pieces) && pieces[n].chunk == pieces[0].chunk && pieces[n].off == pieces[0].off+int64(n)*cs {
		n++
	}
	buf := t.run(pieces[0].cluster, uint64(n))
	direct := buf != nil
	if !direct {
		buf = make([]byte, int64(n)*cs)
	}
	disk, err := pieces[0].chunk.ReadAt(buf, pieces[0].off)
	if err != nil {
		return 0, v.medium(pieces[0].cluster, err)
	}
	for i := range n {
		c := pieces[i].cluster
		data := buf[int64(i)*cs : int64(i+1)*cs]
		if disk && v.seed.Sum(v.lba(c), data) != pieces[i].sum {
			v.stats.crcErrors.Add(1)
			v.log.Error("journal data damaged", "lba", v.lba(c))
			return 0, v.medium(c, errors.New("journal checksum"))
		}
		if !direct {
			t.put(c, data)
		}
	}
	return n, nil
}

// medium is a medium error at cluster c.
func (v *Volume) medium(c uint64, err error) error {
	return fmt.Errorf("vdisk %s: %w", v.id, &MediumError{int64(c) * int64(v.cluster), err})
}

func (v *Volume) lba(c uint64) uint64 { return c * uint64(v.cluster/lbaBytes) }

// share is what a read wants of one group of an SCO.
type share struct {
	parts   []piece
	fetched bool // for it, from the backend
}

// shares returns what pieces want, by group and in the order of the disk; nil if fewer
// than two of the groups have to be loaded.
func (v *Volume) shares(pieces []piece) []*share {
	missing := 0
	var first cache.Key
	for i := range pieces {
		pc := &pieces[i]
		if !pc.mapped || !pc.known() {
			continue
		}
		from, to := v.groups(pc)
		for g := from; g <= to && missing < 2; g++ {
			if k := v.key(pc, g); v.host.cache.Peek(k) == nil && (missing == 0 || k != first) {
				first = k
				missing++
			}
		}
	}
	if missing < 2 {
		return nil
	}
	var out []*share
	found := map[cache.Key]*share{}
	for i := range pieces {
		pc := &pieces[i]
		if !pc.mapped {
			continue
		}
		for k := uint64(0); k < pc.count; {
			part := *pc
			part.cluster, part.index = pc.cluster+k, pc.index+uint32(k)
			g, index := v.layout.Group(part.index)
			part.count = min(pc.count-k, uint64(v.layout.PerGroup()-index))
			k += part.count
			s := found[v.key(pc, g)]
			if s == nil {
				s = &share{}
				found[v.key(pc, g)] = s
				out = append(out, s)
			}
			s.parts = append(s.parts, part)
		}
	}
	return out
}

// groups returns the first and the last group that a piece is in.
func (v *Volume) groups(pc *piece) (first, last int) {
	first, _ = v.layout.Group(pc.index)
	last, _ = v.layout.Group(pc.index + uint32(pc.count) - 1)
	return first, last
}

// readShares reads several groups side by side, until one of them has an error.
func (v *Volume) readShares(ctx context.Context, shares []*share, t *target) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	var failed atomic.Pointer[error]
	for range min(len(shares), maxFetches) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(shares)) && failed.Load() == nil; i = next.Add(1) - 1 {
				parts := shares[i].parts
				for k := range parts {
					if err := v.readSCO(ctx, &parts[k], t, shares[i]); err != nil {
						failed.CompareAndSwap(nil, &err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// readSCO reads one piece through the cache, which is the only one of an empty share, or is a part of one. Of
// several parts whole groups are read. What does not match its checksum is read anew from the backend;
// maxReads times that is a medium error.
func (v *Volume) readSCO(ctx context.Context, pc *piece, t *target, s *share) error {
	if !pc.known() {
		return fmt.Errorf("vdisk %s: %w at lba %d: the map names what sco %d of %s does not have", v.id, ErrMedium, v.lba(pc.cluster), pc.number, pc.src.id)
	}
	for k := uint64(0); k < pc.count; {
		g, index := v.layout.Group(pc.index + uint32(k))
		_, _, n := v.layout.GroupRange(g, pc.clusters)
		todo := min(uint64(n-index), pc.count-k)
		if len(s.parts) < 2 && v.readSmall(ctx, pc, g, k, todo, t) {
			v.stats.cacheMisses.Add(todo)
			k += todo
			continue
		}
		fetched := s.fetched
		for try := 0; ; try++ {
			group, now, err := v.group(ctx, pc, g)
			if errors.Is(err, ErrMedium) {
				return v.medium(pc.cluster+k, err)
			}
			if err != nil {
				return err
			}
			fetched = fetched || now
			bad, ok := v.copyGroup(pc.src, group, n, index, pc.cluster+k, todo, t)
			if ok {
				break
			}
			v.stats.crcErrors.Add(1)
			v.log.Error("sco data damaged", "vdisk", pc.src.id.String(), "sco", pc.number, "group", g, "lba", v.lba(bad), "try", try)
			v.host.cache.Drop(v.key(pc, g))
			if try+1 == maxReads {
				return v.medium(bad, fmt.Errorf("sco %d checksum", pc.number))
			}
		}
		if fetched {
			v.stats.cacheMisses.Add(todo)
		} else {
			v.stats.cacheHits.Add(todo)
		}
		s.fetched = fetched && len(s.parts) > 1
		k += todo
	}
	return nil
}

// readSmall reads clusters of a group that nobody read lately by themselves, with
// the SCO's checksums from the cache: a random read then moves 4 KiB, not 64.
// False: the group is to be read as a whole (it is in use, the store makes small
// reads no cheaper, or this one did not work out).
func (v *Volume) readSmall(ctx context.Context, pc *piece, g int, k, todo uint64, t *target) bool {
	if !v.small || todo > smallReadClusters || v.host.cache.Peek(v.key(pc, g)) != nil || v.host.cache.OnDisk(v.key(pc, g)) || v.touches.again(pc.origin.space, pc.number, uint32(g)) {
		return false
	}
	off, length := v.layout.SumsRange(pc.clusters)
	sums, _, err := v.fetch(ctx, v.key(pc, sumsGroup), pc, off, length)
	if err != nil {
		return false
	}
	first := pc.index + uint32(k)
	buf := t.run(pc.cluster+k, todo)
	direct := buf != nil
	if !direct {
		buf = make([]byte, int(todo)*v.cluster)
	}
	cctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	name := pc.name()
	if err := v.p.cfg.Store.ReadAt(cctx, name, buf, v.layout.DataOffset(first, pc.clusters)); err != nil {
		v.stats.backendErrors.Add(1)
		return false
	}
	for i := range todo {
		data := buf[int(i)*v.cluster : (int(i)+1)*v.cluster]
		if pc.src.seed.Sum(v.lba(pc.cluster+k+i), data) != binary.LittleEndian.Uint32(sums[(uint64(first)+i)*sco.SumBytes:]) {
			v.host.cache.Drop(v.key(pc, sumsGroup))
			return false // the whole group decides whether it is damaged
		}
		if !direct {
			t.put(pc.cluster+k+i, data)
		}
	}
	return true
}

// touches remembers which groups were read a little while ago, so that the second
// read near the first one loads the group.
type touches [touchSlots]atomic.Uint64

// again notes a read of a group and reports whether it was noted before.
func (t *touches) again(space uint64, number, group uint32) bool {
	id := (uint64(number)<<32 | uint64(group) + 1) ^ space<<48
	slot := &t[id*0x9e3779b97f4a7c15>>(64-touchBits)]
	return slot.Swap(id) == id
}

// copyGroup verifies and copies todo clusters from index of a group with n
// clusters; the first is cluster c of the disk.
func (v *Volume) copyGroup(src *source, group []byte, n, index int, c, todo uint64, t *target) (bad uint64, ok bool) {
	for i := range todo {
		data, sum := v.layout.In(group, n, index+int(i))
		if src.seed.Sum(v.lba(c+i), data) != sum {
			return c + i, false
		}
		t.put(c+i, data)
	}
	return 0, true
}

// group returns a group of an SCO, and whether it was fetched from the backend for that.
func (v *Volume) group(ctx context.Context, pc *piece, g int) (data []byte, fetched bool, err error) {
	off, n, _ := v.layout.GroupRange(g, pc.clusters)
	return v.fetch(ctx, v.key(pc, g), pc, off, n)
}

// fetch returns n bytes from off of an SCO through the cache, and whether it asked the backend for them.
func (v *Volume) fetch(ctx context.Context, key cache.Key, pc *piece, off int64, n int) (data []byte, asked bool, err error) {
	data, err = v.host.cache.Get(ctx, key, v.cached, func() ([]byte, error) {
		asked = true
		buf := make([]byte, n)
		name := pc.name()
		err := v.retry(ctx, v.settings.Load().StallTimeout, func(ctx context.Context) error {
			return v.p.cfg.Store.ReadAt(ctx, name, buf, off)
		})
		if err != nil {
			return nil, fmt.Errorf("vdisk %s: read %s: %w", v.id, name, err)
		}
		return buf, nil
	})
	return data, asked, err
}

// retry calls the backend until it answers or budget is used up. What another
// try cannot change is returned at once, as ErrMedium, and damage after maxReads tries:
// an encrypted store finds what a network did, too.
func (v *Volume) retry(ctx context.Context, budget time.Duration, call func(context.Context) error) error {
	deadline := v.host.o.Clock.Now().Add(budget)
	damaged := 0
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		cctx, cancel := context.WithTimeout(ctx, backendTimeout)
		err := call(cctx)
		cancel()
		if err == nil {
			return nil
		}
		v.stats.backendErrors.Add(1)
		if errors.Is(err, backend.ErrCorrupt) {
			damaged++
		}
		if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrRange) || damaged == maxReads {
			return fmt.Errorf("%w: %w", ErrMedium, err)
		}
		if v.host.o.Clock.Now().Add(wait).After(deadline) {
			return fmt.Errorf("%w: %w", ErrBackend, err)
		}
		if !v.sleep(ctx, wait) {
			return fmt.Errorf("%w: %w", errStopped, err)
		}
	}
}

// sleep waits on the volume's clock; false if ctx or the volume ended.
func (v *Volume) sleep(ctx context.Context, d time.Duration) bool {
	t := v.host.o.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-ctx.Done():
	case <-v.ctx.Done():
	}
	return false
}

// prefetch loads the groups of pieces side by side. Errors show when the group is used.
func (v *Volume) prefetch(ctx context.Context, pieces []piece) {
	var wg sync.WaitGroup
	tokens := make(chan struct{}, maxFetches)
	for i := range pieces {
		pc := &pieces[i]
		if !pc.mapped || !pc.known() || v.small && pc.count <= smallReadClusters {
			continue
		}
		first, last := v.groups(pc)
		for g := first; g <= last; g++ {
			if v.host.cache.Peek(v.key(pc, g)) != nil {
				continue
			}
			tokens <- struct{}{}
			wg.Go(func() {
				defer func() { <-tokens }()
				_, _, _ = v.group(ctx, pc, g)
			})
		}
	}
	wg.Wait()
}
