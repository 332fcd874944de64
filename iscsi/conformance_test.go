package iscsi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
)

// tool returns the path of a peer's program. Where it is not installed the test
// is skipped, except in CI, where it must be.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err == nil {
		return p
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: install the Debian package %s", name, pkg)
	}
	t.Skipf("%s is missing: install the Debian package %s", name, pkg)
	return ""
}

// run executes a peer's program within the test's time.
func (n *node) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := n.try(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return out
}

func (n *node) try(name string, args ...string) (string, error) {
	c := exec.CommandContext(n.ctx, name, args...)
	out, err := c.CombinedOutput()
	return string(out), err
}

func (n *node) url() string { return "iscsi://" + n.addr + "/" + n.spec.Name + "/0" }

// suiteTests is how many tests libiscsi 1.19 has outside Sanitize, minPassed how many
// of them must pass.
const (
	suiteTests = 219
	minPassed  = 205
)

// exception is a test of the suite that does not pass: skipped, for one of the four
// reasons that there may be, or excluded, because it contradicts a standard.
type exception struct {
	skip   string // "removable medium", "no media"; "" is an exclusion
	silent bool   // the suite counts it as passed
	why    string
}

const noMedium = "the medium is not removable (RMB is 0)"

// exceptions are tests or families. What is not named here must pass. The table in
// README.md is made of it.
var exceptions = map[string]exception{
	"NoMedia":              {skip: "no media", silent: true, why: "the medium cannot be taken out"},
	"PreventAllow":         {skip: "removable medium", why: noMedium},
	"StartStopUnit.Simple": {skip: "removable medium", why: noMedium},
	"WriteSame10.UnmapUntilEnd": {why: "it sends a block of FFh with UNMAP and expects zeros; SBC-3 clause 4.7.3.4.3: where the " +
		"data differs from what an unmapped block reads as, it is written (WriteSame16.UnmapUntilEnd sends zeros, and passes)"},
	"iSCSITMF.LUNResetSimpleAsync": {why: "it demands the effect of the Task Management Function Response when the " +
		"request is queued and not yet sent; RFC 7143 section 11.6: the response says that the function was performed"},
}

func exceptionFor(name string) (exception, bool) {
	family, _, _ := strings.Cut(name, ".")
	for _, n := range []string{name, family} {
		if e, ok := exceptions[n]; ok {
			return e, true
		}
	}
	return exception{}, false
}

// units are what the suite's tests run on. Some can only show something on a unit of
// their own kind.
var units = map[string]func(*iscsitest.Disk, *iscsi.LUNSpec){
	"ReadOnly.ReadOnlySBC": func(d *iscsitest.Disk, _ *iscsi.LUNSpec) {
		g := d.Geometry()
		g.ReadOnly = true
		d.SetGeometry(g)
	},
	// It asks for block i+1 and expects block i + (blocks per physical block): that is
	// the block asked for on 4Kn only (SBC-3 clause 5.4.2: the first descriptor starts
	// at the starting LBA of the CDB).
	"GetLBAStatus.UnmapSingle": fourK,
}

func fourK(_ *iscsitest.Disk, l *iscsi.LUNSpec) { l.BlockSize = 4096 }

// testLimit bounds one test of the suite; the longest takes 3 s, and far longer under
// the race detector on a busy machine.
const testLimit = 2 * time.Minute

// conform runs one test of the suite, in a process of its own, against a target of
// its own with two portals, and returns its verdict and output.
func conform(t *testing.T, suite, name string, change func(*iscsitest.Disk, *iscsi.LUNSpec)) (string, string) {
	t.Helper()
	var disk *iscsitest.Disk
	n := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) {
		disk = s.LUNs[0].Disk.(*iscsitest.Disk)
		if change != nil {
			change(disk, &s.LUNs[0])
		}
	})
	args := []string{"-d", "-n", "-t", "ALL." + name, n.url()}
	if strings.HasPrefix(name, "MultipathIO.") {
		second, _ := n.listen("127.0.0.1:0")
		n.spec.Portals = []iscsi.Portal{{Address: n.addr, Local: n.addr, Group: 1}, {Address: second, Local: second, Group: 2}}
		n.update()
		args = append(args, "iscsi://"+second+"/"+n.spec.Name+"/0")
	}
	ctx, cancel := context.WithTimeout(n.ctx, testLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, suite, args...).CombinedOutput()
	if ctx.Err() != nil {
		return "hung", string(out)
	}
	return judge(string(out)), fmt.Sprintf("%v\n%s", err, out)
}

