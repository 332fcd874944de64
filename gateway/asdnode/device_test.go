package asdnode

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/asd"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/internal/smalldisk"
)

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() error) {
	t.Helper()
	limit := time.Now().Add(3 * time.Minute)
	for err := holds(); err != nil; err = holds() {
		if time.Now().After(limit) {
			t.Fatalf("not %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func set(d osd.OSD, key string, value []byte) error {
	return d.Apply(context.Background(), nil, []osd.Update{osd.Set([]byte(key), value)}, osd.High)
}

func read(d osd.OSD, key string, n int) ([]byte, error) {
	p := make([]byte, n)
	err := d.Read(context.Background(), []byte(key), 0, p, osd.High)
	return p, err
}

// TestDeviceOpenedAnew: a device that failed says so, and why, until it could be opened anew;
// then it has what was acknowledged, and takes more.
func TestDeviceOpenedAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "device")
	store, lock, err := OpenDir(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := store.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var tries atomic.Int32
	d := newDevice(store, lock, Options{ID: info.ID}, func() (*asd.Store, error) {
		if tries.Add(1) == 1 {
			return nil, errors.New("the disk is away")
		}
		return openAgain(dir, Options{ID: info.ID})
	})
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := set(d, "kept", []byte("value")); err != nil {
		t.Fatal(err)
	}
	store.SetFault(asd.Fault{FailWrites: true})
	if err := set(d, "lost", []byte("value")); !errors.Is(err, osd.ErrFailed) {
		t.Fatalf("a write that fails: %v", err)
	}
	eventually(t, "opened anew", func() error {
		now, err := d.Info(t.Context())
		if err != nil && !errors.Is(err, osd.ErrFailed) {
			t.Fatalf("in between: %v", err)
		}
		if err == nil && (now.ID != info.ID || now.Run == info.Run) {
			t.Fatalf("it is %s in run %s, and was %s in run %s", now.ID, now.Run, info.ID, info.Run)
		}
		return err
	})
	if n := tries.Load(); n != 2 {
		t.Errorf("opened %d times", n)
	}
	if v, err := read(d, "kept", 5); err != nil || string(v) != "value" {
		t.Errorf("what was acknowledged: %q, %v", v, err)
	}
	if err := set(d, "more", []byte("value")); err != nil {
		t.Error(err)
	}
}

// TestOpenAgainWithoutDisk: where the disk is gone nothing is made.
func TestOpenAgainWithoutDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "device")
	store, lock, err := OpenDir(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	info, err := store.Info(t.Context())
	if err := errors.Join(err, store.Close(), os.RemoveAll(filepath.Join(dir, storeName))); err != nil {
		t.Fatal(err)
	}
	if s, err := openAgain(dir, Options{ID: info.ID}); !errors.Is(err, ErrUnfit) {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := os.Stat(filepath.Join(dir, storeName)); !os.IsNotExist(err) {
		t.Errorf("a device was made: %v", err)
	}
}

// TestRunFullDisk: others fill the disk of a device that is served, until it fails; once there
// is space it works again by itself, with all that was acknowledged.
func TestRunFullDisk(t *testing.T) {
	disk := smalldisk.Mount(t, 64<<20)
	s := run(t, RunOptions{Dir: filepath.Join(disk, "device")})
	defer s.stop()
	c := s.client(false)
	defer c.Close()
	if err := set(c, "kept", []byte("value")); err != nil {
		t.Fatal(err)
	}
	empty := smalldisk.Fill(t, disk)
	// Deletes are taken while a device is full: their log fills the last page.
	eventually(t, "failed", func() error {
		for range 1000 {
			if err := c.Apply(t.Context(), nil, []osd.Update{osd.Delete([]byte("none"))}, osd.High); errors.Is(err, osd.ErrFailed) {
				return nil
			}
		}
		return errors.New("it goes on")
	})
	empty()
	eventually(t, "working again", func() error { return set(c, "more", []byte("value")) })
	for _, key := range []string{"kept", "more"} {
		if v, err := read(c, key, 5); err != nil || string(v) != "value" {
			t.Errorf("%s: %q, %v", key, v, err)
		}
	}
}
