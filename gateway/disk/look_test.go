package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/disk/disktest"
)

// TestLook: disks are listed with what they are and hold.
func TestLook(t *testing.T) {
	blank, ext4, small := disktest.Loop(t, disktest.Size), disktest.Loop(t, disktest.Size), disktest.Loop(t, MinSize-4096)
	ours := disktest.Loop(t, disktest.Size)
	sh(t, "mkfs.ext4", "-q", ext4)
	dir := t.TempDir()
	sh(t, "mount", "-o", "ro,noload", ext4, dir)
	t.Cleanup(func() { sh(t, "umount", dir) })
	d := made(t, options(t, ours, "D"))
	l := &Looker{System: System{Sys: disktest.Sys(t, map[string]string{blank: "A", ext4: "B", small: "C", ours: "D"})}}
	all, err := l.Look(t.Context(), func(Disk) bool { return true })
	if err != nil || len(all) != 4 {
		t.Fatalf("%+v, %v", all, err)
	}
	for _, v := range all {
		want := map[string]View{
			"A": {Disk{Path: blank, Size: disktest.Size}, "nothing", true, ""},
			"B": {Disk{Path: ext4, Size: disktest.Size}, "ext4 file system, mounted on " + dir, false, ""},
			"C": {Disk{Path: small, Size: MinSize - 4096}, "nothing, too small", false, ""},
			"D": {Disk{Path: ours, Size: disktest.Size}, "ASD " + d.UUID, false, d.UUID},
		}[v.Serial]
		if v.Path != want.Path || v.Size != want.Size || v.Holds != want.Holds || v.Usable != want.Usable || v.UUID != want.UUID {
			t.Errorf("%+v, not %+v", v, want)
		}
		if under, ok := l.System.Under([]Disk{v.Disk}, filepath.Join(dir, "below")); ok != (v.Serial == "B") || ok && under.Name != v.Name {
			t.Errorf("%s under %s: %v", v.Name, dir, ok)
		}
	}
	if some, err := l.Look(t.Context(), func(d Disk) bool { return len(d.Mounts) > 0 }); err != nil || len(some) != 1 {
		t.Errorf("mounted: %+v, %v", some, err)
	}
	o := options(t, ours, "E")
	l.System = o.System
	if all, err = l.Look(t.Context(), func(Disk) bool { return true }); err != nil || all[0].Holds != "copy of ASD "+d.UUID {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestLocate switches the light of an enclosure as the kernel shows it, and says when
// there is none.
func TestLocate(t *testing.T) {
	sys := t.TempDir()
	slot := filepath.Join(sys, "class", "enclosure", "0:0:8:0", "Slot 03")
	if err := os.MkdirAll(filepath.Join(slot, "device", "block", "sda"), 0o700); err != nil {
		t.Fatal(err)
	}
	light := filepath.Join(slot, "locate")
	for _, on := range []bool{true, false} {
		if err := (System{Sys: sys}).Locate(t.Context(), Disk{Name: "sda"}, on); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(light); err != nil || string(b) != map[bool]string{true: "1", false: "0"}[on] {
			t.Errorf("%v: light is %q, %v", on, b, err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	err := (System{Sys: sys}).Locate(t.Context(), Disk{Name: "sdb", Path: "/dev/sdb", Serial: "ZC1"}, true)
	if !errors.Is(err, ErrNoLED) || !strings.Contains(err.Error(), "/dev/sdb") || !strings.Contains(err.Error(), "ZC1") {
		t.Errorf("a disk without a light: %v", err)
	}
	// ledctl that knows no such place.
	if err := os.WriteFile(filepath.Join(os.Getenv("PATH"), "ledctl"), []byte("#!/bin/sh\necho \"$1: no light\"; exit 9\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	err = (System{Sys: sys}).Locate(t.Context(), Disk{Name: "sdb", Path: "/dev/sdb"}, false)
	if !errors.Is(err, ErrNoLED) || !strings.Contains(err.Error(), "locate_off=/dev/sdb: no light") {
		t.Errorf("ledctl: %v", err)
	}
}
