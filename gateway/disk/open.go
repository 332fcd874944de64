package disk

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/alba/asd"
	"github.com/openvstorage/ovgate/internal/blkprobe"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

const (
	// DefaultDir holds the mounts of disks that were given no directory, by UUID.
	DefaultDir = "/var/lib/ovgate/disk"
	// fsLabel is the label of the file systems; xfs takes 12 characters.
	fsLabel = "ovgate-asd"
	// pinName is the file below a mount that names its disk (K4).
	pinName  = "ovgate-disk"
	maxPin   = 4096 // bytes
	fsType   = "xfs"
	mkfsName = "mkfs.xfs"
	// lockWait is for udev, which locks a disk while it looks at it.
	lockWait = 10 * time.Second
	// maxOutput bounds what is told of a program that failed, in bytes.
	maxOutput = 4096
)

// Options say which disk to open.
type Options struct {
	Path string // of the device
	Dir  string // where to mount it; empty: below DefaultDir
	// ForceSerial allows to erase a disk that holds something, if that is its serial.
	ForceSerial string
	System      System
	Log         *slog.Logger // nil discards

	// step is told what was done, and may end the opening there as a power cut would:
	// for tests.
	step func(string) error
}

// Open is a disk that this process has, mounted.
type Open struct {
	Disk
	UUID  string // of the ASD on it
	Dir   string // where it is mounted
	Made  bool   // it has that ASD, which need not be made
	label label
	lock  *os.File
	log   *slog.Logger
}

// New opens a disk: one of ovgate is mounted, a blank one is made one first, any other
// is refused and stays as it is. Close what it returns.
func New(ctx context.Context, o Options) (*Open, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.step == nil {
		o.step = func(string) error { return nil }
	}
	d, err := o.System.Find(o.Path)
	if err != nil {
		return nil, err
	}
	lock, err := lockDevice(ctx, d.Path)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", o.Path, err)
	}
	out, err := o.open(ctx, d, lock)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("disk %s: %w", o.Path, err), lock.Close())
	}
	return out, nil
}

func (o Options) open(ctx context.Context, d Disk, lock *os.File) (*Open, error) {
	if d.Size < MinSize || d.ReadOnly {
		return nil, fmt.Errorf("%w: it has %d bytes, read-only %v: use one of at least %d bytes that can be written", ErrUnfit, d.Size, d.ReadOnly, int64(MinSize))
	}
	l, err := readLabel(lock, d.Size)
	if err != nil && (o.ForceSerial == "" || !errors.Is(err, errLabel)) {
		return nil, fmt.Errorf("%w: nothing was changed; to give up what it holds: %s", err, eraseCommand(d))
	}
	if l != nil {
		if err := l.of(d); err != nil {
			return nil, err
		}
	}
	out := &Open{Disk: d, Dir: o.Dir, lock: lock, log: o.Log}
	if l != nil {
		out.label, out.UUID = *l, l.uuid
	} else if out.label, err = o.newLabel(d); err != nil {
		return nil, err
	}
	out.UUID, out.Made = out.label.uuid, out.label.state == ready
	if out.Dir == "" {
		out.Dir = filepath.Join(DefaultDir, out.UUID)
	}
	if out.Dir, err = filepath.Abs(out.Dir); err != nil {
		return nil, err
	}
	if l != nil && l.state >= formatted && len(d.Mounts) == 1 && d.Mounts[0] == (Mount{out.Dir, d.number, "/"}) && len(d.Holders) == 0 {
		out.log.Info("disk is mounted already", "disk", d.Path, "dir", out.Dir) // a process before this one was killed
		return out, nil
	}
	if err := unused(d); err != nil {
		return nil, err
	}
	if err := o.checkDir(out.Dir, out.UUID, l != nil); err != nil {
		return nil, err
	}
	if err := o.make(ctx, out, l); err != nil {
		return nil, err
	}
	return out, o.mount(out)
}

// newLabel draws the label of a disk that has none.
func (o Options) newLabel(d Disk) (label, error) {
	id, err := asd.NewID(rand.Reader)
	return label{state: making, uuid: id, size: d.Size, serial: d.Serial, wwn: d.WWN}, err
}

// lockDevice keeps K5. The lock is that of systemd's "Locking Block Device Access",
// so that udev waits too.
func lockDevice(ctx context.Context, path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: disks are used as root", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%w: another process has locked it; stop that one", ErrInUse), f.Close())
		case <-tick.C:
		}
	}
}

// unused refuses a disk that somebody uses.
func unused(d Disk) error {
	if len(d.Mounts) > 0 {
		return fmt.Errorf("%w: it is mounted on %s; unmount it, or choose another disk; nothing was changed", ErrInUse, d.Mounts[0].Dir)
	}
	if len(d.Holders) > 0 {
		return fmt.Errorf("%w: it is part of %s; take it out there, or choose another disk; nothing was changed", ErrInUse, strings.Join(d.Holders, ", "))
	}
	f, err := exclusive(d.Path)
	if err != nil {
		return err
	}
	return f.Close()
}

