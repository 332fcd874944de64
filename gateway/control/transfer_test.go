package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// mib is content of a MiB: a third of its clusters are zeros.
func mib(seed byte) []byte {
	b := make([]byte, MaxTransfer)
	for i := range b {
		if c := i / 4096; c%3 != 1 {
			b[i] = byte(c)*7 + seed + byte(i)
		}
	}
	return b
}

func (b *bench) begin(name string) Transfer {
	b.t.Helper()
	t, err := b.BeginImport(b.t.Context(), NewDisk{Name: name, VPool: "gold", Size: 4 << 20, Labels: map[string]string{"a": "b"}})
	if err != nil {
		b.t.Fatal(err)
	}
	return t
}

func (b *bench) put(t Transfer, off int64, p []byte) {
	b.t.Helper()
	if err := b.WriteImport(b.t.Context(), t.ID, off, p); err != nil {
		b.t.Fatal(err)
	}
}

// exported reads all that an export has, by its extents; what these leave out has to
// be zeros.
func (b *bench) exported(t Transfer) []byte {
	b.t.Helper()
	out := make([]byte, t.Size)
	for next := int64(0); next >= 0; {
		var l []Range
		var err error
		if l, next, err = b.Extents(b.t.Context(), t.ID, next); err != nil {
			b.t.Fatal(err)
		}
		for _, e := range l {
			for off := e.Offset; off < e.Offset+e.Length; off += MaxTransfer {
				p, err := b.ReadExport(b.t.Context(), t.ID, off, min(MaxTransfer, e.Offset+e.Length-off))
				if err != nil {
					b.t.Fatal(err)
				}
				copy(out[off:], p)
			}
		}
	}
	return out
}

// gone waits, while the clock goes on, until nothing of a vDisk is left: no record, no
// objects in the backend's directory.
func (b *bench) gone(id, far string) {
	b.t.Helper()
	limit, tick := time.NewTimer(patience), time.NewTicker(5*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for {
		_, ok := b.model.VDisk(id)
		left, err := filepath.Glob(filepath.Join(far, "v~", id+"*"))
		if err != nil {
			b.t.Fatal(err)
		}
		if !ok && len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
			b.clk.Advance(transferLook)
		case <-limit.C:
			b.t.Fatalf("there is still a record (%v) or %v", ok, left)
		}
	}
}

