package series

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/internal/clock"
)

// Defaults and bounds of Options.
const (
	DefaultBytes  = 1 << 30
	DefaultMemory = 96 << 20
	MinBytes      = 8 << 20
	MaxBytes      = 1 << 40
	MinMemory     = 4 << 20
	MaxMemory     = 4 << 30
	// perSeries is what a series takes in memory whose commands spread over a dozen buckets: 70 KiB in
	// the rings of the Sampler, twice 5 KiB in blocks, and as much again while files are written.
	perSeries = 96 << 10
)

const (
	// maxVPools bounds the vPools and backends that have history besides MaxSeries others.
	maxVPools = 256
	// maxWaiting bounds the blocks that wait for the disk: what is older is lost.
	maxWaiting = 3
	// maxAside bounds the damaged files that are kept for somebody to look at.
	maxAside = 4
	// retryEvery is when what failed is tried again, or there is something to remove.
	retryEvery = 30 * time.Second
	// closeWait bounds the wait for the disk at the end.
	closeWait = 5 * time.Second
	// settled is how long the clock has to go on evenly before anything is removed for its age.
	settled = int64(3600)
	// jump is between two samples, in seconds, when the clock jumped.
	jump = int64(60)
	// ahead is how far in the future a file may be, in seconds.
	ahead = int64(3600)

	asideSuffix = ".damaged"
)

// tier is a kind of files.
type tier struct {
	letter       byte
	step, length int64 // seconds
	keep         int64 // seconds
}

var (
	fine   = tier{'m', 10, 300, 24 * 3600}
	coarse = tier{'c', 300, 6 * 3600, 90 * 24 * 3600}
)

func (t tier) places() int { return int(t.length / t.step) }

// begin returns when the file begins that a time belongs to.
func (t tier) begin(at int64) int64 { return floor(at, t.length) }

// floor returns the largest multiple of step that is not above at.
func floor(at, step int64) int64 {
	if at < 0 {
		at -= step - 1
	}
	return at / step * step
}

// SeriesIn returns how many series there is room for in so much memory, in bytes.
func SeriesIn(memory int64) int { return int(memory / perSeries) }

// Options are what a Store works with.
type Options struct {
	// Dir opens the directory that belongs to the Store; it is asked again until it does.
	Dir     func() (blockfs.FS, error)
	Sampler *observe.Sampler // steps of a second
	Bytes   int64            // on the disk; 0: DefaultBytes
	Memory  int64            // bytes, the Sampler's included; 0: DefaultMemory
	Clock   clock.Clock      // nil: the machine's
	Log     *slog.Logger     // nil: none
}

// Store keeps history. Safe for concurrent use.
type Store struct {
	opt    Options
	log    *slog.Logger
	most   int           // series in a block
	asking chan struct{} // has an element for each query that reads
	kick   chan struct{}
	stop   chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	fs      blockfs.FS // nil until it is looked at
	closed  bool
	now     int64    // of the newest sample, seconds since 1970; 0: none yet
	jumped  int64    // when the clock jumped last, or the Store began
	ticks   []int64  // times of the newest samples, in order but for jumps
	open    *block   // nil: none yet
	waiting []*block // for the disk, oldest first
	files   map[tier]map[int64]int64
	dirty   map[int64]bool // coarse files that lack something of finer ones
	aside   []string       // names of damaged files, oldest first
	lost    int            // blocks
	err     error
}

// block is what is collected until it goes into a file.
type block struct {
	begin  int64
	step   int     // that is collected now
	ran    float64 // seconds of it
	series map[string]*building
}

type building struct {
	points []point
	now    mean // of the block's step
}

// Sample is what an object did in the last second.
type Sample struct {
	observe.Named
	Backend     bool    // ID is that of a backend, whose commands are requests
	Stored      int64   // bytes on the backend, of a vPool; 0: unknown
	CPU, Memory float64 // percent, of the node
}

// Open returns a Store, which looks at its files and writes in a goroutine of its own until
// Close. It does not fail: see Err.
func Open(opt Options) *Store {
	s := newStore(opt)
	go s.run()
	return s
}

