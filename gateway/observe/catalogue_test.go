package observe

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// codesInCode are the codes that the package's checks can tell, found in their source: the
// second argument of each call of add, and the third of each call of space.
func codesInCode(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			fun, ok := call.Fun.(*ast.Ident)
			if !ok || fun.Name != "add" && fun.Name != "space" || len(call.Args) < 3 {
				return true
			}
			if fun.Name == "space" {
				out[literal(t, call.Args[2])+"_full"], out[literal(t, call.Args[2])+"_filling"] = true, true
				return true
			}
			switch code := call.Args[1].(type) {
			case *ast.BasicLit:
				out[literal(t, code)] = true
			case *ast.BinaryExpr: // of space, and of the states of a vDisk
				if lit, ok := code.X.(*ast.BasicLit); ok {
					for state := range stateChecks {
						out[literal(t, lit)+string(state)] = true
					}
				}
			default:
				t.Errorf("%s: a code that is not read here: %T", name, code)
			}
			return true
		})
	}
	return out
}

func literal(t *testing.T, e ast.Expr) string {
	t.Helper()
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		t.Fatalf("%T is no literal", e)
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCatalogue: the catalogue has every code that the checks can tell and no other, sorted,
// and the table of README.md is what it says.
func TestCatalogue(t *testing.T) {
	inCode := codesInCode(t)
	if len(inCode) < 40 {
		t.Fatalf("%d codes found in the source", len(inCode))
	}
	all := Catalogue()
	if !slices.IsSortedFunc(all, func(a, b About) int { return strings.Compare(a.Code, b.Code) }) {
		t.Error("not sorted")
	}
	var table strings.Builder
	table.WriteString("| code | state | what it means | within | remedy |\n|---|---|---|---|---|\n")
	for _, a := range all {
		if !inCode[a.Code] {
			t.Errorf("no check tells %s", a.Code)
		}
		delete(inCode, a.Code)
		if a.Means == "" || a.Remedy == "" || a.Within <= 0 || a.Level.rank() == 0 {
			t.Errorf("%+v says too little", a)
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s |\n", a.Code, a.Level, a.Means, strings.NewReplacer("h0m0s", "h", "m0s", "m").Replace(a.Within.String()), a.Remedy)
	}
	for code := range inCode {
		t.Errorf("the catalogue lacks %s", code)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), table.String()) {
		t.Errorf("README.md has not this table:\n%s", table.String())
	}
}
