package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// How README.md and the pages of gateway/docs, of which only console blocks and links count, are tested, by the mark of its fenced blocks:
//
//	sh       run literally and in order, in a shell in a copy of the repository
//	console  needs root, a kernel initiator, or hours: only looked at, that make
//	         targets, scripts, verbs and flags exist
//	yaml     given to ovgate serve as its configuration
//	ini      its ExecStart= is looked at like console
//	text     not tested

// block is a fenced block.
type block struct{ mark, body string }

func blocks(text string) []block {
	var out []block
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		out = append(out, block{m[1], m[2]})
	}
	return out
}

// commands returns the shell lines of a block: continuation lines joined,
// comments and prompts removed.
func commands(body string) []string {
	var out []string
	for line := range strings.Lines(strings.ReplaceAll(body, "\\\n", " ")) {
		line, _, _ = strings.Cut(line, " #")
		line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
		if line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

func TestBlocks(t *testing.T) {
	text := "```sh\n# a comment\nmake run   # starts\n$ ovgate status\nls \\\n  -l\n```\ntext\n```go\nnot shell\n```\n```console\nA=1 scripts/peer tgt up\n```\n"
	var got []string
	for _, b := range blocks(text) {
		got = append(got, b.mark+": "+strings.Join(commands(b.body), "|"))
	}
	if got, want := strings.Join(got, "\n"), "sh: make run|ovgate status|ls    -l\ngo: not shell\nconsole: A=1 scripts/peer tgt up"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// results are what commands of README.md must print, beyond ending well.
var results = []struct{ command, output string }{
	{`publish demo -o json`, `(?s)"chapSecret": "\w{16}".*"libiscsi": "iscsi://demo%.*"iqn": "iqn\.\S+:default-demo"`},
	{`^qemu-img compare`, `(?m)^Images are identical\.$`},
	{`vdisk resize disk 512MiB`, `(?m)^size +512MiB$`},
	{`vdisk publish disk --open=false`, `(?m)^initiators +iqn\.1993-08\.org\.debian:01:abc$`},
	{`snapshot list disk$`, `(?m)^before-upgrade +\S+ +512MiB `},
	{`vdisk clone disk disk-test`, `(?m)^parent +disk, snapshot before-upgrade$`},
	{`vdisk rollback disk`, `(?m)^snapshot +before-upgrade$`},
	{`target group create disk backup`, `(?m)^chap secret +\w{16} \(not shown again\)$`},
	{`target group list disk`, `(?m)^backup +2 +disk-backup +disk-backup-target +read-only +all +0$`},
	{`vdisk qos disk`, `(?m)^limits +5000 IOPS, 100MiB/s, burst 5s$`},
	{`backend create s3 store`, `(?m)^gives +refuses the second writer of one object`},
	{`vpool create archive --store store`, `(?m)^encrypted +with key [0-9a-f]{16}$`},
	{`backend set store`, `(?m)^upload limit +200MiB/s$`},
	{`target group map cluster esx`, `(?m)^luns +5=0$`},
	{`target show cluster`, `(?m)^lun 5 +vmfs \(1GiB\)$`},
	{`vpool set safe --journal-quota 256MiB`, `(?m)^journal quota +256MiB$`},
	{`--token-file ci\.token vdisk list`, `(?m)^disk +safe +512MiB +running `},
	{`metadata verify metadata\.gz`, `(?m)^  model/vdisk +\d+$`},
	{`metadata restore metadata\.gz`, `(?m)^deletes +off in \d+ vPools`},
	{`metadata status`, `(?m)^safe +(on|off) +20`},
	{`snapshot list disk \| grep`, `(?m)^after-backup `},
	{`vpool recover safe`, `(?m)^disk +512MiB +lost_tail `},
	{`vdisk accept-loss disk`, `(?m)^state +running$`},
	{`/healthz`, `(?m)^(ok|warning)$`},
	{`/metrics`, `(?m)^ovgate_vdisks\{state="running"\} 1$`},
}

// TestReadme does what README.md says, from the first line to the last.
func TestReadme(t *testing.T) {
	for _, program := range []string{"make", "qemu-img", "/sbin/mke2fs", "curl"} {
		need(t, program)
	}
	all := readmeBlocks(t)
	work := copyTree(t)
	env := []string{"OVGATE_API=" + freePort(t), "OVGATE_ISCSI=" + freePort(t), "OVGATE_DATA="}
	sh := newShell(t, work, env)
	var node *run
	checked := map[string]bool{}
	for _, b := range all {
		if b.mark != "sh" {
			continue
		}
		for _, command := range commands(b.body) {
			if command == "make run" {
				node = again(t, node, work, env)
				continue
			}
			out := sh.do(t, command)
			for _, r := range results {
				if !regexp.MustCompile(r.command).MatchString(command) {
					continue
				}
				checked[r.command] = true
				if !regexp.MustCompile(r.output).MatchString(out) {
					t.Errorf("%s\nprinted, without %q:\n%s", command, r.output, out)
				}
			}
		}
	}
	for _, r := range results {
		if !checked[r.command] {
			t.Errorf("README.md has no command like %q any more", r.command)
		}
	}
	node.end(t)
	if node.err != nil {
		text, _ := node.out.get()
		t.Errorf("the last command stops the node, which ended with %v:\n%s", node.err, text)
	}
}

// again waits for the end of the node that ran before, which README.md has
// ended, and starts it like a person does: until its greeting is there.
func again(t *testing.T, before *run, work string, env []string) *run {
	t.Helper()
	if before != nil {
		before.end(t)
	}
	promises := []string{`UI +https://\S+`}
	if _, err := os.Stat(filepath.Join(work, "data", "kv.db")); err != nil { // else it may have its users
		promises = append(promises, `set-up token +ovs_\S+`)
	}
	promises = append(promises, `portal +\S+:\d+`, `\n +qemu-img info iscsi://\S+`, `\n +iscsiadm \S.* --login\n`)
	r := startCommand(t, work, env, "make", "run")
	for _, promised := range promises {
		r.out.find(t, promised, r.ended)
	}
	return r
}

// end waits until a process that was told to end has ended.
func (r *run) end(t *testing.T) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(patience):
		t.Fatalf("%v does not end within %v", r.cmd.Args, patience)
	}
}

func readmeBlocks(t *testing.T) []block {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return blocks(string(text))
}

// copyTree returns a copy of the repository as it would be cloned, so that what
// README.md leaves behind goes with the test.
func copyTree(t *testing.T) string {
	t.Helper()
	work := t.TempDir()
	copy := exec.Command("sh", "-c", `tar -c --exclude=./.git --exclude=./bin --exclude=./data . | tar -x -C "$1"`, "sh", work)
	copy.Dir = root
	if out, err := copy.CombinedOutput(); err != nil {
		t.Fatalf("copy of the repository: %v\n%s", err, out)
	}
	return work
}

// TestReadmeConfiguration: a node starts with the configuration that README.md
// shows, and takes every key of it.
func TestReadmeConfiguration(t *testing.T) {
	bin := buildOvgate(t)
	tested := 0
	for _, b := range readmeBlocks(t) {
		if b.mark != "yaml" {
			continue
		}
		tested++
		dir := t.TempDir()
		file := filepath.Join(dir, "ovgate.yaml")
		if err := os.WriteFile(file, []byte(b.body), 0o600); err != nil {
			t.Fatal(err)
		}
		r := startCommand(t, dir, nil, bin, "serve", "--data", "data", "--config", file, "--api", freePort(t), "--iscsi", freePort(t))
		r.out.find(t, `"msg":"ready"`, r.ended) // log_format: json
		r.stop(t)
	}
	if tested == 0 {
		t.Error("README.md has no yaml block")
	}
}

// TestReadmeLinks: what the READMEs link to is there.
func TestReadmeLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	readmes, err := filepath.Glob(filepath.Join(root, "*", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(readmes, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			found++
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	if found == 0 {
		t.Error("no link in any README.md")
	}
}

// TestReadmeVerbs looks at what README.md says to type and cannot be run here.
func TestReadmeVerbs(t *testing.T) {
	bin := buildOvgate(t)
	var lines []string
	all := readmeBlocks(t)
	pages, err := filepath.Glob(filepath.Join(root, "gateway", "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("pages of gateway/docs: %d, %v", len(pages), err)
	}
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, blocks(string(b))...)
		lines = append(lines, inline(string(b))...)
	}
	for _, b := range all {
		switch b.mark {
		case "console":
			lines = append(lines, commands(b.body)...)
		case "ini":
			for _, m := range regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindAllStringSubmatch(b.body, -1) {
				lines = append(lines, m[1])
			}
		}
	}
	if len(lines) == 0 {
		t.Fatal("no command in the console and ini blocks of README.md")
	}
	for _, line := range lines {
		t.Run(line, func(t *testing.T) { checkCommand(t, bin, line) })
	}
}

// verbs are the groups of verbs that inline code of a page may begin with, without the program's name.
const verbs = "alba|alert|audit|backend|cluster|event|inspect|metadata|node|osd|preset|session|snapshot|support|target|template|trash|user|vdisk|vpool"

// inline returns the commands that a page has in its text, each once.
func inline(text string) (out []string) {
	for _, m := range regexp.MustCompile("`(?:ovgate )?((?:"+verbs+") [a-z-]+[^`]*)`").FindAllStringSubmatch(text, -1) {
		if line := "ovgate " + m[1]; !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return out
}

func buildOvgate(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "ovgate")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/openvstorage/ovgate/gateway/cmd/ovgate").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
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
		case regexp.MustCompile(`^[a-z][a-z-]*$`).MatchString(w) && len(flags) == 0 && len(verb) < 4:
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
