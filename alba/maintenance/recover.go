package maintenance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/osd"
)

// Recovery of a namespace whose NSM records are lost, from the devices alone: each
// fragment has a tag with the header of its object (layout M4).
//
//	manager: recovering ─► host: recovering ─► read all devices ─► host: active ─► manager: active
//	                                             │ in passes over ranges of object ids
//	                                             ▼
//	               tags and fragments of an object ─► per chunk k of k+m? ─► manifest
//
// It can be interrupted anywhere and run again. It restores what is there, so:
//
//   - An object that was deleted comes back if its fragments were not collected yet.
//   - So does an upload that was refused or never committed, if it was complete.
//   - Of several objects of one name the newest that is complete is taken. Where a
//     newer one is not, it is reported; it may be an upload that did not end.
//   - What only devices that are away have is missing, and collected when they come
//     back. So their absence has to be accepted (Force).

// DefaultRecoverTags bounds the tags and fragments that recovery has in memory, some
// 40 bytes each.
const DefaultRecoverTags = 2 << 20

// recoverLost bounds the objects that a recovery reports by name.
const recoverLost = 10000

// RecoverOptions configure a recovery.
type RecoverOptions struct {
	// Force goes on although devices are away.
	Force bool
	// Tags bounds the tags in memory; DefaultRecoverTags if 0.
	Tags int
}

// Recovery is what came of it.
type Recovery struct {
	ID   uint64 `json:"id"`
	Name string `json:"name"`
	// Found counts objects on the devices, Restored those in the namespace
	// now, Incomplete those of them with fewer than all fragments.
	Found      int64 `json:"found"`
	Restored   int64 `json:"restored"`
	Incomplete int64 `json:"incomplete"`
	// Leftovers counts objects that a newer one of their name replaced.
	Leftovers int64 `json:"leftovers"`
	// Unrecoverable counts objects of which a chunk has fewer than k fragments;
	// Lost names them, up to 10,000.
	Unrecoverable int64        `json:"unrecoverable"`
	Lost          []LostObject `json:"lost,omitempty"`
	// Damaged counts tags that could not be read.
	Damaged int64 `json:"damaged,omitempty"`
	// Away are the devices that could not be asked.
	Away []uint32 `json:"away,omitempty"`
	// Passes over the devices.
	Passes int `json:"passes"`
}

// LostObject is an object that cannot be recovered.
type LostObject struct {
	Name    string        `json:"name"`
	Object  layout.Object `json:"object"`
	Created int64         `json:"created"` // ms since 1970
	Size    int64         `json:"size"`
	// Older tells that an older object of this name was restored.
	Older bool `json:"older,omitempty"`
}

// FoundNamespace is a namespace that devices know.
type FoundNamespace struct {
	layout.Link
	Devices []uint32 `json:"devices"`
	// Known tells that the manager has it under this number.
	Known bool `json:"known"`
}