func newStore(opt Options) *Store {
	if opt.Clock == nil {
		opt.Clock = clock.Real{}
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	opt.Bytes, opt.Memory = cmp.Or(opt.Bytes, DefaultBytes), cmp.Or(opt.Memory, DefaultMemory)
	return &Store{
		opt: opt, log: opt.Log, most: SeriesIn(opt.Memory), asking: make(chan struct{}, maxAsking),
		kick: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), dirty: map[int64]bool{},
	}
}

// Close writes what is collected, if the disk takes it in time, and ends.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.closeBlock()
	s.mu.Unlock()
	close(s.stop)
	limit := s.opt.Clock.NewTimer(closeWait)
	defer limit.Stop()
	select {
	case <-s.done:
	case <-limit.C():
		s.log.Warn("history of performance: the disk does not answer, the newest is lost")
	}
	return nil
}

// Err returns why history is not on the disk; nil: it is.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.err
	if err == nil && len(s.waiting) == maxWaiting {
		err = errSlow
	}
	if err != nil && s.lost > 0 {
		return fmt.Errorf("%w; %d times five minutes are lost so far", err, s.lost)
	}
	return err
}

// errSlow: as many blocks wait as may.
var errSlow = errors.New("the disk has taken nothing for ten minutes")

// Add takes what objects did since the time before, that of the node always and first. Objects
// that did nothing are left out. It does not wait.
func (s *Store) Add(at time.Time, samples []Sample) {
	now := at.Unix()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	passed := now - s.now
	if s.now == 0 {
		s.jumped, passed = now, 1
	} else if passed < 0 || passed > jump {
		s.jumped, passed = now, 1
		s.log.Warn("history of performance: the clock jumped", "from", time.Unix(s.now, 0).UTC(), "to", at.UTC())
	}
	s.now = now
	s.ticks = append(s.ticks, now)
	if n := len(s.ticks); n >= 2*observe.Keep {
		s.ticks = append([]int64{}, s.ticks[n-observe.Keep:]...)
	}
	if begin := fine.begin(now); s.open == nil || s.open.begin != begin {
		s.closeBlock()
		s.open = &block{begin: begin, series: map[string]*building{}}
	}
	b := s.open
	if step := int((now - b.begin) / fine.step); step != b.step {
		b.fold()
		b.step = step
	}
	// A second that came late counts for as long as it took, but not for more than a step.
	seconds := float64(min(max(passed, 1), fine.step))
	b.ran += seconds
	for _, v := range samples {
		if o := s.building(b, v); o != nil {
			f := figuresOf(v.Sample)
			f[stored], f[cpu], f[memory] = float64(v.Stored), v.CPU, v.Memory
			o.now.add(f.clean(), seconds)
			o.now.count(v.Latencies, observe.LatencyScale, seconds)
		}
	}
}

// building returns where a sample is collected; nil: there is no room for another series.
func (s *Store) building(b *block, v Sample) *building {
	o := b.series[v.ID]
	if o != nil {
		return o
	}
	room := s.most
	if v.VPool || v.Backend {
		room += maxVPools
	}
	if v.ID != observe.Node && len(b.series) >= room || len(v.ID) > idSize || v.ID == "" {
		return nil
	}
	o = &building{}
	b.series[v.ID] = o
	return o
}

// fold makes points of the step that is over.
func (b *block) fold() {
	for _, o := range b.series {
		if o.now.seconds == 0 {
			continue
		}
		p := point{b.step, o.now.over(b.ran), o.now.packed(b.ran)}
		if n := len(o.points); n > 0 && o.points[n-1].at >= p.at { // the clock went back
			o.points = merge(o.points, []point{p})
		} else {
			o.points = append(o.points, p)
		}
		o.now = mean{}
	}
	b.ran = 0
}

