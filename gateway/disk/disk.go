// Package disk knows the disks of this machine, and makes one an ASD's: probe, file
// system, mount, and a label that says whose disk it is. `ovgate asd --disk` and the
// list of disks of a node use it. It works as root on Linux.
//
// # Disk
//
//	0                          fs end      size-768 KiB       size
//	|--- xfs, UUID = the ASD's ---|-- zero --|-- label 4 KiB --|-- zero --|
//
// The label (512 bytes, then zeros) is outside of the file system, so that it is
// there before the file system and says what a power cut left:
//
//	magic 16 | version 4 | state 4 | ASD's UUID as text 36 | size of the disk 8 |
//	length 2, serial 128 | length 2, WWN 160 | zeros | CRC32C of all before 4
//
//	(blank) ─label─► making ─mkfs─► formatted ─mount, ASD made─► ready
//
// # Invariants
//
//	K1  Nothing is written to a disk that holds anything, is mounted or has a
//	    holder, unless its serial is given to erase it; never to one of ovgate whose
//	    file system was made. The kernel's exclusive use is asked for as well.
//	K2  A disk in state making is made anew only while it holds nothing, or the
//	    remains of a mkfs with the label's own UUID, which was drawn for it.
//	K3  A label counts on the disk with the serial and WWN in it only: a copy of a
//	    disk is not that disk.
//	K4  The directory below the mount keeps the name of its disk: another disk is not
//	    mounted there.
//	K5  One process has a disk at a time: it holds the device locked.
package disk

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Errors of a disk that is not used. Each comes with the disk and what to do.
var (
	ErrHolds = errors.New("the disk holds something")
	ErrInUse = errors.New("the disk is in use")
	ErrWrong = errors.New("it is not the disk that belongs there")
	ErrUnfit = errors.New("it cannot be the disk of an ASD")
)

// System is where the kernel tells of disks. The zero value is this machine's.
type System struct {
	Sys  string // "": /sys
	Proc string // "": /proc
	Dev  string // "": /dev
}

func (s System) sys(parts ...string) string {
	return filepath.Join(append([]string{cmp.Or(s.Sys, "/sys")}, parts...)...)
}
func (s System) proc(parts ...string) string {
	return filepath.Join(append([]string{cmp.Or(s.Proc, "/proc")}, parts...)...)
}
func (s System) dev(parts ...string) string {
	return filepath.Join(append([]string{cmp.Or(s.Dev, "/dev")}, parts...)...)
}

// Disk is a whole disk.
type Disk struct {
	Name       string // the kernel's, such as sda
	Path       string // of the device
	Link       string // name that stays, below /dev/disk/by-id; empty: none
	Size       int64  // bytes
	Model      string
	Serial     string // empty: it tells none
	WWN        string // empty: it tells none
	Rotational bool
	ReadOnly   bool
	Partitions []string // names
	Holders    []string // devices that are made of it
	Mounts     []Mount  // of it and its partitions
	number     string   // major:minor
}

// Mount is a place where a disk or partition is mounted.
type Mount struct {
	Dir    string
	number string // of the device
	Root   string // what of the file system is mounted
}

const (
	// maxAttribute bounds what is read of a file in /sys, in bytes.
	maxAttribute = 4096
	// maxMounts bounds what is read of mountinfo, in bytes.
	maxMounts = 16 << 20
)

// limited reads a file of at most limit bytes.
func limited(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// attribute reads a text in /sys; empty where there is none.
func (s System) attribute(parts ...string) string {
	b, _ := limited(s.sys(parts...), maxAttribute)
	return printable(string(b))
}

// printable drops padding and what a terminal should not get.
func printable(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text))
}

// unlisted begin the names of devices that are no disks: memory, optical and floppy
// drives.
var unlisted = []string{"ram", "zram", "sr", "fd"}

