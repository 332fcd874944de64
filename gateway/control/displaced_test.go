package control

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// TestDisplaced: a published vDisk whose WRITE disk fails goes on with another one by
// itself, with what was acknowledged, and stays published.
func TestDisplaced(t *testing.T) {
	ctx := t.Context()
	p := &place{}
	var fail [2]atomic.Bool
	for i, name := range []string{"a", "b"} {
		fsys, err := blockfs.OS(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		p.writeDisks = append(p.writeDisks, volume.WriteDisk{Name: name, Bytes: 64 << 20, FS: blockfs.Inject(fsys, func(op blockfs.OpInfo) error {
			if fail[i].Load() && op.Kind != blockfs.OpRead && op.Kind != blockfs.OpOpen {
				return syscall.EIO
			}
			return nil
		})})
	}
	b := newBench(t, t.TempDir(), p)
	b.gold(t.TempDir())
	var disks []model.VDisk
	for _, name := range []string{"one", "two"} {
		rec := b.disk(name)
		if _, err := b.Publish(ctx, name, PublishOptions{Open: new(true)}); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, rec)
		if err := b.volume(rec.ID).WriteAt(ctx, filled(1), 8192); err != nil {
			t.Fatal(err)
		}
	}
	fail[0].Store(true)
	failed := 0
	for _, rec := range disks {
		old := b.volume(rec.ID)
		if err := old.WriteAt(ctx, filled(2), 0); err == nil {
			continue
		} else if !errors.Is(err, volume.ErrFailed) {
			t.Fatal(err)
		}
		failed++
		b.pass(fenceEvery, "on another disk", func() bool { v := b.volume(rec.ID); return v != nil && v != old })
		b.pass(fenceEvery, "told", func() bool {
			_, ok := b.noted.Load(string(event.VDiskJournalReplaced) + " vdisk " + rec.Name)
			return ok
		})
		v, got := b.volume(rec.ID), make([]byte, 4096)
		if err := v.ReadAt(ctx, got, 8192); err != nil || got[0] != 1 {
			t.Fatalf("%v, %d", err, got[0])
		}
		if err := v.WriteAt(ctx, filled(3), 0); err != nil {
			t.Fatal(err)
		}
		now, err := b.FindVDisk(rec.ID)
		if s := b.DiskStatus(now); err != nil || !now.Published() || s.State != volume.StateRunning {
			t.Fatalf("%v, %+v", err, s)
		}
	}
	if failed != 1 {
		t.Fatalf("%d of 2 vDisks were on the disk", failed)
	}
}

// filled returns a cluster of a value.
func filled(x byte) []byte {
	p := make([]byte, 4096)
	for i := range p {
		p[i] = x
	}
	return p
}
