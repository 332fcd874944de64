package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// PoolStatus is the running side of a vPool.
type PoolStatus struct {
	Attached bool
	Err      string // why it is not attached, or what the backend last failed with
	Usage    backend.Usage
	// Observed is when Usage was taken; zero: never.
	Observed time.Time
}

// SettingsPatch changes a vPool's settings; nil leaves one as it is.
type SettingsPatch struct {
	ClusterSize    *int64
	SCOSize        *int64
	JournalQuota   *int64
	CommitInterval *time.Duration
	StallTimeout   *time.Duration
	History        *time.Duration
	AcceptLostTail *bool
	Trash          *time.Duration // 0: none
	// Oversubscription is in percent; 0: no bound.
	Oversubscription *int
	VerifyInterval   *time.Duration // 0: none
	DTL              *model.DTLMode
}

// apply checks the patched settings as the engine will and returns them, all set.
func (p SettingsPatch) apply(object string, s model.PoolSettings) (model.PoolSettings, *Error) {
	if p.ClusterSize != nil {
		s.ClusterSize = int(*p.ClusterSize)
	}
	if p.SCOSize != nil {
		s.SCOSize = *p.SCOSize
	}
	if p.JournalQuota != nil {
		s.JournalQuota = *p.JournalQuota
	}
	if p.CommitInterval != nil {
		s.CommitInterval = *p.CommitInterval
	}
	if p.StallTimeout != nil {
		s.StallTimeout = *p.StallTimeout
	}
	if p.History != nil {
		s.History = *p.History
	}
	if p.AcceptLostTail != nil {
		s.AcceptLostTail = *p.AcceptLostTail
	}
	if p.Trash != nil {
		if *p.Trash != 0 && (*p.Trash < minTrash || *p.Trash > maxTrash) {
			return s, invalid("settings.trashMs", object, "use 1 minute to 366 days, or 0 for none", "to keep deleted vDisks for %s is not possible", *p.Trash)
		}
		if s.Trash = *p.Trash; s.Trash == 0 {
			s.Trash = -1
		}
	}
	if p.VerifyInterval != nil {
		if *p.VerifyInterval != 0 && (*p.VerifyInterval < minVerifyInterval || *p.VerifyInterval > maxVerifyInterval) {
			return s, invalid("settings.verifyIntervalMs", object, "use 1 hour to 366 days, or 0 for none", "to verify every %s is not possible", *p.VerifyInterval)
		}
		if s.VerifyInterval = *p.VerifyInterval; s.VerifyInterval == 0 {
			s.VerifyInterval = -1
		}
	}
	if p.DTL != nil {
		if s.DTL = *p.DTL; !validDTL(s.DTL) {
			return s, invalid("settings.dtl", object, dtlModeHint, "a DTL mode %q is not known", clip(string(s.DTL)))
		}
	}
	if p.Oversubscription != nil {
		if s.Oversubscription = *p.Oversubscription; s.Oversubscription < 0 || s.Oversubscription > maxOversubscription {
			return s, invalid("settings.oversubscriptionPercent", object, fmt.Sprintf("use 1 to %d percent, or 0 for no bound", maxOversubscription), "an over-subscription of %d percent is not possible", s.Oversubscription)
		}
	}
	return s, checkSettings(object, s)
}

// defaultSettings are those of a vPool created without any.
func defaultSettings() model.PoolSettings {
	return model.PoolSettings{
		ClusterSize: volume.DefaultClusterSize, SCOSize: volume.DefaultSCOSize, JournalQuota: volume.DefaultQuota,
		CommitInterval: volume.DefaultCommitInterval, StallTimeout: volume.DefaultStallTimeout,
	}
}

