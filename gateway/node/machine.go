package node

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/gateway/observe"
)

const (
	// machineEvery is how often it is looked at what the machine gives.
	machineEvery = 5 * time.Second
	// mountsMost bounds the lines of mountinfo that are read.
	mountsMost = 10000
)

// machine looks at the machine. No file system but that of the data directory is touched: one
// in the network may hang.
func (n *node) machine() observe.Machine {
	var m observe.Machine
	var st unix.Statfs_t
	if unix.Statfs(n.dir.path, &st) == nil {
		m.Inodes, m.FreeInodes = st.Files, st.Ffree
	}
	var limit unix.Rlimit
	// Since Linux 6.2 the size of this directory is the number of open files.
	if fd, err := os.Stat("/proc/self/fd"); err == nil && unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		m.Files, m.FilesMost = uint64(max(fd.Size(), 0)), limit.Cur
	}
	m.Disks = fileSystems(n.directories())
	return m
}

// directories are those that the node keeps something in.
func (n *node) directories() []string {
	out := []string{n.dir.path}
	for _, d := range slices.Concat(n.cfg.WriteDisks, n.cfg.ReadCache) {
		out = append(out, d.Dir)
	}
	for _, d := range n.cfg.ASDs {
		out = append(out, d.Dir)
	}
	for _, p := range n.model.VPools() {
		if p.Backend.Kind == kindLocal && p.Node == n.self.ID {
			out = append(out, p.Backend.Path)
		}
	}
	return out
}

// mount is a line of mountinfo.
type mount struct {
	point, device string
	readOnly      bool
}

// fileSystems returns those below the directories with which something is wrong. Symbolic
// links in their names are not followed.
func fileSystems(dirs []string) []observe.FileSystem {
	mounts := readMounts("/proc/self/mountinfo")
	found := map[string]*observe.FileSystem{}
	var out []observe.FileSystem
	for _, dir := range dirs {
		in := mountOf(mounts, dir)
		if in.device == "" {
			continue
		}
		f := found[in.device]
		if f == nil {
			f = &observe.FileSystem{Device: in.device}
			f.Errors, f.Last = kernelErrors("/sys/fs/ext4", in.device)
			found[in.device] = f
		}
		f.ReadOnly = f.ReadOnly || in.readOnly
		f.Dirs = append(f.Dirs, dir)
	}
	for _, f := range found {
		if f.ReadOnly || f.Errors > 0 {
			out = append(out, *f)
		}
	}
	slices.SortFunc(out, func(a, b observe.FileSystem) int { return strings.Compare(a.Device, b.Device) })
	return out
}

// mountOf is what a directory is on; none has no device. Of two on one point the later one is seen.
func mountOf(mounts []mount, dir string) (in mount) {
	for _, m := range mounts {
		if (dir == m.point || within(dir, m.point)) && len(m.point) >= len(in.point) {
			in = m
		}
	}
	return in
}

// readMounts reads what is mounted; what cannot be read is not there.
func readMounts(file string) (out []mount) {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() && len(out) < mountsMost {
		// ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS...] - TYPE SOURCE SUPEROPTIONS
		before, after, ok := strings.Cut(lines.Text(), " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if !ok || len(b) < 6 || len(a) < 2 {
			continue
		}
		options := strings.Split(b[5], ",")
		if len(a) > 2 {
			options = append(options, strings.Split(a[2], ",")...)
		}
		m := mount{point: unescape(b[4]), device: a[1], readOnly: slices.Contains(options, "ro") || slices.Contains(options, "emergency_ro")}
		if strings.HasPrefix(m.device, "/dev/") {
			m.device = filepath.Base(m.device)
		}
		out = append(out, m)
	}
	return out
}

// unescape gives blanks and the like back, which mountinfo writes as \040.
func unescape(s string) string {
	for i := 0; i+3 < len(s); i++ {
		if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); s[i] == '\\' && err == nil {
			s = s[:i] + string([]byte{byte(c)}) + s[i+4:]
		}
	}
	return s
}

// kernelErrors returns how many errors the kernel met of an ext4 file system since it was
// checked, and when last. Of other file systems nothing is known.
func kernelErrors(root, device string) (count uint64, last time.Time) {
	read := func(name string) uint64 {
		b, err := os.ReadFile(filepath.Join(root, filepath.Base(device), name))
		if err != nil {
			return 0
		}
		v, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		return v
	}
	if at := read("last_error_time"); at > 0 {
		last = time.Unix(int64(at), 0)
	}
	return read("errors_count"), last
}
