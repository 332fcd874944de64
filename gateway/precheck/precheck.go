// Package precheck tells whether a node has what it needs of its machine and of its network, before
// it is relied upon and later: clock, interfaces, ports, places. Unlike health it also says what is
// well, and asks the other nodes at that moment. The node tells the facts; this is a function of
// them, and package api shows what it returns.
package precheck

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe"
)

// State is how something is.
type State string

// States.
const (
	OK      State = "ok"
	Info    State = "info" // it is so by choice; who wants it otherwise reads how
	Warning State = "warning"
	Bad     State = "error"
)

// Code is what is looked at.
type Code string

// Codes.
const (
	Clock     Code = "clock"
	Interface Code = "interface"
	Port      Code = "port"
	Disk      Code = "disk"
)

// Check is what was found of one thing.
type Check struct {
	Code   Code
	Object string // what it is about, such as an address; empty: the node
	State  State
	Text   string // what was found
	Means  string // what that leads to; empty where it is well
	Fix    string // what to do; empty where it is well
}

// Facts are what the node found.
type Facts struct {
	// Synced: the kernel says that something keeps its clock; nil: it does not tell.
	Synced *bool
	Peers  []Peer
	// Clustered: the node is in a cluster, and others have to reach it.
	Clustered  bool
	Listeners  []Listener
	Interfaces []NIC
	Places     []Place
}

// Peer is another node as this one reaches it.
type Peer struct {
	Name   string
	Timely bool          // it told its time
	Apart  time.Duration // by how much its clock is ahead at least
	Ports  []Reach
}

// Reach is a port of another node.
type Reach struct {
	Service, Address string
	Err              error // why it is not reached; nil: it is
	// Segment is the most that one segment of TCP carries to it, in bytes; 0: not known. NIC is
	// the interface that leads there; empty: not known.
	Segment int
	NIC     string
}

// Listener is where a service of this node is reached, HOST:PORT.
type Listener struct{ Service, Address string }

// NIC is an interface of the network.
type NIC struct {
	Name      string
	Addresses []netip.Addr
	MTU       int
	Up        bool // it has a link
	Loopback  bool
	Mbits     int // 0: not told
}

// Place is a directory in which the node keeps something.
type Place struct {
	Path, Device string
	Write, Alba  bool // journals, devices of the object store
	Rotational   bool
	ReadOnly     bool
	Problem      string // why it is not used; empty: it is
	Total, Free  int64  // bytes; 0: not told
}

const (
	// segmentSlack is what headers and options of IP and TCP take of an MTU at most.
	segmentSlack = 120
	// slow is a link below which a mirrored write waits for the network, in Mbit/s.
	slow = 1000
	// fullWarn and fullBad are percent of a file system in use.
	fullWarn, fullBad = 85, 95
)

// Look returns the checks, by what they look at.
func Look(f Facts) []Check {
	return slices.Concat(f.clocks(), f.interfaces(), f.ports(), f.places())
}

func (f Facts) clocks() []Check {
	own := Check{Code: Clock, State: OK, Text: "The kernel's clock is kept by a time server"}
	switch {
	case f.Synced == nil:
		own.State, own.Text = Info, "The kernel does not tell whether something keeps its clock"
	case !*f.Synced:
		own.State, own.Text = Warning, "Nothing keeps the kernel's clock"
	}
	if own.State != OK {
		own.Means, own.Fix = "Clocks drift apart: a node whose clock is far off is not let into a cluster, and times of snapshots and events are wrong.", "Run chrony or systemd-timesyncd on the machine."
	}
	out := []Check{own}
	for _, p := range f.Peers {
		c := Check{Code: Clock, Object: "node " + p.Name, State: OK, Text: "The clocks agree"}
		switch {
		case !p.Timely:
			c.State, c.Text = Warning, "It does not tell its time"
			c.Means, c.Fix = "Whether the clocks agree is not known.", "See the ports below; when it is reached, look again."
		case p.Apart.Abs() >= observe.SkewWarn:
			way := "ahead"
			if p.Apart < 0 {
				way = "behind"
			}
			c.State, c.Text = Bad, fmt.Sprintf("Its clock is %s %s", p.Apart.Abs().Round(time.Second), way)
			c.Means, c.Fix = "Times of a vDisk that changes nodes are wrong by that, and so is what retention keeps.", "Run chrony or systemd-timesyncd on both machines."
		}
		out = append(out, c)
	}
	return out
}