// Ranges of the intervals, as volume.Settings documents them.
const (
	minCommitInterval = 100 * time.Millisecond
	maxCommitInterval = 10 * time.Minute
	minStallTimeout   = time.Second
	maxStallTimeout   = time.Hour
	minHistory        = time.Minute
	// maxHistory: each moment is an object at least; what is to be kept for years is a
	// snapshot.
	maxHistory = 366 * 24 * time.Hour
	minTrash   = time.Minute
	maxTrash   = 366 * 24 * time.Hour

	minVerifyInterval = time.Hour
	maxVerifyInterval = 366 * 24 * time.Hour
	// maxOversubscription is in percent.
	maxOversubscription = 100_000
)

func checkSettings(object string, s model.PoolSettings) *Error {
	pow2 := func(n int64) bool { return n > 0 && n&(n-1) == 0 }
	switch {
	case !pow2(int64(s.ClusterSize)) || s.ClusterSize < volume.MinClusterSize || s.ClusterSize > volume.MaxClusterSize:
		return invalid("settings.clusterSize", object, "use 4, 8, 16, 32 or 64 KiB", "a cluster size of %d bytes is not possible", s.ClusterSize)
	case s.JournalQuota < volume.MinQuota || s.JournalQuota > volume.MaxQuota:
		return invalid("settings.journalQuota", object, "use 128 MiB to 10 GiB", "a journal quota of %d bytes is not possible", s.JournalQuota)
	case !pow2(s.SCOSize) || s.SCOSize < volume.MinSCOSize || s.SCOSize > volume.MaxSCOSize:
		return invalid("settings.scoSize", object, "use a power of two from 4 to 128 MiB", "a SCO size of %d bytes is not possible", s.SCOSize)
	case s.SCOSize > s.JournalQuota/4:
		return invalid("settings.scoSize", object, "use smaller SCOs or a larger journal quota", "a SCO of %d bytes exceeds a quarter of the journal quota of %d bytes", s.SCOSize, s.JournalQuota)
	case s.CommitInterval < minCommitInterval || s.CommitInterval > maxCommitInterval:
		return invalid("settings.commitIntervalMs", object, "use 100 ms to 10 min", "a commit interval of %s is not possible", s.CommitInterval)
	case s.StallTimeout < minStallTimeout || s.StallTimeout > maxStallTimeout:
		return invalid("settings.stallTimeoutMs", object, "use 1 s to 1 h", "a stall timeout of %s is not possible", s.StallTimeout)
	}
	return checkHistory("settings.historyMs", object, s.History)
}

func engineSettings(s model.PoolSettings) volume.Settings {
	return volume.Settings{
		ClusterSize: s.ClusterSize, SCOSize: s.SCOSize, JournalQuota: s.JournalQuota,
		CommitInterval: s.CommitInterval, StallTimeout: s.StallTimeout, History: s.History, AcceptLostTail: s.AcceptLostTail,
		DTL: volume.DTLMode(s.DTLMode()),
	}
}

// FindVPool returns a vPool by name or id.
func (c *Controller) FindVPool(ref string) (model.VPool, error) {
	v, ok := c.model.FindVPool(ref)
	if !ok || v.State == model.StateDeleting {
		return v, noVPool(clip(ref), "")
	}
	return v, nil
}

// FindVPoolAmong is FindVPool where there are no vPools but those, by id, for which seen holds.
func (c *Controller) FindVPoolAmong(ref string, seen func(vpool string) bool) (model.VPool, error) {
	v, err := c.FindVPool(ref)
	if err == nil && !seen(v.ID) {
		return model.VPool{}, noVPool(clip(ref), "")
	}
	return v, err
}

// PoolStatus returns the running side of a vPool.
func (c *Controller) PoolStatus(id string) PoolStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pools[id]
	if p == nil {
		if rec, ok := c.model.VPool(id); ok && !c.reaches(rec) {
			return PoolStatus{Err: "only node " + c.NodeName(rec.Node) + " reaches it"}
		}
		return PoolStatus{Err: "not attached yet"}
	}
	s := PoolStatus{Attached: p.p != nil, Usage: p.usage, Observed: p.usageAt}
	switch {
	case p.err != nil:
		s.Err = p.err.Error()
	case p.awayErr != nil:
		s.Err = p.awayErr.Error()
	}
	return s
}

