package leaktest

import (
	"testing"
	"time"
)

// A goroutine that ends late is none that leaks; one that does not end is.
func TestWait(t *testing.T) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		<-end
	}()
	if wait(time.Second) == nil {
		t.Error("no leak seen")
	}
	time.AfterFunc(time.Second, func() { close(end) })
	if err := wait(patience); err != nil {
		t.Error(err)
	}
	<-ended
}
