package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
	"github.com/openvstorage/ovgate/scripts/drill/node"
)

const (
	// needVSphere is the free space that the set vsphere asks for.
	needVSphere = 4 << 30
	// vsphereHosts are the hosts of its cluster where rows count, and vsphereDatastores what
	// is made on all of them at once.
	vsphereHosts, vsphereDatastores = 200, 10
	// vspherePatience bounds how long they may take.
	vspherePatience = 30 * time.Minute
)

// vsphereRows are the rows of the set vsphere.
var vsphereRows = []goRow{
	{name: "10 datastores on 200 hosts, created", metric: "s-create", unit: "ms", scale: 1000, limit: 60_000, goal: 1, config: vsphereConfig},
	{name: "10 datastores on 200 hosts, calls to a host", metric: "calls/host", unit: "calls", scale: 1, limit: 40, goal: 1, config: vsphereConfig},
	{name: "10 datastores on 200 hosts, memory of the node", metric: "MiB-node", unit: "MiB", scale: 1, limit: 512, goal: 1, config: vsphereConfig},
	{name: "a virtual machine's change at the vCenter, until it is told", metric: "ms-vm", unit: "ms", scale: 1, limit: 5000, goal: 1, config: vsphereConfig + "; median of 11 renames, looked for every 10 ms"},
	{name: "a datastore on 200 hosts, looked at with its paths", metric: "s-look", unit: "ms", scale: 1000, limit: 10_000, goal: 1, config: vsphereConfig},
}

const vsphereConfig = "ovgate serve, vPool on a local directory, 10 datastores of 2 GiB asked for at once, until all are on all hosts; the vCenter and its hosts are simulated in the bench's process on the same machine, and log in to the node's target"

