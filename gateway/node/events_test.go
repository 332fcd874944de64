package node

import (
	"encoding/json"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/iscsi/initiator"
	"github.com/openvstorage/ovgate/volumedriver/backend/backendtest"
)

// happened returns the node's history of events, the newest first.
func (r *running) happened(query string) []event.Event {
	r.t.Helper()
	var out []event.Event
	_, name := r.node()
	for cursor := ""; ; {
		l := r.call("GET", "/events/history?limit=1000&node="+url.QueryEscape(name)+cursor+query, nil, 200)
		b, err := json.Marshal(l["items"])
		if err != nil {
			r.t.Fatal(err)
		}
		var page []event.Event
		if err := json.Unmarshal(b, &page); err != nil {
			r.t.Fatal(err)
		}
		out = append(out, page...)
		next, ok := l["next"].(string)
		if !ok {
			return out
		}
		cursor = "&cursor=" + url.QueryEscape(next)
	}
}

// tells waits until events of these codes happened.
func (r *running) tells(codes ...event.Code) {
	r.t.Helper()
	for _, c := range codes {
		r.until("told "+string(c), func() bool { return len(r.happened("&code="+string(c))) > 0 })
	}
}

// otherwise has the codes that TestHistoryOfEvents does not see, each with a test that does, as a path of
// the repository and what the test has.
var otherwise = map[event.Code][2]string{
	"alert.failed":           {"gateway/node/alert_test.go", "event.AlertFailed"},
	"alert.sent":             {"gateway/node/alert_test.go", "event.AlertSent"},
	"certificate.renewed":    {"gateway/node/certificates_test.go", "event.CertificateRenewed"},
	"schedule.failed":        {"gateway/control/scheduler_test.go", "event.ScheduleFailed"},
	"vdisk.verify_failed":    {"gateway/control/transfer_test.go", "event.VDiskVerifyFailed"},
	"vdisk.move_failed":      {"gateway/control/move_test.go", "event.VDiskMoveFailed"},
	"vdisk.journal_replaced": {"gateway/control/displaced_test.go", "event.VDiskJournalReplaced"},
	"events.lost":            {"gateway/observe/event/event_test.go", "EventsLost"},
	"scrub.done":             {"gateway/cmd/ovgate/testdata/serve/scrub.txt", "scrub.done"},
	"vdisk.lost_tail":        {"gateway/cmd/ovgate/testdata/serve/losttail.txt", "vdisk.lost_tail"},
	"vdisk.loss_accepted":    {"gateway/cmd/ovgate/testdata/serve/losttail.txt", "vdisk.loss_accepted"},
	// Of a cluster.
	"lease.back":        {"gateway/node/clusterloss_test.go", "event.LeaseBack"},
	"lease.lost":        {"gateway/node/clusterloss_test.go", "event.LeaseLost"},
	"registry.away":     {"gateway/node/registry_test.go", "event.RegistryAway"},
	"registry.back":     {"gateway/node/registry_test.go", "event.RegistryBack"},
	"node.alive":        {"gateway/node/join_test.go", "event.NodeAlive"},
	"node.away":         {"gateway/cluster/gossip_test.go", "Turned"},
	"node.joined":       {"gateway/node/join_test.go", "event.NodeJoined"},
	"node.left":         {"gateway/node/join_test.go", "event.NodeLeft"},
	"node.removed":      {"gateway/node/join_test.go", "event.NodeRemoved"},
	"node.drained":      {"gateway/node/clusterloss_test.go", "event.NodeDrained"},
	"node.undrained":    {"gateway/node/clusterloss_test.go", "event.NodeUndrained"},
	"vdisk.handed_over": {"gateway/node/clusterloss_test.go", "event.VDiskHandedOver"},
	"vdisk.stolen":      {"gateway/node/clusterloss_test.go", "event.VDiskStolen"},
	"vdisk.taken_over":  {"gateway/node/clusterloss_test.go", "event.VDiskTakenOver"},
	"dtl.degraded":      {"gateway/node/dtl_test.go", "event.DTLDegraded"},
	"dtl.synced":        {"gateway/node/dtl_test.go", "event.DTLSynced"},
	// Of stores, clouds and vCenters.
	"backend.changed":    {"gateway/cmd/ovgate/testdata/remote/s3.txt", "backend.changed"},
	"backend.forgotten":  {"gateway/cmd/ovgate/testdata/remote/s3.txt", "backend.forgotten"},
	"backend.registered": {"gateway/cmd/ovgate/testdata/remote/s3.txt", "backend.registered"},
	"center.changed":     {"gateway/api/tour_test.go", "center.changed"},
	"center.forgotten":   {"gateway/api/tour_test.go", "center.forgotten"},
	"center.registered":  {"gateway/api/tour_test.go", "center.registered"},
	"cloud.away":         {"gateway/control/cloud_test.go", "event.CloudAway"},
	"cloud.back":         {"gateway/control/cloud_test.go", "event.CloudBack"},
	"cloud.changed":      {"gateway/control/cloud_test.go", "event.CloudChanged"},
	"cloud.forgotten":    {"gateway/control/cloud_test.go", "event.CloudForgotten"},
	"cloud.registered":   {"gateway/control/cloud_test.go", "event.CloudRegistered"},
	// Of devices.
	"osd.claimed":       {"gateway/api/tour_test.go", "osd.claimed"},
	"store.key_rotated": {"gateway/api/tour_test.go", "store.key_rotated"},
	"osd.back":          {"alba/maintenance/maintenance_test.go", "osd.back"},
	"osd.damaged":       {"alba/maintenance/maintenance_test.go", "osd.damaged"},
	"osd.emptied":       {"alba/maintenance/maintenance_test.go", "osd.emptied"},
	"osd.failed":        {"alba/maintenance/maintenance_test.go", "osd.failed"},
	"osd.incomplete":    {"alba/maintenance/maintenance_test.go", "osd.incomplete"},
	"osd.emptying":      {"gateway/cmd/ovgate/testdata/serve/alba.txt", "osd.emptying"},
	"osd.purged":        {"gateway/cmd/ovgate/testdata/serve/alba.txt", "osd.purged"},
}

