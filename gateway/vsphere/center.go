package vsphere

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/gateway/model"
	"github.com/openvstorage/ovgate/gateway/observe/event"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

const (
	// maxText bounds options, maxName names of vCenters, in bytes.
	maxText = 255
	maxName = 64
	// timeoutMin and timeoutMax bound what each request may take.
	timeoutMin = time.Second
	timeoutMax = 5 * time.Minute
)

// NewCenter is what a vCenter is registered from.
type NewCenter struct {
	Name   string
	Spec   model.CenterSpec // without a thumbprint the certificate that is there is trusted
	Secret string
}

// CenterPatch changes a vCenter; nil leaves a field as it is.
type CenterPatch struct {
	Name   *string
	Secret *string
	Spec   func(*model.CenterSpec) // changes a copy of the present one
}

// FindCenter returns a vCenter by name or id.
func (m *Manager) FindCenter(ref string) (model.Center, error) {
	c, ok := m.model.FindCenter(ref)
	if !ok {
		return c, &control.Error{Code: control.CodeNotFound, Object: centerObject(clip(ref)), Message: "there is no such vCenter", Hint: "ovgate vsphere center list shows those that are registered"}
	}
	return c, nil
}

// checkSpec refuses options that cannot be.
func checkSpec(object string, s model.CenterSpec) *control.Error {
	for field, v := range map[string]string{"url": s.URL, "user": s.User, "thumbprint": s.Thumbprint} {
		if len(v) > maxText || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' }) {
			return invalid("options."+field, object, fmt.Sprintf("use up to %d bytes", maxText), "it is too long, or has control characters")
		}
	}
	if _, err := vsphere.ParseURL(s.URL); err != nil {
		return invalid("options.url", object, "give the address that browsers use, such as https://vcenter.example.org", "%s", err)
	}
	if s.User == "" {
		return invalid("options.user", object, "give a user such as ovgate@vsphere.local", "the user is missing")
	}
	if s.Thumbprint != "" && !validThumbprint(s.Thumbprint) {
		return invalid("options.thumbprint", object, "give the SHA-256 of the certificate: 64 hexadecimal digits in pairs, with colons between them", "%q is no thumbprint", clip(s.Thumbprint))
	}
	if t := time.Duration(s.TimeoutMs) * time.Millisecond; t != 0 && (t < timeoutMin || t > timeoutMax) {
		return invalid("options.timeoutMs", object, fmt.Sprintf("use %d to %d", timeoutMin.Milliseconds(), timeoutMax.Milliseconds()), "a request cannot have %d ms", s.TimeoutMs)
	}
	return nil
}

func validThumbprint(s string) bool {
	pairs := strings.Split(s, ":")
	if len(pairs) != 32 {
		return false
	}
	for _, p := range pairs {
		if len(p) != 2 || strings.Trim(p, "0123456789abcdefABCDEF") != "" {
			return false
		}
	}
	return true
}

func options(s model.CenterSpec, secret string) vsphere.Options {
	return vsphere.Options{URL: s.URL, User: s.User, Secret: secret, Thumbprint: s.Thumbprint, Timeout: time.Duration(s.TimeoutMs) * time.Millisecond}
}

// secret opens the password of a vCenter.
func (m *Manager) secret(c model.Center) (string, error) {
	s, err := m.opt.Sealer.Open(c.ID, c.Secret)
	if err != nil {
		return "", &control.Error{Code: control.CodeBackend, Object: centerObject(c.Name), Message: "its password does not open with this node's seal.key", Hint: "give it again: ovgate vsphere center set " + c.Name + " --secret-stdin", Err: err}
	}
	return s, nil
}

// connect signs in to a registered vCenter.
func (m *Manager) connect(ctx context.Context, c model.Center) (*vsphere.Center, error) {
	return m.connectWith(ctx, c, nil)
}

// connectWith is connect for somebody who needs a permit for what changes something.
func (m *Manager) connectWith(ctx context.Context, c model.Center, permit vsphere.Permit) (*vsphere.Center, error) {
	secret, err := m.secret(c)
	if err != nil {
		return nil, err
	}
	o := options(c.Spec, secret)
	o.Permit = permit
	v, err := vsphere.Connect(ctx, o)
	return v, explain(centerObject(c.Name), err)
}

func taken(name string) *control.Error {
	return &control.Error{Code: control.CodeExists, Field: "name", Object: centerObject(clip(name)), Message: "a vCenter of this name exists", Hint: "choose another name"}
}

