package clustersum

import (
	"bytes"
	"hash/crc32"
	"testing"
)

var disk = [16]byte{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}

// TestKeptValues: the sums are in journals, SCOs and maps; they never change.
func TestKeptValues(t *testing.T) {
	s := NewSeed(disk)
	data := bytes.Repeat([]byte("ovgate\n\x00"), 512)
	for _, c := range []struct {
		name      string
		got, want uint32
	}{
		{"crc32c check value", Plain([]byte("123456789")), 0xe3069283},
		{"seed", uint32(s), 0xa9d044e2},
		{"cluster 0", s.Sum(0, data), 0x0597abef},
		{"cluster 8", s.Sum(8, data), 0x0d8c44aa},
		{"last of 64 TiB", s.Sum(1<<37-8, data), 0x1cdcd7f4},
	} {
		if c.got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, c.got, c.want)
		}
	}
}

// TestSalt: the sum is the CRC-32C of id, address and data, in this order; a
// change of any of them is noticed.
func TestSalt(t *testing.T) {
	s := NewSeed(disk)
	data := bytes.Repeat([]byte{7}, 4096)
	sum := s.Sum(0x0102030405, data)
	whole := append(append(append([]byte(nil), disk[:]...), 5, 4, 3, 2, 1, 0, 0, 0), data...)
	if want := crc32.Checksum(whole, crc32.MakeTable(crc32.Castagnoli)); sum != want {
		t.Fatalf("%#x, want %#x", sum, want)
	}
	for i := range disk {
		other := disk
		other[i] ^= 1
		if NewSeed(other).Sum(0x0102030405, data) == sum {
			t.Errorf("byte %d of the vDisk does not count", i)
		}
	}
	for bit := range 64 {
		if s.Sum(0x0102030405^1<<bit, data) == sum {
			t.Errorf("bit %d of the address does not count", bit)
		}
	}
	for i := range data {
		data[i] ^= 0x10
		if s.Sum(0x0102030405, data) == sum {
			t.Fatalf("byte %d of the data does not count", i)
		}
		data[i] ^= 0x10
	}
}
