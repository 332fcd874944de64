package volume

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
	"github.com/openvstorage/ovgate/volumedriver/journal"
	"github.com/openvstorage/ovgate/volumedriver/sco"
)

// kept is a cluster of a batch that was not overwritten or trimmed within it.
type kept struct {
	cluster uint64
	point   blockmap.Point
	slot    uint32 // index in the SCO
}

// buildSCO makes the object of a batch: the last state of each cluster, by LBA.
func (v *Volume) buildSCO(b *batch) ([]byte, *sco.Footer, error) {
	final := blockmap.NewOverlay()
	for i := range b.entries {
		e := &b.entries[i]
		if e.kind == journal.KindData {
			final.Write(e.cluster, e.point)
		} else {
			final.Trim(e.cluster, e.count, uint32(e.kind))
		}
	}
	points, _ := final.Len()
	data := make([]kept, 0, points)
	final.Each(func(c uint64, p blockmap.Point) { data = append(data, kept{cluster: c, point: p}) })
	slices.SortFunc(data, func(a, b kept) int { return cmp.Compare(a.cluster, b.cluster) })
	f := &sco.Footer{Cluster: uint32(v.cluster), VDisk: v.id, Epoch: v.this.Epoch, Nonce: v.this.Nonce, Number: b.number,
		Clusters: uint32(len(data)), FirstSeq: b.firstSeq, LastSeq: b.lastSeq, FirstTime: b.firstTime, LastTime: b.lastTime}
	per := uint64(v.cluster / lbaBytes)
	final.EachSpan(func(start, n uint64, kind uint32) {
		k := sco.KindTrim
		if journal.Kind(kind) == journal.KindZero {
			k = sco.KindZero
		}
		f.Extents = append(f.Extents, sco.Extent{LBA: start * per, Length: n * per, Kind: k})
	})
	for i := range data {
		data[i].slot = uint32(i)
		if i > 0 && data[i-1].cluster+1 == data[i].cluster {
			f.Extents[len(f.Extents)-1].Length += per
			continue
		}
		f.Extents = append(f.Extents, sco.Extent{LBA: data[i].cluster * per, Length: per, Kind: sco.KindData, First: uint32(i)})
	}
	obj := v.host.objectBuffer(sco.Size(v.cluster, len(data), len(f.Extents)))
	var d sco.Digest
	if err := v.gather(obj, data, f.Clusters, &d); err != nil {
		return nil, nil, err
	}
	d.Finish(obj, f)
	return obj, f, nil
}

// gather fills the groups of an SCO from the journal, verifying every cluster.
func (v *Volume) gather(obj []byte, data []kept, n uint32, digest *sco.Digest) error {
	slices.SortFunc(data, func(a, b kept) int {
		return cmp.Or(cmp.Compare(a.point.Chunk, b.point.Chunk), cmp.Compare(a.point.Off, b.point.Off))
	})
	unit := uint32(v.cluster / MinClusterSize)
	w := gatherWindow{cluster: int64(v.cluster)}
	for i := 0; i < len(data); {
		k := 1
		for i+k < len(data) && data[i+k].point.Chunk == data[i].point.Chunk && data[i+k].point.Off == data[i].point.Off+uint32(k)*unit {
			k++
		}
		chunk := v.journal.Pin(data[i].point.Chunk)
		var err error
		copied := chunk.Copy(data[i].off(), func(j int) []byte {
			if j > 0 {
				err = v.gathered(obj, &data[i+j-1], n, digest)
			}
			if j == k || err != nil {
				return nil
			}
			dst, _ := v.layout.Slot(obj, n, data[i+j].slot)
			return dst
		})
		for j := copied; j < k && err == nil; j++ {
			var b []byte
			if b, err = w.read(chunk, data[i+j:]); err == nil {
				dst, _ := v.layout.Slot(obj, n, data[i+j].slot)
				copy(dst, b)
				err = v.gathered(obj, &data[i+j], n, digest)
			}
		}
		chunk.Unpin()
		if err != nil {
			return fmt.Errorf("vdisk %s: %w: %w", v.id, ErrMedium, err)
		}
		i += k
	}
	return nil
}

// gathered verifies a cluster in its place in an SCO, at once: its bytes are in the
// processor's caches.
func (v *Volume) gathered(obj []byte, k *kept, n uint32, digest *sco.Digest) error {
	dst, sum := v.layout.Slot(obj, n, k.slot)
	if v.seed.Sum(v.lba(k.cluster), dst) != k.point.Sum {
		v.stats.crcErrors.Add(1)
		return fmt.Errorf("journal checksum before upload at lba %d", v.lba(k.cluster))
	}
	binary.LittleEndian.PutUint32(sum, k.point.Sum)
	digest.Filled(obj, v.layout, n, k.slot)
	return nil
}

