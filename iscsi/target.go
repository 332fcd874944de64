package iscsi

import (
	"fmt"
	"net"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
)

// Portal is an address at which a target is reachable, as initiators see it.
type Portal struct {
	Address string // "host:port" as advertised; IPv6 hosts in brackets
	Group   uint16 // portal group tag, 1 to 65535
}

// Auth are the CHAP credentials of a target. MutualUser and MutualSecret, if
// set, are what the target proves to an initiator that asks. Secrets have 12 to
// 255 bytes (RFC 7143 section 12.1.3 asks for 96 bits at least).
type Auth struct {
	User, Secret             string
	MutualUser, MutualSecret string
}

// String hides the secrets.
func (a *Auth) String() string { return "chap:" + a.User }

// LUNSpec is a logical unit of a target.
type LUNSpec struct {
	Number   uint16 // 0 to 16383
	Disk     Disk
	Serial   string   // unit serial number, VPD 80h: 1 to 64 printable ASCII
	NAA      [16]byte // NAA type 6 designator, VPD 83h
	Vendor   string   // at most 8 printable ASCII; "" is OVGATE
	Product  string   // at most 16; "" is "vDisk"
	Revision string   // at most 4; "" is "1"
	QoS      QoS      // limits of all sessions together; changing it is not a LUN change
}

// TargetSpec describes a target.
type TargetSpec struct {
	Name    string // iqn., eui. or naa. name (RFC 3722, RFC 7143 section 4.2.7)
	Alias   string
	Portals []Portal
	Auth    *Auth // nil: no CHAP
	Open    bool  // any initiator may log in; else only those of ACL
	ACL     []string
	LUNs    []LUNSpec
}

// LUNInfo describes a published logical unit.
type LUNInfo struct {
	Number      uint16
	Size        int64 // bytes
	Serial, NAA string
	ReservedBy  string // initiator that holds a RESERVE(6/10), or ""
	QoS         QoS
	Stats       LUNStats // since the unit was published here
}

// TargetInfo describes a published target, without secrets.
type TargetInfo struct {
	Name, Alias  string
	Portals      []Portal
	CHAP, Mutual bool
	CHAPUser     string
	Open         bool
	ACL          []string
	LUNs         []LUNInfo
	Sessions     int
}

