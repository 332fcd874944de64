package asd

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// damagedDevice returns the files of a device with values in tables, in the log
// and in a container, what it holds, and how many Applies it told of.
func damagedDevice(t *testing.T) (*blockfs.Mem, state, uint64) {
	m := blockfs.NewMem()
	s := mustOpen(t, m)
	st := state{}
	for i := range 120 {
		u := osd.Set(fmt.Appendf(nil, "key%03d", i), osdtest.Data(uint64(i), []int{10, 3000, 20000, 100000}[i%4]))
		must(t, s.Apply(t.Context(), nil, []osd.Update{u}, osd.High))
		st = st.with([]osd.Update{u})
		if i == 50 || i == 100 {
			must(t, s.db.Flush())
		}
	}
	must(t, s.Close())
	return m.Crash(blockfs.CrashConfig{}), st, s.durable.Load()
}

// flip damages one byte of a file.
func flip(t *testing.T, m *blockfs.Mem, name string, off int64, bits byte) {
	f, err := m.Open(name, blockfs.Write)
	must(t, err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	must(t, err)
	b[0] ^= bits
	_, err = f.WriteAt(b, off)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

// D3, D6: whatever byte of the device is damaged, it does not open, or what it
// returns is right or ErrCorrupt. What is missing was in the part of the log that
// cannot be told from one that a power cut tore; the count of Applies shows it.
func TestDamage(t *testing.T) {
	clean, st, applies := damagedDevice(t)
	r := rand.New(rand.NewPCG(1, 9))
	tries := 12
	if testing.Short() {
		tries = 2
	}
	outcomes := map[string]int{}
	for _, dir := range []string{indexDir, blobDir, "."} {
		infos, err := clean.List(dir)
		must(t, err)
		for _, e := range infos {
			if e.Dir || e.Size == 0 {
				continue
			}
			for range tries * int(1+min(e.Size/100000, 5)) {
				m := clean.Crash(blockfs.CrashConfig{})
				name, off := path.Join(dir, e.Name), r.Int64N(e.Size)
				flip(t, m, name, off, byte(1+r.IntN(255)))
				outcomes[openDamaged(t, m, fmt.Sprintf("%s at %d", name, off), st, applies)]++
			}
		}
	}
	t.Logf("%v", outcomes)
	if outcomes["corrupt"] == 0 || outcomes["refused"] == 0 {
		t.Fatal("no damage was found")
	}
}

// openDamaged opens a damaged device and returns what came of it.
func openDamaged(t *testing.T, m *blockfs.Mem, what string, st state, applies uint64) string {
	t.Helper()
	s, err := Open(m, testOptions())
	if err != nil {
		return "refused"
	}
	defer func() { _ = s.Close() }()
	outcome := "none"
	lost := s.durable.Load() < applies
	for key, want := range st {
		got, err := s.read(t, key)
		switch {
		case errors.Is(err, osd.ErrCorrupt):
			if !strings.Contains(err.Error(), fmt.Sprintf("%q", key)) {
				t.Fatalf("%s: %v does not name %q", what, err, key)
			}
			outcome = "corrupt"
		case errors.Is(err, osd.ErrFailed):
			return "failed"
		case err != nil:
			t.Fatalf("%s: %v", what, err)
		case got == nil && lost:
			outcome = "lost and told"
		case string(got) != string(want):
			t.Fatalf("%s: %q holds %d bytes that were not written; applies %d of %d", what, key, len(got), s.durable.Load(), applies)
		}
	}
	return outcome
}

// A container that is too short is damage, one that is missing is refused.
func TestLostContainer(t *testing.T) {
	clean, st, _ := damagedDevice(t)
	m := clean.Crash(blockfs.CrashConfig{})
	f, err := m.Open(containerPath(1), blockfs.Write)
	must(t, err)
	must(t, f.Truncate(1<<20))
	must(t, f.Sync())
	must(t, f.Close())
	s := mustOpen(t, m)
	bad := 0
	for key, want := range st {
		got, err := s.read(t, key)
		if errors.Is(err, osd.ErrCorrupt) {
			bad++
			continue
		}
		must(t, err)
		if string(got) != string(want) {
			t.Fatalf("%q differs", key)
		}
	}
	v, err := s.Validate(t.Context(), nil, nil, 0, 1<<40)
	must(t, err)
	if bad == 0 || len(v.Bad) != bad || v.Keys != len(st) {
		t.Fatalf("%d values are damaged, validation says %d of %d", bad, len(v.Bad), v.Keys)
	}
	s.set(t, "new", osdtest.Data(1, 1<<20))
	s.mustHold(t, "new", osdtest.Data(1, 1<<20))
	must(t, s.Close())

	must(t, clean.Remove(containerPath(1)))
	if _, err := Open(clean, testOptions()); err == nil || !strings.Contains(err.Error(), containerPath(1)) {
		t.Fatalf("open without a container: %v", err)
	}
}
