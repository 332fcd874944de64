package openstack

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumetypes"

	"github.com/openvstorage/ovgate/scripts/drill/lun"
	"github.com/openvstorage/ovgate/scripts/guest"
)

//go:embed brick.py
var brickProgram string

// guestAsked tells whether hosts are to be virtual machines that attach for themselves.
func guestAsked() bool { return os.Getenv("OVGATE_CINDER_GUEST") == "1" }

// machine is a host of OpenStack: os-brick in the guest.
type machine struct {
	guest     *guest.Guest
	connector map[string]any // as os-brick tells it
}

// bootMachine starts a guest that ends with the test, with what o has besides.
func bootMachine(t *testing.T, o guest.Options) *machine {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Fatal("QEMU is missing: run scripts/setup.sh guest-cinder")
	}
	disk, err := exec.CommandContext(l.ctx, filepath.Join("scripts", "guest", "root"), "--find").Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			t.Fatalf("%s", failed.Stderr)
		}
		t.Fatal(err)
	}
	o.Disk = strings.TrimSpace(string(disk))
	dir := t.TempDir()
	image, err := guest.Image(l.ctx, ".")
	ok(t, err)
	relay, err := guest.BuildRelay(l.ctx, dir)
	ok(t, err)
	begin := time.Now()
	o.Dir = filepath.Join(dir, "guest")
	g, err := guest.Start(l.ctx, image, relay, o)
	ok(t, err)
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	for i, portal := range l.portals {
		ok(t, g.Route(i, portal))
	}
	t.Logf("%5.1f s  boot", time.Since(begin).Seconds())
	return &machine{guest: g}
}

// machineHelpers are shell functions of every script.
const machineHelpers = `
# until_true WHAT COMMAND...: waits for a condition, tried 600 times, which takes minutes
until_true() {
	what=$1; shift
	for _ in $(seq 600); do "$@" && return 0; sleep 0.2; done
	echo "$what: not in time"
	return 1
}
# paths MAP: how many paths of it work
paths() { multipathd show paths raw format "%m %t %T" | grep -c "^$1 active ready"; }
has_paths() { [ "$(paths "$1")" = "$2" ]; }
# nothing: no session, node record, map, disk or link of one; volumes of the group foreign
# have maps as long as they exist
nothing() {
	bad=0
	none() { [ -z "$2" ] || { echo "left: $1: $2"; bad=1; }; }
	none sessions "$(iscsiadm -m session 2>/dev/null)"
	none records "$(iscsiadm -m node 2>/dev/null)"
	none maps "$(dmsetup ls | grep -v '^No devices found\|^foreign-')"
	none "multipath maps" "$(multipathd show maps raw format %n | grep -vx ok)"
	none "SCSI devices" "$(ls /sys/class/scsi_device)"
	udevadm settle
	none disks "$(ls /dev | grep '^sd')"
	none links "$(ls /dev/disk/by-path 2>/dev/null | grep iscsi)"
	return $bad
}
`

// run runs a script in the guest, which has to end with 0.
func (m *machine) run(t *testing.T, script string) string {
	t.Helper()
	begin := time.Now()
	out, err := m.guest.Run(l.ctx, machineHelpers+script)
	if err != nil {
		t.Fatalf("%v\n%s", err, m.explain())
	}
	t.Logf("%5.1f s  %s", time.Since(begin).Seconds(), strings.SplitN(strings.TrimSpace(script), "\n", 2)[0])
	return out
}

// explain is what the guest has to say after a failure.
func (m *machine) explain() string {
	out, err := m.guest.Run(l.ctx, `multipathd show paths; iscsiadm -m session; dmsetup ls; dmesg | tail -n 25
grep -v 'auth\.password\|auth_password' /run/brick/log | tail -n 60; tail -n 20 /run/brick/stdout`)
	if err != nil {
		return err.Error()
	}
	return out
}

// startMultipath starts multipathd as a host of OpenStack has it, with what hosts of ovgate
// are told to set.
func (m *machine) startMultipath(t *testing.T) {
	t.Helper()
	conf, err := os.ReadFile(filepath.Join("scripts", "debian", "multipath.conf"))
	ok(t, err)
	m.run(t, `# start multipathd
printf 'defaults {\n\tuser_friendly_names no\n\tfind_multipaths yes\n\tpolling_interval 1\n\tmax_polling_interval 2\n}\n' >/etc/multipath.conf
cat >>/etc/multipath.conf <<'C'
`+string(conf)+`C
multipathd
`)
}

