package cinder

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestMap: volumes and vDisks are paired by name, else by label; a volume is missing its
// vDisk only when it is settled before and after.
func TestMap(t *testing.T) {
	h := newHostile(t, false)
	row := func(id, status, host, more string) string {
		return fmt.Sprintf(`{"id": %q, "name": %q, "status": %q, "size": 2, "os-vol-host-attr:host": %q, "os-vol-tenant-attr:tenant_id": "p1", "attachments": []%s}`, id, id, status, host, more)
	}
	const at = "h@ovgate#fast"
	lists := [][]string{{
		row("byname", "available", at, ""),
		row("moved", "in-use", at, `, "os-vol-mig-status-attr:name_id": "n1", "os-vol-mig-status-attr:migstat": "success"`),
		row("template", "available", at, ""),
		row("lost", "available", at, ""),
		row("deleted", "available", at, ""),
		row("going", "available", at, ""),
		row("renamed", "available", at, ""),
		row("placed", "available", at, ""),
		row("creating", "creating", at, ""),
		row("failed", "error", at, ""),
		row("leaving", "available", at, `, "os-vol-mig-status-attr:migstat": "migrating"`),
		row("away", "available", "h@lvm#lvm", ""),
		row("nowhere", "error", "", ""),
	}, { // after the vDisks were listed
		row("lost", "available", at, ""),
		row("going", "deleting", at, ""),
		row("renamed", "available", at, `, "os-vol-mig-status-attr:name_id": "n2"`),
		row("placed", "available", "h@ovgate#large", ""),
		row("creating", "available", at, ""),
	}}
	h.paths["/volume/v3/p1/volumes/detail"] = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("marker") {
			fmt.Fprint(w, `{"volumes": []}`)
			lists = lists[1:]
			return
		}
		fmt.Fprint(w, `{"volumes": [`+strings.Join(lists[0], ",")+`]}`)
	}
	disks := []VDisk{
		{ID: "0", Name: "volume-byname", VPool: "large"},
		{ID: "1", Name: "volume-byname", VPool: "fast", Volume: "byname", Stored: 5},
		{ID: "2", Name: "volume-n1", Volume: "n1"},
		{ID: "10", Name: "ours-template-image", VPool: "fast", Volume: "template"},
		{ID: "3", Name: "ours-template", Volume: "template"},
		{ID: "4", Name: "volume-byname-image", Volume: "byname", Stored: 7},
		{ID: "5", Name: "demo"},
		{ID: "6", Name: "volume-old", Volume: "old"},
		{ID: "7", Name: "volume-away", Volume: "away"},
		{ID: "8", Name: "volume-leaving", Volume: "leaving"},
		{ID: "9", Name: "volume-gone", Volume: "gone"},
	}
	m, err := h.connect(t).Map(t.Context(), []Backend{{Host: "h@ovgate"}}, func() []VDisk { return disks })
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range m.Volumes {
		got[v.ID] = v.VDisk
	}
	for id, want := range map[string]string{"byname": "1", "moved": "2", "template": "3", "lost": "", "deleted": "", "going": "", "renamed": "", "placed": "", "creating": "", "failed": "", "leaving": "8"} {
		if have, ok := got[id]; !ok || have != want {
			t.Errorf("volume %s has vDisk %q, want %q", id, have, want)
		}
	}
	if len(m.Volumes) != 11 || m.Volumes[0].ProjectName != "one" || m.Volumes[0].VPool != "fast" {
		t.Errorf("%+v", m.Volumes)
	}
	if len(m.Missing) != 1 || m.Missing[0].Volume.ID != "lost" {
		t.Errorf("missing: %+v", m.Missing)
	}

	after := map[string]bool{}
	for _, d := range disks {
		after[d.ID] = d.ID != "9" // was deleted meanwhile
	}
	names := func(all []Orphan) (out []string) {
		for _, o := range all {
			out = append(out, o.VDisk.Name+": "+o.Why)
		}
		return out
	}
	if got, want := names(OrphanDisks(disks, after, m)), []string{"volume-old: there is no volume old", "volume-away: volume away is on h@lvm#lvm"}; !slices.Equal(got, want) {
		t.Errorf("orphans %q, want %q", got, want)
	}
	// Another cloud has the other volumes.
	other := Mapping{Seen: map[string]string{"old": "", "away": ""}}
	if got := names(OrphanDisks(disks, after, m, other)); len(got) != 0 {
		t.Errorf("orphans %q of two clouds", got)
	}
	if got := Usages(m.Volumes); len(got) != 1 || got[0] != (Usage{Project: "p1", Name: "one", Volumes: 11, GiB: 22, Stored: 5}) {
		t.Errorf("%+v", got)
	}
}

