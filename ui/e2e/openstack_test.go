package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"

	"github.com/openvstorage/ovgate/integrations/cinder"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

// TestOpenStack looks at the page before there is a cloud, attaches the node to a real Cinder with a token that the console
// made, registers that cloud, and gives it volume types.
func TestOpenStack(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "fast", "backend": map[string]any{"kind": "local", "path": filepath.Join(t.TempDir(), "fast")}}, nil)
	p := openPageFor(t, 2*flowLimit) // a Cinder takes minutes to start on a busy machine
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/"), visible(`nav.side`))
	p.do("no clouds yet", click(`//nav//a[@href="/openstack"]`), visible(`//h2[.="No clouds yet"]`))
	p.audit("no clouds")
	p.shot("60-no-clouds")
	p.provokes("/openstack/clouds")
	p.do("a bad address is refused at its field", click(`//main//button[.="Add cloud"]`), fill(`dialog input[name=name]`, "prod"),
		fill(`dialog input[name=url]`, "keystone"), fill(`dialog input[name=user]`, "ovgate"), fill(`dialog input[name=project]`, "admin"),
		fill(`dialog input[name=secret]`, "not the password"), click(`//dialog//button[.="Add"]`), visible(`dialog input[name=url][aria-invalid=true]`))
	p.audit("cloud with an error")
	p.shot("61-cloud-refused")
	p.do("never mind", click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
	cloud(p, n, attach(p, n))
	p.noConsoleErrors()
}

// attach starts a Cinder that has the node as its backend.
func attach(p *page, n *testNode) map[string]string {
	t := p.t
	p.do("attach to Cinder", click(`//main//button[.="Attach to Cinder"]`), visible(`//dialog//option[.="fast"]/..`), choose(`dialog select[name=vpool]`, "fast"))
	bothOver(p, "attach to Cinder", "62-attach")
	p.do("a token for its driver", click(`//dialog//button[.="Make a token"]`), visible(`[data-copy=token]`), visible(`//pre[@data-copy="driver"][contains(.,"--vpool fast")]`))
	bothOver(p, "token of the driver", "63-token")
	dir := t.TempDir()
	token, section := filepath.Join(dir, "token"), filepath.Join(dir, "ovgate.conf")
	text, err := cinder.Config{Section: "ovgate", URLs: []string{n.url}, VPools: []string{"fast"}, TokenFile: token, CAFile: filepath.Join(n.dir, "tls", "ca.pem")}.Text()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{token: p.text(`[data-copy=token]`), section: text} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.do("closed", click(`//dialog//button[.="Done"]`), absent(`dialog`))
	return remotetest.Peer(t, "cinder", "--backend", section)
}

