package observe

import (
	"fmt"
	"slices"
	"time"
)

// blindWarn is how long a session may see no LUN until it is told: whoever arranges LUNs
// anew is done by then.
const blindWarn = 10 * time.Minute

// LostSession is an iSCSI session that was dropped because its initiator stopped answering,
// and that has not come back.
type LostSession struct {
	Initiator, Target, Address string
	Dropped                    time.Time
}

// BlindSession is an iSCSI session that sees no LUN.
type BlindSession struct {
	Initiator, Target string
	For               time.Duration
}

// SessionsCheck is what is looked at of iSCSI sessions.
type SessionsCheck struct {
	Lost  []LostSession
	Blind []BlindSession
}

// maxInitiators bounds the initiators that have a cause each; of more, one cause tells: what
// takes many hosts away at once is the network, or the power of a rack.
const maxInitiators = 5

// check names initiators, since what is to be looked after is a host.
func (c SessionsCheck) check(add addCause) {
	lost := map[string][]LostSession{}
	for _, l := range c.Lost {
		lost[l.Initiator] = append(lost[l.Initiator], l)
	}
	const hint = "look after that host and the network to it; one that is gone for good: ovgate target acl remove TARGET INITIATOR, else it is told for an hour"
	eachInitiator(lost, func(name string, l []LostSession) {
		add(Warning, "session_lost", "initiator "+name, hint, "Initiator %s at %s stopped answering at %s, and has not come back to %s",
			name, l[0].Address, l[0].Dropped.UTC().Format(time.RFC3339), targetsOf(l, func(v LostSession) string { return v.Target }))
	}, func(names []string) {
		add(Warning, "session_lost", "", hint, "%s stopped answering and have not come back: %s", plural(len(names), "initiator"), some(names))
	})
	blind := map[string][]BlindSession{}
	for _, b := range c.Blind {
		if b.For >= blindWarn {
			blind[b.Initiator] = append(blind[b.Initiator], b)
		}
	}
	const unused = "give it a LUN, or log out at the host; ovgate session list shows the sessions"
	eachInitiator(blind, func(name string, l []BlindSession) {
		add(Warning, "session_unused", "initiator "+name, unused, "Initiator %s is signed in and sees no LUN of %s", name, targetsOf(l, func(v BlindSession) string { return v.Target }))
	}, func(names []string) {
		add(Warning, "session_unused", "", unused, "%s are signed in and see no LUN: %s", plural(len(names), "initiator"), some(names))
	})
}

// eachInitiator calls one for each, or all for too many.
func eachInitiator[T any](by map[string][]T, one func(string, []T), all func([]string)) {
	names := make([]string, 0, len(by))
	for n := range by {
		names = append(names, n)
	}
	slices.Sort(names)
	if len(names) > maxInitiators {
		all(names)
		return
	}
	for _, n := range names {
		one(n, by[n])
	}
}

func targetsOf[T any](l []T, target func(T) string) string {
	var names []string
	for _, v := range l {
		names = append(names, target(v))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 1 {
		return "target " + names[0]
	}
	return fmt.Sprintf("%s (%s)", plural(len(names), "target"), some(names))
}

// TransferCheck is an import or export that moves nothing and is kept from ending.
type TransferCheck struct {
	Name   string // of the vDisk that is there for it
	VDisk  string // that is imported or exported
	Import bool
	Since  time.Time // when something was moved last
}

func (c TransferCheck) check(add addCause) {
	what := "An export"
	if c.Import {
		what = "An import"
	}
	add(Warning, "transfer_idle", "vdisk "+c.VDisk, "let its client go on, or end it: ovgate vdisk delete "+c.Name,
		"%s of vDisk %s has moved nothing since %s, and is kept from ending", what, c.VDisk, c.Since.UTC().Format(time.RFC3339))
}