// TestSnapshotOrphans: a snapshot that only one side has is told, unless it is on its way,
// or may be one that Cinder knows by another key.
func TestSnapshotOrphans(t *testing.T) {
	h := newHostile(t, false)
	row := func(id, volume, status string) string {
		return fmt.Sprintf(`{"id": %q, "name": %q, "volume_id": %q, "status": %q}`, id, "n"+id, volume, status)
	}
	lists := [][]string{{
		row("1", "same", "available"), row("2", "less", "available"), row("3", "less", "available"), row("4", "going", "available"),
		row("5", "managed", "available"), row("6", "more", "creating"), row("7", "unknown", "available"), row("8", "later", "creating"),
	}, { // after the vDisks were listed
		row("2", "less", "available"), row("3", "less", "available"), row("4", "going", "deleting"),
	}}
	h.paths["/volume/v3/p1/snapshots/detail"] = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("marker") {
			fmt.Fprint(w, `{"snapshots": []}`)
			lists = lists[1:]
			return
		}
		fmt.Fprint(w, `{"snapshots": [`+strings.Join(lists[0], ",")+`]}`)
	}
	of := func(ids ...string) []Snapshot {
		out := []Snapshot{}
		for _, id := range ids {
			out = append(out, Snapshot{ID: "s" + id, Of: id})
		}
		return out
	}
	disks := []VDisk{
		{ID: "same", Snapshots: of("1")}, {ID: "less", Snapshots: of("2")}, {ID: "going", Snapshots: of()}, {ID: "managed", Snapshots: of("former")},
		{ID: "more", Snapshots: of("6", "left", "gone", "")}, {ID: "unknown"}, {ID: "later", Snapshots: of()}, {ID: "without", Snapshots: of("x")},
	}
	m := Mapping{}
	for _, d := range disks[:7] {
		m.Volumes = append(m.Volumes, Volume{ID: d.ID, VDisk: d.ID, VDiskName: "volume-" + d.ID})
	}
	s, err := h.connect(t).Snapshots(t.Context(), m, func() []VDisk { return disks })
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Missing) != 1 || s.Missing[0].Snapshot.ID != "3" || s.Missing[0].Volume.ID != "less" {
		t.Errorf("missing: %+v", s.Missing)
	}
	after := map[string]bool{}
	for _, d := range disks {
		for _, s := range d.Snapshots {
			after[d.ID+"/"+s.ID] = s.Of != "gone"
		}
	}
	left := OrphanSnapshots(disks, after, []Mapping{m}, []Snapshots{s})
	if len(left) != 1 || left[0].Snapshot.ID != "sleft" || left[0].VDisk.ID != "more" {
		t.Errorf("left: %+v", left)
	}
	// Another cloud has it.
	if left := OrphanSnapshots(disks, after, []Mapping{m, {}}, []Snapshots{s, {Seen: map[string]bool{"left": true}}}); len(left) != 0 {
		t.Errorf("left with two clouds: %+v", left)
	}
	h.say("/volume/v3/p1/snapshots/detail", `{}`)
	if s, err := h.connect(t).Snapshots(t.Context(), m, func() []VDisk { return disks }); err == nil {
		t.Errorf("an answer without a list gives %+v", s)
	}
}

// TestPlanConflicts: what somebody else made is not changed, and a plan with a conflict does
// nothing.
func TestPlanConflicts(t *testing.T) {
	h := newHostile(t, false)
	types := `{"volume_types": [
		{"id": "1", "name": "theirs", "extra_specs": {"volume_backend_name": "lvm"}},
		{"id": "2", "name": "fine", "extra_specs": {"volume_backend_name": "ovgate", "pool_name": "fast", "more": "1"}},
		{"id": "3", "name": "cousin", "extra_specs": {"ovgate:managed": "ovgate:n2"}},
		{"id": "4", "name": "limited", "qos_specs_id": "q1", "extra_specs": {"ovgate:managed": "ovgate:n1", "volume_backend_name": "ovgate", "pool_name": "fast"}}]}`
	h.paths["/volume/v3/p1/types"] = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("offset") != "0" {
			types = `{"volume_types": []}`
		}
		fmt.Fprint(w, types)
	}
	whole := types
	h.say("/volume/v3/p1/qos-specs", `{"qos_specs": [
		{"id": "q1", "name": "manual", "consumer": "back-end", "specs": {"total_iops_sec": "5"}},
		{"id": "q2", "name": "cut-off", "consumer": "back-end", "specs": {"ovgate:managed": "ovgate:n1", "total_iops_sec": "99"}},
		{"id": "q3", "name": "stranger", "consumer": "front-end", "specs": {}}]}`)
	c := h.connect(t)
	for _, x := range []struct {
		want Type
		plan string // the actions about it
	}{
		{Type{Name: "new", VPool: "fast"}, "create volume type"},
		{Type{Name: "new", VPool: "slow"}, "conflict volume type"},
		{Type{Name: "new", VPool: "fast", Backend: "lvm"}, "conflict volume type"},
		{Type{Name: "theirs", VPool: "fast"}, "conflict volume type"},
		{Type{Name: "fine", VPool: "fast"}, "none volume type"},
		{Type{Name: "fine", VPool: "fast", Multiattach: true}, "conflict volume type"},
		{Type{Name: "cousin", VPool: "fast"}, "conflict volume type"},
		{Type{Name: "limited", VPool: "fast"}, "none volume type"},
		{Type{Name: "limited", VPool: "fast", Limits: Limits{IOPS: 10}}, "none volume type, conflict QoS specs"},
		{Type{Name: "cut-off", VPool: "fast", Limits: Limits{IOPS: 100}}, "create volume type, change QoS specs, change QoS specs"},
		{Type{Name: "stranger", VPool: "fast", Limits: Limits{IOPS: 100}}, "create volume type, conflict QoS specs"},
	} {
		types = whole
		p, err := c.Plan(t.Context(), here, []Type{x.want}, false)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range p.Actions {
			if a.Action != ActionLeft {
				got = append(got, a.Action+" "+a.Kind)
			}
		}
		if text := strings.Join(got, ", "); text != x.plan {
			t.Errorf("%+v: %s, want %s", x.want, text, x.plan)
		}
		if strings.Contains(x.plan, ActionConflict) {
			if n, err := p.Apply(t.Context()); n != 0 || err == nil || !strings.Contains(err.Error(), x.want.Name) {
				t.Errorf("%+v: %d changes, %v", x.want, n, err)
			}
		}
	}
	for _, a := range h.asked {
		if !strings.HasPrefix(a, http.MethodGet) && a != "POST /v3/auth/tokens" {
			t.Errorf("a plan changed something: %s", a)
		}
	}
}
