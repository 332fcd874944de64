package alba

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/smalldisk"
)

// What the devices use is what the manifests say, within 1 %, also after deletes and
// uploads that came to nothing.
func TestUse(t *testing.T) {
	dir := t.TempDir()
	s := newService(t, dir, registry(t, dir))
	s.o.grace = time.Second
	defer s.Close()
	b, err := s.Store(t.Context(), "pool", "")
	must(t, err)
	data := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	const objects = 6
	for i := range 2 * objects {
		must(t, b.Put(t.Context(), fmt.Sprintf("o%d", i), data[i*1000:]))
	}
	for i := range objects {
		must(t, b.Delete(t.Context(), fmt.Sprintf("o%d", i)))
	}
	r, err := s.open(t.Context())
	must(t, err)
	var used, stored int64
	defer func() {
		if t.Failed() {
			t.Logf("%d bytes used for %d stored, safety %+v", used, stored, r.agent.Safety())
		}
	}()
	until(t, "what is used is what the manifests say", func() bool {
		must(t, r.agent.Garbage(t.Context()))
		must(t, r.agent.Collect(t.Context())) // what came late, after its object was stored without it
		must(t, r.agent.Survey(t.Context()))
		must(t, r.agent.Probe(t.Context()))
		seen, err := r.manager.SeenAll(t.Context())
		must(t, err)
		used, stored = 0, r.agent.Safety().Stored
		for _, o := range seen {
			used += o.Used
		}
		return used >= stored && used-stored <= stored/100
	})
	t.Logf("%d bytes used for %d stored: %+.2f %%", used, stored, 100*(float64(used)/float64(stored)-1))
	got, err := b.Get(t.Context(), fmt.Sprintf("o%d", objects), 16<<20)
	must(t, err)
	if !bytes.Equal(got, data[objects*1000:]) {
		t.Fatal("wrong content")
	}
	osds, err := s.OSDs(t.Context())
	must(t, err)
	if len(osds) == 0 || osds[0].State != manager.InUse || osds[0].Directory != filepath.Join(dir, asdDir, "1") {
		t.Fatalf("%+v", osds)
	}
}

// A vPool's reads of single clusters are cheap where the preset has small pieces, which
// the default has; a preset that is changed counts for what is written from then on.
func TestPieces(t *testing.T) {
	s := newService(t, t.TempDir(), registry(t, t.TempDir()))
	defer s.Close()
	ctx := t.Context()
	b, err := s.Store(ctx, "pool", "")
	must(t, err)
	data := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{2}).Read(data)
	var sizes []int
	put := func(cheap bool) {
		t.Helper()
		b, err := s.Store(ctx, "pool", "")
		must(t, err)
		if b.Features().CheapReads != cheap {
			t.Errorf("reads of 4 KiB cheap: %v", !cheap)
		}
		must(t, b.Put(ctx, fmt.Sprint("o", len(sizes)), data))
		p, err := s.Preset(ctx, DefaultPreset)
		must(t, err)
		sizes = append(sizes, p.PieceBytes)
	}
	put(true)
	for _, piece := range []int{64 << 10, 4 << 10} {
		_, err := s.UpdatePreset(ctx, DefaultPreset, nil, 0, piece)
		must(t, err)
		put(piece < 64<<10)
	}
	if _, err := s.UpdatePreset(ctx, DefaultPreset, nil, 0, 5000); !errors.Is(err, preset.ErrInvalid) {
		t.Errorf("pieces of 5000 bytes: %v", err)
	}
	if !slices.Equal(sizes, []int{preset.DefaultPieceBytes, 64 << 10, 4 << 10}) {
		t.Errorf("the preset had pieces of %v", sizes)
	}
	r, err := s.open(ctx)
	must(t, err)
	for i, size := range sizes {
		name := fmt.Sprint("o", i)
		m, err := r.client.Manifest(ctx, "pool", name)
		must(t, err)
		if m.PieceSize().Bytes() != size {
			t.Errorf("%s has pieces of %v, not %d bytes", name, m.PieceSize(), size)
		}
		p := make([]byte, 4096)
		must(t, b.ReadAt(ctx, name, p, 500000))
		if !bytes.Equal(p, data[500000:][:len(p)]) {
			t.Errorf("%s: wrong content", name)
		}
	}
}

// A device of this node whose disk others fill fails, for all who have it open; once there is
// space it works again by itself, for all of them, and has what was acknowledged.
func TestLocalDeviceOfFullDisk(t *testing.T) {
	disk := smalldisk.Mount(t, 64<<20)
	local := newLocalDevices("", slog.New(slog.DiscardHandler))
	defer func() { must(t, local.close()) }()
	mine, err := local.make(Dir{Path: filepath.Join(disk, "1")})
	must(t, err)
	info, err := mine.Info(t.Context())
	must(t, err)
	again, err := local.open(manager.OSD{UUID: info.ID, Directory: filepath.Join(disk, "1")})
	must(t, err)
	uses := []osd.OSD{mine, again, servedDevice{local, info.ID}}
	set := func(d osd.OSD, key string) error {
		return d.Apply(t.Context(), nil, []osd.Update{osd.Set([]byte(key), []byte("value"))}, osd.High)
	}
	must(t, set(mine, "kept"))
	empty := smalldisk.Fill(t, disk)
	until(t, "the device has failed", func() bool {
		for range 1000 { // deletes are taken while a device is full, and their log grows
			if err := mine.Apply(t.Context(), nil, []osd.Update{osd.Delete([]byte("none"))}, osd.High); errors.Is(err, osd.ErrFailed) {
				return true
			}
		}
		return false
	})
	if late, err := local.open(manager.OSD{UUID: info.ID, Directory: filepath.Join(disk, "1")}); err != nil {
		t.Errorf("opened while it does not work: %v", err)
	} else {
		uses = append(uses, late)
	}
	empty()
	for i, d := range uses {
		until(t, fmt.Sprintf("use %d works again", i), func() bool { return set(d, fmt.Sprintf("more%d", i)) == nil })
		values, err := d.Get(t.Context(), [][]byte{[]byte("kept")}, 16, osd.High)
		must(t, err)
		if len(values) != 1 || string(values[0].Data) != "value" {
			t.Errorf("use %d: %+v", i, values)
		}
	}
	if _, err := local.open(manager.OSD{UUID: "another", Directory: filepath.Join(disk, "1")}); !errors.Is(err, osd.ErrIdentity) {
		t.Errorf("as another device: %v", err)
	}
	for _, d := range uses {
		must(t, d.Close())
	}
	if local.byID(info.ID) != nil {
		t.Error("it is open, and nobody uses it")
	}
}
