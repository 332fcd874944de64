package volume

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

var updateGolden = flag.Bool("update", false, "write the golden files anew: only for a format that nobody has used yet")

// goldenFile compares b with a file that is kept for ever.
func goldenFile(t *testing.T, name string, b []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *updateGolden {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, b) {
		t.Fatalf("%s: what is written now is not what earlier versions wrote:\n%s\nkept:\n%s", path, b, kept)
	}
	return kept
}

// goldenHead has every field that this version writes.
func goldenHead() *Head {
	return &Head{Format: HeadFormat, VDisk: testID(0xd0), Pool: testPool, Name: "disk-1", Labels: map[string]string{"a": "1", "b": "<&>"},
		Size: 64 << 40, ClusterSize: 4096, Created: 1_700_000_000_000_000_001, Epoch: 3, Nonce: 0xcafe, Number: 1 << 33,
		Time: 1_700_000_009_000_000_002, LastSeq: 1<<63 + 7, NextSCO: 100, NextTLog: 20, FirstTLog: 2, Stored: 1 << 45,
		Epochs: []Opening{{1, 0xaa, 1, 1, 1, 5}, {3, 0xcafe, 1 << 20, 90, 19, 6}}, Condemned: []string{"v/x/sco/1", "v/x/tlog/2"}, Clean: true}
}

func TestHeadGolden(t *testing.T) {
	h := goldenHead()
	obj, ref, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	kept := goldenFile(t, "head.txt", obj)
	got, gotRef, err := decodeHead(kept)
	if err != nil || !reflect.DeepEqual(got, h) || gotRef != ref {
		t.Fatalf("%v: %+v %+v", err, got, gotRef)
	}
	if want := (HeadRef{Epoch: 3, Nonce: 0xcafe, Number: 1 << 33, Hash: ref.Hash}); ref != want || len(ref.Hash) != 64 {
		t.Fatalf("ref %+v", ref)
	}
	again, _, _ := got.encode()
	if !bytes.Equal(again, kept) {
		t.Fatal("the same head gives other bytes")
	}
}

// TestHeadGoldenMap: a head that names a checkpoint needs no more of its reader than
// one that does not.
func TestHeadGoldenMap(t *testing.T) {
	h := goldenHead()
	h.Map = &MapRef{Epoch: 3, Nonce: 0xabcdef01, Number: 17, NextTLog: 130, Line: "00112233445566778899aabbccddeeff"}
	obj, _, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	kept := goldenFile(t, "head-map.txt", obj)
	got, _, err := decodeHead(kept)
	if err != nil || *got.Map != *h.Map || bytes.Contains(kept, []byte(`"needs"`)) != (len(h.needs()) > 0) {
		t.Fatalf("%v: %+v", err, got)
	}
	if name := mapName(h.VDisk, *got.Map); !strings.HasSuffix(name, "/map/00000003-0000000000000011-abcdef01") {
		t.Fatal(name)
	}
}

