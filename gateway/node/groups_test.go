package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/iscsi/initiator"
)

const (
	hostA, hostB, hostC = "iqn.2026-01.com.example:a", "iqn.2026-01.com.example:b", "iqn.2026-01.com.example:c"
	given               = "a-secret-of-mine"
)

// dial signs in, and fails the test if it cannot.
func (r *running) dial(o initiator.Options) *initiator.Session {
	r.t.Helper()
	s, err := initiator.Dial(r.t.Context(), o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(s.Close)
	return s
}

// kept signs in and expects a refusal with this status (RFC 7143 section 11.13.5).
func (r *running) kept(what string, o initiator.Options, status uint16) {
	r.t.Helper()
	s, err := initiator.Dial(r.t.Context(), o)
	if err == nil {
		s.Close()
	}
	var refused *initiator.LoginError
	if !errors.As(err, &refused) || refused.Status != status {
		r.t.Errorf("%s: %v, want status %04x", what, err, status)
	}
}

// sees returns the LUNs that a session sees, once their unit attentions are over.
func (r *running) sees(s *initiator.Session) string {
	r.t.Helper()
	luns, err := s.ReportLUNs(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Sort(luns)
	for _, l := range luns {
		if err := s.Ready(r.t.Context(), l); err != nil {
			r.t.Fatal(err)
		}
	}
	return fmt.Sprint(luns)
}

// refused expects a refusal with this status and these words.
func (r *running) refused(method, path string, in any, status int, code string, words ...string) {
	r.t.Helper()
	e := r.call(method, path, in, status)
	text := fmt.Sprint(e)
	for _, w := range append(words, code) {
		if !strings.Contains(text, w) {
			r.t.Errorf("%s %s: %v, want %q in it", method, path, e, w)
		}
	}
	if strings.Contains(text, given) {
		r.t.Errorf("%s %s repeats a secret: %v", method, path, e)
	}
}

// TestGroups: who is in which group decides what must be proved, what the target
// proves, and what is seen; changes act on sessions that run, and last.
func TestGroups(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Data: dir})
	r.pool("gold", t.TempDir())
	r.disk("one", "gold", 1<<20)
	c := r.call("POST", "/vdisks/one/publish", map[string]any{"initiators": []string{hostA}, "mutual": true}, 200)
	text := func(k string) string { return c[k].(string) }
	linux := c["commands"].(map[string]any)["iscsiadm"].(string)
	if text("mutualUser") != "one-target" || len(text("mutualSecret")) != 16 || text("mutualSecret") == text("chapSecret") ||
		!strings.Contains(linux, "username_in -v one-target\n") || !strings.Contains(linux, "password_in -v "+text("mutualSecret")+"\n") {
		t.Errorf("published: %v", c)
	}
	again := r.call("POST", "/vdisks/one/publish", nil, 200)
	if again["mutualSecret"] != c["mutualSecret"] || again["chapSecret"] != c["chapSecret"] {
		t.Errorf("published again: %v", again)
	}
	target := "/targets/" + text("iqn")
	a := initiator.Options{
		Address: r.portal(), Target: text("iqn"), Initiator: hostA, CHAPUser: text("chapUser"), CHAPSecret: text("chapSecret"),
		MutualUser: text("mutualUser"), MutualSecret: text("mutualSecret"), HeaderDigest: true, DataDigest: true,
	}
	sa := r.dial(a)
	if got := r.sees(sa); got != "[0]" {
		t.Errorf("a sees %s", got)
	}
	bad := a
	bad.MutualSecret = "not-what-it-is-1"
	if s, err := initiator.Dial(t.Context(), bad); err == nil {
		s.Close()
		t.Error("the target proved a secret that it does not have")
	}

	g := r.call("POST", target+"/groups", map[string]any{"name": "backup", "initiators": []string{hostB}, "readOnly": true}, 201)
	secret := g["chapSecret"].(string)
	if len(secret) != 16 || g["mutualSecret"] != "" {
		t.Errorf("group: %v", g)
	}
	b := initiator.Options{Address: r.portal(), Target: text("iqn"), Initiator: hostB, CHAPUser: "one-backup", CHAPSecret: secret}
	sb := r.dial(b)
	if got := r.sees(sb); got != "[0]" {
		t.Errorf("b sees %s", got)
	}
	block := bytes.Repeat([]byte{7}, 4096)
	var sense *initiator.SCSIError
	if err := sb.WriteAt(t.Context(), 0, block, 0); !errors.As(err, &sense) || sense.Sense.Key != 7 || sense.Sense.ASC != 0x27 {
		t.Errorf("a write by a read-only group: %v", err)
	}
	if err := errors.Join(sa.WriteAt(t.Context(), 0, block, 0), sb.ReadAt(t.Context(), 0, make([]byte, 4096), 0)); err != nil {
		t.Error(err)
	}
	r.kept("in no group", initiator.Options{Address: r.portal(), Target: text("iqn"), Initiator: hostC, CHAPUser: "one-backup", CHAPSecret: secret}, 0x0202)
	r.kept("another group's secret", initiator.Options{Address: r.portal(), Target: text("iqn"), Initiator: hostB, CHAPUser: text("chapUser"), CHAPSecret: text("chapSecret")}, 0x0201)

	// What is refused changes nothing.
	before := r.text(r.call("GET", target, nil, 200)["groups"])
	for _, x := range []struct {
		method, path string
		in           any
		status       int
		code, words  string
	}{
		{"POST", target + "/groups", map[string]any{"name": "third", "initiators": []string{hostB}}, 409, "exists", hostB + " is in group backup"},
		{"POST", target + "/groups", map[string]any{"name": "backup"}, 409, "exists", "group set"},
		{"POST", target + "/groups", map[string]any{"name": "Upper"}, 400, "invalid", "a-z"},
		{"POST", target + "/groups", map[string]any{"name": "third", "initiators": []string{"host"}}, 400, "invalid", "not an iSCSI name"},
		{"POST", target + "/groups", map[string]any{"name": "third", "chapSecret": given[:11]}, 400, "invalid", "12 to 255"},
		{"POST", target + "/groups", map[string]any{"name": "third", "chapSecret": given, "mutualSecret": given}, 400, "invalid", "two secrets"},
		{"POST", target + "/groups", map[string]any{"name": "third", "any": true, "chap": false}, 400, "invalid", "without a proof"},
		{"PATCH", target + "/groups/backup", map[string]any{"luns": []map[string]any{{"lun": 4, "number": 4}}}, 400, "invalid", "no LUN 4"},
		{"PATCH", target + "/groups/backup", map[string]any{"addInitiators": []string{hostA}}, 409, "exists", "group default"},
		{"PATCH", target + "/groups/none", map[string]any{}, 404, "not_found", "no group none"},
		{"DELETE", target + "/groups/backup", nil, 409, "in_use", hostB},
		{"DELETE", target, nil, 409, "in_use", "unpublish"},
		{"PUT", target + "/portals", map[string]any{"addresses": []string{"192.0.2.1:3260"}}, 400, "invalid", r.portal()},
		{"PUT", "/vdisks/one/qos", map[string]any{"iops": -1, "bytesPerSecond": 0, "burstMs": 0}, 400, "invalid", "-1 IOPS"},
		{"GET", "/iscsi/sessions/none", nil, 404, "not_found", "session"},
	} {
		r.refused(x.method, x.path, x.in, x.status, x.code, x.words)
	}
	if after := r.text(r.call("GET", target, nil, 200)["groups"]); after != before {
		t.Errorf("refusals changed the groups from %s to %s", before, after)
	}

	// Changes while sessions run.
	g = r.call("PATCH", target+"/groups/backup", map[string]any{"readOnly": false, "chapSecret": given, "mutual": true}, 200)
	if g["chapSecret"] != "" || len(g["mutualSecret"].(string)) != 16 || len(g["notes"].([]any)) != 0 || g["group"].(map[string]any)["sessions"] != 1.0 {
		t.Errorf("group set: %v", g)
	}
	if err := errors.Join(sb.Ready(t.Context(), 0), sb.WriteAt(t.Context(), 0, block, 8)); err != nil {
		t.Errorf("a write by a group that may: %v", err)
	}
	r.kept("the old secret", b, 0x0201)
	b.CHAPSecret = given
	long := r.call("PATCH", target+"/groups/backup", map[string]any{"chapSecret": given + "-longer"}, 200)
	if notes := fmt.Sprint(long["notes"]); !strings.Contains(notes, "Windows") {
		t.Errorf("notes of a long secret: %s", notes)
	}
	b.CHAPSecret = given + "-longer"
	sessions := r.call("GET", "/iscsi/sessions?target="+text("iqn"), nil, 200)["items"].([]any)
	for _, x := range sessions {
		s := x.(map[string]any)
		if s["initiator"] != hostA {
			continue
		}
		d := r.call("GET", "/iscsi/sessions/"+s["id"].(string), nil, 200)
		n, lun := d["negotiated"].(map[string]any), d["luns"].([]any)[0].(map[string]any)
		w := lun["write"].(map[string]any)
		if d["group"] != "default" || n["headerDigest"] != true || n["dataDigest"] != true || lun["vdisk"] != "one" || w["commands"] != 1.0 || w["bytes"] != 4096.0 || w["p99Us"].(float64) <= 0 {
			t.Errorf("session: %v", d)
		}
	}
	shown := r.call("GET", target, nil, 200)
	stats := shown["luns"].([]any)[0].(map[string]any)["stats"].(map[string]any)
	if shown["sessions"] != 2.0 || stats["write"].(map[string]any)["commands"].(float64) < 2 {
		t.Errorf("target: %v", shown)
	}
	if text := r.bearer(r.read("admin.token")).expect("GET", "/metrics", "", 200, "")["text"].(string); !strings.Contains(text, `ovgate_vdisk_iscsi_commands_total{op="write",vdisk="one",vpool="gold"} 3`) {
		t.Error("metrics lack the commands of initiators")
	}
	r.call("PUT", "/vdisks/one/qos", map[string]any{"iops": 5000, "bytesPerSecond": 100 << 20, "burstMs": 2000}, 200)
	if strings.Contains(r.log.String(), given) || strings.Contains(r.log.String(), secret) {
		t.Error("a secret is in the log")
	}

	// Everything lasts.
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, Options{Data: dir})
	a.Address, b.Address = r.portal(), r.portal()
	sa, sb = r.dial(a), r.dial(b)
	if q := r.text(r.call("GET", target, nil, 200)["luns"].([]any)[0].(map[string]any)["qos"]); !strings.Contains(q, "5000") || !strings.Contains(q, "2000") {
		t.Errorf("limits after a restart: %s", q)
	}
	r.call("PUT", "/vdisks/one/qos", map[string]any{"iops": 0, "bytesPerSecond": 0, "burstMs": 0}, 200)
	if q := r.call("GET", "/vdisks/one", nil, 200)["qos"]; q != nil {
		t.Errorf("limits taken off: %v", q)
	}
	r.call("PATCH", target+"/groups/default", map[string]any{"removeInitiators": []string{hostA}}, 200)
	ended(t, sa)
	r.call("DELETE", target+"/groups/backup?force=true", nil, 204)
	r.call("DELETE", target+"/groups/backup", nil, 204)
	ended(t, sb)
	r.kept("a deleted group", b, 0x0202)
}

