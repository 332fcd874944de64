package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/gateway/task"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// waiter completes an operation for a test.
type waiter chan error

func (w waiter) Complete(op *iscsi.Op) { w <- op.Err }

// silver makes a second vPool.
func (b *bench) silver(dir string) model.VPool {
	b.t.Helper()
	p, err := b.CreateVPool(b.t.Context(), NewPool{Name: "silver", Backend: model.Backend{Kind: "local", Path: dir}})
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// blocks writes 4 KiB blocks through what initiators are given, some at a time, and
// checks what was written before, until stop. Each block has its newest number.
func (b *bench) blocks(d *disk, n int64, stop chan struct{}) (written func() uint64, done func() map[int64]uint64) {
	var wg sync.WaitGroup
	var count atomic.Uint64
	last := make([]map[int64]uint64, 4)
	for w := range last {
		last[w] = map[int64]uint64{}
		wg.Go(func() {
			fin, p := make(waiter, 1), make([]byte, 4096)
			do := func(op *iscsi.Op) {
				op.Done = fin
				d.Submit(op)
				select {
				case err := <-fin:
					if err != nil {
						b.t.Errorf("operation %d at %d: %v", op.Kind, op.Offset, err)
					}
				case <-time.After(patience):
					b.t.Errorf("operation %d at %d has no answer", op.Kind, op.Offset)
				}
			}
			for i := uint64(1); !b.t.Failed(); i++ {
				select {
				case <-stop:
					return
				default:
				}
				at := (int64(i*7)%(n/4) + int64(w)*(n/4)) * 4096
				binary.LittleEndian.PutUint64(p, i)
				do(&iscsi.Op{Kind: iscsi.OpWrite, Offset: at, Length: 4096, Data: p})
				last[w][at] = i
				count.Add(1)
				if i%5 == 0 {
					do(&iscsi.Op{Kind: iscsi.OpRead, Offset: at, Length: 4096, Data: p})
					if got := binary.LittleEndian.Uint64(p); got != i {
						b.t.Errorf("block %d has %d, not %d", at/4096, got, i)
					}
				}
			}
		})
	}
	return count.Load, func() map[int64]uint64 {
		wg.Wait()
		all := map[int64]uint64{}
		for _, m := range last {
			for at, v := range m {
				all[at] = v
			}
		}
		return all
	}
}

// TestMove: a vDisk moves to another vPool and back while initiators write to it, and
// none of them notices more than a pause; the old vPool has nothing of it then.
func TestMove(t *testing.T) {
	ctx := t.Context()
	dir, far, near, p := t.TempDir(), t.TempDir(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(far)
	silver := b.silver(near)
	one := b.disk("one")
	if _, err := b.CreateSnapshot(ctx, "one", volume.SnapshotSpec{Name: "first"}); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	d := b.disks[one.ID].disk
	b.mu.Unlock()
	stop := make(chan struct{})
	written, done := b.blocks(d, 4096, stop)
	var looks sync.WaitGroup
	looks.Go(func() { // what is not moving any more is open
		for !t.Failed() {
			select {
			case <-stop:
				return
			default:
			}
			v, _ := b.model.VDisk(one.ID)
			_, moving := b.Moving(v)
			st := b.DiskStatus(v)
			if now, _ := b.model.VDisk(one.ID); now.Rev == v.Rev && !moving && !st.Open { // it may be stalled: the writers are fast
				t.Errorf("not moving, and %s: %s", st.State, st.Reason)
			}
		}
	})
	for round, to := range []string{"silver", "gold"} {
		began := written()
		if _, err := b.MoveVDisk(ctx, "one", to); err != nil {
			t.Fatal(err)
		}
		b.until("moved", func() bool { v, _ := b.model.VDisk(one.ID); return v.Move == nil && v.Left == "" })
		for at := written(); written() < at+100 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		v, _ := b.model.VDisk(one.ID)
		if (v.VPool == silver.ID) != (round == 0) || written() == began {
			t.Fatalf("round %d: %+v", round, v)
		}
		from := []string{far, near}[round]
		if n := objects(t, from); n != 0 {
			t.Errorf("round %d: %d objects stayed", round, n)
		}
		snaps, err := b.Snapshots(ctx, "one")
		if err != nil || len(snaps) != 1 || snaps[0].Name != "first" {
			t.Errorf("%+v, %v", snaps, err)
		}
	}
	for _, to := range []string{"silver", "gold"} {
		b.untilTask(task.Task{Kind: task.Move, Object: "vdisk one", What: "move to vpool " + to, State: task.Done})
	}
	close(stop)
	looks.Wait()
	want := done()
	b.stop()
	b = newBench(t, dir, p)
	vol := b.volume(one.ID)
	buf := make([]byte, 4096)
	for at, n := range want {
		if err := vol.ReadAt(ctx, buf, at); err != nil || binary.LittleEndian.Uint64(buf) != n {
			t.Fatalf("block %d has %d, not %d: %v", at/4096, binary.LittleEndian.Uint64(buf), n, err)
		}
	}
	if err := b.DeleteVPool(ctx, "silver"); err != nil {
		t.Error(err)
	}
}

// untilTask waits until there is such a task, with these words in what it is and in its error.
func (b *bench) untilTask(want task.Task) (found task.Task) {
	b.t.Helper()
	b.until(fmt.Sprintf("task %+v", want), func() bool {
		for _, x := range b.Tasks() {
			if x.Kind == want.Kind && x.Object == want.Object && x.State == want.State && strings.Contains(x.What, want.What) && strings.Contains(x.Error, want.Error) {
				found = x
				return true
			}
		}
		return false
	})
	return found
}

// TestMoveStops: a move is refused, stopped, given up with a reason, and goes on after a
// restart.
func TestMoveStops(t *testing.T) {
	ctx := t.Context()
	dir, far, near, p := t.TempDir(), t.TempDir(), t.TempDir(), &place{}
	b := newBench(t, dir, p)
	b.gold(far)
	silver := b.silver(near)
	one := b.disk("one")
	data := bytes.Repeat([]byte{7}, 1<<20)
	for i := range int64(8) {
		if err := b.volume(one.ID).WriteAt(ctx, data[:96<<10], i<<20); err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.MoveVDisk(ctx, "one", "nosuch")
	wantCode(t, err, CodeNotFound)
	_, err = b.CloneVDisk(ctx, "one", Clone{Name: "c"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "c"} {
		_, err = b.MoveVDisk(ctx, name, "silver")
		wantCode(t, err, CodeInUse)
	}
	if err := b.DeleteVDisk(ctx, "c", true); err != nil {
		t.Fatal(err)
	}
	b.until("deleted", func() bool { return b.model.CountVDisks() == 1 })
	if _, err := b.CreateVDisk(ctx, NewDisk{Name: "one", VPool: "silver", Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	_, err = b.MoveVDisk(ctx, "one", "silver")
	wantCode(t, err, CodeInvalid) // two vDisks of this name
	_, err = b.MoveVDisk(ctx, one.ID, "silver")
	wantCode(t, err, CodeExists)
	if err := b.DeleteVDisk(ctx, "silver/one", true); err != nil {
		t.Fatal(err)
	}
	b.until("deleted", func() bool { return b.model.CountVDisks() == 1 })
	same, err := b.MoveVDisk(ctx, "one", "gold")
	if err != nil || same.Move != nil {
		t.Fatalf("to where it is: %+v, %v", same, err)
	}
	// A decided move goes on after a restart, whatever the node had done of it.
	if _, err := b.model.UpdateVDisk(ctx, one.ID, func(v *model.VDisk) error { v.Move = &model.Move{To: silver.ID}; return nil }); err != nil {
		t.Fatal(err)
	}
	if asked := b.untilTask(task.Task{Kind: task.Move, Object: "vdisk one", State: task.Waiting}); !asked.Cancels {
		t.Errorf("what is to be done cannot be cancelled: %+v", asked)
	}
	_, err = b.CloneVDisk(ctx, "one", Clone{Name: "c"})
	wantCode(t, err, CodeInUse)
	wantCode(t, b.DeleteVPool(ctx, "silver"), CodeInUse)
	_, err = b.CreateVDisk(ctx, NewDisk{Name: "one", VPool: "silver", Size: 1 << 20})
	wantCode(t, err, CodeExists)
	b.stop()
	b = newBench(t, dir, p)
	b.until("moved", func() bool {
		v, _ := b.model.VDisk(one.ID)
		return v.Move == nil && v.Left == "" && v.VPool == silver.ID
	})
	if n := objects(t, far); n != 0 {
		t.Errorf("%d objects stayed", n)
	}
	// A damaged object stops one for good, with its name, and the vDisk runs on.
	if _, err := b.UpdateVDisk(ctx, "one", DiskPatch{Labels: map[string]string{"a": "b"}}); err != nil {
		t.Fatal(err)
	}
	damaged := 0
	err = filepath.WalkDir(near, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, "sco~") {
			return err
		}
		damaged++
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{0x5a}, 4500)
		return errors.Join(err, f.Close())
	})
	if err != nil || damaged == 0 {
		t.Fatalf("%d SCOs damaged, %v", damaged, err)
	}
	if _, err := b.MoveVDisk(ctx, "one", "gold"); err != nil {
		t.Fatal(err)
	}
	b.until("given up", func() bool { v, _ := b.model.VDisk(one.ID); return v.Move != nil && v.Move.Failed != "" })
	b.tells("vdisk one", event.VDiskMoveFailed)
	if failed := b.untilTask(task.Task{Kind: task.Move, Object: "vdisk one", State: task.Failed, Error: "/sco/"}); failed.Cancels {
		t.Errorf("what has ended can be cancelled: %+v", failed)
	}
	v, _ := b.model.VDisk(one.ID)
	if pr, ok := b.Moving(v); !ok || !strings.Contains(pr.Failed, "/sco/") || b.volume(one.ID) == nil {
		t.Fatalf("%+v %v", pr, ok)
	}
	if _, err := b.CancelMove(ctx, "one"); err != nil {
		t.Fatal(err)
	}
	b.until("cleaned up", func() bool { v, _ := b.model.VDisk(one.ID); return v.Move == nil && v.Left == "" })
	if n := objects(t, far); n != 0 {
		t.Errorf("%d objects of a stopped move stayed", n)
	}
	if err := b.volume(one.ID).WriteAt(ctx, data[:4096], 0); err != nil {
		t.Fatal(err)
	}
}

// TestHold: operations that a disk holds are not lost, whatever becomes of it.
func TestHold(t *testing.T) {
	v := &instant{err: volume.ErrClosed}
	d := newDisk(v, nil, nil)
	d.hold()
	fin := make(waiter, 1)
	op := func() *iscsi.Op {
		return &iscsi.Op{Kind: iscsi.OpWrite, Done: fin, Length: 4096, Data: make([]byte, 4096)}
	}
	d.Submit(op())
	if mapped, n := d.Allocated(0); !mapped || n != v.Size() {
		t.Errorf("allocated %v %d", mapped, n)
	}
	select {
	case err := <-fin:
		t.Fatalf("answered with %v", err)
	default:
	}
	next := &instant{}
	d.resume(next, nil)
	if err := <-fin; err != nil || next.last.Length != 4096 {
		t.Errorf("%v %+v", err, next.last)
	}
	// Closed under an operation that was submitted before.
	late := &closing{d: d}
	d.now.Store(&served{late, nil})
	d.Submit(op())
	next.last = volume.Request{}
	d.resume(next, nil)
	if err := <-fin; err != nil || next.last.Length != 4096 {
		t.Errorf("%v %+v", err, next.last)
	}
	// One that does not come up again is busy, and gone for those that follow.
	next.err = volume.ErrClosed
	d.hold()
	d.Submit(op())
	d.resume(nil, nil)
	if err := <-fin; err != iscsi.ErrBusy {
		t.Errorf("%v", err)
	}
	d.Submit(op())
	if err := <-fin; err != iscsi.ErrGone {
		t.Errorf("%v", err)
	}
}

// closing is a volume that is closed while it has an operation.
type closing struct {
	instant
	d *disk
}

func (c *closing) Submit(r *volume.Request) {
	c.d.hold()
	r.Err = volume.ErrClosed
	r.Done.Complete(r)
}

// TestEndsMove: what a vPool that is offline met at its last try does not end a move; damage
// of the vDisk itself, and a refusal, do.
func TestEndsMove(t *testing.T) {
	offline := &Controller{pools: map[string]*pool{"gone": {err: fmt.Errorf("backend root: %w", backend.ErrCorrupt)}}}
	for _, id := range []string{"gone", "unknown"} {
		if _, err := offline.attached(id); err == nil || endsMove(fmt.Errorf("vpool drill: %w", err)) || !errors.Is(err, volume.ErrBackend) {
			t.Errorf("a move to a vPool that is offline (%s) ends with %v", id, err)
		}
	}
	for _, err := range []error{fmt.Errorf("sco 1: %w", backend.ErrCorrupt), fmt.Errorf("head: %w", volume.ErrCorrupt), errTooBusy, noVPool("p", "vpool")} {
		if !endsMove(err) {
			t.Errorf("a move is tried again after %v", err)
		}
	}
	if endsMove(fmt.Errorf("get: %w", volume.ErrBackend)) {
		t.Error("a backend that does not answer ends a move")
	}
}
