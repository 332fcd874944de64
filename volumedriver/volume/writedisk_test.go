package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// writeWorld is a world with WRITE disks, of which each can be made to refuse writes.
type writeWorld struct {
	*world
	disks []*blockfs.Mem
	fail  []atomic.Bool
}

func newWriteWorld(seed uint64, n int) *writeWorld {
	w := &writeWorld{world: newWorld(seed), disks: make([]*blockfs.Mem, n), fail: make([]atomic.Bool, n)}
	for i := range n {
		w.disks[i] = blockfs.NewMem()
		w.opts.WriteDisks = append(w.opts.WriteDisks, WriteDisk{Name: fmt.Sprint("disk", i), Bytes: 16 << 20,
			FS: blockfs.Inject(w.disks[i], func(op blockfs.OpInfo) error {
				if w.fail[i].Load() && op.Kind != blockfs.OpRead && op.Kind != blockfs.OpOpen {
					return syscall.EIO
				}
				return nil
			})})
	}
	return w
}

// journals returns how many journals are open on each disk; the first is the data directory.
func (n *node) journals() (out []int) {
	for _, d := range n.host.Usage().WriteDisks {
		out = append(out, d.Journals)
	}
	return out
}

// diskOf returns the index of the WRITE disk that a vDisk is on.
func diskOf(v *Volume) int {
	for i, d := range v.host.disks {
		if d == v.disk {
			return i - 1
		}
	}
	return -2
}

// TestWriteDisks: journals spread over the disks, and are found there after a crash.
func TestWriteDisks(t *testing.T) {
	w := newWriteWorld(301, 3)
	n := w.mustStart(t)
	where := map[ID]int{}
	for i := range byte(9) {
		id := testID(i + 1)
		n.create(id, 1<<20)
		v := n.open(id)
		where[id] = diskOf(v)
		for k := range int64(20) {
			mustWrite(t, v, k*4096, uint32(i)*100+uint32(k)+1)
		}
	}
	if got := fmt.Sprint(n.journals()); got != "[0 3 3 3]" {
		t.Fatalf("journals on each disk: %s", got)
	}
	n.kill()
	n = w.mustStart(t)
	for i := range byte(9) {
		id := testID(i + 1)
		v := n.open(id)
		if diskOf(v) != where[id] {
			t.Errorf("vdisk %d: journal on disk %d, it was on %d", i, diskOf(v), where[id])
		}
		for k := range int64(20) {
			wantVersion(t, v, k*4096, uint32(i)*100+uint32(k)+1)
		}
	}
	n.close()
}

// TestWriteDiskFails: vDisks on other disks go on; those on the failed one are displaced
// once all that was acknowledged is on the backend, and go on elsewhere. What the failed
// disk holds is not used any more when it is back.
func TestWriteDiskFails(t *testing.T) {
	ctx := context.Background()
	w := newWriteWorld(302, 2)
	n := w.mustStart(t)
	vols := map[ID]*Volume{}
	for i := range byte(4) {
		id := testID(i + 1)
		n.create(id, 1<<20)
		vols[id] = n.open(id)
		for k := range int64(30) {
			mustWrite(t, vols[id], k*4096, uint32(k)+1)
		}
	}
	bad, began := diskOf(vols[testID(1)]), time.Now()
	w.fail[bad].Store(true)
	want := map[ID]uint32{}
	for id, v := range vols {
		err := write(t, v, 0, 77)
		if diskOf(v) != bad {
			want[id] = 77
			if err != nil || v.Displaced() {
				t.Errorf("vdisk %d on the good disk: %v", id[0], err)
			}
			continue
		}
		if !errors.Is(err, ErrFailed) {
			t.Fatalf("vdisk %d on the bad disk: %v", id[0], err)
		}
		wantVersion(t, v, 29*4096, 30) // it is read as before
		for !v.Displaced() {
			if ctx.Err() != nil || time.Since(began) > hangLimit {
				t.Fatal("not displaced")
			}
			time.Sleep(time.Millisecond)
		}
		if err := v.Close(ctx); err != nil {
			t.Fatal(err)
		}
		v = n.open(id)
		vols[id] = v
		if diskOf(v) != 1-bad {
			t.Fatalf("vdisk %d was opened on disk %d", id[0], diskOf(v))
		}
		for k := range int64(30) {
			wantVersion(t, v, k*4096, uint32(k)+1)
		}
		mustWrite(t, v, 0, 78)
		want[id] = 78
	}
	for _, u := range n.host.Usage().WriteDisks {
		if (u.Err != nil) != (u.Name == fmt.Sprint("disk", bad)) {
			t.Errorf("%s: %v", u.Name, u.Err)
		}
	}
	n.kill()
	w.fail[bad].Store(false)
	n = w.mustStart(t)
	for i := range byte(4) {
		v := n.open(testID(i + 1))
		wantVersion(t, v, 0, want[v.id])
		wantVersion(t, v, 4096, 2)
	}
	for _, u := range n.host.Usage().WriteDisks {
		if u.Held != 0 {
			t.Errorf("%s: %d chunks are held for nobody", u.Name, u.Held)
		}
	}
	n.close()
}