// unseen has the codes that no test sees, each with the reason.
var unseen = map[event.Code]string{
	"clock.jumped":          "takes a machine whose wall clock jumps against its monotonic one; health's cause clock is tested",
	"datastore.done":        "its hosts are initiators of the kernel; scripts/vsphere has the laboratory",
	"datastore.failed":      "as datastore.done",
	"datastore.removed":     "as datastore.done",
	"osd.unused":            "the node serves without a directory that it cannot claim, and health says so, which is tested",
	"scrub.failed":          "takes a store that fails in the middle of a scrub",
	"store.error":           "takes a registry that fails in the middle of maintenance",
	"store.object_lost":     "takes an object of which a write found too few fragments",
	"store.older":           "takes a registry brought back from an old copy beside newer devices",
	"store.recovered":       "takes a namespace whose records are lost; the recovery is tested in alba/maintenance",
	"vdisk.failed":          "a journal that fails on its only disk is tested in volumedriver",
	"vdisk.fenced":          "takes two openings of one vDisk, which is tested in volumedriver",
	"vdisk.handover_failed": "takes a store that refuses to commit during a hand-over",
	"vdisk.stalled":         "a full journal is tested in volumedriver",
}

// TestHistoryOfEvents: what happens to a node and its objects is in its history, with a sentence that has
// all its fields; and every code of the catalogue is seen here, or elsewhere.
func TestHistoryOfEvents(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	type m = map[string]any
	far, near := newAway(t), t.TempDir()
	r.pool("gold", far.dir)
	r.call("PATCH", "/vpools/gold", m{"settings": m{"commitIntervalMs": 100}}, 200)
	r.pool("silver", near)
	r.call("PATCH", "/vpools/silver", m{"name": "tin"}, 200)
	l := r.listen("?topics=event", "")
	r.disk("one", "gold", 1<<30)
	if e := l.until("event", `"code":"vdisk.created"`); !strings.Contains(e.data, `"object":"vdisk one"`) {
		t.Errorf("the stream has %s", e.data)
	}
	r.call("PATCH", "/vdisks/one", m{"size": 2 << 30}, 200)
	r.call("PATCH", "/vdisks/one", m{"name": "uno"}, 200)
	r.call("POST", "/vdisks/uno/snapshots", m{"name": "s"}, 201)
	r.call("POST", "/vdisks/uno/clone", m{"name": "child", "snapshot": "s"}, 201)
	r.call("POST", "/vdisks/child/flatten", nil, 202)
	r.tells(event.VDiskFlattened)
	r.call("POST", "/vdisks/uno/rollback", m{"snapshot": "s"}, 200)
	r.call("DELETE", "/vdisks/uno/snapshots/s", nil, 204)
	r.call("PUT", "/vdisks/child/template", nil, 200)
	r.call("DELETE", "/vdisks/child/template", nil, 204)
	r.call("DELETE", "/vdisks/child", nil, 204)
	r.call("POST", "/trash/child/restore", m{"name": "child"}, 200)
	r.call("POST", "/vdisks/child/move", m{"vpool": "tin"}, 202)
	r.tells(event.VDiskMoved)
	r.call("DELETE", "/vdisks/child?purge=true", nil, 204)
	in := r.call("POST", "/imports", m{"name": "in", "vpool": "gold", "size": 1 << 20}, 201)["id"].(string)
	r.call("POST", "/imports/"+in+"/finish", nil, 200)
	r.call("DELETE", "/vdisks/in?purge=true", nil, 204)
	iqn := r.call("POST", "/targets", m{"name": "shared"}, 201)["iqn"].(string)
	r.call("DELETE", "/targets/"+iqn, nil, 204)
	r.call("POST", "/users", m{"name": "anna", "password": "correct horse", "role": "read"}, 201)
	r.anonymous().expect("POST", "/api/v1/session", `{"user":"anna","password":"wrong horse"}`, 401, "unauthorized")
	// An empty vPool is forgotten, and comes back from its backend.
	lost := filepath.Join(t.TempDir(), "lost")
	r.pool("lost", lost)
	r.call("POST", "/vpools/recover", m{"name": "lost", "backend": m{"kind": "local", "path": lost}}, 200)
	r.call("DELETE", "/vpools/lost", nil, 204)

	s := r.login("uno")
	c := r.call("GET", "/vdisks/uno", nil, 200)["published"].(map[string]any)
	if _, err := initiator.Dial(t.Context(), initiator.Options{Address: r.portal(), Target: c["iqn"].(string), CHAPUser: "uno", CHAPSecret: "wrong wrong wrong"}); err == nil {
		t.Fatal("a wrong secret is taken")
	}
	r.tells(event.SessionOpened, event.SessionRefused)
	r.call("POST", "/vdisks/uno/verify", nil, 202)
	r.tells(event.VDiskVerified)

	// The backend goes away, and comes back.
	far.swap()
	if err := s.WriteAt(t.Context(), 0, backendtest.Data(1, 65536), 0); err != nil {
		t.Fatal(err)
	}
	r.tells(event.VDiskDegraded, event.HealthWarning, event.BackendAway)
	far.swap()
	r.tells(event.VDiskOnline, event.HealthCleared, event.BackendBack)
	r.call("POST", "/vdisks/uno/commit", nil, 200)
	undo := damage(t, far.dir)
	r.call("POST", "/vdisks/uno/verify", nil, 202)
	r.tells(event.VDiskDamaged, event.HealthError)
	undo()
	s.Close()
	r.tells(event.SessionClosed)
	r.until("uno is signed out", func() bool {
		status, _, _ := r.answer("POST", "/vdisks/uno/unpublish", "", nil)
		return status == 204
	})

	// A restart keeps everything.
	before := len(r.happened(""))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	far.swap()
	r = start(t, Options{Data: r.dir})
	r.tells(event.VPoolOffline, event.NodeStopping)
	if now := len(r.happened("")); now < before {
		t.Errorf("%d events after a restart, %d before", now, before)
	}
	far.swap()
	r.tells(event.VPoolOnline)

	r.walk(t)
	r.exported(t)
}

