package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/testseed"
)

// fuzzEnv is how long TestEveryOperation sends drawn requests, such as 10m; by default it makes fuzzRounds.
const fuzzEnv = "OVGATE_API_FUZZ"

const (
	// fuzzRounds is how many requests of each operation are made by default, by all workers.
	fuzzRounds = 9
	// fuzzWorkers send requests side by side.
	fuzzWorkers = 3
	// fuzzDisks bounds the vDisks of the node, each of which has a journal chunk, and fuzzPools
	// the vPools.
	fuzzDisks, fuzzPools = 24, 6
)

// away are the operations that ask somebody else, who in this test is not there: as the document
// says, they answer 503 then.
var away = map[string]bool{
	"CreateBackend": true, "UpdateBackend": true, "TestBackend": true, "CreateCenter": true, "UpdateCenter": true, "TestCenter": true,
	"CreateCloud": true, "UpdateCloud": true, "TestCloud": true, "TestAlertChannel": true,
}

// TestEveryOperation calls every operation of the document on a whole node, each with success and an
// answer as documented, and then sends requests that are drawn from the document, allowed ones and
// others, to each. None may hang, panic or answer a defect, and every answer is as documented.
// OVGATE_SEED repeats what was drawn; what the requests meet depends on timing, too.
func TestEveryOperation(t *testing.T) {
	t.Parallel()
	seed := testseed.Of(t)
	limit, err := time.ParseDuration(os.Getenv(fuzzEnv))
	if os.Getenv(fuzzEnv) == "" {
		limit, err = 0, nil
	}
	if err != nil {
		t.Fatalf("%s: %v", fuzzEnv, err)
	}
	rounds := fuzzRounds
	if testing.Short() {
		rounds = 3
	}
	f := &fuzzer{served: serve(t), w: &world{known: map[string][]string{}}, dir: t.TempDir(), slow: map[string]time.Duration{}, status: map[int]int{}}
	f.everyCalled(f.tour())
	f.must("DeleteVPool", map[string]string{"vpool": "alba"}, "")
	for _, id := range []string{"ListVPools", "ListVDisks", "ListTargets", "ListNodes", "ListPresets", "ListOSDs", "ListAlertRules", "ListCenters"} {
		f.w.learn(f.ops, f.ops[id], f.must(id, nil, ""))
	}
	f.w.learn(f.ops, f.ops["ListSnapshots"], f.must("ListSnapshots", map[string]string{"vdisk": "one"}, ""))
	end := time.Now().Add(limit)
	var wg sync.WaitGroup
	for i := range fuzzWorkers {
		wg.Go(func() {
			d := &drawer{rng: rand.New(rand.NewPCG(seed, uint64(i))), w: f.w, ops: f.ops, dir: f.dir}
			for n := i; (limit > 0 && time.Now().Before(end) || limit == 0 && n < rounds) && !f.over(); n += fuzzWorkers {
				f.round(d, fmt.Sprintf("seed %d, worker %d, round %d", seed, i, n))
			}
		})
	}
	wg.Wait()
	if f.failed == 0 {
		f.still()
	}
	t.Logf("%d requests: %v; the slowest: %s", f.sent, f.status, f.slowest())
}

// fuzzer sends drawn requests.
type fuzzer struct {
	*served
	w   *world
	dir string

	mu     sync.Mutex
	sent   int
	failed int
	status map[int]int
	slow   map[string]time.Duration // operation -> its slowest answer
}

// mostFailures is when a run is over early.
const mostFailures = 20

func (f *fuzzer) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed >= mostFailures
}

// round makes one request of each operation, in an order of its own.
func (f *fuzzer) round(d *drawer, at string) {
	ids := slices.Sorted(maps.Keys(f.ops))
	d.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		if f.over() {
			return
		}
		f.one(d, f.ops[id], at)
	}
	f.prune(d, at)
}

