package maintenance_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/maintenance"
	"github.com/openvstorage/ovgate/alba/preset"
)

// setPieces changes the preset of the namespace.
func (w *world) setPieces(size fragment.PieceSize) {
	w.t.Helper()
	_, err := w.Manager.UpdatePreset(w.t.Context(), "default", func(p *preset.Preset) { p.PieceBytes = size.Bytes() })
	must(w.t, err)
}

// Objects with pieces of all sizes in one namespace, in a preset that is another by
// now: verified, made anew where they are damaged, lost or on a device that leaves,
// and found again without the NSM, they keep their size; what is stored anew by a
// better policy takes that of the preset.
func TestPieceSizes(t *testing.T) {
	best := preset.Policy{K: 4, M: 2, C: 5, X: 2}
	w := newWorld(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{
		Policies: []preset.Policy{best, {K: 2, M: 2, C: 3, X: 2}}, FragmentBytes: 128 << 10, Compression: preset.Compression{Compression: fragment.S2}}})
	ctx := t.Context()
	sizes := map[string]fragment.PieceSize{}
	put := func(size fragment.PieceSize, what string, n int) {
		w.setPieces(size)
		name := fmt.Sprintf("%s-%v-%d", what, size, n)
		w.put(name, n)
		sizes[name] = size
	}
	all := []fragment.PieceSize{fragment.Piece64K, fragment.Piece16K, fragment.Piece4K}
	for _, size := range all {
		for _, n := range []int{0, 5000, 200000, 1 << 20} {
			put(size, "best", n)
		}
	}
	for _, n := range w.Numbers(albatest.Node(0)) {
		w.OSD(n).SetDown(true)
	}
	for _, size := range all {
		put(size, "fallback", 100000)
	}
	keep := func(when string) {
		t.Helper()
		w.check(when)
		for name, want := range sizes {
			m, err := w.Client.Manifest(ctx, "ns", name)
			must(t, err)
			if m.PieceSize() != want {
				t.Fatalf("%s: %s has pieces of %v, not %v", when, name, m.PieceSize(), want)
			}
		}
	}
	keep("a node is away")
	for _, n := range w.Numbers(albatest.Node(0)) {
		w.OSD(n).SetDown(false)
	}
	w.qualified()
	w.setPieces(fragment.Piece16K)
	for name := range sizes {
		if name[:4] != "best" {
			sizes[name] = fragment.Piece16K
		}
	}
	w.settle("stored anew", best.M)
	keep("stored anew")

	// Damage, which verification finds.
	for i, name := range slices.Sorted(maps.Keys(sizes)) {
		m, err := w.Client.Manifest(ctx, "ns", name)
		must(t, err)
		for c := range m.Fragments {
			j := (i + c) % best.N()
			f, key := m.Fragments[c][j], m.Place(1, c, j).FragmentKey()
			if i%2 == 0 && !w.OSD(f.OSD).Drop(key) || i%2 == 1 && f.Index.StoredBytes() > 0 && !w.OSD(f.OSD).Corrupt(key, f.Index.StoredBytes()/2) {
				t.Fatalf("%s has nothing to damage", name)
			}
		}
	}
	keep("damaged")
	for _, n := range w.Numbers("") {
		must(t, w.a.VerifyOSD(ctx, n))
	}
	w.settle("verified", best.M)
	w.exact("verified")
	keep("verified")

	// One device leaves, one is lost.
	numbers := w.Numbers("")
	_, err := w.Manager.Decommission(ctx, numbers[0])
	must(t, err)
	w.OSD(numbers[5]).SetDown(true)
	w.settle("one leaves, one is lost", best.M)
	keep("one leaves, one is lost")
	w.OSD(numbers[5]).SetDown(false)
	w.qualified()
	w.settle("it is back", best.M)

	w.LoseNSM()
	_, err = w.a.RecoverNamespace(ctx, "ns", maintenance.RecoverOptions{Force: true})
	must(t, err)
	w.recovered("recovered")
	keep("recovered")
	w.settle("recovered", best.M)
	w.exact("recovered")
	keep("at last")
}
