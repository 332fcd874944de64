// Package cluster is what nodes know of each other: gossip that says who seems to be alive,
// a lease in the registry that says who may serve, certificates that say who is a node, and
// tokens that let one join. gateway/node runs all of it, for each node; who is a member is
// said by the records of nodes in gateway/model.
//
// # Record
//
//	cluster/record       {"format":1,"id":UUID,"name":...,"ca":PEM,"caKey":sealed,"gossipKey":sealed,"created":...}
//
// Secrets are sealed with the key that every node has. The authority was that of the first
// node, so its clients go on trusting what they trusted.
//
// # Gossip
//
// memberlist, one UDP and TCP port, AES-256-GCM with the cluster's key, every packet and
// stream labelled with the cluster's id, so that of two clusters neither hears the other.
// What a node tells of itself fits into 512 bytes:
//
//	{"n":name,"v":version,"f":format of records,"a":API host:port,"l":{"d":vDisks,"c":CPU %,"m":memory %,"j":journal %},"x":leaving}
//
// A node that does not answer is suspected, others are asked (Lifeguard: a node that is slow
// itself waits longer before it blames), and after a few seconds it is dead.
//
// # Lease
//
//	cluster/alive/NODE   {"format":1,"boot":...}, bound to the node's only lease
//
// # Join
//
//	cluster/token/ID     {"format":1,"hash":sha-256 of the secret,"created":...,"expires":...,"used":NODE}
//
//	token: "ovgate-join." + base64 of {"i":id,"s":secret,"c":cluster,"f":sha-256 of the CA,"u":[URL]}
//
// A node connects to one of the URLs and sends nothing before the server has shown the
// authority of the token and a certificate for its address that it signed. Then it sends
// token, id, name, version, clock and a request for its certificate, and gets a certificate
// whose only name is ovgate://CLUSTER/NODE, the sealing key and the registry's place. Its
// record in gateway/model and the use of the token are one change.
//
// # Invariants
//
//	L1  Gossip is a hint. Nothing is taken over and nothing is served because of it.
//	L2  A node may serve by its lease until the time to live has passed since it asked for
//	    the renewal that was answered last, on the monotonic clock. The registry counts
//	    from when it got the request, which is later: the key goes after the node stopped.
//	L3  Of two processes with one node's id, the newer one has the key. The older one sees
//	    that at its next renewal, and never renews again.
//	L4  Who takes over from a node waits TakeoverWait after the key went: clocks may run at
//	    rates that differ by 10 %, and a lease may have LeaseMost.
//	L5  A token lets one node in. Refusals use up nothing, and the registry does not hold
//	    what would let its reader in. The node that used it may ask again until it expires,
//	    unless it was removed.
//	L6  Between nodes each side knows which node the other one is, by certificate. An
//	    address proves nothing, nor does a certificate of a node that was removed.
//	L7  A lease that was not renewed in time may have ended, and others may have taken over
//	    what was served by it. A new one is of a new term: who served by the former looks
//	    again what is his, in the registry, before he serves by it.
package cluster
