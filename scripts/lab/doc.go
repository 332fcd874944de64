// Package lab is a cluster of ovgate nodes in network namespaces of one machine: what
// scripts/cluster gives people to try, and what the cluster drills break. It needs root and
// iproute2.
//
//	            PREFIX-client: bridge br0, 10.213.0.1
//	  ┌───────────┬───────────┬────────────┬───────────────┐  veth pairs
//	PREFIX-n1   PREFIX-n2   PREFIX-n3    PREFIX-etcd1    PREFIX-s3
//	.11         .12         .13          .101            .201
//
// A node has its data directory and shares no file system with others: the registry is in
// the etcd members, the vPool "lab" on the S3 peer. Hosts, who sign in over iSCSI, are in
// the namespace of the bridge. With Options.Alba there is no S3 peer: the vPool is on the Alba
// of the nodes, over two devices beside the data directory of each; with Options.Storage its
// devices are on machines of their own, storage1, ... at .61, ..., where an `ovgate asd` serves
// each. No namespace has a way out: nothing reaches this machine's own network.
//
// Links. A cut link loses everything silently: both ends send to a hardware address that
// nobody has. A slow or lossy one leads through a pair of TUN devices, between which a
// process holds packets back, or drops them (wire.go), because not every kernel has netem.
//
// # Invariants
//
//	N1  Everything made is in the directory, or in namespaces whose prefix follows from its
//	    path, so that Down finds it after any crash.
//	N2  Down ends the processes of these namespaces and no others.
//	N3  A directory that is not empty and not a lab's is refused, and never removed.
package lab