// closeBlock gives the open block to the disk; mu is held.
func (s *Store) closeBlock() {
	if s.open == nil {
		return
	}
	s.open.fold()
	s.waiting = append(s.waiting, s.open)
	s.open = nil
	if n := len(s.waiting) - maxWaiting; n > 0 {
		s.waiting, s.lost = s.waiting[n:], s.lost+n
	}
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// run does what needs the disk.
func (s *Store) run() {
	defer close(s.done)
	again := s.opt.Clock.NewTimer(retryEvery)
	defer again.Stop()
	for ending := false; ; {
		s.told(s.work())
		if ending {
			return
		}
		select {
		case <-s.kick:
		case <-again.C():
			again.Reset(retryEvery)
		case <-s.stop:
			ending = true
		}
	}
}

// told notes how work went.
func (s *Store) told(err error) {
	s.mu.Lock()
	was := s.err
	if s.err = err; err == nil {
		s.lost = 0
	}
	s.mu.Unlock()
	switch {
	case err != nil && was == nil:
		s.log.Warn("history of performance is not written; it is tried again", "err", err)
	case err == nil && was != nil:
		s.log.Info("history of performance is written again")
	}
}

// work writes blocks that wait, makes coarser files, and removes what is old.
func (s *Store) work() error {
	if err := s.load(); err != nil {
		return err
	}
	for {
		s.mu.Lock()
		var b *block
		if len(s.waiting) > 0 {
			b = s.waiting[0]
		}
		s.mu.Unlock()
		if b == nil {
			break
		}
		if err := s.writeBlock(b); err != nil {
			return err
		}
		s.mu.Lock()
		s.waiting = slices.DeleteFunc(s.waiting, func(w *block) bool { return w == b })
		s.mu.Unlock()
	}
	if err := s.combine(); err != nil {
		return err
	}
	return s.prune()
}

// load looks once which files there are.
func (s *Store) load() error {
	s.mu.Lock()
	loaded := s.files != nil
	s.mu.Unlock()
	if loaded {
		return nil
	}
	dir, err := s.opt.Dir()
	if err != nil {
		return err
	}
	infos, err := dir.List(".")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, aside := map[tier]map[int64]int64{fine: {}, coarse: {}}, []string{}
	for _, i := range infos {
		if strings.HasSuffix(i.Name, asideSuffix) {
			aside = append(aside, i.Name)
			continue
		}
		for t, all := range files {
			if begin, ok := t.parse(i.Name); ok && !i.Dir {
				all[begin] = i.Size
			}
		}
	}
	s.mu.Lock()
	s.fs, s.files, s.aside = dir, files, aside
	s.mu.Unlock()
	return nil
}

// parse reads the name of a file.
func (t tier) parse(name string) (begin int64, ok bool) {
	hex, ok := strings.CutPrefix(name, string(t.letter)+"-")
	v, err := strconv.ParseUint(hex, 16, 63)
	return int64(v), ok && err == nil && t.name(int64(v)) == name && t.begin(int64(v)) == int64(v)
}

// writeBlock puts a block into its file, with what that has already.
func (s *Store) writeBlock(b *block) error {
	c := make(content, len(b.series))
	for id, o := range b.series {
		if len(o.points) > 0 {
			c[id] = o.points
		}
	}
	if len(c) == 0 {
		return nil
	}
	old, err := s.read(fine, b.begin)
	if err != nil {
		return err
	}
	for id, points := range old {
		c[id] = merge(points, c[id])
	}
	return s.write(fine, b.begin, c)
}

// read returns what a file holds; nothing if there is none, or one that is damaged, which is
// put aside.
func (s *Store) read(t tier, begin int64) (content, error) {
	if !s.has(t, begin) {
		return nil, nil
	}
	r, err := openFile(s.fs, t.name(begin), begin, t.step, t.places())
	if err == nil {
		defer r.close()
		var c content
		if c, err = r.all(); err == nil {
			return c, nil
		}
	}
	return nil, s.unread(t, begin, err)
}

// unread handles an error of reading a file: a damaged one is put aside, one that is gone is
// not there; other errors are returned.
func (s *Store) unread(t tier, begin int64, err error) error {
	name := t.name(begin)
	if errors.Is(err, fs.ErrNotExist) {
		s.forget(t, begin)
		return nil
	}
	if !errors.Is(err, errDamaged) {
		return fmt.Errorf("%s: %w", name, err)
	}
	s.log.Warn("history of performance: a file is damaged and put aside", "file", name)
	s.forget(t, begin)
	if err := s.fs.Rename(name, name+asideSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	var gone []string
	if !slices.Contains(s.aside, name+asideSuffix) {
		s.aside = append(s.aside, name+asideSuffix)
	}
	if n := len(s.aside) - maxAside; n > 0 {
		gone, s.aside = s.aside[:n], s.aside[n:]
	}
	s.mu.Unlock()
	for _, name := range gone {
		if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *Store) has(t tier, begin int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.files[t][begin]
	return ok
}

func (s *Store) forget(t tier, begin int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files[t], begin)
}

// write makes or replaces a file; the oldest ones make room for it.
func (s *Store) write(t tier, begin int64, c content) error {
	b := c.encode(begin, t.step)
	if most := s.opt.Bytes / 4; int64(len(b)) > most {
		return fmt.Errorf("%s has %d bytes, more than a quarter of metrics_bytes: raise that, or lower metrics_memory", t.name(begin), len(b))
	}
	if err := s.shrink(s.opt.Bytes - int64(len(b))); err != nil {
		return err
	}
	if err := blockfs.WriteFile(s.fs, t.name(begin), b); err != nil {
		return fmt.Errorf("%s: %w", t.name(begin), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[t][begin] = int64(len(b))
	if t == fine {
		if w := coarse.begin(begin); s.files[coarse][w] > 0 {
			s.dirty[w] = true
		}
	} else {
		delete(s.dirty, begin)
	}
	return nil
}

// begins returns when the files of a tier begin, oldest first.
func (s *Store) begins(t tier) []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.files[t]))
}

// combine makes coarse files of fine ones whose time is over.
func (s *Store) combine() error {
	s.mu.Lock()
	over := s.now - fine.length - coarse.length // what begins later may still get something
	due := map[int64][]int64{}
	for begin := range s.files[fine] {
		w := coarse.begin(begin)
		if _, made := s.files[coarse][w]; w <= over && (!made || s.dirty[w]) {
			due[w] = append(due[w], begin)
		}
	}
	s.mu.Unlock()
	for _, w := range slices.Sorted(maps.Keys(due)) {
		c, err := s.read(coarse, w)
		if err != nil {
			return err
		}
		if c == nil {
			c = content{}
		}
		slices.Sort(due[w])
		for _, begin := range due[w] {
			parts, err := s.read(fine, begin)
			if err != nil {
				return err
			}
			for id, p := range summed(parts, int((begin-w)/coarse.step)) {
				c[id] = merge(c[id], []point{p})
			}
		}
		if err := s.write(coarse, w, c); err != nil {
			return err
		}
	}
	return nil
}

// summed makes a point at a place of all points of each series.
func summed(c content, at int) map[string]point {
	out := make(map[string]point, len(c))
	ran := float64(int64(len(c[observe.Node])) * fine.step)
	for id, points := range c {
		var m mean
		for _, p := range points {
			m.add(p.figures, float64(fine.step))
			m.count(p.latencies, latencyScale, float64(fine.step))
		}
		out[id] = point{at, m.over(ran), m.packed(ran)}
	}
	return out
}

// prune removes what is older than it is kept, or lies in the future.
func (s *Store) prune() error {
	s.mu.Lock()
	now, calm := s.now, s.now-s.jumped >= settled
	s.mu.Unlock()
	if calm {
		for _, t := range []tier{fine, coarse} {
			for _, begin := range s.begins(t) {
				old := begin+t.length < now-t.keep
				if t == fine && old && !s.has(coarse, coarse.begin(begin)) {
					continue // its points are nowhere else yet
				}
				if !old && begin <= now+ahead {
					continue
				}
				if err := s.remove(t, begin); err != nil {
					return err
				}
			}
		}
	}
	return s.shrink(s.opt.Bytes)
}

// shrink removes the oldest files until the rest takes no more than so many bytes.
func (s *Store) shrink(most int64) error {
	for {
		var total int64
		var oldest tier
		first := int64(-1)
		s.mu.Lock()
		for t, all := range s.files {
			for begin, size := range all {
				total += size
				if first < 0 || begin < first || begin == first && t == coarse {
					oldest, first = t, begin
				}
			}
		}
		s.mu.Unlock()
		if total <= most || first < 0 {
			return nil
		}
		if err := s.remove(oldest, first); err != nil {
			return err
		}
	}
}

func (s *Store) remove(t tier, begin int64) error {
	if err := s.fs.Remove(t.name(begin)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.forget(t, begin)
	return nil
}
