package client_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/internal/client"
)

// write makes a file of a data directory with exactly this mode.
func write(t *testing.T, dir, name, text string, mode fs.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// env is an environment of variables and the machine's files.
func env(vars map[string]string) client.Env {
	e := client.System()
	e.Getenv = func(name string) string { return vars[name] }
	return e
}

func TestDiscoverData(t *testing.T) {
	good := func(t *testing.T, dir string) {
		write(t, dir, "api.json", `{"url":"https://127.0.0.1:8443","caFile":"ca.pem"}`, 0o644)
		write(t, dir, "ca.pem", "CERT", 0o644)
		write(t, dir, "admin.token", "tok\n", 0o600)
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   string // in the error; empty: none
	}{
		{"good", func(*testing.T, string) {}, ""},
		{"absolute CA", func(t *testing.T, dir string) {
			write(t, dir, "api.json", `{"url":"https://127.0.0.1:8443","caFile":"`+filepath.Join(dir, "ca.pem")+`"}`, 0o644)
		}, ""},
		{"read-only token", func(t *testing.T, dir string) { write(t, dir, "admin.token", "tok", 0o400) }, ""},
		{"group can read", func(t *testing.T, dir string) { write(t, dir, "admin.token", "tok", 0o640) }, "chmod 600"},
		{"others can read", func(t *testing.T, dir string) { write(t, dir, "admin.token", "tok", 0o604) }, "(mode 0604)"},
		{"others can write", func(t *testing.T, dir string) { write(t, dir, "admin.token", "tok", 0o602) }, "(mode 0602)"},
		{"empty token", func(t *testing.T, dir string) { write(t, dir, "admin.token", "\n", 0o600) }, "is empty"},
		{"no token", func(t *testing.T, dir string) { remove(t, dir, "admin.token") }, "start the node with ovgate serve --data"},
		{"no node", func(t *testing.T, dir string) { remove(t, dir, "api.json") }, "OVGATE_URL"},
		{"no CA", func(t *testing.T, dir string) { remove(t, dir, "ca.pem") }, "ca.pem"},
		{"torn api.json", func(t *testing.T, dir string) { write(t, dir, "api.json", `{"url":`, 0o644) }, "written anew"},
		{"huge api.json", func(t *testing.T, dir string) { write(t, dir, "api.json", strings.Repeat(" ", 2<<20), 0o644) }, "longer than"},
		{"token is a directory", func(t *testing.T, dir string) {
			remove(t, dir, "admin.token")
			if err := os.Mkdir(filepath.Join(dir, "admin.token"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			good(t, dir)
			c.change(t, dir)
			o, err := client.Discover(env(nil), dir)
			if c.want == "" {
				if err != nil || o.URL != "https://127.0.0.1:8443" || o.Token != "tok" || string(o.CA) != "CERT" {
					t.Errorf("got %+v, %v", o, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if o.Token != "" {
				t.Error("a token came with the error")
			}
		})
	}
}

// remove removes a file of a data directory.
func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func TestDiscoverDenied(t *testing.T) {
	e := env(nil)
	e.Open = func(name string) (fs.File, error) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	_, err := client.Discover(e, "/data")
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "run this as the user") {
		t.Errorf("got %v", err)
	}
}

func TestDiscoverEnv(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "ca.pem", "CERT", 0o644)
	ca := filepath.Join(dir, "ca.pem")
	o, err := client.Discover(env(map[string]string{"OVGATE_URL": "https://n:1", "OVGATE_TOKEN": " tok\n", "OVGATE_CA": ca}), "")
	if err != nil || o.URL != "https://n:1" || o.Token != "tok" || string(o.CA) != "CERT" {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, c := range []struct {
		vars map[string]string
		want string
	}{
		{nil, "OVGATE_URL"},
		{map[string]string{"OVGATE_URL": "http://192.0.2.1"}, "clear text"},
		{map[string]string{"OVGATE_URL": "https://n", "OVGATE_CA": ca + "x"}, "OVGATE_CA"},
	} {
		if _, err := client.Discover(env(c.vars), ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %q", c.vars, err, c.want)
		}
	}
}
