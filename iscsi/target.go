package iscsi

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// LUNSpec is a logical unit of a target.
type LUNSpec struct {
	Number uint16 // 0 to 16383
	Disk   Disk
	Serial string   // unit serial number, VPD 80h: 1 to 64 printable ASCII
	NAA    [16]byte // NAA type 6 designator, VPD 83h
	// BlockSize is the logical block size in bytes: 512 (or 0), or 4096 (4Kn), which
	// only some hosts take.
	BlockSize int
	Vendor    string // at most 8 printable ASCII; "" is OVGATE
	Product   string // at most 16; "" is "vDisk"
	Revision  string // at most 4; "" is "1"
	QoS       QoS    // limits of all sessions together; changing it is not a LUN change
	// Owner is the port groups of the node that serves the unit: they are active/optimized,
	// the others are active/non-optimized; none: the states of the target are the unit's.
	// Changing it is not a LUN change: ASYMMETRIC ACCESS STATE CHANGED is raised.
	Owner PortRange
	// Clustered units outlive a node: reservations end with none (R6).
	Clustered bool
}

// TargetSpec describes a target.
type TargetSpec struct {
	Name       string // iqn., eui. or naa. name (RFC 3722, RFC 7143 section 4.2.7)
	Alias      string
	Portals    []Portal    // where it is reachable; none: wherever the server listens, group 1
	Groups     []Group     // who gets in; none: nobody
	LUNs       []LUNSpec   // what there is; a group may show less
	Redirect   *Redirect   // logins are sent elsewhere; nil: they are taken
	PortGroups []PortGroup // access states; groups that are not named are active/optimized
}

// Redirect sends logins to other addresses (RFC 7143 section 11.13.5, status
// 0101 or 0102): each to the one whose beginning is most like that of the address
// where it came in. A login that came in at one of them is taken, so that every node
// of a target can be given the same spec.
type Redirect struct {
	Addresses []string // "host:port", as Portal.Address; one at least
	Permanent bool     // initiators may remember it
}

// LUNInfo describes a published logical unit.
type LUNInfo struct {
	Number      uint16
	Size        int64 // bytes
	Serial, NAA string
	ReservedBy  string           // initiator that holds a RESERVE(6/10), or ""
	Reservation *ReservationInfo // persistent reservations; nil: nobody is registered
	QoS         QoS
	Stats       LUNStats // since the unit was published here
}

// TargetInfo describes a published target, without secrets.
type TargetInfo struct {
	Name, Alias string
	Portals     []Portal
	Groups      []GroupInfo
	LUNs        []LUNInfo
	Redirect    *Redirect
	PortGroups  []PortGroup // every port group of the target, by tag
	Sessions    int
}

const (
	maxLUN   = 16383 // flat space addressing, 14 bits
	maxLUNs  = 1024  // what hypervisors can use; bounds REPORT LUNS
	maxAlias = 255   // RFC 7143 section 13.6
)

func (spec *TargetSpec) validate() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("iscsi: target %q: "+format, append([]any{spec.Name}, a...)...)
	}
	if err := CheckName(spec.Name); err != nil {
		return err
	}
	if len(spec.Alias) > maxAlias || !validText(spec.Alias) {
		return bad("alias must be printable and at most %d bytes", maxAlias)
	}
	if len(spec.LUNs) > maxLUNs {
		return bad("%d LUNs, at most %d", len(spec.LUNs), maxLUNs)
	}
	seen := map[uint16]bool{}
	for i := range spec.LUNs {
		l := &spec.LUNs[i]
		if seen[l.Number] {
			return bad("LUN %d is given twice", l.Number)
		}
		seen[l.Number] = true
		if err := l.validate(); err != nil {
			return bad("LUN %d: %w", l.Number, err)
		}
	}
	if err := validatePortals(spec.Portals); err != nil {
		return bad("%w", err)
	}
	if err := validateGroups(spec.Groups, seen); err != nil {
		return bad("%w", err)
	}
	if err := validatePortGroups(spec.PortGroups); err != nil {
		return bad("%w", err)
	}
	if r := spec.Redirect; r != nil {
		if len(r.Addresses) == 0 {
			return bad("redirect: it names no address")
		}
		for _, a := range r.Addresses {
			if err := checkAddress(a); err != nil {
				return bad("redirect: %w", err)
			}
		}
	}
	return nil
}

