package disk

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/openvstorage/ovgate/gateway/disk/disktest"
)

const serial = "ZC1 0001"

// options are those of a disk with a serial, on a directory of the test.
func options(t *testing.T, dev, serial string) Options {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mount")
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err == nil {
			t.Errorf("%s was left mounted", dir)
		}
	})
	return Options{Path: dev, Dir: dir, System: System{Sys: disktest.Sys(t, map[string]string{dev: serial})}}
}

func open(t *testing.T, o Options) *Open {
	t.Helper()
	d, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func closed(t *testing.T, d *Open) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// sum is a checksum of 2 MiB at each end of a device: a start that writes anything
// writes there.
func sum(t *testing.T, dev string) uint32 {
	t.Helper()
	f, err := os.Open(dev)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	for _, at := range []struct {
		off    int64
		whence int
	}{{0, io.SeekStart}, {-2 << 20, io.SeekEnd}} {
		if _, err := f.Seek(at.off, at.whence); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(h, f, 2<<20); err != nil {
			t.Fatal(err)
		}
	}
	return h.Sum32()
}

// slow leaves a test out with -short.
func slow(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("one goroutine that starts programs which make file systems, again and again")
	}
}

func sh(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// write writes on a device, durably.
func write(t *testing.T, dev, text string, at int64) {
	t.Helper()
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(text), at)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestOpen: a blank disk becomes one of ovgate, is mounted while it is open, and is
// found again with what was stored.
func TestOpen(t *testing.T) {
	o := options(t, disktest.Loop(t, disktest.Size), serial)
	d := open(t, o)
	if d.Made || d.Dir != o.Dir || d.Serial != serial || len(d.UUID) != uuidBytes {
		t.Errorf("%+v", d)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "kept"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(d.Dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", st.Mode(), err)
	}
	if err := d.SetMade(); err != nil {
		t.Fatal(err)
	}
	closed(t, d)
	if _, err := os.Stat(filepath.Join(o.Dir, "kept")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still mounted: %v", err)
	}
	o.ForceSerial = serial // is for what holds something else
	again := open(t, o)
	defer closed(t, again)
	if !again.Made || again.UUID != d.UUID {
		t.Errorf("found again as %+v", again)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "kept")); err != nil {
		t.Error(err)
	}
}

// TestKilled: a disk that a killed process left mounted is taken over where it is, and
// refused elsewhere; while a process lives it has the disk alone.
func TestKilled(t *testing.T) {
	o := options(t, disktest.Loop(t, disktest.Size), serial)
	d := open(t, o)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(ended, o); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second process: %v", err)
	}
	if err := d.lock.Close(); err != nil { // all that the end of a process does
		t.Fatal(err)
	}
	elsewhere := o
	elsewhere.Dir = filepath.Join(t.TempDir(), "other")
	if _, err := New(t.Context(), elsewhere); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), o.Dir) {
		t.Errorf("another directory: %v", err)
	}
	again := open(t, o)
	if again.UUID != d.UUID {
		t.Errorf("%s after %s", again.UUID, d.UUID)
	}
	closed(t, again)
}

// made returns a disk of ovgate with its ASD made.
func made(t *testing.T, o Options) *Open {
	t.Helper()
	d := open(t, o)
	if err := d.SetMade(); err != nil {
		t.Fatal(err)
	}
	closed(t, d)
	return d
}

