package volume

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
)

const (
	// checkpointTLogs is how many TLogs a restart replays at most, about.
	checkpointTLogs = 128
	// maxIndexBytes bounds an index read back: that of a full vDisk of 64 TiB and
	// 4 KiB clusters has 512 MiB of pages, and 24 bytes for each SCO.
	maxIndexBytes = 1 << 30
	// smallSegments is how many segments less than half full there are before they
	// are made into few.
	smallSegments = 8
)

// MapRef says in a head which checkpoint of the map is on the backend.
//
// A checkpoint is of use only for the log that it was made of: Line is the
// fingerprint of what the log has before its run in progress and of what the vDisk
// starts from. Whoever replaces runs of TLogs (scrub, rollback, flatten) changes the
// line of the vDisk, and by that alone the checkpoint is void: an open ignores it, and
// so may name SCOs that are gone. Nothing else is to be done. The head goes on naming
// it, so that its objects count as reachable until a newer checkpoint, which
// takes over the segments that still hold, condemns the rest.
//
// An ovgate that does not know of it writes heads without it and reads TLogs instead,
// all of which stay; so it is not among a head's needs.
type MapRef struct {
	Epoch    uint32 `json:"epoch"` // with Nonce and Number: its name
	Nonce    uint32 `json:"nonce"`
	Number   uint64 `json:"number"`
	NextTLog uint32 `json:"nextTLog"` // the run in progress is replayed from here
	Line     string `json:"line"`     // hex
}

// mapName: the number is that of the head that the checkpoint was made after, so no
// two of an opening are the same.
func mapName(id ID, r MapRef) string {
	return fmt.Sprintf("%s%s%08x-%016x-%08x", vdiskPrefix(id), mapDir, r.Epoch, r.Number, r.Nonce)
}

func notThere(err error) bool {
	return errors.Is(err, backend.ErrNotExist) || errors.Is(err, backend.ErrCorrupt)
}

// checkpoint is one on its way. Its goroutine has it until it is sent back.
type checkpoint struct {
	index  *blockmap.Index
	bytes  []byte
	synced []*blockmap.Segment // to be made durable first
	number uint32              // newest segment that was begun before
	remote bool                // to the backend too
	had    map[string]bool     // segments that are objects of a committed checkpoint; nil: not known
	old    *MapRef             // that the committed head names
	strays []string            // objects of earlier tries
	// Results.
	local bool                // written to local disk
	put   bool                // on the backend
	tried []string            // objects that may be there
	stale []string            // objects that nothing needs once a head names this
	bad   []*blockmap.Segment // segments that could not be read
}

func (c *checkpoint) ref() *MapRef {
	x := c.index
	return &MapRef{Epoch: x.Epoch, Nonce: x.Nonce, Number: x.Number, NextTLog: x.NextTLog, Line: hex.EncodeToString(x.Line[:])}
}

// keeper keeps the base map of a vDisk that is open within its memory, and makes
// checkpoints. It belongs to the uploader's goroutine.
type keeper struct {
	pages  *pageStore
	put    uint32                     // first TLog that no checkpoint on the backend covers
	due    bool                       // the log was replaced, so the checkpoints are void
	had    map[string]bool            // segments on the backend; nil: not known
	bad    map[*blockmap.Segment]bool // to be rewritten
	job    chan *checkpoint           // one is on its way; nil: none
	cancel context.CancelFunc         // of the job
	strays []string                   // objects of checkpoints that were not finished
	ready  *checkpoint                // on the backend; the next head names it
	listed bool                       // what ready supersedes is among the stale objects
}

// keepBase keeps the map that a clone starts from on local disk.
func (u *uploader) keepBase() {
	if u.v.parent == nil || u.v.parent.saved.Load() {
		return
	}
	if err := u.v.p.saveBase(u.v.parent); err != nil {
		u.v.log.Warn("map of the parent not kept", "err", err)
	}
}

