package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// schedule returns the verbs of jobs that run at times.
func (a *app) schedule() *cobra.Command {
	return group("schedule", "When automatic snapshots, their retention and scrubs run: list, show, set, reset, run",
		a.scheduleList(), a.scheduleShow(), a.scheduleSet(), a.scheduleReset(), a.scheduleRun())
}

// scheduleScope are the flags that say whose schedule is meant.
type scheduleScope struct{ vpool, vdisk string }

func (s *scheduleScope) flags(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.vpool, "vpool", "", "that of this vPool (default that of the cluster)")
	cmd.Flags().StringVar(&s.vdisk, "vdisk", "", "that of this vDisk")
	cmd.MarkFlagsMutuallyExclusive("vpool", "vdisk")
	a.completeFlag(cmd, "vpool", a.completeVPoolFlag)
}

func (a *app) scheduleList() *cobra.Command {
	var query string
	cmd := &cobra.Command{Use: "list", Short: "List what the cluster, vPools and vDisks say about jobs", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		params := client.ListSchedulesParams{Limit: new(pageSize), Q: given(query)}
		all, err := client.All(func(cursor *string) ([]client.ScheduleEntry, *string, error) {
			params.Cursor = cursor
			l, err := client.Get[client.ScheduleList](api.ListSchedules(ctx, &params))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		return printList(a, all, []string{"VPOOL", "VDISK", "JOB", "WHEN", "ZONE", "KEEPS", "FROM"}, func(e client.ScheduleEntry) []string {
			return []string{dash(e.VPool), dash(e.VDisk), e.Job, cronText(e.Enabled, e.Cron), zoneText(e.Zone), keepsText(e.Job, e.Days, e.Weeks, e.SkipUnchanged), string(e.Source)}
		})
	})
	cmd.Long = "List what is said about jobs: every job of the cluster, and what vPools and vDisks say themselves. What a vDisk does not\n" +
		"say, its vPool says; what that does not say, the cluster."
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those of vPools and vDisks whose name contains this")
	return cmd
}

// cronText prints when a job runs.
func cronText(enabled bool, cron string) string {
	if !enabled {
		return "off"
	}
	return cron
}

// zoneText prints a time zone.
func zoneText(zone string) string {
	if zone == "" {
		return "UTC"
	}
	return zone
}

// keepsText prints the buckets of a retention, and whether snapshots of the same are made.
func keepsText(job string, days, weeks int, skipUnchanged bool) string {
	switch {
	case job == "retention":
		return strconv.Itoa(days) + " days, " + strconv.Itoa(weeks) + " weeks"
	case skipUnchanged:
		return "changes only"
	}
	return "-"
}

func (a *app) scheduleShow() *cobra.Command {
	var of scheduleScope
	cmd := &cobra.Command{Use: "show", Short: "Show when jobs run next, and of a vDisk how they went", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		s, err := client.Get[client.Schedule](api.GetSchedule(ctx, &client.GetScheduleParams{VPool: given(of.vpool), VDisk: given(of.vdisk)}))
		if err != nil {
			return err
		}
		return a.printSchedule(s)
	})
	of.flags(a, cmd)
	cmd.Example = "  ovgate schedule show --vdisk db1"
	return cmd
}

func (a *app) printSchedule(s client.Schedule) error {
	rows := [][]string{{"of", s.Of}}
	for _, j := range s.Jobs {
		text := cronText(j.Enabled, j.Cron)
		if j.Enabled {
			text += " " + zoneText(j.Zone) + ", next " + formatTime(j.NextAt)
		}
		if keeps := keepsText(j.Job, j.Days, j.Weeks, j.SkipUnchanged); keeps != "-" {
			text += ", keeps " + keeps
		}
		if j.Running {
			text += ", runs now"
		}
		rows = append(rows, []string{j.Job, text + " (" + string(j.Source) + ")"})
	}
	for _, j := range s.Jobs {
		for _, r := range j.Runs {
			rows = append(rows, []string{r.Started.UTC().Format(time.RFC3339), j.Job + " " + stateText(string(r.Result), r.Text)})
		}
	}
	return printOne(a, s, rows)
}

