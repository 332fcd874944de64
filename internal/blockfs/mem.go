package blockfs

import (
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openvstorage/ovgate/internal/clock"
)

// Mem is a file system in memory that keeps apart what is durable and what is
// not, after rules B1-B5, and can tell what a power cut would leave.
//
//	names:    live tree   = durable tree    + pending name operations per directory
//	content:  live pages  = durable pages   + pending changes per file
//
// Pages are immutable and shared between live and durable content and between
// clones, so a Crash costs little more than its directory entries.
//
// Every operation that changes something is done in three steps: its effect
// becomes visible and pending; the hook runs, without locks; it becomes durable
// if its kind promises that, and returns. A Crash from the hook therefore meets
// the operation in flight.
type Mem struct {
	mu       sync.RWMutex
	root     *node
	lastID   int64 // of changes and name operations
	ops      int64 // operations announced to the hook
	hook     func(n int64, op OpInfo)
	capacity int64 // pages
	used     int64 // pages of live content
	clock    clock.Clock
	dead     bool
}

var _ FS = (*Mem)(nil)

// node is a file or a directory. Fields are guarded by Mem.mu.
type node struct {
	dir bool

	// Files.
	live, durable content
	pending       []change // in order of id
	lost          bool     // live shows changes that will never be durable
	links, opens  int
	modTime       time.Time

	// Directories.
	names        map[string]*node
	durableNames map[string]*node
	pendingNames []nameOp // in order of id
}

// nameOp is one not yet durable operation on a directory's names.
type nameOp struct {
	id   int64
	sets []nameSet
}

// nameSet gives a name to a node, or takes it away (nil).
type nameSet struct {
	name string
	node *node
}

func newDir() *node {
	return &node{dir: true, names: map[string]*node{}, durableNames: map[string]*node{}}
}

// NewMem returns an empty file system without a bound on its capacity.
func NewMem() *Mem {
	return &Mem{root: newDir(), capacity: math.MaxInt64 / pageSize}
}

// SetHook has fn called in the middle of every operation that changes
// something: its effect is visible and pending, not yet durable. n counts such
// operations from 1. fn runs on the operation's goroutine, possibly on several
// at once, without locks: it may call Crash, Kill and any method of the FS. nil
// removes the hook.
func (m *Mem) SetHook(fn func(n int64, op OpInfo)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = fn
}

// SetCapacity bounds the live content, in bytes (rounded down to pages); what
// exceeds it fails with ENOSPC.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes / pageSize
}

// SetClock sets the source of modification times; nil (as at first) records none.
func (m *Mem) SetClock(c clock.Clock) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clock = c
}

// Kill ends the file system: all later operations, and those in flight, fail
// with ErrCrashed. A test calls it on the original after Crash, so that the code
// that still runs on it notices. Crash keeps working, on the state as it was.
func (m *Mem) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
}

// LoseUnsynced makes a file forget to write out what is pending, as Linux does
// when a Sync or a write-back fails: reads still show it, and a later Sync
// succeeds without making it durable. A test calls it when it injects an error
// into Sync (B5).
func (m *Mem) LoseUnsynced(name string) error {
	clean, err := cleanPath("lose", name)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(clean)
	if err == nil && n.dir {
		err = syscall.EISDIR
	}
	if err != nil {
		return pathError(OpSync, clean, err)
	}
	if len(n.pending) > 0 {
		n.pending, n.lost = nil, true
	}
	return nil
}

// Ops returns how many operations that change something were made.
func (m *Mem) Ops() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.ops
}

// step makes one changing operation: effect (visible, pending), hook, settle
// (durable; may be nil). effect and settle run with the lock held.
func (m *Mem) step(op OpInfo, effect func() error, settle func()) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return pathError(op.Kind, op.Path, ErrCrashed)
	}
	if err := effect(); err != nil {
		m.mu.Unlock()
		return pathError(op.Kind, op.Path, err)
	}
	m.ops++
	op.N = m.ops
	hook := m.hook
	m.mu.Unlock()
	if hook != nil {
		hook(op.N, op)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return pathError(op.Kind, op.Path, ErrCrashed)
	}
	if settle != nil {
		settle()
	}
	return nil
}

func pathError(kind Kind, name string, err error) error {
	return &fs.PathError{Op: kind.String(), Path: name, Err: err}
}

func (m *Mem) nextID() int64 {
	m.lastID++
	return m.lastID
}

func (m *Mem) now() time.Time {
	if m.clock == nil {
		return time.Time{}
	}
	return m.clock.Now()
}

