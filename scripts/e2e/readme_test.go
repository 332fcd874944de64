package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme: what README.md tells to type exists: make targets, scripts,
// drills, peers, and the verbs and flags of ovgate.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines := commands(string(text))
	if len(lines) == 0 {
		t.Fatal("no command in a code block of README.md")
	}
	bin := filepath.Join(t.TempDir(), "ovgate")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/openvstorage/ovgate/gateway/cmd/ovgate").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, line := range lines {
		t.Run(line, func(t *testing.T) { checkCommand(t, bin, line) })
	}
}

// commands returns the shell lines of the fenced blocks marked sh, bash or
// console, continuation lines joined, comments and prompts removed.
func commands(text string) []string {
	var out []string
	for _, block := range regexp.MustCompile("(?ms)^```(?:sh|bash|console)\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		body := strings.ReplaceAll(block[1], "\\\n", " ")
		for line := range strings.Lines(body) {
			line, _, _ = strings.Cut(line, " #")
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			if line != "" && !strings.HasPrefix(line, "#") {
				out = append(out, line)
			}
		}
	}
	return out
}

func TestCommands(t *testing.T) {
	text := "```sh\n# a comment\nmake run   # starts\n$ ovgate status\nls \\\n  -l\n```\ntext\n```go\nnot shell\n```\n```console\nA=1 scripts/peer tgt up\n```\n"
	got := strings.Join(commands(text), "|")
	if want := "make run|ovgate status|ls    -l|A=1 scripts/peer tgt up"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func checkCommand(t *testing.T, bin, line string) {
	words := strings.Fields(line)
	for len(words) > 0 && strings.Contains(words[0], "=") {
		words = words[1:] // environment
	}
	if len(words) == 0 {
		return
	}
	switch program := words[0]; {
	case program == "make":
		for _, target := range words[1:] {
			cmd := exec.Command("make", "-n", target)
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("make %s: %v\n%s", target, err, out)
			}
		}
	case strings.HasPrefix(program, "scripts/"):
		if info, err := os.Stat(filepath.Join(root, program)); err != nil || info.Mode()&0o100 == 0 {
			t.Errorf("%s is not an executable: %v", program, err)
		}
	case program == "ovgate" || strings.HasSuffix(program, "/ovgate"):
		checkOvgate(t, bin, words[1:])
	}
}

// checkOvgate asks for help on the verb, and for every flag in that help.
func checkOvgate(t *testing.T, bin string, words []string) {
	var verb, flags []string
	for i := 0; i < len(words); i++ {
		switch w := words[i]; {
		case w == "--data" || w == "-o" || w == "--output":
			i++
		case strings.HasPrefix(w, "--"):
			name, _, _ := strings.Cut(w, "=")
			flags = append(flags, name)
		case regexp.MustCompile(`^[a-z][a-z-]*$`).MatchString(w) && len(flags) == 0 && len(verb) < 3:
			verb = append(verb, w)
		}
	}
	var help []byte
	for n := len(verb); n > 0 && help == nil; n-- { // what follows the verb is names
		out, err := exec.Command(bin, append(verb[:n:n], "--help")...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "ovgate "+strings.Join(verb[:n], " ")) {
			continue
		}
		if n < len(verb) && strings.Contains(string(out), "Available Commands") {
			break // a group of verbs, and this is none of them
		}
		help = out
	}
	if help == nil {
		t.Fatalf("ovgate knows no verb %q", strings.Join(verb, " "))
	}
	for _, f := range flags {
		if !strings.Contains(string(help), f) {
			t.Errorf("ovgate %s has no flag %s:\n%s", strings.Join(verb, " "), f, help)
		}
	}
}
