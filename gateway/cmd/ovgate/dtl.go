package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

func (a *app) vdiskSet() *cobra.Command {
	var mode, peer string
	var cmd *cobra.Command
	cmd = a.vdiskVerb("set NAME", "Say where and how the journal of a vDisk is mirrored", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			f := cmd.Flags()
			in := client.VDiskDtlInput{}
			if f.Changed("dtl") {
				m := client.VDiskDtlInputMode(mode)
				if !m.Valid() {
					return usagef("--dtl %s: write off, async, sync or inherit", mode)
				}
				in.Mode = &m
			}
			if f.Changed("dtl-peer") {
				in.Peer = &peer
			}
			if in.Mode == nil && in.Peer == nil {
				return usagef("vdisk set %s: give --dtl or --dtl-peer", args[0])
			}
			v, err := client.Get[client.VDisk](api.SetVDiskDtl(ctx, args[0], in))
			if err != nil {
				return err
			}
			return a.printVDisk(v)
		})
	cmd.Long = "Say where and how the journal of a vDisk is mirrored, from now on. I/O goes on meanwhile. What is not given stays."
	cmd.Example = "  ovgate vdisk set db1 --dtl sync --dtl-peer node2\n  ovgate vdisk set scratch --dtl off"
	f := cmd.Flags()
	f.StringVar(&mode, "dtl", "", "off; async; sync: a write is answered when both nodes have it; inherit: as its vPool says")
	f.StringVar(&peer, "dtl-peer", "", "node that is to have the copy; auto: the best one")
	a.completeFlag(cmd, "dtl-peer", func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		return a.completeNodes(cmd, nil, prefix)
	})
	return cmd
}

// dtlText prints how a journal is mirrored.
func dtlText(d client.VDiskDtl) string {
	s := string(d.State)
	if d.State == client.DtlStateOff && d.Mode != client.DtlModeOff {
		s = "off, " + string(d.Mode) + " as soon as another node takes a copy"
	} else if d.State != client.DtlStateOff {
		s += ", " + string(d.Mode)
	}
	if d.Node != "" {
		s += ", on " + d.Node
	}
	if d.Peer != "auto" && d.Peer != d.Node {
		s += ", to be on " + d.Peer
	}
	if d.Catchup > 0 {
		s += fmt.Sprintf(", %d of %d writes from before it are on the backend", d.CaughtUp, d.Catchup)
	}
	if d.LagBytes > 0 {
		s += fmt.Sprintf(", %s behind, %v", formatSize(d.LagBytes), time.Duration(d.LagMs)*time.Millisecond)
	}
	if d.Reason != "" {
		s += ": " + d.Reason
	}
	return s
}

// dtlCounts prints how many vDisks of the node have a copy of their journal, in which state.
func dtlCounts(c client.DtlCounts) string {
	return fmt.Sprintf("%d ok, %d catchup, %d degraded, %d off", c.Ok, c.Catchup, c.Degraded, c.Off)
}
