package scrub

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

const (
	// maxSpan is how much of an SCO is read at once, in bytes: long enough to be worth
	// a request, short enough to yield after it.
	maxSpan = 1 << 20
	// maxGap is what is read and not needed between two clusters rather than asking
	// twice, in bytes.
	maxGap = 64 << 10
)

// ErrNumbers: the unit has fewer numbers than its objects need.
var ErrNumbers = errors.New("scrub: the unit's numbers are used up")

// Execute does a unit: it returns when all new objects are stored. Errors:
// DamageError for a cluster that does not verify, those of the store, that of ctx. With
// an error, the result only says what was written for nothing.
func Execute(ctx context.Context, env *Env, u *Unit) (*Result, error) {
	x := &execution{u: u, env: env, seed: clustersum.NewSeed(u.VDisk), layout: sco.Layout{Cluster: u.Cluster},
		nextSCO: u.FirstSCO, nextTLog: u.FirstTLog, res: &Result{}}
	for i := range u.Segments {
		if err := x.segment(ctx, &u.Segments[i]); err != nil {
			return x.res, err
		}
	}
	return x.res, nil
}

// execution is one run of a unit.
type execution struct {
	u                 *Unit
	env               *Env
	seed              clustersum.Seed
	layout            sco.Layout
	nextSCO, nextTLog uint32
	res               *Result
	buf               []byte

	// Of the segment at hand:
	s     *Segment
	moved map[uint32]bool
	scos  map[uint32]tlog.Entry // as the TLogs of the segment have them
	kept  map[uint32][]sco.Extent
	order []uint32 // of kept
	made  []tlog.Entry
	batch []copied
	trims []sco.Extent
}

// copied is a cluster that goes into a new SCO.
type copied struct {
	cluster uint64
	from    blockmap.Loc
	slot    uint32
}

func (x *execution) segment(ctx context.Context, s *Segment) error {
	x.s, x.moved, x.scos, x.kept = s, map[uint32]bool{}, map[uint32]tlog.Entry{}, map[uint32][]sco.Extent{}
	x.order, x.made, x.batch, x.trims = nil, nil, nil, nil
	for _, n := range s.Move {
		x.moved[n] = true
	}
	if err := x.u.each(ctx, x.env, s, func(e tlog.Entry) error {
		f := *e.Footer
		f.Extents = nil
		x.scos[f.Number] = tlog.Entry{Bytes: e.Bytes, Footer: &f}
		return nil
	}); err != nil {
		return err
	}
	if err := x.u.windows(ctx, x.env, s, func(l *layer) error { return x.window(ctx, l) }); err != nil {
		return err
	}
	for len(x.batch) > 0 || len(x.trims) > 0 || len(x.made)+len(x.kept) == 0 {
		if err := x.flush(ctx); err != nil {
			return err
		}
	}
	return x.index(ctx)
}

// window takes over what the segment does to a part of the disk (R2).
func (x *execution) window(ctx context.Context, l *layer) error {
	per := uint64(x.u.Cluster / lbaBytes)
	if !x.s.Bottom {
		l.eachTrim(func(start, n uint64) {
			x.trims = append(x.trims, sco.Extent{LBA: start * per, Length: n * per, Kind: sco.KindTrim})
		})
	}
	return l.eachData(func(c uint64, at blockmap.Loc) error {
		if !x.moved[at.Number()] {
			x.keep(c, at)
			return nil
		}
		x.batch = append(x.batch, copied{cluster: c, from: at})
		if len(x.batch) < x.u.SCOClusters {
			return nil
		}
		return x.flush(ctx)
	})
}

// keep notes that a cluster of an SCO counts that stays.
func (x *execution) keep(c uint64, at blockmap.Loc) {
	per := uint64(x.u.Cluster / lbaBytes)
	ext, ok := x.kept[at.Number()]
	if !ok {
		x.order = append(x.order, at.Number())
	}
	if n := len(ext); n > 0 {
		if e := &ext[n-1]; e.LBA+e.Length == c*per && uint64(e.First)+e.Length/per == uint64(at.Offset()) {
			e.Length += per
			return
		}
	}
	x.kept[at.Number()] = append(ext, sco.Extent{LBA: c * per, Length: per, Kind: sco.KindData, First: uint32(at.Offset())})
}

