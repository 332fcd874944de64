package vsphere

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Part is a part of what a host tells of its storage: all of it is megabytes where there are
// many disks.
type Part int

// Parts.
const (
	Adapters Part = iota // the iSCSI adapter with its send targets
	Disks                // the disks with their paths
)

// parts are the properties of a host's storage system that tell of a part.
var parts = map[Part][]string{
	Adapters: {"storageDeviceInfo.hostBusAdapter", "storageDeviceInfo.softwareInternetScsiEnabled"},
	Disks:    {"storageDeviceInfo.scsiLun", "storageDeviceInfo.multipathInfo"},
}

// hostsPerLook are the hosts of a call: their answer stays below answerMax also with the
// most disks and paths that a host has.
var hostsPerLook = map[Part]int{Adapters: 64, Disks: 8}

// looksAtOnce bounds such calls at once.
const looksAtOnce = 4

// Storage is a part of a host's storage as it told of it at one time. It does not change
// and may be shared.
type Storage struct {
	host string
	info types.HostStorageDeviceInfo
	err  error // why the host does not tell
}

// Storages asks the vCenter for a part of the storage of hosts, some hosts with each call,
// and returns it by their ids. Why one host does not tell is told by its Storage. It asks
// their storage systems: with the hosts themselves a vCenter keeps an older copy.
func (c *Center) Storages(ctx context.Context, hosts []*Host, part Part) (map[string]*Storage, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	out, slots := make(map[string]*Storage, len(hosts)), make(chan struct{}, looksAtOnce)
	for some := range slices.Chunk(hosts, hostsPerLook[part]) {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			got, err := c.look(ctx, some, part)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			for i, s := range got {
				out[some[i].ID()] = s
			}
		})
	}
	wg.Wait()
	return out, errors.Join(errs...)
}

// look is one call of Storages; the order is that of hosts.
func (c *Center) look(ctx context.Context, hosts []*Host, part Part) ([]*Storage, error) {
	what := types.PropertyFilterSpec{PropSet: []types.PropertySpec{{Type: "HostStorageSystem", PathSet: parts[part]}}}
	out, place := make([]*Storage, len(hosts)), map[types.ManagedObjectReference]int{}
	for i, h := range hosts {
		out[i], place[h.storage] = &Storage{host: h.Name, err: ErrHostAway}, i
		if h.storage.Value != "" {
			what.ObjectSet = append(what.ObjectSet, types.ObjectSpec{Obj: h.storage})
		}
	}
	if len(what.ObjectSet) == 0 {
		return out, nil
	}
	keep := func(objects []types.ObjectContent) error {
		for _, o := range objects {
			i, asked := place[o.Obj]
			if !asked {
				continue
			}
			out[i].err = nil
			for _, p := range o.MissingSet {
				out[i].err = missing(p.Fault.Fault)
			}
			o.MissingSet = nil
			v, err := mo.ObjectContentToType(o)
			s, ok := v.(mo.HostStorageSystem)
			if err != nil || !ok {
				return fmt.Errorf("%s: look at its storage: %w: it tells no storage", out[i].host, ErrRefused)
			}
			if s.StorageDeviceInfo != nil {
				out[i].info = *s.StorageDeviceInfo
			} else if out[i].err == nil {
				out[i].err = ErrHostAway
			}
		}
		return nil
	}
	if err := c.retrieve(ctx, what, keep); err != nil {
		return nil, explain("look at the storage of hosts", err)
	}
	return out, nil
}

