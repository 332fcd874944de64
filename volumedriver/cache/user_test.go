package cache

import (
	"testing"
	"testing/synctest"

	"github.com/openvstorage/ovgate/internal/blockfs"
)

// testUser is whose groups they are where it does not matter.
var testUser = new(User)

// read gets a group and tells whether it had to be loaded.
func read(t *testing.T, c *Cache, k Key, u *User, n int) (loaded bool) {
	t.Helper()
	b, err := c.Get(t.Context(), k, u, func() ([]byte, error) { loaded = true; return groupOf(k, n), nil })
	if err != nil || !isGroupOf(b, k) {
		t.Fatalf("%v: %v", k, err)
	}
	return loaded
}

// C7: a user at its quota gives up its own groups, not those of others, however much it
// reads.
func TestQuota(t *testing.T) {
	const n, quota = 1000, 20 * 1000
	c := New(16 * 100 * n)
	small, other := new(User), new(User)
	small.Set(OnRead, quota)
	for i := range uint32(100) {
		read(t, c, Key{Space: 2, SCO: i}, other, n)
	}
	for i := range uint32(1000) {
		read(t, c, Key{Space: 1, SCO: i}, small, n)
		if small.Bytes() > quota {
			t.Fatalf("%d bytes of %d after %d groups", small.Bytes(), quota, i+1)
		}
	}
	if small.Bytes() < quota/4 {
		t.Fatalf("only %d bytes kept of a quota of %d", small.Bytes(), quota)
	}
	for i := range uint32(100) {
		if read(t, c, Key{Space: 2, SCO: i}, other, n) {
			t.Fatalf("group %d of another user was pushed out", i)
		}
	}
	// A larger quota takes effect at once, and a smaller one with the next reads.
	small.Set(OnRead, 2*quota)
	for i := range uint32(1000) {
		read(t, c, Key{Space: 1, SCO: i}, small, n)
	}
	if b := small.Bytes(); b <= quota || b > 2*quota {
		t.Fatalf("%d bytes of %d", b, 2*quota)
	}
	small.Set(OnRead, quota/10)
	for i := range uint32(1000) {
		read(t, c, Key{Space: 1, SCO: 1000 + i}, small, n)
	}
	if b := small.Bytes(); b > quota/10 {
		t.Fatalf("%d bytes of %d", b, quota/10)
	}
}

// A user that keeps nothing has what it reads at the moment, and uses what others keep.
func TestKeepNothing(t *testing.T) {
	const n = 64 << 10
	c := New(16 * 200 * n)
	none, other := new(User), new(User)
	none.Set(None, 0)
	for i := range uint32(1000) {
		k := Key{Space: 1, SCO: i}
		read(t, c, k, none, n)
		if none.Bytes() > reading {
			t.Fatalf("%d bytes kept", none.Bytes())
		}
		if i > 200 && read(t, c, k, none, n) {
			t.Fatalf("group %d was gone before it was used", i)
		}
	}
	for i := range uint32(800) {
		if !read(t, c, Key{Space: 1, SCO: i}, none, n) {
			t.Fatalf("group %d was kept", i)
		}
	}
	read(t, c, Key{Space: 2}, other, n)
	if read(t, c, Key{Space: 2}, none, n) || other.Bytes() != n {
		t.Fatalf("what another keeps was not used; it has %d bytes", other.Bytes())
	}
	d := openDisk(t, blockfs.NewMem(), 100)
	if offerOne(d, none, Key{}, 9); d.Stats().Refused != 1 {
		t.Fatal("kept on a disk")
	}
}

// What was put is there; it never replaces what is there, nor what is being loaded.
func TestPut(t *testing.T) {
	c := New(1 << 20)
	u := new(User)
	u.Set(OnWrite, 0)
	k := Key{SCO: 7}
	c.Put(k, u, groupOf(k, 100))
	if read(t, c, k, u, 50) || u.Bytes() != 100 {
		t.Fatalf("not there; %d bytes", u.Bytes())
	}
	c.Put(k, u, groupOf(k, 50))
	if u.Bytes() != 100 {
		t.Fatalf("%d bytes", u.Bytes())
	}
	synctest.Test(t, func(t *testing.T) {
		l := Key{SCO: 8}
		gate := make(chan struct{})
		go c.Get(t.Context(), l, u, func() ([]byte, error) { <-gate; return groupOf(l, 40), nil })
		synctest.Wait()
		c.Put(l, u, groupOf(l, 80))
		close(gate)
		synctest.Wait()
	})
	if u.Bytes() != 140 {
		t.Fatalf("%d bytes", u.Bytes())
	}
	c.Drop(k)
	if u.Bytes() != 40 {
		t.Fatalf("%d bytes after a drop", u.Bytes())
	}
}

// The quota counts what is on the disks.
func TestQuotaOnDisk(t *testing.T) {
	d := openDisk(t, blockfs.NewMem(), 100)
	u := new(User)
	u.Set(OnRead, 10*SlotBytes)
	for i := range uint32(50) {
		offerOne(d, u, Key{SCO: i}, 1)
	}
	if b := u.Bytes(); b != 10*SlotBytes || d.Stats().Bytes != b {
		t.Fatalf("%d bytes, the disk says %d", b, d.Stats().Bytes)
	}
	for i := range uint32(50) {
		d.Drop(Key{SCO: i})
	}
	if u.Bytes() != 0 {
		t.Fatalf("%d bytes left", u.Bytes())
	}
}
