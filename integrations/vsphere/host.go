package vsphere

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// What the API calls round robin, and a path that leads nowhere.
const (
	pspRoundRobin = "VMW_PSP_RR"
	pathDead      = "dead"
)

// maxHosts bounds a list of hosts: above what a vCenter takes.
const maxHosts = 5000

// Host is an ESXi host as its vCenter tells of it.
type Host struct {
	c           *Center
	ref         types.ManagedObjectReference
	Name        string
	Cluster     string // name; of a host in no cluster its own
	ClusterID   string // managed object id
	Version     string
	State       string // connected, disconnected or notResponding
	Maintenance bool
	storage     types.ManagedObjectReference
	datastores  types.ManagedObjectReference
}

// ID is the host's managed object id.
func (h *Host) ID() string { return h.ref.Value }

// Away says why nothing can be done with the host now; empty: it can.
func (h *Host) Away() string {
	switch {
	case h.State != string(types.HostSystemConnectionStateConnected):
		return "is " + h.State
	case h.Maintenance:
		return "is in maintenance mode"
	}
	return ""
}

// limit is how long a request may take: more when it works on a host's storage.
func (c *Center) limit(req soap.HasFault) time.Duration {
	switch req.(type) {
	case *methods.RescanAllHbaBody, *methods.RescanHbaBody, *methods.RescanVmfsBody, *methods.QueryUnresolvedVmfsVolumeBody, *methods.QueryAvailableDisksForVmfsBody:
		return rescanTimeout
	case *methods.CreateVmfsDatastoreBody, *methods.ExpandVmfsDatastoreBody, *methods.RemoveDatastoreBody, *methods.UpdateSoftwareInternetScsiEnabledBody:
		return min(changeFactor*c.opt.Timeout, changeMost)
	case *methods.WaitForUpdatesExBody:
		return c.opt.Timeout + updateWait
	}
	return c.opt.Timeout
}

// userSession returns the key of the session.
func (c *Center) userSession(ctx context.Context) (string, error) {
	s, err := session.NewManager(c.client).UserSession(ctx)
	if err != nil {
		return "", explain("look at the session", err)
	}
	if s == nil {
		return "", fmt.Errorf("look at the session: %w", ErrCredentials)
	}
	return s.Key, nil
}

// list reads properties of all objects of a kind.
func (c *Center) list(ctx context.Context, kind string, properties []string, into any) error {
	v, err := view.NewManager(c.client).CreateContainerView(ctx, c.client.ServiceContent.RootFolder, []string{kind}, true)
	if err != nil {
		return explain("list "+kind, err)
	}
	defer func() { _ = v.Destroy(context.WithoutCancel(ctx)) }() // it ends with the session
	if err := v.Retrieve(ctx, []string{kind}, properties, into); err != nil {
		return explain("list "+kind, err)
	}
	return nil
}

func (c *Center) get(ctx context.Context, ref types.ManagedObjectReference, properties []string, into any) error {
	return property.DefaultCollector(c.client).RetrieveOne(ctx, ref, properties, into)
}

// Hosts lists the hosts of a cluster, by its name or managed object id, or with "" all.
// ErrNotFound: there is no such cluster, or it has no host.
func (c *Center) Hosts(ctx context.Context, cluster string) ([]*Host, error) {
	var parents []mo.ComputeResource
	if err := c.list(ctx, "ComputeResource", []string{"name"}, &parents); err != nil {
		return nil, err
	}
	names := map[types.ManagedObjectReference]string{}
	for _, p := range parents {
		names[p.Self] = p.Name
	}
	var systems []mo.HostSystem
	err := c.list(ctx, "HostSystem", []string{"name", "parent", "runtime.connectionState", "runtime.inMaintenanceMode", "configManager.storageSystem", "configManager.datastoreSystem", "summary.config.product"}, &systems)
	if err != nil {
		return nil, err
	}
	if len(systems) > maxHosts {
		return nil, fmt.Errorf("list hosts: %w: there are more than %d", ErrRefused, maxHosts)
	}
	var out []*Host
	for _, s := range systems {
		h := &Host{c: c, ref: s.Self, Name: s.Name, State: string(s.Runtime.ConnectionState), Maintenance: s.Runtime.InMaintenanceMode}
		if s.Parent != nil {
			h.Cluster, h.ClusterID = names[*s.Parent], s.Parent.Value
		}
		if p := s.Summary.Config.Product; p != nil {
			h.Version = p.Version
		}
		if m := s.ConfigManager; m.StorageSystem != nil && m.DatastoreSystem != nil {
			h.storage, h.datastores = *m.StorageSystem, *m.DatastoreSystem
		} else if h.State == string(types.HostSystemConnectionStateConnected) {
			continue // it is being added
		}
		if cluster == "" || h.Cluster == cluster || h.ClusterID == cluster {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b *Host) int { return cmp.Compare(a.Name, b.Name) })
	if cluster != "" && len(out) == 0 {
		return nil, fmt.Errorf("cluster %s: %w", cluster, ErrNotFound)
	}
	return out, nil
}

