package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// shell is a person's shell: one process for many commands, so that variables
// stay. A command that fails, also inside a pipeline, ends it.
type shell struct {
	*run
	in   io.Writer
	done int // commands
	seen int // bytes of output that belong to them
}

// newShell starts a shell in dir, with env added to the environment.
func newShell(t *testing.T, dir string, env []string) *shell {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "-eu", "-o", "pipefail", "-s")
	cmd.Dir, cmd.Env, cmd.Stdin = dir, append(os.Environ(), env...), r
	sh := &shell{run: launch(t, cmd), in: w}
	closeOrFail(t, r)
	t.Cleanup(func() { closeOrFail(t, w) }) // it ends at the end of its input
	return sh
}

// do runs a command, with nothing on its standard input, and returns what it
// printed on both outputs. The test ends when the command fails.
func (s *shell) do(t *testing.T, command string) string {
	t.Helper()
	s.done++
	mark := fmt.Sprintf("\n=== done %d\n", s.done)
	if _, err := fmt.Fprintf(s.in, "{\n%s\n} </dev/null\nprintf '%%s' '%s'\n", command, mark); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	s.out.find(t, mark, s.ended)
	text, _ := s.out.get()
	output, _, _ := strings.Cut(text[s.seen:], mark)
	s.seen += len(output) + len(mark)
	t.Logf("$ %s\n%s", command, output)
	return output
}