// spill makes room when there are many changed pages. A full disk is no reason to
// stop as long as there is memory.
func (u *uploader) spill() {
	v := u.v
	if !v.host.mapMemory.Tight() || v.base.DirtyPages() == 0 {
		return
	}
	err := v.base.Spill(u.keep.pages)
	v.setMapError(err)
}

// room refuses to change the map further when its memory is used up and no disk
// takes pages: the journal keeps what is written, until it is full in turn.
func (u *uploader) room() error {
	v := u.v
	if !v.host.mapMemory.Full() {
		return nil
	}
	u.spill()
	if v.host.mapMemory.Full() && v.base.DirtyPages() > 0 {
		err := fmt.Errorf("vdisk %s: map memory is used up, and the data directory takes no map pages", v.id)
		if e := v.mapError(); e != nil {
			err = fmt.Errorf("%w: %w", err, e)
		}
		return err
	}
	return nil
}

// setMapError remembers why map pages or checkpoints are not written.
func (v *Volume) setMapError(err error) {
	was := v.mapErr.Load()
	if err == nil {
		v.mapErr.Store(nil)
	} else {
		v.mapErr.Store(&err)
	}
	if (err == nil) != (was == nil) {
		v.stir()
	}
	switch {
	case err != nil && was == nil:
		v.log.Warn("map pages not written to local disk; they stay in memory", "err", err)
	case err == nil && was != nil:
		v.log.Info("map pages are written to local disk again")
	}
}

func (v *Volume) mapError() error {
	if e := v.mapErr.Load(); e != nil {
		return *e
	}
	return nil
}

// checkpoint begins a checkpoint when one is due: every checkpointTLogs TLogs, after a
// scrub or flatten, and on local disk alone at an orderly close.
func (u *uploader) checkpoint(closing bool) {
	k := &u.keep
	if closing {
		u.endJob()
		if k.due || u.ckpt != u.head.NextTLog || u.v.base.DirtyPages() > 0 || !u.hasLocal {
			if c := u.newCheckpoint(false); c != nil {
				u.writeLocalCheckpoint(c)
				u.settle(c)
			}
		}
		return
	}
	due := u.v.host.o.checkpointTLogs
	local, remote := k.due || u.head.NextTLog-u.ckpt >= due, k.due || u.head.NextTLog-k.put >= due
	if k.job != nil || !local && !remote {
		return
	}
	c := u.newCheckpoint(remote)
	if c == nil {
		return
	}
	k.due = false
	ctx, cancel := context.WithCancel(u.v.ctx)
	job := make(chan *checkpoint, 1)
	k.job, k.cancel = job, cancel
	u.v.wg.Add(1)
	go func() {
		defer u.v.wg.Done()
		u.writeLocalCheckpoint(c)
		if c.remote && c.local {
			if err := u.putCheckpoint(ctx, c); err != nil && ctx.Err() == nil {
				u.v.log.Warn("map checkpoint not put on the backend", "err", err)
			}
		}
		cancel()
		job <- c
		u.wake()
	}()
}

// newCheckpoint takes the map as it is: its pages are in segments then. nil: the disk
// does not take them.
func (u *uploader) newCheckpoint(remote bool) *checkpoint {
	v, k := u.v, &u.keep
	err := v.base.Spill(k.pages)
	if err == nil {
		err = u.rewrite()
	}
	err = errors.Join(err, k.pages.endSegment())
	v.setMapError(err)
	if err != nil {
		return nil
	}
	c := &checkpoint{remote: remote, had: k.had, old: u.head.Map, strays: k.strays, synced: k.pages.unsynced, number: k.pages.number}
	c.index = &blockmap.Index{VDisk: v.id, Line: v.line, Cluster: uint32(v.cluster), NextTLog: u.head.NextTLog,
		SCOs: v.own.scos.list(), Epoch: v.this.Epoch, Nonce: v.this.Nonce, Number: u.head.Number}
	c.bytes = c.index.Encode(v.base, v.parent.base())
	return c
}