// TestRefused: what is not blank, or not the right disk, is refused with words, and no
// byte of it changes.
func TestRefused(t *testing.T) {
	slow(t)
	for _, c := range []struct {
		name  string
		size  int64
		made  bool // a disk of ovgate
		do    func(t *testing.T, o *Options)
		is    error
		wants string
	}{
		{name: "ext4", is: ErrHolds, wants: "ext4 file system; choose another disk, or give --force-serial " + serial,
			do: func(t *testing.T, o *Options) { sh(t, "mkfs.ext4", "-q", o.Path) }},
		{name: "xfs", is: ErrHolds, wants: `xfs file system "photos"`,
			do: func(t *testing.T, o *Options) { sh(t, "mkfs.xfs", "-q", "-L", "photos", o.Path) }},
		{name: "swap", is: ErrHolds, wants: "swap space", do: func(t *testing.T, o *Options) { sh(t, "mkswap", "-q", o.Path) }},
		{name: "data that nobody knows", is: ErrHolds, wants: "unknown data in the last MiB",
			do: func(t *testing.T, o *Options) { write(t, o.Path, "x", disktest.Size-1) }},
		{name: "data in the place of the label", is: ErrHolds, wants: "unknown data in the last MiB",
			do: func(t *testing.T, o *Options) { write(t, o.Path, "x", labelAt(disktest.Size)) }},
		{name: "another serial", is: ErrHolds, wants: `--force-serial names "ZC1 0002", this disk has "ZC1 0001"`,
			do: func(t *testing.T, o *Options) { sh(t, "mkfs.ext4", "-q", o.Path); o.ForceSerial = "ZC1 0002" }},
		{name: "no serial", is: ErrHolds, wants: "it tells no serial",
			do: func(t *testing.T, o *Options) {
				sh(t, "mkfs.ext4", "-q", o.Path)
				o.System.Sys = disktest.Sys(t, map[string]string{o.Path: ""})
			}},
		{name: "mounted", is: ErrInUse, wants: "it is mounted on",
			do: func(t *testing.T, o *Options) {
				sh(t, "mkfs.ext4", "-q", o.Path)
				dir := t.TempDir()
				sh(t, "mount", "-o", "ro,noload", o.Path, dir)
				t.Cleanup(func() { sh(t, "umount", dir) })
				o.ForceSerial = serial
			}},
		{name: "used by somebody", is: ErrInUse, wants: "the kernel says that it has a user",
			do: func(t *testing.T, o *Options) {
				f, err := os.OpenFile(o.Path, os.O_RDONLY|unix.O_EXCL, 0)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { f.Close() })
			}},
		{name: "too small", size: MinSize - 1<<20, is: ErrUnfit, wants: "use one of at least", do: func(*testing.T, *Options) {}},
		{name: "read-only", is: ErrUnfit, wants: "read-only true",
			do: func(t *testing.T, o *Options) {
				sh(t, "blockdev", "--setro", o.Path)
				t.Cleanup(func() { sh(t, "blockdev", "--setrw", o.Path) })
			}},
		{name: "a directory that holds something", is: ErrUnfit, wants: `it holds "photos"`,
			do: func(t *testing.T, o *Options) {
				if err := os.MkdirAll(filepath.Join(o.Dir, "photos"), 0o700); err != nil {
					t.Fatal(err)
				}
			}},
		{name: "a directory with a mount", is: ErrInUse, wants: "something else is mounted there",
			do: func(t *testing.T, o *Options) {
				o.Dir = t.TempDir()
				sh(t, "mount", "-t", "tmpfs", "none", o.Dir)
				t.Cleanup(func() { sh(t, "umount", o.Dir) })
			}},
		{name: "a blank disk in the place of another", is: ErrWrong, wants: "this disk holds none",
			do: func(t *testing.T, o *Options) { o.Dir = made(t, options(t, disktest.Loop(t, disktest.Size), "A")).Dir }},
		{name: "swapped with another", made: true, is: ErrWrong, wants: "it is the place of disk",
			do: func(t *testing.T, o *Options) { o.Dir = made(t, options(t, disktest.Loop(t, disktest.Size), "A")).Dir }},
		{name: "a copy of a disk", made: true, is: ErrWrong, wants: "it is a copy",
			do: func(t *testing.T, o *Options) {
				o.System.Sys, o.ForceSerial = disktest.Sys(t, map[string]string{o.Path: "ZC1 0002"}), "ZC1 0002"
			}},
		{name: "a damaged label", made: true, is: errLabel, wants: "wipefs -a",
			do: func(t *testing.T, o *Options) { write(t, o.Path, "x", labelAt(disktest.Size)+100) }},
		{name: "a damaged label, by force", made: true, is: ErrHolds, wants: "that of an ASD",
			do: func(t *testing.T, o *Options) {
				write(t, o.Path, "x", labelAt(disktest.Size)+100)
				o.ForceSerial, o.Dir = serial, filepath.Join(t.TempDir(), "other")
			}},
		{name: "a label of a later version", made: true, is: errLabel, wants: "use the version that made it",
			do: func(t *testing.T, o *Options) {
				write(t, o.Path, "\x00\x00\x00\x02", labelAt(disktest.Size)+int64(len(labelMagic)))
			}},
		{name: "a lost file system, by force", made: true, is: ErrHolds, wants: "whose file system is not there",
			do: func(t *testing.T, o *Options) { write(t, o.Path, "xxxx", 0); o.ForceSerial = serial }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.size == 0 {
				c.size = disktest.Size
			}
			o := options(t, disktest.Loop(t, c.size), serial)
			if c.made {
				made(t, o)
			}
			c.do(t, &o)
			before := sum(t, o.Path)
			_, err := New(t.Context(), o)
			if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.wants) || !strings.Contains(err.Error(), o.Path) {
				t.Errorf("error %v, not %q", err, c.wants)
			}
			if sum(t, o.Path) != before {
				t.Error("the disk was changed")
			}
		})
	}
	o := Options{Path: filepath.Join(t.TempDir(), "none")}
	if _, err := New(t.Context(), o); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "osd discover") {
		t.Errorf("no disk: %v", err)
	}
	o.Path = os.Args[0]
	if _, err := New(t.Context(), o); !errors.Is(err, ErrUnfit) {
		t.Errorf("a file: %v", err)
	}
}

