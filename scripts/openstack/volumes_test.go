package openstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/manageablevolumes"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/qos"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/schedulerstats"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/transfers"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumetypes"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

// TestVolumes does each operation through gophercloud.
func TestVolumes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T){
		"copies": testCopies, "revert": testRevert, "extend": testExtend, "retype": testRetype,
		"migrate": testMigrate, "images": testImages, "manage": testManage, "groups": testGroups,
		"multiattach": testMultiattach, "transfer": testTransfer, "qos": testQoS, "pools": testPools,
		"delete": testDelete, "legacy": testLegacy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// action asks for something of a volume that gophercloud has no call for.
func (c *cloud) action(t *testing.T, volume, name string, args map[string]any) {
	t.Helper()
	ok(t, c.post("volumes/"+volume+"/action", map[string]any{name: args}, nil))
}

// testCopies: snapshots, volumes of them, clones, each larger too; none sees what another
// is written later.
func testCopies(t *testing.T) {
	c := l.member
	v := c.create(t, volumes.CreateOpts{Name: "copies", Size: 1, VolumeType: fast})
	c.writeVolume(t, v.ID, 1, 1)
	s := c.snapshot(t, v.ID)
	c.writeVolume(t, v.ID, 2, 1)
	same := c.create(t, volumes.CreateOpts{Size: 1, SnapshotID: s})
	larger := c.create(t, volumes.CreateOpts{Size: 3, SnapshotID: s})
	clone := c.create(t, volumes.CreateOpts{Size: 1, SourceVolID: v.ID})
	largerClone := c.create(t, volumes.CreateOpts{Size: 2, SourceVolID: v.ID})
	c.checkVolume(t, same.ID, 1, 1, 1)
	c.checkVolume(t, clone.ID, 2, 1, 1)
	c.use(t, larger.ID, func(d *lun.LUN) {
		checkSize(t, d, 3)
		check(t, d, 1, 1)
		write(t, d, 3, 3)
	})
	c.use(t, largerClone.ID, func(d *lun.LUN) {
		checkSize(t, d, 2)
		check(t, d, 2, 1)
		write(t, d, 4, 2)
	})
	c.checkVolume(t, v.ID, 2, 1, 1)
	c.checkVolume(t, same.ID, 1, 1, 1)
	c.checkVolume(t, larger.ID, 3, 3, 3)
	// A snapshot may go while its volumes stay, and the volume cloned from, too.
	c.deleteSnapshot(t, s)
	c.delete(t, v.ID)
	c.checkVolume(t, same.ID, 1, 1, 1)
	c.checkVolume(t, clone.ID, 2, 1, 1)
	c.checkVolume(t, largerClone.ID, 4, 2, 2)
	c.delete(t, same.ID, larger.ID, clone.ID, largerClone.ID)
}

func testRevert(t *testing.T) {
	c := l.member
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: fast})
	c.writeVolume(t, v.ID, 1, 1)
	s := c.snapshot(t, v.ID)
	c.writeVolume(t, v.ID, 2, 1)
	c.action(t, v.ID, "revert", map[string]any{"snapshot_id": s})
	_, err := c.waitVolume(v.ID, "available")
	ok(t, err)
	c.checkVolume(t, v.ID, 1, 1, 1)
	c.deleteSnapshot(t, s)
	c.delete(t, v.ID)
}

// testExtend: while nobody uses it, and while a host does, which learns of it twice: from
// the target and through Nova.
func testExtend(t *testing.T) {
	c := l.member
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: plain})
	c.writeVolume(t, v.ID, 1, 1)
	ok(t, c.extend(v.ID, 2, "available"))
	a := c.attach(t, v.ID, "host1")
	a.use(t, func(d *lun.LUN) {
		checkSize(t, d, 2)
		check(t, d, 1, 1)
		ok(t, c.extend(v.ID, 4, "in-use"))
		size, err := d.Capacity()
		ok(t, err)
		if size != 4*gib {
			t.Fatalf("the session sees %d bytes after the volume was extended to 4 GiB", size)
		}
		check(t, d, 1, 1)
		write(t, d, 2, 4)
		check(t, d, 2, 4)
	})
	ok(t, until("Nova was not told of the size", func(ctx context.Context) (bool, error) {
		var told struct {
			Events []struct {
				Name   string `json:"name"`
				Server string `json:"server_uuid"`
				Tag    string `json:"tag"`
			} `json:"events"`
		}
		if err := getJSON(ctx, l.cinder.Said["events"], &told); err != nil {
			return false, err
		}
		for _, e := range told.Events {
			if e.Name == "volume-extended" && e.Server == a.server && e.Tag == v.ID {
				return true, nil
			}
		}
		return false, nil
	}))
	ok(t, a.detach())
	c.checkVolume(t, v.ID, 2, 4, 4)
	c.delete(t, v.ID)
}