// TestHeadGoldenReservation: a head with a reservation state says that its reader
// must know of it; one without is what earlier versions wrote.
func TestHeadGoldenReservation(t *testing.T) {
	h := goldenHead()
	h.Reservation = []byte("who holds it")
	obj, ref, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	kept := goldenFile(t, "head-reservation.txt", obj)
	got, gotRef, err := decodeHead(kept)
	if err != nil || !reflect.DeepEqual(got, h) || gotRef != ref {
		t.Fatalf("%v: %+v %+v", err, got, gotRef)
	}
	if !bytes.Contains(kept, []byte(`"needs":["reservation"]`)) {
		t.Fatal("a version that does not know reservations would take this head and forget them")
	}
	h.Reservation = make([]byte, MaxReservation+1)
	if obj, _, err = h.encode(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := decodeHead(obj); err == nil {
		t.Fatal("a reservation state above the bound is read")
	}
}

// headObject wraps a body as encode does.
func headObject(format any, body string) []byte {
	return fmt.Appendf(nil, "%s%v %x\n%s\n", headMagic, format, sha256.Sum256([]byte(body)), body)
}

func TestHeadRefused(t *testing.T) {
	const ok = `"format":1,"size":4096,"clusterSize":4096,"epochs":[{"epoch":1}]`
	if _, _, err := decodeHead(headObject(1, "{"+ok+"}")); err != nil {
		t.Fatalf("the least that a head needs: %v", err)
	}
	for _, c := range []struct {
		name string
		obj  []byte
		want string
	}{
		{"empty", nil, "header line"},
		{"no line", []byte(headMagic), "header line"},
		{"other object", []byte("ovgate-root 1 aa\n{}\n"), "header line"},
		{"no hash", []byte(headMagic + "1 \n{}\n"), "header line"},
		{"newer format", headObject(2, "{"+ok+"}"), "upgrade"},
		{"format of no number", headObject("x", "{"+ok+"}"), "header line"},
		{"wrong hash", bytes.Replace(headObject(1, "{"+ok+"}"), []byte("4096"), []byte("8192"), 1), "checksum"},
		{"no json", headObject(1, "{"), "damaged"},
		{"size as text", headObject(1, `{"size":"4096"}`), "damaged"},
		{"no size", headObject(1, `{"format":1,"clusterSize":4096,"epochs":[{}]}`), "fields"},
		{"negative size", headObject(1, strings.Replace("{"+ok+"}", "4096", "-4096", 1)), "fields"},
		{"size above 64 TiB", headObject(1, strings.Replace("{"+ok+"}", "4096", "70368744177665", 1)), "fields"},
		{"cluster size 5000", headObject(1, `{"format":1,"size":4096,"clusterSize":5000,"epochs":[{}]}`), "fields"},
		{"no epoch", headObject(1, `{"format":1,"size":4096,"clusterSize":4096}`), "fields"},
		{"two formats", headObject(1, strings.Replace("{"+ok+"}", `"format":1`, `"format":0`, 1)), "header line that says"},
		{"needs what is not known", headObject(1, `{"needs":["past","wings"],`+ok+`}`), "upgrade"},
	} {
		if h, _, err := decodeHead(c.obj); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v; want %q", c.name, h, err, c.want)
		}
	}
}

// TestHeadEveryByte: a changed byte of the object is refused, or changes nothing
// (the format number of an older format is not in the hash).
func TestHeadEveryByte(t *testing.T) {
	h := goldenHead()
	obj, ref, err := h.encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range obj {
		for _, x := range []byte{1, 2, 0x80} {
			obj[i] ^= x
			if got, gotRef, err := decodeHead(obj); err == nil && (gotRef != ref || !reflect.DeepEqual(got, h)) {
				t.Fatalf("byte %d changed passes as another head", i)
			}
			obj[i] ^= x
		}
	}
}

func FuzzDecodeHead(f *testing.F) {
	obj, _, err := goldenHead().encode()
	if err != nil {
		f.Fatal(err)
	}
	line, body, _ := bytes.Cut(obj, []byte("\n"))
	f.Add(string(line), string(body), false)
	f.Add("1", `{"format":1,"size":4096,"clusterSize":4096,"epochs":[{}],"reservation":"AQ==","needs":["reservation"]}`, true)
	f.Add("1", string(bytes.TrimSpace(body)), true)
	f.Add("1", `{"size":4096,"clusterSize":4096,"epochs":[{}]}`, true)
	f.Fuzz(func(t *testing.T, line, body string, seal bool) {
		obj := []byte(line + "\n" + body)
		if seal {
			obj = headObject(line, body)
		}
		var a, z runtime.MemStats
		runtime.ReadMemStats(&a)
		h, ref, err := decodeHead(obj)
		runtime.ReadMemStats(&z)
		if n := z.TotalAlloc - a.TotalAlloc; n > 200*uint64(len(obj))+1<<20 {
			t.Fatalf("%d bytes allocated for %d of input", n, len(obj))
		}
		if err != nil {
			return
		}
		if h.Size <= 0 || h.Size > MaxSize || !validCluster(h.ClusterSize) || len(h.Epochs) == 0 || len(h.Needs) > 0 {
			t.Fatalf("accepted %+v", h)
		}
		epochTable(h.Epochs).ofSCO(1)
		epochTable(h.Epochs).ofTLog(1)
		h.Format = HeadFormat
		again, _, err := h.encode()
		if err != nil {
			t.Fatal(err)
		}
		if g, gr, err := decodeHead(again); err != nil || !gr.same(ref) || g.LastSeq != h.LastSeq || !bytes.Equal(g.Reservation, h.Reservation) || len(g.Epochs) != len(h.Epochs) {
			t.Fatalf("does not survive another round: %v", err)
		}
	})
}

