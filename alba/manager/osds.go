package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/kv"
)

// OSDState is what an Alba does with a device.
type OSDState string

// States.
const (
	// Claiming: the number is given, the device may not know yet.
	Claiming OSDState = "claiming"
	// InUse: it holds and takes fragments.
	InUse OSDState = "in-use"
	// Decommissioning: it takes none, and what it holds is made anew elsewhere.
	Decommissioning OSDState = "decommissioning"
	// Purging: it is gone; what it held is made anew from the others.
	Purging OSDState = "purging"
	// Left: no manifest names it any more.
	Left OSDState = "left"
)

// MaxOSDs bounds the devices of one Alba: views and spreads are computed from
// all of them.
const MaxOSDs = 4096

// OSD is a device of the Alba.
type OSD struct {
	Number uint32   `json:"number"` // unique for ever, from 1
	UUID   string   `json:"uuid"`   // identity stamped on the device
	State  OSDState `json:"state"`
	// Kind says how it is reached: "local" (a directory of the node) or "asd".
	Kind string `json:"kind"`
	// Node is the machine that it is in; Domain is what fails with that, such as a rack;
	// empty: not known. One of them is what x of a policy counts.
	Node   string `json:"node"`
	Domain string `json:"domain,omitempty"`
	// Address is HOST:PORT of an ASD; Directory that of a local device.
	Address     string `json:"address,omitempty"`
	Directory   string `json:"directory,omitempty"`
	Capacity    int64  `json:"capacity,omitempty"`    // bytes a local device may take; 0: all
	Fingerprint string `json:"fingerprint,omitempty"` // of the ASD's certificate
	// Access is the sealed access key of an ASD; the gateway opens it.
	Access  []byte    `json:"access,omitempty"`
	Claimed time.Time `json:"claimed"`
	// Replaces is the number of the device in whose place it came; 0: of none.
	Replaces uint32 `json:"replaces,omitempty"`
	// RebuildFrom is the time from which its fragments are made anew without
	// its coming back being waited for: auto-repair. Zero: not.
	RebuildFrom time.Time `json:"rebuildFrom,omitzero"`
}

// Takes tells whether new fragments may go to the device.
func (o OSD) Takes() bool { return o.State == InUse && o.RebuildFrom.IsZero() }

// Counts tells whether fragments on the device count for safety.
func (o OSD) Counts() bool { return o.Takes() || o.State == Decommissioning }

// Seen is what was last seen of a device; written every few seconds at most.
type Seen struct {
	Number  uint32 `json:"number"`
	Run     string `json:"run"`
	Applies uint64 `json:"applies"`
	Total   int64  `json:"total"`
	Used    int64  `json:"used"`
	Free    int64  `json:"free"`
	Full    bool   `json:"full"`
	// Good is when it last answered a read and a write; At when it was asked.
	Good  time.Time `json:"good"`
	At    time.Time `json:"at"`
	Error string    `json:"error,omitempty"`
	// Collected is the epoch per namespace up to which its tags were gone
	// through, see maintenance.
	Collected map[uint64]uint64 `json:"collected,omitempty"`
	// Reconcile tells that its fragments are to be compared with the manifests:
	// it came back from a restart, or as an older copy.
	Reconcile string `json:"reconcile,omitempty"`
	// Suspect tells that it is known to lack some, so that until then none counts:
	// an older copy, or one that was given up meanwhile.
	Suspect bool `json:"suspect,omitempty"`
}

func osdKey(n uint32) string       { return fmt.Sprintf("alba/o/%08x", n) }
func seenKey(n uint32) string      { return fmt.Sprintf("alba/s/%08x", n) }
func uuidKey(uuid string) string   { return "alba/u/" + uuid }
func (o OSD) wrap(err error) error { return fmt.Errorf("device %d (%s): %w", o.Number, o.UUID, err) }

// OSDs returns all devices, in the order of their numbers, without those that left.
func (m *Manager) OSDs(ctx context.Context) ([]OSD, error) {
	recs, err := all[OSD](ctx, m.kv, "alba/o/")
	out := recs[:0]
	for _, o := range recs {
		if o.State != Left {
			out = append(out, o)
		}
	}
	return out, err
}

// OSD returns a device by its number.
func (m *Manager) OSD(ctx context.Context, number uint32) (OSD, error) {
	o, rev, err := load[OSD](ctx, m.kv, osdKey(number))
	if err == nil && rev == 0 {
		err = fmt.Errorf("device %d: %w", number, ErrNotFound)
	}
	return o, err
}