// sessionFamilies are those of the suite in which commands, sessions or task management meet.
var sessionFamilies = regexp.MustCompile(`^(CompareAndWrite|MultipathIO|Prout.*|Reserve6|iSCSI.*)$`)

// shortSuite is what -short leaves of the suite: those families, and of each other one, whose
// tests send one command after the other with different fields, the first.
func shortSuite(names []string) (out []string) {
	seen := map[string]bool{}
	for _, name := range names {
		family, _, _ := strings.Cut(name, ".")
		if !seen[family] || sessionFamilies.MatchString(family) {
			out = append(out, name)
		}
		seen[family] = true
	}
	return out
}

// TestConformance runs libiscsi's suite, test by test: every test passes but the
// exceptions.
func TestConformance(t *testing.T) {
	suite := tool(t, "iscsi-test-cu", "libiscsi-bin")
	names := suiteList(t, suite)
	if len(names) != suiteTests {
		t.Errorf("the suite has %d tests, not %d", len(names), suiteTests)
	}
	if testing.Short() {
		names = shortSuite(names)
	}
	var mu sync.Mutex
	count := map[string]int{}
	t.Run("suite", func(t *testing.T) {
		for _, name := range names {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				verdict, out := conform(t, suite, name, units[name])
				e, named := exceptionFor(name)
				switch {
				case !named && verdict != "pass":
					t.Errorf("%s\n%s", verdict, out)
				case named && e.skip == "":
					if verdict == "pass" {
						t.Errorf("passes now: take it out of the exceptions (%s)", e.why)
					}
					verdict = "excluded"
				case named && verdict == "pass" && !e.silent:
					t.Errorf("passes now: take it out of the exceptions (%s)", e.why)
				case named && verdict == "pass":
					verdict = "skip"
				case named && verdict != "skip":
					t.Errorf("%s instead of skip\n%s", verdict, out)
				}
				mu.Lock()
				defer mu.Unlock()
				count[verdict]++
			})
		}
	})
	t.Logf("%d tests: %v", len(names), count)
	if testing.Short() {
		return
	}
	if n := count["pass"] + count["skip"] + count["excluded"]; n != suiteTests {
		t.Errorf("passed, skipped and excluded are %d of %d", n, suiteTests)
	}
	if count["pass"] < minPassed {
		t.Errorf("%d passed, at least %d must", count["pass"], minPassed)
	}
}

// TestConformance4Kn runs the families that depend on the block size on a unit with
// blocks of 4096 bytes.
func TestConformance4Kn(t *testing.T) {
	if testing.Short() {
		t.Skip("the same code as TestConformance, with other sizes")
	}
	suite := tool(t, "iscsi-test-cu", "libiscsi-bin")
	sized := regexp.MustCompile(`^(CompareAndWrite|ExtendedCopy|GetLBAStatus|Inquiry|ModeSense6|OrWrite|Prefetch|Read[0-9C]|Unmap|Verify|Write|iSCSIResiduals)`)
	for _, name := range suiteList(t, suite) {
		if !sized.MatchString(name) {
			continue
		}
		if e, named := exceptionFor(name); named && e.skip == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			verdict, out := conform(t, suite, name, func(d *iscsitest.Disk, l *iscsi.LUNSpec) {
				fourK(d, l)
				if name == "ExtendedCopy.Simple" { // it writes half the disk at once, up to 2048 blocks
					g := d.Geometry()
					g.Size = 8 << 20
					d.SetGeometry(g)
				}
			})
			if verdict == "skip" && strings.Contains(out, "LBPPB < 2") {
				return // it is about blocks smaller than a physical block
			}
			if verdict != "pass" {
				t.Errorf("%s\n%s", verdict, out)
			}
		})
	}
}