// off is where in its chunk the cluster is, in bytes.
func (k *kept) off() int64 { return int64(k.point.Off) * MinClusterSize }

// gatherGap is how much that is not wanted is read between two pieces rather than asking the
// disk twice, in bytes: several headers of records.
const gatherGap = 32 << 10

// gatherWindow is what gather read of a chunk last, of what memory has no more.
type gatherWindow struct {
	cluster int64 // bytes
	chunk   uint32
	off     int64
	b, buf  []byte
}

// read returns the first cluster of data, which follow each other in the chunk, and reads those
// behind it with it.
func (w *gatherWindow) read(c *journal.Chunk, data []kept) ([]byte, error) {
	off, id := data[0].off(), data[0].point.Chunk
	if at := off - w.off; id != w.chunk || at < 0 || at+w.cluster > int64(len(w.b)) {
		end, whole := off+w.cluster, c.Settled()
		for i := range data[1:] {
			o := data[1+i].off()
			if data[1+i].point.Chunk != id || o > end+gatherGap || o+w.cluster > min(off+maxAppend, whole) {
				break
			}
			end = o + w.cluster
		}
		if w.buf == nil {
			w.buf = blockfs.AlignedBuffer(maxAppend)
		}
		w.chunk, w.off, w.b = id, off, w.buf[:end-off]
		if _, err := c.ReadAt(w.b, off); err != nil {
			w.b = nil
			return nil, err
		}
	}
	at := off - w.off
	return w.b[at : at+w.cluster], nil
}

// build makes the Volume of an opening: map from checkpoint and TLogs, overlay
// from the tail, then a head of this epoch (E2).
func (o *opening) build(ctx context.Context) (*Volume, error) {
	h := o.p.host
	v := &Volume{p: o.p, host: h, id: o.id, seed: clustersum.NewSeed(o.id), cluster: o.head.ClusterSize,
		layout: sco.Layout{Cluster: o.head.ClusterSize}, this: o.this, table: o.table, overlay: blockmap.NewOverlay(),
		log: h.o.Log.With("vdisk", o.head.Name, "id", o.id.String(), "epoch", o.this.Epoch), kick: make(chan struct{}, 1)}
	v.cached, v.disk = h.cacheUser(o.id), o.disk
	v.origin = o.p.origin(o.id, o.this.Epoch, o.this.Nonce)
	v.small = o.p.cfg.Store.Features().CheapReads
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.size.Store(o.head.Size)
	s := o.p.settingsOf(o.id)
	s.ClusterSize = v.cluster
	v.settings.Store(&s)
	v.setIOLimits()
	if err := o.loadMap(ctx, v); err != nil {
		v.cancel()
		v.dropMap()
		return nil, err
	}
	v.up = uploader{v: v, kick: make(chan struct{}, 1), nextSCO: o.head.NextSCO, rec: o.rec, head: *o.head, past: o.past, ref: o.ref,
		number: o.head.Number, openHead: true, claimed: !o.offline || !o.p.cfg.Store.Features().ConditionalPut, ckpt: v.up.ckpt, hasLocal: v.up.hasLocal, keep: v.up.keep, requests: make(chan *headRequest), released: make(chan struct{})}
	v.movedSCO.Store(max(o.head.NextMovedSCO, movedNumbers))
	v.movedTLog.Store(max(o.head.NextMovedTLog, movedNumbers))
	v.committedState.Store(&state{o.head, o.past, o.ref})
	v.applied.Store(&state{o.head, o.past, o.ref})
	for i := range o.past.Pins {
		v.pins = append(v.pins, &o.past.Pins[i])
	}
	v.up.stale = o.stalePasts
	for _, r := range o.stale {
		v.up.stale = append(v.up.stale, headName(o.id, r))
	}
	v.up.doom(condemnedData(o.head))
	if prev := o.head.Epoch; prev < o.this.Epoch && o.p.cfg.Store.Features().ConditionalPut {
		v.up.stale = append(v.up.stale, claimName(o.id, prev))
	}
	v.up.committed.Store(o.head.LastSeq)
	v.up.headNum.Store(o.head.Number)
	v.up.headTime.Store(o.head.Time)
	v.up.stored.Store(o.head.Stored)
	v.lastTime.Store(o.this.Time)
	v.lastSeq.Store(o.head.LastSeq)
	v.changed.Store(o.head.LastSeq)
	tail := o.tail.Tail
	v.journal = journal.NewLog(journal.LogOptions{Pool: o.disk.pool, VDisk: o.id, Epoch: o.this.Epoch, Cluster: v.cluster,
		NextSeq: o.this.FirstSeq, Time: o.this.Time, Memory: h.memory}, o.tail)
	o.tail = nil
	for _, d := range h.disks { // what it left where its journal was before
		if d != o.disk && d.pool != nil {
			d.pool.Forget(o.id)
		}
	}
	if o.head.Reservation != nil {
		v.reservation.Store(&o.head.Reservation)
	}
	if err := v.replay(tail); err != nil {
		v.journal.Close()
		v.cancel()
		v.dropMap()
		return nil, err
	}
	first := &headRequest{ctx: ctx, done: make(chan error, 1)}
	if !o.offline {
		v.up.pending = append(v.up.pending, first) // before it runs, so that one head answers it
	}
	h.countLog(o.disk, 1)
	v.startMirroring()
	v.wg.Add(3)
	go (&committer{v: v}).run()
	go v.up.run()
	go v.finishDoomed()
	if !o.offline {
		if err := v.up.await(first); err != nil {
			v.stop()
			return nil, fmt.Errorf("vdisk %s: %w: head of epoch %d: %w", o.id, ErrBackend, o.this.Epoch, err)
		}
	}
	v.log.Info("vdisk open", "size", v.Size(), "lastSeq", v.lastSeq.Load(), "committed", v.up.committed.Load(), "offline", o.offline)
	return v, nil
}

