package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestChoose(t *testing.T) {
	for _, tc := range []struct {
		args   string
		rounds int
		err    string
	}{
		{"kill9", 20, ""},
		{"kill9 3", 3, ""},
		{"kill9-image", 1, ""},
		{"iscsi-abuse", 3, ""},
		{"kill9 0", 0, "rounds"},
		{"kill9 x", 0, "rounds"},
		{"kill9 99999999", 0, "rounds"},
		{"nothing", 0, "no drill"},
	} {
		d, rounds, err := choose(strings.Fields(tc.args))
		if tc.err == "" && (err != nil || rounds != tc.rounds || d.run == nil) {
			t.Errorf("%s: %d rounds, %v", tc.args, rounds, err)
		}
		if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%s: %v, want an error about %s", tc.args, err, tc.err)
		}
	}
}

// memDisk is a disk that is killed after a number of writes.
type memDisk struct {
	mu   sync.Mutex
	data []byte
	left int
}

func (d *memDisk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(p, d.data[off:]), nil
}

func (d *memDisk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == 0 {
		return 0, errors.New("killed")
	}
	d.left--
	return copy(d.data[off:], p), nil
}

func (d *memDisk) Close() error { return nil }

// TestCopyImage: what was acknowledged before the kill is known, and its loss
// shows.
func TestCopyImage(t *testing.T) {
	const pieces, before = 40, 25
	path := filepath.Join(t.TempDir(), "image")
	content := make([]byte, pieces*pieceSize)
	for i := range content {
		content[i] = byte(i/pieceSize + 1)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	d := &memDisk{data: make([]byte, len(content)), left: before}
	var c copied
	if err := c.copyImage(image, d, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if c.bytes != before*pieceSize {
		t.Errorf("%d pieces acknowledged, want %d", c.bytes/pieceSize, before)
	}
	if err := c.check(image, d); err != nil {
		t.Error(err)
	}
	for i, acked := range c.pieces {
		if acked {
			d.data[i*pieceSize+77]++
			break
		}
	}
	if err := c.check(image, d); err == nil {
		t.Error("a changed byte in an acknowledged piece does not show")
	}
}

func TestUnchanged(t *testing.T) {
	e := &env{dir: t.TempDir()}
	object := filepath.Join(e.backend(), "a", "object")
	if err := os.MkdirAll(filepath.Dir(object), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		if err := os.WriteFile(object, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string][32]byte{}
	write("one")
	for range 2 {
		if err := e.unchanged(seen); err != nil || len(seen) != 1 {
			t.Fatalf("%d objects: %v", len(seen), err)
		}
	}
	write("two")
	if err := e.unchanged(seen); err == nil {
		t.Error("an overwritten object does not show")
	}
}
