package node

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe"
)

// TestIdleTold: health does not look at vDisks that are idle, and tells at its next look what
// somebody found out about one.
func TestIdleTold(t *testing.T) {
	t.Parallel()
	served := make(chan *node, 1)
	r := start(t, Options{Data: t.TempDir(), served: func(n *node) { served <- n }})
	n := <-served
	r.call("POST", "/vpools", map[string]any{"name": "default", "backend": map[string]any{"kind": "local", "path": t.TempDir()}, "settings": map[string]any{"commitIntervalMs": 200}}, 201)
	id := r.call("POST", "/vdisks", map[string]any{"name": "quiet", "vpool": "default", "size": 1 << 30}, 201)["id"].(string)
	w := &n.health.disks
	look := func() observe.Health { return n.healthWithin(0) }
	told := func(code string) bool {
		return slices.ContainsFunc(look().Causes, func(c observe.Cause) bool { return c.Code == code && c.Object == "vdisk quiet" })
	}
	calm := func() bool {
		look()
		n.health.mu.Lock()
		defer n.health.mu.Unlock()
		return !slices.Contains(w.others, id)
	}
	r.until("idle", calm)
	full := func() time.Time {
		look()
		n.health.mu.Lock()
		defer n.health.mu.Unlock()
		return w.at
	}
	r.until("not looked at again", func() bool { return full().Equal(full()) })

	store := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(result model.RunResult) {
		t.Helper()
		now := time.Now()
		store(n.model.AddRun(t.Context(), id, model.JobScrub, model.Run{Started: now, Ended: now, Result: result, Text: "as the test has it"}))
	}
	verified := func(bad int64) {
		t.Helper()
		store(n.model.SetVerification(t.Context(), model.Verification{VDisk: id, BadObjects: bad, Ended: time.Now()}))
	}
	for code, c := range map[string]struct{ inject, mend func() }{
		"job_failed":    {func() { run(model.RunFailed) }, func() { run(model.RunDone) }},
		"vdisk_damaged": {func() { verified(1) }, func() { verified(0) }},
	} {
		if c.inject(); !told(code) {
			t.Errorf("%s is not told at the next look", code)
		}
		if calm() {
			t.Errorf("with %s it counts as well", code)
		}
		if c.mend(); told(code) {
			t.Errorf("%s is told after it was mended", code)
		}
		r.until("idle again", calm)
	}
	// A new name is what is told from then on.
	run(model.RunFailed)
	r.call("PATCH", "/vdisks/"+id, map[string]any{"name": "renamed"}, 200)
	if h := look(); !slices.ContainsFunc(h.Causes, func(c observe.Cause) bool { return c.Code == "job_failed" && strings.Contains(c.Text, "renamed") }) {
		t.Errorf("told after it was renamed: %+v", h.Causes)
	}
}
