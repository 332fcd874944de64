package volume

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

// logReader finds points in the log of a vDisk by reading a few of its TLogs.
type logReader struct {
	p     *Pool
	id    ID
	table epochTable
	held  map[uint32]*tlog.TLog
}

func (p *Pool) logReader(id ID, table epochTable) *logReader {
	return &logReader{p: p, id: id, table: table, held: map[uint32]*tlog.TLog{}}
}

// maxHeldTLogs bounds what a logReader remembers: a binary search comes back to
// few, a listing to none.
const maxHeldTLogs = 64

// read returns a TLog from the local copy or the backend.
func (r *logReader) read(ctx context.Context, run Run, n uint32) (*tlog.TLog, error) {
	if t := r.held[n]; t != nil {
		return t, nil
	}
	want := r.opening(run, n)
	if b, err := blockfs.ReadFile(r.p.host.o.FS, localTLog(r.id, n), maxTLogBytes); err == nil {
		if t, err := r.check(b, want, n); err == nil {
			return r.hold(t), nil
		}
	}
	name := tlogName(r.id, want, n)
	ctx, cancel := context.WithTimeout(ctx, backendTimeout)
	defer cancel()
	var t *tlog.TLog
	var damaged error
	err := r.p.fetch(ctx, name, maxTLogBytes, func(b []byte) error {
		t, damaged = r.check(b, want, n)
		return damaged
	})
	switch {
	case err == nil:
		return r.hold(t), nil
	case notThere(err) || damaged != nil && errors.Is(err, damaged):
		return nil, fmt.Errorf("vdisk %s: %w: %s: %w", r.id, ErrCorrupt, name, err)
	}
	return nil, fmt.Errorf("vdisk %s: %w: %w", r.id, ErrBackend, err)
}

// opening returns the opening that wrote TLog n of a run.
func (r *logReader) opening(run Run, n uint32) Opening {
	if run.Epoch != 0 {
		return Opening{Epoch: run.Epoch, Nonce: run.Nonce}
	}
	return r.table.ofTLog(n)
}

// check reads TLog n that an opening wrote.
func (r *logReader) check(b []byte, want Opening, n uint32) (*tlog.TLog, error) {
	t, err := tlog.Decode(b)
	if err == nil && (t.VDisk != r.id || t.Number != n || t.Epoch != want.Epoch || t.Nonce != want.Nonce) {
		err = fmt.Errorf("%w: it is of another opening", tlog.ErrCorrupt)
	}
	return t, err
}

func (r *logReader) hold(t *tlog.TLog) *tlog.TLog {
	if len(r.held) >= maxHeldTLogs {
		clear(r.held)
	}
	r.held[t.Number] = t
	return t
}

// counted returns the SCOs of TLog n that count in a run.
func (r *logReader) counted(ctx context.Context, run Run, n uint32) ([]tlog.Entry, error) {
	t, err := r.read(ctx, run, n)
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(slices.Clone(t.Entries), func(e tlog.Entry) bool {
		return e.Footer.FirstSeq < run.FirstSeq || e.Footer.LastSeq > run.LastSeq
	})
	if len(out) == 0 {
		return nil, fmt.Errorf("vdisk %s: %w: tlog %d has nothing of run %+v", r.id, ErrCorrupt, n, run)
	}
	return out, nil
}

// lastSeq returns the newest seq of a log: the point that is "now". 0: it is empty.
func lastSeq(log []Run) uint64 {
	if len(log) == 0 {
		return 0
	}
	return log[len(log)-1].LastSeq
}

// contains reports whether a log goes through seq.
func contains(log []Run, seq uint64) bool {
	return seq == 0 || slices.ContainsFunc(log, func(r Run) bool { return r.FirstSeq <= seq && seq <= r.LastSeq })
}

// cut returns the prefix of a log that ends with the SCO whose last seq is seq;
// ErrNoPoint if there is none.
func (r *logReader) cut(ctx context.Context, log []Run, seq uint64) ([]Run, error) {
	var out []Run
	for _, run := range log {
		switch {
		case run.LastSeq <= seq:
			out = append(out, run)
		case run.FirstSeq <= seq:
			end, err := r.boundary(ctx, run, seq)
			if err != nil {
				return nil, err
			}
			out = append(out, Run{First: run.First, End: end, FirstSeq: run.FirstSeq, LastSeq: seq})
		}
	}
	if lastSeq(out) != seq {
		return nil, fmt.Errorf("vdisk %s: %w: no SCO ends with seq %d", r.id, ErrNoPoint, seq)
	}
	return out, nil
}

