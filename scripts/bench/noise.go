package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Steps that others disturbed are measured again: on a machine that is shared, a
// neighbour's compile is worth more than any difference between the sides.
const (
	// noisyCPUs is how many CPUs' time others may take in a step. Kernel
	// threads that write back and complete I/O stay below it.
	noisyCPUs = 0.4
	// maxRepeats bounds the repeats of one step, maxTotalRepeats those of a run,
	// so that a machine that is never quiet costs minutes and not hours.
	maxRepeats      = 2
	maxTotalRepeats = 40
)

// ticksPerSecond is USER_HZ: the unit of /proc on every Linux port Go has.
const ticksPerSecond = 100

// noise tells how much CPU time went to processes other than those under test.
type noise struct {
	pids    []int // this program, ovgate, tgtd
	repeats int   // left in this run
	left    int   // steps that stayed noisy
	// children: so are the processes that this one started and waited for.
	children bool
}

func newNoise() *noise { return &noise{pids: []int{os.Getpid()}, repeats: maxTotalRepeats} }

// sample is a moment's CPU time, in seconds.
type sample struct {
	at         time.Time
	busy, ours float64
}

func (n *noise) sample() (sample, error) {
	s := sample{at: time.Now()}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return s, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	// cpu user nice system idle iowait irq softirq steal ...
	for i, f := range strings.Fields(line)[1:9] {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return s, fmt.Errorf("/proc/stat: %w", err)
		}
		// Not idle and iowait; nor the time of interrupts, which is nobody's: packets
		// on loopback, which the sides send, are most of it.
		if i < 3 || i > 6 {
			s.busy += v / ticksPerSecond
		}
	}
	for _, pid := range n.pids {
		v, err := processTime(pid)
		if err != nil {
			return s, err
		}
		s.ours += v
	}
	if n.children {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
			return s, err
		}
		s.ours += float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	return s, nil
}

// processTime returns the CPU time of a process in seconds.
func processTime(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in brackets may hold anything; utime and stime are fields 14 and 15.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	sum := 0.0
	for _, f := range fields[11:13] {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		sum += v / ticksPerSecond
	}
	return sum, nil
}

// others returns how many CPUs others kept busy since the sample.
func (n *noise) others(since sample) (float64, error) {
	now, err := n.sample()
	if err != nil {
		return 0, err
	}
	return ((now.busy - since.busy) - (now.ours - since.ours)) / now.at.Sub(since.at).Seconds(), nil
}

// again says whether a step is to be repeated, and counts.
func (n *noise) again(others float64, try int) bool {
	if others <= noisyCPUs {
		return false
	}
	if try >= maxRepeats || n.repeats == 0 {
		n.left++
		return false
	}
	n.repeats--
	return true
}

// String reports for the rows' configuration.
func (n *noise) String() string {
	return fmt.Sprintf("%d steps repeated and %d kept although others used more than %g CPUs",
		maxTotalRepeats-n.repeats, n.left, noisyCPUs)
}
