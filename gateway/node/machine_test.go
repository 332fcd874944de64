package node

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// TestMounts: what the kernel lists is read with blanks in names, and with what is read-only
// by the mount or by the file system.
func TestMounts(t *testing.T) {
	f := filepath.Join(t.TempDir(), "mountinfo")
	write(t, f, `21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
36 21 8:17 / /srv/a\040b rw,noatime - ext4 /dev/sdb1 ro,emergency_ro
37 21 0:45 /x /srv/c ro - nfs host:/export rw
nonsense
38 21 0:46 - tmpfs
`)
	want := []mount{{"/", "vda", false}, {"/srv/a b", "sdb1", true}, {"/srv/c", "host:/export", true}}
	if got := readMounts(f); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v", got)
	}
	if got := readMounts(f + ".none"); got != nil {
		t.Errorf("without the file: %+v", got)
	}
}

// TestApart: a clock is apart by what cannot be the way of the answer or the second that it
// is rounded to.
func TestApart(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 10, 0, time.UTC)
	for _, c := range []struct{ before, after, want time.Duration }{
		{0, 0, 0}, {-3 * time.Second, time.Second, 0}, {time.Second, time.Second, 0},
		{-5 * time.Second, -4 * time.Second, 4 * time.Second}, {5 * time.Second, 6 * time.Second, -4 * time.Second},
	} {
		if got := apart(at.Add(c.before), at.Add(c.after), at); got != c.want {
			t.Errorf("asked %s before, answered %s after it: %s", c.before, c.after, got)
		}
	}
}
