// Package debian holds what the Debian package of ovgate is made of (nfpm.yaml,
// scripts/package), and the test that installs it.
//
//	fresh Debian 12 with systemd (root), in a container without a network
//	  install the version before → runs, as its user, within its limits → a vDisk is written
//	  hang → systemd's watchdog starts it anew → upgrade → remove → purge → install
//	  after each the vDisk has what was written
//
// # Invariants
//
//	P1  No maintainer script touches data: /var/lib/ovgate, and directories of vPools and
//	    devices, outlive a purge.
//	P2  A removal and an upgrade stop the node in order, which commits its vDisks.
//	P3  The same tree gives the same package.
package debian