// Claim makes a device part of the Alba (G1). want says where it is: Kind, Node,
// Address or Directory, access. Claiming again the device that is being claimed
// completes it; one in use is ErrExists, one of another Alba ErrForeign. A device
// that belongs to this Alba, which has no record of it, is taken back under its
// number: the manager was set up anew.
func (m *Manager) Claim(ctx context.Context, dev osd.OSD, want OSD) (OSD, error) {
	info, err := dev.Info(ctx)
	if err != nil {
		return OSD{}, err
	}
	inst, err := m.instance(ctx, dev)
	if err != nil {
		return OSD{}, err
	}
	if inst != nil && inst.Cluster != m.cluster {
		return OSD{}, fmt.Errorf("device %s: %w %s: purge it there and format it anew to use it here", info.ID, ErrForeign, inst.Cluster)
	}
	var known uint32
	if inst != nil {
		known = inst.OSD
		if err := m.reserveFound(ctx, dev); err != nil {
			return OSD{}, err
		}
	}
	o, err := m.reserve(ctx, info.ID, known, want)
	if err != nil {
		return OSD{}, err
	}
	if inst == nil {
		if err := m.stamp(ctx, dev, o); err != nil {
			return OSD{}, o.wrap(fmt.Errorf("claim: %w", err))
		}
	}
	now := m.o.Clock.Now()
	seen := Seen{Number: o.Number, Run: info.Run, Applies: info.Applies, Total: info.Total, Used: info.Used, Free: info.Free, Full: info.Full, Good: now, At: now}
	return m.claimed(ctx, o.Number, seen)
}

// reserveFound keeps the numbers of namespaces that a device knows from being given
// out by a manager that does not know them (G4).
func (m *Manager) reserveFound(ctx context.Context, dev osd.OSD) error {
	for after := []byte(nil); ; {
		page, err := dev.List(ctx, layout.NamespacesPrefix(), after, 0, osd.High)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1].Key // of the page the largest
		id, err := layout.ParseNamespaceKey(after)
		if err != nil {
			return err
		}
		if err := m.Reserve(ctx, id); err != nil {
			return err
		}
	}
}

// stamp writes the claim on a device that had none. One that has it already, from
// somebody who claims it at the same time, is as good.
func (m *Manager) stamp(ctx context.Context, dev osd.OSD, o OSD) error {
	want := layout.Instance{Cluster: m.cluster, OSD: o.Number}
	b, err := want.Encode()
	if err != nil {
		return err
	}
	err = dev.Apply(ctx, []osd.Assert{{Key: layout.InstanceKey()}}, []osd.Update{osd.Set(layout.InstanceKey(), b)}, osd.High)
	if !errors.Is(err, osd.ErrAssert) {
		return err
	}
	inst, err := m.instance(ctx, dev)
	switch {
	case err != nil:
		return err
	case inst == nil:
		return errors.New("its claim came and went: try again")
	case *inst != want:
		return fmt.Errorf("%w %s, which claimed it at the same time", ErrForeign, inst.Cluster)
	}
	return nil
}

// claimed ends a claim. What became of the device since, by somebody who claimed it
// at the same time, stays.
func (m *Manager) claimed(ctx context.Context, number uint32, seen Seen) (OSD, error) {
	for {
		o, rev, err := load[OSD](ctx, m.kv, osdKey(number))
		if err != nil {
			return o, err
		}
		if o.State == InUse {
			return o, nil
		}
		if rev == 0 || o.State != Claiming {
			return o, o.wrap(fmt.Errorf("%w: it became %s while it was claimed", ErrState, o.State))
		}
		o.State = InUse
		res, err := m.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(osdKey(number), rev)}, []kv.Op{save(osdKey(number), o), save(seenKey(number), seen)}, nil)
		if err != nil || res.Succeeded {
			return o, err
		}
	}
}

// instance reads the claim on a device; nil when there is none.
func (m *Manager) instance(ctx context.Context, dev osd.OSD) (*layout.Instance, error) {
	v, err := dev.Get(ctx, [][]byte{layout.InstanceKey()}, osd.MaxAssertBytes, osd.High)
	if err != nil || v[0].Data == nil {
		return nil, err
	}
	inst, err := layout.DecodeInstance(v[0].Data)
	return &inst, err
}