// NewPool is what a vPool is created or recovered from.
type NewPool struct {
	Name     string
	Backend  model.Backend // Store is the name or id of a remote store
	Settings SettingsPatch
	// Encrypted: its objects are to be, with a key that is drawn. Only for a new one.
	Encrypted bool
	// Key is the one that the objects of a vPool that is recovered are encrypted with;
	// empty: none.
	Key string
}

// remoteOf turns the name of a remote store into its id, and completes the kind.
func (c *Controller) remoteOf(object string, b model.Backend) (model.Backend, *Error) {
	if b.Store == "" {
		if b.Kind == model.KindS3 || b.Kind == model.KindSwift {
			return b, invalid("backend.store", object, "name one that ovgate backend list shows, or register one: ovgate backend create "+b.Kind, "it is not said which %s backend", b.Kind)
		}
		return b, nil
	}
	r, ok := c.model.FindRemote(b.Store)
	if !ok {
		return b, &Error{Code: CodeNotFound, Field: "backend.store", Object: object, Message: fmt.Sprintf("there is no backend %q", clip(b.Store)), Hint: "ovgate backend list shows those that are registered"}
	}
	if b.Kind != r.Kind {
		return b, invalid("backend.kind", object, "use "+r.Kind, "backend %s is of kind %s, not %s", r.Name, r.Kind, b.Kind)
	}
	b.Store = r.ID
	return b, nil
}

// check refuses what cannot become a vPool and returns its record without ids.
func (c *Controller) checkNewPool(in NewPool) (model.VPool, *Error) {
	object := vpoolObject(clip(in.Name))
	if e := checkName("vpool", in.Name); e != nil {
		return model.VPool{}, e
	}
	var e *Error
	if in.Backend, e = c.remoteOf(object, in.Backend); e != nil {
		return model.VPool{}, e
	}
	in.Backend = c.opt.Backends.Default(in.Backend, in.Name)
	if e := c.opt.Backends.Check(in.Backend); e != nil {
		e.Object = object
		return model.VPool{}, e
	}
	settings, e := in.Settings.apply(object, defaultSettings())
	if e != nil {
		return model.VPool{}, e
	}
	if _, taken := c.model.FindVPool(in.Name); taken {
		return model.VPool{}, poolTaken(in.Name)
	}
	for _, v := range c.model.VPools() {
		if v.Node == c.opt.Node && overlap(v.Backend, in.Backend) || v.Backend.Shared() && overlap(v.Backend, in.Backend) {
			return model.VPool{}, &Error{Code: CodeInUse, Field: "backend.path", Object: object, Message: fmt.Sprintf("vpool %s keeps its objects in %s", v.Name, v.Backend.Path), Hint: overlapHint(v)}
		}
	}
	return model.VPool{
		Name: in.Name, Backend: in.Backend, Settings: settings, Node: c.opt.Node,
		State: model.StateCreating, Created: c.clock.Now().UTC(),
	}, nil
}

func poolTaken(name string) *Error {
	return &Error{Code: CodeExists, Field: "name", Object: vpoolObject(clip(name)), Message: "a vPool of this name exists", Hint: "choose another name"}
}

// CreateVPool makes a vPool and attaches it.
func (c *Controller) CreateVPool(ctx context.Context, in NewPool) (model.VPool, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.VPool{}, err
	}
	defer done()
	rec, e := c.checkNewPool(in)
	if e != nil {
		return rec, e
	}
	if rec.ID, err = model.NewUUID(); err != nil {
		return rec, err
	}
	if in.Encrypted {
		if err := c.drawKey(&rec); err != nil {
			return rec, err
		}
	}
	return c.addPool(ctx, rec)
}