// keys name the configuration of where a service listens.
var keys = map[string]string{"api": "api", "iscsi": "iscsi", "dtl": "dtl: listen", "gossip": "cluster: listen", "alba": "alba: listen", "registry": "registry: member: listen"}

// words name services.
var words = map[string]string{"api": "API and console", "iscsi": "iSCSI", "dtl": "Copies of journals", "gossip": "Gossip", "alba": "Devices of the object store", "registry": "Registry"}

func (f Facts) interfaces() (out []Check) {
	for _, l := range f.Listeners {
		out = append(out, f.listener(l))
	}
	return out
}

// listener tells of the interface on which a service is reached.
func (f Facts) listener(l Listener) Check {
	c := Check{Code: Interface, Object: l.Address, State: OK}
	host, _, err := net.SplitHostPort(l.Address)
	at, bad := netip.ParseAddr(host)
	if err != nil || bad != nil {
		c.State, c.Text = Info, words[l.Service]+": reached by a name, whose interface is not looked at"
		return c
	}
	i := slices.IndexFunc(f.Interfaces, func(n NIC) bool { return slices.Contains(n.Addresses, at.Unmap()) })
	switch {
	case at.Unmap().IsLoopback():
		c.State, c.Text = Info, words[l.Service]+": reached from this machine alone"
		c.Means, c.Fix = "No other machine reaches it.", fmt.Sprintf("Set %s in the configuration to an address of the network, then restart ovgate.", keys[l.Service])
		if f.Clustered && l.Service != "iscsi" {
			c.Means = "Nodes on other machines do not reach it; those on this one do."
		}
	case i < 0:
		c.State, c.Text = Info, words[l.Service]+": the address is on no interface of this machine"
		c.Means, c.Fix = "It has to be led here, by a router or a load balancer.", "Check that it is; else correct what is advertised in the configuration."
	default:
		f.Interfaces[i].tell(&c, words[l.Service])
	}
	return c
}

// tell says how an interface is that a service is reached on.
func (n NIC) tell(c *Check, service string) {
	speed := ""
	if n.Mbits > 0 {
		speed = fmt.Sprintf(", %d Mbit/s", n.Mbits)
	}
	c.Text = fmt.Sprintf("%s: on %s, MTU %d%s", service, n.Name, n.MTU, speed)
	switch {
	case !n.Up:
		c.State, c.Text = Bad, fmt.Sprintf("%s: %s has no link", service, n.Name)
		c.Means, c.Fix = "Nobody reaches it.", "Check cable and switch, or choose another address in the configuration."
	case n.Mbits > 0 && n.Mbits < slow:
		c.State = Warning
		c.Means, c.Fix = "A vDisk is no faster than its link.", "Use a link of 10 Gbit/s, 1 Gbit/s at least."
	case n.MTU < 1500:
		c.State = Warning
		c.Means, c.Fix = "Below 1500 bytes, the usual MTU of Ethernet, each transfer takes more packets.", fmt.Sprintf("Set the MTU of %s to that of its network: 1500, or 9000 where all of it has that.", n.Name)
	}
}

func (f Facts) ports() (out []Check) {
	for _, p := range f.Peers {
		for _, r := range p.Ports {
			out = append(out, f.port(p, r))
		}
	}
	return out
}

