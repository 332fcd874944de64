package maintenance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/preset"
)

// Safety is what a survey counted: exactly, object by object.
type Safety struct {
	At time.Time `json:"at"` // when it was complete; zero: not yet
	// Objects and Bytes are all that is stored, Stored with its redundancy.
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Stored  int64 `json:"stored"`
	// Tolerates counts objects by how many more devices the poorest of their
	// chunks may lose: -1 are those that cannot be read now.
	Tolerates map[int]int64 `json:"tolerates"`
	// Domains counts objects whose preset spreads by domain by how many whole domains,
	// of those that there still are, may be lost.
	Domains map[int]int64 `json:"domains,omitempty"`
	// Policies counts objects by the policy they are stored with.
	Policies map[string]int64 `json:"policies"`
	// Repair counts objects that are not complete on devices that stay, or have too many
	// fragments in a domain, Worse
	// those for which a better policy can be met.
	Repair int64 `json:"repair"`
	Worse  int64 `json:"worse"`
	// Unknown counts namespaces whose objects nobody knows now: their records
	// are lost, or being recovered. They are in none of the other figures.
	Unknown int64 `json:"unknown,omitempty"`
	// OSDs counts fragments by device.
	OSDs map[uint32]int64 `json:"osds"`
}

// Least returns how many more devices may be lost without losing an object;
// false when there is no object.
func (s Safety) Least() (least int, ok bool) {
	for n, objects := range s.Tolerates {
		if objects > 0 && (!ok || n < least) {
			least, ok = n, true
		}
	}
	return least, ok
}

// LeastDomains returns how many domains may be lost without losing an object that is
// spread by domain; false when there is none.
func (s Safety) LeastDomains() (least int, ok bool) {
	for n, objects := range s.Domains {
		if objects > 0 && (!ok || n < least) {
			least, ok = n, true
		}
	}
	return least, ok
}

// Safety returns the result of the last survey.
func (a *Agent) Safety() Safety {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.safety
}

// deviceStates is how fragments on the devices count in a survey.
type deviceStates struct {
	counts  map[uint32]bool // they can be expected to be readable
	stays   map[uint32]bool // and need not be moved
	records map[uint32]manager.OSD
}

// states reads the devices. One that is silent counts as lost at once, although
// its fragments are made anew only after the auto-repair time.
func (a *Agent) states(ctx context.Context) (deviceStates, error) {
	d := deviceStates{map[uint32]bool{}, map[uint32]bool{}, map[uint32]manager.OSD{}}
	osds, err := a.m.OSDs(ctx)
	if err != nil {
		return d, err
	}
	seen, err := a.m.SeenAll(ctx)
	if err != nil {
		return d, err
	}
	for _, o := range osds {
		s := seen[o.Number]
		d.records[o.Number] = o
		d.counts[o.Number] = o.Counts() && s.Error == "" && !s.Suspect
		d.stays[o.Number] = o.Takes()
	}
	return d, nil
}

// tolerates returns how many more of its devices the object may lose: -1 when it
// cannot be read.
func tolerates(m *layout.Manifest, counts map[uint32]bool) int {
	least := m.Policy.M
	for _, chunk := range m.Fragments {
		left := -m.Policy.K
		for _, f := range chunk {
			if f.OSD != 0 && counts[f.OSD] {
				left++
			}
		}
		least = min(least, left)
	}
	return max(least, -1)
}

// domains returns how many domains the object may lose.
func (d deviceStates) domains(m *layout.Manifest) int {
	least := m.Policy.M
	for _, chunk := range m.Fragments {
		in, left := map[string]int{}, -m.Policy.K
		for _, f := range chunk {
			if f.OSD != 0 && d.counts[f.OSD] {
				o := d.records[f.OSD]
				in[preset.ByDomain.Group(o.Node, o.Domain)]++
				left++
			}
		}
		least = min(least, preset.GroupsLost(slices.Collect(maps.Values(in)), left))
	}
	return least
}

// crowded tells whether too many fragments of a chunk are in one domain.
func (d deviceStates) crowded(by preset.Spread, m *layout.Manifest) bool {
	recs := func(number uint32) (manager.OSD, bool) { o, ok := d.records[number]; return o, ok }
	return slices.ContainsFunc(m.Fragments, func(chunk []layout.Fragment) bool {
		return len(manager.Crowded(by, m.Policy.X, chunk, recs)) > 0
	})
}

