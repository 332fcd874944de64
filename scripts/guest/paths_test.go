package guest_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/iscsi/iscsitest"
	"github.com/openvstorage/ovgate/scripts/guest"
)

// listen returns a listener on a free port of the loopback that greets whoever
// comes, until it is closed.
func listen(t *testing.T) (net.Listener, int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("hello\n"))
			_ = c.Close()
		}
	}()
	return l, l.Addr().(*net.TCPAddr).Port
}

const (
	memoryIQN = "iqn.2026-11.io.ovgate.test:memory"
	memoryLUN = 64 << 20 // bytes
)

// serveMemory runs a target with two portals and two units in memory in this
// process, and leads the guest's routes to it.
func (r *rig) serveMemory(t *testing.T, auth iscsi.Auth) *iscsi.Server {
	t.Helper()
	srv := iscsi.NewServer(iscsi.Config{})
	spec := iscsi.TargetSpec{Name: memoryIQN, Groups: []iscsi.Group{{Name: "guest", Initiators: []string{initiatorName}, Auth: &auth}}}
	for n := range uint16(2) {
		spec.LUNs = append(spec.LUNs, iscsi.LUNSpec{Number: n, Disk: iscsitest.NewDisk(memoryLUN, nil),
			Serial: "memory" + strconv.Itoa(int(n)), NAA: [16]byte{0: 0x60, 7: 0x42, 15: byte(n)}})
	}
	served := make(chan error, guest.Routes)
	for i, a := range guest.Addresses {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		spec.Portals = append(spec.Portals, iscsi.Portal{Address: a, Local: l.Addr().String(), Group: uint16(i + 1)})
		if err := r.guest.Route(i, l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		go func() { served <- srv.Serve(l) }()
	}
	if err := srv.AddTarget(spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // sessions that a failed test left behind are not waited for
		if err := srv.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		for range guest.Routes {
			if err := <-served; !errors.Is(err, iscsi.ErrServerClosed) {
				t.Error(err)
			}
		}
	})
	return srv
}

func memoryLogin(route int) login {
	return login{iqn: memoryIQN, portal: guest.Addresses[route], user: "guest", secret: "from-guest-to-target",
		userIn: "target", secretIn: "from-target-to-guest", replacement: 5, timeout: 2}
}

func memoryAuth() iscsi.Auth {
	l := memoryLogin(0)
	return iscsi.Auth{User: l.user, Secret: l.secret, MutualUser: l.userIn, MutualSecret: l.secretIn}
}

// mutualCHAP: both sides prove themselves; a target that cannot is refused by the
// initiator, an initiator that cannot by the target; discovery names both portals.
func (r *rig) mutualCHAP(t *testing.T) {
	srv := r.serveMemory(t, memoryAuth())
	l := memoryLogin(0)
	wrongIn, wrongOut := l, l
	wrongIn.secretIn, wrongOut.secret = "not-what-the-target-has", "not-what-the-guest-needs"
	for _, w := range []login{wrongIn, wrongOut} {
		r.run(t, "# refused: wrong secret\n("+w.script()+`) >/tmp/refused 2>&1
[ $? -ne 0 ] || { echo "a login with a wrong secret succeeds"; exit 1; }
iscsiadm -m node -T `+w.iqn+` -o delete
! iscsiadm -m session 2>/dev/null | grep -F `+w.iqn+`
`)
	}
	out := r.run(t, "# mutual CHAP\n"+l.script()+`
d=$(device `+l.iqn+` `+l.portal+`)
dd if=/dev/urandom of=/tmp/block bs=1M count=4 2>/dev/null
dd if=/tmp/block of=/dev/$d bs=1M oflag=direct 2>/dev/null
dd if=/dev/$d bs=1M count=4 iflag=direct 2>/dev/null | cmp - /tmp/block
iscsiadm -m discovery -t sendtargets -p `+l.portal+` | sort
iscsiadm -m node -T `+l.iqn+` --logout >/dev/null
`)
	want := "10.0.2.100:3260,1 " + memoryIQN + "\n10.0.3.100:3260,2 " + memoryIQN + "\n"
	if out != want {
		t.Errorf("discovery says\n%swant\n%s", out, want)
	}
	if s := srv.Stats(); s.DigestErrors != 0 || s.Logins == 0 {
		t.Errorf("%+v", s)
	}
	r.run(t, "iscsiadm -m node -T "+l.iqn+" -o delete")
}

