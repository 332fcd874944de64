package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Complaints of the list: those of the documents, and those of source and issues.
const complaints = 39

var named = regexp.MustCompile("`([a-z0-9/_]+) (Test[A-Za-z0-9]+)`")

// TestComplaints: the table has every complaint once, in order, with an answer; each test that
// it names is there (D1).
func TestComplaints(t *testing.T) {
	b, err := os.ReadFile("complaints.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 4 {
			continue
		}
		number, err := strconv.Atoi(strings.TrimSpace(cells[0]))
		if err != nil {
			continue // the head of the table
		}
		if rows++; number != rows {
			t.Errorf("row %d is numbered %d", rows, number)
		}
		for i, c := range cells {
			if strings.TrimSpace(c) == "" {
				t.Errorf("complaint %d: column %d is empty", number, i+1)
			}
		}
		tests := named.FindAllStringSubmatch(cells[3], -1)
		if len(tests) == 0 || len(tests) != strings.Count(cells[3], "`")/2 {
			t.Errorf("complaint %d names %d tests in %q", number, len(tests), cells[3])
		}
		for _, n := range tests {
			if !declared(t, n[1], n[2]) {
				t.Errorf("complaint %d: there is no %s in %s", number, n[2], n[1])
			}
		}
	}
	if rows != complaints {
		t.Errorf("%d complaints, want %d", rows, complaints)
	}
	if declared(t, "gateway/docs", "TestNothing") {
		t.Error("a test is found that is not there")
	}
}

// declared tells whether a folder, from the root of the repository, has a test.
func declared(t *testing.T, folder, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", folder, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Errorf("no tests in %s: %v", folder, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nfunc "+test+"(t *testing.T)") {
			return true
		}
	}
	return false
}

// documents returns the pages of this folder.
func documents(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("*.md")
	if err != nil || len(names) < 5 {
		t.Fatalf("pages %v, %v", names, err)
	}
	out := map[string]string{}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		out[n] = string(b)
	}
	return out
}

// TestNamed: tests, drills and links that pages name are there (D1, D2).
func TestNamed(t *testing.T) {
	drills, err := os.ReadFile("../../scripts/drill/main.go")
	if err != nil {
		t.Fatal(err)
	}
	tests, asked, links := 0, 0, 0
	for page, text := range documents(t) {
		for _, n := range named.FindAllStringSubmatch(text, -1) {
			tests++
			if !declared(t, n[1], n[2]) {
				t.Errorf("%s: there is no %s in %s", page, n[2], n[1])
			}
		}
		for _, m := range regexp.MustCompile(`\bdrills? ([a-z0-9-]+(?:, [a-z0-9]+-[a-z0-9-]+)*)`).FindAllStringSubmatch(text, -1) {
			for name := range strings.SplitSeq(m[1], ", ") {
				asked++
				if name != "rolling-upgrade" && !strings.Contains(string(drills), `{"`+name+`",`) {
					t.Errorf("%s: there is no drill %s", page, name)
				}
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
			links++
			file, anchor, _ := strings.Cut(m[1], "#")
			if file == "" {
				file = page
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Errorf("%s: %v", page, err)
			} else if anchor != "" && !slices.Contains(anchors(string(b)), anchor) {
				t.Errorf("%s: %s has no heading #%s", page, file, anchor)
			}
		}
	}
	if tests == 0 || asked == 0 || links == 0 {
		t.Errorf("%d tests, %d drills and %d links are named", tests, asked, links)
	}
}

// anchors returns the headings of a page as links name them.
func anchors(text string) (out []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		a := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(a, " ", "-"))
	}
	return out
}
