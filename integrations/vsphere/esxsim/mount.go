package esxsim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// rescanVolumes looks at what the disks carry, and returns what mounts that and forgets what
// they carry no more; see rescan.
func (h *Host) rescanVolumes() (keep func(*simulator.Context)) {
	read := h.readHeaders()
	return func(ctx *simulator.Context) {
		h.mountAll(ctx, keepHeaders(read))
	}
}

func (h *Host) mountAll(ctx *simulator.Context, away map[*lun]bool) {
	there := map[string]bool{}
	for _, l := range h.sorted() {
		if away[l] || l.header == nil || l.header.Disk != l.name || h.detached[l.name] {
			continue
		}
		there[l.header.UUID] = true
		if _, err := h.mount(ctx, l); err != nil {
			h.f.log.Info("a volume is not mounted", "host", h.sys.Name, "volume", l.header.Label, "err", err)
		}
	}
	for id, disk := range h.mounted {
		if there[id] {
			continue
		}
		l := h.luns[disk]
		if l != nil && (away[l] || !l.alive()) && !h.unmounted[id] && !h.detached[disk] {
			if l.alive() {
				continue
			}
			h.mountInfo(ctx, id, func(m *types.HostMountInfo) {
				m.Accessible, m.InaccessibleReason = new(false), lost(l)
			})
			continue // a volume whose disk is away is shown still
		}
		h.forget(ctx, id)
	}
}

// mount makes a volume one of this host's datastores; the first host makes the datastore.
func (h *Host) mount(ctx *simulator.Context, l *lun) (types.ManagedObjectReference, error) {
	id := l.header.UUID
	dir := filepath.Join(h.f.dir, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return types.ManagedObjectReference{}, err
	}
	if _, known := h.mounted[id]; !known {
		if err := h.join(ctx, l, dir); err != nil {
			return types.ManagedObjectReference{}, err
		}
	}
	ref := h.f.datastores[id]
	h.describe(ctx, l, dir)
	return ref, nil
}

// join adds the host to a volume's datastore. The simulator knows datastores of directories
// only, where it keeps the files of virtual machines.
func (h *Host) join(ctx *simulator.Context, l *lun, dir string) error {
	f, id, name := h.f, l.header.UUID, l.header.Label
	if ref, ok := f.datastores[id]; ok {
		name = f.reg.Get(ref).(*simulator.Datastore).Name // it may be renamed since
	}
	res := h.dss.CreateLocalDatastore(ctx, &types.CreateLocalDatastore{This: h.dss.Self, Name: name, Path: dir})
	if fault := res.Fault(); fault != nil {
		return fmt.Errorf("datastore %s: %s", name, fault.String)
	}
	h.mounted[id] = l.name
	if _, ok := f.datastores[id]; ok {
		return nil
	}
	for _, r := range h.dss.Datastore {
		if d, ok := f.reg.Get(r).(*simulator.Datastore); ok && d.Name == name {
			f.datastores[id] = r
			f.instead(r, &datastore{Datastore: d, f: f, id: id})
			return nil
		}
	}
	return fmt.Errorf("datastore %s is not found", name)
}

// describe tells the simulator of a volume what its header says.
func (h *Host) describe(ctx *simulator.Context, l *lun, dir string) {
	ds, ok := h.f.reg.Get(h.f.datastores[l.header.UUID]).(*simulator.Datastore)
	if !ok {
		return
	}
	free := max(l.capacity()-ownSpace-sizeOf(dir), 0)
	info := &types.VmfsDatastoreInfo{
		DatastoreInfo: types.DatastoreInfo{Name: ds.Name, Url: dir, FreeSpace: free, ContainerId: l.header.UUID, Timestamp: types.NewTime(time.Now()), MaxFileSize: 62 << 40},
		Vmfs: &types.HostVmfsVolume{
			HostFileSystemVolume: types.HostFileSystemVolume{Type: "VMFS", Name: ds.Name, Capacity: l.capacity()},
			BlockSizeMb:          1, MajorVersion: l.header.Major, Version: fmt.Sprintf("%d.82", l.header.Major), Uuid: l.header.UUID,
			Extent: []types.HostScsiDiskPartition{{DiskName: l.name, Partition: 1}}, Local: new(false),
		},
	}
	s := ds.Summary // as a whole: the simulator cannot assign to a pointer in it
	s.Type, s.Url, s.Capacity, s.FreeSpace, s.MultipleHostAccess = "VMFS", dir, l.capacity(), free, new(len(ds.Host) > 1)
	ctx.Map.Update(ctx, ds, []types.PropertyChange{{Name: "info", Val: info}, {Name: "summary", Val: s}})
	up := l.alive() && !h.unmounted[l.header.UUID]
	h.mountInfo(ctx, l.header.UUID, func(m *types.HostMountInfo) {
		m.Path = "/vmfs/volumes/" + l.header.UUID
		m.Mounted, m.Accessible, m.InaccessibleReason = new(!h.unmounted[l.header.UUID]), new(up), ""
	})
}

