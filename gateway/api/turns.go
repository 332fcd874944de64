package api

import (
	"cmp"
	"strconv"
	"sync/atomic"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/observe"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/iscsi"
	"github.com/openvstorage/ovgate/volumedriver/volume"
)

// The feed looks at states every second; what turned since the look before is an event.

// diskState is what is told of a vDisk's state.
type diskState struct {
	state volume.State
	dtl   volume.DTLState
	peer  string
}

// wrong names a cause of health.
type wrong struct{ code, object string }

func (s *Server) tell(code event.Code, object string, fields ...string) {
	if s.opt.Events != nil {
		s.opt.Events.Tell(code, object, fields...)
	}
}

// turned tells what became of an open vDisk; was is zero when it was not open before.
func (f *feed) turned(r control.Running, was diskState) {
	v, ok := f.s.opt.Model.VDisk(r.ID)
	if !ok {
		return
	}
	object := "vdisk " + v.Name
	if now := r.Stats.State; now != was.state {
		switch now {
		case volume.StateDegraded:
			f.s.tell(event.VDiskDegraded, object)
		case volume.StateStalled:
			f.s.tell(event.VDiskStalled, object)
		case volume.StateFailed:
			f.s.tell(event.VDiskFailed, object)
		case volume.StateRunning:
			if was.state == volume.StateDegraded || was.state == volume.StateStalled {
				f.s.tell(event.VDiskOnline, object)
			}
		}
	}
	if now := r.Stats.DTL; now.State != was.dtl {
		switch {
		case now.State == volume.DTLDegraded:
			f.s.tell(event.DTLDegraded, object, "reason", cmp.Or(now.Err, "no other node takes it"))
		case now.State == volume.DTLOK && was.dtl != "":
			f.s.tell(event.DTLSynced, object, "node", f.s.opt.Control.NodeName(now.Peer))
		}
	}
}

// tellSession tells of a session that came or went; discovery is not worth it.
func (f *feed) tellSession(code event.Code, i iscsi.SessionInfo) {
	if i.Target != "" {
		f.s.tell(code, "target "+i.Target, "initiator", i.Initiator, "address", i.Remote)
	}
}

// causes tells what health says since the last look, and what it does not say any more. While
// there are more causes than it shows, none is over for sure.
func (f *feed) causes(h observe.Health) {
	now := make(map[wrong]observe.Cause, len(h.Causes))
	all := true
	for _, c := range h.Causes {
		if c.Code == observe.MoreCauses {
			all = false
			continue
		}
		key := wrong{c.Code, c.Object}
		now[key] = c
		if was, known := f.wrong[key]; !known || was.State != c.State {
			code := event.HealthWarning
			if c.State == observe.Bad {
				code = event.HealthError
			}
			f.s.tell(code, f.causeObject(c), "cause", c.Code, "text", c.Text, "hint", c.Hint)
		}
	}
	for key, c := range f.wrong {
		if _, still := now[key]; still {
			continue
		}
		if !all {
			now[key] = c
			continue
		}
		f.s.tell(event.HealthCleared, f.causeObject(c), "cause", c.Code, "text", c.Text)
	}
	f.wrong = now
}

// causeObject is what a cause is about; without an object it is the node.
func (f *feed) causeObject(c observe.Cause) string {
	return cmp.Or(c.Object, "node "+f.s.opt.NodeName)
}

// Stream returns what passes events of the history of a node, by its name, to the event streams.
func Stream(hub *observe.Hub, node string) func(event.Event) {
	var count atomic.Uint64 // those that are not written have no number
	return func(e event.Event) {
		hub.Changed("event", strconv.FormatUint(count.Add(1), 10), func() observe.News { return observe.News{Name: "event", Object: eventOf(e, node)} })
	}
}
