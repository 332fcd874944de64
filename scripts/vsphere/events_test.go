package vsphere

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// heard is what a vCenter was told in its events.
type heard struct {
	mu  sync.Mutex
	all []types.GeneralUserEvent
}

func (h *heard) before(c esxsim.Call) types.BaseMethodFault {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch r := c.Body.(type) {
	case *types.PostEvent:
		if e, ok := r.EventToPost.(*types.GeneralUserEvent); ok {
			h.all = append(h.all, *e)
		}
	case *types.CreateSnapshot_Task:
		return &types.GenericVmConfigFault{Reason: "no tools"}
	}
	return nil
}

// find returns an event with words; nil: there is none.
func (h *heard) find(words string) *types.GeneralUserEvent {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.all {
		if strings.Contains(e.Message, words) {
			return &e
		}
	}
	return nil
}

// TestEvents: the vCenter has in its events, at the datastore, what its administrator has to
// know; unless that is switched off. Who may not write events is told so.
func TestEvents(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 2})
	l.create("gold")
	l.settled("gold")
	l.createVM("db", "gold")
	_, db := l.admin("db")
	l.done(db.PowerOn(t.Context()))
	h := &heard{}
	l.v.Before(h.before)
	fails := func(name string) {
		t.Helper()
		if s := l.snapshot(name, true); s.Failed == "" {
			t.Errorf("%s went %+v", name, s)
		}
	}
	until := func(words string) *types.GeneralUserEvent {
		t.Helper()
		var e *types.GeneralUserEvent
		l.until("told "+words, func() error {
			if e = h.find(words); e == nil {
				return errors.New("it is not told")
			}
			return nil
		})
		return e
	}
	fails("one")
	f, _ := l.admin("")
	gold, err := f.Datastore(t.Context(), "/DC0/datastore/gold")
	if err != nil {
		t.Fatal(err)
	}
	if e := until("snapshot one was not made"); e.Ds == nil || e.Ds.Datastore != gold.Reference() || e.Ds.Name != "gold" || !strings.Contains(e.Message, "datastore gold") || !strings.Contains(e.Message, "GenericVmConfigFault") {
		t.Errorf("the event is %+v", e)
	}
	options := func(o client.CenterOptionsInput) client.Center {
		t.Helper()
		r, err := client.Get[client.CenterResult](l.api.UpdateCenter(t.Context(), "dc", client.CenterPatch{Options: &o}))
		if err != nil {
			t.Fatal(err)
		}
		return r.Center
	}
	if c := options(client.CenterOptionsInput{Events: new(false)}); c.Options.Events {
		t.Errorf("it is %+v", c)
	}
	fails("two")
	l.v.SetLacking("Global.LogEvent")
	c := options(client.CenterOptionsInput{Events: new(true)})
	if !c.Options.Events || !strings.Contains(fmt.Sprint(c.Warnings), "lacks Global.LogEvent") {
		t.Errorf("it is %+v", c)
	}
	fails("three")
	until("snapshot three was not made")
	if e := h.find("snapshot two"); e != nil {
		t.Errorf("switched off it is told %+v", e)
	}
}
