package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
)

// snapshotsOf waits until a datastore has no job, and returns how its snapshots went, by
// name: what failed, or "consistent".
func (r *running) snapshotsOf(datastore, last string) map[string]string {
	r.t.Helper()
	var out map[string]string
	r.until(last+" of "+datastore, func() bool {
		d := r.call("GET", "/vsphere/datastores/"+datastore, nil, 200)
		out = map[string]string{}
		for _, s := range d["snapshots"].([]any) {
			s := s.(map[string]any)
			out[s["name"].(string)] = s["failed"].(string)
			if s["consistent"] == true {
				out[s["name"].(string)] = "consistent"
			}
		}
		return d["job"] == nil && d["state"] == "present" && (last == "" || out[last] != "")
	})
	return out
}

// TestDatastoreJobs: a request for a snapshot of a datastore goes to the node that serves its
// vDisk; the job follows the vDisk, and is taken over from a node that is gone.
func TestDatastoreJobs(t *testing.T) {
	t.Parallel()
	c := newMirrored(t, 2)
	one, two := c.nodes[0], c.nodes[1]
	v, err := esxsim.Start(esxsim.Options{Hosts: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	one.call("POST", "/vsphere/centers", map[string]any{"name": "dc", "secret": v.Password(), "options": map[string]any{"url": v.URL(), "user": v.User(), "thumbprint": v.Thumbprint()}}, 201)
	ids := map[string]string{}
	for _, name := range []string{"tables", "log"} {
		one.call("POST", "/vsphere/datastores", map[string]any{"name": name, "center": "dc", "cluster": esxsim.Cluster, "vpool": "gold", "size": 2 << 30}, 202)
		one.snapshotsOf(name, "")
		ids[name] = one.call("GET", "/vsphere/datastores/"+name, nil, 200)["vdisk"].(string)
	}
	if _, err := v.Powered(t.Context(), "db", "tables"); err != nil {
		t.Fatal(err)
	}
	held := func(what string, ask func()) *esxsim.Held {
		t.Helper()
		h := v.HoldSnapshot("db")
		ask()
		one.until(what+" is at work", func() bool {
			select {
			case <-h.Begun:
				return true
			default:
				return false
			}
		})
		return h
	}
	move := func(name string, from, to *running, node string) {
		t.Helper()
		from.call("POST", "/vdisks/"+ids[name]+"/handover", map[string]any{"node": node}, 202)
		to.until(name+" moved", func() bool { return to.diskState(ids[name]) == "running" })
		from.until(name+" gone", func() bool { return from.diskState(ids[name]) == "elsewhere" })
	}

	// Asked of the other node.
	two.until("tables is known", func() bool { status, _ := two.try("GET", "/vsphere/datastores/tables", nil); return status == 200 })
	status, by, d := two.answer("POST", "/vsphere/datastores/tables/snapshot", "", map[string]any{"name": "asked", "require": true})
	if status != 202 || by != "n1" {
		t.Fatalf("asked of the other node: %d by %q: %v", status, by, d)
	}
	if s := two.snapshotsOf("tables", "asked"); s["asked"] != "consistent" {
		t.Errorf("asked of the other node it went %v", s)
	}

	// The vDisks of two datastores are at two nodes.
	move("log", one, two, "n2")
	one.call("POST", "/vsphere/datastores/tables/snapshot", map[string]any{"name": "apart", "with": []string{"log"}}, 202)
	for _, name := range []string{"tables", "log"} {
		if s := one.snapshotsOf(name, "apart"); s["apart"] != "consistent" {
			t.Errorf("at two nodes, %s went %v", name, s)
		}
		list := fmt.Sprint(one.call("GET", "/vdisks/"+ids[name]+"/snapshots", nil, 200)["items"])
		if !strings.Contains(list, "group:2") || !strings.Contains(list, "name:apart") {
			t.Errorf("at two nodes, the vDisk of %s has %s", name, list)
		}
	}

	// Its vDisk moves while the job works, and moves back before the next.
	h := held("moved", func() {
		one.call("POST", "/vsphere/datastores/tables/snapshot", map[string]any{"name": "moved", "require": true, "within": 3600}, 202)
	})
	move("tables", one, two, "n2")
	if err := h.End(); err != nil {
		t.Fatal(err)
	}
	if s := one.snapshotsOf("tables", "moved"); s["moved"] != "consistent" {
		t.Errorf("moved it went %v", s)
	}

	// Both are at one node, which is lost while the job works.
	h = held("lost", func() {
		two.call("POST", "/vsphere/datastores/tables/snapshot", map[string]any{"name": "lost", "require": true, "with": []string{"log"}, "within": 3600}, 202)
	})
	c.set(1, nil)
	if err := two.stop(); err != nil {
		t.Fatal(err)
	}
	one.until("taken over", func() bool {
		return one.diskState(ids["tables"]) == "running" && one.diskState(ids["log"]) == "running"
	})
	if err := h.End(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tables", "log"} {
		if s := one.snapshotsOf(name, "lost"); s["lost"] != "consistent" {
			t.Errorf("taken over, %s went %v", name, s)
		}
		list := fmt.Sprint(one.call("GET", "/vdisks/"+ids[name]+"/snapshots", nil, 200)["items"])
		if !strings.Contains(list, "name:lost") {
			t.Errorf("vDisk of %s has %s", name, list)
		}
	}
}
