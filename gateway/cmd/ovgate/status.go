package main

import (
	"context"
	"strconv"

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
	p, c := s.Performance, s.Capacity
	return printOne(a, s, append(rows, [][]string{
		{"node", s.Node.Name + " (" + s.Node.ID + ")"},
		{"version", s.Version},
		{"started", formatTime(&s.Started)},
		{"vpools", strconv.Itoa(s.Counts.Vpools)},
		{"vdisks", strconv.Itoa(s.Counts.Vdisks) + ", " + strconv.Itoa(s.Counts.Published) + " published"},
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
