// Package esxsim is a vCenter, or an ESXi host alone, for tests: govmomi's simulator with
// the block storage that it lacks. Its hosts really log in to the iSCSI target under test.
//
//	HostStorageSystem.RescanAllHba ─► discovery, login to every portal, REPORT LUNS,
//	                                  INQUIRY, READ CAPACITY, a COMPARE AND WRITE
//	HostStorageSystem.RescanVmfs   ─► reads the volume header of each LUN, mounts
//	CreateVmfsDatastore            ─► lock by COMPARE AND WRITE, WRITE SAME, UNMAP, header
//	Host.ReadAt, Host.WriteAt      ─► what a virtual machine does
//
// A volume, in bytes from the start of the LUN:
//
//	1 MiB           header: JSON, NUL up to 4096 bytes
//	1 MiB + 64 KiB  lock: one block, the initiator name of who holds it, else zeros
//	1 MiB + 128 KiB scratch: what WRITE SAME and UNMAP are tried on
//	16 MiB          what virtual machines wrote
//
// Invariants
//  1. A LUN is there only if it answered, and a datastore only on hosts that read its
//     header through their own session.
//  2. A header names the disk that it was written for. On another disk it is a copy,
//     which has to be resignatured.
//  3. Sessions stay. One that ends is opened again by itself, and its paths are dead until
//     then, as on a real host. With a heartbeat the states of paths follow by themselves.
//  4. Locks are taken in this order: the simulator's of a host's storage system, Fabric.mu,
//     the simulator's of a host. Targets are asked without Fabric.mu, so that hosts rescan
//     side by side.
//
// What goes wrong: Before has calls of clients fail, Options.Between makes the target a liar,
// Options.Reach cuts hosts off portals; HoldSnapshot has a task take its time, Answering an answer; SetDown, SetMaintenance, Stop and ExpireSessions.
//
// It proves what ovgate asks of hosts and how its target answers. It is no proof of VMFS
// itself: see the runbook in integrations/vsphere/README.md for a real host.
package esxsim