// where is the pool of a volume, and that of its vDisk, which have to be the same.
func pool(t *testing.T, volume string) string {
	t.Helper()
	v, err := volumes.Get(l.ctx, l.admin.block, volume).Extract()
	ok(t, err)
	d, err := l.vdisk("volume-" + volume)
	ok(t, err)
	if d == nil {
		t.Fatalf("volume %s has no vDisk of its name", volume)
	}
	_, name, _ := strings.Cut(v.Host, "#")
	if name != d.VPool {
		t.Fatalf("Cinder has volume %s in %s, its vDisk is in vPool %s", volume, v.Host, d.VPool)
	}
	return name
}

func checkPool(t *testing.T, volume, want string) {
	t.Helper()
	if got := pool(t, volume); got != want {
		t.Fatalf("volume %s is in pool %s, want %s", volume, got, want)
	}
}

func testRetype(t *testing.T) {
	c := l.admin
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: plain})
	c.writeVolume(t, v.ID, 1, 1)
	checkPool(t, v.ID, plain)
	retype := func(to string, policy volumes.MigrationPolicy) {
		t.Helper()
		ok(t, volumes.ChangeType(l.ctx, c.block, v.ID, volumes.ChangeTypeOpts{NewType: to, MigrationPolicy: policy}).ExtractErr())
		ok(t, until("volume "+v.ID+" is not of type "+to, func(ctx context.Context) (bool, error) {
			got, err := volumes.Get(ctx, c.block, v.ID).Extract()
			if err == nil && got.Status == "available" && got.VolumeType != to {
				err = fmt.Errorf("volume %s was not retyped to %s: %s", v.ID, to, c.messages(ctx, v.ID))
			}
			return err == nil && got.Status == "available", err
		}))
	}
	retype(shared, volumes.MigrationPolicyNever)
	checkPool(t, v.ID, plain)
	retype(fast, volumes.MigrationPolicyOnDemand)
	checkPool(t, v.ID, fast)
	c.checkVolume(t, v.ID, 1, 1, 1)
	c.delete(t, v.ID)
}

// poolHost is a pool as Cinder writes it.
func poolHost(vpool string) string { return l.cinder.Said["host"] + "@" + backend + "#" + vpool }

func (c *cloud) tryMigrate(volume, vpool string) error {
	if err := c.post("volumes/"+volume+"/action", map[string]any{"os-migrate_volume": map[string]any{"host": poolHost(vpool)}}, nil); err != nil {
		return err
	}
	return c.waitMigration(volume, vpool)
}

func (c *cloud) waitMigration(volume, vpool string) error {
	return until("volume "+volume+" is not migrated", func(ctx context.Context) (bool, error) {
		var got struct {
			Volume struct {
				Migration string `json:"migration_status"`
			} `json:"volume"`
		}
		if err := c.get(ctx, "volumes/"+volume, &got); err != nil {
			return false, err
		}
		if got.Volume.Migration == "error" {
			return false, fmt.Errorf("the migration of volume %s to %s failed: %s", volume, vpool, c.messages(ctx, volume))
		}
		return got.Volume.Migration == "success", nil
	})
}

func testMigrate(t *testing.T) {
	c := l.admin
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: shared})
	c.writeVolume(t, v.ID, 1, 1)
	to := fast
	if pool(t, v.ID) == fast {
		to = plain
	}
	ok(t, c.tryMigrate(v.ID, to))
	checkPool(t, v.ID, to)
	c.checkVolume(t, v.ID, 1, 1, 1)
	c.delete(t, v.ID)
}

