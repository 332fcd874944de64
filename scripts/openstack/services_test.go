package openstack

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/noauth"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/backups"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumetypes"

	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/guest"
)

const (
	// foreign is a backend of Cinder's own: LVM volumes that its host exports with tgt.
	foreign = "foreign"
	// guestAPI is where the guest finds a node's API: an address that its certificate has.
	guestAPI = "10.0.2.100:8443"
	// guestCinder is the port of Cinder's API in the guest.
	guestCinder = 8776
	// labProject is the project there; without Keystone any name in hex will do.
	labProject = "1ab"
	// slow bounds what copies a whole volume with an emulated processor.
	slow = 20 * time.Minute
)

// cinderConf is that of Cinder in the guest: everything in one process, without Keystone.
// Whatever it does of itself takes seconds of its processor.
const cinderConf = `[DEFAULT]
host = guest
my_ip = 10.0.2.15
state_path = /var/lib/cinder
log_file = /var/lib/cinder/services.log
api_paste_config = /etc/cinder/api-paste.ini
rootwrap_config = /etc/cinder/rootwrap.conf
osapi_volume_listen = 10.0.2.15
osapi_volume_listen_port = %[1]d
osapi_volume_workers = 1
transport_url = fake://
auth_strategy = noauth
enabled_backends = %[2]s, %[3]s
default_volume_type = __DEFAULT__
service_down_time = 600
report_interval = 60
backend_stats_polling_interval = 120
periodic_interval = 120
periodic_fuzzy_delay = 0
scheduler_driver_init_wait_time = 1
rpc_response_timeout = 600
use_multipath_for_image_xfer = true
enforce_multipath_for_image_xfer = true
backup_driver = cinder.backup.drivers.posix.PosixBackupDriver
backup_posix_path = /var/lib/cinder/backup
backup_compression_algorithm = none
[database]
connection = sqlite:////var/lib/cinder/cinder.sqlite
sqlite_synchronous = false
[oslo_concurrency]
lock_path = /var/lib/cinder/locks
[coordination]
backend_url = file:///var/lib/cinder/coordination
[key_manager]
backend = cinder.keymgr.conf_key_mgr.ConfKeyManager
fixed_key = %[4]s
[%[3]s]
volume_driver = cinder.volume.drivers.lvm.LVMVolumeDriver
volume_backend_name = %[3]s
volume_group = foreign
lvm_type = default
target_helper = tgtadm
target_protocol = iscsi
`

// startCinder starts Cinder's services in the guest and logs in to them.
func (m *machine) startCinder(t *testing.T, at string) *cloud {
	t.Helper()
	file := func(name string, text []byte) string {
		if bytes.Contains(text, []byte("\nFILE\n")) {
			t.Fatalf("%s cannot be sent to the guest", name)
		}
		return fmt.Sprintf("mkdir -p $(dirname %[1]s)\ncat >%[1]s <<'FILE'\n%[2]s\nFILE\n", name, strings.TrimSuffix(string(text), "\n"))
	}
	section := strings.Replace(l.section(guestAPI), l.authority(), "/root/cinder/ca.pem", 1)
	conf := fmt.Sprintf(cinderConf, guestCinder, backend, foreign, l.cinder.Said["encryption_key"]) + section
	script := "# start Cinder\nset -e\n" + file("/root/cinder/cinder.conf", []byte(conf))
	driver, err := filepath.Glob(filepath.Join("integrations", "cinder", "driver", "ovgate_cinder", "*.py"))
	ok(t, err)
	sources := map[string]string{
		"/root/cinder/ca.pem":             l.authority(),
		"/root/cinder/cinder_services.py": filepath.Join("scripts", "peers", "cinder_services.py"),
	}
	for _, name := range driver {
		sources["/root/cinder/ovgate_cinder/"+filepath.Base(name)] = name
	}
	for to, from := range sources {
		text, err := os.ReadFile(from)
		ok(t, err)
		script += file(to, text)
	}
	m.run(t, script+`
cd /var/lib/cinder
mkdir -p volumes backup locks coordination conversion /run/tgtd
python3 -c 'import sqlite3; sqlite3.connect("cinder.sqlite").execute("PRAGMA journal_mode=WAL")'
truncate -s 4G foreign.img
losetup /dev/loop0 foreign.img
vgcreate -q foreign /dev/loop0
tgtd
PYTHONPATH=/root/cinder python3 -W ignore -c 'import eventlet; eventlet.monkey_patch(); import cinder_services; cinder_services.main(backup=True)' \
	--config-file /root/cinder/cinder.conf >/var/lib/cinder/services.out 2>&1 &
`)
	begin := time.Now()
	url := "http://" + at
	ok(t, within(slow, "Cinder in the guest does not answer", func(ctx context.Context) (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/healthcheck", nil)
		if err != nil {
			return false, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, nil // not yet
		}
		return resp.StatusCode == http.StatusOK, resp.Body.Close()
	}))
	t.Logf("%5.1f s  Cinder answers", time.Since(begin).Seconds())
	p, err := noauth.NewClient(gophercloud.AuthOptions{Username: "admin", TenantName: labProject})
	ok(t, err)
	c := &cloud{project: labProject, patience: slow}
	c.block, err = noauth.NewBlockStorageNoAuthV3(p, noauth.EndpointOpts{CinderEndpoint: url + "/v3"})
	ok(t, err)
	c.block.Type, c.block.Microversion = "volume", microversion
	return c
}

