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
	datastore(p, v)
	p.noConsoleErrors()
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

// vmOn makes a virtual machine on a datastore.
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
	task, err := folder.CreateVM(t.Context(), types.VirtualMachineConfigSpec{Name: name, Files: &types.VirtualMachineFileInfo{VmPathName: "[" + datastore + "]"}}, rp, nil)
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

func datastore(p *page, v *esxsim.VCenter) {
	p.do("a datastore is planned", click(`//main//button[.="Create datastore"]`), fill(`dialog input[name=name]`, "gold1"),
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
	p.do("expanded", click(`//button[@aria-label="Expand gold1"]`), fill(`dialog input[name=size]`, "3"), click(`//dialog//button[.="Expand"]`),
		absent(`dialog`), visible(`//td[.="3 GiB"]`), visible(`//td[contains(.,"Present")]`))
	p.do("renamed", click(`//button[@aria-label="Rename gold1"]`), fill(`dialog input[name=name]`, "gold2"), click(`//dialog//button[.="Rename"]`),
		absent(`dialog`), visible(`//td[.="gold2"]`), visible(`//td[contains(.,"Present")]`))
	p.do("removed", click(`//button[@aria-label="Remove gold2"]`), fill(`dialog input[name=confirm]`, "gold2"), click(`//dialog//button[.="Remove datastore"]`),
		absent(`dialog`), visible(`//h2[.="No datastores yet"]`))
}
