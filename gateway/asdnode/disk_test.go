package asdnode

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/gateway/disk"
	"github.com/openvstorage/ovgate/gateway/disk/disktest"
)

// TestDisk: a blank disk is made a device, served, unmounted, and served again with
// what was stored; never made again when its content is gone.
func TestDisk(t *testing.T) {
	dev, dir := disktest.Loop(t, disktest.Size), filepath.Join(t.TempDir(), "mount")
	o := RunOptions{Disk: dev, Dir: dir, System: disk.System{Sys: disktest.Sys(t, map[string]string{dev: "ZC1 0001"})}}
	value := bytes.Repeat([]byte("0123456789abcdef"), 5000)
	s := run(t, o)
	c := s.client(false)
	if err := c.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte("k"), value)}, osd.High); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if _, err := os.Stat(s.KeyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the disk is still mounted: %v", err)
	}
	// Its directory alone is not a device.
	if _, _, err := OpenDir(dir, Options{}); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "ovgate-disk") {
		t.Errorf("without the disk: %v", err)
	}

	again := run(t, o)
	if again.ID != s.ID || again.Fingerprint != s.Fingerprint {
		t.Errorf("%+v after the restart, %+v before", again.Announcement, s.Announcement)
	}
	c = again.client(false)
	got := make([]byte, len(value))
	if err := c.Read(t.Context(), []byte("k"), 0, got, osd.High); err != nil || !bytes.Equal(got, value) {
		t.Errorf("the value after the restart: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, storeName)); err != nil {
		t.Fatal(err)
	}
	again.cancel()
	<-again.ended // in what order its files left is not looked at

	o.Listen, o.Stdout, o.Stderr = "127.0.0.1:0", &buffer{}, &buffer{}
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "there is no ASD in it") {
		t.Errorf("an emptied disk: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, lockName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused disk stays mounted: %v", err)
	}
}
