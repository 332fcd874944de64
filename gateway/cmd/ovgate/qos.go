package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

func (a *app) vdiskQoS() *cobra.Command {
	var iops int64
	var bandwidth sizeFlag
	var burst time.Duration
	var none bool
	var cmd *cobra.Command
	cmd = a.vdiskVerb("qos NAME", "Limit what initiators do to a vDisk", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			f := cmd.Flags()
			some := f.Changed("iops") || f.Changed("bandwidth") || f.Changed("burst")
			if none == some {
				return usagef("vdisk qos %s: give --iops, --bandwidth or --burst, or --none", args[0])
			}
			if burst%time.Millisecond != 0 {
				return usagef("--burst %v is not a whole number of milliseconds", burst)
			}
			v, err := client.Get[client.VDisk](api.GetVDisk(ctx, args[0]))
			if err != nil {
				return err
			}
			q := client.Qos{}
			if v.Qos != nil && !none {
				q = *v.Qos
			}
			if f.Changed("iops") {
				q.Iops = iops
			}
			if f.Changed("bandwidth") {
				q.BytesPerSecond = bandwidth.bytes
			}
			if f.Changed("burst") {
				q.BurstMs = burst.Milliseconds()
			}
			if v, err = client.Get[client.VDisk](api.SetVDiskQos(ctx, v.ID, q)); err != nil {
				return err
			}
			return a.printVDisk(v)
		})
	cmd.Long = "Limit what all initiators together do to a vDisk, from now on. What is not given stays; 0 is no limit.\n" +
		"Commands above a limit wait."
	cmd.Example = "  ovgate vdisk qos db1 --iops 5000 --bandwidth 100MiB --burst 5s\n  ovgate vdisk qos db1 --none"
	f := cmd.Flags()
	f.Int64Var(&iops, "iops", 0, "commands per second")
	f.Var(&bandwidth, "bandwidth", "bytes read and written per second, such as 100MiB")
	f.DurationVar(&burst, "burst", 0, "how much of a rate that was left unused may be caught up at once, as time, up to 1m (default 100ms)")
	f.BoolVar(&none, "none", false, "take the limits off")
	return cmd
}

// qosText prints limits.
func qosText(q *client.Qos) string {
	var all []string
	if q.Iops > 0 {
		all = append(all, strconv.FormatInt(q.Iops, 10)+" IOPS")
	}
	if q.BytesPerSecond > 0 {
		all = append(all, formatSize(q.BytesPerSecond)+"/s")
	}
	if len(all) == 0 {
		return "none"
	}
	if q.BurstMs > 0 {
		all = append(all, "burst "+formatMillis(q.BurstMs))
	}
	return strings.Join(all, ", ")
}
