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
		_, lock, err := openReadCache(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := openReadCache(dir); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("taken twice: %v", err)
		}
		write(t, filepath.Join(dir, "groups"), "x")
		lock.Close()
	}
	foreign := t.TempDir()
	write(t, filepath.Join(foreign, "photo.jpg"), "x")
	if _, _, err := openReadCache(foreign); err == nil || !strings.Contains(err.Error(), "photo.jpg") || listing(t, foreign) != "photo.jpg " {
		t.Errorf("foreign directory: %v, now it holds %s", err, listing(t, foreign))
	}
	if _, _, err := openReadCache(filepath.Join(foreign, "none")); err == nil || !strings.Contains(err.Error(), "mount") {
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
