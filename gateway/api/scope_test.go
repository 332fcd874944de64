package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/api"
)

// hushed is in the name of everything on the vPool that the caller of these tests may not see.
const hushed = "hush"

// as is the node for another caller.
func (s *served) as(token string) *served {
	other := *s
	other.token = token
	return &other
}

// field reads a text of an answer.
func (s *served) field(a answer, names ...string) string {
	s.t.Helper()
	var v any
	if err := json.Unmarshal(a.body, &v); err != nil {
		s.t.Fatal(err)
	}
	for _, n := range names {
		m, _ := v.(map[string]any)
		v = m[n]
	}
	text, ok := v.(string)
	if !ok {
		s.t.Fatalf("no %v in %s", names, a.body)
	}
	return text
}

func vals(pairs ...string) map[string]string {
	out := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	return out
}

// hide makes the vPool hushpool with a vDisk of its own in each state, and returns what path
// parameters can name of it: by name, and by id.
func (s *served) hide() (names, ids map[string]string) {
	s.must("CreateVPool", nil, fmt.Sprintf(`{"name":"hushpool","backend":{"kind":"local","path":%q,"preset":"","store":""}}`, filepath.Join(s.t.TempDir(), "hush")))
	disk := s.field(s.must("CreateVDisk", nil, `{"name":"hushdisk","vpool":"hushpool","size":1048576}`), "id")
	trash := s.field(s.must("CreateVDisk", nil, `{"name":"hushtrash","vpool":"hushpool","size":1048576}`), "id")
	s.must("DeleteVDisk", vals("vdisk", "hushtrash"), "")
	s.must("CreateSnapshot", vals("vdisk", "hushdisk"), `{"name":"hushsnap"}`)
	iqn := s.field(s.must("CreateTarget", nil, `{"name":"hushtarget"}`), "iqn")
	s.must("PublishVDisk", vals("vdisk", "hushdisk"), `{"target":"hushtarget"}`)
	s.must("CreateTargetGroup", vals("iqn", "hushtarget"), `{"name":"hushgroup","initiators":["iqn.2004-10.com.ubuntu:01:hush"]}`)
	load := s.field(s.must("BeginImport", nil, `{"name":"hushload","vpool":"hushpool","size":1048576}`), "id")
	s.must("SetSchedule", vals("job", "snapshot", "?vdisk", "hushdisk"), `{"enabled":true,"cron":"@daily"}`)
	var jobs struct{ Items []struct{ ID string } }
	if a := s.must("ListJobs", vals("?kind", "import"), ""); json.Unmarshal(a.body, &jobs) != nil || len(jobs.Items) != 1 {
		s.t.Fatalf("jobs: %s", a.body)
	}
	pool := s.field(s.must("GetVPool", vals("vpool", "hushpool"), ""), "id")
	names = vals("vpool", "hushpool", "vdisk", "hushdisk", "iqn", "hushtarget", "transfer", "hushload", "group", "hushgroup", "snapshot", "hushsnap", "initiator", "iqn.x", "job", "snapshot", "osd", "1", "session", "1", "backend", "hushstore")
	ids = maps.Clone(names)
	maps.Copy(ids, vals("vpool", pool, "vdisk", disk, "trashed", trash, "iqn", iqn, "transfer", load, "jobId", jobs.Items[0].ID))
	return names, ids
}

// hiddenState is what the local operator sees of what is hidden, without what changes by itself.
func (s *served) hiddenState() string {
	var out strings.Builder
	for _, q := range []struct{ op, param, value string }{
		{"GetVPool", "vpool", "hushpool"}, {"GetVDisk", "vdisk", "hushdisk"}, {"ListSnapshots", "vdisk", "hushdisk"}, {"GetTarget", "iqn", "hushtarget"}, {"ListTrash", "?vpool", "hushpool"}, {"GetSchedule", "?vdisk", "hushdisk"}, {"ListVDisks", "?vpool", "hushpool"},
	} {
		var v any
		if err := json.Unmarshal(s.must(q.op, vals(q.param, q.value), "").body, &v); err != nil {
			s.t.Fatal(err)
		}
		b, err := json.Marshal(steady(v))
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %s\n", q.op, b)
	}
	return out.String()
}

