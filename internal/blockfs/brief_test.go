package blockfs

import (
	"bytes"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"
)

// briefFile returns a Direct file with n blocks of pattern.
func briefFile(t *testing.T, blocks int) (*osFile, []byte) {
	t.Helper()
	fsys, err := OS(t.TempDir())
	must(t, err)
	switch {
	case fsys.DirectIO():
	case os.Getenv("CI") != "":
		t.Fatal("the directory of temporary files takes no O_DIRECT")
	default:
		t.Skip("the directory of temporary files takes no O_DIRECT")
	}
	f := mustOpen(t, fsys, "f", Write|Create|Direct|DSync)
	t.Cleanup(func() { must(t, f.Close()) })
	want := aligned(pattern(7, blocks*Alignment))
	mustWrite(t, f, want, 0)
	return f.(*osFile), want
}

// TestBriefRead looks at one read after the other.
func TestBriefRead(t *testing.T) {
	f, want := briefFile(t, 32)
	patient, hasty := briefReads{wait: int64(time.Minute)}, briefReads{wait: 1}
	got := AlignedBuffer(2 * Alignment)
	for off := range int64(31) {
		off *= Alignment
		ok := false
		for range 100 { // the file system may have to wait, and says so
			patient.pause = 0
			if ok = patient.try(f.raw, got, off); ok {
				break
			}
		}
		if !ok {
			t.Fatalf("at %d: not read: AIO is to be had on every Linux that ovgate is for (state %d)", off, patient.state)
		}
		if !bytes.Equal(got, want[off:off+int64(len(got))]) {
			t.Fatalf("at %d: other bytes", off)
		}
	}

	// One that takes longer is right too, and some after it go the ordinary way.
	for range 2 {
		clear(got)
		for try := 0; !hasty.try(f.raw, got, Alignment); try++ {
			if hasty.pause = 0; try == 100 {
				t.Fatal("not read")
			}
		}
		if !bytes.Equal(got, want[Alignment:3*Alignment]) {
			t.Fatal("what took longer is wrong")
		}
		if hasty.pause == 0 { // the disk took no time at all
			hasty.pause = briefPause
		}
		for i := range briefPause {
			if hasty.try(f.raw, got, 0) {
				t.Fatalf("read %d after a slow one was brief", i)
			}
		}
	}

	// What is not all there, and what is too large, is left to who says why.
	patient.pause = 0
	if patient.try(f.raw, got, 31*Alignment) || patient.pause != briefPause {
		t.Fatal("a read beyond the end was called whole, or cost nothing")
	}
	patient.pause = 0
	if patient.try(f.raw, AlignedBuffer(briefBytes+Alignment), 0) {
		t.Fatal("a large read was brief")
	}

	// Without AIO there is nothing to try.
	patient.close()
	if patient.try(f.raw, got, 0) {
		t.Fatal("read without AIO")
	}
	hasty.close()
}

// TestBriefReads reads from many goroutines: one at a time is brief, if it is alone.
func TestBriefReads(t *testing.T) {
	const blocks = 64
	f, want := briefFile(t, blocks)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			for range 500 {
				n := (1 + rng.IntN(4)) * Alignment
				off := rng.IntN(blocks*Alignment-n) &^ (Alignment - 1)
				got := AlignedBuffer(n)
				if _, err := f.ReadAt(got, int64(off)); err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(got, want[off:off+n]) {
					t.Errorf("%d bytes at %d are others", n, off)
					return
				}
			}
		})
	}
	wg.Wait()
	if n := brief.inside.Load(); n != 0 {
		t.Fatalf("%d reads are still counted", n)
	}
}
