package freeport

import (
	"net"
	"testing"
)

// What is given out can be listened on, and is not what others are given by the kernel.
func TestAddress(t *testing.T) {
	for range 50 {
		a, err := Address()
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if p := l.Addr().(*net.TCPAddr).Port; p < lowest || p > highest {
			t.Errorf("port %d", p)
		}
	}
}