// cinderLog is the end of what Cinder in the guest says.
func (m *machine) cinderLog() string {
	out, err := m.guest.Run(l.ctx, `cat /var/lib/cinder/services.out
grep -E ' (ERROR|WARNING) ' /var/lib/cinder/services.log | grep -v 'auth\.password\|auth_password' | tail -n 60`)
	if err != nil {
		return err.Error()
	}
	return out
}

// TestGuestServices: what Cinder does with volumes that its own host attaches through
// os-brick, with cinder-volume and cinder-backup in the virtual machine.
func TestGuestServices(t *testing.T) {
	if !guestAsked() {
		t.Skip("OVGATE_CINDER_GUEST is not 1")
	}
	at, err := freeport.Address()
	ok(t, err)
	m := bootMachine(t, guest.Options{Name: "iqn.2026-01.org.openvstorage:services", MemoryMiB: 2048,
		Also: []string{guestAPI}, Serves: map[string]int{at: guestCinder}})
	ok(t, m.guest.Route(guest.Routes, l.door.Addr()))
	m.startMultipath(t)
	c := m.startCinder(t, at)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.explain())
			t.Log(m.cinderLog())
		}
	})
	public := true
	for name, specs := range map[string]map[string]string{
		fast:    {"volume_backend_name": backend, "pool_name": fast},
		plain:   {"volume_backend_name": backend, "pool_name": plain},
		shared:  {"volume_backend_name": backend},
		foreign: {"volume_backend_name": foreign},
	} {
		_, err := volumetypes.Create(l.ctx, c.block, volumetypes.CreateOpts{Name: name, IsPublic: &public, ExtraSpecs: specs}).Extract()
		ok(t, err)
	}
	for _, s := range []struct {
		name string
		run  func(*machine, *testing.T, *cloud)
	}{{"backup", (*machine).backup}, {"foreign", (*machine).foreign}} {
		if !t.Run(s.name, func(t *testing.T) { s.run(m, t, c) }) {
			return
		}
	}
}

// lent hands the LUN of a volume to this machine's initiator, as hosts without attachments
// get one.
func (c *cloud) lent(t *testing.T, volume string, do func(d *lun.LUN)) {
	t.Helper()
	iqn, yes := "iqn.2026-01.org.openvstorage:lent", true
	info, err := volumes.InitializeConnection(l.ctx, c.block, volume, volumes.InitializeConnectionOpts{
		IP: "127.0.0.1", Host: "lent", Initiator: iqn, Multipath: &yes, Platform: "x86_64", OSType: "linux"}).Extract()
	ok(t, err)
	data, _ := info["data"].(map[string]any)
	data["driver_volume_type"] = info["driver_volume_type"]
	a, err := address(data)
	ok(t, err)
	a.Initiator = iqn
	(&attachment{where: a}).use(t, do)
	ok(t, volumes.TerminateConnection(l.ctx, c.block, volume, volumes.TerminateConnectionOpts{
		IP: "127.0.0.1", Host: "lent", Initiator: iqn, Multipath: &yes, Platform: "x86_64", OSType: "linux"}).ExtractErr())
}

// waitSlow waits until a volume is available, as long as a copy of all of it may take.
func (c *cloud) waitSlow(t *testing.T, volume string) (kind string) {
	t.Helper()
	ok(t, within(slow, "volume "+volume+" is not available", func(ctx context.Context) (bool, error) {
		var answer struct {
			Volume struct {
				Status   string
				Kind     string  `json:"volume_type"`
				Migrates *string `json:"os-vol-mig-status-attr:migstat"`
			}
		}
		if err := c.get(ctx, "volumes/"+volume, &answer); err != nil {
			return false, err
		}
		v := answer.Volume
		if strings.HasPrefix(v.Status, "error") || v.Migrates != nil && *v.Migrates == "error" {
			return false, fmt.Errorf("volume %s is %s, with what Cinder says of it: %s", volume, v.Status, c.messages(ctx, volume))
		}
		kind = v.Kind
		return v.Status == "available" && (v.Migrates == nil || *v.Migrates == "success"), nil
	}))
	return kind
}

