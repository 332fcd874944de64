// Package layout proposes what the disks of a node are for, and says what it takes to get there:
// what the node does itself, what its configuration has to say, and what root has to do on the
// machine. The node tells what there is; package api shows the answer.
//
//	blank disk ─root: mkfs, mount─► mounted and empty ─┬─ alba: the node claims a directory ──► in use
//	                                                   └─ write, read: configuration, restart ─► in use
//
//	L1  It is a function of what it is given: it looks at nothing, and changes nothing.
//	L2  A disk is free only when it is blank (disk.View says so), or when all that is on it is an
//	    empty file system that is mounted below no place of the system. No other is given a role,
//	    by no choice either.
//	L3  What is in use keeps its roles.
//	L4  Commands make file systems without force: mkfs refuses what holds something after all.
package layout

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/alba"
)

// Role is what a disk is for.
type Role string

// Roles.
const (
	DB    Role = "db"    // the node's own records
	Write Role = "write" // journals
	Read  Role = "read"  // read cache
	Alba  Role = "alba"  // device of the object store
)

// Choices are what a free disk may be chosen for; none of them: left alone.
var Choices = [][]Role{{}, {Write, Read}, {Write}, {Read}, {Alba}}

// directories are where a role has its place on a file system.
var directories = map[Role]string{Write: "write", Read: "read", Alba: "ovgate"}

// RoleOf returns the role whose directory has this name.
func RoleOf(name string) (Role, bool) {
	for role, dir := range directories {
		if dir == name {
			return role, true
		}
	}
	return "", false
}

// Dir is a directory, and the bytes that ovgate may take there; 0: all.
type Dir struct {
	Path  string
	Bytes int64
}

// Disk is a disk of the node.
type Disk struct {
	Name, Path, Link string // as disk.Disk has them
	Model, Serial    string
	Size             int64 // bytes
	SSD              bool
	Blank            bool   // disk.View.Usable
	Holds            string // in words
	// Mount is where the one file system on it is mounted, when that holds nothing; Room is
	// what is free there, in bytes.
	Mount string
	Room  int64
	// Writable: the node may make a directory there. Dirs are those of roles that are there,
	// and that it may write to.
	Writable bool
	Dirs     []Role
	// System: the machine's system is on it.
	System bool
	Has    []Role // that it has already
}

// Node is what matters of the node.
type Node struct {
	WriteDisks, ReadCache []Dir  // of its configuration
	ConfigFile            string // empty: it was started without one
	User                  string // that it runs as
	Devices               int    // of the object store, in the cluster
	Nodes                 int    // of the cluster
}

// State is how far a disk is from its roles.
type State string

// States of a disk.
const (
	InUse     State = "inUse"     // it has its roles
	Kept      State = "kept"      // it holds something, or the system is on it
	Unused    State = "unused"    // it is free, and has no role
	Ready     State = "ready"     // the node can give it its role
	Configure State = "configure" // the configuration has to name it, and the node to start anew
	Prepare   State = "prepare"   // root has to make its file system or its directories
)

// Row is a disk with what it is for.
type Row struct {
	Disk
	Roles   []Role
	State   State
	Reason  string // why it has these roles, or none
	Warning string // what speaks against that; empty: nothing
	Places  []Place
}

// Place is a directory of a role.
type Place struct {
	Role Role
	Dir
}

// Plan is what the disks of a node are for.
type Plan struct {
	Rows     []Row
	Refused  []error  // choices that a disk cannot have, or cannot have any more; they count for nothing
	Config   string   // lines for the configuration; empty: it needs none
	Commands string   // for root; empty: there are none
	Notes    []string // what there is to know about the whole
}

// ErrChoice: a disk cannot have what was chosen for it.
var ErrChoice = errors.New("it cannot be chosen")

const (
	// minDisk is the least that a disk has to get a role: less than a few journal quotas, and
	// less than a device fills in minutes, is not worth a disk.
	minDisk = 1 << 30
	// writeMost bounds journals on a disk: 128 vDisks with the default quota of 512 MiB.
	writeMost = 64 << 30
	// journalsMost is how many disks get journals where hard disks hold the objects: vDisks
	// spread over them.
	journalsMost = 2
	// devicesLeast is what an object store needs to keep anything twice.
	devicesLeast = 2
	// mounts is where file systems that are made are mounted.
	mounts = "/srv/ovgate"
)

