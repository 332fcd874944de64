package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/blockmap"
)

// A sweep finds the objects of a vPool that nothing reaches: those of uploads, scrubs
// and openings that a crash cut off. It deletes only below this vPool's root, and only
// what no committed head reaches, of openings before the one that the registry knows.
// Anything that it cannot explain ends it before it deletes (rule E7).

// sweepTries bounds how often a vDisk is looked at anew that commits meanwhile.
const sweepTries = 8

// SweepResult tells what a sweep found and did.
type SweepResult struct {
	VDisks  int // looked at
	Objects int // of them
	Garbage int // of the objects
	Bytes   int64
	Deleted int
	// Quarantined are vDisks that the registry does not know. They are left alone:
	// recover the vPool to register them.
	Quarantined []string
	// Skipped are vDisks that are being deleted or made, or changed after they were
	// looked at.
	Skipped []string
	// Doomed is the garbage, at most 1000 of it; More: there is more.
	Doomed []DoomedObject
	More   bool
}

// dataName is what the name of an SCO or TLog says.
type dataName struct {
	dir                  string // scoDir or tlogDir
	number, epoch, nonce uint32
}

// parseDataName reads the name of an SCO or TLog.
func parseDataName(name string) (dataName, error) {
	bad := fmt.Errorf("%w: object %s has an unknown name", ErrCorrupt, name)
	dir, file, _ := cutName(name)
	f := strings.Split(file, "-")
	if dir != scoDir && dir != tlogDir || len(f) != 3 {
		return dataName{}, bad
	}
	d := dataName{dir: dir}
	for i, to := range []*uint32{&d.number, &d.epoch, &d.nonce} {
		n, err := strconv.ParseUint(f[i], 16, 32)
		if err != nil || len(f[i]) != 8 {
			return dataName{}, bad
		}
		*to = uint32(n)
	}
	return d, nil
}

// cutName splits v/ID/DIR/FILE into /DIR/ and FILE.
func cutName(name string) (dir, file string, ok bool) {
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return "", name, false
	}
	k := strings.LastIndexByte(name[:i], '/')
	if k < 0 {
		return "", name, false
	}
	return name[k : i+1], name[i+1:], true
}

// vdiskSweep is what a sweep found of one vDisk.
type vdiskSweep struct {
	rec     Record
	garbage []DoomedObject
	objects int
	skip    bool
}

// Sweep looks for garbage in the whole vPool and, without dryRun, deletes it. Any
// error while it looks means that nothing was deleted; it names the object. Errors:
// ErrForeignRoot, ErrCorrupt, ErrInUse, ErrBackend, and without dryRun ErrDeletesOff.
func (p *Pool) Sweep(ctx context.Context, dryRun bool) (SweepResult, error) {
	var res SweepResult
	if !dryRun {
		if err := p.mayDelete(ctx); err != nil {
			return res, err
		}
	}
	root, err := ReadRoot(ctx, p.cfg.Store)
	if err != nil {
		return res, fmt.Errorf("vpool %s: %w", p.cfg.Name, err)
	}
	if root.Pool != p.cfg.ID || root.Cluster != p.cfg.ClusterID {
		return res, fmt.Errorf("vpool %s: %w (%q, %s)", p.cfg.Name, ErrForeignRoot, root.Name, root.Pool)
	}
	ids, err := p.backendDisks(ctx)
	if err != nil {
		return res, err
	}
	var found []*vdiskSweep
	for _, id := range ids {
		s, err := p.sweepDisk(ctx, id)
		if errors.Is(err, ErrNotFound) {
			res.Quarantined = append(res.Quarantined, id.String())
			continue
		}
		if err != nil {
			return SweepResult{}, fmt.Errorf("vpool %s: sweep, nothing was deleted: vdisk %s: %w", p.cfg.Name, id, err)
		}
		found = append(found, s)
		res.VDisks++
		res.Objects += s.objects
		if s.skip {
			res.Skipped = append(res.Skipped, id.String())
		}
		for _, d := range s.garbage {
			res.Garbage++
			res.Bytes += d.Bytes
			if res.More = len(res.Doomed) == maxDoomedShown; !res.More {
				res.Doomed = append(res.Doomed, d)
			}
		}
	}
	if dryRun {
		return res, nil
	}
	for _, s := range found {
		if err := p.deleteGarbage(ctx, s, &res); err != nil {
			return res, fmt.Errorf("vpool %s: sweep: %w", p.cfg.Name, err)
		}
	}
	return res, nil
}

