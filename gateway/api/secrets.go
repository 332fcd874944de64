package api

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/openvstorage/ovgate/gateway/observe/audit"
)

// secretName matches fields whose content is told to nobody, and all that is below them.
var secretName = regexp.MustCompile(`(?i)password|passphrase|secret|token|key$|credential`)

// openNames are fields that match secretName and hold none.
var openNames = map[string]bool{"sseKey": true}

// hidden stands for a secret.
const hidden = "(secret)"

// maxDepth bounds how deep fields are told apart; what is below is one text.
const maxDepth = 6

// changes lists the fields that a body sets, beside what they were. What does not change is
// left out, secrets never are.
func changes(body, before map[string]any) []audit.Change {
	var out []audit.Change
	flatten("", body, before, before != nil, 0, &out)
	return out
}

func flatten(at string, v, before any, known bool, depth int, out *[]audit.Change) {
	if m, ok := v.(map[string]any); ok && depth < maxDepth {
		was, _ := before.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(m)) {
			field := strings.TrimPrefix(at+"."+name, ".")
			if isSecret(name, m[name]) {
				*out = append(*out, audit.Change{Field: field, After: hidden})
				continue
			}
			old, there := was[name]
			flatten(field, m[name], old, known && there, depth+1, out)
		}
		return
	}
	tell := text
	if at == "ca" || strings.HasSuffix(at, ".ca") {
		tell = digest
	}
	c := audit.Change{Field: at, After: tell(v)}
	if known {
		if c.Before = new(tell(before)); *c.Before == c.After {
			return
		}
	}
	*out = append(*out, c)
}

// isSecret: a switch or a number of such a name is none.
func isSecret(name string, v any) bool {
	switch v.(type) {
	case bool, json.Number, nil:
		return false
	}
	return secretName.MatchString(name) && !openNames[name]
}

// digest stands for a file, of which nobody knows whether it is the one that was meant.
func digest(v any) string {
	if s, ok := v.(string); ok && s != "" {
		return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s)))
	}
	return text(v)
}

// text writes a value without the secrets in it.
func text(v any) string {
	if s, ok := v.(string); ok {
		return withoutUserinfo(s)
	}
	b, err := json.Marshal(without(v))
	if err != nil {
		return "?"
	}
	return string(b)
}

// without returns a value without the secrets in it.
func without(v any) any {
	switch v := v.(type) {
	case string:
		return withoutUserinfo(v)
	case []any:
		out := make([]any, 0, len(v))
		for _, e := range v {
			out = append(out, without(e))
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, e := range v {
			if out[name] = hidden; !isSecret(name, e) {
				out[name] = without(e)
			}
		}
		return out
	}
	return v
}

// withoutUserinfo hides what a URL may have beside its place: a password, a query.
func withoutUserinfo(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return hidden
	}
	if u.User != nil {
		u.User = url.User(hidden)
	}
	if u.RawQuery != "" {
		u.RawQuery = hidden
	}
	u.Fragment = ""
	return u.String()
}
