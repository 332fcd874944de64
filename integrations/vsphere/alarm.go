package vsphere

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// AlarmName is what the alarm definition is called that follows the health of datastores.
const AlarmName = "ovgate: health of a datastore"

// alarmText begins the description of a definition that is ours: one of the same name without it
// is somebody else's.
const alarmText = "Made by ovgate, and removed with its last datastore."

// Health is how a datastore is, as its alarm shows it.
type Health string

// Health of datastores, with the status of the alarm.
const (
	HealthOK       Health = "ok"       // it is cleared
	HealthDegraded Health = "degraded" // yellow
	HealthCritical Health = "critical" // red
)

// statusOf are the statuses of the alarm, by the event that sets them.
var statusOf = []struct {
	is     Health
	status types.ManagedEntityStatus
	level  types.EventEventSeverity
}{
	{HealthCritical, types.ManagedEntityStatusRed, types.EventEventSeverityError},
	{HealthDegraded, types.ManagedEntityStatusYellow, types.EventEventSeverityWarning},
	{HealthOK, types.ManagedEntityStatusGreen, types.EventEventSeverityInfo},
}

// event is the type of the event that tells of a health. Nobody else posts it, so that the alarm
// is none of other datastores, although it is defined at the root.
func (h Health) event() string { return "io.ovgate.datastore." + string(h) }

// alarmSpec is the definition. It does nothing but show a status.
func alarmSpec() *types.AlarmSpec {
	or := &types.OrAlarmExpression{}
	for _, s := range statusOf {
		or.Expression = append(or.Expression, &types.EventAlarmExpression{EventType: "EventEx", EventTypeId: s.is.event(), ObjectType: datastoreKind, Status: s.status})
	}
	return &types.AlarmSpec{Name: AlarmName, Description: alarmText + " Its status follows the health that ovgate tells of the datastore.", Enabled: true, Expression: or, Setting: &types.AlarmSetting{}}
}

// alarm finds the definition. ErrExists: somebody else's has its name; ErrNotFound: there is none.
func (c *Center) alarm(ctx context.Context, manager types.ManagedObjectReference) (types.ManagedObjectReference, error) {
	none := types.ManagedObjectReference{}
	res, err := methods.GetAlarm(ctx, c.client, &types.GetAlarm{This: manager, Entity: &c.client.ServiceContent.RootFolder})
	if err != nil {
		return none, err
	}
	if len(res.Returnval) == 0 {
		return none, ErrNotFound
	}
	what := types.PropertyFilterSpec{PropSet: []types.PropertySpec{{Type: "Alarm", PathSet: []string{"info"}}}}
	for _, ref := range res.Returnval {
		what.ObjectSet = append(what.ObjectSet, types.ObjectSpec{Obj: ref})
	}
	found, problem := none, ErrNotFound
	err = c.retrieve(ctx, what, func(objects []types.ObjectContent) error {
		for _, o := range objects {
			v, err := mo.ObjectContentToType(o)
			a, ok := v.(mo.Alarm)
			if err != nil || !ok || a.Info.Name != AlarmName {
				continue // one that is being removed, or not to be seen
			}
			if found, problem = a.Self, nil; !strings.HasPrefix(a.Info.Description, alarmText) {
				found, problem = none, fmt.Errorf("%w: an alarm of this name that ovgate did not make", ErrExists)
			}
		}
		return nil
	})
	return found, errors.Join(err, problem)
}

// EnsureAlarm makes the definition, unless it is there. ErrExists: somebody else's has its name,
// and is left alone; ErrDenied: the user lacks Alarm.Create.
func (c *Center) EnsureAlarm(ctx context.Context) error {
	what := fmt.Sprintf("alarm %q", AlarmName)
	manager := c.client.ServiceContent.AlarmManager
	if manager == nil {
		return fmt.Errorf("%s: %w: there are none", what, ErrRefused)
	}
	if _, err := c.alarm(ctx, *manager); !errors.Is(err, ErrNotFound) {
		return explain(what, err)
	}
	_, err := methods.CreateAlarm(ctx, c.client, &types.CreateAlarm{This: *manager, Entity: c.client.ServiceContent.RootFolder, Spec: alarmSpec()})
	if err = explain(what, err); errors.Is(err, ErrExists) { // another job made it meanwhile, or somebody
		_, err = c.alarm(ctx, *manager)
		return explain(what, err)
	}
	return err
}

// RemoveAlarm removes the definition, and with it what it shows. What is not there is no error,
// nor one that is somebody else's.
func (c *Center) RemoveAlarm(ctx context.Context) error {
	what := fmt.Sprintf("alarm %q", AlarmName)
	manager := c.client.ServiceContent.AlarmManager
	if manager == nil {
		return nil
	}
	ref, err := c.alarm(ctx, *manager)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) {
		return nil
	}
	if err == nil {
		_, err = methods.RemoveAlarm(ctx, c.client, &types.RemoveAlarm{This: ref})
	}
	if err = explain(what, err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// PostHealth tells of the health of a datastore by the event that its alarm follows.
func (c *Center) PostHealth(ctx context.Context, d *Datastore, h Health, n Notice) error {
	m := c.client.ServiceContent.EventManager
	if m == nil {
		return explain("post an event", ErrRefused)
	}
	text, name := n.Text[:min(len(n.Text), noticeMax)], types.EntityEventArgument{Name: d.Name}
	e := &types.EventEx{
		Event: types.Event{
			CreatedTime: n.At, UserName: c.opt.User, FullFormattedMessage: text, Ds: &types.DatastoreEventArgument{EntityEventArgument: name, Datastore: d.ref},
		},
		EventTypeId: h.event(), Message: text, ObjectId: d.ref.Value, ObjectType: datastoreKind, ObjectName: d.Name,
	}
	for _, s := range statusOf {
		if s.is == h {
			e.Severity = string(s.level)
		}
	}
	_, err := methods.PostEvent(ctx, c.client, &types.PostEvent{This: *m, EventToPost: e})
	return explain("post an event", err)
}
