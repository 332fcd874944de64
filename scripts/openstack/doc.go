// Package openstack tests ovgate as an OpenStack administrator meets it: Debian's Cinder,
// Keystone and Glance with our volume driver in front of the real binary.
//
//	gophercloud, openstack, cinder ──► Cinder ──► driver ──┬─► door ──► n1 ──┬─► vPool fast  (alba)
//	      our initiator ◄── connection info                 └─► door ──► n2 ──┴─► vPool plain (alba)
//
// Volumes are written and read through their LUN, with what Cinder tells a host of it.
// Two doors, addresses that lead to the nodes of a cluster and can be shut, are the API
// endpoints of the driver. They count what passes, so that faults come in the middle of an
// operation. With OVGATE_CINDER_NODES=1 both lead to one node, whose vPool plain is on a local
// directory; and so they do where hosts are virtual machines.
//
// The package has no code of its own; see the tests. They need root's Debian packages
// (scripts/setup.sh) and are skipped without, unless CI=true.
package openstack