// addPool stores a vPool, attaches it and marks it present; on failure it is
// taken back, so that a refusal changes nothing (C1).
func (c *Controller) addPool(ctx context.Context, rec model.VPool) (model.VPool, error) {
	object := vpoolObject(rec.Name)
	if rec.Backend.Store != "" {
		if err := c.remoteLock.acquire(ctx); err != nil {
			return rec, explain(object, err)
		}
		defer c.remoteLock.release()
	}
	rec, err := c.model.CreateVPool(ctx, rec)
	if err != nil {
		return rec, explain(object, err)
	}
	p := c.pool(rec.ID)
	if err := p.lock.acquire(ctx); err != nil {
		return rec, explain(object, err)
	}
	defer p.lock.release()
	if err := c.attach(ctx, p, rec); err != nil {
		c.forgetPool(rec.ID)
		if derr := c.model.DeleteVPool(context.WithoutCancel(ctx), rec.ID); derr != nil {
			c.log.Error("record of a vPool that was refused stays", "vpool", rec.Name, "err", derr)
		}
		return rec, explain(object, err)
	}
	if rec, err = c.model.UpdateVPool(ctx, rec.ID, setPresent); err != nil {
		c.schedule(ref{"vpool", rec.ID}, 0)
		return rec, explain(object, err)
	}
	c.log.Info("vPool created", "vpool", rec.Name, "id", rec.ID)
	c.tell(event.VPoolCreated, object, "kind", string(rec.Backend.Kind))
	c.opt.Changed("vpool", rec.ID)
	return rec, nil
}

// overlap tells whether two backends share a place.
func overlap(a, b model.Backend) bool {
	if a.Kind != b.Kind || a.Store != b.Store {
		return false
	}
	in := func(path, dir string) bool {
		return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
	}
	return in(a.Path, b.Path) || in(b.Path, a.Path)
}

func overlapHint(v model.VPool) string {
	if v.State == model.StateDeleting {
		return "use another directory, or wait: that vPool is being deleted, ovgate status says what it waits for"
	}
	return "use another directory"
}

func setPresent(v *model.VPool) error {
	v.State, v.Adopt = model.StatePresent, false
	if v.Backend.Shared() {
		v.Node = ""
	}
	return nil
}

func (c *Controller) forgetPool(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pools, id)
}

// attach opens the backend and attaches the vPool to the engine; p.lock is held.
func (c *Controller) attach(ctx context.Context, p *pool, rec model.VPool) error {
	if p.p != nil {
		return nil
	}
	ep, store, err := c.openPool(ctx, rec)
	c.mu.Lock()
	was := p.err
	p.p, p.store, p.err = ep, store, err
	p.opens++
	c.mu.Unlock()
	if rec.State == model.StatePresent {
		switch {
		case err != nil && was == nil:
			c.tell(event.VPoolOffline, vpoolObject(rec.Name), "reason", err.Error())
		case err == nil && was != nil:
			c.tell(event.VPoolOnline, vpoolObject(rec.Name))
		}
	}
	if err == nil {
		c.lookAtMark(ctx, p, ep)
		c.purge(ctx, ep, rec)
		c.askUsage(ctx, p)
	}
	return err
}

func (c *Controller) openPool(ctx context.Context, rec model.VPool) (Pool, backend.Store, error) {
	place, err := c.place(rec)
	if err != nil {
		return nil, nil, err
	}
	store, err := c.opt.Backends.Open(ctx, place)
	if err != nil {
		if place.Backend.Store != "" {
			err = offRemote(place.Remote, err)
		}
		return nil, nil, err
	}
	if err = c.checkPlace(ctx, store, rec); err == nil {
		var ep Pool
		ep, err = c.opt.Engine.AttachPool(ctx, volume.PoolConfig{
			ClusterID: c.model.Cluster().ID, ID: rec.ID, Name: rec.Name, Store: store, Settings: engineSettings(rec.Settings), Adopt: rec.Adopt, DTLOf: c.dtlOf, HistoryOf: c.historyOf,
		})
		if err == nil {
			return ep, store, nil
		}
	}
	return nil, nil, errors.Join(err, store.Close())
}