// CreateCenter signs in to a vCenter, tries what is needed of it, and registers it.
func (m *Manager) CreateCenter(ctx context.Context, in NewCenter) (model.Center, vsphere.Report, error) {
	var report vsphere.Report
	ctx, done := m.begin(ctx)
	defer done()
	object := centerObject(clip(in.Name))
	if e := checkName(object, in.Name, maxName); e != nil {
		return model.Center{}, report, e
	}
	if err := m.lockCenters(ctx); err != nil {
		return model.Center{}, report, explain(object, err)
	}
	defer m.unlockCenters()
	if _, exists := m.model.FindCenter(in.Name); exists {
		return model.Center{}, report, taken(in.Name)
	}
	if n := len(m.model.Centers()); n >= maxCenters {
		return model.Center{}, report, &control.Error{Code: control.CodeInUse, Object: object, Message: fmt.Sprintf("there are %d vCenters already", n), Hint: "delete one that is not used"}
	}
	id, err := model.NewUUID()
	if err != nil {
		return model.Center{}, report, err
	}
	rec := model.Center{ID: id, Name: in.Name, Spec: in.Spec, Created: m.clock.Now().UTC()}
	if rec.Secret, err = m.opt.Sealer.Seal(id, in.Secret); err != nil {
		return rec, report, err
	}
	if report, err = m.try(ctx, &rec, in.Secret); err != nil {
		return rec, report, err
	}
	if rec, err = m.model.CreateCenter(ctx, rec); err != nil {
		return rec, report, explain(object, err)
	}
	m.log.Info("vCenter registered", "center", rec.Name, "url", rec.Spec.URL, "thumbprint", rec.Spec.Thumbprint)
	m.opt.Events.Tell(event.CenterRegistered, centerObject(rec.Name), "url", rec.Spec.URL)
	m.opt.Changed("center", rec.ID)
	return rec, report, nil
}

// try tests a vCenter and keeps in its record what was found.
func (m *Manager) try(ctx context.Context, rec *model.Center, secret string) (vsphere.Report, error) {
	object := centerObject(rec.Name)
	if e := checkSpec(object, rec.Spec); e != nil {
		return vsphere.Report{}, e
	}
	if secret == "" {
		return vsphere.Report{}, invalid("secret", object, "give it on standard input, with --secret-stdin", "the password of %s is missing", rec.Spec.User)
	}
	if rec.Spec.Thumbprint == "" {
		t, err := vsphere.Thumbprint(ctx, rec.Spec.URL)
		if err != nil {
			return vsphere.Report{}, explain(object, err)
		}
		rec.Spec.Thumbprint = t
	}
	report, err := vsphere.Check(ctx, options(rec.Spec, secret), m.clock)
	if err != nil {
		return report, explain(object, err)
	}
	rec.Kind, rec.Version, rec.Instance, rec.Hosts, rec.Warnings, rec.Tested = report.Kind, report.Version, report.Instance, report.Hosts, report.Warnings, m.clock.Now().UTC()
	return report, nil
}

// TestCenter tests a registered vCenter again, and remembers what it found. A step that
// failed is in the report.
func (m *Manager) TestCenter(ctx context.Context, ref string) (model.Center, vsphere.Report, error) {
	ctx, done := m.begin(ctx)
	defer done()
	rec, err := m.FindCenter(ref)
	if err != nil {
		return rec, vsphere.Report{}, err
	}
	secret, err := m.secret(rec)
	if err != nil {
		return rec, vsphere.Report{}, err
	}
	tested := rec
	report, err := m.try(ctx, &tested, secret)
	if err != nil && report.Failed() != nil {
		return rec, report, nil
	}
	if err != nil {
		return rec, report, err
	}
	rec, err = m.model.UpdateCenter(ctx, rec.ID, func(c *model.Center) error {
		c.Kind, c.Version, c.Instance, c.Hosts, c.Warnings, c.Tested = tested.Kind, tested.Version, tested.Instance, tested.Hosts, tested.Warnings, tested.Tested
		return nil
	})
	m.opt.Changed("center", rec.ID)
	return rec, report, explain(centerObject(rec.Name), err)
}

