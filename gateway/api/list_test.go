package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/auth"
	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/internal/kv"
	"github.com/openvstorage/ovgate/iscsi"
)

// many is how many vDisks a list must cope with.
const many = 10_000

// largeServer serves a model of many vDisks, none of them open.
func largeServer(tb testing.TB) (http.Handler, string) {
	tb.Helper()
	fail := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	db, err := kv.OpenBolt(filepath.Join(tb.TempDir(), "kv.db"), kv.BoltOptions{NoSync: true})
	fail(err)
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	// 50 records a transaction: written below the model, which makes one each.
	var ops []kv.Op
	flush := func() {
		_, err := db.Txn(tb.Context(), nil, ops, nil)
		fail(err)
		ops = nil
	}
	put := func(key string, v any) {
		b, err := json.Marshal(v)
		fail(err)
		if ops = append(ops, kv.Put(key, b)); len(ops) == kv.MaxTxnOps {
			flush()
		}
	}
	put("model/vpool/p", model.VPool{Format: 1, ID: "p", Name: "gold", State: model.StatePresent})
	for i := range many {
		id := fmt.Sprintf("%08x-0000-4000-8000-000000000000", i)
		put("model/vdisk/"+id, model.VDisk{
			Format: 1, ID: id, Name: fmt.Sprintf("vm-%05d", i*7919%many), VPool: "p", Size: int64(i+1) << 20, ClusterSize: 4096,
			State: model.StatePresent, Created: time.Unix(int64(i), 0).UTC(), Labels: map[string]string{"team": fmt.Sprint("t", i%10)},
		})
	}
	flush()
	m, err := model.Open(tb.Context(), db, nil)
	fail(err)
	a, err := auth.New(tb.Context(), m, nil, nil, nil)
	fail(err)
	if _, err := m.CreateNode(tb.Context(), model.Node{ID: "n1", Name: "n1"}); err != nil {
		tb.Fatal(err)
	}
	token, err := a.NodeToken(tb.Context(), "n1", "")
	fail(err)
	seal, err := control.NewSealer(make([]byte, control.SealKeySize))
	fail(err)
	s, err := New(Options{
		Model: m, Auth: a, Sealer: seal, Hub: observe.NewHub(nil), Sampler: observe.NewSampler(0),
		Control: control.New(control.Options{Model: m, Sealer: seal, Frontend: iscsi.NewServer(iscsi.Config{})}),
	})
	fail(err)
	return s.Handler(), token
}

func list(tb testing.TB, h http.Handler, token, query string) VDiskList {
	tb.Helper()
	r := httptest.NewRequest("GET", BasePath+"/vdisks?"+query, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var out VDiskList
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
		tb.Fatalf("%s: %d %v %s", query, w.Code, err, w.Body)
	}
	return out
}

// TestListMany pages through many vDisks in each order and with filters.
func TestListMany(t *testing.T) {
	h, token := largeServer(t)
	for query, want := range map[string]struct {
		n           int
		first, last string
	}{
		"":                                {many, "vm-00000", "vm-09999"},
		"sort=-name":                      {many, "vm-09999", "vm-00000"},
		"sort=size&vpool=gold":            {many, "vm-00000", "vm-02081"},
		"sort=-created&q=VM-0123":         {10, "", ""},
		"q=t3":                            {many / 10, "", ""},
		"state=running":                   {0, "", ""},
		"dtl=off":                         {0, "", ""}, // none is open
		"state=opening&q=vm-0000":         {10, "vm-00000", "vm-00009"},
		"sort=writeIops&state=opening":    {many, "", ""},
		"vpool=p&sort=-stored&q=vm-09999": {1, "vm-09999", "vm-09999"},
	} {
		var names []string
		seen := map[string]bool{}
		cursor := ""
		for {
			page := list(t, h, token, query+"&limit=1000"+cursor)
			for _, v := range page.Items {
				names = append(names, v.Name)
				seen[v.ID] = true
			}
			if page.Next == nil {
				break
			}
			cursor = "&cursor=" + *page.Next
		}
		if len(names) != want.n || len(seen) != want.n || want.first != "" && (names[0] != want.first || names[len(names)-1] != want.last) {
			t.Errorf("%q: %d rows, %d different, want %+v", query, len(names), len(seen), want)
			if len(names) > 0 {
				t.Errorf("%q: %s to %s", query, names[0], names[len(names)-1])
			}
		}
	}
}

// TestBusiest orders vDisks by what they do: together, and by the slower of reads and writes.
func TestBusiest(t *testing.T) {
	s := observe.NewSampler(0)
	disk := func(id string, reads, writes uint64, read, write int) observe.Input {
		in := observe.Input{ID: id}
		in.Stats.ReadOps, in.Stats.WriteOps = reads, writes
		in.Stats.ReadLatency[read], in.Stats.WriteLatency[write] = reads, writes
		return in
	}
	at := time.Unix(1_700_000_000, 0)
	s.Observe(at, []observe.Input{disk("reads", 0, 0, 0, 0), disk("writes", 0, 0, 0, 0), disk("both", 0, 0, 0, 0), disk("idle", 0, 0, 0, 0)}, nil, false)
	s.Observe(at.Add(time.Second), []observe.Input{disk("reads", 100, 0, 8, 0), disk("writes", 0, 90, 0, 12), disk("both", 60, 60, 4, 6), disk("idle", 0, 0, 0, 0)}, nil, false)
	view := &diskView{s: &Server{opt: Options{Sampler: s}}}
	for sort, want := range map[string][]string{
		"-iops":    {"both", "reads", "writes", "idle"},
		"-latency": {"writes", "reads", "both", "idle"},
		"iops":     {"idle", "writes", "reads", "both"},
	} {
		name, desc, keys, err := order(&sort, diskOrders)
		if err != nil {
			t.Fatal(err)
		}
		rows := []diskOrder{{view, &model.VDisk{ID: "idle"}}, {view, &model.VDisk{ID: "reads"}}, {view, &model.VDisk{ID: "both"}}, {view, &model.VDisk{ID: "writes"}}}
		sorted, _, err := page(rows, keys, name, desc, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range sorted {
			got = append(got, o.v.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", sort, got, want)
		}
	}
}

// TestFillings: what a status tells of places is bounded, and says nothing where nothing is known.
func TestFillings(t *testing.T) {
	trends := make([]observe.Trend, fillingsMost+1)
	for i := range trends {
		trends[i] = observe.Trend{Space: observe.Space{Total: 100, Free: 10}, To80: observe.Never, To100: observe.Never}
	}
	trends[0].Known, trends[0].To80, trends[0].To100 = true, 0, time.Hour
	got := fillings(trends)
	if len(got) != fillingsMost {
		t.Errorf("%d places, want %d", len(got), fillingsMost)
	}
	if f := got[0]; f.To80Ms == nil || *f.To80Ms != 0 || f.To100Ms == nil || *f.To100Ms != 3_600_000 || !f.Known {
		t.Errorf("the first is %+v", f)
	}
	if f := got[1]; f.To80Ms != nil || f.To100Ms != nil || f.Known {
		t.Errorf("one that is not known is %+v", f)
	}
	if none := fillings(nil); none == nil || len(none) != 0 {
		t.Errorf("of nothing: %v, want an empty list", none)
	}
}

// BenchmarkListMany is one page of 100 out of many vDisks, sorted by name.
func BenchmarkListMany(b *testing.B) {
	h, token := largeServer(b)
	for b.Loop() {
		if n := len(list(b, h, token, "q=vm").Items); n != model.DefaultPage {
			b.Fatal(n)
		}
	}
}
