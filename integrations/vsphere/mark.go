package vsphere

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

const (
	// Attribute is the custom attribute of datastores that says what they are on.
	Attribute = "ovgate"
	// Category is the category of tags that name the vPool of a datastore.
	Category = "ovgate-vpool"
	// categoryText begins the description of a category that is ours. One of the same name
	// without it is somebody else's.
	categoryText = "vPools of ovgate: "
	// tagText is before the id of the vPool in the description of a tag.
	tagText = "vPool "
	// datastoreKind is how the API calls a datastore.
	datastoreKind = "Datastore"
)

// SetAttribute gives a datastore a value of the custom attribute, which is defined when it is
// not there. ErrDenied: the user lacks Global.ManageCustomFields or Global.SetCustomField.
func (d *Datastore) SetAttribute(ctx context.Context, value string) error {
	what := fmt.Sprintf("datastore %s: custom attribute %s", d.Name, Attribute)
	manager := d.c.client.ServiceContent.CustomFieldsManager
	if manager == nil {
		return fmt.Errorf("%s: %w: there are none", what, ErrRefused)
	}
	key, err := d.c.attribute(ctx, *manager)
	if err != nil {
		return explain(what, err)
	}
	var now mo.Datastore
	if err := d.c.get(ctx, d.ref, []string{"customValue"}, &now); err != nil {
		return explain(what, err)
	}
	for _, v := range now.CustomValue {
		if s, ok := v.(*types.CustomFieldStringValue); ok && s.Key == key && s.Value == value {
			return nil
		}
	}
	_, err = methods.SetField(ctx, d.c.client, &types.SetField{This: *manager, Entity: d.ref, Key: key, Value: value})
	return explain(what, err)
}

// attribute returns the key of the custom attribute.
func (c *Center) attribute(ctx context.Context, manager types.ManagedObjectReference) (int32, error) {
	for again := false; ; again = true {
		var now mo.CustomFieldsManager
		if err := c.get(ctx, manager, []string{"field"}, &now); err != nil {
			return 0, err
		}
		for _, f := range now.Field {
			if f.Name == Attribute && (f.ManagedObjectType == datastoreKind || f.ManagedObjectType == "") {
				return f.Key, nil
			}
		}
		r, err := methods.AddCustomFieldDef(ctx, c.client, &types.AddCustomFieldDef{This: manager, Name: Attribute, MoType: datastoreKind})
		if err == nil {
			return r.Returnval.Key, nil
		}
		if err = explain("define it", err); again || !errors.Is(err, ErrExists) {
			return 0, err // else somebody defined it meanwhile
		}
	}
}

// SetTag gives a datastore the tag of a vPool, in place of that of another one. The category
// and the tag are made when they are not there, and the tag follows the name of the vPool.
// ErrExists: the category is somebody else's, and nothing is touched.
func (d *Datastore) SetTag(ctx context.Context, vpool, name string) error {
	ctx, cancel := context.WithTimeout(ctx, d.c.opt.Timeout)
	defer cancel()
	if d.c.opt.Permit != nil {
		still, err := d.c.opt.Permit(ctx, d.c.opt.Timeout)
		if err != nil {
			return err
		}
		ctx = context.WithValue(ctx, stillKey{}, still)
	}
	return explainREST(fmt.Sprintf("datastore %s: tag of vPool %s", d.Name, name), d.setTag(ctx, vpool, name))
}

func (d *Datastore) setTag(ctx context.Context, vpool, name string) error {
	r := rest.NewClient(d.c.client)
	r.Client.Client.Transport = limited{d.c.http}
	r.Client.Client.CheckRedirect = d.c.client.Client.Client.CheckRedirect
	if err := r.Login(ctx, url.UserPassword(d.c.opt.User, d.c.opt.Secret)); err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		_ = r.Logout(ctx) // it expires by itself
	}()
	m := tags.NewManager(r)
	category, err := ourCategory(ctx, m)
	if err != nil {
		return err
	}
	all, err := m.GetTagsForCategory(ctx, category)
	if err != nil {
		return err
	}
	tag, err := ourTag(ctx, m, category, all, vpool, name)
	if err != nil {
		return err
	}
	attached, err := m.ListAttachedTags(ctx, d.ref)
	if err != nil {
		return err
	}
	for _, t := range all {
		if t.ID != tag && slices.Contains(attached, t.ID) {
			if err := m.DetachTag(ctx, t.ID, d.ref); err != nil {
				return err
			}
		}
	}
	if slices.Contains(attached, tag) {
		return nil
	}
	return m.AttachTag(ctx, tag, d.ref)
}

// ourCategory returns the id of the category, which is made when it is not there.
func ourCategory(ctx context.Context, m *tags.Manager) (string, error) {
	all, err := m.GetCategories(ctx)
	if err != nil {
		return "", err
	}
	for _, c := range all {
		switch {
		case c.Name != Category:
		case !strings.HasPrefix(c.Description, categoryText):
			return "", fmt.Errorf("%w: a category of tags is called %s that ovgate did not make", ErrExists, Category)
		default:
			return c.ID, nil
		}
	}
	return m.CreateCategory(ctx, &tags.Category{
		Name: Category, Description: categoryText + "which one a datastore is on, for storage policies", Cardinality: "SINGLE", AssociableTypes: []string{datastoreKind},
	})
}

// ourTag returns the id of the tag of a vPool, which is made or renamed when it has to be.
func ourTag(ctx context.Context, m *tags.Manager, category string, all []tags.Tag, vpool, name string) (string, error) {
	description := tagText + vpool
	if slices.ContainsFunc(all, func(t tags.Tag) bool { return t.Name == name && t.Description != description }) {
		name += " (" + vpool[:min(len(vpool), 8)] + ")" // a vPool of another cluster has that name
	}
	for _, t := range all {
		if t.Description != description {
			continue
		}
		if t.Name != name {
			t.Name = name
			return t.ID, m.UpdateTag(ctx, &t)
		}
		return t.ID, nil
	}
	return m.CreateTag(ctx, &tags.Tag{Name: name, Description: description, CategoryID: category})
}

// explainREST is explain for the part of the API that has tags.
func explainREST(what string, err error) error {
	for status, is := range map[int]error{http.StatusUnauthorized: ErrCredentials, http.StatusForbidden: ErrDenied, http.StatusNotFound: ErrNotFound, http.StatusServiceUnavailable: ErrUnreachable} {
		if rest.IsStatusError(err, status) {
			return fmt.Errorf("%s: %w: %s", what, is, words(err))
		}
	}
	return explain(what, err)
}
