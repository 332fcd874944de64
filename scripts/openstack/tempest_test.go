package openstack

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
)

// tempestList names those of tempest's tests that pass; what is in it and does not is a failure.
// Those that are not need Nova, backups, several backends, or a host that attaches volumes.
//
//go:embed testdata/tempest.txt
var tempestList string

// TestTempest runs what tempest, the suite that OpenStack judges clouds by, has for the
// volume API and needs no Nova. It takes long: OVGATE_TEMPEST=1 asks for it, and Debian's
// package tempest.
func TestTempest(t *testing.T) {
	if os.Getenv("OVGATE_TEMPEST") != "1" {
		t.Skip("OVGATE_TEMPEST is not 1")
	}
	made, err := images.Create(l.ctx, l.admin.image, images.CreateOpts{Name: "tempest", DiskFormat: "raw", ContainerFormat: "bare",
		Visibility: new(images.ImageVisibilityPublic)}).Extract()
	ok(t, err)
	f, err := os.Open(imageFile(t, 1, "raw"))
	ok(t, err)
	defer f.Close()
	ok(t, imagedata.Upload(l.ctx, l.admin.image, made.ID, f).ExtractErr())
	dir := filepath.Join(t.TempDir(), "tempest")
	tempest := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(l.ctx, "tempest", args...)
		cmd.Dir = filepath.Dir(dir)
		if _, err := os.Stat(dir); err == nil {
			cmd.Dir = dir
		}
		// Where it keeps a list of its directories, which is this user's own else.
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("tempest %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	tempest("init", "tempest")
	said := l.cinder.Said
	ok(t, os.WriteFile(filepath.Join(dir, "etc", "tempest.conf"), fmt.Appendf(nil, `[DEFAULT]
log_file = tempest.log
[auth]
use_dynamic_credentials = true
create_isolated_networks = false
tempest_roles = member
admin_username = %s
admin_password = %s
admin_project_name = %s
admin_domain_name = %s
[identity]
auth_version = v3
uri_v3 = %s
region = %s
[identity-feature-enabled]
api_v2 = false
[compute]
image_ref = %s
[service_available]
cinder = true
glance = true
nova = false
neutron = false
swift = false
[volume]
catalog_type = volumev3
min_microversion = 3.0
max_microversion = %s
volume_type = %s
backend_names = %s
vendor_name = ovgate
storage_protocol = iSCSI
manage_snapshot_ref = source-name, snapshot-%%s
build_interval = 1
build_timeout = %d
[volume-feature-enabled]
backup = false
manage_volume = true
manage_snapshot = true
`, said["admin"], said["admin_key"], said["admin_project"], said["domain"], said["auth"], said["region"], made.ID, microversion, plain, backend,
		int(patience.Seconds())), 0o600))
	// The peer has its quotas from its configuration, where none of their classes counts.
	out := tempest("run", "--serial", "--regex", `^tempest\.api\.volume\.`, "--exclude-regex", "VolumeQuotaClassesTest")
	passed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\{\d+\} (\S+) \[[0-9.]+s\] \.\.\. ok$`).FindAllStringSubmatch(out, -1) {
		passed[m[1]] = true
	}
	for _, name := range strings.Fields(tempestList) {
		if !passed[name] {
			t.Errorf("%s did not pass", name)
		}
	}
	t.Logf("%s", out)
	checkOrphans(t)
}