func (l *LUNSpec) validate() error {
	switch {
	case l.Number > maxLUN:
		return fmt.Errorf("number must be 0 to %d", maxLUN)
	case l.Disk == nil:
		return fmt.Errorf("no disk")
	case l.Serial == "" || len(l.Serial) > 64 || !validText(l.Serial):
		return fmt.Errorf("serial must have 1 to 64 printable characters")
	case l.NAA[0]>>4 != 6:
		return fmt.Errorf("NAA designator must be of type 6")
	case len(l.Vendor) > 8 || len(l.Product) > 16 || len(l.Revision) > 4 ||
		!validText(l.Vendor) || !validText(l.Product) || !validText(l.Revision):
		return fmt.Errorf("vendor, product and revision have at most 8, 16 and 4 printable characters")
	}
	if err := l.QoS.validate(); err != nil {
		return err
	}
	block := l.BlockSize
	if block == 0 {
		block = 1 << minBlockShift
	}
	if blockShift(block) == 0 {
		return fmt.Errorf("block size %d: must be 512 or 4096", block)
	}
	g := l.Disk.Geometry()
	if g.Size <= 0 || g.ClusterSize < block || g.ClusterSize%block != 0 || g.Size%int64(block) != 0 {
		return fmt.Errorf("disk of %d bytes in clusters of %d is not made of %d-byte blocks", g.Size, g.ClusterSize, block)
	}
	return nil
}

// target is a published target. What hangs on the pointers is replaced, never
// modified; replacing happens under Server.mu.
type target struct {
	srv    *Server
	name   string
	scsi   *scsiTarget
	spec   atomic.Pointer[TargetSpec] // copied and normalized, without LUNs
	luns   atomic.Pointer[map[uint16]*lun]
	access atomic.Pointer[access]

	sessions map[*session]struct{} // Server.mu
}

// lun is a logical unit: what it is, and the state initiators gave it. QoS and Owner
// of its LUNSpec are zero; gate and owner have those in force.
type lun struct {
	LUNSpec
	scsi   *scsiLU
	shift  uint8      // logarithm of BlockSize
	modes  modeValues // what MODE SELECT changed
	copies copyGate   // EXTENDED COPY that works on it
	res    *reservations
	gate   gate
	remote *RemoteDisk               // another node serves it; nil: this one does
	owner  atomic.Pointer[PortRange] // LUNSpec.Owner in force
	away   atomic.Bool               // another node serves it, which this one does not reach

	mu      sync.Mutex
	removed bool
	nexuses map[*nexus]struct{}
	past    LUNStats // of nexuses that are over
}

func newTarget(s *Server, spec TargetSpec) (*target, error) {
	t := &target{srv: s, name: spec.Name, sessions: map[*session]struct{}{}}
	st, err := s.svc.addTarget(spec.Name)
	if err != nil {
		return nil, err
	}
	t.scsi = st
	t.luns.Store(&map[uint16]*lun{})
	if err := t.update(spec); err != nil {
		s.svc.removeTarget(st)
		return nil, err
	}
	return t, nil
}

// update installs spec. Sessions keep the view they have: the caller gives them
// theirs. Server.mu is held.
func (t *target) update(spec TargetSpec) error {
	luns, err := t.makeUnits(spec.LUNs)
	if err != nil {
		return err
	}
	for _, ls := range spec.LUNs {
		luns[ls.Number].gate.limit(ls.QoS, t.srv.clk.Now())
		luns[ls.Number].owner.Store(&ls.Owner)
	}
	units := make(map[uint16]*scsiLU, len(luns))
	for n, l := range luns {
		units[n] = l.scsi
	}
	spec.Portals = slices.Clone(spec.Portals)
	spec.PortGroups = slices.Clone(spec.PortGroups)
	spec.Groups = cloneGroups(spec.Groups)
	if spec.Redirect != nil {
		r := *spec.Redirect
		spec.Redirect = &r
	}
	spec.LUNs = nil
	t.scsi.setUnits(units)
	old := *t.luns.Swap(&luns)
	t.access.Store(newAccess(spec.Groups, luns))
	t.spec.Store(&spec)
	for n, l := range old {
		if luns[n] != l {
			l.remove(t.srv.clk.Now())
		}
	}
	return nil
}