// TestWriteDiskMissing: a vDisk that may have acknowledged writes on a disk that is not
// there is not opened, and nothing is lost when the disk is back; others go on.
func TestWriteDiskMissing(t *testing.T) {
	ctx := context.Background()
	w := newWriteWorld(303, 2)
	n := w.mustStart(t)
	var v [4]*Volume
	for i := range v {
		n.create(testID(byte(i+1)), 1<<20)
		v[i] = n.open(testID(byte(i + 1)))
		mustWrite(t, v[i], 0, uint32(i)+1)
	}
	gone := diskOf(v[0])
	other, clean := -1, -1
	for i := 1; i < 4; i++ {
		if diskOf(v[i]) != gone {
			other = i
		} else {
			clean = i
		}
	}
	if err := v[clean].Close(ctx); err != nil {
		t.Fatal(err)
	}
	n.kill()
	there := w.opts.WriteDisks[gone]
	w.opts.WriteDisks[gone] = WriteDisk{Name: there.Name, Bytes: there.Bytes, Err: errors.New("not mounted")}
	n = w.mustStart(t)
	for range 2 {
		_, err := n.pool.Open(ctx, testID(1))
		if err == nil || errors.Is(err, ErrLostTail) || !strings.Contains(err.Error(), there.Name+" cannot be used: not mounted") {
			t.Fatalf("opened without its journal: %v", err)
		}
	}
	wantVersion(t, n.open(testID(byte(other+1))), 0, uint32(other)+1)
	moved := n.open(testID(byte(clean + 1)))
	wantVersion(t, moved, 0, uint32(clean)+1)
	mustWrite(t, moved, 0, 50)
	n.kill()
	w.opts.WriteDisks[gone] = there
	n = w.mustStart(t)
	wantVersion(t, n.open(testID(1)), 0, 1)
	wantVersion(t, n.open(testID(byte(clean+1))), 0, 50)
	n.close()

	// A disk that was replaced: what was on it is lost, and that is said.
	n = w.mustStart(t)
	last := n.open(testID(1))
	mustWrite(t, last, 0, 60)
	lost := diskOf(last)
	n.kill()
	w.opts.WriteDisks[lost] = WriteDisk{Name: "new", Bytes: there.Bytes, FS: blockfs.NewMem()}
	n = w.mustStart(t)
	if _, err := n.pool.Open(ctx, testID(1)); !errors.Is(err, ErrLostTail) {
		t.Fatalf("opened although its journal is lost: %v", err)
	}
	if err := n.pool.AcceptLoss(ctx, testID(1)); err != nil {
		t.Fatal(err)
	}
	wantVersion(t, n.open(testID(1)), 0, 1)
	n.close()
}

// TestWriteDisksAdded: what is in the journal of the data directory is brought to an end
// there, and the next journal is on a WRITE disk.
func TestWriteDisksAdded(t *testing.T) {
	w := newWriteWorld(304, 1)
	disks := w.opts.WriteDisks
	w.opts.WriteDisks = nil
	n := w.mustStart(t)
	n.create(testID(1), 1<<20)
	mustWrite(t, n.open(testID(1)), 0, 1)
	n.kill()
	w.opts.WriteDisks = disks
	n = w.mustStart(t)
	v := n.open(testID(1))
	wantVersion(t, v, 0, 1)
	if got := fmt.Sprint(n.journals()); got != "[1 0]" {
		t.Fatalf("journals on each disk: %s", got)
	}
	mustWrite(t, v, 0, 2)
	n.close()
	n = w.mustStart(t)
	v = n.open(testID(1))
	if got := fmt.Sprint(n.journals()); got != "[0 1]" {
		t.Fatalf("journals on each disk: %s", got)
	}
	wantVersion(t, v, 0, 2)
	mustWrite(t, v, 0, 3)
	n.kill()
	n = w.mustStart(t)
	wantVersion(t, n.open(testID(1)), 0, 3)
	n.close()
}

// TestWriteDisksRegistryLost: a vDisk that was recovered from the backend has the tail
// that is on one of the disks.
func TestWriteDisksRegistryLost(t *testing.T) {
	ctx := context.Background()
	w := newWriteWorld(305, 3)
	n := w.mustStart(t)
	for i := range byte(6) {
		n.create(testID(i+1), 1<<20)
		v := n.open(testID(i + 1))
		mustWrite(t, v, 0, 1)
		mustCommit(t, v)
		mustWrite(t, v, 0, uint32(i)+10)
	}
	n.kill()
	w.reg = newMemRegistry()
	missing := w.opts.WriteDisks[1]
	w.opts.WriteDisks[1] = WriteDisk{Name: missing.Name, Err: errors.New("not mounted")}
	n = w.mustStart(t)
	if _, err := n.pool.Recover(ctx); err != nil {
		t.Fatal(err)
	}
	for i := range byte(6) { // each may have its tail there
		if err := n.pool.AcceptLoss(ctx, testID(i+1)); err != nil {
			t.Fatal(err)
		}
		if _, err := n.pool.Open(ctx, testID(i+1)); err == nil || !strings.Contains(err.Error(), "not mounted") {
			t.Fatalf("opened without a disk that may have its tail: %v", err)
		}
	}
	n.kill()
	w.opts.WriteDisks[1] = missing
	n = w.mustStart(t)
	for i := range byte(6) {
		wantVersion(t, n.open(testID(i+1)), 0, uint32(i)+10)
	}
	n.close()
}
