package vsphere

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// TestCLI: the verbs, against an ESXi host without a vCenter.
func TestCLI(t *testing.T) {
	l := start(t, esxsim.Options{Alone: true, Password: "secret-of-the-host"})
	cli := func(args ...string) string {
		t.Helper()
		out, err := l.node.CLI(t.Context(), append(args, "-o", "json")...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		if strings.Contains(string(out), l.v.Password()) {
			t.Errorf("%v tells a secret", args)
		}
		return string(out)
	}
	var c client.Center
	if err := json.Unmarshal([]byte(cli("vsphere", "center", "show", "dc")), &c); err != nil || c.Kind != "esxi" {
		t.Errorf("%+v %v", c, err)
	}
	cli("vsphere", "center", "test", "dc")
	cli("vsphere", "center", "set", "dc", "--name", "lab")
	if out := cli("vsphere", "center", "list"); !strings.Contains(out, `"lab"`) {
		t.Errorf("the list is %s", out)
	}
	if out := cli("vsphere", "host", "list", "lab"); !strings.Contains(out, `"connected"`) {
		t.Errorf("the hosts are %s", out)
	}
	if out := cli("vsphere", "host", "prepare", "lab", "--dry-run"); !strings.Contains(out, `"enable"`) {
		t.Errorf("the plan is %s", out)
	}
	if out := cli("vsphere", "datastore", "create", "gold", "--center", "lab", "--vpool", pool, "--size", "2GiB", "--dry-run"); !strings.Contains(out, `"format"`) {
		t.Errorf("the plan is %s", out)
	}
	cli("vsphere", "datastore", "create", "gold", "--center", "lab", "--vpool", pool, "--size", "2GiB")
	if out := cli("vsphere", "datastore", "show", "gold", "--live"); !strings.Contains(out, `"accessible": true`) {
		t.Errorf("live it is %s", out)
	}
	if out := cli("vsphere", "vm", "list", "--datastore", "gold"); !strings.Contains(out, `"items": []`) {
		t.Errorf("the virtual machines are %s", out)
	}
	cli("vsphere", "datastore", "expand", "gold", "--size", "3GiB")
	cli("vsphere", "datastore", "rename", "gold", "tin")
	cli("vsphere", "datastore", "attach", "tin")
	cli("vsphere", "datastore", "snapshot", "tin", "evening", "--require")
	if out := cli("vsphere", "datastore", "show", "tin"); !strings.Contains(out, `"evening"`) {
		t.Errorf("after a snapshot it is %s", out)
	}
	if out := cli("vsphere", "datastore", "list"); !strings.Contains(out, `"tin"`) || strings.Contains(out, `"gold"`) {
		t.Errorf("the list is %s", out)
	}
	cli("vsphere", "datastore", "remove", "tin", "--keep-vdisk", "-y")
	cli("vsphere", "datastore", "remove", "tin", "-y")
	cli("vdisk", "show", "gold")
	cli("vsphere", "center", "delete", "lab", "-y")
}