// find returns the node of a clean path.
func (m *Mem) find(clean string) (*node, error) {
	n := m.root
	for _, seg := range splitPath(clean) {
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
		next, ok := n.names[seg]
		if !ok {
			return nil, syscall.ENOENT
		}
		n = next
	}
	return n, nil
}

// findDir returns the directory of a clean path.
func (m *Mem) findDir(clean string) (*node, error) {
	n, err := m.find(clean)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	return n, err
}

// findParent returns the directory that holds, or would hold, a clean path, and
// the base name.
func (m *Mem) findParent(clean string) (*node, string, error) {
	if clean == "." {
		return nil, "", syscall.EBUSY // the root cannot be made, moved or removed
	}
	dir, err := m.findDir(path.Dir(clean))
	return dir, path.Base(clean), err
}

// setNames makes one name operation.
func (m *Mem) setNames(dir *node, sets ...nameSet) {
	for _, s := range sets {
		if s.node == nil {
			delete(dir.names, s.name)
		} else {
			dir.names[s.name] = s.node
		}
	}
	dir.pendingNames = append(dir.pendingNames, nameOp{id: m.nextID(), sets: sets})
}

// settleNames makes a directory's name operations up to an id durable.
func settleNames(dir *node, upTo int64) {
	n := 0
	for n < len(dir.pendingNames) && dir.pendingNames[n].id <= upTo {
		n++
	}
	applyNames(dir.durableNames, dir.pendingNames[:n])
	dir.pendingNames = slices.Delete(dir.pendingNames, 0, n)
}

func applyNames(names map[string]*node, ops []nameOp) {
	for _, op := range ops {
		for _, s := range op.sets {
			if s.node == nil {
				delete(names, s.name)
			} else {
				names[s.name] = s.node
			}
		}
	}
}

// release gives a file's space back when nothing refers to it any more.
func (m *Mem) release(n *node) {
	if !n.dir && n.links == 0 && n.opens == 0 {
		m.used -= n.live.used
		n.live = content{}
	}
}

// unlink takes one name off a node.
func (m *Mem) unlink(n *node) {
	n.links--
	m.release(n)
}

// Open implements FS.
func (m *Mem) Open(name string, flag Flag) (File, error) {
	clean, err := cleanPath("open", name)
	if err != nil {
		return nil, err
	}
	f := &memFile{m: m, path: clean, flag: flag}
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return nil, pathError(OpOpen, clean, ErrCrashed)
	}
	n, err := m.find(clean)
	if err == nil && (flag&Create == 0 || flag&Excl == 0) {
		defer m.mu.Unlock()
		if n.dir {
			return nil, pathError(OpOpen, clean, syscall.EISDIR)
		}
		n.opens++
		f.n = n
		return f, nil
	}
	m.mu.Unlock()
	if err != nil && (err != syscall.ENOENT || flag&Create == 0) {
		return nil, pathError(OpOpen, clean, err)
	}
	err = m.step(OpInfo{Kind: OpOpen, Path: clean}, func() error { return m.create(f, clean) }, nil)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// create makes a file for f, or takes the one that appeared meanwhile.
func (m *Mem) create(f *memFile, clean string) error {
	dir, base, err := m.findParent(clean)
	if err != nil {
		return err
	}
	n, ok := dir.names[base]
	switch {
	case !ok:
		n = &node{links: 1, modTime: m.now()}
		m.setNames(dir, nameSet{base, n})
	case f.flag&Excl != 0:
		return syscall.EEXIST
	case n.dir:
		return syscall.EISDIR
	}
	n.opens++
	f.n = n
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	clean, err := cleanPath("remove", name)
	if err != nil {
		return err
	}
	return m.step(OpInfo{Kind: OpRemove, Path: clean}, func() error {
		dir, base, err := m.findParent(clean)
		if err != nil {
			return err
		}
		n, ok := dir.names[base]
		if !ok {
			return syscall.ENOENT
		}
		if n.dir && len(n.names) > 0 {
			return syscall.ENOTEMPTY
		}
		m.setNames(dir, nameSet{base, nil})
		m.unlink(n)
		return nil
	}, nil)
}

// Rename implements FS.
func (m *Mem) Rename(oldname, newname string) error {
	oldp, err := cleanPath("rename", oldname)
	if err != nil {
		return err
	}
	newp, err := cleanPath("rename", newname)
	if err != nil {
		return err
	}
	return m.step(OpInfo{Kind: OpRename, Path: oldp, NewPath: newp}, func() error { return m.rename(oldp, newp) }, nil)
}

