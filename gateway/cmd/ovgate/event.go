package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// event returns the verbs of the history of events.
func (a *app) event() *cobra.Command {
	return group("event", "What happened on the nodes, and to what", a.eventList(), a.eventExport(), a.eventCodes())
}

// eventFlags say which events are wanted.
type eventFlags struct {
	severity, object, text, node string
	codes                        []string
	since, until                 momentFlag
	last                         int
	lines, follow                bool
	silent                       map[string]bool // nodes that did not answer last
}

func (f *eventFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.severity, "severity", "", "only these, and worse ones: info, warning or error")
	fl.StringSliceVar(&f.codes, "code", nil, "only events of this code; what goes before the dot stands for all of them (may be repeated)")
	fl.StringVar(&f.object, "object", "", "only events of this object, such as vdisk:NAME")
	fl.StringVar(&f.text, "text", "", "only events whose object or sentence contains this")
	fl.StringVar(&f.node, "node", "", "only what this node saw (default all nodes)")
	fl.Var(&f.since, "since", "only from then on: so long ago, such as 24h, or 2030-01-31 or 2030-01-31T12:00:00Z")
	fl.Var(&f.until, "until", "only before then")
}

// named is an object as events name it: kind:NAME stands for "kind NAME".
func (f *eventFlags) named() string {
	kind, name, ok := strings.Cut(f.object, ":")
	if !ok || strings.Contains(kind, " ") {
		return f.object
	}
	return kind + " " + name
}

func (a *app) eventList() *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the newest events of all nodes, the oldest of them first",
		Long: "List the newest events of all nodes, the oldest of them first: what happened to which object, and which node saw it. A node\n" +
			"that does not answer is named on standard error, with the time until which its events are known. With --json each\n" +
			"event is a line of JSON, for other programs; it says what to do, too.",
		Example: "  ovgate event list --since 24h --severity warning\n" +
			"  ovgate event list --object vdisk:demo --follow",
		Args: names(),
	}
	f.add(cmd)
	fl := cmd.Flags()
	fl.IntVar(&f.last, "last", 100, "how many; 0: all")
	fl.BoolVar(&f.lines, "json", false, "one event a line, as JSON")
	fl.BoolVar(&f.follow, "follow", false, "go on with new events until it is interrupted")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		switch {
		case f.last < 0:
			return usagef("--last %d: write a number, or 0 for all", f.last)
		case f.follow && a.output == outputJSON:
			return usagef("--follow has no end, and -o json is one value: use --json")
		}
		items, at, err := f.list(ctx, a, api, nil, f.last)
		if err != nil {
			return err
		}
		if err := a.printEvents(f.lines, true, items); err != nil || !f.follow {
			return err
		}
		return followList(ctx, at, func(after *string) ([]client.Event, *string, error) { return f.list(ctx, a, api, after, 0) },
			func(items []client.Event) error { return a.printEvents(f.lines, false, items) })
	})
	return cmd
}

// list returns the last events after a position, the oldest first, and the position then; last 0: all.
// Nodes that do not answer are named once.
func (f *eventFlags) list(ctx context.Context, a *app, api *client.Client, after *string, last int) ([]client.Event, *string, error) {
	now := time.Now()
	p := client.ListEventsParams{
		Code: given(strings.Join(f.codes, ",")), Object: given(f.named()), Q: given(f.text), Node: given(f.node), Since: f.since.time(now), Until: f.until.time(now), After: after,
	}
	if f.severity != "" {
		p.Severity = new(client.EventSeverity(f.severity))
	}
	var out []client.Event
	var at *string
	for {
		p.Limit = new(pageSize)
		if last > 0 {
			p.Limit = new(min(pageSize, last-len(out)))
		}
		l, err := client.Get[client.EventList](api.ListEvents(ctx, &p))
		if err != nil {
			return nil, nil, err
		}
		if at == nil {
			at = l.Position
		}
		f.tellSilent(a, l.Silent)
		out = append(out, l.Items...)
		if l.Next == nil || last > 0 && len(out) >= last {
			slices.Reverse(out)
			return out, at, nil
		}
		p.Cursor = l.Next
	}
}