// imageSize is the size of images in bytes, below that of the volumes made of them: what
// Glance and Cinder do with every byte of an image takes most of the time.
const imageSize = 64 << 20

// imageFile makes an image of imageSize with the pattern of a seed.
func imageFile(t *testing.T, seed byte, format string) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	f, err := os.Create(raw)
	ok(t, err)
	ok(t, f.Truncate(imageSize))
	writeBytes(t, f, seed, imageSize)
	ok(t, f.Close())
	if format == "raw" {
		return raw
	}
	file := raw + "." + format
	if out, err := exec.CommandContext(l.ctx, "qemu-img", "convert", "-O", format, raw, file).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	return file
}

// testImages: an image becomes a volume, and that an image, with the same bytes.
func testImages(t *testing.T) {
	c := l.member
	made, err := images.Create(l.ctx, c.image, images.CreateOpts{Name: "qcow2", DiskFormat: "qcow2", ContainerFormat: "bare"}).Extract()
	ok(t, err)
	f, err := os.Open(imageFile(t, 1, "qcow2"))
	ok(t, err)
	defer f.Close()
	ok(t, imagedata.Upload(l.ctx, c.image, made.ID, f).ExtractErr())
	v := c.create(t, volumes.CreateOpts{Size: 2, ImageID: made.ID, VolumeType: fast})
	if v.Bootable != "true" {
		t.Errorf("a volume of an image is not bootable: %q", v.Bootable)
	}
	c.checkImaged(t, v.ID, 1, 2)
	up, err := volumes.UploadImage(l.ctx, c.block, v.ID, volumes.UploadImageOpts{ImageName: "back", DiskFormat: "qcow2", ContainerFormat: "bare"}).Extract()
	ok(t, err)
	ok(t, c.waitImage(up.ImageID))
	_, err = c.waitVolume(v.ID, "available")
	ok(t, err)
	checkImage(t, c, up.ImageID, "qcow2", 1, imageSize, 2)
	for _, id := range []string{made.ID, up.ImageID} {
		ok(t, images.Delete(l.ctx, c.image, id).ExtractErr())
	}
	c.delete(t, v.ID)
}

// waitImage waits until all of an image is there.
func (c *cloud) waitImage(id string) error {
	return until("image "+id+" is not active", func(ctx context.Context) (bool, error) {
		i, err := images.Get(ctx, c.image, id).Extract()
		if err == nil && i.Status == images.ImageStatusKilled {
			err = errors.New("image " + id + " was given up")
		}
		return err == nil && i.Status == images.ImageStatusActive, err
	})
}

// checkImaged reads a volume of gibs GiB that was made of an image.
func (c *cloud) checkImaged(t *testing.T, volume string, seed byte, gibs int) {
	t.Helper()
	c.use(t, volume, func(d *lun.LUN) {
		checkSize(t, d, gibs)
		checkBytes(t, d, seed, imageSize)
		for _, at := range []int64{imageSize, d.Size() - stretch} {
			rest := make([]byte, stretch)
			_, err := d.ReadAt(rest, at)
			ok(t, err)
			if !bytes.Equal(rest, make([]byte, stretch)) {
				t.Fatalf("at %d, behind the image, there is something", at)
			}
		}
	})
}

// checkImage reads an image of gibs GiB, made of a volume, which has the pattern of a seed
// in the places of written bytes, and zeros elsewhere.
func checkImage(t *testing.T, c *cloud, id, format string, seed byte, written int64, gibs int) {
	t.Helper()
	body, err := imagedata.Download(l.ctx, c.image, id).Extract()
	ok(t, err)
	defer body.Close()
	if format != "raw" {
		body = raw(t, body, format)
	}
	var at int64
	got, zeros := make([]byte, stretch), make([]byte, stretch)
	for _, place := range places(written) {
		zero(t, body, id, at, place, got, zeros)
		_, err := io.ReadFull(body, got)
		ok(t, err)
		if !bytes.Equal(got, pattern(seed, place)) {
			t.Fatalf("in image %s there is not what was written at %d", id, place)
		}
		at = place + stretch
	}
	zero(t, body, id, at, int64(gibs)*gib, got, zeros)
	if n, err := io.ReadFull(body, got[:1]); n != 0 || err != io.EOF {
		t.Fatalf("image %s is larger than %d GiB: %v", id, gibs, err)
	}
}

