package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadCacheConfig: directories and sizes that cannot be are refused by name.
func TestReadCacheConfig(t *testing.T) {
	for text, want := range map[string]string{
		"[{dir: cache, bytes: 67108864}]": "from the root",
		"[{dir: /c, bytes: 1}]":           "67108864",
		"[{dir: /c}]":                     "bytes is 0",
		"[{dir: /c, bytes: 67108864}, {dir: /c/../c/, bytes: 67108864}]": "given twice",
		"[{dir: /c, size: 67108864}]":                                    "size",
		"[{dir: /c, bytes: 67108864}, {dir: /d, bytes: 70368744177664}]": "",
		"[" + strings.Repeat("{dir: /c, bytes: 67108864},", 65) + "]":    "at most 64",
	} {
		f := filepath.Join(t.TempDir(), "c.yaml")
		write(t, f, "read_cache: "+text+"\n")
		_, err := loadConfig(Options{Config: f})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
}

// TestReadCacheDirectory: an empty directory and one that was a read cache are taken,
// by one process; others are left as they are.
func TestReadCacheDirectory(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		_, lock, err := readRole.open(dir, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := readRole.open(dir, false); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("taken twice: %v", err)
		}
		write(t, filepath.Join(dir, "groups"), "x")
		lock.Close()
	}
	foreign := t.TempDir()
	write(t, filepath.Join(foreign, "photo.jpg"), "x")
	if _, _, err := readRole.open(foreign, false); err == nil || !strings.Contains(err.Error(), "photo.jpg") || listing(t, foreign) != "photo.jpg " {
		t.Errorf("foreign directory: %v, now it holds %s", err, listing(t, foreign))
	}
	if _, _, err := readRole.open(filepath.Join(foreign, "none"), false); err == nil || !strings.Contains(err.Error(), "mount") {
		t.Errorf("absent directory: %v", err)
	}
}

// TestReadCacheNotUsed: a node starts without a read cache that it cannot have, and
// says so.
func TestReadCacheNotUsed(t *testing.T) {
	good, bad := t.TempDir(), filepath.Join(t.TempDir(), "not-mounted")
	f := filepath.Join(t.TempDir(), "c.yaml")
	write(t, f, fmt.Sprintf("read_cache: [{dir: %s, bytes: 67108864}, {dir: %s, bytes: 67108864}]\n", good, bad))
	n := start(t, Options{Data: t.TempDir(), Config: f})
	if _, err := os.Stat(filepath.Join(good, "groups")); err != nil {
		t.Error(err)
	}
	if h := fmt.Sprint(n.call("GET", "/status", nil, 200)["health"]); !strings.Contains(h, "read_cache") || !strings.Contains(h, bad) || strings.Contains(h, good+":") {
		t.Errorf("health: %s", h)
	}
}

// TestWriteDisks: a node has its journals on the WRITE disks of its configuration. One
// that is not mounted is not taken for a new one, one that the configuration does not name
// any more is still known, and one that is given up is forgotten.
func TestWriteDisks(t *testing.T) {
	one, two, data := t.TempDir(), filepath.Join(t.TempDir(), "two"), t.TempDir()
	if err := os.Mkdir(two, 0o700); err != nil {
		t.Fatal(err)
	}
	config := func(format string, args ...any) Options {
		f := filepath.Join(t.TempDir(), "c.yaml")
		write(t, f, fmt.Sprintf(format, args...))
		return Options{Data: data, Config: f}
	}
	disks := func(n *running) (out []string) {
		h := fmt.Sprint(n.call("GET", "/status", nil, 200)["health"])
		for _, dir := range []string{one, two} {
			_, err := os.Stat(filepath.Join(dir, "journal"))
			out = append(out, fmt.Sprint(err == nil, strings.Contains(h, "write_disk") && strings.Contains(h, dir)))
		}
		return out
	}
	both := fmt.Sprintf("write_disks: [{dir: %s, bytes: 268435456}, {dir: %s, bytes: 268435456}]\n", one, two)
	n := start(t, config("%s", both))
	if got := fmt.Sprint(disks(n)); got != "[true false true false]" {
		t.Fatal(got)
	}
	n.stop()
	if err := os.Rename(two, two+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(two, 0o700); err != nil { // the empty mount point
		t.Fatal(err)
	}
	for _, text := range []string{both, fmt.Sprintf("write_disks: [{dir: %s, bytes: 268435456}]\n", one)} {
		n = start(t, config("%s", text))
		if got := fmt.Sprint(disks(n)); got != "[true false false true]" {
			t.Fatal(got)
		}
		n.stop()
	}
	n = start(t, config("write_disks: [{dir: %s, bytes: 268435456}]\nlost_write_disks: [%s]\n", one, two))
	if got := fmt.Sprint(disks(n)); got != "[true false false false]" {
		t.Fatal(got)
	}
	n.stop()
	n = start(t, config("%s", both)) // as a new one
	if got := fmt.Sprint(disks(n)); got != "[true false true false]" {
		t.Fatal(got)
	}
}
