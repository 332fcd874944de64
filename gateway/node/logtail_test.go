package node

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// The end of the log is kept in whole lines, however much was written.
func TestLogTail(t *testing.T) {
	var l logTail
	if b := l.Bytes(); len(b) != 0 {
		t.Errorf("at first: %q", b)
	}
	n := 0
	for written := 0; written < 5*logKept; n++ {
		m, err := fmt.Fprintf(&l, "line %d %s\n", n, strings.Repeat("x", n%500))
		if err != nil {
			t.Fatal(err)
		}
		written += m
	}
	b := l.Bytes()
	if len(b) > logKept || len(b) < logKept-1000 {
		t.Errorf("%d bytes are kept", len(b))
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for i, s := range lines {
		if want := fmt.Sprintf("line %d ", n-len(lines)+i); !strings.HasPrefix(s, want) {
			t.Fatalf("line %d of %d begins with %.20q, want %q", i, len(lines), s, want)
		}
	}
	b[0] = '?'
	if bytes.Equal(l.Bytes()[:1], b[:1]) {
		t.Error("Bytes is no copy")
	}
	if m, err := l.Write(bytes.Repeat([]byte("y"), 3*logKept)); m != 3*logKept || err != nil || len(l.Bytes()) > logKept {
		t.Errorf("a line longer than all: %d, %v, %d kept", m, err, len(l.Bytes()))
	}
}
