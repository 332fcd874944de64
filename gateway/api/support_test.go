package api_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
)

// bundle unpacks a support bundle; all of it is in one folder.
func unpack(t *testing.T, b []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, folder := map[string]string{}, ""
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		first, name, _ := strings.Cut(h.Name, "/")
		if folder == "" {
			folder = first
		}
		if first != folder || path.Clean(h.Name) != h.Name || h.Mode != 0o600 {
			t.Errorf("%s, mode %o", h.Name, h.Mode)
		}
		c, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := out[name]; twice {
			t.Errorf("%s is there twice", name)
		}
		out[name] = string(c)
	}
}

// A support bundle has the state of a node, whole lists too, and none of its secrets.
func TestSupportBundle(t *testing.T) {
	t.Parallel()
	s := serve(t)
	dir := t.TempDir()
	secrets := map[string]string{"setup token": s.file("setup.token"), "node's token": s.token, "sealing key": s.file("seal.key"), "authority's key": s.file("tls/ca-key.pem")}
	s.must("CompleteSetup", nil, fmt.Sprintf(`{"token":%q,"user":"anna","password":"correct horse"}`, secrets["setup token"]))
	secrets["user's password"] = "correct horse"
	s.must("CreateVPool", nil, fmt.Sprintf(`{"name":"silver","encrypt":true,"backend":{"kind":"local","path":%q,"preset":"","store":""}}`, dir))
	s.must("CreateVDisk", nil, `{"name":"one","vpool":"silver","size":1048576}`)
	read := func(a answer, v any) {
		t.Helper()
		if err := json.Unmarshal(a.body, v); err != nil {
			t.Fatal(err)
		}
	}
	var key struct{ Key string }
	read(s.must("GetVPoolKey", map[string]string{"vpool": "silver"}, ""), &key)
	secrets["vPool's key"] = key.Key
	var chap struct{ ChapSecret string }
	read(s.must("PublishVDisk", map[string]string{"vdisk": "one"}, `{"initiators":["iqn.2004-10.com.ubuntu:01:a"]}`), &chap)
	secrets["CHAP secret"] = chap.ChapSecret
	v, err := esxsim.Start(esxsim.Options{Hosts: 1, Password: "kept between us"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	s.must("CreateCenter", nil, fmt.Sprintf(`{"name":"prod","options":{"url":%q,"user":%q,"thumbprint":%q},"secret":%q}`, v.URL(), v.User(), v.Thumbprint(), v.Password()))
	secrets["vCenter's password"] = v.Password()
	s.must("CreateAlertChannel", nil, `{"name":"chat","kind":"webhook","secretUrl":"https://hooks.example/hunter2"}`)
	secrets["webhook's URL"] = "hunter2"
	for i := range 202 { // more than a page, and a second that is longer
		var made struct{ Secret string }
		read(s.must("CreateToken", nil, fmt.Sprintf(`{"name":"t%d","user":"anna","role":"read","expires":%q}`, i, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))), &made)
		secrets["token "+fmt.Sprint(i)] = made.Secret
	}

	a := s.must("GetSupportBundle", nil, "")
	if d := a.header.Get("Content-Disposition"); !strings.Contains(d, "ovgate-support-") || !strings.Contains(d, ".tar.gz") {
		t.Errorf("disposition %q", d)
	}
	files := unpack(t, a.body)
	for what, secret := range secrets {
		if len(secret) < 5 {
			t.Errorf("%s is %q", what, secret)
		}
		for name, content := range files {
			if strings.Contains(content, secret) {
				t.Errorf("%s has the %s", name, what)
			}
		}
	}
	for name, want := range map[string]string{
		"README.txt": "Support bundle", "config.yaml": "chunk_bytes: 1048576", "log.txt": "msg=ready", "goroutines.txt": "goroutine profile", "metrics.txt": "ovgate_vdisks",
		"machine/proc/meminfo": "MemTotal", "api/status.json": `"causes"`, "api/vpools.json": `"silver"`, "api/vdisks.json": `"one"`, "api/audit.json": "GetSupportBundle", "api/audit-2.json": "CreateVPool",
		"api/tokens.json": `"next"`, "api/tokens-2.json": `"items"`, "api/alerts/channels.json": `"chat"`,
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s lacks %q: %.300s", name, want, files[name])
		}
	}
	var second struct{ Items []any }
	if err := json.Unmarshal([]byte(files["api/tokens-2.json"]), &second); err != nil || len(second.Items) < 102 || files["api/tokens-3.json"] != "" {
		t.Errorf("the second page of tokens has %d of 102 or more, %v; the third is %q", len(second.Items), err, files["api/tokens-3.json"])
	}
	var about struct {
		MadeBy  string
		Missing map[string]string
	}
	if err := json.Unmarshal([]byte(files["about.json"]), &about); err != nil || about.MadeBy == "" {
		t.Errorf("about.json: %s, %v", files["about.json"], err)
	}
	for name, why := range about.Missing {
		if !strings.HasPrefix(name, "machine/") && name != "api/cluster/tokens.json" && name != "api/openstack/orphans.json" { // this node has no such thing
			t.Errorf("%s is missing: %s", name, why)
		}
	}
	for name := range files {
		if slices.Contains([]string{"api/session.json", "api/events.json", "api/setup.json"}, name) {
			t.Errorf("%s is there", name)
		}
	}
	var log struct {
		Items []struct{ Operation, Object string }
	}
	read(s.must("ListAudit", nil, ""), &log)
	if len(log.Items) == 0 || log.Items[0].Operation != "GetSupportBundle" {
		t.Errorf("the audit log ends with %v", log.Items)
	}
}
