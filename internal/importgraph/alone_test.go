package importgraph

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// startsGoroutine tells where a file starts a goroutine, or has the testing package do it;
// "" if nowhere.
func startsGoroutine(fset *token.FileSet, f *ast.File) (where string) {
	ast.Inspect(f, func(n ast.Node) bool {
		found := false
		switch n := n.(type) {
		case *ast.GoStmt:
			found = true
		case *ast.SelectorExpr:
			switch n.Sel.Name {
			case "Go", "Parallel", "RunParallel", "AfterFunc", "NewServer", "NewTLSServer":
				found = true
			}
		}
		if found && where == "" {
			where = fset.Position(n.Pos()).String()
		}
		return where == ""
	})
	return where
}

// TestAlone: packages that scripts/test leaves out of the area race, as nothing runs beside
// anything there, are like that.
func TestAlone(t *testing.T) {
	b, err := os.ReadFile("../../scripts/test")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^alone='(.*)'$`).FindSubmatch(b)
	if m == nil {
		t.Fatal("scripts/test does not tell which packages are left out of the area race")
	}
	alone, err := regexp.Compile(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	pkgs, err := Load(".")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, p := range pkgs {
		path, _ := rel(p.ImportPath)
		if !alone.MatchString("/" + path) {
			continue
		}
		count++
		for _, name := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if at := startsGoroutine(fset, f); at != "" {
				t.Errorf("%s starts a goroutine: take %s out of alone in scripts/test", at, path)
			}
		}
		for _, i := range slices.Concat(p.TestImports, p.XTestImports) { // suites that do it for who calls them
			if path, ours := rel(i); ours && strings.HasSuffix(path, "test") {
				t.Errorf("the tests of %s import %s: take it out of alone in scripts/test", p.ImportPath, i)
			}
		}
	}
	if count == 0 {
		t.Error("no package is left out")
	}
}

func TestStartsGoroutine(t *testing.T) {
	for src, want := range map[string]bool{
		"var _ = 1": false, "func f() { g() }": false,
		"func f() { go g() }": true, "func f() { wg.Go(g) }": true, "func TestX(t *testing.T) { t.Parallel() }": true, "var s = httptest.NewServer(nil)": true,
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "x.go", "package x\n"+src, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := startsGoroutine(fset, f) != ""; got != want {
			t.Errorf("%s: %v", src, got)
		}
	}
}
