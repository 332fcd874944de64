package cinder

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func mustInstall(t *testing.T, dir string) []Change {
	t.Helper()
	changes, err := Install(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// list names what is below a directory.
func list(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); rel != "." {
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestInstalled: what is installed is what this package carries, all of it, for everybody
// to read whatever the umask is.
func TestInstalled(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	if changes := mustInstall(t, dir); changes[1].Path != filepath.Join(dir, driverPackage, initFile) {
		t.Errorf("%s is not the first to be written: %v", initFile, changes)
	}
	source, err := filepath.Glob("driver/ovgate_cinder/*.py")
	if err != nil || len(source) < 5 {
		t.Fatalf("%v %v", source, err)
	}
	for _, name := range source {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !same(filepath.Join(dir, driverPackage, filepath.Base(name)), want) {
			t.Errorf("%s is not installed as it is", name)
		}
	}
	info, err := os.Stat(filepath.Join(dir, driverPackage))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if len(list(t, dir)) != len(source)+1 {
		t.Errorf("there is something else: %v", list(t, dir))
	}
	if v := DriverVersion(); v == "" {
		t.Error("the driver has no version")
	}
}

// TestCutOff cuts installing and removing off after each of their steps: repeating either
// ends well.
func TestCutOff(t *testing.T) {
	whole := t.TempDir()
	steps := mustInstall(t, whole)
	want := list(t, whole)
	for n := range steps {
		for _, temp := range []bool{false, true} {
			part := func() string {
				dir := t.TempDir()
				mustInstall(t, dir)
				for _, c := range slices.Backward(steps[n+1:]) {
					rel, _ := filepath.Rel(whole, c.Path)
					if err := os.Remove(filepath.Join(dir, rel)); err != nil {
						t.Fatal(err)
					}
				}
				if temp {
					if err := os.WriteFile(filepath.Join(dir, driverPackage, tempPrefix+"1"), []byte("half"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				return dir
			}
			dir := part()
			mustInstall(t, dir)
			if got := list(t, dir); !slices.Equal(got, want) {
				t.Errorf("after %d steps: %v, want %v", n, got, want)
			}
			dir = part()
			if _, err := Uninstall(dir, false); err != nil {
				t.Error(err)
			}
			if got := list(t, dir); len(got) != 0 {
				t.Errorf("after %d steps the removal leaves %v", n, got)
			}
		}
	}
}

// TestForeign: nothing that is not ovgate's is touched.
func TestForeign(t *testing.T) {
	for name, make := range map[string]func(dir string) error{
		"file": func(dir string) error { return os.WriteFile(filepath.Join(dir, driverPackage), nil, 0o600) },
		"link": func(dir string) error { return os.Symlink("/tmp", filepath.Join(dir, driverPackage)) },
		"other": func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, driverPackage), 0o755), os.WriteFile(filepath.Join(dir, driverPackage, "x.py"), nil, 0o600))
		},
	} {
		dir := t.TempDir()
		if err := make(dir); err != nil {
			t.Fatal(err)
		}
		before := list(t, dir)
		if _, err := Install(dir, false); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: install: %v", name, err)
		}
		if _, err := Uninstall(dir, false); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: uninstall: %v", name, err)
		}
		if got := list(t, dir); !slices.Equal(got, before) {
			t.Errorf("%s: %v, was %v", name, got, before)
		}
	}
	dir := t.TempDir()
	mustInstall(t, dir)
	if err := os.WriteFile(filepath.Join(dir, driverPackage, "notes.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Uninstall(dir, false); err != nil {
		t.Error(err)
	}
	if got := list(t, dir); !slices.Equal(got, []string{driverPackage, driverPackage + "/notes.txt"}) {
		t.Errorf("left: %v", got)
	}
}

// TestPython: a Python finds what was installed where it wants modules, and cinder.conf's
// volume_driver in it.
func TestPython(t *testing.T) {
	venv := filepath.Join(t.TempDir(), "venv")
	run(t, ".", nil, python, "-m", "venv", "--without-pip", "--system-site-packages", venv)
	program := filepath.Join(venv, "bin", "python3")
	p, err := AskPython(t.Context(), program)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(p.Dir, venv) || p.Driver != "" || !p.Finds(p.Dir) {
		t.Fatalf("%+v", p)
	}
	mustInstall(t, p.Dir)
	if p, err = AskPython(t.Context(), program); err != nil || p.Driver != DriverDir(p.Dir) {
		t.Fatalf("%+v %v", p, err)
	}
	run(t, ".", nil, program, "-c", "from oslo_utils import importutils; importutils.import_class('"+DriverClass+"')")
	changes, err := Uninstall(p.Dir, true)
	if err != nil {
		t.Fatal(err)
	}
	really, err := Uninstall(p.Dir, false)
	if err != nil || !slices.Equal(changes, really) {
		t.Errorf("%v, but the dry run said %v: %v", really, changes, err)
	}
	if left := list(t, p.Dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := AskPython(t.Context(), "/nonexistent/python3"); err == nil || !strings.Contains(err.Error(), "--python") {
		t.Error(err)
	}
}

func TestConfigRefused(t *testing.T) {
	good := Config{Section: "ovgate", URLs: []string{"https://n1:8443"}, TokenFile: "/etc/cinder/ovgate.token"}
	if _, err := good.Text(); err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Section = "" },
		func(c *Config) { c.Section = "DEFAULT" },
		func(c *Config) { c.Section = "a]\n[b" },
		func(c *Config) { c.TokenFile = "/etc/$state/token" },
		func(c *Config) { c.TokenFile = "/etc/token\nmax_over_subscription_ratio = 1" },
		func(c *Config) { c.VPools = []string{"a,b"} },
		func(c *Config) { c.CAFile = "/etc/my ca.pem" },
	} {
		c := good
		change(&c)
		if text, err := c.Text(); err == nil {
			t.Errorf("%+v is not refused: %s", c, text)
		}
	}
}

// TestConfig: Cinder's configuration library reads the section as it is meant.
func TestConfig(t *testing.T) {
	text, err := Config{
		Section: "ssd", URLs: []string{"https://n1:8443", "https://[2001:db8::1]:8443"}, VPools: []string{"fast", "large-1"},
		TokenFile: "/etc/cinder/t", CAFile: "/etc/cinder/ca.pem",
	}.Text()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "cinder.conf")
	if err := os.WriteFile(conf, []byte("[DEFAULT]\n\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, ".", []string{"PYTHONPATH=" + driverDir(t), "PYTHONDONTWRITEBYTECODE=1"}, python, "-c", `
import sys
from oslo_config import cfg
from ovgate_cinder import options
conf = cfg.ConfigOpts()
conf.register_opts(options.OPTS, group='ssd')
conf.register_opts([cfg.StrOpt('volume_driver'), cfg.StrOpt('volume_backend_name')], group='ssd')
conf(['--config-file', sys.argv[1]])
assert conf.ssd.ovgate_api_urls == ['https://n1:8443', 'https://[2001:db8::1]:8443'], conf.ssd.ovgate_api_urls
assert conf.ssd.ovgate_vpools == ['fast', 'large-1'], conf.ssd.ovgate_vpools
assert conf.ssd.ovgate_token_file == '/etc/cinder/t'
assert conf.ssd.ovgate_ca_file == '/etc/cinder/ca.pem'
assert conf.ssd.volume_driver == 'ovgate_cinder.iscsi.OVGateISCSIDriver'
assert conf.ssd.volume_backend_name == 'ssd'
`, conf)
}
