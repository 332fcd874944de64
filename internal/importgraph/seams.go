package importgraph

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// engineRooms hold the engine packages of rule G3.
var engineRooms = []string{"iscsi", "volumedriver", "alba"}

// forbidden names, per import path, what an engine package may not use; "*"
// is everything. What is left of time and net are types and arithmetic.
var forbidden = map[string][]string{
	"time":         {"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Since", "Until"},
	"os":           {"*"},
	"os/exec":      {"*"},
	"os/signal":    {"*"},
	"net":          {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialUnix", "DialIP", "Dialer", "Listen", "ListenTCP", "ListenUDP", "ListenPacket", "ListenUnix", "ListenConfig"},
	"math/rand":    {"*"},
	"math/rand/v2": {"*"},
	"crypto/rand":  {"*"},
	"log":          {"*"},
	"log/slog":     {"Default", "SetDefault", "Info", "Warn", "Error", "Debug", "Log", "LogAttrs"},
}

// exception allows one use in one file or package.
type exception struct {
	where string // file, or package when it ends in "/"
	use   string // import path and name, as in "os.ReadFile"
	why   string
}

// constructors make a random source of a given seed, which is what the rule asks for.
var constructors = map[string]bool{
	"math/rand/v2.New": true, "math/rand/v2.NewPCG": true, "math/rand/v2.NewChaCha8": true,
	"math/rand/v2.Rand": true, "math/rand/v2.Source": true,
}

const lockWhy = "the lock that keeps a second process off a store's directory is the kernel's, not a file's content"

// exceptions are the uses of forbidden names that keep the rule's purpose.
var exceptions = []exception{
	{"volumedriver/volume/", "crypto/rand.Reader", "the default of HostOptions.Rand and of NewID when no source is given"},
	{"iscsi/", "crypto/rand.Reader", "the default of the server's random source when none is given"},
	{"iscsi/initiator/", "crypto/rand.Reader", "the default of Options.Rand"},
	{"iscsi/initiator/", "net.Dialer", "the default of Options.DialFunc"},
	{"volumedriver/backend/remote/transport.go", "net.Dialer", "connections to stores are those of net/http, with our times"},
	{"volumedriver/backend/s3/", "crypto/rand.Reader", "the default of Options.Rand"},
	{"volumedriver/backend/swift/", "crypto/rand.Reader", "the default of Options.Rand"},
	{"volumedriver/backend/local/lock.go", "os.OpenFile", lockWhy},
	{"volumedriver/backend/local/lock.go", "os.O_RDWR", lockWhy},
	{"volumedriver/backend/local/lock.go", "os.O_CREATE", lockWhy},
}

// allowed says whether an exception covers a use.
func allowed(file, use string) bool {
	for _, e := range exceptions {
		if e.use == use && (e.where == file || e.where == path.Dir(file)+"/") {
			return true
		}
	}
	return false
}

// Seams returns the breaches of G3 and, of G2, gotgt's.
func Seams(pkgs []Package) ([]string, error) {
	var bad []string
	for _, p := range pkgs {
		pkg, ok := rel(p.ImportPath)
		if !ok || strings.HasSuffix(pkg, "test") {
			continue // conformance suites and test helpers are tests
		}
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			bad = append(bad, fileSeams(fset, f, pkg+"/"+name)...)
		}
	}
	return bad, nil
}

// fileSeams checks one file without its tests; file is its path in the module.
func fileSeams(fset *token.FileSet, f *ast.File, file string) []string {
	var bad []string
	names := map[string]string{} // local name -> import path
	for _, imp := range f.Imports {
		p, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			continue // the compiler refuses it
		}
		if strings.HasPrefix(p, "github.com/gostor/gotgt") && file != "iscsi/gotgt.go" {
			bad = append(bad, fmt.Sprintf("G2: %s imports gotgt: only iscsi/gotgt.go may", file))
		}
		if _, ok := forbidden[p]; !ok {
			continue
		}
		name := path.Base(strings.TrimSuffix(p, "/v2"))
		if imp.Name != nil {
			name = imp.Name.Name
		}
		names[name] = p
		if isEngine(file) && name == "." {
			bad = append(bad, fmt.Sprintf("G3: %s imports %s with a dot: its uses cannot be told", file, p))
		}
	}
	if !isEngine(file) {
		return bad
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		id, ok := sel.X.(*ast.Ident)
		if !ok || names[id.Name] == "" {
			return true
		}
		use := names[id.Name] + "." + sel.Sel.Name
		if isForbidden(names[id.Name], sel.Sel.Name) && !allowed(file, use) {
			bad = append(bad, fmt.Sprintf("G3: %s:%d uses %s: take it as a parameter", file, fset.Position(sel.Pos()).Line, use))
		}
		return true
	})
	return bad
}

func isEngine(file string) bool {
	first, _, _ := strings.Cut(file, "/")
	for _, r := range engineRooms {
		if r == first {
			return true
		}
	}
	return false
}

func isForbidden(pkg, name string) bool {
	if constructors[pkg+"."+name] {
		return false
	}
	for _, n := range forbidden[pkg] {
		if n == "*" || n == name {
			return true
		}
	}
	return false
}
