package node

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/openvstorage/ovgate/gateway/api"
)

// entries returns the audit log, the oldest entry first.
func (r *running) entries(query string) []map[string]any {
	r.t.Helper()
	var out []map[string]any
	for cursor := ""; ; {
		l := r.call("GET", "/audit?limit=1000"+cursor+query, nil, 200)
		for _, i := range l["items"].([]any) {
			out = append(out, i.(map[string]any))
		}
		next, ok := l["next"].(string)
		if !ok {
			slices.Reverse(out)
			return out
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
}

func lines(entries []map[string]any) string {
	var b strings.Builder
	for _, e := range entries {
		var changes []string
		for _, c := range e["changes"].([]any) {
			c := c.(map[string]any)
			changes = append(changes, fmt.Sprintf("%v:%v->%v", c["field"], c["before"], c["after"]))
		}
		fmt.Fprintf(&b, "%v|%v|%v|%v|%v|%v|%v\n", e["operation"], e["object"], e["user"], e["role"], e["status"], e["code"], strings.Join(changes, " "))
	}
	return b.String()
}

// TestAudit: who changed what, and how it ended, is listed; also after a restart.
func TestAudit(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	type m = map[string]any
	r.pool("gold", t.TempDir())
	r.disk("demo", "gold", 1<<30)
	r.call("POST", "/users", m{"name": "anna", "password": "correct horse", "role": "manage"}, 201)
	r.call("POST", "/users", m{"name": "rita", "password": "correct horse", "role": "read"}, 201)
	anna := r.browser("anna", "correct horse")
	rita := r.browser("rita", "correct horse")
	for _, c := range []struct {
		who                as
		method, path, body string
		status             int
	}{
		{anna, "PUT", "/vdisks/demo/qos", `{"iops":500,"bytesPerSecond":0,"burstMs":0}`, 200},
		{anna, "PUT", "/vdisks/demo/qos", `{"iops":600,"bytesPerSecond":0,"burstMs":0}`, 200},
		{anna, "PATCH", "/vdisks/demo", `{"size":2147483648}`, 200},
		{anna, "PATCH", "/vdisks/demo", `{"size":4096}`, 400},
		{rita, "DELETE", "/vpools/gold", "", 403},
		{rita, "GET", "/audit", "", 403},
		{anna, "PATCH", "/users/rita", `{"role":"write"}`, 200},
		{anna, "PATCH", "/vpools/gold", `{"settings":{"commitIntervalMs":5000}}`, 200},
		{anna, "GET", "/vdisks", "", 200},
		{r.anonymous(), "GET", "/vdisks", "", 401},
		{r.anonymous(), "POST", "/session", `{"user":"anna","password":"wrong horse"}`, 401},
		{r.bearer("ovg_none"), "GET", "/vdisks", "", 401},
		{anna, "DELETE", "/vdisks/demo", "", 204},
	} {
		if status, body, _ := c.who.do(c.method, "/api/v1"+c.path, c.body); status != c.status {
			t.Fatalf("%s %s: %d, want %d: %v", c.method, c.path, status, c.status, body)
		}
	}
	want := `SignIn|user anna|||200||
SignIn|user rita|||200||
SetVDiskQos|vdisk demo|anna|manage|200||burstMs:<nil>->0 bytesPerSecond:<nil>->0 iops:<nil>->500
SetVDiskQos|vdisk demo|anna|manage|200||iops:500->600
UpdateVDisk|vdisk demo|anna|manage|200||size:1073741824->2147483648
UpdateVDisk|vdisk demo|anna|manage|400|shrink|size:2147483648->4096
DeleteVPool|vpool gold|rita|read|403|forbidden|
ListAudit||rita|read|403|forbidden|
UpdateUser|user rita|anna|manage|200||role:read->write
UpdateVPool|vpool gold|anna|manage|200||settings.commitIntervalMs:10000->5000
SignIn|user anna|||401|unauthorized|
ListVDisks||||401|unauthorized|
DeleteVDisk|vdisk demo|anna|manage|204||
`
	check := func(r *running) {
		t.Helper()
		got := lines(r.entries(""))
		at := strings.Index(got, "SignIn")
		if at < 0 || got[at:] != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if !strings.HasPrefix(got, "CreateVPool|vpool gold|") || !strings.Contains(got, "CreateUser|user anna|") || !strings.Contains(got, "password:<nil>->(secret)") {
			t.Errorf("it begins with\n%s", got[:max(at, 0)])
		}
		if got := lines(r.entries("&user=rita")); strings.Count(got, "\n") != 2 || strings.Contains(got, "anna") {
			t.Errorf("of rita:\n%s", got)
		}
	}
	check(r)
	for _, e := range r.entries("") {
		if e["address"] != "127.0.0.1" || e["requestId"] == "" || e["seq"].(float64) <= 0 {
			t.Errorf("%v", e)
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	check(start(t, Options{Data: r.dir}))
}

// TestAuditFlood: attempts of somebody unknown are bounded, and counted.
func TestAuditFlood(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	const many = 300
	for range many {
		if status, _, _ := r.bearer("ovg_none").do("DELETE", "/api/v1/vpools/x", ""); status != 401 {
			t.Fatal(status)
		}
	}
	total, n := 0, 0
	for _, e := range r.entries("") {
		total += 1 + int(e["count"].(float64))
		n++
	}
	if n < 100 || n > 250 || total > many {
		t.Errorf("%d entries for %d attempts of %d", n, total, many)
	}
}

// secretField finds the fields of requests that hold a secret. It is wider than what the
// audit log hides on purpose: a new field has to be put on one side or the other.
var secretField = regexp.MustCompile(`(?i)secret|passw|passphrase|token|key|credential|proxy|url`)

// TestAuditHidesSecrets: no secret of any operation's body gets into the audit log or into
// the log of the node.
func TestAuditHidesSecrets(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	doc, err := openapi3.NewLoader().LoadFromData(api.Spec())
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	fields := map[string]bool{}
	const marker = "hunter2hunter2"
	n := 0
	var fill func(name string, s *openapi3.Schema, depth int) any
	fill = func(name string, s *openapi3.Schema, depth int) any {
		switch {
		case depth > 8:
			return nil
		case s.Type.Is("object"):
			m := map[string]any{}
			for field, p := range s.Properties {
				m[field] = fill(field, p.Value, depth+1)
			}
			return m
		case s.Type.Is("array"):
			return []any{fill(name, s.Items.Value, depth+1)}
		case s.Type.Is("integer"), s.Type.Is("number"):
			return 4096
		case s.Type.Is("boolean"):
			return true
		case len(s.Enum) > 0:
			return s.Enum[0]
		}
		if name == "sseKey" || !secretField.MatchString(name) {
			return "plain"
		}
		fields[name] = true
		n++
		if regexp.MustCompile(`(?i)url|proxy`).MatchString(name) {
			return fmt.Sprintf("https://user:%s%d@127.0.0.1:1/x?key=%s%d", marker, n, marker, n)
		}
		return fmt.Sprintf("%s%d", marker, n)
	}
	end := map[string]bool{"LeaveCluster": true, "InitCluster": true} // they end this node
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if op.RequestBody == nil || end[op.OperationID] {
				continue
			}
			content := op.RequestBody.Value.Content.Get("application/json")
			if content == nil {
				continue
			}
			body := fill("", content.Schema.Value, 0)
			r.try(method, regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, "x"), body)
			asked[op.OperationID] = true
		}
	}
	for _, name := range []string{"password", "currentPassword", "secret", "token", "chapSecret", "mutualSecret", "key", "accessKey", "proxy", "url"} {
		if !fields[name] {
			t.Errorf("no operation has a field %s", name)
		}
	}
	got := r.entries("")
	logged := map[string]bool{}
	for _, e := range got {
		logged[e["operation"].(string)] = true
	}
	for op := range asked {
		if !logged[op] && op != "BeginOidc" { // which changes nothing here
			t.Errorf("%s is not in the log", op)
		}
	}
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{"the answer": string(b), "the node's log": r.log.String()}
	files, err := filepath.Glob(filepath.Join(r.dir, auditDir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		texts[f] = string(b)
	}
	for where, text := range texts {
		if i := strings.Index(text, marker); i >= 0 {
			t.Errorf("a secret is in %s: ...%s", where, text[max(0, i-200):min(len(text), i+40)])
		}
	}
	if !strings.Contains(string(b), "(secret)") {
		t.Error("nothing was hidden: the test asks for nothing")
	}
}
