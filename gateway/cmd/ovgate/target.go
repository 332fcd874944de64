package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// target returns the verbs of iSCSI targets.
func (a *app) target() *cobra.Command {
	return group("target", "iSCSI targets and who may sign in",
		a.targetList(), a.targetShow(),
		group("acl", "Initiators that may sign in to a target", a.targetACLAdd(), a.targetACLRemove()))
}

func (a *app) targetList() *cobra.Command {
	var query string
	cmd := &cobra.Command{Use: "list", Short: "List iSCSI targets", Args: names()}
	cmd.Flags().StringVarP(&query, "query", "q", "", "only those whose name contains this")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, _ []string) error {
		items, err := client.All(func(cursor *string) ([]client.Target, *string, error) {
			l, err := client.Get[client.TargetList](api.ListTargets(ctx, &client.ListTargetsParams{Limit: new(pageSize), Cursor: cursor, Q: given(query)}))
			return l.Items, l.Next, err
		})
		if err != nil {
			return err
		}
		header := []string{"TARGET", "VDISKS", "PORTALS", "INITIATORS", "SESSIONS"}
		return printList(a, items, header, func(t client.Target) []string {
			var disks []string
			for _, l := range t.LUNs {
				disks = append(disks, l.VDisk)
			}
			return []string{t.IQN, dash(strings.Join(disks, " ")), portalsText(t.Portals), initiatorsText(t), strconv.Itoa(t.Sessions)}
		})
	})
	return cmd
}

// initiatorsText prints how many names may sign in.
func initiatorsText(t client.Target) string {
	if t.Open {
		return "any"
	}
	return strconv.Itoa(len(t.ACL))
}

func (a *app) targetShow() *cobra.Command {
	cmd := &cobra.Command{Use: "show TARGET", Short: "Show a target, named by its iSCSI name or its vDisk", Args: names("TARGET")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		iqn, err := targetName(ctx, api, args[0])
		if err != nil {
			return err
		}
		t, err := client.Get[client.Target](api.GetTarget(ctx, iqn))
		if err != nil {
			return err
		}
		return a.printTarget(t)
	})
	cmd.ValidArgsFunction = a.completeVDisks
	return cmd
}

// targetName returns the iSCSI name of a target that may be named by its vDisk.
func targetName(ctx context.Context, api *client.Client, name string) (string, error) {
	for _, prefix := range []string{"iqn.", "eui.", "naa."} {
		if strings.HasPrefix(strings.ToLower(name), prefix) {
			return name, nil
		}
	}
	v, err := client.Get[client.VDisk](api.GetVDisk(ctx, name))
	if err != nil {
		return "", err
	}
	if v.Published == nil {
		return "", &client.APIError{
			Status: 404, Code: "not_found", Object: "vdisk " + v.Name, Message: "it is not published, so it has no target",
			Hint: "publish it with ovgate vdisk publish " + v.Name,
		}
	}
	return v.Published.IQN, nil
}

func (a *app) targetACLAdd() *cobra.Command {
	cmd := &cobra.Command{Use: "add TARGET INITIATOR", Short: "Let an initiator sign in", Args: names("TARGET", "INITIATOR")}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		iqn, err := targetName(ctx, api, args[0])
		if err != nil {
			return err
		}
		t, err := client.Get[client.Target](api.AddTargetInitiator(ctx, iqn, args[1]))
		if err != nil {
			return err
		}
		return a.printTarget(t)
	})
	cmd.ValidArgsFunction = a.completeVDisks
	return cmd
}

func (a *app) targetACLRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove TARGET INITIATOR",
		Short: "Keep an initiator out and drop its sessions",
		Args:  names("TARGET", "INITIATOR"),
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		iqn, err := targetName(ctx, api, args[0])
		if err != nil {
			return err
		}
		return client.Done(api.RemoveTargetInitiator(ctx, iqn, args[1]))
	})
	cmd.ValidArgsFunction = a.completeVDisks
	return cmd
}

// printTarget prints a target.
func (a *app) printTarget(t client.Target) error {
	rows := [][]string{{"target", t.IQN}}
	for _, l := range t.LUNs {
		rows = append(rows, []string{"lun " + strconv.Itoa(l.LUN), l.VDisk + " (" + formatSize(l.Size) + ")"})
	}
	rows = append(rows,
		[]string{"portals", portalsText(t.Portals)},
		[]string{"open", yesNo(t.Open)})
	for _, name := range t.ACL {
		rows = append(rows, []string{"initiator", name})
	}
	return printOne(a, t, append(rows,
		[]string{"chap user", t.ChapUser},
		[]string{"sessions", strconv.Itoa(t.Sessions)},
		[]string{"created", formatTime(&t.Created)}))
}