const (
	maxLUN       = 16383 // flat space addressing, 14 bits
	maxLUNs      = 1024  // what hypervisors can use; bounds REPORT LUNS
	maxPortals   = 64    // bounds a SendTargets answer
	maxACL       = 4096  // bounds the scan at login
	maxAlias     = 255   // RFC 7143 section 13.6
	minSecret    = 12
	maxSecret    = 255
	defaultGroup = 1
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
	if len(spec.Portals) > maxPortals {
		return bad("%d portals, at most %d", len(spec.Portals), maxPortals)
	}
	for _, p := range spec.Portals {
		h, port, err := net.SplitHostPort(p.Address)
		if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 1 || n > 65535 || h == "" || !validText(h) {
			return bad("portal %q is not host:port", p.Address)
		}
		if p.Group == 0 {
			return bad("portal %s: group must be 1 to 65535", p.Address)
		}
	}
	if err := spec.Auth.validate(); err != nil {
		return bad("%w", err)
	}
	if len(spec.ACL) > maxACL {
		return bad("%d initiators in the ACL, at most %d", len(spec.ACL), maxACL)
	}
	for _, n := range spec.ACL {
		if err := CheckName(n); err != nil {
			return bad("ACL: %w", err)
		}
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
	return nil
}

func (a *Auth) validate() error {
	if a == nil {
		return nil
	}
	if a.User == "" || len(a.User) > maxSecret || !validText(a.User) {
		return fmt.Errorf("CHAP user must have 1 to %d printable characters", maxSecret)
	}
	if len(a.Secret) < minSecret || len(a.Secret) > maxSecret {
		return fmt.Errorf("CHAP secret must have %d to %d bytes", minSecret, maxSecret)
	}
	if a.MutualUser == "" && a.MutualSecret == "" {
		return nil
	}
	if a.MutualUser == "" || len(a.MutualUser) > maxSecret || !validText(a.MutualUser) {
		return fmt.Errorf("mutual CHAP user must have 1 to %d printable characters", maxSecret)
	}
	if len(a.MutualSecret) < minSecret || len(a.MutualSecret) > maxSecret {
		return fmt.Errorf("mutual CHAP secret must have %d to %d bytes", minSecret, maxSecret)
	}
	if a.MutualSecret == a.Secret {
		return fmt.Errorf("the two CHAP secrets must differ (RFC 7143 section 9.2.1)")
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
	g := l.Disk.Geometry()
	if g.Size <= 0 || g.ClusterSize < blockSize || g.ClusterSize%blockSize != 0 || g.Size%blockSize != 0 {
		return fmt.Errorf("disk of %d bytes in clusters of %d is not made of %d-byte blocks", g.Size, g.ClusterSize, blockSize)
	}
	return nil
}

// target is a published target. spec and luns are replaced, never modified;
// replacing happens under Server.mu.
type target struct {
	srv  *Server
	name string
	scsi *scsiTarget
	spec atomic.Pointer[TargetSpec]
	luns atomic.Pointer[map[uint16]*lun]
}

// lun is a logical unit: what it is, and the state initiators gave it. The QoS
// of its LUNSpec is zero; limits has the one in force.
type lun struct {
	LUNSpec
	scsi     *scsiLU
	reserved atomic.Pointer[session] // RESERVE(6/10) holder
	qos      atomic.Pointer[QoS]

	mu      sync.Mutex
	removed bool
	nexuses map[*nexus]struct{}
	past    LUNStats // of nexuses that are over
}

func newTarget(s *Server, spec TargetSpec) (*target, error) {
	t := &target{srv: s, name: spec.Name}
	st, err := s.svc.addTarget(spec.Name)
	if err != nil {
		return nil, err
	}
	t.scsi = st
	t.luns.Store(&map[uint16]*lun{})
	if _, err := t.update(spec); err != nil {
		s.svc.removeTarget(st)
		return nil, err
	}
	return t, nil
}

// update installs spec and reports whether the LUN inventory changed. Server.mu is held.
func (t *target) update(spec TargetSpec) (changed bool, err error) {
	old := *t.luns.Load()
	luns := make(map[uint16]*lun, len(spec.LUNs))
	units := make(map[uint16]*scsiLU, len(spec.LUNs))
	limits := make(map[uint16]QoS, len(spec.LUNs))
	for _, ls := range spec.LUNs {
		if ls.Vendor == "" {
			ls.Vendor = "OVGATE"
		}
		if ls.Product == "" {
			ls.Product = "vDisk"
		}
		if ls.Revision == "" {
			ls.Revision = "1"
		}
		qos := ls.QoS
		ls.QoS = QoS{}
		l := old[ls.Number]
		if l == nil || l.LUNSpec != ls {
			changed = true
			su, err := t.srv.svc.newLU(ls)
			if err != nil {
				return false, fmt.Errorf("iscsi: target %s LUN %d: %w", spec.Name, ls.Number, err)
			}
			l = &lun{LUNSpec: ls, scsi: su}
		}
		luns[ls.Number], units[ls.Number], limits[ls.Number] = l, l.scsi, qos
	}
	if len(old) != len(luns) {
		changed = true
	}
	spec.Portals = append([]Portal(nil), spec.Portals...)
	spec.ACL = append([]string(nil), spec.ACL...)
	spec.LUNs = nil
	if spec.Auth != nil {
		a := *spec.Auth
		spec.Auth = &a
	}
	for i, n := range spec.ACL {
		spec.ACL[i] = NormalizeName(n)
	}
	t.scsi.setUnits(units)
	for n, l := range luns {
		l.setQoS(limits[n])
	}
	t.luns.Store(&luns)
	t.spec.Store(&spec)
	for n, l := range old {
		if luns[n] != l {
			l.remove()
		}
	}
	return changed, nil
}

func (t *target) lun(n uint16) *lun { return (*t.luns.Load())[n] }

// numbers returns the LUNs in ascending order.
func (t *target) numbers() []uint16 {
	m := *t.luns.Load()
	out := make([]uint16, 0, len(m))
	for n := range m {
		out = append(out, n)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

// admits tells whether an initiator of this (normalized) name may log in.
func (t *target) admits(initiator string) bool {
	spec := t.spec.Load()
	if spec.Open {
		return true
	}
	for _, n := range spec.ACL {
		if n == initiator {
			return true
		}
	}
	return false
}

// group returns the portal group tag of the portal that local belongs to.
func (t *target) group(local string) uint16 {
	spec := t.spec.Load()
	for _, p := range spec.Portals {
		if p.Address == local {
			return p.Group
		}
	}
	if len(spec.Portals) > 0 {
		return spec.Portals[0].Group
	}
	return defaultGroup
}

func (t *target) info() TargetInfo {
	spec := t.spec.Load()
	i := TargetInfo{
		Name: t.name, Alias: spec.Alias, Open: spec.Open,
		Portals: append([]Portal(nil), spec.Portals...),
		ACL:     append([]string(nil), spec.ACL...),
	}
	if spec.Auth != nil {
		i.CHAP, i.CHAPUser, i.Mutual = true, spec.Auth.User, spec.Auth.MutualUser != ""
	}
	for _, n := range t.numbers() {
		l := t.lun(n)
		li := LUNInfo{Number: n, Size: l.Disk.Geometry().Size, Serial: l.Serial, NAA: fmt.Sprintf("%x", l.NAA[:]), QoS: l.limits(), Stats: l.stats()}
		if r := l.reserved.Load(); r != nil {
			li.ReservedBy = r.initiator
		}
		i.LUNs = append(i.LUNs, li)
	}
	return i
}

func sortTargets(l []*target) { sort.Slice(l, func(i, j int) bool { return l[i].name < l[j].name }) }

// describe adds the target and its portals to a SendTargets answer. A target
// without portals is reachable where the question came in.
func (t *target) describe(w *textWriter, local string) {
	w.add("TargetName", t.name)
	spec := t.spec.Load()
	for _, p := range spec.Portals {
		w.add("TargetAddress", p.Address+","+strconv.Itoa(int(p.Group)))
	}
	if len(spec.Portals) == 0 {
		w.add("TargetAddress", local+","+strconv.Itoa(defaultGroup))
	}
}