// UpdateCenter changes a vCenter. New addresses and credentials are tried before they are
// kept; a new address or certificate needs the password again.
func (m *Manager) UpdateCenter(ctx context.Context, ref string, p CenterPatch) (model.Center, vsphere.Report, error) {
	var report vsphere.Report
	ctx, done := m.begin(ctx)
	defer done()
	if err := m.lockCenters(ctx); err != nil {
		return model.Center{}, report, explain(centerObject(clip(ref)), err)
	}
	defer m.unlockCenters()
	old, err := m.FindCenter(ref)
	if err != nil {
		return old, report, err
	}
	object, rec := centerObject(old.Name), old
	if p.Name != nil && *p.Name != old.Name {
		if e := checkName(object, *p.Name, maxName); e != nil {
			return old, report, e
		}
		if _, exists := m.model.FindCenter(*p.Name); exists {
			return old, report, taken(*p.Name)
		}
		rec.Name = *p.Name
	}
	if p.Spec != nil || p.Secret != nil {
		if p.Spec != nil {
			p.Spec(&rec.Spec)
		}
		// Signing in shows the password to whoever is there: one that is kept goes nowhere else.
		if p.Secret == nil && (rec.Spec.URL != old.Spec.URL || !strings.EqualFold(rec.Spec.Thumbprint, old.Spec.Thumbprint)) {
			return old, report, invalid("secret", object, "give the password again, on standard input, with --secret-stdin", "with another address or certificate the password has to be given again")
		}
		secret := ""
		if p.Secret != nil {
			secret = *p.Secret
			rec.Secret, err = m.opt.Sealer.Seal(rec.ID, secret)
		} else {
			secret, err = m.secret(old)
		}
		if err != nil {
			return old, report, err
		}
		if report, err = m.try(ctx, &rec, secret); err != nil {
			return old, report, err
		}
		if old.Instance != "" && rec.Instance != old.Instance && len(m.datastoresOf(old.ID)) > 0 {
			return old, report, &control.Error{Code: control.CodeInUse, Field: "options.url", Object: object, Message: "this is another vCenter, and the one that is registered has datastores", Hint: "register the other one under a name of its own"}
		}
	}
	kept, err := m.model.UpdateCenter(ctx, old.ID, func(c *model.Center) error {
		rec.Clusters = c.Clusters // a job may have added one
		*c = rec
		return nil
	})
	if err != nil {
		return old, report, explain(object, err)
	}
	m.unwatch(kept.ID)
	m.log.Info("vCenter changed", "center", kept.Name)
	m.opt.Events.Tell(event.CenterChanged, centerObject(kept.Name))
	m.opt.Changed("center", kept.ID)
	return kept, report, nil
}

// datastoresOf returns the datastores of a vCenter.
func (m *Manager) datastoresOf(center string) []model.Datastore {
	return m.model.Datastores(func(d model.Datastore) bool { return d.Center == center })
}

// DeleteCenter forgets a vCenter; an absent one is no error. It is refused while it has
// datastores. Nothing at the vCenter changes.
func (m *Manager) DeleteCenter(ctx context.Context, ref string) error {
	ctx, done := m.begin(ctx)
	defer done()
	if err := m.lockCenters(ctx); err != nil {
		return explain(centerObject(clip(ref)), err)
	}
	defer m.unlockCenters()
	c, ok := m.model.FindCenter(ref)
	if !ok {
		return nil
	}
	object := centerObject(c.Name)
	if ds := m.datastoresOf(c.ID); len(ds) > 0 {
		return &control.Error{Code: control.CodeInUse, Object: object, Message: fmt.Sprintf("it has %d datastores and RDM disks, %s among them", len(ds), objectOf(ds[0])), Hint: "remove them first: " + removeHint(ds[0])}
	}
	for _, cl := range c.Clusters {
		if cl.Target == "" {
			continue
		}
		if err := m.ctl.DeleteTarget(ctx, targetName(c, cl.ID), true); err != nil {
			return err
		}
	}
	if err := m.model.DeleteCenter(ctx, c.ID); err != nil {
		return explain(object, err)
	}
	m.unwatch(c.ID)
	m.log.Info("vCenter forgotten", "center", c.Name)
	m.opt.Events.Tell(event.CenterForgotten, centerObject(c.Name))
	m.opt.Changed("center", c.ID)
	return nil
}

// Hosts lists the hosts of a vCenter; cluster "" is all.
func (m *Manager) Hosts(ctx context.Context, ref, cluster string) ([]*vsphere.Host, error) {
	ctx, done := m.begin(ctx)
	defer done()
	c, err := m.FindCenter(ref)
	if err != nil {
		return nil, err
	}
	looked, err := m.look(ctx)
	if err != nil {
		return nil, err
	}
	defer looked()
	v, err := m.connect(ctx, c)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	hosts, err := v.Hosts(ctx, cluster)
	return hosts, explain(centerObject(c.Name), err)
}