// walk checks that the history has every code that nobody else sees, with its sentence.
func (r *running) walk(t *testing.T) {
	t.Helper()
	seen := map[event.Code]bool{}
	for _, e := range r.happened("") {
		seen[e.Code] = true
		about, ok := event.Find(e.Code)
		if !ok || strings.ContainsAny(e.Text+e.Hint, "{}") || e.Text == "" || time.Since(e.Time) > time.Hour {
			t.Errorf("%+v", e)
		}
		if kind := about.Kind; kind != "" && !strings.HasPrefix(e.Object+" ", kind+" ") && e.Object != r.object() {
			t.Errorf("%s is of %q, not of a %s", e.Code, e.Object, kind)
		}
	}
	for _, a := range event.Catalogue() {
		where, listed := otherwise[a.Code]
		_, never := unseen[a.Code]
		switch {
		case seen[a.Code] && (listed || never):
			t.Errorf("%s is seen here: take it out of the lists", a.Code)
		case !seen[a.Code] && !listed && !never:
			t.Errorf("no test sees %s", a.Code)
		case listed:
			b, err := os.ReadFile(filepath.Join("../..", where[0]))
			if err != nil || !strings.Contains(string(b), where[1]) {
				t.Errorf("%s: there is no %q in %s (%v)", a.Code, where[1], where[0], err)
			}
		}
	}
	for _, c := range slices.Concat(keys(otherwise), keys(unseen)) {
		if _, ok := event.Find(c); !ok {
			t.Errorf("the lists have %s, which is no code", c)
		}
	}
}

