// Package domain tells what is in each domain of failure, such as a rack, and what its loss would
// mean. It is a function of facts that package api gathers.
//
//	B1  What it promises holds: a vDisk is said to be taken over only when nothing that was
//	    acknowledged would be missing, and an object to survive only when the last survey proves
//	    it. Where that is not known, the worse is said.
package domain

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Node is a node of the cluster.
type Node struct {
	ID, Name, Domain string
	Up               bool
	Copies           bool // it takes copies of other nodes' journals
	Member           bool // it runs a member of the registry
}

// Device is a device of the object store.
type Device struct {
	Domain      string
	Machine     string // where that is no node
	Working     bool
	Total, Used int64 // bytes
}

// VDisk is a vDisk that is served, or is to be.
type VDisk struct {
	ID, Name, VPool string
	Node            string // id
	Local           bool   // only this node reaches its vPool
	Clean           bool   // all of it is on the backend
	Copy            string // id of the node with a whole copy of what is not; empty: none
}

// Objects is what the last survey of the object store said.
type Objects struct {
	At        time.Time // zero: there was none
	All       int64
	Tolerates map[int]int64 // objects by how many more devices they may lose
	Spread    map[int]int64 // those spread by domain, by how many more domains they may lose
}

// Facts are what there is.
type Facts struct {
	Nodes   []Node
	Devices []Device
	VDisks  []VDisk
	Members int // of the registry, all; 0: it is not run by nodes
	Objects Objects
}

// Fate is what becomes of a vDisk when a domain is lost.
type Fate string

// Fates.
const (
	Stays     Fate = "stays"     // it is served elsewhere
	TakenOver Fate = "takenOver" // by a node of another domain, with all that was acknowledged
	Waits     Fate = "waits"     // until the domain is back, or somebody accepts that its newest writes are lost
	Gone      Fate = "gone"      // it is in a directory of its node
)

// Placed is a vDisk that a domain serves, or has the copy of.
type Placed struct {
	VDisk
	Served bool // in the domain; else it has the copy
	Fate   Fate
}

// State is how bad the loss of a domain would be.
type State string

// States.
const (
	OK      State = "ok"
	Warning State = "warning"
	Bad     State = "error"
)

// Domain is what fails together.
type Domain struct {
	Name        string // empty: of what nobody said where it is
	Nodes       []Node
	Machines    []string // with devices, that are no nodes
	Devices     int
	Failed      int // devices that do not work
	Total, Used int64
	VDisks      int // served there
	Copies      int // of journals of vDisks that are served elsewhere
	// What becomes of the vDisks that are served there.
	TakenOver, Waits, Gone int
	// Lost is how many objects could be unreadable at most; -1: not known.
	Lost   int64
	Quorum bool // the registry keeps its majority
	State  State
	Loss   []string // what its loss would mean, in sentences
}

// look has what is needed for each domain.
type look struct {
	Facts
	node map[string]Node // by id
}

