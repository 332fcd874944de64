package alba

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/alba/albatest"
	"github.com/openvstorage/ovgate/volumedriver/backend"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
)

func newStore(t *testing.T) (*albatest.Cluster, *Store) {
	c := albatest.New(t, albatest.Options{Nodes: []int{2, 2, 2}})
	return c, New(Options{Client: c.Client, Prefix: "pool"})
}

func TestStore(t *testing.T) {
	backendtest.Run(t, backendtest.Options{New: func(t *testing.T) backend.Store {
		_, s := newStore(t)
		return s
	}})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func vdisk(i int) string { return fmt.Sprintf("%036x", i) }

// A vDisk has a namespace of its own, from its first object to its last.
func TestNamespaces(t *testing.T) {
	c, s := newStore(t)
	ctx := t.Context()
	for i := range 3 {
		must(t, s.Put(ctx, "v/"+vdisk(i)+"/sco/1", []byte{byte(i)}))
		must(t, s.Put(ctx, "v/"+vdisk(i)+"/head/1", []byte{byte(i)}))
	}
	must(t, s.Put(ctx, "root", nil))
	names := func() []string {
		all, err := c.Client.Namespaces(ctx, "", "", 100)
		must(t, err)
		return all
	}
	want := []string{"pool", "pool.v." + vdisk(0), "pool.v." + vdisk(1), "pool.v." + vdisk(2)}
	if got := names(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%q", got)
	}
	must(t, s.Delete(ctx, "v/"+vdisk(1)+"/sco/1"))
	if len(names()) != 4 {
		t.Fatalf("%q", names())
	}
	must(t, s.Delete(ctx, "v/"+vdisk(1)+"/head/1"))
	if len(names()) != 3 {
		t.Fatalf("%q", names())
	}
	must(t, s.Delete(ctx, "v/"+vdisk(1)+"/head/1"))
	_, err := s.Get(ctx, "v/"+vdisk(1)+"/sco/1", 1)
	if !errors.Is(err, backend.ErrNotExist) {
		t.Fatal(err)
	}
	// While it is being removed a put is refused as worth a retry.
	err = s.Put(ctx, "v/"+vdisk(1)+"/sco/1", nil)
	if err == nil || errors.Is(err, backend.ErrNotExist) || !strings.Contains(err.Error(), "being removed") {
		t.Fatal(err)
	}
}

// Lists go through namespaces in the order of names, from any point on.
func TestListVDisks(t *testing.T) {
	_, s := newStore(t)
	ctx := t.Context()
	var all []string
	for i := range 12 {
		for j := range 3 {
			all = append(all, fmt.Sprintf("v/%s/o%d", vdisk(i*7), j))
		}
	}
	all = append(all, "v/short/x", "z")
	for _, n := range all {
		must(t, s.Put(ctx, n, []byte(n)))
	}
	for limit := range 7 {
		for start := -1; start < len(all); start++ {
			after := ""
			if start >= 0 {
				after = all[start]
			}
			infos, err := s.List(ctx, "", after, limit+1)
			must(t, err)
			want := all[start+1 : min(start+2+limit, len(all))]
			if len(infos) != len(want) {
				t.Fatalf("after %q: %v, want %v", after, infos, want)
			}
			for i, info := range infos {
				if info.Name != want[i] {
					t.Fatalf("after %q: %v, want %v", after, infos, want)
				}
			}
		}
	}
	for prefix, n := range map[string]int{"v/": 37, "v/0": 36, "v/" + vdisk(7): 3, "v/" + vdisk(7) + "/": 3, "v/" + vdisk(7) + "/o1": 1, "v/" + vdisk(8): 0, "z": 1, "v/short": 1, "v/" + vdisk(7)[:35]: 9} {
		infos, err := s.List(ctx, prefix, "", 100)
		must(t, err)
		count := 0
		for _, name := range all {
			if strings.HasPrefix(name, prefix) {
				count++
			}
		}
		if len(infos) != count || n != count && !strings.HasSuffix(prefix, vdisk(7)[:35]) {
			t.Errorf("prefix %q: %d, want %d (%d)", prefix, len(infos), count, n)
		}
	}
	// As recovery looks for vDisks: the first object of each.
	seen := 0
	for after := ""; ; seen++ {
		infos, err := s.List(ctx, "v/", after, 1)
		must(t, err)
		if len(infos) == 0 {
			break
		}
		dir, _, _ := strings.Cut(strings.TrimPrefix(infos[0].Name, "v/"), "/")
		after = "v/" + dir + "/~"
	}
	if seen != 13 {
		t.Fatalf("%d vDisks", seen)
	}
}

// All devices full is ErrFull; deletes go on.
func TestFull(t *testing.T) {
	c, s := newStore(t)
	ctx := t.Context()
	data := bytes.Repeat([]byte("x"), 10000)
	must(t, s.Put(ctx, "o", data))
	for _, n := range c.Numbers("") {
		c.OSD(n).SetFull(true)
	}
	if err := s.Put(ctx, "p", data); !errors.Is(err, backend.ErrFull) {
		t.Fatal(err)
	}
	must(t, s.Delete(ctx, "o"))
}