// TestImport: ranges in any order and repeated, zeros over data, and no space for
// zeros; refusals; usable only when it is finished.
func TestImport(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	x := b.begin("x")
	want := make([]byte, 4<<20)
	write := func(off int64, p []byte) {
		b.put(x, off, p)
		copy(want[off:], p)
	}
	write(2<<20, mib(1))
	write(0, mib(2))
	write(0, mib(2))
	write(512, bytes.Repeat([]byte{9}, 1024))
	write(2<<20, make([]byte, 8192))     // over data
	write(3<<20, make([]byte, 1<<20))    // over nothing
	write(4<<20-512, []byte(want[:512])) // the end
	for _, c := range []struct {
		off int64
		n   int
	}{{-512, 512}, {100, 512}, {4 << 20, 512}, {4<<20 - 512, 1024}, {0, 0}, {0, 100}, {0, MaxTransfer + 512}, {1 << 62, 512}} {
		wantCode(t, b.WriteImport(t.Context(), x.ID, c.off, make([]byte, c.n)), CodeInvalid)
	}
	rec, _ := b.model.VDisk(x.ID)
	if s := b.DiskStatus(rec); s.State != StateTransferring || rec.State != model.StateTransfer {
		t.Errorf("state %s, record %s", s.State, rec.State)
	}
	open := true
	wantCode(t, second(b.Publish(t.Context(), "x", PublishOptions{Open: &open})), CodeInUse)
	wantCode(t, second(b.CreateSnapshot(t.Context(), "x", volume.SnapshotSpec{Name: "s"})), CodeInUse)
	wantCode(t, second(b.CreateVDisk(t.Context(), NewDisk{Name: "x", VPool: "gold", Size: 1 << 20})), CodeExists)
	wantCode(t, second(b.BeginImport(t.Context(), NewDisk{Name: "x", VPool: "gold", Size: 1 << 20})), CodeExists)
	wantCode(t, second(b.BeginExport(t.Context(), "x", volume.Point{})), CodeInUse)
	wantCode(t, second(b.ReadExport(t.Context(), x.ID, 0, 512)), CodeNotFound)
	if err := b.EndExport(t.Context(), x.ID); err != nil || !b.transferring(x.ID) {
		t.Errorf("an export's end ended an import (%v)", err)
	}
	mapped := b.volume(x.ID).Stats().LastSeq
	if v, err := b.FinishImport(t.Context(), x.ID); err != nil || v.State != model.StatePresent || v.Labels["a"] != "b" {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := b.FinishImport(t.Context(), x.ID); err != nil {
		t.Errorf("finished again: %v", err)
	}
	if err := b.AbortImport(t.Context(), x.ID); err != nil {
		t.Errorf("aborted when it was finished: %v", err)
	}
	wantCode(t, b.WriteImport(t.Context(), x.ID, 0, make([]byte, 512)), CodeNotFound)
	if n := b.volume(x.ID).Stats(); n.MappedBytes > 2*(1<<20)*7/10 || n.LastSeq < mapped {
		t.Errorf("%d bytes are mapped", n.MappedBytes)
	}
	if _, err := b.Publish(t.Context(), "x", PublishOptions{Open: &open}); err != nil {
		t.Errorf("a vDisk like any other: %v", err)
	}
	e, err := b.BeginExport(t.Context(), "x", volume.Point{})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.exported(e); !bytes.Equal(got, want) {
		t.Error("what comes out is not what went in")
	}
	wantCode(t, b.WriteImport(t.Context(), e.ID, 0, make([]byte, 512)), CodeNotFound)
	wantCode(t, second(b.FinishImport(t.Context(), e.ID)), CodeNotFound)
	if err := b.EndExport(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
}

// TestExportHolds: what is exported stays, whatever becomes of the vDisk; nothing is
// left when it has ended.
func TestExportHolds(t *testing.T) {
	far := t.TempDir()
	b := newBench(t, t.TempDir(), &place{})
	b.gold(far)
	x := b.begin("x")
	b.put(x, 1<<20, mib(3))
	if _, err := b.FinishImport(t.Context(), x.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateSnapshot(t.Context(), "x", volume.SnapshotSpec{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	e, err := b.BeginExport(t.Context(), "x", volume.Point{Snapshot: "s"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.volume(x.ID).WriteAt(t.Context(), mib(4)[:64<<10], 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteSnapshot(t.Context(), "x", "s", false); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVDisk(t.Context(), "x", true); err != nil {
		t.Fatal(err)
	}
	want := append(append(make([]byte, 1<<20), mib(3)...), make([]byte, 2<<20)...)
	if got := b.exported(e); !bytes.Equal(got, want) {
		t.Error("the export changed")
	}
	if err := b.EndExport(t.Context(), e.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.EndExport(t.Context(), e.ID); err != nil {
		t.Errorf("ended again: %v", err)
	}
	b.gone(e.ID, far)
	b.gone(x.ID, far)
}

// TestTransferIdle: a transfer whose client is gone ends, and its name is free; one
// that is used does not.
func TestTransferIdle(t *testing.T) {
	far := t.TempDir()
	b := newBench(t, t.TempDir(), &place{})
	b.gold(far)
	x := b.begin("x")
	used, err := b.use(x.ID, true) // a request that takes long
	if err != nil {
		t.Fatal(err)
	}
	y := b.begin("y")
	b.gone(y.ID, far)
	if !b.transferring(x.ID) {
		t.Fatal("a transfer ended while a request used it")
	}
	b.leave(used)
	z := b.begin("z")
	for range 3 { // z is not used, x is asked for now and then
		b.clk.Advance(transferIdle - transferLook)
		if got, err := b.TouchTransfer(t.Context(), x.ID, true); err != nil || got != x {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	wantCode(t, second(b.TouchTransfer(t.Context(), x.ID, false)), CodeNotFound)
	b.gone(z.ID, far)
	b.gone(x.ID, far)
	wantCode(t, b.WriteImport(t.Context(), x.ID, 0, make([]byte, 512)), CodeNotFound)
	b.begin("x")
}

// TestTransferRestart: a stop, and a crash at any point of a beginning, leave nothing
// of a transfer, and the vDisks beside it alone.
func TestTransferRestart(t *testing.T) {
	dir, far, p := t.TempDir(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(far)
	keep := b.disk("keep")
	x := b.begin("x")
	b.put(x, 0, mib(5))
	e, err := b.BeginExport(t.Context(), "keep", volume.Point{})
	if err != nil {
		t.Fatal(err)
	}
	b.stop()
	// A record without a vDisk, as of a crash between the two.
	db, err := kv.OpenBolt(filepath.Join(dir, "kv.db"), kv.BoltOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Open(t.Context(), db, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := volume.NewID(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateVDisk(t.Context(), model.VDisk{ID: id.String(), Name: "z", VPool: keep.VPool, Size: 1 << 20, ClusterSize: 4096, State: model.StateTransfer}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	p.away.Store(true) // at first: then the name is free and the space is not
	b = newBench(t, dir, p)
	for _, name := range []string{"x", "z"} {
		if _, ok := b.model.VDiskByName(keep.VPool, name); ok {
			t.Errorf("%s still has its name after a restart", name)
		}
	}
	p.away.Store(false)
	for _, id := range []string{x.ID, e.ID, id.String()} {
		b.gone(id, far)
	}
	b.until("open", func() bool { return b.volume(keep.ID) != nil })
	b.begin("x")
}

// TestTransferEnds: writes, a finish and an abort at once end in one of the two: a
// whole vDisk or none.
func TestTransferEnds(t *testing.T) {
	far := t.TempDir()
	b := newBench(t, t.TempDir(), &place{})
	b.gold(far)
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for i := range rounds {
		x := b.begin(fmt.Sprintf("x%d", i))
		b.put(x, 0, mib(6))
		var wg sync.WaitGroup
		var finished error
		wg.Go(func() {
			for range 3 {
				_ = b.WriteImport(context.Background(), x.ID, 0, mib(6))
			}
		})
		wg.Go(func() { _, finished = b.FinishImport(context.Background(), x.ID) })
		wg.Go(func() {
			if err := b.AbortImport(context.Background(), x.ID); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		rec, ok := b.model.VDisk(x.ID)
		switch {
		case finished == nil && (!ok || rec.State != model.StatePresent):
			t.Fatalf("finished, but %+v", rec)
		case finished == nil:
			p := make([]byte, MaxTransfer)
			if err := b.volume(x.ID).ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, mib(6)) {
				t.Fatalf("finished, and not what was written: %v", err)
			}
		default:
			b.gone(x.ID, far)
		}
	}
}

// TestTransferLimit: there is an end to how many are open.
func TestTransferLimit(t *testing.T) {
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	for i := range maxTransfers {
		b.begin(fmt.Sprintf("x%d", i))
	}
	_, err := b.BeginImport(t.Context(), NewDisk{Name: "more", VPool: "gold", Size: 1 << 20})
	if e := wantCode(t, err, CodeInUse); !strings.Contains(e.Message, fmt.Sprint(maxTransfers)) {
		t.Error(e)
	}
	if _, err := b.FindVDisk("more"); err == nil {
		t.Error("a refused import left a record")
	}
}

// TestVerifyJob: it is known through a restart that there is damage, and a stop ends
// one that is under way.
func TestVerifyJob(t *testing.T) {
	dir, far, p := t.TempDir(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(far)
	x := b.begin("x")
	b.put(x, 0, mib(7))
	if _, err := b.FinishImport(t.Context(), x.ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, second(b.StartVerify(t.Context(), "x", -1)), CodeInvalid)
	if v, err := b.StartVerify(t.Context(), "x", 1); err != nil || v.State != VerifyRunning && v.State != VerifyWaiting {
		t.Fatalf("%+v, %v", v, err)
	}
	b.stop() // the manual clock does not let it go on
	b.tells("vdisk x", event.VDiskVerifyFailed)
	b = newBench(t, dir, p)
	v, err := b.Verification("x")
	if err != nil || v.State != VerifyCancelled || v.Result.BadObjects != 0 {
		t.Fatalf("after a stop: %+v, %v", v, err)
	}
	if _, err := b.StartVerify(t.Context(), "x", 1); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteVDisk(t.Context(), "x", true); err != nil {
		t.Fatal(err)
	}
	b.gone(x.ID, far)
	if _, ok := b.model.Verification(x.ID); ok {
		t.Error("the result of a deleted vDisk is kept")
	}
	if err := b.CancelVerify(t.Context(), x.ID); !errors.As(err, new(*Error)) {
		t.Errorf("of a vDisk that is not there: %v", err)
	}
}

// TestScheduledVerify: each vDisk is verified within the interval of its vPool, one after
// the other; one that was cut off is left alone for a day.
func TestScheduledVerify(t *testing.T) {
	ctx := t.Context()
	b := newBench(t, t.TempDir(), &place{})
	b.gold(t.TempDir())
	ended := func(name string) time.Time {
		v, err := b.Verification(name)
		if err != nil {
			t.Fatal(err)
		}
		return v.Result.Ended
	}
	b.disk("one")
	b.disk("two")
	b.clk.Advance(29 * 24 * time.Hour)
	b.disk("young")
	b.clk.Advance(verifyLook)
	if !ended("one").IsZero() || !ended("two").IsZero() {
		t.Fatal("verified before it was due")
	}
	b.clk.Advance(24 * time.Hour)
	b.pass(verifyLook, "verified", func() bool { return !ended("one").IsZero() && !ended("two").IsZero() })
	if !ended("young").IsZero() {
		t.Error("a young vDisk was verified")
	}
	short, none, wrong := time.Hour, time.Duration(0), time.Minute
	_, err := b.UpdateVPool(ctx, "gold", nil, SettingsPatch{VerifyInterval: &wrong})
	wantCode(t, err, CodeInvalid)
	if _, err := b.UpdateVPool(ctx, "gold", nil, SettingsPatch{VerifyInterval: &short}); err != nil {
		t.Fatal(err)
	}
	b.pass(verifyLook, "verified", func() bool { return !ended("young").IsZero() })
	if _, err := b.UpdateVPool(ctx, "gold", nil, SettingsPatch{VerifyInterval: &none}); err != nil {
		t.Fatal(err)
	}
	before := ended("one")
	for range 5 {
		b.clk.Advance(300 * 24 * time.Hour)
		if _, due := b.dueForVerify(map[string]time.Time{}); due {
			t.Fatal("due although nothing is to be verified")
		}
	}
	if ended("one") != before {
		t.Error("verified although nothing is to be")
	}
}