// startBrick starts os-brick.
func (m *machine) startBrick(t *testing.T) {
	t.Helper()
	m.run(t, "# start os-brick\nset -e\ncat >/root/brick.py <<'BRICK'\n"+brickProgram+`BRICK
mkdir -m 700 /run/brick
mkfifo /run/brick/in /run/brick/out
python3 -W ignore /root/brick.py /run/brick >/run/brick/stdout 2>&1 &
[ "$(cat /run/brick/out)" = ready ] || { cat /run/brick/stdout; exit 1; }
`)
	m.do(t, &m.connector, "connector", map[string]any{"ip": "10.0.2.15", "host": "guest"})
	if m.connector["initiator"] == nil || m.connector["multipath"] != true {
		t.Fatalf("os-brick's connector is %v", m.connector)
	}
}

// try has os-brick do something. Secrets are in what it is told: see invariant 3 of guest.
func (m *machine) try(answer any, do string, args map[string]any) error {
	request := map[string]any{"do": do}
	for k, v := range args {
		request[k] = v
	}
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	out, err := m.guest.Run(l.ctx, "cat >/run/brick/in <<'REQUEST'\n"+string(b)+"\nREQUEST\ncat /run/brick/out\n")
	if err != nil {
		return err
	}
	said := struct {
		Answer any
		Error  string
	}{Answer: answer}
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		return fmt.Errorf("os-brick's %s: %w", do, err)
	}
	if said.Error != "" {
		return fmt.Errorf("os-brick's %s: %s", do, said.Error)
	}
	return nil
}

func (m *machine) do(t *testing.T, answer any, do string, args map[string]any) {
	t.Helper()
	begin := time.Now()
	if err := m.try(answer, do, args); err != nil {
		t.Fatalf("%v\n%s", err, m.explain())
	}
	t.Logf("%5.1f s  os-brick: %s", time.Since(begin).Seconds(), do)
}

// disk is a volume that the guest has attached.
type disk struct {
	*attachment
	m      *machine
	device map[string]any // what connect_volume returned
}

// connect attaches a volume as Nova does: os-brick connects with what Cinder answered.
func (m *machine) connect(t *testing.T, c *cloud, volume string) *disk {
	t.Helper()
	a, err := c.tryAttachTo(volume, m.connector)
	ok(t, err)
	a.connect(t)
	d := &disk{attachment: a, m: m}
	m.do(t, &d.device, "connect", map[string]any{"properties": a.info})
	if d.device["multipath_id"] == nil {
		t.Fatalf("os-brick connected %v, want a multipath device\n%s", d.device, m.explain())
	}
	m.run(t, "# two paths, one through each portal\n"+d.vars()+`
until_true "two paths" has_paths $map 2 || { multipathd show paths; exit 1; }
through=$(for d in /sys/block/$(basename $(readlink -f $device))/slaves/*; do
	ls -l /dev/disk/by-path | grep "iscsi-.*/${d##*/}$" | sed 's/.* ip-\([^ ]*\)-iscsi.*/\1/'
done | sort | paste -sd' ')
[ "$through" = "`+strings.Join(guest.Addresses[:], " ")+`" ] || { echo "the paths lead through $through"; exit 1; }
`)
	return d
}

// vars are the shell variables of a disk.
func (d *disk) vars() string {
	return fmt.Sprintf("device=%v map=%v\n", d.device["path"], d.device["multipath_id"])
}

// held are the properties with the device, as whoever holds one keeps them.
func (d *disk) held() map[string]any {
	held := maps.Clone(d.info)
	held["device_path"] = d.device["path"]
	return held
}

func (d *disk) args(more ...any) map[string]any {
	args := map[string]any{"properties": d.info, "device": d.device}
	for i := 0; i < len(more); i += 2 {
		args[more[i].(string)] = more[i+1]
	}
	return args
}

// TestGuest: hosts that attach with os-brick, in virtual machines with a kernel that has
// SCSI. It takes minutes: OVGATE_CINDER_GUEST=1 asks for it, and scripts/setup.sh
// guest-cinder brings what it takes.
func TestGuest(t *testing.T) {
	if !guestAsked() {
		t.Skip("OVGATE_CINDER_GUEST is not 1")
	}
	stock = startPrograms(t)
	m := bootMachine(t, guest.Options{Name: "iqn.2026-01.org.openvstorage:guest", MemoryMiB: 1024})
	m.startMultipath(t)
	m.startBrick(t)
	for _, s := range []struct {
		name string
		run  func(*machine, *testing.T)
	}{{"attach", (*machine).attach}, {"path", (*machine).path}, {"two", (*machine).two},
		{"encrypted", (*machine).encrypted}, {"order", (*machine).order}} {
		if !t.Run(s.name, func(t *testing.T) { s.run(m, t) }) {
			return // what is left in the guest would make the next one fail, too
		}
	}
}

