package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRefused: what cannot be is refused with code, field, object and a remedy,
// and changes nothing.
func TestRefused(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	far := t.TempDir()
	r.pool("gold", far)
	r.disk("small", "gold", 1<<20)
	r.disk("big", "gold", 1<<30)
	r.call("POST", "/vdisks/small/publish", nil, 200)
	type m = map[string]any
	local := func(path string) m { return m{"kind": "local", "path": path} }
	r.call("POST", "/users", m{"name": "bert", "password": "correct horse", "role": "read"}, 201)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(r.dir, link); err != nil {
		t.Fatal(err)
	}
	before := r.everything()
	for _, c := range []struct {
		name, method, path string
		body               m
		status             int
		code, field        string
		object             string
	}{
		{"shrink", "PATCH", "/vdisks/big", m{"size": 1 << 20}, 400, "shrink", "size", "vdisk big"},
		{"grow to zero", "PATCH", "/vdisks/big", m{"size": 0}, 400, "invalid", "size", "vdisk big"},
		{"grow unaligned", "PATCH", "/vdisks/big", m{"size": 1<<30 + 1}, 400, "invalid", "size", "vdisk big"},
		{"size 0", "POST", "/vdisks", m{"name": "x", "vpool": "gold", "size": 0}, 400, "invalid", "size", "vdisk x"},
		{"size negative", "POST", "/vdisks", m{"name": "x", "vpool": "gold", "size": -4096}, 400, "invalid", "size", "vdisk x"},
		{"size unaligned", "POST", "/vdisks", m{"name": "x", "vpool": "gold", "size": 5000}, 400, "invalid", "size", "vdisk x"},
		{"above 64 TiB", "POST", "/vdisks", m{"name": "x", "vpool": "gold", "size": int64(64<<40 + 4096)}, 400, "invalid", "size", "vdisk x"},
		{"cluster size", "POST", "/vdisks", m{"name": "x", "vpool": "gold", "size": 1 << 20, "clusterSize": 5000}, 400, "invalid", "clusterSize", "vdisk x"},
		{"bad name", "POST", "/vdisks", m{"name": "a b", "vpool": "gold", "size": 1 << 20}, 400, "invalid", "name", "vdisk a b"},
		{"empty name", "POST", "/vdisks", m{"name": "", "vpool": "gold", "size": 1 << 20}, 400, "invalid", "name", "vdisk"},
		{"long name", "POST", "/vdisks", m{"name": strings.Repeat("n", 65), "vpool": "gold", "size": 1 << 20}, 400, "invalid", "name", "vdisk n"},
		{"name like an id", "POST", "/vdisks", m{"name": "01234567-89ab-4def-8123-456789abcdef", "vpool": "gold", "size": 1 << 20}, 400, "invalid", "name", "vdisk 0"},
		{"duplicate name", "POST", "/vdisks", m{"name": "big", "vpool": "gold", "size": 1 << 20}, 409, "exists", "name", "vdisk big"},
		{"rename to a duplicate", "PATCH", "/vdisks/big", m{"name": "small"}, 409, "exists", "name", "vdisk small"},
		{"unknown vPool", "POST", "/vdisks", m{"name": "x", "vpool": "tin", "size": 1 << 20}, 404, "not_found", "vpool", "vpool tin"},
		{"too many labels", "POST", "/vdisks", m{"name": "x", "vpool": "gold", "size": 1 << 20, "labels": m{strings.Repeat("l", 64): "v"}}, 400, "invalid", "labels", "vdisk x"},
		{"delete while published", "DELETE", "/vdisks/small", nil, 409, "in_use", "", "vdisk small"},
		{"vPool with vDisks", "DELETE", "/vpools/gold", nil, 409, "in_use", "", "vpool gold"},
		{"vPool name taken", "POST", "/vpools", m{"name": "gold", "backend": local(t.TempDir())}, 409, "exists", "name", "vpool gold"},
		{"vPool bad name", "POST", "/vpools", m{"name": "-", "backend": local(t.TempDir())}, 400, "invalid", "name", "vpool -"},
		{"backend taken", "POST", "/vpools", m{"name": "tin", "backend": local(far)}, 409, "in_use", "backend.path", "vpool tin"},
		{"backend inside another", "POST", "/vpools", m{"name": "tin", "backend": local(far + "/sub")}, 409, "in_use", "backend.path", "vpool tin"},
		{"backend relative", "POST", "/vpools", m{"name": "tin", "backend": local("sub")}, 400, "invalid", "backend.path", "vpool tin"},
		{"backend in the data directory", "POST", "/vpools", m{"name": "tin", "backend": local(filepath.Join(r.dir, "local"))}, 400, "invalid", "backend.path", "vpool tin"},
		{"backend around the data directory", "POST", "/vpools", m{"name": "tin", "backend": local(filepath.Dir(r.dir))}, 400, "invalid", "backend.path", "vpool tin"},
		{"backend by a link in the data directory", "POST", "/vpools", m{"name": "tin", "backend": local(filepath.Join(link, "tls", "sub"))}, 400, "invalid", "backend.path", "vpool tin"},
		{"backend with dots", "POST", "/vpools", m{"name": "tin", "backend": local(r.dir + "/backend/../local")}, 400, "invalid", "backend.path", "vpool tin"},
		{"short password", "POST", "/users", m{"name": "anna", "password": "short", "role": "read"}, 400, "invalid", "password", "user anna"},
		{"bad user name", "POST", "/users", m{"name": "an na", "password": "correct horse", "role": "read"}, 400, "invalid", "name", "user an na"},
		{"bad role", "POST", "/users", m{"name": "anna", "password": "correct horse", "role": "king"}, 400, "invalid", "role", "user anna"},
		{"duplicate user", "POST", "/users", m{"name": "bert", "password": "correct horse", "role": "read"}, 409, "exists", "name", "user bert"},
		{"unknown user", "PATCH", "/users/nobody", m{"password": "correct horse"}, 404, "not_found", "", "user nobody"},
		{"token above its user", "POST", "/tokens", m{"name": "ci", "user": "bert", "role": "manage"}, 400, "invalid", "role", "user bert"},
		{"bad token name", "POST", "/tokens", m{"name": "c i", "user": "bert", "role": "read"}, 400, "invalid", "name", "token c i"},
		{"token that has ended", "POST", "/tokens", m{"name": "ci", "user": "bert", "role": "read", "expires": "2001-01-01T00:00:00Z"}, 400, "invalid", "expires", "token ci"},
		{"token of nobody", "POST", "/tokens", m{"name": "ci", "user": "nobody", "role": "read"}, 404, "not_found", "user", "user nobody"},
		{"backend with a NUL", "POST", "/vpools", m{"name": "tin", "backend": local("/none\x00")}, 400, "invalid", "backend.path", "vpool tin"},
		{"backend kind", "POST", "/vpools", m{"name": "tin", "backend": m{"kind": "tape", "path": "/x"}}, 400, "invalid", "backend.kind", "vpool tin"},
		{"SCO above a quarter", "POST", "/vpools", m{"name": "tin", "backend": local(t.TempDir()), "settings": m{"scoSize": 64 << 20, "journalQuota": 128 << 20}}, 400, "invalid", "settings.scoSize", "vpool tin"},
		{"commit interval", "PATCH", "/vpools/gold", m{"settings": m{"commitIntervalMs": 1}}, 400, "invalid", "settings.commitIntervalMs", "vpool gold"},
		{"stall timeout", "PATCH", "/vpools/gold", m{"settings": m{"stallTimeoutMs": int64(1) << 62}}, 400, "invalid", "settings.stallTimeoutMs", "vpool gold"},
		{"recover nothing", "POST", "/vpools/recover", m{"name": "tin", "backend": local(t.TempDir())}, 404, "not_found", "backend.path", "vpool tin"},
		{"bad initiator", "POST", "/vdisks/small/publish", m{"initiators": []string{"host1"}}, 400, "invalid", "initiators", "vdisk small"},
		{"unknown vDisk", "GET", "/vdisks/none", nil, 404, "not_found", "", "vdisk none"},
		{"publish unknown", "POST", "/vdisks/none/publish", m{}, 404, "not_found", "", "vdisk none"},
		{"unknown target", "GET", "/targets/iqn.2026-11.io.ovgate:none", nil, 404, "not_found", "", "target iqn"},
		{"bad cursor", "GET", "/vdisks?cursor=zz", nil, 400, "invalid", "cursor", ""},
		{"bad limit", "GET", "/vdisks?limit=0", nil, 400, "invalid", "limit", ""},
		{"bad sort", "GET", "/vdisks?sort=colour", nil, 400, "invalid", "sort", ""},
		{"unknown field", "POST", "/vdisks", m{"name": "x", "colour": "red"}, 400, "invalid", "colour", ""},
		{"unknown path", "GET", "/nothing", nil, 404, "not_found", "", ""},
		{"wrong method", "PUT", "/vdisks", m{}, 405, "invalid", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var body any
			if c.body != nil {
				body = c.body
			}
			r := *r
			r.t = t
			e := r.call(c.method, c.path, body, c.status)
			text := func(k string) string { s, _ := e[k].(string); return s }
			if text("code") != c.code || text("field") != c.field || !strings.HasPrefix(text("object"), c.object) {
				t.Errorf("answer %v, want code %q field %q object %q", e, c.code, c.field, c.object)
			}
			if text("message") == "" || text("requestId") == "" || c.object != "" && text("hint") == "" {
				t.Errorf("answer %v lacks message, hint or requestId", e)
			}
			if after := r.everything(); after != before {
				t.Errorf("something changed:\n%s\n%s", before, after)
			}
		})
	}
}

// everything is the state that a refusal must not change.
func (r *running) everything() string {
	var out []any
	for _, path := range []string{"/vpools", "/vdisks", "/targets", "/users", "/tokens"} {
		items := r.call("GET", path, nil, 200)["items"].([]any)
		for _, i := range items {
			m := i.(map[string]any)
			for _, volatile := range []string{"observedAt", "performance", "free", "total", "lastCommit", "committedSeq", "lastSeq", "journal", "stored"} {
				delete(m, volatile)
			}
		}
		out = append(out, items)
	}
	b, err := json.Marshal(out)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}
