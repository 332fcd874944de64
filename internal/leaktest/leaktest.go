// Package leaktest fails the tests of a package that leave goroutines behind.
package leaktest

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines that have been told to end may take: on a busy machine an
// idle connection or a last probe ends seconds later. What is still there then is a leak.
const patience = time.Minute

// Main runs the tests and exits: with their code, or with 1 if they passed and goroutines
// remain. It is the last call of a TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := wait(patience); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines are left %s after the last test: %v\n", patience, err)
			code = 1
		}
	}
	os.Exit(code)
}

// wait looks for goroutines beside its own until there are none or the time is over.
func wait(limit time.Duration) error {
	end := time.Now().Add(limit)
	for {
		err := goleak.Find()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