// mountInfo changes what a datastore says of this host.
func (h *Host) mountInfo(ctx *simulator.Context, id string, change func(*types.HostMountInfo)) {
	ds, ok := h.f.reg.Get(h.f.datastores[id]).(*simulator.Datastore)
	if !ok {
		return
	}
	i := slices.IndexFunc(ds.Host, func(m types.DatastoreHostMount) bool { return m.Key == h.sys.Self })
	if i < 0 {
		return
	}
	info, any := ds.Host[i].MountInfo, false
	change(&info)
	for j, o := range ds.Host {
		any = any || j != i && isTrue(o.MountInfo.Accessible)
	}
	any = any || isTrue(info.Accessible)
	if reflect.DeepEqual(info, ds.Host[i].MountInfo) && any == ds.Summary.Accessible {
		return // nobody is told
	}
	hosts := slices.Clone(ds.Host)
	hosts[i].MountInfo = info
	s := ds.Summary
	s.Accessible = any
	ctx.Map.Update(ctx, ds, []types.PropertyChange{{Name: "host", Val: hosts}, {Name: "summary", Val: s}})
}

func isTrue(b *bool) bool { return b != nil && *b }

// forget takes the host off a datastore; the last host takes the datastore away.
func (h *Host) forget(ctx *simulator.Context, id string) {
	f := h.f
	ref, ok := f.datastores[id]
	if !ok {
		return
	}
	delete(h.mounted, id)
	delete(h.unmounted, id)
	simulator.RemoveReference(&h.dss.Datastore, ref)
	ds := f.reg.Get(ref).(*simulator.Datastore)
	for _, o := range f.hosts {
		if _, still := o.mounted[id]; still {
			ctx.Map.RemoveReference(ctx, h.sys, &h.sys.Datastore, ref)
			hosts := slices.DeleteFunc(slices.Clone(ds.Host), func(m types.DatastoreHostMount) bool { return m.Key == h.sys.Self })
			ctx.Map.Update(ctx, ds, []types.PropertyChange{{Name: "host", Val: hosts}})
			return
		}
	}
	if body, ok := ds.DestroyTask(ctx, &types.Destroy_Task{This: ref}).(*methods.Destroy_TaskBody); ok && body.Res != nil {
		if t, ok := f.reg.Get(body.Res.Returnval).(*simulator.Task); ok {
			t.Wait()
		}
	}
	f.reg.Remove(ctx, ref)
	delete(f.datastores, id)
	f.notInstead(ctx, ref)
}

// sizeOf is what files below a directory take, in bytes.
func sizeOf(dir string) (n int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		i, err := d.Info()
		if err == nil {
			n += i.Size()
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return n // a file that was deleted meanwhile
	}
	return n
}

// datastore is what clients are given in place of the simulator's: that one invents a
// capacity, and has no name to change.
type datastore struct {
	*simulator.Datastore
	f  *fabric
	id string
}

// RefreshDatastore implements the method of the API.
func (d *datastore) RefreshDatastore(ctx *simulator.Context, _ *types.RefreshDatastore) soap.HasFault {
	s := d.Summary
	s.FreeSpace = max(s.Capacity-ownSpace-sizeOf(filepath.Join(d.f.dir, d.id)), 0)
	ctx.Map.Update(ctx, d.Datastore, []types.PropertyChange{{Name: "summary", Val: s}})
	return &methods.RefreshDatastoreBody{Res: &types.RefreshDatastoreResponse{}}
}

// RefreshDatastoreStorageInfo implements the method of the API.
func (d *datastore) RefreshDatastoreStorageInfo(ctx *simulator.Context, _ *types.RefreshDatastoreStorageInfo) soap.HasFault {
	d.RefreshDatastore(ctx, nil)
	return &methods.RefreshDatastoreStorageInfoBody{Res: &types.RefreshDatastoreStorageInfoResponse{}}
}

// RenameTask implements the method of the API: the name is in the volume's header.
func (d *datastore) RenameTask(ctx *simulator.Context, r *types.Rename_Task) soap.HasFault {
	if other, taken := d.f.nameTaken(r.NewName); taken && other != d.Self {
		return &methods.Rename_TaskBody{Fault_: simulator.Fault("the name is taken", &types.DuplicateName{Name: r.NewName, Object: other})}
	}
	if err := d.f.relabel(d.id, r.NewName); err != nil {
		return &methods.Rename_TaskBody{Fault_: hostConfig(err)}
	}
	res := simulator.RenameTask(ctx, d.Datastore, r)
	s := d.Summary
	s.Name = r.NewName
	ctx.Map.Update(ctx, d.Datastore, []types.PropertyChange{{Name: "summary", Val: s}})
	return res
}

// relabel writes a volume's new name.
func (f *fabric) relabel(id, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for oid, ref := range f.datastores {
		if ds, ok := f.reg.Get(ref).(*simulator.Datastore); ok && oid != id && ds.Name == name {
			return fmt.Errorf("there is a datastore %s", name)
		}
	}
	done := false
	for _, h := range f.hosts {
		l := h.luns[h.mounted[id]]
		if l == nil || l.header == nil {
			continue
		}
		hd := *l.header
		hd.Label = name
		if !done {
			if err := h.rewrite(l, &hd); err != nil {
				continue // another host may have a path
			}
			done = true
		}
		l.header = &hd
	}
	if !done {
		return errors.New("no host reaches the volume")
	}
	return nil
}