// rename moves a name; the lock is held.
func (m *Mem) rename(oldp, newp string) error {
	from, oldBase, err := m.findParent(oldp)
	if err != nil {
		return err
	}
	to, newBase, err := m.findParent(newp)
	if err != nil {
		return err
	}
	n, ok := from.names[oldBase]
	if !ok {
		return syscall.ENOENT
	}
	target, replaced := to.names[newBase]
	switch {
	case n == target:
		return nil // two names of one file: POSIX leaves both
	case n.dir && strings.HasPrefix(newp, oldp+"/"):
		return syscall.EINVAL
	case replaced && target.dir && !n.dir:
		return syscall.EISDIR
	case replaced && !target.dir && n.dir:
		return syscall.ENOTDIR
	case replaced && target.dir && len(target.names) > 0:
		return syscall.ENOTEMPTY
	}
	if from == to {
		m.setNames(to, nameSet{oldBase, nil}, nameSet{newBase, n})
	} else {
		m.setNames(to, nameSet{newBase, n})
		m.setNames(from, nameSet{oldBase, nil})
	}
	if replaced {
		m.unlink(target)
	}
	return nil
}

// Link implements FS.
func (m *Mem) Link(oldname, newname string) error {
	oldp, err := cleanPath("link", oldname)
	if err != nil {
		return err
	}
	newp, err := cleanPath("link", newname)
	if err != nil {
		return err
	}
	return m.step(OpInfo{Kind: OpLink, Path: oldp, NewPath: newp}, func() error {
		n, err := m.find(oldp)
		if err != nil {
			return err
		}
		if n.dir {
			return syscall.EPERM
		}
		dir, base, err := m.findParent(newp)
		if err != nil {
			return err
		}
		if _, ok := dir.names[base]; ok {
			return syscall.EEXIST
		}
		n.links++
		m.setNames(dir, nameSet{base, n})
		return nil
	}, nil)
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string) error {
	clean, err := cleanPath("mkdir", name)
	if err != nil {
		return err
	}
	dir := "."
	for _, seg := range splitPath(clean) {
		parent := dir
		dir = path.Join(dir, seg)
		if err := m.mkdir(parent, seg, dir); err != nil {
			return err
		}
	}
	return nil
}

// mkdir makes one directory durably, or makes durable the one that is there.
func (m *Mem) mkdir(parent, base, dir string) error {
	var p *node
	var id int64
	return m.step(OpInfo{Kind: OpMkdir, Path: dir}, func() error {
		var err error
		if p, err = m.findDir(parent); err != nil {
			return err
		}
		if n, ok := p.names[base]; !ok {
			m.setNames(p, nameSet{base, newDir()})
		} else if !n.dir {
			return syscall.ENOTDIR
		}
		id = m.lastID
		return nil
	}, func() { settleNames(p, id) })
}

// SyncDir implements FS.
func (m *Mem) SyncDir(name string) error {
	clean, err := cleanPath("syncdir", name)
	if err != nil {
		return err
	}
	var dir *node
	var id int64
	return m.step(OpInfo{Kind: OpSyncDir, Path: clean}, func() error {
		var err error
		dir, err = m.findDir(clean)
		id = m.lastID
		return err
	}, func() { settleNames(dir, id) })
}

// List implements FS.
func (m *Mem) List(name string) ([]Info, error) {
	clean, err := cleanPath("list", name)
	if err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.dead {
		return nil, pathError(OpList, clean, ErrCrashed)
	}
	dir, err := m.findDir(clean)
	if err != nil {
		return nil, pathError(OpList, clean, err)
	}
	infos := make([]Info, 0, len(dir.names))
	for base, n := range dir.names {
		infos = append(infos, n.info(base))
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

// ListNames implements FS.
func (m *Mem) ListNames(name string) ([]Info, error) {
	infos, err := m.List(name)
	for i := range infos {
		infos[i].Size, infos[i].ModTime = 0, time.Time{}
	}
	return infos, err
}

func (n *node) info(base string) Info {
	if n.dir {
		return Info{Name: base, Dir: true}
	}
	return Info{Name: base, Size: n.live.size, ModTime: n.modTime}
}

// Stat implements FS.
func (m *Mem) Stat(name string) (Info, error) {
	clean, err := cleanPath("stat", name)
	if err != nil {
		return Info{}, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.dead {
		return Info{}, pathError(OpStat, clean, ErrCrashed)
	}
	n, err := m.find(clean)
	if err != nil {
		return Info{}, pathError(OpStat, clean, err)
	}
	return n.info(path.Base(clean)), nil
}

// Usage implements FS. Only file content counts.
func (m *Mem) Usage() (total, free int64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.dead {
		return 0, 0, ErrCrashed
	}
	return m.capacity * pageSize, max(0, m.capacity-m.used) * pageSize, nil
}

// DirectIO implements FS. Mem checks alignment as a device would.
func (m *Mem) DirectIO() bool { return true }
