package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/openvstorage/ovgate/gateway/clustertest"
	"github.com/openvstorage/ovgate/gateway/node"
	"github.com/openvstorage/ovgate/internal/kv/etcd/etcdtest"
	"github.com/openvstorage/ovgate/volumedriver/backend/remote/remotetest"
)

// nodeConfig is the configuration of a node whose registry is at an endpoint of etcd.
func nodeConfig(t *testing.T, name, endpoint string) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "ovgate.yaml")
	text := fmt.Sprintf("node_name: %[1]s\ndomain: rack-%[1]s\nregistry: {etcd: [%[2]q], prefix: console/}\ncluster: {lease: 5s, listen: \"127.0.0.1:0\"}\ndtl: {listen: \"127.0.0.1:0\"}\nalba: {listen: \"127.0.0.1:0\"}\n", name, endpoint)
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestCluster makes a cluster of a node, lets a second one join, and takes a vDisk over from that one when it is cut off.
func TestCluster(t *testing.T) {
	t.Parallel()
	store, etcd := remotetest.Peer(t, "s3"), etcdtest.Serve(t)
	n := startNodeWith(t, filepath.Join(t.TempDir(), "alpha"), nodeConfig(t, "alpha", etcd.Endpoint()))
	p := openPage(t)
	p.do("signed in", signedIn(n, admin), chromedp.Navigate(n.url+"/nodes"), visible(`//h1[.="Nodes"]`), visible(`//button[.="Leave"][@aria-disabled="true"][@title="It is in no cluster"]`))
	p.do("a cluster", click(`//main//button[.="Make a cluster"]`), fill(`dialog input[name=name]`, "a/b"))
	p.audit("make a cluster")
	p.provokes("/cluster")
	p.do("a bad name is refused at its field", click(`//dialog//button[.="Make it"]`), visible(`dialog input[name=name][aria-invalid=true]`))
	p.do("it is made", fill(`dialog input[name=name]`, "east"), click(`//dialog//button[.="Make it"]`), absent(`dialog`), visible(`//dt[.="Name"]/following-sibling::dd[1][.="east"]`),
		visible(`//p[.="None. A token lets one machine join as a node."]`))
	wire := clustertest.NewWire(t, etcd.Endpoint())
	beta := joins(p, filepath.Join(t.TempDir(), "beta"), nodeConfig(t, "beta", wire.Endpoint()))

	n.call(http.MethodPost, "/backends", map[string]any{"name": "store", "kind": "s3", "secret": store["secret_key"],
		"options": map[string]any{"container": store["bucket"], "url": store["endpoint"], "user": store["access_key"]}}, nil)
	n.call(http.MethodPost, "/vpools", map[string]any{"name": "gold", "backend": map[string]any{"kind": "s3", "store": "store", "path": "gold"}, "settings": map[string]any{"dtl": "off"}}, nil)
	q := openPage(t)
	q.do("the console of the other node has the vPool", signedIn(beta, admin), chromedp.Navigate(beta.url+"/vpools/gold"), visible(`//h1[.="gold"]/..//*[contains(@class,"state")][contains(.,"Running")]`))
	q.noConsoleErrors()
	beta.call(http.MethodPost, "/vdisks", map[string]any{"name": "db", "vpool": "gold", "size": 1 << 30}, nil)
	p.do("a vDisk of the other node", to("/vdisks/db"), visible(`//dt[.="Node"]/following-sibling::dd[1][.="beta"]`))
	p.do("its node", click(`//main//a[.="beta"]`), visible(`//h1[.="beta"]/..//*[contains(@class,"state")][contains(.,"Up")]`), visible(`//dt[.="System"]/following-sibling::dd[1][contains(.,"Linux")]`),
		visible(`//*[@aria-label="Places"]//td[contains(.,"journals")]`), visible(`//*[@aria-label="vDisks that it serves"]//a[.="db"]`), visible(`//main//button[.="Remove"][@aria-disabled="true"]`))
	both(p, "a node", "19-node")
	p.do("what fails together with it", click(`//main//dt[.="Domain"]/following-sibling::dd[1]/a`), visible(`//h1[.="rack-beta"]`), visible(`//li[contains(.,"1 vDisk waits for it")]`),
		visible(`//*[@aria-label="vDisks that it serves or has the copy of"]//tr[.//a[.="db"]]//span[contains(.,"Waits")]`))
	both(p, "a domain", "19-domain")
	p.do("all domains", click(`//nav[@aria-label="Breadcrumb"]//a[.="Domains"]`), visible(`//h1[.="Domains"]`), visible(`//td//a[.="rack-alpha"]`), visible(`//td//a[.="rack-beta"]`), visible(`[data-copy=domain]`))
	both(p, "domains", "19-domains")
	p.do("back to the node", to("/nodes/beta"), visible(`//h1[.="beta"]`))
	p.do("what it serves", click(`//main//dt[.="vDisks"]/following-sibling::dd[1]/a`), visible(`//h1[.="vDisks"]`), visible(`//main//td//a[.="db"]`), until(`document.querySelector("select[aria-label=Node]").value === "beta"`),
		to("/system"), visible(`//*[@aria-label="Versions"]//a[.="alpha"]`), visible(`//*[@aria-label="Versions"]//a[.="beta"]`), until(`document.querySelector("[data-copy=upgrade]").innerText.startsWith("ovgate node drain beta --wait")`), to("/vdisks/db"))
	wire.Cut()
	p.do("its node is cut off", visible(`//main//button[.="Take it over"]`))
	both(p, "vDisk that waits for its node", "19-waits")
	p.provokes("/steal")
	p.do("writes may be lost", click(`//main//button[.="Take it over"]`), fill(`dialog input[name=confirm]`, "db"), click(`//dialog//button[.="Take it over"]`),
		visible(`//dialog//*[@role="alert"][contains(.,"has its newest writes")]`))
	bothOver(p, "take a vDisk over, refused", "19-steal")
	p.do("they are given up", click(`dialog input[name=acceptLoss]`), click(`//dialog//button[.="Take it over"]`), absent(`dialog`),
		visible(`//dt[.="Node"]/following-sibling::dd[1][.="alpha"]`), visible(`//h1[.="db"]/..//*[contains(@class,"state")][contains(.,"Running")]`))
	p.do("the node that is down", to("/nodes/beta"), visible(`//h1[.="beta"]/..//*[contains(@class,"state")][contains(.,"Down")]`), visible(`//main//*[contains(.,"What follows is what the cluster knows of it")]`),
		visible(`//*[@aria-label="Places"]`), visible(`//main//button[.="Remove"][not(@aria-disabled="true")]`))
	both(p, "a node that is down", "19-node-down")
	wire.Heal()
	performanceOfNodes(p, beta)
	p.noConsoleErrors()
}

