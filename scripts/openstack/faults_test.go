package openstack

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/manageablevolumes"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/quotasets"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

// pieceMax is how many pieces of requests pass at most before a node is killed.
const pieceMax = 6

// TestFaults does one harm after the other, and after each of them nothing is lost on
// either side.
func TestFaults(t *testing.T) {
	for _, f := range []struct {
		name string
		test func(*testing.T)
	}{
		{"endpoint down", testEndpointDown},
		{"quota", testQuota},
		{"full vPool", testFull},
		{"managed twice", testManagedTwice},
		{"node killed", testNodeKilled},
		{"cinder killed", testCinderKilled},
		{"secrets", testSecrets},
	} {
		t.Run(f.name, func(t *testing.T) {
			f.test(t)
			checkOrphans(t)
		})
	}
}

// checkOrphans compares both sides: a vDisk of Cinder has its volume, a volume its vDisk.
func checkOrphans(t testing.TB) {
	t.Helper()
	pages, err := volumes.List(l.admin.block, volumes.ListOpts{AllTenants: true}).AllPages(l.ctx)
	ok(t, err)
	all, err := volumes.ExtractVolumes(pages)
	ok(t, err)
	known := map[string]bool{}
	for _, v := range all {
		known[v.ID] = true
		if !strings.Contains(v.Host, "@"+backend+"#") || v.Status != "available" {
			continue
		}
		d, err := l.vdisk("volume-" + v.ID)
		ok(t, err)
		if d == nil {
			t.Errorf("volume %s is available and has no vDisk", v.ID)
		}
	}
	limit := 1000
	list, err := client.Get[client.VDiskList](l.api.ListVDisks(l.ctx, &client.ListVDisksParams{Limit: &limit}))
	ok(t, err)
	for _, d := range list.Items {
		if id := d.Labels["cinder-volume"]; id != "" && !known[id] && d.State != client.VDiskStateTrashed {
			t.Errorf("vDisk %s (%s) is of volume %s, which Cinder does not have", d.Name, d.State, id)
		}
	}
}

// testEndpointDown: the next address is used, and the first one again after that.
func testEndpointDown(t *testing.T) {
	c := l.member
	before := l.door.Passed()
	l.door.Close()
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: plain})
	c.writeVolume(t, v.ID, 1, 1)
	if l.door.Passed() != before {
		t.Error("a shut door was passed")
	}
	ok(t, l.door.Open())
	c.checkVolume(t, v.ID, 1, 1, 1)
	c.delete(t, v.ID)
}

func (l *lab) vdisks(t testing.TB) int {
	t.Helper()
	n := 0
	limit := 1000
	list, err := client.Get[client.VDiskList](l.api.ListVDisks(l.ctx, &client.ListVDisksParams{Limit: &limit}))
	ok(t, err)
	for _, d := range list.Items {
		if d.State != client.VDiskStateTrashed {
			n++
		}
	}
	return n
}

// testQuota: what Cinder refuses does not come to ovgate.
func testQuota(t *testing.T) {
	before := l.vdisks(t)
	none := 0
	_, err := quotasets.Update(l.ctx, l.admin.block, l.member.project, quotasets.UpdateOpts{Volumes: &none}).Extract()
	ok(t, err)
	_, err = l.member.tryCreate(volumes.CreateOpts{Size: 1, VolumeType: plain})
	if !gophercloud.ResponseCodeIs(err, http.StatusRequestEntityTooLarge) {
		t.Errorf("a volume above the quota was answered by %v", err)
	}
	ok(t, quotasets.Delete(l.ctx, l.admin.block, l.member.project).ExtractErr())
	if after := l.vdisks(t); after != before {
		t.Errorf("there were %d vDisks, and are %d after a volume was refused", before, after)
	}
}

