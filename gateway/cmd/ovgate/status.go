package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// status returns the verb that shows how a node is.
func (a *app) status() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show health, capacity and performance of the node", Args: names()}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		s, err := client.Get[client.Status](api.GetStatus(ctx))
		if err != nil {
			return err
		}
		return a.printStatus(s)
	})
	return cmd
}

// fillingText says when a place is full, if it goes on filling as in the last day.
func fillingText(f client.Filling) string {
	text := f.What + ": "
	if f.To80Ms != nil && *f.To80Ms > 0 {
		text += "80 % in " + formatDays(*f.To80Ms) + ", "
	}
	return text + "full in " + formatDays(*f.To100Ms)
}

// formatDays prints a long time in whole days, or hours where it is less than two.
func formatDays(ms int64) string {
	hours := ms / time.Hour.Milliseconds()
	if hours < 48 {
		return strconv.FormatInt(hours, 10) + "h"
	}
	return strconv.FormatInt(hours/24, 10) + "d"
}

// printStatus prints a status; causes of bad health first.
func (a *app) printStatus(s client.Status) error {
	rows := [][]string{{"health", string(s.Health.State)}}
	for _, c := range s.Health.Causes {
		text := c.Text
		if c.Object != "" {
			text = c.Object + ": " + text
		}
		rows = append(rows, []string{"  " + string(c.State), text})
		if c.Hint != "" {
			rows = append(rows, []string{"  hint", c.Hint})
		}
	}
	for _, f := range s.Filling {
		if f.To100Ms != nil {
			rows = append(rows, []string{"filling", fillingText(f)})
		}
	}
	p, c := s.Performance, s.Capacity
	return printOne(a, s, append(rows, [][]string{
		{"node", s.Node.Name + " (" + s.Node.ID + ")"},
		{"version", s.Version},
		{"started", formatTime(&s.Started)},
		{"vpools", strconv.Itoa(s.Counts.Vpools)},
		{"vdisks", strconv.Itoa(s.Counts.Vdisks) + ", " + strconv.Itoa(s.Counts.Published) + " published"},
		{"dtl", dtlCounts(s.Counts.Dtl)},
		{"sessions", strconv.Itoa(s.Counts.Sessions)},
		{"portals", portalsText(s.Portals)},
		{"free", freeText(c.Free, c.Total)},
		{"stored", formatSize(c.Stored)},
		{"mapped", formatSize(c.Mapped) + " of " + formatSize(c.Provisioned) + " provisioned"},
		{"journal", formatSize(c.JournalUsed) + " of " + formatSize(c.JournalQuota)},
		{"read", rateText(p.ReadIops, p.ReadBytesPerSecond, p.ReadP50Us, p.ReadP99Us)},
		{"write", rateText(p.WriteIops, p.WriteBytesPerSecond, p.WriteP50Us, p.WriteP99Us)},
		{"observed", formatTime(&s.ObservedAt)},
	}...))
}
