package sco

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// ofBytes is an object in memory; what lies beyond it cannot be read.
func ofBytes(b []byte, size int, want *Footer) Object {
	return Object{Size: int64(size), Want: want, Read: func(p []byte, off int64) error {
		if off < 0 || off+int64(len(p)) > int64(len(b)) {
			return ErrUnreadable
		}
		copy(p, b[off:])
		return nil
	}}
}

func check(t *testing.T, o Object) (Checked, []uint64) {
	t.Helper()
	var bad []uint64
	c, err := Check(o, func(lba uint64, _ uint32) { bad = append(bad, lba) })
	if err != nil {
		t.Fatal(err)
	}
	return c, bad
}

// TestCheck: whole objects of all shapes are, and every flipped bit is found, whether
// the footer is known from a TLog or not.
func TestCheck(t *testing.T) {
	for _, cluster := range []int{4096, 65536} {
		for _, n := range []int{0, 1, 15, 16, 17, 300} {
			b, f := object(cluster, n)
			for _, want := range []*Footer{nil, f} {
				if c, bad := check(t, ofBytes(b, len(b), want)); !c.OK() || len(bad) != 0 || c.Clusters != uint64(n) {
					t.Errorf("%d clusters of %d: %+v, %v", n, cluster, c, bad)
				}
			}
		}
	}
	b, f := object(4096, 40)
	l := Layout{4096}
	for at := 0; at < len(b); at += 97 {
		b[at] ^= 0x10
		for _, want := range []*Footer{nil, f} {
			c, bad := check(t, ofBytes(b, len(b), want))
			if zero := len(b) - 16; c.OK() && (at < zero || at >= zero+8) {
				t.Errorf("a flipped bit at %d of %d is not found", at, len(b))
			}
			if at < l.GroupsBytes(40) && (len(bad) != 1 || len(c.Problems) != 0) {
				t.Errorf("a flipped bit at %d in the groups: %v, %v", at, bad, c.Problems)
			}
		}
		b[at] ^= 0x10
	}
}

// TestCheckNames: the cluster that is damaged is the one that is named.
func TestCheckNames(t *testing.T) {
	b, f := object(4096, 40)
	data, _ := Layout{4096}.Slot(b, 40, 22)
	data[9] ^= 1
	at := uint64(0)
	for _, e := range f.Extents {
		if e.Kind == KindData && e.First <= 22 && uint64(22-e.First) < e.Length/8 {
			at = e.LBA + uint64(22-e.First)*8
		}
	}
	if _, bad := check(t, ofBytes(b, len(b), nil)); len(bad) != 1 || bad[0] != at {
		t.Errorf("bad are %v, want %d", bad, at)
	}
}

// TestCheckTruncated: with the footer known, what is left of an object is checked.
func TestCheckTruncated(t *testing.T) {
	b, f := object(4096, 100)
	l := Layout{4096}
	for cut := 0; cut < len(b); cut += 1009 {
		c, bad := check(t, ofBytes(b[:cut], cut, f))
		left := min(cut/l.GroupBytes()*l.PerGroup(), 96)
		if cut >= l.GroupsBytes(100) {
			left = 100
		}
		if c.OK() || len(bad) != 100-left {
			t.Errorf("cut at %d: %d clusters bad, want %d; %v", cut, len(bad), 100-left, c.Problems)
		}
		if c, _ := check(t, ofBytes(b[:cut], cut, nil)); c.OK() {
			t.Errorf("cut at %d: nothing found without a footer", cut)
		}
	}
}

// TestCheckRead: an error that is no damage ends it; another object's footer does not pass.
func TestCheckRead(t *testing.T) {
	b, f := object(4096, 100)
	o := ofBytes(b, len(b), f)
	o.Read = func([]byte, int64) error { return io.ErrClosedPipe }
	if _, err := Check(o, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
	other := *f
	other.Number++
	if c, _ := check(t, ofBytes(b, len(b), &other)); len(c.Problems) != 1 || !strings.Contains(c.Problems[0].Error(), "TLog") {
		t.Errorf("another SCO's footer: %v", c.Problems)
	}
}

// FuzzCheck: no object makes Check panic, run long or take much memory, and what it
// passes Decode passes too.
func FuzzCheck(f *testing.F) {
	b, ft := object(4096, 18)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(b[len(b)-trailerBytes-FooterBytes(len(ft.Extents)):])
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		c, err := Check(ofBytes(b, len(b), nil), func(uint64, uint32) { n++ })
		if err != nil || uint64(n) != c.Bad || n > len(b) {
			t.Fatalf("%d bad, %+v, %v", n, c, err)
		}
		if _, err := Decode(b); (err == nil) != (c.Footer != nil && c.OK()) && binaryZero(b) {
			t.Fatalf("Decode says %v, Check %+v", err, c)
		}
	})
}

// binaryZero reports whether the field of the trailer that nobody reads is 0.
func binaryZero(b []byte) bool {
	return len(b) > 16 && string(b[len(b)-16:len(b)-8]) == strings.Repeat("\x00", 8)
}

// TestCheckPart: a footer of a collected TLog, with some of the extents and the seqs of
// its range, is of the object; every flipped bit is found, in what it names by cluster.
func TestCheckPart(t *testing.T) {
	b, f := object(4096, 40)
	part := *f
	part.FirstSeq, part.LastTime = f.FirstSeq-7, f.LastTime+1
	part.Extents = []Extent{f.Extents[3], f.Extents[5]}
	o := ofBytes(b, len(b), &part)
	if c, _ := check(t, o); c.OK() {
		t.Error("it passes for one of an ordinary TLog")
	}
	o.Part = true
	named := (part.Extents[0].Length + part.Extents[1].Length) / 8
	if c, bad := check(t, o); !c.OK() || len(bad) != 0 || c.Clusters != named {
		t.Fatalf("%+v, %v, want %d clusters", c, bad, named)
	}
	for at := 0; at < len(b); at += 97 {
		b[at] ^= 0x10
		if c, _ := check(t, o); c.OK() && (at < len(b)-16 || at >= len(b)-8) {
			t.Errorf("a flipped bit at %d of %d is not found", at, len(b))
		}
		b[at] ^= 0x10
	}
	o.Size--
	if c, _ := check(t, o); c.OK() {
		t.Error("an object that lacks a byte passes")
	}
	o.Size++
	part.Number++
	if c, _ := check(t, o); c.OK() {
		t.Error("another object passes")
	}
}
