package build

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// texts returns the catalogue of a source, and what it lacks.
func texts(t *testing.T, source string) (map[string]string, []unmarked) {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "src", "page.tsx"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	catalogue, left, err := readTexts(root)
	if err != nil {
		t.Fatal(err)
	}
	return catalogue, left
}

func TestTexts(t *testing.T) {
	got, left := texts(t, "const odd = /[`\"']/.test(a / b) ? `x-${c}` : '`';\n"+
		"export const all = [msg`Create vDisk`, msg`On ${n > 1 ? msg`${n} \\`disks\\`` : `disk-${n}`} now`, noun`vDisk`, noun`entry|entries`,\n"+
		"  <p class=\"muted small\">{rich`See ${<Link to=\"/a b\">{msg`don't }`}</Link>}\u00a0and ${{ a: 1 }.a}.`}</p>]; // msg`no`\n")
	want := []string{"Create vDisk", "On {0} now", "See {0}\u00a0and {1}.", "don't }", "entry|entries", "vDisk|vDisks", "{0} `disks`"}
	if have := slices.Sorted(maps.Keys(got)); !slices.Equal(have, want) || len(left) > 0 {
		t.Errorf("the texts are %q, not %q; and %v", have, want, left)
	}
}

// TestTextsLeft: what people read is found where it has no tag, and names, commands and addresses are not.
func TestTextsLeft(t *testing.T) {
	for source, want := range map[string]string{
		`<p>It stays.</p>`:                                  "It stays.",
		`<p>It has <b>{n}</b> disks</p>`:                    "It has ",
		`<Field label="Name" />`:                            "Name",
		`<Field label={late ? "a" : "The node is away"} />`: "The node is away",
		"<Field title={`Delete ${n}`} />":                   "Delete {0}",
		`toast("ok", "Labels were set")`:                    "Labels were set",
		`<code>{"ovgate vdisk list"}</code>`:                "",
		`<input placeholder="rack-3" aria-label={name} />`:  "",
		`call("GET /vdisks", { query: { sort: "name" } })`:  "",
		`<Choice text="OpenStack Swift" value="swift" />`:   "",
		`<Field hint="https://s3.example.org" />`:           "",
		`document.querySelector("main .btn.primary")`:       "",
	} {
		_, left := texts(t, "export const x = "+source+";")
		var have []string
		for _, u := range left {
			have = append(have, u.text)
		}
		if got := strings.Join(have, "|"); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: found %q, not %q", source, got, want)
		}
	}
}

// TestTranslation: a translation has texts of the catalogue only, with the same values.
func TestTranslation(t *testing.T) {
	catalogue := map[string]string{"On {0} of {1}": "On {0} of {1}", "Save": "Save"}
	for words, want := range map[string]string{
		`{"On {0} of {1}": "{1} davon {0}", "Save": "Sichern"}`: "",
		`{"On {0} of {1}": "{1} davon"}`:                        "other values",
		`{"Save": " Sichern"}`:                                  "spaces",
		`{"Keep": "Sichern"}`:                                   "not in the catalogue",
	} {
		var w map[string]string
		if err := json.Unmarshal([]byte(words), &w); err != nil {
			t.Fatal(err)
		}
		all := checkTranslation("de.json", catalogue, w)
		if want == "" && len(all) > 0 || want != "" && (len(all) != 1 || !strings.Contains(all[0].Error(), want)) {
			t.Errorf("%s: %v", words, all)
		}
	}
}

// TestTranslationIsBundled: a translation beside the catalogue is a language of the console.
func TestTranslationIsBundled(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	if err := os.CopyFS(filepath.Join(copied, "src"), os.DirFS(filepath.Join(root, "src"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, "third_party"), filepath.Join(copied, "third_party")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(copied, "strings"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, "strings", "de.json"), []byte(`{"Create vDisk": "vDisk anlegen"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := Bundle(copied)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(files["dist/assets/lang-de.json"]); got != `{"Create vDisk":"vDisk anlegen"}` {
		t.Errorf("the translation is %s", got)
	}
	known := false
	for name, contents := range files {
		known = known || strings.HasSuffix(name, ".js") && strings.Contains(string(contents), `["de"]`)
	}
	if !known {
		t.Error("the console does not know the language")
	}
}