// attach: two paths, I/O, an extend that is seen while the volume is attached, and a
// detach that leaves nothing. What the guest wrote another host reads.
func (m *machine) attach(t *testing.T) {
	c := l.member
	v := c.create(t, volumes.CreateOpts{Name: "attach", Size: 1, VolumeType: plain})
	d := m.connect(t, c, v.ID)
	m.run(t, "# write, and read through each path\n"+d.vars()+`set -e
[ $(blockdev --getsize64 $device) = 1073741824 ]
dd if=/dev/urandom of=/tmp/source bs=1M count=16 2>/dev/null
dd if=/tmp/source of=$device bs=1M oflag=direct conv=notrunc 2>/dev/null
dd if=/tmp/source of=$device bs=1M seek=1008 oflag=direct conv=notrunc 2>/dev/null
for p in /sys/block/${device#/dev/}/slaves/*; do
	for at in 0 1008; do dd if=/dev/${p##*/} bs=1M skip=$at count=16 iflag=direct 2>/dev/null | cmp - /tmp/source; done
done
`)
	c.osc(t, "volume", "set", "--size", "2", v.ID)
	_, err := c.waitVolume(v.ID, "in-use")
	ok(t, err)
	var size int64
	m.do(t, &size, "extend", map[string]any{"properties": d.info})
	if size != 2*gib {
		t.Errorf("os-brick's extend_volume answers %d bytes", size)
	}
	m.run(t, "# the new size\n"+d.vars()+`set -e
for p in $device $(ls -d /sys/block/${device#/dev/}/slaves/* | sed 's|.*/|/dev/|'); do
	[ $(blockdev --getsize64 $p) = 2147483648 ] || { echo "$p has $(blockdev --getsize64 $p) bytes"; exit 1; }
done
dd if=/tmp/source of=$device bs=1M seek=2032 oflag=direct conv=notrunc 2>/dev/null
dd if=$device bs=1M skip=2032 count=16 iflag=direct 2>/dev/null | cmp - /tmp/source
dd if=$device bs=1M count=16 iflag=direct 2>/dev/null | cmp - /tmp/source
`)
	m.do(t, nil, "disconnect", d.args())
	m.run(t, "# nothing is left\nnothing")
	ok(t, d.detach())
	_, err = c.waitVolume(v.ID, "available")
	ok(t, err)
	sum := strings.Fields(m.run(t, "# what was written\nsha256sum /tmp/source"))[0]
	for _, at := range []int64{0, 1008 << 20, 2032 << 20} {
		if got := c.sum(t, v.ID, at, 16<<20); got != sum {
			t.Errorf("at %d another host reads what has the sum %s, the guest wrote %s", at, got, sum)
		}
	}
	c.delete(t, v.ID)
}

// sum is the SHA-256 sum of a part of a volume, as a host reads it that has our initiator.
func (c *cloud) sum(t *testing.T, volume string, at, length int64) string {
	t.Helper()
	h := sha256.New()
	c.use(t, volume, func(d *lun.LUN) { _, _ = h.Write(part(t, d, at, length)) })
	return hex.EncodeToString(h.Sum(nil))
}

// part reads a part of a LUN, whole stretches.
func part(t *testing.T, d *lun.LUN, at, length int64) []byte {
	t.Helper()
	b := make([]byte, length)
	for done := int64(0); done < length; done += stretch {
		_, err := d.ReadAt(b[done:done+stretch], at+done)
		ok(t, err)
	}
	return b
}

