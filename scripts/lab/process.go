package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const pollInterval = 50 * time.Millisecond

// Bounds of waiting for a process: a start replays a journal, a stop uploads it; both take
// seconds, also on a busy machine.
const (
	startTimeout = 120 * time.Second
	stopTimeout  = 90 * time.Second
	// logTail is how much of a log an error shows, in bytes.
	logTail = 4000
)

func (l *Lab) pidFile(name string) string { return filepath.Join(l.dir, "run", name+".pid") }

// LogFile is where a process's output is.
func (l *Lab) LogFile(name string) string { return filepath.Join(l.dir, "log", name+".log") }

// start starts a process at a place. It outlives this one.
func (l *Lab) start(name, place string, argv ...string) error {
	log, err := os.OpenFile(l.LogFile(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("ip", append([]string{"netns", "exec", l.Namespace(place)}, argv...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	since, err := startTime(pid)
	go func() { _ = cmd.Wait() }() // how it ended shows in its log
	if err != nil {
		return fmt.Errorf("%s ended at once: %s", name, l.tail(name))
	}
	return os.WriteFile(l.pidFile(name), fmt.Appendf(nil, "%d %s\n", pid, since), 0o600)
}

// startTime of a process that has not ended: with its number it is never taken for a later one.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 20 {
		return "", errors.New("it ended")
	}
	// Its first thread may have ended before others, which still have files open.
	if threads, err := strconv.Atoi(f[17]); err != nil || (f[0] == "Z" || f[0] == "X") && threads < 2 {
		return "", errors.New("it ended")
	}
	return f[19], nil
}

// pid returns the number of a process; 0: it does not run.
func (l *Lab) pid(name string) int {
	b, err := os.ReadFile(l.pidFile(name))
	if err != nil {
		return 0
	}
	var pid int
	var since string
	if _, err := fmt.Sscan(string(b), &pid, &since); err != nil {
		return 0
	}
	if now, err := startTime(pid); err != nil || now != since {
		return 0
	}
	return pid
}

// processes are those of a place, in the order in which they start: one of a node or member of
// etcd, one for each device of a storage machine.
func (l *Lab) processes(place string) []string {
	if slices.Contains(l.Storage(), place) {
		return names(place+"-", devices)
	}
	return []string{place}
}

// Running tells whether all of a place runs, or is paused.
func (l *Lab) Running(place string) bool {
	return !slices.ContainsFunc(l.processes(place), func(p string) bool { return l.pid(p) == 0 })
}

// PIDs returns the numbers of the nodes' and the members' processes that run.
func (l *Lab) PIDs() []int {
	var out []int
	for _, place := range slices.Concat(l.Nodes(), l.Members()) {
		if pid := l.pid(place); pid != 0 {
			out = append(out, pid)
		}
	}
	return out
}

// Runs tells whether a process of the lab is at a place.
func (l *Lab) Runs(place string) bool {
	return slices.Contains(l.Machines(), place) || slices.Contains(l.Members(), place)
}

// Command returns how to run a command at a place, with the environment in which ovgate
// speaks to the node there.
func (l *Lab) Command(place string, argv ...string) (path string, args, env []string, err error) {
	if path, err = exec.LookPath("ip"); err != nil {
		return "", nil, nil, err
	}
	env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PATH=") }) // of two the first counts
	env = append(env, "PATH="+filepath.Dir(l.o.Bin)+":"+os.Getenv("PATH"))
	if slices.Contains(l.Nodes(), place) {
		env = append(env, "OVGATE_DATA="+l.Data(place))
	}
	return path, append([]string{"ip", "netns", "exec", l.Namespace(place)}, argv...), env, nil
}

// Signal sends a signal to what runs at a place.
func (l *Lab) Signal(place string, sig syscall.Signal) error {
	for _, p := range l.processes(place) {
		pid := l.pid(p)
		if pid == 0 {
			return fmt.Errorf("%s does not run", p)
		}
		if err := syscall.Kill(pid, sig); err != nil {
			return err
		}
	}
	return nil
}

// kill ends a process with SIGKILL, if it runs.
func (l *Lab) kill(ctx context.Context, name string) error {
	return l.end(ctx, name, syscall.SIGKILL, endPatience)
}

func (l *Lab) end(ctx context.Context, name string, sig syscall.Signal, patience time.Duration) error {
	pid := l.pid(name)
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for l.pid(name) != 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not end within %v of %v: %s", name, patience, sig, l.tail(name))
		case <-time.After(pollInterval):
		}
	}
	return nil
}

// await waits for a process to be up.
func (l *Lab) await(ctx context.Context, name string, up func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for !up() {
		if l.pid(name) == 0 {
			return fmt.Errorf("%s ended: %s", name, l.tail(name))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not up: %w: %s", name, ctx.Err(), l.tail(name))
		case <-time.After(pollInterval):
		}
	}
	return nil
}

// tail is the end of a log.
func (l *Lab) tail(name string) string {
	b, err := os.ReadFile(l.LogFile(name))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-logTail):])
}

// at returns a command at a place.
func (l *Lab) at(ctx context.Context, place string, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", l.Namespace(place)}, argv...)...)
}

func readJSON(path string, to any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeJSON replaces a file, which is there whole or not at all.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
