package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// task returns the verbs of what nodes work on.
func (a *app) task() *cobra.Command {
	cmd := group("task", "What the nodes work on, and worked on lately", a.taskList(), a.taskShow(), a.taskWait(), a.taskCancel(), a.taskClear())
	cmd.Aliases = []string{"job"}
	return cmd
}

func (a *app) taskList() *cobra.Command {
	var p client.ListJobsParams
	var states, kinds []string
	var object, node, q string
	cmd := &cobra.Command{Use: "list", Short: "List what runs and ended lately, on all nodes", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		p.Limit, p.State, p.Kind = new(pageSize), given(strings.Join(states, ",")), given(strings.Join(kinds, ","))
		p.Object, p.Node, p.Q = given(object), given(node), given(q)
		var silent []client.SilentNode
		all, err := client.All(func(cursor *string) ([]client.Job, *string, error) {
			p.Cursor = cursor
			l, err := client.Get[client.JobList](api.ListJobs(ctx, &p))
			silent = l.Silent
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		for _, n := range silent {
			a.tellSilent(n)
		}
		return printList(a, all, []string{"ID", "STATE", "PROGRESS", "RATE", "LEFT", "NODE", "OBJECT", "WHAT"}, taskRow)
	})
	cmd.Long = "List what the nodes work on, what waits, and what ended since their start. A node that does not answer is named on standard\n" +
		"error, with the time of what is shown of it."
	cmd.Example = "  ovgate task list --state running,waiting\n  ovgate task list --object 'vdisk db1'"
	f := cmd.Flags()
	f.StringSliceVar(&states, "state", nil, "only in these states: queued, running, waiting, done, failed, cancelled")
	f.StringSliceVar(&kinds, "kind", nil, "only of these kinds, such as move, verify or import")
	f.StringVar(&object, "object", "", "only of this object, such as 'vdisk db1'")
	f.StringVar(&node, "node", "", "only of this node")
	f.StringVar(&q, "search", "", "only those whose id, object or words contain this")
	return cmd
}

// tellSilent names a node that does not answer.
func (a *app) tellSilent(n client.SilentNode) {
	shown := "nothing is shown of it"
	if n.ObservedAt != nil {
		shown = "what is shown of it is from " + formatTime(n.ObservedAt)
	}
	fmt.Fprintln(a.err, clean("node "+n.Node+" does not answer: "+shown+": "+n.Error))
}

// taskRow is a task as a list shows it.
func taskRow(j client.Job) []string {
	rate, left := "-", "-"
	if j.Bytes > 0 {
		rate = formatSize(int64(j.BytesPerSecond)) + "/s"
	}
	if j.LeftMs != nil {
		left = (time.Duration(*j.LeftMs) * time.Millisecond).Round(time.Second).String()
	}
	return []string{j.ID, string(j.State), progressText(j), rate, left, dash(j.Node), dash(j.Object), stateText(j.What, text(j.Error))}
}

// progressText tells how far a task is: "40%, 2GiB of 5GiB".
func progressText(j client.Job) string {
	amount := func(n int64) string {
		if j.Unit == "bytes" {
			return formatSize(n)
		}
		return strconv.FormatInt(n, 10)
	}
	var parts []string
	if j.Progress != nil {
		parts = append(parts, strconv.Itoa(int(*j.Progress*100))+"%")
	}
	if j.Unit != "" && (j.Done > 0 || j.Total > 0) {
		done := amount(j.Done)
		if j.Total > 0 {
			done += " of " + amount(j.Total)
		}
		if j.Unit != "bytes" {
			done += " " + j.Unit
		}
		parts = append(parts, done)
	}
	return dash(strings.Join(parts, ", "))
}

func (a *app) printTask(j client.Job) error {
	return printOne(a, j, [][]string{
		{"id", j.ID}, {"kind", string(j.Kind)}, {"object", dash(j.Object)}, {"what", j.What}, {"node", dash(j.Node)}, {"state", stateText(string(j.State), text(j.Error))},
		{"remedy", dash(j.Hint)}, {"progress", progressText(j)}, {"moved", formatSize(j.Bytes)}, {"started", formatTime(j.StartedAt)}, {"ended", formatTime(j.EndedAt)},
		{"can be cancelled", yesNo(j.Cancellable)},
	})
}

func (a *app) taskShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "Show a task", Args: names("ID"), ValidArgsFunction: a.completeTasks}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		j, err := client.Get[client.Job](api.GetJob(ctx, args[0]))
		if err != nil {
			return err
		}
		return a.printTask(j)
	})
	return cmd
}

func (a *app) taskWait() *cobra.Command {
	var limit time.Duration
	cmd := &cobra.Command{Use: "wait ID", Short: "Wait until a task has ended", Args: names("ID"), ValidArgsFunction: a.completeTasks}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if limit < 0 {
			return usagef("task wait: a limit of %s is not possible; give a time, or 0 for none", limit)
		}
		wait := ctx
		if limit > 0 {
			var cancel context.CancelFunc
			wait, cancel = context.WithTimeout(ctx, limit)
			defer cancel()
		}
		get := func() (client.Job, error) { return client.Get[client.Job](api.GetJob(wait, args[0])) }
		running := func(j client.Job) bool {
			return j.State == client.JobStateQueued || j.State == client.JobStateRunning || j.State == client.JobStateWaiting
		}
		j, err := get()
		if err == nil {
			j, err = follow(wait, j, running, get)
		}
		switch {
		case errors.Is(wait.Err(), context.DeadlineExceeded) && ctx.Err() == nil:
			return fmt.Errorf("task %s has not ended within %s; it goes on", args[0], limit)
		case err != nil:
			return err
		}
		if err := a.printTask(j); err != nil {
			return err
		}
		switch j.State {
		case client.JobStateFailed:
			a.hint(j.Hint)
			return fmt.Errorf("task %s failed: %s", j.ID, text(j.Error))
		case client.JobStateCancelled:
			return fmt.Errorf("task %s was cancelled", j.ID)
		}
		return nil
	})
	cmd.Long = "Wait until a task has ended, and show it. The exit code is 0 when it is done, 1 when it failed, was cancelled, or has not\n" +
		"ended in time, and 3 when it is not known, or not any more: what ended is forgotten when its node restarts."
	cmd.Example = "  ovgate task wait move-1f2e3d4c5b --timeout 1h"
	cmd.Flags().DurationVar(&limit, "timeout", 0, "most that is waited, such as 10m (default no bound)")
	return cmd
}

func (a *app) taskCancel() *cobra.Command {
	cmd := &cobra.Command{Use: "cancel ID", Short: "Have a task ended", Args: names("ID"), ValidArgsFunction: a.completeTasks}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		j, err := client.Get[client.Job](api.CancelJob(ctx, args[0]))
		if err != nil {
			return err
		}
		return a.printTask(j)
	})
	cmd.Long = "Have a task ended: exports, flattenings, hand-overs, imports, moves, scrubs, sweeps, verifications, and the draining of a node. What it\n" +
		"did so far stays, but for an import, whose vDisk is deleted, and a move, whose copy is. It may run for a moment yet; task wait waits\n" +
		"for its end."
	return cmd
}

func (a *app) taskClear() *cobra.Command {
	cmd := &cobra.Command{Use: "clear", Short: "Forget the tasks that ended", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		return client.Done(api.ClearJobs(ctx))
	})
	return cmd
}
