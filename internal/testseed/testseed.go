// Package testseed gives random tests the seed that they begin with, so that a run of
// all tests draws the same each time, and long runs draw anew.
package testseed

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// Env is the environment variable with the seed: a number, or "random".
const Env = "OVGATE_SEED"

// Of returns the seed of the environment, 1 if there is none, and logs it.
func Of(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(1)
	switch s := os.Getenv(Env); s {
	case "":
	case "random":
		seed = rand.Uint64()
	default:
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("%s: %v; give a number, or random", Env, err)
		}
	}
	t.Logf("seed %d: repeat with %s=%d", seed, Env, seed)
	return seed
}
