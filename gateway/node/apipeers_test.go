package node

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// answer asks for something and returns status, the name of the node that answered in place
// of this one, and the answer.
func (r *running) answer(method, path, key string, body any) (int, string, map[string]any) {
	r.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	if body == nil {
		b = nil
	}
	req, err := http.NewRequest(method, r.url+"/api/v1"+path, bytes.NewReader(b))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.read("admin.token"))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	out := map[string]any{}
	if res.StatusCode != http.StatusNoContent {
		if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
			r.t.Fatal(err)
		}
	}
	return res.StatusCode, res.Header.Get("Ovgate-Node"), out
}

// raw asks for something that is no JSON, and returns who answered.
func (r *running) raw(method, path string, body []byte) (int, string, []byte) {
	r.t.Helper()
	status, h, b := r.whole(method, path, body)
	return status, h.Get("Ovgate-Node"), b
}

// whole asks for something that is no JSON, and returns the header of the answer, too.
func (r *running) whole(method, path string, body []byte) (int, http.Header, []byte) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.read("admin.token"))
	if body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	res, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, res.Header, b
}

// TestPassedOn: a node lets the node that serves it answer what is asked about a vDisk or a
// vPool, as the caller that it knows; without that node it tells what it knows.
func TestPassedOn(t *testing.T) {
	t.Parallel()
	e := newEast(t)
	one, two := e.first, e.join("beta")
	one.until("both", one.hears("alpha alive up", "beta alive up"))
	two.until("both", two.hears("alpha alive up", "beta alive up"))
	one.pool("near", filepath.Join(one.dir, "backend", "near"))
	two.until("near is known", func() bool { return two.poolState("near") != "" })

	ask := func(want int, by, method, path, key string, body any) map[string]any {
		t.Helper()
		status, node, out := two.answer(method, path, key, body)
		if status != want || node != by {
			t.Fatalf("%s %s: %d by %q, want %d by %q: %v", method, path, status, node, want, by, out)
		}
		return out
	}
	disk := map[string]any{"name": "a", "vpool": "near", "size": 1 << 30}
	made := ask(201, "alpha", "POST", "/vdisks", "once", disk)
	if made["node"] != "alpha" || made["state"] != "running" {
		t.Errorf("made %v", made)
	}
	// The answer is remembered by all.
	two.until("the answer is known here", func() bool {
		status, node, out := two.answer("POST", "/vdisks", "once", disk)
		return status == 201 && node == "" && out["id"] == made["id"]
	})
	if got := ask(200, "alpha", "GET", "/vdisks/a", "", nil); got["state"] != "running" {
		t.Errorf("a is %v", got["state"])
	}
	ask(201, "alpha", "POST", "/vdisks/a/snapshots", "", map[string]any{"name": "s"})
	if l := ask(200, "alpha", "GET", "/vdisks/a/snapshots", "", nil)["items"].([]any); len(l) != 1 {
		t.Errorf("%d snapshots", len(l))
	}
	// Who has rights on that vPool alone has them at both nodes, and on no other.
	one.pool("far", filepath.Join(one.dir, "backend", "far"))
	one.call("POST", "/users", map[string]any{"name": "olga", "role": "none", "password": "correct horse", "grants": []any{map[string]any{"role": "write", "scope": "vpool:near"}}}, 201)
	olga := two.bearer(one.call("POST", "/tokens", map[string]any{"name": "olga", "user": "olga", "role": "none", "grants": []any{map[string]any{"role": "write", "scope": "vpool:near"}}}, 201)["secret"].(string))
	two.until("both vPools and the user are known", func() bool {
		status, _, _ := olga.do("GET", "/api/v1/vdisks/a", "")
		return two.poolState("far") != "" && status == 200
	})
	olga.expect("POST", "/api/v1/vdisks/a/snapshots", `{"name":"hers"}`, 201, "")
	olga.expect("DELETE", "/api/v1/vdisks/a/snapshots/hers", "", 204, "")
	olga.expect("POST", "/api/v1/vdisks", `{"name":"x","vpool":"far","size":1048576}`, 404, "not_found")
	olga.expect("GET", "/api/v1/vpools/far", "", 404, "not_found")
	olga.expect("DELETE", "/api/v1/vpools/near", "", 403, "forbidden")
	one.call("DELETE", "/vpools/far", nil, 204)
	two.until("far is gone", func() bool { return two.poolState("far") == "" && one.poolState("far") == "" })
	// What is read of it and written to it goes through where it is, too.
	out := ask(201, "alpha", "POST", "/vdisks/a/exports", "", map[string]any{"snapshot": "s"})["id"].(string)
	if status, by, b := two.raw("GET", "/exports/"+out+"/data?offset=0&length=4096", nil); status != 200 || by != "alpha" || len(b) != 4096 {
		t.Errorf("read: %d by %q, %d bytes", status, by, len(b))
	}
	ask(200, "alpha", "GET", "/exports/"+out+"/extents?offset=0", "", nil)
	if status, by, _ := two.raw("DELETE", "/exports/"+out, nil); status != 204 || by != "alpha" {
		t.Errorf("ended: %d by %q", status, by)
	}
	in := ask(201, "alpha", "POST", "/imports", "", map[string]any{"name": "i", "vpool": "near", "size": 1 << 30, "node": "alpha"})["id"].(string)
	if status, by, b := two.raw("PUT", "/imports/"+in+"/data?offset=0", bytes.Repeat([]byte{7}, 4096)); status != 204 || by != "alpha" {
		t.Errorf("written: %d by %q: %s", status, by, b)
	}
	ask(200, "alpha", "POST", "/imports/"+in+"/finish", "", nil)
	two.until("the import is known here", func() bool {
		status, by, got := two.answer("GET", "/vdisks/i", "", nil)
		return status == 200 && by == "alpha" && got["state"] == "running"
	})
	// What it did is told by the node that it is at, of a vPool by the node that is named.
	for path, by := range map[string]string{
		"/vdisks/a/performance?points=10": "alpha", "/nodes/alpha/performance": "alpha", "/nodes/beta/performance": "", "/vpools/near/performance?node=beta": "", "/vpools/near/performance?node=alpha": "alpha", "/vpools/near/performance": "alpha",
	} {
		two.until(path+" has points", func() bool { return len(ask(200, by, "GET", path, "", nil)["points"].([]any)) > 0 })
	}
	// Of its machine and its places, a node tells itself.
	machine := ask(200, "alpha", "GET", "/nodes/alpha/machine", "", nil)
	roles := map[string]string{}
	for _, p := range machine["places"].([]any) {
		place := p.(map[string]any)
		roles[place["path"].(string)] = fmt.Sprint(place["roles"])
		if place["problem"] != nil || place["total"].(float64) <= 0 {
			t.Errorf("place %v", place)
		}
	}
	if want := map[string]string{one.dir: "[db write]", filepath.Join(one.dir, "backend", "near"): "[backend]"}; !maps.Equal(roles, want) {
		t.Errorf("alpha has %v, want %v", roles, want)
	}
	if machine["kernel"] == "" || machine["memory"].(float64) <= 0 || len(machine["listeners"].([]any)) < 3 {
		t.Errorf("machine %v", machine)
	}
	// It looks at the other one, and tells of its own disks.
	var found []string
	for _, c := range ask(200, "alpha", "GET", "/nodes/alpha/check", "", nil)["checks"].([]any) {
		if c := c.(map[string]any); c["object"] == "node beta" {
			found = append(found, fmt.Sprint(c["code"], " ", c["state"]))
		}
	}
	if want := []string{"clock ok", "port ok", "port ok", "port ok", "port ok"}; !slices.Equal(found, want) {
		t.Errorf("alpha finds %v of beta, want %v", found, want)
	}
	if l := ask(200, "alpha", "GET", "/nodes/alpha/layout", "", nil); l["node"].(map[string]any)["name"] != "alpha" {
		t.Errorf("layout %v", l)
	}
	if l := ask(200, "", "GET", "/vdisks?node=beta", "", nil)["items"].([]any); len(l) != 0 {
		t.Errorf("beta serves %v", l)
	}
	if l := ask(200, "", "GET", "/vdisks?node=alpha", "", nil)["items"].([]any); len(l) == 0 {
		t.Error("alpha serves nothing")
	}
	two.until("the history of alpha has a", func() bool {
		return len(ask(200, "alpha", "GET", "/events/history?node=alpha&code=vdisk.created&q=vdisk+a", "", nil)["items"].([]any)) == 1
	})
	if l := ask(200, "", "GET", "/events/history?node=beta&code=vdisk.created", "", nil)["items"].([]any); len(l) != 0 {
		t.Errorf("beta has events of alpha: %v", l)
	}
	if status, by, b := two.raw("GET", "/events/export?node=alpha&object=vdisk+a", nil); status != 200 || by != "alpha" || !strings.Contains(string(b), `"code":"vdisk.created"`) || strings.Contains(string(b), "vdisk i") {
		t.Errorf("exported: %d by %q: %s", status, by, b)
	}
	ask(200, "alpha", "POST", "/vdisks/a/publish", "", map[string]any{})
	if e := ask(400, "alpha", "PATCH", "/vdisks/a", "", map[string]any{"size": 1}); e["code"] == nil || e["hint"] == nil {
		t.Errorf("a refusal: %v", e)
	}
	// Where it is to be, one may say.
	named := map[string]any{"name": "b", "vpool": "near", "size": 1 << 30, "node": "alpha"}
	if ask(201, "alpha", "POST", "/vdisks", "", named)["node"] != "alpha" {
		t.Error("b is elsewhere")
	}
	named["node"] = "omega"
	if e := ask(404, "", "POST", "/vdisks", "", named); e["object"] != "node omega" {
		t.Errorf("on a node that is none: %v", e)
	}
	// A caller may do there what it may do here.
	two.call("POST", "/users", map[string]any{"name": "anna", "password": "correct horse", "role": "read"}, 201)
	reader := two.call("POST", "/tokens", map[string]any{"name": "t", "user": "anna", "role": "read"}, 201)["secret"].(string)
	if status := two.as(reader, "/vdisks/a/snapshots"); status != 200 {
		t.Errorf("a reader lists snapshots: %d", status)
	}
	// Only nodes say who asks: what others claim counts for nothing, nor do they get to speak as
	// a node.
	req, err := http.NewRequest("GET", one.url+"/api/v1/vdisks", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Ovgate-Caller", `{"Name":"anna","User":"anna","Role":"manage"}`)
	if res, err := one.http.Do(req); err != nil || res.StatusCode != http.StatusUnauthorized {
		t.Errorf("a claim: %v, %v", res.StatusCode, err)
	} else if err := res.Body.Close(); err != nil {
		t.Error(err)
	}
	at, err := url.Parse(one.url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", at.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	secure := tls.Client(conn, &tls.Config{ServerName: peerName, InsecureSkipVerify: true})
	_, err = secure.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	if err == nil {
		_, err = secure.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a node without a certificate: %v", err)
	}
	// That node is away.
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	if got := ask(200, "", "GET", "/vdisks/a", "", nil); got["node"] != "alpha" {
		t.Errorf("without its node a is %v", got)
	}
	for _, path := range []string{"/nodes/alpha/performance", "/nodes/alpha/machine", "/nodes/alpha/check", "/nodes/alpha/layout"} {
		if e := ask(409, "", "GET", path, "", nil); e["code"] != "elsewhere" {
			t.Errorf("%s of a node that is away: %v", path, e)
		}
	}
	for _, path := range []string{"/events/history?node=alpha", "/events/export?node=alpha", "/audit?node=alpha"} {
		if e := ask(409, "", "GET", path, "", nil); e["code"] != "elsewhere" || e["object"] != "node alpha" {
			t.Errorf("%s, which is away: %v", path, e)
		}
	}
	if e := ask(503, "", "POST", "/vdisks/a/commit", "", nil); e["code"] != "elsewhere" || !strings.Contains(e["hint"].(string), "does not answer") {
		t.Errorf("without its node: %v", e)
	}
}
