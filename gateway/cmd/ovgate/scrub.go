package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// pollEvery is how often a job is asked how far it is: a person does not notice, and
// a node does not mind.
const pollEvery = 500 * time.Millisecond

// follow asks for a job until it has ended.
func follow[J any](ctx context.Context, j J, running func(J) bool, get func() (J, error)) (J, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var err error
	for running(j) {
		if j, err = get(); err != nil || !running(j) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return j, fmt.Errorf("%w; it goes on at the node", ctx.Err())
		}
	}
	return j, err
}

func (a *app) vdiskScrub() *cobra.Command {
	var dryRun bool
	var rate rateFlag
	cmd := a.vdiskVerb("scrub NAME", "Give back what was overwritten, discarded, or held by deleted snapshots", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			s, err := client.Get[client.Scrub](api.ScrubVDisk(ctx, args[0], client.ScrubInput{DryRun: &dryRun, Rate: rate.ptr()}))
			if err == nil {
				s, err = follow(ctx, s, func(s client.Scrub) bool { return s.State == client.JobStateRunning }, func() (client.Scrub, error) {
					return client.Get[client.Scrub](api.GetVDiskScrub(ctx, args[0]))
				})
			}
			if err != nil {
				return err
			}
			if err := a.printScrub(s); err != nil || s.State == client.JobStateDone {
				return err
			}
			return fmt.Errorf("%s", s.Failure)
		})
	cmd.Long = "Give back what was overwritten, discarded, or held by deleted snapshots. It yields to initiators; snapshots,\n" +
		"clones and the history that the vPool asks for (vpool set --history) stay what they are. It goes on at the node when this command is\n" +
		"interrupted. With --dry-run it prints the objects that it would delete, and why."
	cmd.Example = "  ovgate vdisk scrub db1 --rate 50MiB/s"
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, and print what would be deleted")
	cmd.Flags().Var(&rate, "rate", "most that it reads and writes, such as 50MiB/s (default no bound)")
	return cmd
}

// rateFlag is a number of bytes per second.
type rateFlag struct{ sizeFlag }

// Set implements pflag.Value.
func (f *rateFlag) Set(s string) error {
	if err := f.sizeFlag.Set(strings.TrimSuffix(s, "/s")); err != nil {
		return err
	}
	if f.bytes < 1 {
		return fmt.Errorf("a rate of %s: write 1B/s or more", s)
	}
	return nil
}

// Type implements pflag.Value.
func (f *rateFlag) Type() string { return "BYTES/s" }

func (a *app) printScrub(s client.Scrub) error {
	rows := [][]string{
		{"vdisk", s.VDisk},
		{"state", stateText(string(s.State), s.Failure)},
		{"stored", formatSize(s.Stored)},
		{"stored after", formatSize(s.StoredAfter)},
		{"freed", formatSize(max(0, s.Stored-s.StoredAfter))},
		{"live", formatSize(s.Live)},
		{"read", formatSize(s.Read)},
		{"written", formatSize(s.Written)},
		{"moved", formatSize(s.Moved)},
		{"condemned", strconv.Itoa(s.Condemned) + " objects, " + formatSize(s.CondemnedBytes)},
		{"deleted", strconv.Itoa(s.Deleted) + " objects"},
		{"damaged", dash(strings.Join(s.Damaged, ", "))},
	}
	return printOne(a, s, append(rows, doomedRows(s.Doomed, s.More)...))
}

// doomedRows lists what would be deleted.
func doomedRows(list []client.DoomedObject, more bool) [][]string {
	var rows [][]string
	for _, d := range list {
		rows = append(rows, []string{d.Name, formatSize(d.Bytes) + ", " + d.Reason})
	}
	if more {
		rows = append(rows, []string{"...", "and more"})
	}
	return rows
}

func (a *app) vpoolSweep() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "sweep NAME",
		Short: "Delete objects that nothing reaches",
		Long: "Delete objects that nothing reaches; crashes leave them behind. Anything on the backend that cannot be explained\n" +
			"ends it before it deletes. With --dry-run it prints the objects that it would delete, and why.",
		Args: names("NAME"),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, and print what would be deleted")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		s, err := client.Get[client.Sweep](api.SweepVPool(ctx, args[0], client.SweepInput{DryRun: &dryRun}))
		if err == nil {
			s, err = follow(ctx, s, func(s client.Sweep) bool { return s.State == client.JobStateRunning }, func() (client.Sweep, error) {
				return client.Get[client.Sweep](api.GetVPoolSweep(ctx, args[0]))
			})
		}
		if err != nil {
			return err
		}
		if err := a.printSweep(s); err != nil || s.State == client.JobStateDone {
			return err
		}
		return fmt.Errorf("%s", s.Failure)
	})
	cmd.ValidArgsFunction = a.completeVPools
	return cmd
}

func (a *app) printSweep(s client.Sweep) error {
	rows := [][]string{
		{"vpool", s.VPool},
		{"state", stateText(string(s.State), s.Failure)},
		{"vdisks", strconv.Itoa(s.VDisks)},
		{"objects", strconv.Itoa(s.Objects)},
		{"garbage", strconv.Itoa(s.Garbage) + " objects, " + formatSize(s.GarbageBytes)},
		{"deleted", strconv.Itoa(s.Deleted) + " objects"},
		{"quarantined", dash(strings.Join(s.Quarantined, ", "))},
		{"skipped", dash(strings.Join(s.Skipped, ", "))},
	}
	return printOne(a, s, append(rows, doomedRows(s.Doomed, s.More)...))
}
