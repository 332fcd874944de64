package api

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/openvstorage/ovgate/gateway/auth"
)

// notRead is what the rules let in and the console does not ask for, each with the reason.
var notRead = map[string]string{
	"/events":         "a stream, which it opens otherwise",
	"/alerts/metrics": "of a page that is not theirs",
	"/users/{user}":   "the session tells it",
}

// TestReadsOfConsole: the console reads for somebody with rights on some objects alone what the
// rules let them read, and does not ask for what they refuse.
func TestReadsOfConsole(t *testing.T) {
	b, err := os.ReadFile("../../ui/src/store/session.ts")
	if err != nil {
		t.Fatal(err)
	}
	source := string(b)
	list := regexp.MustCompile(`(?s)const scopedReads = \[(.*?)\];`).FindStringSubmatch(source)
	never := regexp.MustCompile(`const closed = /(.*?)/\.test\(path\)`).FindStringSubmatch(source)
	if list == nil || never == nil {
		t.Fatal("session.ts says it in another form")
	}
	closed := regexp.MustCompile(strings.ReplaceAll(never[1], `\/`, `/`))
	var begins []string
	for _, m := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(list[1], -1) {
		begins = append(begins, m[1])
	}
	reads := func(path string) bool {
		if closed.MatchString(path) {
			return false
		}
		for _, r := range begins {
			if path == r || strings.HasPrefix(path, r+"/") || path == r+"s" {
				return true
			}
		}
		return false
	}
	doc, err := openapi3.NewLoader().LoadFromData(Spec())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for path, item := range doc.Paths.Map() {
		op := item.Get
		if op == nil || rules[op.OperationID].public || rules[op.OperationID].role != auth.RoleRead {
			continue
		}
		n++
		let := rules[op.OperationID].reach != reachAll && notRead[path] == ""
		if let != reads(strings.TrimPrefix(path, "/")) {
			t.Errorf("GET %s: let in by the rules: %t, asked for by the console: %t", path, let, !let)
		}
	}
	if n < 50 {
		t.Errorf("%d operations", n)
	}
}