// List returns the disks of the machine, by name.
func (s System) List() ([]Disk, error) {
	entries, err := os.ReadDir(s.sys("block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var out []Disk
	for _, e := range entries {
		if slices.ContainsFunc(unlisted, func(p string) bool { return strings.HasPrefix(e.Name(), p) }) {
			continue
		}
		d, err := s.disk(e.Name())
		if errors.Is(err, fs.ErrNotExist) { // it left meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		if d.Size > 0 {
			out = append(out, d)
		}
	}
	return out, nil
}

// disk reads what the kernel tells of a disk.
func (s System) disk(name string) (Disk, error) {
	d := Disk{Name: name, Path: s.dev(strings.ReplaceAll(name, "!", "/")), number: s.attribute("block", name, "dev")}
	sectors, err := strconv.ParseInt(s.attribute("block", name, "size"), 10, 64)
	if err != nil || sectors < 0 || sectors > 1<<53 || d.number == "" {
		return d, fmt.Errorf("disk %s: the kernel does not tell its size and number: %w", name, fs.ErrNotExist)
	}
	d.Size = sectors * 512
	d.Model = strings.TrimSpace(s.attribute("block", name, "device", "vendor") + " " + s.attribute("block", name, "device", "model"))
	d.Serial = cmp.Or(s.attribute("block", name, "device", "serial"), s.attribute("block", name, "serial"), s.page80(name))
	d.WWN = cmp.Or(s.attribute("block", name, "wwid"), s.attribute("block", name, "device", "wwid"))
	d.Rotational = s.attribute("block", name, "queue", "rotational") == "1"
	d.ReadOnly = s.attribute("block", name, "ro") == "1"
	d.Link = s.link(name)
	numbers := []string{d.number}
	d.Holders = s.names("block", name, "holders")
	for _, part := range s.names("block", name) {
		if s.attribute("block", name, part, "partition") == "" {
			continue
		}
		d.Partitions = append(d.Partitions, part)
		d.Holders = append(d.Holders, s.names("block", name, part, "holders")...)
		numbers = append(numbers, s.attribute("block", name, part, "dev"))
	}
	mounts, err := s.mounts()
	if err != nil {
		return d, err
	}
	for _, m := range mounts {
		if slices.Contains(numbers, m.number) {
			d.Mounts = append(d.Mounts, m)
		}
	}
	return d, nil
}

func (s System) names(parts ...string) []string {
	entries, _ := os.ReadDir(s.sys(parts...))
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// page80 is the serial in a SCSI disk's vital product data (SPC, Unit Serial Number):
// a header of 4 bytes with the length, then the text.
func (s System) page80(name string) string {
	b, _ := limited(s.sys("block", name, "device", "vpd_pg80"), maxAttribute)
	if len(b) < 4 || b[1] != 0x80 {
		return ""
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	return printable(string(b[4:min(len(b), 4+n)]))
}

// link is the first name below /dev/disk/by-id that leads to a disk.
func (s System) link(name string) string {
	dir := s.dev("disk", "by-id")
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if to, err := filepath.EvalSymlinks(path); err == nil && filepath.Base(to) == name {
			return path
		}
	}
	return ""
}

// mounts reads the mounts of this process (proc(5), mountinfo).
func (s System) mounts() ([]Mount, error) {
	b, err := limited(s.proc("self", "mountinfo"), maxMounts)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	var out []Mount
	for line := range bytes.Lines(b) {
		if f := strings.Fields(string(line)); len(f) > 4 {
			out = append(out, Mount{Dir: unescape(f[4]), number: f[2], Root: unescape(f[3])})
		}
	}
	return out, nil
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// Find returns the disk of a device's path. A partition is refused.
func (s System) Find(path string) (Disk, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Disk{}, fmt.Errorf("disk %s: %w: ovgate osd discover lists the disks of a node", path, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return Disk{}, fmt.Errorf("disk %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Disk{}, fmt.Errorf("disk %s: %w: it is no block device; name a disk, or a directory with --dir alone", path, ErrUnfit)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	entry, err := filepath.EvalSymlinks(s.sys("dev", "block", number))
	if err != nil {
		return Disk{}, fmt.Errorf("disk %s: the kernel does not tell of device %s: %w", path, number, err)
	}
	name := filepath.Base(entry)
	if s.attribute("dev", "block", number, "partition") != "" {
		return Disk{}, fmt.Errorf("disk %s: %w: it is a partition of %s; name a whole disk, or mount it and name the directory with --dir alone", path, ErrUnfit, filepath.Base(filepath.Dir(entry)))
	}
	d, err := s.disk(name)
	d.Path = real
	return d, err
}