// checkPlace makes sure that the backend of a vPool that exists has its root:
// an empty directory where a disk is not mounted must not become a new root.
func (c *Controller) checkPlace(ctx context.Context, store backend.Store, rec model.VPool) error {
	if rec.State != model.StatePresent {
		return nil
	}
	_, err := c.opt.Backends.ReadRoot(ctx, store)
	if errors.Is(err, backend.ErrNotExist) {
		return fmt.Errorf("%s holds no vPool; is its disk mounted? %w", rec.Backend.Path, volume.ErrBackend)
	}
	return err
}

// detach takes a vPool from the engine and closes its backend; p.lock is held.
func (c *Controller) detach(ctx context.Context, p *pool) error {
	if p.p == nil {
		return nil
	}
	if err := p.p.Detach(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	store := p.store
	p.p, p.store = nil, nil
	c.mu.Unlock()
	return store.Close()
}

// errOffline: a vPool does not run here now; it is tried again all the time.
var errOffline = errors.New("vPool is offline")

// attached returns the engine's vPool, or why there is none.
func (c *Controller) attached(id string) (Pool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.pools[id]
	if p == nil || p.p == nil {
		if p != nil && p.err != nil {
			return nil, fmt.Errorf("%w: %w: %w", errOffline, p.err, volume.ErrBackend)
		}
		return nil, fmt.Errorf("%w: %w", errOffline, volume.ErrBackend)
	}
	return p.p, nil
}

// visitPool is the reconciler's work on one vPool; true: visit it again.
func (c *Controller) visitPool(ctx context.Context, id string) bool {
	rec, ok := c.model.VPool(id)
	if !ok || !c.reaches(rec) {
		return c.letGoPool(ctx, id)
	}
	p := c.pool(id)
	if err := p.lock.acquire(ctx); err != nil {
		return true
	}
	defer p.lock.release()
	if rec, ok = c.model.VPool(id); !ok {
		return true
	}
	if rec.State == model.StateDeleting {
		if err := c.resumeDeletePool(ctx, p, rec); err != nil {
			c.log.Warn("delete of a vPool waits", "vpool", rec.Name, "err", err)
			return true
		}
		return false
	}
	if err := c.attach(ctx, p, rec); err != nil {
		c.log.Warn("vPool not attached", "vpool", rec.Name, "err", err)
		return true
	}
	if rec.State == model.StatePresent && rec.Node != "" && rec.Backend.Shared() {
		// Of a version in which an Alba was one node's: now that this one reached it as all do.
		if _, err := c.model.UpdateVPool(ctx, id, func(v *model.VPool) error { v.Node = ""; return nil }); err != nil {
			c.log.Warn("other nodes are not let reach a vPool yet", "vpool", rec.Name, "err", err)
			return true
		}
	}
	for _, v := range c.model.VDisks(func(v model.VDisk) bool { return v.VPool == id && c.mine(v) }) {
		if c.volume(v.ID) == nil {
			c.schedule(ref{"vdisk", v.ID}, 0) // it waited for its vPool
		}
	}
	if err := c.spreadSettings(rec); err != nil { // another node may have changed them
		c.log.Warn("settings of a vPool not taken over", "vpool", rec.Name, "err", err)
	}
	if rec.State == model.StateCreating {
		_, err := c.model.UpdateVPool(ctx, id, setPresent)
		return err != nil
	}
	return false
}

// letGoPool detaches a vPool that is deleted, or not of this node; true: visit it again.
func (c *Controller) letGoPool(ctx context.Context, id string) bool {
	c.mu.Lock()
	p := c.pools[id]
	c.mu.Unlock()
	if p == nil {
		return false
	}
	if err := p.lock.acquire(ctx); err != nil {
		return true
	}
	defer p.lock.release()
	if rec, ok := c.model.VPool(id); ok && c.reaches(rec) {
		return true
	}
	if err := c.detach(ctx, p); err != nil {
		c.log.Warn("vPool not detached", "vpool", id, "err", err)
		return true
	}
	c.forgetPool(id)
	return false
}

// UpdateVPool renames a vPool or changes its settings.
func (c *Controller) UpdateVPool(ctx context.Context, name string, newName *string, patch SettingsPatch) (model.VPool, error) {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return model.VPool{}, err
	}
	defer done()
	rec, err := c.FindVPool(name)
	if err != nil {
		return rec, err
	}
	object := vpoolObject(rec.Name)
	if newName != nil && *newName != rec.Name {
		if e := checkName("vpool", *newName); e != nil {
			return rec, e
		}
		if _, taken := c.model.FindVPool(*newName); taken {
			return rec, poolTaken(*newName)
		}
	}
	p := c.pool(rec.ID)
	if err := p.lock.acquire(ctx); err != nil {
		return rec, explain(object, err)
	}
	defer p.lock.release()
	out, err := c.model.UpdateVPool(ctx, rec.ID, func(v *model.VPool) error {
		if v.State == model.StateDeleting {
			return noVPool(name, "")
		}
		s, e := patch.apply(object, v.Settings)
		if e != nil {
			return e
		}
		v.Settings = s
		if newName != nil {
			v.Name = *newName
		}
		return nil
	})
	if err != nil {
		return rec, explain(object, err)
	}
	if out.Name != rec.Name {
		c.tell(event.VPoolRenamed, vpoolObject(out.Name), "before", rec.Name)
	}
	c.opt.Changed("vpool", rec.ID)
	return out, c.spreadSettings(out)
}

