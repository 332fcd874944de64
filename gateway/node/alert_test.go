package node

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/alert"
	"github.com/openvstorage/ovgate/gateway/observe/event"
)

// TestAlerts: what is wrong with a node reaches a webhook; a channel that does not work is a
// cause of its own; what was set stays.
func TestAlerts(t *testing.T) {
	t.Parallel()
	got := make(chan alert.Message, 10)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m alert.Message
		if r.URL.Path != "/hook/s3cr3t" || json.NewDecoder(r.Body).Decode(&m) != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		got <- m
	}))
	defer hook.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw}))
	bad := filepath.Join(t.TempDir(), "file")
	write(t, bad, "no directory")
	f := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, f, fmt.Sprintf("read_cache: [{dir: %s, bytes: 67108864}]\n", bad))
	r := start(t, Options{Data: t.TempDir(), Config: f})
	type m = map[string]any
	r.call("PUT", "/alerts/rules/cache", m{"codes": []string{"read_*"}, "afterMs": 0}, 200)
	c := r.call("POST", "/alerts/channels", m{"name": "chat", "kind": "webhook", "secretUrl": hook.URL + "/hook/s3cr3t", "ca": ca}, 201)
	if c["hasSecret"] != true || strings.Contains(fmt.Sprint(c), "s3cr3t") {
		t.Errorf("%v", c)
	}
	r.call("POST", "/alerts/channels/chat/test", nil, 204)
	receive := func() alert.Message {
		t.Helper()
		select {
		case m := <-got:
			return m
		case <-time.After(patience):
			t.Fatal("nothing is told")
		}
		return alert.Message{}
	}
	if m := receive(); !strings.Contains(m.Subject, "test of channel chat") {
		// The alert may come first.
		if m2 := receive(); !strings.Contains(m2.Subject, "test of channel chat") {
			t.Errorf("%+v %+v", m, m2)
		}
	} else if m := receive(); len(m.Items) != 1 || m.Items[0].Code != "read_cache" || m.Items[0].State != "warning" || !strings.HasPrefix(m.Items[0].Object, "node ") {
		t.Errorf("%+v", m)
	}
	alerts := fmt.Sprint(r.call("GET", "/alerts", nil, 200)["items"])
	if !strings.Contains(alerts, "code:read_cache") || !strings.Contains(alerts, "state:firing") || !strings.Contains(alerts, "rule:cache") {
		t.Errorf("%s", alerts)
	}
	r.call("POST", "/alerts/channels", m{"name": "dead", "kind": "webhook", "secretUrl": hook.URL + "/other-s3cr3t", "ca": ca}, 201)
	e := r.call("POST", "/alerts/channels/dead/test", nil, 503)
	if !strings.Contains(e["message"].(string), "404") || strings.Contains(fmt.Sprint(e), "s3cr3t") {
		t.Errorf("%v", e)
	}
	limit := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(fmt.Sprint(r.call("GET", "/status", nil, 200)["health"]), "alert channel dead") {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("that a channel does not work is no cause of health")
		}
	}
	r.tells(event.AlertSent, event.AlertFailed)
	if all := fmt.Sprint(r.happened("")); strings.Contains(all, "s3cr3t") {
		t.Error("the events have a secret")
	}
	r.call("POST", "/alerts/silences", m{"object": "node *", "untilAt": time.Now().Add(time.Hour).UTC(), "why": "the cache is replaced"}, 201)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(r.log.String(), "s3cr3t") {
		t.Error("the log has a secret")
	}
	r = start(t, Options{Data: r.dir, Config: f})
	for path, want := range map[string]string{"/alerts": "state:firing", "/alerts/rules": "name:cache", "/alerts/channels": "name:chat", "/alerts/silences": "the cache is replaced"} {
		if l := fmt.Sprint(r.call("GET", path, nil, 200)["items"]); !strings.Contains(l, want) || strings.Contains(l, "s3cr3t") {
			t.Errorf("%s after a restart: %s", path, l)
		}
	}
	for _, path := range []string{"/alerts/channels/chat", "/alerts/channels/none", "/alerts/rules/cache", "/alerts/rules/none", "/alerts/silences/none"} {
		r.call("DELETE", path, nil, 204)
	}
	if l := fmt.Sprint(r.call("GET", "/alerts/rules", nil, 200)["items"]); strings.Contains(l, "name:cache") || !strings.Contains(l, "name:warning") {
		t.Errorf("%s", l)
	}
}

