package importgraph

import (
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// TestTree holds the rules over the tree as it is.
func TestTree(t *testing.T) {
	pkgs, err := Load(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 10 {
		t.Fatalf("only %d packages found: the tree was not read", len(pkgs))
	}
	seams, err := Seams(pkgs)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range slices.Concat(Imports(pkgs), Conformance(pkgs), seams) {
		t.Error(b)
	}
}

// TestExceptionsNeeded: an exception that nothing uses any more goes.
func TestExceptionsNeeded(t *testing.T) {
	pkgs, err := Load(".")
	if err != nil {
		t.Fatal(err)
	}
	all := exceptions
	defer func() { exceptions = all }()
	for i, e := range all {
		exceptions = slices.Delete(slices.Clone(all), i, i+1)
		bad, err := Seams(pkgs)
		if err != nil {
			t.Fatal(err)
		}
		if len(bad) == 0 {
			t.Errorf("exception %q for %s is not needed: remove it", e.use, e.where)
		}
	}
}

func TestMayImport(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		want     bool
	}{
		{"iscsi", "internal/clock", true},
		{"iscsi/initiator", "iscsi", true},
		{"iscsi", "volumedriver/volume", false},
		{"iscsi", "gateway/model", false},
		{"volumedriver/volume", "iscsi", false},
		{"volumedriver/volume", "volumedriver/backend", true},
		{"volumedriver/backend/alba", "alba/client", true},
		{"volumedriver/backend/alba", "alba/osd", false},
		{"volumedriver/volume", "alba/client", false},
		{"alba/client", "volumedriver/backend", false},
		{"integrations/cinder", "integrations/vsphere", false},
		{"integrations/cinder", "gateway/api", false},
		{"integrations/vsphere/esxsim", "iscsi/initiator", true},
		{"integrations/vsphere/esxsim", "iscsi", false},
		{"integrations/vsphere", "iscsi/initiator", false},
		{"integrations/cinder", "internal/client", true},
		{"gateway/cmd/ovgate", "volumedriver/volume", true},
		{"gateway/cmd/ovgate", "ui", true},
		{"gateway/api", "scripts/drill/node", false},
		{"internal/kv", "internal/clock", true},
		{"internal/kv", "volumedriver/volume", false},
		{"internal/client", "gateway/api", false},
		{"ui", "gateway/api", false},
		{"ui/e2e", "gateway/node", true},
		{"ui/e2e", "scripts/drill/node", false},
		{"scripts/bench", "volumedriver/volume", true},
	} {
		if got := mayImport(tc.from, tc.to); got != tc.want {
			t.Errorf("%s may import %s: %v, want %v", tc.from, tc.to, got, tc.want)
		}
	}
}

func TestImportsReported(t *testing.T) {
	pkgs := []Package{
		{ImportPath: Module + "/iscsi", TestImports: []string{Module + "/volumedriver/volume", "fmt"}},
		{ImportPath: Module + "/volumedriver/volume", TestImports: []string{Module + "/alba/albatest", Module + "/alba/osd"}},
		{ImportPath: Module + "/volumedriver/cache", TestImports: []string{Module + "/alba/albatest"}},
		{ImportPath: Module + "/gateway/auth", Imports: []string{"github.com/labstack/echo/v4"}},
		{ImportPath: Module + "/gateway/api", Imports: []string{"github.com/labstack/echo/v4"}},
		{ImportPath: Module + "/volumedriver/backend/swift"},
		{ImportPath: Module + "/volumedriver/backend/local", XTestImports: []string{Module + "/volumedriver/backend/backendtest"}},
		{ImportPath: Module + "/volumedriver/backend/backendtest"},
	}
	got := strings.Join(append(Imports(pkgs), Conformance(pkgs)...), "\n")
	want := strings.Join([]string{
		"G1: iscsi imports volumedriver/volume",
		"G1: volumedriver/volume imports alba/osd",
		"G1: volumedriver/cache imports alba/albatest",
		"G2: gateway/auth imports echo: only gateway/api may",
		"G4: the tests of volumedriver/backend/swift do not run volumedriver/backend/backendtest",
	}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSeamsReported(t *testing.T) {
	for _, tc := range []struct {
		file, source, want string
	}{
		{"volumedriver/x/x.go", `import "time"; var _ = time.Now`, "G3: volumedriver/x/x.go:1 uses time.Now: take it as a parameter"},
		{"volumedriver/x/x.go", `import "time"; const d = time.Second`, ""},
		{"volumedriver/x/x.go", `import clk "time"; var _ = clk.Sleep`, "G3: volumedriver/x/x.go:1 uses time.Sleep: take it as a parameter"},
		{"volumedriver/x/x.go", `import "os"; var _ = os.ErrNotExist`, "G3: volumedriver/x/x.go:1 uses os.ErrNotExist: take it as a parameter"},
		{"volumedriver/x/x.go", `import . "os"; var _ = Open`, "G3: volumedriver/x/x.go imports os with a dot: its uses cannot be told"},
		{"alba/osd/x.go", `import "net"; var _ = net.Listen`, "G3: alba/osd/x.go:1 uses net.Listen: take it as a parameter"},
		{"iscsi/x.go", `import "net"; var _ net.Listener`, ""},
		{"iscsi/x.go", `import "math/rand/v2"; var _ = rand.Int`, "G3: iscsi/x.go:1 uses math/rand/v2.Int: take it as a parameter"},
		{"iscsi/x.go", `import "math/rand/v2"; var _ = rand.New(rand.NewPCG(1, 2))`, ""},
		{"gateway/x.go", `import "time"; var _ = time.Now`, ""},
		{"iscsi/gotgt.go", `import _ "github.com/gostor/gotgt/pkg/scsi"`, ""},
		{"iscsi/other.go", `import _ "github.com/gostor/gotgt/pkg/scsi"`, "G2: iscsi/other.go imports gotgt: only iscsi/gotgt.go may"},
		{"gateway/x.go", `import _ "github.com/gostor/gotgt/pkg/api"`, "G2: gateway/x.go imports gotgt: only iscsi/gotgt.go may"},
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, tc.file, "package x; "+tc.source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(fileSeams(fset, f, tc.file), "\n"); got != tc.want {
			t.Errorf("%s: %s\ngot  %q\nwant %q", tc.file, tc.source, got, tc.want)
		}
	}
}
