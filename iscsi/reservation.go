package iscsi

import "slices"

// nexus is an I_T nexus: an initiator port, which is a name and an ISID, and a
// target port, which in iSCSI is the target and a portal group (rule O5). It
// outlives its sessions.
type itNexus struct {
	initiator string // normalized
	isid      [6]byte
	port      uint16 // relative target port identifier: the portal group tag
}

func (ss *session) itNexus() itNexus {
	return itNexus{initiator: ss.initiator, isid: ss.isid, port: ss.group}
}

// Types of persistent reservation (SPC-4 clause 6.13.3.4).
const (
	writeExclusive    = 1
	exclusiveAccess   = 3
	writeExclusiveRO  = 5 // registrants only
	exclusiveAccessRO = 6
	writeExclusiveAR  = 7 // all registrants
	exclusiveAccessAR = 8
)

// reservationNames are the types as an administrator reads them; a number that is
// not in it is no type.
var reservationNames = map[byte]string{
	writeExclusive:    "write exclusive",
	exclusiveAccess:   "exclusive access",
	writeExclusiveRO:  "write exclusive, registrants only",
	exclusiveAccessRO: "exclusive access, registrants only",
	writeExclusiveAR:  "write exclusive, all registrants",
	exclusiveAccessAR: "exclusive access, all registrants",
}

func validReservation(kind byte) bool { return reservationNames[kind] != "" }

func registrantsOnly(kind byte) bool { return kind == writeExclusiveRO || kind == exclusiveAccessRO }

func allRegistrants(kind byte) bool { return kind == writeExclusiveAR || kind == exclusiveAccessAR }

func exclusive(kind byte) bool {
	return kind == exclusiveAccess || kind == exclusiveAccessRO || kind == exclusiveAccessAR
}

// maxRegistrations bounds the registrations of a logical unit: 64 hosts with four
// paths, and with the longest names just what a stored state can hold.
const maxRegistrations = 256

// registration is a nexus and the key that it registered, which is not 0.
type registration struct {
	itNexus
	key uint64
}

// registry is the persistent reservation state of a logical unit. It is never
// changed: a change makes another one.
type registry struct {
	generation uint32  // PRgeneration
	aptpl      bool    // the state survives a power loss
	kind       byte    // type of the reservation; 0: there is none
	holder     itNexus // of a reservation that is not of all registrants
	list       []registration
	index      map[itNexus]int // into list
}

// find returns the key of a nexus; 0 if it is not registered.
func (r *registry) find(n itNexus) uint64 {
	if i, ok := r.index[n]; ok {
		return r.list[i].key
	}
	return 0
}

// holds tells whether a nexus holds the reservation.
func (r *registry) holds(n itNexus) bool {
	if allRegistrants(r.kind) {
		return r.find(n) != 0
	}
	return r.kind != 0 && r.holder == n
}

// refuses tells whether the reservation keeps a command with these access flags
// away from the nexus.
func (r *registry) refuses(n itNexus, access int) bool {
	if r.kind == 0 || access&accessWrite == 0 && (access&accessRead == 0 || !exclusive(r.kind)) || r.holds(n) {
		return false
	}
	return !registrantsOnly(r.kind) || r.find(n) == 0
}

// copy returns a registry that may be changed until it is published.
func (r *registry) copy() *registry {
	c := *r
	c.list = slices.Clone(r.list)
	c.reindex()
	return &c
}

func (r *registry) reindex() {
	r.index = make(map[itNexus]int, len(r.list))
	for i := range r.list {
		r.index[r.list[i].itNexus] = i
	}
}

// set registers a nexus, or changes its key.
func (r *registry) set(n itNexus, key uint64) {
	if i, ok := r.index[n]; ok {
		r.list[i].key = key
		return
	}
	r.index[n] = len(r.list)
	r.list = append(r.list, registration{n, key})
}

// remove takes registrations away, and the reservation with its last holder.
func (r *registry) remove(gone func(registration) bool) {
	r.list = slices.DeleteFunc(r.list, gone)
	r.reindex()
	if allRegistrants(r.kind) && len(r.list) == 0 || r.kind != 0 && !allRegistrants(r.kind) && r.find(r.holder) == 0 {
		r.kind, r.holder = 0, itNexus{}
	}
}

// reserve establishes a reservation.
func (r *registry) reserve(n itNexus, kind byte) {
	r.kind, r.holder = kind, itNexus{}
	if !allRegistrants(kind) {
		r.holder = n
	}
}

// others lists the registered nexuses but one.
func (r *registry) others(but itNexus) []itNexus {
	var out []itNexus
	for i := range r.list {
		if r.list[i].itNexus != but {
			out = append(out, r.list[i].itNexus)
		}
	}
	return out
}
