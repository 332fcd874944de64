package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// session returns the verbs of iSCSI sessions.
func (a *app) session() *cobra.Command {
	return group("session", "iSCSI sessions of initiators", a.sessionList(), a.sessionDrop())
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
		header := []string{"ID", "INITIATOR", "ADDRESS", "TARGET", "PORTAL", "CONNECTIONS", "SINCE"}
		return printList(a, items, header, func(s client.ISCSISession) []string {
			return []string{s.ID, s.Initiator, s.Address, dash(s.Target), s.Portal, strconv.Itoa(s.Connections), formatTime(&s.Since)}
		})
	})
	return cmd
}

func (a *app) sessionDrop() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drop ID",
		Short: "Drop an iSCSI session; the initiator may sign in again",
		Args:  names("ID"),
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Drop iSCSI session "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DropISCSISession(ctx, args[0]))
	})
	return cmd
}