// path: one of the two is cut while the guest writes. It goes on, and the path comes back.
func (m *machine) path(t *testing.T) {
	c := l.member
	v := c.create(t, volumes.CreateOpts{Name: "path", Size: 1, VolumeType: fast})
	d := m.connect(t, c, v.ID)
	m.run(t, "# write all the time\n"+d.vars()+`
rm -f /tmp/stop /tmp/failed /tmp/ended /tmp/written
(
	i=0
	while [ ! -e /tmp/stop ]; do
		r=$((i % 8))
		dd if=/dev/urandom of=/tmp/r$r bs=1M count=4 2>/dev/null
		dd if=/tmp/r$r of=$device bs=1M seek=$((r * 100)) oflag=direct conv=notrunc 2>/tmp/dd || { cp /tmp/dd /tmp/failed; break; }
		i=$((i + 1))
		echo $i >/tmp/written.new
		mv /tmp/written.new /tmp/written
	done
	touch /tmp/ended
) >/dev/null 2>&1 &
written() { [ -e /tmp/failed ] || { [ -e /tmp/written ] && [ $(cat /tmp/written) -ge $1 ]; }; }
until_true "10 writes" written 10
`)
	ok(t, m.guest.Cut(1))
	m.run(t, "# one path is lost, writes go on\n"+d.vars()+`
written() { [ -e /tmp/failed ] || [ $(cat /tmp/written) -ge $1 ]; }
until_true "the loss of a path" has_paths $map 1 || { multipathd show paths; exit 1; }
until_true "more writes" written $(($(cat /tmp/written) + 10)) || exit 1
[ ! -e /tmp/failed ] || { cat /tmp/failed; exit 1; }
`)
	ok(t, m.guest.Route(1, l.portals[1]))
	m.run(t, "# it comes back, every write is there\n"+d.vars()+`
until_true "the path" has_paths $map 2 || { multipathd show paths; exit 1; }
touch /tmp/stop
until_true "the end of the writes" test -e /tmp/ended || exit 1
[ ! -e /tmp/failed ] || { cat /tmp/failed; exit 1; }
for p in /sys/block/${device#/dev/}/slaves/*; do
	for r in 0 1 2 3 4 5 6 7; do
		dd if=/dev/${p##*/} bs=1M skip=$((r * 100)) count=4 iflag=direct 2>/dev/null | cmp - /tmp/r$r || exit 1
	done
done
`)
	m.do(t, nil, "disconnect", d.args())
	m.run(t, "# nothing is left\nnothing")
	ok(t, d.detach())
	c.delete(t, v.ID)
}

// two volumes at one host: the end of one leaves the other as it is.
func (m *machine) two(t *testing.T) {
	c := l.member
	var disks []*disk
	for range 2 {
		v := c.create(t, volumes.CreateOpts{Name: "two", Size: 1, VolumeType: plain})
		d := m.connect(t, c, v.ID)
		m.run(t, "# write\n"+d.vars()+"echo $map | dd of=$device bs=4096 conv=sync,notrunc oflag=direct 2>/dev/null")
		disks = append(disks, d)
	}
	one, other := disks[0], disks[1]
	m.do(t, nil, "disconnect", one.args())
	ok(t, one.detach())
	m.run(t, "# the other one is there\n"+other.vars()+`
has_paths $map 2 || { multipathd show paths; exit 1; }
[ "$(dd if=$device bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1)" = $map ]
`)
	m.do(t, nil, "disconnect", other.args())
	ok(t, other.detach())
	m.run(t, "# nothing is left\nnothing")
	for _, d := range disks {
		c.delete(t, d.volume)
	}
}

// encrypted: what Nova does with a volume of an encrypted type: os-brick puts LUKS on it,
// with the key that Cinder names, and nothing that is written is on the vDisk as it is.
func (m *machine) encrypted(t *testing.T) {
	admin, c := l.admin, l.member
	public := true
	kind, err := volumetypes.Create(l.ctx, admin.block, volumetypes.CreateOpts{Name: "encrypted", IsPublic: &public,
		ExtraSpecs: map[string]string{"volume_backend_name": backend, "pool_name": plain}}).Extract()
	ok(t, err)
	_, err = volumetypes.CreateEncryption(l.ctx, admin.block, kind.ID, volumetypes.CreateEncryptionOpts{
		Provider: "luks", Cipher: "aes-xts-plain64", KeySize: 256, ControlLocation: "front-end"}).Extract()
	ok(t, err)
	v := c.create(t, volumes.CreateOpts{Name: "encrypted", Size: 1, VolumeType: "encrypted"})
	var metadata map[string]any
	ok(t, c.get(l.ctx, "volumes/"+v.ID+"/encryption", &metadata))
	if metadata["encryption_key_id"] == nil {
		t.Fatalf("Cinder says of the encryption %v", metadata)
	}
	inside := []any{"key", l.cinder.Said["encryption_key"], "metadata", metadata}
	d := m.connect(t, c, v.ID)
	m.do(t, nil, "encrypt", d.args(inside...))
	m.run(t, "# write\n"+d.vars()+`set -e
[ "$(blkid -p -o value -s TYPE /dev/mapper/$map)" = crypto_LUKS ]
yes "nobody else reads this line" | head -c 16777216 >/tmp/plain
dd if=/tmp/plain of=$device bs=1M oflag=direct conv=notrunc 2>/dev/null
dd if=$device bs=1M count=16 iflag=direct 2>/dev/null | cmp - /tmp/plain
`)
	ok(t, volumes.ExtendSize(l.ctx, c.block, v.ID, volumes.ExtendSizeOpts{NewSize: 2}).ExtractErr())
	_, err = c.waitVolume(v.ID, "in-use")
	ok(t, err)
	m.do(t, nil, "extend", map[string]any{"properties": d.held()})
	var size int64
	m.do(t, &size, "extend_encrypted", d.args(inside...))
	if size <= 2*gib-16<<20 || size >= 2*gib {
		t.Errorf("after an extend to 2 GiB there is room for %d bytes", size)
	}
	m.do(t, nil, "decrypt", d.args(inside...))
	m.do(t, nil, "disconnect", d.args())
	m.run(t, "# nothing is left\nnothing")
	ok(t, d.detach())
	_, err = c.waitVolume(v.ID, "available")
	ok(t, err)
	c.use(t, v.ID, func(d *lun.LUN) {
		b := part(t, d, 0, 24<<20)
		if !bytes.HasPrefix(b, []byte("LUKS\xba\xbe")) || bytes.Contains(b, []byte("nobody else")) {
			t.Error("what is on the vDisk is not encrypted")
		}
	})
	d = m.connect(t, c, v.ID)
	if err := m.try(nil, "encrypt", d.args("key", strings.Repeat("5a", 16), "metadata", metadata)); err == nil {
		t.Error("LUKS was opened with another key")
	}
	m.do(t, nil, "encrypt", d.args(inside...))
	m.run(t, "# read\n"+d.vars()+`dd if=$device bs=1M count=16 iflag=direct 2>/dev/null | cmp - /tmp/plain`)
	for range 2 {
		m.do(t, nil, "decrypt", d.args(inside...))
	}
	m.do(t, nil, "disconnect", d.args())
	m.run(t, "# nothing is left\nnothing")
	ok(t, d.detach())
	c.delete(t, v.ID)
}