// TestConformanceTable: README.md tells which tests do not pass, and why.
func TestConformanceTable(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	want.WriteString("| test | | why |\n|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(exceptions)) {
		e := exceptions[name]
		kind := "skip: " + e.skip
		if e.skip == "" {
			kind = "excluded"
		}
		fmt.Fprintf(&want, "| %s | %s | %s |\n", name, kind, e.why)
	}
	if !strings.Contains(string(b), want.String()) {
		t.Errorf("README.md does not have this table:\n%s", want.String())
	}
}

// suiteList returns the tests of the suite, without the Sanitize ones.
func suiteList(t *testing.T, suite string) []string {
	t.Helper()
	list, _ := exec.Command(suite, "--list").CombinedOutput() // its exit status says nothing
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^ALL\.(\S+\.\S+)$`).FindAllStringSubmatch(string(list), -1) {
		if !strings.HasPrefix(m[1], "Sanitize.") {
			out = append(out, m[1])
		}
	}
	return out
}

var summary = regexp.MustCompile(`(?m)^ +tests +(\d+) +(\d+) +(\d+) +(\d+)`)

// judge reads the suite's summary of one test.
func judge(out string) string {
	m := summary.FindStringSubmatch(out)
	if m == nil || m[2] != "1" {
		return "did not run"
	}
	if m[4] != "0" {
		return "fail"
	}
	for _, l := range strings.Split(out, "\n") {
		if strings.Contains(l, "[SKIPPED]") {
			return "skip"
		}
	}
	return "pass"
}

// TestLibiscsiTools: discovery and INQUIRY with CHAP through libiscsi.
func TestLibiscsiTools(t *testing.T) {
	ls, inq := tool(t, "iscsi-ls", "libiscsi-bin"), tool(t, "iscsi-inq", "libiscsi-bin")
	n := start(t, iscsi.Config{}, func(s *iscsi.TargetSpec) { s.Groups = open(&iscsi.Auth{User: user, Secret: "libiscsi-secret"}) })
	if out := n.run(t, ls, "iscsi://"+n.addr); !strings.Contains(out, "Target:"+targetName+" Portal:"+n.addr+",1") {
		t.Errorf("iscsi-ls: %s", out)
	}
	if out := n.run(t, ls, "-s", "iscsi://"+user+"%libiscsi-secret@"+n.addr); !strings.Contains(out, "Lun:0") {
		t.Errorf("iscsi-ls -s: %s", out)
	}
	url := "iscsi://" + user + "%libiscsi-secret@" + n.addr + "/" + targetName + "/0"
	if out := n.run(t, inq, url); !strings.Contains(out, "Vendor:OVGATE") {
		t.Errorf("iscsi-inq: %s", out)
	}
	if out, err := n.try(inq, strings.Replace(url, "libiscsi-secret", "another-secret1", 1)); err == nil {
		t.Errorf("iscsi-inq with a wrong secret: %s", out)
	}
}

// TestQemuImg copies an image to the unit and compares it, through QEMU's initiator.
func TestQemuImg(t *testing.T) {
	qemu := tool(t, "qemu-img", "qemu-utils and qemu-block-extra")
	n := start(t, iscsi.Config{}, nil)
	image := filepath.Join(t.TempDir(), "image")
	b := bytes.Repeat([]byte("ovgate"), 5<<20/6)
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 20 << 20, 40<<20 + 512} { // data, and holes between
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
		t.Fatal(err)
	}
	n.run(t, qemu, "convert", "-n", "-f", "raw", "-O", "raw", image, n.url())
	n.run(t, qemu, "compare", "-f", "raw", "-F", "raw", image, n.url())
	if _, err := n.disk.WriteAt([]byte{0xff}, 21<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := n.try(qemu, "compare", "-f", "raw", "-F", "raw", image, n.url()); err == nil {
		t.Errorf("qemu-img compare does not see a changed byte: %s", out)
	}
}