// makeUnits returns the logical units of specs; one whose number, disk and
// identity did not change is the same as before.
func (t *target) makeUnits(specs []LUNSpec) (map[uint16]*lun, error) {
	old := *t.luns.Load()
	luns := make(map[uint16]*lun, len(specs))
	for _, ls := range specs {
		if ls.Vendor == "" {
			ls.Vendor = "OVGATE"
		}
		if ls.Product == "" {
			ls.Product = "vDisk"
		}
		if ls.BlockSize == 0 {
			ls.BlockSize = 1 << minBlockShift
		}
		if ls.Revision == "" {
			ls.Revision = "1"
		}
		ls.QoS, ls.Owner = QoS{}, PortRange{} // see lun
		l := old[ls.Number]
		if l == nil || l.LUNSpec != ls {
			su, err := t.srv.svc.newLU(ls)
			if err != nil {
				return nil, fmt.Errorf("iscsi: target %s LUN %d: %w", t.name, ls.Number, err)
			}
			res, err := keptReservations(old, specs, ls)
			if err != nil {
				return nil, fmt.Errorf("iscsi: target %s LUN %d: %w", t.name, ls.Number, err)
			}
			l = &lun{LUNSpec: ls, scsi: su, res: res, shift: blockShift(ls.BlockSize)}
			l.gate.lu = l
			l.remote, _ = ls.Disk.(*RemoteDisk)
		}
		luns[ls.Number] = l
	}
	return luns, nil
}

// moved tells whether o is the same logical unit, served by another node.
func (l *lun) moved(o *lun) bool {
	return (l.remote != nil || o.remote != nil) && l.NAA == o.NAA && l.Serial == o.Serial && l.BlockSize == o.BlockSize
}

// owners are the port groups of the nodes that serve the units.
func (t *target) owners() map[uint16]PortRange {
	out := map[uint16]PortRange{}
	for n, l := range *t.luns.Load() {
		out[n] = *l.owner.Load()
	}
	return out
}

// lun returns a logical unit by its number in the target. Sessions see numbers
// of their own: session.lun.
func (t *target) lun(n uint16) *lun { return (*t.luns.Load())[n] }

// numbers returns the LUNs of the target in ascending order.
func (t *target) numbers() []uint16 { return slices.Sorted(maps.Keys(*t.luns.Load())) }

func (t *target) info() TargetInfo {
	spec := t.spec.Load()
	i := TargetInfo{
		Name: t.name, Alias: spec.Alias, Portals: slices.Clone(spec.Portals), PortGroups: t.portGroups(),
	}
	if spec.Redirect != nil {
		r := *spec.Redirect
		i.Redirect = &r
	}
	for k := range spec.Groups {
		i.Groups = append(i.Groups, spec.Groups[k].info())
	}
	for _, n := range t.numbers() {
		l := t.lun(n)
		li := LUNInfo{Number: n, Size: l.Disk.Geometry().Size, Serial: l.Serial, NAA: fmt.Sprintf("%x", l.NAA[:]), QoS: l.gate.limits(), Stats: l.stats()}
		li.ReservedBy, li.Reservation = l.res.reservedBy(), l.res.info()
		i.LUNs = append(i.LUNs, li)
	}
	return i
}

// liftRates lets everything go on that waits for a rate: the target ends.
func (t *target) liftRates() {
	for _, l := range *t.luns.Load() {
		l.gate.limit(QoS{}, t.srv.clk.Now())
	}
}

func sortTargets(l []*target) { sort.Slice(l, func(i, j int) bool { return l[i].name < l[j].name }) }
