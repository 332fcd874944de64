package control

import (
	"bytes"
	"testing"

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