// rewrite moves pages out of segments that are mostly garbage, or small and many, so
// that all of them take about twice what the pages do.
func (u *uploader) rewrite() error {
	v, k := u.v, &u.keep
	used := map[*blockmap.Segment]bool{}
	v.base.EachSegment(func(s *blockmap.Segment) { used[s] = true })
	var small []*blockmap.Segment
	victims := map[*blockmap.Segment]bool{}
	for s := range used {
		switch {
		case k.bad[s] || int(s.Pages) > 2*s.Live():
			victims[s] = true
		case s.Live() < blockmap.SegmentPages/2:
			small = append(small, s)
		}
	}
	if len(small) > smallSegments {
		for _, s := range small {
			victims[s] = true
		}
	}
	if len(victims) == 0 {
		return nil
	}
	// What is being filled has what was just spilled; it is no victim.
	delete(victims, k.pages.seg)
	err := v.base.Rewrite(v.ctx, func(s *blockmap.Segment) bool { return victims[s] }, k.pages, &v.mapMu)
	if err == nil {
		k.bad = nil
	}
	return err
}

// writeLocalCheckpoint makes a checkpoint durable on local disk. On an error the old
// one stays.
func (u *uploader) writeLocalCheckpoint(c *checkpoint) {
	v := u.v
	err := u.keep.pages.sync(c.synced)
	if err == nil {
		err = v.host.o.FS.MkdirAll(stateDir(v.id))
	}
	if err == nil {
		err = blockfs.WriteFile(v.host.o.FS, localCheckpoint(v.id), c.bytes)
	}
	if err != nil {
		v.log.Warn("map checkpoint not written", "err", err)
	}
	c.local = err == nil
}

// putCheckpoint puts the segments that the backend lacks, then the index.
func (u *uploader) putCheckpoint(ctx context.Context, c *checkpoint) error {
	v := u.v
	if c.had == nil {
		if err := u.learnRemote(ctx, c); err != nil {
			return err
		}
	}
	put := func(name string, obj []byte) error {
		c.tried = append(c.tried, name)
		return u.persistUntil(ctx, func(ctx context.Context) error { return v.p.cfg.Store.Put(ctx, name, obj) }, v.host.uploads)
	}
	for _, s := range c.index.Segments {
		if c.had[segmentFile(s)] {
			continue
		}
		size := blockmap.SegmentHeader + int64(s.Pages)*blockmap.PageBytes
		obj, err := blockfs.ReadFile(v.host.o.FS, u.keep.pages.path(s), size)
		if err == nil && int64(len(obj)) < size {
			err = fmt.Errorf("segment of %d bytes, want %d", len(obj), size)
		}
		if err != nil {
			c.bad = append(c.bad, s)
			return err
		}
		if err := put(segmentName(v.id, s), obj); err != nil {
			return err
		}
	}
	if err := put(mapName(v.id, *c.ref()), c.bytes); err != nil {
		return err
	}
	now := segmentSet(c.index.Segments)
	for name := range c.had {
		if !now[name] {
			c.stale = append(c.stale, vdiskPrefix(v.id)+pageDir+name)
		}
	}
	if c.old != nil {
		c.stale = append(c.stale, mapName(v.id, *c.old))
	}
	for _, name := range c.strays {
		if !slices.Contains(c.tried, name) && !slices.Contains(c.stale, name) {
			c.stale = append(c.stale, name)
		}
	}
	c.put = true
	return nil
}

// learnRemote reads which segments the committed checkpoint has, and finds objects of
// checkpoints that no head came to name.
func (u *uploader) learnRemote(ctx context.Context, c *checkpoint) error {
	v := u.v
	c.had = map[string]bool{}
	if c.old != nil {
		b, err := v.p.cfg.Store.Get(ctx, mapName(v.id, *c.old), maxIndexBytes)
		if err != nil && !notThere(err) {
			c.had = nil
			return err
		}
		if err == nil {
			if x, err := blockmap.DecodeIndex(b, nil); err == nil {
				c.had = segmentSet(x.Segments)
			}
		}
	}
	now := segmentSet(c.index.Segments)
	for _, dir := range []string{pageDir, mapDir} {
		prefix := vdiskPrefix(v.id) + dir
		for after := ""; ; {
			page, err := v.p.list(ctx, prefix, after, 1000)
			if err != nil {
				c.had = nil
				return err
			}
			for _, o := range page {
				after = o.Name
				name := strings.TrimPrefix(o.Name, prefix)
				needed := dir == pageDir && (c.had[name] || now[name]) || c.old != nil && o.Name == mapName(v.id, *c.old)
				if !needed && u.ours(dir, name) {
					c.stale = append(c.stale, o.Name)
				}
			}
			if len(page) < 1000 {
				break
			}
		}
	}
	return nil
}