// tellSilent names the nodes that do not answer, each once until it has answered again.
func (f *eventFlags) tellSilent(a *app, nodes []client.SilentNode) {
	was := f.silent
	f.silent = map[string]bool{}
	for _, n := range nodes {
		if f.silent[n.Node] = true; !was[n.Node] {
			a.tellSilent(n)
		}
	}
}

func (a *app) printEvents(lines, first bool, items []client.Event) error {
	if lines {
		enc := json.NewEncoder(a.out)
		enc.SetEscapeHTML(false)
		for _, e := range items {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	}
	if first {
		return printList(a, items, []string{"TIME", "NODE", "SEVERITY", "CODE", "OBJECT", "WHAT"}, eventRow)
	}
	for _, e := range items {
		if err := printRows(a.out, [][]string{eventRow(e)}); err != nil {
			return err
		}
	}
	return nil
}

func eventRow(e client.Event) []string {
	return []string{formatTime(&e.Time), dash(e.Node), string(e.Severity), e.Code, dash(e.Object), e.Text}
}

func (a *app) eventExport() *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use:   "export FILE|-",
		Short: "Write the events of all nodes to a file, an event a line of JSON, the newest first",
		Long: "Write the events of all nodes to a file, an event a line of JSON, the newest first, up to 100000 of them; those before\n" +
			"them follow with --until. A file that exists is not overwritten; - is standard output. A node that does not answer is\n" +
			"named on standard error.",
		Example: "  ovgate event export events.jsonl --since 168h\n" +
			"  ovgate event export - --severity error | jq .text",
		Args: names("FILE"),
	}
	f.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !cmd.Flags().Changed("timeout") {
			a.timeout = bundleTimeout
		}
		return a.online(func(ctx context.Context, api *client.Client, args []string) error {
			return a.exportEvents(ctx, api, &f, args[0])
		})(cmd, args)
	}
	return cmd
}

func (a *app) exportEvents(ctx context.Context, api *client.Client, f *eventFlags, file string) error {
	if file != "-" {
		if _, err := os.Lstat(file); err == nil {
			return usagef("event export: %s exists: name another file, or remove it", file)
		}
	}
	now := time.Now()
	p := client.ExportEventsParams{Code: given(strings.Join(f.codes, ",")), Object: given(f.named()), Q: given(f.text), Node: given(f.node), Since: f.since.time(now), Until: f.until.time(now)}
	if f.severity != "" {
		p.Severity = new(client.EventSeverity(f.severity))
	}
	resp, err := api.ExportEvents(ctx, &p)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		return client.Done(resp, nil)
	}
	if silent := resp.Header.Get("Ovgate-Silent"); silent != "" {
		fmt.Fprintln(a.err, clean("nodes that do not answer, and until when their events are known: "+silent))
	}
	if file == "-" {
		if _, err := io.Copy(a.out, resp.Body); err != nil {
			return fmt.Errorf("event export: a node broke it off: %w", err)
		}
		return nil
	}
	if err := writeNew(file, resp.Body); err != nil {
		return fmt.Errorf("event export: a node broke it off, or %s cannot be written: %w", file, err)
	}
	return nil
}

func (a *app) eventCodes() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "codes",
		Short: "List the codes that events have, and what to do",
		Args:  names(),
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		p := client.ListEventCodesParams{Limit: new(pageSize)}
		var items []client.EventCode
		for {
			l, err := client.Get[client.EventCodeList](api.ListEventCodes(ctx, &p))
			if err != nil {
				return err
			}
			items = append(items, l.Items...)
			if p.Cursor = l.Next; l.Next == nil {
				break
			}
		}
		return printList(a, items, []string{"CODE", "SEVERITY", "OBJECT", "WHAT", "WHAT TO DO"}, func(c client.EventCode) []string {
			return []string{c.Code, string(c.Severity), dash(c.Kind), c.Text, dash(c.Remedy)}
		})
	})
	return cmd
}
