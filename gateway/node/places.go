package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/gateway/api"
	"github.com/openvstorage/ovgate/internal/procs"
)

// placeWait is how long a file system may take to tell its size: one in the network may hang.
const placeWait = time.Second

// placeSizes asks file systems for their sizes. One that does not answer keeps one goroutine,
// whoever asks how often.
type placeSizes struct {
	mu     sync.Mutex
	asking map[string]*placeSize
	statfs func(path string, st *unix.Statfs_t) error // unix.Statfs; for tests
}

// placeSize is what a file system answers once done is closed.
type placeSize struct {
	done        chan struct{}
	total, free int64 // bytes
	err         error
}

// ask begins to ask the file system of a directory, or joins who asks already.
func (p *placeSizes) ask(path string) *placeSize {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.asking[path]; s != nil {
		return s
	}
	if p.asking == nil {
		p.asking = map[string]*placeSize{}
	}
	statfs := p.statfs
	if statfs == nil {
		statfs = unix.Statfs
	}
	s := &placeSize{done: make(chan struct{})}
	p.asking[path] = s
	go func() {
		var st unix.Statfs_t
		if s.err = statfs(path, &st); s.err == nil {
			s.total, s.free = int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
		}
		p.mu.Lock()
		delete(p.asking, path)
		p.mu.Unlock()
		close(s.done)
	}()
	return s
}

// machineView is what the API shows of this machine.
func (n *node) machineView() api.Machine {
	m := api.Machine{Cpus: procs.CPUs(), System: systemName("/etc/os-release"), Listeners: n.listeners(), Places: n.places()}
	m.Hostname, _ = os.Hostname()
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	if f, err := os.Open("/proc/meminfo"); err == nil {
		m.Memory, _ = memTotal(f)
		f.Close()
	}
	return m
}

// systemName reads what a machine's system calls itself; empty: it does not tell.
func systemName(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"'`)
		}
	}
	return ""
}

// listeners are where the node is reached.
func (n *node) listeners() []api.Listener {
	out := []api.Listener{}
	add := func(service api.ListenerService, addresses ...string) {
		addresses = slices.DeleteFunc(addresses, func(a string) bool { return a == "" })
		if len(addresses) > 0 {
			out = append(out, api.Listener{Service: service, Addresses: addresses})
		}
	}
	self, _ := n.model.Node(n.self.ID)
	add(api.ListenerServiceAPI, self.API)
	add(api.ListenerServiceIscsi, slices.Clone(self.Portals)...)
	add(api.ListenerServiceDtl, self.DTL)
	add(api.ListenerServiceGossip, n.member.Status().Gossip)
	add(api.ListenerServiceAlba, self.Devices)
	if r := n.cfg.Registry.Member; r != nil {
		add(api.ListenerServiceRegistry, r.Listen, r.Peers)
	}
	return out
}

// places are the directories in which the node keeps something.
func (n *node) places() []api.MachinePlace {
	var all []api.MachinePlace
	at := func(path string, role api.MachinePlaceRoles) *api.MachinePlace {
		path = filepath.Clean(path)
		i := slices.IndexFunc(all, func(p api.MachinePlace) bool { return p.Path == path })
		if i < 0 {
			i, all = len(all), append(all, api.MachinePlace{Path: path})
		}
		all[i].Roles = append(all[i].Roles, role)
		return &all[i]
	}
	fault := func(p *api.MachinePlace, err error) {
		if err != nil {
			p.Problem = new(err.Error())
		}
	}
	at(n.dir.path, api.MachinePlaceRolesDB)
	if len(n.cfg.ASDs) == 0 && n.alba.Made() {
		at(n.dir.path, api.MachinePlaceRolesAlba)
	}
	usage := n.host.Usage()
	for _, d := range usage.WriteDisks {
		path := d.Name
		if !filepath.IsAbs(path) { // the journals in the data directory
			path = n.dir.path
		}
		p := at(path, api.MachinePlaceRolesWrite)
		p.Limit, p.Used = new(d.MaxBytes), new(d.Bytes-int64(d.Free)*d.ChunkBytes)
		fault(p, d.Err)
	}
	for _, d := range n.cfg.ReadCache {
		p := at(d.Dir, api.MachinePlaceRolesRead)
		p.Limit = new(d.Bytes)
		p.Problem = new("it is not used: the node's log and its health tell why")
		for _, r := range usage.ReadCaches {
			if r.Name == d.Dir {
				p.Used, p.Problem = new(r.Bytes), nil
				fault(p, r.Err)
			}
		}
	}
	for _, d := range n.cfg.ASDs {
		p := at(d.Dir, api.MachinePlaceRolesAlba)
		if d.Bytes > 0 {
			p.Limit = new(d.Bytes)
		}
	}
	for _, v := range n.model.VPools() {
		if v.Backend.Kind == kindLocal && v.Node == n.self.ID {
			at(v.Backend.Path, api.MachinePlaceRolesBackend)
		}
	}
	n.measure(all)
	return all
}

// measure adds what file systems tell of places.
func (n *node) measure(all []api.MachinePlace) {
	mounts := readMounts("/proc/self/mountinfo")
	sizes := make([]*placeSize, len(all))
	for i, p := range all {
		sizes[i] = n.placeSizes.ask(p.Path)
	}
	late, cancel := context.WithTimeout(context.Background(), placeWait)
	defer cancel()
	for i := range all {
		p, s := &all[i], sizes[i]
		in := mountOf(mounts, p.Path)
		p.Device, p.ReadOnly = in.device, in.readOnly
		select {
		case <-s.done:
			if s.err == nil {
				p.Total, p.Free = &s.total, &s.free
			} else if p.Problem == nil {
				p.Problem = new(s.err.Error())
			}
		case <-late.Done():
			if p.Problem == nil {
				p.Problem = new(fmt.Sprintf("its file system did not answer within %v", placeWait))
			}
		}
	}
}
