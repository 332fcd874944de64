package esxsim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

const (
	// hbaDevice is not vmhba64: the simulator's hosts have another adapter of that name.
	hbaDevice = "vmhba65"
	hbaKey    = "key-vim.host.InternetScsiHba-" + hbaDevice
)

// States of a path, as the API spells them.
const (
	pathActive  = "active"
	pathStandby = "standby"
	pathDead    = "dead"
)

// sendTarget is where a host asks for targets.
type sendTarget struct {
	types.HostInternetScsiHbaSendTarget
	auth types.HostInternetScsiHbaAuthenticationProperties // secrets too; they are never shown
}

// Host is a simulated ESXi host.
type Host struct {
	IQN string

	f   *fabric
	sys *simulator.HostSystem
	hss *simulator.HostStorageSystem
	dss *simulator.HostDatastoreSystem

	enabled   bool // software iSCSI
	send      []sendTarget
	auth      types.HostInternetScsiHbaAuthenticationProperties // of the adapter
	links     map[place]*link
	luns      map[string]*lun // by canonical name
	numbers   map[place]int   // target numbers, as in paths
	detached  map[string]bool // canonical name
	reserved  map[string]bool // canonical name
	unmounted map[string]bool // volume UUID
	mounted   map[string]string
	policy    map[string]string // canonical name -> path selection policy
	base      types.HostStorageDeviceInfo
}

// lun is a disk as a host sees it.
type lun struct {
	name   string // canonical, naa.…
	uuid   string
	dev    *device
	ats    bool
	paths  []*lunPath
	header *header // as of the newest look; nil: none
	gone   bool    // it did not answer any more at the newest rescan
}

// lunPath is a way to a disk.
type lunPath struct {
	link      *link
	number    uint16
	dev       *device
	pathState // as of the newest look
}

// pathState is what its port group says of a path.
type pathState struct {
	state     string
	optimized bool // it leads to who serves the disk
}

// now is the state of the path at this moment.
func (p *lunPath) now() string {
	if p.link.session() == nil {
		return pathDead
	}
	return p.state
}

func (l *lun) key() string  { return "key-vim.host.ScsiDisk-" + l.uuid }
func (l *lun) path() string { return "/vmfs/devices/disks/" + l.name }

// alive tells whether a path leads to it.
func (l *lun) alive() bool {
	return slices.ContainsFunc(l.paths, func(p *lunPath) bool { return p.now() == pathActive })
}

// live returns a session that leads to the disk: to who serves it, if there is one.
func (l *lun) live() (*initiator.Session, uint16, error) {
	for _, optimized := range []bool{true, false} {
		for _, p := range l.paths {
			if s := p.link.session(); s != nil && p.state == pathActive && p.optimized == optimized {
				return s, p.number, nil
			}
		}
	}
	return nil, 0, fmt.Errorf("%s: no path is alive", l.name)
}

// at returns a session to a portal that leads to the disk.
func (l *lun) at(portal string) (*initiator.Session, uint16, error) {
	for _, p := range l.paths {
		if s := p.link.session(); s != nil && p.link.at.portal == portal {
			return s, p.number, nil
		}
	}
	return nil, 0, fmt.Errorf("%s: no path through %s is alive", l.name, portal)
}

// pathsOf are the paths of a link.
func (h *Host) pathsOf(l *link) iter.Seq[*lunPath] {
	return func(yield func(*lunPath) bool) {
		for _, d := range h.luns {
			for _, p := range d.paths {
				if p.link == l && !yield(p) {
					return
				}
			}
		}
	}
}

// places asks every send target, and returns what it has to log in to.
func (h *Host) places() map[place]types.HostInternetScsiHbaAuthenticationProperties {
	found := map[place]types.HostInternetScsiHbaAuthenticationProperties{}
	for _, t := range h.send {
		targets, err := h.discover(hostPort(t.Address, t.Port), t.auth)
		if err != nil {
			h.f.log.Info("discovery failed", "host", h.sys.Name, "at", hostPort(t.Address, t.Port), "err", err)
			continue
		}
		for _, target := range targets {
			for _, a := range target.Addresses {
				found[place{target.Name, portalOf(a)}] = t.auth
			}
		}
	}
	return found
}

// sameCHAP tells whether a login is the same with both.
func sameCHAP(a, b types.HostInternetScsiHbaAuthenticationProperties) bool {
	return a.ChapName == b.ChapName && a.ChapSecret == b.ChapSecret && a.ChapAuthenticationType == b.ChapAuthenticationType &&
		a.MutualChapName == b.MutualChapName && a.MutualChapSecret == b.MutualChapSecret && a.MutualChapAuthenticationType == b.MutualChapAuthenticationType
}

