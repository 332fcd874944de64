package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

func (a *app) vdiskCache() *cobra.Command {
	var mode string
	var quota sizeFlag
	var cmd *cobra.Command
	cmd = a.vdiskVerb("cache NAME", "Say what the read cache keeps of a vDisk", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			if !cmd.Flags().Changed("keep") && !quota.set {
				return usagef("vdisk cache %s: give --keep or --quota", args[0])
			}
			v, err := client.Get[client.VDisk](api.GetVDisk(ctx, args[0]))
			if err != nil {
				return err
			}
			p := v.Cache
			if cmd.Flags().Changed("keep") {
				p.Mode = client.CachePolicyMode(mode)
			}
			if quota.set {
				p.Quota = quota.bytes
			}
			if v, err = client.Get[client.VDisk](api.SetVDiskCache(ctx, v.ID, p)); err != nil {
				return err
			}
			return a.printVDisk(v)
		})
	cmd.Long = "Say what the read cache keeps of a vDisk, from now on. What is not given stays. What the cache holds stays\n" +
		"until something takes its place."
	cmd.Example = "  ovgate vdisk cache db1 --keep on-write --quota 4GiB\n  ovgate vdisk cache archive --keep none"
	f := cmd.Flags()
	f.StringVar(&mode, "keep", "on-read", "on-read: what is read; on-write: also what is written; none: 8 MiB for reads under way")
	f.Var(&quota, "quota", "bytes in memory and on the READ disks together, 16MiB or more; 0: no bound of its own")
	return cmd
}

// cacheText prints a cache policy that is not the default, and what is kept.
func cacheText(p client.CachePolicy, kept int64) string {
	s := string(p.Mode)
	if p.Quota > 0 {
		s += ", at most " + formatSize(p.Quota)
	}
	return s + ", holds " + formatSize(kept)
}