// Propose says what the disks are for. Those in choice get what it says, by their names; the rest
// is decided. A choice of roles that no disk can have is an error.
func Propose(n Node, disks []Disk, choice map[string][]Role) (Plan, error) {
	disks = slices.Clone(disks)
	slices.SortFunc(disks, func(a, b Disk) int { return strings.Compare(a.Name, b.Name) })
	var p Plan
	allowed := map[string][]Role{}
	for _, name := range slices.Sorted(maps.Keys(choice)) {
		roles := choice[name]
		if !slices.ContainsFunc(Choices, func(c []Role) bool { return slices.Equal(c, roles) }) {
			return Plan{}, fmt.Errorf("disk %s: %w: use write, read, both of them, alba or none", name, ErrChoice)
		}
		if err := check(disks, name, roles); err != nil {
			p.Refused = append(p.Refused, err)
			continue
		}
		allowed[name] = roles
	}
	choice = allowed
	decided := decide(n, disks, choice)
	for _, d := range disks {
		p.Rows = append(p.Rows, row(d, decided, choice))
	}
	for _, err := range p.Refused {
		p.Notes = append(p.Notes, err.Error()+".")
	}
	p.notes(n)
	p.config(n)
	p.commands(n)
	return p, nil
}

// check refuses a choice that a disk cannot have.
func check(disks []Disk, name string, roles []Role) error {
	i := slices.IndexFunc(disks, func(d Disk) bool { return d.Name == name })
	if i < 0 {
		return fmt.Errorf("disk %s: %w: the node has no disk of that name", name, ErrChoice)
	}
	if len(disks[i].Has) > 0 && slices.Equal(disks[i].Has, roles) {
		return nil // it came to that since it was chosen
	}
	if ok, why := free(disks[i]); !ok {
		return fmt.Errorf("disk %s: %w: %s", name, ErrChoice, why)
	}
	return nil
}

// free tells whether a disk may get a role, else why not (L2, L3).
func free(d Disk) (bool, string) {
	switch {
	case len(d.Has) > 0:
		return false, "it is in use"
	case d.System:
		return false, "the machine's system is on it"
	case !d.Blank && d.Mount == "":
		return false, "it holds something, and nothing that holds something is taken: " + d.Holds
	case d.room() < minDisk:
		return false, "it is too small: a role takes 1 GiB"
	}
	return true, ""
}

// room is what a disk has for its roles, in bytes: of a blank one, what a file system leaves.
func (d Disk) room() int64 {
	if d.Mount != "" {
		return d.Room
	}
	return d.Size / 100 * 98
}

// decision is what was decided for a disk, and why.
type decision struct {
	roles  []Role
	reason string
}

// decide says what the free disks without a choice are for.
func decide(n Node, disks []Disk, choice map[string][]Role) map[string]decision {
	var fast, slow []Disk
	spinning := false // hard disks hold objects, or will
	devices, journals := n.Devices, len(n.WriteDisks)
	for _, d := range disks {
		roles, chosen := choice[d.Name]
		ok, _ := free(d)
		spinning = spinning || !d.SSD && (slices.Contains(d.Has, Alba) || slices.Contains(roles, Alba) || ok && !chosen)
		switch {
		case chosen && slices.Contains(roles, Alba):
			devices++
		case chosen && slices.Contains(roles, Write):
			journals++
		case chosen || !ok:
		case d.SSD:
			fast = append(fast, d)
		default:
			slow = append(slow, d)
		}
	}
	// The smallest hold journals and cache: objects need the room.
	slices.SortStableFunc(fast, func(a, b Disk) int { return cmp.Compare(a.room(), b.room()) })
	most := 0
	switch {
	case journals > 0:
	case spinning:
		most = min(journalsMost, len(fast))
	case devices+len(fast) > devicesLeast, devices+len(fast) < devicesLeast && n.Nodes < 2:
		most = min(1, len(fast))
	}
	out := map[string]decision{}
	for _, d := range fast[:most] {
		out[d.Name] = decision{[]Role{Write, Read}, "an SSD: every write waits until a journal has it, and reads are served from its cache"}
	}
	for _, d := range fast[most:] {
		out[d.Name] = decision{[]Role{Alba}, "an SSD that journals and cache do not need"}
	}
	for _, d := range slow {
		out[d.Name] = decision{[]Role{Alba}, "a hard disk: objects are written to it in long runs"}
	}
	return out
}

// row says what a disk is for, and how far it is from that.
func row(d Disk, decided map[string]decision, choice map[string][]Role) Row {
	r := Row{Disk: d, Roles: []Role{}}
	ok, why := free(d)
	switch {
	case len(d.Has) > 0:
		r.Roles, r.State, r.Reason = d.Has, InUse, "it is in use"
		return r
	case !ok:
		r.State, r.Reason = Kept, why
		return r
	}
	if roles, chosen := choice[d.Name]; chosen {
		r.Roles, r.Reason = append(r.Roles, roles...), "it was chosen"
	} else {
		r.Roles, r.Reason = append(r.Roles, decided[d.Name].roles...), decided[d.Name].reason
	}
	r.place()
	switch {
	case len(r.Roles) == 0:
		r.State = Unused
	case len(r.lacks()) > 0:
		r.State = Prepare
	case r.Roles[0] == Alba:
		r.State = Ready
	default:
		r.State = Configure
	}
	if !d.SSD && slices.Contains(r.Roles, Write) {
		r.Warning = "a hard disk: each write waits for it, some milliseconds"
	}
	return r
}