// multipath: dm-multipath over two cards and portals; one path is cut under
// writes, and comes back.
func (r *rig) multipath(t *testing.T) {
	r.serveMemory(t, memoryAuth())
	conf, err := os.ReadFile(filepath.Join("..", "debian", "multipath.conf"))
	if err != nil {
		t.Fatal(err)
	}
	r.run(t, `# two paths
cat >/etc/multipath.conf <<'C'
defaults {
	user_friendly_names yes
	find_multipaths no
	polling_interval 1
	max_polling_interval 1
}
`+string(conf)+`C
multipathd
`+memoryLogin(0).script()+memoryLogin(1).script()+`
for i in $(seq 100); do [ $(multipath -ll 2>/dev/null | grep -c "active ready") = 4 ] && break; usleep 100000; done
[ $(multipath -ll | grep -c "active ready") = 4 ] || { multipath -ll; exit 1; }
ls /dev/mapper | grep mpath | sort | head -n 1 >/tmp/map
mkfs.ext4 -q -F /dev/mapper/$(cat /tmp/map)
mount -t ext4 /dev/mapper/$(cat /tmp/map) /mnt
`)
	r.run(t, `# cut a path under writes
dd if=/dev/urandom of=/tmp/source bs=1M count=12 2>/dev/null
ip link set eth1 down
for i in 1 2 3; do dd if=/tmp/source of=/mnt/f$i bs=1M conv=fsync 2>/dev/null || { echo "write $i fails"; exit 1; }; done
for i in $(seq 300); do [ $(multipath -ll | grep -c "active ready") = 2 ] && break; usleep 100000; done
[ $(multipath -ll | grep -c "active ready") = 2 ] || { echo "the lost path is not seen"; multipath -ll; exit 1; }
drop_caches
for i in 1 2 3; do cmp /mnt/f$i /tmp/source || exit 1; done
`)
	r.run(t, `# the path comes back
ip link set eth1 up
ip addr show eth1 | grep -q 10.0.3.15 || ip addr add 10.0.3.15/24 dev eth1
for i in $(seq 400); do [ $(multipath -ll | grep -c "active ready") = 4 ] && break; usleep 100000; done
[ $(multipath -ll | grep -c "active ready") = 4 ] || { multipath -ll; exit 1; }
umount /mnt && e2fsck -fn /dev/mapper/$(cat /tmp/map) || exit 1
multipath -F
iscsiadm -m node -T `+memoryIQN+` --logout >/dev/null
`)
}

// scsi: what sg3-utils and the kernel make of the device server: access states of
// the port groups, copies between units, reservations that fence the other path.
func (r *rig) scsi(t *testing.T) {
	r.serveMemory(t, memoryAuth())
	r.run(t, "# two paths, two units\n"+memoryLogin(0).script()+memoryLogin(1).script()+`
unit() { # NUMBER PORTAL
	for i in $(seq 200); do
		for l in /dev/disk/by-path/ip-$2-iscsi-`+memoryIQN+`-lun-$1; do
			[ -e $l ] && { readlink -f $l; return 0; }
		done
		usleep 50000
	done
	echo "no unit $1 at $2" >&2
	return 1
}
A0=$(unit 0 10.0.2.100:3260) A1=$(unit 1 10.0.2.100:3260) B0=$(unit 0 10.0.3.100:3260)
echo "A0=$A0 A1=$A1 B0=$B0" >/tmp/units
`)
	r.run(t, `# port groups
. /tmp/units
sg_rtpg --decode $A0 >/tmp/rtpg || { cat /tmp/rtpg; exit 1; }
[ $(grep -c "active/optimized" /tmp/rtpg) = 2 ] || { cat /tmp/rtpg; exit 1; }
for d in $A0 $B0; do sg_vpd -p di -q $d | grep 0x60; done | sort -u | wc -l | grep -qx 1 || { sg_vpd -p di $A0 $B0; exit 1; }
`)
	r.run(t, `# extended copy
. /tmp/units
dd if=/dev/urandom of=/tmp/source bs=1M count=8 2>/dev/null
dd if=/tmp/source of=$A0 bs=1M oflag=direct 2>/dev/null
sg_xcopy if=$A0 of=$A1 bs=512 count=16384 bpt=4096 >/tmp/xcopy 2>&1 || { cat /tmp/xcopy; exit 1; }
dd if=$A1 bs=1M count=8 iflag=direct 2>/dev/null | cmp - /tmp/source
`)
	r.run(t, `# persistent reservations: path A fences path B
. /tmp/units
set -e
sg_persist --out --register --param-sark=0xa $A0 >/dev/null
sg_persist --out --register --param-sark=0xb $B0 >/dev/null
sg_persist --out --reserve --param-rk=0xb --prout-type=3 $B0 >/dev/null
sg_persist --in --read-keys $A0 | grep -q 0xb
! dd if=/dev/zero of=$A0 bs=4k count=1 oflag=direct 2>/dev/null
sg_persist --out --preempt-abort --param-rk=0xa --param-sark=0xb --prout-type=3 $A0 >/dev/null
dd if=/dev/zero of=$A0 bs=4k count=1 oflag=direct 2>/dev/null
! dd if=/dev/zero of=$B0 bs=4k count=1 oflag=direct 2>/dev/null
sg_persist --in --read-reservation $A0 | grep -q "Exclusive Access"
sg_persist --out --clear --param-rk=0xa $A0 >/dev/null
dd if=/dev/zero of=$B0 bs=4k count=1 oflag=direct 2>/dev/null
iscsiadm -m node -T `+memoryIQN+` --logout >/dev/null
iscsiadm -m node -T `+memoryIQN+` -o delete
`)
}