// port tells whether a port of another node is reached, and whether packets get there whole.
func (f Facts) port(p Peer, r Reach) Check {
	c := Check{Code: Port, Object: "node " + p.Name, State: OK, Text: fmt.Sprintf("%s: reached at %s", words[r.Service], r.Address)}
	if r.Err != nil {
		c.State, c.Text = Bad, fmt.Sprintf("%s: not reached at %s: %v", words[r.Service], r.Address, r.Err)
		c.Means, c.Fix = lost[r.Service], fmt.Sprintf("Start ovgate there if it is down; else let TCP through to %s, or correct %s there.", r.Address, keys[r.Service])
		return c
	}
	i := slices.IndexFunc(f.Interfaces, func(n NIC) bool { return n.Name == r.NIC })
	if i < 0 || r.Segment == 0 || f.Interfaces[i].Loopback || r.Segment >= f.Interfaces[i].MTU-segmentSlack {
		return c
	}
	c.State = Warning
	c.Text = fmt.Sprintf("%s: reached at %s, in segments of %d bytes where %s has an MTU of %d", words[r.Service], r.Address, r.Segment, r.NIC, f.Interfaces[i].MTU)
	c.Means, c.Fix = "The two ends have different MTUs: large packets are cut, or lost where a switch drops them.", "Give all interfaces and switches of this network one MTU."
	return c
}

// lost is what a port is needed for.
var lost = map[string]string{
	"api":   "Requests about what that node serves are not answered here.",
	"iscsi": "Initiators on this network may not reach it either.",
	"dtl":   "Its journals get no copy there: a vDisk whose node is lost waits for it.",
	"alba":  "What is on its devices is not read or written from here.",
}

func (f Facts) places() (out []Check) {
	shared := map[string]int{}
	for _, p := range f.Places {
		c := Check{Code: Disk, Object: p.Path, State: OK, Text: "It is used"}
		if p.Total > 0 {
			c.Text = fmt.Sprintf("It is used; its file system on %s is %d %% full", p.Device, full(p))
		}
		switch {
		case p.Problem != "":
			c.State, c.Text = Bad, "It is not used: "+p.Problem
			c.Means, c.Fix = "The node does without it.", "Mount its disk, or take it out of the configuration, then restart ovgate."
		case p.ReadOnly:
			c.State, c.Text = Bad, "Its file system takes no writes"
			c.Means, c.Fix = "What is kept there cannot change.", "Look up why in the kernel's log (dmesg), check the file system, then mount it for writing."
		case p.Total > 0 && full(p) >= fullWarn:
			c.State = Warning
			if full(p) >= fullBad {
				c.State = Bad
			}
			c.Means, c.Fix = "When it is full, writes wait.", "Make room there, or give the node another disk."
		case p.Write && p.Rotational:
			c.State, c.Text = Warning, fmt.Sprintf("Journals are on %s, a hard disk", p.Device)
			c.Means, c.Fix = "Every write waits for it, some milliseconds.", "Put journals on an SSD that keeps what it synced when power fails (write_disks)."
		}
		if p.Alba && p.Device != "" {
			shared[p.Device]++
		}
		out = append(out, c)
	}
	for _, p := range f.Places {
		if n := shared[p.Device]; p.Alba && n > 1 {
			shared[p.Device] = 0
			out = append(out, Check{
				Code: Disk, Object: p.Device, State: Info, Text: fmt.Sprintf("%d devices of the object store are on it", n),
				Means: "They fail together: what is stored on them alone does not survive the loss of this disk.", Fix: "Give each device a disk of its own, then retire these.",
			})
		}
	}
	return out
}

// full is how many percent of a place's file system are in use.
func full(p Place) int { return int(100 - p.Free*100/p.Total) }

// Worst is the worst state of checks.
func Worst(checks []Check) State {
	order := []State{OK, Info, Warning, Bad}
	worst := OK
	for _, c := range checks {
		if slices.Index(order, c.State) > slices.Index(order, worst) {
			worst = c.State
		}
	}
	return worst
}

// String is a check in one line, for logs and tests.
func (c Check) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s [%s] %s", c.State, c.Code, c.Object, c.Text))
}