// spreadSettings gives a vPool's settings to the engine and to its open vDisks.
func (c *Controller) spreadSettings(rec model.VPool) error {
	var errs []error
	if ep, err := c.attached(rec.ID); err == nil {
		if err := ep.SetSettings(engineSettings(rec.Settings)); err != nil {
			errs = append(errs, explain(vpoolObject(rec.Name), err))
		}
	}
	for _, v := range c.model.VDisks(func(v model.VDisk) bool { return v.VPool == rec.ID }) {
		if vol := c.volume(v.ID); vol != nil {
			if err := vol.SetSettings(diskSettings(rec, v)); err != nil {
				errs = append(errs, explain(vdiskObject(v.Name), err))
			}
		}
	}
	return errors.Join(errs...)
}

// DeleteVPool deletes an empty vPool; an absent one is no error.
func (c *Controller) DeleteVPool(ctx context.Context, name string) error {
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	rec, err := c.FindVPool(name)
	if err != nil {
		return nil
	}
	if e := c.reached(rec, ""); e != nil {
		return e
	}
	object := vpoolObject(rec.Name)
	p := c.pool(rec.ID)
	if err := p.lock.acquire(ctx); err != nil {
		return explain(object, err)
	}
	defer p.lock.release()
	rec, err = c.model.UpdateVPool(ctx, rec.ID, func(v *model.VPool) error {
		if e := c.refuseDelete(*v); e != nil {
			return e
		}
		// One node alone removes the root: another one's may be there soon after.
		v.State, v.Node = model.StateDeleting, c.opt.Node
		return nil
	})
	if err != nil {
		return explain(object, err)
	}
	if err := c.resumeDeletePool(ctx, p, rec); err != nil {
		c.log.Warn("delete of a vPool waits and is tried again by itself", "vpool", rec.Name, "err", err)
		c.schedule(ref{"vpool", rec.ID}, retryMin)
	}
	c.opt.Changed("vpool", rec.ID)
	return nil
}