// testFull: a volume that a vPool has no room for ends in error, leaves nothing, and can
// be made once there is room.
func testFull(t *testing.T) {
	c := l.admin
	_, err := l.node.CLI(l.ctx, "vpool", "set", plain, "--oversubscription", "1")
	ok(t, err)
	const huge = 50000 // GiB
	v, err := volumes.Create(l.ctx, c.block, volumes.CreateOpts{Size: huge, VolumeType: plain}, nil).Extract()
	ok(t, err)
	_, err = c.waitVolume(v.ID, "error")
	ok(t, err)
	if text := c.messages(l.ctx, v.ID); text == "" {
		t.Error("Cinder tells the user nothing of why")
	} else {
		t.Logf("a full vPool: %s", text)
	}
	d, err := l.vdisk("volume-" + v.ID)
	ok(t, err)
	if d != nil {
		t.Errorf("a volume in error has the vDisk %s (%s)", d.Name, d.State)
	}
	c.delete(t, v.ID)
	_, err = l.node.CLI(l.ctx, "vpool", "set", plain, "--oversubscription", "0")
	ok(t, err)
	// The scheduler learns of the room with the next figures.
	ok(t, until("there is no room for a volume", func(context.Context) (bool, error) {
		v, err := c.tryCreate(volumes.CreateOpts{Size: 1, VolumeType: plain})
		if err == nil {
			return true, c.tryDelete(v.ID)
		}
		return false, c.deleteFailed()
	}))
}

// deleteFailed deletes volumes in error, as an administrator does.
func (c *cloud) deleteFailed() error {
	pages, err := volumes.List(c.block, volumes.ListOpts{AllTenants: true}).AllPages(l.ctx)
	if err != nil {
		return err
	}
	all, err := volumes.ExtractVolumes(pages)
	if err != nil {
		return err
	}
	for _, v := range all {
		if !strings.HasPrefix(v.Status, "error") {
			continue
		}
		if err := c.tryDelete(v.ID); err != nil {
			return err
		}
	}
	return nil
}

// testManagedTwice: a vDisk that is a volume already is not taken for another, and the
// end of the other leaves it alone.
func testManagedTwice(t *testing.T) {
	c := l.admin
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: plain})
	c.writeVolume(t, v.ID, 1, 1)
	d, err := l.vdisk("volume-" + v.ID)
	ok(t, err)
	manage := func(ref map[string]string) (*volumes.Volume, error) {
		return manageablevolumes.ManageExisting(l.ctx, c.block, manageablevolumes.ManageExistingOpts{Host: poolHost(plain),
			Ref: ref, Name: "twice", VolumeType: plain}).Extract()
	}
	// Cinder itself knows the name.
	if _, err := manage(map[string]string{"source-name": d.Name}); !gophercloud.ResponseCodeIs(err, http.StatusBadRequest) {
		t.Errorf("to manage a volume again was answered by %v", err)
	}
	for _, ref := range []map[string]string{{"source-id": d.ID}, {"source-name": "nothing"}} {
		m, err := manage(ref)
		if gophercloud.ResponseCodeIs(err, http.StatusBadRequest) {
			continue
		}
		ok(t, err)
		ok(t, until("volume "+m.ID+" is not in error", func(ctx context.Context) (bool, error) {
			v, err := volumes.Get(ctx, c.block, m.ID).Extract()
			if err == nil && v.Status == "available" {
				err = fmt.Errorf("%v was taken for a volume", ref)
			}
			return err == nil && strings.HasPrefix(v.Status, "error"), err
		}))
		ok(t, volumes.ForceDelete(l.ctx, c.block, m.ID).ExtractErr())
		c.goneVolume(t, m.ID)
	}
	c.checkVolume(t, v.ID, 1, 1, 1)
	c.delete(t, v.ID)
}

// killedDuring kills the node in the middle of an operation and starts it again. The
// operation has to succeed.
func killedDuring(t *testing.T, name string, do func() error) {
	t.Helper()
	killIn(t, l.node, name, do, func() error { return l.node.Start(l.ctx) })
}

// killIn kills a node in the middle of an operation, which has to succeed after then; it
// returns the piece of a request in which that was.
func killIn(t *testing.T, n *node.Node, name string, do, then func() error) int {
	t.Helper()
	pieces := 1 + rand.IntN(pieceMax)
	reached := l.pieces.After(pieces)
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case <-reached:
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		done <- nil
	}
	ok(t, n.Kill())
	ok(t, then())
	if err := <-done; err != nil {
		t.Fatalf("%s, killed after %d pieces: %v", name, pieces, err)
	}
	return pieces
}

