package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/alba/client"
	"github.com/openvstorage/ovgate/alba/fragment"
	"github.com/openvstorage/ovgate/alba/layout"
	"github.com/openvstorage/ovgate/alba/manager"
	"github.com/openvstorage/ovgate/alba/nsm"
	"github.com/openvstorage/ovgate/alba/preset"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func refused(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// content returns n bytes that compress somewhat and differ by seed.
func content(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := 0; i < n; i += 16 {
		v := r.Uint64()
		for j := i; j < min(i+16, n); j++ {
			b[j] = byte(v >> (8 * (j % 4)))
		}
	}
	return b
}

// Objects of all sizes with every policy, compression and key come back, whole
// and in parts.
func TestRoundTrip(t *testing.T) {
	for _, pol := range []preset.Policy{{K: 1, M: 2, C: 2, X: 1}, {K: 2, M: 1, C: 3, X: 1}, {K: 4, M: 2, C: 5, X: 2}, {K: 5, M: 4, C: 8, X: 3}, {K: 8, M: 4, C: 10, X: 4}} {
		comps := []fragment.Compression{fragment.None, fragment.S2, fragment.Zstd}
		if testing.Short() {
			comps = comps[:2]
		}
		for _, comp := range comps {
			for _, secret := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v %v %v", pol, comp, secret), func(t *testing.T) {
					p := preset.Preset{Policies: []preset.Policy{pol}, Compression: preset.Compression{Compression: comp}}
					c := albatest.New(t, albatest.Options{Nodes: []int{4, 4, 4}, Preset: p, Client: client.Options{Slack: 1e6}})
					if secret {
						q := p
						q.Name, q.KeyID, q.FragmentBytes = "secret", c.Secret.ID().String(), preset.MinFragmentBytes
						_, err := c.Manager.CreatePreset(t.Context(), q)
						must(t, err)
						_, err = c.Manager.CreateNamespace(t.Context(), "ns", "secret")
						must(t, err)
					} else {
						c.Namespace("ns")
					}
					must(t, c.Client.Refresh(t.Context()))
					for i, size := range []int{0, 1, 100, 4096, 65536, 65537, 300000, 1<<20 + 17} {
						roundTrip(t, c, fmt.Sprintf("o/%d", i), content(uint64(i), size))
					}
				})
			}
		}
	}
}

func roundTrip(t *testing.T, c *albatest.Cluster, name string, data []byte) {
	t.Helper()
	must(t, c.Client.Put(t.Context(), "ns", name, data))
	check(t, c.Client, name, data)
	m, err := c.Client.Manifest(t.Context(), "ns", name)
	must(t, err)
	if m.Missing() != 0 {
		t.Fatalf("%s: %d fragments missing", name, m.Missing())
	}
	if m.Encrypted() {
		for _, n := range c.Numbers("") {
			for _, key := range c.OSD(n).Keys() {
				if len(data) > 1000 && key[0] == 'f' && bytes.Contains([]byte(key), data[:100]) {
					t.Fatal("plain text on a device")
				}
			}
		}
	}
}

// check reads an object whole and in parts.
func check(t testing.TB, c *client.Client, name string, data []byte) {
	t.Helper()
	got, err := c.Get(t.Context(), "ns", name, 1<<30)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Fatalf("%s: %d bytes that are not the %d put", name, len(got), len(data))
	}
	r := rand.New(rand.NewPCG(uint64(len(data)), 3))
	for range 10 {
		if len(data) == 0 {
			break
		}
		off := r.IntN(len(data))
		p := make([]byte, r.IntN(min(len(data)-off, 200000))+1)
		if err := c.ReadAt(t.Context(), "ns", name, p[:min(len(p), len(data)-off)], int64(off)); err != nil {
			t.Fatalf("%s: %d bytes from %d: %v", name, len(p), off, err)
		}
		p = p[:min(len(p), len(data)-off)]
		if !bytes.Equal(p, data[off:off+len(p)]) {
			t.Fatalf("%s: %d bytes from %d are wrong", name, len(p), off)
		}
	}
}

