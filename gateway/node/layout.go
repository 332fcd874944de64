package node

import (
	"context"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/gateway/alba"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/disk"
	"github.com/openvstorage/ovgate/gateway/layout"
	"github.com/openvstorage/ovgate/gateway/task"
)

// layoutFacts tells package layout of the node and of its disks.
func (n *node) layoutFacts(ctx context.Context) (layout.Node, []layout.Disk, error) {
	f := layout.Node{ConfigFile: n.opt.Config, User: runsAs(), Nodes: len(n.model.Nodes())}
	for _, d := range n.cfg.WriteDisks {
		f.WriteDisks = append(f.WriteDisks, layout.Dir{Path: d.Dir, Bytes: d.Bytes})
	}
	for _, d := range n.cfg.ReadCache {
		f.ReadCache = append(f.ReadCache, layout.Dir{Path: d.Dir, Bytes: d.Bytes})
	}
	osds, err := n.alba.OSDs(ctx)
	if err != nil {
		return f, nil, err
	}
	f.Devices = len(osds)
	views, err := n.alba.Disks(ctx)
	if err != nil {
		return f, nil, err
	}
	used := n.usedPlaces(osds)
	mounts := readMounts("/proc/self/mountinfo")
	disks := make([]layout.Disk, 0, len(views))
	for _, v := range views {
		d := layout.Disk{
			Name: v.Name, Path: v.Path, Link: v.Link, Model: v.Model, Serial: v.Serial, Size: v.Size, SSD: !v.Rotational, Blank: v.Usable, Holds: v.Holds,
			Has: rolesOn(v, used, mounts, osds),
		}
		n.lookMounted(v, &d)
		disks = append(disks, d)
	}
	return f, disks, nil
}

// runsAs is the name of the user that this process runs as, its number where it has none.
func runsAs() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

// usedPlace is a directory with a role.
type usedPlace struct {
	dir  string
	role layout.Role
}

// usedPlaces are the directories of this node that have a role.
func (n *node) usedPlaces(osds []alba.OSD) []usedPlace {
	out := []usedPlace{{n.dir.path, layout.DB}}
	for _, d := range n.cfg.WriteDisks {
		out = append(out, usedPlace{filepath.Clean(d.Dir), layout.Write})
	}
	for _, d := range n.cfg.ReadCache {
		out = append(out, usedPlace{filepath.Clean(d.Dir), layout.Read})
	}
	for _, d := range n.cfg.ASDs {
		out = append(out, usedPlace{filepath.Clean(d.Dir), layout.Alba})
	}
	for _, o := range osds {
		if o.Directory != "" && o.Node == n.self.ID {
			out = append(out, usedPlace{o.Directory, layout.Alba})
		}
	}
	return out
}

