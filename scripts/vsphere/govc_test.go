package vsphere

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
)

// TestGovc: VMware's own client sees and uses what ovgate made, and does not get to damage
// it; a datastore with a virtual machine is not removed.
func TestGovc(t *testing.T) {
	program := filepath.Join(t.TempDir(), "govc")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./govc").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l := start(t, esxsim.Options{Hosts: 2})
	l.create("gold")
	d := l.settled("gold")
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = append(os.Environ(), "GOVC_URL="+l.v.URL(), "GOVC_USERNAME="+l.v.User(), "GOVC_PASSWORD="+l.v.Password(), "GOVC_INSECURE=1", "GOVMOMI_HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	works := func(want string, args ...string) {
		t.Helper()
		if out, err := run(args...); err != nil || !strings.Contains(out, want) {
			t.Errorf("govc %v: %v, without %q: %s", args, err, want, out)
		}
	}
	fails := func(args ...string) {
		t.Helper()
		if out, err := run(args...); err == nil {
			t.Errorf("govc %v works: %s", args, out)
		}
	}
	host := l.v.Host(0).Name()
	works("VMFS", "datastore.info", "gold")
	works(d.Naa, "host.storage.info", "-host", host, "-t", "lun")
	fails("datastore.create", "-type", "vmfs", "-name", "other", "-disk="+d.Naa, host)
	// A storage policy chooses it by its tag.
	works("", "storage.policy.create", "-category", "ovgate-vpool", "-tag", pool, "tagged")
	works("tagged", "storage.policy.ls")
	works("ovgate-vpool", "storage.policy.info", "-json", "tagged")

	// Files on the empty datastore.
	file := filepath.Join(t.TempDir(), "image.iso")
	if err := os.WriteFile(file, []byte("image"), 0o600); err != nil {
		t.Fatal(err)
	}
	works("", "datastore.ls", "-ds", "gold")
	works("", "datastore.mkdir", "-ds", "gold", "images")
	works("", "datastore.upload", "-ds", "gold", file, "images/image.iso")
	works("image.iso", "datastore.ls", "-ds", "gold", "images")
	works("", "datastore.rm", "-ds", "gold", "images/image.iso")
	fails("datastore.ls", "-ds", "gold", "images/image.iso")
	works("", "datastore.rm", "-ds", "gold", "images")
	works("", "vm.create", "-ds", "gold", "-host", host, "-on=false", "-net", "VM Network", "vm1")
	fails("datastore.remove", "-ds", "gold", host)
	refused(t, l.remove("gold"), "in_use", "1 virtual machines")
	if x := l.live("gold"); x.Vms != 1 || !x.Hosts[0].Accessible || !x.Hosts[1].Accessible {
		t.Errorf("the datastore is %+v", x)
	}
	works("", "vm.destroy", "vm1")
	if err := l.remove("gold"); err != nil {
		t.Fatal(err)
	}
	l.gone("gold")
}