// TestAlertsRefused: what cannot be is refused by field, and changes nothing.
func TestAlertsRefused(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	type m = map[string]any
	mail := func(change m) m {
		in := m{"name": "ops", "kind": "email", "host": "mail.example.org", "port": 587, "from": "o@example.org", "to": []string{"a@example.org"}}
		for k, v := range change {
			in[k] = v
		}
		return in
	}
	const channels, rules, silences = "/alerts/channels", "/alerts/rules/", "/alerts/silences"
	later := time.Now().Add(time.Hour).UTC()
	for _, c := range []struct {
		method, path string
		body         m
		field        string
	}{
		{"POST", channels, mail(m{"host": "a b"}), "host"},
		{"POST", channels, mail(m{"port": 0}), "port"},
		{"POST", channels, mail(m{"security": "ssl"}), "security"},
		{"POST", channels, mail(m{"security": "none", "user": "u", "secret": "p"}), "security"},
		{"POST", channels, mail(m{"user": "u"}), "user"},
		{"POST", channels, mail(m{"to": []string{}}), "to"},
		{"POST", channels, mail(m{"to": []string{"a@example.org\r\nBcc: b@example.org"}}), "to"},
		{"POST", channels, mail(m{"from": "nobody"}), "from"},
		{"POST", channels, mail(m{"ca": "none"}), "ca"},
		{"POST", channels, mail(m{"name": "a b"}), "name"},
		{"POST", channels, m{"name": "x", "kind": "pager"}, "kind"},
		{"POST", channels, m{"name": "x", "kind": "webhook", "secretUrl": "file:///etc/passwd"}, "secretUrl"},
		{"POST", channels, m{"name": "x", "kind": "webhook", "secretUrl": "https://h/", "format": "xml"}, "format"},
		{"PUT", rules + "mine", m{"afterMs": 1}, "codes"},
		{"PUT", rules + "mine", m{"codes": []string{"["}}, "codes"},
		{"PUT", rules + "error", m{"afterMs": -1}, "afterMs"},
		{"PUT", rules + "error", m{"remindMs": 1}, "remindMs"},
		{"PUT", rules + "error", m{"level": "bad"}, "level"},
		{"POST", silences, m{"untilAt": later, "why": "x"}, "code"},
		{"POST", silences, m{"code": "[", "untilAt": later, "why": "x"}, "code"},
		{"POST", silences, m{"code": "*", "untilAt": "2001-01-01T00:00:00Z", "why": "x"}, "untilAt"},
		{"POST", silences, m{"code": "*", "untilAt": later, "why": " "}, "why"},
	} {
		e := r.call(c.method, c.path, c.body, 400)
		if f, _ := e["field"].(string); f != c.field || e["hint"] == nil {
			t.Errorf("%s %s %v: %v", c.method, c.path, c.body, e)
		}
	}
	for _, path := range []string{channels, silences} {
		if l := r.call("GET", path, nil, 200)["items"].([]any); len(l) != 0 {
			t.Errorf("%s: %v", path, l)
		}
	}
	if l := fmt.Sprint(r.call("GET", "/alerts/rules", nil, 200)["items"]); strings.Contains(l, "mine") || strings.Count(l, "name:") != len(alert.Defaults()) {
		t.Errorf("%s", l)
	}
}

// TestThresholdsOfNode: thresholds are kept, refused with what is known, and followed by what
// vDisks do; one whose object is gone is over.
func TestThresholdsOfNode(t *testing.T) {
	type m = map[string]any
	sh := &shift{}
	dir := t.TempDir()
	s := sick{start(t, Options{Data: dir, shift: sh}), sh}
	s.pool("gold", t.TempDir())
	s.refused("PUT", "/alerts/thresholds/x", m{"metric": "vdisk.nothing", "value": 1}, 400, "invalid", "vdisk.write_latency_p99")
	s.refused("PUT", "/alerts/thresholds/x", m{"metric": "vdisk.iops"}, 400, "invalid", "a new threshold needs both")
	s.refused("PUT", "/alerts/thresholds/x", m{"metric": "vdisk.iops", "value": 1, "object": "vpool gold"}, 400, "invalid", "'vdisk NAME'")
	s.refused("PUT", "/alerts/thresholds/x", m{"metric": "vdisk.iops", "value": 1, "clear": 2}, 400, "invalid", "the value itself, or less")
	s.refused("PUT", "/alerts/thresholds/x", m{"metric": "vpool.space_used", "value": 101}, 400, "invalid", "0 to 100 percent")
	s.refused("PUT", "/alerts/thresholds/x", m{"metric": "vdisk.iops", "value": 1, "object": "vdisk ["}, 400, "invalid", "pattern")
	for i := range 64 {
		s.call("PUT", fmt.Sprintf("/alerts/thresholds/t%d", i), m{"metric": "vdisk.iops", "value": 1, "off": true}, 200)
	}
	s.refused("PUT", "/alerts/thresholds/x", m{"metric": "vdisk.iops", "value": 1}, 400, "invalid", "64 thresholds already")
	for i := range 64 {
		s.call("DELETE", fmt.Sprintf("/alerts/thresholds/t%d", i), nil, 204)
	}
	s.call("PUT", "/alerts/thresholds/wrote", m{"metric": "vdisk.write_latency_p99", "value": 0, "forMs": 0, "object": "vdisk o*", "level": "error"}, 200)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s.running = start(t, Options{Data: dir, shift: sh})
	if kept := s.call("GET", "/alerts/thresholds?q=wrote", nil, 200)["items"].([]any); len(kept) != 1 || kept[0].(m)["object"] != "vdisk o*" {
		t.Fatalf("kept is %v", kept)
	}
	wrote := fault{code: "threshold", object: "threshold wrote", says: "vdisk one ("}
	for _, name := range []string{"one", "two"} {
		s.disk(name, "gold", 1<<20)
	}
	one, two := s.login("one"), s.login("two")
	var c m
	s.until("told", func() bool {
		if err := errors.Join(one.WriteAt(t.Context(), 0, make([]byte, 4096), 0), two.WriteAt(t.Context(), 0, make([]byte, 4096), 0)); err != nil {
			t.Fatal(err)
		}
		c = s.cause(wrote)
		return c != nil
	})
	if c["state"] != "error" || strings.Contains(c["text"].(string), "two") || !strings.HasPrefix(c["text"].(string), "Latency of writes (p99) above 0s: ") {
		t.Errorf("told %v", c)
	}
	s.call("POST", "/vdisks/one/unpublish", m{"force": true}, 204)
	s.call("DELETE", "/vdisks/one?purge=true", nil, 204)
	s.until("over", func() bool { return s.cause(wrote) == nil })
}
