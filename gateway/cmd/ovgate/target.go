package main

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

// target returns the verbs of iSCSI targets.
func (a *app) target() *cobra.Command {
	return group("target", "iSCSI targets and who may sign in",
		a.targetList(), a.targetShow(), a.targetCreate(), a.targetDelete(),
		group("acl", "Initiators that may sign in to a target", a.targetACLAdd(), a.targetACLRemove()),
		a.targetGroup(),
		group("portal", "Addresses through which a target is reached", a.targetPortalSet()))
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
	cmd := &cobra.Command{Use: "show TARGET", Short: "Show a target, named by its iSCSI name, its vDisk, or its own name when it is shared", Args: names("TARGET")}
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

// targetName returns the iSCSI name of a target that may be named by its vDisk
// or, when it is shared, by its own name.
func targetName(ctx context.Context, api *client.Client, name string) (string, error) {
	for _, prefix := range []string{"iqn.", "eui.", "naa."} {
		if strings.HasPrefix(strings.ToLower(name), prefix) {
			return name, nil
		}
	}
	v, err := client.Get[client.VDisk](api.GetVDisk(ctx, name))
	if err == nil && v.Published != nil {
		return v.Published.IQN, nil
	}
	var e *client.APIError
	if err != nil && !(errors.As(err, &e) && e.Code == "not_found") {
		return "", err
	}
	t, terr := client.Get[client.Target](api.GetTarget(ctx, name))
	if terr == nil {
		return t.IQN, nil
	}
	if err != nil {
		return "", terr
	}
	return "", &client.APIError{
		Status: 404, Code: "not_found", Object: "vdisk " + v.Name, Message: "it is not published, so it has no target",
		Hint: "publish it with ovgate vdisk publish " + v.Name,
	}
}

func (a *app) targetCreate() *cobra.Command {
	var iqn string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a target that several vDisks share", Args: names("NAME"),
		Long: "Create a target that several vDisks share. It admits nobody until it has a group.\n" +
			"Place vDisks in it with ovgate vdisk publish VDISK --target NAME.",
	}
	cmd.Flags().StringVar(&iqn, "iqn", "", "iSCSI name of the target (default made from NAME)")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		in := client.TargetInput{Name: args[0], IQN: given(iqn)}
		t, err := client.Get[client.Target](api.CreateTarget(ctx, &client.CreateTargetParams{IdempotencyKey: new(rand.Text())}, in))
		if err != nil {
			return err
		}
		return a.printTarget(t)
	})
	return cmd
}

func (a *app) targetDelete() *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "delete TARGET", Short: "Delete a shared target without LUNs", Args: names("TARGET")}
	cmd.Flags().BoolVar(&force, "force", false, "drop the sessions of initiators that are signed in")
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		if err := a.confirm(ctx, "Delete target "+args[0]+"?"); err != nil {
			return err
		}
		return client.Done(api.DeleteTarget(ctx, args[0], &client.DeleteTargetParams{Force: &force}))
	})
	return cmd
}

func (a *app) targetPortalSet() *cobra.Command {
	var all, redirect bool
	cmd := &cobra.Command{
		Use: "set TARGET ADDRESS...", Short: "Choose the portals of a target, or every portal of the node",
		Example: "  ovgate target portal set db1 192.0.2.10:3260 [2001:db8::10]:3260\n  ovgate target portal set db1 --all\n  ovgate target portal set db1 --all --redirect",
	}
	cmd.Flags().BoolVar(&all, "all", false, "every portal of the node, also later ones")
	cmd.Flags().BoolVar(&redirect, "redirect", false, "send initiators to the node that serves the vDisk, for those without multipath; --redirect=false ends that (default as it is)")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("target portal set: TARGET is missing")
		}
		if all == (len(args) > 1) {
			return usagef("target portal set: give addresses, or --all")
		}
		return nil
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		iqn, err := targetName(ctx, api, args[0])
		if err != nil {
			return err
		}
		in := client.PortalsInput{Addresses: append([]string{}, args[1:]...)}
		if cmd.Flags().Changed("redirect") {
			in.Redirect = &redirect
		}
		t, err := client.Get[client.Target](api.SetTargetPortals(ctx, iqn, in))
		if err != nil {
			return err
		}
		return a.printTarget(t)
	})
	cmd.ValidArgsFunction = a.completeVDisks
	return cmd
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

// lunText prints what is behind a LUN, as far as it is not usual.
func lunText(l client.TargetLUN) string {
	text := l.VDisk + " (" + formatSize(l.Size) + ")"
	if l.BlockSize != defaultBlockSize {
		text += ", blocks of " + formatSize(int64(l.BlockSize))
	}
	if l.State != client.VDiskStateRunning {
		text += ", " + string(l.State)
	}
	return text
}

// reservationText prints the persistent reservations of a LUN.
func reservationText(r client.Reservation) string {
	text := strconv.Itoa(r.Registrations) + " registered"
	if r.Type != "" {
		text = r.Type + ", held by " + r.Holder + ", " + text
	}
	if r.Persistent {
		text += ", persistent"
	}
	return text
}

// printTarget prints a target.
func (a *app) printTarget(t client.Target) error {
	rows := [][]string{{"target", t.IQN}}
	if t.Shared {
		rows = append(rows, []string{"name", t.Name})
	}
	for _, l := range t.LUNs {
		rows = append(rows, []string{"lun " + strconv.Itoa(l.LUN), lunText(l)})
		if l.Qos != nil {
			rows = append(rows, []string{"  limits", qosText(l.Qos)})
		}
		if l.ReservedBy != "" {
			rows = append(rows, []string{"  reserved by", l.ReservedBy})
		}
		if l.Reservation != nil {
			rows = append(rows, []string{"  reservation", reservationText(*l.Reservation)})
		}
		if l.Stats != nil {
			rows = append(rows, lunStatsRows(*l.Stats)...)
		}
	}
	portals := portalsText(t.Portals)
	if !t.AllPortals && len(t.Portals) == 0 {
		portals = "none of this node"
	}
	rows = append(rows, []string{"portals", portals})
	if t.Redirect {
		rows = append(rows, []string{"redirect", "initiators are sent to the node that serves the vDisk"})
	}
	rows = append(rows, []string{"open", yesNo(t.Open)})
	for _, g := range t.Groups {
		rows = append(rows, []string{"group " + g.Name, groupText(g)})
		for _, name := range g.Initiators {
			rows = append(rows, []string{"  initiator", name})
		}
	}
	if t.ChapUser != "" {
		rows = append(rows, []string{"chap user", t.ChapUser})
	}
	return printOne(a, t, append(rows,
		[]string{"sessions", strconv.Itoa(t.Sessions)},
		[]string{"created", formatTime(&t.Created)}))
}
