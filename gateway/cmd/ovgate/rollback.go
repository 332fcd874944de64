package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

func (a *app) vdiskHistory() *cobra.Command {
	var keep time.Duration
	var inherit bool
	var cmd *cobra.Command
	cmd = a.vdiskVerb("history NAME", "List the moments that a vDisk can be taken back to or cloned from, oldest first", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			if set := cmd.Flags().Changed("keep"); set || inherit {
				var in client.HistoryInput
				if set {
					ms, err := wholeMillis("keep", keep)
					if err != nil {
						return err
					}
					in.KeepMs = &ms
				}
				v, err := client.Get[client.VDisk](api.SetVDiskHistory(ctx, args[0], in))
				if err != nil {
					return err
				}
				return a.printVDisk(v)
			}
			var h client.History
			for params := (client.GetVDiskHistoryParams{}); ; {
				next, err := client.Get[client.History](api.GetVDiskHistory(ctx, args[0], &params))
				if err != nil {
					return err
				}
				next.Moments = append(h.Moments, next.Moments...)
				if h = next; !h.More || len(h.Moments) == 0 {
					break
				}
				params.From = new(h.Moments[len(h.Moments)-1].PointAt.Add(time.Nanosecond))
			}
			rows := [][]string{{"TIME", "SEQ", "SNAPSHOT"}}
			for _, m := range h.Moments {
				rows = append(rows, []string{m.PointAt.UTC().Format(time.RFC3339Nano), strconv.FormatInt(m.Seq, 10), dash(m.Snapshot)})
			}
			return printOne(a, h, rows)
		})
	cmd.Long = "List the moments that a vDisk can be taken back to or cloned from, oldest first; with --keep or --inherit say how\n" +
		"far back scrubs keep them from now on. What a scrub took already does not come back."
	cmd.Example = "  ovgate vdisk history db1\n  ovgate vdisk history db1 --keep 72h\n  ovgate vdisk history db1 --inherit"
	f := cmd.Flags()
	f.DurationVar(&keep, "keep", 0, "how far back scrubs keep every moment of it, whatever its vPool says: 1m-8784h, or 0s for not at all")
	f.BoolVar(&inherit, "inherit", false, "as long as its vPool says")
	cmd.MarkFlagsMutuallyExclusive("keep", "inherit")
	return cmd
}

// historyText prints how far back moments are kept.
func historyText(h client.HistoryPolicy) string {
	s := formatMillis(h.KeepMs)
	if h.Inherited {
		s += ", as its vPool says"
	}
	return s
}

func (a *app) vdiskRollback() *cobra.Command {
	var point pointFlags
	var force bool
	cmd := a.vdiskVerb("rollback NAME", "Take a vDisk back to a snapshot or moment", names("NAME"),
		func(ctx context.Context, api *client.Client, args []string) error {
			in := client.RollbackInput{Force: &force}
			var err error
			if in.Snapshot, in.PointAt, err = point.parse(); err != nil {
				return err
			}
			if in.Snapshot == nil && in.PointAt == nil {
				return usagef("vdisk rollback %s: give --snapshot or --at", args[0])
			}
			if err := a.confirm(ctx, "Take vDisk "+args[0]+" back, and delete its snapshots that are newer?"); err != nil {
				return err
			}
			r, err := client.Get[client.Rollback](api.RollbackVDisk(ctx, args[0], in))
			if err != nil {
				return err
			}
			return printOne(a, r, [][]string{
				{"vdisk", r.VDisk},
				{"to", r.To.PointAt.UTC().Format(time.RFC3339Nano)},
				{"snapshot", dash(r.To.Snapshot)},
				{"seq", strconv.FormatInt(r.To.Seq, 10)},
				{"deleted", dash(strings.Join(r.Deleted, ", "))},
			})
		})
	cmd.Long = "Take a vDisk back to a snapshot or moment. Its size stays. Snapshots that are newer are deleted; otherwise a\n" +
		"rollback to a moment before this one undoes it."
	cmd.Example = "  ovgate vdisk rollback db1 --snapshot before-upgrade"
	point.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "although initiators are signed in: they lose it and sign in again")
	return cmd
}
