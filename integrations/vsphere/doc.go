// Package vsphere works with a vCenter, or an ESXi host alone, through govmomi: it signs
// in, prepares hosts for a target, and makes, grows, renames and removes VMFS datastores
// on LUNs. gateway/vsphere decides what is done and when; nothing is kept here.
//
//	Center    a signed-in session; signs in again by itself when that expires
//	Host      an ESXi host: SetTarget, RescanDisks, RescanVolumes, RoundRobin, Detach, Forget
//	Storage   what a host told of its adapter, or of its disks and paths; of many hosts at once
//	RDM       a LUN as a disk of a virtual machine: Machine.AttachRDM, DetachRDM
//	Inventory which virtual machines are on which LUN, kept up to date by Center.Watch
//	Notice    an event of the vCenter, which Center.Post writes; Health one that an alarm follows
//	Datastore a VMFS volume on one LUN: CreateDatastore, Expand, Rename, Destroy; and what it
//	          carries: SetAttribute, SetTag
//
// Order of a removal. Unmapping a LUN that hosts still use is an all-paths-down event,
// from which they recover badly:
//
//	no virtual machines ─► Destroy (or unmount) ─► Detach on every host ─► unmap the LUN
//	─► rescan ─► Forget on every host
//
// Invariants
//  1. Every step looks first and does nothing that is done already, so that it may be
//     repeated after it was cut off at any point.
//  2. A LUN is found by its NAA name alone; a datastore by the LUN that it is on.
//  3. Of a host's settings only send targets at our portals change, with CHAP of their own:
//     adapter-wide settings are other arrays' too. Software iSCSI is switched on, never off.
//  4. A certificate is trusted because its SHA-256 is the one that is known, and nobody is
//     sent a password before that was compared.
//  5. Secrets are in no error. Answers, lists and waits are bounded.
//  6. What changes something is sent with the permit of who asked for it alone, if that is
//     wanted: see Permit.
//
// esxsim is the vCenter of the tests.
package vsphere