// retrieve asks for properties, and has keep see the answer part by part.
func (c *Center) retrieve(ctx context.Context, what types.PropertyFilterSpec, keep func([]types.ObjectContent) error) error {
	collector := c.client.ServiceContent.PropertyCollector
	res, err := methods.RetrievePropertiesEx(ctx, c.client, &types.RetrievePropertiesEx{This: collector, SpecSet: []types.PropertyFilterSpec{what}})
	if err != nil {
		return err
	}
	for r := res.Returnval; r != nil; {
		if err := keep(r.Objects); err != nil {
			return err
		}
		if r.Token == "" {
			break
		}
		more, err := methods.ContinueRetrievePropertiesEx(ctx, c.client, &types.ContinueRetrievePropertiesEx{This: collector, Token: r.Token})
		if err != nil {
			return err
		}
		r = (*types.RetrieveResult)(&more.Returnval)
	}
	return nil
}

// missing is why a property is not there, in our words.
func missing(f types.BaseMethodFault) error {
	for _, r := range reasons {
		if fault.Is(f, r.fault) {
			return r.is
		}
	}
	return ErrHostAway
}

// look asks for a part of the host's own storage.
func (h *Host) look(ctx context.Context, part Part) (*Storage, error) {
	s, err := h.c.look(ctx, []*Host{h}, part)
	if err != nil {
		return nil, err
	}
	return s[0], s[0].Err()
}

// Err tells why the host does not tell of its storage.
func (s *Storage) Err() error {
	if s.err == nil {
		return nil
	}
	return fmt.Errorf("%s: look at its storage: %w", s.host, s.err)
}

// adapter is the software iSCSI adapter, nil: it is off.
func (s *Storage) adapter() *types.HostInternetScsiHba {
	for _, a := range s.info.HostBusAdapter {
		if h, ok := a.(*types.HostInternetScsiHba); ok && h.IsSoftwareBased {
			return h
		}
	}
	return nil
}

// Initiator is the host's iSCSI name, and the device of the adapter that has it; empty:
// software iSCSI is off. It is of the part Adapters.
func (s *Storage) Initiator() (name, device string) {
	if a := s.adapter(); a != nil {
		return a.IScsiName, a.Device
	}
	return "", ""
}

// Disk finds a LUN by its NAA name, "naa." and hexadecimal digits. ErrNotFound: the host
// does not see it. It is of the part Disks, as is DiskAt.
func (s *Storage) Disk(naa string) (Disk, error) {
	if err := s.Err(); err != nil {
		return Disk{}, err
	}
	for _, l := range s.info.ScsiLun {
		if d, ok := l.(*types.HostScsiDisk); ok && strings.EqualFold(d.CanonicalName, naa) {
			return diskOf(d, s.info.MultipathInfo), nil
		}
	}
	return Disk{}, fmt.Errorf("%s: LUN %s: %w", s.host, naa, ErrNotFound)
}

// DiskAt is Disk for a LUN of a target. ErrAnother: on some path that LUN has another name.
func (s *Storage) DiskAt(naa, target string, lun uint16) (Disk, error) {
	if err := s.Err(); err != nil {
		return Disk{}, err
	}
	var found *types.HostScsiDisk
	for _, l := range s.info.ScsiLun {
		d, ok := l.(*types.HostScsiDisk)
		if !ok {
			continue
		}
		if strings.EqualFold(d.CanonicalName, naa) {
			found = d
			continue
		}
		for _, p := range diskOf(d, s.info.MultipathInfo).Paths {
			// A number may be one that another disk had: its paths are dead.
			if p.Target == target && p.lun == int(lun) && p.State != pathDead {
				return Disk{}, fmt.Errorf("%s: LUN %d of %s at %s is %s, not %s: %w", s.host, lun, target, p.Portal, d.CanonicalName, naa, ErrAnother)
			}
		}
	}
	if found == nil {
		return Disk{}, fmt.Errorf("%s: LUN %s: %w", s.host, naa, ErrNotFound)
	}
	return diskOf(found, s.info.MultipathInfo), nil
}

// Ways counts the paths to a target that are not dead.
func (d Disk) Ways(target string) int {
	n := 0
	for _, p := range d.Paths {
		if p.Target == target && p.State != pathDead {
			n++
		}
	}
	return n
}