func testNodeKilled(t *testing.T) { operationsUnder(t, killedDuring) }

// operations is how many operationsUnder does.
const operations = 12

// operationsUnder does each operation while something is done to the nodes.
func operationsUnder(t *testing.T, harm func(t *testing.T, name string, do func() error)) {
	c := l.admin
	var v, s, clone, old string
	kill := func(name string, do func() error) {
		t.Helper()
		harm(t, name, do)
	}
	created := func(id *string, opts volumes.CreateOpts) func() error {
		return func() error {
			made, err := c.tryCreate(opts)
			if err == nil {
				*id = made.ID
			}
			return err
		}
	}
	kill("create", created(&v, volumes.CreateOpts{Size: 1, VolumeType: shared}))
	c.writeVolume(t, v, 1, 1)
	kill("snapshot", func() (err error) {
		s, err = c.trySnapshot(v)
		return err
	})
	c.writeVolume(t, v, 2, 1)
	kill("revert", func() error {
		if err := c.post("volumes/"+v+"/action", map[string]any{"revert": map[string]any{"snapshot_id": s}}, nil); err != nil {
			return err
		}
		_, err := c.waitVolume(v, "available")
		return err
	})
	c.checkVolume(t, v, 1, 1, 1)
	c.writeVolume(t, v, 2, 1)
	kill("clone", created(&clone, volumes.CreateOpts{Size: 2, SourceVolID: v}))
	kill("volume from snapshot", created(&old, volumes.CreateOpts{Size: 1, SnapshotID: s}))
	c.checkVolume(t, clone, 2, 1, 2)
	c.checkVolume(t, old, 1, 1, 1)
	kill("extend", func() error { return c.extend(clone, 3, "available") })
	c.checkVolume(t, clone, 2, 1, 3)
	var a *attachment
	kill("attach", func() (err error) {
		a, err = c.tryAttach(old, "host1")
		return err
	})
	a.connect(t)
	a.use(t, func(d *lun.LUN) { check(t, d, 1, 1); write(t, d, 5, 1) })
	kill("detach", func() error { return a.detach() })
	c.available(t, old)
	c.checkVolume(t, old, 5, 1, 1)
	kill("delete", func() error { return c.tryDelete(old) })
	kill("delete of the clone", func() error { return c.tryDelete(clone) })
	kill("delete of the snapshot", func() error { return c.tryDeleteSnapshot(s) })
	// A vDisk with clones in the trash is not moved.
	c.delete(t, v)
	v = c.create(t, volumes.CreateOpts{Size: 1, VolumeType: shared}).ID
	c.writeVolume(t, v, 2, 1)
	to := fast
	if pool(t, v) == fast {
		to = plain
	}
	kill("migrate", func() error { return c.tryMigrate(v, to) })
	checkPool(t, v, to)
	c.checkVolume(t, v, 2, 1, 1)
	c.delete(t, v)
}

