package vsphere

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/vmware/govmomi/vim25/types"
)

// told is an update of one object; properties are pairs of name and value.
func told(kind types.ObjectUpdateKind, class, id string, properties ...any) []types.PropertyFilterUpdate {
	u := types.ObjectUpdate{Kind: kind, Obj: types.ManagedObjectReference{Type: class, Value: id}}
	for i := 0; i < len(properties); i += 2 {
		u.ChangeSet = append(u.ChangeSet, types.PropertyChange{Name: properties[i].(string), Op: types.PropertyChangeOpAssign, Val: properties[i+1]})
	}
	return []types.PropertyFilterUpdate{{ObjectSet: []types.ObjectUpdate{u}}}
}

func refs(class string, ids ...string) (out types.ArrayOfManagedObjectReference) {
	for _, id := range ids {
		out.ManagedObjectReference = append(out.ManagedObjectReference, types.ManagedObjectReference{Type: class, Value: id})
	}
	return out
}

func volume(disks ...string) types.VmfsDatastoreInfo {
	v := &types.HostVmfsVolume{}
	for _, d := range disks {
		v.Extent = append(v.Extent, types.HostScsiDiskPartition{DiskName: d, Partition: 1})
	}
	return types.VmfsDatastoreInfo{Vmfs: v}
}

// TestInventory: what is told in any order comes out by LUN.
func TestInventory(t *testing.T) {
	const enter, modify, leave = types.ObjectUpdateKindEnter, types.ObjectUpdateKindModify, types.ObjectUpdateKindLeave
	var i Inventory
	i.clear()
	for _, u := range [][]types.PropertyFilterUpdate{
		told(enter, "VirtualMachine", "vm-1", "name", "a%2fb%25", "runtime.powerState", types.VirtualMachinePowerStatePoweredOn,
			"runtime.host", types.ManagedObjectReference{Type: "HostSystem", Value: "host-1"}, "datastore", refs("Datastore", "ds-1", "ds-2")),
		told(enter, "VirtualMachine", "vm-2", "name", "other", "config.template", true, "datastore", refs("Datastore", "ds-3")),
		told(enter, "HostSystem", "host-1", "name", "esx1"),
		told(enter, "Datastore", "ds-1", "info", volume("naa.AA")),
		told(enter, "Datastore", "ds-2", "info", volume("naa.bb", "naa.cc")), // on two LUNs: not ours
		told(enter, "Datastore", "ds-3", "info", types.LocalDatastoreInfo{}),
		told(enter, "ClusterComputeResource", "domain-1", "name", "nobody asked"),
	} {
		if err := i.apply(u); err != nil {
			t.Fatal(err)
		}
	}
	on := func(naa string) string {
		text := ""
		for _, v := range i.On(naa) {
			text += fmt.Sprintf("%s %s %s %s %t;", v.ID, v.Name, v.Power, v.Host, v.Template)
		}
		return text
	}
	want := func(naa, text string) {
		t.Helper()
		if got := on(naa); got != text {
			t.Errorf("on %s there is %q, want %q", naa, got, text)
		}
	}
	want("naa.aa", "vm-1 a/b% poweredOn esx1 false;")
	want("naa.bb", "")
	must := func(u []types.PropertyFilterUpdate) {
		t.Helper()
		if err := i.apply(u); err != nil {
			t.Fatal(err)
		}
	}
	must(told(modify, "VirtualMachine", "vm-1", "runtime.powerState", types.VirtualMachinePowerStateSuspended, "runtime.host", nil))
	want("naa.aa", "vm-1 a/b% suspended  false;")
	must(told(modify, "VirtualMachine", "vm-2", "datastore", refs("Datastore", "ds-1")))
	must(told(leave, "VirtualMachine", "vm-1"))
	want("naa.aa", "vm-2 other   true;")
	must(told(modify, "Datastore", "ds-1", "info", volume("naa.dd")))
	want("naa.aa", "")
	want("naa.dd", "vm-2 other   true;")
	must(told(leave, "Datastore", "ds-1"))
	want("naa.dd", "")
}

// TestInventoryBound: the most that is kept takes less than 1 KiB for each, and more is refused.
func TestInventoryBound(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	var i Inventory
	i.clear()
	before := heap()
	add := func(n int) error {
		return i.apply(told(types.ObjectUpdateKindEnter, "VirtualMachine", fmt.Sprintf("vm-%d", n), "name", fmt.Sprintf("a virtual machine with a long name, %d", n),
			"runtime.powerState", types.VirtualMachinePowerStatePoweredOn, "runtime.host", types.ManagedObjectReference{Type: "HostSystem", Value: fmt.Sprintf("host-%d", n%200)},
			"datastore", refs("Datastore", fmt.Sprintf("datastore-%d", n%10), "datastore-other")))
	}
	for n := range maxInventory {
		if err := add(n); err != nil {
			t.Fatal(err)
		}
	}
	each := (heap() - before) / maxInventory
	t.Logf("%d bytes for each of %d", each, i.Len())
	if each > 1024 {
		t.Errorf("%d bytes for each", each)
	}
	if err := add(maxInventory); !errors.Is(err, errTooMany) {
		t.Errorf("with too many it says %v", err)
	}
	runtime.KeepAlive(&i)
}