// back backs a volume up.
func (c *cloud) back(t *testing.T, volume string, incremental bool) string {
	t.Helper()
	begin := time.Now()
	b, err := backups.Create(l.ctx, c.block, backups.CreateOpts{VolumeID: volume, Name: "b", Incremental: incremental}).Extract()
	ok(t, err)
	ok(t, within(slow, "backup "+b.ID+" is not available", func(ctx context.Context) (bool, error) {
		b, err := backups.Get(ctx, c.block, b.ID).Extract()
		if err == nil && b.Status == "error" {
			err = fmt.Errorf("backup %s: %s", b.ID, b.FailReason)
		}
		return err == nil && b.Status == "available", err
	}))
	t.Logf("%5.1f s  backup, incremental: %t", time.Since(begin).Seconds(), incremental)
	return b.ID
}

// restore restores a backup to a volume, or to a new one, which it answers.
func (c *cloud) restore(t *testing.T, backup, volume string) string {
	t.Helper()
	r, err := backups.RestoreFromBackup(l.ctx, c.block, backup, backups.RestoreOpts{VolumeID: volume}).Extract()
	ok(t, err)
	c.waitSlow(t, r.VolumeID)
	ok(t, within(slow, "backup "+backup+" is not available", func(ctx context.Context) (bool, error) {
		b, err := backups.Get(ctx, c.block, backup).Extract()
		return err == nil && b.Status == "available", err
	}))
	return r.VolumeID
}

// backup: full and incremental backups, restored in place and to another volume.
func (m *machine) backup(t *testing.T, c *cloud) {
	v := c.create(t, volumes.CreateOpts{Name: "backup", Size: 1, VolumeType: plain})
	c.lent(t, v.ID, func(d *lun.LUN) { write(t, d, 1, 1) })
	full := c.back(t, v.ID, false)
	c.lent(t, v.ID, func(d *lun.LUN) { write(t, d, 2, 1) })
	more := c.back(t, v.ID, true)
	c.lent(t, v.ID, func(d *lun.LUN) { write(t, d, 3, 1) })
	c.restore(t, full, v.ID)
	c.lent(t, v.ID, func(d *lun.LUN) { check(t, d, 1, 1) })
	other := c.create(t, volumes.CreateOpts{Name: "restored", Size: 2, VolumeType: fast})
	c.restore(t, more, other.ID)
	c.lent(t, other.ID, func(d *lun.LUN) { check(t, d, 2, 1) })
	m.run(t, "# nothing is left\nnothing")
	for _, id := range []string{more, full} {
		ok(t, backups.Delete(l.ctx, c.block, id).ExtractErr())
		ok(t, within(slow, "backup "+id+" is not gone", func(ctx context.Context) (bool, error) {
			_, err := backups.Get(ctx, c.block, id).Extract()
			if gone(err) {
				return true, nil
			}
			return false, err
		}))
	}
	c.delete(t, v.ID, other.ID)
}

// foreign: a volume goes to a backend of another kind and comes back; Cinder copies it
// through os-brick.
func (m *machine) foreign(t *testing.T, c *cloud) {
	v := c.create(t, volumes.CreateOpts{Name: "foreign", Size: 1, VolumeType: plain})
	c.lent(t, v.ID, func(d *lun.LUN) { write(t, d, 1, 1) })
	for _, to := range []string{foreign, plain} {
		ok(t, volumes.ChangeType(l.ctx, c.block, v.ID, volumes.ChangeTypeOpts{NewType: to, MigrationPolicy: volumes.MigrationPolicyOnDemand}).ExtractErr())
		begin := time.Now()
		if kind := c.waitSlow(t, v.ID); kind != to {
			t.Fatalf("after a retype to %s the volume is of type %s", to, kind)
		}
		t.Logf("%5.1f s  retype to %s", time.Since(begin).Seconds(), to)
		m.run(t, "# nothing is left\nnothing")
	}
	c.lent(t, v.ID, func(d *lun.LUN) {
		checkSize(t, d, 1)
		check(t, d, 1, 1)
	})
	c.delete(t, v.ID)
}