// TestSharedTarget: several vDisks behind one target, each group with its own
// view of them.
func TestSharedTarget(t *testing.T) {
	dir := t.TempDir()
	r := start(t, Options{Data: dir})
	r.pool("gold", t.TempDir())
	for i, n := range []string{"d0", "d1", "d2"} {
		r.disk(n, "gold", int64(i+1)<<20)
	}
	made := r.call("POST", "/targets", map[string]any{"name": "cluster"}, 201)
	iqn := made["iqn"].(string)
	target := "/targets/" + iqn
	if iqn != "iqn.2026-11.io.ovgate:target-cluster" || made["shared"] != true {
		t.Errorf("target: %v", made)
	}
	r.refused("POST", "/targets", map[string]any{"name": "cluster"}, 409, "exists", "choose another name")
	r.refused("POST", "/targets", map[string]any{"name": "two", "iqn": iqn}, 409, "exists", "another target")
	r.refused("POST", "/targets", map[string]any{"name": "two", "iqn": "cluster"}, 400, "invalid", "not an iSCSI name")
	place := func(disk string, lun any, want int) map[string]any {
		in := map[string]any{"target": "cluster"}
		if lun != nil {
			in["lun"] = lun
		}
		return r.call("POST", "/vdisks/"+disk+"/publish", in, want)
	}
	if c := place("d0", nil, 200); c["lun"] != 0.0 || c["iqn"] != iqn || c["chapSecret"] != "" {
		t.Errorf("published: %v", c)
	}
	r.refused("POST", "/vdisks/d1/publish", map[string]any{"target": "cluster", "lun": 0}, 409, "exists", "LUN 0 of target cluster is vDisk d0")
	place("d1", 7, 200)
	if c := place("d1", nil, 200); c["lun"] != 7.0 {
		t.Errorf("published again: %v", c)
	}
	r.refused("POST", "/vdisks/d1/publish", map[string]any{"target": "cluster", "lun": 8}, 409, "in_use", "LUN 7")
	r.refused("POST", "/vdisks/d2/publish", map[string]any{"target": "cluster", "lun": 16384}, 400, "invalid", "16383")
	r.refused("POST", "/vdisks/d2/publish", map[string]any{"target": "none"}, 404, "not_found", "no such target")
	r.refused("POST", "/vdisks/d2/publish", map[string]any{"target": "cluster", "open": true}, 400, "invalid", "groups")
	r.refused("DELETE", "/vdisks/d1", nil, 409, "in_use", iqn)
	r.refused("DELETE", target+"?force=true", nil, 409, "in_use", "vDisk d0 is its LUN 0")
	r.kept("without a group", initiator.Options{Address: r.portal(), Target: iqn, Initiator: hostA}, 0x0202)

	for _, g := range []map[string]any{
		{"name": "all", "initiators": []string{hostA}, "chap": false},
		{"name": "some", "initiators": []string{hostB}, "chapSecret": given, "luns": []map[string]any{{"lun": 7, "number": 1, "readOnly": true}}},
	} {
		r.call("POST", target+"/groups", g, 201)
	}
	sa := r.dial(initiator.Options{Address: r.portal(), Target: iqn, Initiator: hostA})
	ob := initiator.Options{Address: r.portal(), Target: iqn, Initiator: hostB, CHAPUser: "cluster-some", CHAPSecret: given}
	sb := r.dial(ob)
	if a, b := r.sees(sa), r.sees(sb); a != "[0 7]" || b != "[1]" {
		t.Errorf("a sees %s, b sees %s", a, b)
	}
	if c, err := sb.ReadCapacity(t.Context(), 1); err != nil || c.Blocks*uint64(c.BlockSize) != 2<<20 {
		t.Errorf("b's LUN 1: %+v %v", c, err)
	}
	var sense *initiator.SCSIError
	if err := sb.WriteAt(t.Context(), 1, make([]byte, 4096), 0); !errors.As(err, &sense) || sense.Sense.Key != 7 {
		t.Errorf("b writes: %v", err)
	}
	// LUNs come and go under sessions, which are told.
	place("d2", nil, 200)
	if err := sa.TestUnitReady(t.Context(), 0); !errors.As(err, &sense) || sense.Sense.ASC != 0x3f || sense.Sense.ASCQ != 0x0e {
		t.Errorf("after a LUN came: %v, want REPORTED LUNS DATA HAS CHANGED", err)
	}
	if a, b := r.sees(sa), r.sees(sb); a != "[0 1 7]" || b != "[1]" {
		t.Errorf("a sees %s, b sees %s", a, b)
	}
	r.call("PATCH", "/vdisks/d2", map[string]any{"size": 8 << 20}, 200)
	if err := sa.TestUnitReady(t.Context(), 1); !errors.As(err, &sense) || sense.Sense.ASC != 0x2a || sense.Sense.ASCQ != 9 {
		t.Errorf("after the resize: %v, want CAPACITY DATA HAS CHANGED", err)
	}
	r.refused("POST", "/vdisks/d1/unpublish", map[string]any{}, 409, "in_use", hostB)
	for range 2 {
		r.call("POST", "/vdisks/d1/unpublish", map[string]any{"force": true}, 204)
	}
	if a, b := r.sees(sa), r.sees(sb); a != "[0 1]" || b != "[]" {
		t.Errorf("without d1 a sees %s, b sees %s", a, b)
	}
	// Who got the number next is not shown to the group that mapped it.
	r.disk("d3", "gold", 1<<20)
	place("d3", 7, 200)
	if a, b := r.sees(sa), r.sees(sb); a != "[0 1 7]" || b != "[]" {
		t.Errorf("with d3 a sees %s, b sees %s", a, b)
	}
	r.call("PATCH", target+"/groups/some", map[string]any{"luns": []map[string]any{{"lun": 1, "number": 0}}}, 200)
	if got := r.sees(sb); got != "[0]" {
		t.Errorf("b sees %s", got)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	r = start(t, Options{Data: dir})
	ob.Address = r.portal()
	sb = r.dial(ob)
	sa = r.dial(initiator.Options{Address: r.portal(), Target: iqn, Initiator: hostA})
	if a, b := r.sees(sa), r.sees(sb); a != "[0 1 7]" || b != "[0]" {
		t.Errorf("after a restart a sees %s, b sees %s", a, b)
	}
	for _, d := range []string{"d0", "d2", "d3"} {
		r.call("POST", "/vdisks/"+d+"/unpublish", map[string]any{"force": true}, 204)
	}
	r.refused("DELETE", target, nil, 409, "in_use", hostA)
	r.call("DELETE", target+"?force=true", nil, 204)
	r.call("DELETE", target, nil, 204)
	ended(t, sa)
	ended(t, sb)
	r.call("POST", "/vdisks/d0/publish", map[string]any{"open": true}, 200)
}

// TestPortals: each address that the node listens on is a portal with a group
// tag of its own; a target is reached through those that were chosen for it.
func TestPortals(t *testing.T) {
	dir := t.TempDir()
	listen := []string{"127.0.0.1:0", "[::1]:0", "127.0.0.2:0"}
	r := start(t, Options{Data: dir, ISCSI: listen})
	r.pool("gold", t.TempDir())
	r.disk("one", "gold", 1<<20)
	c := r.call("POST", "/vdisks/one/publish", map[string]any{"open": true}, 200)
	var all []string
	for i, p := range c["portals"].([]any) {
		p := p.(map[string]any)
		all = append(all, p["address"].(string))
		if p["group"] != float64(i+1) {
			t.Errorf("portal %v is not of group %d", p, i+1)
		}
	}
	if len(all) != 3 || !strings.HasPrefix(all[1], "[::1]:") {
		t.Fatalf("portals %v", all)
	}
	o := initiator.Options{Target: c["iqn"].(string), CHAPUser: c["chapUser"].(string), CHAPSecret: c["chapSecret"].(string)}
	reach := func(want ...bool) {
		t.Helper()
		for i, a := range all {
			if o.Address = a; want[i] {
				r.dial(o).Close()
			} else {
				r.kept(a, o, 0x0203)
			}
		}
	}
	reach(true, true, true)
	found, err := initiator.Discover(t.Context(), initiator.Options{Address: all[0]})
	if err != nil || len(found) != 1 || len(found[0].Addresses) != 3 {
		t.Errorf("discovered %+v %v", found, err)
	}
	target := "/targets/" + o.Target
	set := r.call("PUT", target+"/portals", map[string]any{"addresses": []string{all[1], all[2]}}, 200)
	if len(set["portals"].([]any)) != 2 || set["allPortals"] != false {
		t.Errorf("portals set: %v", set)
	}
	reach(false, true, true)
	r.refused("PUT", target+"/portals", map[string]any{"addresses": []string{"[::1]:1"}}, 400, "invalid", all[0], all[1], all[2])
	reach(false, true, true)
	r.call("PUT", target+"/portals", map[string]any{"addresses": []string{all[2]}}, 200)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// A target whose only portal left the node is not reached through another.
	r = start(t, Options{Data: dir, ISCSI: []string{all[0], all[1]}})
	all = all[:2]
	reach(false, false)
	if got := r.call("GET", target, nil, 200); len(got["portals"].([]any)) != 0 || !strings.Contains(r.log.String(), "reached nowhere") {
		t.Errorf("without its portal: %v", got)
	}
	r.call("PUT", target+"/portals", map[string]any{"addresses": []string{}}, 200)
	reach(true, true)
}

// TestFencedShared: a vDisk that another node took leaves a shared target, whose
// other vDisks are served on to the same sessions.
func TestFencedShared(t *testing.T) {
	t.Parallel()
	far := t.TempDir()
	backend := map[string]any{"kind": "local", "path": far}
	r := start(t, Options{Data: t.TempDir()})
	r.call("POST", "/vpools", map[string]any{"name": "gold", "backend": backend, "settings": map[string]any{"commitIntervalMs": 100}}, 201)
	r.pool("tin", t.TempDir())
	r.disk("taken", "gold", 1<<20)
	r.disk("kept", "tin", 1<<20)
	iqn := r.call("POST", "/targets", map[string]any{"name": "cluster"}, 201)["iqn"].(string)
	r.call("POST", "/targets/cluster/groups", map[string]any{"name": "hosts", "initiators": []string{hostA}, "chap": false}, 201)
	for _, d := range []string{"taken", "kept"} {
		r.call("POST", "/vdisks/"+d+"/publish", map[string]any{"target": iqn}, 200)
	}
	s := r.dial(initiator.Options{Address: r.portal(), Target: iqn, Initiator: hostA})
	if got := r.sees(s); got != "[0 1]" {
		t.Fatalf("sees %s", got)
	}
	if err := os.Remove(filepath.Join(far, "lock")); err != nil {
		t.Fatal(err)
	}
	second := start(t, Options{Data: t.TempDir()})
	second.call("POST", "/vpools/recover", map[string]any{"name": "gold", "backend": backend, "acceptLoss": true}, 200)
	r.until("fenced", func() bool { return r.call("GET", "/vdisks/taken", nil, 200)["state"] == "fenced" })
	r.until("withdrawn", func() bool {
		luns, err := s.ReportLUNs(t.Context())
		return err == nil && len(luns) == 1 && luns[0] == 1
	})
	if err := errors.Join(s.Ready(t.Context(), 1), s.WriteAt(t.Context(), 1, make([]byte, 4096), 0)); err != nil {
		t.Errorf("the other vDisk: %v", err)
	}
	r.call("POST", "/vdisks/taken/unpublish", nil, 204)
	if got := r.sees(s); got != "[1]" {
		t.Errorf("sees %s", got)
	}
}