func (f *fuzzer) one(d *drawer, op operation, at string) {
	r := d.request(op, f.token)
	begin := time.Now()
	a, err := f.send(r)
	took := time.Since(begin)
	wrong := ""
	switch {
	case err != nil:
		wrong = fmt.Sprintf("no answer after %v: %v", took.Round(time.Millisecond), err)
	case a.status >= 500:
		wrong = f.excuse(op, a)
	case r.method == op.method && a.status < 400:
		wrong = undocumented(op, a)
	case op.doc.RequestBody != nil && op.doc.RequestBody.Value.Content.Get("application/x-www-form-urlencoded") != nil && a.status == 400:
		wrong = undocumented(op, a) // its errors are those of OAuth2
	case r.method != http.MethodHead && a.status >= 400:
		var e struct{ Code, Message, RequestID string }
		if err := json.Unmarshal(a.body, &e); err != nil || e.Code == "" || e.Message == "" || e.RequestID == "" {
			wrong = "a refusal that is no Error"
		}
	}
	f.mu.Lock()
	f.sent++
	f.status[a.status]++
	f.slow[op.id] = max(f.slow[op.id], took)
	if wrong != "" {
		f.failed++
	}
	f.mu.Unlock()
	if wrong != "" {
		f.t.Errorf("%s (%s): %s\n%v\nanswer %d %s", op.id, at, wrong, r, a.status, clip(string(a.body)))
	}
	f.w.learn(f.ops, op, a)
}

// excuse tells what is wrong with an answer of 500 and above; "" when the document allows it.
func (f *fuzzer) excuse(op operation, a answer) string {
	var e struct{ Code, Message, Hint string }
	if err := json.Unmarshal(a.body, &e); err != nil {
		return err.Error()
	}
	if a.status == 503 && e.Code == "backend_unavailable" && away[op.id] && e.Message != "" {
		return undocumented(op, a)
	}
	return "a defect"
}

// prune deletes vDisks and vPools beyond their bounds.
func (f *fuzzer) prune(d *drawer, at string) {
	for _, k := range []struct {
		list, remove, param string
		most                int
		query               string
	}{
		{"ListVDisks", "DeleteVDisk", "vdisk", fuzzDisks, "purge=true"},
		{"ListTrash", "PurgeTrash", "vdisk", fuzzDisks, ""},
		{"ListVPools", "DeleteVPool", "vpool", fuzzPools, ""},
	} {
		a, err := f.send(request{method: "GET", path: f.ops[k.list].path, query: "limit=1000", header: bearer(f.token)})
		if err != nil || a.status != 200 {
			f.t.Errorf("%s (%s): %v %d %s", k.list, at, err, a.status, a.body)
			return
		}
		var l struct{ Items []struct{ ID string } }
		if err := json.Unmarshal(a.body, &l); err != nil {
			f.t.Errorf("%s: %v", k.list, err)
			return
		}
		d.rng.Shuffle(len(l.Items), func(i, j int) { l.Items[i], l.Items[j] = l.Items[j], l.Items[i] })
		for _, i := range l.Items[min(len(l.Items), k.most):] {
			// One that is in use stays, and another one goes next time.
			if a, err := f.send(request{method: "DELETE", path: fill(f.ops[k.remove].path, map[string]string{k.param: i.ID}), query: k.query, header: bearer(f.token)}); err != nil || a.status >= 500 {
				f.t.Errorf("%s (%s): %v %d %s", k.remove, at, err, a.status, a.body)
			}
		}
	}
}

// still checks that the node works after all that.
func (f *fuzzer) still() {
	f.must("CreateVPool", nil, fmt.Sprintf(`{"name":"after-all","backend":{"kind":"local","path":%q,"preset":"","store":""}}`, f.dir+"/after-all"))
	f.must("CreateVDisk", nil, `{"name":"after-all","vpool":"after-all","size":1048576}`)
	f.must("CreateSnapshot", map[string]string{"vdisk": "after-all"}, `{"name":"s"}`)
	f.must("PublishVDisk", map[string]string{"vdisk": "after-all"}, `{"open":true}`)
	f.must("GetStatus", nil, "")
}

// slowest lists the operations that took longest.
func (f *fuzzer) slowest() string {
	ids := slices.SortedFunc(maps.Keys(f.slow), func(a, b string) int { return int(f.slow[b] - f.slow[a]) })
	var out []string
	for _, id := range ids[:min(6, len(ids))] {
		out = append(out, fmt.Sprintf("%s %v", id, f.slow[id].Round(time.Millisecond)))
	}
	return strings.Join(out, ", ")
}
