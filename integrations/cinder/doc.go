// Package cinder is what ovgate is to OpenStack Cinder. driver/ holds the Python
// volume driver that cinder-volume loads; this package carries it, installs it
// where a Python finds it, writes the section of cinder.conf that loads it, and
// works with a cloud's Keystone and Cinder: checks, volume types, QoS specs, and
// which volume is which vDisk.
//
//	DIR/ovgate_cinder/          DIR: of a Python's path
//	├── __init__.py             says that the folder is ovgate's
//	└── *.py                    as they are in driver/ovgate_cinder
//
//	what                 is whose                            found in
//	pool HOST@SECTION#P  ovgate's with this location_info    scheduler-stats/get_pools
//	volume type, QoS     of the ovgate in ovgate:managed     types, qos-specs
//	vDisk                of volume ID in label cinder-volume, named volume-NAMEID
//
// Invariants
//  1. Installing and removing touch only a folder that __init__.py marks as
//     ovgate's, and in it only *.py and what Python compiled. __init__.py is
//     written first and removed last, so that either can be repeated after it was
//     cut off.
//  2. A file is replaced as a whole: a Python that starts meanwhile reads the old
//     one or the new one.
//  3. Of a cloud only volume types and QoS specs are changed that have ovgate's
//     mark, which they get in the request that makes them. A plan with a conflict
//     changes nothing; one that was cut off is gone on with by a new one.
//  4. An orphan was one before and after the other side was asked: what comes or
//     goes meanwhile is none.
//  5. Secrets and tokens are in no error, and go only to hosts of the catalog over
//     TLS, or on loopback. Answers, lists and waits are bounded.
//
// The tests run the driver's tests against a node, the suites that Cinder ships,
// and clouds that answer wrongly. It reads no clock but the one it is given, and
// keeps nothing between calls.
package cinder
