package scrub

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/openvstorage/ovgate/internal/blockfs"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/local"
	"github.com/openvstorage/ovgate/volumedriver/clustersum"
	"github.com/openvstorage/ovgate/volumedriver/sco"
	"github.com/openvstorage/ovgate/volumedriver/tlog"
)

const (
	testCluster = 4096
	testDir     = "v/test"
	testPer     = testCluster / lbaBytes
)

var testDisk = [16]byte{7, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9}

// history is a log of random SCOs, and what it comes to.
type history struct {
	t     *testing.T
	store backend.Store
	r     *rand.Rand
	u     Unit
	// data says for each cluster which SCO wrote it last; 0: it was trimmed last.
	data map[uint64]uint32
}

func content(cluster uint64, number uint32) []byte {
	p := make([]byte, testCluster)
	for i := 0; i < len(p); i += 16 {
		binary.LittleEndian.PutUint64(p[i:], cluster+uint64(i)<<32)
		binary.LittleEndian.PutUint32(p[i+8:], number)
	}
	return p
}

// newHistory makes n SCOs in TLogs of a few, on a disk of more than two windows. All
// that happens is near the places in spots.
func newHistory(t *testing.T, seed uint64, n int) *history {
	t.Helper()
	st, err := local.Open(blockfs.NewMem(), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := &history{t: t, store: st, r: rand.New(rand.NewPCG(seed, 1)), data: map[uint64]uint32{}}
	h.u = Unit{VDisk: testDisk, Dir: testDir, Cluster: testCluster, Clusters: 2*windowClusters + 5000, Level: 3, SCOClusters: 64,
		Epoch: 9, Nonce: 0xabc, FirstSCO: 1 << 31, EndSCO: 1<<31 + 10000, FirstTLog: 1 << 31, EndTLog: 1<<31 + 100}
	s := Segment{FirstSeq: 1, LastSeq: uint64(n), FirstTime: 5, LastTime: 50}
	for i := 1; i <= n; {
		l := &tlog.TLog{VDisk: testDisk, Epoch: 2, Nonce: 0xdef, Number: uint32(i)}
		for k := h.r.IntN(4); k >= 0 && i <= n; k-- {
			l.Entries = append(l.Entries, h.write(uint32(i)))
			i++
		}
		last := l.Entries[len(l.Entries)-1].Footer
		h.put(tlog.Name(testDir, l.Number, l.Epoch, l.Nonce), l.Encode())
		s.Inputs = append(s.Inputs, Input{Number: l.Number, Epoch: 2, Nonce: 0xdef, FirstSeq: l.Entries[0].Footer.FirstSeq, LastSeq: last.LastSeq})
	}
	h.u.Segments = []Segment{s}
	return h
}

func (h *history) put(name string, b []byte) {
	h.t.Helper()
	if err := h.store.Put(context.Background(), name, b); err != nil {
		h.t.Fatal(err)
	}
}

// place draws a cluster: at the ends of the disk or around the ends of windows.
func (h *history) place() uint64 {
	spots := []uint64{0, windowClusters - 60, 2*windowClusters - 60, h.u.Clusters - 120}
	return spots[h.r.IntN(len(spots))] + h.r.Uint64N(120)
}

// write makes a SCO.
func (h *history) write(number uint32) tlog.Entry {
	f := &sco.Footer{Cluster: testCluster, VDisk: testDisk, Epoch: 2, Nonce: 0xdef, Number: number, FirstSeq: uint64(number), LastSeq: uint64(number),
		FirstTime: 5, LastTime: 50}
	for range h.r.IntN(3) {
		start, n := h.place(), 1+h.r.Uint64N(100)
		if h.r.IntN(6) == 0 {
			n = 2 * windowClusters
		}
		n = min(n, h.u.Clusters-start)
		f.Extents = append(f.Extents, sco.Extent{LBA: start * testPer, Length: n * testPer, Kind: sco.KindTrim})
		for c := range h.data {
			if c >= start && c < start+n {
				h.data[c] = 0
			}
		}
	}
	clusters := map[uint64]bool{}
	for range 1 + h.r.IntN(60) {
		clusters[h.place()] = true
	}
	list := make([]uint64, 0, len(clusters))
	for c := range clusters {
		list = append(list, c)
	}
	slices.Sort(list)
	f.Clusters = uint32(len(list))
	for i, c := range list {
		f.Extents = append(f.Extents, sco.Extent{LBA: c * testPer, Length: testPer, Kind: sco.KindData, First: uint32(i)})
		h.data[c] = number
	}
	obj := make([]byte, sco.Size(testCluster, len(list), len(f.Extents)))
	seed := clustersum.NewSeed(testDisk)
	for i, c := range list {
		data, sum := sco.Layout{Cluster: testCluster}.Slot(obj, f.Clusters, uint32(i))
		copy(data, content(c, number))
		binary.LittleEndian.PutUint32(sum, seed.Sum(c*testPer, data))
	}
	sco.Finish(obj, f)
	h.put(sco.Name(testDir, number, 2, 0xdef), obj)
	return tlog.Entry{Bytes: int64(len(obj)), Footer: f}
}

// check compares what came of the unit with the log (R2, R3, R5).
func (h *history) check(res *Result, moved map[uint32]bool) {
	h.t.Helper()
	s := &h.u.Segments[0]
	seen := map[uint64]bool{}
	for _, l := range res.Segments[0].TLogs {
		b, err := h.store.Get(context.Background(), tlog.Name(testDir, l.Number, h.u.Epoch, h.u.Nonce), tlog.MaxBytes)
		if err != nil {
			h.t.Fatal(err)
		}
		l, err := tlog.Decode(b)
		if err != nil || !l.Collected {
			h.t.Fatal(err)
		}
		for _, e := range l.Entries {
			f := e.Footer
			if f.FirstSeq != s.FirstSeq || f.LastSeq != s.LastSeq || moved[f.Number] {
				h.t.Fatalf("sco %d with seqs %d to %d", f.Number, f.FirstSeq, f.LastSeq)
			}
			obj, err := h.store.Get(context.Background(), sco.Name(testDir, f.Number, f.Epoch, f.Nonce), 1<<30)
			if err != nil || int64(len(obj)) != e.Bytes {
				h.t.Fatalf("sco %d: %v", f.Number, err)
			}
			if _, err := sco.Decode(obj); err != nil {
				h.t.Fatalf("sco %d: %v", f.Number, err)
			}
			for _, x := range f.Extents {
				h.extent(f, obj, x, seen)
			}
		}
	}
	for c, number := range h.data {
		if !seen[c] && (number != 0 || !s.Bottom) {
			h.t.Fatalf("cluster %d of sco %d is lost", c, number)
		}
	}
}

// extent checks one extent of a TLog.
func (h *history) extent(f *sco.Footer, obj []byte, x sco.Extent, seen map[uint64]bool) {
	h.t.Helper()
	start, n := x.LBA/testPer, x.Length/testPer
	if x.Kind != sco.KindData {
		if h.u.Segments[0].Bottom {
			h.t.Fatal("a trim with nothing below")
		}
		for c, number := range h.data {
			if c >= start && c < start+n {
				if number != 0 || seen[c] {
					h.t.Fatalf("cluster %d of sco %d is trimmed", c, number)
				}
				seen[c] = true
			}
		}
		return
	}
	for k := range n {
		c := start + k
		if seen[c] || h.data[c] == 0 {
			h.t.Fatalf("cluster %d of sco %d does not count, or twice", c, f.Number)
		}
		seen[c] = true
		data, _ := sco.Layout{Cluster: testCluster}.Slot(obj, f.Clusters, x.First+uint32(k))
		if !bytes.Equal(data, content(c, h.data[c])) {
			h.t.Fatalf("cluster %d is not that of sco %d", c, h.data[c])
		}
	}
}

// TestExecute: whatever is moved, what came of the segment has the same effect, and
// doing it again gives the same objects (R4).
func TestExecute(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(12) {
		h := newHistory(t, seed, 3+int(seed)*4)
		s := &h.u.Segments[0]
		s.Bottom = seed%2 == 0
		survey, err := h.u.Survey(ctx, &Env{Store: h.store}, s)
		if err != nil {
			t.Fatal(err)
		}
		live := map[uint32]int{}
		for _, number := range h.data {
			if number != 0 {
				live[number]++
			}
		}
		if fmt.Sprint(live) != fmt.Sprint(survey.Live) || s.Bottom != (survey.Trims == 0) {
			t.Fatalf("seed %d: survey %+v, want %v", seed, survey, live)
		}
		moved, n := map[uint32]bool{}, 0
		for number, k := range live {
			if seed%3 == 0 || h.r.IntN(2) == 0 {
				s.Move, moved[number] = append(s.Move, number), true
				n += k
			}
		}
		slices.Sort(s.Move)
		scos, tlogs := survey.Numbers(n, h.u.SCOClusters)
		h.u.EndSCO, h.u.EndTLog = h.u.FirstSCO+scos, h.u.FirstTLog+tlogs
		var paced int64
		env := &Env{Store: h.store, Pace: func(_ context.Context, n int64) error { paced += n; return nil }}
		res, err := Execute(ctx, env, &h.u)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		h.check(res, moved)
		if paced != res.Read+res.Written {
			t.Errorf("paced %d bytes of %d", paced, res.Read+res.Written)
		}
		before := map[string][]byte{}
		for _, name := range res.Objects {
			if before[name], err = h.store.Get(ctx, name, 1<<30); err != nil {
				t.Fatal(err)
			}
		}
		again, err := Execute(ctx, env, &h.u)
		if err != nil || !slices.Equal(again.Objects, res.Objects) {
			t.Fatalf("%v %q %q", err, again.Objects, res.Objects)
		}
		for name, b := range before {
			if now, err := h.store.Get(ctx, name, 1<<30); err != nil || !bytes.Equal(now, b) {
				t.Fatalf("%s has other bytes: %v", name, err)
			}
		}
	}
}

// flaky is a store that answers reads wrongly.
type flaky struct {
	backend.Store
	wrong func(name string, p []byte) error
}

func (f flaky) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if err := f.Store.ReadAt(ctx, name, p, off); err != nil {
		return err
	}
	return f.wrong(name, p)
}

