package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/openvstorage/ovgate/internal/client"
)

// inspectGolden are the kept files of every format.
var inspectGolden = []struct{ word, file, says string }{
	{"journal", "journal/testdata/chunk.bin", "seq 42+2"},
	{"group", "journal/testdata/frame.bin", "frame 1, of those from 1 on"},
	{"sco", "sco/testdata/sco.bin", "sco 77 vdisk d0010203-0405-4607-8809-0a0b0c0d0e0f epoch 3"},
	{"tlog", "tlog/testdata/tlog.bin", "tlog 12 "},
	{"tlog", "tlog/testdata/tlog-moved.bin", "moved yes"},
	{"head", "volume/testdata/head.txt", `"format": 1`},
	{"head", "volume/testdata/head-past.txt", `"past": {`},
	{"head", "volume/testdata/head-reservation.txt", `"reservation":`},
	{"head", "volume/testdata/head-clone.txt", `"parent": {`},
	{"past", "volume/testdata/past.txt", `"runs": [`},
	{"checkpoint", "blockmap/testdata/map.bin", "2 pages, 6 clusters mapped"},
	{"checkpoint", "blockmap/testdata/map-2.bin", "2 pages, 6 clusters mapped"},
	{"checkpoint", "blockmap/testdata/map-3.bin", "8 pages, 7 clusters mapped"},
}

func runInspect(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	a := &app{env: client.System(), in: strings.NewReader(""), out: &o, err: &e}
	code = run(context.Background(), append([]string{"inspect"}, args...), a)
	return code, o.String(), e.String()
}

// TestInspect: the golden files of every format are whole, in both forms, and stay
// as they are.
func TestInspect(t *testing.T) {
	for _, g := range inspectGolden {
		path := filepath.Join("../../../volumedriver", g.file)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code, out, errs := runInspect(g.word, path)
		if code != exitOK || !strings.Contains(out, g.says) || !strings.HasSuffix(out, "whole, every checksum verifies\n") {
			t.Errorf("%s: exit code %d, %s%s", g.file, code, out, errs)
		}
		code, out, _ = runInspect(g.word, path, "-o", "json")
		for line := range strings.Lines(out) {
			var o struct{ Is string }
			if err := json.Unmarshal([]byte(line), &o); err != nil || o.Is == "" {
				t.Errorf("%s: not an object that says what it is: %s", g.file, line)
			}
		}
		if code != exitOK || !strings.HasSuffix(out, "{\"is\":\"sound\"}\n") {
			t.Errorf("%s as JSON: exit code %d", g.file, code)
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s was changed", g.file)
		}
	}
}

// TestInspectDamage: each flipped bit and each truncation is found, and said as BAD.
func TestInspectDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	damaged := func(word, what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := runInspect(word, path)
		if code != exitFailed || !strings.Contains(out, "BAD ") || !strings.Contains(errs, "is damaged in") || strings.Contains(out, "whole") {
			t.Errorf("%s: exit code %d, %s%s", what, code, out, errs)
		}
	}
	for _, g := range inspectGolden {
		b, err := os.ReadFile(filepath.Join("../../../volumedriver", g.file))
		if err != nil {
			t.Fatal(err)
		}
		end := len(b)
		if g.word == "journal" {
			end = 4*4096 + 8 // the last header's magic is what makes it one
		}
		for at := 0; at < end; at += 1 + len(b)/41 {
			if g.word == "sco" && at >= len(b)-16 && at < len(b)-8 || g.word == "checkpoint" && at >= len(b)-12 && at < len(b)-8 {
				continue // a field that nobody reads
			}
			flipped := bytes.Clone(b)
			flipped[at] ^= 0x08
			damaged(g.word, g.file+" flipped", flipped)
		}
		if g.word == "journal" {
			damaged(g.word, "cut in a record's data", b[:3*4096])
			damaged(g.word, "cut before the end of the openers", b[:4095])
			continue
		}
		for _, n := range []int{0, 1, len(b) / 3, len(b) - 2} {
			damaged(g.word, g.file+" truncated", b[:n])
		}
		for _, other := range inspectGolden {
			if other.word != g.word {
				damaged(other.word, g.file+" as "+other.word, b)
			}
		}
	}
}