// joins adds a node that has no data directory yet, and runs it.
func joins(p *page, dir, config string) *testNode {
	t := p.t
	p.provokes("/cluster/tokens")
	p.do("a bad address is refused at its field", click(`//main//button[.="Add node"]`), fill(`dialog textarea[name=urls]`, "http://10.0.0.1:8443"), click(`//dialog//button[.="Make a token"]`),
		visible(`dialog textarea[name=urls][aria-invalid=true]`))
	p.audit("add node, refused")
	p.do("a token", fill(`dialog textarea[name=urls]`, " "), click(`//dialog//button[.="Make a token"]`), visible(`[data-copy=joinToken]`), visible(`//dialog//*[contains(.,"Waiting for the node")]`))
	bothOver(p, "add node", "19-add-node")
	if _, err := node.Join(t.Context(), node.JoinOptions{Data: dir, Config: config, Token: p.text(`[data-copy=joinToken]`)}); err != nil {
		t.Fatal(err)
	}
	beta := startNodeWith(t, dir, config)
	p.do("it joined", visible(`//dialog//b[.="beta joined."]`), click(`//dialog//button[.="Done"]`), absent(`dialog`), visible(`//td[.="beta"]`), visible(`//td[contains(.,"Used")]`))
	both(p, "nodes of a cluster", "19-nodes")
	p.do("the token is forgotten", click(`//button[starts-with(@aria-label,"Forget join token")]`), click(`//dialog//button[.="Forget"]`), absent(`dialog`), visible(`//p[.="None. A token lets one machine join as a node."]`))
	return beta
}