// rescan asks the targets what there is, and returns what makes sessions and disks that. The
// lock of the host's storage system is held, Fabric.mu only by what is returned.
func (h *Host) rescan() (keep func(*simulator.Context)) {
	want := map[place]types.HostInternetScsiHbaAuthenticationProperties{}
	if h.enabled {
		want = h.places()
	}
	links, numbers := maps.Clone(h.links), maps.Clone(h.numbers)
	var replaced []*link
	for at, auth := range want {
		if l := links[at]; l != nil && l.session() != nil {
			l.next(auth) // a session that stands is not asked for the secret again
			continue
		} else if l != nil && sameCHAP(l.credentials(), auth) {
			continue
		}
		l, err := h.open(at, auth)
		if err != nil {
			h.f.log.Info("login failed", "host", h.sys.Name, "target", at.target, "at", at.portal, "err", err)
			continue
		}
		if old := links[at]; old != nil {
			replaced = append(replaced, old)
		}
		links[at] = l
		if _, known := numbers[at]; !known {
			numbers[at] = len(numbers)
		}
	}
	found, told := h.ask(links, numbers)
	return func(*simulator.Context) {
		h.links, h.numbers = links, numbers
		for _, l := range replaced {
			l.stop()
		}
		h.claim(found, told)
		for at, l := range h.links {
			// Like a real host it keeps a session while the send target is configured.
			if _, wanted := want[at]; !wanted && !slices.ContainsFunc(h.send, func(t sendTarget) bool { return hostPort(t.Address, t.Port) == at.portal }) {
				l.stop()
				delete(h.links, at)
			}
		}
	}
}

// ask looks at every LUN of every session, and returns the disks that there are and who told.
func (h *Host) ask(links map[place]*link, numbers map[place]int) (found map[string]*lun, told map[*link]bool) {
	found, told = map[string]*lun{}, map[*link]bool{}
	for _, l := range links {
		s := l.session()
		if s == nil {
			continue
		}
		if err := h.askAt(l, s, numbers[l.at], found); err != nil {
			h.f.log.Info("LUNs are not told", "host", h.sys.Name, "target", l.at.target, "at", l.at.portal, "err", err)
			continue
		}
		told[l] = true
	}
	return found, told
}

// claim makes the host's disks what was found. What a session that is away would tell stays
// as it was.
func (h *Host) claim(found map[string]*lun, told map[*link]bool) {
	for name, old := range h.luns {
		now := found[name]
		if now == nil {
			silent := slices.ContainsFunc(old.paths, func(p *lunPath) bool { return h.links[p.link.at] == p.link && !told[p.link] })
			if !silent && !h.uses(name) && !h.detached[name] {
				continue
			}
			found[name] = old
			old.gone = !silent
			now = old
		} else {
			now.header = old.header
		}
		for _, p := range old.paths {
			if told[p.link] && !slices.ContainsFunc(now.paths, func(q *lunPath) bool { return q != p && q.link == p.link && q.number == p.number }) && (now == old || h.links[p.link.at] != nil) {
				p.state = pathDead // a way that was there is shown as dead
			}
			if now != old && h.links[p.link.at] == p.link && !slices.ContainsFunc(now.paths, func(q *lunPath) bool { return q.link == p.link && q.number == p.number }) {
				now.paths = append(now.paths, p)
			}
		}
	}
	h.luns = found
}

func (h *Host) uses(name string) bool {
	for _, n := range h.mounted {
		if n == name {
			return true
		}
	}
	return false
}

func (h *Host) askAt(l *link, s *initiator.Session, target int, found map[string]*lun) error {
	numbers, err := reportLUNs(s)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		d, err := look(s, n)
		if err != nil {
			h.f.log.Info("a LUN is not usable", "host", h.sys.Name, "target", l.at.target, "lun", n, "err", err)
			continue
		}
		if d == nil {
			continue
		}
		name := "naa." + d.naa
		if d.naa == "" {
			name = fmt.Sprintf("mpx.%s:C0:T%d:L%d", hbaDevice, target, n) // no shared storage
		}
		disk := found[name]
		if disk == nil {
			disk = &lun{name: name, dev: d, uuid: fmt.Sprintf("02%04x0000%s%x", n, d.naa, (d.model + "      ")[:6])}
			// A host finds out once what a disk supports, when it claims it.
			known := h.luns[name]
			disk.ats = known != nil && known.ats || supportsATS(s, n)
			found[name] = disk
		}
		disk.paths = append(disk.paths, &lunPath{link: l, number: n, dev: d, pathState: d.pathState(s, n)})
	}
	return nil
}

