package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// needCinder is the free space that the set cinder asks for: six ASDs, the services' state
// and MariaDB's.
const needCinder = 4 << 30

// cinderRows are the rows of the set cinder. Their rates are small: they are per 1000 s.
var cinderRows = []goRow{
	{name: "cinder volumes created, attached, snapshotted, detached, deleted", metric: "volumes/s", unit: "1/1000 s", scale: 1000, peer: "volumes/s-fake", peerName: "Cinder's fake driver", goal: 0.7,
		config: "Debian's Cinder, API, scheduler and volume services in one process, on MariaDB with its defaults (each transaction synced), Keystone; 200 volumes by 20 workers in 5 rounds of 40, driver and fake driver in turns, medians; ovgate serve, vPool on a local directory"},
}

// cinderPrograms are those of Debian's packages that scripts/setup.sh cinder installs.
var cinderPrograms = []string{"cinder-manage", "keystone-manage", "glance-api", "openstack", "mariadbd"}

// measureCinder runs the benchmark of many volumes, with its own node, where the services
// are installed.
func measureCinder(ctx context.Context, dir string, r *results) error {
	for _, p := range cinderPrograms {
		if _, err := exec.LookPath(p); err != nil || os.Getuid() != 0 {
			fmt.Println("bench: the set cinder is left out, as this is not root, or the packages of scripts/setup.sh cinder are not installed")
			return nil
		}
	}
	fmt.Println("bench: volumes of Cinder")
	var err error
	r.cinder, err = goBench(ctx, "./scripts/openstack", dir, "BenchmarkMany", "1x",
		"TMPDIR="+dir, "CI=true", "OVGATE_CINDER_DATABASE=mariadb", "OVGATE_CINDER_NODES=1")
	return err
}
