#!/usr/bin/env bash
# Installs the Debian packages that the tests, drills and benches use as peers:
#
#   tgt               the iSCSI target the benches compare with
#   libiscsi-bin      iscsi-ls, iscsi-inq, iscsi-test-cu: conformance of the target
#   qemu-utils        qemu-img; qemu-block-extra adds its iscsi:// driver
#   nbdkit            an NBD server that the benches compare with
#   e2fsprogs         mkfs.ext4 -d, e2fsck for real file system images
#   fio               raw-disk figures by hand
#   chromium          the browser of the UI test; chromium-headless-shell is the one without a window
#   swift-proxy, swift-account, swift-container, swift-object, memcached
#                     OpenStack Swift, which also speaks S3
#   keystone, uwsgi-plugin-python3, python3-keystonemiddleware
#                     its identity service, and what asks it about tokens
#   qemu-system-x86, busybox-static, cpio, kmod, xfsprogs, sg3-utils
#                     the guest with a kernel initiator; the rest of it is
#                     downloaded and unpacked, not installed (scripts/guest/image)
#   util-linux, xfsprogs, e2fsprogs   also the disks that tests make of loop devices
#   python3-cinder, python3-os-brick, python3-testtools, flake8
#                     Cinder's test base and driver interface suite, and the style
#                     checker, for its volume driver
#   cinder-api, cinder-scheduler, cinder-volume, glance-api
#                     OpenStack's volume and image services, which the driver is run by
#   python3-openstackclient, python3-cinderclient
#                     the commands of people who use them
#   etcd-server       the etcd of a distribution, older than the one in the binary
#   iproute2          ip: the network namespaces of scripts/cluster
#   smartmontools     smartctl, which the node asks for the health of disks
#   ca-certificates, curl, procps   used by the scripts themselves
#
# With the word package also what the test of the Debian package takes, and with the word
# cinder what the drill cinder takes in soak and the bench, which make test does not run:
#
#   lintian, mmdebstrap, systemd-container
#                     what is wrong with it, and the fresh Debian with systemd that it is
#                     installed in
#   mariadb-server-core, mariadb-client-core
#                     Cinder's database, without a service
#   tempest           OpenStack's own tests
#   cinder-backup     Cinder's service for backups
#
# With the word guest-cinder what the drill cinder-guest takes in soak:
#
#   mmdebstrap        makes the disk of its virtual machines, which happens here, too, takes
#                     minutes and a gigabyte below ~/.cache/ovgate/guest (scripts/guest/root)
#
# With the word ceph what the bench's set cluster compares with:
#
#   ceph-mon, ceph-mgr, ceph-osd, ceph-common   Ceph, and its command
#   fio               also the load on a Ceph image
#
# Needs no answers, may run any number of times, does nothing when everything is
# there, and leaves no service running: a package's request to start one is
# refused for the length of the installation.
set -euo pipefail

packages=(tgt libiscsi-bin nbdkit qemu-utils qemu-block-extra e2fsprogs fio chromium chromium-headless-shell
	python3-cinder python3-os-brick python3-testtools flake8
	qemu-system-x86 busybox-static cpio kmod xfsprogs sg3-utils smartmontools ca-certificates curl procps util-linux iproute2
	swift-proxy swift-account swift-container swift-object memcached
	keystone uwsgi-plugin-python3 python3-keystonemiddleware etcd-server
	cinder-api cinder-scheduler cinder-volume glance-api python3-openstackclient python3-cinderclient)
case "${1:-}" in
"") ;;
package) packages+=(lintian mmdebstrap systemd-container) ;;
guest-cinder) packages+=(mmdebstrap) ;;
cinder) packages+=(mariadb-server-core mariadb-client-core python3-pymysql tempest cinder-backup) ;;
ceph) packages+=(ceph-mon ceph-mgr ceph-osd ceph-common) ;;
*)
	echo "usage: scripts/setup.sh [package|cinder|guest-cinder|ceph]" >&2
	exit 2
	;;
esac

here=$(cd "$(dirname "$0")" && pwd)
missing=()
for p in "${packages[@]}"; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$state" = installed ] || missing+=("$p")
done
disk=() # the program that makes or finds the disk of guests, where they have one
[ "${1:-}" != guest-cinder ] || disk=("$here/guest/root")
if [ ${#missing[@]} -eq 0 ] && "$here/guest/image" >/dev/null 2>&1 && "${disk[@]:-true}" >/dev/null 2>&1; then
	echo "setup: all ${#packages[@]} packages are installed, the guest's image is made"
	exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "setup: missing ${missing[*]}; run as root: apt-get install ${missing[*]}" >&2
		exit 1
	fi
	as_root=(sudo)
fi

# policy-rc.d is what Debian's maintainer scripts ask before they start a
# service; 101 means "not allowed". One that is there already stays.
policy=/usr/sbin/policy-rc.d
own_policy=
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
	"${as_root[@]}" chmod 755 "$policy"
	own_policy=yes
fi
cleanup() { [ -z "$own_policy" ] || "${as_root[@]}" rm -f "$policy"; }
trap cleanup EXIT

apt() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
		-o DPkg::Lock::Timeout=180 -o Acquire::Retries=3 \
		-o Dpkg::Options::=--force-confold "$@" </dev/null
}

# The guest's image needs package lists, and may need newer ones.
if [ ${#missing[@]} -eq 0 ]; then
	apt update
	"$here/guest/image" >/dev/null
	"${disk[@]:-true}" >/dev/null
	echo "setup: all ${#packages[@]} packages are installed, the guest's image is made"
	exit 0
fi
echo "setup: installing ${missing[*]}"
# No package of OpenStack is to make a database, a user or an endpoint: peers do.
"${as_root[@]}" debconf-set-selections <<-'D'
	keystone keystone/configure_db boolean false
	keystone keystone/create-admin-tenant boolean false
	keystone keystone/register-endpoint boolean false
	cinder-common cinder/configure_db boolean false
	cinder-common cinder/configure_rabbit boolean false
	cinder-common cinder/configure_ksat boolean false
	cinder-api cinder/configure_api-endpoint boolean false
	cinder-api cinder/register-endpoint boolean false
	glance-common glance/configure_db boolean false
	glance-common glance/configure_rabbit boolean false
	glance-common glance/configure_ksat boolean false
	glance-api glance/configure_api-endpoint boolean false
	glance-api glance/register-endpoint boolean false
D
# The package lists may be missing (fresh container) or too old to download from.
if ! apt-cache show "${missing[@]}" >/dev/null 2>&1 ||
	! apt install --no-install-recommends "${missing[@]}"; then
	apt update
	apt install --no-install-recommends "${missing[@]}"
fi
# A machine with systemd would start them at its next boot, tgtd on the port that
# ovgate uses. Only where this run brought the package.
for p in tgt keystone memcached swift-proxy swift-account swift-container swift-object cinder-api cinder-scheduler cinder-volume cinder-backup glance-api ceph-mon ceph-mgr ceph-osd ceph-base; do
	if [[ " ${missing[*]} " == *" $p "* ]] && command -v systemctl >/dev/null; then
		mapfile -t units < <(dpkg -L "$p" | sed -n 's|.*/systemd/system/\([^/@]*\.service\)$|\1|p')
		[ ${#units[@]} -eq 0 ] || "${as_root[@]}" systemctl disable "${units[@]}" >/dev/null 2>&1 || true
	fi
done
"$here/guest/image" >/dev/null || { apt update && "$here/guest/image" >/dev/null; }
"${disk[@]:-true}" >/dev/null
echo "setup: done"