// steady leaves out of an answer what changes by itself.
func steady(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range []string{"observedAt", "performance", "journal", "lastCommit", "committedSeq", "lastSeq", "stored", "mapped", "free", "total", "requests", "stats", "inBackend", "dtl", "nextSlot", "nextAt", "cached", "trashStored"} {
			delete(v, k)
		}
		for _, e := range v {
			steady(e)
		}
	case []any:
		for _, e := range v {
			steady(e)
		}
	}
	return v
}

// member makes a user with role manage on the vPool ours, and returns a token of it.
func (s *served) member() string {
	s.must("CreateVPool", nil, fmt.Sprintf(`{"name":"ours","backend":{"kind":"local","path":%q,"preset":"","store":""}}`, filepath.Join(s.t.TempDir(), "ours")))
	s.must("CreateUser", nil, `{"name":"olga","role":"none","password":"correct horse","grants":[{"role":"manage","scope":"vpool:ours"}]}`)
	return s.field(s.must("CreateToken", nil, `{"name":"olga","user":"olga","role":"none","grants":[{"role":"manage","scope":"vpool:ours"}]}`), "secret")
}

var requestID = regexp.MustCompile(`"requestId":"[0-9a-f]*"`)

// TestScopedWalk walks all operations as one with role manage on one vPool alone. Nothing of
// another vPool changes, and nothing of it is told: what is there is answered as what is not.
func TestScopedWalk(t *testing.T) {
	if testing.Short() {
		t.Skip("walks all operations; it is for the area unit")
	}
	t.Parallel()
	s := serve(t)
	names, ids := s.hide()
	olga := s.as(s.member())
	olga.must("CreateVDisk", nil, `{"name":"mine","vpool":"ours","size":1048576}`)
	before := s.hiddenState()
	bodies := map[string][]string{
		"CreateVDisk":         {`{"name":"x","vpool":"%s","size":1048576}`, `{"name":"x","vpool":"ours","VPOOL":"%s","size":1048576}`},
		"BeginImport":         {`{"name":"x","vpool":"%s","size":1048576}`},
		"CreateSnapshotGroup": {`{"name":"x","vdisks":["%[2]s"]}`, `{"name":"x","vdisks":["mine","%[2]s"]}`},
		"MoveVDisk":           {`{"vpool":"%s"}`},
		"PublishVDisk":        {`{"target":"%[3]s"}`},
	}
	ask := func(op operation, values map[string]string, query, body string) answer {
		t.Helper()
		r := request{method: op.method, path: fill(op.path, values), query: query, header: bearer(olga.token)}
		if op.doc.RequestBody != nil {
			r.body = []byte(body)
			if op.doc.RequestBody.Value.Content.Get("application/octet-stream") != nil {
				r.header.Set("Content-Type", "application/octet-stream")
			}
		}
		return s.do(r)
	}
	for _, id := range slices.Sorted(maps.Keys(s.ops)) {
		op := s.ops[id]
		if _, open, _ := api.RuleOf(id); open || id == "StreamEvents" || id == "SignOut" {
			continue
		}
		for _, by := range []map[string]string{names, ids} {
			values := maps.Clone(by)
			if strings.Contains(id, "Trash") && by["trashed"] != "" {
				values["vdisk"] = by["trashed"]
			}
			if strings.HasSuffix(id, "Job") && by["jobId"] != "" {
				values["job"] = by["jobId"]
			}
			// The same of what there is not, as long.
			none := maps.Clone(values)
			for k, v := range none {
				if k == "job" || k == "osd" || k == "initiator" || k == "snapshot" || k == "group" || k == "session" {
					continue
				}
				none[k] = strings.Map(func(r rune) rune {
					if r == '-' || r == '.' || r == ':' {
						return r
					}
					return '7'
				}, v)
			}
			if id == "GetJob" || id == "CancelJob" {
				none["job"] = strings.Map(func(r rune) rune { return map[bool]rune{true: r, false: '7'}[r == '-'] }, values["job"])
			}
			texts := []string{"{}"}
			if b, ok := bodies[id]; ok {
				texts = b
			}
			for _, text := range texts {
				in := func(v map[string]string) (map[string]string, string, string) {
					q := "offset=0&length=4096"
					if strings.Contains(op.path, "/schedule/") || op.path == "/schedule" {
						q = "vdisk=" + v["vdisk"]
					} else if op.path == "/vdisks" && op.method == "GET" {
						q = "vpool=" + v["vpool"]
					} else if op.path == "/trash" {
						q = "vpool=" + v["vpool"]
					}
					path := maps.Clone(v)
					if id == "MoveVDisk" || id == "PublishVDisk" {
						path["vdisk"] = "mine"
					}
					return path, q, fmt.Sprintf(text+"%[4]s", v["vpool"], v["vdisk"], v["iqn"], "")
				}
				p1, q1, b1 := in(values)
				p2, q2, b2 := in(none)
				if !strings.Contains(text, "%") {
					b1, b2 = text, text
				}
				a, b := ask(op, p1, q1, b1), ask(op, p2, q2, b2)
				shown := string(a.body)
				for k, v := range values { // what was asked for may be repeated, and is the same then
					if none[k] != v {
						shown = strings.ReplaceAll(shown, v, none[k])
					}
				}
				if strings.Contains(shown, hushed) {
					t.Errorf("%s %s: tells of what is hidden: %s", id, b1, clip(shown))
				}
				listed := a.status == 200 && b.status == 200 && !strings.Contains(op.path, "{") // of what is seen, and may differ by the moment
				if x, y := requestID.ReplaceAllString(shown, ""), requestID.ReplaceAllString(string(b.body), ""); a.status != b.status || x != y && !listed {
					t.Errorf("%s %s: what is hidden answers %d %s, what is not there %d %s", id, b1, a.status, clip(x), b.status, clip(y))
				}
				if strings.Contains(op.path, "{vpool}") || strings.Contains(op.path, "{vdisk}") && id != "MoveVDisk" && id != "PublishVDisk" || strings.Contains(op.path, "{iqn}") || strings.Contains(op.path, "{transfer}") {
					if a.status != 404 && a.status != 204 {
						t.Errorf("%s of what is hidden: %d %s", id, a.status, a.body)
					}
				}
			}
		}
	}
	if after := s.hiddenState(); after != before {
		t.Errorf("what is hidden was\n%s\nand is\n%s", before, after)
	}
}

