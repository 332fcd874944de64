package asd

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/osd"
	"github.com/openvstorage/ovgate/alba/osd/osdtest"
	"github.com/openvstorage/ovgate/internal/blockfs"
)

// goldens are encodings of format 1. They never change: devices hold them.
func goldens() map[string][]byte {
	inline := entry{kind: kindInline, length: 5, crc: osd.CRC([]byte("hello")), inline: []byte("hello")}
	value := osdtest.Data(1, 70000)
	large := entry{kind: kindExtent, length: 70000, extent: extent{3, 0x1234, pagesOf(70000)}}
	large.crc, large.blocks, _ = sums(value, nil)
	return map[string][]byte{
		"entry inline":   inline.append(nil),
		"entry empty":    (&entry{kind: kindInline}).append(nil),
		"entry extent":   large.append(nil),
		"extent key":     large.extent.key(),
		"extent value":   large.extent.value(),
		"value key":      valueKey([]byte("object")),
		"identity":       identity{stateReady, testID}.encode(),
		"identity begun": identity{stateMaking, testID}.encode(),
	}
}

func TestGolden(t *testing.T) {
	const file = "testdata/format1.txt"
	var b strings.Builder
	all := goldens()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s\n\t%s\n", name, strings.ReplaceAll(hex.EncodeToString(all[name]), "\n", ""))
	}
	want, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) && os.Getenv("UPDATE_GOLDEN") != "" {
		must(t, os.MkdirAll(path.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(b.String()), 0o644))
		return
	}
	must(t, err)
	if b.String() != string(want) {
		t.Fatalf("the format changed; it is\n%s\nand was\n%s", b.String(), want)
	}
}

func FuzzEntry(f *testing.F) {
	all := goldens()
	f.Add(all["entry inline"])
	f.Add(all["entry empty"])
	f.Add(all["entry extent"])
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			return
		}
		if !bytes.Equal(e.append(nil), b) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", b, e, e.append(nil))
		}
		if e.kind == kindExtent {
			got, err := decodeExtent(e.extent.key(), e.extent.value())
			if err != nil || got != e.extent || len(e.blocks) != blocksOf(e.length)*crcBytes {
				t.Fatalf("%+v: %+v, %v", e, got, err)
			}
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add(goldens()["identity"])
	f.Add(goldens()["identity begun"])
	f.Fuzz(func(t *testing.T, b []byte) {
		if i, err := decodeIdentity(b); err == nil && !bytes.Equal(i.encode(), b) {
			t.Fatalf("%x decodes to %+v", b, i)
		}
	})
}

// Every flipped bit of the identity file is found.
func TestIdentityDamage(t *testing.T) {
	good := goldens()["identity"]
	for i := range len(good) * 8 {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		if got, err := decodeIdentity(b); err == nil {
			t.Fatalf("bit %d flipped: %+v", i, got)
		}
	}
	for n := range good {
		if _, err := decodeIdentity(good[:n]); err == nil {
			t.Fatalf("%d bytes decode", n)
		}
	}
}

