package debian

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/scripts/lab"
)

// TestMain also is the etcd of TestInstallCluster.
func TestMain(m *testing.M) {
	if handled, err := lab.Helper(os.Args); handled {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestInstallCluster installs three nodes, each a Debian in a network namespace of its own,
// with scripts/install-cluster, which may be repeated. They run the registry; in make drills
// also others that use an etcd.
func TestInstallCluster(t *testing.T) {
	needed(t)
	deb := build(t, now, t.TempDir())
	t.Run("members", func(t *testing.T) {
		installCluster(t, deb, lab.Options{Nodes: 3, OwnRegistry: true, Bin: "/usr/bin/ovgate"})
	})
	if os.Getenv("OVGATE_CLUSTER") == "full" {
		t.Run("etcd", func(t *testing.T) { installCluster(t, deb, lab.Options{Nodes: 3, Members: 1, Bin: "/usr/bin/ovgate"}) })
	}
}

func installCluster(t *testing.T, deb string, o lab.Options) {
	dir := t.TempDir()
	l, err := lab.Make(t.Context(), filepath.Join(dir, "lab"), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(context.WithoutCancel(t.Context()), l.Dir()); err != nil {
			t.Error(err)
		}
	})
	args := []string{"--deb", deb, "--name", "east", "--vpool", "gold"}
	files := "/etc/ovgate/ovgate.yaml"
	if !o.OwnRegistry {
		registry, err := l.StartRegistry(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--etcd-ca", registry.CA, "--etcd-certificate", registry.Certificate, "--etcd-key", registry.Key)
		for _, url := range registry.URLs {
			args = append(args, "--etcd", url)
		}
		files += " /etc/ovgate/etcd-key.pem"
	}
	rsh := "#!/bin/sh\ncase $1 in\n"
	var nodes []*machine
	for _, n := range l.Nodes() {
		m := boot(t, "--network-namespace-path=/run/netns/"+l.Namespace(n))
		nodes = append(nodes, m)
		rsh += fmt.Sprintf("%s) exec %s \"$2\" ;;\n", n, strings.Join(m.enter(), " "))
		args = append(args, n+"="+lab.Address(n))
	}
	script := filepath.Join(dir, "rsh")
	if err := os.WriteFile(script, []byte(rsh+"esac\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		out, err := exec.CommandContext(t.Context(), "../install-cluster", append([]string{"--rsh", script}, args...)...).CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			for _, m := range nodes {
				log, _ := m.try("systemctl status --no-pager ovgate; journalctl --no-pager -n 20 -u ovgate")
				t.Log(log)
			}
			t.Fatal(err)
		}
	}
	for _, m := range nodes {
		m.says("ovgate node list -o json | grep -c '\"liveness\": \"alive\"'", "3")
		m.says("ovgate osd list -o json | grep -c '\"address\":'", "6")
		m.says("stat -c '%U %G %a' "+files+" | sort -u", "root ovgate 640")
		if o.OwnRegistry {
			m.says("until ovgate cluster status -o json | grep -c '\"state\": \"up\"' | grep -x 3; do sleep 1; done", "3")
		}
	}
	// What one node stores another reads.
	nodes[1].do("head -c 8388608 /dev/urandom >/tmp/image && ovgate vdisk import /tmp/image image --vpool gold && ovgate vdisk move image --node n3 --wait")
	sum := func(m *machine, file string) string { return strings.Fields(m.do("sha256sum " + file))[0] }
	nodes[2].do("ovgate vdisk export image /tmp/back")
	if sum(nodes[1], "/tmp/image") != sum(nodes[2], "/tmp/back") {
		t.Error("another node reads something else than what was stored")
	}
}