// setIOLimits derives from the chunk size how much one record may carry.
func (v *Volume) setIOLimits() {
	// A record with its edges and header must fit an empty chunk.
	v.maxIO = int(min(MaxIO, v.host.o.ChunkBytes/2-4*int64(v.cluster)))
	v.appendLimit = min(maxAppend, v.maxIO)
}

// replay puts the recovered tail into the overlay, as apply did when it was written.
func (v *Volume) replay(tail []journal.Found) error {
	for _, f := range tail {
		h := f.Header
		b := &journal.Batch{Seqs: h.Seqs, Extents: h.Extents, Sums: h.Sums, Time: h.Time}
		states := map[*journal.Extent][]byte{}
		for i := range b.Extents {
			if e := &b.Extents[i]; e.Kind != journal.KindData && e.HasData() {
				state, err := v.recorded(b, e, f.Chunk, f.Off)
				if err != nil {
					return err
				}
				states[e] = state
			}
		}
		v.apply(h.Seq, b, f.Chunk, f.Off, int64(h.HeaderBytes)+int64(h.DataBytes),
			func(e *journal.Extent) []byte { return states[e] })
	}
	return nil
}

// loadMap makes the base map as of the head: from the newest checkpoint that fits, or
// from nothing, and the TLogs after it.
func (o *opening) loadMap(ctx context.Context, v *Volume) error {
	st := &state{o.head, o.past, o.ref}
	v.own = &source{id: o.id, seed: v.seed}
	var above [16]byte
	if o.parent != nil {
		v.parent, v.chain, above = o.parent, slices.Clone(o.parent.chain), o.parent.line
	}
	v.chain = append(v.chain, v.own)
	v.line = st.line(above, int(v.level()))
	v.applied.Store(st)
	pages := o.pageStore(v)
	v.up.keep = keeper{pages: pages}
	clusters := uint64(o.head.Size) / uint64(o.head.ClusterSize)
	l := mapLoader{log: o.p.logReader(o.id, o.table), src: v.own, level: v.level(), pages: pages}
	runs := st.log()
	if f := o.findCheckpoint(ctx, v); f != nil {
		f.m.Grow(clusters)
		l.m = f.m
		for _, s := range f.scos {
			if s.Epoch == 0 { // version 1 of the checkpoint does not say
				e := o.table.ofSCO(s.Number)
				s.Epoch, s.Nonce = e.Epoch, e.Nonce
			}
			v.own.scos.add(s.Number, o.p.origin(o.id, s.Epoch, s.Nonce), s.Clusters, s.Bytes)
			l.note(s.Number)
		}
		runs = nil
		if f.next < o.head.NextTLog {
			runs = []Run{{First: f.next, End: o.head.NextTLog, FirstSeq: 0, LastSeq: o.head.LastSeq}}
		}
		v.up.ckpt, v.up.hasLocal = f.next, f.local
	} else {
		l.m = blockmap.New(clusters, o.p.host.mapMemory)
		if v.parent != nil {
			l.m = v.parent.m.Clone(clusters)
		}
		v.up.ckpt = o.head.FirstTLog
	}
	v.base = l.m
	v.up.keep.put = o.head.FirstTLog
	if o.mapFits(v) {
		v.up.keep.put = o.head.Map.NextTLog
	}
	if err := l.apply(ctx, runs); err != nil {
		return err
	}
	return l.complete(o.head)
}

// pageStore makes the store of the map's pages.
func (o *opening) pageStore(v *Volume) *pageStore {
	s := newPageStore(o.p.host, o.id, stateDir(o.id), segmentPrefix, o.this)
	s.objects = o.p.cfg.Store
	s.rebuild = func(ctx context.Context, n uint64, right func([]byte) bool) ([]byte, error) {
		st := v.applied.Load()
		v.mapMu.RLock()
		parent := v.parent
		v.mapMu.RUnlock()
		return rebuildPage(ctx, o.p.logReader(o.id, o.table), st.log(), parent, uint64(st.head.Size)/uint64(st.head.ClusterSize), v.level(), n, right)
	}
	return s
}