// Assess returns the domains by name, that of what nobody said last.
func Assess(f Facts) []Domain {
	l := newLook(f)
	var names []string
	for _, n := range f.Nodes {
		names = append(names, n.Domain)
	}
	for _, d := range f.Devices {
		names = append(names, d.Domain)
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	var out []Domain
	for _, name := range slices.Compact(names) {
		out = append(out, l.assess(name))
	}
	return out
}

// VDisks returns the vDisks that a domain serves or has the copy of, and what becomes of them.
func VDisks(f Facts, name string) (out []Placed) {
	l := newLook(f)
	quorum := l.quorum(name)
	for _, v := range f.VDisks {
		served, copied := l.in(v.Node, name), v.Copy != "" && l.in(v.Copy, name)
		if served || copied {
			out = append(out, Placed{v, served, l.fate(v, name, quorum)})
		}
	}
	return out
}

func newLook(f Facts) look {
	l := look{f, map[string]Node{}}
	for _, n := range f.Nodes {
		l.node[n.ID] = n
	}
	return l
}

func rank(name string) int {
	if name == "" {
		return 1
	}
	return 0
}

// in tells whether a node is in a domain.
func (l look) in(node, name string) bool {
	n, ok := l.node[node]
	return ok && n.Domain == name
}

// others tells whether there is a node elsewhere that is up.
func (l look) others(name string) bool {
	return slices.ContainsFunc(l.Nodes, func(n Node) bool { return n.Domain != name && n.Up })
}

// quorum tells whether the registry keeps its majority without a domain.
func (l look) quorum(name string) bool {
	left := l.Members
	for _, n := range l.Nodes {
		if n.Member && (n.Domain == name || !n.Up) {
			left--
		}
	}
	return l.Members == 0 || left > l.Members/2
}

// fate is what becomes of a vDisk when a domain is lost.
func (l look) fate(v VDisk, name string, quorum bool) Fate {
	switch {
	case !l.in(v.Node, name):
		return Stays
	case v.Local:
		return Gone
	case !quorum || !l.others(name):
		return Waits
	case v.Clean:
		return TakenOver
	}
	if c, ok := l.node[v.Copy]; ok && c.Domain != name && c.Up {
		return TakenOver
	}
	return Waits
}

func (l look) assess(name string) Domain {
	d := Domain{Name: name, Quorum: l.quorum(name)}
	for _, n := range l.Nodes {
		if n.Domain == name {
			d.Nodes = append(d.Nodes, n)
		}
	}
	working := 0
	for _, o := range l.Devices {
		if o.Domain != name {
			continue
		}
		d.Devices++
		d.Total, d.Used = d.Total+o.Total, d.Used+o.Used
		if o.Working {
			working++
		} else {
			d.Failed++
		}
		if o.Machine != "" && !slices.Contains(d.Machines, o.Machine) {
			d.Machines = append(d.Machines, o.Machine)
		}
	}
	slices.Sort(d.Machines)
	for _, v := range l.VDisks {
		if !l.in(v.Node, name) {
			if v.Copy != "" && l.in(v.Copy, name) {
				d.Copies++
			}
			continue
		}
		d.VDisks++
		switch l.fate(v, name, d.Quorum) {
		case TakenOver:
			d.TakenOver++
		case Waits:
			d.Waits++
		case Gone:
			d.Gone++
		}
	}
	d.Lost = l.Objects.lost(working)
	d.judge(l)
	return d
}

// lost is how many objects are lost at most with so many working devices of one domain; -1: not
// known. Two bounds hold: those that survive the loss of so many devices wherever they are, and
// those that are spread by domain and survive the loss of one.
func (o Objects) lost(working int) int64 {
	if working == 0 {
		return 0
	}
	if o.At.IsZero() {
		return -1
	}
	var few, together int64
	for n, objects := range o.Tolerates {
		if n >= 0 && n < working {
			few += objects
		}
	}
	together = o.All
	for n, objects := range o.Spread {
		if n >= 1 {
			together -= objects
		}
	}
	return max(0, min(few, together))
}

// judge says in words what the loss would mean, and how bad that is.
func (d *Domain) judge(l look) {
	d.State = OK
	worse := func(s State) {
		if d.State == OK || s == Bad {
			d.State = s
		}
	}
	say := func(s State, format string, a ...any) {
		d.Loss = append(d.Loss, fmt.Sprintf(format, a...))
		if s != OK {
			worse(s)
		}
	}
	if len(d.Nodes) == len(l.Nodes) && len(d.Nodes) > 0 {
		say(Warning, "All nodes are in it: nothing serves until it is back.")
	} else if !d.Quorum {
		say(Bad, "The registry loses its majority: nobody takes over, and vDisks stop once their journals are full.")
	}
	if d.TakenOver > 0 {
		say(OK, "%s taken over by nodes elsewhere, with all that was acknowledged.", are(d.TakenOver, "vDisk"))
	}
	if d.Waits > 0 && l.others(d.Name) && d.Quorum {
		say(Warning, "%s for it: the newest writes are nowhere else.", waits(d.Waits))
	} else if d.Waits > 0 {
		say(Warning, "%s for it.", waits(d.Waits))
	}
	if d.Gone > 0 {
		say(Bad, "%s lost unless it comes back: only a node in it has the vPool.", are(d.Gone, "vDisk"))
	}
	switch {
	case d.Copies == 1:
		say(OK, "1 vDisk that is served elsewhere has the copy of its journal here, and gets another one.")
	case d.Copies > 1:
		say(OK, "%d vDisks that are served elsewhere have the copies of their journals here, and get other ones.", d.Copies)
	}
	switch {
	case d.Lost < 0:
		say(Warning, "What becomes of objects is not known: none were surveyed yet.")
	case d.Lost > 0:
		say(Bad, "By the last survey up to %s could not be read: spread their preset by domain, or over more devices elsewhere.", count(int(d.Lost), "object"))
	case d.Devices > 0 && l.Objects.All == 0:
		say(OK, "At the last survey no object was stored.")
	case d.Devices > 0:
		say(OK, "By the last survey every object stays readable.")
	}
	if len(d.Loss) == 0 {
		say(OK, "Nothing is served or kept there.")
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func are(n int, what string) string {
	if n == 1 {
		return "1 " + what + " is"
	}
	return count(n, what) + " are"
}

func waits(n int) string {
	if n == 1 {
		return "1 vDisk waits"
	}
	return count(n, "vDisk") + " wait"
}
