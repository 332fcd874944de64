package guest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/internal/freeport"
	"github.com/openvstorage/ovgate/scripts/drill/node"
	"github.com/openvstorage/ovgate/scripts/guest"
)

// testTime bounds the whole test; it takes a minute on an idle machine.
const testTime = 15 * time.Minute

// rig is a guest and what it is tested against.
type rig struct {
	ctx   context.Context
	guest *guest.Guest
	node  *node.Node
	dir   string
	at    string // this machine's address that leads to guestPort
}

const (
	// also is an address that the guest reaches besides, at the route after the others.
	also      = "10.0.2.101:80"
	guestPort = 7000
)

// boot starts a guest. Without QEMU or the guest's packages the test is skipped,
// except in CI, where they must be there.
func boot(t *testing.T) *rig {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil && os.Getenv("CI") != "true" {
		t.Skip("QEMU is missing: run scripts/setup.sh")
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	t.Cleanup(cancel)
	dir := t.TempDir()
	image, err := guest.Image(ctx, "../..")
	if err != nil {
		t.Fatal(err)
	}
	relay, err := guest.BuildRelay(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	at, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	g, err := guest.Start(ctx, image, relay, guest.Options{Dir: filepath.Join(dir, "guest"), Name: initiatorName,
		Also: []string{also}, Serves: map[string]int{at: guestPort}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("guest up in %v", time.Since(begin).Round(100*time.Millisecond))
	return &rig{ctx: ctx, guest: g, dir: dir, at: at}
}

const initiatorName = "iqn.2026-11.io.ovgate.test:guest"

// run runs a script in the guest; it must end with 0.
func (r *rig) run(t *testing.T, script string) string {
	t.Helper()
	begin := time.Now()
	out, err := r.guest.Run(r.ctx, helpers+script)
	if err != nil {
		t.Fatalf("%v\nkernel log:\n%s", err, r.kernelLog())
	}
	t.Logf("%4.1f s  %s", time.Since(begin).Seconds(), strings.SplitN(strings.TrimSpace(script), "\n", 2)[0])
	return out
}

func (r *rig) kernelLog() string {
	out, err := r.guest.Run(r.ctx, "dmesg | tail -n 25")
	if err != nil {
		return err.Error()
	}
	return out
}

// helpers are shell functions of every script.
const helpers = `
# device IQN PORTAL: waits for the session's disk and prints its name.
device() {
	for i in $(seq 200); do
		d=$(ls /dev/disk/by-path 2>/dev/null | grep -F "ip-$2-iscsi-$1-lun-" | grep -v part | head -n 1)
		[ -n "$d" ] && { basename $(readlink -f /dev/disk/by-path/$d); return 0; }
		usleep 50000
	done
	echo "no disk of $1 at $2" >&2
	return 1
}
# gone IQN: waits until udev has removed the links of the target's disks, which it
# does some time after the session ended.
gone() {
	for i in $(seq 200); do
		ls /dev/disk/by-path 2>/dev/null | grep -qF "iscsi-$1-lun-" || return 0
		usleep 50000
	done
	echo "disks of $1 are still there:" >&2
	ls /dev/disk/by-path >&2
	return 1
}
drop_caches() { sync; echo 3 >/proc/sys/vm/drop_caches; }
`

// login is a script that logs in with CHAP, both digests, and time-outs that fit a
// target that restarts; secrets travel in it, see invariant 3 of the package.
type login struct {
	iqn, portal          string
	user, secret         string
	userIn, secretIn     string // mutual
	replacement, timeout int    // s: how long I/O waits for a lost session; pings
}

func (l login) script() string {
	var b strings.Builder
	set := func(name string, value any) {
		fmt.Fprintf(&b, "iscsiadm -m node -T %s -p %s -o update -n %s -v %v\n", l.iqn, l.portal, name, value)
	}
	fmt.Fprintf(&b, "set -e\niscsiadm -m node -o new -T %s -p %s >/dev/null\n", l.iqn, l.portal)
	set("node.session.auth.authmethod", "CHAP")
	set("node.session.auth.username", l.user)
	set("node.session.auth.password", l.secret)
	if l.userIn != "" {
		set("node.session.auth.username_in", l.userIn)
		set("node.session.auth.password_in", l.secretIn)
	}
	set("node.conn[0].iscsi.HeaderDigest", "CRC32C")
	set("node.conn[0].iscsi.DataDigest", "CRC32C")
	set("node.session.timeo.replacement_timeout", l.replacement)
	set("node.conn[0].timeo.noop_out_interval", l.timeout)
	set("node.conn[0].timeo.noop_out_timeout", l.timeout)
	fmt.Fprintf(&b, "iscsiadm -m node -T %s -p %s --login >/dev/null\n", l.iqn, l.portal)
	return b.String()
}

// TestGuest drives the target with the Linux kernel's initiator, in one boot.
func TestGuest(t *testing.T) {
	r := boot(t)
	for _, s := range []struct {
		name string
		run  func(*rig, *testing.T)
	}{
		{"Isolation", (*rig).isolation},
		{"Routes", (*rig).routes},
		{"FileSystems", (*rig).fileSystems},
		{"MutualCHAP", (*rig).mutualCHAP},
		{"SCSI", (*rig).scsi},
		{"Multipath", (*rig).multipath},
	} {
		if !t.Run(s.name, func(t *testing.T) { s.run(r, t) }) {
			return // what is left in the guest would make the next one fail, too
		}
	}
}

// isolation: with nothing behind its routes the guest reaches no address at all,
// and only the routes otherwise.
func (r *rig) isolation(t *testing.T) {
	l, port := listen(t)
	defer l.Close()
	if err := r.guest.Route(0, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	r.run(t, fmt.Sprintf(`# isolation
bad=0
try() { # ADDRESS PORT WANT
	if [ -n "$(nc -w 3 $1 $2 </dev/null 2>/dev/null)" ]; then got=reached; else got=closed; fi
	[ $got = $3 ] || { echo "$1:$2 is $got, want $3"; bad=1; }
}
try 10.0.2.100 3260 reached
try 10.0.3.100 3260 closed
try 10.0.2.101 80 closed
try 10.0.2.100 %[1]d closed
try 10.0.2.2 %[1]d closed
try 10.0.3.2 %[1]d closed
[ -z "$(ip route | grep default)" ] || { echo "a default route"; bad=1; }
[ -z "$(ip -6 addr show scope global)" ] || { echo "a global IPv6 address"; bad=1; }
exit $bad
`, port))
}

// routes: another address and another way than those to portals, and a connection that is
// cut while the rest stays.
func (r *rig) routes(t *testing.T) {
	l, _ := listen(t)
	defer l.Close()
	if err := r.guest.Route(guest.Routes, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	r.run(t, fmt.Sprintf(`# one more address, and a port for this machine
[ "$(nc -w 30 10.0.2.101 80 </dev/null)" = hello ] || { echo "10.0.2.101 is not reached"; exit 1; }
(echo served | nc -l -p %d) >/dev/null 2>&1 &
until netstat -ltn | grep -q :%[1]d; do usleep 50000; done
`, guestPort))
	conn, err := net.Dial("tcp", r.at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != "served\n" {
		t.Errorf("the guest's port answers %q: %v", got, err)
	}

	held, err := net.Listen("tcp", "127.0.0.1:0") // says nothing and ends nothing
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for i := range guest.Routes {
		if err := r.guest.Route(i, held.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	r.run(t, `# hold a connection through each route
mkfifo /tmp/open
sleep 100000 >/tmp/open 2>/dev/null &
echo $! >/tmp/opener
for i in 2 3; do (nc 10.0.$i.100 3260 </tmp/open; touch /tmp/ended$i) >/dev/null 2>&1 & done
for i in 2 3; do until netstat -tn | grep "10.0.$i.100:3260" | grep -q ESTABLISHED; do usleep 50000; done; done
`)
	for range guest.Routes { // the relays have reached it
		c, err := held.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if err := r.guest.Cut(1); err != nil {
		t.Fatal(err)
	}
	r.run(t, `# the one that is cut ends, the other one stays
until [ -e /tmp/ended3 ]; do usleep 50000; done
netstat -tn | grep "10.0.2.100:3260" | grep -q ESTABLISHED || { netstat -tn; exit 1; }
[ ! -e /tmp/ended2 ] || { echo "the other connection ended"; exit 1; }
kill $(cat /tmp/opener)
rm /tmp/open
`)
}

// fileSystems runs ext4 and XFS on a vDisk of a real node: verified I/O, fstrim,
// growth, and a target that is killed under load.
func (r *rig) fileSystems(t *testing.T) {
	const size, grown = 1 << 30, 1536 << 20
	bin, err := node.Build(r.ctx, r.dir)
	if err != nil {
		t.Fatal(err)
	}
	if r.node, err = node.New(node.Options{Bin: bin, Data: filepath.Join(r.dir, "node")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.node.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := r.node.Start(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.node.CreateVPool(r.ctx, "pool", filepath.Join(r.dir, "backend")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.node.CreateVDisk(r.ctx, "pool", "disk", size); err != nil {
		t.Fatal(err)
	}
	out, err := r.node.CLI(r.ctx, "vdisk", "publish", "disk", "--mutual", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var conn client.Connection
	if err := json.Unmarshal(out, &conn); err != nil {
		t.Fatal(err)
	}
	if err := r.guest.Route(0, r.node.Portal()); err != nil {
		t.Fatal(err)
	}
	l := login{iqn: conn.IQN, portal: guest.Addresses[0], user: conn.ChapUser, secret: conn.ChapSecret,
		userIn: conn.MutualUser, secretIn: conn.MutualSecret, replacement: 120, timeout: 5}
	r.run(t, "# log in, mutual CHAP and both digests\n"+l.script()+`
iscsiadm -m session -P 3 >/tmp/session
for w in "HeaderDigest: CRC32C" "DataDigest: CRC32C" "Current Portal: 10.0.2.100:3260"; do
	grep -qF "$w" /tmp/session || { echo "no $w"; cat /tmp/session; exit 1; }
done
device `+l.iqn+` `+l.portal+` >/tmp/disk
`)
	r.ext4(t, grown)
	r.killUnderLoad(t)
	r.xfs(t)
	r.run(t, `# log out
set -e
iscsiadm -m node -T `+l.iqn+` --logout >/dev/null
gone `+l.iqn+`
`)
}

// mapped returns how many bytes of the vDisk hold data, as of now.
func (r *rig) mapped(t *testing.T) int64 {
	t.Helper()
	if _, err := r.node.Commit(r.ctx, "disk"); err != nil {
		t.Fatal(err)
	}
	v, err := r.node.VDisk(r.ctx, "disk")
	if err != nil {
		t.Fatal(err)
	}
	return v.Mapped
}

// ext4: verified I/O, fstrim gives the space back, growth without a new login.
func (r *rig) ext4(t *testing.T, grown int64) {
	r.run(t, `# ext4, verified I/O
set -e
mkfs.ext4 -q -F -E nodiscard /dev/$(cat /tmp/disk)
mount -t ext4 /dev/$(cat /tmp/disk) /mnt
fio --name=verify --directory=/mnt --size=8M --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio --direct=1 \
	--verify=crc32c --verify_fatal=1 --end_fsync=1 --output=/tmp/fio.log || { cat /tmp/fio.log; exit 1; }
dd if=/dev/urandom of=/mnt/keep bs=1M count=8 2>/dev/null
md5sum </mnt/keep >/tmp/keep.md5
dd if=/dev/urandom of=/mnt/drop bs=1M count=64 2>/dev/null
sync
`)
	full := r.mapped(t)
	r.run(t, `# fstrim
set -e
rm /mnt/drop /mnt/verify*
sync
fstrim /mnt
`)
	if left := r.mapped(t); full-left < 64<<20 {
		t.Errorf("%d MiB mapped before fstrim, %d after it: 72 MiB were deleted", full>>20, left>>20)
	}
	if _, err := r.node.CLI(r.ctx, "vdisk", "resize", "disk", fmt.Sprint(grown)); err != nil {
		t.Fatal(err)
	}
	r.run(t, fmt.Sprintf(`# grow
set -e
d=$(cat /tmp/disk)
# The next command meets the unit attention: the kernel says so and asks for a rescan.
dd if=/dev/$d of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null
dmesg | grep -q "Capacity data has changed" || { echo "no unit attention seen"; exit 1; }
echo 1 >/sys/block/$d/device/rescan
[ $(cat /sys/block/$d/size) = %d ] || { echo "size $(cat /sys/block/$d/size)"; exit 1; }
resize2fs /dev/$d >/dev/null 2>&1
[ $(df -k /mnt | awk 'END { print $2 }') -gt 1300000 ] || { df -k /mnt; exit 1; }
md5sum </mnt/keep | cmp - /tmp/keep.md5
`, grown/512))
}

// killUnderLoad: the target is killed while the guest writes, and comes back.
func (r *rig) killUnderLoad(t *testing.T) {
	r.run(t, `# start a load
dmesg -c >/dev/null
(fio --name=load --directory=/mnt --size=16M --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio --direct=1 --loops=2 \
	--verify=crc32c --verify_fatal=1 --do_verify=1 --output=/tmp/fio.log; echo $? >/tmp/fio.status) >/dev/null 2>&1 &
until [ $(cat /sys/block/$(cat /tmp/disk)/inflight | awk '{ print $2 }') -gt 0 ]; do usleep 20000; done
`)
	if err := r.node.Kill(); err != nil {
		t.Fatal(err)
	}
	r.run(t, `# notice the loss
for i in $(seq 600); do dmesg | grep -q "detected conn error" && exit 0; usleep 50000; done
echo "the guest does not notice that the target is gone"; exit 1
`)
	if err := r.node.Start(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.run(t, `# wait for the load
for i in $(seq 1800); do [ -f /tmp/fio.status ] && break; usleep 100000; done
[ "$(cat /tmp/fio.status)" = 0 ] || { cat /tmp/fio.log; dmesg | tail; exit 1; }
! dmesg | grep -E "I/O error|rejecting I/O|EXT4-fs error|Buffer I/O" || exit 1
drop_caches
md5sum </mnt/keep | cmp - /tmp/keep.md5 || exit 1
umount /mnt && e2fsck -fn /dev/$(cat /tmp/disk)
`)
}

// xfs: verified I/O, fstrim, repair finds nothing.
func (r *rig) xfs(t *testing.T) {
	r.run(t, `# xfs
set -e
d=/dev/$(cat /tmp/disk)
mkfs.xfs -q -f $d
mount -t xfs $d /mnt
fio --name=verify --directory=/mnt --size=8M --rw=randrw --bs=8k --iodepth=8 --ioengine=libaio --direct=1 \
	--verify=crc32c --verify_fatal=1 --end_fsync=1 --output=/tmp/fio.log || { cat /tmp/fio.log; exit 1; }
dd if=/dev/urandom of=/mnt/keep bs=1M count=8 2>/dev/null
md5sum </mnt/keep >/tmp/keep.md5
rm /mnt/verify*
sync
fstrim /mnt
umount /mnt
drop_caches
xfs_repair -n $d >/tmp/repair.log 2>&1 || { cat /tmp/repair.log; exit 1; }
mount -t xfs $d /mnt
md5sum </mnt/keep | cmp - /tmp/keep.md5
umount /mnt
`)
	if left := r.mapped(t); left > 128<<20 {
		t.Errorf("%d MiB mapped after mkfs.xfs and fstrim, with 8 MiB of files", left>>20)
	}
}
