package iscsi_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
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

// notApplicable are tests of the suite that do not pass, and why. A test that is
// not named here must pass.
var notApplicable = map[string]string{
	"ExtendedCopy":                      "EXTENDED COPY is not implemented",
	"ReceiveCopyResults":                "RECEIVE COPY RESULTS is not implemented",
	"GetLBAStatus.UnmapSingle":          "the suite asks for block i+1 and expects block i+8 in the answer, with 8 blocks per physical block",
	"OrWrite":                           "ORWRITE is not implemented",
	"PreventAllow":                      "the medium is not removable",
	"PrinReadKeys":                      "persistent reservations are not implemented",
	"PrinServiceactionRange":            "persistent reservations are not implemented",
	"PrinReportCapabilities":            "persistent reservations are not implemented",
	"ProutRegister":                     "persistent reservations are not implemented",
	"ProutReserve":                      "persistent reservations are not implemented",
	"ProutClear":                        "persistent reservations are not implemented",
	"ProutPreempt":                      "persistent reservations are not implemented",
	"ReadDefectData10":                  "there is no defect list",
	"ReadDefectData12":                  "there is no defect list",
	"ReadOnly":                          "the disk is writable",
	"WriteAtomic16":                     "WRITE ATOMIC is not implemented",
	"MultipathIO":                       "takes several portals",
	"StartStopUnit.Simple":              "the medium is not removable",
	"WriteSame10.ZeroBlocks":            "WSNZ is set",
	"WriteSame16.ZeroBlocks":            "WSNZ is set",
	"ReportSupportedOpcodes.OneCommand": "the suite takes the CHECK CONDITION that it expects for an unknown command",
	"iSCSITMF.LUNResetSimpleAsync":      "the suite checks the answer before it sends the request",
}

// families of libiscsi's suite; those not named at all cannot apply to a disk.
var families = []string{
	"CompareAndWrite", "ExtendedCopy", "GetLBAStatus", "Inquiry", "Mandatory", "ModeSense6", "NoMedia", "OrWrite",
	"Prefetch10", "Prefetch16", "PreventAllow", "PrinReadKeys", "PrinServiceactionRange", "PrinReportCapabilities",
	"ProutRegister", "ProutReserve", "ProutClear", "ProutPreempt", "Read6", "Read10", "Read12", "Read16",
	"ReadCapacity10", "ReadCapacity16", "ReadDefectData10", "ReadDefectData12", "ReadOnly", "ReceiveCopyResults",
	"ReportSupportedOpcodes", "Reserve6", "StartStopUnit", "TestUnitReady", "Unmap", "Verify10", "Verify12", "Verify16",
	"Write10", "Write12", "Write16", "WriteAtomic16", "WriteSame10", "WriteSame16", "WriteVerify10", "WriteVerify12",
	"WriteVerify16", "iSCSIcmdsn", "iSCSIdatasn", "iSCSIResiduals", "iSCSITMF", "MultipathIO",
}

// TestConformance runs libiscsi's suite, family by family: every test must pass
// but those of notApplicable.
func TestConformance(t *testing.T) {
	suite := tool(t, "iscsi-test-cu", "libiscsi-bin")
	n := start(t, iscsi.Config{}, nil)
	list, _ := n.try(suite, "--list") // its exit status says nothing
	passed, failed, skipped := 0, 0, 0
	for _, f := range families {
		if notApplicable[f] != "" {
			continue
		}
		for _, name := range testsOf(list, f) {
			t.Run(name, func(t *testing.T) {
				out, err := n.try(suite, "-d", "-n", "-t", "ALL."+name, n.url())
				verdict := judge(out)
				switch verdict {
				case "pass":
					passed++
				case "skip":
					skipped++
				default:
					failed++
				}
				if verdict == "pass" == (notApplicable[name] == "") {
					return
				}
				if notApplicable[name] != "" {
					t.Fatalf("passes now: take it out of notApplicable (%s)", notApplicable[name])
				}
				t.Fatalf("%s (%v)\n%s", verdict, err, out)
			})
		}
	}
	if passed < 100 {
		t.Errorf("only %d tests ran and passed", passed)
	}
	t.Logf("passed %d, failed %d, skipped %d", passed, failed, skipped)
}

// testsOf picks the tests of a family out of the suite's list.
func testsOf(list, family string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)ALL\.(\S+)$`).FindAllStringSubmatch(list, -1) {
		if strings.HasPrefix(m[1], family+".") {
			out = append(out, m[1])
		}
	}
	return out
}

var summary = regexp.MustCompile(`(?m)^ +tests +(\d+) +(\d+) +(\d+) +(\d+)`)

// judge reads the suite's summary of one test. The suite also says SKIPPED about
// the persistent reservations that it clears before and after each test.
func judge(out string) string {
	m := summary.FindStringSubmatch(out)
	if m == nil || m[2] != "1" {
		return "did not run"
	}
	if m[4] != "0" {
		return "fail"
	}
	for _, l := range strings.Split(out, "\n") {
		if strings.Contains(l, "[SKIPPED]") && !strings.Contains(l, "PERSISTENT RESERVE IN is not implemented") {
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
