package node

import "testing"

// TestTargetEvents: who listens hears of targets that come, change and go.
func TestTargetEvents(t *testing.T) {
	t.Parallel()
	r := start(t, Options{Data: t.TempDir()})
	r.pool("gold", t.TempDir())
	r.disk("one", "gold", 1<<20)
	l := r.listen("?topics=target", "")
	type m = map[string]any
	iqn := r.call("POST", "/targets", m{"name": "cluster"}, 201)["iqn"].(string)
	l.until("target", iqn)
	r.call("POST", "/targets/"+iqn+"/groups", m{"name": "hosts", "initiators": []string{hostA}}, 201)
	l.until("target", hostA)
	r.call("POST", "/vdisks/one/publish", m{"target": "cluster"}, 200)
	l.until("target", `"vdisk":"one"`)
	r.call("POST", "/vdisks/one/unpublish", nil, 204)
	r.call("DELETE", "/targets/"+iqn, nil, 204)
	l.until("target.deleted", iqn)
	own := r.call("POST", "/vdisks/one/publish", nil, 200)["iqn"].(string)
	l.until("target", own)
	r.call("PUT", "/targets/"+own+"/acl/"+hostB, nil, 200)
	l.until("target", hostB)
	r.call("POST", "/vdisks/one/unpublish", nil, 204)
	l.until("target.deleted", own)
}
