package cinder

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestPackage installs the Debian package into a root of its own: the driver is there for
// Python, and leaves with the package. Building it twice gives the same.
func TestPackage(t *testing.T) {
	out, again, root := t.TempDir(), t.TempDir(), t.TempDir()
	scripts, err := filepath.Abs("../../scripts/package")
	if err != nil {
		t.Fatal(err)
	}
	name := "python3-ovgate-cinder_" + DriverVersion() + "_all.deb"
	deb := filepath.Join(out, name)
	run(t, ".", nil, scripts, "cinder-driver", out)
	run(t, ".", nil, scripts, "cinder-driver", again)
	first, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(filepath.Join(again, name)); err != nil || !bytes.Equal(first, second) {
		t.Errorf("built again it differs: %v", err)
	}

	admin := filepath.Join(root, "var", "lib", "dpkg")
	for _, dir := range []string{"info", "updates"} {
		if err := os.MkdirAll(filepath.Join(admin, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(admin, "status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// Its dependencies are of this machine, not of that root.
	dpkg := []string{"--root=" + root, "--log=" + filepath.Join(root, "log"), "--force-depends", "--force-not-root", "--force-script-chrootless"}
	run(t, ".", nil, "dpkg", append(dpkg, "--install", deb)...)
	dir := filepath.Join(root, "usr", "lib", "python3", "dist-packages")
	if changes, err := Install(dir, true); err != nil || len(changes) != 0 {
		t.Errorf("it is not what this package carries: %v %v", changes, err)
	}
	run(t, "/", []string{"PYTHONPATH=" + dir, "PYTHONDONTWRITEBYTECODE=1"}, python, "-c",
		"from oslo_utils import importutils; c = importutils.import_class('"+DriverClass+"'); import sys; assert sys.modules[c.__module__].__file__.startswith('"+dir+"')")
	run(t, ".", nil, "dpkg", append(dpkg, "--remove", "python3-ovgate-cinder")...)
	if _, err := os.Stat(DriverDir(dir)); !os.IsNotExist(err) {
		t.Errorf("the driver is left: %v", err)
	}
}
