package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPlaceSizes: a file system that hangs keeps one goroutine, whoever asks how often, and is
// asked anew once it has answered.
func TestPlaceSizes(t *testing.T) {
	asked, answer := make(chan string), make(chan error)
	p := placeSizes{statfs: func(path string, st *unix.Statfs_t) error {
		asked <- path
		st.Blocks, st.Bavail, st.Bsize = 10, 4, 512
		return <-answer
	}}
	first := p.ask("/hangs")
	if <-asked != "/hangs" || p.ask("/hangs") != first || p.ask("/hangs") != first {
		t.Fatal("asked more than once at a time")
	}
	answer <- nil
	<-first.done
	if first.err != nil || first.total != 5120 || first.free != 2048 {
		t.Errorf("%d of %d free (%v), want 2048 of 5120", first.free, first.total, first.err)
	}
	again := p.ask("/hangs")
	<-asked
	answer <- errors.New("stale file handle")
	<-again.done
	if again == first || again.err == nil {
		t.Errorf("asked again: %v", again.err)
	}
}

// TestSystemName reads what a machine calls itself.
func TestSystemName(t *testing.T) {
	for text, want := range map[string]string{
		"NAME=Debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n": "Debian GNU/Linux 12 (bookworm)",
		"PRETTY_NAME='Other'": "Other", "NAME=x\n": "", "": "",
	} {
		file := filepath.Join(t.TempDir(), "os-release")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := systemName(file); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := systemName(filepath.Join(t.TempDir(), "none")); got != "" {
		t.Errorf("without the file: %q", got)
	}
}
