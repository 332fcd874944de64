package vsphere

import (
	"fmt"
	"strings"
	"testing"

	"github.com/vmware/govmomi/alarm"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// alarms signs in as another administrator.
func (l *lab) alarms() (*alarm.Manager, *vim25.Client) {
	l.t.Helper()
	c, err := l.v.Client(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	m, err := alarm.GetManager(c.Client)
	if err != nil {
		l.t.Fatal(err)
	}
	return m, c.Client
}

// defined are the descriptions of the alarm definitions of ovgate's name.
func (l *lab) defined() (out []string) {
	l.t.Helper()
	m, c := l.alarms()
	all, err := m.GetAlarm(l.t.Context(), object.NewRootFolder(c))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, a := range all {
		if a.Info.Name == vsphere.AlarmName {
			out = append(out, a.Info.Description)
		}
	}
	return out
}

// triggered is the status of alarms that a datastore has; empty: none.
func (l *lab) triggered(name string) types.ManagedEntityStatus {
	l.t.Helper()
	f, _ := l.admin("")
	d, err := f.Datastore(l.t.Context(), "/DC0/datastore/"+name)
	if err != nil {
		l.t.Fatal(err)
	}
	var now mo.Datastore
	if err := d.Properties(l.t.Context(), d.Reference(), []string{"triggeredAlarmState"}, &now); err != nil {
		l.t.Fatal(err)
	}
	if len(now.TriggeredAlarmState) == 0 {
		return ""
	}
	return now.TriggeredAlarmState[0].OverallStatus
}

// TestAlarm: the alarm definition comes with the first datastore and goes with the last, and that
// of somebody else is left alone; a datastore whose health is degraded has the alarm, another one
// has not, until it is over.
func TestAlarm(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 1})
	m, c := l.alarms()
	theirs, err := m.CreateAlarm(t.Context(), object.NewRootFolder(c), &types.AlarmSpec{Name: vsphere.AlarmName, Description: "of somebody", Expression: &types.OrAlarmExpression{}})
	if err != nil {
		t.Fatal(err)
	}
	l.create("gold")
	if d := l.settled("gold"); len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "ovgate did not make") {
		t.Errorf("beside somebody's alarm it has the warnings %q", d.Warnings)
	}
	if got := l.defined(); len(got) != 1 || got[0] != "of somebody" {
		t.Errorf("the definitions are %q", got)
	}
	if _, err := methods.RemoveAlarm(t.Context(), c, &types.RemoveAlarm{This: *theirs}); err != nil {
		t.Fatal(err)
	}
	attach := func() client.Datastore {
		t.Helper()
		if _, err := client.Get[client.Datastore](l.api.AttachDatastore(t.Context(), "gold")); err != nil {
			t.Fatal(err)
		}
		return l.settled("gold")
	}
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if c.Method == "CreateAlarm" {
			return &types.NoPermission{PrivilegeId: "Alarm.Create"}
		}
		return nil
	})
	if d := attach(); len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "not allowed") {
		t.Errorf("without the privilege it has the warnings %q", d.Warnings)
	}
	l.v.Before(nil)
	l.v.SetLacking("Alarm.Create")
	if r, err := client.Get[client.CenterResult](l.api.TestCenter(t.Context(), "dc")); err != nil || !strings.Contains(fmt.Sprint(r.Center.Warnings), "lacks Alarm.Create: datastores have no alarm") {
		t.Errorf("without the privilege the vCenter has the warnings %q %v", r.Center.Warnings, err)
	}
	l.v.SetLacking()
	if d := attach(); len(d.Warnings) != 0 {
		t.Errorf("it has the warnings %q", d.Warnings)
	}
	l.create("tin")
	l.settled("tin")
	if got := l.defined(); len(got) != 1 || !strings.HasPrefix(got[0], "Made by ovgate") {
		t.Errorf("the definitions are %q", got)
	}

	// A job that does not get on is a warning of health.
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if c.Method == "ExpandVmfsDatastore" {
			return &types.HostConfigFault{}
		}
		return nil
	})
	if _, err := client.Get[client.Datastore](l.api.ExpandDatastore(t.Context(), "gold", client.ExpandInput{Size: 3 * gib})); err != nil {
		t.Fatal(err)
	}
	shows := func(want types.ManagedEntityStatus) {
		t.Helper()
		l.until(fmt.Sprintf("shown as %q", want), func() error {
			if got := l.triggered("gold"); got != want {
				return fmt.Errorf("it is %q", got)
			}
			return nil
		})
	}
	shows(types.ManagedEntityStatusYellow)
	if got := l.triggered("tin"); got != "" {
		t.Errorf("the other datastore is %q", got)
	}
	l.v.Before(nil)
	l.settled("gold")
	shows("")

	for i, name := range []string{"tin", "gold"} {
		if err := l.remove(name); err != nil {
			t.Fatal(err)
		}
		l.gone(name)
		if got := l.defined(); len(got) != 1-i {
			t.Errorf("without %s the definitions are %q", name, got)
		}
	}
}
