// Package vsphere registers vCenters and makes VMFS datastores on vDisks. It decides what
// is done and when, and keeps that in the model; integrations/vsphere does it at a vCenter
// and its hosts, gateway/control on this node.
//
//	create: vdisk ─► target ─► hosts ─► format ─► mount ─► mark
//	import:           target ─► hosts ─► resignature ─► mount ─► mark
//	attach:                    hosts ───────────► mount ─► mark
//	mark:                                                  mark
//	expand: grow ─► rescan ─► expand ─► verify
//	rename: rename
//	map:              target ─► hosts ─► map            (an RDM disk: see rdm.go)
//	unmap:  take ─► detach ─► unmap ─► forget
//	remove: destroy ─► detach ─► unmap ─► forget ─► vdisk ─► target
//
// A datastore's record holds its job and the step that is next. A step that fails is tried
// again with a growing pause, and the record says why; a restart goes on with it.
//
// A watch keeps which virtual machines are on the datastores, for as long as somebody asks
// for them: one collector of changes per vCenter, opened again when it was away.
//
// Notices are what a vCenter is told in its events: see notice.go.
//
// All datastores of a cluster are LUNs of one shared target, whose group "hosts" has the
// iSCSI names of the hosts, and one CHAP secret.
//
// Invariants
//
//	V1  A refusal changed nothing, here and at the vCenter. A plan changes nothing.
//	V2  A job and its step are stored before anything of it is done, so that a crash loses
//	    none; every step may be repeated.
//	V3  What a job finds at a vCenter is ours only when it lies on the LUN of our vDisk. It
//	    touches nothing else but the send targets of our portals.
//	V4  A vDisk is unmapped only after every host that has the datastore, or that its
//	    vCenter says is connected, has detached it. A host that is away holds a removal up.
//	V5  One job at a time works on a datastore, on the node that its record names: the one
//	    that serves its vDisk. A datastore without a job is nobody's; a job goes to another
//	    node by that record only.
//	V6  A vCenter is asked for at most callsAtOnce things at once. What several jobs want of a
//	    host at the same time is done once, and began after each of them asked (see shares).
//	V7  Passwords and CHAP secrets are sealed in the model and in no answer, event or log.
//	V8  A call that changes something at a vCenter is sent only by the node that has the job,
//	    and by its lease (see permit). One that does harm when it is carried out late is in the
//	    record with how long it takes at most; who takes the job over waits that long.
package vsphere
