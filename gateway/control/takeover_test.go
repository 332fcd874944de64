package control

import (
	"slices"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// TestChoose: a node takes over what it has the copy of, the most recently used first: by what
// its copy got, or initiators asked of it.
func TestChoose(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{node: "n1"})
	at := func(s int) time.Time { return time.Unix(1_800_000_000+int64(s), 0) }
	mine := func(used time.Time) *volume.Hold { return &volume.Hold{Copy: "n1", Used: used} }
	disks := []takeable{
		{model.VDisk{ID: "idle", Node: "n0"}, mine(time.Time{})},
		{model.VDisk{ID: "written", Node: "n0"}, mine(at(2))},
		{model.VDisk{ID: "lost", Node: "n0"}, &volume.Hold{}},
		{model.VDisk{ID: "asked", Node: "n0"}, mine(at(1))},
		{model.VDisk{ID: "unknown", Node: "n0"}, nil},
		{model.VDisk{ID: "elsewhere", Node: "n0"}, &volume.Hold{Copy: "n2"}},
		{model.VDisk{ID: "dead", Node: "n0"}, &volume.Hold{Copy: "n3"}},
		{model.VDisk{ID: "long-ago", Node: "n0"}, mine(at(0))},
	}
	b.mu.Lock()
	for _, d := range disks {
		b.standIns[d.v.ID] = iscsi.NewRemoteDisk(1<<20, 4096) // nobody asked it for anything
	}
	b.standIns["asked"].Ask(at(3))
	b.mu.Unlock()
	var got []string
	for _, v := range b.choose(disks, map[string]bool{"n1": true, "n2": true}) {
		got = append(got, v.ID)
	}
	if want := []string{"asked", "written", "long-ago", "idle"}; !slices.Equal(got, want) {
		t.Errorf("taken over in the order %q, not %q", got, want)
	}
}

// TestDueOrder: what was due first is visited first.
func TestDueOrder(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	b.stop()
	now := b.clk.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range 100 {
		b.due[ref{"vdisk", string(rune('a' + i))}] = retry{at: now.Add(-time.Duration(i) * time.Second)}
	}
	b.due[ref{"vdisk", "busy"}] = retry{at: now.Add(-time.Hour), busy: true}
	for i := 99; i >= 0; i-- {
		r, at := b.nextDue(now.Add(time.Hour))
		if r.id != string(rune('a'+i)) || !at.Equal(now.Add(-time.Duration(i)*time.Second)) {
			t.Fatalf("%q at %v is next, not %d", r.id, at, i)
		}
		delete(b.due, r)
	}
	if _, at := b.nextDue(now.Add(time.Hour)); !at.Equal(now.Add(time.Hour)) {
		t.Errorf("nothing is due, and the next at %v", at)
	}
}
