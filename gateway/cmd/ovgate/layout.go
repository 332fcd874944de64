package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/openvstorage/ovgate/internal/client"
)

func (a *app) nodeCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check NAME", Short: "Check whether a node has what it needs: clock, interfaces, ports, places", Args: names("NAME"), ValidArgsFunction: a.completeNodes,
	}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		c, err := client.Get[client.NodeCheck](api.CheckNode(ctx, args[0]))
		if err != nil {
			return err
		}
		if a.output == outputJSON {
			return printJSON(a.out, c)
		}
		err = printList(a, c.Checks, []string{"STATE", "CHECK", "OBJECT", "FOUND"}, func(i client.NodeCheckItem) []string {
			return []string{string(i.State), string(i.Code), dash(i.Object), i.Text}
		})
		if err != nil {
			return err
		}
		for _, i := range c.Checks {
			if i.Fix != "" {
				fmt.Fprintf(a.out, "\n%s: %s\n  %s\n  %s\n", cmp.Or(i.Object, "node "+c.Node.Name), i.Text, i.Means, i.Fix)
			}
		}
		return nil
	})
	cmd.Long = "Check whether a node has what it needs: whether its clock is kept and agrees with those of the other nodes, on which\n" +
		"interfaces it is reached, whether it reaches the ports of the others, and whether its places are well. What is not as\n" +
		"it should be comes with what that means and what to do."
	return cmd
}

func (a *app) nodeLayout() *cobra.Command {
	var roles []string
	var apply bool
	cmd := &cobra.Command{Use: "layout NAME", Short: "Show what the disks of a node are for, and what free ones are proposed for", Args: names("NAME"), ValidArgsFunction: a.completeNodes}
	cmd.RunE = a.online(func(ctx context.Context, api *client.Client, args []string) error {
		var chosen *[]string
		if len(roles) > 0 {
			chosen = &roles
		}
		if apply {
			j, err := client.Get[client.Job](api.ApplyNodeLayout(ctx, args[0], &client.ApplyNodeLayoutParams{Role: chosen}))
			if err != nil {
				return err
			}
			return a.printTask(j)
		}
		l, err := client.Get[client.NodeLayout](api.GetNodeLayout(ctx, args[0], &client.GetNodeLayoutParams{Role: chosen}))
		if err != nil {
			return err
		}
		if a.output == outputJSON {
			return printJSON(a.out, l)
		}
		if err := printList(a, l.Disks, []string{"DISK", "KIND", "SIZE", "ROLES", "STATE", "WHY"}, layoutRow); err != nil {
			return err
		}
		for _, n := range l.Notes {
			fmt.Fprintf(a.out, "\n%s\n", n)
		}
		if l.Commands != "" {
			fmt.Fprintf(a.out, "\nAs root on its machine:\n\n%s", l.Commands)
		}
		if l.Config != "" {
			fmt.Fprintf(a.out, "\nIn its configuration, then restart ovgate:\n\n%s", l.Config)
		}
		return nil
	})
	cmd.Long = "Show what the disks of a node are for, and what free ones are proposed for: SSDs before hard disks for journals and read\n" +
		"cache, the rest for the object store. Only what is blank, or has an empty file system that is mounted, is free. Nothing\n" +
		"is changed without --apply, which makes devices of the disks that are ready; commands and lines of the configuration\n" +
		"say what the node cannot do itself."
	cmd.Example = "  ovgate node layout n1 --role sdb=write,read --role sdc=none\n  ovgate node layout n1 --apply"
	cmd.Flags().StringArrayVar(&roles, "role", nil, "DISK=ROLE for a disk: write, read, write,read, alba or none; may be repeated")
	cmd.Flags().BoolVar(&apply, "apply", false, "make devices of the disks that are ready")
	return cmd
}

func layoutRow(d client.LayoutDisk) []string {
	kind := "SSD"
	if d.Rotational {
		kind = "HDD"
	}
	var roles []string
	for _, r := range d.Roles {
		roles = append(roles, string(r))
	}
	why := d.Reason
	if d.Warning != nil {
		why += "; " + *d.Warning
	}
	return []string{d.Name, kind, formatSize(d.Size), dash(strings.Join(roles, ",")), string(d.State), why}
}
