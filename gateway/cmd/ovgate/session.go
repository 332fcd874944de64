package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// session returns the verbs of iSCSI sessions.
func (a *app) session() *cobra.Command {
	return group("session", "iSCSI sessions of initiators", a.sessionList(), a.sessionShow(), a.sessionDrop())
}

func (a *app) sessionList() *cobra.Command {
	var query, target string
	cmd := &cobra.Command{Use: "list", Short: "List iSCSI sessions", Args: names()}
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those whose initiator or target contains this")
	cmd.Flags().StringVar(&target, "target", "", "only those of this target, named by its iSCSI name or its vDisk")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		params := client.ListISCSISessionsParams{Limit: new(pageSize), Q: given(query)}
		if target != "" {
			iqn, err := targetName(ctx, api, target)
			if err != nil {
				return err
			}
			params.Target = &iqn
		}
		items, err := client.All(func(cursor *string) ([]client.ISCSISession, *string, error) {
			params.Cursor = cursor
			l, err := client.Get[client.ISCSISessionList](api.ListISCSISessions(ctx, &params))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		header := []string{"ID", "INITIATOR", "ADDRESS", "TARGET", "PORTAL", "CONNECTIONS", "STATE", "SINCE"}
		return printList(a, items, header, func(s client.ISCSISession) []string {
			return []string{s.ID, s.Initiator, s.Address, dash(s.Target), s.Portal, strconv.Itoa(s.Connections), string(s.State), formatTime(&s.Since)}
		})
	})
	return cmd
}

func (a *app) sessionDrop() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "drop ID",
		Aliases: []string{"kick"},
		Short:   "Drop an iSCSI session; the initiator may sign in again",
		Args:    names("ID"),
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Drop iSCSI session "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DropISCSISession(ctx, args[0]))
	})
	return cmd
}

// maxSample is the longest that the API watches a session.
const maxSample = 10 * time.Second

func (a *app) sessionShow() *cobra.Command {
	sample := time.Second
	cmd := &cobra.Command{Use: "show ID", Short: "Show what a session negotiated, and what it does on each LUN", Args: names("ID")}
	cmd.Flags().DurationVar(&sample, "sample", sample, "time to watch, up to 10s, that rates and latencies are of; 0: since the sign-in")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if sample < 0 || sample > maxSample {
			return usagef("--sample %s: write a time from 0 to %s", sample, maxSample)
		}
		s, err := client.Get[client.ISCSISessionDetail](api.GetISCSISession(ctx, args[0], &client.GetISCSISessionParams{SampleMs: new(int(sample.Milliseconds()))}))
		if err != nil {
			return err
		}
		return printOne(a, s, sessionRows(s))
	})
	return cmd
}

func sessionRows(s client.ISCSISessionDetail) [][]string {
	n := s.Negotiated
	rows := [][]string{
		{"id", s.Session.ID},
		{"initiator", s.Session.Initiator},
		{"address", s.Session.Address},
		{"state", string(s.Session.State)},
		{"target", s.Session.Target},
		{"group", s.Group},
		{"portal", s.Session.Portal + "," + strconv.Itoa(s.PortalGroup)},
		{"isid, tsih", s.Isid + ", " + strconv.Itoa(s.Tsih)},
		{"digests", "header " + yesNo(n.HeaderDigest) + ", data " + yesNo(n.DataDigest)},
		{"receive segment", "initiator " + formatSize(n.MaxRecvInitiator) + ", target " + formatSize(n.MaxRecvTarget)},
		{"burst", "first " + formatSize(n.FirstBurst) + ", most " + formatSize(n.MaxBurst)},
		{"initial R2T", yesNo(n.InitialR2T)},
		{"immediate data", yesNo(n.ImmediateData)},
		{"outstanding R2T", strconv.Itoa(n.MaxOutstandingR2T)},
		{"time to wait", strconv.Itoa(n.Time2Wait) + "s, to retain " + strconv.Itoa(n.Time2Retain) + "s"},
		{"recovery level", strconv.Itoa(n.ErrorRecoveryLevel)},
		{"connections", strconv.Itoa(s.Session.Connections) + " of " + strconv.Itoa(n.MaxConnections)},
		{"commands", strconv.FormatInt(s.Commands, 10) + ", " + strconv.Itoa(s.Outstanding) + " outstanding"},
		{"read, written", formatSize(s.BytesRead) + ", " + formatSize(s.BytesWritten)},
	}
	for _, l := range s.LUNs {
		rows = append(rows, []string{"lun " + strconv.Itoa(l.LUN), dash(l.VDisk)})
		rows = append(rows, lunStatsRows(l)...)
	}
	rows = append(rows, []string{"rates over", formatMillis(s.SpanMs)})
	return append(rows, []string{"since", formatTime(&s.Session.Since)}, []string{"observed", formatTime(&s.ObservedAt)})
}

// lunStatsRows prints what was done on a LUN.
func lunStatsRows(l client.LUNStats) [][]string {
	io := func(s client.IOStats) string {
		text := strconv.FormatInt(s.Commands, 10) + " commands, " + formatSize(s.Bytes) + ", " + strconv.FormatInt(s.Errors, 10) + " errors"
		if s.Iops > 0 {
			text += fmt.Sprintf(", %.0f IOPS, %s/s", s.Iops, formatSize(int64(s.BytesPerSecond)))
		}
		return text + ", mean " + formatMicros(s.MeanUs) + ", p50 " + formatMicros(s.P50Us) + ", p99 " + formatMicros(s.P99Us)
	}
	return [][]string{
		{"  read", io(l.Read)},
		{"  write", io(l.Write)},
		{"  other", io(l.Other)},
		{"  queue", strconv.Itoa(l.Depth) + " now, " + strconv.Itoa(l.MaxDepth) + " at most, " + strconv.Itoa(l.Waiting) + " waiting, " +
			strconv.FormatInt(l.Delayed, 10) + " delayed, " + strconv.FormatInt(l.QueueFull, 10) + " refused as full, " + strconv.FormatInt(l.Aborted, 10) + " aborted"},
	}
}