func TestObjectNames(t *testing.T) {
	id, o := testID(0xd0), Opening{Epoch: 0x1f, Nonce: 0xcafe}
	const v = "v/d0000000-0000-4000-8000-000000000000"
	for got, want := range map[string]string{
		headName(id, HeadRef{Epoch: 0x1f, Nonce: 0xcafe, Number: 1 << 40}): v + "/head/0000001f-0000010000000000-0000cafe",
		scoName(id, o, 7):    v + "/sco/00000007-0000001f-0000cafe",
		tlogName(id, o, 255): v + "/tlog/000000ff-0000001f-0000cafe",
		claimName(id, 0x1f):  v + "/claim/0000001f",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if got >= vdiskPrefix(id)+afterNames {
			t.Errorf("%s sorts after the end of the vDisk", got)
		}
	}
}

func FuzzParseHeadName(f *testing.F) {
	f.Add("v/x/head/0000001f-0000010000000000-0000cafe", uint32(1), uint64(2), uint32(3))
	f.Add("1-2", uint32(0), uint64(0), uint32(0))
	f.Add("--", ^uint32(0), ^uint64(0), ^uint32(0))
	f.Fuzz(func(t *testing.T, name string, epoch uint32, number uint64, nonce uint32) {
		ref := HeadRef{Epoch: epoch, Number: number, Nonce: nonce}
		if got, ok := parseHeadName(headName(testID(1), ref)); !ok || got != ref {
			t.Fatalf("%+v comes back as %+v, %t", ref, got, ok)
		}
		if got, ok := parseHeadName(name); ok {
			if again, ok := parseHeadName(headName(testID(1), got)); !ok || again != got {
				t.Fatalf("%q: %+v, then %+v", name, got, again)
			}
		}
	})
}

func TestHeadRefOrder(t *testing.T) {
	refs := []HeadRef{{Epoch: 1, Number: 1}, {Epoch: 1, Number: 9}, {Epoch: 2, Number: 1}, {Epoch: 2, Number: 2}}
	for i, a := range refs {
		for k, b := range refs {
			if a.newer(b) != (i > k) {
				t.Errorf("%+v newer than %+v: %t", a, b, a.newer(b))
			}
			// Names sort as heads do, so that a listing ends with the newest.
			if (headName(testID(1), a) > headName(testID(1), b)) != (i > k) {
				t.Errorf("names of %+v and %+v", a, b)
			}
		}
	}
}

func TestEpochTable(t *testing.T) {
	table := epochTable{{Epoch: 1, Nonce: 10, FirstSeq: 1, FirstSCO: 1, FirstTLog: 1},
		{Epoch: 4, Nonce: 40, FirstSeq: 100, FirstSCO: 5, FirstTLog: 2}, {Epoch: 5, Nonce: 50, FirstSeq: 100, FirstSCO: 5, FirstTLog: 3}}
	for _, c := range []struct {
		epoch       uint32
		first, last uint64
		want        bool
	}{
		{1, 1, 99, true}, {1, 1, 100, false}, {1, 0, 5, false}, {4, 100, 100, false}, {5, 100, 1 << 60, true},
		{5, 99, 120, false}, {2, 1, 1, false}, {6, 200, 201, false},
	} {
		if got := table.valid(c.epoch, c.first, c.last); got != c.want {
			t.Errorf("records of epoch %d over [%d, %d]: %t", c.epoch, c.first, c.last, got)
		}
	}
	for n, want := range map[uint32]uint32{1: 1, 4: 1, 5: 5, 900: 5} {
		if got := table.ofSCO(n).Epoch; got != want {
			t.Errorf("SCO %d is of epoch %d, want %d", n, got, want)
		}
	}
	for n, want := range map[uint32]uint32{1: 1, 2: 4, 3: 5, 900: 5} {
		if got := table.ofTLog(n).Epoch; got != want {
			t.Errorf("TLog %d is of epoch %d, want %d", n, got, want)
		}
	}
	if !table.has(4, 40) || table.has(4, 50) || table.has(9, 40) {
		t.Error("has")
	}
	// Openings that left nothing behind make room; older ones are not taken.
	next := Opening{Epoch: 6, Nonce: 60, FirstSeq: 100, FirstSCO: 5, FirstTLog: 3}
	got := table.with([]Opening{{Epoch: 3}, next})
	if want := (epochTable{table[0], table[1], next}); !reflect.DeepEqual(got, want) {
		t.Errorf("with: %+v", got)
	}
	if got := (epochTable{table[0]}).with([]Opening{{Epoch: 2, FirstSeq: 1, FirstSCO: 1, FirstTLog: 1}}); len(got) != 2 {
		t.Errorf("the first opening was dropped: %+v", got)
	}
}