// TestInspectSegment: of a segment the header is checked, and its size.
func TestInspectSegment(t *testing.T) {
	b, err := os.ReadFile("../../../volumedriver/blockmap/testdata/segment-1.bin")
	if err != nil {
		t.Fatal(err)
	}
	b = append(b[:4096], make([]byte, 2*4096)...)
	b[4096] = 1 // a location in use
	path := filepath.Join(t.TempDir(), "page")
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(b)
	code, out, errs := runInspect("segment", path)
	if code != exitOK || !strings.Contains(out, "slot 0, 1 clusters mapped\nslot 1, 0 clusters mapped\n") || !strings.Contains(out, "2 pages") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	for name, wrong := range map[string][]byte{"cut": b[:4097], "header": b[:100], "empty": nil, "flipped": append([]byte{b[0] ^ 1}, b[1:]...), "rest": append(bytes.Clone(b[:4095]), append([]byte{1}, b[4096:]...)...)} {
		write(wrong)
		if code, out, errs := runInspect("segment", path); code != exitFailed || !strings.Contains(out, "BAD ") {
			t.Errorf("%s: exit code %d, %s%s", name, code, out, errs)
		}
	}
}

// TestInspectPlace: what is wrong is said with its place.
func TestInspectPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, c := range []struct {
		word, file string
		at         int
		want       string
	}{
		{"journal", "journal/testdata/chunk.bin", 100, "BAD offset 0: opener"},
		{"journal", "journal/testdata/chunk.bin", 12288 + 5, "BAD offset 8192: its data are damaged"},
		{"journal", "journal/testdata/chunk.bin", 8192 + 60, "BAD offset 8192: its header is damaged"},
		{"journal", "journal/testdata/chunk.bin", 8192 + 60, "BAD offset 16384: seqs 42 to 43 before it are missing"},
		{"sco", "sco/testdata/sco.bin", 4096 + 7, "BAD offset 4096: cluster 1, which is lba 24 of the disk"},
		{"checkpoint", "blockmap/testdata/map-2.bin", 64 + 3*24 + 100, "page 0"},
	} {
		b, err := os.ReadFile(filepath.Join("../../../volumedriver", c.file))
		if err != nil {
			t.Fatal(err)
		}
		b[c.at] ^= 1
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, _ := runInspect(c.word, path); code != exitFailed || !strings.Contains(out, c.want) {
			t.Errorf("%s with a flipped bit at %d: exit code %d, want %q in\n%s", c.file, c.at, code, c.want, out)
		}
	}
}

// TestInspectRefused: what is no file is refused and not waited for, and one that is
// too large is not read.
func TestInspectRefused(t *testing.T) {
	dir := t.TempDir()
	fifo, huge := filepath.Join(dir, "fifo"), filepath.Join(dir, "huge")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(huge, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 1<<40); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
	}{
		{"head " + fifo, exitFailed}, {"sco " + dir, exitFailed}, {"tlog " + filepath.Join(dir, "nosuch"), exitFailed},
		{"head " + huge, exitFailed}, {"past " + huge, exitFailed}, {"tlog " + huge, exitFailed}, {"sco " + huge, exitFailed}, {"checkpoint " + huge, exitFailed},
		{"journal", exitUsage}, {"", exitUsage}, {"nosuch " + huge, exitUsage}, {"head " + huge + " -o xml", exitUsage},
	} {
		if code, out, errs := runInspect(strings.Fields(c.args)...); code != c.code || errs == "" {
			t.Errorf("inspect %s: exit code %d, %s%s", c.args, code, out, errs)
		}
	}
}