// dropMap takes the map out of memory.
func (v *Volume) dropMap() {
	v.mapMu.Lock()
	defer v.mapMu.Unlock()
	v.up.keep.pages.end()
	if v.base != nil {
		v.base.Release()
	}
}

func localCheckpoint(id ID) string { return stateDir(id) + "/map" }

// usable is a checkpoint to start from.
type usable struct {
	m     *blockmap.Map
	scos  []blockmap.SCOInfo
	next  uint32 // TLog to replay from
	local bool
}

// mapFits reports whether the checkpoint on the backend, by what the head says of
// it, is of the log as it is.
func (o *opening) mapFits(v *Volume) bool {
	r := o.head.Map
	return r != nil && r.Line == hex.EncodeToString(v.line[:]) && r.NextTLog >= o.head.FirstTLog && r.NextTLog <= o.head.NextTLog
}

// findCheckpoint returns the newer of the checkpoints on local disk and on the
// backend that fits the head (M4), nil if there is none.
func (o *opening) findCheckpoint(ctx context.Context, v *Volume) *usable {
	warn := func(where string, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			o.p.host.o.Log.Warn("map checkpoint not used", "vdisk", o.id.String(), "where", where, "err", err)
		}
	}
	local, err := o.localCheckpoint(v)
	warn("local disk", err)
	if o.offline || !o.mapFits(v) || local != nil && local.next >= o.head.Map.NextTLog {
		return local
	}
	remote, err := o.remoteCheckpoint(ctx, v)
	warn("backend", err)
	if remote == nil {
		return local
	}
	if local != nil {
		local.m.Release()
	}
	return remote
}

// localCheckpoint reads that of local disk.
func (o *opening) localCheckpoint(v *Volume) (*usable, error) {
	f, err := o.p.host.o.FS.Open(localCheckpoint(o.id), blockfs.Read)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	var start [10]byte
	if _, err := f.ReadAt(start[:], 0); err != nil {
		return nil, blockmap.ErrCheckpoint
	}
	if binary.LittleEndian.Uint16(start[8:]) < blockmap.FormatVersion {
		return o.oldCheckpoint(v, io.NewSectionReader(f, 0, size))
	}
	if size > maxIndexBytes {
		return nil, blockmap.ErrCheckpoint
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	out, err := o.useIndex(v, b)
	if err == nil {
		out.local = true
	}
	return out, err
}

// oldCheckpoint reads one that an earlier ovgate wrote.
func (o *opening) oldCheckpoint(v *Volume, r io.Reader) (*usable, error) {
	m, h, err := blockmap.ReadCheckpoint(r, v.parent.base(), o.p.host.mapMemory)
	if err != nil {
		return nil, err
	}
	if h.LastTLog > o.head.NextTLog || !o.fits(v, h.VDisk, h.Line, h.Cluster, h.FirstTLog, h.Clusters) {
		m.Release()
		return nil, errors.New("it does not fit the head")
	}
	return &usable{m: m, scos: h.SCOs, next: h.FirstTLog}, nil
}

func (o *opening) fits(v *Volume, id, line [16]byte, cluster, next uint32, clusters uint64) bool {
	return id == o.id && line == v.line && int(cluster) == o.head.ClusterSize && next >= o.head.FirstTLog && next <= o.head.NextTLog &&
		clusters <= uint64(o.head.Size)/uint64(o.head.ClusterSize)
}

// remoteCheckpoint reads that of the backend.
func (o *opening) remoteCheckpoint(ctx context.Context, v *Volume) (*usable, error) {
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	b, err := o.p.cfg.Store.Get(ctx, mapName(o.id, *o.head.Map), maxIndexBytes)
	if err != nil {
		return nil, err
	}
	out, err := o.useIndex(v, b)
	if err == nil && out.next != o.head.Map.NextTLog {
		out.m.Release()
		return nil, errors.New("it is not the one that the head names")
	}
	return out, err
}

// useIndex makes the map of a checkpoint; its pages are read when they are needed.
func (o *opening) useIndex(v *Volume, b []byte) (*usable, error) {
	m, x, err := blockmap.DecodeMap(b, v.parent.base(), v.up.keep.pages.owner)
	if err != nil {
		return nil, err
	}
	if !o.fits(v, x.VDisk, x.Line, x.Cluster, x.NextTLog, x.Clusters) {
		m.Release()
		return nil, errors.New("it does not fit the head")
	}
	return &usable{m: m, scos: x.SCOs, next: x.NextTLog}, nil
}