// headerRead is what a look for a volume on a disk found; away: no path led to it, or it did
// not answer, and what it carries is not known.
type headerRead struct {
	disk     *lun
	was, now *header
	away     bool
}

// readHeaders looks for volumes on every disk that is attached. The lock of the host's
// storage system is held, Fabric.mu is not.
func (h *Host) readHeaders() []headerRead {
	type way struct {
		s      *initiator.Session
		number uint16
	}
	var out []headerRead
	var ways []way
	h.f.mu.Lock()
	for _, l := range h.luns {
		s, number, err := l.live()
		if err != nil || h.detached[l.name] {
			s = nil
		}
		out, ways = append(out, headerRead{disk: l, was: l.header}), append(ways, way{s, number})
	}
	h.f.mu.Unlock()
	for i, w := range ways {
		if w.s == nil {
			out[i].away = true
			continue
		}
		var err error
		if out[i].now, err = readHeader(w.s, w.number); err != nil {
			out[i].away = true
			h.f.log.Info("a volume header is not read", "host", h.sys.Name, "disk", out[i].disk.name, "err", err)
		}
	}
	return out
}

// keepHeaders keeps what was read, unless it was changed meanwhile, and returns the disks
// that were away: a path that came back since does not make them empty.
func keepHeaders(read []headerRead) (away map[*lun]bool) {
	away = map[*lun]bool{}
	for _, r := range read {
		if r.away {
			away[r.disk] = true
		} else if r.disk.header == r.was {
			r.disk.header = r.now
		}
	}
	return away
}

// byPath and byUUID find a disk as the API names it.
func (h *Host) byPath(p string) *lun {
	return h.luns[strings.TrimSuffix(path.Base(p), ":1")]
}

func (h *Host) byUUID(uuid string) *lun {
	for _, l := range h.luns {
		if l.uuid == uuid {
			return l
		}
	}
	return nil
}

func (h *Host) sorted() []*lun {
	out := make([]*lun, 0, len(h.luns))
	for _, l := range h.luns {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *lun) int { return cmp.Compare(a.name, b.name) })
	return out
}

// errNoVolume: the host has not mounted it.
var errNoVolume = errors.New("the host has no such datastore")

// volumeAt returns the disk of a mounted datastore.
func (h *Host) volumeAt(name string) (*lun, error) {
	for id, disk := range h.mounted {
		if l := h.luns[disk]; l != nil && l.header != nil && l.header.Label == name && !h.unmounted[id] {
			return l, nil
		}
	}
	return nil, fmt.Errorf("%s: %q: %w", h.sys.Name, name, errNoVolume)
}

// Name returns the host's name.
func (h *Host) Name() string { return h.sys.Name }

// ReadAt and WriteAt are I/O of a virtual machine on a datastore: multiples of 512 bytes,
// off from the start of its data. They go on another path, or wait, when a session ends.
func (h *Host) ReadAt(datastore string, b []byte, off int64) error {
	return h.io(datastore, off, func(s *initiator.Session, number uint16, at int64) error { return readBlocks(s, number, b, at) })
}

// WriteAt writes; see ReadAt.
func (h *Host) WriteAt(datastore string, b []byte, off int64) error {
	return h.io(datastore, off, func(s *initiator.Session, number uint16, at int64) error { return writeBlocks(s, number, b, at) })
}

// CompareAndWrite writes a block of a datastore where it is what is expected (ATS), through
// a portal, and tells whether it was. With an error it may have been written all the same.
func (h *Host) CompareAndWrite(datastore, portal string, expected, b []byte, off int64) (same bool, err error) {
	err = h.once(datastore, portal, off, func(s *initiator.Session, number uint16, at int64) error {
		return again(func(ctx context.Context) error {
			return s.CompareAndWrite(ctx, number, expected, b, uint64(at/initiator.BlockSize))
		})
	})
	if miscompared(err) {
		return false, nil
	}
	return err == nil, err
}

// ReadThrough reads through a portal, once: it does not wait for a path.
func (h *Host) ReadThrough(datastore, portal string, b []byte, off int64) error {
	return h.once(datastore, portal, off, func(s *initiator.Session, number uint16, at int64) error { return readBlocks(s, number, b, at) })
}
