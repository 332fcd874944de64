package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// followEvery is how often list --follow asks.
const followEvery = 2 * time.Second

// audit returns the verbs of the audit log.
func (a *app) audit() *cobra.Command {
	return group("audit", "Who changed what on a node, from where, and how it ended", a.auditList())
}

// auditFlags say which entries are wanted.
type auditFlags struct {
	user, object, operation, node string
	since, until                  momentFlag
	last                          int
	lines, follow                 bool
}

func (a *app) auditList() *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the newest entries of a node's audit log, the oldest of them first",
		Long: "List the newest entries of a node's audit log, the oldest of them first: every change that was asked of the\n" +
			"node, with those it refused, and sign-ins. With --json each entry is a line of JSON, for other programs.",
		Example: "  ovgate audit list --since 24h --user anna\n" +
			"  ovgate audit list --json --last 0 > audit.jsonl",
		Args: names(),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.user, "user", "", "only this user's")
	fl.StringVar(&f.object, "object", "", "only those whose object contains this, such as a vDisk's name")
	fl.StringVar(&f.operation, "operation", "", "only this operation, such as UpdateVDisk")
	fl.StringVar(&f.node, "node", "", "node whose log it is (default the one that is asked)")
	fl.Var(&f.since, "since", "only from then on: so long ago, such as 24h, or 2030-01-31 or 2030-01-31T12:00:00Z")
	fl.Var(&f.until, "until", "only before then")
	fl.IntVar(&f.last, "last", 100, "how many; 0: all")
	fl.BoolVar(&f.lines, "json", false, "one entry a line, as JSON")
	fl.BoolVar(&f.follow, "follow", false, "go on with new entries until it is interrupted")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		switch {
		case f.last < 0:
			return usagef("--last %d: write a number, or 0 for all", f.last)
		case f.follow && a.output == outputJSON:
			return usagef("--follow has no end, and -o json is one value: use --json")
		}
		items, err := f.list(ctx, api, 0, f.last)
		if err != nil {
			return err
		}
		if err := a.printAudit(f.lines, true, items); err != nil || !f.follow {
			return err
		}
		seq := func(items []client.AuditEntry, was int64) int64 {
			if n := len(items); n > 0 {
				return items[n-1].Seq
			}
			return was
		}
		return followList(ctx, seq(items, 0), func(after int64) ([]client.AuditEntry, int64, error) {
			items, err := f.list(ctx, api, after, 0)
			return items, seq(items, after), err
		}, func(items []client.AuditEntry) error { return a.printAudit(f.lines, false, items) })
	})
	return cmd
}

// followList shows what comes after a position until ctx ends: next lists that, the oldest first, and
// returns the position after it.
func followList[T, P any](ctx context.Context, at P, next func(after P) ([]T, P, error), show func([]T) error) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		items, then, err := next(at)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		at = then
		if err := show(items); err != nil {
			return err
		}
	}
}

// list returns the last entries after a number, the oldest first; last 0: all.
func (f *auditFlags) list(ctx context.Context, api *client.Client, after int64, last int) ([]client.AuditEntry, error) {
	now := time.Now()
	p := client.ListAuditParams{
		User: given(f.user), Q: given(f.object), Operation: given(f.operation), Node: given(f.node), Since: f.since.time(now), Until: f.until.time(now), After: &after,
	}
	var out []client.AuditEntry
	for {
		p.Limit = new(pageSize)
		if last > 0 {
			p.Limit = new(min(pageSize, last-len(out)))
		}
		l, err := client.Get[client.AuditList](api.ListAudit(ctx, &p))
		if err != nil {
			return nil, err
		}
		out = append(out, l.Items...)
		if l.Next == nil || last > 0 && len(out) >= last {
			slices.Reverse(out)
			return out, nil
		}
		p.Cursor = l.Next
	}
}

func (a *app) printAudit(lines, first bool, items []client.AuditEntry) error {
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
		return printList(a, items, []string{"TIME", "USER", "ADDRESS", "OPERATION", "OBJECT", "RESULT", "CHANGES"}, auditRow)
	}
	for _, e := range items {
		if err := printRows(a.out, [][]string{auditRow(e)}); err != nil {
			return err
		}
	}
	return nil
}

func auditRow(e client.AuditEntry) []string {
	return []string{formatTime(&e.Time), dash(e.User), dash(e.Address), e.Operation, dash(e.Object), auditResult(e), dash(auditChanges(e.Changes))}
}

// auditResult says how it ended.
func auditResult(e client.AuditEntry) string {
	s := strconv.Itoa(e.Status)
	switch {
	case e.Operation == "AuditLost":
		return fmt.Sprintf("%d entries lost", e.Count)
	case e.Status == 0:
		s = "unknown"
	case e.Code != "":
		s += " " + e.Code
	}
	if e.Count > 0 {
		s += fmt.Sprintf(" (and %d more)", e.Count)
	}
	return s
}

func auditChanges(changes []client.AuditChange) string {
	var out []string
	for _, c := range changes {
		if c.Before != nil {
			out = append(out, fmt.Sprintf("%s: %s -> %s", c.Field, *c.Before, c.After))
		} else {
			out = append(out, c.Field+": "+c.After)
		}
	}
	return strings.Join(out, ", ")
}

// momentFlag is a time that is past: absolute, or so long ago.
type momentFlag struct{ expiryFlag }

// Set implements pflag.Value.
func (f *momentFlag) Set(s string) error {
	if f.expiryFlag.Set(s) != nil {
		return usagef("write how long ago, such as 24h, or a date such as 2030-01-31")
	}
	return nil
}

func (f *momentFlag) time(now time.Time) *time.Time {
	if f.in > 0 {
		return new(now.Add(-f.in).UTC())
	}
	return f.expiryFlag.time(now)
}
