package openstack

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

// stretch is the length of what is written at a place, in bytes.
const stretch = 512 << 10

// places are the start, the middle and the end of a disk of so many bytes.
func places(size int64) []int64 {
	return []int64{0, size/2 - stretch/2, size - stretch}
}

// pattern is what a seed puts at a place.
func pattern(seed byte, place int64) []byte {
	b := make([]byte, stretch)
	key := [32]byte{seed, byte(place >> 16), byte(place >> 24), byte(place >> 32)}
	_, _ = rand.NewChaCha8(key).Read(b) // it does not fail
	return b
}

// write fills the places of a disk of gibs GiB.
func write(t *testing.T, d io.WriterAt, seed byte, gibs int) {
	t.Helper()
	writeBytes(t, d, seed, int64(gibs)*gib)
}

func writeBytes(t *testing.T, d io.WriterAt, seed byte, size int64) {
	t.Helper()
	for _, at := range places(size) {
		if _, err := d.WriteAt(pattern(seed, at), at); err != nil {
			t.Fatalf("write at %d: %v", at, err)
		}
	}
}

// check reads them again.
func check(t *testing.T, d io.ReaderAt, seed byte, gibs int) {
	t.Helper()
	checkBytes(t, d, seed, int64(gibs)*gib)
}

func checkBytes(t *testing.T, d io.ReaderAt, seed byte, size int64) {
	t.Helper()
	got := make([]byte, stretch)
	for _, at := range places(size) {
		if _, err := d.ReadAt(got, at); err != nil {
			t.Fatalf("read at %d: %v", at, err)
		}
		if !bytes.Equal(got, pattern(seed, at)) {
			t.Fatalf("at %d there is not what was written", at)
		}
	}
}

// checkVolume reads a volume whose size is size GiB and which was written when it had gibs.
func (c *cloud) checkVolume(t *testing.T, volume string, seed byte, gibs, size int) {
	t.Helper()
	c.use(t, volume, func(d *lun.LUN) {
		checkSize(t, d, size)
		check(t, d, seed, gibs)
	})
}

func checkSize(t *testing.T, d *lun.LUN, gibs int) {
	t.Helper()
	if d.Size() != int64(gibs)*gib {
		t.Fatalf("the LUN has %d bytes, want %d GiB", d.Size(), gibs)
	}
}

func (c *cloud) writeVolume(t *testing.T, volume string, seed byte, gibs int) {
	t.Helper()
	c.use(t, volume, func(d *lun.LUN) {
		checkSize(t, d, gibs)
		write(t, d, seed, gibs)
	})
}