// Every set of devices that may be lost is taken away: c-k of any at once after a
// write, m of any once the object is complete; reads go on.
func TestAnyLoss(t *testing.T) {
	all := []preset.Policy{{K: 1, M: 2, C: 2, X: 1}, {K: 2, M: 1, C: 3, X: 1}, {K: 4, M: 2, C: 5, X: 2}, {K: 5, M: 4, C: 8, X: 3}, {K: 8, M: 4, C: 10, X: 4}}
	if testing.Short() {
		all = all[:3] // 512 and 4,096 sets of the others
	}
	for _, pol := range all {
		t.Run(pol.String(), func(t *testing.T) {
			nodes := []int{pol.X, pol.X, pol.X}
			c := albatest.New(t, albatest.Options{Nodes: nodes, Preset: preset.Preset{Policies: []preset.Policy{pol}}})
			c.Namespace("ns")
			data := content(9, 1<<20)
			for missing := 1; missing > 0; { // on a busy machine a fragment may come too late
				must(t, c.Client.Put(t.Context(), "ns", "o", data))
				m, err := c.Client.Manifest(t.Context(), "ns", "o")
				must(t, err)
				missing = m.Missing()
			}
			all := c.Numbers("")
			sets := 0
			for set := range 1 << len(all) {
				lost := 0
				for i, n := range all {
					c.OSD(n).SetDown(set>>i&1 == 1)
					lost += set >> i & 1
				}
				got, err := c.Client.Get(t.Context(), "ns", "o", 1<<30)
				if lost > pol.M {
					if pol.N() == len(all) {
						refused(t, err, client.ErrUnavailable)
					}
					continue
				}
				sets++
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("without %b: %v", set, err)
				}
			}
			t.Logf("%d sets of lost devices", sets)
		})
	}
}

// Refusals change nothing and name the object.
func TestRefusals(t *testing.T) {
	c := albatest.New(t, albatest.Options{Nodes: []int{2, 2, 2}})
	ctx := t.Context()
	refused(t, c.Client.Put(ctx, "ns", "o", nil), manager.ErrNotFound)
	c.Namespace("ns")
	_, err := c.Client.Get(ctx, "ns", "o", 10)
	refused(t, err, nsm.ErrNotExist)
	must(t, c.Client.PutIfAbsent(ctx, "ns", "o", []byte("one")))
	refused(t, c.Client.PutIfAbsent(ctx, "ns", "o", []byte("two")), nsm.ErrExists)
	_, err = c.Client.Get(ctx, "ns", "o", 2)
	refused(t, err, client.ErrTooLarge)
	refused(t, c.Client.ReadAt(ctx, "ns", "o", make([]byte, 4), 0), client.ErrRange)
	refused(t, c.Client.ReadAt(ctx, "ns", "o", make([]byte, 1), -1), client.ErrRange)
	check(t, c.Client, "o", []byte("one"))
	must(t, c.Client.Delete(ctx, "ns", "o"))
	must(t, c.Client.Delete(ctx, "ns", "o"))
	_, err = c.Client.Get(ctx, "ns", "o", 10)
	refused(t, err, nsm.ErrNotExist)
	refused(t, c.Client.Put(ctx, "ns", string(make([]byte, layout.MaxName+1)), nil), nsm.ErrInvalid)
}

// Sequences happen whole or not at all.
func TestSequence(t *testing.T) {
	c := albatest.New(t, albatest.Options{Nodes: []int{2, 2, 2}})
	ctx := t.Context()
	c.Namespace("ns")
	put := func(name, v string) client.Change { return client.Change{Name: name, Data: []byte(v)} }
	must(t, c.Client.Apply(ctx, "ns", []nsm.Assert{{Name: "owner", Absent: true}}, []client.Change{put("owner", "a"), put("x", "1")}))
	refused(t, c.Client.Apply(ctx, "ns", []nsm.Assert{{Name: "owner", Absent: true}}, []client.Change{put("owner", "b"), put("x", "2")}), nsm.ErrAssert)
	info, err := c.Client.Stat(ctx, "ns", "owner")
	must(t, err)
	must(t, c.Client.Apply(ctx, "ns", []nsm.Assert{{Name: "owner", Object: &info.Object}}, []client.Change{put("owner", "c"), {Name: "x", Delete: true}, put("y", "3")}))
	refused(t, c.Client.Apply(ctx, "ns", []nsm.Assert{{Name: "owner", Object: &info.Object}}, []client.Change{put("y", "4")}), nsm.ErrAssert)
	check(t, c.Client, "owner", []byte("c"))
	check(t, c.Client, "y", []byte("3"))
	_, err = c.Client.Stat(ctx, "ns", "x")
	refused(t, err, nsm.ErrNotExist)
	refused(t, c.Client.Apply(ctx, "ns", nil, []client.Change{put("y", "5"), put("y", "6")}), nsm.ErrInvalid)
}