func (a *app) scheduleSet() *cobra.Command {
	var of scheduleScope
	var cron, zone string
	var days, weeks int
	var on, off, skip bool
	cmd := &cobra.Command{Use: "set JOB", Short: "Say when a job runs, for the cluster, a vPool or a vDisk", Args: names("JOB"), ValidArgs: scheduledJobs}
	f := cmd.Flags()
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.ScheduleInput{}
		if on || off {
			in.Enabled = &on
		}
		if f.Changed("cron") {
			in.Cron = &cron
		}
		if f.Changed("zone") {
			in.Zone = &zone
		}
		if f.Changed("days") {
			in.Days = &days
		}
		if f.Changed("weeks") {
			in.Weeks = &weeks
		}
		if f.Changed("skip-unchanged") {
			in.SkipUnchanged = &skip
		}
		if in == (client.ScheduleInput{}) {
			return usagef("schedule set %s: give --cron, --zone, --days, --weeks, --skip-unchanged, --on or --off", args[0])
		}
		s, err := client.Get[client.Schedule](api.SetSchedule(ctx, args[0], &client.SetScheduleParams{VPool: given(of.vpool), VDisk: given(of.vdisk)}, in))
		if err != nil {
			return err
		}
		return a.printSchedule(s)
	})
	of.flags(a, cmd)
	f.StringVar(&cron, "cron", "", `minute, hour, day of month, month, day of week, such as "0 */4 * * mon-fri"; or @hourly, @daily, @weekly, @monthly`)
	f.StringVar(&zone, "zone", "", "time zone such as Europe/Brussels (default UTC)")
	f.IntVar(&days, "days", 0, "of retention: days before yesterday of each of which one snapshot stays (default 7)")
	f.IntVar(&weeks, "weeks", 0, "of retention: weeks before those of each of which one stays (default 3)")
	f.BoolVar(&skip, "skip-unchanged", false, "of snapshot: make none of a vDisk that was not written to since its newest one")
	f.BoolVar(&on, "on", false, "let it run")
	f.BoolVar(&off, "off", false, "do not let it run")
	cmd.MarkFlagsMutuallyExclusive("on", "off")
	cmd.Long = "Say when JOB (snapshot, retention or scrub) runs. What is not given stays, or is taken over from who says it now. The\n" +
		"retention deletes automatic snapshots: all of yesterday and today stay, one of each of the days and weeks before, and what\n" +
		"is older goes. Sticky snapshots, those that clones start from and those that people made stay, and so does the newest one\n" +
		"of a vDisk whose snapshots skip what did not change."
	cmd.Example = "  ovgate schedule set snapshot --vdisk db1 --cron '*/15 * * * *'\n  ovgate schedule set retention --vpool gold --days 14 --weeks 8\n  ovgate schedule set scrub --off"
	return cmd
}

// scheduledJobs are the names of jobs.
var scheduledJobs = []string{"snapshot", "retention", "scrub"}

func (a *app) scheduleReset() *cobra.Command {
	var of scheduleScope
	cmd := &cobra.Command{Use: "reset JOB", Short: "Inherit when a job runs", Args: names("JOB"), ValidArgs: scheduledJobs}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := client.Done(api.ResetSchedule(ctx, args[0], &client.ResetScheduleParams{VPool: given(of.vpool), VDisk: given(of.vdisk)})); err != nil {
			return err
		}
		s, err := client.Get[client.Schedule](api.GetSchedule(ctx, &client.GetScheduleParams{VPool: given(of.vpool), VDisk: given(of.vdisk)}))
		if err != nil {
			return err
		}
		return a.printSchedule(s)
	})
	of.flags(a, cmd)
	cmd.Long = "Inherit when a job runs: a vDisk from its vPool, a vPool from the cluster, the cluster from the defaults."
	return cmd
}

func (a *app) scheduleRun() *cobra.Command {
	var vdisk string
	cmd := &cobra.Command{Use: "run JOB --vdisk NAME", Short: "Run a job of a vDisk now, and wait for it", Args: names("JOB"), ValidArgs: scheduledJobs}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if vdisk == "" {
			return usagef("schedule run %s: give --vdisk", args[0])
		}
		s, err := client.Get[client.Schedule](api.RunSchedule(ctx, args[0], &client.RunScheduleParams{VDisk: vdisk}))
		if err != nil {
			return err
		}
		runs := func(s client.Schedule) bool {
			for _, j := range s.Jobs {
				if j.Job == args[0] {
					return j.Running
				}
			}
			return false
		}
		s, err = follow(ctx, s, runs, func() (client.Schedule, error) {
			return client.Get[client.Schedule](api.GetSchedule(ctx, &client.GetScheduleParams{VDisk: &vdisk}))
		})
		if err != nil {
			return err
		}
		if err := a.printSchedule(s); err != nil {
			return err
		}
		for _, j := range s.Jobs {
			if j.Job == args[0] && len(j.Runs) > 0 && j.Runs[0].Result == client.ScheduledRunResultFailed {
				return errors.New(j.Runs[0].Text)
			}
		}
		return nil
	})
	cmd.Flags().StringVar(&vdisk, "vdisk", "", "the vDisk")
	cmd.Example = "  ovgate schedule run snapshot --vdisk db1"
	return cmd
}
