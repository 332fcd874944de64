package build

import (
	"bytes"
	"compress/gzip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// scriptLimit is the budget of the first load: 60 kB of compressed script load in about one second
// on a 0.5 Mbit/s line, and the console must open while a site has trouble.
const scriptLimit = 60_000

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
			t.Errorf("dist/%s is not what the source makes: run make ui and commit dist", name)
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok {
			t.Errorf("dist/%s is not made by the source: run make ui and commit dist", name)
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

func TestScriptStaysWithinBudget(t *testing.T) {
	_, files := bundle(t)
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(files["assets/app.js"]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("app.js: %d bytes, %d compressed", len(files["assets/app.js"]), packed.Len())
	if packed.Len() > scriptLimit {
		t.Errorf("app.js is %d bytes compressed, the budget is %d: split a page off or drop something", packed.Len(), scriptLimit)
	}
}

// TestNothingInlineOrForeign keeps invariant 2 of package ui: the strict content security policy.
func TestNothingInlineOrForeign(t *testing.T) {
	_, files := bundle(t)
	html := string(files["index.html"])
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
	if m := regexp.MustCompile(`url\("?(?:https?:)?//[^)]*`).FindString(string(files["assets/app.css"])); m != "" {
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