// incomplete tells whether a fragment is missing or on a device that does not stay.
func incomplete(m *layout.Manifest, stays map[uint32]bool) bool {
	for _, chunk := range m.Fragments {
		for _, f := range chunk {
			if f.OSD == 0 || !stays[f.OSD] {
				return true
			}
		}
	}
	return false
}

// Survey looks at every manifest: counts safety, repairs what is not complete,
// stores anew what a better policy can take, and lets devices leave that nothing
// names any more (T2).
func (a *Agent) Survey(ctx context.Context) error {
	_, err := a.survey(ctx)
	return err
}

// survey is Survey, and returns how many bytes it stored anew.
func (a *Agent) survey(ctx context.Context) (moved int64, _ error) {
	// The client must know the devices as the survey does.
	if err := a.c.Refresh(ctx); err != nil {
		return 0, err
	}
	before, err := a.states(ctx)
	if err != nil {
		return 0, err
	}
	// What made a device leave may have been interrupted before the hosts knew (T2).
	if err := errors.Join(a.m.CloseDevices(ctx), a.m.Propagate(ctx)); err != nil {
		return 0, err
	}
	s := &survey{a: a, d: before, crew: a.newCrew(ctx), job: a.begin("survey", "look at every manifest", "objects", a.Safety().Objects)}
	s.Tolerates, s.Domains, s.Policies, s.OSDs = map[int]int64{}, map[int]int64{}, map[string]int64{}, map[uint32]int64{}
	s.emptying = a.emptying(before)
	err = a.namespaces(ctx, func(n manager.Namespace, host *nsm.Host) error { return s.namespace(ctx, n, host) })
	moved, failed := s.crew.wait()
	err = cmp.Or(failed, err)
	a.end(s.job, err)
	if err != nil {
		return moved, err
	}
	if s.failed > 0 {
		a.log.Warn("some objects could not be repaired yet", "objects", s.failed, "last", s.last)
	}
	s.At = a.o.Clock.Now()
	a.mu.Lock()
	a.safety = s.Safety
	a.mu.Unlock()
	for n, j := range s.emptying {
		a.remaining(j, s.OSDs[n])
	}
	if s.Unknown > 0 {
		return moved, nil // no device leaves: what they lack may be there (T2)
	}
	return moved, a.release(ctx, before, s.OSDs, s.emptying)
}

// survey is one walk over all manifests.
type survey struct {
	a    *Agent
	d    deviceStates
	job  *Job
	crew *crew

	mu sync.Mutex
	Safety
	failed int
	last   error

	emptying map[uint32]*Job // of devices that are being emptied
}