// TestForce: with its serial a disk is erased, and what it held is not found again.
func TestForce(t *testing.T) {
	for _, c := range [][]string{{"mkfs.ext4", "-q"}, {"mkfs.xfs", "-q"}, {"mkswap", "-q", "-p", "65536"}} {
		t.Run(c[0], func(t *testing.T) {
			o := options(t, disktest.Loop(t, disktest.Size), serial)
			sh(t, c[0], append(c[1:], o.Path)...)
			o.ForceSerial = serial
			closed(t, open(t, o))
			o.ForceSerial = ""
			closed(t, open(t, o))
		})
	}
}

// errCut ends a start as a power cut does.
var errCut = errors.New("power cut")

// cut opens a disk until a step was done; then only what is on the disk is left.
func cut(t *testing.T, o Options, at string) {
	t.Helper()
	var steps []string
	o.step = func(s string) error {
		if steps = append(steps, s); s == at {
			return errCut
		}
		return nil
	}
	if _, err := New(t.Context(), o); !errors.Is(err, errCut) {
		t.Fatalf("no cut at %q but %v, after %q", at, err, steps)
	}
	if at == "mount" {
		if err := unix.Unmount(o.Dir, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// steps are what a start does, in order.
var steps = []string{"label 1", "erase", "mkfs", "label 2", "directory", "mount"}

// TestPowerCut: whatever a cut left, the next start finishes the same disk.
func TestPowerCut(t *testing.T) {
	slow(t)
	damage := map[string]func(t *testing.T, dev string){
		"":                             func(*testing.T, string) {},
		"the superblock is unfinished": func(t *testing.T, dev string) { write(t, dev, "\x01", 126) },
		"the superblock is missing":    func(t *testing.T, dev string) { write(t, dev, strings.Repeat("\x00", 512), 0) },
		"the first MiB is missing":     func(t *testing.T, dev string) { write(t, dev, strings.Repeat("\x00", 1<<20), 0) },
	}
	for _, at := range steps {
		for what, do := range damage {
			if what != "" && at != "mkfs" {
				continue
			}
			t.Run(at+" "+what, func(t *testing.T) {
				o := options(t, disktest.Loop(t, disktest.Size), serial)
				cut(t, o, at)
				do(t, o.Path)
				f, err := os.Open(o.Path)
				if err != nil {
					t.Fatal(err)
				}
				l, err := readLabel(f, disktest.Size)
				if err = errors.Join(err, f.Close()); err != nil || l == nil {
					t.Fatalf("label: %v, %v", l, err)
				}
				d := open(t, o)
				defer closed(t, d)
				if d.UUID != l.uuid || d.Made {
					t.Errorf("label %+v became %+v", l, d)
				}
			})
		}
	}
}

// TestPowerCutForced: a disk that was to be erased is not taken for a half-made one
// while it still holds what it held.
func TestPowerCutForced(t *testing.T) {
	o := options(t, disktest.Loop(t, disktest.Size), serial)
	sh(t, "mkfs.ext4", "-q", o.Path)
	o.ForceSerial = serial
	cut(t, o, "label 1")
	o.ForceSerial = ""
	before := sum(t, o.Path)
	if _, err := New(t.Context(), o); !errors.Is(err, ErrHolds) || sum(t, o.Path) != before {
		t.Fatalf("without force: %v", err)
	}
	o.ForceSerial = serial
	closed(t, open(t, o))
}

// TestNotOurs: what somebody put on a half-made disk is theirs.
func TestNotOurs(t *testing.T) {
	slow(t)
	theirs := map[string]func(t *testing.T, dev string){
		"ext4":         func(t *testing.T, dev string) { sh(t, "mkfs.ext4", "-q", "-F", dev) },
		"xfs":          func(t *testing.T, dev string) { sh(t, "mkfs.xfs", "-q", "-f", "-K", "-d", "size=400m", dev) },
		"unknown":      func(t *testing.T, dev string) { write(t, dev, strings.Repeat("theirs", 1000), 0) },
		"at the end":   func(t *testing.T, dev string) { write(t, dev, "theirs", disktest.Size-100) },
		"beside an fs": func(t *testing.T, dev string) { write(t, dev, "EFI PART", disktest.Size-512) },
	}
	for _, at := range steps[:4] {
		for what, put := range theirs {
			t.Run(fmt.Sprint(at, ", ", what), func(t *testing.T) {
				o := options(t, disktest.Loop(t, disktest.Size), serial)
				cut(t, o, at)
				put(t, o.Path)
				before := sum(t, o.Path)
				d, err := New(t.Context(), o)
				if err == nil {
					closed(t, d)
					// Beside a file system that is whole it is in nobody's way.
					if !(what == "at the end" && (at == "mkfs" || at == "label 2") || what == "beside an fs" && at == "label 2") {
						t.Error("taken for the disk's own")
					}
					return
				}
				if !errors.Is(err, ErrHolds) || sum(t, o.Path) != before {
					t.Errorf("error %v, changed %v", err, sum(t, o.Path) != before)
				}
			})
		}
	}
}