// measureVSphere makes datastores on the hosts of a simulated vCenter.
func measureVSphere(ctx context.Context, o options, dir string, r *results) (err error) {
	fmt.Printf("bench: %d datastores on %d simulated hosts\n", vsphereDatastores, o.hosts)
	bin, err := node.Build(ctx, dir)
	if err != nil {
		return err
	}
	n, err := node.New(node.Options{Bin: bin, Data: filepath.Join(dir, "vsphere")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := n.Start(ctx); err != nil {
		return err
	}
	if err := n.CreateVPool(ctx, "fast", filepath.Join(dir, "vsphere-backend"), "--journal-quota", "128MiB", "--sco-size", "4MiB"); err != nil {
		return err
	}
	api, err := n.API()
	if err != nil {
		return err
	}
	v, err := esxsim.Start(esxsim.Options{Hosts: o.hosts})
	if err != nil {
		return err
	}
	defer v.Close()
	_, err = client.Get[client.CenterResult](api.CreateCenter(ctx, nil, client.CenterInput{
		Name: "dc", Options: client.CenterOptionsInput{URL: new(v.URL()), User: new(v.User())}, Secret: new(v.Password()),
	}))
	if err != nil {
		return err
	}
	c := &vsphereCalls{}
	v.Before(c.count)
	profiled, err := o.profiled("vsphere-simulator", o.rounds-1)
	if err != nil {
		return err
	}
	used, err := processTime(n.PID())
	if err != nil {
		return err
	}
	began := time.Now()
	err = errors.Join(makeDatastores(ctx, api), profiled())
	took := time.Since(began)
	v.Before(nil)
	if err != nil {
		return fmt.Errorf("%w; calls: %s; %s", err, c, n.LogTail())
	}
	now, err := processTime(n.PID())
	if err != nil {
		return err
	}
	memory, err := resident(n.PID())
	if err != nil {
		return err
	}
	look := time.Now()
	if err := checkDatastores(ctx, api, o.hosts); err != nil {
		return err
	}
	looked := time.Since(look) / vsphereDatastores
	change, err := measureChanges(ctx, api, v)
	if err != nil {
		return err
	}
	perHost := float64(c.onHosts) / float64(o.hosts)
	fmt.Printf("  %.1f s, %.1f calls to a host and %d to the vCenter itself (%s); %d logins; CPU of the node %.1f s, its memory %.0f MiB; a look %.2f s; a change is told after %.0f ms\n",
		took.Seconds(), perHost, c.others, c, v.Logins(), now-used, memory, looked.Seconds(), change)
	if o.hosts != vsphereHosts {
		fmt.Printf("bench: no rows: they are for %d hosts\n", vsphereHosts)
		return nil
	}
	r.vsphere = map[string]float64{"s-create": took.Seconds(), "calls/host": perHost, "MiB-node": memory, "s-look": looked.Seconds(), "ms-vm": change}
	return nil
}

// makeDatastores asks for all datastores at once and waits until all are there.
func makeDatastores(ctx context.Context, api *client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, vspherePatience)
	defer cancel()
	var wg sync.WaitGroup
	errs := make([]error, vsphereDatastores)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = client.Get[client.DatastoreResult](api.CreateDatastore(ctx, nil, client.DatastoreInput{
				Name: vsphereName(i), Center: "dc", Cluster: new(esxsim.Cluster), VPool: "fast", Size: 2 << 30,
			}))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i := range vsphereDatastores {
		for last := ""; ; {
			d, err := client.Get[client.Datastore](api.GetDatastore(ctx, vsphereName(i)))
			if err != nil {
				return fmt.Errorf("%w: %s", err, last)
			}
			if d.Job == nil {
				break
			}
			if now := d.Job.Step + " " + d.Job.Error; now != last {
				fmt.Printf("  %s: %s\n", d.Name, now)
				last = now
			}
			if err := pause(ctx, 100*time.Millisecond); err != nil {
				return fmt.Errorf("%s: %w: %+v", d.Name, err, *d.Job)
			}
		}
	}
	return nil
}

func vsphereName(i int) string { return fmt.Sprint("made", i) }

// checkDatastores sees that every host has every datastore, with all its paths in use.
func checkDatastores(ctx context.Context, api *client.Client, hosts int) error {
	for i := range vsphereDatastores {
		d, err := client.Get[client.DatastoreLive](api.LookAtDatastore(ctx, vsphereName(i)))
		if err != nil {
			return err
		}
		if len(d.Hosts) != hosts {
			return fmt.Errorf("%s is on %d hosts", vsphereName(i), len(d.Hosts))
		}
		for _, h := range d.Hosts {
			if !h.Mounted || !h.Accessible || h.Policy != "VMW_PSP_RR" || len(h.Paths) == 0 {
				return fmt.Errorf("%s on %s is %+v", vsphereName(i), h.Host, h)
			}
		}
	}
	return nil
}

// measureChanges renames a virtual machine some times, and returns after how many ms the node
// tells of that, the median.
func measureChanges(ctx context.Context, api *client.Client, v *esxsim.VCenter) (float64, error) {
	const times = 11
	c, err := v.Client(ctx)
	if err != nil {
		return 0, err
	}
	f := find.NewFinder(c.Client)
	folder, err := f.Folder(ctx, "/DC0/vm")
	if err != nil {
		return 0, err
	}
	rp, err := f.ResourcePool(ctx, "/DC0/host/"+esxsim.Cluster+"/Resources")
	if err != nil {
		return 0, err
	}
	task, err := folder.CreateVM(ctx, types.VirtualMachineConfigSpec{Name: "vm", Files: &types.VirtualMachineFileInfo{VmPathName: "[" + vsphereName(0) + "]"}}, rp, nil)
	if err == nil {
		err = task.Wait(ctx)
	}
	if err != nil {
		return 0, err
	}
	vm, err := f.VirtualMachine(ctx, "/DC0/vm/vm")
	if err != nil {
		return 0, err
	}
	var took []float64
	for i := range times + 1 {
		name := fmt.Sprint("renamed", i)
		began := time.Now()
		if task, err = vm.Rename(ctx, name); err == nil {
			err = task.Wait(ctx)
		}
		for told := false; err == nil && !told; {
			var l client.VirtualMachineList
			l, err = client.Get[client.VirtualMachineList](api.ListVMs(ctx, &client.ListVMsParams{Datastore: new(vsphereName(0))}))
			told = len(l.Items) == 1 && l.Items[0].Name == name
			if err == nil && !told {
				err = pause(ctx, 10*time.Millisecond)
			}
		}
		if err != nil {
			return 0, err
		}
		if i > 0 { // the first has the node begin
			took = append(took, float64(time.Since(began).Microseconds())/1000)
		}
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// vsphereCalls counts calls at a vCenter.
type vsphereCalls struct {
	mu              sync.Mutex
	onHosts, others int
	methods         map[string]int
}

func (c *vsphereCalls) count(call esxsim.Call) types.BaseMethodFault {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.methods == nil {
		c.methods = map[string]int{}
	}
	c.methods[call.Method]++
	if call.Host != "" {
		c.onHosts++
	} else {
		c.others++
	}
	return nil
}

// String tells how often each method was called.
func (c *vsphereCalls) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprint(c.methods)
}