// ours reports whether an object of a checkpoint is of this opening or an older one.
func (u *uploader) ours(dir, name string) bool {
	epoch, ok := checkpointEpoch(dir, name)
	return ok && epoch <= u.v.this.Epoch
}

// checkpointEpoch reads the epoch from the name of an object of a checkpoint: of the
// index in mapDir, or of a segment in pageDir.
func checkpointEpoch(dir, file string) (uint32, bool) {
	lengths, at := [3]int{8, 8, 8}, 1
	if dir == mapDir {
		lengths, at = [3]int{8, 16, 8}, 0
	}
	f := strings.Split(file, "-")
	if len(f) != len(lengths) {
		return 0, false
	}
	var epoch uint64
	for i, s := range f {
		n, err := strconv.ParseUint(s, 16, 64)
		if err != nil || len(s) != lengths[i] {
			return 0, false
		}
		if i == at {
			epoch = n
		}
	}
	return uint32(epoch), true
}

// takeJob takes the result of a checkpoint that has ended.
func (u *uploader) takeJob() {
	select {
	case c := <-u.keep.job:
		u.keep.job = nil
		u.settle(c)
	default:
	}
}

// endJob stops a checkpoint that is on its way.
func (u *uploader) endJob() {
	if k := &u.keep; k.job != nil {
		k.cancel()
		c := <-k.job
		k.job = nil
		u.settle(c)
	}
}

// settle takes the results of a checkpoint over.
func (u *uploader) settle(c *checkpoint) {
	v, k := u.v, &u.keep
	if c.local {
		for n := u.ckpt; n < c.index.NextTLog; n++ {
			if err := v.host.o.FS.Remove(localTLog(v.id, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				v.log.Warn("local TLog copy not removed", "tlog", n, "err", err)
			}
		}
		u.ckpt, u.hasLocal = c.index.NextTLog, true
		k.pages.unsynced = k.pages.unsynced[len(c.synced):]
		used := segmentSet(c.index.Segments)
		v.base.EachSegment(func(s *blockmap.Segment) { used[segmentFile(s)] = true })
		if s := k.pages.seg; s != nil {
			used[segmentFile(s)] = true
		}
		if err := k.pages.tidy(func(name string) bool { return used[name] }); err != nil {
			v.log.Warn("old map segments not removed", "err", err)
		}
	}
	for _, s := range c.bad {
		if k.bad == nil {
			k.bad = map[*blockmap.Segment]bool{}
		}
		k.bad[s] = true
	}
	if c.had != nil {
		k.had = c.had
	}
	if c.put {
		k.ready, k.listed, k.put, k.strays = c, false, c.index.NextTLog, nil
	} else {
		k.strays = append(k.strays, c.tried...)
	}
}

// nameCheckpoint makes a head name the checkpoint that is on the backend, and condemn
// what that one supersedes (E5, E7).
func (u *uploader) nameCheckpoint(h *Head) {
	k := &u.keep
	if k.ready == nil {
		return
	}
	h.Map = k.ready.ref()
	if !k.listed {
		u.stale = append(u.stale, k.ready.stale...)
		k.listed = true
	}
}

// checkpointNamed is called once that head is committed.
func (u *uploader) checkpointNamed() {
	if k := &u.keep; k.ready != nil {
		k.had = segmentSet(k.ready.index.Segments)
		k.ready = nil
	}
}