func keys[V any](m map[event.Code]V) (out []event.Code) {
	for c := range m {
		out = append(out, c)
	}
	return out
}

// object is what events call the node.
func (r *running) object() string {
	_, name := r.node()
	return "node " + name
}

// exported checks filters, and that an export has what the list has.
func (r *running) exported(t *testing.T) {
	t.Helper()
	all := r.happened("")
	export := func(query string) (out []event.Event) {
		t.Helper()
		status, b := r.try("GET", "/events/export?"+query, nil)
		if status != 200 {
			t.Fatalf("export: %d %s", status, b)
		}
		for line := range strings.Lines(string(b)) {
			var e event.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			out = append(out, e)
		}
		return out
	}
	if got := export("until=" + url.QueryEscape(all[0].Time.Add(time.Microsecond).Format(time.RFC3339Nano))); len(got) != len(all) || got[0].Seq != all[0].Seq || got[len(got)-1].Seq != all[len(all)-1].Seq {
		t.Errorf("%d events are exported of %d", len(got), len(all))
	}
	for _, query := range []string{"severity=error", "severity=warning", "code=session,node.started", "object=" + url.QueryEscape("vdisk uno"), "q=RENAMED"} {
		list, file := r.happened("&"+query), export(query)
		if len(list) == 0 || len(list) == len(all) || len(file) < len(list) {
			t.Errorf("%s: %d are listed, %d exported, of %d", query, len(list), len(file), len(all))
		}
	}
	for _, e := range r.happened("&severity=error") {
		if e.Severity != event.Error {
			t.Errorf("%+v is listed as an error", e)
		}
	}
	for query, field := range map[string]string{"severity=bad": "severity", "code=vdisk.none": "code", "since=yesterday": "since", "code=" + strings.Repeat("vdisk,", 100): "code"} {
		for _, path := range []string{"/events/history?", "/events/export?"} {
			status, b := r.try("GET", path+query, nil)
			if status != 400 || !strings.Contains(string(b), field) {
				t.Errorf("%s%s: %d %s", path, query, status, b)
			}
		}
	}
	for _, path := range []string{"/events/history?node=nobody", "/events/export?node=nobody"} {
		if status, b := r.try("GET", path, nil); status != 404 {
			t.Errorf("%s: %d %s", path, status, b)
		}
	}
	r.anonymous().expect("GET", "/api/v1/events/history", "", 401, "unauthorized")
	r.anonymous().expect("GET", "/api/v1/events/export", "", 401, "unauthorized")
}

// TestSyslog: events go to a syslog server; that they do not is a cause of health.
func TestSyslog(t *testing.T) {
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "ovgate.yaml")
	write(t, conf, "events: {syslog: 'tcp://"+address+"'}\n")
	r := start(t, Options{Data: t.TempDir(), Config: conf})
	r.until("told as away", func() bool { return strings.Contains(r.causes(), "syslog") })
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	r.pool("gold", t.TempDir())
	got := ""
	for b := make([]byte, 4096); !strings.Contains(got, "vpool.created") || !strings.Contains(got, "node.started"); {
		n, err := conn.Read(b)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got += string(b[:n])
	}
	if !strings.Contains(got, "<30>1 ") || !strings.Contains(got, "vpool gold: Made on a backend of kind local") {
		t.Errorf("%q", got)
	}
	r.until("well", func() bool { return !strings.Contains(r.causes(), "syslog") })
}
