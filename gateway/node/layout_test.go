package node

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/openvstorage/ovgate/gateway/disk"
	"github.com/openvstorage/ovgate/gateway/disk/disktest"
	"github.com/openvstorage/ovgate/gateway/layout"
)

// mountLoop makes a file system on a disk and mounts it where disks are that are no system's.
func mountLoop(t *testing.T, dev string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/mnt", "ovgate-layout-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	for _, c := range [][]string{{"mkfs.ext4", "-q", dev}, {"mount", dev, dir}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

// TestLayout gives real disks their roles: what is mounted and empty becomes a device by a task, journals take the
// configuration and a restart, a blank disk takes root, and one that holds something is left alone.
func TestLayout(t *testing.T) {
	const size = 3 << 30 // sparse
	var devs []string
	serials := map[string]string{}
	for i := range 4 {
		devs = append(devs, disktest.Loop(t, size))
		serials[devs[i]] = fmt.Sprint("ZC", i)
	}
	blank, device, journal, foreign := filepath.Base(devs[0]), filepath.Base(devs[1]), filepath.Base(devs[2]), filepath.Base(devs[3])
	deviceDir, journalDir, foreignDir := mountLoop(t, devs[1]), mountLoop(t, devs[2]), mountLoop(t, devs[3])
	write(t, filepath.Join(foreignDir, "thesis.txt"), "years of work")
	o := Options{Data: t.TempDir(), Config: filepath.Join(t.TempDir(), "ovgate.yaml"), disks: disk.System{Sys: disktest.Sys(t, serials)}}
	write(t, o.Config, "{}\n")
	r := start(t, o)
	path := "/nodes/" + r.call("GET", "/status", nil, 200)["node"].(map[string]any)["name"].(string) + "/layout"

	rows := func(query string) (string, map[string]any) {
		t.Helper()
		l := r.call("GET", path+query, nil, 200)
		var out []string
		for _, name := range []string{blank, device, journal, foreign} {
			for _, d := range l["disks"].([]any) {
				if d := d.(map[string]any); d["name"] == name {
					out = append(out, fmt.Sprint(d["roles"], d["state"]))
				}
			}
		}
		return strings.Join(out, " "), l
	}
	choice := "?" + url.Values{"role": {blank + "=read", device + "=alba", journal + "=write"}}.Encode()
	got, l := rows(choice)
	if got != "[read]prepare [alba]ready [write]prepare []kept" {
		t.Errorf("layout %s", got)
	}
	for want, in := range map[string]any{"mkfs.xfs " + devs[0] + " ": l["commands"], filepath.Join(journalDir, "write"): l["commands"], "dir: \"" + filepath.Join(journalDir, "write"): l["config"]} {
		if !strings.Contains(in.(string), want) {
			t.Errorf("%q lacks %q", in, want)
		}
	}
	for bad, method := range map[string]string{foreign + "=alba": "POST", "sdzz=alba": "POST", device + "=db": "GET", device: "GET"} {
		e := r.call(method, path+"?role="+url.QueryEscape(bad), nil, 400)
		if hint, _ := e["hint"].(string); e["field"] != "role" || hint == "" {
			t.Errorf("%s: %v, want a refusal of the field role with a hint", bad, e)
		}
	}

	if _, l := rows("?role=" + foreign + "%3Dalba"); !strings.Contains(fmt.Sprint(l["notes"]), "nothing that holds something is taken") {
		t.Errorf("notes %v", l["notes"])
	}

	choice = "?" + url.Values{"role": {blank + "=none", journal + "=none"}}.Encode()
	if got, _ := rows(choice); got != "[]unused [alba]ready []unused []kept" {
		t.Errorf("layout %s", got)
	}
	path += choice
	job := r.call("POST", path, nil, 202)
	r.until("the device is claimed", func() bool { return r.call("GET", "/jobs/"+job["id"].(string), nil, 200)["state"] == "done" })
	osd := r.call("GET", "/osds/1", nil, 200)
	if osd["directory"] != filepath.Join(deviceDir, "ovgate") || osd["working"] != true {
		t.Errorf("device %v", osd)
	}
	e := r.call("POST", path, nil, 409)
	if e["code"] != "in_use" || !strings.Contains(e["message"].(string), "no disk is ready") {
		t.Errorf("once more: %v", e)
	}
	path = strings.TrimSuffix(path, choice)

	dir := filepath.Join(journalDir, string(layout.Write))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	choice = "?" + url.Values{"role": {blank + "=none", journal + "=write"}}.Encode()
	got, l = rows(choice)
	if got != "[]unused [alba]inUse [write]configure []kept" || l["commands"] != "" {
		t.Errorf("layout %s, commands %q", got, l["commands"])
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	write(t, o.Config, l["config"].(string))
	r = start(t, o)
	if got, _ := rows("?role=" + blank + "%3Dnone"); got != "[]unused [alba]inUse [write]inUse []kept" {
		t.Errorf("after a restart: %s", got)
	}
	if b, err := os.ReadFile(filepath.Join(foreignDir, "thesis.txt")); err != nil || string(b) != "years of work" {
		t.Errorf("what was there: %q, %v", b, err)
	}
}

// TestOfSystem: file systems of the machine's system are not taken, whatever they hold.
func TestOfSystem(t *testing.T) {
	for dir, want := range map[string]bool{
		"/": true, "/home": true, "/home/anna": true, "/boot/efi": true, "/var": true, "/var/log": true, "/var/lib": true, "/etc/hosts": true, "/tmp": true, "/srv": true,
		"/mnt/disk1": false, "/srv/disk1": false, "/var/lib/ovgate": false, "/opt/data": false, "/data": false, "/media/disk": false,
	} {
		if got := ofSystem(dir); got != want {
			t.Errorf("%s: %v, want %v", dir, got, want)
		}
	}
}

// TestPrecheck: a node alone finds its own listeners and places, and nothing wrong with what it has.
func TestPrecheck(t *testing.T) {
	r := start(t, Options{Data: t.TempDir()})
	name := r.call("GET", "/status", nil, 200)["node"].(map[string]any)["name"].(string)
	c := r.call("GET", "/nodes/"+name+"/check", nil, 200)
	seen := map[string]int{}
	for _, i := range c["checks"].([]any) {
		i := i.(map[string]any)
		seen[i["code"].(string)]++
		if i["object"] == r.dir && i["code"] != "disk" {
			t.Errorf("the data directory is a %v", i["code"])
		}
	}
	if seen["clock"] != 1 || seen["interface"] < 2 || seen["disk"] < 1 || seen["port"] != 0 {
		t.Errorf("checks %v of %v", seen, c)
	}
	r.call("GET", "/nodes/nobody/check", nil, 404)
}
