package openstack

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"

	"github.com/openvstorage/ovgate/scripts/drill/lun"
)

// stock are the commands of OpenStack's users, set by TestClients.
var stock programs

// TestClients does the operations with the commands of OpenStack's users.
func TestClients(t *testing.T) {
	t.Parallel() // with TestVolumes
	stock = startPrograms(t)
	for name, test := range map[string]func(*testing.T){
		"openstack": testOpenstack, "openstack-copies": testOpenstackCopies, "cinder": testCinder, "cinder-groups": testCinderGroups,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// tryProgram runs one of the commands as a user and answers what it printed.
func (c *cloud) tryProgram(name, version string, args ...string) (string, error) {
	return stock.run(append(slices.Clone(c.env), "OS_VOLUME_API_VERSION="+version), name, args...)
}

// osc runs openstack, which knows the volume API up to 3.59 or less of it.
func (c *cloud) osc(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.tryProgram("openstack", "3.59", args...)
	ok(t, err)
	return out
}

// oscID runs an openstack command that makes something, and answers its id.
func (c *cloud) oscID(t *testing.T, args ...string) string {
	t.Helper()
	return c.osc(t, append(args, "-f", "value", "-c", "id")...)
}

func (c *cloud) cinder(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.tryProgram("cinder", microversion, args...)
	ok(t, err)
	return out
}

// field reads a row of the table that cinder prints.
func field(t *testing.T, table, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(name) + ` +\| (\S*)`).FindStringSubmatch(table)
	if m == nil {
		t.Fatalf("there is no %s among what was printed", name) // which may have secrets
	}
	return m[1]
}

func (c *cloud) available(t *testing.T, volume string) string {
	t.Helper()
	_, err := c.waitVolume(volume, "available")
	ok(t, err)
	return volume
}

func (c *cloud) goneVolume(t *testing.T, volume string) {
	t.Helper()
	ok(t, until("volume "+volume+" is not gone", func(ctx context.Context) (bool, error) {
		_, err := volumes.Get(ctx, c.block, volume).Extract()
		if gone(err) {
			return true, nil
		}
		return false, err
	}))
}

func (c *cloud) ofType(t *testing.T, volume, kind string) {
	t.Helper()
	ok(t, until("volume "+volume+" is not of type "+kind, func(ctx context.Context) (bool, error) {
		v, err := volumes.Get(ctx, c.block, volume).Extract()
		return err == nil && v.Status == "available" && v.VolumeType == kind, err
	}))
}

func testOpenstackCopies(t *testing.T) {
	c := l.member
	v := c.available(t, c.oscID(t, "volume", "create", "--size", "1", "--type", plain, "osc"))
	c.writeVolume(t, v, 1, 1)
	s := c.oscID(t, "volume", "snapshot", "create", "--volume", v, "osc")
	ok(t, c.waitSnapshot(s, "available"))
	c.writeVolume(t, v, 2, 1)
	c.osc(t, "volume", "set", "--size", "2", v)
	c.available(t, v)
	c.checkVolume(t, v, 2, 1, 2)
	old := c.available(t, c.oscID(t, "volume", "create", "--snapshot", s, "--size", "2", "old"))
	c.checkVolume(t, old, 1, 1, 2)
	clone := c.available(t, c.oscID(t, "volume", "create", "--source", v, "--size", "3", "clone"))
	c.checkVolume(t, clone, 2, 1, 3)
	c.osc(t, "volume", "snapshot", "delete", s)
	ok(t, c.waitSnapshotGone(s))
	c.osc(t, "volume", "delete", v, old, clone)
	for _, id := range []string{v, old, clone} {
		c.goneVolume(t, id)
	}
	if _, err := c.tryProgram("openstack", "3.59", "volume", "delete", v); err == nil || !strings.Contains(err.Error(), "No volume with a name or ID") {
		t.Errorf("a second delete was answered by %v", err)
	}
}

func testOpenstack(t *testing.T) {
	c := l.admin
	c.osc(t, "volume", "type", "create", "--property", "volume_backend_name="+backend, "--property", "pool_name="+plain, "osc")
	c.osc(t, "volume", "qos", "create", "--consumer", "back-end", "--property", "total_iops_sec=300", "osc")
	c.osc(t, "volume", "qos", "associate", "osc", "osc")
	v := c.available(t, c.oscID(t, "volume", "create", "--size", "1", "--type", "osc", "--property", "a=b", "osc"))
	d, err := l.vdisk("volume-" + v)
	ok(t, err)
	if d == nil || d.Qos == nil || d.Qos.Iops != 300 {
		t.Fatalf("the vDisk %+v is not limited to 300 operations per second", d)
	}
	c.writeVolume(t, v, 1, 1)
	c.osc(t, "volume", "set", "--type", fast, "--retype-policy", "on-demand", v)
	c.ofType(t, v, fast)
	checkPool(t, v, fast)
	c.checkVolume(t, v, 1, 1, 1)

	m := c.available(t, c.oscID(t, "volume", "create", "--source", v, "--type", shared, "osc2"))
	to := plain
	if pool(t, m) == plain {
		to = fast
	}
	c.osc(t, "volume", "migrate", "--host", poolHost(to), m)
	ok(t, c.waitMigration(m, to))
	checkPool(t, m, to)
	c.checkVolume(t, m, 1, 1, 1)

	image := c.oscID(t, "image", "create", "--disk-format", "raw", "--file", imageFile(t, 3, "raw"), "osc")
	i := c.available(t, c.oscID(t, "volume", "create", "--image", image, "--size", "1", "--type", plain, "osc3"))
	c.checkImaged(t, i, 3, 1)

	offer := strings.Fields(c.osc(t, "volume", "transfer", "request", "create", v, "-f", "value", "-c", "id", "-c", "auth_key"))
	if len(offer) != 2 {
		t.Fatalf("a transfer was answered by %d words, want its key and id", len(offer))
	}
	key, id := offer[0], offer[1]
	if len(key) > len(id) {
		key, id = id, key
	}
	l.member.osc(t, "volume", "transfer", "request", "accept", "--auth-key", key, id)
	l.member.checkVolume(t, l.member.available(t, v), 1, 1, 1)
	l.member.osc(t, "volume", "delete", v)
	c.osc(t, "volume", "delete", m, i)
	for _, id := range []string{v, m, i} {
		c.goneVolume(t, id)
	}
	c.osc(t, "image", "delete", image)
}

func testCinder(t *testing.T) {
	c := l.admin
	pools := c.cinder(t, "get-pools")
	for _, p := range []string{fast, plain} {
		if !strings.Contains(pools, poolHost(p)) {
			t.Errorf("cinder lists the pools\n%s", pools)
		}
	}
	v := c.available(t, field(t, c.cinder(t, "create", "--volume-type", fast, "--name", "c", "1"), "id"))
	c.writeVolume(t, v, 1, 1)
	s := field(t, c.cinder(t, "snapshot-create", "--name", "c", v), "id")
	ok(t, c.waitSnapshot(s, "available"))
	c.writeVolume(t, v, 2, 1)
	c.cinder(t, "revert-to-snapshot", s)
	c.available(t, v)
	c.checkVolume(t, v, 1, 1, 1)
	c.cinder(t, "snapshot-unmanage", s)
	ok(t, c.waitSnapshotGone(s))
	if list := c.cinder(t, "snapshot-manageable-list", poolHost(fast)); !strings.Contains(list, "snapshot-"+s) {
		t.Errorf("snapshot-%s is not listed in\n%s", s, list)
	}
	s = field(t, c.cinder(t, "snapshot-manage", v, "snapshot-"+s), "id")
	ok(t, c.waitSnapshot(s, "available"))
	c.cinder(t, "snapshot-delete", s)
	ok(t, c.waitSnapshotGone(s))

	up := field(t, c.cinder(t, "upload-to-image", "--disk-format", "raw", v, "c"), "image_id")
	ok(t, c.waitImage(up))
	c.available(t, v)
	checkImage(t, c, up, "raw", 1, gib, 1)
	ok(t, images.Delete(l.ctx, c.image, up).ExtractErr())

	// Two hosts, extended while they are attached.
	at := func(host string) (string, *attachment) {
		a := &attachment{where: lun.Address{Initiator: "iqn.2026-01.org.openvstorage:" + host}}
		table := c.cinder(t, "attachment-create", "--connect", "True", "--initiator", a.where.Initiator, "--ip", "127.0.0.1",
			"--host", host, "--multipath", "True", v, uuid())
		a.where.Portal, a.where.IQN = field(t, table, "target_portal"), field(t, table, "target_iqn")
		a.where.User, a.where.Secret = field(t, table, "auth_username"), field(t, table, "auth_password")
		id := field(t, table, "id")
		c.cinder(t, "attachment-complete", id)
		return id, a
	}
	one, d1 := at("host1")
	two, d2 := at("host2")
	d1.use(t, func(d *lun.LUN) {
		c.cinder(t, "extend", v, "2")
		_, err := c.waitVolume(v, "in-use")
		ok(t, err)
		size, err := d.Capacity()
		ok(t, err)
		if size != 2*gib {
			t.Errorf("the session sees %d bytes after the volume was extended to 2 GiB", size)
		}
		check(t, d, 1, 1)
	})
	d2.use(t, func(d *lun.LUN) {
		checkSize(t, d, 2)
		check(t, d, 1, 1)
	})
	c.cinder(t, "attachment-delete", one, two)
	c.available(t, v)
	c.use(t, v, func(d *lun.LUN) {
		checkSize(t, d, 2)
		check(t, d, 1, 1)
	})

	c.cinder(t, "retype", "--migration-policy", "on-demand", v, plain)
	c.ofType(t, v, plain)
	checkPool(t, v, plain)
	c.cinder(t, "unmanage", v)
	c.goneVolume(t, v)
	if list := c.cinder(t, "manageable-list", poolHost(plain)); !strings.Contains(list, "volume-"+v) {
		t.Errorf("volume-%s is not listed in\n%s", v, list)
	}
	v = c.available(t, field(t, c.cinder(t, "manage", "--volume-type", plain, poolHost(plain), "volume-"+v), "id"))
	c.checkVolume(t, v, 1, 1, 2)
	c.cinder(t, "delete", v)
	c.goneVolume(t, v)
}

func testCinderGroups(t *testing.T) {
	c := l.admin
	c.cinder(t, "group-type-create", "cgroups")
	c.cinder(t, "group-type-key", "cgroups", "set", "consistent_group_snapshot_enabled=<is> True")
	g := field(t, c.cinder(t, "group-create", "--name", "cg", "cgroups", fast), "id")
	c.waitObject(t, "group", g, "available")
	v := c.available(t, field(t, c.cinder(t, "create", "--volume-type", fast, "--group-id", g, "--name", "cg", "1"), "id"))
	c.writeVolume(t, v, 1, 1)
	s := field(t, c.cinder(t, "group-snapshot-create", "--name", "cg", g), "id")
	c.waitObject(t, "group_snapshot", s, "available")
	c.writeVolume(t, v, 2, 1)
	again := field(t, c.cinder(t, "group-create-from-src", "--group-snapshot", s, "--name", "cg2"), "id")
	c.waitObject(t, "group", again, "available")
	var got struct {
		Group struct {
			Volumes []string `json:"volumes"`
		} `json:"group"`
	}
	ok(t, c.get(l.ctx, "groups/"+again+"?list_volume=true", &got))
	if len(got.Group.Volumes) != 1 {
		t.Fatalf("the group has the volumes %v, want one", got.Group.Volumes)
	}
	c.checkVolume(t, got.Group.Volumes[0], 1, 1, 1)
	c.cinder(t, "group-delete", "--delete-volumes", again)
	c.waitObject(t, "group", again, "")
	c.cinder(t, "group-snapshot-delete", s)
	c.waitObject(t, "group_snapshot", s, "")
	c.cinder(t, "group-delete", "--delete-volumes", g)
	c.waitObject(t, "group", g, "")
	c.goneVolume(t, v)
}