// exclusive opens a device as the only user that the kernel lets.
func exclusive(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w: the kernel says that it has a user (a mount, swap space, RAID, LVM or multipath); nothing was changed", ErrInUse)
	}
	return f, err
}

// checkDir refuses a directory that another disk belongs to, or that holds anything.
func (o Options) checkDir(dir, uuid string, known bool) error {
	mounts, err := o.System.mounts()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(mounts, func(m Mount) bool { return m.Dir == dir }) {
		return fmt.Errorf("directory %s: %w: something else is mounted there; unmount it, or choose another directory with --dir; nothing was changed", dir, ErrInUse)
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("directory: %w: choose another with --dir", err)
	}
	for _, e := range entries {
		switch e.Name() {
		case pinName:
		case pinName + blockfs.TempSuffix, ".blockfs-probe": // of a start that was cut short
			continue
		default:
			return fmt.Errorf("directory %s: %w: it holds %q; use an empty directory; nothing was changed", dir, ErrUnfit, e.Name())
		}
		b, err := limited(filepath.Join(dir, pinName), maxPin)
		if err != nil {
			return err
		}
		if pin, _, _ := strings.Cut(string(b), "\n"); pin != uuid {
			found := "this disk holds none"
			if known {
				found = "this one is " + uuid
			}
			return fmt.Errorf("directory %s: %w: it is the place of disk %s, %s; name that disk, or another directory; nothing was changed", dir, ErrWrong, printable(pin), found)
		}
	}
	return nil
}

// make brings a disk to formatted, from wherever it is.
func (o Options) make(ctx context.Context, out *Open, l *label) error {
	found, err := blkprobe.ProbeExcept(out.lock, out.Size, labelAt(out.Size), known(l))
	if err != nil {
		return fmt.Errorf("look at what it holds: %w", err)
	}
	own, whole, err := out.own(found)
	if err != nil {
		return err
	}
	switch {
	case l != nil && l.state >= formatted && whole:
		return nil
	case l != nil && l.state >= formatted:
		return fmt.Errorf("%w: its label says that it is ASD %s, whose file system is not there (%s): bring that back; to give it up: %s",
			ErrHolds, l.uuid, inWords(found, out.Partitions), eraseCommand(out.Disk))
	case l != nil && own && whole:
		return o.advance(out, formatted)
	case l != nil && (own || len(found) == 0) && len(out.Partitions) == 0:
		o.Log.Info("disk was being made, it is made anew", "disk", out.Path, "osd", out.UUID)
	case len(found) > 0 || len(out.Partitions) > 0:
		if err := o.forced(out.Disk, found); err != nil {
			return err
		}
		o.Log.Warn("disk is erased", "disk", out.Path, "serial", out.Serial, "held", inWords(found, out.Partitions))
	}
	return o.format(ctx, out)
}

// known is how much of the label's block is not a finding.
func known(l *label) int64 {
	if l == nil {
		return 0
	}
	return labelBlock
}

// own tells whether what was found is of the label's mkfs alone (K2), and whether its
// file system is there whole.
func (d *Open) own(found []blkprobe.Found) (own, whole bool, err error) {
	for _, f := range found {
		switch {
		case f.What == blkprobe.XFS && f.UUID == d.UUID:
			own, whole = true, !f.Making
		case strings.HasPrefix(f.What, blkprobe.Unknown) && f.Offset == 0:
			// Without the superblock, which may come last, every other block tells: it
			// has the UUID as well.
			b := make([]byte, f.Length)
			if _, err := d.lock.ReadAt(b, 0); err != nil {
				return false, false, err
			}
			raw, err := rawUUID(d.UUID)
			if err != nil {
				return false, false, err
			}
			own = true
			for block := range slices.Chunk(b, labelBlock) {
				own = own && (bytes.Contains(block, raw) || len(bytes.Trim(block, "\x00")) == 0)
			}
		}
	}
	return own && len(found) == 1, whole, nil
}