// reserve gives a device its number, or returns the record that is being claimed.
// known is the number that the device says it has, 0 if it says none: there is no
// other for it.
func (m *Manager) reserve(ctx context.Context, uuid string, known uint32, want OSD) (OSD, error) {
	want.UUID, want.State, want.Claimed = uuid, Claiming, m.o.Clock.Now()
	for {
		o, err := m.claiming(ctx, uuid, known)
		if err != nil || o.Number != 0 {
			return o, err
		}
		build := func(n uint64) ([]kv.Compare, []kv.Op, error) {
			if n > MaxOSDs {
				return nil, nil, fmt.Errorf("%w: this Alba has given %d device numbers, the most there are", ErrInvalid, MaxOSDs)
			}
			if o, err := m.claiming(ctx, uuid, known); err != nil || o.Number != 0 {
				return nil, nil, errors.Join(err, errTaken)
			}
			want.Number = uint32(n)
			return []kv.Compare{kv.Absent(uuidKey(uuid)), kv.Absent(osdKey(want.Number))},
				[]kv.Op{save(osdKey(want.Number), want), save(uuidKey(uuid), want.Number)}, nil
		}
		err = m.number(ctx, osdCounter, uint64(known), build)
		if err == nil {
			return want, nil
		}
		// An unknown outcome, or somebody else's claim: it is there now, or not.
		if o, again := m.claiming(ctx, uuid, known); again != nil || o.Number == 0 {
			return OSD{}, errors.Join(again, err)
		}
	}
}

// claiming returns the record of a device that is being claimed; the zero one when
// there is none.
func (m *Manager) claiming(ctx context.Context, uuid string, known uint32) (OSD, error) {
	number, rev, err := load[uint32](ctx, m.kv, uuidKey(uuid))
	if err != nil {
		return OSD{}, err
	}
	if rev != 0 {
		o, err := m.OSD(ctx, number)
		switch {
		case err != nil:
			return o, err
		case o.State != Claiming:
			return o, o.wrap(fmt.Errorf("%w: it is %s already", ErrExists, o.State))
		case known != 0 && known != number:
			return o, o.wrap(fmt.Errorf("%w: it says that it is device %d of this cluster: format it anew", ErrInvalid, known))
		}
		return o, nil
	}
	if known == 0 {
		return OSD{}, nil
	}
	switch o, err := m.OSD(ctx, known); {
	case errors.Is(err, ErrNotFound):
		return OSD{}, nil
	case err != nil:
		return OSD{}, err
	default:
		return OSD{}, fmt.Errorf("device %s: %w: it says it is device %d of this cluster, which is %s and %s: format it anew", uuid, ErrInvalid, known, o.UUID, o.State)
	}
}

// Update changes where a device is reached.
func (m *Manager) Update(ctx context.Context, number uint32, change func(o *OSD) error) (OSD, error) {
	o, err := modify(ctx, m.kv, osdKey(number), func(o *OSD) error {
		was := *o
		if err := change(o); err != nil {
			return err
		}
		o.Number, o.UUID, o.State, o.RebuildFrom = was.Number, was.UUID, was.State, was.RebuildFrom
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("device %d: %w", number, err)
	}
	return o, err
}

// setState moves a device to a state from which others are named, and tells the
// hosts (G3).
func (m *Manager) setState(ctx context.Context, number uint32, change func(o *OSD) error) (OSD, error) {
	o, err := modify(ctx, m.kv, osdKey(number), change)
	if errors.Is(err, ErrNotFound) {
		return o, fmt.Errorf("device %d: %w", number, err)
	}
	if err != nil {
		return o, err
	}
	return o, m.CloseDevices(ctx)
}

// CloseDevices makes sure that every host knows which devices take no fragments. What
// changes a device does this; who relies on it (T2 of maintenance) repeats it, since
// that may have been interrupted.
func (m *Manager) CloseDevices(ctx context.Context) error {
	hosts, err := m.Hosts(ctx)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		host, err := m.Host(h.Name)
		if err != nil {
			return err
		}
		if err := host.CloseDevices(ctx, m.closedDevices); err != nil {
			return fmt.Errorf("NSM host %s: %w", h.Name, err)
		}
	}
	return nil
}

// closedDevices returns the devices that take no fragments, in the order of numbers.
func (m *Manager) closedDevices(ctx context.Context) ([]uint32, error) {
	recs, err := all[OSD](ctx, m.kv, "alba/o/")
	if err != nil {
		return nil, err
	}
	closed := []uint32{}
	for _, o := range recs {
		if !o.Takes() && o.State != Claiming {
			closed = append(closed, o.Number)
		}
	}
	return closed, nil
}

// Decommission begins to empty a device that works. It leaves when nothing names
// it any more (see Leave).
func (m *Manager) Decommission(ctx context.Context, number uint32) (OSD, error) {
	return m.setState(ctx, number, func(o *OSD) error {
		if o.State != InUse && o.State != Decommissioning {
			return o.wrap(fmt.Errorf("%w: it is %s; only a device in use is decommissioned", ErrState, o.State))
		}
		o.State = Decommissioning
		return nil
	})
}