// TestDamage: a flipped bit is read again; one that stays, and an object that is gone,
// are told by name and place. Nothing that was not verified is written.
func TestDamage(t *testing.T) {
	ctx := context.Background()
	h := newHistory(t, 99, 10)
	s := &h.u.Segments[0]
	survey, err := h.u.Survey(ctx, &Env{Store: h.store}, s)
	if err != nil {
		t.Fatal(err)
	}
	for number := range survey.Live {
		s.Move = append(s.Move, number)
	}
	slices.Sort(s.Move)
	once := map[string]bool{}
	res, err := Execute(ctx, &Env{Store: flaky{h.store, func(name string, p []byte) error {
		if !once[name] {
			once[name], p[len(p)-1] = true, p[len(p)-1]^1
			p[0] ^= 1
		}
		return nil
	}}}, &h.u)
	if err != nil {
		t.Fatal(err)
	}
	h.check(res, map[uint32]bool{})
	victim := s.Move[len(s.Move)/2]
	name := sco.Name(testDir, victim, 2, 0xdef)
	for what, wrong := range map[string]func(string, []byte) error{
		"flipped": func(n string, p []byte) error {
			if n == name {
				p[0] ^= 1
			}
			return nil
		},
		"gone": func(n string, _ []byte) error {
			if n == name {
				return backend.ErrNotExist
			}
			return nil
		},
		"short": func(n string, _ []byte) error {
			if n == name {
				return backend.ErrRange
			}
			return nil
		},
	} {
		var damage *DamageError
		if _, err := Execute(ctx, &Env{Store: flaky{h.store, wrong}}, &h.u); !errors.As(err, &damage) || damage.SCO != victim || damage.Name != name {
			t.Errorf("%s: %v", what, err)
		}
	}
	away := errors.New("away")
	if _, err := Execute(ctx, &Env{Store: flaky{h.store, func(string, []byte) error { return away }}}, &h.u); !errors.Is(err, away) {
		t.Errorf("%v", err)
	}
	h.u.EndSCO = h.u.FirstSCO + 1
	if _, err := Execute(ctx, &Env{Store: h.store}, &h.u); !errors.Is(err, ErrNumbers) {
		t.Errorf("%v", err)
	}
}