// TestScopedWork: with role manage on a vPool, and with role write as a token has, one works with
// everything on it, and gets a stream of it alone.
func TestScopedWork(t *testing.T) {
	t.Parallel()
	s := serve(t)
	_, hidden := s.hide()
	olga := s.as(s.member())
	heard := olga.stream()
	for _, st := range []step{
		{"GetSession", "", ""}, {"GetVersion", "", ""}, {"ListPortals", "", ""}, {"GetStatus", "", ""}, {"ListNodes", "", ""}, {"ListDocuments", "", ""},
		{"CreateVDisk", "", `{"name":"one","vpool":"ours","size":1048576}`}, {"CreateVDisk", "", `{"name":"hushdisk","vpool":"ours","size":1048576}`},
		{"UpdateVDisk", "vdisk=hushdisk", `{"name":"two"}`}, // its name is one there alone
		{"GetVDisk", "vdisk=ours/one", ""}, {"SetVDiskQos", "vdisk=one", `{"iops":1000,"bytesPerSecond":0,"burstMs":0}`},
		{"CreateSnapshot", "vdisk=one", `{"name":"s1"}`}, {"CreateSnapshotGroup", "", `{"name":"both","vdisks":["one","two"]}`}, {"ListSnapshots", "vdisk=one", ""},
		{"CloneVDisk", "vdisk=one", `{"name":"child","snapshot":"s1"}`}, {"FlattenVDisk", "vdisk=child", ""}, {"DeleteVDisk", "vdisk=child", ""}, {"RestoreTrash", "vdisk=child", `{}`}, {"DeleteVDisk", "vdisk=child ?purge=true", ""},
		{"CreateTarget", "", `{"name":"shared"}`}, {"GetTarget", "iqn=shared", ""}, {"CreateTargetGroup", "iqn=shared", `{"name":"hosts","initiators":["iqn.2004-10.com.ubuntu:01:c"]}`},
		{"PublishVDisk", "vdisk=one", `{"target":"shared"}`}, {"SetTargetPortals", "iqn=shared", `{"addresses":[]}`}, {"UnpublishVDisk", "vdisk=one", ""}, {"DeleteTarget", "iqn=shared", ""},
		{"PublishVDisk", "vdisk=one", `{"initiators":["iqn.2004-10.com.ubuntu:01:a"]}`},
		{"SetSchedule", "job=snapshot ?vpool=ours", `{"enabled":true,"cron":"@daily"}`}, {"GetSchedule", "?vdisk=one", ""}, {"UpdateVPool", "vpool=ours", `{"settings":{"historyMs":3600000}}`}, {"SweepVPool", "vpool=ours", `{"dryRun":true}`},
		{"CreateToken", "", `{"name":"narrow","role":"none","grants":[{"role":"read","scope":"vpool:ours"}]}`}, {"GetUser", "user=olga", ""},
	} {
		values := map[string]string{}
		for f := range strings.FieldsSeq(st.values) {
			k, v, _ := strings.Cut(f, "=")
			values[k] = v
		}
		if a := olga.must(st.op, values, st.body); strings.Contains(strings.ReplaceAll(string(a.body), `"hushdisk"`, ""), hushed) && st.op != "CreateVDisk" {
			t.Errorf("%s tells of what is hidden: %s", st.op, clip(string(a.body)))
		}
	}
	s.must("UpdateVDisk", vals("vdisk", "hushpool/hushdisk"), `{"labels":{"a":"b"}}`)
	s.must("CreateVDisk", nil, `{"name":"hushnew","vpool":"hushpool","size":1048576}`)
	s.must("DeleteVDisk", vals("vdisk", "hushnew", "?purge", "true"), "")
	olga.must("UpdateVDisk", vals("vdisk", "two"), `{"name":"last"}`)
	for text := range heard {
		if strings.Contains(text, hushed) && !strings.Contains(text, `"vpool":"ours"`) || strings.Contains(text, hidden["vdisk"]) || strings.Contains(text, hidden["vpool"]) {
			t.Errorf("the stream tells of what is hidden: %s", text)
		}
		if strings.Contains(text, `"name":"last"`) {
			break
		}
	}
	// In a target with vDisks of others it is not told how to sign in; its own vDisk leaves there.
	olga.must("UnpublishVDisk", vals("vdisk", "one"), `{"force":true}`)
	s.must("PublishVDisk", vals("vdisk", "one"), `{"target":"hushtarget"}`)
	publish := s.ops["PublishVDisk"]
	if a := s.do(request{method: publish.method, path: fill(publish.path, vals("vdisk", "one")), header: bearer(olga.token)}); a.status != 403 || strings.Contains(string(a.body), hushed) {
		t.Errorf("in a target of others: %d %s", a.status, a.body)
	}
	olga.must("UnpublishVDisk", vals("vdisk", "one"), `{"force":true}`)
	// Totals and pages are of what is seen.
	var status struct {
		Counts struct{ Vpools, Vdisks int }
	}
	if err := json.Unmarshal(olga.must("GetStatus", nil, "").body, &status); err != nil || status.Counts.Vpools != 1 || status.Counts.Vdisks != 2 {
		t.Errorf("status: %+v, %v", status, err)
	}
	for i, name := range []string{"last", "one"} {
		if a := olga.must("ListVDisks", vals("?limit", "1", "?sort", map[int]string{0: "name", 1: "-name"}[i]), ""); !strings.Contains(string(a.body), `"name":"`+name+`"`) {
			t.Errorf("page %d: %s", i, a.body)
		}
	}
	// A token for reading is refused with what is missing, and reads.
	narrow := olga.as(s.field(olga.must("CreateToken", nil, `{"name":"reader","role":"none","grants":[{"role":"read","scope":"vpool:ours"}]}`), "secret"))
	narrow.must("GetVDisk", vals("vdisk", "one"), "")
	for _, c := range []struct {
		op, values, body string
		status           int
		text             string
	}{
		{"CommitVDisk", "vdisk=one", "", 403, "role write on vpool ours, you have role read there"},
		{"ListUsers", "", "", 403, "roles on 1 objects alone"},
		{"GetVDisk", "vdisk=hushpool/hushdisk", "", 404, "no such vDisk"},
	} {
		op := s.ops[c.op]
		k, v, _ := strings.Cut(c.values, "=")
		if a := s.do(request{method: op.method, path: fill(op.path, vals(k, v)), header: bearer(narrow.token)}); a.status != c.status || !strings.Contains(string(a.body), c.text) {
			t.Errorf("%s: %d %s", c.op, a.status, a.body)
		}
	}
	s.must("UpdateUser", vals("user", "olga"), `{"grants":[{"role":"read","scope":"vpool:ours"}]}`)
	op := s.ops["CommitVDisk"]
	if a := s.do(request{method: op.method, path: fill(op.path, vals("vdisk", "one")), header: bearer(olga.token)}); a.status != 403 {
		t.Errorf("after the grant was lowered: %d %s", a.status, a.body)
	}
}

