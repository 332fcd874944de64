// Package importgraph keeps the rules of the house: which room may import
// which, and what engine packages may not touch. Its test reads the whole tree
// and fails on the first breach; nothing else uses it.
//
// # Rules (ARCHITECTURE.md, section 2)
//
//	G1  iscsi, volumedriver, alba and each integration import no other room;
//	    only volumedriver/backend/alba imports alba/client. gateway imports all.
//	    integrations/vsphere/esxsim, whose hosts log in to targets, imports
//	    iscsi/initiator.
//	    internal imports none. Nothing imports scripts. Tests obey too, but for
//	    those of volumedriver/volume, which run over alba/albatest as over any
//	    store. ui/e2e is a test of the whole node and imports what it needs.
//	G2  echo is known to gateway/api alone (and to tests that run its server),
//	    gotgt to the file iscsi/gotgt.go alone.
//	G3  Engine packages take clock, files, network and randomness as parameters:
//	    no time.Now, os.*, net.Dial and the like in them (forbidden below).
//	    Their tests, and packages named ...test, may.
//	G4  Every implementation of an interface that has a conformance suite runs it.
//
// It does not look at what interfaces hide: a parameter that is handed the real
// clock is what the rules ask for.
package importgraph

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// Module is the path that all rooms' import paths begin with.
const Module = "github.com/openvstorage/ovgate"

// Package is what the rules need to know of a package.
type Package struct {
	Dir          string
	ImportPath   string
	GoFiles      []string // without tests
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// Load lists the packages of the module that holds dir, with their direct
// imports.
func Load(dir string) ([]Package, error) {
	cmd := exec.Command("go", "list", "-json=Dir,ImportPath,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports", Module+"/...")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var pkgs []Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p Package
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}

// rel returns an import path within the module; false outside it.
func rel(path string) (string, bool) {
	if path == Module {
		return "", true
	}
	return strings.CutPrefix(path, Module+"/")
}

// room returns the room of a path within the module. Each integration is a
// room of its own.
func room(path string) string {
	parts := strings.SplitN(path, "/", 3)
	if parts[0] == "integrations" && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

// mayImport is rule G1 for two paths within the module.
func mayImport(from, to string) bool {
	f, t := room(from), room(to)
	switch {
	case f == t, f == "scripts", from == "ui/e2e" && t != "scripts":
		return true
	case t == "scripts":
		return false
	case t == "internal":
		return f != "internal"
	case f == "gateway":
		return true
	case from == "integrations/vsphere/esxsim":
		return to == "iscsi/initiator" // its hosts are initiators
	case from == "volumedriver/backend/alba":
		return to == "alba/client" || to == "alba/albatest" // for its tests
	}
	return false
}

// Imports returns the breaches of G1 and, of G2, echo's.
func Imports(pkgs []Package) []string {
	var bad []string
	for _, p := range pkgs {
		from, ok := rel(p.ImportPath)
		if !ok {
			continue
		}
		all := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		slices.Sort(all)
		for _, imp := range slices.Compact(all) {
			if to, ok := rel(imp); ok && !mayImport(from, to) && !asStore(p, from, imp) {
				bad = append(bad, fmt.Sprintf("G1: %s imports %s", from, to))
			}
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "github.com/labstack/echo") && from != "gateway/api" {
				bad = append(bad, fmt.Sprintf("G2: %s imports echo: only gateway/api may", from))
			}
		}
	}
	return bad
}

// asStore reports whether an import is that of an object store by the tests of the vDisk
// engine alone (G1).
func asStore(p Package, from, imp string) bool {
	return from == "volumedriver/volume" && imp == Module+"/alba/albatest" && !slices.Contains(p.Imports, imp)
}

// suites are the conformance suites and the packages below which every
// implementation lives.
var suites = map[string]string{
	"volumedriver/backend/": "volumedriver/backend/backendtest",
	"alba/osd/":             "alba/osd/osdtest",
}

// Conformance returns the breaches of G4.
func Conformance(pkgs []Package) []string {
	var bad []string
	for _, p := range pkgs {
		from, _ := rel(p.ImportPath)
		for below, suite := range suites {
			if !strings.HasPrefix(from, below) || from == suite || strings.Contains(from[len(below):], "/") {
				continue
			}
			tests := slices.Concat(p.TestImports, p.XTestImports)
			if !slices.Contains(tests, Module+"/"+suite) {
				bad = append(bad, fmt.Sprintf("G4: the tests of %s do not run %s", from, suite))
			}
		}
	}
	return bad
}