// zero reads zeros from at to end.
func zero(t *testing.T, image io.Reader, id string, at, end int64, got, zeros []byte) {
	t.Helper()
	for ; at < end; at += stretch {
		n := min(stretch, end-at)
		_, err := io.ReadFull(image, got[:n])
		ok(t, err)
		if !bytes.Equal(got[:n], zeros[:n]) {
			t.Fatalf("image %s is not zero in the %d bytes at %d", id, n, at)
		}
	}
}

// raw is what an image of a format holds.
func raw(t *testing.T, image io.Reader, format string) io.ReadCloser {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(file)
	ok(t, err)
	_, err = io.Copy(f, image)
	ok(t, errors.Join(err, f.Close()))
	if out, err := exec.CommandContext(l.ctx, "qemu-img", "convert", "-f", format, "-O", "raw", file, file+".raw").CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v: %s", err, out)
	}
	opened, err := os.Open(file + ".raw")
	ok(t, err)
	t.Cleanup(func() { _ = opened.Close() })
	return opened
}

// testManage: a volume that Cinder forgets and takes again, which keeps its content, and
// the same with a snapshot.
func testManage(t *testing.T) {
	c := l.admin
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: plain})
	c.writeVolume(t, v.ID, 1, 1)
	ok(t, volumes.Unmanage(l.ctx, c.block, v.ID).ExtractErr())
	c.goneVolume(t, v.ID)
	type reference map[string]string
	var list struct {
		Volumes []struct {
			Reference reference `json:"reference"`
			Safe      bool      `json:"safe_to_manage"`
			Size      int       `json:"size"`
		} `json:"manageable-volumes"`
	}
	ok(t, c.get(l.ctx, "manageable_volumes/detail?limit=1000&host="+strings.ReplaceAll(poolHost(plain), "#", "%23"), &list))
	name, found := "volume-"+v.ID, false
	for _, m := range list.Volumes {
		if m.Reference["source-name"] == name {
			found = m.Safe && m.Size == 1
		}
	}
	if !found {
		t.Fatalf("vDisk %s is not listed as one of 1 GiB that can be managed: %+v", name, list)
	}
	m, err := manageablevolumes.ManageExisting(l.ctx, c.block, manageablevolumes.ManageExistingOpts{Host: poolHost(plain),
		Ref: reference{"source-name": name}, Name: "managed", VolumeType: plain}).Extract()
	ok(t, err)
	_, err = c.waitVolume(m.ID, "available")
	ok(t, err)
	checkPool(t, m.ID, plain)
	c.checkVolume(t, m.ID, 1, 1, 1)

	s := c.snapshot(t, m.ID)
	c.writeVolume(t, m.ID, 2, 1)
	ok(t, c.post("snapshots/"+s+"/action", map[string]any{"os-unmanage": nil}, nil))
	ok(t, c.waitSnapshotGone(s))
	var listed struct {
		Snapshots []struct {
			Reference reference `json:"reference"`
			Source    reference `json:"source_reference"`
			Safe      bool      `json:"safe_to_manage"`
		} `json:"manageable-snapshots"`
	}
	ok(t, c.get(l.ctx, "manageable_snapshots/detail?limit=1000&host="+strings.ReplaceAll(poolHost(plain), "#", "%23"), &listed))
	found = false
	for _, x := range listed.Snapshots {
		if x.Reference["source-name"] == "snapshot-"+s {
			found = x.Safe && x.Source["source-name"] == "volume-"+m.ID
		}
	}
	if !found {
		t.Fatalf("snapshot %s is not listed as one that can be managed: %+v", s, listed)
	}
	var again struct {
		Snapshot struct {
			ID string `json:"id"`
		} `json:"snapshot"`
	}
	ok(t, c.post("manageable_snapshots", map[string]any{"snapshot": map[string]any{"volume_id": m.ID,
		"ref": reference{"source-name": "snapshot-" + s}}}, &again))
	ok(t, c.waitSnapshot(again.Snapshot.ID, "available"))
	old := c.create(t, volumes.CreateOpts{Size: 1, SnapshotID: again.Snapshot.ID})
	c.checkVolume(t, old.ID, 1, 1, 1)
	c.delete(t, old.ID)
	c.deleteSnapshot(t, again.Snapshot.ID)
	c.delete(t, m.ID)
}

