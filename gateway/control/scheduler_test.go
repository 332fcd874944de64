package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/schedule"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// scheduled is a bench whose scheduler the test moves: it looks for what is due when the
// test says so, and the test waits until all runs have ended. Its time is ten to one in the
// afternoon, many hours from the jobs of the night, whenever the test is run.
func scheduled(t *testing.T) *bench {
	b := newBench(t, t.TempDir(), &place{})
	now := b.clk.Now().UTC()
	b.clk.Advance(now.Truncate(24 * time.Hour).Add(36*time.Hour + 50*time.Minute).Sub(now))
	b.gold(t.TempDir())
	b.opt.NoSchedules = false
	return b
}

// to moves the clock to a moment, and has what is due then run to its end.
func (b *bench) to(at time.Time) {
	b.t.Helper()
	b.clk.Advance(at.Sub(b.clk.Now().Round(0)))
	b.runDue()
	b.ended()
}

func (b *bench) ended() {
	b.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		b.mu.Lock()
		n := len(b.scheduler.busy) + len(b.scheduler.queue)
		b.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-b.changed:
		case <-limit.C:
			b.t.Fatalf("%d runs have not ended", n)
		}
	}
}

func (b *bench) names(v model.VDisk) []string {
	b.t.Helper()
	all, err := b.Snapshots(b.t.Context(), v.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	var out []string
	for _, s := range all {
		out = append(out, s.Name)
	}
	return out
}

func (b *bench) newest(v model.VDisk, name model.JobName) model.Run {
	b.t.Helper()
	r, _ := b.model.Runs(v.ID)
	if len(r.Jobs[name].Runs) == 0 {
		b.t.Fatalf("no run of %s", name)
	}
	return r.Jobs[name].Runs[0]
}

// hour returns the n-th full hour of what is made now at which its jobs run.
func (b *bench) hour(n int) time.Time {
	return b.clk.Now().Add(firstAge).UTC().Truncate(time.Hour).Add(time.Duration(n) * time.Hour)
}

const afterSlot = scheduleSpread + time.Minute

// Automatic snapshots are made once for each slot: also when the run is repeated because
// nothing of it was stored, when the clock goes back, and by the next process.
func TestAutomaticSnapshots(t *testing.T) {
	b := scheduled(t)
	v := b.disk("a")
	first := b.hour(1)
	if young := first.Add(-time.Hour); young.After(v.Created) {
		b.to(young.Add(afterSlot)) // the vDisk is too young for it
		if got := b.names(v); len(got) != 0 {
			t.Fatalf("snapshots of a new vDisk: %v", got)
		}
	}
	b.to(first.Add(afterSlot))
	if got := b.names(v); !slices.Equal(got, []string{AutoSnapshotName(first)}) {
		t.Fatalf("snapshots %v", got)
	}
	if r := b.newest(v, model.JobSnapshot); r.Result != model.RunDone || !r.Slot.Equal(first) || r.Text != AutoSnapshotName(first) {
		t.Errorf("run %+v", r)
	}
	all, _ := b.Snapshots(t.Context(), v.ID)
	if _, told := b.noted.Load(string(event.SnapshotCreated) + " vdisk a"); told {
		t.Error("an automatic snapshot is told")
	}
	if s := all[0]; !s.Automatic || s.Sticky || s.Consistent {
		t.Errorf("snapshot %+v", s)
	}
	b.to(first.Add(afterSlot + time.Minute)) // nothing is due
	if err := b.model.DeleteRuns(t.Context(), v.ID); err != nil {
		t.Fatal(err)
	}
	b.to(first.Add(afterSlot + 2*time.Minute)) // as after a crash before it was stored
	if got := b.names(v); len(got) != 1 {
		t.Errorf("repeated: %v", got)
	}
	b.to(first.Add(5*time.Hour + afterSlot)) // four missed, one caught up
	if got := b.names(v); !slices.Equal(got, []string{AutoSnapshotName(first), AutoSnapshotName(first.Add(5 * time.Hour))}) {
		t.Errorf("caught up: %v", got)
	}
	b.to(first.Add(3*time.Hour + afterSlot)) // the clock goes back
	if got := b.names(v); len(got) != 2 {
		t.Errorf("clock back: %v", got)
	}
	b.stop()
	again := newBench(t, b.dir, &place{})
	again.clk.Advance(first.Add(5*time.Hour + 2*afterSlot).Sub(again.clk.Now().Round(0)))
	again.runDue()
	again.ended()
	if got := again.names(v); len(got) != 2 {
		t.Errorf("after a restart: %v", got)
	}
	if r, _ := again.model.Runs(v.ID); len(r.Jobs[model.JobSnapshot].Runs) != 2 {
		t.Errorf("history after a restart: %+v", r)
	}
}

// A name that somebody took is a failed run, and the next slot is run again.
func TestAutomaticSnapshotFails(t *testing.T) {
	b := scheduled(t)
	v := b.disk("a")
	slot := b.hour(1)
	if _, err := b.CreateSnapshot(t.Context(), "a", volume.SnapshotSpec{Name: AutoSnapshotName(slot)}); err != nil {
		t.Fatal(err)
	}
	b.to(slot.Add(afterSlot))
	if r := b.newest(v, model.JobSnapshot); r.Result != model.RunFailed || !strings.Contains(r.Text, "has a snapshot") {
		t.Errorf("run %+v", r)
	}
	b.tells("vdisk a", event.ScheduleFailed)
	b.to(slot.Add(time.Hour + afterSlot))
	if r := b.newest(v, model.JobSnapshot); r.Result != model.RunDone {
		t.Errorf("next run %+v", r)
	}
}

// The nearest one that says something counts; templates, other nodes' vDisks and those
// whose job is off run nothing.
func TestPolicies(t *testing.T) {
	b := scheduled(t)
	ctx := t.Context()
	v, off, there := b.disk("a"), b.disk("off"), b.disk("there")
	no, yes, at5, daily, zone := false, true, "5 * * * *", "@daily", "Europe/Brussels"
	for _, err := range []error{
		b.SetJob(ctx, ScheduleScope{}, "snapshot", JobPatch{Cron: &daily}),
		b.SetJob(ctx, ScheduleScope{VPool: "gold"}, "snapshot", JobPatch{Cron: &at5, Zone: &zone}),
		b.SetJob(ctx, ScheduleScope{VDisk: "off"}, "snapshot", JobPatch{Enabled: &no}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.model.UpdateVDisk(ctx, there.ID, func(v *model.VDisk) error { v.Node = "other"; return nil }); err != nil {
		t.Fatal(err)
	}
	slot := b.hour(1).Add(5 * time.Minute)
	b.to(slot.Add(afterSlot))
	if got := b.names(v); !slices.Equal(got, []string{AutoSnapshotName(slot)}) {
		t.Errorf("snapshots %v", got)
	}
	for _, d := range []model.VDisk{off, there} {
		if r, ok := b.model.Runs(d.ID); ok {
			t.Errorf("vDisk %s ran %+v", d.Name, r)
		}
	}
	_, jobs, err := b.Schedule(ScheduleScope{VDisk: "a"})
	if err != nil || jobs[0].Source != FromVPool || jobs[0].Zone != zone || jobs[1].Source != FromDefault || len(jobs[0].Runs) != 1 {
		t.Errorf("schedule %+v, %v", jobs, err)
	}
	if next := slot.Add(time.Hour); !jobs[0].Slot.Equal(next) || jobs[0].Next.Before(next) || jobs[0].Next.After(next.Add(scheduleSpread)) {
		t.Errorf("next %s at %s", jobs[0].Slot, jobs[0].Next)
	}
	if said := b.Sayings(); len(said) != 5 || said[0].Source != FromCluster || said[3].VDisk != "" || said[4].VDisk != "off" {
		t.Errorf("sayings %+v", said)
	}
	for _, err := range []error{
		b.ResetJob(ctx, ScheduleScope{VPool: "gold"}, "snapshot"), b.ResetJob(ctx, ScheduleScope{}, "snapshot"),
		b.SetJob(ctx, ScheduleScope{VDisk: "off"}, "snapshot", JobPatch{Enabled: &yes}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, jobs, _ = b.Schedule(ScheduleScope{VDisk: "a"}); jobs[0].Source != FromDefault || jobs[0].Cron != "0 * * * *" {
		t.Errorf("schedule after reset %+v", jobs[0])
	}
	if _, jobs, _ = b.Schedule(ScheduleScope{VDisk: "off"}); jobs[0].Source != FromVDisk || !jobs[0].Enabled {
		t.Errorf("schedule of what is on again %+v", jobs[0])
	}
}

func TestSetJobRefuses(t *testing.T) {
	b := scheduled(t)
	b.disk("a")
	bad, mars, many, some := "61 * * * *", "Mars/Base", schedule.MaxWeeks+1, 3
	for _, c := range []struct {
		scope ScheduleScope
		job   string
		patch JobPatch
		code  Code
		field string
	}{
		{ScheduleScope{}, "snapshot", JobPatch{Cron: &bad}, CodeInvalid, "cron"},
		{ScheduleScope{}, "snapshot", JobPatch{Zone: &mars}, CodeInvalid, "zone"},
		{ScheduleScope{}, "retention", JobPatch{Weeks: &many}, CodeInvalid, "weeks"},
		{ScheduleScope{}, "scrub", JobPatch{Days: &some}, CodeInvalid, "days"},
		{ScheduleScope{}, "dinner", JobPatch{}, CodeNotFound, "job"},
		{ScheduleScope{VDisk: "b"}, "scrub", JobPatch{}, CodeNotFound, "vdisk"},
		{ScheduleScope{VDisk: "a", VPool: "gold"}, "scrub", JobPatch{}, CodeInvalid, "vdisk"},
	} {
		if e := wantCode(t, b.SetJob(t.Context(), c.scope, c.job, c.patch), c.code); e.Field != c.field && c.code == CodeInvalid {
			t.Errorf("field %q, want %q", e.Field, c.field)
		}
	}
	if n := len(b.model.Schedules()); n != 0 {
		t.Errorf("%d records after what was refused", n)
	}
}

// The retention deletes by the rule of gateway/schedule and leaves alone what is sticky, of
// people, or the parent of a clone. After days without a run it waits for one more.
func TestRetention(t *testing.T) {
	b := scheduled(t)
	ctx := t.Context()
	v := b.disk("a")
	no := false
	for _, job := range []string{"snapshot", "scrub"} {
		if err := b.SetJob(ctx, ScheduleScope{}, job, JobPatch{Enabled: &no}); err != nil {
			t.Fatal(err)
		}
	}
	night := b.clk.Now().UTC().Truncate(24 * time.Hour).Add(24*time.Hour + 2*time.Hour + time.Minute)
	b.to(night.Add(afterSlot))
	var ids []volume.Snapshot
	for _, s := range []volume.SnapshotSpec{
		{Name: "old", Automatic: true}, {Name: "kept", Automatic: true}, {Name: "manual"}, {Name: "sticky", Automatic: true, Sticky: true}, {Name: "parent", Automatic: true},
	} {
		made, err := b.CreateSnapshot(ctx, "a", s)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, made)
	}
	if _, err := b.CloneVDisk(ctx, "a", Clone{From: volume.Point{Snapshot: "parent"}, Name: "k"}); err != nil {
		t.Fatal(err)
	}
	for day := 1; day <= 2; day++ { // the engine's clock is the machine's: nothing is old yet
		b.to(night.AddDate(0, 0, day).Add(afterSlot))
	}
	if r := b.newest(v, model.JobRetention); r.Result != model.RunDone {
		t.Fatalf("run %+v", r)
	}
	made := ids[0].Time
	gone := func(at time.Time) time.Time { // the first night at which what is from then is older than 28 days
		return at.UTC().Truncate(24*time.Hour).AddDate(0, 0, 30).Add(2*time.Hour + time.Minute + afterSlot)
	}
	b.to(gone(made))
	if r := b.newest(v, model.JobRetention); r.Result != model.RunSkipped || !strings.Contains(r.Text, "did not run since") {
		t.Fatalf("after a month without a run: %+v", r)
	}
	if n := len(b.names(v)); n < 4 {
		t.Fatalf("%d are left", n)
	}
	b.to(gone(made).AddDate(0, 0, 1))
	if got := b.names(v); !slices.Equal(got, []string{"manual", "sticky", "parent"}) {
		t.Errorf("left %v: %+v", got, b.newest(v, model.JobRetention))
	}
}

// Where what did not change is skipped, each write is followed by one snapshot, a vDisk goes
// without, and the newest one stays however old it is.
func TestSkipUnchanged(t *testing.T) {
	b := scheduled(t)
	ctx := t.Context()
	v := b.disk("a")
	yes, no := true, false
	for _, err := range []error{
		b.SetJob(ctx, ScheduleScope{VDisk: "a"}, "snapshot", JobPatch{SkipUnchanged: &yes}),
		b.SetJob(ctx, ScheduleScope{VDisk: "a"}, "scrub", JobPatch{Enabled: &no}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, b.SetJob(ctx, ScheduleScope{}, "retention", JobPatch{SkipUnchanged: &yes}), CodeInvalid)
	slot := b.hour(0)
	made := func(what string, want int) model.Run {
		t.Helper()
		slot = slot.Add(time.Hour)
		b.to(slot.Add(afterSlot))
		r := b.newest(v, model.JobSnapshot)
		if got := b.names(v); len(got) != want || r.Result != model.RunDone || !r.Slot.Equal(slot) {
			t.Fatalf("%s: snapshots %v, run %+v", what, got, r)
		}
		return r
	}
	write := func() {
		t.Helper()
		if err := b.volume(v.ID).(*volume.Volume).WriteAt(ctx, bytes.Repeat([]byte{1}, 4096), 8192); err != nil {
			t.Fatal(err)
		}
	}
	made("a vDisk without a snapshot", 1)
	if r := made("nothing was written", 1); !strings.Contains(r.Text, "since snapshot auto-") {
		t.Errorf("run %+v", r)
	}
	write()
	made("it was written to", 2)
	if _, err := b.UpdateVDisk(ctx, "a", DiskPatch{Size: new(v.Size * 2)}); err != nil {
		t.Fatal(err)
	}
	made("it grew", 3)
	made("nothing was written", 3)
	if late := b.LateSnapshots(b.model.VDisks(nil)); len(late) != 0 {
		t.Errorf("late: %v", late)
	}
	if _, _, err := b.Rollback(ctx, "a", volume.Point{Snapshot: b.names(v)[0]}, false); err != nil {
		t.Fatal(err)
	}
	before := len(b.names(v))
	write()
	made("it was written to after a rollback", before+1)
	made("nothing was written after a rollback", before+1)

	newest := b.names(v)[before]
	night := b.clk.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, 60).Add(2*time.Hour + time.Minute + afterSlot)
	for day := range 3 { // the first of them waits, after so long
		b.to(night.AddDate(0, 0, day))
	}
	if got := b.names(v); !slices.Equal(got, []string{newest}) {
		t.Errorf("after two months %v are left, want %s: %+v", got, newest, b.newest(v, model.JobRetention))
	}
	if err := b.SetJob(ctx, ScheduleScope{VDisk: "a"}, "snapshot", JobPatch{Enabled: &no, SkipUnchanged: &no}); err != nil {
		t.Fatal(err)
	}
	b.to(night.AddDate(0, 0, 3))
	if got := b.names(v); len(got) != 0 {
		t.Errorf("%v are left", got)
	}
}

// Runs of a job are bounded on the node and of a vPool, and one that ends lets the next
// begin.
func TestRunsBounded(t *testing.T) {
	b := scheduled(t)
	var disks []model.VDisk
	for i := range 6 {
		disks = append(disks, b.disk(fmt.Sprintf("d%d", i)))
	}
	release, begun := make(chan struct{}), make(chan string, len(disks))
	b.mu.Lock()
	for _, v := range disks {
		b.scheduler.queue = append(b.scheduler.queue, due{vdisk: v, name: model.JobSnapshot, slot: b.hour(0), do: func(ctx context.Context) (string, error) {
			begun <- v.Name
			<-release
			return "", errors.New("no")
		}})
	}
	b.mu.Unlock()
	b.beginQueued()
	limit := jobBounds[model.JobSnapshot].vpool
	for range limit {
		<-begun
	}
	b.mu.Lock()
	busy, queued := len(b.scheduler.busy), len(b.scheduler.queue)
	b.mu.Unlock()
	if busy != limit || queued != len(disks)-limit {
		t.Errorf("%d run and %d wait", busy, queued)
	}
	close(release)
	b.ended()
	if n := len(begun); n != len(disks)-limit {
		t.Errorf("%d of the others began", n)
	}
	for _, v := range disks {
		if r := b.newest(v, model.JobSnapshot); r.Result != model.RunFailed {
			t.Errorf("%s: %+v", v.Name, r)
		}
	}
}

// A run that somebody asks for takes no slot's place.
func TestRunJob(t *testing.T) {
	b := scheduled(t)
	v := b.disk("a")
	for _, job := range []string{"snapshot", "retention", "scrub"} {
		if err := b.RunJob(t.Context(), "a", job); err != nil {
			t.Fatal(err)
		}
		b.ended()
		if r := b.newest(v, model.JobName(job)); r.Result != model.RunDone || !r.Slot.IsZero() {
			t.Errorf("%s: %+v", job, r)
		}
	}
	if n := len(b.names(v)); n != 1 {
		t.Errorf("%d snapshots", n)
	}
	slot := b.hour(1)
	b.to(slot.Add(afterSlot))
	if n := len(b.names(v)); n != 2 {
		t.Errorf("%d snapshots after the next slot", n)
	}
	wantCode(t, b.RunJob(t.Context(), "", "snapshot"), CodeInvalid)
	if err := b.DeleteVDisk(t.Context(), "a", true); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.model.Runs(v.ID); ok {
		t.Error("runs of a deleted vDisk stay")
	}
}

// A vDisk without a snapshot for three slots is late, one whose job is off is not.
func TestLateSnapshots(t *testing.T) {
	b := scheduled(t)
	v, off := b.disk("a"), b.disk("off")
	no := false
	if err := b.SetJob(t.Context(), ScheduleScope{VDisk: off.ID}, "snapshot", JobPatch{Enabled: &no}); err != nil {
		t.Fatal(err)
	}
	first := b.hour(1)
	b.to(first.Add(afterSlot))
	b.clk.Advance(first.Add(3*time.Hour + 30*time.Minute).Sub(b.clk.Now().Round(0)))
	if late := b.LateSnapshots(b.model.VDisks(nil)); len(late) != 0 {
		t.Errorf("late after three: %v", late)
	}
	b.clk.Advance(time.Hour)
	if late := b.LateSnapshots(b.model.VDisks(nil)); len(late) != 1 || late[v.ID].IsZero() {
		t.Errorf("late: %v", late)
	}
	b.runDue()
	b.ended()
	if late := b.LateSnapshots(b.model.VDisks(nil)); len(late) != 0 {
		t.Errorf("late after it was caught up: %v", late)
	}
}
