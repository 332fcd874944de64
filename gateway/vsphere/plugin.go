package vsphere

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/openvstorage/ovgate/gateway/control"
	"github.com/openvstorage/ovgate/integrations/vsphere"
)

// PluginPath is where a node serves the plug-in of the vSphere Client.
const PluginPath = "/vsphere/plugin/"

const (
	manifestName = "plugin.json"
	// pluginVersion changes with what is served there: a vSphere Client keeps what it read.
	pluginVersion = "1.0.0"
	// manifestWait and manifestMost bound the look at a manifest, in time and bytes.
	manifestWait = 10 * time.Second
	manifestMost = 64 << 10
)

// PluginStatus is the plug-in at a vCenter.
type PluginStatus struct {
	Registered bool
	vsphere.Plugin
	// Problem is why a vSphere Client does not get it, as far as this node sees; empty: it does.
	Problem string
}

// pluginURL is that of the manifest at a node's address.
func pluginURL(object, address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" || len(address) > maxText {
		return "", invalid("url", object, "give the address of API and console of a node, as the vCenter reaches it: https://HOST:PORT", "%q is no such address", clip(address))
	}
	return "https://" + u.Host + PluginPath + manifestName, nil
}

// served looks at a manifest as the vCenter does, and returns the thumbprint of the certificate.
func served(ctx context.Context, manifest string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, manifestWait)
	defer cancel()
	base := strings.TrimSuffix(manifest, PluginPath+manifestName)
	thumb, err := vsphere.Thumbprint(ctx, base)
	if err != nil {
		return "", err
	}
	// The vCenter compares the thumbprint; there is nothing secret in what is asked.
	t := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}, DisableKeepAlives: true}
	c := &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, manifest, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", fmt.Errorf("%w: %w", vsphere.ErrUnreachable, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, manifestMost))
	if err != nil {
		return "", fmt.Errorf("%w: %w", vsphere.ErrUnreachable, err)
	}
	if resp.StatusCode != http.StatusOK || !bytes.Equal(b, vsphere.Manifest()) {
		return "", fmt.Errorf("%w: it is not the plug-in of this version of ovgate that is there", vsphere.ErrRefused)
	}
	return thumb, nil
}

// pluginCenter signs in to a vCenter for its plug-in.
func (m *Manager) pluginCenter(ctx context.Context, ref string) (object string, v *vsphere.Center, err error) {
	c, err := m.FindCenter(ref)
	if err != nil {
		return "", nil, err
	}
	object = centerObject(c.Name)
	if c.Kind == vsphere.KindESXi {
		return object, nil, &control.Error{Code: control.CodeInvalid, Field: "center", Object: object, Message: "a host alone has no plug-ins", Hint: "register a vCenter"}
	}
	v, err = m.connect(ctx, c)
	return object, v, err
}

// ofOthers is the refusal of an extension that is not ours.
func ofOthers(object string, err error) error {
	if errors.Is(err, vsphere.ErrExists) {
		return &control.Error{Code: control.CodeExists, Object: object, Message: err.Error(), Hint: "look at the extension in the vCenter's extension manager", Err: err}
	}
	return explain(object, err)
}

// RegisterPlugin has the vSphere Client of a vCenter show the plug-in that the node at an address
// serves. It is looked at before.
func (m *Manager) RegisterPlugin(ctx context.Context, ref, address string) (PluginStatus, error) {
	ctx, done := m.begin(ctx)
	defer done()
	object, v, err := m.pluginCenter(ctx, ref)
	if err != nil {
		return PluginStatus{}, err
	}
	defer v.Close()
	p := vsphere.Plugin{Version: pluginVersion}
	if p.URL, err = pluginURL(object, address); err != nil {
		return PluginStatus{}, err
	}
	if p.Thumbprint, err = served(ctx, p.URL); err != nil {
		return PluginStatus{}, &control.Error{Code: control.CodeInvalid, Field: "url", Object: object, Message: "the plug-in is not served at " + p.URL + ": " + err.Error(), Hint: "give the address of API and console of a node, with TLS, as the vCenter reaches it", Err: err}
	}
	if err := v.RegisterPlugin(ctx, p); err != nil {
		return PluginStatus{}, ofOthers(object, err)
	}
	m.log.Info("plug-in registered", "center", ref, "url", p.URL)
	return PluginStatus{Registered: true, Plugin: p}, nil
}

// UnregisterPlugin takes the plug-in from a vCenter. What is not there is no error.
func (m *Manager) UnregisterPlugin(ctx context.Context, ref string) error {
	ctx, done := m.begin(ctx)
	defer done()
	object, v, err := m.pluginCenter(ctx, ref)
	if err != nil {
		return err
	}
	defer v.Close()
	return ofOthers(object, v.UnregisterPlugin(ctx))
}

// Plugin tells of the plug-in at a vCenter.
func (m *Manager) Plugin(ctx context.Context, ref string) (PluginStatus, error) {
	ctx, done := m.begin(ctx)
	defer done()
	looked, err := m.look(ctx)
	if err != nil {
		return PluginStatus{}, err
	}
	defer looked()
	object, v, err := m.pluginCenter(ctx, ref)
	if err != nil {
		return PluginStatus{}, err
	}
	defer v.Close()
	p, err := v.FindPlugin(ctx)
	if errors.Is(err, vsphere.ErrNotFound) {
		return PluginStatus{}, nil
	}
	if err != nil {
		return PluginStatus{}, ofOthers(object, err)
	}
	s := PluginStatus{Registered: true, Plugin: p}
	base := strings.TrimSuffix(p.URL, PluginPath+manifestName)
	if at, err := pluginURL(object, base); err != nil || at != p.URL {
		s.Problem = "it is not where a node serves it"
	} else if thumb, err := served(ctx, p.URL); err != nil {
		s.Problem = err.Error()
	} else if !strings.EqualFold(thumb, p.Thumbprint) {
		s.Problem = "the certificate there has the thumbprint " + thumb + ": register it again"
	} else if p.Version != pluginVersion {
		s.Problem = "it is of version " + p.Version + ", and this node has " + pluginVersion + ": register it again"
	}
	return s, nil
}