// testCinderKilled: Cinder is killed while it works on several volumes and started again,
// with a backend more whose token is wrong. What had been there is there, and what was in
// the making can be deleted, on both sides.
func testCinderKilled(t *testing.T) {
	c := l.admin
	keep := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: plain})
	c.writeVolume(t, keep.ID, 1, 1)
	s := c.snapshot(t, keep.ID)
	dying := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: fast})

	reached := l.pieces.After(1 + rand.IntN(4*pieceMax))
	var inTheMaking []string
	for _, opts := range []volumes.CreateOpts{{Size: 1, VolumeType: plain}, {Size: 1, SourceVolID: keep.ID}, {Size: 1, SnapshotID: s}} {
		v, err := volumes.Create(l.ctx, c.block, opts, nil).Extract()
		ok(t, err)
		inTheMaking = append(inTheMaking, v.ID)
	}
	half, err := snapshots.Create(l.ctx, c.block, snapshots.CreateOpts{VolumeID: keep.ID, Force: true}).Extract()
	ok(t, err)
	ok(t, volumes.Delete(l.ctx, c.block, dying.ID, nil).ExtractErr())
	select {
	case <-reached:
	case <-l.ctx.Done():
		t.Fatal(l.ctx.Err())
	}
	peer := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(l.ctx, filepath.Join("scripts", "peer"), append([]string{"cinder"}, append(args, "--instance", "openstack")...)...)
		cmd.Env = append(os.Environ(), "OVGATE_PEERS="+l.peers())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("scripts/peer cinder %v: %v: %s", args, err, out)
		}
	}
	peer("kill")
	wrong := filepath.Join(l.dir, "wrong.conf")
	text, err := os.ReadFile(filepath.Join(l.dir, "ovgate.conf"))
	ok(t, err)
	changed := strings.Replace(strings.ReplaceAll(string(text), l.token, "wrong-"+uuid()), "["+backend+"]", "[wrong]", 1)
	ok(t, os.WriteFile(wrong, []byte(changed), 0o600))
	l.cinder, err = node.StartPeer(l.ctx, l.peers(), "cinder", "openstack", "--backend", filepath.Join(l.dir, "ovgate.conf"),
		"--backend", filepath.Join(l.dir, "fake.conf"), "--backend", wrong)
	ok(t, err)
	if l.cinder.Said["uninitialized"] != "wrong" {
		t.Errorf("with a wrong token, the backends %q did not come up, want wrong", l.cinder.Said["uninitialized"])
	}
	log, err := os.ReadFile(l.cinder.Said["log"])
	ok(t, err)
	if !strings.Contains(string(log), "ovgate: GET /version: ") || !strings.Contains(string(log), "token") {
		t.Error("cinder-volume does not say that the token is wrong")
	}

	for _, id := range append(inTheMaking, dying.ID) {
		ok(t, c.endMaking(id))
	}
	if err := c.resetSnapshot(half.ID); err != nil {
		t.Fatal(err)
	}
	c.deleteSnapshot(t, half.ID, s)
	for _, id := range append(inTheMaking, dying.ID) {
		d, err := l.vdisk("volume-" + id)
		ok(t, err)
		if d != nil {
			t.Errorf("volume %s is deleted, its vDisk is %s", id, d.State)
		}
	}
	c.checkVolume(t, keep.ID, 1, 1, 1)
	c.delete(t, keep.ID)
}

// endMaking deletes a volume whose making or end was cut, as an administrator does: a
// request that no service had begun with is lost with the process.
func (c *cloud) endMaking(id string) error {
	v, err := volumes.Get(l.ctx, c.block, id).Extract()
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if v.Status != "available" && v.Status != "error" {
		if err := volumes.ResetStatus(l.ctx, c.block, id, volumes.ResetStatusOpts{Status: "error", AttachStatus: "detached"}).ExtractErr(); err != nil {
			return fmt.Errorf("volume %s in %s: %w", id, v.Status, err)
		}
	}
	return c.tryDelete(id)
}

func (c *cloud) resetSnapshot(id string) error {
	s, err := snapshots.Get(l.ctx, c.block, id).Extract()
	if err != nil || s.Status == "available" || s.Status == "error" {
		return err
	}
	return snapshots.ResetStatus(l.ctx, c.block, id, snapshots.ResetStatusOpts{Status: "error"}).ExtractErr()
}

// testSecrets: neither the token nor what a host proves itself with is in Cinder's log.
func testSecrets(t *testing.T) {
	c := l.admin
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: plain})
	a := c.attach(t, v.ID, "host1")
	ok(t, a.detach())
	c.available(t, v.ID)
	c.delete(t, v.ID)
	log, err := os.ReadFile(l.cinder.Said["log"])
	ok(t, err)
	for what, secret := range map[string]string{"token": l.token, "CHAP secret": a.where.Secret} {
		if strings.Contains(string(log), secret) {
			t.Errorf("the %s is in Cinder's log", what)
		}
	}
}
