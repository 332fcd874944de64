package main

import (
	"net"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/gateway/asdnode"
	"github.com/openvstorage/ovgate/gateway/disk"
)

// asd returns the verb that serves a device until SIGINT or SIGTERM; a second
// signal ends it at once, which loses nothing that was acknowledged.
func (a *app) asd() *cobra.Command {
	var o asdnode.RunOptions
	var capacity sizeFlag
	cmd := &cobra.Command{
		Use:   "asd",
		Short: "Serve a disk or directory as a device of an Alba",
		Long: "Serve a disk, or a directory, as a device of an Alba until SIGINT or SIGTERM.\n" +
			"The first start makes the device, with a certificate and an access key that stay: in an empty directory,\n" +
			"or with --disk (as root) on a blank disk, which gets a file system and is mounted while it is served.\n" +
			"A disk that holds anything is refused, unless --force-serial names its serial: then all of that is lost.\n" +
			"When it is served, standard output gets the lines id=, address=, fingerprint= and key-file=, or with -o json\n" +
			"an object: what is needed to register the device. The access key is in that file (mode 0600) and nowhere else.",
		Example: "  ovgate asd --dir /mnt/disk1 --listen 192.0.2.10:8500\n" +
			"  ovgate asd --disk /dev/disk/by-id/ata-ST4000_ZC1 --listen 192.0.2.10:8500",
		Args: names(),
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "directory of the device; with --disk where to mount it (default "+disk.DefaultDir+"/UUID)")
	f.StringVar(&o.Disk, "disk", "", "whole disk of the device, best by its name in /dev/disk/by-id")
	f.StringVar(&o.ForceSerial, "force-serial", "", "erase the disk if it holds something and this is its serial")
	f.StringVar(&o.Listen, "listen", asdnode.DefaultListen, "HOST:PORT to serve on")
	f.BoolVar(&o.Clear, "clear", false, "encrypt nothing after the handshake for nodes with alba: {clear: true}: on a network that nobody else is on")
	f.Var(&capacity, "capacity", "how much of the disk the device may take (default all)")
	f.StringVar(&o.LogFormat, "log-format", "text", "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.checkFlags(); err != nil {
			return err
		}
		_, _, err := net.SplitHostPort(o.Listen)
		switch {
		case a.url != "" || a.data != "":
			return usagef("asd serves a disk or directory of this machine; --url and --data have no meaning there")
		case o.Dir == "" && o.Disk == "":
			return usagef("asd: --dir or --disk is missing")
		case o.ForceSerial != "" && o.Disk == "":
			return usagef("--force-serial is about a disk: give --disk too")
		case err != nil:
			return usagef("--listen %s: write HOST:PORT", o.Listen)
		case capacity.set && capacity.bytes <= 0:
			return usagef("--capacity: write a size above 0, or leave it out for all of the disk")
		case o.LogFormat != "text" && o.LogFormat != "json":
			return usagef("--log-format %s: write text or json", o.LogFormat)
		}
		o.Capacity, o.JSON, o.Version = capacity.bytes, a.output == outputJSON, build().Version
		o.Stdout, o.Stderr = a.out, a.err
		return asdnode.Run(cmd.Context(), o)
	}
	return cmd
}
