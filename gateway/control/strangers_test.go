package control

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestStrangers: a vDisk that only the backend has is told, and no more when it is gone; those that are known, in the trash too, are never told.
func TestStrangers(t *testing.T) {
	far := t.TempDir()
	b := newBench(t, t.TempDir(), &place{})
	b.gold(far)
	d := b.disk("one")
	b.disk("two")
	if err := b.DeleteVDisk(t.Context(), "two", false); err != nil {
		t.Fatal(err)
	}
	const stranger = "5ac34e14-69af-41c1-8c0c-805371638a41"
	at := filepath.Join(far, "objects", "v~", stranger+"~")
	if err := os.CopyFS(at, os.DirFS(filepath.Join(far, "objects", "v~", d.ID+"~"))); err != nil {
		t.Fatal(err)
	}
	// Each look is one of a new hour; that of the start may be under way beside the first of them.
	look := func(what string, want []string) {
		t.Helper()
		for end := time.Now().Add(patience); ; {
			b.lookForStrangers()
			if got := b.Strangers(d.VPool); slices.Equal(got, want) {
				return
			} else if time.Now().After(end) {
				t.Fatalf("%s: strangers %v, want %v", what, got, want)
			}
		}
	}
	look("copied", []string{stranger})
	if err := os.RemoveAll(at); err != nil {
		t.Fatal(err)
	}
	look("gone", nil)
	if got := b.Strangers("none"); len(got) != 0 {
		t.Errorf("strangers of no vPool: %v", got)
	}
}