// A7
func TestForeignDirectories(t *testing.T) {
	put := func(m *blockfs.Mem, name string, data []byte) {
		must(t, m.MkdirAll(path.Dir(name)))
		must(t, blockfs.WriteFile(m, name, data))
	}
	device := func(id string) *blockfs.Mem {
		m := blockfs.NewMem()
		opts := testOptions()
		opts.ID = id
		s, err := Open(m, opts)
		must(t, err)
		must(t, s.Close())
		return m
	}
	newer := goldens()["identity"]
	newer[len(identityMagic)+3] = formatVersion + 1
	const otherID = "ffffffff-4455-6677-8899-aabbccddeeff"
	for name, c := range map[string]struct {
		make func() *blockfs.Mem
		want string
	}{
		"a file":          {func() *blockfs.Mem { m := blockfs.NewMem(); put(m, "x", nil); return m }, `holds "x"`},
		"a directory":     {func() *blockfs.Mem { m := blockfs.NewMem(); must(t, m.MkdirAll("x")); return m }, `holds "x"`},
		"a database":      {func() *blockfs.Mem { m := blockfs.NewMem(); put(m, "db/CURRENT", nil); return m }, `holds "db"`},
		"containers":      {func() *blockfs.Mem { m := blockfs.NewMem(); put(m, containerPath(1), nil); return m }, `holds "blob"`},
		"a file besides":  {func() *blockfs.Mem { m := device(testID); put(m, "x", nil); return m }, `holds "x"`},
		"no container":    {func() *blockfs.Mem { m := device(testID); put(m, "blob/1", nil); return m }, "no container"},
		"empty identity":  {func() *blockfs.Mem { m := blockfs.NewMem(); put(m, identityName, nil); return m }, "damaged"},
		"newer":           {func() *blockfs.Mem { m := blockfs.NewMem(); put(m, identityName, newer); return m }, "format 2"},
		"another device":  {func() *blockfs.Mem { return device(otherID) }, "another device"},
		"no identity":     {func() *blockfs.Mem { m := device(testID); must(t, m.Remove(identityName)); return m }, `holds "blob"`},
		"index lost":      {func() *blockfs.Mem { m := device(testID); must(t, removeAll(m, indexDir)); return m }, "replace the device"},
		"index exchanged": {func() *blockfs.Mem { m := device(otherID); put(m, identityName, goldens()["identity"]); return m }, "two devices"},
	} {
		t.Run(name, func(t *testing.T) {
			m := c.make()
			before := m.Crash(blockfs.CrashConfig{})
			s, err := Open(m, testOptions())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("open: %v, %v; want %q", s, err, c.want)
			}
			a, err := before.List(".")
			must(t, err)
			b, err := m.List(".")
			must(t, err)
			if name != "index lost" && !slices.Equal(a, b) {
				t.Fatalf("the directory holds %v, held %v", b, a)
			}
		})
	}
	opts := testOptions()
	opts.Create = false
	if _, err := Open(blockfs.NewMem(), opts); err == nil {
		t.Fatal("a device was made without being asked for")
	}
	opts.Create, opts.ID = true, "not a uuid"
	if _, err := Open(blockfs.NewMem(), opts); err == nil {
		t.Fatal("an identity that is no UUID")
	}
	// Harmless strangers, and an identity that is drawn.
	m := blockfs.NewMem()
	put(m, "lock", nil)
	must(t, m.MkdirAll("lost+found"))
	opts.ID = ""
	s, err := Open(m, opts)
	must(t, err)
	id := s.id
	must(t, s.Close())
	opts.Create, opts.ID = false, id
	s, err = Open(m, opts)
	must(t, err)
	must(t, s.Close())
}

// The free space of a container and the ranking against a map of pages.
func TestSpaceModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	f := allFree()
	used := make([]bool, containerPages)
	var held []run
	steps := 20000
	if testing.Short() {
		steps = 4000
	}
	for step := range steps {
		if len(held) > 0 && r.IntN(2) == 0 {
			i := r.IntN(len(held))
			f.give(held[i].page, held[i].pages)
			for p := held[i].page; p < held[i].end(); p++ {
				used[p] = false
			}
			held = slices.Delete(held, i, i+1)
		} else if n := 4 + uint32(r.IntN(1<<r.IntN(12))); n <= f.max {
			got := run{f.take(n), n}
			for p := got.page; p < got.end(); p++ {
				if used[p] {
					t.Fatalf("step %d: page %d was handed out twice", step, p)
				}
				used[p] = true
			}
			held = append(held, got)
		}
		if step%500 == 0 {
			checkRuns(t, &f, used)
		}
	}
	for _, h := range held {
		f.give(h.page, h.pages)
	}
	checkRuns(t, &f, make([]bool, containerPages))
	if len(f.runs) != 1 || f.tail() != 0 {
		t.Fatalf("empty container: %+v", f)
	}
}

func checkRuns(t *testing.T, f *freeRuns, used []bool) {
	t.Helper()
	var want []run
	free, most := uint32(0), uint32(0)
	for p := uint32(0); p < containerPages; {
		q := p
		for q < containerPages && used[q] == used[p] {
			q++
		}
		if !used[p] {
			want = append(want, run{p, q - p})
			free, most = free+q-p, max(most, q-p)
		}
		p = q
	}
	if !slices.Equal(f.runs, want) || f.free != free || f.max != most {
		t.Fatalf("free %d, largest %d in %v; want %d, %d in %v", f.free, f.max, f.runs, free, most, want)
	}
}

func TestRanking(t *testing.T) {
	var k ranking
	k.move(1, 0, 100)
	k.move(2, 0, 50)
	k.move(3, 0, 200)
	for pages, want := range map[uint32]uint32{1: 2, 50: 2, 51: 1, 100: 1, 101: 3, 200: 3, 201: 0} {
		if got, _ := k.fit(pages); got != want {
			t.Errorf("%d pages: container %d, want %d", pages, got, want)
		}
	}
	k.move(2, 50, 0)
	k.move(3, 200, 10)
	if got, ok := k.fit(5); !ok || got != 3 || len(k) != 2 {
		t.Errorf("container %d of %v", got, k)
	}
}
