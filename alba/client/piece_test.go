package client_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/kv"
)

var pieceSizes = []fragment.PieceSize{fragment.Piece64K, fragment.Piece16K, fragment.Piece4K}

// setPieces changes the preset of the namespace.
func setPieces(t testing.TB, c *albatest.Cluster, size fragment.PieceSize) {
	t.Helper()
	_, err := c.Manager.UpdatePreset(t.Context(), "default", func(p *preset.Preset) { p.PieceBytes = size.Bytes() })
	must(t, err)
}

// Objects with pieces of all sizes in one namespace: any part of any reads as it was
// written, with all devices, with devices away, and with a preset that is another by
// now; a part moves the pieces that have it and no more.
func TestPieceSizes(t *testing.T) {
	pol := preset.Policy{K: 4, M: 2, C: 5, X: 2}
	c := albatest.New(t, albatest.Options{Nodes: []int{2, 2, 2}, Client: client.Options{Slack: 1e6},
		Preset: preset.Preset{Policies: []preset.Policy{pol}, FragmentBytes: 128 << 10, Compression: preset.Compression{Compression: fragment.S2}}})
	c.Namespace("ns")
	objects := map[string][]byte{}
	sizes := map[string]fragment.PieceSize{}
	for _, size := range pieceSizes {
		setPieces(t, c, size)
		for i, n := range []int{0, 1, 4096, 70000, 1<<20 + 17} {
			name := fmt.Sprintf("%v/%d", size, i)
			objects[name], sizes[name] = content(uint64(i), n), size
			must(t, c.Client.Put(t.Context(), "ns", name, objects[name]))
		}
	}
	all := func(when string) {
		t.Helper()
		for name, data := range objects {
			check(t, c.Client, name, data)
			m, err := c.Client.Manifest(t.Context(), "ns", name)
			must(t, err)
			if m.PieceSize() != sizes[name] || m.Missing() != 0 {
				t.Fatalf("%s: %s has pieces of %v, %d fragments missing", when, name, m.PieceSize(), m.Missing())
			}
		}
	}
	all("written")
	moves(t, c, objects, sizes)
	for _, n := range []uint32{1, 4} {
		c.OSD(n).SetDown(true)
	}
	all("two devices away")
	for _, n := range []uint32{1, 4} {
		c.OSD(n).SetDown(false)
	}
	requalify(t, c)
	// An object that is put again gets what the preset says now.
	name := fmt.Sprintf("%v/%d", fragment.Piece64K, 4)
	must(t, c.Client.Put(t.Context(), "ns", name, objects[name]))
	sizes[name] = fragment.Piece4K
	all("one put again")
}

// moves reads parts and counts what the devices sent.
func moves(t *testing.T, c *albatest.Cluster, objects map[string][]byte, sizes map[string]fragment.PieceSize) {
	t.Helper()
	cl := c.NewClient()
	rng := rand.New(rand.NewPCG(1, 2))
	s := cl.Stats()
	for name, data := range objects {
		if len(data) < 8192 {
			continue
		}
		for range 10 {
			off := rng.IntN(len(data)/4096) * 4096
			p := make([]byte, min(4096, len(data)-off))
			moved, more := s.MovedBytes.Load(), s.Hedged.Load()+s.Degraded.Load()
			must(t, cl.ReadAt(t.Context(), "ns", name, p, int64(off)))
			if !bytes.Equal(p, data[off:off+len(p)]) {
				t.Fatalf("%s: %d bytes from %d are wrong", name, len(p), off)
			}
			// The second fragment of a chunk may begin within the part.
			if n := s.MovedBytes.Load() - moved; n > uint64(2*sizes[name].Bytes()) && s.Hedged.Load()+s.Degraded.Load() == more {
				t.Fatalf("%s: %d bytes moved for %d from %d, pieces have %v", name, n, len(p), off, sizes[name])
			}
		}
	}
}

// Damage in any piece is found by the read that needs it, which gives what was
// written all the same.
func TestDamagedPieces(t *testing.T) {
	for _, size := range pieceSizes {
		t.Run(size.String(), func(t *testing.T) {
			c := albatest.New(t, albatest.Options{Nodes: []int{2, 2, 2}, Client: client.Options{Slack: 1e6}, Preset: preset.Preset{
				Policies: []preset.Policy{{K: 2, M: 2, C: 3, X: 2}}, PieceBytes: size.Bytes(), Compression: preset.Compression{Compression: fragment.S2}}})
			c.Namespace("ns")
			data := content(7, 128<<10)
			must(t, c.Client.Put(t.Context(), "ns", "o", data))
			m, err := c.Client.Manifest(t.Context(), "ns", "o")
			must(t, err)
			f := m.Fragments[0][1]
			key := m.Place(1, 0, 1).FragmentKey()
			for i := range f.Index.Pieces() {
				off, n := f.Index.Range(i, 1)
				flip := func() { // and flip back
					if !c.OSD(f.OSD).Corrupt(key, off+n/2) {
						t.Fatal("nothing to damage")
					}
				}
				at, plain := f.Index.PlainRange(i, 1)
				at += m.ShardBytes(0)
				flip()
				before := c.Client.Stats().Damaged.Load()
				p := make([]byte, plain)
				// A read that is overtaken by one of others does not see the damage.
				for limit := time.Now().Add(5 * time.Minute); c.Client.Stats().Damaged.Load() == before; {
					must(t, c.Client.ReadAt(t.Context(), "ns", "o", p, int64(at)))
					if !bytes.Equal(p, data[at:at+plain]) {
						t.Fatalf("piece %d is wrong", i)
					}
					if time.Now().After(limit) {
						t.Fatalf("damage in piece %d was not found", i)
					}
				}
				flip()
			}
		})
	}
}

// Small pieces never make a manifest longer than its share of a transaction: an object
// whose would be gets larger ones.
func TestManyPieces(t *testing.T) {
	c := albatest.New(t, albatest.Options{Nodes: []int{2, 2}, Client: client.Options{Slack: 1e6},
		Preset: preset.Preset{Policies: []preset.Policy{{K: 1, M: 3, C: 2, X: 2}}, FragmentBytes: 4 << 20, PieceBytes: fragment.Piece4K.Bytes()}})
	c.Namespace("ns")
	for n, want := range map[int]fragment.PieceSize{32<<10 + 1: fragment.Piece4K, 8 << 20: fragment.Piece4K, 16 << 20: fragment.Piece16K, 64 << 20: fragment.Piece64K} {
		must(t, c.Client.Put(t.Context(), "ns", "o", make([]byte, n)))
		m, err := c.Client.Manifest(t.Context(), "ns", "o")
		must(t, err)
		b, err := m.Encode()
		must(t, err)
		if m.PieceSize() != want || len(b) > kv.MaxTxnBytes/nsm.MaxChanges {
			t.Errorf("%d bytes have pieces of %v and a manifest of %d bytes", n, m.PieceSize(), len(b))
		}
	}
}
