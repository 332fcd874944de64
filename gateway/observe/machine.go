package observe

import (
	"fmt"
	"strings"
	"time"
)

// Thresholds of what the machine gives a node.
const (
	// inodesWarn is percent of a file system's inodes in use.
	inodesWarn = 90
	// filesWarn is percent of the files that the process may have open: each session and
	// each connection to a store is one.
	filesWarn = 80
)

// Machine is what is looked at of the machine that the node runs on.
type Machine struct {
	// Inodes are of the data directory's file system, 0: it has no such bound.
	Inodes, FreeInodes uint64
	// Files are open in this process, of FilesMost; 0: not known.
	Files, FilesMost uint64
	// Disks are the file systems below directories of this node with which something is wrong.
	Disks []FileSystem
}

// FileSystem is what the kernel says of one.
type FileSystem struct {
	Device   string // sdb1
	Dirs     []string
	ReadOnly bool      // it takes no writes
	Errors   uint64    // that the kernel met since it was last checked
	Last     time.Time // the last of them; zero: not known
}

func (m Machine) check(add addCause) {
	if m.Inodes > 0 {
		if used := 100 - int(float64(m.FreeInodes)/float64(m.Inodes)*100); used >= inodesWarn {
			add(Warning, "data_dir_inodes", "", "delete other programs' files there, or make a file system with more inodes", "The data directory's file system has %d %% of its inodes in use", used)
		}
	}
	if m.FilesMost > 0 && m.Files*100 >= m.FilesMost*filesWarn {
		add(Warning, "open_files", "", "raise the limit of open files (LimitNOFILE of the service), then restart ovgate", "%d of %d files that ovgate may open are open: sessions and connections end in errors beyond that", m.Files, m.FilesMost)
	}
	for _, d := range m.Disks {
		dirs := strings.Join(d.Dirs, ", ")
		if d.ReadOnly {
			add(Bad, "disk_read_only", "disk "+d.Device, "look up why in the kernel's log (dmesg), stop ovgate, check the file system, then mount it again for writing", "The file system on %s, with %s, takes no writes", d.Device, dirs)
		}
		if d.Errors == 0 {
			continue
		}
		text := fmt.Sprintf("The kernel met %d errors of the file system on %s, with %s", d.Errors, d.Device, dirs)
		if !d.Last.IsZero() {
			text += ", the last at " + d.Last.UTC().Format(time.RFC3339)
		}
		add(Bad, "disk_errors", "disk "+d.Device, "look at the kernel's log (dmesg) and smartctl -a of that disk, replace it if it fails, else stop ovgate and check the file system (e2fsck -f)", "%s", text)
	}
}