// First puts into a new namespace make it known to a device at the same time: none
// counts the device as failed for it.
func TestFirstPutsTogether(t *testing.T) {
	c := albatest.New(t, albatest.Options{Nodes: []int{6}, Preset: preset.Preset{Policies: []preset.Policy{{K: 4, M: 2, C: 6, X: 6}}}, Client: client.Options{Slack: 1e6}})
	c.Namespace("ns")
	const puts = 2
	for _, n := range c.Numbers("") {
		var looked atomic.Int64
		both := make(chan struct{})
		c.OSD(n).SetHook(func(op string, key []byte) error {
			if op == "apply" && key[0] == 'n' {
				switch n := looked.Add(1); {
				case n == puts:
					close(both)
				case n < puts:
					<-both // both found nothing
				}
			}
			return nil
		})
	}
	errs := make(chan error)
	for i := range puts {
		go func() { errs <- c.Client.Put(t.Context(), "ns", fmt.Sprint("o", i), content(uint64(i), 1000)) }()
	}
	for range puts {
		must(t, <-errs)
	}
}

// TestPutAfterClaim: a put finds devices that were claimed since the client read them, and
// one for which there are not enough says so.
func TestPutAfterClaim(t *testing.T) {
	c := albatest.New(t, albatest.Options{Nodes: []int{2}, Preset: preset.Preset{Policies: []preset.Policy{{K: 2, M: 2, C: 4, X: 2}}}, Client: client.Options{Refresh: time.Hour}})
	c.Namespace("ns")
	refused(t, c.Client.Put(t.Context(), "ns", "a", content(1, 1000)), client.ErrNoPolicy)
	c.AddOSD(albatest.Node(1))
	c.AddOSD(albatest.Node(1))
	must(t, c.Client.Put(t.Context(), "ns", "a", content(1, 1000)))
	check(t, c.Client, "a", content(1, 1000))
}

// TestSuspect: the devices of a node take writes and do not answer, without an end. Once the
// node is suspected, a put that waits for them goes on with other devices, and later ones do
// not wait; when the devices work, they are used again.
func TestSuspect(t *testing.T) {
	best, rest := preset.Policy{K: 4, M: 2, C: 6, X: 2}, preset.Policy{K: 2, M: 2, C: 4, X: 2}
	c := albatest.New(t, albatest.Options{Nodes: []int{2, 2, 2}, Preset: preset.Preset{Policies: []preset.Policy{best, rest}}, Client: client.Options{Timeout: time.Hour}})
	c.Namespace("ns")
	policy := func(name string) preset.Policy {
		t.Helper()
		m, err := c.Client.Manifest(t.Context(), "ns", name)
		must(t, err)
		return m.Policy
	}
	must(t, c.Client.Put(t.Context(), "ns", "before", content(1, 1000)))
	gone := albatest.Node(1)
	release, asked := make(chan struct{}), make(chan struct{}, 100)
	for _, n := range c.Numbers(gone) {
		c.OSD(n).SetHook(func(op string, _ []byte) error {
			if op == "apply" {
				asked <- struct{}{}
				<-release
			}
			return nil
		})
	}
	put := make(chan error)
	go func() { put <- c.Client.Put(t.Context(), "ns", "during", content(2, 1000)) }()
	<-asked
	<-asked
	c.Client.Suspect(gone, errors.New("it has no lease"))
	select {
	case err := <-put:
		must(t, err)
	case <-time.After(5 * time.Minute):
		t.Fatal("the put waits for devices that are suspected")
	}
	must(t, c.Client.Put(t.Context(), "ns", "after", content(3, 1000)))
	for i, name := range []string{"before", "during", "after"} {
		check(t, c.Client, name, content(uint64(i+1), 1000))
		if want := []preset.Policy{best, rest, rest}[i]; policy(name) != want {
			t.Errorf("%s: stored by %s, not by %s", name, policy(name), want)
		}
	}
	close(release)
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if !slices.ContainsFunc(c.Client.OSDs(), func(o client.OSDView) bool { return o.Error != "" }) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("devices that work are not used: %+v", c.Client.OSDs())
		}
	}
	must(t, c.Client.Put(t.Context(), "ns", "back", content(4, 1000)))
	if policy("back") != best {
		t.Errorf("stored by %s although all devices work", policy("back"))
	}
}