// place says where the roles have their directories, and how much each takes.
func (r *Row) place() {
	at := cmp.Or(r.Mount, filepath.Join(mounts, plain(cmp.Or(r.Serial, r.Name))))
	most := r.room() / 10 * 9
	for _, role := range r.Roles {
		p := Place{role, Dir{Path: filepath.Join(at, directories[role])}}
		switch {
		case role == Write && len(r.Roles) > 1:
			p.Bytes = min(r.room()/4, writeMost)
		case role == Write:
			p.Bytes = min(most, writeMost)
		case role == Read && len(r.Roles) > 1:
			p.Bytes = most - min(r.room()/4, writeMost)
		case role == Read:
			p.Bytes = most
		}
		p.Bytes = p.Bytes >> 20 << 20
		r.Places = append(r.Places, p)
	}
}

// lacks are the places whose directory has to be made by root.
func (r Row) lacks() (out []Place) {
	for _, p := range r.Places {
		made := r.Mount != "" && (slices.Contains(r.Dirs, p.Role) || p.Role == Alba && r.Writable)
		if !made {
			out = append(out, p)
		}
	}
	return out
}

// plain is a text that names a directory.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, text)
}

// count counts the disks that have, or are to have, a role.
func (p Plan) count(role Role, states ...State) (n int) {
	for _, r := range p.Rows {
		if slices.Contains(r.Roles, role) && (len(states) == 0 || slices.Contains(states, r.State)) {
			n++
		}
	}
	return n
}

// notes says what there is to know about the whole.
func (p *Plan) notes(n Node) {
	add := func(text string) { p.Notes = append(p.Notes, text) }
	gets := p.count(Alba, Ready, Prepare)
	switch devices := n.Devices + gets; {
	case devices == 0:
		add(fmt.Sprintf("The object store has no device yet. Without one of its own the first vPool that needs it makes %d places in the data directory: they survive no disk.", alba.DefaultDevices))
	case devices < devicesLeast:
		add("The object store has one device with this: it keeps nothing twice, and no vPool can be made on it. Add another one, on this node or on another.")
	}
	if len(n.WriteDisks) == 0 && p.count(Write) == 0 {
		add("Journals stay in the data directory: every write waits for its disk.")
	}
}

// config has the lists of the configuration as they have to be.
func (p *Plan) config(n Node) {
	var b strings.Builder
	list := func(key string, role Role, have []Dir) {
		lines := slices.Clone(have)
		for _, r := range p.Rows {
			for _, place := range r.Places {
				if place.Role == role {
					lines = append(lines, place.Dir)
				}
			}
		}
		if len(lines) == len(have) {
			return
		}
		fmt.Fprintf(&b, "%s:\n", key)
		for _, d := range lines {
			fmt.Fprintf(&b, "  - {dir: %q, bytes: %d}\n", d.Path, d.Bytes)
		}
	}
	list("write_disks", Write, n.WriteDisks)
	list("read_cache", Read, n.ReadCache)
	p.Config = b.String()
}

// commands are what root has to do, a line for each disk; each ends where something fails (L4).
func (p *Plan) commands(n Node) {
	var lines []string
	words := func(words ...string) string {
		for i, w := range words {
			words[i] = quote(w)
		}
		return strings.Join(words, " ")
	}
	for _, r := range p.Rows {
		lacks := r.lacks()
		if len(lacks) == 0 {
			continue
		}
		var steps []string
		if r.Mount == "" {
			device, at := cmp.Or(r.Link, r.Path), filepath.Dir(r.Places[0].Path)
			steps = append(steps, words("mkfs.xfs", device), words("mkdir", "-p", at),
				"echo "+quote(device+" "+at+" xfs noatime,nofail 0 2")+" >>/etc/fstab", words("mount", at))
		}
		install := []string{"install", "-d", "-o", n.User, "-m", "0700"}
		for _, place := range lacks {
			install = append(install, place.Path)
		}
		lines = append(lines, strings.Join(append(steps, words(install...)), " && ")+"\n")
	}
	p.Commands = strings.Join(lines, "")
}

// quote makes one word of a shell of a text.
func quote(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:@%+=,") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
