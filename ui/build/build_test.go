package build

import (
	"bytes"
	"compress/gzip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// firstLoadLimit is the budget of what the overview needs, compressed: it loads in about 1.5 s on a 0.5 Mbit/s
// line, and the console must open while a site has trouble.
const firstLoadLimit = 90_000

// imported finds the scripts that a script needs before it runs.
var imported = regexp.MustCompile(`(?:from|import)\s*"/assets/([^"/]+\.js)"`)

func bundle(t *testing.T) (string, map[string][]byte) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files, err := Bundle(root)
	if err != nil {
		t.Fatal(err)
	}
	return root, files
}

// TestDistIsCurrent fails when dist was not rebuilt after a change of the source.
func TestDistIsCurrent(t *testing.T) {
	root, want := bundle(t)
	have, err := List(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, contents := range want {
		if !bytes.Equal(have[name], contents) {
			t.Errorf("%s is not what the source makes: run make ui and commit it", name)
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is not made by the source: run make ui and commit dist", name)
		}
	}
}

// TestBundleIsRepeatable keeps invariant 1: equal source, equal bytes.
func TestBundleIsRepeatable(t *testing.T) {
	_, first := bundle(t)
	_, second := bundle(t)
	for name := range first {
		if !bytes.Equal(first[name], second[name]) {
			t.Errorf("%s differs between two builds of the same source", name)
		}
	}
}

func TestFirstLoadStaysWithinBudget(t *testing.T) {
	_, files := bundle(t)
	need := []string{"app.js", "app.css", "plot.js"} // the overview has charts
	for i := 0; i < len(need); i++ {
		for _, m := range imported.FindAllSubmatch(files["dist/assets/"+need[i]], -1) {
			if name := string(m[1]); !slices.Contains(need, name) {
				need = append(need, name)
			}
		}
	}
	if len(need) == 3 {
		t.Fatal("app.js shares nothing with the pages that load later: are its imports found?")
	}
	sum := 0
	for _, name := range need {
		contents := files["dist/assets/"+name]
		if len(contents) == 0 {
			t.Fatalf("%s is not in the bundle", name)
		}
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(contents); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes, %d compressed", name, len(contents), packed.Len())
		sum += packed.Len()
	}
	if sum > firstLoadLimit {
		t.Errorf("the first load is %d bytes compressed, the budget is %d: split pages off or drop something", sum, firstLoadLimit)
	}
}

// TestNothingInlineOrForeign keeps invariant 2 of package ui: the strict content security policy.
func TestNothingInlineOrForeign(t *testing.T) {
	_, files := bundle(t)
	html := string(files["dist/index.html"])
	for name, pattern := range map[string]string{
		"an inline script":    `(?i)<script(?:\s[^>]*)?>[^<]`,
		"an inline style":     `(?i)<style|\sstyle=`,
		"an inline handler":   `(?i)\son[a-z]+=`,
		"another host's file": `(?i)(?:src|href)="(?:https?:)?//`,
	} {
		if m := regexp.MustCompile(pattern).FindString(html); m != "" {
			t.Errorf("index.html holds %s: %q", name, m)
		}
	}
	if m := regexp.MustCompile(`url\("?(?:https?:)?//[^)]*`).FindString(string(files["dist/assets/app.css"])); m != "" {
		t.Errorf("app.css loads another host's file: %s", m)
	}
	for name, contents := range files {
		for _, call := range []string{"eval(", "new Function("} {
			if strings.HasSuffix(name, ".js") && strings.Contains(string(contents), call) {
				t.Errorf("%s calls %s, which the policy forbids", name, call)
			}
		}
	}
}
