package vsphere

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/openvstorage/ovgate/integrations/vsphere"
	"github.com/openvstorage/ovgate/integrations/vsphere/esxsim"
	"github.com/openvstorage/ovgate/internal/client"
)

// TestPlugin: the plug-in is registered where a node serves it, with its certificate, and what the
// manifest names is there; somebody else's extension is left alone.
func TestPlugin(t *testing.T) {
	l := start(t, esxsim.Options{Hosts: 1})
	c, err := l.v.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	extensions, err := object.GetExtensionManager(c.Client)
	if err != nil {
		t.Fatal(err)
	}
	at, err := client.Discover(client.System(), l.node.Data())
	if err != nil {
		t.Fatal(err)
	}
	register := func(url string) (client.CenterPlugin, error) {
		return client.Get[client.CenterPlugin](l.api.RegisterCenterPlugin(t.Context(), "dc", client.CenterPluginInput{URL: url}))
	}
	state := func() client.CenterPlugin {
		t.Helper()
		p, err := client.Get[client.CenterPlugin](l.api.GetCenterPlugin(t.Context(), "dc"))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, url := range []string{"http://127.0.0.1:1", "https://u:p@127.0.0.1:1", at.URL + "/else", "https://" + secondPortal(t), l.v.URL()[:strings.LastIndex(l.v.URL(), "/")]} {
		_, err := register(url)
		refused(t, err, "invalid", "url")
	}
	if p := state(); p.Registered {
		t.Errorf("refused, and it is %+v", p)
	}
	if err := extensions.Register(t.Context(), types.Extension{Key: vsphere.PluginKey, Company: "somebody", Description: &types.Description{}}); err != nil {
		t.Fatal(err)
	}
	_, err = register(at.URL)
	refused(t, err, "exists", "did not register")
	refused(t, client.Done(l.api.UnregisterCenterPlugin(t.Context(), "dc")), "exists", "did not register")
	if err := extensions.Unregister(t.Context(), vsphere.PluginKey); err != nil {
		t.Fatal(err)
	}

	for range 2 { // again is no error
		if _, err := register(at.URL); err != nil {
			t.Fatal(err)
		}
	}
	x, err := extensions.Find(t.Context(), vsphere.PluginKey)
	if err != nil || x == nil || len(x.Client) != 1 || x.Client[0].Type != "vsphere-client-remote" || len(x.Server) != 1 || x.Server[0].Url != x.Client[0].Url {
		t.Fatalf("the extension is %+v %v", x, err)
	}
	// As the vCenter: with the certificate of the thumbprint alone.
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if !strings.EqualFold(soap.ThumbprintSHA256(s.PeerCertificates[0]), x.Server[0].ServerThumbprint) {
				return errors.New("another certificate")
			}
			return nil
		},
	}}}
	get := func(url string) []byte {
		t.Helper()
		r, err := web.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != 200 || r.Header.Get("X-Frame-Options") != "SAMEORIGIN" || !strings.Contains(r.Header.Get("Content-Security-Policy"), "frame-ancestors 'self'") {
			t.Errorf("%s: %d %v %v", url, r.StatusCode, r.Header, err)
		}
		return b
	}
	var manifest any
	if err := json.Unmarshal(get(x.Client[0].Url), &manifest); err != nil {
		t.Fatal(err)
	}
	base, seen := x.Client[0].Url[:strings.LastIndex(x.Client[0].Url, "/")+1], 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			for k, x := range v {
				if uri, ok := x.(string); ok && k == "uri" {
					seen++
					if b := string(get(base + uri)); strings.HasSuffix(uri, ".html") && !strings.Contains(b, `href="`+at.URL+"/") {
						t.Errorf("%s is %s", uri, b)
					}
				}
				walk(x)
			}
		}
	}
	walk(manifest)
	if seen != 3 {
		t.Errorf("the manifest names %d files", seen)
	}
	if p := state(); !p.Registered || p.Problem != "" || p.Thumbprint != x.Server[0].ServerThumbprint {
		t.Errorf("it is %+v", p)
	}
	if out, err := l.node.CLI(t.Context(), "vsphere", "plugin", "status", "dc"); err != nil || !strings.Contains(string(out), x.Client[0].Url) {
		t.Errorf("by the CLI: %v: %s", err, out)
	}
	x.Server[0].ServerThumbprint = l.v.Thumbprint()
	if err := extensions.Update(t.Context(), *x); err != nil {
		t.Fatal(err)
	}
	if p := state(); !strings.Contains(p.Problem, "register it again") {
		t.Errorf("with another certificate it is %+v", p)
	}
	for range 2 {
		if out, err := l.node.CLI(t.Context(), "vsphere", "plugin", "unregister", "dc"); err != nil {
			t.Errorf("by the CLI: %v: %s", err, out)
		}
	}
	if x, err := extensions.Find(t.Context(), vsphere.PluginKey); x != nil || err != nil {
		t.Errorf("unregistered it is %+v %v", x, err)
	}
}
