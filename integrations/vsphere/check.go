package vsphere

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/internal/clock"
)

// Kinds of what is signed in to.
const (
	KindVCenter = "vcenter"
	KindESXi    = "esxi"
)

// Privileges are what ovgate needs on the root folder and below, as vSphere names them.
var Privileges = []string{
	"System.View", "System.Read", "Host.Config.Storage",
	"Datastore.AllocateSpace", "Datastore.Browse", "Datastore.Config", "Datastore.Delete", "Datastore.Rename",
}

// Wished are privileges without which something is left out, and what.
var Wished = []struct{ Privilege, Without string }{
	{"Alarm.Create", "datastores have no alarm"},
	{"Alarm.Delete", "the alarm of datastores stays when the last one is removed"},
	{"Global.LogEvent", "it is not told events of datastores"},
	{"Global.ManageCustomFields", "datastores have no custom attribute unless it is defined by hand"},
	{"Global.SetCustomField", "datastores have no custom attribute"},
	{"InventoryService.Tagging.AttachTag", "datastores have no tag of their vPool"},
	{"InventoryService.Tagging.CreateCategory", "datastores have no tag of their vPool unless the category is there"},
	{"InventoryService.Tagging.CreateTag", "a new vPool has no tag"},
}

// Report is what a test found, step by step.
type Report struct {
	Steps      []Step
	Kind       string // KindVCenter or KindESXi
	Version    string
	Instance   string // UUID of the vCenter; empty for a host alone
	Hosts      int
	Warnings   []string
	Thumbprint string
}

// Step is one thing that was tried.
type Step struct {
	Step     string
	OK       bool
	Detail   string
	Duration time.Duration
}

// Failed returns the step that did not work, nil if all did.
func (r Report) Failed() *Step {
	for i := range r.Steps {
		if !r.Steps[i].OK {
			return &r.Steps[i]
		}
	}
	return nil
}

// Check signs in and tries what is needed, without changing anything.
func Check(ctx context.Context, o Options, clk clock.Clock) (Report, error) {
	r := Report{Thumbprint: o.Thumbprint}
	var c *Center
	run := func(name string, do func() (string, error)) error {
		start := clk.Now()
		detail, err := do()
		if err != nil {
			detail = err.Error()
		}
		r.Steps = append(r.Steps, Step{name, err == nil, detail, clk.Now().Sub(start)})
		return err
	}
	err := run("sign in", func() (string, error) {
		var err error
		c, err = Connect(ctx, o)
		return "as " + o.User, err
	})
	if err != nil {
		return r, err
	}
	defer c.Close()
	about := c.client.ServiceContent.About
	r.Version, r.Instance, r.Kind = about.Version, about.InstanceUuid, KindVCenter
	if about.ApiType == "HostAgent" {
		r.Kind, r.Instance = KindESXi, ""
	}
	if err := run("version", func() (string, error) { return about.FullName, checkVersion(about.Version) }); err != nil {
		return r, err
	}
	if err := run("privileges", func() (detail string, err error) {
		detail, r.Warnings, err = c.checkPrivileges(ctx, r.Kind == KindVCenter)
		return detail, err
	}); err != nil {
		return r, err
	}
	err = run("hosts", func() (string, error) {
		hosts, err := c.Hosts(ctx, "")
		if err != nil {
			return "", err
		}
		r.Hosts = len(hosts)
		for _, h := range hosts {
			if why := h.Away(); why != "" {
				r.Warnings = append(r.Warnings, fmt.Sprintf("host %s %s", h.Name, why))
			}
		}
		return fmt.Sprintf("%d hosts", len(hosts)), nil
	})
	return r, err
}

// checkVersion refuses what is older than VMFS 6 and its automatic reclaim.
func checkVersion(v string) error {
	var major, minor int
	if _, err := fmt.Sscanf(v, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("%w: %q is no version", ErrRefused, words(fmt.Errorf("%s", v)))
	}
	if major < 6 || major == 6 && minor < 5 {
		return fmt.Errorf("%w: version %d.%d is older than 6.5", ErrRefused, major, minor)
	}
	return nil
}

// checkPrivileges asks which privileges the user has at the root; wished: also for those
// without which something is left out, as warnings.
func (c *Center) checkPrivileges(ctx context.Context, wished bool) (detail string, warnings []string, _ error) {
	m := c.client.ServiceContent.AuthorizationManager
	if m == nil {
		return "they cannot be asked for", nil, nil
	}
	s, err := c.userSession(ctx)
	if err != nil {
		return "", nil, err
	}
	ask := slices.Clone(Privileges)
	for _, w := range Wished {
		if wished {
			ask = append(ask, w.Privilege)
		}
	}
	res, err := methods.HasPrivilegeOnEntities(ctx, c.client, &types.HasPrivilegeOnEntities{
		This: *m, Entity: []types.ManagedObjectReference{c.client.ServiceContent.RootFolder}, SessionId: s, PrivId: ask,
	})
	if err != nil {
		return "", nil, explain("ask for privileges", err)
	}
	lacks := map[string]bool{}
	for _, e := range res.Returnval {
		for _, p := range e.PrivAvailability {
			lacks[p.PrivId] = lacks[p.PrivId] || !p.IsGranted
		}
	}
	var missing []string
	for _, p := range Privileges {
		if lacks[p] {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return "", nil, fmt.Errorf("%w: user %s lacks %s", ErrDenied, c.opt.User, strings.Join(missing, ", "))
	}
	for _, w := range Wished {
		if lacks[w.Privilege] {
			warnings = append(warnings, fmt.Sprintf("user %s lacks %s: %s", c.opt.User, w.Privilege, w.Without))
		}
	}
	return fmt.Sprintf("%d of %d", len(Privileges), len(Privileges)), warnings, nil
}
