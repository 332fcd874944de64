package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/drill/selfcheck"
)

// peer runs scripts/peer with its state in dir.
func peer(t *testing.T, dir string, args ...string) (map[string]string, error) {
	t.Helper()
	cmd := exec.Command(root+"/scripts/peer", args...)
	cmd.Env = append(os.Environ(), "OVGATE_PEERS="+dir)
	out, err := cmd.CombinedOutput()
	t.Logf("scripts/peer %s: %v\n%s", strings.Join(args, " "), err, out)
	return keyValues(string(out)), err
}

func keyValues(text string) map[string]string {
	kv := map[string]string{}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			kv[k] = v
		}
	}
	return kv
}

// TestTgtPeer: the peer comes up with CHAP, takes our initiator's load whole,
// says where it is, keeps its credentials to itself, and goes down.
func TestTgtPeer(t *testing.T) {
	need(t, "tgtd")
	dir := t.TempDir()
	up, err := peer(t, dir, "tgt", "up", "--size", "64M", "--chap", "--write-through")
	if err != nil {
		t.Fatal("scripts/peer tgt up failed")
	}
	defer func() {
		if _, err := peer(t, dir, "tgt", "down"); err != nil {
			t.Error("scripts/peer tgt down failed")
		}
		if _, err := peer(t, dir, "tgt", "status"); err == nil {
			t.Error("status says it is up after down")
		}
	}()
	if _, err := peer(t, dir, "tgt", "up"); err == nil {
		t.Error("a second up of the same instance succeeded")
	}
	info, err := os.Stat(up["credentials"])
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("credentials file has mode %v", info.Mode())
	}
	b, err := os.ReadFile(up["credentials"])
	if err != nil {
		t.Fatal(err)
	}
	c := keyValues(string(b))
	a := lun.Address{Portal: c["portal"], IQN: c["iqn"], LUN: 1, User: c["chap_user"], Secret: c["chap_secret"], Algorithms: "5"}
	load := selfcheck.New(1024, 1)
	use(t, a, func(d *lun.LUN) {
		if d.Size() != 64<<20 {
			t.Errorf("LUN of %d bytes", d.Size())
		}
		n := 0
		err := load.Run(t.Context(), stopAfter{d, &n}, 1, 1)
		if err != nil {
			t.Error(err)
		}
		if err := load.Verify(d); err != nil {
			t.Error(err)
		}
	})
	if load.Counts().Writes < 100 {
		t.Errorf("load did %+v", load.Counts())
	}
}

// stopAfter fails writes beyond a number, which ends a load.
type stopAfter struct {
	selfcheck.Disk
	n *int
}

func (s stopAfter) WriteAt(p []byte, off int64) (int, error) {
	if *s.n++; *s.n > 200 {
		return 0, os.ErrClosed
	}
	return s.Disk.WriteAt(p, off)
}