// ofGroup is a volume in a group.
type ofGroup struct {
	volumes.CreateOpts
	group string
}

func (o ofGroup) ToVolumeCreateMap() (map[string]any, error) {
	body, err := o.CreateOpts.ToVolumeCreateMap()
	if err == nil {
		body["volume"].(map[string]any)["group_id"] = o.group
	}
	return body, err
}

// waitObject waits until a group or group snapshot has a status; "" is gone.
func (c *cloud) waitObject(t *testing.T, kind, id, status string) {
	t.Helper()
	ok(t, until(kind+" "+id+" is not "+status, func(ctx context.Context) (bool, error) {
		got := map[string]struct {
			Status string `json:"status"`
		}{}
		err := c.get(ctx, kind+"s/"+id, &got)
		if status == "" && gone(err) {
			return true, nil
		}
		now := got[kind].Status
		if err == nil && now != status && strings.HasPrefix(now, "error") {
			err = fmt.Errorf("%s %s is %s", kind, id, now)
		}
		return err == nil && now == status, err
	}))
}

type object struct {
	ID string `json:"id"`
}

func (c *cloud) make(t *testing.T, where, kind string, body map[string]any) string {
	t.Helper()
	made := map[string]object{}
	ok(t, c.post(where, body, &made))
	return made[kind].ID
}

// testGroups: a group, a snapshot of all its volumes at one moment, and a group of that.
func testGroups(t *testing.T) {
	c := l.admin
	kind := c.make(t, "group_types", "group_type", map[string]any{"group_type": map[string]any{"name": "consistent"}})
	ok(t, c.post("group_types/"+kind+"/group_specs", map[string]any{"group_specs": map[string]string{"consistent_group_snapshot_enabled": "<is> True"}}, nil))
	group := c.make(t, "groups", "group", map[string]any{"group": map[string]any{"name": "g", "group_type": kind, "volume_types": []string{plain}}})
	c.waitObject(t, "group", group, "available")
	var members []string
	for i := range 2 {
		v := c.create(t, ofGroup{volumes.CreateOpts{Size: 1, VolumeType: plain}, group})
		c.writeVolume(t, v.ID, byte(1+i), 1)
		members = append(members, v.ID)
	}
	snapshot := c.make(t, "group_snapshots", "group_snapshot", map[string]any{"group_snapshot": map[string]any{"group_id": group, "name": "gs"}})
	c.waitObject(t, "group_snapshot", snapshot, "available")
	for _, v := range members {
		c.writeVolume(t, v, 9, 1)
	}
	again := c.make(t, "groups/action", "group", map[string]any{"create-from-src": map[string]any{"name": "again", "group_snapshot_id": snapshot}})
	c.waitObject(t, "group", again, "available")
	pages, err := volumes.List(c.block, volumes.ListOpts{AllTenants: true}).AllPages(l.ctx)
	ok(t, err)
	all, err := volumes.ExtractVolumes(pages)
	ok(t, err)
	seen := map[byte]bool{}
	for _, v := range all {
		var got struct {
			Volume struct {
				Group string `json:"group_id"`
			} `json:"volume"`
		}
		if err := c.get(l.ctx, "volumes/"+v.ID, &got); err != nil && !gone(err) {
			t.Fatal(err)
		}
		if got.Volume.Group != again {
			continue
		}
		c.use(t, v.ID, func(d *lun.LUN) {
			first := make([]byte, stretch)
			_, err := d.ReadAt(first, 0)
			ok(t, err)
			seed := byte(1)
			if bytes.Equal(first, pattern(2, 0)) {
				seed = 2
			}
			check(t, d, seed, 1)
			seen[seed] = true
		})
	}
	if len(seen) != 2 {
		t.Fatalf("the group of the snapshot has the content of the volumes %v, want 1 and 2", seen)
	}
	for _, g := range []string{again, ""} {
		if g == "" {
			_, err := c.block.Delete(l.ctx, c.block.ServiceURL("group_snapshots", snapshot), nil)
			ok(t, err)
			c.waitObject(t, "group_snapshot", snapshot, "")
			g = group
		}
		ok(t, c.post("groups/"+g+"/action", map[string]any{"delete": map[string]any{"delete-volumes": true}}, nil))
		c.waitObject(t, "group", g, "")
	}
}