// flush writes an SCO of what is gathered.
func (x *execution) flush(ctx context.Context) error {
	u := x.u
	if x.nextSCO >= u.EndSCO {
		return ErrNumbers
	}
	trims := min(len(x.trims), maxTrims)
	f := &sco.Footer{Cluster: uint32(u.Cluster), VDisk: u.VDisk, Epoch: u.Epoch, Nonce: u.Nonce, Number: x.nextSCO,
		Clusters: uint32(len(x.batch)), FirstSeq: x.s.FirstSeq, LastSeq: x.s.LastSeq, FirstTime: x.s.FirstTime, LastTime: x.s.LastTime,
		Extents: append(slices.Clone(x.trims[:trims]), x.extents()...)}
	obj := make([]byte, sco.Size(u.Cluster, len(x.batch), len(f.Extents)))
	if err := x.gather(ctx, obj); err != nil {
		return err
	}
	sco.Finish(obj, f)
	if err := x.put(ctx, sco.Name(u.Dir, f.Number, u.Epoch, u.Nonce), obj); err != nil {
		return err
	}
	x.made = append(x.made, tlog.Entry{Bytes: int64(len(obj)), Footer: f})
	x.nextSCO++
	x.batch, x.trims = x.batch[:0], x.trims[trims:]
	return nil
}

// extents describes the gathered clusters, each run from one place (R5), and gives
// them their slots.
func (x *execution) extents() []sco.Extent {
	per := uint64(x.u.Cluster / lbaBytes)
	var out []sco.Extent
	for i := range x.batch {
		b := &x.batch[i]
		b.slot = uint32(i)
		if i > 0 && x.batch[i-1].cluster+1 == b.cluster && follows(x.batch[i-1].from, b.from) {
			out[len(out)-1].Length += per
			continue
		}
		out = append(out, sco.Extent{LBA: b.cluster * per, Length: per, Kind: sco.KindData, First: b.slot, Source: uint64(b.from)})
	}
	return out
}

func (x *execution) put(ctx context.Context, name string, obj []byte) error {
	if err := x.env.pace(ctx, int64(len(obj))); err != nil {
		return err
	}
	x.res.Objects = append(x.res.Objects, name)
	if err := x.env.call(ctx, func(ctx context.Context) error { return x.env.Store.Put(ctx, name, obj) }); err != nil {
		return fmt.Errorf("scrub: put %s: %w", name, err)
	}
	x.res.Written += int64(len(obj))
	return nil
}

// gather reads the clusters of the new SCO: those that are near each other in an old
// one together.
func (x *execution) gather(ctx context.Context, obj []byte) error {
	list := slices.Clone(x.batch)
	slices.SortFunc(list, func(a, b copied) int { return cmp.Compare(a.from, b.from) })
	gap := 1 + maxGap/x.u.Cluster
	most := maxSpan / x.u.Cluster
	for i := 0; i < len(list); {
		k := i + 1
		for k < len(list) && list[k].from.Number() == list[i].from.Number() &&
			int(list[k].from.Offset())-int(list[k-1].from.Offset()) <= gap &&
			int(list[k].from.Offset())-int(list[i].from.Offset()) < most {
			k++
		}
		if err := x.span(ctx, obj, uint32(len(x.batch)), list[i:k]); err != nil {
			return err
		}
		i = k
	}
	return nil
}

