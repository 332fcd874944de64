package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

func pluginRows(p client.CenterPlugin) [][]string {
	return [][]string{
		{"registered", yesNo(p.Registered)}, {"manifest", dash(p.URL)}, {"thumbprint", dash(p.Thumbprint)}, {"version", dash(p.Version)}, {"problem", dash(p.Problem)},
	}
}

func (a *app) pluginRegister() *cobra.Command {
	var url string
	cmd := a.centerVerb("register CENTER", "Have a vCenter's vSphere Client show the plug-in that a node serves", func(ctx context.Context, api *client.Client, args []string) error {
		if url == "" {
			return usagef("vsphere plugin register: --url is missing")
		}
		p, err := client.Get[client.CenterPlugin](api.RegisterCenterPlugin(ctx, args[0], client.CenterPluginInput{URL: url}))
		if err != nil {
			return err
		}
		return printOne(a, p, pluginRows(p))
	})
	cmd.Long = "Have a vCenter's vSphere Client show the plug-in that a node serves: a view of its own and one at each datastore, which\n" +
		"lead to the console. It is looked at before, and its certificate is the one that the vCenter takes from then on: after\n" +
		"that changed, register it again."
	cmd.Example = "  ovgate vsphere plugin register prod --url https://node1.example.org:8443"
	cmd.Flags().StringVar(&url, "url", "", "address of API and console of a node, as the vCenter reaches it")
	return cmd
}

func (a *app) pluginUnregister() *cobra.Command {
	return a.centerVerb("unregister CENTER", "Take the plug-in from a vCenter", func(ctx context.Context, api *client.Client, args []string) error {
		return client.Done(api.UnregisterCenterPlugin(ctx, args[0]))
	})
}

func (a *app) pluginStatus() *cobra.Command {
	cmd := a.centerVerb("status CENTER", "Show the plug-in at a vCenter", func(ctx context.Context, api *client.Client, args []string) error {
		p, err := client.Get[client.CenterPlugin](api.GetCenterPlugin(ctx, args[0]))
		if err == nil {
			err = printOne(a, p, pluginRows(p))
		}
		if err == nil && p.Problem != "" {
			err = errors.New("vsphere center " + args[0] + ": the plug-in does not work: " + p.Problem)
		}
		return err
	})
	cmd.Long = "Show the plug-in at a vCenter, and see that it is served there. It ends with an error when it is not."
	return cmd
}