// testMultiattach: two hosts have a volume at once, each with a secret of its own, and one
// goes on when the other leaves.
func testMultiattach(t *testing.T) {
	c := l.member
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: fast})
	one, two := c.attach(t, v.ID, "host1"), c.attach(t, v.ID, "host2")
	if one.where.Secret == two.where.Secret {
		t.Error("two hosts have the same secret")
	}
	one.use(t, func(d *lun.LUN) {
		write(t, d, 1, 1)
		two.use(t, func(d *lun.LUN) {
			check(t, d, 1, 1)
			write(t, d, 2, 1)
		})
		ok(t, two.detach())
		check(t, d, 2, 1)
		refused(t, two.where)
	})
	ok(t, one.detach())
	_, err := c.waitVolume(v.ID, "available")
	ok(t, err)
	c.delete(t, v.ID)
}

// testTransfer: another project takes a volume over.
func testTransfer(t *testing.T) {
	v := l.member.create(t, volumes.CreateOpts{Size: 1, VolumeType: plain})
	l.member.writeVolume(t, v.ID, 1, 1)
	offer, err := transfers.Create(l.ctx, l.member.block, transfers.CreateOpts{VolumeID: v.ID}).Extract()
	ok(t, err)
	_, err = transfers.Accept(l.ctx, l.admin.block, offer.ID, transfers.AcceptOpts{AuthKey: offer.AuthKey}).Extract()
	ok(t, err)
	got, err := l.admin.waitVolume(v.ID, "available")
	ok(t, err)
	if got.TenantID != l.admin.project {
		t.Fatalf("the volume is in project %s, want %s", got.TenantID, l.admin.project)
	}
	if _, err := volumes.Get(l.ctx, l.member.block, v.ID).Extract(); !gone(err) {
		t.Fatalf("who gave the volume away sees it: %v", err)
	}
	l.admin.checkVolume(t, v.ID, 1, 1, 1)
	l.admin.delete(t, v.ID)
}

// testQoS: specs of a volume type are limits of the target, which a host that writes as
// fast as it can meets.
func testQoS(t *testing.T) {
	c := l.admin
	public := true
	vt, err := volumetypes.Create(l.ctx, c.block, volumetypes.CreateOpts{Name: "limited", IsPublic: &public,
		ExtraSpecs: map[string]string{"volume_backend_name": backend}}).Extract()
	ok(t, err)
	q, err := qos.Create(l.ctx, c.block, qos.CreateOpts{Name: "limited", Consumer: qos.ConsumerBack,
		Specs: map[string]string{"total_iops_sec": "500", "total_bytes_sec_per_gb": "4194304"}}).Extract()
	ok(t, err)
	ok(t, qos.Associate(l.ctx, c.block, q.ID, qos.AssociateOpts{VolumeTypeID: vt.ID}).ExtractErr())
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: vt.Name})
	limits := func(iops, rate int64) {
		t.Helper()
		d, err := l.vdisk("volume-" + v.ID)
		ok(t, err)
		if d == nil || d.Qos == nil || int64(d.Qos.Iops) != iops || d.Qos.BytesPerSecond != rate {
			t.Fatalf("the vDisk is limited to %+v, want %d operations and %d bytes per second", d.Qos, iops, rate)
		}
	}
	limits(500, 4<<20)
	c.use(t, v.ID, func(d *lun.LUN) { limited(t, d, 4<<10, 600, 1200*time.Millisecond) })
	ok(t, volumes.ExtendSize(l.ctx, c.block, v.ID, volumes.ExtendSizeOpts{NewSize: 2}).ExtractErr())
	_, err = c.waitVolume(v.ID, "available")
	ok(t, err)
	limits(500, 8<<20)
	c.use(t, v.ID, func(d *lun.LUN) { limited(t, d, stretch, 32, 2*time.Second) })
	c.delete(t, v.ID)
}

