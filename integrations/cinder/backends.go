package cinder

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/services"

	"github.com/openvstorage/ovgate/internal/clock"
)

// Here is what a cloud is compared with: this ovgate.
type Here struct {
	Location string   // what the driver reports as location_info, ovgate:CLUSTER
	VPools   []string // names
	// Known are the backends of this ovgate that the cloud had before, as HOST@SECTION:
	// one whose cinder-volume is down does not tell whose it is.
	Known []string
}

// Backend is a section of a cinder-volume that has the driver.
type Backend struct {
	Host    string // HOST@SECTION
	Name    string // volume_backend_name; empty: it is down
	Version string // of the driver; empty: it is down
	Service bool   // Cinder lists its service
	Up      bool
	Enabled bool
	Reason  string    // why it is not enabled, as its administrator wrote
	Seen    time.Time // when Cinder heard of it last; zero: never
	Pools   []Pool
}

// Pool is a vPool as the scheduler of a cloud sees it. Sizes are GiB.
type Pool struct {
	VPool                  string
	Known                  bool // this ovgate has a vPool of that name
	Total, Free, Allocated float64
	Volumes                int64
}

// gib is a capacity that may be a number or a word.
type gib float64

// UnmarshalJSON implements json.Unmarshaler. "unknown" and "infinite" are 0.
func (g *gib) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && (b[0] == '"' || string(b) == "null") {
		return nil
	}
	var f float64
	err := json.Unmarshal(b, &f)
	*g = gib(f)
	return err
}

// schedulerPool is a pool of the answer to get_pools. Drivers of others report what they
// like: only what is compared has to be of its type, once it is known to be ovgate's.
type schedulerPool struct {
	Name         string          `json:"name"`
	Capabilities json.RawMessage `json:"capabilities"`
}

type capabilities struct {
	BackendName string `json:"volume_backend_name"`
	Version     string `json:"driver_version"`
	Total       gib    `json:"total_capacity_gb"`
	Free        gib    `json:"free_capacity_gb"`
	Allocated   gib    `json:"allocated_capacity_gb"`
	Volumes     int64  `json:"total_volumes"`
}

// Backends lists those of this ovgate, by host.
func (c *Cloud) Backends(ctx context.Context, here Here) ([]Backend, error) {
	var pools struct {
		Pools []schedulerPool `json:"pools"`
	}
	if err := get(ctx, c.volume, "list pools", c.volume.ServiceURL("scheduler-stats", "get_pools")+"?detail=True", &pools); err != nil {
		return nil, err
	}
	found := map[string]*Backend{}
	for _, host := range here.Known {
		found[host] = &Backend{Host: host}
	}
	for _, p := range pools.Pools {
		var whose struct {
			Vendor   any `json:"vendor_name"`
			Location any `json:"location_info"`
		}
		if json.Unmarshal(p.Capabilities, &whose) != nil || whose.Vendor != "ovgate" || whose.Location != here.Location {
			continue
		}
		host, vpool, ok := strings.Cut(p.Name, "#")
		var is capabilities
		if err := json.Unmarshal(p.Capabilities, &is); err != nil || !ok {
			return nil, fmt.Errorf("list pools: %w: pool %q is not as the driver reports it", ErrRefused, p.Name)
		}
		b := found[host]
		if b == nil {
			b = &Backend{Host: host}
			found[host] = b
		}
		b.Name, b.Version = is.BackendName, is.Version
		b.Pools = append(b.Pools, Pool{
			VPool: vpool, Known: slices.Contains(here.VPools, vpool), Total: float64(is.Total), Free: float64(is.Free), Allocated: float64(is.Allocated), Volumes: is.Volumes,
		})
	}
	all, err := c.services(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if b := found[s.Host]; b != nil && s.Binary == "cinder-volume" {
			b.Service, b.Up, b.Enabled, b.Reason, b.Seen = true, s.State == "up", s.Status == "enabled", s.DisabledReason, s.UpdatedAt
		}
	}
	out := make([]Backend, 0, len(found))
	for _, host := range slices.Sorted(maps.Keys(found)) {
		b := found[host]
		slices.SortFunc(b.Pools, func(a, b Pool) int { return cmp.Compare(a.VPool, b.VPool) })
		out = append(out, *b)
	}
	return out, nil
}

// services lists the services of Cinder, which only its administrators may.
func (c *Cloud) services(ctx context.Context) ([]services.Service, error) {
	var all struct {
		Services []services.Service `json:"services"`
	}
	err := get(ctx, c.volume, "list services", c.volume.ServiceURL("os-services"), &all)
	return all.Services, err
}

// Versions that Check compares with: 3.70 is what Zed ends with, which the driver is made
// for (api/openstack/rest_api_version_history.rst of Cinder).
const microversionMin = 70

// skewMax is how far apart the clocks may be. Cinder counts a service as down when it was
// not heard of for a minute, and tokens are refused before they begin.
const skewMax = 10 * time.Second

// Step is something that a check tried.
type Step struct {
	Step     string
	OK       bool
	Detail   string // what went wrong, or was found
	Duration time.Duration
}

// Report is what a check found.
type Report struct {
	Steps    []Step
	Backends []Backend
	Version  string // of Cinder's API, 3.70 for one
	Skew     time.Duration
	// Warnings are what works, and should be other.
	Warnings []string
}

// Failed returns the first step that failed; nil: none did.
func (r *Report) Failed() *Step {
	for i := range r.Steps {
		if !r.Steps[i].OK {
			return &r.Steps[i]
		}
	}
	return nil
}

