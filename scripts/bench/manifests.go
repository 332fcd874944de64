package main

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/preset"
	"github.com/openvstorage/ovgate/internal/kv"
)

const (
	// needManifests is the free space that the set alba-scale asks for.
	needManifests = 8 << 30
	// manifests is how many objects the namespace has.
	manifests = 1_000_000
	// manifestLookups and manifestPages are how many times each is measured.
	manifestLookups = 50_000
	manifestPages   = 25
	manifestPage    = 500
	manifestSpace   = 1 // the namespace's number
)

const manifestConfig = "a namespace of 1,000,000 objects of 4 MiB with policy (4,2), manifests put through the NSM on bbolt, which was closed and opened again, with the page cache dropped; one at a time"

// manifestRows are the rows of the set alba-scale.
var manifestRows = []goRow{
	{name: "nsm manifest lookup p99, 1000000 objects", metric: "us-lookup-p99", unit: "us", scale: 1, limit: 2000, goal: 1, config: manifestConfig + ", after 10,000 lookups"},
	{name: "nsm list page of 500, the slowest of middle and last, the first", metric: "pages/s-slowest", unit: "pages/s", scale: 1, peer: "pages/s-first", peerName: "the first page", goal: 0.67, config: manifestConfig + "; medians of 25"},
	{name: "nsm bytes per object", metric: "bytes", unit: "bytes", scale: 1, peer: "bytes-manifest", peerName: "the encoded manifest", goal: 0, config: manifestConfig},
}

// albaManifest returns the manifest of an object that was never stored.
func albaManifest(i int, index fragment.Index) *layout.Manifest {
	m := &layout.Manifest{Header: layout.Header{
		Name: fmt.Sprintf("sco/%012d", i), Size: largeObject, Created: time.Now().UnixMilli(), Policy: albaPolicy, ChunkBytes: largeObject,
	}, Fragments: [][]layout.Fragment{make([]layout.Fragment, albaPolicy.N())}}
	rng := mathrand.New(mathrand.NewPCG(uint64(i), 1))
	for j := range m.Object {
		m.Object[j] = byte(rng.Uint32())
	}
	for j := range m.Fragments[0] {
		m.Fragments[0][j] = layout.Fragment{OSD: uint32(j + 1), Epoch: 1, Index: index}
	}
	return m
}

// measureManifests fills an NSM and reads from it.
func measureManifests(ctx context.Context, dir string, r *results) error {
	fmt.Printf("bench: an NSM with %d objects\n", manifests)
	path := filepath.Join(dir, "nsm.db")
	began := time.Now()
	size, err := fillManifests(ctx, path)
	if err != nil {
		return err
	}
	fmt.Printf("  filled in %v\n", time.Since(began).Round(time.Second))
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	r.manifests = map[string]float64{"bytes": float64(st.Size()) / manifests, "bytes-manifest": float64(size)}
	if err := settleDisk(true); err != nil {
		return err
	}
	store, err := kv.OpenBolt(path, kv.BoltOptions{})
	if err != nil {
		return err
	}
	h := nsm.New(store)
	return errors.Join(lookUp(ctx, h, r.manifests), listPages(ctx, h, r.manifests), store.Close())
}

// fillManifests returns the size of a manifest.
func fillManifests(ctx context.Context, path string) (_ int, err error) {
	store, err := kv.OpenBolt(path, kv.BoltOptions{NoSync: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	h := nsm.New(store)
	p := preset.Preset{Name: "plain", Policies: []preset.Policy{albaPolicy}, FragmentBytes: largeObject / albaPolicy.K}
	if err := h.Create(ctx, manifestSpace, "bench", p); err != nil {
		return 0, err
	}
	shard := make([]byte, largeObject/albaPolicy.K)
	for i := range shard {
		shard[i] = byte(mathrand.Uint32())
	}
	_, index, err := fragment.Pack(nil, fragment.ID{}, shard, fragment.None, fragment.Piece64K, nil)
	if err != nil {
		return 0, err
	}
	one, err := albaManifest(0, index).Encode()
	if err != nil {
		return 0, err
	}
	const fillers = 32 // share the commits
	var next atomic.Int64
	errs := make([]error, fillers)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for errs[w] == nil {
				from := int(next.Add(nsm.MaxChanges)) - nsm.MaxChanges
				if from >= manifests {
					return
				}
				var changes []nsm.Change
				for i := from; i < min(from+nsm.MaxChanges, manifests); i++ {
					changes = append(changes, nsm.Change{Put: albaManifest(i, index)})
				}
				errs[w] = h.Apply(ctx, manifestSpace, 1, nil, changes)
			}
		})
	}
	wg.Wait()
	return len(one), errors.Join(errs...)
}

// lookUp measures manifests by name.
func lookUp(ctx context.Context, h *nsm.Host, out map[string]float64) error {
	const warm = 10_000
	rng := mathrand.New(mathrand.NewPCG(5, 5))
	times := make([]time.Duration, 0, manifestLookups)
	for i := range warm + manifestLookups {
		name := fmt.Sprintf("sco/%012d", rng.IntN(manifests))
		from := time.Now()
		m, err := h.Get(ctx, manifestSpace, name)
		if err != nil {
			return err
		}
		if m.Name != name {
			return fmt.Errorf("manifest of %s under %s", m.Name, name)
		}
		if i >= warm {
			times = append(times, time.Since(from))
		}
	}
	slices.Sort(times)
	micros := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	out["us-lookup-p50"], out["us-lookup-p99"] = micros(times[len(times)/2]), micros(times[len(times)*99/100])
	fmt.Printf("  lookups: p50 %.0f us, p99 %.0f us, longest %v\n", out["us-lookup-p50"], out["us-lookup-p99"], times[len(times)-1])
	return nil
}

// listPages measures the first page, one in the middle and the last.
func listPages(ctx context.Context, h *nsm.Host, out map[string]float64) error {
	after := []string{"", fmt.Sprintf("sco/%012d", manifests/2), fmt.Sprintf("sco/%012d", manifests-manifestPage-1)}
	times := make([][]time.Duration, len(after))
	for range manifestPages {
		for i, a := range after {
			from := time.Now()
			page, _, err := h.List(ctx, manifestSpace, "sco/", a, manifestPage)
			if err != nil {
				return err
			}
			if len(page) != manifestPage {
				return fmt.Errorf("a page of %d objects after %q", len(page), a)
			}
			times[i] = append(times[i], time.Since(from))
		}
	}
	rates := make([]float64, len(after))
	for i := range times {
		slices.Sort(times[i])
		rates[i] = 1 / times[i][len(times[i])/2].Seconds()
	}
	out["pages/s-first"], out["pages/s-slowest"] = rates[0], min(rates[1], rates[2])
	fmt.Printf("  pages: first %.0f/s, middle %.0f/s, last %.0f/s\n", rates[0], rates[1], rates[2])
	return nil
}
