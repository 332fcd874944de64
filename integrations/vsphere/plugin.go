package vsphere

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// A remote plug-in is an extension of the vCenter that says where its manifest is. The vSphere
// Client reads that, and shows the views in it, which the same server serves, through the vCenter.

// PluginKey is the key of the extension.
const PluginKey = "io.ovgate.console"

const (
	pluginName    = "ovgate"
	pluginCompany = "ovgate"
	// clientRemote and manifestServer are how a vCenter calls a plug-in that it does not run
	// itself, and its server.
	clientRemote   = "vsphere-client-remote"
	manifestServer = "MANIFEST_SERVER"
)

// Plugin is a plug-in as a vCenter has it.
type Plugin struct {
	URL        string // of the manifest
	Thumbprint string // of the certificate that serves it, as Thumbprint gives it
	Version    string // as the vCenter takes it: numbers with dots
}

// Manifest is what a vSphere Client is told of the plug-in: a view of its own, and one at each
// datastore. Paths are relative to the manifest's.
func Manifest() []byte {
	type object = map[string]any
	en := func(text string) object { return object{"en-US": text} }
	m := object{
		"manifestVersion": "1.0.0",
		"requirements":    object{"plugin.api.version": "1.0.0"},
		"configuration":   object{"nameKey": "plugin.name", "icon": object{"name": "main"}},
		"global":          object{"view": object{"navigationId": "console", "uri": "index.html", "navigationVisible": true}},
		"objects":         object{"Datastore": object{"monitor": object{"views": []object{{"navigationId": "datastore", "labelKey": "plugin.name", "uri": "datastore.html"}}}}},
		"definitions": object{
			"iconSpriteSheet": object{"uri": "icon.svg", "definitions": object{"main": object{"x": 0, "y": 0}}},
			"i18n":            object{"locales": []string{"en-US"}, "definitions": object{"plugin.name": en(pluginName)}},
		},
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		panic(err) // of strings and numbers
	}
	return b
}

func (p Plugin) extension() types.Extension {
	text := &types.Description{Label: pluginName, Summary: "Console of ovgate"}
	return types.Extension{
		Key: PluginKey, Company: pluginCompany, Version: p.Version, Description: text, ShownInSolutionManager: new(false),
		Client: []types.ExtensionClientInfo{{Type: clientRemote, Url: p.URL, Version: p.Version, Company: pluginCompany, Description: text}},
		Server: []types.ExtensionServerInfo{{Type: manifestServer, Url: p.URL, ServerThumbprint: p.Thumbprint, Company: pluginCompany, Description: text, AdminEmail: []string{"root@localhost"}}},
	}
}

// FindPlugin returns the plug-in that the vCenter has. ErrNotFound: there is none; ErrExists:
// somebody else's extension has its key.
func (c *Center) FindPlugin(ctx context.Context) (Plugin, error) {
	m := c.client.ServiceContent.ExtensionManager
	if m == nil {
		return Plugin{}, fmt.Errorf("plug-in: %w: a host alone has none", ErrRefused)
	}
	res, err := methods.FindExtension(ctx, c.client, &types.FindExtension{This: *m, ExtensionKey: PluginKey})
	if err != nil {
		return Plugin{}, explain("look for the plug-in", err)
	}
	x := res.Returnval
	switch {
	case x == nil:
		return Plugin{}, fmt.Errorf("plug-in: %w", ErrNotFound)
	case x.Company != pluginCompany || len(x.Client) != 1 || len(x.Server) != 1:
		return Plugin{}, fmt.Errorf("plug-in: %w: extension %s is one that ovgate did not register", ErrExists, PluginKey)
	}
	return Plugin{URL: nameOf(x.Client[0].Url), Thumbprint: nameOf(x.Server[0].ServerThumbprint), Version: nameOf(x.Version)}, nil
}

// RegisterPlugin registers the plug-in, or has the vCenter have this one in place of the one that
// it has. ErrDenied: the user lacks Extension.Register or Extension.Update.
func (c *Center) RegisterPlugin(ctx context.Context, p Plugin) error {
	have, err := c.FindPlugin(ctx)
	m := c.client.ServiceContent.ExtensionManager
	switch {
	case errors.Is(err, ErrNotFound):
		_, err = methods.RegisterExtension(ctx, c.client, &types.RegisterExtension{This: *m, Extension: p.extension()})
	case err == nil && have != p:
		_, err = methods.UpdateExtension(ctx, c.client, &types.UpdateExtension{This: *m, Extension: p.extension()})
	}
	return explain("register the plug-in", err)
}

// UnregisterPlugin takes the plug-in from the vCenter. What is not there is no error.
func (c *Center) UnregisterPlugin(ctx context.Context) error {
	_, err := c.FindPlugin(ctx)
	if err == nil {
		_, err = methods.UnregisterExtension(ctx, c.client, &types.UnregisterExtension{This: *c.client.ServiceContent.ExtensionManager, ExtensionKey: PluginKey})
	}
	if err = explain("unregister the plug-in", err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