// TestRightsAudited: the audit log has what somebody was allowed before a change, and after it.
func TestRightsAudited(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.member()
	s.must("CreateGroup", nil, `{"name":"ops","role":"read"}`)
	s.must("UpdateGroup", vals("group", "ops"), `{"role":"write","grants":[{"role":"manage","scope":"vpool:ours"}]}`)
	s.must("AddGroupMember", vals("group", "ops", "user", "olga"), "")
	s.must("UpdateUser", vals("user", "olga"), `{"grants":[]}`)
	for op, want := range map[string][]string{
		"UpdateGroup":    {`"object":"group ops"`, `"before":"read"`, `"after":"write"`, `vpool:ours`},
		"AddGroupMember": {`"object":"group ops user olga"`},
		"UpdateUser":     {`"object":"user olga"`, `"field":"grants"`, `manage`},
	} {
		a := s.must("ListAudit", vals("?operation", op), "")
		for _, text := range want {
			if !strings.Contains(string(a.body), text) {
				t.Errorf("%s: no %s in %s", op, text, a.body)
			}
		}
	}
}

// stream returns what the node streams to a caller, event by event.
func (s *served) stream() <-chan string {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	s.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", s.url+"/events", http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header = bearer(s.token)
	client := &http.Client{Transport: s.clients[1].Transport} // a stream has no end
	res, err := client.Do(r)
	if err != nil || res.StatusCode != 200 {
		s.t.Fatalf("stream: %v %v", res, err)
	}
	out := make(chan string, 4096)
	go func() {
		defer close(out)
		defer res.Body.Close()
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			select {
			case out <- lines.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// TestNoRights: a user who is given nothing reaches what is its own, and nothing else.
func TestNoRights(t *testing.T) {
	t.Parallel()
	s := serve(t)
	s.must("CreateUser", nil, `{"name":"nemo","role":"read","password":"correct horse"}`)
	nemo := s.newToken("nemo", "read")
	s.must("UpdateUser", vals("user", "nemo"), `{"role":"none"}`)
	own := map[string]int{"SignOut": 204, "GetUser": 403, "UpdateUser": 400, "ListTokens": 200, "CreateToken": 400, "DeleteToken": 204, "ListClients": 200, "CreateClient": 400, "DeleteClient": 204, "RenewClientSecret": 404}
	for _, id := range slices.Sorted(maps.Keys(s.ops)) {
		op := s.ops[id]
		if _, open, _ := api.RuleOf(id); open {
			continue
		}
		want, known := own[id]
		if !known {
			want = 403
		}
		r := request{method: op.method, path: fill(op.path, vals("osd", "1")), query: "offset=0", header: bearer(nemo)}
		if op.doc.RequestBody != nil {
			r.body = []byte("{")
		}
		if a := s.do(r); a.status != want {
			t.Errorf("%s: %d %s, want %d", id, a.status, a.body, want)
		}
	}
	// It changes its own password all the same.
	op := s.ops["UpdateUser"]
	if a := s.do(request{method: op.method, path: fill(op.path, vals("user", "nemo")), header: bearer(nemo), body: []byte(`{"password":"another one","currentPassword":"correct horse"}`)}); a.status != 200 {
		t.Errorf("its own password: %d %s", a.status, a.body)
	}
}