// backendDisks lists the vDisks that have objects. An object that is neither the root
// nor of a vDisk is an error.
func (p *Pool) backendDisks(ctx context.Context) ([]ID, error) {
	var out []ID
	for after := ""; ; {
		page, err := p.list(ctx, "", after, 1)
		if err != nil || len(page) == 0 {
			return out, err
		}
		name := page[0].Name
		if after = name; name == rootName {
			continue
		}
		dir, _, ok := strings.Cut(strings.TrimPrefix(name, vdiskRoot), "/")
		id, err := ParseID(dir)
		if !strings.HasPrefix(name, vdiskRoot) || !ok || err != nil {
			return nil, fmt.Errorf("vpool %s: nothing was deleted: %w: object %s is not ovgate's; move it away", p.cfg.Name, ErrForeignRoot, name)
		}
		out = append(out, id)
		after = vdiskPrefix(id) + "/" + afterNames
	}
}

// sweepDisk finds the garbage of a vDisk; ErrNotFound: the registry does not know it.
func (p *Pool) sweepDisk(ctx context.Context, id ID) (*vdiskSweep, error) {
	for range sweepTries {
		rec, err := p.host.o.Registry.Load(ctx, id)
		if err != nil {
			return nil, err
		}
		s := &vdiskSweep{rec: rec}
		if rec.Pool != p.cfg.ID { // being moved here, or moved away: who moves it deletes that
			s.skip = true
			return s, nil
		}
		if rec.State == FlagDeleting || rec.Head.Number == 0 {
			s.skip = true // a tombstone is kept whole; Purge takes it with its last clone
			return s, nil
		}
		v := p.Volume(id)
		if rec.State == FlagScrub || rec.State == FlagPending {
			if v == nil {
				return nil, fmt.Errorf("%w: a scrub, rollback or freeze of it did not finish; open it, then repeat", ErrInUse)
			}
			if err := v.Commit(ctx); err != nil {
				return nil, err
			}
			continue
		}
		err = p.sweepState(ctx, s)
		switch {
		case err == nil:
			return s, nil
		case p.movedOn(ctx, id, rec.Head, err):
		case errors.Is(err, errNewerHead) && v != nil:
			if err := v.Commit(ctx); err != nil {
				return nil, err
			}
		case errors.Is(err, ErrNotFound):
			return nil, fmt.Errorf("%w: %s", ErrCorrupt, err) // of the vDisk's objects: not quarantined
		default:
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: it changes all the time; try again", ErrInUse)
}

// movedOn reports whether an object was missing because the vDisk has a newer head
// than the one that was looked at.
func (p *Pool) movedOn(ctx context.Context, id ID, was HeadRef, err error) bool {
	if !errors.Is(err, backend.ErrNotExist) {
		return false
	}
	rec, lerr := p.host.o.Registry.Load(ctx, id)
	return lerr == nil && rec.Head != was
}

// errNewerHead: see sweepState.
var errNewerHead = errors.New("a head that is newer than the registry's is on the backend")

// sweepState finds the garbage of a vDisk as of the head in its record.
func (p *Pool) sweepState(ctx context.Context, s *vdiskSweep) error {
	st, err := p.readState(ctx, s.rec.ID, s.rec.Head)
	if err != nil {
		return err
	}
	reached, err := p.reachable(ctx, st)
	if err != nil {
		return err
	}
	v := p.Volume(s.rec.ID)
	j := &sweepJudge{rec: s.rec, st: st, reached: reached, condemned: map[string]bool{}, open: v != nil,
		settled: v == nil && s.rec.Owner == "" && len(s.rec.Opens) == 0 && s.rec.State == FlagNone && st.head.Clean}
	for _, name := range st.head.Condemned {
		j.condemned[name] = true
	}
	for after := ""; ; {
		page, err := p.list(ctx, vdiskPrefix(s.rec.ID)+"/", after, 1000)
		if err != nil {
			return err
		}
		for _, o := range page {
			after = o.Name
			s.objects++
			reason, err := j.judge(o.Name)
			if err != nil {
				return err
			}
			if reason != "" {
				s.garbage = append(s.garbage, DoomedObject{o.Name, o.Size, reason})
			}
		}
		if len(page) < 1000 {
			return nil
		}
	}
}

// reachable returns the names of what a committed state consists of.
func (p *Pool) reachable(ctx context.Context, st *state) (map[string]bool, error) {
	id := st.head.VDisk
	out := map[string]bool{headName(id, st.ref): true}
	if st.head.Past != nil {
		out[pastName(id, *st.head.Past)] = true
	}
	pl := &scrubPlan{st: st, reader: p.logReader(id, st.head.Epochs)}
	if err := pl.spread(ctx); err != nil {
		return nil, err
	}
	for i := range pl.lines {
		for k := range pl.lines[i].scos {
			c := &pl.lines[i].scos[k]
			out[scoName(id, c.opening, c.number)] = true
			out[tlogName(id, pl.opening(pl.lines[i].Runs[c.run], c.tlog), c.tlog)] = true
		}
	}
	return out, p.reachableMap(ctx, st.head, out)
}

// reachableMap adds the checkpoint of the map that a head names. One that is lost or
// damaged reaches nothing: it is a cache.
func (p *Pool) reachableMap(ctx context.Context, h *Head, out map[string]bool) error {
	if h.Map == nil {
		return nil
	}
	name := mapName(h.VDisk, *h.Map)
	out[name] = true
	b, err := p.cfg.Store.Get(ctx, name, maxIndexBytes)
	if err != nil {
		if notThere(err) {
			return nil
		}
		return fmt.Errorf("%w: %s: %w", ErrBackend, name, err)
	}
	x, err := blockmap.DecodeIndex(b, nil)
	if err != nil {
		return nil
	}
	for _, s := range x.Segments {
		out[segmentName(h.VDisk, s)] = true
	}
	return nil
}

// sweepJudge decides what is garbage of a vDisk.
type sweepJudge struct {
	rec       Record
	st        *state
	reached   map[string]bool
	condemned map[string]bool // by the committed head
	open      bool            // here: it deletes what is condemned itself
	settled   bool            // closed in order: nothing of it is on its way
}

// judge returns why an object is garbage; empty: it stays. An error ends the sweep.
func (j *sweepJudge) judge(name string) (string, error) {
	dir, file, _ := cutName(name)
	var epoch uint32
	what := ""
	switch dir {
	case headDir, pastDir:
		r, ok := parseHeadName(name)
		if !ok {
			return "", fmt.Errorf("%w: object %s has an unknown name", ErrCorrupt, name)
		}
		if dir == headDir && r.newer(j.st.ref) && !slices.Contains(j.rec.Void, r.Epoch) {
			return "", fmt.Errorf("%w: %w: %s; open the vdisk, or recover the vpool", ErrInUse, errNewerHead, name)
		}
		if j.open || r.newer(j.st.ref) {
			return "", nil // an open vDisk deletes those before its head itself
		}
		epoch, what = r.Epoch, "superseded by head "+strconv.FormatUint(j.st.head.Number, 10)
	case scoDir, tlogDir:
		d, err := parseDataName(name)
		if err != nil {
			return "", err
		}
		epoch, what = d.epoch, "no committed head reaches it"
		if j.condemned[name] {
			what = "condemned by head " + strconv.FormatUint(j.st.head.Number, 10)
		}
	case mapDir, pageDir:
		n, ok := checkpointEpoch(dir, file)
		if !ok {
			return "", fmt.Errorf("%w: object %s has an unknown name", ErrCorrupt, name)
		}
		// An opening puts what an older one left on local disk under its old name, so
		// none of it is garbage while there can be one.
		if !j.settled {
			return "", nil
		}
		epoch, what = n, "no checkpoint of the map that a head names has it"
	case claimDir:
		n, err := strconv.ParseUint(file, 16, 32)
		if err != nil || len(file) != 8 {
			return "", fmt.Errorf("%w: object %s has an unknown name", ErrCorrupt, name)
		}
		if j.open || uint32(n) >= j.st.head.Epoch {
			return "", nil // the claim of an opening keeps its epoch taken
		}
		epoch, what = uint32(n), fmt.Sprintf("claim of an epoch before that of the head, %d", j.st.head.Epoch)
	default:
		return "", fmt.Errorf("%w: object %s has an unknown name", ErrCorrupt, name)
	}
	// What an opening writes counts once its head does; of the newest one that may
	// be to come.
	if j.reached[name] || j.open && j.condemned[name] || epoch > j.st.head.Epoch || epoch == j.st.head.Epoch && !j.settled {
		return "", nil
	}
	return what, nil
}

// deleteGarbage deletes what was found of a vDisk, unless that is another one now: no
// older object becomes part of one that went on.
func (p *Pool) deleteGarbage(ctx context.Context, s *vdiskSweep, res *SweepResult) error {
	if len(s.garbage) == 0 {
		return nil
	}
	now, err := p.host.o.Registry.Load(ctx, s.rec.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if err != nil || now.State == FlagDeleting || now.State == FlagPending || now.Head.Epoch < s.rec.Head.Epoch || s.rec.Head.newer(now.Head) {
		res.Skipped = append(res.Skipped, s.rec.ID.String())
		return nil
	}
	for _, d := range s.garbage {
		if dir, _, _ := cutName(d.Name); (dir == mapDir || dir == pageDir) && (now.Head != s.rec.Head || now.Owner != "" || len(now.Opens) > 0) {
			continue // it is in use again, and looks after these itself
		}
		if err := p.remove(ctx, d.Name); err != nil {
			return err
		}
		res.Deleted++
	}
	return nil
}