// rolesOn are the roles that a disk has: of directories on file systems of it, and as the disk of a device.
func rolesOn(v disk.View, used []usedPlace, mounts []mount, osds []alba.OSD) (out []layout.Role) {
	add := func(r layout.Role) {
		if !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	for _, u := range used {
		point := mountOf(mounts, u.dir).point
		if point != "" && slices.ContainsFunc(v.Mounts, func(m disk.Mount) bool { return m.Dir == point }) {
			add(u.role)
		}
	}
	if v.UUID != "" && slices.ContainsFunc(osds, func(o alba.OSD) bool { return o.UUID == v.UUID }) {
		add(layout.Alba)
	}
	return out
}

// systemDirs are where the machine's system has its file systems: nothing there or below is taken,
// empty or not. Below the second, other disks may be mounted.
var (
	systemDirs = []string{"/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/nix", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var/cache", "/var/lib/containers", "/var/lib/docker", "/var/log", "/var/spool", "/var/tmp"}
	systemTops = []string{"/", "/opt", "/srv", "/var", "/var/lib"}
)

// ofSystem tells whether something is mounted where the machine's system has it.
func ofSystem(dir string) bool {
	return slices.Contains(systemTops, dir) || slices.ContainsFunc(systemDirs, func(d string) bool { return dir == d || within(dir, d) })
}

// lookMounted adds what a file system tells that is mounted: whose it is, and whether it is empty.
func (n *node) lookMounted(v disk.View, d *layout.Disk) {
	var dirs []string
	whole := true
	for _, m := range v.Mounts {
		if !slices.Contains(dirs, m.Dir) {
			dirs = append(dirs, m.Dir)
		}
		d.System = d.System || ofSystem(m.Dir)
		whole = whole && m.Root == "/"
	}
	if !whole || d.System || len(d.Has) > 0 || len(dirs) != 1 || len(v.Holders) > 0 || v.ReadOnly || v.UUID != "" {
		return
	}
	size := n.placeSizes.ask(dirs[0])
	ctx, cancel := context.WithTimeout(context.Background(), placeWait)
	defer cancel()
	select {
	case <-size.done:
	case <-ctx.Done():
		return // it hangs
	}
	if size.err != nil || mountOf(readMounts("/proc/self/mountinfo"), dirs[0]).readOnly {
		return
	}
	made, empty := emptyPlace(dirs[0])
	if !empty {
		return
	}
	d.Mount, d.Room, d.Dirs, d.Writable = dirs[0], size.free, made, unix.Access(dirs[0], unix.W_OK|unix.X_OK) == nil
}

// emptyPlace tells whether a file system holds nothing but empty directories of roles, and which of
// these the node may write to.
func emptyPlace(dir string) (made []layout.Role, empty bool) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, false
	}
	for _, e := range entries {
		if e.Name() == "lost+found" {
			continue
		}
		role, ours := layout.RoleOf(e.Name())
		path := filepath.Join(dir, e.Name())
		if !ours || !e.IsDir() {
			return nil, false
		}
		if unix.Access(path, unix.R_OK|unix.W_OK|unix.X_OK) != nil {
			continue // of another user: root gives it to this one
		}
		if inside, err := os.ReadDir(path); err != nil || len(inside) > 0 {
			return nil, false
		}
		made = append(made, role)
	}
	return made, true
}

// claims makes devices of directories in the background, one task at a time.
type claims struct {
	tasks  *task.Book
	alba   *alba.Service
	object string // the node, as messages name it
	log    *slog.Logger
	ctx    context.Context // ends with the node
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	running string // id of the task; empty: none runs
}

func newClaims(n *node, tasks *task.Book) *claims {
	c := &claims{tasks: tasks, alba: n.alba, object: n.object(), log: n.log}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// close ends what runs, which is completed when it is asked for again.
func (c *claims) close() error {
	c.stop()
	c.wg.Wait()
	return nil
}

// begin begins to make devices of directories, and returns the id of the task. What was begun
// before and did not end is completed.
func (c *claims) begin(dirs []string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != "" {
		return "", &control.Error{Code: control.CodeInUse, Object: "task " + c.running, Message: "disks of this node are being claimed", Hint: "wait for its end: ovgate task wait " + c.running}
	}
	ctx, cancel := context.WithCancel(c.ctx)
	c.running = task.NewID(task.Claim)
	e := c.tasks.Begin(
		task.Task{ID: c.running, Kind: task.Claim, Object: c.object, What: "make devices of its disks", Total: int64(len(dirs)), Unit: "disks"}, nil,
		func(context.Context) error { cancel(); return nil },
	)
	id := c.running
	c.wg.Go(func() {
		defer cancel()
		state, err := c.run(ctx, e, dirs)
		c.mu.Lock()
		c.running = ""
		c.mu.Unlock()
		if err == nil {
			e.End(state, "", "")
			return
		}
		e.End(state, strings.TrimPrefix(err.Error(), "alba: "), "put that right, then apply the layout again: what was claimed stays so")
	})
	return id, nil
}

// run claims directories until one cannot be.
func (c *claims) run(ctx context.Context, e *task.Entry, dirs []string) (task.State, error) {
	for i, dir := range dirs {
		e.Set(func(t *task.Task) { t.What, t.Done = "make a device of "+dir, int64(i) })
		_, err := c.alba.Claim(ctx, alba.Claim{Directory: dir})
		if ctx.Err() != nil {
			return task.Cancelled, nil
		}
		if err != nil {
			c.log.Error("disk not claimed", "directory", dir, "err", err)
			return task.Failed, err
		}
	}
	e.Set(func(t *task.Task) {
		t.What, t.Done = "make devices of its disks", int64(len(dirs))
	})
	return task.Done, nil
}
