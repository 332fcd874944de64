package volume

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	obj := make([]byte, sco.Size(v.cluster, len(data), len(f.Extents)))
	if err := v.gather(obj, data, f.Clusters); err != nil {
		return nil, nil, err
	}
	sco.Finish(obj, f)
	return obj, f, nil
}

// gather fills the groups of an SCO from the journal, verifying every cluster.
func (v *Volume) gather(obj []byte, data []kept, n uint32) error {
	slices.SortFunc(data, func(a, b kept) int {
		return cmp.Or(cmp.Compare(a.point.Chunk, b.point.Chunk), cmp.Compare(a.point.Off, b.point.Off))
	})
	unit := uint32(v.cluster / MinClusterSize)
	buf := blockfs.AlignedBuffer(maxAppend)
	most := len(buf) / v.cluster
	for i := 0; i < len(data); {
		k := 1
		for i+k < len(data) && k < most && data[i+k].point.Chunk == data[i].point.Chunk &&
			data[i+k].point.Off == data[i].point.Off+uint32(k)*unit {
			k++
		}
		chunk := v.journal.Pin(data[i].point.Chunk)
		_, err := chunk.ReadAt(buf[:k*v.cluster], int64(data[i].point.Off)*MinClusterSize)
		chunk.Unpin()
		if err != nil {
			return fmt.Errorf("vdisk %s: %w: %w", v.id, ErrMedium, err)
		}
		for j := range k {
			d, p := data[i+j], buf[j*v.cluster:(j+1)*v.cluster]
			if v.seed.Sum(v.lba(d.cluster), p) != d.point.Sum {
				v.stats.crcErrors.Add(1)
				return fmt.Errorf("vdisk %s: %w at lba %d: journal checksum before upload", v.id, ErrMedium, v.lba(d.cluster))
			}
			dst, sum := v.layout.Slot(obj, n, d.slot)
			copy(dst, p)
			binary.LittleEndian.PutUint32(sum, d.point.Sum)
		}
		i += k
	}
	return nil
}

// build makes the Volume of an opening: map from checkpoint and TLogs, overlay
// from the tail, then a head of this epoch (E2).
func (o *opening) build(ctx context.Context) (*Volume, error) {
	h := o.p.host
	v := &Volume{p: o.p, host: h, id: o.id, seed: clustersum.NewSeed(o.id), cluster: o.head.ClusterSize,
		layout: sco.Layout{Cluster: o.head.ClusterSize}, this: o.this, table: o.table, overlay: blockmap.NewOverlay(),
		log: h.o.Log.With("vdisk", o.head.Name, "id", o.id.String(), "epoch", o.this.Epoch), kick: make(chan struct{}, 1)}
	v.origin = o.p.origin(o.id, o.this.Epoch, o.this.Nonce)
	v.small = o.p.cfg.Store.Features().CheapReads
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.size.Store(o.head.Size)
	s := o.p.Settings()
	s.ClusterSize = v.cluster
	v.settings.Store(&s)
	v.setIOLimits()
	if err := o.loadMap(ctx, v); err != nil {
		v.cancel()
		return nil, err
	}
	v.up = uploader{v: v, kick: make(chan struct{}, 1), nextSCO: o.head.NextSCO, rec: o.rec, head: *o.head, past: o.past, ref: o.ref,
		number: o.head.Number, openHead: true, claimed: !o.offline || !o.p.cfg.Store.Features().ConditionalPut, ckpt: v.up.ckpt, requests: make(chan *headRequest), released: make(chan struct{})}
	v.movedSCO.Store(max(o.head.NextMovedSCO, movedNumbers))
	v.movedTLog.Store(max(o.head.NextMovedTLog, movedNumbers))
	v.committedState.Store(&state{o.head, o.past, o.ref})
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
	tail := o.tail.Tail
	v.journal = journal.NewLog(journal.LogOptions{Pool: h.journal, VDisk: o.id, Epoch: o.this.Epoch, Cluster: v.cluster,
		NextSeq: o.this.FirstSeq, Time: o.this.Time, Memory: h.memory}, o.tail)
	o.tail = nil
	if o.head.Reservation != nil {
		v.reservation.Store(&o.head.Reservation)
	}
	if err := v.replay(tail); err != nil {
		v.journal.Close()
		v.cancel()
		return nil, err
	}
	v.wg.Add(3)
	go (&committer{v: v}).run()
	go v.up.run()
	go v.finishDoomed()
	if !o.offline {
		if err := v.up.ask(&headRequest{ctx: ctx}); err != nil {
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

// loadMap rebuilds the base map as of the head.
func (o *opening) loadMap(ctx context.Context, v *Volume) error {
	st := &state{o.head, o.past, o.ref}
	v.own = &source{id: o.id, seed: v.seed}
	var above [16]byte
	if o.parent != nil {
		v.parent, v.chain, above = o.parent, slices.Clone(o.parent.chain), o.parent.line
	}
	v.chain = append(v.chain, v.own)
	v.line = st.line(above, int(v.level()))
	clusters := uint64(o.head.Size) / uint64(o.head.ClusterSize)
	l := mapLoader{log: o.p.logReader(o.id, o.table), src: v.own, level: v.level()}
	runs := st.log()
	if m, ck := o.readCheckpoint(v); m != nil {
		m.Grow(clusters)
		l.m = m
		for _, s := range ck.SCOs {
			if s.Epoch == 0 { // version 1 of the checkpoint does not say
				e := o.table.ofSCO(s.Number)
				s.Epoch, s.Nonce = e.Epoch, e.Nonce
			}
			v.own.scos.add(s.Number, o.p.origin(o.id, s.Epoch, s.Nonce), s.Clusters, s.Bytes)
			l.note(s.Number)
		}
		runs = []Run{{First: ck.FirstTLog, End: o.head.NextTLog, FirstSeq: 0, LastSeq: o.head.LastSeq}}
		v.up.ckpt = ck.FirstTLog
	} else {
		l.m = blockmap.New(clusters)
		if v.parent != nil {
			l.m = v.parent.m.Clone(clusters)
		}
		v.up.ckpt = o.head.FirstTLog
	}
	if err := l.apply(ctx, runs); err != nil {
		return err
	}
	v.base = l.m
	return l.complete(o.head)
}

func localCheckpoint(id ID) string { return stateDir(id) + "/map" }

// readCheckpoint returns the local checkpoint if it fits the head, else nil (M4).
func (o *opening) readCheckpoint(v *Volume) (*blockmap.Map, *blockmap.CheckpointHeader) {
	f, err := o.p.host.o.FS.Open(localCheckpoint(o.id), blockfs.Read)
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, nil
	}
	m, h, err := blockmap.ReadCheckpoint(io.NewSectionReader(f, 0, size), v.parent.base())
	if err == nil && (h.VDisk != o.id || int(h.Cluster) != o.head.ClusterSize || h.LastTLog > o.head.NextTLog || h.Line != v.line ||
		h.FirstTLog < o.head.FirstTLog || h.Clusters > uint64(o.head.Size)/uint64(o.head.ClusterSize)) {
		err = errors.New("it does not fit the head")
	}
	if err != nil {
		o.p.host.o.Log.Warn("map checkpoint not used", "vdisk", o.id.String(), "err", err)
		return nil, nil
	}
	return m, h
}
