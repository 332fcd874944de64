package client

import "testing"

// Buffers are as large as asked, in classes that waste a fifth at most and do not
// mix.
func TestBuffers(t *testing.T) {
	var p buffers
	sizes := map[int]int{}
	for _, n := range []int{1, 4095, 4096, 4097, 5120, 5121, 8192, 8193, 65536, 65552, 1 << 20, 1<<20 + 256, 1 << 26, 1<<26 + 1} {
		class, size := bufferClass(n)
		if size < n || n > 4096 && (size-n)*5 > size {
			t.Errorf("%d bytes in a buffer of %d", n, size)
		}
		if was, ok := sizes[class]; ok && was != size {
			t.Errorf("class %d has sizes %d and %d", class, was, size)
		}
		sizes[class] = size
		b := p.get(n)
		if len(b.b) != n || cap(b.b) < size {
			t.Errorf("asked for %d, got %d of %d", n, len(b.b), cap(b.b))
		}
		p.put(b)
	}
	if b := p.get(0); len(b.b) != 0 {
		t.Errorf("asked for nothing, got %d bytes", len(b.b))
	}
	p.put(nil)
}
