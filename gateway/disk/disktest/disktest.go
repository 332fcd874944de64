// Package disktest makes real disks for tests: loop devices, with a serial of the
// test's choice.
package disktest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Size is enough for an ASD.
const Size = 640 << 20

// Loop returns the path of a blank disk. Without the right to make one the test is
// skipped, or fails where CI=true.
func Loop(t testing.TB, size int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	return Attach(t, file)
}

// Attach makes a disk of a file.
func Attach(t testing.TB, file string) string {
	t.Helper()
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no loop device can be made: %v: %s", err, out)
		}
		t.Skipf("no loop device can be made here (root is needed): %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v: %s", dev, err, out)
		}
	})
	return dev
}

// Sys returns a directory that tells of disks as /sys does, with a serial, which the
// kernel has none of for a loop device.
func Sys(t testing.TB, serials map[string]string) string {
	t.Helper()
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for dev, serial := range serials {
		name := filepath.Base(dev)
		dir := filepath.Join(root, "block", name)
		must(os.MkdirAll(filepath.Join(dir, "device"), 0o700))
		must(os.MkdirAll(filepath.Join(root, "dev", "block"), 0o700))
		entries, err := os.ReadDir("/sys/block/" + name)
		must(err)
		for _, e := range entries {
			must(os.Symlink(filepath.Join("/sys/block", name, e.Name()), filepath.Join(dir, e.Name())))
		}
		if serial != "" {
			must(os.WriteFile(filepath.Join(dir, "device", "serial"), []byte(serial+"\n"), 0o600))
		}
		var st unix.Stat_t
		must(unix.Stat(dev, &st))
		must(os.Symlink(dir, filepath.Join(root, "dev", "block", fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))))
	}
	return root
}