// boundary returns the TLog after the one that has the SCO which ends with seq.
func (r *logReader) boundary(ctx context.Context, run Run, seq uint64) (uint32, error) {
	var err error
	n := run.First + uint32(sort.Search(int(run.End-run.First), func(i int) bool {
		if err != nil {
			return true
		}
		var l []tlog.Entry
		if l, err = r.counted(ctx, run, run.First+uint32(i)); err != nil {
			return true
		}
		return l[len(l)-1].Footer.LastSeq >= seq
	}))
	if err != nil {
		return 0, err
	}
	if n < run.End {
		l, err := r.counted(ctx, run, n)
		if err != nil {
			return 0, err
		}
		for _, e := range l {
			if e.Footer.LastSeq == seq {
				return n + 1, nil
			}
		}
	}
	return 0, fmt.Errorf("vdisk %s: %w: no SCO ends with seq %d", r.id, ErrNoPoint, seq)
}

// lines returns what the log was and is, oldest first, each with when it ended.
func (s *state) lines() []Line {
	return append(slices.Clone(s.past.Before), Line{Until: math.MaxInt64, Runs: s.log()})
}

// through returns the newest line that goes through seq.
func (s *state) through(seq uint64) ([]Run, error) {
	for _, l := range slices.Backward(s.lines()) {
		if contains(l.Runs, seq) {
			return l.Runs, nil
		}
	}
	return nil, fmt.Errorf("vdisk %s: %w: no log goes through seq %d", s.head.VDisk, ErrNoPoint, seq)
}

// position names a TLog of a log.
type position struct {
	run Run
	n   uint32
}

// tlogs returns the i-th TLog of a log by search, and how many there are.
func tlogs(log []Run) (n int, at func(i int) position) {
	for _, r := range log {
		n += int(r.End - r.First)
	}
	return n, func(i int) position {
		for _, r := range log {
			if k := int(r.End - r.First); i >= k {
				i -= k
				continue
			}
			return position{r, r.First + uint32(i)}
		}
		panic("volume: tlog beyond the log")
	}
}

// point is a recoverable moment: an SCO boundary.
type point struct {
	seq  uint64
	time int64 // of its newest write, Unix ns
}

// atTime returns the newest point of a log at or before t; the start of the vDisk
// if there is none.
func (r *logReader) atTime(ctx context.Context, log []Run, t int64) (point, error) {
	n, at := tlogs(log)
	i, err := r.after(ctx, n, at, t)
	if err != nil || i == 0 {
		return point{}, err
	}
	pos := at(i - 1)
	l, err := r.counted(ctx, pos.run, pos.n)
	if err != nil {
		return point{}, err
	}
	var best point
	for _, e := range l {
		if e.Footer.LastTime <= t {
			best = point{e.Footer.LastSeq, e.Footer.LastTime}
		}
	}
	return best, nil
}

// after returns the index of the first TLog whose first SCO is newer than t.
func (r *logReader) after(ctx context.Context, n int, at func(int) position, t int64) (int, error) {
	var err error
	i := sort.Search(n, func(i int) bool {
		if err != nil {
			return true
		}
		pos := at(i)
		var l []tlog.Entry
		if l, err = r.counted(ctx, pos.run, pos.n); err != nil {
			return true
		}
		return l[0].Footer.LastTime > t
	})
	return i, err
}

// points calls fn for the points of a log in (from, to] in order, until fn returns false.
func (r *logReader) points(ctx context.Context, log []Run, from, to int64, fn func(point) bool) error {
	n, at := tlogs(log)
	i, err := r.after(ctx, n, at, from)
	if err != nil {
		return err
	}
	last := uint64(0)
	for i = max(i-1, 0); i < n; i++ {
		pos := at(i)
		l, err := r.counted(ctx, pos.run, pos.n)
		if err != nil {
			return err
		}
		for _, e := range l {
			f := e.Footer
			if f.LastTime <= from || f.LastSeq == 0 || f.LastSeq == last {
				continue // SCOs that were moved or collected are one point
			}
			last = f.LastSeq
			if f.LastTime > to || !fn(point{f.LastSeq, f.LastTime}) {
				return nil
			}
		}
	}
	return nil
}