// inWords says what a disk holds.
func inWords(found []blkprobe.Found, partitions []string) string {
	var out []string
	for _, f := range found {
		out = append(out, f.String())
	}
	if len(partitions) > 0 {
		out = append(out, fmt.Sprintf("%d partitions", len(partitions)))
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}

// forced refuses a disk that holds something, unless its serial was given.
func (o Options) forced(d Disk, found []blkprobe.Found) error {
	holds := inWords(found, d.Partitions)
	for _, f := range found {
		if f.What == blkprobe.XFS && f.Label == fsLabel {
			return fmt.Errorf("%w: %s, that of an ASD whose label is not where the disk's size says: bring the disk back to its size; to give it up: %s; nothing was changed", ErrHolds, holds, eraseCommand(d))
		}
	}
	switch {
	case d.Serial == "":
		return fmt.Errorf("%w: %s; it tells no serial that could be given to erase it: choose another disk, or erase it yourself: wipefs -a %s; nothing was changed", ErrHolds, holds, d.Path)
	case o.ForceSerial == "":
		return fmt.Errorf("%w: %s; choose another disk, or give --force-serial %s to lose all of that; nothing was changed", ErrHolds, holds, d.Serial)
	case o.ForceSerial != d.Serial:
		return fmt.Errorf("%w: %s; --force-serial names %q, this disk has %q; nothing was changed", ErrHolds, holds, o.ForceSerial, d.Serial)
	}
	return nil
}

// format makes the file system: label, then what was there is erased, then mkfs.
func (o Options) format(ctx context.Context, out *Open) error {
	mkfs, err := exec.LookPath(mkfsName)
	if err != nil {
		if mkfs, err = exec.LookPath("/usr/sbin/" + mkfsName); err != nil {
			return fmt.Errorf("%s is not installed: install the package xfsprogs; nothing was changed", mkfsName)
		}
	}
	if err := o.advance(out, making); err != nil {
		return err
	}
	f, err := exclusive(out.Path)
	if err != nil {
		return err
	}
	err = blkprobe.Erase(f, out.Size, labelAt(out.Size), labelBlock)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	if err := o.step("erase"); err != nil {
		return err
	}
	// -K: a discard of the device would take the label with it. Without -f mkfs
	// refuses what it finds by itself.
	cmd := exec.CommandContext(ctx, mkfs, "-q", "-K", "-L", fsLabel, "-m", "uuid="+out.UUID, "-d", fmt.Sprintf("size=%d", fsBytes(out.Size)), out.Path)
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", mkfsName, err, bytes.TrimSpace(b[:min(len(b), maxOutput)]))
	}
	if err := o.step("mkfs"); err != nil {
		return err
	}
	found, err := blkprobe.ProbeExcept(out.lock, out.Size, labelAt(out.Size), labelBlock)
	if err != nil {
		return err
	}
	if own, whole, err := out.own(found); err != nil || !own || !whole {
		return fmt.Errorf("%s: it made %s: %w", mkfsName, inWords(found, nil), errors.Join(err, ErrUnfit))
	}
	return o.advance(out, formatted)
}

// advance writes the label with a state.
func (o Options) advance(out *Open, s state) error {
	if err := out.write(s); err != nil {
		return err
	}
	return o.step(fmt.Sprintf("label %d", s))
}

// write writes the label, durably, and with it all that was written to the disk.
func (d *Open) write(s state) error {
	l := d.label
	l.state = s
	b, err := l.encode()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = f.WriteAt(b, labelAt(d.Size))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the label: %w", err)
	}
	d.label = l
	return nil
}

// mount mounts a disk on its directory, which keeps its name (K4).
func (o Options) mount(d *Open) error {
	dir, err := blockfs.OS(d.Dir) // makes it durably
	if err != nil {
		return fmt.Errorf("directory %s: %w", d.Dir, err)
	}
	if err := blockfs.WriteFile(dir, pinName, []byte(d.UUID+"\n"+d.Serial+"\n")); err != nil {
		return fmt.Errorf("directory %s: %w", d.Dir, err)
	}
	if err := o.step("directory"); err != nil {
		return err
	}
	err = unix.Mount(d.Path, d.Dir, fsType, unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "")
	if err != nil {
		return fmt.Errorf("mount on %s: %w: the kernel's log says why (dmesg); xfs_repair %s mends a damaged file system", d.Dir, err, d.Path)
	}
	if err := os.Chmod(d.Dir, 0o700); err != nil {
		return errors.Join(err, unix.Unmount(d.Dir, 0))
	}
	o.Log.Info("disk mounted", "disk", d.Path, "dir", d.Dir, "osd", d.UUID)
	return o.step("mount")
}

// SetMade notes that the disk has its ASD: from then on it is never made again.
func (d *Open) SetMade() error {
	if d.label.state == ready {
		return nil
	}
	if err := d.write(ready); err != nil {
		return fmt.Errorf("disk %s: %w", d.Path, err)
	}
	d.Made = true
	return nil
}

// Close unmounts the disk and gives it back.
func (d *Open) Close() error {
	err := unix.Unmount(d.Dir, 0)
	if err != nil {
		err = fmt.Errorf("disk %s: unmount %s: %w: end what uses it, then umount %s", d.Path, d.Dir, err, d.Dir)
	}
	return errors.Join(err, d.lock.Close())
}

// rawUUID are the bytes of a UUID.
func rawUUID(id string) ([]byte, error) {
	return hex.DecodeString(strings.ReplaceAll(id, "-", ""))
}
