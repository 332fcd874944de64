package client_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/preset"
)

// A part of an object that is damaged, or on a device that does not answer, comes from
// others; a caller that gives up is let go.
func TestOneDeviceWaitedFor(t *testing.T) {
	c := albatest.New(t, albatest.Options{Nodes: []int{3, 3, 3}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 5, X: 2}}}})
	c.Namespace("ns")
	data := content(3, 200000)
	must(t, c.Client.Put(t.Context(), "ns", "o", data))
	m, err := c.Client.Manifest(t.Context(), "ns", "o")
	must(t, err)
	size := m.ShardBytes(0)
	for shard := range 4 {
		number := m.Fragments[0][shard].OSD
		at := shard*size + 100
		read := func(ctx context.Context) error {
			p := make([]byte, 4096)
			err := c.Client.ReadAt(ctx, "ns", "o", p, int64(at))
			if err == nil && !bytes.Equal(p, data[at:at+len(p)]) {
				t.Errorf("shard %d: wrong bytes", shard)
			}
			return err
		}
		must(t, read(t.Context()))
		key, damaged := m.Place(1, 0, shard).FragmentKey(), c.Client.Stats().Damaged.Load()
		if !c.OSD(number).Corrupt(key, 100) {
			t.Fatal("nothing to damage")
		}
		// A read that is overtaken by one of others does not see the damage.
		for limit := time.Now().Add(5 * time.Minute); c.Client.Stats().Damaged.Load() == damaged; {
			must(t, read(t.Context()))
			if time.Now().After(limit) {
				t.Fatalf("shard %d: damage was not found", shard)
			}
		}
		c.OSD(number).Corrupt(key, 100) // as it was
		hedged := c.Client.Stats().Hedged.Load()
		entered, release := make(chan struct{}, 1), make(chan struct{})
		c.OSD(number).SetHook(func(string, []byte) error {
			select {
			case entered <- struct{}{}:
			default:
			}
			<-release
			return nil
		})
		// A device that was slow before, as under load, is passed by until that is forgotten.
		for limit := time.Now().Add(5 * time.Minute); len(entered) == 0 || c.Client.Stats().Hedged.Load() == hedged; {
			must(t, read(t.Context()))
			if time.Now().After(limit) {
				t.Fatalf("shard %d: device %d was not asked and overtaken", shard, number)
			}
		}
		for i := range 6 { // nobody answers
			if n := m.Fragments[0][i].OSD; n != number {
				c.OSD(n).SetHook(func(string, []byte) error { <-release; return nil })
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- read(ctx) }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("shard %d: a reader that gave up: %v", shard, err)
		}
		for i := range 6 {
			c.OSD(m.Fragments[0][i].OSD).SetHook(nil)
		}
		close(release)
	}
}