// order: whatever is done twice or in the wrong order does no harm and leaves nothing.
func (m *machine) order(t *testing.T) {
	c := l.member
	v := c.create(t, volumes.CreateOpts{Name: "order", Size: 1, VolumeType: plain})

	// Everything twice.
	d := m.connect(t, c, v.ID)
	m.run(t, "# write\n"+d.vars()+"echo kept | dd of=$device bs=4096 conv=sync,notrunc oflag=direct 2>/dev/null")
	var again map[string]any
	m.do(t, &again, "connect", map[string]any{"properties": d.info})
	if again["path"] != d.device["path"] {
		t.Errorf("a second connect answers %v, the first answered %v", again, d.device)
	}
	for range 2 {
		m.do(t, nil, "disconnect", d.args())
		m.run(t, "# nothing is left\nnothing")
	}
	ok(t, d.detach())
	if err := d.detach(); !gone(err) {
		t.Errorf("a second detach was answered by %v", err)
	}

	// Cinder ends the attachment while the host has the volume: the host's disks stop to
	// work, and go when it is told as well.
	d = m.connect(t, c, v.ID)
	m.run(t, "# read\n"+d.vars()+`[ "$(dd if=$device bs=4096 count=1 iflag=direct 2>/dev/null | head -n 1)" = kept ]`)
	ok(t, d.detach())
	m.run(t, "# no path works any more\n"+d.vars()+`
until_true "the loss of both paths" has_paths $map 0 || { multipathd show paths; exit 1; }
! dd if=$device bs=4096 count=1 iflag=direct of=/dev/null 2>/dev/null
`)
	for range 2 {
		m.do(t, nil, "disconnect", d.args("force", true))
		m.run(t, "# nothing is left\nnothing")
	}

	// Whoever comes with an attachment that ended is refused, and nothing stays of the try.
	if err := m.try(nil, "connect", map[string]any{"properties": d.info}); err == nil {
		t.Error("os-brick connected with an attachment that had ended")
	}
	m.run(t, "# nothing is left\nnothing")

	// The volume is deleted while the host still has it, and is deleted again.
	d = m.connect(t, c, v.ID)
	ok(t, d.detach())
	c.delete(t, v.ID)
	c.delete(t, v.ID)
	vdisk, err := l.vdisk("volume-" + v.ID)
	ok(t, err)
	if vdisk != nil {
		t.Errorf("the vDisk of a deleted volume is %s", vdisk.State)
	}
	m.do(t, nil, "disconnect", d.args("force", true))
	m.do(t, nil, "disconnect", d.args("force", true))
	m.run(t, "# nothing is left\nnothing")
	if err := d.detach(); !gone(err) {
		t.Errorf("a detach after the delete was answered by %v", err)
	}
}
