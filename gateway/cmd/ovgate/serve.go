package main

import (
	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/gateway/node"
)

// serve returns the verb that runs a node until SIGINT or SIGTERM; a second
// signal ends it at once, which loses nothing that was acknowledged.
func (a *app) serve() *cobra.Command {
	var o node.Options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a storage node",
		Long: "Run a storage node until SIGINT or SIGTERM. Everything it keeps on this machine is below --data.\n" +
			"Without further flags it listens on loopback: API and UI on port 8443 with TLS, iSCSI on port 3260.\n" +
			"The first start prints a one-time token to create the first administrator with. Flags win over --config.",
		Example: "  ovgate serve --data /var/lib/ovgate --iscsi 192.0.2.10:3260",
		Args:    names(),
	}
	f := cmd.Flags()
	f.StringVar(&o.Config, "config", "", "configuration file, YAML")
	f.StringVar(&o.API, "api", "", "HOST:PORT of API and UI (default 127.0.0.1:8443)")
	f.StringArrayVar(&o.ISCSI, "iscsi", nil, "HOST:PORT of the iSCSI portal (default 127.0.0.1:3260); may be repeated")
	f.StringArrayVar(&o.Advertise, "advertise", nil, "HOST:PORT that initiators should use instead of --iscsi's; may be repeated")
	f.BoolVar(&o.Insecure, "insecure", false, "plain HTTP instead of TLS; on a loopback address only")
	f.Int64Var(&o.MapMemory, "map-memory", 0, "bytes of the vDisks' maps kept in memory (default an eighth of the machine's memory)")
	f.StringVar(&o.LogFormat, "log-format", "", "text or json (default text)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case a.url != "":
			return usagef("serve runs a node on this machine; --url has no meaning there")
		case o.LogFormat != "" && o.LogFormat != "text" && o.LogFormat != "json":
			return usagef("--log-format %s: write text or json", o.LogFormat)
		}
		o.Data, o.Version = a.serveData(), release
		o.Stdout, o.Stderr = a.out, a.err
		return a.run(cmd.Context(), o)
	}
	return cmd
}

// serveData returns the data directory of the node to run.
func (a *app) serveData() string {
	if a.data != "" {
		return a.data
	}
	if d := a.env.Getenv("OVGATE_DATA"); d != "" {
		return d
	}
	return defaultData
}