func (s *survey) namespace(ctx context.Context, n manager.Namespace, host *nsm.Host) error {
	rec, err := s.a.record(ctx, n, host)
	if unknown(err) {
		s.Unknown++
		s.a.event("store.error", 0, slog.LevelError, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	return s.a.objects(ctx, host, n, func(m *layout.Manifest) error {
		worse := rec.Preset.Rank(m.Policy) > 0 && s.a.c.Better(rec, m)
		if worse || incomplete(m, s.d.stays) || s.d.crowded(rec.Preset.Spread, m) {
			return s.crew.do(m.Size, func(ctx context.Context) (int64, error) {
				m, moved, err := s.repair(ctx, n, host, m, worse)
				if err == nil && m != nil {
					s.count(m, rec.Preset.Spread, rec.Preset.Rank(m.Policy) > 0 && s.a.c.Better(rec, m))
					s.a.progress(s.job, 1, 0)
				}
				return moved, err
			})
		}
		s.count(m, rec.Preset.Spread, worse)
		s.a.progress(s.job, 1, 0)
		return nil
	})
}

// repair returns the object as it is after it was repaired as far as possible, nil when it
// is gone, and how many bytes were stored for that.
func (s *survey) repair(ctx context.Context, n manager.Namespace, host *nsm.Host, m *layout.Manifest, worse bool) (*layout.Manifest, int64, error) {
	did, err := s.a.c.Repair(ctx, n.Name, m.Name, client.RepairOptions{Better: worse})
	if ctx.Err() != nil {
		return nil, 0, ctx.Err()
	}
	if err != nil {
		s.mu.Lock()
		s.failed++
		s.last = err
		s.mu.Unlock()
	}
	if did.Rewrite {
		did.Bytes = m.Stored()
	}
	now, err := host.Get(ctx, n.ID, m.Name)
	if errors.Is(err, nsm.ErrNotExist) {
		now, err = nil, nil
	}
	if err == nil {
		for number, j := range s.emptying {
			if left := on(m, number) - on(now, number); left > 0 {
				s.a.progress(j, left, did.Bytes)
			}
		}
	}
	return now, did.Bytes, err
}

// on counts the fragments of an object on a device; none of one that is gone.
func on(m *layout.Manifest, number uint32) (n int64) {
	if m == nil {
		return 0
	}
	for _, chunk := range m.Fragments {
		for _, f := range chunk {
			if f.OSD == number {
				n++
			}
		}
	}
	return n
}

// emptying returns the jobs of the devices that are being emptied. One goes on from
// survey to survey, until the device leaves.
func (a *Agent) emptying(d deviceStates) map[uint32]*Job {
	jobs := map[uint32]*Job{}
	held := a.Safety().OSDs
	for n, o := range d.records {
		if o.State != manager.Decommissioning {
			continue
		}
		id := emptyJob(n)
		a.mu.Lock()
		j := a.jobs[id]
		runs := j != nil && j.Ended.IsZero()
		a.mu.Unlock()
		if !runs {
			what := fmt.Sprintf("empty device %d", n)
			for _, by := range d.records {
				if by.Replaces == n {
					what = fmt.Sprintf("replace device %d with device %d", n, by.Number)
				}
			}
			j = a.begin(id, what, "fragments", held[n])
		}
		jobs[n] = j
	}
	return jobs
}

func emptyJob(number uint32) string { return fmt.Sprintf("empty-%d", number) }

// remaining corrects what a job has to do by what a survey counted.
func (a *Agent) remaining(j *Job, left int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	j.Total = j.Done + left
}

func (s *survey) count(m *layout.Manifest, by preset.Spread, worse bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Objects++
	s.Bytes += m.Size
	s.Stored += m.Stored()
	s.Tolerates[tolerates(m, s.d.counts)]++
	if by == preset.ByDomain {
		s.Domains[s.d.domains(m)]++
	}
	s.Policies[m.Policy.String()]++
	if incomplete(m, s.d.stays) || s.d.crowded(by, m) {
		s.Repair++
	}
	if worse {
		s.Worse++
	}
	for _, chunk := range m.Fragments {
		for _, f := range chunk {
			if f.OSD != 0 {
				s.OSDs[f.OSD]++
			}
		}
	}
}

// release ends devices that are leaving and that no manifest names. Only those that
// were leaving before the survey began were looked for in all manifests (T2).
func (a *Agent) release(ctx context.Context, before deviceStates, refs map[uint32]int64, jobs map[uint32]*Job) error {
	left := false
	for n, o := range before.records {
		if o.State != manager.Decommissioning && o.State != manager.Purging || refs[n] > 0 {
			continue
		}
		if o.State == manager.Decommissioning {
			if err := a.wipe(ctx, n); err != nil {
				a.log.Warn("device leaves without being emptied", "device", n, "error", err)
			}
		}
		if err := a.m.Leave(ctx, n); err != nil {
			return err
		}
		left = true
		if j := jobs[n]; j != nil {
			a.end(j, nil)
		}
		a.event("osd.emptied", n, slog.LevelInfo, fmt.Sprintf("device %d of node %s has left: nothing is stored on it any more", n, a.o.NodeName(o.Node)))
	}
	if !left {
		return nil
	}
	return a.c.Refresh(ctx)
}

// Lost counts the objects on these devices that cannot be read without them, which
// is what a purge loses, and returns the names of up to limit.
func (a *Agent) Lost(ctx context.Context, without []uint32, limit int) (int, []string, error) {
	d, err := a.states(ctx)
	if err != nil {
		return 0, nil, err
	}
	for _, n := range without {
		d.counts[n] = false
	}
	lost := 0
	var names []string
	err = a.namespaces(ctx, func(n manager.Namespace, host *nsm.Host) error {
		if _, err := a.record(ctx, n, host); err != nil {
			return err // nobody can say
		}
		return a.objects(ctx, host, n, func(m *layout.Manifest) error {
			uses := false
			for _, chunk := range m.Fragments {
				uses = uses || slices.ContainsFunc(chunk, func(f layout.Fragment) bool { return slices.Contains(without, f.OSD) })
			}
			if !uses || tolerates(m, d.counts) >= 0 {
				return nil
			}
			lost++
			if len(names) < limit {
				names = append(names, n.Name+"/"+m.Name)
			}
			return nil
		})
	})
	return lost, names, err
}