// Check signs in and tries what ovgate needs of a cloud, without changing anything. The
// error is of the first step that failed, which is in the report too.
func Check(ctx context.Context, o Options, here Here, clk clock.Clock) (Report, error) {
	var r Report
	step := func(name string, f func() (string, error)) error {
		begin := clk.Now()
		detail, err := f()
		if err != nil {
			detail = err.Error()
		}
		r.Steps = append(r.Steps, Step{name, err == nil, detail, clk.Now().Sub(begin)})
		return err
	}
	var c *Cloud
	err := step("sign in", func() (_ string, err error) {
		if c, err = Connect(ctx, o, clk); err != nil {
			return "", err
		}
		r.Skew = c.skew()
		return c.volume.Endpoint, nil
	})
	if err != nil {
		return r, err
	}
	defer c.Close()
	if err := step("version", func() (_ string, err error) { r.Version, err = c.version(ctx); return r.Version, err }); err != nil {
		return r, err
	}
	err = step("administer", func() (string, error) {
		r.Backends, err = c.Backends(ctx, here)
		return fmt.Sprintf("backends of this ovgate: %d", len(r.Backends)), err
	})
	if err != nil {
		return r, err
	}
	err = step("volume types", func() (string, error) {
		types, err := c.types(ctx)
		return fmt.Sprintf("types: %d", len(types)), err
	})
	if err == nil {
		err = step("volumes", func() (string, error) {
			volumes, err := c.volumes(ctx)
			return fmt.Sprintf("of all projects: %d", len(volumes)), err
		})
	}
	if err == nil {
		err = step("service token", func() (string, error) {
			users, known, err := c.serviceToken(ctx)
			if !known {
				return "Keystone does not tell this user who has the role " + serviceRole, err
			}
			if err == nil && users == 0 {
				r.Warnings = append(r.Warnings, "nobody has the role "+serviceRole+": Cinder refuses detaches of Nova, and long copies of images fail; give it to the users of nova and cinder: openstack role add --user cinder --project service "+serviceRole)
			}
			return fmt.Sprintf("users with the role %s: %d", serviceRole, users), err
		})
	}
	r.warn(here)
	return r, err
}

// warn says what is to be known of a cloud that works.
func (r *Report) warn(here Here) {
	say := func(format string, a ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, a...)) }
	if r.Skew.Abs() > skewMax {
		say("its clock and that of this node are %s apart: set both, with NTP for one", r.Skew.Abs().Round(time.Second))
	}
	var minor int
	if _, err := fmt.Sscanf(r.Version, "3.%d", &minor); err != nil || minor < microversionMin {
		say("Cinder speaks %s, and the driver is made for 3.%d (Zed) and later", r.Version, microversionMin)
	}
	pools := map[string]bool{}
	for _, b := range r.Backends {
		switch {
		case !b.Service:
			say("backend %s has no service: it was taken out of cinder.conf, or never started", b.Host)
		case !b.Up:
			say("backend %s is down: look at the log of its cinder-volume", b.Host)
		case !b.Enabled:
			say("backend %s is disabled: %s", b.Host, cmp.Or(b.Reason, "no reason was given"))
		}
		if v := DriverVersion(); b.Version != "" && b.Version != v {
			say("backend %s has version %s of the driver, this ovgate brings %s: ovgate openstack driver install", b.Host, b.Version, v)
		}
		for _, p := range b.Pools {
			pools[p.VPool] = true
			if !p.Known {
				say("pool %s of backend %s is a vPool that there is no more", p.VPool, b.Host)
			}
		}
	}
	if len(r.Backends) == 0 {
		say("no backend of the cloud is this ovgate: ovgate openstack driver config prints what cinder.conf needs")
		return
	}
	for _, v := range here.VPools {
		if !pools[v] {
			say("vPool %s is no pool of a backend: ovgate_vpools of cinder.conf leaves it out, or the backend is down", v)
		}
	}
}

// skew is how far the cloud's clock goes before this one; it is told to the second.
func (c *Cloud) skew() time.Duration {
	c.transport.mu.Lock()
	told := c.transport.told
	c.transport.mu.Unlock()
	if told.IsZero() {
		return 0
	}
	return told.Sub(c.clock.Now().Truncate(time.Second))
}

// version asks for the newest microversion.
func (c *Cloud) version(ctx context.Context) (string, error) {
	const v3 = "/v3/"
	at := strings.LastIndex(c.volume.Endpoint, v3)
	if at < 0 {
		return "", fmt.Errorf("%w: Cinder's endpoint %s is not of version 3", ErrCatalog, c.volume.Endpoint)
	}
	var answer struct {
		Versions []struct {
			ID      string `json:"id"`
			Version string `json:"version"`
		} `json:"versions"`
	}
	if err := get(ctx, c.volume, "ask for the version", c.volume.Endpoint[:at+len(v3)], &answer); err != nil {
		return "", err
	}
	for _, v := range answer.Versions {
		if strings.HasPrefix(v.ID, "v3") {
			return v.Version, nil
		}
	}
	return "", fmt.Errorf("%w: Cinder has no version 3", ErrRefused)
}

// projects returns the names of projects by id; those that may not be asked for are left
// out.
func (c *Cloud) projects(ctx context.Context) (map[string]string, error) {
	var all struct {
		Projects []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"projects"`
	}
	err := get(ctx, c.keystone, "list projects", c.keystone.ServiceURL("projects"), &all)
	if status(err, 403) {
		return nil, nil
	}
	names := make(map[string]string, len(all.Projects))
	for _, p := range all.Projects {
		names[p.ID] = p.Name
	}
	return names, err
}
