// Package procs sizes Go's scheduler for a process that waits for disks.
//
// A goroutine in a system call that blocks, as a write to a disk with O_DSYNC does, keeps its place
// among the GOMAXPROCS that may run until the runtime's monitor notices, 20 us to 10 ms later. On few
// processors a write or two at a time so keep everything else of the process from them: with 128
// random writes of 4 KiB in flight on two processors, half of what the disk can do (scripts/bench).
package procs

import (
	"os"
	"runtime"
	"sync"
)

// most is how many places there are beyond the processors, at most: those that wait are a few,
// however many processors there are, while each place has its own caches and share of a collection.
const most = 16

var cpus, once = runtime.GOMAXPROCS(0), sync.Once{}

// CPUs returns how many processors the process could use when it began: what the runtime found, or
// GOMAXPROCS of the environment.
func CPUs() int { return cpus }

// ForDisks has twice as many goroutines run, or wait in system calls, as there are processors. Where
// the environment has GOMAXPROCS, that counts. A limit of the process's control group which changes
// later is not followed.
func ForDisks() {
	once.Do(func() {
		if os.Getenv("GOMAXPROCS") == "" {
			runtime.GOMAXPROCS(places(cpus))
		}
	})
}

func places(cpus int) int { return cpus + min(cpus, most) }
