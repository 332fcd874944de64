package cinder

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The name of __init__.py begins with _, which a folder's pattern would leave out.
//
//go:embed driver/ovgate_cinder/*.py
var driverFiles embed.FS

const (
	driverPackage = "ovgate_cinder"
	driverSource  = "driver/" + driverPackage
	initFile      = "__init__.py"
	compiledDir   = "__pycache__"
	// mark is in the __init__.py of every version of the driver (invariant 1).
	mark = `"""Cinder volume driver for ovgate."""`
	// tempPrefix begins the names of files in the making; Python ignores them.
	tempPrefix = ".ovgate-"
	// pythonTimeout bounds the questions to a Python: it starts in 20 ms.
	pythonTimeout = 30 * time.Second
	// DriverClass is what volume_driver of cinder.conf names.
	DriverClass = driverPackage + ".iscsi.OVGateISCSIDriver"
)

// ErrForeign: what is there is not ovgate's; nothing changed.
var ErrForeign = errors.New("not of ovgate")

// Change is something that an installation does.
type Change struct {
	Action string // make, write or remove
	Path   string
}

var versionLine = regexp.MustCompile(`(?m)^ +VERSION = '([0-9.]+)'$`)

// DriverVersion returns the version of the driver that this package carries.
func DriverVersion() string {
	text, err := driverFiles.ReadFile(driverSource + "/iscsi.py")
	if m := versionLine.FindSubmatch(text); err == nil && m != nil {
		return string(m[1])
	}
	return ""
}

// Install makes DIR/ovgate_cinder the driver that this package carries, and returns
// what it changed, or with dryRun would change: nothing when it is there already.
// After an error the changes before it are done; repeating it goes on.
func Install(dir string, dryRun bool) ([]Change, error) {
	to := filepath.Join(dir, driverPackage)
	have, err := ours(to)
	if err != nil {
		return nil, err
	}
	w := worker{dryRun: dryRun}
	if have == nil {
		w.do("make", to, func() error {
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
			return os.Chmod(to, 0o755) // whatever the umask is: Cinder is another user
		})
	}
	all, err := driverFiles.ReadDir(driverSource)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, f := range all { // by name: __init__.py is the first
		text, err := driverFiles.ReadFile(path.Join(driverSource, f.Name()))
		if err != nil {
			return w.done, err
		}
		name := filepath.Join(to, f.Name())
		wanted[f.Name()] = true
		if same(name, text) {
			continue
		}
		w.do("write", name, func() error { return writeWhole(name, text) })
	}
	for _, f := range have {
		if left := strings.HasPrefix(f, tempPrefix); left || strings.HasSuffix(f, ".py") && !wanted[f] {
			w.remove(filepath.Join(to, f))
		}
	}
	return w.done, w.err
}

// Uninstall removes the driver from a directory, and returns what it changed, or with
// dryRun would change. Files that are not the driver's stay, with the folder.
func Uninstall(dir string, dryRun bool) ([]Change, error) {
	from := filepath.Join(dir, driverPackage)
	have, err := ours(from)
	if err != nil || have == nil {
		return nil, err
	}
	w := worker{dryRun: dryRun}
	compiled, err := filepath.Glob(filepath.Join(from, compiledDir, "*.pyc"))
	if err != nil {
		return nil, err
	}
	for _, f := range compiled {
		w.remove(f)
	}
	kept := 0
	for _, f := range have {
		switch {
		case f == initFile:
		case strings.HasSuffix(f, ".py") || strings.HasPrefix(f, tempPrefix):
			w.remove(filepath.Join(from, f))
		case f == compiledDir:
			rest, err := os.ReadDir(filepath.Join(from, f))
			if err == nil && (len(rest) == 0 || dryRun && len(rest) == len(compiled)) {
				w.remove(filepath.Join(from, f))
			} else {
				kept++
			}
		default:
			kept++
		}
	}
	if slices.Contains(have, initFile) {
		w.remove(filepath.Join(from, initFile))
	}
	if kept == 0 {
		w.remove(from)
	}
	return w.done, w.err
}

// worker does one thing after the other, until one fails.
type worker struct {
	dryRun bool
	done   []Change
	err    error
}

func (w *worker) do(action, path string, f func() error) {
	if w.err != nil {
		return
	}
	if !w.dryRun {
		if w.err = f(); w.err != nil {
			return
		}
	}
	w.done = append(w.done, Change{action, path})
}

func (w *worker) remove(path string) {
	w.do("remove", path, func() error { return os.Remove(path) })
}

// ours lists a folder of the driver; nil: there is none. ErrForeign if it is somebody
// else's (invariant 1).
func ours(dir string) ([]string, error) {
	foreign := func(why string) error {
		return fmt.Errorf("%s is %w: %s; move it away, or name another directory", dir, ErrForeign, why)
	}
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.IsDir():
		return nil, foreign("it is no directory")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	have := []string{}
	begun := true // and cut off before the first file had its name
	for _, e := range entries {
		have = append(have, e.Name())
		begun = begun && strings.HasPrefix(e.Name(), tempPrefix)
	}
	if begun {
		return have, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, initFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if !bytes.Contains(text, []byte(mark)) {
		return nil, foreign("its " + initFile + " does not say that it is ovgate's driver")
	}
	return have, nil
}

// same tells whether a file is there as it should be.
func same(name string, text []byte) bool {
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o444 != 0o444 {
		return false
	}
	have, err := os.ReadFile(name)
	return err == nil && bytes.Equal(have, text)
}

// writeWhole replaces a file durably (invariant 2).
func writeWhole(name string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), tempPrefix+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	for _, step := range []func() error{func() error { return f.Chmod(0o644) }, f.Sync} {
		if err == nil {
			err = step()
		}
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Python is what a Python says about itself.
type Python struct {
	Dir    string   `json:"dir"`    // where it wants what is not of its distribution
	Path   []string `json:"path"`   // where it looks for modules, in this order
	Driver string   `json:"driver"` // the folder in which it finds the driver; empty: it does not
}

// askPython is isolated (-I), as a service is: neither the working directory nor
// variables of the environment count.
const askPython = `
import importlib.util, json, os, sys, sysconfig
found = importlib.util.find_spec("` + driverPackage + `")
print(json.dumps({"dir": sysconfig.get_path("purelib"), "path": sys.path,
                  "driver": os.path.dirname(found.origin) if found and found.origin else ""}))
`

// AskPython asks a Python, a program, where it looks for modules.
func AskPython(ctx context.Context, program string) (Python, error) {
	ctx, cancel := context.WithTimeout(ctx, pythonTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-I", "-c", askPython)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var p Python
	if err == nil {
		err = json.Unmarshal(out, &p)
	}
	if err == nil && !filepath.IsAbs(p.Dir) {
		err = errors.New("it has no directory for modules")
	}
	if err != nil {
		last := strings.TrimSpace(stderr.String())
		last = last[strings.LastIndexByte(last, '\n')+1:]
		return p, fmt.Errorf("%s does not say where it looks for modules: %w %s; name the Python of cinder-volume with --python, or a directory with --dir", program, err, last)
	}
	return p, nil
}

// Finds tells whether a Python looks for modules in a directory.
func (p Python) Finds(dir string) bool { return slices.Contains(p.Path, filepath.Clean(dir)) }

// DriverDir is the folder of the driver in a directory.
func DriverDir(dir string) string { return filepath.Join(dir, driverPackage) }
