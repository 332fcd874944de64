package control

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// objects counts the files of a backend that belong to vDisks.
func objects(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.Contains(path, "v~") {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTrash: a deleted vDisk is kept for as long as its vPool says, through a restart,
// and can be restored until then; what its vPool says counts when the time comes.
func TestTrash(t *testing.T) {
	ctx := t.Context()
	dir, far, p := t.TempDir(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(far)
	one := b.disk("one")
	if err := b.volume(one.ID).WriteAt(ctx, make([]byte, 4096), 8192); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVDisk(ctx, "one", false); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVDisk(ctx, "one", false); err != nil {
		t.Errorf("again: %v", err)
	}
	trash := b.Trash()
	if len(trash) != 1 || trash[0].ID != one.ID || b.volume(one.ID) != nil || b.PurgeAt(trash[0]).Sub(b.clk.Now()) != 24*time.Hour {
		t.Fatalf("%+v", trash)
	}
	_, err := b.CreateSnapshot(ctx, one.ID, volume.SnapshotSpec{Name: "x"})
	wantCode(t, err, CodeNotFound)
	two := b.disk("one")
	_, err = b.RestoreVDisk(ctx, "one", nil)
	wantCode(t, err, CodeExists)
	wantCode(t, b.DeleteVPool(ctx, "gold"), CodeInUse)
	b.clk.Advance(23 * time.Hour)
	at := b.clk.Now()
	b.stop()
	b = newBench(t, dir, p)
	b.clk.Advance(at.Sub(b.clk.Now()))
	if d := b.DiskStatus(b.Trash()[0]); len(b.Trash()) != 1 || d.State != StateTrashed || d.Open {
		t.Fatalf("after a restart: %+v %+v", b.Trash(), d)
	}
	name := "again"
	back, err := b.RestoreVDisk(ctx, one.ID, &name)
	if err != nil || back.ID != one.ID || back.Name != "again" || back.State != model.StatePresent || !back.Trashed.IsZero() || b.volume(one.ID) == nil {
		t.Fatalf("%+v, %v", back, err)
	}
	// Its time begins anew with the next delete, and ends.
	if err := b.DeleteVDisk(ctx, "again", false); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVDisk(ctx, two.ID, false); err != nil {
		t.Fatal(err)
	}
	b.clk.Advance(23 * time.Hour)
	if len(b.Trash()) != 2 || objects(t, far) == 0 {
		t.Fatalf("%+v", b.Trash())
	}
	b.clk.Advance(2 * time.Hour)
	b.until("purged", func() bool { return b.model.CountVDisks() == 0 })
	if n := objects(t, far); n != 0 {
		t.Errorf("%d objects stayed", n)
	}
	// A vPool that keeps nothing.
	none := time.Duration(0)
	if _, err := b.UpdateVPool(ctx, "gold", nil, SettingsPatch{Trash: &none}); err != nil {
		t.Fatal(err)
	}
	b.disk("three")
	if err := b.DeleteVDisk(ctx, "three", false); err != nil {
		t.Fatal(err)
	}
	if b.model.CountVDisks() != 0 {
		t.Error("kept although the vPool keeps nothing")
	}
	short := time.Second
	_, err = b.UpdateVPool(ctx, "gold", nil, SettingsPatch{Trash: &short})
	wantCode(t, err, CodeInvalid)
}

// TestOversubscription: create, clone, grow and restore keep to the bound.
func TestOversubscription(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	one, two := b.disk("one"), b.disk("two")
	pool, err := b.FindVPool("gold")
	if err != nil {
		t.Fatal(err)
	}
	b.until("asked for its space", func() bool { return b.PoolStatus(pool.ID).Usage.Total > 0 })
	total := b.PoolStatus(pool.ID).Usage.Total
	percent := int(3<<30*100/total) + 1 // room for a third, and less than a percent more
	if _, err := b.UpdateVPool(ctx, "gold", nil, SettingsPatch{Oversubscription: &percent}); err != nil {
		t.Fatal(err)
	}
	size := total / 100 * int64(percent) / 4096 * 4096
	_, err = b.CreateVDisk(ctx, NewDisk{Name: "big", VPool: "gold", Size: size})
	wantCode(t, err, CodeNoSpace)
	_, err = b.CloneVDisk(ctx, "one", Clone{Name: "c", Size: &size})
	wantCode(t, err, CodeNoSpace)
	_, err = b.UpdateVDisk(ctx, "one", DiskPatch{Size: &size})
	wantCode(t, err, CodeNoSpace)
	if v, _ := b.model.VDisk(one.ID); v.Size != 1<<30 {
		t.Errorf("grown to %d", v.Size)
	}
	if err := b.DeleteVDisk(ctx, "two", false); err != nil {
		t.Fatal(err)
	}
	rest := size - 1<<30 - 4096*256 // what is left, about
	if _, err := b.CreateVDisk(ctx, NewDisk{Name: "big", VPool: "gold", Size: rest / 4096 * 4096}); err != nil {
		t.Fatal(err)
	}
	_, err = b.RestoreVDisk(ctx, two.ID, nil)
	wantCode(t, err, CodeNoSpace)
	if len(b.Trash()) != 1 {
		t.Error("a refused restore took it out of the trash")
	}
	below := -1
	_, err = b.UpdateVPool(ctx, "gold", nil, SettingsPatch{Oversubscription: &below})
	wantCode(t, err, CodeInvalid)
}
