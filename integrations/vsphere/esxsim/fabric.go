package esxsim

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// fabric is what the hosts share.
type fabric struct {
	reg    *simulator.Registry
	sim    *simulator.Context
	dir    string // files of virtual machines
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	logins atomic.Int64

	reach     func(host, portal string) bool
	between   func(*Exchange)
	heartbeat time.Duration

	mu         sync.Mutex // hosts' fields, datastores
	hosts      map[types.ManagedObjectReference]*Host
	datastores map[string]types.ManagedObjectReference // by volume UUID

	hmu       sync.Mutex // what follows
	replaced  map[types.ManagedObjectReference]mo.Reference
	sessions  map[*simulator.Registry]bool
	down      map[types.ManagedObjectReference]types.ManagedObjectReference // an object of a host that is down -> host
	before    func(Call) types.BaseMethodFault
	lacking   []string         // privileges that users do not have
	held      map[string]*Held // that wait for a snapshot, by virtual machine
	helds     int              // ever
	lates     int              // ever
	answering func(Call)
	cookies   map[string]bool                                               // of clients' sessions; false: expired
	waits     map[types.ManagedObjectReference]*simulator.PropertyCollector // that a client waits at
}

// Call is a method that a client calls.
type Call struct {
	Method string
	Object types.ManagedObjectReference
	Host   string // whose storage or datastore system it is; empty: something else
	Body   any    // the request, such as *types.RescanAllHba
}

// install replaces the storage and datastore systems of all hosts.
func install(m *simulator.Model, dir string, o Options) *fabric {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fabric{
		reg: m.Map(), sim: m.Service.Context, dir: dir, log: o.Log, ctx: ctx, cancel: cancel,
		reach: o.Reach, between: o.Between, heartbeat: o.Heartbeat,
		hosts: map[types.ManagedObjectReference]*Host{}, datastores: map[string]types.ManagedObjectReference{},
		replaced: map[types.ManagedObjectReference]mo.Reference{}, sessions: map[*simulator.Registry]bool{},
		down: map[types.ManagedObjectReference]types.ManagedObjectReference{}, cookies: map[string]bool{}, held: map[string]*Held{},
		waits: map[types.ManagedObjectReference]*simulator.PropertyCollector{},
	}
	for _, e := range f.reg.All("HostSystem") {
		sys := e.(*simulator.HostSystem)
		h := &Host{
			IQN: "iqn.1998-01.com.vmware:" + strings.ToLower(strings.ReplaceAll(sys.Name, "_", "-")) + "-" + sys.Self.Value, f: f, sys: sys,
			hss:   f.reg.Get(*sys.ConfigManager.StorageSystem).(*simulator.HostStorageSystem),
			dss:   f.reg.Get(*sys.ConfigManager.DatastoreSystem).(*simulator.HostDatastoreSystem),
			links: map[place]*link{}, luns: map[string]*lun{}, numbers: map[place]int{}, detached: map[string]bool{},
			unmounted: map[string]bool{}, mounted: map[string]string{}, policy: map[string]string{},
		}
		h.base = *h.hss.StorageDeviceInfo // all hosts of the simulator share one
		h.hss.StorageDeviceInfo = h.deviceInfo()
		f.hosts[sys.Self] = h
		f.reg.Put(&storageSystem{HostStorageSystem: h.hss, h: h})
		f.reg.Put(&datastoreSystem{HostDatastoreSystem: h.dss, h: h})
	}
	if am, ok := f.reg.Get(*m.ServiceContent.AuthorizationManager).(*simulator.AuthorizationManager); ok {
		f.reg.Put(&authorization{am, f})
	}
	f.reg.Cookie = f.cookie
	next := f.reg.Handler
	f.reg.Handler = func(ctx *simulator.Context, m *simulator.Method) (mo.Reference, types.BaseMethodFault) {
		if fault := f.ask(m); fault != nil {
			return nil, fault
		}
		if fault := f.checkRaw(m); fault != nil {
			return nil, fault
		}
		f.noteWait(ctx, m)
		f.hold(m)
		f.late(ctx, m)
		if o := f.handler(ctx, m.This); o != nil {
			return o, nil
		}
		if next != nil {
			return next(ctx, m)
		}
		return nil, nil
	}
	return f
}

// ask has the test's hook look at a call, and refuses those to hosts that are down.
func (f *fabric) ask(m *simulator.Method) types.BaseMethodFault {
	f.hmu.Lock()
	before, host, down := f.before, "", false
	for _, h := range f.hosts {
		if m.This == h.hss.Self || m.This == h.dss.Self {
			host = h.sys.Name
		}
	}
	_, down = f.down[m.This]
	f.hmu.Unlock()
	if before != nil {
		if fault := before(Call{Method: m.Name, Object: m.This, Host: host, Body: m.Body}); fault != nil {
			return fault
		}
	}
	if down {
		return &types.HostNotConnected{}
	}
	return nil
}

// noteWait remembers who is asked for changes.
func (f *fabric) noteWait(ctx *simulator.Context, m *simulator.Method) {
	f.hmu.Lock()
	defer f.hmu.Unlock()
	switch m.Name {
	case "WaitForUpdatesEx":
		if ctx.Session == nil {
			return
		}
		if pc, ok := ctx.Session.Get(m.This).(*simulator.PropertyCollector); ok {
			f.waits[m.This] = pc
		}
	case "DestroyPropertyCollector":
		delete(f.waits, m.This)
	}
}

// endWaits answers those who wait for changes, as their sessions end.
func (f *fabric) endWaits() {
	f.hmu.Lock()
	defer f.hmu.Unlock()
	for ref, pc := range f.waits {
		pc.CancelWaitForUpdates(&types.CancelWaitForUpdates{This: ref})
		delete(f.waits, ref)
	}
}

// cookie names the session of a request; one that expired is none.
func (f *fabric) cookie(ctx *simulator.Context) string {
	name := simulator.HTTPCookie(ctx)
	f.hmu.Lock()
	defer f.hmu.Unlock()
	if good, seen := f.cookies[name]; seen && !good {
		return ""
	}
	f.cookies[name] = true
	return name
}

// handler returns what stands for an object that the simulator itself needs by its type.
// A client's session prefers what its own registry has.
func (f *fabric) handler(ctx *simulator.Context, ref types.ManagedObjectReference) mo.Reference {
	f.hmu.Lock()
	defer f.hmu.Unlock()
	o := f.replaced[ref]
	if o == nil || ctx.Session == nil || ctx.Session.Registry == nil {
		return o
	}
	if r := ctx.Session.Registry; r.Get(ref) != o {
		r.Put(o)
		f.sessions[r] = true
	}
	return o
}

func (f *fabric) instead(ref types.ManagedObjectReference, o mo.Reference) {
	f.hmu.Lock()
	defer f.hmu.Unlock()
	f.replaced[ref] = o
}

func (f *fabric) notInstead(ctx *simulator.Context, ref types.ManagedObjectReference) {
	f.hmu.Lock()
	defer f.hmu.Unlock()
	delete(f.replaced, ref)
	for r := range f.sessions {
		r.Remove(ctx, ref)
	}
}

// context returns one of its own for a piece of work: the simulator's locks are held by it.
func (f *fabric) context() *simulator.Context {
	ctx := *f.sim
	return &ctx
}

// close ends every session.
func (f *fabric) close() {
	f.cancel()
	f.wg.Wait()
}
