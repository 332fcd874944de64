package procs

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// TestForDisks looks at processes of their own, since the scheduler is one for all of a process.
func TestForDisks(t *testing.T) {
	if os.Getenv("OVGATE_PROCS") != "" {
		ForDisks()
		ForDisks()
		print(CPUs(), " ", runtime.GOMAXPROCS(0), "\n")
		return
	}
	run := func(env ...string) string {
		t.Helper()
		cmd := exec.Command(os.Args[0], "-test.run=TestForDisks$")
		for _, e := range os.Environ() {
			if !strings.HasPrefix(e, "GOMAXPROCS=") {
				cmd.Env = append(cmd.Env, e)
			}
		}
		cmd.Env = append(append(cmd.Env, "OVGATE_PROCS=1"), env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return line
	}
	got := strings.Fields(run())
	if len(got) != 2 {
		t.Fatal(got)
	}
	if n, err := strconv.Atoi(got[0]); err != nil || n < 1 || got[1] != strconv.Itoa(places(n)) {
		t.Errorf("of %s processors %s places, %v", got[0], got[1], err)
	}
	if got := run("GOMAXPROCS=3"); got != "3 3" {
		t.Errorf("with GOMAXPROCS=3: %s", got)
	}
}

func TestPlaces(t *testing.T) {
	for cpus, want := range map[int]int{1: 2, 2: 4, 16: 32, 128: 144} {
		if got := places(cpus); got != want {
			t.Errorf("%d processors: %d places, expected %d", cpus, got, want)
		}
	}
}
