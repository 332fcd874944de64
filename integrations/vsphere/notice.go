package vsphere

import (
	"context"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// noticeMax bounds the text of an event, in bytes.
const noticeMax = 1000

// Notice is what a vCenter is to have in its events.
type Notice struct {
	Datastore *Datastore // nil: it is not there
	At        time.Time
	Text      string
}

// Post has the vCenter keep an event. ErrDenied: the user lacks Global.LogEvent.
func (c *Center) Post(ctx context.Context, n Notice) error {
	m := c.client.ServiceContent.EventManager
	if m == nil {
		return explain("post an event", ErrRefused)
	}
	text := n.Text[:min(len(n.Text), noticeMax)]
	e := &types.GeneralUserEvent{GeneralEvent: types.GeneralEvent{Event: types.Event{CreatedTime: n.At, UserName: c.opt.User, FullFormattedMessage: text}, Message: text}}
	if d := n.Datastore; d != nil {
		name := types.EntityEventArgument{Name: d.Name}
		e.Ds = &types.DatastoreEventArgument{EntityEventArgument: name, Datastore: d.ref}
		e.Entity = &types.ManagedEntityEventArgument{EntityEventArgument: name, Entity: d.ref}
	}
	_, err := methods.PostEvent(ctx, c.client, &types.PostEvent{This: *m, EventToPost: e})
	return explain("post an event", err)
}