// cloud registers a cloud and goes through its page.
func cloud(p *page, n *testNode, peer map[string]string) {
	p.do("a real cloud", click(`//main//button[.="Add cloud"]`), fill(`dialog input[name=name]`, "prod"), fill(`dialog input[name=url]`, peer["auth"]),
		fill(`dialog input[name=user]`, peer["admin"]), fill(`dialog input[name=project]`, peer["admin_project"]), fill(`dialog input[name=secret]`, peer["admin_key"]),
		click(`//dialog//button[.="Add"]`), visible(`//h1[.="prod"]`), visible(`//h2[.="No volumes yet"]`))
	both(p, "cloud without volumes", "64-cloud")

	p.do("no types", click(`//button[@role="tab"][.="Volume types"]`), visible(`//h2[.="None declared"]`))
	p.audit("no volume types")
	p.do("what is missing is said", click(`//main//button[.="Declare volume type"]`), click(`//dialog//button[.="Declare"]`), visible(`dialog input[name=name][aria-invalid=true]`), visible(`dialog select[name=vpool][aria-invalid=true]`))
	p.provokes("/types/gold")
	p.do("a limit that is an outage is refused", fill(`dialog input[name=name]`, "gold"), choose(`dialog select[name=vpool]`, "fast"), click(`//dialog//summary`), fill(`dialog input[name=iops]`, "1"),
		click(`//dialog//button[.="Declare"]`), visible(`dialog input[name=iops][aria-invalid=true]`))
	bothOver(p, "volume type, refused", "65-type")
	p.do("declared", fill(`dialog input[name=iops]`, "20000"), fill(`dialog input[name=iopsPerGib]`, "50"), click(`//dialog//button[.="Declare"]`), absent(`dialog`), visible(`//tr[td[.="gold"]]/td[.="20.0k IOPS, 50 IOPS per GiB"]`))
	p.do("changed", click(`//button[@aria-label="Change type gold"]`), click(`dialog input[name=multiattach]`), click(`//dialog//button[.="Save"]`), absent(`dialog`), visible(`//tr[td[.="gold"]]/td[.="yes"]`))
	both(p, "volume types", "66-types")
	p.do("what applying does", click(`//main//button[.="Apply types"]`), click(`//dialog//button[.="Show what would change"]`), visible(`//dialog//li[contains(.,"volume type gold")]`))
	bothOver(p, "apply types", "67-apply")
	p.do("applied", click(`//dialog//button[.="Apply this"]`), absent(`dialog`), visible(`//span[contains(.,"before Apply types, the last time")]`))

	openPage(p.t).asReader(n, cloudPages())
	volume(p, peer)
	p.do("a volume", click(`//button[@role="tab"][.="Volumes"]`), visible(`//tr[td[.="logs"]]/td[.="gold"]`), visible(`//tr[td[.="logs"]]//a[starts-with(@href,"/vdisks/")]`))
	both(p, "volumes of a cloud", "68-volumes")
	p.do("its backend", click(`//button[@role="tab"][.="Backends"]`), visible(`//td//a[.="fast"]`), visible(`//section//*[contains(@class,"state")][contains(.,"up")]`))
	both(p, "backends of a cloud", "68-backends")
	p.do("its project", click(`//button[@role="tab"][.="Projects"]`), visible(`//tr[td[.="`+peer["admin_project"]+`"]]/td[.="2 GiB"]`))
	p.audit("projects of a cloud")
	p.shot("68-projects")
	p.do("how it is reached", click(`//button[@role="tab"][.="Access"]`), visible(`//dd[.="`+peer["auth"]+`"]`))
	p.audit("access of a cloud")

	p.do("taken back", to("/openstack/prod?tab=types"), click(`//button[@aria-label="Take back type gold"]`), visible(`//dialog//li[contains(.,"Volumes keep it")]`))
	p.audit("take a volume type back")
	p.do("it is not declared", click(`//dialog//button[.="Take it back"]`), absent(`dialog`), visible(`//h2[.="None declared"]`))
	p.do("deleting those that are not declared is a choice", click(`//main//button[.="Apply types"]`), click(`//dialog//button[.="Show what would change"]`), visible(`//dialog//li[contains(.,"left")][contains(.,"volume type gold")]`),
		click(`dialog input[name=prune]`), click(`//dialog//button[.="Show what would change"]`), visible(`//dialog//li[contains(.,"delete")][contains(.,"volume type gold")]`), click(`//dialog//button[.="Cancel"]`), absent(`dialog`))
	p.do("phone", chromedp.EmulateViewport(390, 844), to("/openstack/prod"), visible(`//td[.="logs"]`), until(`document.documentElement.scrollWidth <= 390`))
	p.audit("phone, cloud")
	p.shot("69-phone")
	p.do("wide again", chromedp.EmulateViewport(1440, 900))
	p.mayAskLate(http.StatusNotFound, "/openstack/clouds/")
	p.do("forgotten", click(`//main//button[.="Forget"]`), fill(`dialog input[name=confirm]`, "prod"), click(`//dialog//button[.="Forget"]`), visible(`//h2[.="No clouds yet"]`))
}

// volume makes a volume of type gold, as a user of the cloud does.
func volume(p *page, peer map[string]string) {
	t := p.t
	t.Helper()
	provider, err := openstack.AuthenticatedClient(t.Context(), gophercloud.AuthOptions{
		IdentityEndpoint: peer["auth"], Username: peer["admin"], Password: peer["admin_key"], DomainName: peer["domain"], TenantName: peer["admin_project"],
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := openstack.NewBlockStorageV3(provider, gophercloud.EndpointOpts{Region: peer["region"]})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := volumes.Create(t.Context(), s, volumes.CreateOpts{Name: "logs", Size: 2, VolumeType: "gold"}, nil).Extract(); err != nil {
		t.Fatal(err)
	}
}
