package build

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// notInConsole has the operations of the API that the console does not call, each with the reason.
var notInConsole = map[string]string{
	// Called, but not through call() of src/api/client.ts, which the test looks for.
	"GET /events":          "src/api/events.ts opens the stream",
	"GET /events/export":   "a link of src/pages/Events.tsx",
	"GET /metadata/backup": "download() of src/api/client.ts fetches it as a file",
	"GET /support-bundle":  "download() of src/api/client.ts fetches it as a file",

	// Answered by what is read already.
	"GET /exports/{transfer}":             "reading it keeps it, too",
	"GET /groups/{group}":                 "GET /groups tells the same of all",
	"GET /jobs/{job}":                     "GET /jobs tells the same of all",
	"GET /presets/{preset}":               "GET /presets tells the same of all",
	"GET /users/{user}":                   "GET /users tells the same of all",
	"GET /vdisks/{vdisk}/stats":           "performance of GET /vdisks/{vdisk}, and the events, tell the same",
	"GET /vsphere/centers/{center}":       "GET /vsphere/centers tells the same of all",
	"GET /vsphere/datastores/{datastore}": "GET /vsphere/datastores tells the same of all",
	"GET /vsphere/rdms/{rdm}":             "GET /vsphere/rdms tells the same of all",

	// For programs alone.
	"POST /oauth2/token":                "gives tokens to clients",
	"POST /oauth2/revoke":               "ends tokens of clients",
	"GET /openapi.yaml":                 "generates clients",
	"POST /cluster/join":                "ovgate cluster join, on the machine that is to be a node",
	"POST /snapshotGroups/{group}/go":   "nodes ask each other, within POST /snapshotGroups",
	"POST /snapshotGroups/{group}/rest": "nodes ask each other, within POST /snapshotGroups",
	"DELETE /snapshotGroups/{group}":    "nodes ask each other, within POST /snapshotGroups",
}

// opPattern finds the operations in src/api/gen.ts, callPattern those that a source names.
var (
	opPattern   = regexp.MustCompile(`(?m)^  "((?:GET|POST|PUT|PATCH|DELETE) /[^"]*)":`)
	callPattern = regexp.MustCompile(`"((?:GET|POST|PUT|PATCH|DELETE) /[^"]*)"`)
)

// TestOperationsInConsole fails for an operation of the API that the console does not call, but for those of which
// notInConsole says why.
func TestOperationsInConsole(t *testing.T) {
	gen := filepath.Join("..", "src", "api", "gen.ts")
	source, err := os.ReadFile(gen)
	if err != nil {
		t.Fatal(err)
	}
	ops := map[string]bool{}
	for _, m := range opPattern.FindAllSubmatch(source, -1) {
		ops[string(m[1])] = true
	}
	if len(ops) < 100 {
		t.Fatalf("%d operations found in gen.ts: is its form another one?", len(ops))
	}
	called := map[string]bool{}
	err = filepath.WalkDir(filepath.Join("..", "src"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == gen || !strings.HasPrefix(filepath.Ext(path), ".ts") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range callPattern.FindAllSubmatch(text, -1) {
			called[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for op := range ops {
		reason, listed := notInConsole[op]
		switch {
		case called[op] && listed:
			t.Errorf("the console calls %s: take it out of notInConsole", op)
		case !called[op] && reason == "":
			t.Errorf("the console does not call %s: build that, or say in notInConsole why not", op)
		}
	}
	for op := range notInConsole {
		if !ops[op] {
			t.Errorf("notInConsole has %s, which is no operation", op)
		}
	}
}