// span copies clusters of one SCO; what does not verify is read once more (R3).
func (x *execution) span(ctx context.Context, obj []byte, n uint32, list []copied) error {
	src := x.scos[list[0].from.Number()]
	f := src.Footer
	last := list[len(list)-1].from.Offset()
	if uint32(last) >= f.Clusters {
		return x.damage(f, list[len(list)-1].cluster, sco.ErrCorrupt)
	}
	off := x.layout.DataOffset(uint32(list[0].from.Offset()), f.Clusters)
	g, _ := x.layout.Group(uint32(last))
	start, length, _ := x.layout.GroupRange(g, f.Clusters)
	size := int(start + int64(length) - off)
	if cap(x.buf) < size {
		x.buf = make([]byte, size)
	}
	buf := x.buf[:size]
	for try := 0; ; try++ {
		if err := x.env.pace(ctx, int64(size)); err != nil {
			return err
		}
		name := sco.Name(x.u.Dir, f.Number, f.Epoch, f.Nonce)
		if err := x.env.call(ctx, func(ctx context.Context) error { return x.env.Store.ReadAt(ctx, name, buf, off) }); err != nil {
			return x.readError(f, list[0].cluster, err)
		}
		x.res.Read += int64(size)
		bad, ok := x.copyOut(obj, n, f, buf, off, list)
		if ok {
			return nil
		}
		if try > 0 {
			return x.damage(f, bad, fmt.Errorf("%w: checksum", sco.ErrCorrupt))
		}
	}
}

// copyOut verifies and copies clusters out of what was read from off.
func (x *execution) copyOut(obj []byte, n uint32, f *sco.Footer, buf []byte, off int64, list []copied) (bad uint64, ok bool) {
	per := uint64(x.u.Cluster / lbaBytes)
	for _, c := range list {
		g, k := x.layout.Group(uint32(c.from.Offset()))
		start, _, in := x.layout.GroupRange(g, f.Clusters)
		at := start + int64(k*x.u.Cluster) - off
		data := buf[at : at+int64(x.u.Cluster)]
		sum := binary.LittleEndian.Uint32(buf[start+int64(in*x.u.Cluster+k*sco.SumBytes)-off:])
		if x.seed.Sum(c.cluster*per, data) != sum {
			return c.cluster, false
		}
		dst, dstSum := x.layout.Slot(obj, n, c.slot)
		copy(dst, data)
		binary.LittleEndian.PutUint32(dstSum, sum)
	}
	return 0, true
}

func (x *execution) damage(f *sco.Footer, cluster uint64, err error) error {
	return &DamageError{SCO: f.Number, Name: sco.Name(x.u.Dir, f.Number, f.Epoch, f.Nonce), LBA: cluster * uint64(x.u.Cluster/lbaBytes), Err: err}
}

// readError tells an object that is not as it must be from a store that is away.
func (x *execution) readError(f *sco.Footer, cluster uint64, err error) error {
	if errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrRange) || errors.Is(err, backend.ErrCorrupt) {
		return x.damage(f, cluster, err)
	}
	return fmt.Errorf("scrub: sco %d of %s: %w", f.Number, x.u.Dir, err)
}

// index writes the TLogs of the segment.
func (x *execution) index(ctx context.Context) error {
	entries := make([]tlog.Entry, 0, len(x.order)+len(x.made))
	slices.Sort(x.order) // whoever reads them puts them into a table by number
	for _, n := range x.order {
		e := x.scos[n]
		f := *e.Footer
		f.FirstSeq, f.LastSeq, f.FirstTime, f.LastTime = x.s.FirstSeq, x.s.LastSeq, x.s.FirstTime, x.s.LastTime
		f.Extents = x.kept[n]
		entries = append(entries, tlog.Entry{Bytes: e.Bytes, Footer: &f})
	}
	entries = append(entries, x.made...)
	var out Output
	for len(entries) > 0 {
		if x.nextTLog >= x.u.EndTLog {
			return ErrNumbers
		}
		k, ext := 0, 0
		for k < len(entries) && k < maxEntries && (k == 0 || ext+len(entries[k].Footer.Extents) <= maxExtents) {
			ext += len(entries[k].Footer.Extents)
			k++
		}
		t := &tlog.TLog{VDisk: x.u.VDisk, Epoch: x.u.Epoch, Nonce: x.u.Nonce, Number: x.nextTLog, Collected: true, Entries: entries[:k:k]}
		if err := x.put(ctx, tlog.Name(x.u.Dir, t.Number, t.Epoch, t.Nonce), t.Encode()); err != nil {
			return err
		}
		x.nextTLog++
		out.TLogs = append(out.TLogs, t)
		entries = entries[k:]
	}
	x.res.Segments = append(x.res.Segments, out)
	return nil
}
