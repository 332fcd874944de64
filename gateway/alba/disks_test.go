package alba

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/disk"
	"github.com/openvstorage/ovgate/gateway/disk/disktest"
)

// TestDisks: a device on a disk of the node tells the disk and its health, also to
// health checks and metrics; one elsewhere tells none.
func TestDisks(t *testing.T) {
	dir := t.TempDir()
	dev := disktest.Loop(t, disktest.Size)
	s := newService(t, dir, registry(t, dir))
	s.looker.System = disk.System{Sys: disktest.Sys(t, map[string]string{dev: "ZC1 0001"})}
	s.smart.Program = filepath.Join(dir, "smartctl")
	must(t, os.WriteFile(s.smart.Program, []byte("#!/bin/sh\necho '"+
		`{"json_format_version":[1,0],"smart_status":{"passed":false},"temperature":{"current":31}}`+"'; exit 8\n"), 0o700))
	d, err := disk.New(t.Context(), disk.Options{Path: dev, Dir: filepath.Join(dir, "mount"), System: s.looker.System})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	t.Cleanup(func() { must(t, s.Close()) }) // before the disk is unmounted

	on, err := s.Claim(t.Context(), Claim{Directory: d.Dir})
	must(t, err)
	off, err := s.Claim(t.Context(), Claim{Directory: filepath.Join(dir, "elsewhere")})
	must(t, err)
	r, err := s.open(t.Context())
	must(t, err)
	must(t, s.findDisks(t.Context(), r))
	on, err = s.OSD(t.Context(), on.Number)
	must(t, err)
	if on.Disk == nil || on.Disk.Serial != "ZC1 0001" || on.Disk.Healthy == nil || *on.Disk.Healthy || *on.Disk.Temperature != 31 {
		t.Fatalf("disk of the device: %+v", on.Disk)
	}
	for _, c := range s.Check(t.Context()).OSDs {
		if has := c.Number == on.Number; has != (c.Healthy != nil) || has != (c.Temperature != nil) || has != strings.Contains(c.Disk, "ZC1 0001") {
			t.Errorf("%+v", c)
		}
	}
	views, err := s.Disks(t.Context())
	if err != nil || len(views) != 1 || views[0].UUID != d.UUID || views[0].Usable {
		t.Errorf("disks of the node: %+v, %v", views, err)
	}
	t.Setenv("PATH", dir) // without ledctl
	if err := s.Locate(t.Context(), on.Number, true); !errors.Is(err, disk.ErrNoLED) {
		t.Errorf("a disk without a light: %v", err)
	}
	if err := s.Locate(t.Context(), off.Number, true); !errors.Is(err, ErrNoDisk) || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("a device on no disk: %v", err)
	}
}