// RescanDisks has the host look for disks on its software iSCSI adapter, whose device
// Storage.Initiator tells, and returns what disks it has then.
func (h *Host) RescanDisks(ctx context.Context, device string) (*Storage, error) {
	if device == "" {
		return nil, fmt.Errorf("%s: look for disks: %w: software iSCSI is off", h.Name, ErrRefused)
	}
	if _, err := methods.RescanHba(ctx, h.c.client, &types.RescanHba{This: h.storage, HbaDevice: device}); err != nil {
		return nil, explain(h.Name+": look for disks", err)
	}
	return h.look(ctx, Disks)
}

// RescanVolumes has the host look for datastores on its disks.
func (h *Host) RescanVolumes(ctx context.Context) error {
	_, err := methods.RescanVmfs(ctx, h.c.client, &types.RescanVmfs{This: h.storage})
	return explain(h.Name+": look for datastores", err)
}

// Path is a way from a host to a LUN.
type Path struct {
	Portal, Target string
	lun            int
	State          string // active, standby, disabled, dead or unknown
	Working        bool
}

// Disk is a LUN as a host sees it.
type Disk struct {
	uuid, devicePath, unit string
	Size                   int64  // bytes
	Detached, Lost         bool   // Lost: no path leads to it
	Policy                 string // of path selection
	Paths                  []Path
}

// lunOf reads the number out of a path's name, vmhbaN:Cn:Tn:Ln; -1: it has none.
func lunOf(name string) int {
	_, text, _ := strings.Cut(name, ":L")
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}

func diskOf(d *types.HostScsiDisk, m *types.HostMultipathInfo) Disk {
	out := Disk{uuid: d.Uuid, devicePath: d.DevicePath, Size: d.Capacity.Block * int64(d.Capacity.BlockSize)}
	out.Detached = slices.Contains(d.OperationalState, string(types.ScsiLunStateOff))
	out.Lost = slices.Contains(d.OperationalState, string(types.ScsiLunStateLostCommunication))
	if m == nil {
		return out
	}
	for _, u := range m.Lun {
		if u.Lun != d.Key {
			continue
		}
		out.unit = u.Id
		if u.Policy != nil {
			out.Policy = u.Policy.GetHostMultipathInfoLogicalUnitPolicy().Policy
		}
		for _, p := range u.Path {
			x := Path{lun: lunOf(p.Name), State: p.State, Working: p.IsWorkingPath != nil && *p.IsWorkingPath}
			if t, ok := p.Transport.(*types.HostInternetScsiTargetTransport); ok {
				x.Target, x.Portal = t.IScsiName, strings.Join(t.Address, " ")
			}
			out.Paths = append(out.Paths, x)
		}
	}
	return out
}

// RoundRobin has the host use all its paths to a LUN in turn.
func (h *Host) RoundRobin(ctx context.Context, d Disk) error {
	if d.Policy == pspRoundRobin {
		return nil
	}
	_, err := methods.SetMultipathLunPolicy(ctx, h.c.client, &types.SetMultipathLunPolicy{
		This: h.storage, LunId: d.unit, Policy: &types.HostMultipathInfoLogicalUnitPolicy{Policy: pspRoundRobin},
	})
	return explain(h.Name+": use all paths", err)
}

// Detach has the host use a LUN no more. ErrInUse: a datastore on it is mounted.
func (h *Host) Detach(ctx context.Context, d Disk) error {
	if d.Detached {
		return nil
	}
	_, err := methods.DetachScsiLun(ctx, h.c.client, &types.DetachScsiLun{This: h.storage, LunUuid: d.uuid})
	return explain(h.Name+": detach the LUN", err)
}

// Forget takes a LUN that was unmapped off the host's list of those that are detached. The
// host looked for disks since.
func (h *Host) Forget(ctx context.Context, naa string) error {
	_, err := methods.DeleteScsiLunState(ctx, h.c.client, &types.DeleteScsiLunState{This: h.storage, LunCanonicalName: naa})
	if err = explain(h.Name+": forget the LUN", err); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}