// limited writes count blocks of size bytes with several commands at a time, which takes so
// long by the limit, less the 100 ms of it that may be caught up with at once and the last
// command, which nothing waits for.
func limited(t *testing.T, d *lun.LUN, size, count int, least time.Duration) {
	t.Helper()
	work := make(chan int64, count)
	for i := range count {
		work <- int64(i) * int64(size)
	}
	close(work)
	start := time.Now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			block := make([]byte, size)
			for at := range work {
				if _, err := d.WriteAt(block, at); err != nil {
					t.Errorf("write at %d: %v", at, err)
				}
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took < least*85/100 {
		t.Errorf("%d writes of %d bytes took %v, and have to take %v", count, size, took, least)
	}
}

// testPools: the vPools are pools with a capacity, thin and iSCSI.
func testPools(t *testing.T) {
	pages, err := schedulerstats.List(l.admin.block, schedulerstats.ListOpts{Detail: true}).AllPages(l.ctx)
	ok(t, err)
	pools, err := schedulerstats.ExtractStoragePools(pages)
	ok(t, err)
	seen := map[string]bool{}
	for _, p := range pools {
		if p.Name != poolHost(fast) && p.Name != poolHost(plain) {
			continue
		}
		seen[p.Name] = true
		x := p.Capabilities
		if x.TotalCapacityGB <= 0 || x.FreeCapacityGB <= 0 || x.FreeCapacityGB > x.TotalCapacityGB ||
			x.StorageProtocol != "iSCSI" || x.VolumeBackendName != backend || x.VendorName != "ovgate" {
			t.Errorf("pool %s has the figures %+v", p.Name, x)
		}
	}
	if len(seen) != 2 {
		t.Errorf("Cinder has the pools %v, want %s and %s", seen, poolHost(fast), poolHost(plain))
	}
}

// testDelete: a second delete does no harm; the vDisk is gone; a volume in use stays.
func testDelete(t *testing.T) {
	c := l.member
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: plain})
	a := c.attach(t, v.ID, "host1")
	if err := volumes.Delete(l.ctx, c.block, v.ID, nil).ExtractErr(); !gophercloud.ResponseCodeIs(err, http.StatusBadRequest) {
		t.Errorf("the delete of a volume in use was answered by %v", err)
	}
	ok(t, a.detach())
	if err := a.detach(); !gone(err) {
		t.Errorf("a second detach was answered by %v", err)
	}
	c.delete(t, v.ID)
	c.delete(t, v.ID)
	d, err := l.vdisk("volume-" + v.ID)
	ok(t, err)
	if d != nil {
		t.Errorf("the vDisk of a deleted volume is %s", d.State)
	}
}

// testLegacy: how hosts without attachments connect, and leave twice.
func testLegacy(t *testing.T) {
	c := l.admin
	v := c.create(t, volumes.CreateOpts{Size: 1, VolumeType: plain})
	iqn := "iqn.2026-01.org.openvstorage:legacy"
	yes := true
	info, err := volumes.InitializeConnection(l.ctx, c.block, v.ID, volumes.InitializeConnectionOpts{
		IP: "127.0.0.1", Host: "legacy", Initiator: iqn, Multipath: &yes, Platform: "x86_64", OSType: "linux"}).Extract()
	ok(t, err)
	flat := map[string]any{"driver_volume_type": info["driver_volume_type"]}
	data, _ := info["data"].(map[string]any)
	for k, v := range data {
		flat[k] = v
	}
	a, err := address(flat)
	ok(t, err)
	a.Initiator = iqn
	(&attachment{where: a}).use(t, func(d *lun.LUN) { write(t, d, 1, 1); check(t, d, 1, 1) })
	for range 2 {
		ok(t, volumes.TerminateConnection(l.ctx, c.block, v.ID, volumes.TerminateConnectionOpts{
			IP: "127.0.0.1", Host: "legacy", Initiator: iqn, Multipath: &yes, Platform: "x86_64", OSType: "linux"}).ExtractErr())
	}
	refused(t, a)
	c.delete(t, v.ID)
}
