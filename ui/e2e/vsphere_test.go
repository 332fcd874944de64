package e2e

import (
	"net/http"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
)

// TestVSphere makes a datastore in the browser at a simulated vCenter whose hosts do real iSCSI, and takes it
// through its life.
func TestVSphere(t *testing.T) {
	t.Parallel()
	v, err := esxsim.Start(esxsim.Options{Hosts: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	n := startNode(t)
	p := openPage(t)
	p.do("open", chromedp.EmulateViewport(1440, 900), chromedp.Navigate(n.url+"/"))
	setUp(p, n)
	createVPool(p, filepath.Join(t.TempDir(), "backend"))
	addCenter(p, v)
	plugin(p, n)
	datastore(p, n, v)
	p.noConsoleErrors()
}

// plugin registers the plug-in at the vCenter, and takes it away.
func plugin(p *page, n *testNode) {
	p.do("no plug-in yet", click(`//button[@aria-label="Plug-in at prod"]`), visible(`//dialog//dd[.="No"]`), until(`document.querySelector("dialog input[name=url]").value === location.origin`))
	p.provokes("/plugin")
	p.do("an address that the vCenter cannot use is refused at its field", fill(`dialog input[name=url]`, "http://127.0.0.1:1"), click(`//dialog//button[.="Register"]`), visible(`dialog input[name=url][aria-invalid=true]`))
	bothOver(p, "plug-in, refused", "52-plugin-refused")
	p.do("it is registered", fill(`dialog input[name=url]`, n.url), click(`//dialog//button[.="Register"]`), visible(`//dialog//dd[starts-with(.,"Yes, version")]`))
	bothOver(p, "plug-in", "52-plugin")
	p.do("and taken away", click(`//dialog//button[.="Unregister"]`), visible(`//dialog//dd[.="No"]`), click(`//dialog//button[.="Close"]`), absent(`dialog`))
}

// rawDisk gives a virtual machine a vDisk, and takes it away.
func rawDisk(p *page, n *testNode, vm string) {
	n.call(http.MethodPost, "/vdisks", map[string]any{"name": "quorum", "vpool": "default", "size": 1 << 30}, nil)
	p.do("no raw disks yet", visible(`//h2[.="No raw disks yet"]`))
	p.provokes("/vsphere/rdms")
	p.do("an unknown virtual machine is refused at its field", click(`//main//button[.="Give a raw disk"]`), fill(`dialog input[name=vdisk]`, "quorum"), fill(`dialog input[name=vm]`, "nobody"),
		click(`//dialog//button[.="Show the plan"]`), visible(`//dialog//*[@role="alert"][contains(.,"nobody")]`))
	p.audit("raw disk, refused")
	p.do("a plan", fill(`dialog input[name=vm]`, "web"), click(`//dialog//button[.="Show the plan"]`), visible(`//dialog//b[.="This is to be done"]`))
	bothOver(p, "plan of a raw disk", "56-raw-disk")
	p.do("it is given", click(`//dialog//button[.="Give it"]`), absent(`dialog`), visible(`//tr[td[.="web"]][td[.="quorum"]]//span[contains(.,"Present")]`))
	p.do("and taken", click(`//button[@aria-label="Take quorum.`+vm+`"]`), visible(`//dialog//li[contains(.,"The vDisk stays")]`), fill(`dialog input[name=confirm]`, "quorum"))
	p.audit("take a raw disk")
	p.do("in the background", click(`//dialog//button[.="Take the disk"]`), absent(`dialog`), visible(`//h2[.="No raw disks yet"]`))
}

// imported goes back to a snapshot of a datastore.
func imported(p *page, n *testNode) {
	var list struct{ Items []struct{ VDisk string } }
	n.call(http.MethodGet, "/vsphere/datastores", nil, &list)
	if len(list.Items) != 1 {
		p.t.Fatalf("datastores: %+v", list)
	}
	n.call(http.MethodPost, "/vdisks/"+list.Items[0].VDisk+"/clone", map[string]any{"name": "gold1-evening", "snapshot": "evening"}, nil)
	p.provokes("/import")
	p.do("what is not there is refused at its field", click(`//main//button[.="Import datastore"]`), fill(`dialog input[name=vdisk]`, "nothing"), fill(`dialog input[name=name]`, "back"),
		visible(`//dialog//select[@name="cluster"]/option[.="`+esxsim.Cluster+`"]/..`), click(`//dialog//button[.="Import"]`), visible(`//dialog//*[@role="alert"][contains(.,"nothing")]`))
	bothOver(p, "import a datastore, refused", "57-import")
	p.do("a clone is imported", fill(`dialog input[name=vdisk]`, "gold1-evening"), click(`//dialog//button[.="Import"]`), absent(`dialog`), visible(`//tr[td[.="back"]]//span[contains(.,"Present")]`))
	both(p, "two datastores", "58-imported")
	p.do("it goes", click(`//button[@aria-label="Remove back"]`), fill(`dialog input[name=confirm]`, "back"), click(`//dialog//button[.="Remove datastore"]`), absent(`dialog`), absent(`//td[.="back"]`))
}

func addCenter(p *page, v *esxsim.VCenter) {
	p.do("no vCenters yet", click(`//nav//a[@href="/vsphere"]`), visible(`//h2[.="No vCenters yet"]`))
	p.audit("no vCenters")
	p.shot("50-no-vcenters")
	p.do("a certificate is not trusted by chance", click(`//main//button[.="Add vCenter"]`), fill(`dialog input[name=name]`, "prod"),
		fill(`dialog input[name=url]`, v.URL()), fill(`dialog input[name=user]`, v.User()), fill(`dialog input[name=secret]`, v.Password()),
		click(`//dialog//button[.="Add"]`), visible(`dialog input[name=thumbprint][aria-invalid=true]`))
	p.audit("vCenter without a thumbprint")
	p.shot("51-add-vcenter")
	p.do("it is added", fill(`dialog input[name=thumbprint]`, v.Thumbprint()), click(`//dialog//button[.="Add"]`),
		visible(`//dialog//code[.="`+v.Thumbprint()+`"]`))
	p.audit("vCenter added")
	p.do("it is there", click(`//dialog//button[.="Done"]`), visible(`//td[.="prod"]`))
	p.mayAskLate(http.StatusBadRequest, "/vsphere/centers/")
	p.do("another password is tried before it is kept", click(`//button[@aria-label="Change prod"]`), fill(`dialog input[name=secret]`, "not the password"), click(`//dialog//button[.="Test and save"]`),
		visible(`//dialog//*[@role="alert"]|//dialog//input[@name="secret"][@aria-invalid="true"]`))
	p.audit("change vCenter, refused")
	p.shot("52-change-vcenter")
	p.do("another name, with the password that is kept", click(`//dialog//button[.="Cancel"]`), absent(`dialog`), click(`//button[@aria-label="Change prod"]`), fill(`dialog input[name=name]`, "lab"), click(`//dialog//button[.="Test and save"]`), absent(`dialog`), visible(`//td[.="lab"]`),
		click(`//button[@aria-label="Change lab"]`), fill(`dialog input[name=name]`, "prod"), click(`//dialog//button[.="Test and save"]`), absent(`dialog`), visible(`//td[.="prod"]`))
	p.do("hosts", click(`//button[@aria-label="Hosts of prod"]`), visible(`//dialog//td[.="`+esxsim.Cluster+`"]`))
	p.do("what preparing them would do", click(`//dialog//button[.="Prepare `+esxsim.Cluster+`"]`), visible(`//dialog//b[.="This is to be done"]`))
	p.audit("hosts with a plan")
	p.shot("52-hosts")
	p.do("closed", click(`dialog button[aria-label=Close]`), absent(`dialog`))
}

// vmOn makes a virtual machine on a datastore, with a SCSI controller.
func vmOn(t *testing.T, v *esxsim.VCenter, datastore, name string) *object.VirtualMachine {
	t.Helper()
	c, err := v.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := find.NewFinder(c.Client)
	folder, err := f.Folder(t.Context(), "/DC0/vm")
	if err != nil {
		t.Fatal(err)
	}
	rp, err := f.ResourcePool(t.Context(), "/DC0/host/"+esxsim.Cluster+"/Resources")
	if err != nil {
		t.Fatal(err)
	}
	task, err := folder.CreateVM(t.Context(), types.VirtualMachineConfigSpec{Name: name, Files: &types.VirtualMachineFileInfo{VmPathName: "[" + datastore + "]"},
		DeviceChange: []types.BaseVirtualDeviceConfigSpec{&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd,
			Device: &types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{SharedBus: types.VirtualSCSISharingNoSharing,
				VirtualController: types.VirtualController{BusNumber: 1, VirtualDevice: types.VirtualDevice{Key: -1}}}}}}}, rp, nil)
	waitTask(t, task, err)
	vm, err := f.VirtualMachine(t.Context(), "/DC0/vm/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func waitTask(t *testing.T, task *object.Task, err error) {
	t.Helper()
	if err == nil {
		err = task.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// lateVPools keeps the page from what it asks about vPools until it is told to come.
const lateVPools = `{
	const real = window.fetch, coming = new Promise((come) => { window.come = come });
	window.fetch = async (path, ...rest) => {
		if (String(path.url ?? path).includes("/vpools?")) await coming;
		return real(path, ...rest);
	};
}`

func datastore(p *page, n *testNode, v *esxsim.VCenter) {
	p.do("nothing is asked for before its vPool is known", chromedp.Evaluate[chromedp.Void](lateVPools), click(`//main//button[.="Create datastore"]`),
		visible(`//dialog//button[.="Show the plan"][@aria-disabled="true"][starts-with(@title,"What there is to choose from")]`), chromedp.Evaluate[chromedp.Void](`window.come()`))
	p.do("a datastore is planned", fill(`dialog input[name=name]`, "gold1"),
		visible(`//dialog//select[@name="cluster"]/option[.="`+esxsim.Cluster+`"]/..`), fill(`dialog input[name=size]`, "2"), choose(`dialog select[aria-label="Unit of size"]`, "GiB"),
		click(`//dialog//button[.="Show the plan"]`), visible(`//dialog//b[.="This is to be done"]`))
	p.audit("plan of a datastore")
	p.shot("53-plan")
	p.do("and made", click(`//dialog//button[.="Create it"]`), absent(`dialog`), visible(`//td[.="gold1"]`),
		visible(`//td[contains(.,"Present")]`))
	p.audit("datastores")
	p.shot("54-datastores")
	vm := vmOn(p.t, v, "gold1", "web")
	p.do("its paths", click(`//button[@aria-label="Live state of gold1"]`), visible(`//dialog//td[contains(.,"Mounted")]`), visible(`//dialog//td[contains(.,"active")]`),
		visible(`//dialog//td[.="web"]`))
	p.audit("datastore, live")
	p.shot("55-live")
	task, err := vm.PowerOn(p.t.Context())
	waitTask(p.t, task, err)
	p.do("a virtual machine that is on", visible(`//dialog//tr[td[.="web"]]/td[contains(.,"On")]`))
	task, err = vm.PowerOff(p.t.Context())
	waitTask(p.t, task, err)
	p.do("closed for a raw disk", click(`dialog button[aria-label=Close]`), absent(`dialog`))
	rawDisk(p, n, vm.Reference().Value)
	p.do("live again", click(`//button[@aria-label="Live state of gold1"]`), visible(`//dialog//td[.="web"]`))
	task, err = vm.Destroy(p.t.Context())
	waitTask(p.t, task, err)
	p.do("and gone", absent(`//dialog//td[.="web"]`))
	p.do("closed", click(`dialog button[aria-label=Close]`), absent(`dialog`))
	p.do("a snapshot", click(`//button[@aria-label="Snapshot of gold1"]`), fill(`dialog input[name=name]`, "evening"), click(`//dialog//button[.="Make snapshot"]`),
		absent(`dialog`), click(`//button[@aria-label="Live state of gold1"]`), visible(`//dialog//dt[.="Snapshot evening"]`),
		visible(`//td[contains(.,"Present")]`))
	p.audit("snapshot of a datastore")
	p.shot("56-datastore-snapshot")
	p.do("closed again", click(`dialog button[aria-label=Close]`), absent(`dialog`))
	imported(p, n)
	p.do("expanded", click(`//button[@aria-label="Expand gold1"]`), fill(`dialog input[name=size]`, "3"), click(`//dialog//button[.="Expand"]`),
		absent(`dialog`), visible(`//td[.="3 GiB"]`), visible(`//td[contains(.,"Present")]`))
	p.do("renamed", click(`//button[@aria-label="Rename gold1"]`), fill(`dialog input[name=name]`, "gold2"), click(`//dialog//button[.="Rename"]`),
		absent(`dialog`), visible(`//td[.="gold2"]`), visible(`//td[contains(.,"Present")]`))
	p.do("removed", click(`//button[@aria-label="Remove gold2"]`), fill(`dialog input[name=confirm]`, "gold2"), click(`//dialog//button[.="Remove datastore"]`),
		absent(`dialog`), visible(`//h2[.="No datastores yet"]`))
}
