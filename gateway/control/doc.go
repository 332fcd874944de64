// Package control makes the node be what the model says: it attaches vPools,
// creates, opens, grows and deletes vDisks, and publishes them over iSCSI.
// gateway/api turns requests into its methods, gateway/node starts and stops it.
//
//	model (what was decided)  ──►  Controller  ──►  Engine    (volumedriver)
//	                                   │
//	                                   └──────►  Frontend  (iscsi)
//
// A method first refuses what cannot be, then stores the decision, then carries
// it out. What a crash or an absent backend left undone is found again by the
// reconciler: one loop that visits the objects that are not yet what the model
// says, each with its own growing pause.
//
// # Invariants
//
//	C1  A refusal (*Error) changed nothing.
//	C2  "deleting" is stored before anything is destroyed, is never undone and is
//	    resumed after a restart; a published vDisk and a vPool with vDisks are
//	    refused before it.
//	C3  One operation at a time works on a vDisk, and on a vPool.
//	C4  A vDisk's IQN, NAA and serial never change once published, through
//	    renames, unpublish and restarts.
//	C5  CHAP secrets are sealed in the model, and plain only in a publish answer,
//	    in the answer of the call that drew them, and in the front end's memory.
//	C6  A vDisk is in the front end only while it is open; it is taken out before
//	    it closes. Its own target comes and goes with it. A shared one is there as
//	    long as its record, with a busy stand-in for each vDisk that is not open.
//	C7  A vDisk or vPool that cannot be opened never keeps the node from starting
//	    or the others from serving.
//	C8  A vDisk that another opening owns (fenced) is not shown here: the sessions
//	    on its own target are dropped, and it is not taken back by itself. Where
//	    every node shows it, a stand-in takes its place (paths.go).
//	C9  A group never sees or admits more than its record says, whatever is away:
//	    what cannot be shown is missing, a secret that does not open is no secret,
//	    a target without its portals is reached nowhere.
//	C10 A vDisk's lock is taken before that of a shared target.
//	C11 What an import or export made goes when that ends without being finished,
//	    also by a crash: its record says so from the beginning.
//	C12 A node works only on vDisks whose record names it, and passes on and answers
//	    operations only while its lease is valid and the records were read in its term
//	    (permit.go).
//
// It does not watch performance (gateway/observe) and knows no users (gateway/auth).
package control
