// Package clustertest has what tests of several nodes share: a way to a server that a test
// cuts (Wire), and clients of a vDisk that record what they asked for and heard wherever it is
// served (Clients). Tests of other packages call it, nothing else does.
package clustertest

import (
	"os"
	"strconv"
	"testing"
)

// Rounds is how often a test lets happen to its nodes what it has: once, or as often as
// OVGATE_LINEAR_ROUNDS says.
func Rounds(t testing.TB) int {
	t.Helper()
	text := os.Getenv("OVGATE_LINEAR_ROUNDS")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("OVGATE_LINEAR_ROUNDS is %q: write a number of rounds", text)
	}
	return n
}