// Purge gives a device up that does not come back, or whose claim did not end. The caller has looked at the
// safety of what it held; accepted says that losses are accepted.
func (m *Manager) Purge(ctx context.Context, number uint32, lost int, accepted bool) (OSD, error) {
	return m.setState(ctx, number, func(o *OSD) error {
		if o.State == Left {
			return o.wrap(fmt.Errorf("%w: it is %s", ErrState, o.State))
		}
		if lost > 0 && !accepted {
			return o.wrap(fmt.Errorf("%w: %d objects cannot be read without it: bring it back, or accept the loss", ErrUnsafe, lost))
		}
		o.State = Purging
		return nil
	})
}

// Rebuild records that a device has been silent for too long, so that what it
// holds is made anew without waiting for it. Restored takes that back.
func (m *Manager) Rebuild(ctx context.Context, number uint32) error {
	_, err := m.setState(ctx, number, func(o *OSD) error {
		if o.RebuildFrom.IsZero() {
			o.RebuildFrom = m.o.Clock.Now()
		}
		return nil
	})
	return err
}

// Restored records that a silent device answers again.
func (m *Manager) Restored(ctx context.Context, number uint32) error {
	_, err := m.setState(ctx, number, func(o *OSD) error { o.RebuildFrom = time.Time{}; return nil })
	return err
}

// Leave ends a device that no manifest names any more (G2).
func (m *Manager) Leave(ctx context.Context, number uint32) error {
	for {
		o, rev, err := load[OSD](ctx, m.kv, osdKey(number))
		if err != nil || rev == 0 || o.State == Left {
			return err
		}
		if o.State != Decommissioning && o.State != Purging {
			return o.wrap(fmt.Errorf("%w: it is %s", ErrState, o.State))
		}
		o.State = Left
		res, err := m.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(osdKey(number), rev)},
			[]kv.Op{save(osdKey(number), o), kv.Delete(uuidKey(o.UUID)), kv.Delete(seenKey(number))}, nil)
		if err != nil || res.Succeeded {
			return err
		}
	}
}

// SeenAll returns what was last seen of the devices, by number.
func (m *Manager) SeenAll(ctx context.Context) (map[uint32]Seen, error) {
	recs, err := all[Seen](ctx, m.kv, "alba/s/")
	out := make(map[uint32]Seen, len(recs))
	for _, s := range recs {
		out[s.Number] = s
	}
	return out, err
}

// SetSeen records what was seen of a device.
func (m *Manager) SetSeen(ctx context.Context, number uint32, change func(s *Seen)) (Seen, error) {
	for {
		s, rev, err := load[Seen](ctx, m.kv, seenKey(number))
		if err != nil {
			return s, err
		}
		s.Number = number
		change(&s)
		res, err := m.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(seenKey(number), rev)}, []kv.Op{save(seenKey(number), s)}, nil)
		if err != nil || res.Succeeded {
			return s, err
		}
	}
}

// HostRecord is an NSM host.
type HostRecord struct {
	Name       string `json:"name"`
	Namespaces int    `json:"namespaces"` // hosted now
	Capacity   int    `json:"capacity"`   // at most
}

// DefaultHostCapacity bounds the namespaces of a host: one per vDisk, and what a
// node serves is 10,000 vDisks.
const DefaultHostCapacity = 20000

func hostKey(name string) string { return "alba/h/" + name }

// Hosts returns the NSM hosts.
func (m *Manager) Hosts(ctx context.Context) ([]HostRecord, error) {
	return all[HostRecord](ctx, m.kv, "alba/h/")
}

// AddHost registers an NSM host; the one that is there stays, with this capacity.
func (m *Manager) AddHost(ctx context.Context, name string, capacity int) error {
	if capacity <= 0 {
		capacity = DefaultHostCapacity
	}
	for {
		h, rev, err := load[HostRecord](ctx, m.kv, hostKey(name))
		if err != nil {
			return err
		}
		if rev != 0 && h.Capacity == capacity {
			break
		}
		h.Name, h.Capacity = name, capacity
		res, err := m.kv.Txn(ctx, []kv.Compare{kv.ModRevIs(hostKey(name), rev)}, []kv.Op{save(hostKey(name), h)}, nil)
		if err != nil {
			return err
		}
		if res.Succeeded {
			break
		}
	}
	return m.CloseDevices(ctx)
}