// refuseDelete tells what keeps a vPool: its vDisks, those too whose space is
// still to be given back.
func (c *Controller) refuseDelete(pool model.VPool) error {
	all := c.model.VDisks(func(d model.VDisk) bool { return d.VPool == pool.ID })
	present := slices.DeleteFunc(slices.Clone(all), func(d model.VDisk) bool { return d.State == model.StateDeleting })
	moves := c.model.VDisks(func(d model.VDisk) bool { return d.Left == pool.ID || d.Move != nil && d.Move.To == pool.ID })
	if len(moves) > 0 {
		d := moves[0]
		if d.Move != nil && d.Move.To == pool.ID {
			return &Error{Code: CodeInUse, Object: vpoolObject(pool.Name), Message: "vDisk " + d.Name + " is being moved to it", Hint: "wait for that, or stop it: ovgate vdisk move " + d.Name + " --cancel"}
		}
		return &Error{Code: CodeInUse, Object: vpoolObject(pool.Name), Message: "it has objects of vDisk " + d.Name + ", which was moved, or was to be", Hint: "they are deleted by themselves; try again"}
	}
	trashed := slices.DeleteFunc(slices.Clone(present), func(d model.VDisk) bool { return d.State != model.StateTrashed })
	e := &Error{Code: CodeInUse, Object: vpoolObject(pool.Name)}
	switch {
	case len(trashed) > 0 && len(trashed) == len(present):
		e.Message, e.Hint = fmt.Sprintf("it has %d deleted vDisks in the trash, %s among them", len(trashed), trashed[0].Name), "ovgate trash purge --all --vpool "+pool.Name+" gives their space back"
	case len(present) > 0:
		e.Message, e.Hint = fmt.Sprintf("it has %d vDisks, %s among them", len(present), present[0].Name), "delete its vDisks first"
	case len(all) > 0:
		e.Message, e.Hint = fmt.Sprintf("the space of %d deleted vDisks is not given back yet", len(all)), "try again when it is; the node goes on with it by itself"
		if s := c.DiskStatus(all[0]); s.Reason != "" {
			e.Message += ": " + s.Reason
		}
		if s := c.PoolStatus(pool.ID); !s.Attached || s.Err != "" {
			e.Hint = "bring the backend back, then try again"
		}
	default:
		return nil
	}
	return e
}

// resumeDeletePool works on a delete and keeps why it waits, for who asks; p.lock
// is held.
func (c *Controller) resumeDeletePool(ctx context.Context, p *pool, rec model.VPool) error {
	err := c.finishDeletePool(ctx, p, rec)
	c.mu.Lock()
	p.err = err
	c.mu.Unlock()
	return err
}

// finishDeletePool detaches a vPool, frees its backend for another one and
// forgets it; p.lock is held. A vPool that was never attached leaves no root.
func (c *Controller) finishDeletePool(ctx context.Context, p *pool, rec model.VPool) error {
	// A vDisk stored in the moment before "deleting" was, by whatever node, keeps the vPool (M4).
	if err := c.fresh(ctx); err != nil {
		return err
	}
	if n := len(c.model.VDisks(func(d model.VDisk) bool { return d.VPool == rec.ID })); n > 0 {
		return fmt.Errorf("%d vDisks are still being deleted", n)
	}
	if err := c.attach(ctx, p, rec); err != nil && !errors.Is(err, volume.ErrForeignRoot) {
		return err
	}
	if p.p != nil {
		// What is left of vDisks that were deleted before their clones.
		if err := p.p.Purge(ctx); err != nil {
			return err
		}
		if err := c.dropRoot(ctx, p); err != nil {
			return err
		}
	}
	if err := c.model.DeleteSchedule(ctx, model.ScheduleOfVPool(rec.ID)); err != nil {
		return err
	}
	if err := c.model.DeleteVPool(ctx, rec.ID); err != nil {
		return err
	}
	c.forgetPool(rec.ID)
	c.log.Info("vPool deleted", "vpool", rec.Name, "id", rec.ID)
	c.tell(event.VPoolDeleted, vpoolObject(rec.Name))
	return nil
}

// dropRoot detaches a vPool and removes its root object; p.lock is held. After
// a failure the vPool is detached or attached as a whole.
func (c *Controller) dropRoot(ctx context.Context, p *pool) error {
	if err := p.p.Detach(ctx); err != nil {
		return err
	}
	err := c.opt.Backends.RemoveRoot(ctx, p.store)
	c.mu.Lock()
	store := p.store
	p.p, p.store = nil, nil
	c.mu.Unlock()
	return errors.Join(err, store.Close())
}
