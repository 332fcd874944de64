package vsphere

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// tags signs in to the part of the vCenter that has tags.
func (l *lab) tags() *tags.Manager {
	l.t.Helper()
	c, err := l.v.Client(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	r := rest.NewClient(c.Client)
	if err := r.Login(l.t.Context(), url.UserPassword(l.v.User(), l.v.Password())); err != nil {
		l.t.Fatal(err)
	}
	return tags.NewManager(r)
}

// attribute is the value of ovgate's custom attribute of a datastore; empty: none.
func (l *lab) attribute(name string) (string, types.ManagedObjectReference) {
	l.t.Helper()
	f, _ := l.admin("")
	d, err := f.Datastore(l.t.Context(), "/DC0/datastore/"+name)
	if err != nil {
		l.t.Fatal(err)
	}
	fields, err := object.GetCustomFieldsManager(d.Client())
	if err != nil {
		l.t.Fatal(err)
	}
	key, err := fields.FindKey(l.t.Context(), vsphere.Attribute)
	if errors.Is(err, object.ErrKeyNameNotFound) {
		return "", d.Reference()
	}
	var now mo.Datastore
	if err == nil {
		err = d.Properties(l.t.Context(), d.Reference(), []string{"customValue"}, &now)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	for _, v := range now.CustomValue {
		if s, ok := v.(*types.CustomFieldStringValue); ok && s.Key == key {
			return s.Value, d.Reference()
		}
	}
	return "", d.Reference()
}

// TestMarks: a datastore carries its vDisk and its vPool at the vCenter, also after these were
// renamed. What it may not be given is a warning, and a category of tags that is somebody
// else's is left alone.
func TestMarks(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 1})
	m := l.tags()
	theirs, err := m.CreateCategory(t.Context(), &tags.Category{Name: vsphere.Category, Description: "of somebody", Cardinality: "MULTIPLE"})
	if err != nil {
		t.Fatal(err)
	}
	l.v.Before(func(c esxsim.Call) types.BaseMethodFault {
		if c.Method == "SetField" {
			return &types.NoPermission{PrivilegeId: "Global.SetCustomField"}
		}
		return nil
	})
	l.create("gold")
	d := l.settled("gold")
	if d.State != "present" || len(d.Warnings) != 2 || !strings.Contains(d.Warnings[0], "not allowed") || !strings.Contains(d.Warnings[1], "ovgate did not make") {
		t.Errorf("it is %s with the warnings %q", d.State, d.Warnings)
	}
	if list, err := m.ListTagsForCategory(t.Context(), theirs); err != nil || len(list) != 0 {
		t.Errorf("somebody's category has the tags %v, %v", list, err)
	}

	l.v.Before(nil)
	if err := m.DeleteCategory(t.Context(), &tags.Category{ID: theirs}); err != nil {
		t.Fatal(err)
	}
	if err := client.Done(l.api.AttachDatastore(t.Context(), "gold")); err != nil {
		t.Fatal(err)
	}
	carries := func(name, vdisk string, pool ...string) {
		t.Helper()
		l.until(fmt.Sprintf("carrying %s, %q", vdisk, pool), func() error {
			value, ref := l.attribute(name)
			want := fmt.Sprintf("vDisk %s (%s), vPool %s, node ", vdisk, d.VDisk, pool[len(pool)-1])
			if !strings.HasPrefix(value, want) {
				return fmt.Errorf("the attribute is %q, not %q", value, want)
			}
			attached, err := m.GetAttachedTags(t.Context(), ref)
			if err != nil {
				return err
			}
			if len(attached) != 1 || attached[0].Name != pool[len(pool)-1] {
				return fmt.Errorf("the tags are %+v", attached)
			}
			return nil
		})
	}
	carries("gold", "gold", pool)
	if d := l.settled("gold"); len(d.Warnings) != 0 {
		t.Errorf("the warnings are %q", d.Warnings)
	}

	// Names change, with the vCenter away at first; a second datastore shares the tag.
	l.create("tin")
	l.settled("tin")
	l.v.Stop()
	if _, err := client.Get[client.VDisk](l.api.UpdateVDisk(t.Context(), "gold", client.VDiskPatch{Name: new("silver")})); err != nil {
		t.Fatal(err)
	}
	if err := l.v.Resume(); err != nil {
		t.Fatal(err)
	}
	m = l.tags()
	carries("gold", "silver", pool)
	l.settled("gold")
	if err := client.Done(l.api.RenameDatastore(t.Context(), "gold", client.RenameInput{Name: "iron"})); err != nil {
		t.Fatal(err)
	}
	l.settled("iron")
	carries("iron", "silver", pool)
	if _, err := client.Get[client.VPool](l.api.UpdateVPool(t.Context(), pool, client.VPoolPatch{Name: new("faster")})); err != nil {
		t.Fatal(err)
	}
	carries("iron", "silver", "faster")
	category, err := m.GetCategory(t.Context(), vsphere.Category)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := m.GetTagsForCategory(t.Context(), category.ID); err != nil || len(list) != 1 {
		t.Errorf("the tags are %+v, %v", list, err)
	}

	// The tag stays for the other one.
	l.settled("iron")
	if err := l.remove("iron"); err != nil {
		t.Fatal(err)
	}
	l.gone("iron")
	l.settled("tin")
	list, err := m.GetTagsForCategory(t.Context(), category.ID)
	if err != nil || len(list) != 1 {
		t.Fatalf("the tags are %+v, %v", list, err)
	}
	_, tin := l.attribute("tin")
	refs, err := m.ListAttachedObjects(t.Context(), list[0].ID)
	if err != nil || !slices.ContainsFunc(refs, func(r mo.Reference) bool { return r.Reference() == tin }) {
		t.Errorf("the tag is at %v, %v", refs, err)
	}
}