// FindNamespaces returns the namespaces that the devices which answer know, by
// number. Ones that the manager does not know may have been removed while a device
// was away.
func (a *Agent) FindNamespaces(ctx context.Context) ([]FoundNamespace, error) {
	devices, _, err := a.reachable(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[uint64]*FoundNamespace{}
	for _, number := range devices {
		err := a.keys(ctx, number, layout.NamespacesPrefix(), nil, func(page []osd.Entry) error {
			keys := make([][]byte, len(page))
			for i, e := range page {
				keys[i] = e.Key
			}
			values, err := a.values(ctx, number, keys, nil)
			if err != nil {
				return err
			}
			for i, v := range values {
				link, err := layout.DecodeLink(v)
				id, kerr := layout.ParseNamespaceKey(keys[i])
				if err != nil || kerr != nil || link.ID != id {
					continue // it is being removed there
				}
				if byID[id] == nil {
					byID[id] = &FoundNamespace{Link: link}
				}
				byID[id].Devices = append(byID[id].Devices, number)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	spaces, err := a.spaces(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]FoundNamespace, 0, len(byID))
	for id, f := range byID {
		n, ok := spaces[id]
		f.Known = ok && n.Name == f.Name
		out = append(out, *f)
	}
	slices.SortFunc(out, func(x, y FoundNamespace) int { return int(min(max(int64(x.ID)-int64(y.ID), -1), 1)) })
	return out, nil
}

// RecoverAll recovers every namespace whose records are lost: those that the manager
// knows, and those on the devices with numbers that it never gave.
func (a *Agent) RecoverAll(ctx context.Context, o RecoverOptions) ([]Recovery, error) {
	names := map[string]bool{}
	all, err := a.m.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		if n.State == nsm.Removing || n.State == manager.Creating {
			continue
		}
		_, err := a.m.Settle(ctx, n)
		if unknown(err) {
			names[n.Name] = true
		} else if err != nil {
			return nil, err
		}
	}
	found, err := a.FindNamespaces(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		given, err := a.m.Given(ctx, f.ID)
		if err != nil {
			return nil, err
		}
		if !f.Known && !given {
			names[f.Name] = true
		}
	}
	var out []Recovery
	var errs []error
	for name := range names {
		r, err := a.RecoverNamespace(ctx, name, o)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, r)
	}
	slices.SortFunc(out, func(x, y Recovery) int { return int(min(max(int64(x.ID)-int64(y.ID), -1), 1)) })
	return out, errors.Join(errs...)
}

// RecoverNamespace rebuilds a namespace whose NSM records are lost. It is refused
// with manager.ErrUnsafe while devices are away, unless that is accepted, and with
// manager.ErrState when the host has objects of it: then nothing is lost.
func (a *Agent) RecoverNamespace(ctx context.Context, name string, o RecoverOptions) (Recovery, error) {
	if err := a.c.Refresh(ctx); err != nil {
		return Recovery{}, err
	}
	job := a.begin("recover-"+name, "recover namespace "+name+" from the devices", "objects", 0)
	r, err := a.recover(ctx, name, o, job)
	a.end(job, err)
	if err != nil {
		return r, fmt.Errorf("recover namespace %s: %w", name, err)
	}
	level := slog.LevelInfo
	if r.Unrecoverable > 0 {
		level = slog.LevelError
	}
	a.event("store.recovered", 0, level, fmt.Sprintf("namespace %s was recovered from the devices: %d objects, %d incomplete, %d lost", name, r.Restored, r.Incomplete, r.Unrecoverable))
	a.soon()
	return r, nil
}

func (a *Agent) recover(ctx context.Context, name string, o RecoverOptions, job *Job) (Recovery, error) {
	r := Recovery{Name: name}
	devices, away, err := a.reachable(ctx)
	if err != nil {
		return r, err
	}
	r.Away = away
	if len(away) > 0 && !o.Force {
		return r, fmt.Errorf("%w: devices %v do not answer: objects could be missed, or older ones come back: bring them back, or accept that", manager.ErrUnsafe, away)
	}
	n, host, done, err := a.beginRecovery(ctx, name)
	r.ID = n.ID
	if err != nil || done {
		return r, err
	}
	if o.Tags <= 0 {
		o.Tags = DefaultRecoverTags
	}
	s := &scan{a: a, n: n, host: host, devices: devices, limit: o.Tags, job: job, r: &r}
	if err := s.run(ctx); err != nil {
		return r, err
	}
	// What is left over is looked through from the beginning.
	for _, number := range slices.Concat(devices, away) {
		if _, err := a.m.SetSeen(ctx, number, func(s *manager.Seen) { delete(s.Collected, n.ID) }); err != nil {
			return r, err
		}
	}
	a.mu.Lock()
	delete(a.epochs, n.ID)
	a.mu.Unlock()
	for _, number := range devices {
		v, err := a.values(ctx, number, [][]byte{layout.NamespaceKey(n.ID)}, nil)
		if err != nil {
			return r, err
		}
		if link, err := layout.DecodeLink(v[0]); err == nil {
			s.epoch = max(s.epoch, link.EpochMin)
		}
	}
	if _, err := host.EndRecovery(ctx, n.ID, s.epoch); err != nil {
		return r, err
	}
	_, err = a.m.Recovered(ctx, manager.Namespace{ID: n.ID, Name: name})
	return r, err
}

// reachable returns the devices that can be read, and those that are away. One that
// was purged is not missed.
func (a *Agent) reachable(ctx context.Context) (devices, away []uint32, err error) {
	osds, err := a.m.OSDs(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, o := range osds {
		if o.State == manager.Claiming {
			continue
		}
		dev := a.c.Device(o.Number)
		err := errors.New("it is not open")
		if dev != nil {
			call, cancel := a.call(ctx)
			_, err = a.identify(call, o, dev)
			cancel()
		}
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case err == nil:
			devices = append(devices, o.Number)
		case o.State != manager.Purging:
			a.log.Info("device is away", "device", o.Number, "error", err)
			away = append(away, o.Number)
		}
	}
	return devices, away, nil
}

// beginRecovery puts manager and host into the state Recovering; done tells that
// the host had everything.
func (a *Agent) beginRecovery(ctx context.Context, name string) (nsm.Namespace, *nsm.Host, bool, error) {
	n, err := a.m.Namespace(ctx, name)
	fresh := errors.Is(err, manager.ErrNotFound)
	if fresh {
		n, err = a.reclaim(ctx, name)
	}
	if err != nil {
		return nsm.Namespace{}, nil, false, err
	}
	if n.State != nsm.Active && n.State != nsm.Recovering {
		return nsm.Namespace{ID: n.ID}, nil, false, fmt.Errorf("%w: it is %s", manager.ErrState, n.State)
	}
	host, err := a.m.Host(n.Host)
	if err != nil {
		return nsm.Namespace{ID: n.ID}, nil, false, err
	}
	p, err := a.m.Preset(ctx, n.Preset)
	if err != nil {
		return nsm.Namespace{ID: n.ID}, nil, false, err
	}
	rec, err := host.BeginRecovery(ctx, n.ID, name, p)
	switch {
	case errors.Is(err, nsm.ErrExists) && n.State == nsm.Recovering: // only the last step was missing
		_, err := a.m.Recovered(ctx, n)
		return rec, host, true, err
	case errors.Is(err, nsm.ErrExists):
		return rec, host, false, fmt.Errorf("%w: nothing of it is lost: %w", manager.ErrState, err)
	case err != nil:
		return rec, host, false, err
	}
	_, err = a.m.Reclaim(ctx, n.ID, name, n.Preset)
	return rec, host, false, err
}

// reclaim makes the manager know a namespace again that only devices know. Of
// several that had the name the last one counts.
func (a *Agent) reclaim(ctx context.Context, name string) (manager.Namespace, error) {
	found, err := a.FindNamespaces(ctx)
	if err != nil {
		return manager.Namespace{}, err
	}
	var link layout.Link
	for _, f := range found {
		// No number that a device knows is given out again.
		if err := a.m.Reserve(ctx, f.ID); err != nil {
			return manager.Namespace{}, err
		}
		if f.Name == name && f.ID > link.ID {
			link = f.Link
		}
	}
	if link.ID == 0 {
		return manager.Namespace{}, fmt.Errorf("%w: no device knows it", manager.ErrNotFound)
	}
	return a.m.Reclaim(ctx, link.ID, name, link.Preset)
}

// values returns values of a device by their keys, nil for those that are absent or
// damaged; of the latter damaged is told.
func (a *Agent) values(ctx context.Context, number uint32, keys [][]byte, damaged func()) ([][]byte, error) {
	const batch = 1000
	dev := a.c.Device(number)
	if dev == nil {
		return nil, fmt.Errorf("device %d is not open", number)
	}
	get := func(keys [][]byte) ([]osd.Value, error) {
		call, cancel := a.call(ctx)
		defer cancel()
		return dev.Get(call, keys, layout.MaxManifestBytes, osd.Low)
	}
	bad := func(err error) bool { return errors.Is(err, osd.ErrCorrupt) || errors.Is(err, osd.ErrInvalid) }
	out := make([][]byte, 0, len(keys))
	for page := range slices.Chunk(keys, batch) {
		values, err := get(page)
		if err == nil {
			for _, v := range values {
				out = append(out, v.Data)
			}
			continue
		}
		if !bad(err) {
			return nil, fmt.Errorf("device %d: %w", number, err)
		}
		for i := range page { // one of them is damaged
			values, err := get(page[i : i+1])
			switch {
			case err == nil:
				out = append(out, values[0].Data)
			case bad(err):
				if damaged != nil {
					damaged()
				}
				out = append(out, nil)
			default:
				return nil, fmt.Errorf("device %d: %w", number, err)
			}
		}
	}
	return out, nil
}

// trace is a tag, or a fragment, of an object on a device.
type trace struct {
	epoch   uint64 // of a tag
	osd     uint32
	chunk   uint32
	version uint32
	size    uint32 // of a fragment, as its crc
	crc     uint32
	index   uint8
}

// at is where a trace is.
type at struct {
	osd, chunk, version uint32
	index               uint8
}

func (t trace) at() at { return at{t.osd, t.chunk, t.version, t.index} }

// traces is what devices have of an object.
type traces struct{ tags, stored []trace }

// scan reads the devices in passes, each over a range of object ids [low, high)
// that is as long as the memory allows: ids are random, so ranges are even.
type scan struct {
	a       *Agent
	n       nsm.Namespace
	host    *nsm.Host
	devices []uint32
	limit   int
	job     *Job
	r       *Recovery

	epoch     uint64 // the highest seen
	low, high layout.Object
	bounded   bool // else there is no high
	objects   map[layout.Object]*traces
	count     int
	lost      []LostObject
}

func (s *scan) run(ctx context.Context) error {
	for {
		s.r.Passes++
		s.objects, s.count, s.bounded = map[layout.Object]*traces{}, 0, false
		for _, number := range s.devices {
			if err := s.tags(ctx, number); err != nil {
				return err
			}
		}
		for _, number := range s.devices {
			if err := s.stored(ctx, number); err != nil {
				return err
			}
		}
		if err := s.restore(ctx); err != nil {
			return err
		}
		if !s.bounded {
			return s.finish(ctx)
		}
		s.low = s.high
	}
}

// add notes a trace. When there are too many, the range ends sooner.
func (s *scan) add(p layout.Place, t trace, tag bool) {
	o := s.objects[p.Object]
	switch {
	case o == nil && !tag:
		return // no tag: not written by us (layout M3)
	case o == nil:
		o = &traces{}
		s.objects[p.Object] = o
	}
	if tag {
		o.tags = append(o.tags, t)
	} else {
		o.stored = append(o.stored, t)
	}
	if s.count++; s.count <= s.limit || len(s.objects) < 2 {
		return
	}
	ids := s.ids()
	s.high, s.bounded = ids[len(ids)/2], true
	for _, id := range ids[len(ids)/2:] {
		s.count -= len(s.objects[id].tags) + len(s.objects[id].stored)
		delete(s.objects, id)
	}
}

func (s *scan) ids() []layout.Object {
	ids := make([]layout.Object, 0, len(s.objects))
	for id := range s.objects {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(x, y layout.Object) int { return bytes.Compare(x[:], y[:]) })
	return ids
}

func (s *scan) beyond(o layout.Object) bool { return s.bounded && bytes.Compare(o[:], s.high[:]) >= 0 }

// tags reads the tags of a device in the range: in each epoch it jumps to where
// that begins.
func (s *scan) tags(ctx context.Context, number uint32) error {
	prefix := layout.TagsPrefix(s.n.ID)
	begin := func(epoch uint64) []byte { // of the range in an epoch; no key is equal
		return append(layout.EpochAfter(s.n.ID, epoch-1), s.low[:]...)
	}
	for after := []byte(nil); ; {
		page, err := s.page(ctx, number, prefix, after)
		if err != nil || len(page) == 0 {
			return err
		}
		var jump []byte
		for _, e := range page {
			if bytes.Compare(e.Key, jump) <= 0 {
				continue
			}
			p, epoch, err := layout.ParseTagKey(e.Key)
			if err != nil {
				return fmt.Errorf("device %d: %w", number, err)
			}
			s.epoch = max(s.epoch, epoch)
			switch {
			case bytes.Compare(p.Object[:], s.low[:]) < 0:
				jump = begin(epoch)
			case s.beyond(p.Object):
				jump = begin(epoch + 1)
			default:
				s.add(p, trace{epoch: epoch, osd: number, chunk: p.Chunk, version: p.Version, index: p.Index}, true)
			}
		}
		after = page[len(page)-1].Key
		if bytes.Compare(jump, after) > 0 {
			after = jump
		}
	}
}

// stored reads which fragments of the range a device has.
func (s *scan) stored(ctx context.Context, number uint32) error {
	prefix := layout.FragmentsPrefix(s.n.ID)
	for after := append(bytes.Clone(prefix), s.low[:]...); ; {
		page, err := s.page(ctx, number, prefix, after)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, e := range page {
			p, err := layout.ParseFragmentKey(e.Key)
			if err != nil {
				return fmt.Errorf("device %d: %w", number, err)
			}
			if s.beyond(p.Object) {
				return nil
			}
			s.add(p, trace{osd: number, chunk: p.Chunk, version: p.Version, index: p.Index, size: uint32(e.Size), crc: e.CRC}, false)
		}
		after = page[len(page)-1].Key
	}
}

func (s *scan) page(ctx context.Context, number uint32, prefix, after []byte) ([]osd.Entry, error) {
	dev := s.a.c.Device(number)
	if dev == nil {
		return nil, fmt.Errorf("device %d is not open", number)
	}
	call, cancel := s.a.call(ctx)
	defer cancel()
	page, err := dev.List(call, prefix, after, 0, osd.Low)
	if err != nil {
		return nil, fmt.Errorf("device %d: %w", number, err)
	}
	return page, nil
}
