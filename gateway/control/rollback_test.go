package control

import (
	"bytes"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// TestRollback: content goes back, a session keeps it from happening unless it is
// forced, a refusal changes nothing, and a clone has what its source had.
func TestRollback(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	d := b.disk("one")
	if _, err := b.Publish(t.Context(), "one", PublishOptions{Open: new(true)}); err != nil {
		t.Fatal(err)
	}
	write := func(fill byte) {
		t.Helper()
		if err := b.volume(d.ID).(*volume.Volume).WriteAt(t.Context(), bytes.Repeat([]byte{fill}, 4096), 8192); err != nil {
			t.Fatal(err)
		}
	}
	want := func(id string, fill byte) {
		t.Helper()
		p := make([]byte, 4096)
		if err := b.volume(id).(*volume.Volume).ReadAt(t.Context(), p, 8192); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{fill}, 4096)) {
			t.Fatalf("read %d (%v), want %d", p[0], err, fill)
		}
	}
	write(1)
	if _, err := b.CreateSnapshot(t.Context(), "one", volume.SnapshotSpec{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	write(2)
	b.front.busy = true
	_, _, err := b.Rollback(t.Context(), "one", volume.Point{Snapshot: "s"}, false)
	wantCode(t, err, CodeInUse)
	want(d.ID, 2)
	now, err := b.CloneVDisk(t.Context(), "one", Clone{Name: "now"})
	if err != nil {
		t.Fatal(err)
	}
	want(now.ID, 2)

	// The clone starts from what would go: the engine refuses, and the vDisk is back.
	_, _, err = b.Rollback(t.Context(), "one", volume.Point{Snapshot: "s"}, true)
	wantCode(t, err, CodeInUse)
	want(d.ID, 2)
	if _, ok := b.TargetInfo(b.iqnOf("one")); !ok {
		t.Fatal("not published after a refused rollback")
	}
	if err := b.DeleteVDisk(t.Context(), "now", true); err != nil {
		t.Fatal(err)
	}
	if _, _, err = b.Rollback(t.Context(), "one", volume.Point{Snapshot: "s"}, true); err != nil {
		t.Fatal(err)
	}
	want(d.ID, 1)
	if _, ok := b.TargetInfo(b.iqnOf("one")); !ok {
		t.Fatal("not published after a rollback")
	}
}

// iqnOf returns the iSCSI name of a vDisk.
func (b *bench) iqnOf(name string) string {
	b.t.Helper()
	v, err := b.FindVDisk(name)
	if err != nil {
		b.t.Fatal(err)
	}
	return v.IQN
}

// TestHistoryOfVDisk: a scrub keeps the moments of a vDisk that says so itself, beside one
// of the same vPool that does not, until it says so no more; also after a restart.
func TestHistoryOfVDisk(t *testing.T) {
	ctx := t.Context()
	dir, far, p := t.TempDir(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(far)
	data := make([]byte, 256<<10)
	ids, past := map[string]string{}, map[string]time.Time{}
	for _, name := range []string{"kept", "plain"} {
		ids[name] = b.disk(name).ID
		for fill := range byte(3) {
			vol := b.volume(ids[name]).(*volume.Volume)
			for at := int64(0); at < 8<<20; at += int64(len(data)) {
				if err := vol.WriteAt(ctx, bytes.Repeat([]byte{fill + 1}, len(data)), at); err != nil {
					t.Fatal(err)
				}
			}
			if err := vol.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			if fill == 0 {
				past[name] = time.Now()
			}
		}
	}
	for _, keep := range []time.Duration{time.Second, -1, 367 * 24 * time.Hour} {
		_, err := b.SetHistory(ctx, "kept", &keep)
		wantCode(t, err, CodeInvalid)
	}
	v, err := b.SetHistory(ctx, "kept", new(time.Hour))
	if kept, inherited := b.HistoryKept(v); err != nil || kept != time.Hour || inherited {
		t.Fatalf("%+v %v", v, err)
	}
	scrub := func(name string) {
		t.Helper()
		if _, err := b.volume(ids[name]).(*volume.Volume).Scrub(ctx, volume.ScrubOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// want clones a vDisk at its first moment: where that is gone, the one before counts.
	want := func(name string, fill byte) {
		t.Helper()
		c, err := b.CloneVDisk(ctx, name, Clone{Name: "c", From: volume.Point{At: past[name]}})
		if err != nil {
			t.Fatal(err)
		}
		one := make([]byte, 4096)
		if err := b.volume(c.ID).(*volume.Volume).ReadAt(ctx, one, 1<<20); err != nil || one[0] != fill {
			t.Errorf("the clone of %s has %d, not %d: %v", name, one[0], fill, err)
		}
		if err := b.DeleteVDisk(ctx, "c", true); err != nil {
			t.Fatal(err)
		}
		b.until("the clone is gone", func() bool { return b.model.CountVDisks() == 2 })
	}
	b.stop()
	b = newBench(t, dir, p)
	scrub("kept")
	scrub("plain")
	want("kept", 1)
	want("plain", 0)
	if v, err = b.SetHistory(ctx, "kept", nil); err != nil || v.History != nil {
		t.Fatalf("%+v %v", v, err)
	}
	scrub("kept")
	want("kept", 0)
}
